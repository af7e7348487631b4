/* Sizes of tensors, for the reader and the writer of safetensors files. */
#ifndef COP_INTERCHANGE_SAFETENSORS_TENSOR_H
#define COP_INTERCHANGE_SAFETENSORS_TENSOR_H

#include <stdbool.h>

#include "common/interchange/safetensors.h"

/* Bytes of one element; 0 for an unknown dtype. */
size_t safetensors_dtype_size(const char *dtype);
/* Sets *out to the number of bytes that a tensor of t's dtype and shape has; 0 for an unknown
 * dtype. Returns false if that number overflows. */
bool safetensors_tensor_bytes(const cop_tensor_entry *t, uint64_t *out);

#endif
