/* The kernels except products, masks and trees. On every instruction set, each must equal the plain
 * scalar definition in this file, bit for bit. The sizes are around the boundaries of vectors and
 * chunks, and the values include NaN, infinities and zeros of both signs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/real_f32.h"
#include "common/kernels/kernel.h"

#define FOR_EACH_ISA(kernels)                                                                      \
    for (const char *const *name = cop_kernels_names(); *name; name++)                             \
        for (const cop_kernels *kernels = cop_kernels_find(*name); kernels; kernels = NULL)

static const int sizes[] = {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 511, 512, 513, 1000};
enum { SIZES = sizeof sizes / sizeof sizes[0], LONGEST = 1100 };

static void fill(float *x, size_t count, uint32_t seed) {
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = seed % 13 == 0 ? 0.0f : seed % 17 == 0 ? -0.0f : (float)(int32_t)seed * 0x1p-30f;
    }
}

/* Compares bit for bit; all NaNs are equal. */
static void assert_same(const float *got, const float *expected, size_t count, const char *label) {
    for (size_t i = 0; i < count; i++) {
        if (got[i] != got[i] && expected[i] != expected[i]) continue;
        if (memcmp(&got[i], &expected[i], 4) != 0)
            fail_msg("%s: element %zu of %zu is %a, expected %a", label, i, count, (double)got[i],
                     (double)expected[i]);
    }
}

static void test_load_u8_divides_by_255_and_pads_with_zero(void **state) {
    (void)state;
    enum { STRIDE = 90 };
    static uint8_t rows[40 * STRIDE];
    static float x[80 * 48];
    for (size_t i = 0; i < sizeof rows; i++) rows[i] = (uint8_t)(i * 167 % 256);
    FOR_EACH_ISA(kernels) {
        static const int shapes[][3] = {{1, 1, 16},   {16, 16, 16}, {17, 33, 32},
                                        {40, 80, 48}, {5, 79, 48},  {0, 5, 16}};
        for (int s = 0; s < 6; s++) {
            const int count = shapes[s][0], features = shapes[s][1], ld = shapes[s][2];
            memset(x, 0xff, sizeof x);
            kernels->load_u8(&(cop_sample_rows){rows, STRIDE, count, features}, x, ld);
            for (int f = 0; f < features; f++)
                for (int c = 0; c < ld; c++)
                    assert_true(x[f * ld + c] ==
                                (c < count ? (float)rows[c * STRIDE + f] / 255.0f : 0.0f));
        }
    }
}

static void test_load_f32_transposes_rows_and_pads_with_zero(void **state) {
    (void)state;
    enum { STRIDE = 85 };
    static float rows[40 * STRIDE], x[80 * 48];
    fill(rows, 40 * STRIDE, 1);
    FOR_EACH_ISA(kernels) {
        static const int shapes[][3] = {
            {1, 1, 16}, {16, 16, 16}, {17, 33, 32}, {40, 80, 48}, {5, 79, 48}};
        for (int s = 0; s < 5; s++) {
            const int count = shapes[s][0], features = shapes[s][1], ld = shapes[s][2];
            memset(x, 0xff, sizeof x);
            const cop_sample_rows in = {rows, STRIDE * sizeof(float), count, features};
            kernels->load_f32(&in, x, ld);
            for (int f = 0; f < features; f++)
                for (int c = 0; c < ld; c++) {
                    const float expected = c < count ? rows[c * STRIDE + f] : 0.0f;
                    assert_same(&x[f * ld + c], &expected, 1, kernels->name);
                }
        }
    }
}

/* Operands of an element-wise kernel, and a call of it on the first `count` of them. */
static float left[LONGEST], right[LONGEST];
typedef void (*elementwise_call)(const cop_kernels *kernels, float *out, size_t count);

/* Checks that on each instruction set and for each size, the call writes `expected`, and nothing
 * past its end. */
static void assert_each_size(elementwise_call call, const float *expected) {
    float out[LONGEST + 1];
    FOR_EACH_ISA(kernels) {
        for (int s = 0; s < SIZES; s++) {
            out[sizes[s]] = 42.0f;
            call(kernels, out, (size_t)sizes[s]);
            assert_same(out, expected, (size_t)sizes[s], kernels->name);
            assert_true(out[sizes[s]] == 42.0f);
        }
    }
}

static void call_relu(const cop_kernels *kernels, float *out, size_t count) {
    kernels->relu(left, out, count);
}

static void test_relu_passes_nan_and_makes_zeros_positive(void **state) {
    (void)state;
    float *x = left, y[LONGEST], expected[LONGEST];
    fill(x, LONGEST, 2);
    x[0] = NAN, x[2] = INFINITY, x[5] = -INFINITY, x[6] = -0.0f, x[14] = -NAN;
    for (int i = 0; i < LONGEST; i++) expected[i] = x[i] > 0 ? x[i] : x[i] != x[i] ? x[i] : 0.0f;
    assert_each_size(call_relu, expected);
    FOR_EACH_ISA(kernels) {
        kernels->relu(x + 1, y + 1, LONGEST - 1); /* unaligned */
        assert_same(y + 1, expected + 1, LONGEST - 1, kernels->name);
    }
}

static void call_relu_backward(const cop_kernels *kernels, float *out, size_t count) {
    kernels->relu_backward(left, right, out, count);
}

static void test_relu_backward_passes_gradients_of_positive_outputs(void **state) {
    (void)state;
    float *y = left, *dy = right, expected[LONGEST];
    fill(y, LONGEST, 3);
    fill(dy, LONGEST, 4);
    y[0] = NAN, y[1] = INFINITY, dy[1] = NAN, dy[9] = -INFINITY;
    for (int i = 0; i < LONGEST; i++) expected[i] = y[i] > 0 ? dy[i] : 0.0f;
    assert_each_size(call_relu_backward, expected);
}

static void call_scale(const cop_kernels *kernels, float *out, size_t count) {
    kernels->scale(left, 0.3f, out, count);
}

static void test_scale_multiplies(void **state) {
    (void)state;
    float *x = left, y[LONGEST], expected[LONGEST];
    fill(x, LONGEST, 5);
    for (int i = 0; i < LONGEST; i++) expected[i] = x[i] * 0.3f;
    assert_each_size(call_scale, expected);
    FOR_EACH_ISA(kernels) {
        memcpy(y, x, sizeof y);
        kernels->scale(y, 0.3f, y, LONGEST);
        assert_same(y, expected, LONGEST, kernels->name);
    }
}

/* Adds 16 lanes pairwise to 8, then to 4, 2 and 1. */
static float lanes_tree(float s[16]) {
    for (int width = 8; width; width /= 2)
        for (int l = 0; l < width; l++) s[l] = s[l] + s[l + width];
    return s[0];
}

static float naive_row_sum(const float *x, int count) {
    float s[16] = {0};
    for (int c = 0; c < count; c++) s[c % 16] += x[c];
    return lanes_tree(s);
}

static bool naive_node_sum(const float *x, const int *segments, int from, int to, bool rounded,
                           float *out) {
    if (to - from == 1) {
        *out = naive_row_sum(x + segments[from], segments[to] - segments[from]);
        if (rounded) *out = cop_bf16_round(*out) + 0.0f;
        return segments[from] < segments[to];
    }
    int half = 1;
    while (half * 2 < to - from) half *= 2;
    float l, r;
    const bool has_l = naive_node_sum(x, segments, from, from + half, rounded, &l);
    const bool has_r = naive_node_sum(x, segments, from + half, to, rounded, &r);
    *out = has_l && has_r ? l + r : has_l ? l : r;
    if (rounded) *out = cop_bf16_round(*out) + 0.0f;
    return has_l || has_r;
}

static void test_row_sums_use_16_lanes_and_a_tree(void **state) {
    (void)state;
    enum { ROWS = 5, LD = 208 };
    static float x[ROWS * LD];
    static const int cuts[][9] = {
        {0, 200}, {0, 16, 32, 48, 64}, {0, 1, 1, 40, 57, 57, 100, 163, 200}, {0, 7, 7, 8}};
    static const int counts[] = {1, 4, 8, 3};
    fill(x, ROWS * LD, 6);
    for (int i = 0; i < LD; i++) x[LD + i] = -0.0f;
    FOR_EACH_ISA(kernels) {
        for (int t = 0; t < 8; t++) {
            const bool rounded = t >= 4;
            const int *segments = cuts[t & 3], count = counts[t & 3];
            float out[ROWS], expected[ROWS];
            (rounded ? kernels->row_sums_rounded : kernels->row_sums)(x, ROWS, LD, segments, count,
                                                                      out);
            for (int r = 0; r < ROWS; r++)
                assert_true(naive_node_sum(x + r * LD, segments, 0, count, rounded, &expected[r]));
            assert_same(out, expected, ROWS, kernels->name);
        }
        const int empty[3] = {0, 0, 0};
        float out[ROWS];
        kernels->row_sums(x, ROWS, LD, empty, 2, out);
        for (int r = 0; r < ROWS; r++) assert_true(out[r] == 0.0f);
    }
}

/* Random bit patterns, among them all kinds of values, and ties. */
static float any_float(uint32_t *random) {
    *random = *random * 1664525u + 1013904223u;
    uint32_t bits = *random ^ *random >> 16;
    if (*random >> 30 == 0) bits = (bits & 0xffff0000u) | 0x8000u; /* half way between two bf16 */
    if (*random >> 27 == 9) bits &= 0x807fffffu;                   /* subnormal */
    if (*random >> 27 == 10) bits |= 0x7f800000u;                  /* infinite or NaN */
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* base/bf16.h against the definition: of the two bf16 around x the nearer one, and of equally near
 * ones the even one. In f64 every step of bf16 is exact, also that above the largest one. */
static void test_bf16_is_the_nearest(void **state) {
    (void)state;
    uint32_t random = 12;
    for (int i = 0; i < 200000; i++) {
        const float x = any_float(&random);
        const uint16_t half = cop_bf16_of(x);
        const float got = cop_bf16_float(half);
        if (isnan(x)) {
            assert_int_equal(half, 0x7fc0);
            continue;
        }
        assert_int_equal(signbit(x) != 0, signbit(got) != 0);
        if (isinf(x)) {
            assert_true(got == x);
            continue;
        }
        int exponent;
        frexp((double)x, &exponent);
        const double step = ldexp(1, (exponent < -125 ? -125 : exponent) - 8);
        const double error =
            fabs((isinf(got) ? copysign(0x1p128, (double)x) : (double)got) - (double)x);
        assert_true(error <= step / 2 && (error < step / 2 || !(half & 1)));
    }
}

static void test_bf16_on_every_instruction_set(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static float x[COUNT], wide[COUNT + 1];
    static uint16_t half[COUNT + 1];
    uint32_t random = 13;
    FOR_EACH_ISA(kernels) {
        for (size_t count = 0; count <= COUNT; count = count < 40 ? count + 1 : count + 480) {
            for (size_t i = 0; i < count; i++) x[i] = any_float(&random);
            half[count] = 7, wide[count] = 7;
            kernels->round_bf16(x, half, count);
            kernels->widen_bf16(half, wide, count);
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(half[i], cop_bf16_of(x[i]));
                const float expected = cop_bf16_float(half[i]);
                assert_memory_equal(&wide[i], &expected, sizeof expected);
            }
            assert_true(half[count] == 7 && wide[count] == 7);
        }
    }
}

static void test_all_finite_checks_every_position(void **state) {
    (void)state;
    static float x[2100];
    fill(x, 2100, 7);
    x[17] = 0x1.fffffep127f, x[18] = 0x1p-149f;
    FOR_EACH_ISA(kernels) {
        assert_true(kernels->all_finite(x, 2100));
        assert_true(kernels->all_finite(x, 0));
        for (int i = 0; i < 2100; i += 13) {
            const float old = x[i];
            x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
            assert_false(kernels->all_finite(x, 2100));
            assert_true(kernels->all_finite(x, (size_t)i));
            x[i] = old;
        }
    }
}

static void test_sum_squares_in_16_lanes_of_f64(void **state) {
    (void)state;
    float x[LONGEST];
    fill(x, LONGEST, 8);
    FOR_EACH_ISA(kernels) {
        for (int s = 0; s < SIZES; s++) {
            double lanes[16] = {0};
            for (int i = 0; i < sizes[s]; i++) lanes[i % 16] += (double)x[i] * (double)x[i];
            for (int width = 8; width; width /= 2)
                for (int l = 0; l < width; l++) lanes[l] += lanes[l + width];
            assert_true(kernels->sum_squares(x, (size_t)sizes[s]) == lanes[0]);
        }
    }
}

enum { CLASSES = 10, LOSS_LD = 48, LOSS_COLUMNS = 37 };

typedef struct loss_result {
    float dz[CLASSES * LOSS_LD], loss[LOSS_LD], p[CLASSES * LOSS_LD];
    int32_t argmax[LOSS_LD];
} loss_result;

/* Computes one column as the comment of softmax_cross_entropy in kernel.h says. */
static void naive_column(const float *z, int c, int32_t label, float smoothing, loss_result *out) {
    float e[CLASSES], max = z[c], sum = 0, shifted = 0;
    int32_t first = 0;
    for (int j = 1; j < CLASSES; j++)
        if (z[j * LOSS_LD + c] > max) max = z[j * LOSS_LD + c], first = j;
    for (int j = 0; j < CLASSES; j++) {
        e[j] = cop_exp_f32(z[j * LOSS_LD + c] - max);
        sum += e[j];
        shifted += z[j * LOSS_LD + c] - max;
    }
    const float share = smoothing / CLASSES;
    float dot = z[label * LOSS_LD + c] - max;
    if (smoothing > 0) dot = fmaf(share, shifted, (1.0f - smoothing) * dot);
    out->loss[c] = cop_log_f32(sum) - dot;
    out->argmax[c] = first;
    for (int j = 0; j < CLASSES; j++) {
        const float target = j == label ? 1.0f - smoothing + share : share;
        out->p[j * LOSS_LD + c] = e[j] / sum;
        out->dz[j * LOSS_LD + c] = c < LOSS_COLUMNS ? e[j] / sum - target : 0.0f;
    }
}

static void test_cross_entropy_follows_its_definition(void **state) {
    (void)state;
    static float z[CLASSES * LOSS_LD];
    static loss_result got, expected;
    int32_t labels[LOSS_LD] = {0};
    fill(z, CLASSES * LOSS_LD, 9);
    for (int i = 0; i < CLASSES * LOSS_LD; i++) z[i] *= 12.0f;
    z[3 * LOSS_LD + 5] = z[7 * LOSS_LD + 5] = 100.0f; /* a tie: index 3 must win */
    z[2 * LOSS_LD + 6] = -INFINITY, z[4 * LOSS_LD + 8] = -500.0f;
    z[9 * LOSS_LD + 11] = NAN;
    for (int c = 0; c < LOSS_COLUMNS; c++) labels[c] = c * 7 % CLASSES;
    for (int smooth = 0; smooth < 2; smooth++) {
        const float smoothing = smooth ? 0.1f : 0.0f;
        cop_cross_entropy loss = {.classes = CLASSES,
                                  .columns = LOSS_COLUMNS,
                                  .ld = LOSS_LD,
                                  .smoothing = smoothing,
                                  .z = z,
                                  .labels = labels,
                                  .loss = got.loss,
                                  .argmax = got.argmax};
        for (int c = 0; c < LOSS_LD; c++) naive_column(z, c, labels[c], smoothing, &expected);
        FOR_EACH_ISA(kernels) {
            for (int i = 0; i < LOSS_LD; i++) got.loss[i] = 42.0f, got.argmax[i] = 42;
            loss.dz = got.dz;
            kernels->softmax_cross_entropy(&loss);
            assert_same(got.dz, expected.dz, CLASSES * LOSS_LD, kernels->name);
            assert_same(got.loss, expected.loss, LOSS_COLUMNS, kernels->name);
            assert_memory_equal(got.argmax, expected.argmax, LOSS_COLUMNS * sizeof(int32_t));
            assert_true(got.loss[LOSS_COLUMNS] == 42.0f && got.argmax[LOSS_COLUMNS] == 42);
            assert_int_equal(got.argmax[5], 3);
            memset(got.loss, 0, sizeof got.loss);
            loss.dz = NULL;
            kernels->softmax_cross_entropy(&loss);
            assert_same(got.loss, expected.loss, LOSS_COLUMNS, kernels->name);
            kernels->softmax(z, CLASSES, LOSS_LD, got.p);
            assert_same(got.p, expected.p, CLASSES * LOSS_LD, kernels->name);
            memcpy(got.p, z, sizeof got.p);
            kernels->softmax(got.p, CLASSES, LOSS_LD, got.p);
            assert_same(got.p, expected.p, CLASSES * LOSS_LD, kernels->name);
        }
    }
}

static void test_cross_entropy_is_close_to_the_exact_value(void **state) {
    (void)state;
    static float z[CLASSES * LOSS_LD], dz[CLASSES * LOSS_LD], loss[LOSS_LD];
    int32_t labels[LOSS_LD], argmax[LOSS_LD];
    fill(z, CLASSES * LOSS_LD, 10);
    for (int c = 0; c < LOSS_LD; c++) labels[c] = c % CLASSES;
    const cop_cross_entropy q = {.classes = CLASSES,
                                 .columns = LOSS_LD,
                                 .ld = LOSS_LD,
                                 .smoothing = 0.2f,
                                 .z = z,
                                 .labels = labels,
                                 .dz = dz,
                                 .loss = loss,
                                 .argmax = argmax};
    cop_kernels_find("baseline")->softmax_cross_entropy(&q);
    for (int c = 0; c < LOSS_LD; c++) {
        long double sum = 0, exact = 0;
        for (int j = 0; j < CLASSES; j++) sum += expl(z[j * LOSS_LD + c]);
        for (int j = 0; j < CLASSES; j++) {
            const long double p = expl(z[j * LOSS_LD + c]) / sum,
                              target = (labels[c] == j) * 0.8L + 0.02L;
            exact -= target * logl(p);
            assert_true(fabsl(dz[j * LOSS_LD + c] - (p - target)) < 3e-7L);
        }
        assert_true(fabsl(loss[c] - exact) < 2e-6L);
    }
}

enum { ROWS = 7, COLS_MAX = 1037 };

typedef struct sgd_case {
    int cols;
    float momentum, weight_decay, l1, max_norm;
    bool nesterov, first;
} sgd_case;

/* Updates one row as D6 and the comment of cop_sgd say. */
static void naive_sgd_row(const cop_sgd *u, int row) {
    const size_t at = (size_t)row * (size_t)u->cols;
    float lanes[16] = {0};
    for (int j = 0; j < u->cols; j++) {
        const size_t i = at + (size_t)j;
        float stack[8];
        int depth = 0;
        for (int op = 0; op < u->tree->op_count; op++) {
            if (u->tree->ops[op] >= 0)
                stack[depth++] = u->gradients[u->tree->ops[op]][i];
            else
                depth--, stack[depth - 1] = stack[depth - 1] + stack[depth];
        }
        const float w = u->w_in[i];
        float g = stack[0] / u->batch;
        if (u->weight_decay != 0) g = fmaf(u->weight_decay, w, g);
        if (u->l1 != 0) g = g + (w > 0 ? u->l1 : w < 0 ? -u->l1 : 0.0f);
        float d = g;
        if (u->momentum != 0) {
            const float v = u->first ? g : fmaf(u->momentum, u->velocity[i], g);
            u->velocity[i] = v;
            d = u->nesterov ? fmaf(u->momentum, v, g) : v;
        }
        u->w_out[i] = fmaf(-u->rate, d, w);
        lanes[j % 16] = fmaf(u->w_out[i], u->w_out[i], lanes[j % 16]);
    }
    const float norm = sqrtf(lanes_tree(lanes));
    if (u->max_norm > 0 && norm > u->max_norm)
        for (int j = 0; j < u->cols; j++) u->w_out[at + (size_t)j] *= u->max_norm / norm;
}

static const sgd_case sgd_cases[] = {
    {1, 0, 0, 0, 0, false, false},
    {10, 0, 0, 0, 0, false, true},
    {100, 0.9f, 0, 0, 0, false, true},
    {100, 0.9f, 0, 0, 0, false, false},
    {1024, 0.95f, 0, 0, 2.0f, false, false},
    {784, 0.95f, 0, 0, 3.0f, false, true},
    {513, 0.9f, 1e-3f, 0, 0, true, false},
    {1037, 0.9f, 1e-2f, 1e-3f, 4.0f, true, false},
    {17, 0, 1e-2f, 1e-2f, 0.5f, false, false},
    {33, 0.5f, 0, 1e-2f, 0, true, true},
};

static void sgd_check(const cop_kernels *kernels, const sgd_case *t, bool in_place) {
    static float gradients[3][ROWS * COLS_MAX], in[ROWS * COLS_MAX], velocity[ROWS * COLS_MAX];
    static float out[ROWS * COLS_MAX], expected_v[ROWS * COLS_MAX], expected[ROWS * COLS_MAX];
    const float *inputs[3] = {gradients[0], gradients[1], gradients[2]};
    int16_t ops[5];
    const size_t count = (size_t)ROWS * (size_t)t->cols;
    cop_tree tree = {3, cop_tree_build(3, NULL, ops), ops};
    for (uint32_t i = 0; i < 3; i++) fill(gradients[i], count, 20 + i);
    fill(in, count, 30);
    for (size_t i = 0; i < (size_t)t->cols; i++) in[i] *= 0.01f; /* a row below the norm */
    fill(velocity, count, 31);
    if (t->first) memset(velocity, 0xff, sizeof velocity); /* NaN, because it must not be read */
    memcpy(expected_v, velocity, sizeof velocity);
    memcpy(out, in, sizeof in);
    memcpy(expected, in, sizeof in);
    cop_sgd u = {.gradients = inputs,
                 .tree = &tree,
                 .w_in = in,
                 .w_out = expected,
                 .velocity = t->momentum != 0 ? expected_v : NULL,
                 .cols = t->cols,
                 .batch = in_place ? 128.0f : 100.0f, /* a power of two, and another number */
                 .rate = 0.1f,
                 .momentum = t->momentum,
                 .weight_decay = t->weight_decay,
                 .l1 = t->l1,
                 .max_norm = t->max_norm,
                 .nesterov = t->nesterov,
                 .first = t->first};
    for (int r = 1; r < ROWS - 1; r++) naive_sgd_row(&u, r);
    u.w_out = out;
    if (in_place) u.w_in = out;
    if (u.velocity) u.velocity = velocity;
    kernels->sgd(&u, 1, 3); /* only rows 1 and 2; the first and last row stay unchanged */
    kernels->sgd(&u, 3, ROWS - 1);
    assert_same(out, expected, count, kernels->name);
    assert_same(velocity, expected_v, count, kernels->name);
}

static void test_sgd_follows_its_definition(void **state) {
    (void)state;
    FOR_EACH_ISA(kernels) {
        for (size_t i = 0; i < sizeof sgd_cases / sizeof sgd_cases[0]; i++) {
            sgd_check(kernels, &sgd_cases[i], false);
            sgd_check(kernels, &sgd_cases[i], true);
        }
    }
}

/* One of `count` values, chosen by *seed. */
static float pick(const float *values, uint32_t count, uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return values[(*seed >> 8) % count];
}

/* A subnormal number of any size and sign. */
static float subnormal(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    const float magnitude = (float)((*seed >> 9) >> (*seed & 15)) * 0x1p-149f;
    return *seed & 64 ? -magnitude : magnitude;
}

/* Fills the inputs of an update in runs of 48 weights: in each run one kind of weight, of gradient
 * and of velocity dominates. Rare values are among them in every third run. */
static void fill_with_subnormals(float *w, float *g, float *v, size_t count) {
    static const float usual[] = {0.5f, -1.0f, 0.03f, -7e-4f, 0x1p-87f, -0x1p-88f};
    static const float zeros[] = {0.0f, -0.0f, 0.0f, -0.0f};
    static const float rare[] = {0.0f,      -0.0f,     0x1p-149f, -0x1p-126f, 0x1p-125f, 1e-30f,
                                 -0x1p-87f, 0x1p-111f, INFINITY,  -INFINITY,  NAN,       1.0f};
    uint32_t seed = 5;
    for (size_t i = 0; i < count; i++) {
        const size_t run = i / 48;
        w[i] = pick(usual, run % 2 ? 4 : 6, &seed);
        g[i] = pick(run % 5 == 4 ? usual : zeros, 4, &seed) * 100;
        v[i] = run % 7 == 6 ? pick(usual, 6, &seed) : subnormal(&seed);
        if (run % 3 || seed >> 28) continue;
        w[i] = pick(rare, 12, &seed);
        g[i] = pick(rare, 12, &seed);
        v[i] = pick(rare, 12, &seed);
    }
}

static void test_sgd_keeps_subnormal_velocities(void **state) {
    (void)state;
    enum { COLS = 997 };
    static float w[ROWS * COLS], g[ROWS * COLS], v[ROWS * COLS], out[ROWS * COLS];
    static float expected_v[ROWS * COLS], expected[ROWS * COLS];
    const float *inputs[1] = {g};
    const int16_t ops[1] = {0};
    const cop_tree tree = {1, 1, ops};
    static const float momenta[] = {0.9f, 0.5f, 0.99f, 1.0f, 0x1p-20f, 1e-40f, -0.5f, 1.5f};
    fill_with_subnormals(w, g, v, ROWS * COLS);
    FOR_EACH_ISA(kernels) {
        for (size_t i = 0; i < 4 * sizeof momenta / sizeof momenta[0]; i++) {
            const size_t m = i / 4;
            cop_sgd u = {.gradients = inputs,
                         .tree = &tree,
                         .w_in = w,
                         .w_out = expected,
                         .velocity = expected_v,
                         .cols = COLS,
                         .batch = m % 3 ? 100 : 64,
                         .rate = m % 2 ? 1.0f : 0.05f,
                         .momentum = momenta[m],
                         .weight_decay = i % 4 == 3 ? 1e-3f : 0,
                         .nesterov = i % 2};
            memcpy(expected_v, v, sizeof v);
            for (int r = 0; r < ROWS; r++) naive_sgd_row(&u, r);
            static float velocity[ROWS * COLS];
            memcpy(velocity, v, sizeof v);
            u.velocity = velocity;
            u.w_out = out;
            kernels->sgd(&u, 0, ROWS);
            assert_same(out, expected, ROWS * COLS, kernels->name);
            assert_same(velocity, expected_v, ROWS * COLS, kernels->name);
        }
    }
}

static void test_max_norm_limits_long_rows_only(void **state) {
    (void)state;
    float gradient[2 * 20] = {0}, w[2 * 20], out[2 * 20];
    const float *inputs[1] = {gradient};
    const int16_t ops[1] = {0};
    const cop_tree tree = {1, 1, ops};
    for (int i = 0; i < 40; i++) w[i] = i < 20 ? 1.0f : 0.1f;
    const cop_sgd u = {.gradients = inputs,
                       .tree = &tree,
                       .w_in = w,
                       .w_out = out,
                       .cols = 20,
                       .batch = 1,
                       .rate = 1,
                       .max_norm = 2.0f};
    FOR_EACH_ISA(kernels) {
        kernels->sgd(&u, 0, 2);
        assert_true(fabs(sqrt(kernels->sum_squares(out, 20)) - 2.0) < 1e-6);
        assert_memory_equal(out + 20, w + 20, 20 * sizeof(float));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_u8_divides_by_255_and_pads_with_zero),
        cmocka_unit_test(test_load_f32_transposes_rows_and_pads_with_zero),
        cmocka_unit_test(test_relu_passes_nan_and_makes_zeros_positive),
        cmocka_unit_test(test_relu_backward_passes_gradients_of_positive_outputs),
        cmocka_unit_test(test_scale_multiplies),
        cmocka_unit_test(test_row_sums_use_16_lanes_and_a_tree),
        cmocka_unit_test(test_bf16_is_the_nearest),
        cmocka_unit_test(test_bf16_on_every_instruction_set),
        cmocka_unit_test(test_all_finite_checks_every_position),
        cmocka_unit_test(test_sum_squares_in_16_lanes_of_f64),
        cmocka_unit_test(test_cross_entropy_follows_its_definition),
        cmocka_unit_test(test_cross_entropy_is_close_to_the_exact_value),
        cmocka_unit_test(test_sgd_follows_its_definition),
        cmocka_unit_test(test_sgd_keeps_subnormal_velocities),
        cmocka_unit_test(test_max_norm_limits_long_rows_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
