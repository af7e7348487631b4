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

/* The options of all commands. The row of a command in table.c lists the options that it accepts.
 * An option that was not given is NULL, 0 or false, but `timeout` is then 10 and `limit` 20. The
 * texts belong to argv. */
typedef struct cli_options {
    const char *coordinator, *token, *token_file, *data, *out, *resume, *format, *output, *spec,
        *once, *ensemble, *average, *input, *label, *drop, *layout, *resize, *name, *state, *from,
        *trace;
    const char *sets[CLI_SETS_MAX], *members_from[CLI_POSITIONAL_MAX];
    int set_count, members_from_count;
    cop_tls_options tls;
    double timeout; /* seconds */
    int64_t workers, priority, rows, columns, layer, step, shard, limit, top_uncertain;
    bool json, quiet, help, no_wait, dry_run, follow, overwrite, csv, resolved, verbose, local,
        profile, time, measure;
    bool has_timeout, has_priority, has_layer, has_step, has_limit; /* the option was given */
    const char *positional[CLI_POSITIONAL_MAX]; /* the arguments that are not options */
    int positional_count;
} cli_options;

/* A row of the table of commands. */
typedef struct cli_command {
    const char *name;
    const char *arguments; /* the arguments as --help shows them, such as "JOB.yaml"; "": none */
    const char *summary;   /* one sentence for --help, without the full stop */
    int min_positional;    /* the smallest number of arguments, without options */
    int max_positional;    /* the largest number of arguments, without options */
    const char *options;   /* names of the accepted options, separated by blanks */
    const char *examples;  /* lines for --help */
    /* Runs the command. On failure the text goes into `error`, and main.c prints it. */
    cop_err (*run)(const cli_options *options, cop_error *error);
} cli_command;

/* All commands, in the order of --help. After the last one follows a row whose name is NULL. The
 * table is static. */
const cli_command *cli_commands(void);
/* The command with this name, a row of the static table. NULL: there is none. */
const cli_command *cli_command_find(const char *name);

/* ---- options.c ---- */
/* Parses argv[2..] as options and arguments of `command` into *out, which borrows argv. With
 * --help, the number of arguments is not checked. USAGE: the error names the option, the fault and
 * the nearest valid option. */
cop_err cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *out,
                          cop_error *error);
/* Appends the help text of a command, or the overview of all commands if `command` is NULL. If
 * memory runs out, out->failed becomes true. */
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
 * `command` accepts this option. If `command` is NULL, it always returns true. */
bool cli_option_at(const cli_command *command, size_t index, cli_option *out);

/* Appends options that were given, as words for a shell, such as " --out 'my runs'". `names` lists
 * the options that may be printed, separated by blanks. */
void cli_options_print(const cli_options *options, const char *names, cop_str *out);
/* Appends one word, in quotes if a shell needs them. */
void cli_print_word(const char *word, cop_str *out);
/* The options that identify a coordinator and say how to connect to it, as `names` of
 * cli_options_print. --token is not among them: the token must not appear in a log. */
#define CLI_CONNECTION "coordinator token-file tls-dir tls-ca tls-cert tls-key tls-name timeout"

/* ---- terminal/interrupt.c: the sentence that a command prints when a signal ends it ---- */
/* Until cli_interrupt_disarm, SIGINT and SIGTERM write `sentence` to standard error and end the
 * program with the exit status 128 plus the signal number. The sentence is copied. A signal that is
 * ignored (nohup) stays ignored. */
void cli_interrupt_arm(const char *sentence);
/* Restores the default action of SIGINT and SIGTERM. A signal that is ignored stays ignored. */
void cli_interrupt_disarm(void);
/* As cli_interrupt_arm, for a command that follows a job. The sentence says that the job continues,
 * and by which command lines the user can follow it again or cancel it. */
void cli_interrupt_arm_job(const cli_options *options, const char *command, uint64_t job);
/* For a command with its own signal handler: copies the sentence that cli_interrupt_end will write.
 * Must not be called in a signal handler. cli_interrupt_end, cli_interrupt_note and
 * cli_interrupt_received may be called there. */
void cli_interrupt_sentence(const char *sentence);
/* Writes the sentence to standard error and ends the program with the exit status 128 + number. */
void cli_interrupt_end(int number) __attribute__((noreturn));
/* Records that the signal `number` has asked for a clean end of the program. */
void cli_interrupt_note(int number);
/* The signal that cli_interrupt_note recorded last; 0: none. */
int cli_interrupt_received(void);

/* ---- terminal/output.c ---- */
/* True: the descriptor is a terminal. */
bool cli_is_tty(int fd);
/* The escape sequence that selects a colour or style. `name` is "bold", "red", "green", "yellow",
 * "dim" or "reset". Returns "" if the descriptor is not a terminal, if NO_COLOR is not empty, or
 * if TERM is "dumb". The text is static. */
const char *cli_color(int fd, const char *name);
/* Prints text to standard output. Control characters in it appear as '?', apart from line ends and
 * the colours of cli_color. Ends the program if standard output is a pipe whose reader has closed
 * it. */
void cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As cli_print, to standard error. Never ends the program. */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints a result to standard output, as JSON on one line. Ends the program if standard output is a
 * pipe whose reader has closed it. */
void cli_print_json(const ProtobufCMessage *message);
/* Flushes standard output. main.c calls it after each command that succeeded. IO: standard output
 * could not be written. NO_MEMORY: some output is missing, because memory ran out while it was
 * printed. */
cop_err cli_output_finish(cop_error *error);
/* Returns `text` as a JSON string, with its quotes, for a call of cli_print. The result is stored
 * in *into and stays valid until the next call with the same *into. The caller frees *into with
 * cop_str_fini. */
const char *cli_quote(cop_str *into, const char *text);
/* Copies `text` into the `size` bytes of `out`. A text that does not fit is cut between two
 * characters and gets ".." at its end. `size` is at least 9. Returns `out`. */
const char *cli_shorten(const char *text, char *out, size_t size);
/* Prints cells[rows][columns] as a table of at most 32 columns. The first row is the head. A column
 * is as wide as its widest cell. Control characters in cells appear as '?'. `align` has one letter
 * per column:
 * - 'r': aligned to the right
 * - 'l': aligned to the left
 * - 'f': aligned to the left. If the table is wider than the terminal, the column becomes narrower,
 *   and cells that no longer fit end in an ellipsis.
 * If standard output is not a terminal, the limit for the width of the table is 80. */
void cli_print_table(const char *const *cells, int rows, int columns, const char *align);

/* Progress on standard error. On a terminal it is a bar in one line, redrawn at most 10 times per
 * second. If standard error is not a terminal, one line is printed after 2 s and another one every
 * 5 s. */
typedef struct cli_progress {
    bool quiet;       /* print nothing */
    bool tty;         /* standard error is a terminal */
    uint64_t last_ns; /* when the bar or a line was last printed; 0: never */
    uint64_t started_ns;
    double last_fraction;
} cli_progress;
/* Prepares *p. Prints nothing yet. */
void cli_progress_start(cli_progress *p, bool quiet);
/* Shows how much is done, as a fraction, and a text. A fraction below 0 or NaN counts as 0, one
 * above 1 as 1. Two blanks separate the fields of the text. On a narrow terminal some fields are
 * left out. */
void cli_progress_show(cli_progress *p, double fraction, const char *text);
/* Removes the bar from the terminal, so that other output can be printed. cli_progress_show may be
 * called again afterwards. */
void cli_progress_end(cli_progress *p);
/* Shows the progress of reading or downloading data; a cop_data_progress. `context` is a
 * cli_progress. `done` and `total` are bytes. */
void cli_data_progress(void *context, const char *what, uint64_t done, uint64_t total);

/* ---- remote/remote.c: calls to a coordinator ---- */
/* A link to a coordinator, for several calls one after another. */
typedef struct cli_remote {
    cop_link *link;
    cop_tls *tls; /* NULL: not encrypted */
    const cli_options *options;
    const char *url;
    uint32_t timeout_ms; /* how long one call waits for its answer */
    char token[COP_TOKEN_MAX];
} cli_remote;
/* Opens a link to the coordinator of --coordinator, COPPICE_COORDINATOR or the default address. The
 * token comes from cop_token_find, the certificates from --tls-... or the environment. Returns
 * before a connection exists; the first call waits for it. With --timeout, the first call tries to
 * connect until that time has passed. Without it, the first call fails if the coordinator cannot be
 * reached at once. Borrows the options. On failure nothing stays open. After success, end with
 * cli_remote_close. */
cop_err cli_remote_open(const cli_options *options, cli_remote *out, cop_error *error);
/* Closes the link. Has no effect on a cli_remote that is all zero or already closed. */
void cli_remote_close(cli_remote *remote);
/* How long a request on this link may ask the coordinator to hold it, in ms: `max_ms`, or half of
 * the link's timeout if that is shorter, so that the answer arrives before the timeout. */
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
/* Sends a call and waits up to the link's timeout for the answer. If the coordinator refuses the
 * token, but cop_token_find now finds another one, the call is sent once more with the new token.
 * On success the caller owns *answer (cop_proto_free). Unless `bulk` is NULL, *bulk becomes a
 * reference to the bytes sent with the answer, which the caller owns, or NULL if there are none.
 * Takes over the reference in call->bulk, on failure too. PROTOCOL: the answer does not match the
 * call. Other errors come from cop_link_call or from the coordinator. */
cop_err cli_remote_call(cli_remote *remote, const cli_call *call, ProtobufCMessage **answer,
                        cop_buffer **bulk, cop_error *error);
/* As cli_remote_call, but opens a link for this one call and closes it. Neither the call nor the
 * answer has bulk. */
cop_err cli_ask(const cli_options *options, const cli_call *call, ProtobufCMessage **answer,
                cop_error *error);
/* Finds the number of a job. `text` is a number ("12", "job-12", or "eval-3" for an evaluation) or
 * a name. For a name it asks the coordinator for the newest job of that name. USAGE: the text is
 * neither a number nor a valid name. NOT_FOUND: no job has this name. */
cop_err cli_job_number(const cli_options *options, const char *text, uint64_t *out,
                       cop_error *error);
/* True: `text` stands for a job. It is a number, or a valid name without a dot or slash, and no
 * file or folder has this name. False: it stands for a path. Does not ask the coordinator, so the
 * job need not exist. */
bool cli_is_job(const char *text);
/* The name of a job's state, such as "RUNNING". "?" for a state that only a newer coordinator
 * knows. The text is static. */
const char *cli_state_name(Coppice__Api__State state);
/* How long `submit`, `watch` and `logs --follow` wait for a coordinator that does not answer.
 * - Before the first answer: for the timeout (--timeout, or 10 s). Without --timeout they give up
 *   at once if the coordinator is unreachable.
 * - After the first answer: for the timeout or one minute, whichever is longer, so that the
 *   coordinator can restart. */
typedef struct cli_patience {
    uint64_t last_answer_ns; /* when the last answer arrived; before the first answer: the start */
    uint64_t timeout_ns;
    bool answered;    /* at least one answer has arrived */
    bool has_timeout; /* --timeout was given */
} cli_patience;
/* Begins: no answer has arrived yet, and the wait starts now. */
cli_patience cli_patience_begin(const cli_options *options);
/* Records an answer: the next wait starts now. Call it after each answer. */
void cli_patience_renew(cli_patience *patience);
/* Decides what to do after a failed call, whose error code is in *e. True: it has slept for 200 ms,
 * and the caller should try again. False: the caller should give up. The reason is then in *e and
 * `error`: waiting cannot cure the error, or the wait has been too long. */
bool cli_patience_lasts(const cli_patience *patience, const char *url, cop_err *e,
                        cop_error *error);
/* Sleeps before the next request. A coordinator that cannot hold a request answers it at once and
 * asks for a pause of `ms`. The sleep is never longer than COP_HOLD_MAX_MS. */
void cli_wait_to_ask(uint32_t ms);
/* Follows a job until it ends or is paused, and shows its progress. Continues after a restart of
 * the coordinator (cli_patience). *final becomes the last status, which the caller owns
 * (cop_proto_free). */
cop_err cli_follow(const cli_options *options, uint64_t job, Coppice__Api__JobStatus **final,
                   cop_error *error);
/* Asks the coordinator once whether a job has ended. *ended is also true if the job is paused. */
cop_err cli_job_has_ended(const cli_options *options, const char *job, bool *ended,
                          cop_error *error);
/* Prints a job's status to standard output, as a table or as JSON. The table leaves out rows that
 * have no value. */
cop_err cli_print_status(const cli_options *options, const Coppice__Api__JobStatus *status);
/* The result of `submit` and `watch` for a job in this state. INTERNAL: the job failed. CANCELED:
 * it was canceled. OK: it is in any other state. */
cop_err cli_status_error(const Coppice__Api__JobStatus *status, cop_error *error);

/* ---- load/load.c: job files and data, for commands that compute in this process ---- */
/* Reads a job file ("-": standard input) and applies --set. The caller owns *out (cop_proto_free).
 * INPUT: the file is not a valid job; the error has file, line and column. */
cop_err cli_read_job(const char *path, const cli_options *options, Coppice__Job **out,
                     cop_error *error);
/* Loads a job file and opens its data (cli_run_folder_open_job_data), and resolves the job against
 * the data. The caller owns *job (cop_job_release) and *data (cop_data_destroy). On failure nothing
 * stays open. */
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
/* As cli_model_open, but fetches the final weights of the job positional[0] from the coordinator.
 * PROTOCOL: the weights do not match the digest that the coordinator reports. */
cop_err cli_model_fetch(const cli_options *options, cli_model *out, cop_error *error);
/* Frees what cli_model_open or cli_model_fetch has allocated. Call it only after success. */
void cli_model_close(cli_model *model);
/* Opens the data of the model at positional[0] (cli_run_folder_open_data). The caller owns *data
 * (cop_data_destroy). INPUT: the data do not fit the model, or have no test part. */
cop_err cli_model_data(const cli_model *model, const cli_options *options, cop_data **data,
                       cop_error *error);
/* Chooses the kernels for this machine, prepares the calling thread for arithmetic, and runs the
 * self-test of portable-1. `self_test` receives the digest of the self-test. Call it before any
 * computation. */
cop_err cli_choose_kernels(const cop_kernels **kernels, unsigned char self_test[32],
                           cop_error *error);
/* Evaluates weights on the test part of `data`, without random masks (D10). The sums have the same
 * bits as those of a pool. Fills the figures of *out, but not its texts. INPUT: the data have no
 * test part. */
cop_err cli_evaluate(const cop_job *job, const cop_data *data, const float *flat,
                     Coppice__Api__EvalResult *out, cop_error *error);

/* ---- commands/: one function per command; table.c has the arguments ---- */
/* `run`: trains in this process and prints a summary. CANCELED: a signal stopped the training,
 * which has saved a checkpoint. DIVERGED: a loss or weight is not finite. */
cop_err cli_run(const cli_options *, cop_error *);
/* `features`: prints statistics of a layer's units on the test part. With -o it also draws the
 * layer's weights. */
cop_err cli_features(const cli_options *, cop_error *);
/* `import`: writes the weights of a safetensors file as a model or a run folder. On failure it
 * leaves no new file. */
cop_err cli_import(const cli_options *, cop_error *);
/* `replay`: recomputes one shard of one step and writes all its tensors. */
cop_err cli_replay(const cli_options *, cop_error *);
/* `plan`: checks a job file against its data and prints what it would do. Trains nothing. */
cop_err cli_plan(const cli_options *, cop_error *);
/* `submit`: uploads the data that the coordinator does not have, and submits a job. Without
 * --no-wait it then follows the job, and fails if the job fails or is canceled. */
cop_err cli_submit(const cli_options *, cop_error *);
/* `jobs`: lists jobs, newest first; with --limit N, at most N of them. */
cop_err cli_jobs(const cli_options *, cop_error *);
/* `status`: prints the status of one job: state, steps, figures, and what it waits for. With
 * --verbose also leases and audits. */
cop_err cli_status(const cli_options *, cop_error *);
/* `watch`: follows a job until it ends or is paused. Fails if the job fails or is canceled. */
cop_err cli_watch(const cli_options *, cop_error *);
/* `cancel`: ends a job permanently. Its checkpoints stay. */
cop_err cli_cancel(const cli_options *, cop_error *);
/* `pause`: asks the coordinator to pause a job. The job finishes its current step and saves a
 * checkpoint first. The command does not wait for that. */
cop_err cli_pause(const cli_options *, cop_error *);
/* `resume`: puts a paused job back into the queue. The job will continue from its newest
 * checkpoint. */
cop_err cli_resume(const cli_options *, cop_error *);
/* `rm`: removes an ended job with its checkpoints and metrics. */
cop_err cli_rm(const cli_options *, cop_error *);
/* `logs`: prints the events of a job. With -f it waits for further events until the job ends. */
cop_err cli_logs(const cli_options *, cop_error *);
/* `workers`: lists the workers of the pool. For a worker in quarantine it also gives the reason. */
cop_err cli_workers(const cli_options *, cop_error *);
/* `drain`: asks a worker to finish its lease and leave. Does not wait for that. */
cop_err cli_drain(const cli_options *, cop_error *);
/* `eval`: evaluates one network or an ensemble on the test part, on the pool or in this process. */
cop_err cli_eval(const cli_options *, cop_error *);
/* `predict`: predicts samples from a file. With --top-uncertain and -o it also draws the most
 * uncertain ones. INPUT: the samples do not fit the model, or an output is not finite. */
cop_err cli_predict(const cli_options *, cop_error *);
/* `digest`: prints the digest of a model's weights. Equal digests mean that the weights are
 * equal, bit for bit. */
cop_err cli_digest(const cli_options *, cop_error *);
/* `inspect`: prints the content of a data set, a model or another safetensors file. */
cop_err cli_inspect(const cli_options *, cop_error *);
/* `export`: writes trained weights for other programs. On failure it leaves no new file. */
cop_err cli_export(const cli_options *, cop_error *);
/* The part of `inspect` for safetensors files that are not models. Prints the content of such a
 * file and sets *is_model to false. For everything else it prints nothing and sets *is_model to
 * true. That includes folders and files that it cannot open, because cli_model_open may know
 * more. */
cop_err cli_inspect_file(const cli_options *, bool *is_model, cop_error *);
/* The part of `inspect` for models and for other safetensors files. Prints their tensors. */
cop_err cli_inspect_model(const cli_options *, cop_error *);
/* `data`: lists, downloads or removes data sets, on the coordinator or on this machine. */
cop_err cli_data(const cli_options *, cop_error *);
/* `plot`: draws learning curves, or the errors of ensembles, into the SVG or PNG file of -o. USAGE:
 * some arguments are ensemble results, and others are jobs or runs. */
cop_err cli_plot(const cli_options *, cop_error *);
/* `history`: prints the loss of steps and epochs, and all evaluations. With -f it also prints new
 * ones until the job or run ends. */
cop_err cli_history(const cli_options *, cop_error *);
/* `compare`: prints the fields in which the job files of several jobs or runs differ, and the final
 * results of each job or run. */
cop_err cli_compare(const cli_options *, cop_error *);
/* `spec`: prints the job file of a job or run as YAML or JSON. */
cop_err cli_spec(const cli_options *, cop_error *);
/* `completion`: prints the completion script for bash (default), zsh or fish. */
cop_err cli_completion_command(const cli_options *, cop_error *);

#endif
