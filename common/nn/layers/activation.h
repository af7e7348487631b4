/* Helpers for the activation layers sigmoid, tanh, leaky_relu, selu and gelu. The forward function
 * of each is one call of the kernel `activate`, its backward function one call of
 * `activate_backward`. */
#ifndef COP_NN_LAYERS_ACTIVATION_H
#define COP_NN_LAYERS_ACTIVATION_H

#include "common/nn/layer.h"

/* A `shape` function: the output has the shape of the input. */
static inline cop_err cop_activation_shape(cop_layer *layer, cop_error *error) {
    (void)error;
    layer->out = layer->in;
    return COP_OK;
}

/* The number of values in the input tensor, with its padding columns. */
static inline size_t cop_activation_values(const cop_layer *layer, const cop_layer_context *c) {
    return (size_t)cop_shape_size(&layer->in) * (size_t)c->ld;
}

static inline double cop_activation_flop(const cop_layer *layer) {
    return (double)cop_shape_size(&layer->in);
}

static inline void cop_activation_forward(cop_activation f, const cop_layer *layer,
                                          const cop_layer_context *c, const float *x, float *y) {
    c->kernels->activate(f, (float)layer->spec.slope, x, y, cop_activation_values(layer, c));
}

/* The kernel computes the derivative from the input for gelu, and from the output for all
 * others. */
static inline void cop_activation_backward(cop_activation f, const cop_layer *layer,
                                           const cop_layer_context *c, const cop_layer_tensors *t) {
    const float *from = f == COP_ACTIVATION_GELU ? t->x : t->y;
    COP_ASSERT(from && t->dy);
    if (t->dx)
        c->kernels->activate_backward(f, (float)layer->spec.slope, from, t->dy, t->dx,
                                      cop_activation_values(layer, c));
}

#endif
