/* The core's entry: an event goes to the part it concerns, then the scheduler gives out leases. See
 * core.h for the contract and core_state.h for the parts. */
#include "coordinator/core/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "coordinator/core/core_state.h"

/* ---- actions ---- */

/* Upper bounds of the actions, and of the actions with a text, that one event can cause. They do
 * not depend on the number of workers. */
typedef struct bounds {
    uint32_t actions, texts;
} bounds;

/* Up to CORE_GIVEN_UP_MAX workers are removed (2 actions each, one with a text), and up to
 * CORE_ANSWERS_MAX are answered. For each block of a resident job, up to 4 slots are dropped, the
 * coordinator computes it (1 action), and it is leased three times (2 actions each, one with a
 * text). */
static bounds bounds_of(const coord_core *core) {
    bounds b = {.actions = 64 + 2 * CORE_GIVEN_UP_MAX + CORE_ANSWERS_MAX,
                .texts = 64 + CORE_GIVEN_UP_MAX};
    for (uint32_t i = 0; i < core->resident_count; i++) {
        const uint32_t blocks = core->resident[i]->round.capacity;
        b.actions += 24 + 11 * blocks;
        b.texts += 24 + 3 * blocks;
    }
    b.actions += 8 * core->config.jobs_running_max; /* jobs that this event makes resident */
    b.texts += 8 * core->config.jobs_running_max;
    return b;
}

static cop_err reserve_actions(coord_core *core, coord_actions *out) {
    const bounds b = bounds_of(core);
    if (b.actions > out->capacity) {
        coord_action *items = cop_realloc(out->items, (size_t)b.actions * 2 * sizeof *items);
        if (!items) return COP_ERR_NO_MEMORY;
        out->items = items;
        out->capacity = b.actions * 2;
    }
    if (b.texts > out->text_capacity) {
        char(*texts)[COORD_TEXT_MAX] = cop_realloc(out->texts, (size_t)b.texts * sizeof *texts);
        if (!texts) return COP_ERR_NO_MEMORY;
        out->texts = texts;
        out->text_capacity = b.texts;
    }
    return COP_OK;
}

coord_action *core_add_action(coord_core *core, coord_action_type type, uint64_t job) {
    coord_actions *out = core->out;
    COP_ASSERT(out->count < out->capacity);
    coord_action *a = &out->items[out->count++];
    memset(a, 0, sizeof *a);
    a->type = type;
    a->job = job;
    return a;
}

char *core_action_text(coord_core *core, coord_action *a) {
    coord_actions *out = core->out;
    COP_ASSERT(out->text_count < out->text_capacity);
    char *text = out->texts[out->text_count++];
    *text = '\0';
    a->text = text;
    return text;
}

coord_action *core_report(coord_core *core, uint64_t job, bool fine, const char *format, ...) {
    coord_action *a = core_add_action(core, COORD_ACTION_EVENT, job);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(core_action_text(core, a), COORD_TEXT_MAX, format, arguments);
    va_end(arguments);
    a->kind = (uint64_t)(uintptr_t)format;
    a->ok = fine;
    return a;
}

void core_add_drop(coord_core *core, uint64_t job, uint64_t slot) {
    if (slot) core_add_action(core, COORD_ACTION_DROP, job)->slot = slot;
}

/* ---- entry ---- */

static void on_stop(coord_core *core, uint64_t now) {
    if (core->stopping) return;
    core->stopping = true;
    core->stop_began_ns = now;
}

static void on_tick(coord_core *core, uint64_t now) {
    registry_remove_silent(core, now);
    jobs_end_expired(core, now);
    audit_on_tick(core, now);
    unable_on_tick(core, now);
    jobs_retry_saves(core, now);
}

static void on_worker_event(coord_core *core, const coord_event *e, uint64_t now) {
    core_worker *w = registry_find(core, e->worker);
    if (!w) return; /* the worker has left already */
    if (e->type == COORD_EVENT_WORKER_GONE)
        registry_leave(core, w, w->draining ? "left" : "disconnected");
    else if (e->type == COORD_EVENT_WORKER_DRAIN)
        registry_drain(core, w);
    else
        w->heard_ns = now;
}

static cop_err take_event(coord_core *core, const coord_event *e, uint64_t now) {
    core_job *job;
    switch (e->type) {
    case COORD_EVENT_TICK:
        on_tick(core, now);
        break;
    case COORD_EVENT_WORKER_JOINED:
        return registry_join(core, e, now);
    case COORD_EVENT_WORKER_GONE:
    case COORD_EVENT_WORKER_DRAIN:
    case COORD_EVENT_HEARTBEAT:
        on_worker_event(core, e, now);
        break;
    case COORD_EVENT_PULL:
        registry_on_pull(core, e, now);
        break;
    case COORD_EVENT_RESULT:
        steps_on_result(core, e, now);
        break;
    case COORD_EVENT_JOB_ADDED:
        return jobs_add(core, e, now);
    case COORD_EVENT_STOP:
        on_stop(core, now);
        break;
    default:
        job = jobs_find(core, e->job);
        if (job) jobs_on_event(core, job, e, now);
    }
    return COP_OK;
}

static void check_stopped(coord_core *core) {
    if (!core->stopping || core->stopped || core->resident_count) return;
    core->stopped = true;
    core_add_action(core, COORD_ACTION_STOPPED, 0);
}

/* Asserts that each holder of a block is the coordinator, or a connected worker that computes this
 * lease. */
static void check_holders(const coord_core *core, const core_job *job) {
    for (uint32_t i = 0; i < job->round.count; i++) {
        const round_block *b = &job->round.blocks[i];
        for (int h = 0; h < ROUND_HOLDERS; h++) {
            const round_holder *holder = &b->holder[h];
            if (!holder->worker || holder->worker == COORD_SELF) continue;
            const core_worker *w = registry_find(core, holder->worker);
            COP_ASSERT(w && !w->quarantined && w->identity == holder->identity);
            COP_ASSERT(w->lease == holder->lease && w->lease_job == job->info.job &&
                       w->lease_first == b->first);
        }
    }
}

void coord_core_check(const coord_core *core) {
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < core->resident_count; i++) {
        round_check(&core->resident[i]->round);
        check_holders(core, core->resident[i]);
    }
    for (uint32_t i = 1; i < core->job_count && i < 256; i++) /* a sample */
        COP_ASSERT(core->jobs[i - 1]->info.job < core->jobs[i]->info.job);
    for (const core_worker *w = core->wait_head; w; w = w->wait_next, waiting++) {
        COP_ASSERT(w->request && !w->lease && registry_find(core, w->worker) == w);
        COP_ASSERT(!w->wait_next || w->held_since_ns <= w->wait_next->held_since_ns);
    }
    for (uint32_t i = 0; i < core->worker_count; i++) waiting -= core->workers[i]->request != 0;
    COP_ASSERT(waiting == 0);
}

cop_err coord_core_step(coord_core *core, const coord_event *event, uint64_t now_ns,
                        coord_actions *out) {
    out->count = out->text_count = 0;
    COP_TRY(reserve_actions(core, out));
    core->out = out;
    COP_TRY(take_event(core, event, now_ns));
    jobs_set_aside_stranded(core, now_ns);
    scheduler_load_jobs(core);
    scheduler_serve(core, now_ns);
    steps_note_idle_time(core, now_ns);
    check_stopped(core);
#ifdef COP_DEBUG
    if (core->worker_count <= 256 || now_ns / 1000 % 1000 == 0) /* large pools only sometimes */
        coord_core_check(core);
#endif
    return COP_OK;
}

void coord_actions_fini(coord_actions *actions) {
    cop_free(actions->items);
    cop_free(actions->texts);
    *actions = (coord_actions){0};
}

/* ---- life ---- */

cop_err coord_core_create(const coord_core_config *config, coord_core **out) {
    coord_core *core = cop_alloc(sizeof *core);
    if (!core) return COP_ERR_NO_MEMORY;
    core->config = *config;
    core->pool_version = 1;
    if (!core->config.jobs_running_max) core->config.jobs_running_max = 4;
    if (!core->config.evaluations_max) core->config.evaluations_max = 4;
    if (!core->config.lease_floor_ns) core->config.lease_floor_ns = 5000000000u;
    if (!core->config.lease_overhead_percent) core->config.lease_overhead_percent = 25;
    if (!core->config.save_patience_ns) core->config.save_patience_ns = 3600000000000u;
    if (!core->config.heartbeat_ns)
        core->config.heartbeat_ns = (uint64_t)COP_HEARTBEAT_MS * 1000000;
    core->resident = cop_alloc_array(core->config.jobs_running_max + core->config.evaluations_max,
                                     sizeof(core_job *));
    if (!core->resident) {
        cop_free(core);
        return COP_ERR_NO_MEMORY;
    }
    *out = core;
    return COP_OK;
}

void coord_core_destroy(coord_core *core) {
    if (!core) return;
    jobs_destroy(core);
    registry_destroy(core);
    cop_free(core->resident);
    cop_free(core);
}

/* ---- views ---- */

/* Counts the workers that hold a lease of the job, or did a moment ago. Between two leases a worker
 * waits for milliseconds, but for people it works on the job all the time. */
static uint32_t recent_workers(const coord_core *core, const core_job *job, uint64_t now_ns) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < core->worker_count; i++) {
        const core_worker *w = core->workers[i];
        const bool recent =
            w->served_job == job->info.job && now_ns < w->served_ns + COORD_RECENT_NS;
        count += w->lease_job == job->info.job || recent;
    }
    /* With limits.workers, more workers may have had leases within this time, but not at once. */
    const uint32_t limit = job->info.workers_max;
    return limit && count > limit ? limit : count;
}

static const char *what_it_waits_for(const coord_core *core, const core_job *job, uint32_t recent) {
    if (job->phase == PHASE_IDLE) return job->info.state == COORD_QUEUED ? "its turn" : NULL;
    if (job->phase == PHASE_LOADING) return "its data";
    if (!steps_has_leases(job) || round_holders(&job->round, 0)) return NULL;
    if (audit_lacks_second_worker(core, job)) return "another worker, to check results";
    for (uint32_t i = 0; i < core->worker_count; i++)
        if (scheduler_eligible(job, core->workers[i])) return recent ? NULL : "a free worker";
    return job->unable ? "another worker: the connected workers cannot compute it" : "workers";
}

bool coord_core_job(const coord_core *core, uint64_t id, uint64_t now_ns, coord_job_view *out) {
    const core_job *job = jobs_find(core, id);
    if (!job) return false;
    const uint32_t recent = recent_workers(core, job, now_ns);
    *out = (coord_job_view){.info = job->info,
                            .step = job->step,
                            .epoch = (double)job->step / (double)job->info.steps_per_epoch,
                            .holders = round_holders(&job->round, 0),
                            .workers = recent,
                            .leases = job->counts,
                            .blocks_done = job->round.members ? job->round.base : job->round.done,
                            .blocks = job->round.members ? job->round.total : job->round.count,
                            .seconds = job->seconds,
                            .loss = job->last_loss,
                            .error = job->last_error,
                            .has_loss = job->has_loss,
                            .has_error = job->has_error,
                            .waiting_for = what_it_waits_for(core, job, recent)};
    if (job->timed_seconds > 0 && job->timed_samples > 0) {
        out->samples_per_s = (double)job->timed_samples / job->timed_seconds;
        out->eta_seconds =
            (double)(job->info.steps - job->step) * job->info.batch / out->samples_per_s;
    }
    return true;
}

uint32_t coord_core_worker_count(const coord_core *core) {
    return core->worker_count;
}

static void view_worker(const coord_core *core, const core_worker *w, coord_worker_view *out) {
    const core_quarantine *q = w->quarantined ? audit_quarantine_of(core, w->identity) : NULL;
    *out = (coord_worker_view){.worker = w->worker,
                               .job = w->lease_job,
                               .lease = w->lease,
                               .shards = w->shards,
                               .joined_ns = w->joined_ns,
                               .name = w->name,
                               .threads = w->threads,
                               .strikes = w->strikes,
                               .draining = w->draining,
                               .quarantined = w->quarantined,
                               .computing = w->lease != 0,
                               .served_job = w->served_job,
                               .served_ns = w->served_ns,
                               .unable = unable_newest(core, w),
                               .evidence = q ? q->evidence : NULL,
                               .ms_per_shard = w->ns_per_shard * 1e-6};
}

bool coord_core_worker_at(const coord_core *core, uint32_t index, coord_worker_view *out) {
    if (index >= core->worker_count) return false;
    view_worker(core, core->workers[index], out);
    return true;
}

bool coord_core_worker(const coord_core *core, uint64_t worker, coord_worker_view *out) {
    const core_worker *w = registry_find(core, worker);
    if (w) view_worker(core, w, out);
    return w != NULL;
}

bool coord_core_wants(const coord_core *core, uint64_t worker, uint64_t lease) {
    const core_worker *w = registry_find(core, worker);
    const core_job *job = w && lease && w->lease == lease ? jobs_find(core, w->lease_job) : NULL;
    int holder;
    return job && steps_has_leases(job) &&
           round_find(&job->round, w->lease_first, lease, &holder) >= 0;
}

bool coord_core_wants_digest(const coord_core *core, uint64_t worker, const coord_result_info *r) {
    return audit_wants_digest(core, worker, r);
}
