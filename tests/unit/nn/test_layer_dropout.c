/* dropout: masks compared with rule D3 bit for bit; scopes, variants and modes.
 * LABELS: quick */
#include <math.h>

#include "unit/nn/model_fixture.h"

enum { UNITS = 300, COLUMNS = 40, LAYER = 4 };

typedef struct outcome {
    float y[UNITS][48];
} outcome;

/* Runs the forward pass on ones, so that y shows mask and scale. */
static void forward_ones(const cop_layer_spec *spec, cop_mode mode, uint32_t step, outcome *out) {
    one_layer one;
    cop_error error = {0};
    const cop_shape in = {.rank = 1, .dims = {UNITS}};
    assert_int_equal(one_layer_bind(&one, spec, in, LAYER, &error), COP_OK);
    one_layer_open(&one, best_kernels(), COLUMNS);
    one.context.mode = mode;
    one.context.step = step;
    float *x = one_layer_tensor(&one, &in);
    for (int i = 0; i < UNITS * 48; i++) x[i] = 1;
    one.layer.ops->forward(&one.layer, &one.context, x, &out->y[0][0]);
    cop_free(x);
    one_layer_close(&one);
}

/* A second implementation of D3: is unit u of column c dropped? Slow and simple, with one Philox
 * block per unit. */
static int dropped_by_rule(double p, int c, int u, cop_scope scope, uint32_t step) {
    const int shard = c >= COLUMNS / 2;
    const uint32_t sample = scope == COP_SCOPE_SHARD ? 0 : (uint32_t)(c - shard * (COLUMNS / 2));
    const uint32_t block = (uint32_t)(p == 0.5 ? u / 128 : u / 8);
    const uint32_t counter[4] = {block, sample, LAYER, step};
    uint32_t words[4];
    cop_philox(counter, cop_rng_derive(1, COP_RNG_MASK, (uint32_t)shard), words);
    if (p == 0.5) return (int)(words[u % 128 / 32] >> (u % 32) & 1);
    const uint32_t lane = words[u % 8 / 2] >> (u % 2 * 16) & 0xffff;
    return lane < (uint32_t)lround(p * 65536);
}

static void check_masks(double p, cop_scope scope) {
    const cop_layer_spec spec = spec_dropout(p, scope, COP_VARIANT_INVERTED);
    outcome *out = cop_alloc(sizeof *out);
    forward_ones(&spec, COP_MODE_TRAIN, 9, out);
    const float scale = (float)(1 / (1 - p));
    for (int u = 0; u < UNITS; u++)
        for (int c = 0; c < COLUMNS; c++) {
            const float expected = dropped_by_rule(p, c, u, scope, 9) ? 0 : scale;
            if (out->y[u][c] != expected)
                fail_msg("p %g unit %d column %d: %g, expected %g", p, u, c, (double)out->y[u][c],
                         (double)expected);
        }
    cop_free(out);
}

static void test_masks_follow_the_rule_for_half(void **state) {
    (void)state;
    check_masks(0.5, COP_SCOPE_SAMPLE);
}

static void test_masks_follow_the_rule_for_any_p(void **state) {
    (void)state;
    check_masks(0.2, COP_SCOPE_SAMPLE);
    check_masks(0.75, COP_SCOPE_SAMPLE);
}

static void test_shard_scope_follows_the_rule(void **state) {
    (void)state;
    check_masks(0.5, COP_SCOPE_SHARD);
    check_masks(0.2, COP_SCOPE_SHARD);
}

static int differing_units(const outcome *out, int a, int b) {
    int count = 0;
    for (int u = 0; u < UNITS; u++) count += out->y[u][a] != out->y[u][b];
    return count;
}

static void test_shard_scope_uses_one_mask_for_all_samples_of_a_shard(void **state) {
    (void)state;
    const cop_layer_spec spec = spec_dropout(0.5, COP_SCOPE_SHARD, COP_VARIANT_INVERTED);
    outcome *out = cop_alloc(sizeof *out);
    forward_ones(&spec, COP_MODE_TRAIN, 1, out);
    for (int c = 1; c < COLUMNS / 2; c++) assert_int_equal(differing_units(out, 0, c), 0);
    assert_true(differing_units(out, 0, COLUMNS / 2) > UNITS / 4);
    cop_free(out);
}

static void test_sample_scope_uses_another_mask_for_each_sample(void **state) {
    (void)state;
    const cop_layer_spec spec = spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    outcome *out = cop_alloc(sizeof *out);
    forward_ones(&spec, COP_MODE_TRAIN, 1, out);
    for (int c = 1; c < COLUMNS; c++) assert_true(differing_units(out, 0, c) > UNITS / 4);
    cop_free(out);
}

static void test_every_step_draws_another_mask(void **state) {
    (void)state;
    const cop_layer_spec spec = spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    outcome *out = cop_alloc(2 * sizeof *out);
    forward_ones(&spec, COP_MODE_TRAIN, 1, &out[0]);
    forward_ones(&spec, COP_MODE_TRAIN, 2, &out[1]);
    int differ = 0;
    for (int u = 0; u < UNITS; u++) differ += out[0].y[u][3] != out[1].y[u][3];
    assert_true(differ > UNITS / 4);
    cop_free(out);
}

static void test_kept_fraction_is_one_minus_p(void **state) {
    (void)state;
    static const double ps[] = {0.1, 0.2, 0.5, 0.9};
    outcome *out = cop_alloc(sizeof *out);
    for (int i = 0; i < 4; i++) {
        const cop_layer_spec spec = spec_dropout(ps[i], COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC);
        int kept = 0;
        for (uint32_t step = 1; step <= 10; step++) {
            forward_ones(&spec, COP_MODE_TRAIN, step, out);
            for (int u = 0; u < UNITS; u++)
                for (int c = 0; c < COLUMNS; c++) kept += out->y[u][c] != 0;
        }
        const double n = 10.0 * UNITS * COLUMNS, deviation = sqrt(ps[i] * (1 - ps[i]) / n);
        assert_true(fabs(kept / n - (1 - ps[i])) < 5 * deviation);
    }
    cop_free(out);
}

static void assert_all(const outcome *out, float value) {
    for (int u = 0; u < UNITS; u++)
        for (int c = 0; c < COLUMNS; c++) assert_true(out->y[u][c] == value);
}

static void test_eval_drops_nothing_and_scales_only_classic(void **state) {
    (void)state;
    outcome *out = cop_alloc(sizeof *out);
    cop_layer_spec spec = spec_dropout(0.2, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    forward_ones(&spec, COP_MODE_EVAL, 1, out);
    assert_all(out, 1.0f);
    spec.variant = COP_VARIANT_CLASSIC;
    forward_ones(&spec, COP_MODE_EVAL, 1, out);
    assert_all(out, 0.8f);
    cop_free(out);
}

static void test_mc_mode_drops_as_in_training(void **state) {
    (void)state;
    outcome *out = cop_alloc(2 * sizeof *out);
    for (int variant = COP_VARIANT_INVERTED; variant <= COP_VARIANT_CLASSIC; variant++) {
        const cop_layer_spec spec = spec_dropout(0.3, COP_SCOPE_SAMPLE, (cop_variant)variant);
        forward_ones(&spec, COP_MODE_TRAIN, 5, &out[0]);
        forward_ones(&spec, COP_MODE_MC, 5, &out[1]);
        assert_memory_equal(&out[0], &out[1], sizeof *out);
        float largest = 0;
        for (int u = 0; u < UNITS; u++)
            if (out[1].y[u][0] > largest) largest = out[1].y[u][0];
        assert_true(largest == (variant == COP_VARIANT_CLASSIC ? 1.0f : (float)(1 / (1 - 0.3))));
    }
    cop_free(out);
}

static void test_p_zero_is_the_identity_in_every_mode(void **state) {
    (void)state;
    outcome *out = cop_alloc(sizeof *out);
    for (int mode = COP_MODE_TRAIN; mode <= COP_MODE_MC; mode++)
        for (int variant = COP_VARIANT_INVERTED; variant <= COP_VARIANT_CLASSIC; variant++) {
            const cop_layer_spec spec = spec_dropout(0, COP_SCOPE_SAMPLE, (cop_variant)variant);
            forward_ones(&spec, (cop_mode)mode, 1, out);
            assert_all(out, 1.0f);
        }
    cop_free(out);
}

static void test_dropout_refuses_p_outside_its_range(void **state) {
    (void)state;
    static const double bad[] = {-0.1, 1.0, 1.5, NAN};
    static const char *const expected[] = {"p is -0.1", "p is 1,", "p is 1.5", "p is "};
    const cop_shape in = {.rank = 1, .dims = {UNITS}};
    for (int i = 0; i < 4; i++) {
        one_layer one;
        cop_error error = {0};
        const cop_layer_spec spec = spec_dropout(bad[i], COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC);
        assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
        assert_non_null(strstr(error.text, expected[i]));
        assert_non_null(strstr(error.text, "at least 0 and below 1"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks_follow_the_rule_for_half),
        cmocka_unit_test(test_masks_follow_the_rule_for_any_p),
        cmocka_unit_test(test_shard_scope_follows_the_rule),
        cmocka_unit_test(test_shard_scope_uses_one_mask_for_all_samples_of_a_shard),
        cmocka_unit_test(test_sample_scope_uses_another_mask_for_each_sample),
        cmocka_unit_test(test_every_step_draws_another_mask),
        cmocka_unit_test(test_kept_fraction_is_one_minus_p),
        cmocka_unit_test(test_eval_drops_nothing_and_scales_only_classic),
        cmocka_unit_test(test_mc_mode_drops_as_in_training),
        cmocka_unit_test(test_p_zero_is_the_identity_in_every_mode),
        cmocka_unit_test(test_dropout_refuses_p_outside_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
