/* Weights that were trained elsewhere. */
#ifndef COP_INTERCHANGE_IMPORT_H
#define COP_INTERCHANGE_IMPORT_H

#include "common/interchange/safetensors.h"
#include "common/nn/model.h"

/* Weights from any safetensors file (f32, f16, bf16) whose tensors have the model's names and
 * shapes, all of them and no others. INPUT says what is missing, extra, misshapen or not finite. */
cop_err cop_import_weights(const cop_model *model, const char *path, float *flat, cop_error *error);
/* The same of a file that is open; `path` names it in errors. */
cop_err cop_import_tensors(const cop_model *model, const cop_safetensors *file, const char *path,
                           float *flat, cop_error *error);

#endif
