/* How long a worker's leases take: a window of the last measurements of one kind of lease of one
 * job, with their median and spread. Both are robust: a worker that was frozen for a minute, or
 * shared its core for a while, does not change what is expected of it. Pure; called by the
 * registry and the scheduler. */
#ifndef COP_COORDINATOR_LEASE_TIMES_H
#define COP_COORDINATOR_LEASE_TIMES_H

#include <stdbool.h>
#include <stdint.h>

#define LEASE_TIMES_WINDOW 16
#define LEASE_TIMES_KNOWN  3 /* measurements before anything is concluded */
#define LEASE_TIMES_KINDS  4 /* (job, kind) pairs kept for each worker */

/* Times are of one *round*: as many shards as the worker has threads, from the lease to its result
 * (so that the network counts). */
typedef struct coord_lease_times {
    uint64_t key; /* job and kind; 0: free */
    float ns[LEASE_TIMES_WINDOW];
    float median, spread; /* spread: median of the distances from the median */
    float reference;      /* the median when it was last found to have changed */
    uint8_t count, next;
} coord_lease_times;

/* The entry for `key`; NULL: nothing is known. */
const coord_lease_times *lease_times_find(const coord_lease_times *lease_times, uint64_t key);
/* Adds a measurement; the entry used longest ago makes room for a new key (entries are kept in
 * order of use). True: the median has moved by more than a seventh since this was last said, so
 * plans made for the old one are stale. */
bool lease_times_note(coord_lease_times lease_times[LEASE_TIMES_KINDS], uint64_t key, double ns);
/* Is there enough to conclude from? */
bool lease_times_known(const coord_lease_times *times);
/* How long `rounds` rounds may take before the lease counts as overdue: twice what six standard
 * deviations (9 spreads, for normal times) above the median say. */
double lease_times_patience_ns(const coord_lease_times *times, uint32_t rounds);

#endif
