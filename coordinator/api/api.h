/* Shared by the files of the API:
 * - api.c decodes calls and hands them to their handlers;
 * - api_task.c runs work on the thread pool and limits it for each identity;
 * - api_notes.c keeps the notes: what clients are shown of each job;
 * - api_watch.c holds requests until there is news for them;
 * - api_recover.c continues the jobs of the store after a restart;
 * - the other files, except access.c, have the handlers of the calls.
 * All functions are for the loop thread, unless their comment says otherwise. */
#ifndef COP_COORDINATOR_API_H
#define COP_COORDINATOR_API_H

#include <stdatomic.h>
#include <stddef.h>

#include "coordinator/store/datasets.h"
#include "coordinator/api/service.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/engine/models.h"
#include "proto/api.pb-c.h"

#define API_BUDGET   (16u << 20) /* maximum bytes of a call's message, both packed and unpacked */
#define API_RETRY_MS 250         /* pause before a client repeats a request that had no place */

/* What the API knows about a job without a query of the store. The calls of `coppice jobs`,
 * `status` and `watch` are answered from it. */
typedef struct api_note {
    uint64_t job;               /* number of the job or evaluation */
    uint64_t version;           /* grows with each change of the note */
    uint64_t step;              /* steps done; of an evaluation, blocks done */
    uint64_t steps;             /* number of steps of the whole job; for an evaluation, the
                                   number of blocks */
    uint64_t samples;           /* how many samples epoch_loss_sum contains */
    uint64_t evaluated_step;    /* the step of the last evaluation */
    uint64_t evaluated_samples; /* how many samples the last evaluation had */
    uint64_t steps_per_epoch;
    coord_lease_counts leases;
    coord_job_state state;
    int32_t priority;
    uint32_t batch;
    bool has_train_loss;
    bool has_evaluation;
    bool on_test;      /* evaluations are of the test part; false: of the validation part */
    bool evaluation;   /* the note is of an evaluation, which is not stored: see api_evaluation.c */
    double train_loss; /* mean over the last epoch; in the first epoch, the mean so far */
    double test_error; /* share of wrong samples in the last evaluation; NaN: the job has no
                          classes */
    double test_loss;  /* loss of the last evaluation */
    double seconds;    /* of training so far */
    double epoch_loss_sum; /* sum of the losses of the samples trained so far in the current
                              epoch */
    char name[COP_NAME_MAX];
    char owner[COP_NAME_MAX]; /* name in the submitter's certificate; "": no certificate */
    char text[512];           /* explains the state; "": no explanation */
    char warning[256];        /* about the newest checkpoint; "": none */
    char digest[65];          /* digest of the weights in the newest checkpoint; "": not known */
    char data_digest[65];     /* digest of the data set */
    char created[32];         /* UTC */
    char finished[32];        /* UTC; "": the job has not ended */
} api_note;

/* A request that waits for news of a job or an evaluation, or for lines of a log. */
typedef struct api_watcher {
    cop_request *request;   /* NULL: the place is free */
    uint64_t job;           /* number of the job or evaluation */
    uint64_t version;       /* version of the note that the client knows; another version is news */
    uint64_t deadline_ns;   /* the request is answered at this time even without news */
    uint64_t not_before_ns; /* before this time, the request is not answered, and the log is not
                               read */
    bool logs;              /* the client waits for lines of a log */
    bool asking;            /* a task reads the log for it */
    bool evaluation;        /* the client waits for news of an evaluation */
    bool at_once;   /* the request could not get a place, because all are taken or its identity has
                       used up its share; so it is answered at once with the present state */
    uint64_t after; /* of a log: the id of the last event that the client has */
} api_watcher;

/* What the jobs have done since the coordinator started. Unlike the notes, these figures never
 * become smaller. api_metrics.c. */
#define API_STEP_BUCKETS 10
typedef struct api_totals {
    uint64_t steps, samples, checkpoints;
    uint64_t given, repeated, ignored, audited, disputed, rollbacks; /* as coord_lease_counts */
    double step_seconds;                                             /* of all steps */
    uint64_t step_buckets[API_STEP_BUCKETS]; /* how many steps took at most each of the limits */
    int64_t checkpoint_ms;                   /* Unix time of the newest checkpoint; 0: none */
} api_totals;

typedef struct api_task api_task;

/* A place that a call needs to run on the thread pool. The call keeps it until its answer has left.
 */
typedef struct api_place {
    atomic_bool taken; /* any thread may set it to false */
    bool large;        /* see api_method_is_large */
    char identity[COP_NAME_MAX];
} api_place;

struct coord_api {
    coord_engine *engine;
    const coord_access *access;
    uint64_t started_ns;
    api_totals totals;
    api_note *notes;      /* sorted by job number, ascending */
    uint32_t count;       /* number of notes */
    uint32_t capacity;    /* number of notes that the array has room for */
    uint64_t next_job;    /* the number of the next job */
    uint64_t evaluations; /* the newest evaluation has the number COP_EVALUATION_NUMBERS + this */
    api_watcher watchers[COP_WATCHES_MAX];
    api_place places[COP_CALLS_MAX];
    recovery_keys keys;        /* of the newest submissions */
    uint32_t tasks;            /* number of tasks that have started and not ended */
    bool tidying;              /* a task frees data sets in memory */
    api_task *committing;      /* list of the submissions that the store is writing; for limits they
                                  count as jobs */
    uint32_t committing_count; /* length of this list */
};

/* A piece of work that would block the loop. First `work` runs on the thread pool, then `done` on
 * the loop thread. `done` answers the request, if there is one, and frees the task. */
struct api_task {
    uv_work_t uv;
    coord_mail mail; /* brings results of the store to the loop */
    coord_api *api;
    cop_request *request;      /* NULL: it is the coordinator's own work */
    ProtobufCMessage *message; /* the unpacked call; owned; may be NULL */
    cop_buffer *bulk_in;       /* bytes that came with the call: a reference, or NULL */
    cop_buffer *bulk_out;      /* bytes for the answer: a reference, or NULL */
    api_place *place;          /* NULL: it is the coordinator's own work, or the answer is sent */
    void (*work)(api_task *task);
    void (*done)(api_task *task);
    cop_err result;  /* result of the work */
    cop_error error; /* explains `result` */
    /* Parameters and results of the work. Each kind of task uses some of these fields. */
    uint64_t job;                 /* number of the job that the work is about */
    uint64_t value;               /* a number whose meaning depends on the kind of task */
    bool complete;                /* of an offer: the set is already stored */
    int64_t created_ms;           /* of a submission: its Unix time */
    cop_job *built;               /* of a submission: the resolved job; a reference */
    cop_data *data;               /* of a submission: its data set; a reference */
    coord_resident *resident;     /* where the weights of a job are loaded */
    coord_evaluation *evaluation; /* the evaluation to be prepared */
    cop_checkpoint start;         /* where a loaded job continues */
    cop_str text;                 /* lines for the log of the job; owned */
    char digest[65];              /* digest of an exported model */
    char folder[4096];            /* folder of the job, or another path that the work needs */
    ProtobufCMessage *answer;     /* owned */
    void *extra;                  /* other data of the task; owned (cop_free) */
    uint32_t watcher;             /* index of the watcher for which the task reads a log */
    recovery_key *key;            /* of a submission; NULL: it has no key */
    api_task *next;               /* the next submission in the list `committing` */
};

/* Returns the task that contains this mail. */
static inline api_task *api_task_of(coord_mail *mail) {
    return (api_task *)(void *)((char *)mail - offsetof(api_task, mail));
}

/* Returns the API that is the listener of this engine. */
static inline coord_api *api_of(const coord_engine *engine) {
    return engine->listener_state;
}

/* ---- api.c ---- */
/* Handles a call. The handler owns the request and the message. It must answer the request, hold it
 * or pass it on. It must free the message or pass it on. */
typedef void (*api_handler)(coord_api *api, cop_request *request, ProtobufCMessage *message);
/* True: a call of this method holds a model, a data set or a history in memory. */
bool api_method_is_large(uint32_t method);
/* Answers the call. Takes the caller's reference to `bulk`, which may be NULL. */
void api_answer(cop_request *request, uint32_t method, const ProtobufCMessage *answer,
                cop_buffer *bulk);
/* Answers the call with FAILURE. The text is that of `error`. If `error` is NULL or has no text, it
 * is the general text of the code. */
void api_fail(cop_request *request, const cop_error *error, cop_err code);

/* ---- api_task.c ---- */
/* Creates a task for a call or, if `request` is NULL, for the coordinator's own work. The task owns
 * the request and the message (may be NULL). A call takes a place. Every call that needs the
 * thread pool gets its task here, so no method escapes the limits. NULL: out of memory, or all
 * places are taken, or the identity has used up its share of them. Then the request has been
 * answered and the message has been freed. */
api_task *api_task_create(coord_api *api, cop_request *request, ProtobufCMessage *message);
/* Queues the task for the thread pool. */
void api_task_start(api_task *task, void (*work)(api_task *), void (*done)(api_task *));
/* Creates and starts the task of a call. Its bulk_in is the bytes that came with the call. */
void api_run(coord_api *api, cop_request *request, ProtobufCMessage *message,
             void (*work)(api_task *), void (*done)(api_task *));
/* Ends a call and frees its task. If the task's result is an error, answers FAILURE. Otherwise
 * sends this answer with the task's bulk_out. */
void api_task_finish(api_task *task, uint32_t method, const ProtobufCMessage *answer);
/* Frees a task whose request has been answered, or that has no request. */
void api_task_free(api_task *task);

/* ---- api_notes.c ---- */
/* Returns the index of the note with this number. If there is none, returns the index at which it
 * would be inserted. */
uint32_t api_note_place(const coord_api *api, uint64_t job);
/* Returns the note of a job or evaluation. NULL: there is none. A note moves in memory when another
 * one is added or removed. */
api_note *api_note_find(coord_api *api, uint64_t job);
/* Like api_note_find, but if there is no note, also answers the request with NOT_FOUND. */
api_note *api_note_of(coord_api *api, cop_request *request, uint64_t job);
/* Inserts a note at its place in the order. NULL: out of memory. */
api_note *api_note_add(coord_api *api, uint64_t job);
/* Adds a note at the end of the table. The caller must restore the order. NULL: out of memory. */
api_note *api_note_append(coord_api *api, uint64_t job);
/* Removes the note, if there is one. */
void api_note_remove(coord_api *api, uint64_t job);
/* Updates the note of a job after an action of the core: see coord_listener. */
void api_note_action(coord_engine *engine, const coord_action *action, const char *digest,
                     const char *warning);
/* Copies the lease counts, and the progress of an evaluation, from the core to the note. The core
 * forgets them when the job ends. */
void api_note_leases(coord_api *api, api_note *note);
/* Answers with NOT_FOUND: there is no such job. */
void api_unknown_job(cop_request *request, uint64_t job);
/* Answers with INPUT: the job has no final weights. */
void api_not_completed(cop_request *request, const api_note *note);
/* Fills *out from the note and from the core. Its strings belong to the note or are static. */
void api_status(coord_api *api, const api_note *note, Coppice__Api__JobStatus *out);

/* ---- api_watch.c ---- */
/* Returns the time at which a held request must be answered. hold_ms is the time for which its
 * client allows the coordinator to hold it. */
uint64_t api_hold_until(uint32_t hold_ms, uint64_t now_ns);
/* Copies the watcher to a free place, where its request waits for news. If there is no free place,
 * or if the identity has used up its share of them, the request is answered at once, and its client
 * asks again after API_RETRY_MS. */
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
void api_metrics(coord_api *, cop_request *, ProtobufCMessage *);
/* Add a step, and what became of a job's leases between two reports, to the totals. */
void api_totals_step(api_totals *totals, double seconds, uint64_t samples);
void api_totals_leases(api_totals *totals, const coord_lease_counts *before,
                       const coord_lease_counts *now);
void api_list_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_offer_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_put_chunk(coord_api *, cop_request *, ProtobufCMessage *);
void api_commit_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_remove_data(coord_api *, cop_request *, ProtobufCMessage *);
/* If there are data sets in memory that nobody has used lately, starts a task that frees them. */
void api_tidy_data(coord_api *api, uint64_t now_ns);

/* ---- api_logs.c ---- */
void api_logs(coord_api *, cop_request *, ProtobufCMessage *);
/* Starts a task that reads lines of the log for the watcher, and answers it if there are any. The
 * watcher must be in its place in api->watchers, unless it is `at_once`. */
void api_ask_logs(coord_api *api, api_watcher *watcher);

/* ---- api_evaluation.c ---- */
void api_start_evaluation(coord_api *, cop_request *, ProtobufCMessage *);
void api_watch_evaluation(coord_api *, cop_request *, ProtobufCMessage *);
/* Answers the watcher with the present state of its evaluation, and frees the watcher's place. If
 * `note` is NULL, answers NOT_FOUND. */
void api_answer_evaluation(coord_api *api, api_watcher *watcher, const api_note *note);
/* Returns a place for one more evaluation of this owner (coord_access_identity). If no place is
 * free, forgets an ended evaluation and returns its place. NULL, with error BUSY: too many
 * evaluations are running, of this owner or in total, or no ended one can be forgotten. */
coord_evaluation **api_evaluation_place(coord_api *api, const char *owner, cop_error *error);
/* To be called regularly. If the client of an evaluation has been silent for too long, cancels the
 * evaluation, or, if it has ended, forgets it. */
void api_evaluations_tick(coord_api *api, uint64_t now_ns);

/* ---- api_recover.c ---- */
/* Start a task that brings the weights of a job into memory: see coord_listener. */
void api_load(coord_engine *engine, uint64_t job, uint64_t max_step);
void api_rollback(coord_engine *engine, uint64_t job, uint64_t max_step);

#endif
