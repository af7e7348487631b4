/* Names of classes. The digest of a set covers the pack only (data.h). In a file, the names follow
 * the pack in a trailer that has a hash of its own. The trailer consists of:
 *
 *  - "COPNAMES";
 *  - u32 number of names;
 *  - u32 number of bytes of all names, with their zero bytes;
 *  - u64 XXH3 of these bytes;
 *  - the names, each with a zero byte at its end. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/data/pack.h"

#define HEAD 24

bool cop_class_names_ok(const char *const *names, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(names[i]);
        if (length > COP_CLASS_NAME_MAX || !cop_name_ok(names[i], length)) return false;
        total += length + 1;
        if (total > COP_CLASS_NAMES_BYTES) return false;
    }
    return true;
}

const char *cop_data_class(const cop_data *data, int32_t number, char out[16]) {
    if (data->class_names && number >= 0 && number < data->classes)
        return data->class_names[number];
    snprintf(out, 16, "%d", number);
    return out;
}

/* Copies the names into one block of memory, which holds the pointers, then the texts. NULL: out of
 * memory. */
static char **copy_names(const char *const *names, size_t count) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += strlen(names[i]) + 1;
    char **out = cop_alloc(count * sizeof *out + bytes);
    char *at = out ? (char *)(out + count) : NULL;
    for (size_t i = 0; out && i < count; i++) {
        const size_t length = strlen(names[i]) + 1;
        out[i] = memcpy(at, names[i], length);
        at += length;
    }
    return out;
}

cop_err cop_data_name_classes(cop_data *data, const char *const *names, size_t count,
                              cop_error *error) {
    cop_free(data->class_names);
    data->class_names = NULL;
    if (!cop_class_names_ok(names, count)) {
        cop_log(COP_LOG_WARN, "data",
                "%s: the class names are ignored, and classes have only numbers: expected names in "
                "UTF-8 of at most %d bytes each and %d in total",
                data->name, COP_CLASS_NAME_MAX, COP_CLASS_NAMES_BYTES);
        return COP_OK;
    }
    data->class_names = copy_names(names, count);
    return data->class_names ? COP_OK : cop_no_memory(error);
}

cop_err pack_write_names(const char *const *names, size_t count, char **out, size_t *size,
                         cop_error *error) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += strlen(names[i]) + 1;
    char *trailer = cop_alloc(HEAD + bytes), *at = trailer ? trailer + HEAD : NULL;
    if (!trailer) return cop_no_memory(error);
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(names[i]) + 1;
        memcpy(at, names[i], length);
        at += length;
    }
    memcpy(trailer, "COPNAMES", 8);
    cop_store_u32(trailer + 8, (uint32_t)count);
    cop_store_u32(trailer + 12, (uint32_t)bytes);
    cop_store_u64(trailer + 16, cop_hash_xxh3(trailer + HEAD, bytes));
    *out = trailer;
    *size = HEAD + bytes;
    return COP_OK;
}

/* Are these bytes an undamaged trailer with `classes` names? */
static bool is_trailer(const char *bytes, size_t size, size_t classes) {
    if (size < HEAD || memcmp(bytes, "COPNAMES", 8) != 0) return false;
    const size_t length = size - HEAD;
    if (cop_load_u32(bytes + 8) != classes || cop_load_u32(bytes + 12) != length) return false;
    if (!length || length > COP_CLASS_NAMES_BYTES || bytes[size - 1]) return false;
    size_t count = 0;
    for (size_t i = HEAD; i < size; i++) count += !bytes[i];
    return count == classes && cop_load_u64(bytes + 16) == cop_hash_xxh3(bytes + HEAD, length);
}

cop_err pack_read_names(cop_data *data, const char *bytes, size_t size, cop_error *error) {
    const size_t count = (size_t)data->classes;
    if (!is_trailer(bytes, size, count))
        return cop_fail(error, COP_ERR_CORRUPT, "%s: the class names are damaged", data->name);
    const char **names = cop_alloc_array(count, sizeof *names), *at = bytes + HEAD;
    if (!names) return cop_no_memory(error);
    for (size_t i = 0; i < count; i++, at += strlen(at) + 1) names[i] = at;
    cop_err e = cop_class_names_ok(names, count)
                    ? cop_data_name_classes(data, names, count, error)
                    : cop_fail(error, COP_ERR_CORRUPT, "%s: a class name is not UTF-8", data->name);
    cop_free(names);
    return e;
}
