/* Losses: their names, and how losses of samples become one number (D7). */
#ifndef COP_NN_LOSS_H
#define COP_NN_LOSS_H

#include "common/nn/model.h"

/* "cross_entropy", "mse", "bce"; "unknown" for anything else. */
const char *cop_loss_name(cop_loss_kind kind);
/* UNSUPPORTED or INPUT with a sentence unless a model can be trained with `kind` and `smoothing`,
 * on labels or on its own input. */
cop_err cop_loss_check(cop_loss_kind kind, double smoothing, bool target_input, cop_error *error);
/* D7: values[0 .. tree->count) combined in f64 in the order of the tree (kernel.h). The pass uses
 * it for the shards of a block, the coordinator for the blocks of a step. */
double cop_loss_combine(const cop_tree *tree, const double *values);
/* Sum of count f32 losses in f64, in order, from 0. */
double cop_loss_sum(const float *losses, int count);

#endif
