/* The engine: the state shared by tensors, threads and the event queue, without sockets, sessions
 * or clients. The server owns it; the API works with it. All functions run on the loop thread
 * unless a comment says otherwise. README.md lists the files. */
#ifndef COP_COORDINATOR_ENGINE_H
#define COP_COORDINATOR_ENGINE_H

#include <uv.h>

#include "common/base/hash.h"
#include "common/nn/model.h"
#include "coordinator/engine/listener.h"
#include "coordinator/engine/loop_latency.h"
#include "coordinator/engine/resident.h"
#include "coordinator/store/store.h"

#define COORD_SLOTS_MAX (8 * COP_SHARDS_MAX)

/* The place of a result that arrived. The core knows the result by the number of its slot. */
typedef struct coord_slot {
    cop_buffer *gradient; /* a gradient, or the outputs of an ensemble's members; the slot holds one
                             reference; NULL: the result has no tensor */
    bool used;
} coord_slot;

/* An evaluation of finished weights: see evaluation.h. */
typedef struct coord_evaluation coord_evaluation;

/* An event in the queue, with a copy of its text. */
typedef struct coord_waiting {
    coord_event event; /* event.text is NULL if the event has no text, which `text` has otherwise */
    char text[256];    /* the event's text, truncated to 255 bytes; the core uses no more of it */
} coord_waiting;

struct coord_engine {
    void *owner; /* an argument for carry_out, which only its owner interprets */
    void (*carry_out)(coord_engine *engine, const coord_action *action);
    const coord_listener *listener; /* NULL: nobody listens */
    void *listener_state;           /* the listener's own state */
    const cop_kernels *kernels;
    char *state_folder; /* NULL: nothing is stored */
    bool share_memory;  /* workers on this host can map the weights of training jobs */
    uv_loop_t loop;
    uv_async_t wake; /* wakes the loop thread when mail was posted */
    coord_loop_latency latency;
    uv_mutex_t mail_mutex;             /* protects mail_head and mail_tail */
    coord_mail *mail_head, *mail_tail; /* a list, the oldest mail first */
    coord_mail *deferred;              /* mail that runs after the actions of the current event */
    bool stopping;
    coord_core *core;
    coord_actions actions; /* the actions that the newest event caused */
    /* Lanes of a profile; NULL: no profile is made. `updates` records whole updates.
     * update_lanes[i] records the parts of updates that compute thread i + 1 runs. */
    cop_lane *updates, *update_lanes[COP_WORKER_THREADS_MAX];
    cop_thread_pool *pool; /* the compute threads: averages, updates, sums of ensembles */
    coord_store *store;
    cop_thread_pool *saver; /* one thread, which writes checkpoints */
    struct coord_datasets *datasets;
    coord_slot *slots;  /* (COORD_SLOTS_MAX); slots[i] has the number i + 1 */
    uint32_t slot_hint; /* index where the search for a free slot begins */
    coord_resident resident[COORD_RESIDENT_MAX];
    coord_evaluation *evaluations[COP_EVALUATION_PLACES]; /* NULL: a free place */
    coord_waiting *queue; /* events that the core has not taken yet, the oldest first */
    uint32_t queue_count;
    uint32_t queue_capacity;
    bool dispatching; /* coord_dispatch is running */
    bool starved;     /* events wait in the queue because the core lacked memory */
    unsigned char digest_secret[COP_XXH3_SECRET]; /* random, new at each start */
    uint32_t recomputing; /* number of blocks that the coordinator itself is computing */
};

/* ---- loop.c ---- */
/* Creates the loop and its mailbox, nothing else. `engine` must be zeroed. */
void coord_engine_init(coord_engine *engine);
/* Allocates the slots of results and the queue of events. Errors: NO_MEMORY */
cop_err coord_engine_reserve(coord_engine *engine, cop_error *error);
/* Runs all mail that was posted so far. The loop thread calls it when it was woken, and once more
 * at the end, when no other thread posts any more. */
void coord_engine_read_mail(coord_engine *engine);
/* Frees the loop, the mailbox, jobs, evaluations, slots and the queue. The loop's handles must be
 * closed. The core, the store and the thread pools belong to the server. */
void coord_engine_fini(coord_engine *engine);
/* Arranges that mail->run is called on the loop thread, after all mail that was posted earlier. The
 * mail's memory belongs to the caller, and must stay valid until `run` is called. Any thread. */
void coord_post(coord_engine *engine, coord_mail *mail);
/* Arranges that mail->run is called on this thread as soon as all actions of the current event have
 * been carried out. May be called only while an action is being carried out. The mail's memory is
 * as in coord_post. */
void coord_defer(coord_engine *engine, coord_mail *mail);
/* Queues a copy of the event and its text, passes the queued events to the core in order, and
 * carries out the actions that follow. An action may call this function again. The inner call only
 * queues its event, and the outer call passes it to the core later.
 *
 * If the core has no memory for an event, that event and those behind it stay queued until the next
 * call (a tick at the latest). Exceptions: ticks, heartbeats, joins and new evaluations or
 * ensembles are dropped, and the result is still true. It is also true if the core refuses the
 * event for another reason, which is logged. False: there was no memory even to queue the event,
 * and it is lost.
 *
 * Some places in the queue are reserved for events that nobody sends again. Ticks and the events
 * that workers repeat (heartbeats, joins, pulls, results) cannot take these places. */
bool coord_dispatch(coord_engine *engine, const coord_event *event);
/* These two notify the listener, if there is one: see `changed` and `note` in listener.h. */
void coord_engine_changed(coord_engine *engine, uint64_t job);
void coord_engine_note(coord_engine *engine, const coord_action *action, const char *digest,
                       const char *warning);

/* ---- results.c ---- */
/* Takes a free slot for a result and returns its number; 0: all slots are taken. The slot holds a
 * reference of its own to `gradient`; NULL: the result has no tensor. */
uint64_t coord_take_slot(coord_engine *engine, cop_buffer *gradient);

/* Releases the slot's reference and makes the slot free. Slot 0: does nothing. */
void coord_release_slot(coord_engine *engine, uint64_t slot);

#endif
