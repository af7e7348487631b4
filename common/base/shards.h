/* How a batch is cut into shards (D2), and the tree that adds their gradients (D5). Pure functions
 * of the numbers of samples and shards; thread-safe. */
#ifndef COP_BASE_SHARDS_H
#define COP_BASE_SHARDS_H

#include <stdbool.h>
#include <stdint.h>

/* Returns the first sample of `shard` in a batch. The first (batch mod shards) shards have one
 * sample more than the others; with batch < shards, the last ones have none. `shard` may be
 * `shards`, which gives `batch`. */
uint32_t cop_shard_begin(uint32_t batch, uint32_t shards, uint32_t shard);
/* Fills sizes[0 .. shards) with the number of samples of each shard. */
void cop_shard_sizes(uint32_t batch, uint32_t shards, int32_t *sizes);

/* Returns the number of leaves of the left child of a node with `size` >= 2 leaves: the largest
 * power of two below `size`. */
uint32_t cop_tree_left(uint32_t size);
/* True: [first, first + size) is a node of the tree over `leaves` leaves. */
bool cop_tree_is_node(uint32_t leaves, uint32_t first, uint32_t size);
/* Writes the order of additions of leaves 0 .. count - 1 as a postfix program to ops, which has
 * room for 2 * count - 1: a number pushes that leaf, -1 adds the top two values. Returns the number
 * of ops. present[i] false: leaf i is absent and passed over. NULL: all are present. */
int cop_tree_build(int count, const bool *present, int16_t *ops);
/* The same for aligned blocks of leaves as inputs. Block i covers the leaves [first[i], first[i] +
 * size[i]); the blocks are in ascending order, without gaps, and cover all leaves. Each must be a
 * node of the tree (asserted). */
int cop_tree_build_blocks(int leaves, int blocks, const int *first, const int *size, int16_t *ops);

#endif
