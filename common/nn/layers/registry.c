/* The registry of layers: one row per kind, in the order of docs/LAYERS.md. */
#include "common/nn/layers/kinds.h"

static const cop_layer_ops *const registry[] = {
    &cop_layer_linear, &cop_layer_relu, &cop_layer_dropout, &cop_layer_flatten, NULL,
};

const cop_layer_ops *const *cop_layer_registry(void) {
    return registry;
}
