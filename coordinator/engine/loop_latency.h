/* How long the loop thread did not look for messages: a histogram of the times of its rounds,
 * without sleep. A second one has the processor time of each round, which other programs on the
 * machine do not lengthen. Loop thread only. */
#ifndef COP_COORDINATOR_LOOP_LATENCY_H
#define COP_COORDINATOR_LOOP_LATENCY_H

#include <stdint.h>
#include <uv.h>

/* 8 bins per doubling: a figure is at most an eighth too high */
#define COORD_TIME_BINS (8 * 62)

typedef struct coord_times {
    uint64_t count, most_ns;
    uint64_t bins[COORD_TIME_BINS];
} coord_times;

typedef struct coord_loop_latency {
    uv_prepare_t prepare;
    uint64_t since_ns, slept_ns, computed_ns; /* at the end of the last round */
    coord_times away, computing;
} coord_loop_latency;

void coord_times_add(coord_times *times, uint64_t ns);
/* The time in ns that a share (0..1) of all rounds did not exceed; 0: there were none. */
uint64_t coord_times_at(const coord_times *times, double share);

/* Starts counting the rounds of the loop, which must have UV_METRICS_IDLE_TIME. The handle is
 * closed with the loop's others and does not keep the loop alive. Loop thread. */
void coord_loop_latency_start(coord_loop_latency *latency, uv_loop_t *loop);

#endif
