/* Faults as they happen. A fault that lasts changes nothing when it begins: the part of the
 * simulator that it affects looks it up (sim_fault_on). The others happen at one moment
 * (sim_fault_do). */
#include "sim/sim.h"

#include <stdio.h>

static bool covers(const sim_fault *f, sim_fault_kind kind, uint32_t target, uint64_t when) {
    if (f->kind != kind || when < f->at || when >= f->at + f->lasts) return false;
    return f->target == SIM_NOBODY || f->target == target;
}

uint32_t sim_fault_on(const sim *s, sim_fault_kind kind, uint32_t target, uint64_t when) {
    if (!s->lasting[kind]) return 0;
    uint32_t amount_now = 0;
    for (uint32_t i = 0; i < s->fault_count; i++)
        if (covers(&s->faults[i], kind, target, when) && s->faults[i].amount > amount_now)
            amount_now = s->faults[i].amount;
    return amount_now;
}

uint64_t sim_fault_ends(const sim *s, sim_fault_kind kind, uint32_t target) {
    uint64_t end = s->now;
    for (uint32_t i = 0; i < s->fault_count; i++) {
        const sim_fault *f = &s->faults[i];
        if (covers(f, kind, target, s->now) && f->at + f->lasts > end) end = f->at + f->lasts;
    }
    return end;
}

static void cut(sim *s, const sim_fault *f) {
    for (uint32_t peer = 0; peer < s->worker_count + s->client_count; peer++) {
        if (f->target != SIM_NOBODY && f->target != peer) continue;
        sim_cut(s, peer, SIM_WORK, f->amount);
        sim_cut(s, peer, SIM_CONTROL, f->amount);
    }
}

static void restart_in(sim *s, uint64_t ms) {
    sim_post(s, ms * SIM_MS, (sim_event){.kind = SIM_RESTART});
}

static void hit_coordinator(sim *s, const sim_fault *f) {
    sim_host *h = &s->host;
    coord_event stop = {.type = COORD_EVENT_STOP};
    switch (f->kind) {
    case SIM_CRASH:
    case SIM_POWER:
        if (!h->up) break;
        sim_host_die(s, f->kind == SIM_POWER);
        restart_in(s, f->amount);
        break;
    case SIM_CRASH_SAVE:
        h->crash_save = f->amount + 1;
        break;
    case SIM_CRASH_COMMIT:
        h->crash_commit = f->amount + 1;
        break;
    case SIM_STOP:
        if (!h->up || h->stopping) break;
        h->stopping = true;
        h->pause_ms = f->amount;
        sim_dispatch(s, &stop);
        break;
    case SIM_STALL:
        if (f->at + f->lasts > h->stalled_until) h->stalled_until = f->at + f->lasts;
        break;
    default:
        h->clock_ahead += f->amount * SIM_MS;
    }
}

static void hit_worker(sim *s, const sim_fault *f) {
    sim_worker *x = &s->workers[f->target];
    switch (f->kind) {
    case SIM_KILL:
        sim_worker_kill(s, f->target, f->amount & 1, f->amount * SIM_MS);
        break;
    case SIM_FREEZE:
        x->party.frozen_until = f->at + f->lasts;
        break;
    case SIM_DRAIN:
        sim_worker_drain(s, f->target);
        break;
    case SIM_NAN_RESULT:
        x->nan_results += f->amount;
        break;
    case SIM_NAN_GRADIENT:
        x->nan_gradients += f->amount;
        break;
    case SIM_MANGLED:
        x->mangled_results++;
        break;
    default:
        x->failed_results += f->amount;
    }
}

void sim_fault_do(sim *s, const sim_fault *f) {
    char text[128];
    sim_fault_print(f, text, sizeof text);
    sim_trace(s, "FAULT %s", text);
    switch (f->kind) {
    case SIM_KILL:
    case SIM_FREEZE:
    case SIM_DRAIN:
    case SIM_NAN_RESULT:
    case SIM_NAN_GRADIENT:
    case SIM_CANNOT:
    case SIM_MANGLED:
        hit_worker(s, f);
        break;
    case SIM_CUT:
        cut(s, f);
        break;
    case SIM_CRASH:
    case SIM_POWER:
    case SIM_CRASH_SAVE:
    case SIM_CRASH_COMMIT:
    case SIM_STOP:
    case SIM_STALL:
    case SIM_CLOCK:
        hit_coordinator(s, f);
        break;
    case SIM_PAUSE:
        sim_client_request(s, f->target, COORD_EVENT_JOB_PAUSE);
        break;
    case SIM_RESUME:
        sim_client_request(s, f->target, COORD_EVENT_JOB_RESUME);
        break;
    case SIM_CANCEL:
        sim_client_request(s, f->target, COORD_EVENT_JOB_CANCEL);
        break;
    case SIM_EVALUATE:
        sim_client_request(s, f->target, COORD_EVENT_JOB_EVALUATE);
        break;
    default:
        break; /* a fault that lasts: see sim_fault_on */
    }
}

void sim_fault_print(const sim_fault *f, char *out, size_t size) {
    static const char *const texts[] = {"",
#define X(name, text) text,
                                        SIM_FAULT_TABLE(X)
#undef X
    };
    char target[16] = "all", lasts[32] = "";
    if (f->target != SIM_NOBODY) snprintf(target, sizeof target, "%u", f->target);
    if (f->lasts) snprintf(lasts, sizeof lasts, ", %.3f s", (double)f->lasts * 1e-9);
    snprintf(out, size, "%u: %s (%s, %u%s)", f->number, texts[f->kind], target, f->amount, lasts);
}
