/* Helpers for tests of layers, models and passes: layer specs in one line, data from Philox, a
 * single layer, a model with its buffers, and training on any range of a batch's shards. */
#ifndef TESTS_UNIT_NN_MODEL_FIXTURE_H
#define TESTS_UNIT_NN_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/nn/optim.h"

static inline cop_layer_spec spec_linear(int units) {
    return (cop_layer_spec){.kind = "linear", .units = units, .bias = true, .init = COP_INIT_HE};
}

static inline cop_layer_spec spec_relu(void) {
    return (cop_layer_spec){.kind = "relu"};
}

static inline cop_layer_spec spec_flatten(void) {
    return (cop_layer_spec){.kind = "flatten"};
}

static inline cop_layer_spec spec_dropout(double p, cop_scope scope, cop_variant variant) {
    return (cop_layer_spec){.kind = "dropout", .p = p, .scope = scope, .variant = variant};
}

/* Number `index` of a stream of random numbers, which are uniform in [-1, 1). */
static inline float random_value(uint32_t stream, uint32_t index) {
    const uint32_t counter[4] = {index, stream, 0, 0};
    const cop_rng_key key = {{1234, 5678}};
    uint32_t words[4];
    cop_philox(counter, key, words);
    return (float)(words[0] >> 8) * 0x1p-23f - 1.0f;
}

static inline void fill_random(float *out, size_t count, uint32_t stream) {
    for (size_t i = 0; i < count; i++) out[i] = random_value(stream, (uint32_t)i);
}

static inline const cop_kernels *best_kernels(void) {
    const cop_kernels *kernels = NULL;
    cop_error error = {0};
    if (cop_kernels_choose(&kernels, &error) != COP_OK) fail_msg("%s", error.text);
    return kernels;
}

/* A single layer without a model. Its parameters are initialised from seed 1, and its context is
 * for training on some samples ("columns") in two shards. */
typedef struct one_layer {
    cop_layer layer;
    cop_parameter parameters[4];
    cop_layer_context context;
    int64_t floats;
    float *flat, *gradients;
    int segments[3];
    cop_rng_key keys[64];
    uint32_t samples[64], no_samples[64];
} one_layer;

static inline cop_err one_layer_bind(one_layer *one, const cop_layer_spec *spec, cop_shape in,
                                     int index, cop_error *error) {
    *one = (one_layer){0};
    one->layer =
        (cop_layer){.ops = cop_layer_find(spec->kind), .spec = *spec, .index = index, .in = in};
    assert_non_null(one->layer.ops);
    return one->layer.ops->shape(&one->layer, error);
}

static inline void one_layer_open(one_layer *one, const cop_kernels *kernels, int columns) {
    const cop_layer_ops *ops = one->layer.ops;
    int count = ops->parameters ? ops->parameters(&one->layer, one->parameters) : 0;
    one->layer.parameter_count = count;
    for (int i = 0; i < count; i++) {
        one->parameters[i].count = (int64_t)one->parameters[i].rows * one->parameters[i].cols;
        one->parameters[i].offset = one->floats;
        one->floats += (one->parameters[i].count + 15) / 16 * 16;
    }
    one->flat = cop_alloc((size_t)(one->floats + 16) * sizeof(float));
    one->gradients = cop_alloc((size_t)(one->floats + 16) * sizeof(float));
    if (ops->init) ops->init(&one->layer, 1, one->parameters, one->flat);
    const int ld = (columns + 15) / 16 * 16;
    assert_true(ld <= 64);
    one->segments[1] = columns / 2;
    one->segments[2] = columns;
    for (int i = 0; i < columns; i++) {
        const int shard = i >= columns / 2;
        one->keys[i] = cop_rng_derive(1, COP_RNG_MASK, (uint32_t)shard);
        one->samples[i] = (uint32_t)(i - shard * (columns / 2));
    }
    one->context = (cop_layer_context){
        .kernels = kernels,
        .gemm = cop_gemm_for(COP_NUMERICS_PORTABLE),
        .workspace = cop_alloc(COP_GEMM_WORKSPACE),
        .mode = COP_MODE_TRAIN,
        .columns = columns,
        .ld = ld,
        .segments = one->segments,
        .segment_count = 2,
        .mask_keys = one->keys,
        .noise_keys = one->keys,
        .samples = one->samples,
        .no_samples = one->no_samples,
        .step = 7,
        .weights = one->flat,
        .gradients = one->gradients,
        .parameters = one->parameters,
        .scratch = ops->scratch ? cop_alloc(ops->scratch(&one->layer, ld) + 64) : NULL,
        .masks = ops->mask_words
                     ? cop_alloc((size_t)ops->mask_words(&one->layer, ld) * sizeof(uint16_t) + 64)
                     : NULL,
    };
}

static inline void one_layer_close(one_layer *one) {
    cop_free(one->context.workspace);
    cop_free(one->context.masks);
    cop_free(one->context.scratch);
    cop_free(one->flat);
    cop_free(one->gradients);
}

static inline float *one_layer_tensor(const one_layer *one, const cop_shape *shape) {
    return cop_alloc((size_t)cop_shape_size(shape) * (size_t)one->context.ld * sizeof(float));
}

/* A model with weights, gradients, a training pass, and random samples. */
typedef struct rig {
    cop_model *model;
    cop_pass *pass;
    float *weights, *gradients;
    float *rows;
    int32_t *labels;
    cop_samples samples;
    const cop_kernels *kernels;
} rig;

static inline cop_model *model_of(const cop_layer_spec *layers, int count, int features,
                                  int classes) {
    const cop_model_spec spec = {
        .layers = layers,
        .layer_count = count,
        .input = {.rank = 1, .dims = {features}},
        .classes = classes,
        .loss = COP_LOSS_CROSS_ENTROPY,
    };
    cop_model *model = NULL;
    cop_error error = {0};
    if (cop_model_create(&spec, &model, &error) != COP_OK) fail_msg("%s", error.text);
    return model;
}

static inline rig rig_open(cop_model *model, const cop_kernels *kernels, int count, uint64_t seed) {
    const size_t features = (size_t)cop_model_features(model);
    rig r = {.model = model, .kernels = kernels};
    r.weights = cop_alloc((size_t)cop_model_floats(model) * sizeof(float));
    r.gradients = cop_alloc((size_t)cop_model_floats(model) * sizeof(float));
    r.rows = cop_alloc((size_t)count * features * sizeof(float));
    r.labels = cop_alloc((size_t)count * sizeof(int32_t));
    fill_random(r.rows, (size_t)count * features, 99);
    for (int i = 0; i < count; i++) r.labels[i] = (i * 7 + i / 3) % cop_model_outputs(model);
    r.samples = (cop_samples){
        .dtype = COP_DTYPE_F32,
        .count = count,
        .features = (int)features,
        .stride = features * sizeof(float),
        .rows = r.rows,
        .labels = r.labels,
    };
    cop_model_init(model, seed, r.weights);
    cop_error error = {0};
    if (cop_pass_create(model, kernels, COP_NUMERICS_PORTABLE, count, COP_PASS_TRAIN, &r.pass,
                        &error))
        fail_msg("%s", error.text);
    return r;
}

static inline void rig_close(rig *r) {
    cop_pass_destroy(r->pass);
    cop_free(r->weights);
    cop_free(r->gradients);
    cop_free(r->rows);
    cop_free(r->labels);
    cop_model_destroy(r->model);
}

/* Computes in `gradients` the gradient sum of shards `first` to `first + count - 1` of r's samples.
 * `sizes` contains the sizes of all shards, in samples. */
static inline cop_pass_result rig_train(rig *r, uint64_t seed, uint32_t step, const int32_t *sizes,
                                        int first, int count, float *gradients) {
    int skipped = 0, taken = 0;
    for (int s = 0; s < first; s++) skipped += sizes[s];
    for (int s = first; s < first + count; s++) taken += sizes[s];
    cop_samples part = r->samples;
    part.rows = (const char *)r->samples.rows + (size_t)skipped * r->samples.stride;
    part.labels = r->samples.labels + skipped;
    part.count = taken;
    const cop_shard_work work = {.seed = seed,
                                 .step = step,
                                 .shard_first = first,
                                 .shard_count = count,
                                 .shard_sizes = sizes + first};
    cop_pass_result result;
    cop_pass_train(r->pass, r->weights, &work, &part, gradients, &result);
    return result;
}

/* One update of r's weights from r's gradients. */
static inline void rig_update(rig *r, const cop_optimizer_spec *spec, uint64_t step, float *state) {
    static const int16_t ops[] = {0};
    const cop_tree tree = {.count = 1, .op_count = 1, .ops = ops};
    const float *const gradients[] = {r->gradients};
    const cop_update update = {
        .model = r->model,
        .kernels = r->kernels,
        .spec = spec,
        .step = step,
        .batch = r->samples.count,
        .gradients = gradients,
        .tree = &tree,
        .w_in = r->weights,
        .w_out = r->weights,
        .states = {state},
    };
    cop_update_run(&update, 0, 1);
}

#endif
