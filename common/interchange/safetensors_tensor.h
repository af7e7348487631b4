/* Sizes of tensors, for the reader and the writer of safetensors files. */
#ifndef COP_INTERCHANGE_SAFETENSORS_TENSOR_H
#define COP_INTERCHANGE_SAFETENSORS_TENSOR_H

#include <stdbool.h>

#include "common/interchange/safetensors.h"

/* Bytes of one element; 0 for an unknown dtype. */
size_t safetensors_dtype_size(const char *dtype);
/* The bytes that a tensor's dtype and shape need. Returns false if they overflow. */
bool safetensors_tensor_bytes(const cop_tensor_entry *t, uint64_t *out);

#endif
