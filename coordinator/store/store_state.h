/* The private state of the store. Only these files include this header: store.c (opening, schema),
 * store_queue.c (the queue of writes), store_write.c (the writer thread) and store_read.c
 * (queries). */
#ifndef COP_COORDINATOR_STORE_STATE_H
#define COP_COORDINATOR_STORE_STATE_H

#include <sqlite3.h>
#include <uv.h>

#include "coordinator/store/store.h"

/* A spare is unused memory for one write. */
#define COORD_STORE_RESERVE 256  /* spares that metrics and events may not take */
#define COORD_STORE_SPARES  1024 /* beyond this number of spares, finished writes are freed */

/* The row that a write of kind STORE_ADD_JOB adds. */
typedef struct store_job_row {
    char name[COP_NAME_MAX], data_digest[65], owner[COP_NAME_MAX];
    unsigned char key[COORD_STORE_KEY];
    bool has_key;
    cop_buffer *spec; /* a reference, which empty_write releases */
} store_job_row;

/* A queued write. `kind` says which member of the union is set. Some kinds have no member: they
 * need only `job`. */
typedef struct store_write store_write;
struct store_write {
    store_kind kind;
    store_write *next;
    uint64_t job;          /* STORE_KEEP_EVALUATION: the number of the evaluation */
    int64_t time_ms;       /* Unix time of the call */
    coord_store_done done; /* gets the result; NULL: nobody waits for it */
    void *context;         /* argument of `done` */
    union {
        store_job_row new_job; /* STORE_ADD_JOB */
        struct {
            coord_job_state state;
            char text[600];
        } state; /* STORE_SET_STATE */
        struct {
            uint64_t step;
            char digest[65];
        } digest;                /* STORE_SET_DIGEST */
        uint64_t fingerprint;    /* STORE_SET_FINGERPRINT */
        coord_store_step step;   /* STORE_ADD_STEP */
        coord_store_epoch epoch; /* STORE_ADD_EPOCH */
        struct {
            coord_store_evaluation row; /* row.part is NULL: `part` replaces it */
            char part[16];
        } evaluation; /* STORE_ADD_EVALUATION */
        struct {
            char level[16], text[600];
        } event; /* STORE_ADD_EVENT */
        /* STORE_PUT_SET, STORE_REMOVE_SET: borrowed from the caller, who waits for the commit */
        const coord_dataset *set;
    };
};

struct coord_store {
    sqlite3 *writer; /* connection for writes; while the writer thread runs, only it uses it */
    sqlite3 *reader; /* connection for queries; guarded by read_mutex */
    sqlite3_stmt *statement[STORE_KINDS]; /* prepared on `writer`, by kind */
    uv_mutex_t mutex, read_mutex;
    uv_cond_t work; /* signals the writer thread that the queue needs it */
    uv_thread_t thread;
    /* guarded by mutex, except `started` */
    store_write *head;    /* the queue, the oldest write first */
    store_write *tail;    /* the newest write in the queue */
    store_write *spare;   /* a list of writes that are not in use */
    store_write *reserve; /* an array of COORD_STORE_RESERVE writes, which start as spares */
    uint32_t queued;      /* number of writes in the queue */
    uint32_t spares;      /* number of writes in the list `spare` */
    bool stopping;        /* the store is being closed */
    bool started;         /* the writer thread was started; set once, by coord_store_open */
    bool warned_full;     /* the log already says that metrics are dropped */
    bool failing;         /* the last batch left writes that must be tried again */
    bool lost;            /* a write was lost for lack of memory since the last flush */
    bool behind; /* a write that must survive was lost for lack of memory, so every flush fails */
    /* used by the writer thread only */
    uint32_t pool_events; /* events of the pool, written since the last pruning */
};

/* ---- store_write.c ---- */
/* The SQL of each kind of write. coord_store_open prepares it on store->writer. */
extern const char *const coord_store_sql[STORE_KINDS];
/* The body of the writer thread: commits the queue until `stopping` is set and the queue is empty.
 * The argument is the coord_store. */
void coord_store_run_writer(void *store);
/* True: this write must be on the disk (fsync) when its transaction ends. */
bool coord_store_is_durable(const store_write *write);

/* ---- store_queue.c ---- */
/* Allocates the reserve and makes its writes the first spares. False: out of memory. */
bool coord_store_make_spares(coord_store *store);
void coord_store_free_spares(coord_store *store);
/* Makes the writes of the list spares again. Beyond COORD_STORE_SPARES it frees them, except those
 * of the reserve. The caller holds `mutex`. */
void coord_store_recycle(coord_store *store, store_write *list);

/* ---- store.c ---- */
/* Returns our error code for a result of SQLite. */
cop_err coord_store_code(int result);
/* Fails with the last error of `database`; the text is "WHAT: SQLite's message". Never OK. */
cop_err coord_store_fail(sqlite3 *database, const char *what, cop_error *error);

#endif
