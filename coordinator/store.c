/* The store. See store.h. Tables:
 *   meta(version)                                  one row
 *   jobs(job, name, state, text, spec, data_digest, digest, digest_step, created_ms, finished_ms)
 *   steps(job, step, loss, seconds)                one row per step: mean training loss
 *   epochs(job, step, epoch, train_loss, train_error)
 *   evaluations(job, step, part, loss, error, seconds)
 *   events(id, job, time_ms, level, text)
 * Metrics are keyed by (job, step): what is computed again after a restart replaces what was there.
 */
#include "coordinator/store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#define QUEUE_MAX 65536 /* waiting writes; metrics beyond are dropped, with a warning, never jobs  \
                         */
#define BATCH_MS 100

typedef enum write_kind {
    ADD_JOB = 1,
    SET_STATE,
    SET_DIGEST,
    ADD_STEP,
    ADD_EPOCH,
    ADD_EVALUATION,
    ADD_EVENT,
    REMOVE_JOB,
    WRITE_KINDS
} write_kind;

typedef struct store_write store_write;
struct store_write {
    write_kind kind;
    store_write *next;
    uint64_t job, step;
    int64_t time_ms;
    int state;
    double a, b, c;
    char text[600], name[COP_NAME_MAX];
    cop_buffer *spec;
    coord_store_done done;
    void *context;
};

struct coord_store {
    sqlite3 *writer, *reader;
    sqlite3_stmt *statement[WRITE_KINDS];
    uv_mutex_t mutex, read_mutex;
    uv_cond_t work, idle;
    uv_thread_t thread;
    store_write *head, *tail, *spare;
    uint32_t queued;
    bool stopping, busy, started, warned;
};

static const char schema[] =
    "CREATE TABLE meta(version INTEGER NOT NULL);"
    "CREATE TABLE jobs(job INTEGER PRIMARY KEY, name TEXT NOT NULL, state INTEGER NOT NULL, text "
    "TEXT NOT NULL, spec BLOB NOT NULL, data_digest TEXT NOT NULL,"
    " digest TEXT NOT NULL DEFAULT '', digest_step INTEGER NOT NULL DEFAULT 0, created_ms INTEGER "
    "NOT NULL, finished_ms INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE steps(job INTEGER NOT NULL, step INTEGER NOT NULL, loss REAL, seconds REAL, "
    "PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE epochs(job INTEGER NOT NULL, step INTEGER NOT NULL, epoch REAL, train_loss REAL, "
    "train_error REAL, PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE evaluations(job INTEGER NOT NULL, step INTEGER NOT NULL, part TEXT, loss REAL, "
    "error REAL, seconds REAL, PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL, time_ms "
    "INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL);"
    "CREATE INDEX events_of_job ON events(job, id);";

static const char *const sql[WRITE_KINDS] = {
    [ADD_JOB] = "INSERT OR REPLACE INTO jobs(job, name, state, text, spec, data_digest, "
                "created_ms) VALUES(?1, ?2, 1, '', ?3, ?4, ?5)",
    [SET_STATE] = "UPDATE jobs SET state = ?2, text = ?3, finished_ms = CASE WHEN ?2 >= 4 THEN ?4 "
                  "ELSE 0 END WHERE job = ?1",
    [SET_DIGEST] = "UPDATE jobs SET digest = ?2, digest_step = ?3 WHERE job = ?1",
    [ADD_STEP] = "INSERT OR REPLACE INTO steps(job, step, loss, seconds) VALUES(?1, ?2, ?3, ?4)",
    [ADD_EPOCH] = "INSERT OR REPLACE INTO epochs(job, step, epoch, train_loss, train_error) "
                  "VALUES(?1, ?2, ?3, ?4, ?5)",
    [ADD_EVALUATION] = "INSERT OR REPLACE INTO evaluations(job, step, part, loss, error, seconds) "
                       "VALUES(?1, ?2, ?6, ?3, ?4, ?5)",
    [ADD_EVENT] = "INSERT INTO events(job, time_ms, level, text) VALUES(?1, ?2, ?3, ?4)",
    [REMOVE_JOB] = "DELETE FROM jobs WHERE job = ?1",
};

static cop_err fail(coord_store *s, sqlite3 *db, const char *what, cop_error *error) {
    (void)s;
    int code = sqlite3_errcode(db);
    cop_err e = code == SQLITE_FULL                               ? COP_ERR_NO_SPACE
                : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? COP_ERR_CORRUPT
                                                                  : COP_ERR_IO;
    return cop_fail(error, e, "%s: %s", what, sqlite3_errmsg(db));
}

/* ---- opening ---- */

static cop_err read_version(coord_store *s, const char *path, int *version, cop_error *error) {
    sqlite3_stmt *q;
    *version = 0;
    if (sqlite3_prepare_v2(s->writer, "SELECT count(*) FROM sqlite_master", -1, &q, NULL) !=
        SQLITE_OK)
        return fail(s, s->writer, path, error);
    int state = sqlite3_step(q);
    bool empty = state == SQLITE_ROW && sqlite3_column_int(q, 0) == 0;
    sqlite3_finalize(q);
    if (state != SQLITE_ROW) return fail(s, s->writer, path, error);
    if (empty) return COP_OK;
    if (sqlite3_prepare_v2(s->writer, "SELECT version FROM meta", -1, &q, NULL) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_ROW) {
        sqlite3_finalize(q);
        return cop_fail(error, COP_ERR_CORRUPT, "%s is a database, but not a store of coppice",
                        path);
    }
    *version = sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    return COP_OK;
}

static cop_err prepare_schema(coord_store *s, const char *path, cop_error *error) {
    int version;
    COP_TRY(read_version(s, path, &version, error));
    if (version > COORD_STORE_VERSION)
        return cop_fail(error, COP_ERR_VERSION,
                        "%s was written by a newer coppice (store version %d, this one knows %d): "
                        "it is left as it is",
                        path, version, COORD_STORE_VERSION);
    if (version == COORD_STORE_VERSION) return COP_OK;
    char all[sizeof schema + 100];
    snprintf(all, sizeof all, "BEGIN;%s INSERT INTO meta VALUES(%d); COMMIT;", schema,
             COORD_STORE_VERSION);
    return sqlite3_exec(s->writer, all, NULL, NULL, NULL) == SQLITE_OK
               ? COP_OK
               : fail(s, s->writer, path, error);
}

static cop_err open_database(coord_store *s, const char *path, cop_error *error) {
    if (sqlite3_open_v2(path, &s->writer,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
                        NULL) != SQLITE_OK)
        return fail(s, s->writer, path, error);
    sqlite3_busy_timeout(s->writer, 5000);
    COP_TRY(prepare_schema(s, path,
                           error)); /* before anything is written: a newer store stays untouched */
    if (sqlite3_exec(s->writer, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;", NULL, NULL,
                     NULL) != SQLITE_OK)
        return fail(s, s->writer, path, error);
    for (int i = 1; i < WRITE_KINDS; i++)
        if (sqlite3_prepare_v2(s->writer, sql[i], -1, &s->statement[i], NULL) != SQLITE_OK)
            return fail(s, s->writer, path, error);
    if (sqlite3_open_v2(path, &s->reader, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX, NULL) !=
        SQLITE_OK)
        return fail(s, s->reader, path, error);
    sqlite3_busy_timeout(s->reader, 5000);
    return COP_OK;
}

/* ---- the writer thread ---- */

static void bind_values(sqlite3_stmt *q, const store_write *w) {
    sqlite3_int64 job = (sqlite3_int64)w->job, step = (sqlite3_int64)w->step;
    sqlite3_bind_int64(q, 1, job);
    switch (w->kind) {
    case ADD_JOB:
        sqlite3_bind_text(q, 2, w->name, -1, SQLITE_STATIC);
        sqlite3_bind_blob64(q, 3, w->spec->data, w->spec->size, SQLITE_STATIC);
        sqlite3_bind_text(q, 4, w->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 5, w->time_ms);
        break;
    case SET_STATE:
        sqlite3_bind_int(q, 2, w->state);
        sqlite3_bind_text(q, 3, w->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 4, w->time_ms);
        break;
    case SET_DIGEST:
        sqlite3_bind_text(q, 2, w->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 3, step);
        break;
    case ADD_STEP:
    case ADD_EPOCH:
    case ADD_EVALUATION:
        sqlite3_bind_int64(q, 2, step);
        sqlite3_bind_double(q, 3, w->a);
        sqlite3_bind_double(q, 4, w->b);
        if (w->kind != ADD_STEP) sqlite3_bind_double(q, 5, w->c);
        if (w->kind == ADD_EVALUATION) sqlite3_bind_text(q, 6, w->text, -1, SQLITE_STATIC);
        break;
    case ADD_EVENT:
        sqlite3_bind_int64(q, 2, w->time_ms);
        sqlite3_bind_text(q, 3, w->name, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 4, w->text, -1, SQLITE_STATIC);
        break;
    default:
        break;
    }
}

static int remove_metrics(coord_store *s, uint64_t job) {
    char text[256];
    snprintf(text, sizeof text,
             "DELETE FROM steps WHERE job = %llu; DELETE FROM epochs WHERE job = %llu; DELETE FROM "
             "evaluations WHERE job = %llu; DELETE FROM events WHERE job = %llu;",
             (unsigned long long)job, (unsigned long long)job, (unsigned long long)job,
             (unsigned long long)job);
    return sqlite3_exec(s->writer, text, NULL, NULL, NULL);
}

static int write_one(coord_store *s, const store_write *w) {
    sqlite3_stmt *q = s->statement[w->kind];
    bind_values(q, w);
    int state = sqlite3_step(q);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    if (state == SQLITE_DONE && w->kind == REMOVE_JOB) return remove_metrics(s, w->job);
    return state == SQLITE_DONE ? SQLITE_OK : state;
}

/* All of the list in one transaction: one fsync. On failure (full disk) metrics are lost with a
 * warning and jobs are refused; the file stays whole. */
static bool commit_batch(coord_store *s, store_write *list) {
    int state = sqlite3_exec(s->writer, "BEGIN", NULL, NULL, NULL);
    for (store_write *w = list; w && state == SQLITE_OK; w = w->next) state = write_one(s, w);
    if (state == SQLITE_OK) state = sqlite3_exec(s->writer, "COMMIT", NULL, NULL, NULL);
    if (state == SQLITE_OK) return true;
    cop_log(COP_LOG_WARN, "store", "cannot write: %s", sqlite3_errmsg(s->writer));
    if (!sqlite3_get_autocommit(s->writer)) sqlite3_exec(s->writer, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

/* A batch that fails as a whole is tried again row by row, later ones included, as long as the disk
 * takes them. */
static void finish_batch(coord_store *s, store_write *list) {
    bool good = commit_batch(s, list);
    for (store_write *w = list; w; w = w->next) {
        bool written = good;
        if (!good) {
            store_write *next = w->next;
            w->next = NULL;
            written = commit_batch(s, w);
            w->next = next;
        }
        if (w->done)
            w->done(w->context, written ? COP_OK : COP_ERR_NO_SPACE,
                    written ? "" : sqlite3_errmsg(s->writer));
        cop_buffer_release(w->spec);
        w->spec = NULL;
    }
}

static bool is_urgent(const store_write *w) {
    return w->done != NULL;
}

static void run_writer(void *argument) {
    coord_store *s = argument;
    uv_mutex_lock(&s->mutex);
    for (;;) {
        while (!s->head && !s->stopping) uv_cond_wait(&s->work, &s->mutex);
        if (!s->head) break;
        /* Metrics wait a moment for company; what somebody waits for goes at once. */
        bool urgent = s->stopping;
        for (store_write *w = s->head; w && !urgent; w = w->next) urgent = is_urgent(w);
        if (!urgent) uv_cond_timedwait(&s->work, &s->mutex, (uint64_t)BATCH_MS * 1000000);
        store_write *list = s->head;
        s->head = s->tail = NULL;
        s->queued = 0;
        s->busy = true;
        uv_mutex_unlock(&s->mutex);
        finish_batch(s, list);
        uv_mutex_lock(&s->mutex);
        s->busy = false;
        while (list) { /* kept for the next writes: a step allocates nothing */
            store_write *next = list->next;
            list->next = s->spare;
            s->spare = list;
            list = next;
        }
        if (!s->head) uv_cond_broadcast(&s->idle);
    }
    uv_mutex_unlock(&s->mutex);
}

/* ---- queueing ---- */

static store_write *begin_write(coord_store *s, write_kind kind, uint64_t job) {
    uv_mutex_lock(&s->mutex);
    store_write *w = s->spare;
    if (w) s->spare = w->next;
    bool full =
        s->queued >= QUEUE_MAX && kind != ADD_JOB && kind != SET_STATE && kind != REMOVE_JOB;
    if (full && w) {
        w->next = s->spare;
        s->spare = w;
        w = NULL;
    }
    bool warn = full && !s->warned;
    s->warned = full;
    uv_mutex_unlock(&s->mutex);
    if (warn) cop_log(COP_LOG_WARN, "store", "the disk is too slow: metrics are dropped");
    if (full) return NULL;
    if (!w)
        w = cop_alloc(sizeof *w);
    else
        memset(w, 0, sizeof *w);
    if (!w) return NULL;
    w->kind = kind;
    w->job = job;
    w->time_ms = cop_clock_unix_ms();
    return w;
}

static void end_write(coord_store *s, store_write *w) {
    uv_mutex_lock(&s->mutex);
    w->next = NULL;
    if (s->tail)
        s->tail->next = w;
    else
        s->head = w;
    s->tail = w;
    s->queued++;
    if (s->queued == 1 || w->done) uv_cond_signal(&s->work);
    uv_mutex_unlock(&s->mutex);
}

void coord_store_add_job(coord_store *s, uint64_t job, const char *name, cop_buffer *spec,
                         const char *data_digest, coord_store_done done, void *context) {
    store_write *w = begin_write(s, ADD_JOB, job);
    if (!w) {
        if (done) done(context, COP_ERR_NO_MEMORY, "out of memory");
        return;
    }
    snprintf(w->name, sizeof w->name, "%s", name);
    snprintf(w->text, sizeof w->text, "%s", data_digest);
    w->spec = cop_buffer_hold(spec);
    w->done = done;
    w->context = context;
    end_write(s, w);
}

void coord_store_set_state(coord_store *s, uint64_t job, coord_job_state state, const char *text) {
    store_write *w = begin_write(s, SET_STATE, job);
    if (!w) return;
    w->state = (int)state;
    snprintf(w->text, sizeof w->text, "%s", text);
    end_write(s, w);
}

void coord_store_set_digest(coord_store *s, uint64_t job, uint64_t step, const char *digest) {
    store_write *w = begin_write(s, SET_DIGEST, job);
    if (!w) return;
    w->step = step;
    snprintf(w->text, sizeof w->text, "%s", digest);
    end_write(s, w);
}

void coord_store_add_step(coord_store *s, uint64_t job, uint64_t step, double loss,
                          double seconds) {
    store_write *w = begin_write(s, ADD_STEP, job);
    if (!w) return;
    w->step = step;
    w->a = loss;
    w->b = seconds;
    end_write(s, w);
}

void coord_store_add_epoch(coord_store *s, uint64_t job, uint64_t step, double epoch,
                           double train_loss, double train_error) {
    store_write *w = begin_write(s, ADD_EPOCH, job);
    if (!w) return;
    w->step = step;
    w->a = epoch;
    w->b = train_loss;
    w->c = train_error;
    end_write(s, w);
}

void coord_store_add_evaluation(coord_store *s, uint64_t job, uint64_t step, const char *on,
                                double loss, double error, double seconds) {
    store_write *w = begin_write(s, ADD_EVALUATION, job);
    if (!w) return;
    w->step = step;
    w->a = loss;
    w->b = error;
    w->c = seconds;
    snprintf(w->text, sizeof w->text, "%s", on);
    end_write(s, w);
}

void coord_store_add_event(coord_store *s, uint64_t job, const char *level, const char *text) {
    store_write *w = begin_write(s, ADD_EVENT, job);
    if (!w) return;
    snprintf(w->name, sizeof w->name, "%s", level);
    snprintf(w->text, sizeof w->text, "%s", text);
    end_write(s, w);
}

void coord_store_remove_job(coord_store *s, uint64_t job, coord_store_done done, void *context) {
    store_write *w = begin_write(s, REMOVE_JOB, job);
    if (!w) {
        if (done) done(context, COP_ERR_NO_MEMORY, "out of memory");
        return;
    }
    w->done = done;
    w->context = context;
    end_write(s, w);
}

void coord_store_flush(coord_store *s) {
    uv_mutex_lock(&s->mutex);
    uv_cond_signal(&s->work);
    while (s->head || s->busy) uv_cond_wait(&s->idle, &s->mutex);
    uv_mutex_unlock(&s->mutex);
}

/* ---- life ---- */

cop_err coord_store_open(const char *path, coord_store **out, cop_error *error) {
    coord_store *s = cop_alloc(sizeof *s);
    if (!s) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    uv_mutex_init(&s->mutex);
    uv_mutex_init(&s->read_mutex);
    uv_cond_init(&s->work);
    uv_cond_init(&s->idle);
    cop_err e = open_database(s, path, error);
    if (!e && uv_thread_create(&s->thread, run_writer, s))
        e = cop_fail(error, COP_ERR_INTERNAL, "cannot start the store's thread");
    s->started = !e;
    if (e)
        coord_store_close(s);
    else
        *out = s;
    return e;
}

void coord_store_close(coord_store *s) {
    if (!s) return;
    if (s->started) {
        uv_mutex_lock(&s->mutex);
        s->stopping = true;
        uv_cond_signal(&s->work);
        uv_mutex_unlock(&s->mutex);
        uv_thread_join(&s->thread);
    }
    while (s->spare) {
        store_write *next = s->spare->next;
        cop_free(s->spare);
        s->spare = next;
    }
    for (int i = 1; i < WRITE_KINDS; i++) sqlite3_finalize(s->statement[i]);
    sqlite3_close(s->reader);
    sqlite3_close(s->writer);
    uv_mutex_destroy(&s->mutex);
    uv_mutex_destroy(&s->read_mutex);
    uv_cond_destroy(&s->work);
    uv_cond_destroy(&s->idle);
    cop_free(s);
}

/* ---- reading ---- */

static const char job_query[] =
    "SELECT j.job, j.state, j.name, j.text, j.digest, j.data_digest, j.created_ms, j.finished_ms, "
    "j.spec,"
    " (SELECT max(step) FROM steps WHERE job = j.job), (SELECT seconds FROM steps WHERE job = "
    "j.job ORDER BY step DESC LIMIT 1),"
    " (SELECT train_loss FROM epochs WHERE job = j.job ORDER BY step DESC LIMIT 1),"
    " (SELECT error FROM evaluations WHERE job = j.job ORDER BY step DESC LIMIT 1), (SELECT loss "
    "FROM evaluations WHERE job = j.job ORDER BY step DESC LIMIT 1)"
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
    if (!j->spec) return COP_ERR_NO_MEMORY;
    if (size) memcpy(j->spec->data, sqlite3_column_blob(q, 8), size);
    j->step = (uint64_t)sqlite3_column_int64(q, 9);
    j->seconds = sqlite3_column_double(q, 10);
    j->has_train_loss = sqlite3_column_type(q, 11) != SQLITE_NULL;
    j->train_loss = sqlite3_column_double(q, 11);
    j->has_evaluation = sqlite3_column_type(q, 12) != SQLITE_NULL;
    j->test_error = sqlite3_column_double(q, 12);
    j->test_loss = sqlite3_column_double(q, 13);
    return COP_OK;
}

static cop_err query_jobs(coord_store *s, uint64_t job, uint32_t limit,
                          cop_err (*visit)(void *, const coord_store_job *), void *context,
                          cop_error *error) {
    sqlite3_stmt *q;
    uv_mutex_lock(&s->read_mutex);
    if (sqlite3_prepare_v2(s->reader, job_query, -1, &q, NULL) != SQLITE_OK) {
        uv_mutex_unlock(&s->read_mutex);
        return fail(s, s->reader, "the store", error);
    }
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, limit ? limit : INT64_MAX);
    cop_err e = COP_OK;
    int state = SQLITE_DONE;
    while (!e && (state = sqlite3_step(q)) == SQLITE_ROW) {
        coord_store_job row;
        e = read_row(q, &row);
        if (e)
            cop_fail(error, e, "out of memory");
        else
            e = visit(context, &row);
        cop_buffer_release(row.spec);
    }
    if (!e && state != SQLITE_DONE) e = fail(s, s->reader, "the store", error);
    sqlite3_finalize(q);
    uv_mutex_unlock(&s->read_mutex);
    return e;
}

cop_err coord_store_each_job(coord_store *s, uint32_t limit,
                             cop_err (*visit)(void *, const coord_store_job *), void *context,
                             cop_error *error) {
    return query_jobs(s, 0, limit, visit, context, error);
}

typedef struct one_job {
    coord_store_job *out;
    bool found;
} one_job;

static cop_err take_one(void *context, const coord_store_job *job) {
    one_job *one = context;
    *one->out = *job;
    cop_buffer_hold(job->spec);
    one->found = true;
    return COP_OK;
}

cop_err coord_store_get_job(coord_store *s, uint64_t job, coord_store_job *out, cop_error *error) {
    one_job one = {.out = out};
    if (!job) return cop_fail(error, COP_ERR_NOT_FOUND, "there is no job 0");
    COP_TRY(query_jobs(s, job, 1, take_one, &one, error));
    return one.found ? COP_OK
                     : cop_fail(error, COP_ERR_NOT_FOUND,
                                "there is no job %llu (coppice jobs lists them)",
                                (unsigned long long)job);
}

uint64_t coord_store_last_job(coord_store *s) {
    sqlite3_stmt *q;
    uint64_t last = 0;
    uv_mutex_lock(&s->read_mutex);
    /* Numbers are never given twice, not even after `rm`: events keep the largest that there was.
     */
    if (sqlite3_prepare_v2(s->reader,
                           "SELECT max((SELECT coalesce(max(job), 0) FROM jobs), (SELECT "
                           "coalesce(max(job), 0) FROM events))",
                           -1, &q, NULL) == SQLITE_OK) {
        if (sqlite3_step(q) == SQLITE_ROW) last = (uint64_t)sqlite3_column_int64(q, 0);
        sqlite3_finalize(q);
    }
    uv_mutex_unlock(&s->read_mutex);
    return last;
}

cop_err coord_store_each_event(coord_store *s, uint64_t job, uint64_t after, uint32_t limit,
                               cop_err (*visit)(void *, const coord_store_event *), void *context,
                               cop_error *error) {
    sqlite3_stmt *q;
    uv_mutex_lock(&s->read_mutex);
    if (sqlite3_prepare_v2(s->reader,
                           "SELECT id, job, time_ms, level, text FROM events WHERE job = ?1 AND id "
                           "> ?2 ORDER BY id LIMIT ?3",
                           -1, &q, NULL) != SQLITE_OK) {
        uv_mutex_unlock(&s->read_mutex);
        return fail(s, s->reader, "the store", error);
    }
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, (sqlite3_int64)after);
    sqlite3_bind_int64(q, 3, limit);
    cop_err e = COP_OK;
    while (!e && sqlite3_step(q) == SQLITE_ROW) {
        coord_store_event event = {.id = (uint64_t)sqlite3_column_int64(q, 0),
                                   .job = (uint64_t)sqlite3_column_int64(q, 1)};
        column_time(q, 2, event.time);
        column_text(q, 3, event.level, sizeof event.level);
        column_text(q, 4, event.text, sizeof event.text);
        e = visit(context, &event);
    }
    sqlite3_finalize(q);
    uv_mutex_unlock(&s->read_mutex);
    return e;
}
