/* Logging: one line per event on standard error, for people or as JSON (--log-json). Thread-safe.
 * Levels debug < info < warn < error; default info; COPPICE_LOG=debug overrides. The format is
 * "2026-11-23T17:26:25.123Z info  coordinator: job 3 started" or
 * {"time":..,"clock_ns":..,"level":..,"area":..,"text":..}, clock_ns being CLOCK_MONOTONIC, for
 * durations. A text may quote a peer: control characters become
 * '?' (in JSON: escapes), so that an event stays one line. Texts are cut at 1999 bytes. */
#ifndef COP_BASE_LOG_H
#define COP_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

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

/* ---- lines that others can cause: limited by kind and source (log_limit.h) ---- */

typedef struct cop_log_kind {
    cop_log_level level;
    const char *area;
    uint64_t kind;   /* the same for all lines of this kind, not 0: the address of their format */
    uint64_t source; /* who causes it: a hash of an identity, a number */
} cop_log_kind;
/* True: it may be written (and was, by its level). False: it was left out, and counted. */
bool cop_log_one_of(const cop_log_kind *kind, const char *text);
/* As cop_log, for a line that this peer (an identity, or an address, whose port does not count)
 * causes. */
void cop_log_peer(cop_log_level level, const char *area, const char *peer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Writes the counts of lines that were left out in periods that have ended: every tick. */
void cop_log_settle(void);

#endif
