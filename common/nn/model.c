/* Models: binds a list of layers to an input shape and lays out their parameters in one flat
 * buffer. See model.h. pass.c runs a model. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/nn/loss.h"
#include "common/nn/model.h"

struct cop_model {
    int layer_count, parameter_count;
    int features, outputs;
    cop_loss_kind loss;
    double smoothing;
    bool target_input, one_logit;
    cop_input input;
    int64_t floats, weights;
    cop_layer *layers;         /* [layer_count] */
    cop_parameter *parameters; /* [parameter_count] */
};

enum { PARAMETERS_PER_LAYER = 4, FLOATS_ALIGN = 16, MASK_ALIGN = 32 };

static cop_err check_spec(const cop_model_spec *spec, cop_error *error) {
    if (spec->layer_count < 1)
        return cop_fail(error, COP_ERR_INPUT, "model has no layers, expected at least one linear");
    if (spec->layer_count > COP_LAYERS_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "model has %d layers: the limit is %d",
                        spec->layer_count, COP_LAYERS_MAX);
    if (spec->classes < 1 || spec->classes > COP_CLASSES_MAX)
        return cop_fail(error, COP_ERR_INPUT, "the data has %d classes, expected 1 to %d",
                        (int)spec->classes, COP_CLASSES_MAX);
    const cop_shape *input = &spec->input;
    int64_t size = 1;
    if (input->rank != 1 && input->rank != 3)
        return cop_fail(error, COP_ERR_INPUT, "samples have %d dimensions, expected 1 or 3",
                        (int)input->rank);
    for (int i = 0; i < input->rank; i++) {
        size *= input->dims[i];
        if (input->dims[i] < 1 || size > (int64_t)COP_UNITS_MAX) {
            char text[64];
            return cop_fail(error, COP_ERR_INPUT, "samples of %s values, expected 1 to %d in total",
                            cop_shape_format(input, text), (int)COP_UNITS_MAX);
        }
    }
    return cop_loss_check(spec->loss, spec->smoothing, spec->target_input, error);
}

static cop_err find_kind(const char *kind, const cop_layer_ops **out, cop_error *error) {
    *out = cop_layer_find(kind);
    if (*out) return COP_OK;
    const char *names[64];
    size_t count = 0;
    for (const cop_layer_ops *const *ops = cop_layer_registry(); *ops && count < 64; ops++)
        names[count++] = (*ops)->kind;
    const char *nearest = cop_nearest_name(kind, names, count);
    return cop_fail(error, COP_ERR_INPUT, "unknown layer%s%s%s", nearest ? ", did you mean " : "",
                    nearest ? nearest : "", nearest ? "?" : "");
}

/* Copies the specs of the layers and finds their functions. */
static cop_err bind_kinds(cop_model *model, const cop_model_spec *spec, cop_error *error) {
    for (int i = 0; i < model->layer_count; i++) {
        cop_layer *layer = &model->layers[i];
        layer->spec = spec->layers[i];
        layer->index = i;
        cop_err e = find_kind(layer->spec.kind, &layer->ops, error);
        if (e != COP_OK) {
            cop_error_prefix(error, "model[%d] %.32s", i, layer->spec.kind);
            return e;
        }
    }
    return COP_OK;
}

/* The input shape of the first layer. It is flat if the first layer with weights wants a flat input
 * and no layer before it wants an image. Otherwise it is the shape of the samples. */
static cop_shape first_input(const cop_model *model, const cop_shape *input) {
    for (int i = 0; i < model->layer_count; i++) {
        const cop_layer_ops *ops = model->layers[i].ops;
        if (ops->wants_image) break;
        if (!ops->parameters) continue;
        if (ops->wants_flat)
            return (cop_shape){.rank = 1, .dims = {(int32_t)cop_shape_size(input)}};
        break;
    }
    return *input;
}

static cop_err bind_shapes(cop_model *model, const cop_shape *input, cop_error *error) {
    cop_shape shape = first_input(model, input);
    model->features = (int)cop_shape_size(input);
    int64_t words = 0;
    for (int i = 0; i < model->layer_count; i++) {
        cop_layer *layer = &model->layers[i];
        layer->in = shape;
        layer->next = i + 1 < model->layer_count ? layer + 1 : NULL;
        cop_err e = layer->ops->shape(layer, error);
        if (e != COP_OK) {
            cop_error_prefix(error, "model[%d] %s", i, layer->ops->kind);
            return e;
        }
        shape = layer->out;
        COP_ASSERT(cop_shape_size(&shape) >= 1);
        layer->mask_offset = words;
        if (layer->ops->mask_words)
            words += (int64_t)cop_align_up((size_t)layer->ops->mask_words(layer, COP_COLUMNS_PAD),
                                           MASK_ALIGN);
    }
    model->outputs = (int)cop_shape_size(&shape);
    return COP_OK;
}

static int64_t tensor_size(const cop_parameter *p) {
    int64_t size = 1;
    for (int d = 0; d < p->rank; d++) size *= p->dims[d];
    return size;
}

/* Lists the parameters of all layers and assigns each its offset in the flat buffer. */
static cop_err lay_out_parameters(cop_model *model, cop_error *error) {
    for (int i = 0; i < model->layer_count; i++) {
        cop_layer *layer = &model->layers[i];
        cop_parameter *own = model->parameters + model->parameter_count;
        layer->parameter_first = model->parameter_count;
        if (!layer->ops->parameters) continue;
        layer->parameter_count = layer->ops->parameters(layer, own);
        COP_ASSERT(layer->parameter_count >= 1 && layer->parameter_count <= PARAMETERS_PER_LAYER);
        for (int j = 0; j < layer->parameter_count; j++) {
            char name[sizeof own[j].name];
            int length = snprintf(name, sizeof name, "%d.%.30s", i, own[j].name);
            COP_ASSERT(length > 0 && length < (int)sizeof name);
            memcpy(own[j].name, name, sizeof name);
            own[j].layer = i;
            own[j].count = (int64_t)own[j].rows * own[j].cols;
            COP_ASSERT(own[j].count >= 1 && own[j].count == tensor_size(&own[j]));
            own[j].offset = model->floats;
            model->weights += own[j].count;
            model->floats += (int64_t)cop_align_up((size_t)own[j].count, FLOATS_ALIGN);
            if (model->floats > (int64_t)COP_PARAMETERS_MAX)
                return cop_fail(error, COP_ERR_LIMIT,
                                "model[%d] %s: the model has too many parameters: the limit is %u",
                                i, layer->ops->kind, COP_PARAMETERS_MAX);
        }
        model->parameter_count += layer->parameter_count;
    }
    return COP_OK;
}

/* Checks the list of layers as a whole: some layer must have weights, no layer after the last one
 * with weights may draw at random, and the number of outputs must fit the labels or the input. */
static cop_err check_whole(const cop_model *model, const cop_model_spec *spec, cop_error *error) {
    if (model->parameter_count == 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "model has no layer with weights, expected at least one linear");
    int weighted = 0;
    for (int i = 0; i < model->layer_count; i++)
        if (model->layers[i].parameter_count > 0) weighted = i;
    for (int i = weighted + 1; i < model->layer_count; i++)
        if (model->layers[i].ops->drops)
            return cop_fail(
                error, COP_ERR_INPUT,
                "model[%d] %s: it would drop outputs of the network: expected it before "
                "the last layer with weights (model[%d] %s)",
                i, model->layers[i].ops->kind, weighted, model->layers[weighted].ops->kind);
    const int last = model->layer_count - 1;
    if (model->target_input && model->outputs != model->features)
        return cop_fail(error, COP_ERR_INPUT,
                        "model[%d] %s: the last layer has %d outputs, expected %d: data.target is "
                        "input, and a sample has %d features",
                        last, model->layers[last].ops->kind, model->outputs, model->features,
                        model->features);
    if (!model->target_input && model->outputs != spec->classes && !model->one_logit)
        return cop_fail(error, COP_ERR_INPUT,
                        "model[%d] %s: the last layer has %d outputs, expected %d%s: the data has "
                        "%d classes",
                        last, model->layers[last].ops->kind, model->outputs, (int)spec->classes,
                        spec->classes == 2 && model->outputs == 1 ? ", or 1 with loss: bce" : "",
                        (int)spec->classes);
    return COP_OK;
}

static cop_err model_build(cop_model *model, const cop_model_spec *spec, cop_error *error) {
    COP_TRY(cop_input_create(&spec->data, &spec->input, &model->input, error));
    COP_TRY(bind_kinds(model, spec, error));
    COP_TRY(bind_shapes(model, &spec->input, error));
    model->one_logit = spec->loss == COP_LOSS_BCE && !spec->target_input && spec->classes == 2 &&
                       model->outputs == 1;
    COP_TRY(lay_out_parameters(model, error));
    return check_whole(model, spec, error);
}

cop_err cop_model_create(const cop_model_spec *spec, cop_model **out, cop_error *error) {
    cop_error unread = {0};
    if (!error) error = &unread;
    *out = NULL;
    COP_TRY(check_spec(spec, error));
    const size_t layers = (size_t)spec->layer_count;
    cop_model *model = cop_alloc(sizeof *model);
    if (!model) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for a model");
    model->layer_count = spec->layer_count;
    model->loss = spec->loss;
    model->smoothing = spec->smoothing;
    model->target_input = spec->target_input;
    model->layers = cop_alloc_array(layers, sizeof *model->layers);
    model->parameters = cop_alloc_array(layers * PARAMETERS_PER_LAYER, sizeof *model->parameters);
    cop_err e = COP_OK;
    if (!model->layers || !model->parameters)
        e = cop_fail(error, COP_ERR_NO_MEMORY, "no memory for a model of %d layers",
                     spec->layer_count);
    else
        e = model_build(model, spec, error);
    if (e != COP_OK) {
        cop_model_destroy(model);
        return e;
    }
    *out = model;
    return COP_OK;
}

void cop_model_destroy(cop_model *model) {
    if (!model) return;
    cop_input_destroy(&model->input);
    cop_free(model->layers);
    cop_free(model->parameters);
    cop_free(model);
}

int cop_model_layer_count(const cop_model *model) {
    return model->layer_count;
}
int cop_model_parameter_count(const cop_model *model) {
    return model->parameter_count;
}
int cop_model_features(const cop_model *model) {
    return model->features;
}
const cop_input *cop_model_input(const cop_model *model) {
    return &model->input;
}
int cop_model_outputs(const cop_model *model) {
    return model->outputs;
}
int64_t cop_model_floats(const cop_model *model) {
    return model->floats;
}
int64_t cop_model_weights(const cop_model *model) {
    return model->weights;
}
cop_loss_kind cop_model_loss(const cop_model *model) {
    return model->loss;
}
double cop_model_smoothing(const cop_model *model) {
    return model->smoothing;
}
bool cop_model_has_classes(const cop_model *model) {
    return !model->target_input;
}

bool cop_model_has_one_logit(const cop_model *model) {
    return model->one_logit;
}

int cop_model_classes(const cop_model *model) {
    return model->one_logit ? 2 : model->outputs;
}

bool cop_model_draws(const cop_model *model) {
    bool draws = false;
    for (int i = 0; i < model->layer_count; i++)
        draws = draws || model->layers[i].ops->drops || model->layers[i].ops->factors;
    return draws;
}

const cop_layer *cop_model_layer(const cop_model *model, int index) {
    COP_ASSERT(index >= 0 && index < model->layer_count);
    return &model->layers[index];
}

const cop_parameter *cop_model_parameter(const cop_model *model, int index) {
    COP_ASSERT(index >= 0 && index < model->parameter_count);
    return &model->parameters[index];
}

double cop_model_flop(const cop_model *model) {
    double flop = 0;
    for (int i = 0; i < model->layer_count; i++)
        flop += model->layers[i].ops->flop(&model->layers[i]);
    return flop;
}

void cop_model_init(const cop_model *model, uint64_t seed, float *flat) {
    memset(flat, 0, (size_t)model->floats * sizeof *flat);
    for (int i = 0; i < model->layer_count; i++) {
        const cop_layer *layer = &model->layers[i];
        if (layer->ops->init)
            layer->ops->init(layer, seed, model->parameters + layer->parameter_first, flat);
    }
}

static void digest_u32(cop_sha256 *hash, uint32_t value) {
    unsigned char bytes[4];
    cop_store_u32(bytes, value);
    cop_sha256_update(hash, bytes, sizeof bytes);
}

cop_err cop_model_digest(const cop_model *model, const float *flat, unsigned char out[32],
                         cop_error *error) {
    cop_sha256 hash;
    cop_sha256_init(&hash);
    for (int i = 0; i < model->parameter_count; i++) {
        const cop_parameter *p = &model->parameters[i];
        const float *values = flat + p->offset;
        for (int64_t j = 0; j < p->count; j++)
            if (isnan(values[j]))
                return cop_fail(error, COP_ERR_CORRUPT,
                                "%s contains a value that is not a number (at %lld of %lld): such "
                                "weights have no digest",
                                p->name, (long long)j, (long long)p->count);
        cop_sha256_update(&hash, p->name, strlen(p->name) + 1);
        digest_u32(&hash, (uint32_t)p->rank);
        for (int d = 0; d < p->rank; d++) digest_u32(&hash, (uint32_t)p->dims[d]);
        cop_sha256_update(&hash, values, (size_t)p->count * sizeof *values);
    }
    cop_sha256_final(&hash, out);
    return COP_OK;
}

bool cop_model_find_not_finite(const cop_model *model, const float *flat, char *out, size_t size) {
    for (int i = 0; i < model->parameter_count; i++) {
        const cop_parameter *p = &model->parameters[i];
        int64_t bad = 0;
        double largest = 0, squares = 0;
        for (int64_t j = 0; j < p->count; j++) {
            const double value = (double)flat[p->offset + j];
            if (!isfinite(value)) {
                bad++;
                continue;
            }
            if (fabs(value) > largest) largest = fabs(value);
            squares += value * value;
        }
        if (bad == 0) continue;
        snprintf(out, size,
                 "layer %d (%s): %lld of %lld values of %s are not finite; of the others the "
                 "largest is %.3g, the norm %.3g",
                 (int)p->layer, model->layers[p->layer].ops->kind, (long long)bad,
                 (long long)p->count, p->name, largest, sqrt(squares));
        return true;
    }
    return false;
}

cop_err cop_samples_check(const cop_samples *samples, const cop_model *model, cop_error *error) {
    if (samples->dtype != COP_DTYPE_U8 && samples->dtype != COP_DTYPE_F32)
        return cop_fail(error, COP_ERR_INPUT, "samples of type %d, expected u8 or f32",
                        (int)samples->dtype);
    if (samples->count < 0 || samples->features != model->features)
        return cop_fail(error, COP_ERR_INPUT, "%d samples of %d values, expected %d values",
                        samples->count, samples->features, model->features);
    const size_t item = samples->dtype == COP_DTYPE_F32 ? sizeof(float) : 1;
    if (samples->stride < (size_t)samples->features * item || samples->stride % item != 0)
        return cop_fail(error, COP_ERR_INPUT, "rows of %zu bytes, expected at least %zu",
                        samples->stride, (size_t)samples->features * item);
    for (int i = 0; i < samples->count && !model->target_input; i++)
        if (samples->labels[i] < 0 || samples->labels[i] >= cop_model_classes(model))
            return cop_fail(error, COP_ERR_INPUT, "label %d of sample %d, expected 0 to %d",
                            (int)samples->labels[i], i, cop_model_classes(model) - 1);
    return COP_OK;
}
