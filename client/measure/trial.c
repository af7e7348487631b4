/* A short trial of a job, and its cache. See trial.h. */
#include "client/measure/trial.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "client/load/run_folder.h"
#include "client/measure/in_process.h"
#include "client/measure/step_times.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/version.h"
#include "common/wire/codec.h"

/* Steps and time before the measurement: the first steps fill caches and allocate memory. */
#define WARM_STEPS 5
#define WARM_NS    200000000u
#define MEASURE_NS 1000000000u
#define STEPS_MIN  8
#define PAUSE_NS   2000000000u
#define GIVE_UP_NS 120000000000u
#define EPOCHS_MAX 1000000 /* between evaluations: more than a trial trains */
#define JOB_BUDGET (16u << 20)
#define TOLERANCE  1.03

/* ---- the cache ---- */

/* The file of this trial in the cache. Its name is a hash of everything that the times depend on.
 * The caller frees it. NULL: out of memory. */
static char *cache_file(const cop_job *job, const char *isa, int workers) {
    cop_buffer *spec = cop_job_pack(job);
    cop_str key = {0}, name = {0};
    uv_cpu_info_t *cpus = NULL;
    int cores = 0;
    char *cache = cop_path_cache(), *path = NULL, program[4096] = "";
    size_t length = sizeof program;
    if (uv_exepath(program, &length)) *program = 0;
    if (uv_cpu_info(&cpus, &cores)) cores = 0;
    cop_str_printf(&key, "%s %s %d %d %llx %s", COP_VERSION, isa, workers, cli_core_count(),
                   (unsigned long long)cop_file_stamp(program, false), cores ? cpus[0].model : "");
    if (cores) uv_free_cpu_info(cpus, cores);
    if (spec && cache && !key.failed) {
        const char *text = cop_str_text(&key);
        cop_str_printf(
            &name, "step-times/%016llx",
            (unsigned long long)cop_hash_xxh3_pair(spec->data, spec->size, text, strlen(text)));
        if (!name.failed) path = cop_path_join(cache, cop_str_text(&name));
    }
    cop_buffer_release(spec);
    cop_free(cache);
    cop_str_fini(&key);
    cop_str_fini(&name);
    return path;
}

/* The content of the file: the trial and its hash. */
typedef struct cached_trial {
    cli_trial trial;
    uint64_t hash;
} cached_trial;

static bool read_cache(const char *path, cli_trial *out) {
    char *bytes = NULL;
    size_t size = 0;
    if (cop_file_read(path, sizeof(cached_trial), &bytes, &size, NULL)) return false;
    cached_trial c;
    bool ok = size == sizeof c;
    if (ok) memcpy(&c, bytes, sizeof c);
    ok = ok && c.hash == cop_hash_xxh3(&c.trial, sizeof c.trial);
    if (ok) *out = c.trial;
    cop_free(bytes);
    return ok;
}

static void write_cache(const char *path, const cli_trial *trial) {
    const cached_trial c = {.trial = *trial, .hash = cop_hash_xxh3(trial, sizeof *trial)};
    const cop_file_part part = {&c, sizeof c};
    char *folder = cop_strndup(path, (size_t)(strrchr(path, '/') - path));
    if (folder && !cop_folder_create(folder, NULL)) cop_file_write(path, &part, 1, 0600, NULL);
    cop_free(folder);
}

/* ---- the trial ---- */

/* Makes the job of the trial: a copy of the job that evaluates only at its end. The copy is as long
 * as the job, because the share of zeros and the size of gradients change as a network learns, and
 * the times change with them. */
static cop_err copy_job(const cop_job *job, const cop_data *data, cop_job **out, cop_error *error) {
    cop_buffer *spec = cop_job_pack(job);
    if (!spec) return cop_no_memory(error);
    ProtobufCMessage *message = NULL;
    cop_err e = cop_proto_unpack(&coppice__job__descriptor, spec->data, spec->size, JOB_BUDGET,
                                 &message, error);
    cop_buffer_release(spec);
    if (e) return e;
    Coppice__Job *m = (Coppice__Job *)message;
    m->pinned = NULL; /* the memory of `pinned` belongs to the message's arena */
    if (m->evaluate) m->evaluate->has_every = 1, m->evaluate->every = EPOCHS_MAX;
    e = cop_job_create(m, data, out, error);
    if (e) cop_proto_free(message);
    return e;
}

/* A moment in the training. */
typedef struct moment {
    uint64_t ns, step;
} moment;

static bool set_time(cli_trial *trial, const moment *from, const moment *to) {
    if (!from->step || to->step <= from->step) return false;
    trial->step_ms = 1e-6 * (double)(to->ns - from->ns) / (double)(to->step - from->step);
    return true;
}

/* Computes the times of a job that ended during the trial. Leaves out the first steps if there are
 * enough later ones. */
static cop_err take_end(cli_trial *trial, const coord_progress *p, const moment times[3],
                        cop_error *error) {
    if (p->state != COPPICE__API__STATE__COMPLETED)
        return cop_fail(
            error, strncmp(p->text, "training diverged", 17) ? COP_ERR_INTERNAL : COP_ERR_DIVERGED,
            "cannot measure the job: %s", p->text);
    const bool enough = times[1].step && times[2].step >= times[1].step + STEPS_MIN;
    if (enough && set_time(trial, &times[1], &times[2])) return COP_OK;
    if (set_time(trial, &times[0], &times[2])) return COP_OK;
    trial->step_ms = 1e3 * p->seconds / (double)p->step; /* it ended before we saw a second step */
    return COP_OK;
}

/* Watches the training until the job ends, or until enough steps are measured. */
static cop_err watch(coord_server *coordinator, cli_trial *trial, cop_error *error) {
    const uint64_t began = cop_clock_ns();
    moment times[3] = {{0}}; /* the first step, the first one that is measured, the newest */
    for (;;) {
        coord_progress p;
        coord_run_progress(coordinator, 20, &p);
        const moment now = {cop_clock_ns(), p.step};
        if (p.step > times[2].step) {
            times[2] = now;
            if (!times[0].step) times[0] = now;
            if (!times[1].step && p.step >= WARM_STEPS && now.ns - times[0].ns >= WARM_NS)
                times[1] = now;
        }
        if (p.finished) return take_end(trial, &p, times, error);
        if (times[1].step && times[2].ns - times[1].ns >= MEASURE_NS &&
            times[2].step >= times[1].step + STEPS_MIN) {
            set_time(trial, &times[1], &times[2]);
            return COP_OK;
        }
        if (now.ns - began > GIVE_UP_NS)
            return cop_fail(error, COP_ERR_TIMEOUT, "the job did not train %d steps in %u s",
                            WARM_STEPS + STEPS_MIN, (unsigned)(GIVE_UP_NS / 1000000000u));
    }
}

/* Pauses the job before its workers leave, because they would otherwise leave unfinished leases. */
static void pause_job(coord_server *coordinator) {
    const uint64_t began = cop_clock_ns();
    coord_progress p;
    coord_run_progress(coordinator, 0, &p);
    if (p.finished) return;
    coord_run_interrupt(coordinator);
    do coord_run_progress(coordinator, 20, &p);
    while (!p.finished && cop_clock_ns() - began < PAUSE_NS);
}

static void take_times(const cli_step_times *t, cli_trial *out) {
    double ms = t->input + t->loss + t->sum;
    out->layer_count = t->layer_count;
    out->update_ms = t->update;
    for (int i = 0; i < t->layer_count; i++) {
        const cli_layer_times *l = &t->layers[i];
        const double layer = l->forward + l->mask + l->weights + l->backward;
        out->layers[i].ms = layer * t->threads;
        out->layers[i].input_zeros = l->input_zeros;
        out->layers[i].gradient_zeros = l->gradient_zeros;
        ms += layer;
    }
    out->compute_ms = ms * t->threads;
}

/* Trains the job and fills *out. Takes over `job` and `data`. */
static cop_err train(const cli_in_process_config *base, cop_job *job, cop_data *data,
                     cli_trial *out, cop_error *error) {
    cli_in_process_config config = *base;
    cli_in_process threads = {0};
    cli_step_times *times = cop_alloc(sizeof *times);
    cop_err e = times ? cop_profile_create(0, &config.profile, error) : cop_no_memory(error);
    if (e) {
        cop_job_release(job);
        cop_data_destroy(data);
        cop_free(times);
        return e;
    }
    cop_job *held = cop_job_hold(job);
    e = cli_in_process_start(&config, job, data, &threads, error);
    if (!e) e = watch(threads.coordinator, out, error);
    if (!e) pause_job(threads.coordinator);
    cli_in_process_stop(&threads);
    if (!e && cli_step_times_of(config.profile, held->model, times)) take_times(times, out);
    cop_profile_destroy(config.profile);
    cop_job_release(held);
    cop_free(times);
    return e;
}

static cop_err measure(const cop_job *job, const char *path, const cli_options *options,
                       const cli_in_process_config *config, cli_trial *out, cop_error *error) {
    cop_data *data = NULL;
    cop_job *copy = NULL;
    COP_TRY(cli_run_folder_open_job_data(job->message, path, options, &data, error));
    const cop_err e = copy_job(job, data, &copy, error);
    if (e) {
        cop_data_destroy(data);
        return e;
    }
    memset(out, 0, sizeof *out); /* also the padding between the fields, which the cache stores */
    out->workers = config->workers;
    COP_TRY(train(config, copy, data, out, error));
    out->unix_ms = cop_clock_unix_ms();
    return COP_OK;
}

cop_err cli_trial_run(const cop_job *job, const char *path, const cli_options *options,
                      cli_trial *out, bool *cached, cop_error *error) {
    cli_in_process_config config = {.workers = options->workers ? (int)options->workers
                                                                : cli_core_count()};
    COP_TRY(cli_choose_kernels(&config.kernels, config.self_test, error));
    char *file = cache_file(job, config.kernels->name, config.workers);
    if (!file) return cop_no_memory(error);
    *cached = !options->measure && read_cache(file, out) && out->workers == config.workers &&
              out->layer_count == cop_model_layer_count(job->model);
    cop_err e = COP_OK;
    if (!*cached) e = measure(job, path, options, &config, out, error);
    if (!*cached && !e) write_cache(file, out);
    cop_free(file);
    return e;
}

/* ---- prediction ---- */

double cli_trial_predict(const cli_trial *t, const cop_job *job, int workers, double bytes_per_s) {
    COP_ASSERT(workers >= 1);
    /* The slowest worker has the most shards. */
    const double shards = job->shards, largest = ceil(shards / workers);
    double ms = t->compute_ms * largest / shards + t->update_ms;
    if (bytes_per_s > 0) {
        cop_plan_figures figures;
        cop_job_plan(job, workers, &figures);
        ms += 1e3 * (double)figures.wire_bytes_per_step / bytes_per_s;
    }
    return ms;
}

int cli_trial_useful_workers(const cli_trial *t, const cop_job *job, int max, double bytes_per_s) {
    const int most = (int)job->shards < max ? (int)job->shards : max;
    double shortest = INFINITY;
    for (int n = 1; n <= most; n++)
        shortest = fmin(shortest, cli_trial_predict(t, job, n, bytes_per_s));
    int useful = 1;
    while (useful < most && cli_trial_predict(t, job, useful, bytes_per_s) > TOLERANCE * shortest)
        useful++;
    return useful;
}
