/* Checks each call of a client and hands it to the handler of its method. See api.h. */
#include "coordinator/api/api.h"

#include <stdio.h>

#include "coordinator/api/access.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/wire/codec.h"

/* ---- answers ---- */

void api_answer(cop_request *request, uint32_t method, const ProtobufCMessage *answer,
                cop_buffer *bulk) {
    cop_message reply = {.type = COP_MESSAGE_ANSWER, .answer = {.method = method}};
    reply.part[COP_PART_BODY] = cop_proto_pack(answer);
    reply.part[COP_PART_BULK] = bulk;
    if (!reply.part[COP_PART_BODY]) {
        cop_message_fini(&reply);
        coord_reply_failure(request, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
        return;
    }
    cop_server_reply(request, &reply);
}

void api_fail(cop_request *request, const cop_error *error, cop_err code) {
    COP_ASSERT(code != COP_OK);
    coord_reply_failure(request, code, "%s",
                        error && error->text[0] ? error->text : cop_err_text(code));
}

/* ---- methods ---- */

typedef struct api_method {
    api_handler handler;
    const ProtobufCMessageDescriptor *request;
    bool large;      /* a call holds a model, a data set or a history in memory */
    size_t bulk_max; /* how many bytes of data may come with a call, in addition to its message */
} api_method;

/* X(METHOD, name, large, bulk_max): the handler is api_NAME, and the message NAME_request. */
#define METHOD_TABLE(X)                                                                            \
    X(SUBMIT, submit, false, 0)                                                                    \
    X(LIST_JOBS, list_jobs, false, 0)                                                              \
    X(GET_JOB, get_job, false, 0)                                                                  \
    X(WATCH_JOB, watch_job, false, 0)                                                              \
    X(CONTROL_JOB, control_job, false, 0)                                                          \
    X(LOGS, logs, false, 0)                                                                        \
    X(LIST_WORKERS, list_workers, false, 0)                                                        \
    X(DRAIN_WORKER, drain_worker, false, 0)                                                        \
    X(EXPORT_MODEL, export_model, true, 0)                                                         \
    X(LIST_DATA, list_data, false, 0)                                                              \
    X(OFFER_DATA, offer_data, false, 0)                                                            \
    X(PUT_CHUNK, put_chunk, false, COP_CHUNK_SIZE)                                                 \
    X(COMMIT_DATA, commit_data, true, 0)                                                           \
    X(REMOVE_DATA, remove_data, false, 0)                                                          \
    X(EVALUATE, evaluate, false, 0)                                                                \
    X(INFO, info, false, 0)                                                                        \
    X(START_EVALUATION, start_evaluation, false, 0)                                                \
    X(WATCH_EVALUATION, watch_evaluation, false, 0)                                                \
    X(HISTORY, history, true, 0)                                                                   \
    X(METRICS, metrics, false, 0)

static const api_method methods[] = {
#define X(METHOD, name, is_large, max)                                                             \
    [COPPICE__API__METHOD__##METHOD] = {.handler = api_##name,                                     \
                                        .request = &coppice__api__##name##_request__descriptor,    \
                                        .large = is_large,                                         \
                                        .bulk_max = max},
    METHOD_TABLE(X)
#undef X
};
#define METHODS (sizeof methods / sizeof *methods)

/* Returns the row of the method. NULL: the method is unknown. */
static const api_method *find_method(uint32_t method) {
    return method < METHODS && methods[method].handler ? &methods[method] : NULL;
}

bool api_method_is_large(uint32_t method) {
    const api_method *m = find_method(method);
    COP_ASSERT(m != NULL);
    return m->large;
}

/* Every method needs the role of a client. */
bool coord_api_right_at(size_t at, coord_right *out) {
    for (uint32_t method = 0; method < METHODS; method++) {
        if (!methods[method].handler) continue;
        if (at) {
            at--;
            continue;
        }
        const ProtobufCEnumValue *value =
            protobuf_c_enum_descriptor_get_value(&coppice__api__method__descriptor, (int)method);
        *out = (coord_right){COP_MESSAGE_CALL, method, value ? value->name : "?", COP_ROLE_CLIENT};
        return true;
    }
    return false;
}

/* ---- calls ---- */

/* Checks the size of the parts of a call. They stay in memory while the call is worked on, so a
 * call must not bring more bytes than its method needs. */
static cop_err check_parts(const cop_message *m, const api_method *method, cop_error *error) {
    const cop_buffer *body = m->part[COP_PART_BODY], *bulk = m->part[COP_PART_BULK];
    if (!body) return cop_fail(error, COP_ERR_PROTOCOL, "it has no request");
    if (body->size > API_BUDGET)
        return cop_fail(error, COP_ERR_PROTOCOL, "its request has %zu bytes: expected at most %u",
                        body->size, API_BUDGET);
    if (bulk && bulk->size > method->bulk_max)
        return cop_fail(error, COP_ERR_PROTOCOL, "%zu bytes came with it: expected at most %zu",
                        bulk->size, method->bulk_max);
    for (int i = COP_PART_BULK + 1; i < COP_MESSAGE_PARTS; i++)
        if (m->part[i]) return cop_fail(error, COP_ERR_PROTOCOL, "it has too many parts");
    return COP_OK;
}

/* Unpacks the message of the call and passes it to the handler, or answers FAILURE. */
static void handle(coord_api *api, cop_request *request, const api_method *method) {
    const cop_message *m = cop_request_message(request);
    cop_error error = {0};
    ProtobufCMessage *message = NULL;
    cop_err e = check_parts(m, method, &error);
    if (!e)
        e = cop_proto_unpack(method->request, m->part[COP_PART_BODY]->data,
                             m->part[COP_PART_BODY]->size, API_BUDGET, &message, &error);
    if (!e)
        method->handler(api, request, message);
    else if (e == COP_ERR_NO_MEMORY)
        coord_reply_failure(request, e, "%s", error.text);
    else
        coord_reply_failure(request, COP_ERR_PROTOCOL, "the call is malformed: %s", error.text);
}

void coord_api_on_call(coord_api *api, cop_request *request) {
    const cop_call *call = &cop_request_message(request)->call;
    const api_method *method = find_method(call->method);
    if (call->major != COP_PROTOCOL_MAJOR)
        coord_reply_failure(request, COP_ERR_VERSION,
                            "this coordinator speaks protocol %d.%d, you speak %u.%u",
                            COP_PROTOCOL_MAJOR, COP_PROTOCOL_MINOR, call->major, call->minor);
    else if (!coord_access_token(api->access, request, call->token))
        return;
    else if (!method)
        coord_reply_failure(request, COP_ERR_UNSUPPORTED,
                            "this coordinator does not know method %u: it is older than your "
                            "client",
                            call->method);
    else if (api->engine->stopping)
        coord_reply_failure(request, COP_ERR_CLOSED, "the coordinator is stopping");
    else
        handle(api, request, method);
}

/* ---- life ---- */

void coord_api_destroy(coord_api *api) {
    COP_ASSERT(api->tasks == 0 && !api->committing); /* coord_api_release has waited for them */
    cop_free(api->notes);
    cop_free(api);
}

static void on_changed(coord_engine *engine, uint64_t job) {
    coord_api_changed(api_of(engine), job);
}

static const coord_listener listener = {
    .load = api_load, .rollback = api_rollback, .note = api_note_action, .changed = on_changed};

cop_err coord_api_create(coord_engine *engine, const coord_access *access, coord_api **out,
                         cop_error *error) {
    COP_ASSERT(!engine->listener);
    coord_api *api = cop_alloc(sizeof *api);
    if (!api) return cop_no_memory(error);
    api->engine = engine;
    api->access = access;
    api->started_ns = cop_clock_ns();
    engine->listener = &listener;
    engine->listener_state = api;
    *out = api;
    return COP_OK;
}
