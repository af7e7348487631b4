/* A coordinator and workers in this process that train one job. The command `run` uses it. */
#ifndef COP_CLIENT_IN_PROCESS_H
#define COP_CLIENT_IN_PROCESS_H

#include "coordinator/coordinator.h"
#include "worker/worker.h"

typedef struct cli_in_process {
    coord_server *coordinator; /* NULL: not running */
    cop_worker **workers;
    int running; /* number of workers that have not been joined */
} cli_in_process;

/* What to train, and with what. */
typedef struct cli_in_process_config {
    const cop_kernels *kernels;
    unsigned char self_test[32];
    coord_run_options run;
    int workers;          /* number of workers, which have one compute thread each */
    cop_profile *profile; /* NULL: none */
} cli_in_process_config;

/* Starts the coordinator, submits the job and starts the workers. Takes over `job` and `data`, on
 * failure too. End with cli_in_process_stop, after a failure as well. Errors: those of coord_start,
 * coord_run_submit and worker_start. */
cop_err cli_in_process_start(const cli_in_process_config *config, cop_job *job, cop_data *data,
                             cli_in_process *out, cop_error *error);
/* Ends all threads. The workers drop what they compute. Has no effect if nothing runs. */
void cli_in_process_stop(cli_in_process *p);
/* The number of cores that this process may use. */
int cli_core_count(void);

#endif
