/* Rounds. See round.h. */
#include "coordinator/core/round.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/injected_bugs.h"
#include "common/base/shards.h"

/* ---- begin, end ---- */

cop_err round_reserve(coord_round *r, uint32_t capacity) {
    if (capacity <= r->capacity) return COP_OK;
    round_block *blocks = cop_alloc_array(capacity, sizeof *blocks);
    if (!blocks) return COP_ERR_NO_MEMORY;
    COP_ASSERT(r->count == 0);
    cop_free(r->blocks);
    r->blocks = blocks;
    r->capacity = capacity;
    return COP_OK;
}

static void begin(coord_round *r, uint64_t step, uint32_t batch, uint32_t count) {
    COP_ASSERT(count >= 1 && count <= r->capacity && batch >= 1);
    memset(r->blocks, 0, count * sizeof *r->blocks);
    r->step = step;
    r->batch = batch;
    r->members = r->chunk = r->slices = r->base = r->total = r->handed = 0;
    r->count = r->pending = count;
    r->done = r->urgent = r->first_pending = r->largest = r->lacking_second_vote = r->audited = 0;
    r->pending_size = 0;
    r->overdue_ns = UINT64_MAX;
    r->slow_ns = 0;
}

static void note_size(coord_round *r, round_block *b) {
    b->needs = 1;
    if (b->count > r->largest) r->largest = b->count;
    if (b->state == ROUND_PENDING) r->pending_size += b->count;
}

void round_begin_train(coord_round *r, uint64_t step, uint32_t batch, const uint32_t *sizes,
                       uint32_t count) {
    uint32_t shards = 0;
    for (uint32_t i = 0; i < count; i++) shards += sizes[i];
    begin(r, step, batch, count);
    r->evaluate = false;
    r->shards = shards;
    for (uint32_t i = 0, first = 0; i < count; first += sizes[i++]) {
        round_block *b = &r->blocks[i];
        COP_ASSERT(cop_tree_is_node(shards, first, sizes[i]));
        b->first = first;
        b->count = sizes[i];
        b->samples = cop_shard_begin(batch, shards, first + sizes[i]) -
                     cop_shard_begin(batch, shards, first);
        b->absent = b->samples == 0;
        b->state = b->absent ? ROUND_DONE : ROUND_PENDING;
        r->done += b->absent;
        r->pending -= b->absent;
        note_size(r, b);
    }
}

void round_begin_evaluate(coord_round *r, uint64_t step, uint32_t n) {
    begin(r, step, n, (n + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE);
    r->evaluate = true;
    r->shards = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        round_block *b = &r->blocks[i];
        b->first = i * COP_EVAL_SLICE;
        b->count = b->samples = n - b->first < COP_EVAL_SLICE ? n - b->first : COP_EVAL_SLICE;
        b->state = ROUND_PENDING;
        note_size(r, b);
    }
}

/* ---- the window of an ensemble ---- */

static void open_block(coord_round *r, uint32_t index) {
    round_block *b = &r->blocks[index];
    *b = (round_block){.first = r->base + index, .count = 1, .state = ROUND_PENDING};
    const uint32_t left = r->batch - round_slice_first(r, b);
    b->samples = left < COP_EVAL_SLICE ? left : COP_EVAL_SLICE;
    note_size(r, b);
}

void round_begin_ensemble(coord_round *r, uint32_t members, uint32_t chunk, uint32_t n) {
    COP_ASSERT(members && chunk);
    const uint32_t slices = (n + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE;
    const uint64_t total = (uint64_t)((members + chunk - 1) / chunk) * slices;
    COP_ASSERT(total <= UINT32_MAX);
    begin(r, 0, n, total < r->capacity ? (uint32_t)total : r->capacity);
    r->evaluate = true;
    r->shards = 0;
    r->members = members;
    r->chunk = chunk;
    r->slices = slices;
    r->total = (uint32_t)total;
    for (uint32_t i = 0; i < r->count; i++) open_block(r, i);
}

uint32_t round_slice_first(const coord_round *r, const round_block *b) {
    return b->first % r->slices * COP_EVAL_SLICE;
}

uint32_t round_member_first(const coord_round *r, const round_block *b) {
    return b->first / r->slices * r->chunk;
}

uint32_t round_member_count(const coord_round *r, const round_block *b) {
    const uint32_t left = r->members - round_member_first(r, b);
    return left < r->chunk ? left : r->chunk;
}

int round_take_ready(coord_round *r) {
    COP_ASSERT(r->members);
    if (r->handed == r->count || r->blocks[r->handed].state != ROUND_DONE) return -1;
    return (int)r->handed++;
}

void round_advance(coord_round *r) {
    COP_ASSERT(r->handed > 0 && r->blocks[0].state == ROUND_DONE);
    memmove(r->blocks, r->blocks + 1, (r->count - 1) * sizeof *r->blocks);
    r->base++;
    r->handed--;
    r->done--;
    if (r->first_pending) r->first_pending--;
    if (r->base + r->count > r->total) {
        r->count--;
        return;
    }
    open_block(r, r->count - 1);
    r->pending++;
}

void round_clear(coord_round *r) {
    r->members = r->base = r->total = r->handed = 0;
    r->count = r->done = r->pending = r->urgent = r->first_pending = 0;
    r->lacking_second_vote = r->audited = 0;
    r->pending_size = 0;
    r->overdue_ns = UINT64_MAX;
}

void round_fini(coord_round *r) {
    cop_free(r->blocks);
    memset(r, 0, sizeof *r);
}

/* ---- leases ---- */

static uint32_t holder_count(const round_block *b) {
    uint32_t count = 0;
    for (int h = 0; h < ROUND_HOLDERS; h++) count += b->holder[h].worker != 0;
    return count;
}

bool round_wants_auditor(const round_block *b) {
    return b->state == ROUND_LEASED && b->votes + holder_count(b) < b->needs;
}

uint64_t round_next_copy_ns(const round_block *b) {
    uint64_t deadline[ROUND_HOLDERS] = {0};
    uint32_t count = 0, missing = b->needs > b->votes ? b->needs - b->votes : 1;
    for (int h = 0; h < ROUND_HOLDERS; h++) {
        if (!b->holder[h].worker) continue;
        uint32_t at = count++; /* sorted, the latest first */
        for (; at && deadline[at - 1] < b->holder[h].deadline_ns; at--)
            deadline[at] = deadline[at - 1];
        deadline[at] = b->holder[h].deadline_ns;
    }
    if (count == 0) return 0;
    if (count == ROUND_HOLDERS) return UINT64_MAX;
    return deadline[missing < count ? missing - 1 : count - 1];
}

void round_lease_block(coord_round *r, int block, round_holder *holder) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state != ROUND_DONE && holder->worker && holder->lease);
    int h = 0;
    while (h < ROUND_HOLDERS && b->holder[h].worker) h++;
    COP_ASSERT(h < ROUND_HOLDERS);
    r->lacking_second_vote -= round_wants_auditor(b);
    if (b->state == ROUND_PENDING) {
        r->pending--;
        r->pending_size -= b->count;
        r->urgent -= b->urgent;
    }
    holder->attempt = b->lost + 1;
    b->holder[h] = *holder;
    b->state = ROUND_LEASED;
    r->lacking_second_vote += round_wants_auditor(b);
    uint64_t after = round_next_copy_ns(b);
    if (after < r->overdue_ns) r->overdue_ns = after;
}

const round_block *round_block_at(const coord_round *r, uint32_t first) {
    uint32_t low = 0, high = r->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (r->blocks[middle].first < first)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->count && r->blocks[low].first == first ? &r->blocks[low] : NULL;
}

int round_find(const coord_round *r, uint32_t first, uint64_t lease, int *holder) {
    const round_block *b = lease ? round_block_at(r, first) : NULL;
    for (int h = 0; b && h < ROUND_HOLDERS; h++)
        if (b->holder[h].worker &&
            COP_INJECT_BUG(STALE_RESULT, b->holder[h].lease == lease, true)) {
            *holder = h;
            return (int)(b - r->blocks);
        }
    return -1;
}

static void make_pending(coord_round *r, round_block *b) {
    uint32_t index = (uint32_t)(b - r->blocks);
    b->state = ROUND_PENDING;
    b->urgent = true;
    r->pending++;
    r->pending_size += b->count;
    r->urgent++;
    if (index < r->first_pending) r->first_pending = index;
}

/* Call after a lease of the block has ended. True: nobody holds the block, so it is pending again.
 */
static bool settle(coord_round *r, round_block *b) {
    uint64_t after = round_next_copy_ns(b);
    if (after == 0) { /* no holder */
        make_pending(r, b);
        return true;
    }
    if (after < r->overdue_ns) r->overdue_ns = after;
    return false;
}

static void end_lease(coord_round *r, round_block *b, int holder) {
    r->lacking_second_vote -= round_wants_auditor(b);
    b->holder[holder] = (round_holder){0};
}

/* A lease ended without a result. True: its block is pending again. */
static bool lose_lease(coord_round *r, round_block *b, int holder) {
    end_lease(r, b, COP_INJECT_BUG(WRONG_HOLDER, holder, b->holder[0].worker ? 0 : holder));
    b->lost++;
    bool pending = settle(r, b);
    r->lacking_second_vote += round_wants_auditor(b);
    return pending;
}

bool round_lose_lease(coord_round *r, uint32_t first, uint64_t lease) {
    int holder = 0, index = round_find(r, first, lease, &holder);
    return index >= 0 && lose_lease(r, &r->blocks[index], holder);
}

bool round_lose_leases_of(coord_round *r, uint64_t worker) {
    bool pending = false;
    for (uint32_t i = 0; i < r->count; i++) {
        round_block *b = &r->blocks[i];
        for (int h = 0; b->state == ROUND_LEASED && h < ROUND_HOLDERS; h++)
            if (b->holder[h].worker == worker && lose_lease(r, b, h)) pending = true;
    }
    return pending;
}

void round_retry(coord_round *r, int block, int holder, uint64_t avoid_until_ns) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_LEASED);
    b->last_worker = b->holder[holder].worker;
    b->avoid_until_ns = avoid_until_ns;
    end_lease(r, b, holder);
    b->lost++;
    settle(r, b);
    r->lacking_second_vote += round_wants_auditor(b);
}

/* ---- votes ---- */

void round_audit(coord_round *r, int block) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_PENDING && !b->votes && !b->audited);
    b->audited = true;
    b->needs = 2;
    r->audited++;
}

void round_vote_add(coord_round *r, int block, int holder, const round_vote *vote,
                    uint64_t now_ns) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_LEASED && b->votes < ROUND_VOTES && vote->worker);
    end_lease(r, b, holder);
    b->vote[b->votes++] = *vote;
    b->last_worker = vote->worker;
    b->voted_ns = now_ns;
}

void round_await_votes(coord_round *r, int block, uint32_t needs) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_LEASED && b->votes < needs);
    b->needs = needs;
    settle(r, b);
    r->lacking_second_vote += round_wants_auditor(b);
}

void round_finish(coord_round *r, int block, int vote, bool confirmed) {
    round_block *b = &r->blocks[block];
    const round_vote v = b->vote[vote];
    COP_ASSERT(b->state == ROUND_LEASED && (uint32_t)vote < b->votes);
    b->state = ROUND_DONE;
    b->last_worker = v.worker;
    b->lease = v.lease;
    b->slot = v.slot;
    b->loss = v.loss;
    b->correct = v.correct;
    b->digest = v.digest;
    b->identity = v.identity;
    b->confirmed = confirmed;
    b->votes = 0;
    b->awaits_recompute = false;
    memset(b->holder, 0, sizeof b->holder);
    r->done++;
    r->audited -= b->audited;
}

/* A done block is pending again. */
static void undo(coord_round *r, round_block *b) {
    COP_ASSERT(b->state == ROUND_DONE && !b->absent);
    b->slot = b->lease = 0;
    b->confirmed = false;
    r->done--;
    r->audited += b->audited;
    b->lost++;
    make_pending(r, b);
}

static round_vote vote_of(const round_block *b) {
    return (round_vote){.worker = b->last_worker,
                        .identity = b->identity,
                        .lease = b->lease,
                        .slot = b->slot,
                        .digest = b->digest,
                        .correct = b->correct,
                        .loss = b->loss,
                        .finite = true};
}

void round_dispute(coord_round *r, int block, const round_vote *other) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_DONE && !b->confirmed);
    b->vote[0] = vote_of(b);
    b->vote[1] = *other;
    b->votes = 2;
    undo(r, b);
    r->audited += !b->audited;
    b->audited = true;
    b->needs = 3;
}

void round_recheck(coord_round *r, int block, uint64_t digest, uint64_t now_ns) {
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_DONE && !b->confirmed && digest);
    b->vote[0] = vote_of(b);
    b->vote[0].digest = digest;
    b->votes = 1;
    b->voted_ns = now_ns;
    undo(r, b);
    r->audited += !b->audited;
    b->audited = true;
    b->needs = 2;
}

uint64_t round_reject(coord_round *r, int block, uint64_t digest, uint64_t avoid_until_ns) {
    round_block *b = &r->blocks[block];
    uint64_t slot = b->slot;
    b->vote[0] = vote_of(b);
    b->vote[0].slot = 0;
    b->vote[0].digest = digest;
    b->vote[0].finite = false;
    b->votes = 1;
    b->needs = 2;
    undo(r, b);
    b->avoid_until_ns = avoid_until_ns;
    return slot;
}

uint64_t round_void_votes(coord_round *r, int block, uint64_t identity) {
    round_block *b = &r->blocks[block];
    if (b->state == ROUND_DONE) {
        if (b->absent || b->confirmed || b->identity != identity) return 0;
        uint64_t slot = b->slot;
        undo(r, b);
        return slot;
    }
    for (uint32_t v = 0; v < b->votes; v++) {
        if (b->vote[v].identity != identity) continue;
        uint64_t slot = b->vote[v].slot;
        r->lacking_second_vote -= round_wants_auditor(b);
        b->vote[v] = b->vote[--b->votes];
        r->lacking_second_vote += round_wants_auditor(b);
        uint64_t after = round_next_copy_ns(b); /* the block needs one more vote now, so its next
                                                   copy may be due earlier */
        if (b->state == ROUND_LEASED && after < r->overdue_ns) r->overdue_ns = after;
        return slot; /* an identity has one vote */
    }
    return 0;
}

bool round_complete(const coord_round *r) {
    if (r->members) return r->base == r->total;
    return r->count > 0 && r->done == r->count;
}

uint32_t round_holders(const coord_round *r, uint64_t now_ns) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->count; i++)
        for (int h = 0; h < ROUND_HOLDERS; h++) {
            const round_holder *holder = &r->blocks[i].holder[h];
            bool held = holder->worker && holder->worker != COORD_SELF;
            count += held && (!now_ns || now_ns < holder->deadline_ns);
        }
    return count;
}

bool round_is_recomputed(const coord_round *r) {
    for (uint32_t i = 0; i < r->count; i++)
        for (int h = 0; h < ROUND_HOLDERS; h++)
            if (r->blocks[i].holder[h].worker == COORD_SELF) return true;
    return false;
}
