/* One set of checks for every layer kind in the registry: gradients compared with finite
 * differences, and the bits must be equal on every instruction set, for any number of columns, in
 * place or not.
 * A new kind needs one or a few rows in `cases`. LABELS: quick */
#include <math.h>
#include <stdio.h>

#include "unit/nn/model_fixture.h"

typedef struct layer_case {
    const char *name;
    cop_layer_spec spec;
    cop_shape in;
} layer_case;

#define FLAT(n)                                                                                    \
    {                                                                                              \
        .rank = 1, .dims = { n }                                                                   \
    }
#define IMAGE(channels_, height_, width_)                                                          \
    {                                                                                              \
        .rank = 3, .dims = { channels_, height_, width_ }                                          \
    }
#define LINEAR(units_, bias_, init_)                                                               \
    {.kind = "linear", .units = units_, .bias = bias_, .init = init_}
#define MAXOUT(units_, pieces_)                                                                    \
    {.kind = "maxout", .units = units_, .pieces = pieces_, .bias = true, .init = COP_INIT_HE}
#define DROPCONNECT(units_, p_, scope_, variant_, drop_bias_)                                      \
    {.kind = "dropconnect",                                                                        \
     .units = units_,                                                                              \
     .p = p_,                                                                                      \
     .scope = scope_,                                                                              \
     .variant = variant_,                                                                          \
     .bias = true,                                                                                 \
     .drop_bias = drop_bias_,                                                                      \
     .init = COP_INIT_HE,                                                                          \
     .inference = COP_INFERENCE_MEAN}
#define DROPOUT(p_, scope_, variant_)                                                              \
    {.kind = "dropout", .p = p_, .scope = scope_, .variant = variant_}
#define SPATIAL(p_, scope_, variant_)                                                              \
    {.kind = "spatial_dropout", .p = p_, .scope = scope_, .variant = variant_}
#define GAUSSIAN(p_, scope_)                                                                       \
    {.kind = "gaussian_dropout", .p = p_, .scope = scope_, .variant = COP_VARIANT_INVERTED}
#define ALPHA(p_, scope_)                                                                          \
    {.kind = "alpha_dropout", .p = p_, .scope = scope_, .variant = COP_VARIANT_INVERTED}
#define CONV(channels_, kernel_, stride_, padding_)                                                \
    {.kind = "conv2d",                                                                             \
     .units = channels_,                                                                           \
     .kernel = kernel_,                                                                            \
     .stride = stride_,                                                                            \
     .padding = padding_,                                                                          \
     .bias = true,                                                                                 \
     .init = COP_INIT_HE}
#define POOL(kind_, kernel_, stride_)                                                              \
    {.kind = kind_ "_pool2d", .kernel = kernel_, .stride = stride_}

static const layer_case cases[] = {
    {"linear", LINEAR(5, true, COP_INIT_HE), FLAT(7)},
    {"linear-wide", LINEAR(33, true, COP_INIT_TORCH), FLAT(18)},
    {"linear-one", LINEAR(1, true, COP_INIT_GLOROT), FLAT(1)},
    {"linear-no-bias", LINEAR(4, false, COP_INIT_GLOROT), FLAT(9)},
    {"linear-deep", LINEAR(2, true, COP_INIT_HE), FLAT(300)},
    {"relu", {.kind = "relu"}, FLAT(13)},
    {"relu-image", {.kind = "relu"}, {.rank = 3, .dims = {2, 3, 4}}},
    {"dropout-half", DROPOUT(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), FLAT(40)},
    {"dropout-fifth", DROPOUT(0.2, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), FLAT(19)},
    {"dropout-classic", DROPOUT(0.3, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC), FLAT(19)},
    {"dropout-shard", DROPOUT(0.5, COP_SCOPE_SHARD, COP_VARIANT_INVERTED), FLAT(21)},
    {"dropout-none", DROPOUT(0, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), FLAT(5)},
    {"flatten", {.kind = "flatten"}, {.rank = 3, .dims = {2, 3, 2}}},
    {"maxout", MAXOUT(5, 3), FLAT(7)},
    {"maxout-wide", MAXOUT(33, 5), FLAT(9)},
    {"maxout-one-piece", MAXOUT(3, 1), FLAT(4)},
    {"maxout-many-pieces", MAXOUT(2, 256), FLAT(3)},
    {"dropconnect", DROPCONNECT(5, 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC, false), FLAT(16)},
    {"dropconnect-odd", DROPCONNECT(7, 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED, true),
     FLAT(13)},
    {"dropconnect-wide", DROPCONNECT(18, 0.3, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED, false),
     FLAT(70)},
    {"dropconnect-deep", DROPCONNECT(3, 0.2, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC, true),
     FLAT(309)},
    {"dropconnect-shard", DROPCONNECT(6, 0.5, COP_SCOPE_SHARD, COP_VARIANT_CLASSIC, true),
     FLAT(21)},
    {"dropconnect-none", DROPCONNECT(4, 0, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED, true), FLAT(9)},
    {"dropconnect-one", DROPCONNECT(1, 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC, false), FLAT(1)},
    {"spatial_dropout", SPATIAL(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), IMAGE(5, 2, 3)},
    {"spatial_dropout-classic", SPATIAL(0.3, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC),
     IMAGE(9, 1, 2)},
    {"spatial_dropout-shard", SPATIAL(0.2, COP_SCOPE_SHARD, COP_VARIANT_INVERTED), IMAGE(4, 3, 3)},
    {"spatial_dropout-none", SPATIAL(0, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), IMAGE(2, 1, 3)},
    {"gaussian_dropout", GAUSSIAN(0.5, COP_SCOPE_SAMPLE), FLAT(23)},
    {"gaussian_dropout-image", GAUSSIAN(0.2, COP_SCOPE_SAMPLE), IMAGE(2, 3, 4)},
    {"gaussian_dropout-shard", GAUSSIAN(0.3, COP_SCOPE_SHARD), FLAT(9)},
    {"gaussian_dropout-none", GAUSSIAN(0, COP_SCOPE_SAMPLE), FLAT(3)},
    {"alpha_dropout", ALPHA(0.5, COP_SCOPE_SAMPLE), FLAT(37)},
    {"alpha_dropout-shard", ALPHA(0.1, COP_SCOPE_SHARD), FLAT(19)},
    {"alpha_dropout-none", ALPHA(0, COP_SCOPE_SAMPLE), FLAT(4)},
    {"leaky_relu", {.kind = "leaky_relu", .slope = 0.01}, FLAT(13)},
    {"leaky_relu-steep", {.kind = "leaky_relu", .slope = 0.75}, IMAGE(2, 3, 4)},
    {"sigmoid", {.kind = "sigmoid"}, FLAT(21)},
    {"tanh", {.kind = "tanh"}, FLAT(21)},
    {"tanh-image", {.kind = "tanh"}, IMAGE(3, 2, 4)},
    {"selu", {.kind = "selu"}, FLAT(23)},
    {"gelu", {.kind = "gelu"}, FLAT(23)},
    {"gelu-image", {.kind = "gelu"}, IMAGE(1, 5, 3)},
    {"softmax", {.kind = "softmax"}, FLAT(17)},
    {"softmax-channels", {.kind = "softmax"}, IMAGE(5, 2, 3)},
    {"softmax-one", {.kind = "softmax"}, FLAT(1)},
    {"conv2d", CONV(3, 3, 1, 0), IMAGE(2, 5, 6)},
    {"conv2d-padding", CONV(2, 3, 1, 1), IMAGE(2, 4, 5)},
    {"conv2d-stride", CONV(3, 3, 2, 1), IMAGE(2, 6, 5)},
    {"conv2d-apart", CONV(2, 2, 3, 0), IMAGE(1, 9, 8)},
    {"conv2d-point", CONV(5, 1, 1, 0), IMAGE(3, 3, 4)},
    {"conv2d-around", CONV(2, 2, 1, 2), IMAGE(1, 1, 2)},
    {"conv2d-whole", CONV(33, 4, 1, 0), IMAGE(2, 4, 4)},
    {"conv2d-deep", CONV(2, 3, 2, 1), IMAGE(31, 3, 3)},
    {"max_pool2d", POOL("max", 2, 0), IMAGE(3, 4, 6)},
    {"max_pool2d-over", POOL("max", 3, 2), IMAGE(2, 7, 6)},
    {"max_pool2d-apart", POOL("max", 1, 2), IMAGE(2, 4, 5)},
    {"avg_pool2d", POOL("avg", 2, 0), IMAGE(3, 4, 6)},
    {"avg_pool2d-over", POOL("avg", 3, 1), IMAGE(2, 5, 5)},
};
enum { CASES = sizeof cases / sizeof cases[0], COLUMNS = 9 };

/* Central differences in f32 tensors, with the objective summed in f64: the error of the quotient
 * is about 2^-24 |y| terms / step. */
static const double difference_step = 1.0 / 64, difference_step_least = 1.0 / 1024;
static const double difference_tolerance = 2e-3;

static void open_case(one_layer *one, const layer_case *row, const cop_kernels *kernels,
                      int columns) {
    cop_error error = {0};
    if (one_layer_bind(one, &row->spec, row->in, 3, &error) != COP_OK) fail_msg("%s", error.text);
    one_layer_open(one, kernels, columns);
}

/* Inputs stay away from 0, where relu and similar functions have no derivative. */
static void fill_input(const one_layer *one, float *x) {
    const size_t count = (size_t)cop_shape_size(&one->layer.in) * (size_t)one->context.ld;
    fill_random(x, count, 5);
    for (size_t i = 0; i < count; i++) x[i] += x[i] < 0 ? -0.25f : 0.25f;
}

/* The coefficients r of the objective J = sum of r y over the real columns. */
static void fill_direction(const one_layer *one, float *r) {
    const int64_t units = cop_shape_size(&one->layer.out);
    const int ld = one->context.ld;
    for (int64_t u = 0; u < units; u++)
        for (int c = 0; c < ld; c++)
            r[u * ld + c] = c < one->context.columns ? random_value(6, (uint32_t)(u * 64 + c)) : 0;
}

static double objective(const one_layer *one, const float *x, const float *r, float *y) {
    one->layer.ops->forward(&one->layer, &one->context, x, y);
    const size_t count = (size_t)cop_shape_size(&one->layer.out) * (size_t)one->context.ld;
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)r[i] * (double)y[i];
    return sum;
}

typedef struct probe {
    const one_layer *one;
    const float *x, *r;
    float *y;
} probe;

static bool is_near(double numeric, float analytic) {
    return fabs(numeric - (double)analytic) <= difference_tolerance * fmax(1, fabs(numeric));
}

/* Compares a derivative with the central difference. If they differ, compares it with both
 * one-sided differences, because the largest value (maxout, pooling) may switch on one side. If
 * these differ, too, because it switches on both sides, tries closer points. */
static void check_value(const probe *p, float *value, float analytic, const char *what) {
    const float at = *value;
    const double here = objective(p->one, p->x, p->r, p->y);
    double numeric = 0;
    for (double step = difference_step; step >= difference_step_least; step /= 4) {
        *value = at + (float)step;
        const double above = objective(p->one, p->x, p->r, p->y), right = *value - at;
        *value = at - (float)step;
        const double below = objective(p->one, p->x, p->r, p->y), left = at - *value;
        *value = at;
        numeric = (above - below) / (right + left);
        if (is_near(numeric, analytic) || is_near((above - here) / right, analytic) ||
            is_near((here - below) / left, analytic))
            return;
    }
    fail_msg("%s: gradient %g, finite difference %g", what, (double)analytic, numeric);
}

static void test_gradients_match_finite_differences(void **state) {
    const layer_case *row = *state;
    one_layer one;
    open_case(&one, row, best_kernels(), COLUMNS);
    float *x = one_layer_tensor(&one, &one.layer.in), *dx = one_layer_tensor(&one, &one.layer.in);
    float *y = one_layer_tensor(&one, &one.layer.out), *r = one_layer_tensor(&one, &one.layer.out);
    fill_input(&one, x);
    fill_direction(&one, r);
    objective(&one, x, r, y);
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, r, dx});
    const probe p = {&one, x, r, y};
    const int ld = one.context.ld;
    for (int64_t f = 0; f < cop_shape_size(&one.layer.in); f++)
        for (int c = 0; c < COLUMNS; c++) check_value(&p, &x[f * ld + c], dx[f * ld + c], "input");
    for (int i = 0; i < one.layer.parameter_count; i++)
        for (int64_t j = 0; j < one.parameters[i].count; j++) {
            const int64_t at = one.parameters[i].offset + j;
            check_value(&p, &one.flat[at], one.gradients[at], one.parameters[i].name);
        }
    cop_free(x), cop_free(dx), cop_free(y), cop_free(r);
    one_layer_close(&one);
}

/* All results of a layer for one input: y, dx, gradients, in sequence. Returns the number of
 * floats. */
static size_t run_all(const layer_case *row, const cop_kernels *kernels, int columns, float **out) {
    one_layer one;
    open_case(&one, row, kernels, columns);
    const size_t ld = (size_t)one.context.ld;
    const size_t in = (size_t)cop_shape_size(&one.layer.in) * ld;
    const size_t units = (size_t)cop_shape_size(&one.layer.out) * ld;
    float *all = cop_alloc((2 * in + 2 * units + (size_t)one.floats) * sizeof(float));
    float *y = all, *dx = y + units, *gradients = dx + in;
    float *x = one_layer_tensor(&one, &one.layer.in), *r = one_layer_tensor(&one, &one.layer.out);
    fill_input(&one, x);
    fill_direction(&one, r);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, r, dx});
    memcpy(gradients, one.gradients, (size_t)one.floats * sizeof(float));
    cop_free(x), cop_free(r);
    const size_t count = units + in + (size_t)one.floats;
    one_layer_close(&one);
    *out = all;
    return count;
}

static void test_every_instruction_set_gives_the_same_bits(void **state) {
    const layer_case *row = *state;
    float *expected, *found;
    const size_t count = run_all(row, best_kernels(), 16, &expected);
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (!kernels) continue;
        assert_int_equal(run_all(row, kernels, 16, &found), count);
        if (memcmp(expected, found, count * sizeof(float)) != 0)
            fail_msg("%s computes other bits than %s", *name, best_kernels()->name);
        cop_free(found);
    }
    cop_free(expected);
}

/* With `wire: bf16`: the gradients of the shards and their sums are rounded. The shards have 3, 0,
 * 4 and 2 columns; `which` of them keeps its gradient of the output, which is 0 elsewhere (-1:
 * all). */
static void shard_gradients(const layer_case *row, const cop_kernels *kernels, int which,
                            float *out) {
    static const int segments[] = {0, 3, 3, 7, COLUMNS};
    one_layer one;
    open_case(&one, row, kernels, COLUMNS);
    one.context.segments = segments;
    one.context.segment_count = 4;
    one.context.round_nodes = which < 0;
    float *x = one_layer_tensor(&one, &one.layer.in), *dx = one_layer_tensor(&one, &one.layer.in);
    float *y = one_layer_tensor(&one, &one.layer.out), *r = one_layer_tensor(&one, &one.layer.out);
    fill_input(&one, x);
    fill_direction(&one, r);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    for (int64_t u = 0; u < cop_shape_size(&one.layer.out); u++)
        for (int c = 0; c < COLUMNS && which >= 0; c++)
            if (c < segments[which] || c >= segments[which + 1]) r[u * one.context.ld + c] = 0;
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, r, dx});
    memcpy(out, one.gradients, (size_t)one.floats * sizeof(float));
    cop_free(x), cop_free(dx), cop_free(y), cop_free(r);
    one_layer_close(&one);
}

static float node_value(float x) {
    return cop_bf16_round(x) + 0.0f;
}

static void test_nodes_of_the_tree_are_rounded(void **state) {
    const layer_case *row = *state;
    one_layer one;
    open_case(&one, row, best_kernels(), COLUMNS);
    const size_t floats = (size_t)one.floats;
    one_layer_close(&one);
    float *leaf[4], *found = cop_alloc((floats + 1) * sizeof *found);
    for (int i = 0; i < 4; i++) {
        leaf[i] = cop_alloc((floats + 1) * sizeof *found);
        shard_gradients(row, best_kernels(), i, leaf[i]);
    }
    for (size_t i = 0; i < floats; i++)
        leaf[0][i] = node_value(node_value(leaf[0][i]) +
                                node_value(node_value(leaf[2][i]) + node_value(leaf[3][i])));
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        if (!cop_kernels_find(*name)) continue;
        shard_gradients(row, cop_kernels_find(*name), -1, found);
        if (memcmp(found, leaf[0], floats * sizeof *found) != 0)
            fail_msg("%s does not round as the definition says", *name);
    }
    for (int i = 0; i < 4; i++) cop_free(leaf[i]);
    cop_free(found);
}

static void forward_columns(const layer_case *row, int columns, int take, float *out) {
    one_layer one;
    open_case(&one, row, best_kernels(), columns);
    for (int i = 0; i < columns; i++) { /* with one shard, a sample's word is its column */
        one.keys[i] = cop_rng_derive(1, COP_RNG_MASK, 0);
        one.samples[i] = (uint32_t)i;
    }
    const int64_t in = cop_shape_size(&one.layer.in), units = cop_shape_size(&one.layer.out);
    const int ld = one.context.ld;
    float *x = one_layer_tensor(&one, &one.layer.in), *y = one_layer_tensor(&one, &one.layer.out);
    for (int64_t f = 0; f < in; f++)
        for (int c = 0; c < columns; c++)
            x[f * ld + c] = random_value((uint32_t)c + 20, (uint32_t)f);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    for (int64_t u = 0; u < units; u++)
        for (int c = 0; c < take; c++) out[u * take + c] = y[u * ld + c];
    cop_free(x), cop_free(y);
    one_layer_close(&one);
}

static void test_sample_does_not_depend_on_its_neighbours(void **state) {
    const layer_case *row = *state;
    float alone[64], among[64];
    forward_columns(row, 1, 1, alone);
    forward_columns(row, 50, 1, among);
    one_layer one;
    open_case(&one, row, best_kernels(), 1);
    const size_t units = (size_t)cop_shape_size(&one.layer.out);
    one_layer_close(&one);
    assert_true(units <= 64);
    assert_memory_equal(alone, among, units * sizeof(float));
}

static void test_in_place_gives_the_same_bits(void **state) {
    const layer_case *row = *state;
    one_layer one;
    open_case(&one, row, best_kernels(), COLUMNS);
    if (one.layer.ops->in_place) {
        const size_t bytes =
            (size_t)cop_shape_size(&one.layer.in) * (size_t)one.context.ld * sizeof(float);
        float *x = one_layer_tensor(&one, &one.layer.in),
              *y = one_layer_tensor(&one, &one.layer.in);
        float *r = one_layer_tensor(&one, &one.layer.in),
              *dx = one_layer_tensor(&one, &one.layer.in);
        fill_input(&one, x);
        fill_direction(&one, r);
        one.layer.ops->forward(&one.layer, &one.context, x, y);
        one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, r, dx});
        one.layer.ops->forward(&one.layer, &one.context, x, x);
        assert_memory_equal(x, y, bytes);
        one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, x, r, r});
        assert_memory_equal(r, dx, bytes);
        cop_free(x), cop_free(y), cop_free(r), cop_free(dx);
    }
    one_layer_close(&one);
}

static void test_every_registered_kind_has_a_case(void **state) {
    (void)state;
    for (const cop_layer_ops *const *ops = cop_layer_registry(); *ops; ops++) {
        int found = 0;
        for (int i = 0; i < CASES; i++) found += strcmp(cases[i].spec.kind, (*ops)->kind) == 0;
        if (!found) fail_msg("layer kind %s has no row in the conformance suite", (*ops)->kind);
        assert_ptr_equal(cop_layer_find((*ops)->kind), *ops);
        assert_true(((*ops)->parameters == NULL) == ((*ops)->init == NULL));
        assert_true((*ops)->graph && (*ops)->torch);
    }
    assert_null(cop_layer_find("linea"));
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } checks[] = {
        {"gradients_match_finite_differences", test_gradients_match_finite_differences},
        {"same_bits_on_every_instruction_set", test_every_instruction_set_gives_the_same_bits},
        {"sample_independent_of_neighbours", test_sample_does_not_depend_on_its_neighbours},
        {"in_place_same_bits", test_in_place_gives_the_same_bits},
        {"nodes_are_rounded", test_nodes_of_the_tree_are_rounded},
    };
    enum { CHECKS = sizeof checks / sizeof checks[0] };
    static struct CMUnitTest tests[CASES * CHECKS + 1];
    static char names[CASES * CHECKS][96];
    static layer_case rows[CASES];
    memcpy(rows, cases, sizeof rows);
    for (int i = 0; i < CASES; i++)
        for (int j = 0; j < CHECKS; j++) {
            const int at = i * CHECKS + j;
            snprintf(names[at], sizeof names[at], "%s_%s", rows[i].name, checks[j].name);
            tests[at] = (struct CMUnitTest){names[at], checks[j].run, NULL, NULL, &rows[i]};
        }
    tests[CASES * CHECKS] =
        (struct CMUnitTest)cmocka_unit_test(test_every_registered_kind_has_a_case);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
