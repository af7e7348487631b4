/* The call METRICS: figures for monitoring, in the text format of Prometheus (version 0.0.4). Names
 * follow its practice: base units, counters end in _total. docs/reference/http.md lists them; a
 * test compares the two. See api.h. */
#include <stdio.h>

#include "coordinator/api/api.h"

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/version.h"
#include "common/wire/codec.h"

/* Upper limits of the buckets of both histograms, in ns; a last bucket has no limit. */
static const uint64_t step_limits[API_STEP_BUCKETS] = {
    1000000,   5000000,    10000000,   50000000,    100000000,
    500000000, 1000000000, 5000000000, 10000000000, 60000000000};
static const uint64_t loop_limits[] = {100000, 1000000, 10000000, 100000000, 1000000000};

void api_totals_step(api_totals *totals, double seconds, uint64_t samples) {
    const double ns = seconds * 1e9;
    totals->steps++;
    totals->samples += samples;
    totals->step_seconds += seconds;
    for (int i = 0; i < API_STEP_BUCKETS; i++)
        if (ns <= (double)step_limits[i]) totals->step_buckets[i]++;
}

void api_totals_leases(api_totals *totals, const coord_lease_counts *before,
                       const coord_lease_counts *now) {
    if (now->given < before->given) return; /* the job was added anew */
    totals->given += now->given - before->given;
    totals->repeated += now->repeated - before->repeated;
    totals->ignored +=
        now->late + now->twice + now->stale - before->late - before->twice - before->stale;
    totals->audited += now->audited - before->audited;
    totals->disputed += now->disputed - before->disputed;
    totals->rollbacks += now->rollbacks - before->rollbacks;
}

/* ---- text ---- */

static void head(cop_str *out, const char *name, const char *type, const char *help) {
    cop_str_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void whole(cop_str *out, const char *name, const char *type, const char *help,
                  uint64_t value) {
    head(out, name, type, help);
    cop_str_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void real(cop_str *out, const char *name, const char *help, double value) {
    head(out, name, "gauge", help);
    cop_str_printf(out, "%s %.17g\n", name, value);
}

static void bucket(cop_str *out, const char *name, uint64_t limit_ns, uint64_t count) {
    cop_str_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, (double)limit_ns * 1e-9,
                   (unsigned long long)count);
}

static void end_histogram(cop_str *out, const char *name, double sum, uint64_t count) {
    cop_str_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.17g\n%s_count %llu\n", name,
                   (unsigned long long)count, name, sum, name, (unsigned long long)count);
}

/* ---- figures ---- */

static void print_jobs(const coord_api *api, cop_str *out) {
    uint64_t counts[COORD_CANCELED + 1] = {0};
    for (uint32_t i = 0; i < api->count; i++) {
        COP_ASSERT(api->notes[i].state >= COORD_QUEUED && api->notes[i].state <= COORD_CANCELED);
        counts[api->notes[i].state]++;
    }
    head(out, "coppice_jobs", "gauge",
         "Jobs and evaluations that the coordinator knows, by state.");
    for (int state = COORD_QUEUED; state <= COORD_CANCELED; state++)
        cop_str_printf(out, "coppice_jobs{state=\"%s\"} %llu\n",
                       coord_state_name((coord_job_state)state), (unsigned long long)counts[state]);
}

static void print_workers(const coord_api *api, cop_str *out) {
    static const char *const names[] = {"idle", "computing", "draining", "quarantined"};
    uint64_t counts[4] = {0}, strikes = 0;
    const uint32_t workers = coord_core_worker_count(api->engine->core);
    for (uint32_t i = 0; i < workers; i++) {
        coord_worker_view view;
        if (!coord_core_worker_at(api->engine->core, i, &view)) continue;
        counts[view.quarantined ? 3 : view.draining ? 2 : view.computing ? 1 : 0]++;
        strikes += view.strikes;
    }
    head(out, "coppice_workers", "gauge", "Connected workers, by state.");
    for (int i = 0; i < 4; i++)
        cop_str_printf(out, "coppice_workers{state=\"%s\"} %llu\n", names[i],
                       (unsigned long long)counts[i]);
    whole(out, "coppice_worker_strikes", "gauge", "Strikes of the connected workers.", strikes);
}

static void print_totals(const api_totals *t, cop_str *out) {
    whole(out, "coppice_steps_total", "counter", "Steps of training jobs.", t->steps);
    whole(out, "coppice_samples_total", "counter", "Samples of these steps.", t->samples);
    head(out, "coppice_step_duration_seconds", "histogram", "Training time of one step.");
    for (int i = 0; i < API_STEP_BUCKETS; i++)
        bucket(out, "coppice_step_duration_seconds", step_limits[i], t->step_buckets[i]);
    end_histogram(out, "coppice_step_duration_seconds", t->step_seconds, t->steps);
    whole(out, "coppice_leases_given_total", "counter", "Leases given to workers.", t->given);
    whole(out, "coppice_leases_repeated_total", "counter",
          "Leases of blocks that had been leased before without a result.", t->repeated);
    whole(out, "coppice_results_ignored_total", "counter",
          "Results that came late, twice, or for an earlier step.", t->ignored);
    whole(out, "coppice_blocks_audited_total", "counter",
          "Blocks that needed two equal results and got them.", t->audited);
    whole(out, "coppice_results_disputed_total", "counter",
          "Results that differed from those of another worker.", t->disputed);
    whole(out, "coppice_rollbacks_total", "counter",
          "Returns of a job to a checkpoint because of wrong results.", t->rollbacks);
    whole(out, "coppice_checkpoints_total", "counter", "Checkpoints saved.", t->checkpoints);
    if (t->checkpoint_ms)
        real(out, "coppice_last_checkpoint_timestamp_seconds",
             "Unix time of the newest checkpoint of any job.", (double)t->checkpoint_ms * 1e-3);
}

static void print_loop(const coord_times *times, cop_str *out) {
    head(out, "coppice_loop_latency_seconds", "histogram",
         "Time in which the coordinator's loop reads no message.");
    for (size_t i = 0; i < sizeof loop_limits / sizeof *loop_limits; i++)
        bucket(out, "coppice_loop_latency_seconds", loop_limits[i],
               coord_times_within(times, loop_limits[i]));
    end_histogram(out, "coppice_loop_latency_seconds", (double)times->sum_ns * 1e-9, times->count);
}

static void print_wire(const cop_server_counters *c, cop_str *out) {
    whole(out, "coppice_wire_received_bytes_total", "counter",
          "Bytes of frames from workers and clients.", c->bytes_in);
    whole(out, "coppice_wire_sent_bytes_total", "counter",
          "Bytes of frames to workers and clients.", c->bytes_out);
    whole(out, "coppice_wire_requests_total", "counter", "Requests, also those over HTTP.",
          c->requests);
    whole(out, "coppice_wire_bad_frames_total", "counter", "Frames that could not be decoded.",
          c->bad_frames);
    whole(out, "coppice_connections_refused_total", "counter",
          "Connections that TLS or the limit of connections refused.", c->refused);
    whole(out, "coppice_connections", "gauge", "Open connections.", c->connections);
}

void api_metrics(coord_api *api, cop_request *request, ProtobufCMessage *message) {
    Coppice__Api__MetricsAnswer answer = COPPICE__API__METRICS_ANSWER__INIT;
    cop_server_counters counters;
    cop_str text = {0};
    cop_proto_free(message);
    head(&text, "coppice_build_info", "gauge", "Always 1; the label is the version.");
    cop_str_printf(&text, "coppice_build_info{version=\"%s\"} 1\n", COP_VERSION);
    real(&text, "coppice_uptime_seconds", "Time since the coordinator started.",
         (double)(cop_clock_ns() - api->started_ns) * 1e-9);
    print_jobs(api, &text);
    print_workers(api, &text);
    print_totals(&api->totals, &text);
    print_loop(&api->engine->latency.away, &text);
    cop_request_count(request, &counters);
    print_wire(&counters, &text);
    answer.text = text.text;
    if (text.failed)
        api_fail(request, NULL, COP_ERR_NO_MEMORY);
    else
        api_answer(request, COPPICE__API__METHOD__METRICS, &answer.base, NULL);
    cop_str_fini(&text);
}
