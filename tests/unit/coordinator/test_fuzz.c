/* Replays the kept inputs of the fuzz targets of a coordinator: requests of clients, messages of
 * workers, its state folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuzz/replay.h"

#define LLVMFuzzerTestOneInput fuzz_calls
#include "fuzz/fuzz_call.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_session
#include "fuzz/fuzz_session.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_state
#include "fuzz/fuzz_state.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput

static void test_kept_fuzz_inputs_of_calls_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("call", fuzz_calls) > 0);
    fuzz_world_stop(&call_world);
    assert_int_equal(cop_folder_remove(call_world.data, NULL), COP_OK);
}

static void test_kept_fuzz_inputs_of_sessions_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("session", fuzz_session) > 0);
    if (session_world.server) end_world(&session_world);
    assert_int_equal(cop_folder_remove(session_world.data, NULL), COP_OK);
}

static void test_kept_fuzz_inputs_of_state_files_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("state", fuzz_state) > 0);
    assert_int_equal(cop_folder_remove(state_folder.folder, NULL), COP_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_fuzz_inputs_of_calls_pass),
        cmocka_unit_test(test_kept_fuzz_inputs_of_sessions_pass),
        cmocka_unit_test(test_kept_fuzz_inputs_of_state_files_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
