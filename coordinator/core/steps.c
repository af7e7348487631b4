/* The steps of one job: a round begins, results are taken or refused, and the update is requested.
 * Then follow the metrics, evaluations and checkpoints that are due, and the next step. The sums of
 * an epoch are exact across a restart, because checkpoints store them. */
#include <math.h>
#include <stdio.h>

#include "common/base/injected_bugs.h"
#include "coordinator/core/core_state.h"

#define NEWEST   0.1 /* weight of the newest measurement in a moving average */
#define TURNS    4   /* minimum leases of an ensemble per worker thread */
#define ADVANCES 8   /* minimum leases into which the members on one slice are divided */

bool steps_has_leases(const core_job *job) {
    return job->phase == PHASE_TRAINING || job->phase == PHASE_EVALUATING;
}

/* ---- begin ---- */

static uint32_t batch_of_step(const coord_job_info *info, uint64_t step) {
    uint64_t within = COP_INJECT_BUG(EPOCH_END, step - 1, step) % info->steps_per_epoch;
    uint64_t begin = within * info->batch;
    COP_ASSERT(begin < info->train_samples);
    uint64_t left = info->train_samples - begin;
    return left < info->batch ? (uint32_t)left : info->batch;
}

static void begin_step(coord_core *core, core_job *job, uint64_t now) {
    uint64_t step = job->step + 1;
    scheduler_plan(core, job);
    round_begin_train(&job->round, step, batch_of_step(&job->info, step), job->plan,
                      job->plan_count);
    job->phase = PHASE_TRAINING;
    job->step_began_ns = now;
    job->idle_ns = job->idle_since_ns = 0;
}

static bool evaluation_due(const core_job *job) {
    if (!job->info.evaluate_samples || job->step == 0) return false;
    if (job->step >= job->info.steps || job->evaluate_asked) return true;
    uint64_t every = job->info.steps_per_epoch * job->info.evaluate_every;
    return every && job->step % every == 0;
}

static void begin_evaluation(core_job *job) {
    round_begin_evaluate(&job->round, job->step, job->info.evaluate_samples);
    job->phase = PHASE_EVALUATING;
    job->evaluate_asked = false;
}

/* The largest number of members in a lease: as many as fit, but few enough that every worker gets
 * several leases, and that clients see the ensemble grow. Any number gives the same bits. */
static uint32_t members_of_lease(const coord_core *core, const core_job *job) {
    const coord_job_info *info = &job->info;
    uint64_t slices = (info->evaluate_samples + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE, threads = 0;
    if (info->each_version) return 1;
    for (uint32_t i = 0; i < core->worker_count; i++)
        if (scheduler_eligible(job, core->workers[i])) threads += core->workers[i]->threads;
    uint64_t share = info->members * slices / (TURNS * (threads ? threads : 1));
    if (share > info->members / ADVANCES) share = info->members / ADVANCES;
    if (share > info->lease_members) share = info->lease_members;
    return share ? (uint32_t)share : 1;
}

void steps_begin_evaluation(coord_core *core, core_job *job) {
    if (job->info.kind == COORD_EVALUATION) {
        begin_evaluation(job);
        return;
    }
    round_begin_ensemble(&job->round, job->info.members, members_of_lease(core, job),
                         job->info.evaluate_samples);
    job->phase = PHASE_EVALUATING;
}

/* True: a checkpoint of the current weights is due, because checkpoint_every steps have passed or
 * the weights are the best so far. Always false if checkpoint_every is 0. */
static bool checkpoint_due(const core_job *job) {
    uint64_t every = job->info.checkpoint_every;
    if (!every || job->step == 0) return false;
    return job->is_best || (job->step % every == 0 && job->saved_step != job->step);
}

void steps_continue(coord_core *core, core_job *job, uint64_t now) {
    if (job->step >= job->info.steps) {
        jobs_save_and_leave(core, job, COORD_COMPLETED);
    } else if (job->pause) {
        jobs_save_and_leave(core, job, COORD_PAUSED);
    } else if (core->stopping || scheduler_should_yield(core, job)) {
        jobs_save_and_leave(core, job, COORD_QUEUED);
    } else if (job->saving && checkpoint_due(job)) {
        /* A checkpoint that is due is never skipped: training waits until the previous one is
         * written. So a crash costs at most twice the steps between two checkpoints: those since
         * the newest one was requested, and those since the one before, if it was still being
         * written. */
        job->phase = PHASE_HOLDING;
    } else {
        if (checkpoint_due(job)) jobs_save(core, job, false);
        begin_step(core, job, now);
    }
}

void steps_begin(coord_core *core, core_job *job, uint64_t now) {
    job->phase = PHASE_HOLDING;
    if (job->pause || core->stopping) /* even at the end: an evaluation may be due */
        jobs_save_and_leave(core, job, job->pause ? COORD_PAUSED : COORD_QUEUED);
    else if (evaluation_due(job)) /* also one that a pause or a crash interrupted */
        begin_evaluation(job);
    else
        steps_continue(core, job, now);
}

void steps_drop_round(coord_core *core, core_job *job) {
    for (uint32_t i = COP_INJECT_BUG(LEAK_SLOT, 0, 1); i < job->round.count; i++) {
        const round_block *b = &job->round.blocks[i];
        core_add_drop(core, job->info.job, b->slot);
        for (uint32_t v = 0; v < b->votes; v++) core_add_drop(core, job->info.job, b->vote[v].slot);
    }
    round_clear(&job->round);
}

/* ---- a round is complete ---- */

/* Share of wrong classes; NaN if there are no classes or no samples. */
static double error_of(const core_job *job, uint64_t samples, uint64_t correct) {
    if (job->info.by_loss || samples == 0) return NAN;
    return (double)(samples - correct) / (double)samples;
}

static void fill_metrics(coord_action *a, const core_job *job, double loss, uint64_t samples,
                         uint64_t correct) {
    a->step = job->step;
    a->metrics.loss_sum = loss;
    a->metrics.samples = samples;
    a->metrics.correct = correct;
    a->metrics.error = error_of(job, samples, correct);
    a->metrics.seconds = job->seconds;
}

static void step_metrics(coord_core *core, core_job *job) {
    uint64_t samples = 0, correct = 0;
    for (uint32_t i = 0; i < job->round.count; i++) {
        samples += job->round.blocks[i].samples;
        correct += job->round.blocks[i].correct;
    }
    COP_ASSERT(samples == job->round.batch);
    double loss = round_loss(&job->round);
    job->loss_sum += loss;
    job->samples += samples;
    job->correct += correct;
    coord_action *a = core_add_action(core, COORD_ACTION_METRICS, job->info.job);
    fill_metrics(a, job, loss, samples, correct);
    job->has_loss = true;
    job->last_loss = job->loss_sum / (double)job->samples;
    bool epoch_ended = job->step % job->info.steps_per_epoch == 0;
    if (!epoch_ended && job->step < job->info.steps) return;
    fill_metrics(core_add_action(core, COORD_ACTION_EPOCH, job->info.job), job, job->loss_sum,
                 job->samples, job->correct);
    if (epoch_ended) {
        job->loss_sum = 0;
        job->samples = job->correct = 0;
    }
}

/* True: nobody is computing a block of the step or evaluation, and no connected worker may compute
 * one. */
static bool lacks_workers(const coord_core *core, core_job *job) {
    if (job->phase != PHASE_TRAINING && job->phase != PHASE_EVALUATING) return false;
    if (scheduler_eligible_workers(core, job) && !audit_lacks_second_worker(core, job))
        return false;
    return !round_holders(&job->round, 0) && !round_is_recomputed(&job->round);
}

void steps_note_idle_time(coord_core *core, uint64_t now) {
    for (uint32_t i = 0; i < core->resident_count; i++) {
        core_job *job = core->resident[i];
        if (lacks_workers(core, job)) {
            if (!job->idle_since_ns) job->idle_since_ns = now;
        } else if (job->idle_since_ns) {
            job->idle_ns += now - job->idle_since_ns;
            job->run_began_ns += now - job->idle_since_ns; /* limits.timeout */
            job->idle_since_ns = 0;
        }
    }
}

static void step_done(coord_core *core, core_job *job, uint64_t now) {
    double seconds = (double)(now - job->step_began_ns - job->idle_ns) * 1e-9;
    job->phase = PHASE_HOLDING;
    job->step = job->round.step;
    job->seconds += seconds;
    /* For the speed over the last steps: older steps count less and less. */
    job->timed_seconds = job->timed_seconds * (1 - NEWEST) + seconds;
    job->timed_samples = (uint64_t)((double)job->timed_samples * (1 - NEWEST)) + job->round.batch;
    step_metrics(core, job);
    round_clear(&job->round);
    if (evaluation_due(job))
        begin_evaluation(job);
    else
        steps_continue(core, job, now);
}

static void evaluation_done(coord_core *core, core_job *job, uint64_t now) {
    uint64_t correct = 0, samples = job->round.batch;
    for (uint32_t i = 0; i < job->round.count; i++) correct += job->round.blocks[i].correct;
    double loss = round_loss(&job->round);
    audit_note_step(job);
    fill_metrics(core_add_action(core, COORD_ACTION_EVALUATED, job->info.job), job, loss, samples,
                 correct);
    job->phase = PHASE_HOLDING;
    job->last_error = error_of(job, samples, correct);
    job->has_error = !job->info.by_loss;
    double figure = job->info.by_loss ? loss / (double)samples : job->last_error;
    if (job->info.keep_best && (!job->has_best || figure < job->best_error)) {
        job->best_error = figure;
        job->has_best = true;
        job->is_best = true;
    }
    round_clear(&job->round);
    if (jobs_is_evaluation(job))
        jobs_end(core, job, COORD_COMPLETED, NULL);
    else
        steps_continue(core, job, now);
}

/* Passes all results of an ensemble that are next in the order of blocks to the host. */
static void hand_over(coord_core *core, core_job *job) {
    for (int i; (i = round_take_ready(&job->round)) >= 0;) {
        round_block *b = &job->round.blocks[i];
        coord_action *a = core_add_action(core, COORD_ACTION_ABSORB, job->info.job);
        a->slot = b->slot;
        a->lease.first = round_slice_first(&job->round, b);
        a->lease.count = b->samples;
        a->lease.member = round_member_first(&job->round, b);
        a->lease.members = round_member_count(&job->round, b);
        b->slot = 0; /* the slot belongs to the host now */
        audit_note_member(job, b);
    }
}

void steps_on_absorbed(coord_core *core, core_job *job) {
    COP_ASSERT(job->info.kind == COORD_ENSEMBLE);
    round_advance(&job->round);
    if (round_complete(&job->round)) jobs_end(core, job, COORD_COMPLETED, NULL);
}

static void ask_for_update(coord_core *core, core_job *job) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < job->round.count; i++) {
        const round_block *b =
            &job->round.blocks[COP_INJECT_BUG(BLOCK_ORDER, i, job->round.count - 1 - i)];
        if (b->absent) continue;
        job->blocks[count++] = (coord_block){.first = b->first, .count = b->count, .slot = b->slot};
    }
    if (COP_INJECT_BUG(SAVE_EARLY, false, job->info.checkpoint_every && !job->saving)) {
        job->step++;
        jobs_save(core, job, false);
        job->step--;
    }
    job->phase = PHASE_UPDATING;
    coord_action *a = core_add_action(core, COORD_ACTION_UPDATE, job->info.job);
    a->step = job->round.step;
    a->update.blocks = job->blocks;
    a->update.count = count;
    a->update.batch = job->round.batch;
}

/* ---- results ---- */

coord_action *steps_diverged(coord_core *core, core_job *job, const round_block *b, uint64_t slot) {
    if (COP_INJECT_BUG(DIVERGE_AT_ONCE, audit_suspect_weights(core, job, b), false)) {
        core_add_drop(core, job->info.job, slot);
        return NULL;
    }
    coord_action *a = core_add_action(core, COORD_ACTION_DIVERGED, job->info.job);
    a->step = job->round.step;
    a->slot = slot;
    a->lease.first = b->first;
    a->lease.count = b->count;
    a->lease.evaluate = job->round.evaluate;
    a->lease.ensemble = job->round.members > 0;
    if (a->lease.ensemble) {
        a->lease.first = round_slice_first(&job->round, b);
        a->lease.count = b->samples;
        a->lease.member = round_member_first(&job->round, b);
        a->lease.members = round_member_count(&job->round, b);
    }
    job->phase = PHASE_DIVERGED;
    return a;
}

static void report_bad(coord_core *core, const core_job *job, const round_block *b,
                       const char *what) {
    char name[96];
    core_report(core, job->info.job, false, "%s: %s; computed again",
                audit_describe_block(job, b, name), what);
}

/* Are the kind and the step of the result those of this round? */
static bool is_of_round(const coord_round *round, const coord_result_info *r) {
    if (r->evaluate != round->evaluate || r->ensemble != (round->members > 0)) return false;
    if (r->ensemble) return r->step >= 1 && r->step <= round->total;
    return COP_INJECT_BUG(STALE_RESULT, r->step == round->step, true);
}

/* The `first` of the result's block: see round_block. */
static uint32_t block_of(const coord_result_info *r) {
    return r->ensemble ? (uint32_t)(r->step - 1) : r->first;
}

int steps_find(const core_job *job, const coord_result_info *r, int *holder) {
    if (!job || !steps_has_leases(job) || !is_of_round(&job->round, r)) return -1;
    return round_find(&job->round, block_of(r), r->lease, holder);
}

/* The index of the block that the result is for; -1: the result is late, sent twice, stale or from
 * another worker, or does not match its lease. *holder is set to the index of the lease's holder.
 */
static int match(const core_job *job, const coord_event *e, int *holder) {
    const coord_result_info *r = &e->result;
    int index = steps_find(job, r, holder);
    if (index < 0) return -1;
    const round_block *b = &job->round.blocks[index];
    const round_holder *h = &b->holder[*holder];
    bool fits = r->ensemble
                    ? r->count == b->samples && r->first == round_slice_first(&job->round, b)
                    : r->count == b->count;
    bool its = h->worker == e->worker && h->attempt == r->attempt;
    return fits && COP_INJECT_BUG(STALE_RESULT, its, true) ? index : -1;
}

/* Counts a result that cannot be used as late, sent twice or stale. */
static void count_unused(core_job *job, const coord_result_info *r) {
    const round_block *b = NULL;
    const bool ours = steps_has_leases(job) && is_of_round(&job->round, r);
    if (ours) b = round_block_at(&job->round, block_of(r));
    if (ours && block_of(r) < job->round.base) /* the block is no longer in the ensemble's window */
        job->counts.late++;
    else if (!b || b->state != ROUND_DONE)
        job->counts.stale++;
    else if (b->lease == r->lease)
        job->counts.twice++;
    else
        job->counts.late++;
}

/* Says what is wrong with the form of a result: no honest worker sends such a result. NULL: the
 * result is well formed, or reports that the worker could not compute the block. */
static const char *wrong_form(const coord_round *round, const coord_event *e,
                              const round_block *b) {
    const coord_result_info *r = &e->result;
    if (r->malformed) return e->text;
    if (r->failed) return NULL;
    if (r->samples != b->samples) return "it covers a wrong number of samples";
    if (r->ensemble && r->members != round_member_count(round, b))
        return "it covers a wrong number of members";
    if (r->correct > r->samples) return "it reports more correct samples than samples";
    return NULL;
}

/* Refuses a result that is malformed (`form` says why) or failed: the block is computed again. */
static void refuse(coord_core *core, const core_arrival *arrival, const char *form) {
    core_job *job = arrival->job;
    const coord_event *e = arrival->event;
    const uint64_t now = arrival->now_ns;
    const int index = arrival->block;
    const char *why = form      ? form
                      : e->text ? e->text
                                : "a worker could not compute it and gave no reason";
    round_retry(&job->round, index, arrival->holder, now + core->config.lease_floor_ns);
    core_add_drop(core, job->info.job, e->result.slot);
    if (!arrival->worker) {
        report_bad(core, job, &job->round.blocks[index], why);
        if (e->result.busy)
            audit_recompute_later(core, job, index, now);
        else
            unable_report_self(core, job, index, why, now);
    } else if (form) {
        audit_strike(core, job->info.job, arrival->worker, form);
    } else {
        unable_report(core, arrival, why);
    }
}

/* Takes a result that matches no current lease. It does not end the lease that the worker holds
 * now: that ends when the worker asks for work or leaves. */
static void unused_result(coord_core *core, core_job *job, core_worker *w, const coord_event *e,
                          uint64_t now) {
    const coord_result_info *r = &e->result;
    bool wrong = w && r->lease && coord_core_wants(core, e->worker, r->lease);
    if (job) count_unused(job, r);
    if (COP_INJECT_BUG(KEEP_DUPLICATE, false, job && !r->evaluate))
        core_add_action(core, COORD_ACTION_KEEP, r->job)->slot = r->slot;
    else if (wrong || !audit_take_late_result(core, e, now))
        core_add_drop(core, r->job, r->slot);
    if (wrong)
        audit_strike(
            core, w->lease_job, w,
            "its result does not match the block (job, kind, step, shards, attempt) of its lease");
}

void steps_on_result(coord_core *core, const coord_event *e, uint64_t now) {
    const coord_result_info *r = &e->result;
    core_worker *w = registry_find(core, e->worker);
    core_job *job = jobs_find(core, r->job);
    if (w) w->heard_ns = now;
    if (COP_INJECT_BUG(FREE_FIRST, false, w && w->lease == r->lease)) w->lease = w->lease_job = 0;
    int holder = 0, index = match(job, e, &holder);
    if (index < 0) {
        unused_result(core, job, w, e, now);
        return;
    }
    if (w) w->served_ns = now;
    if (w) w->lease = w->lease_job = 0; /* the lease ends below, whatever the result is */
    const core_arrival arrival = {job, w, index, holder, e, now};
    const char *form = wrong_form(&job->round, e, &job->round.blocks[index]);
    if (form || r->failed) {
        refuse(core, &arrival, form);
        return;
    }
    timing_learn(core, &arrival);
    if (!w) unable_note_computed(core, job); /* the coordinator itself */
    audit_take_result(core, &arrival);
}

void steps_block_done(coord_core *core, core_job *job, uint64_t now) {
    if (!steps_has_leases(job)) return;
    if (job->round.members) {
        hand_over(core, job);
        return;
    }
    if (!round_complete(&job->round)) return;
    if (job->round.evaluate)
        evaluation_done(core, job, now);
    else
        ask_for_update(core, job);
}

/* Requires a second result for each unconfirmed block. False: all blocks are confirmed. */
static bool recheck_step(core_job *job, const uint64_t *digests, uint64_t now) {
    bool any = false;
    uint32_t at = 0;
    COP_ASSERT(digests);
    for (uint32_t i = 0; i < job->round.count; i++) {
        const round_block *b = &job->round.blocks[i];
        if (b->absent) continue;
        const uint64_t digest = digests[at++];
        if (b->confirmed) continue;
        round_recheck(&job->round, (int)i, digest, now);
        any = true;
    }
    return any;
}

/* Called when each gradient is finite, but their sum is not. Any unconfirmed gradient may be wrong,
 * so the unconfirmed blocks are computed again. If all are confirmed, the job has diverged. */
static void sum_not_finite(coord_core *core, core_job *job, int index, const coord_event *e,
                           uint64_t now) {
    round_block *b = &job->round.blocks[index];
    job->phase = PHASE_TRAINING;
    if (recheck_step(job, e->digests, now)) {
        core_report(core, job->info.job, false,
                    "step %llu: the sum of the gradients is not finite; each is computed again",
                    (unsigned long long)job->round.step);
        return;
    }
    const uint64_t slot = b->slot;
    b->slot = 0;
    coord_action *a = steps_diverged(core, job, b, slot);
    if (a) a->lease.sum = true;
}

void steps_on_updated(coord_core *core, core_job *job, const coord_event *e, uint64_t now) {
    if (job->phase != PHASE_UPDATING || e->step != job->round.step) return;
    if (e->ok) audit_note_step(job);
    if (job->rollback_to) {                  /* a liar was found during the update */
        if (e->ok) round_clear(&job->round); /* the slots were released with the update */
        job->phase = PHASE_HOLDING;
        if (!e->ok) steps_drop_round(core, job);
        jobs_roll_back(core, job, job->rollback_to - 1);
        return;
    }
    if (COP_INJECT_BUG(DOUBLE_UPDATE, false, e->ok && e->step % 7 == 3)) {
        ask_for_update(core, job);
        return;
    }
    if (e->ok) {
        step_done(core, job, now);
        return;
    }
    uint32_t i = 0;
    while (i < job->round.count && job->round.blocks[i].first != e->result.first) i++;
    COP_ASSERT(i < job->round.count);
    round_block *b = &job->round.blocks[i];
    if (e->result.finite && job->info.audit > 0) {
        sum_not_finite(core, job, (int)i, e, now);
        return;
    }
    /* A gradient is not finite although its loss is. Another worker computes the block again. If
     * its gradient is not finite either, the coordinator computes the block. If the coordinator
     * gets the same, or cannot compute the job, the job has diverged. */
    job->phase = PHASE_TRAINING;
    uint64_t slot =
        round_reject(&job->round, (int)i, e->result.digest, now + core->config.lease_floor_ns);
    bool twice = ++b->not_finite >= 2;
    if (twice && (!audit_can_recompute(core, job) || b->vote[0].worker == COORD_SELF)) {
        steps_diverged(core, job, b, slot);
        return;
    }
    core_add_drop(core, job->info.job, slot);
    report_bad(core, job, b, "a value is not finite");
    if (twice) audit_recompute(core, job, (int)i, now);
}
