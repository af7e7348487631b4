/* Computes a block of a job: consecutive shards of a training step, or a slice of an evaluated
 * part. Workers, the coordinator's recomputation, replay and the client's own evaluation all use
 * it, so they cannot get different bits. */
#ifndef COP_JOB_BLOCK_H
#define COP_JOB_BLOCK_H

#include "common/job/job.h"

/* D10: evaluations sum the losses of this many samples at once, then add these sums in order. */
enum { COP_EVAL_COLUMNS = 125 };

/* The weights and the samples of a block. All pointers are borrowed. */
typedef struct cop_block {
    const cop_job *job;
    const float *weights;  /* cop_model_floats long */
    const void *rows;      /* job->sample_stride bytes each, of job->sample_type */
    const int32_t *labels; /* one per row */
    int first, count;      /* the block's range of rows */
} cop_block;
/* The block's range of rows, as a pass takes them. */
cop_samples cop_block_samples(const cop_block *block);

/* Shards [first, first + count) of a step. They must be a node of D5's tree. */
typedef struct cop_block_shards {
    uint64_t step;        /* from 1 */
    const int32_t *sizes; /* samples of each shard of the step, from shard 0 (cop_shard_sizes) */
    int first, count;
} cop_block_shards;
/* Trains on the block, whose rows are those of the shards. Writes their gradient sum to `gradient`
 * (cop_model_floats long). The pass must be for TRAIN and have room for all rows. */
void cop_block_train(cop_pass *pass, const cop_block *block, const cop_block_shards *shards,
                     float *gradient, cop_pass_result *result);
/* Evaluates the block. first_sample: index of its first row in the evaluated part. The pass must
 * have room for COP_EVAL_COLUMNS samples. Sums over a part have D10's order only if each call but
 * the last covers a multiple of COP_EVAL_COLUMNS samples. */
void cop_block_evaluate(cop_pass *pass, const cop_block *block, uint32_t first_sample,
                        cop_pass_result *result);

#endif
