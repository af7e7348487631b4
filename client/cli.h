/* The `coppice` command: one table of commands (table.c), one table of options (options.c), and one
 * file per command or family of commands in commands/.
 *
 * A command takes its parsed options and returns a cop_err. main.c writes the error text to
 * standard error ("coppice run: ...") and turns the code into the exit status: 0 done, 1 failed, 2
 * bad usage or bad input. Results go to standard output, as text or, with --json, as JSON. Progress
 * goes to standard error.
 *
 * Unless a comment says otherwise, a function blocks, runs on the main thread and borrows its
 * arguments. */
#ifndef COP_CLIENT_CLI_H
#define COP_CLIENT_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "common/job/job.h"
#include "common/net/net.h"
#include "proto/api.pb-c.h"

#define CLI_SETS_MAX       64
#define CLI_POSITIONAL_MAX 64

/* Every option of every command. The row of a command lists the options that it accepts. The texts
 * are those of argv. */
typedef struct cli_options {
    const char *coordinator, *token, *token_file, *data, *out, *resume, *format, *output, *spec,
        *trace, *once, *ensemble, *average, *input, *label, *drop, *layout, *resize, *name, *state,
        *from;
    const char *sets[CLI_SETS_MAX], *members_from[CLI_POSITIONAL_MAX];
    int set_count, members_from_count;
    cop_tls_options tls;
    double timeout; /* seconds; default 10 */
    int64_t workers, priority, threads, rows, columns, layer, step, shard, limit, top_uncertain;
    bool json, quiet, help, no_wait, dry_run, follow, profile, force, overwrite, csv, resolved,
        verbose, local;
    bool has_timeout, has_priority, has_layer, has_step, has_limit;
    const char *positional[CLI_POSITIONAL_MAX];
    int positional_count;
} cli_options;

typedef struct cli_command {
    const char *name, *arguments, *summary;
    int least, most;      /* number of positional arguments, from `least` to `most` */
    const char *options;  /* names of the accepted options, separated by blanks */
    const char *examples; /* lines for --help */
    cop_err (*run)(const cli_options *options, cop_error *error);
} cli_command;

/* All commands, up to a row whose name is NULL. Static. */
const cli_command *cli_commands(void);
const cli_command *cli_command_find(const char *name);
/* The command with this name; NULL: there is none. Static. */

/* ---- options.c ---- */
/* Parses argv[2..] as options and arguments of `command` into *out, which borrows argv. USAGE: the
 * error names the option, the fault and the nearest valid option. */
cop_err cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *out,
                          cop_error *error);
/* Appends the help text of a command, or the overview of all commands if `command` is NULL. */
void cli_help(const cli_command *command, cop_str *out);
/* One option as the shell completion needs it. */
typedef struct cli_option {
    const char *name, *help;
    const char *values; /* all valid values, separated by blanks; NULL: any value */
    bool takes_value;
} cli_option;
/* The number of options, over all commands. */
size_t cli_option_count(void);
/* Fills *out with the option at `index`, with static texts. False: `command` does not accept it.
 * With `command` NULL, every option is accepted. */
bool cli_option_at(const cli_command *command, size_t index, cli_option *out);

/* Appends the options that were given, as a shell reads them: " --out 'my runs'". `names` limits
 * them, separated by blanks. */
void cli_options_print(const cli_options *options, const char *names, cop_str *out);
/* Appends one word, in quotes if a shell needs them. */
void cli_print_word(const char *word, cop_str *out);
/* The options that identify a coordinator. The token itself is missing: it must not appear in a
 * log. */
#define CLI_CONNECTION "coordinator token-file tls-dir tls-ca tls-cert tls-key tls-name timeout"

/* ---- terminal/interrupt.c: what a command prints when a signal ends it ---- */
/* Until cli_interrupt_disarm, SIGINT and SIGTERM write `sentence` to standard error and end the
 * program with the exit status 128 plus the signal number. The sentence is copied. */
void cli_interrupt_arm(const char *sentence);
/* Restores the default action of SIGINT and SIGTERM. A signal that was ignored stays ignored. */
void cli_interrupt_disarm(void);
/* As cli_interrupt_arm, for a command that follows a job. The sentence says that the job continues,
 * and how to watch and cancel it. */
void cli_interrupt_arm_job(const cli_options *options, const char *command, uint64_t job);
/* For a command with its own signal handler. This one sets the sentence; call it outside of
 * handlers. The other three may be called in a signal handler. */
void cli_interrupt_sentence(const char *sentence);
/* Writes the sentence and ends the program with the exit status 128 + number. */
void cli_interrupt_end(int number) __attribute__((noreturn));
/* Records that signal `number` asked for a clean end. */
void cli_interrupt_note(int number);
/* The recorded signal; 0: none. */
int cli_interrupt_received(void);

/* ---- terminal/output.c ---- */
typedef struct cli_table cli_table; /* columns are aligned to their widest cell */
/* True: the descriptor is a terminal. */
bool cli_is_tty(int fd);
/* The escape sequence of a colour on a terminal; "" on anything else, with NO_COLOR, and with
 * TERM=dumb. `name`: "bold", "red", "green", "yellow", "dim" or "reset". Static. */
const char *cli_color(int fd, const char *name);
/* Prints text to standard output. Control characters in the arguments appear as '?'. */
void cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As cli_print, on standard error. */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints a result to standard output, as JSON on one line. */
void cli_print_json(const ProtobufCMessage *message);
/* Call it last: has all output been written? IO: writing failed. NO_MEMORY: some output is missing.
 */
cop_err cli_output_finish(cop_error *error);
/* `text` as a JSON string, for a call of cli_print. The result lives in `into`, which the caller
 * frees with cop_str_fini. */
const char *cli_quote(cop_str *into, const char *text);
/* Copies `text` into `out`, cut between characters to fit `size` bytes; ".." marks a cut. Returns
 * `out`. */
const char *cli_shorten(const char *text, char *out, size_t size);
/* Prints rows of cells as a table; the first row is the head. `align` has one letter per column:
 * 'r' right, 'l' left, 'f' left, cut with an ellipsis if the table is wider than the terminal (80
 * columns if there is none). Borrows the cells. */
void cli_print_table(const char *const *cells, int rows, int columns, const char *align);

/* A progress line on standard error. On a terminal it is a bar, redrawn at most 10 times per
 * second; elsewhere a line every few seconds. Quiet: no output. */
typedef struct cli_progress {
    bool quiet, tty;
    uint64_t last_ns, started_ns;
    double last_fraction;
} cli_progress;
void cli_progress_start(cli_progress *p, bool quiet);
/* Shows the fraction done (0 to 1) and a text. */
void cli_progress_show(cli_progress *p, double fraction, const char *text);
/* Removes the bar, so that other output can follow. */
void cli_progress_end(cli_progress *p);
/* Progress of reading data, as a cop_data_progress. `context` is a cli_progress. */
void cli_data_progress(void *context, const char *what, uint64_t done, uint64_t total);

/* ---- remote/remote.c: calls to a coordinator ---- */
typedef struct cli_remote {
    cop_link *link;
    cop_tls *tls; /* NULL: not encrypted */
    const cli_options *options;
    const char *url;
    uint32_t timeout_ms;
    char token[COP_TOKEN_MAX];
} cli_remote;
/* Opens a link to the coordinator of --coordinator, COPPICE_COORDINATOR or the default address. The
 * token comes from cop_token_find. After success, end with cli_remote_close. */
cop_err cli_remote_open(const cli_options *options, cli_remote *out, cop_error *error);
void cli_remote_close(cli_remote *remote);
/* How long the coordinator may hold a request of this link, in ms: at most `most_ms`, and well
 * below the timeout of the answer. */
uint32_t cli_remote_hold(const cli_remote *remote, uint32_t most_ms);
/* One call. On success the caller owns *answer (cop_proto_free) and one reference in *bulk_out. The
 * call takes `bulk_in`, on failure too. `bulk_in` and `bulk_out` may be NULL. */
cop_err cli_remote_call(cli_remote *remote, Coppice__Api__Method method,
                        const ProtobufCMessage *request, cop_buffer *bulk_in,
                        const ProtobufCMessageDescriptor *answer_type, ProtobufCMessage **answer,
                        cop_buffer **bulk_out, cop_error *error);
/* As cli_remote_call, on a link that exists only for this call. */
cop_err cli_ask(const cli_options *options, Coppice__Api__Method method,
                const ProtobufCMessage *request, const ProtobufCMessageDescriptor *answer_type,
                ProtobufCMessage **answer, cop_error *error);
/* The number of a job, from its number ("12", "job-12", "eval-3") or its name. For a name it asks
 * the coordinator for the newest job of that name. NOT_FOUND: there is none. */
cop_err cli_job_number(const cli_options *options, const char *text, uint64_t *out,
                       cop_error *error);
/* True: `text` is the number or name of a job. False: it is a path, because such a file or folder
 * exists, or because it has a dot or a slash. */
bool cli_is_job(const char *text);
/* The name of a job's state, such as "RUNNING". Static. */
const char *cli_state_name(Coppice__Api__State state);
/* How long a command that follows something waits for a silent coordinator. Until the first answer
 * it waits for --timeout, or not at all without --timeout; after that, long enough for a restart of
 * the coordinator. */
typedef struct cli_patience {
    uint64_t heard_ns, timeout_ns;
    bool answered, asked; /* asked: --timeout was given */
} cli_patience;
cli_patience cli_patience_begin(const cli_options *options);
/* Pauses before the next request, for a coordinator that answers at once instead of holding
 * requests. */
void cli_wait_to_ask(uint32_t ms);
/* Call it after each answer. */
void cli_patience_renew(cli_patience *patience);
/* Call it after a failed call. True: it has waited a little, try again. False: give up; *e and
 * `error` give the reason. */
bool cli_patience_lasts(const cli_patience *patience, const char *url, cop_err *e,
                        cop_error *error);
/* Follows a job until it ends or is paused, with a progress line. A restart of the coordinator does
 * not stop it. The caller owns *final (cop_proto_free). */
cop_err cli_follow(const cli_options *options, uint64_t job, Coppice__Api__JobStatus **final,
                   cop_error *error);
/* Sets *ended if the job has ended or is paused. */
cop_err cli_job_has_ended(const cli_options *options, const char *job, bool *ended,
                          cop_error *error);
/* Prints a job's status, as text or as JSON. */
cop_err cli_print_status(const cli_options *options, const Coppice__Api__JobStatus *status);
/* Turns the states FAILED and CANCELED into an error, for `submit` and `watch`. */
cop_err cli_status_error(const Coppice__Api__JobStatus *status, cop_error *error);

/* ---- load/load.c: job files and data, for commands that compute in this process ---- */
/* Reads a job file ("-": standard input) and applies --set. The caller owns *out (cop_proto_free).
 */
cop_err cli_read_job(const char *path, const cli_options *options, Coppice__Job **out,
                     cop_error *error);
/* Loads a job file and its data, from --data or from the place that the job file names, and
 * resolves the job against the data. The caller owns both. */
cop_err cli_load_job(const char *path, const cli_options *options, cop_job **job, cop_data **data,
                     cop_error *error);
/* Trained weights from a model file or a run folder. End with cli_model_close. */
typedef struct cli_model {
    cop_job *job;
    float *flat;
    uint64_t step;
    char digest[65];
} cli_model;
cop_err cli_model_open(const char *path, cli_model *out, cop_error *error);
/* As cli_model_open, with the final weights of the coordinator's job positional[0]. */
cop_err cli_model_fetch(const cli_options *options, cli_model *out, cop_error *error);
void cli_model_close(cli_model *model);
/* Opens the data of a model, from --data or from the place that its job names. INPUT: the data do
 * not fit the model, or have no test part. The caller owns *data. */
cop_err cli_model_data(const cli_model *model, const cli_options *options, cop_data **data,
                       cop_error *error);
/* Chooses the kernels of this machine and runs the self-test. Every program starts with it. */
cop_err cli_choose_kernels(const cop_kernels **kernels, unsigned char self_test[32],
                           cop_error *error);
/* Evaluates weights on the test part of the job's data, without random masks (D10). */
cop_err cli_evaluate(const cop_job *job, const cop_data *data, const float *flat,
                     Coppice__Api__EvalResult *out, cop_error *error);

/* ---- commands/: one function per command ---- */
cop_err cli_run(const cli_options *, cop_error *);
cop_err cli_features(const cli_options *, cop_error *);
cop_err cli_import(const cli_options *, cop_error *);
cop_err cli_replay(const cli_options *, cop_error *);
cop_err cli_plan(const cli_options *, cop_error *);
cop_err cli_submit(const cli_options *, cop_error *);
cop_err cli_jobs(const cli_options *, cop_error *);
cop_err cli_status(const cli_options *, cop_error *);
cop_err cli_watch(const cli_options *, cop_error *);
cop_err cli_cancel(const cli_options *, cop_error *);
cop_err cli_pause(const cli_options *, cop_error *);
cop_err cli_resume(const cli_options *, cop_error *);
cop_err cli_rm(const cli_options *, cop_error *);
cop_err cli_logs(const cli_options *, cop_error *);
cop_err cli_workers(const cli_options *, cop_error *);
cop_err cli_drain(const cli_options *, cop_error *);
cop_err cli_eval(const cli_options *, cop_error *);
cop_err cli_predict(const cli_options *, cop_error *);
cop_err cli_digest(const cli_options *, cop_error *);
cop_err cli_inspect(const cli_options *, cop_error *);
cop_err cli_export(const cli_options *, cop_error *);
/* Prints the content of a safetensors file that is not a model, and clears *is_model. For
 * everything else it prints nothing and sets *is_model: a folder, or a file that cannot be opened,
 * may be a model. */
cop_err cli_inspect_file(const cli_options *, bool *is_model, cop_error *);
cop_err cli_inspect_model(const cli_options *, cop_error *); /* the part of `inspect` for models */
cop_err cli_data(const cli_options *, cop_error *);
cop_err cli_plot(const cli_options *, cop_error *);
cop_err cli_history(const cli_options *, cop_error *);
cop_err cli_compare(const cli_options *, cop_error *);
cop_err cli_spec(const cli_options *, cop_error *);
cop_err cli_completion_command(const cli_options *, cop_error *);
/* Uploads the parts of a data set that the coordinator lacks (submit.c). */
cop_err cli_upload(cli_remote *remote, const cop_data *data, bool quiet, cop_error *error);

#endif
