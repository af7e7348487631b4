/* One step (or one evaluation) of one job as blocks of work: who holds what, what has arrived.
 * Part of the core: pure, no clocks. A block is pending, leased or done; results of it are votes
 * (one will do, or two equal ones where it is audited), and at most one of them becomes its result;
 * `round_check` asserts that. Called by steps.c and scheduler.c only. */
#ifndef COP_COORDINATOR_ROUND_H
#define COP_COORDINATOR_ROUND_H

#include "coordinator/core/core.h"

/* Leases of one block at a time: the first, a double after its deadline, one more. */
#define ROUND_HOLDERS 3
/* Results of one block at a time: of three workers, and the coordinator's own. */
#define ROUND_WORKER_VOTES 3
#define ROUND_VOTES        (ROUND_WORKER_VOTES + 1)

typedef enum round_state { ROUND_PENDING = 1, ROUND_LEASED, ROUND_DONE } round_state;

typedef struct round_holder {
    uint64_t worker; /* 0: free */
    uint64_t identity;    /* its identity beyond a session */
    uint64_t lease, deadline_ns;
    uint64_t begun_ns, expected_ns; /* when it was given, how long it should take; 0: not known */
    uint64_t charged_ns; /* compute time put on the job's account when the lease was given */
    uint32_t attempt;
} round_holder;

/* What one worker says of a block. */
typedef struct round_vote {
    uint64_t worker; /* 0: none; COORD_SELF */
    uint64_t identity;    /* its identity beyond a session */
    uint64_t lease, slot, digest, correct;
    double loss;
    bool finite;
} round_vote;

typedef struct round_block {
    /* shards of a step, samples of an evaluation; of an ensemble the block's number, and 1 */
    uint32_t first, count;
    uint32_t samples;
    round_state state;
    bool absent;   /* a short last batch leaves all its shards empty: done from the start */
    bool urgent;   /* was given before: first in line */
    uint32_t lost; /* leases that came to nothing */
    uint32_t failures, not_finite;
    uint64_t last_worker;   /* computed it last; after a bad result somebody else is preferred */
    uint64_t shun_until_ns; /* ... until then */
    round_holder holder[ROUND_HOLDERS];
    bool audited;   /* needs two equal results of different identities */
    bool confirmed; /* has them */
    uint32_t needs, votes;
    round_vote vote[ROUND_VOTES];
    uint64_t voted_ns; /* when the newest came */
    bool awaits_recompute; /* the coordinator is to compute it, as soon as it has room */
    /* the result */
    uint64_t lease; /* that brought it */
    uint64_t slot, correct, digest, identity;
    double loss;
} round_block;

typedef struct coord_round {
    bool evaluate;
    uint64_t step;
    uint32_t batch, shards; /* shards 0: an evaluation of `batch` samples */
    /* An ensemble (members > 0; evaluate is true) has `total` blocks: `chunk` members on one slice
     * each, in order of members, then of slices. Only a window of them is here: blocks[0] has the
     * number `base`, and the first `handed` of the window were handed on. */
    uint32_t members, chunk, slices, base, total, handed;
    uint32_t count, capacity;
    uint32_t done, pending, urgent; /* blocks in that state */
    uint32_t
        lacking_second_vote; /* leased ones that could be given to one more worker, who audits */
    uint32_t audited;        /* audited ones that are not done */
    uint32_t largest;        /* size of the largest block */
    uint64_t pending_size;   /* sizes of the pending blocks, together */
    uint32_t first_pending;  /* no block before this one is pending */
    uint64_t overdue_ns;     /* no lease is overdue before then */
    uint64_t slow_ns;        /* whether a copy is worth while is not asked before then */
    round_block *blocks;     /* (count), ascending */
} coord_round;

/* Is [first, first + size) a node of D5's tree over `leaves` leaves? (The rule of common/nn's
 * cop_tree_is_node, kept here so that the core stays free of nn; a test compares the two.) */
bool round_is_node(uint32_t leaves, uint32_t first, uint32_t size);

/* Room for `capacity` blocks: later begins allocate nothing. NO_MEMORY leaves the round as it is.
 */
cop_err round_reserve(coord_round *r, uint32_t capacity);
/* Cut a step into `count` blocks of the given sizes (nodes of the tree, together all shards).
 * Shards from `batch` on are absent (D2: the first b mod shards slices are longer, so only the last
 * can be empty); a block without any sample is done at once and has no slot. */
void round_begin_train(coord_round *r, uint64_t step, uint32_t batch, const uint32_t *sizes,
                       uint32_t count);
/* Cut an evaluation of n samples into slices of COP_EVAL_SLICE. */
void round_begin_evaluate(coord_round *r, uint64_t step, uint32_t n);
/* Cut an ensemble of `members` networks on n samples; the window is the round's capacity. */
void round_begin_ensemble(coord_round *r, uint32_t members, uint32_t chunk, uint32_t n);
void round_clear(coord_round *r); /* no blocks; keeps its memory */
void round_fini(coord_round *r);

/* From when on the block should be leased to one more: fewer of its leases than it needs results
 * are within their deadlines, and there is room. UINT64_MAX: never. */
uint64_t round_double_after(const round_block *block);

/* ---- round_pick.c ---- */
/* May there be something to give? False is sure. */
bool round_has_work(const coord_round *r, uint64_t now_ns);
/* Who asks for a block: a worker, the largest size that suits it, and whether nobody else could
 * compute what it may not get (again). */
typedef struct round_asker {
    uint64_t worker, identity;
    uint32_t largest;
    bool only_worker;
} round_asker;
/* The block that it should get: those given before first; then the first one if that suits, else
 * the largest that does, else the smallest; then a leased one whose deadlines have all passed. -1:
 * none. */
int round_pick(coord_round *r, const round_asker *asker, uint64_t now_ns);
/* A leased block that would likely be done clearly sooner if the asker, which takes round_ns for a
 * round of `threads` shards, computed it as well as its holders (an audited block has two); the one
 * that gains most. -1: none. */
int round_pick_slow(const coord_round *r, const round_asker *asker, uint32_t threads,
                    double round_ns, uint64_t now_ns);
/* Does this worker compute the block; or has it, or does it, under any name of its identity, where
 * nobody may check himself? */
bool round_takes_part(const round_block *block, uint64_t worker, uint64_t identity);
/* Sizes of the leased blocks that one more worker could compute as an audit, together. */
uint64_t round_lacking_size(const coord_round *r);
/* Of a leased block: when its oldest lease was given. */
uint64_t round_leased_since(const round_block *block);

/* ---- round.c ---- */
/* Lease a block to holder->worker; fills holder->attempt: one more than the leases of it that came
 * to nothing, so that a copy looks like a first lease. */
void round_give(coord_round *r, int block, round_holder *holder);
const round_block *round_block_at(const coord_round *r,
                                  uint32_t first); /* NULL: none starts there */
/* The block that starts at `first` and has this lease, and which of its holders; -1: none. */
int round_find(const coord_round *r, uint32_t first, uint64_t lease, int *holder);
/* The lease is lost: the block returns to the queue, first in line, unless somebody else holds it
 * too (then false). */
bool round_forget(coord_round *r, uint32_t first, uint64_t lease);
/* All leases of this worker are lost. True: a block is pending again. */
bool round_forget_worker(coord_round *r, uint64_t worker);
/* Is it leased, and could one more worker compute it to audit the others? */
bool round_wants_auditor(const round_block *block);
/* The block must have two equal results. Before it is first given. */
void round_audit(coord_round *r, int block);
/* A result came: the lease ends, the vote is noted (its slot: kept by the block). Finish or settle
 * follows. */
void round_vote_add(coord_round *r, int block, int holder, const round_vote *vote, uint64_t now_ns);
/* The votes did not decide: the block needs `needs` of them, pending if nobody computes one. */
void round_settle(coord_round *r, int block, uint32_t needs);
/* The block is done with this vote; its other leases and votes are forgotten. The caller has seen
 * to the other votes' slots. */
void round_finish(coord_round *r, int block, int vote, bool confirmed);
/* A block that is done, unconfirmed, turns out to be disputed by another vote: it needs a third. */
void round_dispute(coord_round *r, int block, const round_vote *other);
/* A finished, unconfirmed block needs a second, equal result after all: what it has is its first
 * vote, which keeps its slot. */
void round_recheck(coord_round *r, int block, uint64_t digest, uint64_t now_ns);
/* A finished block's gradient turned out not to be finite: that is a vote, and it needs another.
 * Returns the slot to drop. */
uint64_t round_reject(coord_round *r, int block, uint64_t digest, uint64_t shun_until_ns);
/* All that this identity said of the block is void. Returns the slot to drop; 0: none. */
uint64_t round_void_votes(coord_round *r, int block, uint64_t identity);
/* The result was bad: the block is pending again, for somebody else until `shun_until_ns`. */
void round_return(coord_round *r, int block, int holder, uint64_t shun_until_ns);
/* Of an ensemble: the next block, in order, whose result has come and was not handed on yet; -1:
 * none. It counts as handed on then. */
int round_take_ready(coord_round *r);
/* The first block that was handed on is dealt with: the window moves. */
void round_advance(coord_round *r);
/* An ensemble's: the first sample of the block's slice; its members, from the first. */
uint32_t round_slice_first(const coord_round *r, const round_block *b);
uint32_t round_member_first(const coord_round *r, const round_block *b);
uint32_t round_member_count(const coord_round *r, const round_block *b);
bool round_complete(const coord_round *r); /* an ensemble's: all blocks are dealt with */
/* Leases of blocks that are not done; only those still within their deadline if now_ns is not 0. */
uint32_t round_holders(const coord_round *r, uint64_t now_ns);
bool round_is_recomputed(const coord_round *r); /* the coordinator computes a block itself */
/* Sum of the blocks' losses: D5's tree for a step, in order for an evaluation (D7, D10). */
double round_loss(const coord_round *r);
void round_check(const coord_round *r); /* asserts the invariants */

#endif
