/* The inside of the coordinator's host: what turns messages into events of the core and the core's
 * actions into deeds. Everything here runs on the loop thread unless a comment says otherwise.
 * Files: host.c (start, stop, the loop, the mailbox), sessions.c (what workers say), access.c
 * (who may), actions.c (what the core wants), resident.c (tensors of the jobs under way),
 * evaluation.c (those of finished jobs that are evaluated), models.c (weights of jobs that are not
 * under way), saver.c (checkpoints, on its own
 * thread), api*.c (what clients ask), stalls.c (how long the loop did not look), datasets.c (data
 * sets by content), run.c (the embedding of `coppice run`). */
#ifndef COP_COORDINATOR_HOST_H
#define COP_COORDINATOR_HOST_H

#include <stdatomic.h>
#include <uv.h>

#include "common/base/hash.h"
#include "coordinator/coordinator.h"
#include "coordinator/core/core.h"
#include "coordinator/engine/pool.h"
#include "coordinator/server/stalls.h"
#include "coordinator/store/store.h"

#define COORD_SLOTS_MAX    (8 * COP_SHARDS_MAX)
#define COORD_RESIDENT_MAX 16

/* Work for the loop thread, posted by any other. Storage is the poster's. */
typedef struct coord_mail coord_mail;
struct coord_mail {
    void (*run)(coord_server *server, coord_mail *mail);
    coord_mail *next;
};

/* A worker's session: born by HELLO, ended by WORKER_GONE. */
typedef struct coord_session {
    /* id (ascending; modulo COP_WORKERS_MAX its place in the table), and the number that binds the
     * control socket; worker 0: free */
    uint64_t worker, secret;
    uint64_t connection[2]; /* work, control; 0: none */
    uint64_t held;      /* the PULL under way (cop_request *), for answering at the end; 0: none */
    uint64_t digesting; /* a PULL whose gradient is being hashed (cop_request *); 0: none */
    bool drain;
    uint32_t threads;
    char name[COP_NAME_MAX], isa[16], address[64], build[64];
    char certificate[COP_NAME_MAX]; /* its CN; "": none */
} coord_session;

/* A result that came in: the core knows it by slot number. */
typedef struct coord_slot {
    cop_buffer *gradient; /* held: a gradient, or the outputs of an ensemble's members; or NULL */
    bool used;
} coord_slot;

/* One immutable version of a job's weights and optimizer state. Two per job: the update reads one
 * and writes the other. */
typedef struct coord_version {
    uint64_t step;
    cop_buffer *weights; /* published: leases hold it */
    cop_buffer *state[2];
} coord_version;

/* A job whose data and tensors are in memory. */
typedef struct coord_resident {
    uint64_t id;   /* 0: free */
    bool reserved; /* is being loaded: not free */
    cop_job *job;
    cop_data *data;
    cop_data_view view;
    cop_buffer *spec;       /* packed job */
    cop_buffer *lease_spec; /* what workers need of it, part[3] of leases */
    char *folder;           /* checkpoints and model go there; NULL: nowhere */
    int states;
    coord_version current;
    cop_buffer_pool *weight_pool, *rows_pool, *labels_pool;
    /* the step whose leases are given out now */
    uint64_t rows_step;
    uint32_t *rows, row_count; /* D1 */
    int32_t *slice_first;      /* shards + 1 offsets, D2 */
    /* the update under way */
    coord_task task;
    coord_mail task_mail;
    coord_server *server;
    cop_update update;
    coord_version next;
    const float **gradients;
    uint64_t *update_slots;
    uint32_t *update_first; /* first shards of its blocks */
    int16_t *tree_ops;
    cop_tree tree;
    uint32_t update_count;
    bool update_running, unload_wanted;
    atomic_int finite;
    uint64_t first_step_ns; /* when the first step was completed; 0: not yet */
    uint64_t loaded_ns;
} coord_resident;

/* An evaluation of finished weights: see evaluation.h. */
typedef struct coord_evaluation coord_evaluation;

/* What is shown of a job to watchers: see run.c and api.c. */
struct coord_run;

/* An event that waits, with a text of its own. */
typedef struct coord_waiting {
    coord_event event; /* its text: not NULL if it has one */
    char text[256];    /* as much as the core takes */
} coord_waiting;

struct coord_server {
    coord_config config;
    char *state_folder, *data_folder;
    char token[65];
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wake;
    uv_timer_t tick;
    coord_stalls stalls;
    uv_mutex_t mail_mutex;
    coord_mail *mail_head, *mail_tail;
    bool stopping, stopped, thread_started, handles_open;
    cop_server *transport;
    coord_core *core;
    coord_actions actions;
    coord_pool *pool;
    coord_store *store;
    struct coord_saver *saver;
    struct coord_datasets *datasets;
    struct coord_api *api;
    struct coord_run *run;        /* loop thread; NULL until the job was added */
    struct coord_run *run_shared; /* set by coord_run_submit, for its caller */
    coord_session *sessions;      /* COP_WORKERS_MAX */
    uint64_t next_worker;
    coord_slot *slots; /* COORD_SLOTS_MAX; slot numbers start at 1 */
    uint32_t slot_hint;
    coord_resident resident[COORD_RESIDENT_MAX];
    coord_evaluation *evaluations[COP_EVALUATION_PLACES];
    /* events raised while actions are carried out wait here */
    coord_waiting *queue;
    uint32_t queue_count, queue_capacity;
    bool dispatching, starved; /* starved: events wait for memory */
    uint64_t started_ns;
    unsigned char digest_secret[COP_XXH3_SECRET]; /* made at start */
    uint32_t judging;                             /* blocks that are being computed here */
    int lock_file;
    uv_sem_t ready;
    cop_error start_error;
};

/* ---- host.c ---- */
/* Hand a piece of work to the loop thread. Any thread. */
void coord_post(coord_server *server, coord_mail *mail);
/* Feed the core and carry out what it wants. The event's text is copied: it is the caller's.
 * Re-entrant: an event raised by an action is taken after the others. Where the core has no memory
 * for it, it waits, with those that come after it, for a later one (a tick at the latest). False:
 * no memory even to wait. An event that comes only once (of the coordinator's own parts) has places
 * that events of peers do not take. */
bool coord_dispatch(coord_server *server, const coord_event *event);

/* ---- sessions.c ---- */
void coord_on_request(void *context, cop_request *request);
void coord_on_gone(void *context, uint64_t connection);
coord_session *coord_session_find(coord_server *server, uint64_t worker);
void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A slot for a gradient (held; NULL: none); 0 when all are taken. */
uint64_t coord_take_slot(coord_server *server, cop_buffer *gradient);

/* Slot 0: nothing. */
void coord_release_slot(coord_server *server, uint64_t slot);

/* ---- judge.c ---- */
/* Hash of a gradient by this run's secret, never 0, all NaNs as one value; and is it finite? Any
 * thread. */
uint64_t coord_digest(const coord_server *server, const cop_buffer *gradient, bool *finite);
/* ACTION_COMPUTE. */
void coord_judge(coord_server *server, const coord_action *action);

/* ---- actions.c ---- */
void coord_carry_out(coord_server *server, const coord_action *action);

/* ---- resident.c ---- */
coord_resident *coord_resident_find(coord_server *server, uint64_t job);
/* Takes over job and data. Allocates everything that steps need, fills the weights (from the newest
 * checkpoint in `folder`, if `resume`, else initial). Slow: runs on libuv's thread pool. */
typedef struct coord_start_at {
    const char *folder; /* NULL: no checkpoints */
    bool resume;
    uint64_t most; /* newest step to resume from; those after it are removed. UINT64_MAX: any */
} coord_start_at;
cop_err coord_resident_prepare(coord_resident *resident, cop_job *job, cop_data *data,
                               const coord_start_at *at, cop_checkpoint *start, cop_str *notes,
                               cop_error *error);
/* ACTION_ROLLBACK: the weights of the newest checkpoint of at most `most` steps (or the initial
 * ones) instead of those that are there. Nobody leases meanwhile. Slow, as prepare. */
cop_err coord_resident_return(coord_resident *resident, uint64_t most, cop_checkpoint *start,
                              cop_str *notes, cop_error *error);
void coord_resident_fini(coord_resident *resident);
/* Fills the parts of a lease message (weights unless `have_weights`, rows, labels, spec unless
 * `have_spec`). NO_MEMORY possible. */
cop_err coord_resident_fill_lease(coord_resident *resident, const coord_action *action,
                                  bool have_weights, bool have_spec, cop_message *message);
/* Start averaging and updating on the compute threads; UPDATED or JOB_FAILED follows. */
void coord_resident_update(coord_server *server, coord_resident *resident,
                           const coord_action *action);
/* A sentence about a gradient that is not finite: step, shards, layer. */
void coord_resident_describe(const coord_resident *resident, const coord_action *action,
                             const cop_buffer *gradient, char *out, size_t size);

/* ---- evaluation.c ---- */
coord_evaluation *coord_evaluation_find(coord_server *server, uint64_t job);
/* Fills the parts of a lease message, and what it says of the member. NO_MEMORY possible. */
cop_err coord_evaluation_fill_lease(coord_evaluation *evaluation, const coord_action *action,
                                    const cop_pull *pull, cop_message *message);
/* How many members' outputs these are, by their size; false: they have a wrong size. */
bool coord_evaluation_members(const coord_evaluation *evaluation, const cop_result *result,
                              const cop_buffer *logits, uint32_t *members);
/* Adds the outputs of the action's slot to the tally on the compute threads; ABSORBED, or
 * JOB_FAILED if one is not finite, follows. */
void coord_evaluation_absorb(coord_server *server, const coord_action *action);
/* It has ended: figures stay for its client. */
void coord_evaluation_unload(coord_evaluation *evaluation);
void coord_evaluation_free(coord_evaluation *evaluation); /* NULL is fine */

/* ---- saver.c: checkpoints, models; its own thread ---- */
cop_err coord_saver_create(coord_server *server, struct coord_saver **out, cop_error *error);
/* Writes the current version of `resident` (holds what it needs); CHECKPOINTED follows. final: also
 * model.safetensors. */
void coord_saver_submit(struct coord_saver *saver, coord_resident *resident,
                        const coord_action *action);
void coord_saver_destroy(struct coord_saver *saver); /* finishes what was submitted */

/* ---- api.c ---- */
cop_err coord_api_create(coord_server *server, struct coord_api **out, cop_error *error);
void coord_api_destroy(struct coord_api *api);
/* At the end, on the loop: finishes tasks, answers held requests. */
void coord_api_release(coord_server *server);
void coord_api_on_call(coord_server *server, cop_request *request);
void coord_api_on_gone(coord_server *server, uint64_t connection);
/* Something about this job changed: watchers are answered (not more often than every 100 ms each).
 * job 0: workers or data changed. */
void coord_api_changed(coord_server *server, uint64_t job);
void coord_api_tick(coord_server *server, uint64_t now_ns);
/* Load a job that is not resident (ACTION_LOAD): job from the store, data from datasets, on libuv's
 * thread pool; then JOB_LOADED or JOB_FAILED. */
void coord_api_load(coord_server *server, uint64_t job, uint64_t most);
/* ACTION_ROLLBACK; answered likewise. */
void coord_api_return(coord_server *server, uint64_t job, uint64_t most);
/* Take up unfinished jobs of the store at start. */
cop_err coord_api_recover(coord_server *server, cop_error *error);
/* Metrics for watchers: what METRICS, EPOCH, EVALUATED, CHECKPOINTED said last, kept per job. */
void coord_api_note(coord_server *server, const coord_action *action, const char *digest,
                    const char *warning); /* digest and warning ("": none): of a checkpoint */
const char *coord_api_job_folder(coord_server *server, uint64_t job, char *out, size_t size);

/* ---- models.c: on the thread pool ---- */
/* The weights of a stored job: its final ones, or those of its newest checkpoint. */
typedef struct coord_model {
    cop_job *job; /* as the store has it, never as the folder says */
    float *flat;
    uint64_t step, fingerprint; /* of the OpenBLAS that the job is pinned to; 0: none */
    char digest[65];
} coord_model;
/* NOT_FOUND: no checkpoint yet. INPUT, CORRUPT: what the job's folder holds is not this job's. */
cop_err coord_model_open(coord_server *server, uint64_t job, coord_model *out, cop_error *error);
void coord_model_close(coord_model *model); /* what was taken out is NULL */

/* ---- run.c ---- */
void coord_run_destroy(struct coord_run *run);
bool coord_run_owns(const coord_server *server, uint64_t job);
void coord_run_load(coord_server *server);
void coord_run_return(coord_server *server, uint64_t most);
void coord_run_note(coord_server *server, const coord_action *action, const char *digest,
                    const char *text);
void coord_run_tick(coord_server *server);
/* What the core needs to know of a job. */
void coord_job_info_make(const cop_job *job, uint64_t id, coord_job_state state,
                         coord_job_info *out);

#endif
