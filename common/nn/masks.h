/* Helpers for the layers that multiply by random masks. */
#ifndef COP_NN_MASKS_H
#define COP_NN_MASKS_H

#include "common/nn/layer.h"

/* The `shape` function: the output has the shape of the input. INPUT: p, scope or variant is out of
 * range. */
cop_err cop_masks_shape(cop_layer *layer, cop_error *error);
/* The number of values in one sample of the input. */
int cop_masks_units(const cop_layer *layer);
/* The sample word of D3 for each column; with scope `shard` they are all 0. */
const uint32_t *cop_masks_samples(const cop_layer *layer, const cop_layer_context *c);
/* Draws masks for `units` units (D3) into the layer's part of the mask arena, and returns them. Not
 * in eval mode. */
const uint16_t *cop_masks_draw(const cop_layer *layer, const cop_layer_context *c, int units);
/* The factor for kept units: 1 / (1 - p), computed in f64 and rounded once; 1 for `classic`. */
float cop_masks_scale(const cop_layer *layer);
/* Copies the whole tensor x to y, which may be the same. */
void cop_masks_copy(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y);
/* The `flop` function: one operation per value. */
double cop_masks_flop(const cop_layer *layer);
/* The layer's scope for people: "sample" or "shard". */
const char *cop_masks_scope(const cop_layer *layer);
/* The `modes` function of a layer that multiplies by 0 or cop_masks_scale; `what` names the action
 * ("drop"). */
void cop_masks_modes(const cop_layer *layer, const char *what, char train[COP_MODE_TEXT],
                     char eval[COP_MODE_TEXT]);
/* The `graph` and `torch` functions of a layer that multiplies by 0 or cop_masks_scale. `units` is
 * the shape of one sample's mask: each dimension is that of x, or 1. maps: the mask has one element
 * per channel. */
cop_value cop_masks_graph(const cop_layer *layer, cop_graph *g, cop_value x,
                          const cop_shape *units);
void cop_masks_torch(const cop_layer *layer, cop_torch *out, bool maps);

#endif
