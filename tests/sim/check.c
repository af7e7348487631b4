/* Invariants of the coordinator's decisions: each action is checked before it is carried out.
 * docs/explanation/reliability.md lists the names. */
#include "sim/sim.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

_Noreturn void sim_fail(sim *s, const char *invariant, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(s->result->text, sizeof s->result->text, format, arguments);
    va_end(arguments);
    snprintf(s->result->invariant, sizeof s->result->invariant, "%s", invariant);
    s->result->failed = true;
    longjmp(*s->stop, 1);
}

static unsigned long long n(uint64_t value) {
    return (unsigned long long)value;
}

static sim_spec *spec_of(sim *s, uint64_t job) {
    SIM_CHECK(s, "jobs-are-known", job && job <= SIM_IDS_MAX, "there is no job %llu", n(job));
    return &s->specs[s->host.resident[job].spec];
}

static const sim_reference *expected(sim *s, uint64_t job, uint64_t step) {
    return sim_expect(spec_of(s, job), s->jobs[job].fingerprint, step);
}

/* ---- trust ---- */

/* True if no two results of a block can differ, because nothing in this run makes results wrong or
 * not finite. */
static bool nobody_differs(const sim *s, uint64_t job) {
    return !s->liars && !s->nans && !s->specs[s->host.resident[job].spec].diverges_at;
}

/* True if the first result of each block is final: no second result is asked for. */
static bool one_vote_decides(const sim *s, uint64_t job) {
    return nobody_differs(s, job) && s->specs[s->host.resident[job].spec].info.audit <= 0;
}

bool sim_is_trusted(const sim *s, uint64_t id) {
    const sim_job *job = &s->jobs[id];
    const sim_spec *spec = &s->specs[s->host.resident[id].spec];
    if (!s->liars || spec->info.audit >= 1) return true;
    for (uint32_t w = 0; job->lied && w < s->worker_count; w++)
        if (job->lied[w]) return false;
    return !job->spoilt;
}

/* ---- leases ---- */

/* The number of leases of the job's current step that are before their deadlines and whose workers
 * are not quarantined. */
static uint32_t leases_out(const sim *s, uint64_t job) {
    uint32_t count = 0;
    uint64_t now = sim_host_now(s), step = s->host.resident[job].step;
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        const sim_session *x = &s->host.sessions[i];
        if (!x->live || !x->lease.lease || x->lease.job != job) continue;
        coord_worker_view view; /* a liar's lease does not count */
        bool trusted = coord_core_worker(s->host.core, i + 1, &view) && !view.quarantined;
        count += x->lease.version == step && now < x->deadline_ns && trusted;
    }
    return count;
}

static void check_lease_limits(sim *s, const coord_action *a, const sim_session *session) {
    const sim_spec *spec = spec_of(s, a->job);
    sim_job *job = &s->jobs[a->job];
    uint64_t fingerprint = s->workers[session->peer].fingerprint, now = sim_host_now(s);
    if (spec->info.pin_first) {
        if (!job->fingerprint) job->fingerprint = fingerprint;
        SIM_CHECK(s, "pinned", job->fingerprint == fingerprint,
                  "job %llu is pinned, and its lease goes to another kind of worker", n(a->job));
    }
    uint32_t limit = spec->info.workers_max;
    SIM_CHECK(s, "limits", !limit || leases_out(s, a->job) < limit,
              "job %llu has leases at more than %u workers", n(a->job), limit);
    sim_note_wait(s, a->job);
    bool in_time =
        !spec->info.timeout_ns || now - job->running_since <= spec->info.timeout_ns + 100 * SIM_MS;
    SIM_CHECK(s, "limits", in_time, "job %llu goes on after its timeout", n(a->job));
}

static void check_lease_work(sim *s, const coord_action *a) {
    const sim_resident *r = &s->host.resident[a->job];
    const sim_spec *spec = spec_of(s, a->job);
    if (sim_is_ensemble(s, a->job)) {
        SIM_CHECK(s, "lease-of-this-step", a->lease.ensemble && r->loaded,
                  "a lease of ensemble %llu, which does not run", n(a->job));
        return;
    }
    uint64_t step = a->lease.evaluate ? r->step : r->step + 1;
    SIM_CHECK(s, "lease-of-this-step", r->loaded && !r->updating && a->step == step,
              "job %llu is at step %llu and leases step %llu", n(a->job), n(r->step), n(a->step));
    SIM_CHECK(s, "lease-of-this-step", a->lease.version == r->step,
              "job %llu is at step %llu and leases version %llu", n(a->job), n(r->step),
              n(a->lease.version));
    uint32_t end = a->lease.first + a->lease.count;
    if (a->lease.evaluate) {
        SIM_CHECK(s, "lease-of-this-step", a->lease.count && end <= spec->info.evaluate_samples,
                  "samples %u to %u", a->lease.first, end);
        return;
    }
    SIM_CHECK(s, "sample-ledger", a->lease.batch == sim_batch_of(spec, step),
              "step %llu has %u samples, not %u", n(step), sim_batch_of(spec, step),
              a->lease.batch);
    SIM_CHECK(s, "lease-of-this-step", a->lease.count && end <= spec->info.shards,
              "shards %u to %u", a->lease.first, end);
    for (uint32_t shard = a->lease.first; shard < end && one_vote_decides(s, a->job); shard++)
        SIM_CHECK(s, "one-gradient-a-shard", !s->jobs[a->job].kept[shard],
                  "shard %u of step %llu is leased, but its gradient is there", shard, n(step));
    SIM_CHECK(s, "pause-in-one-step", step <= r->pause_from || r->pause_from == UINT64_MAX,
              "job %llu was paused at step %llu and leases step %llu", n(a->job),
              n(r->pause_from - 1), n(step));
}

static void check_lease(sim *s, const coord_action *a) {
    sim_session *session = sim_session_of(s, a->worker);
    uint64_t now = sim_host_now(s);
    /* A worker may send a newer request, with a result, before its older one is answered. Then the
     * core may give a lease for the older request. The worker ignores that reply, and its newer
     * request makes the core take the lease back. */
    SIM_CHECK(s, "answers-once", session && a->request > session->answered,
              "a lease for a request that was answered");
    session->answered = a->request;
    SIM_CHECK(s, "no-lease-without-deadline",
              a->lease.deadline_ns > now && a->lease.deadline_ns - now <= 3600 * SIM_SECOND,
              "the lease of shards %u to %u of step %llu has no deadline", a->lease.first,
              a->lease.first + a->lease.count - 1, n(a->step));
    SIM_CHECK(s, "lease-numbers-rise", a->lease.lease > s->host.last_lease && a->lease.attempt,
              "lease %llu after lease %llu", n(a->lease.lease), n(s->host.last_lease));
    SIM_CHECK(s, "ended-jobs-rest", s->jobs[a->job].state == COORD_RUNNING,
              "job %llu is not running and leases shards", n(a->job));
    SIM_CHECK(s, "drained-gets-nothing", !session->drain, "a worker that leaves gets a lease");
    s->host.last_lease = a->lease.lease;
    check_lease_work(s, a);
    check_lease_limits(s, a, session);
    sim_check_deadline(s, session, a);
    session->deadline_ns = a->lease.deadline_ns;
    session->lease = (sim_lease){.lease = a->lease.lease,
                                 .job = a->job,
                                 .version = a->lease.version,
                                 .first = a->lease.first,
                                 .count = a->lease.count,
                                 .evaluate = a->lease.evaluate};
}

/* ---- gradients ---- */

/* Call when these shards or samples are done. Forgets all other leases of them, whose results are
 * not wanted any more. */
static void forget_leases(sim *s, uint64_t job, bool evaluate, uint32_t first, uint32_t end) {
    if (!spec_of(s, job)->info.workers_max) return;
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        sim_lease *lease = &s->host.sessions[i].lease;
        if (lease->job == job && lease->evaluate == evaluate && lease->first < end &&
            first < lease->first + lease->count)
            lease->lease = 0;
    }
}

static void check_keep(sim *s, const coord_action *a) {
    const sim_resident *r = &s->host.resident[a->job];
    SIM_CHECK(s, "slots", a->slot && a->slot < s->host.slot_count, "slot %llu", n(a->slot));
    const sim_slot *slot = &s->host.slots[a->slot];
    if (sim_is_ensemble(s, a->job)) return;
    SIM_CHECK(s, "no-stale-result", slot->job == a->job && slot->step == r->step + 1,
              "job %llu is at step %llu and keeps a gradient of job %llu, step %llu", n(a->job),
              n(r->step), n(slot->job), n(slot->step));
    for (uint32_t i = slot->first; i < slot->first + slot->count; i++) {
        uint8_t *kept = &s->jobs[a->job].kept[i];
        SIM_CHECK(s, "one-gradient-a-shard", ++*kept <= (one_vote_decides(s, a->job) ? 1 : 3),
                  "%u gradients of shard %u, step %llu, are kept", *kept, i, n(slot->step));
    }
    forget_leases(s, a->job, false, slot->first, slot->first + slot->count);
}

static void check_drop(sim *s, const coord_action *a) {
    /* A wrong number is reported by slot_of (actions.c). */
    if (!a->slot || a->slot >= s->host.slot_count) return;
    const sim_slot *slot = &s->host.slots[a->slot];
    if (slot->evaluate && slot->job == a->job)
        forget_leases(s, a->job, true, slot->first, slot->first + slot->count);
    if (slot->state != SIM_KEPT || sim_is_ensemble(s, slot->job)) return;
    for (uint32_t i = slot->first; i < slot->first + slot->count; i++) s->jobs[slot->job].kept[i]--;
}

void sim_check_update(sim *s, const coord_action *a, const sim_resident *r) {
    const sim_spec *spec = spec_of(s, a->job);
    uint32_t batch = sim_batch_of(spec, a->step), shards = spec->info.shards, next = 0;
    uint32_t present = batch < shards ? batch : shards;
    SIM_CHECK(s, "one-update-a-step", r->loaded && !r->updating && a->step == r->step + 1,
              "job %llu is at step %llu and updates to step %llu%s", n(a->job), n(r->step),
              n(a->step), r->updating ? " during an update" : "");
    SIM_CHECK(s, "sample-ledger", a->update.batch == batch, "the mean of %u samples over %u", batch,
              a->update.batch);
    for (uint32_t i = 0; i < a->update.count; i++) {
        const coord_block *b = &a->update.blocks[i];
        SIM_CHECK(s, "slots", b->slot && b->slot < s->host.slot_count, "slot %llu", n(b->slot));
        const sim_slot *slot = &s->host.slots[b->slot];
        SIM_CHECK(s, "no-stale-result",
                  slot->state == SIM_KEPT && slot->job == a->job && slot->step == a->step,
                  "step %llu averages a gradient of step %llu", n(a->step), n(slot->step));
        SIM_CHECK(s, "blocks-tile",
                  b->first == next && slot->first == b->first && slot->count == b->count,
                  "step %llu: block %u to %u, after shard %u, has the gradient of %u to %u",
                  n(a->step), b->first, b->first + b->count - 1, next, slot->first,
                  slot->first + slot->count - 1);
        next += b->count;
    }
    SIM_CHECK(s, "blocks-tile", next >= present && next <= shards,
              "step %llu averages %u of %u shards", n(a->step), next, present);
}

/* True: all workers that can do the job are leaving, and a shard outside this result is not done.
 * Then the core may abandon the step, and this result with it, if the job is to be unloaded. */
static bool may_be_given_up(const sim *s, const coord_result_info *r) {
    const sim_job *job = &s->jobs[r->job];
    const sim_spec *spec = &s->specs[s->host.resident[r->job].spec];
    uint32_t batch = sim_batch_of(spec, r->step), shards = spec->info.shards;
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        const sim_session *x = &s->host.sessions[i];
        bool fits = !job->fingerprint || s->workers[x->peer].fingerprint == job->fingerprint;
        if (x->live && !x->drain && fits) return false;
    }
    for (uint32_t i = 0; i < (batch < shards ? batch : shards); i++)
        if ((i < r->first || i >= r->first + r->count) && !job->kept[i]) return true;
    return false;
}

bool sim_is_wanted(const sim *s, const sim_message *m) {
    const sim_session *session = &s->host.sessions[m->worker - 1];
    const coord_result_info *r = &m->result;
    const sim_resident *job = r->job <= SIM_IDS_MAX ? &s->host.resident[r->job] : NULL;
    coord_worker_view view;
    bool heard = coord_core_worker(s->host.core, m->worker, &view) && !view.quarantined;
    if (m->mangled || !heard) return false;
    if (session->lease.lease != r->lease || r->evaluate || r->failed || !r->finite) return false;
    if (!job || !job->loaded || job->updating || r->step != job->step + 1) return false;
    if (may_be_given_up(s, r)) return false;
    return nobody_differs(s, r->job) && !s->jobs[r->job].kept[r->first] &&
           s->jobs[r->job].state == COORD_RUNNING;
}

void sim_check_kept(sim *s, const sim_message *m) {
    const coord_result_info *r = &m->result;
    bool done = s->host.resident[r->job].updating || s->jobs[r->job].kept[r->first];
    SIM_CHECK(s, "good-results-are-kept", done,
              "job %llu, step %llu: the result of lease %llu, shards %u to %u, is discarded",
              n(r->job), n(r->step), n(r->lease), r->first, r->first + r->count - 1);
}

/* The job's step is abandoned or over, so the sessions' leases of this job are void. */
static void forget_all_leases(sim *s, uint64_t job) {
    for (uint32_t i = 0; i < s->host.session_count; i++)
        if (s->host.sessions[i].lease.job == job) s->host.sessions[i].lease.lease = 0;
}

/* ---- figures ---- */

static bool same(double a, double b) {
    return a == b || (isnan(a) && isnan(b));
}

static void check_figures(sim *s, const coord_action *a, double loss, uint64_t correct) {
    const sim_spec *spec = spec_of(s, a->job);
    if (s->liars && (spec->info.audit < 1 || !sim_is_trusted(s, a->job))) return;
    SIM_CHECK(s, "figures", same(a->metrics.loss_sum, loss) && a->metrics.correct == correct,
              "job %llu, step %llu: loss %.17g and %llu correct, alone %.17g and %llu", n(a->job),
              n(a->step), a->metrics.loss_sum, n(a->metrics.correct), loss, n(correct));
}

static void check_metrics(sim *s, const coord_action *a) {
    const sim_reference *alone = expected(s, a->job, a->step);
    sim_job *job = &s->jobs[a->job];
    if (a->type == COORD_ACTION_METRICS) {
        check_figures(s, a, alone->loss, alone->correct);
        job->recorded[a->step / 64] |= (uint64_t)1 << a->step % 64;
    } else if (a->type == COORD_ACTION_EPOCH) {
        check_figures(s, a, alone->epoch_loss, alone->epoch_correct);
    } else {
        check_figures(s, a, alone->evaluated, alone->evaluated_correct);
        job->evaluated = a->step;
        forget_leases(s, a->job, true, 0, UINT32_MAX);
    }
}

static void check_checkpoint(sim *s, const coord_action *a) {
    const sim_resident *r = &s->host.resident[a->job];
    const sim_reference *alone = expected(s, a->job, r->step);
    const sim_spec *spec = spec_of(s, a->job);
    bool ended = r->step % spec->info.steps_per_epoch == 0;
    SIM_CHECK(s, "checkpoint-of-this-step", r->loaded && a->step == r->step,
              "job %llu is at step %llu and saves step %llu", n(a->job), n(r->step), n(a->step));
    SIM_CHECK(s, "figures",
              !sim_is_trusted(s, a->job) ||
                  (same(a->checkpoint.loss_sum, ended ? 0 : alone->epoch_loss) &&
                   a->checkpoint.correct == (ended ? 0 : alone->epoch_correct)),
              "job %llu, step %llu: a checkpoint has sums of loss %.17g, alone %.17g", n(a->job),
              n(a->step), a->checkpoint.loss_sum, ended ? 0 : alone->epoch_loss);
    SIM_CHECK(s, "final-is-last", !a->checkpoint.final || r->step == spec->info.steps,
              "job %llu ends at step %llu of %llu", n(a->job), n(r->step), n(spec->info.steps));
}

/* ---- states ---- */

static bool may_fail(const sim *s, uint64_t id, const char *text) {
    const sim_job *job = &s->jobs[id];
    const sim_spec *spec = &s->specs[s->host.resident[id].spec];
    /* The coordinator can compute every job itself, except one that is pinned to another kind of
     * worker. */
    bool judged = !job->fingerprint || job->fingerprint == s->core_config.fingerprint;
    if (strstr(text, "cannot decide")) return !judged && (s->lies || s->nan_faults >= 2);
    /* In a job without audits, workers are believed, so a huge lie looks like divergence. */
    if (strstr(text, "diverged"))
        return spec->diverges_at || (!judged && s->nan_faults >= 2) ||
               (spec->info.audit <= 0 && s->huge_lies);
    if (strstr(text, "cannot")) return !judged && s->cannot_faults >= 3;
    if (strstr(text, "timeout"))
        return spec->info.timeout_ns && sim_host_now(s) - job->first_run >= spec->info.timeout_ns;
    return false;
}

static void check_state(sim *s, const coord_action *a) {
    const sim_resident *r = &s->host.resident[a->job];
    sim_job *job = &s->jobs[a->job];
    SIM_CHECK(s, "ended-jobs-rest", job->state < COORD_COMPLETED, "job %llu had ended already",
              n(a->job));
    if (a->state == COORD_RUNNING) {
        job->running_since = job->waited_until = sim_host_now(s);
        if (!job->first_run) job->first_run = job->running_since;
    }
    if (sim_is_ensemble(s, a->job)) {
        SIM_CHECK(s, "no-job-fails",
                  a->state != COORD_FAILED || s->lies || s->nan_faults || s->mangled_faults,
                  "ensemble %llu failed: %s", n(a->job), a->text);
        job->state = a->state;
        return;
    }
    if (a->state == COORD_COMPLETED)
        SIM_CHECK(s, "complete-is-complete",
                  r->step == spec_of(s, a->job)->info.steps && job->saved == r->step,
                  "job %llu is complete at step %llu, saved at %llu", n(a->job), n(r->step),
                  n(job->saved));
    if (a->state == COORD_FAILED)
        SIM_CHECK(s, "no-job-fails", may_fail(s, a->job, a->text), "job %llu failed: %s", n(a->job),
                  a->text);
    if (a->state == COORD_CANCELED)
        SIM_CHECK(s, "no-job-fails", job->cancel_asked, "job %llu was not canceled", n(a->job));
    job->state = a->state;
}

static void job_rolls_back(sim *s, const coord_action *a) {
    sim_job *job = &s->jobs[a->job];
    const sim_spec *spec = spec_of(s, a->job);
    bool doubted = spec->diverges_at && spec->info.audit > 0 && spec->info.audit < 1;
    SIM_CHECK(s, "honest-is-believed", s->lies || s->nan_faults || s->mangled_faults || doubted,
              "job %llu goes back, and nobody lied", n(a->job));
    memset(job->kept, 0, sizeof job->kept);
}

static void check_disconnect(sim *s, const coord_action *a) {
    const sim_session *session = sim_session_of(s, a->worker);
    uint64_t limit = (uint64_t)COP_HEARTBEAT_MS * COP_HEARTBEATS_MISSED * SIM_MS;
    if (!session) return;
    SIM_CHECK(s, "heard-is-alive", sim_host_now(s) - session->heard_ns > limit,
              "worker %llu was heard %llu ms ago and is removed", n(a->worker),
              n((sim_host_now(s) - session->heard_ns) / SIM_MS));
    SIM_CHECK(s, "heard-is-alive", sim_has_listened(s),
              "worker %llu is removed by a coordinator that stalled itself, %llu ms ago",
              n(a->worker), n((sim_host_now(s) - s->host.listens_ns) / SIM_MS));
}

void sim_check_action(sim *s, const coord_action *a) {
    switch (a->type) {
    case COORD_ACTION_LEASE:
        check_lease(s, a);
        sim_check_lies(s, a->job);
        break;
    case COORD_ACTION_KEEP:
        check_keep(s, a);
        if (sim_session_of(s, s->host.result_of))
            sim_timing_kept(sim_session_of(s, s->host.result_of), a->job);
        break;
    case COORD_ACTION_DROP:
        check_drop(s, a);
        break;
    case COORD_ACTION_METRICS:
    case COORD_ACTION_EPOCH:
    case COORD_ACTION_EVALUATED:
        check_metrics(s, a);
        break;
    case COORD_ACTION_CHECKPOINT:
        check_checkpoint(s, a);
        sim_check_lies(s, a->job);
        forget_all_leases(s, a->job);
        break;
    case COORD_ACTION_STATE:
        check_state(s, a);
        break;
    case COORD_ACTION_DISCONNECT:
        check_disconnect(s, a);
        break;
    case COORD_ACTION_ROLLBACK:
        job_rolls_back(s, a);
        forget_all_leases(s, a->job);
        break;
    case COORD_ACTION_UNLOAD:
        forget_all_leases(s, a->job);
        memset(s->jobs[a->job].kept, 0, sizeof s->jobs[a->job].kept);
        break;
    default:
        break;
    }
}
