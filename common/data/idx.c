/* Reads IDX files, the format of MNIST, plain or gzipped. Every number in a header is checked
 * against the other numbers and against the size of the file. */
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
    cop_data_content content;
    bool gzipped;
    cop_data_shape shape; /* as in the file; after order_dims the channels are first */
    cop_data_order order; /* where the channels are in the file */
    uint64_t data_size;   /* number of elements, which are one byte each */
    size_t header_size;   /* bytes of the header */
} idx_file;

static cop_err read_header(idx_file *f, const unsigned char *h, size_t got, cop_error *error) {
    const char *path = f->content.name;
    if (got < 8 || h[0] || h[1])
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is not an IDX file: it is %s, expected two zero bytes at the beginning",
                        path, cop_file_kind(h, got));
    if (h[2] != IDX_U8)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: unsupported element type 0x%02x: expected unsigned bytes (0x08)", path,
                        h[2]);
    const uint32_t rank = f->shape.rank = h[3];
    if (rank < 1 || rank > 4)
        return cop_fail(error, COP_ERR_CORRUPT, "%s: %u dimensions: expected 1 to 4", path, rank);
    f->header_size = 4 + 4 * (size_t)rank;
    if (got < f->header_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is truncated: it ends inside its header", path);
    f->data_size = 1;
    for (uint32_t d = 0; d < rank; d++) {
        const uint32_t size = cop_load_u32_big(h + 4 + 4 * d);
        if (size > COP_SAMPLES_MAX || (size && f->data_size > FILE_MAX / size))
            return cop_fail(error, COP_ERR_CORRUPT, "%s: dimension %u is too large: %u", path, d,
                            size);
        f->shape.dims[d] = size;
        f->data_size *= size;
    }
    return COP_OK;
}

/* Fails with CORRUPT if the file cannot contain the number of elements that its header gives. For
 * gzip data, deflate's largest ratio is the limit. Runs before memory for the elements is
 * allocated. */
static cop_err check_size(const idx_file *f, cop_error *error) {
    const size_t size = f->content.size;
    if (f->gzipped && f->data_size / GZIP_RATIO_MAX > size)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is truncated: its %zu bytes of gzip data cannot hold %llu elements",
                        f->content.name, size, (unsigned long long)f->data_size);
    if (!f->gzipped && size - f->header_size != f->data_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s holds %zu elements: its header says %llu",
                        f->content.name, size - f->header_size, (unsigned long long)f->data_size);
    return COP_OK;
}

/* Reads and checks the header of f->content. */
static cop_err open_content(idx_file *f, cop_error *error) {
    const cop_data_content *c = &f->content;
    unsigned char head[24];
    size_t got = 0;
    f->gzipped = gzip_is(c->bytes, c->size);
    cop_err e = COP_OK;
    if (f->gzipped) {
        gzip_reader g;
        e = gzip_begin(&g, c, error);
        if (!e) e = gzip_read(&g, head, sizeof head, &got, error);
        gzip_end(&g);
    } else {
        got = c->size < sizeof head ? c->size : sizeof head;
        memcpy(head, c->bytes, got);
    }
    if (!e && got == 0) e = cop_fail(error, COP_ERR_CORRUPT, "%s is empty", c->name);
    if (!e) e = read_header(f, head, got, error);
    if (!e) e = check_size(f, error);
    return e;
}

static cop_err open_idx(const char *path, idx_file *f, cop_error *error) {
    *f = (idx_file){.content.name = path};
    COP_TRY(cop_file_read(path, FILE_MAX, &f->content.bytes, &f->content.size, error));
    cop_err e = open_content(f, error);
    if (e) cop_free(f->content.bytes);
    return e;
}

/* Skips the header and decompresses f->data_size elements into `out`. Then tries to read one more
 * byte, to detect a file that has more elements than its header gives. */
static cop_err gzip_elements(gzip_reader *g, const idx_file *f, void *out, cop_error *error) {
    unsigned char header[24], extra;
    size_t got, more = 0;
    unsigned long long expected = f->data_size;
    COP_TRY(gzip_read(g, header, f->header_size, &got, error));
    COP_TRY(gzip_read(g, out, f->data_size, &got, error));
    if (got == f->data_size) COP_TRY(gzip_read(g, &extra, 1, &more, error));
    if (more)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s holds more elements than the %llu of its header", g->name, expected);
    if (!g->ended)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is truncated: the gzip data end early",
                        g->name);
    if (got < f->data_size)
        return cop_fail(error, COP_ERR_CORRUPT, "%s holds %zu elements: its header says %llu",
                        g->name, got, expected);
    return COP_OK;
}

/* Copies the elements, f->data_size bytes, into `out`. CORRUPT: gzip data contain more or fewer
 * bytes. */
static cop_err copy_elements(const idx_file *f, void *out, cop_error *error) {
    COP_ASSERT(f->header_size >= 8 && f->header_size <= 20); /* the header was read */
    if (!f->gzipped) {
        memcpy(out, f->content.bytes + f->header_size, f->data_size);
        return COP_OK;
    }
    gzip_reader g;
    cop_err e = gzip_begin(&g, &f->content, error);
    if (!e) e = gzip_elements(&g, f, out, error);
    gzip_end(&g);
    return e;
}

static cop_err read_elements(const idx_file *f, void *out, cop_error *error) {
    const uint64_t *d = f->shape.dims;
    COP_TRY(copy_elements(f, out, error));
    if (f->shape.rank != 4 || f->order != COP_DATA_CHANNELS_LAST) return COP_OK;
    const int32_t dims[3] = {(int32_t)d[1], (int32_t)d[2], (int32_t)d[3]};
    return channels_to_front(dims, d[0], 1, out, error);
}

/* If the file has four dimensions, finds where its channels are (`order` may be AUTO), and moves
 * them to the front of f->shape. */
static cop_err order_dims(cop_data_order order, idx_file *f, cop_error *error) {
    f->order = order;
    COP_TRY(channels_find(f->content.name, &f->shape, &f->order, error));
    channels_reorder(&f->shape, f->order);
    return COP_OK;
}

/* ---- a data set of four files ---- */

enum { TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS, IDX_FILES };

static cop_err check_pair(const idx_file *images, const idx_file *labels, cop_error *error) {
    const char *path = images->content.name, *labels_path = labels->content.name;
    const uint64_t count = images->shape.dims[0];
    if (images->shape.rank < 2)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has %u dimension: expected samples with at least 2", path,
                        images->shape.rank);
    if (labels->shape.rank != 1)
        return cop_fail(error, COP_ERR_INPUT, "%s has %u dimensions: expected 1 (labels)",
                        labels_path, labels->shape.rank);
    if (!count) return cop_fail(error, COP_ERR_INPUT, "%s is an empty data set", path);
    if (count != labels->shape.dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s has %llu samples, but %s has %llu labels", path,
                        (unsigned long long)count, labels_path,
                        (unsigned long long)labels->shape.dims[0]);
    return COP_OK;
}

/* Reads labels, which are bytes, into `out` as i32. *largest: the largest label. INPUT: a label is
 * not below `limit`; with `limit` 0 there is no limit. */
static cop_err read_labels(const idx_file *f, int32_t limit, int32_t *out, int32_t *largest,
                           cop_error *error) {
    unsigned char *bytes = cop_alloc_raw(f->data_size + 1);
    if (!bytes) return cop_no_memory(error);
    cop_err e = read_elements(f, bytes, error);
    *largest = 0;
    for (uint64_t i = 0; i < f->data_size && !e; i++) {
        out[i] = bytes[i];
        if (out[i] > *largest) *largest = out[i];
        if (limit && out[i] >= limit)
            e = cop_fail(error, COP_ERR_INPUT,
                         "%s: label %llu is %d, but the training labels go from 0 to %d",
                         f->content.name, (unsigned long long)i, out[i], limit - 1);
    }
    cop_free(bytes);
    return e;
}

static cop_err fill(const idx_file f[IDX_FILES], cop_data *data, cop_error *error) {
    const char *labels = f[TRAIN_LABELS].content.name;
    int32_t largest, ignored;
    COP_TRY(read_elements(&f[TRAIN_IMAGES], pack_samples(&data->train), error));
    COP_TRY(read_elements(&f[TEST_IMAGES], pack_samples(&data->test), error));
    COP_TRY(read_labels(&f[TRAIN_LABELS], 0, pack_labels(&data->train), &largest, error));
    if (largest < 1)
        return cop_fail(error, COP_ERR_INPUT, "%s: all labels are 0: expected at least two classes",
                        labels);
    pack_warn_of_gaps(&data->train, labels, largest);
    COP_TRY(read_labels(&f[TEST_LABELS], largest + 1, pack_labels(&data->test), &ignored, error));
    pack_finish(data, largest + 1);
    return COP_OK;
}

static cop_err make(const idx_file f[IDX_FILES], const char *name, cop_data **out,
                    cop_error *error) {
    pack_part parts[2];
    const char *const paths[2] = {f[TRAIN_IMAGES].content.name, f[TEST_IMAGES].content.name};
    COP_TRY(check_pair(&f[TRAIN_IMAGES], &f[TRAIN_LABELS], error));
    COP_TRY(check_pair(&f[TEST_IMAGES], &f[TEST_LABELS], error));
    COP_TRY(pack_part_of(paths[0], COP_DATA_U8, &f[TRAIN_IMAGES].shape, &parts[0], error));
    COP_TRY(pack_part_of(paths[1], COP_DATA_U8, &f[TEST_IMAGES].shape, &parts[1], error));
    COP_TRY(pack_check_parts(parts, paths, error));
    COP_TRY(pack_create(name, 1, parts, out, error));
    return fill(f, *out, error);
}

static cop_err load_idx(const cop_idx_files *files, const char *name, cop_data_order order,
                        cop_data **out, cop_error *error) {
    const char *const paths[IDX_FILES] = {files->train_images, files->train_labels,
                                          files->test_images, files->test_labels};
    idx_file f[IDX_FILES];
    cop_data *data = NULL;
    int opened = 0;
    cop_err e = COP_OK;
    while (opened < IDX_FILES && !(e = open_idx(paths[opened], &f[opened], error))) opened++;
    if (!e) e = order_dims(order, &f[TRAIN_IMAGES], error);
    if (!e) e = order_dims(order, &f[TEST_IMAGES], error);
    if (!e) e = make(f, name, &data, error);
    for (int i = 0; i < opened; i++) cop_free(f[i].content.bytes);
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

cop_err samples_decode_idx(const cop_data_content *idx, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    idx_file f = {.content = *idx};
    COP_TRY(open_content(&f, error));
    if (samples_channels_are_last(form, &f.shape))
        COP_TRY(order_dims(COP_DATA_CHANNELS_LAST, &f, error));
    COP_TRY(samples_check_shape(idx->name, form, &f.shape, error));
    COP_TRY(samples_check_type(idx->name, form, COP_DATA_U8, "bytes", error));
    COP_TRY(samples_reserve(idx->name, form, f.shape.dims[0], out, error));
    return read_elements(&f, out->rows, error);
}

/* ---- MNIST ---- */

/* Finds a file of MNIST, plain or .gz, with - or . before "idx". Returns its path, which the caller
 * frees with cop_free. NULL: there is no such file, or no memory. */
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
