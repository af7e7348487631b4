/* The trace of a run: a hash, which two runs of a seed have in common, and text if requested. */
#include "sim/sim.h"

#include <stdarg.h>

void sim_note_hash(sim *s, uint64_t value) {
    s->hash = sim_mix(s->hash, value);
}

void sim_trace(sim *s, const char *format, ...) {
    if (!s->options.trace) return;
    va_list arguments;
    printf("%12.6f  ", (double)(s->now - 1000 * SIM_SECOND) * 1e-9);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static const char *message_name(const sim_message *m) {
    static const char *const names[] = {
        "?",       "HELLO", "HELLO (control)", "HEARTBEAT",       "PULL",   "SUBMIT", "CONTROL",
        "WELCOME", "LEASE", "NOTHING",         "HEARTBEAT REPLY", "ANSWER", "FAILURE"};
    return m ? names[m->type] : "";
}

static const char *event_name(sim_kind kind) {
    static const char *const names[] = {"nothing",
                                        "tick",
                                        "event",
                                        "request arrives",
                                        "connection is gone",
                                        "loaded",
                                        "updated",
                                        "digested",
                                        "judged",
                                        "saved",
                                        "task is done",
                                        "store",
                                        "save",
                                        "dies",
                                        "restart",
                                        "connects",
                                        "answer arrives",
                                        "connection is lost",
                                        "timeout",
                                        "computed",
                                        "waited",
                                        "beat",
                                        "boot",
                                        "client",
                                        "fault",
                                        "ensemble"};
    return names[kind];
}

void sim_trace_event(sim *s, const sim_event *e) {
    sim_note_hash(s, sim_mix(s->now, ((uint64_t)e->kind << 32) + e->peer));
    sim_note_hash(s, e->value + e->call);
    if (!s->options.trace || e->kind == SIM_TICK || e->kind == SIM_FAULT) return;
    if (e->kind == SIM_TIMEOUT && !sim_party_of(s, e->peer)->link[e->link].calling) return;
    const sim_message *m = e->message;
    bool of_worker = e->kind >= SIM_SEND && e->kind <= SIM_BOOT;
    uint32_t peer = m ? m->peer : e->peer;
    char result[96] = "";
    if (m && m->has_result)
        snprintf(result, sizeof result, " with step %llu, %u to %u (lease %llu)",
                 (unsigned long long)m->result.step, m->result.first,
                 m->result.first + m->result.count - 1, (unsigned long long)m->result.lease);
    if (m || of_worker)
        sim_trace(s, "%s %u: %s %s%s", peer < s->worker_count ? "worker" : "client",
                  peer < s->worker_count ? peer : peer - s->worker_count, event_name(e->kind),
                  message_name(m), result);
    else
        sim_trace(s, "coordinator: %s", event_name(e->kind));
}

static uint64_t slot_of(const coord_action *a) {
    const bool has_slot = a->type == COORD_ACTION_KEEP || a->type == COORD_ACTION_DROP ||
                          a->type == COORD_ACTION_ABSORB || a->type == COORD_ACTION_DIVERGED;
    return has_slot ? a->slot : 0;
}

static uint64_t lease_of(const coord_action *a) {
    const bool has_lease = a->type == COORD_ACTION_LEASE || a->type == COORD_ACTION_COMPUTE ||
                           a->type == COORD_ACTION_ABSORB || a->type == COORD_ACTION_DIVERGED;
    return has_lease ? a->lease.lease + a->lease.first : 0;
}

void sim_trace_action(sim *s, const coord_action *a) {
    static const char *const names[] = {
        "?",       "LEASE",  "NOTHING",    "KEEP",    "DROP",     "LOAD",      "ROLLBACK",
        "COMPUTE", "UNLOAD", "UPDATE",     "METRICS", "EPOCH",    "EVALUATED", "CHECKPOINT",
        "ABSORB",  "STATE",  "DISCONNECT", "EVENT",   "DIVERGED", "STOPPED"};
    static const char *const states[] = {"?",         "QUEUED", "RUNNING", "PAUSED",
                                         "COMPLETED", "FAILED", "CANCELED"};
    sim_note_hash(s, sim_mix(((uint64_t)a->type << 40) + a->job, a->step));
    sim_note_hash(s, sim_mix(a->worker + slot_of(a), lease_of(a)));
    if (!s->options.trace) return;
    char more[320] = "";
    if (a->type == COORD_ACTION_LEASE)
        snprintf(more, sizeof more, " %llu to worker %llu: %s %u to %u, attempt %u",
                 (unsigned long long)a->lease.lease, (unsigned long long)a->worker,
                 a->lease.evaluate ? "samples" : "shards", a->lease.first,
                 a->lease.first + a->lease.count - 1, a->lease.attempt);
    else if (a->type == COORD_ACTION_STATE)
        snprintf(more, sizeof more, " %s %s", states[a->state], a->text);
    else if (a->type == COORD_ACTION_EVENT)
        snprintf(more, sizeof more, " %s", a->text);
    else if (slot_of(a))
        snprintf(more, sizeof more, " slot %llu", (unsigned long long)a->slot);
    sim_trace(s, "    %s job %llu step %llu%s", names[a->type], (unsigned long long)a->job,
              (unsigned long long)a->step, more);
}
