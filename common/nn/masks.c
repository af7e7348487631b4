/* Helpers for the layers that multiply by random masks. See masks.h. */
#include "common/nn/masks.h"

#include <stdio.h>
#include <string.h>

#include "common/nn/graph.h"
#include "common/nn/torch.h"

cop_err cop_masks_shape(cop_layer *layer, cop_error *error) {
    const cop_layer_spec *spec = &layer->spec;
    if (!(spec->p >= 0 && spec->p < 1))
        return cop_fail(error, COP_ERR_INPUT,
                        "p is %g, expected at least 0 and below 1 (the probability to drop)",
                        spec->p);
    if (spec->scope != COP_SCOPE_SAMPLE && spec->scope != COP_SCOPE_SHARD)
        return cop_fail(error, COP_ERR_INPUT, "scope is unknown, expected sample or shard");
    if (spec->variant != COP_VARIANT_INVERTED && spec->variant != COP_VARIANT_CLASSIC)
        return cop_fail(error, COP_ERR_INPUT, "variant is unknown, expected inverted or classic");
    layer->out = layer->in;
    return COP_OK;
}

int cop_masks_units(const cop_layer *layer) {
    return (int)cop_shape_size(&layer->in);
}

const uint32_t *cop_masks_samples(const cop_layer *layer, const cop_layer_context *c) {
    return layer->spec.scope == COP_SCOPE_SHARD ? c->no_samples : c->samples;
}

const uint16_t *cop_masks_draw(const cop_layer *layer, const cop_layer_context *c, int units) {
    COP_ASSERT(c->mode != COP_MODE_EVAL && units >= 1);
    uint16_t *bits = cop_layer_masks(layer, c);
    if (c->drawn && *c->drawn == layer->index) return bits;
    const cop_mask_request request = {
        .units = units,
        .ld = c->ld,
        .threshold = cop_rng_drop_threshold(layer->spec.p),
        .keys = c->mask_keys,
        .samples = cop_masks_samples(layer, c),
        .layer = (uint32_t)layer->index,
        .step = c->step,
        .bits = bits,
    };
    c->kernels->mask_fill(&request);
    return bits;
}

bool cop_masks_are_shared(const cop_layer *layer) {
    if (layer->ops->thin != COP_THIN_MASK || layer->spec.scope != COP_SCOPE_SHARD) return false;
    const bool whole = layer->ops->mask_words(layer, COP_COLUMNS_PAD) == (int64_t)layer->in.dims[0];
    return whole && layer->spec.p > 0;
}

/* True if the layer treats each unit separately, and the gradients that it passes down to a dropped
 * unit are 0, whatever the unit's output was. A layer that reads only the sign of its output
 * multiplies by one of two factors. */
static bool passes_zero(const cop_layer *layer) {
    if (layer->ops->thin == COP_THIN_MASK) return layer->spec.p == 0;
    return layer->ops->thin == COP_THIN_EACH_ZERO && layer->ops->reads == COP_READS_OUTPUT_SIGN;
}

const uint16_t *cop_masks_needed(const cop_layer *layer, const cop_layer_context *c) {
    if (!c->drawn) return NULL;
    const cop_layer *mask = layer->next;
    while (mask && passes_zero(mask)) mask = mask->next;
    if (!mask || !cop_masks_are_shared(mask) || mask->in.rank != 1) return NULL;
    const uint16_t *bits = cop_masks_draw(mask, c, cop_masks_units(mask));
    *c->drawn = mask->index;
    return bits;
}

float cop_masks_scale(const cop_layer *layer) {
    COP_ASSERT(layer->spec.p >= 0 && layer->spec.p < 1);
    return layer->spec.variant == COP_VARIANT_CLASSIC ? 1.0f : (float)(1.0 / (1.0 - layer->spec.p));
}

void cop_masks_copy(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y) {
    if (x != y) memcpy(y, x, (size_t)cop_masks_units(layer) * (size_t)c->ld * sizeof *y);
}

double cop_masks_flop(const cop_layer *layer) {
    return cop_masks_units(layer);
}

const char *cop_masks_scope(const cop_layer *layer) {
    return layer->spec.scope == COP_SCOPE_SHARD ? "shard" : "sample";
}

void cop_masks_modes(const cop_layer *layer, const char *what, char train[COP_MODE_TEXT],
                     char eval[COP_MODE_TEXT]) {
    const double p = layer->spec.p;
    const char *scope = cop_masks_scope(layer);
    if (layer->spec.variant == COP_VARIANT_CLASSIC) {
        snprintf(train, COP_MODE_TEXT, "%s %.3g per %s", what, p, scope);
        snprintf(eval, COP_MODE_TEXT, "x %.4g", 1 - p);
    } else {
        snprintf(train, COP_MODE_TEXT, "%s %.3g per %s, x %.4g", what, p, scope, 1 / (1 - p));
        snprintf(eval, COP_MODE_TEXT, "identity");
    }
}

/* ONNX's Dropout draws for each element of its input. If the mask has one element for each element
 * of x, that input is x; otherwise it is a tensor of ones in the shape of the mask, and x is
 * multiplied by the result. In training, Dropout scales by 1 / (1 - p), so the variant `classic`
 * multiplies by 1 - p. That undoes the scaling in training and is what `classic` does in
 * evaluation. The Where does not change the result, because dropped elements are 0 already. It is
 * there because ONNX Runtime removes a Dropout whose mask output is unused, even in training
 * mode. */
cop_value cop_masks_graph(const cop_layer *layer, cop_graph *g, cop_value x,
                          const cop_shape *units) {
    const bool shared = layer->spec.scope == COP_SCOPE_SHARD;
    const bool whole = !shared && cop_shape_size(units) == cop_shape_size(&layer->in);
    COP_ASSERT(units->rank == layer->in.rank);
    if (layer->spec.p == 0) return COP_NODE(g, "Identity", x);
    const cop_value training = cop_graph_training(g);
    const cop_value ratio = cop_graph_scalar(g, layer->spec.p);
    const cop_value from = whole ? x : cop_graph_ones(g, x, units, shared);
    const cop_value dropped = COP_NODE(g, "Dropout", from, ratio, training);
    const cop_value mask = cop_graph_second_output(g, COP_GRAPH_BOOL),
                    zero = cop_graph_scalar(g, 0.0);
    cop_value y = COP_NODE(g, "Where", mask, dropped, zero);
    if (!whole) y = COP_NODE(g, "Mul", x, y);
    if (layer->spec.variant == COP_VARIANT_INVERTED) return y;
    return COP_NODE(g, "Mul", y, cop_graph_scalar(g, 1.0 - layer->spec.p));
}

/* PyTorch's modules draw a mask for each sample and scale in training. For scope `shard` or the
 * variant `classic`, the file defines its own class. */
void cop_masks_torch(const cop_layer *layer, cop_torch *out, bool maps) {
    const bool shared = layer->spec.scope == COP_SCOPE_SHARD;
    const bool classic = layer->spec.variant == COP_VARIANT_CLASSIC;
    if (shared || classic)
        cop_torch_class(
            out,
            "class Dropout(nn.Module):\n"
            "    \"\"\"nn.Dropout (maps: nn.Dropout2d); shared: one mask for the whole batch; "
            "classic: "
            "scales by 1 - p in evaluation instead.\"\"\"\n\n"
            "    def __init__(self, p, maps=False, shared=False, classic=False):\n"
            "        super().__init__()\n"
            "        self.p, self.maps, self.shared, self.classic = p, maps, shared, classic\n\n"
            "    def forward(self, x):\n"
            "        like = x[:1] if self.shared else x\n"
            "        like = like[:, :, :1, :1] if self.maps else like\n"
            "        factor = F.dropout(torch.ones_like(like), self.p, self.training)\n"
            "        return x * factor * (1 - self.p if self.classic else 1)\n");
    cop_torch_print(out, shared || classic ? "Dropout(" : maps ? "nn.Dropout2d(" : "nn.Dropout(");
    cop_torch_real(out, layer->spec.p);
    if ((shared || classic) && maps) cop_torch_flag(out, "maps", true);
    if (shared) cop_torch_flag(out, "shared", true);
    if (classic) cop_torch_flag(out, "classic", true);
    cop_torch_print(out, ")");
}
