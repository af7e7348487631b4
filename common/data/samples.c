/* Samples for a trained model: which format it is, and whether it fits. See samples.h. */
#include "common/data/samples.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/data/gzip.h"
#include "common/data/image.h"
#include "common/data/pack.h"
#include "common/data/samples_formats.h"

/* ---- what fits ---- */

size_t samples_values(const cop_data_form *form) {
    size_t values = 1;
    for (int d = 0; d < form->rank; d++) values *= (size_t)form->dims[d];
    return values;
}

/* "(n, 28, 28) or (n, 1, 28, 28)" */
static void describe_shapes(const cop_data_form *form, char *out, size_t size) {
    const int32_t *d = form->dims;
    if (form->rank == 1)
        snprintf(out, size, "(n, %d)", d[0]);
    else if (d[0] == 1)
        snprintf(out, size, "(n, %d, %d) or (n, 1, %d, %d)", d[1], d[2], d[1], d[2]);
    else
        snprintf(out, size, "(n, %d, %d, %d)", d[0], d[1], d[2]);
}

cop_err samples_check_shape(const char *what, const cop_data_form *form, uint32_t rank,
                            const uint64_t *dims, cop_error *error) {
    char expected[96];
    const uint32_t least = (uint32_t)form->rank + 1;
    const uint32_t skipped = form->rank == 3 && form->dims[0] == 1 && rank == 3; /* the channel */
    bool fits = rank + skipped == least;
    for (uint32_t d = 1; fits && d < rank; d++)
        fits = dims[d] == (uint64_t)form->dims[d - 1 + skipped];
    describe_shapes(form, expected, sizeof expected);
    if (!fits) {
        cop_str found = {0};
        for (uint32_t d = 0; d < rank; d++)
            cop_str_printf(&found, "%s%llu", d ? ", " : "", (unsigned long long)dims[d]);
        cop_fail(error, COP_ERR_INPUT, "%s has the shape (%s%s): the model takes %s", what,
                 cop_str_text(&found), rank == 1 ? "," : "", expected);
        cop_str_fini(&found);
        return COP_ERR_INPUT;
    }
    if (!dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s is empty: expected at least one sample", what);
    return COP_OK;
}

bool samples_channels_are_last(const cop_data_form *form, uint32_t rank, const uint64_t *dims) {
    uint64_t moved[4];
    if (rank != 4 || form->order == COP_DATA_CHANNELS_FIRST) return false;
    const bool first = !samples_check_shape("", form, 4, dims, NULL);
    memcpy(moved, dims, sizeof moved);
    channels_reorder(4, COP_DATA_CHANNELS_LAST, moved);
    return (!first || form->order == COP_DATA_CHANNELS_LAST) &&
           !samples_check_shape("", form, 4, moved, NULL);
}

cop_err samples_check_type(const char *what, const cop_data_form *form, cop_data_type type,
                           const char *holds, cop_error *error) {
    if (form->type == type) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT, "%s contains %s: the model takes %s", what, holds,
                    form->type == COP_DATA_U8 ? "bytes, 0 to 255" : "floats (NPY, NPZ or CSV)");
}

cop_err samples_take(const char *what, const cop_data_form *form, uint64_t count, bool labels,
                     cop_data_samples *out, cop_error *error) {
    const size_t stride = samples_values(form) * (form->type == COP_DATA_F32 ? sizeof(float) : 1);
    COP_ASSERT(count >= 1);
    if (count > COP_SAMPLES_MAX || count > SIZE_MAX / 2 / stride)
        return cop_fail(error, COP_ERR_LIMIT, "%s has too many samples: %llu", what,
                        (unsigned long long)count);
    out->rows = cop_alloc_raw((size_t)count * stride);
    if (labels) out->labels = cop_alloc_array((size_t)count, sizeof *out->labels);
    if (!out->rows || (labels && !out->labels))
        return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the %llu samples of %s",
                        (unsigned long long)count, what);
    out->part = (cop_data_part){.type = form->type,
                                .rank = form->rank,
                                .count = (uint32_t)count,
                                .stride = stride,
                                .samples = out->rows,
                                .labels = out->labels};
    memcpy(out->part.dims, form->dims, sizeof form->dims);
    return COP_OK;
}

void cop_data_samples_fini(cop_data_samples *s) {
    cop_free(s->names);
    cop_free(s->rows);
    cop_free(s->labels);
    *s = (cop_data_samples){0};
}

/* ---- pictures ---- */

static void describe_picture(char *out, size_t size, int width, int height, int channels) {
    snprintf(out, size, "%d x %d pixels%s of %d channel%s", width, height,
             channels == 1   ? " in grey,"
             : channels == 3 ? " in colour,"
                             : "",
             channels, channels == 1 ? "" : "s");
}

static cop_err check_picture(const char *what, const cop_data_form *form, const cop_image *image,
                             cop_error *error) {
    char found[96], expected[96];
    describe_picture(found, sizeof found, image->width, image->height, image->channels);
    describe_picture(expected, sizeof expected, form->dims[2], form->dims[1], form->dims[0]);
    if (form->rank != 3)
        return cop_fail(
            error, COP_ERR_INPUT,
            "%s is an image of %s: the model takes flat samples of %d values, not images", what,
            found, form->dims[0]);
    if (image->width != form->dims[2] || image->height != form->dims[1] ||
        image->channels != form->dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s has %s: the model takes %s", what, found,
                        expected);
    return samples_check_type(what, form, COP_DATA_U8, "bytes", error);
}

/* One picture, checked, as sample `row`; the first makes room for `count`. */
static cop_err put_picture(const char *what, const char *bytes, size_t size,
                           const cop_data_form *form, uint32_t row, size_t count,
                           cop_data_samples *out, cop_error *error) {
    cop_image image;
    const bool fit = form->rank == 3;
    COP_TRY(cop_image_decode_large(what, bytes, size,
                                   form->resize ? IMAGE_VALUES_MAX : COP_UNITS_MAX, &image, error));
    cop_err e = COP_OK;
    if (fit)
        e = cop_image_fit(what, &image, form->dims[0], form->resize ? (uint32_t)form->dims[1] : 0,
                          form->resize ? (uint32_t)form->dims[2] : 0, error);
    if (!e) e = check_picture(what, form, &image, error);
    if (!e && row == 0) e = samples_take(what, form, count, false, out, error);
    if (!e)
        memcpy((char *)out->rows + (size_t)row * out->part.stride, image.pixels, out->part.stride);
    cop_free(image.pixels);
    return e;
}

static cop_err decode_picture(const char *what, char *bytes, size_t size, const cop_data_form *form,
                              cop_data_samples *out, cop_error *error) {
    return put_picture(what, bytes, size, form, 0, 1, out, error);
}

static cop_err put_file(const char *folder, const cop_data_form *form, uint32_t row, size_t count,
                        cop_data_samples *out, cop_error *error) {
    char *path = cop_path_join(folder, out->names[row]), *bytes = NULL;
    size_t size;
    cop_err e = path ? COP_OK : cop_no_memory(error);
    if (!e && cop_folder_exists(path))
        e = cop_fail(error, COP_ERR_INPUT, "%s is a folder: expected an image", path);
    if (!e) e = cop_file_read(path, IMAGE_FILE_MAX, &bytes, &size, error);
    if (!e) e = put_picture(path, bytes, size, form, row, count, out, error);
    cop_free(bytes);
    cop_free(path);
    return e;
}

static cop_err read_folder(const char *folder, const cop_data_form *form,
                           cop_data_progress progress, void *context, cop_data_samples *out,
                           cop_error *error) {
    size_t found, count = 0;
    COP_TRY(cop_folder_list(folder, &out->names, &found, error));
    for (size_t i = 0; i < found; i++)
        if (!image_folder_skips(out->names[i])) out->names[count++] = out->names[i];
    if (!count) return cop_fail(error, COP_ERR_INPUT, "%s contains no images", folder);
    if (count > COP_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s contains too many images", folder);
    for (size_t row = 0; row < count; row++) {
        COP_TRY(put_file(folder, form, (uint32_t)row, count, out, error));
        if (progress) progress(context, "pictures", row + 1, count);
    }
    return COP_OK;
}

/* ---- which format ---- */

static bool begins(const unsigned char *bytes, size_t size, const char *with, size_t length) {
    return size >= length && memcmp(bytes, with, length) == 0;
}

static bool is_picture(const unsigned char *bytes, size_t size) {
    return begins(bytes, size, "\x89PNG", 4) || begins(bytes, size, "\xff\xd8\xff", 3);
}

static bool is_npy(const unsigned char *bytes, size_t size) {
    return begins(bytes, size, "\x93NUMPY", 6);
}

static bool is_npz(const unsigned char *bytes, size_t size) {
    return begins(bytes, size, "PK\3\4", 4) || begins(bytes, size, "PK\5\6", 4);
}

/* Of gzip data only these are read without being unpacked first. */
static bool is_idx(const unsigned char *bytes, size_t size) {
    unsigned char head[4] = {1};
    size_t got = 0;
    gzip_reader g;
    if (!gzip_is(bytes, size)) return begins(bytes, size, "\0\0", 2);
    if (gzip_begin(&g, "", bytes, size, NULL)) return false;
    cop_err e = gzip_read(&g, head, sizeof head, &got, NULL);
    gzip_end(&g);
    return e || got < 4 || (!head[0] && !head[1]);
}

static bool is_text(const unsigned char *bytes, size_t size) {
    return !memchr(bytes, 0, size < 4096 ? size : 4096);
}

static const samples_format formats[] = {
    {"PNG, JPEG", is_picture, decode_picture}, {"NPY", is_npy, samples_decode_npy},
    {"NPZ", is_npz, samples_decode_npz},       {"IDX", is_idx, samples_decode_idx},
    {"CSV", is_text, samples_decode_csv},
};

static cop_err decode(const char *what, char *bytes, size_t size, const cop_data_form *form,
                      cop_data_samples *out, cop_error *error) {
    if (!size) return cop_fail(error, COP_ERR_INPUT, "%s is empty", what);
    cop_str known = {0};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (formats[i].is((const unsigned char *)bytes, size)) {
            cop_str_fini(&known);
            return formats[i].decode(what, bytes, size, form, out, error);
        }
        cop_str_printf(&known, "%s%s", i ? ", " : "", formats[i].name);
    }
    cop_fail(error, COP_ERR_INPUT, "%s is %s: expected one of %s", what, cop_file_kind(bytes, size),
             cop_str_text(&known));
    cop_str_fini(&known);
    return COP_ERR_INPUT;
}

cop_err cop_data_samples_decode(const char *what, char *bytes, size_t size,
                                const cop_data_form *form, cop_data_samples *out,
                                cop_error *error) {
    *out = (cop_data_samples){0};
    if (!gzip_is(bytes, size) || is_idx((const unsigned char *)bytes, size))
        return decode(what, bytes, size, form, out, error);
    char *all = NULL;
    size_t all_size = 0;
    COP_TRY(gzip_unpack(what, COP_INPUT_FILE_MAX, bytes, size, &all, &all_size, error));
    cop_err e = decode(what, all, all_size, form, out, error);
    cop_free(all);
    return e;
}

cop_err cop_data_samples_read(const char *path, const cop_data_form *form,
                              cop_data_progress progress, void *context, cop_data_samples *out,
                              cop_error *error) {
    char *bytes;
    size_t size;
    *out = (cop_data_samples){0};
    if (cop_folder_exists(path)) return read_folder(path, form, progress, context, out, error);
    COP_TRY(cop_file_read(path, COP_INPUT_FILE_MAX, &bytes, &size, error));
    cop_err e = cop_data_samples_decode(path, bytes, size, form, out, error);
    cop_free(bytes);
    return e;
}
