/* A job's training in one thread, step by step, and a look at one shard of one step with everything
 * in it: how anyone audits a run with tools that are not ours. The weights are those of any pool
 * (D5, D7). */
#ifndef COP_JOB_REPLAY_H
#define COP_JOB_REPLAY_H

#include "common/job/job.h"

typedef struct cop_replay cop_replay;

/* Job and data are borrowed. The state is that before step 1. */
cop_err cop_replay_create(const cop_job *job, const cop_data *data, const cop_kernels *kernels,
                          cop_replay **out, cop_error *error);
void cop_replay_destroy(cop_replay *replay);
/* Goes to the newest whole checkpoint of the run folder that is of at most `step` completed steps;
 * without one it stays where it is. `notes` as in cop_checkpoint_load. */
cop_err cop_replay_load(cop_replay *replay, const char *folder, uint64_t step, cop_str *notes,
                        cop_error *error);
uint64_t cop_replay_step(const cop_replay *replay); /* completed steps */
const float *cop_replay_weights(const cop_replay *replay);
/* The next step. DIVERGED-like failures are INPUT, naming step and parameter. */
cop_err cop_replay_advance(cop_replay *replay, cop_error *error);
/* Does the next step, and writes all about its shard `shard` (from 0), f32, n its samples:
 *   input [n, ...], target [n] (labels) or as input     as the first layer and the loss see them
 *   param.<name>         before the step
 *   mask.<layer>         the factor of each element: 0 or the scale, or the noise; [n, ...]
 *   output.<layer>       [n, ...]
 *   loss [1]             mean over the shard's samples
 *   grad.<name>          the shard's gradient sum / n
 *   mean_grad.<name>     of the whole step: the batch's gradient sum / its samples
 *   update.<name>        of the whole step: weights after it less weights before it
 * <layer>: the number in the job file's list; <name>: as in 1.weight. Metadata: coppice.job,
 * coppice.step, coppice.shard, coppice.digest (of the weights before the step). INPUT when the
 * shard does not exist or has no samples in that step. */
cop_err cop_replay_write(cop_replay *replay, uint32_t shard, const char *path, cop_error *error);

#endif
