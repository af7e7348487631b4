/* The tally of an ensemble. See tally.h. */
#include "common/ensemble/tally.h"

#include <stdatomic.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"

typedef struct tally_slice {
    cop_ensemble *ensemble;
    uint32_t members;        /* so far */
    atomic_uint scored;      /* how many of the counts were reached */
    cop_ensemble_sums *sums; /* (count): at each of them */
} tally_slice;

struct cop_tally {
    cop_tally_spec spec;
    uint32_t slices;
    tally_slice *slice;
    cop_ensemble_sums *sums; /* [slices][count] */
};

static uint32_t samples_of(const cop_tally *t, uint32_t slice) {
    const uint32_t left = t->spec.samples - slice * COP_EVAL_SLICE;
    return left < COP_EVAL_SLICE ? left : COP_EVAL_SLICE;
}

static cop_err check_size(const cop_tally_spec *spec, cop_error *error) {
    const uint64_t slices = (spec->samples + (uint64_t)COP_EVAL_SLICE - 1) / COP_EVAL_SLICE;
    const uint64_t bytes = (uint64_t)spec->samples * (uint64_t)spec->classes *
                               (2 * sizeof(double) + sizeof(uint32_t)) +
                           slices * spec->count * sizeof(cop_ensemble_sums);
    if (bytes <= COP_TALLY_BYTES_MAX) return COP_OK;
    return cop_fail(error, COP_ERR_LIMIT,
                    "the averages over %u samples of %d classes need %llu MB: the limit is %u MB",
                    spec->samples, spec->classes, (unsigned long long)(bytes >> 20),
                    COP_TALLY_BYTES_MAX >> 20);
}

static cop_err allocate(cop_tally *t, cop_error *error) {
    t->slice = cop_alloc_array(t->slices, sizeof *t->slice);
    t->sums = cop_alloc_array((size_t)t->slices * t->spec.count, sizeof *t->sums);
    if (!t->slice || !t->sums) return cop_no_memory(error);
    for (uint32_t i = 0; i < t->slices; i++) {
        tally_slice *s = &t->slice[i];
        const int columns = (int)samples_of(t, i);
        COP_TRY(
            cop_ensemble_create(t->spec.average, t->spec.classes, columns, &s->ensemble, error));
        cop_ensemble_begin(s->ensemble, columns, t->spec.labels + (size_t)i * COP_EVAL_SLICE,
                           i * COP_EVAL_SLICE);
        s->sums = t->sums + (size_t)i * t->spec.count;
    }
    return COP_OK;
}

cop_err cop_tally_create(const cop_tally_spec *spec, cop_tally **out, cop_error *error) {
    COP_ASSERT(spec->samples && spec->classes > 0);
    COP_ASSERT(spec->count >= 1 && spec->count <= COP_TALLY_COUNTS_MAX && spec->counts[0] >= 1);
    *out = NULL;
    COP_TRY(check_size(spec, error));
    cop_tally *t = cop_alloc(sizeof *t);
    if (!t) return cop_no_memory(error);
    t->spec = *spec;
    t->slices = (spec->samples - 1) / COP_EVAL_SLICE + 1;
    const cop_err e = allocate(t, error);
    if (e)
        cop_tally_destroy(t);
    else
        *out = t;
    return e;
}

void cop_tally_destroy(cop_tally *t) {
    if (!t) return;
    for (uint32_t i = 0; t->slice && i < t->slices; i++) cop_ensemble_destroy(t->slice[i].ensemble);
    cop_free(t->slice);
    cop_free(t->sums);
    cop_free(t);
}

uint32_t cop_tally_slices(const cop_tally *t) {
    return t->slices;
}

static bool all_finite(const float *values, size_t count) {
    bool finite = true;
    for (size_t i = 0; i < count; i++) finite &= values[i] - values[i] == 0;
    return finite;
}

bool cop_tally_add(cop_tally *t, uint32_t slice, uint32_t members, const float *logits) {
    COP_ASSERT(slice < t->slices);
    tally_slice *s = &t->slice[slice];
    const uint32_t columns = samples_of(t, slice);
    const size_t cells = (size_t)t->spec.classes * columns;
    if (!all_finite(logits, members * cells)) return false;
    for (uint32_t i = 0; i < members; i++) {
        const uint32_t scored = atomic_load(&s->scored);
        cop_ensemble_add(s->ensemble, logits + i * cells, (int)columns);
        s->members++;
        if (scored == t->spec.count || t->spec.counts[scored] != s->members) continue;
        cop_ensemble_score(s->ensemble, &s->sums[scored]);
        atomic_store(&s->scored, scored + 1);
    }
    return true;
}

bool cop_tally_get(const cop_tally *t, uint32_t index, cop_ensemble_figures *out) {
    cop_ensemble_sums all = {0};
    COP_ASSERT(index < t->spec.count);
    for (uint32_t i = 0; i < t->slices; i++) {
        if (atomic_load(&t->slice[i].scored) <= index) return false;
        cop_ensemble_merge(&all, &t->slice[i].sums[index]);
    }
    cop_ensemble_get(&all, out);
    return true;
}
