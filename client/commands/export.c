/* coppice export: trained weights, of a file, a run folder or a coordinator's job, as a file for
 * other programs. One row per format. */
#include <stdio.h>
#include <string.h>

#include "client/export.h"
#include "common/base/file.h"

static cop_err write_safetensors(const cli_model *m, const char *path, cop_error *error) {
    return cop_job_save_model(m->job, m->flat, m->step, path, error);
}

typedef struct export_format {
    const char *name, *ending; /* of files that are meant when --format is not given */
    cop_err (*write)(const cli_model *model, const char *path, cop_error *error);
    bool by_layers; /* written as layers, which say how */
} export_format;

static const export_format formats[] = {
    {"safetensors", ".safetensors", write_safetensors, false},
    {"onnx", ".onnx", cli_export_onnx, true},
    {"torch", ".py", cli_export_torch, true},
};
#define FORMATS (sizeof formats / sizeof *formats)

static bool ends_in(const char *text, const char *ending) {
    const size_t length = strlen(text), tail = strlen(ending);
    return length > tail && strcmp(text + length - tail, ending) == 0;
}

static cop_err choose(const cli_options *options, const export_format **out, cop_error *error) {
    const char *names[FORMATS];
    if (!options->output)
        return cop_fail(error, COP_ERR_USAGE, "expected -o FILE: the file to write");
    *out = &formats[0];
    for (size_t i = 0; i < FORMATS; i++) {
        names[i] = formats[i].name;
        if (options->format ? strcmp(options->format, names[i]) == 0
                            : ends_in(options->output, formats[i].ending)) {
            *out = &formats[i];
            return COP_OK;
        }
    }
    if (!options->format) return COP_OK;
    const char *nearest = cop_nearest_name(options->format, names, FORMATS);
    return cop_fail(error, COP_ERR_USAGE,
                    "--format is \"%s\": expected safetensors, onnx or torch%s%s%s",
                    options->format, nearest ? "; did you mean \"" : "", nearest ? nearest : "",
                    nearest ? "\"?" : "");
}

const char *cli_export_input(const cop_job *job) {
    const bool bytes = job->sample_type == COP_DTYPE_U8;
    if (!bytes) return "f32, the values of the data set";
    return cop_model_input(job->model)->normalize == COP_NORMALIZE_NONE
               ? "f32, the bytes of the data set as they are, 0 to 255"
               : "f32, the bytes of the data set divided by 255, 0 to 1";
}

/* To standard error: what the file computes otherwise than coppice. */
static void print_differences(const cop_model *model) {
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer *layer = cop_model_layer(model, i);
        const char *text = layer->ops->exported_as ? layer->ops->exported_as(layer) : NULL;
        if (text) cli_note("model[%d] %s: %s\n", i, layer->ops->kind, text);
    }
}

static void print_result(const cli_options *options, const export_format *format,
                         const cli_model *m) {
    if (!options->json) {
        cli_print("%s  digest %s\n", options->output, m->digest);
        return;
    }
    Coppice__Api__ExportResult r = COPPICE__API__EXPORT_RESULT__INIT;
    r.output = (char *)(uintptr_t)options->output;
    r.format = (char *)(uintptr_t)format->name;
    r.digest = (char *)(uintptr_t)m->digest;
    r.has_step = 1;
    r.step = m->step;
    cli_print_json(&r.base);
}

cop_err cli_export(const cli_options *options, cop_error *error) {
    const char *name = options->positional[0];
    const export_format *format;
    cli_model m;
    COP_TRY(choose(options, &format, error));
    COP_TRY(cli_is_job(name) ? cli_model_fetch(options, &m, error)
                             : cli_model_open(name, &m, error));
    const bool replaces = cop_file_exists(options->output);
    cop_err e = format->write(&m, options->output, error);
    if (e && !replaces && cop_file_exists(options->output)) cop_file_remove(options->output, NULL);
    if (!e && format->by_layers && !options->quiet) print_differences(m.job->model);
    if (!e) print_result(options, format, &m);
    cli_model_close(&m);
    return e;
}
