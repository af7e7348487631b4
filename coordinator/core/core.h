/* The coordinator's decisions, without I/O: a plain event and the time go in, plain actions come
 * out. No sockets, clocks, files, threads or tensors; memory is allocated only when a worker joins
 * or a job is added. The host (engine/loop.c) turns messages into events and actions into messages.
 * Tests and the simulator drive the same code in virtual time.
 *
 * Parts: registry (workers, heartbeats, drain), scheduler (which worker gets which block; jobs
 * share the pool by priority, then by fair share), round (one step of one job: blocks, leases,
 * results), the life of a job. Invariants, asserted after every event in debug builds: at most one
 * result is kept per shard and step; every lease has a deadline; a block is pending, leased or
 * done; each holder of a block is a connected worker that computes exactly this lease; every held
 * PULL belongs to a connected worker.
 *
 * Life of a training: JOB_ADDED (QUEUED) -> ACTION_LOAD -> JOB_LOADED (RUNNING). Then for each
 * step: leases -> RESULTs -> ACTION_UPDATE -> UPDATED -> ACTION_METRICS. At the end of an epoch:
 * evaluation leases -> ACTION_EVALUATED. Every checkpoint_every steps: ACTION_CHECKPOINT, which
 * training does not wait for. After the last step: evaluation, ACTION_CHECKPOINT with final = true
 * (repeated while it fails) -> CHECKPOINTED -> COMPLETED, ACTION_UNLOAD. A pause finishes the
 * current step, then ACTION_CHECKPOINT (unless this step is saved already, or nothing was trained),
 * PAUSED, ACTION_UNLOAD. A cancel ends all leases, then CANCELED and ACTION_UNLOAD at once.
 *
 * Life of an evaluation (kind EVALUATION or ENSEMBLE; its weights are loaded already): JOB_ADDED ->
 * RUNNING at once, in addition to config.jobs_running_max trainings -> leases -> RESULTs ->
 * ACTION_EVALUATED -> COMPLETED, ACTION_UNLOAD. An ensemble passes each block's result on by
 * ACTION_ABSORB, in the order of blocks, answered by ABSORBED; at most info.window blocks are
 * leased or not yet absorbed. An evaluation cannot be paused, and a stop cancels it.
 *
 * A host must answer every LOAD with JOB_LOADED or JOB_FAILED, every ROLLBACK as a LOAD, every
 * UPDATE of a job that still exists with UPDATED, every CHECKPOINT with CHECKPOINTED, every
 * DIVERGED with JOB_FAILED, and every COMPUTE with a RESULT (failed, if it cannot). If a job is
 * canceled while it loads, UNLOAD follows JOB_LOADED; after JOB_FAILED nothing is resident. Each
 * result's slot is answered by one KEEP or DROP in the same step. A kept slot ends with its UPDATE
 * (it is the host's from then on, unless UPDATED is not ok), with its ABSORB, or by a later DROP. A
 * checkpoint is also requested when an evaluation is the best so far (keep_best), for the step that
 * was evaluated.
 *
 * Trust (audit.c): a share `audit` of the blocks needs two equal results from workers of different
 * identities. config.secret decides which blocks when they are first given, and the second lease
 * looks like the first. If results differ, the coordinator computes the block (COMPUTE), or a third
 * worker where the coordinator cannot. A worker that was wrong gets no more leases, and its results
 * of the current rounds are dropped. A job that averaged one of its unconfirmed results returns
 * (ROLLBACK) to a checkpoint from before it. Invariants: no unconfirmed result of an audited block
 * is averaged; a quarantined worker holds no lease; a job that must return averages nothing before
 * it has. */
#ifndef COP_COORDINATOR_CORE_H
#define COP_COORDINATOR_CORE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

#define COORD_SELF UINT64_MAX /* the coordinator acting as a worker: results of COMPUTE */

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
    COORD_EVALUATION, /* of one model: loss and correct samples */
    COORD_ENSEMBLE    /* outputs of many networks on the same samples */
} coord_job_kind;

/* What the core knows of a job: only numbers. */
typedef struct coord_job_info {
    uint64_t job; /* number, ascending in order of submission, never 0 */
    int32_t priority;
    coord_job_kind kind;
    uint32_t batch, shards, train_samples;
    uint64_t steps, steps_per_epoch;
    bool last_keep;
    uint32_t evaluate_samples; /* of the part that is evaluated; 0: no evaluation */
    uint32_t evaluate_every;   /* epochs */
    bool by_loss;   /* there are no classes: the weights with the smallest loss are the best */
    bool keep_best; /* evaluations choose the best weights. Not set if they use the test part, whose
                       error would then be too optimistic */
    uint64_t checkpoint_every; /* steps */
    uint32_t workers_max;      /* limits.workers; 0: any */
    uint64_t timeout_ns;       /* limits.timeout; 0: none */
    uint64_t fingerprint; /* hash of the pinned fingerprint (numerics: openblas); 0: any worker will
                             do. With pin_first set and fingerprint 0, the first worker that gets a
                             lease decides it */
    bool pin_first;
    double audit;          /* share of the blocks that a second worker computes too; 0..1 */
    coord_job_state state; /* QUEUED or PAUSED when added; ended jobs are not added */
    /* ENSEMBLE: `members` networks on each slice of evaluate_samples. A lease has up to
     * `lease_members` members; up to `window` results are held. each_version: each member is a
     * version of the weights and has a lease of its own; else all are drawn from version 0 */
    uint32_t members, lease_members, window;
    bool each_version;
} coord_job_info;

typedef enum coord_event_type {
    COORD_EVENT_TICK = 1,      /* at least every 50 ms while anything is active */
    COORD_EVENT_WORKER_JOINED, /* worker */
    COORD_EVENT_WORKER_GONE,   /* worker: its connection is lost, or it said goodbye */
    COORD_EVENT_WORKER_DRAIN,  /* worker: give it no more leases and tell it to leave (a client
                                  asked) */
    COORD_EVENT_HEARTBEAT,     /* worker */
    COORD_EVENT_PULL, /* worker, pull: it asks for work. The host holds the request until an action
                         names it */
    COORD_EVENT_RESULT,     /* worker, result. Comes before the PULL that carried it. After COMPUTE:
                               worker is COORD_SELF */
    COORD_EVENT_JOB_ADDED,  /* info */
    COORD_EVENT_JOB_LOADED, /* loaded: data and weights are in memory */
    COORD_EVENT_JOB_FAILED, /* job, text: the host could not load it, or reports how it diverged */
    COORD_EVENT_JOB_PAUSE,
    COORD_EVENT_JOB_RESUME,
    COORD_EVENT_JOB_CANCEL,   /* job; text: the reason, or NULL */
    COORD_EVENT_JOB_EVALUATE, /* job: a client asks for an evaluation of the newest weights: after
                                 the current step if RUNNING, else ignored */
    COORD_EVENT_UPDATED, /* job, step, ok: the new weights are version `step`. Not ok: nothing was
                            changed. result.first and result.digest are of the block whose gradient
                            is not finite; if result.finite is set, all gradients are finite and
                            their sum is not, and `digests` has the digest of each block */
    COORD_EVENT_CHECKPOINTED, /* job, step, ok */
    COORD_EVENT_ABSORBED,     /* job: the oldest unanswered ABSORB is done */
    COORD_EVENT_STOP /* graceful stop: finish the current steps, write checkpoints of all running
                        jobs, then ACTION_STOPPED */
} coord_event_type;

typedef struct coord_result_info {
    uint64_t lease, job, step, compute_ns;
    uint32_t attempt, first, count;
    uint32_t members;        /* members whose outputs an ensemble's result holds */
    bool evaluate, ensemble; /* the kind: neither is set for training, both are for an ensemble */
    bool finite;    /* the loss is finite; and so is the gradient, if a digest was requested */
    bool failed;    /* it could not be computed: text has the reason */
    bool busy;      /* failed for lack of memory or free slots: worth another try later */
    bool malformed; /* its tensor has the wrong size: text has the reason */
    double loss;
    uint64_t correct, samples;
    uint64_t slot;   /* the host's handle of the gradient; the core answers with KEEP or DROP */
    uint64_t digest; /* of the gradient as received, keyed with a secret of the host; all NaNs count
                        as one value. 0: none, or coord_core_wants_digest returned false. UPDATED,
                        not ok: of the block at fault */
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
        const char *identity; /* what a quarantine applies to: the certificate's name, or the name
                                 that the worker asked for; NULL: name */
        uint32_t threads;
        uint64_t fingerprint;
        bool ensembles; /* it can compute leases of ensembles */
    } joined;
    struct {
        uint64_t request, have_job, have_version;
    } pull; /* request: host's handle */
    coord_result_info result;
    coord_job_info info;
    /* JOB_LOADED: completed steps, the running sums of the current epoch (exact f64), seconds
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
    COORD_ACTION_LEASE = 1,  /* answer `request` with `lease` */
    COORD_ACTION_NOTHING,    /* answer `request`: retry_ms, drain, unknown */
    COORD_ACTION_KEEP,       /* slot: the result belongs to the round */
    COORD_ACTION_DROP,       /* slot: late, duplicate, stale or unwanted */
    COORD_ACTION_LOAD,       /* job, step: load data, optimizer state and weights: of the newest
                                checkpoint up to this step (newer ones are removed), or initial */
    COORD_ACTION_ROLLBACK,   /* job, step: like LOAD, for a resident job without an update or
                                checkpoint in progress */
    COORD_ACTION_COMPUTE,    /* job, step, lease: compute this block here and answer with RESULT of
                                worker COORD_SELF */
    COORD_ACTION_UNLOAD,     /* job: release it (checkpoints in progress still complete) */
    COORD_ACTION_UPDATE,     /* job, step, update: average the blocks and update; answer UPDATED */
    COORD_ACTION_METRICS,    /* job, step, metrics: one completed step */
    COORD_ACTION_EPOCH,      /* job, step, metrics: sums over the epoch that ended */
    COORD_ACTION_EVALUATED,  /* job, step, metrics: an evaluation ended */
    COORD_ACTION_CHECKPOINT, /* job, step, checkpoint: answer CHECKPOINTED */
    COORD_ACTION_ABSORB,     /* job, slot, lease (first, count: samples; member, members): add these
                                outputs, members in order; answer ABSORBED, in order */
    COORD_ACTION_STATE,      /* job, state, text: store it and notify watchers */
    COORD_ACTION_DISCONNECT, /* worker: silent for COP_HEARTBEATS_MISSED heartbeats; close its
                                connections (no WORKER_GONE event is needed) */
    COORD_ACTION_EVENT,    /* job (0: none), text: for the event log and `logs`; a warning if ok is
                              false. fingerprint: the job has just been pinned to it, by `worker`:
                              store it, so that JOB_ADDED carries it after a restart; else 0 */
    COORD_ACTION_DIVERGED, /* job, step, slot, lease (first, count, evaluate, ensemble, member,
                              members, sum): not finite for two workers, and for the coordinator if
                              it can compute the job. Answer JOB_FAILED with the full sentence */
    COORD_ACTION_STOPPED
} coord_action_type;

typedef struct coord_block {
    uint32_t first, count;
    uint64_t slot;
} coord_block;

#define COORD_TEXT_MAX 256

/* What the host is to do. `type` decides which member of each union is set, and which of job, step
 * and worker: see coord_action_type. */
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
        /* UPDATE: blocks in ascending order, together all shards that have samples. A block whose
         * shards are all absent (short last batch) is left out. Borrowed until the next
         * coord_core_step. */
        struct {
            const coord_block *blocks;
            uint32_t count, batch;
        } update;
        /* METRICS, EPOCH, EVALUATED. seconds: training time of the job so far; error: share of
         * wrong samples, NaN if there are no classes */
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
            uint64_t kind;     /* equal for all texts of one kind ... */
            uint64_t identity; /* ... and the worker that it is about, 0: none. They limit how much
                                  a peer can write to the log */
            uint64_t fingerprint;
            coord_job_state state;
            bool ok;
        };
    };
} coord_action;

static_assert(sizeof(coord_action) <= 96, "a step of 1024 shards needs many actions");

/* The name of a lease's weights, by which a worker says that it has them. After a return to a
 * checkpoint, the same step has other weights. Steps have 32 bits. */
static inline uint64_t coord_weights_name(const coord_action *lease) {
    return (uint64_t)lease->lease.history << 32 | lease->lease.version;
}

/* The actions of one step, in order, and their texts. Grows as needed and is reused. */
typedef struct coord_actions {
    coord_action *items;
    char (*texts)[COORD_TEXT_MAX];
    uint32_t count, capacity, text_count, text_capacity;
} coord_actions;

typedef struct coord_core coord_core;
typedef struct coord_core_config {
    uint32_t jobs_running_max; /* trainings resident at once (default 4) */
    uint32_t evaluations_max;  /* evaluations at once (default 4); more are refused with LIMIT */
    uint64_t lease_floor_ns;   /* shortest lease deadline (default 5 s) */
    uint32_t lease_overhead_percent; /* what a lease costs besides computing, of one shard's time:
                                        steers block sizes (default 25) */
    uint64_t heartbeat_ns;           /* default COP_HEARTBEAT_MS */
    uint64_t save_patience_ns; /* how long to retry, once a second, final weights that cannot be
                                  written (full disk) (default 1 h) */
    uint64_t secret[2];        /* decides what is audited: random, known to nobody else */
    uint64_t fingerprint;      /* of the coordinator's own OpenBLAS; 0: none */
    bool can_recompute;        /* the host can carry out COMPUTE */
    uint32_t strikes_max; /* values that are not finite, though others found them finite, before a
                             worker is quarantined; 0: no limit */
    bool heartbeats;      /* false in process, where workers cannot fall silent */
    bool speculate; /* lease a block a second time when an idle worker would probably finish it
                       sooner than its holder; false in process, where workers share their cores */
} coord_core_config;

cop_err coord_core_create(const coord_core_config *config, coord_core **out); /* NO_MEMORY */
void coord_core_destroy(coord_core *core);
/* The only entry: the core takes one event and fills `out` with what follows; `out` is cleared
 * first. Errors: NO_MEMORY, LIMIT, EXISTS. After an error the core is as if the event had not
 * happened. */
cop_err coord_core_step(coord_core *core, const coord_event *event, uint64_t now_ns,
                        coord_actions *out);
/* Asserts what must hold between two events. Debug builds and tests call it after each. */
void coord_core_check(const coord_core *core);
void coord_actions_fini(coord_actions *actions);

/* What became of a job's leases since it was added. */
typedef struct coord_lease_counts {
    uint64_t given;
    uint64_t repeated; /* of these: the block had been given before without a result */
    uint64_t doubled;  /* of these: a holder was slow, not gone */
    /* dropped results: of a block that was done; sent twice; of an earlier step or lease */
    uint64_t late, twice, stale;
    uint64_t audited;   /* blocks that needed two equal results and got them */
    uint64_t compared;  /* results of copies that came second and were compared */
    uint64_t disputed;  /* results that differed */
    uint64_t rollbacks; /* returns to a checkpoint */
} coord_lease_counts;
/* For `jobs`, `workers` and status: snapshots without side effects. False: unknown. */
typedef struct coord_job_view {
    coord_job_info info;
    uint64_t step;
    double epoch;
    uint32_t holders; /* leases that workers hold now */
    uint32_t workers; /* workers that hold a lease, or did within COORD_RECENT_NS */
    coord_lease_counts leases;
    uint64_t blocks_done, blocks; /* of an evaluation */
    double seconds, samples_per_s, eta_seconds, loss, error;
    bool has_loss, has_error;
    const char *waiting_for;
} coord_job_view;
#define COORD_RECENT_NS                                                                            \
    1000000000 /* for this long after its lease a worker still counts for the job */
bool coord_core_job(const coord_core *core, uint64_t job, uint64_t now_ns, coord_job_view *out);
typedef struct coord_worker_view {
    uint64_t worker, job, lease, shards, joined_ns;
    const char *name;
    uint32_t threads, strikes;
    bool draining, computing, quarantined;
    uint64_t served_job, served_ns; /* of its newest lease: the job, and when it began or ended */
    uint64_t unable;      /* the newest job that it cannot compute and gets no leases of; 0: none */
    const char *evidence; /* of a quarantine; NULL: none */
    double ms_per_shard;
} coord_worker_view;
uint32_t coord_core_worker_count(const coord_core *core);
bool coord_core_worker_at(const coord_core *core, uint32_t index, coord_worker_view *out);
bool coord_core_worker(const coord_core *core, uint64_t worker, coord_worker_view *out);
/* Must the host compute a digest of this result (lease, job, step, first, evaluate) of `worker`? If
 * so, it does before it sends the RESULT. */
bool coord_core_wants_digest(const coord_core *core, uint64_t worker,
                             const coord_result_info *result);
/* Would a result of this lease, which `worker` computes, still be used? If not, the host tells the
 * worker to cancel it. */
bool coord_core_wants(const coord_core *core, uint64_t worker, uint64_t lease);

#endif
