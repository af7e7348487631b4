/* The core's own state, shared by its parts. Only files of this folder include it. Memory is
 * allocated when a worker joins, or a job is added or becomes resident. All other events allocate
 * nothing but room for their actions, before they change anything: an event either happens or does
 * not. */
#ifndef COP_COORDINATOR_CORE_STATE_H
#define COP_COORDINATOR_CORE_STATE_H

#include "coordinator/core/core.h"
#include "coordinator/core/round.h"
#include "coordinator/core/lease_times.h"

/* A worker's newest reports that it cannot compute a job. Must exceed the number of jobs in
 * progress: a forgotten job would be leased to it, and fail, again and again. */
#define UNABLE_MAX 16

/* A worker reported that it cannot compute this block of the job: see unable.c. */
typedef struct core_unable {
    uint64_t job, step; /* job 0: free */
    uint32_t first;
    bool now; /* it gets no leases of the job; false: it was given another try */
} core_unable;

typedef struct core_worker core_worker;
struct core_worker {
    uint64_t worker, fingerprint, heard_ns, joined_ns;
    uint64_t identity; /* hash of its identity: the same when it joins again */
    /* the held PULL; request 0: none. Waiting workers form a list, the longest waiting first */
    uint64_t request, held_since_ns, have_job, have_version;
    core_worker *wait_next, *wait_previous;
    /* the lease that it computes; 0: none */
    uint64_t lease, lease_job;
    uint32_t lease_first;
    uint64_t lease_end_ns;          /* when it should be done; 0: unknown */
    uint64_t served_job, served_ns; /* of its newest lease: the job, and when it began or ended */
    uint64_t shards;                /* computed so far */
    double ns_per_shard;
    coord_lease_times lease_times[LEASE_TIMES_KINDS]; /* found by core_lease_times_key */
    uint32_t threads;
    uint32_t strikes;    /* wrong results, and values that were not finite for this worker alone;
                            includes those of its identity from before it joined */
    uint32_t watched;    /* the next so many of its blocks are audited, whatever the job asks for */
    double audit_credit; /* position in a window of 1 / audit blocks, of which one is audited */
    double audit_point;  /* position of the audited block in the window */
    core_unable *unable; /* (UNABLE_MAX); NULL: no reports */
    bool draining, ensembles, quarantined;
    char name[COP_NAME_MAX];
};

typedef enum core_phase {
    PHASE_IDLE = 1, /* QUEUED or PAUSED: not resident */
    PHASE_LOADING,
    PHASE_TRAINING, /* leases of a step are given out */
    PHASE_UPDATING,
    PHASE_EVALUATING, /* leases of an evaluation are given out */
    PHASE_HOLDING,    /* between rounds; lasts while the weights are the best so far and an older
                         checkpoint is being written */
    PHASE_DIVERGED,   /* waits for the host's explanation */
    PHASE_SAVING      /* waits for the last checkpoint before the end, a pause or a stop */
} core_phase;

/* Since which step an identity's results are unconfirmed: see audit.c. */
typedef struct core_contributor {
    uint64_t identity;    /* 0: free */
    uint64_t since, mark; /* steps; 0: none. results before `since` are trusted; `mark` is the next
                             value of it */
    uint32_t confirmed;   /* confirmed audits since the mark */
} core_contributor;

#define CONTRIBUTORS_MAX 256 /* per job; further identities share one entry */

/* How long the pool takes for a round of one kind of work of a job: see timing.c. */
typedef struct core_pool_time {
    double round_ns;  /* 0: unknown */
    uint64_t next_ns; /* when to measure again */
    uint64_t pool;    /* pool version when it was measured */
} core_pool_time;

typedef struct core_job {
    coord_job_info info;
    core_phase phase;
    uint32_t queue_place; /* index + 1 in the heap of queued jobs; 0: not queued */
    bool pause, evaluate_asked;
    bool ended;     /* canceled or failed while loading: removed when the host has loaded it */
    bool returning; /* the LOADING is a return to a checkpoint */
    coord_job_state after_save; /* of SAVING: PAUSED, COMPLETED or QUEUED */

    /* training */
    uint64_t step;       /* completed steps */
    coord_round round;   /* the blocks that are leased */
    coord_block *blocks; /* (shards) of the current update */
    uint32_t *plan;      /* (shards) sizes of a step's blocks */
    uint32_t plan_count;
    double plan_span_ns; /* how long a step should take; 0: unknown */
    uint64_t plan_pool;  /* pool version that the plan was made for */
    uint64_t plan_step;  /* step when it was made */
    bool times_changed;  /* workers' times have changed since */
    double loss_sum;     /* of the current epoch */
    uint64_t samples, correct;

    /* trust */
    core_contributor
        *contributors; /* (CONTRIBUTORS_MAX), a hash table; kept while the job is not resident */
    uint64_t
        unlisted_since; /* the earliest unconfirmed step of identities without an entry; 0: none */
    uint64_t rollback_to; /* 1 + the newest step that may be loaded, because a wrong result may
                             follow it; 0: any */
    uint32_t history;     /* number of returns to a checkpoint */
    uint64_t audit_until; /* all blocks of steps up to this one are audited; 0: none */
    uint64_t recompute_again_ns; /* a COMPUTE failed for lack of memory or slots: when to try again;
                                    0: at once */
    bool cannot_recompute;       /* a COMPUTE failed for another reason */
    bool spoiled;                /* an ensemble that contains outputs of a liar: it will fail */

    /* workers that cannot compute it */
    bool unable; /* some workers get no leases of it */
    uint64_t unable_given,
        unable_since_ns; /* number of leases when it last changed, and when that was */

    /* checkpoints */
    bool saving, saving_final, saving_best, is_best; /* is_best: and not saved yet */
    uint64_t save_failed_ns,
        save_again_ns; /* of the final weights: the first failure, and the next attempt; 0: none */
    uint64_t saved_step; /* UINT64_MAX: none */
    double best_error;   /* or loss, for a job without classes */
    bool has_best;

    /* time */
    double seconds, seconds_loaded, timed_seconds;
    uint64_t timed_samples, step_began_ns;
    uint64_t run_began_ns; /* when it was loaded, moved forward by each time without workers */
    uint64_t idle_ns, idle_since_ns; /* time of this step without workers, and the start of the
                                        current such time; 0: none */
    double shard_ns, slice_ns;   /* usual time of a shard, and of an evaluation slice; 0: unknown */
    uint64_t share;              /* compute time received: the basis of fair share */
    core_pool_time pool_time[2]; /* [0] of training, [1] of evaluations */

    uint64_t fingerprint;   /* that its workers must have; 0: any */
    uint64_t eligible_pool; /* pool version for which `eligible` was counted */
    uint32_t eligible;
    coord_lease_counts counts;
    double last_loss, last_error;
    bool has_loss, has_error;
} core_job;

/* A result whose lease is still held: its block, the holder that sent it, and the time. */
typedef struct core_arrival {
    core_job *job;
    core_worker *worker; /* NULL: the coordinator itself */
    int block, holder;
    const coord_event *event;
    uint64_t now_ns;
} core_arrival;

/* A lease whose block another worker finished first. If its result comes after all, the two are
 * compared. */
typedef struct core_late_copy {
    uint64_t lease, job, step, other_lease, digest, correct; /* lease 0: free */
    uint64_t worker, other_worker;
    double loss;
    uint32_t first, count;
    bool evaluate;
} core_late_copy;

#define LATE_COPIES_MAX   64
#define CORE_GIVEN_UP_MAX 256 /* workers that one tick may remove; others follow at the next */
#define CORE_ANSWERS_MAX  256 /* pulls that one event may answer without a lease */
#define QUARANTINES_MAX   64

typedef struct core_quarantine {
    uint64_t identity;
    char name[COP_NAME_MAX], evidence[256];
} core_quarantine;

/* Strikes of an identity in a job. They outlast its connection and end with the job. */
typedef struct core_strikes {
    uint64_t identity, job; /* identity 0: free */
    uint32_t count;
} core_strikes;

#define JOB_STRIKES_MAX 256 /* the oldest entry is replaced */

struct coord_core {
    coord_core_config config;
    core_worker **workers; /* by id */
    uint32_t worker_count, worker_capacity;
    uint32_t active_workers; /* neither draining nor quarantined */
    core_worker *wait_head, *wait_tail;
    core_worker
        *serve_next; /* the next waiting worker to serve, because too many before it got nothing */
    bool drained_wait;     /* a draining worker waits for an answer */
    uint64_t ticked_ns;    /* the last tick; 0: none yet */
    uint64_t listens_ns;   /* since when no tick was missed */
    uint64_t pool_version; /* changes when a worker joins, leaves or drains */
    core_job **jobs;       /* unfinished ones, by number */
    uint32_t job_count, job_capacity;
    core_job **resident; /* those whose phase is not IDLE (jobs_running_max + evaluations_max) */
    uint32_t resident_count, evaluation_count; /* evaluation_count: evaluations among them */
    core_job **queue; /* (job_capacity) a heap of the queued jobs, the next one first */
    uint32_t queue_count;
    uint64_t next_lease;
    core_late_copy late_copies[LATE_COPIES_MAX];
    uint32_t next_late_copy;
    core_quarantine quarantine[QUARANTINES_MAX]; /* the oldest entry is replaced */
    uint32_t quarantined;                        /* number of quarantines so far */
    core_strikes job_strikes[JOB_STRIKES_MAX];
    uint32_t next_job_strikes;
    uint64_t draws; /* random numbers drawn from the secret */
    bool stopping, stopped;
    uint64_t stop_began_ns;
    coord_actions *out;
};

/* ---- core.c: actions ---- */

/* Appends an action, zeroed. There is always room: it was made before the event was taken. The
 * pointer is valid until the event is done. */
coord_action *core_add_action(coord_core *core, coord_action_type type, uint64_t job);
/* The text of a STATE or EVENT action: COORD_TEXT_MAX bytes to fill, empty so far. */
char *core_action_text(coord_core *core, coord_action *action);
/* Appends an EVENT action: a sentence for the log, a warning unless `fine`. Returns it, so that the
 * caller can set `identity` or `fingerprint`. */
coord_action *core_report(coord_core *core, uint64_t job, bool fine, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void core_drop(coord_core *core, uint64_t job,
               uint64_t slot); /* Appends a DROP action; nothing for slot 0. */
/* The key of a worker's measured times: the job, and whether it is an evaluation. */
static inline uint64_t core_lease_times_key(const core_job *job) {
    return job->info.job * 2 + job->round.evaluate;
}
/* Rounds that a worker needs for a block: one for a slice of an evaluation. */
static inline uint32_t core_rounds(const coord_round *r, const round_block *b, uint32_t threads) {
    return r->evaluate ? 1 : (b->count + threads - 1) / threads;
}

/* ---- registry.c: workers ---- */

core_worker *registry_find(const coord_core *core, uint64_t worker);
cop_err registry_join(coord_core *core, const coord_event *event,
                      uint64_t now); /* Errors: NO_MEMORY, LIMIT */
/* Removes the worker and frees it. Its lease returns to the queue, first in line. `why` completes
 * "worker NAME ...". */
void registry_leave(coord_core *core, core_worker *worker, const char *why);
void registry_drain(coord_core *core, core_worker *worker);
/* The worker gets no more leases, and its current one is given to another worker. */
void registry_quarantine(coord_core *core, core_worker *worker);
void registry_remove_silent(coord_core *core, uint64_t now);
/* A PULL: the worker waits until the scheduler answers. If it holds a lease, that lease is lost. */
void registry_on_pull(coord_core *core, const coord_event *event, uint64_t now);
void registry_stop_waiting(coord_core *core, core_worker *worker);
void registry_destroy(coord_core *core);

/* ---- scheduler.c: which job is loaded, which block goes to whom ---- */

/* Could the worker compute the job, whatever it has reported? */
bool scheduler_fits(const core_job *job, const core_worker *worker);
/* Does the worker get leases of the job? */
bool scheduler_eligible(const core_job *job, const core_worker *worker);
uint32_t scheduler_eligible_workers(const coord_core *core, core_job *job);
/* One log line about workers that a pinned job (numerics: openblas) cannot use. */
void scheduler_report_joined(coord_core *core, const core_worker *worker);
void scheduler_report_pinned(coord_core *core, const core_job *job);
/* Call when a job becomes queued, or leaves the queue. */
void scheduler_note_queued(coord_core *core, core_job *job);
void scheduler_note_unqueued(coord_core *core, core_job *job);
/* Does a queued job of higher priority wait for this job's place? */
bool scheduler_should_yield(coord_core *core, const core_job *job);
/* Plans how the job's next steps are cut into blocks, if the pool or its speeds have changed. */
void scheduler_plan(coord_core *core, core_job *job);
void scheduler_load_jobs(coord_core *core);
/* Appends an action for a lease that was given (LEASE or COMPUTE). */
coord_action *scheduler_fill_lease(coord_core *core, coord_action_type type, const core_job *job,
                                   const round_block *block, const round_holder *holder);
/* Gives leases to waiting workers as far as there is work, and answers those that have waited too
 * long. */
void scheduler_serve(coord_core *core, uint64_t now);

/* ---- timing.c: how long leases take ---- */

/* The usual time of such a block; 0: unknown. */
double timing_usual_ns(const core_job *job, const round_block *block);
/* How long this worker should take; 0: unknown. */
double timing_expected_ns(const core_job *job, const core_worker *worker, const round_block *block);
/* The deadline for a block that the worker gets now. */
uint64_t timing_deadline_ns(const coord_core *core, core_job *job, const core_worker *worker,
                            const round_block *block, uint64_t now);
/* Learns from a result: the job's fair share, and the worker's times. The lease must still be held.
 */
void timing_learn(coord_core *core, const core_arrival *arrival);

/* ---- steps.c: rounds of one job ---- */

bool steps_has_leases(const core_job *job);
/* Call at the end of each event: time that a step waits for workers does not count as training
 * time. */
void steps_note_idle_time(coord_core *core, uint64_t now);
/* Begins the leases of an evaluation. */
void steps_begin_evaluation(coord_core *core, core_job *job);
/* What follows step job->step: the end, a pause, a checkpoint, or the next step. */
void steps_continue(coord_core *core, core_job *job, uint64_t now);
/* What follows freshly loaded weights: an evaluation that is due, or steps_continue. */
void steps_begin(coord_core *core, core_job *job, uint64_t now);
/* The block that this result's lease is for, and in *holder which of its holders; -1: none. */
int steps_find(const core_job *job, const coord_result_info *result, int *holder);
void steps_on_result(coord_core *core, const coord_event *event, uint64_t now);
void steps_on_absorbed(coord_core *core, core_job *job);
void steps_on_updated(coord_core *core, core_job *job, const coord_event *event, uint64_t now);
/* Abandons the round: its kept results are dropped. */
void steps_drop_round(coord_core *core, core_job *job);

/* Call when a value of the block is not finite, whoever computes it. Appends DIVERGED, with `slot`
 * for the host to examine, and returns it. NULL: the weights may be the work of a liar, so the job
 * returns to a checkpoint instead; `slot` is dropped. */
coord_action *steps_diverged(coord_core *core, core_job *job, const round_block *block,
                             uint64_t slot);
/* Call when a block is done: begins what follows if it was the last. */
void steps_block_done(coord_core *core, core_job *job, uint64_t now);

/* ---- audit.c, wrong.c: who is believed ---- */

/* Can the coordinator compute this job's blocks with the same bits? */
bool audit_can_recompute(const coord_core *core, const core_job *job);
/* Does all that is left of the round wait for a second worker that is not connected? */
bool audit_lacks_second_worker(const coord_core *core, const core_job *job);
void audit_init_worker(coord_core *core, core_worker *worker);
/* Shall the block that this worker is the first to get be audited? */
bool audit_selects(coord_core *core, const core_job *job, core_worker *worker);
/* Describes a block for log lines, in `out`; returns `out`. */
const char *audit_name_block(const core_job *job, const round_block *block, char out[96]);
/* Call when a result of this identity was confirmed. */
void audit_note_confirmed(core_job *job, uint64_t identity);
/* Call when the vote `wrong` on the block was refuted by `right`: a strike, or quarantine. May drop
 * the job's round. */
void audit_punish(coord_core *core, const core_job *job, const round_block *block,
                  const round_vote *wrong, const round_vote *right);
/* Call when the worker sent what no honest worker sends. Enough strikes end in quarantine. May drop
 * the job's round. */
void audit_strike(coord_core *core, uint64_t job, core_worker *worker, const char *why);
/* Strikes of this identity in unfinished jobs. */
uint32_t audit_strikes_of(const coord_core *core, uint64_t identity);
/* Takes a well-formed result: it decides its block, or the block waits for another vote. */
void audit_take_result(coord_core *core, const core_arrival *arrival);
/* Takes a result whose block was finished by another. True: its slot was answered. */
bool audit_take_late_result(coord_core *core, const coord_event *event, uint64_t now);
bool audit_wants_digest(const coord_core *core, uint64_t worker, const coord_result_info *result);
/* Call when a block of an ensemble was passed on and cannot be taken back. */
void audit_note_member(core_job *job, const round_block *block);
/* Call when the step's blocks were averaged: remembers whose results were unconfirmed. */
void audit_note_step(core_job *job);
/* The quarantine of an identity; NULL: none. */
const core_quarantine *audit_quarantine_of(const coord_core *core, uint64_t identity);
/* Lets the coordinator compute blocks that nobody else can check. Called at each tick. */
void audit_on_tick(coord_core *core, uint64_t now);
/* Call when the weights lead to values that are not finite. True: an unaudited result may be the
 * cause, so the job returns to its last checkpoint, and everything up to this step is audited. */
bool audit_suspect_weights(coord_core *core, core_job *job, const round_block *block);
/* Call after a return to the checkpoint of `step`: forgets what came after it. */
void audit_forget_after(core_job *job, uint64_t step);

/* The coordinator cannot compute the block: decides without it what waited for it alone. May end
 * the job. */
void audit_recompute_failed(coord_core *core, core_job *job, int block);
/* Lets the coordinator compute the block, if there is room for one more lease of it; after a failed
 * attempt not before job->recompute_again_ns. */
void audit_recompute(coord_core *core, core_job *job, int block, uint64_t now);
/* Call when the coordinator had no memory or slot to compute the block: it tries again after
 * lease_floor_ns. */
void audit_recompute_later(coord_core *core, core_job *job, int block, uint64_t now);

/* ---- unable.c: workers that cannot compute a job ---- */

bool unable_is(const core_worker *worker, uint64_t job);
/* The newest job of which the worker gets no leases; 0: none. */
uint64_t unable_newest(const coord_core *core, const core_worker *worker);
/* The worker, or the coordinator (_self), cannot compute the block, whose lease has ended. May end
 * the job. */
void unable_report(coord_core *core, const core_arrival *arrival, const char *why);
void unable_report_self(coord_core *core, core_job *job, int block, const char *why, uint64_t now);
/* Call when the coordinator has computed a block. */
void unable_note_computed(coord_core *core, core_job *job);
void unable_on_tick(coord_core *core, uint64_t now);

/* ---- jobs.c: life of a job ---- */

core_job *jobs_find(const coord_core *core, uint64_t job);
bool jobs_is_evaluation(const core_job *job);
/* Errors: NO_MEMORY, LIMIT, EXISTS */
cop_err jobs_add(coord_core *core, const coord_event *event, uint64_t now);
/* Moves a queued job to LOADING and allocates its round. NO_MEMORY: it stays queued. */
cop_err jobs_make_resident(coord_core *core, core_job *job);
/* Ends a job: reports the state, releases it and forgets it. The pointer is invalid afterwards,
 * unless the job is loading. */
void jobs_end(coord_core *core, core_job *job, coord_job_state state, const char *text);
/* Requests a checkpoint of the current weights. None may be in progress. */
void jobs_save(coord_core *core, core_job *job, bool final);
/* Requests a last checkpoint and waits for it; then the job becomes `after`. */
void jobs_save_and_leave(coord_core *core, core_job *job, coord_job_state after);
/* The job must not continue from anything after `step`: returns it to a checkpoint as soon as
 * possible. */
void jobs_roll_back(coord_core *core, core_job *job, uint64_t step);
void jobs_on_event(coord_core *core, core_job *job, const coord_event *event, uint64_t now);
void jobs_retry_saves(coord_core *core, uint64_t now);
void jobs_end_expired(coord_core *core, uint64_t now);
/* Sets aside jobs that should leave but have no workers to finish their step: the step is repeated
 * later. */
void jobs_set_aside_stranded(coord_core *core, uint64_t now);
void jobs_destroy(coord_core *core);

#endif
