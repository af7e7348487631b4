/* The coordinator's decisions, without I/O: a plain event and the time go in, plain actions come
 * out. There are no sockets, clocks, files, threads or tensors here. core_state.h says when memory
 * is allocated. The host (the coordinator's engine and server) turns messages into events and
 * actions into messages. Tests and the simulator drive the same code in virtual time.
 *
 * Parts:
 * - registry: workers, heartbeats, drain;
 * - scheduler: which worker gets which block; jobs share the pool by priority, then by fair share;
 * - round: one step of one job with its blocks, leases and results;
 * - jobs: the life of a job.
 *
 * Invariants, asserted after events in debug builds (in pools of more than 256 workers only after
 * some of them):
 * - at most one result is kept per shard and step;
 * - every lease has a deadline;
 * - a block is pending, leased or done;
 * - each holder of a block is the coordinator, or a connected worker that computes this lease;
 * - every held PULL belongs to a connected worker.
 *
 * Life of a training: JOB_ADDED (QUEUED) -> ACTION_LOAD -> JOB_LOADED (RUNNING). Then for each
 * step: leases -> RESULTs -> ACTION_UPDATE -> UPDATED -> ACTION_METRICS. At the end of an epoch:
 * evaluation leases -> ACTION_EVALUATED. Every checkpoint_every steps: ACTION_CHECKPOINT. Training
 * goes on while it is written, but waits for it when the next checkpoint is due. After the last
 * step: evaluation, then ACTION_CHECKPOINT with final = true (repeated while it fails) ->
 * CHECKPOINTED -> COMPLETED, ACTION_UNLOAD. A pause finishes the current step; then come
 * ACTION_CHECKPOINT (unless this step is saved already, or nothing was trained), PAUSED and
 * ACTION_UNLOAD. A cancel ends all leases; CANCELED and ACTION_UNLOAD follow at once.
 *
 * Life of an evaluation (kind EVALUATION or ENSEMBLE; its weights are loaded already): JOB_ADDED ->
 * RUNNING at once, in addition to config.jobs_running_max trainings -> leases -> RESULTs ->
 * ACTION_EVALUATED -> COMPLETED, ACTION_UNLOAD. An ensemble passes each block's result on by
 * ACTION_ABSORB, in the order of blocks; the host answers each by ABSORBED. At most info.window
 * blocks are leased or not yet absorbed. An evaluation cannot be paused, and a stop cancels it.
 *
 * A host must answer:
 * - every LOAD and every ROLLBACK with JOB_LOADED or JOB_FAILED;
 * - every UPDATE of a job that still exists with UPDATED;
 * - every CHECKPOINT with CHECKPOINTED;
 * - every ABSORB of an evaluation that still exists with ABSORBED;
 * - every DIVERGED with JOB_FAILED;
 * - every COMPUTE with a RESULT (with `failed` set if the host cannot compute the block).
 * If a job is canceled while it loads, UNLOAD follows JOB_LOADED. After JOB_FAILED of a LOAD, the
 * host holds nothing of the job. A result's slot (not 0) is answered in the same step: by KEEP, by
 * DROP, or by DIVERGED with this slot. The host releases a kept slot after its ABSORB, after a
 * later DROP or DIVERGED with this slot, or when its UPDATE has succeeded. If UPDATED is not ok,
 * the slots of the update stay kept. A checkpoint is also requested when an evaluation is the best
 * so far (keep_best), for the step that was evaluated.
 *
 * Trust (audit.c): the fraction `audit` of the blocks is audited: such a block needs two equal
 * results from workers of different identities. When a block is first given to a worker, random
 * numbers that depend on config.secret decide whether it is audited. A worker cannot tell the
 * second lease of a block from the first. If results differ, the coordinator computes the block
 * (COMPUTE). If it cannot compute the job, a third worker does. A worker that was wrong gets no
 * more leases, and its unconfirmed results of the current rounds are dropped. A job that averaged
 * an unconfirmed result of this worker returns (ROLLBACK) to a checkpoint from before that result.
 * Invariants:
 * - no unconfirmed result of an audited block is averaged;
 * - a quarantined worker holds no lease;
 * - a job that must return to a checkpoint averages nothing before it has returned. */
#ifndef COP_COORDINATOR_CORE_H
#define COP_COORDINATOR_CORE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"

/* The worker number of the coordinator itself, in results of COMPUTE. */
#define COORD_SELF UINT64_MAX

typedef enum coord_job_state { /* the same values as coppice.api.State */
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

/* Everything that the core knows about a job. It consists of numbers only. */
typedef struct coord_job_info {
    uint64_t job;     /* number, ascending in order of submission, never 0 */
    int32_t priority; /* jobs with higher numbers go first */
    coord_job_kind kind;
    uint32_t batch;         /* samples of a minibatch */
    uint32_t shards;        /* shards of a step */
    uint32_t train_samples; /* samples of the training part */
    uint64_t steps;         /* steps of the whole job */
    uint64_t steps_per_epoch;
    bool last_keep;            /* an epoch ends with a short minibatch; else it is left out */
    uint32_t evaluate_samples; /* number of samples of the part that is evaluated; 0: no
                                  evaluation */
    uint32_t evaluate_every;   /* epochs between two evaluations; 0: only after the last step */
    bool by_loss;   /* there are no classes: the weights with the smallest loss are the best */
    bool keep_best; /* evaluations choose the best weights. False if evaluations use the test part:
                       its error would be too optimistic for weights that were chosen by it */
    uint64_t checkpoint_every; /* steps between two checkpoints; 0: none before the end */
    uint32_t workers_max;      /* limits.workers: workers that compute it at once; 0: any number */
    uint64_t timeout_ns;       /* limits.timeout; 0: none */
    uint64_t fingerprint;      /* hash of the OpenBLAS and CPU that the job is pinned to: only
                                  workers with the same hash compute it. 0: not pinned */
    bool pin_first; /* numerics is openblas. If fingerprint is 0, the job is pinned to the OpenBLAS
                       of the first worker that gets a lease of it */
    bool bf16;      /* train.wire is bf16: only workers that can compute such jobs get leases */
    double audit;   /* share of the blocks that a second worker computes, too: 0 to 1 */
    coord_job_state state; /* QUEUED or PAUSED when added; ended jobs are not added */
    /* ENSEMBLE only */
    uint32_t members;       /* networks that compute each slice of evaluate_samples */
    uint32_t lease_members; /* largest number of members in a lease */
    uint32_t window;        /* largest number of blocks that are leased or not yet absorbed */
    bool each_version; /* member i is version i of the weights, and has leases of its own; false:
                          all members are drawn from version 0 */
} coord_job_info;

typedef enum coord_event_type {
    COORD_EVENT_TICK = 1,      /* at least every 50 ms while anything is active */
    COORD_EVENT_WORKER_JOINED, /* worker */
    COORD_EVENT_WORKER_GONE,   /* worker: its connection is lost, or it said goodbye */
    COORD_EVENT_WORKER_DRAIN,  /* worker: a client asked to drain it, so it gets no more leases and
                                  must leave */
    COORD_EVENT_HEARTBEAT,     /* worker */
    COORD_EVENT_PULL, /* worker, pull: it asks for work. The host holds the request until an action
                         (LEASE or NOTHING) names it */
    COORD_EVENT_RESULT, /* worker, result. If a PULL carried the result, this event comes before the
                           event of the PULL. If it answers COMPUTE, worker is COORD_SELF */
    COORD_EVENT_JOB_ADDED,    /* info */
    COORD_EVENT_JOB_LOADED,   /* job, loaded: data and weights are in memory */
    COORD_EVENT_JOB_FAILED,   /* job, text: the host could not load it, lacks memory for it, or
                                 explains how it diverged */
    COORD_EVENT_JOB_PAUSE,    /* job */
    COORD_EVENT_JOB_RESUME,   /* job */
    COORD_EVENT_JOB_CANCEL,   /* job, text: the reason, or NULL */
    COORD_EVENT_JOB_EVALUATE, /* job: a client asks for an evaluation of the newest weights. It
                                 comes after the current step; ignored if the job is not resident */
    /* job, step, ok. If ok is true, the new weights are version `step`. If it is false, the update
     * changed nothing:
     * - result.finite false: the gradient of the block that starts at shard result.first is not
     *   finite; result.digest is the digest of that gradient;
     * - result.finite true: all gradients are finite, but their sum is not. result.first names the
     *   first block, and `digests` has the digest of each block if the job is audited. */
    COORD_EVENT_UPDATED,
    COORD_EVENT_CHECKPOINTED, /* job, step, ok */
    COORD_EVENT_ABSORBED,     /* job: the oldest unanswered ABSORB is done */
    COORD_EVENT_STOP /* graceful stop: finish the current steps, write checkpoints of all running
                        jobs, then ACTION_STOPPED */
} coord_event_type;

typedef struct coord_result_info {
    uint64_t lease;
    uint64_t job;
    uint64_t step;       /* number of the step; for an ensemble, 1 + the block's number */
    uint64_t compute_ns; /* computing time, as the worker claims */
    uint32_t attempt;    /* copied from the lease */
    uint32_t first;      /* first shard, or first sample of an evaluation or ensemble */
    uint32_t count;      /* number of shards, or of samples of an evaluation or ensemble */
    uint32_t members;    /* members whose outputs an ensemble's result holds */
    bool evaluate;       /* result of an evaluation or of an ensemble; false: of training */
    bool ensemble;       /* result of an ensemble; then evaluate is true, too */
    bool finite;         /* the loss is finite; if the host computed a digest, the tensor is, too */
    bool failed;         /* the block could not be computed; the event's text has the reason */
    bool busy;           /* it could not be computed for lack of memory or free slots: try again
                            later */
    bool malformed;      /* the result's tensor is wrong, for example in size; the event's text
                            has the reason */
    double loss;         /* sum over the samples */
    uint64_t correct;    /* number of samples whose class was right */
    uint64_t samples;    /* number of samples that were computed */
    uint64_t slot;       /* the host's handle of the tensor: a gradient, or outputs of an ensemble;
                            0: none */
    uint64_t digest;     /* digest of the tensor as received, keyed with a secret of the host; all
                            NaNs count as one value. 0: no digest was computed, see
                            coord_core_wants_digest */
} coord_result_info;

typedef struct coord_event {
    coord_event_type type;
    uint64_t worker, job, step;
    bool ok;
    const char *text;        /* borrowed for the call */
    const uint64_t *digests; /* UPDATED with ok false and result.finite true, of a job with `audit`
                                above 0: one digest for each block of the UPDATE, in its order;
                                borrowed for the call */
    /* WORKER_JOINED */
    struct {
        const char *name;
        const char *identity; /* what a quarantine applies to: the certificate's name, or the name
                                 that the worker asked for; NULL: the same as `name` */
        uint32_t threads;
        uint64_t fingerprint; /* hash of its OpenBLAS and CPU; 0: none */
        bool ensembles;       /* the worker can compute leases of ensembles */
        bool bf16;            /* the worker can compute leases of jobs with `wire: bf16` */
    } joined;
    /* PULL */
    struct {
        uint64_t request;      /* the host's handle of the request, never 0 */
        uint64_t have_job;     /* the job whose description the worker has; 0: none */
        uint64_t have_version; /* 1 + coord_weights_name of the weights that it has; 0: none */
    } pull;
    coord_result_info result; /* RESULT; some fields are also used by UPDATED */
    coord_job_info info;      /* JOB_ADDED */
    /* JOB_LOADED */
    struct {
        uint64_t step;     /* completed steps */
        double loss_sum;   /* sum of the losses in the current epoch so far, exact */
        uint64_t samples;  /* number of samples in the current epoch so far */
        uint64_t correct;  /* number of correct samples in the current epoch so far */
        double seconds;    /* training time so far */
        double best_error; /* smallest error so far, or smallest loss if there are no classes */
        bool has_best;     /* best_error is set */
    } loaded;
} coord_event;

typedef enum coord_action_type {
    COORD_ACTION_LEASE = 1,  /* answer `request` with `lease` */
    COORD_ACTION_NOTHING,    /* answer `request` with `nothing`: there is no lease */
    COORD_ACTION_KEEP,       /* slot: keep it, because the result belongs to the round */
    COORD_ACTION_DROP,       /* slot: release it, because the result is late, sent twice, stale or
                                not wanted any more */
    COORD_ACTION_LOAD,       /* job, step: load the data, and weights and optimizer state from the
                                newest checkpoint up to this step, and remove later checkpoints;
                                UINT64_MAX: from the newest. If there is no checkpoint, start with
                                initial weights */
    COORD_ACTION_ROLLBACK,   /* job, step: like LOAD, for a resident job without an update or
                                checkpoint in progress */
    COORD_ACTION_COMPUTE,    /* job, step, lease: compute this block in the coordinator, and answer
                                with a RESULT of worker COORD_SELF */
    COORD_ACTION_UNLOAD,     /* job: release it (checkpoints in progress are still completed) */
    COORD_ACTION_UPDATE,     /* job, step, update: average the blocks and update the weights; answer
                                UPDATED */
    COORD_ACTION_METRICS,    /* job, step, metrics: one completed step */
    COORD_ACTION_EPOCH,      /* job, step, metrics: sums over the epoch that ended */
    COORD_ACTION_EVALUATED,  /* job, step, metrics: an evaluation ended */
    COORD_ACTION_CHECKPOINT, /* job, step, checkpoint: answer CHECKPOINTED */
    COORD_ACTION_ABSORB,     /* job, slot, lease (first, count, member, members): add the outputs of
                                these members on these samples, in the order of members. Answer one
                                ABSORBED for each ABSORB, in the same order */
    COORD_ACTION_STATE,      /* job, state, text: store it and notify watchers */
    COORD_ACTION_DISCONNECT, /* worker: silent for COP_HEARTBEATS_MISSED heartbeats; close its
                                connections (no WORKER_GONE event is needed) */
    COORD_ACTION_EVENT,      /* job (0: none), text: write it to the event log; a warning if ok is
                                false. If fingerprint is not 0, the job has just been pinned to the
                                OpenBLAS of `worker`: store the fingerprint for the job's JOB_ADDED
                                after a restart */
    COORD_ACTION_DIVERGED,   /* job, step, slot, lease (first, count, evaluate, ensemble, member,
                                members, sum): a value of this block is not finite, and enough equal
                                results confirm that. Release the slot, and answer JOB_FAILED with a
                                sentence that says where the value is */
    COORD_ACTION_STOPPED     /* after STOP: no job is resident any more, so the program can exit */
} coord_action_type;

/* A block of an UPDATE. */
typedef struct coord_block {
    uint32_t first; /* first shard */
    uint32_t count; /* number of shards */
    uint64_t slot;  /* slot of the sum of their gradients */
} coord_block;

#define COORD_TEXT_MAX 256

/* What the host must do. `type` decides which member of each union is set, and which of job, step
 * and worker are set: see coord_action_type. */
typedef struct coord_action {
    coord_action_type type;
    uint64_t job, step, worker;
    union {
        uint64_t request; /* LEASE, NOTHING */
        uint64_t slot;    /* KEEP, DROP, ABSORB, DIVERGED (0: no slot) */
    };
    union {
        /* LEASE and COMPUTE set all fields but `sum`. ABSORB sets first, count, member, members.
         * DIVERGED sets first, count, evaluate, ensemble, member, members, sum. */
        struct {
            uint64_t lease;       /* number of the lease */
            uint64_t version;     /* version of the weights, which is the number of completed
                                     steps; in an ensemble with each_version, the number of the
                                     member */
            uint64_t deadline_ns; /* deadline on the core's clock */
            uint32_t attempt;     /* 1 + leases of the block that ended without a result */
            uint32_t first;       /* first shard, or first sample of an evaluation or ensemble */
            uint32_t count;       /* number of shards, or of samples of an evaluation or ensemble */
            uint32_t batch;       /* samples of the step, or of the whole evaluation */
            uint32_t history;     /* how often the job has returned to a checkpoint */
            /* Ensemble: members [member, member + members) on samples [first, first + count). The
             * action's `step` is 1 + the block's number. */
            uint32_t member;
            uint32_t members;
            bool evaluate; /* block of an evaluation or of an ensemble; false: of training */
            bool ensemble; /* block of an ensemble; then evaluate is true, too */
            bool sum;      /* all gradients are finite, but their sum is not */
        } lease;
        /* NOTHING */
        struct {
            uint32_t retry_ms; /* the worker should wait this long before it asks again */
            bool drain;        /* the worker must leave */
            bool unknown;      /* the core does not know the worker: it must join again */
        } nothing;
        /* UPDATE: blocks in ascending order, together all shards that have samples. A block whose
         * shards are all absent (short last batch) is left out. Borrowed until the next
         * coord_core_step. */
        struct {
            const coord_block *blocks;
            uint32_t count; /* number of blocks */
            uint32_t batch; /* number of samples, by which the sum is divided */
        } update;
        /* METRICS, EPOCH, EVALUATED */
        struct {
            double loss_sum; /* over `samples` */
            uint64_t samples;
            uint64_t correct;
            double seconds; /* training time of the job so far */
            double error;   /* share of wrong samples; NaN if there are no classes */
        } metrics;
        /* CHECKPOINT */
        struct {
            double loss_sum;   /* sum of the losses in the current epoch so far */
            uint64_t samples;  /* number of samples in the current epoch so far */
            uint64_t correct;  /* number of correct samples in the current epoch so far */
            double seconds;    /* training time of the job so far */
            double best_error; /* smallest error so far, or smallest loss if there are no classes */
            bool has_best; /* best_error is set. No value of best_error can mean "none", because a
                              loss may be negative */
            bool best;     /* these weights are the best so far */
            bool final;    /* the training is complete: write the final model, too */
        } checkpoint;
        /* STATE: text, state. EVENT: text, ok, kind, identity, fingerprint. */
        struct {
            const char *text;     /* never NULL; borrowed until the next coord_core_step */
            uint64_t kind;        /* equal for all texts of one kind. With `identity` it limits how
                                     much a peer can write to the log */
            uint64_t identity;    /* identity of the worker that the text is about; 0: none */
            uint64_t fingerprint; /* see COORD_ACTION_EVENT */
            coord_job_state state;
            bool ok; /* false: the text is a warning */
        };
    };
} coord_action;

static_assert(sizeof(coord_action) <= 96, "a step of 1024 shards needs many actions");

/* A number that names the weights of a lease. A worker sends this number in a PULL to report which
 * weights it has. It includes lease.history, because after a return to a checkpoint the same step
 * has other weights. The version must fit into 32 bits. */
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
/* Where a comment names a default, 0 stands for it. */
typedef struct coord_core_config {
    uint32_t jobs_running_max; /* trainings resident at once (default 4) */
    uint32_t evaluations_max;  /* evaluations at once (default 4); more are refused with LIMIT */
    uint64_t lease_floor_ns;   /* shortest time from a lease to its deadline (default 5 s); for a
                                  worker whose times are known, the shortest time is a twentieth of
                                  this */
    uint32_t lease_overhead_percent; /* what a lease costs besides computing, in percent of the
                                        quickest worker's round (default 25); block sizes depend on
                                        it */
    uint64_t lease_serial_ns;  /* what each further block adds to a step, because leases are handed
                                  over one after the other; shards that take less are not divided
                                  among workers (0: nothing) */
    uint64_t heartbeat_ns;     /* time between two heartbeats (default COP_HEARTBEAT_MS) */
    uint64_t save_patience_ns; /* if the final weights cannot be written (full disk), the core tries
                                  again once a second for this long (default 1 h) */
    uint64_t secret[2];   /* a random secret; random numbers made from it decide what is audited */
    uint64_t fingerprint; /* hash of the coordinator's own OpenBLAS and CPU; 0: none */
    bool can_recompute;   /* the host can carry out COMPUTE */
    uint32_t strikes_max; /* a worker is quarantined at this number of strikes; 0: no limit. A
                             strike is a malformed result, or a value that is not finite though
                             others computed a finite one */
    bool heartbeats;      /* remove silent workers; false if the workers are in this process */
    bool speculate; /* lease a block a second time when an idle worker would probably finish it
                       sooner than its holder; false in process, where workers share their cores */
} coord_core_config;

/* Creates a core without workers and jobs; coord_core_destroy frees it. Errors: NO_MEMORY */
cop_err coord_core_create(const coord_core_config *config, coord_core **out);
void coord_core_destroy(coord_core *core); /* NULL: does nothing */
/* The only function that takes events: clears `out`, takes one event and fills `out` with the
 * actions that follow. now_ns must never decrease.
 * Errors: NO_MEMORY; LIMIT (too many workers, jobs or evaluations); EXISTS (a job with this number
 * exists already). After an error the state is the same as before the event. */
cop_err coord_core_step(coord_core *core, const coord_event *event, uint64_t now_ns,
                        coord_actions *out);
/* Asserts the invariants that must hold between two events. Debug builds call it after events. */
void coord_core_check(const coord_core *core);
/* Frees the arrays of `actions`, not the struct. */
void coord_actions_fini(coord_actions *actions);

/* What became of a job's leases since it was added. */
typedef struct coord_lease_counts {
    uint64_t given;     /* leases that were given to workers */
    uint64_t repeated;  /* leases of a block that had been leased before without a result */
    uint64_t doubled;   /* repeated leases of a block that a slow worker still held */
    uint64_t late;      /* unused because another result had finished the block */
    uint64_t twice;     /* unused because the same result had come before */
    uint64_t stale;     /* unused because the step or the lease of the result had ended */
    uint64_t audited;   /* audited blocks that are done */
    uint64_t compared;  /* late results that were compared with the result of their block */
    uint64_t disputed;  /* results that differed from others of their block */
    uint64_t rollbacks; /* returns to a checkpoint */
} coord_lease_counts;
/* A snapshot of a job for clients. */
typedef struct coord_job_view {
    coord_job_info info;
    uint64_t step;    /* completed steps */
    double epoch;     /* completed steps as a number of epochs */
    uint32_t holders; /* leases that workers hold now */
    uint32_t workers; /* workers that hold a lease, or did within COORD_RECENT_NS */
    coord_lease_counts leases;
    uint64_t blocks_done;    /* finished blocks of the current step or evaluation; ensemble:
                                absorbed blocks */
    uint64_t blocks;         /* all blocks of the current step or evaluation, or of the ensemble */
    double seconds;          /* training time */
    double samples_per_s;    /* speed of the last steps; 0: unknown */
    double eta_seconds;      /* time for the remaining steps at this speed; 0: unknown */
    double loss;             /* mean training loss of the epoch so far */
    double error;            /* share of wrong samples in the newest evaluation */
    bool has_loss;           /* loss is set */
    bool has_error;          /* error is set */
    const char *waiting_for; /* a phrase, e.g. "workers"; NULL: it waits for nothing */
} coord_job_view;
#define COORD_RECENT_NS                                                                            \
    1000000000 /* for this long after its lease a worker still counts for the job */
/* False: there is no such job, or it has ended. */
bool coord_core_job(const coord_core *core, uint64_t job, uint64_t now_ns, coord_job_view *out);
/* A snapshot of a worker for clients. */
typedef struct coord_worker_view {
    uint64_t worker;    /* its number */
    uint64_t job;       /* number of the job whose lease it computes; 0: it computes none */
    uint64_t lease;     /* the lease that it computes; 0: none */
    uint64_t shards;    /* number of shards that it has computed */
    uint64_t joined_ns; /* when it joined */
    const char *name;   /* borrowed until the next event */
    uint32_t threads;
    uint32_t strikes;
    bool draining;        /* the worker gets no more leases, and is asked to leave */
    bool computing;       /* the worker has a lease */
    bool quarantined;     /* the worker gets no more leases, because it computed wrong results */
    uint64_t served_job;  /* the job of its newest lease */
    uint64_t served_ns;   /* when the worker got its newest lease, or when the result of that
                             lease came */
    uint64_t unable;      /* the newest job that it cannot compute and gets no leases of; 0: none */
    const char *evidence; /* the reason of its quarantine; NULL: none is known */
    double ms_per_shard;  /* smoothed; 0: unknown */
} coord_worker_view;
uint32_t coord_core_worker_count(const coord_core *core);
/* Workers are in ascending order of their numbers. False: `index` is too large. */
bool coord_core_worker_at(const coord_core *core, uint32_t index, coord_worker_view *out);
/* False: no such worker is connected. */
bool coord_core_worker(const coord_core *core, uint64_t worker, coord_worker_view *out);
/* Must the host compute a digest of this result of `worker`? If so, the host computes the digest
 * first, and then passes the RESULT to the core. */
bool coord_core_wants_digest(const coord_core *core, uint64_t worker,
                             const coord_result_info *result);
/* Does `worker` hold this lease, and would its result still be used? If not, the host tells the
 * worker to stop computing it. */
bool coord_core_wants(const coord_core *core, uint64_t worker, uint64_t lease);

#endif
