/* Replays the kept inputs of the fuzz target of a coordinator's messages: leases, and answers to
 * calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuzz/replay.h"

#define LLVMFuzzerTestOneInput fuzz_answer
#include "fuzz/fuzz_answer.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput

static void test_kept_fuzz_inputs_of_answers_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("answer", fuzz_answer) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept_fuzz_inputs_of_answers_pass)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
