/* Parses NumPy's .npy files. The header of a file is a Python dictionary such as
 *
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (60000, 28, 28), }
 *
 * with exactly these three keys, in any order. */
#include <stdbool.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/data/npy.h"

/* The header that is being parsed. */
typedef struct header {
    const char *at;  /* the next byte to parse */
    const char *end; /* the end of the header */
    char descr[16];  /* the value of 'descr' */
    bool fortran;    /* the value of 'fortran_order' */
    bool has_descr;  /* the key 'descr' was found */
    bool has_order;  /* the key 'fortran_order' was found */
    bool has_shape;  /* the key 'shape' was found */
    npy_array *array;
} header;

static cop_err damaged(const header *h, const char *why, cop_error *error) {
    return cop_fail(error, COP_ERR_CORRUPT, "%s is not a valid NPY file: %s", h->array->name, why);
}

static void skip_blanks(header *h) {
    while (h->at < h->end && (*h->at == ' ' || *h->at == '\n' || *h->at == '\t')) h->at++;
}

static bool take(header *h, char c) {
    skip_blanks(h);
    if (h->at == h->end || *h->at != c) return false;
    h->at++;
    return true;
}

/* Takes a quoted text of fewer than `size` bytes, without its quotes. Returns false if there is
 * none. */
static bool take_text(header *h, char *out, size_t size) {
    skip_blanks(h);
    if (h->at == h->end || (*h->at != '\'' && *h->at != '"')) return false;
    const char quote = *h->at++;
    size_t length = 0;
    while (h->at < h->end && *h->at != quote && length + 1 < size) out[length++] = *h->at++;
    out[length] = '\0';
    return take(h, quote);
}

static bool take_word(header *h, const char *word) {
    skip_blanks(h);
    size_t length = strlen(word);
    if ((size_t)(h->end - h->at) < length || memcmp(h->at, word, length) != 0) return false;
    h->at += length;
    return true;
}

static bool take_number(header *h, uint64_t *out) {
    skip_blanks(h);
    const char *begin = h->at;
    *out = 0;
    while (h->at < h->end && *h->at >= '0' && *h->at <= '9') {
        const uint64_t digit = (uint64_t)(*h->at++ - '0');
        if (*out > (UINT64_MAX - digit) / 10) return false;
        *out = *out * 10 + digit;
    }
    return h->at > begin;
}

static cop_err take_shape(header *h, cop_error *error) {
    cop_data_shape *s = &h->array->shape;
    if (!take(h, '(')) return damaged(h, "its shape is not a tuple", error);
    for (s->rank = 0; !take(h, ')'); s->rank++) {
        if (s->rank == 4)
            return cop_fail(error, COP_ERR_INPUT, "%s has more than 4 dimensions", h->array->name);
        if (!take_number(h, &s->dims[s->rank]))
            return damaged(h, "its shape holds no whole numbers", error);
        if (take(h, ',')) continue;
        if (take(h, ')')) {
            s->rank++;
            break;
        }
        return damaged(h, "its shape does not end", error);
    }
    h->has_shape = true;
    return COP_OK;
}

static cop_err take_pair(header *h, cop_error *error) {
    char key[16];
    if (!take_text(h, key, sizeof key) || !take(h, ':'))
        return damaged(h, "its header has no keys", error);
    if (strcmp(key, "shape") == 0) return take_shape(h, error);
    if (strcmp(key, "fortran_order") == 0) {
        h->has_order = true;
        h->fortran = take_word(h, "True");
        return h->fortran || take_word(h, "False")
                   ? COP_OK
                   : damaged(h, "its fortran_order is neither True nor False", error);
    }
    if (strcmp(key, "descr") != 0) return damaged(h, "its header has an unknown key", error);
    h->has_descr = true;
    if (!take_text(h, h->descr, sizeof h->descr))
        return cop_fail(error, COP_ERR_INPUT,
                        "%s contains records: expected an array of bytes, whole numbers or floats",
                        h->array->name);
    return COP_OK;
}

/* Parses the type of an element, such as "<f4". It consists of byte order, kind and size. */
static cop_err read_type(const header *h, cop_error *error) {
    const char *d = h->descr;
    const unsigned size = d[0] && d[1] ? (unsigned)(d[2] - '0') : 0;
    const bool known = d[0] && strchr("<|=>", d[0]) && d[1] && strchr("uifb", d[1]) && d[2] &&
                       !d[3] && (size == 1 || size == 2 || size == 4 || size == 8) &&
                       (d[1] != 'f' || size > 1);
    if (!known)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has elements of type \"%s\": expected bytes, whole numbers or floats, "
                        "such as \"|u1\" or \"<f4\"",
                        h->array->name, d);
    h->array->big_endian = d[0] == '>';
    h->array->fortran = h->fortran && h->array->shape.rank > 1;
    h->array->kind = d[1];
    h->array->size = size;
    return COP_OK;
}

static cop_err read_dictionary(header *h, cop_error *error) {
    if (!take(h, '{')) return damaged(h, "its header is not a dictionary", error);
    while (!take(h, '}')) {
        COP_TRY(take_pair(h, error));
        if (take(h, ',')) continue;
        if (take(h, '}')) break;
        return damaged(h, "its header does not end", error);
    }
    skip_blanks(h);
    if (h->at != h->end || !h->has_descr || !h->has_order || !h->has_shape)
        return damaged(h, "its header needs descr, fortran_order and shape", error);
    return read_type(h, error);
}

/* Computes out->count from the shape. CORRUPT: the elements need more or fewer bytes than the
 * `data_size` bytes after the header. */
static cop_err check_size(const header *h, uint64_t data_size, npy_array *out, cop_error *error) {
    const cop_data_shape *s = &out->shape;
    out->count = 1;
    for (uint32_t d = 0; d < s->rank; d++)
        if (!s->dims[d]) out->count = 0; /* whatever the other dimensions are */
    for (uint32_t d = 0; d < s->rank && out->count; d++) {
        if (out->count > data_size / s->dims[d])
            return damaged(h, "it is shorter than its shape says", error);
        out->count *= s->dims[d];
    }
    if (out->count > data_size / out->size)
        return damaged(h, "it is shorter than its shape says", error);
    if (out->count * out->size != data_size)
        return damaged(h, "it is longer than its shape says", error);
    return COP_OK;
}

cop_err npy_parse(const cop_data_content *npy, npy_array *out, cop_error *error) {
    const unsigned char *b = (const unsigned char *)npy->bytes;
    const size_t size = npy->size;
    *out = (npy_array){.name = npy->name};
    header h = {.array = out};
    if (size < 10 || memcmp(b, "\x93NUMPY", 6) != 0)
        return cop_fail(error, COP_ERR_CORRUPT, "%s is not an NPY file: it is %s", npy->name,
                        cop_file_kind(b, size));
    if (b[6] < 1 || b[6] > 3)
        return cop_fail(error, COP_ERR_INPUT, "%s: NPY version %u: expected 1 to 3", npy->name,
                        b[6]);
    const size_t start = b[6] == 1 ? 10 : 12;
    if (size < start) return damaged(&h, "it ends inside its header", error);
    const size_t length = b[6] == 1 ? cop_load_u16(b + 8) : cop_load_u32(b + 8);
    if (length > size - start) return damaged(&h, "it ends inside its header", error);
    h.at = (const char *)b + start;
    h.end = h.at + length;
    COP_TRY(read_dictionary(&h, error));
    COP_ASSERT(out->size >= 1 && out->size <= 8 && out->shape.rank <= 4);
    out->data = b + start + length;
    return check_size(&h, size - start - length, out, error);
}
