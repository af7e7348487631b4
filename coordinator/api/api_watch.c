/* Held requests, which wait for news of a job, an evaluation or a log. Each is answered when there
 * is news, but not earlier than MIN_PAUSE_NS after it arrived, or at its deadline without news. See
 * api.h. */
#include <string.h>

#include "common/base/clock.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

#define MIN_PAUSE_NS 100000000 /* a request is held at least this long, even if there is news */

/* Answers the watcher with the job's status and frees its place. If `note` is NULL, the job does
 * not exist, and the answer is NOT_FOUND. */
static void answer_watch(coord_api *api, api_watcher *w, const api_note *note) {
    cop_request *request = w->request;
    w->request = NULL;
    if (!note) {
        api_unknown_job(request, w->job);
        return;
    }
    Coppice__Api__JobStatus status;
    Coppice__Api__WatchJobAnswer answer = COPPICE__API__WATCH_JOB_ANSWER__INIT;
    api_status(api, note, &status);
    answer.status = &status;
    answer.has_version = 1;
    answer.version = note->version;
    answer.has_retry_ms = w->at_once;
    answer.retry_ms = API_RETRY_MS;
    api_answer(request, COPPICE__API__METHOD__WATCH_JOB, &answer.base, NULL);
}

/* Answers a watcher of any kind with the present state. For a log, starts a task that answers. */
static void answer(coord_api *api, api_watcher *w) {
    const api_note *n = api_note_find(api, w->job);
    if (w->logs)
        api_ask_logs(api, w);
    else if (w->evaluation)
        api_answer_evaluation(api, w, n);
    else
        answer_watch(api, w, n);
}

/* ---- places ---- */

/* Returns a free place. NULL: there is none, or the identity has used up its share of them. */
static api_watcher *find_place(coord_api *api, const char *identity) {
    const uint32_t configured = api->access->config->watches_per_identity;
    const uint32_t share = coord_access_share(
        api->access, configured ? configured : COP_WATCHES_PER_IDENTITY_MAX, COP_WATCHES_MAX);
    api_watcher *place = NULL;
    uint32_t owned = 0;
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++) {
        api_watcher *w = &api->watchers[i];
        if (!w->request && !place) place = w;
        owned += w->request && strcmp(coord_access_identity(w->request), identity) == 0;
    }
    return owned < share ? place : NULL;
}

void api_hold(coord_api *api, const api_watcher *watcher) {
    COP_ASSERT(watcher->request && !watcher->asking);
    api_watcher *place = find_place(api, coord_access_identity(watcher->request));
    if (place) {
        *place = *watcher;
        cop_request_release_parts(place->request);
        return;
    }
    api_watcher immediate = *watcher;
    immediate.at_once = true;
    answer(api, &immediate);
}

uint64_t api_hold_until(uint32_t hold_ms, uint64_t now) {
    return now + (uint64_t)(hold_ms < COP_HOLD_MAX_MS ? hold_ms : COP_HOLD_MAX_MS) * 1000000;
}

void api_watch_job(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__WatchJobRequest *r = (const Coppice__Api__WatchJobRequest *)message;
    uint64_t now = cop_clock_ns();
    api_watcher w = {.request = request,
                     .job = r->job,
                     .version = r->version,
                     .deadline_ns = api_hold_until(r->hold_ms, now),
                     .not_before_ns = now + MIN_PAUSE_NS};
    const api_note *n = api_note_find(api, r->job);
    cop_proto_free(message);
    if (!n || !w.version || n->state >= COORD_COMPLETED)
        answer_watch(api, &w, n); /* with version 0, the client knows nothing yet */
    else
        api_hold(api, &w);
}

/* ---- events ---- */

/* Answers a watcher that has news or whose time is over. For a log, asks for new lines. */
static void check_watcher(coord_api *api, api_watcher *w, uint64_t now) {
    if (w->logs) {
        if (!w->asking && now >= w->not_before_ns) api_ask_logs(api, w);
        return;
    }
    const api_note *n = api_note_find(api, w->job);
    bool news = !n || n->version != w->version;
    if (now < w->deadline_ns && (!news || now < w->not_before_ns)) return;
    answer(api, w);
}

void coord_api_tick(coord_api *api, uint64_t now_ns) {
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++)
        if (api->watchers[i].request) check_watcher(api, &api->watchers[i], now_ns);
    api_evaluations_tick(api, now_ns);
    api_tidy_data(api, now_ns);
}

void coord_api_on_gone(coord_api *api, uint64_t connection) {
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++) {
        api_watcher *w = &api->watchers[i];
        if (!w->request || w->asking || cop_request_connection(w->request) != connection) continue;
        cop_server_drop(w->request);
        w->request = NULL;
    }
}

void coord_api_release(coord_api *api) {
    while (api->tasks) uv_run(&api->engine->loop, UV_RUN_ONCE);
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++) {
        api_watcher *w = &api->watchers[i];
        COP_ASSERT(!w->asking); /* all tasks have ended */
        if (w->request)
            coord_reply_failure(w->request, COP_ERR_CLOSED, "the coordinator is stopping");
        w->request = NULL;
    }
}
