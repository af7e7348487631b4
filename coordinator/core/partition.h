/* How a step's shards are cut into blocks for the current pool. Any cut gives the same bits (D5); a
 * good one makes the step short. Pure. The scheduler calls it before a job's first step, and before
 * later steps if the pool or its measured speeds have changed. */
#ifndef COP_COORDINATOR_PARTITION_H
#define COP_COORDINATOR_PARTITION_H

#include <stdint.h>

typedef struct partition_worker {
    uint32_t threads;
    uint32_t round; /* time of a round (`threads` shards), in hundredths of the quickest worker's
                       time */
} partition_worker;

typedef struct partition_pool {
    const partition_worker *worker; /* (count) */
    uint32_t count;
    uint32_t overhead_percent; /* what a lease costs besides computing, in hundredths of the
                                  quickest worker's round */
    uint32_t serial_percent;   /* what each lease adds to the step because leases are handed over
                                  one after another, in hundredths of the quickest worker's round */
} partition_pool;

/* Finds, among some candidates, the cut that makes a step shortest. The blocks of a cut are nodes
 * of the summation tree (D5) over `shards` leaves. They are in ascending order and cover all
 * shards. No block is larger than `largest` shards.
 *
 * The blocks of a candidate have equal sizes, a power of two, but the last few may be cut into
 * halves or quarters. To compute the length of the step, each block in order goes to the worker
 * that would finish it first. A block of n shards keeps a worker with t threads busy for
 * ceil(n / t) times its `round`, plus overhead_percent. Each block adds serial_percent. Without
 * workers, the blocks are the largest power of two up to `largest`.
 *
 * Fills `sizes`, which has room for `shards` entries, and returns the number of blocks. *span (may
 * be NULL) is set to the length of the step without serial_percent, in hundredths of the quickest
 * worker's round; 0 without workers. */
uint32_t partition_plan(uint32_t shards, uint32_t largest, const partition_pool *pool,
                        uint32_t *sizes, uint64_t *span);

#endif
