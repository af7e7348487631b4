/* How long a worker's leases take. For one kind of lease of one job, a window holds the last
 * measurements, their median and their spread. A few very long times hardly change median and
 * spread: a worker that froze for a minute is expected to be as quick as before. Pure; called by
 * the core only. */
#ifndef COP_COORDINATOR_LEASE_TIMES_H
#define COP_COORDINATOR_LEASE_TIMES_H

#include <stdbool.h>
#include <stdint.h>

#define LEASE_TIMES_WINDOW 16 /* measurements in a window */
#define LEASE_TIMES_KNOWN  3  /* measurements from which conclusions may be drawn */
#define LEASE_TIMES_KINDS  4  /* windows (one for each job and kind) kept for each worker */

/* All times are of one *round*, which is as many shards as the worker has threads. They run from
 * the lease to its result, so they include the network. */
typedef struct coord_lease_times {
    uint64_t key;                 /* job and kind of lease; 0: a free entry */
    float ns[LEASE_TIMES_WINDOW]; /* the measurements, a ring */
    float median;
    float spread;    /* the median of the measurements' distances from `median` */
    float reference; /* `median` when lease_times_note last returned true; 0: not yet */
    uint8_t count;   /* number of measurements in the window */
    uint8_t next;    /* where the next one goes */
} coord_lease_times;

/* The entry with this key among LEASE_TIMES_KINDS entries; NULL: nothing was measured. */
const coord_lease_times *lease_times_find(const coord_lease_times *lease_times, uint64_t key);
/* Adds a measurement, in ns. Entries are in order of use; a new key replaces the least recently
 * used entry. True: plans that were based on the times must be made again. That is so when there
 * are enough measurements for the first time, and when the median has moved by more than a seventh
 * since this function last returned true. */
bool lease_times_note(coord_lease_times lease_times[LEASE_TIMES_KINDS], uint64_t key, double ns);
/* Are there enough measurements to draw conclusions? NULL: false. */
bool lease_times_known(const coord_lease_times *times);
/* How long, in ns, a lease of `rounds` rounds may take before it is overdue. For each round this is
 * twice the sum of the median and 9 spreads (for normally distributed times, 9 spreads are six
 * standard deviations). lease_times_known must be true. */
double lease_times_patience_ns(const coord_lease_times *times, uint32_t rounds);

#endif
