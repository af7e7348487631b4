/* coppice-worker: joins a coordinator's pool and computes until it is stopped. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/output.h"
#include "common/base/str.h"
#include "common/version.h"
#include "worker/worker.h"

typedef struct worker_options {
    const char *join, *name, *token, *token_file, *shm;
    int64_t threads;
    double timeout;
    cop_tls_options tls;
    bool has_threads, no_shm, log_json, help, version;
} worker_options;

#define AT(field) offsetof(worker_options, field)

static const cop_option rows[] = {
    {"join", "URL",
     "the coordinator: tcp://HOST:PORT, tls+tcp://HOST:PORT or ipc:///PATH (default "
     "COPPICE_COORDINATOR or tcp://127.0.0.1:29700)",
     0, COP_OPTION_TEXT, AT(join)},
    {"name", "NAME",
     "the worker's name in `coppice workers` (default: the certificate's name, else host name and "
     "process id)",
     0, COP_OPTION_TEXT, AT(name)},
    {"threads", "N", "compute threads, 1 to 256 (default: the number of cores)", 0,
     COP_OPTION_INTEGER, AT(threads), 1, COP_WORKER_THREADS_MAX, NULL, AT(has_threads)},
    COP_CREDENTIAL_OPTIONS(worker_options, "worker"),
    {"timeout", "S",
     "give up if the coordinator cannot be joined within S seconds (default: never)", 0,
     COP_OPTION_SECONDS, AT(timeout)},
    {"shm", "DIR", "share memory with a coordinator in another container that has the same --shm",
     0, COP_OPTION_TEXT, AT(shm)},
    {"no-shm", NULL, "share no memory with a coordinator on this host", 0, COP_OPTION_FLAG,
     AT(no_shm)},
    {"log-json", NULL, "log lines as JSON", 0, COP_OPTION_FLAG, AT(log_json)},
    {"help", NULL, "show this help", 'h', COP_OPTION_FLAG, AT(help)},
    {"version", NULL, "show the version", 0, COP_OPTION_FLAG, AT(version)},
};

static const cop_options all_options = {
    .program = "coppice-worker", .rows = rows, .count = sizeof rows / sizeof *rows};

static void print_help(void) {
    cop_str text = {0};
    cop_str_append(&text, "coppice-worker --join URL [options]\n\n"
                          "Joins a coordinator's pool and computes shards. On SIGTERM or SIGINT it "
                          "finishes its shard and leaves.\n\nOptions:\n");
    cop_options_help(&all_options, &text);
    cop_str_append(&text,
                   "\nExamples:\n"
                   "  coppice-worker --join tls+tcp://gpu1.example:29700 --threads 8 --tls-dir "
                   "~/coppice-tls\n"
                   "  coppice-worker --join tcp://127.0.0.1:29700 --token-file ~/coppice/token\n"
                   "  COPPICE_ISA=avx2 coppice-worker --join ipc:///run/coppice.sock\n");
    fputs(cop_str_text(&text), stdout);
    cop_str_fini(&text);
}

static cop_err configure(const worker_options *o, cop_worker_config *c, char token[COP_TOKEN_MAX],
                         cop_tls **tls, cop_error *error) {
    const char *environment = getenv("COPPICE_COORDINATOR");
    int64_t threads = o->has_threads ? o->threads : uv_available_parallelism();
    if (threads > COP_WORKER_THREADS_MAX) threads = COP_WORKER_THREADS_MAX;
    COP_TRY(cop_kernels_choose(&c->kernels, error));
    COP_TRY(cop_self_test(c->kernels, c->self_test, error));
    c->url = o->join ? o->join : environment && *environment ? environment : COP_DEFAULT_URL;
    COP_TRY(cop_token_find(o->token, o->token_file, c->url, token, error));
    COP_TRY(cop_tls_for_url(c->url, &o->tls, "worker", COP_ROLE_WORKER, tls, error));
    c->tls = *tls;
    c->name = o->name;
    c->token = *token ? token : NULL;
    c->threads = (int)threads;
    if (o->shm && o->no_shm)
        return cop_fail(error, COP_ERR_USAGE, "--shm DIR and --no-shm exclude each other");
    c->share_memory = !o->no_shm;
    c->share_folder = o->shm;
    c->retry_forever = true;
    c->join_timeout_ms = cop_seconds_to_ms(o->timeout);
    return COP_OK;
}

/* The signal that the agent thread sends to the main thread when the worker has ended. */
#define SIGNAL_ENDED SIGUSR1

static void wake_main_thread(void *thread) {
    pthread_kill(*(pthread_t *)thread, SIGNAL_ENDED);
}

/* Waits for the end of the worker. The first SIGTERM or SIGINT drains it, the second cancels it. */
static void wait_for_end(cop_worker *worker, const sigset_t *signals) {
    for (int stops = 0; !worker_ended(worker);) {
        int number = 0;
        sigwait(signals, &number);
        if (number == SIGNAL_ENDED) continue;
        if (stops++) {
            worker_cancel(worker);
        } else {
            cop_log(COP_LOG_INFO, "worker", "stopping: finishing the current shard, then leaving");
            worker_drain(worker);
        }
    }
}

static cop_err serve(const worker_options *options, cop_error *error) {
    pthread_t main_thread = pthread_self();
    cop_worker_config config = {.on_ended = wake_main_thread, .on_ended_context = &main_thread};
    cop_worker *worker = NULL;
    cop_tls *tls = NULL;
    char token[COP_TOKEN_MAX];
    sigset_t signals;
    cop_err e = configure(options, &config, token, &tls, error);
    if (!e) {
        /* Block the signals before there are other threads. These inherit the mask, so only the
         * sigwait of the main thread receives the signals. */
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigaddset(&signals, SIGNAL_ENDED);
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
        e = worker_start(&config, &worker, error);
    }
    if (!e) {
        wait_for_end(worker, &signals);
        e = worker_join(worker, error);
    }
    cop_tls_destroy(tls);
    return e;
}

static int run(int argc, char **argv) {
    worker_options options = {0};
    cop_error error = {0};
    cop_alloc_keep_large_blocks();
    signal(SIGPIPE, SIG_IGN);
    cop_err e = cop_options_parse(&all_options, argc - 1, argv + 1, &options, &error);
    cop_log_configure(cop_log_level_from_environment(COP_LOG_INFO), options.log_json);
    if (!e && options.help)
        print_help();
    else if (!e && options.version)
        printf("coppice-worker %s (portable-1)\n", COP_VERSION);
    else if (!e)
        e = serve(&options, &error);
    error.code = e;
    return e ? cop_print_error("coppice-worker", &error) : 0;
}

int main(int argc, char **argv) {
    return cop_close_stdout("coppice-worker", run(argc, argv));
}
