/* A model as PyTorch modules in Python's words: what each layer says of itself
 * (cop_layer_ops.torch), for common/interchange/torch.c to put into a file. Numbers and names of
 * classes only: nothing that came from outside is ever printed here. */
#ifndef COP_NN_TORCH_H
#define COP_NN_TORCH_H

#include "common/base/str.h"
#include "common/nn/layer.h"

enum { COP_TORCH_CLASSES = 16 };

struct cop_torch {
    cop_str text; /* of the module that is being printed: "nn.Linear(784, 10)" */
    const char *classes[COP_TORCH_CLASSES]; /* sources of the classes in use, each once */
    int class_count;
};

void cop_torch_print(cop_torch *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The shortest decimal that Python reads as the same double. */
void cop_torch_real(cop_torch *out, double value);
/* "name=value", with a comma before: for an argument that follows others. */
void cop_torch_flag(cop_torch *out, const char *name, bool value);
/* The module is of a class that PyTorch does not have; `source` lives for ever. */
void cop_torch_class(cop_torch *out, const char *source);

#endif
