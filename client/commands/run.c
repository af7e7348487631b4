/* coppice run: trains with a coordinator and workers in this process. The digest of the weights is
 * the same as if a pool had trained the job. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "client/cli.h"
#include "client/load/run_folder.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "coordinator/coordinator.h"
#include "worker/worker.h"

/* SIGINT, SIGTERM and SIGUSR1 ask for a checkpoint and a clean end (Slurm can send SIGUSR1). A
 * SIGINT that follows one of these signals ends the program immediately. */
static void on_signal(int number) {
    if (cli_interrupt_received() && number == SIGINT) cli_interrupt_end(number);
    cli_interrupt_note(number);
}

typedef struct run_state {
    cop_job *job;
    cop_data *data;
    cli_run_folder folder;
    const cop_kernels *kernels;
    unsigned char self_test[32];
    coord_server *coordinator;
    cop_worker **workers;
    int worker_count;
    bool portable; /* the job does not need OpenBLAS */
    uint32_t batch;
    uint64_t began_ns, submitted_ns;
    char name[COP_NAME_MAX], numerics[128];
} run_state;

static int core_count(void) {
    unsigned cores = uv_available_parallelism();
    return cores < 1 ? 1 : (int)cores;
}

static cop_err start_workers(run_state *s, int count, cop_error *error) {
    COP_ASSERT(count >= 1 && s->coordinator && !s->workers);
    s->workers = cop_alloc_array((size_t)count, sizeof(cop_worker *));
    if (!s->workers) return cop_no_memory(error);
    for (int i = 0; i < count; i++) {
        char name[32];
        cop_worker_config config = {.local = coord_transport(s->coordinator),
                                    .token = "",
                                    .name = name,
                                    .threads = 1,
                                    .portable = s->portable,
                                    .kernels = s->kernels};
        snprintf(name, sizeof name, "thread-%d", i + 1);
        memcpy(config.self_test, s->self_test, sizeof config.self_test);
        COP_TRY(worker_start(&config, &s->workers[i], error));
        s->worker_count++;
    }
    return COP_OK;
}

static void show_progress(cli_progress *bar, const coord_progress *p) {
    char text[256], eta[32];
    snprintf(text, sizeof text, "step %llu/%llu  epoch %.2f", (unsigned long long)p->step,
             (unsigned long long)p->steps, p->epoch);
    if (p->has_train_loss) cop_text_add(text, sizeof text, "  loss %.4f", p->train_loss);
    const char *part = p->evaluated_on_test ? "test" : "validation";
    if (p->has_evaluation && p->has_error)
        cop_text_add(text, sizeof text, "  %s error %.2f %%", part, 100 * p->test_error);
    else if (p->has_evaluation)
        cop_text_add(text, sizeof text, "  %s loss %.4f", part, p->test_loss);
    if (p->samples_per_s > 0)
        cop_text_add(text, sizeof text, "  %.0f samples/s  %s left", p->samples_per_s,
                     cop_format_seconds(p->eta_seconds, eta));
    cli_progress_show(bar, p->steps ? (double)p->step / (double)p->steps : 0, text);
}

static void wait_for_end(run_state *s, const cli_options *options, coord_progress *p) {
    cli_progress bar;
    cli_progress_start(&bar, options->quiet);
    do {
        coord_run_progress(s->coordinator, 200, p);
        show_progress(&bar, p);
        if (cli_interrupt_received()) coord_run_interrupt(s->coordinator);
    } while (!p->finished);
    cli_progress_end(&bar);
}

/* ---- the result: a table or one line of JSON ---- */

static uint64_t peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

static void print_json(const run_state *s, const coord_progress *p, int workers) {
    Coppice__Api__RunSummary r = COPPICE__API__RUN_SUMMARY__INIT;
    r.job = (char *)(uintptr_t)s->name;
    r.has_steps = r.has_seconds = r.has_samples_per_s = r.has_workers = r.has_leases_repeated =
        r.has_peak_rss = 1;
    r.steps = p->step;
    r.has_train_loss = p->has_train_loss;
    r.train_loss = p->train_loss;
    r.has_test_loss = p->has_evaluation;
    r.has_test_error = p->has_evaluation && p->has_error;
    r.test_error = p->test_error;
    r.test_loss = p->test_loss;
    if (p->has_evaluation)
        r.evaluated_on = (char *)(uintptr_t)(p->evaluated_on_test ? "test" : "validation");
    r.seconds = p->seconds;
    r.samples_per_s = p->samples_per_s;
    r.digest = p->digest[0] ? (char *)(uintptr_t)p->digest : NULL;
    r.isa = (char *)(uintptr_t)s->kernels->name;
    r.numerics = (char *)(uintptr_t)s->numerics;
    r.workers = (uint32_t)workers;
    r.out = s->folder.path;
    r.has_first_step_ms = p->first_step_ms > 0;
    r.first_step_ms = p->first_step_ms + (s->submitted_ns - s->began_ns) / 1000000;
    r.leases_repeated = p->leases_repeated;
    r.state =
        (char *)(uintptr_t)(p->state == COPPICE__API__STATE__COMPLETED ? "COMPLETED" : "PAUSED");
    r.has_ms_per_step = p->step > 0 && p->seconds > 0;
    r.ms_per_step = p->samples_per_s > 0 ? 1e3 * s->batch / p->samples_per_s : 0;
    r.peak_rss = peak_memory();
    r.has_allocations = 1;
    r.allocations = cop_alloc_count();
    cli_print_json(&r.base);
}

static void print_table(const run_state *s, const coord_progress *p) {
    char loss[32] = "-", error[32] = "-", seconds[32], rate[48], steps[64];
    const char *part = p->evaluated_on_test ? "test" : "validation";
    char figure[32];
    snprintf(figure, sizeof figure, "%s %s", part,
             p->has_evaluation && !p->has_error ? "loss" : "error");
    if (p->has_train_loss) snprintf(loss, sizeof loss, "%.4f", p->train_loss);
    if (p->has_evaluation && p->has_error)
        snprintf(error, sizeof error, "%.2f %%", 100 * p->test_error);
    else if (p->has_evaluation)
        snprintf(error, sizeof error, "%.4f", p->test_loss);
    snprintf(rate, sizeof rate, "%.0f samples/s", p->samples_per_s);
    snprintf(steps, sizeof steps, "%llu (%.2f epochs)", (unsigned long long)p->step, p->epoch);
    const char *cells[] = {"job",        s->name,
                           "steps",      steps,
                           "train loss", loss,
                           figure,       error,
                           "time",       cop_format_seconds(p->seconds, seconds),
                           "speed",      rate,
                           "arithmetic", s->numerics,
                           "kernels",    s->kernels->name,
                           "digest",     p->digest,
                           "written to", s->folder.path};
    cli_print_table(cells, (int)(sizeof cells / sizeof *cells / 2), 2, "ll");
}

/* Appends the command line that continues this run. If the job file came from standard input, the
 * command names the copy in the run folder, which is the only one. */
static void print_resume(const run_state *s, const cli_options *options, cop_str *out) {
    const char *job = options->positional[0];
    const bool piped = strcmp(job, "-") == 0;
    cop_str copy = {0};
    cop_str_printf(&copy, "%s/job.yaml", s->folder.path);
    cop_str_append(out, "coppice run ");
    cli_print_word(piped ? cop_str_text(&copy) : job, out);
    cop_str_fini(&copy);
    if (piped && !options->data) cop_str_append(out, " --data .");
    cli_options_print(options, piped ? "workers data timeout" : "workers data set timeout", out);
    cop_str_append(out, " --out ");
    cli_print_word(s->folder.path, out);
    cop_str_append(out, " --resume auto");
}

/* Sets the sentence that is printed if a second signal, SIGINT, ends the program. */
static void prepare_interrupt(const run_state *s, const cli_options *options) {
    cop_str text = {0};
    cop_str_append(&text, "coppice run: interrupted again, stopping without a checkpoint; continue "
                          "from the previous one with: ");
    print_resume(s, options, &text);
    cli_interrupt_sentence(cop_str_text(&text));
    cop_str_fini(&text);
}

static cop_err fail_stopped(const run_state *s, const cli_options *options, uint64_t step,
                            cop_error *error) {
    cop_str text = {0};
    print_resume(s, options, &text);
    cop_err e =
        cop_fail(error, COP_ERR_CANCELED,
                 "stopped by a signal; the checkpoint of step %llu is saved; continue with: %s",
                 (unsigned long long)step, cop_str_text(&text));
    cop_str_fini(&text);
    return e;
}

static cop_err finish(run_state *s, const cli_options *options, coord_progress *p,
                      cop_error *error) {
    COP_ASSERT(p->finished);
    if (p->state == COPPICE__API__STATE__FAILED)
        return cop_fail(error,
                        strncmp(p->text, "training diverged", 17) == 0 ? COP_ERR_DIVERGED
                                                                       : COP_ERR_INTERNAL,
                        "job %s failed: %s", s->name, p->text);
    /* A run that ended before the first progress report has no speed yet. Then the speed is the
     * mean over the whole run. */
    if (p->samples_per_s <= 0 && p->seconds > 0)
        p->samples_per_s = (double)p->step * s->batch / p->seconds;
    if (p->text[0] && !options->quiet)
        cli_note("%swarning: %s%s\n", cli_color(2, "yellow"), p->text, cli_color(2, "reset"));
    if (options->json)
        print_json(s, p, s->worker_count);
    else
        print_table(s, p);
    return p->state == COPPICE__API__STATE__PAUSED ? fail_stopped(s, options, p->step, error)
                                                   : COP_OK;
}

static void stop_all(run_state *s) {
    for (int i = 0; i < s->worker_count; i++) worker_cancel(s->workers[i]);
    for (int i = 0; i < s->worker_count; i++) worker_join(s->workers[i], NULL);
    if (s->coordinator) coord_stop(s->coordinator);
    if (s->job) cop_job_release(s->job);
    if (s->data) cop_data_destroy(s->data);
    cop_free(s->workers);
    cli_run_folder_fini(&s->folder);
}

static cop_err train(run_state *s, const cli_options *options, cop_error *error) {
    int count = options->workers ? (int)options->workers : core_count();
    COP_ASSERT(s->job && s->data && s->folder.path);
    s->portable = s->job->numerics != COP_NUMERICS_OPENBLAS;
    COP_TRY(cop_numerics_load(s->job->numerics, error));
    coord_config config = {.kernels = s->kernels,
                           .portable = s->portable,
                           .update_threads = count < core_count() ? count : core_count()};
    memcpy(config.self_test, s->self_test, sizeof config.self_test);
    COP_TRY(coord_start(&config, &s->coordinator, error));
    coord_run_options run = {.folder = s->folder.path,
                             .resume = options->resume != NULL,
                             .timeout_s = options->has_timeout ? options->timeout : 0};
    cop_job *job = s->job;
    cop_data *data = s->data;
    snprintf(s->numerics, sizeof s->numerics, "portable-1");
    if (job->numerics == COP_NUMERICS_OPENBLAS)
        cop_numerics_fingerprint(job->numerics, s->numerics);
    s->batch = job->batch;
    s->data = NULL; /* coord_run_submit takes over the data and the job, on failure too */
    s->job = NULL;
    s->submitted_ns = cop_clock_ns();
    COP_TRY(coord_run_submit(s->coordinator, job, data, &run, error));
    COP_TRY(start_workers(s, count, error));
    coord_progress p;
    wait_for_end(s, options, &p);
    return finish(s, options, &p, error);
}

cop_err cli_run(const cli_options *options, cop_error *error) {
    run_state s = {.began_ns = cop_clock_ns(), .folder = {.lock = -1}};
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    cop_err e = cli_choose_kernels(&s.kernels, s.self_test, error);
    if (!e) e = cli_load_job(options->positional[0], options, &s.job, &s.data, error);
    if (!e) {
        snprintf(s.name, sizeof s.name, "%s", s.job->message->name);
        cop_str warnings = {0};
        cop_job_warnings(s.job, &warnings);
        cop_job_warn_of_values(s.job, s.data, &warnings);
        if (warnings.length && !options->quiet) cli_note("%s", cop_str_text(&warnings));
        cop_str_fini(&warnings);
        e = cli_run_folder_choose(options, s.name, &s.folder, error);
    }
    if (!e) prepare_interrupt(&s, options);
    if (!e) e = cli_run_folder_prepare(&s.folder, options, s.job, error);
    if (!e) e = train(&s, options, error);
    stop_all(&s);
    return e;
}
