/* `numerics: openblas`: computes the product that cop_gemm describes by OpenBLAS on one thread, but
 * in the order of OpenBLAS. Each segment is one product; the tree of D5 combines them, then the
 * bias is added. The bits depend on the CPU and the version of OpenBLAS, so a job pins the
 * fingerprint that this file reports (D4). This file also selects between the two numerics.
 *
 * OpenBLAS is loaded when a job first needs it. Its initialisation allocates a stack and a buffer
 * for each of its threads, and retries for ever if there is no memory. So it gets only one thread,
 * and it is not loaded if the process may not use enough address space for it. */
#include "common/kernels/kernel.h"

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/tree_counter.h"

#define LIBRARY       "libopenblas.so.0"
#define ADDRESS_SPACE ((size_t)512 << 20) /* the library and its buffer for one thread */

static struct {
    pthread_once_t once;
    char failure[400]; /* why OpenBLAS cannot be used; "" if it is loaded */
    __typeof__(cblas_sgemm) *sgemm;
    __typeof__(openblas_set_num_threads) *set_num_threads;
    __typeof__(openblas_get_config) *get_config;
    __typeof__(openblas_get_corename) *get_corename;
} openblas = {.once = PTHREAD_ONCE_INIT};

/* OpenBLAS reads this variable while it is being loaded. At that time, other threads may be reading
 * the environment. So the variable is set before main, when there are no other threads. */
__attribute__((constructor)) static void limit_threads(void) {
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
}

/* Stores the address of a function in *out. If the library lacks the function, sets
 * openblas.failure and returns false. */
static bool find_symbol(void *library, const char *name, void *out) {
    void *symbol = dlsym(library, name);
    if (symbol)
        memcpy(out, &symbol, sizeof symbol);
    else
        snprintf(openblas.failure, sizeof openblas.failure, "%s has no %s", LIBRARY, name);
    return symbol != NULL;
}

static void load_openblas(void) {
    void *room = mmap(NULL, ADDRESS_SPACE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        snprintf(openblas.failure, sizeof openblas.failure,
                 "OpenBLAS needs %zu MB of address space (ulimit -v)", ADDRESS_SPACE >> 20);
        return;
    }
    munmap(room, ADDRESS_SPACE);
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        snprintf(openblas.failure, sizeof openblas.failure, "cannot load OpenBLAS: %s", dlerror());
    if (library && find_symbol(library, "cblas_sgemm", &openblas.sgemm) &&
        find_symbol(library, "openblas_set_num_threads", &openblas.set_num_threads) &&
        find_symbol(library, "openblas_get_config", &openblas.get_config) &&
        find_symbol(library, "openblas_get_corename", &openblas.get_corename))
        openblas.set_num_threads(1);
}

cop_err cop_numerics_load(cop_numerics numerics, cop_error *error) {
    if (numerics != COP_NUMERICS_OPENBLAS) return COP_OK;
    pthread_once(&openblas.once, load_openblas);
    if (!openblas.failure[0]) return COP_OK;
    return cop_fail(error, COP_ERR_UNSUPPORTED, "numerics: openblas: %s", openblas.failure);
}

/* A part of a product: rows [row, row + rows) of C and k in [from, to). */
typedef struct gemm_part {
    int row, rows, from, to;
} gemm_part;

/* Computes one part of the product, without the bias, into `out`, whose leading dimension is ldout.
 */
static void multiply_part(const cop_gemm *g, const gemm_part *part, float *out, ptrdiff_t ldout) {
    const int rows = part->rows, depth = part->to - part->from;
    const bool a_plain = g->a_col == 1 || g->k == 1; /* rows of A are contiguous */
    const bool b_plain = g->b_col == 1 || g->n == 1;
    const float *a = g->a + part->row * g->a_row + part->from * g->a_col;
    const float *b = g->b + part->from * g->b_row;
    /* If there is only one row or column, its stride is unused and may have any value. But OpenBLAS
     * refuses a stride below the minimum. */
    const ptrdiff_t lda = a_plain ? g->a_row : g->a_col, ldb = b_plain ? g->b_row : g->b_col;
    const ptrdiff_t lda_min = a_plain ? depth : rows, ldb_min = b_plain ? g->n : depth;
    openblas.sgemm(CblasRowMajor, a_plain ? CblasNoTrans : CblasTrans,
                   b_plain ? CblasNoTrans : CblasTrans, rows, g->n, depth, 1.0f, a,
                   (int)(lda > lda_min ? lda : lda_min), b, (int)(ldb > ldb_min ? ldb : ldb_min),
                   0.0f, out, (int)ldout);
}

static void round_nodes(float *values, size_t size) {
    for (size_t i = 0; i < size; i++) values[i] = cop_bf16_round(values[i]) + 0.0f;
}

/* Adds the top two values of the stack, which has `depth` values of `size` floats. */
static void add_top(const cop_gemm *g, float *stack, size_t size, int depth) {
    COP_ASSERT(depth >= 2);
    float *left = stack + (size_t)(depth - 2) * size;
    const float *right = left + size;
    for (size_t i = 0; i < size; i++) left[i] += right[i];
    if (g->round_nodes) round_nodes(left, size);
}

/* Computes rows [row, row + rows) of a product with segments. The values of D5's tree wait on
 * `stack`, which is in the workspace. */
static void multiply_segmented_rows(const cop_gemm *g, int row, int rows, float *stack) {
    const size_t size = (size_t)rows * (size_t)g->n;
    cop_tree_counter counter = {0};
    for (int s = 0; s < g->segment_count; s++) {
        const gemm_part part = {row, rows, g->segments[s], g->segments[s + 1]};
        const bool present = part.from < part.to;
        COP_ASSERT(part.from <= part.to && counter.depth <= COP_TREE_DEPTH);
        float *leaf = stack + (size_t)counter.depth * size;
        if (present) multiply_part(g, &part, leaf, g->n);
        if (present && g->round_nodes) round_nodes(leaf, size);
        for (int merges = cop_tree_counter_push(&counter, present); merges > 0; merges--)
            add_top(g, stack, size, counter.depth--);
    }
    while (counter.depth > 1) add_top(g, stack, size, counter.depth--);
    if (counter.depth == 0) memset(stack, 0, size * sizeof(float));
    for (int i = 0; i < rows; i++)
        memcpy(g->c + (row + i) * g->ldc, stack + (size_t)i * (size_t)g->n,
               (size_t)g->n * sizeof(float));
}

/* Computes a product with segments, as many rows at a time as the workspace holds. If it does not
 * hold one row, splits the product by columns. */
static void multiply_segmented(const cop_gemm *g, void *workspace) {
    const size_t room = COP_GEMM_WORKSPACE / sizeof(float) / (COP_TREE_DEPTH + 1);
    if ((size_t)g->n > room) {
        cop_gemm part = *g;
        part.bias = NULL;
        for (int j = 0; j < g->n; j += part.n) {
            part.n = g->n - j < (int)room ? g->n - j : (int)room;
            part.b = g->b + j * g->b_col;
            part.c = g->c + j;
            multiply_segmented(&part, workspace);
        }
        return;
    }
    const int step = (int)(room / (size_t)g->n);
    for (int row = 0; row < g->m; row += step)
        multiply_segmented_rows(g, row, g->m - row < step ? g->m - row : step, workspace);
}

static void gemm_openblas(const cop_kernels *kernels, const cop_gemm *g, void *workspace) {
    (void)kernels;
    COP_ASSERT(openblas.sgemm && g->m >= 1 && g->n >= 1 && g->k >= 0 && g->ldc >= g->n);
    COP_ASSERT(!(g->segments && g->blocks) && g->c != g->a && g->c != g->b);
    COP_ASSERT(!g->segments || (g->segment_count >= 1 && g->segments[0] == 0 &&
                                g->segments[g->segment_count] == g->k));
    if (g->segments) {
        multiply_segmented(g, workspace);
    } else if (g->k > 0) {
        multiply_part(g, &(gemm_part){0, g->m, 0, g->k}, g->c, g->ldc);
    } else {
        for (int i = 0; i < g->m; i++) memset(g->c + i * g->ldc, 0, (size_t)g->n * sizeof(float));
    }
    for (int i = 0; g->bias && i < g->m; i++)
        for (int j = 0; j < g->n; j++) g->c[i * g->ldc + j] += g->bias[i];
}

static void gemm_portable(const cop_kernels *kernels, const cop_gemm *g, void *workspace) {
    kernels->gemm(g, workspace);
}

cop_gemm_fn cop_gemm_for(cop_numerics numerics) {
    if (numerics != COP_NUMERICS_OPENBLAS) return gemm_portable;
    return gemm_openblas;
}

const char *cop_numerics_fingerprint(cop_numerics numerics, char out[128]) {
    if (numerics != COP_NUMERICS_OPENBLAS) {
        snprintf(out, 128, "portable-1");
        return out;
    }
    out[0] = '\0';
    if (cop_numerics_load(numerics, NULL)) return out;
    /* The text is like "OpenBLAS 0.3.29 DYNAMIC_ARCH ..."; its second word is the version. */
    char version[32] = "";
    if (sscanf(openblas.get_config(), "%*31s %31s", version) != 1) version[0] = '\0';
    snprintf(out, 128, "openblas %s %.64s threads 1", version[0] ? version : "unknown",
             openblas.get_corename());
    return out;
}
