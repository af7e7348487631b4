/* coppice inspect for a safetensors file that is not a model, such as the output of `replay`: lists
 * its tensors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/interchange/safetensors.h"

static void measure_f32(const cop_tensor_entry *t, Coppice__Api__InspectTensor *out) {
    const size_t count = t->size / sizeof(float);
    double sum = 0, squares = 0;
    if (strcmp(t->dtype, "F32") != 0 || !count) return;
    for (size_t i = 0; i < count; i++) {
        float value; /* a copy, because the tensor in the file may not be aligned */
        memcpy(&value, (const char *)t->data + i * sizeof value, sizeof value);
        sum += value;
        squares += (double)value * value;
        if (i == 0 || value < out->min) out->min = value;
        if (i == 0 || value > out->max) out->max = value;
    }
    const double mean = sum / (double)count, variance = squares / (double)count - mean * mean;
    out->has_mean = out->has_std = out->has_min = out->has_max = 1;
    out->mean = mean;
    out->std = variance > 0 ? sqrt(variance) : 0;
}

enum { FILE_COLUMNS = 6 };

static void format_tensor(const cop_tensor_entry *t, char text[4][64]) {
    Coppice__Api__InspectTensor m = COPPICE__API__INSPECT_TENSOR__INIT;
    int at = snprintf(text[0], 64, "(");
    for (int32_t d = 0; d < t->rank && at < 40; d++)
        at +=
            snprintf(text[0] + at, 64 - (size_t)at, "%s%lld", d ? ", " : "", (long long)t->dims[d]);
    snprintf(text[0] + at, 64 - (size_t)at, ")");
    measure_f32(t, &m);
    for (int i = 1; i < 4; i++) snprintf(text[i], 64, "-");
    if (!m.has_mean) return;
    snprintf(text[1], 64, "%.5f", m.mean);
    snprintf(text[2], 64, "%.5f", m.std);
    snprintf(text[3], 64, "%.4f .. %.4f", m.min, m.max);
}

static cop_err print_file(const cop_safetensors *file, cop_error *error) {
    const size_t count = cop_safetensors_count(file), rows = count + 1;
    COP_ASSERT(rows <= INT32_MAX);
    const char **cells = cop_alloc_array(rows * FILE_COLUMNS, sizeof *cells);
    char(*text)[4][64] = cop_alloc_array(rows, sizeof *text);
    static const char *const head[FILE_COLUMNS] = {"TENSOR", "TYPE", "SHAPE",
                                                   "MEAN",   "STD",  "RANGE"};
    cop_err e = cells && text ? COP_OK : cop_no_memory(error);
    if (!e) memcpy(cells, head, sizeof head);
    for (size_t r = 1; !e && r < rows; r++) {
        const cop_tensor_entry *t = cop_safetensors_at(file, r - 1);
        format_tensor(t, text[r]);
        const char *values[FILE_COLUMNS] = {t->name,    t->dtype,   text[r][0],
                                            text[r][1], text[r][2], text[r][3]};
        memcpy(cells + r * FILE_COLUMNS, values, sizeof values);
    }
    if (!e) cli_print_table(cells, (int)rows, FILE_COLUMNS, "flfrrr");
    cop_free(cells);
    cop_free(text);
    return e;
}

static cop_err print_file_json(const cop_safetensors *file, const char *path, cop_error *error) {
    const size_t count = cop_safetensors_count(file);
    Coppice__Api__InspectModel r = COPPICE__API__INSPECT_MODEL__INIT;
    Coppice__Api__InspectTensor *tensors = cop_alloc_array(count + 1, sizeof *tensors);
    Coppice__Api__InspectTensor **table = cop_alloc_array(count + 1, sizeof *table);
    uint64_t(*shapes)[8] = cop_alloc_array(count + 1, sizeof *shapes);
    const bool ok = tensors && table && shapes;
    for (size_t i = 0; ok && i < count; i++) {
        const cop_tensor_entry *t = cop_safetensors_at(file, i);
        coppice__api__inspect_tensor__init(table[i] = &tensors[i]);
        tensors[i].name = (char *)(uintptr_t)t->name;
        tensors[i].dtype = (char *)(uintptr_t)t->dtype;
        tensors[i].shape = shapes[i];
        tensors[i].n_shape = (size_t)t->rank;
        for (int32_t d = 0; d < t->rank; d++) shapes[i][d] = (uint64_t)t->dims[d];
        measure_f32(t, &tensors[i]);
    }
    r.path = (char *)(uintptr_t)path;
    r.tensors = table;
    r.n_tensors = count;
    if (ok) cli_print_json(&r.base);
    cop_free(tensors);
    cop_free(table);
    cop_free(shapes);
    return ok ? COP_OK : cop_no_memory(error);
}

/* Prints the tensors of a file. For a file from `replay` it also prints the step and shard, which
 * are in the metadata. */
static cop_err inspect_file(const cop_safetensors *file, const cli_options *options,
                            cop_error *error) {
    const char *step = cop_safetensors_metadata(file, "coppice.step"),
               *shard = cop_safetensors_metadata(file, "coppice.shard");
    if (options->json) return print_file_json(file, options->positional[0], error);
    COP_TRY(print_file(file, error));
    if (step && shard) cli_print("\nshard %s of step %s, replayed\n", shard, step);
    return COP_OK;
}

cop_err cli_inspect_file(const cli_options *options, bool *is_model, cop_error *error) {
    const char *path = options->positional[0];
    cop_safetensors *file = NULL;
    *is_model = true;
    if (cop_folder_exists(path) || cop_safetensors_open(path, &file, NULL)) return COP_OK;
    *is_model = cop_safetensors_metadata(file, "coppice.job") &&
                !cop_safetensors_metadata(file, "coppice.shard");
    cop_err e = *is_model ? COP_OK : inspect_file(file, options, error);
    cop_safetensors_close(file);
    return e;
}
