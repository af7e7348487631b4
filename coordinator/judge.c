/* Evidence: digests of what workers sent, and the coordinator's own computing of a block about
 * which they differ (or that nobody else can check). Neither runs on the loop: digests are made by
 * the compute threads, blocks on libuv's thread pool, from their own copy of the job. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/host.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
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

uint64_t coord_digest(const coord_server *server, const cop_buffer *gradient, bool *finite) {
    const float *values = gradient->data;
    size_t count = gradient->size / sizeof *values;
    cop_xxh3 h;
    bool all = true;
    cop_xxh3_init_secret(&h, server->digest_secret);
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? count - at : CHUNK;
        bool fine = server->config.kernels->all_finite(values + at, n);
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
    coord_server *server;
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
    COP_TRY(cop_pass_create(job->model, j->server->config.kernels, job->numerics, row_count(j),
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
    j->digest = coord_digest(j->server, j->gradient, &j->finite);
    return COP_OK;
}

#define EVALUATE_COLUMNS 125 /* D10 */

static cop_err evaluate_block(judgement *j, const cop_job *job) {
    cop_pass *pass;
    COP_TRY(cop_pass_create(job->model, j->server->config.kernels, job->numerics, EVALUATE_COLUMNS,
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

static void judge_work(uv_work_t *work) {
    judgement *j = (judgement *)work;
    const cop_buffer *spec = j->lease.part[3];
    cop_job *job = NULL;
    uint64_t began = cop_clock_ns();
    cop_compute_thread_init();
    j->finite = true;
    cop_err e = cop_job_from_bytes(spec->data, spec->size, &job, &j->error);
    if (!e && !j->action.lease.evaluate)
        j->gradient = cop_buffer_create((size_t)cop_model_floats(job->model) * sizeof(float));
    if (!e && !j->action.lease.evaluate && !j->gradient)
        e = cop_fail(&j->error, COP_ERR_NO_MEMORY, "out of memory for a gradient");
    if (!e) e = j->action.lease.evaluate ? evaluate_block(j, job) : train_block(j, job);
    j->error.code = e;
    j->compute_ns = cop_clock_ns() - began;
    if (job) cop_job_destroy(job);
}

static void judge_done(uv_work_t *work, int status) {
    judgement *j = (judgement *)work;
    coord_server *server = j->server;
    const coord_action *a = &j->action;
    coord_event event = {.type = COORD_EVENT_RESULT,
                         .worker = COORD_SELF,
                         .job = a->job,
                         .step = a->step,
                         .text = j->error.code ? "the coordinator cannot compute it" : NULL};
    (void)status;
    if (j->error.code)
        cop_log(COP_LOG_ERROR, "coordinator", "job %llu: a block cannot be checked here: %s",
                (unsigned long long)a->job, j->error.text);
    event.result = (coord_result_info){.lease = a->lease.lease,
                                       .job = a->job,
                                       .step = a->step,
                                       .compute_ns = j->compute_ns,
                                       .attempt = a->lease.attempt,
                                       .first = a->lease.first,
                                       .count = a->lease.count,
                                       .evaluate = a->lease.evaluate,
                                       .finite = j->finite && isfinite(j->sums.loss),
                                       .failed = j->error.code != COP_OK,
                                       .loss = j->sums.loss,
                                       .correct = (uint64_t)j->sums.correct,
                                       .samples = (uint64_t)row_count(j),
                                       .digest = j->digest,
                                       .slot = coord_take_slot(server, j->gradient)};
    if (event.result.slot) coord_dispatch(server, &event);
    server->judging--;
    cop_buffer_release(j->gradient);
    cop_message_fini(&j->lease);
    cop_free(j);
}

void coord_judge(coord_server *server, const coord_action *action) {
    coord_resident *resident = coord_resident_find(server, action->job);
    COP_ASSERT(resident != NULL);
    judgement *j = cop_alloc(sizeof *j);
    if (!j) return; /* its lease runs out */
    j->server = server;
    j->action = *action;
    j->lease.type = COP_MESSAGE_LEASE;
    if (coord_resident_fill_lease(resident, action, false, false, &j->lease)) {
        cop_message_fini(&j->lease);
        cop_free(j);
        return;
    }
    server->judging++;
    uv_queue_work(&server->loop, &j->work, judge_work, judge_done);
}
