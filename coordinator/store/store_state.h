/* The store's own state, shared by store.c (opening, schema), store_write.c (queue and writer
 * thread) and store_read.c. Nothing else includes this. */
#ifndef COP_COORDINATOR_STORE_STATE_H
#define COP_COORDINATOR_STORE_STATE_H

#include <sqlite3.h>
#include <uv.h>

#include "coordinator/store/store.h"

#define COORD_STORE_RESERVE 256

/* One waiting write: a row. */
typedef struct store_write store_write;
struct store_write {
    store_kind kind;
    store_write *next;
    uint64_t job, step;
    int64_t time_ms;
    int state;
    double a, b, c;
    char text[600], name[COP_NAME_MAX], owner[COP_NAME_MAX];
    unsigned char key[COORD_STORE_KEY];
    bool has_key;
    cop_buffer *spec;
    const coord_dataset *set; /* borrowed: its caller waits */
    coord_store_done done;
    void *context;
};

struct coord_store {
    sqlite3 *writer; /* before the thread starts: the opener's; then the thread's alone */
    sqlite3 *reader; /* under read_mutex */
    sqlite3_stmt *statement[STORE_KINDS];
    uv_mutex_t mutex, read_mutex;
    uv_cond_t work;
    uv_thread_t thread;
    /* under mutex */
    store_write *head, *tail, *spare;
    store_write *reserve; /* COORD_STORE_RESERVE of the spares: metrics take none of these */
    uint32_t queued, spares;
    bool stopping, started, warned, failing;
    bool lost;   /* there was no memory for a write since the last flush */
    bool behind; /* nor for one that must survive: until the next start the disk is behind */
    /* of the writer's thread */
    uint32_t pool_events; /* written since the last pruning */
};

/* The rows' statements, prepared on store->writer. */
extern const char *const coord_store_sql[STORE_KINDS];
/* The thread's body: commits what is queued until `stopping` and nothing is left. */
void coord_store_run_writer(void *store);

/* The reserve, among the spares; and the end of all spares. */
bool coord_store_make_spares(coord_store *store);
void coord_store_free_spares(coord_store *store);

/* Our code of an SQLite result; and with its sentence after "what: ". */
cop_err coord_store_code(int state);
cop_err coord_store_fail(sqlite3 *database, const char *what, cop_error *error);

#endif
