/* Checks the deadlines of training leases from outside. Once a worker's times are known, its
 * deadlines must not depend on its own times alone: the times of other workers for the same work
 * limit them. */
#include "common/base/alloc.h"
#include "sim/sim.h"

#define FACTOR 8 /* a deadline is at most this many times what others need */
#define KNOWN  4 /* a worker's times are known after this many results of one job in a row */

static uint64_t *longest_of(sim *s, uint64_t job) {
    sim_job *j = &s->jobs[job];
    if (!j->longest) j->longest = cop_alloc_array(s->worker_count, sizeof *j->longest);
    COP_ASSERT(j->longest != NULL);
    return j->longest;
}

/* The longest time for a round of this job that may have been measured for any other worker. */
static uint64_t others_need(sim *s, uint64_t job, uint32_t peer) {
    const uint64_t *longest = longest_of(s, job), now = sim_host_now(s);
    uint64_t longest_ns = 0;
    for (uint32_t w = 0; w < s->worker_count; w++)
        if (w != peer && longest[w] > longest_ns) longest_ns = longest[w];
    /* Current leases count with their time so far. */
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        const sim_session *x = &s->host.sessions[i];
        if (x->peer != peer && x->timed_job == job && now - x->timed_ns > longest_ns)
            longest_ns = now - x->timed_ns;
    }
    return longest_ns;
}

void sim_check_deadline(sim *s, sim_session *session, const coord_action *a) {
    const uint64_t now = sim_host_now(s);
    sim_timing_ended(s, session);
    if (a->lease.evaluate) return;
    session->timed_job = a->job;
    session->timed_ns = now;
    if (session->kept_job != a->job || session->kept_count < KNOWN) return;
    const uint64_t floor =
        s->core_config.lease_floor_ns ? s->core_config.lease_floor_ns : 5 * SIM_SECOND;
    const uint64_t longest_ns = FACTOR * a->lease.count * others_need(s, a->job, session->peer);
    /* The floor applies if the others are quick or have not been measured yet. The core keeps times
     * as floats, so the limit is raised by 0.1 %. */
    const uint64_t limit = longest_ns > floor ? longest_ns + longest_ns / 1000 : floor;
    SIM_CHECK(s, "deadline-of-the-pool", a->lease.deadline_ns - now <= limit,
              "worker %u has %.3f s for %u shards, others would have %.3f s", session->peer,
              (double)(a->lease.deadline_ns - now) * 1e-9, a->lease.count, (double)limit * 1e-9);
}

void sim_timing_ended(sim *s, sim_session *session) {
    if (!session->timed_job) return;
    uint64_t *longest = &longest_of(s, session->timed_job)[session->peer];
    const uint64_t time = sim_host_now(s) - session->timed_ns;
    if (time > *longest) *longest = time;
    session->timed_job = 0;
}

void sim_timing_kept(sim_session *session, uint64_t job) {
    if (session->kept_job != job) session->kept_count = 0;
    session->kept_job = job;
    session->kept_count++;
}
