/* Workers that cannot compute a job, for example because they lack memory or a library. Part of the
 * core (core_state.h).
 *
 * A report is taken as a fault of the worker, not of the job: the worker gets no more leases of the
 * job until it joins again, or may try again by one of the rules below. The job fails only if the
 * coordinator cannot compute the block and every suitable worker has failed at it:
 *
 * - While other workers are eligible, they compute the block.
 * - When none is left, the coordinator computes it. If it succeeds, all workers may try the next
 *   blocks.
 * - If the coordinator cannot compute the job, all workers may try again, because memory may be
 *   free again. The job fails when at least FAILURES_MAX reports of the block have come, and the
 *   newest report of every worker is about this block.
 * - If blocks wait and no lease of the job was given for lease_floor_ns (the good workers have left
 *   or hang), all workers may try again, too. */
#include <string.h>

#include "common/base/injected_bugs.h"
#include "common/base/alloc.h"
#include "coordinator/core/core_state.h"

#define FAILURES_MAX 3 /* reports of one block before its job may fail */

/* The index of the worker's report on this job; -1: none. */
static int find(const core_worker *w, uint64_t job) {
    for (int i = 0; w->unable && i < UNABLE_MAX; i++)
        if (w->unable[i].job == job) return i;
    return -1;
}

bool unable_has_reported(const core_worker *w, uint64_t job) {
    int at = find(w, job);
    return at >= 0 && w->unable[at].now;
}

uint64_t unable_newest(const coord_core *core, const core_worker *w) {
    for (int i = 0; w->unable && i < UNABLE_MAX; i++)
        if (w->unable[i].now && jobs_find(core, w->unable[i].job)) return w->unable[i].job;
    return 0;
}

/* Remembers a report, the newest first; the oldest is forgotten if there are too many. True: it is
 * the worker's first report on this job. Without memory nothing is remembered, and the worker may
 * get leases of the job again. */
static bool note(core_worker *w, const core_job *job, const round_block *b) {
    int at = find(w, job->info.job);
    bool first = at < 0;
    if (!w->unable) w->unable = cop_alloc_array(UNABLE_MAX, sizeof *w->unable);
    if (!w->unable) return true;
    if (first) {
        memmove(&w->unable[1], &w->unable[0], (UNABLE_MAX - 1) * sizeof *w->unable);
        at = 0;
    }
    w->unable[at] = (core_unable){
        .job = job->info.job, .step = job->round.step, .first = b->first, .now = true};
    return first;
}

/* Lets all workers try the job again. */
static void forget(coord_core *core, core_job *job) {
    if (!job->unable) return;
    job->unable = false;
    core->pool_version++;
    for (uint32_t i = 0; i < core->worker_count; i++) {
        int at = find(core->workers[i], job->info.job);
        /* The report stays, so that it is not logged again. */
        if (at >= 0) core->workers[i]->unable[at].now = false;
    }
}

/* True: the newest report of every suitable worker is about this block, and the worker has not been
 * allowed to try again since. */
static bool all_failed(const coord_core *core, const core_job *job, const round_block *b) {
    for (uint32_t i = 0; i < core->worker_count; i++) {
        const core_worker *w = core->workers[i];
        if (!scheduler_fits(job, w)) continue;
        int at = find(w, job->info.job);
        if (at < 0 || !w->unable[at].now) return false;
        if (w->unable[at].step != job->round.step || w->unable[at].first != b->first) return false;
    }
    return true;
}

/* Finds another worker or the coordinator for the block, or lets all workers try again, or fails
 * the job. */
static void settle(coord_core *core, core_job *job, int index, const char *why, uint64_t now) {
    const round_block *b = &job->round.blocks[index];
    if (COP_INJECT_BUG(BLAME_JOB, false, b->failures >= FAILURES_MAX)) {
        jobs_end(core, job, COORD_FAILED, why);
        return;
    }
    if (b->state != ROUND_PENDING || scheduler_eligible_workers(core, job)) return;
    if (audit_can_recompute(core, job))
        audit_recompute(core, job, index, now);
    else if (b->failures >= FAILURES_MAX && all_failed(core, job, b))
        jobs_end(core, job, COORD_FAILED, why);
    else
        forget(core, job);
}

void unable_report(coord_core *core, const core_arrival *arrival, const char *why) {
    core_job *job = arrival->job;
    core_worker *w = arrival->worker;
    round_block *b = &job->round.blocks[arrival->block];
    COP_ASSERT(w != NULL);
    b->failures++;
    if (note(w, job, b))
        core_report(core, job->info.job, false,
                    "worker %.40s cannot compute job %llu, and gets no more leases of it until it "
                    "joins again: %.120s",
                    w->name, (unsigned long long)job->info.job, why)
            ->identity = w->identity;
    job->unable = true;
    core->pool_version++;
    settle(core, job, arrival->block, why, arrival->now_ns);
}

void unable_report_self(coord_core *core, core_job *job, int index, const char *why, uint64_t now) {
    const uint64_t id = job->info.job;
    job->round.blocks[index].failures++;
    audit_recompute_failed(core, job, index);
    if (jobs_find(core, id) && steps_has_leases(job)) settle(core, job, index, why, now);
}

void unable_note_computed(coord_core *core, core_job *job) {
    if (!scheduler_eligible_workers(core, job)) forget(core, job);
}

void unable_on_tick(coord_core *core, uint64_t now) {
    for (uint32_t i = 0; i < core->resident_count; i++) {
        core_job *job = core->resident[i];
        bool waits = job->unable && steps_has_leases(job) && job->round.pending > 0;
        if (!waits || job->unable_given != job->counts.given) {
            job->unable_given = job->counts.given;
            job->unable_since_ns = now;
        } else if (now - job->unable_since_ns > core->config.lease_floor_ns) {
            forget(core, job);
        }
    }
}
