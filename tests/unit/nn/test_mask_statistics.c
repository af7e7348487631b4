/* Are masks and noise random enough? Checks over 10^8 draws for each p: the kept fraction,
 * chi-square over units, samples and patterns of four neighbours, correlation between units,
 * samples, shards, steps and layers. The same checks for noise, and the effect of mask layers on
 * the mean and the variance of a tensor. Everything is seeded, so the results never change. The
 * bounds are those that a truly random source would meet. LABELS: quick numbers */
#include <math.h>

#include "unit/nn/model_fixture.h"

/* A draw: UNITS x LD bits; the second half of the columns is another shard. */
enum { UNITS = 4096, LD = 1024, WORDS = LD / 64, STEPS = 24, LAYER = 2 };
static const double draws_in_all = (double)STEPS * UNITS * LD;

typedef uint64_t mask_bits[UNITS][WORDS];

typedef struct source {
    cop_rng_key keys[LD];
    uint32_t samples[LD];
    uint32_t threshold;
    double kept; /* probability */
} source;

static source *source_of(double p) {
    source *s = cop_alloc(sizeof *s);
    s->threshold = cop_rng_drop_threshold(p);
    s->kept = 1 - s->threshold / 65536.0;
    for (uint32_t c = 0; c < LD; c++) {
        s->keys[c] = cop_rng_derive(2026, COP_RNG_MASK, c / (LD / 2));
        s->samples[c] = c % (LD / 2);
    }
    return s;
}

static void draw(const source *s, uint32_t layer, uint32_t step, mask_bits *out) {
    const cop_mask_request request = {
        .units = UNITS,
        .ld = LD,
        .threshold = s->threshold,
        .keys = s->keys,
        .samples = s->samples,
        .layer = layer,
        .step = step,
        .bits = (uint16_t *)(void *)out,
    };
    best_kernels()->mask_fill(&request);
}

static int ones(uint64_t x) {
    return __builtin_popcountll(x);
}

/* Pairs of draws that must be independent. */
typedef struct pairs {
    const char *between;
    double count, first, second, both; /* number of pairs; kept in each; kept in both */
} pairs;

static void count_pairs(pairs *p, uint64_t a, uint64_t b, uint64_t valid) {
    p->count += ones(valid);
    p->first += ones(a & valid);
    p->second += ones(b & valid);
    p->both += ones(a & b & valid);
}

/* The correlation, in standard deviations of an independent source. */
static void check_pairs(const pairs *p, double kept) {
    const double covariance = p->both - kept * (p->first + p->second) + p->count * kept * kept;
    const double z = covariance / (kept * (1 - kept)) / sqrt(p->count);
    print_message("  between %s: correlation %.2g, %.2f deviations of %.3g pairs\n", p->between,
                  z / sqrt(p->count), z, p->count);
    assert_true(p->count > 1e7);
    if (!(fabs(z) < 4.5)) fail_msg("correlation between %s: %.2f deviations", p->between, z);
}

/* Chi-square is nearly normal for this many cells. */
static void check_chi_square(const char *what, double chi_square, double freedom) {
    const double z = (chi_square - freedom) / sqrt(2 * freedom);
    print_message("  chi-square over %s: %.1f of %g, %.2f deviations\n", what, chi_square, freedom,
                  z);
    if (!(fabs(z) < 4.5)) fail_msg("chi-square over %s: %.2f deviations", what, z);
}

/* Returns the sum of the squared deviations of `counts` from their expected value, each divided by
 * the variance. Each count is of `each` draws. */
static double chi_square_of(const int64_t *counts, int cells, double each, double kept) {
    double sum = 0;
    for (int i = 0; i < cells; i++) {
        const double d = (double)counts[i] - each * kept;
        sum += d * d / (each * kept * (1 - kept));
    }
    return sum;
}

static const int unit_lags[] = {1, 2, 7, 8, 127, 128};
enum { LAGS = sizeof unit_lags / sizeof unit_lags[0] };

typedef struct mask_counts {
    int64_t units[UNITS], samples[LD], patterns[16];
    pairs lag[LAGS], sample, block, shard, step, layer;
} mask_counts;

static void count_kept(mask_counts *t, const mask_bits *m) {
    for (int u = 0; u < UNITS; u++)
        for (int w = 0; w < WORDS; w++) {
            t->units[u] += ones((*m)[u][w]);
            for (int c = 0; c < 64; c++) t->samples[w * 64 + c] += (*m)[u][w] >> c & 1;
        }
}

/* The pattern of kept units among four neighbours. */
static void count_patterns(mask_counts *t, const mask_bits *m) {
    for (int u = 0; u < UNITS; u += 4)
        for (int w = 0; w < WORDS; w++)
            for (int pattern = 0; pattern < 16; pattern++) {
                uint64_t all = UINT64_MAX;
                for (int i = 0; i < 4; i++)
                    all &= pattern >> i & 1 ? (*m)[u + i][w] : ~(*m)[u + i][w];
                t->patterns[pattern] += ones(all);
            }
}

static void count_all_pairs(mask_counts *t, const mask_bits *now, const mask_bits *before,
                            const mask_bits *other) {
    const uint64_t all = UINT64_MAX, but_last = ~(uint64_t)0 >> 1;
    for (int u = 0; u < UNITS; u++)
        for (int w = 0; w < WORDS; w++) {
            const uint64_t x = (*now)[u][w];
            for (int l = 0; l < LAGS && u + unit_lags[l] < UNITS; l++)
                count_pairs(&t->lag[l], x, (*now)[u + unit_lags[l]][w], all);
            count_pairs(&t->sample, x, x >> 1, but_last);
            if (w + 1 < WORDS / 2) count_pairs(&t->block, x, (*now)[u][w + 1], all);
            if (w < WORDS / 2) count_pairs(&t->shard, x, (*now)[u][w + WORDS / 2], all);
            count_pairs(&t->step, x, (*before)[u][w], all);
            count_pairs(&t->layer, x, (*other)[u][w], all);
        }
}

static double check_patterns(const int64_t patterns[16], double kept) {
    double chi_square = 0, expected;
    for (int pattern = 0; pattern < 16; pattern++) {
        expected = draws_in_all / 4;
        for (int i = 0; i < 4; i++) expected *= pattern >> i & 1 ? kept : 1 - kept;
        const double d = (double)patterns[pattern] - expected;
        chi_square += d * d / expected;
    }
    return chi_square;
}

static void check_masks(double p) {
    source *s = source_of(p);
    mask_counts *t = cop_alloc(sizeof *t);
    mask_bits *masks = cop_alloc(3 * sizeof *masks);
    for (int l = 0; l < LAGS; l++) t->lag[l].between = "units";
    t->sample.between = "samples", t->block.between = "samples 64 apart";
    t->shard.between = "shards", t->step.between = "steps", t->layer.between = "layers";
    draw(s, LAYER, 0, &masks[0]);
    for (uint32_t step = 1; step <= STEPS; step++) {
        mask_bits *now = &masks[step & 1], *before = &masks[~step & 1];
        draw(s, LAYER, step, now);
        draw(s, LAYER + 1, step, &masks[2]);
        count_kept(t, now);
        count_patterns(t, now);
        count_all_pairs(t, now, before, &masks[2]);
    }
    double kept = 0;
    for (int u = 0; u < UNITS; u++) kept += (double)t->units[u];
    const double z = (kept - draws_in_all * s->kept) / sqrt(draws_in_all * s->kept * (1 - s->kept));
    print_message("p %g: kept %.6f of %.3g draws, %.2f deviations from %.6f\n", p,
                  kept / draws_in_all, draws_in_all, z, s->kept);
    assert_true(draws_in_all >= 1e8);
    assert_true(fabs(z) < 4);
    check_chi_square("units", chi_square_of(t->units, UNITS, draws_in_all / UNITS, s->kept), UNITS);
    check_chi_square("samples", chi_square_of(t->samples, LD, draws_in_all / LD, s->kept), LD);
    check_chi_square("patterns of four units", check_patterns(t->patterns, s->kept), 15);
    for (int l = 0; l < LAGS; l++) check_pairs(&t->lag[l], s->kept);
    const pairs *others[] = {&t->sample, &t->block, &t->shard, &t->step, &t->layer};
    for (int i = 0; i < 5; i++) check_pairs(others[i], s->kept);
    cop_free(s), cop_free(t), cop_free(masks);
}

static void test_masks_with_p_one_half_are_random(void **state) {
    (void)state;
    check_masks(0.5);
}

static void test_masks_with_p_one_fifth_are_random(void **state) {
    (void)state;
    check_masks(0.2);
}

/* ---- moments of tensors ---- */

enum { VALUES = UNITS * LD };

static void draw_noise(const source *s, double mean, double deviation, uint32_t step, float *out) {
    const cop_noise_request request = {
        .units = UNITS,
        .ld = LD,
        .mean = mean,
        .deviation = deviation,
        .keys = s->keys,
        .samples = s->samples,
        .layer = LAYER,
        .step = step,
        .noise = out,
    };
    best_kernels()->noise_fill(&request);
}

typedef struct moments {
    double mean, variance;
    double mean_error, variance_error; /* their standard errors */
} moments;

static moments moments_of(const float *x) {
    double sum = 0, squares = 0, fourths = 0;
    for (int i = 0; i < VALUES; i++) sum += (double)x[i];
    const double mean = sum / VALUES;
    for (int i = 0; i < VALUES; i++) {
        const double square = ((double)x[i] - mean) * ((double)x[i] - mean);
        squares += square;
        fourths += square * square;
    }
    const double variance = squares / VALUES;
    return (moments){mean, variance, sqrt(variance / VALUES),
                     sqrt((fourths / VALUES - variance * variance) / VALUES)};
}

static void check_moments(const char *what, const float *x, double mean, double variance) {
    const moments m = moments_of(x);
    print_message("  %s: mean %.5f (%.5f), variance %.5f (%.5f)\n", what, m.mean, mean, m.variance,
                  variance);
    if (!(fabs(m.mean - mean) < 4.5 * m.mean_error)) fail_msg("mean of %s: %g", what, m.mean);
    if (!(fabs(m.variance - variance) < 4.5 * m.variance_error))
        fail_msg("variance of %s: %g", what, m.variance);
}

/* Checks the covariance of x[i] and y[i], in standard deviations. x and y have mean 0 and variance
 * 1. */
static void check_noise_lag(const char *between, const float *x, const float *y, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += (double)x[i] * (double)y[i];
    const double z = sum / sqrt(count);
    print_message("  between %s: %.2f deviations\n", between, z);
    if (!(fabs(z) < 4.5)) fail_msg("noise between %s: %.2f deviations", between, z);
}

static void test_noise_is_normal_and_independent(void **state) {
    (void)state;
    enum { CELLS = 256 };
    source *s = source_of(0.5);
    float *x = cop_alloc(2 * (size_t)VALUES * sizeof *x), *y = x + VALUES;
    draw_noise(s, 0, 1, 1, x);
    draw_noise(s, 0, 1, 2, y);
    check_moments("noise", x, 0, 1);
    int64_t cells[CELLS] = {0};
    for (int i = 0; i < VALUES; i++) { /* cells of equal probability */
        const int cell = (int)(CELLS * erfc(-(double)x[i] * 0.70710678118654752) / 2);
        cells[cell < CELLS ? cell : CELLS - 1]++;
    }
    double chi_square = 0;
    for (int i = 0; i < CELLS; i++) {
        const double d = (double)cells[i] - (double)VALUES / CELLS;
        chi_square += d * d / ((double)VALUES / CELLS);
    }
    check_chi_square("cells of noise", chi_square, CELLS - 1);
    for (int lag = 1; lag <= 4; lag++)
        check_noise_lag("units", x, x + (ptrdiff_t)lag * LD, VALUES - lag * LD);
    check_noise_lag("samples", x, x + 1, VALUES - 1);
    check_noise_lag("shards", x, x + LD / 2, VALUES - LD / 2);
    check_noise_lag("steps", x, y, VALUES);
    cop_free(s), cop_free(x);
}

/* A tensor of mean 0.7 and variance 1.69. Inverted dropout and Gaussian dropout keep the mean of
 * every unit, and so of the tensor. Both add p / (1 - p) E[x^2] to the variance, because their
 * noise has the same mean and variance. In evaluation, inverted dropout is the identity. */
static void test_inverted_dropout_keeps_the_mean(void **state) {
    (void)state;
    float *x = cop_alloc(2 * (size_t)VALUES * sizeof *x), *y = x + VALUES;
    mask_bits *bits = cop_alloc(sizeof *bits);
    for (double p = 0.2; p < 0.6; p += 0.3) {
        source *s = source_of(p);
        draw_noise(s, 0.7, 1.3, 1, x);
        const moments in = moments_of(x);
        const double added = p / (1 - p) * (in.variance + in.mean * in.mean);
        draw(s, LAYER, 1, bits);
        best_kernels()->mask_apply((const uint16_t *)(const void *)bits, x, (float)(1 / (1 - p)), y,
                                   (size_t)UNITS * LD);
        check_moments("inverted dropout", y, in.mean, in.variance + added);
        draw_noise(s, 1, sqrt(p / (1 - p)), 2, y);
        best_kernels()->multiply(x, y, y, VALUES);
        check_moments("gaussian dropout", y, in.mean, in.variance + added);
        cop_free(s);
    }
    cop_free(x), cop_free(bits);
}

/* The purpose of alpha dropout: the output has mean 0 and variance 1, like the input. */
static void test_alpha_dropout_keeps_mean_and_variance(void **state) {
    (void)state;
    float *x = cop_alloc((size_t)VALUES * sizeof *x);
    mask_bits *bits = cop_alloc(sizeof *bits);
    for (double p = 0.1; p < 0.6; p += 0.4) {
        source *s = source_of(p);
        const double lowest = 1.7580993408473766;
        const double a = 1 / sqrt((1 - p) * (1 + p * lowest * lowest));
        draw_noise(s, 0, 1, 1, x);
        draw(s, LAYER, 1, bits);
        const cop_mask_affine request = {
            .bits = (const uint16_t *)(const void *)bits,
            .scale = (float)a,
            .add = (float)(a * lowest * p),
            .dropped = (float)(a * lowest * p - a * lowest),
            .units = UNITS,
            .ld = LD,
        };
        best_kernels()->mask_affine(&request, x, x);
        check_moments("alpha dropout", x, 0, 1);
        cop_free(s);
    }
    cop_free(x), cop_free(bits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks_with_p_one_half_are_random),
        cmocka_unit_test(test_masks_with_p_one_fifth_are_random),
        cmocka_unit_test(test_noise_is_normal_and_independent),
        cmocka_unit_test(test_inverted_dropout_keeps_the_mean),
        cmocka_unit_test(test_alpha_dropout_keeps_mean_and_variance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
