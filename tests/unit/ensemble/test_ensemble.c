/* Ensembles of thinned networks. Figures are compared with values computed by hand, and with theory
 * on small networks with all their 2^N masks. The geometric mean equals weight scaling (Baldi and
 * Sadowski 2013, section 3.1; Srivastava et al. 2014, section 6), and the arithmetic mean of K
 * members converges as 1/sqrt(K). */
#include <math.h>

#include "common/base/real.h"
#include "common/ensemble/ensemble.h"
#include "unit/nn/model_fixture.h"

enum { INPUTS = 10, CLASSES = 4, SAMPLES = 6 };

static cop_ensemble *open_ensemble(cop_average average, int classes, int columns) {
    cop_ensemble *e = NULL;
    cop_error error = {0};
    if (cop_ensemble_create(average, classes, columns, &e, &error)) fail_msg("%s", error.text);
    return e;
}

/* ---- figures ---- */

/* Two members, two samples and two classes. For the first sample the members have the probabilities
 * (.5 .5) and (.8 .2), for the second one (.9 .1) and (.2 .8). */
static void test_figures_equal_those_computed_by_hand(void **state) {
    (void)state;
    const float first[2 * 16] = {[0] = 0, [1] = (float)log(9), [16] = 0, [17] = 0},
                          second[2 * 16] = {
                              [0] = (float)log(4), [1] = 0, [16] = 0, [17] = (float)log(4)};
    const int32_t labels[2] = {1, 0};
    cop_ensemble *e = open_ensemble(COP_AVERAGE_ARITHMETIC, 2, 2);
    cop_ensemble_sums sums = {0};
    cop_ensemble_figures f;
    cop_ensemble_begin(e, 2, labels, 0);
    cop_ensemble_add(e, first, 16);
    cop_ensemble_add(e, second, 16);
    const double *p = cop_ensemble_probabilities(e); /* [classes][columns] */
    const double expected[4] = {0.65, 0.55, 0.35, 0.45};
    for (int i = 0; i < 4; i++) assert_true(fabs(p[i] - expected[i]) < 1e-7);
    cop_ensemble_score(e, &sums);
    cop_ensemble_get(&sums, &f);
    assert_int_equal(f.samples, 2);
    assert_true(f.wrong.value == 0.5); /* the first sample's label is 1, its class 0 */
    assert_true(fabs(f.nll.value + (log(0.35) + log(0.55)) / 2) < 1e-7);
    assert_true(fabs(f.brier.value - (2 * 0.65 * 0.65 + 2 * 0.45 * 0.45) / 2) < 1e-7);
    assert_true(f.disagreement.value == 0.5);       /* they agree on one of two samples */
    assert_true(fabs(f.wrong.error - 0.5) < 1e-12); /* sqrt(.25 / (2 - 1)) */
    assert_true(fabs(f.ece.value - (0.65 + 0.45) / 2) < 1e-7);
    cop_ensemble_destroy(e);
}

static void test_geometric_mean_by_hand(void **state) {
    (void)state;
    const float first[16 * 2] = {[0] = (float)log(4), [16] = 0},
                           second[16 * 2] = {[0] = 0, [16] = 0};
    const int32_t label = 0;
    cop_ensemble *e = open_ensemble(COP_AVERAGE_GEOMETRIC, 2, 1);
    cop_ensemble_begin(e, 1, &label, 0);
    cop_ensemble_add(e, first, 16);
    cop_ensemble_add(e, second, 16);
    const double *p = cop_ensemble_probabilities(e);
    assert_true(fabs(p[0] - 2.0 / 3) < 1e-7); /* sqrt(.8 * .5) to sqrt(.2 * .5) is 2 to 1 */
    assert_true(fabs(p[1] - 1.0 / 3) < 1e-7);
    cop_ensemble_destroy(e);
}

static void test_sums_of_slices_give_the_whole(void **state) {
    (void)state;
    float logits[CLASSES * 16];
    int32_t labels[16];
    fill_random(logits, CLASSES * 16, 5);
    for (int i = 0; i < 16; i++) labels[i] = i % CLASSES;
    cop_ensemble *e = open_ensemble(COP_AVERAGE_ARITHMETIC, CLASSES, 16);
    cop_ensemble_sums whole = {0}, parts = {0}, part = {0};
    cop_ensemble_figures a, b;
    cop_ensemble_begin(e, 16, labels, 0);
    cop_ensemble_add(e, logits, 16);
    cop_ensemble_score(e, &whole);
    cop_ensemble_begin(e, 7, labels, 0);
    cop_ensemble_add(e, logits, 16);
    cop_ensemble_score(e, &parts);
    cop_ensemble_begin(e, 9, labels + 7, 7);
    cop_ensemble_add(e, logits + 7, 16);
    cop_ensemble_score(e, &part);
    cop_ensemble_merge(&parts, &part);
    cop_ensemble_get(&whole, &a);
    cop_ensemble_get(&parts, &b);
    assert_int_equal(a.samples, b.samples);
    assert_true(a.wrong.value == b.wrong.value && a.wrong.value > 0 && a.wrong.value < 1);
    assert_true(fabs(a.nll.value - b.nll.value) < 1e-14);
    assert_true(fabs(a.ece.value - b.ece.value) < 1e-14);
    assert_true(fabs(a.ece.error - b.ece.error) < 1e-14);
    cop_ensemble_destroy(e);
}

static void test_probability_of_zero_has_a_finite_loss(void **state) {
    (void)state;
    const float logits[2 * 16] = {[0] = 2000, [16] = 0};
    const int32_t label = 1;
    cop_ensemble *e = open_ensemble(COP_AVERAGE_ARITHMETIC, 2, 1);
    cop_ensemble_sums sums = {0};
    cop_ensemble_figures f;
    cop_ensemble_begin(e, 1, &label, 0);
    cop_ensemble_add(e, logits, 16);
    cop_ensemble_score(e, &sums);
    cop_ensemble_get(&sums, &f);
    assert_true(f.nll.value > 700 && f.nll.value < 710);
    assert_true(f.wrong.value == 1 && f.disagreement.value == 0);
    cop_ensemble_destroy(e);
}

/* ---- uncertainty ---- */

static double entropy_of(const double *p, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum -= p[i] > 0 ? p[i] * log(p[i]) : 0;
    return sum;
}

static void expect_uncertainty(const cop_ensemble_opinion *o, int class, double entropy,
                               double information, double variation) {
    assert_int_equal(o->class, class);
    assert_true(fabs(o->entropy - entropy) < 1e-7);
    assert_true(fabs(o->information - information) < 1e-7);
    assert_true(fabs(o->variation - variation) < 1e-15);
}

/* Three members and three samples. On the first sample all members agree and are uncertain, so the
 * information is 0. On the second one each is certain of a different class, so the whole entropy is
 * information. On the third one two members agree against one. */
static void test_uncertainty_figures_equal_those_computed_by_hand(void **state) {
    (void)state;
    const float sure = 1000, two = (float)log(2), eight = (float)log(8);
    float z[3][3 * 16] = {{0}};
    for (int m = 0; m < 3; m++) {
        z[m][0] = two;                           /* 1/2 1/4 1/4 */
        z[m][m * 16 + 1] = sure;                 /* 1 for class m */
        z[m][(m == 1 ? 2 : 1) * 16 + 2] = eight; /* .8 .1 .1: classes 1, 2, 1 */
    }
    cop_ensemble *e = open_ensemble(COP_AVERAGE_ARITHMETIC, 3, 3);
    cop_ensemble_opinion o[3];
    cop_ensemble_begin(e, 3, NULL, 0);
    for (int m = 0; m < 3; m++) cop_ensemble_add(e, z[m], 16);
    cop_ensemble_opinions(e, o);
    const double even[3] = {0.5, 0.25, 0.25}, one[3] = {0.8, 0.1, 0.1},
                 joint[3] = {0.1, 1.7 / 3, 1.0 / 3};
    expect_uncertainty(&o[0], 0, entropy_of(even, 3), 0, 0);
    assert_true(o[0].information >= 0);
    expect_uncertainty(&o[1], 0, log(3), log(3), 2.0 / 3);
    expect_uncertainty(&o[2], 1, entropy_of(joint, 3), entropy_of(joint, 3) - entropy_of(one, 3),
                       1.0 / 3);
    cop_ensemble_destroy(e);
}

/* The class is the one with the largest mean probability, which need not be the one that most
 * members choose. With a single member there is no disagreement. */
static void test_class_is_that_of_the_mean_probability(void **state) {
    (void)state;
    const float slightly[2 * 16] = {[0] = 0.1f}, much[2 * 16] = {[16] = 5};
    cop_ensemble *e = open_ensemble(COP_AVERAGE_ARITHMETIC, 2, 1);
    cop_ensemble_opinion o;
    cop_ensemble_begin(e, 1, NULL, 0);
    cop_ensemble_add(e, slightly, 16);
    cop_ensemble_opinions(e, &o);
    const double p = 1 / (1 + exp(-(double)0.1f)), one[2] = {p, 1 - p};
    expect_uncertainty(&o, 0, entropy_of(one, 2), 0, 0);
    assert_true(o.information == 0);
    cop_ensemble_add(e, slightly, 16);
    cop_ensemble_add(e, much, 16);
    cop_ensemble_opinions(e, &o);
    assert_int_equal(o.class, 1);
    assert_true(fabs(o.variation - 1.0 / 3) < 1e-15);
    cop_ensemble_destroy(e);
}

/* ---- all masks of a small network ---- */

typedef struct small {
    cop_model *dropped, *plain; /* dropout and linear; linear alone */
    cop_pass *members, *pass;
    float *weights, *rows;
    int32_t labels[SAMPLES];
    double p;
    cop_variant variant;
} small;

static cop_samples samples_of(const small *s, const float *rows) {
    return (cop_samples){.dtype = COP_DTYPE_F32,
                         .count = SAMPLES,
                         .features = INPUTS,
                         .stride = INPUTS * sizeof(float),
                         .rows = rows,
                         .labels = s->labels};
}

static small small_open(double p, cop_variant variant) {
    const cop_layer_spec layers[] = {spec_dropout(p, COP_SCOPE_SAMPLE, variant),
                                     spec_linear(CLASSES)};
    small s = {.p = p, .variant = variant};
    cop_error error = {0};
    s.dropped = model_of(layers, 2, INPUTS, CLASSES);
    s.plain = model_of(layers + 1, 1, INPUTS, CLASSES);
    assert_int_equal(cop_model_floats(s.dropped), cop_model_floats(s.plain));
    s.weights = cop_alloc((size_t)cop_model_floats(s.plain) * sizeof(float));
    s.rows = cop_alloc(SAMPLES * INPUTS * sizeof(float));
    fill_random(s.rows, SAMPLES * INPUTS, 3);
    for (int i = 0; i < cop_model_parameter_count(s.plain); i++) { /* the padding stays zero */
        const cop_parameter *w = cop_model_parameter(s.plain, i);
        fill_random(s.weights + w->offset, (size_t)w->count, 4 + (uint32_t)i);
    }
    if (cop_pass_create(s.dropped, best_kernels(), COP_NUMERICS_PORTABLE, SAMPLES, COP_PASS_MEMBERS,
                        &s.members, &error) ||
        cop_pass_create(s.plain, best_kernels(), COP_NUMERICS_PORTABLE, SAMPLES, COP_PASS_EVAL,
                        &s.pass, &error))
        fail_msg("%s", error.text);
    return s;
}

static void small_close(small *s) {
    cop_pass_destroy(s->members);
    cop_pass_destroy(s->pass);
    cop_model_destroy(s->dropped);
    cop_model_destroy(s->plain);
    cop_free(s->weights);
    cop_free(s->rows);
}

/* Writes ln softmax of the logits [CLASSES][ld] to out [CLASSES * SAMPLES]. */
static void log_probabilities(const float *z, int ld, double *out) {
    for (int c = 0; c < SAMPLES; c++) {
        double sum = 0;
        for (int k = 0; k < CLASSES; k++) sum += exp((double)z[k * ld + c]);
        for (int k = 0; k < CLASSES; k++) out[k * SAMPLES + c] = (double)z[k * ld + c] - log(sum);
    }
}

/* Computes the mean of p (arithmetic) and the mean of ln p (geometric) over all 2^N masks, weighted
 * by their probabilities. */
static void enumerate(small *s, double *arithmetic, double *geometric) {
    const double scale = s->variant == COP_VARIANT_INVERTED ? 1 / (1 - s->p) : 1;
    const cop_eval_place place = {.seed = 1};
    memset(arithmetic, 0, CLASSES * SAMPLES * sizeof *arithmetic);
    memset(geometric, 0, CLASSES * SAMPLES * sizeof *geometric);
    for (unsigned mask = 0; mask < 1u << INPUTS; mask++) {
        float rows[SAMPLES * INPUTS];
        double log_p[CLASSES * SAMPLES];
        const int kept = __builtin_popcount(mask);
        const double weight = pow(1 - s->p, kept) * pow(s->p, INPUTS - kept);
        int ld;
        for (int i = 0; i < SAMPLES * INPUTS; i++)
            rows[i] = mask >> (i % INPUTS) & 1 ? s->rows[i] * (float)scale : 0;
        const cop_samples samples = samples_of(s, rows);
        const float *z = cop_pass_logits(s->pass, s->weights, &place, &samples, &ld);
        log_probabilities(z, ld, log_p);
        for (int i = 0; i < CLASSES * SAMPLES; i++) {
            arithmetic[i] += weight * exp(log_p[i]);
            geometric[i] += weight * log_p[i];
        }
    }
}

static void test_geometric_mean_over_all_masks_equals_weight_scaling(void **state) {
    (void)state;
    for (int trial = 0; trial < 4; trial++) {
        small s = small_open(trial & 1 ? 0.5 : 0.2,
                             trial & 2 ? COP_VARIANT_CLASSIC : COP_VARIANT_INVERTED);
        double arithmetic[CLASSES * SAMPLES], geometric[CLASSES * SAMPLES],
            scaled[CLASSES * SAMPLES], apart = 0;
        const cop_eval_place place = {.seed = 1};
        const cop_samples samples = samples_of(&s, s.rows);
        int ld;
        enumerate(&s, arithmetic, geometric);
        const float *z = cop_pass_logits(s.members, s.weights, &place, &samples, &ld);
        log_probabilities(z, ld, scaled);
        for (int c = 0; c < SAMPLES; c++) {
            double sum = 0;
            for (int k = 0; k < CLASSES; k++) sum += exp(geometric[k * SAMPLES + c]);
            for (int k = 0; k < CLASSES; k++) {
                const double p = exp(scaled[k * SAMPLES + c]);
                assert_true(fabs(exp(geometric[k * SAMPLES + c]) / sum - p) <= 1e-6);
                apart = fmax(apart, fabs(arithmetic[k * SAMPLES + c] - p));
            }
        }
        assert_true(apart > 1e-3); /* the arithmetic mean differs */
        small_close(&s);
    }
}

/* Root mean square distance from `exact` to the mean of `count` members from `first` on. */
static double distance(small *s, uint32_t first, uint32_t count, const double *exact) {
    const cop_eval_place place = {.seed = 77};
    const cop_samples samples = samples_of(s, s->rows);
    cop_ensemble *e = open_ensemble(COP_AVERAGE_ARITHMETIC, CLASSES, SAMPLES);
    double sum = 0;
    int ld;
    cop_ensemble_begin(e, SAMPLES, s->labels, 0);
    for (uint32_t m = first; m < first + count; m++) {
        const float *z = cop_pass_member(s->members, s->weights, &place, m, &samples, &ld);
        cop_ensemble_add(e, z, ld);
    }
    const double *p = cop_ensemble_probabilities(e);
    for (int i = 0; i < CLASSES * SAMPLES; i++) sum += (p[i] - exact[i]) * (p[i] - exact[i]);
    cop_ensemble_destroy(e);
    return sum;
}

/* Averages the distance over 64 ensembles of each size. With four times as many members, it must be
 * half as large. */
static void test_arithmetic_mean_converges_as_1_over_sqrt_k(void **state) {
    (void)state;
    for (int trial = 0; trial < 4; trial++) {
        small s = small_open(trial & 1 ? 0.5 : 0.2,
                             trial & 2 ? COP_VARIANT_CLASSIC : COP_VARIANT_INVERTED);
        double exact[CLASSES * SAMPLES], geometric[CLASSES * SAMPLES], before = 0;
        enumerate(&s, exact, geometric);
        for (uint32_t count = 4; count <= 1024; count *= 4) {
            double sum = 0;
            for (uint32_t i = 0; i < 64; i++) sum += distance(&s, i * count, count, exact);
            const double rms = sqrt(sum / (64 * CLASSES * SAMPLES));
            if (before > 0) assert_true(before / rms > 1.6 && before / rms < 2.4);
            before = rms;
        }
        assert_true(before < 0.01);
        small_close(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures_equal_those_computed_by_hand),
        cmocka_unit_test(test_geometric_mean_by_hand),
        cmocka_unit_test(test_sums_of_slices_give_the_whole),
        cmocka_unit_test(test_probability_of_zero_has_a_finite_loss),
        cmocka_unit_test(test_uncertainty_figures_equal_those_computed_by_hand),
        cmocka_unit_test(test_class_is_that_of_the_mean_probability),
        cmocka_unit_test(test_geometric_mean_over_all_masks_equals_weight_scaling),
        cmocka_unit_test(test_arithmetic_mean_converges_as_1_over_sqrt_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
