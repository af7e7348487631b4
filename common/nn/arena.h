/* Lays out many arrays in one block of memory. The caller writes one function that places all
 * arrays and runs it twice: first with base NULL, which only measures the block, then with the
 * allocated block. */
#ifndef COP_NN_ARENA_H
#define COP_NN_ARENA_H

#include "common/base/bytes.h"
#include "common/base/err.h"

typedef struct cop_arena_layout {
    char *base;  /* the block, aligned to 64 bytes; NULL: only measure */
    size_t used; /* bytes of the block that are in use so far */
} cop_arena_layout;

/* Reserves `count` elements of `size` bytes each, aligned to 64 bytes, and returns their address.
 * While measuring, returns NULL. */
static inline void *cop_arena_place(cop_arena_layout *a, size_t count, size_t size) {
    COP_ASSERT(size > 0 && ((uintptr_t)a->base + a->used) % 64 == 0);
    void *piece = a->base ? a->base + a->used : NULL;
    a->used += cop_align_up(count * size, 64);
    return piece;
}

#endif
