/* The store keeps jobs, metrics, events and names of data sets in SQLite (WAL mode). Writes are
 * queued, and the store's own thread commits them in batches. So the loop thread runs no SQL for a
 * write, and does not wait for fsync. A submission is acknowledged only after its commit. A store
 * with an older schema is migrated when it is opened; a store of a newer program is refused and not
 * changed. */
#ifndef COP_COORDINATOR_STORE_H
#define COP_COORDINATOR_STORE_H

#include "common/base/bytes.h"
#include "common/base/err.h"
#include "coordinator/core/core.h"
#include "coordinator/core/recovery.h"

#define COORD_STORE_VERSION 5
#define COORD_STORE_KEY     COORD_KEY_SIZE
#define COORD_JOB_MAX       COP_EVALUATION_NUMBERS /* the largest number of a job */

typedef struct coord_store coord_store;

/* Opens or creates the database file `path` and starts the store's thread. The caller owns *out
 * (coord_store_close). Errors: VERSION if the store is newer than this program, CORRUPT if the file
 * is not a store, and IO, DENIED, BUSY, NO_SPACE, NO_MEMORY, INTERNAL. */
cop_err coord_store_open(const char *path, coord_store **out, cop_error *error);
/* Commits the queued writes, joins the thread and frees the store. Writes that the disk does not
 * accept are given up and logged. NULL has no effect. */
void coord_store_close(coord_store *store);

/* ---- writes: any thread; committed in the order of the calls ---- */

/* Receives the result of a write. It is called on the store's thread after the commit or a failure.
 * If the write cannot be queued, it is called with BUSY at once, on the caller's thread. `text`
 * explains a failure and is valid during the call only. */
typedef void (*coord_store_done)(void *context, cop_err result, const char *text);

/* A new job. The store copies all strings and the key, and takes a reference to `spec`. */
typedef struct coord_store_submission {
    uint64_t job;
    const char *name, *data_digest;
    const char *owner;        /* name in the submitter's certificate; NULL or "": no certificate */
    cop_buffer *spec;         /* the packed job */
    const unsigned char *key; /* the request's key, COORD_STORE_KEY bytes; NULL: it has none */
    int64_t created_ms;       /* Unix time in ms; 0: now */
} coord_store_submission;

/* Metrics of a job. A row replaces an earlier row of the same job and step, because after a restart
 * the steps beyond the last checkpoint are computed and written again. */
typedef struct coord_store_step {
    uint64_t step;
    double loss;    /* mean over the training samples of the step */
    double seconds; /* seconds of training up to this step */
} coord_store_step;
typedef struct coord_store_epoch {
    uint64_t step; /* the last one of the epoch */
    double epoch;
    double train_loss;  /* mean over the epoch's samples */
    double train_error; /* as a fraction; NaN: the job has no classes */
} coord_store_epoch;
typedef struct coord_store_evaluation {
    uint64_t step;
    const char *part; /* "test" or "validation" */
    double loss;
    double error;   /* as a fraction; NaN: the job has no classes */
    double seconds; /* seconds of training up to this step */
} coord_store_evaluation;

/* Adds a job in state QUEUED; it replaces an earlier job of this number. `done` may be NULL. */
void coord_store_add_job(coord_store *store, const coord_store_submission *submission,
                         coord_store_done done, void *context);
/* Removes the job with its metrics and events. `done` may be NULL. */
void coord_store_remove_job(coord_store *store, uint64_t job, coord_store_done done, void *context);
/* Stores a new state of the job. `text` explains it ("": no explanation). */
void coord_store_set_state(coord_store *store, uint64_t job, coord_job_state state,
                           const char *text);
/* Stores the state that a client asked for. `done` is called when the state is on the disk, so that
 * no crash can undo it, or when the write has failed. */
void coord_store_confirm_state(coord_store *store, uint64_t job, coord_job_state state,
                               coord_store_done done, void *context);
/* Stores the fingerprint of the OpenBLAS to which the job is pinned. Only for jobs with
 * `numerics: openblas`. */
void coord_store_set_fingerprint(coord_store *store, uint64_t job, uint64_t fingerprint);
/* Stores the digest of the weights in the checkpoint of `step`, instead of any earlier one. */
void coord_store_set_digest(coord_store *store, uint64_t job, uint64_t step, const char *digest);
void coord_store_add_step(coord_store *store, uint64_t job, const coord_store_step *row);
void coord_store_add_epoch(coord_store *store, uint64_t job, const coord_store_epoch *row);
void coord_store_add_evaluation(coord_store *store, uint64_t job,
                                const coord_store_evaluation *row);
/* Adds a line to the job's log, or to the log of the pool if `job` is 0. */
void coord_store_add_event(coord_store *store, uint64_t job, const char *level, const char *text);
/* Records that an evaluation got this number (1 or more), so that no later evaluation gets it. The
 * evaluations themselves are not stored. */
void coord_store_keep_evaluation(coord_store *store, uint64_t number);
/* Waits until all writes that were queued before this call are on the disk (fsync). The saver calls
 * it before it publishes a checkpoint, because a run that continues from this checkpoint does not
 * write the earlier metrics again. Not on the loop thread.
 * IO, NO_SPACE and other errors of the disk: some of these writes may not be on the disk. Those of
 * them that have no callback stay queued and are tried again.
 * NO_MEMORY: the flush could not be queued for lack of memory or room; or a write was lost for lack
 * of memory since the last flush; or a write that must survive was lost since the start. */
cop_err coord_store_flush(coord_store *store);

/* ---- data sets ---- */

/* A name of a data set with the properties of its content. */
typedef struct coord_dataset {
    char name[COP_NAME_MAX];
    char digest[65];  /* digest of the content. "": the set is in --data or built in and has not
                         been read yet; then all fields below are 0 */
    uint64_t bytes;   /* size of the pack */
    uint32_t train;   /* training samples */
    uint32_t test;    /* test samples */
    uint32_t classes; /* 0: the set has no classes */
    uint32_t rank;    /* dimensions of a sample; `shape` holds their sizes */
    uint32_t shape[3];
    uint32_t jobs; /* unfinished jobs that use the content; not stored */
} coord_dataset;

/* The next two functions return after the commit. On an error the store has not changed. Not on the
 * loop thread. */

/* Stores a name of a data set in the newest place. If this pair of name and digest is already
 * stored, it moves to the newest place. */
cop_err coord_store_put_set(coord_store *store, const coord_dataset *set, cop_error *error);
/* Removes the pair of this name and this digest, or, if `name` is "", all names of the digest. */
cop_err coord_store_remove_set(coord_store *store, const char *name, const char *digest,
                               cop_error *error);

/* ---- reads: any thread ----
 * All reads share one connection, which the writer thread does not use. A read may wait for the
 * disk and for another read, so the loop thread calls only the short ones. The database may have
 * been altered: jobs and data sets with impossible values are skipped and logged. */

typedef struct coord_store_job {
    uint64_t job;
    coord_job_state state;
    char name[COP_NAME_MAX];
    char text[512];       /* explains the state; "": no explanation */
    char digest[65];      /* digest of the weights in the checkpoint of `digest_step`; "": not
                             known */
    char data_digest[65]; /* digest of the data set */
    char created[32];     /* UTC */
    char finished[32];    /* UTC; "": the job has not ended */
    cop_buffer *spec;     /* the packed job */
    uint64_t step;        /* the last one that has a row of metrics; 0: there is none */
    uint64_t digest_step;
    uint64_t fingerprint;               /* of the OpenBLAS that it is pinned to; 0: not pinned */
    unsigned char key[COORD_STORE_KEY]; /* key of its submission */
    bool has_key;
    char owner[COP_NAME_MAX]; /* name in the submitter's certificate; "": no certificate */
    double train_loss;        /* mean training loss of the last epoch that ended; valid if
                                 has_train_loss */
    double test_error;        /* share of wrong samples in the last evaluation; NaN: it has none */
    double test_loss;         /* loss of the last evaluation; valid if has_evaluation */
    double seconds;           /* seconds of training up to `step` */
    bool has_train_loss;
    bool has_evaluation;
} coord_store_job;
typedef struct coord_store_event {
    uint64_t id, job;
    char time[32], level[8], text[512];
} coord_store_event;
/* Selects the first `limit` events of `job` (0: of the pool) whose id is larger than `after`. */
typedef struct coord_store_event_range {
    uint64_t job, after;
    uint32_t limit;
} coord_store_event_range;

/* Visitors: called for each row. The row is valid during the call only. If a visitor returns an
 * error, the query ends and returns this error. A visitor must not read from the store. */
typedef cop_err (*coord_store_visit_job)(void *context, const coord_store_job *job);
typedef cop_err (*coord_store_visit_set)(void *context, const coord_dataset *set);
typedef cop_err (*coord_store_visit_event)(void *context, const coord_store_event *event);

/* Returns the highest number that a job ever got, at most COORD_JOB_MAX. Returns 0 if there has
 * been no job, or if the store cannot be read. */
uint64_t coord_store_last_job(coord_store *store);
/* The same for evaluations. */
uint64_t coord_store_last_evaluation(coord_store *store);
/* True if the store has a row with this number, valid or not, or if the store cannot be read. */
bool coord_store_has_job(coord_store *store, uint64_t job);
/* Visits the `limit` newest jobs (0: all jobs), the newest first. */
cop_err coord_store_each_job(coord_store *store, uint32_t limit, coord_store_visit_job visit,
                             void *context, cop_error *error);
/* Reads one job. NOT_FOUND: there is no such job, or its row is invalid. On success the caller owns
 * a reference to out->spec (cop_buffer_release). */
cop_err coord_store_get_job(coord_store *store, uint64_t job, coord_store_job *out,
                            cop_error *error);
/* Visits all names of data sets, the oldest first. */
cop_err coord_store_each_set(coord_store *store, coord_store_visit_set visit, void *context,
                             cop_error *error);
/* Visits the selected events, the oldest first. */
cop_err coord_store_each_event(coord_store *store, const coord_store_event_range *range,
                               coord_store_visit_event visit, void *context, cop_error *error);

#endif
