/* Shared by the tools that are workers: a normal worker with one thread, and a hook that can change
 * its results before they are sent. */
#ifndef TESTS_TOOLS_TAMPERING_H
#define TESTS_TOOLS_TAMPERING_H

#include <signal.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "worker/worker.h"

static volatile sig_atomic_t tampering_stopped;

static inline void tampering_on_signal(int number) {
    (void)number;
    tampering_stopped = 1;
}

/* Runs a worker until SIGTERM, when it finishes its lease and leaves, or until the coordinator
 * refuses it. COPPICE_TOKEN contains the coordinator's token. Calls `tamper` with `context` for
 * each result, before it is sent. */
static inline cop_err tampering_run(const char *url, const char *name,
                                    void (*tamper)(void *, cop_result *, cop_buffer *),
                                    void *context, cop_error *error) {
    cop_worker *worker;
    cop_worker_config config = {.url = url,
                                .name = name,
                                .token = getenv("COPPICE_TOKEN"),
                                .threads = 1,
                                .share_memory = true,
                                .retry_forever = true,
                                .tamper = tamper,
                                .tamper_context = context};
    signal(SIGTERM, tampering_on_signal);
    COP_TRY(cop_kernels_choose(&config.kernels, error));
    COP_TRY(cop_self_test(config.kernels, config.self_test, error));
    COP_TRY(worker_start(&config, &worker, error));
    while (!worker_ended(worker)) {
        cop_clock_sleep_ms(20);
        if (tampering_stopped) worker_drain(worker);
    }
    return worker_join(worker, error);
}

#endif
