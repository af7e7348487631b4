/* Writes a profile's spans in Chrome's trace event format: one complete event ("X") per span, with
 * times in microseconds, and metadata events with the names of processes and threads. See
 * step_times.h. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/measure/step_times.h"
#include "common/base/file.h"

/* Writes the metadata of a lane. Lanes of one participant have the same process number. */
static void write_names(cop_str *out, const cop_lane *lane, int process, size_t thread) {
    cop_str quoted = {0};
    cop_str_printf(out,
                   "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":%s}},\n",
                   process, cli_quote(&quoted, lane->process));
    cop_str_printf(out,
                   "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%zu,\"args\":{"
                   "\"name\":%s}},\n",
                   process, thread, cli_quote(&quoted, lane->name));
    cop_str_fini(&quoted);
}

static void write_span(cop_str *out, const cop_span *span, const cop_model *model,
                       uint64_t origin_ns) {
    const uint64_t begin = span->begin_ns - origin_ns, length = span->end_ns - span->begin_ns;
    cop_str_append(out, "{\"ph\":\"X\",\"name\":\"");
    if (span->layer != COP_NO_LAYER)
        cop_str_printf(out, "%d %s ", span->layer, cop_model_layer(model, span->layer)->spec.kind);
    cop_str_append(out, cop_phase_name(span->phase));
    if (span->phase == COP_PHASE_STEP) cop_str_printf(out, " %u", span->step);
    cop_str_printf(out, "\",\"cat\":\"%s\",\"ts\":%llu.%03u,\"dur\":%llu.%03u",
                   cop_phase_name(span->phase), (unsigned long long)(begin / 1000),
                   (unsigned)(begin % 1000), (unsigned long long)(length / 1000),
                   (unsigned)(length % 1000));
    if (span->step) cop_str_printf(out, ",\"args\":{\"step\":%u}", span->step);
}

/* The number of the lane's process: that of the first lane with the same process name, from 1. */
static int process_of(const cop_profile *profile, size_t index) {
    const char *name = cop_profile_at(profile, index)->process;
    size_t i = 0;
    while (strcmp(cop_profile_at(profile, i)->process, name) != 0) i++;
    return (int)i + 1;
}

static uint64_t first_ns(const cop_profile *profile) {
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < cop_profile_lanes(profile); i++) {
        const cop_lane *lane = cop_profile_at(profile, i);
        for (size_t s = 0; s < lane->span_count; s++)
            if (lane->spans[s].begin_ns < first) first = lane->spans[s].begin_ns;
    }
    return first;
}

cop_err cli_trace_write(const cop_profile *profile, const cop_model *model, const char *path,
                        uint64_t *lost, cop_error *error) {
    const uint64_t origin = first_ns(profile);
    cop_str out = {0};
    *lost = 0;
    cop_str_append(&out, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    for (size_t i = 0; i < cop_profile_lanes(profile); i++) {
        const cop_lane *lane = cop_profile_at(profile, i);
        const int process = process_of(profile, i);
        write_names(&out, lane, process, i + 1);
        for (size_t s = 0; s < lane->span_count; s++) {
            write_span(&out, &lane->spans[s], model, origin);
            cop_str_printf(&out, ",\"pid\":%d,\"tid\":%zu},\n", process, i + 1);
        }
        *lost += lane->spans_lost;
    }
    cop_str_printf(
        &out,
        "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":1,\"args\":{\"sort_index\""
        ":0}}],\n\"otherData\":{\"spansLost\":\"%llu\"}}\n",
        (unsigned long long)*lost);
    cop_err e =
        out.failed ? cop_no_memory(error) : cop_file_write_text(path, cop_str_text(&out), error);
    cop_str_fini(&out);
    return e;
}
