/* The coordinator's own computation of a block on which workers disagree, or that nobody else can
 * check. A computation runs on libuv's thread pool. It holds references to the job, the weights and
 * the samples. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/engine/recompute.h"

#include "coordinator/engine/digest.h"
#include "coordinator/engine/evaluation.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/shards.h"
#include "common/ensemble/members.h"
#include "common/job/block.h"
#include "common/nn/model.h"

typedef struct recomputation {
    uv_work_t work; /* must be first */
    coord_engine *engine;
    coord_action action;
    cop_job *job;
    cop_message lease; /* as a worker would get it: weights, rows, labels */
    cop_buffer *gradient;
    cop_pass_result sums;
    uint64_t digest, compute_ns;
    bool finite;
    cop_error error;
} recomputation;

static int row_count(const recomputation *r) {
    return (int)(r->lease.part[COP_PART_LABELS]->size / sizeof(int32_t));
}

static cop_block block_of(const recomputation *r, const cop_job *job) {
    return (cop_block){.job = job,
                       .weights = r->lease.part[COP_PART_WEIGHTS]->data,
                       .rows = r->lease.part[COP_PART_SAMPLES]->data,
                       .labels = r->lease.part[COP_PART_LABELS]->data,
                       .count = row_count(r)};
}

/* Replaces weights in bf16 by the same in f32. */
static cop_err widen_weights(recomputation *r, size_t floats) {
    cop_buffer **part = &r->lease.part[COP_PART_WEIGHTS];
    if (r->lease.lease.weights_values == COP_VALUES_F32) return COP_OK;
    cop_buffer *wide = cop_buffer_create(floats * sizeof(float));
    if (!wide) return cop_fail(&r->error, COP_ERR_NO_MEMORY, "out of memory for the weights");
    r->engine->kernels->widen_bf16((*part)->data, wide->data, floats);
    cop_buffer_release(*part);
    *part = wide;
    return COP_OK;
}

/* Replaces the gradient by the same in bf16, if workers send it so. */
static cop_err round_gradient(recomputation *r, size_t floats) {
    if (r->lease.lease.weights_values == COP_VALUES_F32) return COP_OK;
    cop_buffer *sent = cop_buffer_create(floats * sizeof(uint16_t));
    if (!sent) return cop_fail(&r->error, COP_ERR_NO_MEMORY, "out of memory for a gradient");
    r->engine->kernels->round_bf16(r->gradient->data, sent->data, floats);
    cop_buffer_release(r->gradient);
    r->gradient = sent;
    return COP_OK;
}

static cop_err train_block(recomputation *r, const cop_job *job) {
    int32_t sizes[COP_SHARDS_MAX];
    cop_pass *pass;
    const coord_action *a = &r->action;
    const size_t floats = (size_t)cop_model_floats(job->model);
    r->gradient = cop_buffer_create(floats * sizeof(float));
    if (!r->gradient) return cop_fail(&r->error, COP_ERR_NO_MEMORY, "out of memory for a gradient");
    COP_TRY(widen_weights(r, floats));
    const cop_block block = block_of(r, job);
    COP_TRY(cop_pass_create(job->model, r->engine->kernels, job->numerics, block.count,
                            COP_PASS_TRAIN, &pass, &r->error));
    cop_shard_sizes(a->lease.batch, job->shards, sizes);
    const cop_block_shards shards = {.step = a->step,
                                     .sizes = sizes,
                                     .first = (int)a->lease.first,
                                     .count = (int)a->lease.count};
    cop_block_train(pass, &block, &shards, r->gradient->data, &r->sums);
    cop_pass_destroy(pass);
    COP_TRY(round_gradient(r, floats));
    r->digest = coord_digest(r->engine, r->gradient, r->lease.lease.weights_values, &r->finite);
    return COP_OK;
}

static cop_err evaluate_block(recomputation *r, const cop_job *job) {
    cop_pass *pass;
    COP_TRY(cop_pass_create(job->model, r->engine->kernels, job->numerics, COP_EVAL_COLUMNS,
                            COP_PASS_EVAL, &pass, &r->error));
    const cop_block block = block_of(r, job);
    cop_block_evaluate(pass, &block, r->action.lease.first, &r->sums);
    cop_pass_destroy(pass);
    return COP_OK;
}

static cop_err ensemble_block(recomputation *r, const cop_job *job) {
    const coord_action *a = &r->action;
    const cop_block block = block_of(r, job);
    const size_t count = (size_t)block.count, cells = cop_model_outputs(job->model) * count;
    cop_members *members;
    r->gradient = cop_buffer_create(a->lease.members * cells * sizeof(float));
    if (!r->gradient) return cop_fail(&r->error, COP_ERR_NO_MEMORY, "out of memory for outputs");
    COP_TRY(cop_members_create(job->model, r->engine->kernels, job->numerics, &members, &r->error));
    for (uint32_t m = 0; m < a->lease.members; m++) {
        const cop_member_work work = {.weights = r->lease.part[COP_PART_WEIGHTS]->data,
                                      .place = {.seed = job->seed, .first_sample = a->lease.first},
                                      .member = r->lease.lease.whole ? COP_MEMBER_WHOLE
                                                                     : a->lease.member + m,
                                      .samples = cop_block_samples(&block)};
        cop_members_run(members, &work, (float *)r->gradient->data + m * cells, count);
    }
    cop_members_destroy(members);
    r->digest = coord_digest(r->engine, r->gradient, COP_VALUES_F32, &r->finite);
    return COP_OK;
}

static cop_err any_block(recomputation *r, const cop_job *job) {
    if (r->action.lease.ensemble) return ensemble_block(r, job);
    return r->action.lease.evaluate ? evaluate_block(r, job) : train_block(r, job);
}

static void compute_work(uv_work_t *work) {
    recomputation *r = (recomputation *)work;
    uint64_t began = cop_clock_ns();
    cop_compute_thread_init();
    r->finite = true;
    r->error.code = any_block(r, r->job);
    r->compute_ns = cop_clock_ns() - began;
}

/* Reports the outcome of an ACTION_COMPUTE to the core. r NULL: nothing was computed. */
static void answer(coord_engine *engine, const coord_action *a, const recomputation *r) {
    const bool failed = !r || r->error.code != COP_OK;
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
                                       .failed = failed,
                                       .busy = !r || r->error.code == COP_ERR_NO_MEMORY};
    if (r) {
        event.result.compute_ns = r->compute_ns;
        event.result.finite = r->finite && isfinite(r->sums.loss);
        event.result.loss = r->sums.loss;
        event.result.correct = (uint64_t)r->sums.correct;
        event.result.samples = (uint64_t)row_count(r);
        event.result.digest = r->digest;
    }
    event.result.slot = coord_take_slot(engine, failed ? NULL : r->gradient);
    if (!event.result.slot) {
        event.result.failed = event.result.busy = true;
        event.text = "too many pending results";
    }
    coord_dispatch(engine, &event);
}

static void free_recomputation(recomputation *r) {
    cop_buffer_release(r->gradient);
    cop_message_fini(&r->lease);
    cop_job_release(r->job);
    cop_free(r);
}

static void compute_done(uv_work_t *work, int status) {
    recomputation *r = (recomputation *)work;
    coord_engine *engine = r->engine;
    (void)status;
    if (r->error.code)
        cop_log(COP_LOG_ERROR, "coordinator",
                "job %llu: the coordinator cannot compute a block: %s",
                (unsigned long long)r->action.job, r->error.text);
    answer(engine, &r->action, r);
    COP_ASSERT(engine->recomputing > 0);
    engine->recomputing--;
    free_recomputation(r);
}

static cop_err fill_lease(coord_engine *engine, recomputation *r) {
    const coord_action *action = &r->action;
    coord_resident *resident = coord_resident_find(engine, action->job);
    coord_evaluation *evaluation = coord_evaluation_find(engine, action->job);
    const cop_pull nothing = {0}; /* asks for the whole lease: this process keeps no job and no
                                     weights of earlier leases */
    COP_ASSERT(resident || evaluation);
    r->job = cop_job_hold(evaluation ? coord_evaluation_job(evaluation, action) : resident->job);
    if (evaluation) return coord_evaluation_fill_lease(evaluation, action, &nothing, &r->lease);
    return coord_resident_fill_lease(resident, action, false, true, &r->lease);
}

void coord_recompute(coord_engine *engine, const coord_action *action) {
    COP_ASSERT(action->type == COORD_ACTION_COMPUTE && action->worker == COORD_SELF);
    recomputation *r = cop_alloc(sizeof *r);
    if (!r) {
        answer(engine, action, NULL);
        return;
    }
    r->engine = engine;
    r->action = *action;
    r->lease.type = COP_MESSAGE_LEASE;
    if (fill_lease(engine, r)) {
        free_recomputation(r);
        answer(engine, action, NULL);
        return;
    }
    engine->recomputing++;
    uv_queue_work(&engine->loop, &r->work, compute_work, compute_done);
}
