/* What members of an ensemble say in numbers rather than classes (losses mse and bce): mean and
 * standard deviation of each output. In f64, in the order of the members: the same on every
 * machine. */
#ifndef COP_ENSEMBLE_SPREAD_H
#define COP_ENSEMBLE_SPREAD_H

#include <stdbool.h>

#include "common/base/err.h"

/* Accumulates members for up to max_columns samples at a time. One per thread. */
typedef struct cop_spread cop_spread;
/* `sigmoid`: of 1 / (1 + exp(-z)) rather than of the outputs z (loss bce, which applies it itself).
 */
cop_err cop_spread_create(int outputs, bool sigmoid, int max_columns, cop_spread **out,
                          cop_error *error);
void cop_spread_destroy(cop_spread *spread);
/* Forgets what there is; the next members are about `columns` samples. */
void cop_spread_begin(cop_spread *spread, int columns);
/* One more member: outputs [outputs][ld], feature-major. */
void cop_spread_add(cop_spread *spread, const float *outputs, int ld);
/* Of the members so far, [outputs][columns] (borrowed). Deviations are sqrt(sum_m (z_m - mean)^2 /
 * (K - 1)), with one member 0; by Welford's recurrence (1962), which loses nothing where members
 * differ little. */
const double *cop_spread_means(const cop_spread *spread);
const double *cop_spread_deviations(cop_spread *spread);

#endif
