/* Evaluates an ensemble in this process. A block is some members on one slice of samples. Threads
 * take blocks in order and compute their outputs. Each thread waits for its turn to add the outputs
 * to the running averages, so the members of a slice are added in ascending order. The figures
 * equal those of a pool, bit for bit. */
#include "client/evaluate/ensemble.h"

#include <stddef.h>
#include <stdio.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/thread_pool.h"
#include "common/ensemble/members.h"

#define THREADS_MAX 256
#define TURNS       4 /* minimum blocks per thread, to balance the load */
#define ADVANCES    8 /* minimum blocks per slice, so that results appear gradually */
#define BLOCK_MAX   16

typedef struct evaluation {
    cli_ensemble *ask;
    const cop_kernels *kernels;
    cli_model model[CLI_POSITIONAL_MAX];
    uint32_t models;
    const cop_data_part *part;
    cop_ensemble_slices *ensemble;
    uint32_t members, slices, block, blocks; /* members: in total; block: members per block */
    uint32_t threads;
    /* guarded by the mutex */
    uv_mutex_t mutex;
    uv_cond_t turn;
    uint32_t done;     /* blocks added */
    uint32_t *reached; /* (slices) members added */
    cop_ensemble_figures figures[COP_ENSEMBLE_COUNTS_MAX];
    cop_error failure;
    cop_task task;         /* its parts are the blocks */
    struct runner *runner; /* [threads] */
} evaluation;

/* ---- one block ---- */

static cop_samples slice_samples(const evaluation *v, uint32_t slice) {
    const uint32_t first = slice * COP_EVAL_SLICE, left = v->part->count - first;
    const cop_job *job = v->model[0].job;
    return (cop_samples){.dtype = job->sample_type,
                         .count = (int)(left < COP_EVAL_SLICE ? left : COP_EVAL_SLICE),
                         .features = (int)job->features,
                         .stride = v->part->stride,
                         .labels = v->part->labels + first,
                         .rows = (const char *)v->part->samples + (size_t)first * v->part->stride};
}

/* The state of one thread: it runs one model at a time. */
typedef struct runner {
    cop_members *members;
    uint32_t model; /* the model that `members` belongs to */
    float *outputs;
} runner;

static cop_err prepare(const evaluation *v, runner *r, uint32_t model, cop_error *error) {
    if (r->members && r->model == model) return COP_OK;
    const cop_job *job = v->model[model].job;
    cop_members_destroy(r->members);
    r->model = model;
    return cop_members_create(job->model, v->kernels, job->numerics, &r->members, error);
}

static cop_err compute(const evaluation *v, runner *r, uint32_t block, cop_error *error) {
    const uint32_t slice = block % v->slices, first = block / v->slices * v->block;
    const uint32_t left = v->members - first, count = left < v->block ? left : v->block;
    const bool whole = v->ask->each_model || !v->ask->average;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t model = v->ask->each_model ? first + i : 0;
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

static void show(evaluation *v) {
    char text[80];
    while (v->ask->told < v->ask->count &&
           cop_ensemble_slices_get(v->ensemble, v->ask->told, &v->figures[v->ask->told])) {
        Coppice__Api__EnsembleFigures row;
        cop_job_ensemble_row(&v->figures[v->ask->told], v->ask->counts[v->ask->told], &row);
        cli_ensemble_row(v->ask, &row);
    }
    snprintf(text, sizeof text, "%u of %u members", (unsigned)(v->done / v->slices * v->block),
             v->members);
    cli_progress_show(&v->ask->progress, (double)v->done / v->blocks, text);
}

/* Adds the outputs of a block, after the preceding members of the slice have been added. */
static void add(evaluation *v, const runner *r, uint32_t block) {
    const uint32_t slice = block % v->slices, first = block / v->slices * v->block;
    const uint32_t left = v->members - first, count = left < v->block ? left : v->block;
    while (v->reached[slice] != first && !v->failure.code) uv_cond_wait(&v->turn, &v->mutex);
    if (v->failure.code) return;
    uv_mutex_unlock(&v->mutex); /* this thread owns the slice until it advances `reached` */
    const bool finite = cop_ensemble_slices_add(v->ensemble, slice, count, r->outputs);
    uv_mutex_lock(&v->mutex);
    v->reached[slice] += count;
    v->done++;
    if (!finite)
        cop_fail(&v->failure, COP_ERR_INPUT,
                 "the model has diverged: an output of members %u to %u on samples from %u is not "
                 "finite",
                 first, first + count - 1, slice * COP_EVAL_SLICE);
    uv_cond_broadcast(&v->turn);
    if (finite) show(v);
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
        r->outputs = cop_alloc_raw(v->block * outputs * COP_EVAL_SLICE * sizeof(float));
    const cop_err e = r->outputs ? compute(v, r, block, &error) : cop_no_memory(&error);
    uv_mutex_lock(&v->mutex);
    if (!e)
        add(v, r, block);
    else if (!v->failure.code)
        v->failure = error;
    if (e) uv_cond_broadcast(&v->turn);
    uv_mutex_unlock(&v->mutex);
}

static cop_err run_threads(evaluation *v, cop_error *error) {
    cop_thread_pool *pool = NULL;
    v->runner = cop_alloc_array(v->threads, sizeof *v->runner);
    if (!v->runner) return cop_no_memory(error);
    uv_mutex_init(&v->mutex);
    uv_cond_init(&v->turn);
    /* If the threads cannot be started, this one computes everything. */
    if (v->threads > 1)
        (void)cop_thread_pool_create((int)v->threads - 1, cop_compute_thread_init, &pool, NULL);
    cop_compute_thread_init();
    v->task = (cop_task){.run = run_block, .parts = (int)v->blocks};
    cop_parallel_for(pool, &v->task);
    cop_thread_pool_destroy(pool);
    for (uint32_t i = 0; i < v->threads; i++) {
        cop_members_destroy(v->runner[i].members);
        cop_free(v->runner[i].outputs);
    }
    cop_free(v->runner);
    uv_cond_destroy(&v->turn);
    uv_mutex_destroy(&v->mutex);
    if (v->failure.code && error) *error = v->failure;
    return v->failure.code;
}

/* ---- models and data ---- */

/* The options of a command with model i as its only argument. */
static cli_options options_for(const evaluation *v, uint32_t i) {
    cli_options one = *v->ask->options;
    one.positional[0] = v->ask->names[i];
    one.positional_count = 1;
    return one;
}

static cop_err open_models(evaluation *v, cop_error *error) {
    const cli_ensemble *ask = v->ask;
    for (uint32_t i = 0; i < ask->name_count; i++) {
        const cli_options one = options_for(v, i);
        if (cli_is_job(ask->names[i]))
            COP_TRY(cli_model_fetch(&one, &v->model[i], error));
        else
            COP_TRY(cli_model_open(ask->names[i], &v->model[i], error));
        v->models++;
        if (cop_members_check(v->model[i].job->model, ask->average && !ask->each_model, error))
            return ask->each_model ? cop_error_prefix(error, "%s", ask->names[i]) : error->code;
        COP_TRY(cop_job_check_together((cop_named_job){v->model[0].job, ask->names[0]},
                                       (cop_named_job){v->model[i].job, ask->names[i]},
                                       !ask->options->data, error));
    }
    return COP_OK;
}

static void plan(evaluation *v) {
    const int64_t wanted = v->ask->options->workers;
    const uint64_t threads = wanted ? (uint64_t)wanted : uv_available_parallelism();
    v->threads = threads < THREADS_MAX ? (uint32_t)threads : THREADS_MAX;
    v->members = v->ask->counts[v->ask->count - 1];
    v->slices = cop_ensemble_slices_count(v->ensemble);
    uint64_t share = (uint64_t)v->members * v->slices / (TURNS * v->threads);
    if (share > v->members / ADVANCES) share = v->members / ADVANCES;
    if (share > BLOCK_MAX) share = BLOCK_MAX;
    v->block = share < 1 || v->ask->each_model ? 1 : (uint32_t)share;
    v->blocks = (v->members + v->block - 1) / v->block * v->slices;
}

static cop_err make_slices(evaluation *v, cop_error *error) {
    const cop_average average = v->ask->average ? v->ask->average : COP_AVERAGE_ARITHMETIC;
    cop_ensemble_slices_spec spec = {.average = average,
                                     .classes = cop_model_outputs(v->model[0].job->model),
                                     .samples = v->part->count,
                                     .labels = v->part->labels,
                                     .count = v->ask->count};
    for (uint32_t i = 0; i < spec.count; i++) spec.counts[i] = v->ask->counts[i];
    COP_TRY(cop_ensemble_slices_create(&spec, &v->ensemble, error));
    v->reached = cop_alloc_array(cop_ensemble_slices_count(v->ensemble), sizeof *v->reached);
    return v->reached ? COP_OK : cop_no_memory(error);
}

/* ---- the evaluation ---- */

static void tell(evaluation *v, double seconds) {
    Coppice__Api__EnsembleResult r = COPPICE__API__ENSEMBLE_RESULT__INIT;
    Coppice__Api__EnsembleFigures row[COP_ENSEMBLE_COUNTS_MAX], *rows[COP_ENSEMBLE_COUNTS_MAX];
    Coppice__Api__EnsembleModel model[CLI_POSITIONAL_MAX], *models[CLI_POSITIONAL_MAX];
    for (uint32_t i = 0; i < v->ask->count; i++) {
        cop_job_ensemble_row(&v->figures[i], v->ask->counts[i], &row[i]);
        rows[i] = &row[i];
    }
    for (uint32_t i = 0; v->ask->each_model && i < v->models; i++, r.n_models++) {
        coppice__api__ensemble_model__init(models[i] = &model[i]);
        model[i].model = (char *)(uintptr_t)v->ask->names[i];
        model[i].digest = v->model[i].digest;
    }
    if (!v->ask->each_model) r.digest = v->model[0].digest;
    r.average = (char *)(uintptr_t)cop_average_name(v->ask->average);
    r.on = (char *)(uintptr_t)"test";
    r.has_samples = r.has_seconds = 1;
    r.samples = v->part->count;
    r.seconds = seconds;
    r.members = rows;
    r.n_members = v->ask->count;
    r.models = models;
    cli_ensemble_result(v->ask, &r);
}

cop_err cli_ensemble_here(cli_ensemble *ask, cop_error *error) {
    evaluation *v = cop_alloc(sizeof *v);
    unsigned char digest[32];
    cop_data *data = NULL;
    const uint64_t began = cop_clock_ns();
    if (!v) return cop_no_memory(error);
    v->ask = ask;
    cop_err e = open_models(v, error);
    const cli_options one = options_for(v, 0);
    if (!e) e = cli_model_data(&v->model[0], &one, &data, error);
    if (!e) e = cli_choose_kernels(&v->kernels, digest, error);
    if (!e) {
        v->part = &data->test;
        e = make_slices(v, error);
    }
    if (!e) {
        plan(v);
        e = run_threads(v, error);
    }
    if (!e) tell(v, (double)(cop_clock_ns() - began) * 1e-9);
    cop_ensemble_slices_destroy(v->ensemble);
    cop_free(v->reached);
    if (data) cop_data_destroy(data);
    for (uint32_t i = 0; i < v->models; i++) cli_model_close(&v->model[i]);
    cop_free(v);
    return e;
}
