/* Plans the memory of a pass and allocates it as one block.
 *
 * In a pass for training, the first buffer holds the input, and each layer writes its output to a
 * buffer of its own. But an in_place layer overwrites its input, if no backward function needs the
 * old content (may_overwrite). In a pass that never trains, only two buffers hold activations: an
 * in_place layer overwrites its input, and every other layer writes to the other buffer.
 *
 * Backward alternates in the same way between two gradient buffers. It ends at the first layer with
 * weights, because no gradient of an earlier layer is used. */
#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/nn/arena.h"
#include "common/nn/pass.h"

/* The number of values per sample in outputs[index]. */
static size_t output_size(const cop_model *model, int index) {
    if (index == 0) return (size_t)cop_model_features(model);
    return (size_t)cop_shape_size(&cop_model_layer(model, index - 1)->out);
}

/* True if layer `index` may overwrite its input, because no backward function needs what would be
 * lost. The input is in a buffer that layer `first` filled and that all layers between the two have
 * overwritten. If `first` is -1, it is the buffer with the network's input. */
static bool may_overwrite(const cop_model *model, int first, int index) {
    const cop_layer_ops *ops = cop_model_layer(model, index)->ops;
    COP_ASSERT(first < index);
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

static void plan_training(cop_pass *pass, cop_arena_layout *c, size_t ld) {
    const cop_model *model = pass->model;
    const int layers = cop_model_layer_count(model);
    float *buffer = cop_arena_place(c, output_size(model, 0) * ld, sizeof *buffer);
    if (c->base) pass->outputs[0] = buffer;
    for (int i = 0, first = -1; i < layers; i++) {
        if (!may_overwrite(model, first, i)) {
            buffer = cop_arena_place(c, output_size(model, i + 1) * ld, sizeof *buffer);
            first = i;
        }
        if (c->base) pass->outputs[i + 1] = buffer;
    }
    size_t largest = 0;
    for (int i = pass->lowest; i < layers; i++)
        if (output_size(model, i + 1) > largest) largest = output_size(model, i + 1);
    pass->gradient[0] = cop_arena_place(c, largest * ld, sizeof *buffer);
    pass->gradient[1] = cop_arena_place(c, largest * ld, sizeof *buffer);
}

static void plan_inference(cop_pass *pass, cop_arena_layout *c, size_t ld) {
    const cop_model *model = pass->model;
    const int layers = cop_model_layer_count(model);
    size_t largest[2] = {output_size(model, 0), 0};
    for (int i = 0, which = 0; i < layers; i++) {
        if (!cop_model_layer(model, i)->ops->in_place) which = !which;
        if (output_size(model, i + 1) > largest[which]) largest[which] = output_size(model, i + 1);
    }
    float *buffers[2];
    buffers[0] = cop_arena_place(c, largest[0] * ld, sizeof(float));
    buffers[1] = cop_arena_place(c, largest[1] * ld, sizeof(float));
    if (!c->base) return;
    pass->outputs[0] = buffers[0];
    for (int i = 0, which = 0; i < layers; i++) {
        if (!cop_model_layer(model, i)->ops->in_place) which = !which;
        pass->outputs[i + 1] = buffers[which];
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
    size_t largest = 0;
    for (int i = 0; i < cop_model_layer_count(model); i++) {
        const cop_layer *layer = cop_model_layer(model, i);
        const size_t bytes = layer->ops->scratch ? layer->ops->scratch(layer, ld) : 0;
        if (bytes > largest) largest = bytes;
    }
    return largest;
}

/* Assigns every array its place in the block at c->base. If that is NULL, only measures the
 * block. */
static void plan(cop_pass *pass, cop_arena_layout *c) {
    const cop_model *model = pass->model;
    const size_t ld = (size_t)cop_columns_padded(pass->max_columns);
    pass->lowest = 0;
    while (!cop_model_layer(model, pass->lowest)->ops->parameters) pass->lowest++;
    COP_ASSERT(cop_model_layer(model, pass->lowest)->parameter_count >= 1);
    pass->outputs =
        cop_arena_place(c, (size_t)cop_model_layer_count(model) + 1, sizeof *pass->outputs);
    pass->workspace = cop_arena_place(c, COP_GEMM_WORKSPACE, 1);
    pass->scratch = cop_arena_place(c, scratch_bytes(model, (int)ld), 1);
    pass->keys = cop_arena_place(c, ld, sizeof *pass->keys);
    pass->noise_keys = cop_arena_place(c, ld, sizeof *pass->noise_keys);
    pass->samples = cop_arena_place(c, ld, sizeof *pass->samples);
    pass->no_samples = cop_arena_place(c, ld, sizeof *pass->no_samples);
    pass->labels = cop_arena_place(c, ld, sizeof *pass->labels);
    pass->argmax = cop_arena_place(c, ld, sizeof *pass->argmax);
    pass->losses = cop_arena_place(c, ld, sizeof *pass->losses);
    if (!cop_model_has_classes(model))
        pass->target =
            cop_arena_place(c, (size_t)cop_model_features(model) * ld, sizeof *pass->target);
    if (cop_model_has_one_logit(model)) pass->truth = cop_arena_place(c, ld, sizeof *pass->truth);
    if (pass->purpose != COP_PASS_EVAL)
        pass->masks = cop_arena_place(c, mask_words(model, (int)ld), sizeof *pass->masks);
    if (pass->purpose != COP_PASS_TRAIN) {
        plan_inference(pass, c, ld);
        return;
    }
    plan_training(pass, c, ld);
    if (cop_input_augments(cop_model_input(model))) {
        pass->augment_keys = cop_arena_place(c, ld, sizeof *pass->augment_keys);
        pass->augmented = cop_arena_place(c, (size_t)cop_model_features(model) * ld, sizeof(float));
    }
    pass->segments = cop_arena_place(c, COP_SHARDS_MAX + 1, sizeof *pass->segments);
    pass->shard_losses = cop_arena_place(c, COP_SHARDS_MAX, sizeof *pass->shard_losses);
    pass->present = cop_arena_place(c, COP_SHARDS_MAX, sizeof *pass->present);
    pass->ops = cop_arena_place(c, (size_t)2 * COP_SHARDS_MAX, sizeof *pass->ops);
}

size_t cop_pass_bytes(const cop_model *model, int max_columns, cop_pass_purpose purpose) {
    cop_pass pass = {.model = model, .max_columns = max_columns, .purpose = purpose};
    cop_arena_layout c = {0};
    plan(&pass, &c);
    const size_t thin = purpose == COP_PASS_MEMBERS ? cop_thin_bytes(model) : 0;
    return c.used + sizeof pass + thin;
}

cop_err cop_pass_create(const cop_model *model, const cop_kernels *kernels, cop_numerics numerics,
                        int max_columns, cop_pass_purpose purpose, cop_pass **out,
                        cop_error *error) {
    COP_ASSERT(max_columns >= 1 && max_columns <= COP_BATCH_MAX);
    *out = NULL;
    COP_TRY(cop_numerics_load(numerics, error));
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
    cop_arena_layout c = {0};
    plan(pass, &c);
    /* cop_alloc fills the block with zeros, so padding columns are finite from the start, as they
     * must be. */
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
    /* OpenBLAS does not cut sums into blocks at given terms, so a thinned network would compute
     * other bits than the masked one. */
    if (purpose == COP_PASS_MEMBERS && numerics == COP_NUMERICS_PORTABLE) {
        const cop_err e = cop_thin_create(model, kernels, &pass->thin, error);
        if (e) {
            cop_pass_destroy(pass);
            return e;
        }
    }
    *out = pass;
    return COP_OK;
}

void cop_pass_destroy(cop_pass *pass) {
    if (!pass) return;
    cop_thin_destroy(pass->thin);
    cop_free(pass->memory);
    cop_free(pass);
}
