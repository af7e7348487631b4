/* Computes a block of a job: consecutive shards of a training step, or a slice of an evaluated
 * part. Workers, the coordinator's recomputation, replay and the client's own evaluation all use
 * it, so they cannot get different bits. */
#ifndef COP_JOB_BLOCK_H
#define COP_JOB_BLOCK_H

#include "common/job/job.h"

/* An evaluation sums the losses of this many samples at a time, then adds these sums in order (rule
 * D10 of docs/reference/portable-1.md). */
enum { COP_EVAL_COLUMNS = 125 };

/* The weights and the samples of a block. All pointers are borrowed. */
typedef struct cop_block {
    const cop_job *job;
    const float *weights;  /* cop_model_floats long */
    const void *rows;      /* job->sample_stride bytes each, of job->sample_type */
    const int32_t *labels; /* one per row, or NULL */
    int first;             /* the block's first row */
    int count;             /* number of rows in the block */
} cop_block;
/* The samples of the block, in the form that a pass takes. They point into block->rows and
 * block->labels. */
cop_samples cop_block_samples(const cop_block *block);

/* Shards [first, first + count) of a step. They must be a node of the summation tree
 * (cop_tree_is_node). */
typedef struct cop_block_shards {
    uint64_t step;        /* number of the step, counted from 1 */
    const int32_t *sizes; /* samples of each shard of the step, from shard 0 (cop_shard_sizes) */
    int first, count;
} cop_block_shards;
/* Runs the forward and backward pass of the shards, whose samples are the block. Writes the sum of
 * their gradients to `gradient` (cop_model_floats long). For a job with `wire: bf16`,
 * block->weights must be rounded, and all values of the gradient are. The pass must be made for
 * TRAIN and have room for all samples of the block. */
void cop_block_train(cop_pass *pass, const cop_block *block, const cop_block_shards *shards,
                     float *gradient, cop_pass_result *result);
/* Evaluates the block. first_sample is the index of its first row in the evaluated part of the
 * data. The pass must have room for COP_EVAL_COLUMNS samples. A caller may evaluate a part by
 * several calls and add up the results. To get D10's order, each of these calls except the last
 * must cover a multiple of COP_EVAL_COLUMNS samples. */
void cop_block_evaluate(cop_pass *pass, const cop_block *block, uint32_t first_sample,
                        cop_pass_result *result);

#endif
