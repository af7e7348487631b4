/* The mailbox of the loop thread, and the only place where events meet the core. See engine.h. */
#include <stdio.h>

#include "coordinator/engine/engine.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/engine/evaluation.h"

#define QUEUE_FIRST 2048
#define QUEUE_OWN   1024 /* places that ticks and repeated events of workers cannot take */

/* ---- mailbox ---- */

void coord_post(coord_engine *engine, coord_mail *mail) {
    COP_ASSERT(mail->run);
    mail->next = NULL;
    uv_mutex_lock(&engine->mail_mutex);
    if (engine->mail_tail)
        engine->mail_tail->next = mail;
    else
        engine->mail_head = mail;
    engine->mail_tail = mail;
    uv_async_send(&engine->wake); /* still under the mutex, so that the handle cannot be closed
                                     before this call */
    uv_mutex_unlock(&engine->mail_mutex);
}

void coord_engine_read_mail(coord_engine *engine) {
    uv_mutex_lock(&engine->mail_mutex);
    coord_mail *mail = engine->mail_head;
    engine->mail_head = engine->mail_tail = NULL;
    uv_mutex_unlock(&engine->mail_mutex);
    while (mail) {
        coord_mail *next = mail->next;
        mail->run(engine, mail); /* may free or reuse the mail */
        mail = next;
    }
}

void coord_defer(coord_engine *engine, coord_mail *mail) {
    COP_ASSERT(mail->run && engine->dispatching);
    mail->next = engine->deferred;
    engine->deferred = mail;
}

static void run_deferred(coord_engine *engine) {
    while (engine->deferred) {
        coord_mail *mail = engine->deferred;
        engine->deferred = mail->next;
        mail->run(engine, mail);
    }
}

/* ---- events ---- */

/* Makes room for `count` events. False: there is no memory. The first call allocates QUEUE_FIRST
 * places, so that events can be queued while memory is short. */
static bool queue_reserve(coord_engine *engine, uint32_t count) {
    if (count <= engine->queue_capacity) return true;
    const uint32_t capacity = engine->queue_capacity ? engine->queue_capacity * 2 : QUEUE_FIRST;
    coord_waiting *queue = cop_realloc(engine->queue, capacity * sizeof *queue);
    if (!queue) return false;
    engine->queue = queue;
    engine->queue_capacity = capacity;
    return true;
}

/* If the core has no memory for this event, may the event wait in the queue? False for events that
 * are repeated anyway (an unknown worker joins again), and for a new evaluation or ensemble, whose
 * client gets the error. */
static bool may_wait(const coord_event *e) {
    switch (e->type) {
    case COORD_EVENT_TICK:
    case COORD_EVENT_HEARTBEAT:
    case COORD_EVENT_WORKER_JOINED:
        return false;
    case COORD_EVENT_JOB_ADDED:
        return e->info.kind == COORD_TRAINING;
    default:
        return true;
    }
}

/* Is the event repeated if it is lost? True for ticks and for what workers send: a worker asks
 * again, and a block whose result is lost is leased again. Reports of the coordinator's own parts
 * (a block was computed, weights were updated) come only once. */
static bool comes_again(const coord_event *e) {
    return e->type == COORD_EVENT_TICK || e->type == COORD_EVENT_HEARTBEAT ||
           e->type == COORD_EVENT_WORKER_JOINED || e->type == COORD_EVENT_PULL ||
           (e->type == COORD_EVENT_RESULT && e->worker != COORD_SELF);
}

/* Removes from the queue all events before index `from`, and later events that may not wait. */
static void keep_waiting(coord_engine *engine, uint32_t from) {
    const bool before = engine->starved;
    uint32_t count = 0;
    for (uint32_t i = from; i < engine->queue_count; i++) {
        if (!may_wait(&engine->queue[i].event)) continue;
        if (count != i) engine->queue[count] = engine->queue[i];
        count++;
    }
    engine->queue_count = count;
    engine->starved = count > 0;
    if (engine->starved && !before)
        cop_log(COP_LOG_ERROR, "coordinator", "out of memory: incoming requests wait");
    if (!engine->starved && before)
        cop_log(COP_LOG_INFO, "coordinator", "memory is available again: continuing");
}

/* Passes the event at index `at` to the core and carries out the actions. False: the core had no
 * memory, so this event and all behind it must wait. */
static bool dispatch_one(coord_engine *engine, uint32_t at) {
    coord_event now = engine->queue[at].event;
    if (now.text) now.text = engine->queue[at].text; /* the queue does not move during this call */
    cop_err e = coord_core_step(engine->core, &now, cop_clock_ns(), &engine->actions);
    if (e == COP_ERR_NO_MEMORY && may_wait(&now)) return false;
    if (e)
        cop_log_peer(COP_LOG_ERROR, "coordinator", "", "event %d was rejected: %s", (int)now.type,
                     cop_err_text(e));
    for (uint32_t a = 0; !e && a < engine->actions.count; a++)
        engine->carry_out(engine, &engine->actions.items[a]);
    run_deferred(engine);
    return true;
}

bool coord_dispatch(coord_engine *engine, const coord_event *event) {
    const bool again = comes_again(event);
    if (!queue_reserve(engine, engine->queue_count + 1 + (again ? QUEUE_OWN : 0))) {
        cop_log_peer(COP_LOG_ERROR, "coordinator", "", "out of memory: an event was lost%s",
                     again ? "; its leases will expire and be granted again" : "");
        return false;
    }
    coord_waiting *w = &engine->queue[engine->queue_count++];
    w->event = *event;
    if (event->text) snprintf(w->text, sizeof w->text, "%s", event->text);
    if (engine->dispatching) return true; /* the loop below takes it */
    engine->dispatching = true;
    uint32_t at = 0;
    while (at < engine->queue_count && dispatch_one(engine, at)) at++;
    keep_waiting(engine, at);
    engine->dispatching = false;
    return true;
}

/* ---- notifications ---- */

void coord_engine_changed(coord_engine *engine, uint64_t job) {
    if (engine->listener) engine->listener->changed(engine, job);
}

void coord_engine_note(coord_engine *engine, const coord_action *action, const char *digest,
                       const char *warning) {
    if (engine->listener) engine->listener->note(engine, action, digest, warning);
}

/* ---- start and end ---- */

static void on_wake(uv_async_t *wake) {
    coord_engine_read_mail(wake->data);
}

void coord_engine_init(coord_engine *engine) {
    uv_loop_init(&engine->loop);
    uv_loop_configure(&engine->loop, UV_METRICS_IDLE_TIME);
    uv_mutex_init(&engine->mail_mutex);
    uv_async_init(&engine->loop, &engine->wake, on_wake);
    engine->wake.data = engine;
}

cop_err coord_engine_reserve(coord_engine *engine, cop_error *error) {
    engine->slots = cop_alloc_array(COORD_SLOTS_MAX, sizeof *engine->slots);
    if (!engine->slots || !queue_reserve(engine, QUEUE_FIRST)) return cop_no_memory(error);
    return COP_OK;
}

void coord_engine_fini(coord_engine *engine) {
    for (uint32_t i = 0; i < COORD_RESIDENT_MAX; i++)
        if (engine->resident[i].id) coord_resident_fini(&engine->resident[i]);
    for (uint32_t i = 0; i < COP_EVALUATION_PLACES; i++)
        coord_evaluation_free(engine->evaluations[i]);
    for (uint32_t i = 0; engine->slots && i < COORD_SLOTS_MAX; i++)
        cop_buffer_release(engine->slots[i].gradient);
    coord_actions_fini(&engine->actions);
    uv_loop_close(&engine->loop);
    uv_mutex_destroy(&engine->mail_mutex);
    cop_free(engine->slots);
    cop_free(engine->queue);
    cop_free(engine->state_folder);
}
