/* The computation of a block. See block.h. */
#include "common/base/shards.h"
#include "common/job/block.h"

cop_samples cop_block_samples(const cop_block *block) {
    const cop_job *job = block->job;
    COP_ASSERT(block->first >= 0 && block->count >= 0);
    return (cop_samples){.dtype = job->sample_type,
                         .count = block->count,
                         .features = (int)job->features,
                         .stride = job->sample_stride,
                         .rows =
                             (const char *)block->rows + (size_t)block->first * job->sample_stride,
                         .labels = block->labels ? block->labels + block->first : NULL};
}

void cop_block_train(cop_pass *pass, const cop_block *block, const cop_block_shards *shards,
                     float *gradient, cop_pass_result *result) {
    const cop_job *job = block->job;
    COP_ASSERT(cop_tree_is_node((int)job->shards, shards->first, shards->count));
    COP_ASSERT(shards->step >= 1 && shards->step <= UINT32_MAX);
    const cop_samples samples = cop_block_samples(block);
    const cop_shard_work work = {.seed = job->seed,
                                 .step = (uint32_t)shards->step,
                                 .shard_first = shards->first,
                                 .shard_count = shards->count,
                                 .shard_sizes = shards->sizes + shards->first,
                                 .round_nodes = job->bf16};
    cop_pass_train(pass, block->weights, &work, &samples, gradient, result);
}

void cop_block_evaluate(cop_pass *pass, const cop_block *block, uint32_t first_sample,
                        cop_pass_result *result) {
    *result = (cop_pass_result){0};
    for (int at = 0; at < block->count; at += COP_EVAL_COLUMNS) {
        const int rest = block->count - at;
        cop_block part = *block;
        part.first += at;
        part.count = rest < COP_EVAL_COLUMNS ? rest : COP_EVAL_COLUMNS;
        const cop_samples samples = cop_block_samples(&part);
        const cop_eval_place place = {.seed = block->job->seed,
                                      .first_sample = first_sample + (uint32_t)at};
        cop_pass_result sums;
        cop_pass_eval(pass, block->weights, &place, &samples, &sums);
        result->loss += sums.loss;
        result->correct += sums.correct;
        result->samples += sums.samples;
    }
}
