/* The call LOGS: sends lines of a job's log. A task on the thread pool reads them from the store. A
 * request that waits for new lines is held as a watcher, and a task reads the log for it every
 * PAUSE_NS. See api.h. */
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

#define EVENTS_AT_ONCE 200       /* the maximum number of lines in an answer */
#define PAUSE_NS       300000000 /* pause between two queries for the same watcher */

typedef struct event_list {
    Coppice__Api__Event events[EVENTS_AT_ONCE];
    coord_store_event rows[EVENTS_AT_ONCE];
    Coppice__Api__Event *table[EVENTS_AT_ONCE];
    size_t count;
    bool ended; /* the job had ended before the query, so its log gets no more lines */
} event_list;

static cop_err take_event(void *context, const coord_store_event *row) {
    event_list *l = context;
    COP_ASSERT(l->count < EVENTS_AT_ONCE); /* the query returns at most EVENTS_AT_ONCE rows */
    l->rows[l->count++] = *row;
    return COP_OK;
}

static void logs_work(api_task *t) {
    const event_list *l = t->extra;
    const coord_store_event_range range = {
        .job = t->job, .after = t->value, .limit = EVENTS_AT_ONCE};
    if (l->ended) coord_store_flush(t->api->engine->store); /* the last lines may still be queued */
    t->result =
        coord_store_each_event(t->api->engine->store, &range, take_event, t->extra, &t->error);
}

static void answer_logs(const api_watcher *w, event_list *l, uint64_t after) {
    const bool finished = l->ended && l->count < EVENTS_AT_ONCE;
    Coppice__Api__LogsAnswer answer = COPPICE__API__LOGS_ANSWER__INIT;
    for (size_t i = 0; i < l->count; i++) {
        Coppice__Api__Event *e = l->table[i] = &l->events[i];
        coppice__api__event__init(e);
        e->has_id = e->has_job = 1;
        e->id = l->rows[i].id;
        e->job = l->rows[i].job;
        e->time = l->rows[i].time;
        e->level = l->rows[i].level;
        e->text = l->rows[i].text;
    }
    answer.events = l->table;
    answer.n_events = l->count;
    answer.has_last = answer.has_finished = 1;
    answer.last = l->count ? l->rows[l->count - 1].id : after;
    answer.finished = finished;
    answer.has_retry_ms = w->at_once && !l->count && !finished;
    answer.retry_ms = API_RETRY_MS;
    api_answer(w->request, COPPICE__API__METHOD__LOGS, &answer.base, NULL);
}

static void logs_done(api_task *t) {
    api_watcher immediate = {.request = t->request, .at_once = true}; /* deadline 0 is past */
    api_watcher *w = t->request ? &immediate : &t->api->watchers[t->watcher];
    event_list *l = t->extra;
    uint64_t now = cop_clock_ns();
    bool finished = l->ended && l->count < EVENTS_AT_ONCE;
    COP_ASSERT(w->request && (t->request || w->asking));
    w->asking = false;
    w->not_before_ns = now + PAUSE_NS;
    if (t->result || l->count || finished || now >= w->deadline_ns) {
        if (t->result)
            api_fail(w->request, &t->error, t->result);
        else
            answer_logs(w, l, t->value);
        w->request = NULL;
    }
    api_task_free(t);
}

void api_ask_logs(coord_api *api, api_watcher *w) {
    /* A request that has no place among the watchers takes one of the places of calls. */
    api_task *t = api_task_create(api, w->at_once ? w->request : NULL, NULL);
    if (t) t->extra = cop_alloc(sizeof(event_list));
    if (!t || !t->extra) {
        const bool answered = !t && w->at_once;
        if (!answered) api_fail(w->request, NULL, COP_ERR_NO_MEMORY);
        if (t) api_task_free(t);
        w->request = NULL;
        return;
    }
    const api_note *n = api_note_find(api, w->job);
    ((event_list *)t->extra)->ended = !n || n->state >= COORD_COMPLETED;
    t->job = w->job;
    t->value = w->after;
    if (!w->at_once) {
        COP_ASSERT(w >= api->watchers && w < api->watchers + COP_WATCHES_MAX);
        t->watcher = (uint32_t)(w - api->watchers);
    }
    w->asking = true;
    api_task_start(t, logs_work, logs_done);
}

void api_logs(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__LogsRequest *r = (const Coppice__Api__LogsRequest *)message;
    const uint64_t now = cop_clock_ns();
    const api_watcher w = {.request = request,
                           .job = r->job,
                           .logs = true,
                           .after = r->after,
                           .deadline_ns = api_hold_until(r->hold_ms, now),
                           .not_before_ns = now}; /* the next tick reads the log */
    cop_proto_free(message);
    if (api_note_of(api, request, w.job)) api_hold(api, &w);
}
