/* safetensors files: the format in which models and optimizer states are kept and exchanged: u64
 * length, JSON header, raw little-endian tensors. Reading checks everything against everything
 * (header length, JSON depth and size, dtypes, shapes, offsets without gaps or overlap, file size).
 */
#ifndef COP_INTERCHANGE_SAFETENSORS_H
#define COP_INTERCHANGE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

typedef struct cop_tensor_entry {
    char name[128];
    char dtype[8]; /* "F32", "U8", "I64", ... as in the format */
    int32_t rank;
    int64_t dims[8];
    const void *data;
    size_t size; /* bytes */
} cop_tensor_entry;

typedef struct cop_metadata {
    const char *key, *value;
} cop_metadata;

/* Writes atomically (cop_file_write); tensors in the order given; metadata under "__metadata__".
 * The header is padded with spaces to a multiple of 64 bytes. The same input gives the same bytes.
 */
cop_err cop_safetensors_write(const char *path, const cop_tensor_entry *tensors, size_t count,
                              const cop_metadata *metadata, size_t metadata_count,
                              cop_error *error);
/* The same into memory (cop_free). */
cop_err cop_safetensors_encode(const cop_tensor_entry *tensors, size_t count,
                               const cop_metadata *metadata, size_t metadata_count, char **out,
                               size_t *size, cop_error *error);

typedef struct cop_safetensors cop_safetensors;
cop_err cop_safetensors_open(const char *path, cop_safetensors **out, cop_error *error);
/* Takes a copy of the bytes. `what` names them in errors. */
cop_err cop_safetensors_decode(const void *bytes, size_t size, const char *what,
                               cop_safetensors **out, cop_error *error);
void cop_safetensors_close(cop_safetensors *file);
size_t cop_safetensors_count(const cop_safetensors *file);
const cop_tensor_entry *cop_safetensors_at(const cop_safetensors *file, size_t index);
const cop_tensor_entry *cop_safetensors_find(const cop_safetensors *file,
                                             const char *name); /* NULL: absent */
const char *cop_safetensors_metadata(const cop_safetensors *file,
                                     const char *key); /* NULL: absent */

#endif
