/* Times round trips of large messages between a server and 1 or 2 links, as in a training step: the
 * gradient up, the weights down. Prints one JSON line per transport, number of links and
 * arrangement: "threads" (links are threads of this process) or "processes" (each link is a
 * process, as workers are).
 *
 *   bench-net [--megabytes N] [--rounds N] [--only memory|ipc|tcp|tls+tcp] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/net/net.h"

#define LINKS_MAX 2
#define WARM      5

typedef struct bench {
    size_t size;
    int rounds;
    const char *url; /* NULL: memory */
    cop_tls *tls[2]; /* certificates of the server and of the links; only for tls+tcp */
    uv_loop_t loop;
    uv_async_t stop;
    cop_server *server;
    cop_buffer *weights;
    uv_sem_t ready;
} bench;

typedef struct asker {
    bench *bench;
    uv_thread_t thread;
    double milliseconds; /* time of one round trip */
} asker;

static void on_request(void *context, cop_request *request) {
    bench *b = context;
    cop_message reply = {.type = COP_MESSAGE_ANSWER};
    reply.part[COP_PART_BODY] = cop_buffer_hold(b->weights);
    cop_server_reply(request, &reply);
}

static void on_gone(void *context, uint64_t connection) {
    (void)context;
    (void)connection;
}

static void on_stop(uv_async_t *handle) {
    uv_stop(handle->loop);
}

static void die(const char *what, const cop_error *error) {
    fprintf(stderr, "bench-net: %s: %s\n", what, error->text);
    exit(1);
}

static void run_server(void *argument) {
    bench *b = argument;
    const cop_server_handler handler = {.on_request = on_request, .on_gone = on_gone};
    cop_error error = {0};
    uv_loop_init(&b->loop);
    uv_async_init(&b->loop, &b->stop, on_stop);
    if (cop_server_create(&b->loop, &handler, b, &b->server, &error)) die("server", &error);
    if (b->tls[0]) cop_server_set_tls(b->server, b->tls[0]);
    if (b->url && cop_server_listen(b->server, b->url, &error)) die("listen", &error);
    b->weights = cop_buffer_create(b->size);
    memset(b->weights->data, 1, b->size);
    uv_sem_post(&b->ready);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    cop_server_destroy(b->server);
    cop_buffer_release(b->weights);
    uv_close((uv_handle_t *)&b->stop, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    uv_loop_close(&b->loop);
}

static void ask(cop_link *link, cop_buffer *gradient) {
    cop_message m = {.type = COP_MESSAGE_CALL}, reply;
    cop_error error = {0};
    m.part[COP_PART_BODY] = cop_buffer_hold(gradient);
    if (cop_link_call(link, &m, &reply, 30000, &error)) die("call", &error);
    cop_message_fini(&reply);
}

static double run_rounds(bench *b) {
    cop_link *link;
    cop_error error = {0};
    cop_buffer *gradient = cop_buffer_create(b->size);
    memset(gradient->data, 2, b->size);
    if (b->url ? cop_link_open(b->url, b->tls[1], &link, &error)
               : cop_link_open_local(b->server, &link, &error))
        die("link", &error);
    for (int i = 0; i < WARM; i++) ask(link, gradient);
    uint64_t began = cop_clock_ns();
    for (int i = 0; i < b->rounds; i++) ask(link, gradient);
    double milliseconds = (double)(cop_clock_ns() - began) / 1e6 / b->rounds;
    cop_link_close(link);
    cop_buffer_release(gradient);
    return milliseconds;
}

static void run_asker(void *argument) {
    asker *a = argument;
    a->milliseconds = run_rounds(a->bench);
}

static void print_line(const bench *b, const char *transport, int links, bool forked, double ms) {
    struct rusage own, children;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    double both_ways = 2.0 * (double)b->size * links;
    printf("{\"bench\":\"net\",\"transport\":\"%s\",\"links\":%d,\"links_are\":\"%s\","
           "\"bytes_each_way\":%zu,\"ms_per_round_trip\":%.3f,\"gigabytes_per_s\":%.2f,"
           "\"page_faults\":%ld,\"peak_rss_mb\":%ld}\n",
           transport, links, forked ? "processes" : "threads", b->size, ms, both_ways / ms / 1e6,
           own.ru_minflt + children.ru_minflt, own.ru_maxrss / 1024);
    fflush(stdout);
}

static void stop_server(bench *b, uv_thread_t server) {
    uv_async_send(&b->stop);
    uv_thread_join(&server);
    uv_sem_destroy(&b->ready);
}

static void run_threads(bench *b, const char *transport, int links) {
    asker askers[LINKS_MAX];
    uv_thread_t server;
    double sum = 0;
    uv_sem_init(&b->ready, 0);
    uv_thread_create(&server, run_server, b);
    uv_sem_wait(&b->ready);
    for (int i = 0; i < links; i++) {
        askers[i] = (asker){.bench = b};
        uv_thread_create(&askers[i].thread, run_asker, &askers[i]);
    }
    for (int i = 0; i < links; i++) {
        uv_thread_join(&askers[i].thread);
        sum += askers[i].milliseconds;
    }
    stop_server(b, server);
    print_line(b, transport, links, false, sum / links);
}

/* Starts the child processes before this process has threads. */
static void run_forked(bench *b, const char *transport, int links) {
    int pipes[2];
    double sum = 0, one;
    uv_thread_t server;
    if (pipe(pipes)) exit(1);
    for (int i = 0; i < links; i++) {
        if (fork()) continue;
        cop_clock_sleep_ms(50);
        one = run_rounds(b);
        exit(write(pipes[1], &one, sizeof one) != sizeof one);
    }
    uv_sem_init(&b->ready, 0);
    uv_thread_create(&server, run_server, b);
    for (int i = 0; i < links; i++) {
        if (read(pipes[0], &one, sizeof one) != sizeof one) exit(1);
        sum += one;
    }
    while (wait(NULL) > 0) {}
    stop_server(b, server);
    print_line(b, transport, links, true, sum / links);
}

/* Creates certificates in a folder, loads them, and removes the folder. */
static void make_certificates(bench *b) {
    static const char *const hosts[] = {"127.0.0.1", NULL};
    const cop_tls_issue issues[] = {{"coordinator", "coordinator", hosts, 60},
                                    {"worker", "worker", NULL, 60}};
    char folder[64];
    cop_error error = {0};
    snprintf(folder, sizeof folder, "%s/coppice-bench-tls-%d", P_tmpdir, getpid());
    if (cop_tls_create_folder(folder, issues, 2, &error)) die("certificates", &error);
    const cop_tls_options options = {.folder = folder};
    if (cop_tls_load(&options, "coordinator", COP_TLS_SERVER, &b->tls[0], &error) ||
        cop_tls_load(&options, "worker", COP_TLS_CLIENT, &b->tls[1], &error))
        die("certificates", &error);
    cop_folder_remove(folder, NULL);
}

/* Runs each arrangement in its own process, so that none warms the memory of another. */
static void run_case(bench *b, const char *transport, int links, bool forked) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        cop_alloc_keep_large_blocks();
        (forked ? run_forked : run_threads)(b, transport, links);
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (status) exit(1);
}

int main(int argc, char **argv) {
    bench b = {.size = 12u << 20, .rounds = 100};
    const char *only = "";
    char ipc[64], tcp[64], tls[64];
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--megabytes") == 0) b.size = (size_t)atoi(argv[i + 1]) << 20;
        if (strcmp(argv[i], "--rounds") == 0) b.rounds = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--only") == 0) only = argv[i + 1];
    }
    snprintf(ipc, sizeof ipc, "ipc://%s/coppice-bench-%d", P_tmpdir, getpid());
    snprintf(tcp, sizeof tcp, "tcp://127.0.0.1:%d", 20000 + getpid() % 12000);
    snprintf(tls, sizeof tls, "tls+tcp://127.0.0.1:%d", 20000 + (getpid() + 1) % 12000);
    const char *const names[] = {"memory", "ipc", "tcp", "tls+tcp"};
    const char *const urls[] = {NULL, ipc, tcp, tls};
    make_certificates(&b);
    for (int t = 0; t < 4; t++) {
        if (*only && strcmp(only, names[t]) != 0) continue;
        b.url = urls[t];
        for (int links = 1; links <= LINKS_MAX; links++) {
            run_case(&b, names[t], links, false);
            if (b.url) run_case(&b, names[t], links, true);
        }
    }
    return 0;
}
