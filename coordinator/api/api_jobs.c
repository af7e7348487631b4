/* Calls about the jobs of the coordinator: LIST_JOBS, GET_JOB, CONTROL_JOB. See api.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/str.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

#define LIST_MAX 1000 /* the maximum number of jobs in an answer */

/* ---- list ---- */

static bool matches(const api_note *n, const Coppice__Api__ListJobsRequest *r) {
    return (!r->name || strcmp(r->name, n->name) == 0) &&
           (!r->has_state || (int)r->state == (int)n->state);
}

/* Lists the jobs of the request, the newest first. */
void api_list_jobs(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__ListJobsRequest *r = (const Coppice__Api__ListJobsRequest *)message;
    const uint32_t limit = r->limit && r->limit < LIST_MAX ? r->limit : LIST_MAX;
    const uint32_t end = r->has_before ? api_note_place(api, r->before) : api->count;
    const uint32_t max_count = end < limit ? end : limit;
    uint32_t count = 0;
    Coppice__Api__JobStatus *statuses = cop_alloc_array(max_count + 1, sizeof *statuses);
    Coppice__Api__JobStatus **table = cop_alloc_array(max_count + 1, sizeof *table);
    for (uint32_t i = end; statuses && table && i-- > 0 && count < max_count;) {
        if (!matches(&api->notes[i], r)) continue;
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

/* ---- get ---- */

/* Reads the resolved job from the store. */
static void get_work(api_task *t) {
    coord_store_job row;
    t->result = coord_store_get_job(t->api->engine->store, t->job, &row, &t->error);
    if (t->result) return;
    t->result = cop_proto_unpack(&coppice__job__descriptor, row.spec->data, row.spec->size,
                                 API_BUDGET, &t->answer, &t->error);
    cop_buffer_release(row.spec);
}

/* Fills the answer from the note. answer->status points to *status, which this function fills. */
static void fill_answer(coord_api *api, const api_note *n, Coppice__Api__JobStatus *status,
                        Coppice__Api__GetJobAnswer *answer) {
    coppice__api__get_job_answer__init(answer);
    api_status(api, n, status);
    answer->status = status;
}

static void get_done(api_task *t) {
    const api_note *n = api_note_find(t->api, t->job);
    Coppice__Api__JobStatus status;
    Coppice__Api__GetJobAnswer answer = COPPICE__API__GET_JOB_ANSWER__INIT;
    if (!t->result && !n) /* removed in the meantime */
        t->result = cop_fail(&t->error, COP_ERR_NOT_FOUND, "job %llu was removed",
                             (unsigned long long)t->job);
    if (!t->result) fill_answer(t->api, n, &status, &answer);
    answer.job = (Coppice__Job *)t->answer;
    api_task_finish(t, COPPICE__API__METHOD__GET_JOB, &answer.base);
}

void api_get_job(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__GetJobRequest r = *(const Coppice__Api__GetJobRequest *)message;
    const api_note *n = api_note_of(api, request, r.job);
    cop_proto_free(message);
    if (!n) return;
    if (!r.with_job) {
        Coppice__Api__JobStatus status;
        Coppice__Api__GetJobAnswer answer;
        fill_answer(api, n, &status, &answer);
        api_answer(request, COPPICE__API__METHOD__GET_JOB, &answer.base, NULL);
        return;
    }
    api_task *t = api_task_create(api, request, NULL);
    if (!t) return;
    t->job = r.job;
    api_task_start(t, get_work, get_done);
}

/* ---- control: the store reports the result on its own thread, which posts it to the loop ---- */

/* Posts the store's result to the loop thread, where `run` handles it. */
static void post_result(api_task *t, cop_err result, void (*run)(coord_engine *, coord_mail *)) {
    t->result = result;
    t->mail.run = run;
    coord_post(t->api->engine, &t->mail);
}

/* ---- remove ---- */

static void remove_work(api_task *t) {
    t->result = cop_folder_remove(t->folder, &t->error);
}

static void remove_done(api_task *t) {
    const Coppice__Api__ControlJobAnswer answer = COPPICE__API__CONTROL_JOB_ANSWER__INIT;
    api_task_finish(t, COPPICE__API__METHOD__CONTROL_JOB, &answer.base);
}

/* Handles the store's answer to a removal. If the store has removed the job, starts to remove its
 * folder. */
static void removed_from_store(coord_engine *engine, coord_mail *mail) {
    coord_api *api = api_of(engine);
    api_task *t = api_task_of(mail);
    api->tasks--;
    if (t->result) {
        api_fail(t->request, &t->error, t->result);
        api_task_free(t);
        return;
    }
    api_note_remove(api, t->job);
    api_task_start(t, remove_work, remove_done);
}

/* Runs on the store's thread, or, if the write cannot be queued, on the loop thread. */
static void on_removed(void *context, cop_err result, const char *text) {
    api_task *t = context;
    if (result)
        cop_fail(&t->error, result, "cannot remove job %llu: %s", (unsigned long long)t->job, text);
    post_result(t, result, removed_from_store);
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
    api->tasks++; /* removed_from_store subtracts it */
    coord_store_remove_job(api->engine->store, n->job, on_removed, t);
}

/* ---- cancel, pause, resume ---- */

/* Answers the client. If there is no error, the new state is on the disk, so a crash cannot undo
 * it. */
static void controlled(coord_engine *engine, coord_mail *mail) {
    coord_api *api = api_of(engine);
    api_task *t = api_task_of(mail);
    const api_note *n = api_note_find(api, t->job);
    Coppice__Api__JobStatus status;
    Coppice__Api__ControlJobAnswer answer = COPPICE__API__CONTROL_JOB_ANSWER__INIT;
    api->tasks--;
    if (!t->result && !n) /* removed in the meantime */
        t->result = cop_fail(&t->error, COP_ERR_NOT_FOUND, "job %llu was removed",
                             (unsigned long long)t->job);
    if (!t->result) api_status(api, n, answer.status = &status);
    api_task_finish(t, COPPICE__API__METHOD__CONTROL_JOB, &answer.base);
}

/* Runs on the store's thread, or, if the write cannot be queued, on the loop thread. */
static void on_confirmed(void *context, cop_err result, const char *text) {
    api_task *t = context;
    if (result)
        cop_fail(&t->error, result, "the change to job %llu could not be saved: %s",
                 (unsigned long long)t->job, text);
    post_result(t, result, controlled);
}

static const struct {
    coord_event_type event; /* makes the core carry out the action */
    coord_job_state state;  /* the state that the store keeps of the job */
    const char *participle; /* the verb of error messages, such as "paused" */
} actions[] = {
    [COPPICE__API__CONTROL_JOB_REQUEST__ACTION__CANCEL] = {COORD_EVENT_JOB_CANCEL, COORD_CANCELED,
                                                           "canceled"},
    [COPPICE__API__CONTROL_JOB_REQUEST__ACTION__PAUSE] = {COORD_EVENT_JOB_PAUSE, COORD_PAUSED,
                                                          "paused"},
    [COPPICE__API__CONTROL_JOB_REQUEST__ACTION__RESUME] = {COORD_EVENT_JOB_RESUME, COORD_QUEUED,
                                                           "resumed"},
};

/* Carries out the action at once. The answer follows when the new state is in the store. Canceling
 * a canceled job succeeds, because a client may repeat its request. */
static void control(coord_api *api, cop_request *request, const api_note *n,
                    Coppice__Api__ControlJobRequest__Action action) {
    COP_ASSERT(action >= 1 && (size_t)action < sizeof actions / sizeof *actions);
    const coord_event event = {.type = actions[action].event, .job = n->job};
    char number[32];
    cop_format_job(n->job, number);
    if (n->evaluation && event.type != COORD_EVENT_JOB_CANCEL) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %s is an evaluation and cannot be %s: it can only be canceled",
                            number, actions[action].participle);
        return;
    }
    const bool repeated = n->state == COORD_CANCELED && event.type == COORD_EVENT_JOB_CANCEL;
    if (n->state >= COORD_COMPLETED && !repeated) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "job %s has ended (%s) and cannot be %s: expected a job that is "
                            "QUEUED, RUNNING or PAUSED",
                            number, coord_state_name(n->state), actions[action].participle);
        return;
    }
    api_task *t = api_task_create(api, request, NULL);
    if (!t) return;
    t->job = event.job;
    if (!repeated) coord_dispatch(api->engine, &event);
    api->tasks++; /* `controlled` subtracts it */
    coord_store_confirm_state(api->engine->store, event.job, actions[action].state, on_confirmed,
                              t);
}

void api_control_job(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__ControlJobRequest r = *(const Coppice__Api__ControlJobRequest *)message;
    const api_note *n = api_note_of(api, request, r.job);
    cop_proto_free(message);
    if (!n) return;
    if (!r.has_action)
        coord_reply_failure(request, COP_ERR_INPUT,
                            "the call has no action: expected CANCEL, PAUSE, RESUME or REMOVE");
    else if (r.action == COPPICE__API__CONTROL_JOB_REQUEST__ACTION__REMOVE)
        remove_job(api, request, n);
    else
        control(api, request, n, r.action);
}
