/* Clocks. See clock.h. */
#include "common/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

uint64_t cop_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t cop_clock_thread_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int64_t cop_clock_unix_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void cop_clock_sleep_ms(unsigned ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) && errno == EINTR) {}
}

/* Converts seconds to units, of which a second has `scale`. The result is at most `limit`. */
static double to_units(double seconds, double scale, double limit) {
    if (!(seconds > 0)) return 0;
    const double units = seconds * scale;
    return units < 1 ? 1 : units < limit ? units : limit;
}

uint32_t cop_seconds_to_ms(double seconds) {
    return (uint32_t)to_units(seconds, 1e3, COP_MS_MAX);
}

uint64_t cop_seconds_to_ns(double seconds) {
    return (uint64_t)to_units(seconds, 1e9, COP_SECONDS_MAX * 1e9);
}

const char *cop_clock_format_utc(int64_t unix_ms, char out[32]) {
    int64_t ms = unix_ms % 1000;
    time_t seconds = (time_t)(unix_ms / 1000);
    if (ms < 0) { /* before 1970, / and % round towards 0 instead of towards the past */
        ms += 1000;
        seconds--;
    }
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t length = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + length, 32 - length, ".%03dZ", (int)ms);
    return out;
}
