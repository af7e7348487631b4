/* Reads samples for a trained model: finds the format of a file, and checks that the samples fit
 * the model. See samples.h. */
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

/* ---- do the samples fit the model? ---- */

size_t samples_values(const cop_data_form *form) {
    size_t values = 1;
    for (int d = 0; d < form->rank; d++) values *= (size_t)form->dims[d];
    return values;
}

/* Writes the shapes of arrays that fit the model, such as "(n, 28, 28) or (n, 1, 28, 28)". */
static void describe_shapes(const cop_data_form *form, char *out, size_t size) {
    const int32_t *d = form->dims;
    if (form->rank == 1)
        snprintf(out, size, "(n, %d)", d[0]);
    else if (d[0] == 1)
        snprintf(out, size, "(n, %d, %d) or (n, 1, %d, %d)", d[1], d[2], d[1], d[2]);
    else
        snprintf(out, size, "(n, %d, %d, %d)", d[0], d[1], d[2]);
}

static cop_err fail_shape(const char *name, const cop_data_form *form, const cop_data_shape *shape,
                          cop_error *error) {
    char expected[96];
    cop_str found = {0};
    describe_shapes(form, expected, sizeof expected);
    for (uint32_t d = 0; d < shape->rank; d++)
        cop_str_printf(&found, "%s%llu", d ? ", " : "", (unsigned long long)shape->dims[d]);
    cop_fail(error, COP_ERR_INPUT, "%s has the shape (%s%s): the model takes %s", name,
             cop_str_text(&found), shape->rank == 1 ? "," : "", expected);
    cop_str_fini(&found);
    return COP_ERR_INPUT;
}

cop_err samples_check_shape(const char *name, const cop_data_form *form,
                            const cop_data_shape *shape, cop_error *error) {
    /* if the model takes one channel, the array may lack its dimension: (n, height, width) */
    const uint32_t skipped = form->rank == 3 && form->dims[0] == 1 && shape->rank == 3;
    bool fits = shape->rank + skipped == (uint32_t)form->rank + 1;
    for (uint32_t d = 1; fits && d < shape->rank; d++)
        fits = shape->dims[d] == (uint64_t)form->dims[d - 1 + skipped];
    if (!fits) return fail_shape(name, form, shape, error);
    if (!shape->dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s is empty: expected at least one sample", name);
    return COP_OK;
}

bool samples_channels_are_last(const cop_data_form *form, const cop_data_shape *shape) {
    if (shape->rank != 4 || form->order == COP_DATA_CHANNELS_FIRST) return false;
    const bool first = !samples_check_shape("", form, shape, NULL);
    cop_data_shape moved = *shape;
    channels_reorder(&moved, COP_DATA_CHANNELS_LAST);
    return (!first || form->order == COP_DATA_CHANNELS_LAST) &&
           !samples_check_shape("", form, &moved, NULL);
}

cop_err samples_check_type(const char *name, const cop_data_form *form, cop_data_type type,
                           const char *found, cop_error *error) {
    if (form->type == type) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT, "%s contains %s: the model takes %s", name, found,
                    form->type == COP_DATA_U8 ? "bytes, 0 to 255" : "floats (NPY, NPZ or CSV)");
}

static cop_err no_memory_for(const char *name, uint64_t count, cop_error *error) {
    return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for the %llu samples of %s",
                    (unsigned long long)count, name);
}

cop_err samples_reserve(const char *name, const cop_data_form *form, uint64_t count,
                        cop_data_samples *out, cop_error *error) {
    const size_t stride = samples_values(form) * (form->type == COP_DATA_F32 ? sizeof(float) : 1);
    COP_ASSERT(count >= 1 && !out->rows);
    if (count > COP_SAMPLES_MAX || count > SIZE_MAX / 2 / stride)
        return cop_fail(error, COP_ERR_LIMIT, "%s has too many samples: %llu", name,
                        (unsigned long long)count);
    out->rows = cop_alloc_raw((size_t)count * stride);
    if (!out->rows) return no_memory_for(name, count, error);
    out->part = (cop_data_part){.type = form->type,
                                .rank = form->rank,
                                .count = (uint32_t)count,
                                .stride = stride,
                                .samples = out->rows};
    memcpy(out->part.dims, form->dims, sizeof form->dims);
    return COP_OK;
}

cop_err samples_reserve_labels(const char *name, cop_data_samples *out, cop_error *error) {
    COP_ASSERT(out->rows && !out->labels);
    out->labels = cop_alloc_array(out->part.count, sizeof *out->labels);
    if (!out->labels) return no_memory_for(name, out->part.count, error);
    out->part.labels = out->labels;
    return COP_OK;
}

void cop_data_samples_fini(cop_data_samples *s) {
    cop_free(s->names);
    cop_free(s->rows);
    cop_free(s->labels);
    *s = (cop_data_samples){0};
}

/* ---- images ---- */

static void describe_image(char *out, size_t size, int width, int height, int channels) {
    snprintf(out, size, "%d x %d pixels%s of %d channel%s", width, height,
             channels == 1   ? " in grey,"
             : channels == 3 ? " in colour,"
                             : "",
             channels, channels == 1 ? "" : "s");
}

static cop_err check_image(const char *name, const cop_data_form *form, const cop_image *image,
                           cop_error *error) {
    char found[96], expected[96];
    describe_image(found, sizeof found, image->width, image->height, image->channels);
    if (form->rank != 3)
        return cop_fail(
            error, COP_ERR_INPUT,
            "%s is an image of %s: the model takes flat samples of %d values, not images", name,
            found, form->dims[0]);
    describe_image(expected, sizeof expected, form->dims[2], form->dims[1], form->dims[0]);
    if (image->width != form->dims[2] || image->height != form->dims[1] ||
        image->channels != form->dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s has %s: the model takes %s", name, found,
                        expected);
    return samples_check_type(name, form, COP_DATA_U8, "bytes", error);
}

/* Images that become samples, one after another. */
typedef struct image_samples {
    const cop_data_form *form;
    uint32_t count; /* number of images */
    uint32_t row;   /* index of the next image */
    cop_data_samples *out;
} image_samples;

/* Decodes and checks one image, and stores it as the next sample. The call for the first image
 * allocates the memory for all images. */
static cop_err add_image(image_samples *s, const cop_data_content *content, cop_error *error) {
    const cop_data_form *form = s->form;
    const char *name = content->name;
    const bool resized = form->resize && form->rank == 3;
    const image_file file = {name, content->bytes, content->size,
                             form->resize ? IMAGE_VALUES_MAX : COP_UNITS_MAX};
    const image_form fit = {.channels = form->rank == 3 ? form->dims[0] : 0,
                            .height = resized ? form->dims[1] : 0,
                            .width = resized ? form->dims[2] : 0};
    cop_image image;
    COP_ASSERT(s->row < s->count);
    COP_TRY(image_decode(&file, &image, error));
    cop_err e = image_fit(name, &fit, &image, error);
    if (!e) e = check_image(name, form, &image, error);
    if (!e && s->row == 0) e = samples_reserve(name, form, s->count, s->out, error);
    if (!e) {
        const size_t stride = s->out->part.stride;
        memcpy((char *)s->out->rows + s->row++ * stride, image.pixels, stride);
    }
    cop_free(image.pixels);
    return e;
}

static cop_err decode_image(const cop_data_content *content, const cop_data_form *form,
                            cop_data_samples *out, cop_error *error) {
    image_samples s = {.form = form, .count = 1, .out = out};
    return add_image(&s, content, error);
}

static cop_err add_file(image_samples *s, const char *folder, cop_error *error) {
    char *path = cop_path_join(folder, s->out->names[s->row]);
    cop_data_content content = {.name = path};
    cop_err e = path ? COP_OK : cop_no_memory(error);
    if (!e && cop_folder_exists(path))
        e = cop_fail(error, COP_ERR_INPUT, "%s is a folder: expected an image", path);
    if (!e) e = cop_file_read(path, IMAGE_FILE_MAX, &content.bytes, &content.size, error);
    if (!e) e = add_image(s, &content, error);
    cop_free(content.bytes);
    cop_free(path);
    return e;
}

static cop_err read_folder(const char *folder, const cop_data_form *form,
                           const cop_data_watcher *watcher, cop_data_samples *out,
                           cop_error *error) {
    size_t found, count = 0;
    COP_TRY(cop_folder_list(folder, &out->names, &found, error));
    for (size_t i = 0; i < found; i++)
        if (!image_folder_skips(out->names[i])) out->names[count++] = out->names[i];
    if (!count) return cop_fail(error, COP_ERR_INPUT, "%s contains no images", folder);
    if (count > COP_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s contains too many images", folder);
    image_samples s = {.form = form, .count = (uint32_t)count, .out = out};
    while (s.row < s.count) {
        COP_TRY(add_file(&s, folder, error));
        if (watcher) watcher->report(watcher->context, "images", s.row, s.count);
    }
    return COP_OK;
}

/* ---- finding the format ---- */

static bool begins(const cop_data_content *c, const char *with, size_t length) {
    return c->size >= length && memcmp(c->bytes, with, length) == 0;
}

static bool is_image(const cop_data_content *c) {
    return begins(c, "\x89PNG", 4) || begins(c, "\xff\xd8\xff", 3);
}

static bool is_npy(const cop_data_content *c) {
    return begins(c, "\x93NUMPY", 6);
}

static bool is_npz(const cop_data_content *c) {
    return begins(c, "PK\3\4", 4) || begins(c, "PK\5\6", 4);
}

/* Is it an IDX file, plain or gzipped? IDX is the only format whose decoder decompresses gzip data
 * itself. Gzip data that are too damaged to see their first 4 bytes count as IDX, so that its
 * decoder reports the damage. */
static bool is_idx(const cop_data_content *c) {
    unsigned char head[4] = {1};
    size_t got = 0;
    gzip_reader g;
    if (!gzip_is(c->bytes, c->size)) return begins(c, "\0\0", 2);
    if (gzip_begin(&g, c, NULL)) return false;
    cop_err e = gzip_read(&g, head, sizeof head, &got, NULL);
    gzip_end(&g);
    return e || got < 4 || (!head[0] && !head[1]);
}

static bool is_text(const cop_data_content *c) {
    return !memchr(c->bytes, 0, c->size < 4096 ? c->size : 4096);
}

static const samples_format formats[] = {
    {"PNG, JPEG", is_image, decode_image}, {"NPY", is_npy, samples_decode_npy},
    {"NPZ", is_npz, samples_decode_npz},   {"IDX", is_idx, samples_decode_idx},
    {"CSV", is_text, samples_decode_csv},
};

static cop_err decode(const cop_data_content *content, const cop_data_form *form,
                      cop_data_samples *out, cop_error *error) {
    if (!content->size) return cop_fail(error, COP_ERR_INPUT, "%s is empty", content->name);
    cop_str known = {0};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (formats[i].is(content)) {
            cop_str_fini(&known);
            return formats[i].decode(content, form, out, error);
        }
        cop_str_printf(&known, "%s%s", i ? ", " : "", formats[i].name);
    }
    cop_fail(error, COP_ERR_INPUT, "%s is %s: expected one of %s", content->name,
             cop_file_kind(content->bytes, content->size), cop_str_text(&known));
    cop_str_fini(&known);
    return COP_ERR_INPUT;
}

cop_err cop_data_samples_decode(const cop_data_content *content, const cop_data_form *form,
                                cop_data_samples *out, cop_error *error) {
    COP_ASSERT(form->rank >= 1 && form->rank <= 3);
    *out = (cop_data_samples){0};
    if (!gzip_is(content->bytes, content->size) || is_idx(content))
        return decode(content, form, out, error);
    cop_data_content unpacked;
    COP_TRY(gzip_unpack(content, COP_INPUT_FILE_MAX, &unpacked, error));
    cop_err e = decode(&unpacked, form, out, error);
    cop_free(unpacked.bytes);
    return e;
}

cop_err cop_data_samples_read(const char *path, const cop_data_form *form,
                              const cop_data_watcher *watcher, cop_data_samples *out,
                              cop_error *error) {
    cop_data_content content = {.name = path};
    *out = (cop_data_samples){0};
    if (cop_folder_exists(path)) return read_folder(path, form, watcher, out, error);
    COP_TRY(cop_file_read(path, COP_INPUT_FILE_MAX, &content.bytes, &content.size, error));
    cop_err e = cop_data_samples_decode(&content, form, out, error);
    cop_free(content.bytes);
    return e;
}
