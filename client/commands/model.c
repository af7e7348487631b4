/* coppice eval, coppice digest, and coppice inspect for models: commands for trained weights from a
 * file, a run folder or a coordinator's job. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/evaluate/ensemble.h"
#include "client/load/run_folder.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/interchange/safetensors.h"
#include "common/wire/codec.h"

void cli_model_close(cli_model *m) {
    if (m->job) cop_job_release(m->job);
    cop_free(m->flat);
}

static void take_model(const cop_saved_model *saved, cli_model *out) {
    *out = (cli_model){.job = saved->job, .flat = saved->flat, .step = saved->step};
}

cop_err cli_model_open(const char *path, cli_model *out, cop_error *error) {
    unsigned char digest[32];
    *out = (cli_model){0};
    cop_saved_model saved;
    COP_TRY(cop_job_open_model(path, &saved, error));
    take_model(&saved, out);
    cop_err e = cop_model_digest(out->job->model, out->flat, digest, error);
    if (e)
        cli_model_close(out);
    else
        cop_hex32(digest, out->digest);
    return e;
}

/* Fetches the model file of the job positional[0] from the coordinator. The caller owns one
 * reference to *bytes. */
static cop_err fetch_model(const cli_options *options, cop_buffer **bytes, char digest[65],
                           uint64_t *step, cop_error *error) {
    Coppice__Api__ExportModelRequest request = COPPICE__API__EXPORT_MODEL_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    cli_remote remote = {0};
    request.has_job = 1;
    COP_TRY(cli_job_number(options, options->positional[0], &request.job, error));
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e)
        e = cli_remote_call(&remote, &CLI_CALL(EXPORT_MODEL, export_model, request), &answer, bytes,
                            error);
    cli_remote_close(&remote);
    COP_TRY(e);
    const Coppice__Api__ExportModelAnswer *a = (const Coppice__Api__ExportModelAnswer *)answer;
    snprintf(digest, 65, "%s", a->digest ? a->digest : "");
    *step = a->step;
    if (!*bytes) e = cop_fail(error, COP_ERR_PROTOCOL, "the coordinator sent no model");
    cop_proto_free(answer);
    return e;
}

cop_err cli_model_fetch(const cli_options *options, cli_model *out, cop_error *error) {
    cop_buffer *bytes = NULL;
    char name[80], reported[65];
    unsigned char digest[32];
    uint64_t step = 0;
    COP_ASSERT(options->positional_count >= 1);
    *out = (cli_model){0};
    COP_TRY(fetch_model(options, &bytes, reported, &step, error));
    snprintf(name, sizeof name, "the model of job %.40s", options->positional[0]);
    cop_saved_model saved;
    cop_err e = cop_job_decode_model(bytes->data, bytes->size, name, &saved, error);
    cop_buffer_release(bytes);
    take_model(&saved, out);
    if (!e) e = cop_model_digest(out->job->model, out->flat, digest, error);
    if (!e) {
        cop_hex32(digest, out->digest);
        if (strcmp(reported, out->digest) != 0 || step != out->step)
            e = cop_fail(error, COP_ERR_PROTOCOL,
                         "%s is from step %llu with digest %.16s..., but the coordinator reports "
                         "step %llu with digest %.16s...",
                         name, (unsigned long long)out->step, out->digest, (unsigned long long)step,
                         reported);
    }
    if (e) {
        cli_model_close(out);
        *out = (cli_model){0};
    }
    return e;
}

/* ---- digest ---- */

cop_err cli_digest(const cli_options *options, cop_error *error) {
    const char *name = options->positional[0];
    Coppice__Api__DigestResult r = COPPICE__API__DIGEST_RESULT__INIT;
    cli_model m;
    COP_TRY(cli_is_job(name) ? cli_model_fetch(options, &m, error)
                             : cli_model_open(name, &m, error));
    r.digest = m.digest;
    r.model = (char *)(uintptr_t)name;
    r.has_step = 1;
    r.step = m.step;
    if (options->json)
        cli_print_json(&r.base);
    else
        cli_print("%s\n", m.digest);
    cli_model_close(&m);
    return COP_OK;
}

/* ---- eval ---- */

cop_err cli_model_data(const cli_model *m, const cli_options *options, cop_data **data,
                       cop_error *error) {
    cop_data *found = NULL;
    COP_ASSERT(m->job && options->positional_count >= 1);
    *data = NULL;
    COP_TRY(
        cli_run_folder_open_data(m->job->message, options->positional[0], options, &found, error));
    cop_err e = cop_job_check_data(m->job, found, error);
    if (!e && !found->test.count)
        e = cop_fail(error, COP_ERR_INPUT, "data set %s has no test samples", found->name);
    if (e)
        cop_data_destroy(found);
    else
        *data = found;
    return e;
}

static cop_err print_eval(const cli_options *options, const Coppice__Api__EvalResult *r) {
    if (options->json)
        cli_print_json(&r->base);
    else if (r->has_error)
        cli_print("%s error %.2f %%  loss %.4f  over %llu samples\n", r->on, 100 * r->error,
                  r->loss, (unsigned long long)r->samples);
    else
        cli_print("%s error -  loss %.4f  over %llu samples\n", r->on, r->loss,
                  (unsigned long long)r->samples);
    return COP_OK;
}

static cop_err eval_on_pool(const cli_options *options, cop_error *error) {
    Coppice__Api__EvalResult r = COPPICE__API__EVAL_RESULT__INIT;
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_pool_evaluate(options, &r, &answer, error));
    const cop_err e = print_eval(options, &r);
    cop_proto_free(answer);
    return e;
}

/* Prints the evaluation that the job made at its end. If there is none, or if it did not use the
 * test part, the weights are now evaluated on the pool. */
static cop_err eval_job(const cli_options *options, cop_error *error) {
    Coppice__Api__EvaluateRequest request = COPPICE__API__EVALUATE_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    cli_remote remote = {0};
    request.has_job = 1;
    COP_TRY(cli_job_number(options, options->positional[0], &request.job, error));
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e)
        e = cli_remote_call(&remote, &CLI_CALL(EVALUATE, evaluate, request), &answer, NULL, error);
    cli_remote_close(&remote);
    if (e == COP_ERR_NOT_FOUND) return eval_on_pool(options, error);
    COP_TRY(e);
    const Coppice__Api__EvaluateAnswer *a = (const Coppice__Api__EvaluateAnswer *)answer;
    Coppice__Api__EvalResult r = COPPICE__API__EVAL_RESULT__INIT;
    if (a->on && strcmp(a->on, "test") != 0) { /* the job evaluated only the validation part */
        cop_proto_free(answer);
        return eval_on_pool(options, error);
    }
    r.has_loss = r.has_samples = r.has_seconds = 1;
    r.has_error = a->has_error;
    r.error = a->error;
    r.loss = a->loss;
    r.samples = a->samples;
    r.seconds = a->seconds;
    r.on = a->on ? a->on : (char *)(uintptr_t)"test";
    r.digest = a->digest;
    e = print_eval(options, &r);
    cop_proto_free(answer);
    return e;
}

/* Evaluates positional[0] in this process. It is a path, or a job, whose weights are fetched from
 * the coordinator. */
static cop_err eval_here(const cli_options *options, cop_error *error) {
    cli_model m;
    cop_data *data = NULL;
    Coppice__Api__EvalResult r = COPPICE__API__EVAL_RESULT__INIT;
    if (cli_is_job(options->positional[0]))
        COP_TRY(cli_model_fetch(options, &m, error));
    else
        COP_TRY(cli_model_open(options->positional[0], &m, error));
    cop_err e = cli_model_data(&m, options, &data, error);
    if (!e) {
        e = cli_evaluate(m.job, data, m.flat, &r, error);
        r.on = (char *)(uintptr_t)"test";
        r.digest = m.digest;
        if (!e) e = print_eval(options, &r);
    }
    if (data) cop_data_destroy(data);
    cli_model_close(&m);
    return e;
}

cop_err cli_eval(const cli_options *options, cop_error *error) {
    if (!options->positional_count && !options->members_from_count)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected JOB|MODEL: coppice eval JOB|MODEL (coppice eval --help)");
    if (options->ensemble || options->average || options->members_from_count)
        return cli_ensemble_eval(options, error);
    const bool here = options->data || options->workers || !cli_is_job(options->positional[0]);
    return here ? eval_here(options, error) : eval_job(options, error);
}

/* ---- inspect a model ---- */

static void measure(const cop_parameter *p, const float *w, Coppice__Api__InspectTensor *t) {
    double sum = 0, squares = 0, min = w[0], max = w[0], norm = 0;
    COP_ASSERT(p->count >= 1 && (int64_t)p->rows * p->cols == p->count);
    for (int32_t r = 0; r < p->rows; r++) {
        double row = 0;
        for (int32_t c = 0; c < p->cols; c++) {
            double v = w[(int64_t)r * p->cols + c];
            sum += v;
            row += v * v;
            min = v < min ? v : min;
            max = v > max ? v : max;
        }
        squares += row;
        norm = sqrt(row) > norm ? sqrt(row) : norm;
    }
    double mean = sum / (double)p->count, variance = squares / (double)p->count - mean * mean;
    t->has_mean = t->has_std = t->has_min = t->has_max = t->has_max_row_norm = 1;
    t->mean = mean;
    t->std = variance > 0 ? sqrt(variance) : 0;
    t->min = min;
    t->max = max;
    t->max_row_norm = norm;
}

static cop_err print_tensors(const cli_model *m, cop_error *error) {
    int rows = cop_model_parameter_count(m->job->model) + 1;
    const char **cells = cop_alloc_array((size_t)rows * 6, sizeof *cells);
    char(*text)[5][48] = cop_alloc_array((size_t)rows, sizeof *text);
    static const char *const head[] = {"TENSOR", "SHAPE", "MEAN",
                                       "STD",    "RANGE", "LARGEST ROW NORM"};
    if (cells) memcpy(cells, head, sizeof head);
    for (int r = 1; cells && text && r < rows; r++) {
        const cop_parameter *p = cop_model_parameter(m->job->model, r - 1);
        Coppice__Api__InspectTensor t = COPPICE__API__INSPECT_TENSOR__INIT;
        COP_ASSERT(p->rank >= 1 && p->rank <= 4);
        measure(p, m->flat + p->offset, &t);
        char(*s)[48] = text[r];
        snprintf(s[0], sizeof s[0], "(%d", p->dims[0]);
        for (int d = 1; d < p->rank; d++) cop_text_append(s[0], sizeof s[0], ", %d", p->dims[d]);
        cop_text_append(s[0], sizeof s[0], ")");
        snprintf(s[1], sizeof s[1], "%.5f", t.mean);
        snprintf(s[2], sizeof s[2], "%.5f", t.std);
        snprintf(s[3], sizeof s[3], "%.4f .. %.4f", t.min, t.max);
        snprintf(s[4], sizeof s[4], "%.4f", t.max_row_norm);
        const char *values[] = {p->name, s[0], s[1], s[2], s[3], s[4]};
        memcpy(cells + r * 6, values, sizeof values);
    }
    const bool complete = cells && text;
    if (complete) cli_print_table(cells, rows, 6, "llrrrr");
    cop_free(cells);
    cop_free(text);
    return complete ? COP_OK : cop_no_memory(error);
}

static cop_err print_model_json(const cli_model *m, const char *path, cop_error *error) {
    int count = cop_model_parameter_count(m->job->model);
    Coppice__Api__InspectTensor *tensors = cop_alloc_array((size_t)count + 1, sizeof *tensors);
    Coppice__Api__InspectTensor **table = cop_alloc_array((size_t)count + 1, sizeof *table);
    uint64_t(*shapes)[4] = cop_alloc_array((size_t)count + 1, sizeof *shapes);
    Coppice__Api__InspectModel r = COPPICE__API__INSPECT_MODEL__INIT;
    bool ok = tensors && table && shapes;
    for (int i = 0; ok && i < count; i++) {
        const cop_parameter *p = cop_model_parameter(m->job->model, i);
        Coppice__Api__InspectTensor *t = table[i] = &tensors[i];
        COP_ASSERT(p->rank >= 1 && p->rank <= 4);
        coppice__api__inspect_tensor__init(t);
        t->name = (char *)(uintptr_t)p->name;
        t->dtype = (char *)(uintptr_t)"F32";
        t->shape = shapes[i];
        t->n_shape = (size_t)p->rank;
        for (int d = 0; d < p->rank; d++) shapes[i][d] = (uint64_t)p->dims[d];
        measure(p, m->flat + p->offset, t);
    }
    r.path = (char *)(uintptr_t)path;
    r.digest = (char *)(uintptr_t)m->digest;
    r.has_step = r.has_parameters = 1;
    r.step = m->step;
    r.parameters = (uint64_t)cop_model_weights(m->job->model);
    r.class_names = m->job->message->pinned->class_names;
    r.n_class_names = m->job->message->pinned->n_class_names;
    r.tensors = table;
    r.n_tensors = (size_t)count;
    if (ok) cli_print_json(&r.base);
    cop_free(tensors);
    cop_free(table);
    cop_free(shapes);
    return ok ? COP_OK : cop_no_memory(error);
}

/* Prints the names of the classes. Prints nothing if they have no names. */
static void print_classes(const cop_job *job) {
    const Coppice__Pinned *p = job->message->pinned;
    char name[64];
    for (size_t c = 0; c < p->n_class_names; c++)
        cli_print("%s%zu %s", c ? ", " : "\nclasses: ", c,
                  cli_shorten(p->class_names[c], name, sizeof name));
    if (p->n_class_names) cli_print("\n");
}

cop_err cli_inspect_model(const cli_options *options, cop_error *error) {
    cli_model m;
    const char *path = options->positional[0];
    bool is_model = true;
    COP_TRY(cli_inspect_file(options, &is_model, error));
    if (!is_model) return COP_OK;
    COP_TRY(cli_model_open(path, &m, error));
    cop_err e = COP_OK;
    if (options->json)
        e = print_model_json(&m, path, error);
    else
        e = print_tensors(&m, error);
    if (!e && !options->json) {
        print_classes(m.job);
        cli_print("\nstep %llu  %lld parameters  digest %s\n", (unsigned long long)m.step,
                  (long long)cop_model_weights(m.job->model), m.digest);
    }
    cli_model_close(&m);
    return e;
}
