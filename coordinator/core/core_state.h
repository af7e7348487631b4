/* The core's own state, shared by its parts. Only files of this folder include it.
 *
 * Memory is allocated when a worker joins, when a worker first reports that it cannot compute a
 * job, and when a job is added or becomes resident. Besides, coord_core_step makes room for an
 * event's actions before the event changes anything, so an event is taken either completely or not
 * at all. */
#ifndef COP_COORDINATOR_CORE_STATE_H
#define COP_COORDINATOR_CORE_STATE_H

#include "coordinator/core/core.h"
#include "coordinator/core/round.h"
#include "coordinator/core/lease_times.h"

/* For each worker the core remembers up to this many jobs that the worker cannot compute. The limit
 * must exceed the number of jobs in progress: if the core forgot a job, it would lease the job to
 * the worker again and again. */
#define UNABLE_MAX 16

/* A worker reported that it cannot compute this block of the job: see unable.c. */
typedef struct core_unable {
    uint64_t job; /* 0: a free entry */
    uint64_t step;
    uint32_t first; /* where the block starts */
    bool now;       /* the worker gets no leases of the job; false: it may try again */
} core_unable;

typedef struct core_worker core_worker;
struct core_worker {
    uint64_t worker;      /* its number */
    uint64_t fingerprint; /* hash of its OpenBLAS and CPU; 0: none */
    uint64_t heard_ns;    /* when its newest message came */
    uint64_t joined_ns;
    uint64_t identity; /* hash of its identity: the same when it joins again */
    /* The held PULL: see coord_event.pull. */
    uint64_t request;       /* 0: none is held */
    uint64_t held_since_ns; /* when the request came */
    uint64_t have_job;
    uint64_t have_version;
    /* The list of waiting workers, the longest waiting first. */
    core_worker *wait_next, *wait_previous;
    /* The lease that it computes. */
    uint64_t lease; /* 0: none */
    uint64_t lease_job;
    uint32_t lease_first;  /* where the block starts: see round_block.first */
    uint64_t lease_end_ns; /* when its lease should be done; 0: unknown */
    uint64_t served_job;   /* the job of its newest lease */
    uint64_t served_ns;    /* when the worker got its newest lease, or when the result of that
                              lease came */
    uint64_t shards;       /* number of shards that it has computed */
    double ns_per_shard;   /* smoothed; 0: unknown */
    coord_lease_times lease_times[LEASE_TIMES_KINDS]; /* found by core_lease_times_key */
    uint32_t threads;
    uint32_t strikes;    /* malformed results, and values that only this worker found not finite;
                            includes strikes of its identity in unfinished jobs from before it
                            joined */
    uint32_t watched;    /* number of its next blocks that are audited even without `audit` */
    double audit_credit; /* position in the current window, 0 to 1. A window is 1 / audit blocks
                            long, and one of its blocks is audited */
    double audit_point;  /* position of the audited block in the window */
    core_unable *unable; /* (UNABLE_MAX) the newest report first; NULL: no reports */
    bool draining;       /* the worker gets no more leases, and is asked to leave */
    bool ensembles;      /* the worker can compute leases of ensembles */
    bool bf16;           /* the worker can compute leases of jobs with `wire: bf16` */
    bool quarantined;    /* the worker gets no more leases, because it computed wrong results */
    char name[COP_NAME_MAX];
};

typedef enum core_phase {
    PHASE_IDLE = 1, /* QUEUED or PAUSED: not resident */
    PHASE_LOADING,
    PHASE_TRAINING,   /* leases of a step are given out */
    PHASE_UPDATING,   /* waits for UPDATED */
    PHASE_EVALUATING, /* leases of an evaluation or ensemble are given out */
    PHASE_HOLDING,    /* between rounds. It lasts beyond the current event only if the job must wait
                         until a checkpoint is written, before it can write the next one or return
                         to an earlier one */
    PHASE_DIVERGED,   /* waits for the host's explanation: JOB_FAILED */
    PHASE_SAVING      /* waits for the last checkpoint before it ends, is paused or is queued */
} core_phase;

/* What one identity has computed for a job without confirmation: see audit.c. */
typedef struct core_contributor {
    uint64_t identity;  /* 0: a free entry */
    uint64_t since;     /* the first step with an unconfirmed result; earlier results are trusted.
                           0: there is none */
    uint64_t mark;      /* the step to which `since` moves when the next AUDITS_TRUSTED (wrong.c)
                           audits are confirmed; 0: none yet */
    uint32_t confirmed; /* confirmed audits since `mark` was set */
} core_contributor;

#define CONTRIBUTORS_MAX 256 /* entries of a job; all further identities share unlisted_since */

/* How long the pool takes for a round of one kind of work of a job: see timing.c. */
typedef struct core_pool_time {
    double round_ns;  /* 0: unknown */
    uint64_t next_ns; /* when to measure the pool's time again */
    uint64_t pool;    /* the value of coord_core.pool_version at the measurement */
} core_pool_time;

typedef struct core_job {
    coord_job_info info;
    core_phase phase;
    uint32_t queue_place; /* index + 1 in the heap of queued jobs; 0: not queued */
    bool pause;           /* a client asked for a pause, and the job is still resident */
    bool evaluate_asked;  /* a client asked for an evaluation that has not begun yet */
    bool ended;           /* the job was canceled or failed while it was being loaded; it is removed
                             when the host has answered the LOAD */
    bool returning;       /* in PHASE_LOADING: the job returns to a checkpoint */
    coord_job_state after_save; /* in PHASE_SAVING: PAUSED, COMPLETED or QUEUED */

    /* training */
    uint64_t step;       /* completed steps */
    coord_round round;   /* the current step, evaluation or ensemble */
    coord_block *blocks; /* (shards) of the current update */
    uint32_t *plan;      /* (shards) sizes of a step's blocks */
    uint32_t plan_count; /* number of blocks in the plan; 0: no plan yet */
    double plan_span_ns; /* how long a step should take; 0: unknown */
    uint64_t plan_pool;  /* coord_core.pool_version for which the plan was made */
    uint64_t plan_step;  /* completed steps when the plan was made */
    bool times_changed;  /* workers' times have changed since the plan was made */
    double loss_sum;     /* sum of the losses in the current epoch so far */
    uint64_t samples;    /* number of samples in the current epoch so far */
    uint64_t correct;    /* number of correct samples in the current epoch so far */

    /* trust */
    core_contributor
        *contributors; /* (CONTRIBUTORS_MAX), a hash table; kept while the job is not resident */
    uint64_t unlisted_since; /* the first step with an unconfirmed result of an identity that has no
                                entry; 0: there is none */
    uint64_t rollback_to;    /* 1 + the newest step that may be loaded, because a later step may
                                contain a wrong result; 0: any step may be loaded */
    uint32_t history;        /* number of returns to a checkpoint */
    uint64_t audit_until;    /* all blocks of steps up to this one are audited; 0: none */
    uint64_t recompute_again_ns; /* a COMPUTE failed for lack of memory or slots: when to try again;
                                    0: at once */
    bool cannot_recompute;       /* a COMPUTE failed for another reason */
    bool spoiled;                /* the evaluation contains unconfirmed results of a worker that is
                                    now quarantined, so it will fail */

    /* workers that cannot compute it */
    bool unable;              /* some workers get no leases of this job */
    uint64_t unable_given;    /* the newest value of counts.given that unable.c saw */
    uint64_t unable_since_ns; /* when counts.given last changed, or when no block was waiting */

    /* checkpoints */
    bool saving;             /* a checkpoint is being written */
    bool saving_final;       /* the checkpoint being written is the final one */
    bool saving_best;        /* the checkpoint being written has the best weights so far */
    bool is_best;            /* the current weights are the best so far, and are not saved yet */
    uint64_t save_failed_ns; /* when writing the final weights first failed; 0: it has not failed */
    uint64_t save_again_ns;  /* when to write the final weights again; 0: no attempt is due */
    uint64_t saved_step;     /* step of the newest checkpoint; UINT64_MAX: writing it failed */
    double best_error;       /* smallest error so far, or smallest loss if there are no classes */
    bool has_best;           /* best_error is set */

    /* time */
    double seconds;         /* training time, also of earlier runs */
    double seconds_loaded;  /* `seconds` when the job was loaded */
    double timed_seconds;   /* weighted time of the last steps; older steps have less weight */
    uint64_t timed_samples; /* number of samples of these steps, with the same weights */
    uint64_t step_began_ns;
    uint64_t run_began_ns;  /* when it was loaded, plus the time that it has had no workers since */
    uint64_t idle_ns;       /* time without workers in this step */
    uint64_t idle_since_ns; /* when it last lost all its workers; 0: it has workers */
    double shard_ns;        /* usual time of a shard; 0: unknown */
    double slice_ns;        /* usual time of a block of an evaluation or ensemble; 0: unknown */
    uint64_t share;         /* compute time that the job received: the basis of fair share */
    core_pool_time pool_time[2]; /* [0] of training, [1] of evaluations */

    uint64_t fingerprint;   /* the fingerprint that its workers must have; 0: any */
    uint64_t eligible_pool; /* coord_core.pool_version for which `eligible` was counted */
    uint32_t eligible;      /* number of workers that get leases of it */
    coord_lease_counts counts;
    double last_loss;  /* mean training loss of the epoch so far */
    double last_error; /* share of wrong samples in the newest evaluation */
    bool has_loss;     /* last_loss is set */
    bool has_error;    /* last_error is set */
} core_job;

/* A result that arrived while its lease was still held. */
typedef struct core_arrival {
    core_job *job;
    core_worker *worker; /* the worker that sent the result; NULL: the coordinator itself */
    int block;           /* index of its block */
    int holder;          /* index of the lease's holder */
    const coord_event *event;
    uint64_t now_ns; /* when the result arrived */
} core_arrival;

/* A lease whose block another worker finished first. If the lease's result comes later, it is
 * compared with the result of that other worker. */
typedef struct core_late_copy {
    uint64_t lease; /* 0: a free entry */
    uint64_t job;
    uint64_t step;
    uint64_t other_lease;  /* the lease whose result finished the block */
    uint64_t digest;       /* digest of the result of other_lease */
    uint64_t correct;      /* number of correct samples in the result of other_lease */
    uint64_t worker;       /* the worker that has `lease` */
    uint64_t other_worker; /* the worker that had other_lease */
    double loss;           /* loss of the result of other_lease */
    uint32_t first, count; /* the block */
    bool evaluate;         /* a block of an evaluation; false: a block of a training step */
} core_late_copy;

#define LATE_COPIES_MAX   64
#define CORE_GIVEN_UP_MAX 256 /* workers that one tick may remove; others follow at the next */
#define CORE_ANSWERS_MAX  256 /* pulls that one event may answer without a lease */
#define QUARANTINES_MAX   64

typedef struct core_quarantine {
    uint64_t identity;       /* 0: a free entry */
    char name[COP_NAME_MAX]; /* name of the worker */
    char evidence[256];      /* what it did wrong */
} core_quarantine;

/* Strikes of an identity in a job. They are kept when its worker leaves, until the job ends. */
typedef struct core_strikes {
    uint64_t identity; /* 0: a free entry */
    uint64_t job;
    uint32_t count;
} core_strikes;

#define JOB_STRIKES_MAX 256 /* if all are in use, the oldest entry is replaced */

struct coord_core {
    coord_core_config config;
    core_worker **workers; /* in ascending order of their numbers */
    uint32_t worker_count, worker_capacity;
    uint32_t active_workers;            /* workers that are neither draining nor quarantined */
    core_worker *wait_head, *wait_tail; /* list of waiting workers, the longest waiting first */
    core_worker *serve_next; /* the waiting worker at which the next event continues to look for
                                work, because the last event stopped after IN_VAIN_MAX workers
                                (scheduler.c); NULL: begin with wait_head */
    bool drained_wait;       /* a draining worker may be waiting for an answer */
    uint64_t ticked_ns;      /* when the last tick came; 0: none yet */
    uint64_t listens_ns;     /* the time since which no tick has been late */
    uint64_t pool_version;   /* a number that changes whenever a worker joins, leaves, drains or
                                is quarantined, and whenever the set of workers of a job changes */
    core_job **jobs;         /* the unfinished jobs, in ascending order of their numbers */
    uint32_t job_count, job_capacity;
    core_job **resident; /* (jobs_running_max + evaluations_max) jobs whose phase is not IDLE */
    uint32_t resident_count;
    uint32_t evaluation_count; /* evaluations and ensembles among the resident jobs */
    core_job **queue;          /* (job_capacity) a heap of the queued jobs, the next one first */
    uint32_t queue_count;
    uint64_t next_lease;                         /* number of the newest lease */
    core_late_copy late_copies[LATE_COPIES_MAX]; /* the oldest entry is replaced */
    uint32_t next_late_copy;                     /* number of entries written so far */
    core_quarantine quarantine[QUARANTINES_MAX]; /* the oldest entry is replaced */
    uint32_t quarantined;                        /* number of quarantines so far */
    core_strikes job_strikes[JOB_STRIKES_MAX];
    uint32_t next_job_strikes; /* number of entries that were replaced so far */
    uint64_t draws;            /* random numbers drawn from the secret */
    bool stopping;             /* STOP has come */
    bool stopped;              /* STOPPED was sent */
    uint64_t stop_began_ns;    /* when STOP came */
    coord_actions *out;        /* actions of the current event */
};

/* ---- core.c: actions ---- */

/* Appends an action whose other fields are zero. There is always room for it, because
 * coord_core_step made room before the event was taken. The pointer is valid until the next event.
 */
coord_action *core_add_action(coord_core *core, coord_action_type type, uint64_t job);
/* Gives a STATE or EVENT action an empty text and returns it. The caller may write COORD_TEXT_MAX
 * bytes. */
char *core_action_text(coord_core *core, coord_action *action);
/* Appends an EVENT action with a sentence for the log; it is a warning if `fine` is false. Returns
 * the action, so that the caller can set `identity` or `fingerprint`. */
coord_action *core_report(coord_core *core, uint64_t job, bool fine, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void core_add_drop(coord_core *core, uint64_t job,
                   uint64_t slot); /* Appends a DROP action; nothing for slot 0. */
/* The key by which a worker's measured times are found. Training and evaluations of a job have
 * different keys. */
static inline uint64_t core_lease_times_key(const core_job *job) {
    return job->info.job * 2 + job->round.evaluate;
}
/* The number of rounds that a worker needs for a block: one for each `threads` shards, and one for
 * a block of an evaluation or ensemble. */
static inline uint32_t core_rounds(const coord_round *r, const round_block *b, uint32_t threads) {
    return r->evaluate ? 1 : (b->count + threads - 1) / threads;
}

/* ---- registry.c: workers ---- */

core_worker *registry_find(const coord_core *core, uint64_t worker); /* NULL: it has left */
cop_err registry_join(coord_core *core, const coord_event *event,
                      uint64_t now); /* Errors: NO_MEMORY, LIMIT */
/* Removes the worker and frees it. The block of its lease becomes urgent, unless others hold it.
 * `why` completes the log line "worker NAME ...". */
void registry_leave(coord_core *core, core_worker *worker, const char *why);
/* Gives the worker no more leases; its next PULL is answered by NOTHING with `drain` set. */
void registry_drain(coord_core *core, core_worker *worker);
/* Gives the worker no more leases, and the block of its current lease to another worker. */
void registry_quarantine(coord_core *core, core_worker *worker);
/* Removes workers that have been silent for COP_HEARTBEATS_MISSED heartbeats. Call at each tick. */
void registry_remove_silent(coord_core *core, uint64_t now);
/* Takes a PULL: the worker waits until the scheduler answers. If it holds a lease, that lease ends
 * without a result. */
void registry_on_pull(coord_core *core, const coord_event *event, uint64_t now);
/* Takes the worker off the list of waiting workers, if it is there. */
void registry_stop_waiting(coord_core *core, core_worker *worker);
void registry_destroy(coord_core *core); /* Frees all workers. */

/* ---- scheduler.c: which job is loaded, which worker gets which block ---- */

/* Is the worker of the right kind for the job, and neither draining nor quarantined? Its reports
 * that it cannot compute the job do not count here. */
bool scheduler_fits(const core_job *job, const core_worker *worker);
/* May the worker get leases of the job? */
bool scheduler_eligible(const core_job *job, const core_worker *worker);
/* The number of workers that may get leases of the job. */
uint32_t scheduler_eligible_workers(const coord_core *core, core_job *job);
/* Call when the worker has joined: logs for which resident jobs it gets no leases because they are
 * pinned to another OpenBLAS. */
void scheduler_report_joined(coord_core *core, const core_worker *worker);
/* Call when the job was pinned or loaded: logs one line if connected workers get no leases of it
 * because it is pinned to another OpenBLAS. */
void scheduler_report_pinned(coord_core *core, const core_job *job);
/* Call when a job becomes queued, or leaves the queue. */
void scheduler_note_queued(coord_core *core, core_job *job);
void scheduler_note_unqueued(coord_core *core, core_job *job);
/* True: this resident job must make room for a queued job of higher priority. */
bool scheduler_should_yield(coord_core *core, const core_job *job);
/* Plans how the job's next steps are cut into blocks, if it has no plan yet, or if the pool or its
 * speeds have changed. */
void scheduler_plan(coord_core *core, core_job *job);
/* Makes queued jobs resident while there are free places, and appends LOAD for each. */
void scheduler_load_jobs(coord_core *core);
/* Appends the action for a lease that was given: LEASE or COMPUTE, as `type` says. Returns the
 * action. */
coord_action *scheduler_fill_lease(coord_core *core, coord_action_type type, const core_job *job,
                                   const round_block *block, const round_holder *holder);
/* Gives leases to waiting workers while there is work, and answers workers that are draining or
 * have waited too long with NOTHING. */
void scheduler_serve(coord_core *core, uint64_t now);

/* ---- timing.c: how long leases take ---- */

/* lease_serial_ns in hundredths of the computing time of a shard. 0: no shard has been computed. */
uint32_t timing_serial_percent(const coord_core *core, const core_job *job);
/* How long the pool's workers usually compute such a block, in ns; 0: unknown. */
double timing_usual_ns(const core_job *job, const round_block *block);
/* How long this worker should take from lease to result, in ns; 0: unknown. */
double timing_expected_ns(const core_job *job, const core_worker *worker, const round_block *block);
/* The deadline for a block that the worker gets now: a time, not a duration. */
uint64_t timing_deadline_ns(const coord_core *core, core_job *job, const core_worker *worker,
                            const round_block *block, uint64_t now);
/* Learns from a result how long its lease took. Replaces the estimate in the job's share of compute
 * time by the measured time, and adds that to the measured times of the job and the worker. The
 * lease must still be held. */
void timing_learn(coord_core *core, const core_arrival *arrival);

/* ---- steps.c: rounds of one job ---- */

/* Is the job in a phase in which leases are given out: PHASE_TRAINING or PHASE_EVALUATING? */
bool steps_has_leases(const core_job *job);
/* Call at the end of each event: measures the time that a step or evaluation waits for workers,
 * which does not count as training time or for limits.timeout. */
void steps_note_idle_time(coord_core *core, uint64_t now);
/* Begins the round of a job of kind EVALUATION or ENSEMBLE. */
void steps_begin_evaluation(coord_core *core, core_job *job);
/* Continues the job after step job->step: it ends, pauses, returns to the queue, writes a
 * checkpoint or begins the next step. */
void steps_continue(coord_core *core, core_job *job, uint64_t now);
/* Continues the job after its weights were loaded: it pauses, returns to the queue, begins an
 * evaluation that is due, or goes on as in steps_continue. */
void steps_begin(coord_core *core, core_job *job, uint64_t now);
/* The index of the block that has this result's lease; -1: there is none in the current round.
 * *holder is set to the index of the lease's holder. */
int steps_find(const core_job *job, const coord_result_info *result, int *holder);
/* The next three functions take the events RESULT, ABSORBED and UPDATED. They may end the job. */
void steps_on_result(coord_core *core, const coord_event *event, uint64_t now);
void steps_on_absorbed(coord_core *core, core_job *job);
void steps_on_updated(coord_core *core, core_job *job, const coord_event *event, uint64_t now);
/* Abandons the round: appends DROP for each result that it keeps, and removes its blocks. */
void steps_drop_round(coord_core *core, core_job *job);

/* Call when the votes have decided that a value of the block is not finite. Appends DIVERGED with
 * `slot`, whose tensor the host examines, and returns the action. NULL: an unaudited wrong result
 * may have spoiled the weights, so the job returns to a checkpoint instead, and `slot` is dropped.
 */
coord_action *steps_diverged(coord_core *core, core_job *job, const round_block *block,
                             uint64_t slot);
/* Call when a block is done. If it was the last one, asks for the update or ends the evaluation; an
 * ensemble passes on all results that are next in order. */
void steps_block_done(coord_core *core, core_job *job, uint64_t now);

/* ---- audit.c, wrong.c: who is believed ---- */

/* Can the coordinator compute this job's blocks with the same bits as the workers? */
bool audit_can_recompute(const coord_core *core, const core_job *job);
/* True: every block that is not done waits for a second result, but no connected worker may compute
 * it, and the coordinator cannot. */
bool audit_lacks_second_worker(const coord_core *core, const core_job *job);
/* Starts the worker's first window of audits at a random position. */
void audit_init_worker(coord_core *core, core_worker *worker);
/* Call when a block is given for the first time, to this worker. True: the block must be audited.
 * Moves the worker on in its window. */
bool audit_selects(coord_core *core, const core_job *job, core_worker *worker);
/* Writes a description of the block for log lines into `out`; returns `out`. */
const char *audit_describe_block(const core_job *job, const round_block *block, char out[96]);
/* Call when an audit has confirmed a result of this identity. */
void audit_note_confirmed(core_job *job, uint64_t identity);
/* Call when the vote `right` has refuted the vote `wrong` on the block. The worker gets a strike if
 * only `wrong` is not finite; else it is quarantined. May drop the job's round. */
void audit_punish(coord_core *core, const core_job *job, const round_block *block,
                  const round_vote *wrong, const round_vote *right);
/* Call when the worker sent a result that no honest worker sends: it gets a strike. Enough strikes
 * lead to quarantine. May drop the job's round. */
void audit_strike(coord_core *core, uint64_t job, core_worker *worker, const char *why);
/* The number of strikes of this identity in unfinished jobs. */
uint32_t audit_strikes_of(const coord_core *core, uint64_t identity);
/* Takes a well-formed result, and answers its slot. Either its block is decided, or the block waits
 * for another vote. May end the job. */
void audit_take_result(coord_core *core, const core_arrival *arrival);
/* Takes a result of a lease that has ended. If another worker finished the block, compares the two
 * results. True: KEEP was appended for the result's slot; false: the caller must drop it. */
bool audit_take_late_result(coord_core *core, const coord_event *event, uint64_t now);
/* See coord_core_wants_digest. */
bool audit_wants_digest(const coord_core *core, uint64_t worker, const coord_result_info *result);
/* Call when a block of an ensemble was passed to the host. The host adds it up, so the core cannot
 * take it back. */
void audit_note_member(core_job *job, const round_block *block);
/* Call when the step's blocks were averaged: remembers which identities had unconfirmed results. */
void audit_note_step(core_job *job);
/* The quarantine of an identity; NULL: it is not quarantined. */
const core_quarantine *audit_quarantine_of(const coord_core *core, uint64_t identity);
/* Has the coordinator compute audited blocks that no other worker checks. Call at each tick. */
void audit_on_tick(coord_core *core, uint64_t now);
/* Call when the weights lead to values that are not finite. True: an unaudited result may be the
 * cause, so the job returns to an earlier checkpoint, and all blocks up to this step are audited.
 * False: nothing was done. */
bool audit_suspect_weights(coord_core *core, core_job *job, const round_block *block);
/* Call after a return to the checkpoint of `step`: forgets unconfirmed results of later steps. */
void audit_forget_after(core_job *job, uint64_t step);

/* Call when the coordinator cannot compute the block. If only the coordinator's vote was missing,
 * decides the block without it. May end the job. */
void audit_recompute_failed(coord_core *core, core_job *job, int block);
/* Has the coordinator compute the block, if the block can have one more lease. After an attempt
 * that failed for lack of memory or slots, this waits until job->recompute_again_ns. */
void audit_recompute(coord_core *core, core_job *job, int block, uint64_t now);
/* Call when the coordinator had no memory or slot to compute the block: it tries again after
 * lease_floor_ns. */
void audit_recompute_later(coord_core *core, core_job *job, int block, uint64_t now);

/* ---- unable.c: workers that cannot compute a job ---- */

/* Does the worker get no leases of the job, because it reported that it cannot compute it? */
bool unable_has_reported(const core_worker *worker, uint64_t job);
/* The newest unfinished job for which unable_has_reported is true; 0: none. */
uint64_t unable_newest(const coord_core *core, const core_worker *worker);
/* Call when a worker reported that it cannot compute the block, after its lease has ended. May end
 * the job. */
void unable_report(coord_core *core, const core_arrival *arrival, const char *why);
/* The same for the coordinator. */
void unable_report_self(coord_core *core, core_job *job, int block, const char *why, uint64_t now);
/* Call when the coordinator has computed a block: if no worker may get leases of the job, all
 * workers may try again. */
void unable_note_computed(coord_core *core, core_job *job);
/* Lets all workers try again if no lease of a job was given for a while. Call at each tick. */
void unable_on_tick(coord_core *core, uint64_t now);

/* ---- jobs.c: life of a job ---- */

core_job *jobs_find(const coord_core *core, uint64_t job); /* NULL: no such unfinished job */
bool jobs_is_evaluation(const core_job *job);              /* Is its kind EVALUATION or ENSEMBLE? */
/* Errors: NO_MEMORY, LIMIT, EXISTS */
cop_err jobs_add(coord_core *core, const coord_event *event, uint64_t now);
/* Allocates the round of a job that is not resident, and moves it to PHASE_LOADING. Errors:
 * NO_MEMORY, and the job is unchanged. */
cop_err jobs_make_resident(coord_core *core, core_job *job);
/* Ends a job: reports the state and removes the job. The pointer is invalid afterwards, unless the
 * job is loading: then it is removed when the host has answered the LOAD. */
void jobs_end(coord_core *core, core_job *job, coord_job_state state, const char *text);
/* Requests a checkpoint of the current weights. No checkpoint of the job may be in progress. */
void jobs_save(coord_core *core, core_job *job, bool final);
/* Requests a last checkpoint, if the weights are not saved yet or the job is complete. When it is
 * written, the job gets the state `after`. */
void jobs_save_and_leave(coord_core *core, core_job *job, coord_job_state after);
/* Returns the job to a checkpoint of `step` or earlier, as soon as possible: an update, a
 * checkpoint or a load that is in progress ends first. */
void jobs_roll_back(coord_core *core, core_job *job, uint64_t step);
/* Takes an event about this job, except RESULT. May end the job. */
void jobs_on_event(coord_core *core, core_job *job, const coord_event *event, uint64_t now);
/* If writing the final weights of a job has failed, tries it again. Call at each tick. */
void jobs_retry_saves(coord_core *core, uint64_t now);
/* Ends jobs whose limits.timeout has expired. Call at each tick. */
void jobs_end_expired(coord_core *core, uint64_t now);
/* Handles jobs that should pause, stop or make room, but have no workers to finish their step:
 * takes them off the pool, and the step is repeated later. Also ends evaluations that are spoiled,
 * or that a stop cancels. */
void jobs_set_aside_stranded(coord_core *core, uint64_t now);
void jobs_destroy(coord_core *core);

#endif
