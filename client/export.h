/* Models in the words of other programs: what `coppice export` writes besides safetensors. */
#ifndef COP_CLIENT_EXPORT_H
#define COP_CLIENT_EXPORT_H

#include "client/cli.h"

/* What a caller must do to a sample before the exported model sees it, for people. */
const char *cli_export_input(const cop_job *job);
/* An ONNX file, written atomically. LIMIT: the model is larger than such a file can be. */
cop_err cli_export_onnx(const cli_model *model, const char *path, cop_error *error);
/* A Python file that builds the model in PyTorch, and the weights beside it: the same name with
 * .safetensors for .py. Both or, unless they were there before, neither. */
cop_err cli_export_torch(const cli_model *model, const char *path, cop_error *error);

#endif
