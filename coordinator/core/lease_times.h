/* How long a worker's leases take: a window of the last measurements for one kind of lease of one
 * job, with median and spread. Both are robust: a worker that froze for a minute, or shared its
 * core for a while, is expected to be as quick as before. Pure; called by the core only. */
#ifndef COP_COORDINATOR_LEASE_TIMES_H
#define COP_COORDINATOR_LEASE_TIMES_H

#include <stdbool.h>
#include <stdint.h>

#define LEASE_TIMES_WINDOW 16
#define LEASE_TIMES_KNOWN  3 /* measurements before they count */
#define LEASE_TIMES_KINDS  4 /* (job, kind) pairs kept for each worker */

/* Times are of one *round*: as many shards as the worker has threads. They run from the lease to
 * its result, so they include the network. */
typedef struct coord_lease_times {
    uint64_t key; /* job and kind; 0: free */
    float ns[LEASE_TIMES_WINDOW];
    float median, spread; /* spread: median of the distances from the median */
    float reference;      /* the median when it last changed by more than a seventh */
    uint8_t count, next;
} coord_lease_times;

/* The entry for `key`; NULL: nothing was measured. */
const coord_lease_times *lease_times_find(const coord_lease_times *lease_times, uint64_t key);
/* Adds a measurement, in ns. A new key replaces the least recently used entry (entries are in order
 * of use). True: the median has moved by more than a seventh since this last returned true, so
 * plans based on it are stale. */
bool lease_times_note(coord_lease_times lease_times[LEASE_TIMES_KINDS], uint64_t key, double ns);
/* Are there enough measurements to draw conclusions? */
bool lease_times_known(const coord_lease_times *times);
/* How long `rounds` rounds may take before the lease is overdue: twice the median plus six standard
 * deviations (9 spreads, for normally distributed times). The times must be known. */
double lease_times_patience_ns(const coord_lease_times *times, uint32_t rounds);

#endif
