/* Logging: one line per event on standard error, as text or as JSON (--log-json). Thread-safe.
 * The levels are debug < info < warn < error. The default level is info.
 *
 * As text, a line is "2026-11-23T17:26:25.123Z info  coordinator: job 3 started". As JSON, it is
 * {"time":..,"clock_ns":..,"level":..,"area":..,"text":..}, where clock_ns is CLOCK_MONOTONIC, for
 * durations. A text may contain words from a peer, so each control character becomes '?' or, in
 * JSON, an escape sequence; this keeps an event on one line. Texts are cut after 1999 bytes. */
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

/* Sets the lowest level that is written (COP_LOG_NONE: nothing is written), and whether the format
 * is JSON. Any thread. */
void cop_log_configure(cop_log_level level, bool json);
/* Returns the level that the environment variable COPPICE_LOG names, such as "debug", or `fallback`
 * if the variable is not set or names no level. */
cop_log_level cop_log_level_from_environment(cop_log_level fallback);
/* Writes one line if its level is high enough. `area` names a part of the program, such as "store".
 */
void cop_log(cop_log_level level, const char *area, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- lines that peers can cause: limited per kind and source (log_limit.h) ---- */

/* What the limit depends on: the kind of a line and its source. */
typedef struct cop_log_kind {
    cop_log_level level;
    const char *area;
    uint64_t kind;   /* a number for this kind of line, such as the address of its format; not 0 */
    uint64_t source; /* a number for the peer that caused the line, such as a hash of its name */
} cop_log_kind;
/* Writes one line, unless the limit for its kind and source is reached. True: it was within the
 * limit, and was written if its level is high enough. False: it was not written, but counted. */
bool cop_log_one_of(const cop_log_kind *kind, const char *text);
/* Like cop_log, but limited. The kind is `format`, the source is `peer`: an identity or an address.
 * The port of an address is ignored. */
void cop_log_peer(cop_log_level level, const char *area, const char *peer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Writes one line for each kind and source whose period has ended with suppressed lines: it has
 * their number and the newest of them. Call it regularly. */
void cop_log_write_suppressed(void);

#endif
