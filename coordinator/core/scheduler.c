/* Which job becomes resident, and which worker gets which block. Jobs share the pool by priority
 * (higher first), then by compute time received. A worker gets one lease per PULL; the worker that
 * has waited longest is served first. Only resident jobs are examined, so ten thousand queued ones
 * cost nothing here. */
#include <string.h>

#include "common/base/injected_bugs.h"
#include "common/base/saturate.h"
#include "coordinator/core/core_state.h"
#include "coordinator/core/partition.h"

/* least number of steps between two plans if only workers' times have changed */
#define PLAN_STEPS 8
/* number of waiting workers that are considered for a copy of a slow block */
#define COPIERS_MAX 16
/* Before a slow worker gets a block, this number of workers is examined for rivals: quicker workers
 * that are or will soon be free */
#define RIVALS_MAX 64
/* a rival must be quicker by this factor */
#define RIVAL_QUICKER 1.25
/* a worker that has been idle for longer than this, in ns, was passed over for another reason, and
 * is not counted as a rival */
#define RIVAL_IDLE_NS 50000000
/* a block suits a worker if it takes the worker at most this many times the planned length of the
 * step */
#define SPAN_SLACK 1.1
/* After one event has examined this many workers that can get no lease, it stops looking for
 * work. */
#define IN_VAIN_MAX 64
/* shortest time between two searches for blocks to copy, in ns */
#define COPY_PAUSE_NS 1000000

/* ---- the queue of jobs ---- */

static bool is_queued(const core_job *job) {
    return job->phase == PHASE_IDLE && job->info.state == COORD_QUEUED;
}

static bool queued_before(const core_job *a, const core_job *b) {
    if (a->info.priority != b->info.priority) return a->info.priority > b->info.priority;
    return a->info.job < b->info.job;
}

static void place(coord_core *core, uint32_t at, core_job *job) {
    core->queue[at] = job;
    job->queue_place = at + 1;
}

static void sift_up(coord_core *core, uint32_t at, core_job *job) {
    for (; at && queued_before(job, core->queue[(at - 1) / 2]); at = (at - 1) / 2)
        place(core, at, core->queue[(at - 1) / 2]);
    place(core, at, job);
}

static void sift_down(coord_core *core, uint32_t at, core_job *job) {
    for (uint32_t child; (child = 2 * at + 1) < core->queue_count; at = child) {
        if (child + 1 < core->queue_count &&
            queued_before(core->queue[child + 1], core->queue[child]))
            child++;
        if (!queued_before(core->queue[child], job)) break;
        place(core, at, core->queue[child]);
    }
    place(core, at, job);
}

void scheduler_note_queued(coord_core *core, core_job *job) {
    COP_ASSERT(is_queued(job) && !job->queue_place && core->queue_count < core->job_capacity);
    sift_up(core, core->queue_count++, job);
}

void scheduler_note_unqueued(coord_core *core, core_job *job) {
    if (!job->queue_place) return;
    uint32_t at = job->queue_place - 1;
    core_job *last = core->queue[--core->queue_count];
    job->queue_place = 0;
    if (last == job) return;
    if (at && queued_before(last, core->queue[(at - 1) / 2]))
        sift_up(core, at, last);
    else
        sift_down(core, at, last);
}

static core_job *queue_head(const coord_core *core) {
    return core->queue_count ? core->queue[0] : NULL;
}

/* Are all places for trainings taken? Evaluations have places of their own. */
static bool trainings_full(const coord_core *core) {
    return core->resident_count - core->evaluation_count >= core->config.jobs_running_max;
}

void scheduler_load_jobs(coord_core *core) {
    while (!core->stopping && !trainings_full(core)) {
        core_job *job = queue_head(core);
        if (!job || jobs_make_resident(core, job)) return; /* no memory: the next event retries */
        core_add_action(core, COORD_ACTION_LOAD, job->info.job)->step =
            job->rollback_to - 1; /* UINT64_MAX (any step) if rollback_to is 0 */
    }
}

bool scheduler_should_yield(coord_core *core, const core_job *job) {
    const core_job *next = queue_head(core);
    if (!trainings_full(core) || !next || jobs_is_evaluation(job)) return false;
    if (next->info.priority <= job->info.priority) return false;
    for (uint32_t i = 0; i < core->resident_count; i++) {
        const core_job *other = core->resident[i];
        if (jobs_is_evaluation(other)) continue;
        if (other->phase == PHASE_SAVING || other->phase == PHASE_DIVERGED) return false;
        if (other != job && queued_before(job, other))
            return false; /* `other` comes after this job in the queue's order: it yields first */
    }
    return true;
}

/* ---- the pool of a job ---- */

bool scheduler_fits(const core_job *job, const core_worker *w) {
    if (job->info.kind == COORD_ENSEMBLE && !w->ensembles) return false;
    if (job->info.bf16 && !w->bf16) return false;
    if (job->info.pin_first && !w->fingerprint) return false; /* the worker has no OpenBLAS */
    return !w->draining && !w->quarantined &&
           (!job->fingerprint || job->fingerprint == w->fingerprint);
}

bool scheduler_eligible(const core_job *job, const core_worker *w) {
    return scheduler_fits(job, w) && !(job->unable && unable_has_reported(w, job->info.job));
}

uint32_t scheduler_eligible_workers(const coord_core *core, core_job *job) {
    bool any = !job->fingerprint && !job->info.pin_first && !job->unable && !job->info.bf16 &&
               job->info.kind != COORD_ENSEMBLE;
    if (any) return core->active_workers;
    if (job->eligible_pool == core->pool_version) return job->eligible;
    job->eligible = 0;
    job->eligible_pool = core->pool_version;
    for (uint32_t i = 0; i < core->worker_count; i++)
        job->eligible += scheduler_eligible(job, core->workers[i]);
    return job->eligible;
}

#define NOT_ELIGIBLE                                                                               \
    "gets no lease of job %llu: numerics is openblas, and its OpenBLAS or CPU differs from the "   \
    "one that the job is pinned to"

void scheduler_report_joined(coord_core *core, const core_worker *w) {
    for (uint32_t i = 0; i < core->resident_count; i++) {
        const core_job *job = core->resident[i];
        if (!job->fingerprint || job->fingerprint == w->fingerprint) continue;
        core_report(core, job->info.job, false, "worker %s " NOT_ELIGIBLE, w->name,
                    (unsigned long long)job->info.job)
            ->identity = w->identity;
    }
}

void scheduler_report_pinned(coord_core *core, const core_job *job) {
    uint32_t count = 0;
    const core_worker *other = NULL;
    for (uint32_t i = 0; job->fingerprint && i < core->worker_count; i++) {
        if (core->workers[i]->fingerprint == job->fingerprint) continue;
        other = core->workers[i];
        count++;
    }
    if (!other) return;
    core_report(core, job->info.job, false, "worker %s%s " NOT_ELIGIBLE, other->name,
                count > 1 ? " (and others like it)" : "", (unsigned long long)job->info.job);
}

/* The largest number of shards whose samples fit into one lease; at least 1. */
static uint32_t largest_block(const coord_job_info *info) {
    uint32_t samples = (info->batch + info->shards - 1) / info->shards;
    uint32_t largest = COP_LEASE_SAMPLES_MAX / samples;
    return largest ? largest : 1;
}

/* Fills `pool` with the job's workers and their times for a round, in hundredths of the quickest
 * worker's time. Workers that need at most a quarter longer, or whose times are unknown, count as
 * equally quick. Returns the number of workers. *quickest_ns is the quickest worker's time for a
 * round; 0: no times are known. */
static uint32_t pool_of(const coord_core *core, const core_job *job, partition_worker *pool,
                        float *quickest_ns) {
    float rounds[COP_SHARDS_MAX], quickest = 0;
    uint32_t limit = job->info.workers_max ? job->info.workers_max : COP_SHARDS_MAX, count = 0;
    uint64_t key = job->info.job * 2; /* training */
    if (limit > COP_SHARDS_MAX) limit = COP_SHARDS_MAX;
    for (uint32_t i = 0; i < core->worker_count && count < limit; i++) {
        const core_worker *w = core->workers[i];
        if (!scheduler_eligible(job, w)) continue;
        const coord_lease_times *s = lease_times_find(w->lease_times, key);
        rounds[count] = lease_times_known(s) ? s->median : 0;
        if (rounds[count] > 0 && (quickest <= 0 || rounds[count] < quickest))
            quickest = rounds[count];
        pool[count++] = (partition_worker){.threads = w->threads, .round = 100};
    }
    for (uint32_t i = 0; i < count; i++) {
        float times = rounds[i] > 0 ? rounds[i] / quickest : 1;
        if (times > 1000) times = 1000;
        if (times > 1.25f) pool[i].round = (uint32_t)(times * 10 + 0.5f) * 10;
    }
    *quickest_ns = quickest;
    return count;
}

void scheduler_plan(coord_core *core, core_job *job) {
    partition_worker pool[COP_SHARDS_MAX];
    bool moved = job->times_changed && job->step >= job->plan_step + PLAN_STEPS;
    if (job->plan_count && job->plan_pool == core->pool_version && !moved) return;
    float quickest = 0;
    uint64_t span = 0;
    uint32_t count = pool_of(core, job, pool, &quickest);
    const partition_pool workers = {pool, count, core->config.lease_overhead_percent,
                                    timing_serial_percent(core, job)};
    job->plan_count =
        partition_plan(job->info.shards, largest_block(&job->info), &workers, job->plan, &span);
    job->plan_span_ns = (double)span * (double)quickest / 100;
    job->plan_pool = core->pool_version;
    job->plan_step = job->step;
    job->times_changed = false;
}

/* ---- leases ---- */

static void pin_to_openblas_of(coord_core *core, core_job *job, const core_worker *w) {
    if (!job->info.pin_first || job->fingerprint) return;
    job->fingerprint = w->fingerprint;
    core->pool_version++; /* fewer workers may be eligible now */
    coord_action *a =
        core_report(core, job->info.job, true, "job %llu is pinned to the OpenBLAS of worker %s",
                    (unsigned long long)job->info.job, w->name);
    a->worker = w->worker;
    a->fingerprint = COP_INJECT_BUG(FORGET_PIN, w->fingerprint, 0);
    scheduler_report_pinned(core, job);
}

coord_action *scheduler_fill_lease(coord_core *core, coord_action_type type, const core_job *job,
                                   const round_block *b, const round_holder *holder) {
    coord_action *a = core_add_action(core, type, job->info.job);
    a->step = job->round.step;
    a->worker = holder->worker;
    a->lease.lease = holder->lease;
    a->lease.version = job->step;
    a->lease.history = job->history;
    a->lease.deadline_ns = holder->deadline_ns;
    a->lease.attempt = holder->attempt;
    a->lease.first = b->first;
    a->lease.count = b->count;
    a->lease.batch = job->round.batch;
    a->lease.evaluate = job->round.evaluate;
    if (!job->round.members) return a;
    a->step = b->first + 1;
    a->lease.ensemble = true;
    a->lease.first = round_slice_first(&job->round, b);
    a->lease.count = b->samples;
    a->lease.member = round_member_first(&job->round, b);
    a->lease.members = round_member_count(&job->round, b);
    if (job->info.each_version) a->lease.version = a->lease.member;
    return a;
}

static void report_again(coord_core *core, const core_job *job, const round_block *b,
                         const core_worker *w) {
    char name[96];
    core_report(core, job->info.job, true, "%s are leased again, to worker %s",
                audit_describe_block(job, b, name), w->name);
}

/* What a worker is given. */
typedef struct choice {
    core_job *job;
    int block; /* index of the block */
    bool copy; /* a copy for an idle worker, although no lease is overdue; it is not logged */
} choice;

static void give(coord_core *core, core_worker *w, choice chosen, uint64_t now) {
    core_job *job = chosen.job;
    const int index = chosen.block;
    COP_ASSERT(index >= 0 && (uint32_t)index < job->round.count && !w->lease && w->request);
    round_block *b = &job->round.blocks[index];
    bool held = b->state == ROUND_LEASED && !round_wants_auditor(b);
    pin_to_openblas_of(core, job, w);
    /* The usual time is charged to the job now, and corrected when the result comes. If the job
     * were charged only when the result arrives, it could get all workers that are waiting now. */
    round_holder holder = {.worker = w->worker,
                           .identity = w->identity,
                           .lease = ++core->next_lease,
                           .deadline_ns = timing_deadline_ns(core, job, w, b, now),
                           .begun_ns = now,
                           .expected_ns = cop_saturate(timing_expected_ns(job, w, b)),
                           .charged_ns = cop_saturate(timing_usual_ns(job, b)) * w->threads};
    if (!held && !b->votes && !b->audited && audit_selects(core, job, w))
        round_audit(&job->round, index);
    round_lease_block(&job->round, index, &holder);
    job->share += holder.charged_ns;
    job->counts.given++;
    job->counts.repeated += held || b->lost;
    job->counts.doubled += held;
    if ((held || b->lost) && !chosen.copy) report_again(core, job, b, w);
    scheduler_fill_lease(core, COORD_ACTION_LEASE, job, b, &holder)->request = w->request;
    registry_stop_waiting(core, w);
    w->lease = holder.lease;
    w->lease_job = w->served_job = job->info.job;
    w->served_ns = now;
    w->lease_first = b->first;
    w->lease_end_ns = holder.expected_ns ? now + holder.expected_ns : 0;
}

/* ---- choice ---- */

/* The compute time that the job received, for comparing jobs when this worker needs one. If the
 * worker already has the job's description, one step's compute time is subtracted, to prefer the
 * job. The preference does not grow, so it does not change the jobs' shares in the long run. */
static double weighed_share(const core_job *job, const core_worker *w) {
    double step = jobs_is_evaluation(job) ? job->slice_ns : job->shard_ns * job->info.shards;
    return (double)job->share - (w->have_job == job->info.job ? step : 0);
}

static bool goes_before(const core_job *a, const core_job *b, const core_worker *w) {
    if (a->info.priority != b->info.priority) return a->info.priority > b->info.priority;
    double share_a = weighed_share(a, w), share_b = weighed_share(b, w);
    if (share_a < share_b || share_a > share_b) return share_a < share_b;
    return a->info.job < b->info.job;
}

static bool may_have_more(const core_job *job, uint64_t now) {
    uint32_t limit = COP_INJECT_BUG(WORKERS_LIMIT, job->info.workers_max, 0);
    return !limit || round_holders(&job->round, now) < limit;
}

static bool has_work(const core_job *job, uint64_t now) {
    return steps_has_leases(job) && round_has_work(&job->round, now);
}

/* The time since which the block could have been given to a worker. */
static uint64_t available_since(const core_job *job, const round_block *b) {
    if (b->state == ROUND_LEASED) return round_leased_since(b);
    return b->votes ? b->voted_ns : job->step_began_ns;
}

/* When a worker should be free for a block that has been available since `since`; 0: unknown. If a
 * lease has exceeded the expected time by x, it is expected to take another x. */
static uint64_t free_at(const core_worker *w, uint64_t since, uint64_t now) {
    if (!w->lease) {
        uint64_t idle = w->held_since_ns > since ? w->held_since_ns : since;
        return w->request && now - idle < RIVAL_IDLE_NS ? now : 0;
    }
    if (!w->lease_end_ns || now <= w->lease_end_ns) return w->lease_end_ns;
    return now + (now - w->lease_end_ns);
}

/* True: quicker workers would finish all available blocks before this worker could finish block
 * `b`. Then this worker should stay idle, because a step waits for its last block. The same holds
 * for the second result of an audited block; workers that take part in that block do not count. */
static bool others_are_quicker(const coord_core *core, const core_job *job, const core_worker *w,
                               const round_block *b, uint64_t now) {
    double mine = timing_expected_ns(job, w, b);
    uint64_t shards = 0, since = available_since(job, b);
    if ((b->state != ROUND_PENDING && !round_wants_auditor(b)) || mine <= 0) return false;
    const uint64_t size = job->round.pending_size + round_lacking_size(&job->round);
    if (job->round.base + job->round.count < job->round.total)
        return false; /* more blocks follow */
    for (uint32_t i = 0; i < core->worker_count && i < RIVALS_MAX; i++) {
        const core_worker *other = core->workers[i];
        bool rival = other != w && scheduler_eligible(job, other) &&
                     !round_takes_part(b, other->worker, other->identity);
        uint64_t from = rival ? free_at(other, since, now) : 0;
        double theirs = from ? timing_expected_ns(job, other, b) : 0;
        if (theirs <= 0 || theirs * RIVAL_QUICKER > mine) continue;
        double left = mine - (double)(from - now);
        if (left >= theirs) shards += cop_saturate(left / theirs) * b->count;
        if (shards >= size) return true;
    }
    return false;
}

/* The largest number of shards that the worker can finish in the planned length of a step, with
 * SPAN_SLACK; UINT32_MAX: no limit is known. */
static uint32_t largest_for(const core_job *job, const core_worker *w) {
    const coord_lease_times *s = lease_times_find(w->lease_times, core_lease_times_key(job));
    if (job->round.evaluate || !lease_times_known(s) || job->plan_span_ns <= 0) return UINT32_MAX;
    double rounds = job->plan_span_ns * SPAN_SLACK / (double)s->median;
    if (rounds >= COP_SHARDS_MAX) return UINT32_MAX;
    return rounds < 1 ? 1 : (uint32_t)rounds * w->threads;
}

/* The job that a waiting worker should work for; NULL: none. *block is set to the index of the
 * block that it should get. */
static core_job *choose(coord_core *core, core_worker *w, uint64_t now, int *block) {
    core_job *best = NULL;
    for (uint32_t i = 0; i < core->resident_count; i++) {
        core_job *job = core->resident[i];
        if (!has_work(job, now)) continue;
        if (!scheduler_eligible(job, w) || (best && !goes_before(job, best, w))) continue;
        if (!may_have_more(job, now)) continue;
        bool only = scheduler_eligible_workers(core, job) <= 1;
        round_asker asker = {w->worker, w->identity, largest_for(job, w), only};
        int index = round_pick(&job->round, &asker, now);
        if (index < 0) continue;
        if (others_are_quicker(core, job, w, &job->round.blocks[index], now)) continue;
        best = job;
        *block = index;
    }
    return best;
}

/* ---- copies for idle workers ---- */

/* Gives a copy of one of the job's blocks to the quickest of the waiting workers that would finish
 * a block clearly sooner than its holders. False: there is no such worker. */
static bool give_copy(coord_core *core, core_job *job, uint64_t now) {
    core_worker *best = NULL;
    int block = -1, asked = 0;
    double quickest = 0;
    for (core_worker *w = core->wait_head; w && asked < COPIERS_MAX; w = w->wait_next, asked++) {
        const coord_lease_times *s = lease_times_find(w->lease_times, core_lease_times_key(job));
        if (!scheduler_eligible(job, w) || !lease_times_known(s)) continue;
        double per_shard = (double)s->median / (job->round.evaluate ? 1 : w->threads);
        if (best && per_shard >= quickest) continue;
        round_asker asker = {.worker = w->worker, .identity = w->identity};
        int index = round_pick_slow(&job->round, &asker, w->threads, (double)s->median, now);
        if (index < 0) continue;
        best = w;
        block = index;
        quickest = per_shard;
    }
    if (best) give(core, best, (choice){job, block, .copy = true}, now);
    return best != NULL;
}

/* Gives copies of slow blocks to idle workers. Each job is searched at most once in COPY_PAUSE_NS,
 * and at most once in an eighth of a shard's usual time. */
static void give_copies(coord_core *core, uint64_t now) {
    for (uint32_t i = 0; core->wait_head && i < core->resident_count; i++) {
        core_job *job = core->resident[i];
        if (!steps_has_leases(job) || now < job->round.slow_ns) continue;
        /* Pending blocks come before copies. In an audited round, however, the idle workers may be
         * excluded from all pending blocks, because no worker may check its own result. */
        if (job->round.pending && !job->round.audited) continue;
        while (core->wait_head && may_have_more(job, now) && give_copy(core, job, now)) continue;
        uint64_t pause = cop_saturate(job->shard_ns / 8);
        job->round.slow_ns = now + (pause > COPY_PAUSE_NS ? pause : COPY_PAUSE_NS);
    }
}

static void answer_nothing(coord_core *core, core_worker *w) {
    coord_action *a = core_add_action(core, COORD_ACTION_NOTHING, 0);
    a->worker = w->worker;
    a->request = w->request;
    a->nothing.drain = w->draining;
    registry_stop_waiting(core, w);
}

static bool any_work(const coord_core *core, uint64_t now) {
    for (uint32_t i = 0; i < core->resident_count; i++)
        if (has_work(core->resident[i], now)) return true;
    return false;
}

/* Gives leases to waiting workers, the longest waiting first. Even if there is work, a worker may
 * have to wait, and finding that out takes time. So this stops after IN_VAIN_MAX workers that got
 * nothing, and the next event continues behind them. */
static void give_to_waiting(coord_core *core, uint64_t now) {
    core_worker *w = core->serve_next ? core->serve_next : core->wait_head;
    uint32_t in_vain = 0;
    core->serve_next = NULL;
    while (w && any_work(core, now)) {
        core_worker *next = w->wait_next;
        int block = -1;
        core_job *job = w->draining ? NULL : choose(core, w, now, &block);
        if (job)
            give(core, w, (choice){job, block, .copy = false}, now);
        else if (++in_vain == IN_VAIN_MAX) {
            core->serve_next = next;
            return;
        }
        w = next;
    }
}

/* Answers workers with NOTHING if they have waited too long or are draining. The former are at the
 * front of the list; a draining worker may be anywhere in it. After CORE_ANSWERS_MAX answers, it
 * leaves the others to the next event. */
static void answer_waiting(coord_core *core, uint64_t now) {
    uint32_t answered = 0;
    bool left = false;
    for (core_worker *w = core->wait_head; w && !left;) {
        core_worker *next = w->wait_next;
        bool expired = now - w->held_since_ns > (uint64_t)COP_HOLD_MAX_MS * 1000000;
        if (!expired && !core->drained_wait) break;
        left = answered == CORE_ANSWERS_MAX;
        if (!left && (w->draining || expired)) {
            answer_nothing(core, w);
            answered++;
        }
        w = next;
    }
    core->drained_wait = core->drained_wait && left;
}

void scheduler_serve(coord_core *core, uint64_t now) {
    if (!core->stopped) give_to_waiting(core, now);
    if (core->config.speculate && !core->stopped) give_copies(core, now);
    answer_waiting(core, now);
}
