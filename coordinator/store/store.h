/* The store: jobs, metrics, events and data sets in SQLite (WAL), on a thread of its own: no SQL
 * and no fsync on the loop. Writes are queued (bounded) and committed in batches; a submission is
 * acknowledged only after its commit. Schema versions are migrated upwards; a newer store is
 * refused, not damaged. */
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

/* A name of a data set, and what is known of its content. `digest` is empty, and so are the
 * figures, while a set that --data or this program offers was not read yet. */
typedef struct coord_dataset {
    char name[COP_NAME_MAX], digest[65];
    uint64_t bytes; /* of the pack */
    uint32_t train, test, classes, rank, shape[3];
    uint32_t jobs; /* unfinished jobs that use it; not stored */
} coord_dataset;

/* path: the database file (created). VERSION when it is newer than this program; CORRUPT when it is
 * no store. */
cop_err coord_store_open(const char *path, coord_store **out, cop_error *error);
/* Writes out what is queued, then closes and frees. */
void coord_store_close(coord_store *store);

/* ---- written in order by the store's thread; `done` (may be NULL) is called on that thread after
 * the commit ---- */
typedef void (*coord_store_done)(void *context, cop_err result, const char *text);
typedef struct coord_store_submission {
    uint64_t job;
    const char *name, *data_digest;
    const char *owner;        /* the certificate of who submitted it; "" without one */
    cop_buffer *spec;         /* held */
    const unsigned char *key; /* COORD_STORE_KEY bytes; or NULL */
    int64_t created_ms;       /* 0: now */
} coord_store_submission;
void coord_store_add_job(coord_store *store, const coord_store_submission *submission,
                         coord_store_done done, void *context);
/* The job was pinned to workers of this fingerprint (numerics: openblas). */
void coord_store_set_fingerprint(coord_store *store, uint64_t job, uint64_t fingerprint);
void coord_store_set_state(coord_store *store, uint64_t job, coord_job_state state,
                           const char *text);
/* The same of what a client wished: told when it will survive. */
void coord_store_confirm_state(coord_store *store, uint64_t job, coord_job_state state,
                               coord_store_done done, void *context);
void coord_store_set_digest(coord_store *store, uint64_t job, uint64_t step, const char *digest);
void coord_store_add_step(coord_store *store, uint64_t job, uint64_t step, double loss,
                          double seconds);
/* Errors: NaN where a job has no classes. */
void coord_store_add_epoch(coord_store *store, uint64_t job, uint64_t step, double epoch,
                           double train_loss, double train_error);
void coord_store_add_evaluation(coord_store *store, uint64_t job, uint64_t step, const char *on,
                                double loss, double error, double seconds);
void coord_store_add_event(coord_store *store, uint64_t job, const char *level, const char *text);
/* The number (from 1) was given to an evaluation, which is not stored: it is not given again. */
void coord_store_keep_evaluation(coord_store *store, uint64_t number);
void coord_store_remove_job(coord_store *store, uint64_t job, coord_store_done done, void *context);
/* Data sets: on the disk when these return, or an error and nothing has changed. Not on the loop. A
 * pair of name and digest that is there becomes the newest. remove: of that name, or with "" all
 * names of the digest. */
cop_err coord_store_put_set(coord_store *store, const coord_dataset *set, cop_error *error);
cop_err coord_store_remove_set(coord_store *store, const char *name, const char *digest,
                               cop_error *error);
/* Metrics after a checkpoint's step that a restart will write again are replaced (keyed by job and
 * step). */
/* Waits until all writes queued so far are on the disk (fsync), so that whoever publishes a
 * checkpoint after it never leaves a gap in the metrics. Not on the loop. IO: they could not be
 * written now; they stay queued and are tried again. NO_MEMORY: one since the last flush is lost,
 * or, until the next start, one that must survive. */
cop_err coord_store_flush(coord_store *store);

/* ---- reads: any thread, own read connection, never the loop for anything long ---- */
typedef struct coord_store_job {
    uint64_t job;
    coord_job_state state;
    char name[COP_NAME_MAX], text[512], digest[65], data_digest[65], created[32], finished[32];
    cop_buffer *spec;
    uint64_t step, digest_step, fingerprint; /* fingerprint: 0: none */
    unsigned char key[COORD_STORE_KEY];      /* of its submission */
    bool has_key;
    char owner[COP_NAME_MAX];
    double train_loss, test_error, test_loss, seconds; /* test_error: NaN where there is none */
    bool has_train_loss, has_evaluation;
} coord_store_job;
/* The highest number ever given; at most COORD_JOB_MAX, whatever the disk says. */
uint64_t coord_store_last_job(coord_store *store);
/* The same of evaluations. */
uint64_t coord_store_last_evaluation(coord_store *store);
/* Is there a row of this number, sound or not? True also if the disk cannot tell. */
bool coord_store_has_job(coord_store *store, uint64_t job);
/* Newest first. Rows that make no sense (number, state) are left out, and logged: what the disk
 * says is input. */
cop_err coord_store_each_job(coord_store *store, uint32_t limit,
                             cop_err (*visit)(void *context, const coord_store_job *job),
                             void *context, cop_error *error);
cop_err coord_store_get_job(coord_store *store, uint64_t job, coord_store_job *out,
                            cop_error *error); /* spec is held: release it */
/* Rows that make no sense are left out, and logged. Oldest first. */
cop_err coord_store_each_set(coord_store *store,
                             cop_err (*visit)(void *context, const coord_dataset *set),
                             void *context, cop_error *error);
typedef struct coord_store_event {
    uint64_t id, job;
    char time[32], level[8], text[512];
} coord_store_event;
cop_err coord_store_each_event(coord_store *store, uint64_t job, uint64_t after, uint32_t limit,
                               cop_err (*visit)(void *context, const coord_store_event *event),
                               void *context, cop_error *error);

#endif
