/* Trains a job in one thread, step by step, and records everything about one shard of one step, so
 * that independent tools can check a run. The weights equal those of any pool (D5, D7). Not
 * thread-safe; all calls block. */
#ifndef COP_JOB_REPLAY_H
#define COP_JOB_REPLAY_H

#include "common/job/job.h"

typedef struct cop_replay cop_replay;

/* Creates a replay with the initial weights, before step 1. Borrows job and data until
 * cop_replay_destroy. INPUT as in cop_job_view. */
cop_err cop_replay_create(const cop_job *job, const cop_data *data, const cop_kernels *kernels,
                          cop_replay **out, cop_error *error);
void cop_replay_destroy(cop_replay *replay);
/* Continues from the newest intact checkpoint of the run folder with at most `step` completed
 * steps; without one, nothing changes. `notes` as in cop_checkpoint_load. */
cop_err cop_replay_load(cop_replay *replay, const char *folder, uint64_t step, cop_str *notes,
                        cop_error *error);
/* The number of completed steps, and the weights after them (owned by the replay). */
uint64_t cop_replay_step(const cop_replay *replay);
const float *cop_replay_weights(const cop_replay *replay);
/* Computes the next step. A divergence is INPUT; the error names step and parameter. */
cop_err cop_replay_advance(cop_replay *replay, cop_error *error);
/* Computes the next step and writes everything about its shard `shard` (from 0) to a safetensors
 * file. All tensors are f32. n is the number of the shard's samples, <layer> is a layer's index in
 * the job file's list, and <name> is the name of a parameter, such as 1.weight:
 *
 *   input            [n, ...]: the input of the first layer
 *   target           what the loss compares the outputs with: labels [n], or the input [n, ...]
 *   param.<name>     the parameter before the step
 *   mask.<layer>     [n, ...]: the factor of each element (0, the scale, or the noise)
 *   output.<layer>   [n, ...]: the output of the layer
 *   loss             [1]: the mean loss over the shard's samples
 *   grad.<name>      the shard's gradient sum, divided by n
 *   mean_grad.<name> the gradient sum of the whole batch, divided by the batch's number of samples
 *   update.<name>    the parameter after the step minus the parameter before it
 *
 * The metadata are coppice.job, coppice.step, coppice.shard, and coppice.digest, the digest of the
 * weights before the step. INPUT: the shard does not exist, or has no samples in that step. */
cop_err cop_replay_write(cop_replay *replay, uint32_t shard, const char *path, cop_error *error);

#endif
