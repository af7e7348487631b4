/* coppice plot: draws learning curves of runs and jobs (loss and error over steps), or the error of
 * ensembles over the number of members (ensemble_plot.c). */
#include <stdio.h>
#include <math.h>
#include <string.h>

#include "client/draw/chart.h"
#include "client/cli.h"
#include "client/draw/ensemble_plot.h"
#include "client/load/history.h"
#include "common/base/alloc.h"
#include "common/base/file.h"

enum { LINES_MAX = 2 * CLI_POSITIONAL_MAX };

/* The history of one argument, and its figures as columns for a chart. */
typedef struct curve {
    char name[COP_NAME_MAX];
    coord_history history;
    /* Six columns, one after another: step, loss and error (in percent) of the epochs, then step,
     * loss and error of the evaluations. */
    double *columns;
} curve;

static void free_curves(curve *curves, int count) {
    for (int i = 0; i < count; i++) {
        coord_history_fini(&curves[i].history);
        cop_free(curves[i].columns);
    }
    cop_free(curves);
}

static void fill_columns(const coord_figure *rows, size_t count, double *to) {
    for (size_t i = 0; i < count; i++) {
        to[i] = (double)rows[i].step;
        to[count + i] = rows[i].loss;
        to[2 * count + i] = rows[i].has_error ? rows[i].error * 100 : NAN;
    }
}

static cop_err make_columns(curve *c, cop_error *error) {
    const size_t train = c->history.train_count, evaluations = c->history.evaluation_count;
    c->columns = cop_alloc_array(3 * (train + evaluations) + 1, sizeof *c->columns);
    if (!c->columns) return cop_no_memory(error);
    fill_columns(c->history.train, train, c->columns);
    fill_columns(c->history.evaluations, evaluations, c->columns + 3 * train);
    return COP_OK;
}

/* ---- drawing ---- */

/* Makes the lines of one chart from all curves. `column` selects what they show: 1 the loss, 2 the
 * error. Returns the number of lines. */
static size_t make_lines(const curve *curves, int count, size_t column, cli_series *lines,
                         char (*names)[COP_NAME_MAX + 16]) {
    size_t used = 0;
    COP_ASSERT(column == 1 || column == 2);
    for (int i = 0; i < count; i++) {
        const curve *c = &curves[i];
        for (int part = 0; part < 2; part++) {
            const size_t n = part ? c->history.evaluation_count : c->history.train_count;
            const double *from = part ? c->columns + 3 * c->history.train_count : c->columns;
            if (!n) continue;
            const char *what = !part ? "training" : c->history.on_test ? "test" : "validation";
            snprintf(names[used], sizeof names[used], "%s%s%s", count > 1 ? c->name : "",
                     count > 1 ? ", " : "", what);
            lines[used] = (cli_series){.name = names[used],
                                       .count = n,
                                       .x = from,
                                       .y = from + column * n,
                                       .color = count > 1 ? i : part};
            used++;
        }
    }
    COP_ASSERT(used <= LINES_MAX);
    return used;
}

/* True: at least one curve has a classification error. Jobs without classes have none. */
static bool has_errors(const curve *curves, int count) {
    for (int i = 0; i < count; i++) {
        const coord_history *h = &curves[i].history;
        for (size_t j = 0; j < h->train_count; j++)
            if (h->train[j].has_error) return true;
        for (size_t j = 0; j < h->evaluation_count; j++)
            if (h->evaluations[j].has_error) return true;
    }
    return false;
}

static cop_err draw(const curve *curves, int count, const char *path, cop_error *error) {
    typedef char line_name[COP_NAME_MAX + 16];
    COP_ASSERT(count >= 1 && count <= CLI_POSITIONAL_MAX);
    cli_series *lines = cop_alloc_array(2 * LINES_MAX, sizeof *lines);
    line_name *names = cop_alloc_array(LINES_MAX, sizeof *names);
    cop_err e = COP_OK;
    if (!lines || !names) e = cop_no_memory(error);
    if (!e) {
        const char *title = count == 1 ? curves[0].name : "comparison";
        const cli_chart charts[] = {
            {.title = title,
             .x_label = "step",
             .y_label = "loss (mean over samples)",
             .series = lines,
             .count = make_lines(curves, count, 1, lines, names)},
            {.title = title,
             .x_label = "step",
             .y_label = "error (%)",
             .series = lines + LINES_MAX,
             .count = make_lines(curves, count, 2, lines + LINES_MAX, names)}};
        e = cli_chart_write(charts, has_errors(curves, count) ? 2 : 1, path, error);
    }
    cop_free(lines);
    cop_free(names);
    return e;
}

/* Counts the arguments that are ensemble results: files, or "-" for standard input. */
static int count_results(const cli_options *options) {
    int count = 0;
    for (int i = 0; i < options->positional_count; i++) {
        const char *name = options->positional[i];
        count += strcmp(name, "-") == 0 || (!cli_is_job(name) && cop_file_exists(name));
    }
    return count;
}

static cop_err plot_curves(const cli_options *options, cop_error *error) {
    const int count = options->positional_count;
    curve *curves = cop_alloc_array((size_t)count, sizeof *curves);
    if (!curves) return cop_no_memory(error);
    cop_err e = COP_OK;
    for (int i = 0; i < count && !e; i++) {
        const char *name = options->positional[i];
        e = cli_history_load(options, name, &curves[i].history, curves[i].name, error);
        if (!e) e = make_columns(&curves[i], error);
    }
    if (!e) e = draw(curves, count, options->output, error);
    free_curves(curves, count);
    return e;
}

cop_err cli_plot(const cli_options *options, cop_error *error) {
    const int results = count_results(options);
    int count = options->positional_count;
    if (!options->output)
        return cop_fail(error, COP_ERR_USAGE, "expected -o FILE: the .svg or .png to write");
    if (results && results < count)
        return cop_fail(error, COP_ERR_USAGE,
                        "cannot mix result files with jobs: ensemble results and learning curves "
                        "need separate charts");
    COP_TRY(results ? cli_ensemble_plot(options, &count, error) : plot_curves(options, error));
    cop_str quoted = {0};
    if (options->json)
        cli_print("{\"output\":%s,\"curves\":%d}\n", cli_quote(&quoted, options->output), count);
    else if (!options->quiet)
        cli_print("%s\n", options->output);
    cop_str_fini(&quoted);
    return COP_OK;
}
