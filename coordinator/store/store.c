/* The store: opening, schema, closing. See store.h. The tables and their columns:
 *
 *   meta(version, last_job, last_evaluation)
 *     Has one row: the version of the schema, and the highest numbers ever given to a job and to an
 *     evaluation.
 *   jobs(job, name, state, text, spec, data_digest, digest, digest_step, created_ms, finished_ms,
 *        fingerprint, submission, owner)
 *     `submission` is the key of the request that created the job. `owner` is the name in the
 *     certificate of the client that sent this request.
 *   steps(job, step, loss, seconds)
 *     Has one row for each step. `loss` is the mean over the training samples of the step.
 *   epochs(job, step, epoch, train_loss, train_error)
 *   evaluations(job, step, part, loss, error, seconds)
 *   events(id, job, time_ms, level, text)
 *     Events with job 0 belong to the pool.
 *   data_sets(place, name, digest, bytes, train, test, classes, rank, dim0, dim1, dim2)
 *     Has the names of the packs in state/data; the newest name has the largest place.
 *
 * The key of steps, epochs and evaluations is (job, step). So a step that is computed again after a
 * restart replaces its row. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "coordinator/store/store_state.h"

/* migrations[i] turns version i of the schema into version i + 1. An opened store runs all that it
 * needs in one transaction. An entry that has been released never changes: each change of the
 * schema appends an entry. */
static const char *const migrations[COORD_STORE_VERSION] = {
    "CREATE TABLE meta(version INTEGER NOT NULL, last_job INTEGER NOT NULL DEFAULT 0);"
    "INSERT INTO meta(version) VALUES(0);"
    "CREATE TABLE jobs(job INTEGER PRIMARY KEY, name TEXT NOT NULL, state INTEGER NOT NULL,"
    " text TEXT NOT NULL, spec BLOB NOT NULL, data_digest TEXT NOT NULL,"
    " digest TEXT NOT NULL DEFAULT '', digest_step INTEGER NOT NULL DEFAULT 0,"
    " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE steps(job INTEGER NOT NULL, step INTEGER NOT NULL, loss REAL, seconds REAL,"
    " PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE epochs(job INTEGER NOT NULL, step INTEGER NOT NULL, epoch REAL, train_loss REAL,"
    " train_error REAL, PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE evaluations(job INTEGER NOT NULL, step INTEGER NOT NULL, part TEXT, loss REAL,"
    " error REAL, seconds REAL, PRIMARY KEY(job, step)) WITHOUT ROWID;"
    "CREATE TABLE events(id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL,"
    " time_ms INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL);"
    "CREATE INDEX events_of_job ON events(job, id);",
    ("ALTER TABLE jobs ADD COLUMN fingerprint INTEGER NOT NULL DEFAULT 0;"
     "ALTER TABLE jobs ADD COLUMN submission BLOB;"),
    "ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';",
    "CREATE TABLE data_sets(place INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,"
    " digest TEXT NOT NULL, bytes INTEGER NOT NULL, train INTEGER NOT NULL, test INTEGER NOT NULL,"
    " classes INTEGER NOT NULL, rank INTEGER NOT NULL, dim0 INTEGER NOT NULL, dim1 INTEGER NOT "
    "NULL,"
    " dim2 INTEGER NOT NULL, UNIQUE(name, digest));",
    "ALTER TABLE meta ADD COLUMN last_evaluation INTEGER NOT NULL DEFAULT 0;",
};

/* ---- errors ---- */

cop_err coord_store_code(int result) {
    switch (result & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return COP_OK;
    case SQLITE_FULL:
        return COP_ERR_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return COP_ERR_CORRUPT;
    case SQLITE_NOMEM:
        return COP_ERR_NO_MEMORY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return COP_ERR_BUSY;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return COP_ERR_DENIED;
    default:
        return COP_ERR_IO;
    }
}

cop_err coord_store_fail(sqlite3 *database, const char *what, cop_error *error) {
    cop_err e = coord_store_code(sqlite3_errcode(database));
    return cop_fail(error, e ? e : COP_ERR_IO, "%s: %s", what, sqlite3_errmsg(database));
}

/* ---- schema ---- */

/* Sets *count to the number of tables and indices. It is 0 for an empty file. */
static cop_err count_tables(coord_store *s, const char *path, int *count, cop_error *error) {
    sqlite3_stmt *q = NULL;
    const char sql[] = "SELECT count(*) FROM sqlite_master";
    cop_err e = COP_OK;
    if (sqlite3_prepare_v2(s->writer, sql, -1, &q, NULL) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_ROW)
        e = coord_store_fail(s->writer, path, error);
    else
        *count = sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    return e;
}

/* Sets *version to the version of the schema, or to 0 if the file is empty. */
static cop_err read_version(coord_store *s, const char *path, int *version, cop_error *error) {
    sqlite3_stmt *q = NULL;
    int tables = 0;
    cop_err e = COP_OK;
    COP_TRY(count_tables(s, path, &tables, error));
    *version = 0;
    if (tables == 0) return COP_OK;
    if (sqlite3_prepare_v2(s->writer, "SELECT version FROM meta", -1, &q, NULL) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_ROW || sqlite3_column_int(q, 0) < 1)
        e = cop_fail(error, COP_ERR_CORRUPT, "%s is a database, but not a coppice store", path);
    else
        *version = sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    return e;
}

static cop_err migrate(coord_store *s, const char *path, int version, cop_error *error) {
    COP_ASSERT(version >= 0 && version < COORD_STORE_VERSION);
    char set[80];
    snprintf(set, sizeof set, "UPDATE meta SET version = %d; COMMIT;", COORD_STORE_VERSION);
    int result = sqlite3_exec(s->writer, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (; version < COORD_STORE_VERSION && result == SQLITE_OK; version++)
        result = sqlite3_exec(s->writer, migrations[version], NULL, NULL, NULL);
    if (result == SQLITE_OK) result = sqlite3_exec(s->writer, set, NULL, NULL, NULL);
    if (result == SQLITE_OK) return COP_OK;
    cop_err e = coord_store_fail(s->writer, path, error);
    if (!sqlite3_get_autocommit(s->writer)) sqlite3_exec(s->writer, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

static cop_err prepare_schema(coord_store *s, const char *path, cop_error *error) {
    int version;
    COP_TRY(read_version(s, path, &version, error));
    if (version > COORD_STORE_VERSION)
        return cop_fail(error, COP_ERR_VERSION,
                        "%s was written by a newer coppice (store version %d, this program "
                        "supports %d): it was not changed",
                        path, version, COORD_STORE_VERSION);
    return version < COORD_STORE_VERSION ? migrate(s, path, version, error) : COP_OK;
}

/* ---- life ---- */

static cop_err open_one(const char *path, int flags, sqlite3 **out, cop_error *error) {
    if (sqlite3_open_v2(path, out, flags | SQLITE_OPEN_FULLMUTEX, NULL) != SQLITE_OK)
        return coord_store_fail(*out, path, error);
    sqlite3_busy_timeout(*out, 5000);
    return COP_OK;
}

static cop_err open_database(coord_store *s, const char *path, cop_error *error) {
    COP_TRY(open_one(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &s->writer, error));
    COP_TRY(prepare_schema(s, path, error)); /* first: the pragma would change a newer store */
    if (sqlite3_exec(s->writer, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) != SQLITE_OK)
        return coord_store_fail(s->writer, path, error);
    for (int i = 1; i < STORE_KINDS; i++)
        if (sqlite3_prepare_v2(s->writer, coord_store_sql[i], -1, &s->statement[i], NULL) !=
            SQLITE_OK)
            return coord_store_fail(s->writer, path, error);
    return open_one(path, SQLITE_OPEN_READONLY, &s->reader, error);
}

cop_err coord_store_open(const char *path, coord_store **out, cop_error *error) {
    coord_store *s = cop_alloc(sizeof *s);
    if (!s) return cop_no_memory(error);
    uv_mutex_init(&s->mutex);
    uv_mutex_init(&s->read_mutex);
    uv_cond_init(&s->work);
    cop_err e = coord_store_make_spares(s) ? open_database(s, path, error) : cop_no_memory(error);
    if (!e && uv_thread_create(&s->thread, coord_store_run_writer, s))
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
    COP_ASSERT(!s->head && !s->queued); /* the thread has written or given up every write */
    coord_store_free_spares(s);
    for (int i = 1; i < STORE_KINDS; i++) sqlite3_finalize(s->statement[i]);
    sqlite3_close(s->reader);
    sqlite3_close(s->writer);
    uv_mutex_destroy(&s->mutex);
    uv_mutex_destroy(&s->read_mutex);
    uv_cond_destroy(&s->work);
    cop_free(s);
}
