/* Imports weights that another program trained. */
#ifndef COP_INTERCHANGE_IMPORT_H
#define COP_INTERCHANGE_IMPORT_H

#include "common/interchange/safetensors.h"
#include "common/nn/model.h"

/* Reads weights from a safetensors file (f32, f16, bf16) into `flat`, cop_model_floats(model)
 * values. The tensors must have the model's names and shapes; none may be missing or extra. A
 * prefix that all names share is ignored. Fails with INPUT and names the tensor that is missing,
 * extra, misshapen or not finite; `flat` is then undefined. Other errors are those of
 * cop_safetensors_open. */
cop_err cop_import_weights(const cop_model *model, const char *path, float *flat, cop_error *error);
/* The same for an open file, which stays open; `path` names it in errors. */
cop_err cop_import_tensors(const cop_model *model, const cop_safetensors *file, const char *path,
                           float *flat, cop_error *error);

#endif
