/* The store's own state. Included only by store.c (opening, schema), store_queue.c (the queue of
 * writes), store_write.c (the writer thread) and store_read.c (queries). */
#ifndef COP_COORDINATOR_STORE_STATE_H
#define COP_COORDINATOR_STORE_STATE_H

#include <sqlite3.h>
#include <uv.h>

#include "coordinator/store/store.h"

#define COORD_STORE_RESERVE 256  /* spare writes that metrics and events never take */
#define COORD_STORE_SPARES  1024 /* finished writes that are kept for reuse */

/* The row of a STORE_ADD_JOB. */
typedef struct store_job_row {
    char name[COP_NAME_MAX], data_digest[65], owner[COP_NAME_MAX];
    unsigned char key[COORD_STORE_KEY];
    bool has_key;
    cop_buffer *spec; /* held */
} store_job_row;

/* A queued write. `kind` says which member of the union is set; kinds without a member need only
 * the job's number. */
typedef struct store_write store_write;
struct store_write {
    store_kind kind;
    store_write *next;
    uint64_t job;
    int64_t time_ms;
    coord_store_done done; /* NULL: nobody waits */
    void *context;
    union {
        store_job_row new_job; /* STORE_ADD_JOB */
        struct {
            coord_job_state state;
            char text[600];
        } state; /* STORE_SET_STATE */
        struct {
            uint64_t step;
            char digest[65];
        } digest;             /* STORE_SET_DIGEST */
        uint64_t fingerprint; /* STORE_SET_FINGERPRINT */
        coord_store_step step;
        coord_store_epoch epoch;
        struct {
            coord_store_evaluation row; /* its `part` is unused */
            char part[16];
        } evaluation;
        struct {
            char level[16], text[600];
        } event;
        const coord_dataset *set; /* STORE_PUT_SET, STORE_REMOVE_SET: borrowed, its caller waits */
    };
};

struct coord_store {
    sqlite3 *writer; /* of the opening thread, then of the writer thread alone */
    sqlite3 *reader; /* guarded by read_mutex */
    sqlite3_stmt *statement[STORE_KINDS];
    uv_mutex_t mutex, read_mutex;
    uv_cond_t work;
    uv_thread_t thread;
    /* guarded by mutex */
    store_write *head, *tail, *spare;
    store_write *reserve; /* an array of COORD_STORE_RESERVE, part of the spares */
    uint32_t queued, spares;
    bool stopping, started;
    bool warned_full; /* the log says that metrics are dropped */
    bool failing;     /* the last batch could not be written */
    bool lost;        /* since the last flush a write found no memory */
    bool behind;      /* ... and it had to survive: the disk is behind until the next start */
    /* of the writer thread */
    uint32_t pool_events; /* written since the last pruning */
};

/* ---- store_write.c ---- */
/* The statement of each kind, prepared on store->writer. */
extern const char *const coord_store_sql[STORE_KINDS];
/* The body of the writer thread: commits the queue until `stopping` is set and the queue is empty.
 */
void coord_store_run_writer(void *store);
/* True: this write needs an fsync before the writes after it. */
bool coord_store_is_durable(const store_write *write);

/* ---- store_queue.c ---- */
/* Allocates the reserve. False: out of memory. */
bool coord_store_make_spares(coord_store *store);
void coord_store_free_spares(coord_store *store);
/* Returns finished writes to the spares; frees what exceeds them. Under the mutex. */
void coord_store_recycle(coord_store *store, store_write *list);

/* ---- store.c ---- */
/* Our code for an SQLite result. */
cop_err coord_store_code(int result);
/* The last error of `database` as "what: sentence". Never OK. */
cop_err coord_store_fail(sqlite3 *database, const char *what, cop_error *error);

#endif
