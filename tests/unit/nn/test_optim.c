/* The update. It is compared with a plain version of its formula, and has the same bits however its
 * rows are divided. LABELS: quick */
#include <math.h>

#include "unit/nn/model_fixture.h"

enum { FLOATS_MAX = 4096, BLOCKS = 3 };

typedef struct bench {
    cop_model *model;
    float w[FLOATS_MAX], velocity[FLOATS_MAX];
    float gradients[BLOCKS][FLOATS_MAX];
} bench;

static bench *bench_open(double max_norm) {
    cop_layer_spec layers[] = {spec_linear(37), spec_relu(), spec_linear(5)};
    layers[0].max_norm = max_norm;
    bench *b = cop_alloc(sizeof *b);
    b->model = model_of(layers, 3, 53, 5);
    assert_true(cop_model_floats(b->model) <= FLOATS_MAX);
    cop_model_init(b->model, 3, b->w);
    for (int i = 0; i < FLOATS_MAX; i++) b->velocity[i] = 3; /* the first step must not read it */
    return b;
}

static void bench_close(bench *b) {
    cop_model_destroy(b->model);
    cop_free(b);
}

/* Makes gradients that differ in every step. The padding stays 0. */
static void fill_gradients(bench *b, uint64_t step) {
    for (int k = 0; k < BLOCKS; k++)
        for (int i = 0; i < cop_model_parameter_count(b->model); i++) {
            const cop_parameter *p = cop_model_parameter(b->model, i);
            fill_random(b->gradients[k] + p->offset, (size_t)p->count,
                        (uint32_t)(step * 100) + (uint32_t)(k * 10 + i));
        }
}

static void run_step(bench *b, const cop_optimizer_spec *spec, uint64_t step, int parts) {
    static const int16_t ops[] = {0, 1, -1, 2, -1}; /* (0 + 1) + 2 */
    const cop_tree tree = {.count = BLOCKS, .op_count = 5, .ops = ops};
    const float *const gradients[] = {b->gradients[0], b->gradients[1], b->gradients[2]};
    const cop_update update = {
        .model = b->model,
        .kernels = best_kernels(),
        .spec = spec,
        .step = step,
        .batch = 24,
        .gradients = gradients,
        .tree = &tree,
        .w_in = b->w,
        .w_out = b->w,
        .states = {b->velocity},
    };
    for (int part = parts - 1; part >= 0; part--) cop_update_run(&update, part, parts);
}

static float naive_element(const bench *b, const cop_optimizer_spec *spec, uint64_t step, int64_t i,
                           float *velocity) {
    float w = b->w[i];
    float g = (b->gradients[0][i] + b->gradients[1][i]) + b->gradients[2][i];
    g = g / 24.0f;
    g = fmaf((float)spec->weight_decay, w, g);
    if (spec->l1 != 0) g += (float)spec->l1 * (float)((w > 0) - (w < 0));
    const float rate = (float)cop_schedule_rate(spec, step);
    const float momentum = (float)cop_optimizer_momentum(spec, step);
    if (momentum == 0) return fmaf(-rate, g, w); /* as in PyTorch, the state is not used */
    *velocity = step == 1 ? g : fmaf(momentum, *velocity, g);
    return fmaf(-rate, spec->nesterov ? fmaf(momentum, *velocity, g) : *velocity, w);
}

static void naive_step(bench *b, const cop_optimizer_spec *spec, uint64_t step) {
    for (int i = 0; i < cop_model_parameter_count(b->model); i++) {
        const cop_parameter *p = cop_model_parameter(b->model, i);
        for (int64_t j = p->offset; j < p->offset + p->count; j++)
            b->w[j] = naive_element(b, spec, step, j, &b->velocity[j]);
    }
}

static void check_against_naive(const cop_optimizer_spec *spec) {
    bench *found = bench_open(0), *expected = bench_open(0);
    for (uint64_t step = 1; step <= 6; step++) {
        fill_gradients(found, step);
        fill_gradients(expected, step);
        run_step(found, spec, step, 1);
        naive_step(expected, spec, step);
        assert_memory_equal(found->w, expected->w, sizeof found->w);
        if (cop_optimizer_states(spec))
            assert_memory_equal(found->velocity, expected->velocity, sizeof found->velocity);
    }
    bench_close(found);
    bench_close(expected);
}

static cop_optimizer_spec sgd(void) {
    return (cop_optimizer_spec){.kind = COP_OPTIMIZER_SGD,
                                .rate = 0.1,
                                .schedule = {.kind = COP_SCHEDULE_INVERSE, .decay = 0.01}};
}

static void test_plain_sgd_follows_its_formula(void **state) {
    (void)state;
    const cop_optimizer_spec spec = sgd();
    check_against_naive(&spec);
}

static void test_momentum_follows_its_formula(void **state) {
    (void)state;
    cop_optimizer_spec spec = sgd();
    spec.momentum = 0.95;
    check_against_naive(&spec);
    spec.nesterov = true;
    check_against_naive(&spec);
}

static void test_decay_and_l1_follow_their_formulas(void **state) {
    (void)state;
    cop_optimizer_spec spec = sgd();
    spec.momentum = 0.9;
    spec.weight_decay = 0.01;
    check_against_naive(&spec);
    spec.l1 = 1e-3;
    check_against_naive(&spec);
}

static void test_momentum_ramp_may_start_at_zero(void **state) {
    (void)state;
    cop_optimizer_spec spec = sgd();
    assert_int_equal(cop_optimizer_states(&spec), 0);
    spec.momentum_final = 0.9;
    spec.momentum_steps = 4;
    assert_int_equal(cop_optimizer_states(&spec), 1);
    assert_string_equal(cop_optimizer_state_name(&spec, 0), "momentum");
    check_against_naive(&spec);
}

static double row_norm(const bench *b, const cop_parameter *p, int row) {
    double sum = 0;
    for (int j = 0; j < p->cols; j++) {
        const double w = (double)b->w[p->offset + (int64_t)row * p->cols + j];
        sum += w * w;
    }
    return sqrt(sum);
}

static void test_max_norm_shrinks_only_long_rows_of_its_layer(void **state) {
    (void)state;
    const double limit = 1.45; /* rows of He-initialised weights have norms around sqrt(2) */
    const cop_optimizer_spec spec = sgd();
    bench *found = bench_open(limit), *expected = bench_open(0);
    fill_gradients(found, 1);
    fill_gradients(expected, 1);
    run_step(found, &spec, 1, 1);
    naive_step(expected, &spec, 1);
    const cop_parameter *p = cop_model_parameter(found->model, 0);
    int shrunk = 0, kept = 0;
    for (int row = 0; row < p->rows; row++) {
        const double norm = row_norm(expected, p, row);
        const size_t at = (size_t)p->offset + (size_t)row * (size_t)p->cols;
        if (norm <= limit) {
            assert_memory_equal(found->w + at, expected->w + at, (size_t)p->cols * sizeof(float));
            kept++;
            continue;
        }
        shrunk++;
        assert_true(fabs(row_norm(found, p, row) - limit) < 1e-5);
        for (int j = 0; j < p->cols; j++)
            assert_true(fabs((double)found->w[at + (size_t)j] -
                             (double)expected->w[at + (size_t)j] * limit / norm) < 1e-6);
    }
    assert_true(shrunk > 3 && kept > 3);
    const size_t rest = (size_t)cop_model_parameter(found->model, 1)->offset;
    assert_memory_equal(found->w + rest, expected->w + rest, (FLOATS_MAX - rest) * sizeof(float));
    bench_close(found);
    bench_close(expected);
}

static void test_update_in_any_number_of_parts_gives_the_same_bits(void **state) {
    (void)state;
    cop_optimizer_spec spec = sgd();
    spec.momentum = 0.9;
    spec.weight_decay = 1e-3;
    bench *expected = bench_open(1.4);
    for (uint64_t step = 1; step <= 3; step++) {
        fill_gradients(expected, step);
        run_step(expected, &spec, step, 1);
    }
    static const int parts[] = {2, 3, 7, 64, 500};
    for (int i = 0; i < 5; i++) {
        bench *found = bench_open(1.4);
        for (uint64_t step = 1; step <= 3; step++) {
            fill_gradients(found, step);
            run_step(found, &spec, step, parts[i]);
        }
        assert_memory_equal(found->w, expected->w, sizeof found->w);
        assert_memory_equal(found->velocity, expected->velocity, sizeof found->velocity);
        bench_close(found);
    }
    bench_close(expected);
}

/* An update that reads bf16 gradients and also writes rounded weights gives the same weights as one
 * that reads the same gradients in f32. */
static void test_update_from_bf16_gradients(void **state) {
    (void)state;
    static const int16_t ops[] = {0, 1, -1, 2, -1};
    static uint16_t narrow[BLOCKS][FLOATS_MAX], sent[FLOATS_MAX];
    cop_optimizer_spec spec = sgd();
    spec.momentum = 0.9;
    bench *found = bench_open(1.4), *expected = bench_open(1.4);
    fill_gradients(expected, 1);
    for (int k = 0; k < BLOCKS; k++)
        for (int i = 0; i < FLOATS_MAX; i++) {
            narrow[k][i] = cop_bf16_of(expected->gradients[k][i]);
            expected->gradients[k][i] = cop_bf16_float(narrow[k][i]);
        }
    for (int bf16 = 0; bf16 < 2; bf16++) {
        bench *b = bf16 ? found : expected;
        const float *gradients[BLOCKS];
        for (int k = 0; k < BLOCKS; k++)
            gradients[k] = bf16 ? (const void *)narrow[k] : expected->gradients[k];
        const cop_tree tree = {
            .count = BLOCKS, .op_count = 5, .ops = ops, .round_nodes = true, .bf16_inputs = bf16};
        const cop_update update = {.model = b->model,
                                   .kernels = best_kernels(),
                                   .spec = &spec,
                                   .step = 1,
                                   .batch = 24,
                                   .gradients = gradients,
                                   .tree = &tree,
                                   .w_in = b->w,
                                   .w_out = b->w,
                                   .w_sent = bf16 ? sent : NULL,
                                   .states = {b->velocity}};
        for (int part = 0; part < 3; part++) cop_update_run(&update, part, 3);
    }
    assert_memory_equal(found->w, expected->w, sizeof found->w);
    assert_memory_equal(found->velocity, expected->velocity, sizeof found->velocity);
    for (int64_t i = 0; i < cop_model_floats(found->model); i++)
        assert_int_equal(sent[i], cop_bf16_of(found->w[i]));
    bench_close(found);
    bench_close(expected);
}

static void test_updates_have_the_same_bits_on_every_instruction_set(void **state) {
    (void)state;
    static const int16_t ops[] = {0};
    const cop_tree tree = {.count = 1, .op_count = 1, .ops = ops};
    cop_optimizer_spec spec = sgd();
    spec.momentum = 0.9;
    bench *base = bench_open(1.4);
    fill_gradients(base, 1);
    static float first[FLOATS_MAX], found[FLOATS_MAX], velocity[FLOATS_MAX];
    const float *const gradients[] = {base->gradients[0]};
    int tried = 0;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        if (!cop_kernels_find(*name)) continue;
        float *out = tried++ ? found : first;
        memset(velocity, 0, sizeof velocity);
        const cop_update update = {.model = base->model,
                                   .kernels = cop_kernels_find(*name),
                                   .spec = &spec,
                                   .step = 2,
                                   .batch = 7,
                                   .gradients = gradients,
                                   .tree = &tree,
                                   .w_in = base->w,
                                   .w_out = out,
                                   .states = {velocity}};
        cop_update_run(&update, 0, 1);
        if (tried > 1) assert_memory_equal(found, first, sizeof first);
    }
    assert_true(tried >= 1);
    bench_close(base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_sgd_follows_its_formula),
        cmocka_unit_test(test_momentum_follows_its_formula),
        cmocka_unit_test(test_decay_and_l1_follow_their_formulas),
        cmocka_unit_test(test_momentum_ramp_may_start_at_zero),
        cmocka_unit_test(test_max_norm_shrinks_only_long_rows_of_its_layer),
        cmocka_unit_test(test_update_in_any_number_of_parts_gives_the_same_bits),
        cmocka_unit_test(test_update_from_bf16_gradients),
        cmocka_unit_test(test_updates_have_the_same_bits_on_every_instruction_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
