/* Inside the coordinator: what the files of the API share. api.c takes calls apart and keeps what
 * watchers see; api_submit.c, api_jobs.c, api_evaluation.c, api_workers.c and api_data.c answer
 * them; api_recover.c takes up what an earlier run left. */
#ifndef COP_COORDINATOR_API_H
#define COP_COORDINATOR_API_H

#include "coordinator/store/datasets.h"
#include "coordinator/api/service.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/engine/models.h"
#include "proto/api.pb-c.h"

#define API_BUDGET (16u << 20)

/* What is known of a job without asking the store: for `jobs`, `status`, `watch`. */
typedef struct api_note {
    uint64_t job, version, step, steps, samples, evaluated_step, evaluated_samples, steps_per_epoch;
    coord_lease_counts leases;
    coord_job_state state;
    int32_t priority;
    uint32_t batch;
    bool has_train_loss, has_evaluation, on_test;
    bool evaluation; /* not a training: not stored, see api_evaluation.c */
    double train_loss, test_error, test_loss, seconds, epoch_loss_sum;
    char name[COP_NAME_MAX], owner[COP_NAME_MAX], text[512], warning[256], digest[65],
        data_digest[65], created[32], finished[32];
} api_note;

/* A request that waits for news of a job, or for log lines. */
typedef struct api_watcher {
    cop_request *request; /* NULL: free */
    uint64_t job, version, deadline_ns, not_before_ns;
    bool logs, asking, evaluation;
    bool at_once;   /* no place was left to hold it: it is answered with what there is */
    uint64_t after; /* logs */
} api_watcher;

typedef struct api_task api_task;

struct coord_api {
    coord_engine *engine;
    const coord_access *access;
    uint64_t started_ns;
    api_note *notes; /* by job number, ascending */
    uint32_t count, capacity;
    uint64_t next_job;
    uint64_t evaluations; /* the newest has the number COP_EVALUATION_NUMBERS + this */
    api_watcher watchers[COP_WATCHES_MAX];
    recovery_keys keys;   /* of the last submissions */
    uint32_t tasks;       /* work on libuv's thread pool */
    bool tidying;         /* one of them frees data sets */
    api_task *committing; /* submissions that the store is writing: room is kept for them */
    uint32_t committing_count;
};

/* Work that does not belong on the loop. `work` runs on the thread pool, `done` on the loop; done
 * must answer the request (if any). */
struct api_task {
    uv_work_t uv;
    coord_mail mail;
    coord_api *api;
    cop_request *request;
    ProtobufCMessage *message; /* the unpacked request; freed with the task */
    cop_buffer *bulk;
    void (*work)(api_task *task);
    void (*done)(api_task *task);
    cop_err result;
    cop_error error;
    /* what tasks pass from work to done */
    uint64_t job, value;
    int64_t created_ms; /* of a submission */
    cop_job *built;
    cop_data *data;
    coord_resident *resident;
    coord_evaluation *evaluation;
    cop_checkpoint start;
    cop_str text;
    char digest[65], folder[4096];
    ProtobufCMessage *answer; /* arena message, freed with the task */
    void *extra;              /* cop_free */
    uint32_t method;
    recovery_key *key; /* of a submission; or NULL */
    api_task *next;    /* of those that are committing */
};

/* The API that listens to this engine. */
static inline coord_api *api_of(const coord_engine *engine) {
    return engine->listener_state;
}

/* A task that takes over the request and its message; NULL (and the request answered) when out of
 * memory. */
api_task *api_task_create(coord_api *api, cop_request *request, ProtobufCMessage *message);
void api_task_start(api_task *task);
void api_task_free(api_task *task);
/* Answers. `bulk` is moved. */
void api_answer(cop_request *request, uint32_t method, const ProtobufCMessage *answer,
                cop_buffer *bulk);
void api_fail(cop_request *request, const cop_error *error, cop_err code);

/* Where in the table a job of this number is, or would be. */
uint32_t api_note_place(const coord_api *api, uint64_t job);
api_note *api_note_find(coord_api *api, uint64_t job);
api_note *api_note_add(coord_api *api, uint64_t job); /* NULL: out of memory */
/* At the end of the table, whatever its number: the caller restores the order. */
api_note *api_note_append(coord_api *api, uint64_t job);
void api_note_remove(coord_api *api, uint64_t job);
void api_unknown_job(cop_request *request, uint64_t job); /* answers NOT_FOUND */
/* Answers INPUT: the job has no final weights. */
void api_not_completed(cop_request *request, const api_note *note);
/* Until when a request that may be held is held. */
uint64_t api_hold_until(uint32_t hold_ms, uint64_t now_ns);
const char *api_state_name(coord_job_state state); /* "RUNNING" */
/* Fills a status from note and core; strings are borrowed from the note. */
void api_status(coord_api *api, const api_note *note, Coppice__Api__JobStatus *out);
/* Ownership of request and message goes to the handler. */
typedef void (*api_handler)(coord_api *api, cop_request *request, ProtobufCMessage *message);
/* Holds the request until there is news. Where its identity has taken its share of the places, it
 * is answered at once, and the client asks again after API_RETRY_MS. */
void api_hold(coord_api *api, const api_watcher *watcher);
#define API_RETRY_MS 250

/* api_submit.c */
void api_submit(coord_api *, cop_request *, ProtobufCMessage *);
/* api_jobs.c */
void api_list_jobs(coord_api *, cop_request *, ProtobufCMessage *);
void api_get_job(coord_api *, cop_request *, ProtobufCMessage *);
void api_watch_job(coord_api *, cop_request *, ProtobufCMessage *);
void api_control_job(coord_api *, cop_request *, ProtobufCMessage *);
void api_logs(coord_api *, cop_request *, ProtobufCMessage *);
void api_export_model(coord_api *, cop_request *, ProtobufCMessage *);
void api_evaluate(coord_api *, cop_request *, ProtobufCMessage *);
void api_answer_watch(coord_api *api, api_watcher *watcher, const api_note *note);
/* Reads log lines for the watcher; one that is answered at once need not outlive the call. */
void api_ask_logs(coord_api *api, api_watcher *watcher);
/* api_evaluation.c */
void api_start_evaluation(coord_api *, cop_request *, ProtobufCMessage *);
void api_watch_evaluation(coord_api *, cop_request *, ProtobufCMessage *);
void api_answer_evaluation(coord_api *api, api_watcher *watcher, const api_note *note);
/* A place for one more evaluation of this owner (coord_access_identity): a free one, or that of one
 * that has ended, which is forgotten. NULL and BUSY: too many are under way, of all or of the
 * owner. */
coord_evaluation **api_evaluation_place(coord_api *api, const char *owner, cop_error *error);
/* Ends those whose clients have gone, and forgets those that were told. */
void api_evaluations_tick(coord_api *api, uint64_t now_ns);
/* api_history.c */
void api_history(coord_api *, cop_request *, ProtobufCMessage *);
/* api_recover.c: loads a job that is not resident: its row from the store, its data from datasets,
 * on the thread pool */
void api_load(coord_engine *engine, uint64_t job, uint64_t max_step);
void api_rollback(coord_engine *engine, uint64_t job, uint64_t max_step);
/* api_workers.c */
void api_list_workers(coord_api *, cop_request *, ProtobufCMessage *);
void api_drain_worker(coord_api *, cop_request *, ProtobufCMessage *);
void api_info(coord_api *, cop_request *, ProtobufCMessage *);
/* api_data.c */
void api_list_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_offer_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_put_chunk(coord_api *, cop_request *, ProtobufCMessage *);
void api_commit_data(coord_api *, cop_request *, ProtobufCMessage *);
void api_remove_data(coord_api *, cop_request *, ProtobufCMessage *);
/* Frees data sets that nobody needs any more, on the thread pool. */
void api_tidy_data(coord_api *api, uint64_t now_ns);

#endif
