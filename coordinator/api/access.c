/* Access rights. One table lists all requests with the role that each needs. A connection with a
 * certificate has the roles and the name that are in the certificate. Any other connection must
 * know the token, and then has both roles. Every request is checked here before it is handled. */
#include "coordinator/api/access.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/str.h"

/* The messages other than CALL. The methods of CALL are in the table of api.c. */
static const coord_right messages[] = {
    {COP_MESSAGE_HELLO, 0, "HELLO", COP_ROLE_WORKER},
    {COP_MESSAGE_HEARTBEAT, 0, "HEARTBEAT", COP_ROLE_WORKER},
    {COP_MESSAGE_PULL, 0, "PULL", COP_ROLE_WORKER},
};
#define MESSAGES (sizeof messages / sizeof *messages)

bool coord_right_at(size_t at, coord_right *out) {
    if (at < MESSAGES) {
        *out = messages[at];
        return true;
    }
    return coord_api_right_at(at - MESSAGES, out);
}

/* Finds the row of a message. A HELLO of a client needs the role of a client. False: the message is
 * not a request, or it is a CALL of an unknown method. */
static bool find_right(const cop_message *m, coord_right *out) {
    for (size_t at = 0; coord_right_at(at, out); at++)
        if (out->type == m->type &&
            (m->type != COP_MESSAGE_CALL || out->method == m->call.method)) {
            if (m->type == COP_MESSAGE_HELLO && m->hello.is_client) out->role = COP_ROLE_CLIENT;
            return true;
        }
    return false;
}

void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...) {
    COP_ASSERT(code != COP_OK);
    cop_message reply = {.type = COP_MESSAGE_FAILURE};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reply.failure.text, sizeof reply.failure.text, format, arguments);
    va_end(arguments);
    reply.failure.code = code;
    cop_server_reply(request, &reply);
}

coord_session *coord_session_find(const coord_access *access, uint64_t worker) {
    COP_ASSERT(access->sessions != NULL);
    coord_session *s = &access->sessions[worker % COP_WORKERS_MAX];
    return worker && s->worker == worker ? s : NULL;
}

bool coord_access_role(cop_request *request) {
    const cop_peer *peer = cop_request_peer(request);
    coord_right right;
    if (!peer->certified || !find_right(cop_request_message(request), &right)) return true;
    if (peer->roles & right.role) return true;
    coord_reply_failure(request, COP_ERR_DENIED,
                        "%s is for a %s (OU=%s): the certificate \"%s\" has %s%s", right.name,
                        cop_roles_text(right.role), cop_roles_text(right.role), peer->name,
                        peer->roles ? "only the role of a " : "", cop_roles_text(peer->roles));
    return false;
}

bool coord_access_token(const coord_access *access, cop_request *request, const char *token) {
    size_t length = strlen(access->token);
    if (cop_request_peer(request)->certified || !length) return true;
    if (strlen(token) == length && cop_equal_constant_time(token, access->token, length))
        return true;
    coord_reply_failure(request, COP_ERR_DENIED,
                        "the token is wrong or missing: pass the file `token` of the coordinator's "
                        "state folder with --token-file, or its text as COPPICE_TOKEN");
    return false;
}

bool coord_access_name(cop_request *request, const char *name) {
    const cop_peer *peer = cop_request_peer(request);
    size_t length;
    bool shared = cop_peer_is_shared(peer, &length);
    if (*name && !cop_name_ok(name, strlen(name)))
        coord_reply_failure(request, COP_ERR_INPUT,
                            "a worker name must not contain control characters");
    else if (peer->certified && *name && !cop_peer_allows_name(peer, name))
        coord_reply_failure(
            request, COP_ERR_DENIED, "the certificate is for %s called \"%.*s%s\", not \"%s\"",
            shared ? "workers" : "the worker", (int)length, peer->name, shared ? "..." : "", name);
    else
        return true;
    return false;
}

void coord_access_identify(const cop_request *request, const cop_hello *hello,
                           coord_worker_identity *out) {
    const cop_peer *peer = cop_request_peer(request);
    size_t length;
    bool shared = cop_peer_is_shared(peer, &length);
    if (*hello->name)
        snprintf(out->name, sizeof out->name, "%s", hello->name);
    else
        snprintf(out->name, sizeof out->name, "%.*s%s", (int)length, peer->name,
                 shared || !peer->certified ? "worker" : "");
    bool one = peer->certified && !shared;
    snprintf(out->identity, sizeof out->identity, "%s%s", peer->certified ? "certificate " : "",
             one ? peer->name : out->name);
}

const char *coord_access_identity(const cop_request *request) {
    return cop_request_peer(request)->name;
}

uint32_t coord_access_share(const coord_access *access, uint32_t share, uint32_t all) {
    COP_ASSERT(share > 0 && all > 0);
    return access->config->tls && share < all ? share : all;
}

coord_session *coord_access_session(const coord_access *access, const cop_request *request,
                                    uint64_t worker, uint64_t secret) {
    coord_session *s = coord_session_find(access, worker);
    if (!s || s->secret != secret) return NULL;
    return strcmp(s->certificate, coord_access_identity(request)) == 0 ? s : NULL;
}

void coord_print_rights(void) {
    coord_right right;
    for (size_t at = 0; coord_right_at(at, &right); at++)
        printf("{\"kind\":\"%s\",\"name\":\"%s\",\"number\":%u,\"role\":\"%s\"}\n",
               right.type == COP_MESSAGE_CALL ? "method" : "message", right.name,
               right.type == COP_MESSAGE_CALL ? right.method : (unsigned)right.type,
               cop_roles_text(right.role));
}
