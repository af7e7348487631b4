/* How a step's shards are cut into blocks for the current pool. Any cut gives the same bits (D5); a
 * good one makes the step short. Pure. Called when a job loads, and when the pool or its measured
 * speeds have changed. */
#ifndef COP_COORDINATOR_PARTITION_H
#define COP_COORDINATOR_PARTITION_H

#include <stdint.h>

typedef struct partition_worker {
    uint32_t threads;
    uint32_t round; /* time of a round (`threads` shards), in hundredths of the usual worker's */
} partition_worker;

typedef struct partition_pool {
    const partition_worker *worker;
    uint32_t count;
    uint32_t overhead_percent; /* what a lease costs besides computing, of a usual shard's time */
} partition_pool;

/* Finds the cut that makes a step shortest. The blocks are nodes of D5's tree over `shards` leaves,
 * in order, together all of them; none is larger than `largest` shards. Candidates are equal powers
 * of two with a tail that is cut smaller. Each is tried by giving its blocks, in order, to the
 * worker that would finish them first: a block of n shards keeps a worker of t threads busy for
 * ceil(n / t) rounds and overhead_percent / 100 usual shard times. An empty pool gets blocks of
 * `largest`.
 * Fills `sizes`, which has room for `shards` entries, and returns their number. *span (may be NULL)
 * is the length of the step, in hundredths of the usual worker's round; 0 without workers. */
uint32_t partition_plan(uint32_t shards, uint32_t largest, const partition_pool *pool,
                        uint32_t *sizes, uint64_t *span);

#endif
