/* Figures about the units of a layer over many samples: how active they are, and how much they say
 * the same (Srivastava et al. 2014, sections 7.1 and 7.2). Sums in f64, in the order of the
 * samples. */
#ifndef COP_ENSEMBLE_FEATURES_H
#define COP_ENSEMBLE_FEATURES_H

#include <stdint.h>

#include "common/base/err.h"

typedef struct cop_features cop_features;

/* A unit of an image-shaped output is a channel: its positions count as samples of it. */
typedef struct cop_feature_figures {
    double mean;        /* activation, over units and samples */
    double zeros;       /* share of activations that are 0 */
    double dead;        /* share of units that are 0 for every sample */
    double correlation; /* mean |Pearson| over all pairs of units that vary; NaN without a pair */
    uint64_t samples;
    int units, varying;
} cop_feature_figures;

cop_err cop_features_create(int units, cop_features **out, cop_error *error);
void cop_features_destroy(cop_features *features);
/* Adds the columns of values [units * places][ld], feature-major; each unit has `places` rows. */
void cop_features_add(cop_features *features, const float *values, int places, int columns, int ld);
void cop_features_get(const cop_features *features, cop_feature_figures *out);

#endif
