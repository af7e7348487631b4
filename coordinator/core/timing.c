/* How long leases take: which computing time is believed, what is usual in the pool, and lease
 * deadlines. Part of the core (core_state.h).
 *
 * There are two rules. First, a worker cannot claim a longer computing time than the coordinator
 * measured from the lease to the result. Second, a worker's deadline never depends on the times of
 * this worker alone: otherwise a worker that always answers just before its deadline could double
 * it each time. So the time until a deadline is at most DEADLINE_FACTOR times the pool's time for
 * the same work (but at least a twentieth of lease_floor_ns). The pool's time is the lower median
 * of the times of its identities. It is near an honest time while at least half of the identities
 * are honest. */
#include <stdlib.h>

#include "common/base/saturate.h"
#include "common/base/injected_bugs.h"
#include "coordinator/core/core_state.h"

/* a lease may take this many times the usual time */
#define DEADLINE_FACTOR 8
/* for a worker whose times are known, the least time to a deadline is lease_floor_ns / this */
#define FLOOR_KNOWN 20
/* the pool's time is computed from the times of at most this many workers */
#define SAMPLES_MAX 256
/* how long the pool's time is valid, in ns */
#define MEASURE_PAUSE_NS 100000000
/* at least one part in this many of the time from lease to result counts as computing */
#define COMPUTING_SHARE 4
/* maximum of timing_serial_percent */
#define SERIAL_PERCENT_MAX 100000
/* weight of the newest measurement */
#define NEWEST 0.1

/* ---- what the pool needs ---- */

typedef struct pool_time {
    uint64_t identity;
    float ns;
} pool_time;

static int by_identity(const void *a, const void *b) {
    const pool_time *x = a, *y = b;
    if (x->identity != y->identity) return x->identity < y->identity ? -1 : 1;
    return x->ns < y->ns ? -1 : x->ns > y->ns;
}

static int by_time(const void *a, const void *b) {
    const pool_time *x = a, *y = b;
    return x->ns < y->ns ? -1 : x->ns > y->ns;
}

/* The lower median of the identities' times for one round, in ns; 0: times of fewer than two
 * identities were measured. */
static double measure_pool(const coord_core *core, const core_job *job) {
    pool_time times[SAMPLES_MAX];
    uint32_t count = 0, identities = 0;
    bool several = false;
    const uint32_t stride = core->worker_count / SAMPLES_MAX + 1;
    for (uint32_t i = 0; i < core->worker_count && count < SAMPLES_MAX; i += stride) {
        const core_worker *w = core->workers[i];
        const coord_lease_times *s = lease_times_find(w->lease_times, core_lease_times_key(job));
        if (!s || !s->count || !scheduler_eligible(job, w)) continue;
        times[count++] = (pool_time){w->identity, s->median};
        several = several || w->identity != times[0].identity;
    }
    if (!several) return 0;
    qsort(times, count, sizeof *times, by_identity);
    for (uint32_t i = 0; i < count; i++) /* an identity counts once, by its quickest worker */
        if (i == 0 || times[i].identity != times[i - 1].identity) times[identities++] = times[i];
    qsort(times, identities, sizeof *times, by_time);
    return (double)times[(identities - 1) / 2].ns;
}

/* The pool's time for one round of this work; 0: unknown. */
static double pool_round_ns(const coord_core *core, core_job *job, uint64_t now) {
    core_pool_time *p = &job->pool_time[job->round.evaluate];
    if (p->round_ns <= 0 || now >= p->next_ns || p->pool != core->pool_version) {
        p->round_ns = measure_pool(core, job);
        p->pool = core->pool_version;
        p->next_ns = now + MEASURE_PAUSE_NS;
    }
    return p->round_ns;
}

/* ---- expectations ---- */

uint32_t timing_serial_percent(const coord_core *core, const core_job *job) {
    if (job->shard_ns <= 0) return 0;
    const double percent = 100.0 * (double)core->config.lease_serial_ns / job->shard_ns;
    return percent < SERIAL_PERCENT_MAX ? (uint32_t)percent : SERIAL_PERCENT_MAX;
}

double timing_usual_ns(const core_job *job, const round_block *b) {
    return job->round.evaluate ? job->slice_ns : job->shard_ns * b->count;
}

double timing_expected_ns(const core_job *job, const core_worker *w, const round_block *b) {
    const coord_lease_times *s = lease_times_find(w->lease_times, core_lease_times_key(job));
    if (!lease_times_known(s)) return 0;
    return (double)s->median * core_rounds(&job->round, b, w->threads);
}

uint64_t timing_deadline_ns(const coord_core *core, core_job *job, const core_worker *w,
                            const round_block *b, uint64_t now) {
    const coord_lease_times *s = lease_times_find(w->lease_times, core_lease_times_key(job));
    const uint32_t rounds = core_rounds(&job->round, b, w->threads);
    const double floor = (double)core->config.lease_floor_ns;
    const double pool = DEADLINE_FACTOR * rounds * pool_round_ns(core, job, now);
    double least = floor, patience;
    if (lease_times_known(s)) {
        /* If there is no other identity to compare the worker with, the limit is lease_floor_ns. */
        const double cap = COP_INJECT_BUG(OWN_DEADLINE, pool > 0 ? pool : floor, 1e18);
        patience = lease_times_patience_ns(s, rounds);
        if (patience > cap) patience = cap;
        least /= FLOOR_KNOWN;
    } else {
        patience = pool > 0 ? pool : timing_usual_ns(job, b) * DEADLINE_FACTOR;
    }
    return COP_INJECT_BUG(NO_DEADLINE, now + cop_saturate(patience > least ? patience : least),
                          UINT64_MAX);
}

/* ---- what is learned of a result ---- */

/* The computing time that is believed: the worker's claim, but at most the measured time from the
 * lease to its result, and at least a quarter of it. Without the lower bound, a worker that claims
 * to need no time would get its job a larger share of the pool. */
static uint64_t believed_ns(const round_holder *h, uint64_t claimed_ns, uint64_t now) {
    const uint64_t measured = now - h->begun_ns, least = measured / COMPUTING_SHARE;
    if (COP_INJECT_BUG(BELIEVE_CLAIM, claimed_ns > measured, false)) return measured;
    return claimed_ns < least ? least : claimed_ns;
}

static double smooth(double old, double now) {
    return old > 0 ? (1 - NEWEST) * old + NEWEST * now : now;
}

static void note_time(core_job *job, core_worker *w, const round_block *b, const round_holder *h,
                      uint64_t now) {
    const double rounds = core_rounds(&job->round, b, w->threads);
    const bool moved = lease_times_note(w->lease_times, core_lease_times_key(job),
                                        (double)(now - h->begun_ns) / rounds);
    if (!job->round.evaluate) job->times_changed = job->times_changed || moved;
}

/* For each other holder of the block that is overdue, adds the time since its lease as a
 * measurement: the holder needs at least this long. Its own result will come too late to be
 * measured. Without this, its times would stay as short as before, and each step would wait for it
 * again. */
static void learn_overdue(coord_core *core, core_job *job, const round_block *b, int but,
                          uint64_t now) {
    for (int h = 0; h < ROUND_HOLDERS; h++) {
        const round_holder *other = &b->holder[h];
        if (h == but || !other->worker || now < other->deadline_ns) continue;
        core_worker *w = registry_find(core, other->worker);
        if (w) note_time(job, w, b, other, now);
    }
}

void timing_learn(coord_core *core, const core_arrival *arrival) {
    core_job *job = arrival->job;
    core_worker *w = arrival->worker;
    const round_block *b = &job->round.blocks[arrival->block];
    const round_holder *h = &b->holder[arrival->holder];
    COP_ASSERT(h->worker && h->worker == arrival->event->worker);
    const uint64_t now = arrival->now_ns;
    const uint64_t computed = believed_ns(h, arrival->event->result.compute_ns, now);
    const uint64_t spent = computed * (w ? w->threads : 1);
    job->share = job->share > h->charged_ns ? job->share - h->charged_ns + spent : spent;
    if (w) note_time(job, w, b, h, now);
    learn_overdue(core, job, b, arrival->holder, now);
    if (job->round.evaluate) {
        job->slice_ns = smooth(job->slice_ns, (double)computed);
        return;
    }
    const double per_shard = (double)computed / (double)b->count;
    job->shard_ns = smooth(job->shard_ns, per_shard);
    if (!w) return;
    w->ns_per_shard = smooth(w->ns_per_shard, per_shard);
    w->shards += b->count;
}
