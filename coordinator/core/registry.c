/* The pool: workers, heartbeats, drain, and the list of workers that wait for work. Every held PULL
 * belongs to a connected worker, because a worker that leaves is taken off the list. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/injected_bugs.h"
#include "coordinator/core/core_state.h"

/* Index of the first worker whose number is not below `worker`. */
static uint32_t position(const coord_core *core, uint64_t worker) {
    uint32_t low = 0, high = core->worker_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (core->workers[middle]->worker < worker)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

core_worker *registry_find(const coord_core *core, uint64_t worker) {
    uint32_t at = position(core, worker);
    bool found = at < core->worker_count && core->workers[at]->worker == worker;
    return found ? core->workers[at] : NULL;
}

static bool is_active(const core_worker *w) {
    return !w->draining && !w->quarantined;
}

/* ---- joining and leaving ---- */

static cop_err reserve(coord_core *core) {
    if (core->worker_count < core->worker_capacity) return COP_OK;
    uint32_t capacity = core->worker_capacity ? core->worker_capacity * 2 : 16;
    core_worker **workers = cop_realloc(core->workers, capacity * sizeof *workers);
    if (!workers) return COP_ERR_NO_MEMORY;
    core->workers = workers;
    core->worker_capacity = capacity;
    return COP_OK;
}

cop_err registry_join(coord_core *core, const coord_event *e, uint64_t now) {
    uint32_t at = position(core, e->worker);
    COP_ASSERT(e->worker && (at == core->worker_count || core->workers[at]->worker != e->worker));
    if (core->worker_count >= COP_POOL_MAX) return COP_ERR_LIMIT;
    COP_TRY(reserve(core));
    core_worker *w = cop_alloc(sizeof *w);
    if (!w) return COP_ERR_NO_MEMORY;
    w->worker = e->worker;
    w->threads = e->joined.threads ? e->joined.threads : 1;
    w->fingerprint = e->joined.fingerprint;
    w->ensembles = e->joined.ensembles;
    w->bf16 = e->joined.bf16;
    w->heard_ns = w->joined_ns = now;
    snprintf(w->name, sizeof w->name, "%s", e->joined.name ? e->joined.name : "");
    const char *identity = e->joined.identity ? e->joined.identity : w->name;
    w->identity = cop_hash_xxh3(identity, strlen(identity)) | 1; /* never 0 */
    w->strikes = audit_strikes_of(core, w->identity);
    audit_init_worker(core, w);
    memmove(&core->workers[at + 1], &core->workers[at],
            (core->worker_count - at) * sizeof *core->workers);
    core->workers[at] = w;
    core->worker_count++;
    core->pool_version++;
    const core_quarantine *q = audit_quarantine_of(core, w->identity);
    w->quarantined = q != NULL;
    core->active_workers += is_active(w);
    core_report(core, 0, !q, "worker %s joined%s", w->name,
                q ? "; it is in quarantine and gets no leases" : "")
        ->identity = w->identity;
    if (!q) scheduler_report_joined(core, w);
    return COP_OK;
}

/* Ends the worker's lease without a result. True: its block is pending again. */
static bool lose_lease(coord_core *core, core_worker *w) {
    core_job *job = w->lease ? jobs_find(core, w->lease_job) : NULL;
    bool returned =
        job && steps_has_leases(job) && round_lose_lease(&job->round, w->lease_first, w->lease);
    w->lease = w->lease_job = 0;
    return returned;
}

/* Ends all leases of the worker in all jobs, even if w->lease does not name them. True: a block is
 * pending again. */
static bool lose_all_leases(coord_core *core, core_worker *w) {
    bool returned = false;
    for (uint32_t i = 0; i < core->resident_count; i++)
        if (round_lose_leases_of(&core->resident[i]->round, w->worker)) returned = true;
    w->lease = w->lease_job = 0;
    return returned;
}

void registry_leave(coord_core *core, core_worker *w, const char *why) {
    registry_stop_waiting(core, w);
    bool returned = lose_all_leases(core, w);
    core_report(core, 0, !returned, "worker %s %s%s", w->name, why,
                returned ? "; its leases return to the queue" : "")
        ->identity = w->identity;
    uint32_t at = position(core, w->worker);
    COP_ASSERT(core->workers[at] == w);
    core->worker_count--;
    core->active_workers -= is_active(w);
    memmove(&core->workers[at], &core->workers[at + 1],
            (core->worker_count - at) * sizeof *core->workers);
    core->pool_version++;
    cop_free(w->unable);
    cop_free(w);
}

void registry_quarantine(coord_core *core, core_worker *w) {
    if (w->quarantined) return;
    core->active_workers -= is_active(w);
    w->quarantined = true;
    lose_all_leases(core, w);
    core->pool_version++;
}

void registry_drain(coord_core *core, core_worker *w) {
    if (w->draining) return;
    core->active_workers -= is_active(w);
    w->draining = core->drained_wait = true;
    core->pool_version++;
}

/* True: the coordinator has been listening for at least one heartbeat period. If it stalled, so
 * that a tick came late, heartbeats from that time are still unread. So after a stall a worker
 * counts as silent only one period later. */
static bool has_listened(coord_core *core, uint64_t now) {
    const uint64_t period = core->config.heartbeat_ns;
    if (core->ticked_ns && now - core->ticked_ns > period) core->listens_ns = now;
    core->ticked_ns = now;
    return now - core->listens_ns >= period;
}

void registry_remove_silent(coord_core *core, uint64_t now) {
    uint64_t limit =
        core->config.heartbeat_ns * COP_INJECT_BUG(NEVER_SILENT, COP_HEARTBEATS_MISSED, 1000);
    if (!core->config.heartbeats || !has_listened(core, now)) return;
    uint32_t given_up = 0;
    for (uint32_t i = core->worker_count; i-- > 0 && given_up < CORE_GIVEN_UP_MAX;) {
        core_worker *w = core->workers[i];
        if (now - w->heard_ns <= limit) continue;
        given_up++;
        core_add_action(core, COORD_ACTION_DISCONNECT, 0)->worker = w->worker;
        registry_leave(core, w, "was silent for too long and was removed");
    }
}

void registry_destroy(coord_core *core) {
    for (uint32_t i = 0; i < core->worker_count; i++) {
        cop_free(core->workers[i]->unable);
        cop_free(core->workers[i]);
    }
    cop_free(core->workers);
}

/* ---- waiting for work ---- */

static void start_waiting(coord_core *core, core_worker *w) {
    w->wait_previous = core->wait_tail;
    w->wait_next = NULL;
    if (core->wait_tail)
        core->wait_tail->wait_next = w;
    else
        core->wait_head = w;
    core->wait_tail = w;
}

void registry_stop_waiting(coord_core *core, core_worker *w) {
    if (!w->request) return;
    if (core->serve_next == w) core->serve_next = w->wait_next;
    if (w->wait_previous)
        w->wait_previous->wait_next = w->wait_next;
    else
        core->wait_head = w->wait_next;
    if (w->wait_next)
        w->wait_next->wait_previous = w->wait_previous;
    else
        core->wait_tail = w->wait_previous;
    w->wait_next = w->wait_previous = NULL;
    w->request = 0;
}

void registry_on_pull(coord_core *core, const coord_event *e, uint64_t now) {
    core_worker *w = registry_find(core, e->worker);
    COP_ASSERT(e->pull.request != 0);
    if (!w) {
        coord_action *a = core_add_action(core, COORD_ACTION_NOTHING, 0);
        a->worker = e->worker;
        a->request = e->pull.request;
        a->nothing.unknown = true;
        return;
    }
    registry_stop_waiting(core, w); /* the worker no longer waits for an answer to an older PULL */
    w->heard_ns = now;
    w->request = e->pull.request;
    w->held_since_ns = now;
    w->have_job = e->pull.have_job;
    w->have_version = e->pull.have_version;
    start_waiting(core, w);
    if (w->draining) core->drained_wait = true;
    /* A worker that asks for work is not computing. If it still has a lease here, the lease or its
     * result was lost on the way. */
    lose_lease(core, w);
}
