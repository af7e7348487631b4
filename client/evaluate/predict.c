/* Computes predictions. See predict.h. The threads take slices of the samples. A thread runs the
 * members on its slice in ascending order. The complete outputs of all samples may not fit in
 * memory, so they are passed on block by block. A block is several slices. */
#include "client/evaluate/predict.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/base/thread_pool.h"
#include "common/ensemble/ensemble.h"
#include "common/ensemble/members.h"
#include "common/ensemble/moments.h"

#define SLICE_CELLS (4u << 20)  /* maximum outputs per slice, over all its samples */
#define BLOCK_CELLS (16u << 20) /* maximum outputs per block */
#define THREADS_MAX 256

typedef struct run {
    const cli_predictions *request;
    const cli_predict_options *options;
    const cop_kernels *kernels;
    const cop_model *model;
    size_t outputs;
    uint32_t slice_samples; /* samples per slice */
    uint32_t block_samples; /* samples per block */
    uint32_t block_first;   /* index of the first sample of the current block */
    uint32_t block_slices;  /* slices in the current block */
    uint32_t total_slices;  /* slices in all blocks together */
    double *values;         /* [block_samples][outputs]; NULL: not requested */
    double *deviations;     /* [block_samples][outputs]; NULL: not requested */
    atomic_uint not_finite; /* first sample with an output that is not finite; UINT32_MAX: none */
    atomic_ullong done;     /* how often a member has been run on a slice */
    uv_mutex_t progress_mutex;
    cli_progress progress;
    cop_task task; /* the parts of the task are the slices of the current block */
    struct worker *workers;
} run;

/* The state of one thread. */
typedef struct worker {
    run *run;
    cop_members *members;
    cop_ensemble *ensemble; /* averages class probabilities; NULL: the outputs are plain */
    cop_moments *moments;   /* averages plain outputs; NULL: the outputs are class probabilities */
    cop_ensemble_opinion *opinions;
    float *logits; /* [outputs][slice_samples] */
} worker;

bool cli_predicts_classes(const cop_model *model) {
    return cop_model_has_classes(model) && cop_model_loss(model) == COP_LOSS_CROSS_ENTROPY;
}

double cli_uncertainty(const cli_predictions *p, uint32_t sample) {
    COP_ASSERT(p->results && sample < p->samples->part.count);
    return p->classes ? p->results[sample].entropy : p->results[sample].spread;
}

/* ---- one slice ---- */

static void count_progress(run *r) {
    const uint64_t members = r->request->members ? r->request->members : 1;
    const uint64_t done = atomic_fetch_add(&r->done, 1) + 1;
    uv_mutex_lock(&r->progress_mutex);
    cli_progress_show(&r->progress, (double)done / ((double)members * r->total_slices), "predict");
    uv_mutex_unlock(&r->progress_mutex);
}

static void note_not_finite(run *r, uint32_t sample) {
    unsigned lowest = atomic_load(&r->not_finite);
    while (sample < lowest && !atomic_compare_exchange_weak(&r->not_finite, &lowest, sample))
        continue;
}

/* Runs one member, or the whole network if there is no ensemble, on the samples of a slice. Fills
 * w->logits. */
static void run_network(worker *w, uint32_t first, uint32_t count, uint32_t member) {
    run *r = w->run;
    const cop_job *job = r->request->model->job;
    const cop_data_part *part = &r->request->samples->part;
    const cop_member_work work = {
        .weights = r->request->model->flat,
        .place = {.seed = job->seed, .first_sample = first},
        .member = r->request->members ? member : COP_MEMBER_WHOLE,
        .samples = {.dtype = job->sample_type,
                    .count = (int)count,
                    .features = (int)job->features,
                    .stride = part->stride,
                    .rows = (const char *)part->samples + (size_t)first * part->stride}};
    cop_members_run(w->members, &work, w->logits, r->slice_samples);
    for (size_t k = 0; k < r->outputs; k++)
        for (uint32_t c = 0; c < count; c++)
            if (!isfinite(w->logits[k * r->slice_samples + c])) note_not_finite(r, first + c);
}

/* Inserts a class into the list of the most probable classes, if it is one of them. The classes
 * must be inserted in ascending order. Among equal values the lower class comes first. */
static void insert_class(cli_prediction *p, int32_t index, double value) {
    int at = p->shown_count;
    COP_ASSERT(at >= 0 && at <= CLI_SHOWN);
    while (at > 0 && value > p->shown[at - 1].value) at--;
    if (at == CLI_SHOWN) return;
    if (p->shown_count < CLI_SHOWN) p->shown_count++;
    memmove(&p->shown[at + 1], &p->shown[at], (size_t)(p->shown_count - 1 - at) * sizeof *p->shown);
    p->shown[at].index = index;
    p->shown[at].value = value;
    p->shown[at].deviation = 0;
}

static void store_class_results(worker *w, uint32_t first, uint32_t count) {
    const run *r = w->run;
    COP_ASSERT(first >= r->block_first && count <= r->slice_samples);
    cop_ensemble_opinions(w->ensemble, w->opinions);
    const double *p = cop_ensemble_probabilities(w->ensemble);
    for (uint32_t c = 0; c < count; c++) {
        const cop_ensemble_opinion *o = &w->opinions[c];
        cli_prediction *to = &r->request->results[first + c];
        double *row = r->values ? r->values + (first - r->block_first + c) * r->outputs : NULL;
        *to = (cli_prediction){.class = o->class,
                               .entropy = o->entropy,
                               .information = o->information,
                               .variation = o->variation};
        for (size_t k = 0; k < r->outputs; k++) {
            insert_class(to, (int32_t)k, p[k * count + c]);
            if (row) row[k] = p[k * count + c];
        }
    }
}

static void store_output_results(worker *w, uint32_t first, uint32_t count) {
    const run *r = w->run;
    const double *means = cop_moments_means(w->moments);
    const double *deviations = cop_moments_deviations(w->moments);
    const bool classes = cop_model_has_classes(r->model);
    COP_ASSERT(first >= r->block_first && (r->values != NULL) == (r->deviations != NULL));
    for (uint32_t c = 0; c < count; c++) {
        cli_prediction *to = &r->request->results[first + c];
        const size_t row = (first - r->block_first + c) * r->outputs;
        size_t best = 0;
        double squares = 0;
        *to = (cli_prediction){0};
        for (size_t k = 0; k < r->outputs; k++) {
            const double mean = means[k * count + c], deviation = deviations[k * count + c];
            if (mean > means[best * count + c]) best = k;
            squares += deviation * deviation;
            if (r->values) r->values[row + k] = mean;
            if (r->values) r->deviations[row + k] = deviation;
            if (to->shown_count == CLI_SHOWN) continue;
            to->shown[to->shown_count].index = (int32_t)k;
            to->shown[to->shown_count].value = mean;
            to->shown[to->shown_count++].deviation = deviation;
        }
        if (cop_model_has_one_logit(r->model)) best = means[c] > 0.5; /* probability of class 1 */
        to->class = classes ? (int32_t)best : -1;
        to->spread = sqrt(squares / (double)r->outputs);
    }
}

/* Computes slice `number` of the current block. */
static void run_slice(worker *w, uint32_t number) {
    run *r = w->run;
    const uint32_t first = r->block_first + number * r->slice_samples;
    COP_ASSERT(number < r->block_slices && first < r->request->samples->part.count);
    const uint32_t left = r->request->samples->part.count - first,
                   count = left < r->slice_samples ? left : r->slice_samples;
    const uint32_t members = r->request->members ? r->request->members : 1;
    COP_ASSERT(count >= 1 && (w->ensemble != NULL) != (w->moments != NULL));
    if (w->ensemble)
        cop_ensemble_begin(w->ensemble, (int)count, NULL, first);
    else
        cop_moments_begin(w->moments, (int)count);
    for (uint32_t m = 0; m < members; m++) {
        if (atomic_load(&r->not_finite) < first)
            return; /* the run will fail because of an earlier sample */
        run_network(w, first, count, m);
        if (w->ensemble)
            cop_ensemble_add(w->ensemble, w->logits, (int)r->slice_samples);
        else
            cop_moments_add(w->moments, w->logits, (int)r->slice_samples);
        count_progress(r);
    }
    if (w->ensemble)
        store_class_results(w, first, count);
    else
        store_output_results(w, first, count);
}

/* ---- threads ---- */

static void run_part(cop_task *task, int thread, int part) {
    run *r = (run *)(void *)((char *)task - offsetof(run, task));
    run_slice(&r->workers[thread], (uint32_t)part);
}

static void close_worker(worker *w) {
    cop_members_destroy(w->members);
    cop_ensemble_destroy(w->ensemble);
    cop_moments_destroy(w->moments);
    cop_free(w->opinions);
    cop_free(w->logits);
}

static cop_err open_worker(worker *w, run *r, cop_error *error) {
    const int slice = (int)r->slice_samples, outputs = (int)r->outputs;
    const bool sigmoid = cop_model_loss(r->model) == COP_LOSS_BCE;
    w->run = r;
    w->logits = cop_alloc_array(r->outputs * r->slice_samples, sizeof *w->logits);
    w->opinions = cop_alloc_array(r->slice_samples, sizeof *w->opinions);
    if (!w->logits || !w->opinions) return cop_no_memory(error);
    COP_TRY(cop_members_create(r->model, r->kernels, r->request->model->job->numerics, &w->members,
                               error));
    return r->request->classes
               ? cop_ensemble_create(COP_AVERAGE_ARITHMETIC, outputs, slice, &w->ensemble, error)
               : cop_moments_create(outputs, sigmoid, slice, &w->moments, error);
}

static cop_err run_block(run *r, cop_thread_pool *pool, cop_error *error) {
    const uint32_t left = r->request->samples->part.count - r->block_first;
    const uint32_t count = left < r->block_samples ? left : r->block_samples;
    r->block_slices = (count + r->slice_samples - 1) / r->slice_samples;
    r->task = (cop_task){.run = run_part, .parts = (int)r->block_slices};
    cop_parallel_for(pool, &r->task);
    const uint32_t bad = atomic_load(&r->not_finite);
    if (bad != UINT32_MAX)
        return cop_fail(error, COP_ERR_INPUT,
                        "the network's outputs for sample %u are not finite: its values are "
                        "outside the range that the model can compute",
                        bad);
    const cli_predicted block = {r->block_first, count, r->values, r->deviations};
    return r->options->on_block ? r->options->on_block(r->options->context, &block, error) : COP_OK;
}

static cop_err run_blocks(run *r, int64_t threads, cop_error *error) {
    cop_thread_pool *pool = NULL;
    cop_err e = COP_OK;
    r->workers = cop_alloc_array((size_t)threads, sizeof *r->workers);
    if (!r->workers) return cop_no_memory(error);
    for (int64_t i = 0; i < threads && !e; i++) e = open_worker(&r->workers[i], r, error);
    /* If the threads cannot be started, the calling thread computes everything. */
    if (threads > 1)
        (void)cop_thread_pool_create((int)threads - 1, cop_compute_thread_init, &pool, NULL);
    cop_compute_thread_init();
    cli_progress_start(&r->progress, r->options->quiet);
    for (uint64_t at = 0; at < r->request->samples->part.count && !e; at += r->block_samples) {
        r->block_first = (uint32_t)at;
        e = run_block(r, pool, error);
    }
    cli_progress_end(&r->progress);
    cop_thread_pool_destroy(pool);
    for (int64_t i = 0; i < threads; i++) close_worker(&r->workers[i]);
    cop_free(r->workers);
    return e;
}

/* Chooses how many samples a slice and a block have: few enough that all threads get a slice and
 * that the limits are kept. Returns the number of threads to use. */
static int64_t divide(run *r) {
    const uint32_t count = r->request->samples->part.count;
    int64_t threads =
        r->options->workers ? r->options->workers : (int64_t)uv_available_parallelism();
    if (threads > THREADS_MAX) threads = THREADS_MAX;
    uint64_t slice = ((uint64_t)count + (uint64_t)threads - 1) / (uint64_t)threads;
    if (slice > COP_EVAL_SLICE) slice = COP_EVAL_SLICE;
    if (slice > SLICE_CELLS / r->outputs) slice = SLICE_CELLS / r->outputs;
    COP_ASSERT(slice >= 1);
    r->slice_samples = (uint32_t)slice;
    r->total_slices = (uint32_t)(((uint64_t)count + slice - 1) / slice);
    uint64_t slices = BLOCK_CELLS / (slice * r->outputs);
    if (!r->options->on_block || slices > r->total_slices) slices = r->total_slices;
    r->block_samples = (uint32_t)(slices * slice);
    return threads < (int64_t)slices ? threads : (int64_t)slices;
}

cop_err cli_predict_run(const cli_predictions *request, const cli_predict_options *options,
                        cop_error *error) {
    run r = {.request = request,
             .options = options,
             .model = request->model->job->model,
             .not_finite = UINT32_MAX};
    unsigned char digest[32];
    COP_ASSERT(request->results && request->samples->part.count >= 1);
    COP_TRY(cli_choose_kernels(&r.kernels, digest, error));
    r.outputs = (size_t)cop_model_outputs(r.model);
    const int64_t threads = divide(&r);
    const bool complete = options->on_block != NULL;
    const size_t cells = r.block_samples * r.outputs;
    if (complete) r.values = cop_alloc_array(cells, sizeof *r.values);
    if (complete && !request->classes) r.deviations = cop_alloc_array(cells, sizeof *r.deviations);
    cop_err e = COP_OK;
    if (complete && (!r.values || (!request->classes && !r.deviations))) e = cop_no_memory(error);
    uv_mutex_init(&r.progress_mutex);
    if (!e) e = run_blocks(&r, threads, error);
    uv_mutex_destroy(&r.progress_mutex);
    cop_free(r.values);
    cop_free(r.deviations);
    return e;
}

/* ---- text ---- */

const char *cli_class_text(const cli_predictions *p, int32_t class, char *out, size_t size) {
    char number[16];
    return cli_shorten(cop_job_class(p->model->job, class, number), out, size);
}
