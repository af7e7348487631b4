/* Thin execution: if a mask is the same for all samples, the dropped units are left out of the
 * network, and a smaller network runs. If a dropout layer of scope `shard` drops a unit, the row
 * that produces the unit is removed from the weights before the mask, and the column that
 * multiplies it from the weights after the mask. This requires that every layer between the mask
 * and the weights after it maps 0 to 0. Where it does not, and for masks that differ between
 * samples, all units stay and dropped ones are set to 0. Which layers are cut depends on the model
 * alone.
 *
 * The outputs have the same bits as those of the masked network. The removed terms would only add 0
 * to a chain of additions (D4), and the sums of a product are cut into blocks (cop_gemm.blocks) at
 * the same terms as those of the full layer. */
#ifndef COP_NN_THIN_H
#define COP_NN_THIN_H

#include "common/nn/model.h"

typedef struct cop_thin cop_thin;

/* Allocates the memory for one thinned network of the model at a time. Sets *out to NULL if no
 * layer of the model can be cut. Borrows the model. The only error is NO_MEMORY. */
cop_err cop_thin_create(const cop_model *model, const cop_kernels *kernels, cop_thin **out,
                        cop_error *error);
void cop_thin_destroy(cop_thin *thin);
/* The memory that cop_thin_create takes; 0 if no layer can be cut. */
size_t cop_thin_bytes(const cop_model *model);

/* The model's layers, some of them with fewer units. Each parameter is at the same offset in
 * `weights` as in the model's flat buffer. */
typedef struct cop_thinned {
    const cop_layer *layers;
    const float *weights;
} cop_thinned;
/* Draws the masks for `key` and `step`, with sample word 0, and copies the surviving weights. *out
 * is valid until the next call; its layers without a cut equal those of the model. Returns false if
 * this draw must run as the whole model with masks: if a cut lost all its units, or if a row from
 * which weights would be removed has a value that is not finite (0 times infinity is not 0). */
bool cop_thin_draw(cop_thin *thin, const float *weights, cop_rng_key key, uint32_t step,
                   cop_thinned *out);

/* The expected shares of a layer's input units and of its output units that survive. A share is 1
 * where nothing is cut. */
typedef struct cop_thin_sides {
    double input, output;
} cop_thin_sides;
/* Computes the shares of all layers of the model; `sides` has one element per layer. */
void cop_thin_find(const cop_model *model, cop_thin_sides *sides);

#endif
