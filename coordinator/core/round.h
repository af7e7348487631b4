/* One step (or one evaluation) of one job as blocks of work: which workers hold leases, and which
 * results have arrived. Pure, without clocks. A block is pending, leased or done. Its results are
 * votes: one is enough, or two equal ones if the block is audited. At most one of them becomes the
 * block's result; round_check asserts that. Called by the core only. */
#ifndef COP_COORDINATOR_ROUND_H
#define COP_COORDINATOR_ROUND_H

#include "coordinator/core/core.h"

/* Leases of one block at a time: the first, a copy after its deadline, and one more. */
#define ROUND_HOLDERS 3
/* Votes of one block at a time: of three workers, and the coordinator's own. */
#define ROUND_WORKER_VOTES 3
#define ROUND_VOTES        (ROUND_WORKER_VOTES + 1)

typedef enum round_state { ROUND_PENDING = 1, ROUND_LEASED, ROUND_DONE } round_state;

typedef struct round_holder {
    uint64_t worker;   /* 0: free */
    uint64_t identity; /* outlasts its session */
    uint64_t lease, deadline_ns;
    uint64_t begun_ns,
        expected_ns;     /* when the lease was given, and how long it should take; 0: unknown */
    uint64_t charged_ns; /* compute time added to the job's share when the lease was given */
    uint32_t attempt;
} round_holder;

/* The result of one worker for a block. */
typedef struct round_vote {
    uint64_t worker;   /* 0: none; COORD_SELF */
    uint64_t identity; /* outlasts its session */
    uint64_t lease, slot, digest, correct;
    double loss;
    bool finite;
} round_vote;

typedef struct round_block {
    /* shards of a step, or samples of an evaluation; for an ensemble the block's number, and 1 */
    uint32_t first, count;
    uint32_t samples;
    round_state state;
    bool absent;   /* a short last batch leaves all its shards empty: done from the start */
    bool urgent;   /* it was leased before: first in line */
    uint32_t lost; /* leases that ended without a result */
    uint32_t failures, not_finite;
    uint64_t last_worker; /* the worker that computed it last: not given it again after a bad result
                             ... */
    uint64_t shun_until_ns; /* ... until then, if others are there */
    round_holder holder[ROUND_HOLDERS];
    bool audited;   /* it needs two equal results from different identities */
    bool confirmed; /* it has them */
    uint32_t needs, votes;
    round_vote vote[ROUND_VOTES];
    uint64_t voted_ns;     /* when the newest vote came */
    bool awaits_recompute; /* the coordinator will compute it as soon as it has room */
    /* the result */
    uint64_t lease; /* the lease that brought it */
    uint64_t slot, correct, digest, identity;
    double loss;
} round_block;

typedef struct coord_round {
    bool evaluate;
    uint64_t step;
    uint32_t batch, shards; /* shards 0: an evaluation of `batch` samples */
    /* An ensemble (members > 0, evaluate is true) has `total` blocks: `chunk` members on one slice
     * each, in order of members, then of slices. Only a window of them exists: blocks[0] has the
     * number `base`, and the first `handed` of the window have been passed on. */
    uint32_t members, chunk, slices, base, total, handed;
    uint32_t count, capacity;
    uint32_t done, pending, urgent; /* blocks in that state */
    uint32_t lacking_second_vote; /* leased blocks that one more worker could compute as an audit */
    uint32_t audited;             /* audited blocks that are not done */
    uint32_t largest;             /* size of the largest block */
    uint64_t pending_size;        /* total size of the pending blocks */
    uint32_t first_pending;       /* no block before this one is pending */
    uint64_t overdue_ns;          /* no lease is overdue before this */
    uint64_t slow_ns;             /* do not look for slow leases before this */
    round_block *blocks;          /* (count), ascending */
} coord_round;

/* Makes room for `capacity` blocks, so that later begins allocate nothing. NO_MEMORY: the round is
 * unchanged. */
cop_err round_reserve(coord_round *r, uint32_t capacity);
/* Cuts a step into `count` blocks of the given sizes (nodes of the tree, together all shards).
 * Shards from `batch` on are absent (D2: the first b mod shards slices are longer, so only the last
 * can be empty). A block without samples is done at once and has no slot. */
void round_begin_train(coord_round *r, uint64_t step, uint32_t batch, const uint32_t *sizes,
                       uint32_t count);
/* Cuts an evaluation of n samples into slices of COP_EVAL_SLICE. */
void round_begin_evaluate(coord_round *r, uint64_t step, uint32_t n);
/* Cuts an ensemble of `members` networks on n samples; the window is the round's capacity. */
void round_begin_ensemble(coord_round *r, uint32_t members, uint32_t chunk, uint32_t n);
void round_clear(coord_round *r); /* Removes all blocks; keeps the memory. */
void round_fini(coord_round *r);

/* When to lease the block once more: as soon as fewer leases than it needs results are within their
 * deadlines, and it has room for one. 0: it has no holder. UINT64_MAX: never. */
uint64_t round_next_copy_ns(const round_block *block);

/* ---- round_pick.c ---- */
/* Can there be a block to give? False is certain, true is not. */
bool round_has_work(const coord_round *r, uint64_t now_ns);
/* A worker that asks for a block. largest: the largest size that suits it. only_worker: nobody else
 * could compute a block that it should not get again. */
typedef struct round_asker {
    uint64_t worker, identity;
    uint32_t largest;
    bool only_worker;
} round_asker;
/* The block that it should get; -1: none. First come blocks that were leased before, then the first
 * block if its size suits, else the largest that does, else the smallest. After them come leased
 * blocks that lack an audit, then those whose deadlines have passed. */
int round_pick(coord_round *r, const round_asker *asker, uint64_t now_ns);
/* A leased block to copy to the asker, which takes round_ns for a round of `threads` shards; -1:
 * none. The copy must finish the block clearly sooner than its holders would (an audited block has
 * two). Of several, the one that gains most. */
int round_pick_slow(const coord_round *r, const round_asker *asker, uint32_t threads,
                    double round_ns, uint64_t now_ns);
/* Does this worker compute the block? For an audited block, also: has its identity computed it, or
 * does it under another name? Nobody may check itself. */
bool round_takes_part(const round_block *block, uint64_t worker, uint64_t identity);
/* Total size of the leased blocks that one more worker could compute as an audit. */
uint64_t round_lacking_size(const coord_round *r);
/* When the oldest lease of a leased block was given. */
uint64_t round_leased_since(const round_block *block);

/* ---- round.c ---- */
/* Leases a block to holder->worker. Sets holder->attempt to one more than its leases that ended
 * without a result, so that a copy looks like a first lease. */
void round_give(coord_round *r, int block, round_holder *holder);
const round_block *round_block_at(const coord_round *r,
                                  uint32_t first); /* NULL: no block starts there */
/* The block that starts at `first` and has this lease, and in *holder which of its holders; -1:
 * none. */
int round_find(const coord_round *r, uint32_t first, uint64_t lease, int *holder);
/* A lease is lost. True: its block is pending again, first in line. False: others hold it, too. */
bool round_lose_lease(coord_round *r, uint32_t first, uint64_t lease);
/* All leases of this worker are lost. True: a block is pending again. */
bool round_lose_leases_of(coord_round *r, uint64_t worker);
/* Is it leased, and could one more worker compute it to check the others? */
bool round_wants_auditor(const round_block *block);
/* Requires two equal results for the block. Only before it is first given. */
void round_audit(coord_round *r, int block);
/* Adds a vote and ends its lease; the block keeps the vote's slot. round_finish or
 * round_await_votes must follow. */
void round_vote_add(coord_round *r, int block, int holder, const round_vote *vote, uint64_t now_ns);
/* The votes did not decide: the block needs `needs` of them, and is pending if nobody computes it.
 */
void round_await_votes(coord_round *r, int block, uint32_t needs);
/* This vote is the block's result: it is done, and its other leases and votes are forgotten. The
 * caller has dropped the other votes' slots. */
void round_finish(coord_round *r, int block, int vote, bool confirmed);
/* A done, unconfirmed block is disputed by another vote: it needs a third one. */
void round_dispute(coord_round *r, int block, const round_vote *other);
/* A done, unconfirmed block needs a second, equal result after all. Its result becomes the first
 * vote, which keeps its slot. */
void round_recheck(coord_round *r, int block, uint64_t digest, uint64_t now_ns);
/* The gradient of a done block is not finite: it becomes a vote, and the block needs another.
 * Returns the slot to drop. */
uint64_t round_reject(coord_round *r, int block, uint64_t digest, uint64_t shun_until_ns);
/* Removes this identity's unconfirmed result or vote. Returns the slot to drop; 0: none. */
uint64_t round_void_votes(coord_round *r, int block, uint64_t identity);
/* The result of this holder was bad: its lease ends. The block goes to other workers until
 * `shun_until_ns`. */
void round_retry(coord_round *r, int block, int holder, uint64_t shun_until_ns);
/* Ensemble: the next block, in order, whose result is there and was not passed on; -1: none. It
 * counts as passed on afterwards. */
int round_take_ready(coord_round *r);
/* Ensemble: the first block that was passed on has been absorbed, and the window moves. */
void round_advance(coord_round *r);
/* Ensemble: the first sample of the block's slice; the first of its members, and their number. */
uint32_t round_slice_first(const coord_round *r, const round_block *b);
uint32_t round_member_first(const coord_round *r, const round_block *b);
uint32_t round_member_count(const coord_round *r, const round_block *b);
bool round_complete(const coord_round *r); /* ensemble: all blocks are absorbed */
/* Number of leases that workers hold; only those within their deadlines unless now_ns is 0. */
uint32_t round_holders(const coord_round *r, uint64_t now_ns);
bool round_is_recomputed(const coord_round *r); /* Is the coordinator computing a block itself? */
/* Sum of the blocks' losses: by D5's tree for a step, in order for an evaluation (D7, D10). */
double round_loss(const coord_round *r);
void round_check(const coord_round *r); /* Asserts the invariants. */

#endif
