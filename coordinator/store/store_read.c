/* Queries of the store. They share one read connection, which runs one query at a time. In WAL mode
 * it can read while the writer thread writes. It sees only committed rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "coordinator/store/store_state.h"

/* ---- queries ----
 * A query holds read_mutex from begin_query to end_query, because SQLite keeps the error text of
 * the last failure on the connection. */

/* Takes read_mutex and prepares the SQL. end_query must follow, even after an error. */
static cop_err begin_query(coord_store *s, const char *sql, sqlite3_stmt **q, cop_error *error) {
    uv_mutex_lock(&s->read_mutex);
    if (sqlite3_prepare_v2(s->reader, sql, -1, q, NULL) == SQLITE_OK) return COP_OK;
    return coord_store_fail(s->reader, "the store", error);
}

/* Steps to the next row. True: there is one. False: there are no more rows, or *e is an error. */
static bool next_row(coord_store *s, sqlite3_stmt *q, cop_err *e, cop_error *error) {
    const int result = sqlite3_step(q);
    if (result != SQLITE_ROW && result != SQLITE_DONE)
        *e = coord_store_fail(s->reader, "the store", error);
    return result == SQLITE_ROW;
}

static void end_query(coord_store *s, sqlite3_stmt *q) {
    sqlite3_finalize(q);
    uv_mutex_unlock(&s->read_mutex);
}

/* ---- jobs ---- */

static const char job_sql[] =
    "SELECT j.job, j.state, j.name, j.text, j.digest, j.data_digest, j.created_ms, j.finished_ms, "
    "j.spec,"
    " (SELECT max(step) FROM steps WHERE job = j.job), (SELECT seconds FROM steps WHERE job = "
    "j.job ORDER BY step DESC LIMIT 1),"
    " (SELECT train_loss FROM epochs WHERE job = j.job ORDER BY step DESC LIMIT 1),"
    " (SELECT error FROM evaluations WHERE job = j.job ORDER BY step DESC LIMIT 1), (SELECT loss "
    "FROM evaluations WHERE job = j.job ORDER BY step DESC LIMIT 1), j.fingerprint, j.submission, "
    "j.owner, j.digest_step"
    " FROM jobs j WHERE ?1 = 0 OR j.job = ?1 ORDER BY j.job DESC LIMIT ?2";

static void column_text(sqlite3_stmt *q, int column, char *out, size_t size) {
    const unsigned char *text = sqlite3_column_text(q, column);
    snprintf(out, size, "%s", text ? (const char *)text : "");
}

static void column_time(sqlite3_stmt *q, int column, char out[32]) {
    int64_t ms = sqlite3_column_int64(q, column);
    if (ms)
        cop_clock_format_utc(ms, out);
    else
        out[0] = '\0';
}

/* True: the row's number and state are possible. Decisions depend on these two columns. */
static bool is_valid_row(sqlite3_stmt *q) {
    const int64_t job = sqlite3_column_int64(q, 0), state = sqlite3_column_int64(q, 1);
    if (job >= 1 && (uint64_t)job <= COORD_JOB_MAX && state >= COORD_QUEUED &&
        state <= COORD_CANCELED)
        return true;
    cop_log(COP_LOG_WARN, "store", "ignoring the row of job %lld, state %lld: it is invalid",
            (long long)job, (long long)state);
    return false;
}

/* Reads a number of a step. If it does not fit into 32 bits, as every valid one does, returns 0. */
static uint64_t column_step(sqlite3_stmt *q, int column) {
    const int64_t step = sqlite3_column_int64(q, column);
    return step >= 0 && step <= UINT32_MAX ? (uint64_t)step : 0;
}

/* Copies a row to *j. NO_MEMORY. The caller releases j->spec even after an error. */
static cop_err read_row(sqlite3_stmt *q, coord_store_job *j) {
    memset(j, 0, sizeof *j);
    j->job = (uint64_t)sqlite3_column_int64(q, 0);
    j->state = (coord_job_state)sqlite3_column_int(q, 1);
    column_text(q, 2, j->name, sizeof j->name);
    column_text(q, 3, j->text, sizeof j->text);
    column_text(q, 4, j->digest, sizeof j->digest);
    column_text(q, 5, j->data_digest, sizeof j->data_digest);
    column_time(q, 6, j->created);
    column_time(q, 7, j->finished);
    size_t size = (size_t)sqlite3_column_bytes(q, 8);
    j->spec = cop_buffer_create(size);
    const void *spec = sqlite3_column_blob(q, 8);
    if (!j->spec || (size && !spec)) return COP_ERR_NO_MEMORY;
    if (size) memcpy(j->spec->data, spec, size);
    j->step = column_step(q, 9);
    j->seconds = sqlite3_column_double(q, 10);
    j->has_train_loss = sqlite3_column_type(q, 11) != SQLITE_NULL;
    j->train_loss = sqlite3_column_double(q, 11);
    j->has_evaluation = sqlite3_column_type(q, 13) != SQLITE_NULL;
    j->test_error = sqlite3_column_type(q, 12) != SQLITE_NULL ? sqlite3_column_double(q, 12) : NAN;
    j->test_loss = sqlite3_column_double(q, 13);
    j->fingerprint = (uint64_t)sqlite3_column_int64(q, 14);
    j->has_key = sqlite3_column_bytes(q, 15) == COORD_STORE_KEY;
    if (j->has_key) memcpy(j->key, sqlite3_column_blob(q, 15), COORD_STORE_KEY);
    column_text(q, 16, j->owner, sizeof j->owner);
    j->digest_step = (uint64_t)sqlite3_column_int64(q, 17);
    return COP_OK;
}

typedef struct job_query {
    uint64_t job;   /* the job to read; 0: all jobs */
    uint32_t limit; /* the maximum number of rows; 0: no limit */
} job_query;

static cop_err query_jobs(coord_store *s, job_query query, coord_store_visit_job visit,
                          void *context, cop_error *error) {
    sqlite3_stmt *q = NULL;
    cop_err e = begin_query(s, job_sql, &q, error);
    if (!e) {
        sqlite3_bind_int64(q, 1, (sqlite3_int64)query.job);
        sqlite3_bind_int64(q, 2, query.limit ? query.limit : INT64_MAX);
    }
    while (!e && next_row(s, q, &e, error)) {
        coord_store_job row;
        if (!is_valid_row(q)) continue;
        e = read_row(q, &row);
        if (e)
            cop_fail(error, e, "out of memory");
        else
            e = visit(context, &row);
        cop_buffer_release(row.spec);
    }
    end_query(s, q);
    return e;
}

cop_err coord_store_each_job(coord_store *s, uint32_t limit, coord_store_visit_job visit,
                             void *context, cop_error *error) {
    return query_jobs(s, (job_query){.limit = limit}, visit, context, error);
}

typedef struct job_copy {
    coord_store_job *out;
    bool found;
} job_copy;

static cop_err copy_job(void *context, const coord_store_job *job) {
    job_copy *copy = context;
    COP_ASSERT(!copy->found && job->spec);
    *copy->out = *job;
    cop_buffer_hold(job->spec);
    copy->found = true;
    return COP_OK;
}

cop_err coord_store_get_job(coord_store *s, uint64_t job, coord_store_job *out, cop_error *error) {
    job_copy copy = {.out = out};
    if (!job) return cop_fail(error, COP_ERR_NOT_FOUND, "there is no job 0");
    COP_TRY(query_jobs(s, (job_query){.job = job, .limit = 1}, copy_job, &copy, error));
    return copy.found ? COP_OK
                      : cop_fail(error, COP_ERR_NOT_FOUND,
                                 "there is no job %llu (coppice jobs lists them)",
                                 (unsigned long long)job);
}

/* Runs the SQL with `value` as its parameter and returns the first column of the first row. Returns
 * `fallback` if there is no row, or on an error. */
static int64_t query_number(coord_store *s, const char *sql, uint64_t value, int64_t fallback) {
    sqlite3_stmt *q = NULL;
    if (!begin_query(s, sql, &q, NULL)) {
        sqlite3_bind_int64(q, 1, (sqlite3_int64)value);
        if (sqlite3_step(q) == SQLITE_ROW) fallback = sqlite3_column_int64(q, 0);
    }
    end_query(s, q);
    return fallback;
}

uint64_t coord_store_last_job(coord_store *s) {
    const int64_t last = query_number(s,
                                      "SELECT max((SELECT ifnull(max(last_job), 0) FROM meta WHERE "
                                      "last_job <= ?1), (SELECT ifnull(max(job), 0) FROM jobs "
                                      "WHERE job <= ?1))",
                                      COORD_JOB_MAX, 0);
    return last > 0 ? (uint64_t)last : 0;
}

uint64_t coord_store_last_evaluation(coord_store *s) {
    const int64_t last = query_number(
        s, "SELECT last_evaluation FROM meta WHERE last_evaluation <= ?1", COORD_JOB_MAX, 0);
    return last > 0 ? (uint64_t)last : 0;
}

bool coord_store_has_job(coord_store *s, uint64_t job) {
    return query_number(s, "SELECT count(*) FROM jobs WHERE job = ?1", job, 1) != 0;
}

cop_err coord_store_each_event(coord_store *s, const coord_store_event_range *range,
                               coord_store_visit_event visit, void *context, cop_error *error) {
    static const char sql[] = "SELECT id, job, time_ms, level, text FROM events WHERE job = ?1 AND "
                              "id > ?2 ORDER BY id LIMIT ?3";
    sqlite3_stmt *q = NULL;
    cop_err e = begin_query(s, sql, &q, error);
    if (!e) {
        sqlite3_bind_int64(q, 1, (sqlite3_int64)range->job);
        sqlite3_bind_int64(q, 2, (sqlite3_int64)range->after);
        sqlite3_bind_int64(q, 3, range->limit);
    }
    while (!e && next_row(s, q, &e, error)) {
        coord_store_event event = {.id = (uint64_t)sqlite3_column_int64(q, 0),
                                   .job = (uint64_t)sqlite3_column_int64(q, 1)};
        column_time(q, 2, event.time);
        column_text(q, 3, event.level, sizeof event.level);
        column_text(q, 4, event.text, sizeof event.text);
        e = visit(context, &event);
    }
    end_query(s, q);
    return e;
}

/* ---- data sets ---- */

/* False: the row has impossible values. */
static bool read_set(sqlite3_stmt *q, coord_dataset *out) {
    uint32_t *const figures[] = {&out->train, &out->test,     &out->classes, &out->rank,
                                 out->shape,  out->shape + 1, out->shape + 2};
    unsigned char digest[32];
    *out = (coord_dataset){.bytes = (uint64_t)sqlite3_column_int64(q, 2)};
    const int name = sqlite3_column_bytes(q, 0);
    column_text(q, 0, out->name, sizeof out->name);
    column_text(q, 1, out->digest, sizeof out->digest);
    bool valid = name > 0 && (size_t)name == strlen(out->name) && out->bytes <= INT64_MAX &&
                 cop_unhex32(out->digest, digest);
    for (int i = 0; i < 7; i++) {
        const int64_t figure = sqlite3_column_int64(q, 3 + i);
        valid = valid && figure >= 0 && figure <= UINT32_MAX;
        *figures[i] = (uint32_t)figure;
    }
    return valid && out->rank <= 3;
}

cop_err coord_store_each_set(coord_store *s, coord_store_visit_set visit, void *context,
                             cop_error *error) {
    static const char sql[] = "SELECT name, digest, bytes, train, test, classes, rank, dim0, dim1, "
                              "dim2, place FROM data_sets ORDER BY place";
    sqlite3_stmt *q = NULL;
    cop_err e = begin_query(s, sql, &q, error);
    while (!e && next_row(s, q, &e, error)) {
        coord_dataset set;
        if (read_set(q, &set))
            e = visit(context, &set);
        else
            cop_log(COP_LOG_WARN, "store", "ignoring row %lld of data_sets: it is invalid",
                    (long long)sqlite3_column_int64(q, 10));
    }
    end_query(s, q);
    return e;
}
