/* The prediction of a step from a trial. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client/measure/trial.h"

static void test_step_lasts_as_long_as_the_worker_with_most_shards(void **state) {
    (void)state;
    const cop_job job = {.shards = 8};
    const cli_trial trial = {.compute_ms = 80, .update_ms = 2};
    assert_float_equal(cli_trial_predict(&trial, &job, 1, 0), 82, 1e-9);
    assert_float_equal(cli_trial_predict(&trial, &job, 3, 0), 32, 1e-9); /* 3 shards of 8 */
    assert_float_equal(cli_trial_predict(&trial, &job, 4, 0), 22, 1e-9);
    assert_float_equal(cli_trial_predict(&trial, &job, 7, 0), 22, 1e-9);
    assert_float_equal(cli_trial_predict(&trial, &job, 8, 0), 12, 1e-9);
    assert_float_equal(cli_trial_predict(&trial, &job, 100, 0), 12, 1e-9);
}

static void test_useful_workers_are_the_fewest_of_the_shortest_step(void **state) {
    (void)state;
    const cop_job job = {.shards = 8};
    const cli_trial slow = {.compute_ms = 80, .update_ms = 2};
    assert_int_equal(cli_trial_useful_workers(&slow, &job, 100, 0), 8);
    assert_int_equal(cli_trial_useful_workers(&slow, &job, 7, 0), 4);
    assert_int_equal(cli_trial_useful_workers(&slow, &job, 1, 0), 1);
    const cli_trial quick = {.compute_ms = 1, .update_ms = 100};
    assert_int_equal(cli_trial_useful_workers(&quick, &job, 100, 0), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_lasts_as_long_as_the_worker_with_most_shards),
        cmocka_unit_test(test_useful_workers_are_the_fewest_of_the_shortest_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
