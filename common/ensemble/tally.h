/* The tally of an ensemble's members over a whole evaluated part, in slices of COP_EVAL_SLICE
 * samples (D10): members are added in their order within a slice, samples in theirs, slices are
 * merged in order. So the figures are the same, bit for bit, whoever computed the members and
 * whenever they came. The coordinator and the client's own process share it. */
#ifndef COP_ENSEMBLE_TALLY_H
#define COP_ENSEMBLE_TALLY_H

#include <stdbool.h>

#include "common/ensemble/ensemble.h"

enum { COP_TALLY_COUNTS_MAX = 32 };

typedef struct cop_tally_spec {
    cop_average average;
    int classes;
    uint32_t samples;
    const int32_t *labels; /* (samples), borrowed */
    /* figures are taken after so many members: ascending, each once, at least one */
    uint32_t counts[COP_TALLY_COUNTS_MAX], count;
} cop_tally_spec;

typedef struct cop_tally cop_tally;
/* Takes all memory that it needs; LIMIT when that is more than COP_TALLY_BYTES_MAX. */
cop_err cop_tally_create(const cop_tally_spec *spec, cop_tally **out, cop_error *error);
void cop_tally_destroy(cop_tally *tally); /* NULL is fine */
uint32_t cop_tally_slices(const cop_tally *tally);
/* The next `members` members of a slice: logits [members][classes][samples of the slice]. False,
 * and nothing is added, if one is not finite. Calls for different slices may come at the same time,
 * those for one slice must not. */
bool cop_tally_add(cop_tally *tally, uint32_t slice, uint32_t members, const float *logits);
/* The figures after spec.counts[index] members; false: not all slices have so many yet. Any thread.
 */
bool cop_tally_get(const cop_tally *tally, uint32_t index, cop_ensemble_figures *out);

#endif
