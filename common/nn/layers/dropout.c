/* dropout: each unit is dropped with probability p (Srivastava, Hinton, Krizhevsky, Sutskever,
 * Salakhutdinov, "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15,
 * 2014, section 4).
 *
 *              train, mc                       eval
 * inverted     y = kept ? x / (1 - p) : 0      y = x
 * classic      y = kept ? x : 0                y = (1 - p) x
 *
 * Masks are D3's: counter (block, sample, layer, step), key of the column's shard; with scope
 * `shard` the sample word is 0 for every column, so that all samples of a shard share one thinned
 * network. Both factors are computed in f64 and rounded once to f32. The masks of the forward pass
 * stay in the arena for backward. p = 0 is the identity in every mode. */
#include <string.h>

#include "common/nn/layers/kinds.h"

static cop_err dropout_shape(cop_layer *layer, cop_error *error) {
    const cop_layer_spec *spec = &layer->spec;
    if (!(spec->p >= 0 && spec->p < 1))
        return cop_fail(error, COP_ERR_INPUT,
                        "p is %g, expected at least 0 and below 1 (the probability to drop)",
                        spec->p);
    if (spec->scope != COP_SCOPE_SAMPLE && spec->scope != COP_SCOPE_SHARD)
        return cop_fail(error, COP_ERR_INPUT, "scope is not known, expected sample or shard");
    if (spec->variant != COP_VARIANT_INVERTED && spec->variant != COP_VARIANT_CLASSIC)
        return cop_fail(error, COP_ERR_INPUT, "variant is not known, expected inverted or classic");
    layer->out = layer->in;
    return COP_OK;
}

static int units(const cop_layer *layer) {
    return (int)cop_shape_size(&layer->in);
}

static int64_t dropout_mask_words(const cop_layer *layer, int ld) {
    return (int64_t)units(layer) * (ld / COP_COLUMNS_PAD);
}

/* What a kept unit is multiplied by. */
static float kept_scale(const cop_layer *layer) {
    return layer->spec.variant == COP_VARIANT_CLASSIC ? 1.0f : (float)(1.0 / (1.0 - layer->spec.p));
}

static void copy(const cop_layer *layer, const cop_layer_context *c, const float *from, float *to) {
    if (from != to) memcpy(to, from, (size_t)units(layer) * (size_t)c->ld * sizeof *to);
}

static void dropout_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    const cop_layer_spec *spec = &layer->spec;
    if (spec->p == 0 || (c->mode == COP_MODE_EVAL && spec->variant == COP_VARIANT_INVERTED)) {
        copy(layer, c, x, y);
        return;
    }
    if (c->mode == COP_MODE_EVAL) {
        c->kernels->scale(x, (float)(1.0 - spec->p), y, (size_t)units(layer) * (size_t)c->ld);
        return;
    }
    uint16_t *bits = cop_layer_masks(layer, c);
    const cop_mask_request request = {
        .units = units(layer),
        .ld = c->ld,
        .threshold = cop_rng_drop_threshold(spec->p),
        .keys = c->mask_keys,
        .samples = spec->scope == COP_SCOPE_SHARD ? c->no_samples : c->samples,
        .layer = (uint32_t)layer->index,
        .step = c->step,
        .bits = bits,
    };
    c->kernels->mask_fill(&request);
    c->kernels->mask_apply(bits, x, kept_scale(layer), y, units(layer), c->ld);
}

static void dropout_backward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                             const float *y, const float *dy, float *dx) {
    (void)x, (void)y;
    if (!dx) return;
    if (layer->spec.p == 0)
        copy(layer, c, dy, dx);
    else
        c->kernels->mask_apply(cop_layer_masks(layer, c), dy, kept_scale(layer), dx, units(layer),
                               c->ld);
}

static void dropout_factors(const cop_layer *layer, const cop_layer_context *c, float *out) {
    const size_t count = (size_t)units(layer) * (size_t)c->ld;
    for (size_t i = 0; i < count; i++) out[i] = 1.0f;
    if (layer->spec.p > 0)
        c->kernels->mask_apply(cop_layer_masks(layer, c), out, kept_scale(layer), out, units(layer),
                               c->ld);
}

static double dropout_flop(const cop_layer *layer) {
    return units(layer);
}

const cop_layer_ops cop_layer_dropout = {
    .kind = "dropout",
    .shape = dropout_shape,
    .mask_words = dropout_mask_words,
    .forward = dropout_forward,
    .backward = dropout_backward,
    .factors = dropout_factors,
    .flop = dropout_flop,
    .drops = true,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
};
