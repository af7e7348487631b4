/* A seeded simulator of a whole installation in virtual time: one coordinator with its disk and
 * store, workers, clients, and the network between them. The decisions are the real code:
 * coord_core_step (coordinator/core/core.h), worker_agent_step (worker/agent.h), and checkpoints
 * (common/job/checkpoint.c) down to their system calls (common/base/file.c). The input and output
 * around them are models. docs/explanation/reliability.md describes them and lists the invariants.
 *
 * Everything follows from the seed. A random draw is a hash of the seed, the drawing part and its
 * number of draws so far, so leaving out one fault does not change the draws of the others. A run
 * ends well, or stops at the first broken invariant (sim_fail).
 *
 * Files: run.c (one seed from start to end), queue.c (virtual time), setup.c (pool, jobs and faults
 * of a seed), faults.c (faults as they happen), network.c, worker.c (the host of an agent), host.c
 * and actions.c (the host of the core), store.c, saver.c and disk.c (what is written), client.c,
 * truth.c (the expected results, from a loop without a pool), check*.c (invariants), trace.c,
 * shrink.c, memory.c (alloc.h for one run), memo.c, main.c. */
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
#define SIM_IDS_MAX       128 /* job numbers: a submission that fails has used one up */
#define SIM_NOBODY        UINT32_MAX
#define SIM_ENSEMBLES_MAX 3
#define SIM_SPECS_MAX     (SIM_JOBS_MAX + SIM_ENSEMBLES_MAX)
#define SIM_SLICES        4 /* of an ensemble's samples, at most */

typedef struct sim sim;

/* ---- random draws: streams of hashes; streams with different keys are independent ---- */

typedef struct sim_stream {
    uint64_t key, count;
} sim_stream;

uint64_t sim_mix(uint64_t a, uint64_t b);
uint64_t sim_next(sim_stream *stream);
uint64_t sim_below(sim_stream *stream, uint64_t n); /* 0 .. n - 1 */
bool sim_chance(sim_stream *stream, uint32_t per_mille);
/* From `low` up, each doubling half as likely: most values are small, a few very large. */
uint64_t sim_heavy(sim_stream *stream, uint64_t low, uint64_t high);

/* ---- virtual time (queue.c) ---- */

typedef enum sim_kind {
    SIM_NONE,
    /* at the coordinator */
    SIM_TICK,
    SIM_TO_CORE,    /* `event` */
    SIM_REQUEST,    /* `message` arrives */
    SIM_GONE,       /* value: a connection that is lost */
    SIM_LOADED,     /* value: job */
    SIM_UPDATED,    /* event: UPDATED */
    SIM_DIGESTED,   /* message: a PULL whose result has been digested */
    SIM_RECOMPUTED, /* message: a RESULT that the coordinator computed */
    SIM_SAVED,      /* event: CHECKPOINTED */
    SIM_TASK,       /* message: a part of a client's call is done */
    /* at its disk */
    SIM_COMMIT, /* value: number of the commit */
    SIM_SAVE,
    SIM_DIE, /* value: twice the ms until it starts again, plus 1 if power is lost */
    SIM_RESTART,
    /* at a worker or client: `peer`, in its life `life` */
    SIM_SEND,  /* the link tries again to connect */
    SIM_REPLY, /* `message` arrives */
    SIM_LOST,  /* a call's connection is lost */
    SIM_TIMEOUT,
    SIM_COMPUTED,
    SIM_WAITED,
    SIM_BEAT,
    SIM_BOOT,
    SIM_CLIENT,
    /* elsewhere */
    SIM_FAULT,
    SIM_ENSEMBLE /* at the coordinator. value: index of the ensemble to submit */
} sim_kind;

typedef enum sim_link_kind { SIM_WORK, SIM_CONTROL, SIM_LINKS } sim_link_kind;

typedef enum sim_message_type {
    SIM_HELLO = 1,
    SIM_HELLO_CONTROL,
    SIM_HEARTBEAT,
    SIM_PULL,
    SIM_SUBMIT,
    SIM_CONTROL_JOB,
    /* answers */
    SIM_WELCOME,
    SIM_LEASE,
    SIM_NOTHING,
    SIM_HEARTBEAT_REPLY,
    SIM_ANSWER,
    SIM_FAILURE
} sim_message_type;

/* Stands for a tensor of gradients: a hash that neither commutes nor associates. */
typedef struct sim_gradient {
    uint64_t sum;
    bool nan;     /* some value is not finite */
    bool huge;    /* finite, but its sum with others is not */
    bool poison;  /* finite, but gradients from the weights after it are not */
    uint32_t lie; /* wrong on purpose: 1 + the worker that lied; 0: right */
} sim_gradient;

typedef struct sim_lease {
    uint64_t lease, job, step, version, weights;
    uint32_t attempt, first, count, batch, spec;
    uint32_t member, members; /* of an ensemble */
    bool evaluate, ensemble, has_weights;
} sim_lease;

/* A request or a reply on its way. */
typedef struct sim_message {
    sim_message_type type;
    uint32_t peer, life, call, host_life; /* the asking side, and the coordinator's life */
    sim_link_kind link;
    uint64_t connection, request; /* request: the host's handle */
    uint64_t worker, session;
    /* HEARTBEAT */
    uint64_t lease_held;
    bool draining;
    /* PULL */
    uint64_t have_job, have_version;
    bool goodbye, has_result, mangled; /* mangled: the result names a lease that was not given */
    coord_result_info result;
    sim_gradient gradient;
    /* SUBMIT, CONTROL_JOB, ANSWER */
    uint32_t spec;
    coord_event_type control;
    uint64_t job;
    cop_err error;
    enum { SIM_BUILT = 1, SIM_COMMITTED, SIM_CONFIRMED } task; /* the part of it that is done */
    /* NOTHING, HEARTBEAT_REPLY, LEASE */
    uint32_t retry_ms;
    bool drain, unknown;
    uint64_t cancel_lease;
    sim_lease lease;
} sim_message;

typedef struct sim_event {
    uint64_t time, order;
    sim_kind kind;
    uint32_t peer, life, call;
    sim_link_kind link;
    uint64_t value;
    sim_message *message; /* owned */
    coord_event *event;   /* owned */
} sim_event;

typedef struct sim_queue {
    sim_event *heap;
    uint32_t count, capacity;
} sim_queue;

/* Delivers the event after `delay` and takes over what it owns. */
void sim_post(sim *s, uint64_t delay, sim_event event);
sim_event sim_take(sim *s);
sim_message *sim_message_new(const sim_message *m);
coord_event *sim_event_new(const coord_event *event);

/* ---- jobs as submitted, and a loop without a pool (truth.c) ---- */

/* Weights after an update with a poisoned gradient. */
#define SIM_POISONED 0x1e38

/* The expected state after a step. */
typedef struct sim_reference {
    uint64_t weights, momentum;
    double loss, epoch_loss, evaluated;
    uint64_t correct, epoch_correct, evaluated_correct;
} sim_reference;

/* A submission and its expected results. */
typedef struct sim_spec {
    coord_job_info info; /* job number 0: the coordinator assigns one */
    uint64_t seed, key;
    uint64_t shard_ns;
    uint64_t diverges_at; /* the step whose gradient is not finite, whoever computes it; 0: none */
    uint32_t keep;        /* checkpoints to keep */
    uint32_t *rows;       /* (steps, batch): the samples of each step, by the coordinator's code */
    uint64_t *leaf;       /* (steps, shards): hashes of the samples; 0: not computed yet */
    sim_reference *reference[3]; /* (steps + 1) for each fingerprint */
    uint64_t computed[3];        /* steps that are computed in `reference` */
} sim_spec;

uint64_t sim_initial(const sim_spec *spec);
uint32_t sim_batch_of(const sim_spec *spec, uint64_t step);
uint64_t sim_leaf(sim_spec *spec, uint64_t step, uint32_t shard);
/* The samples of a step, in order. */
const uint32_t *sim_rows(sim_spec *spec, uint64_t step);
/* Gradient, loss and correct samples of shards [first, first + count) of a step, computed from
 * these weights. */
uint64_t sim_block(sim_spec *spec, uint64_t weights, uint64_t step, uint32_t first, uint32_t count,
                   uint64_t fingerprint, double *loss, uint64_t *correct);
/* Is the gradient of the block that starts at this shard not finite, whoever computes it? */
bool sim_diverges(const sim_spec *spec, uint64_t step, uint32_t first, uint64_t weights);
uint32_t sim_samples(const sim_spec *spec, uint32_t batch, uint32_t first, uint32_t count);
void sim_slice(uint64_t weights, uint32_t first, uint32_t count, double *loss, uint64_t *correct);
void sim_apply(uint64_t sum, uint32_t batch, uint64_t *weights, uint64_t *momentum);
/* The expected state after `step` steps. */
const sim_reference *sim_expect(sim_spec *spec, uint64_t fingerprint, uint64_t step);
double sim_error(const sim_spec *spec, uint64_t samples, uint64_t correct);

/* ---- the disk (disk.c) ---- */

typedef struct sim_disk sim_disk;
sim_disk *sim_disk_create(sim *s);
/* From begin to end, system calls on paths below /sim/ go to this disk. They take virtual time,
 * starting at `begin`, and are journaled. sim_disk_end returns when the last one ended. */
void sim_disk_begin(sim_disk *disk, uint64_t begin);
uint64_t sim_disk_end(sim_disk *disk);
/* The program stops at this moment, or the machine loses power: later system calls were never made,
 * and without power what was not synced may be lost. */
void sim_disk_crash(sim_disk *disk, uint64_t now, bool power);
/* In *takes: how long a commit of the store takes now. False: the disk is full. */
bool sim_disk_commit(sim_disk *disk, bool sync, uint64_t *takes);
void sim_disk_settle(sim_disk *disk); /* completes what was begun */

/* ---- the store (store.c): rows of jobs, committed in batches ---- */

typedef struct sim_row {
    bool exists;
    uint32_t spec;
    uint64_t key, fingerprint;
    coord_job_state state;
    uint64_t steps[4]; /* a bit per step: its metrics are stored */
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
    sim_message *done; /* sent back as SIM_TASK when committed or failed; or NULL */
} sim_write;

typedef struct sim_store {
    sim_row rows[SIM_IDS_MAX + 1];   /* what is committed */
    sim_row synced[SIM_IDS_MAX + 1]; /* what survives a loss of power */
    sim_write *queue;
    uint32_t count, capacity, committing; /* committing: the first so many, at this moment */
    bool batch_fails, retrying;
    uint64_t wakes;
} sim_store;

void sim_store_write(sim *s, const sim_write *write);
bool sim_store_is_tight(const sim *s); /* its queue is always full, so it drops metrics */
void sim_store_commit(sim *s, uint64_t wake_number); /* SIM_COMMIT */
void sim_store_flush(sim *s);                        /* at a graceful stop */
void sim_store_crash(sim *s, bool power);

/* ---- the coordinator's process (host.c, actions.c, saver.c) ---- */

typedef struct sim_session {
    uint64_t secret, connection[SIM_LINKS], heard_ns, held_since;
    sim_message *held;  /* the current PULL */
    uint64_t answered;  /* number of the last request that was answered */
    uint64_t digesting; /* number of the PULL whose result is being digested; 0: none */
    sim_lease lease;    /* the lease given last, and its deadline; 0: it has ended */
    uint64_t deadline_ns;
    uint64_t timed_job,
        timed_ns;        /* job of the training lease that is being timed, and its start; 0: none */
    uint64_t kept_job;   /* the job of the last result that was kept ... */
    uint32_t kept_count; /* ... and how many in a row were */
    uint32_t peer;
    bool live, drain;
} sim_session;

typedef enum sim_slot_state { SIM_FREE, SIM_OFFERED, SIM_KEPT } sim_slot_state;

typedef struct sim_slot {
    sim_slot_state state;
    sim_gradient gradient;
    uint64_t job, step, next_free;
    uint32_t first, count;
    bool evaluate;
} sim_slot;

/* A job in the coordinator's memory. */
typedef struct sim_resident {
    bool loaded, loading, updating, unload_wanted, paused_wish;
    uint32_t spec, update_count;
    uint64_t step, weights, momentum, next_weights, next_momentum;
    uint64_t max_step;      /* while loading: no checkpoint beyond this step */
    bool undone, best_lost; /* later checkpoints are removed, and the best was one of them */
    uint64_t pause_from; /* a pause was requested: no step after this one; UINT64_MAX: none was */
    uint64_t *slots;     /* of the current update */
    uint64_t *digests;   /* of the current update's gradients */
} sim_resident;

typedef struct sim_save {
    uint64_t job;
    sim_resident version;
    coord_action action;
} sim_save;

/* What is known about a job from outside, even if the coordinator forgets it. */
typedef struct sim_job {
    bool acknowledged, cancel_asked, cancel_acknowledged, pause_acknowledged;
    coord_job_state state; /* as last reported */
    uint64_t fingerprint;  /* of the workers that trained its current weights; 0: none yet */
    uint64_t saved;        /* the newest step whose checkpoint was reported as written */
    uint64_t evaluated,
        recorded[4]; /* the last step that was; a bit per step: its metrics were reported */
    uint64_t first_run, running_since;
    uint8_t *applied; /* (steps + 1, shards): how often each shard is part of that version */
    uint8_t kept[COP_SHARDS_MAX]; /* kept gradients of each shard, in the current step */
    uint64_t *lied;    /* (workers): the first step that averaged a lie of each; 0: none */
    uint64_t *longest; /* (workers): the longest lease of each */
    uint32_t life;     /* of the coordinator that trained it last */
    bool spoilt;       /* its checkpoints contain lies, and a restarted coordinator does not know */
} sim_job;

typedef struct sim_host {
    bool up, stopping, stopped, dispatching;
    uint32_t life, pause_ms; /* pause_ms: from a graceful stop to the next start */
    uint64_t stalled_until, clock_ahead, last_lease;
    uint64_t ticked_ns, listens_ns;    /* the last tick; since when no tick was late */
    uint64_t crash_save, crash_commit; /* set by faults: value + 1 of the SIM_DIE that follows */
    uint64_t result_of;                /* the worker whose result the core is taking; 0: none */
    coord_core *core;
    coord_actions actions;
    coord_event *queue;
    uint32_t queue_count, queue_capacity;
    sim_session *sessions; /* (by worker number - 1) */
    uint32_t session_count, session_capacity;
    sim_slot *slots; /* (by number); 0 is unused */
    uint64_t slot_count, slot_capacity, slot_free;
    uint64_t next_request, next_job;
    struct recovery_keys *keys;
    sim_resident resident[SIM_IDS_MAX + 1];
    sim_save *saves;
    uint32_t save_count, save_capacity;
    bool saver_busy;
} sim_host;

void sim_host_start(sim *s);
/* kill -9, or loss of power. */
void sim_host_die(sim *s, bool power);
/* If a fault has armed this point, the coordinator dies within `span`. */
void sim_host_die_within(sim *s, uint64_t *armed, uint64_t span);
void sim_host_on(sim *s, sim_event *event);
void sim_dispatch(sim *s, const coord_event *event);
void sim_carry_out(sim *s, const coord_action *action);
sim_session *sim_session_of(sim *s, uint64_t worker);
void sim_end_session(sim *s, uint64_t worker, bool notify_core);
uint64_t sim_slot_offer(sim *s, const sim_message *m);
void sim_slot_release(sim *s, uint64_t slot);
void sim_updated(sim *s, const coord_event *event); /* SIM_UPDATED */
uint64_t sim_digest(const sim *s, const sim_gradient *gradient);
void sim_recomputed(sim *s, const sim_message *m); /* SIM_RECOMPUTED */
uint64_t sim_host_now(const sim *s);               /* the coordinator's own clock */
void sim_saver_submit(sim *s, const coord_action *action);
void sim_saver_wake(sim *s);
void sim_saver_flushed(sim *s, bool failed);
void sim_saver_run(sim *s,
                   bool behind); /* SIM_SAVE; behind: the store could not be written before */
void sim_saved(sim *s, const coord_event *event); /* SIM_SAVED */
void sim_saver_finish(sim *s);
/* The newest checkpoint of a job on the disk. */
cop_err sim_read(sim *s, uint64_t job, uint64_t max_step, sim_resident *out, cop_checkpoint *c);
bool sim_has_model(sim *s, uint64_t job);
void sim_load(sim *s, uint64_t job); /* SIM_LOADED */
void sim_client_call(sim *s, sim_message *m);
void sim_client_task(sim *s, sim_message *m);
void sim_key_of(uint64_t key, unsigned char out[16]);

/* ---- evaluations of ensembles (ensemble.c) ---- */

typedef struct sim_ensemble {
    uint64_t job; /* its number; 0: it is not running */
    uint64_t begins_ns;
    uint32_t absorbed[SIM_SLICES]; /* members of each slice */
    bool done;
} sim_ensemble;

void sim_setup_ensembles(sim *s);
void sim_ensembles_start(sim *s); /* the coordinator has started */
void sim_ensemble_submit(sim *s, uint32_t index);
sim_ensemble *sim_ensemble_of(sim *s, uint64_t job); /* NULL: it is not running */
bool sim_is_ensemble(const sim *s, uint64_t job);
/* Outputs of these members on the slice that starts at sample `first`. */
uint64_t sim_outputs(const sim_spec *spec, uint32_t first, uint32_t member, uint32_t members);
void sim_absorb(sim *s, const coord_action *action);
void sim_ensemble_ended(sim *s, const coord_action *action); /* STATE */
bool sim_ensembles_done(const sim *s);

/* ---- workers (worker.c), clients (client.c), the network between (network.c) ---- */

typedef struct sim_link {
    uint64_t connection;
    uint32_t host_life; /* life of the coordinator that it is connected to; 0: not connected */
    uint32_t call;      /* number of the current call, which its reply must carry */
    bool calling, sent; /* sent: the request is on its way, or has arrived */
    sim_message request;
} sim_link;

/* The process of a worker or client. */
typedef struct sim_party {
    bool alive;
    uint32_t life;
    uint64_t frozen_until;
    sim_link link[SIM_LINKS];
    sim_stream network;
} sim_party;

typedef struct sim_worker {
    sim_party party;
    worker_agent agent;
    sim_stream compute;
    uint64_t fingerprint, id, session, waits;
    uint32_t threads, slowness;
    uint32_t serial, greeted, forgotten, beating; /* numbers of sessions */
    bool drain, waiting;
    uint64_t lease_now,
        canceled; /* the lease that it computes; the lease that it was told to cancel */
    uint64_t have_job, have_version, weights;
    sim_lease lease;
    bool has_result, mangled; /* has_result: the next PULL carries it */
    coord_result_info result;
    sim_gradient gradient;
    uint32_t nan_results, nan_gradients, failed_results,
        mangled_results;                   /* results to spoil, set by faults */
    uint32_t lies, nans, results, mangles; /* in all its lives */
} sim_worker;

typedef struct sim_client {
    sim_party party;
    bool acknowledged;
    uint64_t job;
    coord_event_type wishes[64]; /* control requests to make, in order */
    uint32_t wish_count;
} sim_client;

void sim_worker_boot(sim *s, uint32_t w);
void sim_worker_on(sim *s, sim_event *event);
void sim_worker_drain(sim *s, uint32_t w);
void sim_worker_kill(sim *s, uint32_t w, bool noticed, uint64_t comes_back);
void sim_client_on(sim *s, sim_event *event);
void sim_client_wish(sim *s, uint32_t client, coord_event_type what);
sim_party *sim_party_of(sim *s, uint32_t peer); /* workers first, then clients */

void sim_call(sim *s, uint32_t peer, const sim_message *request, uint64_t timeout);
void sim_send(sim *s, uint32_t peer, sim_link_kind link); /* SIM_SEND */
void sim_reply(sim *s, const sim_message *request, sim_message *answer);
/* Ends the call if the event is its reply or failure. False: it belongs to an earlier call. */
bool sim_call_ends(sim *s, const sim_event *event);
void sim_cut(sim *s, uint32_t peer, sim_link_kind link, bool noticed);
void sim_host_gone(sim *s); /* all its connections are lost */

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
    uint64_t at, lasts;
    uint32_t target, amount; /* target: a worker or job; SIM_NOBODY: all */
    uint32_t number;         /* in the seed's full schedule */
} sim_fault;

/* The amount of a fault of this kind that affects the target at `when`; 0: there is none. */
uint32_t sim_fault_on(const sim *s, sim_fault_kind kind, uint32_t target, uint64_t when);
uint64_t sim_fault_ends(const sim *s, sim_fault_kind kind, uint32_t target);
void sim_fault_do(sim *s, const sim_fault *fault);
void sim_fault_print(const sim_fault *fault, char *out, size_t size);

/* ---- one run ---- */

typedef struct sim_options {
    uint64_t seed;
    bool no_faults, trace, ensembles;
    const uint32_t *only; /* numbers of the faults that happen; NULL: all */
    uint32_t only_count;
    uint32_t workers, jobs, shards; /* 0: as the seed decides */
    uint32_t bug;                   /* the planted bug, for the command that replays */
} sim_options;

typedef struct sim_result {
    bool failed;
    char invariant[32], text[400];
    uint64_t hash, events, decisions, agent_decisions, virtual_ns;
    uint64_t leases, repeated, steps, completed, workers;
    uint32_t faults;
    uint64_t core_bytes; /* largest number of bytes that the core allocated */
} sim_result;

struct sim {
    sim_options options;
    sim_result *result;
    uint64_t now, order, hash, quiet_ns; /* quiet_ns: no fault begins after it */
    sim_queue queue;
    uint64_t next_connection;
    uint32_t worker_count, client_count, spec_count, fault_count;
    sim_worker *workers;
    sim_client *clients;
    sim_spec specs[SIM_SPECS_MAX]; /* submissions, then ensembles */
    sim_ensemble ensembles[SIM_ENSEMBLES_MAX];
    uint32_t ensemble_count, ensemble_ids; /* ids: job numbers that were used for them */
    sim_job jobs[SIM_IDS_MAX + 1];
    sim_fault *faults;
    bool lasting[SIM_FAULT_KINDS];
    uint32_t nan_faults, cannot_faults, mangled_faults, lies; /* number of spoiled results */
    uint32_t huge_lies; /* lies that are finite and make the sum, or what follows, not finite */
    bool liars, nans, mixed; /* liars: some worker may lie; mixed: fingerprints differ */
    sim_host host;
    sim_disk *disk;
    sim_store store;
    sim_stream dice; /* random draws of the coordinator's host */
    coord_core_config core_config;
    jmp_buf *stop;
    struct sim_lines *lines; /* the end of the trace; or NULL */
};

/* Creates workers, jobs and faults as the seed decides. */
void sim_setup(sim *s);
void sim_setup_faults(sim *s);
/* Runs one seed. */
void sim_run(const sim_options *options, sim_result *result);
/* Fills `out` with all faults of the seed; returns their number. */
uint32_t sim_schedule(const sim_options *options, sim_fault *out, uint32_t capacity);
/* Leaves out groups of faults as long as the run still breaks the same invariant. Fills `only`;
 * returns how many are left. */
uint32_t sim_shrink(const sim_options *options, const char *invariant, uint32_t *only,
                    uint32_t count);

/* ---- invariants (check*.c): each stops the run with its name ---- */

_Noreturn void sim_fail(sim *s, const char *invariant, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define SIM_CHECK(s, invariant, condition, ...)                                                    \
    do {                                                                                           \
        if (!(condition)) sim_fail(s, invariant, __VA_ARGS__);                                     \
    } while (0)

void sim_check_action(sim *s, const coord_action *action); /* before it is carried out */
void sim_check_update(sim *s, const coord_action *action, const sim_resident *resident);
void sim_check_before(sim *s, const coord_event *event); /* before the core takes it */
void sim_check_after(sim *s, const coord_event *event);
/* check_deadlines.c: a lease is given; a session's lease has ended; its result was kept. */
void sim_check_deadline(sim *s, sim_session *session, const coord_action *action);
void sim_timing_ended(sim *s, sim_session *session);
void sim_timing_kept(sim_session *session, uint64_t job);
/* Has the coordinator been running for a heartbeat period without a stall? */
bool sim_has_listened(const sim *s);
void sim_check_answered(sim *s, uint64_t slot);
/* Must this result be kept: a good result of a current lease, for shards that nobody has done? */
bool sim_is_wanted(const sim *s, const sim_message *pull);
void sim_check_kept(sim *s, const sim_message *pull);
void sim_check_slots(sim *s, uint64_t job);
void sim_note_applied(sim *s, const coord_action *action);
/* Can this job's weights be checked? Not after lies that nothing promises to find were averaged. */
bool sim_is_trusted(const sim *s, uint64_t job);
/* A job that goes on must not build on a lie of a quarantined worker. (An update that was in
 * progress when the liar was found is completed and discarded.) */
void sim_check_lies(sim *s, uint64_t job);
void sim_check_version(sim *s, uint64_t job, const sim_resident *resident);
void sim_check_saved(sim *s, uint64_t job, uint64_t step);
/* The job returns to an earlier step: checkpoints after it are being removed and may be gone. */
void sim_check_discarded(sim *s, uint64_t job, uint64_t step);
void sim_check_loaded(sim *s, uint64_t job, sim_resident *resident, const cop_checkpoint *c);
void sim_check_acknowledged(sim *s, uint32_t client, uint64_t job);
void sim_check_asked(sim *s, uint64_t job, coord_event_type wish);
void sim_check_granted(sim *s, uint64_t job, coord_event_type wish);
void sim_check_died(sim *s);
void sim_check_end(sim *s);
bool sim_all_done(const sim *s);
/* Upper bound of the time for all jobs, with each shard computed twice by the slowest workers that
 * are needed. */
uint64_t sim_longest(const sim *s);
/* Nobody can do what is left: the workers that could are quarantined, because they sent wrong
 * results again and again, or values that are not finite in a job that really diverges. (The setup
 * keeps some workers from lying.) */
bool sim_nobody_is_left(const sim *s);

/* ---- trace.c ---- */
void sim_trace_event(sim *s, const sim_event *event);
void sim_trace_action(sim *s, const coord_action *action);
void sim_trace(sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_note_hash(sim *s, uint64_t value);

/* ---- memo.c: this message's text is written and parsed only once (permanent memory) ---- */
void sim_memo_set(const ProtobufCMessage *message);

/* ---- memory.c: alloc.h, for one run ---- */
void sim_memory_reset(void); /* frees everything since the last permanent allocation */
void sim_memory_permanent(bool permanent);
void sim_memory_count(bool on); /* on: allocations count as the core's */
uint64_t sim_memory_peak(void);
/* Makes a failed COP_ASSERT stop the run `s` instead of the program. */
void sim_panics_stop(sim *s);

#endif
