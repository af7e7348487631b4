/* The inside of the coordinator's host: what turns messages into events of the core and the core's
 * actions into deeds. Everything here runs on the loop thread unless a comment says otherwise.
 * Files: host.c (start, stop, the loop, the mailbox), sessions.c (what workers say), access.c
 * (who may), actions.c (what the core wants), resident.c (tensors of the jobs under way),
 * evaluation.c (those of finished jobs that are evaluated), models.c (weights of jobs that are not
 * under way), saver.c (checkpoints, on its own
 * thread), api*.c (what clients ask), datasets.c (data
 * sets by content), run.c (the embedding of `coppice run`). */
#ifndef COP_COORDINATOR_HOST_H
#define COP_COORDINATOR_HOST_H

#include <stdatomic.h>
#include <uv.h>

#include "common/base/hash.h"
#include "coordinator/coordinator.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/evaluation.h"
#include "coordinator/engine/judge.h"
#include "coordinator/engine/models.h"
#include "coordinator/engine/saver.h"

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

/* What is shown of a job to watchers: see run.c and api.c. */
struct coord_run;

struct coord_server {
    coord_engine engine; /* its owner is the server */
    coord_config config;
    char *data_folder;
    char token[65];
    uv_thread_t thread;
    uv_timer_t tick;
    bool handles_open;
    cop_server *transport;
    struct coord_api *api;
    struct coord_run *run;        /* loop thread; NULL until the job was added */
    struct coord_run *run_shared; /* set by coord_run_submit, for its caller */
    coord_session *sessions;      /* COP_WORKERS_MAX */
    uint64_t next_worker;
    uint64_t started_ns;
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
coord_session *coord_session_find(coord_server *server, uint64_t worker);
void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- actions.c ---- */
void coord_carry_out(coord_engine *engine, const coord_action *action);

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
/* Take up unfinished jobs of the store at start. */
cop_err coord_api_recover(coord_server *server, cop_error *error);
extern const coord_listener coord_api_listener;

/* ---- run.c ---- */
void coord_run_destroy(struct coord_run *run);
void coord_run_tick(coord_server *server);
/* What the core needs to know of a job. */
void coord_job_info_make(const cop_job *job, uint64_t id, coord_job_state state,
                         coord_job_info *out);

#endif
