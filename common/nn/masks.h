/* Helpers for the layers that multiply by random masks. */
#ifndef COP_NN_MASKS_H
#define COP_NN_MASKS_H

#include "common/nn/layer.h"

/* A `shape` function: the output has the shape of the input. INPUT: p is not at least 0 and below
 * 1, or scope or variant is unknown. */
cop_err cop_masks_shape(cop_layer *layer, cop_error *error);
/* The number of values in one sample of the input. */
int cop_masks_units(const cop_layer *layer);
/* The sample word of each column (D3). With scope `shard` all words are 0. */
const uint32_t *cop_masks_samples(const cop_layer *layer, const cop_layer_context *c);
/* Draws masks for `units` units (D3) into the layer's part of the mask arena, and returns them. If
 * cop_masks_needed has drawn them, only returns them. Must not be called in eval mode. */
const uint16_t *cop_masks_draw(const cop_layer *layer, const cop_layer_context *c, int units);
/* True if the layer drops whole units (features, or channels of an image), the same ones in all
 * samples of a shard. */
bool cop_masks_are_shared(const cop_layer *layer);
/* Returns the mask that decides which outputs of `layer` are needed in a forward pass for training,
 * as cop_gemm.needed with one row per unit. If a mask of scope `shard` follows, it drops the same
 * units in all samples of a shard, and layers in between do not mix units. Draws the mask. NULL:
 * all outputs are needed. */
const uint16_t *cop_masks_needed(const cop_layer *layer, const cop_layer_context *c);
/* The factor for kept units in train and mc mode. It is 1 for the variant `classic`. For `inverted`
 * it is 1 / (1 - p), computed in f64 and rounded once to f32. */
float cop_masks_scale(const cop_layer *layer);
/* Copies the whole tensor x to y. If they are the same, does nothing. */
void cop_masks_copy(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y);
/* A `flop` function: one operation per value of the input. */
double cop_masks_flop(const cop_layer *layer);
/* The name of the layer's scope: "sample" or "shard". */
const char *cop_masks_scope(const cop_layer *layer);
/* Does the work of the `modes` function of a layer that multiplies by 0 or cop_masks_scale. `what`
 * names what the layer does, such as "drop" or "drop channels". */
void cop_masks_modes(const cop_layer *layer, const char *what, char train[COP_MODE_TEXT],
                     char eval[COP_MODE_TEXT]);
/* Do the work of the `graph` and `torch` functions of a layer that multiplies by 0 or
 * cop_masks_scale. `units` is the shape of one sample's mask: each of its dimensions is 1 or that
 * of x. `maps` says that the mask has one element per channel. */
cop_value cop_masks_graph(const cop_layer *layer, cop_graph *g, cop_value x,
                          const cop_shape *units);
void cop_masks_torch(const cop_layer *layer, cop_torch *out, bool maps);

#endif
