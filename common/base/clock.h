/* Clocks. Only programs and common/net read them; decisions take `now` as an argument (D8). */
#ifndef COP_BASE_CLOCK_H
#define COP_BASE_CLOCK_H

#include <stdint.h>

uint64_t cop_clock_ns(void);        /* monotonic */
uint64_t cop_clock_thread_ns(void); /* what this thread has computed */
int64_t cop_clock_unix_ms(void);    /* wall clock */
void cop_clock_sleep_ms(unsigned ms);
/* Seconds from outside (an option, a job field) as other units, for arithmetic that cannot
 * overflow: 0 and less, and what is not a number, give 0; anything more at least one unit, at most
 * COP_MS_MAX, or COP_SECONDS_MAX seconds in ns. Milliseconds fit nng's 31 bits. */
#define COP_MS_MAX      2000000000u /* 23 days */
#define COP_SECONDS_MAX 1e9         /* 31 years; now + this fits 64 bits of ns */
uint32_t cop_seconds_to_ms(double seconds);
uint64_t cop_seconds_to_ns(double seconds);
/* "2026-11-23T17:26:25.123Z" */
const char *cop_clock_format_utc(int64_t unix_ms, char out[32]);

#endif
