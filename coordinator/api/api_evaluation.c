/* The calls START_EVALUATION and WATCH_EVALUATION. An evaluation has a number and a state like a
 * job, so `coppice jobs` shows it and `coppice cancel` cancels it. But it is not stored: after a
 * restart of the coordinator, its client starts it again with the same key. An evaluation whose
 * client sends no request for PATIENCE_NS is canceled. See api.h. */
#include <math.h>
#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"
#include "coordinator/engine/evaluation.h"

#define PATIENCE_NS 5000000000u /* how long the client of an evaluation may be silent */

/* ---- keys ---- */

/* Returns the place of the evaluation with this key. NULL: there is no such evaluation. */
static coord_evaluation **find_key(coord_api *api, ProtobufCBinaryData key) {
    COP_ASSERT(key.len == COORD_EVALUATION_KEY);
    for (uint32_t i = 0; i < COP_EVALUATION_PLACES; i++) {
        const coord_evaluation *e = api->engine->evaluations[i];
        if (e && memcmp(e->key, key.data, sizeof e->key) == 0) return &api->engine->evaluations[i];
    }
    return NULL;
}

/* False: the request has no key, or its size is wrong. Then the request has been answered. */
static bool check_key(cop_request *request, protobuf_c_boolean has, ProtobufCBinaryData key) {
    if (has && key.len == COORD_EVALUATION_KEY) return true;
    coord_reply_failure(request, COP_ERR_INPUT, "the key has %zu bytes: expected %d",
                        has ? key.len : 0, COORD_EVALUATION_KEY);
    return false;
}

/* ---- start: the request ---- */

/* Says what is wrong with the counts of the request. NULL: nothing is wrong. */
static const char *problem_with_counts(const Coppice__Api__StartEvaluationRequest *r,
                                       bool has_members) {
    if (!has_members && r->n_counts) return "counts require an average of members";
    if (r->n_counts > COP_ENSEMBLE_COUNTS_MAX) return "too many counts";
    if (has_members && !r->n_counts) return "an average of members requires counts";
    for (size_t i = 0; i < r->n_counts; i++) {
        if (r->counts[i] < 1 || r->counts[i] > COP_ENSEMBLE_MEMBERS_MAX)
            return "counts must be from 1 to 100000";
        if (i && r->counts[i] <= r->counts[i - 1]) return "counts must be strictly ascending";
    }
    if (r->models && r->n_counts && r->counts[r->n_counts - 1] > r->n_jobs)
        return "there are fewer models than members";
    return NULL;
}

/* Copies the parameters of the request to `e`. Returns a text that says what is wrong with the
 * request. NULL: nothing is wrong. */
static const char *read_request(const Coppice__Api__StartEvaluationRequest *r,
                                coord_evaluation *e) {
    const char *problem;
    if (!r->n_jobs || r->n_jobs > COORD_MODELS_MAX) return "expected 1 to 64 jobs";
    if (!r->models && r->n_jobs > 1) return "several jobs require `models`";
    e->plain = !r->average || !*r->average;
    e->each_model = r->models;
    if (!e->plain && !cop_average_parse(r->average, &e->average)) return "unknown average";
    if (r->models && !e->average) return "models require an average of members";
    if ((problem = problem_with_counts(r, e->average != COP_AVERAGE_WEIGHT_SCALING)))
        return problem;
    for (size_t i = 0; i < r->n_counts; i++) e->counts[e->count++] = r->counts[i];
    if (!e->count) e->counts[e->count++] = 1; /* without an average of members: one network */
    for (size_t i = 0; i < r->n_jobs; i++) e->model[e->model_count++].job = r->jobs[i];
    COP_ASSERT(e->count <= COP_ENSEMBLE_COUNTS_MAX && e->model_count <= COORD_MODELS_MAX);
    memcpy(e->key, r->key.data, sizeof e->key);
    return NULL;
}

/* False: a job does not exist or has no final weights. Then the request has been answered. */
static bool check_jobs(coord_api *api, cop_request *request, const coord_evaluation *e) {
    for (uint32_t i = 0; i < e->model_count; i++) {
        const uint64_t job = e->model[i].job;
        const api_note *n = api_note_of(api, request, job);
        if (n && !n->evaluation && n->state == COORD_COMPLETED) continue;
        if (n) api_not_completed(request, n);
        return false;
    }
    return true;
}

/* True: a held request waits for news of this evaluation. */
static bool is_watched(const coord_api *api, uint64_t id) {
    for (uint32_t i = 0; i < COP_WATCHES_MAX; i++)
        if (api->watchers[i].request && api->watchers[i].evaluation && api->watchers[i].job == id)
            return true;
    return false;
}

/* Removes an evaluation that has ended, with its note. */
static void forget(coord_api *api, coord_evaluation **place) {
    COP_ASSERT((*place)->ended && !(*place)->batch);
    api_note_remove(api, (*place)->id);
    coord_evaluation_free(*place);
    *place = NULL;
}

/* Decides which of two ended evaluations is forgotten first. True: it is `a`. If exactly one of
 * them was delivered to its client, it is that one. Otherwise, if exactly one of them belongs to
 * this owner, it is that one. Otherwise it is the one that ended first. */
static bool is_forgotten_before(const coord_evaluation *a, const coord_evaluation *b,
                                const char *owner) {
    const bool own_a = strcmp(a->owner, owner) == 0, own_b = strcmp(b->owner, owner) == 0;
    if (a->reported != b->reported) return a->reported;
    if (own_a != own_b) return own_a;
    return a->ended_ns < b->ended_ns;
}

coord_evaluation **api_evaluation_place(coord_api *api, const char *owner, cop_error *error) {
    const uint32_t share =
        coord_access_share(api->access, COP_EVALUATIONS_PER_IDENTITY_MAX, COP_EVALUATIONS_MAX);
    coord_evaluation **place = NULL, **forgettable = NULL;
    uint32_t running = 0, owned = 0;
    for (uint32_t i = 0; i < COP_EVALUATION_PLACES; i++) {
        coord_evaluation *e = api->engine->evaluations[i];
        if (!e) {
            place = &api->engine->evaluations[i];
        } else if (!e->ended) {
            running++;
            owned += strcmp(e->owner, owner) == 0;
        } else if (!e->batch && !is_watched(api, e->id) &&
                   (!forgettable || is_forgotten_before(e, *forgettable, owner))) {
            forgettable = &api->engine->evaluations[i];
        }
    }
    if (running >= COP_EVALUATIONS_MAX || owned >= share || (!place && !forgettable)) {
        cop_fail(error, COP_ERR_BUSY,
                 "%u evaluations are running, %u of them yours: try again when one has ended",
                 running, owned);
        return NULL;
    }
    if (!place) forget(api, place = forgettable);
    COP_ASSERT(*place == NULL);
    return place;
}

/* ---- start: the evaluation ---- */

static void answer_started(cop_request *request, const coord_evaluation *e) {
    Coppice__Api__StartEvaluationAnswer answer = COPPICE__API__START_EVALUATION_ANSWER__INIT;
    answer.has_evaluation = answer.has_samples = 1;
    answer.evaluation = e->id;
    answer.samples = e->samples;
    api_answer(request, COPPICE__API__METHOD__START_EVALUATION, &answer.base, NULL);
}

static void start_work(api_task *t) {
    t->result = coord_evaluation_prepare(t->api->engine, t->evaluation, &t->error);
}

static cop_err add_note(coord_api *api, uint64_t id, const coord_evaluation *e) {
    api_note *n = api_note_add(api, id);
    if (!n) return COP_ERR_NO_MEMORY;
    n->evaluation = n->on_test = true;
    snprintf(n->name, sizeof n->name, "evaluation of job %llu%s",
             (unsigned long long)e->model[0].job, e->model_count > 1 ? " and others" : "");
    snprintf(n->data_digest, sizeof n->data_digest, "%s",
             e->model[0].built->message->pinned->data_digest);
    cop_clock_format_utc(cop_clock_unix_ms(), n->created);
    return COP_OK;
}

/* Gives the prepared evaluation its number, adds its note and hands it to the core. */
static cop_err begin(coord_api *api, coord_evaluation *e) {
    if (api->engine->stopping) return COP_ERR_CLOSED;
    const uint64_t id = COP_EVALUATION_NUMBERS + ++api->evaluations; /* larger than any job's */
    coord_store_keep_evaluation(api->engine->store, api->evaluations);
    COP_TRY(add_note(api, id, e));
    const cop_err failed = coord_evaluation_start(api->engine, e, id);
    if (failed)
        api_note_remove(api, id);
    else
        coord_datasets_use(api->engine->datasets, api_note_find(api, id)->data_digest);
    return failed;
}

static void start_done(api_task *t) {
    coord_api *api = t->api;
    coord_evaluation *e = t->evaluation;
    if (!t->result && (t->result = begin(api, e)))
        cop_fail(&t->error, t->result, "the evaluation cannot begin: %s", cop_err_text(t->result));
    if (t->result) {
        api_fail(t->request, &t->error, t->result);
        for (uint32_t i = 0; i < COP_EVALUATION_PLACES; i++)
            if (api->engine->evaluations[i] == e) api->engine->evaluations[i] = NULL;
        coord_evaluation_free(e);
    } else {
        answer_started(t->request, e);
    }
    api_task_free(t);
}

/* Answers a request with a known key. Its client repeats the request, because it has not received
 * the answer to the first one. */
static void answer_repeated(cop_request *request, const coord_evaluation *e) {
    if (e->id)
        answer_started(request, e);
    else
        coord_reply_failure(request, COP_ERR_BUSY, "the evaluation is being prepared");
}

/* Fills `e` from the request and finds a place for it. False: the request is refused and has been
 * answered. */
static bool admit(coord_api *api, cop_request *request,
                  const Coppice__Api__StartEvaluationRequest *r, coord_evaluation *e,
                  coord_evaluation ***place) {
    cop_error error = {0};
    const char *problem = read_request(r, e);
    snprintf(e->owner, sizeof e->owner, "%s", coord_access_identity(request));
    if (problem) {
        coord_reply_failure(request, COP_ERR_INPUT, "invalid evaluation request: %s", problem);
        return false;
    }
    if (!check_jobs(api, request, e)) return false;
    *place = api_evaluation_place(api, e->owner, &error);
    if (!*place) api_fail(request, &error, error.code);
    return *place != NULL;
}

/* Answers the request if its key is known. Otherwise starts a task that prepares the evaluation. */
static void start(coord_api *api, cop_request *request,
                  const Coppice__Api__StartEvaluationRequest *r) {
    coord_evaluation **known = find_key(api, r->key), **place = NULL;
    if (known) {
        answer_repeated(request, *known);
        return;
    }
    coord_evaluation *e = cop_alloc(sizeof *e);
    if (!e) {
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
        return;
    }
    api_task *t = NULL;
    if (admit(api, request, r, e, &place)) t = api_task_create(api, request, NULL);
    if (!t) {
        coord_evaluation_free(e);
        return;
    }
    *place = t->evaluation = e;
    api_task_start(t, start_work, start_done);
}

void api_start_evaluation(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__StartEvaluationRequest *r =
        (const Coppice__Api__StartEvaluationRequest *)message;
    if (check_key(request, r->has_key, r->key)) start(api, request, r);
    cop_proto_free(message);
}

/* ---- watch ---- */

/* An EnsembleResult together with the memory that its fields point to. */
typedef struct reported_ensemble {
    Coppice__Api__EnsembleResult result;
    Coppice__Api__EnsembleFigures rows[COP_ENSEMBLE_COUNTS_MAX],
        *row_table[COP_ENSEMBLE_COUNTS_MAX];
    Coppice__Api__EnsembleModel models[COORD_MODELS_MAX], *model_table[COORD_MODELS_MAX];
    char names[COORD_MODELS_MAX][24];
} reported_ensemble;

static void report_models(const coord_evaluation *e, reported_ensemble *t) {
    for (uint32_t i = 0; i < e->model_count; i++) {
        Coppice__Api__EnsembleModel *m = t->model_table[i] = &t->models[i];
        coppice__api__ensemble_model__init(m);
        snprintf(t->names[i], sizeof t->names[i], "%llu", (unsigned long long)e->model[i].job);
        m->model = t->names[i];
        m->digest = (char *)(uintptr_t)e->model[i].digest;
    }
    t->result.models = t->model_table;
    t->result.n_models = e->model_count;
}

static void report_ensemble(const coord_evaluation *e, const api_note *n, double seconds,
                            reported_ensemble *t) {
    Coppice__Api__EnsembleResult *r = &t->result;
    coppice__api__ensemble_result__init(r);
    COP_ASSERT(e->figure_count <= e->count);
    for (uint32_t i = 0; i < e->figure_count; i++) {
        t->row_table[i] = &t->rows[i];
        cop_job_ensemble_row(&e->figures[i], e->counts[i], &t->rows[i]);
    }
    r->members = t->row_table;
    r->n_members = e->figure_count;
    r->average = (char *)(uintptr_t)cop_average_name(e->average);
    r->on = (char *)(uintptr_t)"test";
    r->has_samples = r->has_seconds = r->has_leases_given = r->has_leases_repeated = 1;
    r->samples = e->samples;
    r->seconds = seconds;
    r->leases_given = n->leases.given;
    r->leases_repeated = n->leases.repeated;
    if (e->each_model)
        report_models(e, t);
    else
        r->digest = (char *)(uintptr_t)e->model[0].digest;
}

static void report_plain(const coord_evaluation *e, const api_note *n, double seconds,
                         Coppice__Api__EvalResult *r) {
    coppice__api__eval_result__init(r);
    r->has_error = n->has_evaluation && !isnan(n->test_error);
    r->has_loss = r->has_samples = r->has_seconds = 1;
    r->error = n->test_error;
    r->loss = n->test_loss;
    r->samples = e->samples;
    r->seconds = seconds;
    r->on = (char *)(uintptr_t)"test";
    r->digest = (char *)(uintptr_t)e->model[0].digest;
}

void api_answer_evaluation(coord_api *api, api_watcher *w, const api_note *n) {
    Coppice__Api__WatchEvaluationAnswer answer = COPPICE__API__WATCH_EVALUATION_ANSWER__INIT;
    coord_evaluation *e = coord_evaluation_find(api->engine, w->job);
    Coppice__Api__EvalResult plain;
    reported_ensemble ensemble;
    cop_request *request = w->request;
    coord_job_view view = {0};
    const uint64_t now = cop_clock_ns();
    w->request = NULL;
    if (!e || !n) {
        coord_reply_failure(request, COP_ERR_NOT_FOUND, "there is no such evaluation");
        return;
    }
    COP_ASSERT(!e->ended || e->ended_ns >= e->started_ns);
    const double seconds = (double)((e->ended ? e->ended_ns : now) - e->started_ns) * 1e-9;
    e->heard_ns = now;
    coord_core_job(api->engine->core, e->id, now, &view);
    if (e->plain)
        report_plain(e, n, seconds, answer.plain = &plain);
    else {
        report_ensemble(e, n, seconds, &ensemble);
        answer.ensemble = &ensemble.result;
    }
    answer.has_evaluation = answer.has_state = answer.has_version = answer.has_workers = 1;
    answer.has_done = answer.has_blocks = view.blocks > 0;
    answer.has_retry_ms = w->at_once;
    answer.retry_ms = API_RETRY_MS;
    e->reported = e->reported || e->ended;
    answer.evaluation = e->id;
    answer.state = (Coppice__Api__State)n->state;
    answer.version = n->version;
    answer.workers = view.workers;
    answer.done = view.blocks_done;
    answer.blocks = view.blocks;
    answer.waiting_for = (char *)(uintptr_t)view.waiting_for;
    answer.error = n->text[0] ? (char *)(uintptr_t)n->text : NULL;
    api_answer(request, COPPICE__API__METHOD__WATCH_EVALUATION, &answer.base, NULL);
}

void api_watch_evaluation(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    const Coppice__Api__WatchEvaluationRequest *r =
        (const Coppice__Api__WatchEvaluationRequest *)message;
    const uint64_t now = cop_clock_ns();
    api_watcher w = {.request = request,
                     .evaluation = true,
                     .version = r->version,
                     .deadline_ns = api_hold_until(r->hold_ms, now),
                     .not_before_ns = now + 100000000};
    if (!check_key(request, r->has_key, r->key)) {
        cop_proto_free(message);
        return;
    }
    coord_evaluation **place = find_key(api, r->key);
    cop_proto_free(message);
    if (place && (*place)->id) w.job = (*place)->id;
    const api_note *n = api_note_find(api, w.job);
    if (w.job) (*place)->heard_ns = now;
    if (!n || !w.version || n->state >= COORD_COMPLETED)
        api_answer_evaluation(api, &w, n);
    else
        api_hold(api, &w);
}

/* ---- timer ---- */

void api_evaluations_tick(coord_api *api, uint64_t now_ns) {
    for (uint32_t i = 0; i < COP_EVALUATION_PLACES; i++) {
        coord_evaluation *e = api->engine->evaluations[i];
        if (!e || !e->id) continue;
        if (is_watched(api, e->id)) e->heard_ns = now_ns;
        if (now_ns <= e->heard_ns + PATIENCE_NS) continue;
        if (!e->ended) {
            coord_event gone = {.type = COORD_EVENT_JOB_CANCEL, .job = e->id};
            gone.text = "its client disconnected";
            coord_dispatch(api->engine, &gone);
        } else if (!e->batch) {
            forget(api, &api->engine->evaluations[i]);
        }
    }
}
