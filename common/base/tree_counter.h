/* The summation tree of D5 (docs/reference/portable-1.md) as a binary counter. The caller pushes
 * the leaves one by one on a stack of values. Each push returns how many times the caller must then
 * replace the top two values by their sum. shards.c uses this for whole gradients, the kernels for
 * the shards inside a product. */
#ifndef COP_BASE_TREE_COUNTER_H
#define COP_BASE_TREE_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cop_tree_counter {
    uint32_t leaf;    /* number of the next leaf */
    uint32_t waiting; /* bit l is set if a node of 2^l leaves waits for its right neighbour */
    int depth;        /* number of values on the stack */
} cop_tree_counter;

/* Counts the next leaf. If it is `present`, the caller pushes its value, and `depth` already counts
 * that value. Returns the number of additions that the caller must do now: each replaces the top
 * two values by their sum (the upper value is the right one), and the caller decrements `depth`. If
 * one child of a node has no present leaf, the node's value is that of the other child, without an
 * addition. After the last leaf, the caller adds the remaining values, from the top of the stack
 * down. */
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
