/* The kinds of layers, in the order of docs/reference/layers.md. Each kind has one file in this
 * folder. A new kind adds one row here. Only files of this folder include this header; other code
 * calls cop_layer_find. */
#ifndef COP_NN_LAYERS_KINDS_H
#define COP_NN_LAYERS_KINDS_H

#include "common/nn/graph.h"
#include "common/nn/torch.h"

#define COP_LAYER_KINDS(X)                                                                         \
    X(linear)                                                                                      \
    X(relu)                                                                                        \
    X(dropout)                                                                                     \
    X(flatten)                                                                                     \
    X(maxout)                                                                                      \
    X(dropconnect)                                                                                 \
    X(spatial_dropout)                                                                             \
    X(gaussian_dropout)                                                                            \
    X(alpha_dropout)                                                                               \
    X(leaky_relu)                                                                                  \
    X(sigmoid)                                                                                     \
    X(tanh)                                                                                        \
    X(selu)                                                                                        \
    X(gelu)                                                                                        \
    X(softmax)                                                                                     \
    X(conv2d)                                                                                      \
    X(max_pool2d)                                                                                  \
    X(avg_pool2d)

#define COP_LAYER_DECLARE(kind) extern const cop_layer_ops cop_layer_##kind;
COP_LAYER_KINDS(COP_LAYER_DECLARE)
#undef COP_LAYER_DECLARE

#endif
