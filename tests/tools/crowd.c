/* A load generator for bench/load.py. It runs many workers in one process (real workers, each with
 * its two connections), or makes many submissions.
 *
 *   crowd workers N            runs N workers, which join and compute until standard input ends
 *   crowd submit N JOB DIGEST  submits a job N times over 8 links, and prints a line of JSON
 *
 * JOB is a job file, and DIGEST that of its data set. COPPICE_COORDINATOR contains the
 * coordinator's URL, and COPPICE_TOKEN its token. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/version.h"
#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "proto/api.pb-c.h"
#include "worker/worker.h"

#define LINKS 8

static void die(const cop_error *error) {
    fprintf(stderr, "crowd: %s\n", error->text);
    exit(1);
}

/* ---- workers ---- */

static void run_workers(const char *url, const char *token, uint64_t count) {
    cop_worker **workers = cop_alloc_array(count, sizeof *workers);
    cop_worker_config config = {.url = url, .token = token, .threads = 1, .retry_forever = true};
    cop_error error = {0};
    char byte, name[32];
    if (!workers || cop_kernels_choose(&config.kernels, &error) ||
        cop_self_test(config.kernels, config.self_test, &error))
        die(&error);
    config.name = name;
    for (uint64_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "load-%llu", (unsigned long long)i);
        if (worker_start(&config, &workers[i], &error)) die(&error);
    }
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    for (uint64_t i = 0; i < count; i++) worker_cancel(workers[i]);
    for (uint64_t i = 0; i < count; i++) worker_join(workers[i], NULL);
    cop_free(workers);
}

/* ---- submissions ---- */

typedef struct submitter {
    uv_thread_t thread;
    const char *url, *token;
    cop_buffer *call;    /* the packed request */
    atomic_ullong *left; /* submissions that are left to do, shared by all submitters */
    uint64_t longest_ns; /* duration of the longest call */
    cop_error error;
} submitter;

/* Takes one of the submissions that are left. False: none is left. */
static bool take_one(atomic_ullong *left) {
    unsigned long long now = atomic_load(left);
    while (now > 0 && !atomic_compare_exchange_weak(left, &now, now - 1)) {}
    return now > 0;
}

static cop_err submit_once(submitter *s, cop_link *link) {
    cop_message call = {.type = COP_MESSAGE_CALL}, reply = {0};
    call.call.method = COPPICE__API__METHOD__SUBMIT;
    call.call.major = COP_PROTOCOL_MAJOR;
    call.call.minor = COP_PROTOCOL_MINOR;
    snprintf(call.call.token, sizeof call.call.token, "%s", s->token);
    call.part[COP_PART_BODY] = cop_buffer_hold(s->call);
    const uint64_t began = cop_clock_ns();
    cop_err e = cop_link_call(link, &call, &reply, 60000, &s->error);
    const uint64_t took = cop_clock_ns() - began;
    if (took > s->longest_ns) s->longest_ns = took;
    cop_message_fini(&reply);
    return e;
}

static void run_submitter(void *argument) {
    submitter *s = argument;
    cop_link *link = NULL;
    s->error.code = cop_link_open(s->url, NULL, &link, &s->error);
    while (!s->error.code && take_one(s->left)) s->error.code = submit_once(s, link);
    cop_link_close(link);
}

static cop_buffer *pack_call(const char *path, const char *digest) {
    Coppice__Api__SubmitRequest request = COPPICE__API__SUBMIT_REQUEST__INIT;
    cop_error error = {0};
    if (cop_document_read_job(path, &request.job, &error)) die(&error);
    request.data_digest = (char *)(uintptr_t)digest;
    cop_buffer *call = cop_proto_pack(&request.base);
    cop_proto_free(&request.job->base);
    return call;
}

static void run_submissions(const char *url, const char *token, uint64_t count, char **job) {
    cop_buffer *call = pack_call(job[0], job[1]);
    submitter submitters[LINKS];
    atomic_ullong left;
    uint64_t longest = 0, began = cop_clock_ns();
    atomic_init(&left, count);
    for (int i = 0; i < LINKS; i++) {
        submitters[i] = (submitter){.url = url, .token = token, .call = call, .left = &left};
        if (uv_thread_create(&submitters[i].thread, run_submitter, &submitters[i])) abort();
    }
    for (int i = 0; i < LINKS; i++) {
        uv_thread_join(&submitters[i].thread);
        if (submitters[i].error.code) die(&submitters[i].error);
        if (submitters[i].longest_ns > longest) longest = submitters[i].longest_ns;
    }
    printf("{\"submissions\":%llu,\"seconds\":%.3f,\"longest_ms\":%.1f}\n",
           (unsigned long long)count, (double)(cop_clock_ns() - began) * 1e-9,
           (double)longest * 1e-6);
    cop_buffer_release(call);
}

int main(int argc, char **argv) {
    const char *url = getenv("COPPICE_COORDINATOR"), *token = getenv("COPPICE_TOKEN");
    uint64_t count = 0;
    struct rlimit limit;
    const bool workers = argc == 3 && strcmp(argv[1], "workers") == 0;
    const bool submit = argc == 5 && strcmp(argv[1], "submit") == 0;
    if (!url || !token || (!workers && !submit) || !cop_parse_u64(argv[2], &count) || !count) {
        fprintf(stderr, "usage: COPPICE_COORDINATOR=URL COPPICE_TOKEN=TEXT crowd workers N | "
                        "submit N JOB.yaml DATA-DIGEST\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    cop_log_configure(COP_LOG_ERROR, false);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (workers)
        run_workers(url, token, count);
    else
        run_submissions(url, token, count, argv + 3);
    return 0;
}
