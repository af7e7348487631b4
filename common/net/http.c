/* The HTTP server. See http.h. libmicrohttpd calls the static functions on_... on its thread,
 * except where a comment names another thread. */
#include "common/net/http.h"

#ifdef COP_HAVE_HTTP
#    include <arpa/inet.h>
#    include <errno.h>
#    include <microhttpd.h>
#    include <netinet/in.h>
#    include <stdio.h>
#    include <string.h>
#    include <sys/socket.h>
#    include <unistd.h>
#    include <uv.h>

#    include "common/base/alloc.h"
#    include "common/base/clock.h"
#    include "common/base/limits.h"
#    include "common/base/str.h"

#    define HTTP_READ_S 10u /* for a request to arrive */
#    define HTTP_SEND_S 60u /* for its answer to leave */
#    define HTTP_HEAD_MAX                                                                          \
        (32u << 10) /* bytes of memory of a connection: request line and headers */
#    define HTTP_BODY_MAX ((size_t)1 << 20)
#    define SECOND_NS     UINT64_C(1000000000)

/* The states of a connection: its request arrives, the program has the request, the answer leaves.
 */
typedef enum http_phase { READING, HELD, SENDING } http_phase;

/* A connection, in a list that cop_http_tick reads on another thread. */
typedef struct http_connection http_connection;
struct http_connection {
    cop_http *http;
    http_connection *next, *previous;
    int fd;
    http_phase phase;
    uint64_t since_ns; /* when the phase began */
};

struct cop_http_request {
    cop_http *http;
    struct MHD_Connection *connection;
    http_connection *place;
    const char *verb, *path, *token;
    cop_http_argument arguments[COP_HTTP_ARGUMENTS];
    size_t argument_count;
    size_t body; /* bytes that have arrived; they are discarded */
    bool handed; /* the program has the request */
    unsigned status;
    struct MHD_Response *answer; /* NULL: there is none yet */
    void *attached;
};

struct cop_http {
    struct MHD_Daemon *daemon;
    cop_http_handler handler;
    void *context;
    bool loopback;
    uv_mutex_t mutex; /* guards the list of connections, and their phases */
    http_connection *first;
    char address[64];
};

/* ---- addresses ---- */

/* Parses an address into *out. False: it is not valid. */
static bool parse_address(const char *text, struct sockaddr_storage *out, socklen_t *size) {
    const char *colon = strrchr(text, ':');
    char host[64];
    uint64_t port;
    if (!colon || colon == text || (size_t)(colon - text) >= sizeof host || !colon[1] ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || !cop_parse_u64(colon + 1, &port) ||
        port > UINT16_MAX)
        return false;
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    memset(out, 0, sizeof *out);
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    if (strcmp(host, "localhost") == 0) snprintf(host, sizeof host, "127.0.0.1");
    size_t last = strlen(host) - 1;
    if (host[0] == '[' && host[last] == ']') {
        host[last] = '\0';
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *size = sizeof *v6;
        return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    *size = sizeof *v4;
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1;
}

static bool is_loopback(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

cop_err cop_http_check(const char *address, bool *loopback, cop_error *error) {
    struct sockaddr_storage parsed;
    socklen_t size;
    if (!parse_address(address, &parsed, &size))
        return cop_fail(error, COP_ERR_INPUT,
                        "--http %.200s: expected ADDRESS:PORT, such as 127.0.0.1:8790 or "
                        "[::1]:8790, or off",
                        address);
    *loopback = is_loopback(&parsed);
    return COP_OK;
}

/* True: the value of the header Host names this machine itself: an IP address or localhost, with or
 * without a port. A page of another site that has pointed its own name at 127.0.0.1 sends its own
 * name here. */
static bool is_own_host(const char *host) {
    struct sockaddr_storage parsed;
    socklen_t size;
    char text[80];
    const char *end = strrchr(host, ']');
    if (strlen(host) >= sizeof text - 3) return false;
    snprintf(text, sizeof text, "%s%s", host, strchr(end ? end : host, ':') ? "" : ":80");
    return parse_address(text, &parsed, &size);
}

/* ---- answers ---- */

static unsigned status_of(cop_err code) {
    switch (code) {
    case COP_ERR_USAGE:
    case COP_ERR_INPUT:
    case COP_ERR_PROTOCOL:
        return MHD_HTTP_BAD_REQUEST;
    case COP_ERR_DENIED:
        return MHD_HTTP_UNAUTHORIZED;
    case COP_ERR_NOT_FOUND:
        return MHD_HTTP_NOT_FOUND;
    case COP_ERR_EXISTS:
    case COP_ERR_IN_USE:
    case COP_ERR_CANCELED:
    case COP_ERR_DIVERGED:
        return MHD_HTTP_CONFLICT;
    case COP_ERR_LIMIT:
    case COP_ERR_BUSY:
        return MHD_HTTP_TOO_MANY_REQUESTS;
    case COP_ERR_UNSUPPORTED:
        return MHD_HTTP_NOT_IMPLEMENTED;
    case COP_ERR_CLOSED:
    case COP_ERR_UNREACHABLE:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    case COP_ERR_TIMEOUT:
        return MHD_HTTP_GATEWAY_TIMEOUT;
    case COP_ERR_NO_SPACE:
        return MHD_HTTP_INSUFFICIENT_STORAGE;
    default:
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
}

void cop_http_answer(cop_http_request *request, unsigned status, const char *type,
                     const char *text) {
    COP_ASSERT(!request->answer);
    struct MHD_Response *answer = MHD_create_response_from_buffer_copy(strlen(text), text);
    if (!answer) return; /* out of memory: on_access closes the connection */
    MHD_add_response_header(answer, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(answer, MHD_HTTP_HEADER_CONNECTION, "close");
    MHD_add_response_header(answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(answer, MHD_HTTP_HEADER_X_CONTENT_TYPE_OPTIONS, "nosniff");
    if (status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(answer, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    request->status = status;
    request->answer = answer;
}

static void fail_with(cop_http_request *request, unsigned status, const cop_error *error,
                      const char *field) {
    cop_str text = {0};
    cop_str_printf(&text, "{\"error\":{\"code\":\"%s\",\"message\":", cop_err_name(error->code));
    cop_str_append_json(&text, error->text[0] ? error->text : cop_err_text(error->code));
    cop_str_append(&text, ",\"field\":");
    if (field)
        cop_str_append_json(&text, field);
    else
        cop_str_append(&text, "null");
    cop_str_append(&text, "}}\n");
    if (!text.failed) cop_http_answer(request, status, "application/json", cop_str_text(&text));
    cop_str_fini(&text);
}

void cop_http_fail(cop_http_request *request, const cop_error *error, const char *field) {
    COP_ASSERT(error->code != COP_OK);
    fail_with(request, status_of(error->code), error, field);
}

void cop_http_refuse_verb(cop_http_request *request, const char *allowed) {
    cop_error error = {0};
    cop_fail(&error, COP_ERR_USAGE, "%.200s is for %s, not %.20s", request->path, allowed,
             request->verb);
    fail_with(request, MHD_HTTP_METHOD_NOT_ALLOWED, &error, NULL);
    if (request->answer) MHD_add_response_header(request->answer, MHD_HTTP_HEADER_ALLOW, allowed);
}

/* ---- requests ---- */

static void set_phase(http_connection *place, http_phase phase) {
    uv_mutex_lock(&place->http->mutex);
    place->phase = phase;
    place->since_ns = cop_clock_ns();
    uv_mutex_unlock(&place->http->mutex);
}

static enum MHD_Result send_answer(cop_http_request *request) {
    set_phase(request->place, SENDING);
    if (!request->answer) return MHD_NO; /* out of memory: closes the connection */
    return MHD_queue_response(request->connection, request->status, request->answer);
}

/* Answers a request that the program does not get. False: there is nothing wrong with it. */
static bool refuse(cop_http_request *request) {
    const char *host =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    const char *length = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND,
                                                     MHD_HTTP_HEADER_CONTENT_LENGTH);
    uint64_t bytes = 0;
    cop_error error = {0};
    if (request->http->loopback && (!host || !is_own_host(host))) {
        cop_fail(&error, COP_ERR_DENIED, "this server is at %s: the header Host names another one",
                 request->http->address);
        fail_with(request, 421, &error, NULL); /* Misdirected Request */
    } else if (request->body > HTTP_BODY_MAX ||
               (length && cop_parse_u64(length, &bytes) && bytes > HTTP_BODY_MAX)) {
        cop_fail(&error, COP_ERR_LIMIT, "the body has more than %zu bytes", HTTP_BODY_MAX);
        fail_with(request, MHD_HTTP_CONTENT_TOO_LARGE, &error, NULL);
    } else if (request->argument_count > COP_HTTP_ARGUMENTS) {
        cop_fail(&error, COP_ERR_INPUT, "expected at most %d arguments", COP_HTTP_ARGUMENTS);
        cop_http_fail(request, &error, NULL);
    } else {
        return false;
    }
    return true;
}

static enum MHD_Result on_argument(void *context, enum MHD_ValueKind kind, const char *name,
                                   const char *value) {
    cop_http_request *request = context;
    (void)kind;
    if (request->argument_count < COP_HTTP_ARGUMENTS)
        request->arguments[request->argument_count] = (cop_http_argument){name, value ? value : ""};
    request->argument_count++;
    return request->argument_count > COP_HTTP_ARGUMENTS ? MHD_NO : MHD_YES;
}

static cop_http_request *begin(cop_http *http, struct MHD_Connection *connection, const char *url,
                               const char *verb) {
    cop_http_request *request = cop_alloc(sizeof *request);
    if (!request) return NULL;
    request->http = http;
    request->connection = connection;
    request->place =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    request->verb = strcmp(verb, "HEAD") == 0 ? "GET" : verb;
    request->path = url;
    request->token =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    request->token =
        request->token && strncasecmp(request->token, "Bearer ", 7) == 0 ? request->token + 7 : "";
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, on_argument, request);
    return request;
}

/* libmicrohttpd calls this when the headers of a request have arrived (*state is NULL), for each
 * piece of its body, at its end, and once more after cop_http_resume. */
static enum MHD_Result on_access(void *context, struct MHD_Connection *connection, const char *url,
                                 const char *verb, const char *version, const char *upload,
                                 size_t *upload_size, void **state) {
    cop_http *http = context;
    cop_http_request *request = *state;
    (void)version;
    (void)upload;
    if (!request) {
        *state = request = begin(http, connection, url, verb);
        if (!request || !request->place) return MHD_NO;
        return refuse(request) ? send_answer(request) : MHD_YES;
    }
    if (*upload_size) {
        request->body += *upload_size;
        *upload_size = 0;
        return request->body > HTTP_BODY_MAX ? MHD_NO : MHD_YES;
    }
    if (!request->handed) {
        request->handed = true;
        set_phase(request->place, HELD);
        /* First, because another thread may call cop_http_resume before on_request returns. */
        MHD_suspend_connection(connection);
        if (!http->handler.on_request(http->context, request)) MHD_resume_connection(connection);
        return MHD_YES;
    }
    if (!request->answer && request->attached) http->handler.on_request(http->context, request);
    return send_answer(request);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code) {
    cop_http *http = context;
    cop_http_request *request = *state;
    (void)connection;
    (void)code;
    if (!request) return;
    if (request->attached) http->handler.on_end(request->attached);
    if (request->answer) MHD_destroy_response(request->answer);
    cop_free(request);
    *state = NULL;
}

void cop_http_resume(cop_http_request *request) {
    MHD_resume_connection(request->connection);
}

const char *cop_http_verb(const cop_http_request *request) {
    return request->verb;
}

const char *cop_http_path(const cop_http_request *request) {
    return request->path;
}

const char *cop_http_token(const cop_http_request *request) {
    return request->token;
}

const cop_http_argument *cop_http_arguments(const cop_http_request *request, size_t *count) {
    *count = request->argument_count;
    return request->arguments;
}

void **cop_http_attached(cop_http_request *request) {
    return &request->attached;
}

/* ---- connections ---- */

static void on_connection(void *context, struct MHD_Connection *connection, void **place,
                          enum MHD_ConnectionNotificationCode code) {
    cop_http *http = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        http_connection *c = cop_alloc(sizeof *c);
        if (!c) return; /* on_access closes the connection */
        *c = (http_connection){
            .http = http,
            .fd =
                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
            .since_ns = cop_clock_ns()};
        uv_mutex_lock(&http->mutex);
        c->next = http->first;
        if (c->next) c->next->previous = c;
        http->first = c;
        uv_mutex_unlock(&http->mutex);
        *place = c;
    } else if (*place) { /* libmicrohttpd closes the socket after this call */
        http_connection *c = *place;
        uv_mutex_lock(&http->mutex);
        if (c->next) c->next->previous = c->previous;
        *(c->previous ? &c->previous->next : &http->first) = c->next;
        uv_mutex_unlock(&http->mutex);
        cop_free(c);
        *place = NULL;
    }
}

void cop_http_tick(cop_http *http) {
    const uint64_t now = cop_clock_ns();
    uv_mutex_lock(&http->mutex);
    for (http_connection *c = http->first; c; c = c->next) {
        const uint64_t limit_ns = (c->phase == READING ? HTTP_READ_S : HTTP_SEND_S) * SECOND_NS;
        if (c->phase != HELD && now > c->since_ns && now - c->since_ns > limit_ns)
            shutdown(c->fd, SHUT_RDWR);
    }
    uv_mutex_unlock(&http->mutex);
}

/* ---- start and stop ---- */

/* Opens a socket that listens, and writes its address with the port in use to http->address. */
static cop_err open_socket(cop_http *http, const char *address, int *out, cop_error *error) {
    struct sockaddr_storage parsed;
    socklen_t size = 0;
    bool good = parse_address(address, &parsed, &size);
    COP_ASSERT(good); /* cop_http_start has checked it */
    const int on = 1, fd = socket(parsed.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return cop_fail_errno(error, errno, "cannot listen on --http %s", address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&parsed, size) != 0 || listen(fd, 128) != 0) {
        const int number = errno;
        close(fd);
        if (number == EADDRINUSE)
            return cop_fail(error, COP_ERR_IN_USE,
                            "another program listens on --http %s: choose another port, or 0 for "
                            "any free one",
                            address);
        return cop_fail_errno(error, number, "cannot listen on --http %s", address);
    }
    getsockname(fd, (struct sockaddr *)&parsed, &size);
    const uint16_t port =
        ntohs(parsed.ss_family == AF_INET ? ((struct sockaddr_in *)&parsed)->sin_port
                                          : ((struct sockaddr_in6 *)&parsed)->sin6_port);
    snprintf(http->address, sizeof http->address, "%.*s:%u", (int)(strrchr(address, ':') - address),
             address, port);
    *out = fd;
    return COP_OK;
}

cop_err cop_http_start(const char *address, const cop_http_handler *handler, void *context,
                       cop_http **out, cop_error *error) {
    bool loopback;
    int fd = -1;
    COP_TRY(cop_http_check(address, &loopback, error));
    cop_http *http = cop_alloc(sizeof *http);
    if (!http) return cop_no_memory(error);
    http->handler = *handler;
    http->context = context;
    http->loopback = loopback;
    uv_mutex_init(&http->mutex);
    cop_err e = open_socket(http, address, &fd, error);
    if (!e) {
        http->daemon = MHD_start_daemon(
            MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_ALLOW_SUSPEND_RESUME, 0, NULL,
            NULL, on_access, http, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_CONNECTION,
            on_connection, http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
            MHD_OPTION_CONNECTION_LIMIT, (unsigned)COP_HTTP_CONNECTIONS_MAX,
            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEAD_MAX, MHD_OPTION_END);
        if (!http->daemon) {
            close(fd);
            e = cop_fail(error, COP_ERR_INTERNAL, "cannot start the HTTP server on %s", address);
        }
    }
    if (e) {
        uv_mutex_destroy(&http->mutex);
        cop_free(http);
        return e;
    }
    *out = http;
    return COP_OK;
}

const char *cop_http_address(const cop_http *http) {
    return http->address;
}

void cop_http_stop(cop_http *http) {
    if (!http) return;
    MHD_stop_daemon(http->daemon);
    COP_ASSERT(!http->first);
    uv_mutex_destroy(&http->mutex);
    cop_free(http);
}

#endif
