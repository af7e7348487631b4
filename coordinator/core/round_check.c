/* The sum of a round's losses, and its invariants. See round.h. */
#include "coordinator/core/round.h"

#include "common/base/injected_bugs.h"

/* Sets *sum to the loss of node [a, b) of the tree. False: all its shards are absent. *at is
 * the index of its first block, and is moved behind its last one. */
static bool node_loss(const coord_round *r, uint32_t a, uint32_t b, uint32_t *at, double *sum) {
    const round_block *block = &r->blocks[*at];
    COP_ASSERT(*at < r->count && block->first == a);
    if (block->count == b - a) {
        (*at)++;
        *sum = block->loss;
        return !block->absent;
    }
    uint32_t left = 1;
    double right_sum = 0;
    while (left * 2 < b - a) left *= 2;
    bool has_left = node_loss(r, a, a + left, at, sum);
    bool has_right = node_loss(r, a + left, b, at, &right_sum);
    if (has_right) *sum = has_left ? *sum + right_sum : right_sum;
    return has_left || has_right;
}

double round_loss(const coord_round *r) {
    double sum = 0;
    uint32_t at = 0;
    if (!r->evaluate) {
        node_loss(r, 0, r->shards, &at, &sum);
        return sum;
    }
    for (uint32_t i = 0; i < r->count; i++)
        sum += r->blocks[COP_INJECT_BUG(EVALUATION_ORDER, i, r->count - 1 - i)].loss;
    return sum;
}

void round_check(const coord_round *r) {
    uint32_t done = 0, pending = 0, urgent = 0, next = r->base, lacking_second_vote = 0,
             audited = 0;
    uint64_t size = 0;
    COP_ASSERT(r->handed <= r->count && r->base + r->count <= (r->members ? r->total : UINT32_MAX));
    for (uint32_t i = 0; i < r->count; i++) {
        const round_block *b = &r->blocks[i];
        bool held = false;
        for (int h = 0; h < ROUND_HOLDERS; h++) {
            held = held || b->holder[h].worker;
            COP_ASSERT(!b->holder[h].worker || (b->holder[h].lease && b->holder[h].deadline_ns));
        }
        COP_ASSERT(held == (b->state == ROUND_LEASED));
        COP_ASSERT(b->first == next);
        COP_ASSERT(i >= r->handed || (b->state == ROUND_DONE && b->slot == 0));
        COP_ASSERT(b->state != ROUND_PENDING || (i >= r->first_pending && b->slot == 0));
        COP_ASSERT(b->state != ROUND_LEASED || round_next_copy_ns(b) >= r->overdue_ns);
        COP_ASSERT(b->state != ROUND_DONE || b->absent || !b->audited || b->confirmed);
        COP_ASSERT(b->state == ROUND_DONE || b->votes < b->needs);
        lacking_second_vote += round_wants_auditor(b);
        audited += b->audited && b->state != ROUND_DONE;
        next += b->count;
        done += b->state == ROUND_DONE;
        pending += b->state == ROUND_PENDING;
        size += b->state == ROUND_PENDING ? b->count : 0;
        urgent += b->state == ROUND_PENDING && b->urgent;
    }
    COP_ASSERT(done == r->done && pending == r->pending && urgent == r->urgent);
    COP_ASSERT(size == r->pending_size && lacking_second_vote == r->lacking_second_vote &&
               audited == r->audited);
}
