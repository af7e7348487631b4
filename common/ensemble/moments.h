/* The mean and the standard deviation of each output over the members of an ensemble, for models
 * that output numbers instead of classes (losses mse and bce). Computed in f64, in the order of the
 * members, so they are the same on every machine. */
#ifndef COP_ENSEMBLE_MOMENTS_H
#define COP_ENSEMBLE_MOMENTS_H

#include <stdbool.h>

#include "common/base/err.h"

/* Accumulates the members' outputs for up to max_columns samples at a time. Use one per thread. */
typedef struct cop_moments cop_moments;
/* `sigmoid`: use 1 / (1 + exp(-z)) instead of the outputs z, because the loss bce takes logits. */
cop_err cop_moments_create(int outputs, bool sigmoid, int max_columns, cop_moments **out,
                           cop_error *error);
void cop_moments_destroy(cop_moments *moments);
/* Starts again with `columns` other samples. */
void cop_moments_begin(cop_moments *moments, int columns);
/* Adds one member: outputs [outputs][ld], feature-major, ld >= columns. */
void cop_moments_add(cop_moments *moments, const float *outputs, int ld);
/* The results for the members so far (at least one), [outputs][columns], owned by `moments` and
 * valid until its next call. Deviations are sqrt(sum_m (z_m - mean)^2 / (K - 1)), or 0 for one
 * member. They are computed by Welford's recurrence (1962), which stays accurate if members differ
 * little. */
const double *cop_moments_means(const cop_moments *moments);
const double *cop_moments_deviations(cop_moments *moments);

#endif
