/* The coordinator's decisions. See core.h: registry of workers, scheduler among jobs, rounds, life of a job. */
#include "coordinator/core.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "coordinator/round.h"

#define FAILURES_MAX     3  /* reports of "cannot compute" for one block before the job fails */
#define DEADLINE_FACTOR  20 /* a lease may take so many times the usual time */
#define SPEED_WINDOW     0.1

/* ---- state ---- */

typedef struct core_worker {
    uint64_t worker, fingerprint, heard_ns, joined_ns;
    uint64_t request, held_since_ns, have_job, have_version; /* the held PULL; request 0: none */
    uint64_t lease, lease_job, shards;
    double   ns_per_shard;
    uint32_t threads;
    bool     draining, told_fingerprint;
    char     name[COP_NAME_MAX];
} core_worker;

typedef enum core_phase {
    PHASE_IDLE = 1, /* QUEUED or PAUSED */
    PHASE_LOADING,
    PHASE_TRAINING, /* leases of a step are out */
    PHASE_UPDATING,
    PHASE_EVALUATING,
    PHASE_SAVING    /* waits for a last checkpoint: the end, a pause, a stop */
} core_phase;

typedef struct core_job {
    coord_job_info  info;
    core_phase      phase;
    coord_round      round;
    uint64_t        step; /* completed steps */
    coord_block    *blocks; /* of the update under way */
    bool            pause, evaluate_asked, saving, saving_final, diverged_told;
    coord_job_state after_save; /* PAUSED, COMPLETED or QUEUED (stop) */
    uint64_t        saved_step;
    double          loss_sum; /* of the epoch under way */
    uint64_t        samples, correct;
    double          seconds, best_error, last_loss, last_error;
    bool            has_loss, has_error, is_best;
    uint64_t        step_began_ns, run_began_ns, timed_samples;
    double          timed_seconds, shard_ns; /* usual time of one shard */
    uint64_t        share;  /* compute time received, for fair share */
    uint64_t        leases_given, leases_repeated, results_ignored;
    uint64_t        fingerprint;
} core_job;

struct coord_core {
    coord_core_config config;
    core_worker      *workers;
    uint32_t          worker_count, worker_capacity;
    core_job        **jobs; /* unfinished ones, by id */
    uint32_t          job_count, job_capacity;
    uint64_t          next_lease;
    bool              stopping, stopped;
    coord_actions    *out;
    bool              out_of_memory;
    coord_action      spill; /* never read: keeps callers simple when memory is out */
};

/* ---- actions ---- */

static coord_action *act(coord_core *core, coord_action_type type, uint64_t job)
{
        coord_actions      *out = core->out;
    if (out->count == out->capacity) {
        uint32_t      capacity = out->capacity ? out->capacity * 2 : 32;
        coord_action *items = cop_realloc(out->items, capacity * sizeof *items);
        if (!items) {
            core->out_of_memory = true;
            return &core->spill;
        }
        out->items = items;
        out->capacity = capacity;
    }
    coord_action *a = &out->items[out->count++];
    memset(a, 0, sizeof *a);
    a->type = type;
    a->job = job;
    return a;
}

static void tell(coord_core *core, uint64_t job, bool fine, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void tell(coord_core *core, uint64_t job, bool fine, const char *format, ...)
{
    coord_action *a = act(core, COORD_ACTION_EVENT, job);
    va_list       arguments;
    va_start(arguments, format);
    vsnprintf(a->text, sizeof a->text, format, arguments);
    va_end(arguments);
    a->ok = fine;
}

static void drop(coord_core *core, uint64_t job, uint64_t slot)
{
    if (slot) act(core, COORD_ACTION_DROP, job)->slot = slot;
}

static void set_state(coord_core *core, core_job *job, coord_job_state state, const char *text)
{
    job->info.state = state;
    coord_action *a = act(core, COORD_ACTION_STATE, job->info.job);
    a->state = state;
    a->step = job->step;
    snprintf(a->text, sizeof a->text, "%s", text ? text : "");
}

/* ---- look-up ---- */

static core_worker *find_worker(const coord_core *core, uint64_t worker)
{
    for (uint32_t i = 0; i < core->worker_count; i++)
        if (core->workers[i].worker == worker) return &core->workers[i];
    return NULL;
}

static core_job *find_job(const coord_core *core, uint64_t job)
{
    uint32_t low = 0, high = core->job_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (core->jobs[middle]->info.job < job) low = middle + 1;
        else high = middle;
    }
    return low < core->job_count && core->jobs[low]->info.job == job ? core->jobs[low] : NULL;
}

static void remove_job(coord_core *core, core_job *job)
{
    uint32_t i = 0;
    while (core->jobs[i] != job) i++;
    memmove(&core->jobs[i], &core->jobs[i + 1], (core->job_count - i - 1) * sizeof *core->jobs);
    core->job_count--;
    round_fini(&job->round);
    cop_free(job->blocks);
    cop_free(job);
}

static bool has_leases(const core_job *job)
{
    return job->phase == PHASE_TRAINING || job->phase == PHASE_EVALUATING;
}

static bool is_resident(const core_job *job)
{
    return job->phase != PHASE_IDLE;
}

/* May this worker compute for this job? */
static bool eligible(const core_job *job, const core_worker *w)
{
    return !w->draining && (!job->fingerprint || job->fingerprint == w->fingerprint);
}

/* ---- rounds of a job ---- */

static uint32_t batch_of_step(const coord_job_info *info, uint64_t step)
{
    uint64_t within = (step - 1) % info->steps_per_epoch, begin = within * info->batch;
    uint64_t left = info->train_samples - begin;
    return left < info->batch ? (uint32_t)left : info->batch;
}

static uint32_t pool_speeds(const coord_core *core, const core_job *job, uint32_t *threads)
{
    uint32_t count = 0, limit = job->info.workers_max ? job->info.workers_max : COP_SHARDS_MAX;
    for (uint32_t i = 0; i < core->worker_count && count < limit && count < COP_SHARDS_MAX; i++)
        if (eligible(job, &core->workers[i])) threads[count++] = core->workers[i].threads;
    return count;
}

static void job_failed(coord_core *core, core_job *job, const char *text);

static void begin_step(coord_core *core, core_job *job, uint64_t now)
{
    uint32_t threads[COP_SHARDS_MAX];
    uint32_t workers = pool_speeds(core, job, threads);
    uint32_t size = round_block_size(job->info.shards, threads, workers, core->config.lease_overhead_percent);
    uint64_t step = job->step + 1;
    if (round_begin_train(&job->round, step, batch_of_step(&job->info, step), job->info.shards, size)) {
        job_failed(core, job, "the coordinator is out of memory");
        return;
    }
    job->phase = PHASE_TRAINING;
    job->step_began_ns = now;
}

static void begin_evaluation(coord_core *core, core_job *job)
{
    if (round_begin_evaluate(&job->round, job->step, job->info.evaluate_samples)) job_failed(core, job, "the coordinator is out of memory");
    else job->phase = PHASE_EVALUATING;
    job->evaluate_asked = false;
}

/* Results that were kept for a round that will not be finished. */
static void drop_round(coord_core *core, core_job *job)
{
    for (uint32_t i = 0; i < job->round.count; i++) {
        if (job->round.blocks[i].state == ROUND_DONE) drop(core, job->info.job, job->round.blocks[i].slot);
        job->round.blocks[i].slot = 0;
    }
    job->round.count = job->round.done = 0;
}

/* ---- life of a job ---- */

static void end_job(coord_core *core, core_job *job, coord_job_state state, const char *text)
{
    bool resident = is_resident(job);
    if (has_leases(job)) drop_round(core, job);
    if (job->phase == PHASE_UPDATING)
        for (uint32_t i = 0; i < job->round.count; i++) job->round.blocks[i].slot = 0; /* the host's: freed with the update */
    set_state(core, job, state, text);
    if (resident) act(core, COORD_ACTION_UNLOAD, job->info.job);
    remove_job(core, job);
}

static void job_failed(coord_core *core, core_job *job, const char *text)
{
    end_job(core, job, COORD_FAILED, text);
}

static void save(coord_core *core, core_job *job, bool final)
{
    coord_action *a = act(core, COORD_ACTION_CHECKPOINT, job->info.job);
    a->step = job->step;
    a->checkpoint.loss_sum = job->loss_sum;
    a->checkpoint.samples = job->samples;
    a->checkpoint.correct = job->correct;
    a->checkpoint.seconds = job->seconds;
    a->checkpoint.best_error = job->best_error;
    a->checkpoint.best = job->is_best;
    a->checkpoint.final = final;
    job->saving = true;
    job->saving_final = final;
    job->saved_step = job->step;
    job->is_best = false;
}

/* Wait for a last checkpoint, then become `after`. */
static void leave(coord_core *core, core_job *job, coord_job_state after)
{
    job->phase = PHASE_SAVING;
    job->after_save = after;
    if (!job->saving) save(core, job, after == COORD_COMPLETED);
}

static bool checkpoint_due(const core_job *job)
{
    return job->info.checkpoint_every && job->step % job->info.checkpoint_every == 0 && job->saved_step != job->step;
}

/* After a step and what belongs to it: the end, a pause, a checkpoint, or the next step. */
static void go_on(coord_core *core, core_job *job, uint64_t now)
{
    if (job->step >= job->info.steps) {
        leave(core, job, COORD_COMPLETED);
        return;
    }
    if (core->stopping) {
        leave(core, job, COORD_QUEUED);
        return;
    }
    if (job->pause) {
        leave(core, job, COORD_PAUSED);
        return;
    }
    if (checkpoint_due(job) && !job->saving) save(core, job, false);
    begin_step(core, job, now);
}

static bool evaluation_due(const core_job *job)
{
    if (!job->info.evaluate_samples) return false;
    if (job->step >= job->info.steps || job->evaluate_asked) return true;
    uint64_t every = job->info.steps_per_epoch * job->info.evaluate_every;
    return every && job->step % every == 0;
}

static void fill_metrics(coord_action *a, const core_job *job, double loss, uint64_t samples, uint64_t correct)
{
    a->step = job->step;
    a->metrics.loss_sum = loss;
    a->metrics.samples = samples;
    a->metrics.correct = correct;
    a->metrics.seconds = job->seconds;
}

static void step_metrics(coord_core *core, core_job *job)
{
    uint64_t samples = 0, correct = 0, compute = 0;
    for (uint32_t i = 0; i < job->round.count; i++) {
        samples += job->round.blocks[i].samples;
        correct += job->round.blocks[i].correct;
        compute += job->round.blocks[i].compute_ns;
    }
    double loss = round_loss(&job->round);
    job->loss_sum += loss;
    job->samples += samples;
    job->correct += correct;
    coord_action *a = act(core, COORD_ACTION_METRICS, job->info.job);
    fill_metrics(a, job, loss, samples, correct);
    a->metrics.compute_ns = compute;
    job->has_loss = true;
    job->last_loss = job->loss_sum / (double)job->samples;
    if (job->step % job->info.steps_per_epoch != 0 && job->step < job->info.steps) return;
    fill_metrics(act(core, COORD_ACTION_EPOCH, job->info.job), job, job->loss_sum, job->samples, job->correct);
    if (job->step % job->info.steps_per_epoch == 0) {
        job->loss_sum = 0;
        job->samples = job->correct = 0;
    }
}

static void step_done(coord_core *core, core_job *job, uint64_t now)
{
    double seconds = (double)(now - job->step_began_ns) * 1e-9;
    job->step = job->round.step;
    job->seconds += seconds;
    /* Speed over the last steps: old ones fade. */
    job->timed_seconds = job->timed_seconds * (1 - SPEED_WINDOW) + seconds;
    job->timed_samples = (uint64_t)((double)job->timed_samples * (1 - SPEED_WINDOW)) + job->round.batch;
    step_metrics(core, job);
    if (evaluation_due(job)) begin_evaluation(core, job);
    else go_on(core, job, now);
}

static void evaluation_done(coord_core *core, core_job *job, uint64_t now)
{
    uint64_t samples = 0, correct = 0;
    for (uint32_t i = 0; i < job->round.count; i++) {
        samples += job->round.blocks[i].samples;
        correct += job->round.blocks[i].correct;
    }
    fill_metrics(act(core, COORD_ACTION_EVALUATED, job->info.job), job, round_loss(&job->round), samples, correct);
    job->last_error = 1 - (double)correct / (double)samples;
    job->has_error = true;
    if (job->best_error < 0 || job->last_error < job->best_error) {
        job->best_error = job->last_error;
        job->is_best = true;
    }
    go_on(core, job, now);
}

static void round_finished(coord_core *core, core_job *job, uint64_t now)
{
    if (job->round.evaluate) {
        evaluation_done(core, job, now);
        return;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < job->round.count; i++) {
        const round_block *b = &job->round.blocks[i];
        if (!b->absent) job->blocks[count++] = (coord_block){.first = b->first, .count = b->count, .slot = b->slot};
    }
    job->phase = PHASE_UPDATING;
    coord_action *a = act(core, COORD_ACTION_UPDATE, job->info.job);
    a->step = job->round.step;
    a->update.blocks = job->blocks;
    a->update.count = count;
    a->update.batch = job->round.batch;
}

/* ---- scheduling ---- */

/* Of two jobs, which goes first: priority, then the smaller share of compute time, then age. */
static bool goes_before(const core_job *a, const core_job *b)
{
    if (a->info.priority != b->info.priority) return a->info.priority > b->info.priority;
    if (a->share != b->share) return a->share < b->share;
    return a->info.job < b->info.job;
}

static void load_jobs(coord_core *core)
{
    if (core->stopping) return;
    for (;;) {
        uint32_t  resident = 0;
        core_job *best = NULL;
        for (uint32_t i = 0; i < core->job_count; i++) {
            core_job *job = core->jobs[i];
            resident += is_resident(job);
            if (is_resident(job) || job->info.state != COORD_QUEUED) continue;
            bool older = best && (job->info.priority < best->info.priority ||
                                  (job->info.priority == best->info.priority && job->info.job > best->info.job));
            if (!best || !older) best = job;
        }
        if (!best || resident >= core->config.jobs_running_max) return;
        best->phase = PHASE_LOADING;
        act(core, COORD_ACTION_LOAD, best->info.job);
    }
}

/* A job that comes to the pool later starts with the share of the one that has had least: it does not starve the others. */
static uint64_t least_share(const coord_core *core)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < core->job_count; i++)
        if (has_leases(core->jobs[i]) && core->jobs[i]->share < least) least = core->jobs[i]->share;
    return least == UINT64_MAX ? 0 : least;
}

static uint64_t deadline_of(const coord_core *core, const core_job *job, const round_block *b, uint64_t now)
{
    double shards = job->round.evaluate ? 1 : b->count;
    double usual = job->shard_ns * shards * DEADLINE_FACTOR;
    return now + core->config.lease_floor_ns + (uint64_t)usual;
}

static uint32_t eligible_workers(const coord_core *core, const core_job *job)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < core->worker_count; i++) count += eligible(job, &core->workers[i]);
    return count;
}

static bool may_have_more(const core_job *job)
{
    return !job->info.workers_max || round_holders(&job->round) < job->info.workers_max;
}

static void give(coord_core *core, core_job *job, core_worker *w, int index, uint64_t now)
{
    round_block *b = &job->round.blocks[index];
    if (job->info.pin_first && !job->fingerprint) {
        job->fingerprint = w->fingerprint;
        tell(core, job->info.job, true, "job %llu is pinned to the OpenBLAS of worker %s", (unsigned long long)job->info.job, w->name);
    }
    uint64_t lease = ++core->next_lease, deadline = deadline_of(core, job, b, now);
    bool     again = b->attempts > 0;
    round_give(&job->round, index, w->worker, lease, now, deadline);
    job->leases_given++;
    job->leases_repeated += again;
    if (again) tell(core, job->info.job, true, "step %llu: shards %u to %u are given again, to worker %s", (unsigned long long)job->round.step,
                    b->first, b->first + b->count - 1, w->name);
    coord_action *a = act(core, COORD_ACTION_LEASE, job->info.job);
    a->step = job->round.step;
    a->worker = w->worker;
    a->request = w->request;
    a->lease.lease = lease;
    a->lease.version = job->step;
    a->lease.deadline_ns = deadline;
    a->lease.attempt = b->attempts;
    a->lease.first = b->first;
    a->lease.count = b->count;
    a->lease.batch = job->round.batch;
    a->lease.evaluate = job->round.evaluate;
    w->request = 0;
    w->lease = lease;
    w->lease_job = job->info.job;
}

static void tell_other_fingerprint(coord_core *core, core_job *job, core_worker *w)
{
    if (w->told_fingerprint || w->draining || !job->fingerprint || job->fingerprint == w->fingerprint) return;
    w->told_fingerprint = true;
    tell(core, job->info.job, false, "worker %s gets no lease of job %llu: numerics is openblas, and its OpenBLAS or CPU differs from the one that the job is pinned to",
         w->name, (unsigned long long)job->info.job);
}

/* The best job for a worker that waits, and the block to give. */
static core_job *choose(coord_core *core, core_worker *w, uint64_t now, int *block)
{
    core_job *best = NULL;
    for (uint32_t i = 0; i < core->job_count; i++) {
        core_job *job = core->jobs[i];
        if (!has_leases(job)) continue;
        if (!eligible(job, w)) {
            tell_other_fingerprint(core, job, w);
            continue;
        }
        if ((best && !goes_before(job, best)) || !may_have_more(job)) continue;
        int index = round_pick(&job->round, w->worker, now, eligible_workers(core, job) <= 1);
        if (index < 0) continue;
        best = job;
        *block = index;
    }
    return best;
}

static void answer_nothing(coord_core *core, core_worker *w, bool drain_it)
{
    coord_action *a = act(core, COORD_ACTION_NOTHING, 0);
    a->worker = w->worker;
    a->request = w->request;
    a->nothing.drain = drain_it;
    w->request = 0;
}

static void serve_workers(coord_core *core, uint64_t now)
{
    for (uint32_t i = 0; i < core->worker_count; i++) {
        core_worker *w = &core->workers[i];
        if (!w->request) continue;
        if (w->draining) {
            answer_nothing(core, w, true);
            continue;
        }
        int       block = -1;
        core_job *job = core->stopped ? NULL : choose(core, w, now, &block);
        if (job) give(core, job, w, block, now);
        else if (now - w->held_since_ns > (uint64_t)COP_HOLD_MAX_MS * 1000000) answer_nothing(core, w, false);
    }
}

/* ---- events: workers ---- */

static cop_err on_joined(coord_core *core, const coord_event *e, uint64_t now)
{
    if (core->worker_count == core->worker_capacity) {
        uint32_t     capacity = core->worker_capacity ? core->worker_capacity * 2 : 16;
        core_worker *workers = cop_realloc(core->workers, capacity * sizeof *workers);
        if (!workers) return COP_ERR_NO_MEMORY;
        core->workers = workers;
        core->worker_capacity = capacity;
    }
    core_worker *w = &core->workers[core->worker_count++];
    *w = (core_worker){.worker = e->worker, .threads = e->joined.threads ? e->joined.threads : 1, .fingerprint = e->joined.fingerprint,
                       .heard_ns = now, .joined_ns = now};
    snprintf(w->name, sizeof w->name, "%s", e->joined.name ? e->joined.name : "");
    tell(core, 0, true, "worker %s joined", w->name);
    return COP_OK;
}

static void forget_worker(coord_core *core, core_worker *w, const char *why)
{
    uint32_t returned = 0;
    for (uint32_t i = 0; i < core->job_count; i++)
        if (has_leases(core->jobs[i])) returned += round_forget(&core->jobs[i]->round, w->worker);
    tell(core, 0, returned == 0, "worker %s %s%s", w->name, why, returned ? "; its shards are given to others" : "");
    *w = core->workers[--core->worker_count];
}

static void watch_silence(coord_core *core, uint64_t now)
{
    uint64_t limit = core->config.heartbeat_ns * COP_HEARTBEATS_MISSED;
    for (uint32_t i = core->worker_count; core->config.heartbeats && i-- > 0;) {
        core_worker *w = &core->workers[i];
        if (now - w->heard_ns <= limit) continue;
        act(core, COORD_ACTION_DISCONNECT, 0)->worker = w->worker;
        forget_worker(core, w, "is silent and was given up");
    }
}

static void on_pull(coord_core *core, const coord_event *e, uint64_t now)
{
    core_worker *w = find_worker(core, e->worker);
    if (!w) {
        coord_action *a = act(core, COORD_ACTION_NOTHING, 0);
        a->worker = e->worker;
        a->request = e->pull.request;
        a->nothing.unknown = true;
        return;
    }
    w->heard_ns = now;
    w->request = e->pull.request;
    w->held_since_ns = now;
    w->have_job = e->pull.have_job;
    w->have_version = e->pull.have_version;
    /* A worker asks only when it computes nothing: a lease that it still had was lost on its way. */
    if (!w->lease) return;
    for (uint32_t i = 0; i < core->job_count; i++)
        if (has_leases(core->jobs[i])) round_forget(&core->jobs[i]->round, w->worker);
    w->lease = w->lease_job = 0;
}

static void learn_speed(core_job *job, core_worker *w, const coord_result_info *r)
{
    double per = (double)r->compute_ns / (r->evaluate ? 1.0 : (double)r->count);
    job->share += r->compute_ns;
    if (r->evaluate) return;
    job->shard_ns = job->shard_ns > 0 ? 0.9 * job->shard_ns + 0.1 * per : per;
    if (!w) return;
    w->ns_per_shard = w->ns_per_shard > 0 ? 0.9 * w->ns_per_shard + 0.1 * per : per;
    w->shards += r->count;
}

static void diverged(coord_core *core, core_job *job, const coord_result_info *r)
{
    coord_action *a = act(core, COORD_ACTION_DIVERGED, job->info.job);
    a->step = r->step;
    a->slot = r->slot;
    a->lease.first = r->first;
    a->lease.count = r->count;
    job->diverged_told = true;
}

/* A result of the round that is not finite, or that could not be computed: somebody else tries; then the job is at fault. */
static void bad_result(coord_core *core, core_job *job, int index, int holder, const coord_event *e)
{
    const coord_result_info *r = &e->result;
    round_block             *b = &job->round.blocks[index];
    round_return(&job->round, index, holder);
    if (r->failed) {
        drop(core, job->info.job, r->slot);
        tell(core, job->info.job, false, "step %llu: a worker could not compute shards %u to %u: %s", (unsigned long long)r->step, r->first,
             r->first + r->count - 1, e->text ? e->text : "no reason given");
        if (++b->failures >= FAILURES_MAX) job_failed(core, job, e->text ? e->text : "workers cannot compute it");
        return;
    }
    if (++b->not_finite >= 2) {
        if (!job->diverged_told) diverged(core, job, r);
        else drop(core, job->info.job, r->slot);
        return;
    }
    drop(core, job->info.job, r->slot);
    tell(core, job->info.job, false, "step %llu: shards %u to %u gave a value that is not finite; computed again", (unsigned long long)r->step,
         r->first, r->first + r->count - 1);
}

static void on_result(coord_core *core, const coord_event *e, uint64_t now)
{
    const coord_result_info *r = &e->result;
    core_worker             *w = find_worker(core, e->worker);
    core_job                *job = find_job(core, r->job);
    if (w) {
        w->heard_ns = now;
        if (w->lease == r->lease) w->lease = w->lease_job = 0;
    }
    int  holder = 0, index = job && has_leases(job) ? round_find(&job->round, r->lease, &holder) : -1;
    bool fits = false;
    if (index >= 0) {
        const round_block *b = &job->round.blocks[index];
        fits = r->step == job->round.step && r->evaluate == job->round.evaluate && r->first == b->first && r->count == b->count &&
               b->holder[holder].worker == e->worker && b->holder[holder].attempt == r->attempt && b->state == ROUND_LEASED;
    }
    if (!fits) { /* late, double, stale or not ours */
        if (job) job->results_ignored++;
        drop(core, r->job, r->slot);
        return;
    }
    if (r->failed || !r->finite) {
        bad_result(core, job, index, holder, e);
        return;
    }
    learn_speed(job, w, r);
    round_finish(&job->round, index, r);
    if (r->evaluate) {
        drop(core, r->job, r->slot);
        job->round.blocks[index].slot = 0;
    } else {
        act(core, COORD_ACTION_KEEP, r->job)->slot = r->slot;
    }
    if (round_complete(&job->round)) round_finished(core, job, now);
}

/* ---- events: jobs ---- */

static cop_err on_added(coord_core *core, const coord_event *e)
{
    COP_ASSERT(e->info.job && e->info.shards && e->info.batch && e->info.steps && e->info.steps_per_epoch);
    if (core->job_count == core->job_capacity) {
        uint32_t   capacity = core->job_capacity ? core->job_capacity * 2 : 16;
        core_job **jobs = cop_realloc(core->jobs, capacity * sizeof *jobs);
        if (!jobs) return COP_ERR_NO_MEMORY;
        core->jobs = jobs;
        core->job_capacity = capacity;
    }
    core_job *job = cop_alloc(sizeof *job);
    if (job) job->blocks = cop_alloc_array(e->info.shards, sizeof *job->blocks);
    if (!job || !job->blocks) {
        cop_free(job);
        return COP_ERR_NO_MEMORY;
    }
    job->info = e->info;
    job->phase = PHASE_IDLE;
    job->best_error = -1;
    job->fingerprint = e->info.fingerprint;
    uint32_t at = core->job_count;
    while (at > 0 && core->jobs[at - 1]->info.job > e->info.job) at--;
    memmove(&core->jobs[at + 1], &core->jobs[at], (core->job_count - at) * sizeof *core->jobs);
    core->jobs[at] = job;
    core->job_count++;
    return COP_OK;
}

static void on_loaded(coord_core *core, core_job *job, const coord_event *e, uint64_t now)
{
    if (job->phase != PHASE_LOADING) return;
    job->step = job->saved_step = e->loaded.step;
    job->loss_sum = e->loaded.loss_sum;
    job->samples = e->loaded.samples;
    job->correct = e->loaded.correct;
    job->seconds = e->loaded.seconds;
    job->best_error = e->loaded.best_error;
    job->share = least_share(core);
    job->run_began_ns = now;
    set_state(core, job, COORD_RUNNING, NULL);
    if (job->step >= job->info.steps && evaluation_due(job)) begin_evaluation(core, job);
    else go_on(core, job, now);
}

static void on_updated(coord_core *core, core_job *job, const coord_event *e, uint64_t now)
{
    if (job->phase != PHASE_UPDATING || e->step != job->round.step) return;
    if (e->ok) {
        step_done(core, job, now);
        return;
    }
    /* A gradient was not finite although its loss was: the block that the host names is computed once more; a second time, the job has diverged. */
    uint32_t i = 0;
    while (i < job->round.count && job->round.blocks[i].first != e->result.first) i++;
    COP_ASSERT(i < job->round.count && job->round.blocks[i].state == ROUND_DONE);
    round_block *b = &job->round.blocks[i];
    job->phase = PHASE_TRAINING;
    b->state = ROUND_PENDING;
    b->urgent = true;
    job->round.done--;
    uint64_t slot = b->slot;
    b->slot = 0;
    if (++b->not_finite >= 2) {
        coord_result_info r = {.step = job->round.step, .slot = slot, .first = b->first, .count = b->count};
        diverged(core, job, &r);
        return;
    }
    drop(core, job->info.job, slot);
    tell(core, job->info.job, false, "step %llu: the gradient of shards %u to %u is not finite; computed again", (unsigned long long)job->round.step,
         b->first, b->first + b->count - 1);
}

static void on_checkpointed(coord_core *core, core_job *job, const coord_event *e)
{
    bool final = job->saving_final, wanted_final = job->after_save == COORD_COMPLETED;
    job->saving = job->saving_final = false;
    if (!e->ok) tell(core, job->info.job, false, "the checkpoint of step %llu could not be written: %s", (unsigned long long)e->step, e->text ? e->text : "");
    if (job->phase != PHASE_SAVING) return;
    if (e->step != job->step || (wanted_final && !final)) { /* an older one was under way: now the last one */
        save(core, job, wanted_final);
        return;
    }
    if (!wanted_final) {
        job->phase = PHASE_IDLE;
        job->pause = false;
        act(core, COORD_ACTION_UNLOAD, job->info.job);
        set_state(core, job, job->after_save, NULL);
        return;
    }
    char text[300];
    snprintf(text, sizeof text, "the final weights could not be written: %s", e->text ? e->text : "");
    if (e->ok) end_job(core, job, COORD_COMPLETED, NULL);
    else job_failed(core, job, text);
}

static void on_pause(coord_core *core, core_job *job)
{
    if (job->phase == PHASE_IDLE) set_state(core, job, COORD_PAUSED, NULL);
    else job->pause = true; /* within a step: go_on sees it */
}

/* A job without workers cannot finish its step: it is set aside as it is; the step is computed anew later. */
static bool nobody_works(const coord_core *core, const core_job *job)
{
    return has_leases(job) && round_holders(&job->round) == 0 && eligible_workers(core, job) == 0;
}

static void set_aside_stranded(coord_core *core)
{
    for (uint32_t i = 0; i < core->job_count; i++) {
        core_job *job = core->jobs[i];
        if (!(job->pause || core->stopping) || !nobody_works(core, job)) continue;
        drop_round(core, job);
        leave(core, job, core->stopping ? COORD_QUEUED : COORD_PAUSED);
    }
}

static void watch_timeouts(coord_core *core, uint64_t now)
{
    for (uint32_t i = core->job_count; i-- > 0;) {
        core_job *job = core->jobs[i];
        if (job->info.timeout_ns && job->info.state == COORD_RUNNING && now - job->run_began_ns > job->info.timeout_ns)
            job_failed(core, job, "limits.timeout has passed");
    }
}

static void check_stopped(coord_core *core)
{
    if (!core->stopping || core->stopped) return;
    for (uint32_t i = 0; i < core->job_count; i++)
        if (is_resident(core->jobs[i]) || core->jobs[i]->saving) return;
    core->stopped = true;
    act(core, COORD_ACTION_STOPPED, 0);
}

static void on_job_event(coord_core *core, const coord_event *e, uint64_t now)
{
    core_job *job = find_job(core, e->job);
    if (!job) return; /* ended meanwhile */
    switch (e->type) {
    case COORD_EVENT_JOB_LOADED: on_loaded(core, job, e, now); break;
    case COORD_EVENT_JOB_FAILED: job_failed(core, job, e->text ? e->text : "failed"); break;
    case COORD_EVENT_JOB_PAUSE: on_pause(core, job); break;
    case COORD_EVENT_JOB_RESUME:
        job->pause = false;
        if (job->phase == PHASE_IDLE && job->info.state == COORD_PAUSED) set_state(core, job, COORD_QUEUED, NULL);
        if (job->phase == PHASE_SAVING && job->after_save == COORD_PAUSED) job->after_save = COORD_QUEUED;
        break;
    case COORD_EVENT_JOB_CANCEL: end_job(core, job, COORD_CANCELED, NULL); break;
    case COORD_EVENT_JOB_EVALUATE: job->evaluate_asked = job->info.evaluate_samples > 0; break;
    case COORD_EVENT_UPDATED: on_updated(core, job, e, now); break;
    case COORD_EVENT_CHECKPOINTED: on_checkpointed(core, job, e); break;
    default: COP_ASSERT(!"an event about a job");
    }
}

/* ---- entry ---- */

static cop_err take_event(coord_core *core, const coord_event *e, uint64_t now)
{
    core_worker *w;
    switch (e->type) {
    case COORD_EVENT_TICK:
        watch_silence(core, now);
        watch_timeouts(core, now);
        return COP_OK;
    case COORD_EVENT_WORKER_JOINED: return on_joined(core, e, now);
    case COORD_EVENT_WORKER_GONE:
        if ((w = find_worker(core, e->worker))) forget_worker(core, w, "has gone");
        return COP_OK;
    case COORD_EVENT_WORKER_DRAIN:
        if ((w = find_worker(core, e->worker))) w->draining = true;
        return COP_OK;
    case COORD_EVENT_HEARTBEAT:
        if ((w = find_worker(core, e->worker))) w->heard_ns = now;
        return COP_OK;
    case COORD_EVENT_PULL: on_pull(core, e, now); return COP_OK;
    case COORD_EVENT_RESULT: on_result(core, e, now); return COP_OK;
    case COORD_EVENT_JOB_ADDED: return on_added(core, e);
    case COORD_EVENT_STOP: core->stopping = true; return COP_OK;
    default: on_job_event(core, e, now); return COP_OK;
    }
}

static void check_invariants(const coord_core *core)
{
#ifdef COP_DEBUG
    for (uint32_t i = 0; i < core->job_count; i++) round_check(&core->jobs[i]->round);
    for (uint32_t i = 1; i < core->job_count; i++) COP_ASSERT(core->jobs[i - 1]->info.job < core->jobs[i]->info.job);
#else
    (void)core;
#endif
}

cop_err coord_core_step(coord_core *core, const coord_event *event, uint64_t now_ns, coord_actions *out)
{
    out->count = 0;
    core->out = out;
    core->out_of_memory = false;
    COP_TRY(take_event(core, event, now_ns));
    set_aside_stranded(core);
    load_jobs(core);
    serve_workers(core, now_ns);
    check_stopped(core);
    check_invariants(core);
    return core->out_of_memory ? COP_ERR_NO_MEMORY : COP_OK;
}

void coord_actions_fini(coord_actions *actions)
{
    cop_free(actions->items);
    *actions = (coord_actions){0};
}

cop_err coord_core_create(const coord_core_config *config, coord_core **out)
{
    coord_core *core = cop_alloc(sizeof *core);
    if (!core) return COP_ERR_NO_MEMORY;
    core->config = *config;
    if (!core->config.jobs_running_max) core->config.jobs_running_max = 4;
    if (!core->config.lease_floor_ns) core->config.lease_floor_ns = 5000000000u;
    if (!core->config.lease_overhead_percent) core->config.lease_overhead_percent = 25;
    if (!core->config.heartbeat_ns) core->config.heartbeat_ns = (uint64_t)COP_HEARTBEAT_MS * 1000000;
    *out = core;
    return COP_OK;
}

void coord_core_destroy(coord_core *core)
{
    if (!core) return;
    while (core->job_count) remove_job(core, core->jobs[core->job_count - 1]);
    cop_free(core->jobs);
    cop_free(core->workers);
    cop_free(core);
}

/* ---- views ---- */

static const char *what_it_waits_for(const coord_core *core, const core_job *job)
{
    if (job->info.state == COORD_QUEUED && job->phase == PHASE_IDLE) return "its turn";
    if (job->phase == PHASE_LOADING) return "its data";
    if (has_leases(job) && round_holders(&job->round) == 0) return eligible_workers(core, job) ? "a free worker" : "workers";
    return NULL;
}

bool coord_core_job(const coord_core *core, uint64_t id, uint64_t now_ns, coord_job_view *out)
{
    const core_job *job = find_job(core, id);
    (void)now_ns;
    if (!job) return false;
    *out = (coord_job_view){.info = job->info, .step = job->step, .epoch = (double)job->step / (double)job->info.steps_per_epoch,
                            .workers = has_leases(job) ? round_holders(&job->round) : 0, .leases_given = job->leases_given,
                            .leases_repeated = job->leases_repeated, .results_ignored = job->results_ignored, .seconds = job->seconds,
                            .loss = job->last_loss, .error = job->last_error, .best_error = job->best_error,
                            .has_loss = job->has_loss, .has_error = job->has_error, .waiting_for = what_it_waits_for(core, job)};
    if (job->timed_seconds > 0) {
        out->samples_per_s = (double)job->timed_samples / job->timed_seconds;
        out->eta_seconds = (double)(job->info.steps - job->step) * job->info.batch / out->samples_per_s;
    }
    return true;
}

uint32_t coord_core_worker_count(const coord_core *core)
{
    return core->worker_count;
}

static void view_worker(const core_worker *w, coord_worker_view *out)
{
    *out = (coord_worker_view){.worker = w->worker, .job = w->lease_job, .lease = w->lease, .shards = w->shards, .joined_ns = w->joined_ns,
                               .name = w->name, .threads = w->threads, .draining = w->draining, .computing = w->lease != 0,
                               .ms_per_shard = w->ns_per_shard * 1e-6};
}

bool coord_core_worker_at(const coord_core *core, uint32_t index, coord_worker_view *out)
{
    if (index >= core->worker_count) return false;
    view_worker(&core->workers[index], out);
    return true;
}

bool coord_core_worker(const coord_core *core, uint64_t worker, coord_worker_view *out)
{
    const core_worker *w = find_worker(core, worker);
    if (w) view_worker(w, out);
    return w != NULL;
}
