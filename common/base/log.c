/* Logging. See log.h. Each line is written by a single write(2), so that lines of several threads
 * and processes do not mix. */
#include "common/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/log_limit.h"
#include "common/base/str.h"

#define TEXT_MAX 2000 /* bytes of a text, including the NUL */

static atomic_int lowest_level = COP_LOG_INFO;
static atomic_bool as_json;

static const char *const level_names[] = {"debug", "info", "warn", "error", "none"};

void cop_log_configure(cop_log_level level, bool json) {
    COP_ASSERT(level <= COP_LOG_NONE);
    atomic_store(&lowest_level, (int)level);
    atomic_store(&as_json, json);
}

cop_log_level cop_log_level_from_environment(cop_log_level fallback) {
    const char *name = getenv("COPPICE_LOG");
    for (int i = 0; name && i <= COP_LOG_NONE; i++)
        if (strcmp(name, level_names[i]) == 0) return (cop_log_level)i;
    return fallback;
}

static void format_line(cop_str *line, cop_log_level level, const char *area, const char *text) {
    char time[32];
    COP_ASSERT(level < COP_LOG_NONE && area && *area);
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

static bool is_written(cop_log_level level) {
    return (int)level >= atomic_load(&lowest_level) && level < COP_LOG_NONE;
}

static void write_line(cop_log_level level, const char *area, char *text) {
    if (!atomic_load(&as_json)) cop_replace_controls(text);
    cop_str line = {0};
    format_line(&line, level, area, text);
    if (line.failed) { /* out of memory: write the text without time and JSON */
        cop_replace_controls(text);
        dprintf(STDERR_FILENO, "%s %s: %s\n", level_names[level], area, text);
    } else {
        ssize_t written = write(STDERR_FILENO, cop_str_text(&line), line.length);
        (void)written; /* if the log cannot be written, there is no place to report this */
    }
    cop_str_fini(&line);
}

void cop_log(cop_log_level level, const char *area, const char *format, ...) {
    if (!is_written(level)) return;
    char text[TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write_line(level, area, text);
}

/* ---- lines that peers can cause ---- */

static pthread_mutex_t limit_mutex = PTHREAD_MUTEX_INITIALIZER;
static log_limit limit;

void cop_log_write_suppressed(void) {
    log_limit_entry e;
    for (bool more = true; more;) {
        pthread_mutex_lock(&limit_mutex);
        more = log_limit_take(&limit, cop_clock_ns(), &e);
        pthread_mutex_unlock(&limit_mutex);
        if (more)
            cop_log(e.kind.level, e.kind.area, "%u similar lines were suppressed: %s", e.suppressed,
                    e.text);
    }
}

bool cop_log_one_of(const cop_log_kind *kind, const char *text) {
    char line[TEXT_MAX];
    cop_log_write_suppressed();
    pthread_mutex_lock(&limit_mutex);
    const bool admitted = log_limit_admit(&limit, kind, text, cop_clock_ns());
    pthread_mutex_unlock(&limit_mutex);
    if (!admitted || !is_written(kind->level)) return admitted;
    snprintf(line, sizeof line, "%s", text);
    write_line(kind->level, kind->area, line);
    return true;
}

/* Returns the length of an address without its port. */
static size_t host_length(const char *peer) {
    const char *colon = strrchr(peer, ':');
    const bool port = colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1);
    return port ? (size_t)(colon - peer) : strlen(peer);
}

void cop_log_peer(cop_log_level level, const char *area, const char *peer, const char *format,
                  ...) {
    char text[TEXT_MAX];
    va_list arguments;
    COP_ASSERT(peer);
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const cop_log_kind kind = {.level = level,
                               .area = area,
                               .kind = (uint64_t)(uintptr_t)format,
                               .source = cop_hash_xxh3(peer, host_length(peer))};
    cop_log_one_of(&kind, text);
}
