/* coppice data list|get|rm, and coppice inspect for data sets. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli.h"
#include "client/draw/sheet.h"
#include "client/remote/download.h"
#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/wire/codec.h"

/* ---- data list ---- */

static bool is_in_cache(const char *name) {
    char *cache = cop_path_cache(), *folder = cache ? cop_path_join(cache, name) : NULL;
    bool exists = folder && cop_folder_exists(folder);
    cop_free(cache);
    cop_free(folder);
    return exists;
}

static const char *state_of(const cop_data_source *source) {
    const char *mnist = getenv("COPPICE_MNIST");
    if (source->built_in) return "built in";
    if (strcmp(source->name, "mnist") == 0 && mnist && *mnist) return "in $COPPICE_MNIST";
    if (is_in_cache(source->name)) return "downloaded";
    return source->downloadable ? "not here: coppice data get" : "not here";
}

static void list_local(const cli_options *options) {
    enum { COLUMNS = 3, SOURCES_MAX = 16 };
    const char *cells[COLUMNS * (SOURCES_MAX + 1)] = {"NAME", "STATE", "WHAT"};
    size_t count;
    const cop_data_source *sources = cop_data_sources(&count);
    COP_ASSERT(count <= SOURCES_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *row[COLUMNS] = {sources[i].name, state_of(&sources[i]), sources[i].help};
        memcpy(cells + COLUMNS * (i + 1), row, sizeof row);
        if (options->json) cli_print("{\"name\":\"%s\",\"state\":\"%s\"}\n", row[0], row[1]);
    }
    if (!options->json) cli_print_table(cells, (int)count + 1, COLUMNS, "llf");
}

/* Prints the coordinator's data sets as a table. The coordinator reads a data set in its --data
 * folder when a job first needs it. Until then only the name is known. */
static cop_err print_sets(const Coppice__Api__ListDataAnswer *answer, cop_error *error) {
    enum { COLUMNS = 7 };
    static const char *const head[COLUMNS] = {"NAME", "TRAINING", "TEST", "CLASSES",
                                              "SIZE", "DIGEST",   "JOBS"};
    int rows = (int)answer->n_sets + 1;
    const char **cells = cop_alloc_array((size_t)rows * COLUMNS, sizeof *cells);
    char(*text)[COLUMNS][32] = cop_alloc_array((size_t)rows, sizeof *text);
    for (int c = 0; cells && c < COLUMNS; c++) cells[c] = head[c];
    for (int r = 1; cells && text && r < rows; r++) {
        const Coppice__Api__DataSetInfo *s = answer->sets[r - 1];
        bool read = s->digest && *s->digest;
        char(*t)[32] = text[r];
        snprintf(t[1], sizeof t[1], read ? "%u" : "-", s->train);
        snprintf(t[2], sizeof t[2], read ? "%u" : "-", s->test);
        snprintf(t[3], sizeof t[3], read ? "%u" : "-", s->classes);
        snprintf(t[4], sizeof t[4], "-");
        if (read) cop_format_bytes((double)s->bytes, t[4]);
        snprintf(t[5], sizeof t[5], read ? "%.16s..." : "not read yet", s->digest);
        snprintf(t[6], sizeof t[6], "%u", s->jobs);
        cells[r * COLUMNS] = s->name ? s->name : "-";
        for (int c = 1; c < COLUMNS; c++) cells[r * COLUMNS + c] = t[c];
    }
    const bool complete = cells && text;
    if (complete) cli_print_table(cells, rows, COLUMNS, "frrrrfr");
    cop_free(cells);
    cop_free(text);
    return complete ? COP_OK : cop_no_memory(error);
}

static cop_err list_remote(const cli_options *options, cop_error *error) {
    Coppice__Api__ListDataRequest request = COPPICE__API__LIST_DATA_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    cli_remote remote = {0};
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e)
        e = cli_remote_call(&remote, &CLI_CALL(LIST_DATA, list_data, request), &answer, NULL,
                            error);
    cli_remote_close(&remote);
    COP_TRY(e);
    if (options->json)
        cli_print_json(answer);
    else
        e = print_sets((const Coppice__Api__ListDataAnswer *)answer, error);
    cop_proto_free(answer);
    return e;
}

/* ---- data get, rm ---- */

static cop_err get(const cli_options *options, const char *name, cop_error *error) {
    char *cache = cop_path_cache(), *cached = cache ? cop_path_join(cache, name) : NULL;
    if (!cached) return cop_no_memory(error);
    const char *into = options->out ? options->out : cached;
    cli_progress bar;
    cli_progress_start(&bar, options->quiet);
    cop_err e = cli_download(name, into, cli_data_progress, &bar, error);
    cli_progress_end(&bar);
    if (!e && options->json) {
        cop_str folder = {0};
        cli_print("{\"name\":\"%s\",\"folder\":%s}\n", name, cli_quote(&folder, into));
        cop_str_fini(&folder);
    } else if (!e)
        cli_print("%s is in %s\n", name, into);
    cop_free(cache);
    cop_free(cached);
    return e;
}

static void print_removed(const cli_options *options, const char *name) {
    cop_str quoted = {0};
    if (options->json)
        cli_print("{\"removed\":%s}\n", cli_quote(&quoted, name));
    else
        cli_print("%s removed\n", name);
    cop_str_fini(&quoted);
}

static cop_err remove_local(const cli_options *options, const char *name, cop_error *error) {
    size_t count;
    const cop_data_source *sources = cop_data_sources(&count);
    bool known = false;
    for (size_t i = 0; i < count; i++) known = known || strcmp(sources[i].name, name) == 0;
    if (!known || !is_in_cache(name))
        return cop_fail(error, COP_ERR_NOT_FOUND,
                        "data set \"%s\" is not downloaded (coppice data list --local)", name);
    char *cache = cop_path_cache(), *folder = cache ? cop_path_join(cache, name) : NULL;
    cop_err e = folder ? cop_folder_remove(folder, error) : cop_no_memory(error);
    cop_free(cache);
    cop_free(folder);
    if (!e) print_removed(options, name);
    return e;
}

static cop_err remove_remote(const cli_options *options, const char *name, cop_error *error) {
    Coppice__Api__RemoveDataRequest request = COPPICE__API__REMOVE_DATA_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    cli_remote remote = {0};
    request.name_or_digest = (char *)(uintptr_t)name;
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e)
        e = cli_remote_call(&remote, &CLI_CALL(REMOVE_DATA, remove_data, request), &answer, NULL,
                            error);
    cli_remote_close(&remote);
    COP_TRY(e);
    cop_proto_free(answer);
    print_removed(options, name);
    return COP_OK;
}

cop_err cli_data(const cli_options *options, cop_error *error) {
    static const char *const verbs[] = {"list", "get", "rm"};
    const char *verb = options->positional[0],
               *name = options->positional_count > 1 ? options->positional[1] : NULL;
    if (strcmp(verb, "list") == 0) {
        if (!options->local) return list_remote(options, error);
        list_local(options);
        return COP_OK;
    }
    if (strcmp(verb, "get") != 0 && strcmp(verb, "rm") != 0) {
        const char *nearest = cop_nearest_name(verb, verbs, 3);
        return cop_fail(error, COP_ERR_USAGE, "unknown verb \"%s\": expected list, get or rm%s%s%s",
                        verb, nearest ? " (did you mean " : "", nearest ? nearest : "",
                        nearest ? "?)" : "");
    }
    if (!name)
        return cop_fail(error, COP_ERR_USAGE,
                        "expected the name of a data set: coppice data %s mnist", verb);
    if (strcmp(verb, "get") == 0) return get(options, name, error);
    return options->local ? remove_local(options, name, error)
                          : remove_remote(options, name, error);
}

/* ---- inspect a data set ---- */

/* Mean and standard deviation of all values of u8 samples, divided by 255. Both come from integer
 * sums, so they are exact up to the last division. */
static void statistics(const cop_data_part *part, double *mean, double *std) {
    uint64_t sum = 0, squares = 0, count = (uint64_t)part->count * part->stride;
    COP_ASSERT(part->type == COP_DATA_U8);
    const uint8_t *p = part->samples;
    for (uint64_t i = 0; i < count; i++) {
        sum += p[i];
        squares += (uint64_t)p[i] * p[i];
    }
    *mean = count ? (double)sum / (double)count / 255 : 0;
    double variance = count ? (double)squares / (double)count / 65025 - *mean * *mean : 0;
    *std = variance > 0 ? sqrt(variance) : 0;
}

static cop_err inspect_part(const cop_data *data, const cop_data_part *part, const char *name,
                            Coppice__Api__InspectPart *out, cop_error *error) {
    coppice__api__inspect_part__init(out);
    out->per_class = cop_alloc_array((size_t)data->classes, sizeof *out->per_class);
    if (!out->per_class) return cop_no_memory(error);
    for (uint32_t i = 0; i < part->count; i++) {
        COP_ASSERT(part->labels[i] >= 0 && part->labels[i] < data->classes);
        out->per_class[part->labels[i]]++;
    }
    out->n_per_class = (size_t)data->classes;
    out->part = (char *)(uintptr_t)name;
    out->has_samples = 1;
    out->samples = part->count;
    out->has_mean = out->has_std = part->type == COP_DATA_U8;
    if (out->has_mean) statistics(part, &out->mean, &out->std);
    return COP_OK;
}

/* The length in bytes of the longest name among the first 100 classes, which are the ones shown. At
 * least 3. */
static int name_width(const cop_data *data) {
    size_t width = 3;
    for (int32_t c = 0; data->class_names && c < data->classes && c < 100; c++)
        if (strlen(data->class_names[c]) > width) width = strlen(data->class_names[c]);
    return (int)width;
}

static void print_parts(const cop_data *data, Coppice__Api__InspectPart *const parts[2]) {
    const int width = name_width(data);
    for (int p = 0; p < 2; p++) {
        cli_print("%-6s %u samples", parts[p]->part, parts[p]->samples);
        if (parts[p]->has_mean && parts[p]->samples)
            cli_print(", mean %.4f, standard deviation %.4f", parts[p]->mean, parts[p]->std);
        cli_print("\n");
        for (int32_t c = 0; parts[p]->samples && c < data->classes && c < 100; c++) {
            char number[16];
            const double share = (double)parts[p]->per_class[c] / parts[p]->samples;
            cli_print("  class %-*s %8llu  %5.1f %%  ", width, cop_data_class(data, c, number),
                      (unsigned long long)parts[p]->per_class[c], 100 * share);
            for (int i = 0; i < (int)(share * data->classes * 20 + 0.5) && i < 60; i++)
                cli_print("#");
            cli_print("\n");
        }
    }
}

static cop_err inspect_data(const cli_options *options, const cop_data *data, cop_error *error) {
    Coppice__Api__InspectPart train, test, *parts[2] = {&train, &test};
    Coppice__Api__InspectData r = COPPICE__API__INSPECT_DATA__INIT;
    char digest[65];
    uint32_t shape[3] = {0};
    COP_ASSERT(data->train.rank >= 1 && data->train.rank <= 3);
    COP_TRY(inspect_part(data, &data->train, "train", &train, error));
    cop_err e = inspect_part(data, &data->test, "test", &test, error);
    cop_hex32(data->digest, digest);
    for (int i = 0; i < data->train.rank && i < 3; i++) shape[i] = (uint32_t)data->train.dims[i];
    r.name = (char *)(uintptr_t)data->name;
    r.digest = digest;
    r.shape = shape;
    r.n_shape = (size_t)data->train.rank;
    r.type = (char *)(uintptr_t)(data->train.type == COP_DATA_U8 ? "u8" : "f32");
    r.has_classes = 1;
    r.classes = (uint32_t)data->classes;
    r.class_names = data->class_names;
    r.n_class_names = data->class_names ? r.classes : 0;
    r.parts = parts;
    r.n_parts = 2;
    if (!e && options->json)
        cli_print_json(&r.base);
    else if (!e) {
        cli_print("%s  %d classes  samples of", data->name, data->classes);
        for (int i = 0; i < data->train.rank; i++) cli_print("%s%u", i ? " x " : " ", shape[i]);
        cli_print(" (%s)\ndigest %s\n", r.type, digest);
        print_parts(data, parts);
    }
    cop_free(train.per_class);
    if (!e) cop_free(test.per_class);
    return e;
}

/* True: the folder is a run folder or a checkpoint. Both a run folder and a folder of images by
 * class contain folders, but only a run has an entry with one of the names below. */
static bool looks_like_model(const char *path) {
    static const char *const names[] = {"model.safetensors", "checkpoints"};
    bool found = false;
    for (size_t i = 0; i < 2 && !found; i++) {
        char *inner = cop_path_join(path, names[i]);
        found = inner && (cop_file_exists(inner) || cop_folder_exists(inner));
        cop_free(inner);
    }
    return found;
}

/* How to read a data source, according to the options. */
typedef struct reading {
    cop_data_input input;
    char text[1024];
    const char *drop[64];
} reading;

static cop_err read_options(const cli_options *o, reading *out, cop_error *error) {
    char *save = NULL;
    unsigned height = 0, width = 0;
    int end = 0;
    *out = (reading){.input = {.label = o->label}};
    if (o->layout && strcmp(o->layout, "nchw") != 0 && strcmp(o->layout, "nhwc") != 0)
        return cop_fail(error, COP_ERR_USAGE, "--layout is \"%s\": expected nchw or nhwc",
                        o->layout);
    if (o->layout)
        out->input.order = o->layout[1] == 'h' ? COP_DATA_CHANNELS_LAST : COP_DATA_CHANNELS_FIRST;
    if (o->resize && (sscanf(o->resize, "%5ux%5u%n", &height, &width, &end) != 2 ||
                      o->resize[end] || !height || !width || height > 4096 || width > 4096))
        return cop_fail(error, COP_ERR_USAGE,
                        "--resize is \"%s\": expected height and width up to 4096, such as 32x32",
                        o->resize);
    out->input.resize[0] = height;
    out->input.resize[1] = width;
    if (o->drop && strlen(o->drop) >= sizeof out->text)
        return cop_fail(error, COP_ERR_USAGE, "--drop is too long: at most %zu characters",
                        sizeof out->text - 1);
    snprintf(out->text, sizeof out->text, "%s", o->drop ? o->drop : "");
    for (char *name = strtok_r(out->text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        if (out->input.drop_count == sizeof out->drop / sizeof *out->drop)
            return cop_fail(error, COP_ERR_USAGE, "--drop names too many columns: at most 64");
        out->drop[out->input.drop_count++] = name;
    }
    out->input.drop = out->drop;
    return COP_OK;
}

/* The names of the options for reading that apply to the data source `what`, separated by blanks.
 * They depend on its file name. `named` is true if `what` is the name of a known data set. */
static const char *options_of(const char *what, bool named) {
    static const char *const tables[] = {".csv", ".tsv", ".csv.gz", ".tsv.gz"};
    const size_t length = strlen(what);
    for (size_t i = 0; i < sizeof tables / sizeof *tables && !named; i++) {
        const size_t ending = strlen(tables[i]);
        if (length > ending && strcmp(what + length - ending, tables[i]) == 0) return "label drop";
    }
    if (named) return "data";
    if (length > 4 && strcmp(what + length - 4, ".npz") == 0) return "layout";
    return cop_folder_exists(what) ? "resize" : "";
}

/* Refuses options that do not apply to the argument of `inspect`. `applicable` lists the names
 * of the options that apply, separated by blanks. `source` says what the argument is, for the
 * error. */
static cop_err check_options(const cli_options *o, const char *applicable, const char *source,
                             cop_error *error) {
    static const struct {
        const char *name, *applies_to;
    } rows[] = {{"data", "the name of a data set"},
                {"label", "a CSV file"},
                {"drop", "a CSV file"},
                {"layout", "an NPZ file"},
                {"resize", "a folder of pictures"},
                {"output", "data"},
                {"rows", "data"},
                {"columns", "data"}};
    cop_err e = COP_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !e; i++) {
        cop_str given = {0};
        if (!strstr(applicable, rows[i].name)) cli_options_print(o, rows[i].name, &given);
        if (given.length)
            e = cop_fail(error, COP_ERR_USAGE, "--%s does not apply to %s, %s: it is for %s",
                         rows[i].name, o->positional[0], source, rows[i].applies_to);
        cop_str_fini(&given);
    }
    return e;
}

/* Refuses --resize if the images do not have the requested size: --resize works only for a folder
 * of images by class. Other data sets in folders have images of a fixed size. */
static cop_err check_resized(const cop_data *data, const reading *how, const char *what,
                             cop_error *error) {
    const uint32_t *requested = how->input.resize;
    const int rank = data->train.rank;
    if (!requested[0] || (rank >= 2 && (uint32_t)data->train.dims[rank - 2] == requested[0] &&
                          (uint32_t)data->train.dims[rank - 1] == requested[1]))
        return COP_OK;
    return cop_fail(error, COP_ERR_USAGE,
                    "--resize does not apply to %s, whose images have a fixed size: it is for a "
                    "folder of images",
                    what);
}

static cop_err check_data_options(const cli_options *o, bool named, cop_error *error) {
    char applicable[64];
    snprintf(applicable, sizeof applicable, "%s output rows columns",
             options_of(o->positional[0], named));
    if (!o->output && (o->rows || o->columns))
        return cop_fail(error, COP_ERR_USAGE,
                        "--%s is for the contact sheet: name its file with -o FILE.png",
                        o->rows ? "rows" : "columns");
    return check_options(o, applicable, "a data set", error);
}

static cop_err draw_sheet(const cli_options *o, const cop_data *data, cop_error *error) {
    return cli_sheet_contact(&data->train, o->rows ? (int)o->rows : 10,
                             o->columns ? (int)o->columns : 16, o->output, error);
}

/* Inspects the argument as a model. `why` says why it is not data. If it is not a model either, the
 * error gives both reasons. */
static cop_err inspect_other(const cli_options *options, const cop_error *why, cop_error *error) {
    const char *what = options->positional[0];
    const bool exists = cop_file_exists(what) || cop_folder_exists(what);
    cop_error model = {0};
    if (exists) COP_TRY(check_options(options, "", "which is not a data set", error));
    cop_err e = cli_inspect_model(options, &model);
    if (!e) return COP_OK;
    if (!*why->text || !exists || cop_ends_with(what, ".safetensors"))
        return cop_fail(error, e, "%s", model.text);
    return cop_fail(error, e, "%s is neither a model (%s) nor data (%s)", what, model.text,
                    why->text);
}

/* Inspects the argument as a data set, if it is the name of a known one, or as a file or folder of
 * data. If it is none of these, it must be a model or another safetensors file. */
cop_err cli_inspect(const cli_options *options, cop_error *error) {
    const char *what = options->positional[0];
    size_t count;
    const cop_data_source *sources = cop_data_sources(&count);
    bool named = false;
    for (size_t i = 0; i < count; i++) named = named || strcmp(sources[i].name, what) == 0;
    cop_data *data = NULL;
    cop_error ignored = {0};
    cop_err e;
    reading how;
    COP_TRY(read_options(options, &how, error));
    if (named)
        e = cop_data_open(what, options->data, &data, error);
    else {
        e = looks_like_model(what) ? COP_ERR_NOT_FOUND
                                   : cop_data_open_path(what, &how.input, &data, &ignored);
        if (e == COP_ERR_NOT_FOUND) return inspect_other(options, &ignored, error);
        if (e && error) *error = ignored;
    }
    COP_TRY(e);
    e = check_data_options(options, named, error);
    if (!e) e = check_resized(data, &how, what, error);
    if (!e && options->output) e = draw_sheet(options, data, error);
    if (!e) e = inspect_data(options, data, error);
    cop_data_destroy(data);
    return e;
}
