/* A short trial of a job: what `plan --time` predicts from. */
#ifndef COP_CLIENT_TRIAL_H
#define COP_CLIENT_TRIAL_H

#include "client/cli.h"

/* What a trial has measured, as means over its steps. The cache keeps the bytes of this struct. */
typedef struct cli_trial {
    int32_t workers; /* number of workers, with one compute thread each, in one process */
    int32_t layer_count;
    double step_ms;    /* time of a step, without evaluations and checkpoints */
    double compute_ms; /* thread time of the forward and backward passes of a step */
    double update_ms;  /* time from the last gradient to the new weights */
    int64_t unix_ms;   /* Unix time of the measurement, in ms */
    struct cli_trial_layer {
        double ms;             /* thread time that the layer takes per step */
        double input_zeros;    /* share of zeros in the input; below 0: unknown */
        double gradient_zeros; /* share of zeros in the gradient of the output; below 0: unknown */
    } layers[COP_LAYERS_MAX];
} cli_trial;

/* Trains the job in this process for about a second, with its own data, and measures. Keeps the
 * result in the cache; takes it from there if this program has measured the same job on this kind
 * of processor before, unless `again` is set. *cached tells which. The job and the data on the disk
 * do not change. `path` is the job file. A cache that cannot be written is no error. DIVERGED: the
 * job has no finite weights after some steps. */
cop_err cli_trial_run(const cop_job *job, const char *path, const cli_options *options,
                      cli_trial *out, bool *cached, cop_error *error);

/* Predicts the time of a step in ms on a pool of `workers` one-threaded workers of this machine's
 * speed. The bytes between them and the coordinator pass one link of `bytes_per_s`; 0: nothing
 * passes a link, because all are in one process. */
double cli_trial_predict(const cli_trial *trial, const cop_job *job, int workers,
                         double bytes_per_s);
/* The smallest number of workers, at most `max`, whose predicted step is at most 3 % longer than
 * the shortest one. */
int cli_trial_useful_workers(const cli_trial *trial, const cop_job *job, int max,
                             double bytes_per_s);

#endif
