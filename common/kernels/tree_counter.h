/* The tree of D5 as a binary counter. Leaves come one by one, and their values wait on a stack.
 * Each push returns how many times to add the top two values. Shared by the kernels (segments of a
 * product) and tree.c (programs over whole buffers). */
#ifndef COP_KERNELS_TREE_COUNTER_H
#define COP_KERNELS_TREE_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cop_tree_counter {
    uint32_t leaf;    /* number of the next leaf */
    uint32_t waiting; /* bit l: a node of 2^l leaves on the stack waits for its right neighbour */
    int depth;        /* values on the stack */
} cop_tree_counter;

/* Counts the next leaf; if it is present, its value is on top of the stack. Returns how many
 * additions of the top two values (the left one below the right one) to do now. An absent node
 * passes the other side through. `depth` counts the pushed leaf; the caller lowers it by one per
 * addition. After the last leaf, add the remaining values from the top down. */
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
