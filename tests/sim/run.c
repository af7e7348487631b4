/* One seed from start to end. */
#include "sim/sim.h"

#include "common/base/alloc.h"

#define PATIENCE                                                                                   \
    (600 * SIM_SECOND) /* longest time from the last fault to the end of all jobs, see             \
                          is_too_late */
#define MOST_EVENTS 3000000

/* ---- a failed COP_ASSERT stops the run, not the program ---- */

static sim *under_way;

void sim_panics_stop(sim *s) {
    under_way = s;
}

_Noreturn void __real_cop_panic(const char *file, int line, const char *condition);
_Noreturn void __wrap_cop_panic(const char *file, int line, const char *condition);

_Noreturn void __wrap_cop_panic(const char *file, int line, const char *condition) {
    sim *s = under_way;
    if (!s) __real_cop_panic(file, line, condition);
    const char *name = strrchr(file, '/');
    sim_fail(s, "assertions", "%s:%d: %s", name ? name + 1 : file, line, condition);
}

/* ---- delivery of events ---- */

static bool concerns_host(sim_kind kind) {
    return (kind > SIM_NONE && kind <= SIM_RESTART) || kind == SIM_ENSEMBLE;
}

/* Is this event handled by the coordinator's loop? Its other threads and the disk go on during a
 * stall of the loop. */
static bool needs_loop(sim_kind kind) {
    return kind <= SIM_TASK || kind == SIM_ENSEMBLE;
}

/* Postpones an event for a process that is frozen or whose loop stalls, and returns true if it did.
 * When the coordinator's stall ends, a tick comes before all other postponed events. */
static bool postponed(sim *s, const sim_event *e) {
    uint64_t until = 0;
    if (concerns_host(e->kind)) {
        if (needs_loop(e->kind) && e->life == s->host.life) until = s->host.stalled_until;
        if (e->kind != SIM_TICK) until += until > s->now;
    } else if (e->kind != SIM_FAULT && e->kind != SIM_BOOT) {
        until = sim_party_of(s, e->peer)->frozen_until;
    }
    if (until <= s->now) return false;
    sim_post(s, until - s->now, *e);
    return true;
}

static void deliver(sim *s, sim_event *e) {
    sim_trace_event(s, e);
    if (e->kind == SIM_FAULT)
        sim_fault_do(s, &s->faults[e->value]);
    else if (concerns_host(e->kind))
        sim_host_on(s, e);
    else if (e->peer < s->worker_count)
        sim_worker_on(s, e);
    else
        sim_client_on(s, e);
    cop_free(e->message);
    cop_free(e->event);
}

/* All clients resume their jobs after the last fault, because no job may stay paused for ever. */
static void resume_all(sim *s) {
    for (uint32_t i = 0; i < s->client_count; i++) sim_client_request(s, i, COORD_EVENT_JOB_RESUME);
}

/* True: it is too late. The latest time is PATIENCE after the last fault, or the time that the jobs
 * need at most (sim_longest), whichever is later. */
static bool is_too_late(const sim *s) {
    return s->now >= s->quiet_ns + PATIENCE && s->now >= s->quiet_ns + sim_longest(s);
}

static void loop(sim *s) {
    bool resumed = false;
    uint64_t began = s->now;
    while (!sim_all_done(s) || !resumed) {
        sim_event e = sim_take(s);
        s->now = e.time;
        s->result->virtual_ns = s->now - began;
        if (postponed(s, &e)) continue;
        s->result->events++;
        deliver(s, &e);
        if (!resumed && s->now > s->quiet_ns) {
            resumed = true;
            resume_all(s);
        }
        if (s->now >= s->quiet_ns + PATIENCE && sim_nobody_is_left(s)) break;
        bool too_much = s->result->events >= MOST_EVENTS && !s->options.workers;
        SIM_CHECK(s, "comes-to-an-end", !too_much && !is_too_late(s),
                  "not everything is done %llu s after the last fault",
                  (unsigned long long)((s->now - s->quiet_ns) / SIM_SECOND));
    }
    sim_check_end(s);
}

/* ---- the run ---- */

static void start(sim *s) {
    s->disk = sim_disk_create(s);
    sim_setup(s);
    sim_setup_faults(s);
    s->result->faults = s->fault_count;
    s->result->workers = s->worker_count;
    sim_host_start(s);
}

void sim_run(const sim_options *options, sim_result *result) {
    jmp_buf stop;
    sim *s = cop_alloc(sizeof *s);
    COP_ASSERT(s != NULL);
    *result = (sim_result){0};
    s->options = *options;
    s->result = result;
    s->stop = &stop;
    s->hash = options->seed;
    sim_panics_stop(s);
    if (setjmp(stop) == 0) {
        start(s);
        loop(s);
    } else {
        sim_trace(s, "BROKEN %s: %s", result->invariant, result->text);
    }
    sim_panics_stop(NULL);
    result->hash = s->hash;
    result->core_bytes = sim_memory_peak();
    sim_memory_reset();
}
