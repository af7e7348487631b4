/* In-memory links. Each link has one request. A call puts it into the server's queue and waits on a
 * condition variable for the reply. It copies the message struct, passes buffers by reference, and
 * allocates nothing.
 *
 * If a call times out, the server still has the request until it replies to it or drops it; the
 * next call first waits for this.
 *
 * If the link's follower wants a reply, the link keeps the reply and puts an item into the server's
 * queue. Later the loop calls the follower, which turns the reply into the next request. The call
 * waits on meanwhile. It may end before the follower begins, but not while the follower runs.
 *
 * Locks are taken in this order: hub, link, the server's queue. */
#include "common/net/internal.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"

/* The state of the link's last call:
 *  - IDLE: it has ended, or there was none.
 *  - WAITING: it waits for the reply.
 *  - ANSWERED: the reply has arrived, but the call has not taken it.
 *  - ABANDONED: it has ended without a reply, by a timeout or a cancel.
 *  - DISCONNECTED: its connection was closed, or the call was interrupted. The calling thread has
 *    not noticed yet. */
typedef enum call_state { IDLE, WAITING, ANSWERED, ABANDONED, DISCONNECTED } call_state;

/* While `at_server` is true, the server has the request, and only the server may use it. If the
 * link is closed during this time, the server frees the link; otherwise memory_close does. */
typedef struct memory_link memory_link;
struct memory_link {
    cop_link base;
    cop_request request;
    net_hub *hub;
    cop_link_follower follower; /* `wants` is NULL: there is none */
    uv_mutex_t mutex;           /* guards the rest, except `next` */
    uv_cond_t answered; /* the state has changed, the server returned the request, or a cancel */
    call_state state;
    uint64_t timeout_ns, deadline_ns; /* of the last call */
    bool at_server;
    bool kept;         /* `reply` waits for the follower */
    bool running;      /* the follower runs */
    bool closed;       /* cop_link_close was called */
    bool disconnected; /* the server closed the connection; the next call opens a new one */
    cop_message reply; /* the reply; valid in state ANSWERED, or if `kept` */
    memory_link *next; /* the next link in the hub's list; guarded by the hub's mutex */
};

static void free_link(memory_link *link) {
    uv_mutex_destroy(&link->mutex);
    uv_cond_destroy(&link->answered);
    net_hub_release(link->hub);
    cop_free(link);
}

/* ---- server side: loop thread ---- */

/* Called when the server gives the request back. `message` is the reply; NULL: there is none. */
static void finish_request(memory_link *link, cop_message *message) {
    cop_message_fini(&link->request.message);
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(link->at_server && !link->running);
    link->at_server = false;
    if (link->kept) cop_message_fini(&link->reply);
    link->kept = false;
    bool wanted = link->state == WAITING && message != NULL;
    if (wanted) {
        link->reply = *message;
        link->state = ANSWERED;
    }
    uv_cond_signal(&link->answered);
    bool closed = link->closed;
    uv_mutex_unlock(&link->mutex);
    if (message && !wanted)
        cop_message_fini(message);
    else if (message)
        memset(message, 0, sizeof *message);
    if (closed) free_link(link);
}

static memory_link *link_of(cop_request *request) {
    return (memory_link *)(void *)((char *)request - offsetof(memory_link, request));
}

/* Keeps a reply that the follower wants, and puts its item into the queue. False: it does not want
 * the reply, or the call has ended. */
static bool keep_for_follower(memory_link *link, cop_message *message) {
    const cop_link_follower *f = &link->follower;
    if (!f->wants) return false;
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(link->at_server && !link->kept);
    link->kept = link->state == WAITING && f->wants(f->context, message);
    const bool kept = link->kept;
    if (kept) link->reply = *message;
    uv_mutex_unlock(&link->mutex);
    if (!kept) return false;
    memset(message, 0, sizeof *message);
    link->request.item = (net_item){.kind = NET_ITEM_FOLLOW, .request = &link->request};
    if (!net_server_push(link->request.server, &link->request.item)) finish_request(link, NULL);
    return true;
}

static void memory_reply(cop_request *request, cop_message *message) {
    memory_link *link = link_of(request);
    cop_buffer_release(message->receipt); /* the link has the parts now, so the reply is sent */
    message->receipt = NULL;
    if (!keep_for_follower(link, message)) finish_request(link, message);
}

/* Marks the follower as running, if the call still waits. */
static bool begin_follower(memory_link *link) {
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(link->kept && link->at_server);
    link->running = link->state == WAITING && !atomic_load(&link->base.canceled);
    const bool running = link->running;
    uv_mutex_unlock(&link->mutex);
    return running;
}

/* Ends the run of the follower. True: the call goes on with its next request. */
static bool end_follower(memory_link *link, bool followed) {
    uv_mutex_lock(&link->mutex);
    link->running = false;
    link->kept = !followed;
    const bool on = followed && link->state == WAITING && !atomic_load(&link->base.canceled);
    if (on) link->deadline_ns = cop_clock_ns() + link->timeout_ns;
    uv_mutex_unlock(&link->mutex);
    return on;
}

static bool memory_follow(cop_request *request) {
    memory_link *link = link_of(request);
    cop_message_fini(&request->message);
    if (!begin_follower(link)) {
        finish_request(link, NULL);
        return false;
    }
    const bool followed =
        link->follower.follow(link->follower.context, &link->reply, &request->message);
    if (end_follower(link, followed)) return true;
    if (followed) {
        finish_request(link, NULL);
        return false;
    }
    uv_mutex_lock(&link->mutex);
    cop_message reply = link->reply;
    link->kept = false;
    uv_mutex_unlock(&link->mutex);
    finish_request(link, &reply);
    return false;
}

static void memory_drop(cop_request *request) {
    finish_request(link_of(request), NULL);
}

static const net_transport memory_transport = {
    .reply = memory_reply, .drop = memory_drop, .follow = memory_follow};

static void fail_call(memory_link *link) {
    if (link->state == WAITING) link->state = DISCONNECTED;
    uv_cond_signal(&link->answered);
}

void net_memory_close_all(net_hub *hub) {
    uv_mutex_lock(&hub->mutex);
    for (memory_link *l = (memory_link *)(void *)hub->links; l; l = l->next) {
        uv_mutex_lock(&l->mutex);
        fail_call(l);
        uv_mutex_unlock(&l->mutex);
    }
    uv_mutex_unlock(&hub->mutex);
}

void net_memory_disconnect(net_hub *hub, uint64_t connection) {
    uv_mutex_lock(&hub->mutex);
    for (memory_link *l = (memory_link *)(void *)hub->links; l; l = l->next) {
        uv_mutex_lock(&l->mutex);
        if (l->request.connection == connection && !l->disconnected) {
            l->disconnected = true;
            fail_call(l);
            if (hub->server) net_server_report(hub->server, NET_ITEM_DISCONNECTED, connection);
        }
        uv_mutex_unlock(&l->mutex);
    }
    uv_mutex_unlock(&hub->mutex);
}

/* ---- client side ---- */

/* Gives the link a new connection, and reports it to the server. The caller holds the hub's lock
 * and, if other threads already know the link, the link's lock. */
static void connect_link(memory_link *link) {
    COP_ASSERT(link->hub->server && !link->at_server);
    link->request.connection = NET_MEMORY_CONNECTIONS + ++link->hub->next_connection;
    link->disconnected = false;
    net_server_report(link->hub->server, NET_ITEM_CONNECTED, link->request.connection);
}

/* Gives the request to the server. False: the server is closed, and the caller still owns
 * *request. */
static bool submit_request(memory_link *link, cop_message *request) {
    net_hub *hub = link->hub;
    bool sent = false;
    uv_mutex_lock(&hub->mutex);
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(!link->at_server && link->state != WAITING);
    if (hub->server) {
        if (link->disconnected) connect_link(link);
        link->request.message = *request;
        link->request.item = (net_item){.kind = NET_ITEM_REQUEST, .request = &link->request};
        link->state = WAITING;
        link->at_server = true;
        sent = net_server_push(hub->server, &link->request.item);
    }
    if (sent) {
        memset(request, 0, sizeof *request);
    } else {
        memset(&link->request.message, 0, sizeof link->request.message);
        link->at_server = false;
        link->state = IDLE;
    }
    uv_mutex_unlock(&link->mutex);
    uv_mutex_unlock(&hub->mutex);
    return sent;
}

#define RUNNING_PAUSE_NS 1000000

/* Waits until `waiting(link)` is false, the deadline has passed, or the link is canceled, and the
 * follower does not run. The caller holds the link's lock. */
static void wait_while(memory_link *link, bool (*waiting)(const memory_link *)) {
    while (link->running || (waiting(link) && !atomic_load(&link->base.canceled))) {
        const uint64_t now = cop_clock_ns();
        if (now >= link->deadline_ns && !link->running) return;
        uv_cond_timedwait(&link->answered, &link->mutex,
                          now < link->deadline_ns ? link->deadline_ns - now : RUNNING_PAUSE_NS);
    }
}

static bool is_at_server(const memory_link *link) {
    return link->at_server;
}

static bool is_waiting(const memory_link *link) {
    return link->state == WAITING;
}

static cop_err refuse(cop_message *request, cop_err code, const char *text, cop_error *error) {
    cop_message_fini(request);
    return cop_fail(error, code, "%s", text);
}

static cop_err memory_call(cop_link *base, cop_message *request, cop_message *reply,
                           uint32_t timeout_ms, cop_error *error) {
    memory_link *link = (memory_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    link->timeout_ns = (uint64_t)timeout_ms * 1000000;
    link->deadline_ns = cop_clock_ns() + link->timeout_ns;
    wait_while(link, is_at_server);
    bool busy = link->at_server;
    uv_mutex_unlock(&link->mutex);
    if (atomic_load(&base->canceled))
        return refuse(request, COP_ERR_CLOSED, "the call was canceled", error);
    if (busy)
        return refuse(request, COP_ERR_TIMEOUT,
                      "the coordinator in this process still holds the previous call", error);
    if (!submit_request(link, request))
        return refuse(request, COP_ERR_CLOSED, "the coordinator in this process has stopped",
                      error);
    uv_mutex_lock(&link->mutex);
    wait_while(link, is_waiting);
    call_state state = link->state;
    COP_ASSERT(state == WAITING || state == ANSWERED || state == DISCONNECTED);
    COP_ASSERT(state != ANSWERED || !link->at_server);
    if (state == ANSWERED) {
        *reply = link->reply;
        memset(&link->reply, 0, sizeof link->reply);
    }
    link->state = state == WAITING ? ABANDONED : IDLE;
    uv_mutex_unlock(&link->mutex);
    if (state == ANSWERED) return COP_OK;
    if (state == DISCONNECTED)
        return cop_fail(error, COP_ERR_CLOSED,
                        "the connection to the coordinator in this process was closed");
    if (atomic_load(&base->canceled))
        return cop_fail(error, COP_ERR_CLOSED, "the call was canceled");
    return cop_fail(error, COP_ERR_TIMEOUT,
                    "the coordinator in this process did not answer within %.3g s",
                    timeout_ms / 1000.0);
}

static void memory_cancel(cop_link *base) {
    memory_link *link = (memory_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    uv_cond_broadcast(&link->answered);
    uv_mutex_unlock(&link->mutex);
}

static void memory_interrupt(cop_link *base) {
    memory_link *link = (memory_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    fail_call(link);
    uv_mutex_unlock(&link->mutex);
}

static void memory_set_follower(cop_link *base, const cop_link_follower *follower) {
    memory_link *link = (memory_link *)(void *)base;
    COP_ASSERT(link->state == IDLE && !link->at_server);
    link->follower = *follower;
}

/* Removes the link from the hub's list. The caller holds the hub's lock. */
static void remove_from_hub(memory_link *link) {
    memory_link *first = (memory_link *)(void *)link->hub->links;
    if (first == link) {
        link->hub->links = (cop_link *)(void *)link->next;
        return;
    }
    while (first && first->next != link) first = first->next;
    COP_ASSERT(first); /* an open link is in the list */
    first->next = link->next;
}

static void memory_close(cop_link *base) {
    memory_link *link = (memory_link *)(void *)base;
    /* Takes a reference of its own: as soon as the link is unlocked, the server may free the link
     * and drop its reference to the hub. */
    net_hub *hub = link->hub;
    atomic_fetch_add(&hub->references, 1);
    uv_mutex_lock(&hub->mutex);
    remove_from_hub(link);
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(!link->closed && link->state != WAITING); /* no call may be running */
    link->closed = true;
    bool at_server = link->at_server;
    if (hub->server && !link->disconnected)
        net_server_report(hub->server, NET_ITEM_DISCONNECTED, link->request.connection);
    uv_mutex_unlock(&link->mutex);
    uv_mutex_unlock(&hub->mutex);
    if (!at_server) free_link(link); /* if the server has the request, finish_request frees it */
    net_hub_release(hub);
}

static const net_link_ops memory_ops = {.call = memory_call,
                                        .cancel = memory_cancel,
                                        .interrupt = memory_interrupt,
                                        .set_follower = memory_set_follower,
                                        .close = memory_close};

cop_err cop_link_open_local(cop_server *server, cop_link **out, cop_error *error) {
    memory_link *link = cop_alloc(sizeof *link);
    if (!link) return cop_no_memory(error);
    link->base.ops = &memory_ops;
    snprintf(link->base.address, sizeof link->base.address, "memory");
    uv_mutex_init(&link->mutex);
    uv_cond_init(&link->answered);
    link->hub = server->hub;
    link->request.transport = &memory_transport;
    link->request.server = server;
    snprintf(link->request.address, sizeof link->request.address, "memory");
    uv_mutex_lock(&link->hub->mutex);
    atomic_fetch_add(&link->hub->references, 1);
    link->next = (memory_link *)(void *)link->hub->links;
    link->hub->links = &link->base;
    connect_link(link);
    uv_mutex_unlock(&link->hub->mutex);
    *out = &link->base;
    return COP_OK;
}
