/* Statistics of a layer's units over many samples: their activity and the correlation between them
 * (Srivastava et al. 2014, sections 7.1 and 7.2). Sums are f64, in the order of the samples. */
#ifndef COP_ENSEMBLE_FEATURES_H
#define COP_ENSEMBLE_FEATURES_H

#include <stdint.h>

#include "common/base/err.h"

typedef struct cop_features cop_features;

/* If the output is an image, a unit is a channel, and each pixel counts as a sample. */
typedef struct cop_feature_figures {
    double mean;  /* the mean activation over all units and samples */
    double zeros; /* the share of all activations that are 0 */
    double dead;  /* the share of units whose activation is 0 for every sample */
    /* The mean absolute value of Pearson's correlation, over all pairs of varying units. NaN if
     * there is no such pair. */
    double correlation;
    uint64_t samples;
    int units;
    int varying; /* the number of units whose activation is not the same for all samples */
} cop_feature_figures;

/* Allocates memory for all pairs of units. The only error is NO_MEMORY. Free with
 * cop_features_destroy. */
cop_err cop_features_create(int units, cop_features **out, cop_error *error);
void cop_features_destroy(cop_features *features);
/* Adds the first `columns` columns of values [units * places][ld], feature-major. Each unit has
 * `places` rows: its pixels in an image, one row if the output is flat. */
void cop_features_add(cop_features *features, const float *values, int places, int columns, int ld);
/* Computes the statistics of the samples so far. If there are none, all statistics are 0, except
 * that the correlation is NaN. */
void cop_features_get(const cop_features *features, cop_feature_figures *out);

#endif
