/* The expected results: hashes in place of tensors, computed by a loop over the steps without a
 * pool.
 *
 * A gradient is a pure function of weights, step, shard, samples and, if the job is pinned to a
 * fingerprint, of this fingerprint. The sum of two nodes of the tree neither commutes nor
 * associates, and an update mixes momentum and weights. So a result that is lost, used twice, late,
 * of another step or in another order changes all later weights. */
#include "sim/sim.h"

#include "common/base/alloc.h"
#include "common/base/shards.h"

static double real_of(uint64_t x) {
    return (double)(x >> 11) * 0x1p-53 + 0.1;
}

uint64_t sim_initial(const sim_spec *spec) {
    return sim_mix(spec->seed, 1);
}

uint32_t sim_batch_of(const sim_spec *spec, uint64_t step) {
    const coord_job_info *info = &spec->info;
    uint64_t begin = (step - 1) % info->steps_per_epoch * info->batch;
    uint64_t left = info->train_samples - begin;
    return left < info->batch ? (uint32_t)left : info->batch;
}

/* Hashes the samples of each shard of a step. The code that selects them is the coordinator's (D1,
 * D2). */
static void fill_leaves(sim_spec *spec, uint64_t step) {
    const coord_job_info *info = &spec->info;
    uint32_t *rows = spec->rows + (step - 1) * info->batch, count, epoch, at = 0;
    int32_t *sizes = cop_alloc_array(info->shards, sizeof *sizes);
    uint64_t *leaf = spec->leaf + (step - 1) * info->shards;
    COP_ASSERT(sizes != NULL);
    const cop_data_batches batches = {spec->seed, info->train_samples, info->batch,
                                      info->last_keep};
    cop_data_batch_rows(&batches, step, rows, &count, &epoch);
    cop_shard_sizes(count, info->shards, sizes);
    for (uint32_t shard = 0; shard < info->shards; shard++) {
        leaf[shard] = 1;
        for (int32_t i = 0; i < sizes[shard]; i++) leaf[shard] = sim_mix(leaf[shard], rows[at++]);
        leaf[shard] |= 1; /* never 0 */
    }
    cop_free(sizes);
}

uint64_t sim_leaf(sim_spec *spec, uint64_t step, uint32_t shard) {
    uint64_t *leaf = spec->leaf + (step - 1) * spec->info.shards;
    if (!leaf[shard]) fill_leaves(spec, step);
    return leaf[shard];
}

const uint32_t *sim_rows(sim_spec *spec, uint64_t step) {
    sim_leaf(spec, step, 0);
    return spec->rows + (step - 1) * spec->info.batch;
}

/* The size of a node's left part: the largest power of two that is smaller than the node. */
static uint32_t left_of(uint32_t size) {
    uint32_t left = 1;
    while (left * 2 < size) left *= 2;
    return left;
}

typedef struct block {
    sim_spec *spec;
    uint64_t base; /* hash of weights, step and, in a pinned job, fingerprint */
    uint64_t step;
    uint32_t present; /* the first shard without samples */
    uint32_t batch;
    uint64_t correct; /* correctly classified samples so far */
} block;

/* Returns the gradient sum of shards `first` to `end - 1` in the order of the tree, and their loss
 * in *loss. */
static uint64_t node(block *b, uint32_t first, uint32_t end, double *loss) {
    if (end - first == 1) {
        uint32_t shards = b->spec->info.shards;
        uint32_t samples = b->batch / shards + (first < b->batch % shards);
        uint64_t g = sim_mix(sim_mix(b->base, first), sim_leaf(b->spec, b->step, first));
        *loss = real_of(g);
        b->correct += g % (samples + 1);
        return g;
    }
    uint32_t middle = first + left_of(end - first);
    uint64_t left = node(b, first, middle, loss);
    if (middle >= b->present) return left;
    double right_loss;
    uint64_t right = node(b, middle, end, &right_loss);
    *loss += right_loss;
    return sim_mix(left, right);
}

bool sim_diverges(const sim_spec *spec, uint64_t step, uint32_t first, uint64_t weights) {
    return (spec->diverges_at == step && first == 0) || weights == SIM_POISONED;
}

uint32_t sim_samples(const sim_spec *spec, uint32_t batch, uint32_t first, uint32_t count) {
    uint32_t shards = spec->info.shards, longer = batch % shards, end = first + count;
    return count * (batch / shards) + (end < longer ? end : longer) -
           (first < longer ? first : longer);
}

uint64_t sim_block(sim_spec *spec, uint64_t weights, uint64_t step, uint32_t first, uint32_t count,
                   uint64_t fingerprint, double *loss, uint64_t *correct) {
    uint32_t batch = sim_batch_of(spec, step), shards = spec->info.shards;
    block b = {.spec = spec, .step = step, .batch = batch};
    b.present = batch < shards ? batch : shards;
    b.base = sim_mix(sim_mix(weights, step), spec->info.pin_first ? fingerprint : 0);
    uint64_t sum = node(&b, first, first + count, loss);
    *correct = b.correct;
    return sum;
}

void sim_slice(uint64_t weights, uint32_t first, uint32_t count, double *loss, uint64_t *correct) {
    uint64_t x = sim_mix(sim_mix(weights, 77), first);
    *loss = real_of(x) * count;
    *correct = x % (count + 1);
}

void sim_apply(uint64_t sum, uint32_t batch, uint64_t *weights, uint64_t *momentum) {
    *momentum = sim_mix(*momentum, sim_mix(sum, batch));
    *weights = sim_mix(*weights, *momentum);
}

double sim_error(const sim_spec *spec, uint64_t samples, uint64_t correct) {
    (void)spec;
    return (double)(samples - correct) / (double)samples;
}

/* ---- the loop ---- */

static void evaluate(const sim_spec *spec, sim_reference *r) {
    uint32_t samples = spec->info.evaluate_samples;
    for (uint32_t at = 0; at < samples; at += COP_EVAL_SLICE) {
        uint32_t count = samples - at < COP_EVAL_SLICE ? samples - at : COP_EVAL_SLICE;
        double loss;
        uint64_t correct;
        sim_slice(r->weights, at, count, &loss, &correct);
        r->evaluated += loss;
        r->evaluated_correct += correct;
    }
}

static void compute_next(sim_spec *spec, uint64_t fingerprint, sim_reference *all, uint64_t step) {
    const sim_reference *before = &all[step - 1];
    bool fresh = (step - 1) % spec->info.steps_per_epoch == 0;
    sim_reference *r = &all[step];
    *r = (sim_reference){.weights = before->weights, .momentum = before->momentum};
    uint64_t sum =
        sim_block(spec, r->weights, step, 0, spec->info.shards, fingerprint, &r->loss, &r->correct);
    sim_apply(sum, sim_batch_of(spec, step), &r->weights, &r->momentum);
    r->epoch_loss = (fresh ? 0 : before->epoch_loss) + r->loss;
    r->epoch_correct = (fresh ? 0 : before->epoch_correct) + r->correct;
    evaluate(spec, r);
}

const sim_reference *sim_expect(sim_spec *spec, uint64_t fingerprint, uint64_t step) {
    COP_ASSERT(fingerprint <= 2 && step <= spec->info.steps);
    uint64_t f = spec->info.pin_first ? fingerprint : 0;
    sim_reference *all = spec->reference[f];
    if (!all) {
        all = spec->reference[f] = cop_alloc_array(spec->info.steps + 1, sizeof *all);
        COP_ASSERT(all != NULL);
        all[0] = (sim_reference){.weights = sim_initial(spec), .momentum = 0};
        evaluate(spec, &all[0]);
    }
    while (spec->computed[f] < step) compute_next(spec, f, all, ++spec->computed[f]);
    return &all[step];
}
