/* coppice-worker: joins a coordinator's pool and computes until it is stopped. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/output.h"
#include "common/base/str.h"
#include "common/version.h"
#include "worker/worker.h"

static volatile sig_atomic_t signals_seen;

static void on_signal(int number) {
    (void)number;
    signals_seen = signals_seen + 1;
}

static const char help[] =
    "coppice-worker --join URL [options]\n\n"
    "Joins a coordinator's pool and computes shards. On SIGTERM or SIGINT it finishes its shard "
    "and "
    "leaves.\n\n"
    "Options:\n"
    "  --join URL         the coordinator: tcp://HOST:PORT, tls+tcp://HOST:PORT or ipc:///PATH "
    "(default COPPICE_COORDINATOR or tcp://127.0.0.1:29700)\n"
    "  --name NAME        the worker's name in `coppice workers` (default: the certificate's name, "
    "else host name and process id)\n"
    "  --threads N        compute threads, 1 to 256 (default: the number of cores)\n"
    "  --token TEXT       the coordinator's token (default COPPICE_TOKEN, or the "
    "token of your own coordinator on this machine)\n"
    "  --token-file FILE  ... or a file that contains it\n" COP_TLS_HELP(
        "worker") "  --tls-name HOST    the name in the coordinator's certificate (default: the "
                  "host in the URL)\n"
                  "  --timeout S        give up if the coordinator cannot be joined within S "
                  "seconds (default: "
                  "never)\n"
                  "  --log-json         log lines as JSON\n"
                  "  --help, --version\n\n"
                  "Examples:\n"
                  "  coppice-worker --join tls+tcp://gpu1.example:29700 --threads 8 --tls-dir "
                  "~/coppice-tls\n"
                  "  coppice-worker --join tcp://127.0.0.1:29700 --token-file ~/coppice/token\n"
                  "  COPPICE_ISA=avx2 coppice-worker --join ipc:///run/coppice.sock\n";

typedef struct worker_options {
    const char *join, *name, *token, *token_file, *threads, *timeout;
    cop_tls_options tls;
    bool log_json;
} worker_options;

static int fail(const cop_error *error) {
    fprintf(stderr, "coppice-worker: %s\n",
            error->text[0] ? error->text : cop_err_text(error->code));
    return cop_err_exit_status(error->code);
}

static cop_err parse(int argc, char **argv, worker_options *o, cop_error *error) {
    const struct {
        const char *name;
        const char **value;
    } rows[] = {{"--join", &o->join},
                {"--name", &o->name},
                {"--token", &o->token},
                {"--token-file", &o->token_file},
                {"--threads", &o->threads},
                {"--timeout", &o->timeout},
                {"--tls-dir", &o->tls.folder},
                {"--tls-ca", &o->tls.ca},
                {"--tls-cert", &o->tls.cert},
                {"--tls-key", &o->tls.key},
                {"--tls-name", &o->tls.name},
                {"--log-json", NULL},
                {"--help", NULL},
                {"--version", NULL}};
    const char *names[sizeof rows / sizeof *rows];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) names[i] = rows[i].name;
    for (int a = 1; a < argc; a++) {
        size_t i = 0;
        while (i < sizeof rows / sizeof *rows && strcmp(argv[a], rows[i].name) != 0) i++;
        if (i == sizeof rows / sizeof *rows) {
            const char *nearest = cop_nearest_name(argv[a], names, i);
            return cop_fail(error, COP_ERR_USAGE, "unknown option %s%s%s%s (--help lists them)",
                            argv[a], nearest ? ": did you mean " : "", nearest ? nearest : "",
                            nearest ? "?" : "");
        }
        if (!rows[i].value)
            o->log_json = true;
        else if (a + 1 >= argc)
            return cop_fail(error, COP_ERR_USAGE, "%s needs a value", argv[a]);
        else
            *rows[i].value = argv[++a];
    }
    return COP_OK;
}

static cop_err configure(const worker_options *o, cop_worker_config *c, char token[COP_TOKEN_MAX],
                         cop_tls **tls, cop_error *error) {
    const char *environment = getenv("COPPICE_COORDINATOR");
    int64_t threads = uv_available_parallelism();
    if (threads > COP_WORKER_THREADS_MAX) threads = COP_WORKER_THREADS_MAX;
    double timeout = 0;
    if (o->threads &&
        (!cop_parse_i64(o->threads, &threads) || threads < 1 || threads > COP_WORKER_THREADS_MAX))
        return cop_fail(error, COP_ERR_USAGE, "--threads is \"%s\": expected 1 to %d", o->threads,
                        COP_WORKER_THREADS_MAX);
    if (o->timeout && (!cop_parse_f64(o->timeout, &timeout) || timeout < 0 || timeout > 4e6))
        return cop_fail(error, COP_ERR_USAGE, "--timeout is \"%s\": expected seconds", o->timeout);
    COP_TRY(cop_kernels_choose(&c->kernels, error));
    COP_TRY(cop_self_test(c->kernels, c->self_test, error));
    c->url = o->join ? o->join : environment && *environment ? environment : COP_DEFAULT_URL;
    COP_TRY(cop_token_find(o->token, o->token_file, c->url, token, error));
    COP_TRY(cop_tls_for_url(c->url, &o->tls, "worker", COP_ROLE_WORKER, tls, error));
    c->tls = *tls;
    c->name = o->name;
    c->token = *token ? token : NULL;
    c->threads = (int)threads;
    c->retry_forever = true;
    c->join_timeout_ms = cop_seconds_to_ms(timeout);
    return COP_OK;
}

/* The first signal drains the worker; the second ends it at once. */
static void wait_for_end(cop_worker *worker) {
    int told = 0;
    while (!worker_ended(worker)) {
        cop_clock_sleep_ms(50);
        int count = signals_seen;
        if (count == told) continue;
        if (told == 0) {
            cop_log(COP_LOG_INFO, "worker", "stopping: finishing the current shard, then leaving");
            worker_drain(worker);
        } else {
            worker_cancel(worker);
        }
        told = count;
    }
}

static int run(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("coppice-worker %s (portable-1)\n", COP_VERSION);
            return 0;
        }
    }
    cop_alloc_keep_large_blocks();
    signal(SIGPIPE, SIG_IGN);
    worker_options options = {0};
    cop_worker_config config = {0};
    cop_worker *worker;
    cop_error error = {0};
    char token[COP_TOKEN_MAX];
    cop_tls *tls = NULL;
    cop_err e = parse(argc, argv, &options, &error);
    cop_log_configure(cop_log_level_from_environment(COP_LOG_INFO), options.log_json);
    if (!e) e = configure(&options, &config, token, &tls, &error);
    if (!e) {
        struct sigaction action = {.sa_handler = on_signal};
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGINT, &action, NULL);
        e = worker_start(&config, &worker, &error);
    }
    if (!e) {
        wait_for_end(worker);
        e = worker_join(worker, &error);
    }
    cop_tls_destroy(tls);
    error.code = e;
    return e ? fail(&error) : 0;
}

int main(int argc, char **argv) {
    return cop_close_stdout("coppice-worker", run(argc, argv));
}
