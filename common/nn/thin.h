/* Thin execution: if a mask is the same for all samples, the dropped units are left out of the
 * network, and a smaller network runs. Units that a dropout layer of scope `shard` drops are
 * removed from the weights that produce them (rows) and from the weights that multiply them
 * (columns). That requires that every layer from the mask to the product maps 0 to 0. Elsewhere,
 * and around layers that draw for each sample, units are masked and stay. Which layers are cut
 * depends on the model alone.
 *
 * The bits equal those of the masked network: the removed terms would add 0 to a chain (D4), and
 * products cut k where the full layer does. */
#ifndef COP_NN_THIN_H
#define COP_NN_THIN_H

#include "common/nn/model.h"

typedef struct cop_thin cop_thin;

/* Memory for thinned networks of a model, one at a time. *out is NULL if no layer can be cut.
 * Borrows the model. NO_MEMORY. */
cop_err cop_thin_create(const cop_model *model, const cop_kernels *kernels, cop_thin **out,
                        cop_error *error);
void cop_thin_destroy(cop_thin *thin);
/* The memory that cop_thin_create takes; 0 if no layer can be cut. */
size_t cop_thin_bytes(const cop_model *model);

/* The model's layers with fewer units. Parameters have the model's offsets in `weights`. */
typedef struct cop_thinned {
    const cop_layer *layers;
    const float *weights;
} cop_thinned;
/* Draws the masks for `key` and `step` (sample word 0) and copies the surviving weights. False:
 * this draw must run as the whole model, because some layer lost all its units, or a weight to be
 * removed is not finite (0 times infinity is not 0). *out is valid until the next call. Layers
 * without a cut equal those of the model. */
bool cop_thin_draw(cop_thin *thin, const float *weights, cop_rng_key key, uint32_t step,
                   cop_thinned *out);

/* The expected share of a layer's input and output units that survive; 1 where nothing is cut. */
typedef struct cop_thin_sides {
    double input, output;
} cop_thin_sides;
/* Computes the shares of all layers of the model; `sides` has one element per layer. */
void cop_thin_find(const cop_model *model, cop_thin_sides *sides);

#endif
