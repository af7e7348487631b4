/* Work of the API on libuv's thread pool, and its limits. A call that needs the thread pool takes a
 * place and keeps it until its answer has left. So for each identity there is a limit to the tasks,
 * to the messages in memory, and to the answers that its clients have not read yet. See api.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"

/* ---- places ---- */

/* How many places are taken. */
typedef struct taken {
    uint32_t total; /* number of places that all identities use */
    uint32_t owned; /* number of places that one identity uses */
} taken;

/* Counts the places that are taken by large calls, or, if large_only is false, by all calls. */
static taken count_taken(const coord_api *api, const char *identity, bool large_only) {
    taken t = {0};
    for (uint32_t i = 0; i < COP_CALLS_MAX; i++) {
        const api_place *p = &api->places[i];
        if (!atomic_load(&p->taken) || (large_only && !p->large)) continue;
        t.total++;
        t.owned += strcmp(p->identity, identity) == 0;
    }
    return t;
}

/* BUSY: no place, or no place for large calls if large_only, is left for this identity. */
static cop_err check_share(const coord_api *api, const char *identity, bool large_only,
                           cop_error *error) {
    const uint32_t all = large_only ? COP_LARGE_CALLS_MAX : COP_CALLS_MAX;
    const uint32_t share = coord_access_share(
        api->access, large_only ? COP_LARGE_CALLS_PER_IDENTITY_MAX : COP_CALLS_PER_IDENTITY_MAX,
        all);
    const taken t = count_taken(api, identity, large_only);
    if (t.total < all && t.owned < share) return COP_OK;
    return cop_fail(error, COP_ERR_BUSY,
                    "the coordinator is working on %u requests of this kind, %u of them yours: try "
                    "again when one has ended",
                    t.total, t.owned);
}

/* Takes a place for the call. BUSY: its identity may not have one more call of this kind. */
static cop_err take_place(coord_api *api, const cop_request *request, api_place **out,
                          cop_error *error) {
    const char *identity = coord_access_identity(request);
    const bool large = api_method_is_large(cop_request_message(request)->call.method);
    COP_TRY(check_share(api, identity, false, error));
    if (large) COP_TRY(check_share(api, identity, true, error));
    api_place *p = api->places;
    while (p < api->places + COP_CALLS_MAX && atomic_load(&p->taken)) p++;
    COP_ASSERT(p < api->places + COP_CALLS_MAX); /* check_share has counted fewer taken places */
    snprintf(p->identity, sizeof p->identity, "%s", identity);
    p->large = large;
    atomic_store(&p->taken, true);
    *out = p;
    return COP_OK;
}

static void free_place(api_place *place) {
    COP_ASSERT(atomic_load(&place->taken));
    atomic_store(&place->taken, false);
}

/* Frees the place of a call. The transport releases the receipt when the answer has left or was
 * dropped, and the release calls this function. Any thread. */
static void on_answer_left(cop_buffer *receipt) {
    free_place(receipt->owner);
    cop_free(receipt);
}

/* ---- tasks ---- */

api_task *api_task_create(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    cop_error error = {0};
    api_place *place = NULL;
    cop_err e = request ? take_place(api, request, &place, &error) : COP_OK;
    api_task *task = e ? NULL : cop_alloc(sizeof *task);
    if (!e && !task) e = cop_fail(&error, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    if (e) {
        if (place) free_place(place);
        if (request) api_fail(request, &error, e);
        cop_proto_free(message);
        return NULL;
    }
    task->api = api;
    task->request = request;
    task->message = message;
    task->place = place;
    task->uv.data = task;
    if (request) cop_request_release_parts(request);
    return task;
}

void api_task_free(api_task *task) {
    if (task->place) free_place(task->place);
    cop_proto_free(task->message);
    cop_proto_free(task->answer);
    if (task->built) cop_job_release(task->built);
    cop_data_destroy(task->data);
    cop_buffer_release(task->bulk_in);
    cop_buffer_release(task->bulk_out);
    cop_str_fini(&task->text);
    cop_free(task->extra);
    cop_free(task);
}

static void run_work(uv_work_t *work) {
    api_task *task = work->data;
    cop_compute_thread_init();
    task->work(task);
}

static void work_done(uv_work_t *work, int status) {
    api_task *task = work->data;
    (void)status;
    COP_ASSERT(task->api->tasks > 0);
    task->api->tasks--;
    task->done(task);
}

void api_task_start(api_task *task, void (*work)(api_task *), void (*done)(api_task *)) {
    COP_ASSERT(work && done);
    COP_ASSERT(!task->request || task->place); /* every call has a place */
    task->work = work;
    task->done = done;
    task->api->tasks++;
    uv_queue_work(&task->api->engine->loop, &task->uv, run_work, work_done);
}

void api_run(coord_api *api, cop_request *request, ProtobufCMessage *message,
             void (*work)(api_task *), void (*done)(api_task *)) {
    cop_buffer *bulk = cop_request_message(request)->part[COP_PART_BULK];
    if (bulk) cop_buffer_hold(bulk);
    api_task *task = api_task_create(api, request, message);
    if (!task) {
        cop_buffer_release(bulk);
        return;
    }
    task->bulk_in = bulk;
    api_task_start(task, work, done);
}

void api_task_finish(api_task *task, uint32_t method, const ProtobufCMessage *answer) {
    if (task->result) {
        api_fail(task->request, &task->error, task->result);
        api_task_free(task);
        return;
    }
    cop_message reply = {.type = COP_MESSAGE_ANSWER, .answer = {.method = method}};
    cop_buffer *receipt = cop_buffer_wrap(NULL, 0, task->place, on_answer_left);
    reply.part[COP_PART_BODY] = cop_proto_pack(answer);
    if (reply.part[COP_PART_BODY] && receipt) {
        reply.part[COP_PART_BULK] = task->bulk_out;
        reply.receipt = receipt;
        task->place = NULL; /* the receipt frees it */
        task->bulk_out = NULL;
        cop_server_reply(task->request, &reply);
    } else {
        cop_message_fini(&reply);
        cop_free(receipt); /* a release would free the place, which api_task_free does below */
        coord_reply_failure(task->request, COP_ERR_NO_MEMORY, "the coordinator is out of memory");
    }
    api_task_free(task);
}
