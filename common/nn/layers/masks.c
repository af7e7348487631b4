/* What the mask layers share: see masks.h. */
#include "common/nn/layers/masks.h"

#include <string.h>

cop_err cop_masks_shape(cop_layer *layer, cop_error *error) {
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

int cop_masks_units(const cop_layer *layer) {
    return (int)cop_shape_size(&layer->in);
}

const uint32_t *cop_masks_samples(const cop_layer *layer, const cop_layer_context *c) {
    return layer->spec.scope == COP_SCOPE_SHARD ? c->no_samples : c->samples;
}

const uint16_t *cop_masks_draw(const cop_layer *layer, const cop_layer_context *c, int units) {
    COP_ASSERT(c->mode != COP_MODE_EVAL && c->masks);
    uint16_t *bits = cop_layer_masks(layer, c);
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

float cop_masks_scale(const cop_layer *layer) {
    return layer->spec.variant == COP_VARIANT_CLASSIC ? 1.0f : (float)(1.0 / (1.0 - layer->spec.p));
}

void cop_masks_copy(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y) {
    if (x != y) memcpy(y, x, (size_t)cop_masks_units(layer) * (size_t)c->ld * sizeof *y);
}

double cop_masks_flop(const cop_layer *layer) {
    return cop_masks_units(layer);
}
