/* Reads safetensors files. See safetensors.h. A small strict parser reads the JSON of the header.
 * It accepts only what the format contains: an object of objects, whose values are strings and
 * arrays of numbers. */
#include "common/interchange/safetensors_tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/str.h"

#define HEADER_MAX   ((uint64_t)16 << 20)
#define TENSORS_MAX  4096
#define METADATA_MAX 256
#define FILE_MAX     ((size_t)8 << 30)

size_t safetensors_dtype_size(const char *dtype) {
    static const struct {
        const char *name;
        size_t size;
    } types[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                 {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},  {"U32", 4},
                 {"U16", 2}, {"U8", 1},  {"BOOL", 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, dtype) == 0) return types[i].size;
    return 0;
}

bool safetensors_tensor_bytes(const cop_tensor_entry *t, uint64_t *out) {
    uint64_t size = safetensors_dtype_size(t->dtype);
    for (int d = 0; d < t->rank; d++)
        if (__builtin_mul_overflow(size, (uint64_t)t->dims[d], &size)) return false;
    *out = size;
    return true;
}

struct cop_safetensors {
    char *bytes;
    cop_tensor_entry *tensors;
    size_t count, capacity;
    char **keys, **values; /* keys and values of the metadata */
    size_t metadata_count, metadata_capacity;
};

typedef struct json {
    const char *at, *end;
    bool no_memory; /* parsing failed for lack of memory */
} json;

static void skip_blanks(json *j) {
    while (j->at < j->end && *j->at && strchr(" \t\r\n", *j->at)) j->at++;
}

static bool take(json *j, char c) {
    skip_blanks(j);
    if (j->at == j->end || *j->at != c) return false;
    j->at++;
    return true;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void append_code(cop_str *out, unsigned code) {
    char b[4];
    if (code < 0x80) {
        b[0] = (char)code;
        cop_str_append_bytes(out, b, 1);
    } else if (code < 0x800) {
        b[0] = (char)(0xc0 | code >> 6);
        b[1] = (char)(0x80 | (code & 63));
        cop_str_append_bytes(out, b, 2);
    } else if (code >= 0x10000) {
        b[0] = (char)(0xf0 | code >> 18);
        b[1] = (char)(0x80 | (code >> 12 & 63));
        b[2] = (char)(0x80 | (code >> 6 & 63));
        b[3] = (char)(0x80 | (code & 63));
        cop_str_append_bytes(out, b, 4);
    } else {
        b[0] = (char)(0xe0 | code >> 12);
        b[1] = (char)(0x80 | (code >> 6 & 63));
        b[2] = (char)(0x80 | (code & 63));
        cop_str_append_bytes(out, b, 3);
    }
}

/* Parses four hexadecimal digits. */
static bool take_hex(json *j, unsigned *out) {
    if (j->end - j->at < 4) return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        const int d = hex_digit(*j->at++);
        if (d < 0) return false;
        *out = *out << 4 | (unsigned)d;
    }
    return true;
}

static bool take_null(json *j) {
    skip_blanks(j);
    if (j->end - j->at < 4 || memcmp(j->at, "null", 4) != 0) return false;
    j->at += 4;
    return true;
}

static bool take_escape(json *j, cop_str *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (j->at == j->end) return false;
    char c = *j->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        cop_str_append_bytes(out, &to[known - from], 1);
        return true;
    }
    unsigned code, low;
    if (c != 'u' || !take_hex(j, &code)) return false;
    if (code >= 0xd800 && code < 0xdc00) { /* first half of a surrogate pair */
        if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u') return false;
        j->at += 2;
        if (!take_hex(j, &low) || low < 0xdc00 || low >= 0xe000) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code == 0 || (code >= 0xdc00 && code < 0xe000)) {
        return false;
    }
    append_code(out, code);
    return true;
}

/* Parses a string and puts its text into `out`, whose old text it drops. */
static bool take_string(json *j, cop_str *out) {
    cop_str_clear(out);
    if (!take(j, '"')) return false;
    while (j->at < j->end && *j->at != '"') {
        if ((unsigned char)*j->at < 0x20) return false;
        if (*j->at == '\\') {
            j->at++;
            if (!take_escape(j, out)) return false;
        } else {
            cop_str_append_bytes(out, j->at++, 1);
        }
    }
    j->no_memory = j->no_memory || out->failed;
    return take(j, '"') && !out->failed;
}

static bool take_number(json *j, uint64_t *out) {
    skip_blanks(j);
    uint64_t value = 0;
    int digits = 0;
    for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++, digits++) {
        if (digits == 18) return false;
        value = value * 10 + (uint64_t)(*j->at - '0');
    }
    *out = value;
    return digits > 0;
}

/* Parses an array of up to `limit` numbers: [n, n, ...]. */
static bool take_numbers(json *j, uint64_t *out, int limit, int *count) {
    *count = 0;
    if (!take(j, '[')) return false;
    if (take(j, ']')) return true;
    do {
        if (*count == limit || !take_number(j, &out[(*count)++])) return false;
    } while (take(j, ','));
    return take(j, ']');
}

static bool take_tensor(json *j, cop_tensor_entry *t, uint64_t offsets[2]) {
    cop_str word = {0};
    uint64_t numbers[COP_TENSOR_RANK_MAX];
    int count, seen = 0;
    bool good = take(j, '{');
    while (good) {
        good = take_string(j, &word) && take(j, ':');
        if (!good) break;
        if (strcmp(cop_str_text(&word), "dtype") == 0) {
            good = take_string(j, &word) && word.length < sizeof t->dtype;
            if (good) snprintf(t->dtype, sizeof t->dtype, "%s", cop_str_text(&word));
            seen |= 1;
        } else if (strcmp(cop_str_text(&word), "shape") == 0) {
            good = take_numbers(j, numbers, COP_TENSOR_RANK_MAX, &count);
            t->rank = count;
            for (int i = 0; good && i < count; i++) t->dims[i] = (int64_t)numbers[i];
            seen |= 2;
        } else if (strcmp(cop_str_text(&word), "data_offsets") == 0) {
            good = take_numbers(j, offsets, 2, &count) && count == 2;
            seen |= 4;
        } else {
            good = false;
        }
        if (!good || !take(j, ',')) break;
    }
    good = good && take(j, '}') && seen == 7;
    cop_str_fini(&word);
    return good;
}

static bool add_metadata(cop_safetensors *f, const char *key, const char *value) {
    COP_ASSERT(f->metadata_count <= f->metadata_capacity && f->metadata_count < METADATA_MAX);
    if (f->metadata_count == f->metadata_capacity) {
        size_t capacity = f->metadata_capacity ? f->metadata_capacity * 2 : 8;
        char **keys = cop_realloc(f->keys, capacity * sizeof *keys);
        if (keys) f->keys = keys;
        char **values = keys ? cop_realloc(f->values, capacity * sizeof *values) : NULL;
        if (values) f->values = values;
        if (!keys || !values) return false;
        f->metadata_capacity = capacity;
    }
    char *k = cop_strdup(key), *v = cop_strdup(value);
    if (!k || !v) {
        cop_free(k);
        cop_free(v);
        return false;
    }
    f->keys[f->metadata_count] = k;
    f->values[f->metadata_count++] = v;
    return true;
}

static bool take_metadata(json *j, cop_safetensors *f) {
    cop_str key = {0}, value = {0};
    if (take_null(j)) return true;
    bool good = take(j, '{');
    if (good && take(j, '}')) return true;
    while (good) {
        good = take_string(j, &key) && take(j, ':') && take_string(j, &value) &&
               f->metadata_count < METADATA_MAX;
        if (!good) break;
        good = add_metadata(f, cop_str_text(&key), cop_str_text(&value));
        j->no_memory = j->no_memory || !good;
        if (!good || !take(j, ',')) break;
    }
    good = good && take(j, '}');
    cop_str_fini(&key);
    cop_str_fini(&value);
    return good;
}

static bool add_tensor(json *j, cop_safetensors *f, const cop_tensor_entry *t) {
    COP_ASSERT(f->count <= f->capacity && f->count < TENSORS_MAX);
    if (f->count == f->capacity) {
        size_t capacity = f->capacity ? f->capacity * 2 : 16;
        cop_tensor_entry *tensors = cop_realloc(f->tensors, capacity * sizeof *tensors);
        j->no_memory = !tensors;
        if (!tensors) return false;
        f->tensors = tensors;
        f->capacity = capacity;
    }
    f->tensors[f->count++] = *t;
    return true;
}

/* A file that is being decoded. */
typedef struct reader {
    cop_safetensors *file;
    json json;        /* the rest of the header */
    const char *data; /* the bytes of all tensors */
    uint64_t data_size;
    const char *what; /* names the file in errors */
    cop_error *error;
} reader;

/* Checks a tensor's size and offsets against its shape, its dtype and the size of the data. Sets
 * its data and size. */
static cop_err check_tensor(const reader *r, cop_tensor_entry *t, const uint64_t offsets[2]) {
    uint64_t size;
    if (!safetensors_dtype_size(t->dtype))
        return cop_fail(r->error, COP_ERR_CORRUPT, "%s: tensor %s has the unknown dtype \"%s\"",
                        r->what, t->name, t->dtype);
    if (!safetensors_tensor_bytes(t, &size))
        return cop_fail(r->error, COP_ERR_CORRUPT, "%s: tensor %s is too large", r->what, t->name);
    if (offsets[1] < offsets[0] || offsets[1] - offsets[0] != size || offsets[1] > r->data_size)
        return cop_fail(r->error, COP_ERR_CORRUPT,
                        "%s: tensor %s has the data_offsets %llu to %llu: expected %llu bytes "
                        "within the %llu bytes of data",
                        r->what, t->name, (unsigned long long)offsets[0],
                        (unsigned long long)offsets[1], (unsigned long long)size,
                        (unsigned long long)r->data_size);
    t->data = r->data + offsets[0];
    t->size = size;
    return COP_OK;
}

static int compare_offsets(const void *a, const void *b) {
    const cop_tensor_entry *x = *(const cop_tensor_entry *const *)a;
    const cop_tensor_entry *y = *(const cop_tensor_entry *const *)b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* Checks that each byte of the data belongs to exactly one tensor. The header may list the tensors
 * in any order. */
static cop_err check_cover(const reader *r) {
    const cop_safetensors *f = r->file;
    const cop_tensor_entry **order = cop_alloc_array(f->count + 1, sizeof *order);
    const char *end = r->data;
    cop_err e = order ? COP_OK : cop_no_memory(r->error);
    for (size_t i = 0; i < f->count && !e; i++) order[i] = &f->tensors[i];
    if (!e) qsort(order, f->count, sizeof *order, compare_offsets);
    for (size_t i = 0; i < f->count && !e; i++) {
        if ((const char *)order[i]->data != end)
            e = cop_fail(r->error, COP_ERR_CORRUPT,
                         "%s: tensor %s begins at byte %lld of the data: expected %lld, where the "
                         "previous tensor ends",
                         r->what, order[i]->name,
                         (long long)((const char *)order[i]->data - r->data),
                         (long long)(end - r->data));
        end = (const char *)order[i]->data + order[i]->size;
    }
    if (!e && end != r->data + r->data_size)
        e = cop_fail(r->error, COP_ERR_CORRUPT,
                     "%s has %llu bytes of data: its header describes %lld", r->what,
                     (unsigned long long)r->data_size, (long long)(end - r->data));
    cop_free(order);
    return e;
}

static cop_err check_name(const reader *r, const cop_str *name) {
    const cop_safetensors *f = r->file;
    const cop_tensor_entry *entry = NULL;
    if (name->length >= sizeof entry->name)
        return cop_fail(r->error, COP_ERR_LIMIT,
                        "%s: a tensor name has %zu bytes: the limit is %zu", r->what, name->length,
                        sizeof entry->name - 1);
    if (f->count == TENSORS_MAX)
        return cop_fail(r->error, COP_ERR_LIMIT, "%s has too many tensors: the limit is %d",
                        r->what, TENSORS_MAX);
    if (cop_safetensors_find(f, cop_str_text(name)))
        return cop_fail(r->error, COP_ERR_CORRUPT, "%s has tensor %s twice", r->what,
                        cop_str_text(name));
    return COP_OK;
}

/* Parses the header into r->file and checks it. */
static cop_err read_header(reader *r) {
    json *j = &r->json;
    cop_str name = {0};
    cop_err e = take(j, '{') ? COP_OK : COP_ERR_CORRUPT;
    bool more = !e && !take(j, '}');
    while (!e && more) {
        cop_tensor_entry t = {0};
        uint64_t offsets[2] = {0};
        bool good = take_string(j, &name) && take(j, ':');
        if (good && strcmp(cop_str_text(&name), "__metadata__") == 0) {
            good = take_metadata(j, r->file);
        } else if (good) {
            e = check_name(r, &name);
            snprintf(t.name, sizeof t.name, "%s", cop_str_text(&name));
            good = !e && take_tensor(j, &t, offsets);
            if (good) e = check_tensor(r, &t, offsets);
            if (good && !e) good = add_tensor(j, r->file, &t);
        }
        if (!good && !e) e = COP_ERR_CORRUPT;
        more = !e && take(j, ',');
        if (!e && !more && !take(j, '}')) e = COP_ERR_CORRUPT;
    }
    skip_blanks(j);
    cop_str_fini(&name);
    COP_ASSERT(j->at <= j->end);
    if (!e && j->at != j->end) e = COP_ERR_CORRUPT;
    if (j->no_memory) return cop_no_memory(r->error);
    if (e && r->error->code != e) cop_fail(r->error, e, "%s: the header is damaged", r->what);
    return e ? e : check_cover(r);
}

/* Decodes the bytes of a file. Takes ownership of `bytes`, also if it fails. */
static cop_err decode(char *bytes, size_t size, const char *what, cop_safetensors **out,
                      cop_error *error) {
    cop_error local = {0};
    uint64_t header = size >= 8 ? cop_load_u64(bytes) : 0;
    if (size < 8 || header > HEADER_MAX || header > size - 8) {
        const char *kind = cop_file_kind(bytes, size);
        cop_free(bytes);
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is not a safetensors file, or it is truncated: it is %s", what, kind);
    }
    cop_safetensors *f = cop_alloc(sizeof *f);
    if (!f) {
        cop_free(bytes);
        return cop_no_memory(error);
    }
    f->bytes = bytes;
    reader r = {.file = f,
                .json = {bytes + 8, bytes + 8 + header, false},
                .data = bytes + 8 + header,
                .data_size = size - 8 - header,
                .what = what,
                .error = &local};
    cop_err e = read_header(&r);
    if (e) {
        if (error) *error = local;
        cop_safetensors_close(f);
        return e;
    }
    *out = f;
    return COP_OK;
}

cop_err cop_safetensors_open(const char *path, cop_safetensors **out, cop_error *error) {
    char *bytes;
    size_t size;
    COP_TRY(cop_file_read(path, FILE_MAX, &bytes, &size, error));
    return decode(bytes, size, path, out, error);
}

cop_err cop_safetensors_decode(const void *bytes, size_t size, const char *what,
                               cop_safetensors **out, cop_error *error) {
    char *copy = cop_alloc_raw(size + 1);
    if (!copy) return cop_no_memory(error);
    memcpy(copy, bytes, size);
    return decode(copy, size, what, out, error);
}

void cop_safetensors_close(cop_safetensors *f) {
    if (!f) return;
    for (size_t i = 0; i < f->metadata_count; i++) {
        cop_free(f->keys[i]);
        cop_free(f->values[i]);
    }
    cop_free(f->keys);
    cop_free(f->values);
    cop_free(f->tensors);
    cop_free(f->bytes);
    cop_free(f);
}

size_t cop_safetensors_count(const cop_safetensors *f) {
    return f->count;
}

const cop_tensor_entry *cop_safetensors_at(const cop_safetensors *f, size_t index) {
    return index < f->count ? &f->tensors[index] : NULL;
}

const cop_tensor_entry *cop_safetensors_find(const cop_safetensors *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->tensors[i].name, name) == 0) return &f->tensors[i];
    return NULL;
}

const char *cop_safetensors_metadata(const cop_safetensors *f, const char *key) {
    for (size_t i = 0; i < f->metadata_count; i++)
        if (strcmp(f->keys[i], key) == 0) return f->values[i];
    return NULL;
}
