/* Learning rates and momenta over the steps, compared with values of their formulas computed by
 * hand or by libm. LABELS: quick */
#include <math.h>

#include "unit/nn/model_fixture.h"

static cop_optimizer_spec with(cop_schedule schedule) {
    return (cop_optimizer_spec){.kind = COP_OPTIMIZER_SGD, .rate = 0.1, .schedule = schedule};
}

static void assert_rate(const cop_optimizer_spec *spec, uint64_t step, double expected) {
    const double found = cop_schedule_rate(spec, step);
    if (!(fabs(found - expected) <= 1e-14 * fabs(expected) + 1e-18))
        fail_msg("step %llu: rate %.17g, expected %.17g", (unsigned long long)step, found,
                 expected);
}

static void test_constant_rate_never_changes(void **state) {
    (void)state;
    const cop_optimizer_spec spec = with((cop_schedule){.kind = COP_SCHEDULE_CONSTANT});
    assert_true(cop_schedule_rate(&spec, 1) == 0.1);
    assert_true(cop_schedule_rate(&spec, 1000000) == 0.1);
}

static void test_step_schedule_drops_after_every_full_period(void **state) {
    (void)state;
    const cop_optimizer_spec spec =
        with((cop_schedule){.kind = COP_SCHEDULE_STEP, .every = 10, .factor = 0.5});
    assert_rate(&spec, 1, 0.1);
    assert_rate(&spec, 10, 0.1);
    assert_rate(&spec, 11, 0.05);
    assert_rate(&spec, 20, 0.05);
    assert_rate(&spec, 21, 0.025);
}

static void test_inverse_schedule_halves_the_rate_when_decay_times_t_is_one(void **state) {
    (void)state;
    const cop_optimizer_spec spec =
        with((cop_schedule){.kind = COP_SCHEDULE_INVERSE, .decay = 1e-4});
    assert_rate(&spec, 1, 0.1);
    assert_rate(&spec, 10001, 0.05);
    assert_rate(&spec, 20001, 0.1 / 3);
}

static void test_exponential_schedule_is_a_power(void **state) {
    (void)state;
    const cop_optimizer_spec spec =
        with((cop_schedule){.kind = COP_SCHEDULE_EXPONENTIAL, .factor = 0.999});
    assert_rate(&spec, 1, 0.1);
    assert_rate(&spec, 2, 0.0999);
    for (uint64_t step = 3; step < 5000; step += 97) {
        const double expected = 0.1 * pow(0.999, (double)(step - 1));
        assert_true(fabs(cop_schedule_rate(&spec, step) - expected) <= 1e-12 * expected);
    }
}

static void test_cosine_schedule_goes_from_rate_to_final(void **state) {
    (void)state;
    const cop_optimizer_spec spec =
        with((cop_schedule){.kind = COP_SCHEDULE_COSINE, .final = 0.01, .total_steps = 100});
    assert_rate(&spec, 1, 0.1);
    assert_rate(&spec, 51, 0.055);
    assert_rate(&spec, 26, 0.01 + 0.09 * (1 + sqrt(0.5)) / 2);
    assert_rate(&spec, 101, 0.01);
    assert_rate(&spec, 500, 0.01);
}

static void test_warmup_rises_in_equal_steps_to_the_schedule(void **state) {
    (void)state;
    cop_optimizer_spec spec = with((cop_schedule){.kind = COP_SCHEDULE_CONSTANT, .warmup = 4});
    assert_rate(&spec, 1, 0.025);
    assert_rate(&spec, 2, 0.05);
    assert_rate(&spec, 3, 0.075);
    assert_rate(&spec, 4, 0.1);
    assert_rate(&spec, 5, 0.1);
    spec.schedule = (cop_schedule){.kind = COP_SCHEDULE_INVERSE, .decay = 1, .warmup = 4};
    assert_rate(&spec, 2, 0.1 / 2 * 0.5);
}

static void test_momentum_ramps_linearly_and_stays(void **state) {
    (void)state;
    const cop_optimizer_spec spec = {
        .kind = COP_OPTIMIZER_SGD, .momentum = 0.5, .momentum_final = 0.9, .momentum_steps = 5};
    const double expected[] = {0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9};
    for (uint64_t step = 1; step <= 7; step++)
        assert_true(fabs(cop_optimizer_momentum(&spec, step) - expected[step - 1]) < 1e-15);
}

static void test_momentum_without_ramp_is_constant(void **state) {
    (void)state;
    const cop_optimizer_spec spec = {
        .kind = COP_OPTIMIZER_SGD, .momentum = 0.95, .momentum_final = 0.5};
    assert_true(cop_optimizer_momentum(&spec, 1) == 0.95);
    assert_true(cop_optimizer_momentum(&spec, 12345) == 0.95);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant_rate_never_changes),
        cmocka_unit_test(test_step_schedule_drops_after_every_full_period),
        cmocka_unit_test(test_inverse_schedule_halves_the_rate_when_decay_times_t_is_one),
        cmocka_unit_test(test_exponential_schedule_is_a_power),
        cmocka_unit_test(test_cosine_schedule_goes_from_rate_to_final),
        cmocka_unit_test(test_warmup_rises_in_equal_steps_to_the_schedule),
        cmocka_unit_test(test_momentum_ramps_linearly_and_stays),
        cmocka_unit_test(test_momentum_without_ramp_is_constant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
