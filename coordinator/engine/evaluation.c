/* Evaluations on the pool. See evaluation.h. An ensemble's outputs are added slice by slice on the
 * compute threads, in batches: outputs that arrive while one batch is being added form the next
 * batch. Each part of the task handles its own slices, so no two threads touch the same one. Within
 * a slice, outputs are added in the order of their blocks, which is the order of the members. */
#include "coordinator/engine/evaluation.h"

#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/ensemble/members.h"
#include "coordinator/engine/models.h"
#include "coordinator/store/datasets.h"

#define LEASE_FLOP   5e10                  /* work of a lease: about a second on an older core */
#define LEASE_BYTES  ((uint64_t)4 << 20)   /* size of a lease's outputs */
#define WINDOW_BYTES ((uint64_t)256 << 20) /* size of the outputs of a whole window */
#define WINDOW_MOST  COP_SHARDS_MAX
#define WINDOW_LEAST 4

coord_evaluation *coord_evaluation_find(coord_engine *engine, uint64_t id) {
    for (uint32_t i = 0; id && i < COP_EVALUATION_PLACES; i++)
        if (engine->evaluations[i] && engine->evaluations[i]->id == id)
            return engine->evaluations[i];
    return NULL;
}

/* ---- preparing: on libuv's thread pool ---- */

static cop_err open_model(coord_engine *engine, coord_evaluation_model *m, cop_error *error) {
    coord_model found;
    COP_TRY(coord_model_open(engine, m->job, &found, error));
    const size_t bytes = (size_t)cop_model_floats(found.job->model) * sizeof *found.flat;
    m->fingerprint = found.fingerprint;
    snprintf(m->digest, sizeof m->digest, "%s", found.digest);
    m->built = found.job;
    m->weights = cop_buffer_adopt(found.flat, bytes);
    if (!m->weights) cop_free(found.flat);
    m->spec = cop_job_pack_for_workers(m->built);
    if (!m->weights || !m->spec)
        return cop_fail(error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    return COP_OK;
}

static cop_err check_model(const coord_evaluation *e, const coord_evaluation_model *m,
                           cop_error *error) {
    char name[32], first[32];
    snprintf(name, sizeof name, "job %llu", (unsigned long long)m->job);
    snprintf(first, sizeof first, "job %llu", (unsigned long long)e->model[0].job);
    if (e->plain) return COP_OK;
    if (cop_members_check(m->built->model, e->average && !e->each_model, error))
        return cop_error_prefix(error, "%s", name);
    if (m->fingerprint != e->model[0].fingerprint)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s and %s are pinned to different OpenBLAS libraries: no worker can "
                        "compute both; `coppice eval` with --workers computes on your machine",
                        first, name);
    return cop_job_check_together((cop_named_job){e->model[0].built, first},
                                  (cop_named_job){m->built, name}, true, error);
}

static cop_err open_models(coord_engine *engine, coord_evaluation *e, cop_error *error) {
    for (uint32_t i = 0; i < e->model_count; i++) {
        COP_TRY(open_model(engine, &e->model[i], error));
        COP_TRY(check_model(e, &e->model[i], error));
    }
    return COP_OK;
}

static uint32_t clamp(uint64_t low, uint64_t value, uint64_t high) {
    return (uint32_t)(value < low ? low : value > high ? high : value);
}

/* Fills e->info with what the core must know about the evaluation, for example how many members a
 * lease has, and how many results are held at a time. */
static cop_err plan(coord_evaluation *e, cop_error *error) {
    const cop_model *model = e->model[0].built->model;
    const uint32_t slices = (e->samples - 1) / COP_EVAL_SLICE + 1,
                   columns = e->samples < COP_EVAL_SLICE ? e->samples : COP_EVAL_SLICE;
    const uint64_t bytes = (uint64_t)cop_model_outputs(model) * columns * sizeof(float);
    const double flop = cop_model_flop(model) * columns;
    const uint64_t by_flop = flop < LEASE_FLOP ? (uint64_t)(LEASE_FLOP / (flop + 1)) : 1;
    const uint64_t by_bytes = LEASE_BYTES / bytes;
    const uint64_t fit = by_flop < by_bytes ? by_flop : by_bytes;
    e->info = (coord_job_info){.kind = e->plain ? COORD_EVALUATION : COORD_ENSEMBLE,
                               .by_loss = !cop_model_has_classes(model),
                               .evaluate_samples = e->samples,
                               .fingerprint = e->model[0].fingerprint,
                               .state = COORD_QUEUED};
    if (e->plain) return COP_OK;
    e->info.members = e->counts[e->count - 1];
    e->info.each_version = e->each_model || !e->average;
    e->info.lease_members = e->info.each_version ? 1 : clamp(1, fit, COP_LEASE_MEMBERS_MAX);
    e->info.window =
        clamp(WINDOW_LEAST, WINDOW_BYTES / (bytes * e->info.lease_members), WINDOW_MOST);
    if ((uint64_t)e->info.members * slices <= UINT32_MAX) return COP_OK;
    return cop_fail(error, COP_ERR_LIMIT,
                    "%u members on %u samples are too many for one evaluation", e->info.members,
                    e->samples);
}

static cop_err allocate(coord_evaluation *e, cop_error *error) {
    const cop_job *job = e->model[0].built;
    const size_t columns = e->samples < COP_EVAL_SLICE ? e->samples : COP_EVAL_SLICE;
    e->rows_pool = cop_buffer_pool_create(columns * job->sample_stride);
    e->labels_pool = cop_buffer_pool_create(columns * sizeof(int32_t));
    if (!e->plain) e->blocks = cop_alloc_array(e->info.window, sizeof *e->blocks);
    if (!e->rows_pool || !e->labels_pool || (!e->plain && !e->blocks))
        return cop_fail(error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    if (e->plain) return COP_OK;
    cop_ensemble_slices_spec spec = {.average = e->average ? e->average : COP_AVERAGE_ARITHMETIC,
                                     .classes = cop_model_outputs(job->model),
                                     .samples = e->samples,
                                     .labels = e->data->test.labels,
                                     .count = e->count};
    memcpy(spec.counts, e->counts, sizeof spec.counts);
    return cop_ensemble_slices_create(&spec, &e->slices, error);
}

cop_err coord_evaluation_prepare(coord_engine *engine, coord_evaluation *e, cop_error *error) {
    COP_TRY(open_models(engine, e, error));
    const char *digest = e->model[0].built->message->pinned->data_digest;
    cop_data_view view;
    COP_TRY(coord_datasets_load(engine->datasets, digest, &e->data, error));
    for (uint32_t i = 0; i < e->model_count; i++)
        COP_TRY(cop_job_check_data(e->model[i].built, e->data, error));
    COP_TRY(cop_job_view(e->model[0].built, e->data, &view, error));
    e->samples = view.test;
    cop_data_view_fini(&view);
    if (!e->samples)
        return cop_fail(error, COP_ERR_INPUT, "data set %s of job %llu has no test samples",
                        e->data->name, (unsigned long long)e->model[0].job);
    COP_TRY(plan(e, error));
    return allocate(e, error);
}

/* ---- life ---- */

static void release_tensors(coord_evaluation *e) {
    COP_ASSERT(!e->batch);
    for (uint32_t i = 0; i < e->model_count; i++) {
        coord_evaluation_model *m = &e->model[i];
        cop_buffer_release(m->weights);
        cop_buffer_release(m->spec);
        if (m->built) cop_job_release(m->built);
        m->weights = m->spec = NULL;
        m->built = NULL;
    }
    for (; e->waiting; e->waiting--, e->first++)
        cop_buffer_release(e->blocks[e->first % e->info.window].logits);
    if (e->data) cop_data_destroy(e->data);
    cop_buffer_pool_destroy(e->rows_pool);
    cop_buffer_pool_destroy(e->labels_pool);
    cop_ensemble_slices_destroy(e->slices);
    cop_free(e->blocks);
    e->data = NULL;
    e->rows_pool = e->labels_pool = NULL;
    e->slices = NULL;
    e->blocks = NULL;
}

void coord_evaluation_free(coord_evaluation *e) {
    if (!e) return;
    release_tensors(e);
    cop_free(e);
}

cop_err coord_evaluation_start(coord_engine *engine, coord_evaluation *e, uint64_t id) {
    coord_job_view view;
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = id};
    /* The new event would have to wait behind events that the core had no memory for. */
    if (engine->starved) return COP_ERR_NO_MEMORY;
    e->id = e->info.job = id;
    e->engine = engine;
    e->started_ns = e->heard_ns = cop_clock_ns();
    added.info = e->info;
    coord_dispatch(engine, &added);
    return coord_core_job(engine->core, id, e->started_ns, &view) ? COP_OK : COP_ERR_NO_MEMORY;
}

void coord_evaluation_unload(coord_evaluation *e) {
    e->ended = true;
    e->ended_ns = cop_clock_ns();
    if (!e->batch) release_tensors(e); /* otherwise batch_arrived releases them */
}

/* ---- leases ---- */

static const coord_evaluation_model *model_of(const coord_evaluation *e,
                                              const coord_action *action) {
    const uint64_t index = e->each_model ? action->lease.version : 0;
    COP_ASSERT(index < e->model_count);
    return &e->model[index];
}

cop_job *coord_evaluation_job(const coord_evaluation *e, const coord_action *action) {
    return model_of(e, action)->built;
}

cop_err coord_evaluation_fill_lease(coord_evaluation *e, const coord_action *action,
                                    const cop_pull *pull, cop_message *message) {
    COP_ASSERT(!e->ended);
    const coord_evaluation_model *m = model_of(e, action);
    const cop_data_part *part = &e->data->test;
    const uint32_t count = action->lease.count;
    cop_buffer *rows = message->part[COP_PART_SAMPLES] = cop_buffer_pool_take(e->rows_pool);
    cop_buffer *labels = message->part[COP_PART_LABELS] = cop_buffer_pool_take(e->labels_pool);
    if (!rows || !labels) return COP_ERR_NO_MEMORY;
    message->lease.whole = action->lease.ensemble && (e->each_model || !e->average);
    const cop_data_destination room = cop_data_destination_of(rows, labels);
    cop_data_copy(part, action->lease.first, count, &room);
    rows->size = count * part->stride;
    labels->size = count * sizeof(int32_t);
    /* Each version of an ensemble of models has its own spec. So a worker that lacks the version
     * lacks the spec, too. */
    if (pull->have_job == e->id && pull->have_version == action->lease.version + 1) return COP_OK;
    message->part[COP_PART_WEIGHTS] = cop_buffer_hold(m->weights);
    message->part[COP_PART_JOB] = cop_buffer_hold(m->spec);
    return COP_OK;
}

bool coord_evaluation_members(const coord_evaluation *e, const cop_result *result,
                              const cop_buffer *logits, uint32_t *members) {
    if (e->plain || e->ended || !logits || !result->count) return false;
    const size_t one =
        (size_t)cop_model_outputs(e->model[0].built->model) * result->count * sizeof(float);
    if (!logits->size || logits->size % one || logits->size / one > COP_LEASE_MEMBERS_MAX)
        return false;
    *members = (uint32_t)(logits->size / one);
    return true;
}

/* ---- adding outputs ---- */

static coord_evaluation *evaluation_of_task(cop_task *task) {
    return (coord_evaluation *)(void *)((char *)task - offsetof(coord_evaluation, task));
}

/* Adds the outputs of the slices that belong to one part. Runs on a compute thread. */
static void add_part(cop_task *task, int thread, int part) {
    coord_evaluation *e = evaluation_of_task(task);
    (void)thread;
    for (uint32_t i = 0; i < e->batch; i++) {
        const coord_evaluation_block *b = &e->blocks[(e->first + i) % e->info.window];
        if (b->slice % (uint32_t)task->parts != (uint32_t)part) continue;
        bool finite = cop_ensemble_slices_add(e->slices, b->slice, b->members, b->logits->data);
        COP_ASSERT(finite); /* the core passes on only results whose values are finite */
    }
}

static void batch_done(cop_task *task) {
    coord_evaluation *e = evaluation_of_task(task);
    coord_post(e->engine, &e->mail);
}

static void batch_arrived(coord_engine *engine, coord_mail *mail);

static void start_batch(coord_evaluation *e) {
    e->batch = e->waiting;
    e->task = (cop_task){
        .run = add_part, .done = batch_done, .parts = cop_thread_pool_threads(e->engine->pool)};
    e->mail.run = batch_arrived;
    cop_thread_pool_submit(e->engine->pool, &e->task);
}

/* Runs on the loop thread after a batch was added. */
static void batch_arrived(coord_engine *engine, coord_mail *mail) {
    coord_evaluation *e =
        (coord_evaluation *)(void *)((char *)mail - offsetof(coord_evaluation, mail));
    const uint64_t id = e->id;
    const uint32_t done = e->batch;
    COP_ASSERT(done && done <= e->waiting);
    for (uint32_t i = 0; i < done; i++, e->first++)
        cop_buffer_release(e->blocks[e->first % e->info.window].logits);
    e->waiting -= done;
    e->batch = 0;
    if (e->ended) {
        release_tensors(e);
        return;
    }
    while (e->figure_count < e->count &&
           cop_ensemble_slices_get(e->slices, e->figure_count, &e->figures[e->figure_count]))
        e->figure_count++;
    if (e->waiting) start_batch(e);
    coord_engine_changed(engine, id);
    coord_event absorbed = {.type = COORD_EVENT_ABSORBED, .job = id};
    for (uint32_t i = 0; i < done; i++) coord_dispatch(engine, &absorbed);
}

void coord_evaluation_absorb(coord_engine *engine, const coord_action *action) {
    coord_evaluation *e = coord_evaluation_find(engine, action->job);
    coord_slot *slot = &engine->slots[action->slot - 1];
    COP_ASSERT(e && e->blocks && slot->used && e->waiting < e->info.window);
    COP_ASSERT(action->lease.members &&
               action->lease.member + action->lease.members <= e->info.members);
    e->blocks[(e->first + e->waiting++) % e->info.window] =
        (coord_evaluation_block){.logits = slot->gradient,
                                 .slice = action->lease.first / COP_EVAL_SLICE,
                                 .member = action->lease.member,
                                 .members = action->lease.members};
    *slot = (coord_slot){0};
    if (!e->batch) start_batch(e);
}
