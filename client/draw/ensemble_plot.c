/* Draws charts of ensembles from the JSON output of `coppice eval`. See ensemble_plot.h. */
#include "client/draw/ensemble_plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/draw/chart.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/wire/codec.h"

#define RESULTS_MAX 64 /* maximum results in all files together */

typedef Coppice__Api__EnsembleResult result;
typedef Coppice__Api__EnsembleFigures figures;

/* A result and the file that it came from. */
typedef struct source {
    result *message;
    const char *file;
} source;

typedef struct sources {
    source list[RESULTS_MAX];
    size_t count;
} sources;

/* One line of the chart. It shows all results of one model with one kind of average. */
typedef struct curve {
    const source *first;
    char name[160];
    const figures **rows;
    size_t count;
    double *x, *y, *deviation;
} curve;

static bool is_horizontal(const result *r) {
    return strcmp(r->average, "weight-scaling") == 0;
}

/* ---- reading ---- */

/* Checks that a result has all fields that a chart needs. `place` is its file and line, for the
 * error. */
static cop_err check_result(const result *r, const char *place, cop_error *error) {
    if (!r->average || !r->n_members || !r->has_samples)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s is not an ensemble result: expected the output of `coppice eval "
                        "--ensemble K,K,... --json`",
                        place);
    for (size_t i = 0; i < r->n_members; i++) {
        const figures *f = r->members[i];
        const bool good = f->has_members && f->members && f->has_error && f->has_error_se &&
                          f->error >= 0 && f->error <= 1 && f->error_se >= 0 && f->error_se <= 1;
        if (!good)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: members[%zu] is incomplete: expected the number of members, error "
                            "from 0 to 1 and error_se",
                            place, i);
    }
    return COP_OK;
}

static cop_err read_stream(cop_json_stream *stream, sources *all, cop_error *error) {
    size_t before = all->count;
    for (;;) {
        ProtobufCMessage *message = NULL;
        char place[440];
        COP_TRY(cop_document_next_json(stream, &coppice__api__ensemble_result__descriptor, &message,
                                       error));
        if (!message) break;
        snprintf(place, sizeof place, "%.400s:%zu", stream->name, stream->line);
        cop_err e = check_result((const result *)message, place, error);
        if (!e && all->count == RESULTS_MAX)
            e = cop_fail(error, COP_ERR_LIMIT, "%s has too many results: at most %d", place,
                         RESULTS_MAX);
        if (e) {
            cop_proto_free(message);
            return e;
        }
        all->list[all->count++] = (source){(result *)message, stream->name};
    }
    return all->count > before ? COP_OK
                               : cop_fail(error, COP_ERR_INPUT,
                                          "%s is empty: expected an ensemble result", stream->name);
}

static cop_err read_file(const char *path, sources *all, cop_error *error) {
    const bool standard = strcmp(path, "-") == 0;
    char *text;
    size_t size;
    COP_TRY(standard ? cop_file_read_stream(STDIN_FILENO, "standard input", COP_JOB_FILE_MAX, &text,
                                            &size, error)
                     : cop_file_read(path, COP_JOB_FILE_MAX, &text, &size, error));
    cop_json_stream stream = {
        .name = standard ? "standard input" : path, .at = text, .end = text + size};
    const cop_err e = read_stream(&stream, all, error);
    cop_free(text);
    return e;
}

/* Refuses results that cover different numbers of samples, because their errors cannot be compared
 * in one chart. */
static cop_err check_same_samples(const sources *all, cop_error *error) {
    COP_ASSERT(all->count >= 1);
    const source *a = &all->list[0];
    for (size_t i = 1; i < all->count; i++) {
        const source *b = &all->list[i];
        if (b->message->samples == a->message->samples) continue;
        return cop_fail(
            error, COP_ERR_INPUT,
            "%s covers %llu samples, but %s covers %llu: expected results of the same test part",
            a->file, (unsigned long long)a->message->samples, b->file,
            (unsigned long long)b->message->samples);
    }
    return COP_OK;
}

/* ---- curves ---- */

static const char *model_of(const result *r) {
    return r->n_models ? r->models[0]->digest : r->digest;
}

static bool same_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_model(const result *a, const result *b) {
    return a->n_models == b->n_models && same_text(model_of(a), model_of(b));
}

static bool same_curve(const result *a, const result *b) {
    return strcmp(a->average, b->average) == 0 && same_model(a, b);
}

/* Gives a line its name, such as "arithmetic mean". With `with_file`, the name of the file comes
 * first. */
static void name_curve(curve *c, bool with_file) {
    const result *r = c->first->message;
    const char *slash = strrchr(c->first->file, '/');
    const char *file = slash ? slash + 1 : c->first->file;
    const char *dot = strrchr(file, '.');
    const int length = dot && dot > file ? (int)(dot - file) : (int)strlen(file);
    snprintf(c->name, sizeof c->name, "%.*s%s%s%.40s%s",
             with_file ? (length < 60 ? length : 60) : 0, file, with_file ? ": " : "",
             r->n_models ? "separate models, " : "", r->average, is_horizontal(r) ? "" : " mean");
    if (is_horizontal(r)) c->name[strlen(c->name) - strlen("-scaling")] = ' ';
}

static int by_members(const void *a, const void *b) {
    const figures *x = *(const figures *const *)a, *y = *(const figures *const *)b;
    return (x->members > y->members) - (x->members < y->members);
}

/* Adds a row to a line. If the line has a row with the same number of members, the new row replaces
 * it. */
static void add_row(curve *c, const figures *row) {
    for (size_t i = 0; i < c->count; i++)
        if (c->rows[i]->members == row->members) {
            c->rows[i] = row;
            return;
        }
    c->rows[c->count++] = row;
}

static cop_err make_columns(curve *c, cop_error *error) {
    COP_ASSERT(c->count >= 1);
    c->x = cop_alloc_array(3 * c->count, sizeof *c->x);
    if (!c->x) return cop_no_memory(error);
    c->y = c->x + c->count;
    c->deviation = c->y + c->count;
    qsort(c->rows, c->count, sizeof *c->rows, by_members);
    for (size_t i = 0; i < c->count; i++) {
        c->x[i] = c->rows[i]->members;
        c->y[i] = 100 * c->rows[i]->error;
        c->deviation[i] = 100 * c->rows[i]->error_se;
    }
    return COP_OK;
}

static cop_err make_curve(const sources *all, size_t first, curve *out, cop_error *error) {
    size_t rows = 0;
    *out = (curve){.first = &all->list[first]};
    for (size_t i = first; i < all->count; i++) rows += all->list[i].message->n_members;
    out->rows = cop_alloc_array(rows, sizeof *out->rows);
    if (!out->rows) return cop_no_memory(error);
    for (size_t i = first; i < all->count; i++) {
        const result *r = all->list[i].message;
        if (!same_curve(r, out->first->message)) continue;
        for (size_t k = 0; k < r->n_members; k++) add_row(out, r->members[k]);
    }
    COP_ASSERT(out->count <= rows);
    return make_columns(out, error);
}

/* True: no earlier result belongs to the same curve as result `at`. */
static bool begins_curve(const sources *all, size_t at) {
    for (size_t i = 0; i < at; i++)
        if (same_curve(all->list[i].message, all->list[at].message)) return false;
    return true;
}

/* ---- drawing ---- */

static cop_err draw(curve *curves, size_t count, const char *path, cop_error *error) {
    cli_series series[RESULTS_MAX];
    bool several_models = false, logarithmic = false;
    COP_ASSERT(count >= 1 && count <= RESULTS_MAX);
    for (size_t i = 1; i < count; i++)
        several_models =
            several_models || !same_model(curves[i].first->message, curves[0].first->message);
    for (size_t i = 0; i < count; i++) {
        curve *c = &curves[i];
        const bool level = is_horizontal(c->first->message);
        name_curve(c, several_models);
        series[i] = (cli_series){.name = c->name,
                                 .count = c->count,
                                 .x = c->x,
                                 .y = c->y,
                                 .deviation = c->deviation,
                                 .level = level,
                                 .color = (int)i};
        logarithmic = logarithmic || (!level && c->x[c->count - 1] >= 20 * c->x[0]);
    }
    const cli_chart chart = {.title = "thinned networks averaged at test time",
                             .x_label = "number of networks K",
                             .y_label = "test error (%) ± one standard error",
                             .log_x = logarithmic,
                             .series = series,
                             .count = count};
    return cli_chart_write(&chart, 1, path, error);
}

cop_err cli_ensemble_plot(const cli_options *options, int *lines, cop_error *error) {
    sources all = {.count = 0};
    curve curves[RESULTS_MAX];
    size_t count = 0;
    cop_err e = COP_OK;
    for (int i = 0; i < options->positional_count && !e; i++)
        e = read_file(options->positional[i], &all, error);
    if (!e) e = check_same_samples(&all, error);
    for (size_t i = 0; i < all.count && !e; i++)
        if (begins_curve(&all, i)) e = make_curve(&all, i, &curves[count++], error);
    if (!e) e = draw(curves, count, options->output, error);
    *lines = (int)count;
    for (size_t i = 0; i < count; i++) {
        cop_free(curves[i].rows);
        cop_free(curves[i].x);
    }
    for (size_t i = 0; i < all.count; i++) cop_proto_free(&all.list[i].message->base);
    return e;
}
