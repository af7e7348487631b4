/* Clocks. Only programs and common/net read them; decisions take `now` as an argument (D8).
 * Thread-safe. */
#ifndef COP_BASE_CLOCK_H
#define COP_BASE_CLOCK_H

#include <stdint.h>

/* Returns monotonic time, for durations and deadlines. It never jumps, and has nothing to do with
 * the time of day. */
uint64_t cop_clock_ns(void);
/* Returns the CPU time that this thread has used. */
uint64_t cop_clock_thread_ns(void);
/* Returns the wall clock: milliseconds since 1970 in UTC. It may jump when somebody sets it, so use
 * it only for people and records. */
int64_t cop_clock_unix_ms(void);
/* Blocks this thread for at least `ms` milliseconds; signals do not shorten it. */
void cop_clock_sleep_ms(unsigned ms);
/* Convert seconds from outside (an option, a job field) so that later arithmetic cannot overflow.
 * Zero, negative values and NaN give 0. Positive values give at least one unit, and at most
 * COP_MS_MAX or COP_SECONDS_MAX seconds in ns. Milliseconds fit the 31 bits of nng. */
#define COP_MS_MAX      2000000000u /* 23 days */
#define COP_SECONDS_MAX 1e9         /* 31 years; now + this fits 64 bits of ns */
uint32_t cop_seconds_to_ms(double seconds);
uint64_t cop_seconds_to_ns(double seconds);
/* Formats as "2026-11-23T17:26:25.123Z" into `out`, and returns `out`. */
const char *cop_clock_format_utc(int64_t unix_ms, char out[32]);

#endif
