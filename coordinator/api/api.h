/* Shared by the files of the API. api.c decodes calls and hands them to their handlers; api_task.c
 * runs work on the thread pool and limits it per identity; api_notes.c remembers what is shown of
 * jobs; api_watch.c holds requests until there is news. The handlers are in api_submit.c,
 * api_jobs.c, api_model.c, api_logs.c, api_evaluation.c, api_history.c, api_workers.c and
 * api_data.c; api_recover.c takes up the jobs of the store. Loop thread unless a comment says
 * otherwise. */
#ifndef COP_COORDINATOR_API_H
#define COP_COORDINATOR_API_H

#include <stdatomic.h>
#include <stddef.h>

#include "coordinator/store/datasets.h"
#include "coordinator/api/service.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/engine/models.h"
#include "proto/api.pb-c.h"

#define API_BUDGET   (16u << 20) /* bytes of a call's message, packed or unpacked */
#define API_RETRY_MS 250         /* pause for a client whose request could not be held */

/* What is known of a job without a query of the store: for `jobs`, `status` and `watch`. */
typedef struct api_note {
    uint64_t job, version, step, steps, samples, evaluated_step, evaluated_samples, steps_per_epoch;
    coord_lease_counts leases;
    coord_job_state state;
    int32_t priority;
    uint32_t batch;
    bool has_train_loss, has_evaluation, on_test;
    bool evaluation; /* an evaluation, not a training: not stored, see api_evaluation.c */
    double train_loss, test_error, test_loss, seconds, epoch_loss_sum;
    char name[COP_NAME_MAX], owner[COP_NAME_MAX], text[512], warning[256], digest[65],
        data_digest[65], created[32], finished[32];
} api_note;

/* A request that waits for news of a job or an evaluation, or for lines of a log. */
typedef struct api_watcher {
    cop_request *request; /* NULL: the place is free */
    uint64_t job, version, deadline_ns, not_before_ns;
    bool logs, asking, evaluation; /* asking: a task reads the log for it */
    bool at_once;   /* it has no place, because its identity has used up its share: it is answered
                       with the present state */
    uint64_t after; /* logs: the last event that the client has */
} api_watcher;

typedef struct api_task api_task;

/* A place of a call that runs on the thread pool, until its answer has left. */
typedef struct api_place {
    atomic_bool taken; /* cleared by any thread */
    bool large;
    char identity[COP_NAME_MAX];
} api_place;

struct coord_api {
    coord_engine *engine;
    const coord_access *access;
    uint64_t started_ns;
    api_note *notes; /* by job number, ascending */
    uint32_t count, capacity;
    uint64_t next_job;
    uint64_t evaluations; /* the newest has the number COP_EVALUATION_NUMBERS + this */
    api_watcher watchers[COP_WATCHES_MAX];
    api_place places[COP_CALLS_MAX];
    recovery_keys keys;   /* of the newest submissions */
    uint32_t tasks;       /* started and not ended */
    bool tidying;         /* a task frees data sets */
    api_task *committing; /* submissions that the store is writing; they count as jobs */
    uint32_t committing_count;
};

/* Work that would block the loop. `work` runs on the thread pool, then `done` on the loop; `done`
 * answers the request, if any, and frees the task. */
struct api_task {
    uv_work_t uv;
    coord_mail mail;
    coord_api *api;
    cop_request *request;      /* NULL: the coordinator's own work */
    ProtobufCMessage *message; /* the unpacked call; owned */
    cop_buffer *bulk_in;       /* bytes that came with the call; held */
    cop_buffer *bulk_out;      /* bytes for the answer; held */
    api_place *place;          /* of a call; NULL otherwise */
    void (*work)(api_task *task);
    void (*done)(api_task *task);
    cop_err result;
    cop_error error;
    /* passed from work to done */
    uint64_t job, value;
    bool complete;      /* of an offer: the set is stored */
    int64_t created_ms; /* of a submission */
    cop_job *built;
    cop_data *data;
    coord_resident *resident;
    coord_evaluation *evaluation;
    cop_checkpoint start;
    cop_str text;
    char digest[65], folder[4096];
    ProtobufCMessage *answer; /* owned */
    void *extra;              /* owned (cop_free) */
    uint32_t watcher;         /* index of the watcher that a task reads the log for */
    recovery_key *key;        /* of a submission; NULL: it has none */
    api_task *next;           /* in the list of committing submissions */
};

/* The task that posted this mail. */
static inline api_task *api_task_of(coord_mail *mail) {
    return (api_task *)(void *)((char *)mail - offsetof(api_task, mail));
}

/* The API that listens to this engine. */
static inline coord_api *api_of(const coord_engine *engine) {
    return engine->listener_state;
}

/* ---- api.c ---- */
/* A handler owns the request and the message. */
typedef void (*api_handler)(coord_api *api, cop_request *request, ProtobufCMessage *message);
/* True: calls of this method hold a model, a data set or a history in memory. */
bool api_method_is_large(uint32_t method);
/* Answers the call. `bulk` (may be NULL) moves to the reply. */
void api_answer(cop_request *request, uint32_t method, const ProtobufCMessage *answer,
                cop_buffer *bulk);
/* Answers FAILURE with the sentence of `error`, or with that of the code. `error` may be NULL. */
void api_fail(cop_request *request, const cop_error *error, cop_err code);

/* ---- api_task.c ---- */
/* A task for a call, or with `request` NULL for the coordinator's own work. It owns the request and
 * the message. NULL: out of memory, or the identity has used up its share of the places; then the
 * request is answered and the message is freed. Every call that needs the thread pool passes here,
 * so no method escapes the limits. */
api_task *api_task_create(coord_api *api, cop_request *request, ProtobufCMessage *message);
void api_task_start(api_task *task, void (*work)(api_task *), void (*done)(api_task *));
/* Creates and starts the task of a call, with the bytes that came with it. */
void api_run(coord_api *api, cop_request *request, ProtobufCMessage *message,
             void (*work)(api_task *), void (*done)(api_task *));
/* The end of a call: answers its failure, or this answer with the task's bulk_out. Frees the task.
 */
void api_task_finish(api_task *task, uint32_t method, const ProtobufCMessage *answer);
/* Frees a task whose request is answered. */
void api_task_free(api_task *task);

/* ---- api_notes.c ---- */
/* The index of the job's note, or where it would be inserted. */
uint32_t api_note_place(const coord_api *api, uint64_t job);
api_note *api_note_find(coord_api *api, uint64_t job); /* NULL: no such job */
/* The same for a call: if there is no such job, answers NOT_FOUND and returns NULL. */
api_note *api_note_of(coord_api *api, cop_request *request, uint64_t job);
api_note *api_note_add(coord_api *api, uint64_t job); /* NULL: out of memory */
/* Adds a note at the end of the table; the caller restores the order. NULL: out of memory. */
api_note *api_note_append(coord_api *api, uint64_t job);
void api_note_remove(coord_api *api, uint64_t job);
/* Stores what the core reports of a job: see coord_listener. */
void api_note_action(coord_engine *engine, const coord_action *action, const char *digest,
                     const char *warning);
/* Copies the lease counts, and an evaluation's progress, from the core, which will forget them. */
void api_note_leases(coord_api *api, api_note *note);
void api_unknown_job(cop_request *request, uint64_t job); /* answers NOT_FOUND */
/* Answers INPUT: the job has no final weights. */
void api_not_completed(cop_request *request, const api_note *note);
/* Fills a status from the note and the core; its strings are borrowed from the note. */
void api_status(coord_api *api, const api_note *note, Coppice__Api__JobStatus *out);

/* ---- api_watch.c ---- */
/* When a held request must be answered. */
uint64_t api_hold_until(uint32_t hold_ms, uint64_t now_ns);
/* Holds the request until there is news. If its identity has used up its share of the places, it is
 * answered at once, and the client asks again after API_RETRY_MS. */
void api_hold(coord_api *api, const api_watcher *watcher);
void api_watch_job(coord_api *, cop_request *, ProtobufCMessage *);

/* ---- handlers ---- */
void api_submit(coord_api *, cop_request *, ProtobufCMessage *);
void api_list_jobs(coord_api *, cop_request *, ProtobufCMessage *);
void api_get_job(coord_api *, cop_request *, ProtobufCMessage *);
void api_control_job(coord_api *, cop_request *, ProtobufCMessage *);
void api_export_model(coord_api *, cop_request *, ProtobufCMessage *);
void api_evaluate(coord_api *, cop_request *, ProtobufCMessage *);
void api_history(coord_api *, cop_request *, ProtobufCMessage *);
void api_list_workers(coord_api *, cop_request *, ProtobufCMessage *);
void api_drain_worker(coord_api *, cop_request *, ProtobufCMessage *);
void api_info(coord_api *, cop_request *, ProtobufCMessage *);
void api_list_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_offer_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_put_chunk(coord_api *, cop_request *, ProtobufCMessage *);
void api_commit_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_remove_data(coord_api *, cop_request *, ProtobufCMessage *);
/* Frees data sets in memory that nobody needs any more, on the thread pool. */
void api_tidy_data(coord_api *api, uint64_t now_ns);

/* ---- api_logs.c ---- */
void api_logs(coord_api *, cop_request *, ProtobufCMessage *);
/* Reads lines of the log for the watcher, which is answered if there are some. A watcher that is
 * answered at once need not outlive the call. */
void api_ask_logs(coord_api *api, api_watcher *watcher);

/* ---- api_evaluation.c ---- */
void api_start_evaluation(coord_api *, cop_request *, ProtobufCMessage *);
void api_watch_evaluation(coord_api *, cop_request *, ProtobufCMessage *);
/* Answers the watcher with the present state; its place becomes free. */
void api_answer_evaluation(coord_api *api, api_watcher *watcher, const api_note *note);
/* A place for one more evaluation of this owner (coord_access_identity): a free one, or that of an
 * ended evaluation, which is forgotten. NULL and BUSY: too many are running, in all or of the
 * owner.
 */
coord_evaluation **api_evaluation_place(coord_api *api, const char *owner, cop_error *error);
/* Cancels evaluations whose clients are gone, and forgets ended ones. */
void api_evaluations_tick(coord_api *api, uint64_t now_ns);

/* ---- api_recover.c ---- */
/* Bring a job's weights into memory on the thread pool: see coord_listener. */
void api_load(coord_engine *engine, uint64_t job, uint64_t max_step);
void api_rollback(coord_engine *engine, uint64_t job, uint64_t max_step);

#endif
