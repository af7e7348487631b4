/* The self-test of D9: runs the kernels, the functions of base/real.h and Philox on fixed input and
 * compares one digest with the golden one of portable-1. Every program calls it when it starts, and
 * the tests call it for each instruction set. The digest depends on the arithmetic alone. */
#include "common/kernels/kernel.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/real.h"

/* Changes only with a new version of the numerics (D4). */
static const char golden[] = "68bbf6c65b2b9c4d08f1fe9c609139ab2383c5b687d9919d9934a6c643de8299";

enum { ROWS = 37, DEPTH = 300, COLUMNS = 48, SAMPLES = 45, FLOATS = DEPTH * COLUMNS };
static const int segments[] = {0, 16, 16, 29, 45};

typedef struct arena {
    float a[FLOATS], b[FLOATS], c[FLOATS], d[FLOATS];
    uint8_t bytes[SAMPLES * ROWS];
    uint16_t bits[DEPTH * COLUMNS / 16];
    cop_rng_key keys[COLUMNS];
    uint32_t samples[COLUMNS];
    int32_t labels[COLUMNS], argmax[COLUMNS];
    float loss[COLUMNS], bias[DEPTH];
    cop_sha256 hash;
    void *workspace;
} arena;

/* Values in (-2, 2) from Philox, with magnitudes down to 2^-12; some are 0 or -0. */
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

static void absorb(arena *t, const void *data, size_t size) {
    cop_sha256_update(&t->hash, data, size);
}

static void absorb_rows(arena *t, const float *x, int rows, int columns, int ld) {
    for (int r = 0; r < rows; r++)
        absorb(t, x + (size_t)r * (size_t)ld, (size_t)columns * sizeof(float));
}

static void run_functions(arena *t) {
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
        absorb(t, values, sizeof values);
    }
}

static void run_products(arena *t, const cop_kernels *kernels) {
    fill(t->a, FLOATS, 1);
    fill(t->b, FLOATS, 2);
    fill(t->bias, DEPTH, 3);
    cop_gemm forward = {.m = ROWS,
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
    kernels->gemm(&forward, t->workspace);
    absorb_rows(t, t->c, ROWS, SAMPLES, COLUMNS);
    cop_gemm input = {.m = DEPTH,
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
    kernels->gemm(&input, t->workspace);
    absorb_rows(t, t->d, DEPTH, SAMPLES, COLUMNS);
    cop_gemm weight = {.m = ROWS,
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
    kernels->gemm(&weight, t->workspace);
    absorb_rows(t, t->d, ROWS, DEPTH, DEPTH);
    kernels->row_sums(t->c, ROWS, COLUMNS, segments, 4, t->bias);
    absorb(t, t->bias, ROWS * sizeof(float));
}

static void run_masks(arena *t, const cop_kernels *kernels) {
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
        absorb(t, t->bits, sizeof t->bits);
        kernels->mask_apply(t->bits, t->b, 1.25f, t->d, DEPTH, COLUMNS);
        absorb(t, t->d, sizeof t->d);
    }
}

static void run_elementwise(arena *t, const cop_kernels *kernels) {
    for (int i = 0; i < SAMPLES * ROWS; i++) t->bytes[i] = (uint8_t)(i * 37 % 251);
    kernels->load_u8(t->bytes, ROWS, SAMPLES, ROWS, t->d, COLUMNS);
    absorb(t, t->d, (size_t)ROWS * COLUMNS * sizeof(float));
    kernels->load_f32(t->a, DEPTH * sizeof(float), ROWS, DEPTH, t->d, COLUMNS);
    absorb(t, t->d, sizeof t->d);
    kernels->relu(t->b, t->c, FLOATS);
    kernels->relu_backward(t->c, t->a, t->d, FLOATS);
    absorb(t, t->c, sizeof t->c);
    absorb(t, t->d, sizeof t->d);
    kernels->scale(t->a, 0.3f, t->d, FLOATS - 5);
    absorb(t, t->d, (FLOATS - 5) * sizeof(float));
    const double norm = kernels->sum_squares(t->a, FLOATS - 3);
    absorb(t, &norm, sizeof norm);
    const unsigned char finite = kernels->all_finite(t->a, FLOATS);
    absorb(t, &finite, 1);
}

static void run_loss(arena *t, const cop_kernels *kernels) {
    for (int c = 0; c < COLUMNS; c++) t->labels[c] = c % 10;
    for (int i = 0; i < 2; i++) {
        kernels->softmax_cross_entropy(t->b, 10, SAMPLES, COLUMNS, t->labels, i ? 0.1f : 0.0f, t->d,
                                       t->loss, t->argmax);
        absorb(t, t->d, 10 * COLUMNS * sizeof(float));
        absorb(t, t->loss, SAMPLES * sizeof(float));
        absorb(t, t->argmax, SAMPLES * sizeof(int32_t));
    }
    kernels->softmax(t->b, 10, COLUMNS, t->d);
    absorb(t, t->d, 10 * COLUMNS * sizeof(float));
}

static void run_update(arena *t, const cop_kernels *kernels) {
    const float *inputs[3] = {t->a, t->b, t->a + 1000};
    int16_t ops[5];
    const int length = cop_tree_build(3, NULL, ops);
    cop_tree tree = {3, length, ops};
    enum { UPDATE_ROWS = 20, UPDATE_COLS = 333, COUNT = UPDATE_ROWS * UPDATE_COLS };
    kernels->tree_sum(inputs, &tree, t->d, COUNT);
    absorb(t, t->d, COUNT * sizeof(float));
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
        absorb(t, t->c, COUNT * sizeof(float));
        absorb(t, t->d, COUNT * sizeof(float));
        update.first = false;
        if (i == 1) update.weight_decay = 1e-3f, update.l1 = 1e-4f, update.nesterov = true;
    }
}

cop_err cop_self_test(const cop_kernels *kernels, unsigned char digest[32], cop_error *error) {
    cop_compute_thread_init();
    arena *t = cop_alloc(sizeof *t);
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
