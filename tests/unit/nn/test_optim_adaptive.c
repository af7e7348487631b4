/* adam, adamw, rmsprop and adagrad. They are compared with PyTorch's formulas in long double, and
 * have the same bits on every instruction set and however the rows are divided.
 * LABELS: quick qemu */
#include <math.h>

#include "unit/nn/model_fixture.h"

enum { FLOATS_MAX = 4096, BLOCKS = 2, BATCH = 24 };
#if !defined(__x86_64__) /* qemu computes long double with integers */
enum { STEPS = 8 };
#else
enum { STEPS = 30 };
#endif

typedef struct bench {
    cop_model *model;
    float w[FLOATS_MAX], states[2][FLOATS_MAX];
    float gradients[BLOCKS][FLOATS_MAX];
    long double exact[FLOATS_MAX], exact_states[2][FLOATS_MAX];
} bench;

static const struct {
    const char *name;
    cop_optimizer_spec spec;
} cases[] = {
    {"adam", {.kind = COP_OPTIMIZER_ADAM, .rate = 0.01, .beta1 = 0.9, .beta2 = 0.999}},
    {"adam-decay",
     {.kind = COP_OPTIMIZER_ADAM,
      .rate = 0.01,
      .beta1 = 0.8,
      .beta2 = 0.99,
      .weight_decay = 0.1,
      .schedule = {.kind = COP_SCHEDULE_EXPONENTIAL, .factor = 0.95, .warmup = 4}}},
    {"adamw",
     {.kind = COP_OPTIMIZER_ADAMW,
      .rate = 0.01,
      .beta1 = 0.9,
      .beta2 = 0.999,
      .weight_decay = 0.3,
      .schedule = {.kind = COP_SCHEDULE_INVERSE, .decay = 0.1}}},
    {"rmsprop", {.kind = COP_OPTIMIZER_RMSPROP, .rate = 0.01, .alpha = 0.99}},
    {"rmsprop-momentum",
     {.kind = COP_OPTIMIZER_RMSPROP, .rate = 0.01, .alpha = 0.9, .momentum = 0.8}},
    {"adagrad", {.kind = COP_OPTIMIZER_ADAGRAD, .rate = 0.05}},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static cop_optimizer_spec spec_of(int index) {
    cop_optimizer_spec spec = cases[index].spec;
    if (!spec.schedule.kind) spec.schedule.kind = COP_SCHEDULE_CONSTANT;
    spec.epsilon = 1e-3; /* large, so that its place in the formula matters */
    return spec;
}

static bench *bench_open(double max_norm) {
    cop_layer_spec layers[] = {spec_linear(37), spec_relu(), spec_linear(5)};
    layers[0].max_norm = max_norm;
    bench *b = cop_alloc(sizeof *b);
    b->model = model_of(layers, 3, 53, 5);
    assert_true(cop_model_floats(b->model) <= FLOATS_MAX);
    cop_model_init(b->model, 3, b->w);
    for (int i = 0; i < FLOATS_MAX; i++) {
        b->exact[i] = (long double)b->w[i];
        b->states[0][i] = b->states[1][i] = 3; /* the first step must not read them */
    }
    return b;
}

static void bench_close(bench *b) {
    cop_model_destroy(b->model);
    cop_free(b);
}

/* Gradients that drift, with sizes that differ between weights. */
static void fill_gradients(bench *b, uint64_t step) {
    for (int k = 0; k < BLOCKS; k++)
        for (int i = 0; i < cop_model_parameter_count(b->model); i++) {
            const cop_parameter *p = cop_model_parameter(b->model, i);
            float *g = b->gradients[k] + p->offset;
            fill_random(g, (size_t)p->count, (uint32_t)(step * 100) + (uint32_t)(k * 10 + i));
            for (int64_t j = 0; j < p->count; j++) g[j] = (g[j] + 0.5f) * (float)(1 + j % 7);
        }
}

static void run_step(bench *b, const cop_kernels *kernels, const cop_optimizer_spec *spec,
                     uint64_t step, int parts) {
    static const int16_t ops[] = {0, 1, -1};
    const cop_tree tree = {.count = BLOCKS, .op_count = 3, .ops = ops};
    const float *const gradients[] = {b->gradients[0], b->gradients[1]};
    const cop_update update = {
        .model = b->model,
        .kernels = kernels,
        .spec = spec,
        .step = step,
        .batch = BATCH,
        .gradients = gradients,
        .tree = &tree,
        .w_in = b->w,
        .w_out = b->w,
        .states = {b->states[0], b->states[1]},
    };
    for (int part = parts - 1; part >= 0; part--) cop_update_run(&update, part, parts);
}

/* Updates one element as torch.optim does. */
static long double exact_element(const cop_optimizer_spec *spec, uint64_t step, long double g,
                                 long double w, long double *a, long double *b) {
    const long double rate = (long double)cop_schedule_rate(spec, step);
    const long double epsilon = (long double)spec->epsilon, alpha = (long double)spec->alpha;
    const long double beta1 = (long double)spec->beta1, beta2 = (long double)spec->beta2;
    const long double decay = (long double)spec->weight_decay;
    if (spec->kind == COP_OPTIMIZER_ADAGRAD) {
        *a += g * g;
        return w - rate * g / (sqrtl(*a) + epsilon);
    }
    if (spec->kind == COP_OPTIMIZER_RMSPROP) {
        *a = alpha * *a + (1 - alpha) * g * g;
        const long double move = g / (sqrtl(*a) + epsilon);
        if (spec->momentum == 0) return w - rate * move;
        *b = (long double)spec->momentum * *b + move;
        return w - rate * *b;
    }
    if (spec->kind == COP_OPTIMIZER_ADAMW)
        w *= 1 - rate * decay;
    else
        g += decay * w;
    *a = beta1 * *a + (1 - beta1) * g;
    *b = beta2 * *b + (1 - beta2) * g * g;
    const long double mean = *a / (1 - powl(beta1, (long double)step));
    return w - rate * mean / (sqrtl(*b / (1 - powl(beta2, (long double)step))) + epsilon);
}

static void exact_step(bench *b, const cop_optimizer_spec *spec, uint64_t step) {
    for (int i = 0; i < FLOATS_MAX; i++) {
        const long double sum = (long double)b->gradients[0][i] + (long double)b->gradients[1][i];
        b->exact[i] = exact_element(spec, step, sum / BATCH, b->exact[i], &b->exact_states[0][i],
                                    &b->exact_states[1][i]);
    }
}

static void assert_near(const char *what, int at, float found, long double exact) {
    if (!(fabsl((long double)found - exact) <= 2e-6L * fmaxl(1, fabsl(exact))))
        fail_msg("%s[%d]: %.9g, the formula gives %.9Lg", what, at, (double)found, exact);
}

static void test_each_adaptive_optimizer_follows_its_formula(void **state) {
    (void)state;
    for (int k = 0; k < CASES; k++) {
        const cop_optimizer_spec spec = spec_of(k);
        bench *b = bench_open(0);
        for (uint64_t step = 1; step <= STEPS; step++) {
            fill_gradients(b, step);
            run_step(b, best_kernels(), &spec, step, 1);
            exact_step(b, &spec, step);
        }
        for (int i = 0; i < cop_model_parameter_count(b->model); i++) {
            const cop_parameter *p = cop_model_parameter(b->model, i);
            for (int64_t j = p->offset; j < p->offset + p->count; j++) {
                assert_near(cases[k].name, (int)j, b->w[j], b->exact[j]);
                for (int s = 0; s < cop_optimizer_states(&spec); s++)
                    assert_near(cop_optimizer_state_name(&spec, s), (int)j, b->states[s][j],
                                b->exact_states[s][j]);
            }
        }
        bench_close(b);
    }
}

/* Returns weights and states after three steps. */
static bench *run_steps(const cop_kernels *kernels, const cop_optimizer_spec *spec, int parts) {
    bench *b = bench_open(1.4);
    for (uint64_t step = 1; step <= 3; step++) {
        fill_gradients(b, step);
        run_step(b, kernels, spec, step, parts);
    }
    return b;
}

static void assert_same(const bench *found, const bench *expected, const char *what) {
    if (memcmp(found->w, expected->w, sizeof found->w) != 0 ||
        memcmp(found->states, expected->states, sizeof found->states) != 0)
        fail_msg("%s: other bits", what);
}

static void test_adaptive_updates_are_the_same_on_instruction_sets_and_parts(void **state) {
    (void)state;
    static const int parts[] = {2, 3, 7, 64, 500};
    for (int k = 0; k < CASES; k++) {
        const cop_optimizer_spec spec = spec_of(k);
        bench *expected = run_steps(best_kernels(), &spec, 1);
        for (const char *const *name = cop_kernels_names(); *name; name++) {
            if (!cop_kernels_find(*name)) continue;
            bench *found = run_steps(cop_kernels_find(*name), &spec, 1);
            assert_same(found, expected, *name);
            bench_close(found);
        }
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            bench *found = run_steps(best_kernels(), &spec, parts[i]);
            assert_same(found, expected, cases[k].name);
            bench_close(found);
        }
        bench_close(expected);
    }
}

/* With two versions, the old one does not change, and the new one equals an update in place. */
static void test_update_to_a_new_version_keeps_the_old_one(void **state) {
    (void)state;
    static const int16_t ops[] = {0};
    const cop_tree tree = {.count = 1, .op_count = 1, .ops = ops};
    static float w[FLOATS_MAX], states[2][FLOATS_MAX], before[3][FLOATS_MAX];
    for (int k = 0; k < CASES; k++) {
        const cop_optimizer_spec spec = spec_of(k);
        bench *b = bench_open(1.4);
        fill_gradients(b, 1);
        const float *const gradients[] = {b->gradients[0]};
        cop_update update = {.model = b->model,
                             .kernels = best_kernels(),
                             .spec = &spec,
                             .step = 9,
                             .batch = BATCH,
                             .gradients = gradients,
                             .tree = &tree,
                             .w_in = b->w,
                             .w_out = w,
                             .states = {b->states[0], b->states[1]},
                             .states_out = {states[0], states[1]}};
        memcpy(before[0], b->w, sizeof before[0]);
        memcpy(before + 1, b->states, sizeof b->states);
        memcpy(w, b->w, sizeof w);
        memcpy(states, b->states, sizeof states);
        cop_update_run(&update, 0, 1);
        assert_memory_equal(b->w, before[0], sizeof before[0]);
        assert_memory_equal(b->states, before + 1, sizeof b->states);
        assert_memory_not_equal(w, b->w, sizeof w);
        assert_memory_not_equal(states[0], b->states[0], sizeof states[0]);
        update.w_out = b->w;
        update.states_out[0] = update.states_out[1] = NULL;
        cop_update_run(&update, 0, 1);
        assert_memory_equal(w, b->w, sizeof w);
        assert_memory_equal(states, b->states, sizeof states);
        bench_close(b);
    }
}

static void test_max_norm_comes_after_the_update(void **state) {
    (void)state;
    const double limit = 1.3;
    const cop_optimizer_spec spec = spec_of(0);
    bench *free_rows = bench_open(0), *bound = bench_open(limit);
    fill_gradients(free_rows, 1);
    fill_gradients(bound, 1);
    run_step(free_rows, best_kernels(), &spec, 1, 1);
    run_step(bound, best_kernels(), &spec, 1, 1);
    const cop_parameter *p = cop_model_parameter(bound->model, 0);
    int shrunk = 0;
    for (int row = 0; row < p->rows; row++) {
        const float *longer = free_rows->w + p->offset + (int64_t)row * p->cols;
        const float *found = bound->w + p->offset + (int64_t)row * p->cols;
        double squares = 0;
        for (int j = 0; j < p->cols; j++) squares += (double)longer[j] * (double)longer[j];
        const double factor = sqrt(squares) > limit ? limit / sqrt(squares) : 1;
        shrunk += factor < 1;
        for (int j = 0; j < p->cols; j++)
            assert_true(fabs((double)found[j] - factor * (double)longer[j]) < 1e-6);
    }
    assert_true(shrunk > 3 && shrunk < p->rows);
    bench_close(free_rows);
    bench_close(bound);
}

static void test_non_finite_gradient_is_detected(void **state) {
    (void)state;
    static const int16_t ops[] = {0};
    const cop_tree tree = {.count = 1, .op_count = 1, .ops = ops};
    for (int k = 0; k < CASES; k++) {
        const cop_optimizer_spec spec = spec_of(k);
        bench *b = bench_open(0);
        const float *const gradients[] = {b->gradients[0]};
        atomic_int finite = 1;
        const cop_update update = {.model = b->model,
                                   .kernels = best_kernels(),
                                   .spec = &spec,
                                   .step = 1,
                                   .batch = 1,
                                   .gradients = gradients,
                                   .tree = &tree,
                                   .w_in = b->w,
                                   .w_out = b->w,
                                   .states = {b->states[0], b->states[1]},
                                   .finite = &finite};
        cop_update_run(&update, 0, 1);
        assert_int_equal(atomic_load(&finite), 1);
        for (int i = 0; i < cop_model_parameter(b->model, 0)->count; i++)
            assert_true(isfinite(b->w[i])); /* a zero gradient must not give 0/0 */
        b->gradients[0][77] = INFINITY;
        cop_update_run(&update, 0, 1);
        assert_int_equal(atomic_load(&finite), 0);
        bench_close(b);
    }
}

static void test_optimizers_have_names_and_states(void **state) {
    (void)state;
    static const struct {
        const char *kind, *states;
    } expected[] = {
        {"sgd", ""},
        {"adam", "exp_avg exp_avg_sq "},
        {"adamw", "exp_avg exp_avg_sq "},
        {"rmsprop", "square_avg "},
        {"adagrad", "sum "},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const cop_optimizer_spec spec = {.kind = cop_optimizer_find(expected[i].kind)};
        assert_string_equal(cop_optimizer_name(spec.kind), expected[i].kind);
        char names[64] = "";
        for (int s = 0; s < cop_optimizer_states(&spec); s++) {
            strcat(names, cop_optimizer_state_name(&spec, s));
            strcat(names, " ");
        }
        assert_string_equal(names, expected[i].states);
    }
    const cop_optimizer_spec spec = {.kind = COP_OPTIMIZER_RMSPROP, .momentum = 0.5};
    assert_int_equal(cop_optimizer_states(&spec), 2);
    assert_string_equal(cop_optimizer_state_name(&spec, 1), "momentum_buffer");
    assert_int_equal(cop_optimizer_find("adamax"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_adaptive_optimizer_follows_its_formula),
        cmocka_unit_test(test_adaptive_updates_are_the_same_on_instruction_sets_and_parts),
        cmocka_unit_test(test_update_to_a_new_version_keeps_the_old_one),
        cmocka_unit_test(test_max_norm_comes_after_the_update),
        cmocka_unit_test(test_non_finite_gradient_is_detected),
        cmocka_unit_test(test_optimizers_have_names_and_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
