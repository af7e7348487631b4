/* Requests from this process that do not wait for their reply (cop_server_submit). Each has a
 * connection of its own. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/net/internal.h"

typedef struct submission {
    cop_request request;
    cop_server_answered answered;
    void *context;
} submission;

/* Ends a request: passes on the reply (NULL: there is none), and ends its connection. */
static void finish(cop_request *request, cop_message *reply) {
    submission *s = (submission *)(void *)((char *)request - offsetof(submission, request));
    cop_message_fini(&request->message);
    s->answered(s->context, reply);
    net_server_report(request->server, NET_ITEM_DISCONNECTED, request->connection);
    cop_free(s);
}

static void submission_reply(cop_request *request, cop_message *reply) {
    finish(request, reply);
}

static void submission_drop(cop_request *request) {
    finish(request, NULL);
}

static const net_transport transport = {.reply = submission_reply, .drop = submission_drop};

bool cop_server_submit(cop_server *server, cop_message *message, const char *address,
                       cop_server_answered answered, void *context) {
    submission *s = cop_alloc(sizeof *s);
    if (!s) return false;
    s->answered = answered;
    s->context = context;
    s->request = (cop_request){.transport = &transport, .server = server, .message = *message};
    snprintf(s->request.address, sizeof s->request.address, "%s", address);
    s->request.item = (net_item){.kind = NET_ITEM_REQUEST, .request = &s->request};
    uv_mutex_lock(&server->hub->mutex);
    bool open = server->hub->server != NULL;
    if (open) {
        s->request.connection = NET_MEMORY_CONNECTIONS + ++server->hub->next_connection;
        net_server_report(server, NET_ITEM_CONNECTED, s->request.connection);
        open = net_server_push(server, &s->request.item);
    }
    uv_mutex_unlock(&server->hub->mutex);
    if (open)
        memset(message, 0, sizeof *message);
    else
        cop_free(s);
    return open;
}
