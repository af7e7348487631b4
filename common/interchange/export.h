/* Models in the words of other programs: what `coppice export` writes besides safetensors. */
#ifndef COP_INTERCHANGE_EXPORT_H
#define COP_INTERCHANGE_EXPORT_H

#include "common/base/str.h"
#include "common/nn/model.h"

/* A trained model, and what its file says of it. All is borrowed. */
typedef struct cop_export {
    const cop_model *model;
    const float *weights;
    cop_shape sample;  /* as the data set has it, before the job's own preparation */
    const char *input; /* what a caller must do to a sample before the model sees it, for people */
    const char *name, *digest;
    uint64_t step;
    const char *yaml; /* the job file */
    const char *const *class_names;
    size_t class_count; /* 0: classes have only their numbers */
} cop_export;

/* An ONNX file, written atomically. LIMIT: the model is larger than such a file can be. */
cop_err cop_export_onnx(const cop_export *model, const char *path, cop_error *error);
/* The text of a Python file that builds the model in PyTorch and loads the weights from the file
 * beside it: the same name with .safetensors for .py. */
void cop_export_torch(const cop_export *model, cop_str *out);

#endif
