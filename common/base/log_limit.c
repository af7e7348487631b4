/* Counts log lines for each kind and source. See log_limit.h. */
#include "common/base/log_limit.h"

#include <stdio.h>

#include "common/base/err.h"

#define ALL_SOURCES UINT64_MAX /* the `source` of entries that count all sources together */

static bool is_over(const log_limit_entry *e, uint64_t now_ns) {
    return now_ns - e->since_ns >= LOG_PERIOD_NS;
}

/* Finds the entry of this kind and source, or creates it. On the way, it frees entries whose period
 * has ended without suppressed lines. If the table is full, a new entry for ALL_SOURCES may replace
 * an entry for a single source; that source then has only the limit for all sources together. NULL:
 * the table is full, and no entry can be replaced. */
static log_limit_entry *entry_of(log_limit *l, const cop_log_kind *kind, uint64_t source,
                                 uint64_t now_ns) {
    log_limit_entry *place = NULL;
    for (int i = 0; i < LOG_ENTRIES; i++) {
        log_limit_entry *e = &l->entries[i];
        if (e->kind.kind && is_over(e, now_ns) && !e->suppressed) *e = (log_limit_entry){0};
        if (e->kind.kind == kind->kind && e->kind.source == source) return e;
        const bool is_free = !e->kind.kind;
        const bool replaceable =
            source == ALL_SOURCES && !e->suppressed && e->kind.source != ALL_SOURCES;
        if (is_free ? !place || place->kind.kind : replaceable && !place) place = e;
    }
    if (!place) return NULL;
    COP_ASSERT(!place->suppressed); /* otherwise their number would never be reported */
    *place = (log_limit_entry){.kind = *kind, .since_ns = now_ns};
    place->kind.source = source;
    return place;
}

/* True: the entry has already had `lines` lines in this period, so this line was counted as
 * suppressed. False: it has not, or `e` is NULL. */
static bool suppress_if_full(log_limit_entry *e, uint32_t lines, const cop_log_kind *kind,
                             const char *text) {
    if (!e || e->lines < lines) return false;
    e->suppressed++;
    e->kind.level = kind->level;
    snprintf(e->text, sizeof e->text, "%s", text);
    return true;
}

bool log_limit_admit(log_limit *l, const cop_log_kind *kind, const char *text, uint64_t now_ns) {
    COP_ASSERT(kind->kind); /* 0 marks a free entry */
    log_limit_entry *all = entry_of(l, kind, ALL_SOURCES, now_ns);
    if (suppress_if_full(all, LOG_LINES_ALL, kind, text)) return false;
    log_limit_entry *own = entry_of(l, kind, kind->source, now_ns);
    if (suppress_if_full(own, LOG_LINES, kind, text)) return false;
    if (all) all->lines++;
    if (own) own->lines++;
    return true;
}

bool log_limit_take(log_limit *l, uint64_t now_ns, log_limit_entry *out) {
    for (int i = 0; i < LOG_ENTRIES; i++) {
        log_limit_entry *e = &l->entries[i];
        if (!e->kind.kind || !e->suppressed || !is_over(e, now_ns)) continue;
        *out = *e;
        *e = (log_limit_entry){0};
        return true;
    }
    return false;
}
