/* How a batch is cut into shards, and the tree along which their gradients are added (rules D2 and
 * D5 of docs/reference/portable-1.md). The functions depend only on their arguments;
 * thread-safe. */
#ifndef COP_BASE_SHARDS_H
#define COP_BASE_SHARDS_H

#include <stdbool.h>
#include <stdint.h>

/* Returns the index of the first sample of `shard` in a batch of `batch` samples. The first (batch
 * mod shards) shards have one sample more than the others; if batch < shards, the others have none.
 * For shard == shards it returns `batch`, the end of the last shard. */
uint32_t cop_shard_begin(uint32_t batch, uint32_t shards, uint32_t shard);
/* Fills sizes[0 .. shards) with the number of samples of each shard. */
void cop_shard_sizes(uint32_t batch, uint32_t shards, int32_t *sizes);

/* Returns the number of leaves of the left child of a node with `size` leaves: the largest power of
 * two that is less than `size`. `size` must be at least 2. */
uint32_t cop_tree_left(uint32_t size);
/* True: in the tree over `leaves` leaves, some node covers exactly the leaves first to first + size
 * - 1. */
bool cop_tree_is_node(uint32_t leaves, uint32_t first, uint32_t size);
/* Writes a postfix program to ops, which adds the leaves 0 to count - 1 in the order of the tree.
 * An operation >= 0 pushes the leaf of this number on a stack; -1 replaces the top two values by
 * their sum. ops has room for 2 * count - 1 operations. Returns the number of operations. Leaf i is
 * left out if present[i] is false. If `present` is NULL, no leaf is left out. */
int cop_tree_build(int count, const bool *present, int16_t *ops);
/* Like cop_tree_build, but the inputs are sums over blocks of leaves: an operation >= 0 pushes that
 * block. Block i covers the leaves first[i] to first[i] + size[i] - 1, and must be a node of the
 * tree (cop_tree_is_node). The blocks are in ascending order and cover all leaves without gaps. ops
 * has room for 2 * blocks - 1 operations. */
int cop_tree_build_blocks(int leaves, int blocks, const int *first, const int *size, int16_t *ops);

#endif
