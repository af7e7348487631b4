/* The tree of D5 as a binary counter: leaves are pushed one by one, values wait on a stack, and
 * each push returns how many times the top two values must be added. Shared by shards.c (programs
 * over whole buffers) and the kernels (segments of a product). */
#ifndef COP_BASE_TREE_COUNTER_H
#define COP_BASE_TREE_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cop_tree_counter {
    uint32_t leaf;    /* number of the next leaf */
    uint32_t waiting; /* bit l: a node of 2^l leaves on the stack waits for its right neighbour */
    int depth;        /* values on the stack */
} cop_tree_counter;

/* Counts the next leaf and, if present, pushes it on the stack. Returns the number of additions of
 * the top two values (left below right) to do now; an absent node passes the other side through.
 * `depth` counts the pushed leaf; the caller decrements it for each addition. After the last leaf,
 * the caller adds the remaining values from the top down. */
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
