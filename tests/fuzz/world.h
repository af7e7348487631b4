/* A coordinator for the fuzz targets of requests. It is the real one, with its threads and a state
 * folder. But all requests come from one peer, and each is handled completely before the next one
 * arrives. When the peer has disconnected, none of its requests may be waiting any more. */
#ifndef TESTS_FUZZ_WORLD_H
#define TESTS_FUZZ_WORLD_H

#include "common/base/log.h"
#include "common/net/internal.h"
#include "coordinator/api/api.h"
#include "coordinator/server/server.h"
#include "fuzz/folder.h"
#include "fuzz/wire.h"

#define FUZZ_CONNECTION (NET_MEMORY_CONNECTIONS + 4711)
#define FUZZ_TALK_MOST  12 /* messages per conversation, fewer than the 16 that may be open */

/* A worker that the peer plays: what the coordinator has told it. */
typedef struct fuzz_self {
    uint64_t worker, session;
    cop_lease lease;
} fuzz_self;

typedef struct fuzz_world {
    coord_server *server;
    char state[128], data[128];
    uv_sem_t done;
    /* The loop uses these fields while the target's thread waits for it. */
    coord_mail mail;
    cop_message *message; /* the message to deliver; or NULL */
    bool leaving;         /* the peer must disconnect */
    bool left;            /* the peer has disconnected */
    uint32_t open;        /* number of requests without an answer */
    bool changed;         /* something may stay changed after the peer has disconnected */
    bool disputed;        /* results of job 1 differed, so a worker may be in quarantine */
    fuzz_self self[2];    /* the two workers that were welcomed last */
    int newest;           /* index in `self` of the worker that was welcomed last */
    size_t weights_size;
} fuzz_world;

typedef struct fuzz_request {
    cop_request request; /* the first field, because its address is that of the fuzz_request */
    fuzz_world *world;
} fuzz_request;

static void fuzz_drop(cop_request *request) {
    ((fuzz_request *)request)->world->open--;
    cop_message_fini(&request->message);
    cop_free(request);
}

static void fuzz_reply(cop_request *request, cop_message *message) {
    fuzz_world *w = ((fuzz_request *)request)->world;
    fuzz_check_message(message);
    if (message->type == COP_MESSAGE_WELCOME && message->welcome.worker &&
        !request->message.hello.control) {
        w->newest = !w->newest;
        w->self[w->newest] =
            (fuzz_self){.worker = message->welcome.worker, .session = message->welcome.session};
    } else if (message->type == COP_MESSAGE_LEASE) {
        for (int i = 0; i < 2; i++)
            if (w->self[i].worker == request->message.pull.worker)
                w->self[i].lease = message->lease;
        const cop_buffer *weights = message->part[COP_PART_WEIGHTS];
        if (weights) w->weights_size = weights->size;
    } else if (message->type == COP_MESSAGE_ANSWER) {
        const uint32_t method = message->answer.method;
        w->changed = w->changed || w->server->api->count ||
                     method == COPPICE__API__METHOD__OFFER_DATA ||
                     method == COPPICE__API__METHOD__PUT_CHUNK ||
                     method == COPPICE__API__METHOD__COMMIT_DATA;
    }
    cop_message_fini(message);
    fuzz_drop(request);
}

static const net_transport fuzz_transport = {fuzz_reply, fuzz_drop};

static bool fuzz_busy(const fuzz_world *w) {
    const coord_server *server = w->server;
    bool busy = server->api->tasks || server->engine.recomputing || (w->left && w->open);
    for (uint32_t i = 0; i < COP_WORKERS_MAX && !busy; i++)
        busy = server->access.sessions[i].digesting;
    for (uint32_t i = 0; i < COORD_RESIDENT_MAX && !busy; i++)
        busy = server->engine.resident[i].update_running;
    return busy;
}

/* Runs on the loop. Delivers the message or disconnects the peer, then posts itself again until
 * nothing is running any more. */
static void fuzz_on_loop(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    fuzz_world *w = (fuzz_world *)(void *)((char *)mail - offsetof(fuzz_world, mail));
    if (w->message) {
        fuzz_request *r = cop_alloc(sizeof *r);
        FUZZ_CHECK(r);
        r->world = w;
        r->request = (cop_request){.transport = &fuzz_transport,
                                   .server = server->transport,
                                   .connection = FUZZ_CONNECTION,
                                   .message = *w->message,
                                   .address = "memory"};
        w->message = NULL;
        w->open++;
        coord_on_request(server, &r->request);
    }
    if (w->leaving) coord_on_gone(server, FUZZ_CONNECTION);
    w->left = w->left || w->leaving;
    w->leaving = false;
    coord_job_view view;
    w->disputed = coord_core_job(server->engine.core, 1, 0, &view) && view.leases.disputed;
    if (fuzz_busy(w))
        coord_post(&server->engine, mail);
    else
        uv_sem_post(&w->done);
}

static void fuzz_run_loop(fuzz_world *w) {
    w->mail.run = fuzz_on_loop;
    coord_post(&w->server->engine, &w->mail);
    uv_sem_wait(&w->done);
}

/* Delivers a message from the peer, and waits until it is handled. Owns what the message contains.
 */
static inline void fuzz_deliver(fuzz_world *w, cop_message *message) {
    w->left = false;
    w->message = message;
    fuzz_run_loop(w);
}

static inline void fuzz_leave(fuzz_world *w) {
    w->leaving = true;
    fuzz_run_loop(w);
    FUZZ_CHECK(w->open == 0);
    memset(w->self, 0, sizeof w->self);
}

static inline void fuzz_call(fuzz_world *w, uint32_t method, fuzz_bytes body,
                             const fuzz_bytes *bulk) {
    const fuzz_bytes *pieces[2] = {&body, bulk};
    cop_message m = {.type = COP_MESSAGE_CALL};
    m.call = (cop_call){
        .method = method, .major = COP_PROTOCOL_MAJOR, .minor = COP_PROTOCOL_MINOR, .token = ""};
    snprintf(m.call.token, sizeof m.call.token, "%s", coord_token(w->server));
    for (int i = 0; i < 2 && pieces[i]; i++) {
        m.part[i] = cop_buffer_create(pieces[i]->size);
        FUZZ_CHECK(m.part[i]);
        if (pieces[i]->size) memcpy(m.part[i]->data, pieces[i]->at, pieces[i]->size);
    }
    fuzz_deliver(w, &m);
}

/* Starts a coordinator with an empty state folder. It offers the data set "tiny.pack". */
static inline void fuzz_world_start(fuzz_world *w) {
    coord_config config = {.state = w->state, .data_folder = w->data, .update_threads = 1};
    cop_error error = {0};
    if (!w->data[0]) {
        cop_data *data = fuzz_data();
        setenv("UV_THREADPOOL_SIZE", "1", 0);
        cop_log_configure(COP_LOG_NONE, false);
        uv_sem_init(&w->done, 0);
        fuzz_folder(w->data);
        fuzz_write(w->data, "tiny.pack", data->pack->data, data->pack->size);
        cop_data_destroy(data);
    }
    fuzz_folder(w->state);
    FUZZ_CHECK(!cop_kernels_choose(&config.kernels, &error));
    FUZZ_CHECK(!coord_start(&config, &w->server, &error));
    w->changed = false;
}

static inline void fuzz_world_stop(fuzz_world *w) {
    if (!w->server) return;
    coord_stop(w->server);
    w->server = NULL;
    FUZZ_CHECK(!cop_folder_remove(w->state, NULL));
}

#endif
