/* How long the loop thread did not look for messages: the time of each of its rounds but for what
 * it slept, in a histogram; and what it computed in them, which neighbours on the machine do not
 * lengthen. Loop thread only. */
#ifndef COP_COORDINATOR_LOOP_LATENCY_H
#define COP_COORDINATOR_LOOP_LATENCY_H

#include <stdint.h>
#include <uv.h>

/* 8 bins for each doubling: a figure is at most an eighth too high. */
#define COORD_TIME_BINS (8 * 62)

typedef struct coord_times {
    uint64_t count, most_ns;
    uint64_t bins[COORD_TIME_BINS];
} coord_times;

typedef struct coord_loop_latency {
    uv_prepare_t prepare;
    uint64_t since_ns, slept_ns, computed_ns; /* at the last round's end */
    coord_times away, computing;
} coord_loop_latency;

void coord_times_add(coord_times *times, uint64_t ns);
/* Nanoseconds that a share of all (0 .. 1) did not take longer than; 0 before the first. */
uint64_t coord_times_at(const coord_times *times, double share);

/* Counts the rounds of the loop, which has UV_METRICS_IDLE_TIME, from now on. The handle is closed
 * with the loop's others, and does not keep the loop alive. On the loop's thread. */
void coord_loop_latency_start(coord_loop_latency *latency, uv_loop_t *loop);

#endif
