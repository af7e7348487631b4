/* Reads and writes safetensors files, the format of models and optimizer states. A file has the
 * length of the header as a u64, the header in JSON, and the raw little-endian tensors. Reading
 * checks everything: the length and the syntax of the header, dtypes, shapes, the size of the file,
 * and that the tensors cover the data without gaps or overlap. */
#ifndef COP_INTERCHANGE_SAFETENSORS_H
#define COP_INTERCHANGE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum { COP_TENSOR_RANK_MAX = 8 };

/* One tensor. In a file to be written, the caller owns `data`; in a file that was read, `data`
 * points into the open file. */
typedef struct cop_tensor_entry {
    char name[128];
    char dtype[8]; /* "F32", "U8", "I64" or another name of the format */
    int32_t rank;
    int64_t dims[COP_TENSOR_RANK_MAX];
    const void *data;
    size_t size; /* bytes */
} cop_tensor_entry;

typedef struct cop_metadata {
    const char *key, *value;
} cop_metadata;

/* The content of a file to be written. The tensors keep their order. The metadata go into the
 * header under "__metadata__". All pointers are borrowed. */
typedef struct cop_safetensors_content {
    const cop_tensor_entry *tensors;
    size_t count;
    const cop_metadata *metadata;
    size_t metadata_count;
} cop_safetensors_content;

/* Writes a file atomically, as cop_file_write does. Spaces after the header make the tensors begin
 * at a multiple of 64 bytes. Equal content gives equal bytes. Each tensor's size must match its
 * dtype and shape. Fails with NO_MEMORY or an error of cop_file_write. */
cop_err cop_safetensors_write(const char *path, const cop_safetensors_content *content,
                              cop_error *error);
/* Makes the bytes of such a file in memory. The caller frees *out with cop_free. */
cop_err cop_safetensors_encode(const cop_safetensors_content *content, char **out, size_t *size,
                               cop_error *error);

/* An open file. It owns its tensors, names and metadata; pointers to them are valid until it is
 * closed. Any number of threads may read it. */
typedef struct cop_safetensors cop_safetensors;
/* Reads and checks a whole file. Fails with CORRUPT if it is damaged or is not a safetensors file,
 * with LIMIT if it has too many tensors or too long names, with NO_MEMORY, or with an error of the
 * file system; then *out is unchanged. */
cop_err cop_safetensors_open(const char *path, cop_safetensors **out, cop_error *error);
/* The same for the bytes of a file in memory, which it copies. `what` names them in errors. */
cop_err cop_safetensors_decode(const void *bytes, size_t size, const char *what,
                               cop_safetensors **out, cop_error *error);
/* Closes the file and frees it. NULL has no effect. */
void cop_safetensors_close(cop_safetensors *file);
/* The number of tensors. */
size_t cop_safetensors_count(const cop_safetensors *file);
/* The tensor `index` in the order of the header, from 0. Returns NULL if there is no such tensor.
 */
const cop_tensor_entry *cop_safetensors_at(const cop_safetensors *file, size_t index);
const cop_tensor_entry *cop_safetensors_find(const cop_safetensors *file,
                                             const char *name); /* NULL if absent */
const char *cop_safetensors_metadata(const cop_safetensors *file,
                                     const char *key); /* NULL if absent */

#endif
