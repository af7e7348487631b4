/* How long a worker's leases take: a window of the last measurements of one kind of lease of one
 * job, with their median and spread. Both are robust: a worker that was frozen for a minute, or
 * shared its core for a while, does not change what is expected of it. Pure; called by the
 * registry and the scheduler. */
#ifndef COP_COORDINATOR_SPEED_H
#define COP_COORDINATOR_SPEED_H

#include <stdbool.h>
#include <stdint.h>

#define SPEED_WINDOW 16
#define SPEED_KNOWN  3 /* measurements before anything is concluded */
#define SPEED_KINDS  4 /* (job, kind) pairs kept for each worker */

/* Times are of one *round*: as many shards as the worker has threads, from the lease to its result
 * (so that the network counts). */
typedef struct coord_speed {
    uint64_t key; /* job and kind; 0: free */
    float ns[SPEED_WINDOW];
    float median, spread; /* spread: median of the distances from the median */
    float reference;      /* the median when it was last found to have changed */
    uint8_t count, next;
} coord_speed;

/* The entry for `key`; NULL: nothing is known. */
const coord_speed *speed_find(const coord_speed *speeds, uint64_t key);
/* Adds a measurement; the entry used longest ago makes room for a new key (entries are kept in
 * order of use). True: the median has moved by more than a seventh since this was last said, so
 * plans made for the old one are stale. */
bool speed_note(coord_speed speeds[SPEED_KINDS], uint64_t key, double ns);
/* Is there enough to conclude from? */
bool speed_known(const coord_speed *speed);
/* How long `rounds` rounds may take before the lease counts as overdue: twice what six standard
 * deviations (9 spreads, for normal times) above the median say. */
double speed_patience_ns(const coord_speed *speed, uint32_t rounds);

#endif
