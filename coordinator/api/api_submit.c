/* The call SUBMIT. A task checks the job, loads its data, and resolves and pins the job. Then the
 * job gets its number, and the store commits it. Lists, watchers and the core see the job only
 * after the commit, and only then its submission is acknowledged. A client that repeats its request
 * with the same key gets the number of the same job. See api.h. */
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

/* ---- answers ---- */

/* Acknowledges a submission. `resolved` is the resolved job, or NULL if an earlier request has
 * submitted the job. It is sent without the statistics of its data (mean and std), which may not
 * fit into an answer. `job` is 0 for a dry run. */
static void answer_submitted(cop_request *request, uint64_t job, const Coppice__Job *resolved) {
    Coppice__Api__SubmitAnswer answer = COPPICE__API__SUBMIT_ANSWER__INIT;
    Coppice__Job shown;
    Coppice__Pinned pinned;
    if (resolved) {
        shown = *resolved;
        pinned = *resolved->pinned;
        pinned.n_mean = pinned.n_std = 0;
        shown.pinned = &pinned;
        answer.resolved = &shown;
    }
    answer.has_job = job != 0;
    answer.job = job;
    api_answer(request, COPPICE__API__METHOD__SUBMIT, &answer.base, NULL);
}

/* Returns the newest repetition of the request whose pending submission has this key. NULL: the
 * request was not repeated. */
static cop_request *repeat_of(const recovery_key *key) {
    return (cop_request *)(uintptr_t)key->repeat;
}

/* Ends a submission: answers the request and its repetition in the same way, and frees the task. */
static void settle(api_task *t) {
    cop_request *repeat = t->key ? repeat_of(t->key) : NULL;
    uint64_t job = t->result ? 0 : t->job;
    COP_ASSERT(!t->key || t->key->pending);
    if (t->key) recovery_set_job(t->key, job);
    if (t->result) {
        api_fail(t->request, &t->error, t->result);
        if (repeat) api_fail(repeat, &t->error, t->result);
    } else {
        answer_submitted(t->request, job, t->built->message);
        if (repeat) answer_submitted(repeat, job, t->built->message);
    }
    api_task_free(t);
}

/* ---- on the thread pool ---- */

/* Returns how the request names its data set: by the digest, if it has one, or by the source in the
 * job file. */
static const char *data_name(const Coppice__Api__SubmitRequest *r) {
    return r->data_digest && *r->data_digest ? r->data_digest : r->job->data->source;
}

/* Checks the job, loads its data, resolves and pins it. */
static cop_err build(api_task *t, const Coppice__Api__SubmitRequest *r) {
    Coppice__Job *job = NULL;
    COP_TRY(cop_document_check(r->job, &t->error));
    COP_TRY(cop_document_copy_job(r->job, &job, &t->error));
    job->pinned = NULL; /* cop_job_create pins the job to the data that is loaded here */
    cop_err e = coord_datasets_load(t->api->engine->datasets, data_name(r), &t->data, &t->error);
    if (!e) e = cop_job_create(job, t->data, &t->built, &t->error);
    if (e) cop_proto_free(&job->base);
    return e;
}

static void submit_work(api_task *t) {
    const Coppice__Api__SubmitRequest *r = (const Coppice__Api__SubmitRequest *)t->message;
    t->result = build(t, r);
    if (!t->result && !r->dry_run)
        t->result = coord_datasets_keep(t->api->engine->datasets, t->data, data_name(r), &t->error);
    cop_data_destroy(t->data); /* loaded again when the job begins, which may be hours later */
    t->data = NULL;
}

/* ---- on the loop ---- */

/* Returns the name in the submitter's certificate, or "" if the submitter has none. */
static const char *owner_of(const api_task *t) {
    return coord_access_identity(t->request);
}

/* Counts the owner's unfinished jobs, including those that the store is writing. */
static uint32_t count_owned(const coord_api *api, const char *owner) {
    uint32_t count = 0;
    for (const api_task *t = api->committing; t; t = t->next)
        count += strcmp(owner_of(t), owner) == 0;
    for (uint32_t i = 0; i < api->count; i++)
        count += api->notes[i].state < COORD_COMPLETED && strcmp(api->notes[i].owner, owner) == 0;
    return count;
}

/* LIMIT: the coordinator or the owner may not have one more job, or all job numbers are used. */
static cop_err check_room(const api_task *t, cop_error *error) {
    const coord_api *api = t->api;
    const char *owner = owner_of(t);
    if (api->count + api->committing_count >= COP_JOBS_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "the coordinator already has %d jobs: remove some (coppice rm)",
                        COP_JOBS_MAX);
    if (api->next_job > COORD_JOB_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "all job numbers are used");
    const uint32_t configured = api->access->config->jobs_per_client;
    const uint32_t limit = configured ? configured : COP_JOBS_PER_CLIENT_MAX;
    if (*owner && count_owned(api, owner) >= limit)
        return cop_fail(error, COP_ERR_LIMIT,
                        "the client \"%s\" has %u unfinished jobs (--jobs-per-client): wait until "
                        "one ends, or cancel one",
                        owner, limit);
    return COP_OK;
}

static cop_err add_note(coord_api *api, const api_task *t) {
    const cop_job *job = t->built;
    COP_ASSERT(job && t->job > 0 && t->job < api->next_job);
    api_note *n = api_note_add(api, t->job);
    if (!n) return COP_ERR_NO_MEMORY;
    snprintf(n->name, sizeof n->name, "%s", job->message->name);
    snprintf(n->owner, sizeof n->owner, "%s", owner_of(t));
    snprintf(n->data_digest, sizeof n->data_digest, "%s", job->message->pinned->data_digest);
    cop_clock_format_utc(t->created_ms, n->created);
    n->steps = job->steps;
    n->steps_per_epoch = job->steps_per_epoch;
    n->on_test = job->evaluate_on_test;
    n->priority = job->message->priority;
    n->batch = job->batch;
    return COP_OK;
}

static void begin_commit(coord_api *api, api_task *t) {
    api->tasks++;
    api->committing_count++;
    t->next = api->committing;
    api->committing = t;
}

static void end_commit(coord_api *api, api_task *t) {
    api_task **at = &api->committing;
    while (*at && *at != t) at = &(*at)->next;
    COP_ASSERT(*at == t && api->committing_count > 0);
    *at = t->next;
    api->committing_count--;
    api->tasks--;
}

/* Handles the store's result. If the job is committed, adds its note, acknowledges the submission,
 * and hands the job to the core. */
static void submit_committed(coord_engine *engine, coord_mail *mail) {
    coord_api *api = api_of(engine);
    api_task *t = api_task_of(mail);
    end_commit(api, t);
    if (!t->result && add_note(api, t)) {
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
        coord_store_remove_job(api->engine->store, t->job, NULL, NULL);
    }
    if (t->result) {
        coord_datasets_release(api->engine->datasets, t->built->message->pinned->data_digest);
        settle(t);
        return;
    }
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = t->job};
    coord_job_info_make(t->built, t->job, COORD_QUEUED, &added.info);
    cop_log_peer(COP_LOG_INFO, "coordinator", owner_of(t), "job %llu (%s) submitted",
                 (unsigned long long)t->job, t->built->message->name);
    coord_store_add_event(api->engine->store, t->job, "info", "submitted");
    settle(t);
    coord_dispatch(api->engine, &added);
}

/* Runs on the store's thread, or, if the write cannot be queued, on the loop thread. */
static void on_commit(void *context, cop_err result, const char *text) {
    api_task *t = context;
    t->result = result;
    if (result) cop_fail(&t->error, result, "cannot store the job: %s", text);
    t->mail.run = submit_committed;
    coord_post(t->api->engine, &t->mail);
}

static void submit_done(api_task *t) {
    coord_api *api = t->api;
    const Coppice__Api__SubmitRequest *r = (const Coppice__Api__SubmitRequest *)t->message;
    if (t->result || r->dry_run) {
        settle(t);
        return;
    }
    COP_ASSERT(t->built && !t->data);
    const char *digest = t->built->message->pinned->data_digest;
    cop_buffer *spec = NULL;
    t->result = check_room(t, &t->error);
    if (!t->result && !(spec = cop_job_pack(t->built)))
        t->result = cop_fail(&t->error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    if (t->result) {
        coord_datasets_release(t->api->engine->datasets, digest);
        settle(t);
        return;
    }
    t->job = api->next_job++;
    t->created_ms = cop_clock_unix_ms();
    begin_commit(api, t); /* submit_committed ends it */
    coord_store_submission submission = {.job = t->job,
                                         .name = t->built->message->name,
                                         .data_digest = digest,
                                         .owner = owner_of(t),
                                         .spec = spec,
                                         .key = t->key ? r->idempotency.data : NULL,
                                         .created_ms = t->created_ms};
    coord_store_add_job(t->api->engine->store, &submission, on_commit, t);
    cop_buffer_release(spec);
}

/* Handles a request that needs no task. Refuses a malformed request. Answers a repetition of a
 * submission that has ended as the first time. Keeps a repetition of a pending submission until the
 * submission ends. False: the request is none of these, and needs a task. */
static bool answer_at_once(coord_api *api, cop_request *request,
                           const Coppice__Api__SubmitRequest *r) {
    unsigned char digest[32];
    if (!r->job) {
        coord_reply_failure(request, COP_ERR_INPUT, "the call has no job");
    } else if (r->has_idempotency && r->idempotency.len != COORD_STORE_KEY) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "the idempotency key has %zu bytes: expected %d", r->idempotency.len,
                            COORD_STORE_KEY);
    } else if (r->data_digest && *r->data_digest && !cop_unhex32(r->data_digest, digest)) {
        coord_reply_failure(request, COP_ERR_INPUT,
                            "data_digest is \"%.80s\": expected 64 hex digits", r->data_digest);
    } else if (!r->dry_run) {
        recovery_key *k =
            r->has_idempotency ? recovery_find(&api->keys, r->idempotency.data) : NULL;
        if (!k) return false;
        if (!k->pending) {
            answer_submitted(request, k->job, NULL);
            return true;
        }
        /* The client waits only for the answer to its newest request. */
        if (k->repeat) cop_server_drop(repeat_of(k));
        cop_request_release_parts(request);
        k->repeat = (uint64_t)(uintptr_t)request;
    } else {
        return false;
    }
    return true;
}

void api_submit(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__SubmitRequest *r = (const Coppice__Api__SubmitRequest *)message;
    if (answer_at_once(api, request, r)) {
        cop_proto_free(message);
        return;
    }
    recovery_key *key = NULL;
    if (r->has_idempotency && !r->dry_run) key = recovery_claim(&api->keys, r->idempotency.data);
    if (r->has_idempotency && !r->dry_run && !key) {
        coord_reply_failure(request, COP_ERR_BUSY, "%d jobs are already being submitted: try again",
                            COORD_KEYS);
        cop_proto_free(message);
        return;
    }
    api_task *t = api_task_create(api, request, message);
    if (!t) {
        if (key) recovery_set_job(key, 0);
        return;
    }
    t->key = key;
    api_task_start(t, submit_work, submit_done);
}
