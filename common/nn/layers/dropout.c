/* dropout: each unit is dropped with probability p (Srivastava, Hinton, Krizhevsky, Sutskever,
 * Salakhutdinov, "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15,
 * 2014, section 4).
 *
 *              train, mc                       eval
 * inverted     y = kept ? x / (1 - p) : 0      y = x
 * classic      y = kept ? x : 0                y = (1 - p) x
 *
 * Masks are drawn as D3 says, with the counter (block, sample, layer, step) and the column's key.
 * With scope `shard` the sample word is 0 for every column, so all samples of a shard share one
 * thinned network. The factors 1 / (1 - p) and 1 - p are computed in f64, and each is rounded once
 * to f32. Forward stores the masks in the mask arena, where backward reads them. p = 0 is the
 * identity in every mode. */
#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

static int64_t dropout_mask_words(const cop_layer *layer, int ld) {
    return (int64_t)cop_masks_units(layer) * (ld / COP_COLUMNS_PAD);
}

static void apply(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y) {
    c->kernels->mask_apply(cop_layer_masks(layer, c), x, cop_masks_scale(layer), y,
                           (size_t)cop_masks_units(layer) * (size_t)c->ld);
}

static void dropout_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    const cop_layer_spec *spec = &layer->spec;
    const int units = cop_masks_units(layer);
    if (spec->p == 0 || (c->mode == COP_MODE_EVAL && spec->variant == COP_VARIANT_INVERTED)) {
        cop_masks_copy(layer, c, x, y);
        return;
    }
    if (c->mode == COP_MODE_EVAL) {
        c->kernels->scale(x, (float)(1.0 - spec->p), y, (size_t)units * (size_t)c->ld);
        return;
    }
    cop_masks_draw(layer, c, units);
    apply(layer, c, x, y);
}

static void dropout_backward(const cop_layer *layer, const cop_layer_context *c,
                             const cop_layer_tensors *t) {
    if (!t->dx) return;
    if (layer->spec.p == 0)
        cop_masks_copy(layer, c, t->dy, t->dx);
    else
        apply(layer, c, t->dy, t->dx);
}

static void dropout_factors(const cop_layer *layer, const cop_layer_context *c, float *out) {
    const size_t count = (size_t)cop_masks_units(layer) * (size_t)c->ld;
    for (size_t i = 0; i < count; i++) out[i] = 1.0f;
    if (layer->spec.p > 0) apply(layer, c, out, out);
}

static cop_value dropout_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    return cop_masks_graph(layer, g, x, &layer->in);
}

static void dropout_torch(const cop_layer *layer, cop_torch *out) {
    cop_masks_torch(layer, out, false);
}

static void dropout_modes(const cop_layer *layer, char train[COP_MODE_TEXT],
                          char eval[COP_MODE_TEXT]) {
    cop_masks_modes(layer, "drop", train, eval);
}

const cop_layer_ops cop_layer_dropout = {
    .kind = "dropout",
    .shape = cop_masks_shape,
    .mask_words = dropout_mask_words,
    .forward = dropout_forward,
    .backward = dropout_backward,
    .factors = dropout_factors,
    .flop = cop_masks_flop,
    .graph = dropout_graph,
    .torch = dropout_torch,
    .modes = dropout_modes,
    .drops = true,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
    .thin = COP_THIN_MASK,
};
