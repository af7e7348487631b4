/* coord_server, which only this folder sees: the engine, the API, the sessions of workers and what
 * holds them together. Everything here runs on the loop thread unless a comment says otherwise.
 * Files: server.c (start, stop, the loop's thread), sessions.c (messages of workers), actions.c
 * (what the core wants), embedded_run.c (the embedding of `coppice run`). */
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

/* What is shown of a job to watchers: see embedded_run.c and api.c. */
struct coord_run;

struct coord_server {
    coord_engine engine; /* its owner is the server */
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
void coord_on_request(void *context, cop_request *request);
void coord_on_gone(void *context, uint64_t connection);

/* ---- actions.c ---- */
void coord_carry_out(coord_engine *engine, const coord_action *action);

/* ---- embedded_run.c ---- */
void coord_run_destroy(struct coord_run *run);
void coord_run_tick(coord_server *server);
#endif
