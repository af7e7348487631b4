/* What clients ask: calls are checked and handed to their handlers; what the core says of jobs is
 * noted for those who watch. See api.h. */
#include "coordinator/api/api.h"

#include <math.h>
#include <stdio.h>

#include "coordinator/api/access.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/wire/codec.h"

/* ---- answers and tasks ---- */

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
    coord_reply_failure(request, code, "%s",
                        error && error->text[0] ? error->text : cop_err_text(code));
}

api_task *api_task_create(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    api_task *task = cop_alloc(sizeof *task);
    if (!task) {
        if (request) api_fail(request, NULL, COP_ERR_NO_MEMORY);
        if (message) cop_proto_free(message);
        return NULL;
    }
    task->api = api;
    task->request = request;
    task->message = message;
    task->uv.data = task;
    return task;
}

void api_task_free(api_task *task) {
    if (task->message) cop_proto_free(task->message);
    if (task->answer) cop_proto_free(task->answer);
    if (task->built) cop_job_destroy(task->built);
    if (task->data) cop_data_destroy(task->data);
    cop_buffer_release(task->bulk);
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
    task->api->tasks--;
    task->done(task);
}

void api_task_start(api_task *task) {
    task->api->tasks++;
    uv_queue_work(&task->api->engine->loop, &task->uv, run_work, work_done);
}

/* ---- notes ---- */

uint32_t api_note_place(const coord_api *api, uint64_t job) {
    uint32_t low = 0, high = api->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (api->notes[middle].job < job)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

api_note *api_note_find(coord_api *api, uint64_t job) {
    uint32_t at = api_note_place(api, job);
    return at < api->count && api->notes[at].job == job ? &api->notes[at] : NULL;
}

/* A note at the end of the table, whatever its number. */
api_note *api_note_append(coord_api *api, uint64_t job) {
    if (api->count == api->capacity) {
        uint32_t capacity = api->capacity ? api->capacity * 2 : 64;
        api_note *notes = cop_realloc(api->notes, capacity * sizeof *notes);
        if (!notes) return NULL;
        api->notes = notes;
        api->capacity = capacity;
    }
    api_note *n = &api->notes[api->count++];
    *n = (api_note){.job = job, .version = 1, .state = COORD_QUEUED};
    return n;
}

api_note *api_note_add(coord_api *api, uint64_t job) {
    uint32_t at = api_note_place(api, job);
    api_note *n = api_note_append(api, job);
    if (!n) return NULL;
    api_note kept = *n;
    memmove(&api->notes[at + 1], &api->notes[at], (api->count - 1 - at) * sizeof *api->notes);
    api->notes[at] = kept;
    return &api->notes[at];
}

void api_note_remove(coord_api *api, uint64_t job) {
    uint32_t at = api_note_place(api, job);
    if (at == api->count || api->notes[at].job != job) return;
    memmove(&api->notes[at], &api->notes[at + 1], (api->count - at - 1) * sizeof *api->notes);
    api->count--;
}

const char *api_state_name(coord_job_state state) {
    static const char *const names[] = {"?",         "QUEUED", "RUNNING", "PAUSED",
                                        "COMPLETED", "FAILED", "CANCELED"};
    return state >= COORD_QUEUED && state <= COORD_CANCELED ? names[state] : names[0];
}

static void status_leases(const coord_lease_counts *c, Coppice__Api__JobStatus *s) {
    s->has_leases_given = s->has_leases_repeated = s->has_leases_doubled = 1;
    s->leases_given = c->given;
    s->leases_repeated = c->repeated;
    s->leases_doubled = c->doubled;
    s->has_results_ignored = s->has_results_late = s->has_results_twice = s->has_results_stale = 1;
    s->results_ignored = c->late + c->twice + c->stale;
    s->results_late = c->late;
    s->results_twice = c->twice;
    s->results_stale = c->stale;
    s->has_blocks_audited = s->has_results_compared = s->has_results_disputed = 1;
    s->blocks_audited = c->audited;
    s->results_compared = c->compared;
    s->results_disputed = c->disputed;
    s->has_rollbacks = 1;
    s->rollbacks = c->rollbacks;
}

void api_status(coord_api *api, const api_note *n, Coppice__Api__JobStatus *s) {
    coord_job_view view;
    coppice__api__job_status__init(s);
    s->has_job = s->has_state = s->has_step = s->has_steps = s->has_seconds = s->has_priority = 1;
    s->has_epoch = !n->evaluation;
    s->job = n->job;
    s->name = (char *)(uintptr_t)n->name;
    s->owner = n->owner[0] ? (char *)(uintptr_t)n->owner : NULL;
    s->state = (Coppice__Api__State)n->state;
    s->step = n->step;
    s->steps = n->steps;
    s->epoch = n->steps_per_epoch ? (double)n->step / (double)n->steps_per_epoch : 0;
    s->seconds = n->seconds;
    s->priority = n->priority;
    s->has_train_loss = n->has_train_loss;
    s->train_loss = n->train_loss;
    s->has_test_loss = n->has_evaluation;
    s->has_test_error = n->has_evaluation && !isnan(n->test_error);
    s->test_error = n->test_error;
    s->test_loss = n->test_loss;
    if (n->has_evaluation)
        s->evaluated_on = (char *)(uintptr_t)(n->on_test ? "test" : "validation");
    s->digest = n->digest[0] ? (char *)(uintptr_t)n->digest : NULL;
    s->error = n->text[0] ? (char *)(uintptr_t)n->text : NULL;
    s->warning = n->warning[0] ? (char *)(uintptr_t)n->warning : NULL;
    s->created = (char *)(uintptr_t)n->created;
    s->finished = n->finished[0] ? (char *)(uintptr_t)n->finished : NULL;
    s->has_workers = 1;
    status_leases(&n->leases, s);
    s->has_samples_per_s = n->seconds > 0; /* the mean; while it runs, the speed of now */
    if (s->has_samples_per_s) s->samples_per_s = (double)n->step * n->batch / n->seconds;
    if (!coord_core_job(api->engine->core, n->job, cop_clock_ns(), &view)) return;
    s->workers = view.workers;
    s->has_eta_seconds = view.samples_per_s > 0;
    if (view.samples_per_s > 0) s->has_samples_per_s = 1, s->samples_per_s = view.samples_per_s;
    s->eta_seconds = view.eta_seconds;
    s->waiting_for = (char *)(uintptr_t)view.waiting_for;
}

static void note_metrics(api_note *n, const coord_action *a) {
    double samples = (double)a->metrics.samples;
    if (!a->metrics.samples) return;
    n->seconds = a->metrics.seconds;
    switch (a->type) {
    case COORD_ACTION_METRICS:
        n->step = a->step;
        n->epoch_loss_sum += a->metrics.loss_sum;
        n->samples += a->metrics.samples;
        if (a->step <= n->steps_per_epoch) { /* the first epoch: so far */
            n->train_loss = n->epoch_loss_sum / (double)n->samples;
            n->has_train_loss = true;
        }
        break;
    case COORD_ACTION_EPOCH:
        n->train_loss = a->metrics.loss_sum / samples;
        n->has_train_loss = true;
        n->epoch_loss_sum = 0;
        n->samples = 0;
        break;
    case COORD_ACTION_EVALUATED:
        n->test_error = a->metrics.error;
        n->test_loss = a->metrics.loss_sum / samples;
        n->has_evaluation = true;
        n->evaluated_step = a->step;
        n->evaluated_samples = a->metrics.samples;
        break;
    default:
        break;
    }
}

/* Each change of state is a line of the job's log; an ended job needs its data no more. */
static void note_state(coord_api *api, api_note *n, const coord_action *a) {
    char text[300];
    bool ends = a->state >= COORD_COMPLETED && n->state < COORD_COMPLETED;
    n->state = a->state;
    if (n->evaluation && a->state == COORD_COMPLETED) n->step = n->steps;
    snprintf(n->text, sizeof n->text, "%s", a->text);
    snprintf(text, sizeof text, "%s%s%s", api_state_name(a->state), a->text[0] ? ": " : "",
             a->text);
    if (!n->evaluation)
        coord_store_add_event(api->engine->store, n->job,
                              a->state == COORD_FAILED ? "error" : "info", text);
    n->finished[0] = '\0';
    if (a->state >= COORD_COMPLETED) cop_clock_format_utc(cop_clock_unix_ms(), n->finished);
    if (ends) coord_datasets_release(api->engine->datasets, n->data_digest);
}

/* What the core forgets with the job. */
static void note_leases(coord_api *api, api_note *n) {
    coord_job_view view;
    if (!coord_core_job(api->engine->core, n->job, 0, &view)) return;
    n->leases = view.leases;
    if (!n->evaluation) return;
    n->step = view.blocks_done;
    n->steps = view.blocks;
}

static void note_action(coord_engine *engine, const coord_action *a, const char *digest,
                        const char *warning) {
    coord_api *api = api_of(engine);
    api_note *n = api_note_find(api, a->job);
    if (!n) return;
    n->version++;
    note_leases(api, n);
    if (a->type == COORD_ACTION_STATE) {
        note_state(api, n, a);
    } else if (a->type == COORD_ACTION_CHECKPOINT) {
        if (digest) snprintf(n->digest, sizeof n->digest, "%s", digest);
        snprintf(n->warning, sizeof n->warning, "%s", warning);
    } else {
        note_metrics(n, a);
    }
}

/* ---- watchers ---- */

/* A free place among the watchers, if the identity has not taken its share; else NULL. */
static api_watcher *watcher_place(coord_api *api, const char *identity) {
    const uint32_t wish = api->access->config->watches_per_identity;
    const uint32_t share = coord_access_share(
        api->access, wish ? wish : COP_WATCHES_PER_IDENTITY_MAX, COP_WATCHES_MAX);
    api_watcher *place = NULL;
    uint32_t its = 0;
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++) {
        api_watcher *w = &api->watchers[i];
        if (!w->request && !place) place = w;
        its += w->request && strcmp(coord_access_identity(w->request), identity) == 0;
    }
    return its < share ? place : NULL;
}

void api_hold(coord_api *api, const api_watcher *watcher) {
    api_watcher *place = watcher_place(api, coord_access_identity(watcher->request));
    if (place) {
        *place = *watcher;
        return;
    }
    api_watcher now = *watcher;
    const api_note *n = api_note_find(api, now.job);
    now.at_once = true;
    if (now.logs)
        api_ask_logs(api, &now);
    else if (now.evaluation)
        api_answer_evaluation(api, &now, n);
    else
        api_answer_watch(api, &now, n);
}

void coord_api_changed(coord_api *api, uint64_t job) {
    api_note *n = job ? api_note_find(api, job) : NULL;
    if (!n) return;
    n->version++;
    if (n->evaluation) note_leases(api, n);
}

static void check_watcher(coord_api *api, api_watcher *w, uint64_t now) {
    if (w->logs) {
        if (!w->asking && now >= w->not_before_ns) api_ask_logs(api, w);
        return;
    }
    api_note *n = api_note_find(api, w->job);
    bool news = !n || n->version != w->version;
    if (now < w->deadline_ns && (!news || now < w->not_before_ns)) return;
    if (w->evaluation)
        api_answer_evaluation(api, w, n);
    else
        api_answer_watch(api, w, n);
}

void coord_api_tick(coord_api *api, uint64_t now_ns) {
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++)
        if (api->watchers[i].request) check_watcher(api, &api->watchers[i], now_ns);
    api_evaluations_tick(api, now_ns);
    api_tidy_data(api, now_ns);
}

void coord_api_on_gone(coord_api *api, uint64_t connection) {
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++) {
        api_watcher *w = &api->watchers[i];
        if (!w->request || w->asking || cop_request_connection(w->request) != connection) continue;
        cop_server_drop(w->request);
        w->request = NULL;
    }
}

/* At the end: tasks are finished, held requests answered. */
void coord_api_release(coord_api *api) {
    while (api->tasks) uv_run(&api->engine->loop, UV_RUN_ONCE);
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++) {
        api_watcher *w = &api->watchers[i];
        if (w->request)
            coord_reply_failure(w->request, COP_ERR_CLOSED, "the coordinator is stopping");
        w->request = NULL;
    }
}

/* ---- calls ---- */

static const struct {
    api_handler handler;
    const ProtobufCMessageDescriptor *request;
} methods[] = {
    [COPPICE__API__METHOD__SUBMIT] = {api_submit, &coppice__api__submit_request__descriptor},
    [COPPICE__API__METHOD__LIST_JOBS] = {api_list_jobs,
                                         &coppice__api__list_jobs_request__descriptor},
    [COPPICE__API__METHOD__GET_JOB] = {api_get_job, &coppice__api__get_job_request__descriptor},
    [COPPICE__API__METHOD__WATCH_JOB] = {api_watch_job,
                                         &coppice__api__watch_job_request__descriptor},
    [COPPICE__API__METHOD__CONTROL_JOB] = {api_control_job,
                                           &coppice__api__control_job_request__descriptor},
    [COPPICE__API__METHOD__LOGS] = {api_logs, &coppice__api__logs_request__descriptor},
    [COPPICE__API__METHOD__LIST_WORKERS] = {api_list_workers,
                                            &coppice__api__list_workers_request__descriptor},
    [COPPICE__API__METHOD__DRAIN_WORKER] = {api_drain_worker,
                                            &coppice__api__drain_worker_request__descriptor},
    [COPPICE__API__METHOD__EXPORT_MODEL] = {api_export_model,
                                            &coppice__api__export_model_request__descriptor},
    [COPPICE__API__METHOD__LIST_DATA] = {api_list_data,
                                         &coppice__api__list_data_request__descriptor},
    [COPPICE__API__METHOD__OFFER_DATA] = {api_offer_data,
                                          &coppice__api__offer_data_request__descriptor},
    [COPPICE__API__METHOD__PUT_CHUNK] = {api_put_chunk,
                                         &coppice__api__put_chunk_request__descriptor},
    [COPPICE__API__METHOD__COMMIT_DATA] = {api_commit_data,
                                           &coppice__api__commit_data_request__descriptor},
    [COPPICE__API__METHOD__REMOVE_DATA] = {api_remove_data,
                                           &coppice__api__remove_data_request__descriptor},
    [COPPICE__API__METHOD__EVALUATE] = {api_evaluate, &coppice__api__evaluate_request__descriptor},
    [COPPICE__API__METHOD__INFO] = {api_info, &coppice__api__info_request__descriptor},
    [COPPICE__API__METHOD__START_EVALUATION] =
        {api_start_evaluation, &coppice__api__start_evaluation_request__descriptor},
    [COPPICE__API__METHOD__WATCH_EVALUATION] =
        {api_watch_evaluation, &coppice__api__watch_evaluation_request__descriptor},
    [COPPICE__API__METHOD__HISTORY] = {api_history, &coppice__api__history_request__descriptor},
};

/* Every method is a client's: none is for workers. */
bool coord_api_right_at(size_t at, coord_right *out) {
    for (uint32_t method = 0; method < sizeof methods / sizeof *methods; method++) {
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

void coord_api_on_call(coord_api *api, cop_request *request) {
    const cop_message *m = cop_request_message(request);
    const cop_buffer *body = m->part[COP_PART_BODY];
    cop_error error = {0};
    ProtobufCMessage *message = NULL;
    uint32_t method = m->call.method;
    if (m->call.major != COP_PROTOCOL_MAJOR) {
        coord_reply_failure(request, COP_ERR_VERSION,
                            "this coordinator speaks protocol %d.%d, you speak %u.%u",
                            COP_PROTOCOL_MAJOR, COP_PROTOCOL_MINOR, m->call.major, m->call.minor);
    } else if (!coord_access_token(api->access, request, m->call.token)) {
        return;
    } else if (method >= sizeof methods / sizeof *methods || !methods[method].handler) {
        coord_reply_failure(
            request, COP_ERR_UNSUPPORTED,
            "this coordinator does not know method %u: it is older than your client", method);
    } else if (api->engine->stopping) {
        coord_reply_failure(request, COP_ERR_CLOSED, "the coordinator is stopping");
    } else if (!body || cop_proto_unpack(methods[method].request, body->data, body->size,
                                         API_BUDGET, &message, &error)) {
        if (error.code == COP_ERR_NO_MEMORY)
            coord_reply_failure(request, error.code, "%s", error.text);
        else
            coord_reply_failure(request, COP_ERR_PROTOCOL, "the call is malformed: %s", error.text);
    } else {
        methods[method].handler(api, request, message);
    }
}

/* ---- life ---- */

void coord_api_destroy(coord_api *api) {
    cop_free(api->notes);
    cop_free(api);
}

static void note_changed(coord_engine *engine, uint64_t job) {
    coord_api_changed(api_of(engine), job);
}

static const coord_listener listener = {
    .load = api_load, .rollback = api_rollback, .note = note_action, .changed = note_changed};

cop_err coord_api_create(coord_engine *engine, const coord_access *access, coord_api **out,
                         cop_error *error) {
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
