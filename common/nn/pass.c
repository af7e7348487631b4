/* The pass: runs a model over the samples of a lease, in the memory that pass_plan.c laid out. The
 * values of a sample depend only on the sample, its shard and the step, so their bits do not depend
 * on how many columns run at once. */
#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/loss.h"
#include "common/nn/masks.h"
#include "common/nn/pass.h"

/* Copies the labels and pads them with 0 up to ld, because kernels read whole vectors of labels. */
static void take_labels(cop_pass *pass, const cop_samples *samples, int ld) {
    const int classes = cop_model_classes(pass->model);
    const int count = cop_model_has_classes(pass->model) ? samples->count : 0;
    for (int i = 0; i < count; i++) {
        COP_ASSERT(samples->labels[i] >= 0 && samples->labels[i] < classes);
        pass->labels[i] = samples->labels[i];
    }
    for (int i = count; i < ld; i++) pass->labels[i] = 0;
    for (int i = 0; pass->truth && i < ld; i++) pass->truth[i] = (float)pass->labels[i];
}

/* For training: sets the keys and the sample word of every column, and the boundaries of the
 * shards. */
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

/* For an evaluation: sets the keys and the sample word of every column. All columns have the same
 * key, and samples are numbered within the whole evaluated part. */
static void take_place(cop_pass *pass, const cop_eval_place *place, cop_rng_purpose purpose,
                       int ld) {
    const cop_rng_key key = cop_rng_derive(place->seed, purpose, 0);
    for (int i = 0; i < ld; i++) {
        pass->keys[i] = pass->noise_keys[i] = key;
        pass->samples[i] = place->first_sample + (uint32_t)i;
    }
}

static cop_layer_context context_of(cop_pass *pass, const float *weights, int columns) {
    COP_ASSERT(weights && columns >= 1 && columns <= pass->max_columns);
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
        .ld = cop_columns_padded(columns),
        .weights = weights,
        .parameters = cop_model_parameter(pass->model, 0),
    };
}

static cop_thinned all_of(const cop_pass *pass, const float *weights) {
    return (cop_thinned){.layers = cop_model_layer(pass->model, 0), .weights = weights};
}

/* Returns the augmented samples of a training step, which are valid until the next one. If the job
 * does not augment, returns the original samples. */
static cop_samples augment(cop_pass *pass, const cop_samples *samples, uint32_t step) {
    if (!pass->augmented) return *samples;
    const size_t element = samples->dtype == COP_DTYPE_U8 ? 1 : sizeof(float);
    COP_ASSERT(pass->augment_keys);
    cop_samples changed = *samples;
    changed.rows = pass->augmented;
    changed.stride = (size_t)samples->features * element;
    for (int i = 0; i < samples->count; i++) {
        const cop_augment_draw draw = {pass->augment_keys[i], pass->samples[i], step};
        cop_input_augment(cop_model_input(pass->model), &draw, element,
                          (const char *)samples->rows + (size_t)i * samples->stride,
                          (char *)pass->augmented + (size_t)i * changed.stride);
    }
    return changed;
}

/* Counts the zeros in a tensor of `shape` for the profile. */
static void note_zeros(const cop_layer_context *c, cop_zeros *zeros, const cop_shape *shape,
                       const float *values) {
    const int size[3] = {(int)cop_shape_size(shape), c->columns, c->ld};
    cop_lane_enter(c->lane, COP_PHASE_IDLE, COP_NO_LAYER);
    cop_lane_count_zeros(zeros, values, size);
}

/* Marks the start of a layer's forward in the profile. */
static void profile_forward(const cop_layer *layer, const cop_layer_context *c, const float *x) {
    const bool product = layer->ops->parameters != NULL;
    if (product && cop_lane_counts_zeros(c->lane))
        note_zeros(c, &c->lane->inputs[layer->index], &layer->in, x);
    cop_layer_phase(layer, c, layer->ops->drops && !product ? COP_PHASE_MASK : COP_PHASE_FORWARD);
}

/* Marks the start of a layer's backward in the profile. */
static void profile_backward(const cop_layer *layer, const cop_layer_context *c, const float *dy) {
    const bool product = layer->ops->parameters != NULL;
    if (product && cop_lane_counts_zeros(c->lane))
        note_zeros(c, &c->lane->gradients[layer->index], &layer->out, dy);
    cop_layer_phase(layer, c, product ? COP_PHASE_WEIGHTS : COP_PHASE_BACKWARD);
}

/* Loads the samples and runs `layers`, which are those of the model or of a thinned network. The
 * last layer's output is then in outputs[number of layers]. */
static void run_forward(cop_pass *pass, const cop_layer *layers, const cop_layer_context *c,
                        const cop_samples *samples) {
    float *input = pass->outputs[0];
    COP_ASSERT(samples->count == c->columns);
    const cop_sample_rows rows = {samples->rows, samples->stride, samples->count,
                                  samples->features};
    if (samples->dtype == COP_DTYPE_U8)
        pass->kernels->load_u8(&rows, input, c->ld);
    else
        pass->kernels->load_f32(&rows, input, c->ld);
    cop_input_normalize(cop_model_input(pass->model), samples->dtype == COP_DTYPE_U8, input, c->ld);
    if (pass->target)
        memcpy(pass->target, input,
               (size_t)cop_model_features(pass->model) * (size_t)c->ld * sizeof *input);
    if (pass->tap.after) pass->tap.after(pass->tap.context, NULL, c, input);
    bool absorbed = false;
    for (int i = 0; i < cop_model_layer_count(pass->model); i++) {
        const cop_layer *layer = &layers[i];
        const float *x = pass->outputs[i];
        float *y = pass->outputs[i + 1];
        if (c->lane) profile_forward(layer, c, x);
        if (!absorbed)
            layer->ops->forward(layer, c, x, y);
        else if (x != y)
            memcpy(y, x, (size_t)cop_shape_size(&layer->out) * (size_t)c->ld * sizeof *y);
        if (pass->tap.after) pass->tap.after(pass->tap.context, layer, c, y);
        absorbed = c->mode == COP_MODE_EVAL && !absorbed && layer->ops->absorbs_next &&
                   layer->ops->absorbs_next(layer);
    }
}

/* Computes the loss of every column and, if the model has classes, the predicted class. Writes the
 * gradient of the loss with respect to the outputs to dz. If dz is NULL, computes no gradient. */
static void run_loss(cop_pass *pass, const cop_layer_context *c, float *dz) {
    const cop_model *model = pass->model;
    const float *z = pass->outputs[cop_model_layer_count(model)];
    const int outputs = cop_model_outputs(model);
    if (cop_model_loss(model) == COP_LOSS_CROSS_ENTROPY) {
        const cop_cross_entropy loss = {
            .classes = outputs,
            .columns = c->columns,
            .ld = c->ld,
            .smoothing = (float)cop_model_smoothing(model),
            .z = z,
            .labels = pass->labels,
            .dz = dz,
            .loss = pass->losses,
            .argmax = pass->argmax,
        };
        pass->kernels->softmax_cross_entropy(&loss);
        return;
    }
    /* The outputs are compared with the values in `target`. Otherwise they are compared with
     * vectors that are 1 for the label's class and 0 for all others. */
    const bool by_value = pass->target || pass->truth;
    const cop_mean_loss loss = {
        .bce = cop_model_loss(model) == COP_LOSS_BCE,
        .outputs = outputs,
        .columns = c->columns,
        .ld = c->ld,
        .z = z,
        .labels = by_value ? NULL : pass->labels,
        .target = pass->target ? pass->target : pass->truth,
        .dz = dz,
        .loss = pass->losses,
        .argmax = by_value ? NULL : pass->argmax,
    };
    pass->kernels->mean_loss(&loss);
    for (int i = 0; pass->truth && i < c->columns; i++) pass->argmax[i] = z[i] > 0;
}

/* The mask of scope `shard` that discards gradients of the input of layer `index`, if the layers in
 * between do not mix units. NULL: there is none. */
static const uint16_t *needed_gradients(const cop_pass *pass, const cop_layer_context *c,
                                        int index) {
    for (int i = index - 1; c->drawn && i >= 0; i--) {
        const cop_layer *layer = cop_model_layer(pass->model, i);
        if (layer->in.rank != 1) return NULL;
        if (cop_masks_are_shared(layer)) return cop_layer_masks(layer, c);
        if (layer->ops->thin != COP_THIN_EACH && layer->ops->thin != COP_THIN_EACH_ZERO)
            return NULL;
    }
    return NULL;
}

/* Runs backward from the last layer to the first layer with weights. gradient[0] contains the
 * gradient of the outputs. A layer reads one gradient buffer and writes the other; an in_place
 * layer writes the one that it reads. */
static void run_backward(cop_pass *pass, const cop_layer_context *c) {
    int current = 0;
    for (int i = cop_model_layer_count(pass->model) - 1; i >= pass->lowest; i--) {
        const cop_layer *layer = cop_model_layer(pass->model, i);
        const int next = layer->ops->in_place ? current : !current;
        float *dx = i == pass->lowest ? NULL : pass->gradient[next];
        const cop_layer_tensors tensors = {.x = pass->outputs[i],
                                           .y = pass->outputs[i + 1],
                                           .dy = pass->gradient[current],
                                           .dx = dx,
                                           .dx_needed = needed_gradients(pass, c, i)};
        if (c->lane) profile_backward(layer, c, tensors.dy);
        layer->ops->backward(layer, c, &tensors);
        current = next;
    }
}

static void zero_gaps(const cop_model *model, float *gradients) {
    const int count = cop_model_parameter_count(model);
    for (int i = 0; i < count; i++) {
        const cop_parameter *p = cop_model_parameter(model, i);
        const int64_t end = p->offset + p->count;
        const int64_t next =
            i + 1 < count ? cop_model_parameter(model, i + 1)->offset : cop_model_floats(model);
        COP_ASSERT(next >= end);
        memset(gradients + end, 0, (size_t)(next - end) * sizeof *gradients);
    }
}

static int64_t count_correct(const cop_pass *pass, int columns) {
    int64_t correct = 0;
    if (pass->target) return 0;
    for (int i = 0; i < columns; i++) correct += pass->argmax[i] == pass->labels[i];
    return correct;
}

/* Adds the losses (D7): in order within each shard, then by the tree over the shards that have
 * samples. */
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
    COP_ASSERT(pass->purpose == COP_PASS_TRAIN && work->step >= 1);
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
    c.sparse = pass->numerics == COP_NUMERICS_PORTABLE;
    c.segments = pass->segments;
    c.segment_count = work->shard_count;
    c.round_nodes = work->round_nodes;
    c.step = work->step;
    c.masks = pass->masks;
    c.gradients = gradients;
    c.lane = pass->lane;
    /* With an observer all outputs are computed, so that it sees them. */
    pass->drawn = -1;
    if (c.sparse && !pass->tap.after) c.drawn = &pass->drawn;
    cop_lane_enter(c.lane, COP_PHASE_INPUT, COP_NO_LAYER);
    const cop_samples seen = augment(pass, samples, work->step);
    run_forward(pass, cop_model_layer(model, 0), &c, &seen);
    cop_lane_enter(c.lane, COP_PHASE_LOSS, COP_NO_LAYER);
    run_loss(pass, &c, pass->gradient[0]);
    result->loss = sum_losses(pass, work->shard_count);
    result->correct = count_correct(pass, c.columns);
    zero_gaps(model, gradients);
    run_backward(pass, &c);
    cop_lane_enter(c.lane, COP_PHASE_IDLE, COP_NO_LAYER);
}

static const float *run_inference(cop_pass *pass, const cop_layer *layers,
                                  const cop_layer_context *c, const cop_samples *samples, int *ld) {
    COP_ASSERT(samples->features == cop_model_features(pass->model));
    run_forward(pass, layers, c, samples);
    *ld = c->ld;
    return pass->outputs[cop_model_layer_count(pass->model)];
}

const float *cop_pass_logits(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             const cop_samples *samples, int *ld) {
    const cop_layer_context c = context_of(pass, weights, samples->count);
    take_place(pass, place, COP_RNG_DRAWS, c.ld);
    return run_inference(pass, cop_model_layer(pass->model, 0), &c, samples, ld);
}

void cop_pass_member_begin(cop_pass *pass, const float *weights, uint64_t seed, uint32_t member) {
    COP_ASSERT(pass->purpose == COP_PASS_MEMBERS);
    const cop_rng_key key = cop_rng_derive(seed, COP_RNG_ENSEMBLE, 0);
    cop_thinned network;
    /* With an observer the whole model runs, so that the observer sees all units. */
    const bool thinned =
        pass->thin && !pass->tap.after && cop_thin_draw(pass->thin, weights, key, member, &network);
    if (!thinned) network = all_of(pass, weights);
    pass->member = (pass_member){.network = network, .seed = seed, .number = member};
}

const float *cop_pass_member_logits(cop_pass *pass, uint32_t first_sample,
                                    const cop_samples *samples, int *ld) {
    const pass_member *member = &pass->member;
    COP_ASSERT(member->network.weights);
    cop_layer_context c = context_of(pass, member->network.weights, samples->count);
    c.mode = COP_MODE_MC;
    c.sparse = pass->numerics == COP_NUMERICS_PORTABLE;
    c.step = member->number;
    c.masks = pass->masks;
    const cop_eval_place place = {.seed = member->seed, .first_sample = first_sample};
    take_place(pass, &place, COP_RNG_ENSEMBLE, c.ld);
    return run_inference(pass, member->network.layers, &c, samples, ld);
}

const float *cop_pass_member(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             uint32_t member, const cop_samples *samples, int *ld) {
    cop_pass_member_begin(pass, weights, place->seed, member);
    return cop_pass_member_logits(pass, place->first_sample, samples, ld);
}

void cop_pass_set_lane(cop_pass *pass, cop_lane *lane) {
    pass->lane = lane;
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
