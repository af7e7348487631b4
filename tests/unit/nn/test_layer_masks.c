/* The mask layers other than dropout. Noise must equal D3 bit for bit on every instruction set.
 * Also tests masks of whole channels, the constants of alpha dropout, modes, errors, and the
 * numbers in the examples of a lecture (F. Fleuret, Deep learning, 6.3). LABELS: quick */
#include <math.h>
#include <stdio.h>

#include "common/base/real.h"
#include "unit/nn/model_fixture.h"

static cop_layer_spec spec_mask(const char *kind, double p, cop_scope scope, cop_variant variant) {
    cop_layer_spec spec = {.p = p, .scope = scope, .variant = variant};
    memcpy(spec.kind, kind, strlen(kind));
    return spec;
}

static void open_layer(one_layer *one, const cop_layer_spec *spec, cop_shape in, int columns) {
    cop_error error = {0};
    if (one_layer_bind(one, spec, in, 3, &error) != COP_OK) fail_msg("%s", error.text);
    one_layer_open(one, best_kernels(), columns);
}

/* The input is all ones, so that y shows the factor. */
static float *forward_of_ones(one_layer *one, cop_mode mode) {
    float *x = one_layer_tensor(one, &one->layer.in), *y = one_layer_tensor(one, &one->layer.out);
    const int64_t count = cop_shape_size(&one->layer.in) * one->context.ld;
    for (int64_t i = 0; i < count; i++) x[i] = 1;
    one->context.mode = mode;
    one->layer.ops->forward(&one->layer, &one->context, x, y);
    cop_free(x);
    return y;
}

/* Computes the noise of one element by the text of D3. */
static float noise_by_rule(const cop_noise_request *q, int unit, int column) {
    const uint32_t counter[4] = {(uint32_t)unit / 4, q->samples[column], q->layer, q->step};
    uint32_t words[4];
    double pair[2];
    cop_philox(counter, q->keys[column], words);
    cop_normal_pair(words[unit % 4 / 2 * 2], words[unit % 4 / 2 * 2 + 1], pair);
    return (float)fma(q->deviation, pair[unit % 2], q->mean);
}

static void test_noise_follows_the_rule_on_every_instruction_set(void **state) {
    (void)state;
    enum { UNITS = 203, LD = 48 };
    float *noise = cop_alloc((UNITS + 1) * LD * sizeof *noise);
    cop_rng_key keys[LD];
    uint32_t samples[LD];
    for (int c = 0; c < LD; c++) {
        keys[c] = cop_rng_derive(77, COP_RNG_NOISE, (uint32_t)c / 20);
        samples[c] = (uint32_t)c % 20;
    }
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        for (int units = UNITS - 3; kernels && units <= UNITS; units++) {
            const cop_noise_request request = {
                .units = units,
                .ld = LD,
                .mean = units % 2 ? 1 : 0,
                .deviation = units % 2 ? 0.7 : 1,
                .keys = keys,
                .samples = samples,
                .layer = 5,
                .step = (uint32_t)units,
                .noise = noise,
            };
            noise[units * LD] = 123;
            kernels->noise_fill(&request);
            for (int u = 0; u < units; u++)
                for (int c = 0; c < LD; c++)
                    if (noise[u * LD + c] != noise_by_rule(&request, u, c))
                        fail_msg("%s: unit %d column %d", *name, u, c);
            assert_true(noise[units * LD] == 123);
        }
    }
    cop_free(noise);
}

static void test_gaussian_dropout_multiplies_by_its_noise(void **state) {
    (void)state;
    const cop_layer_spec spec =
        spec_mask("gaussian_dropout", 0.2, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC);
    one_layer one;
    open_layer(&one, &spec, (cop_shape){.rank = 1, .dims = {30}}, 20);
    float *y = forward_of_ones(&one, COP_MODE_TRAIN);
    float *factors = one_layer_tensor(&one, &one.layer.in);
    one.layer.ops->factors(&one.layer, &one.context, factors);
    const cop_noise_request request = {
        .mean = 1,
        .deviation = 0.5, /* variance p / (1 - p) = 1/4 */
        .keys = one.keys,
        .samples = one.samples,
        .layer = 3,
        .step = 7,
    };
    for (int u = 0; u < 30; u++)
        for (int c = 0; c < 20; c++) {
            assert_true(y[u * 32 + c] == noise_by_rule(&request, u, c));
            assert_true(factors[u * 32 + c] == y[u * 32 + c]);
        }
    cop_free(y), cop_free(factors);
    one_layer_close(&one);
}

static void test_noise_of_scope_shard_is_the_same_for_all_samples(void **state) {
    (void)state;
    const cop_layer_spec spec =
        spec_mask("gaussian_dropout", 0.5, COP_SCOPE_SHARD, COP_VARIANT_INVERTED);
    one_layer one;
    open_layer(&one, &spec, (cop_shape){.rank = 1, .dims = {9}}, 16);
    float *y = forward_of_ones(&one, COP_MODE_TRAIN);
    for (int u = 0; u < 9; u++) {
        for (int c = 0; c < 16; c++) assert_true(y[u * 16 + c] == y[u * 16 + c / 8 * 8]);
        assert_true(y[u * 16] != y[u * 16 + 8]);
    }
    cop_free(y);
    one_layer_close(&one);
}

/* Every pixel of a channel has the mask that dropout would give to unit `channel`. */
static void check_channels(double p, cop_scope scope) {
    enum { CHANNELS = 130, PIXELS = 6, COLUMNS = 20, LD = 32 };
    const cop_layer_spec spec = spec_mask("spatial_dropout", p, scope, COP_VARIANT_INVERTED);
    const cop_layer_spec flat = spec_dropout(p, scope, COP_VARIANT_INVERTED);
    one_layer maps, units;
    open_layer(&maps, &spec, (cop_shape){.rank = 3, .dims = {CHANNELS, 2, 3}}, COLUMNS);
    open_layer(&units, &flat, (cop_shape){.rank = 1, .dims = {CHANNELS}}, COLUMNS);
    float *found = forward_of_ones(&maps, COP_MODE_TRAIN);
    float *expected = forward_of_ones(&units, COP_MODE_TRAIN);
    float *factors = one_layer_tensor(&maps, &maps.layer.in);
    maps.layer.ops->factors(&maps.layer, &maps.context, factors);
    for (int i = 0; i < CHANNELS * PIXELS; i++) {
        assert_memory_equal(found + i * LD, expected + i / PIXELS * LD, COLUMNS * sizeof *found);
        assert_memory_equal(factors + i * LD, found + i * LD, COLUMNS * sizeof *found);
    }
    cop_free(found), cop_free(expected), cop_free(factors);
    one_layer_close(&maps);
    one_layer_close(&units);
}

static void test_spatial_dropout_drops_whole_channels(void **state) {
    (void)state;
    check_channels(0.5, COP_SCOPE_SAMPLE);
    check_channels(0.3, COP_SCOPE_SAMPLE);
    check_channels(0.5, COP_SCOPE_SHARD);
}

static void assert_all(const float *y, int count, float value) {
    for (int i = 0; i < count; i++) assert_true(y[i] == value);
}

static void test_evaluation_scales_only_classic_spatial_dropout(void **state) {
    (void)state;
    static const char *const kinds[] = {"spatial_dropout", "gaussian_dropout", "alpha_dropout"};
    for (int k = 0; k < 3; k++)
        for (int variant = COP_VARIANT_INVERTED; variant <= COP_VARIANT_CLASSIC; variant++) {
            const cop_layer_spec spec =
                spec_mask(kinds[k], 0.25, COP_SCOPE_SAMPLE, (cop_variant)variant);
            one_layer one;
            open_layer(&one, &spec, (cop_shape){.rank = 3, .dims = {2, 2, 2}}, 16);
            float *y = forward_of_ones(&one, COP_MODE_EVAL);
            assert_all(y, 8 * 16, k == 0 && variant == COP_VARIANT_CLASSIC ? 0.75f : 1.0f);
            cop_free(y);
            float *trained = forward_of_ones(&one, COP_MODE_TRAIN);
            float *drawn =
                forward_of_ones(&one, COP_MODE_MC); /* the same keys give the same draw */
            assert_memory_equal(trained, drawn, 8 * 16 * sizeof *drawn);
            cop_free(trained), cop_free(drawn);
            one_layer_close(&one);
        }
}

/* For an input of ones, PyTorch's nn.AlphaDropout(0.5) gives 1.6656 (a + a s / 2) and -0.7792
 * (-a s / 2). */
static void test_alpha_dropout_has_pytorchs_constants(void **state) {
    (void)state;
    const double a = 0.8864048946659319, shift = 0.7791939305180315;
    const cop_layer_spec spec =
        spec_mask("alpha_dropout", 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    one_layer one;
    open_layer(&one, &spec, (cop_shape){.rank = 1, .dims = {64}}, 16);
    float *y = forward_of_ones(&one, COP_MODE_TRAIN);
    float *factors = one_layer_tensor(&one, &one.layer.in);
    one.layer.ops->factors(&one.layer, &one.context, factors);
    int kept = 0;
    for (int i = 0; i < 64 * 16; i++) {
        const bool on = factors[i] > 0;
        kept += on;
        assert_true(fabs((double)factors[i] - (on ? a : 0)) < 1e-7);
        assert_true(fabs((double)y[i] - (on ? a + shift : -shift)) < 2e-7);
    }
    assert_true(kept > 432 && kept < 592); /* 512, plus or minus five standard deviations */
    cop_free(y), cop_free(factors);
    one_layer_close(&one);
}

/* ---- the lecture's examples: the layer uses given masks instead of its own ---- */

/* Bit c of word u: unit u of sample c is kept. */
static const uint16_t lecture_mask[5] = {0x0, 0x2, 0x7, 0x2, 0x1};

static void fill_lecture_mask(const cop_mask_request *request) {
    assert_int_equal(request->units, 5);
    memcpy(request->bits, lecture_mask, sizeof lecture_mask);
}

/* The input is 3 samples of 5 ones, p is 0.75, and the loss is the sum of the samples' 2-norms. */
static void test_worked_example_of_the_lecture(void **state) {
    (void)state;
    static const float values[3][5] = {{0, 0, 4, 0, 4}, {0, 4, 4, 4, 0}, {0, 0, 4, 0, 0}};
    static const double gradients[3][5] = {
        {0, 0, 2.8284, 0, 2.8284}, {0, 2.3094, 2.3094, 2.3094, 0}, {0, 0, 4.0, 0, 0}};
    const cop_layer_spec spec = spec_dropout(0.75, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    one_layer one;
    open_layer(&one, &spec, (cop_shape){.rank = 1, .dims = {5}}, 3);
    cop_kernels handed = *best_kernels();
    handed.mask_fill = fill_lecture_mask;
    one.context.kernels = &handed;
    float *y = forward_of_ones(&one, COP_MODE_TRAIN);
    float dy[5 * 16] = {0}, dx[5 * 16];
    for (int sample = 0; sample < 3; sample++) {
        float squares = 0;
        for (int u = 0; u < 5; u++) squares += y[u * 16 + sample] * y[u * 16 + sample];
        for (int u = 0; u < 5; u++) dy[u * 16 + sample] = y[u * 16 + sample] / sqrtf(squares);
    }
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){NULL, y, dy, dx});
    for (int sample = 0; sample < 3; sample++)
        for (int u = 0; u < 5; u++) {
            assert_true(y[u * 16 + sample] == values[sample][u]);
            char printed[16], expected[16]; /* as PyTorch prints them */
            snprintf(printed, sizeof printed, "%.4f", (double)dx[u * 16 + sample]);
            snprintf(expected, sizeof expected, "%.4f", gradients[sample][u]);
            assert_string_equal(printed, expected);
        }
    cop_free(y);
    one_layer_close(&one);
}

static void fill_channel_mask(const cop_mask_request *request) {
    static const uint16_t mask[3] = {0x3, 0x0, 0x1};
    assert_int_equal(request->units, 3);
    memcpy(request->bits, mask, sizeof mask);
}

/* Dropout2d(0.5) on ones of the shape (2, 3, 2, 4): a channel becomes 0 or 2 as a whole, and so do
 * the gradients. */
static void test_channel_dropout_example_of_the_lecture(void **state) {
    (void)state;
    static const float channels[2][3] = {{2, 0, 2}, {2, 0, 0}};
    const cop_layer_spec spec =
        spec_mask("spatial_dropout", 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    one_layer one;
    open_layer(&one, &spec, (cop_shape){.rank = 3, .dims = {3, 2, 4}}, 2);
    cop_kernels handed = *best_kernels();
    handed.mask_fill = fill_channel_mask;
    one.context.kernels = &handed;
    float *y = forward_of_ones(&one, COP_MODE_TRAIN), dy[24 * 16], dx[24 * 16];
    for (int i = 0; i < 24 * 16; i++) dy[i] = (float)(i % 7) - 3;
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){NULL, y, dy, dx});
    for (int sample = 0; sample < 2; sample++)
        for (int i = 0; i < 24; i++) {
            const int at = i * 16 + sample;
            assert_true(y[at] == channels[sample][i / 8]);
            assert_true(dx[at] == channels[sample][i / 8] * dy[at]);
        }
    cop_free(y);
    one_layer_close(&one);
}

/* ---- errors ---- */

static void test_spatial_dropout_refuses_flat_input(void **state) {
    (void)state;
    const cop_layer_spec spec =
        spec_mask("spatial_dropout", 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
    one_layer one;
    cop_error error = {0};
    const cop_shape in = {.rank = 1, .dims = {784}};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
    assert_string_equal(error.text,
                        "it drops channels of images, but its input is flat (784 values): expected "
                        "channels x height x width, or dropout, which drops single units");
}

static void test_no_mask_layer_may_end_a_network(void **state) {
    (void)state;
    static const char *const kinds[] = {"dropout", "gaussian_dropout", "alpha_dropout"};
    for (int k = 0; k < 3; k++) {
        const cop_layer_spec layers[] = {
            spec_linear(4),
            spec_relu(),
            spec_mask(kinds[k], 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
        };
        const cop_model_spec spec = {
            .layers = layers,
            .layer_count = 3,
            .input = {.rank = 1, .dims = {6}},
            .classes = 4,
            .loss = COP_LOSS_CROSS_ENTROPY,
        };
        cop_model *model = NULL;
        cop_error error = {0};
        char expected[200];
        assert_int_equal(cop_model_create(&spec, &model, &error), COP_ERR_INPUT);
        snprintf(expected, sizeof expected,
                 "model[2] %s: it would drop outputs of the network: expected it before the last "
                 "layer with weights (model[0] linear)",
                 kinds[k]);
        assert_string_equal(error.text, expected);
    }
}

static void test_fields_out_of_range_are_refused(void **state) {
    (void)state;
    static const char *const kinds[] = {"spatial_dropout", "gaussian_dropout", "alpha_dropout"};
    const cop_shape in = {.rank = 3, .dims = {2, 2, 2}};
    for (int k = 0; k < 3; k++) {
        one_layer one;
        cop_error error = {0};
        cop_layer_spec spec = spec_mask(kinds[k], 1, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED);
        assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
        assert_non_null(strstr(error.text, "p is 1, expected at least 0 and below 1"));
        spec.p = 0.5, spec.scope = (cop_scope)9;
        assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
        assert_non_null(strstr(error.text, "scope"));
        spec.scope = COP_SCOPE_SHARD, spec.variant = (cop_variant)0;
        assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
        assert_non_null(strstr(error.text, "variant"));
    }
    one_layer one;
    cop_error error = {0};
    const cop_layer_spec leaky = {.kind = "leaky_relu", .slope = 1.5};
    assert_int_equal(one_layer_bind(&one, &leaky, in, 0, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, "slope is 1.5, expected 0 to 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_follows_the_rule_on_every_instruction_set),
        cmocka_unit_test(test_gaussian_dropout_multiplies_by_its_noise),
        cmocka_unit_test(test_noise_of_scope_shard_is_the_same_for_all_samples),
        cmocka_unit_test(test_spatial_dropout_drops_whole_channels),
        cmocka_unit_test(test_evaluation_scales_only_classic_spatial_dropout),
        cmocka_unit_test(test_alpha_dropout_has_pytorchs_constants),
        cmocka_unit_test(test_worked_example_of_the_lecture),
        cmocka_unit_test(test_channel_dropout_example_of_the_lecture),
        cmocka_unit_test(test_spatial_dropout_refuses_flat_input),
        cmocka_unit_test(test_no_mask_layer_may_end_a_network),
        cmocka_unit_test(test_fields_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
