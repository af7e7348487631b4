/* Where the time of a step went: the figures of a profile (common/nn/profile.h), for people and for
 * programs. */
#ifndef COP_CLIENT_STEP_TIMES_H
#define COP_CLIENT_STEP_TIMES_H

#include "common/base/limits.h"
#include "common/job/job.h"
#include "common/nn/profile.h"
#include "proto/api.pb-c.h"

/* The times are in ms per step: the mean over the compute threads of the workers. */
typedef struct cli_layer_times {
    double forward, mask, weights, backward;
    double input_zeros;    /* share of zeros in the layer's input; below 0: unknown */
    double gradient_zeros; /* share of zeros in the gradient of its output; below 0: unknown */
    /* 10^9 floating-point operations per second and thread in the layer's products. All terms
     * count, including those that a kernel leaves out because a factor is 0. 0: the layer has no
     * parameters. */
    double gflops;
    double needed_gflops; /* the same, but without the terms that a kernel may leave out */
    double dense_gflops;  /* as measured for a dense product of this size; 0: not measured */
} cli_layer_times;

typedef struct cli_step_times {
    uint64_t steps;
    int threads; /* compute threads that trained */
    int columns; /* samples of one pass */
    int layer_count;
    cli_layer_times layers[COP_LAYERS_MAX];
    double input, loss, sum;
    double update;                           /* waiting time while the coordinator computes new
                                                weights */
    double transfer;                         /* waiting time while the coordinator handles
                                                messages */
    double wait;                             /* waiting time for other workers and anything else */
    double step;                             /* time of a step: the sum of all times above */
    double update_bytes;                     /* read and written by the updates of one step */
    double update_gb_per_s, memory_gb_per_s; /* 0: unknown */
} cli_step_times;

/* Adds up the lanes of a profile, whose threads have ended. False: nothing was trained. */
bool cli_step_times_of(const cop_profile *profile, const cop_model *model, cli_step_times *out);
/* Measures what this machine reaches, in a fraction of a second: dense products of the layers'
 * sizes, and a sum of large arrays, each on `out->threads` threads at once. Fills in dense_gflops
 * and memory_gb_per_s. NO_MEMORY. */
cop_err cli_step_times_compare(const cop_job *job, const cop_kernels *kernels, cli_step_times *out,
                               cop_error *error);
/* Prints the times as tables. */
cop_err cli_step_times_print(const cop_model *model, const cli_step_times *times, cop_error *error);
/* The times as a message. The caller frees *out with cop_free; it borrows texts of the model. */
cop_err cli_step_times_message(const cop_model *model, const cli_step_times *times,
                               Coppice__Api__Profile **out, cop_error *error);

/* Writes the spans of all lanes to `path` in the trace event format of Chrome, which Perfetto also
 * reads. Times count from the first span. Sets *lost to the number of spans that the lanes had no
 * room for. The errors are those of cop_file_write. */
cop_err cli_trace_write(const cop_profile *profile, const cop_model *model, const char *path,
                        uint64_t *lost, cop_error *error);

#endif
