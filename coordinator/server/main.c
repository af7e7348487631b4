/* coppice-coordinator: owns jobs and pool. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/output.h"
#include "common/base/str.h"
#include "common/version.h"
#include "coordinator/coordinator.h"

static const char help[] =
    "coppice-coordinator [options]\n\n"
    "Owns the jobs and the pool: cuts minibatches into shards, leases them to workers, averages "
    "their gradients, updates the weights and saves checkpoints.\n\n"
    "Options:\n"
    "  --listen URL        tcp://HOST:PORT, tls+tcp://HOST:PORT or ipc:///PATH; may be repeated "
    "(default tcp://127.0.0.1:29700)\n"
    "  --state DIR         store, token, data and checkpoints (default COPPICE_STATE or "
    "~/.local/state/coppice)\n"
    "  --data DIR          data sets that jobs may name: MNIST's four files, or subfolders of "
    "data sets\n"
    "  --quota SIZE        maximum bytes of data sets, such as 20G (default: no limit)\n"
    "  --jobs-per-client N maximum unfinished jobs per client certificate (default 2048)\n"
    "  --update-threads N  threads that average and update (default: number of cores, at most "
    "4)\n" COP_TLS_HELP(
        "coordinator") "  --insecure          allow other machines on tcp://, without "
                       "encryption\n"
                       "  --log-json          log lines as JSON\n"
                       "  --help, --version\n\n"
                       "Instead of serving:\n"
                       "  --init-tls DIR      create DIR with a CA and certificates for "
                       "coordinator, "
                       "worker and client\n"
                       "  --tls-host HOST     ... a host name or address of the coordinator; may "
                       "be "
                       "repeated\n"
                       "  --add ROLE:NAME     ... create one more certificate with DIR's CA: "
                       "worker:, client: or coordinator:\n"
                       "  --tls-days N        ... days of validity (default 825)\n"
                       "  --list-methods      list the requests that a coordinator accepts, and "
                       "the role that each requires\n\n"
                       "On tls+tcp://, a certificate gives the identity and the role of a peer. On "
                       "tcp:// and ipc://, workers and clients need the token in DIR/token. "
                       "Without --state, those of the same machine and user find it; all others "
                       "use --token-file.\n\n"
                       "On SIGTERM the coordinator saves the running jobs and exits.\n\n"
                       "Examples:\n"
                       "  coppice-coordinator --state /var/lib/coppice --data ~/mnist\n"
                       "  coppice-coordinator --init-tls ~/coppice-tls --tls-host gpu1.example\n"
                       "  coppice-coordinator --listen tls+tcp://0.0.0.0:29700 --tls-dir "
                       "~/coppice-tls\n"
                       "  coppice-coordinator --init-tls ~/coppice-tls --add worker:desk-7\n";

/* An option that may be repeated. */
typedef struct option_list {
    const char *items[COORD_LIST_MAX + 1];
    int count;
} option_list;

typedef struct coordinator_options {
    option_list listen, hosts, add;
    const char *state, *data, *quota, *jobs, *update_threads, *init_tls, *days;
    cop_tls_options tls;
    bool insecure, log_json, list_methods;
} coordinator_options;

typedef struct option_row {
    const char *name;
    const char **value;
    option_list *list;
    bool *flag;
} option_row;

static int fail(const cop_error *error) {
    fprintf(stderr, "coppice-coordinator: %s\n",
            error->text[0] ? error->text : cop_err_text(error->code));
    return cop_err_exit_status(error->code);
}

static cop_err unknown_option(const char *text, const option_row *rows, size_t count,
                              cop_error *error) {
    const char *names[32];
    for (size_t i = 0; i < count; i++) names[i] = rows[i].name;
    const char *nearest = cop_nearest_name(text, names, count);
    return cop_fail(error, COP_ERR_USAGE, "unknown option %s%s%s%s (--help lists them)", text,
                    nearest ? ": did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

static cop_err store_value(const option_row *row, const char *value, cop_error *error) {
    if (!row->list) {
        *row->value = value;
        return COP_OK;
    }
    if (row->list->count == COORD_LIST_MAX)
        return cop_fail(error, COP_ERR_USAGE, "%s is given more than %d times", row->name,
                        COORD_LIST_MAX);
    row->list->items[row->list->count++] = value;
    return COP_OK;
}

static cop_err parse(int argc, char **argv, coordinator_options *o, cop_error *error) {
    const option_row rows[] = {{"--listen", .list = &o->listen},
                               {"--state", &o->state},
                               {"--data", &o->data},
                               {"--quota", &o->quota},
                               {"--jobs-per-client", &o->jobs},
                               {"--update-threads", &o->update_threads},
                               {"--tls-dir", &o->tls.folder},
                               {"--tls-ca", &o->tls.ca},
                               {"--tls-cert", &o->tls.cert},
                               {"--tls-key", &o->tls.key},
                               {"--insecure", .flag = &o->insecure},
                               {"--log-json", .flag = &o->log_json},
                               {"--init-tls", &o->init_tls},
                               {"--tls-host", .list = &o->hosts},
                               {"--add", .list = &o->add},
                               {"--tls-days", &o->days},
                               {"--list-methods", .flag = &o->list_methods},
                               {"--help"},
                               {"--version"}};
    const size_t count = sizeof rows / sizeof *rows;
    for (int a = 1; a < argc; a++) {
        size_t i = 0;
        while (i < count && strcmp(argv[a], rows[i].name) != 0) i++;
        if (i == count) return unknown_option(argv[a], rows, count, error);
        if (rows[i].flag) *rows[i].flag = true;
        if (!rows[i].value && !rows[i].list) continue;
        if (a + 1 >= argc) return cop_fail(error, COP_ERR_USAGE, "%s needs a value", argv[a]);
        COP_TRY(store_value(&rows[i], argv[++a], error));
    }
    if (!o->listen.count) o->listen.items[o->listen.count++] = COP_DEFAULT_URL;
    return COP_OK;
}

/* Certificates, if any address wants them. */
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
    int64_t threads = 0, jobs = 0;
    if (o->update_threads &&
        (!cop_parse_i64(o->update_threads, &threads) || threads < 1 || threads > 64))
        return cop_fail(error, COP_ERR_USAGE, "--update-threads is \"%s\": expected 1 to 64",
                        o->update_threads);
    if (o->jobs && (!cop_parse_i64(o->jobs, &jobs) || jobs < 1 || jobs > COP_JOBS_MAX))
        return cop_fail(error, COP_ERR_USAGE, "--jobs-per-client is \"%s\": expected 1 to %d",
                        o->jobs, COP_JOBS_MAX);
    if (o->quota && !cop_parse_size(o->quota, &c->quota))
        return cop_fail(error, COP_ERR_USAGE,
                        "--quota is \"%s\": expected a size such as 500M or 20G", o->quota);
    c->state = state;
    COP_TRY(load_tls(o, tls, error));
    c->tls = *tls;
    c->listen = o->listen.items;
    c->data_folder = o->data;
    c->jobs_per_client = (uint32_t)jobs;
    c->update_threads = (int)threads;
    c->insecure = o->insecure;
    COP_TRY(cop_kernels_choose(&c->kernels, error));
    return cop_self_test(c->kernels, c->self_test, error);
}

/* A connection with TLS has three descriptors. */
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
        /* Blocked here, before there are threads: they stay pending until serve waits for them. */
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
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("coppice-coordinator %s (portable-1)\n", COP_VERSION);
            return 0;
        }
    }
    cop_alloc_keep_large_blocks();
    signal(SIGPIPE, SIG_IGN);
    coordinator_options options = {0};
    cop_error error = {0};
    cop_err e = parse(argc, argv, &options, &error);
    cop_log_configure(cop_log_level_from_environment(COP_LOG_INFO), options.log_json);
    if (!e && options.list_methods) {
        coord_print_rights();
    } else if (!e && options.init_tls) {
        const coord_certificates what = {options.init_tls, options.days, options.hosts.items,
                                         options.add.items};
        e = coord_make_certificates(&what, &error);
    } else if (!e) {
        e = serve(&options, &error);
    }
    error.code = e;
    return e ? fail(&error) : 0;
}

int main(int argc, char **argv) {
    return cop_close_stdout("coppice-coordinator", run(argc, argv));
}
