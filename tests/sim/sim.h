/* A seeded simulator of a whole installation in virtual time: one coordinator, its disk and store,
 * workers, clients and the network between them. The decisions are the real ones: coord_core_step
 * (coordinator/core/core.h), worker_agent_step (worker/agent.h), the checkpoints' code
 * (common/job/checkpoint.c) down to its system calls (common/base/file.c). What does input and
 * output around them is modelled here; docs/explanation/reliability.md says how, and lists the
 * invariants.
 *
 * Everything that happens follows from the seed: random draws are hashes of (seed, who, how many
 * before), so that leaving one fault out does not move the others' dice. A run either ends well or
 * stops at the first broken invariant (sim_fail).
 *
 * Files: run.c (one seed from beginning to end), queue.c (virtual time), setup.c (what a seed
 * stands for), faults.c (the schedule of faults), network.c, worker.c (the host of an agent),
 * host.c and actions.c (the host of the core), store.c, saver.c and disk.c (what is written),
 * client.c, truth.c (a loop without any pool, which all is compared with), check*.c (invariants),
 * trace.c, shrink.c, memory.c (alloc.h for one run), memo.c, main.c. */
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

#define SIM_MS       1000000ull
#define SIM_SECOND   (1000 * SIM_MS)
#define SIM_JOBS_MAX 8   /* submissions in one run */
#define SIM_IDS_MAX  128 /* numbers for them: a submission that fails has used one up */
#define SIM_NOBODY   UINT32_MAX

typedef struct sim sim;

/* ---- dice: a stream of hashes; streams of different keys have nothing to do with each other ----
 */

typedef struct sim_stream {
    uint64_t key, count;
} sim_stream;

uint64_t sim_mix(uint64_t a, uint64_t b);
uint64_t sim_next(sim_stream *stream);
uint64_t sim_below(sim_stream *stream, uint64_t n); /* 0 .. n - 1 */
bool sim_chance(sim_stream *stream, uint32_t per_mille);
/* From `low` on, each doubling half as likely: most are short, a few are very long. */
uint64_t sim_heavy(sim_stream *stream, uint64_t low, uint64_t high);

/* ---- virtual time (queue.c) ---- */

typedef enum sim_kind {
    SIM_NONE,
    /* at the coordinator */
    SIM_TICK,
    SIM_TO_CORE,  /* `event` */
    SIM_REQUEST,  /* `message` arrives */
    SIM_GONE,     /* value: a connection that is lost */
    SIM_LOADED,   /* value: job */
    SIM_UPDATED,  /* event: UPDATED */
    SIM_DIGESTED, /* message: a PULL whose result was hashed */
    SIM_RECOMPUTED,   /* message: a RESULT of the coordinator's own */
    SIM_SAVED,    /* event: CHECKPOINTED */
    SIM_TASK,     /* something of a client's call is done: `message` */
    /* at its disk */
    SIM_COMMIT, /* value: number of the wake-up */
    SIM_SAVE,
    SIM_DIE, /* value: ms until it starts again, times 2, + 1: power is lost */
    SIM_RESTART,
    /* at a worker or client: `who` in its life `life` */
    SIM_SEND,  /* the link tries to connect once more */
    SIM_REPLY, /* `message` arrives */
    SIM_LOST,  /* the connection of a call is lost */
    SIM_TIMEOUT,
    SIM_COMPUTED,
    SIM_WAITED,
    SIM_BEAT,
    SIM_BOOT,
    SIM_CLIENT,
    /* nobody's */
    SIM_FAULT
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

/* What stands for a tensor of gradients: a hash that neither commutes nor associates. */
typedef struct sim_gradient {
    uint64_t sum;
    bool nan;     /* some value in it is not finite */
    bool huge;    /* finite, but no sum with it is */
    bool poison;  /* finite; the weights that it leads to give gradients that are not */
    uint32_t lie; /* wrong on purpose, by this worker + 1; 0: it is not */
} sim_gradient;

typedef struct sim_lease {
    uint64_t lease, job, step, version, weights;
    uint32_t attempt, first, count, batch, spec;
    bool evaluate, has_weights;
} sim_lease;

/* A request or an answer, as it travels. */
typedef struct sim_message {
    sim_message_type type;
    uint32_t peer, life, call, host_life; /* the asking side, and which life of the coordinator */
    sim_link_kind link;
    uint64_t connection, request; /* request: the host's handle */
    uint64_t worker, session;
    /* HEARTBEAT */
    uint64_t lease_held;
    bool draining;
    /* PULL */
    uint64_t have_job, have_version;
    bool goodbye, has_result, mangled; /* mangled: the result names what was not leased */
    coord_result_info result;
    sim_gradient gradient;
    /* SUBMIT, CONTROL_JOB, ANSWER */
    uint32_t spec;
    coord_event_type control;
    uint64_t job;
    cop_err error;
    enum { SIM_BUILT = 1, SIM_COMMITTED, SIM_CONFIRMED } task; /* what was just done for it */
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

/* In `delay` from now; what it owns goes over. */
void sim_post(sim *s, uint64_t delay, sim_event event);
sim_event sim_take(sim *s);
sim_message *sim_message_new(const sim_message *m);

/* ---- jobs as they were meant, and a loop without a pool (truth.c) ---- */

/* Weights after an update with a poisoned gradient. */
#define SIM_POISONED 0x1e38

/* What a step, done alone, leaves behind. */
typedef struct sim_reference {
    uint64_t weights, momentum;
    double loss, epoch_loss, evaluated;
    uint64_t correct, epoch_correct, evaluated_correct;
} sim_reference;

/* A submission and all that must come of it. */
typedef struct sim_spec {
    coord_job_info info; /* without a number: the coordinator gives it */
    uint64_t seed, key;
    uint64_t shard_ns;
    uint64_t diverges_at; /* step whose gradient is not finite whoever computes it; 0: none */
    uint32_t keep;        /* checkpoints */
    uint32_t *rows;       /* (steps, batch): samples of each step, by the coordinator's code */
    uint64_t *leaf;       /* (steps, shards): hashes of the rows; 0: not computed yet */
    sim_reference *reference[3]; /* (steps + 1) for each fingerprint */
    uint64_t computed[3];        /* steps of `reference` that are there */
} sim_spec;

uint64_t sim_initial(const sim_spec *spec);
uint32_t sim_batch_of(const sim_spec *spec, uint64_t step);
uint64_t sim_leaf(sim_spec *spec, uint64_t step, uint32_t shard);
/* The rows of a step's samples, in order. */
const uint32_t *sim_rows(sim_spec *spec, uint64_t step);
/* Gradient and figures of shards [first, first + count) of a step from these weights. */
uint64_t sim_block(sim_spec *spec, uint64_t weights, uint64_t step, uint32_t first, uint32_t count,
                   uint64_t fingerprint, double *loss, uint64_t *correct);
/* Is the gradient of the block that starts at this shard not finite, whoever computes it? */
bool sim_diverges(const sim_spec *spec, uint64_t step, uint32_t first, uint64_t weights);
uint32_t sim_samples(const sim_spec *spec, uint32_t batch, uint32_t first, uint32_t count);
void sim_slice(uint64_t weights, uint32_t first, uint32_t count, double *loss, uint64_t *correct);
void sim_apply(uint64_t sum, uint32_t batch, uint64_t *weights, uint64_t *momentum);
/* After `step` steps, alone. */
const sim_reference *sim_expect(sim_spec *spec, uint64_t fingerprint, uint64_t step);
double sim_error(const sim_spec *spec, uint64_t samples, uint64_t correct);

/* ---- the disk (disk.c) ---- */

typedef struct sim_disk sim_disk;
sim_disk *sim_disk_create(sim *s);
/* System calls on paths below /sim/ come here until the matching end; they take virtual time from
 * `begin` on and are journaled. Returns when the last one ended. */
void sim_disk_begin(sim_disk *disk, uint64_t begin);
uint64_t sim_disk_end(sim_disk *disk);
/* The machine (power: what was not synced may be lost) or the program stops at this moment: system
 * calls after it were never made. */
void sim_disk_crash(sim_disk *disk, uint64_t now, bool power);
/* How long a commit of the store takes now; false: there is no space. */
bool sim_disk_commit(sim_disk *disk, bool sync, uint64_t *takes);
void sim_disk_settle(sim_disk *disk); /* all that was begun is done */

/* ---- the store (store.c): rows of jobs, committed in batches ---- */

typedef struct sim_row {
    bool exists;
    uint32_t spec;
    uint64_t key, fingerprint;
    coord_job_state state;
    uint64_t steps[4]; /* bit per step: there is a row of its metrics */
} sim_row;

typedef enum sim_write_kind {
    SIM_ADD_JOB = 1,
    SIM_SET_STATE,
    SIM_SET_FINGERPRINT,
    SIM_ADD_STEP,
    SIM_BARRIER /* the saver waits until all before it is on the disk */
} sim_write_kind;

typedef struct sim_write {
    sim_write_kind kind;
    uint64_t job, value;
    sim_row row;
    sim_message *done; /* posted back as SIM_TASK when committed (or failed); or NULL */
} sim_write;

typedef struct sim_store {
    sim_row rows[SIM_IDS_MAX + 1];   /* what is committed */
    sim_row synced[SIM_IDS_MAX + 1]; /* what a loss of power leaves */
    sim_write *queue;
    uint32_t count, capacity, committing; /* committing: the first so many, just now */
    bool batch_fails, retrying;
    uint64_t wakes;
} sim_store;

void sim_store_write(sim *s, const sim_write *write);
bool sim_store_is_tight(const sim *s);               /* it drops metrics, all the time */
void sim_store_commit(sim *s, uint64_t wake_number); /* SIM_COMMIT */
void sim_store_flush(sim *s);                        /* at a graceful stop */
void sim_store_crash(sim *s, bool power);

/* ---- the coordinator's process (host.c, actions.c, saver.c) ---- */

typedef struct sim_session {
    uint64_t secret, connection[SIM_LINKS], heard_ns, held_since;
    sim_message *held;  /* the PULL under way */
    uint64_t answered;  /* number of the last request that was */
    uint64_t digesting; /* number of the PULL whose result is being hashed; 0: none */
    sim_lease lease;    /* given last, and its deadline; 0: none is out */
    uint64_t deadline_ns;
    uint64_t timed_job, timed_ns; /* of a training's lease, from when it was given; 0: none */
    uint64_t kept_job;            /* of the last result that was kept ... */
    uint32_t kept_count;          /* ... and so many in a row */
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
    uint64_t max_step;      /* of a load under way: no checkpoint beyond this step */
    bool undone, best_lost; /* ... and those are gone, among them the best */
    uint64_t pause_from;    /* a pause was asked for: no step beyond this one; UINT64_MAX: none */
    uint64_t *slots;        /* of the update under way */
    uint64_t *digests;      /* of its gradients, if only their sum is not finite */
} sim_resident;

typedef struct sim_save {
    uint64_t job;
    sim_resident version;
    coord_action action;
} sim_save;

/* What is known of a job from outside, whatever the coordinator forgets. */
typedef struct sim_job {
    bool acknowledged, cancel_asked, cancel_acknowledged, pause_acknowledged;
    coord_job_state state;           /* last told */
    uint64_t fingerprint;            /* of its weights' history; 0: none yet */
    uint64_t saved;                  /* the newest step that was reported as written */
    uint64_t evaluated, recorded[4]; /* last step that was; bit per step: metrics were told */
    uint64_t first_run, running_since;
    uint8_t *applied;             /* (steps + 1, shards): how often each is in that version */
    uint8_t kept[COP_SHARDS_MAX]; /* gradients that are there, of the step under way */
    uint64_t *lied;               /* (workers): first step that averaged a lie of each; 0: none */
    uint64_t *longest;            /* (workers): longest time of a lease of each */
    uint32_t life;                /* of the coordinator that trained it last */
    bool spoilt;                  /* lies are in its checkpoints, and nobody knows any more */
} sim_job;

typedef struct sim_host {
    bool up, stopping, stopped, dispatching;
    uint32_t life, pause_ms; /* pause: until it starts again after a graceful stop */
    uint64_t stalled_until, clock_ahead, last_lease;
    uint64_t ticked_ns, listens_ns;    /* its last tick; since when none was missing */
    uint64_t crash_save, crash_commit; /* armed by faults: value of SIM_DIE + 1 */
    uint64_t result_of;                /* the worker whose result the core takes; 0: none */
    coord_core *core;
    coord_actions actions;
    coord_event *queue;
    uint32_t queue_count, queue_capacity;
    sim_session *sessions; /* by number of the worker - 1 */
    uint32_t session_count, session_capacity;
    sim_slot *slots; /* by number; 0 is unused */
    uint64_t slot_count, slot_capacity, slot_free;
    uint64_t next_request, next_job;
    struct recovery_keys *keys;
    sim_resident resident[SIM_IDS_MAX + 1];
    sim_save *saves;
    uint32_t save_count, save_capacity;
    bool saver_busy;
} sim_host;

void sim_host_start(sim *s);
/* kill -9, or the loss of power. */
void sim_host_die(sim *s, bool power);
/* It dies within so long, if a fault wants it so at this point. */
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
void sim_recomputed(sim *s, const sim_message *m); /* SIM_JUDGED */
uint64_t sim_host_now(const sim *s);           /* the coordinator's own clock */
void sim_saver_submit(sim *s, const coord_action *action);
void sim_saver_wake(sim *s);
void sim_saver_flushed(sim *s, bool failed);
void sim_saver_run(sim *s, bool behind); /* SIM_SAVE; behind: the store could not be written */
void sim_saved(sim *s, const coord_event *event); /* SIM_SAVED */
void sim_saver_finish(sim *s);
/* The newest checkpoint of a job on the disk. */
cop_err sim_read(sim *s, uint64_t job, uint64_t max_step, sim_resident *out, cop_checkpoint *c);
bool sim_has_model(sim *s, uint64_t job);
void sim_load(sim *s, uint64_t job); /* SIM_LOADED */
void sim_client_call(sim *s, sim_message *m);
void sim_client_task(sim *s, sim_message *m);
void sim_key_of(uint64_t key, unsigned char out[16]);

/* ---- workers (worker.c), clients (client.c), the network between (network.c) ---- */

typedef struct sim_link {
    uint64_t connection;
    uint32_t host_life; /* the life of the coordinator that it is connected to; 0: not connected */
    uint32_t call;      /* number of the call under way; its answer must carry it */
    bool calling, sent; /* sent: the request is on its way or was received */
    sim_message request;
} sim_link;

/* A worker's process, or a client's. */
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
    uint64_t lease_now, canceled; /* what is computed; what nobody wants any more */
    uint64_t have_job, have_version, weights;
    sim_lease lease;
    bool has_result, mangled; /* to be sent with the next PULL */
    coord_result_info result;
    sim_gradient gradient;
    uint32_t nan_results, nan_gradients, failed_results, mangled_results; /* armed by faults */
    uint32_t lies, nans, results, mangles; /* so far, in all its lives */
} sim_worker;

typedef struct sim_client {
    sim_party party;
    bool acknowledged;
    uint64_t job;
    coord_event_type wishes[64]; /* controls that are still to be asked for, in order */
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
/* The answer that a party waits for? Ends the call. */
bool sim_call_ends(sim *s, const sim_event *event);
void sim_cut(sim *s, uint32_t peer, sim_link_kind link, bool noticed);
void sim_host_gone(sim *s); /* its connections are lost */

/* ---- faults (faults.c) ---- */

#define SIM_FAULT_TABLE(X)                                                                         \
    X(KILL, "kill -9 of a worker")                                                                 \
    X(FREEZE, "a worker stands still")                                                             \
    X(SLOW, "a worker is slow")                                                                    \
    X(CUT, "a worker's connections break")                                                         \
    X(DRAIN, "a worker is asked to leave")                                                         \
    X(LOSS, "messages are lost")                                                                   \
    X(DUPLICATE, "requests arrive twice")                                                          \
    X(DELAY, "messages take long, some very long")                                                 \
    X(PARTITION_TO, "nothing reaches the coordinator")                                             \
    X(PARTITION_FROM, "nothing comes from the coordinator")                                        \
    X(CRASH, "kill -9 of the coordinator")                                                         \
    X(POWER, "the coordinator's machine loses power")                                              \
    X(CRASH_SAVE, "the coordinator dies in the middle of a checkpoint")                            \
    X(CRASH_COMMIT, "the coordinator dies just after a commit that somebody waits for")            \
    X(STOP, "graceful stop of the coordinator")                                                    \
    X(STALL, "the coordinator's loop stands still")                                                \
    X(CLOCK, "the coordinator's clock jumps ahead")                                                \
    X(DISK_FULL, "the disk is full")                                                               \
    X(DISK_ERRORS, "system calls fail or do half of it")                                           \
    X(DISK_SLOW, "syncing takes seconds")                                                          \
    X(LIE, "a worker computes wrong on purpose")                                                   \
    X(NAN_RESULT, "a worker's loss is not finite")                                                 \
    X(NAN_GRADIENT, "a worker's gradient is not finite")                                           \
    X(CANNOT, "a worker cannot compute a lease")                                                   \
    X(MANGLED, "a worker's result names another lease, job, step, block or attempt")               \
    X(CLAIM, "a worker claims to have computed for centuries")                                     \
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
    uint32_t target, amount; /* target: worker, job; SIM_NOBODY: all */
    uint32_t number;         /* in the seed's whole schedule */
} sim_fault;

/* Is a fault of this kind on at `when`, for this target? Its amount, else 0. */
uint32_t sim_fault_on(const sim *s, sim_fault_kind kind, uint32_t target, uint64_t when);
uint64_t sim_fault_ends(const sim *s, sim_fault_kind kind, uint32_t target);
void sim_fault_do(sim *s, const sim_fault *fault);
void sim_fault_print(const sim_fault *fault, char *out, size_t size);

/* ---- one run ---- */

typedef struct sim_options {
    uint64_t seed;
    bool no_faults, trace;
    const uint32_t *only; /* numbers of the faults that take place; NULL: all */
    uint32_t only_count;
    uint32_t workers, jobs, shards; /* 0: as the seed says */
    uint32_t plant;                 /* the bug that is planted, for the replay's command */
} sim_options;

typedef struct sim_result {
    bool failed;
    char invariant[32], text[400];
    uint64_t hash, events, decisions, agent_decisions, virtual_ns;
    uint64_t leases, repeated, steps, completed, workers;
    uint32_t faults;
    uint64_t core_bytes; /* most that the core had allocated */
} sim_result;

struct sim {
    sim_options options;
    sim_result *result;
    uint64_t now, order, hash, quiet_ns; /* quiet: no fault begins after it */
    sim_queue queue;
    uint64_t next_connection;
    uint32_t worker_count, client_count, spec_count, fault_count;
    sim_worker *workers;
    sim_client *clients;
    sim_spec specs[SIM_JOBS_MAX];
    sim_job jobs[SIM_IDS_MAX + 1];
    sim_fault *faults;
    bool lasting[SIM_FAULT_KINDS];
    uint32_t nan_faults, cannot_faults, mangled_faults, lies; /* so many results were spoilt */
    uint32_t huge_lies; /* of the lies: finite, and the sum or what follows is not */
    bool liars, nans, mixed; /* some worker may lie; they have not all the same fingerprint */
    sim_host host;
    sim_disk *disk;
    sim_store store;
    sim_stream dice; /* of the coordinator's host */
    coord_core_config core_config;
    jmp_buf *stop;
    struct sim_lines *lines; /* the last of the trace; or NULL */
};

/* What the seed stands for: workers, jobs, faults. */
void sim_setup(sim *s);
void sim_setup_faults(sim *s);
/* The whole of a seed. */
void sim_run(const sim_options *options, sim_result *result);
/* All faults that the seed has; returns how many. */
uint32_t sim_schedule(const sim_options *options, sim_fault *out, uint32_t capacity);
/* Leaves out faults, one group after another, as long as the run still breaks the same invariant.
 * Fills `only`; returns how many are left. */
uint32_t sim_shrink(const sim_options *options, const char *invariant, uint32_t *only,
                    uint32_t count);

/* ---- invariants (check.c): each stops the run by name ---- */

_Noreturn void sim_fail(sim *s, const char *invariant, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define SIM_CHECK(s, invariant, condition, ...)                                                    \
    do {                                                                                           \
        if (!(condition)) sim_fail(s, invariant, __VA_ARGS__);                                     \
    } while (0)

void sim_check_action(sim *s, const coord_action *action); /* before it is carried out */
void sim_check_update(sim *s, const coord_action *action, const sim_resident *resident);
void sim_check_before(sim *s, const coord_event *event); /* the core takes it */
void sim_check_after(sim *s, const coord_event *event);
/* check_deadlines.c: a lease is given; the session's lease has ended; a result of it was kept. */
void sim_check_deadline(sim *s, sim_session *session, const coord_action *action);
void sim_timing_ended(sim *s, sim_session *session);
void sim_timing_kept(sim_session *session, uint64_t job);
/* Has the coordinator listened for a heartbeat without standing still? */
bool sim_has_listened(const sim *s);
void sim_check_answered(sim *s, uint64_t slot);
/* Is this a good result of a lease that is out, of shards that nobody has done yet? Then it must be
 * kept. */
bool sim_is_wanted(const sim *s, const sim_message *pull);
void sim_check_kept(sim *s, const sim_message *pull);
void sim_check_slots(sim *s, uint64_t job);
void sim_note_applied(sim *s, const coord_action *action);
/* May this job's weights be checked? Not where lies were averaged that nothing promises to find. */
bool sim_is_trusted(const sim *s, uint64_t job);
/* The job goes on: from no lie of somebody in quarantine. (An update that was under way when a liar
 * was found comes to its end, and is thrown away.) */
void sim_check_lies(sim *s, uint64_t job);
void sim_check_version(sim *s, uint64_t job, const sim_resident *resident);
void sim_check_saved(sim *s, uint64_t job, uint64_t step);
/* The job goes back: what was saved after this step is being removed, and need not be there. */
void sim_check_discarded(sim *s, uint64_t job, uint64_t step);
void sim_check_loaded(sim *s, uint64_t job, sim_resident *resident, const cop_checkpoint *c);
void sim_check_acknowledged(sim *s, uint32_t client, uint64_t job);
void sim_check_asked(sim *s, uint64_t job, coord_event_type wish);
void sim_check_granted(sim *s, uint64_t job, coord_event_type wish);
void sim_check_died(sim *s);
void sim_check_end(sim *s);
bool sim_all_done(const sim *s);
/* How long all jobs may take at most, each shard computed twice by the workers that must. */
uint64_t sim_longest(const sim *s);
/* What is left to do can be done by nobody: those who could said once what is not finite, of a job
 * that really diverges, or sent wrong results again and again, and so are in quarantine (only who
 * lies is kept from being all of them). */
bool sim_nobody_is_left(const sim *s);

/* ---- trace.c ---- */
void sim_trace_event(sim *s, const sim_event *event);
void sim_trace_action(sim *s, const coord_action *action);
void sim_trace(sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_note_hash(sim *s, uint64_t value);

/* ---- memo.c: this message's text is made and read once for all (permanent memory) ---- */
void sim_memo_set(const ProtobufCMessage *message);

/* ---- memory.c: alloc.h, for one run ---- */
void sim_memory_reset(void); /* frees all that was allocated since the last permanent allocation */
void sim_memory_permanent(bool permanent);
void sim_memory_count(bool on); /* what is allocated now counts as the core's */
uint64_t sim_memory_peak(void);
/* A broken invariant of our own code (COP_ASSERT) stops the run that `s` is. */
void sim_panics_stop(sim *s);

#endif
