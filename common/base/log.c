/* Logging. See log.h. One write(2) a line, so that lines of several threads and processes never
 * mix. */
#include "common/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"

static atomic_int level_now = COP_LOG_INFO;
static atomic_bool as_json;

static const char *const level_names[] = {"debug", "info", "warn", "error", "none"};

void cop_log_configure(cop_log_level level, bool json) {
    atomic_store(&level_now, (int)level);
    atomic_store(&as_json, json);
}

cop_log_level cop_log_level_from_environment(cop_log_level otherwise) {
    const char *name = getenv("COPPICE_LOG");
    for (int i = 0; name && i <= COP_LOG_NONE; i++)
        if (strcmp(name, level_names[i]) == 0) return (cop_log_level)i;
    return otherwise;
}

static void format_line(cop_str *line, cop_log_level level, const char *area, const char *text) {
    char time[32];
    cop_clock_format_utc(cop_clock_unix_ms(), time);
    if (!atomic_load(&as_json)) {
        cop_str_printf(line, "%s %-5s %s: %s\n", time, level_names[level], area, text);
        return;
    }
    cop_str_printf(line, "{\"time\":\"%s\",\"clock_ns\":%llu,\"level\":\"%s\",\"area\":", time,
                   (unsigned long long)cop_clock_ns(), level_names[level]);
    cop_str_append_json(line, area);
    cop_str_append(line, ",\"text\":");
    cop_str_append_json(line, text);
    cop_str_append(line, "}\n");
}

void cop_log(cop_log_level level, const char *area, const char *format, ...) {
    if ((int)level < atomic_load(&level_now) || level >= COP_LOG_NONE) return;
    char text[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!atomic_load(&as_json)) cop_replace_controls(text);
    cop_str line = {0};
    format_line(&line, level, area, text);
    if (line.failed) { /* out of memory: the bare text is better than half a line */
        cop_replace_controls(text);
        dprintf(STDERR_FILENO, "%s %s: %s\n", level_names[level], area, text);
    } else {
        ssize_t written = write(STDERR_FILENO, cop_str_text(&line), line.length);
        (void)written; /* nowhere to complain to */
    }
    cop_str_fini(&line);
}
