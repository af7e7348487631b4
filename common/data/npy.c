/* Reads data sets from NumPy's files. A part is two .npy files, or two arrays of an .npz file:
 * samples and labels. Samples of u8 stay u8; samples of other types become f32. Labels are whole
 * numbers of any type. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/data/gzip.h"
#include "common/data/npy.h"
#include "common/data/pack.h"
#include "common/data/samples_formats.h"

#define NPY_MAX ((size_t)64 << 30)

/* One array and the file in memory that contains it. */
typedef struct source {
    char name[600]; /* path of an .npy file, or path(array) for an .npz file */
    cop_data_content content;
    npy_array array;
} source;

typedef struct part {
    source samples;
    source labels;        /* empty if the set has no labels */
    cop_data_order order; /* where the channels are in the array of samples */
    pack_part header;
} part;

static void close_part(part *p) {
    cop_free(p->samples.content.bytes);
    cop_free(p->labels.content.bytes);
}

static cop_err open_file(const char *path, source *s, cop_error *error) {
    snprintf(s->name, sizeof s->name, "%.500s", path);
    COP_TRY(gzip_read_file(path, NPY_MAX, &s->content, error));
    s->content.name = s->name;
    return npy_parse(&s->content, &s->array, error);
}

static cop_err open_member(const cop_data_content *npz, const char *name, source *s,
                           cop_error *error) {
    snprintf(s->name, sizeof s->name, "%.500s(%.60s)", npz->name, name);
    COP_TRY(npz_member(npz, name, &s->content, error));
    s->content.name = s->name;
    return npy_parse(&s->content, &s->array, error);
}

/* The usual names of arrays. A row has {samples, labels} of the training part, then {samples,
 * labels} of the test part. */
static const char *const known_names[][2][2] = {
    {{"images", "labels"}, {"images", "labels"}},
    {{"x_train", "y_train"}, {"x_test", "y_test"}},                     /* Keras */
    {{"X_train", "y_train"}, {"X_test", "y_test"}},                     /* scikit-learn */
    {{"train_images", "train_labels"}, {"test_images", "test_labels"}}, /* MedMNIST */
    {{"x", "y"}, {"x", "y"}},
    {{"X", "y"}, {"X", "y"}},
    {{"data", "target"}, {"data", "target"}},
    {{"arr_0", "arr_1"}, {"arr_0", "arr_1"}}, /* numpy.savez without names */
};
enum { KNOWN_NAMES = sizeof known_names / sizeof *known_names };

/* Chooses the names of the arrays of a part, {samples, labels}. Uses the names that the job gives.
 * If the job does not give both, takes the others from the first row of known_names that contains
 * the given name and whose other names exist in the file. If there is no such row, the other names
 * are "images" and "labels". */
static void choose_names(const cop_data_files *f, const cop_data_content *npz, bool test,
                         const char *names[2]) {
    names[0] = f->images ? f->images : "images";
    names[1] = f->labels ? f->labels : "labels";
    for (size_t i = 0; i < KNOWN_NAMES; i++) {
        const char *const *pair = known_names[i][test];
        if (f->images ? strcmp(f->images, pair[0]) != 0 : !npz_has(npz, pair[0])) continue;
        if (f->labels ? strcmp(f->labels, pair[1]) != 0 : !npz_has(npz, pair[1])) continue;
        names[0] = pair[0];
        names[1] = pair[1];
        return;
    }
}

bool pack_npz_has_test(const char *path) {
    cop_data_content content;
    const cop_data_content *npz = &content;
    bool found = false;
    if (gzip_read_file(path, NPY_MAX, &content, NULL)) return false;
    for (size_t i = 0; i < KNOWN_NAMES && !found; i++) {
        const char *const *train = known_names[i][0], *const *test = known_names[i][1];
        if (!npz_has(npz, train[0]) || !npz_has(npz, train[1])) continue;
        found = strcmp(train[0], test[0]) != 0 && npz_has(npz, test[0]) && npz_has(npz, test[1]);
        break;
    }
    cop_free(content.bytes);
    return found;
}

static cop_err open_sources(const cop_data_files *f, bool test, bool labels, part *p,
                            cop_error *error) {
    if (!f->path) {
        COP_TRY(open_file(f->images, &p->samples, error));
        return labels ? open_file(f->labels, &p->labels, error) : COP_OK;
    }
    cop_data_content npz;
    const char *names[2];
    COP_TRY(gzip_read_file(f->path, NPY_MAX, &npz, error));
    choose_names(f, &npz, test, names);
    cop_err e = open_member(&npz, names[0], &p->samples, error);
    if (!e && labels) e = open_member(&npz, names[1], &p->labels, error);
    cop_free(npz.bytes);
    return e;
}

static bool is_bytes(const npy_array *x) {
    return x->kind == 'u' && x->size == 1;
}

static cop_err check_part(part *p, cop_error *error) {
    const npy_array *x = &p->samples.array, *y = &p->labels.array;
    cop_data_shape shape = x->shape; /* below: with the channels first */
    COP_TRY(channels_find(x->name, &shape, &p->order, error));
    channels_reorder(&shape, p->order);
    COP_TRY(
        pack_part_of(x->name, is_bytes(x) ? COP_DATA_U8 : COP_DATA_F32, &shape, &p->header, error));
    if (!p->labels.content.bytes) return COP_OK; /* the set has no labels */
    const uint32_t rank = y->shape.rank;
    if (rank != 1 && (rank != 2 || y->shape.dims[1] != 1))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has %u dimensions: expected 1 (labels), whole numbers%s", y->name, rank,
                        rank == 2 ? " (for one column per class, store numpy.argmax(y, axis=1))"
                                  : "");
    if (y->shape.dims[0] != x->shape.dims[0])
        return cop_fail(error, COP_ERR_INPUT, "%s has %llu samples, but %s has %llu labels",
                        x->name, (unsigned long long)x->shape.dims[0], y->name,
                        (unsigned long long)y->shape.dims[0]);
    return COP_OK;
}

static cop_err open_part(const cop_data_input *input, bool test, part *p, cop_error *error) {
    *p = (part){.order = input->order};
    cop_err e =
        open_sources(test ? &input->test : &input->train, test, !input->unlabelled, p, error);
    if (!e) e = check_part(p, error);
    if (e) close_part(p);
    return e;
}

/* ---- values ---- */

/* The index in the file of element i. Elements are counted in C order. */
static uint64_t index_in_file(const npy_array *x, uint64_t i) {
    uint64_t at = 0, stride = x->count;
    if (!x->fortran) return i;
    for (uint32_t d = x->shape.rank; d-- > 0; i /= x->shape.dims[d]) {
        stride /= x->shape.dims[d];
        at += i % x->shape.dims[d] * stride;
    }
    return at;
}

/* Converts a float of 16 bits: 1 sign bit, 5 bits of exponent, 10 bits of fraction. */
static double from_half(uint64_t bits) {
    const int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 1023);
    double value = exponent ? (1024 + fraction) / 1024.0 : fraction / 512.0;
    if (exponent == 31) value = fraction ? NAN : HUGE_VAL;
    for (int e = exponent; e < 15 && exponent != 31; e++) value /= 2;
    for (int e = exponent; e > 15 && exponent != 31; e--) value *= 2;
    return bits >> 15 ? -value : value;
}

/* The value of element i. Elements are counted in C order. */
static double element(const npy_array *x, uint64_t i) {
    const unsigned char *p = x->data + index_in_file(x, i) * x->size;
    uint64_t whole = 0;
    COP_ASSERT(x->size >= 1 && x->size <= 8);
    for (uint32_t b = 0; b < x->size; b++)
        whole |= (uint64_t)p[x->big_endian ? x->size - 1 - b : b] << 8 * b;
    if (x->kind == 'f' && x->size == 8) {
        double wide;
        memcpy(&wide, &whole, sizeof wide);
        return wide;
    }
    if (x->kind == 'f' && x->size == 4) {
        const uint32_t half = (uint32_t)whole;
        float narrow;
        memcpy(&narrow, &half, sizeof narrow);
        return narrow;
    }
    if (x->kind == 'f') return from_half(whole);
    if (x->kind != 'i') return (double)whole;
    const int unused = 64 - 8 * (int)x->size;
    return (double)((int64_t)(whole << unused) >> unused); /* extends the sign */
}

static cop_err copy_samples(const npy_array *x, void *out, cop_error *error) {
    float *to = out;
    if (is_bytes(x) && !x->fortran) {
        memcpy(out, x->data, x->count);
        return COP_OK;
    }
    for (uint64_t i = 0; is_bytes(x) && i < x->count; i++)
        ((unsigned char *)out)[i] = x->data[index_in_file(x, i)];
    for (uint64_t i = 0; !is_bytes(x) && i < x->count; i++) {
        to[i] = (float)element(x, i);
        if (!isfinite(to[i]))
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: element %llu is not a finite 32-bit number (sample %llu: %g)",
                            x->name, (unsigned long long)i,
                            (unsigned long long)(i / (x->count / x->shape.dims[0])), element(x, i));
        to[i] += 0.0f; /* turns -0 into 0 */
    }
    return COP_OK;
}

/* Label i. -1: the element is not a whole number from 0 to COP_CLASSES_MAX - 1. */
static int32_t label_at(const npy_array *y, uint64_t i) {
    const double value = element(y, i);
    return value >= 0 && value < COP_CLASSES_MAX && value == floor(value) ? (int32_t)value : -1;
}

static cop_err copy_labels(const npy_array *y, int32_t *out, cop_error *error) {
    for (uint64_t i = 0; i < y->count; i++) {
        out[i] = label_at(y, i);
        if (out[i] < 0)
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: label %llu is %g: expected labels, whole numbers from 0 to %d",
                            y->name, (unsigned long long)i, element(y, i), COP_CLASSES_MAX - 1);
    }
    return COP_OK;
}

static cop_err fill(const part *p, const cop_data_part *to, cop_error *error) {
    const npy_array *x = &p->samples.array, *y = &p->labels.array;
    const size_t element_size = to->type == COP_DATA_F32 ? 4 : 1;
    COP_ASSERT(x->count * element_size == (uint64_t)to->count * to->stride);
    COP_TRY(copy_samples(x, pack_samples(to), error));
    if (x->shape.rank == 4 && p->order == COP_DATA_CHANNELS_LAST)
        COP_TRY(channels_to_front(to->dims, to->count, element_size, pack_samples(to), error));
    if (!p->labels.content.bytes) return COP_OK;
    COP_ASSERT(y->count == to->count);
    return copy_labels(y, pack_labels(to), error);
}

static cop_err load(part p[2], bool test, const char *name, cop_data **out, cop_error *error) {
    if (!test) {
        p[1].header = p[0].header;
        p[1].header.count = 0;
    }
    const pack_part headers[2] = {p[0].header, p[1].header};
    const char *const names[2] = {p[0].samples.name, p[1].samples.name};
    COP_TRY(pack_check_parts(headers, names, error));
    COP_TRY(pack_create(name, 1, headers, out, error));
    COP_TRY(fill(&p[0], &(*out)->train, error));
    if (test) COP_TRY(fill(&p[1], &(*out)->test, error));
    if (!p[0].labels.content.bytes) return pack_finish_unlabelled(*out, error);
    return pack_finish_labels(*out, p[0].labels.name, p[1].labels.name, error);
}

cop_err pack_load_npy(const cop_data_input *input, cop_data **out, cop_error *error) {
    part *p = cop_alloc_array(2, sizeof *p);
    const bool test = input->test.images || input->test.path;
    cop_data *data = NULL;
    if (!p) return cop_no_memory(error);
    cop_err e = open_part(input, false, &p[0], error);
    if (!e) {
        if (test) e = open_part(input, true, &p[1], error);
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

/* Converts the values to the type that the model takes. INPUT: a value does not fit the type. */
static cop_err convert_samples(const npy_array *x, const cop_data_form *form, void *out,
                               cop_error *error) {
    if (is_bytes(x) == (form->type == COP_DATA_U8)) return copy_samples(x, out, error);
    for (uint64_t i = 0; i < x->count; i++) {
        const float value =
            is_bytes(x) ? (float)x->data[index_in_file(x, i)] : (float)element(x, i);
        if (form->type == COP_DATA_F32) {
            ((float *)out)[i] = value;
            continue;
        }
        if (!cop_data_is_byte(value))
            return cop_fail(error, COP_ERR_INPUT,
                            "%s: element %llu is %g: the model takes bytes, whole numbers from 0 "
                            "to 255",
                            x->name, (unsigned long long)i, (double)value);
        ((uint8_t *)out)[i] = (uint8_t)value;
    }
    return COP_OK;
}

/* Makes samples of the array `x`, and labels of the array `y`. `y` is NULL if there are no labels.
 */
static cop_err take_arrays(const npy_array *x, const npy_array *y, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    const bool last = samples_channels_are_last(form, &x->shape);
    const uint64_t count = x->shape.dims[0];
    if (!last) COP_TRY(samples_check_shape(x->name, form, &x->shape, error));
    if (y && (y->count != count || y->shape.dims[0] != count))
        return cop_fail(
            error, COP_ERR_INPUT,
            "%s: the array \"labels\" is invalid: expected %llu whole numbers, one per sample",
            x->name, (unsigned long long)count);
    COP_TRY(samples_reserve(x->name, form, count, out, error));
    COP_TRY(convert_samples(x, form, out->rows, error));
    if (last)
        COP_TRY(channels_to_front(form->dims, count, form->type == COP_DATA_F32 ? 4 : 1, out->rows,
                                  error));
    if (y) COP_TRY(samples_reserve_labels(x->name, out, error));
    for (uint64_t i = 0; y && i < y->count; i++) {
        out->labels[i] = label_at(y, i);
        if (out->labels[i] < 0 || out->labels[i] >= form->classes)
            return cop_fail(error, COP_ERR_INPUT, "%s: label %llu is %g: expected 0 to %d", x->name,
                            (unsigned long long)i, element(y, i), form->classes - 1);
    }
    return COP_OK;
}

cop_err samples_decode_npy(const cop_data_content *npy, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    npy_array x;
    COP_TRY(npy_parse(npy, &x, error));
    return take_arrays(&x, NULL, form, out, error);
}

/* Chooses the names of the array of samples and of the array of labels. The file may lack the
 * latter. If it has a training and a test part, the names are those of the test part. */
static void choose_samples(const cop_data_content *npz, const char *names[2]) {
    const cop_data_files none = {0};
    names[0] = "images";
    for (size_t i = 0; i < KNOWN_NAMES; i++)
        if (npz_has(npz, known_names[i][1][0])) {
            names[0] = known_names[i][1][0];
            names[1] = known_names[i][1][1];
            return;
        }
    choose_names(&none, npz, false, names);
}

cop_err samples_decode_npz(const cop_data_content *npz, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error) {
    cop_data_content images = {0}, labels = {0};
    npy_array x, y;
    const char *names[2];
    choose_samples(npz, names);
    cop_err e = npz_member(npz, names[0], &images, error);
    if (!e) e = npy_parse(&images, &x, error);
    if (!e && !form->unlabelled && npz_has(npz, names[1]))
        e = npz_member(npz, names[1], &labels, error);
    if (!e && labels.bytes) e = npy_parse(&labels, &y, error);
    if (!e) e = take_arrays(&x, labels.bytes ? &y : NULL, form, out, error);
    cop_free(images.bytes);
    cop_free(labels.bytes);
    return e;
}
