/* In-memory links: a call puts its own request into the server's queue and waits. Structs are copied, buffers go by reference, nothing is allocated. */
#include "common/net/internal.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"

typedef enum call_state { IDLE, WAITING, ANSWERED, ABANDONED, LOST } call_state;

/* The request is at the server while state is WAITING or ABANDONED. `alive` says that the server still has it; the link is freed by whoever lets go
 * last. */
typedef struct memory_link memory_link;
struct memory_link {
    cop_link     base;
    cop_request  request;
    net_hub     *hub;
    uv_mutex_t   mutex;
    uv_cond_t    answered;
    call_state   state;
    bool         at_server, closed;
    cop_message  reply;
    memory_link *next; /* in the hub's list of calls under way */
};

static void free_link(memory_link *link)
{
    uv_mutex_destroy(&link->mutex);
    uv_cond_destroy(&link->answered);
    net_hub_release(link->hub);
    cop_free(link);
}

/* ---- server side: loop thread ---- */

/* The server lets go of the request, with or without an answer. */
static void let_go(memory_link *link, cop_message *message)
{
    cop_message_fini(&link->request.message);
    uv_mutex_lock(&link->mutex);
    link->at_server = false;
    bool wanted = link->state == WAITING && message != NULL;
    if (wanted) {
        link->reply = *message;
        link->state = ANSWERED;
    }
    uv_cond_signal(&link->answered);
    bool closed = link->closed;
    uv_mutex_unlock(&link->mutex);
    if (message && !wanted) cop_message_fini(message);
    else if (message) memset(message, 0, sizeof *message);
    if (closed) free_link(link);
}

static memory_link *link_of(cop_request *request)
{
    return (memory_link *)((char *)request - offsetof(memory_link, request));
}

static void memory_reply(cop_request *request, cop_message *message)
{
    let_go(link_of(request), message);
}

static void memory_drop(cop_request *request)
{
    let_go(link_of(request), NULL);
}

static const net_transport memory_transport = {.reply = memory_reply, .drop = memory_drop};

void net_memory_close_all(net_hub *hub)
{
    uv_mutex_lock(&hub->mutex);
    for (memory_link *l = (memory_link *)(void *)hub->links; l; l = l->next) {
        uv_mutex_lock(&l->mutex);
        if (l->state == WAITING) l->state = LOST;
        uv_cond_signal(&l->answered);
        uv_mutex_unlock(&l->mutex);
    }
    uv_mutex_unlock(&hub->mutex);
}

/* ---- asking side ---- */

static void enlist(memory_link *link)
{
    link->next = (memory_link *)(void *)link->hub->links;
    link->hub->links = &link->base;
}

static void delist(memory_link *link)
{
    uv_mutex_lock(&link->hub->mutex);
    cop_link **at = &link->hub->links;
    while (*at && *at != &link->base) at = (cop_link **)(void *)&((memory_link *)(void *)*at)->next;
    if (*at) *at = (cop_link *)(void *)link->next;
    uv_mutex_unlock(&link->hub->mutex);
}

/* Hands the request to the server; CLOSED if there is none any more. */
static cop_err hand_over(memory_link *link, cop_message *request, cop_error *error)
{
    uv_mutex_lock(&link->hub->mutex);
    cop_server *server = link->hub->server;
    bool        sent = false;
    if (server) {
        link->request.message = *request;
        link->request.server = server;
        link->request.item = (net_item){.kind = NET_ITEM_REQUEST, .request = &link->request};
        link->state = WAITING;
        link->at_server = true;
        enlist(link);
        sent = net_server_push(server, &link->request.item);
    }
    uv_mutex_unlock(&link->hub->mutex);
    if (sent) {
        memset(request, 0, sizeof *request);
        return COP_OK;
    }
    if (server) {
        delist(link);
        link->at_server = false;
        memset(&link->request.message, 0, sizeof link->request.message);
    }
    link->state = IDLE;
    cop_message_fini(request);
    return cop_fail(error, COP_ERR_CLOSED, "the coordinator in this process has stopped");
}

static cop_err memory_call(cop_link *base, cop_message *request, cop_message *reply, uint32_t timeout_ms, cop_error *error)
{
    memory_link *link = (memory_link *)(void *)base;
    uint64_t     deadline = cop_clock_ns() + (uint64_t)timeout_ms * 1000000;
    uv_mutex_lock(&link->mutex); /* a call that timed out may still be at the server */
    while (link->at_server && !atomic_load(&base->canceled) && cop_clock_ns() < deadline)
        uv_cond_timedwait(&link->answered, &link->mutex, 10000000);
    bool free_now = !link->at_server;
    uv_mutex_unlock(&link->mutex);
    if (!free_now) {
        cop_message_fini(request);
        return cop_fail(error, COP_ERR_TIMEOUT, "the coordinator in this process still holds the last call");
    }
    COP_TRY(hand_over(link, request, error));
    uv_mutex_lock(&link->mutex);
    while (link->state == WAITING && !atomic_load(&base->canceled)) {
        uint64_t now = cop_clock_ns();
        if (now >= deadline) break;
        uv_cond_timedwait(&link->answered, &link->mutex, deadline - now);
    }
    call_state state = link->state;
    if (state == ANSWERED) {
        *reply = link->reply;
        memset(&link->reply, 0, sizeof link->reply);
    }
    link->state = state == WAITING ? ABANDONED : IDLE;
    uv_mutex_unlock(&link->mutex);
    delist(link);
    if (state == ANSWERED) return COP_OK;
    if (state == LOST) return cop_fail(error, COP_ERR_CLOSED, "the coordinator in this process has stopped");
    if (atomic_load(&base->canceled)) return cop_fail(error, COP_ERR_CLOSED, "the call was canceled");
    return cop_fail(error, COP_ERR_TIMEOUT, "no answer within %u ms", timeout_ms);
}

static void memory_cancel(cop_link *base)
{
    memory_link *link = (memory_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    uv_cond_broadcast(&link->answered);
    uv_mutex_unlock(&link->mutex);
}

static void memory_close(cop_link *base)
{
    memory_link *link = (memory_link *)(void *)base;
    uv_mutex_lock(&link->hub->mutex);
    if (link->hub->server) net_server_note(link->hub->server, NET_ITEM_GONE, link->request.connection);
    uv_mutex_unlock(&link->hub->mutex);
    uv_mutex_lock(&link->mutex);
    link->closed = true;
    bool at_server = link->at_server;
    uv_mutex_unlock(&link->mutex);
    if (!at_server) free_link(link);
}

static const net_link_ops memory_ops = {.call = memory_call, .cancel = memory_cancel, .close = memory_close};

cop_err cop_link_open_local(cop_server *server, cop_link **out, cop_error *error)
{
    memory_link *link = cop_alloc(sizeof *link);
    if (!link) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    link->base.ops = &memory_ops;
    snprintf(link->base.address, sizeof link->base.address, "memory");
    uv_mutex_init(&link->mutex);
    uv_cond_init(&link->answered);
    link->hub = server->hub;
    uv_mutex_lock(&link->hub->mutex);
    atomic_fetch_add(&link->hub->references, 1);
    link->request.transport = &memory_transport;
    link->request.connection = ((uint64_t)1 << 40) + ++link->hub->next_connection;
    snprintf(link->request.address, sizeof link->request.address, "memory");
    net_server_note(server, NET_ITEM_BORN, link->request.connection);
    uv_mutex_unlock(&link->hub->mutex);
    *out = &link->base;
    return COP_OK;
}
