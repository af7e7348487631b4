/* The server. All transports append their requests, and reports of new and lost connections, to one
 * queue, which the loop thread reads. See net.h. */
#include "common/net/internal.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"

/* Limits of one iteration of the loop. With them, timers and other events do not wait for long when
 * many requests arrive, or many replies leave, at the same time. */
#define READ_BUDGET_NS 1000000 /* time after which the loop stops reading the queue */
#define INLINE_REPLIES 32      /* replies that the loop encodes; encoder threads do the others */

/* ---- the queue ---- */

/* Is the item a field of a request? The others are allocated. */
static bool is_of_request(const net_item *item) {
    return item->kind == NET_ITEM_REQUEST || item->kind == NET_ITEM_FOLLOW;
}

bool net_server_push(cop_server *server, net_item *item) {
    COP_ASSERT(!is_of_request(item) || item->request->server == server);
    item->next = NULL;
    uv_mutex_lock(&server->mutex);
    bool open = !server->closed;
    if (open) {
        if (server->tail)
            server->tail->next = item;
        else
            server->head = item;
        server->tail = item;
        if (!server->reading) uv_async_send(&server->wake);
    }
    uv_mutex_unlock(&server->mutex);
    return open;
}

void net_server_report(cop_server *server, net_item_kind kind, uint64_t connection) {
    net_item *item = cop_alloc(sizeof *item);
    if (!item) return; /* out of memory: missing heartbeats will show that a connection is lost */
    item->kind = kind;
    item->connection = connection;
    if (!net_server_push(server, item)) cop_free(item);
}

/* ---- live connections ---- */

static size_t live_count(const cop_server *server) {
    return atomic_load_explicit(&server->live_count, memory_order_relaxed);
}

static net_live *find_live(cop_server *server, uint64_t connection) {
    size_t count = live_count(server);
    for (size_t i = 0; i < count; i++)
        if (server->live[i].connection == connection) return &server->live[i];
    return NULL;
}

static bool grow_live(cop_server *server) {
    size_t capacity = server->live_capacity ? server->live_capacity * 2 : 64;
    net_live *live = cop_realloc(server->live, capacity * sizeof *live);
    if (!live) return false;
    server->live = live;
    server->live_capacity = capacity;
    return true;
}

static void add_live(cop_server *server, uint64_t connection) {
    size_t count = live_count(server);
    if (count == server->live_capacity && !grow_live(server))
        return; /* out of memory: its requests will be dropped, and the peer repeats them */
    server->live[count] = (net_live){.connection = connection};
    atomic_store_explicit(&server->live_count, count + 1, memory_order_relaxed);
}

/* Removes a connection. True: it had sent a request. */
static bool remove_live(cop_server *server, uint64_t connection) {
    net_live *live = find_live(server, connection);
    COP_ASSERT(live_count(server) <= server->live_capacity);
    if (!live) return false;
    bool has_sent_request = live->has_sent_request;
    size_t last = live_count(server) - 1;
    *live = server->live[last];
    atomic_store_explicit(&server->live_count, last, memory_order_relaxed);
    return has_sent_request;
}

/* ---- loop thread ---- */

static void take_request(cop_server *server, cop_request *request) {
    net_live *live = find_live(server, request->connection);
    if (!live) { /* the connection has ended */
        request->transport->drop(request);
        return;
    }
    if (live->open >= NET_OPEN_MAX) {
        cop_log_peer(COP_LOG_WARN, "net", request->address,
                     "%s: more than %d unanswered requests; connection closed", request->address,
                     NET_OPEN_MAX);
        cop_server_disconnect(server, request->connection);
        request->transport->drop(request);
        return;
    }
    live->has_sent_request = true;
    live->open++;
    atomic_fetch_add(&server->requests, 1);
    if (server->nng) net_nng_replenish(server->nng);
    server->handler.on_request(server->context, request);
}

/* Takes the whole queue. NULL: it is empty, and the next item wakes the loop. */
static net_item *take_queue(cop_server *server, net_item **last) {
    uv_mutex_lock(&server->mutex);
    net_item *first = server->head;
    *last = server->tail;
    server->head = server->tail = NULL;
    server->reading = first != NULL;
    uv_mutex_unlock(&server->mutex);
    return first;
}

/* Ends the reading for this iteration of the loop. Puts the items that were not taken (`first` may
 * be NULL) back to the front of the queue. */
static void stop_reading(cop_server *server, net_item *first, net_item *last) {
    COP_ASSERT(!first || !last->next);
    uv_mutex_lock(&server->mutex);
    if (first) {
        last->next = server->head;
        server->head = first;
        if (!server->tail) server->tail = last;
    }
    server->reading = false;
    if (server->head) uv_async_send(&server->wake);
    uv_mutex_unlock(&server->mutex);
}

static void take_item(cop_server *server, net_item *item) {
    uint64_t connection = item->connection;
    bool connected = item->kind == NET_ITEM_CONNECTED;
    if (item->kind == NET_ITEM_REQUEST) {
        take_request(server, item->request); /* the item is part of the request: do not free it */
        return;
    }
    if (item->kind == NET_ITEM_FOLLOW) {
        cop_request *request = item->request;
        if (request->transport->follow(request)) take_request(server, request);
        return;
    }
    cop_free(item);
    if (connected)
        add_live(server, connection);
    else if (remove_live(server, connection))
        server->handler.on_gone(server->context, connection);
}

/* Also takes the items that arrive meanwhile, until the budget is used up. */
static void read_queue(uv_async_t *wake) {
    cop_server *server = wake->data;
    const uint64_t until = cop_clock_ns() + READ_BUDGET_NS;
    net_item *last;
    for (net_item *item; (item = take_queue(server, &last)) != NULL;)
        while (item) {
            net_item *next = item->next;
            take_item(server, item);
            item = next;
            if (cop_clock_ns() <= until) continue;
            stop_reading(server, item, last);
            return;
        }
}

static void begin_round(uv_prepare_t *round) {
    cop_server *server = round->data;
    server->inline_replies_left = INLINE_REPLIES;
}

cop_err cop_server_create(uv_loop_t *loop, const cop_server_handler *handler, void *context,
                          cop_server **out, cop_error *error) {
    COP_ASSERT(handler->on_request && handler->on_gone);
    cop_server *server = cop_alloc(sizeof *server);
    net_hub *hub = cop_alloc(sizeof *hub);
    if (!server || !hub) {
        cop_free(server);
        cop_free(hub);
        return cop_no_memory(error);
    }
    server->loop = loop;
    server->handler = *handler;
    server->context = context;
    uv_mutex_init(&server->mutex);
    uv_mutex_init(&hub->mutex);
    atomic_init(&hub->references, 1);
    hub->server = server;
    server->hub = hub;
    uv_async_init(loop, &server->wake, read_queue);
    uv_prepare_init(loop, &server->round);
    server->wake.data = server->round.data = server;
    server->handles_open = 2;
    uv_prepare_start(&server->round, begin_round);
    uv_unref((uv_handle_t *)&server->round);
    *out = server;
    return COP_OK;
}

cop_err cop_server_listen(cop_server *server, const char *url, cop_error *error) {
    bool loopback;
    COP_ASSERT(!server->closed);
    COP_TRY(cop_url_check(url, &loopback, error));
    if (!server->nng) {
        COP_TRY(net_nng_create(server, &server->nng, error));
        net_nng_expect_workers(server->nng, server->expected);
    }
    return net_nng_listen(server->nng, url, error);
}

void cop_server_set_tls(cop_server *server, const cop_tls *tls) {
    server->tls = tls;
}

void cop_server_expect_workers(cop_server *server, int workers) {
    COP_ASSERT(workers >= 0);
    if (workers > server->expected) server->expected = workers;
    if (server->nng) net_nng_expect_workers(server->nng, server->expected);
}

void cop_server_disconnect(cop_server *server, uint64_t connection) {
    if (connection >= NET_MEMORY_CONNECTIONS)
        net_memory_disconnect(server->hub, connection);
    else if (server->nng)
        net_nng_disconnect(server->nng, connection);
}

/* ---- the end ---- */

/* Closes the queue and drops its items. */
static void drain_queue(cop_server *server) {
    uv_mutex_lock(&server->mutex);
    server->closed = true;
    net_item *item = server->head;
    server->head = server->tail = NULL;
    uv_mutex_unlock(&server->mutex);
    while (item) {
        net_item *next = item->next;
        if (is_of_request(item))
            item->request->transport->drop(item->request);
        else
            cop_free(item);
        item = next;
    }
}

void cop_server_close(cop_server *server) {
    if (server->closed) return;
    uv_mutex_lock(&server->hub->mutex);
    server->hub->server = NULL;
    uv_mutex_unlock(&server->hub->mutex);
    drain_queue(server);
    net_memory_close_all(server->hub);
    if (server->nng) net_nng_close(server->nng);
}

static void on_handle_closed(uv_handle_t *handle) {
    cop_server *server = handle->data;
    COP_ASSERT(server->handles_open > 0);
    server->handles_open--;
}

void cop_server_destroy(cop_server *server) {
    cop_server_close(server);
    for (size_t i = 0; i < live_count(server); i++)
        COP_ASSERT(server->live[i].open == 0); /* the handler holds no request */
    if (server->nng) net_nng_destroy(server->nng);
    uv_close((uv_handle_t *)&server->wake, on_handle_closed);
    uv_close((uv_handle_t *)&server->round, on_handle_closed);
    while (server->handles_open) uv_run(server->loop, UV_RUN_NOWAIT);
    net_hub_release(server->hub);
    uv_mutex_destroy(&server->mutex);
    cop_free(server->live);
    cop_free(server);
}

void net_hub_release(net_hub *hub) {
    int before = atomic_fetch_sub(&hub->references, 1);
    COP_ASSERT(before >= 1);
    if (before > 1) return;
    uv_mutex_destroy(&hub->mutex);
    cop_free(hub);
}

/* ---- requests ---- */

uint64_t cop_request_connection(const cop_request *request) {
    return request->connection;
}

const cop_message *cop_request_message(const cop_request *request) {
    return &request->message;
}

const char *cop_request_address(const cop_request *request) {
    return request->address;
}

const cop_peer *cop_request_peer(const cop_request *request) {
    return &request->peer;
}

void cop_request_release_parts(cop_request *request) {
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        cop_buffer_release(request->message.part[i]);
        request->message.part[i] = NULL;
    }
}

/* Counts that the handler has replied to the request or dropped it. */
static void close_request(const cop_request *request) {
    net_live *live = find_live(request->server, request->connection);
    if (!live) return;
    COP_ASSERT(live->open > 0);
    live->open--;
}

void cop_server_reply(cop_request *request, cop_message *message) {
    COP_ASSERT(message->type >= COP_MESSAGE_HELLO && message->type <= COP_MESSAGE_ANSWER);
    close_request(request);
    atomic_fetch_add(&request->server->replies, 1);
    request->transport->reply(request, message);
}

void cop_server_drop(cop_request *request) {
    close_request(request);
    request->transport->drop(request);
}

void cop_server_count(const cop_server *server, cop_server_counters *out) {
    *out = (cop_server_counters){.requests = atomic_load(&server->requests),
                                 .replies = atomic_load(&server->replies),
                                 .bytes_in = atomic_load(&server->bytes_in),
                                 .bytes_out = atomic_load(&server->bytes_out),
                                 .bad_frames = atomic_load(&server->bad_frames),
                                 .refused = atomic_load(&server->refused),
                                 .connections = live_count(server)};
}

void cop_request_count(const cop_request *request, cop_server_counters *out) {
    cop_server_count(request->server, out);
}
