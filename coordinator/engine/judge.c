/* Evidence: digests of what workers sent, and the coordinator's own computing of a block about
 * which they differ (or that nobody else can check). Neither runs on the loop: digests are made by
 * the compute threads, blocks on libuv's thread pool, from their own copy of the job. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/engine/judge.h"

#include "coordinator/engine/evaluation.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/ensemble/members.h"
#include "common/nn/model.h"

/* ---- digests ---- */

#define CHUNK 16384 /* floats */

static const uint32_t ONE_NAN = 0x7fc00000;

/* All NaNs count as one value: which one an instruction makes says nothing. */
static void update_with_nans(cop_xxh3 *h, const float *values, size_t count) {
    float chunk[1024];
    for (size_t at = 0; at < count; at += 1024) {
        size_t n = count - at < 1024 ? count - at : 1024;
        memcpy(chunk, values + at, n * sizeof *chunk);
        for (size_t i = 0; i < n; i++)
            if (isnan(chunk[i])) memcpy(&chunk[i], &ONE_NAN, sizeof ONE_NAN);
        cop_xxh3_update(h, chunk, n * sizeof *chunk);
    }
}

uint64_t coord_digest(const coord_engine *engine, const cop_buffer *gradient, bool *finite) {
    const float *values = gradient->data;
    size_t count = gradient->size / sizeof *values;
    cop_xxh3 h;
    bool all = true;
    cop_xxh3_init_secret(&h, engine->digest_secret);
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? count - at : CHUNK;
        bool fine = engine->kernels->all_finite(values + at, n);
        all = all && fine;
        if (fine)
            cop_xxh3_update(&h, values + at, n * sizeof *values);
        else
            update_with_nans(&h, values + at, n);
    }
    uint64_t digest = cop_xxh3_final(&h);
    *finite = all;
    return digest ? digest : 1;
}

/* ---- a block computed here ---- */

typedef struct judgement {
    uv_work_t work; /* first */
    coord_engine *engine;
    coord_action action;
    cop_message lease; /* what a worker would get: weights, rows, labels, spec */
    cop_buffer *gradient;
    cop_pass_result sums;
    uint64_t digest, compute_ns;
    bool finite;
    cop_error error;
} judgement;

static cop_samples samples_of(const judgement *j, const cop_job *job, int row, int rows) {
    return (cop_samples){.dtype = job->sample_type,
                         .count = rows,
                         .features = (int)job->features,
                         .stride = job->sample_stride,
                         .rows = (const char *)j->lease.part[1]->data +
                                 (size_t)row * job->sample_stride,
                         .labels = (const int32_t *)j->lease.part[2]->data + row};
}

static int row_count(const judgement *j) {
    return (int)(j->lease.part[2]->size / sizeof(int32_t));
}

static cop_err train_block(judgement *j, const cop_job *job) {
    int32_t sizes[COP_SHARDS_MAX];
    cop_pass *pass;
    const coord_action *a = &j->action;
    j->gradient = cop_buffer_create((size_t)cop_model_floats(job->model) * sizeof(float));
    if (!j->gradient) return cop_fail(&j->error, COP_ERR_NO_MEMORY, "out of memory for a gradient");
    COP_TRY(cop_pass_create(job->model, j->engine->kernels, job->numerics, row_count(j),
                            COP_PASS_TRAIN, &pass, &j->error));
    cop_data_slices(a->lease.batch, job->shards, sizes);
    cop_shard_work work = {.seed = job->seed,
                           .step = (uint32_t)a->step,
                           .shard_first = (int)a->lease.first,
                           .shard_count = (int)a->lease.count,
                           .shard_sizes = sizes + a->lease.first};
    cop_samples samples = samples_of(j, job, 0, row_count(j));
    cop_pass_train(pass, j->lease.part[0]->data, &work, &samples, j->gradient->data, &j->sums);
    cop_pass_destroy(pass);
    j->digest = coord_digest(j->engine, j->gradient, &j->finite);
    return COP_OK;
}

#define EVALUATE_COLUMNS 125 /* D10 */

static cop_err evaluate_block(judgement *j, const cop_job *job) {
    cop_pass *pass;
    COP_TRY(cop_pass_create(job->model, j->engine->kernels, job->numerics, EVALUATE_COLUMNS,
                            COP_PASS_EVAL, &pass, &j->error));
    int all = row_count(j);
    for (int row = 0; row < all; row += EVALUATE_COLUMNS) {
        int rows = all - row < EVALUATE_COLUMNS ? all - row : EVALUATE_COLUMNS;
        const cop_eval_place place = {.seed = job->seed,
                                      .first_sample = j->action.lease.first + (uint32_t)row};
        cop_samples samples = samples_of(j, job, row, rows);
        cop_pass_result part;
        cop_pass_eval(pass, j->lease.part[0]->data, &place, &samples, &part);
        j->sums.loss += part.loss;
        j->sums.correct += part.correct;
    }
    cop_pass_destroy(pass);
    return COP_OK;
}

static cop_err ensemble_block(judgement *j, const cop_job *job) {
    const coord_action *a = &j->action;
    const size_t count = (size_t)row_count(j), cells = cop_model_outputs(job->model) * count;
    cop_members *members;
    j->gradient = cop_buffer_create(a->lease.members * cells * sizeof(float));
    if (!j->gradient) return cop_fail(&j->error, COP_ERR_NO_MEMORY, "out of memory for outputs");
    COP_TRY(cop_members_create(job->model, j->engine->kernels, job->numerics, &members, &j->error));
    for (uint32_t m = 0; m < a->lease.members; m++) {
        const cop_member_work work = {.weights = j->lease.part[0]->data,
                                      .place = {.seed = job->seed, .first_sample = a->lease.first},
                                      .member = j->lease.lease.whole ? COP_MEMBER_WHOLE
                                                                     : a->lease.member + m,
                                      .samples = samples_of(j, job, 0, row_count(j))};
        cop_members_run(members, &work, (float *)j->gradient->data + m * cells, count);
    }
    cop_members_destroy(members);
    j->digest = coord_digest(j->engine, j->gradient, &j->finite);
    return COP_OK;
}

static cop_err any_block(judgement *j, const cop_job *job) {
    if (j->action.lease.ensemble) return ensemble_block(j, job);
    return j->action.lease.evaluate ? evaluate_block(j, job) : train_block(j, job);
}

static void judge_work(uv_work_t *work) {
    judgement *j = (judgement *)work;
    const cop_buffer *spec = j->lease.part[3];
    cop_job *job = NULL;
    uint64_t began = cop_clock_ns();
    cop_compute_thread_init();
    j->finite = true;
    cop_err e = cop_job_from_bytes(spec->data, spec->size, &job, &j->error);
    if (!e) e = any_block(j, job);
    j->error.code = e;
    j->compute_ns = cop_clock_ns() - began;
    if (job) cop_job_destroy(job);
}

/* The answer to a COMPUTE; without `j` none was begun. */
static void answer(coord_engine *engine, const coord_action *a, const judgement *j) {
    const bool failed = !j || j->error.code != COP_OK;
    coord_event event = {.type = COORD_EVENT_RESULT,
                         .worker = COORD_SELF,
                         .job = a->job,
                         .step = a->step,
                         .text = failed ? "the coordinator cannot compute it" : NULL};
    event.result = (coord_result_info){.lease = a->lease.lease,
                                       .job = a->job,
                                       .step = a->step,
                                       .attempt = a->lease.attempt,
                                       .first = a->lease.first,
                                       .count = a->lease.count,
                                       .members = a->lease.members,
                                       .evaluate = a->lease.evaluate,
                                       .ensemble = a->lease.ensemble,
                                       .failed = failed};
    if (j) {
        event.result.compute_ns = j->compute_ns;
        event.result.finite = j->finite && isfinite(j->sums.loss);
        event.result.loss = j->sums.loss;
        event.result.correct = (uint64_t)j->sums.correct;
        event.result.samples = (uint64_t)row_count(j);
        event.result.digest = j->digest;
    }
    event.result.slot = coord_take_slot(engine, failed ? NULL : j->gradient);
    event.result.failed = failed || !event.result.slot;
    if (!failed && !event.result.slot) event.text = "too many results under way";
    coord_dispatch(engine, &event);
}

static void judge_done(uv_work_t *work, int status) {
    judgement *j = (judgement *)work;
    coord_engine *engine = j->engine;
    (void)status;
    if (j->error.code)
        cop_log(COP_LOG_ERROR, "coordinator", "job %llu: a block cannot be checked here: %s",
                (unsigned long long)j->action.job, j->error.text);
    answer(engine, &j->action, j);
    engine->judging--;
    cop_buffer_release(j->gradient);
    cop_message_fini(&j->lease);
    cop_free(j);
}

static cop_err fill_lease(coord_engine *engine, const coord_action *action, cop_message *lease) {
    coord_resident *resident = coord_resident_find(engine, action->job);
    coord_evaluation *evaluation = coord_evaluation_find(engine, action->job);
    const cop_pull nothing = {0}; /* that the asker has already */
    COP_ASSERT(resident || evaluation);
    if (evaluation) return coord_evaluation_fill_lease(evaluation, action, &nothing, lease);
    return coord_resident_fill_lease(resident, action, false, false, lease);
}

void coord_judge(coord_engine *engine, const coord_action *action) {
    judgement *j = cop_alloc(sizeof *j);
    if (!j) {
        answer(engine, action, NULL);
        return;
    }
    j->engine = engine;
    j->action = *action;
    j->lease.type = COP_MESSAGE_LEASE;
    if (fill_lease(engine, action, &j->lease)) {
        cop_message_fini(&j->lease);
        cop_free(j);
        answer(engine, action, NULL);
        return;
    }
    engine->judging++;
    uv_queue_work(&engine->loop, &j->work, judge_work, judge_done);
}
