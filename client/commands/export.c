/* coppice export: writes the trained weights of a file, a run folder or a coordinator's job in a
 * format for other programs. The table of formats has one row per format. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/file.h"
#include "common/interchange/export.h"

static cop_err write_safetensors(const cli_model *m, const char *path, cop_error *error) {
    return cop_job_save_model(m->job, m->flat, m->step, path, error);
}

static const char *input_text(const cop_job *job) {
    const bool bytes = job->sample_type == COP_DTYPE_U8;
    if (!bytes) return "f32, the values of the data set";
    return cop_model_input(job->model)->normalize == COP_NORMALIZE_NONE
               ? "f32, the unscaled bytes of the data set, 0 to 255"
               : "f32, the bytes of the data set divided by 255, 0 to 1";
}

static cop_export describe(const cli_model *m, const char *yaml) {
    const Coppice__Pinned *pinned = m->job->message->pinned;
    cop_export out = {.model = m->job->model,
                      .weights = m->flat,
                      .sample = {.rank = (int32_t)pinned->n_input},
                      .input = input_text(m->job),
                      .name = m->job->message->name,
                      .digest = m->digest,
                      .step = m->step,
                      .yaml = yaml,
                      .class_names = cop_job_class_names(m->job),
                      .class_count = pinned->n_class_names};
    COP_ASSERT(out.sample.rank >= 1 && out.sample.rank <= 4);
    for (int d = 0; d < out.sample.rank; d++) out.sample.dims[d] = (int32_t)pinned->input[d];
    return out;
}

static cop_err write_onnx(const cli_model *m, const char *path, cop_error *error) {
    cop_str yaml = {0};
    cop_document_print_yaml(&m->job->message->base, &yaml);
    const cop_export exported = describe(m, cop_str_text(&yaml));
    cop_err e = yaml.failed ? cop_no_memory(error) : cop_export_onnx(&exported, path, error);
    cop_str_fini(&yaml);
    return e;
}

/* Writes the weights to `weights`, then the Python file that loads them to `path`. On failure the
 * caller removes the Python file. If `weights` exists without the Python file, it is not from an
 * earlier export. The user has not named it with -o, so it is not overwritten. */
static cop_err write_both(const cli_model *m, const char *text, const char *path,
                          const char *weights, cop_error *error) {
    const bool replaced = cop_file_exists(weights);
    if (replaced && !cop_file_exists(path))
        return cop_fail(error, COP_ERR_INPUT,
                        "the weights of %s would overwrite %s: choose another name with -o", path,
                        weights);
    cop_err e = cop_job_save_model(m->job, m->flat, m->step, weights, error);
    if (!e) e = cop_file_write_text(path, text, error);
    if (e && !replaced) cop_file_remove(weights, NULL);
    return e;
}

static cop_err write_torch(const cli_model *m, const char *path, cop_error *error) {
    const size_t length = strlen(path);
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (strlen(name) < 4 || strcmp(path + length - 3, ".py") != 0)
        return cop_fail(error, COP_ERR_USAGE,
                        "-o is \"%s\": expected a name that ends in .py; the weights are written "
                        "to the same name with .safetensors",
                        path);
    cop_str text = {0}, weights = {0};
    const cop_export exported = describe(m, NULL);
    cop_export_torch(&exported, &text);
    cop_str_append_bytes(&weights, path, length - 3);
    cop_str_append(&weights, ".safetensors");
    cop_err e = text.failed || weights.failed
                    ? cop_no_memory(error)
                    : write_both(m, cop_str_text(&text), path, cop_str_text(&weights), error);
    cop_str_fini(&text);
    cop_str_fini(&weights);
    return e;
}

typedef struct export_format {
    const char *name;   /* as in --format */
    const char *ending; /* a file name with this extension selects the format without --format */
    cop_err (*write)(const cli_model *model, const char *path, cop_error *error);
    bool by_layers; /* the layers write themselves; print_differences then prints their notes */
} export_format;

static const export_format formats[] = {
    {"safetensors", ".safetensors", write_safetensors, false},
    {"onnx", ".onnx", write_onnx, true},
    {"torch", ".py", write_torch, true},
};
#define FORMATS (sizeof formats / sizeof *formats)

static cop_err choose(const cli_options *options, const export_format **out, cop_error *error) {
    const char *names[FORMATS];
    if (!options->output)
        return cop_fail(error, COP_ERR_USAGE, "expected -o FILE: the file to write");
    *out = &formats[0];
    for (size_t i = 0; i < FORMATS; i++) {
        names[i] = formats[i].name;
        if (options->format ? strcmp(options->format, names[i]) == 0
                            : cop_ends_with(options->output, formats[i].ending)) {
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

/* Prints to standard error how the exported layers compute differently from coppice. */
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
