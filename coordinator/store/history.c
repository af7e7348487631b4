/* Reads the figures of a job over time from the store of a coordinator or from the metrics.sqlite
 * of a run folder. The connection is read-only and separate from those of an open coord_store. Used
 * by the API, `coppice plot` and `coppice history`. */
#include <sqlite3.h>
#include <string.h>

#include "common/base/alloc.h"
#include "coordinator/coordinator.h"

enum { ROWS_MAX = 1 << 20 };

typedef struct table {
    coord_figure *rows;
    size_t count, capacity;
} table;

static cop_err append(table *t, const coord_figure *row) {
    COP_ASSERT(t->count <= t->capacity);
    if (t->count == t->capacity) {
        const size_t capacity = t->capacity ? 2 * t->capacity : 64;
        coord_figure *rows = cop_realloc(t->rows, capacity * sizeof *rows);
        if (!rows) return COP_ERR_NO_MEMORY;
        t->rows = rows;
        t->capacity = capacity;
    }
    t->rows[t->count++] = *row;
    return COP_OK;
}

/* An open database, and what to read from it. */
typedef struct reader {
    sqlite3 *database;
    const char *path; /* how errors name the file */
    coord_history_range range;
} reader;

static cop_err fail_corrupt(const reader *r, cop_error *error) {
    return cop_fail(error, COP_ERR_CORRUPT, "%s: %s", r->path, sqlite3_errmsg(r->database));
}

/* Appends the rows of a query, which has the columns step, loss, error, on_test and seconds. Sets
 * *on_test to the on_test of the last row; without rows, leaves it unchanged. */
static cop_err read_table(const reader *r, const char *query, table *out, bool *on_test,
                          cop_error *error) {
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(r->database, query, -1, &q, NULL) != SQLITE_OK)
        return fail_corrupt(r, error);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)r->range.job);
    sqlite3_bind_int64(q, 2, (sqlite3_int64)r->range.after);
    sqlite3_bind_int64(q, 3, r->range.limit);
    cop_err e = COP_OK;
    int result;
    while ((result = sqlite3_step(q)) == SQLITE_ROW && !e) {
        const coord_figure row = {.step = (uint64_t)sqlite3_column_int64(q, 0),
                                  .loss = sqlite3_column_double(q, 1),
                                  .error = sqlite3_column_double(q, 2),
                                  .has_error = sqlite3_column_type(q, 2) != SQLITE_NULL,
                                  .seconds = sqlite3_column_double(q, 4),
                                  .has_seconds = sqlite3_column_type(q, 4) != SQLITE_NULL};
        *on_test = sqlite3_column_int(q, 3) != 0;
        e = out->count < ROWS_MAX ? append(out, &row) : COP_ERR_LIMIT;
        if (e) cop_fail(error, e, "%s: too many figures", r->path);
    }
    if (!e && result != SQLITE_DONE) e = fail_corrupt(r, error);
    sqlite3_finalize(q);
    return e;
}

/* The file may have been altered, so rows whose step does not fit into 32 bits are skipped. */
#define OF_JOB                                                                                     \
    " WHERE (?1 = 0 OR job = ?1) AND step > ?2 AND step BETWEEN 0 AND 4294967295 ORDER BY step "   \
    "LIMIT ?3"
static const char epochs[] = "SELECT step, train_loss, train_error, 0, NULL FROM epochs" OF_JOB;
static const char evaluated[] =
    "SELECT step, loss, error, part = 'test', seconds FROM evaluations" OF_JOB;
static const char single[] = "SELECT step, loss, NULL, 0, seconds FROM steps" OF_JOB;

cop_err coord_history_read(const char *path, const coord_history_range *range, coord_history *out,
                           cop_error *error) {
    reader r = {.path = path, .range = *range};
    table train = {0}, evaluations = {0}, steps = {0};
    bool ignored;
    *out = (coord_history){0};
    cop_err e = COP_OK;
    if (sqlite3_open_v2(path, &r.database, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK)
        e = cop_fail(error, COP_ERR_NOT_FOUND, "cannot read %s: %s", path,
                     sqlite3_errmsg(r.database));
    if (!e) sqlite3_busy_timeout(r.database, 2000);
    if (!e && range->limit) {
        e = read_table(&r, single, &steps, &ignored, error);
    } else if (!e) {
        /* The limit is one row more than allowed, so read_table notices that there are too many. */
        r.range = (coord_history_range){.job = range->job, .limit = ROWS_MAX + 1};
        e = read_table(&r, epochs, &train, &ignored, error);
        if (!e) e = read_table(&r, evaluated, &evaluations, &out->on_test, error);
    }
    sqlite3_close(r.database);
    out->train = train.rows;
    out->train_count = train.count;
    out->evaluations = evaluations.rows;
    out->evaluation_count = evaluations.count;
    out->steps = steps.rows;
    out->step_count = steps.count;
    if (e) coord_history_fini(out);
    return e;
}

void coord_history_fini(coord_history *history) {
    cop_free(history->train);
    cop_free(history->evaluations);
    cop_free(history->steps);
    *history = (coord_history){0};
}
