/* Data sets from NumPy's files: two .npy files to a part, or two arrays of an .npz. Samples are
 * bytes (kept) or floats (kept as f32); labels are whole numbers of any type. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/limits.h"
#include "common/data/npy.h"
#include "common/data/pack.h"
#include "common/data/samples_formats.h"

#define NPY_MAX ((size_t)64 << 30)

/* One array and the bytes it lies in. */
typedef struct source {
    char what[600]; /* file, or file and array */
    char *bytes;
    npy_array array;
} source;

typedef struct part {
    source samples, labels;
    pack_part header;
} part;

static void close_part(part *p) {
    cop_free(p->samples.bytes);
    cop_free(p->labels.bytes);
}

static cop_err open_file(const char *path, source *s, cop_error *error) {
    size_t size;
    snprintf(s->what, sizeof s->what, "%.500s", path);
    COP_TRY(cop_file_read(path, NPY_MAX, &s->bytes, &size, error));
    return npy_parse(s->what, s->bytes, size, &s->array, error);
}

static cop_err open_member(const char *path, const char *bytes, size_t size, const char *name,
                           source *s, cop_error *error) {
    size_t member_size;
    snprintf(s->what, sizeof s->what, "%.500s(%.60s)", path, name);
    COP_TRY(npz_member(path, bytes, size, name, &s->bytes, &member_size, error));
    return npy_parse(s->what, s->bytes, member_size, &s->array, error);
}

static cop_err open_sources(const cop_data_files *f, part *p, cop_error *error) {
    if (!f->path) {
        COP_TRY(open_file(f->images, &p->samples, error));
        return open_file(f->labels, &p->labels, error);
    }
    char *bytes;
    size_t size;
    COP_TRY(cop_file_read(f->path, NPY_MAX, &bytes, &size, error));
    cop_err e =
        open_member(f->path, bytes, size, f->images ? f->images : "images", &p->samples, error);
    if (!e)
        e = open_member(f->path, bytes, size, f->labels ? f->labels : "labels", &p->labels, error);
    cop_free(bytes);
    return e;
}

static cop_err check_part(part *p, cop_error *error) {
    const npy_array *x = &p->samples.array, *y = &p->labels.array;
    const bool bytes = x->kind == 'u' && x->size == 1;
    if (!bytes && !(x->kind == 'f' && x->size >= 4))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has elements of type \"%c%u\": expected samples of bytes (u1) or "
                        "floats (f4, f8)",
                        p->samples.what, x->kind, x->size);
    if (y->kind != 'u' && y->kind != 'i')
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has elements of type \"%c%u\": expected labels, whole numbers",
                        p->labels.what, y->kind, y->size);
    COP_TRY(pack_part_of(p->samples.what, bytes ? COP_DATA_U8 : COP_DATA_F32, x->rank, x->dims,
                         &p->header, error));
    if (y->rank != 1)
        return cop_fail(error, COP_ERR_INPUT, "%s has %u dimensions: expected 1 (labels)",
                        p->labels.what, y->rank);
    if (y->dims[0] != x->dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s has %llu samples, but %s has %llu labels",
                        p->samples.what, (unsigned long long)x->dims[0], p->labels.what,
                        (unsigned long long)y->dims[0]);
    return COP_OK;
}

static cop_err open_part(const cop_data_files *files, part *p, cop_error *error) {
    *p = (part){0};
    cop_err e = open_sources(files, p, error);
    if (!e) e = check_part(p, error);
    if (e) close_part(p);
    return e;
}

/* ---- values ---- */

static cop_err copy_samples(const char *what, const npy_array *x, void *out, cop_error *error) {
    if (x->kind == 'u') {
        memcpy(out, x->data, x->count);
        return COP_OK;
    }
    float *to = out;
    for (uint64_t i = 0; i < x->count; i++) {
        double wide;
        if (x->size == 4) {
            memcpy(&to[i], x->data + 4 * i, 4);
        } else {
            memcpy(&wide, x->data + 8 * i, 8);
            to[i] = (float)wide;
        }
        if (!isfinite(to[i]))
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: element %llu is not a finite number of 32 bits", what,
                            (unsigned long long)i);
        to[i] += 0.0f; /* no -0 */
    }
    return COP_OK;
}

/* The label at i; -1 if it is none. */
static int32_t label_at(const npy_array *y, uint64_t i) {
    const unsigned char *p = y->data + i * y->size;
    uint64_t value = 0;
    memcpy(&value, p, y->size);
    if (y->kind == 'i' && (p[y->size - 1] & 0x80)) return -1;
    return value < COP_CLASSES_MAX ? (int32_t)value : -1;
}

static cop_err copy_labels(const source *s, int32_t *out, cop_error *error) {
    for (uint64_t i = 0; i < s->array.count; i++) {
        out[i] = label_at(&s->array, i);
        if (out[i] < 0)
            return cop_fail(error, COP_ERR_INPUT, "%s: label %llu is not from 0 to %d", s->what,
                            (unsigned long long)i, COP_CLASSES_MAX - 1);
    }
    return COP_OK;
}

static cop_err fill(const part *p, const cop_data_part *to, cop_error *error) {
    COP_ASSERT(p->samples.array.count * (to->type == COP_DATA_F32 ? 4 : 1) ==
               (uint64_t)to->count * to->stride);
    COP_TRY(copy_samples(p->samples.what, &p->samples.array, pack_samples(to), error));
    return copy_labels(&p->labels, pack_labels(to), error);
}

static cop_err load(part p[2], bool test, const char *name, cop_data **out, cop_error *error) {
    if (!test) {
        p[1].header = p[0].header;
        p[1].header.count = 0;
    }
    COP_TRY(
        pack_check_parts(&p[0].header, p[0].samples.what, &p[1].header, p[1].samples.what, error));
    COP_TRY(pack_create(name, 1, &p[0].header, &p[1].header, out, error));
    COP_TRY(fill(&p[0], &(*out)->train, error));
    if (test) COP_TRY(fill(&p[1], &(*out)->test, error));
    return pack_finish_labels(*out, p[0].labels.what, p[1].labels.what, error);
}

cop_err pack_load_npy(const cop_data_input *input, cop_data **out, cop_error *error) {
    part *p = cop_alloc_array(2, sizeof *p);
    const bool test = input->test.images || input->test.path;
    cop_data *data = NULL;
    if (!p) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = open_part(&input->train, &p[0], error);
    if (!e) {
        if (test) e = open_part(&input->test, &p[1], error);
        if (!e) {
            e = load(p, test, input->name, &data, error);
            if (test) close_part(&p[1]);
        }
        close_part(&p[0]);
    }
    cop_free(p);
    if (e)
        cop_data_destroy(data);
    else
        *out = data;
    return e;
}

/* ---- samples for a trained model ---- */

static cop_err check_type(const char *what, const npy_array *x, const cop_data_form *form,
                          cop_error *error) {
    char holds[64];
    const bool bytes = x->kind == 'u' && x->size == 1, floats = x->kind == 'f' && x->size >= 4;
    snprintf(holds, sizeof holds, "%s (%c%u)",
             bytes            ? "bytes"
             : x->kind == 'f' ? "floats"
             : x->kind == 'b' ? "truth values"
                              : "whole numbers",
             x->kind, x->size);
    /* What is neither does not fit any model. */
    const cop_data_type other = form->type == COP_DATA_U8 ? COP_DATA_F32 : COP_DATA_U8;
    return samples_check_type(what, form,
                              bytes    ? COP_DATA_U8
                              : floats ? COP_DATA_F32
                                       : other,
                              holds, error);
}

/* `y`: labels beside them, or NULL. */
static cop_err take_arrays(const char *what, const npy_array *x, const npy_array *y,
                           const cop_data_form *form, cop_data_samples *out, cop_error *error) {
    COP_TRY(samples_check_shape(what, form, x->rank, x->dims, error));
    COP_TRY(check_type(what, x, form, error));
    if (y && ((y->kind != 'u' && y->kind != 'i') || y->rank != 1 || y->dims[0] != x->dims[0]))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s: its array \"labels\" is not %llu whole numbers, one for each sample",
                        what, (unsigned long long)x->dims[0]);
    COP_TRY(samples_take(what, form, x->dims[0], y != NULL, out, error));
    COP_TRY(copy_samples(what, x, out->rows, error));
    for (uint64_t i = 0; y && i < y->count; i++) {
        out->labels[i] = label_at(y, i);
        if (out->labels[i] < 0 || out->labels[i] >= form->classes)
            return cop_fail(error, COP_ERR_INPUT, "%s: label %llu is not from 0 to %d", what,
                            (unsigned long long)i, form->classes - 1);
    }
    return COP_OK;
}

cop_err samples_decode_npy(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    npy_array x;
    COP_TRY(npy_parse(what, bytes, size, &x, error));
    return take_arrays(what, &x, NULL, form, out, error);
}

/* The array that holds the samples: `images`, or what savez calls its first argument. */
static cop_err find_samples(const char *what, const char *bytes, size_t size, char **array,
                            size_t *array_size, cop_error *error) {
    cop_err e = npz_member(what, bytes, size, "images", array, array_size, error);
    if (e == COP_ERR_NOT_FOUND &&
        npz_member(what, bytes, size, "arr_0", array, array_size, NULL) == COP_OK)
        return COP_OK;
    return e;
}

cop_err samples_decode_npz(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    char *images = NULL, *labels = NULL;
    size_t images_size = 0, labels_size = 0;
    npy_array x, y;
    cop_err e = find_samples(what, bytes, size, &images, &images_size, error);
    if (!e) e = npy_parse(what, images, images_size, &x, error);
    if (!e) {
        e = npz_member(what, bytes, size, "labels", &labels, &labels_size, error);
        if (e == COP_ERR_NOT_FOUND) e = COP_OK;
    }
    if (!e && labels) e = npy_parse(what, labels, labels_size, &y, error);
    if (!e) e = take_arrays(what, &x, labels ? &y : NULL, form, out, error);
    cop_free(images);
    cop_free(labels);
    return e;
}
