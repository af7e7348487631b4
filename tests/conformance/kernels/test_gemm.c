/* Every product in the build must keep the contract of cop_gemm. The portable product must equal
 * the plain scalar definition of D4 and D5 in this file, bit for bit, for any shape, transposition,
 * alignment, split and instruction set. OpenBLAS's product must be within the error bound that
 * holds for any order of summation. LABELS: quick */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/kernels/kernel.h"

enum { SIDE = 43 }; /* leading dimension of small matrices: odd, so that rows are unaligned */

static void *workspace;

/* Draws a value. The values have mixed magnitudes; some are zeros of either sign, and some are so
 * small that their products round to -0. */
static float value(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    const uint32_t r = *state >> 8;
    const float unit = (float)((int32_t)(*state) >> 8) * 0x1p-23f;
    switch (r % 31) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return unit * 0x1p-80f;
    case 3:
        return unit * 64.0f;
    default:
        return unit;
    }
}

static float *values(size_t count, uint32_t seed) {
    float *x = cop_alloc_array(count + 16, sizeof(float));
    assert_non_null(x);
    for (size_t i = 0; i < count; i++) x[i] = value(&seed);
    return x;
}

/* D4: one element, summed over k in [from, to). */
static float element_of_range(const cop_gemm *g, int i, int j, int from, int to) {
    float total = 0.0f;
    for (int block = from; block < to; block += 256) {
        float chain = 0.0f;
        for (int p = block; p < to && p < block + 256; p++)
            chain =
                fmaf(g->a[i * g->a_row + p * g->a_col], g->b[p * g->b_row + j * g->b_col], chain);
        chain += 0.0f;
        total = block == from ? chain : total + chain;
    }
    return total;
}

static uint32_t bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

/* The value of a node of the tree, by the definition of cop_gemm.round_nodes: among the two bf16
 * around x, the nearer one, of equally near ones the even one. Both come from cutting bits off. */
static float node_value(const cop_gemm *g, float x) {
    if (!g->round_nodes) return x;
    const uint32_t below = bits(x) & 0xffff0000u, above = below + 0x10000u;
    float low, high;
    memcpy(&low, &below, 4);
    memcpy(&high, &above, 4);
    const double down = fabs((double)x - (double)low), up = fabs((double)high - (double)x);
    const bool even = !(below >> 16 & 1);
    return (down < up || (down == up && even) ? low : high) + 0.0f;
}

/* The summation tree by the definition of D5: node [from, to) splits at `from` plus the largest
 * power of two below its size. */
static bool element_of_node(const cop_gemm *g, int i, int j, int from, int to, float *out) {
    if (to - from == 1) {
        *out = node_value(g, element_of_range(g, i, j, g->segments[from], g->segments[to]));
        return g->segments[from] < g->segments[to];
    }
    int half = 1;
    while (half * 2 < to - from) half *= 2;
    float left, right;
    const bool has_left = element_of_node(g, i, j, from, from + half, &left);
    const bool has_right = element_of_node(g, i, j, from + half, to, &right);
    *out = has_left && has_right ? node_value(g, left + right) : has_left ? left : right;
    return has_left || has_right;
}

static float element(const cop_gemm *g, int i, int j) {
    float sum;
    if (!g->segments)
        sum = element_of_range(g, i, j, 0, g->k);
    else if (!element_of_node(g, i, j, 0, g->segment_count, &sum))
        sum = 0.0f;
    return g->bias ? sum + g->bias[i] : sum;
}

static void assert_same(float got, float expected, const cop_gemm *g, int i, int j,
                        const char *label) {
    if (bits(got) == bits(expected)) return;
    fail_msg("%s: m %d n %d k %d segments %d: element (%d, %d) is %a, expected %a", label, g->m,
             g->n, g->k, g->segment_count, i, j, (double)got, (double)expected);
}

/* All four transpositions of a product with leading dimensions lda and ldb. */
static cop_gemm transposed(int t, const float *a, int lda, const float *b, int ldb) {
    return (cop_gemm){.a = a,
                      .a_row = t & 1 ? 1 : lda,
                      .a_col = t & 1 ? lda : 1,
                      .b = b,
                      .b_row = t & 2 ? 1 : ldb,
                      .b_col = t & 2 ? ldb : 1};
}

#ifdef __SANITIZE_ADDRESS__
enum { SHAPE_STEP = 24, SAMPLES = 60 };
#else
enum { SHAPE_STEP = 8, SAMPLES = 400 };
#endif

/* True: only one transposition of each shape is checked, because more would take too long. */
static bool is_slow(const cop_kernels *kernels) {
#ifdef __SANITIZE_ADDRESS__
    (void)kernels;
    return true;
#else
    return strcmp(kernels->name, "baseline") == 0;
#endif
}

typedef void (*kernels_test)(const cop_kernels *kernels);

static void on_each_isa(kernels_test test) {
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (kernels) test(kernels);
    }
}

/* Every m, n, k from 1 to 40. An element depends only on k, so the definition is evaluated once per
 * k. Memory around the result may not change. Slow instruction sets run one transposition per
 * shape. */
static void small_shapes(const cop_kernels *kernels) {
    enum { MOST = 40, AREA = SIDE * (MOST + 1) };
    float *a = values(SIDE * SIDE, 1), *b = values(SIDE * SIDE, 2), *bias = values(SIDE, 3);
    static float expected[AREA], c[AREA];
    const bool slow = is_slow(kernels);
    const uint32_t canary = 0x7fc0beef;
    for (int t = 0; t < 4; t++) {
        for (int k = 1; k <= MOST; k++) {
            cop_gemm g = transposed(t, a, SIDE, b, SIDE);
            g.k = k;
            g.bias = k % 3 == 0 ? bias : NULL;
            g.c = c;
            g.ldc = SIDE;
            for (int i = 0; i < MOST; i++)
                for (int j = 0; j < MOST; j++) expected[i * SIDE + j] = element(&g, i, j);
            for (g.m = 1; g.m <= MOST; g.m++) {
                for (g.n = 1; g.n <= MOST; g.n++) {
                    if (slow && (g.m * 7 + g.n * 3 + k) % SHAPE_STEP != t) continue;
                    for (int i = 0; i < AREA; i++) memcpy(&c[i], &canary, 4);
                    kernels->gemm(&g, workspace);
                    for (int i = 0; i < g.m; i++)
                        if (memcmp(c + i * SIDE, expected + i * SIDE, (size_t)g.n * 4) != 0)
                            for (int j = 0; j < g.n; j++)
                                assert_same(c[i * SIDE + j], expected[i * SIDE + j], &g, i, j,
                                            kernels->name);
                    for (int i = 0; i <= g.m; i++)
                        assert_true(bits(c[i * SIDE + (i < g.m ? g.n : 0)]) == canary);
                }
            }
        }
    }
    cop_free(a);
    cop_free(b);
    cop_free(bias);
}

static void test_small_shapes_follow_the_definition(void **state) {
    (void)state;
    on_each_isa(small_shapes);
}

static const struct large_shape {
    int m, n, k;
} large_shapes[] = {
    {257, 129, 513}, {784, 301, 97}, {13, 1030, 260}, {1024, 64, 300}, {100, 64, 1024},
    {10, 64, 1024},  {300, 16, 257}, {97, 600, 64},   {1, 1, 2000},    {1, 700, 256},
    {700, 1, 255},   {30, 48, 4097}, {205, 530, 33},
};
enum { LARGE = sizeof large_shapes / sizeof large_shapes[0] };

/* Checks large odd shapes: elements at the borders of tiles and at random places equal the
 * definition. Every instruction set, and every split into rows and columns, gives the same bits as
 * the whole product. */
static void large_shape_check(const cop_kernels *kernels, const struct large_shape *s, int t) {
    const int lda = (t & 1 ? s->m : s->k) + 3, ldb = (t & 2 ? s->k : s->n) + (s->n % 16 ? 1 : 0);
    float *a = values((size_t)lda * (size_t)(t & 1 ? s->k : s->m), 5),
          *bias = values((size_t)s->m, 7);
    float *b = values((size_t)ldb * (size_t)(t & 2 ? s->n : s->k), 6);
    float *c = values((size_t)s->m * (size_t)s->n, 8),
          *parts = values((size_t)s->m * (size_t)s->n, 9);
    cop_gemm g = transposed(t, a, lda, b, ldb);
    g.m = s->m, g.n = s->n, g.k = s->k, g.c = c, g.ldc = s->n, g.bias = bias;
    kernels->gemm(&g, workspace);
    uint32_t random = 99;
    for (int sample = 0; sample < SAMPLES; sample++) {
        random = random * 1664525u + 1013904223u;
        const int i = (int)(random >> 16) % s->m;
        random = random * 1664525u + 1013904223u;
        const int j = sample % 4 ? (int)(random >> 16) % s->n : s->n - 1;
        assert_same(c[i * s->n + j], element(&g, i, j), &g, i, j, kernels->name);
    }
    const int row_cut = s->m * 2 / 5, column_cut = s->n * 3 / 7;
    for (int part = 0; part < 4; part++) {
        const int i = part & 1 ? row_cut : 0, j = part & 2 ? column_cut : 0;
        cop_gemm p = g;
        p.m = part & 1 ? s->m - row_cut : row_cut;
        p.n = part & 2 ? s->n - column_cut : column_cut;
        p.a += i * g.a_row, p.b += j * g.b_col, p.bias += i;
        p.c = parts + i * s->n + j;
        if (p.m > 0 && p.n > 0) kernels->gemm(&p, workspace);
    }
    assert_memory_equal(c, parts, (size_t)s->m * (size_t)s->n * sizeof(float));
    cop_free(a);
    cop_free(b);
    cop_free(bias);
    cop_free(c);
    cop_free(parts);
}

static void large_shapes_check(const cop_kernels *kernels) {
    const bool slow = is_slow(kernels);
    for (int s = 0; s < LARGE; s++)
        for (int t = 0; t < 4; t++)
            if (!slow || t == s % 4) large_shape_check(kernels, &large_shapes[s], t);
}

static void test_large_shapes_follow_the_definition_and_may_be_cut(void **state) {
    (void)state;
    on_each_isa(large_shapes_check);
}

static void test_instruction_sets_agree_on_large_shapes(void **state) {
    (void)state;
    for (int s = 0; s < LARGE; s++) {
        const struct large_shape *shape = &large_shapes[s];
        const size_t count = (size_t)shape->m * (size_t)shape->n;
        float *a = values((size_t)shape->m * (size_t)shape->k, 15), *first = values(count, 1);
        float *b = values((size_t)shape->k * (size_t)shape->n, 16), *c = values(count, 1);
        const int t = s % 4;
        cop_gemm g = transposed(t, a, t & 1 ? shape->m : shape->k, b, t & 2 ? shape->k : shape->n);
        g.m = shape->m, g.n = shape->n, g.k = shape->k, g.ldc = shape->n;
        for (const char *const *name = cop_kernels_names(); *name; name++) {
            const cop_kernels *kernels = cop_kernels_find(*name);
            if (!kernels) continue;
            g.c = name == cop_kernels_names() ? first : c;
            kernels->gemm(&g, workspace);
            if (g.c == c) assert_memory_equal(c, first, count * sizeof(float));
        }
        cop_free(a);
        cop_free(b);
        cop_free(c);
        cop_free(first);
    }
}

/* Ascending offsets from 0 to k in `count` segments, some of them empty. */
static void random_segments(int k, int count, uint32_t *random, int *out) {
    out[0] = 0;
    for (int s = 1; s < count; s++) {
        *random = *random * 1664525u + 1013904223u;
        const int rest = k - out[s - 1],
                  step = rest ? (int)(*random >> 8) % (2 * k / count + 1) : 0;
        out[s] = out[s - 1] + (*random >> 28 == 0 ? 0 : step < rest ? step : rest);
    }
    out[count] = k;
}

static void segments_check(const cop_kernels *kernels) {
    static const struct {
        int m, n, k, count;
    } shapes[] = {
        {23, 70, 64, 4}, {23, 70, 64, 7},  {40, 33, 128, 8}, {9, 17, 45, 3},     {5, 64, 300, 1},
        {7, 40, 900, 3}, {14, 35, 64, 64}, {3, 5, 20500, 9}, {2, 3, 2300, 2200}, {17, 32, 1000, 5},
        {1, 1, 1, 1},    {6, 18, 16, 16},  {12, 32, 77, 13},
    };
    uint32_t random = 4;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const int m = shapes[s].m, n = shapes[s].n, k = shapes[s].k, count = shapes[s].count;
        int *segments = cop_alloc_array((size_t)count + 1, sizeof(int));
        float *a = values((size_t)m * (size_t)k, 21), *b = values((size_t)n * (size_t)k, 22);
        float *c = values((size_t)m * (size_t)n, 23), *bias = values((size_t)m, 24);
        for (int t = 0; t < 8; t++) {
            random_segments(k, count, &random, segments);
            cop_gemm g = transposed(t & 3, a, t & 1 ? m : k, b, t & 2 ? k : n);
            g.m = m, g.n = n, g.k = k, g.c = c, g.ldc = n, g.segments = segments,
            g.segment_count = count;
            g.bias = (t & 3) == 1 ? bias : NULL;
            g.round_nodes = t >= 4;
            kernels->gemm(&g, workspace);
            for (int i = 0; i < m; i++)
                for (int j = 0; j < n; j++)
                    assert_same(c[i * n + j], element(&g, i, j), &g, i, j, kernels->name);
        }
        cop_free(segments);
        cop_free(a);
        cop_free(b);
        cop_free(c);
        cop_free(bias);
    }
}

static void test_segments_are_separate_products_summed_by_the_tree(void **state) {
    (void)state;
    on_each_isa(segments_check);
}

static void nothing_check(const cop_kernels *kernels) {
    const float bias[3] = {1.0f, -0.0f, 3.0f}, some[64] = {1.0f};
    const int empty[4] = {0, 0, 0, 0};
    for (int with_segments = 0; with_segments < 2; with_segments++) {
        float c[12];
        cop_gemm g = {.m = 3,
                      .n = 4,
                      .k = 0,
                      .a = some,
                      .a_row = 1,
                      .a_col = 1,
                      .b = some,
                      .b_row = 4,
                      .b_col = 1,
                      .c = c,
                      .ldc = 4,
                      .segments = with_segments ? empty : NULL,
                      .segment_count = 3};
        memset(c, 0xff, sizeof c);
        kernels->gemm(&g, workspace);
        for (int i = 0; i < 12; i++) assert_int_equal(bits(c[i]), 0);
        g.bias = bias;
        kernels->gemm(&g, workspace);
        for (int i = 0; i < 12; i++) assert_int_equal(bits(c[i]), bits(0.0f + bias[i / 4]));
    }
}

static void test_product_over_nothing_is_zero_plus_bias(void **state) {
    (void)state;
    on_each_isa(nothing_check);
}

/* Products underflow to -0, but every chain ends in + 0.0f, so no result is -0, for any bias. */
static void negative_zero_check(const cop_kernels *kernels) {
    enum { M = 15, N = 37, K = 5 };
    float a[M * K], b[K * N], c[M * N], bias[M];
    const int segments[4] = {0, 2, 3, K};
    for (int i = 0; i < M * K; i++) a[i] = -0x1p-100f;
    for (int i = 0; i < K * N; i++) b[i] = 0x1p-100f;
    for (int i = 0; i < M; i++) bias[i] = -0.0f;
    for (int t = 0; t < 16; t++) {
        cop_gemm g = transposed(t, a, t & 1 ? M : K, b, t & 2 ? K : N);
        g.m = M, g.n = N, g.k = K, g.c = c, g.ldc = N, g.bias = t & 4 ? bias : NULL;
        if (t & 8) g.segments = segments, g.segment_count = 3;
        kernels->gemm(&g, workspace);
        for (int i = 0; i < M * N; i++) assert_int_equal(bits(c[i]), 0);
    }
}

static void test_products_never_give_negative_zero(void **state) {
    (void)state;
    on_each_isa(negative_zero_check);
}

/* Compares a product with long double: |error| <= (k + 2) 2^-24 sum |a b|. This bound holds for any
 * order of summation (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; the 2 is
 * for tree and bias). Underflow adds at most 2^-149 per operation. */
static void accuracy_check(cop_gemm_fn gemm, const cop_kernels *kernels, const char *label) {
    static const struct large_shape shapes[] = {
        {33, 47, 300}, {7, 5, 1000}, {64, 10, 37}, {130, 64, 512}};
    for (int s = 0; s < 8; s++) {
        const int m = shapes[s / 2].m, n = shapes[s / 2].n, k = shapes[s / 2].k,
                  t = (s * 3 + 1) % 4;
        float *a = values((size_t)m * (size_t)k, 31), *b = values((size_t)n * (size_t)k, 32);
        float *c = values((size_t)m * (size_t)n, 33), *bias = values((size_t)m, 34);
        const int segments[6] = {0, k / 5, k / 5, k / 2, k - 1, k};
        cop_gemm g = transposed(t, a, t & 1 ? m : k, b, t & 2 ? k : n);
        g.m = m, g.n = n, g.k = k, g.c = c, g.ldc = n, g.bias = bias;
        if (s & 1) g.segments = segments, g.segment_count = 5;
        gemm(kernels, &g, workspace);
        for (int i = 0; i < m; i++) {
            for (int j = 0; j < n; j++) {
                long double exact = bias[i], size = fabsf(bias[i]);
                for (int p = 0; p < k; p++) {
                    const long double x = (long double)g.a[i * g.a_row + p * g.a_col] *
                                          (long double)g.b[p * g.b_row + j * g.b_col];
                    exact += x;
                    size += fabsl(x);
                }
                const long double bound = (k + 2) * (size * 0x1p-24L + 0x1p-149L);
                if (!(fabsl((long double)c[i * n + j] - exact) <= bound))
                    fail_msg("%s: m %d n %d k %d: element (%d, %d) is %a, exactly %La", label, m, n,
                             k, i, j, (double)c[i * n + j], exact);
            }
        }
        cop_free(a);
        cop_free(b);
        cop_free(c);
        cop_free(bias);
    }
}

static void portable_accuracy(const cop_kernels *kernels) {
    accuracy_check(cop_gemm_for(COP_NUMERICS_PORTABLE), kernels, kernels->name);
}

static void test_portable_is_within_the_error_bound(void **state) {
    (void)state;
    on_each_isa(portable_accuracy);
}

static void test_openblas_is_within_the_error_bound(void **state) {
    (void)state;
    assert_int_equal(cop_numerics_load(COP_NUMERICS_OPENBLAS, NULL), COP_OK);
    accuracy_check(cop_gemm_for(COP_NUMERICS_OPENBLAS), NULL, "openblas");
}

/* With values for which every sum is exact, OpenBLAS must equal the definition, also with empty
 * segments and bias. */
static void test_openblas_equals_the_definition_where_sums_are_exact(void **state) {
    (void)state;
    assert_int_equal(cop_numerics_load(COP_NUMERICS_OPENBLAS, NULL), COP_OK);
    enum { M = 300, N = 70, K = 50 };
    float *a = values(M * K, 1), *b = values(K * N, 2), *c = values(M * N, 3), *bias = values(M, 4);
    for (int i = 0; i < M * K; i++) a[i] = (float)(i * 7 % 15 - 7);
    for (int i = 0; i < K * N; i++) b[i] = (float)(i * 5 % 13 - 6);
    for (int i = 0; i < M; i++) bias[i] = (float)(i % 9);
    const int segments[7] = {0, 0, 13, 14, 14, 40, K}, none[3] = {0, 0, 0};
    for (int t = 0; t < 8; t++) {
        cop_gemm g = transposed(t, a, t & 1 ? M : K, b, t & 2 ? K : N);
        g.m = M, g.n = N, g.k = K, g.c = c, g.ldc = N, g.bias = bias;
        if (t & 4) g.segments = segments, g.segment_count = 6;
        cop_gemm_for(COP_NUMERICS_OPENBLAS)(NULL, &g, workspace);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) assert_true(c[i * N + j] == element(&g, i, j));
        g.k = 0, g.segments = t & 4 ? none : NULL, g.segment_count = 2;
        cop_gemm_for(COP_NUMERICS_OPENBLAS)(NULL, &g, workspace);
        for (int i = 0; i < M; i++) assert_true(c[i * N + N - 1] == bias[i]);
    }
    cop_free(a);
    cop_free(b);
    cop_free(c);
    cop_free(bias);
}

static int set_up(void **state) {
    (void)state;
    cop_compute_thread_init();
    workspace = cop_alloc_raw(COP_GEMM_WORKSPACE);
    return workspace ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    cop_free(workspace);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_shapes_follow_the_definition),
        cmocka_unit_test(test_large_shapes_follow_the_definition_and_may_be_cut),
        cmocka_unit_test(test_instruction_sets_agree_on_large_shapes),
        cmocka_unit_test(test_segments_are_separate_products_summed_by_the_tree),
        cmocka_unit_test(test_product_over_nothing_is_zero_plus_bias),
        cmocka_unit_test(test_products_never_give_negative_zero),
        cmocka_unit_test(test_portable_is_within_the_error_bound),
        cmocka_unit_test(test_openblas_is_within_the_error_bound),
        cmocka_unit_test(test_openblas_equals_the_definition_where_sums_are_exact),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
