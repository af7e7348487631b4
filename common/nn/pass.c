/* The pass: runs a model over the samples of a lease, with all memory planned and taken once.
 *
 * Activations: buffer 0 holds the input, each layer writes its output into a buffer of its own,
 * except that an in_place layer overwrites its input where no backward function misses the old
 * contents (may_overwrite). A pass that never trains needs two buffers in turn. Going down, two
 * gradient buffers take turns, and the way ends at the lowest layer with weights: nobody reads a
 * gradient below it. Per-sample values depend on nothing but the sample, its shard and the step, so
 * that the bits are the same however many columns run at once. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/nn/loss.h"
#include "common/nn/model.h"

/* The member that was begun last. */
typedef struct pass_member {
    const float *weights; /* borrowed; NULL: none was */
    uint64_t seed;
    uint32_t number;
} pass_member;

struct cop_pass {
    const cop_model *model;
    const cop_kernels *kernels;
    cop_numerics numerics;
    cop_gemm_fn gemm;
    int max_columns;
    cop_pass_tap tap;
    cop_pass_purpose purpose;
    pass_member member;
    int lowest;         /* the lowest layer with weights: backward ends there */
    void *memory;       /* all that follows */
    float **outputs;    /* [layers + 1]: the input, then each layer's output */
    float *target;      /* a copy of the input where outputs are compared with it, else NULL */
    float *gradient[2]; /* [largest output of a layer from `lowest` up][ld] */
    uint16_t *masks;    /* what layers keep; not there in a pass that only evaluates */
    void *workspace, *scratch;
    /* per column */
    cop_rng_key *keys, *noise_keys, *augment_keys;
    void *augmented; /* rows of the stored type; NULL: the model's samples are not changed */
    uint32_t *samples, *no_samples;
    int32_t *labels, *argmax;
    float *losses;
    /* per shard */
    int *segments;
    double *shard_losses;
    bool *present;
    int16_t *ops; /* the tree over the shards, for their losses */
};

/* Deals out pieces of one block; with base NULL it only measures. */
typedef struct carver {
    char *base;
    size_t used;
} carver;

static void *carve(carver *c, size_t count, size_t size) {
    void *piece = c->base ? c->base + c->used : NULL;
    c->used += cop_align_up(count * size, 64);
    return piece;
}

static int columns_padded(int columns) {
    return (int)cop_align_up((size_t)columns, COP_COLUMNS_PAD);
}

/* Values of one sample in outputs[index]. */
static size_t output_size(const cop_model *model, int index) {
    if (index == 0) return (size_t)cop_model_features(model);
    return (size_t)cop_shape_size(&cop_model_layer(model, index - 1)->out);
}

/* Layer `index` finds its input in a buffer that layer `first` wrote first (-1: the network's
 * input) and that all layers between overwrote in place. May it overwrite it too? Only if no
 * backward function needs what would be lost. */
static bool may_overwrite(const cop_model *model, int first, int index) {
    const cop_layer_ops *ops = cop_model_layer(model, index)->ops;
    if (!ops->in_place) return false;
    if (ops->keeps == COP_KEEPS_VALUES) return true;
    if (ops->reads & COP_READS_INPUT) return false;
    for (int i = first < 0 ? 0 : first; i < index; i++) {
        const unsigned reads = cop_model_layer(model, i)->ops->reads;
        if (reads & COP_READS_OUTPUT) return false;
        if (i > first && (reads & COP_READS_INPUT)) return false;
        if ((reads & COP_READS_OUTPUT_SIGN) && ops->keeps != COP_KEEPS_SIGN) return false;
    }
    return true;
}

static void plan_training(cop_pass *pass, carver *c, size_t ld) {
    const cop_model *model = pass->model;
    const int layers = cop_model_layer_count(model);
    float *buffer = carve(c, output_size(model, 0) * ld, sizeof *buffer);
    if (c->base) pass->outputs[0] = buffer;
    for (int i = 0, first = -1; i < layers; i++) {
        if (!may_overwrite(model, first, i)) {
            buffer = carve(c, output_size(model, i + 1) * ld, sizeof *buffer);
            first = i;
        }
        if (c->base) pass->outputs[i + 1] = buffer;
    }
    size_t largest = 0;
    for (int i = pass->lowest; i < layers; i++)
        if (output_size(model, i + 1) > largest) largest = output_size(model, i + 1);
    pass->gradient[0] = carve(c, largest * ld, sizeof *buffer);
    pass->gradient[1] = carve(c, largest * ld, sizeof *buffer);
}

static void plan_inference(cop_pass *pass, carver *c, size_t ld) {
    const cop_model *model = pass->model;
    const int layers = cop_model_layer_count(model);
    size_t largest[2] = {output_size(model, 0), 0};
    for (int i = 0, turn = 0; i < layers; i++) {
        if (!cop_model_layer(model, i)->ops->in_place) turn = !turn;
        if (output_size(model, i + 1) > largest[turn]) largest[turn] = output_size(model, i + 1);
    }
    float *buffers[2];
    buffers[0] = carve(c, largest[0] * ld, sizeof(float));
    buffers[1] = carve(c, largest[1] * ld, sizeof(float));
    if (!c->base) return;
    pass->outputs[0] = buffers[0];
    for (int i = 0, turn = 0; i < layers; i++) {
        if (!cop_model_layer(model, i)->ops->in_place) turn = !turn;
        pass->outputs[i + 1] = buffers[turn];
    }
}

static size_t mask_words(const cop_model *model, int ld) {
    int64_t words = 0;
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer *layer = cop_model_layer(model, i);
        if (!layer->ops->mask_words) continue;
        const int64_t end =
            layer->mask_offset * (ld / COP_COLUMNS_PAD) + layer->ops->mask_words(layer, ld);
        COP_ASSERT(end >= words);
        words = end;
    }
    return (size_t)words;
}

static size_t scratch_bytes(const cop_model *model, int ld) {
    size_t most = 0;
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer *layer = cop_model_layer(model, i);
        const size_t bytes = layer->ops->scratch ? layer->ops->scratch(layer, ld) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Gives every array its place in the block at c->base, or measures the block if that is NULL. */
static void plan(cop_pass *pass, carver *c) {
    const cop_model *model = pass->model;
    const size_t ld = (size_t)columns_padded(pass->max_columns);
    pass->lowest = 0;
    while (!cop_model_layer(model, pass->lowest)->ops->parameters) pass->lowest++;
    pass->outputs = carve(c, (size_t)cop_model_layer_count(model) + 1, sizeof *pass->outputs);
    pass->workspace = carve(c, COP_GEMM_WORKSPACE, 1);
    pass->scratch = carve(c, scratch_bytes(model, (int)ld), 1);
    pass->keys = carve(c, ld, sizeof *pass->keys);
    pass->noise_keys = carve(c, ld, sizeof *pass->noise_keys);
    pass->samples = carve(c, ld, sizeof *pass->samples);
    pass->no_samples = carve(c, ld, sizeof *pass->no_samples);
    pass->labels = carve(c, ld, sizeof *pass->labels);
    pass->argmax = carve(c, ld, sizeof *pass->argmax);
    pass->losses = carve(c, ld, sizeof *pass->losses);
    if (!cop_model_has_classes(model))
        pass->target = carve(c, (size_t)cop_model_features(model) * ld, sizeof *pass->target);
    if (pass->purpose != COP_PASS_EVAL)
        pass->masks = carve(c, mask_words(model, (int)ld), sizeof *pass->masks);
    if (pass->purpose != COP_PASS_TRAIN) {
        plan_inference(pass, c, ld);
        return;
    }
    plan_training(pass, c, ld);
    if (cop_input_augments(cop_model_input(model))) {
        pass->augment_keys = carve(c, ld, sizeof *pass->augment_keys);
        pass->augmented = carve(c, (size_t)cop_model_features(model) * ld, sizeof(float));
    }
    pass->segments = carve(c, COP_SHARDS_MAX + 1, sizeof *pass->segments);
    pass->shard_losses = carve(c, COP_SHARDS_MAX, sizeof *pass->shard_losses);
    pass->present = carve(c, COP_SHARDS_MAX, sizeof *pass->present);
    pass->ops = carve(c, (size_t)2 * COP_SHARDS_MAX, sizeof *pass->ops);
}

size_t cop_pass_bytes(const cop_model *model, int max_columns, cop_pass_purpose purpose) {
    cop_pass pass = {.model = model, .max_columns = max_columns, .purpose = purpose};
    carver c = {0};
    plan(&pass, &c);
    return c.used + sizeof pass;
}

cop_err cop_pass_create(const cop_model *model, const cop_kernels *kernels, cop_numerics numerics,
                        int max_columns, cop_pass_purpose purpose, cop_pass **out,
                        cop_error *error) {
    COP_ASSERT(max_columns >= 1 && max_columns <= COP_BATCH_MAX);
    *out = NULL;
    cop_pass *pass = cop_alloc(sizeof *pass);
    if (!pass) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory to run a model");
    *pass = (cop_pass){
        .model = model,
        .kernels = kernels,
        .numerics = numerics,
        .gemm = cop_gemm_for(numerics),
        .max_columns = max_columns,
        .purpose = purpose,
    };
    carver c = {0};
    plan(pass, &c);
    /* Zeroed: padding columns must hold finite values from the start. */
    pass->memory = c.base = cop_alloc(c.used);
    if (!pass->memory) {
        cop_free(pass);
        return cop_fail(error, COP_ERR_NO_MEMORY,
                        "no memory to run the model on %d samples at once: %zu MB are needed",
                        max_columns, (c.used >> 20) + 1);
    }
    const size_t measured = c.used;
    c.used = 0;
    plan(pass, &c);
    COP_ASSERT(c.used == measured);
    *out = pass;
    return COP_OK;
}

void cop_pass_destroy(cop_pass *pass) {
    if (!pass) return;
    cop_free(pass->memory);
    cop_free(pass);
}

/* Copies the labels: kernels may read whole vectors of them. */
static void take_labels(cop_pass *pass, const cop_samples *samples, int ld) {
    const int outputs = cop_model_outputs(pass->model);
    const int count = cop_model_has_classes(pass->model) ? samples->count : 0;
    for (int i = 0; i < count; i++) {
        COP_ASSERT(samples->labels[i] >= 0 && samples->labels[i] < outputs);
        pass->labels[i] = samples->labels[i];
    }
    for (int i = count; i < ld; i++) pass->labels[i] = 0;
}

/* Key and sample word of every column, and the shards' boundaries among the columns. */
static void take_shards(cop_pass *pass, const cop_shard_work *work, int columns, int ld) {
    COP_ASSERT(work->shard_count >= 1 && work->shard_count <= COP_SHARDS_MAX);
    int column = 0;
    for (int s = 0; s < work->shard_count; s++) {
        const int size = work->shard_sizes[s];
        COP_ASSERT(size >= 0 && size <= columns - column);
        const uint32_t shard = (uint32_t)(work->shard_first + s);
        const cop_rng_key key = cop_rng_derive(work->seed, COP_RNG_MASK, shard);
        const cop_rng_key noise_key = cop_rng_derive(work->seed, COP_RNG_NOISE, shard);
        const cop_rng_key augment_key = cop_rng_derive(work->seed, COP_RNG_AUGMENT, shard);
        pass->segments[s] = column;
        pass->present[s] = size > 0;
        for (int i = 0; i < size; i++, column++) {
            pass->keys[column] = key;
            pass->noise_keys[column] = noise_key;
            if (pass->augment_keys) pass->augment_keys[column] = augment_key;
            pass->samples[column] = (uint32_t)i;
        }
    }
    COP_ASSERT(column == columns);
    pass->segments[work->shard_count] = column;
    memset(pass->keys + column, 0, (size_t)(ld - column) * sizeof *pass->keys);
    memset(pass->noise_keys + column, 0, (size_t)(ld - column) * sizeof *pass->noise_keys);
    memset(pass->samples + column, 0, (size_t)(ld - column) * sizeof *pass->samples);
}

/* The same for an evaluation: one key for all, samples by their absolute numbers. */
static void take_place(cop_pass *pass, const cop_eval_place *place, cop_rng_purpose purpose,
                       int ld) {
    const cop_rng_key key = cop_rng_derive(place->seed, purpose, 0);
    for (int i = 0; i < ld; i++) {
        pass->keys[i] = pass->noise_keys[i] = key;
        pass->samples[i] = place->first_sample + (uint32_t)i;
    }
}

static cop_layer_context context_of(cop_pass *pass, const float *weights, int columns) {
    return (cop_layer_context){
        .kernels = pass->kernels,
        .gemm = pass->gemm,
        .workspace = pass->workspace,
        .scratch = pass->scratch,
        .mode = COP_MODE_EVAL,
        .mask_keys = pass->keys,
        .noise_keys = pass->noise_keys,
        .samples = pass->samples,
        .no_samples = pass->no_samples,
        .columns = columns,
        .ld = columns_padded(columns),
        .weights = weights,
        .parameters = cop_model_parameter(pass->model, 0),
    };
}

/* The samples of a training step, each changed by its own draws; the originals where the job asks
 * for no augmentation. */
static cop_samples augment(cop_pass *pass, const cop_samples *samples, uint32_t step) {
    if (!pass->augmented) return *samples;
    const size_t element = samples->dtype == COP_DTYPE_U8 ? 1 : sizeof(float);
    cop_samples changed = *samples;
    changed.rows = pass->augmented;
    changed.stride = (size_t)samples->features * element;
    for (int i = 0; i < samples->count; i++)
        cop_input_augment(cop_model_input(pass->model), pass->augment_keys[i], pass->samples[i],
                          step, element, (const char *)samples->rows + (size_t)i * samples->stride,
                          (char *)pass->augmented + (size_t)i * changed.stride);
    return changed;
}

/* Loads the samples and runs all layers; the logits are in outputs[layers]. */
static void run_forward(cop_pass *pass, const cop_layer_context *c, const cop_samples *samples) {
    float *input = pass->outputs[0];
    if (samples->dtype == COP_DTYPE_U8)
        pass->kernels->load_u8(samples->rows, samples->stride, samples->count, samples->features,
                               input, c->ld);
    else
        pass->kernels->load_f32(samples->rows, samples->stride, samples->count, samples->features,
                                input, c->ld);
    cop_input_normalize(cop_model_input(pass->model), samples->dtype == COP_DTYPE_U8, input, c->ld);
    if (pass->target)
        memcpy(pass->target, input,
               (size_t)cop_model_features(pass->model) * (size_t)c->ld * sizeof *input);
    if (pass->tap.after) pass->tap.after(pass->tap.context, NULL, c, input);
    bool absorbed = false;
    for (int i = 0; i < cop_model_layer_count(pass->model); i++) {
        const cop_layer *layer = cop_model_layer(pass->model, i);
        const float *x = pass->outputs[i];
        float *y = pass->outputs[i + 1];
        if (!absorbed)
            layer->ops->forward(layer, c, x, y);
        else if (x != y)
            memcpy(y, x, (size_t)cop_shape_size(&layer->out) * (size_t)c->ld * sizeof *y);
        if (pass->tap.after) pass->tap.after(pass->tap.context, layer, c, y);
        absorbed = c->mode == COP_MODE_EVAL && !absorbed && layer->ops->absorbs_next &&
                   layer->ops->absorbs_next(layer);
    }
}

/* Losses and argmax of every column; dz (or NULL) gets the gradient of the outputs. */
static void run_loss(cop_pass *pass, const cop_layer_context *c, float *dz) {
    const cop_model *model = pass->model;
    const float *z = pass->outputs[cop_model_layer_count(model)];
    const int outputs = cop_model_outputs(model);
    if (cop_model_loss(model) == COP_LOSS_CROSS_ENTROPY) {
        pass->kernels->softmax_cross_entropy(z, outputs, c->columns, c->ld, pass->labels,
                                             (float)cop_model_smoothing(model), dz, pass->losses,
                                             pass->argmax);
        return;
    }
    const cop_mean_loss loss = {
        .bce = cop_model_loss(model) == COP_LOSS_BCE,
        .outputs = outputs,
        .columns = c->columns,
        .ld = c->ld,
        .z = z,
        .labels = pass->target ? NULL : pass->labels,
        .target = pass->target,
        .dz = dz,
        .loss = pass->losses,
        .argmax = pass->target ? NULL : pass->argmax,
    };
    pass->kernels->mean_loss(&loss);
}

/* From the logits' gradient in gradient[0] down to the lowest layer with weights. */
static void run_backward(cop_pass *pass, const cop_layer_context *c) {
    int turn = 0;
    for (int i = cop_model_layer_count(pass->model) - 1; i >= pass->lowest; i--) {
        const cop_layer *layer = cop_model_layer(pass->model, i);
        const int next = layer->ops->in_place ? turn : !turn;
        float *dx = i == pass->lowest ? NULL : pass->gradient[next];
        layer->ops->backward(layer, c, pass->outputs[i], pass->outputs[i + 1], pass->gradient[turn],
                             dx);
        turn = next;
    }
}

static void zero_gaps(const cop_model *model, float *gradients) {
    const int count = cop_model_parameter_count(model);
    for (int i = 0; i < count; i++) {
        const cop_parameter *p = cop_model_parameter(model, i);
        const int64_t end = p->offset + p->count;
        const int64_t next =
            i + 1 < count ? cop_model_parameter(model, i + 1)->offset : cop_model_floats(model);
        memset(gradients + end, 0, (size_t)(next - end) * sizeof *gradients);
    }
}

static int64_t count_correct(const cop_pass *pass, int columns) {
    int64_t correct = 0;
    if (pass->target) return 0;
    for (int i = 0; i < columns; i++) correct += pass->argmax[i] == pass->labels[i];
    return correct;
}

/* D7: in order within a shard, then the tree over the shards that are there. */
static double sum_losses(cop_pass *pass, int shard_count) {
    for (int s = 0; s < shard_count; s++)
        pass->shard_losses[s] = cop_loss_sum(pass->losses + pass->segments[s],
                                             pass->segments[s + 1] - pass->segments[s]);
    const cop_tree tree = {
        .count = shard_count,
        .op_count = cop_tree_build(shard_count, pass->present, pass->ops),
        .ops = pass->ops,
    };
    return cop_loss_combine(&tree, pass->shard_losses);
}

void cop_pass_train(cop_pass *pass, const float *weights, const cop_shard_work *work,
                    const cop_samples *samples, float *gradients, cop_pass_result *result) {
    const cop_model *model = pass->model;
    COP_ASSERT(pass->purpose == COP_PASS_TRAIN);
    COP_ASSERT(samples->count >= 0 && samples->count <= pass->max_columns);
    COP_ASSERT(samples->features == cop_model_features(model));
    *result = (cop_pass_result){.samples = samples->count};
    if (samples->count == 0) {
        memset(gradients, 0, (size_t)cop_model_floats(model) * sizeof *gradients);
        return;
    }
    cop_layer_context c = context_of(pass, weights, samples->count);
    take_labels(pass, samples, c.ld);
    take_shards(pass, work, c.columns, c.ld);
    c.mode = COP_MODE_TRAIN;
    c.segments = pass->segments;
    c.segment_count = work->shard_count;
    c.step = work->step;
    c.masks = pass->masks;
    c.gradients = gradients;
    const cop_samples seen = augment(pass, samples, work->step);
    run_forward(pass, &c, &seen);
    run_loss(pass, &c, pass->gradient[0]);
    result->loss = sum_losses(pass, work->shard_count);
    result->correct = count_correct(pass, c.columns);
    zero_gaps(model, gradients);
    run_backward(pass, &c);
}

static const float *run_inference(cop_pass *pass, const cop_layer_context *c,
                                  const cop_samples *samples, int *ld) {
    COP_ASSERT(samples->count >= 1 && samples->count <= pass->max_columns);
    COP_ASSERT(samples->features == cop_model_features(pass->model));
    run_forward(pass, c, samples);
    *ld = c->ld;
    return pass->outputs[cop_model_layer_count(pass->model)];
}

const float *cop_pass_logits(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             const cop_samples *samples, int *ld) {
    const cop_layer_context c = context_of(pass, weights, samples->count);
    take_place(pass, place, COP_RNG_DRAWS, c.ld);
    return run_inference(pass, &c, samples, ld);
}

void cop_pass_member_begin(cop_pass *pass, const float *weights, uint64_t seed, uint32_t member) {
    COP_ASSERT(pass->purpose == COP_PASS_MEMBERS);
    pass->member = (pass_member){.weights = weights, .seed = seed, .number = member};
}

const float *cop_pass_member_logits(cop_pass *pass, uint32_t first_sample,
                                    const cop_samples *samples, int *ld) {
    const pass_member *member = &pass->member;
    COP_ASSERT(member->weights);
    cop_layer_context c = context_of(pass, member->weights, samples->count);
    c.mode = COP_MODE_MC;
    c.sparse = pass->numerics == COP_NUMERICS_PORTABLE;
    c.step = member->number;
    c.masks = pass->masks;
    const cop_eval_place place = {.seed = member->seed, .first_sample = first_sample};
    take_place(pass, &place, COP_RNG_ENSEMBLE, c.ld);
    return run_inference(pass, &c, samples, ld);
}

const float *cop_pass_member(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             uint32_t member, const cop_samples *samples, int *ld) {
    cop_pass_member_begin(pass, weights, place->seed, member);
    return cop_pass_member_logits(pass, place->first_sample, samples, ld);
}

void cop_pass_set_tap(cop_pass *pass, cop_pass_tap tap) {
    pass->tap = tap;
}

void cop_pass_eval(cop_pass *pass, const float *weights, const cop_eval_place *place,
                   const cop_samples *samples, cop_pass_result *result) {
    *result = (cop_pass_result){.samples = samples->count};
    if (samples->count == 0) return;
    int ld;
    cop_pass_logits(pass, weights, place, samples, &ld);
    const cop_layer_context c = context_of(pass, weights, samples->count);
    take_labels(pass, samples, ld);
    run_loss(pass, &c, NULL);
    result->loss = cop_loss_sum(pass->losses, samples->count);
    result->correct = count_correct(pass, samples->count);
}
