/* spatial_dropout: each feature map (channel of an image) is dropped as a whole with probability p
 * (Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient object localization using convolutional
 * networks", CVPR 2015, section 3.2; PyTorch's nn.Dropout2d). Neighbouring pixels of a map are
 * similar, so if single pixels are dropped, their neighbours still carry the information, and
 * dropout does little more than lower the learning rate.
 *
 *              train, mc                       eval
 * inverted     y = kept ? x / (1 - p) : 0      y = x
 * classic      y = kept ? x : 0                y = (1 - p) x
 *
 * Masks are drawn as D3 says, with one unit for each channel. Everything else is as in
 * dropout.c. */
#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

static cop_err spatial_shape(cop_layer *layer, cop_error *error) {
    char text[64];
    if (layer->in.rank != 3)
        return cop_fail(error, COP_ERR_INPUT,
                        "it drops channels of images, but its input is flat (%s values): expected "
                        "channels x height x width, or dropout, which drops single units",
                        cop_shape_format(&layer->in, text));
    return cop_masks_shape(layer, error);
}

static int channels(const cop_layer *layer) {
    return layer->in.dims[0];
}

static int64_t spatial_mask_words(const cop_layer *layer, int ld) {
    return (int64_t)channels(layer) * (ld / COP_COLUMNS_PAD);
}

/* Applies a map's mask to each of its pixels. */
static void apply(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y) {
    const uint16_t *bits = cop_layer_masks(layer, c);
    const int pixels = layer->in.dims[1] * layer->in.dims[2];
    const float scale = cop_masks_scale(layer);
    size_t at = 0;
    for (int map = 0; map < channels(layer); map++, bits += c->ld / COP_COLUMNS_PAD)
        for (int i = 0; i < pixels; i++, at += (size_t)c->ld)
            c->kernels->mask_apply(bits, x + at, scale, y + at, (size_t)c->ld);
}

static void spatial_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    const cop_layer_spec *spec = &layer->spec;
    if (spec->p == 0 || (c->mode == COP_MODE_EVAL && spec->variant == COP_VARIANT_INVERTED)) {
        cop_masks_copy(layer, c, x, y);
        return;
    }
    if (c->mode == COP_MODE_EVAL) {
        c->kernels->scale(x, (float)(1.0 - spec->p), y,
                          (size_t)cop_masks_units(layer) * (size_t)c->ld);
        return;
    }
    cop_masks_draw(layer, c, channels(layer));
    apply(layer, c, x, y);
}

static void spatial_backward(const cop_layer *layer, const cop_layer_context *c,
                             const cop_layer_tensors *t) {
    if (!t->dx) return;
    if (layer->spec.p == 0)
        cop_masks_copy(layer, c, t->dy, t->dx);
    else
        apply(layer, c, t->dy, t->dx);
}

static void spatial_factors(const cop_layer *layer, const cop_layer_context *c, float *out) {
    const size_t count = (size_t)cop_masks_units(layer) * (size_t)c->ld;
    for (size_t i = 0; i < count; i++) out[i] = 1.0f;
    if (layer->spec.p > 0) apply(layer, c, out, out);
}

static cop_value spatial_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const cop_shape maps = {.rank = 3, .dims = {channels(layer), 1, 1}};
    return cop_masks_graph(layer, g, x, &maps);
}

static void spatial_torch(const cop_layer *layer, cop_torch *out) {
    cop_masks_torch(layer, out, true);
}

static void spatial_modes(const cop_layer *layer, char train[COP_MODE_TEXT],
                          char eval[COP_MODE_TEXT]) {
    cop_masks_modes(layer, "drop channels", train, eval);
}

const cop_layer_ops cop_layer_spatial_dropout = {
    .kind = "spatial_dropout",
    .shape = spatial_shape,
    .mask_words = spatial_mask_words,
    .forward = spatial_forward,
    .backward = spatial_backward,
    .factors = spatial_factors,
    .flop = cop_masks_flop,
    .graph = spatial_graph,
    .torch = spatial_torch,
    .modes = spatial_modes,
    .drops = true,
    .drops_maps = true,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
    .wants_image = true,
    .thin = COP_THIN_MASK,
};
