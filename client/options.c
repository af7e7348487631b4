/* The table of options, and --help. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/limits.h"
#include "common/base/options.h"

#define AT(field) offsetof(cli_options, field)

static const cop_option rows[] = {
    {"workers", "N", "worker threads in this process (default: the number of cores)", 0,
     COP_OPTION_INTEGER, AT(workers), 1, COP_WORKERS_MAX},
    {"data", "DIR", "folder with the data files", 0, COP_OPTION_TEXT, AT(data)},
    {"set", "a.b=c", "change a field of the job file; may be repeated", 0, COP_OPTION_REPEAT,
     AT(sets), 0, CLI_SETS_MAX, NULL, AT(set_count)},
    {"out", "DIR", "folder to write to (run: runs/NAME, or runs/NAME-2 ...; data get: the cache)",
     0, COP_OPTION_TEXT, AT(out)},
    {"resume", "auto|PATH",
     "continue from the newest checkpoint of --out, or of the run folder PATH", 0, COP_OPTION_TEXT,
     AT(resume)},
    {"overwrite", NULL, "delete the run that the folder already contains", 0, COP_OPTION_FLAG,
     AT(overwrite)},
    {"profile", NULL, "print where the time of a step went, for each layer", 0, COP_OPTION_FLAG,
     AT(profile)},
    {"time", NULL, "predict the time of a step, from a trial of about 2 seconds", 0,
     COP_OPTION_FLAG, AT(time)},
    {"measure", NULL, "repeat the trial of --time, even if the cache has its result", 0,
     COP_OPTION_FLAG, AT(measure)},
    {"trace", "FILE", "write when each thread did what, for Chrome or ui.perfetto.dev (JSON)", 0,
     COP_OPTION_TEXT, AT(trace)},
    {"coordinator", "URL",
     "tcp:// or tls+tcp://HOST:PORT, ipc:///PATH (default COPPICE_COORDINATOR or "
     "tcp://127.0.0.1:29700)",
     0, COP_OPTION_TEXT, AT(coordinator)},
    COP_CREDENTIAL_OPTIONS(cli_options, "client"),
    {"timeout", "S",
     "seconds to wait for an answer (default 10), and for a coordinator to start (default 0)", 0,
     COP_OPTION_SECONDS, AT(timeout), .given = AT(has_timeout)},
    {"priority", "N", "jobs with a higher priority run first", 0, COP_OPTION_INTEGER, AT(priority),
     -1000000, 1000000, NULL, AT(has_priority)},
    {"once", "KEY", "do not submit the job again if one of the newest 256 jobs has the same KEY", 0,
     COP_OPTION_TEXT, AT(once)},
    {"no-wait", NULL, "return when the job is accepted", 0, COP_OPTION_FLAG, AT(no_wait)},
    {"dry-run", NULL, "check everything, submit nothing", 0, COP_OPTION_FLAG, AT(dry_run)},
    {"follow", NULL, "wait for new entries", 'f', COP_OPTION_FLAG, AT(follow)},
    {"format", "NAME",
     "safetensors, onnx or torch (default: by the extension of FILE, else safetensors)", 0,
     COP_OPTION_TEXT, AT(format), .values = "safetensors onnx torch"},
    {"output", "FILE", "the file to write", 'o', COP_OPTION_TEXT, AT(output)},
    {"rows", "N", "rows of the contact sheet (default 10)", 0, COP_OPTION_INTEGER, AT(rows), 1,
     100},
    {"columns", "N", "columns of the sheet", 0, COP_OPTION_INTEGER, AT(columns), 1, 100},
    {"layer", "N", "number of the layer, from 0 (default: the first layer with weights)", 0,
     COP_OPTION_INTEGER, AT(layer), 0, 100000, NULL, AT(has_layer)},
    {"spec", "JOB.yaml", "the job file of the network", 0, COP_OPTION_TEXT, AT(spec)},
    {"ensemble", "K[,K...]",
     "number of thinned networks to average; several numbers give one row each", 0, COP_OPTION_TEXT,
     AT(ensemble)},
    {"average", "NAME", "arithmetic (default), geometric; or weight-scaling, without --ensemble", 0,
     COP_OPTION_TEXT, AT(average), .values = "arithmetic geometric weight-scaling"},
    {"members-from", "JOB|MODEL...",
     "average these separately trained models, and JOB|MODEL if given", 0, COP_OPTION_WORDS,
     AT(members_from), 0, CLI_POSITIONAL_MAX, NULL, AT(members_from_count)},
    {"input", "FILE|FOLDER|-",
     "samples: PNG or JPEG (or a folder of them), NPY, NPZ, IDX or CSV; -: standard input", 0,
     COP_OPTION_TEXT, AT(input)},
    {"name", "NAME", "only jobs with this name", 0, COP_OPTION_TEXT, AT(name)},
    {"state", "STATE", "only jobs in this state", 0, COP_OPTION_TEXT, AT(state),
     .values = "queued running paused completed failed canceled"},
    {"from", "JOB|RUN", "start from the job file of an earlier job and change it with --set", 0,
     COP_OPTION_TEXT, AT(from)},
    {"limit", "N", "maximum rows of the table (default: predict 20, jobs all; 0: all)", 0,
     COP_OPTION_INTEGER, AT(limit), 0, INT64_MAX, NULL, AT(has_limit)},
    {"top-uncertain", "N", "draw the N most uncertain samples, with -o FILE.png", 0,
     COP_OPTION_INTEGER, AT(top_uncertain), 1, 1000},
    {"label", "COLUMN", "CSV: name or number (from 1) of the label column (default: the last)", 0,
     COP_OPTION_TEXT, AT(label)},
    {"drop", "COLUMN[,COLUMN...]", "CSV: names or numbers of columns to ignore", 0, COP_OPTION_TEXT,
     AT(drop)},
    {"layout", "NAME", "arrays of four dimensions: nchw or nhwc (default: decided by the sizes)", 0,
     COP_OPTION_TEXT, AT(layout), .values = "nchw nhwc"},
    {"resize", "HxW", "resize all images of class folders to this height and width", 0,
     COP_OPTION_TEXT, AT(resize)},
    {"step", "T", "number of the step, from 1", 0, COP_OPTION_INTEGER, AT(step), 0, INT64_MAX, NULL,
     AT(has_step)},
    {"shard", "S", "number of the shard within the step, from 0 (default 0)", 0, COP_OPTION_INTEGER,
     AT(shard), 0, COP_SHARDS_MAX},
    {"verbose", NULL, "also show counts of leases and audits", 'v', COP_OPTION_FLAG, AT(verbose)},
    {"local", NULL, "use the data sets on this machine, not the coordinator's", 0, COP_OPTION_FLAG,
     AT(local)},
    {"csv", NULL, "print CSV for programs", 0, COP_OPTION_FLAG, AT(csv)},
    {"resolved", NULL, "include all defaults and the pinned section", 0, COP_OPTION_FLAG,
     AT(resolved)},
    {"json", NULL, "print JSON for programs", 0, COP_OPTION_FLAG, AT(json)},
    {"quiet", NULL, "show no progress", 'q', COP_OPTION_FLAG, AT(quiet)},
    {"help", NULL, "show this help", 'h', COP_OPTION_FLAG, AT(help)},
};
#define ROWS (sizeof rows / sizeof *rows)

static const cop_option positional = {.name = "",
                                      .kind = COP_OPTION_REPEAT,
                                      .offset = AT(positional),
                                      .maximum = CLI_POSITIONAL_MAX,
                                      .given = AT(positional_count)};

static cop_options options_of(const char *program, const char *names) {
    return (cop_options){
        .program = program, .rows = rows, .count = ROWS, .names = names, .positional = &positional};
}

cop_err cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *out,
                          cop_error *error) {
    char program[64];
    snprintf(program, sizeof program, "coppice %s", command->name);
    const cop_options options = options_of(program, command->options);
    *out = (cli_options){.timeout = COP_CLIENT_TIMEOUT_MS / 1000.0, .limit = 20};
    COP_TRY(cop_options_parse(&options, argc - 2, argv + 2, out, error));
    if (out->help) return COP_OK;
    if (out->positional_count < command->min_positional)
        return cop_fail(error, COP_ERR_USAGE, "expected %s: coppice %s %s (coppice %s --help)",
                        command->arguments, command->name, command->arguments, command->name);
    if (out->positional_count > command->max_positional)
        return cop_fail(error, COP_ERR_USAGE, "unexpected argument \"%s\" (coppice %s --help)",
                        out->positional[command->max_positional], command->name);
    return COP_OK;
}

/* ---- back to words ---- */

void cli_print_word(const char *word, cop_str *out) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./:=@%+,";
    if (*word && !word[strspn(word, plain)]) {
        cop_str_append(out, word);
        return;
    }
    cop_str_append(out, "'");
    for (; *word; word++) cop_str_printf(out, *word == '\'' ? "'\\''" : "%c", *word);
    cop_str_append(out, "'");
}

static void print_option(const char *name, const char *value, cop_str *out) {
    cop_str_printf(out, " --%s ", name);
    cli_print_word(value, out);
}

static void print_row(const cop_option *row, const cli_options *options, cop_str *out) {
    const char *at = (const char *)options + row->offset;
    char number[40];
    switch (row->kind) {
    case COP_OPTION_FLAG:
        if (*(const bool *)at) cop_str_printf(out, " --%s", row->name);
        return;
    case COP_OPTION_TEXT: {
        const char *text = *(const char *const *)(const void *)at;
        if (text) print_option(row->name, text, out);
        return;
    }
    case COP_OPTION_REPEAT:
    case COP_OPTION_WORDS: {
        const int count = *(const int *)(const void *)((const char *)options + row->given);
        const char *const *texts = (const char *const *)(const void *)at;
        for (int i = 0; i < count; i++) print_option(row->name, texts[i], out);
        return;
    }
    case COP_OPTION_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)*(const int64_t *)(const void *)at);
        if (*(const int64_t *)(const void *)at) print_option(row->name, number, out);
        return;
    case COP_OPTION_SECONDS:
        snprintf(number, sizeof number, "%.17g", *(const double *)(const void *)at);
        if (options->has_timeout) print_option(row->name, number, out);
        return;
    case COP_OPTION_SIZE:
        return;
    }
}

void cli_options_print(const cli_options *options, const char *names, cop_str *out) {
    const cop_options wanted = options_of("coppice", names);
    for (size_t i = 0; i < ROWS; i++)
        if (cop_options_accept(&wanted, rows[i].name)) print_row(&rows[i], options, out);
}

/* ---- help ---- */

static void help_overview(cop_str *out) {
    cop_str_append(out,
                   "coppice trains dropout networks on a pool of workers that may come and go.\n"
                   "The job file and its seed decide the weights, bit for bit; the pool decides "
                   "only when.\n\nCommands:\n");
    for (const cli_command *c = cli_commands(); c->name; c++) {
        char head[64];
        snprintf(head, sizeof head, "%s %s", c->name, c->arguments);
        cop_str_printf(out, "  %-26s %s\n", head, c->summary);
    }
    cop_str_append(out,
                   "\nExamples:\n  coppice run examples/quickstart.yaml\n  coppice plan job.yaml\n"
                   "  coppice submit job.yaml --data ~/mnist\n\nRun coppice COMMAND --help for its "
                   "options and examples.\n");
}

void cli_help(const cli_command *command, cop_str *out) {
    if (!command) {
        help_overview(out);
        return;
    }
    cop_str_printf(out, "coppice %s%s%s\n\n%s.\n\nOptions:\n", command->name,
                   *command->arguments ? " " : "", command->arguments, command->summary);
    const cop_options options = options_of("coppice", command->options);
    cop_options_help(&options, out);
    cop_str_append(out, "\nExamples:\n");
    for (const char *line = command->examples; *line;) {
        size_t length = strcspn(line, "\n");
        cop_str_printf(out, "  %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
}

/* ---- for completion.c ---- */

size_t cli_option_count(void) {
    return ROWS;
}

bool cli_option_at(const cli_command *command, size_t index, cli_option *out) {
    const cop_options accepted = options_of("coppice", command ? command->options : NULL);
    const cop_option *r = &rows[index];
    *out = (cli_option){
        .name = r->name, .help = r->help, .values = r->values, .takes_value = r->argument != NULL};
    return cop_options_accept(&accepted, r->name);
}
