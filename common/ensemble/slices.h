/* The figures of an ensemble over a whole evaluated part, in slices of COP_EVAL_SLICE samples
 * (D10). Within a slice, members and samples are added in their order, and the slices are merged in
 * theirs. So the figures are the same bit for bit, no matter who computed the members and when they
 * arrived. The coordinator uses this, and the client when it evaluates in its own process. */
#ifndef COP_ENSEMBLE_SLICES_H
#define COP_ENSEMBLE_SLICES_H

#include <stdbool.h>

#include "common/ensemble/ensemble.h"

enum { COP_ENSEMBLE_COUNTS_MAX = 32 };

typedef struct cop_ensemble_slices_spec {
    cop_average average;
    int classes;
    uint32_t samples;
    const int32_t *labels; /* (samples), borrowed for as long as the slices exist */
    /* The figures are taken after each of these numbers of members: at least one, strictly
     * ascending. */
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX], count;
} cop_ensemble_slices_spec;

typedef struct cop_ensemble_slices cop_ensemble_slices;
/* Allocates all the memory that the slices will ever need. LIMIT: it would be more than
 * COP_ENSEMBLE_BYTES_MAX. The caller owns *out, which is NULL after an error. */
cop_err cop_ensemble_slices_create(const cop_ensemble_slices_spec *spec, cop_ensemble_slices **out,
                                   cop_error *error);
void cop_ensemble_slices_destroy(cop_ensemble_slices *slices); /* NULL has no effect */
/* The number of slices: samples / COP_EVAL_SLICE, rounded up. */
uint32_t cop_ensemble_slices_count(const cop_ensemble_slices *slices);
/* Adds the next `members` members of a slice: logits [members][classes][samples of the slice].
 * False: a logit is not finite, and nothing was added. Threads may add to different slices at the
 * same time, but not to the same one. */
bool cop_ensemble_slices_add(cop_ensemble_slices *slices, uint32_t slice, uint32_t members,
                             const float *logits);
/* The figures after spec.counts[index] members. False: some slice does not have that many members
 * yet. Any thread. */
bool cop_ensemble_slices_get(const cop_ensemble_slices *slices, uint32_t index,
                             cop_ensemble_figures *out);

#endif
