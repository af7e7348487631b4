/* Thin execution: where a mask is the same for all samples, the network that it leaves is a smaller
 * one, and runs as such. Units that a dropout layer of scope `shard` drops are left out of the
 * layers around it: of the weights that make them (rows) and of those that would multiply them
 * (columns). Only where everything from the mask to the product makes 0 of 0; otherwise, and around
 * layers that draw for each sample, units are masked and stay. Which layers are cut depends on the
 * model alone.
 *
 * The bits are those of the masked network: what is left out would add 0 to a chain (D4), and
 * products cut k where the full layer would. */
#ifndef COP_NN_THIN_H
#define COP_NN_THIN_H

#include "common/nn/model.h"

typedef struct cop_thin cop_thin;

/* Room for thinned networks of a model. *out is NULL where no layer of it is ever cut. */
cop_err cop_thin_create(const cop_model *model, const cop_kernels *kernels, cop_thin **out,
                        cop_error *error);
void cop_thin_destroy(cop_thin *thin);
size_t cop_thin_bytes(const cop_model *model);

/* A network with the layers of the model, smaller; its parameters have the model's offsets. */
typedef struct cop_thinned {
    const cop_layer *layers;
    const float *weights;
} cop_thinned;
/* Draws the masks of `key` and `step` (sample word 0) and gathers what they leave of `weights`.
 * False: this one cannot be thinned, because nothing is left of some layer, or a weight that would
 * be left out is not finite (0 times infinity is no 0). *out holds until the next call; layers
 * without a cut are the model's own. */
bool cop_thin_draw(cop_thin *thin, const float *weights, cop_rng_key key, uint32_t step,
                   cop_thinned *out);

/* Which share of a layer's input and output survives on average when the model is thinned; 1 where
 * it is not cut. */
typedef struct cop_thin_sides {
    double input, output;
} cop_thin_sides;
void cop_thin_find(const cop_model *model, cop_thin_sides *sides /* one per layer */);

#endif
