/* What follows from wrong results: strikes, quarantine, returns to a checkpoint. audit.c finds the
 * wrong results and explains the rules. */
#include <stdio.h>
#include <string.h>

#include "common/base/injected_bugs.h"
#include "coordinator/core/core_state.h"

/* after this many confirmed audits of an identity, `since` in its core_contributor becomes `mark`
 */
#define AUDITS_TRUSTED 50

/* ---- what a worker has done for a job ---- */

/* The job's entry for the identity. If it has none, `add` makes one. NULL: there is none, or no
 * room for one. */
static core_contributor *contributor(core_job *job, uint64_t identity, bool add) {
    if (!job->contributors) return NULL;
    for (uint32_t i = 0; i < CONTRIBUTORS_MAX; i++) {
        core_contributor *c = &job->contributors[(identity + i) % CONTRIBUTORS_MAX];
        if (c->identity == identity) return c;
        if (c->identity) continue;
        if (add) c->identity = identity;
        return add ? c : NULL;
    }
    return NULL; /* the table is full */
}

static void lower_to(uint64_t *since, uint64_t step) {
    if (!*since || step < *since) *since = step;
}

static void note_unconfirmed(core_job *job, uint64_t identity) {
    core_contributor *c = identity == COORD_SELF ? NULL : contributor(job, identity, true);
    if (c)
        lower_to(&c->since, job->round.step);
    else if (identity != COORD_SELF)
        lower_to(&job->unlisted_since, job->round.step);
}

void audit_note_confirmed(core_job *job, uint64_t identity) {
    core_contributor *c = identity == COORD_SELF ? NULL : contributor(job, identity, false);
    if (!c || ++c->confirmed < AUDITS_TRUSTED) return;
    if (c->mark && c->since && c->since < c->mark) c->since = c->mark;
    c->mark = job->round.step;
    c->confirmed = 0;
}

void audit_note_member(core_job *job, const round_block *b) {
    core_contributor *c = contributor(job, b->identity, true);
    lower_to(c ? &c->since : &job->unlisted_since, 1);
}

void audit_note_step(core_job *job) {
    for (uint32_t i = 0; i < job->round.count; i++) {
        const round_block *b = &job->round.blocks[i];
        if (!b->absent && !b->confirmed) note_unconfirmed(job, b->identity);
    }
}

/* The first step that may contain a wrong result of this identity; 0: none. */
static uint64_t tainted_since(core_job *job, uint64_t identity) {
    const core_contributor *c = contributor(job, identity, false);
    return c ? c->since : job->unlisted_since;
}

void audit_forget_after(core_job *job, uint64_t step) {
    if (job->unlisted_since > step) job->unlisted_since = 0;
    for (uint32_t i = 0; job->contributors && i < CONTRIBUTORS_MAX; i++) {
        core_contributor *c = &job->contributors[i];
        if (c->since > step) c->since = 0;
        if (c->mark > step) c->mark = c->confirmed = 0;
    }
}

/* ---- punishment ---- */

const core_quarantine *audit_quarantine_of(const coord_core *core, uint64_t identity) {
    for (uint32_t i = 0; i < QUARANTINES_MAX; i++)
        if (core->quarantine[i].identity == identity) return &core->quarantine[i];
    return NULL;
}

/* Drops the identity's unconfirmed results of the job's current round, except results of an
 * ensemble that were passed to the host already. */
static void void_results(coord_core *core, core_job *job, uint64_t identity) {
    if (!steps_has_leases(job)) return;
    for (uint32_t i = job->round.handed; i < job->round.count; i++)
        core_add_drop(core, job->info.job, round_void_votes(&job->round, (int)i, identity));
}

static void quarantine(coord_core *core, uint64_t identity, const char *name,
                       const char *evidence) {
    COP_ASSERT(identity && identity != COORD_SELF);
    if (audit_quarantine_of(core, identity)) return;
    core_quarantine *q = &core->quarantine[core->quarantined++ % QUARANTINES_MAX];
    q->identity = identity;
    snprintf(q->name, sizeof q->name, "%s", name);
    snprintf(q->evidence, sizeof q->evidence, "%s", evidence);
    for (uint32_t i = 0; i < core->worker_count; i++)
        if (core->workers[i]->identity == identity) registry_quarantine(core, core->workers[i]);
    for (uint32_t i = 0; i < core->resident_count; i++)
        void_results(core, core->resident[i], identity);
    for (uint32_t i = 0; i < core->job_count; i++) {
        core_job *job = core->jobs[i];
        uint64_t since = tainted_since(job, identity);
        bool updating = job->phase == PHASE_UPDATING;
        for (uint32_t b = 0; updating && b < job->round.count; b++) {
            const round_block *block = &job->round.blocks[b];
            if (block->identity == identity && !block->confirmed) lower_to(&since, job->round.step);
        }
        if (since && jobs_is_evaluation(job))
            job->spoiled = true;
        else if (COP_INJECT_BUG(NO_UNDO, since, 0))
            jobs_roll_back(core, job, since - 1);
    }
}

bool audit_suspect_weights(coord_core *core, core_job *job, const round_block *b) {
    const uint64_t step = job->round.step;
    const bool partly_audited = job->info.audit > 0 && job->info.audit < 1;
    if (!partly_audited || jobs_is_evaluation(job) || job->step == 0) return false;
    if (step <= job->audit_until)
        return false; /* all steps up to here were audited, and the value is still not finite */
    char block[96];
    job->audit_until = step;
    core_report(
        core, job->info.job, false,
        "%s: a value is not finite; the steps since a checkpoint are repeated with all blocks "
        "audited, because a wrong result may be the cause",
        audit_describe_block(job, b, block));
    /* The current weights may be wrong, and so may a checkpoint of them: return to an older one. */
    jobs_roll_back(core, job, job->step - 1);
    return true;
}

const char *audit_describe_block(const core_job *job, const round_block *b, char out[96]) {
    const coord_round *r = &job->round;
    const uint32_t samples = r->members ? round_slice_first(r, b) : b->first;
    if (r->members)
        snprintf(out, 96, "members %u to %u, samples %u to %u", round_member_first(r, b),
                 round_member_first(r, b) + round_member_count(r, b) - 1, samples,
                 samples + b->samples - 1);
    else
        snprintf(out, 96, "step %llu, %s %u to %u", (unsigned long long)r->step,
                 r->evaluate ? "samples" : "shards", b->first, b->first + b->count - 1);
    return out;
}

/* Writes what the vote claims into `out`, as evidence in a log line. */
static void describe(const round_vote *v, char out[96]) {
    if (v->digest)
        snprintf(out, 96, "digest %016llx, loss %.9g, %llu correct", (unsigned long long)v->digest,
                 v->loss, (unsigned long long)v->correct);
    else
        snprintf(out, 96, "loss %.17g, %llu correct", v->loss, (unsigned long long)v->correct);
}

uint32_t audit_strikes_of(const coord_core *core, uint64_t identity) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < JOB_STRIKES_MAX; i++) {
        const core_strikes *s = &core->job_strikes[i];
        if (s->identity == identity && jobs_find(core, s->job)) sum += s->count;
    }
    return sum;
}

/* The entry for an identity's strikes in a job. If it has none, a free entry or the oldest one is
 * taken for it. */
static core_strikes *strikes_in_job(coord_core *core, uint64_t identity, uint64_t job) {
    core_strikes *place = NULL;
    for (uint32_t i = 0; i < JOB_STRIKES_MAX; i++) {
        core_strikes *s = &core->job_strikes[i];
        if (s->identity == identity && s->job == job) return s;
        if (!place && (!s->identity || !jobs_find(core, s->job))) place = s;
    }
    if (!place) place = &core->job_strikes[core->next_job_strikes++ % JOB_STRIKES_MAX];
    *place = (core_strikes){.identity = identity, .job = job};
    return place;
}

/* Adds a strike to the worker and to its identity, which keeps it when the worker leaves and joins
 * again. True: the worker has enough strikes for quarantine. */
static bool add_strike(coord_core *core, uint64_t job, core_worker *w) {
    const uint32_t limit = core->config.strikes_max;
    w->strikes++;
    strikes_in_job(core, w->identity, job)->count++;
    return limit && (w->strikes >= limit || audit_strikes_of(core, w->identity) >= limit);
}

void audit_strike(coord_core *core, uint64_t job, core_worker *w, const char *why) {
    bool enough = add_strike(core, job, w);
    core_report(core, job, false, "worker %.40s sent a wrong result%s: %s", w->name,
                enough ? " again and is quarantined" : "", why)
        ->identity = w->identity;
    if (enough) quarantine(core, w->identity, w->name, why);
}

void audit_punish(coord_core *core, const core_job *job, const round_block *b,
                  const round_vote *wrong, const round_vote *right) {
    COP_ASSERT(wrong->worker != COORD_SELF);
    char text[400], block[96], theirs[96], ours[96];
    core_worker *w = registry_find(core, wrong->worker);
    const char *name = w ? w->name : "(gone)";
    describe(wrong, theirs);
    describe(right, ours);
    snprintf(text, sizeof text, "job %llu, %s: %s; %s computed %s",
             (unsigned long long)job->info.job, audit_describe_block(job, b, block), theirs,
             right->worker == COORD_SELF ? "the coordinator" : "another", ours);
    bool strike = !wrong->finite && right->finite;
    bool enough = strike && w && add_strike(core, job->info.job, w);
    core_report(core, job->info.job, false, "worker %.40s %s: %s", name,
                !strike || enough ? "computed wrong results and is quarantined"
                                  : "computed values that are not finite",
                text)
        ->identity = wrong->identity;
    if (!strike || enough) quarantine(core, wrong->identity, name, text);
}
