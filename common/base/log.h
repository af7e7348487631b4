/* Logging: one line per event on standard error, as text or as JSON (--log-json). Thread-safe.
 * Levels: debug < info < warn < error. The default is info; COPPICE_LOG=debug overrides it.
 *
 * The format is "2026-11-23T17:26:25.123Z info  coordinator: job 3 started" or
 * {"time":..,"clock_ns":..,"level":..,"area":..,"text":..}; clock_ns is CLOCK_MONOTONIC, for
 * durations. A text may quote a peer. Control characters become '?' (in JSON: escapes), so an event
 * stays one line. Texts are cut at 1999 bytes. */
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

/* Sets the lowest level that is written, and the format. Any thread. */
void cop_log_configure(cop_log_level level, bool json);
/* Returns the level that COPPICE_LOG names, or `fallback` if it names none. */
cop_log_level cop_log_level_from_environment(cop_log_level fallback);
/* Writes one line. `area` is the part of the program, such as "store". */
void cop_log(cop_log_level level, const char *area, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- lines that peers can cause: limited per kind and source (log_limit.h) ---- */

typedef struct cop_log_kind {
    cop_log_level level;
    const char *area;
    uint64_t kind;   /* the same for all lines of this kind, not 0: the address of their format */
    uint64_t source; /* who caused the line: a hash of an identity, or a number */
} cop_log_kind;
/* Writes one line, unless the limit for its kind and source is reached. True: it was within the
 * limit (and was written, if its level is). False: it was suppressed and counted. */
bool cop_log_one_of(const cop_log_kind *kind, const char *text);
/* Like cop_log, with a limit for this peer. `peer` is an identity or an address, whose port is
 * ignored. */
void cop_log_peer(cop_log_level level, const char *area, const char *peer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Writes the counts of suppressed lines whose period has ended. Call it on every tick. */
void cop_log_settle(void);

#endif
