/* dropconnect: errors. Masks are compared with Philox, both passes with plain loops, and inference
 * by moments with averages over many thinned networks. LABELS: quick qemu */
#include <math.h>

#include "unit/nn/model_fixture.h"

enum { UNITS = 19, IN = 277, COLUMNS = 13, LD = 16, INDEX = 3, STEP = 7 };

static cop_layer_spec spec_dropconnect(int units, double p) {
    return (cop_layer_spec){
        .kind = "dropconnect",
        .units = units,
        .p = p,
        .bias = true,
        .drop_bias = true,
        .init = COP_INIT_HE,
        .scope = COP_SCOPE_SAMPLE,
        .variant = COP_VARIANT_CLASSIC,
        .inference = COP_INFERENCE_MEAN,
        .draws = 1000,
    };
}

static void assert_refused(cop_layer_spec spec, cop_shape in, const char *part) {
    one_layer one;
    cop_error error = {0};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
    if (!strstr(error.text, part)) fail_msg("\"%s\" does not say \"%s\"", error.text, part);
}

static void test_dropconnect_refuses_invalid_fields(void **state) {
    (void)state;
    const cop_shape flat = {.rank = 1, .dims = {3}}, image = {.rank = 3, .dims = {3, 8, 8}};
    cop_layer_spec spec = spec_dropconnect(2, 0.5);
    assert_refused(spec, image, "flatten");
    assert_refused(spec_dropconnect(0, 0.5), flat, "units is 0");
    assert_refused(spec_dropconnect(2, 1), flat, "p is 1, expected at least 0 and below 1");
    assert_refused(spec_dropconnect(2, -0.1), flat, "p is -0.1");
    spec.max_norm = NAN;
    assert_refused(spec, flat, "max_norm");
    spec = spec_dropconnect(2, 0.5);
    spec.init = 0;
    assert_refused(spec, flat, "he, glorot or torch");
    spec = spec_dropconnect(2, 0.5);
    spec.inference = 0;
    assert_refused(spec, flat, "moments or mean");
    spec.inference = COP_INFERENCE_MOMENTS;
    assert_refused(spec, flat, "found none: add one, or use inference: mean");
    spec.draws = 0;
    assert_refused(spec, flat, "draws is 0");
}

static void test_moments_need_a_following_element_wise_layer(void **state) {
    (void)state;
    cop_layer_spec layers[] = {spec_dropconnect(4, 0.5), spec_linear(2), spec_linear(2)};
    layers[0].inference = COP_INFERENCE_MOMENTS;
    cop_model_spec spec = {
        .layers = layers,
        .layer_count = 2,
        .input = {.rank = 1, .dims = {3}},
        .classes = 2,
        .loss = COP_LOSS_CROSS_ENTROPY,
    };
    cop_model *model = NULL;
    cop_error error = {0};
    assert_int_equal(cop_model_create(&spec, &model, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "model[0] dropconnect"));
    assert_non_null(strstr(error.text, "found linear"));
    layers[1] = spec_relu();
    spec.layer_count = 3;
    assert_int_equal(cop_model_create(&spec, &model, &error), COP_OK);
    assert_true(cop_model_layer(model, 0)->ops->absorbs_next(cop_model_layer(model, 0)));
    cop_model_destroy(model);
}

/* Returns whether unit `unit` of sample `sample` is kept by D3, with the reference form of Philox.
 */
static bool kept(cop_rng_key key, uint32_t sample, int unit, double p) {
    const uint32_t threshold = cop_rng_drop_threshold(p);
    const uint32_t each = threshold == 32768 ? 128 : 8;
    const uint32_t counter[4] = {(uint32_t)unit / each, sample, INDEX, STEP};
    uint32_t words[4];
    cop_philox(counter, key, words);
    const uint32_t at = (uint32_t)unit % each;
    if (each == 128) return !(words[at / 32] >> (at % 32) & 1);
    return (words[at / 2] >> (16 * (at & 1)) & 0xffff) >= threshold;
}

/* Inputs are small multiples of a power of two, so every sum is exact in any order. */
static float exact_value(uint32_t stream, int index) {
    return floorf(random_value(stream, (uint32_t)index) * 8) / 4;
}

typedef struct plain {
    float y[UNITS][LD], dx[IN][LD], dw[UNITS][IN], db[UNITS];
} plain;

static void plain_run(const one_layer *one, const float *x, const float *dy, plain *out) {
    const cop_layer_spec *spec = &one->layer.spec;
    const float *w = one->flat, *bias = one->flat + one->parameters[1].offset;
    const float scale = spec->variant == COP_VARIANT_INVERTED ? 2.0f : 1.0f;
    memset(out, 0, sizeof *out);
    for (int c = 0; c < COLUMNS; c++) {
        const uint32_t sample = spec->scope == COP_SCOPE_SHARD ? 0 : one->samples[c];
        for (int u = 0; u < UNITS; u++) {
            float sum = 0;
            const float up = dy[u * LD + c] * scale;
            for (int i = 0; i < IN; i++) {
                if (!kept(one->keys[c], sample, u * IN + i, spec->p)) continue;
                sum += w[u * IN + i] * x[i * LD + c];
                out->dw[u][i] += up * x[i * LD + c];
                out->dx[i][c] += up * w[u * IN + i];
            }
            const bool kept_bias = kept(one->keys[c], sample, UNITS * IN + u, spec->p);
            if (spec->drop_bias) {
                out->y[u][c] = (sum + (kept_bias ? bias[u] : 0)) * scale;
                out->db[u] += kept_bias ? up : 0;
            } else {
                out->y[u][c] = sum * scale + bias[u];
                out->db[u] += dy[u * LD + c];
            }
        }
    }
}

static void check_plain(const cop_layer_spec *spec, const cop_kernels *kernels) {
    one_layer one;
    cop_error error = {0};
    const cop_shape in = {.rank = 1, .dims = {IN}};
    assert_int_equal(one_layer_bind(&one, spec, in, INDEX, &error), COP_OK);
    one_layer_open(&one, kernels, COLUMNS);
    float *x = one_layer_tensor(&one, &one.layer.in), *dx = one_layer_tensor(&one, &one.layer.in);
    float *y = one_layer_tensor(&one, &one.layer.out), *dy = one_layer_tensor(&one, &one.layer.out);
    for (int i = 0; i < IN * LD; i++) x[i] = i % LD < COLUMNS ? exact_value(1, i) : NAN;
    for (int i = 0; i < UNITS * LD; i++) dy[i] = i % LD < COLUMNS ? exact_value(2, i) : NAN;
    for (int64_t i = 0; i < one.floats; i++) one.flat[i] = exact_value(3, (int)i);
    plain *expected = cop_alloc(sizeof *expected);
    plain_run(&one, x, dy, expected);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, dy, dx});
    for (int u = 0; u < UNITS; u++)
        for (int c = 0; c < LD; c++) assert_true(y[u * LD + c] == expected->y[u][c]);
    for (int i = 0; i < IN; i++)
        for (int c = 0; c < LD; c++) assert_true(dx[i * LD + c] == expected->dx[i][c]);
    const float *gradients = one.gradients;
    for (int i = 0; i < UNITS * IN; i++) assert_true(gradients[i] == expected->dw[i / IN][i % IN]);
    for (int u = 0; u < UNITS; u++)
        assert_true(gradients[one.parameters[1].offset + u] == expected->db[u]);
    cop_free(x), cop_free(dx), cop_free(y), cop_free(dy), cop_free(expected);
    one_layer_close(&one);
}

/* With p = 0.5 a mask uses one random bit for each weight, with any other p one 16-bit lane. The
 * variant `inverted` scales by 2 if p = 0.5, so sums stay exact. Padding columns may have any
 * value. */
static void test_dropconnect_matches_plain_loops(void **state) {
    (void)state;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (!kernels) continue;
        for (int way = 0; way < 8; way++) {
            cop_layer_spec spec = spec_dropconnect(UNITS, way & 1 ? 0.3 : 0.5);
            spec.scope = way & 2 ? COP_SCOPE_SHARD : COP_SCOPE_SAMPLE;
            spec.drop_bias = !(way & 4);
            check_plain(&spec, kernels);
            spec.p = 0.5;
            spec.variant = COP_VARIANT_INVERTED;
            check_plain(&spec, kernels);
        }
    }
}

static void test_dropconnect_factors_equal_the_masks(void **state) {
    (void)state;
    one_layer one;
    cop_error error = {0};
    const cop_shape in = {.rank = 1, .dims = {IN}};
    cop_layer_spec spec = spec_dropconnect(UNITS, 0.5);
    spec.variant = COP_VARIANT_INVERTED;
    assert_int_equal(one_layer_bind(&one, &spec, in, INDEX, &error), COP_OK);
    one_layer_open(&one, best_kernels(), COLUMNS);
    const int64_t values = one.layer.ops->factor_count(&one.layer);
    assert_int_equal(values, UNITS * IN + UNITS);
    float *x = one_layer_tensor(&one, &one.layer.in), *y = one_layer_tensor(&one, &one.layer.out);
    float *factors = cop_alloc((size_t)values * LD * sizeof *factors);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    one.layer.ops->factors(&one.layer, &one.context, factors);
    for (int v = 0; v < (int)values; v++)
        for (int c = 0; c < COLUMNS; c++)
            assert_true(factors[v * LD + c] ==
                        (kept(one.keys[c], one.samples[c], v, 0.5) ? 2.0f : 0.0f));
    cop_free(x), cop_free(y), cop_free(factors);
    one_layer_close(&one);
}

static void square_map(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                       size_t count) {
    (void)layer;
    kernels->multiply(x, x, y, count);
}

static void identity_map(const cop_layer *layer, const cop_kernels *kernels, const float *x,
                         float *y, size_t count) {
    (void)layer;
    kernels->scale(x, 1.0f, y, count);
}

enum { FAN_IN = 200, FEW = 3, MASKS = 100000 };

/* The result of the layer's evaluation, followed by a layer with the function `map`. */
static void evaluate(one_layer *one, const float *x, const cop_layer_ops *next_ops, int draws,
                     float *y) {
    const cop_layer next = {.ops = next_ops};
    one->layer.next = &next;
    one->layer.spec.inference = COP_INFERENCE_MOMENTS;
    one->layer.spec.draws = draws;
    one->context.mode = COP_MODE_EVAL;
    cop_free(one->context.scratch);
    one->context.scratch = cop_alloc(one->layer.ops->scratch(&one->layer, LD) + 64);
    one->layer.ops->forward(&one->layer, &one->context, x, y);
    one->context.mode = COP_MODE_MC;
}

/* Sums over thinned networks. u is the pre-activation of a unit, u^2 and u^4 are around its mean.
 */
typedef struct brute {
    double sum[FEW], square[FEW], fourth[FEW], relu[FEW], relu_square[FEW];
} brute;

/* Runs MASKS masks for one input, by giving each column a different sample number. */
static void run_masks(one_layer *one, const float *x, const double *center, brute *out) {
    float *y = one_layer_tensor(one, &one->layer.out);
    memset(out, 0, sizeof *out);
    for (int n = 0; n < MASKS; n += LD) {
        for (int c = 0; c < LD; c++) one->samples[c] = (uint32_t)(n + c);
        one->layer.ops->forward(&one->layer, &one->context, x, y);
        for (int u = 0; u < FEW; u++)
            for (int c = 0; c < LD; c++) {
                const double value = (double)y[u * LD + c], off = value - center[u];
                const double positive = value > 0 ? value : 0;
                out->sum[u] += off;
                out->square[u] += off * off;
                out->fourth[u] += off * off * off * off;
                out->relu[u] += positive;
                out->relu_square[u] += positive * positive;
            }
    }
    cop_free(y);
}

/* Mean and variance agree within 3 standard errors, the averaged relu within 2 % of its value. With
 * p other than 0.5 the sum of 200 terms is skewed, by (1 - 2 p) / sqrt(p (1 - p) 200) or more, and
 * far below 0 a Gaussian does not describe its tail to 2 %; there the bound is 2 % of a Gaussian
 * around 0. The expected moments are computed in f64 here; the layer's own come from draws. */
static void check_moments(double p, cop_variant variant, bool drop_bias) {
    one_layer one;
    cop_error error = {0};
    cop_layer_spec spec = spec_dropconnect(FEW, p);
    spec.variant = variant;
    spec.drop_bias = drop_bias;
    const cop_shape in = {.rank = 1, .dims = {FAN_IN}};
    assert_int_equal(one_layer_bind(&one, &spec, in, INDEX, &error), COP_OK);
    one_layer_open(&one, best_kernels(), LD);
    one.context.mode = COP_MODE_MC;
    for (int c = 0; c < LD; c++) one.keys[c] = cop_rng_derive(5, COP_RNG_ENSEMBLE, 0);
    float *x = one_layer_tensor(&one, &one.layer.in), *y = one_layer_tensor(&one, &one.layer.out);
    for (int i = 0; i < FAN_IN * LD; i++) x[i] = fabsf(random_value(1, (uint32_t)(i / LD)));
    const float *w = one.flat, *bias = one.flat + one.parameters[1].offset;
    for (int u = 0; u < FEW; u++) one.flat[one.parameters[1].offset + u] = 0.25f * (float)u;
    double mean[FEW], variance[FEW];
    for (int u = 0; u < FEW; u++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < FAN_IN; i++) {
            const double product = (double)w[u * FAN_IN + i] * (double)x[i * LD];
            sum += product, squares += product * product;
        }
        const double b = (double)bias[u];
        if (drop_bias) sum += b, squares += b * b;
        mean[u] = variant == COP_VARIANT_CLASSIC ? (1 - p) * sum : sum;
        variance[u] = (variant == COP_VARIANT_CLASSIC ? p * (1 - p) : p / (1 - p)) * squares;
        if (!drop_bias) mean[u] += b;
    }
    brute b;
    run_masks(&one, x, mean, &b);
    static const cop_layer_ops identity = {.kind = "identity", .map = identity_map};
    static const cop_layer_ops square = {.kind = "square", .map = square_map};
    enum { DRAWS = 20000 };
    float drawn[3][FEW * LD];
    evaluate(&one, x, &identity, DRAWS, drawn[0]);
    evaluate(&one, x, &square, DRAWS, drawn[1]);
    evaluate(&one, x, cop_layer_find("relu"), DRAWS, drawn[2]);
    for (int u = 0; u < FEW; u++) {
        const double n = MASKS, v = b.square[u] / n, fourth = b.fourth[u] / n;
        const double off_mean = b.sum[u] / n / sqrt(v / n);
        const double off_variance = (v - variance[u]) / sqrt((fourth - v * v) / n);
        print_message("p %g unit %d: mean off by %.2f, variance by %.2f standard errors\n", p, u,
                      off_mean, off_variance);
        assert_true(fabs(off_mean) <= 3 && fabs(off_variance) <= 3);
        const double relu = b.relu[u] / n;
        double m = 0, second = 0, positive = 0; /* 16 columns of DRAWS draws */
        for (int c = 0; c < LD; c++) {
            m += (double)drawn[0][u * LD + c] / LD;
            second += (double)drawn[1][u * LD + c] / LD;
            positive += (double)drawn[2][u * LD + c] / LD;
        }
        const double all = (double)DRAWS * LD;
        assert_true(fabs(m - mean[u]) <= 3 * sqrt(variance[u] / all) + 1e-5);
        const double spread = sqrt(2 * variance[u] * variance[u] / all);
        assert_true(fabs(second - m * m - variance[u]) <= 3 * spread + 1e-4 * variance[u]);
        print_message("  averaged relu: %.5f by masks, %.5f by moments; mean %.2f deviations\n",
                      relu, positive, mean[u] / sqrt(variance[u]));
        const double around_0 = 0.39894 * sqrt(variance[u]);
        assert_true(fabs(positive - relu) <= 0.02 * (p == 0.5 ? relu : fmax(relu, around_0)));
    }
    cop_free(x), cop_free(y);
    one_layer_close(&one);
}

static void test_moments_match_averages_over_masks(void **state) {
    (void)state;
    check_moments(0.5, COP_VARIANT_CLASSIC, true);
    check_moments(0.5, COP_VARIANT_INVERTED, false);
    check_moments(0.2, COP_VARIANT_INVERTED, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dropconnect_refuses_invalid_fields),
        cmocka_unit_test(test_moments_need_a_following_element_wise_layer),
        cmocka_unit_test(test_dropconnect_matches_plain_loops),
        cmocka_unit_test(test_dropconnect_factors_equal_the_masks),
        cmocka_unit_test(test_moments_match_averages_over_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
