/* The program `coppice`: finds the command, parses its options, runs it and prints its error. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/alloc.h"
#include "common/base/log.h"
#include "common/base/output.h"
#include "common/version.h"

static int fail(const char *command, cop_error *error) {
    cop_replace_controls(error->text); /* the text may quote a file or a peer */
    fflush(stdout);
    fprintf(stderr, "%scoppice%s%s: %s%s\n", cli_color(2, "red"), command ? " " : "",
            command ? command : "", error->text[0] ? error->text : cop_err_text(error->code),
            cli_color(2, "reset"));
    const bool interrupted = error->code == COP_ERR_CANCELED && cli_interrupt_received() == SIGINT;
    return interrupted ? 128 + SIGINT : cop_err_exit_status(error->code);
}

static int print_help(const cli_command *command) {
    cop_str text = {0};
    cli_help(command, &text);
    fputs(cop_str_text(&text), stdout);
    cop_str_fini(&text);
    return 0;
}

static int unknown_command(const char *name) {
    const char *names[64];
    size_t count = 0;
    for (const cli_command *c = cli_commands(); c->name; c++) {
        COP_ASSERT(count < sizeof names / sizeof *names);
        names[count++] = c->name;
    }
    const char *nearest = cop_nearest_name(name, names, count);
    cop_error error;
    if (nearest)
        cop_fail(&error, COP_ERR_USAGE,
                 "unknown command \"%s\": did you mean \"%s\"? (coppice --help lists all)", name,
                 nearest);
    else
        cop_fail(&error, COP_ERR_USAGE, "unknown command \"%s\" (coppice --help lists all)", name);
    return fail(NULL, &error);
}

static int run(int argc, char **argv) {
    cop_alloc_keep_large_blocks();
    cop_log_configure(cop_log_level_from_environment(COP_LOG_WARN), false);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        const cli_command *about = argc > 2 ? cli_command_find(argv[2]) : NULL;
        print_help(about);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("coppice %s (portable-1)\n", COP_VERSION);
        return 0;
    }
    const cli_command *command = cli_command_find(argv[1]);
    if (!command) return unknown_command(argv[1]);
    cli_options options;
    cop_error error = {0};
    cop_err e = cli_options_parse(command, argc, argv, &options, &error);
    if (!e && options.help) return print_help(command);
    if (!e) e = command->run(&options, &error);
    if (!e) e = cli_output_finish(&error);
    if (e) {
        error.code = e;
        return fail(command->name, &error);
    }
    return 0;
}

int main(int argc, char **argv) {
    return cop_close_stdout("coppice", run(argc, argv));
}
