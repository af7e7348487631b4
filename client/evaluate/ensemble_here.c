/* Evaluates an ensemble in this process. A block is a few members on one slice of samples. The
 * threads take blocks in order and compute the members' outputs. Then each thread waits until the
 * preceding members of the slice have been added to the running averages, and adds its own. So the
 * members of a slice are added in ascending order, and the figures equal those of a pool, bit for
 * bit. */
#include "client/evaluate/ensemble.h"

#include <stddef.h>
#include <stdio.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/thread_pool.h"
#include "common/ensemble/members.h"

#define THREADS_MAX       256
#define BLOCKS_PER_THREAD 4  /* minimum blocks per thread, to balance the load */
#define BLOCKS_PER_SLICE  8  /* minimum blocks per slice, so that results appear gradually */
#define BLOCK_MEMBERS_MAX 16 /* maximum members per block */

typedef struct evaluation {
    cli_ensemble *request;
    const cop_kernels *kernels;
    cli_model model[CLI_POSITIONAL_MAX];
    uint32_t models;
    const cop_data_part *part;
    cop_ensemble_slices *slices; /* the running averages of each slice */
    uint32_t members, slice_count;
    uint32_t block_members; /* members per block; the last block of a slice may have fewer */
    uint32_t block_count;   /* number of blocks in all slices together */
    uint32_t threads;
    /* The mutex guards the fields from `done` to `failure`. */
    uv_mutex_t mutex;
    uv_cond_t slice_advanced;
    uint32_t done;     /* number of blocks added so far */
    uint32_t *reached; /* [slice_count]: number of members added so far */
    cop_ensemble_figures figures[COP_ENSEMBLE_COUNTS_MAX];
    cop_error failure;
    cop_task task;         /* the parts of the task are the blocks */
    struct runner *runner; /* [threads] */
} evaluation;

/* ---- one block ---- */

static cop_samples slice_samples(const evaluation *v, uint32_t slice) {
    const uint32_t first = slice * COP_EVAL_SLICE, left = v->part->count - first;
    COP_ASSERT(slice < v->slice_count && first < v->part->count);
    const cop_job *job = v->model[0].job;
    return (cop_samples){.dtype = job->sample_type,
                         .count = (int)(left < COP_EVAL_SLICE ? left : COP_EVAL_SLICE),
                         .features = (int)job->features,
                         .stride = v->part->stride,
                         .labels = v->part->labels + first,
                         .rows = (const char *)v->part->samples + (size_t)first * v->part->stride};
}

/* The state of one thread. It runs one model at a time. */
typedef struct runner {
    cop_members *members;
    uint32_t model; /* the model that `members` belongs to */
    float *outputs;
} runner;

static cop_err prepare(const evaluation *v, runner *r, uint32_t model, cop_error *error) {
    COP_ASSERT(model < v->models);
    if (r->members && r->model == model) return COP_OK;
    const cop_job *job = v->model[model].job;
    cop_members_destroy(r->members);
    r->model = model;
    return cop_members_create(job->model, v->kernels, job->numerics, &r->members, error);
}

static cop_err compute(const evaluation *v, runner *r, uint32_t block, cop_error *error) {
    const uint32_t slice = block % v->slice_count,
                   first = block / v->slice_count * v->block_members;
    const uint32_t left = v->members - first,
                   count = left < v->block_members ? left : v->block_members;
    COP_ASSERT(block < v->block_count && first < v->members);
    const bool whole = v->request->each_model || !v->request->average;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t model = v->request->each_model ? first + i : 0;
        COP_TRY(prepare(v, r, model, error));
        const cop_member_work work = {
            .weights = v->model[model].flat,
            .place = {.seed = v->model[model].job->seed, .first_sample = slice * COP_EVAL_SLICE},
            .member = whole ? COP_MEMBER_WHOLE : first + i,
            .samples = slice_samples(v, slice)};
        const size_t columns = (size_t)work.samples.count;
        cop_members_run(
            r->members, &work,
            r->outputs + i * columns * (size_t)cop_model_outputs(v->model[0].job->model), columns);
    }
    return COP_OK;
}

/* ---- adding in order, with the mutex locked ---- */

static void print_ready_rows(evaluation *v) {
    char text[80];
    while (
        v->request->printed < v->request->count &&
        cop_ensemble_slices_get(v->slices, v->request->printed, &v->figures[v->request->printed])) {
        Coppice__Api__EnsembleFigures row;
        cop_job_ensemble_row(&v->figures[v->request->printed],
                             v->request->counts[v->request->printed], &row);
        cli_ensemble_row(v->request, &row);
    }
    snprintf(text, sizeof text, "%u of %u members",
             (unsigned)(v->done / v->slice_count * v->block_members), v->members);
    cli_progress_show(&v->request->progress, (double)v->done / v->block_count, text);
}

/* Adds the outputs of a block to the averages of its slice. First waits until the preceding members
 * of the slice have been added. */
static void add(evaluation *v, const runner *r, uint32_t block) {
    const uint32_t slice = block % v->slice_count,
                   first = block / v->slice_count * v->block_members;
    const uint32_t left = v->members - first,
                   count = left < v->block_members ? left : v->block_members;
    while (v->reached[slice] != first && !v->failure.code)
        uv_cond_wait(&v->slice_advanced, &v->mutex);
    if (v->failure.code) return;
    uv_mutex_unlock(&v->mutex); /* this thread owns the slice until it advances `reached` */
    const bool finite = cop_ensemble_slices_add(v->slices, slice, count, r->outputs);
    uv_mutex_lock(&v->mutex);
    v->reached[slice] += count;
    COP_ASSERT(v->reached[slice] <= v->members && v->done < v->block_count);
    v->done++;
    if (!finite)
        cop_fail(&v->failure, COP_ERR_INPUT,
                 "the model has diverged: an output of members %u to %u on samples from %u is not "
                 "finite",
                 first, first + count - 1, slice * COP_EVAL_SLICE);
    uv_cond_broadcast(&v->slice_advanced);
    if (finite) print_ready_rows(v);
}

static void run_block(cop_task *task, int thread, int part) {
    evaluation *v = (evaluation *)(void *)((char *)task - offsetof(evaluation, task));
    const size_t outputs = (size_t)cop_model_outputs(v->model[0].job->model);
    const uint32_t block = (uint32_t)part;
    runner *r = &v->runner[thread];
    cop_error error = {0};
    uv_mutex_lock(&v->mutex);
    const bool failed = v->failure.code != COP_OK;
    uv_mutex_unlock(&v->mutex);
    if (failed) return;
    if (!r->outputs)
        r->outputs = cop_alloc_raw(v->block_members * outputs * COP_EVAL_SLICE * sizeof(float));
    const cop_err e = r->outputs ? compute(v, r, block, &error) : cop_no_memory(&error);
    uv_mutex_lock(&v->mutex);
    if (!e)
        add(v, r, block);
    else if (!v->failure.code)
        v->failure = error;
    if (e) uv_cond_broadcast(&v->slice_advanced);
    uv_mutex_unlock(&v->mutex);
}

static cop_err run_threads(evaluation *v, cop_error *error) {
    cop_thread_pool *pool = NULL;
    v->runner = cop_alloc_array(v->threads, sizeof *v->runner);
    if (!v->runner) return cop_no_memory(error);
    uv_mutex_init(&v->mutex);
    uv_cond_init(&v->slice_advanced);
    /* If the threads cannot be started, the calling thread computes everything. */
    if (v->threads > 1)
        (void)cop_thread_pool_create((int)v->threads - 1, cop_compute_thread_init, &pool, NULL);
    cop_compute_thread_init();
    v->task = (cop_task){.run = run_block, .parts = (int)v->block_count};
    cop_parallel_for(pool, &v->task);
    cop_thread_pool_destroy(pool);
    for (uint32_t i = 0; i < v->threads; i++) {
        cop_members_destroy(v->runner[i].members);
        cop_free(v->runner[i].outputs);
    }
    cop_free(v->runner);
    uv_cond_destroy(&v->slice_advanced);
    uv_mutex_destroy(&v->mutex);
    if (v->failure.code && error) *error = v->failure;
    return v->failure.code;
}

/* ---- models and data ---- */

/* The options of a command with model i as its only argument. */
static cli_options options_for(const evaluation *v, uint32_t i) {
    COP_ASSERT(i < v->request->name_count);
    cli_options one = *v->request->options;
    one.positional[0] = v->request->names[i];
    one.positional_count = 1;
    return one;
}

static cop_err open_models(evaluation *v, cop_error *error) {
    const cli_ensemble *request = v->request;
    for (uint32_t i = 0; i < request->name_count; i++) {
        const cli_options one = options_for(v, i);
        if (cli_is_job(request->names[i]))
            COP_TRY(cli_model_fetch(&one, &v->model[i], error));
        else
            COP_TRY(cli_model_open(request->names[i], &v->model[i], error));
        v->models++;
        if (cop_members_check(v->model[i].job->model, request->average && !request->each_model,
                              error))
            return request->each_model ? cop_error_prefix(error, "%s", request->names[i])
                                       : error->code;
        COP_TRY(cop_job_check_together((cop_named_job){v->model[0].job, request->names[0]},
                                       (cop_named_job){v->model[i].job, request->names[i]},
                                       !request->options->data, error));
    }
    return COP_OK;
}

static void plan(evaluation *v) {
    const int64_t requested = v->request->options->workers;
    const uint64_t threads = requested ? (uint64_t)requested : uv_available_parallelism();
    v->threads = threads < THREADS_MAX ? (uint32_t)threads : THREADS_MAX;
    v->members = v->request->counts[v->request->count - 1];
    v->slice_count = cop_ensemble_slices_count(v->slices);
    uint64_t share = (uint64_t)v->members * v->slice_count / (BLOCKS_PER_THREAD * v->threads);
    if (share > v->members / BLOCKS_PER_SLICE) share = v->members / BLOCKS_PER_SLICE;
    if (share > BLOCK_MEMBERS_MAX) share = BLOCK_MEMBERS_MAX;
    v->block_members = share < 1 || v->request->each_model ? 1 : (uint32_t)share;
    COP_ASSERT(v->threads >= 1 && v->slice_count >= 1);
    v->block_count = (v->members + v->block_members - 1) / v->block_members * v->slice_count;
}

static cop_err create_slices(evaluation *v, cop_error *error) {
    const cop_average average = v->request->average ? v->request->average : COP_AVERAGE_ARITHMETIC;
    cop_ensemble_slices_spec spec = {.average = average,
                                     .classes = cop_model_outputs(v->model[0].job->model),
                                     .samples = v->part->count,
                                     .labels = v->part->labels,
                                     .count = v->request->count};
    for (uint32_t i = 0; i < spec.count; i++) {
        spec.counts[i] = v->request->counts[i];
        COP_ASSERT(i == 0 || spec.counts[i] > spec.counts[i - 1]);
    }
    COP_TRY(cop_ensemble_slices_create(&spec, &v->slices, error));
    v->reached = cop_alloc_array(cop_ensemble_slices_count(v->slices), sizeof *v->reached);
    return v->reached ? COP_OK : cop_no_memory(error);
}

/* ---- the evaluation ---- */

static void print_result(evaluation *v, double seconds) {
    Coppice__Api__EnsembleResult r = COPPICE__API__ENSEMBLE_RESULT__INIT;
    Coppice__Api__EnsembleFigures row[COP_ENSEMBLE_COUNTS_MAX], *rows[COP_ENSEMBLE_COUNTS_MAX];
    Coppice__Api__EnsembleModel model[CLI_POSITIONAL_MAX], *models[CLI_POSITIONAL_MAX];
    COP_ASSERT(v->done == v->block_count && v->request->printed == v->request->count);
    for (uint32_t i = 0; i < v->request->count; i++) {
        cop_job_ensemble_row(&v->figures[i], v->request->counts[i], &row[i]);
        rows[i] = &row[i];
    }
    for (uint32_t i = 0; v->request->each_model && i < v->models; i++, r.n_models++) {
        coppice__api__ensemble_model__init(models[i] = &model[i]);
        model[i].model = (char *)(uintptr_t)v->request->names[i];
        model[i].digest = v->model[i].digest;
    }
    if (!v->request->each_model) r.digest = v->model[0].digest;
    r.average = (char *)(uintptr_t)cop_average_name(v->request->average);
    r.on = (char *)(uintptr_t)"test";
    r.has_samples = r.has_seconds = 1;
    r.samples = v->part->count;
    r.seconds = seconds;
    r.members = rows;
    r.n_members = v->request->count;
    r.models = models;
    cli_ensemble_result(v->request, &r);
}

cop_err cli_ensemble_here(cli_ensemble *request, cop_error *error) {
    evaluation *v = cop_alloc(sizeof *v);
    unsigned char digest[32];
    cop_data *data = NULL;
    const uint64_t began = cop_clock_ns();
    if (!v) return cop_no_memory(error);
    COP_ASSERT(request->count >= 1 && request->name_count >= 1);
    v->request = request;
    cop_err e = open_models(v, error);
    const cli_options one = options_for(v, 0);
    if (!e) e = cli_model_data(&v->model[0], &one, &data, error);
    if (!e) e = cli_choose_kernels(&v->kernels, digest, error);
    if (!e) {
        v->part = &data->test;
        e = create_slices(v, error);
    }
    if (!e) {
        plan(v);
        e = run_threads(v, error);
    }
    if (!e) print_result(v, (double)(cop_clock_ns() - began) * 1e-9);
    cop_ensemble_slices_destroy(v->slices);
    cop_free(v->reached);
    if (data) cop_data_destroy(data);
    for (uint32_t i = 0; i < v->models; i++) cli_model_close(&v->model[i]);
    cop_free(v);
    return e;
}
