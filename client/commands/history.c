/* coppice history: prints the loss of each step and epoch, and each evaluation, of a job or run. */
#include "client/load/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/wire/codec.h"

#define FOLLOW_PAUSE_MS 1000

typedef struct printer {
    const cli_options *options;
    const char *what;
    size_t epochs;      /* number of epochs printed so far */
    size_t evaluations; /* number of evaluations printed so far */
    uint64_t step;      /* the newest single step printed so far */
    bool started;       /* the head has been printed */
} printer;

/* ---- one line ---- */

static void print_number(const char *before, bool has, double value, const char *none) {
    if (has && isfinite(value))
        cli_print("%s%.17g", before, value);
    else
        cli_print("%s%s", before, none);
}

static void print_row(const printer *p, const char *kind, const coord_figure *f) {
    const unsigned long long step = (unsigned long long)f->step;
    char loss[32], error[32] = "-", time[32] = "-";
    if (p->options->json) {
        cli_print("{\"kind\":\"%s\",\"step\":%llu", kind, step);
        print_number(",\"loss\":", true, f->loss, "null");
        print_number(",\"error\":", f->has_error, f->error, "null");
        print_number(",\"seconds\":", f->has_seconds, f->seconds, "null");
        cli_print("}\n");
    } else if (p->options->csv) {
        cli_print("%s,%llu", kind, step);
        print_number(",", true, f->loss, "");
        print_number(",", f->has_error, f->error, "");
        print_number(",", f->has_seconds, f->seconds, "");
        cli_print("\n");
    } else {
        snprintf(loss, sizeof loss, "%.4f", f->loss);
        if (f->has_error) snprintf(error, sizeof error, "%.2f %%", 100 * f->error);
        if (f->has_seconds) cop_format_seconds(f->seconds, time);
        cli_print("%10llu  %-10s  %10s  %10s  %10s\n", step, kind, loss, error, time);
    }
}

static void print_head(printer *p) {
    if (p->started) return;
    p->started = true;
    if (p->options->csv)
        cli_print("kind,step,loss,error,seconds\n");
    else if (!p->options->json)
        cli_print("%s%10s  %-10s  %10s  %10s  %10s%s\n", cli_color(1, "bold"), "STEP", "WHAT",
                  "LOSS", "ERROR", "TIME", cli_color(1, "reset"));
}

/* ---- all rows, ordered by step ---- */

/* Prints the epochs and evaluations up to step `until` that have not been printed yet. */
static void print_until(printer *p, const coord_history *h, uint64_t until) {
    for (;;) {
        const coord_figure *epoch = p->epochs < h->train_count ? &h->train[p->epochs] : NULL;
        const coord_figure *seen =
            p->evaluations < h->evaluation_count ? &h->evaluations[p->evaluations] : NULL;
        if (epoch && epoch->step > until) epoch = NULL;
        if (seen && seen->step > until) seen = NULL;
        if (epoch && (!seen || epoch->step <= seen->step)) {
            print_row(p, "epoch", epoch);
            p->epochs++;
        } else if (seen) {
            print_row(p, h->on_test ? "test" : "validation", seen);
            p->evaluations++;
        } else {
            return;
        }
    }
}

/* Prints the single steps that have not been printed yet, and in between the epochs and
 * evaluations, ordered by step. Only --csv and --json show single steps. */
static cop_err print_steps(printer *p, const coord_history *h, cop_error *error) {
    for (;;) {
        coord_history page;
        COP_TRY(cli_history_steps(p->options, p->what, p->step, &page, error));
        for (size_t i = 0; i < page.step_count; i++) {
            const coord_figure *f = &page.steps[i];
            if (f->step > 0) print_until(p, h, f->step - 1);
            print_row(p, "step", f);
            if (f->step > p->step) p->step = f->step;
        }
        const bool last = page.step_count < COORD_HISTORY_PAGE;
        coord_history_fini(&page);
        if (last) return COP_OK;
    }
}

static cop_err print_new(printer *p, cop_error *error) {
    coord_history history;
    char name[COP_NAME_MAX];
    COP_TRY(cli_history_load(p->options, p->what, &history, name, error));
    print_head(p);
    cop_err e = p->options->csv || p->options->json ? print_steps(p, &history, error) : COP_OK;
    if (!e) print_until(p, &history, UINT64_MAX);
    coord_history_fini(&history);
    fflush(stdout);
    return e;
}

/* ---- following ---- */

/* Finds out whether a job or run has ended. A run that has not ended holds the lock of its
 * folder. */
static cop_err has_ended(const cli_options *options, const char *what, bool *ended,
                         cop_error *error) {
    int lock;
    if (cli_is_job(what)) return cli_job_has_ended(options, what, ended, error);
    cop_err e = cop_folder_lock(what, &lock, error);
    if (!e) cop_folder_unlock(lock);
    *ended = !e;
    return e == COP_ERR_EXISTS ? COP_OK : e;
}

cop_err cli_history(const cli_options *options, cop_error *error) {
    printer p = {.options = options, .what = options->positional[0]};
    bool ended = !options->follow;
    if (options->csv && options->json)
        return cop_fail(error, COP_ERR_USAGE, "--csv and --json cannot be combined");
    for (;;) {
        if (options->follow) COP_TRY(has_ended(options, p.what, &ended, error));
        COP_TRY(print_new(&p, error));
        if (ended) return COP_OK;
        cop_clock_sleep_ms(FOLLOW_PAUSE_MS);
    }
}
