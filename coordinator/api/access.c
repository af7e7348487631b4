/* Who may do what: one table of requests with the role that each needs. A connection with a
 * certificate has its roles and its name; any other must know the token, and has then both roles.
 * Everything that is asked of a coordinator passes here before it is looked at. */
#include "coordinator/api/access.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/str.h"

/* Messages; the methods of CALL stand in the API's own table. */
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

/* The row that a request falls under; false for what is no request, or not known. */
static bool right_of(const cop_message *m, coord_right *out) {
    for (size_t at = 0; coord_right_at(at, out); at++)
        if (out->type == m->type &&
            (m->type != COP_MESSAGE_CALL || out->method == m->call.method)) {
            if (m->type == COP_MESSAGE_HELLO && m->hello.is_client) out->role = COP_ROLE_CLIENT;
            return true;
        }
    return false;
}

void coord_reply_failure(cop_request *request, cop_err code, const char *format, ...) {
    cop_message reply = {.type = COP_MESSAGE_FAILURE};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reply.failure.text, sizeof reply.failure.text, format, arguments);
    va_end(arguments);
    reply.failure.code = code;
    cop_server_reply(request, &reply);
}

coord_session *coord_session_find(const coord_access *access, uint64_t worker) {
    coord_session *s = &access->sessions[worker % COP_WORKERS_MAX];
    return worker && s->worker == worker ? s : NULL;
}

bool coord_access_role(cop_request *request) {
    const cop_peer *peer = cop_request_peer(request);
    coord_right right;
    if (!peer->certified || !right_of(cop_request_message(request), &right)) return true;
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
    bool many = cop_peer_is_many(peer, &length);
    if (*name && !cop_name_ok(name, strlen(name)))
        coord_reply_failure(request, COP_ERR_INPUT,
                            "a worker name must not contain control characters");
    else if (peer->certified && *name && !cop_peer_may_be(peer, name))
        coord_reply_failure(
            request, COP_ERR_DENIED, "the certificate is for %s called \"%.*s%s\", not \"%s\"",
            many ? "workers" : "the worker", (int)length, peer->name, many ? "..." : "", name);
    else
        return true;
    return false;
}

void coord_access_identify(const cop_request *request, const cop_hello *hello, coord_who *out) {
    const cop_peer *peer = cop_request_peer(request);
    size_t length;
    bool many = cop_peer_is_many(peer, &length);
    if (*hello->name)
        snprintf(out->name, sizeof out->name, "%s", hello->name);
    else
        snprintf(out->name, sizeof out->name, "%.*s%s", (int)length, peer->name,
                 many || !peer->certified ? "worker" : "");
    bool one = peer->certified && !many;
    snprintf(out->identity, sizeof out->identity, "%s%s", peer->certified ? "certificate " : "",
             one ? peer->name : out->name);
}

const char *coord_access_identity(const cop_request *request) {
    return cop_request_peer(request)->name;
}

uint32_t coord_access_share(const coord_access *access, uint32_t share, uint32_t all) {
    return access->config->tls && share < all ? share : all;
}

coord_session *coord_access_session(const coord_access *access, const cop_request *request,
                                    uint64_t worker, uint64_t secret) {
    coord_session *s = coord_session_find(access, worker);
    if (!s || s->secret != secret) return NULL;
    return strcmp(s->certificate, cop_request_peer(request)->name) == 0 ? s : NULL;
}

void coord_print_rights(void) {
    coord_right right;
    for (size_t at = 0; coord_right_at(at, &right); at++)
        printf("{\"kind\":\"%s\",\"name\":\"%s\",\"number\":%u,\"role\":\"%s\"}\n",
               right.type == COP_MESSAGE_CALL ? "method" : "message", right.name,
               right.type == COP_MESSAGE_CALL ? right.method : (unsigned)right.type,
               cop_roles_text(right.role));
}
