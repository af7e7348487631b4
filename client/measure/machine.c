/* Measures the speed that this machine reaches in dense products of the sizes of a job's layers,
 * and in sums of large arrays. See step_times.h. */
#include <string.h>

#include "client/measure/step_times.h"
#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/thread_pool.h"
#include "common/kernels/kernel.h"

#define MEASURE_NS  8000000u /* time for each measurement */
#define REPEATS_MAX 200
#define FLOATS_MIN  4096
#define FLOATS_MAX  (16 << 20)

/* A measurement that runs on several threads at once. */
typedef struct bench {
    cop_task task; /* must be the first field; one part is one thread's share */
    const cop_kernels *kernels;
    cop_gemm_fn gemm;
    cop_gemm product; /* the product of each thread; its pointers are those of thread 0 */
    float *a, *b, *c; /* the matrices of all threads, one after the other */
    size_t a_size, b_size, c_size;
    char *workspace;
    size_t floats; /* number of floats in each array of a sum */
    float *arrays[3];
} bench;

static void run_product(cop_task *task, int thread, int part) {
    bench *s = (bench *)(void *)task;
    cop_gemm g = s->product;
    (void)thread;
    g.a = s->a + (size_t)part * s->a_size;
    g.b = s->b + (size_t)part * s->b_size;
    g.c = s->c + (size_t)part * s->c_size;
    s->gemm(s->kernels, &g, s->workspace + (size_t)part * COP_GEMM_WORKSPACE);
}

static void run_sum(cop_task *task, int thread, int part) {
    bench *s = (bench *)(void *)task;
    int16_t ops[4];
    const bool present[2] = {true, true};
    (void)thread;
    const cop_tree tree = {.count = 2, .op_count = cop_tree_build(2, present, ops), .ops = ops};
    const size_t first = s->floats * (size_t)part / (size_t)task->parts & ~(size_t)15;
    const size_t last = part + 1 == task->parts
                            ? s->floats
                            : s->floats * (size_t)(part + 1) / (size_t)task->parts & ~(size_t)15;
    const float *inputs[2] = {s->arrays[0] + first, s->arrays[1] + first};
    s->kernels->tree_sum(inputs, &tree, s->arrays[2] + first, last - first);
}

/* Runs the task for about limit_ns. Returns the shortest time of one run, in ns. */
static double shortest(cop_thread_pool *pool, bench *s, int threads, uint64_t limit_ns) {
    uint64_t began = cop_clock_ns(), best = UINT64_MAX;
    for (int i = 0; i < REPEATS_MAX && cop_clock_ns() - began < limit_ns; i++) {
        const uint64_t from = cop_clock_ns();
        s->task.parts = threads;
        cop_parallel_for(pool, &s->task);
        const uint64_t ns = cop_clock_ns() - from;
        if (i && ns < best) best = ns; /* the first run fills the caches */
    }
    return best == UINT64_MAX ? 0 : (double)best;
}

static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = (float)(i % 251) * 0.01f - 1.0f;
}

/* Measures the product of this weight matrix with a batch of t->columns samples. Returns its speed
 * in 10^9 floating-point operations per second and thread; 0: no memory. */
static double measure_product(bench *s, cop_thread_pool *pool, const cop_parameter *weight,
                              const cli_step_times *t) {
    const size_t threads = (size_t)t->threads;
    const int ld = (int)cop_align_up((size_t)t->columns, COP_COLUMNS_PAD);
    s->a_size = cop_align_up((size_t)weight->count, 16);
    s->b_size = (size_t)weight->cols * (size_t)ld;
    s->c_size = (size_t)weight->rows * (size_t)ld;
    float *all = cop_alloc_array(threads * (s->a_size + s->b_size + s->c_size), sizeof *all);
    s->workspace = cop_alloc_array(threads, COP_GEMM_WORKSPACE);
    double gflops = 0;
    if (all && s->workspace) {
        s->a = all;
        s->b = s->a + threads * s->a_size;
        s->c = s->b + threads * s->b_size;
        fill(all, threads * (s->a_size + s->b_size));
        s->product = (cop_gemm){.m = weight->rows,
                                .n = ld,
                                .k = weight->cols,
                                .a_row = weight->cols,
                                .a_col = 1,
                                .b_row = ld,
                                .b_col = 1,
                                .ldc = ld};
        s->task.run = run_product;
        const double ns = shortest(pool, s, t->threads, MEASURE_NS);
        if (ns > 0) gflops = 2.0 * weight->rows * (double)ld * weight->cols / ns;
    }
    cop_free(all);
    cop_free(s->workspace);
    return gflops;
}

/* Measures the sum of two arrays. The arrays and the result are together as large as the memory
 * that an update reads and writes. Returns the speed in GB/s; 0: no memory. */
static double measure_memory(bench *s, cop_thread_pool *pool, const cli_step_times *t) {
    double floats = t->update_bytes / 12;
    if (floats < FLOATS_MIN) floats = FLOATS_MIN;
    if (floats > FLOATS_MAX) floats = FLOATS_MAX;
    s->floats = cop_align_up((size_t)floats, 16);
    float *all = cop_alloc_array(3 * s->floats, sizeof *all);
    double speed = 0;
    if (all) {
        fill(all, 3 * s->floats);
        for (int i = 0; i < 3; i++) s->arrays[i] = all + (size_t)i * s->floats;
        s->task.run = run_sum;
        const double ns = shortest(pool, s, t->threads, 5 * MEASURE_NS);
        if (ns > 0) speed = 12.0 * (double)s->floats / ns;
    }
    cop_free(all);
    return speed;
}

cop_err cli_step_times_compare(const cop_job *job, const cop_kernels *kernels, cli_step_times *t,
                               cop_error *error) {
    cop_thread_pool *pool = NULL;
    bench s = {.kernels = kernels, .gemm = cop_gemm_for(job->numerics)};
    COP_ASSERT(t->threads >= 1 && t->columns >= 1);
    if (t->threads > 1)
        COP_TRY(cop_thread_pool_create(t->threads - 1, cop_compute_thread_init, &pool, error));
    for (int i = 0; i < t->layer_count; i++) {
        const cop_layer *layer = cop_model_layer(job->model, i);
        if (!layer->parameter_count) continue;
        const cop_parameter *weight = cop_model_parameter(job->model, layer->parameter_first);
        t->layers[i].dense_gflops = measure_product(&s, pool, weight, t);
    }
    t->memory_gb_per_s = measure_memory(&s, pool, t);
    cop_thread_pool_destroy(pool);
    return COP_OK;
}
