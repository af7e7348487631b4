/* coppice plan: validates a job file and shows what it would do, like model.summary() in Keras. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/measure/prediction.h"
#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/nn/thin.h"
#include "common/wire/codec.h"

/* Describes how a layer behaves in train mode and in eval mode. Both texts are "-" if it behaves
 * the same in both modes. */
static void describe_modes(const cop_layer *layer, char train[COP_MODE_TEXT],
                           char eval[COP_MODE_TEXT]) {
    snprintf(train, COP_MODE_TEXT, "-");
    snprintf(eval, COP_MODE_TEXT, "-");
    if (layer->ops->modes) layer->ops->modes(layer, train, eval);
}

/* Finds for each layer the fraction of its weights with which a thinned ensemble member computes
 * (common/nn/thin.h). 1 means all weights. Returns true if any fraction is below 1. */
static bool find_member_shares(const cop_job *job, double shares[COP_LAYERS_MAX]) {
    cop_thin_sides sides[COP_LAYERS_MAX];
    bool any = false;
    const bool may = job->numerics == COP_NUMERICS_PORTABLE;
    if (may) cop_thin_find(job->model, sides);
    for (int i = 0; i < cop_model_layer_count(job->model); i++) {
        const bool cut = may && cop_model_layer(job->model, i)->parameter_count > 0;
        shares[i] = cut ? sides[i].input * sides[i].output : 1;
        any = any || shares[i] < 1;
    }
    return any;
}

/* Describes how an ensemble member runs a layer. "-": with all weights. */
static void describe_member(double share, char text[COP_MODE_TEXT]) {
    if (share < 1)
        snprintf(text, COP_MODE_TEXT, "thin: %.2g of the weights", share);
    else
        snprintf(text, COP_MODE_TEXT, "-");
}

static uint64_t layer_weights(const cop_model *model, const cop_layer *layer) {
    uint64_t count = 0;
    for (int i = 0; i < layer->parameter_count; i++)
        count += (uint64_t)cop_model_parameter(model, layer->parameter_first + i)->count;
    return count;
}

/* ---- classes in each part ---- */

#define PARTS 3

/* A job and what `plan` shows of it. */
typedef struct plan {
    const cop_job *job;
    const cop_data *data;
    int workers;
    cop_plan_figures figures;
    /* the samples per class in the training, validation and test part, in this order */
    Coppice__Api__InspectPart part[PARTS], *table[PARTS];
    cop_job_value_ranges values;
    Coppice__Api__PlanTime *time; /* NULL: not wanted */
} plan;

static void free_parts(plan *p) {
    for (int i = 0; i < PARTS; i++) cop_free(p->part[i].per_class);
}

/* Counts the training, validation and test samples of each class. */
static cop_err count_parts(plan *p, cop_error *error) {
    const cop_job *job = p->job;
    const cop_data *data = p->data;
    static const char *const names[PARTS] = {"train", "validation", "test"};
    const uint32_t samples[PARTS] = {job->train_samples, job->validation_samples,
                                     job->test_samples};
    cop_data_view view;
    COP_TRY(cop_job_values(job, data, &p->values, error));
    COP_TRY(cop_job_view(job, data, &view, error));
    COP_ASSERT(view.train == samples[0] && view.validation == samples[1] &&
               view.test == samples[2]);
    bool ok = true;
    for (int i = 0; i < PARTS; i++) {
        p->table[i] = &p->part[i];
        coppice__api__inspect_part__init(p->table[i]);
        p->part[i].part = (char *)(uintptr_t)names[i];
        p->part[i].has_samples = 1;
        p->part[i].samples = samples[i];
        p->part[i].per_class = cop_alloc_array((size_t)data->classes, sizeof *p->part[i].per_class);
        p->part[i].n_per_class = (size_t)data->classes;
        ok = ok && p->part[i].per_class;
    }
    for (uint32_t i = 0; ok && i < view.train + view.validation; i++)
        p->part[i >= view.train].per_class[data->train.labels[cop_data_view_row(&view, i)]]++;
    for (uint32_t i = 0; ok && i < view.test; i++) p->part[2].per_class[data->test.labels[i]]++;
    cop_data_view_fini(&view);
    return ok ? COP_OK : cop_no_memory(error);
}

#define CLASSES_SHOWN 20

/* Prints one line per class. If there are more than CLASSES_SHOWN classes, prints only the smallest
 * and the largest number of samples per class. */
static void print_parts(const plan *p) {
    const size_t classes = p->part[0].n_per_class;
    const char *cells[(CLASSES_SHOWN + 1) * (PARTS + 1)] = {"CLASS", "TRAINING", "VALIDATION",
                                                            "TEST"};
    char text[CLASSES_SHOWN][PARTS + 1][40], number[16];
    if (classes <= CLASSES_SHOWN) {
        for (size_t c = 0; c < classes; c++)
            for (size_t i = 0; i <= PARTS; i++) {
                if (i)
                    snprintf(text[c][i], sizeof text[c][i], "%llu",
                             (unsigned long long)p->part[i - 1].per_class[c]);
                else
                    cli_shorten(cop_job_class(p->job, (int32_t)c, number), text[c][i],
                                sizeof text[c][i]);
                cells[(c + 1) * (PARTS + 1) + i] = text[c][i];
            }
        cli_print_table(cells, (int)classes + 1, PARTS + 1, "rrrr");
        return;
    }
    for (int i = 0; i < PARTS; i++) {
        uint64_t min = UINT64_MAX, max = 0;
        for (size_t c = 0; c < classes; c++) {
            const uint64_t n = p->part[i].per_class[c];
            min = n < min ? n : min;
            max = n > max ? n : max;
        }
        cli_print("each of %zu classes has %llu to %llu %s samples\n", classes,
                  (unsigned long long)min, (unsigned long long)max, p->part[i].part);
    }
}

/* ---- layers ---- */

#define PLAN_COLUMNS 8

static cop_err print_layers(const cop_job *job, cop_error *error) {
    int layers = cop_model_layer_count(job->model), rows = layers + 1;
    COP_ASSERT(layers >= 1 && layers <= COP_LAYERS_MAX);
    const char **cells = cop_alloc_array((size_t)rows * PLAN_COLUMNS, sizeof *cells);
    char(*text)[7][COP_MODE_TEXT] = cop_alloc_array((size_t)rows, sizeof *text);
    static const char *const head[PLAN_COLUMNS] = {
        "#", "LAYER", "OUTPUT", "PARAMETERS", "FLOP/SAMPLE", "TRAIN", "EVAL", "ENSEMBLE MEMBER"};
    double shares[COP_LAYERS_MAX] = {0};
    const int columns = find_member_shares(job, shares) ? PLAN_COLUMNS : PLAN_COLUMNS - 1;
    for (int c = 0; cells && c < columns; c++) cells[c] = head[c];
    for (int r = 1; cells && text && r < rows; r++) {
        const cop_layer *layer = cop_model_layer(job->model, r - 1);
        char(*t)[COP_MODE_TEXT] = text[r];
        char shape[64], count[32];
        snprintf(t[0], sizeof t[0], "%d", layer->index);
        snprintf(t[1], sizeof t[1], "%s", cop_shape_format(&layer->out, shape));
        snprintf(t[2], sizeof t[2], "%llu", (unsigned long long)layer_weights(job->model, layer));
        snprintf(t[3], sizeof t[3], "%s",
                 layer->ops->flop ? cop_format_count(layer->ops->flop(layer), count) : "0");
        describe_modes(layer, t[4], t[5]);
        describe_member(shares[r - 1], t[6]);
        const char *values[PLAN_COLUMNS] = {t[0], layer->spec.kind, t[1], t[2], t[3], t[4], t[5],
                                            t[6]};
        memcpy(cells + r * columns, values, (size_t)columns * sizeof *values);
    }
    const bool complete = cells && text;
    if (complete) cli_print_table(cells, rows, columns, "rllrrlll");
    cop_free(cells);
    cop_free(text);
    return complete ? COP_OK : cop_no_memory(error);
}

static const char *normalize_name(const cop_job *job) {
    switch (job->message->data->normalize) {
    case COPPICE__DATA__NORMALIZE__UNIT:
        return "unit";
    case COPPICE__DATA__NORMALIZE__STANDARD:
        return "standard";
    default: /* `auto` does not occur: it has been resolved */
        return "none";
    }
}

/* Describes which weights the job saves at its end, and whether it also keeps the best ones. */
static const char *describe_result(const cop_job *job) {
    if (job->validation_samples && !job->evaluate_on_test)
        return "the last weights; checkpoints/best has the best on the validation samples";
    if (job->test_samples)
        return "the last weights; there is no best checkpoint, because there are no validation "
               "samples";
    return "the last weights, without evaluation: there are neither validation nor test samples";
}

static cop_err print_plan(const plan *p, cop_error *error) {
    const cop_job *job = p->job;
    const cop_plan_figures *f = &p->figures;
    char count[32], flop[32], steps[96], wire[64], worker[32], coordinator[32], set[200], bytes[32];
    char values[128];
    const cop_job_value_ranges *r = &p->values;
    COP_TRY(print_layers(job, error));
    cli_print("\n");
    snprintf(count, sizeof count, "%lld", (long long)cop_model_weights(job->model));
    snprintf(steps, sizeof steps, "%llu (%.2f epochs of %llu)", (unsigned long long)job->steps,
             (double)job->steps / (double)job->steps_per_epoch,
             (unsigned long long)job->steps_per_epoch);
    snprintf(wire, sizeof wire, "%s with %d workers%s",
             cop_format_bytes((double)f->wire_bytes_per_step, bytes), p->workers,
             job->bf16 ? ", tensors as bf16" : "");
    snprintf(set, sizeof set, "%s: %u training, %u validation, %u test samples", p->data->name,
             job->train_samples, job->validation_samples, job->test_samples);
    snprintf(values, sizeof values, "%.4g to %.4g; normalize %s: the network sees %.4g to %.4g",
             r->stored[0], r->stored[1], normalize_name(job), r->seen[0], r->seen[1]);
    const char *cells[] = {"job",
                           job->message->name,
                           "data",
                           set,
                           "values",
                           values,
                           "result",
                           describe_result(job),
                           "parameters",
                           count,
                           "FLOP per sample, forward",
                           cop_format_count(f->flop_per_sample, flop),
                           "steps",
                           steps,
                           "bytes on the wire per step",
                           wire,
                           "memory of a worker",
                           cop_format_bytes((double)f->worker_bytes, worker),
                           "memory of the coordinator",
                           cop_format_bytes((double)f->coordinator_bytes, coordinator)};
    cli_print_table(cells, (int)(sizeof cells / sizeof *cells / 2), 2, "ll");
    cli_print("\n");
    print_parts(p);
    return p->time ? cli_prediction_print(job, p->time, error) : COP_OK;
}

/* Prints the plan as JSON. The strings of the message belong to the job or to local buffers. */
static cop_err print_plan_json(plan *p, cop_error *error) {
    const cop_job *job = p->job;
    const cop_plan_figures *f = &p->figures;
    int count = cop_model_layer_count(job->model);
    Coppice__Api__PlanLayer *layers = cop_alloc_array((size_t)count + 1, sizeof *layers);
    Coppice__Api__PlanLayer **table = cop_alloc_array((size_t)count + 1, sizeof *table);
    char(*text)[4][COP_MODE_TEXT] = cop_alloc_array((size_t)count + 1, sizeof *text);
    Coppice__Api__Plan r = COPPICE__API__PLAN__INIT;
    bool ok = layers && table && text;
    double shares[COP_LAYERS_MAX] = {0};
    find_member_shares(job, shares);
    for (int i = 0; ok && i < count; i++) {
        const cop_layer *layer = cop_model_layer(job->model, i);
        Coppice__Api__PlanLayer *l = table[i] = &layers[i];
        coppice__api__plan_layer__init(l);
        l->has_index = l->has_parameters = l->has_flop = 1;
        l->index = (uint32_t)layer->index;
        l->kind = (char *)(uintptr_t)layer->spec.kind;
        l->output = (char *)(uintptr_t)cop_shape_format(&layer->out, text[i][0]);
        l->parameters = layer_weights(job->model, layer);
        l->flop = layer->ops->flop ? layer->ops->flop(layer) : 0;
        describe_modes(layer, text[i][1], text[i][2]);
        l->train = text[i][1];
        l->eval = text[i][2];
        describe_member(shares[i], text[i][3]);
        if (shares[i] < 1) l->member = text[i][3];
    }
    r.name = job->message->name;
    r.layers = table;
    r.n_layers = (size_t)count;
    r.has_parameters = r.has_flop = r.has_steps = r.has_steps_per_epoch =
        r.has_wire_bytes_per_step = r.has_worker_bytes = r.has_coordinator_bytes = r.has_workers =
            1;
    r.parameters = (uint64_t)cop_model_weights(job->model);
    r.flop = f->flop_per_sample;
    r.steps = job->steps;
    r.steps_per_epoch = job->steps_per_epoch;
    r.wire_bytes_per_step = f->wire_bytes_per_step;
    r.worker_bytes = f->worker_bytes;
    r.coordinator_bytes = f->coordinator_bytes;
    r.workers = (uint32_t)p->workers;
    r.data = (char *)(uintptr_t)p->data->name;
    r.parts = p->table;
    r.n_parts = PARTS;
    r.class_names = job->message->pinned->class_names;
    r.n_class_names = job->message->pinned->n_class_names;
    r.normalize = (char *)(uintptr_t)normalize_name(job);
    r.n_values = r.n_inputs = 2;
    r.values = p->values.stored;
    r.inputs = p->values.seen;
    r.result = (char *)(uintptr_t)describe_result(job);
    r.time = p->time;
    r.has_step_ms = p->time != NULL;
    r.step_ms = p->time ? p->time->step_ms : 0;
    if (ok) cli_print_json(&r.base);
    cop_free(layers);
    cop_free(table);
    cop_free(text);
    return ok ? COP_OK : cop_no_memory(error);
}

/* Predicts the time of a step, if the options ask for it. */
static cop_err predict_time(plan *p, const cli_options *options, cop_error *error) {
    cli_trial trial;
    bool cached;
    if (!options->time && !options->measure) return COP_OK;
    COP_TRY(cli_trial_run(p->job, options->positional[0], options, &trial, &cached, error));
    return cli_prediction_message(p->job, &trial, cached, &p->time, error);
}

cop_err cli_plan(const cli_options *options, cop_error *error) {
    cop_job *job = NULL;
    cop_data *data = NULL;
    COP_TRY(cli_load_job(options->positional[0], options, &job, &data, error));
    plan p = {.job = job, .data = data, .workers = options->workers ? (int)options->workers : 2};
    cop_job_plan(job, p.workers, &p.figures);
    cop_err e = count_parts(&p, error);
    if (!e) e = predict_time(&p, options, error);
    if (!e && options->json)
        e = print_plan_json(&p, error);
    else if (!e)
        e = print_plan(&p, error);
    free_parts(&p);
    cop_free(p.time);
    cop_str warnings = {0};
    cop_job_warnings(job, &warnings);
    cop_job_warn_of_values(job, data, &warnings);
    if (warnings.length && !options->quiet) cli_note("%s", cop_str_text(&warnings));
    cop_str_fini(&warnings);
    cop_job_release(job);
    cop_data_destroy(data);
    return e;
}
