/* Calls about jobs and workers. See api.h. */
#include <stdio.h>
#include <sys/resource.h>

#include "coordinator/api.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/version.h"
#include "common/wire/codec.h"

/* ---- submit ---- */

/* The job's message as one of its own, with its own arena, which cop_job takes over. */
static cop_err copy_job(const Coppice__Job *job, Coppice__Job **out, cop_error *error) {
    cop_buffer *packed = cop_proto_pack(&job->base);
    ProtobufCMessage *copy = NULL;
    if (!packed) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = cop_proto_unpack(&coppice__job__descriptor, packed->data, packed->size, API_BUDGET,
                                 &copy, error);
    cop_buffer_release(packed);
    *out = (Coppice__Job *)copy;
    return e;
}

/* On the thread pool: check the job, find and load its data, resolve and pin. */
static void submit_work(api_task *t) {
    const Coppice__Api__SubmitRequest *r = (const Coppice__Api__SubmitRequest *)t->message;
    Coppice__Job *job = NULL;
    t->result = cop_document_check(r->job, &t->error);
    if (!t->result) t->result = copy_job(r->job, &job, &t->error);
    if (!t->result) {
        job->pinned = NULL; /* ours to say */
        const char *name = r->data_digest && *r->data_digest ? r->data_digest : job->data->source;
        t->result = coord_datasets_load(t->server->datasets, name, &t->data, &t->error);
    }
    if (!t->result) t->result = cop_job_create(job, t->data, &t->built, &t->error);
    if (t->result && job) cop_proto_free(&job->base);
    if (!t->result && !r->dry_run)
        t->result = coord_datasets_keep(t->server->datasets, t->data, &t->error);
}

/* On the loop: the commit is done, so the job exists. */
static void submit_committed(coord_server *server, coord_mail *mail) {
    api_task *t = (api_task *)(void *)((char *)mail - offsetof(api_task, mail));
    Coppice__Api__SubmitAnswer answer = COPPICE__API__SUBMIT_ANSWER__INIT;
    server->api->tasks--;
    if (t->result) {
        api_note_remove(server->api, t->job);
        api_fail(t->request, &t->error, t->result);
        api_task_free(t);
        return;
    }
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = t->job};
    coord_job_info_make(t->built, t->job, COORD_QUEUED, &added.info);
    answer.has_job = 1;
    answer.job = t->job;
    answer.resolved = t->built->message;
    api_answer(t->request, COPPICE__API__METHOD__SUBMIT, &answer.base, NULL);
    cop_log(COP_LOG_INFO, "coordinator", "job %llu (%s) submitted", (unsigned long long)t->job,
            t->built->message->name);
    coord_dispatch(server, &added);
    api_task_free(t);
}

/* On the store's thread. */
static void on_commit(void *context, cop_err result, const char *text) {
    api_task *t = context;
    t->result = result;
    if (result) cop_fail(&t->error, result, "the job could not be stored: %s", text);
    t->mail.run = submit_committed;
    coord_post(t->server, &t->mail);
}

static void remember_key(struct coord_api *api, const Coppice__Api__SubmitRequest *r,
                         uint64_t job) {
    if (!r->has_idempotency || r->idempotency.len != 16) return;
    memcpy(api->keys[api->next_key % API_KEYS].key, r->idempotency.data, 16);
    api->keys[api->next_key++ % API_KEYS].job = job;
}

static uint64_t known_key(const struct coord_api *api, const Coppice__Api__SubmitRequest *r) {
    if (!r->has_idempotency || r->idempotency.len != 16) return 0;
    for (uint32_t i = 0; i < API_KEYS; i++)
        if (api->keys[i].job && memcmp(api->keys[i].key, r->idempotency.data, 16) == 0)
            return api->keys[i].job;
    return 0;
}

static void answer_submitted(cop_request *request, uint64_t job) {
    Coppice__Api__SubmitAnswer answer = COPPICE__API__SUBMIT_ANSWER__INIT;
    answer.has_job = 1;
    answer.job = job;
    api_answer(request, COPPICE__API__METHOD__SUBMIT, &answer.base, NULL);
}

static bool begin_note(struct coord_api *api, api_task *t) {
    const cop_job *job = t->built;
    api_note *n = api->count < COP_JOBS_MAX ? api_note_add(api, api->next_job) : NULL;
    if (!n) return false;
    t->job = api->next_job++;
    snprintf(n->name, sizeof n->name, "%s", job->message->name);
    snprintf(n->data_digest, sizeof n->data_digest, "%s", job->message->pinned->data_digest);
    cop_clock_format_utc(cop_clock_unix_ms(), n->created);
    n->steps = job->steps;
    n->steps_per_epoch = job->steps_per_epoch;
    n->on_test = job->evaluate_on_test;
    n->priority = job->message->priority;
    return true;
}

static void submit_done(api_task *t) {
    struct coord_api *api = t->server->api;
    const Coppice__Api__SubmitRequest *r = (const Coppice__Api__SubmitRequest *)t->message;
    cop_buffer *spec = NULL;
    if (!t->result && r->dry_run) {
        answer_submitted(t->request, 0);
        api_task_free(t);
        return;
    }
    if (!t->result && !(spec = cop_job_pack(t->built)))
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    if (!t->result && !begin_note(api, t))
        t->result =
            cop_fail(&t->error, COP_ERR_LIMIT,
                     "the coordinator has %d jobs already: remove some (coppice rm)", COP_JOBS_MAX);
    if (t->result) {
        cop_buffer_release(spec);
        api_fail(t->request, &t->error, t->result);
        api_task_free(t);
        return;
    }
    remember_key(api, r, t->job);
    api->tasks++; /* until the commit is reported */
    coord_store_add_job(t->server->store, t->job, t->built->message->name, spec,
                        t->built->message->pinned->data_digest, on_commit, t);
    cop_buffer_release(spec);
}

void api_submit(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__SubmitRequest *r = (const Coppice__Api__SubmitRequest *)message;
    uint64_t known = known_key(server->api, r);
    if (!r->job || known) {
        if (known)
            answer_submitted(request, known);
        else
            coord_reply_failure(request, COP_ERR_INPUT, "there is no job in the call");
        cop_proto_free(message);
        return;
    }
    api_task *t = api_task_create(server, request, message);
    if (!t) return;
    t->work = submit_work;
    t->done = submit_done;
    api_task_start(t);
}

/* ---- looking ---- */

static void unknown_job(cop_request *request, uint64_t job) {
    coord_reply_failure(request, COP_ERR_NOT_FOUND,
                        "there is no job %llu (coppice jobs lists them)", (unsigned long long)job);
}

void api_list_jobs(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    uint32_t limit = ((const Coppice__Api__ListJobsRequest *)message)->limit;
    struct coord_api *api = server->api;
    uint32_t count = limit && limit < api->count ? limit : api->count < 1000 ? api->count : 1000;
    Coppice__Api__JobStatus *statuses = cop_alloc_array(count + 1, sizeof *statuses);
    Coppice__Api__JobStatus **table = cop_alloc_array(count + 1, sizeof *table);
    cop_proto_free(message);
    for (uint32_t i = 0; statuses && table && i < count; i++) {
        table[i] = &statuses[i];
        api_status(server, &api->notes[api->count - 1 - i], table[i]);
    }
    Coppice__Api__ListJobsAnswer answer = COPPICE__API__LIST_JOBS_ANSWER__INIT;
    answer.jobs = table;
    answer.n_jobs = count;
    if (statuses && table)
        api_answer(request, COPPICE__API__METHOD__LIST_JOBS, &answer.base, NULL);
    else
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
    cop_free(statuses);
    cop_free(table);
}

void api_get_job(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    uint64_t job = ((const Coppice__Api__GetJobRequest *)message)->job;
    api_note *n = api_note_find(server->api, job);
    cop_proto_free(message);
    if (!n) {
        unknown_job(request, job);
        return;
    }
    Coppice__Api__JobStatus status;
    Coppice__Api__GetJobAnswer answer = COPPICE__API__GET_JOB_ANSWER__INIT;
    api_status(server, n, &status);
    answer.status = &status;
    api_answer(request, COPPICE__API__METHOD__GET_JOB, &answer.base, NULL);
}

void api_answer_watch(coord_server *server, api_watcher *w, const api_note *note) {
    cop_request *request = w->request;
    w->request = NULL;
    if (!note) {
        unknown_job(request, w->job);
        return;
    }
    Coppice__Api__JobStatus status;
    Coppice__Api__WatchJobAnswer answer = COPPICE__API__WATCH_JOB_ANSWER__INIT;
    api_status(server, note, &status);
    answer.status = &status;
    answer.has_version = 1;
    answer.version = note->version;
    api_answer(request, COPPICE__API__METHOD__WATCH_JOB, &answer.base, NULL);
}

static uint64_t hold_until(uint32_t hold_ms, uint64_t now) {
    return now + (uint64_t)(hold_ms < COP_HOLD_MAX_MS ? hold_ms : COP_HOLD_MAX_MS) * 1000000;
}

void api_watch_job(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__WatchJobRequest *r = (const Coppice__Api__WatchJobRequest *)message;
    uint64_t now = cop_clock_ns();
    api_watcher w = {.request = request,
                     .job = r->job,
                     .version = r->version,
                     .deadline_ns = hold_until(r->hold_ms, now),
                     .not_before_ns = now + 100000000};
    const api_note *n = api_note_find(server->api, r->job);
    cop_proto_free(message);
    if (!n || !w.version || n->state >= COORD_COMPLETED)
        api_answer_watch(server, &w, n); /* the first look is at once */
    else
        api_hold(server, &w);
}

/* ---- control ---- */

static void remove_work(api_task *t) {
    t->result = cop_folder_remove(t->folder, &t->error);
}

static void remove_done(api_task *t) {
    Coppice__Api__ControlJobAnswer answer = COPPICE__API__CONTROL_JOB_ANSWER__INIT;
    if (t->result)
        api_fail(t->request, &t->error, t->result);
    else
        api_answer(t->request, COPPICE__API__METHOD__CONTROL_JOB, &answer.base, NULL);
    api_task_free(t);
}

static void remove_job(coord_server *server, cop_request *request, const api_note *n) {
    if (n->state < COORD_COMPLETED) {
        coord_reply_failure(request, COP_ERR_BUSY,
                            "job %llu has not ended: cancel it first (coppice cancel %llu)",
                            (unsigned long long)n->job, (unsigned long long)n->job);
        return;
    }
    api_task *t = api_task_create(server, request, NULL);
    if (!t) return;
    coord_api_job_folder(server, n->job, t->folder, sizeof t->folder);
    coord_store_remove_job(server->store, n->job, NULL, NULL);
    api_note_remove(server->api, n->job);
    t->work = remove_work;
    t->done = remove_done;
    api_task_start(t);
}

static bool control(coord_server *server, cop_request *request, const api_note *n,
                    Coppice__Api__ControlJobRequest__Action action) {
    static const coord_event_type events[] = {0, COORD_EVENT_JOB_CANCEL, COORD_EVENT_JOB_PAUSE,
                                              COORD_EVENT_JOB_RESUME};
    coord_event event = {.type = events[action], .job = n->job};
    const char *state = n->state == COORD_COMPLETED ? "COMPLETED"
                        : n->state == COORD_FAILED  ? "FAILED"
                                                    : "CANCELED";
    if (n->state >= COORD_COMPLETED) {
        coord_reply_failure(request, COP_ERR_INPUT, "job %llu has ended (%s)",
                            (unsigned long long)n->job, state);
        return false;
    }
    if (event.type == COORD_EVENT_JOB_RESUME && n->state != COORD_PAUSED) {
        coord_reply_failure(request, COP_ERR_INPUT, "job %llu is not paused",
                            (unsigned long long)n->job);
        return false;
    }
    coord_dispatch(server, &event);
    return true;
}

void api_control_job(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    Coppice__Api__ControlJobRequest r = *(const Coppice__Api__ControlJobRequest *)message;
    api_note *n = api_note_find(server->api, r.job);
    cop_proto_free(message);
    if (!n)
        unknown_job(request, r.job);
    else if (!r.has_action)
        coord_reply_failure(request, COP_ERR_INPUT, "there is no action in the call");
    else if (r.action == COPPICE__API__CONTROL_JOB_REQUEST__ACTION__REMOVE)
        remove_job(server, request, n);
    else if (control(server, request, n, r.action)) {
        Coppice__Api__JobStatus status;
        Coppice__Api__ControlJobAnswer answer = COPPICE__API__CONTROL_JOB_ANSWER__INIT;
        api_status(server, api_note_find(server->api, r.job), &status);
        answer.status = &status;
        api_answer(request, COPPICE__API__METHOD__CONTROL_JOB, &answer.base, NULL);
    }
}

/* ---- logs ---- */

#define EVENTS_AT_ONCE 200
typedef struct event_list {
    Coppice__Api__Event events[EVENTS_AT_ONCE];
    coord_store_event rows[EVENTS_AT_ONCE];
    Coppice__Api__Event *table[EVENTS_AT_ONCE];
    size_t count;
} event_list;

static cop_err take_event(void *context, const coord_store_event *row) {
    event_list *l = context;
    if (l->count < EVENTS_AT_ONCE) l->rows[l->count++] = *row;
    return COP_OK;
}

static void logs_work(api_task *t) {
    t->result = coord_store_each_event(t->server->store, t->job, t->value, EVENTS_AT_ONCE,
                                       take_event, t->extra, &t->error);
}

static void answer_logs(cop_request *request, event_list *l, uint64_t after, bool finished) {
    Coppice__Api__LogsAnswer answer = COPPICE__API__LOGS_ANSWER__INIT;
    for (size_t i = 0; i < l->count; i++) {
        Coppice__Api__Event *e = l->table[i] = &l->events[i];
        coppice__api__event__init(e);
        e->has_id = e->has_job = 1;
        e->id = l->rows[i].id;
        e->job = l->rows[i].job;
        e->time = l->rows[i].time;
        e->level = l->rows[i].level;
        e->text = l->rows[i].text;
    }
    answer.events = l->table;
    answer.n_events = l->count;
    answer.has_last = answer.has_finished = 1;
    answer.last = l->count ? l->rows[l->count - 1].id : after;
    answer.finished = finished;
    api_answer(request, COPPICE__API__METHOD__LOGS, &answer.base, NULL);
}

static void logs_done(api_task *t) {
    api_watcher *w = &t->server->api->watchers[t->method];
    const api_note *n = api_note_find(t->server->api, t->job);
    event_list *l = t->extra;
    uint64_t now = cop_clock_ns();
    bool finished = !n || n->state >= COORD_COMPLETED;
    w->asking = false;
    w->not_before_ns = now + 300000000;
    if (t->result || l->count || finished || now >= w->deadline_ns) {
        cop_request *request = w->request;
        w->request = NULL;
        if (t->result)
            api_fail(request, &t->error, t->result);
        else
            answer_logs(request, l, t->value, finished);
    }
    api_task_free(t);
}

void api_ask_logs(coord_server *server, api_watcher *w) {
    api_task *t = api_task_create(server, NULL, NULL);
    if (t) t->extra = cop_alloc(sizeof(event_list));
    if (!t || !t->extra) {
        if (t) api_task_free(t);
        api_fail(w->request, NULL, COP_ERR_NO_MEMORY);
        w->request = NULL;
        return;
    }
    t->job = w->job;
    t->value = w->after;
    t->method = (uint32_t)(w - server->api->watchers);
    t->work = logs_work;
    t->done = logs_done;
    w->asking = true;
    api_task_start(t);
}

void api_logs(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__LogsRequest *r = (const Coppice__Api__LogsRequest *)message;
    uint64_t job = r->job, now = cop_clock_ns();
    api_watcher w = {.request = request,
                     .job = job,
                     .logs = true,
                     .after = r->after,
                     .deadline_ns = hold_until(r->hold_ms, now),
                     .not_before_ns = now};
    cop_proto_free(message);
    if (!api_note_find(server->api, job))
        unknown_job(request, job);
    else
        api_hold(server, &w); /* asked at the next tick */
}

/* ---- workers ---- */

static void worker_status(coord_server *server, const coord_worker_view *v,
                          Coppice__Api__WorkerStatus *s) {
    const coord_session *session = coord_session_find(server, v->worker);
    coppice__api__worker_status__init(s);
    s->has_worker = s->has_threads = s->has_job = s->has_shards = s->has_seconds =
        s->has_ms_per_shard = 1;
    s->worker = v->worker;
    s->name = (char *)(uintptr_t)v->name;
    s->threads = v->threads;
    s->job = v->job;
    s->shards = v->shards;
    s->seconds = (double)(cop_clock_ns() - v->joined_ns) * 1e-9;
    s->ms_per_shard = v->ms_per_shard;
    s->state = (char *)(uintptr_t)(v->draining ? "draining" : v->computing ? "computing" : "idle");
    if (!session) return;
    s->isa = (char *)(uintptr_t)session->isa;
    s->address = (char *)(uintptr_t)session->address;
    s->build = (char *)(uintptr_t)session->build;
}

void api_list_workers(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    uint32_t count = coord_core_worker_count(server->core);
    Coppice__Api__WorkerStatus *statuses = cop_alloc_array(count + 1, sizeof *statuses);
    Coppice__Api__WorkerStatus **table = cop_alloc_array(count + 1, sizeof *table);
    cop_proto_free(message);
    for (uint32_t i = 0; statuses && table && i < count; i++) {
        coord_worker_view view;
        table[i] = &statuses[i];
        coord_core_worker_at(server->core, i, &view);
        worker_status(server, &view, table[i]);
    }
    Coppice__Api__ListWorkersAnswer answer = COPPICE__API__LIST_WORKERS_ANSWER__INIT;
    answer.workers = table;
    answer.n_workers = count;
    if (statuses && table)
        api_answer(request, COPPICE__API__METHOD__LIST_WORKERS, &answer.base, NULL);
    else
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
    cop_free(statuses);
    cop_free(table);
}

void api_drain_worker(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__DrainWorkerRequest *r = (const Coppice__Api__DrainWorkerRequest *)message;
    coord_session *found = NULL;
    const char *names[64];
    size_t count = 0;
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) {
        coord_session *s = &server->sessions[i];
        if (!s->worker) continue;
        if (count < 64) names[count++] = s->name;
        if (r->name && strcmp(s->name, r->name) == 0) found = s;
    }
    if (!found) {
        const char *nearest = r->name ? cop_nearest_name(r->name, names, count) : NULL;
        coord_reply_failure(request, COP_ERR_NOT_FOUND,
                            "there is no worker \"%.100s\"%s%s%s (coppice workers lists them)",
                            r->name ? r->name : "", nearest ? ": did you mean \"" : "",
                            nearest ? nearest : "", nearest ? "\"?" : "");
        cop_proto_free(message);
        return;
    }
    coord_event drain = {.type = COORD_EVENT_WORKER_DRAIN, .worker = found->worker};
    Coppice__Api__DrainWorkerAnswer answer = COPPICE__API__DRAIN_WORKER_ANSWER__INIT;
    found->drain = true;
    coord_dispatch(server, &drain);
    api_answer(request, COPPICE__API__METHOD__DRAIN_WORKER, &answer.base, NULL);
    cop_proto_free(message);
}

/* ---- models ---- */

static void free_bytes(cop_buffer *buffer) {
    cop_free(buffer->data);
    cop_free(buffer);
}

/* The final model or the newest checkpoint, checked and encoded anew. */
static void export_work(api_task *t) {
    cop_job *job = NULL;
    float *flat = NULL;
    char *bytes = NULL;
    size_t size = 0;
    unsigned char digest[32];
    t->result = cop_job_open_model(t->folder, &job, &flat, &t->value, &t->error);
    if (t->result == COP_ERR_NOT_FOUND)
        cop_fail(&t->error, COP_ERR_NOT_FOUND, "job %llu has no checkpoint yet",
                 (unsigned long long)t->job);
    if (!t->result) t->result = cop_model_digest(job->model, flat, digest, &t->error);
    if (!t->result) t->result = cop_job_encode_model(job, flat, t->value, &bytes, &size, &t->error);
    if (!t->result) {
        t->bulk = cop_buffer_wrap(bytes, size, NULL, free_bytes);
        if (!t->bulk) cop_free(bytes);
        if (!t->bulk)
            t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
        cop_hex32(digest, t->digest);
    }
    cop_job_destroy(job);
    cop_free(flat);
}

static void export_done(api_task *t) {
    Coppice__Api__ExportModelAnswer answer = COPPICE__API__EXPORT_MODEL_ANSWER__INIT;
    if (t->result) {
        api_fail(t->request, &t->error, t->result);
    } else {
        answer.digest = t->digest;
        answer.has_step = answer.has_size = 1;
        answer.step = t->value;
        answer.size = t->bulk->size;
        api_answer(t->request, COPPICE__API__METHOD__EXPORT_MODEL, &answer.base, t->bulk);
        t->bulk = NULL;
    }
    api_task_free(t);
}

void api_export_model(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    uint64_t job = ((const Coppice__Api__ExportModelRequest *)message)->job;
    cop_proto_free(message);
    if (!api_note_find(server->api, job)) {
        unknown_job(request, job);
        return;
    }
    api_task *t = api_task_create(server, request, NULL);
    if (!t) return;
    t->job = job;
    t->work = export_work;
    t->done = export_done;
    coord_api_job_folder(server, job, t->folder, sizeof t->folder);
    api_task_start(t);
}

/* The evaluation of the final weights, which every job ends with. */
void api_evaluate(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    uint64_t job = ((const Coppice__Api__EvaluateRequest *)message)->job;
    const api_note *n = api_note_find(server->api, job);
    cop_proto_free(message);
    if (!n) {
        unknown_job(request, job);
    } else if (n->state != COORD_COMPLETED || !n->has_evaluation) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %llu has no final weights yet: export them when it has ended, or "
                            "see its newest evaluation with `coppice status %llu`",
                            (unsigned long long)job, (unsigned long long)job);
    } else {
        Coppice__Api__EvaluateAnswer answer = COPPICE__API__EVALUATE_ANSWER__INIT;
        answer.has_error = answer.has_loss = answer.has_samples = answer.has_seconds = 1;
        answer.error = n->test_error;
        answer.loss = n->test_loss;
        answer.samples = n->evaluated_samples;
        answer.on = (char *)(uintptr_t)(n->on_test ? "test" : "validation");
        answer.digest = (char *)(uintptr_t)n->digest;
        api_answer(request, COPPICE__API__METHOD__EVALUATE, &answer.base, NULL);
    }
}

void api_info(coord_server *server, cop_request *request, ProtobufCMessage *message) {
    Coppice__Api__InfoAnswer answer = COPPICE__API__INFO_ANSWER__INIT;
    struct rusage usage;
    cop_proto_free(message);
    answer.version = (char *)(uintptr_t)COP_VERSION;
    answer.has_workers = answer.has_jobs = answer.has_uptime = answer.has_rss = 1;
    answer.workers = coord_core_worker_count(server->core);
    answer.jobs = server->api->count;
    answer.uptime = (double)(cop_clock_ns() - server->started_ns) * 1e-9;
    answer.rss = getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
    api_answer(request, COPPICE__API__METHOD__INFO, &answer.base, NULL);
}
