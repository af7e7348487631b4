/* coord_server, private to this folder: the engine, the API, the sessions of workers, and their
 * connections. Loop thread unless a comment says otherwise. Files: server.c (start, stop, the loop
 * thread), state_folder.c (its files), sessions.c (requests of workers), actions.c (actions of the
 * core), embedded_run.c (the embedding of `coppice run`). */
#ifndef COP_COORDINATOR_SERVER_H
#define COP_COORDINATOR_SERVER_H

#include <uv.h>

#include "coordinator/api/access.h"
#include "coordinator/api/service.h"
#include "coordinator/coordinator.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/engine/digest.h"
#include "coordinator/engine/models.h"
#include "coordinator/engine/recompute.h"
#include "coordinator/engine/saver.h"

struct coord_run; /* embedded_run.c */

struct coord_server {
    coord_engine engine; /* engine.owner is the server */
    coord_config config;
    char *data_folder;
    coord_access access;
    uv_thread_t thread;
    uv_timer_t tick;
    bool handles_open;
    cop_server *transport;
    coord_api *api;               /* NULL: none, an embedded run */
    struct coord_run *run;        /* loop thread; NULL until the job was added */
    struct coord_run *run_shared; /* set by coord_run_submit, for its caller */
    uint64_t next_worker;
    int lock_file;
    uv_sem_t ready;
    cop_error start_error;
};

static inline coord_server *coord_server_of(const coord_engine *engine) {
    return engine->owner;
}

/* ---- sessions.c ---- */
/* The transport's handlers; `context` is the server. */
void coord_on_request(void *context, cop_request *request);
void coord_on_gone(void *context, uint64_t connection);
/* Frees the place of a session and drops its requests. The core knows that the worker has gone, or
 * learns it from the caller. */
void coord_close_session(coord_server *server, coord_session *session);
/* Sets a session's request (held, digesting) to 0 and returns what it was. */
uint64_t coord_take_request(uint64_t *request);

/* ---- actions.c ---- */
void coord_carry_out(coord_engine *engine, const coord_action *action);

/* ---- state_folder.c ---- */
/* Opens the state folder, which must be set: its lock, token, store and data sets. IN_USE: another
 * coordinator has the lock. */
cop_err coord_open_state(coord_server *server, cop_error *error);

/* ---- embedded_run.c ---- */
/* After the loop thread has ended. */
void coord_run_destroy(struct coord_run *run);
/* Regularly: updates the progress, and fails the job if no worker comes in time. */
void coord_run_tick(coord_server *server);

#endif
