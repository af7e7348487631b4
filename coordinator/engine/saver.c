/* Checkpoints and final models, written by a thread of their own, so that the loop never waits for
 * fsync. A request holds the immutable version that it writes, so training goes on meanwhile. A
 * failed write (full disk) is reported; the job goes on, and the next checkpoint tries again. */
#include <stddef.h>
#include <stdio.h>

#include "coordinator/engine/saver.h"

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"

typedef struct save_request {
    cop_task task;
    coord_mail mail; /* posted when done */
    coord_engine *engine;
    uint64_t job;
    cop_job *built;
    char *folder;
    coord_version version;
    coord_action action;
    bool ok;
    char digest[65], text[512];
} save_request;

static void free_request(save_request *r) {
    cop_job_release(r->built);
    cop_buffer_release(r->version.weights);
    cop_buffer_release(r->version.state[0]);
    cop_buffer_release(r->version.state[1]);
    cop_free(r->folder);
    cop_free(r);
}

/* ---- saver thread ---- */

static cop_err write_files(save_request *r, const cop_job *job, cop_error *error) {
    unsigned char digest[32];
    cop_checkpoint c = {.step = r->version.step,
                        .weights = r->version.weights->data,
                        .train_loss_sum = r->action.checkpoint.loss_sum,
                        .train_samples = r->action.checkpoint.samples,
                        .train_correct = r->action.checkpoint.correct,
                        .seconds = r->action.checkpoint.seconds,
                        .best_error = r->action.checkpoint.best_error,
                        .has_best = r->action.checkpoint.has_best,
                        .is_best = r->action.checkpoint.best};
    for (int i = 0; i < 2; i++)
        c.states[i] = r->version.state[i] ? r->version.state[i]->data : NULL;
    COP_TRY(cop_model_digest(job->model, c.weights, digest, error));
    cop_hex32(digest, r->digest);
    if (!r->folder) return COP_OK;
    /* First write the store: a job that continues from this checkpoint does not report the earlier
     * metrics again. If the store cannot be written, the checkpoint is written all the same, except
     * for a job with numerics openblas: the store may not know yet to which OpenBLAS the job is
     * pinned, and after a restart another kind of worker might continue it. */
    cop_err stored = r->engine->store ? coord_store_flush(r->engine->store) : COP_OK;
    if (stored && job->numerics == COP_NUMERICS_OPENBLAS)
        return cop_fail(error, stored, "cannot write the store");
    COP_TRY(cop_checkpoint_save(job, r->folder, &c, error));
    if (!r->action.checkpoint.final) return COP_OK;
    char *path = cop_path_join(r->folder, "model.safetensors");
    if (!path) return cop_no_memory(error);
    cop_err e = cop_job_save_model(job, c.weights, c.step, path, error);
    cop_free(path);
    return e;
}

/* Runs on the loop thread after a write. Reports its outcome to the core, the store and the
 * watchers. */
static void saved(coord_engine *engine, coord_mail *mail) {
    save_request *r = (save_request *)(void *)((char *)mail - offsetof(save_request, mail));
    char text[600] = "";
    if (!r->ok) {
        snprintf(text, sizeof text, "checkpoint of step %llu failed: %s; training continues",
                 (unsigned long long)r->version.step, r->text);
        cop_log(COP_LOG_WARN, "coordinator", "job %llu: %s", (unsigned long long)r->job, text);
    }
    if (engine->store && r->ok)
        coord_store_set_digest(engine->store, r->job, r->version.step, r->digest);
    if (engine->store && !r->ok) coord_store_add_event(engine->store, r->job, "warn", text);
    coord_engine_note(engine, &r->action, r->ok ? r->digest : NULL, text);
    coord_event done = {
        .type = COORD_EVENT_CHECKPOINTED, .job = r->job, .step = r->version.step, .ok = r->ok};
    done.text = r->text;
    coord_dispatch(engine, &done);
    free_request(r);
}

/* Writes the files of a request. Runs on the saver's thread. */
static void save(cop_task *task) {
    save_request *r = (save_request *)(void *)((char *)task - offsetof(save_request, task));
    cop_error error = {0};
    r->ok = write_files(r, r->built, &error) == COP_OK;
    snprintf(r->text, sizeof r->text, "%s", error.text);
    r->mail.run = saved;
    coord_post(r->engine, &r->mail);
}

/* ---- loop thread ---- */

static void report_no_memory(coord_engine *engine, uint64_t job, uint64_t step) {
    coord_event failed = {
        .type = COORD_EVENT_CHECKPOINTED, .job = job, .step = step, .text = "out of memory"};
    cop_log(COP_LOG_WARN, "coordinator", "job %llu: no memory for a checkpoint",
            (unsigned long long)job);
    coord_dispatch(engine, &failed);
}

void coord_saver_submit(coord_engine *engine, coord_resident *resident,
                        const coord_action *action) {
    COP_ASSERT(action->type == COORD_ACTION_CHECKPOINT && resident->id == action->job);
    COP_ASSERT(resident->current.step == action->step && resident->current.weights);
    save_request *r = cop_alloc(sizeof *r);
    char *folder = r && resident->folder ? cop_strdup(resident->folder) : NULL;
    if (!r || (resident->folder && !folder)) {
        cop_free(r);
        report_no_memory(engine, resident->id, action->step);
        return;
    }
    r->engine = engine;
    r->job = resident->id;
    r->folder = folder;
    r->built = cop_job_hold(resident->job);
    r->version = resident->current;
    cop_buffer_hold(r->version.weights);
    for (int i = 0; i < 2; i++)
        if (r->version.state[i]) cop_buffer_hold(r->version.state[i]);
    r->action = *action;
    r->task = (cop_task){.done = save};
    cop_thread_pool_submit(engine->saver, &r->task);
}
