/* Partition of a step's shards. See partition.h. */
#include "coordinator/core/partition.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/base/shards.h"

#define TAIL_MAX 16 /* blocks at the end that may be cut smaller */

/* ---- candidates ---- */

static uint32_t append_cut(uint32_t *sizes, uint32_t count, uint32_t size, uint32_t depth) {
    if (depth == 0 || size < 2) {
        sizes[count] = size;
        return count + 1;
    }
    count = append_cut(sizes, count, cop_tree_left(size), depth - 1);
    return append_cut(sizes, count, size - cop_tree_left(size), depth - 1);
}

/* Fills `sizes` with blocks of `size`, of which the last `tail` are halved `depth` times. Returns
 * the number of blocks. */
static uint32_t cut(uint32_t shards, uint32_t size, uint32_t tail, uint32_t depth,
                    uint32_t *sizes) {
    uint32_t whole = (shards + size - 1) / size, count = 0;
    for (uint32_t i = 0; i < whole; i++) {
        uint32_t n = i + 1 < whole ? size : shards - i * size;
        count = append_cut(sizes, count, n, i + tail >= whole ? depth : 0);
    }
    COP_ASSERT(count <= shards);
    return count;
}

/* ---- simulation ---- */

#define TRIALS_MAX 8192 /* blocks times workers in one trial of an unequal pool */

typedef partition_pool pool;

static uint64_t block_time(const pool *p, uint32_t worker, uint32_t size) {
    const partition_worker *w = &p->worker[worker];
    return (uint64_t)((size + w->threads - 1) / w->threads) * w->round + p->overhead_percent;
}

static bool all_alike(const pool *p) {
    for (uint32_t w = 1; w < p->count; w++)
        if (p->worker[w].threads != p->worker[0].threads ||
            p->worker[w].round != p->worker[0].round)
            return false;
    return true;
}

/* As makespan, for equal workers: the worker that is free first would also finish a block first. */
static uint64_t makespan_equal(const pool *p, const uint32_t *sizes, uint32_t count) {
    uint64_t free_at[COP_SHARDS_MAX], worst = 0;
    memset(free_at, 0, p->count * sizeof *free_at);
    for (uint32_t i = 0; i < count; i++) { /* the heap's top is free first */
        uint64_t at = free_at[0] + block_time(p, 0, sizes[i]);
        if (at > worst) worst = at;
        uint32_t hole = 0;
        for (uint32_t child = 1; child < p->count; child = 2 * hole + 1) {
            if (child + 1 < p->count && free_at[child + 1] < free_at[child]) child++;
            if (free_at[child] >= at) break;
            free_at[hole] = free_at[child];
            hole = child;
        }
        free_at[hole] = at;
    }
    return worst;
}

static uint64_t makespan_unequal(const pool *p, const uint32_t *sizes, uint32_t count) {
    uint64_t free_at[COP_SHARDS_MAX], worst = 0;
    memset(free_at, 0, p->count * sizeof *free_at);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t best = UINT64_MAX;
        uint32_t chosen = 0;
        for (uint32_t w = 0; w < p->count; w++) {
            uint64_t end = free_at[w] + block_time(p, w, sizes[i]);
            if (end >= best) continue;
            best = end;
            chosen = w;
        }
        free_at[chosen] = best;
        if (best > worst) worst = best;
    }
    return worst;
}

/* Returns when the last block is done, if each block goes to the worker that would finish it first.
 * The workers of a very large pool count as equal, because its blocks are single shards anyway. */
static uint64_t makespan(const pool *p, const uint32_t *sizes, uint32_t count) {
    bool quick = (uint64_t)count * p->count > TRIALS_MAX || all_alike(p);
    return quick ? makespan_equal(p, sizes, count) : makespan_unequal(p, sizes, count);
}

/* A lower bound for any cut that contains a block of `size`. */
static uint64_t least_time(const pool *p, uint32_t size) {
    uint64_t least = UINT64_MAX;
    for (uint32_t w = 0; w < p->count; w++) {
        uint64_t time = block_time(p, w, size);
        if (time < least) least = time;
    }
    return least;
}

/* ---- choice ---- */

typedef struct choice {
    uint64_t cost;
    uint32_t count, size, tail, depth;
} choice;

static void consider(choice *best, choice candidate) {
    /* Among candidates of equal cost, the one with the fewest blocks needs the fewest messages. */
    if (candidate.cost > best->cost) return;
    if (candidate.cost == best->cost && candidate.count >= best->count) return;
    *best = candidate;
}

/* Tries all cuts into blocks of `size`, with tails of each kind. */
static void try_size(const pool *p, uint32_t shards, uint32_t size, uint32_t *sizes, choice *best) {
    uint32_t whole = (shards + size - 1) / size;
    uint32_t tails = whole < TAIL_MAX ? whole : TAIL_MAX;
    for (uint32_t depth = 0; depth <= 2; depth++)
        for (uint32_t tail = depth ? 1 : 0; tail <= (depth && size > 1 ? tails : 0); tail++) {
            uint32_t count = cut(shards, size, tail, depth, sizes);
            const uint64_t serial = (uint64_t)count * p->serial_percent;
            consider(best, (choice){makespan(p, sizes, count) + serial, count, size, tail, depth});
        }
}

uint32_t partition_plan(uint32_t shards, uint32_t largest, const partition_pool *workers,
                        uint32_t *sizes, uint64_t *span) {
    COP_ASSERT(shards >= 1 && shards <= COP_SHARDS_MAX && largest >= 1);
    pool p = *workers;
    if (p.count > shards) p.count = shards; /* further workers would find nothing to do */
    uint32_t top = 1;
    while (top < shards && (top * 2 <= largest || shards <= largest)) top *= 2;
    if (span) *span = 0;
    if (p.count == 0) return cut(shards, top, 0, 0, sizes);
    choice best = {.cost = UINT64_MAX};
    /* Sizes are tried from small to large, until they are too large to be quicker. Sizes that give
     * more than 8 blocks per worker are left out, because they only cost leases. */
    uint32_t size = 1;
    while (size < top && (shards + size - 1) / size > 8 * p.count) size *= 2;
    for (; size <= top; size *= 2) {
        uint32_t whole = (shards + size - 1) / size;
        uint32_t uncut = whole > TAIL_MAX ? size : size > 4 ? size / 4 : 1;
        if (least_time(&p, uncut) > best.cost) break;
        try_size(&p, shards, size, sizes, &best);
    }
    COP_ASSERT(best.cost != UINT64_MAX);
    if (span) *span = best.cost - (uint64_t)best.count * p.serial_percent;
    return cut(shards, best.size, best.tail, best.depth, sizes);
}
