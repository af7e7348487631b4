/* A scripted server on a separate loop thread, and links to it, over any transport. The method of a
 * CALL tells the server what to do. Shared by the tests of common/net. */
#ifndef COP_TESTS_NET_HARNESS_H
#define COP_TESTS_NET_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/net/net.h"

/* If a pipe is closed while it connects, nng frees it on another thread, sometimes only after the
 * program ends. Our own leaks are still found: their stacks begin elsewhere. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libnng.so";
}

enum {
    ASK_ECHO = 1,   /* ANSWER with the same parts */
    ASK_HOLD,       /* kept until ASK_RELEASE */
    ASK_RELEASE,    /* answers held requests, newest first, then this one */
    ASK_DISCONNECT, /* the server closes the asker's connection */
    ASK_FAIL,       /* FAILURE */
    ASK_DROP,       /* never answered */
    ASK_FILL,       /* ANSWER with a part whose size is given in part 0 */
    ASK_WHO         /* ANSWER with the asker's cop_peer */
};

#define HELD_MAX 64

typedef enum transport { MEMORY, IPC, TCP, TLS } transport;

/* Certificates of a test CA, made at their first use. */
static inline cop_tls *test_tls(cop_tls_side side) {
    static char folder[64];
    static const char *const hosts[] = {"127.0.0.1", "localhost", NULL};
    const cop_tls_issue issues[] = {{"coordinator", "coordinator", hosts, 2},
                                    {"worker", "desk-7", NULL, 2},
                                    {"client", "alice", NULL, 2}};
    cop_tls *tls = NULL;
    cop_error error = {0};
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/cop-tls-%d", P_tmpdir, getpid());
        COP_ASSERT(cop_folder_remove(folder, NULL) == COP_OK);
        COP_ASSERT(cop_tls_create_folder(folder, issues, 3, &error) == COP_OK);
    }
    const cop_tls_options options = {.folder = folder,
                                     .name = side == COP_TLS_CLIENT ? "localhost" : NULL};
    cop_err e = cop_tls_load(&options, side == COP_TLS_SERVER ? "coordinator" : "worker-desk-7",
                             side, &tls, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    COP_ASSERT(!e);
    return tls;
}

static inline void remove_test_tls(void) {
    char folder[64];
    snprintf(folder, sizeof folder, "%s/cop-tls-%d", P_tmpdir, getpid());
    cop_folder_remove(folder, NULL);
}

typedef struct host {
    transport kind;
    char url[128];
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    uv_sem_t ready;
    cop_server *server;
    cop_tls *tls, *peer_tls; /* TLS: of the server, and of links */
    bool started, hold_back; /* hold_back: answer held requests only after close */
    size_t hold_size;        /* bytes of the answer to a held request; 0: just its position */
    cop_error error;
    cop_request *held[HELD_MAX];
    int held_count;
    atomic_int gone, holding, orders; /* orders: answers so far by ASK_RELEASE */
    _Atomic uint64_t last_gone, last_connection;
} host;

static void answer(cop_request *request, cop_buffer *part) {
    cop_message reply = {.type = COP_MESSAGE_ANSWER};
    reply.answer.method = cop_request_message(request)->call.method;
    reply.part[0] = part;
    cop_server_reply(request, &reply);
}

static void answer_echo(cop_request *request) {
    const cop_message *m = cop_request_message(request);
    cop_message reply = {.type = COP_MESSAGE_ANSWER, .answer = {.method = m->call.method}};
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        if (m->part[i]) reply.part[i] = cop_buffer_hold(m->part[i]);
    cop_server_reply(request, &reply);
}

/* Answers held requests, newest first; part 0 is the position of the answer. */
static void release_held(host *h) {
    while (h->held_count) {
        cop_buffer *place = cop_buffer_create(h->hold_size ? h->hold_size : sizeof(int));
        memset(place->data, 0, place->size);
        int order = atomic_fetch_add(&h->orders, 1);
        memcpy(place->data, &order, sizeof order);
        answer(h->held[--h->held_count], place);
        atomic_fetch_sub(&h->holding, 1);
    }
}

static void answer_fill(cop_request *request) {
    uint32_t size = cop_load_u32(cop_request_message(request)->part[0]->data);
    cop_buffer *part = cop_buffer_create(size);
    memset(part->data, 7, size);
    answer(request, part);
}

static void answer_identity(cop_request *request) {
    cop_buffer *part = cop_buffer_create(sizeof(cop_peer));
    memcpy(part->data, cop_request_peer(request), sizeof(cop_peer));
    answer(request, part);
}

static void fail_request(cop_request *request) {
    cop_message reply = {.type = COP_MESSAGE_FAILURE, .failure = {.code = COP_ERR_NOT_FOUND}};
    snprintf(reply.failure.text, sizeof reply.failure.text, "there is no such job");
    cop_server_reply(request, &reply);
}

static void on_request(void *context, cop_request *request) {
    host *h = context;
    const cop_message *m = cop_request_message(request);
    atomic_store(&h->last_connection, cop_request_connection(request));
    switch (m->call.method) {
    case ASK_HOLD:
        COP_ASSERT(h->held_count < HELD_MAX);
        h->held[h->held_count++] = request;
        atomic_fetch_add(&h->holding, 1);
        return;
    case ASK_RELEASE:
        release_held(h);
        answer(request, NULL);
        return;
    case ASK_DISCONNECT:
        cop_server_disconnect(h->server, cop_request_connection(request));
        cop_server_drop(request);
        return;
    case ASK_FAIL:
        fail_request(request);
        return;
    case ASK_DROP:
        cop_server_drop(request);
        return;
    case ASK_FILL:
        answer_fill(request);
        return;
    case ASK_WHO:
        answer_identity(request);
        return;
    default:
        answer_echo(request);
    }
}

static void on_gone(void *context, uint64_t connection) {
    host *h = context;
    atomic_store(&h->last_gone, connection);
    atomic_fetch_add(&h->gone, 1);
}

static void on_stop(uv_async_t *handle) {
    uv_stop(handle->loop);
}

/* A free port, because tests may run in parallel. */
static cop_err listen_somewhere(host *h) {
    static int next_port;
    if (h->kind == MEMORY) return COP_OK;
    for (int i = 0; i < 50; i++) {
        if (h->kind == TCP || h->kind == TLS)
            snprintf(h->url, sizeof h->url, "%stcp://127.0.0.1:%d", h->kind == TLS ? "tls+" : "",
                     20000 + (getpid() * 53 + next_port++) % 12000);
        else
            snprintf(h->url, sizeof h->url, "ipc://%s/cop-net-%d-%d", P_tmpdir, getpid(),
                     next_port++);
        cop_err e = cop_server_listen(h->server, h->url, &h->error);
        if (e != COP_ERR_IN_USE) return e;
    }
    return COP_ERR_IN_USE;
}

static void run_host(void *argument) {
    host *h = argument;
    const cop_server_handler handler = {.on_request = on_request, .on_gone = on_gone};
    uv_loop_init(&h->loop);
    uv_async_init(&h->loop, &h->stop, on_stop);
    cop_err e = cop_server_create(&h->loop, &handler, h, &h->server, &h->error);
    h->started = !e;
    if (!e && h->tls) cop_server_set_tls(h->server, h->tls);
    if (!e) e = listen_somewhere(h);
    h->error.code = e;
    uv_sem_post(&h->ready);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    if (h->started) {
        if (!h->hold_back) release_held(h);
        cop_server_close(h->server);
        release_held(h);
        cop_server_destroy(h->server);
    }
    uv_close((uv_handle_t *)&h->stop, NULL);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    COP_ASSERT(uv_loop_close(&h->loop) == 0);
}

/* The host takes ownership of `tls`, and of `peer_tls` for its links; both are NULL without TLS. */
static inline void start_host_with(host *h, transport kind, cop_tls *tls, cop_tls *peer_tls) {
    *h = (host){.kind = kind, .tls = tls, .peer_tls = peer_tls};
    uv_sem_init(&h->ready, 0);
    assert_int_equal(uv_thread_create(&h->thread, run_host, h), 0);
    uv_sem_wait(&h->ready);
    assert_int_equal(h->error.code, COP_OK);
}

static inline void start_host(host *h, transport kind) {
    bool tls = kind == TLS;
    start_host_with(h, kind, tls ? test_tls(COP_TLS_SERVER) : NULL,
                    tls ? test_tls(COP_TLS_CLIENT) : NULL);
}

static inline void stop_host(host *h) {
    uv_async_send(&h->stop);
    uv_thread_join(&h->thread);
    uv_sem_destroy(&h->ready);
    cop_tls_destroy(h->tls);
    h->tls = NULL;
}

/* Call it after closing the last link. */
static inline void free_host(host *h) {
    cop_tls_destroy(h->peer_tls);
    h->peer_tls = NULL;
}

static inline cop_link *open_link(host *h) {
    cop_link *link = NULL;
    cop_error error = {0};
    cop_err e = h->kind == MEMORY ? cop_link_open_local(h->server, &link, &error)
                                  : cop_link_open(h->url, h->peer_tls, &link, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    COP_ASSERT(!e);
    return link;
}

/* Makes one call; takes ownership of the parts. */
static cop_err call(cop_link *link, uint32_t method, cop_buffer *part, cop_message *reply,
                    uint32_t timeout_ms, cop_error *error) {
    cop_message m = {.type = COP_MESSAGE_CALL, .call = {.method = method}};
    m.part[0] = part;
    memset(reply, 0, sizeof *reply);
    return cop_link_call(link, &m, reply, timeout_ms, error);
}

static inline cop_err call_plain(cop_link *link, uint32_t method, uint32_t timeout_ms,
                                 cop_error *error) {
    cop_message reply;
    cop_err e = call(link, method, NULL, &reply, timeout_ms, error);
    if (!e) cop_message_fini(&reply);
    return e;
}

/* Opens a link and makes one call, so that a short timeout of the next call is for its answer
 * alone, however long connecting takes. */
static inline cop_link *open_connected_link(host *h) {
    cop_link *link = open_link(h);
    COP_ASSERT(call_plain(link, ASK_ECHO, 10000, NULL) == COP_OK);
    return link;
}

/* Bytes that depend on position and seed. */
static inline cop_buffer *make_bytes(size_t size, uint32_t seed) {
    cop_buffer *b = cop_buffer_create(size);
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)b->data)[i] = (unsigned char)(i * 31 + (i >> 8) * 7 + seed);
    return b;
}

static inline bool same_bytes(const cop_buffer *a, const cop_buffer *b) {
    return a && b && a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

/* Waits until *value has reached `least`; false after 5 s. */
static inline bool wait_for(atomic_int *value, int least) {
    for (int i = 0; i < 5000 && atomic_load(value) < least; i++) cop_clock_sleep_ms(1);
    return atomic_load(value) >= least;
}

/* A call on a separate thread. */
typedef struct caller {
    uv_thread_t thread;
    cop_link *link;
    uint32_t method, timeout_ms;
    cop_err result;
    int order; /* position of an ASK_HOLD's answer; -1: none */
    cop_error error;
} caller;

static void run_caller(void *argument) {
    caller *c = argument;
    cop_message reply;
    c->order = -1;
    c->result = call(c->link, c->method, NULL, &reply, c->timeout_ms, &c->error);
    if (c->result) return;
    if (reply.part[0] && reply.part[0]->size >= sizeof c->order)
        memcpy(&c->order, reply.part[0]->data, sizeof c->order);
    cop_message_fini(&reply);
}

static inline void start_caller(caller *c, cop_link *link, uint32_t method, uint32_t timeout_ms) {
    *c = (caller){.link = link, .method = method, .timeout_ms = timeout_ms};
    COP_ASSERT(uv_thread_create(&c->thread, run_caller, c) == 0);
}

#endif
