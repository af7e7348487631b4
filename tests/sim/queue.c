/* Virtual time: a heap of events, ordered by time. Events of the same time are ordered by posting.
 * This file also makes the random draws. */
#include "sim/sim.h"

#include "common/base/alloc.h"

/* ---- dice ---- */

uint64_t sim_mix(uint64_t a, uint64_t b) {
    uint64_t x = (a ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + b;
    x = (x ^ (x >> 29)) * 0x94d049bb133111ebu;
    return x ^ (x >> 32);
}

uint64_t sim_next(sim_stream *stream) {
    return sim_mix(stream->key, sim_mix(++stream->count, stream->key >> 7));
}

uint64_t sim_below(sim_stream *stream, uint64_t n) {
    COP_ASSERT(n > 0);
    return sim_next(stream) % n;
}

bool sim_chance(sim_stream *stream, uint32_t per_mille) {
    return per_mille && sim_below(stream, 1000) < per_mille;
}

uint64_t sim_heavy(sim_stream *stream, uint64_t low, uint64_t high) {
    uint64_t dice = sim_next(stream), value = low;
    for (; dice & 1 && value < high; dice >>= 1) value *= 2;
    value += sim_below(stream, value + 1);
    return value < high ? value : high;
}

/* ---- the heap ---- */

static bool sooner(const sim_event *a, const sim_event *b) {
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

void sim_post(sim *s, uint64_t delay, sim_event event) {
    sim_queue *q = &s->queue;
    if (q->count == q->capacity) {
        q->capacity = q->capacity ? q->capacity * 2 : 256;
        q->heap = cop_realloc(q->heap, q->capacity * sizeof *q->heap);
        COP_ASSERT(q->heap != NULL);
    }
    event.time = s->now + delay;
    event.order = ++s->order;
    uint32_t at = q->count++;
    for (; at && sooner(&event, &q->heap[(at - 1) / 2]); at = (at - 1) / 2)
        q->heap[at] = q->heap[(at - 1) / 2];
    q->heap[at] = event;
}

sim_event sim_take(sim *s) {
    sim_queue *q = &s->queue;
    COP_ASSERT(q->count > 0);
    sim_event first = q->heap[0], last = q->heap[--q->count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= q->count) break;
        if (child + 1 < q->count && sooner(&q->heap[child + 1], &q->heap[child])) child++;
        if (!sooner(&q->heap[child], &last)) break;
        q->heap[at] = q->heap[child];
        at = child;
    }
    if (q->count) q->heap[at] = last;
    return first;
}

coord_event *sim_event_new(const coord_event *event) {
    coord_event *copy = cop_alloc(sizeof *copy);
    COP_ASSERT(copy != NULL);
    *copy = *event;
    return copy;
}

sim_message *sim_message_new(const sim_message *m) {
    sim_message *copy = cop_alloc(sizeof *copy);
    COP_ASSERT(copy != NULL);
    *copy = *m;
    return copy;
}
