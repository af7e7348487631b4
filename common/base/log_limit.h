/* Limits the log lines that peers cause. Any peer can make a program write lines (join and leave,
 * bad frames, refused handshakes) and could fill the disk. So in each period, each kind of line is
 * written up to LOG_LINES times for one source, and LOG_LINES_ALL times for all sources together.
 * Further lines are only counted, and after the period one line reports their number. This file
 * only decides; log.c owns the table and writes. Not thread-safe: log.c holds a mutex. */
#ifndef COP_BASE_LOG_LIMIT_H
#define COP_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/log.h"

#define LOG_PERIOD_NS 10000000000u
#define LOG_LINES     10
#define LOG_LINES_ALL 200
#define LOG_ENTRIES   256

/* The lines of one kind that one source, or all sources together, caused in the current period. */
typedef struct log_limit_entry {
    cop_log_kind kind;   /* kind.kind 0: the entry is free */
    uint64_t since_ns;   /* begin of the period: the time of its first line */
    uint32_t lines;      /* lines that were admitted in the period */
    uint32_t suppressed; /* lines that were suppressed in the period */
    char text[200];      /* the newest suppressed line */
} log_limit_entry;

typedef struct log_limit {
    log_limit_entry entries[LOG_ENTRIES];
} log_limit;

/* True: the line may be written. False: it must not be written; it was counted as suppressed. */
bool log_limit_admit(log_limit *limit, const cop_log_kind *kind, const char *text, uint64_t now_ns);
/* Removes one entry whose period has ended and that has suppressed lines, and copies it to *out.
 * False: there is no such entry. */
bool log_limit_take(log_limit *limit, uint64_t now_ns, log_limit_entry *out);

#endif
