/* The engine: the state shared by tensors, threads and the event queue, without sockets, sessions
 * or clients. The server owns it; the API works with it. Loop thread unless a comment says
 * otherwise. Files: loop.c (mailbox, and the only place where events meet the core), results.c
 * (tensors that arrived), resident.c (jobs in progress), evaluation.c, models.c, saver.c,
 * recompute.c. */
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

/* A result that arrived: the core knows it by slot number. */
typedef struct coord_slot {
    cop_buffer *gradient; /* held: a gradient, or the outputs of an ensemble's members; or NULL */
    bool used;
} coord_slot;

/* An evaluation of finished weights: see evaluation.h. */
typedef struct coord_evaluation coord_evaluation;

/* An event in the queue, with a copy of its text. */
typedef struct coord_waiting {
    coord_event event; /* its text: not NULL if it has one */
    char text[256];    /* the core uses no more than this */
} coord_waiting;

struct coord_engine {
    void *owner;
    void (*carry_out)(coord_engine *engine, const coord_action *action);
    const coord_listener *listener; /* NULL: none */
    void *listener_state;           /* the listener's own state */
    const cop_kernels *kernels;
    char *state_folder; /* NULL: none */
    uv_loop_t loop;
    uv_async_t wake;
    coord_loop_latency latency;
    uv_mutex_t mail_mutex;
    coord_mail *mail_head, *mail_tail;
    bool stopping;
    coord_core *core;
    coord_actions actions;
    cop_thread_pool *pool; /* average and update */
    coord_store *store;
    cop_thread_pool *saver; /* one thread for checkpoints */
    struct coord_datasets *datasets;
    coord_slot *slots; /* (COORD_SLOTS_MAX); slot numbers start at 1 */
    uint32_t slot_hint;
    coord_resident resident[COORD_RESIDENT_MAX];
    coord_evaluation *evaluations[COP_EVALUATION_PLACES];
    /* events that are raised while actions are carried out */
    coord_waiting *queue;
    uint32_t queue_count, queue_capacity;
    bool dispatching, starved;                    /* starved: events wait for memory */
    unsigned char digest_secret[COP_XXH3_SECRET]; /* random, new at each start */
    uint32_t recomputing;                         /* blocks that are being computed here */
};

/* ---- loop.c ---- */
/* Creates the loop and its mailbox, nothing else. */
void coord_engine_init(coord_engine *engine);
/* Allocates the slots of results and the queue of events. Errors: NO_MEMORY */
cop_err coord_engine_reserve(coord_engine *engine, cop_error *error);
/* Runs the posted mail. Also called at the end, when no other thread posts any more. */
void coord_engine_read_mail(coord_engine *engine);
/* Frees what the engine holds. The loop's handles must be closed. */
void coord_engine_fini(coord_engine *engine);
/* Runs the mail on the loop thread. The mail's memory is the caller's, and must stay valid until it
 * has run. Any thread. */
void coord_post(coord_engine *engine, coord_mail *mail);
/* Passes an event to the core and carries out the actions that follow. Copies the event's text.
 * Re-entrant: an event that an action raises is taken after the others. If the core has no memory
 * for an event, it waits, with those behind it, for a later call (a tick at the latest). False:
 * there was no memory even to queue it, and it is lost. Events that come only once (from the
 * coordinator's own parts) have places in the queue that events of peers cannot take. */
bool coord_dispatch(coord_engine *engine, const coord_event *event);
/* Notifies the listener, if there is one: see listener.h. */
void coord_engine_changed(coord_engine *engine, uint64_t job);
void coord_engine_note(coord_engine *engine, const coord_action *action, const char *digest,
                       const char *warning);

/* ---- results.c ---- */
/* Takes a slot for a gradient, of which it holds a reference (NULL: none). 0: all slots are taken.
 */
uint64_t coord_take_slot(coord_engine *engine, cop_buffer *gradient);

/* Releases a slot and its gradient; slot 0: does nothing. */
void coord_release_slot(coord_engine *engine, uint64_t slot);

#endif
