/* The queue of the store: a list of writes that the writer thread commits (store_write.c). Its
 * length is bounded, except for writes that must survive. A write takes its memory from the spares
 * if it can, so a training step usually allocates nothing here. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/store/store_state.h"

#define QUEUE_MAX 16384 /* the limit of writes in the queue, for recovery_has_room */

static const char no_room[] = "out of memory, or too many writes wait for the disk: try again";

/* ---- spares ---- */

static bool is_reserve(const coord_store *s, const store_write *w) {
    return w >= s->reserve && w < s->reserve + COORD_STORE_RESERVE;
}

void coord_store_recycle(coord_store *s, store_write *list) {
    while (list) {
        store_write *next = list->next;
        if (s->spares < COORD_STORE_SPARES || is_reserve(s, list)) {
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
    if (s->reserve) coord_store_recycle(s, s->reserve);
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

/* Takes a spare for a write of this kind. NULL: there is none, or only the reserve is left and
 * writes of this kind may not use it. The caller holds `mutex`. */
static store_write *take_spare(coord_store *s, store_kind kind) {
    const bool droppable = recovery_need_of(kind) == RECOVERY_MAY_GO;
    store_write *w = s->spare;
    COP_ASSERT((w == NULL) == (s->spares == 0));
    if (!w || (droppable && s->spares <= COORD_STORE_RESERVE)) return NULL;
    s->spare = w->next;
    s->spares--;
    return w;
}

/* ---- the queue ---- */

/* Logs and remembers that a write of this kind is lost for lack of memory. */
static void note_loss(coord_store *s, store_kind kind, uint64_t job) {
    cop_log(COP_LOG_WARN, "store", "out of memory: some records of job %llu are not stored",
            (unsigned long long)job);
    uv_mutex_lock(&s->mutex);
    s->lost = true;
    s->behind =
        s->behind || (kind != STORE_BARRIER && recovery_need_of(kind) == RECOVERY_MUST_SURVIVE);
    uv_mutex_unlock(&s->mutex);
}

/* Returns a new write of this kind, which is not in the queue yet. Its number and time are set, and
 * all other fields are 0. NULL: the queue has no room (logged once until it has room again), or
 * there is no memory. */
static store_write *begin_write(coord_store *s, store_kind kind, uint64_t job) {
    COP_ASSERT(kind > STORE_NONE && kind <= STORE_BARRIER);
    uv_mutex_lock(&s->mutex);
    bool room = recovery_has_room(kind, s->queued, QUEUE_MAX), warn = !room && !s->warned_full;
    store_write *w = room ? take_spare(s, kind) : NULL;
    s->warned_full = !room;
    uv_mutex_unlock(&s->mutex);
    if (warn) cop_log(COP_LOG_WARN, "store", "the disk is too slow: metrics are dropped");
    if (!room) return NULL;
    if (w)
        memset(w, 0, sizeof *w);
    else
        w = cop_alloc(sizeof *w);
    if (!w) {
        note_loss(s, kind, job);
        return NULL;
    }
    w->kind = kind;
    w->job = job;
    w->time_ms = cop_clock_unix_ms();
    return w;
}

/* Appends the write to the queue, and wakes the writer thread if the write is durable or the queue
 * was empty. */
static void end_write(coord_store *s, store_write *w) {
    uv_mutex_lock(&s->mutex);
    COP_ASSERT(s->started && !s->stopping);
    COP_ASSERT((s->head == NULL) == (s->tail == NULL));
    w->next = NULL;
    if (s->tail)
        s->tail->next = w;
    else
        s->head = w;
    s->tail = w;
    s->queued++;
    if (s->queued == 1 || coord_store_is_durable(w)) uv_cond_signal(&s->work);
    uv_mutex_unlock(&s->mutex);
}

/* Queues the write with its callback, which may be NULL. If `w` is NULL, because begin_write
 * failed, calls the callback at once with BUSY. */
static void end_write_with(coord_store *s, store_write *w, coord_store_done done, void *context) {
    if (w) {
        w->done = done;
        w->context = context;
        end_write(s, w);
    } else if (done) {
        done(context, COP_ERR_BUSY, no_room);
    }
}

/* ---- writes that return at once ---- */

void coord_store_add_job(coord_store *s, const coord_store_submission *j, coord_store_done done,
                         void *context) {
    COP_ASSERT(j->spec != NULL && j->job >= 1 && j->job <= COORD_JOB_MAX);
    store_write *w = begin_write(s, STORE_ADD_JOB, j->job);
    if (w) {
        store_job_row *row = &w->new_job;
        snprintf(row->name, sizeof row->name, "%s", j->name);
        snprintf(row->data_digest, sizeof row->data_digest, "%s", j->data_digest);
        snprintf(row->owner, sizeof row->owner, "%s", j->owner ? j->owner : "");
        row->spec = cop_buffer_hold(j->spec);
        row->has_key = j->key != NULL;
        if (j->key) memcpy(row->key, j->key, COORD_STORE_KEY);
        if (j->created_ms) w->time_ms = j->created_ms;
    }
    end_write_with(s, w, done, context);
}

void coord_store_remove_job(coord_store *s, uint64_t job, coord_store_done done, void *context) {
    end_write_with(s, begin_write(s, STORE_REMOVE_JOB, job), done, context);
}

static store_write *begin_state(coord_store *s, uint64_t job, coord_job_state state,
                                const char *text) {
    COP_ASSERT(state >= COORD_QUEUED && state <= COORD_CANCELED);
    store_write *w = begin_write(s, STORE_SET_STATE, job);
    if (!w) return NULL;
    w->state.state = state;
    snprintf(w->state.text, sizeof w->state.text, "%s", text);
    return w;
}

void coord_store_set_state(coord_store *s, uint64_t job, coord_job_state state, const char *text) {
    end_write_with(s, begin_state(s, job, state, text), NULL, NULL);
}

void coord_store_confirm_state(coord_store *s, uint64_t job, coord_job_state state,
                               coord_store_done done, void *context) {
    end_write_with(s, begin_state(s, job, state, ""), done, context);
}

void coord_store_set_fingerprint(coord_store *s, uint64_t job, uint64_t fingerprint) {
    store_write *w = begin_write(s, STORE_SET_FINGERPRINT, job);
    if (!w) return;
    w->fingerprint = fingerprint;
    end_write(s, w);
}

void coord_store_set_digest(coord_store *s, uint64_t job, uint64_t step, const char *digest) {
    store_write *w = begin_write(s, STORE_SET_DIGEST, job);
    if (!w) return;
    w->digest.step = step;
    snprintf(w->digest.digest, sizeof w->digest.digest, "%s", digest);
    end_write(s, w);
}

void coord_store_add_step(coord_store *s, uint64_t job, const coord_store_step *row) {
    store_write *w = begin_write(s, STORE_ADD_STEP, job);
    if (!w) return;
    w->step = *row;
    end_write(s, w);
}

void coord_store_add_epoch(coord_store *s, uint64_t job, const coord_store_epoch *row) {
    store_write *w = begin_write(s, STORE_ADD_EPOCH, job);
    if (!w) return;
    w->epoch = *row;
    end_write(s, w);
}

void coord_store_add_evaluation(coord_store *s, uint64_t job, const coord_store_evaluation *row) {
    store_write *w = begin_write(s, STORE_ADD_EVALUATION, job);
    if (!w) return;
    w->evaluation.row = *row;
    w->evaluation.row.part = NULL; /* the string is the caller's: the write has a copy */
    snprintf(w->evaluation.part, sizeof w->evaluation.part, "%s", row->part);
    end_write(s, w);
}

void coord_store_add_event(coord_store *s, uint64_t job, const char *level, const char *text) {
    store_write *w = begin_write(s, STORE_ADD_EVENT, job);
    if (!w) return;
    snprintf(w->event.level, sizeof w->event.level, "%s", level);
    snprintf(w->event.text, sizeof w->event.text, "%s", text);
    end_write(s, w);
}

void coord_store_keep_evaluation(coord_store *s, uint64_t number) {
    COP_ASSERT(number >= 1);
    store_write *w = begin_write(s, STORE_KEEP_EVALUATION, number);
    if (w) end_write(s, w);
}

/* ---- writes that return after the commit ---- */

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

/* Queues the write and waits for its result. NO_MEMORY: `w` is NULL, because begin_write failed. */
static cop_err write_and_wait(coord_store *s, store_write *w, cop_error *error) {
    store_wait wait = {.result = COP_OK};
    if (!w || uv_sem_init(&wait.done, 0)) {
        uv_mutex_lock(&s->mutex);
        coord_store_recycle(s, w);
        uv_mutex_unlock(&s->mutex);
        return cop_fail(error, COP_ERR_NO_MEMORY, "%s", no_room);
    }
    end_write_with(s, w, on_waited, &wait);
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
