/* Lays out many arrays in one block of memory. The function that places them runs twice: first with
 * base NULL to measure the block, then with the allocated block. */
#ifndef COP_NN_ARENA_H
#define COP_NN_ARENA_H

#include "common/base/bytes.h"
#include "common/base/err.h"

typedef struct cop_arena_layout {
    char *base;
    size_t used;
} cop_arena_layout;

/* Reserves `count` elements of `size` bytes, aligned to 64 bytes. Returns NULL while measuring. */
static inline void *cop_arena_place(cop_arena_layout *a, size_t count, size_t size) {
    COP_ASSERT(size > 0 && ((uintptr_t)a->base + a->used) % 64 == 0);
    void *piece = a->base ? a->base + a->used : NULL;
    a->used += cop_align_up(count * size, 64);
    return piece;
}

#endif
