/* Partition of a step's shards. See partition.h. */
#include "coordinator/partition.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/limits.h"

#define TAIL_MAX 16 /* blocks at the end that may be cut smaller */

/* ---- candidates ---- */

/* Left half of a node of `size` leaves: the largest power of two below. */
static uint32_t left_of(uint32_t size) {
    uint32_t left = 1;
    while (left * 2 < size) left *= 2;
    return left;
}

static uint32_t append_cut(uint32_t *sizes, uint32_t count, uint32_t size, uint32_t depth) {
    if (depth == 0 || size < 2) {
        sizes[count] = size;
        return count + 1;
    }
    count = append_cut(sizes, count, left_of(size), depth - 1);
    return append_cut(sizes, count, size - left_of(size), depth - 1);
}

/* Blocks of `size`, the last `tail` of them cut `depth` times. */
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

typedef struct seat {
    uint64_t free_at; /* hundredths of a shard's time */
    uint32_t threads;
} seat;

static bool sooner(const seat *a, const seat *b) {
    return a->free_at < b->free_at || (a->free_at == b->free_at && a->threads > b->threads);
}

static void sift_down(seat *heap, uint32_t count, uint32_t at) {
    for (;;) {
        uint32_t least = at, left = 2 * at + 1;
        if (left < count && sooner(&heap[left], &heap[least])) least = left;
        if (left + 1 < count && sooner(&heap[left + 1], &heap[least])) least = left + 1;
        if (least == at) return;
        seat swap = heap[at];
        heap[at] = heap[least];
        heap[least] = swap;
        at = least;
    }
}

/* When the last block is done, if each goes to whoever is free first. */
static uint64_t makespan(const uint32_t *sizes, uint32_t count, const uint32_t *threads,
                         uint32_t workers, uint32_t overhead) {
    seat heap[COP_SHARDS_MAX];
    uint64_t worst = 0;
    for (uint32_t w = 0; w < workers; w++) heap[w] = (seat){.threads = threads[w]};
    for (uint32_t at = workers / 2; at-- > 0;) sift_down(heap, workers, at);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rounds = (sizes[i] + heap[0].threads - 1) / heap[0].threads;
        heap[0].free_at += (uint64_t)rounds * 100 + overhead;
        if (heap[0].free_at > worst) worst = heap[0].free_at;
        sift_down(heap, workers, 0);
    }
    return worst;
}

/* ---- choice ---- */

typedef struct choice {
    uint64_t cost;
    uint32_t count, size, tail, depth;
} choice;

static void consider(choice *best, choice candidate) {
    /* Of equals the one with fewer blocks: fewer messages. */
    if (candidate.cost > best->cost) return;
    if (candidate.cost == best->cost && candidate.count >= best->count) return;
    *best = candidate;
}

uint32_t partition_plan(uint32_t shards, uint32_t largest, const uint32_t *threads,
                        uint32_t workers, uint32_t overhead_percent, uint32_t *sizes) {
    COP_ASSERT(shards >= 1 && shards <= COP_SHARDS_MAX && largest >= 1);
    uint32_t used = workers < shards ? workers : shards, top = 1; /* more find nothing to do */
    while (top < shards && (top * 2 <= largest || shards <= largest)) top *= 2;
    if (used == 0) return cut(shards, top, 0, 0, sizes);
    choice best = {.cost = UINT64_MAX};
    for (uint32_t size = top; size >= 1; size /= 2) {
        uint32_t whole = (shards + size - 1) / size;
        /* Far more blocks than workers only cost leases. */
        if (size < top && whole > 8 * used && best.cost != UINT64_MAX) break;
        uint32_t tails = whole < TAIL_MAX ? whole : TAIL_MAX;
        for (uint32_t depth = 0; depth <= 2; depth++)
            for (uint32_t tail = depth ? 1 : 0; tail <= (depth && size > 1 ? tails : 0); tail++) {
                uint32_t count = cut(shards, size, tail, depth, sizes);
                consider(&best, (choice){makespan(sizes, count, threads, used, overhead_percent),
                                         count, size, tail, depth});
            }
    }
    COP_ASSERT(best.cost != UINT64_MAX);
    return cut(shards, best.size, best.tail, best.depth, sizes);
}
