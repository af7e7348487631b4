/* coppice-coordinator: owns jobs and pool. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/version.h"
#include "coordinator/coordinator.h"

#define LISTEN_MAX 16

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) {
    stop_signal = number;
}

static const char help[] =
    "coppice-coordinator [options]\n\n"
    "Owns the jobs and the pool: cuts minibatches into shards, hands them to workers, averages, "
    "updates, saves.\n\n"
    "Options:\n"
    "  --listen URL        tcp://HOST:PORT or ipc:///PATH; may be repeated (default "
    "tcp://127.0.0.1:29700)\n"
    "  --state DIR         store, token, data and checkpoints (default COPPICE_STATE or "
    "~/.local/state/coppice)\n"
    "  --data DIR          data sets that jobs may name: MNIST's four files, or subfolders with "
    "such\n"
    "  --quota SIZE        most bytes of data sets, such as 20G (default: no limit)\n"
    "  --update-threads N  compute threads of averaging and update (default: the cores, at most "
    "4)\n"
    "  --insecure          listen beyond this machine without encryption\n"
    "  --log-json          log lines as JSON\n"
    "  --help, --version\n\n"
    "Workers and clients need the token in DIR/token (as COPPICE_TOKEN). SIGTERM saves running "
    "jobs and ends.\n\n"
    "Examples:\n"
    "  coppice-coordinator --state /var/lib/coppice --data ~/mnist\n"
    "  coppice-coordinator --listen ipc:///run/coppice.sock --listen tcp://0.0.0.0:29700 "
    "--insecure\n";

typedef struct coordinator_options {
    const char *listen[LISTEN_MAX + 1], *state, *data, *quota, *update_threads;
    int listen_count;
    bool insecure, log_json;
} coordinator_options;

static int fail(const cop_error *error) {
    fprintf(stderr, "coppice-coordinator: %s\n",
            error->text[0] ? error->text : cop_err_text(error->code));
    return cop_err_exit_status(error->code);
}

static cop_err parse(int argc, char **argv, coordinator_options *o, cop_error *error) {
    const char *listen = NULL;
    const struct {
        const char *name;
        const char **value;
        bool *flag;
    } rows[] = {{"--listen", &listen, NULL},
                {"--state", &o->state, NULL},
                {"--data", &o->data, NULL},
                {"--quota", &o->quota, NULL},
                {"--update-threads", &o->update_threads, NULL},
                {"--insecure", NULL, &o->insecure},
                {"--log-json", NULL, &o->log_json},
                {"--help", NULL, NULL},
                {"--version", NULL, NULL}};
    const size_t count = sizeof rows / sizeof *rows;
    const char *names[sizeof rows / sizeof *rows];
    for (size_t i = 0; i < count; i++) names[i] = rows[i].name;
    for (int a = 1; a < argc; a++) {
        size_t i = 0;
        while (i < count && strcmp(argv[a], rows[i].name) != 0) i++;
        if (i == count) {
            const char *nearest = cop_nearest_name(argv[a], names, count);
            return cop_fail(error, COP_ERR_USAGE, "unknown option %s%s%s%s (--help lists them)",
                            argv[a], nearest ? ": did you mean " : "", nearest ? nearest : "",
                            nearest ? "?" : "");
        }
        if (rows[i].flag) *rows[i].flag = true;
        if (!rows[i].value) continue;
        if (a + 1 >= argc) return cop_fail(error, COP_ERR_USAGE, "%s needs a value", argv[a]);
        *rows[i].value = argv[++a];
        if (i == 0 && o->listen_count == LISTEN_MAX)
            return cop_fail(error, COP_ERR_USAGE, "--listen is given more than %d times",
                            LISTEN_MAX);
        if (i == 0) o->listen[o->listen_count++] = listen;
    }
    if (!o->listen_count) o->listen[o->listen_count++] = COP_DEFAULT_URL;
    return COP_OK;
}

static char *default_state(void) {
    const char *environment = getenv("COPPICE_STATE"), *home = getenv("HOME");
    if (environment && *environment) return cop_strdup(environment);
    return cop_path_join(home && *home ? home : "/var/lib", ".local/state/coppice");
}

static cop_err configure(const coordinator_options *o, const char *state, coord_config *c,
                         cop_error *error) {
    int64_t threads = 0;
    if (o->update_threads &&
        (!cop_parse_i64(o->update_threads, &threads) || threads < 1 || threads > 64))
        return cop_fail(error, COP_ERR_USAGE, "--update-threads is \"%s\": expected 1 to 64",
                        o->update_threads);
    if (o->quota && !cop_parse_size(o->quota, &c->quota))
        return cop_fail(error, COP_ERR_USAGE,
                        "--quota is \"%s\": expected a size such as 500M or 20G", o->quota);
    c->state = state;
    c->listen = o->listen;
    c->data_folder = o->data;
    c->update_threads = (int)threads;
    c->insecure = o->insecure;
    COP_TRY(cop_kernels_choose(&c->kernels, error));
    return cop_self_test(c->kernels, c->self_test, error);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) return fputs(help, stdout) < 0;
        if (strcmp(argv[i], "--version") == 0)
            return printf("coppice-coordinator %s (portable-1)\n", COP_VERSION) < 0;
    }
    cop_alloc_keep_large_blocks();
    signal(SIGPIPE, SIG_IGN);
    coordinator_options options = {0};
    coord_config config = {0};
    coord_server *server = NULL;
    cop_error error = {0};
    cop_err e = parse(argc, argv, &options, &error);
    char *state = options.state ? cop_strdup(options.state) : default_state();
    cop_log_configure(cop_log_level_from_environment(COP_LOG_INFO), options.log_json);
    if (!e && !state) e = cop_fail(&error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = configure(&options, state, &config, &error);
    if (!e) {
        struct sigaction action = {.sa_handler = on_signal};
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGINT, &action, NULL);
        e = coord_start(&config, &server, &error);
    }
    if (!e) {
        cop_log(COP_LOG_INFO, "coordinator", "ready: %s (token in %s/token)", options.listen[0],
                state);
        while (!stop_signal) cop_clock_sleep_ms(50);
        cop_log(COP_LOG_INFO, "coordinator", "signal %d: saving running jobs, then ending",
                (int)stop_signal);
        coord_stop(server);
    }
    cop_free(state);
    error.code = e;
    return e ? fail(&error) : 0;
}
