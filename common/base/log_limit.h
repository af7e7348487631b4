/* How many lines of the log others may cause. Whoever can reach a program can make it write a line
 * (join and leave, a bad frame, a refused handshake), and could fill the disk with them. So of each
 * kind of line and each source, LOG_LINES pass in a period, of each kind LOG_LINES_ALL, whatever
 * the sources; the others are counted, and one line says how many. Pure: log.c has the one table.
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
    cop_log_kind kind; /* level and area are those of the newest line; kind 0: free */
    uint64_t since_ns;
    uint32_t lines, left_out;
    char text[200]; /* of the newest line that was left out */
} log_limit_entry;

typedef struct log_limit {
    log_limit_entry entries[LOG_ENTRIES];
} log_limit;

/* May this line be written? If not, it is counted. */
bool log_limit_admit(log_limit *limit, const cop_log_kind *kind, const char *text, uint64_t now_ns);
/* The next count that is due, since a period has ended; false: there is none. */
bool log_limit_due(log_limit *limit, uint64_t now_ns, log_limit_entry *out);

#endif
