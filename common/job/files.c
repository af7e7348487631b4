/* Opens the data of a job: a data set by its name, or files in one of the formats of common/data.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/str.h"
#include "common/job/internal.h"

/* The folder that the paths in a job file are relative to. */
typedef struct location {
    const char *job_path; /* the path of the job file; its folder counts if `folder` is NULL */
    const char *folder;   /* --data, or NULL */
} location;

/* Returns the path of a file that the job file names; the caller frees it. NULL: out of memory. */
static char *resolve_file(const location *where, const char *file) {
    COP_ASSERT(where->folder || where->job_path);
    if (where->folder) return cop_path_join(where->folder, file);
    const char *slash = strrchr(where->job_path, '/');
    char *base =
        slash ? cop_strndup(where->job_path, (size_t)(slash - where->job_path)) : cop_strdup(".");
    char *path = base ? cop_path_join(base, file) : NULL;
    cop_free(base);
    return path;
}

/* True: the data are loaded without labels, because the job's target is the input. False if the job
 * is pinned to labelled data: it needs the labels, because the digest of the data covers them. */
static bool unlabelled(const Coppice__Job *m) {
    const bool pinned = m->pinned && m->pinned->classes > 1;
    return m->data->has_target && m->data->target == COPPICE__DATA__TARGET__INPUT && !pinned;
}

static cop_err check_pair(const Coppice__Job *m, const char *part, const Coppice__DataFiles *files,
                          const cop_data_format *format, cop_error *error) {
    char path[64], upper[16] = {0};
    if (files->images && (files->labels || (unlabelled(m) && strcmp(format->name, "npy") == 0)))
        return COP_OK;
    snprintf(path, sizeof path, "data.%s", part);
    for (size_t i = 0; format->name[i] && i + 1 < sizeof upper; i++)
        upper[i] = (char)(format->name[i] - 'a' + 'A');
    return cop_document_fail(m, path, error, "data.%s.%s is missing: expected text (%s file of %s)",
                             part, files->images ? "labels" : "images", upper,
                             files->images ? "labels" : "samples");
}

/* Checks that a part of the data (data.train or data.test) names the files that the format reads.
 */
static cop_err check_files(const Coppice__Job *m, const char *part, const Coppice__DataFiles *files,
                           const cop_data_format *format, cop_error *error) {
    char path[64];
    snprintf(path, sizeof path, "data.%s", part);
    if (!format->path && files->path)
        return cop_document_fail(m, path, error,
                                 "data.%s.path is given, but data.source is %s: expected images "
                                 "and labels",
                                 part, format->name);
    if (!format->pairs && (files->images || files->labels))
        return cop_document_fail(m, path, error,
                                 "data.%s.%s is given, but data.source is %s: expected a path",
                                 part, files->images ? "images" : "labels", format->name);
    if (files->path) return COP_OK;
    if (!format->pairs)
        return cop_document_fail(m, path, error, "data.%s.path is missing: expected text (%s)",
                                 part, format->help);
    return check_pair(m, part, files, format, error);
}

/* The resolved paths of one part of the data, owned. If text[2], the path, is set, text[0] and
 * text[1] are the names of arrays in that file; otherwise they are paths of files. */
typedef struct paths {
    char *text[3]; /* images, labels, path; NULL: not given */
} paths;

static cop_err resolve(const Coppice__DataFiles *files, const location *where, paths *own,
                       cop_data_files *out, cop_error *error) {
    const char *given[3] = {files->images, files->labels, files->path};
    for (int i = 0; i < 3; i++) {
        if (!given[i]) continue;
        own->text[i] = i < 2 && files->path ? cop_strdup(given[i]) : resolve_file(where, given[i]);
        if (!own->text[i]) return cop_no_memory(error);
    }
    *out = (cop_data_files){own->text[0], own->text[1], own->text[2]};
    return COP_OK;
}

cop_data_order cop_job_order(const Coppice__Data *d) {
    if (!d->has_layout) return COP_DATA_ORDER_AUTO;
    return d->layout == COPPICE__DATA__LAYOUT__NHWC ? COP_DATA_CHANNELS_LAST
                                                    : COP_DATA_CHANNELS_FIRST;
}

/* Adds an explanation to an error about labels. If the loss is mse and the labels are real numbers,
 * the user expects regression. */
static void explain_mse(cop_error *error) {
    const cop_error why = *error;
    cop_fail(error, why.code,
             "%s; loss: mse compares with labels (1 for the class, 0 for the others) or with the "
             "samples (data.target: input), not with real numbers",
             why.text);
}

static cop_err open_files(const Coppice__Job *m, const cop_data_format *format,
                          const location *where, cop_data **out, cop_error *error) {
    const Coppice__Data *d = m->data;
    if (d->train) COP_TRY(check_files(m, "train", d->train, format, error));
    if (d->test) COP_TRY(check_files(m, "test", d->test, format, error));
    if (!d->train || (!d->test && format->needs_test))
        return cop_document_fail(
            m, "data.source", error, "data.source is %s: expected data.train%s", format->name,
            format->needs_test ? " and data.test, each with images and labels" : "");
    paths own[2] = {0};
    cop_data_input input = {.name = m->name,
                            .label = d->label,
                            .drop = (const char *const *)d->drop,
                            .drop_count = d->n_drop,
                            .unlabelled = unlabelled(m),
                            .order = cop_job_order(d)};
    for (size_t i = 0; i < d->n_resize && i < 2; i++) input.resize[i] = d->resize[i];
    cop_err e = resolve(d->train, where, &own[0], &input.train, error);
    if (!e && d->test) e = resolve(d->test, where, &own[1], &input.test, error);
    if (!e) e = format->load(&input, out, error);
    if (e == COP_ERR_INPUT && error && m->loss && m->loss->mse && !input.unlabelled &&
        strstr(error->text, "label"))
        explain_mse(error);
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < 3; i++) cop_free(own[part].text[i]);
    return e;
}

/* A job that is pinned to f32 gets f32 even if the values just loaded would fit into bytes: it was
 * pinned because its training data did not fit, or by an earlier version. */
static cop_err keep_type(const Coppice__Job *m, cop_data **data, cop_error *error) {
    const bool floats =
        m->pinned && m->pinned->sample_type && strcmp(m->pinned->sample_type, "f32") == 0;
    if (!floats || !cop_data_widen(data, error)) return COP_OK;
    cop_data_destroy(*data);
    *data = NULL;
    return error ? error->code : COP_ERR_NO_MEMORY;
}

cop_err cop_job_open_data(const Coppice__Job *message, const char *job_path, const char *folder,
                          cop_data **out, cop_error *error) {
    COP_TRY(cop_document_check_read(message, error));
    COP_TRY(job_check_format_fields(message, error));
    const cop_data_format *format = cop_data_format_find(message->data->source);
    if (format) {
        const location where = {.job_path = job_path, .folder = folder};
        COP_TRY(open_files(message, format, &where, out, error));
        return keep_type(message, out, error);
    }
    return cop_data_open(message->data->source, folder, out, error);
}
