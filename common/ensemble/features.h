/* Statistics of a layer's units over many samples: their activity and the correlation between them
 * (Srivastava et al. 2014, sections 7.1 and 7.2). Sums are f64, in the order of the samples. */
#ifndef COP_ENSEMBLE_FEATURES_H
#define COP_ENSEMBLE_FEATURES_H

#include <stdint.h>

#include "common/base/err.h"

typedef struct cop_features cop_features;

/* If the output is an image, a unit is a channel, and each pixel counts as a sample. */
typedef struct cop_feature_figures {
    double mean;        /* mean activation, over units and samples */
    double zeros;       /* share of activations that are 0 */
    double dead;        /* share of units that are 0 for every sample */
    double correlation; /* mean |Pearson| over all pairs of varying units; NaN: there is no pair */
    uint64_t samples;
    int units, varying; /* varying: units whose activation is not constant */
} cop_feature_figures;

/* Allocates memory for all pairs of units. NO_MEMORY. Free with cop_features_destroy. */
cop_err cop_features_create(int units, cop_features **out, cop_error *error);
void cop_features_destroy(cop_features *features);
/* Adds `columns` columns of values [units * places][ld], feature-major: each unit has `places` rows
 * (pixels; 1 if the output is flat). */
void cop_features_add(cop_features *features, const float *values, int places, int columns, int ld);
/* Computes the statistics of the samples so far; all 0, with correlation NaN, if there are none. */
void cop_features_get(const cop_features *features, cop_feature_figures *out);

#endif
