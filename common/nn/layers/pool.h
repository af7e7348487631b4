/* Helpers for max_pool2d.c and avg_pool2d.c. */
#ifndef COP_NN_LAYERS_POOL_H
#define COP_NN_LAYERS_POOL_H

#include "common/nn/layer.h"

/* Computes the output shape for windows of kernel x kernel pixels at a distance of `stride` (0:
 * kernel). No window crosses the edge: (size - kernel) / stride + 1, rounded down. INPUT: no window
 * fits, or the kernel is larger than kernel_max. */
cop_err cop_pool_shape(cop_layer *layer, int kernel_max, cop_error *error);
/* The kernels' description of the layer, for tensors with this ld. */
cop_pool cop_pool_of(const cop_layer *layer, int ld);
/* The `graph` and `torch` functions, by ONNX's operator `op` and PyTorch's module `nn.<module>`. */
cop_value cop_pool_graph(const cop_layer *layer, cop_graph *g, cop_value x, const char *op);
void cop_pool_torch(const cop_layer *layer, cop_torch *out, const char *module);

#endif
