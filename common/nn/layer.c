/* Shapes of samples, and the lookup of layer kinds by name. */
#include <stdio.h>
#include <string.h>

#include "common/nn/layer.h"

int64_t cop_shape_size(const cop_shape *shape) {
    COP_ASSERT(shape->rank >= 1 && shape->rank <= 4);
    int64_t size = 1;
    for (int i = 0; i < shape->rank; i++) size *= shape->dims[i];
    return size;
}

const char *cop_shape_format(const cop_shape *shape, char out[64]) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < shape->rank && i < 4; i++)
        used +=
            (size_t)snprintf(out + used, 64 - used, "%s%d", i ? " x " : "", (int)shape->dims[i]);
    COP_ASSERT(used < 64);
    return out;
}

const cop_layer_ops *cop_layer_find(const char *kind) {
    for (const cop_layer_ops *const *ops = cop_layer_registry(); *ops; ops++)
        if (strcmp((*ops)->kind, kind) == 0) return *ops;
    return NULL;
}
