/* A model as Python source with PyTorch modules. Each layer prints its own expression
 * (cop_layer_ops.torch); common/interchange/torch.c writes the file. Only numbers and class names
 * are printed, never text from outside, which could be code. */
#ifndef COP_NN_TORCH_H
#define COP_NN_TORCH_H

#include "common/base/str.h"
#include "common/nn/layer.h"

enum { COP_TORCH_CLASSES = 16 };

struct cop_torch {
    cop_str text;                           /* the current module, such as "nn.Linear(784, 10)" */
    const char *classes[COP_TORCH_CLASSES]; /* the source code of each class that modules use */
    int class_count;
};

/* Appends formatted text of up to 255 bytes. */
void cop_torch_print(cop_torch *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends the shortest decimal that Python reads as the same double. */
void cop_torch_real(cop_torch *out, double value);
/* Appends a keyword argument that follows others: ", name=True" or ", name=False". */
void cop_torch_flag(cop_torch *out, const char *name, bool value);
/* Adds the source code of a class that PyTorch lacks, unless it is there already. `source` must be
 * static. */
void cop_torch_class(cop_torch *out, const char *source);

#endif
