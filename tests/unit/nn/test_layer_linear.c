/* linear: errors, parameters, and initial weights compared with their written definition.
 * LABELS: quick */
#include <math.h>

#include "common/base/real.h"
#include "unit/nn/model_fixture.h"

static const cop_shape flat_400 = {.rank = 1, .dims = {400}};

static void open_layer(one_layer *one, cop_layer_spec spec, int index, uint64_t seed) {
    cop_error error = {0};
    assert_int_equal(one_layer_bind(one, &spec, flat_400, index, &error), COP_OK);
    one_layer_open(one, best_kernels(), 1);
    one->layer.ops->init(&one->layer, seed, one->parameters, one->flat);
}

static void assert_refused(cop_layer_spec spec, cop_shape in, const char *part) {
    one_layer one;
    cop_error error = {0};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
    if (!strstr(error.text, part)) fail_msg("\"%s\" does not say \"%s\"", error.text, part);
}

static void test_linear_refuses_an_image_and_suggests_flatten(void **state) {
    (void)state;
    const cop_shape image = {.rank = 3, .dims = {3, 32, 32}};
    assert_refused(spec_linear(10), image, "3 x 32 x 32");
    assert_refused(spec_linear(10), image, "flatten");
}

static void test_linear_refuses_bad_numbers(void **state) {
    (void)state;
    assert_refused(spec_linear(0), flat_400, "units is 0, expected 1 to");
    assert_refused(spec_linear(-3), flat_400, "units is -3");
    assert_refused(spec_linear(1 << 21), flat_400, "units is 2097152");
    cop_layer_spec spec = spec_linear(3);
    spec.max_norm = -1;
    assert_refused(spec, flat_400, "max_norm is -1");
    spec.max_norm = NAN;
    assert_refused(spec, flat_400, "max_norm");
    spec = spec_linear(3);
    spec.init = 0;
    assert_refused(spec, flat_400, "he, glorot or torch");
}

static void test_linear_parameters_are_shaped_as_in_pytorch(void **state) {
    (void)state;
    cop_layer_spec spec = spec_linear(300);
    spec.max_norm = 2.5;
    one_layer one;
    open_layer(&one, spec, 0, 1);
    assert_int_equal(one.layer.parameter_count, 2);
    assert_string_equal(one.parameters[0].name, "weight");
    assert_int_equal(one.parameters[0].dims[0], 300);
    assert_int_equal(one.parameters[0].dims[1], 400);
    assert_int_equal(one.parameters[0].rows, 300);
    assert_true(one.parameters[0].max_norm == 2.5);
    assert_string_equal(one.parameters[1].name, "bias");
    assert_int_equal(one.parameters[1].rank, 1);
    assert_int_equal(one.parameters[1].cols, 300);
    assert_true(one.parameters[1].max_norm == 0);
    one_layer_close(&one);
}

static void test_he_initialisation_matches_its_definition(void **state) {
    (void)state;
    one_layer one;
    open_layer(&one, spec_linear(300), 5, 77);
    const float *w = one.flat + one.parameters[0].offset;
    const double deviation = sqrt(2.0 / 400);
    const cop_rng_key key = cop_rng_derive(77, COP_RNG_INIT, 0);
    for (uint32_t e = 0; e < 40; e++) {
        const uint32_t counter[4] = {e / 4, 0, 5, 0};
        uint32_t words[4];
        double pair[2];
        cop_philox(counter, key, words);
        cop_normal_pair(words[e % 4 / 2 * 2], words[e % 4 / 2 * 2 + 1], pair);
        assert_true(w[e] == (float)(deviation * pair[e % 2]));
    }
    double sum = 0, squares = 0;
    const int n = 300 * 400;
    for (int i = 0; i < n; i++) {
        sum += (double)w[i];
        squares += (double)w[i] * (double)w[i];
    }
    assert_true(fabs(sum / n) < 5 * deviation / sqrt(n));
    assert_true(fabs(sqrt(squares / n) / deviation - 1) < 0.02);
    for (int i = 0; i < 300; i++) assert_true(one.flat[one.parameters[1].offset + i] == 0);
    one_layer_close(&one);
}

static void check_uniform(const float *w, int n, double bound) {
    double low = 0, high = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        low = fmin(low, (double)w[i]);
        high = fmax(high, (double)w[i]);
        sum += (double)w[i];
    }
    assert_true(low >= (double)-(float)bound && high <= (double)(float)bound);
    assert_true(high > bound * 0.95 && low < -bound * 0.95);
    assert_true(fabs(sum / n) < 5 * bound / sqrt(3.0 * n));
}

static void test_glorot_initialisation_is_uniform_within_its_bound(void **state) {
    (void)state;
    cop_layer_spec spec = spec_linear(300);
    spec.init = COP_INIT_GLOROT;
    one_layer one;
    open_layer(&one, spec, 2, 77);
    check_uniform(one.flat, 300 * 400, sqrt(6.0 / 700));
    const uint32_t counter[4] = {1, 0, 2, 0};
    uint32_t words[4];
    cop_philox(counter, cop_rng_derive(77, COP_RNG_INIT, 0), words);
    const double unit = (double)(words[2] >> 8) / 16777216;
    assert_true(one.flat[6] == (float)(sqrt(6.0 / 700) * (2 * unit - 1)));
    assert_true(one.flat[one.parameters[1].offset] == 0);
    one_layer_close(&one);
}

static void test_torch_initialisation_is_uniform_for_weight_and_bias(void **state) {
    (void)state;
    cop_layer_spec spec = spec_linear(300);
    spec.init = COP_INIT_TORCH;
    one_layer one;
    open_layer(&one, spec, 0, 1);
    check_uniform(one.flat, 300 * 400, 0.05);
    check_uniform(one.flat + one.parameters[1].offset, 300, 0.05);
    one_layer_close(&one);
}

static void test_layers_and_seeds_have_different_initial_weights(void **state) {
    (void)state;
    one_layer a, b, c, again;
    open_layer(&a, spec_linear(30), 0, 1);
    open_layer(&b, spec_linear(30), 1, 1);
    open_layer(&c, spec_linear(30), 0, 2);
    open_layer(&again, spec_linear(30), 0, 1);
    int same_layer = 0, same_seed = 0;
    for (int i = 0; i < 12000; i++) {
        same_layer += a.flat[i] == b.flat[i];
        same_seed += a.flat[i] == c.flat[i];
    }
    assert_true(same_layer < 10 && same_seed < 10);
    assert_memory_equal(a.flat, again.flat, 12000 * sizeof(float));
    one_layer_close(&a), one_layer_close(&b), one_layer_close(&c), one_layer_close(&again);
}

static void test_linear_counts_its_operations(void **state) {
    (void)state;
    one_layer one;
    open_layer(&one, spec_linear(300), 0, 1);
    assert_true(one.layer.ops->flop(&one.layer) == 2.0 * 300 * 400 + 300);
    one_layer_close(&one);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_refuses_an_image_and_suggests_flatten),
        cmocka_unit_test(test_linear_refuses_bad_numbers),
        cmocka_unit_test(test_linear_parameters_are_shaped_as_in_pytorch),
        cmocka_unit_test(test_he_initialisation_matches_its_definition),
        cmocka_unit_test(test_glorot_initialisation_is_uniform_within_its_bound),
        cmocka_unit_test(test_torch_initialisation_is_uniform_for_weight_and_bias),
        cmocka_unit_test(test_layers_and_seeds_have_different_initial_weights),
        cmocka_unit_test(test_linear_counts_its_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
