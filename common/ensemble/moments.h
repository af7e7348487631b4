/* The mean and the standard deviation of each output over the members of an ensemble, for models
 * that output numbers instead of classes (losses mse and bce). Computed in f64, in the order of the
 * members, so they are the same on every machine. */
#ifndef COP_ENSEMBLE_MOMENTS_H
#define COP_ENSEMBLE_MOMENTS_H

#include <stdbool.h>

#include "common/base/err.h"

/* Accumulates the members' outputs for up to max_columns samples at a time. Use one per thread. */
typedef struct cop_moments cop_moments;
/* With `sigmoid`, the statistics are of 1 / (1 + exp(-z)) instead of the outputs z. That is for the
 * loss bce, whose outputs are logits. The only error is NO_MEMORY. */
cop_err cop_moments_create(int outputs, bool sigmoid, int max_columns, cop_moments **out,
                           cop_error *error);
void cop_moments_destroy(cop_moments *moments);
/* Forgets all members and starts again with `columns` other samples. */
void cop_moments_begin(cop_moments *moments, int columns);
/* Adds one member. Its outputs are [outputs][ld], feature-major, with ld >= columns. */
void cop_moments_add(cop_moments *moments, const float *outputs, int ld);
/* Return the means and the standard deviations over the members so far, [outputs][columns]. There
 * must be at least one member. The results belong to `moments` and are valid until its next begin
 * or add. The deviation over K members is sqrt(sum_m (z_m - mean)^2 / (K - 1)), or 0 for one
 * member. It is computed by Welford's recurrence (1962), which stays accurate if members differ
 * little. */
const double *cop_moments_means(const cop_moments *moments);
const double *cop_moments_deviations(cop_moments *moments);

#endif
