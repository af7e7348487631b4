/* The HTTP routes. The table below maps each route to a method of the API (api.c): the path and the
 * arguments after the ? are fields of the method's request. The request travels as a CALL with the
 * token of the header Authorization, so it gets the same checks and limits as a request of
 * `coppice`. The answer is the JSON that `--json` prints. docs/reference/http.md lists the routes;
 * a test compares the two.
 *
 * The functions run on the HTTP server's thread, except where a comment names the loop. */
#include "coordinator/api/http.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/net/http.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "common/wire/reflect.h"
#include "proto/api.pb-c.h"

#define ANSWER_BUDGET (64u << 20)           /* memory of an unpacked answer */
#define ALIVE_NS      UINT64_C(60000000000) /* after this time without a tick: not alive */
#define READY_NS      UINT64_C(5000000000)  /* ...: not ready */
#define PROMETHEUS    "text/plain; version=0.0.4; charset=utf-8" /* Prometheus 3 requires it */

struct coord_http {
    cop_http *server;
    cop_server *transport;
    atomic_ullong ticked_ns; /* time of the last tick */
    atomic_bool ready;
};

typedef struct http_route {
    const char *verb;
    const char *path; /* {name} stands for the field `name` of the request */
    Coppice__Api__Method method;
    const ProtobufCMessageDescriptor *request, *answer;
    const char *members; /* of the request, as JSON; "": none */
    const char *part;    /* the field of the answer that is sent; NULL: the whole answer */
} http_route;

#define ROUTE(verb, path, METHOD, name, members, part)                                             \
    {verb,                                                                                         \
     path,                                                                                         \
     COPPICE__API__METHOD__##METHOD,                                                               \
     &coppice__api__##name##_request__descriptor,                                                  \
     &coppice__api__##name##_answer__descriptor,                                                   \
     members,                                                                                      \
     part}
static const http_route routes[] = {
    ROUTE("GET", "/metrics", METRICS, metrics, "", "text"),
    ROUTE("GET", "/api/v1/jobs", LIST_JOBS, list_jobs, "", NULL),
    ROUTE("GET", "/api/v1/jobs/{job}", GET_JOB, get_job, "", "status"),
    ROUTE("GET", "/api/v1/jobs/{job}/history", HISTORY, history, "", NULL),
    ROUTE("GET", "/api/v1/jobs/{job}/logs", LOGS, logs, "", NULL),
    ROUTE("POST", "/api/v1/jobs/{job}/pause", CONTROL_JOB, control_job, "\"action\":\"pause\"",
          "status"),
    ROUTE("POST", "/api/v1/jobs/{job}/resume", CONTROL_JOB, control_job, "\"action\":\"resume\"",
          "status"),
    ROUTE("POST", "/api/v1/jobs/{job}/cancel", CONTROL_JOB, control_job, "\"action\":\"cancel\"",
          "status"),
    ROUTE("GET", "/api/v1/workers", LIST_WORKERS, list_workers, "", NULL),
    ROUTE("POST", "/api/v1/workers/{name}/drain", DRAIN_WORKER, drain_worker, "", "status"),
    ROUTE("GET", "/api/v1/data", LIST_DATA, list_data, "", NULL),
    ROUTE("GET", "/api/v1/info", INFO, info, "", NULL),
};
#define ROUTES (sizeof routes / sizeof *routes)

/* A request that waits for its answer. */
typedef struct http_call {
    cop_http_request *request;
    const http_route *route;
    cop_message reply; /* type 0: the transport has dropped the request */
} http_call;

/* ---- finding the route ---- */

/* What the path of a request says. */
typedef struct path_match {
    const http_route *route;
    bool matches;
    char field[32];  /* the name in braces; "": the path has none */
    char value[256]; /* what the path has in its place */
} path_match;

/* Compares a path with the path of a route. */
static path_match match_path(const char *pattern, const char *path) {
    path_match m = {0};
    const char *open = strchr(pattern, '{'), *close = open ? strchr(open, '}') : NULL;
    if (!open || !close) {
        m.matches = strcmp(pattern, path) == 0;
        return m;
    }
    const size_t before = (size_t)(open - pattern);
    if (strncmp(pattern, path, before) != 0) return m;
    const size_t length = strcspn(path + before, "/");
    if (!length || length >= sizeof m.value || strcmp(path + before + length, close + 1) != 0)
        return m;
    m.matches = true;
    snprintf(m.field, sizeof m.field, "%.*s", (int)(close - open - 1), open + 1);
    snprintf(m.value, sizeof m.value, "%.*s", (int)length, path + before);
    return m;
}

/* Finds the route of a request. False: there is none; the request was answered with 404 or 405. */
static bool find_route(cop_http_request *request, path_match *match) {
    const char *verb = cop_http_verb(request), *path = cop_http_path(request), *other = NULL;
    cop_error error = {0};
    for (size_t i = 0; i < ROUTES; i++) {
        *match = match_path(routes[i].path, path);
        if (!match->matches) continue;
        match->route = &routes[i];
        if (strcmp(routes[i].verb, verb) == 0) return true;
        other = routes[i].verb;
    }
    if (other) {
        cop_http_refuse_verb(request, other);
        return false;
    }
    cop_fail(&error, COP_ERR_NOT_FOUND,
             "there is no %.20s %.200s (docs/reference/http.md lists the routes)", verb, path);
    cop_http_fail(request, &error, NULL);
    return false;
}

/* ---- the request ---- */

static bool is_text(const ProtobufCFieldDescriptor *field) {
    return field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_ENUM;
}

/* Appends a member to the JSON of a request. INPUT: the request has no such field, or the value is
 * not valid. */
static cop_err add_member(const http_route *route, const char *name, const char *value,
                          cop_str *json, cop_error *error) {
    const ProtobufCFieldDescriptor *field = cop_reflect_find(route->request, name);
    if (!field || field->type == PROTOBUF_C_TYPE_MESSAGE ||
        field->label == PROTOBUF_C_LABEL_REPEATED)
        return cop_fail(error, COP_ERR_INPUT, "unknown argument \"%.64s\"", name);
    const size_t digits = strspn(value, "0123456789");
    const bool number = digits > 0 && digits <= 20 && !value[digits];
    const bool flag = strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
    if (!is_text(field) && !number && !flag)
        return cop_fail(error, COP_ERR_INPUT, "%s=%.64s: expected a whole number%s", name, value,
                        field->type == PROTOBUF_C_TYPE_BOOL ? ", true or false" : "");
    cop_str_printf(json, "%s\"%s\":", json->length > 1 ? "," : "", name);
    const size_t before = json->length;
    if (is_text(field))
        cop_str_append_json(json, value);
    else
        cop_str_append(json, value);
    if (field->type == PROTOBUF_C_TYPE_ENUM) /* the reader of JSON expects lower case */
        for (size_t i = before; i < json->length; i++)
            json->text[i] = (char)tolower((unsigned char)json->text[i]);
    return COP_OK;
}

/* Writes the request as JSON. *wrong becomes the argument that an error is about. */
static cop_err write_json(cop_http_request *request, const path_match *match, cop_str *json,
                          const char **wrong, cop_error *error) {
    size_t count;
    const cop_http_argument *arguments = cop_http_arguments(request, &count);
    cop_str_printf(json, "{%s", match->route->members);
    if (match->field[0]) {
        *wrong = match->field;
        COP_TRY(add_member(match->route, match->field, match->value, json, error));
    }
    for (size_t i = 0; i < count; i++) {
        *wrong = arguments[i].name;
        COP_TRY(add_member(match->route, arguments[i].name, arguments[i].value, json, error));
    }
    *wrong = NULL;
    cop_str_append(json, "}");
    return json->failed ? cop_no_memory(error) : COP_OK;
}

/* Makes the packed request of the route. */
static cop_err make_body(cop_http_request *request, const path_match *match, cop_buffer **out,
                         const char **wrong, cop_error *error) {
    cop_str json = {0};
    ProtobufCMessage *message = NULL;
    cop_err e = write_json(request, match, &json, wrong, error);
    if (!e) {
        cop_json_stream stream = {
            .name = "request", .at = json.text, .end = json.text + json.length};
        e = cop_document_next_json(&stream, match->route->request, &message, error);
    }
    if (!e) {
        *out = cop_proto_pack(message);
        if (!*out) e = cop_no_memory(error);
    }
    cop_proto_free(message);
    cop_str_fini(&json);
    return e;
}

/* ---- the call ---- */

/* Takes the reply of the transport. Usually on the loop thread. */
static void on_reply(void *context, cop_message *reply) {
    http_call *call = context;
    if (reply) {
        call->reply = *reply;
        memset(reply, 0, sizeof *reply);
    }
    cop_http_resume(call->request);
}

static void free_call(void *attached) {
    http_call *call = attached;
    cop_message_fini(&call->reply);
    cop_free(call);
}

/* Sends the call to the transport. */
static cop_err send_call(coord_http *http, http_call *call, cop_buffer *body, cop_error *error) {
    cop_message message = {.type = COP_MESSAGE_CALL};
    const char *token = cop_http_token(call->request);
    message.call.method = (uint32_t)call->route->method;
    message.call.major = COP_PROTOCOL_MAJOR;
    message.call.minor = COP_PROTOCOL_MINOR;
    if (strlen(token) < sizeof message.call.token)
        snprintf(message.call.token, sizeof message.call.token, "%s", token);
    message.part[COP_PART_BODY] = body;
    if (cop_server_submit(http->transport, &message, "http", on_reply, call)) return COP_OK;
    cop_message_fini(&message);
    return cop_fail(error, COP_ERR_CLOSED, "the coordinator is stopping");
}

/* Starts the call that a request asks for. False: the request was answered with an error. */
static bool start_call(coord_http *http, cop_http_request *request) {
    path_match match;
    const char *wrong = NULL;
    cop_buffer *body = NULL;
    cop_error error = {0};
    if (!find_route(request, &match)) return false;
    http_call *call = cop_alloc(sizeof *call);
    cop_err e = call ? make_body(request, &match, &body, &wrong, &error) : cop_no_memory(&error);
    if (!e) {
        *call = (http_call){.request = request, .route = match.route};
        *cop_http_attached(request) = call;
        e = send_call(http, call, body, &error);
    } else {
        cop_free(call);
    }
    error.code = e;
    if (e) cop_http_fail(request, &error, wrong);
    return !e;
}

/* ---- the answer ---- */

/* Answers with the whole answer, or with the part of it that the route names. */
static void answer_with(cop_http_request *request, const http_route *route,
                        const ProtobufCMessage *answer) {
    const ProtobufCFieldDescriptor *field = cop_reflect_find(route->answer, route->part);
    cop_error error = {0};
    if (field && field->type == PROTOBUF_C_TYPE_STRING) {
        const char *const *text = cop_reflect_at(answer, field, 0);
        cop_http_answer(request, 200, PROMETHEUS, *text ? *text : "");
        return;
    }
    cop_str json = {0};
    const ProtobufCMessage *shown = field ? cop_reflect_message(answer, field, 0) : answer;
    if (shown)
        cop_document_print_json(shown, 0, &json);
    else
        cop_str_append(&json, "{}");
    cop_str_append(&json, "\n");
    if (json.failed) {
        cop_no_memory(&error);
        cop_http_fail(request, &error, NULL);
    } else {
        cop_http_answer(request, 200, "application/json", cop_str_text(&json));
    }
    cop_str_fini(&json);
}

static void finish_call(cop_http_request *request, const http_call *call) {
    const cop_message *reply = &call->reply;
    const cop_buffer *body = reply->part[COP_PART_BODY];
    cop_error error = {0};
    ProtobufCMessage *answer = NULL;
    if (reply->type == COP_MESSAGE_FAILURE)
        error.code = cop_fail(&error, reply->failure.code, "%s", reply->failure.text);
    else if (reply->type != COP_MESSAGE_ANSWER || !body)
        error.code = cop_fail(&error, COP_ERR_CLOSED, "the coordinator is stopping");
    else
        error.code = cop_proto_unpack(call->route->answer, body->data, body->size, ANSWER_BUDGET,
                                      &answer, &error);
    if (error.code)
        cop_http_fail(request, &error, NULL);
    else
        answer_with(request, call->route, answer);
    cop_proto_free(answer);
}

/* ---- life ---- */

/* Answers a probe. It needs no credentials, and its answer shows nothing else. */
static void answer_probe(coord_http *http, cop_http_request *request, bool is_ready) {
    const uint64_t limit = is_ready ? READY_NS : ALIVE_NS;
    const uint64_t ticked = atomic_load(&http->ticked_ns), now = cop_clock_ns();
    const bool good =
        (now < ticked || now - ticked < limit) && (!is_ready || atomic_load(&http->ready));
    cop_http_answer(request, good ? 200 : 503, "text/plain", good ? "ok\n" : "not ok\n");
}

static bool on_request(void *context, cop_http_request *request) {
    coord_http *http = context;
    const char *path = cop_http_path(request);
    const bool get = strcmp(cop_http_verb(request), "GET") == 0;
    if (*cop_http_attached(request))
        finish_call(request, *cop_http_attached(request));
    else if (get && (strcmp(path, "/livez") == 0 || strcmp(path, "/readyz") == 0))
        answer_probe(http, request, path[1] == 'r');
    else
        return start_call(http, request);
    return false;
}

cop_err coord_http_start(const char *address, cop_server *transport, coord_http **out,
                         cop_error *error) {
    static const cop_http_handler handler = {.on_request = on_request, .on_end = free_call};
    coord_http *http = cop_alloc(sizeof *http);
    if (!http) return cop_no_memory(error);
    http->transport = transport;
    atomic_init(&http->ticked_ns, cop_clock_ns());
    atomic_init(&http->ready, true);
    cop_err e = cop_http_start(address, &handler, http, &http->server, error);
    if (e) {
        cop_free(http);
        return e;
    }
    cop_log(COP_LOG_INFO, "coordinator", "listening on http://%s", cop_http_address(http->server));
    *out = http;
    return COP_OK;
}

void coord_http_tick(coord_http *http, bool ready) {
    atomic_store(&http->ticked_ns, cop_clock_ns());
    atomic_store(&http->ready, ready);
    cop_http_tick(http->server);
}

void coord_http_stop(coord_http *http) {
    if (!http) return;
    cop_http_stop(http->server);
    cop_free(http);
}
