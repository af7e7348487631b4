/* The prediction of `plan --time` as a message and as tables. See prediction.h. */
#include "client/measure/prediction.h"

#include <stdio.h>

#include "client/measure/in_process.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"

#define LINK_GBIT 10 /* assumed speed of the coordinator's network, in 10^9 bits per second */

/* The message, the table of its layers, the layers and the text, in one block. */
typedef struct prediction {
    Coppice__Api__PlanTime message;
    Coppice__Api__PlanLayerTime *table[COP_LAYERS_MAX], layers[COP_LAYERS_MAX];
    char measured[32];
} prediction;

static void fill_layer(int index, const struct cli_trial_layer *l, Coppice__Api__PlanLayerTime *m) {
    coppice__api__plan_layer_time__init(m);
    m->has_index = m->has_ms = 1;
    m->index = (uint32_t)index;
    m->ms = l->ms;
    m->has_input_density = l->input_zeros >= 0;
    m->input_density = 1 - l->input_zeros;
    m->has_gradient_density = l->gradient_zeros >= 0;
    m->gradient_density = 1 - l->gradient_zeros;
}

cop_err cli_prediction_message(const cop_job *job, const cli_trial *trial, bool cached,
                               Coppice__Api__PlanTime **out, cop_error *error) {
    const double link = LINK_GBIT * 1e9 / 8;
    prediction *p = cop_alloc(sizeof *p);
    if (!p) return cop_no_memory(error);
    Coppice__Api__PlanTime *m = *out = &p->message;
    coppice__api__plan_time__init(m);
    for (int i = 0; i < trial->layer_count; i++) {
        p->table[i] = &p->layers[i];
        fill_layer(i, &trial->layers[i], p->table[i]);
    }
    m->layers = p->table;
    m->n_layers = (size_t)trial->layer_count;
    m->measured = (char *)(uintptr_t)cop_clock_format_utc(trial->unix_ms, p->measured);
    m->has_workers = m->has_step_ms = m->has_samples_per_s = m->has_seconds = m->has_compute_ms =
        m->has_update_ms = m->has_cached = m->has_useful_workers = m->has_link_gbit_per_s =
            m->has_useful_pool_workers = m->has_pool_step_ms = 1;
    m->workers = (uint32_t)trial->workers;
    m->step_ms = trial->step_ms;
    m->samples_per_s = 1e3 * job->batch / trial->step_ms;
    m->seconds = 1e-3 * trial->step_ms * (double)job->steps;
    m->compute_ms = trial->compute_ms;
    m->update_ms = trial->update_ms;
    m->cached = cached;
    m->link_gbit_per_s = LINK_GBIT;
    m->useful_workers = (uint32_t)cli_trial_useful_workers(trial, job, cli_core_count(), 0);
    const int pool = cli_trial_useful_workers(trial, job, COP_WORKERS_MAX, link);
    m->useful_pool_workers = (uint32_t)pool;
    m->pool_step_ms = cli_trial_predict(trial, job, pool, link);
    return COP_OK;
}

static void print_density(char out[16], bool has, double density) {
    if (has)
        snprintf(out, 16, "%.2f", density);
    else
        snprintf(out, 16, "-");
}

#define COLUMNS 4

static cop_err print_layers(const cop_job *job, const Coppice__Api__PlanTime *t, cop_error *error) {
    const size_t rows = t->n_layers + 1;
    const char **cells = cop_alloc_array(rows * COLUMNS, sizeof *cells);
    char(*text)[COLUMNS][40] = cop_alloc_array(rows, sizeof *text);
    static const char *const head[COLUMNS] = {"LAYER", "MS PER STEP", "X NOT 0", "DY NOT 0"};
    for (int c = 0; cells && c < COLUMNS; c++) cells[c] = head[c];
    for (size_t r = 1; cells && text && r < rows; r++) {
        const Coppice__Api__PlanLayerTime *l = t->layers[r - 1];
        snprintf(text[r][0], sizeof text[r][0], "%u %.30s", l->index,
                 cop_model_layer(job->model, (int)l->index)->spec.kind);
        snprintf(text[r][1], sizeof text[r][1], "%.3f", l->ms);
        print_density(text[r][2], l->has_input_density, l->input_density);
        print_density(text[r][3], l->has_gradient_density, l->gradient_density);
        for (int c = 0; c < COLUMNS; c++) cells[r * COLUMNS + (size_t)c] = text[r][c];
    }
    const bool complete = cells && text;
    if (complete) cli_print_table(cells, (int)rows, COLUMNS, "lrrr");
    cop_free(cells);
    cop_free(text);
    return complete ? COP_OK : cop_no_memory(error);
}

cop_err cli_prediction_print(const cop_job *job, const Coppice__Api__PlanTime *t,
                             cop_error *error) {
    char step[96], seconds[32], run[96], pool[160], parts[96], measured[96];
    snprintf(step, sizeof step, "%.3g ms with %u workers in one process, %.0f samples/s",
             t->step_ms, t->workers, t->samples_per_s);
    snprintf(parts, sizeof parts, "%.3g ms of thread time for the layers, %.3g ms for the update",
             t->compute_ms, t->update_ms);
    snprintf(run, sizeof run, "%u on this machine", t->useful_workers);
    snprintf(pool, sizeof pool,
             "%u with one thread each, if the network carries %.0f Gbit/s: %.3g ms per step",
             t->useful_pool_workers, t->link_gbit_per_s, t->pool_step_ms);
    snprintf(measured, sizeof measured, "%s%s", t->measured,
             t->cached ? " (from the cache; --measure repeats it)" : "");
    const char *cells[] = {"time of a step",
                           step,
                           "its parts",
                           parts,
                           "time of all steps",
                           cop_format_seconds(t->seconds, seconds),
                           "useful workers of a run",
                           run,
                           "useful workers of a pool",
                           pool,
                           "measured",
                           measured};
    cli_print("\n");
    cli_print_table(cells, (int)(sizeof cells / sizeof *cells / 2), 2, "ll");
    cli_print("\n");
    return print_layers(job, t, error);
}
