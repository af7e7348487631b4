/* What members of an ensemble say in numbers rather than classes (losses mse and bce): mean and
 * standard deviation of each output. In f64, in the order of the members: the same on every
 * machine. */
#ifndef COP_ENSEMBLE_MOMENTS_H
#define COP_ENSEMBLE_MOMENTS_H

#include <stdbool.h>

#include "common/base/err.h"

/* Accumulates members for up to max_columns samples at a time. One per thread. */
typedef struct cop_moments cop_moments;
/* `sigmoid`: of 1 / (1 + exp(-z)) rather than of the outputs z (loss bce, which applies it itself).
 */
cop_err cop_moments_create(int outputs, bool sigmoid, int max_columns, cop_moments **out,
                           cop_error *error);
void cop_moments_destroy(cop_moments *moments);
/* Forgets what there is; the next members are about `columns` samples. */
void cop_moments_begin(cop_moments *moments, int columns);
/* One more member: outputs [outputs][ld], feature-major. */
void cop_moments_add(cop_moments *moments, const float *outputs, int ld);
/* Of the members so far, [outputs][columns] (borrowed). Deviations are sqrt(sum_m (z_m - mean)^2 /
 * (K - 1)), with one member 0; by Welford's recurrence (1962), which loses nothing where members
 * differ little. */
const double *cop_moments_means(const cop_moments *moments);
const double *cop_moments_deviations(cop_moments *moments);

#endif
