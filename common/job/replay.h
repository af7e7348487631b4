/* Trains a job in one thread, step by step, and can record everything about one shard of one step,
 * so that independent tools can check a run. The weights equal those of any pool (D5, D7). A replay
 * is not thread-safe, and all calls block. */
#ifndef COP_JOB_REPLAY_H
#define COP_JOB_REPLAY_H

#include "common/job/job.h"

typedef struct cop_replay cop_replay;

/* Creates a replay with the initial weights, before step 1. Borrows job and data until
 * cop_replay_destroy. Fails with INPUT as cop_job_view does. */
cop_err cop_replay_create(const cop_job *job, const cop_data *data, const cop_kernels *kernels,
                          cop_replay **out, cop_error *error);
/* Frees the replay. NULL has no effect. */
void cop_replay_destroy(cop_replay *replay);
/* Goes to the newest intact checkpoint of the run folder with at most `step` completed steps. If
 * there is none, succeeds and goes back to the initial weights, before step 1. `notes` is that of
 * cop_checkpoint_source. Other errors are those of cop_checkpoint_load. */
cop_err cop_replay_load(cop_replay *replay, const char *folder, uint64_t step, cop_str *notes,
                        cop_error *error);
/* The number of completed steps. */
uint64_t cop_replay_step(const cop_replay *replay);
/* The weights after these steps. The replay owns them. */
const float *cop_replay_weights(const cop_replay *replay);
/* Computes the next step. Fails with INPUT if a weight is then not finite; the error names the step
 * and the parameter. */
cop_err cop_replay_advance(cop_replay *replay, cop_error *error);
/* Computes the next step and writes everything about one shard of it to a safetensors file. Shards
 * are counted from 0. All tensors are f32. n is the number of the shard's samples, <layer> the
 * index of a layer in the job file's list, and <name> the name of a parameter, such as 1.weight.
 *   input [n, ...]           the input of the first layer
 *   target [n] or [n, ...]   what the loss compares with: the labels, or the input
 *   param.<name>             the parameter before the step
 *   mask.<layer> [n, ...]    the factor of each element of a layer that draws at random: 0 or the
 *                            scale, or the noise
 *   output.<layer> [n, ...]  the output of the layer
 *   loss [1]                 the mean over the shard's samples
 *   grad.<name>              the gradient sum of the shard, divided by n
 *   mean_grad.<name>         the gradient sum of the whole batch, divided by its number of samples
 *   update.<name>            the parameter after the step minus the parameter before it
 *
 * The layer dropconnect has one mask for each of its parameters that it drops: mask.<layer> for its
 * weight, and mask.<layer>.bias for its bias.
 *
 * The metadata are coppice.job, coppice.step (after the step), coppice.shard, and coppice.digest
 * (of the weights before the step). Fails with INPUT if the shard does not exist or has no samples
 * in that step, or as cop_replay_advance does. */
cop_err cop_replay_write(cop_replay *replay, uint32_t shard, const char *path, cop_error *error);

#endif
