/* Times the f32 products against OpenBLAS on one thread, products that skip zeros against those
 * that do not, the update against a plain copy, and the
 * self-test that runs at every start.
 *
 *   bench-kernels [--isa NAME] [--repeats N] [--only training|generic|sparse|update|selftest]
 *
 * Prints one JSON object per line. Our runs and those of OpenBLAS alternate. "ratio" is the median
 * over the pairs of (OpenBLAS' time / ours), so that other load on the machine disturbs both sides
 * of a pair alike. OPENBLAS_CORETYPE chooses OpenBLAS' kernels; "core" names those that ran. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/kernels/kernel.h"

enum { REPEATS_MAX = 1000 };

typedef struct options {
    const cop_kernels *kernels;
    int repeats;
    const char *only;
} options;

/* The shape of a product and one of four transpositions: N = as stored, T = stored transposed;
 * row-major. */
typedef struct shape {
    int m, n, k;
    char trans[3];
    int segments; /* number of equal segments; 0: none */
} shape;

static double seconds(void) {
    return (double)cop_clock_ns() * 1e-9;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

static float *random_floats(size_t count) {
    float *x = cop_alloc_raw(count * sizeof(float));
    if (!x) abort();
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)state * 0x1p-31f;
    }
    return x;
}

static void bench_shape(const options *o, const shape *s) {
    const bool a_transposed = s->trans[0] == 'T', b_transposed = s->trans[1] == 'T';
    float *a = random_floats((size_t)s->m * (size_t)s->k),
          *b = random_floats((size_t)s->k * (size_t)s->n);
    float *c = random_floats((size_t)s->m * (size_t)s->n),
          *workspace = cop_alloc_raw(COP_GEMM_WORKSPACE);
    if (!workspace) abort();
    const int lda = a_transposed ? s->m : s->k, ldb = b_transposed ? s->k : s->n;
    int segments[65] = {0};
    for (int i = 1; i <= s->segments; i++) segments[i] = (int)((int64_t)s->k * i / s->segments);
    const cop_gemm g = {.m = s->m,
                        .n = s->n,
                        .k = s->k,
                        .a = a,
                        .a_row = a_transposed ? 1 : lda,
                        .a_col = a_transposed ? lda : 1,
                        .b = b,
                        .b_row = b_transposed ? 1 : ldb,
                        .b_col = b_transposed ? ldb : 1,
                        .c = c,
                        .ldc = s->n,
                        .segments = s->segments ? segments : NULL,
                        .segment_count = s->segments};
    static double ours[REPEATS_MAX], theirs[REPEATS_MAX], ratios[REPEATS_MAX];
    for (int r = -1; r < o->repeats; r++) { /* the first pair only warms up */
        const double t0 = seconds();
        o->kernels->gemm(&g, workspace);
        const double t1 = seconds();
        cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans,
                    b_transposed ? CblasTrans : CblasNoTrans, s->m, s->n, s->k, 1.0f, a, lda, b,
                    ldb, 0.0f, c, s->n);
        const double t2 = seconds();
        if (r < 0) continue;
        ours[r] = t1 - t0;
        theirs[r] = t2 - t1;
        ratios[r] = theirs[r] / ours[r];
    }
    const double flop = 2.0 * s->m * s->n * s->k * 1e-9;
    printf("{\"m\":%d,\"n\":%d,\"k\":%d,\"trans\":\"%s\",\"segments\":%d,\"isa\":\"%s\",\"core\":"
           "\"%s\","
           "\"gflops\":%.1f,\"openblas_gflops\":%.1f,\"ratio\":%.3f}\n",
           s->m, s->n, s->k, s->trans, s->segments, o->kernels->name, openblas_get_corename(),
           flop / median(ours, o->repeats), flop / median(theirs, o->repeats),
           median(ratios, o->repeats));
    fflush(stdout);
    cop_free(a);
    cop_free(b);
    cop_free(c);
    cop_free(workspace);
}

/* The products of one step of 784-1024-1024-1024-10 on 16 to 128 columns. OpenBLAS runs the
 * segmented ones without segments. */
static void bench_training(const options *o) {
    static const int columns[] = {16, 32, 64, 128};
    for (int i = 0; i < 4; i++) {
        const int n = columns[i], segments = n / 16;
        const shape shapes[] = {
            {1024, n, 784, "NN", 0},         {1024, n, 1024, "NN", 0},
            {10, n, 1024, "NN", 0},          {1024, n, 1024, "TN", 0},
            {1024, n, 10, "TN", 0},          {1024, 784, n, "NT", segments},
            {1024, 1024, n, "NT", segments}, {10, 1024, n, "NT", segments},
        };
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) bench_shape(o, &shapes[s]);
    }
}

static void bench_generic(const options *o) {
    static const int ms[] = {16, 32, 64, 128, 512}, sizes[] = {784, 1024, 4096};
    static const char transpositions[][3] = {"NN", "NT", "TN", "TT"};
    for (int m = 0; m < 5; m++)
        for (int size = 0; size < 3; size++)
            for (int t = 0; t < 4; t++) {
                shape s = {ms[m], sizes[size], sizes[size], "", 0};
                memcpy(s.trans, transpositions[t], 3);
                bench_shape(o, &s);
            }
}

/* A product with zeros: `sixteenths` sixteenths of the sparse operand are not 0. That is A if there
 * are segments, else B. "ratio" is gemm's time divided by that of gemm_sparse. */
static void bench_sparse_product(const options *o, const shape *s, int sixteenths) {
    const size_t a_count = (size_t)s->m * (size_t)s->k, b_count = (size_t)s->k * (size_t)s->n;
    float *a = random_floats(a_count), *b = random_floats(b_count);
    float *c = random_floats((size_t)s->m * (size_t)s->n);
    float *thin = s->segments ? a : b, *workspace = cop_alloc_raw(COP_GEMM_WORKSPACE);
    if (!workspace) abort();
    uint32_t state = 7;
    for (size_t i = 0; i < (s->segments ? a_count : b_count); i++) {
        state = state * 1664525u + 1013904223u;
        if ((int)(state >> 28) >= sixteenths) thin[i] = 0.0f;
    }
    int segments[65] = {0};
    for (int i = 1; i <= s->segments; i++) segments[i] = (int)((int64_t)s->k * i / s->segments);
    const cop_gemm g = {.m = s->m,
                        .n = s->n,
                        .k = s->k,
                        .a = a,
                        .a_row = s->trans[0] == 'T' ? 1 : s->k,
                        .a_col = s->trans[0] == 'T' ? s->m : 1,
                        .b = b,
                        .b_row = s->trans[1] == 'T' ? 1 : s->n,
                        .b_col = s->trans[1] == 'T' ? s->k : 1,
                        .c = c,
                        .ldc = s->n,
                        .segments = s->segments ? segments : NULL,
                        .segment_count = s->segments};
    static double skipping[REPEATS_MAX], ratios[REPEATS_MAX];
    bool skips = true;
    for (int r = -1; r < o->repeats; r++) {
        const double t0 = seconds();
        skips = o->kernels->gemm_sparse(&g, workspace) && skips;
        const double t1 = seconds();
        o->kernels->gemm(&g, workspace);
        const double t2 = seconds();
        if (r < 0) continue;
        skipping[r] = t1 - t0;
        ratios[r] = (t2 - t1) / (t1 - t0);
    }
    printf("{\"m\":%d,\"n\":%d,\"k\":%d,\"trans\":\"%s\",\"segments\":%d,\"isa\":\"%s\","
           "\"density\":%.4f,\"skips\":%s,\"us\":%.1f,\"ratio\":%.3f}\n",
           s->m, s->n, s->k, s->trans, s->segments, o->kernels->name, sixteenths / 16.0,
           skips ? "true" : "false", median(skipping, o->repeats) * 1e6,
           median(ratios, o->repeats));
    fflush(stdout);
    cop_free(a);
    cop_free(b);
    cop_free(c);
    cop_free(workspace);
}

/* The three products of a layer of 1024 units: forward, gradient of the input, of the weights. */
static void bench_sparse(const options *o) {
    static const int densities[] = {2, 4, 8, 9};
    for (int n = 64; n <= 128; n *= 2)
        for (int d = 0; d < 4; d++) {
            const shape shapes[] = {
                {1024, n, 1024, "NN", 0}, {1024, n, 1024, "TN", 0}, {1024, 1024, n, "NT", n / 16}};
            for (int i = 0; i < 3; i++) bench_sparse_product(o, &shapes[i], densities[d]);
        }
}

/* SGD with momentum over 2.9 M weights: reads 3 buffers, writes 2. Compares its bytes per second
 * with those of memcpy. */
static void bench_update(const options *o) {
    enum { ROWS = 2832, COLS = 1024 };
    const size_t count = (size_t)ROWS * COLS;
    float *gradient = random_floats(count), *w = random_floats(count), *v = random_floats(count);
    float *other = random_floats(count);
    int16_t ops[1] = {0};
    const cop_tree tree = {1, 1, ops};
    const float *gradients[1] = {gradient};
    for (int max_norm = 0; max_norm < 2; max_norm++) {
        const cop_sgd update = {.gradients = gradients,
                                .tree = &tree,
                                .w_in = w,
                                .w_out = w,
                                .velocity = v,
                                .cols = COLS,
                                .batch = 128.0f,
                                .rate = 1e-3f,
                                .momentum = 0.9f,
                                .max_norm = max_norm ? 1e3f : 0.0f};
        static double ours[REPEATS_MAX], copies[REPEATS_MAX], ratios[REPEATS_MAX];
        for (int r = -1; r < o->repeats; r++) {
            const double t0 = seconds();
            o->kernels->sgd(&update, 0, ROWS);
            const double t1 = seconds();
            memcpy(other, gradient, count * sizeof(float));
            const double t2 = seconds();
            if (r < 0) continue;
            ours[r] = t1 - t0;
            copies[r] = t2 - t1;
            ratios[r] = (20.0 / ours[r]) / (8.0 / copies[r]);
        }
        printf(
            "{\"update\":\"sgd\",\"max_norm\":%s,\"weights\":%zu,\"isa\":\"%s\",\"gb_per_s\":%.1f,"
            "\"copy_gb_per_s\":%.1f,\"ratio\":%.3f}\n",
            max_norm ? "true" : "false", count, o->kernels->name,
            (double)count * 20e-9 / median(ours, o->repeats),
            (double)count * 8e-9 / median(copies, o->repeats), median(ratios, o->repeats));
    }
    cop_free(gradient);
    cop_free(w);
    cop_free(v);
    cop_free(other);
}

static int usage(void) {
    fprintf(stderr, "usage: bench-kernels [--isa NAME] [--repeats N] [--only "
                    "training|generic|sparse|update|selftest]\n");
    return 2;
}

/* D9 requires less than 20 ms. */
static void bench_self_test(const options *o) {
    unsigned char digest[32];
    double ms[REPEATS_MAX];
    for (int i = 0; i < o->repeats; i++) {
        const uint64_t start = cop_clock_ns();
        COP_ASSERT(cop_self_test(o->kernels, digest, NULL) == COP_OK);
        ms[i] = (double)(cop_clock_ns() - start) * 1e-6;
    }
    printf("{\"what\":\"self-test\",\"isa\":\"%s\",\"ms\":%.2f}\n", o->kernels->name,
           median(ms, o->repeats));
}

int main(int argc, char **argv) {
    options o = {.repeats = 21, .only = ""};
    cop_error error = {0};
    if (cop_kernels_choose(&o.kernels, &error) != COP_OK) {
        fprintf(stderr, "bench-kernels: %s\n", error.text);
        return cop_err_exit_status(error.code);
    }
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) return usage();
        if (strcmp(argv[i], "--isa") == 0)
            o.kernels = cop_kernels_find(argv[i + 1]);
        else if (strcmp(argv[i], "--repeats") == 0)
            o.repeats = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--only") == 0)
            o.only = argv[i + 1];
        else
            return usage();
    }
    if (!o.kernels || o.repeats < 1 || o.repeats > REPEATS_MAX) return usage();
    cop_compute_thread_init();
    openblas_set_num_threads(1);
    if (!*o.only || strcmp(o.only, "training") == 0) bench_training(&o);
    if (!*o.only || strcmp(o.only, "sparse") == 0) bench_sparse(&o);
    if (!*o.only || strcmp(o.only, "update") == 0) bench_update(&o);
    if (!*o.only || strcmp(o.only, "generic") == 0) bench_generic(&o);
    if (!*o.only || strcmp(o.only, "selftest") == 0) bench_self_test(&o);
    return 0;
}
