/* Loads the metrics and the final result of a job or run. See history.h. */
#include "client/load/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/wire/codec.h"

/* ---- a run folder ---- */

/* Sets and returns the error for `what`, which is not a run folder, because it has no
 * metrics.sqlite. If it is a file in a run folder, the error names that folder. */
static cop_err fail_no_run(const char *what, cop_error *error) {
    const bool file = !cop_folder_exists(what) && cop_file_exists(what);
    char *folder = cop_strdup(what), *slash = folder ? strrchr(folder, '/') : NULL, *inside = NULL;
    if (file && slash && slash > folder) {
        *slash = '\0';
        inside = cop_path_join(folder, "metrics.sqlite");
    }
    if (inside && cop_file_exists(inside))
        cop_fail(error, COP_ERR_INPUT, "%s is a file of a run: pass the run folder, %s", what,
                 folder);
    else if (file)
        cop_fail(error, COP_ERR_INPUT, "%s is a file: expected a run folder or a job", what);
    else if (!cop_folder_exists(what))
        cop_fail(error, COP_ERR_NOT_FOUND, "run folder %s does not exist", what);
    else
        cop_fail(error, COP_ERR_NOT_FOUND,
                 "%s is not a run folder: it has no metrics.sqlite (expected a run folder or a "
                 "job)",
                 what);
    cop_free(folder);
    cop_free(inside);
    return error ? error->code : COP_ERR_NOT_FOUND;
}

static cop_err read_run(const char *folder, const coord_history_range *range, coord_history *out,
                        cop_error *error) {
    char *path = cop_path_join(folder, "metrics.sqlite");
    if (!path) return cop_no_memory(error);
    cop_err e = COP_OK;
    if (!cop_file_exists(path)) e = fail_no_run(folder, error);
    if (!e) e = coord_history_read(path, range, out, error);
    cop_free(path);
    return e;
}

/* ---- a job ---- */

static cop_err copy_points(Coppice__Api__HistoryPoint *const *points, size_t count,
                           coord_figure **out, size_t *out_count, cop_error *error) {
    coord_figure *rows = *out = cop_alloc_array(count + 1, sizeof *rows);
    if (!rows) return cop_no_memory(error);
    for (size_t i = 0; i < count; i++)
        rows[i] = (coord_figure){.step = points[i]->step,
                                 .loss = points[i]->has_loss ? points[i]->loss : NAN,
                                 .error = points[i]->error,
                                 .seconds = points[i]->seconds,
                                 .has_error = points[i]->has_error,
                                 .has_seconds = points[i]->has_seconds};
    *out_count = count;
    return COP_OK;
}

/* Checks that all steps are after the step `after` and that they ascend. Otherwise the client would
 * ask for ever if a coordinator sent the same page again and again. */
static cop_err check_steps(const Coppice__Api__HistoryAnswer *a, uint64_t after, cop_error *error) {
    for (size_t i = 0; i < a->n_steps; i++) {
        if (a->steps[i]->step <= after)
            return cop_fail(error, COP_ERR_PROTOCOL,
                            "the coordinator sent step %llu of the history after step %llu",
                            (unsigned long long)a->steps[i]->step, (unsigned long long)after);
        after = a->steps[i]->step;
    }
    return COP_OK;
}

static cop_err copy_answer(const Coppice__Api__HistoryAnswer *a, coord_history *out,
                           cop_error *error) {
    *out = (coord_history){.on_test = a->on && strcmp(a->on, "test") == 0};
    cop_err e = copy_points(a->train, a->n_train, &out->train, &out->train_count, error);
    if (!e)
        e = copy_points(a->evaluations, a->n_evaluations, &out->evaluations, &out->evaluation_count,
                        error);
    if (!e) e = copy_points(a->steps, a->n_steps, &out->steps, &out->step_count, error);
    if (e) coord_history_fini(out);
    return e;
}

/* Fills the number of a job into *request, and sends the request. `job` is the number or name of
 * the job. The caller frees *answer with cop_proto_free. */
static cop_err ask_job(const cli_options *options, const char *job,
                       Coppice__Api__HistoryRequest *request, ProtobufCMessage **answer,
                       cop_error *error) {
    request->has_job = request->has_after = request->has_steps = 1;
    COP_TRY(cli_job_number(options, job, &request->job, error));
    return cli_ask(options, &CLI_CALL(HISTORY, history, *request), answer, error);
}

static cop_err history_of_job(const cli_options *options, const char *job, coord_history *out,
                              char name[COP_NAME_MAX], cop_error *error) {
    Coppice__Api__HistoryRequest request = COPPICE__API__HISTORY_REQUEST__INIT;
    ProtobufCMessage *message = NULL;
    COP_TRY(ask_job(options, job, &request, &message, error));
    const Coppice__Api__HistoryAnswer *a = (const Coppice__Api__HistoryAnswer *)message;
    snprintf(name, COP_NAME_MAX, "job %llu (%.100s)", (unsigned long long)request.job,
             a->name ? a->name : "");
    cop_err e = copy_answer(a, out, error);
    cop_proto_free(message);
    return e;
}

static cop_err steps_of_job(const cli_options *options, const char *job, uint64_t after,
                            coord_history *out, cop_error *error) {
    Coppice__Api__HistoryRequest request = COPPICE__API__HISTORY_REQUEST__INIT;
    ProtobufCMessage *message = NULL;
    request.steps = 1;
    request.after = after;
    COP_TRY(ask_job(options, job, &request, &message, error));
    const Coppice__Api__HistoryAnswer *a = (const Coppice__Api__HistoryAnswer *)message;
    cop_err e = check_steps(a, after, error);
    if (!e) e = copy_answer(a, out, error);
    cop_proto_free(message);
    return e;
}

cop_err cli_history_load(const cli_options *options, const char *source, coord_history *out,
                         char name[COP_NAME_MAX], cop_error *error) {
    if (cli_is_job(source)) return history_of_job(options, source, out, name, error);
    const char *slash = strrchr(source, '/');
    snprintf(name, COP_NAME_MAX, "%s", slash && slash[1] ? slash + 1 : source);
    return read_run(source, &(coord_history_range){0}, out, error);
}

cop_err cli_history_steps(const cli_options *options, const char *source, uint64_t after,
                          coord_history *out, cop_error *error) {
    if (cli_is_job(source)) return steps_of_job(options, source, after, out, error);
    const coord_history_range range = {.after = after, .limit = COORD_HISTORY_PAGE};
    return read_run(source, &range, out, error);
}

/* ---- records ---- */

static cop_err record_of_job(const cli_options *options, const char *job, cli_record *out,
                             cop_error *error) {
    Coppice__Api__GetJobRequest request = COPPICE__API__GET_JOB_REQUEST__INIT;
    ProtobufCMessage *message = NULL;
    request.has_job = request.has_with_job = request.with_job = 1;
    COP_TRY(cli_job_number(options, job, &request.job, error));
    COP_TRY(cli_ask(options, &CLI_CALL(GET_JOB, get_job, request), &message, error));
    const Coppice__Api__GetJobAnswer *a = (const Coppice__Api__GetJobAnswer *)message;
    const Coppice__Api__JobStatus *s = a->status;
    cop_err e = s && a->job ? cop_document_copy_job(a->job, &out->job, error)
                            : cop_fail(error, COP_ERR_PROTOCOL, "the coordinator sent no job file");
    if (!e) {
        snprintf(out->name, sizeof out->name, "%llu", (unsigned long long)s->job);
        snprintf(out->digest, sizeof out->digest, "%s", s->digest ? s->digest : "");
        snprintf(out->state, sizeof out->state, "%s", cli_state_name(s->state));
        snprintf(out->evaluated_on, sizeof out->evaluated_on, "%s",
                 s->evaluated_on ? s->evaluated_on : "");
        out->step = s->step;
        out->seconds = s->seconds;
        if (s->has_train_loss) out->train_loss = s->train_loss;
        if (s->has_test_loss) out->loss = s->test_loss;
        if (s->has_test_error) out->error = s->test_error;
    }
    cop_proto_free(message);
    return e;
}

static cop_err record_of_run(const cli_options *options, const char *folder, cli_record *out,
                             cop_error *error) {
    coord_history history;
    cli_model model;
    COP_TRY(cli_history_load(options, folder, &history, out->name, error));
    if (history.train_count) {
        const coord_figure *last = &history.train[history.train_count - 1];
        out->train_loss = last->loss;
    }
    if (history.evaluation_count) {
        const coord_figure *last = &history.evaluations[history.evaluation_count - 1];
        out->loss = last->loss;
        if (last->has_error) out->error = last->error;
        if (last->has_seconds) out->seconds = last->seconds;
        snprintf(out->evaluated_on, sizeof out->evaluated_on, "%s",
                 history.on_test ? "test" : "validation");
    }
    coord_history_fini(&history);
    char *path = cop_path_join(folder, "job.yaml");
    cop_err e = path ? cop_document_read_job(path, &out->job, error) : cop_no_memory(error);
    cop_free(path);
    if (e || cli_model_open(folder, &model, NULL)) return e; /* OK: no checkpoint yet */
    out->step = model.step;
    snprintf(out->digest, sizeof out->digest, "%s", model.digest);
    snprintf(out->state, sizeof out->state, "%s",
             model.step >= model.job->steps ? "COMPLETED" : "PAUSED");
    cli_model_close(&model);
    return COP_OK;
}

cop_err cli_record_load(const cli_options *options, const char *source, cli_record *out,
                        cop_error *error) {
    *out = (cli_record){.train_loss = NAN, .loss = NAN, .error = NAN, .seconds = NAN};
    return cli_is_job(source) ? record_of_job(options, source, out, error)
                              : record_of_run(options, source, out, error);
}

void cli_record_fini(cli_record *record) {
    if (record->job) cop_proto_free(&record->job->base);
    *record = (cli_record){0};
}
