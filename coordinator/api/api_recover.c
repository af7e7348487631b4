/* Jobs of the store: at the start of the coordinator they are read and continued, and when a job
 * gets its turn, its weights are loaded into memory. See api.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/api/api.h"

/* ---- recovery ---- */

/* Fills the note from the row. `job` is the job that was built from the row's spec, or NULL if this
 * program cannot build it. */
static void fill_note(api_note *n, const coord_store_job *row, const cop_job *job) {
    n->state = row->state;
    n->step = row->step;
    n->seconds = row->seconds;
    n->has_train_loss = row->has_train_loss;
    n->train_loss = row->train_loss;
    n->has_evaluation = row->has_evaluation;
    n->test_error = row->test_error;
    n->test_loss = row->test_loss;
    snprintf(n->name, sizeof n->name, "%s", row->name);
    snprintf(n->owner, sizeof n->owner, "%s", row->owner);
    snprintf(n->text, sizeof n->text, "%s", row->text);
    snprintf(n->digest, sizeof n->digest, "%s", row->digest);
    snprintf(n->data_digest, sizeof n->data_digest, "%s", row->data_digest);
    snprintf(n->created, sizeof n->created, "%s", row->created);
    snprintf(n->finished, sizeof n->finished, "%s", row->finished);
    if (!job) return;
    /* The row may have another digest than the pinned section. The job loads the pinned set. */
    snprintf(n->data_digest, sizeof n->data_digest, "%s", job->message->pinned->data_digest);
    n->steps = job->steps;
    n->steps_per_epoch = job->steps_per_epoch;
    n->on_test = job->evaluate_on_test;
    n->priority = job->message->priority;
    n->batch = job->batch;
    n->evaluated_step = row->state == COORD_COMPLETED ? job->steps : 0;
    n->evaluated_samples = job->evaluate_on_test ? job->test_samples : job->validation_samples;
}

typedef struct recovery {
    coord_api *api;
    coord_job_info *unfinished; /* array of the unfinished jobs, the newest first */
    uint32_t count;             /* number of unfinished jobs */
    uint32_t capacity;          /* number of jobs that the array has room for */
} recovery;

/* Appends an element to the array and returns it. NULL: out of memory. */
static coord_job_info *next_info(recovery *r) {
    if (r->count == r->capacity) {
        uint32_t capacity = r->capacity ? r->capacity * 2 : 16;
        coord_job_info *infos = cop_realloc(r->unfinished, capacity * sizeof *infos);
        if (!infos) return NULL;
        r->unfinished = infos;
        r->capacity = capacity;
    }
    return &r->unfinished[r->count++];
}

/* Takes a job from the store: appends its note, recalls the key of its submission, and collects it
 * if it is unfinished. The store lists the newest job first, so the table of notes must be reversed
 * after the last row. An unfinished job that this program cannot build is marked as failed. */
static cop_err recover_one(void *context, const coord_store_job *row) {
    recovery *r = context;
    coord_api *api = r->api;
    cop_job *job = NULL;
    cop_error error = {0};
    api_note *n = api_note_append(api, row->job);
    if (!n) return COP_ERR_NO_MEMORY;
    cop_err e = cop_job_from_bytes(row->spec->data, row->spec->size, &job, &error);
    if (e == COP_ERR_NO_MEMORY) return e; /* not a fault of the job, which must not fail for it */
    fill_note(n, row, e ? NULL : job);
    /* The client may repeat its submission, if it has not received the answer. */
    if (row->has_key) recovery_restore(&api->keys, row->key, row->job);
    if (recovery_takes_up(row->state) && e) {
        n->state = COORD_FAILED;
        snprintf(n->text, sizeof n->text, "%s", error.text);
        coord_store_set_state(api->engine->store, row->job, COORD_FAILED, error.text);
    } else if (recovery_takes_up(row->state)) {
        coord_job_info *info = next_info(r);
        n->state = recovery_state(row->state);
        if (info) coord_job_info_make(job, row->job, n->state, info);
        if (info && row->fingerprint) info->fingerprint = row->fingerprint;
        e = info ? COP_OK : COP_ERR_NO_MEMORY;
    } else {
        e = COP_OK;
    }
    if (job) cop_job_release(job);
    return e == COP_ERR_NO_MEMORY ? e : COP_OK;
}

static void reverse_notes(coord_api *api) {
    for (uint32_t low = 0, high = api->count; low + 1 < high; low++, high--) {
        api_note note = api->notes[low];
        api->notes[low] = api->notes[high - 1];
        api->notes[high - 1] = note;
    }
}

/* Hands the unfinished jobs to the core, the oldest first. recover_one has changed the state of
 * jobs that were RUNNING to QUEUED. */
static void add_unfinished(const recovery *r) {
    for (uint32_t i = r->count; i-- > 0;) {
        coord_event added = {
            .type = COORD_EVENT_JOB_ADDED, .job = r->unfinished[i].job, .info = r->unfinished[i]};
        const api_note *n = api_note_find(r->api, added.job);
        COP_ASSERT(n != NULL);
        coord_datasets_use(r->api->engine->datasets, n->data_digest);
        coord_store_set_state(r->api->engine->store, n->job, n->state, n->text);
        cop_log(COP_LOG_INFO, "coordinator", "job %llu (%s) recovered after a restart",
                (unsigned long long)n->job, n->name);
        coord_dispatch(r->api->engine, &added);
    }
}

/* Removes the folders of jobs that have no row in the store. Such a folder is left if the removal
 * of its job was interrupted. Does not touch folders of jobs that are submitted after the start. */
static void sweep_work(api_task *t) {
    char path[4096], **names = NULL;
    size_t count = 0;
    if (cop_folder_list(t->folder, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        uint64_t job;
        if (!cop_parse_u64(names[i], &job) || job >= t->job) continue;
        if (coord_store_has_job(t->api->engine->store, job)) continue;
        snprintf(path, sizeof path, "%.3000s/%s", t->folder, names[i]);
        cop_folder_remove(path, NULL);
    }
    cop_free(names);
}

static void sweep(coord_api *api) {
    api_task *t = api_task_create(api, NULL, NULL);
    if (!t) return; /* the next start tries again */
    t->job = api->next_job;
    snprintf(t->folder, sizeof t->folder, "%s/jobs", api->engine->state_folder);
    api_task_start(t, sweep_work, api_task_free);
}

cop_err coord_api_recover(coord_api *api, cop_error *error) {
    COP_ASSERT(api->count == 0);
    recovery r = {.api = api};
    api->next_job = coord_store_last_job(api->engine->store) + 1;
    api->evaluations = coord_store_last_evaluation(api->engine->store);
    cop_err e = coord_store_each_job(api->engine->store, COP_JOBS_MAX, recover_one, &r, error);
    if (e == COP_ERR_NO_MEMORY) cop_fail(error, e, "out of memory for the jobs of the store");
    if (!e) {
        recovery_restore_done(&api->keys);
        reverse_notes(api);
        add_unfinished(&r);
        sweep(api);
    }
    cop_free(r.unfinished);
    return e;
}

/* ---- loading a job when its turn has come ---- */

static void load_work(api_task *t) {
    coord_store_job row;
    cop_data *data = NULL;
    cop_job *job = NULL;
    t->result = coord_store_get_job(t->api->engine->store, t->job, &row, &t->error);
    if (t->result) return;
    t->result = cop_job_from_bytes(row.spec->data, row.spec->size, &job, &t->error);
    cop_buffer_release(row.spec);
    if (!t->result)
        t->result = coord_datasets_load(t->api->engine->datasets, job->message->pinned->data_digest,
                                        &data, &t->error);
    if (!t->result)
        t->result = coord_resident_prepare(t->resident,
                                           &(coord_start_at){.job = job,
                                                             .share = t->api->engine->share_memory,
                                                             .data = data,
                                                             .folder = t->folder,
                                                             .resume = true,
                                                             .max_step = t->value},
                                           &t->start, &t->text, &t->error);
    else if (job)
        cop_job_release(job);
}

static void log_notes(const api_task *t) {
    const char *rest = cop_str_text(&t->text);
    char line[1000];
    while (cop_take_line(&rest, line, sizeof line)) {
        cop_log(COP_LOG_WARN, "coordinator", "job %llu: %s", (unsigned long long)t->job, line);
        coord_store_add_event(t->api->engine->store, t->job, "warn", line);
    }
}

/* Reports JOB_LOADED or JOB_FAILED to the core. */
static void load_done(api_task *t) {
    coord_api *api = t->api;
    COP_ASSERT(t->resident && !t->request);
    coord_event event = {.type = COORD_EVENT_JOB_LOADED, .job = t->job};
    log_notes(t);
    if (t->result) {
        coord_resident_fini(t->resident);
        event.type = COORD_EVENT_JOB_FAILED;
        event.text = t->error.text;
    } else {
        t->resident->id = t->job;
        event.loaded.step = t->start.step;
        event.loaded.loss_sum = t->start.train_loss_sum;
        event.loaded.samples = t->start.train_samples;
        event.loaded.correct = t->start.train_correct;
        event.loaded.seconds = t->start.seconds;
        event.loaded.best_error = t->start.best_error;
        event.loaded.has_best = t->start.has_best;
        api_note *n = api_note_find(api, t->job);
        if (n) {
            n->step = t->start.step;
            n->epoch_loss_sum = t->start.train_loss_sum;
            n->samples = t->start.train_samples;
        }
    }
    coord_dispatch(api->engine, &event);
    api_task_free(t);
}

static void fail_no_memory(coord_api *api, uint64_t job) {
    const coord_event failed = {
        .type = COORD_EVENT_JOB_FAILED, .job = job, .text = "the coordinator is out of memory"};
    coord_dispatch(api->engine, &failed);
}

static void rollback_work(api_task *t) {
    t->result = coord_resident_return(t->resident, t->value, &t->start, &t->text, &t->error);
}

void api_rollback(coord_engine *engine, uint64_t job, uint64_t max_step) {
    coord_api *api = api_of(engine);
    api_task *t = api_task_create(api, NULL, NULL);
    coord_resident *resident = coord_resident_find(api->engine, job);
    COP_ASSERT(resident != NULL);
    if (!t) {
        coord_resident_fini(resident);
        fail_no_memory(api, job);
        return;
    }
    t->job = job;
    t->value = max_step;
    t->resident = resident;
    api_task_start(t, rollback_work, load_done);
}

/* Returns a free place for the weights of a job. NULL: all places are taken. */
static coord_resident *find_free_resident(coord_engine *engine) {
    for (uint32_t i = 0; i < COORD_RESIDENT_MAX; i++)
        if (!engine->resident[i].id && !engine->resident[i].reserved) return &engine->resident[i];
    return NULL;
}

void api_load(coord_engine *engine, uint64_t job, uint64_t max_step) {
    coord_api *api = api_of(engine);
    api_task *t = api_task_create(api, NULL, NULL);
    coord_resident *resident = find_free_resident(engine);
    COP_ASSERT(!coord_resident_find(engine, job));
    if (!t || !resident) {
        if (t) api_task_free(t);
        fail_no_memory(api, job);
        return;
    }
    resident->reserved = true;
    t->job = job;
    t->value = max_step;
    t->resident = resident;
    coord_job_folder(api->engine, job, t->folder, sizeof t->folder);
    api_task_start(t, load_work, load_done);
}
