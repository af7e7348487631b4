/* A seeded simulator of a whole installation in virtual time: one coordinator with its disk and
 * store, workers, clients, and the network between them. The decisions are the real code:
 * coord_core_step (coordinator/core/core.h), worker_agent_step (worker/agent.h), and checkpoints
 * (common/job/checkpoint.c) down to their system calls (common/base/file.c). The input and output
 * around them are models. docs/explanation/reliability.md describes them and lists the invariants.
 *
 * Everything follows from the seed. Each part of the simulator draws its own random numbers: a draw
 * is a hash of the seed, the part, and the number of the part's earlier draws. So if one fault is
 * left out, the draws of the others do not change. A run ends well, or stops at the first broken
 * invariant (sim_fail).
 *
 * Files:
 *   main.c             the program
 *   run.c              one seed from start to end
 *   setup.c            pool, jobs and faults of a seed
 *   queue.c            virtual time and random draws
 *   faults.c           faults as they happen
 *   network.c          calls between the processes
 *   worker.c           the host of worker_agent_step
 *   host.c, actions.c  the host of coord_core_step
 *   client.c           clients, and how the coordinator handles their calls
 *   ensemble.c         evaluations of ensembles
 *   store.c            the coordinator's SQLite database
 *   saver.c            checkpoints
 *   disk.c, syscalls.c the disk that checkpoints are written to
 *   truth.c            the expected results, computed by a loop without a pool
 *   check*.c           invariants
 *   trace.c            hash and text of what happens
 *   shrink.c           the fewest faults that break an invariant
 *   memory.c, memo.c   common/base/alloc.h for one run; a cache of the job file's text */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/job/job.h"
#include "coordinator/core/core.h"
#include "worker/agent.h"

#define SIM_MS            1000000ull
#define SIM_SECOND        (1000 * SIM_MS)
#define SIM_JOBS_MAX      8   /* submissions of one run */
#define SIM_IDS_MAX       128 /* largest job number; a submission uses one up even if it fails */
#define SIM_NOBODY        UINT32_MAX /* target of a fault that affects no single worker or job */
#define SIM_ENSEMBLES_MAX 3
#define SIM_SPECS_MAX     (SIM_JOBS_MAX + SIM_ENSEMBLES_MAX)
#define SIM_SLICES        4 /* largest number of slices of an ensemble's samples */

typedef struct sim sim;

/* ---- random draws (queue.c) ---- */

/* A stream of hashes. Streams with different keys are independent. */
typedef struct sim_stream {
    uint64_t key;
    uint64_t count; /* draws so far */
} sim_stream;

uint64_t sim_mix(uint64_t a, uint64_t b); /* returns a hash of a and b */
uint64_t sim_next(sim_stream *stream);    /* draws 64 bits */
/* Draws a number from 0 to n - 1. */
uint64_t sim_below(sim_stream *stream, uint64_t n);
/* True with this probability. */
bool sim_chance(sim_stream *stream, uint32_t per_mille);
/* Draws a number from `low` to `high`. Each doubling of the number is half as likely, so most draws
 * are close to `low` and a few are very large. */
uint64_t sim_heavy(sim_stream *stream, uint64_t low, uint64_t high);

/* ---- virtual time (queue.c) ---- */

typedef enum sim_kind {
    SIM_NONE,
    /* For the coordinator's loop. A stall of the loop postpones them. */
    SIM_TICK,
    SIM_TO_CORE,    /* the core takes `event` */
    SIM_REQUEST,    /* `message` arrives */
    SIM_GONE,       /* the connection with the number `value` is lost */
    SIM_LOADED,     /* the job with the number `value` is read from its checkpoint */
    SIM_UPDATED,    /* an update is computed; event: COORD_EVENT_UPDATED */
    SIM_DIGESTED,   /* the result in `message`, a PULL, has been hashed */
    SIM_RECOMPUTED, /* the coordinator has computed the result in `message` itself */
    SIM_SAVED,      /* a checkpoint is written or has failed; event: COORD_EVENT_CHECKPOINTED */
    SIM_TASK,       /* a part of the client's call in `message` is done (its `task`) */
    /* For the coordinator's other threads and its process. A stall does not postpone them. */
    SIM_COMMIT,  /* the store begins or ends a commit; value: number of this wake-up */
    SIM_SAVE,    /* the saver writes a checkpoint; value: 1 if the store could not be written */
    SIM_DIE,     /* value: twice the ms until it starts again, plus 1 if power is lost */
    SIM_RESTART, /* the process starts, if it is not running */
    /* For the worker or client `peer`. If a worker has died since the event was posted, so that
     * `life` is not its current life, the event is ignored. */
    SIM_SEND,     /* the link tries again to connect and to send its request */
    SIM_REPLY,    /* `message` arrives */
    SIM_LOST,     /* a call's connection is lost */
    SIM_TIMEOUT,  /* a call's deadline has passed */
    SIM_COMPUTED, /* the lease with the number `value` is computed */
    SIM_WAITED,   /* the wait with the number `value` is over */
    SIM_BEAT,     /* time for a heartbeat */
    SIM_BOOT,     /* the worker's process starts */
    SIM_CLIENT,   /* the client asks; value: a control request to add to its requests, or 0 */
    /* Others. */
    SIM_FAULT,   /* a fault happens; value: its index in sim.faults */
    SIM_ENSEMBLE /* for the coordinator's loop; value: index of the ensemble to submit */
} sim_kind;

typedef enum sim_link_kind { SIM_WORK, SIM_CONTROL, SIM_LINKS } sim_link_kind;

typedef enum sim_message_type {
    SIM_HELLO = 1,
    SIM_HELLO_CONTROL,
    SIM_HEARTBEAT,
    SIM_PULL,
    SIM_SUBMIT,
    SIM_CONTROL_JOB,
    /* replies */
    SIM_WELCOME,
    SIM_LEASE,
    SIM_NOTHING,
    SIM_HEARTBEAT_REPLY,
    SIM_ANSWER,
    SIM_FAILURE
} sim_message_type;

/* Stands for a tensor of gradients. It is a hash, and adding two hashes neither commutes nor
 * associates, so any wrong order is noticed. */
typedef struct sim_gradient {
    uint64_t sum;
    bool nan;     /* a value of this gradient is not finite */
    bool huge;    /* its values are finite, but the sum of the step's gradients is not */
    bool poison;  /* its values are finite, but no gradient after its update is finite */
    uint32_t lie; /* 1 + the worker that sent this wrong result; 0: the result is right */
} sim_gradient;

typedef struct sim_lease {
    uint64_t lease, job, step, version, weights;
    uint32_t attempt, first, count, batch, spec;
    uint32_t member;  /* ensemble: the first member to compute */
    uint32_t members; /* ensemble: the number of members to compute */
    bool evaluate, ensemble;
    bool has_weights; /* `weights` is set; false: the worker has them from an earlier lease */
} sim_lease;

/* A request or a reply on its way. */
typedef struct sim_message {
    sim_message_type type;
    uint32_t peer;      /* the worker or client that makes the call */
    uint32_t life;      /* which of the peer's lives makes it */
    uint32_t call;      /* the number of the call on the peer's link */
    uint32_t host_life; /* the coordinator's life that the peer is connected to */
    sim_link_kind link;
    uint64_t connection;
    uint64_t request; /* number of a PULL, given by the coordinator */
    uint64_t worker;  /* the worker's number at the coordinator */
    uint64_t session; /* secret of the worker's session */
    /* HEARTBEAT */
    uint64_t lease_held;
    bool draining;
    /* PULL */
    uint64_t have_job, have_version;
    bool goodbye, has_result;
    bool mangled; /* a field of the result that names its lease is wrong */
    coord_result_info result;
    sim_gradient gradient;
    /* SUBMIT, CONTROL_JOB, ANSWER */
    uint32_t spec;
    coord_event_type control;
    uint64_t job;
    cop_err error;
    enum { SIM_BUILT = 1, SIM_COMMITTED, SIM_CONFIRMED } task; /* the last part that is done */
    /* NOTHING, HEARTBEAT_REPLY, LEASE */
    uint32_t retry_ms;
    bool drain, unknown;
    uint64_t cancel_lease;
    sim_lease lease;
} sim_message;

typedef struct sim_event {
    uint64_t time;  /* virtual time, ns */
    uint64_t order; /* number of the event; of two at the same time, the smaller comes first */
    sim_kind kind;
    uint32_t peer, life, call;
    sim_link_kind link;
    uint64_t value;       /* its meaning depends on `kind`, see sim_kind */
    sim_message *message; /* owned */
    coord_event *event;   /* owned */
} sim_event;

typedef struct sim_queue {
    sim_event *heap;
    uint32_t count, capacity;
} sim_queue;

/* Puts the event into the queue, to be delivered after `delay` ns. The queue owns its message and
 * its core event from then on. */
void sim_post(sim *s, uint64_t delay, sim_event event);
/* Takes the earliest event from the queue; the caller owns what it contains. */
sim_event sim_take(sim *s);
/* The next functions return copies. */
sim_message *sim_message_new(const sim_message *m);
coord_event *sim_event_new(const coord_event *event);

/* ---- jobs as submitted, and their expected results (truth.c) ---- */

/* The weights after an update with a poisoned gradient (sim_gradient.poison). */
#define SIM_POISONED 0x1e38

/* The expected state after a step. */
typedef struct sim_reference {
    uint64_t weights, momentum;
    double loss;                /* sum over the samples of the step */
    double epoch_loss;          /* sum over the steps since the epoch's begin */
    double evaluated;           /* loss of an evaluation of these weights */
    uint64_t correct;           /* samples that were classified correctly, in the step */
    uint64_t epoch_correct;     /* samples classified correctly since the epoch's begin */
    uint64_t evaluated_correct; /* samples classified correctly in an evaluation of these weights */
} sim_reference;

/* A submission and its expected results. */
typedef struct sim_spec {
    coord_job_info info; /* its job number is 0 here, because the coordinator assigns one later */
    uint64_t seed;
    uint64_t key;         /* the coordinator recognises a repeated submission by this key */
    uint64_t shard_ns;    /* mean time of a round of shards on a worker with slowness 1 */
    uint64_t diverges_at; /* the step whose gradient is not finite on any worker; 0: none */
    uint32_t keep;        /* number of checkpoints to keep */
    uint32_t *rows;       /* (steps, batch): the samples of each step, by common/data/order.c */
    uint64_t *leaf;       /* (steps, shards): a hash of each shard's samples; 0: not computed yet */
    /* (steps + 1) states for each fingerprint to which the job may be pinned; [0]: not pinned. */
    sim_reference *reference[3];
    uint64_t computed[3]; /* for each array of `reference`: the last step that is computed */
} sim_spec;

uint64_t sim_initial(const sim_spec *spec);
uint32_t sim_batch_of(const sim_spec *spec, uint64_t step);
uint64_t sim_leaf(sim_spec *spec, uint64_t step, uint32_t shard);
/* The samples of a step, in order. */
const uint32_t *sim_rows(sim_spec *spec, uint64_t step);
/* Computes shards `first` to `first + count - 1` of a step from these weights. Returns the sum of
 * their gradients, and in *loss and *correct the sums of loss and correctly classified samples. */
uint64_t sim_block(sim_spec *spec, uint64_t weights, uint64_t step, uint32_t first, uint32_t count,
                   uint64_t fingerprint, double *loss, uint64_t *correct);
/* True: the gradient of the block that starts at this shard is not finite on any worker. */
bool sim_diverges(const sim_spec *spec, uint64_t step, uint32_t first, uint64_t weights);
/* The number of samples in shards `first` to `first + count - 1` of a batch. */
uint32_t sim_samples(const sim_spec *spec, uint32_t batch, uint32_t first, uint32_t count);
/* Evaluates these weights on samples `first` to `first + count - 1`. */
void sim_slice(uint64_t weights, uint32_t first, uint32_t count, double *loss, uint64_t *correct);
/* Updates weights and momentum with the gradient sum of a batch. */
void sim_apply(uint64_t sum, uint32_t batch, uint64_t *weights, uint64_t *momentum);
/* The expected state after `step` steps, of a job that is pinned to this fingerprint. The
 * fingerprint of other jobs is ignored. */
const sim_reference *sim_expect(sim_spec *spec, uint64_t fingerprint, uint64_t step);
double sim_error(const sim_spec *spec, uint64_t samples, uint64_t correct);

/* ---- the disk (disk.c) ---- */

typedef struct sim_disk sim_disk;
sim_disk *sim_disk_create(sim *s);
/* Between sim_disk_begin and sim_disk_end, system calls on /sim and on paths below it go to this
 * disk. They take virtual time, starting at `begin`, and are journaled. sim_disk_end returns the
 * virtual time at which the last of them ended. */
void sim_disk_begin(sim_disk *disk, uint64_t begin);
uint64_t sim_disk_end(sim_disk *disk);
/* The program is killed at time `now` or, if `power` is true, the machine loses power. System calls
 * that would have ended later are undone. A loss of power may also lose what was not synced. */
void sim_disk_crash(sim_disk *disk, uint64_t now, bool power);
/* Draws how long a commit of the store takes now, and writes it to *takes. `sync` is true for a
 * commit with fsync. Returns false if the commit fails, because the disk is full or because of a
 * fault. */
bool sim_disk_commit(sim_disk *disk, bool sync, uint64_t *takes);
/* Completes all journaled system calls: a later crash does not undo them. */
void sim_disk_settle(sim_disk *disk);

/* ---- the store (store.c): rows of jobs, committed in batches ---- */

typedef struct sim_row {
    bool exists;
    uint32_t spec;
    uint64_t key, fingerprint;
    coord_job_state state;
    uint64_t steps[4]; /* one bit per step: the metrics of this step are stored */
} sim_row;

typedef enum sim_write_kind {
    SIM_ADD_JOB = 1,
    SIM_SET_STATE,
    SIM_SET_FINGERPRINT,
    SIM_ADD_STEP,
    SIM_BARRIER /* the saver waits until all earlier writes are on the disk */
} sim_write_kind;

typedef struct sim_write {
    sim_write_kind kind;
    uint64_t job, value;
    sim_row row;
    sim_message *done; /* posted as SIM_TASK after the commit or its failure; NULL: nobody waits */
} sim_write;

typedef struct sim_store {
    sim_row rows[SIM_IDS_MAX + 1];   /* what is committed */
    sim_row synced[SIM_IDS_MAX + 1]; /* what survives a loss of power */
    sim_write *queue;
    uint32_t count, capacity;
    uint32_t committing; /* how many writes, from the front of `queue`, are in the current commit */
    bool batch_fails;    /* the current commit will fail */
    bool retrying;       /* the last commit failed, and the store waits before it tries again */
    uint64_t wakes; /* number of the last SIM_COMMIT that was posted; earlier ones are ignored */
} sim_store;

void sim_store_write(sim *s, const sim_write *write);
/* True: in this run the queue is so short that one waiting write fills it, so that metrics are
 * dropped. */
bool sim_store_is_tight(const sim *s);
void sim_store_commit(sim *s, uint64_t wake_number); /* handles SIM_COMMIT */
void sim_store_flush(sim *s); /* commits all waiting writes, at a graceful stop */
void sim_store_crash(sim *s, bool power);

/* ---- the coordinator's process (host.c, actions.c, saver.c) ---- */

typedef struct sim_session {
    uint64_t secret, connection[SIM_LINKS];
    uint64_t heard_ns;    /* when the coordinator last heard from the worker, by its own clock */
    uint64_t held_since;  /* when `held` arrived, by the coordinator's clock */
    sim_message *held;    /* the PULL that waits for a reply; NULL: none */
    uint64_t answered;    /* number of the last PULL that was answered with a lease */
    uint64_t digesting;   /* number of the PULL whose result is being hashed; 0: none */
    sim_lease lease;      /* the newest lease; its number becomes 0 when the lease has ended */
    uint64_t deadline_ns; /* deadline of the newest lease */
    uint64_t timed_job;   /* job of the training lease that is being timed; 0: none */
    uint64_t timed_ns;    /* when that lease began */
    uint64_t kept_job;    /* the job of the last result that was kept */
    uint32_t kept_count;  /* how many results of `kept_job` were kept since one of another job */
    uint32_t peer;
    bool live;
    bool drain; /* the worker wants to leave */
} sim_session;

typedef enum sim_slot_state { SIM_FREE, SIM_OFFERED, SIM_KEPT } sim_slot_state;

typedef struct sim_slot {
    sim_slot_state state;
    sim_gradient gradient;
    uint64_t job, step;
    uint64_t next_free; /* only in a free slot: the next slot in the list of free slots; 0: this
                           is the last one */
    uint32_t first, count;
    bool evaluate;
} sim_slot;

/* A job in the coordinator's memory. */
typedef struct sim_resident {
    bool loaded, loading, updating;
    bool unload_wanted;    /* the job was unloaded during an update, which must end first */
    bool pause_requested;  /* a pause was requested while the job was loading */
    uint32_t spec;         /* index of its submission */
    uint32_t update_count; /* length of `slots` */
    uint64_t step, weights, momentum;
    uint64_t next_weights, next_momentum; /* the result of the current update */
    uint64_t max_step;   /* while loading: the newest checkpoint that may be used */
    bool undone;         /* checkpoints after `max_step` have been removed */
    bool best_lost;      /* the best checkpoint was one of those that have been removed */
    uint64_t pause_from; /* the last step that may be leased after a pause; UINT64_MAX: no pause */
    uint64_t *slots;     /* slots of the gradients in the current update */
    uint64_t *digests;   /* hashes of the same gradients */
} sim_resident;

typedef struct sim_save {
    uint64_t job;
    sim_resident version;
    coord_action action;
} sim_save;

/* What is known about a job from outside, even if the coordinator forgets it. */
typedef struct sim_job {
    bool acknowledged;        /* the client knows that it was submitted */
    bool cancel_asked;        /* the core was told to cancel it */
    bool cancel_acknowledged; /* the client knows that it was canceled */
    bool pause_acknowledged;  /* the client knows that it was paused */
    coord_job_state state;    /* the state that the core reported last */
    uint64_t fingerprint;     /* fingerprint of the workers to which it is pinned; 0: not pinned,
                                 or not yet */
    uint64_t saved;           /* the newest step whose checkpoint was reported as written */
    uint64_t evaluated;       /* the last step whose evaluation was reported */
    uint64_t recorded[4];     /* one bit per step: the metrics of this step were reported */
    uint64_t first_run;       /* when it first ran, by the coordinator's clock; 0: never */
    /* running_since is when it last began to run, by the coordinator's clock, plus all times since
     * then in which no worker had a lease of it. Such times have been added up to waited_until. */
    uint64_t running_since, waited_until;
    uint8_t *applied; /* (steps + 1, shards): how often each shard was added in each update */
    uint8_t kept[COP_SHARDS_MAX]; /* number of kept gradients of each shard, in the current step */
    uint64_t *lied;    /* (workers): the first step whose average contains a lie of this worker;
                          0: none */
    uint64_t *longest; /* (workers): the longest time that this worker has held a lease, ns */
    uint32_t life;     /* the coordinator's life in which the job was loaded last */
    bool spoilt; /* its checkpoints contain lies, and the coordinator does not know whom to suspect,
                  * because it has restarted since they were averaged */
} sim_job;

typedef struct sim_host {
    bool up;           /* the process is running */
    bool stopping;     /* a graceful stop was requested */
    bool stopped;      /* the core has reported STOPPED */
    bool dispatching;  /* the core is taking events from `queue` */
    uint32_t life;     /* how often the process has started */
    uint32_t pause_ms; /* time from a graceful stop to the next start */
    uint64_t stalled_until;
    uint64_t clock_ahead; /* how far the coordinator's clock is ahead of virtual time, ns */
    uint64_t last_lease;  /* number of the newest lease */
    uint64_t ticked_ns;   /* time of the last tick */
    uint64_t listens_ns;  /* time of the last tick that was late; 0: none was */
    /* If a fault waits for a checkpoint (crash_save) or for a commit (crash_commit): 1 + the
     * `value` of the SIM_DIE that is posted then. Otherwise 0. */
    uint64_t crash_save, crash_commit;
    uint64_t result_of; /* the worker whose result the core is taking; 0: none */
    coord_core *core;
    coord_actions actions;
    coord_event *queue;
    uint32_t queue_count, queue_capacity;
    sim_session *sessions; /* the index is the worker's number - 1 */
    uint32_t session_count, session_capacity;
    sim_slot *slots; /* the index is the slot's number; 0 is unused */
    uint64_t slot_count, slot_capacity;
    uint64_t slot_free;         /* the first slot in the list of free slots; 0: none is free */
    uint64_t next_request;      /* number of the last PULL */
    uint64_t next_job;          /* number of the last job */
    struct recovery_keys *keys; /* keys of the submissions */
    sim_resident resident[SIM_IDS_MAX + 1]; /* the index is the job's number */
    sim_save *saves;                        /* checkpoints that wait for the saver */
    uint32_t save_count, save_capacity;
    bool saver_busy;
} sim_host;

void sim_host_start(sim *s);
/* The coordinator is killed with kill -9 or, if `power`, its machine loses power. */
void sim_host_die(sim *s, bool power);
/* *armed is sim_host.crash_save or crash_commit. If it is set, the coordinator dies within `span`
 * ns, and *armed becomes 0. */
void sim_host_die_within(sim *s, uint64_t *armed, uint64_t span);
void sim_host_on(sim *s, sim_event *event);
/* Gives the event to the core and carries out its actions; an event that an action causes waits
 * until the current one is done. */
void sim_dispatch(sim *s, const coord_event *event);
void sim_carry_out(sim *s, const coord_action *action);
sim_session *sim_session_of(sim *s, uint64_t worker); /* NULL: it has no session */
void sim_end_session(sim *s, uint64_t worker, bool notify_core);
/* Puts the gradient of the message's result into a slot, and returns the number of the slot. */
uint64_t sim_slot_offer(sim *s, const sim_message *m);
void sim_slot_release(sim *s, uint64_t slot);
void sim_updated(sim *s, const coord_event *event); /* handles SIM_UPDATED */
uint64_t sim_digest(const sim *s, const sim_gradient *gradient);
void sim_recomputed(sim *s, const sim_message *m); /* handles SIM_RECOMPUTED */
uint64_t sim_host_now(const sim *s);               /* the coordinator's own clock, ns */
/* Adds a checkpoint to those that wait for the saver. */
void sim_saver_submit(sim *s, const coord_action *action);
/* If the saver is idle, it takes the next waiting checkpoint. */
void sim_saver_wake(sim *s);
/* The store has committed what the saver waited for, or has failed to. */
void sim_saver_flushed(sim *s, bool failed);
/* Handles SIM_SAVE: writes the next waiting checkpoint. If `behind` is true, the store could not
 * commit what the saver waited for; then it writes no checkpoint of a pinned job. */
void sim_saver_run(sim *s, bool behind);
void sim_saved(sim *s, const coord_event *event); /* handles SIM_SAVED */
/* Writes all waiting checkpoints, at a graceful stop. */
void sim_saver_finish(sim *s);
/* Reads the newest usable checkpoint of a job that is not after `max_step`, into *c and into step,
 * weights and momentum of *out. */
cop_err sim_read(sim *s, uint64_t job, uint64_t max_step, sim_resident *out, cop_checkpoint *c);
bool sim_has_model(sim *s, uint64_t job);     /* is the job's final model file on the disk? */
void sim_load(sim *s, uint64_t job);          /* handles SIM_LOADED */
void sim_client_call(sim *s, sim_message *m); /* a client's request arrives */
void sim_client_task(sim *s, sim_message *m); /* handles SIM_TASK */
/* Extends a submission's key to the length of the real ones. */
void sim_key_of(uint64_t key, unsigned char out[16]);

/* ---- evaluations of ensembles (ensemble.c) ---- */

typedef struct sim_ensemble {
    uint64_t job;       /* its job number; 0: it is not running */
    uint64_t begins_ns; /* time from the coordinator's next start until it is submitted */
    uint32_t absorbed[SIM_SLICES]; /* number of members whose outputs on this slice were added up */
    bool done;
} sim_ensemble;

void sim_setup_ensembles(sim *s);
void sim_ensembles_start(sim *s); /* call it when the coordinator has started */
void sim_ensemble_submit(sim *s, uint32_t index);
sim_ensemble *sim_ensemble_of(sim *s, uint64_t job); /* NULL: it is not running */
bool sim_is_ensemble(const sim *s, uint64_t job);
/* The outputs of members `member` to `member + members - 1` on the slice that starts at sample
 * `first`, as a hash. */
uint64_t sim_outputs(const sim_spec *spec, uint32_t first, uint32_t member, uint32_t members);
void sim_absorb(sim *s, const coord_action *action);         /* carries out an action ABSORB */
void sim_ensemble_ended(sim *s, const coord_action *action); /* carries out a STATE action */
bool sim_ensembles_done(const sim *s);

/* ---- workers (worker.c), clients (client.c), the network between (network.c) ---- */

typedef struct sim_link {
    uint64_t connection;
    uint32_t host_life; /* the coordinator's life that it is connected to; 0: not connected */
    uint32_t call;      /* number of the current call, which its reply must contain */
    bool calling;       /* a call waits for its reply */
    bool sent;          /* the request of this call has been sent; it may be lost on its way */
    sim_message request;
} sim_link;

/* The process of a worker or client. */
typedef struct sim_party {
    bool alive;
    uint32_t life; /* which life this is, or will be after the next start */
    uint64_t frozen_until;
    sim_link link[SIM_LINKS];
    sim_stream network;
} sim_party;

typedef struct sim_worker {
    sim_party party;
    worker_agent agent;
    sim_stream compute;
    uint64_t fingerprint;
    uint64_t id;      /* its number at the coordinator; 0: it has not been welcomed yet */
    uint64_t session; /* secret of its session */
    uint64_t waits;   /* number of its last wait */
    uint32_t threads;
    uint32_t slowness; /* its computing times are this many times those of a quick worker */
    /* The worker numbers its sessions from 1. */
    uint32_t serial;    /* the current session */
    uint32_t greeted;   /* the last session whose control link was welcomed */
    uint32_t forgotten; /* the last session that the coordinator did not know any more */
    uint32_t beating;   /* the session for which it calls on the control link */
    bool drain;         /* it wants to leave */
    bool waiting;
    uint64_t lease_now;    /* number of the lease that it is computing; 0: none */
    uint64_t canceled;     /* number of the last lease that it was told to cancel */
    uint64_t have_job;     /* the job whose weights it has */
    uint64_t have_version; /* 1 + the name of these weights; 0: it has none */
    uint64_t weights;
    sim_lease lease;
    bool has_result; /* the next PULL contains `result` and `gradient` */
    bool mangled;    /* a field of `result` that names its lease is wrong */
    coord_result_info result;
    sim_gradient gradient;
    /* Faults will spoil this many of its next results: */
    uint32_t nan_results;     /* by a loss that is not finite */
    uint32_t nan_gradients;   /* by a gradient that is not finite */
    uint32_t failed_results;  /* by a report that it cannot compute the lease */
    uint32_t mangled_results; /* by a wrong value in a field that names the lease */
    /* Counts over all its lives: */
    uint32_t lies;    /* results that were lies */
    uint32_t nans;    /* results whose loss or gradient a fault made not finite */
    uint32_t results; /* all results */
    uint32_t mangles; /* results with a wrong value in a field that names the lease */
} sim_worker;

typedef struct sim_client {
    sim_party party;
    bool acknowledged;             /* the coordinator has answered its submission */
    uint64_t job;                  /* the job's number, from that answer */
    coord_event_type requests[64]; /* the control requests that it still has to make, in order */
    uint32_t request_count;
} sim_client;

void sim_worker_boot(sim *s, uint32_t w);
void sim_worker_on(sim *s, sim_event *event);
void sim_worker_drain(sim *s, uint32_t w);
void sim_worker_kill(sim *s, uint32_t w, bool noticed, uint64_t comes_back);
void sim_client_on(sim *s, sim_event *event);
void sim_client_request(sim *s, uint32_t client, coord_event_type what);
sim_party *sim_party_of(sim *s, uint32_t peer); /* workers first, then clients */

void sim_call(sim *s, uint32_t peer, const sim_message *request, uint64_t timeout);
void sim_send(sim *s, uint32_t peer, sim_link_kind link); /* SIM_SEND */
void sim_reply(sim *s, const sim_message *request, sim_message *answer);
/* Ends the link's current call and returns true if the event is the reply or the failure of this
 * call. Returns false if the event belongs to an earlier call or to a lost connection. */
bool sim_call_ends(sim *s, const sim_event *event);
/* Breaks the link's connection. If `noticed` is true, the coordinator learns of it. */
void sim_cut(sim *s, uint32_t peer, sim_link_kind link, bool noticed);
void sim_host_gone(sim *s); /* breaks all connections to the coordinator, which has died */

/* ---- faults (faults.c) ---- */

#define SIM_FAULT_TABLE(X)                                                                         \
    X(KILL, "kill -9 of a worker")                                                                 \
    X(FREEZE, "a worker freezes")                                                                  \
    X(SLOW, "a worker is slow")                                                                    \
    X(CUT, "a worker's connections break")                                                         \
    X(DRAIN, "a worker is asked to leave")                                                         \
    X(LOSS, "messages are lost")                                                                   \
    X(DUPLICATE, "requests arrive twice")                                                          \
    X(DELAY, "messages are late, some very late")                                                  \
    X(PARTITION_TO, "nothing reaches the coordinator")                                             \
    X(PARTITION_FROM, "nothing arrives from the coordinator")                                      \
    X(CRASH, "kill -9 of the coordinator")                                                         \
    X(POWER, "the coordinator's machine loses power")                                              \
    X(CRASH_SAVE, "the coordinator dies in the middle of a checkpoint")                            \
    X(CRASH_COMMIT, "the coordinator dies just after a commit that a client waits for")            \
    X(STOP, "graceful stop of the coordinator")                                                    \
    X(STALL, "the coordinator's loop stalls")                                                      \
    X(CLOCK, "the coordinator's clock jumps ahead")                                                \
    X(DISK_FULL, "the disk is full")                                                               \
    X(DISK_ERRORS, "system calls fail or complete partly")                                         \
    X(DISK_SLOW, "syncing takes seconds")                                                          \
    X(LIE, "a worker lies")                                                                        \
    X(NAN_RESULT, "a worker's loss is not finite")                                                 \
    X(NAN_GRADIENT, "a worker's gradient is not finite")                                           \
    X(CANNOT, "a worker cannot compute a lease")                                                   \
    X(MANGLED, "a worker's result names another lease, job, step, block or attempt")               \
    X(CLAIM, "a worker claims centuries of computing time")                                        \
    X(LAG, "a worker answers just before its deadline")                                            \
    X(PAUSE, "a client pauses a job")                                                              \
    X(RESUME, "a client resumes a job")                                                            \
    X(CANCEL, "a client cancels a job")                                                            \
    X(EVALUATE, "a client asks for an evaluation")

typedef enum sim_fault_kind {
    SIM_FAULT_NONE,
#define X(name, text) SIM_##name,
    SIM_FAULT_TABLE(X)
#undef X
        SIM_FAULT_KINDS
} sim_fault_kind;

typedef struct sim_fault {
    sim_fault_kind kind;
    uint64_t at, lasts; /* begin and duration, ns of virtual time */
    uint32_t target;    /* for PAUSE to EVALUATE the index of a submission. Otherwise the index of a
                         * worker, or the number of workers, which means the first client, or
                         * SIM_NOBODY, which means all of them or the coordinator */
    uint32_t amount;    /* its meaning depends on the kind: see the table of amounts in setup.c */
    uint32_t number;    /* its number in the seed's full schedule */
} sim_fault;

/* The largest amount among the faults of this kind that affect the target at `when`; 0 if there is
 * no such fault. */
uint32_t sim_fault_on(const sim *s, sim_fault_kind kind, uint32_t target, uint64_t when);
/* Returns when the last of the faults of this kind that affect the target now will end. If there is
 * none, returns the current time. */
uint64_t sim_fault_ends(const sim *s, sim_fault_kind kind, uint32_t target);
void sim_fault_do(sim *s, const sim_fault *fault);
void sim_fault_print(const sim_fault *fault, char *out, size_t size);

/* ---- one run ---- */

typedef struct sim_options {
    uint64_t seed;
    bool no_faults, trace, ensembles;
    const uint32_t *only; /* numbers of the faults that are to happen; NULL: all */
    uint32_t only_count;
    uint32_t workers, jobs, shards; /* how many of each; 0: as the seed decides */
    uint32_t bug; /* number of the injected bug, for the printed command line; 0: none */
} sim_options;

typedef struct sim_result {
    bool failed;
    char invariant[32], text[400];
    uint64_t hash;            /* hash of the trace; equal in two runs of the same seed */
    uint64_t events;          /* events that were delivered */
    uint64_t decisions;       /* calls of coord_core_step */
    uint64_t agent_decisions; /* calls of worker_agent_step */
    uint64_t virtual_ns;      /* duration of the run in virtual time */
    uint64_t leases;          /* leases that were given */
    uint64_t repeated;        /* leases that were a second or later attempt */
    uint64_t steps;           /* updates that were applied */
    uint64_t completed;       /* jobs that were complete at the end */
    uint64_t workers;
    uint32_t faults;     /* faults in the schedule */
    uint64_t core_bytes; /* largest number of bytes that the core held at one time */
} sim_result;

struct sim {
    sim_options options;
    sim_result *result;
    uint64_t now;      /* virtual time, ns */
    uint64_t order;    /* number of the event posted last */
    uint64_t hash;     /* hash of the trace so far */
    uint64_t quiet_ns; /* when the last fault has ended */
    sim_queue queue;
    uint64_t next_connection;
    uint32_t worker_count, client_count, spec_count, fault_count;
    sim_worker *workers;
    sim_client *clients;
    sim_spec specs[SIM_SPECS_MAX]; /* first the submissions (spec_count), then the ensembles */
    sim_ensemble ensembles[SIM_ENSEMBLES_MAX];
    uint32_t ensemble_count;
    uint32_t ensemble_ids;         /* how many job numbers the ensembles have used up */
    sim_job jobs[SIM_IDS_MAX + 1]; /* the index is the job's number */
    sim_fault *faults;             /* in order of time */
    bool lasting[SIM_FAULT_KINDS]; /* faults of this kind last for a time in this run */
    /* Numbers of results so far, of all workers: */
    uint32_t nan_faults;     /* results whose loss or gradient a fault made not finite */
    uint32_t cannot_faults;  /* results that report that the worker cannot compute the lease */
    uint32_t mangled_faults; /* results with a wrong value in a field that names the lease */
    uint32_t lies;           /* results that are lies */
    uint32_t huge_lies; /* lies whose gradient is finite but so large that the sum of the step's
                           gradients, or every gradient after the update, is not finite */
    bool liars;         /* some worker may lie */
    bool nans;          /* some fault of the schedule makes a loss or a gradient not finite */
    bool mixed;         /* workers may have different fingerprints */
    sim_host host;
    sim_disk *disk;
    sim_store store;
    sim_stream dice; /* random draws of the coordinator's host */
    coord_core_config core_config;
    jmp_buf *stop;           /* where sim_fail jumps to */
    struct sim_lines *lines; /* unused */
};

/* Creates workers, jobs and faults as the seed decides. */
void sim_setup(sim *s);
void sim_setup_faults(sim *s);
/* Runs one seed. */
void sim_run(const sim_options *options, sim_result *result);
/* Fills `out` with all faults of the seed; returns their number. */
uint32_t sim_schedule(const sim_options *options, sim_fault *out, uint32_t capacity);
/* Leaves out groups of faults as long as the run still breaks the same invariant. `only` contains
 * the numbers of `count` faults, and afterwards the numbers of the faults that are left. Returns
 * how many are left. */
uint32_t sim_shrink(const sim_options *options, const char *invariant, uint32_t *only,
                    uint32_t count);

/* ---- invariants (check*.c): a broken one stops the run, which reports its name ---- */

_Noreturn void sim_fail(sim *s, const char *invariant, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define SIM_CHECK(s, invariant, condition, ...)                                                    \
    do {                                                                                           \
        if (!(condition)) sim_fail(s, invariant, __VA_ARGS__);                                     \
    } while (0)

void sim_check_action(sim *s, const coord_action *action); /* checks an action before it is
                                                              carried out */
void sim_check_update(sim *s, const coord_action *action, const sim_resident *resident);
void sim_check_before(sim *s, const coord_event *event); /* checks an event before the core takes
                                                            it */
/* Moves a running job's running_since forward if no worker has a lease of it. Call at each tick and
 * before a lease is given. */
void sim_note_wait(sim *s, uint64_t job);
void sim_check_after(sim *s, const coord_event *event);
/* check_deadlines.c: */
void sim_check_deadline(sim *s, sim_session *session, const coord_action *action); /* LEASE */
void sim_timing_ended(sim *s, sim_session *session);      /* call when the session's lease has
                                                             ended */
void sim_timing_kept(sim_session *session, uint64_t job); /* call when a result of the session
                                                             was kept */
/* True: no tick of the coordinator was late in the last heartbeat period. */
bool sim_has_listened(const sim *s);
/* The result in this slot must have been kept or dropped. */
void sim_check_answered(sim *s, uint64_t slot);
/* True: the core must keep the result of this PULL, because it is a good result of a current lease,
 * for shards of which the core has no gradient yet. */
bool sim_is_wanted(const sim *s, const sim_message *pull);
/* The result of this PULL, which sim_is_wanted, must have been kept. */
void sim_check_kept(sim *s, const sim_message *pull);
/* No slot may keep a gradient of this job. */
void sim_check_slots(sim *s, uint64_t job);
/* Records which shards, and which lies, an update averages. */
void sim_note_applied(sim *s, const coord_action *action);
/* True: this job's weights must equal the expected ones. False if lies were averaged in a job of
 * which not every block is audited: then the core need not find them. */
bool sim_is_trusted(const sim *s, uint64_t job);
/* Checks that a job that goes on does not build on a lie of a quarantined worker. (An update that
 * was in progress when the liar was found is completed and then discarded.) */
void sim_check_lies(sim *s, uint64_t job);
/* Call when an update was applied. Checks that the new weights are the expected ones. */
void sim_check_version(sim *s, uint64_t job, const sim_resident *resident);
/* A checkpoint was reported as written. */
void sim_check_saved(sim *s, uint64_t job, uint64_t step);
/* Call when the job returns to this step. Checkpoints of later steps are being removed, and some
 * may already be gone. */
void sim_check_discarded(sim *s, uint64_t job, uint64_t step);
void sim_check_loaded(sim *s, uint64_t job, sim_resident *resident, const cop_checkpoint *c);
/* The client's submission was answered with this job number. */
void sim_check_acknowledged(sim *s, uint32_t client, uint64_t job);
/* A client makes this control request. */
void sim_check_asked(sim *s, uint64_t job, coord_event_type request);
/* A client's control request was answered with success. */
void sim_check_granted(sim *s, uint64_t job, coord_event_type request);
void sim_check_died(sim *s); /* call when the coordinator has died */
void sim_check_end(sim *s);  /* call when the run has ended */
/* Have all jobs and ensembles ended, are all requests granted, and are all faults over? */
bool sim_all_done(const sim *s);
/* An upper bound of the time that all jobs need, in ns. It assumes that one worker computes every
 * shard twice: the quickest worker that can do the job or, if the job is audited, the second
 * quickest. */
uint64_t sim_longest(const sim *s);
/* True: jobs are left, but all workers that could do them are quarantined. These sent wrong results
 * again and again, or values that are not finite in a job that really diverges. (The setup keeps
 * some workers from lying.) */
bool sim_nobody_is_left(const sim *s);

/* ---- trace.c ---- */
void sim_trace_event(sim *s, const sim_event *event);
void sim_trace_action(sim *s, const coord_action *action);
void sim_trace(sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_note_hash(sim *s, uint64_t value);

/* ---- memo.c ---- */
/* From now on, this job file's text is neither written nor parsed again: memo.c keeps both results,
 * in permanent memory. */
void sim_memo_set(const ProtobufCMessage *message);

/* ---- memory.c: common/base/alloc.h, for one run ---- */
void sim_memory_reset(void);               /* frees all allocations that are not permanent */
void sim_memory_permanent(bool permanent); /* true: the next allocations are permanent */
void sim_memory_count(bool on);            /* true: the next allocations count as the core's */
uint64_t sim_memory_peak(void); /* largest number of bytes of the core since the last reset */
/* Makes a failed COP_ASSERT stop the run `s` instead of the program. If `s` is NULL, it stops the
 * program again. */
void sim_panics_stop(sim *s);

#endif
