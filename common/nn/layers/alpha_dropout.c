/* alpha_dropout: the dropout of selu networks (Klambauer, Unterthiner, Mayr, Hochreiter,
 * "Self-normalizing neural networks", NIPS 2017; PyTorch's nn.AlphaDropout). A dropped unit is set
 * to selu's lowest value -s instead of 0, where s = 1.7580993408473766 is the product of the two
 * constants in selu.c. Then all units are scaled and shifted, so that the output has mean 0 and
 * variance 1 if the input has:
 *
 *     a = 1 / sqrt((1 - p) (1 + p s^2))
 *     forward in train and mc mode    y = kept ? a x + a s p : a s p - a s
 *     forward in eval mode            y = x
 *     backward                        dx = kept ? a dy : 0
 *
 * The constants are computed in f64, and each is rounded once to f32. Masks are drawn as D3 says.
 * If p is 0, the layer is the identity in every mode. The setting `variant` (inverted or classic)
 * changes nothing, because this layer scales in its own way. */
#include <stdio.h>

#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

#define LOWEST 1.7580993408473766

static double gain(const cop_layer *layer) {
    const double p = layer->spec.p;
    return 1.0 / __builtin_sqrt((1.0 - p) * (1.0 + p * LOWEST * LOWEST));
}

static int64_t alpha_mask_words(const cop_layer *layer, int ld) {
    return (int64_t)cop_masks_units(layer) * (ld / COP_COLUMNS_PAD);
}

static void alpha_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                          float *y) {
    const double p = layer->spec.p, a = gain(layer);
    if (p == 0 || c->mode == COP_MODE_EVAL) {
        cop_masks_copy(layer, c, x, y);
        return;
    }
    const cop_mask_affine mask = {
        .bits = cop_masks_draw(layer, c, cop_masks_units(layer)),
        .scale = (float)a,
        .add = (float)(a * LOWEST * p),
        .dropped = (float)(a * LOWEST * p - a * LOWEST),
        .units = cop_masks_units(layer),
        .ld = c->ld,
    };
    c->kernels->mask_affine(&mask, x, y);
}

static void alpha_apply(const cop_layer *layer, const cop_layer_context *c, const float *x,
                        float *y) {
    c->kernels->mask_apply(cop_layer_masks(layer, c), x, (float)gain(layer), y,
                           (size_t)cop_masks_units(layer) * (size_t)c->ld);
}

static void alpha_backward(const cop_layer *layer, const cop_layer_context *c,
                           const cop_layer_tensors *t) {
    if (!t->dx) return;
    if (layer->spec.p == 0)
        cop_masks_copy(layer, c, t->dy, t->dx);
    else
        alpha_apply(layer, c, t->dy, t->dx);
}

/* Writes only the factors, a or 0, by which the input is multiplied, not the constants that are
 * added. */
static void alpha_factors(const cop_layer *layer, const cop_layer_context *c, float *out) {
    const size_t count = (size_t)cop_masks_units(layer) * (size_t)c->ld;
    for (size_t i = 0; i < count; i++) out[i] = 1.0f;
    if (layer->spec.p > 0) alpha_apply(layer, c, out, out);
}

/* The graph computes keep ? gain x + add : dropped. In evaluation all units are kept, gain is 1 and
 * add is 0. */
static cop_value alpha_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const double p = layer->spec.p, a = gain(layer);
    if (p == 0) return COP_NODE(g, "Identity", x);
    const bool shared = layer->spec.scope == COP_SCOPE_SHARD;
    const cop_value training = cop_graph_training(g), ratio = cop_graph_scalar(g, p);
    const cop_value one = cop_graph_scalar(g, 1.0), zero = cop_graph_scalar(g, 0.0);
    const cop_value scale = cop_graph_scalar(g, a), shift = cop_graph_scalar(g, a * LOWEST * p);
    const cop_value dropped = cop_graph_scalar(g, a * LOWEST * p - a * LOWEST);
    const cop_value from = shared ? cop_graph_ones(g, x, &layer->in, true) : x;
    COP_NODE(g, "Dropout", from, ratio, training);
    const cop_value keep = cop_graph_second_output(g, COP_GRAPH_BOOL);
    const cop_value factor = COP_NODE(g, "Where", training, scale, one);
    const cop_value add = COP_NODE(g, "Where", training, shift, zero);
    const cop_value kept = COP_NODE(g, "Add", COP_NODE(g, "Mul", x, factor), add);
    return COP_NODE(g, "Where", keep, kept, dropped);
}

static void alpha_torch(const cop_layer *layer, cop_torch *out) {
    const bool shared = layer->spec.scope == COP_SCOPE_SHARD;
    if (shared)
        cop_torch_class(out,
                        "class SharedAlphaDropout(nn.Module):\n"
                        "    \"\"\"nn.AlphaDropout with one mask for the whole batch.\"\"\"\n\n"
                        "    def __init__(self, p):\n"
                        "        super().__init__()\n"
                        "        self.p, self.lowest = p, 1.7580993408473766\n\n"
                        "    def forward(self, x):\n"
                        "        if not self.training:\n"
                        "            return x\n"
                        "        keep = torch.rand_like(x[:1]) >= self.p\n"
                        "        gain = ((1 - self.p) * (1 + self.p * self.lowest**2)) ** -0.5\n"
                        "        return gain * (torch.where(keep, x, -self.lowest) + self.lowest * "
                        "self.p)\n");
    cop_torch_print(out, shared ? "SharedAlphaDropout(" : "nn.AlphaDropout(");
    cop_torch_real(out, layer->spec.p);
    cop_torch_print(out, ")");
}

static void alpha_modes(const cop_layer *layer, char train[COP_MODE_TEXT],
                        char eval[COP_MODE_TEXT]) {
    snprintf(train, COP_MODE_TEXT, "set %.3g to selu's minimum per %s, rescale", layer->spec.p,
             cop_masks_scope(layer));
    snprintf(eval, COP_MODE_TEXT, "identity");
}

const cop_layer_ops cop_layer_alpha_dropout = {
    .kind = "alpha_dropout",
    .shape = cop_masks_shape,
    .mask_words = alpha_mask_words,
    .forward = alpha_forward,
    .backward = alpha_backward,
    .factors = alpha_factors,
    .flop = cop_masks_flop,
    .graph = alpha_graph,
    .torch = alpha_torch,
    .modes = alpha_modes,
    .drops = true,
    .in_place = true,
    .keeps = COP_KEEPS_NOTHING,
};
