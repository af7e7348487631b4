/* Replays the kept inputs of the fuzz target `pair`, which needs both a coordinator and a worker.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuzz/replay.h"

#define LLVMFuzzerTestOneInput fuzz_pair
#include "fuzz/fuzz_pair.c" // NOLINT(bugprone-suspicious-include)
#undef LLVMFuzzerTestOneInput

static void test_kept_fuzz_inputs_of_pairs_pass(void **state) {
    (void)state;
    assert_true(fuzz_replay("pair", fuzz_pair) > 0);
    worker_compute_destroy(pair.compute);
    coord_datasets_close(pair.sets);
    coord_store_close(pair.store);
    assert_int_equal(cop_folder_remove(pair.state, NULL), COP_OK);
    assert_int_equal(cop_folder_remove(pair.folder[1], NULL), COP_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept_fuzz_inputs_of_pairs_pass)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
