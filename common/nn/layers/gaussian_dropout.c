/* gaussian_dropout: each unit is multiplied by random noise. The noise is normal with mean 1 and
 * variance p / (1 - p), which are also the mean and the variance of the factor (0 or 1 / (1 - p))
 * by which inverted dropout multiplies a unit. See section 10 of Srivastava, Hinton, Krizhevsky,
 * Sutskever, Salakhutdinov, "Dropout: a simple way to prevent neural networks from overfitting",
 * JMLR 15, 2014.
 *
 *     forward in train and mc mode    y = m x, where m ~ N(1, p / (1 - p))
 *     forward in eval mode            y = x
 *     backward                        dx = m dy
 *
 * The noise is drawn as D3 says, with the purpose `noise`. With scope `shard` all samples of a
 * shard share their noise. The deviation is computed in f64; m is rounded once to f32 and stored
 * for backward. p = 0 is the identity in every mode. The setting `variant` (inverted or classic)
 * changes nothing: the noise has mean 1, so units need no scaling in either mode. */
#include <stdio.h>
#include <string.h>

#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

/* The layer's words in the mask arena, which hold the noise as floats. They are aligned to 64
 * bytes. */
static float *noise(const cop_layer *layer, const cop_layer_context *c) {
    return (float *)(void *)cop_layer_masks(layer, c);
}

static size_t values(const cop_layer *layer, const cop_layer_context *c) {
    return (size_t)cop_masks_units(layer) * (size_t)c->ld;
}

static int64_t gaussian_mask_words(const cop_layer *layer, int ld) {
    return (int64_t)cop_masks_units(layer) * ld * (int64_t)(sizeof(float) / sizeof(uint16_t));
}

static void gaussian_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                             float *y) {
    const double p = layer->spec.p;
    if (p == 0 || c->mode == COP_MODE_EVAL) {
        cop_masks_copy(layer, c, x, y);
        return;
    }
    const cop_noise_request request = {
        .units = cop_masks_units(layer),
        .ld = c->ld,
        .mean = 1.0,
        .deviation = __builtin_sqrt(p / (1.0 - p)),
        .keys = c->noise_keys,
        .samples = cop_masks_samples(layer, c),
        .layer = (uint32_t)layer->index,
        .step = c->step,
        .noise = noise(layer, c),
    };
    c->kernels->noise_fill(&request);
    c->kernels->multiply(x, request.noise, y, values(layer, c));
}

static void gaussian_backward(const cop_layer *layer, const cop_layer_context *c,
                              const cop_layer_tensors *t) {
    if (!t->dx) return;
    if (layer->spec.p == 0)
        cop_masks_copy(layer, c, t->dy, t->dx);
    else
        c->kernels->multiply(t->dy, noise(layer, c), t->dx, values(layer, c));
}

static void gaussian_factors(const cop_layer *layer, const cop_layer_context *c, float *out) {
    const size_t count = values(layer, c);
    for (size_t i = 0; i < count; i++) out[i] = 1.0f;
    if (layer->spec.p > 0) memcpy(out, noise(layer, c), count * sizeof *out);
}

/* ONNX runs RandomNormalLike in evaluation, too. There it draws one number, which is not used. */
static cop_value gaussian_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const double p = layer->spec.p;
    const int64_t least[] = {1, 1, 1, 1};
    if (p == 0) return COP_NODE(g, "Identity", x);
    const cop_value training = cop_graph_training(g), one = cop_graph_scalar(g, 1.0);
    const cop_value dims = cop_graph_dims(g, x, &layer->in, layer->spec.scope == COP_SCOPE_SHARD);
    const cop_value few = cop_graph_vector(g, layer->in.rank + 1, least);
    const cop_value needed = COP_NODE(g, "Where", training, dims, few);
    const cop_value noise = COP_NODE(g, "RandomNormalLike", COP_NODE(g, "ConstantOfShape", needed));
    cop_graph_real(g, "mean", 1.0);
    cop_graph_real(g, "scale", __builtin_sqrt(p / (1.0 - p)));
    return COP_NODE(g, "Mul", x, COP_NODE(g, "Where", training, noise, one));
}

static void gaussian_torch(const cop_layer *layer, cop_torch *out) {
    cop_torch_class(
        out, "class GaussianDropout(nn.Module):\n"
             "    \"\"\"Multiplies by noise of mean 1 and variance p / (1 - p) (Srivastava et "
             "al. 2014, section 10); shared: one for the whole batch.\"\"\"\n\n"
             "    def __init__(self, p, shared=False):\n"
             "        super().__init__()\n"
             "        self.deviation, self.shared = (p / (1 - p)) ** 0.5, shared\n\n"
             "    def forward(self, x):\n"
             "        if not self.training:\n"
             "            return x\n"
             "        like = x[:1] if self.shared else x\n"
             "        return x * (1 + self.deviation * torch.randn_like(like))\n");
    cop_torch_print(out, "GaussianDropout(");
    cop_torch_real(out, layer->spec.p);
    if (layer->spec.scope == COP_SCOPE_SHARD) cop_torch_flag(out, "shared", true);
    cop_torch_print(out, ")");
}

static void gaussian_modes(const cop_layer *layer, char train[COP_MODE_TEXT],
                           char eval[COP_MODE_TEXT]) {
    const double p = layer->spec.p;
    snprintf(train, COP_MODE_TEXT, "x noise of mean 1, variance %.3g, per %s", p / (1 - p),
             cop_masks_scope(layer));
    snprintf(eval, COP_MODE_TEXT, "identity");
}

const cop_layer_ops cop_layer_gaussian_dropout = {
    .kind = "gaussian_dropout",
    .shape = cop_masks_shape,
    .mask_words = gaussian_mask_words,
    .forward = gaussian_forward,
    .backward = gaussian_backward,
    .factors = gaussian_factors,
    .flop = cop_masks_flop,
    .graph = gaussian_graph,
    .torch = gaussian_torch,
    .modes = gaussian_modes,
    .drops = true,
    .in_place = true,
    .keeps = COP_KEEPS_NOTHING,
};
