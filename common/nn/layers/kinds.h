/* The kinds of layers, one per file of this folder; for the registry alone. Everyone else asks
 * cop_layer_find. */
#ifndef COP_NN_LAYERS_KINDS_H
#define COP_NN_LAYERS_KINDS_H

#include "common/nn/layer.h"

extern const cop_layer_ops cop_layer_linear;
extern const cop_layer_ops cop_layer_relu;
extern const cop_layer_ops cop_layer_dropout;
extern const cop_layer_ops cop_layer_flatten;

#endif
