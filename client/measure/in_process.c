/* Starts and stops a coordinator and workers in this process. See in_process.h. */
#include "client/measure/in_process.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "common/base/alloc.h"

int cli_core_count(void) {
    const unsigned cores = uv_available_parallelism();
    return cores < 1 ? 1 : (int)cores;
}

static cop_err start_workers(const cli_in_process_config *c, bool portable, cli_in_process *p,
                             cop_error *error) {
    COP_ASSERT(c->workers >= 1 && p->coordinator && !p->workers);
    p->workers = cop_alloc_array((size_t)c->workers, sizeof(cop_worker *));
    if (!p->workers) return cop_no_memory(error);
    for (int i = 0; i < c->workers; i++) {
        char name[32];
        cop_worker_config config = {.local = coord_transport(p->coordinator),
                                    .token = "",
                                    .name = name,
                                    .threads = 1,
                                    .portable = portable,
                                    .profile = c->profile,
                                    .kernels = c->kernels};
        snprintf(name, sizeof name, "thread-%d", i + 1);
        memcpy(config.self_test, c->self_test, sizeof config.self_test);
        COP_TRY(worker_start(&config, &p->workers[i], error));
        p->running++;
    }
    return COP_OK;
}

/* The part of cli_in_process_start that does not take over `job` and `data`. */
static cop_err start_coordinator(const cli_in_process_config *c, const cop_job *job, bool portable,
                                 cli_in_process *p, cop_error *error) {
    const int cores = cli_core_count();
    COP_TRY(cop_numerics_load(job->numerics, error));
    coord_config config = {.kernels = c->kernels,
                           .profile = c->profile,
                           .portable = portable,
                           .update_threads = c->workers < cores ? c->workers : cores};
    memcpy(config.self_test, c->self_test, sizeof config.self_test);
    return coord_start(&config, &p->coordinator, error);
}

cop_err cli_in_process_start(const cli_in_process_config *config, cop_job *job, cop_data *data,
                             cli_in_process *p, cop_error *error) {
    const bool portable = job->numerics != COP_NUMERICS_OPENBLAS;
    *p = (cli_in_process){0};
    const cop_err e = start_coordinator(config, job, portable, p, error);
    if (e) {
        cop_job_release(job);
        cop_data_destroy(data);
        return e;
    }
    COP_TRY(coord_run_submit(p->coordinator, job, data, &config->run, error));
    return start_workers(config, portable, p, error);
}

void cli_in_process_stop(cli_in_process *p) {
    for (int i = 0; i < p->running; i++) worker_cancel(p->workers[i]);
    for (int i = 0; i < p->running; i++) worker_join(p->workers[i], NULL);
    if (p->coordinator) coord_stop(p->coordinator);
    cop_free(p->workers);
    *p = (cli_in_process){0};
}
