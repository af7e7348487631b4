/* The tree of D5 as a binary counter: leaves come one by one, values wait on a stack, and each push
 * says how many times the top two values are to be added. Shared by the kernels (segments of a
 * product) and tree.c (programs over whole buffers). */
#ifndef COP_KERNELS_TREE_COUNTER_H
#define COP_KERNELS_TREE_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cop_tree_counter {
    uint32_t leaf;    /* number of the next leaf */
    uint32_t waiting; /* bit l: a node of 2^l leaves waits on the stack for its right neighbour */
    int depth;        /* values on the stack */
} cop_tree_counter;

/* The next leaf, on top of the stack if present. Returns the number of additions of the top two
 * (left below right) to do now; an absent node passes the other side through. `depth` counts the
 * pushed leaf; the caller lowers it by one per addition. When all leaves are in, the values left
 * are added from the top down. */
static inline int cop_tree_counter_push(cop_tree_counter *counter, bool present) {
    int merges = 0;
    uint32_t level = 0;
    counter->depth += present;
    for (; counter->leaf >> level & 1; level++) {
        const bool left = counter->waiting >> level & 1;
        merges += present && left;
        present = present || left;
        counter->waiting &= ~(1u << level);
    }
    counter->waiting |= (uint32_t)present << level;
    counter->leaf++;
    return merges;
}

#endif
