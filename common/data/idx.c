/* IDX files, plain or gzipped (the format of MNIST): every number of the header is checked against
 * the others and against the file. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/data/gzip.h"
#include "common/data/pack.h"
#include "common/data/samples_formats.h"

#define FILE_MAX ((size_t)8 << 30)
#define IDX_U8   8

/* ---- the header ---- */

typedef struct idx_file {
    char *bytes; /* of the file */
    size_t size;
    bool gz;
    uint32_t rank, dims[4]; /* as the samples are kept: channels first */
    cop_data_order order;
    uint64_t data_size;
    size_t header_size;
} idx_file;

static cop_err read_header(const char *path, idx_file *f, const unsigned char *h, size_t got,
                           cop_error *error) {
    if (got < 8 || h[0] || h[1])
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is not an IDX file: it is %s, expected two zero bytes at the beginning",
                        path, cop_file_kind(h, got));
    if (h[2] != IDX_U8)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: unsupported element type 0x%02x: expected unsigned bytes (0x08)", path,
                        h[2]);
    f->rank = h[3];
    if (f->rank < 1 || f->rank > 4)
        return cop_fail(error, COP_ERR_CORRUPT, "%s: %u dimensions: expected 1 to 4", path,
                        f->rank);
    f->header_size = 4 + 4 * (size_t)f->rank;
    if (got < f->header_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is truncated: it ends inside its header", path);
    f->data_size = 1;
    for (uint32_t d = 0; d < f->rank; d++) {
        f->dims[d] = cop_load_u32_big(h + 4 + 4 * d);
        if (f->dims[d] > COP_SAMPLES_MAX || (f->dims[d] && f->data_size > FILE_MAX / f->dims[d]))
            return cop_fail(error, COP_ERR_CORRUPT, "%s: dimension %u is too large: %u", path, d,
                            f->dims[d]);
        f->data_size *= f->dims[d];
    }
    return COP_OK;
}

/* Can the file hold as many elements as its header says? Asked before memory is taken for them. */
static cop_err check_size(const char *path, const idx_file *f, cop_error *error) {
    if (f->gz && f->data_size / GZIP_DEFLATE_MOST > f->size)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is truncated: its %zu bytes of gzip data cannot hold %llu elements",
                        path, f->size, (unsigned long long)f->data_size);
    if (!f->gz && f->size - f->header_size != f->data_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s holds %zu elements: its header says %llu", path,
                        f->size - f->header_size, (unsigned long long)f->data_size);
    return COP_OK;
}

/* Of f->bytes, which stay the caller's. */
static cop_err open_bytes(const char *path, idx_file *f, cop_error *error) {
    unsigned char head[24];
    size_t got = 0;
    f->gz = gzip_is(f->bytes, f->size);
    cop_err e = COP_OK;
    if (f->gz) {
        gzip_reader g;
        e = gzip_begin(&g, path, f->bytes, f->size, error);
        if (!e) e = gzip_read(&g, head, sizeof head, &got, error);
        gzip_end(&g);
    } else {
        got = f->size < sizeof head ? f->size : sizeof head;
        memcpy(head, f->bytes, got);
    }
    if (!e && got == 0) e = cop_fail(error, COP_ERR_CORRUPT, "%s is empty", path);
    if (!e) e = read_header(path, f, head, got, error);
    if (!e) e = check_size(path, f, error);
    return e;
}

static cop_err open_idx(const char *path, idx_file *f, cop_error *error) {
    *f = (idx_file){0};
    COP_TRY(cop_file_read(path, FILE_MAX, &f->bytes, &f->size, error));
    cop_err e = open_bytes(path, f, error);
    if (e) cop_free(f->bytes);
    return e;
}

/* Header skipped, elements into `out`; one byte more than the header says shows a file that is
 * longer. */
static cop_err gzip_elements(gzip_reader *g, const idx_file *f, void *out, cop_error *error) {
    unsigned char header[24], extra;
    size_t got, more = 0;
    unsigned long long expected = f->data_size;
    COP_TRY(gzip_read(g, header, f->header_size, &got, error));
    COP_TRY(gzip_read(g, out, f->data_size, &got, error));
    if (got == f->data_size) COP_TRY(gzip_read(g, &extra, 1, &more, error));
    if (more)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s holds more elements than the %llu of its header", g->path, expected);
    if (!g->ended)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is truncated: the gzip data end early",
                        g->path);
    if (got < f->data_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s holds %zu elements: its header says %llu",
                        g->path, got, expected);
    return COP_OK;
}

/* The elements into `out` (data_size bytes); of gzip data, exactly as many as the header says. */
static cop_err copy_elements(const char *path, const idx_file *f, void *out, cop_error *error) {
    if (!f->gz) {
        memcpy(out, f->bytes + f->header_size, f->data_size);
        return COP_OK;
    }
    gzip_reader g;
    cop_err e = gzip_begin(&g, path, f->bytes, f->size, error);
    if (!e) e = gzip_elements(&g, f, out, error);
    gzip_end(&g);
    return e;
}

static cop_err read_elements(const char *path, const idx_file *f, void *out, cop_error *error) {
    COP_TRY(copy_elements(path, f, out, error));
    if (f->rank != 4 || f->order != COP_DATA_CHANNELS_LAST) return COP_OK;
    const int32_t dims[3] = {(int32_t)f->dims[1], (int32_t)f->dims[2], (int32_t)f->dims[3]};
    return channels_to_front(dims, f->dims[0], 1, out, error);
}

/* Where the channels are, if the file has four dimensions: then they come first. */
static cop_err order_dims(const char *path, cop_data_order order, idx_file *f, cop_error *error) {
    uint64_t dims[4] = {0};
    for (uint32_t d = 0; d < f->rank; d++) dims[d] = f->dims[d];
    f->order = order;
    COP_TRY(channels_find(path, f->rank, dims, &f->order, error));
    channels_reorder(f->rank, f->order, dims);
    for (uint32_t d = 0; d < f->rank; d++) f->dims[d] = (uint32_t)dims[d];
    return COP_OK;
}

/* ---- a data set of four files ---- */

typedef struct idx_set {
    const char *path[4]; /* train images, train labels, test images, test labels */
    idx_file file[4];
} idx_set;

static cop_err check_pair(const idx_set *s, int images, cop_error *error) {
    const idx_file *i = &s->file[images], *l = &s->file[images + 1];
    if (i->rank < 2)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has %u dimension: expected samples with at least 2", s->path[images],
                        i->rank);
    if (l->rank != 1)
        return cop_fail(error, COP_ERR_INPUT, "%s has %u dimensions: expected 1 (labels)",
                        s->path[images + 1], l->rank);
    if (!i->dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", s->path[images]);
    if (i->dims[0] != l->dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s has %u samples, but %s has %u labels",
                        s->path[images], i->dims[0], s->path[images + 1], l->dims[0]);
    uint64_t values = i->data_size / i->dims[0];
    if (values < 1 || values > COP_UNITS_MAX)
        return cop_fail(error, COP_ERR_INPUT, "%s: a sample has %llu values: expected 1 to %u",
                        s->path[images], (unsigned long long)values, COP_UNITS_MAX);
    return COP_OK;
}

/* (n, h, w) is one channel; (n, c, h, w) as it is; (n, f) flat. */
static void part_shape(const idx_file *f, pack_part *out) {
    *out = (pack_part){.type = COP_DATA_U8, .count = f->dims[0]};
    if (f->rank == 2) {
        out->rank = 1;
        out->dims[0] = (int32_t)f->dims[1];
        return;
    }
    out->rank = 3;
    out->dims[0] = f->rank == 4 ? (int32_t)f->dims[1] : 1;
    out->dims[1] = (int32_t)f->dims[f->rank - 2];
    out->dims[2] = (int32_t)f->dims[f->rank - 1];
}

/* Label bytes to i32; *largest over this file. */
static cop_err read_labels(const char *path, const idx_file *f, int32_t *out, int32_t limit,
                           int32_t *largest, cop_error *error) {
    unsigned char *bytes = cop_alloc_raw(f->data_size + 1);
    if (!bytes) return cop_no_memory(error);
    cop_err e = read_elements(path, f, bytes, error);
    *largest = 0;
    for (uint64_t i = 0; i < f->data_size && !e; i++) {
        out[i] = bytes[i];
        if (out[i] > *largest) *largest = out[i];
        if (limit && out[i] >= limit)
            e = cop_fail(error, COP_ERR_INPUT,
                         "%s: label %llu is %d, but the training labels go from 0 to %d", path,
                         (unsigned long long)i, out[i], limit - 1);
    }
    cop_free(bytes);
    return e;
}

static cop_err fill(idx_set *s, cop_data *data, cop_error *error) {
    int32_t largest, ignored;
    COP_TRY(read_elements(s->path[0], &s->file[0], (void *)(uintptr_t)data->train.samples, error));
    COP_TRY(read_elements(s->path[2], &s->file[2], (void *)(uintptr_t)data->test.samples, error));
    COP_TRY(read_labels(s->path[1], &s->file[1], (int32_t *)(uintptr_t)data->train.labels, 0,
                        &largest, error));
    if (largest < 1)
        return cop_fail(error, COP_ERR_INPUT, "%s: all labels are 0: expected at least two classes",
                        s->path[1]);
    pack_warn_of_gaps(&data->train, s->path[1], largest);
    COP_TRY(read_labels(s->path[3], &s->file[3], (int32_t *)(uintptr_t)data->test.labels,
                        largest + 1, &ignored, error));
    pack_finish(data, largest + 1);
    return COP_OK;
}

static cop_err load_idx(const cop_idx_files *files, const char *name, cop_data_order order,
                        cop_data **out, cop_error *error) {
    idx_set s = {
        .path = {files->train_images, files->train_labels, files->test_images, files->test_labels}};
    cop_data *data = NULL;
    int opened = 0;
    cop_err e = COP_OK;
    while (opened < 4 && !(e = open_idx(s.path[opened], &s.file[opened], error))) opened++;
    for (int i = 0; i < 4 && !e; i += 2) e = order_dims(s.path[i], order, &s.file[i], error);
    if (!e) e = check_pair(&s, 0, error);
    if (!e) e = check_pair(&s, 2, error);
    if (!e) {
        pack_part train, test;
        part_shape(&s.file[0], &train);
        part_shape(&s.file[2], &test);
        e = pack_check_parts(&train, s.path[0], &test, s.path[2], error);
        if (!e) e = pack_create(name, 1, &train, &test, &data, error);
    }
    if (!e) e = fill(&s, data, error);
    for (int i = 0; i < opened; i++) cop_free(s.file[i].bytes);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}

cop_err cop_data_load_idx(const cop_idx_files *files, const char *name, cop_data **out,
                          cop_error *error) {
    return load_idx(files, name, COP_DATA_ORDER_AUTO, out, error);
}

cop_err pack_load_idx(const cop_data_input *input, cop_data **out, cop_error *error) {
    const cop_idx_files files = {input->train.images, input->train.labels, input->test.images,
                                 input->test.labels};
    return load_idx(&files, input->name, input->order, out, error);
}

/* ---- samples for a trained model ---- */

cop_err samples_decode_idx(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    idx_file f = {.bytes = bytes, .size = size};
    uint64_t dims[4] = {0};
    COP_TRY(open_bytes(what, &f, error));
    for (uint32_t d = 0; d < f.rank; d++) dims[d] = f.dims[d];
    if (samples_channels_are_last(form, f.rank, dims))
        COP_TRY(order_dims(what, COP_DATA_CHANNELS_LAST, &f, error));
    for (uint32_t d = 0; d < f.rank; d++) dims[d] = f.dims[d];
    COP_TRY(samples_check_shape(what, form, f.rank, dims, error));
    COP_TRY(samples_check_type(what, form, COP_DATA_U8, "bytes", error));
    COP_TRY(samples_take(what, form, dims[0], false, out, error));
    return read_elements(what, &f, out->rows, error);
}

/* ---- MNIST ---- */

/* The file in the folder: plain or .gz, with - or . before idx. */
static char *find_file(const char *folder, const char *stem, const char *kind) {
    for (size_t i = 0; i < 4; i++) {
        char name[96];
        int length =
            i < 2 ? snprintf(name, sizeof name, "%s-%s-ubyte%s", stem, kind, i == 0 ? ".gz" : "")
                  : snprintf(name, sizeof name, "%s.%s-ubyte%s", stem, kind, i == 2 ? ".gz" : "");
        COP_ASSERT(length > 0 && (size_t)length < sizeof name);
        char *path = cop_path_join(folder, name);
        if (path && cop_file_exists(path)) return path;
        cop_free(path);
    }
    return NULL;
}

cop_err cop_data_load_mnist(const char *folder, cop_data **out, cop_error *error) {
    static const char *const stems[4] = {"train-images", "train-labels", "t10k-images",
                                         "t10k-labels"};
    static const char *const kinds[4] = {"idx3", "idx1", "idx3", "idx1"};
    char *paths[4] = {0};
    cop_err e = COP_OK;
    for (int i = 0; i < 4 && !e; i++)
        if (!(paths[i] = find_file(folder, stems[i], kinds[i])))
            e = cop_fail(error, COP_ERR_NOT_FOUND, "%s has no %s-%s-ubyte or %s-%s-ubyte.gz",
                         folder, stems[i], kinds[i], stems[i], kinds[i]);
    cop_idx_files files = {paths[0], paths[1], paths[2], paths[3]};
    if (!e) e = cop_data_load_idx(&files, "mnist", out, error);
    for (int i = 0; i < 4; i++) cop_free(paths[i]);
    return e;
}
