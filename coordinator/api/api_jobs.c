/* Calls about jobs that are there: looking, watching, controlling, logs, models. See api.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/api/api.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/wire/codec.h"

#define LIST_MAX 1000 /* jobs in one answer */

/* ---- looking ---- */

void api_unknown_job(cop_request *request, uint64_t job) {
    coord_reply_failure(request, COP_ERR_NOT_FOUND,
                        "there is no job %llu (coppice jobs lists them)", (unsigned long long)job);
}

/* Is the job one that was asked for? */
static bool is_wanted(const api_note *n, const Coppice__Api__ListJobsRequest *r) {
    return (!r->name || strcmp(r->name, n->name) == 0) &&
           (!r->has_state || (int)r->state == (int)n->state);
}

void api_list_jobs(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__ListJobsRequest *r = (const Coppice__Api__ListJobsRequest *)message;
    const uint32_t limit = r->limit && r->limit < LIST_MAX ? r->limit : LIST_MAX;
    const uint32_t end = r->has_before ? api_note_place(api, r->before) : api->count;
    const uint32_t most = end < limit ? end : limit;
    uint32_t count = 0;
    Coppice__Api__JobStatus *statuses = cop_alloc_array(most + 1, sizeof *statuses);
    Coppice__Api__JobStatus **table = cop_alloc_array(most + 1, sizeof *table);
    for (uint32_t i = end; statuses && table && i-- > 0 && count < most;) {
        if (!is_wanted(&api->notes[i], r)) continue;
        table[count] = &statuses[count];
        api_status(api, &api->notes[i], table[count++]);
    }
    Coppice__Api__ListJobsAnswer answer = COPPICE__API__LIST_JOBS_ANSWER__INIT;
    answer.jobs = table;
    answer.n_jobs = count;
    if (statuses && table)
        api_answer(request, COPPICE__API__METHOD__LIST_JOBS, &answer.base, NULL);
    else
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
    cop_proto_free(message);
    cop_free(statuses);
    cop_free(table);
}

static void answer_job(coord_api *api, cop_request *request, const api_note *n, Coppice__Job *job) {
    Coppice__Api__JobStatus status;
    Coppice__Api__GetJobAnswer answer = COPPICE__API__GET_JOB_ANSWER__INIT;
    api_status(api, n, &status);
    answer.status = &status;
    answer.job = job;
    api_answer(request, COPPICE__API__METHOD__GET_JOB, &answer.base, NULL);
}

/* The job file as it was resolved, from the store. */
static void get_work(api_task *t) {
    coord_store_job row;
    t->result = coord_store_get_job(t->api->engine->store, t->job, &row, &t->error);
    if (t->result) return;
    t->result = cop_proto_unpack(&coppice__job__descriptor, row.spec->data, row.spec->size,
                                 API_BUDGET, &t->answer, &t->error);
    cop_buffer_release(row.spec);
}

static void get_done(api_task *t) {
    const api_note *n = api_note_find(t->api, t->job);
    if (t->result)
        api_fail(t->request, &t->error, t->result);
    else if (!n)
        api_unknown_job(t->request, t->job); /* removed meanwhile */
    else
        answer_job(t->api, t->request, n, (Coppice__Job *)t->answer);
    api_task_free(t);
}

void api_get_job(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    uint64_t job = ((const Coppice__Api__GetJobRequest *)message)->job;
    bool with_job = ((const Coppice__Api__GetJobRequest *)message)->with_job;
    const api_note *n = api_note_find(api, job);
    cop_proto_free(message);
    if (!n || !with_job) {
        if (n)
            answer_job(api, request, n, NULL);
        else
            api_unknown_job(request, job);
        return;
    }
    api_task *t = api_task_create(api, request, NULL);
    if (!t) return;
    t->job = job;
    t->work = get_work;
    t->done = get_done;
    api_task_start(t);
}

void api_answer_watch(coord_api *api, api_watcher *w, const api_note *note) {
    cop_request *request = w->request;
    w->request = NULL;
    if (!note) {
        api_unknown_job(request, w->job);
        return;
    }
    Coppice__Api__JobStatus status;
    Coppice__Api__WatchJobAnswer answer = COPPICE__API__WATCH_JOB_ANSWER__INIT;
    api_status(api, note, &status);
    answer.status = &status;
    answer.has_version = 1;
    answer.version = note->version;
    answer.has_retry_ms = w->at_once;
    answer.retry_ms = API_RETRY_MS;
    api_answer(request, COPPICE__API__METHOD__WATCH_JOB, &answer.base, NULL);
}

uint64_t api_hold_until(uint32_t hold_ms, uint64_t now) {
    return now + (uint64_t)(hold_ms < COP_HOLD_MAX_MS ? hold_ms : COP_HOLD_MAX_MS) * 1000000;
}

void api_watch_job(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__WatchJobRequest *r = (const Coppice__Api__WatchJobRequest *)message;
    uint64_t now = cop_clock_ns();
    api_watcher w = {.request = request,
                     .job = r->job,
                     .version = r->version,
                     .deadline_ns = api_hold_until(r->hold_ms, now),
                     .not_before_ns = now + 100000000};
    const api_note *n = api_note_find(api, r->job);
    cop_proto_free(message);
    if (!n || !w.version || n->state >= COORD_COMPLETED)
        api_answer_watch(api, &w, n); /* the first look is at once */
    else
        api_hold(api, &w);
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

/* The store has forgotten the job: now its folder. */
static void removed_from_store(coord_engine *engine, coord_mail *mail) {
    coord_api *api = api_of(engine);
    api_task *t = (api_task *)(void *)((char *)mail - offsetof(api_task, mail));
    api->tasks--;
    if (t->result) {
        api_fail(t->request, &t->error, t->result);
        api_task_free(t);
        return;
    }
    api_note_remove(api, t->job);
    t->work = remove_work;
    t->done = remove_done;
    api_task_start(t);
}

/* On the store's thread. */
static void on_removed(void *context, cop_err result, const char *text) {
    api_task *t = context;
    t->result = result;
    if (result)
        cop_fail(&t->error, result, "cannot remove job %llu: %s", (unsigned long long)t->job, text);
    t->mail.run = removed_from_store;
    coord_post(t->api->engine, &t->mail);
}

static void remove_job(coord_api *api, cop_request *request, const api_note *n) {
    if (n->state < COORD_COMPLETED) {
        char number[32];
        coord_reply_failure(request, COP_ERR_BUSY,
                            "job %s has not ended: cancel it first (coppice cancel %s)",
                            cop_format_job(n->job, number), number);
        return;
    }
    api_task *t = api_task_create(api, request, NULL);
    if (!t) return;
    t->job = n->job;
    coord_job_folder(api->engine, n->job, t->folder, sizeof t->folder);
    api->tasks++; /* until the commit is reported */
    coord_store_remove_job(api->engine->store, n->job, on_removed, t);
}

/* What was wished is in the store: it survives, so it may be acknowledged. */
static void controlled(coord_engine *engine, coord_mail *mail) {
    coord_api *api = api_of(engine);
    api_task *t = (api_task *)(void *)((char *)mail - offsetof(api_task, mail));
    const api_note *n = api_note_find(api, t->job);
    api->tasks--;
    if (t->result) {
        api_fail(t->request, &t->error, t->result);
    } else if (!n) {
        api_unknown_job(t->request, t->job); /* removed meanwhile */
    } else {
        Coppice__Api__JobStatus status;
        Coppice__Api__ControlJobAnswer answer = COPPICE__API__CONTROL_JOB_ANSWER__INIT;
        api_status(api, n, &status);
        answer.status = &status;
        api_answer(t->request, COPPICE__API__METHOD__CONTROL_JOB, &answer.base, NULL);
    }
    api_task_free(t);
}

/* On the store's thread. */
static void on_confirmed(void *context, cop_err result, const char *text) {
    api_task *t = context;
    t->result = result;
    if (result)
        cop_fail(&t->error, result, "the change to job %llu could not be saved: %s",
                 (unsigned long long)t->job, text);
    t->mail.run = controlled;
    coord_post(t->api->engine, &t->mail);
}

/* Cancel, pause or resume: done at once, acknowledged when a crash cannot undo it. Asked twice is
 * done once: a repeated request is no failure. */
static void control(coord_api *api, cop_request *request, const api_note *n,
                    Coppice__Api__ControlJobRequest__Action action) {
    static const coord_event_type events[] = {0, COORD_EVENT_JOB_CANCEL, COORD_EVENT_JOB_PAUSE,
                                              COORD_EVENT_JOB_RESUME};
    static const coord_job_state wishes[] = {0, COORD_CANCELED, COORD_PAUSED, COORD_QUEUED};
    static const char *const verbs[] = {"", "canceled", "paused", "resumed"};
    COP_ASSERT(action >= 1 && (size_t)action < sizeof events / sizeof *events);
    coord_event event = {.type = events[action], .job = n->job};
    char number[32];
    cop_format_job(n->job, number);
    if (n->evaluation && event.type != COORD_EVENT_JOB_CANCEL) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %s is an evaluation and cannot be %s: it can only be canceled",
                            number, verbs[action]);
        return;
    }
    bool done = n->state == COORD_CANCELED && event.type == COORD_EVENT_JOB_CANCEL;
    if (n->state >= COORD_COMPLETED && !done) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %s has ended (%s) and cannot be %s: expected a job that is "
                            "QUEUED, RUNNING or PAUSED",
                            number, api_state_name(n->state), verbs[action]);
        return;
    }
    api_task *t = api_task_create(api, request, NULL);
    if (!t) return;
    t->job = event.job;
    if (!done) coord_dispatch(api->engine, &event);
    api->tasks++; /* until the commit is reported */
    coord_store_confirm_state(api->engine->store, event.job, wishes[action], on_confirmed, t);
}

void api_control_job(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    Coppice__Api__ControlJobRequest r = *(const Coppice__Api__ControlJobRequest *)message;
    api_note *n = api_note_find(api, r.job);
    cop_proto_free(message);
    if (!n)
        api_unknown_job(request, r.job);
    else if (!r.has_action)
        coord_reply_failure(request, COP_ERR_INPUT,
                            "the call has no action: expected CANCEL, PAUSE, RESUME or REMOVE");
    else if (r.action == COPPICE__API__CONTROL_JOB_REQUEST__ACTION__REMOVE)
        remove_job(api, request, n);
    else
        control(api, request, n, r.action);
}

/* ---- logs ---- */

#define EVENTS_AT_ONCE 200
typedef struct event_list {
    Coppice__Api__Event events[EVENTS_AT_ONCE];
    coord_store_event rows[EVENTS_AT_ONCE];
    Coppice__Api__Event *table[EVENTS_AT_ONCE];
    size_t count;
    bool ended; /* the job had ended before the events were read: these are all */
} event_list;

static cop_err take_event(void *context, const coord_store_event *row) {
    event_list *l = context;
    if (l->count < EVENTS_AT_ONCE) l->rows[l->count++] = *row;
    return COP_OK;
}

static void logs_work(api_task *t) {
    const event_list *l = t->extra;
    if (l->ended) coord_store_flush(t->api->engine->store); /* its last words may still be queued */
    t->result = coord_store_each_event(t->api->engine->store, t->job, t->value, EVENTS_AT_ONCE,
                                       take_event, t->extra, &t->error);
}

static void answer_logs(cop_request *request, event_list *l, uint64_t after, bool finished,
                        bool at_once) {
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
    answer.has_retry_ms = at_once && !l->count && !finished;
    answer.retry_ms = API_RETRY_MS;
    api_answer(request, COPPICE__API__METHOD__LOGS, &answer.base, NULL);
}

static void logs_done(api_task *t) {
    api_watcher now_or_never = {.request = t->request, .at_once = true}; /* its deadline is past */
    api_watcher *w = t->request ? &now_or_never : &t->api->watchers[t->method];
    event_list *l = t->extra;
    uint64_t now = cop_clock_ns();
    bool finished = l->ended && l->count < EVENTS_AT_ONCE;
    w->asking = false;
    w->not_before_ns = now + 300000000;
    if (t->result || l->count || finished || now >= w->deadline_ns) {
        cop_request *request = w->request;
        w->request = NULL;
        if (t->result)
            api_fail(request, &t->error, t->result);
        else
            answer_logs(request, l, t->value, finished, w->at_once);
    }
    api_task_free(t);
}

void api_ask_logs(coord_api *api, api_watcher *w) {
    api_task *t = api_task_create(api, NULL, NULL);
    if (t) t->extra = cop_alloc(sizeof(event_list));
    if (!t || !t->extra) {
        if (t) api_task_free(t);
        api_fail(w->request, NULL, COP_ERR_NO_MEMORY);
        w->request = NULL;
        return;
    }
    const api_note *n = api_note_find(api, w->job);
    ((event_list *)t->extra)->ended = !n || n->state >= COORD_COMPLETED;
    t->job = w->job;
    t->value = w->after;
    if (w->at_once)
        t->request = w->request;
    else
        t->method = (uint32_t)(w - api->watchers);
    t->work = logs_work;
    t->done = logs_done;
    w->asking = true;
    api_task_start(t);
}

void api_logs(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__LogsRequest *r = (const Coppice__Api__LogsRequest *)message;
    uint64_t job = r->job, now = cop_clock_ns();
    api_watcher w = {.request = request,
                     .job = job,
                     .logs = true,
                     .after = r->after,
                     .deadline_ns = api_hold_until(r->hold_ms, now),
                     .not_before_ns = now};
    cop_proto_free(message);
    if (!api_note_find(api, job))
        api_unknown_job(request, job);
    else
        api_hold(api, &w); /* asked at the next tick */
}

/* ---- models ---- */

static void free_bytes(cop_buffer *buffer) {
    cop_free(buffer->data);
    cop_free(buffer);
}

/* The final model or the newest checkpoint, checked and encoded anew. */
static void export_work(api_task *t) {
    coord_model m;
    char *bytes = NULL;
    size_t size = 0;
    t->result = coord_model_open(t->api->engine, t->job, &m, &t->error);
    if (t->result == COP_ERR_NOT_FOUND)
        cop_fail(&t->error, COP_ERR_NOT_FOUND, "job %llu has no checkpoint yet",
                 (unsigned long long)t->job);
    if (t->result) return;
    t->result = cop_job_encode_model(m.job, m.flat, m.step, &bytes, &size, &t->error);
    if (!t->result) {
        t->bulk = cop_buffer_wrap(bytes, size, NULL, free_bytes);
        if (!t->bulk) cop_free(bytes);
        if (!t->bulk)
            t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    }
    t->value = m.step;
    snprintf(t->digest, sizeof t->digest, "%s", m.digest);
    coord_model_close(&m);
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

void api_export_model(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    uint64_t job = ((const Coppice__Api__ExportModelRequest *)message)->job;
    const api_note *n = api_note_find(api, job);
    cop_proto_free(message);
    if (!n || n->evaluation) {
        if (n)
            api_not_completed(request, n);
        else
            api_unknown_job(request, job);
        return;
    }
    api_task *t = api_task_create(api, request, NULL);
    if (!t) return;
    t->job = job;
    t->work = export_work;
    t->done = export_done;
    api_task_start(t);
}

void api_not_completed(cop_request *request, const api_note *n) {
    if (n->evaluation) {
        char number[32];
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %s is an evaluation and has no weights of its own",
                            cop_format_job(n->job, number));
        return;
    }
    coord_reply_failure(request, COP_ERR_INPUT,
                        "job %llu is %s and has no final weights%s: `coppice status %llu` "
                        "shows its newest evaluation, and `coppice export %llu` gets its "
                        "newest weights",
                        (unsigned long long)n->job, api_state_name(n->state),
                        n->state < COORD_COMPLETED ? " yet" : "", (unsigned long long)n->job,
                        (unsigned long long)n->job);
}

/* The evaluation of the final weights, which every job ends with. */
void api_evaluate(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    uint64_t job = ((const Coppice__Api__EvaluateRequest *)message)->job;
    const api_note *n = api_note_find(api, job);
    cop_proto_free(message);
    if (!n) {
        api_unknown_job(request, job);
    } else if (n->state != COORD_COMPLETED || n->evaluation) {
        api_not_completed(request, n);
    } else if (!n->has_evaluation || n->evaluated_step != n->steps) {
        coord_reply_failure(request, COP_ERR_NOT_FOUND,
                            "the final weights of job %llu were not evaluated: get them with "
                            "`coppice export %llu -o FILE` and `coppice eval FILE`",
                            (unsigned long long)job, (unsigned long long)job);
    } else {
        Coppice__Api__EvaluateAnswer answer = COPPICE__API__EVALUATE_ANSWER__INIT;
        answer.has_error = !isnan(n->test_error);
        answer.has_loss = answer.has_samples = 1;
        answer.error = n->test_error;
        answer.loss = n->test_loss;
        answer.samples = n->evaluated_samples;
        answer.on = (char *)(uintptr_t)(n->on_test ? "test" : "validation");
        answer.digest = (char *)(uintptr_t)n->digest;
        api_answer(request, COPPICE__API__METHOD__EVALUATE, &answer.base, NULL);
    }
}
