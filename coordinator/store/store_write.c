/* Writing to the store: a bounded queue, and one thread that commits it in batches. The loop never
 * waits for the disk. What a caller waits for (`done`), submissions and states are on the disk
 * (fsync of the WAL) before they are acknowledged; metrics and events are written without fsync:
 * they survive the program's death, and lose at most their last moments when the machine's power
 * fails. While nothing can be written (full disk) what nobody waits for stays in the queue: states
 * of jobs all, metrics and events as many as fit. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/store/store_state.h"

#define QUEUE_MAX   16384  /* waiting writes: see recovery_has_room */
#define SPARE_MAX   1024   /* finished writes kept for reuse */
#define BATCH_MS    100    /* metrics wait so long for company */
#define RETRY_MS    500    /* ... and so long for a disk that has room again */
#define POOL_EVENTS 100000 /* events about the pool that are kept */
#define PRUNE_EVERY 1000

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

static void bind_metrics(sqlite3_stmt *q, const store_write *w) {
    sqlite3_bind_int64(q, 2, (sqlite3_int64)w->step);
    sqlite3_bind_double(q, 3, w->a);
    sqlite3_bind_double(q, 4, w->b);
    if (w->kind != STORE_ADD_STEP) sqlite3_bind_double(q, 5, w->c);
    if (w->kind == STORE_ADD_EVALUATION) sqlite3_bind_text(q, 6, w->text, -1, SQLITE_STATIC);
}

static void bind_set(sqlite3_stmt *q, const store_write *w) {
    const coord_dataset *s = w->set;
    sqlite3_bind_text(q, 2, s->name, -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 3, s->digest, -1, SQLITE_STATIC);
    if (w->kind == STORE_REMOVE_SET) return;
    sqlite3_bind_int64(q, 4, (sqlite3_int64)s->bytes);
    const uint32_t figures[] = {s->train,  s->test,     s->classes, s->rank,
                                *s->shape, s->shape[1], s->shape[2]};
    for (int i = 0; i < 7; i++) sqlite3_bind_int64(q, 5 + i, figures[i]);
}

static void bind_values(sqlite3_stmt *q, const store_write *w) {
    sqlite3_bind_int64(q, 1, (sqlite3_int64)w->job);
    switch (w->kind) {
    case STORE_ADD_JOB:
        sqlite3_bind_text(q, 2, w->name, -1, SQLITE_STATIC);
        sqlite3_bind_blob64(q, 3, w->spec->data, w->spec->size, SQLITE_STATIC);
        sqlite3_bind_text(q, 4, w->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 5, w->time_ms);
        if (w->has_key) sqlite3_bind_blob(q, 6, w->key, COORD_STORE_KEY, SQLITE_STATIC);
        sqlite3_bind_text(q, 7, w->owner, -1, SQLITE_STATIC);
        break;
    case STORE_SET_STATE:
        sqlite3_bind_int(q, 2, w->state);
        sqlite3_bind_text(q, 3, w->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 4, w->time_ms);
        break;
    case STORE_SET_DIGEST:
        sqlite3_bind_text(q, 2, w->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 3, (sqlite3_int64)w->step);
        break;
    case STORE_SET_FINGERPRINT: /* 64 bits, whatever their sign */
        sqlite3_bind_int64(q, 2, (sqlite3_int64)w->step);
        break;
    case STORE_ADD_EVENT:
        sqlite3_bind_int64(q, 2, w->time_ms);
        sqlite3_bind_text(q, 3, w->name, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 4, w->text, -1, SQLITE_STATIC);
        break;
    case STORE_PUT_SET:
    case STORE_REMOVE_SET:
        bind_set(q, w);
        break;
    case STORE_REMOVE_JOB:
    case STORE_KEEP_EVALUATION:
        break;
    default:
        bind_metrics(q, w);
    }
}

static int run_for_job(coord_store *s, const char *const *statements, size_t count, uint64_t job) {
    int state = SQLITE_OK;
    for (size_t i = 0; i < count && state == SQLITE_OK; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s %llu", statements[i], (unsigned long long)job);
        state = sqlite3_exec(s->writer, text, NULL, NULL, NULL);
    }
    return state;
}

/* Numbers are never given twice, not even after `rm`. */
static int remember_number(coord_store *s, uint64_t job) {
    char text[100];
    snprintf(text, sizeof text, "UPDATE meta SET last_job = max(last_job, %llu)",
             (unsigned long long)job);
    return sqlite3_exec(s->writer, text, NULL, NULL, NULL);
}

static int write_one(coord_store *s, const store_write *w) {
    static const char *const removals[] = {
        "DELETE FROM steps WHERE job =", "DELETE FROM epochs WHERE job =",
        "DELETE FROM evaluations WHERE job =", "DELETE FROM events WHERE job ="};
    if (w->kind == STORE_BARRIER) return SQLITE_OK;
    sqlite3_stmt *q = s->statement[w->kind];
    bind_values(q, w);
    int state = sqlite3_step(q);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    if (state != SQLITE_DONE) return state;
    if (w->kind == STORE_REMOVE_JOB)
        return run_for_job(s, removals, sizeof removals / sizeof *removals, w->job);
    if (w->kind == STORE_ADD_JOB) return remember_number(s, w->job);
    s->pool_events += w->kind == STORE_ADD_EVENT && w->job == 0;
    return SQLITE_OK;
}

/* ---- batches ---- */

static bool is_durable(const store_write *w) {
    return recovery_is_durable(w->kind, w->done != NULL);
}

/* All of the list in one transaction: at most one fsync, and none for metrics alone. */
static int commit_list(coord_store *s, const store_write *list) {
    bool durable = false;
    for (const store_write *w = list; w && !durable; w = w->next) durable = is_durable(w);
    sqlite3_exec(s->writer, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                 NULL, NULL, NULL);
    int state = sqlite3_exec(s->writer, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (const store_write *w = list; w && state == SQLITE_OK; w = w->next) state = write_one(s, w);
    if (state == SQLITE_OK) state = sqlite3_exec(s->writer, "COMMIT", NULL, NULL, NULL);
    if (state != SQLITE_OK && !sqlite3_get_autocommit(s->writer))
        sqlite3_exec(s->writer, "ROLLBACK", NULL, NULL, NULL);
    return state;
}

static void finish_write(store_write *w, int state) {
    if (w->done)
        w->done(w->context, coord_store_code(state),
                state == SQLITE_OK ? "" : sqlite3_errstr(state));
    cop_buffer_release(w->spec);
    w->spec = NULL;
}

/* Worth another try, such as a full disk; else a row would stop all that come after it. */
static bool may_pass(int state) {
    const int code = state & 0xff;
    return code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_BUSY ||
           code == SQLITE_LOCKED || code == SQLITE_READONLY || code == SQLITE_CANTOPEN ||
           code == SQLITE_NOMEM;
}

/* Tries the writes once more by themselves that must not be lost, and answers those that somebody
 * waits for. What is left waits: nobody else would write it again. Never out of order: once a state
 * waits, no later one passes it. */
static store_write *finish_durable(coord_store *s, store_write *list, int state,
                                   store_write **finished) {
    store_write *left = NULL, **end = &left;
    bool waiting = false;
    while (list) {
        store_write *w = list;
        list = w->next;
        w->next = NULL;
        int own = state;
        if (is_durable(w) && w->kind != STORE_BARRIER && !waiting) own = commit_list(s, w);
        if (own != SQLITE_OK && !w->done && may_pass(own)) {
            waiting = waiting || is_durable(w);
            *end = w;
            end = &w->next;
            continue;
        }
        finish_write(w, own);
        w->next = *finished;
        *finished = w;
    }
    return left;
}

/* Commits the list. Returns what could not be written and waits for a better time, in order; the
 * rest goes to *finished. */
static store_write *write_batch(coord_store *s, store_write *list, store_write **finished) {
    const int state = commit_list(s, list);
    if (state != SQLITE_OK) {
        if (!s->failing) cop_log(COP_LOG_WARN, "store", "cannot write: %s", sqlite3_errstr(state));
        return finish_durable(s, list, state, finished);
    }
    for (store_write *w = list; w; w = w->next) finish_write(w, state);
    *finished = list;
    return NULL;
}

/* Events about the pool are not removed with any job: only the newest are kept. */
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

/* ---- spares: for the next writes, so that a step allocates nothing ---- */

static bool is_reserve(const coord_store *s, const store_write *w) {
    return w >= s->reserve && w < s->reserve + COORD_STORE_RESERVE;
}

/* Under the mutex. */
static void keep_spares(coord_store *s, store_write *list) {
    while (list) {
        store_write *next = list->next;
        if (s->spares < SPARE_MAX || is_reserve(s, list)) {
            list->next = s->spare;
            s->spare = list;
            s->spares++;
        } else {
            cop_free(list);
        }
        list = next;
    }
}

bool coord_store_make_spares(coord_store *s) {
    s->reserve = cop_alloc_array(COORD_STORE_RESERVE, sizeof *s->reserve);
    for (int i = 0; s->reserve && i + 1 < COORD_STORE_RESERVE; i++)
        s->reserve[i].next = &s->reserve[i + 1];
    if (s->reserve) keep_spares(s, s->reserve);
    return s->reserve != NULL;
}

void coord_store_free_spares(coord_store *s) {
    while (s->spare) {
        store_write *w = s->spare;
        s->spare = w->next;
        if (!is_reserve(s, w)) cop_free(w);
    }
    cop_free(s->reserve);
}

/* A spare one; NULL: none for this kind. Under the mutex. */
static store_write *take_spare(coord_store *s, store_kind kind) {
    const bool may_go = recovery_need_of(kind) == RECOVERY_MAY_GO;
    store_write *w = s->spare;
    if (!w || (may_go && s->spares <= COORD_STORE_RESERVE)) return NULL;
    s->spare = w->next;
    s->spares--;
    return w;
}

/* For a commit now: metrics and events wait for company. */
static bool anybody_waits(const coord_store *s) {
    if (s->stopping) return true;
    for (const store_write *w = s->head; w; w = w->next)
        if (is_durable(w)) return true;
    return false;
}

/* What waits for a better time goes in front of what came meanwhile; at the end it is given up.
 * Under the mutex. */
static void put_back(coord_store *s, store_write *left) {
    uint32_t count = 0;
    store_write *last = NULL;
    for (store_write *w = left; w; w = w->next, count++) last = w;
    if (s->failing && !count) cop_log(COP_LOG_INFO, "store", "the store can be written again");
    s->failing = count > 0;
    if (!count) return;
    if (s->stopping) {
        cop_log(COP_LOG_WARN, "store",
                "%u states, metrics and events are lost: the disk accepts no writes", count);
        keep_spares(s, left);
        return;
    }
    last->next = s->head;
    if (!s->head) s->tail = last;
    s->head = left;
    s->queued += count;
}

void coord_store_run_writer(void *argument) {
    coord_store *s = argument;
    uv_mutex_lock(&s->mutex);
    for (;;) {
        while (!s->head && !s->stopping) uv_cond_wait(&s->work, &s->mutex);
        if (!s->head) break;
        if (!s->stopping && (s->failing || !anybody_waits(s)))
            uv_cond_timedwait(&s->work, &s->mutex,
                              (uint64_t)(s->failing ? RETRY_MS : BATCH_MS) * 1000000);
        store_write *list = s->head, *finished = NULL;
        s->head = s->tail = NULL;
        s->queued = 0;
        uv_mutex_unlock(&s->mutex);
        store_write *left = write_batch(s, list, &finished);
        prune_events(s);
        uv_mutex_lock(&s->mutex);
        keep_spares(s, finished);
        put_back(s, left);
    }
    uv_mutex_unlock(&s->mutex);
}

/* ---- queue ---- */

/* A zeroed write; NULL: no room (said once) or no memory. */
static store_write *begin_write(coord_store *s, store_kind kind, uint64_t job) {
    uv_mutex_lock(&s->mutex);
    bool room = recovery_has_room(kind, s->queued, QUEUE_MAX), warn = !room && !s->warned;
    store_write *w = room ? take_spare(s, kind) : NULL;
    s->warned = !room;
    uv_mutex_unlock(&s->mutex);
    if (warn) cop_log(COP_LOG_WARN, "store", "the disk is too slow: metrics are dropped");
    if (!room) return NULL;
    if (w)
        memset(w, 0, sizeof *w);
    else
        w = cop_alloc(sizeof *w);
    if (!w) {
        cop_log(COP_LOG_WARN, "store", "out of memory: some records of job %llu are not stored",
                (unsigned long long)job);
        uv_mutex_lock(&s->mutex);
        s->lost = true;
        s->behind =
            s->behind || (kind != STORE_BARRIER && recovery_need_of(kind) == RECOVERY_MUST_SURVIVE);
        uv_mutex_unlock(&s->mutex);
        return NULL;
    }
    w->kind = kind;
    w->job = job;
    w->time_ms = cop_clock_unix_ms();
    return w;
}

static void end_write(coord_store *s, store_write *w) {
    uv_mutex_lock(&s->mutex);
    COP_ASSERT(!s->stopping);
    w->next = NULL;
    if (s->tail)
        s->tail->next = w;
    else
        s->head = w;
    s->tail = w;
    s->queued++;
    if (s->queued == 1 || is_durable(w)) uv_cond_signal(&s->work);
    uv_mutex_unlock(&s->mutex);
}

static void refuse(coord_store_done done, void *context) {
    if (done)
        done(context, COP_ERR_BUSY,
             "out of memory, or too many writes wait for the disk: try again");
}

void coord_store_add_job(coord_store *s, const coord_store_submission *j, coord_store_done done,
                         void *context) {
    store_write *w = begin_write(s, STORE_ADD_JOB, j->job);
    if (!w) {
        refuse(done, context);
        return;
    }
    snprintf(w->name, sizeof w->name, "%s", j->name);
    snprintf(w->text, sizeof w->text, "%s", j->data_digest);
    snprintf(w->owner, sizeof w->owner, "%s", j->owner ? j->owner : "");
    w->spec = cop_buffer_hold(j->spec);
    w->has_key = j->key != NULL;
    if (j->created_ms) w->time_ms = j->created_ms;
    if (j->key) memcpy(w->key, j->key, COORD_STORE_KEY);
    w->done = done;
    w->context = context;
    end_write(s, w);
}

void coord_store_set_state(coord_store *s, uint64_t job, coord_job_state state, const char *text) {
    store_write *w = begin_write(s, STORE_SET_STATE, job);
    if (!w) return;
    w->state = (int)state;
    snprintf(w->text, sizeof w->text, "%s", text);
    end_write(s, w);
}

void coord_store_confirm_state(coord_store *s, uint64_t job, coord_job_state state,
                               coord_store_done done, void *context) {
    store_write *w = begin_write(s, STORE_SET_STATE, job);
    if (!w) {
        refuse(done, context);
        return;
    }
    w->state = (int)state;
    w->done = done;
    w->context = context;
    end_write(s, w);
}

void coord_store_set_digest(coord_store *s, uint64_t job, uint64_t step, const char *digest) {
    store_write *w = begin_write(s, STORE_SET_DIGEST, job);
    if (!w) return;
    w->step = step;
    snprintf(w->text, sizeof w->text, "%s", digest);
    end_write(s, w);
}

void coord_store_set_fingerprint(coord_store *s, uint64_t job, uint64_t fingerprint) {
    store_write *w = begin_write(s, STORE_SET_FINGERPRINT, job);
    if (!w) return;
    w->step = fingerprint;
    end_write(s, w);
}

void coord_store_add_step(coord_store *s, uint64_t job, uint64_t step, double loss,
                          double seconds) {
    store_write *w = begin_write(s, STORE_ADD_STEP, job);
    if (!w) return;
    w->step = step;
    w->a = loss;
    w->b = seconds;
    end_write(s, w);
}

void coord_store_add_epoch(coord_store *s, uint64_t job, uint64_t step, double epoch,
                           double train_loss, double train_error) {
    store_write *w = begin_write(s, STORE_ADD_EPOCH, job);
    if (!w) return;
    w->step = step;
    w->a = epoch;
    w->b = train_loss;
    w->c = train_error;
    end_write(s, w);
}

void coord_store_add_evaluation(coord_store *s, uint64_t job, uint64_t step, const char *on,
                                double loss, double error, double seconds) {
    store_write *w = begin_write(s, STORE_ADD_EVALUATION, job);
    if (!w) return;
    w->step = step;
    w->a = loss;
    w->b = error;
    w->c = seconds;
    snprintf(w->text, sizeof w->text, "%s", on);
    end_write(s, w);
}

void coord_store_add_event(coord_store *s, uint64_t job, const char *level, const char *text) {
    store_write *w = begin_write(s, STORE_ADD_EVENT, job);
    if (!w) return;
    snprintf(w->name, sizeof w->name, "%s", level);
    snprintf(w->text, sizeof w->text, "%s", text);
    end_write(s, w);
}

void coord_store_keep_evaluation(coord_store *s, uint64_t number) {
    store_write *w = begin_write(s, STORE_KEEP_EVALUATION, number);
    if (w) end_write(s, w);
}

void coord_store_remove_job(coord_store *s, uint64_t job, coord_store_done done, void *context) {
    store_write *w = begin_write(s, STORE_REMOVE_JOB, job);
    if (!w) {
        refuse(done, context);
        return;
    }
    w->done = done;
    w->context = context;
    end_write(s, w);
}

/* ---- writes whose caller waits here ---- */

typedef struct store_wait {
    uv_sem_t done;
    cop_err result;
    char text[200];
} store_wait;

static void on_waited(void *context, cop_err result, const char *text) {
    store_wait *wait = context;
    wait->result = result;
    snprintf(wait->text, sizeof wait->text, "%s", text);
    uv_sem_post(&wait->done);
}

/* `write` may be NULL. */
static cop_err write_and_wait(coord_store *s, store_write *write, cop_error *error) {
    store_wait wait = {.result = COP_OK};
    if (!write || uv_sem_init(&wait.done, 0)) {
        uv_mutex_lock(&s->mutex);
        keep_spares(s, write);
        uv_mutex_unlock(&s->mutex);
        return cop_fail(error, COP_ERR_NO_MEMORY,
                        "out of memory, or too many writes wait for the disk: try again");
    }
    write->done = on_waited;
    write->context = &wait;
    end_write(s, write);
    uv_sem_wait(&wait.done);
    uv_sem_destroy(&wait.done);
    if (!wait.result) return COP_OK;
    return cop_fail(error, wait.result, "cannot write the store: %s", wait.text);
}

cop_err coord_store_flush(coord_store *s) {
    COP_TRY(write_and_wait(s, begin_write(s, STORE_BARRIER, 0), NULL));
    uv_mutex_lock(&s->mutex);
    const bool lost = s->lost || s->behind;
    s->lost = false;
    uv_mutex_unlock(&s->mutex);
    return lost ? COP_ERR_NO_MEMORY : COP_OK;
}

static cop_err write_set(coord_store *s, store_kind kind, const coord_dataset *set,
                         cop_error *error) {
    store_write *w = begin_write(s, kind, 0);
    if (w) w->set = set;
    return write_and_wait(s, w, error);
}

cop_err coord_store_put_set(coord_store *s, const coord_dataset *set, cop_error *error) {
    return write_set(s, STORE_PUT_SET, set, error);
}

cop_err coord_store_remove_set(coord_store *s, const char *name, const char *digest,
                               cop_error *error) {
    coord_dataset set = {.bytes = 0};
    snprintf(set.name, sizeof set.name, "%s", name);
    snprintf(set.digest, sizeof set.digest, "%s", digest);
    return write_set(s, STORE_REMOVE_SET, &set, error);
}
