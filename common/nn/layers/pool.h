/* What the two kinds of pooling share: shapes. For max_pool2d.c and avg_pool2d.c. */
#ifndef COP_NN_LAYERS_POOL_H
#define COP_NN_LAYERS_POOL_H

#include "common/nn/layer.h"

/* Output shape of windows of kernel x kernel pixels, `stride` (0: kernel) apart, none over the
 * edge: (size - kernel) / stride + 1, rounded down. INPUT with a sentence when none fits, or the
 * kernel is above kernel_max. */
cop_err cop_pool_shape(cop_layer *layer, int kernel_max, cop_error *error);
cop_pool cop_pool_of(const cop_layer *layer, int ld);
/* By ONNX's operator `op` and PyTorch's module `nn.<module>`. */
cop_value cop_pool_graph(const cop_layer *layer, cop_graph *g, cop_value x, const char *op);
void cop_pool_torch(const cop_layer *layer, cop_torch *out, const char *module);

#endif
