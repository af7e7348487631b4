/* The registry of layers, from the list in kinds.h. */
#include "common/nn/layers/kinds.h"

#define ROW(kind) &cop_layer_##kind,
static const cop_layer_ops *const registry[] = {COP_LAYER_KINDS(ROW) NULL};
#undef ROW

const cop_layer_ops *const *cop_layer_registry(void) {
    return registry;
}
