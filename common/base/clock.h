/* Clocks. Results never depend on a clock (rule D8 of docs/reference/portable-1.md), and functions
 * that decide something get the time as an argument `now`. All functions are thread-safe. */
#ifndef COP_BASE_CLOCK_H
#define COP_BASE_CLOCK_H

#include <stdint.h>

/* Returns the nanoseconds of a clock that never jumps (CLOCK_MONOTONIC). Only differences have a
 * meaning: use it for durations and deadlines, not for the time of day. */
uint64_t cop_clock_ns(void);
/* Returns the CPU time that the calling thread has used, in nanoseconds. */
uint64_t cop_clock_thread_ns(void);
/* Returns the time of day in milliseconds since 1970-01-01 00:00 UTC. It jumps when somebody sets
 * the clock, so use it only in messages and records, not for durations. */
int64_t cop_clock_unix_ms(void);
/* Blocks the calling thread for at least `ms` milliseconds, even if signals arrive. */
void cop_clock_sleep_ms(unsigned ms);
/* The next two functions convert seconds from outside (an option, a job field) to milliseconds and
 * to nanoseconds. They return 0 for zero, negative values and NaN. For a positive value they return
 * at least 1, and at most COP_MS_MAX milliseconds or COP_SECONDS_MAX seconds. */
#define COP_MS_MAX      2000000000u /* 23 days; fits into nng's durations, which have 31 bits */
#define COP_SECONDS_MAX 1e9         /* 31 years; adding it to cop_clock_ns() does not overflow */
uint32_t cop_seconds_to_ms(double seconds);
uint64_t cop_seconds_to_ns(double seconds);
/* Formats a time of cop_clock_unix_ms as "2026-11-23T17:26:25.123Z" in `out`. Returns `out`. */
const char *cop_clock_format_utc(int64_t unix_ms, char out[32]);

#endif
