/* Many arrays in one block: a function that deals them out is run twice, first with base NULL to
 * measure the block, then on it. */
#ifndef COP_NN_CARVE_H
#define COP_NN_CARVE_H

#include "common/base/bytes.h"

typedef struct cop_carver {
    char *base;
    size_t used;
} cop_carver;

/* `count` elements of `size` bytes, 64-byte aligned; NULL while it measures. */
static inline void *cop_carve(cop_carver *c, size_t count, size_t size) {
    void *piece = c->base ? c->base + c->used : NULL;
    c->used += cop_align_up(count * size, 64);
    return piece;
}

#endif
