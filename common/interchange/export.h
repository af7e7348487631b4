/* Exports models to the formats of other programs besides safetensors: ONNX and PyTorch. */
#ifndef COP_INTERCHANGE_EXPORT_H
#define COP_INTERCHANGE_EXPORT_H

#include "common/base/str.h"
#include "common/nn/model.h"

/* A trained model and the description that its file carries. Everything is borrowed. */
typedef struct cop_export {
    const cop_model *model;
    const float *weights; /* cop_model_floats long */
    cop_shape sample;     /* a sample's shape in the data set, before the job's own preparation */
    const char *input;    /* tells people how to prepare a sample before the model sees it */
    const char *name;     /* name of the job */
    const char *digest;   /* digest of the weights, in hexadecimal */
    uint64_t step;        /* completed steps */
    const char *yaml;     /* the job file */
    const char *const *class_names;
    size_t class_count; /* 0: classes have no names, only numbers */
} cop_export;

/* Writes an ONNX file atomically, as cop_file_write does. Fails with LIMIT if the file would be
 * larger than 2 GiB, with NO_MEMORY, or with an error of cop_file_write. */
cop_err cop_export_onnx(const cop_export *model, const char *path, cop_error *error);
/* Appends the text of a Python file that builds the model in PyTorch. The Python file loads the
 * weights from the file next to it whose name ends in .safetensors instead of .py. Sets out->failed
 * if there is no memory. */
void cop_export_torch(const cop_export *model, cop_str *out);

#endif
