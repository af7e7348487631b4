/* Helpers for max_pool2d.c and avg_pool2d.c. */
#ifndef COP_NN_LAYERS_POOL_H
#define COP_NN_LAYERS_POOL_H

#include "common/nn/layer.h"

/* Computes the output shape for windows of kernel x kernel pixels. Neighbouring windows start
 * `stride` pixels apart, or `kernel` pixels if stride is 0. No window crosses the edge, so an edge
 * of `size` pixels has (size - kernel) / stride + 1 windows, rounded down. INPUT: the input is not
 * an image, no window fits, the kernel is larger than kernel_max, or the stride is negative. */
cop_err cop_pool_shape(cop_layer *layer, int kernel_max, cop_error *error);
/* The description of the layer that the pooling kernels take, for tensors with this ld. */
cop_pool cop_pool_of(const cop_layer *layer, int ld);
/* Do the work of the `graph` and `torch` functions. `op` is the operator of ONNX, and `module` the
 * class in PyTorch's nn. */
cop_value cop_pool_graph(const cop_layer *layer, cop_graph *g, cop_value x, const char *op);
void cop_pool_torch(const cop_layer *layer, cop_torch *out, const char *module);

#endif
