/* The figures of an ensemble over a whole evaluated part, which is divided into slices of
 * COP_EVAL_SLICE samples (D10). Within a slice, members and samples are added in ascending order,
 * and the slices are merged in ascending order. So the bits of the figures do not depend on who
 * computed the members, or on which slice was complete first. The coordinator uses this, and so
 * does the client when it evaluates in its own process. */
#ifndef COP_ENSEMBLE_SLICES_H
#define COP_ENSEMBLE_SLICES_H

#include <stdbool.h>

#include "common/ensemble/ensemble.h"

enum { COP_ENSEMBLE_COUNTS_MAX = 32 };

typedef struct cop_ensemble_slices_spec {
    cop_average average;
    int classes;
    uint32_t samples;      /* the number of samples in the part */
    const int32_t *labels; /* (samples), borrowed for as long as the slices exist */
    /* The numbers of members for which there are figures. They are at least 1 and strictly
     * ascending. */
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX];
    uint32_t count; /* how many elements of `counts` are set: at least 1 */
} cop_ensemble_slices_spec;

typedef struct cop_ensemble_slices cop_ensemble_slices;
/* Allocates all the memory that the slices will ever need. LIMIT: that would be more than
 * COP_ENSEMBLE_BYTES_MAX bytes. NO_MEMORY. The caller owns *out, which is NULL after an error. */
cop_err cop_ensemble_slices_create(const cop_ensemble_slices_spec *spec, cop_ensemble_slices **out,
                                   cop_error *error);
void cop_ensemble_slices_destroy(cop_ensemble_slices *slices); /* does nothing for NULL */
/* The number of slices: samples / COP_EVAL_SLICE, rounded up. */
uint32_t cop_ensemble_slices_count(const cop_ensemble_slices *slices);
/* Adds the next `members` members to a slice. Their logits are [members][classes][samples of the
 * slice]. If a logit is not finite, adds nothing and returns false. Threads may add to different
 * slices at the same time, but not to the same slice. */
bool cop_ensemble_slices_add(cop_ensemble_slices *slices, uint32_t slice, uint32_t members,
                             const float *logits);
/* Computes the figures for the first spec.counts[index] members and returns true. Returns false if
 * some slice does not have that many members yet. Any thread may call it. */
bool cop_ensemble_slices_get(const cop_ensemble_slices *slices, uint32_t index,
                             cop_ensemble_figures *out);

#endif
