/* The program coppice-coordinator, which owns the jobs and the pool of workers: its command line,
 * and its end by a signal. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/output.h"
#include "common/base/str.h"
#include "common/version.h"
#include "coordinator/coordinator.h"

/* The values of an option that may be repeated. */
typedef struct option_list {
    const char *items[COORD_LIST_MAX + 1]; /* NULL-terminated */
    int count;
} option_list;

typedef struct coordinator_options {
    option_list listen, hosts, add;
    const char *http, *state, *data, *shm, *init_tls, *days;
    uint64_t quota;
    int64_t jobs_per_client, update_threads;
    cop_tls_options tls;
    bool insecure, no_shm, log_json, list_methods, help, version;
} coordinator_options;

#define AT(field) offsetof(coordinator_options, field)
/* The last fields of the row of an option that may be repeated. */
#define LIST_AT(field) COP_OPTION_REPEAT, AT(field.items), 0, COORD_LIST_MAX, NULL, AT(field.count)

static const cop_option rows[] = {
    {"listen", "URL",
     "tcp://HOST:PORT, tls+tcp://HOST:PORT or ipc:///PATH; may be repeated (default "
     "tcp://127.0.0.1:29700)",
     0, LIST_AT(listen)},
    {"http", "ADDRESS:PORT",
     "serve /metrics, probes and a JSON API, such as 127.0.0.1:8790, or off (default off)", 0,
     COP_OPTION_TEXT, AT(http)},
    {"state", "DIR",
     "store, token, data and checkpoints (default COPPICE_STATE or ~/.local/state/coppice)", 0,
     COP_OPTION_TEXT, AT(state)},
    {"data", "DIR", "data sets that jobs may name: MNIST's four files, or subfolders of data sets",
     0, COP_OPTION_TEXT, AT(data)},
    {"quota", "SIZE", "maximum bytes of data sets, such as 20G (default: no limit)", 0,
     COP_OPTION_SIZE, AT(quota)},
    {"jobs-per-client", "N", "maximum unfinished jobs per client certificate (default 2048)", 0,
     COP_OPTION_INTEGER, AT(jobs_per_client), 1, COP_JOBS_MAX},
    {"update-threads", "N", "threads that average and update (default: number of cores, at most 4)",
     0, COP_OPTION_INTEGER, AT(update_threads), 1, 64},
    COP_TLS_OPTIONS(coordinator_options, "coordinator"),
    {"insecure", NULL, "allow other machines on tcp://, without encryption", 0, COP_OPTION_FLAG,
     AT(insecure)},
    {"shm", "DIR", "share memory also with workers in other containers of this host that see DIR",
     0, COP_OPTION_TEXT, AT(shm)},
    {"no-shm", NULL, "share no memory with workers on this host", 0, COP_OPTION_FLAG, AT(no_shm)},
    {"log-json", NULL, "log lines as JSON", 0, COP_OPTION_FLAG, AT(log_json)},
    {"help", NULL, "show this help", 'h', COP_OPTION_FLAG, AT(help)},
    {"version", NULL, "show the version", 0, COP_OPTION_FLAG, AT(version)},
    {"init-tls", "DIR", "create DIR with a CA and certificates for coordinator, worker and client",
     0, COP_OPTION_TEXT, AT(init_tls)},
    {"tls-host", "HOST",
     "with --init-tls: host name or address of the coordinator; may be repeated", 0,
     LIST_AT(hosts)},
    {"add", "ROLE:NAME",
     "with --init-tls: add a certificate by the CA in DIR; worker:, client: or coordinator:NAME", 0,
     LIST_AT(add)},
    {"tls-days", "N", "with --init-tls: days of validity (default 825)", 0, COP_OPTION_TEXT,
     AT(days)},
    {"list-methods", NULL,
     "list the requests that a coordinator accepts, and the role that each requires", 0,
     COP_OPTION_FLAG, AT(list_methods)},
};

static const cop_options all_options = {
    .program = "coppice-coordinator", .rows = rows, .count = sizeof rows / sizeof *rows};

/* Appends the help of the options from row `first` up to row `last`. */
static void append_help(const char *first, const char *last, cop_str *out) {
    cop_options part = all_options;
    while (strcmp(part.rows->name, first) != 0) part.rows++;
    for (part.count = 1; strcmp(part.rows[part.count - 1].name, last) != 0;) part.count++;
    cop_options_help(&part, out);
}

static void print_help(void) {
    cop_str text = {0};
    cop_str_append(&text,
                   "coppice-coordinator [options]\n\n"
                   "Owns the jobs and the pool: cuts minibatches into shards, leases them to "
                   "workers, averages their gradients, updates the weights and saves "
                   "checkpoints.\n\nOptions:\n");
    append_help("listen", "version", &text);
    cop_str_append(&text, "\nInstead of serving:\n");
    append_help("init-tls", "list-methods", &text);
    cop_str_append(
        &text,
        "\nOn tls+tcp://, a certificate gives the identity and the role of a peer. On tcp:// "
        "and ipc://, workers and clients need the token in DIR/token. Programs "
        "of the same user on this machine find it if --state is not used; all others need "
        "--token-file.\n\n"
        "On SIGTERM the coordinator saves the running jobs and exits.\n\n"
        "Examples:\n"
        "  coppice-coordinator --state /var/lib/coppice --data ~/mnist\n"
        "  coppice-coordinator --init-tls ~/coppice-tls --tls-host gpu1.example\n"
        "  coppice-coordinator --listen tls+tcp://0.0.0.0:29700 --tls-dir ~/coppice-tls\n"
        "  coppice-coordinator --init-tls ~/coppice-tls --add worker:desk-7\n");
    fputs(cop_str_text(&text), stdout);
    cop_str_fini(&text);
}

/* Loads the certificates if an address needs them; otherwise leaves *out unchanged. USAGE: TLS
 * options are given, but no address needs them. */
static cop_err load_tls(const coordinator_options *o, cop_tls **out, cop_error *error) {
    const cop_tls_options *t = &o->tls;
    for (int i = 0; i < o->listen.count; i++)
        if (cop_url_is_tls(o->listen.items[i]))
            return cop_tls_load(t, "coordinator", COP_TLS_SERVER, out, error);
    if (!t->folder && !t->ca && !t->cert && !t->key) return COP_OK;
    return cop_fail(error, COP_ERR_USAGE,
                    "--tls-... is given, but no --listen tls+tcp://HOST:PORT");
}

static cop_err configure(const coordinator_options *o, const char *state, coord_config *c,
                         cop_tls **tls, cop_error *error) {
    c->state = state;
    COP_TRY(load_tls(o, tls, error));
    c->tls = *tls;
    c->listen = o->listen.items;
    c->http = o->http && strcmp(o->http, "off") != 0 ? o->http : NULL;
    c->data_folder = o->data;
    c->jobs_per_client = (uint32_t)o->jobs_per_client;
    c->update_threads = (int)o->update_threads;
    c->quota = o->quota;
    if (o->shm && o->no_shm)
        return cop_fail(error, COP_ERR_USAGE, "--shm DIR and --no-shm exclude each other");
    c->share_memory = !o->no_shm;
    c->share_folder = o->shm;
    c->insecure = o->insecure;
    COP_TRY(cop_kernels_choose(&c->kernels, error));
    return cop_self_test(c->kernels, c->self_test, error);
}

/* Raises the limit of open descriptors as far as the system allows, up to four for each possible
 * connection: a connection with TLS has three. Warns if the limit stays below that. */
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    const rlim_t wanted = 4 * COP_CONNECTIONS_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
        cop_log(COP_LOG_WARN, "coordinator",
                "only %llu descriptors are allowed (ulimit -n): enough for about %llu connections",
                (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_cur / 4);
}

static cop_err serve(const coordinator_options *options, cop_error *error) {
    coord_config config = {0};
    coord_server *server = NULL;
    cop_tls *tls = NULL;
    sigset_t stop;
    int number = 0;
    char *state = options->state ? cop_strdup(options->state) : cop_path_state();
    cop_err e = state ? configure(options, state, &config, &tls, error) : cop_no_memory(error);
    if (!e) {
        /* Threads inherit the blocked signals, so block them before any thread starts. A signal
         * stays pending until sigwait below takes it. */
        sigemptyset(&stop);
        sigaddset(&stop, SIGTERM);
        sigaddset(&stop, SIGINT);
        pthread_sigmask(SIG_BLOCK, &stop, NULL);
        raise_descriptor_limit();
        e = coord_start(&config, &server, error);
    }
    if (!e) {
        cop_log(COP_LOG_INFO, "coordinator", "ready: %s (token in %s/token)",
                options->listen.items[0], state);
        sigwait(&stop, &number);
        cop_log(COP_LOG_INFO, "coordinator", "signal %d: saving running jobs, then exiting",
                number);
        coord_stop(server);
    }
    cop_tls_destroy(tls);
    cop_free(state);
    return e;
}

static int run(int argc, char **argv) {
    coordinator_options options = {0};
    cop_error error = {0};
    cop_alloc_keep_large_blocks();
    signal(SIGPIPE, SIG_IGN);
    cop_err e = cop_options_parse(&all_options, argc - 1, argv + 1, &options, &error);
    if (!options.listen.count) options.listen.items[options.listen.count++] = COP_DEFAULT_URL;
    cop_log_configure(cop_log_level_from_environment(COP_LOG_INFO), options.log_json);
    if (!e && options.help) {
        print_help();
    } else if (!e && options.version) {
        printf("coppice-coordinator %s (portable-1)\n", COP_VERSION);
    } else if (!e && options.list_methods) {
        coord_print_rights();
    } else if (!e && options.init_tls) {
        const coord_certificates what = {options.init_tls, options.days, options.hosts.items,
                                         options.add.items};
        e = coord_make_certificates(&what, &error);
    } else if (!e) {
        e = serve(&options, &error);
    }
    error.code = e;
    return e ? cop_print_error("coppice-coordinator", &error) : 0;
}

int main(int argc, char **argv) {
    return cop_close_stdout("coppice-coordinator", run(argc, argv));
}
