/* Which results are believed. Part of the core (core_state.h); core.h has the contract.
 *
 * A result is a vote on its block. One vote decides, unless the block is audited, a value is not
 * finite, or votes differ. In these cases two equal votes of different identities decide, or the
 * coordinator's own vote. Workers that agree on a value that is not finite may all be broken. So
 * the job fails for such a value only if the coordinator's own result has it, too. If the
 * coordinator cannot compute the job, two workers that agree are believed. Arithmetic gives equal
 * bits everywhere (D4), so a vote against the decision proves that its worker is wrong. If only its
 * value is not finite, the worker gets a strike; else it is quarantined.
 *
 * When a liar is found, its unconfirmed results are dropped from the current rounds. For results
 * that were averaged already, each job remembers the first unconfirmed step of each identity, and
 * returns to a checkpoint from before that step. (It is not enough to compute the liar's shards
 * again: the weights of all later steps depend on the wrong results.) Confirmed audits move the
 * first unconfirmed step forward: a result is trusted once AUDITS_TRUSTED (wrong.c) to twice as
 * many later audits of the same identity were confirmed. Without this, a worker that was honest for
 * a week and then broke would cost the work of that week. */
#include <stdio.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/injected_bugs.h"
#include "coordinator/core/core_state.h"

/* When two results differ and the liar is unknown, this many blocks of both workers are audited. */
#define WATCHED_BLOCKS 20
#define RECOMPUTE_NS                                                                               \
    60000000000u /* time until the deadline of a COMPUTE, after which the block may also be leased \
                    to a worker */

bool audit_can_recompute(const coord_core *core, const core_job *job) {
    if (!core->config.can_recompute || job->cannot_recompute) return false;
    return !job->fingerprint || job->fingerprint == core->config.fingerprint;
}

/* ---- selection ---- */

/* Uniform in [0, 1), and unpredictable. */
static double draw(coord_core *core) {
    uint64_t words[3] = {core->config.secret[0], core->config.secret[1], ++core->draws};
    return (double)(cop_hash_xxh3(words, sizeof words) >> 11) * 0x1p-53;
}

void audit_init_worker(coord_core *core, core_worker *w) {
    w->audit_credit = draw(core);
    w->audit_point = draw(core);
}

/* Selects one block in each window of 1 / audit blocks of a worker, at a random position in the
 * window. On average this audits as many blocks as independent draws would, but two audits of a
 * worker are never more than two windows apart. */
bool audit_selects(coord_core *core, const core_job *job, core_worker *w) {
    double before = w->audit_credit, after = before + job->info.audit;
    if (w->watched && audit_can_recompute(core, job)) {
        w->watched--;
        return true;
    }
    if (job->info.audit >= 1) return true;
    if (job->audit_until && job->round.step <= job->audit_until) return true;
    bool hit = before <= w->audit_point && w->audit_point < after;
    if (after >= 1) {
        after -= 1;
        w->audit_point = draw(core);
        hit = hit || w->audit_point < after;
    }
    w->audit_credit = after;
    return hit;
}

/* ---- comparing ---- */

static bool same_real(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); /* NaNs count as one value */
}

static bool same_vote(const round_vote *a, const round_vote *b) {
    if (a->digest != b->digest || a->correct != b->correct) return false;
    if (!a->digest && a->finite != b->finite) return false;
    /* If there are digests, `finite` is not compared. It may differ between two equal gradients:
     * one may be known to be not finite only because an update has failed. */
    return same_real(a->loss, b->loss);
}

static round_vote vote_of(const coord_event *e, const core_worker *w) {
    const coord_result_info *r = &e->result;
    return (round_vote){.worker = e->worker,
                        .identity = w                         ? w->identity
                                    : e->worker == COORD_SELF ? COORD_SELF
                                                              : 0,
                        .lease = r->lease,
                        .slot = r->slot,
                        .digest = r->evaluate && !r->ensemble ? 0 : r->digest,
                        .correct = r->correct,
                        .loss = r->loss,
                        .finite = r->finite};
}

/* ---- the coordinator's own results ---- */

void audit_recompute_later(coord_core *core, core_job *job, int index, uint64_t now) {
    job->recompute_again_ns = now + core->config.lease_floor_ns;
    job->round.blocks[index].awaits_recompute = true;
}

void audit_recompute(coord_core *core, core_job *job, int index, uint64_t now) {
    COP_ASSERT(index >= 0 && (uint32_t)index < job->round.count && audit_can_recompute(core, job));
    round_block *b = &job->round.blocks[index];
    bool room = false;
    b->awaits_recompute = now < job->recompute_again_ns;
    if (b->awaits_recompute) return;
    for (int h = 0; h < ROUND_HOLDERS; h++) {
        if (b->holder[h].worker == COORD_SELF) return; /* already computing the block */
        room = room || !b->holder[h].worker;
    }
    if (!room) return;
    round_holder holder = {.worker = COORD_SELF,
                           .identity = COORD_SELF,
                           .lease = ++core->next_lease,
                           .deadline_ns = now + RECOMPUTE_NS,
                           .begun_ns = now};
    round_lease_block(&job->round, index, &holder);
    scheduler_fill_lease(core, COORD_ACTION_COMPUTE, job, b, &holder);
}

/* True: no worker of another identity is eligible, so nobody could check this identity. */
static bool is_only_identity(const coord_core *core, const core_job *job, uint64_t identity) {
    for (uint32_t i = 0; i < core->worker_count; i++)
        if (core->workers[i]->identity != identity && scheduler_eligible(job, core->workers[i]))
            return false;
    return true;
}

bool audit_lacks_second_worker(const coord_core *core, const core_job *job) {
    const coord_round *r = &job->round;
    if (!r->audited || r->audited != r->pending || audit_can_recompute(core, job)) return false;
    for (uint32_t k = 0; k < r->count; k++) {
        const round_block *b = &r->blocks[k];
        if (b->state != ROUND_PENDING) continue;
        if (!b->votes || !is_only_identity(core, job, b->vote[0].identity)) return false;
    }
    return true;
}

/* Tries again to compute blocks for which the coordinator lacked memory or slots. */
static void recompute_waiting(coord_core *core, core_job *job, uint64_t now) {
    if (!job->recompute_again_ns || now < job->recompute_again_ns) return;
    job->recompute_again_ns = 0;
    for (uint32_t k = 0; k < job->round.count; k++)
        if (job->round.blocks[k].awaits_recompute && job->round.blocks[k].state != ROUND_DONE)
            audit_recompute(core, job, (int)k, now);
}

void audit_on_tick(coord_core *core, uint64_t now) {
    for (uint32_t i = 0; i < core->resident_count; i++) {
        core_job *job = core->resident[i];
        if (!steps_has_leases(job) || !audit_can_recompute(core, job)) continue;
        recompute_waiting(core, job, now);
        for (uint32_t k = 0; job->round.audited && k < job->round.count; k++) {
            const round_block *b = &job->round.blocks[k];
            bool waits = b->audited && b->state == ROUND_PENDING && b->votes;
            if (waits && (now - b->voted_ns > core->config.lease_floor_ns ||
                          is_only_identity(core, job, b->vote[0].identity)))
                audit_recompute(core, job, (int)k, now);
        }
    }
}

/* ---- votes ---- */

/* The index of the vote that decides the block after its newest vote; -1: undecided. *confirmed is
 * set to whether an equal vote or the coordinator's own confirms it. */
static int decide(const coord_core *core, const core_job *job, const round_block *b,
                  bool *confirmed) {
    COP_ASSERT(b->votes >= 1 && b->votes <= ROUND_VOTES);
    uint32_t last = b->votes - 1;
    const round_vote *v = &b->vote[last];
    *confirmed = true;
    for (uint32_t i = 0; i < last; i++) {
        /* the same identity: not a confirmation */
        bool itself = b->audited && b->vote[i].identity == v->identity;
        if (!itself && COP_INJECT_BUG(LIAR_BELIEVED, same_vote(&b->vote[i], v), true))
            return (int)i;
    }
    if (v->worker == COORD_SELF) return (int)last;
    *confirmed = false;
    if (b->needs == 1 && v->finite) return (int)last;
    if (b->audited || last != 1 || audit_can_recompute(core, job) || v->finite == b->vote[0].finite)
        return -1;
    return v->finite ? 1 : 0; /* nobody else can decide: the finite value is believed */
}

static void remember_late_copies(coord_core *core, const core_job *job, const round_block *b,
                                 const round_vote *v) {
    for (int h = 0; h < ROUND_HOLDERS; h++) {
        const round_holder *holder = &b->holder[h];
        if (!holder->worker || holder->worker == COORD_SELF) continue;
        core->late_copies[core->next_late_copy++ % LATE_COPIES_MAX] =
            (core_late_copy){.lease = holder->lease,
                             .job = job->info.job,
                             .step = job->round.step,
                             .other_lease = v->lease,
                             .digest = v->digest,
                             .correct = v->correct,
                             .worker = holder->worker,
                             .other_worker = v->worker,
                             .loss = v->loss,
                             .first = b->first,
                             .count = b->count,
                             .evaluate = job->round.evaluate};
    }
}

/* Makes the vote the block's result and drops the slots of the others. */
static void finish(coord_core *core, core_job *job, int index, int vote, bool confirmed) {
    round_block *b = &job->round.blocks[index];
    const round_vote v = b->vote[vote];
    for (uint32_t i = 0; i < b->votes; i++) {
        if ((int)i != vote) core_add_drop(core, job->info.job, b->vote[i].slot);
        if (confirmed && same_vote(&b->vote[i], &v)) audit_note_confirmed(job, b->vote[i].identity);
    }
    job->counts.audited += b->audited;
    if (!job->round.members && (v.digest || job->round.evaluate))
        remember_late_copies(core, job, b, &v);
    round_finish(&job->round, index, vote, confirmed);
}

#define NO_DECISION                                                                                \
    "three workers computed the same shards with three different results, and the coordinator "    \
    "cannot decide between them"

/* Called when the votes have not decided. Asks for one more. */
static void need_more_votes(coord_core *core, core_job *job, int index, uint64_t now) {
    round_block *b = &job->round.blocks[index];
    if (b->votes >= ROUND_WORKER_VOTES && !audit_can_recompute(core, job)) {
        jobs_end(core, job, COORD_FAILED, NO_DECISION);
        return;
    }
    char block[96];
    bool dispute = b->votes > 1, doubt = !b->vote[b->votes - 1].finite;
    job->counts.disputed += dispute;
    if (dispute || doubt)
        core_report(core, job->info.job, false, "%s: %s; computed again",
                    audit_describe_block(job, b, block),
                    dispute ? "two results differ" : "a value is not finite");
    round_await_votes(&job->round, index, b->votes + 1 > b->needs ? b->votes + 1 : b->needs);
    bool nobody = b->state == ROUND_PENDING && is_only_identity(core, job, b->vote[0].identity);
    if ((dispute || nobody) && audit_can_recompute(core, job))
        audit_recompute(core, job, index, now);
}

/* Called when the vote with index `vote` is known to be right. Finishes the block with it, and
 * punishes the votes that differ. */
static void conclude(coord_core *core, core_job *job, int index, int vote, bool confirmed) {
    round_block *b = &job->round.blocks[index];
    round_vote right = b->vote[vote], wrong[ROUND_VOTES];
    uint32_t wrongs = 0;
    for (uint32_t i = 0; i < b->votes; i++)
        if (!same_vote(&b->vote[i], &right)) wrong[wrongs++] = b->vote[i];
    finish(core, job, index, vote, confirmed);
    for (uint32_t i = 0; i < wrongs; i++)
        if (wrong[i].worker != COORD_SELF) audit_punish(core, job, b, &wrong[i], &right);
}

/* Called when workers agree that a value is not finite. They may all be broken, so the coordinator
 * computes the block, and its result decides. `slot` is that of the newest result. */
static void ask_coordinator(coord_core *core, core_job *job, int index, uint64_t slot,
                            uint64_t now) {
    round_block *b = &job->round.blocks[index];
    char block[96];
    b->vote[b->votes - 1].slot = 0;
    core_add_drop(core, job->info.job, slot);
    core_report(
        core, job->info.job, false,
        "%s: more than one worker computed a non-finite value; the coordinator computes the block",
        audit_describe_block(job, b, block));
    round_await_votes(&job->round, index, b->votes + 1 > b->needs ? b->votes + 1 : b->needs);
    audit_recompute(core, job, index, now);
}

static bool has_own_vote(const round_block *b) {
    for (uint32_t i = 0; i < b->votes; i++)
        if (b->vote[i].worker == COORD_SELF) return true;
    return false;
}

/* Called when the deciding votes agree that a value is not finite. The job has diverged, unless a
 * wrong result has spoiled its weights. `slot` is that of the newest result. */
static void all_not_finite(coord_core *core, core_job *job, int index, uint64_t slot) {
    round_block *b = &job->round.blocks[index];
    round_vote right = b->vote[b->votes - 1], wrong[ROUND_VOTES];
    uint32_t wrongs = 0;
    for (uint32_t i = 0; i < b->votes; i++)
        if (!same_vote(&b->vote[i], &right)) wrong[wrongs++] = b->vote[i];
    b->vote[b->votes - 1].slot = 0; /* DIVERGED or DROP answers it below */
    round_await_votes(&job->round, index, b->votes + 1);
    for (uint32_t i = 0; i < wrongs; i++)
        if (wrong[i].worker != COORD_SELF) audit_punish(core, job, b, &wrong[i], &right);
    if (steps_has_leases(job))
        steps_diverged(core, job, b, slot);
    else
        core_add_drop(core, job->info.job, slot);
}

/* True: all votes that equal `v` are finite. Equal votes can differ in `finite`: see same_vote. */
static bool all_equal_are_finite(const round_block *b, const round_vote *v) {
    for (uint32_t i = 0; i < b->votes; i++)
        if (same_vote(&b->vote[i], v) && !b->vote[i].finite) return false;
    return true;
}

void audit_recompute_failed(coord_core *core, core_job *job, int index) {
    round_block *b = &job->round.blocks[index];
    job->cannot_recompute = true;
    for (uint32_t i = 1; i < b->votes; i++)
        for (uint32_t k = 0; k < i; k++) {
            bool finite = b->vote[i].finite && b->vote[k].finite;
            if (finite || !same_vote(&b->vote[i], &b->vote[k])) continue;
            steps_diverged(core, job, b, 0); /* the votes waited only for the coordinator */
            return;
        }
    if (b->votes >= ROUND_WORKER_VOTES) jobs_end(core, job, COORD_FAILED, NO_DECISION);
}

void audit_take_result(coord_core *core, const core_arrival *arrival) {
    core_job *job = arrival->job;
    const coord_event *e = arrival->event;
    const int index = arrival->block;
    const uint64_t now = arrival->now_ns;
    round_block *b = &job->round.blocks[index];
    if (b->votes >= ROUND_WORKER_VOTES && e->worker != COORD_SELF) {
        /* There is no room for a further vote, and only the coordinator's own can decide now. */
        round_retry(&job->round, index, arrival->holder, now);
        core_add_drop(core, job->info.job, e->result.slot);
        return;
    }
    round_vote v = vote_of(e, arrival->worker);
    uint64_t slot = v.slot;
    bool tensor = !job->round.evaluate || job->round.members; /* an evaluation has only figures */
    bool keep = v.finite && tensor, confirmed = false;
    if (!keep) v.slot = 0;
    round_vote_add(&job->round, index, arrival->holder, &v, now);
    int vote = decide(core, job, b, &confirmed);
    if (vote >= 0 && same_vote(&v, &b->vote[vote]) && !all_equal_are_finite(b, &v)) {
        if (COP_INJECT_BUG(NAN_BELIEVED, audit_can_recompute(core, job) && !has_own_vote(b), false))
            ask_coordinator(core, job, index, slot, now);
        else
            all_not_finite(core, job, index, slot);
        return;
    }
    if (keep)
        core_add_action(core, COORD_ACTION_KEEP, job->info.job)->slot = slot;
    else
        core_add_drop(core, job->info.job, slot);
    if (vote < 0) {
        need_more_votes(core, job, index, now);
        return;
    }
    conclude(core, job, index, vote, confirmed);
    steps_block_done(core, job, now);
}

/* ---- results of copies that come after the block is done ---- */

static core_late_copy *late_copy_of(const coord_core *core, uint64_t worker,
                                    const coord_result_info *r) {
    for (uint32_t i = 0; r->lease && i < LATE_COPIES_MAX; i++) {
        const core_late_copy *d = &core->late_copies[i];
        bool fits = d->lease == r->lease && d->worker == worker && d->job == r->job &&
                    d->evaluate == r->evaluate && !r->ensemble;
        if (fits && d->first == r->first && d->count == r->count && d->step == r->step)
            return (core_late_copy *)(uintptr_t)d;
    }
    return NULL;
}

/* Called when a late result differs from the one that was used, so one of the two workers was
 * wrong. Nobody can tell which, because the block cannot be computed again. So the next blocks of
 * both are audited. */
static void watch_both(coord_core *core, const core_late_copy *d) {
    const uint64_t ids[2] = {d->worker, d->other_worker};
    for (int i = 0; i < 2; i++) {
        core_worker *w = registry_find(core, ids[i]);
        if (!w) continue;
        w->watched = WATCHED_BLOCKS;
        core_report(core, d->job, false,
                    "worker %s: step %llu, %u + %u: its result differs from another worker's, too "
                    "late to decide which is wrong; its next %d results are audited",
                    w->name, (unsigned long long)d->step, d->first, d->count, WATCHED_BLOCKS);
    }
}

bool audit_take_late_result(coord_core *core, const coord_event *e, uint64_t now) {
    core_late_copy *place = late_copy_of(core, e->worker, &e->result);
    core_job *job = place ? jobs_find(core, place->job) : NULL;
    if (!place) return false;
    if (!job || e->result.failed || e->result.malformed) return false;
    core_late_copy d = *place;
    *place = (core_late_copy){0};
    round_vote v = vote_of(e, registry_find(core, e->worker));
    round_vote other = {.digest = d.digest, .correct = d.correct, .loss = d.loss, .finite = true};
    job->counts.compared++;
    if (same_vote(&v, &other)) return false;
    if (!v.finite) { /* the result that was used is finite, so this worker is wrong */
        core_worker *w = registry_find(core, e->worker);
        if (w) audit_strike(core, d.job, w, "only this worker computed a non-finite value");
        return false;
    }
    job->counts.disputed++;
    const round_block *b = NULL;
    if (steps_has_leases(job) && job->round.step == d.step && job->round.evaluate == d.evaluate)
        b = round_block_at(&job->round, d.first);
    bool open = b && b->state == ROUND_DONE && !b->confirmed && b->lease == d.other_lease;
    if (!open || !audit_can_recompute(core, job)) {
        watch_both(core, &d);
        return false;
    }
    bool keep = !d.evaluate;
    if (keep)
        core_add_action(core, COORD_ACTION_KEEP, d.job)->slot = v.slot;
    else
        v.slot = 0;
    int index = (int)(b - job->round.blocks);
    round_dispute(&job->round, index, &v);
    audit_recompute(core, job, index, now);
    return keep;
}

bool audit_wants_digest(const coord_core *core, uint64_t worker, const coord_result_info *r) {
    const core_job *job = jobs_find(core, r->job);
    int holder;
    if ((r->evaluate && !r->ensemble) || r->failed || r->malformed || !job) return false;
    if (late_copy_of(core, worker, r)) return true;
    int index = steps_find(job, r, &holder);
    if (index < 0) return false;
    if (r->ensemble) return true; /* only finite outputs may be passed on */
    const round_block *b = &job->round.blocks[index];
    if (b->needs > 1 || b->votes || !r->finite) return true;
    for (int h = 0; h < ROUND_HOLDERS; h++)
        if (h != holder && b->holder[h].worker)
            return true; /* the other holder's result will be compared with it */
    return false;
}
