/* Rounds. See round.h. */
#include "coordinator/round.h"

#include <string.h>

#include "common/base/alloc.h"

bool round_is_node(uint32_t leaves, uint32_t first, uint32_t size)
{
    uint32_t a = 0, b = leaves;
    if (size == 0 || first >= leaves || size > leaves - first) return false;
    while (a != first || b != first + size) {
        uint32_t n = b - a, left = 1;
        if (n < 2) return false;
        while (left * 2 < n) left *= 2;
        uint32_t middle = a + left;
        if (first + size <= middle) b = middle;
        else if (first >= middle) a = middle;
        else return false;
    }
    return true;
}

/* Cost of blocks of `size`, in hundredths of a shard's time. */
static uint64_t block_cost(uint32_t shards, uint32_t size, const uint32_t *threads, uint32_t workers, uint32_t overhead)
{
    uint64_t busy[COP_SHARDS_MAX] = {0}, worst = 0;
    uint32_t used = workers < COP_SHARDS_MAX ? workers : COP_SHARDS_MAX;
    for (uint32_t at = 0; at < shards; at += size) {
        uint32_t n = shards - at < size ? shards - at : size, best = 0;
        uint64_t best_end = UINT64_MAX;
        for (uint32_t w = 0; w < used; w++) {
            uint32_t rounds = (n + threads[w] - 1) / threads[w];
            uint64_t end = busy[w] + (uint64_t)rounds * 100 + overhead;
            if (end >= best_end) continue;
            best_end = end;
            best = w;
        }
        busy[best] = best_end;
        if (best_end > worst) worst = best_end;
    }
    return worst;
}

uint32_t round_block_size(uint32_t shards, const uint32_t *threads, uint32_t workers, uint32_t overhead_percent)
{
    uint32_t best = 1;
    uint64_t best_cost = UINT64_MAX;
    if (!workers) return shards;
    for (uint32_t size = 1;; size *= 2) {
        uint64_t cost = block_cost(shards, size, threads, workers, overhead_percent);
        if (cost <= best_cost) { /* of equals the larger: fewer messages */
            best_cost = cost;
            best = size;
        }
        if (size >= shards) return best;
    }
}

static cop_err reserve(coord_round *r, uint32_t count)
{
    if (count > r->capacity) {
        round_block *blocks = cop_alloc_array(count, sizeof *blocks);
        if (!blocks) return COP_ERR_NO_MEMORY;
        cop_free(r->blocks);
        r->blocks = blocks;
        r->capacity = count;
    }
    memset(r->blocks, 0, count * sizeof *r->blocks);
    r->count = count;
    r->done = 0;
    return COP_OK;
}

cop_err round_begin_train(coord_round *r, uint64_t step, uint32_t batch, uint32_t shards, uint32_t size)
{
    COP_ASSERT(batch >= 1 && shards >= 1 && size >= 1);
    COP_TRY(reserve(r, (shards + size - 1) / size));
    r->evaluate = false;
    r->step = step;
    r->batch = batch;
    r->shards = shards;
    for (uint32_t i = 0; i < r->count; i++) {
        round_block *b = &r->blocks[i];
        b->first = i * size;
        b->count = shards - b->first < size ? shards - b->first : size;
        b->absent = b->first >= batch;
        b->state = b->absent ? ROUND_DONE : ROUND_PENDING;
        r->done += b->absent;
        COP_ASSERT(round_is_node(shards, b->first, b->count));
    }
    return COP_OK;
}

cop_err round_begin_evaluate(coord_round *r, uint64_t step, uint32_t n)
{
    COP_ASSERT(n >= 1);
    COP_TRY(reserve(r, (n + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE));
    r->evaluate = true;
    r->step = step;
    r->batch = n;
    r->shards = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        round_block *b = &r->blocks[i];
        b->first = i * COP_EVAL_SLICE;
        b->count = n - b->first < COP_EVAL_SLICE ? n - b->first : COP_EVAL_SLICE;
        b->state = ROUND_PENDING;
    }
    return COP_OK;
}

void round_fini(coord_round *r)
{
    cop_free(r->blocks);
    memset(r, 0, sizeof *r);
}

/* ---- leases ---- */

static bool holds(const round_block *b, uint64_t worker)
{
    for (int h = 0; h < ROUND_HOLDERS; h++)
        if (b->holder[h].worker == worker) return true;
    return false;
}

/* All leases of the block are overdue and there is room for one more. */
static bool wants_double(const round_block *b, uint64_t now_ns)
{
    bool room = false;
    for (int h = 0; h < ROUND_HOLDERS; h++) {
        if (!b->holder[h].worker) room = true;
        else if (now_ns < b->holder[h].deadline_ns) return false;
    }
    return room;
}

int round_pick(const coord_round *r, uint64_t worker, uint64_t now_ns, bool only_worker)
{
    int urgent = -1, pending = -1, suspect = -1, overdue = -1;
    for (uint32_t i = 0; i < r->count; i++) {
        const round_block *b = &r->blocks[i];
        if (b->state == ROUND_PENDING) {
            bool own = b->last_worker == worker && !only_worker;
            if (own && suspect < 0) suspect = (int)i;
            else if (!own && b->urgent && urgent < 0) urgent = (int)i;
            else if (!own && pending < 0) pending = (int)i;
        } else if (b->state == ROUND_LEASED && overdue < 0 && !holds(b, worker) && wants_double(b, now_ns)) {
            overdue = (int)i;
        }
    }
    (void)suspect; /* left for somebody else */
    return urgent >= 0 ? urgent : pending >= 0 ? pending : overdue;
}

void round_give(coord_round *r, int block, uint64_t worker, uint64_t lease, uint64_t now_ns, uint64_t deadline_ns)
{
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state != ROUND_DONE && worker && lease && deadline_ns > now_ns);
    int h = 0;
    while (b->holder[h].worker) h++;
    COP_ASSERT(h < ROUND_HOLDERS);
    b->holder[h] = (round_holder){.worker = worker, .lease = lease, .deadline_ns = deadline_ns, .given_ns = now_ns, .attempt = ++b->attempts};
    b->state = ROUND_LEASED;
}

int round_find(const coord_round *r, uint64_t lease, int *holder)
{
    for (uint32_t i = 0; lease && i < r->count; i++)
        for (int h = 0; h < ROUND_HOLDERS; h++)
            if (r->blocks[i].holder[h].worker && r->blocks[i].holder[h].lease == lease) {
                *holder = h;
                return (int)i;
            }
    return -1;
}

/* Back to pending when nobody holds it any more. */
static void settle(round_block *b)
{
    if (b->state != ROUND_LEASED) return;
    for (int h = 0; h < ROUND_HOLDERS; h++)
        if (b->holder[h].worker) return;
    b->state = ROUND_PENDING;
    b->urgent = true;
}

uint32_t round_forget(coord_round *r, uint64_t worker)
{
    uint32_t returned = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        round_block *b = &r->blocks[i];
        for (int h = 0; h < ROUND_HOLDERS; h++)
            if (b->holder[h].worker == worker) b->holder[h] = (round_holder){0};
        bool was_leased = b->state == ROUND_LEASED;
        settle(b);
        returned += was_leased && b->state == ROUND_PENDING;
    }
    return returned;
}

void round_finish(coord_round *r, int block, const coord_result_info *result)
{
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state != ROUND_DONE);
    b->state = ROUND_DONE;
    b->slot = result->slot;
    b->loss = result->loss;
    b->samples = result->samples;
    b->correct = result->correct;
    b->compute_ns = result->compute_ns;
    memset(b->holder, 0, sizeof b->holder);
    r->done++;
}

void round_return(coord_round *r, int block, int holder)
{
    round_block *b = &r->blocks[block];
    COP_ASSERT(b->state == ROUND_LEASED);
    b->last_worker = b->holder[holder].worker;
    b->holder[holder] = (round_holder){0};
    settle(b);
}

bool round_complete(const coord_round *r)
{
    return r->count > 0 && r->done == r->count;
}

uint32_t round_holders(const coord_round *r)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->count; i++)
        for (int h = 0; h < ROUND_HOLDERS; h++) count += r->blocks[i].holder[h].worker != 0;
    return count;
}

/* ---- sums ---- */

/* Binary counter over the blocks that are there: equal blocks of a power of two of shards (the last may be shorter) form the tree of D5 above them. */
static double tree_loss(const coord_round *r)
{
    struct { double value; uint32_t level; } stack[34] = {{0}};
    int depth = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->blocks[i].absent) break; /* absent blocks are the last ones */
        stack[depth].value = r->blocks[i].loss;
        stack[depth].level = 0;
        depth++;
        while (depth >= 2 && stack[depth - 1].level == stack[depth - 2].level) {
            stack[depth - 2].value += stack[depth - 1].value;
            stack[depth - 2].level++;
            depth--;
        }
    }
    while (depth >= 2) {
        stack[depth - 2].value += stack[depth - 1].value;
        depth--;
    }
    return stack[0].value;
}

double round_loss(const coord_round *r)
{
    if (!r->evaluate) return tree_loss(r);
    double sum = 0;
    for (uint32_t i = 0; i < r->count; i++) sum += r->blocks[i].loss;
    return sum;
}

void round_check(const coord_round *r)
{
    uint32_t done = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const round_block *b = &r->blocks[i];
        bool               held = false;
        for (int h = 0; h < ROUND_HOLDERS; h++) {
            held = held || b->holder[h].worker;
            COP_ASSERT(!b->holder[h].worker || b->holder[h].deadline_ns > b->holder[h].given_ns);
        }
        COP_ASSERT(held == (b->state == ROUND_LEASED));
        done += b->state == ROUND_DONE;
    }
    COP_ASSERT(done == r->done);
}
