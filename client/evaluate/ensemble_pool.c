/* Evaluations on a coordinator's pool. The client starts an evaluation under a random key and
 * watches it. A coordinator that restarts forgets its evaluations, so the client then starts the
 * evaluation again. When the client no longer watches, the coordinator drops the evaluation. */
#include <stdio.h>
#include <string.h>

#include "client/evaluate/ensemble.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/wire/codec.h"

#define ATTEMPT_MS 5000 /* longest wait for one answer; cli_remote_hold derives from it */
#define PAUSE_MS   200  /* pause before another attempt */
/* The minimum wait for a coordinator that has answered before, because it may be restarting. A
 * longer --timeout extends this wait. */
#define RESTART_WAIT_NS 60000000000u

typedef struct pool_run {
    const cli_options *options;
    cli_progress *progress;
    cli_remote remote;
    Coppice__Api__StartEvaluationRequest request;
    unsigned char key[16];
    uint64_t version; /* version in the last answer; the coordinator may hold a watch until it
                         changes */
    uint64_t began_ns;
    uint64_t last_answer_ns; /* before the first answer: the same as began_ns */
    uint64_t idle_since_ns;  /* when the pool was last known to have workers */
    bool started;            /* the coordinator has accepted the evaluation */
    bool answered;           /* the coordinator has answered at least once */
    bool failed;             /* the evaluation has failed, so another attempt would fail too */
    /* Called with each answer to a watch. NULL: no call. */
    void (*on_answer)(void *context, const Coppice__Api__WatchEvaluationAnswer *answer);
    void *context;
} pool_run;

static cop_err start(pool_run *r, cop_error *error) {
    COP_ASSERT(!r->started && r->request.has_key);
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(&r->remote, &CLI_CALL(START_EVALUATION, start_evaluation, r->request),
                            &answer, NULL, error));
    cop_proto_free(answer);
    r->started = true;
    r->version = 0;
    return COP_OK;
}

static cop_err watch(pool_run *r, ProtobufCMessage **answer, cop_error *error) {
    Coppice__Api__WatchEvaluationRequest request = COPPICE__API__WATCH_EVALUATION_REQUEST__INIT;
    COP_ASSERT(r->started);
    request.has_key = request.has_version = request.has_hold_ms = 1;
    request.key = r->request.key;
    request.version = r->version;
    request.hold_ms = cli_remote_hold(&r->remote, COP_HOLD_MAX_MS);
    return cli_remote_call(&r->remote, &CLI_CALL(WATCH_EVALUATION, watch_evaluation, request),
                           answer, NULL, error);
}

static void show(pool_run *r, const Coppice__Api__WatchEvaluationAnswer *a) {
    char text[160];
    char number[32];
    int at = snprintf(text, sizeof text, "%s", cop_format_job(a->evaluation, number));
    if (a->waiting_for && *a->waiting_for)
        snprintf(text + at, sizeof text - (size_t)at, "  waiting for %s", a->waiting_for);
    else
        snprintf(text + at, sizeof text - (size_t)at, "  %llu of %llu leases  %u workers",
                 (unsigned long long)a->done, (unsigned long long)a->blocks, a->workers);
    cli_progress_show(r->progress, a->blocks ? (double)a->done / (double)a->blocks : 0, text);
}

/* Checks that the pool has workers. TIMEOUT: it has had none for the time of --timeout. */
static cop_err check_workers(pool_run *r, const Coppice__Api__WatchEvaluationAnswer *a,
                             cop_error *error) {
    const uint64_t now = cop_clock_ns();
    if (!a->waiting_for || strcmp(a->waiting_for, "workers") != 0) r->idle_since_ns = now;
    if (!r->options->has_timeout) return COP_OK;
    if ((double)(now - r->idle_since_ns) * 1e-9 <= r->options->timeout) return COP_OK;
    r->failed = true;
    return cop_fail(error, COP_ERR_TIMEOUT,
                    "the pool has no workers (waited %.17g s); to compute on this machine, use "
                    "`coppice eval` with --workers N",
                    r->options->timeout);
}

static cop_err state_error(pool_run *r, const Coppice__Api__WatchEvaluationAnswer *a,
                           cop_error *error) {
    r->failed =
        a->state == COPPICE__API__STATE__FAILED || a->state == COPPICE__API__STATE__CANCELED;
    const char *why = a->error && *a->error ? a->error : "no reason was given";
    if (a->state == COPPICE__API__STATE__FAILED)
        return cop_fail(error, COP_ERR_INTERNAL, "the evaluation failed: %s", why);
    if (a->state == COPPICE__API__STATE__CANCELED)
        return cop_fail(error, COP_ERR_CANCELED, "the evaluation was canceled%s%s",
                        a->error && *a->error ? ": " : "", a->error ? a->error : "");
    return COP_OK;
}

/* Called after a failed call. True: the reason may be temporary, and the caller should try again
 * after a pause. False: the caller should give up. */
static bool may_try_again(pool_run *r, cop_err e, const cop_error *error) {
    const uint64_t silent = cop_clock_ns() - r->last_answer_ns;
    if (r->failed) return false;
    uint64_t limit = cop_seconds_to_ns(r->options->timeout);
    if (e == COP_ERR_NOT_FOUND &&
        r->started) { /* the coordinator restarted and forgot the evaluation */
        r->started = false;
        cli_progress_show(r->progress, 0,
                          "the coordinator restarted: starting the evaluation again");
        return true;
    }
    if (e == COP_ERR_BUSY &&
        !r->started) { /* the evaluation is being prepared, or too many others are running */
        cli_progress_show(r->progress, 0, error->text);
        r->answered = true;
        r->last_answer_ns = cop_clock_ns();
        return !r->options->has_timeout || r->last_answer_ns - r->began_ns <= limit;
    }
    if (e != COP_ERR_UNREACHABLE && e != COP_ERR_CLOSED && e != COP_ERR_TIMEOUT) return false;
    if (r->answered && limit < RESTART_WAIT_NS) limit = RESTART_WAIT_NS;
    if (!r->answered && e == COP_ERR_UNREACHABLE && !r->options->has_timeout) return false;
    cli_progress_show(r->progress, r->progress->last_fraction,
                      "the coordinator does not answer; waiting for it");
    return silent <= limit;
}

/* Makes one call, a start or a watch, and handles its answer. When the evaluation has completed,
 * *final becomes the answer, which the caller owns. */
static cop_err advance(pool_run *r, ProtobufCMessage **final, cop_error *error) {
    ProtobufCMessage *answer = NULL;
    COP_ASSERT(!*final);
    if (!r->started) return start(r, error);
    COP_TRY(watch(r, &answer, error));
    const Coppice__Api__WatchEvaluationAnswer *a =
        (const Coppice__Api__WatchEvaluationAnswer *)answer;
    r->version = a->version;
    if (r->on_answer) r->on_answer(r->context, a);
    cop_err e = state_error(r, a, error);
    if (!e && a->state == COPPICE__API__STATE__COMPLETED) {
        *final = answer;
        return COP_OK;
    }
    if (!e) {
        show(r, a);
        e = check_workers(r, a, error);
        if (!e && a->has_retry_ms) cli_wait_to_ask(a->retry_ms);
    }
    cop_proto_free(answer);
    return e;
}

/* Makes a signal print the command line that starts the evaluation again. After the signal the
 * coordinator drops the evaluation, because no client watches it. */
static void arm_interrupt(const cli_options *options) {
    cop_str text = {0};
    cop_str_append(&text, "coppice eval: interrupted: the coordinator drops the evaluation; the "
                          "jobs do not change; `coppice eval");
    for (int i = 0; i < options->positional_count; i++) {
        cop_str_append(&text, " ");
        cli_print_word(options->positional[i], &text);
    }
    cli_options_print(options, "ensemble average members-from json quiet " CLI_CONNECTION, &text);
    cop_str_append(&text, "` starts it again");
    cli_interrupt_arm(cop_str_text(&text));
    cop_str_fini(&text);
}

static cop_err run(pool_run *r, ProtobufCMessage **final, cop_error *error) {
    COP_ASSERT(!r->started && r->request.n_jobs >= 1 && !*final);
    COP_TRY(cli_remote_open(r->options, &r->remote, error));
    arm_interrupt(r->options);
    /* Each call has a short timeout, so that the progress line soon shows that the client waits for
     * a coordinator that restarts. */
    if (r->remote.timeout_ms > ATTEMPT_MS) r->remote.timeout_ms = ATTEMPT_MS;
    cop_random_bytes(r->key, sizeof r->key);
    r->request.has_key = 1;
    r->request.key = (ProtobufCBinaryData){.len = sizeof r->key, .data = r->key};
    r->began_ns = r->last_answer_ns = r->idle_since_ns = cop_clock_ns();
    cop_err e = COP_OK;
    while (!*final) {
        e = advance(r, final, error);
        if (!e) {
            r->answered = true;
            r->last_answer_ns = cop_clock_ns();
        } else if (may_try_again(r, e, error)) {
            cop_clock_sleep_ms(PAUSE_MS);
        } else {
            break;
        }
    }
    cli_interrupt_disarm();
    cli_remote_close(&r->remote);
    return e;
}

/* ---- ensembles ---- */

/* Prints the rows that have not been printed yet. */
static void print_new_rows(void *context, const Coppice__Api__WatchEvaluationAnswer *a) {
    cli_ensemble *request = context;
    const Coppice__Api__EnsembleResult *r = a->ensemble;
    while (r && request->printed < r->n_members && request->printed < request->count)
        cli_ensemble_row(request, r->members[request->printed]);
}

/* True: the result has one row for each requested number of members. */
static bool is_answer_to(const cli_ensemble *request, const Coppice__Api__EnsembleResult *r) {
    bool same = r && r->n_members == request->count;
    for (uint32_t i = 0; same && i < request->count; i++)
        same = r->members[i]->members == request->counts[i];
    return same;
}

cop_err cli_ensemble_pool(cli_ensemble *request, cop_error *error) {
    uint64_t jobs[CLI_POSITIONAL_MAX];
    COP_ASSERT(request->name_count >= 1 && request->name_count <= CLI_POSITIONAL_MAX);
    pool_run r = {.options = request->options,
                  .progress = &request->progress,
                  .request = COPPICE__API__START_EVALUATION_REQUEST__INIT,
                  .on_answer = print_new_rows,
                  .context = request};
    ProtobufCMessage *answer = NULL;
    for (uint32_t i = 0; i < request->name_count; i++)
        COP_TRY(cli_job_number(request->options, request->names[i], &jobs[i], error));
    r.request.jobs = jobs;
    r.request.n_jobs = request->name_count;
    r.request.has_models = 1;
    r.request.models = request->each_model;
    r.request.average = (char *)(uintptr_t)cop_average_name(request->average);
    r.request.counts = request->counts;
    r.request.n_counts = request->average ? request->count : 0;
    COP_TRY(run(&r, &answer, error));
    const Coppice__Api__WatchEvaluationAnswer *a =
        (const Coppice__Api__WatchEvaluationAnswer *)answer;
    cop_err e = COP_OK;
    if (is_answer_to(request, a->ensemble))
        cli_ensemble_result(request, a->ensemble);
    else
        e = cop_fail(error, COP_ERR_PROTOCOL,
                     "the coordinator's answer lacks the requested figures");
    cop_proto_free(answer);
    return e;
}

/* ---- evaluations without averages ---- */

cop_err cli_pool_evaluate(const cli_options *options, Coppice__Api__EvalResult *out,
                          ProtobufCMessage **answer, cop_error *error) {
    uint64_t job;
    cli_progress progress;
    pool_run r = {.options = options,
                  .progress = &progress,
                  .request = COPPICE__API__START_EVALUATION_REQUEST__INIT};
    *answer = NULL;
    COP_TRY(cli_job_number(options, options->positional[0], &job, error));
    r.request.jobs = &job;
    r.request.n_jobs = 1;
    cli_progress_start(&progress, options->quiet);
    const cop_err e = run(&r, answer, error);
    cli_progress_end(&progress);
    COP_TRY(e);
    const Coppice__Api__WatchEvaluationAnswer *a =
        (const Coppice__Api__WatchEvaluationAnswer *)*answer;
    if (a->plain) {
        *out = *a->plain;
        return COP_OK;
    }
    cop_proto_free(*answer);
    *answer = NULL;
    return cop_fail(error, COP_ERR_PROTOCOL, "the coordinator's answer has no figures");
}
