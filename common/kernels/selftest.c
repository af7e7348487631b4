/* The self-test of D9: runs the kernels that cop_self_test lists, functions of base/real.h and
 * Philox on fixed input, and compares the digest of all results with the golden one of portable-1.
 * Products that skip zeros must equal gemm. They enter the digest only if they differ.
 * Programs that compute call it when they start, and the tests call it for each instruction set.
 * The digest depends on the arithmetic alone. */
#include "common/kernels/kernel.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/real.h"

/* The digest of portable-1 in hexadecimal. It changes only with a new version of the numerics (D4).
 */
static const char golden[] = "68bbf6c65b2b9c4d08f1fe9c609139ab2383c5b687d9919d9934a6c643de8299";

enum { ROWS = 37, DEPTH = 300, COLUMNS = 48, SAMPLES = 45, FLOATS = DEPTH * COLUMNS };
static const int segments[] = {0, 16, 16, 29, 45}; /* the second one is empty */
_Static_assert(COLUMNS % COP_COLUMNS_PAD == 0 && SAMPLES <= COLUMNS, "columns are padded");
_Static_assert(ROWS *COLUMNS <= FLOATS && ROWS * DEPTH <= FLOATS, "each product fits an array");

typedef struct test_state {
    float a[FLOATS], b[FLOATS], c[FLOATS], d[FLOATS];
    uint8_t bytes[SAMPLES * ROWS];
    uint16_t bits[DEPTH * COLUMNS / 16];
    cop_rng_key keys[COLUMNS];
    uint32_t samples[COLUMNS];
    int32_t labels[COLUMNS], argmax[COLUMNS];
    float loss[COLUMNS], bias[DEPTH];
    cop_sha256 hash;
    void *workspace;
} test_state;

/* Fills x with values from Philox between -2 and 2, of very different magnitudes. Some are 0 or -0.
 */
static void fill(float *x, size_t count, uint32_t stream) {
    for (size_t i = 0; i < count; i += 4) {
        uint32_t out[4], counter[4] = {(uint32_t)i, stream, 0, 0};
        cop_philox(counter, (cop_rng_key){{0x636f7070, 0x69636531}}, out);
        for (size_t l = 0; l < 4 && i + l < count; l++) {
            const float unit = (float)((int32_t)out[l] >> 8) * 0x1p-22f;
            x[i + l] = out[l] % 61 < 2 ? (out[l] % 61 ? -0.0f : 0.0f)
                                       : unit * (1.0f / (float)(1u << (out[l] & 7)));
        }
    }
}

static void hash_bytes(test_state *t, const void *data, size_t size) {
    cop_sha256_update(&t->hash, data, size);
}

static void hash_floats(test_state *t, const float *x, size_t count) {
    hash_bytes(t, x, count * sizeof *x);
}

/* Computes one product and hashes C without its padding columns. */
static void run_product(test_state *t, const cop_kernels *kernels, const cop_gemm *g) {
    kernels->gemm(g, t->workspace);
    for (int i = 0; i < g->m; i++) hash_floats(t, g->c + i * g->ldc, (size_t)g->n);
}

/* Computes a product in C by gemm and in `skipped` by gemm_sparse, and hashes the latter only if it
 * differs. A product that gemm_sparse refuses differs. */
static void run_sparse_product(test_state *t, const cop_kernels *kernels, const cop_gemm *g,
                               float *skipped) {
    cop_gemm sparse = *g;
    sparse.c = skipped;
    const size_t row = (size_t)g->n * sizeof *skipped;
    memset(skipped, 0xff, FLOATS * sizeof *skipped);
    kernels->gemm(g, t->workspace);
    (void)kernels->gemm_sparse(&sparse, t->workspace);
    for (int i = 0; i < g->m; i++)
        if (memcmp(g->c + i * g->ldc, skipped + i * g->ldc, row) != 0)
            hash_bytes(t, skipped + i * g->ldc, row);
}

static void run_functions(test_state *t) {
    for (int i = 0; i < 64; i++) {
        const double x = (i - 31.5) * 0.83;
        double values[8] = {cop_exp(x),
                            cop_ln(x * x),
                            cop_sin(x * 17.0),
                            cop_cos(x * 1001.0),
                            cop_tanh(x * 0.11),
                            cop_power(1.0 + x * 0x1p-6, 37),
                            0.0,
                            0.0};
        cop_normal_pair((uint32_t)i * 0x9e3779b9u, (uint32_t)i * 0x85ebca6bu, values + 6);
        hash_bytes(t, values, sizeof values);
    }
}

static void run_products(test_state *t, const cop_kernels *kernels) {
    fill(t->a, FLOATS, 1);
    fill(t->b, FLOATS, 2);
    fill(t->bias, DEPTH, 3);
    const cop_gemm forward = {.m = ROWS,
                              .n = SAMPLES,
                              .k = DEPTH,
                              .a = t->a,
                              .a_row = DEPTH,
                              .a_col = 1,
                              .b = t->b,
                              .b_row = COLUMNS,
                              .b_col = 1,
                              .c = t->c,
                              .ldc = COLUMNS,
                              .bias = t->bias};
    run_product(t, kernels, &forward);
    const cop_gemm input = {.m = DEPTH,
                            .n = SAMPLES,
                            .k = ROWS,
                            .a = t->a,
                            .a_row = 1,
                            .a_col = DEPTH,
                            .b = t->c,
                            .b_row = COLUMNS,
                            .b_col = 1,
                            .c = t->d,
                            .ldc = COLUMNS};
    run_product(t, kernels, &input);
    const cop_gemm weight = {.m = ROWS,
                             .n = DEPTH,
                             .k = SAMPLES,
                             .a = t->c,
                             .a_row = COLUMNS,
                             .a_col = 1,
                             .b = t->b,
                             .b_row = 1,
                             .b_col = COLUMNS,
                             .c = t->d,
                             .ldc = DEPTH,
                             .segments = segments,
                             .segment_count = 4};
    run_product(t, kernels, &weight);
    kernels->row_sums(t->c, ROWS, COLUMNS, segments, 4, t->bias);
    hash_floats(t, t->bias, ROWS);
}

/* Products that skip zeros, with two of three elements of the sparse operand 0: B in a product
 * without segments, A in one with segments. */
static void run_sparse_products(test_state *t, const cop_kernels *kernels) {
    enum { SPARSE_ROWS = 70, STRIDE = 160 }; /* the rows of A overlap */
    _Static_assert(SPARSE_ROWS * STRIDE + DEPTH <= FLOATS, "A fits");
    fill(t->a, FLOATS, 4);
    fill(t->b, FLOATS, 5);
    for (int i = 0; i < FLOATS; i++)
        if (i % 3) t->b[i] = i % 2 ? 0.0f : -0.0f;
    const cop_gemm forward = {.m = SPARSE_ROWS,
                              .n = SAMPLES,
                              .k = DEPTH,
                              .a = t->a,
                              .a_row = STRIDE,
                              .a_col = 1,
                              .b = t->b,
                              .b_row = COLUMNS,
                              .b_col = 1,
                              .c = t->c,
                              .ldc = COLUMNS};
    run_sparse_product(t, kernels, &forward, t->d);
    const cop_gemm weight = {.m = ROWS,
                             .n = DEPTH,
                             .k = SAMPLES,
                             .a = t->b,
                             .a_row = COLUMNS,
                             .a_col = 1,
                             .b = t->a,
                             .b_row = 1,
                             .b_col = COLUMNS,
                             .c = t->c,
                             .ldc = DEPTH,
                             .segments = segments,
                             .segment_count = 4};
    run_sparse_product(t, kernels, &weight, t->d);
}

static void run_masks(test_state *t, const cop_kernels *kernels) {
    for (int c = 0; c < COLUMNS; c++) {
        t->keys[c] = cop_rng_derive(7, COP_RNG_MASK, (uint32_t)c / 16);
        t->samples[c] = (uint32_t)c % 16;
    }
    cop_mask_request request = {.units = DEPTH,
                                .ld = COLUMNS,
                                .keys = t->keys,
                                .samples = t->samples,
                                .layer = 3,
                                .step = 11,
                                .bits = t->bits};
    static const uint32_t thresholds[] = {32768, 13107};
    for (int i = 0; i < 2; i++) {
        request.threshold = thresholds[i];
        kernels->mask_fill(&request);
        hash_bytes(t, t->bits, sizeof t->bits);
        kernels->mask_apply(t->bits, t->b, 1.25f, t->d, FLOATS);
        hash_floats(t, t->d, FLOATS);
    }
}

static void run_elementwise(test_state *t, const cop_kernels *kernels) {
    for (int i = 0; i < SAMPLES * ROWS; i++) t->bytes[i] = (uint8_t)(i * 37 % 251);
    const cop_sample_rows bytes = {t->bytes, ROWS, SAMPLES, ROWS};
    kernels->load_u8(&bytes, t->d, COLUMNS);
    hash_floats(t, t->d, (size_t)ROWS * COLUMNS);
    const cop_sample_rows floats = {t->a, DEPTH * sizeof(float), ROWS, DEPTH};
    kernels->load_f32(&floats, t->d, COLUMNS);
    hash_floats(t, t->d, FLOATS);
    kernels->relu(t->b, t->c, FLOATS);
    kernels->relu_backward(t->c, t->a, t->d, FLOATS);
    hash_floats(t, t->c, FLOATS);
    hash_floats(t, t->d, FLOATS);
    kernels->scale(t->a, 0.3f, t->d, FLOATS - 5);
    hash_floats(t, t->d, FLOATS - 5);
    const double norm = kernels->sum_squares(t->a, FLOATS - 3);
    hash_bytes(t, &norm, sizeof norm);
    const unsigned char finite = kernels->all_finite(t->a, FLOATS);
    hash_bytes(t, &finite, 1);
}

static void run_loss(test_state *t, const cop_kernels *kernels) {
    for (int c = 0; c < COLUMNS; c++) t->labels[c] = c % 10;
    cop_cross_entropy loss = {.classes = 10,
                              .columns = SAMPLES,
                              .ld = COLUMNS,
                              .z = t->b,
                              .labels = t->labels,
                              .dz = t->d,
                              .loss = t->loss,
                              .argmax = t->argmax};
    for (int i = 0; i < 2; i++) {
        loss.smoothing = i ? 0.1f : 0.0f;
        kernels->softmax_cross_entropy(&loss);
        hash_floats(t, t->d, 10 * COLUMNS);
        hash_floats(t, t->loss, SAMPLES);
        hash_bytes(t, t->argmax, SAMPLES * sizeof(int32_t));
    }
    kernels->softmax(t->b, 10, COLUMNS, t->d);
    hash_floats(t, t->d, 10 * COLUMNS);
}

static void run_update(test_state *t, const cop_kernels *kernels) {
    const float *inputs[3] = {t->a, t->b, t->a + 1000};
    int16_t ops[5];
    const int length = cop_tree_build(3, NULL, ops);
    cop_tree tree = {3, length, ops};
    enum { UPDATE_ROWS = 20, UPDATE_COLS = 333, COUNT = UPDATE_ROWS * UPDATE_COLS };
    kernels->tree_sum(inputs, &tree, t->d, COUNT);
    hash_floats(t, t->d, COUNT);
    memcpy(t->c, t->b + 5000, COUNT * sizeof(float));
    cop_sgd update = {.gradients = inputs,
                      .tree = &tree,
                      .w_in = t->c,
                      .w_out = t->c,
                      .velocity = t->d,
                      .cols = UPDATE_COLS,
                      .batch = 45.0f,
                      .rate = 0.07f,
                      .momentum = 0.9f,
                      .max_norm = 7.0f,
                      .first = true};
    for (int i = 0; i < 3; i++) {
        kernels->sgd(&update, 0, UPDATE_ROWS);
        hash_floats(t, t->c, COUNT);
        hash_floats(t, t->d, COUNT);
        update.first = false;
        if (i == 1) update.weight_decay = 1e-3f, update.l1 = 1e-4f, update.nesterov = true;
    }
}

cop_err cop_self_test(const cop_kernels *kernels, unsigned char digest[32], cop_error *error) {
    cop_compute_thread_init();
    test_state *t = cop_alloc(sizeof *t);
    if (t) t->workspace = cop_alloc_raw(COP_GEMM_WORKSPACE);
    if (!t || !t->workspace) {
        cop_free(t);
        return cop_fail(error, COP_ERR_NO_MEMORY, "self-test: out of memory");
    }
    cop_sha256_init(&t->hash);
    run_functions(t);
    run_products(t, kernels);
    run_masks(t, kernels);
    run_elementwise(t, kernels);
    run_loss(t, kernels);
    run_update(t, kernels);
    run_sparse_products(t, kernels);
    cop_sha256_final(&t->hash, digest);
    cop_free(t->workspace);
    cop_free(t);
    char text[65];
    cop_hex32(digest, text);
    if (strcmp(text, golden) == 0) return COP_OK;
    return cop_fail(error, COP_ERR_CORRUPT,
                    "self-test: the arithmetic of this machine (%s) differs from portable-1: "
                    "digest %s, expected %s",
                    kernels->name, text, golden);
}
