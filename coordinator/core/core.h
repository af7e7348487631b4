/* The coordinator's decisions, sans-I/O: plain structs in (event, now), actions out. No sockets,
 * clocks, files, threads or tensors; memory only when workers or jobs are added. The host
 * (engine/loop.c) turns messages into events and actions into messages; tests and the simulator
 * drive the same code with virtual time.
 *
 * Parts: registry (workers, heartbeats, drain), scheduler (which block to whom; jobs share the pool
 * by priority, then fair share), round (one step of one job: blocks, leases, results), job
 * lifecycle. Invariants, asserted after every event in debug builds: at most one result per shard
 * and step is kept; every lease has a deadline; a block is pending, leased or done; each holder of
 * a block is a live worker whose lease that is; every held pull belongs to a live worker.
 *
 * Life of a job: JOB_ADDED (QUEUED) -> scheduler: ACTION_LOAD -> JOB_LOADED (RUNNING) -> per step:
 * leases -> RESULTs -> ACTION_UPDATE -> UPDATED -> [ACTION_METRICS] -> at an epoch's end
 * [evaluation leases -> ACTION_EVALUATED] -> [ACTION_CHECKPOINT, asynchronous] -> next step ... ->
 * last step: evaluation, final ACTION_CHECKPOINT (final = true, again while it fails) ->
 * CHECKPOINTED -> COMPLETED, ACTION_UNLOAD. Pause: the step under way is finished,
 * ACTION_CHECKPOINT (unless this step was saved already, or nothing was trained), PAUSED,
 * ACTION_UNLOAD. Cancel: leases are canceled, CANCELED, ACTION_UNLOAD at once.
 *
 * Life of an evaluation (kind EVALUATION or ENSEMBLE; its weights are there already): JOB_ADDED ->
 * RUNNING at once, beside config.jobs_running_max trainings -> leases -> RESULTs -> [ENSEMBLE: each
 * block's result by ACTION_ABSORB in the order of blocks, answered by ABSORBED; only info.window
 * blocks are out or not absorbed at a time] -> ACTION_EVALUATED -> COMPLETED, ACTION_UNLOAD. It
 * cannot be paused, and a stop cancels it.
 *
 * What a host must do: answer every LOAD with JOB_LOADED or JOB_FAILED (a job that was canceled
 * meanwhile is unloaded after JOB_LOADED; after JOB_FAILED nothing is resident), every UPDATE of a
 * job that is still there with UPDATED, every CHECKPOINT with CHECKPOINTED, every DIVERGED with
 * JOB_FAILED, every ROLLBACK as a LOAD, every COMPUTE with a RESULT (failed, if it cannot).
 * Each result's slot is answered by one KEEP or DROP in the same step; a kept one goes with its
 * UPDATE (the host's from then on, unless UPDATED is not ok), its ABSORB, or by a later DROP. A
 * checkpoint is also asked for when an evaluation is the best so far (keep_best), at the step
 * evaluated.
 *
 * Trust (audit.c): a share `audit` of the blocks needs two equal results, of workers of different
 * names; which ones is drawn from config.secret when a block is first given, and the second lease
 * looks like the first. Results that differ are decided by the coordinator (COMPUTE), or by a third
 * worker where it cannot. Who was wrong gets nothing more, its results of rounds under way are
 * dropped, and a job that averaged one of them unconfirmed goes back (ROLLBACK) to a checkpoint
 * from before it. Invariants: of an audited block nothing is averaged but a result that was
 * confirmed; a quarantined worker holds no lease; a job that must go back averages nothing more
 * before. */
#ifndef COP_COORDINATOR_CORE_H
#define COP_COORDINATOR_CORE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

#define COORD_SELF UINT64_MAX /* the coordinator as a worker: results of COMPUTE */

typedef enum coord_job_state { /* = coppice.api.State */
                               COORD_QUEUED = 1,
                               COORD_RUNNING,
                               COORD_PAUSED,
                               COORD_COMPLETED,
                               COORD_FAILED,
                               COORD_CANCELED
} coord_job_state;

typedef enum coord_job_kind {
    COORD_TRAINING = 0,
    COORD_EVALUATION, /* of one model: losses and counts */
    COORD_ENSEMBLE    /* outputs of many networks on the same samples */
} coord_job_kind;

/* What the core knows of a job: numbers only. */
typedef struct coord_job_info {
    uint64_t job; /* id, ascending in order of submission, never 0 */
    int32_t priority;
    coord_job_kind kind;
    uint32_t batch, shards, train_samples;
    uint64_t steps, steps_per_epoch;
    bool last_keep;
    uint32_t evaluate_samples; /* of the part that is evaluated; 0: never */
    uint32_t evaluate_every;   /* epochs */
    bool by_loss; /* there are no classes to be wrong about: the best weights have the least loss */
    bool keep_best; /* evaluations choose the best weights. Never those on the test part: it would
                       no longer say how well the result does on new data */
    uint64_t checkpoint_every; /* steps */
    uint32_t workers_max;      /* limits.workers; 0: any */
    uint64_t timeout_ns;       /* limits.timeout; 0: none */
    uint64_t fingerprint; /* hash of the pinned fingerprint (numerics: openblas); 0: any worker will
                             do. With pin_first set and fingerprint 0, the first worker that gets a
                             lease decides it */
    bool pin_first;
    double audit;          /* share of the blocks that another worker computes as well; 0..1 */
    coord_job_state state; /* QUEUED or PAUSED when added; finished ones are not added */
    /* ENSEMBLE: `members` networks on each slice of evaluate_samples, at most `lease_members` of
     * them in a lease, at most `window` leases' results held at a time. each_version: a member is a
     * version of the weights, and comes alone in its lease; else all are drawn from version 0 */
    uint32_t members, lease_members, window;
    bool each_version;
} coord_job_info;

typedef enum coord_event_type {
    COORD_EVENT_TICK = 1,      /* at least every 50 ms while anything is active */
    COORD_EVENT_WORKER_JOINED, /* worker */
    COORD_EVENT_WORKER_GONE,   /* worker: connection lost or said goodbye */
    COORD_EVENT_WORKER_DRAIN,  /* worker: give it nothing more, tell it (client asked) */
    COORD_EVENT_HEARTBEAT,     /* worker */
    COORD_EVENT_PULL,   /* worker, pull: it wants work; the host holds the request until an action
                           names it */
    COORD_EVENT_RESULT, /* worker, result: before the PULL it came with. Of a COMPUTE: worker is
                           COORD_SELF */
    COORD_EVENT_JOB_ADDED,  /* info */
    COORD_EVENT_JOB_LOADED, /* loaded: data and weights are there */
    COORD_EVENT_JOB_FAILED, /* job, text: the host could not load it, or found it diverged */
    COORD_EVENT_JOB_PAUSE,
    COORD_EVENT_JOB_RESUME,
    COORD_EVENT_JOB_CANCEL,   /* job; text: why, or NULL */
    COORD_EVENT_JOB_EVALUATE, /* job: a client asks for an evaluation of the newest weights
                                 (RUNNING: after this step; else ignored) */
    COORD_EVENT_UPDATED, /* job, step, ok: the new weights are version `step`. Not ok: nothing was
                            changed. result.first and result.digest are of the block whose gradient
                            is not finite; if result.finite is set, all gradients are finite and
                            their sum is not, and `digests` has the digest of each block */
    COORD_EVENT_CHECKPOINTED, /* job, step, ok */
    COORD_EVENT_ABSORBED,     /* job: the oldest ABSORB that was not answered yet is done */
    COORD_EVENT_STOP /* graceful stop: finish steps under way, checkpoint all running jobs, then
                        ACTION_STOPPED */
} coord_event_type;

typedef struct coord_result_info {
    uint64_t lease, job, step, compute_ns;
    uint32_t attempt, first, count;
    uint32_t members;        /* whose outputs an ensemble's result holds */
    bool evaluate, ensemble; /* kind: neither: training; an ensemble's result is both */
    bool finite;             /* the loss; and the gradient, where the digest was asked for */
    bool failed;             /* the worker could not compute it: text says why */
    bool busy;               /* failed for lack of memory or of free slots: ask again later */
    bool malformed;          /* its tensor has not the size that it must have: text says so */
    double loss;
    uint64_t correct, samples;
    uint64_t slot;   /* host's handle of the gradient; the core answers with KEEP or DROP for it */
    uint64_t digest; /* of the gradient, by the host, from what it received, with a secret; all NaNs
                        count as one value. 0: there is none, or coord_core_wants_digest said no.
                        UPDATED, not ok: of the block at fault */
} coord_result_info;

typedef struct coord_event {
    coord_event_type type;
    uint64_t worker, job, step;
    bool ok;
    const char *text;        /* borrowed for the call */
    const uint64_t *digests; /* UPDATED, not ok, of a job with `audit` above 0: one digest for each
                                block of the UPDATE, in its order; borrowed for the call */
    struct {
        const char *name;
        const char *identity; /* what a quarantine goes by: the certificate's name, or the name that
                                 the worker asked for; NULL: name */
        uint32_t threads;
        uint64_t fingerprint;
        bool ensembles; /* can compute leases of ensembles */
    } joined;
    struct {
        uint64_t request, have_job, have_version;
    } pull; /* request: host's handle */
    coord_result_info result;
    coord_job_info info;
    /* JOB_LOADED: completed steps, and the running sums of the epoch under way (exact f64), seconds
     * spent, the best error (or loss) so far */
    struct {
        uint64_t step;
        double loss_sum;
        uint64_t samples, correct;
        double seconds, best_error;
        bool has_best;
    } loaded;
} coord_event;

typedef enum coord_action_type {
    COORD_ACTION_LEASE = 1, /* answer `request` with `lease` */
    COORD_ACTION_NOTHING,   /* answer `request`: retry_ms, drain, unknown */
    COORD_ACTION_KEEP,      /* slot: the result is part of the round */
    COORD_ACTION_DROP,      /* slot: late, double, stale, not wanted */
    COORD_ACTION_LOAD, /* job, step: make data, weights (newest checkpoint of at most that step, or
                          initial; remove those that are newer) and optimizer state resident */
    COORD_ACTION_ROLLBACK,   /* job, step: as LOAD, of a job that is resident and has no update or
                                checkpoint under way */
    COORD_ACTION_COMPUTE,    /* job, step, lease: compute this block here and answer with RESULT of
                                worker COORD_SELF */
    COORD_ACTION_UNLOAD,     /* job: release them (unfinished checkpoints still complete) */
    COORD_ACTION_UPDATE,     /* job, step, update: average the blocks and update; answer UPDATED */
    COORD_ACTION_METRICS,    /* job, step, metrics: one completed step */
    COORD_ACTION_EPOCH,      /* job, step, metrics: sums over the epoch that ended */
    COORD_ACTION_EVALUATED,  /* job, step, metrics: an evaluation ended */
    COORD_ACTION_CHECKPOINT, /* job, step, checkpoint: answer CHECKPOINTED */
    COORD_ACTION_ABSORB,     /* job, slot, lease (first, count: samples; member, members): add these
                                outputs to what there is, members in their order; answer ABSORBED, in
                                order */
    COORD_ACTION_STATE,      /* job, state, text: persist and tell watchers */
    COORD_ACTION_DISCONNECT, /* worker: silent for COP_HEARTBEATS_MISSED heartbeats; close its pipes
                                (no WORKER_GONE event needed after) */
    COORD_ACTION_EVENT,    /* job (0: none), text: for the event log and `logs`; level warn if ok is
                              false. fingerprint: the job was pinned to it just now,    by `worker`
                              (persist it: JOB_ADDED after a restart carries it); else 0 */
    COORD_ACTION_DIVERGED, /* job, step, slot, lease (first, count, evaluate, ensemble, member,
                              members): not finite for two workers, and for the coordinator where
                              it can compute the job; answer
                              JOB_FAILED with the whole sentence */
    COORD_ACTION_STOPPED
} coord_action_type;

typedef struct coord_block {
    uint32_t first, count;
    uint64_t slot;
} coord_block;

#define COORD_TEXT_MAX 256

/* What the host is to do. `type` says which member of each union is set, and which of job, step and
 * worker are: see coord_action_type. */
typedef struct coord_action {
    coord_action_type type;
    uint64_t job, step, worker;
    union {
        uint64_t request; /* LEASE, NOTHING */
        uint64_t slot;    /* KEEP, DROP, ABSORB, DIVERGED (0: none) */
    };
    union {
        /* LEASE, COMPUTE. ABSORB and DIVERGED: first, count, evaluate, ensemble, member, members */
        struct {
            uint64_t lease, version, deadline_ns;
            uint32_t attempt, first, count, batch;
            uint32_t history; /* of the version: how often the job has returned to a checkpoint */
            uint32_t member, members; /* ensemble: members [member, member + members) on samples
                                         [first, first + count); `step` is the block's number from 1
                                       */
            bool evaluate, ensemble;
            bool sum; /* DIVERGED: all gradients are finite, their sum is not */
        } lease;
        struct {
            uint32_t retry_ms;
            bool drain, unknown;
        } nothing; /* NOTHING */
        /* UPDATE: blocks ascending, together all shards that have samples: a block whose shards are
         * all absent (short last batch) is left out. Borrowed until the next coord_core_step. */
        struct {
            const coord_block *blocks;
            uint32_t count, batch;
        } update;
        /* METRICS, EPOCH, EVALUATED. seconds: training time of the job so far; error: share of the
         * samples that is not correct, NaN where there are no classes */
        struct {
            double loss_sum;
            uint64_t samples, correct;
            double seconds, error;
        } metrics;
        struct {
            double loss_sum;
            uint64_t samples, correct;
            double seconds, best_error;
            bool has_best; /* best_error is set: a loss may be negative */
            bool best, final;
        } checkpoint; /* CHECKPOINT */
        /* STATE: text, state. EVENT: text, ok, kind, identity, fingerprint. The text is borrowed
         * until the next coord_core_step; never NULL. */
        struct {
            const char *text;
            uint64_t kind;     /* the same for all texts of one kind ... */
            uint64_t identity; /* ... and of the worker that it is about, 0: of none. They limit what
                                  peers can have written to the log */
            uint64_t fingerprint;
            coord_job_state state;
            bool ok;
        };
    };
} coord_action;

static_assert(sizeof(coord_action) <= 96, "a step of 1024 shards needs many actions");

/* What a lease's weights are called towards a worker, which says it again when it has them: after a
 * return to a checkpoint, the same step has other weights. Steps have 32 bits. */
static inline uint64_t coord_weights_name(const coord_action *lease) {
    return (uint64_t)lease->lease.history << 32 | lease->lease.version;
}

/* Actions of one step, in order, and their texts; grows as needed and is reused. */
typedef struct coord_actions {
    coord_action *items;
    char (*texts)[COORD_TEXT_MAX];
    uint32_t count, capacity, text_count, text_capacity;
} coord_actions;

typedef struct coord_core coord_core;
typedef struct coord_core_config {
    uint32_t jobs_running_max;       /* trainings resident at once (default 4) */
    uint32_t evaluations_max;        /* evaluations at once, more are refused: LIMIT (default 4) */
    uint64_t lease_floor_ns;         /* shortest lease deadline (default 5 s) */
    uint32_t lease_overhead_percent; /* of one shard's time that a lease costs beside computing:
                                        steers block sizes (default 25) */
    uint64_t heartbeat_ns;           /* default COP_HEARTBEAT_MS */
    uint64_t save_patience_ns;       /* final weights that cannot be written (full disk) are tried
                                        again every second, for so long (default 1 h) */
    uint64_t secret[2];              /* decides what is audited: random, known to nobody else */
    uint64_t fingerprint;            /* of the coordinator's own OpenBLAS; 0: none */
    bool can_recompute;              /* the host can COMPUTE */
    uint32_t strikes_max; /* values that are not finite and that only this worker saw, until it is
                             quarantined; 0: any number */
    bool heartbeats;      /* false in process: workers cannot go silent */
    bool speculate; /* lease a block a second time when a worker idles that would likely finish it
                       sooner than its holder; false in process, where workers share their cores */
} coord_core_config;

cop_err coord_core_create(const coord_core_config *config, coord_core **out); /* NO_MEMORY */
void coord_core_destroy(coord_core *core);
/* The one entry. `out` is cleared first, then filled. NO_MEMORY and LIMIT leave the core consistent
 * (the event did not happen). */
cop_err coord_core_step(coord_core *core, const coord_event *event, uint64_t now_ns,
                        coord_actions *out);
/* Asserts what must hold between two events; debug builds and tests do so after each. */
void coord_core_check(const coord_core *core);
void coord_actions_fini(coord_actions *actions);

/* What became of a job's leases since it was added. */
typedef struct coord_lease_counts {
    uint64_t given;
    uint64_t repeated; /* of those: the block had been given before, and came to nothing yet */
    uint64_t doubled;  /* of those: a holder was slow, not gone */
    /* results that were dropped: their block was done already; they had come before; they were for
     * a step or a lease that is past */
    uint64_t late, twice, stale;
    uint64_t audited;   /* blocks that needed two equal results and got them */
    uint64_t compared;  /* results of copies that came second, and were compared */
    uint64_t disputed;  /* results that differed */
    uint64_t rollbacks; /* returns to a checkpoint */
} coord_lease_counts;
/* For `jobs`, `workers`, status: snapshots without side effects. False: unknown. */
typedef struct coord_job_view {
    coord_job_info info;
    uint64_t step;
    double epoch;
    uint32_t holders; /* leases that workers hold now */
    uint32_t workers; /* that hold one, or did within COORD_RECENT_NS */
    coord_lease_counts leases;
    uint64_t blocks_done, blocks; /* of an evaluation */
    double seconds, samples_per_s, eta_seconds, loss, error;
    bool has_loss, has_error;
    const char *waiting_for;
} coord_job_view;
#define COORD_RECENT_NS 1000000000 /* a worker still counts as one of the job after its lease */
bool coord_core_job(const coord_core *core, uint64_t job, uint64_t now_ns, coord_job_view *out);
typedef struct coord_worker_view {
    uint64_t worker, job, lease, shards, joined_ns;
    const char *name;
    uint32_t threads, strikes;
    bool draining, computing, quarantined;
    uint64_t served_job, served_ns; /* of its newest lease: the job, and when it began or ended */
    uint64_t unable; /* the newest job that it said it cannot compute, and gets nothing of; or 0 */
    const char *evidence; /* of a quarantine; NULL: none */
    double ms_per_shard;
} coord_worker_view;
uint32_t coord_core_worker_count(const coord_core *core);
bool coord_core_worker_at(const coord_core *core, uint32_t index, coord_worker_view *out);
bool coord_core_worker(const coord_core *core, uint64_t worker, coord_worker_view *out);
/* Must the host give this result (lease, job, step, first, evaluate) of `worker` a digest? */
bool coord_core_wants_digest(const coord_core *core, uint64_t worker,
                             const coord_result_info *result);
/* Would a result of this lease, which `worker` computes, still be used? */
bool coord_core_wants(const coord_core *core, uint64_t worker, uint64_t lease);

#endif
