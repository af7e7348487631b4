/* The table of options, their parser, and --help: all from the same two tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/limits.h"

typedef enum option_kind { FLAG, TEXT, INTEGER, REAL, SET, LIST } option_kind;

typedef struct option_row {
    const char *name, *argument, *help;
    char letter;
    option_kind kind;
    size_t offset;
    int64_t least, most; /* INTEGER */
    const char *values;  /* all that there are, for the completion; NULL: any */
} option_row;

#define AT(field) offsetof(cli_options, field)

static const option_row rows[] = {
    {"workers", "N", "worker threads in this process (default: the number of cores)", 0, INTEGER,
     AT(workers), 1, COP_WORKERS_MAX},
    {"data", "DIR", "folder with the data files", 0, TEXT, AT(data), 0, 0},
    {"set", "a.b=c", "change a field of the job file; may be repeated", 0, SET, 0, 0, 0},
    {"out", "DIR", "folder to write to (run: runs/NAME, or runs/NAME-2 ...; data get: the cache)",
     0, TEXT, AT(out), 0, 0},
    {"resume", "auto|PATH",
     "continue from the newest checkpoint of --out, or of the run folder PATH", 0, TEXT, AT(resume),
     0, 0},
    {"overwrite", NULL, "first delete the run in the folder", 0, FLAG, AT(overwrite), 0, 0},
    {"coordinator", "URL",
     "tcp:// or tls+tcp://HOST:PORT, ipc:///PATH (default COPPICE_COORDINATOR or "
     "tcp://127.0.0.1:29700)",
     0, TEXT, AT(coordinator), 0, 0},
    {"token", "TEXT",
     "the coordinator's token (default COPPICE_TOKEN, or that of your own coordinator on this "
     "machine)",
     0, TEXT, AT(token), 0, 0},
    {"token-file", "FILE", "... or a file that contains it", 0, TEXT, AT(token_file), 0, 0},
    {"tls-dir", "DIR", "certificates of tls+tcp://: ca.pem, client.pem, client.key in DIR", 0, TEXT,
     AT(tls.folder), 0, 0},
    {"tls-ca", "FILE", "... or each file separately (default COPPICE_TLS_DIR, _CA, _CERT, _KEY)", 0,
     TEXT, AT(tls.ca), 0, 0},
    {"tls-cert", "FILE", "the client's certificate", 0, TEXT, AT(tls.cert), 0, 0},
    {"tls-key", "FILE", "its key", 0, TEXT, AT(tls.key), 0, 0},
    {"tls-name", "HOST", "the name in the coordinator's certificate (default: that of the URL)", 0,
     TEXT, AT(tls.name), 0, 0},
    {"timeout", "S",
     "seconds to wait for an answer (default 10), and for a coordinator to start (default 0)", 0,
     REAL, AT(timeout), 0, 0},
    {"priority", "N", "jobs with a higher priority run first", 0, INTEGER, AT(priority), -1000000,
     1000000},
    {"once", "KEY", "a repeated KEY returns the earlier job (of the newest 256), not a new one", 0,
     TEXT, AT(once), 0, 0},
    {"no-wait", NULL, "return when the job is accepted", 0, FLAG, AT(no_wait), 0, 0},
    {"dry-run", NULL, "check everything, submit nothing", 0, FLAG, AT(dry_run), 0, 0},
    {"follow", NULL, "wait for new entries", 'f', FLAG, AT(follow), 0, 0},
    {"format", "NAME",
     "safetensors, onnx or torch (default: by the extension of FILE, else safetensors)", 0, TEXT,
     AT(format), 0, 0, "safetensors onnx torch"},
    {"output", "FILE", "the file to write", 'o', TEXT, AT(output), 0, 0},
    {"rows", "N", "rows of the contact sheet (default 10)", 0, INTEGER, AT(rows), 1, 100},
    {"columns", "N", "columns of the sheet", 0, INTEGER, AT(columns), 1, 100},
    {"layer", "N", "the layer, by its number from 0 (default: the first with weights)", 0, INTEGER,
     AT(layer), 0, 100000},
    {"spec", "JOB.yaml", "the job file of the network", 0, TEXT, AT(spec), 0, 0},
    {"ensemble", "K[,K...]",
     "average this many thinned networks; each of several numbers gives one row", 0, TEXT,
     AT(ensemble), 0, 0},
    {"average", "NAME", "arithmetic (default), geometric; or weight-scaling, without --ensemble", 0,
     TEXT, AT(average), 0, 0, "arithmetic geometric weight-scaling"},
    {"members-from", "JOB|MODEL...", "average these separately trained models (and JOB|MODEL)", 0,
     LIST, 0, 0, 0},
    {"input", "FILE|FOLDER|-",
     "samples: PNG or JPEG (or a folder of them), NPY, NPZ, IDX or CSV; -: standard input", 0, TEXT,
     AT(input), 0, 0},
    {"name", "NAME", "only jobs of this name", 0, TEXT, AT(name), 0, 0},
    {"state", "STATE", "only jobs in this state", 0, TEXT, AT(state), 0, 0,
     "queued running paused completed failed canceled"},
    {"from", "JOB|RUN", "start from the job file of an earlier job and change it with --set", 0,
     TEXT, AT(from), 0, 0},
    {"limit", "N", "maximum rows of the table (default: predict 20, jobs all; 0: all)", 0, INTEGER,
     AT(limit), 0, INT64_MAX},
    {"top-uncertain", "N", "draw the N most uncertain samples, with -o FILE.png", 0, INTEGER,
     AT(top_uncertain), 1, 1000},
    {"label", "COLUMN", "csv: the label's column, by name or by number from 1 (default: the last)",
     0, TEXT, AT(label), 0, 0},
    {"drop", "COLUMN[,COLUMN...]", "csv: columns to leave out", 0, TEXT, AT(drop), 0, 0},
    {"layout", "NAME", "arrays of four dimensions: nchw or nhwc (default: decided by the sizes)", 0,
     TEXT, AT(layout), 0, 0, "nchw nhwc"},
    {"resize", "HxW", "resize all images of class folders to this height and width", 0, TEXT,
     AT(resize), 0, 0},
    {"step", "T", "the step, from 1", 0, INTEGER, AT(step), 0, INT64_MAX},
    {"shard", "S", "the shard of the step's batch, from 0 (default 0)", 0, INTEGER, AT(shard), 0,
     COP_SHARDS_MAX},
    {"verbose", NULL, "also show counts of leases and audits", 'v', FLAG, AT(verbose), 0, 0},
    {"local", NULL, "use the data sets on this machine, not the coordinator's", 0, FLAG, AT(local),
     0, 0},
    {"csv", NULL, "print CSV for programs", 0, FLAG, AT(csv), 0, 0},
    {"resolved", NULL, "include all defaults and the pinned section", 0, FLAG, AT(resolved), 0, 0},
    {"json", NULL, "print JSON for programs", 0, FLAG, AT(json), 0, 0},
    {"quiet", NULL, "show no progress", 'q', FLAG, AT(quiet), 0, 0},
    {"help", NULL, "show this help", 'h', FLAG, AT(help), 0, 0},
};
#define ROWS (sizeof rows / sizeof *rows)

static bool takes(const cli_command *command, const char *name) {
    size_t length = strlen(name);
    for (const char *p = command->options; (p = strstr(p, name)); p += length) {
        bool begins = p == command->options || p[-1] == ' ';
        if (begins && (p[length] == ' ' || p[length] == '\0')) return true;
    }
    return false;
}

static cop_err unknown_option(const cli_command *command, const char *text, cop_error *error) {
    const char *names[ROWS];
    size_t count = 0;
    for (size_t i = 0; i < ROWS; i++)
        if (takes(command, rows[i].name)) names[count++] = rows[i].name;
    const char *nearest = cop_nearest_name(text + strspn(text, "-"), names, count);
    if (nearest)
        return cop_fail(error, COP_ERR_USAGE,
                        "unknown option %s: did you mean --%s? (coppice %s --help)", text, nearest,
                        command->name);
    return cop_fail(error, COP_ERR_USAGE, "unknown option %s (coppice %s --help lists its options)",
                    text, command->name);
}

static const option_row *find_row(const cli_command *command, const char *text, size_t length) {
    for (size_t i = 0; i < ROWS; i++) {
        const option_row *r = &rows[i];
        bool by_letter = length == 2 && text[0] == '-' && r->letter && text[1] == r->letter;
        bool by_name = length > 2 && strlen(r->name) == length - 2 && strncmp(text, "--", 2) == 0 &&
                       strncmp(text + 2, r->name, length - 2) == 0;
        if ((by_letter || by_name) && takes(command, r->name)) return r;
    }
    return NULL;
}

static cop_err store_value(const option_row *row, const char *value, cli_options *out,
                           cop_error *error) {
    char *at = (char *)out + row->offset;
    switch (row->kind) {
    case FLAG:
        *(bool *)at = true;
        return COP_OK;
    case TEXT:
        *(const char **)(void *)at = value;
        return COP_OK;
    case SET:
        if (out->set_count == CLI_SETS_MAX)
            return cop_fail(error, COP_ERR_USAGE, "--set is given more than %d times",
                            CLI_SETS_MAX);
        out->sets[out->set_count++] = value;
        return COP_OK;
    case LIST:
        if (out->members_from_count == CLI_POSITIONAL_MAX)
            return cop_fail(error, COP_ERR_USAGE, "--%s has too many values: at most %d", row->name,
                            CLI_POSITIONAL_MAX);
        out->members_from[out->members_from_count++] = value;
        return COP_OK;
    case INTEGER: {
        int64_t number;
        if (!cop_parse_i64(value, &number) || number < row->least || number > row->most)
            return cop_fail(error, COP_ERR_USAGE,
                            "--%s is \"%s\": expected a whole number from %lld to %lld", row->name,
                            value, (long long)row->least, (long long)row->most);
        *(int64_t *)(void *)at = number;
        out->has_priority = out->has_priority || row->offset == AT(priority);
        out->has_limit = out->has_limit || row->offset == AT(limit);
        out->has_step = out->has_step || row->offset == AT(step);
        out->has_layer = out->has_layer || row->offset == AT(layer);
        return COP_OK;
    }
    case REAL: {
        double number;
        if (!cop_parse_f64(value, &number) || number < 0 || number > 1e7)
            return cop_fail(error, COP_ERR_USAGE,
                            "--%s is \"%s\": expected seconds from 0 to 10000000", row->name,
                            value);
        *(double *)(void *)at = number;
        out->has_timeout = true;
        return COP_OK;
    }
    }
    return COP_OK;
}

static cop_err parse_one(const cli_command *command, int argc, char **argv, int *i,
                         cli_options *out, cop_error *error) {
    const char *text = argv[*i], *equals = strchr(text, '=');
    bool joined = equals && text[1] == '-';
    size_t length = joined ? (size_t)(equals - text) : strlen(text);
    const option_row *row = find_row(command, text, length);
    if (!row) return unknown_option(command, text, error);
    const char *value = NULL;
    if (row->kind == FLAG) {
        if (joined) return cop_fail(error, COP_ERR_USAGE, "--%s takes no value", row->name);
    } else if (joined) {
        value = equals + 1;
    } else {
        if (*i + 1 >= argc)
            return cop_fail(error, COP_ERR_USAGE, "--%s needs a value: --%s %s", row->name,
                            row->name, row->argument);
        value = argv[++*i];
    }
    COP_TRY(store_value(row, value, out, error));
    while (row->kind == LIST && !joined && *i + 1 < argc && argv[*i + 1][0] != '-')
        COP_TRY(store_value(row, argv[++*i], out, error));
    return COP_OK;
}

cop_err cli_options_parse(const cli_command *command, int argc, char **argv, cli_options *out,
                          cop_error *error) {
    *out = (cli_options){.timeout = COP_CLIENT_TIMEOUT_MS / 1000.0, .limit = 20};
    bool only_positional = false;
    for (int i = 2; i < argc; i++) {
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else if (!only_positional && argv[i][0] == '-' && argv[i][1]) {
            COP_TRY(parse_one(command, argc, argv, &i, out, error));
        } else if (out->positional_count == CLI_POSITIONAL_MAX) {
            return cop_fail(error, COP_ERR_USAGE, "too many arguments");
        } else {
            out->positional[out->positional_count++] = argv[i];
        }
    }
    if (out->help) return COP_OK;
    if (out->positional_count < command->least)
        return cop_fail(error, COP_ERR_USAGE, "expected %s: coppice %s %s (coppice %s --help)",
                        command->arguments, command->name, command->arguments, command->name);
    if (out->positional_count > command->most)
        return cop_fail(error, COP_ERR_USAGE, "unexpected argument \"%s\" (coppice %s --help)",
                        out->positional[command->most], command->name);
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

static void print_row(const option_row *row, const cli_options *options, cop_str *out) {
    const char *at = (const char *)options + row->offset;
    char number[40];
    switch (row->kind) {
    case FLAG:
        if (*(const bool *)at) cop_str_printf(out, " --%s", row->name);
        return;
    case TEXT: {
        const char *text = *(const char *const *)(const void *)at;
        if (text) print_option(row->name, text, out);
        return;
    }
    case SET:
        for (int i = 0; i < options->set_count; i++) print_option(row->name, options->sets[i], out);
        return;
    case LIST:
        for (int i = 0; i < options->members_from_count; i++)
            print_option(row->name, options->members_from[i], out);
        return;
    case INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)*(const int64_t *)(const void *)at);
        if (*(const int64_t *)(const void *)at) print_option(row->name, number, out);
        return;
    case REAL:
        snprintf(number, sizeof number, "%.17g", *(const double *)(const void *)at);
        if (options->has_timeout) print_option(row->name, number, out);
        return;
    }
}

void cli_options_print(const cli_options *options, const char *names, cop_str *out) {
    const cli_command wanted = {.options = names};
    for (size_t i = 0; i < ROWS; i++)
        if (takes(&wanted, rows[i].name)) print_row(&rows[i], options, out);
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
    for (size_t i = 0; i < ROWS; i++) {
        if (!takes(command, rows[i].name)) continue;
        char head[64];
        snprintf(head, sizeof head, "%s--%s%s%s",
                 rows[i].letter ? (char[]){'-', rows[i].letter, ',', ' ', 0} : "    ", rows[i].name,
                 rows[i].argument ? " " : "", rows[i].argument ? rows[i].argument : "");
        cop_str_printf(out, "  %-28s %s\n", head, rows[i].help);
    }
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
    const option_row *r = &rows[index];
    *out = (cli_option){
        .name = r->name, .help = r->help, .values = r->values, .takes_value = r->argument != NULL};
    return !command || takes(command, r->name);
}
