/* Limits the log lines that peers cause. Any peer can make a program write lines (join and leave,
 * bad frames, refused handshakes) and could fill the disk. So in each period, each kind of line is
 * written up to LOG_LINES times for one source, and LOG_LINES_ALL times for all sources together.
 * Further lines are counted, and one line reports their number. No I/O here: log.c owns the table.
 */
#ifndef COP_BASE_LOG_LIMIT_H
#define COP_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/log.h"

#define LOG_PERIOD_NS 10000000000u
#define LOG_LINES     10
#define LOG_LINES_ALL 200
#define LOG_ENTRIES   256

typedef struct log_limit_entry {
    cop_log_kind kind; /* level and area of the newest line; kind 0: the entry is free */
    uint64_t since_ns;
    uint32_t lines, suppressed;
    char text[200]; /* the newest suppressed line */
} log_limit_entry;

typedef struct log_limit {
    log_limit_entry entries[LOG_ENTRIES];
} log_limit;

/* True: the line may be written. False: it must not, and was counted as suppressed. */
bool log_limit_admit(log_limit *limit, const cop_log_kind *kind, const char *text, uint64_t now_ns);
/* Removes the next entry whose period has ended with suppressed lines, and copies it to *out.
 * False: there is none. */
bool log_limit_take(log_limit *limit, uint64_t now_ns, log_limit_entry *out);

#endif
