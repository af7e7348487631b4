/* coppice predict: predicts samples from a file with trained weights or an ensemble of their
 * thinned networks. Prints a table, or one line of JSON per sample, and draws a sheet of the most
 * uncertain samples. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/evaluate/predict.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/data/samples.h"
#include "common/ensemble/ensemble.h"

#define CELL 96 /* maximum bytes of a cell of the table */

/* ---- options ---- */

/* Checks the options before any file is read. *members becomes the number of members of --ensemble,
 * or 0 without --ensemble. */
static cop_err check_options(const cli_options *o, uint32_t *members, cop_error *error) {
    int64_t count = 0;
    if (!o->input)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected --input FILE: the samples, or --input - for standard input");
    if (o->ensemble &&
        (!cop_parse_i64(o->ensemble, &count) || count < 1 || count > COP_ENSEMBLE_MEMBERS_MAX))
        return cop_fail(error, COP_ERR_USAGE,
                        "--ensemble is \"%s\": expected a number of members from 1 to %d",
                        o->ensemble, COP_ENSEMBLE_MEMBERS_MAX);
    *members = (uint32_t)count;
    if (o->top_uncertain && !o->output)
        return cop_fail(error, COP_ERR_USAGE,
                        "--top-uncertain draws a contact sheet: also specify -o FILE.png");
    if (!o->output) return COP_OK;
    if (!o->top_uncertain)
        return cop_fail(error, COP_ERR_USAGE,
                        "-o names the contact sheet of --top-uncertain N; predictions go to "
                        "standard output (--json > FILE)");
    if (!cop_ends_with(o->output, ".png"))
        return cop_fail(error, COP_ERR_USAGE, "-o %s: expected a name that ends in .png",
                        o->output);
    return cop_file_check_place(o->output, error);
}

/* Refuses requests that the model cannot fulfil. */
static cop_err check_model(const cli_predictions *p, const cli_options *o, cop_error *error) {
    const cop_model *model = p->model->job->model;
    if (p->members && !cop_model_draws(model))
        return cop_fail(error, COP_ERR_INPUT,
                        "the model has no random layer (dropout, dropconnect ...): all members of "
                        "an ensemble would be equal");
    if (o->top_uncertain && !p->classes && !p->members)
        return cop_fail(error, COP_ERR_INPUT,
                        "the model has no class probabilities (its loss is not cross_entropy): "
                        "only an ensemble shows its uncertainty; also specify --ensemble K");
    return o->top_uncertain ? cli_uncertain_check(p, error) : COP_OK;
}

static void show_images(void *context, const char *what, uint64_t done, uint64_t total) {
    char text[80];
    snprintf(text, sizeof text, "reading %s  %llu of %llu", what, (unsigned long long)done,
             (unsigned long long)total);
    cli_progress_show(context, (double)done / (double)total, text);
}

static cop_err read_input(const cli_options *o, const cop_job *job, cop_data_samples *out,
                          cop_error *error) {
    cop_data_form form;
    cli_progress progress;
    char *bytes;
    size_t size;
    *out = (cop_data_samples){0};
    cop_job_sample_form(job, &form);
    if (strcmp(o->input, "-") == 0) {
        COP_TRY(cop_file_read_stream(STDIN_FILENO, "standard input", COP_INPUT_STREAM_MAX, &bytes,
                                     &size, error));
        const cop_data_content content = {"standard input", bytes, size};
        cop_err e = cop_data_samples_decode(&content, &form, out, error);
        cop_free(bytes);
        return e;
    }
    cli_progress_start(&progress, o->quiet);
    const cop_data_watcher watcher = {show_images, &progress};
    cop_err e = cop_data_samples_read(o->input, &form, &watcher, out, error);
    cli_progress_end(&progress);
    return e;
}

/* ---- JSON: one line per sample ---- */

/* The name of a class. NULL: it has none, or `class` is -1. */
static char *class_name(const cli_predictions *p, int32_t class) {
    const Coppice__Pinned *pinned = p->model->job->message->pinned;
    return class >= 0 && (size_t)class < pinned->n_class_names ? pinned->class_names[class] : NULL;
}

static void print_classes(const cli_predictions *p, uint32_t sample, const double *values) {
    const cli_prediction *r = &p->results[sample];
    const int32_t *labels = p->samples->part.labels;
    Coppice__Api__ClassPrediction m = COPPICE__API__CLASS_PREDICTION__INIT;
    m.has_sample = m.has_class_ = m.has_entropy = 1;
    m.has_label = labels != NULL;
    m.has_mutual_information = m.has_variation_ratio = p->members > 0;
    m.sample = sample;
    m.name = p->samples->names ? p->samples->names[sample] : NULL;
    m.class_ = (uint32_t)r->class;
    m.label = labels ? (uint32_t)labels[sample] : 0;
    m.class_name = class_name(p, r->class);
    m.label_name = labels ? class_name(p, labels[sample]) : NULL;
    m.probabilities = (double *)(uintptr_t)values;
    m.n_probabilities = (size_t)cop_model_outputs(p->model->job->model);
    m.entropy = r->entropy;
    m.mutual_information = r->information;
    m.variation_ratio = r->variation;
    cli_print_json(&m.base);
}

static void print_outputs(const cli_predictions *p, uint32_t sample, const double *values,
                          const double *deviations) {
    const cli_prediction *r = &p->results[sample];
    const int32_t *labels = p->samples->part.labels;
    Coppice__Api__OutputPrediction m = COPPICE__API__OUTPUT_PREDICTION__INIT;
    m.has_sample = 1;
    m.has_class_ = r->class >= 0;
    m.has_label = labels != NULL;
    m.has_spread = p->members > 0;
    m.sample = sample;
    m.name = p->samples->names ? p->samples->names[sample] : NULL;
    m.class_ = r->class >= 0 ? (uint32_t)r->class : 0;
    m.label = labels ? (uint32_t)labels[sample] : 0;
    m.class_name = class_name(p, r->class);
    m.label_name = labels ? class_name(p, labels[sample]) : NULL;
    m.outputs = (double *)(uintptr_t)values;
    m.n_outputs = (size_t)cop_model_outputs(p->model->job->model);
    m.deviations = (double *)(uintptr_t)deviations;
    m.n_deviations = p->members ? m.n_outputs : 0;
    m.spread = r->spread;
    cli_print_json(&m.base);
}

static cop_err print_block(void *context, const cli_predicted *block, cop_error *error) {
    const cli_predictions *p = context;
    const size_t outputs = (size_t)cop_model_outputs(p->model->job->model);
    COP_ASSERT(block->values && p->classes == (block->deviations == NULL));
    for (uint32_t i = 0; i < block->count; i++) {
        const double *values = block->values + i * outputs;
        if (p->classes)
            print_classes(p, block->first + i, values);
        else
            print_outputs(p, block->first + i, values, block->deviations + i * outputs);
    }
    return ferror(stdout) ? cop_fail(error, COP_ERR_IO, "cannot write to standard output") : COP_OK;
}

/* ---- the table ---- */

typedef struct table_column {
    const char *head;
    char align;
    bool (*applies)(const cli_predictions *p);
    void (*write)(const cli_predictions *p, uint32_t sample, char *out);
} table_column;

static bool always(const cli_predictions *p) {
    (void)p;
    return true;
}
static bool has_names(const cli_predictions *p) {
    return p->samples->names != NULL;
}
static bool has_labels(const cli_predictions *p) {
    return p->samples->part.labels != NULL;
}
static bool has_class(const cli_predictions *p) {
    return cop_model_has_classes(p->model->job->model);
}
static bool has_probabilities(const cli_predictions *p) {
    return p->classes;
}
static bool has_outputs(const cli_predictions *p) {
    return !p->classes;
}
static bool has_opinions(const cli_predictions *p) {
    return p->classes && p->members;
}
static bool has_spread(const cli_predictions *p) {
    return !p->classes && p->members;
}

static void write_sample(const cli_predictions *p, uint32_t sample, char *out) {
    (void)p;
    snprintf(out, CELL, "%u", sample);
}
static void write_name(const cli_predictions *p, uint32_t sample, char *out) {
    snprintf(out, CELL, "%.60s", p->samples->names[sample]);
}
static void write_class(const cli_predictions *p, uint32_t sample, char *out) {
    cli_class_text(p, p->results[sample].class, out, CELL);
}
static void write_label(const cli_predictions *p, uint32_t sample, char *out) {
    cli_class_text(p, p->samples->part.labels[sample], out, CELL);
}
static void write_probabilities(const cli_predictions *p, uint32_t sample, char *out) {
    const cli_prediction *r = &p->results[sample];
    char name[CELL / CLI_SHOWN - 10];
    for (int i = 0; i < r->shown_count; i++)
        cop_text_append(out, CELL, "%s%s: %.4f", i ? "  " : "",
                        cli_class_text(p, r->shown[i].index, name, sizeof name), r->shown[i].value);
}
static void write_outputs(const cli_predictions *p, uint32_t sample, char *out) {
    const cli_prediction *r = &p->results[sample];
    for (int i = 0; i < r->shown_count; i++) {
        cop_text_append(out, CELL, "%s%.4g", i ? "  " : "", r->shown[i].value);
        if (p->members) cop_text_append(out, CELL, " +- %.2g", r->shown[i].deviation);
    }
}
static void write_entropy(const cli_predictions *p, uint32_t sample, char *out) {
    snprintf(out, CELL, "%.4f", p->results[sample].entropy);
}
static void write_information(const cli_predictions *p, uint32_t sample, char *out) {
    snprintf(out, CELL, "%.4f", p->results[sample].information);
}
static void write_variation(const cli_predictions *p, uint32_t sample, char *out) {
    snprintf(out, CELL, "%.4f", p->results[sample].variation);
}
static void write_spread(const cli_predictions *p, uint32_t sample, char *out) {
    snprintf(out, CELL, "%.4g", p->results[sample].spread);
}

static const table_column columns[] = {
    {"SAMPLE", 'r', always, write_sample},
    {"FILE", 'l', has_names, write_name},
    {"CLASS", 'r', has_class, write_class},
    {"LABEL", 'r', has_labels, write_label},
    {"PROBABILITIES", 'l', has_probabilities, write_probabilities},
    {"OUTPUTS", 'l', has_outputs, write_outputs},
    {"ENTROPY", 'r', has_probabilities, write_entropy},
    {"MUTUAL INFORMATION", 'r', has_opinions, write_information},
    {"VARIATION RATIO", 'r', has_opinions, write_variation},
    {"SPREAD", 'r', has_spread, write_spread},
};
enum { COLUMN_COUNT = sizeof columns / sizeof *columns };

/* Prints the table of the `rows` samples with the indices in `samples`, in this order. If `samples`
 * is NULL, prints the first `rows` samples. */
static cop_err print_table(const cli_predictions *p, const uint32_t *samples, uint32_t rows,
                           cop_error *error) {
    const table_column *used[COLUMN_COUNT];
    char align[COLUMN_COUNT];
    size_t count = 0;
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        if (columns[i].applies(p)) {
            align[count] = columns[i].align;
            used[count++] = &columns[i];
        }
    COP_ASSERT(count >= 1 && rows <= p->samples->part.count);
    const char **cells = cop_alloc_array(((size_t)rows + 1) * count, sizeof *cells);
    char *text = cop_alloc_array((size_t)rows * count, CELL), *at = text;
    if (cells && text) {
        for (size_t c = 0; c < count; c++) cells[c] = used[c]->head;
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < count; c++, at += CELL) {
                used[c]->write(p, samples ? samples[r] : (uint32_t)r, at);
                cells[(r + 1) * count + c] = at;
            }
        cli_print_table(cells, (int)rows + 1, (int)count, align);
    }
    const bool done = cells && text;
    cop_free(cells);
    cop_free(text);
    return done ? COP_OK : cop_no_memory(error);
}

static void print_summary(const cli_predictions *p, uint32_t rows, bool most_uncertain) {
    const cop_data_part *part = &p->samples->part;
    uint32_t wrong = 0;
    for (uint32_t i = 0; part->labels && i < part->count; i++)
        wrong += part->labels[i] != p->results[i].class;
    cli_print("\n%u sample%s", part->count, part->count == 1 ? "" : "s");
    if (most_uncertain) cli_print(", showing the %u most uncertain", rows);
    if (!most_uncertain && rows < part->count)
        cli_print(", showing the first %u (--limit 0: all)", rows);
    if (p->members) cli_print("; %u members", p->members);
    if (p->classes) cli_print("; entropy%s in nats", p->members ? " and information" : "");
    if (part->labels && has_class(p))
        cli_print("; error %.2f %%", 100.0 * (double)wrong / (double)part->count);
    cli_print("\n");
}

/* ---- the command ---- */

static cop_err print_predictions(const cli_options *o, const cli_predictions *p, cop_error *error) {
    const uint32_t all = p->samples->part.count;
    const int64_t requested = o->top_uncertain ? o->top_uncertain : o->limit ? o->limit : all;
    const uint32_t rows = requested < all ? (uint32_t)requested : all;
    uint32_t *samples = NULL;
    cop_err e = COP_OK;
    if (o->top_uncertain) {
        samples = cli_most_uncertain(p, rows);
        if (!samples) return cop_no_memory(error);
        e = cli_uncertain_draw(p, samples, rows, o->output, error);
    }
    if (!e && !o->json) {
        e = print_table(p, samples, rows, error);
        if (!e) print_summary(p, rows, samples != NULL);
    }
    if (!e && !o->json && samples) cli_print("%s\n", o->output);
    cop_free(samples);
    return e;
}

static cop_err predict(const cli_options *o, cli_predictions *p, cop_error *error) {
    cop_data_samples samples;
    const cli_predict_options settings = {.workers = o->workers,
                                          .quiet = o->quiet,
                                          .on_block = o->json ? print_block : NULL,
                                          .context = p};
    p->classes = cli_predicts_classes(p->model->job->model);
    COP_TRY(check_model(p, o, error));
    cop_err e = read_input(o, p->model->job, &samples, error);
    p->samples = &samples;
    if (!e && !(p->results = cop_alloc_array(samples.part.count, sizeof *p->results)))
        e = cop_no_memory(error);
    if (!e) e = cli_predict_run(p, &settings, error);
    if (!e) e = print_predictions(o, p, error);
    cop_free(p->results);
    cop_data_samples_fini(&samples);
    return e;
}

cop_err cli_predict(const cli_options *options, cop_error *error) {
    cli_model model;
    cli_predictions p = {.model = &model};
    COP_TRY(check_options(options, &p.members, error));
    COP_TRY(cli_is_job(options->positional[0])
                ? cli_model_fetch(options, &model, error)
                : cli_model_open(options->positional[0], &model, error));
    cop_err e = predict(options, &p, error);
    cli_model_close(&model);
    return e;
}
