/* The engine: the state that tensors, threads and the event queue share, without sockets, sessions
 * or clients. The server owns it; the API works with it. Loop thread unless a comment says
 * otherwise. Files: loop.c (mailbox, and the one place where events meet the core), results.c
 * (tensors that came in), resident.c (jobs under way), evaluation.c, models.c, saver.c,
 * recompute.c, pool.c. */
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

/* A result that came in: the core knows it by slot number. */
typedef struct coord_slot {
    cop_buffer *gradient; /* held: a gradient, or the outputs of an ensemble's members; or NULL */
    bool used;
} coord_slot;

/* An evaluation of finished weights: see evaluation.h. */
typedef struct coord_evaluation coord_evaluation;

/* An event that waits, with a text of its own. */
typedef struct coord_waiting {
    coord_event event; /* its text: not NULL if it has one */
    char text[256];    /* as much as the core takes */
} coord_waiting;

struct coord_engine {
    void *owner;
    void (*carry_out)(coord_engine *engine, const coord_action *action);
    const coord_listener *listener; /* NULL: nobody listens */
    void *listener_state;           /* the listener's own */
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
    coord_pool *pool;
    coord_store *store;
    struct coord_saver *saver;
    struct coord_datasets *datasets;
    coord_slot *slots; /* COORD_SLOTS_MAX; slot numbers start at 1 */
    uint32_t slot_hint;
    coord_resident resident[COORD_RESIDENT_MAX];
    coord_evaluation *evaluations[COP_EVALUATION_PLACES];
    /* events raised while actions are carried out wait here */
    coord_waiting *queue;
    uint32_t queue_count, queue_capacity;
    bool dispatching, starved;                    /* starved: events wait for memory */
    unsigned char digest_secret[COP_XXH3_SECRET]; /* made at start */
    uint32_t recomputing;                         /* blocks that are being computed here */
};

/* ---- loop.c ---- */
/* The loop and its mailbox; then nothing else is there yet. */
void coord_engine_init(coord_engine *engine);
/* Places for results and events. */
cop_err coord_engine_reserve(coord_engine *engine, cop_error *error);
/* Reads what was posted. At the end, when no other thread posts any more. */
void coord_engine_read_mail(coord_engine *engine);
/* Frees what the engine holds; the loop's handles are closed. */
void coord_engine_fini(coord_engine *engine);
/* Hand a piece of work to the loop thread. Any thread. */
void coord_post(coord_engine *engine, coord_mail *mail);
/* Feed the core and carry out what it wants. The event's text is copied: it is the caller's.
 * Re-entrant: an event raised by an action is taken after the others. Where the core has no memory
 * for it, it waits, with those that come after it, for a later one (a tick at the latest). False:
 * no memory even to wait. An event that comes only once (of the coordinator's own parts) has places
 * that events of peers do not take. */
bool coord_dispatch(coord_engine *engine, const coord_event *event);
/* Tells the listener, if there is one. */
void coord_engine_changed(coord_engine *engine, uint64_t job);
void coord_engine_note(coord_engine *engine, const coord_action *action, const char *digest,
                       const char *warning);

/* ---- results.c ---- */
/* A slot for a gradient (held; NULL: none); 0 when all are taken. */
uint64_t coord_take_slot(coord_engine *engine, cop_buffer *gradient);

/* Slot 0: nothing. */
void coord_release_slot(coord_engine *engine, uint64_t slot);

#endif
