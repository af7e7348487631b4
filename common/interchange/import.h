/* Imports weights that another program trained. */
#ifndef COP_INTERCHANGE_IMPORT_H
#define COP_INTERCHANGE_IMPORT_H

#include "common/interchange/safetensors.h"
#include "common/nn/model.h"

/* Reads weights from a safetensors file into `flat`, which has cop_model_floats(model) values. The
 * tensors are f32, f16 or bf16. They must have the names and shapes of the model's parameters, and
 * none may be missing or extra. If all names begin with the same prefix, it is ignored, and the log
 * says so. Fails with INPUT if a tensor is missing or extra, has the wrong shape or type, or has a
 * value that is not finite; the error names the tensor, and `flat` is then undefined. Other errors
 * are those of cop_safetensors_open. */
cop_err cop_import_weights(const cop_model *model, const char *path, float *flat, cop_error *error);
/* The same for a file that is open already and stays open. `path` names it in errors. */
cop_err cop_import_tensors(const cop_model *model, const cop_safetensors *file, const char *path,
                           float *flat, cop_error *error);

#endif
