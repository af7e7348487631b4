/* Products for thinned networks, on every instruction set. With `blocks`, k is split as in the full
 * layer, so that removing summands that are 0 keeps the bits. gemm_sparse, for an operand with many
 * zeros (B, or A if k has segments), must equal gemm bit for bit. LABELS: quick */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/kernels/kernel.h"

static void *workspace;

typedef void (*kernels_test)(const cop_kernels *kernels);

static void on_each_isa(kernels_test test) {
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (kernels) test(kernels);
    }
}

static uint32_t next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#ifdef __SANITIZE_ADDRESS__ /* six times as slow */
enum { SWEEP = 8 };
#else
enum { SWEEP = 40 };
#endif

/* Makes `count` values, of which `percent` % are not 0. Some zeros are -0, some values are so small
 * that products underflow, and some are subnormal. */
static float *values(size_t count, int percent, uint32_t seed) {
    float *x = cop_alloc_array(count + 16, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < count; i++) {
        const uint32_t r = next(&seed);
        const float unit = (float)((int32_t)(r << 8) >> 8) * 0x1p-23f;
        if ((int)(next(&seed) % 100) >= percent)
            x[i] = r % 2 ? 0.0f : -0.0f;
        else
            x[i] = r % 31 == 0 ? unit * 0x1p-80f : r % 31 == 1 ? unit * 0x1p-127f : unit;
    }
    return x;
}

/* Puts infinities, a NaN and the smallest subnormals at random places. */
static void add_special_values(float *x, size_t count, uint32_t *random) {
    static const float special[] = {INFINITY, -INFINITY, NAN, 0x1p-149f, -0x1p-149f};
    for (int i = 0; i < 5; i++) x[next(random) % count] = special[i];
}

/* Two products have the same bits, except that NaNs may differ. */
static void assert_same_values(const float *c, const float *expected, size_t count) {
    for (size_t i = 0; i < count; i++)
        assert_true(isnan(expected[i]) ? isnan(c[i]) : memcmp(c + i, expected + i, 4) == 0);
}

/* A product skips zeros where it pays. Near the limit of 62.5 %, it depends on the sample. */
static void assert_choice(bool skipped, int percent) {
    if (percent <= 50) assert_true(skipped);
    if (percent >= 75) assert_false(skipped);
}

/* C (m x n) = A (m x k) B (k x n), all stored by rows without gaps. */
static cop_gemm product_of(int m, int n, int k, const float *a, const float *b) {
    return (cop_gemm){.m = m,
                      .n = n,
                      .k = k,
                      .a = a,
                      .a_row = k,
                      .a_col = 1,
                      .b = b,
                      .b_row = n,
                      .b_col = 1,
                      .ldc = n};
}

/* Chooses which of the numbers below `k` to keep (`percent` % of them), and returns how many.
 * For each block of 256 numbers of which some are kept, `blocks` gets the index in `kept` after
 * the last of them. */
static int keep(int k, int percent, uint32_t *random, int *kept, int *blocks, int *block_count) {
    int count = 0;
    *block_count = 0;
    for (int p = 0; p < k; p++) {
        if ((int)(next(random) % 100) < percent) kept[count++] = p;
        const int before = *block_count ? blocks[*block_count - 1] : 0;
        if ((p % 256 == 255 || p == k - 1) && count > before) blocks[(*block_count)++] = count;
    }
    return count;
}

/* True if this product is left out: in the build with ASan, where each takes seconds on the
 * baseline kernels, these compute only the small ones. */
static bool takes_too_long(const cop_kernels *kernels, int m, int n, int k) {
#ifdef __SANITIZE_ADDRESS__
    return strcmp(kernels->name, "baseline") == 0 && (int64_t)m * n * k > 6000000;
#else
    (void)kernels, (void)m, (void)n, (void)k;
    return false;
#endif
}

/* ---- blocks ---- */

/* A product of only the kept members equals the product with zeros for the others. */
static void thin_check(const cop_kernels *kernels, int m, int n, int k, int percent) {
    enum { K_MAX = 2100 };
    static int kept[K_MAX], blocks[K_MAX];
    uint32_t random = (uint32_t)(m + n * 3 + k * 7 + percent);
    float *a = values((size_t)m * (size_t)k, 95, 1), *bias = values((size_t)m, 90, 2);
    float *b = values((size_t)k * (size_t)n, 60, 3), *c = values((size_t)m * (size_t)n, 50, 4);
    float *thin_a = values((size_t)m * (size_t)k, 50, 5),
          *full = values((size_t)m * (size_t)n, 50, 6);
    float *thin_b = values((size_t)k * (size_t)n, 50, 7);
    int block_count;
    const int count = keep(k, percent, &random, kept, blocks, &block_count);
    cop_gemm g = product_of(m, n, k, a, b);
    g.c = full, g.bias = bias;
    for (int p = 0, q = 0; p < k; p++) {
        if (q < count && kept[q] == p) {
            memcpy(thin_b + q * n, b + p * n, (size_t)n * sizeof *b);
            for (int i = 0; i < m; i++) thin_a[i * count + q] = a[i * k + p];
            q++;
        } else {
            memset(b + p * n, 0, (size_t)n * sizeof *b);
        }
    }
    kernels->gemm(&g, workspace);
    g.k = count, g.a = thin_a, g.a_row = count, g.b = thin_b, g.c = c;
    g.blocks = blocks, g.block_count = block_count;
    kernels->gemm(&g, workspace);
    assert_memory_equal(c, full, (size_t)m * (size_t)n * sizeof *c);
    memset(c, 0xff, (size_t)m * (size_t)n * sizeof *c);
    if (kernels->gemm_sparse(&g, workspace))
        assert_memory_equal(c, full, (size_t)m * (size_t)n * sizeof *c);
    if (count > 256) { /* blocks of 256 kept members would be another product */
        g.blocks = NULL;
        kernels->gemm(&g, workspace);
        assert_memory_not_equal(c, full, (size_t)m * (size_t)n * sizeof *c);
    }
    cop_free(a), cop_free(b), cop_free(c), cop_free(bias);
    cop_free(thin_a), cop_free(thin_b), cop_free(full);
}

static void thin_shapes(const cop_kernels *kernels) {
    static const int shapes[][4] = {
        {5, 16, 300, 50},     {33, 48, 784, 80},   {130, 64, 1024, 50}, {67, 272, 600, 20},
        {200, 1008, 513, 50}, {300, 40, 2050, 60}, {13, 32, 257, 1},    {70, 64, 700, 0},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        if (!takes_too_long(kernels, shapes[s][0], shapes[s][1], shapes[s][2]))
            thin_check(kernels, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3]);
}

static void test_kept_members_give_the_bits_of_the_full_product(void **state) {
    (void)state;
    on_each_isa(thin_shapes);
}

/* ---- skipped zeros ---- */

typedef struct sparse_case {
    int m, n, k, percent, block; /* block: 0, or the length of odd blocks */
    bool transposed, runs;
    bool special; /* B has infinities, a NaN and subnormals */
} sparse_case;

/* Compares gemm_sparse with gemm. Returns whether gemm_sparse computed the product. */
static bool sparse_check(const cop_kernels *kernels, const sparse_case *s) {
    uint32_t random = (uint32_t)(s->m * 31 + s->n * 7 + s->k + s->percent);
    const size_t count = (size_t)s->m * (size_t)s->n;
    float *a = values((size_t)s->m * (size_t)s->k, 97, 11), *bias = values((size_t)s->m, 90, 12);
    float *b = values((size_t)s->k * (size_t)s->n, s->percent, 13);
    float *c = values(count + 1, 50, 14), *expected = values(count, 50, 15);
    if (s->special) add_special_values(b, (size_t)s->k * (size_t)s->n, &random);
    int *blocks = cop_alloc_array((size_t)s->k, sizeof *blocks), block_count = 0;
    for (int to = 0; s->block && to < s->k;) {
        to = s->k - to < s->block ? s->k : to + s->block - block_count % 5;
        blocks[block_count++] = to;
    }
    cop_gemm g = product_of(s->m, s->n, s->k, a, b);
    if (s->transposed) g.a_row = 1, g.a_col = s->m;
    if (s->block) g.blocks = blocks, g.block_count = block_count;
    g.c = expected, g.bias = s->n % 3 ? bias : NULL;
    kernels->gemm(&g, workspace);
    g.c = c;
    c[count] = 42.0f;
    const bool skipped = kernels->gemm_sparse(&g, workspace);
    if (skipped) assert_same_values(c, expected, count);
    assert_true(c[count] == 42.0f);
    cop_free(a), cop_free(b), cop_free(c), cop_free(bias), cop_free(expected), cop_free(blocks);
    return skipped;
}

static void sparse_cases(const cop_kernels *kernels) {
    static const sparse_case cases[] = {
        {128, 64, 300, 30, 0, false, true, false},    {129, 65, 257, 25, 0, false, true, false},
        {1000, 48, 100, 10, 0, false, true, false},   {300, 600, 520, 40, 0, false, true, false},
        {71, 33, 1025, 50, 0, false, true, false},    {64, 1000, 784, 0, 0, false, true, false},
        {150, 100, 700, 30, 130, false, true, false}, {200, 64, 900, 20, 250, false, true, false},
        {200, 64, 500, 20, 17, false, true, false},   {145, 80, 300, 30, 0, true, true, false},
        {256, 32, 4100, 15, 0, false, true, false},   {128, 64, 300, 95, 0, false, false, false},
        {1, 64, 300, 10, 0, false, false, false},     {128, 3, 300, 10, 0, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (!takes_too_long(kernels, cases[i].m, cases[i].n, cases[i].k))
            assert_true(sparse_check(kernels, &cases[i]) == cases[i].runs);
}

static void test_skipping_zeros_does_not_change_the_bits(void **state) {
    (void)state;
    on_each_isa(sparse_cases);
}

/* Random shapes, blocks and densities. */
static void sparse_sweep(const cop_kernels *kernels) {
    uint32_t random = 6;
    for (int i = 0; i < SWEEP; i++) {
        const int block = 5 + (int)(next(&random) % 250);
        const sparse_case s = {.m = 64 + (int)(next(&random) % 100),
                               .n = 32 + (int)(next(&random) % 60),
                               .k = 64 + (int)(next(&random) % 400),
                               .percent = i * 100 / (SWEEP - 1),
                               .block = next(&random) % 2 ? block : 0,
                               .transposed = next(&random) % 2,
                               .special = next(&random) % 2};
        assert_choice(sparse_check(kernels, &s), s.percent);
    }
}

static void test_random_sparse_inputs_give_the_bits_of_the_full_product(void **state) {
    (void)state;
    on_each_isa(sparse_sweep);
}

/* Of each 16 neighbours in a row, makes all but 10 zero: the largest density that pays. */
static void thin_to_limit(float *x, int rows, int columns) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) x[i * columns + j] = (i + j) % 16 < 10 ? 0.5f : -0.0f;
}

/* At the limit, zeros are skipped. One element more, and they are not. Row 0 is in the sample which
 * is counted before the lists exist; row 1 is not, and only the lists of B count it. */
static void limit_check(const cop_kernels *kernels) {
    enum { M = 128, N = 64, K = 96 };
    const int segments[] = {0, 40, 40, K};
    float *a = values(M * K, 100, 51), *b = values(K * N, 100, 52), *c = values(M * N, 50, 53);
    float *expected = values(M * N, 50, 54);
    for (int left = 0; left < 2; left++)
        for (int row = -1; row < 2; row++) {
            cop_gemm g = product_of(M, N, K, a, b);
            if (left) g.segments = segments, g.segment_count = 3;
            float *thin = left ? a : b;
            thin_to_limit(thin, left ? M : K, left ? K : N);
            if (row >= 0) thin[row * (left ? K : N) + 15 - row] = 0.5f;
            g.c = expected;
            kernels->gemm(&g, workspace);
            g.c = c;
            const bool skipped = kernels->gemm_sparse(&g, workspace);
            assert_true(skipped == (row < 0 || (left && row == 1)));
            if (skipped) assert_memory_equal(c, expected, M * N * sizeof *c);
        }
    cop_free(a), cop_free(b), cop_free(c), cop_free(expected);
}

static void test_zeros_are_skipped_up_to_ten_sixteenths(void **state) {
    (void)state;
    on_each_isa(limit_check);
}

/* gemm_sparse returns false if an element of `x`, the operand that is not sparse, is an infinity or
 * a NaN: times 0 this is NaN, so no zero of the other operand may be skipped. */
static void check_not_skipped(const cop_kernels *kernels, const cop_gemm *g, float *x, int count,
                              int step) {
    static const float wrong[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < count; i += step) {
        const float old = x[i];
        x[i] = wrong[i % 3];
        assert_false(kernels->gemm_sparse(g, workspace));
        x[i] = old;
    }
    assert_true(kernels->gemm_sparse(g, workspace));
}

static void infinite_check(const cop_kernels *kernels) {
    enum { M = 200, N = 64, K = 300 };
    float *a = values(M * K, 100, 21), *b = values(K * N, 20, 22), *c = values(M * N, 50, 23);
    cop_gemm g = product_of(M, N, K, a, b);
    g.c = c;
    check_not_skipped(kernels, &g, a, M * K, 7919);
    cop_free(a), cop_free(b), cop_free(c);
}

static void test_non_finite_weights_are_not_skipped(void **state) {
    (void)state;
    on_each_isa(infinite_check);
}

/* NaN and infinity in B are computed like other elements. */
static void special_check(const cop_kernels *kernels) {
    enum { M = 200, N = 64, K = 300 };
    float *a = values(M * K, 100, 31), *b = values(K * N, 20, 32), *c = values(M * N, 50, 33);
    float *expected = values(M * N, 50, 34);
    b[5 * N + 3] = NAN, b[7 * N + 9] = INFINITY, b[70 * N + 9] = -INFINITY, b[9 * N] = 0x1p-149f;
    cop_gemm g = product_of(M, N, K, a, b);
    g.c = expected;
    kernels->gemm(&g, workspace);
    g.c = c;
    assert_true(kernels->gemm_sparse(&g, workspace));
    assert_same_values(c, expected, M * N);
    assert_true(isnan(c[3]) && !isfinite(c[9]) && isfinite(c[4]));
    cop_free(a), cop_free(b), cop_free(c), cop_free(expected);
}

static void test_special_values_are_computed(void **state) {
    (void)state;
    on_each_isa(special_check);
}

/* ---- columns that share zeros, and results that are not needed ---- */

typedef struct grouped_case {
    int m, n, k, kept, needed, density, block; /* percentages of rows of B, rows of C, values */
    int needed_rows;                           /* 0: all rows are needed */
    bool transposed, runs;
} grouped_case;

/* Keep words: each is 0 or not. */
static uint16_t *words_of(int rows, int groups, int percent, uint32_t seed) {
    uint16_t *words = cop_alloc_array((size_t)rows * (size_t)groups, sizeof *words);
    assert_non_null(words);
    for (int i = 0; i < rows * groups; i++)
        words[i] = (uint16_t)((int)(next(&seed) % 100) < percent ? 1u << next(&seed) % 16 : 0);
    return words;
}

/* Compares the needed elements with those of the full product, and returns how many elements were
 * not computed. */
static int compare_needed(const cop_gemm *g, const float *expected) {
    int skipped = 0;
    for (int i = 0; i < g->m; i++)
        for (int j = 0; j < g->n; j++) {
            const float *c = g->c + i * g->n + j, *e = expected + i * g->n + j;
            if (!g->needed || g->needed[i / g->needed_rows * (g->n / 16) + j / 16])
                assert_true(isnan(*e) ? isnan(*c) : memcmp(c, e, sizeof *c) == 0);
            else
                skipped += memcmp(c, e, sizeof *c) != 0;
        }
    return skipped;
}

static void grouped_check(const cop_kernels *kernels, const grouped_case *s) {
    const size_t count = (size_t)s->m * (size_t)s->n;
    const int groups = s->n / 16, each = s->needed_rows ? s->needed_rows : 1;
    float *a = values((size_t)s->m * (size_t)s->k, 97, 51), *bias = values((size_t)s->m, 90, 52);
    float *b = values((size_t)s->k * (size_t)s->n, s->density, 53), *c = values(count, 50, 54);
    float *expected = values(count, 50, 55);
    uint16_t *kept = words_of(s->k, groups, s->kept, 56);
    uint16_t *needed = words_of(s->m / each + 1, groups, s->needed, 57);
    int *blocks = cop_alloc_array((size_t)s->k, sizeof *blocks), block_count = 0;
    for (int to = 0; s->block && to < s->k; blocks[block_count++] = to)
        to = s->k - to < s->block ? s->k : to + s->block - block_count % 5;
    for (int i = 0; i < s->k * s->n; i++)
        if (!kept[i / 16]) b[i] = i % 3 ? 0.0f : -0.0f;
    b[s->n * (s->k / 2)] = INFINITY, b[s->n * (s->k / 3) + s->n - 1] = NAN;
    cop_gemm g = product_of(s->m, s->n, s->k, a, b);
    if (s->transposed) g.a_row = 1, g.a_col = s->m;
    if (s->block) g.blocks = blocks, g.block_count = block_count;
    g.c = expected, g.bias = s->k % 3 ? bias : NULL;
    kernels->gemm(&g, workspace);
    g.c = c;
    if (s->needed_rows) g.needed = needed, g.needed_rows = s->needed_rows;
    assert_true(kernels->gemm_sparse(&g, workspace) == s->runs);
    if (s->runs) assert_int_equal(compare_needed(&g, expected) > 0, s->needed_rows > 0);
    for (int i = s->m * s->k - 1; s->runs && i > 0; i -= s->m * s->k / 7) {
        const float old = a[i];
        a[i] = i % 2 ? NAN : -INFINITY;
        assert_false(kernels->gemm_sparse(&g, workspace));
        a[i] = old;
    }
    cop_free(a), cop_free(b), cop_free(c), cop_free(bias), cop_free(expected);
    cop_free(kept), cop_free(needed), cop_free(blocks);
}

static void grouped_cases(const cop_kernels *kernels) {
    static const grouped_case cases[] = {
        {128, 64, 300, 50, 50, 100, 0, 1, false, true},
        {129, 16, 257, 25, 70, 80, 0, 1, false, true},
        {67, 288, 700, 50, 0, 100, 0, 0, false, true},
        {1100, 48, 520, 40, 50, 90, 0, 1, true, true},
        {200, 64, 900, 30, 60, 100, 250, 3, false, true},
        {90, 64, 500, 40, 30, 100, 17, 4, true, true},
        {64, 32, 1000, 0, 50, 100, 0, 1, false, true},
        {40, 64, 16000, 60, 40, 100, 0, 1, false, true},
        {33, 32, 40, 100, 30, 100, 0, 1, false, true},
        {128, 64, 300, 95, 95, 95, 0, 1, false, false},
        {8, 64, 300, 50, 50, 100, 0, 1, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) grouped_check(kernels, &cases[i]);
}

static void test_shared_zeros_and_unneeded_rows_do_not_change_the_bits(void **state) {
    (void)state;
    on_each_isa(grouped_cases);
}

/* ---- skipped zeros of A, in products with segments ---- */

enum { SEGMENTS_MAX = 40 };

typedef struct left_case {
    int m, n, k, percent, segments;
    bool by_rows, runs; /* by_rows: B is stored by rows; otherwise by columns, as in a layer */
    bool special;       /* A has infinities, a NaN and subnormals */
} left_case;

/* Cuts k into segments of random lengths, some of them empty. */
static void cut(int k, int count, uint32_t *random, int offsets[SEGMENTS_MAX + 1]) {
    offsets[0] = 0;
    for (int s = 1; s < count; s++) {
        const int rest = k - offsets[s - 1], most = 2 * k / count + 1;
        const int size = next(random) % 5 == 0 ? 0 : (int)(next(random) % (uint32_t)most);
        offsets[s] = offsets[s - 1] + (size < rest ? size : rest);
    }
    offsets[count] = k;
}

/* A product with segments. The rows of A are longer than k, as the padded columns of a layer are;
 * what follows k is NaN. */
static cop_gemm left_product(const left_case *s, float *a, const float *b, const int *offsets) {
    const int ld = s->k + 5;
    for (int i = 0; i < s->m; i++)
        for (int p = s->k; p < ld; p++) a[i * ld + p] = NAN;
    return (cop_gemm){.m = s->m,
                      .n = s->n,
                      .k = s->k,
                      .a = a,
                      .a_row = ld,
                      .a_col = 1,
                      .b = b,
                      .b_row = s->by_rows ? s->n : 1,
                      .b_col = s->by_rows ? 1 : s->k,
                      .ldc = s->n,
                      .segments = offsets,
                      .segment_count = s->segments,
                      .round_nodes = s->m % 3 == 0};
}

/* Compares gemm_sparse with gemm. Returns whether gemm_sparse computed the product. */
static bool left_check(const cop_kernels *kernels, const left_case *s) {
    const size_t count = (size_t)s->m * (size_t)s->n;
    uint32_t random = (uint32_t)(s->m * 31 + s->n * 7 + s->k + s->percent);
    int offsets[SEGMENTS_MAX + 1];
    float *a = values((size_t)s->m * (size_t)(s->k + 5), s->percent, random + 1);
    float *b = values((size_t)s->k * (size_t)s->n, 60, random + 2);
    float *c = values(count + 1, 50, 3), *expected = values(count, 50, 4);
    cut(s->k, s->segments, &random, offsets);
    if (s->special) add_special_values(a, (size_t)s->m * (size_t)(s->k + 5), &random);
    cop_gemm g = left_product(s, a, b, offsets);
    g.c = expected;
    kernels->gemm(&g, workspace);
    g.c = c;
    c[count] = 42.0f;
    const bool skipped = kernels->gemm_sparse(&g, workspace);
    if (skipped) assert_same_values(c, expected, count);
    assert_true(c[count] == 42.0f);
    cop_free(a), cop_free(b), cop_free(c), cop_free(expected);
    return skipped;
}

static void left_cases(const cop_kernels *kernels) {
    static const left_case cases[] = {
        {64, 128, 64, 25, 4, false, true, false},    {1000, 784, 64, 25, 4, false, true, false},
        {33, 65, 9, 40, 1, false, true, false},      {128, 300, 128, 50, 8, true, true, false},
        {600, 200, 300, 30, 1, false, true, false},  {300, 257, 700, 10, 3, false, true, false},
        {50, 130, 1000, 30, 40, false, true, false}, {40, 64, 100, 0, 7, false, true, false},
        {64, 128, 64, 95, 4, false, false, false},   {8, 128, 64, 25, 4, false, false, false},
        {64, 10, 64, 25, 4, false, false, false},    {64, 128, 4, 25, 2, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (!takes_too_long(kernels, cases[i].m, cases[i].n, cases[i].k))
            assert_true(left_check(kernels, &cases[i]) == cases[i].runs);
}

static void test_skipping_zeros_of_gradients_does_not_change_the_bits(void **state) {
    (void)state;
    on_each_isa(left_cases);
}

/* Random shapes, segments and densities. */
static void left_sweep(const cop_kernels *kernels) {
    uint32_t random = 5;
    for (int i = 0; i < SWEEP; i++) {
        const left_case s = {.m = 32 + (int)(next(&random) % 100),
                             .n = 64 + (int)(next(&random) % 300),
                             .k = 8 + (int)(next(&random) % 300),
                             .percent = i * 100 / (SWEEP - 1),
                             .segments = 1 + (int)(next(&random) % SEGMENTS_MAX),
                             .by_rows = next(&random) % 2,
                             .special = next(&random) % 2};
        const bool skipped = left_check(kernels, &s);
        if (s.k >= 32) assert_choice(skipped, s.percent);
    }
}

static void test_random_sparse_gradients_give_the_bits_of_the_full_product(void **state) {
    (void)state;
    on_each_isa(left_sweep);
}

static void left_special_check(const cop_kernels *kernels) {
    const left_case s = {64, 200, 96, 30, 6, false, true, false};
    const int offsets[] = {0, 16, 32, 48, 64, 80, 96};
    float *a = values((size_t)s.m * (size_t)(s.k + 5), s.percent, 41);
    float *b = values((size_t)s.k * (size_t)s.n, 100, 42);
    float *c = values((size_t)s.m * (size_t)s.n, 50, 43);
    float *expected = values((size_t)s.m * (size_t)s.n, 50, 44);
    cop_gemm g = left_product(&s, a, b, offsets);
    const int ld = (int)g.a_row;
    a[3 * ld + 5] = NAN, a[9 * ld + 7] = INFINITY, a[10 * ld] = -INFINITY, a[11 * ld] = 0x1p-149f;
    g.c = expected;
    kernels->gemm(&g, workspace);
    g.c = c;
    assert_true(kernels->gemm_sparse(&g, workspace));
    assert_same_values(c, expected, (size_t)s.m * (size_t)s.n);
    assert_true(isnan(c[3 * s.n]) && !isfinite(c[9 * s.n]) && isfinite(c[4 * s.n]));
    check_not_skipped(kernels, &g, b, s.k * s.n, 1013);
    cop_free(a), cop_free(b), cop_free(c), cop_free(expected);
}

static void test_special_values_of_gradients_are_computed(void **state) {
    (void)state;
    on_each_isa(left_special_check);
}

static int open_workspace(void **state) {
    (void)state;
    workspace = cop_alloc_raw(COP_GEMM_WORKSPACE);
    return workspace ? 0 : -1;
}

static int close_workspace(void **state) {
    (void)state;
    cop_free(workspace);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_members_give_the_bits_of_the_full_product),
        cmocka_unit_test(test_skipping_zeros_does_not_change_the_bits),
        cmocka_unit_test(test_random_sparse_inputs_give_the_bits_of_the_full_product),
        cmocka_unit_test(test_zeros_are_skipped_up_to_ten_sixteenths),
        cmocka_unit_test(test_non_finite_weights_are_not_skipped),
        cmocka_unit_test(test_special_values_are_computed),
        cmocka_unit_test(test_shared_zeros_and_unneeded_rows_do_not_change_the_bits),
        cmocka_unit_test(test_skipping_zeros_of_gradients_does_not_change_the_bits),
        cmocka_unit_test(test_random_sparse_gradients_give_the_bits_of_the_full_product),
        cmocka_unit_test(test_special_values_of_gradients_are_computed),
    };
    return cmocka_run_group_tests(tests, open_workspace, close_workspace);
}
