/* coppice run: trains with a coordinator and workers in this process. The digest of the weights is
 * the same as if a pool had trained the job. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "client/cli.h"
#include "client/load/run_folder.h"
#include "client/measure/in_process.h"
#include "client/measure/step_times.h"
#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"

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
    cli_in_process threads;
    int workers;
    cop_profile *profile;  /* NULL: none is wanted */
    cop_job *profiled;     /* the job that the profile describes; the coordinator owns it */
    cli_step_times *times; /* NULL: no profile, or no step was trained */
    uint32_t batch;
    uint64_t began_ns, submitted_ns;
    char name[COP_NAME_MAX], numerics[128];
} run_state;

static void show_progress(cli_progress *bar, const coord_progress *p) {
    char text[256], eta[32];
    snprintf(text, sizeof text, "step %llu/%llu  epoch %.2f", (unsigned long long)p->step,
             (unsigned long long)p->steps, p->epoch);
    if (p->has_train_loss) cop_text_append(text, sizeof text, "  loss %.4f", p->train_loss);
    const char *part = p->evaluated_on_test ? "test" : "validation";
    if (p->has_evaluation && p->has_error)
        cop_text_append(text, sizeof text, "  %s error %.2f %%", part, 100 * p->test_error);
    else if (p->has_evaluation)
        cop_text_append(text, sizeof text, "  %s loss %.4f", part, p->test_loss);
    if (p->samples_per_s > 0)
        cop_text_append(text, sizeof text, "  %.0f samples/s  %s left", p->samples_per_s,
                        cop_format_seconds(p->eta_seconds, eta));
    cli_progress_show(bar, p->steps ? (double)p->step / (double)p->steps : 0, text);
}

static void wait_for_end(run_state *s, const cli_options *options, coord_progress *p) {
    cli_progress bar;
    cli_progress_start(&bar, options->quiet);
    do {
        coord_run_progress(s->threads.coordinator, 200, p);
        show_progress(&bar, p);
        if (cli_interrupt_received()) coord_run_interrupt(s->threads.coordinator);
    } while (!p->finished);
    cli_progress_end(&bar);
}

/* ---- the result: a table or one line of JSON ---- */

static uint64_t peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

static cop_err print_json(const run_state *s, const coord_progress *p, cop_error *error) {
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
    r.workers = (uint32_t)s->workers;
    r.out = s->folder.path;
    r.has_first_step_ms = p->first_step_ms > 0;
    r.first_step_ms = p->first_step_ms + (s->submitted_ns - s->began_ns) / 1000000;
    r.leases_repeated = p->leases_repeated;
    r.state =
        (char *)(uintptr_t)(p->state == COPPICE__API__STATE__COMPLETED ? "COMPLETED" : "PAUSED");
    r.has_ms_per_step = p->step > 0 && p->seconds > 0;
    if (r.has_ms_per_step) r.ms_per_step = 1e3 * p->seconds / (double)p->step;
    r.has_total_seconds = 1;
    r.total_seconds = (double)(cop_clock_ns() - s->began_ns) * 1e-9;
    r.peak_rss = peak_memory();
    r.has_allocations = 1;
    r.allocations = cop_alloc_count();
    if (s->times) COP_TRY(cli_step_times_message(s->profiled->model, s->times, &r.profile, error));
    cli_print_json(&r.base);
    cop_free(r.profile);
    return COP_OK;
}

static void print_table(const run_state *s, const coord_progress *p) {
    char loss[32] = "-", error[32] = "-", seconds[32], total[32], rate[48], steps[64], time[80];
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
    snprintf(time, sizeof time, "%s of training, %s in all",
             cop_format_seconds(p->seconds, seconds),
             cop_format_seconds((double)(cop_clock_ns() - s->began_ns) * 1e-9, total));
    const char *cells[] = {
        "job",     s->name,          "steps",  steps,     "train loss", loss,          figure,
        error,     "time",           time,     "speed",   rate,         "arithmetic",  s->numerics,
        "kernels", s->kernels->name, "digest", p->digest, "written to", s->folder.path};
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

/* ---- --profile and --trace ---- */

#define SPANS_MAX 200000 /* of a thread in a trace */

static cop_err start_profile(run_state *s, const cli_options *options, cop_error *error) {
    if (!options->profile && !options->trace) return COP_OK;
    if (options->trace) COP_TRY(cop_file_check_place(options->trace, error));
    s->profiled = cop_job_hold(s->job);
    return cop_profile_create(options->trace ? SPANS_MAX : 0, &s->profile, error);
}

/* Ends the threads, because they own the lanes. Then writes the trace and computes s->times, as the
 * options ask. */
static cop_err make_profile(run_state *s, const cli_options *options, cop_error *error) {
    if (!s->profile) return COP_OK;
    const cop_model *model = s->profiled->model;
    uint64_t lost = 0;
    cli_in_process_stop(&s->threads);
    if (options->trace) COP_TRY(cli_trace_write(s->profile, model, options->trace, &lost, error));
    if (lost && !options->quiet)
        cli_note("%s has the first %d entries of each thread; %llu later ones are missing\n",
                 options->trace, SPANS_MAX, (unsigned long long)lost);
    if (!options->profile) return COP_OK;
    s->times = cop_alloc(sizeof *s->times);
    if (!s->times) return cop_no_memory(error);
    if (cli_step_times_of(s->profile, model, s->times))
        return cli_step_times_compare(s->profiled, s->kernels, s->times, error);
    cop_free(s->times); /* nothing was measured, for example because the run was already complete */
    s->times = NULL;
    return COP_OK;
}

static cop_err finish(run_state *s, const cli_options *options, coord_progress *p,
                      cop_error *error) {
    COP_ASSERT(p->finished);
    if (p->state == COPPICE__API__STATE__FAILED)
        return cop_fail(error,
                        strncmp(p->text, "training diverged", 17) == 0 ? COP_ERR_DIVERGED
                                                                       : COP_ERR_INTERNAL,
                        "job %s failed: %s", s->name, p->text);
    /* Now the mean over all steps. `seconds` leaves out evaluations and checkpoints. */
    if (p->seconds > 0) p->samples_per_s = (double)p->step * s->batch / p->seconds;
    if (p->text[0] && !options->quiet)
        cli_note("%swarning: %s%s\n", cli_color(2, "yellow"), p->text, cli_color(2, "reset"));
    cop_err e = make_profile(s, options, error); /* if it fails, the results are printed anyway */
    if (options->json)
        COP_TRY(print_json(s, p, error));
    else
        print_table(s, p);
    if (s->times && !options->json)
        COP_TRY(cli_step_times_print(s->profiled->model, s->times, error));
    if (e) return e;
    return p->state == COPPICE__API__STATE__PAUSED ? fail_stopped(s, options, p->step, error)
                                                   : COP_OK;
}

static void stop_all(run_state *s) {
    cli_in_process_stop(&s->threads);
    cop_profile_destroy(s->profile);
    if (s->profiled) cop_job_release(s->profiled);
    if (s->job) cop_job_release(s->job);
    if (s->data) cop_data_destroy(s->data);
    cop_free(s->times);
    cli_run_folder_fini(&s->folder);
}

static cop_err train(run_state *s, const cli_options *options, cop_error *error) {
    COP_ASSERT(s->job && s->data && s->folder.path);
    COP_TRY(start_profile(s, options, error));
    s->workers = options->workers ? (int)options->workers : cli_core_count();
    cli_in_process_config config = {
        .kernels = s->kernels,
        .run = {.folder = s->folder.path,
                .resume = options->resume != NULL,
                .timeout_s = options->has_timeout ? options->timeout : 0},
        .workers = s->workers,
        .profile = s->profile,
    };
    memcpy(config.self_test, s->self_test, sizeof config.self_test);
    cop_job *job = s->job;
    cop_data *data = s->data;
    snprintf(s->numerics, sizeof s->numerics, "portable-1");
    if (job->numerics == COP_NUMERICS_OPENBLAS) {
        COP_TRY(cop_numerics_load(job->numerics, error));
        cop_numerics_fingerprint(job->numerics, s->numerics);
    }
    s->batch = job->batch;
    s->data = NULL; /* cli_in_process_start takes over the data and the job, on failure too */
    s->job = NULL;
    s->submitted_ns = cop_clock_ns();
    COP_TRY(cli_in_process_start(&config, job, data, &s->threads, error));
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
