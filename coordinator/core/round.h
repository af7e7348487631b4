/* One step (or one evaluation) of one job as blocks of work: which workers hold leases, and which
 * results have arrived. Pure, without clocks. Called by the core only.
 *
 * A block is pending, leased or done. Each result that arrives for it is a vote. One vote is enough
 * to finish a block that is not audited; an audited block needs two equal votes. audit.c has the
 * exact rules. At most one vote becomes the block's result. */
#ifndef COP_COORDINATOR_ROUND_H
#define COP_COORDINATOR_ROUND_H

#include "coordinator/core/core.h"

/* A block has at most this many leases at a time. */
#define ROUND_HOLDERS 3
/* A block has at most this many votes at a time: three of workers, and the coordinator's own. */
#define ROUND_WORKER_VOTES 3
#define ROUND_VOTES        (ROUND_WORKER_VOTES + 1)

typedef enum round_state { ROUND_PENDING = 1, ROUND_LEASED, ROUND_DONE } round_state;

typedef struct round_holder {
    uint64_t worker;   /* 0: free */
    uint64_t identity; /* the worker's identity: the same when it joins again */
    uint64_t lease;    /* number of the lease */
    uint64_t deadline_ns;
    uint64_t begun_ns;    /* when the lease was given */
    uint64_t expected_ns; /* how long the lease should take; 0: unknown */
    uint64_t charged_ns;  /* compute time added to the job's share when the lease was given */
    uint32_t attempt;     /* 1 + the block's leases that had ended without a result */
} round_holder;

/* The result of one worker for a block. */
typedef struct round_vote {
    uint64_t worker;   /* 0: no vote; COORD_SELF: the coordinator */
    uint64_t identity; /* the worker's identity: the same when it joins again */
    uint64_t lease;    /* the lease that brought the result */
    uint64_t slot;     /* 0: no tensor is kept */
    uint64_t digest;   /* digest of the tensor; 0: none */
    uint64_t correct;  /* number of correct samples */
    double loss;       /* sum over the block's samples */
    bool finite;
} round_vote;

typedef struct round_block {
    /* Step: the shards [first, first + count). Evaluation: the samples [first, first + count).
     * Ensemble: `first` is the block's number, and `count` is 1. */
    uint32_t first;
    uint32_t count;
    uint32_t samples; /* number of samples in the block */
    round_state state;
    bool absent;   /* a short last batch leaves all its shards empty: the block is done at once */
    bool urgent;   /* the block was leased before, so it is leased before blocks that never were */
    uint32_t lost; /* leases that ended without a usable result, and results that were undone */
    uint32_t failures;       /* reports that a worker or the coordinator cannot compute it */
    uint32_t not_finite;     /* updates that found its gradient not finite */
    uint64_t last_worker;    /* the worker that sent its newest result */
    uint64_t avoid_until_ns; /* until then last_worker does not get the block again, unless it is
                               the only worker of the job */
    round_holder holder[ROUND_HOLDERS];
    bool audited;   /* the block needs two equal results from different identities */
    bool confirmed; /* the result was confirmed by an equal one, or is the coordinator's own */
    uint32_t needs; /* number of votes to wait for before the next decision */
    uint32_t votes; /* number of votes so far */
    round_vote vote[ROUND_VOTES];
    uint64_t voted_ns;     /* when the newest vote came */
    bool awaits_recompute; /* the coordinator lacked memory or a slot to compute the block, and
                              tries again later */
    /* The result of a done block: the fields of the vote that was chosen, see round_vote. */
    uint64_t lease;
    uint64_t slot;
    uint64_t correct;
    uint64_t digest;
    uint64_t identity;
    double loss;
} round_block;

typedef struct coord_round {
    bool evaluate;   /* an evaluation or an ensemble; false: a step of training */
    uint64_t step;   /* step: its number; evaluation: steps of its weights; ensemble: 0 */
    uint32_t batch;  /* number of samples */
    uint32_t shards; /* number of shards of a step; 0: an evaluation or an ensemble */
    /* In the round of an ensemble, members is above 0, and evaluate is true; in other rounds
     * members is 0. An ensemble has `total` blocks. A block is up to `chunk` members on one slice
     * of the samples. Blocks are numbered from 0: all slices of the first chunk of members, then
     * all slices of the second, and so on. Only a window of `count` consecutive blocks is in
     * memory: blocks[i] is block number base + i. The first `handed` blocks of the window are done,
     * and their results were passed to the host. */
    uint32_t members, chunk, slices, base, total, handed;
    uint32_t count;               /* blocks in memory */
    uint32_t capacity;            /* blocks for which there is room */
    uint32_t done;                /* number of done blocks */
    uint32_t pending;             /* number of pending blocks */
    uint32_t urgent;              /* number of pending blocks that are urgent */
    uint32_t lacking_second_vote; /* leased blocks for which round_wants_auditor is true */
    uint32_t audited;             /* audited blocks that are not done */
    uint32_t largest;             /* `count` of the largest block */
    uint64_t pending_size;        /* sum of `count` over the pending blocks */
    uint32_t first_pending;       /* index: no block before this one is pending */
    uint64_t overdue_ns;          /* no lease is overdue before this time */
    uint64_t slow_ns;             /* the scheduler looks for slow leases only after this time */
    round_block *blocks;          /* (count), in ascending order of `first` */
} coord_round;

/* Makes room for `capacity` blocks, so that round_begin_* allocates nothing. The round must have no
 * blocks. Errors: NO_MEMORY, and the round is unchanged. */
cop_err round_reserve(coord_round *r, uint32_t capacity);
/* Cuts a step into `count` blocks of the given sizes. Each block must be a node of the summation
 * tree, and together they are all shards. If there are fewer samples than shards, the shards from
 * number `batch` on have no samples (D2: the first batch mod shards slices are longer, so only the
 * last slices can be empty). A block without samples is done at once and has no slot. */
void round_begin_train(coord_round *r, uint64_t step, uint32_t batch, const uint32_t *sizes,
                       uint32_t count);
/* Cuts an evaluation of n samples into slices of COP_EVAL_SLICE samples; the last may be shorter.
 */
void round_begin_evaluate(coord_round *r, uint64_t step, uint32_t n);
/* Cuts an ensemble of `members` networks on n samples into blocks of up to `chunk` members on one
 * slice. The window is as large as the round's capacity, or as the number of blocks if that is
 * smaller. */
void round_begin_ensemble(coord_round *r, uint32_t members, uint32_t chunk, uint32_t n);
void round_clear(coord_round *r); /* Removes all blocks; keeps the memory. */
void round_fini(coord_round *r);

/* Returns the time at which to lease the block once more: then so many of its leases are past their
 * deadlines that the others are fewer than the results that the block still needs. 0: it has no
 * holder. UINT64_MAX: it has ROUND_HOLDERS holders already. */
uint64_t round_next_copy_ns(const round_block *block);

/* ---- round_pick.c ---- */
/* False: there is no block to give to any worker. True: there may be one. */
bool round_has_work(const coord_round *r, uint64_t now_ns);
/* A worker that asks for a block. */
typedef struct round_asker {
    uint64_t worker;
    uint64_t identity;
    uint32_t largest; /* the largest number of shards that suits it */
    bool only_worker; /* no other worker gets leases of the job. So this one gets even a block for
                         which it has just sent a bad result */
} round_asker;
/* The index of the block that the asker should get; -1: none. In order of preference:
 * - a pending block that was leased before;
 * - if the round's largest block suits the asker: the first pending block;
 * - else the largest pending block that suits it, or the smallest if none does;
 * - a leased block that lacks a vote which nobody is computing (round_wants_auditor);
 * - a leased block that is due for one more lease (round_next_copy_ns). */
int round_pick(coord_round *r, const round_asker *asker, uint64_t now_ns);
/* The index of a leased block that should also be leased to the asker; -1: none. The asker takes
 * round_ns for a round of `threads` shards. A block qualifies if the asker would finish it clearly
 * sooner than its holders alone. Among several such blocks, returns the one that gains most time.
 */
int round_pick_slow(const coord_round *r, const round_asker *asker, uint32_t threads,
                    double round_ns, uint64_t now_ns);
/* Does this worker hold a lease of the block? For an audited block, also true if any worker of the
 * same identity holds a lease of it or has a vote on it, because nobody may check itself. */
bool round_takes_part(const round_block *block, uint64_t worker, uint64_t identity);
/* Sum of `count` over the leased blocks for which round_wants_auditor is true. */
uint64_t round_lacking_size(const coord_round *r);
/* When the oldest current lease of the block was given; UINT64_MAX: it has no lease. */
uint64_t round_leased_since(const round_block *block);

/* ---- round.c ---- */
/* Leases a block to holder->worker. Sets holder->attempt to one more than the block's `lost`, so
 * that a worker cannot tell a copy from a first lease. */
void round_lease_block(coord_round *r, int block, round_holder *holder);
const round_block *round_block_at(const coord_round *r,
                                  uint32_t first); /* NULL: no block starts there */
/* The index of the block that starts at `first`, if it has this lease; -1: it does not exist or
 * does not have it. *holder is set to the index of the lease's holder. */
int round_find(const coord_round *r, uint32_t first, uint64_t lease, int *holder);
/* Ends a lease without a result. True: its block is pending again, and urgent. False: others hold
 * the block, too, or there is no such lease. */
bool round_lose_lease(coord_round *r, uint32_t first, uint64_t lease);
/* Ends all leases of this worker without results. True: at least one block is pending again. */
bool round_lose_leases_of(coord_round *r, uint64_t worker);
/* Is the block leased, and are its votes and leases together fewer than the votes that it needs? */
bool round_wants_auditor(const round_block *block);
/* Requires two equal results for the block. The block must be pending, without votes, and not yet
 * audited. */
void round_audit(coord_round *r, int block);
/* Adds a vote and ends the lease of `holder`, which brought it. The block keeps the vote's slot.
 * round_finish or round_await_votes must follow. */
void round_vote_add(coord_round *r, int block, int holder, const round_vote *vote, uint64_t now_ns);
/* The votes did not decide: the block now needs `needs` votes, which must be more than it has. It
 * becomes pending if nobody holds a lease of it. */
void round_await_votes(coord_round *r, int block, uint32_t needs);
/* Makes the vote with index `vote` the block's result: the block is done, and its leases and votes
 * are forgotten. The caller must have dropped the slots of the other votes. */
void round_finish(coord_round *r, int block, int vote, bool confirmed);
/* Another result for a done, unconfirmed block differs: the block's result and `other` become its
 * two votes, and it needs a third one. */
void round_dispute(coord_round *r, int block, const round_vote *other);
/* A done, unconfirmed block needs a second, equal result after all. Its result becomes its first
 * vote, with the given digest (not 0), and keeps its slot. */
void round_recheck(coord_round *r, int block, uint64_t digest, uint64_t now_ns);
/* The gradient of a done block is not finite. The result becomes a vote without a slot and with the
 * given digest, and the block needs a second vote. Returns the slot, which the caller must drop. */
uint64_t round_reject(coord_round *r, int block, uint64_t digest, uint64_t avoid_until_ns);
/* Removes this identity's unconfirmed result of the block, or its vote. Returns its slot, which the
 * caller must drop; 0: there was none. */
uint64_t round_void_votes(coord_round *r, int block, uint64_t identity);
/* The result of this holder cannot be used: its lease ends. Until `avoid_until_ns` the block goes
 * to other workers, if the job has any. */
void round_retry(coord_round *r, int block, int holder, uint64_t avoid_until_ns);
/* Ensemble: takes the next block to pass to the host. This is the first block that was not passed
 * on, if it is done. Returns its index, and counts it as passed on. -1: it is not done, or all were
 * passed on. */
int round_take_ready(coord_round *r);
/* Ensemble: the host has absorbed blocks[0]. The window moves on by one block, and shrinks if no
 * further block is left. */
void round_advance(coord_round *r);
/* Ensemble: the first sample of the block's slice. */
uint32_t round_slice_first(const coord_round *r, const round_block *b);
/* Ensemble: the first of the block's members, and their number. */
uint32_t round_member_first(const coord_round *r, const round_block *b);
uint32_t round_member_count(const coord_round *r, const round_block *b);
/* Are all blocks done? For an ensemble: were all blocks absorbed? */
bool round_complete(const coord_round *r);
/* Number of leases that workers hold, without the coordinator's own. now_ns 0: all of them; else
 * only those whose deadlines are after now_ns. */
uint32_t round_holders(const coord_round *r, uint64_t now_ns);
bool round_is_recomputed(const coord_round *r); /* Is the coordinator computing a block itself? */
/* Sum of the blocks' losses. For a step they are added by D5's tree, for an evaluation in the order
 * of blocks (D7, D10). */
double round_loss(const coord_round *r);
void round_check(const coord_round *r); /* Asserts the invariants. */

#endif
