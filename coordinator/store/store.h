/* The store: jobs, metrics, events and names of data sets in SQLite (WAL mode). One thread of its
 * own commits queued writes in batches, so the loop runs no SQL and waits for no fsync. A
 * submission is acknowledged only after its commit. Older schema versions are migrated; a newer
 * store is refused and not changed. */
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

/* Opens or creates the database file `path` and starts the store's thread. VERSION: the store is
 * newer than this program. CORRUPT: the file is not a store. IO, DENIED, NO_SPACE, NO_MEMORY. The
 * caller owns *out (coord_store_close). */
cop_err coord_store_open(const char *path, coord_store **out, cop_error *error);
/* Commits all queued writes, joins the thread and frees the store. NULL has no effect. */
void coord_store_close(coord_store *store);

/* ---- writes: any thread; committed in the order of the calls ---- */

/* Called on the store's thread after the commit, or on the caller's thread if the write cannot be
 * queued (BUSY). `text` explains a failure and is valid during the call only. */
typedef void (*coord_store_done)(void *context, cop_err result, const char *text);

/* A new job. The store copies everything and takes a reference to `spec`. */
typedef struct coord_store_submission {
    uint64_t job;
    const char *name, *data_digest;
    const char *owner;        /* name in the submitter's certificate; NULL or "": none */
    cop_buffer *spec;         /* the packed job */
    const unsigned char *key; /* COORD_STORE_KEY bytes of the request; NULL: none */
    int64_t created_ms;       /* 0: now */
} coord_store_submission;

/* Metrics of a job. A row replaces an earlier row of the same job and step: after a restart, steps
 * beyond the last checkpoint are computed and written again. */
typedef struct coord_store_step {
    uint64_t step;
    double loss; /* mean over the training samples of the step */
    double seconds;
} coord_store_step;
typedef struct coord_store_epoch {
    uint64_t step;
    double epoch, train_loss;
    double train_error; /* NaN: the job has no classes */
} coord_store_epoch;
typedef struct coord_store_evaluation {
    uint64_t step;
    const char *part; /* "test" or "validation" */
    double loss;
    double error; /* NaN: the job has no classes */
    double seconds;
} coord_store_evaluation;

/* `done` may be NULL. */
void coord_store_add_job(coord_store *store, const coord_store_submission *submission,
                         coord_store_done done, void *context);
/* Removes the job with its metrics and events. `done` may be NULL. */
void coord_store_remove_job(coord_store *store, uint64_t job, coord_store_done done, void *context);
void coord_store_set_state(coord_store *store, uint64_t job, coord_job_state state,
                           const char *text);
/* Stores the state that a client asked for; `done` is called when a crash can no longer undo it. */
void coord_store_confirm_state(coord_store *store, uint64_t job, coord_job_state state,
                               coord_store_done done, void *context);
/* The fingerprint of the OpenBLAS that the job is pinned to (numerics: openblas). */
void coord_store_set_fingerprint(coord_store *store, uint64_t job, uint64_t fingerprint);
/* The digest of the weights that a checkpoint of `step` holds. */
void coord_store_set_digest(coord_store *store, uint64_t job, uint64_t step, const char *digest);
void coord_store_add_step(coord_store *store, uint64_t job, const coord_store_step *row);
void coord_store_add_epoch(coord_store *store, uint64_t job, const coord_store_epoch *row);
void coord_store_add_evaluation(coord_store *store, uint64_t job,
                                const coord_store_evaluation *row);
/* A line of the job's log; job 0: of the pool's. */
void coord_store_add_event(coord_store *store, uint64_t job, const char *level, const char *text);
/* Records that an evaluation got this number (from 1), so that no later one gets it. Evaluations
 * themselves are not stored. */
void coord_store_keep_evaluation(coord_store *store, uint64_t number);
/* Waits until all writes that were queued before are on the disk (fsync). The saver calls it before
 * it publishes a checkpoint, because a run that continues from there will not write the earlier
 * metrics again. Not on the loop. IO and others: they cannot be written now; they stay queued and
 * are tried again. NO_MEMORY: a write was lost for lack of memory since the last flush, or one that
 * must survive was lost since the start. */
cop_err coord_store_flush(coord_store *store);

/* ---- data sets ---- */

/* A name of a data set with the properties of its content. */
typedef struct coord_dataset {
    char name[COP_NAME_MAX];
    char digest[65]; /* "": offered by --data or built in, and not read yet: the rest is 0 */
    uint64_t bytes;  /* of the pack */
    uint32_t train, test, classes, rank, shape[3];
    uint32_t jobs; /* unfinished jobs that use it; not stored */
} coord_dataset;

/* These return after the commit; on an error nothing has changed. Not on the loop. put: a pair of
 * name and digest that is already stored becomes the newest. remove: this name of the digest, or,
 * if `name` is "", all names of it. */
cop_err coord_store_put_set(coord_store *store, const coord_dataset *set, cop_error *error);
cop_err coord_store_remove_set(coord_store *store, const char *name, const char *digest,
                               cop_error *error);

/* ---- reads: any thread. They use a connection of their own and may wait for the disk, so the loop
 * calls only the short ones. The content of the database is input: rows with impossible values are
 * skipped and logged. ---- */

typedef struct coord_store_job {
    uint64_t job;
    coord_job_state state;
    char name[COP_NAME_MAX], text[512], digest[65], data_digest[65], created[32], finished[32];
    cop_buffer *spec;
    uint64_t step, digest_step, fingerprint; /* fingerprint 0: not pinned */
    unsigned char key[COORD_STORE_KEY];      /* of its submission */
    bool has_key;
    char owner[COP_NAME_MAX];
    double train_loss, test_error, test_loss, seconds; /* test_error NaN: none */
    bool has_train_loss, has_evaluation;
} coord_store_job;
typedef struct coord_store_event {
    uint64_t id, job;
    char time[32], level[8], text[512];
} coord_store_event;
/* The first `limit` events of `job` after the event `after`. */
typedef struct coord_store_event_range {
    uint64_t job, after;
    uint32_t limit;
} coord_store_event_range;

/* Visitors. A row is valid during the call only. An error ends the query, which returns it. */
typedef cop_err (*coord_store_visit_job)(void *context, const coord_store_job *job);
typedef cop_err (*coord_store_visit_set)(void *context, const coord_dataset *set);
typedef cop_err (*coord_store_visit_event)(void *context, const coord_store_event *event);

/* The highest number that a job or an evaluation ever got; 0: none. At most COORD_JOB_MAX. */
uint64_t coord_store_last_job(coord_store *store);
uint64_t coord_store_last_evaluation(coord_store *store);
/* True: there is a row of this number, valid or not, or the disk cannot tell. */
bool coord_store_has_job(coord_store *store, uint64_t job);
/* Newest first, up to `limit` (0: all). */
cop_err coord_store_each_job(coord_store *store, uint32_t limit, coord_store_visit_job visit,
                             void *context, cop_error *error);
/* NOT_FOUND: no such job. On success the caller owns a reference to out->spec. */
cop_err coord_store_get_job(coord_store *store, uint64_t job, coord_store_job *out,
                            cop_error *error);
/* Oldest first. */
cop_err coord_store_each_set(coord_store *store, coord_store_visit_set visit, void *context,
                             cop_error *error);
/* Oldest first. */
cop_err coord_store_each_event(coord_store *store, const coord_store_event_range *range,
                               coord_store_visit_event visit, void *context, cop_error *error);

#endif
