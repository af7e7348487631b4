/* The private structure of a coord_server: the engine, the API, the sessions of workers, and the
 * transport. All functions are for the loop thread, unless their comment says otherwise. Files:
 * server.c (start, stop, the loop thread), state_folder.c (files of the state folder), sessions.c
 * (requests of workers), share.c and lending_socket.c (memory shared with workers), actions.c
 * (actions of the core), embedded_run.c (the embedding of `coppice run`). */
#ifndef COP_COORDINATOR_SERVER_H
#define COP_COORDINATOR_SERVER_H

#include <uv.h>

#include "common/base/segment.h"
#include "coordinator/api/access.h"
#include "coordinator/api/http.h"
#include "coordinator/api/service.h"
#include "coordinator/coordinator.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/engine/digest.h"
#include "coordinator/engine/models.h"
#include "coordinator/engine/recompute.h"
#include "coordinator/engine/saver.h"

struct coord_run; /* embedded_run.c */

#define COORD_LENDING_CONNECTIONS_MAX 8 /* more connections wait */

typedef struct lending_connection {
    uv_pipe_t pipe;    /* must be first */
    uint64_t since_ns; /* time of the begin; 0: a free place */
    size_t received;   /* bytes of the request */
    cop_segment_request request;
} lending_connection;

/* Only used with --shm. */
typedef struct coord_lending_socket {
    uv_pipe_t pipe; /* listens */
    bool waiting;   /* a connection can be accepted */
    lending_connection connections[COORD_LENDING_CONNECTIONS_MAX];
} coord_lending_socket;

struct coord_server {
    coord_engine engine; /* engine.owner is the server */
    coord_config config; /* a copy; what its pointers refer to belongs to the caller */
    char *data_folder;   /* a copy of config.data_folder */
    coord_access access;
    uv_thread_t thread; /* the loop thread */
    uv_timer_t tick;    /* calls on_tick */
    bool handles_open;  /* `tick` was initialised */
    cop_server *transport;
    coord_lending_socket lending;
    cop_segment *proof;           /* whoever has its secret shares host and user; NULL: none */
    coord_http *http;             /* NULL: there is no HTTP server */
    coord_api *api;               /* NULL: the server has no state folder (an embedded run) */
    struct coord_run *run;        /* the embedded run, for the loop thread; NULL until the core
                                     has the job */
    struct coord_run *run_shared; /* the same run as `run`, for the thread that called
                                     coord_run_submit */
    uint64_t next_worker;         /* how many workers have joined so far */
    int lock_file;                /* descriptor of the state folder's lock; -1: not open */
    uv_sem_t ready;               /* posted when the loop thread is ready or could not start */
    cop_error start_error;        /* why the loop thread did not start; code COP_OK: it started */
};

static inline coord_server *coord_server_of(const coord_engine *engine) {
    return engine->owner;
}

/* ---- sessions.c ---- */
/* The handlers that the transport calls. `context` is the server. */
void coord_on_request(void *context, cop_request *request);
void coord_on_gone(void *context, uint64_t connection);
/* Frees the place of a session and drops its requests. Does not report to the core that the worker
 * has gone: the caller must do this, unless the core knows it already. */
void coord_close_session(coord_server *server, coord_session *session);
/* Sets *request, which is the field `held` or `digesting` of a session, to 0. Returns its old
 * value. */
uint64_t coord_take_request(uint64_t *request);

/* ---- share.c ---- */
/* Create and release the segment for the proof. If there is no shared memory, the first logs that.
 */
void coord_share_start(coord_server *server);
void coord_share_stop(coord_server *server);
/* Adds the segment to the answer to a HELLO, if the worker can use it. */
void coord_share_offer(const coord_server *server, const cop_hello *hello, cop_welcome *welcome);
/* Takes back the weights that the worker had, and checks the proof in its PULL. */
void coord_share_check(const coord_server *server, coord_session *session, const cop_pull *pull);
/* Replaces the weights in a lease by the name of their segment, and adds a room for the gradient.
 * `resident` is the job of the lease; NULL: it is not a training job. Has no effect on a worker
 * without proof, or where there is no segment. */
void coord_share_lend(coord_session *session, const coord_resident *resident, cop_message *lease);
/* True: the result's segment was already taken, because the worker repeats a PULL whose answer it
 * did not get. */
bool coord_share_is_repeated(const coord_session *session, const cop_result *result);
/* Returns the room that the result names, borrowed. NULL: it is not the session's room. */
cop_buffer *coord_share_result(const coord_session *session, const cop_result *result);
/* Notes that the core has the result, so the next lease gets another room. */
void coord_share_note_received(coord_session *session, const cop_result *result);
/* Releases everything of a session that ends. */
void coord_share_end(coord_session *session);

/* ---- lending_socket.c ---- */
/* Listens in config.share_folder, and removes the sockets of killed coordinators there. Has no
 * effect without a folder, or if no memory is shared. USAGE: no socket can be made there. The
 * coordinator's loop closes the socket with its other handles. */
cop_err coord_lending_socket_open(coord_server *server, cop_error *error);
/* To be called regularly: closes slow connections. */
void coord_lending_socket_tick(coord_lending_socket *lending, uint64_t now_ns);

/* ---- actions.c ---- */
/* Carries out an action of the core. */
void coord_carry_out(coord_engine *engine, const coord_action *action);

/* ---- state_folder.c ---- */
/* Locks the state folder, reads or creates its token, opens its store and data sets, and creates
 * the API. engine.state_folder must be set. IN_USE: another coordinator has the lock. */
cop_err coord_open_state(coord_server *server, cop_error *error);

/* ---- embedded_run.c ---- */
/* Frees the run. Call it when the loop thread has ended. */
void coord_run_destroy(struct coord_run *run);
/* To be called regularly: updates the progress, and fails the job if it has been without workers
 * for too long. */
void coord_run_tick(coord_server *server);

#endif
