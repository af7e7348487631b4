/* Logging: one line per event on standard error, for people or as JSON (--log-json). Thread-safe.
 * Levels debug < info < warn < error; default info; COPPICE_LOG=debug overrides. The format is
 * "2026-11-23T17:26:25.123Z info  coordinator: job 3 started" or
 * {"time":..,"clock_ns":..,"level":..,"area":..,"text":..}, clock_ns being CLOCK_MONOTONIC, for
 * durations. A text may quote a peer: control characters become
 * '?' (in JSON: escapes), so that an event stays one line. Texts are cut at 1999 bytes. */
#ifndef COP_BASE_LOG_H
#define COP_BASE_LOG_H

#include <stdbool.h>

typedef enum cop_log_level {
    COP_LOG_DEBUG,
    COP_LOG_INFO,
    COP_LOG_WARN,
    COP_LOG_ERROR,
    COP_LOG_NONE
} cop_log_level;

void cop_log_configure(cop_log_level level, bool json);
/* The level COPPICE_LOG names, or `otherwise`. */
cop_log_level cop_log_level_from_environment(cop_log_level otherwise);
void cop_log(cop_log_level level, const char *area, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
