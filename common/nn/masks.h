/* What the mask layers share: the check of their fields, the draw of their masks. */
#ifndef COP_NN_MASKS_H
#define COP_NN_MASKS_H

#include "common/nn/layer.h"

/* p, scope and variant are in their ranges, or INPUT with a sentence; out is shaped as in. */
cop_err cop_masks_shape(cop_layer *layer, cop_error *error);
int cop_masks_units(const cop_layer *layer); /* values in a sample of the input */
/* The sample word of D3 for each column: 0 with scope shard. */
const uint32_t *cop_masks_samples(const cop_layer *layer, const cop_layer_context *c);
/* Draws the layer's masks of `units` units (D3) into its place in the arena; returns them. */
const uint16_t *cop_masks_draw(const cop_layer *layer, const cop_layer_context *c, int units);
/* What `inverted` multiplies a kept unit by, 1 / (1 - p) in f64, rounded once; 1 for classic. */
float cop_masks_scale(const cop_layer *layer);
/* y = x over the whole tensor; x may be y. */
void cop_masks_copy(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y);
double cop_masks_flop(const cop_layer *layer); /* one per value */
/* "sample" or "shard". */
const char *cop_masks_scope(const cop_layer *layer);
/* Of a layer that multiplies by 0 or a factor; `what` it does, "drop". */
void cop_masks_modes(const cop_layer *layer, const char *what, char train[COP_MODE_TEXT],
                     char eval[COP_MODE_TEXT]);
/* For other programs, of a layer that multiplies by 0 or a factor. `units` is the shape of a
 * sample's mask, each dimension that of x or 1; maps: that of a channel. */
cop_value cop_masks_graph(const cop_layer *layer, cop_graph *g, cop_value x,
                          const cop_shape *units);
void cop_masks_torch(const cop_layer *layer, cop_torch *out, bool maps);

#endif
