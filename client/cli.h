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

/* The options of all commands; the row of a command in table.c lists the options that it accepts.
 * An option that was not given is NULL, 0 or false, apart from the defaults named below. The texts
 * belong to argv. */
typedef struct cli_options {
    const char *coordinator, *token, *token_file, *data, *out, *resume, *format, *output, *spec,
        *once, *ensemble, *average, *input, *label, *drop, *layout, *resize, *name, *state, *from;
    const char *sets[CLI_SETS_MAX], *members_from[CLI_POSITIONAL_MAX];
    int set_count, members_from_count;
    cop_tls_options tls;
    double timeout; /* seconds; default 10 */
    int64_t workers, priority, rows, columns, layer, step, shard, limit, top_uncertain;
    bool json, quiet, help, no_wait, dry_run, follow, overwrite, csv, resolved, verbose, local;
    bool has_timeout, has_priority, has_layer, has_step, has_limit; /* the option was given */
    const char *positional[CLI_POSITIONAL_MAX]; /* the arguments without the options */
    int positional_count;
} cli_options;

/* A row of the table of commands. `arguments` and `summary` are for --help. */
typedef struct cli_command {
    const char *name, *arguments, *summary;
    int min_positional, max_positional; /* how many arguments it accepts */
    const char *options;                /* names of the accepted options, separated by blanks */
    const char *examples;               /* lines for --help */
    /* Runs the command. On failure the text goes into `error`, and main.c prints it. */
    cop_err (*run)(const cli_options *options, cop_error *error);
} cli_command;

/* All commands, in the order of --help, up to a row whose name is NULL. Static. */
const cli_command *cli_commands(void);
/* The command with this name. Static. NULL: there is none. */
const cli_command *cli_command_find(const char *name);

/* ---- options.c ---- */
/* Parses argv[2..] as options and arguments of `command` into *out, which borrows argv. With
 * --help, the number of arguments is not checked. USAGE: the error names the option, the fault and
 * the nearest valid option. */
cop_err cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *out,
                          cop_error *error);
/* Appends the help text of a command, or the overview of all commands if `command` is NULL. Out of
 * memory is recorded in *out. */
void cli_help(const cli_command *command, cop_str *out);
/* One option as the shell completion needs it. All texts are static. */
typedef struct cli_option {
    const char *name, *help;
    const char *values; /* all valid values, separated by blanks; NULL: any value */
    bool takes_value;
} cli_option;
/* The number of options, over all commands. */
size_t cli_option_count(void);
/* Fills *out with the option at `index`, from 0 to cli_option_count() - 1. Returns true if
 * `command` accepts this option; with `command` NULL, always. */
bool cli_option_at(const cli_command *command, size_t index, cli_option *out);

/* Appends the options that were given, as words for a shell: " --out 'my runs'". `names` selects
 * the options to print, separated by blanks. */
void cli_options_print(const cli_options *options, const char *names, cop_str *out);
/* Appends one word, in quotes if a shell needs them. */
void cli_print_word(const char *word, cop_str *out);
/* The options that identify a coordinator, for cli_options_print. The token itself is missing: it
 * must not appear in a log. */
#define CLI_CONNECTION "coordinator token-file tls-dir tls-ca tls-cert tls-key tls-name timeout"

/* ---- terminal/interrupt.c: the sentence that a command prints when a signal ends it ---- */
/* Until cli_interrupt_disarm, SIGINT and SIGTERM write `sentence` to standard error and end the
 * program with the exit status 128 plus the signal number. The sentence is copied. A signal that is
 * ignored (nohup) stays ignored. */
void cli_interrupt_arm(const char *sentence);
/* Restores the default action of SIGINT and SIGTERM. A signal that is ignored stays ignored. */
void cli_interrupt_disarm(void);
/* As cli_interrupt_arm, for a command that follows a job. The sentence says that the job continues,
 * and which commands follow it and cancel it. */
void cli_interrupt_arm_job(const cli_options *options, const char *command, uint64_t job);
/* For a command with its own signal handler: sets the sentence for cli_interrupt_end, and copies
 * it. Do not call it in a signal handler; the three functions below may be called there. */
void cli_interrupt_sentence(const char *sentence);
/* Writes the sentence to standard error and ends the program with the exit status 128 + number. */
void cli_interrupt_end(int number) __attribute__((noreturn));
/* Records that signal `number` asked for a clean end. */
void cli_interrupt_note(int number);
/* The recorded signal; 0: none. */
int cli_interrupt_received(void);

/* ---- terminal/output.c ---- */
/* True: the descriptor is a terminal. */
bool cli_is_tty(int fd);
/* The escape sequence of a colour on a terminal; "" on anything else, with NO_COLOR, and with
 * TERM=dumb. `name`: "bold", "red", "green", "yellow", "dim" or "reset". Static. */
const char *cli_color(int fd, const char *name);
/* Prints text to standard output. Control characters in it appear as '?', apart from line ends and
 * the colours of cli_color. Ends the program if the reader of a pipe has closed it. */
void cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints text to standard error, with the same replacements. */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints a result to standard output, as JSON on one line. Ends the program if the reader of a pipe
 * has closed it. */
void cli_print_json(const ProtobufCMessage *message);
/* Flushes standard output; each command ends with it. IO: writing failed. NO_MEMORY: some output is
 * missing, although the command succeeded. */
cop_err cli_output_finish(cop_error *error);
/* `text` as a JSON string, for a call of cli_print. The result lives in *into until the next call
 * with it; the caller frees it with cop_str_fini. */
const char *cli_quote(cop_str *into, const char *text);
/* Copies `text` into `out`, cut between characters to fit `size` bytes, at least 9; ".." marks a
 * cut. Returns `out`. */
const char *cli_shorten(const char *text, char *out, size_t size);
/* Prints cells[rows][columns] as a table; the first row is the head. Columns are as wide as their
 * widest cell. `align` has one letter per column: 'r' right, 'l' left, 'f' left and narrowed with
 * an ellipsis if the table is wider than the terminal (80 columns if standard output is not one).
 * Control characters in cells appear as '?'. At most 32 columns. */
void cli_print_table(const char *const *cells, int rows, int columns, const char *align);

/* A progress line on standard error. On a terminal it is a bar, redrawn at most 10 times per
 * second; elsewhere it is a line after 2 s and then every 5 s. Quiet: no output. */
typedef struct cli_progress {
    bool quiet, tty;
    uint64_t last_ns, started_ns;
    double last_fraction;
} cli_progress;
/* Starts with an empty line. */
void cli_progress_start(cli_progress *p, bool quiet);
/* Shows the fraction done and a text. A fraction outside 0 to 1, or NaN, is clamped. Fields of the
 * text that are separated by two blanks may be dropped on a narrow terminal. */
void cli_progress_show(cli_progress *p, double fraction, const char *text);
/* Removes the bar, so that other output can follow. More calls of cli_progress_show may follow. */
void cli_progress_end(cli_progress *p);
/* Progress of reading data, as a cop_data_progress. `context` is a cli_progress; `done` and `total`
 * are bytes. */
void cli_data_progress(void *context, const char *what, uint64_t done, uint64_t total);

/* ---- remote/remote.c: calls to a coordinator ---- */
/* A link to a coordinator, for several calls one after another. */
typedef struct cli_remote {
    cop_link *link;
    cop_tls *tls; /* NULL: not encrypted */
    const cli_options *options;
    const char *url;
    uint32_t timeout_ms; /* of one call */
    char token[COP_TOKEN_MAX];
} cli_remote;
/* Opens a link to the coordinator of --coordinator, COPPICE_COORDINATOR or the default address. The
 * token comes from cop_token_find, the certificates from --tls-... or the environment. It does not
 * wait for a connection: the first call does. Borrows the options. On failure nothing stays open;
 * after success, end with cli_remote_close. */
cop_err cli_remote_open(const cli_options *options, cli_remote *out, cop_error *error);
/* Closes the link. A cli_remote that is all zero, or closed already, is fine. */
void cli_remote_close(cli_remote *remote);
/* How long the coordinator may hold a request of this link, in ms: up to `max_ms`, and at most half
 * of the timeout of the answer, so that the answer arrives in time. */
uint32_t cli_remote_hold(const cli_remote *remote, uint32_t max_ms);
/* A request to a coordinator. */
typedef struct cli_call {
    Coppice__Api__Method method;
    const ProtobufCMessage *request;
    const ProtobufCMessageDescriptor *answer_type;
    cop_buffer *bulk; /* bytes sent with the request, such as a chunk of data; NULL: none */
} cli_call;
/* The call of METHOD with the given request message; `answer` is the name of METHOD in lower case:
 * CLI_CALL(GET_JOB, get_job, request). */
#define CLI_CALL(METHOD, answer, message)                                                          \
    ((cli_call){.method = COPPICE__API__METHOD__##METHOD,                                          \
                .request = &(message).base,                                                        \
                .answer_type = &coppice__api__##answer##_answer__descriptor})
/* Sends a call and waits up to the link's timeout for the answer. If the token was refused and its
 * file has changed since, it tries once more. On success the caller owns *answer (cop_proto_free)
 * and, unless `bulk` is NULL, one reference in *bulk: the bytes sent with the answer, or NULL.
 * Takes call->bulk, on failure too. PROTOCOL: the answer does not match the call; otherwise the
 * errors of cop_link_call and the coordinator's own. */
cop_err cli_remote_call(cli_remote *remote, const cli_call *call, ProtobufCMessage **answer,
                        cop_buffer **bulk, cop_error *error);
/* As cli_remote_call, for a call without bulk, on a link that exists only for this call. */
cop_err cli_ask(const cli_options *options, const cli_call *call, ProtobufCMessage **answer,
                cop_error *error);
/* The number of a job, from its number ("12", "job-12", "eval-3") or its name. For a name it asks
 * the coordinator for the newest job of that name. USAGE: the text is neither. NOT_FOUND: no job
 * has this name. */
cop_err cli_job_number(const cli_options *options, const char *text, uint64_t *out,
                       cop_error *error);
/* True: `text` is the number or name of a job. False: it is a path, because such a file or folder
 * exists, or because it has a dot or a slash. Does not ask the coordinator. */
bool cli_is_job(const char *text);
/* The name of a job's state, such as "RUNNING"; "?" for a state of a newer coordinator. Static. */
const char *cli_state_name(Coppice__Api__State state);
/* How long a command that follows something waits for a silent coordinator. Until the first answer
 * it waits for --timeout, or not at all without --timeout; after that, at least a minute, long
 * enough for a restart of the coordinator. */
typedef struct cli_patience {
    uint64_t last_answer_ns, timeout_ns;
    bool answered, has_timeout; /* has_timeout: --timeout was given */
} cli_patience;
/* Starts the wait now. */
cli_patience cli_patience_begin(const cli_options *options);
/* Starts the wait again. Call it after each answer. */
void cli_patience_renew(cli_patience *patience);
/* Call it after a failed call, with its error in *e. True: it has waited a little; try again.
 * False: give up; *e and `error` give the reason. */
bool cli_patience_lasts(const cli_patience *patience, const char *url, cop_err *e,
                        cop_error *error);
/* Pauses before the next request, for a coordinator that answers immediately instead of holding
 * requests. `ms` is the pause that it asked for; a very long one is cut. */
void cli_wait_to_ask(uint32_t ms);
/* Follows a job until it ends or is paused, with a progress line. A restart of the coordinator does
 * not stop it (cli_patience). The caller owns *final (cop_proto_free). */
cop_err cli_follow(const cli_options *options, uint64_t job, Coppice__Api__JobStatus **final,
                   cop_error *error);
/* Asks the coordinator once. *ended: the job has ended or is paused. */
cop_err cli_job_has_ended(const cli_options *options, const char *job, bool *ended,
                          cop_error *error);
/* Prints a job's status to standard output, as text or as JSON. Unknown fields are left out. */
cop_err cli_print_status(const cli_options *options, const Coppice__Api__JobStatus *status);
/* Turns the state FAILED into INTERNAL and CANCELED into CANCELED, for `submit` and `watch`; OK for
 * every other state. */
cop_err cli_status_error(const Coppice__Api__JobStatus *status, cop_error *error);

/* ---- load/load.c: job files and data, for commands that compute in this process ---- */
/* Reads a job file ("-": standard input) and applies --set. The caller owns *out (cop_proto_free).
 * INPUT: the error has file, line and column. */
cop_err cli_read_job(const char *path, const cli_options *options, Coppice__Job **out,
                     cop_error *error);
/* Loads a job file and its data, from --data or from the place that the job file names, and
 * resolves the job against the data. The caller owns both (cop_job_destroy, cop_data_destroy); on
 * failure nothing. */
cop_err cli_load_job(const char *path, const cli_options *options, cop_job **job, cop_data **data,
                     cop_error *error);
/* Trained weights with their job. End with cli_model_close. */
typedef struct cli_model {
    cop_job *job;
    float *flat; /* all parameters, in the layout of cop_model_parameter */
    uint64_t step;
    char digest[65];
} cli_model;
/* Loads the weights of a model file, a checkpoint or a run folder. CORRUPT: the content does not
 * match its digest. On failure nothing stays open. */
cop_err cli_model_open(const char *path, cli_model *out, cop_error *error);
/* As cli_model_open, with the final weights of the coordinator's job positional[0]. PROTOCOL: the
 * weights differ from the digest that the coordinator reports. */
cop_err cli_model_fetch(const cli_options *options, cli_model *out, cop_error *error);
/* Frees what a successful open or fetch has allocated. */
void cli_model_close(cli_model *model);
/* Opens the data of a model, from --data or from the place that its job names. INPUT: the data do
 * not fit the model, or have no test part. The caller owns *data (cop_data_destroy). */
cop_err cli_model_data(const cli_model *model, const cli_options *options, cop_data **data,
                       cop_error *error);
/* Chooses the kernels of this machine, prepares the calling thread for arithmetic, and runs the
 * self-test of portable-1; its digest goes to `self_test`. Call it before any computation. */
cop_err cli_choose_kernels(const cop_kernels **kernels, unsigned char self_test[32],
                           cop_error *error);
/* Evaluates weights on the test part of the job's data, without random masks (D10). The sums have
 * the same bits as a pool's. Fills the figures of *out, not its texts. INPUT: no test part. */
cop_err cli_evaluate(const cop_job *job, const cop_data *data, const float *flat,
                     Coppice__Api__EvalResult *out, cop_error *error);

/* ---- commands/: one function per command; table.c has the arguments ---- */
/* `run`: trains in this process and prints a summary. CANCELED: a signal stopped it after a
 * checkpoint. DIVERGED: a loss or weight is not finite. */
cop_err cli_run(const cli_options *, cop_error *);
/* `features`: prints statistics of a layer's units on the test part; with -o draws its weights. */
cop_err cli_features(const cli_options *, cop_error *);
/* `import`: writes the weights of a safetensors file as a model or a run folder. On failure it
 * leaves no new file. */
cop_err cli_import(const cli_options *, cop_error *);
/* `replay`: recomputes one shard of one step and writes all its tensors. */
cop_err cli_replay(const cli_options *, cop_error *);
/* `plan`: checks a job file against its data and prints what it would do. Trains nothing. */
cop_err cli_plan(const cli_options *, cop_error *);
/* `submit`: uploads missing data, submits a job and, without --no-wait, follows it. Fails if the
 * job fails. */
cop_err cli_submit(const cli_options *, cop_error *);
/* `jobs`: lists jobs, newest first, up to --limit. */
cop_err cli_jobs(const cli_options *, cop_error *);
/* `status`: prints the status of one job: state, steps, figures, and what it waits for. With
 * --verbose also leases and audits. */
cop_err cli_status(const cli_options *, cop_error *);
/* `watch`: follows a job until it ends or is paused. Fails if the job fails. */
cop_err cli_watch(const cli_options *, cop_error *);
/* `cancel`: ends a job permanently; its checkpoints stay. */
cop_err cli_cancel(const cli_options *, cop_error *);
/* `pause`: the job saves a checkpoint and pauses after the current step. Does not wait for it. */
cop_err cli_pause(const cli_options *, cop_error *);
/* `resume`: puts a paused job back into the queue; it continues from its newest checkpoint. */
cop_err cli_resume(const cli_options *, cop_error *);
/* `rm`: removes an ended job with its checkpoints and metrics. */
cop_err cli_rm(const cli_options *, cop_error *);
/* `logs`: prints the events of a job; with -f until the job ends. */
cop_err cli_logs(const cli_options *, cop_error *);
/* `workers`: lists the workers of the pool, and why any is in quarantine. */
cop_err cli_workers(const cli_options *, cop_error *);
/* `drain`: asks a worker to finish its shard and leave. Does not wait for it. */
cop_err cli_drain(const cli_options *, cop_error *);
/* `eval`: evaluates one network, or an ensemble, on the test part: on the pool or in this process.
 */
cop_err cli_eval(const cli_options *, cop_error *);
/* `predict`: predicts samples from a file; with -o draws the most uncertain ones. INPUT: the
 * samples do not fit the model, or an output is not finite. */
cop_err cli_predict(const cli_options *, cop_error *);
/* `digest`: prints the digest of a model's weights: equal digests mean equal weights, bit for bit.
 */
cop_err cli_digest(const cli_options *, cop_error *);
/* `inspect`: prints the content of a data set, a model or another safetensors file. */
cop_err cli_inspect(const cli_options *, cop_error *);
/* `export`: writes trained weights for other programs. On failure it leaves no new file. */
cop_err cli_export(const cli_options *, cop_error *);
/* The part of `inspect` for safetensors files that are not models: prints the content and clears
 * *is_model. For everything else it prints nothing and sets *is_model: a folder, or a file that
 * cannot be opened, may be a model. */
cop_err cli_inspect_file(const cli_options *, bool *is_model, cop_error *);
/* The part of `inspect` for models and other safetensors files: prints the tensors. */
cop_err cli_inspect_model(const cli_options *, cop_error *);
/* `data`: lists, downloads or removes data sets, on the coordinator or on this machine. */
cop_err cli_data(const cli_options *, cop_error *);
/* `plot`: draws learning curves, or the error of ensembles, into the SVG or PNG file of -o. USAGE:
 * the arguments mix jobs with ensemble results. */
cop_err cli_plot(const cli_options *, cop_error *);
/* `history`: prints the loss of steps and epochs, and all evaluations; with -f until the end. */
cop_err cli_history(const cli_options *, cop_error *);
/* `compare`: prints the fields in which the job files of several jobs or runs differ, and the
 * results of each. */
cop_err cli_compare(const cli_options *, cop_error *);
/* `spec`: prints the job file of a job or run as YAML or JSON. */
cop_err cli_spec(const cli_options *, cop_error *);
/* `completion`: prints the completion script for bash (default), zsh or fish. */
cop_err cli_completion_command(const cli_options *, cop_error *);

#endif
