/* The pass. It is compared with plain loops and finite differences, and has the same bits however
 * the work is divided. LABELS: quick */
#include <math.h>

#include "common/base/hash.h"
#include "common/nn/loss.h"
#include "unit/nn/model_fixture.h"

enum { FEATURES = 20, HIDDEN = 33, CLASSES = 5, SHARDS = 8 };
static const int32_t sizes[SHARDS] = {6, 6, 6, 5, 5, 5, 5, 5};
enum { COUNT = 43 };

/* A model with all orders of layers that share buffers: dropout first, relu before and after
 * dropout, and two masks in sequence. */
static cop_model *dropout_model(cop_scope scope, cop_variant variant) {
    const cop_layer_spec layers[] = {spec_dropout(0.2, scope, variant),
                                     spec_linear(HIDDEN),
                                     spec_relu(),
                                     spec_dropout(0.5, scope, variant),
                                     spec_linear(17),
                                     spec_dropout(0.3, scope, variant),
                                     spec_relu(),
                                     spec_flatten(),
                                     spec_linear(CLASSES)};
    return model_of(layers, 9, FEATURES, CLASSES);
}

static rig rig_of(cop_model *model) {
    return rig_open(model, best_kernels(), COUNT, 11);
}

static size_t bytes_of(const rig *r) {
    return (size_t)cop_model_floats(r->model) * sizeof(float);
}

static void naive_linear(const rig *r, int parameter, const double *x, int in, double *y, int out) {
    const float *w = r->weights + cop_model_parameter(r->model, parameter)->offset;
    const float *b = r->weights + cop_model_parameter(r->model, parameter + 1)->offset;
    for (int o = 0; o < out; o++) {
        y[o] = (double)b[o];
        for (int i = 0; i < in; i++) y[o] += (double)w[o * in + i] * x[i];
    }
}

static void test_eval_matches_plain_loops(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(HIDDEN), spec_relu(), spec_linear(CLASSES)};
    rig r = rig_of(model_of(layers, 3, FEATURES, CLASSES));
    int ld = 0, correct = 0;
    double loss = 0;
    const float *logits = cop_pass_logits(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &ld);
    assert_int_equal(ld, 48);
    for (int n = 0; n < COUNT; n++) {
        double x[FEATURES], h[HIDDEN], z[CLASSES], sum = 0;
        int best = 0;
        for (int i = 0; i < FEATURES; i++) x[i] = (double)r.rows[n * FEATURES + i];
        naive_linear(&r, 0, x, FEATURES, h, HIDDEN);
        for (int i = 0; i < HIDDEN; i++) h[i] = h[i] > 0 ? h[i] : 0;
        naive_linear(&r, 2, h, HIDDEN, z, CLASSES);
        for (int i = 0; i < CLASSES; i++) {
            assert_true(fabs((double)logits[i * ld + n] - z[i]) < 1e-5);
            sum += exp(z[i]);
            if (z[i] > z[best]) best = i;
        }
        loss += log(sum) - z[r.labels[n]];
        correct += best == r.labels[n];
    }
    cop_pass_result result;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &result);
    assert_true(fabs(result.loss - loss) < 1e-4);
    assert_int_equal(result.correct, correct);
    assert_int_equal(result.samples, COUNT);
    rig_close(&r);
}

typedef struct quotients {
    double left, right; /* difference quotients to both sides */
} quotients;

static quotients differences(rig *r, int64_t at, double here, float *scratch) {
    const float before = r->weights[at], step = 1.0f / 1024;
    r->weights[at] = before + step;
    const double above = rig_train(r, 5, 3, sizes, 0, SHARDS, scratch).loss;
    r->weights[at] = before - step;
    const double below = rig_train(r, 5, 3, sizes, 0, SHARDS, scratch).loss;
    r->weights[at] = before;
    return (quotients){(here - below) * 1024, (above - here) * 1024};
}

/* Changes every 7th weight of each tensor, and checks that the loss changes as the gradient says.
 * The step is fixed, and so are the masks. If the differences to both sides disagree, because a
 * relu switches in between, the weight is skipped; this may happen to one weight in twenty. */
static void check_whole_gradient(cop_model *model) {
    rig r = rig_of(model);
    float *scratch = cop_alloc(bytes_of(&r));
    const double here = rig_train(&r, 5, 3, sizes, 0, SHARDS, r.gradients).loss;
    int compared = 0, bent = 0;
    for (int i = 0; i < cop_model_parameter_count(r.model); i++) {
        const cop_parameter *p = cop_model_parameter(r.model, i);
        for (int64_t j = p->offset; j < p->offset + p->count; j += 7) {
            const quotients q = differences(&r, j, here, scratch);
            const double numeric = (q.left + q.right) / 2, analytic = (double)r.gradients[j];
            if (fabs(q.left - q.right) > 0.02 * fmax(1, fabs(numeric))) {
                bent++;
                continue;
            }
            compared++;
            if (!(fabs(numeric - analytic) <= 0.02 * fmax(1, fabs(numeric))))
                fail_msg("%s[%lld]: gradient %g, finite difference %g", p->name,
                         (long long)(j - p->offset), analytic, numeric);
        }
    }
    assert_true(bent * 20 <= compared);
    cop_free(scratch);
    rig_close(&r);
}

static void test_whole_gradient_matches_finite_differences(void **state) {
    (void)state;
    check_whole_gradient(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    check_whole_gradient(dropout_model(COP_SCOPE_SHARD, COP_VARIANT_CLASSIC));
}

/* Compares shards [0, 8) as one block with blocks of `block` shards that the tree combines. */
static void check_split(rig *r, const int32_t *shard_sizes, int block) {
    const int blocks = SHARDS / block;
    float *parts[SHARDS], *sum = cop_alloc(bytes_of(r));
    double losses[SHARDS];
    int first[SHARDS], size[SHARDS];
    int16_t ops[2 * SHARDS];
    const cop_pass_result whole = rig_train(r, 5, 3, shard_sizes, 0, SHARDS, r->gradients);
    for (int i = 0; i < blocks; i++) {
        parts[i] = cop_alloc(bytes_of(r));
        first[i] = i * block;
        size[i] = block;
        losses[i] = rig_train(r, 5, 3, shard_sizes, i * block, block, parts[i]).loss;
    }
    const cop_tree tree = {.count = blocks,
                           .op_count = cop_tree_build_blocks(SHARDS, blocks, first, size, ops),
                           .ops = ops};
    r->kernels->tree_sum((const float *const *)parts, &tree, sum,
                         (size_t)cop_model_floats(r->model));
    assert_memory_equal(sum, r->gradients, bytes_of(r));
    assert_true(cop_loss_combine(&tree, losses) == whole.loss);
    for (int i = 0; i < blocks; i++) cop_free(parts[i]);
    cop_free(sum);
}

static void test_any_split_into_blocks_gives_the_same_bits(void **state) {
    (void)state;
    for (int scope = COP_SCOPE_SAMPLE; scope <= COP_SCOPE_SHARD; scope++) {
        rig r = rig_of(dropout_model((cop_scope)scope, COP_VARIANT_INVERTED));
        check_split(&r, sizes, 1);
        check_split(&r, sizes, 2);
        check_split(&r, sizes, 4);
        rig_close(&r);
    }
}

static void test_absent_shards_do_not_change_the_sum(void **state) {
    (void)state;
    static const int32_t with_absent[SHARDS] = {9, 9, 9, 8, 8, 0, 0, 0};
    static const int32_t without[5] = {9, 9, 9, 8, 8};
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    float *other = cop_alloc(bytes_of(&r));
    const cop_pass_result a = rig_train(&r, 5, 3, with_absent, 0, SHARDS, r.gradients);
    const cop_pass_result b = rig_train(&r, 5, 3, without, 0, 5, other);
    assert_memory_equal(other, r.gradients, bytes_of(&r));
    assert_true(a.loss == b.loss);
    assert_int_equal(a.samples, COUNT);
    cop_free(other);
    rig_close(&r);
}

static void test_block_without_samples_sums_to_zero(void **state) {
    (void)state;
    static const int32_t none[2] = {0, 0};
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    memset(r.gradients, 0xff, bytes_of(&r));
    const cop_pass_result result = rig_train(&r, 5, 3, none, 0, 2, r.gradients);
    assert_true(result.loss == 0 && result.samples == 0 && result.correct == 0);
    for (int64_t i = 0; i < cop_model_floats(r.model); i++) assert_true(r.gradients[i] == 0);
    rig_close(&r);
}

static void test_gradients_zero_the_padding(void **state) {
    (void)state;
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    memset(r.gradients, 0xff, bytes_of(&r));
    rig_train(&r, 5, 3, sizes, 0, SHARDS, r.gradients);
    assert_true(r.kernels->all_finite(r.gradients, (size_t)cop_model_floats(r.model)));
    const cop_parameter *bias = cop_model_parameter(r.model, 1);
    for (int i = HIDDEN; i < 48; i++) assert_true(r.gradients[bias->offset + i] == 0);
    rig_close(&r);
}

static void test_pass_results_do_not_depend_on_the_number_of_columns(void **state) {
    (void)state;
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC));
    static float all[CLASSES][COUNT];
    int ld;
    const float *logits = cop_pass_logits(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &ld);
    for (int i = 0; i < CLASSES; i++)
        for (int n = 0; n < COUNT; n++) all[i][n] = logits[i * ld + n];
    cop_pass *narrow;
    assert_int_equal(
        cop_pass_create(r.model, r.kernels, COP_NUMERICS_PORTABLE, 1, COP_PASS_EVAL, &narrow, NULL),
        COP_OK);
    for (int n = 0; n < COUNT; n++) {
        cop_samples one = r.samples;
        one.count = 1;
        one.rows = r.rows + n * FEATURES;
        one.labels = r.labels + n;
        logits = cop_pass_logits(narrow, r.weights, &(cop_eval_place){0}, &one, &ld);
        for (int i = 0; i < CLASSES; i++) assert_true(logits[i * ld] == all[i][n]);
    }
    cop_pass_destroy(narrow);
    rig_close(&r);
}

static void test_pass_results_do_not_depend_on_earlier_passes(void **state) {
    (void)state;
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    float *other = cop_alloc(bytes_of(&r));
    rig_train(&r, 5, 3, sizes, 2, 1, r.gradients);
    rig_train(&r, 9, 4, sizes, 0, SHARDS, other);
    cop_pass_result result;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &result);
    rig_train(&r, 5, 3, sizes, 2, 1, other);
    assert_memory_equal(other, r.gradients, bytes_of(&r));
    cop_free(other);
    rig_close(&r);
}

static void test_every_instruction_set_gives_the_same_bits(void **state) {
    (void)state;
    rig expected = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    const double loss = rig_train(&expected, 5, 3, sizes, 0, SHARDS, expected.gradients).loss;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        if (!cop_kernels_find(*name)) continue;
        rig r = rig_open(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
                         cop_kernels_find(*name), COUNT, 11);
        assert_true(rig_train(&r, 5, 3, sizes, 0, SHARDS, r.gradients).loss == loss);
        assert_memory_equal(r.gradients, expected.gradients, bytes_of(&r));
        rig_close(&r);
    }
    rig_close(&expected);
}

static void test_seed_step_and_shard_order_change_the_gradient(void **state) {
    (void)state;
    static const int32_t two[2] = {21, 22}, swapped[2] = {22, 21};
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    float *other = cop_alloc(bytes_of(&r));
    rig_train(&r, 5, 3, two, 0, 2, r.gradients);
    rig_train(&r, 6, 3, two, 0, 2, other);
    assert_memory_not_equal(other, r.gradients, bytes_of(&r));
    rig_train(&r, 5, 4, two, 0, 2, other);
    assert_memory_not_equal(other, r.gradients, bytes_of(&r));
    rig_train(&r, 5, 3, swapped, 0, 2, other);
    assert_memory_not_equal(other, r.gradients, bytes_of(&r));
    cop_free(other);
    rig_close(&r);
}

static void test_classic_evaluation_equals_weight_scaling(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {
        spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC), spec_linear(HIDDEN), spec_relu(),
        spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC), spec_linear(CLASSES)};
    const cop_layer_spec bare[] = {spec_relu(), spec_linear(HIDDEN), spec_relu(), spec_relu(),
                                   spec_linear(CLASSES)};
    rig r = rig_of(model_of(layers, 5, FEATURES, CLASSES));
    rig scaled = rig_of(model_of(bare, 5, FEATURES, CLASSES));
    for (int i = 0; i < COUNT * FEATURES; i++) {
        r.rows[i] = fabsf(r.rows[i]); /* the network without dropout starts with a relu, to keep the
                                         layer numbers */
        scaled.rows[i] = r.rows[i];
    }
    memcpy(scaled.weights, r.weights, bytes_of(&r));
    for (int i = 0; i < cop_model_parameter_count(r.model); i += 2) {
        const cop_parameter *p = cop_model_parameter(r.model, i);
        for (int64_t j = 0; j < p->count; j++) scaled.weights[p->offset + j] *= 0.5f;
    }
    int ld;
    float found[CLASSES * 48];
    memcpy(found, cop_pass_logits(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &ld),
           sizeof found);
    const float *expected =
        cop_pass_logits(scaled.pass, scaled.weights, &(cop_eval_place){0}, &scaled.samples, &ld);
    for (int i = 0; i < CLASSES; i++) /* dividing by two is exact, so the bits must be equal */
        for (int n = 0; n < COUNT; n++) assert_true(found[i * ld + n] == expected[i * ld + n]);
    rig_close(&r);
    rig_close(&scaled);
}

static void test_bytes_are_read_as_fractions_of_255(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(CLASSES)};
    rig r = rig_of(model_of(layers, 1, FEATURES, CLASSES));
    unsigned char rows[COUNT * FEATURES];
    for (int i = 0; i < COUNT * FEATURES; i++) {
        rows[i] = (unsigned char)(i * 37 % 256);
        r.rows[i] = (float)rows[i] / 255.0f;
    }
    int ld;
    float expected[CLASSES * 48];
    memcpy(expected, cop_pass_logits(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &ld),
           sizeof expected);
    const cop_samples bytes = {COP_DTYPE_U8, COUNT, FEATURES, FEATURES, rows, r.labels};
    const float *found = cop_pass_logits(r.pass, r.weights, &(cop_eval_place){0}, &bytes, &ld);
    assert_memory_equal(found, expected, sizeof expected);
    rig_close(&r);
}

/* Two classes that no line can separate: inside and outside a circle. */
static rig circle(void) {
    const cop_layer_spec layers[] = {spec_linear(32), spec_relu(),
                                     spec_dropout(0.1, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
                                     spec_linear(2)};
    rig r = rig_open(model_of(layers, 4, 2, 2), best_kernels(), 256, 1);
    for (int i = 0; i < 256; i++) {
        const float x = r.rows[2 * i], y = r.rows[2 * i + 1];
        r.labels[i] = x * x + y * y < 0.5f;
    }
    return r;
}

static const cop_optimizer_spec toy_sgd = {.kind = COP_OPTIMIZER_SGD,
                                           .rate = 0.2,
                                           .momentum = 0.9,
                                           .schedule = {.kind = COP_SCHEDULE_CONSTANT}};

static void train_circle(rig *r, uint64_t steps, float *velocity) {
    static const int32_t shards[4] = {64, 64, 64, 64};
    for (uint64_t step = 1; step <= steps; step++) {
        rig_train(r, 1, (uint32_t)step, shards, 0, 4, r->gradients);
        rig_update(r, &toy_sgd, step, velocity);
    }
}

static void test_training_learns_a_circle(void **state) {
    (void)state;
    rig r = circle();
    float *velocity = cop_alloc(bytes_of(&r));
    cop_pass_result before, after;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &before);
    train_circle(&r, 150, velocity);
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &after);
    assert_true(after.loss < before.loss / 3);
    assert_true(after.correct >= 245);
    cop_free(velocity);
    rig_close(&r);
}

static void test_training_step_allocates_no_memory(void **state) {
    (void)state;
    rig r = circle();
    float *velocity = cop_alloc(bytes_of(&r));
    const uint64_t before = cop_alloc_count();
    train_circle(&r, 3, velocity);
    cop_pass_result result;
    cop_pass_eval(r.pass, r.weights, &(cop_eval_place){0}, &r.samples, &result);
    assert_int_equal(cop_alloc_count(), before);
    cop_free(velocity);
    rig_close(&r);
}

/* Part of portable-1: this constant never changes. */
static const char golden[] = "e9021c30d17967d721593df99f1d0610049da0e20e8fc0c92b8ecd603075388f";

static void test_golden_digest_after_ten_steps(void **state) {
    (void)state;
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    float *velocity = cop_alloc(bytes_of(&r));
    for (uint64_t step = 1; step <= 10; step++) {
        rig_train(&r, 1, (uint32_t)step, sizes, 0, SHARDS, r.gradients);
        rig_update(&r, &toy_sgd, step, velocity);
    }
    unsigned char digest[32];
    char text[65];
    assert_int_equal(cop_model_digest(r.model, r.weights, digest, NULL), COP_OK);
    cop_hex32(digest, text);
    assert_string_equal(text, golden);
    cop_free(velocity);
    rig_close(&r);
}

static void test_pass_size_is_computed_exactly(void **state) {
    (void)state;
    cop_layer_spec layers[] = {spec_dropout(0.2, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
                               spec_linear(1024),
                               spec_relu(),
                               spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
                               spec_linear(1024),
                               spec_relu(),
                               spec_linear(1024),
                               spec_relu(),
                               spec_linear(10)};
    cop_model *model = model_of(layers, 9, 784, 10);
    const size_t training = cop_pass_bytes(model, 128, COP_PASS_TRAIN);
    const size_t inference = cop_pass_bytes(model, 128, COP_PASS_EVAL);
    /* gemm's workspace, the input, three hidden layers, two gradients, logits, masks; relu and
     * dropout need no buffers */
    const size_t floats = 128 * (784 + 3 * 1024 + 2 * 1024 + 10);
    assert_true(training > COP_GEMM_WORKSPACE + floats * 4);
    assert_true(training < COP_GEMM_WORKSPACE + floats * 4 + 128 * 1024);
    assert_true(inference < training && inference > COP_GEMM_WORKSPACE + 128 * 1024 * 8);
    cop_model_destroy(model);
}

static void test_failed_pass_reports_how_much_memory_it_needs(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(CLASSES)};
    cop_model *model = model_of(layers, 1, FEATURES, CLASSES);
    for (uint64_t k = 1; k <= 2; k++) {
        cop_pass *pass = NULL;
        cop_error error = {0};
        cop_alloc_fail_at(k);
        assert_int_equal(cop_pass_create(model, best_kernels(), COP_NUMERICS_PORTABLE, 8,
                                         COP_PASS_TRAIN, &pass, &error),
                         COP_ERR_NO_MEMORY);
        assert_null(pass);
        assert_non_null(strstr(error.text, "no memory"));
    }
    cop_alloc_fail_at(0);
    cop_model_destroy(model);
}

static void test_openblas_gives_nearly_the_same_gradient(void **state) {
    (void)state;
    rig r = rig_of(dropout_model(COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED));
    float *other = cop_alloc(bytes_of(&r));
    rig_train(&r, 5, 3, sizes, 0, SHARDS, r.gradients);
    cop_pass_destroy(r.pass);
    assert_int_equal(cop_pass_create(r.model, r.kernels, COP_NUMERICS_OPENBLAS, COUNT,
                                     COP_PASS_TRAIN, &r.pass, NULL),
                     COP_OK);
    rig_train(&r, 5, 3, sizes, 0, SHARDS, other);
    for (int64_t i = 0; i < cop_model_floats(r.model); i++)
        assert_true(fabs((double)other[i] - (double)r.gradients[i]) <
                    1e-4 * fmax(1, fabs((double)r.gradients[i])));
    cop_free(other);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eval_matches_plain_loops),
        cmocka_unit_test(test_whole_gradient_matches_finite_differences),
        cmocka_unit_test(test_any_split_into_blocks_gives_the_same_bits),
        cmocka_unit_test(test_absent_shards_do_not_change_the_sum),
        cmocka_unit_test(test_block_without_samples_sums_to_zero),
        cmocka_unit_test(test_gradients_zero_the_padding),
        cmocka_unit_test(test_pass_results_do_not_depend_on_the_number_of_columns),
        cmocka_unit_test(test_pass_results_do_not_depend_on_earlier_passes),
        cmocka_unit_test(test_every_instruction_set_gives_the_same_bits),
        cmocka_unit_test(test_seed_step_and_shard_order_change_the_gradient),
        cmocka_unit_test(test_classic_evaluation_equals_weight_scaling),
        cmocka_unit_test(test_bytes_are_read_as_fractions_of_255),
        cmocka_unit_test(test_training_learns_a_circle),
        cmocka_unit_test(test_training_step_allocates_no_memory),
        cmocka_unit_test(test_golden_digest_after_ten_steps),
        cmocka_unit_test(test_pass_size_is_computed_exactly),
        cmocka_unit_test(test_failed_pass_reports_how_much_memory_it_needs),
        cmocka_unit_test(test_openblas_gives_nearly_the_same_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
