/* The writer thread takes the whole queue, commits it in one transaction, and reports the results.
 *
 * Metrics and events are committed without an fsync. So they survive the death of the process, but
 * a power failure may take the newest of them. All other writes are durable: they are on the disk
 * (fsync of the WAL) when their transaction ends and before their callbacks are called.
 *
 * While the disk accepts no writes, for example because it is full, the writes that nobody waits
 * for stay in the queue. Metrics and events that find the queue full are dropped; the other writes
 * are not. */
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "coordinator/store/store_state.h"

#define BATCH_MS    100    /* the thread collects metrics and events for this time */
#define RETRY_MS    500    /* pause after a batch that failed */
#define POOL_EVENTS 100000 /* events of the pool that remain after pruning */
#define PRUNE_EVERY 1000   /* events of the pool that are added between two prunings */

const char *const coord_store_sql[STORE_KINDS] = {
    [STORE_ADD_JOB] = "INSERT OR REPLACE INTO jobs(job, name, state, text, spec, data_digest, "
                      "created_ms, submission, owner) VALUES(?1, ?2, 1, '', ?3, ?4, ?5, ?6, ?7)",
    [STORE_SET_STATE] = "UPDATE jobs SET state = ?2, text = ?3, "
                        "finished_ms = CASE WHEN ?2 >= 4 THEN ?4 ELSE 0 END WHERE job = ?1",
    [STORE_SET_DIGEST] = "UPDATE jobs SET digest = ?2, digest_step = ?3 WHERE job = ?1",
    [STORE_SET_FINGERPRINT] = "UPDATE jobs SET fingerprint = ?2 WHERE job = ?1",
    [STORE_ADD_STEP] =
        "INSERT OR REPLACE INTO steps(job, step, loss, seconds) VALUES(?1, ?2, ?3, ?4)",
    [STORE_ADD_EPOCH] = "INSERT OR REPLACE INTO epochs(job, step, epoch, train_loss, train_error) "
                        "VALUES(?1, ?2, ?3, ?4, ?5)",
    [STORE_ADD_EVALUATION] = "INSERT OR REPLACE INTO evaluations(job, step, part, loss, error, "
                             "seconds) VALUES(?1, ?2, ?6, ?3, ?4, ?5)",
    [STORE_ADD_EVENT] = "INSERT INTO events(job, time_ms, level, text) VALUES(?1, ?2, ?3, ?4)",
    [STORE_REMOVE_JOB] = "DELETE FROM jobs WHERE job = ?1",
    [STORE_KEEP_EVALUATION] = "UPDATE meta SET last_evaluation = max(last_evaluation, ?1)",
    [STORE_PUT_SET] = "INSERT OR REPLACE INTO data_sets(name, digest, bytes, train, test, classes, "
                      "rank, dim0, dim1, dim2) VALUES(?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [STORE_REMOVE_SET] = "DELETE FROM data_sets WHERE digest = ?3 AND (?2 = '' OR name = ?2)",
};

/* ---- rows ---- */

static void bind_text(sqlite3_stmt *q, int column, const char *text) {
    sqlite3_bind_text(q, column, text, -1, SQLITE_STATIC); /* write_one unbinds it: no copy */
}

static void bind_job(sqlite3_stmt *q, const store_write *w) {
    const store_job_row *row = &w->new_job;
    COP_ASSERT(row->spec != NULL);
    bind_text(q, 2, row->name);
    sqlite3_bind_blob64(q, 3, row->spec->data, row->spec->size, SQLITE_STATIC);
    bind_text(q, 4, row->data_digest);
    sqlite3_bind_int64(q, 5, w->time_ms);
    if (row->has_key) sqlite3_bind_blob(q, 6, row->key, COORD_STORE_KEY, SQLITE_STATIC);
    bind_text(q, 7, row->owner);
}

static void bind_set(sqlite3_stmt *q, const store_write *w) {
    const coord_dataset *s = w->set;
    COP_ASSERT(s != NULL);
    bind_text(q, 2, s->name);
    bind_text(q, 3, s->digest);
    if (w->kind == STORE_REMOVE_SET) return;
    sqlite3_bind_int64(q, 4, (sqlite3_int64)s->bytes);
    const uint32_t figures[] = {s->train,  s->test,     s->classes, s->rank,
                                *s->shape, s->shape[1], s->shape[2]};
    for (int i = 0; i < 7; i++) sqlite3_bind_int64(q, 5 + i, figures[i]);
}

/* Binds parameters 2 to 4. In the statements of all three tables of metrics, they are a step and
 * two figures. */
static void bind_figures(sqlite3_stmt *q, uint64_t step, double first, double second) {
    sqlite3_bind_int64(q, 2, (sqlite3_int64)step);
    sqlite3_bind_double(q, 3, first);
    sqlite3_bind_double(q, 4, second);
}

static void bind_values(sqlite3_stmt *q, const store_write *w) {
    sqlite3_bind_int64(q, 1, (sqlite3_int64)w->job);
    switch (w->kind) {
    case STORE_ADD_JOB:
        bind_job(q, w);
        break;
    case STORE_SET_STATE:
        sqlite3_bind_int(q, 2, (int)w->state.state);
        bind_text(q, 3, w->state.text);
        sqlite3_bind_int64(q, 4, w->time_ms);
        break;
    case STORE_SET_DIGEST:
        bind_text(q, 2, w->digest.digest);
        sqlite3_bind_int64(q, 3, (sqlite3_int64)w->digest.step);
        break;
    case STORE_SET_FINGERPRINT: /* SQLite's integers are signed; the cast keeps the 64 bits */
        sqlite3_bind_int64(q, 2, (sqlite3_int64)w->fingerprint);
        break;
    case STORE_ADD_STEP:
        bind_figures(q, w->step.step, w->step.loss, w->step.seconds);
        break;
    case STORE_ADD_EPOCH:
        bind_figures(q, w->epoch.step, w->epoch.epoch, w->epoch.train_loss);
        sqlite3_bind_double(q, 5, w->epoch.train_error);
        break;
    case STORE_ADD_EVALUATION:
        bind_figures(q, w->evaluation.row.step, w->evaluation.row.loss, w->evaluation.row.error);
        sqlite3_bind_double(q, 5, w->evaluation.row.seconds);
        bind_text(q, 6, w->evaluation.part);
        break;
    case STORE_ADD_EVENT:
        sqlite3_bind_int64(q, 2, w->time_ms);
        bind_text(q, 3, w->event.level);
        bind_text(q, 4, w->event.text);
        break;
    case STORE_PUT_SET:
    case STORE_REMOVE_SET:
        bind_set(q, w);
        break;
    case STORE_REMOVE_JOB:
    case STORE_KEEP_EVALUATION:
        break;
    case STORE_NONE:
    case STORE_BARRIER:
        COP_ASSERT(!"a write with a statement");
    }
}

/* Removes the metrics and events of the job. Returns SQLite's result. */
static int remove_rows_of_job(coord_store *s, uint64_t job) {
    static const char *const tables[] = {"steps", "epochs", "evaluations", "events"};
    int result = SQLITE_OK;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && result == SQLITE_OK; i++) {
        char text[128];
        snprintf(text, sizeof text, "DELETE FROM %s WHERE job = %llu", tables[i],
                 (unsigned long long)job);
        result = sqlite3_exec(s->writer, text, NULL, NULL, NULL);
    }
    return result;
}

/* Records that this number was given to a job, so that no other job ever gets it, not even after
 * this job has been removed. Returns SQLite's result. */
static int remember_number(coord_store *s, uint64_t job) {
    char text[100];
    snprintf(text, sizeof text, "UPDATE meta SET last_job = max(last_job, %llu)",
             (unsigned long long)job);
    return sqlite3_exec(s->writer, text, NULL, NULL, NULL);
}

/* Returns SQLite's result; SQLITE_OK if the rows were written. */
static int write_one(coord_store *s, const store_write *w) {
    COP_ASSERT(w->kind > STORE_NONE && w->kind <= STORE_BARRIER);
    if (w->kind == STORE_BARRIER) return SQLITE_OK;
    sqlite3_stmt *q = s->statement[w->kind];
    bind_values(q, w);
    int result = sqlite3_step(q);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    if (result != SQLITE_DONE) return result;
    if (w->kind == STORE_REMOVE_JOB) return remove_rows_of_job(s, w->job);
    if (w->kind == STORE_ADD_JOB) return remember_number(s, w->job);
    s->pool_events += w->kind == STORE_ADD_EVENT && w->job == 0;
    return SQLITE_OK;
}

/* ---- batches ---- */

bool coord_store_is_durable(const store_write *w) {
    return recovery_is_durable(w->kind, w->done != NULL);
}

/* Commits the whole list in one transaction. The commit has one fsync if the list has a durable
 * write; otherwise it has none. Returns SQLite's result. */
static int commit_list(coord_store *s, const store_write *list) {
    bool durable = false;
    for (const store_write *w = list; w && !durable; w = w->next)
        durable = coord_store_is_durable(w);
    sqlite3_exec(s->writer, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                 NULL, NULL, NULL);
    int result = sqlite3_exec(s->writer, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (const store_write *w = list; w && result == SQLITE_OK; w = w->next)
        result = write_one(s, w);
    if (result == SQLITE_OK) result = sqlite3_exec(s->writer, "COMMIT", NULL, NULL, NULL);
    if (result != SQLITE_OK && !sqlite3_get_autocommit(s->writer))
        sqlite3_exec(s->writer, "ROLLBACK", NULL, NULL, NULL);
    return result;
}

/* Releases the job's spec, if the write has one. */
static void empty_write(store_write *w) {
    if (w->kind == STORE_ADD_JOB) cop_buffer_release(w->new_job.spec);
    w->kind = STORE_NONE;
}

/* Reports the result to the caller, if one waits for it, and releases what the write holds. */
static void finish_write(store_write *w, int result) {
    if (w->done)
        w->done(w->context, coord_store_code(result),
                result == SQLITE_OK ? "" : sqlite3_errstr(result));
    empty_write(w);
}

/* True: the cause of the error may go away, as when a full disk gets room. A write that failed with
 * any other error must not be tried again, because it would block all writes behind it for ever. */
static bool is_transient(int result) {
    const int code = result & 0xff;
    return code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_BUSY ||
           code == SQLITE_LOCKED || code == SQLITE_READONLY || code == SQLITE_CANTOPEN ||
           code == SQLITE_NOMEM;
}

/* Called after the list has failed as a whole. Tries each durable write again in a transaction of
 * its own, and answers every write that a caller waits for. Returns, in order, the writes to keep
 * for a later attempt: nobody waits for them, and their error may go away. Once a durable
 * write is kept, it tries no later write, so that the states of a job reach the disk in order. All
 * writes that are not kept go to *finished. */
static store_write *retry_durable(coord_store *s, store_write *list, int failure,
                                  store_write **finished) {
    store_write *kept = NULL, **end = &kept;
    bool blocked = false;
    while (list) {
        store_write *w = list;
        list = w->next;
        w->next = NULL;
        int result = failure;
        if (coord_store_is_durable(w) && w->kind != STORE_BARRIER && !blocked)
            result = commit_list(s, w);
        if (result != SQLITE_OK && !w->done && is_transient(result)) {
            blocked = blocked || coord_store_is_durable(w);
            *end = w;
            end = &w->next;
            continue;
        }
        finish_write(w, result);
        w->next = *finished;
        *finished = w;
    }
    return kept;
}

/* Commits the list. Returns, in order, the writes to keep for a later attempt. All others go to
 * *finished. */
static store_write *write_batch(coord_store *s, store_write *list, store_write **finished) {
    const int result = commit_list(s, list);
    if (result != SQLITE_OK) {
        if (!s->failing) cop_log(COP_LOG_WARN, "store", "cannot write: %s", sqlite3_errstr(result));
        return retry_durable(s, list, result, finished);
    }
    for (store_write *w = list; w; w = w->next) finish_write(w, result);
    *finished = list;
    return NULL;
}

/* Removes all but the newest POOL_EVENTS events of the pool. They belong to no job, so the removal
 * of a job does not remove them. */
static void prune_events(coord_store *s) {
    char text[160];
    if (s->pool_events < PRUNE_EVERY) return;
    s->pool_events = 0;
    snprintf(text, sizeof text,
             "DELETE FROM events WHERE job = 0 AND id <= "
             "(SELECT max(id) FROM events WHERE job = 0) - %d",
             POOL_EVENTS);
    sqlite3_exec(s->writer, text, NULL, NULL, NULL);
}

/* ---- the thread ---- */

/* True: the queue must be committed now. A queue of only metrics and events is not urgent: the
 * thread waits for more of them. The caller holds `mutex`. */
static bool is_urgent(const coord_store *s) {
    if (s->stopping) return true;
    for (const store_write *w = s->head; w; w = w->next)
        if (coord_store_is_durable(w)) return true;
    return false;
}

/* Puts writes that are kept for a later attempt back into the queue, before the writes that arrived
 * in the meantime. If the store is being closed, gives them up instead. The caller holds `mutex`.
 */
static void put_back(coord_store *s, store_write *kept) {
    uint32_t count = 0;
    store_write *last = NULL;
    for (store_write *w = kept; w; w = w->next, count++) last = w;
    if (s->failing && !count) cop_log(COP_LOG_INFO, "store", "the store can be written again");
    s->failing = count > 0;
    if (!count) return;
    if (s->stopping) {
        cop_log(COP_LOG_WARN, "store",
                "%u states, metrics and events are lost: the disk accepts no writes", count);
        for (store_write *w = kept; w; w = w->next) empty_write(w);
        coord_store_recycle(s, kept);
        return;
    }
    last->next = s->head;
    if (!s->head) s->tail = last;
    s->head = kept;
    s->queued += count;
}

void coord_store_run_writer(void *argument) {
    coord_store *s = argument;
    uv_mutex_lock(&s->mutex);
    for (;;) {
        while (!s->head && !s->stopping) uv_cond_wait(&s->work, &s->mutex);
        if (!s->head) break;
        if (!s->stopping && (s->failing || !is_urgent(s)))
            uv_cond_timedwait(&s->work, &s->mutex,
                              (uint64_t)(s->failing ? RETRY_MS : BATCH_MS) * 1000000);
        store_write *list = s->head, *finished = NULL;
        s->head = s->tail = NULL;
        s->queued = 0;
        uv_mutex_unlock(&s->mutex);
        store_write *kept = write_batch(s, list, &finished);
        prune_events(s);
        uv_mutex_lock(&s->mutex);
        coord_store_recycle(s, finished);
        put_back(s, kept);
    }
    uv_mutex_unlock(&s->mutex);
}
