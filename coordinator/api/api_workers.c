/* Calls about the pool: LIST_WORKERS, DRAIN_WORKER, INFO. See api.h. */
#include <stdio.h>

#include "coordinator/api/api.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/version.h"
#include "common/wire/codec.h"

static void worker_status(coord_api *api, const coord_worker_view *v,
                          Coppice__Api__WorkerStatus *s) {
    const coord_session *session = coord_session_find(api->access, v->worker);
    const uint64_t now = cop_clock_ns();
    const api_note *served = api_note_find(api, v->served_job);
    const bool recent =
        served && served->state == COORD_RUNNING && now < v->served_ns + COORD_RECENT_NS;
    const bool computing = v->computing || recent;
    coppice__api__worker_status__init(s);
    s->has_worker = s->has_threads = s->has_job = s->has_shards = s->has_seconds =
        s->has_ms_per_shard = s->has_strikes = s->has_holds_lease = 1;
    s->holds_lease = v->computing;
    s->worker = v->worker;
    s->name = (char *)(uintptr_t)v->name;
    s->threads = v->threads;
    s->job = computing ? v->served_job : 0;
    s->shards = v->shards;
    s->seconds = (double)(now - v->joined_ns) * 1e-9;
    s->ms_per_shard = v->ms_per_shard;
    s->strikes = v->strikes;
    s->has_unable = v->unable != 0;
    s->unable = v->unable;
    s->evidence = (char *)(uintptr_t)v->evidence;
    s->state = (char *)(uintptr_t)(v->quarantined ? "quarantined"
                                   : v->draining  ? "draining"
                                   : computing    ? "computing"
                                                  : "idle");
    if (!session) return;
    s->isa = (char *)(uintptr_t)session->isa;
    s->address = (char *)(uintptr_t)session->address;
    s->build = (char *)(uintptr_t)session->build;
    s->path = (char *)(uintptr_t)session->path;
}

/* Returns the resident memory of this process in bytes, or 0 if it is not known. */
static uint64_t resident_bytes(void) {
    size_t bytes = 0;
    return uv_resident_set_memory(&bytes) ? 0 : bytes;
}

/* Returns a quantile of the times of loop iterations, in milliseconds: the fraction `share` (0 to
 * 1) of the iterations took at most this time. */
static double ms_at(const coord_times *times, double share) {
    return (double)(coord_times_quantile(times, share) / 1000) * 1e-3;
}

static void describe_loop_latency(const coord_loop_latency *s, Coppice__Api__LoopStalls *out) {
    coppice__api__loop_stalls__init(out);
    out->has_rounds = out->has_p50_ms = out->has_p99_ms = out->has_p999_ms = out->has_most_ms =
        out->has_computed_p999_ms = out->has_computed_most_ms = 1;
    out->rounds = s->away.count;
    out->p50_ms = ms_at(&s->away, 0.5);
    out->p99_ms = ms_at(&s->away, 0.99);
    out->p999_ms = ms_at(&s->away, 0.999);
    out->most_ms = ms_at(&s->away, 1);
    out->computed_p999_ms = ms_at(&s->computing, 0.999);
    out->computed_most_ms = ms_at(&s->computing, 1);
}

/* Describes the coordinator in *out. out->stalls points to *stalls, which this function fills. */
static void describe(const coord_api *api, Coppice__Api__LoopStalls *stalls,
                     Coppice__Api__InfoAnswer *out) {
    coppice__api__info_answer__init(out);
    out->version = out->build = (char *)(uintptr_t)COP_VERSION;
    out->has_workers = out->has_jobs = out->has_uptime = out->has_rss = 1;
    out->workers = coord_core_worker_count(api->engine->core);
    out->jobs = api->count;
    out->uptime = (double)(cop_clock_ns() - api->started_ns) * 1e-9;
    out->rss = resident_bytes();
    out->stalls = stalls;
    describe_loop_latency(&api->engine->latency, stalls);
}

void api_list_workers(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    uint32_t count = coord_core_worker_count(api->engine->core);
    Coppice__Api__WorkerStatus *statuses = cop_alloc_array(count + 1, sizeof *statuses);
    Coppice__Api__WorkerStatus **table = cop_alloc_array(count + 1, sizeof *table);
    cop_proto_free(message);
    for (uint32_t i = 0; statuses && table && i < count; i++) {
        coord_worker_view view;
        table[i] = &statuses[i];
        const bool known = coord_core_worker_at(api->engine->core, i, &view);
        COP_ASSERT(known && view.worker > 0);
        worker_status(api, &view, table[i]);
    }
    Coppice__Api__ListWorkersAnswer answer = COPPICE__API__LIST_WORKERS_ANSWER__INIT;
    Coppice__Api__InfoAnswer coordinator;
    Coppice__Api__LoopStalls stalls;
    describe(api, &stalls, &coordinator);
    answer.coordinator = &coordinator;
    answer.workers = table;
    answer.n_workers = count;
    if (statuses && table)
        api_answer(request, COPPICE__API__METHOD__LIST_WORKERS, &answer.base, NULL);
    else
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
    cop_free(statuses);
    cop_free(table);
}

void api_drain_worker(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__DrainWorkerRequest *r = (const Coppice__Api__DrainWorkerRequest *)message;
    coord_session *found = NULL;
    const char *names[64];
    size_t count = 0;
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) {
        coord_session *s = &api->access->sessions[i];
        if (!s->worker) continue;
        if (count < 64) names[count++] = s->name;
        if (r->name && strcmp(s->name, r->name) == 0) found = s;
    }
    if (!found) {
        const char *nearest = r->name ? cop_nearest_name(r->name, names, count) : NULL;
        coord_reply_failure(request, COP_ERR_NOT_FOUND,
                            "there is no worker \"%.100s\"%s%s%s (coppice workers lists them)",
                            r->name ? r->name : "", nearest ? ": did you mean \"" : "",
                            nearest ? nearest : "", nearest ? "\"?" : "");
        cop_proto_free(message);
        return;
    }
    coord_event drain = {.type = COORD_EVENT_WORKER_DRAIN, .worker = found->worker};
    Coppice__Api__DrainWorkerAnswer answer = COPPICE__API__DRAIN_WORKER_ANSWER__INIT;
    Coppice__Api__WorkerStatus status;
    coord_worker_view view;
    found->drain = true;
    coord_dispatch(api->engine, &drain);
    /* the worker has not left already */
    if (coord_core_worker(api->engine->core, drain.worker, &view)) {
        worker_status(api, &view, &status);
        answer.status = &status;
    }
    api_answer(request, COPPICE__API__METHOD__DRAIN_WORKER, &answer.base, NULL);
    cop_proto_free(message);
}

void api_info(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    Coppice__Api__InfoAnswer answer;
    Coppice__Api__LoopStalls stalls;
    cop_proto_free(message);
    describe(api, &stalls, &answer);
    api_answer(request, COPPICE__API__METHOD__INFO, &answer.base, NULL);
}
