/* Invariants of what happens: events of the core, versions of weights, the content of the disk, and
 * the end of the run. */
#include "sim/sim.h"

#include "common/base/alloc.h"
#include "common/base/shards.h"

static unsigned long long n(uint64_t value) {
    return (unsigned long long)value;
}

/* ---- events ---- */

static void note_pause(sim *s, uint64_t job) {
    sim_resident *r = &s->host.resident[job];
    if (r->loading) r->pause_requested = true;
    if (r->loaded) r->pause_from = r->step + 1;
}

/* A tick that is late by a heartbeat period means that the coordinator stalled, or that its clock
 * jumped. */
static void note_tick(sim *s) {
    sim_host *h = &s->host;
    const uint64_t now = sim_host_now(s);
    if (h->ticked_ns && now - h->ticked_ns > COP_HEARTBEAT_MS * SIM_MS) h->listens_ns = now;
    h->ticked_ns = now;
    for (uint64_t id = 1; id <= SIM_IDS_MAX; id++) sim_note_wait(s, id);
}

void sim_note_wait(sim *s, uint64_t id) {
    sim_job *job = &s->jobs[id];
    const uint64_t now = sim_host_now(s);
    if (job->state != COORD_RUNNING || !job->running_since) return;
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        const sim_session *x = &s->host.sessions[i];
        if (x->live && x->lease.lease && x->lease.job == id) job->waited_until = now;
    }
    if (job->waited_until < job->running_since) job->waited_until = job->running_since;
    job->running_since += now - job->waited_until;
    job->waited_until = now;
}

bool sim_has_listened(const sim *s) {
    return sim_host_now(s) - s->host.listens_ns >= COP_HEARTBEAT_MS * SIM_MS;
}

void sim_check_before(sim *s, const coord_event *e) {
    sim_session *session = sim_session_of(s, e->worker);
    sim_job *job = e->job <= SIM_IDS_MAX ? &s->jobs[e->job] : NULL;
    s->host.result_of = 0;
    switch (e->type) {
    case COORD_EVENT_TICK:
        note_tick(s);
        break;
    case COORD_EVENT_RESULT:
        if (session && session->lease.lease == e->result.lease) {
            sim_timing_ended(s, session);
            if (!e->result.evaluate) s->host.result_of = e->worker;
            /* The core keeps a worker's times for a few kinds of work only, so a result of an
             * ensemble may displace those of a training. */
            if (e->result.ensemble) session->kept_count = 0;
        }
        if (session && session->lease.lease == e->result.lease) session->lease.lease = 0;
        break;
    case COORD_EVENT_PULL:
        if (session) session->lease.lease = 0;
        if (session) sim_timing_ended(s, session);
        break;
    case COORD_EVENT_JOB_PAUSE:
        note_pause(s, e->job);
        break;
    case COORD_EVENT_JOB_RESUME:
        s->host.resident[e->job].pause_from = UINT64_MAX;
        s->host.resident[e->job].pause_requested = false;
        break;
    case COORD_EVENT_JOB_CANCEL:
        COP_ASSERT(job);
        job->cancel_asked = true;
        break;
    case COORD_EVENT_JOB_ADDED:
        COP_ASSERT(job);
        job->state = e->info.state;
        SIM_CHECK(s, "acknowledged-stays", !job->cancel_acknowledged,
                  "job %llu was canceled, and is taken up again", n(e->job));
        SIM_CHECK(s, "acknowledged-stays",
                  !job->pause_acknowledged || e->info.state == COORD_PAUSED,
                  "job %llu was paused, and runs again", n(e->job));
        break;
    default:
        break;
    }
    bool heard = e->type == COORD_EVENT_WORKER_JOINED || e->type == COORD_EVENT_HEARTBEAT ||
                 e->type == COORD_EVENT_PULL || e->type == COORD_EVENT_RESULT;
    if (session && heard) session->heard_ns = sim_host_now(s);
}

/* A worker may be quarantined only if it lied, or if it repeatedly sent results that nobody else
 * had or that no lease had asked for. */
static void check_suspicion(sim *s) {
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        coord_worker_view view;
        if (!s->host.sessions[i].live || !coord_core_worker(s->host.core, i + 1, &view)) continue;
        const sim_worker *x = &s->workers[s->host.sessions[i].peer];
        uint32_t wrong = x->nans + x->mangles;
        bool strikes = s->core_config.strikes_max && wrong >= s->core_config.strikes_max;
        /* If the job itself diverges, a loss that is not finite is a wrong number. */
        for (uint32_t j = 0; x->nans && j < s->spec_count; j++)
            strikes = strikes || s->specs[j].diverges_at;
        SIM_CHECK(s, "honest-is-believed", !view.quarantined || x->lies || strikes,
                  "worker %u is quarantined: %s", i + 1, view.evidence ? view.evidence : "?");
    }
}

void sim_check_after(sim *s, const coord_event *e) {
    uint64_t limit = (uint64_t)COP_HEARTBEAT_MS * COP_HEARTBEATS_MISSED * SIM_MS,
             now = sim_host_now(s);
    if (e->type != COORD_EVENT_TICK || s->host.stopped) return;
    check_suspicion(s);
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        const sim_session *x = &s->host.sessions[i];
        if (!x->live) continue;
        SIM_CHECK(s, "silent-is-given-up", now - x->heard_ns <= limit || !sim_has_listened(s),
                  "worker %u was not heard for %llu ms", i + 1, n((now - x->heard_ns) / SIM_MS));
        SIM_CHECK(s, "answers-in-time", !x->held || now - x->held_since <= COP_HOLD_MAX_MS * SIM_MS,
                  "a call of worker %u is held for %llu ms", i + 1,
                  n((now - x->held_since) / SIM_MS));
    }
}

/* ---- slots ---- */

void sim_check_answered(sim *s, uint64_t slot) {
    SIM_CHECK(s, "slots", s->host.slots[slot].state != SIM_OFFERED,
              "the result in slot %llu was neither kept nor dropped", n(slot));
}

void sim_check_slots(sim *s, uint64_t job) {
    for (uint64_t i = 1; i < s->host.slot_count; i++)
        SIM_CHECK(s, "slots", s->host.slots[i].state != SIM_KEPT || s->host.slots[i].job != job,
                  "job %llu is unloaded, and slot %llu keeps a gradient of it", n(job), n(i));
}

/* ---- lies ---- */

static bool is_quarantined(const sim *s, uint32_t peer) {
    for (uint32_t i = 0; i < s->host.session_count; i++) {
        coord_worker_view view;
        if (!s->host.sessions[i].live || s->host.sessions[i].peer != peer) continue;
        if (coord_core_worker(s->host.core, i + 1, &view) && view.quarantined) return true;
    }
    return false;
}

/* After this many correct audited results of a worker, its earlier results are trusted. */
#define BELIEVED_AFTER 50

static bool may_be_believed(const sim *s, uint64_t id, uint32_t w) {
    const sim_spec *spec = &s->specs[s->host.resident[id].spec];
    return (double)s->workers[w].results * spec->info.audit >= BELIEVED_AFTER;
}

void sim_check_lies(sim *s, uint64_t id) {
    const sim_job *job = &s->jobs[id];
    for (uint32_t w = 0; job->lied && w < s->worker_count; w++)
        SIM_CHECK(
            s, "liars-are-undone",
            !job->lied[w] || job->spoilt || may_be_believed(s, id, w) || !is_quarantined(s, w),
            "job %llu goes on after a lie of worker %u in step %llu", n(id), w, n(job->lied[w]));
}

static void note_lie(sim *s, const coord_action *a, uint32_t lie) {
    sim_job *job = &s->jobs[a->job];
    const sim_spec *spec = &s->specs[s->host.resident[a->job].spec];
    if (!lie) return;
    SIM_CHECK(s, "no-lie-is-averaged", spec->info.audit < 1,
              "job %llu, step %llu averages a lie, and all is audited", n(a->job), n(a->step));
    if (!job->lied) job->lied = cop_alloc_array(s->worker_count, sizeof *job->lied);
    COP_ASSERT(job->lied != NULL);
    if (!job->lied[lie - 1]) job->lied[lie - 1] = a->step;
}

/* Call when everything that was averaged after `step` is undone. Lies that were averaged earlier
 * remain. If the coordinator has restarted since, it no longer knows which worker to suspect. */
static void forget_lies_after(sim *s, uint64_t id, uint64_t step) {
    sim_job *job = &s->jobs[id];
    for (uint32_t w = 0; job->lied && w < s->worker_count; w++) {
        if (job->lied[w] > step) job->lied[w] = 0;
        job->spoilt = job->spoilt || (job->lied[w] && job->life != s->host.life);
    }
    job->life = s->host.life;
}

/* ---- versions ---- */

/* Up to this step, no sample may have been used twice in the epoch. At the end of the epoch, all
 * its samples must have been used. */
static void check_ledger(sim *s, uint64_t id, sim_spec *spec, uint64_t step) {
    const coord_job_info *info = &spec->info;
    uint64_t first = (step - 1) / info->steps_per_epoch * info->steps_per_epoch + 1;
    int32_t *sizes = cop_alloc_array(info->shards, sizeof *sizes);
    uint8_t *seen = cop_alloc_array(info->train_samples, 1);
    COP_ASSERT(sizes && seen);
    uint64_t applied = 0;
    for (uint64_t t = first; t <= step; t++) {
        const uint8_t *shards = s->jobs[id].applied + t * info->shards;
        const uint32_t *rows = sim_rows(spec, t);
        uint32_t at = 0;
        cop_shard_sizes(sim_batch_of(spec, t), info->shards, sizes);
        for (uint32_t shard = 0; shard < info->shards; shard++)
            for (int32_t i = 0; i < sizes[shard]; i++, at++) {
                seen[rows[at]] = (uint8_t)(seen[rows[at]] + shards[shard]);
                applied += shards[shard];
            }
    }
    for (uint32_t row = 0; row < info->train_samples; row++)
        SIM_CHECK(s, "sample-ledger", seen[row] <= 1, "job %llu: sample %u was used %u times",
                  n(id), row, seen[row]);
    uint64_t whole = info->last_keep ? info->train_samples : info->steps_per_epoch * info->batch;
    SIM_CHECK(s, "sample-ledger", step % info->steps_per_epoch || applied == whole,
              "job %llu: an epoch used %llu of %llu samples", n(id), n(applied), n(whole));
    cop_free(sizes);
    cop_free(seen);
}

void sim_note_applied(sim *s, const coord_action *a) {
    sim_job *job = &s->jobs[a->job];
    const sim_spec *spec = &s->specs[s->host.resident[a->job].spec];
    uint32_t shards = spec->info.shards;
    if (!job->applied) job->applied = cop_alloc_array(spec->info.steps + 1, shards);
    COP_ASSERT(job->applied != NULL);
    uint8_t *row = job->applied + a->step * shards;
    memset(row, 0, shards);
    for (uint32_t i = 0; i < a->update.count; i++) {
        const coord_block *b = &a->update.blocks[i];
        for (uint32_t k = 0; k < b->count; k++) row[b->first + k]++;
        note_lie(s, a, s->host.slots[b->slot].gradient.lie);
    }
}

void sim_check_version(sim *s, uint64_t id, const sim_resident *r) {
    sim_spec *spec = &s->specs[r->spec];
    const sim_reference *alone = sim_expect(spec, s->jobs[id].fingerprint, r->step);
    memset(s->jobs[id].kept, 0, sizeof s->jobs[id].kept);
    s->result->steps++;
    SIM_CHECK(s, "same-digest",
              !sim_is_trusted(s, id) ||
                  (r->weights == alone->weights && r->momentum == alone->momentum),
              "job %llu has other weights after step %llu than without faults", n(id), n(r->step));
    bool last = r->step % spec->info.steps_per_epoch == 0 || r->step == spec->info.steps;
    if (last) check_ledger(s, id, spec, r->step);
}

/* ---- what is on the disk ---- */

void sim_check_saved(sim *s, uint64_t job, uint64_t step) {
    s->jobs[job].saved = step;
}

void sim_check_discarded(sim *s, uint64_t job, uint64_t step) {
    if (step < s->jobs[job].saved) s->jobs[job].saved = step;
}

static bool metrics_may_miss(const sim *s) {
    if (sim_store_is_tight(s)) return true;
    for (uint32_t i = 0; i < s->fault_count; i++) {
        const sim_fault *f = &s->faults[i];
        bool loses = f->kind == SIM_DISK_FULL || f->kind == SIM_DISK_ERRORS;
        if (loses && f->at <= s->now) return true;
    }
    return false;
}

static void check_rows(sim *s, uint64_t id, uint64_t step) {
    if (metrics_may_miss(s)) return;
    for (uint64_t t = 1; t <= step; t++)
        SIM_CHECK(s, "metrics-stay", s->store.rows[id].steps[t / 64] >> t % 64 & 1,
                  "job %llu goes on after step %llu, and the metrics of step %llu are lost", n(id),
                  n(step), n(t));
}

static void after_load(sim_resident *r, sim_job *job) {
    r->pause_from = r->pause_requested ? r->step : UINT64_MAX;
    r->pause_requested = false;
    memset(job->kept, 0, sizeof job->kept);
}

void sim_check_loaded(sim *s, uint64_t id, sim_resident *r, const cop_checkpoint *c) {
    sim_job *job = &s->jobs[id];
    sim_spec *spec = &s->specs[r->spec];
    forget_lies_after(s, id, r->step);
    SIM_CHECK(s, "checkpoints-stay", r->step >= job->saved,
              "job %llu was saved at step %llu and is loaded at step %llu", n(id), n(job->saved),
              n(r->step));
    if (r->step == 0 && !s->store.rows[id].fingerprint) job->fingerprint = 0;
    SIM_CHECK(s, "pin-stays",
              !spec->info.pin_first || s->store.rows[id].fingerprint == job->fingerprint,
              "job %llu goes on after step %llu, and what it is pinned to is not in the store",
              n(id), n(r->step));
    const sim_reference *alone = sim_expect(spec, job->fingerprint, r->step);
    if (!sim_is_trusted(s, id)) return after_load(r, job);
    SIM_CHECK(s, "same-digest", r->weights == alone->weights && r->momentum == alone->momentum,
              "job %llu: the checkpoint of step %llu has other weights than were written", n(id),
              n(r->step));
    bool ended = r->step % spec->info.steps_per_epoch == 0;
    SIM_CHECK(s, "figures",
              c->train_loss_sum == (ended ? 0 : alone->epoch_loss) &&
                  c->train_correct == (ended ? 0 : alone->epoch_correct),
              "job %llu: the checkpoint of step %llu has other sums", n(id), n(r->step));
    check_rows(s, id, r->step);
    after_load(r, job);
}

/* ---- clients ---- */

void sim_check_acknowledged(sim *s, uint32_t client, uint64_t job) {
    const sim_row *row = job && job <= SIM_IDS_MAX ? &s->store.rows[job] : NULL;
    SIM_CHECK(s, "acknowledged-stays", row && row->exists && row->spec == client,
              "job %llu was acknowledged and is not in the store", n(job));
    s->jobs[job].acknowledged = true;
}

void sim_check_granted(sim *s, uint64_t job, coord_event_type request) {
    sim_job *j = &s->jobs[job];
    if (request == COORD_EVENT_JOB_CANCEL) j->cancel_acknowledged = true;
    if (request == COORD_EVENT_JOB_PAUSE) j->pause_acknowledged = true;
}

void sim_check_asked(sim *s, uint64_t job, coord_event_type request) {
    if (request == COORD_EVENT_JOB_RESUME) s->jobs[job].pause_acknowledged = false;
}

void sim_check_died(sim *s) {
    for (uint64_t id = 1; id <= SIM_IDS_MAX; id++) {
        SIM_CHECK(s, "acknowledged-stays", !s->jobs[id].acknowledged || s->store.rows[id].exists,
                  "job %llu was acknowledged and is lost", n(id));
        memset(s->jobs[id].kept, 0, sizeof s->jobs[id].kept);
    }
}

/* ---- the end ---- */

static bool can_go_on(const sim *s, const sim_job *job) {
    for (uint32_t w = 0; w < s->worker_count; w++) {
        bool fits = !job->fingerprint || job->fingerprint == s->workers[w].fingerprint;
        if (fits && !is_quarantined(s, w)) return true;
    }
    return false;
}

bool sim_nobody_is_left(const sim *s) {
    bool any = false;
    for (uint32_t i = 0; i < s->client_count; i++) {
        const sim_client *c = &s->clients[i];
        if (!c->acknowledged || c->request_count) return false;
        if (s->jobs[c->job].state >= COORD_COMPLETED) continue;
        if (can_go_on(s, &s->jobs[c->job])) return false;
        any = true;
    }
    return any && (s->nans || s->mangled_faults);
}

/* The slowness of the quickest worker that can do the job. If the job is audited, the slowness of
 * the second quickest (if there is one), because both may have to do all of it. */
static uint32_t slowness_of(const sim *s, const sim_spec *spec, const sim_job *job) {
    uint32_t first = 0, second = 0;
    for (uint32_t w = 0; w < s->worker_count; w++) {
        const sim_worker *x = &s->workers[w];
        bool fits = !job->fingerprint || job->fingerprint == x->fingerprint;
        if (!fits || is_quarantined(s, w)) continue;
        if (!first || x->slowness < first) {
            second = first;
            first = x->slowness;
        } else if (!second || x->slowness < second) {
            second = x->slowness;
        }
    }
    return spec->info.audit > 0 && second ? second : first;
}

uint64_t sim_longest(const sim *s) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->client_count; i++) {
        const sim_spec *spec = &s->specs[i];
        uint64_t shards = spec->info.steps * spec->info.shards;
        uint64_t slowness = slowness_of(s, spec, &s->jobs[s->clients[i].job]);
        sum += 2 * shards * (spec->shard_ns + spec->shard_ns / 2) * slowness;
    }
    return sum;
}

bool sim_all_done(const sim *s) {
    for (uint32_t i = 0; i < s->client_count; i++) {
        const sim_client *c = &s->clients[i];
        if (!c->acknowledged || c->request_count) return false;
        if (s->jobs[c->job].state < COORD_COMPLETED) return false;
        if (s->store.rows[c->job].state < COORD_COMPLETED) return false;
    }
    return s->now > s->quiet_ns && s->host.up && sim_ensembles_done(s);
}

static void check_result(sim *s, uint64_t id) {
    sim_spec *spec = &s->specs[s->store.rows[id].spec];
    sim_resident r = {.spec = s->store.rows[id].spec};
    cop_checkpoint c;
    if (s->store.rows[id].state != COORD_COMPLETED) return;
    s->result->completed++;
    SIM_CHECK(s, "same-digest",
              sim_read(s, id, UINT64_MAX, &r, &c) == COP_OK && sim_has_model(s, id),
              "job %llu is complete, and its weights are not there", n(id));
    const sim_reference *alone = sim_expect(spec, s->jobs[id].fingerprint, spec->info.steps);
    SIM_CHECK(s, "same-digest",
              r.step == spec->info.steps && (!sim_is_trusted(s, id) || r.weights == alone->weights),
              "job %llu ends with other weights than without faults", n(id));
    check_rows(s, id, spec->info.steps);
    SIM_CHECK(s, "figures", !spec->info.evaluate_samples || s->jobs[id].evaluated == r.step,
              "job %llu: the final weights were not evaluated", n(id));
    SIM_CHECK(s, "no-job-fails", !spec->diverges_at, "job %llu should have diverged", n(id));
}

void sim_check_end(sim *s) {
    uint32_t made[SIM_JOBS_MAX] = {0};
    for (uint64_t id = 1; id <= SIM_IDS_MAX; id++) {
        if (!s->store.rows[id].exists) continue;
        made[s->store.rows[id].spec]++;
        check_result(s, id);
    }
    for (uint32_t i = 0; i < s->client_count; i++)
        SIM_CHECK(s, "submitted-once", made[i] == 1, "submission %u became %u jobs", i, made[i]);
}
