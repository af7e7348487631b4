/* How long the loop thread did not look for messages. A round of the loop lasts from one poll of
 * the system to the next. One histogram has the time of each round without the time that it slept
 * in the poll. A second one has the processor time of each round, which other programs on the
 * machine do not lengthen. Loop thread only. */
#ifndef COP_COORDINATOR_LOOP_LATENCY_H
#define COP_COORDINATOR_LOOP_LATENCY_H

#include <stdint.h>
#include <uv.h>

#include "common/nn/profile.h"

/* There are 8 bins per doubling, so a time read from a histogram is at most an eighth too high. */
#define COORD_TIME_BINS (8 * 62)

/* A histogram of times. */
typedef struct coord_times {
    uint64_t count;  /* number of times */
    uint64_t max_ns; /* the longest time */
    uint64_t sum_ns; /* of all times */
    uint64_t bins[COORD_TIME_BINS];
} coord_times;

typedef struct coord_loop_latency {
    uv_prepare_t prepare;
    cop_lane *lane;        /* the loop thread's lane in a profile; NULL: no profile is made */
    uint64_t since_ns;     /* when the last round ended */
    uint64_t slept_ns;     /* total time slept until then */
    uint64_t computed_ns;  /* processor time of the thread until then */
    coord_times away;      /* times of rounds, without sleep */
    coord_times computing; /* processor times of rounds */
} coord_loop_latency;

void coord_times_add(coord_times *times, uint64_t ns);
/* Returns a quantile in ns: a fraction `share` (0 to 1) of all times did not exceed it. 0: there
 * are no times. */
uint64_t coord_times_quantile(const coord_times *times, double share);
/* How many times were at most `ns`. The bin that contains `ns` does not count, so the result may be
 * too small by times between 8/9 of `ns` and `ns`. */
uint64_t coord_times_within(const coord_times *times, uint64_t ns);

/* Starts measuring the rounds of the loop, which must be configured with UV_METRICS_IDLE_TIME. The
 * caller closes latency->prepare with the loop's other handles; it does not keep the loop alive. */
void coord_loop_latency_start(coord_loop_latency *latency, uv_loop_t *loop);

#endif
