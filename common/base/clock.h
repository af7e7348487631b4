/* Clocks. Only programs and common/net read them; decisions take `now` as an argument (D8). */
#ifndef COP_BASE_CLOCK_H
#define COP_BASE_CLOCK_H

#include <stdint.h>

uint64_t cop_clock_ns(void);        /* monotonic */
uint64_t cop_clock_thread_ns(void); /* what this thread has computed */
int64_t cop_clock_unix_ms(void);    /* wall clock */
void cop_clock_sleep_ms(unsigned ms);
/* "2026-11-23T17:26:25.123Z" */
const char *cop_clock_format_utc(int64_t unix_ms, char out[32]);

#endif
