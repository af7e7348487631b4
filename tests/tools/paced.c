/* A worker of a given pace: an ordinary one with one thread, which computes its shards and then
 * waits, so that each takes MS milliseconds. Several of them on few cores are as fast as each would
 * be on a machine of its own, and what a pool of them loses is not hidden by cores that are shared.
 *
 *     paced URL NAME MS
 *
 * Token from COPPICE_TOKEN. Ends when told to (SIGTERM), or refused.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "worker/worker.h"

static void wait_for_pace(void *context, cop_result *result, cop_buffer *gradient) {
    const uint64_t *ms = context;
    const uint64_t whole_ns = *ms * 1000000u * (result->count ? result->count : 1);
    (void)gradient;
    if (result->compute_ns >= whole_ns) return;
    cop_clock_sleep_ms((unsigned)((whole_ns - result->compute_ns) / 1000000u));
    result->compute_ns = whole_ns;
}

static volatile sig_atomic_t told;

static void on_signal(int number) {
    (void)number;
    told = 1;
}

int main(int argc, char **argv) {
    cop_error error = {0};
    cop_worker *worker;
    if (argc != 4) return fputs("paced URL NAME MS\n", stderr) < 0 ? 1 : 2;
    uint64_t ms = strtoull(argv[3], NULL, 10);
    cop_worker_config config = {.url = argv[1],
                                .name = argv[2],
                                .token = getenv("COPPICE_TOKEN"),
                                .threads = 1,
                                .retry_forever = true,
                                .tamper = wait_for_pace,
                                .tamper_context = &ms};
    signal(SIGTERM, on_signal);
    cop_err e = cop_kernels_choose(&config.kernels, &error);
    if (!e) e = cop_self_test(config.kernels, config.self_test, &error);
    if (!e) e = worker_start(&config, &worker, &error);
    if (!e) {
        while (!worker_ended(worker)) {
            cop_clock_sleep_ms(20);
            if (told) worker_drain(worker);
        }
        e = worker_join(worker, &error);
    }
    if (e) fprintf(stderr, "paced: %s\n", error.text);
    return e != COP_OK;
}
