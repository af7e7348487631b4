/* The core's own state, shared by its parts: registry (workers), jobs (life of a job), steps
 * (rounds of a job), scheduler (which block to whom). Nothing outside includes this. Memory is
 * taken when workers join, jobs are added or become resident; every other event allocates nothing,
 * and room for its actions is made before it is taken, so that an event either happens or does not.
 */
#ifndef COP_COORDINATOR_CORE_STATE_H
#define COP_COORDINATOR_CORE_STATE_H

#include "coordinator/core/core.h"
#include "coordinator/core/round.h"
#include "coordinator/core/lease_times.h"

/* Jobs of which a worker's reports are remembered, the newest: more than are under way at once, or
 * those that are forgotten would be given to it, and fail, again and again. */
#define UNABLE_MAX 16

/* It said that it cannot compute this block of the job: see unable.c. */
typedef struct core_unable {
    uint64_t job, step; /* job 0: free */
    uint32_t first;
    bool now; /* so it gets nothing of the job; else it was given another try */
} core_unable;

typedef struct core_worker core_worker;
struct core_worker {
    uint64_t worker, fingerprint, heard_ns, joined_ns;
    uint64_t identity; /* hash of its identity: the same when it comes back */
    /* the held PULL; request 0: none. Waiting workers form a list, the longest waiting first */
    uint64_t request, held_since_ns, have_job, have_version;
    core_worker *wait_next, *wait_previous;
    /* the lease that it computes; 0: none */
    uint64_t lease, lease_job;
    uint32_t lease_first;
    uint64_t lease_end_ns;          /* when it should be done; 0: not known */
    uint64_t served_job, served_ns; /* of its newest lease: the job, and when it began or ended */
    uint64_t shards;                /* computed so far */
    double ns_per_shard;
    coord_lease_times lease_times[LEASE_TIMES_KINDS]; /* by core_lease_times_key */
    uint32_t threads;
    uint32_t strikes;    /* wrong results, and values that were not finite for it alone; with those
                            of its identity before it joined */
    uint32_t watched;    /* so many of its blocks are audited, whatever the job says */
    double audit_credit; /* where it is in the window of 1 / audit blocks of which one is audited */
    double audit_point;  /* ... and where in it that one is */
    core_unable *unable; /* [UNABLE_MAX]; NULL: it could compute all so far */
    bool draining, ensembles, quarantined;
    char name[COP_NAME_MAX];
};

typedef enum core_phase {
    PHASE_IDLE = 1, /* QUEUED or PAUSED: not resident */
    PHASE_LOADING,
    PHASE_TRAINING, /* leases of a step are out */
    PHASE_UPDATING,
    PHASE_EVALUATING, /* leases of an evaluation are out */
    PHASE_HOLDING,    /* between rounds; lasts while the weights are the best so far and an older
                         checkpoint is being written */
    PHASE_DIVERGED,   /* waits for the host's sentence */
    PHASE_SAVING      /* waits for a last checkpoint: the end, a pause, a stop */
} core_phase;

/* From which step on a worker's results count as unconfirmed: see audit.c. */
typedef struct core_contributor {
    uint64_t identity;         /* 0: free */
    uint64_t since, mark; /* steps; 0: none */
    uint32_t confirmed;   /* audits since the mark */
} core_contributor;

#define CONTRIBUTORS_MAX 256 /* of one job; those beyond count as one */

/* What the pool needs for a round of one kind of work of a job: see timing.c. */
typedef struct core_pool_time {
    double round_ns;  /* 0: not known */
    uint64_t next_ns; /* when it is measured anew */
    uint64_t pool;    /* pool version that it is of */
} core_pool_time;

typedef struct core_job {
    coord_job_info info;
    core_phase phase;
    uint32_t queue_place; /* in the heap of queued jobs, from 1; 0: not there */
    bool pause, evaluate_asked;
    bool ended;     /* canceled or failed while loading: goes when the host has loaded it */
    bool returning; /* LOADING is a return to a checkpoint */
    coord_job_state after_save; /* of SAVING: PAUSED, COMPLETED or QUEUED */

    /* training */
    uint64_t step;       /* completed steps */
    coord_round round;   /* what is leased */
    coord_block *blocks; /* (shards) of the update under way */
    uint32_t *plan;      /* (shards) sizes of the blocks of a step */
    uint32_t plan_count;
    double plan_span_ns; /* how long a step should take; 0: speeds are not known */
    uint64_t plan_pool;  /* pool version that the plan is for */
    uint64_t plan_step;  /* when it was made */
    bool times_changed;   /* ... and for other speeds */
    double loss_sum;     /* of the epoch under way */
    uint64_t samples, correct;

    /* trust */
    core_contributor *contributors; /* (CONTRIBUTORS_MAX), by hash; kept while it is not resident */
    uint64_t unlisted_since;          /* of those that found no room; 0: none */
    uint64_t
        rollback_to;   /* + 1: the newest step that may be loaded, as a liar came after; 0: any */
    uint32_t history;        /* how often it went back */
    uint64_t audit_until;    /* all blocks of steps up to this one are audited; 0: none */
    uint64_t recompute_again_ns; /* COMPUTE found no memory or slot: the next one not before; 0: now */
    bool cannot_recompute;       /* COMPUTE failed for another reason */
    bool spoiled;      /* an ensemble with a liar's outputs in it: it fails */

    /* workers that cannot compute it */
    bool unable;                            /* some were taken off */
    uint64_t unable_given, unable_since_ns; /* leases so far, and no more of them since */

    /* checkpoints */
    bool saving, saving_final, saving_best, is_best; /* is_best: not yet saved */
    uint64_t save_failed_ns, save_again_ns; /* of the final weights: the first failure, the next
                                               attempt; 0: none */
    uint64_t saved_step;                    /* UINT64_MAX: none */
    double best_error;                      /* or loss, if the job is judged by it */
    bool has_best;

    /* time */
    double seconds, seconds_loaded, timed_seconds;
    uint64_t timed_samples, step_began_ns, run_began_ns;
    uint64_t idle_ns, idle_since_ns; /* of the step, without workers; since when; 0: it has some */
    double shard_ns, slice_ns; /* usual time of a shard, of an evaluation slice; 0: not known */
    uint64_t share;            /* compute time received, for fair share */
    core_pool_time pool_time[2];         /* of training, of evaluations */

    uint64_t fingerprint;   /* that workers must have; 0: any */
    uint64_t eligible_pool; /* pool version that `eligible` was counted for */
    uint32_t eligible;
    coord_lease_counts counts;
    double last_loss, last_error;
    bool has_loss, has_error;
} core_job;

/* A result of a lease that is out: its block, which of the block's holders sent it, and when. */
typedef struct core_arrival {
    core_job *job;
    core_worker *worker; /* NULL: the coordinator itself */
    int block, holder;
    const coord_event *event;
    uint64_t now_ns;
} core_arrival;

/* A lease whose block was done by another: when its result comes after all, the two are compared.
 */
typedef struct core_late_copy {
    uint64_t lease, job, step, other_lease, digest, correct; /* lease 0: free */
    uint64_t worker, other_worker;
    double loss;
    uint32_t first, count;
    bool evaluate;
} core_late_copy;

#define LATE_COPIES_MAX       64
#define CORE_GIVEN_UP_MAX 256 /* workers that one tick may give up; the others the next */
#define CORE_ANSWERS_MAX  256 /* pulls that one event may answer without a lease */
#define QUARANTINES_MAX   64

typedef struct core_quarantine {
    uint64_t identity;
    char name[COP_NAME_MAX], evidence[256];
} core_quarantine;

/* Strikes of an identity in a job: they outlast its connection, and end with the job. */
typedef struct core_strikes {
    uint64_t identity, job; /* who 0: free */
    uint32_t count;
} core_strikes;

#define JOB_STRIKES_MAX 256 /* the oldest makes room */

struct coord_core {
    coord_core_config config;
    core_worker **workers; /* by id */
    uint32_t worker_count, worker_capacity;
    uint32_t active_workers; /* neither draining nor in quarantine */
    core_worker *wait_head, *wait_tail;
    core_worker *serve_next; /* who waits and was not asked yet, as too many in front got nothing */
    bool drained_wait;       /* a draining worker waits for its answer */
    uint64_t ticked_ns;      /* the last tick; 0: none yet */
    uint64_t listens_ns;     /* without a gap since then */
    uint64_t pool_version;   /* changes with every worker that comes, goes or drains */
    core_job **jobs;         /* unfinished ones, by id */
    uint32_t job_count, job_capacity;
    core_job **resident; /* those whose phase is not IDLE (jobs_running_max + evaluations_max) */
    uint32_t resident_count, evaluation_count; /* evaluation_count: of the residents */
    core_job **queue; /* a heap of the queued jobs (job_capacity), the next one first */
    uint32_t queue_count;
    uint64_t next_lease;
    core_late_copy late_copies[LATE_COPIES_MAX];
    uint32_t next_late_copy;
    core_quarantine quarantine[QUARANTINES_MAX]; /* the oldest makes room */
    uint32_t quarantined;                        /* so far */
    core_strikes job_strikes[JOB_STRIKES_MAX];
    uint32_t next_job_strikes;
    uint64_t draws; /* of the secret */
    bool stopping, stopped;
    uint64_t stop_began_ns;
    coord_actions *out;
};

/* ---- core.c: actions ---- */

/* One more action, zeroed. Room was made before the event was taken. */
coord_action *core_add_action(coord_core *core, coord_action_type type, uint64_t job);
/* The text of a STATE or EVENT, COORD_TEXT_MAX bytes to be filled; empty so far. */
char *core_action_text(coord_core *core, coord_action *action);
/* COORD_ACTION_EVENT: a sentence for the log; not fine: a warning. */
coord_action *core_report(coord_core *core, uint64_t job, bool fine, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void core_drop(coord_core *core, uint64_t job, uint64_t slot); /* slot 0: nothing */
/* What a worker's measured times are kept by: a job, and whether it is an evaluation. */
static inline uint64_t core_lease_times_key(const core_job *job) {
    return job->info.job * 2 + job->round.evaluate;
}
/* Rounds of a worker that a block takes: a slice of an evaluation is one. */
static inline uint32_t core_rounds(const coord_round *r, const round_block *b, uint32_t threads) {
    return r->evaluate ? 1 : (b->count + threads - 1) / threads;
}

/* ---- registry.c: workers ---- */

core_worker *registry_find(const coord_core *core, uint64_t worker);
cop_err registry_join(coord_core *core, const coord_event *event, uint64_t now); /* NO_MEMORY */
/* The worker is no more: its lease returns to the queue, first in line. */
void registry_leave(coord_core *core, core_worker *worker, const char *why);
void registry_drain(coord_core *core, core_worker *worker);
/* It gets nothing more; what it computes is given to others. */
void registry_quarantine(coord_core *core, core_worker *worker);
void registry_remove_silent(coord_core *core, uint64_t now);
/* A PULL: the worker waits until the scheduler answers. */
void registry_on_pull(coord_core *core, const coord_event *event, uint64_t now);
void registry_stop_waiting(coord_core *core, core_worker *worker);
void registry_destroy(coord_core *core);

/* ---- scheduler.c: which job is loaded, which block goes to whom ---- */

/* Could the worker compute the job, whatever it has said of it? */
bool scheduler_fits(const core_job *job, const core_worker *worker);
/* ... and does it get blocks of it? */
bool scheduler_eligible(const core_job *job, const core_worker *worker);
uint32_t scheduler_eligible_workers(const coord_core *core, core_job *job);
/* One sentence for the log about workers that a pinned job (numerics: openblas) cannot use. */
void scheduler_report_joined(coord_core *core, const core_worker *worker);
void scheduler_report_pinned(coord_core *core, const core_job *job);
/* A job was queued, or left the queue. */
void scheduler_note_queued(coord_core *core, core_job *job);
void scheduler_note_unqueued(coord_core *core, core_job *job);
/* Does a job of higher priority wait for this one's place? */
bool scheduler_should_yield(coord_core *core, const core_job *job);
/* The blocks of the job's next steps, for the pool as it is; nothing to do if that has not changed.
 */
void scheduler_plan(coord_core *core, core_job *job);
void scheduler_load_jobs(coord_core *core);
/* The action of a lease that was given (LEASE, COMPUTE). */
coord_action *scheduler_fill_lease(coord_core *core, coord_action_type type, const core_job *job,
                                   const round_block *block, const round_holder *holder);
/* Answers workers that wait, as far as there is work, and those that waited too long. */
void scheduler_serve(coord_core *core, uint64_t now);

/* ---- timing.c: how long leases take ---- */

/* What is usual for such a block; 0: not known. */
double timing_usual_ns(const core_job *job, const round_block *block);
/* How long this worker should take; 0: not known. */
double timing_expected_ns(const core_job *job, const core_worker *worker, const round_block *block);
/* By when it must be done with the block that it gets now. */
uint64_t timing_deadline_ns(const coord_core *core, core_job *job, const core_worker *worker,
                          const round_block *block, uint64_t now);
/* A result of this lease came, of a worker (NULL: the coordinator itself) that claims to have
 * computed for so long: the job's account and the speeds. The lease is still held. */
void timing_learn(coord_core *core, const core_arrival *arrival);

/* ---- steps.c: rounds of one job ---- */

bool steps_has_leases(const core_job *job);
/* At the end of each event: the time that a step waits for workers is no training time. */
void steps_note_idle_time(coord_core *core, uint64_t now);
/* The leases of an evaluation, from the first. */
void steps_begin_evaluation(coord_core *core, core_job *job);
/* Training goes on from job->step: the end, a pause, a checkpoint, or the next step. */
void steps_continue(coord_core *core, core_job *job, uint64_t now);
/* What is to be done with freshly loaded weights: an evaluation that is due, or go on. */
void steps_begin(coord_core *core, core_job *job, uint64_t now);
/* The block that has this result's lease, and which of its holders that is; -1: none. */
int steps_find(const core_job *job, const coord_result_info *result, int *holder);
void steps_on_result(coord_core *core, const coord_event *event, uint64_t now);
void steps_on_absorbed(coord_core *core, core_job *job);
void steps_on_updated(coord_core *core, core_job *job, const coord_event *event, uint64_t now);
/* The round will not be finished: what was kept of it is dropped. */
void steps_drop_round(coord_core *core, core_job *job);

/* A value is not finite, whoever computes it. The host looks at the gradient and answers JOB_FAILED
 * with a sentence. NULL: the weights may be a liar's work, and the job goes back to a checkpoint. */
coord_action *steps_diverged(coord_core *core, core_job *job, const round_block *block, uint64_t slot);
/* A block was done: what follows if it was the last. */
void steps_block_done(coord_core *core, core_job *job, uint64_t now);

/* ---- audit.c, wrong.c: who is believed ---- */

/* Can the coordinator compute this job's blocks, bit for bit? */
bool audit_can_recompute(const coord_core *core, const core_job *job);
/* Is all that is left of the round to be checked by a worker that is not here? */
bool audit_lacks_second_worker(const coord_core *core, const core_job *job);
void audit_init_worker(coord_core *core, core_worker *worker);
/* Shall the block that is given to this worker first be audited? */
bool audit_selects(coord_core *core, const core_job *job, core_worker *worker);
/* A block as people know it, in `out`. */
const char *audit_name_block(const core_job *job, const round_block *block, char out[96]);
/* A result of this identity was confirmed. */
void audit_note_confirmed(core_job *job, uint64_t identity);
/* One vote on the block was wrong, as the other shows. The job's round may be gone after this. */
void audit_punish(coord_core *core, const core_job *job, const round_block *block,
                  const round_vote *wrong, const round_vote *right);
/* The worker sent what no honest worker sends: enough of these end in quarantine. The job's round
 * may be gone after this. */
void audit_strike(coord_core *core, uint64_t job, core_worker *worker, const char *why);
/* Strikes of this identity in the jobs that are not finished. */
uint32_t audit_strikes_of(const coord_core *core, uint64_t identity);
/* A result that is well formed: it decides its block, or waits for another. */
void audit_take_result(coord_core *core, const core_arrival *arrival);
/* A result whose block was done without it. True: its slot was taken. */
bool audit_take_late_result(coord_core *core, const coord_event *event, uint64_t now);
bool audit_wants_digest(const coord_core *core, uint64_t worker, const coord_result_info *result);
/* A block of an ensemble was handed on: it cannot be taken back. */
void audit_note_member(core_job *job, const round_block *block);
/* The step's blocks were averaged: who is to be remembered for it. */
void audit_note_step(core_job *job);
/* Of an identity; NULL: it is trusted. */
const core_quarantine *audit_quarantine_of(const coord_core *core, uint64_t identity);
/* Blocks that nobody else can check are computed here. */
void audit_on_tick(coord_core *core, uint64_t now);
/* May the weights be the work of a liar that no audit has found? Then the job goes back to its last
 * checkpoint, everything since is audited, and this returns true. */
bool audit_suspect_weights(coord_core *core, core_job *job, const round_block *block);
/* After a return to a checkpoint: what came after it is forgotten. */
void audit_forget_after(core_job *job, uint64_t step);

/* The coordinator could not compute the block: what waited for it alone is decided without it. The
 * job may be gone after this. */
void audit_recompute_failed(coord_core *core, core_job *job, int block);
/* The coordinator computes the block, if there is room for one more lease of it; after a failed
 * attempt not before job->judge_again_ns. */
void audit_recompute(coord_core *core, core_job *job, int block, uint64_t now);
/* The coordinator had no memory or slot to compute the block: it tries again in a while. */
void audit_recompute_later(coord_core *core, core_job *job, int block, uint64_t now);

/* ---- unable.c: who cannot compute a job ---- */

bool unable_is(const core_worker *worker, uint64_t job);
/* The newest job of which the worker gets nothing; 0: none. */
uint64_t unable_newest(const coord_core *core, const core_worker *worker);
/* The worker, or the coordinator, cannot compute the block, whose lease has ended. The job may be
 * gone after this. */
void unable_report(coord_core *core, const core_arrival *arrival, const char *why);
void unable_report_self(coord_core *core, core_job *job, int block, const char *why, uint64_t now);
/* The coordinator has computed a block. */
void unable_note_computed(coord_core *core, core_job *job);
void unable_on_tick(coord_core *core, uint64_t now);

/* ---- jobs.c: life of a job ---- */

core_job *jobs_find(const coord_core *core, uint64_t job);
bool jobs_is_evaluation(const core_job *job);
/* NO_MEMORY, LIMIT, EXISTS */
cop_err jobs_add(coord_core *core, const coord_event *event, uint64_t now);
/* NO_MEMORY: it stays queued. */
cop_err jobs_make_resident(coord_core *core, core_job *job);
/* The end of a job: state, release, and it is forgotten (the pointer is invalid then). */
void jobs_end(coord_core *core, core_job *job, coord_job_state state, const char *text);
/* Write a checkpoint of the current weights. None may be under way. */
void jobs_save(coord_core *core, core_job *job, bool final);
/* Wait for a last checkpoint, then become `after`. */
void jobs_save_and_leave(coord_core *core, core_job *job, coord_job_state after);
/* The job must not go on from what came after `step`: back to a checkpoint, as soon as may be. */
void jobs_roll_back(coord_core *core, core_job *job, uint64_t step);
void jobs_on_event(coord_core *core, core_job *job, const coord_event *event, uint64_t now);
void jobs_retry_saves(coord_core *core, uint64_t now);
void jobs_end_expired(coord_core *core, uint64_t now);
/* Jobs that should leave but have nobody to finish their step: it is computed anew later. */
void jobs_set_aside_stranded(coord_core *core, uint64_t now);
void jobs_destroy(coord_core *core);

#endif
