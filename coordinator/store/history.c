/* The figures of a job over time, read from a store or a run folder's metrics.sqlite by a
 * connection of its own that writes nothing. For the API, `coppice plot` and
 * `coppice history`. */
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

static cop_err broken(sqlite3 *db, const char *path, cop_error *error) {
    return cop_fail(error, COP_ERR_CORRUPT, "%s: %s", path, sqlite3_errmsg(db));
}

/* The query's columns: step, loss, error, whether it was the test part, seconds. */
static cop_err read_table(sqlite3 *db, const char *query, const coord_history_range *range,
                          const char *path, coord_history *history, table *out, cop_error *error) {
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(db, query, -1, &q, NULL) != SQLITE_OK) return broken(db, path, error);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)range->job);
    sqlite3_bind_int64(q, 2, (sqlite3_int64)range->after);
    sqlite3_bind_int64(q, 3, range->limit);
    cop_err e = COP_OK;
    int state;
    while ((state = sqlite3_step(q)) == SQLITE_ROW && !e) {
        const coord_figure row = {.step = (uint64_t)sqlite3_column_int64(q, 0),
                                  .loss = sqlite3_column_double(q, 1),
                                  .error = sqlite3_column_double(q, 2),
                                  .has_error = sqlite3_column_type(q, 2) != SQLITE_NULL,
                                  .seconds = sqlite3_column_double(q, 4),
                                  .has_seconds = sqlite3_column_type(q, 4) != SQLITE_NULL};
        history->on_test = sqlite3_column_int(q, 3) != 0;
        e = out->count < ROWS_MAX ? append(out, &row) : COP_ERR_LIMIT;
        if (e) cop_fail(error, e, "%s: too many figures", path);
    }
    if (!e && state != SQLITE_DONE) e = broken(db, path, error);
    sqlite3_finalize(q);
    return e;
}

/* A row that somebody else wrote may say anything: a step has 32 bits. */
#define OF_JOB                                                                                     \
    " WHERE (?1 = 0 OR job = ?1) AND step > ?2 AND step BETWEEN 0 AND 4294967295 ORDER BY step "   \
    "LIMIT ?3"
static const char epochs[] = "SELECT step, train_loss, train_error, 0, NULL FROM epochs" OF_JOB;
static const char evaluated[] =
    "SELECT step, loss, error, part = 'test', seconds FROM evaluations" OF_JOB;
static const char single[] = "SELECT step, loss, NULL, 0, seconds FROM steps" OF_JOB;

cop_err coord_history_read(const char *path, const coord_history_range *range, coord_history *out,
                           cop_error *error) {
    sqlite3 *db = NULL;
    table train = {0}, evaluations = {0}, steps = {0};
    const coord_history_range all = {.job = range->job,
                                     .limit = ROWS_MAX + 1}; /* one is too many */
    *out = (coord_history){0};
    cop_err e = COP_OK;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        e = cop_fail(error, COP_ERR_NOT_FOUND, "cannot read %s: %s", path, sqlite3_errmsg(db));
    if (!e) sqlite3_busy_timeout(db, 2000);
    if (!e && range->limit) {
        e = read_table(db, single, range, path, out, &steps, error);
    } else if (!e) {
        e = read_table(db, epochs, &all, path, out, &train, error);
        if (!e) e = read_table(db, evaluated, &all, path, out, &evaluations, error);
    }
    sqlite3_close(db);
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
