/* Losses: their names, the check of their settings, and the sums over samples and shards (D7). */
#ifndef COP_NN_LOSS_H
#define COP_NN_LOSS_H

#include "common/nn/model.h"

/* The name of a loss in the job file, such as "mse". "unknown" if no loss has this number. */
const char *cop_loss_name(cop_loss_kind kind);
/* Checks that a model can be trained with this loss and smoothing, on labels or on its own input.
 * UNSUPPORTED: the loss is unknown. INPUT: the settings contradict each other, or smoothing is not
 * at least 0 and below 1. */
cop_err cop_loss_check(cop_loss_kind kind, double smoothing, bool target_input, cop_error *error);
/* Adds the values of the tree's leaves in f64, in the order of the tree (D7, kernel.h). The pass
 * adds the losses of a block's shards with it, and the coordinator the losses of a step's
 * blocks. */
double cop_loss_combine(const cop_tree *tree, const double *values);
/* Adds `count` f32 losses in f64, in order. */
double cop_loss_sum(const float *losses, int count);

#endif
