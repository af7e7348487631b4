/* How a step's shards are cut into blocks for the pool that is there. Any cut gives the same bits
 * (D5); a good one makes the step short. Pure; called when a job loads and when the pool has
 * changed. */
#ifndef COP_COORDINATOR_PARTITION_H
#define COP_COORDINATOR_PARTITION_H

#include <stdint.h>

/* Sizes of the blocks (nodes of D5's tree over `shards` leaves, in order, together all of them)
 * that make a step shortest: candidates are equal powers of two with a tail cut smaller; each is
 * tried by giving its blocks in order to whoever is free first. A block of n shards keeps a worker
 * of t threads busy for ceil(n / t) + overhead_percent / 100 shard times. `threads` (workers), 0
 * workers: one block per `largest`. No block is larger than `largest` shards. sizes has room for
 * `shards` entries; returns how many there are. */
uint32_t partition_plan(uint32_t shards, uint32_t largest, const uint32_t *threads,
                        uint32_t workers, uint32_t overhead_percent, uint32_t *sizes);

#endif
