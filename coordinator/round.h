/* One step (or one evaluation) of one job as blocks of work: who holds what, what has arrived. Part of the core: pure, no clocks. */
#ifndef COP_COORDINATOR_ROUND_H
#define COP_COORDINATOR_ROUND_H

#include "coordinator/core.h"

#define ROUND_HOLDERS 3 /* leases of one block at a time: the first, a double after its deadline, one more */

typedef enum round_state { ROUND_PENDING = 1, ROUND_LEASED, ROUND_DONE } round_state;

typedef struct round_holder { uint64_t worker, lease, deadline_ns, given_ns; uint32_t attempt; } round_holder;

typedef struct round_block {
    uint32_t     first, count;
    round_state  state;
    bool         absent;      /* all its shards are absent: done from the start, no result */
    bool         urgent;      /* was given before: first in line */
    uint32_t     attempts;    /* leases given so far */
    uint32_t     failures, not_finite;
    uint64_t     last_worker; /* whose result was bad: somebody else is preferred */
    round_holder holder[ROUND_HOLDERS]; /* worker 0: free */
    uint64_t     slot, samples, correct, compute_ns;
    double       loss;
} round_block;

typedef struct coord_round {
    bool         evaluate;
    uint64_t     step;
    uint32_t     batch, shards, count, done, capacity;
    round_block *blocks;
} coord_round;

/* Is [first, first + size) a node of D5's tree over `leaves` leaves? (The rule of common/nn's cop_tree_is_node, kept here so that the core stays
 * free of nn; a test compares the two.) */
bool round_is_node(uint32_t leaves, uint32_t first, uint32_t size);
/* Block size (a power of two of shards) that makes a step shortest for `workers` of the given speeds: simulates giving blocks in order to whoever is free
 * first; cost = makespan in shards + overhead_percent / 100 per lease of the busiest worker. */
uint32_t round_block_size(uint32_t shards, const uint32_t *threads, uint32_t workers, uint32_t overhead_percent);
/* Cut a step into blocks of `size` shards. Shards from `batch` on are absent (D2: the first b mod shards slices are longer, so only the last can be empty). */
cop_err round_begin_train(coord_round *r, uint64_t step, uint32_t batch, uint32_t shards, uint32_t size);
/* Cut an evaluation of n samples into slices of COP_EVAL_SLICE. */
cop_err round_begin_evaluate(coord_round *r, uint64_t step, uint32_t n);
void    round_fini(coord_round *r);
/* The block that `worker` should get next: urgent ones first, then in order; with `doubles`, also a leased one whose deadlines have passed. -1: none. */
int  round_pick(const coord_round *r, uint64_t worker, uint64_t now_ns, bool only_worker);
void round_give(coord_round *r, int block, uint64_t worker, uint64_t lease, uint64_t now_ns, uint64_t deadline_ns);
/* The block that has this lease, and which holder; -1: none (late, double or stale). */
int  round_find(const coord_round *r, uint64_t lease, int *holder);
/* The worker has gone: its blocks return to the queue, first in line. Returns how many. */
uint32_t round_forget(coord_round *r, uint64_t worker);
/* The block is done with this result; other leases of it are forgotten. */
void round_finish(coord_round *r, int block, const coord_result_info *result);
/* The result was bad: the block is pending again. */
void round_return(coord_round *r, int block, int holder);
bool round_complete(const coord_round *r);
uint32_t round_holders(const coord_round *r); /* workers that hold a lease of it */
/* Sum of the blocks' losses: D5's tree for a step (over blocks, as over the shards below them), in order for an evaluation. */
double round_loss(const coord_round *r);
void   round_check(const coord_round *r); /* asserts the invariants */

#endif
