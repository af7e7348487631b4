/* The `coppice` command: one table of commands (table.c), one table of options (options.c), one
 * file per command or family in commands/.
 *
 * A command gets its parsed options and returns a cop_err; the sentence of an error goes to
 * standard error ("coppice run: ..."), its code makes the exit status (0 done, 1 failed, 2 bad
 * usage or input). Results go to standard output, for people or, with --json, as JSON; progress
 * goes to standard error. */
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

/* Every option of every command; a command's row says which it takes. */
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
    int least, most;      /* positional arguments */
    const char *options;  /* names of the options it takes, separated by blanks */
    const char *examples; /* lines for --help */
    cop_err (*run)(const cli_options *options, cop_error *error);
} cli_command;

/* NULL-terminated by name == NULL. */
const cli_command *cli_commands(void);
const cli_command *cli_command_find(const char *name);

/* ---- options.c ---- */
/* Parses argv[2..]; USAGE names the option, what is wrong and the nearest valid one. */
cop_err cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *out,
                          cop_error *error);
void cli_help(const cli_command *command, cop_str *out); /* NULL: the overview */
/* The options, for completion: false if the command (NULL: any) does not take it. */
typedef struct cli_option {
    const char *name, *help;
    const char *values; /* all that there are, separated by blanks; NULL: any */
    bool takes_value;
} cli_option;
size_t cli_option_count(void);
bool cli_option_at(const cli_command *command, size_t index, cli_option *out);

/* Appends those of the options `names` (separated by blanks) that were given, as a shell reads
 * them: " --out 'my runs'". */
void cli_options_print(const cli_options *options, const char *names, cop_str *out);
void cli_print_word(const char *word, cop_str *out); /* quoted for a shell where need be */
/* What finds a coordinator; without the token itself, which nobody wants to see in a log. */
#define CLI_CONNECTION "coordinator token-file tls-dir tls-ca tls-cert tls-key tls-name timeout"

/* ---- terminal/interrupt.c: what a command says when a signal ends it ---- */
/* From now on SIGINT and SIGTERM write this sentence to standard error and end the program, with
 * 128 and the signal's number as its status; until cli_interrupt_disarm. */
void cli_interrupt_arm(const char *sentence);
void cli_interrupt_disarm(void);
/* The same of a command that follows a job: the job goes on; how to watch and to cancel it. */
void cli_interrupt_arm_job(const cli_options *options, const char *command, uint64_t job);
/* For handlers of a command's own, which may be signal handlers but for the first. */
void cli_interrupt_sentence(const char *sentence);
void cli_interrupt_end(int number) __attribute__((noreturn));
void cli_interrupt_note(int number); /* a signal asked for a clean end */
int cli_interrupt_received(void);    /* its number; 0: none */

/* ---- terminal/output.c ---- */
typedef struct cli_table cli_table; /* columns aligned to their widest cell */
bool cli_is_tty(int fd);
/* Colours only on a TTY and without NO_COLOR; "" otherwise. */
const char *cli_color(int fd,
                      const char *name); /* "bold", "red", "green", "yellow", "dim", "reset" */
/* Text for people. Control characters that an argument brings along are shown as '?'. */
void cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same on standard error. */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A result: as JSON on one line. */
void cli_print_json(const ProtobufCMessage *message);
/* At the end: has all been printed? IO; NO_MEMORY when a message was left out. */
cop_err cli_output_finish(cop_error *error);
/* `text` as a JSON string, in `into` (cop_str_fini), for a cli_print of our own. */
const char *cli_quote(cop_str *into, const char *text);
/* A text cut to `size` bytes of `out`, between characters, with ".." where something is missing. */
const char *cli_shorten(const char *text, char *out, size_t size);
/* Rows of cells; the first row is the head. `align` marks columns: 'r' right-aligned, 'l' left, 'f'
 * left and cut with an ellipsis where the table is wider than the terminal (80 columns where there
 * is none). Cells are borrowed. */
void cli_print_table(const char *const *cells, int rows, int columns, const char *align);

/* A progress line on standard error: a bar on a TTY (redrawn at most 10 times a second), else a
 * line every few seconds; nothing when quiet. */
typedef struct cli_progress {
    bool quiet, tty;
    uint64_t last_ns, started_ns;
    double last_fraction;
} cli_progress;
void cli_progress_start(cli_progress *p, bool quiet);
void cli_progress_show(cli_progress *p, double fraction, const char *text);
void cli_progress_end(cli_progress *p);
void cli_data_progress(void *context, const char *what, uint64_t done,
                       uint64_t total); /* context: cli_progress */

/* ---- remote/remote.c: calls to a coordinator ---- */
typedef struct cli_remote {
    cop_link *link;
    cop_tls *tls; /* NULL: not encrypted */
    const cli_options *options;
    const char *url;
    uint32_t timeout_ms;
    char token[COP_TOKEN_MAX];
} cli_remote;
/* --coordinator, COPPICE_COORDINATOR or the default; the token by cop_token_find. */
cop_err cli_remote_open(const cli_options *options, cli_remote *out, cop_error *error);
void cli_remote_close(cli_remote *remote);
/* For how long a coordinator may hold a request back: at most `most_ms`, and well within the time
 * that its answer is waited for. */
uint32_t cli_remote_hold(const cli_remote *remote, uint32_t most_ms);
/* One call. `answer` is freed with cop_proto_free. `bulk_in` (moved) and `bulk_out` (one reference)
 * may be NULL. */
cop_err cli_remote_call(cli_remote *remote, Coppice__Api__Method method,
                        const ProtobufCMessage *request, cop_buffer *bulk_in,
                        const ProtobufCMessageDescriptor *answer_type, ProtobufCMessage **answer,
                        cop_buffer **bulk_out, cop_error *error);
/* The same on a link of its own. */
cop_err cli_ask(const cli_options *options, Coppice__Api__Method method,
                const ProtobufCMessage *request, const ProtobufCMessageDescriptor *answer_type,
                ProtobufCMessage **answer, cop_error *error);
/* A job by its number ("12", "job-12", "eval-3"), or by its name: then the coordinator is asked for
 * the newest of that name. */
cop_err cli_job_number(const cli_options *options, const char *text, uint64_t *out,
                       cop_error *error);
/* Is `text` a job's number or name, not a path? What is there as a file or folder, or has a dot or
 * a slash, is a path. */
bool cli_is_job(const char *text);
const char *cli_state_name(Coppice__Api__State state);
/* How long whoever follows something waits for a coordinator that is away: --timeout at first (if
 * it is not given, one that is not there is not waited for), then long enough for its restart.
 * lasts: after a failed call: waits a little and says true to try again; else *e and `error` say
 * why not. */
typedef struct cli_patience {
    uint64_t heard_ns, timeout_ns;
    bool answered, asked; /* asked: --timeout was given */
} cli_patience;
cli_patience cli_patience_begin(const cli_options *options);
/* The coordinator answered at once instead of holding the request: it asks for this pause. */
void cli_wait_to_ask(uint32_t ms);
void cli_patience_renew(cli_patience *patience); /* it answered */
bool cli_patience_lasts(const cli_patience *patience, const char *url, cop_err *e,
                        cop_error *error);
/* Follow a job until it ends (or is paused): progress line, survives a coordinator restart. The
 * final status is the caller's (cop_proto_free). */
cop_err cli_follow(const cli_options *options, uint64_t job, Coppice__Api__JobStatus **final,
                   cop_error *error);
/* Is the job over, or paused? */
cop_err cli_job_has_ended(const cli_options *options, const char *job, bool *ended,
                          cop_error *error);
cop_err cli_print_status(const cli_options *options, const Coppice__Api__JobStatus *status);
/* FAILED and CANCELED as an error, for a waiting `submit` and `watch`. */
cop_err cli_status_error(const Coppice__Api__JobStatus *status, cop_error *error);

/* ---- load/load.c: job files and data, for commands that work in this process ---- */
/* Reads a job file with --set applied. */
cop_err cli_read_job(const char *path, const cli_options *options, Coppice__Job **out,
                     cop_error *error);
/* Job + data (from --data or where the job says), resolved. */
cop_err cli_load_job(const char *path, const cli_options *options, cop_job **job, cop_data **data,
                     cop_error *error);
/* Trained weights from a model file or a run folder. */
typedef struct cli_model {
    cop_job *job;
    float *flat;
    uint64_t step;
    char digest[65];
} cli_model;
cop_err cli_model_open(const char *path, cli_model *out, cop_error *error);
/* Of the coordinator's job positional[0]. */
cop_err cli_model_fetch(const cli_options *options, cli_model *out, cop_error *error);
void cli_model_close(cli_model *model);
/* The data that such a model is for, from --data or where its job says; INPUT when it does not fit,
 * or has no test part. The caller owns it. */
cop_err cli_model_data(const cli_model *model, const cli_options *options, cop_data **data,
                       cop_error *error);
/* Kernels and self-test, as every program does first. */
cop_err cli_choose_kernels(const cop_kernels **kernels, unsigned char self_test[32],
                           cop_error *error);
/* Deterministic evaluation of weights on the job's test part (D10). */
cop_err cli_evaluate(const cop_job *job, const cop_data *data, const float *flat,
                     Coppice__Api__EvalResult *out, cop_error *error);

/* ---- commands/ ---- */
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
/* Prints what a safetensors file holds that is not a model (*is_model false); else prints nothing:
 * what cannot be opened, or is a folder, may be a model. */
cop_err cli_inspect_file(const cli_options *, bool *is_model, cop_error *);
cop_err cli_inspect_model(const cli_options *, cop_error *); /* of `inspect` */
cop_err cli_data(const cli_options *, cop_error *);
cop_err cli_plot(const cli_options *, cop_error *);
cop_err cli_history(const cli_options *, cop_error *);
cop_err cli_compare(const cli_options *, cop_error *);
cop_err cli_spec(const cli_options *, cop_error *);
cop_err cli_completion_command(const cli_options *, cop_error *);
/* Upload what the coordinator lacks of a data set (submit.c, also `data put`). */
cop_err cli_upload(cli_remote *remote, const cop_data *data, bool quiet, cop_error *error);

#endif
