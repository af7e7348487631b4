/* A histogram of the loop's rounds. See loop_latency.h. A round lasts from one poll of the system
 * to the next; libuv counts the time that it sleeps in the poll, which is subtracted. */
#include "coordinator/engine/loop_latency.h"

#include <math.h>

#include "common/base/clock.h"
#include "common/base/err.h"

/* Each time from 0 to 15 ns has a bin of its own. For longer times, the 3 bits below the highest
 * set bit select one of the eight bins of its doubling. */
static uint32_t bin_of(uint64_t ns) {
    if (ns < 16) return (uint32_t)ns;
    const uint32_t doubling = 63 - (uint32_t)__builtin_clzll(ns);
    return 8 * (doubling - 2) + (uint32_t)(ns >> (doubling - 3) & 7);
}

/* The longest time, in ns, that is counted in this bin. */
static uint64_t end_of(uint32_t bin) {
    if (bin < 16) return bin;
    const uint32_t doubling = bin / 8 + 2;
    return ((uint64_t)(8 + bin % 8 + 1) << (doubling - 3)) - 1;
}

void coord_times_add(coord_times *s, uint64_t ns) {
    const uint32_t bin = bin_of(ns);
    COP_ASSERT(bin < COORD_TIME_BINS && ns <= end_of(bin));
    s->bins[bin]++;
    s->count++;
    s->sum_ns += ns;
    if (ns > s->max_ns) s->max_ns = ns;
}

uint64_t coord_times_quantile(const coord_times *s, double share) {
    COP_ASSERT(share >= 0 && share <= 1);
    const double wanted = ceil(share * (double)s->count);
    uint64_t seen = 0;
    for (uint32_t bin = 0; bin < COORD_TIME_BINS; bin++) {
        seen += s->bins[bin];
        if (!seen || (double)seen < wanted) continue;
        const uint64_t end = end_of(bin);
        return end < s->max_ns ? end : s->max_ns;
    }
    return 0;
}

uint64_t coord_times_within(const coord_times *s, uint64_t ns) {
    uint64_t seen = 0;
    for (uint32_t bin = 0; bin < COORD_TIME_BINS && end_of(bin) <= ns; bin++) seen += s->bins[bin];
    return seen;
}

static void on_prepare(uv_prepare_t *prepare) {
    coord_loop_latency *s = prepare->data;
    const uint64_t now = cop_clock_ns(), slept = uv_metrics_idle_time(prepare->loop);
    const uint64_t computed = cop_clock_thread_ns();
    const uint64_t round = now - s->since_ns, sleep = slept - s->slept_ns;
    const uint64_t away = round > sleep ? round - sleep : 0;
    coord_times_add(&s->away, away);
    cop_lane_add(s->lane, COP_PHASE_TRANSFER, 0, now - away, now);
    coord_times_add(&s->computing, computed - s->computed_ns);
    s->since_ns = now;
    s->slept_ns = slept;
    s->computed_ns = computed;
}

void coord_loop_latency_start(coord_loop_latency *s, uv_loop_t *loop) {
    s->prepare.data = s;
    s->since_ns = cop_clock_ns();
    s->slept_ns = uv_metrics_idle_time(loop);
    s->computed_ns = cop_clock_thread_ns();
    uv_prepare_init(loop, &s->prepare);
    uv_prepare_start(&s->prepare, on_prepare);
    uv_unref((uv_handle_t *)&s->prepare);
}
