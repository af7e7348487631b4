/* The sentence that a command prints when a signal ends it. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli.h"

/* A new sentence is written into the buffer that is not in use. Then `current` selects that buffer,
 * so a signal handler never prints half a sentence. */
static char sentences[2][4096];
static _Atomic int current;
static volatile sig_atomic_t received;

void cli_interrupt_sentence(const char *text) {
    const int next = !atomic_load(&current);
    const char *clear = cli_is_tty(STDERR_FILENO) ? "\r\033[K" : ""; /* removes the progress bar */
    snprintf(sentences[next], sizeof sentences[next] - 1, "%s%s", clear, text);
    cop_replace_controls(sentences[next] + strlen(clear));
    strcat(sentences[next], "\n");
    atomic_store(&current, next);
}

void cli_interrupt_end(int number) {
    const char *text = sentences[atomic_load(&current)];
    const ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written; /* if writing failed, the exit status still reports the signal */
    _exit(128 + number);
}

void cli_interrupt_note(int number) {
    COP_ASSERT(number > 0);
    received = number;
}

int cli_interrupt_received(void) {
    return received;
}

/* Installs a handler, unless the signal is ignored now. nohup ignores signals, and so does a shell
 * for a command that a script starts in the background. */
static void handle(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler}, before;
    if (!sigaction(number, NULL, &before) && before.sa_handler != SIG_IGN)
        sigaction(number, &action, NULL);
}

void cli_interrupt_arm(const char *text) {
    cli_interrupt_sentence(text);
    handle(SIGINT, cli_interrupt_end);
    handle(SIGTERM, cli_interrupt_end);
}

void cli_interrupt_disarm(void) {
    handle(SIGINT, SIG_DFL);
    handle(SIGTERM, SIG_DFL);
}

void cli_interrupt_arm_job(const cli_options *options, const char *command, uint64_t job) {
    char number[32];
    cop_str text = {0}, how = {0};
    COP_ASSERT(job != 0);
    cop_format_job(job, number);
    cli_options_print(options, CLI_CONNECTION, &how);
    cop_str_printf(&text,
                   "coppice %s: interrupted: job %s continues; `coppice watch %s%s` follows it, "
                   "`coppice cancel %s%s` ends it",
                   command, number, number, cop_str_text(&how), number, cop_str_text(&how));
    cli_interrupt_arm(cop_str_text(&text));
    cop_str_fini(&text);
    cop_str_fini(&how);
}
