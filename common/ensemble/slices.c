/* An ensemble over a whole part, slice by slice. See slices.h. */
#include "common/ensemble/slices.h"

#include <stdatomic.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"

typedef struct slice_state {
    cop_ensemble *ensemble;
    uint32_t members;        /* the number of members added so far */
    atomic_uint scored;      /* how many elements of spec.counts were reached */
    cop_ensemble_sums *sums; /* (count): the sums over the slice for each of spec.counts */
} slice_state;

struct cop_ensemble_slices {
    cop_ensemble_slices_spec spec;
    uint32_t slices;
    slice_state *slice;
    cop_ensemble_sums *sums; /* [slices][count]: the memory of all slice_state.sums */
};

static uint32_t samples_of(const cop_ensemble_slices *all, uint32_t slice) {
    COP_ASSERT(slice < all->slices);
    const uint32_t rest = all->spec.samples - slice * COP_EVAL_SLICE;
    return rest < COP_EVAL_SLICE ? rest : COP_EVAL_SLICE;
}

static cop_err check_size(const cop_ensemble_slices_spec *spec, cop_error *error) {
    const uint64_t slices = (spec->samples + (uint64_t)COP_EVAL_SLICE - 1) / COP_EVAL_SLICE;
    const uint64_t bytes = (uint64_t)spec->samples * (uint64_t)spec->classes *
                               (2 * sizeof(double) + sizeof(uint32_t)) +
                           slices * spec->count * sizeof(cop_ensemble_sums);
    if (bytes <= COP_ENSEMBLE_BYTES_MAX) return COP_OK;
    return cop_fail(error, COP_ERR_LIMIT,
                    "the averages over %u samples of %d classes need %llu MB: the limit is %u MB",
                    spec->samples, spec->classes, (unsigned long long)(bytes >> 20),
                    COP_ENSEMBLE_BYTES_MAX >> 20);
}

static cop_err allocate(cop_ensemble_slices *all, cop_error *error) {
    const cop_ensemble_slices_spec *spec = &all->spec;
    all->slice = cop_alloc_array(all->slices, sizeof *all->slice);
    all->sums = cop_alloc_array((size_t)all->slices * spec->count, sizeof *all->sums);
    if (!all->slice || !all->sums) return cop_no_memory(error);
    for (uint32_t i = 0; i < all->slices; i++) {
        slice_state *s = &all->slice[i];
        const int columns = (int)samples_of(all, i);
        COP_TRY(cop_ensemble_create(spec->average, spec->classes, columns, &s->ensemble, error));
        cop_ensemble_begin(s->ensemble, columns, spec->labels + (size_t)i * COP_EVAL_SLICE,
                           i * COP_EVAL_SLICE);
        s->sums = all->sums + (size_t)i * spec->count;
    }
    return COP_OK;
}

cop_err cop_ensemble_slices_create(const cop_ensemble_slices_spec *spec, cop_ensemble_slices **out,
                                   cop_error *error) {
    COP_ASSERT(spec->samples && spec->classes > 0 && spec->labels);
    COP_ASSERT(spec->count >= 1 && spec->count <= COP_ENSEMBLE_COUNTS_MAX && spec->counts[0] >= 1);
    for (uint32_t i = 1; i < spec->count; i++) COP_ASSERT(spec->counts[i] > spec->counts[i - 1]);
    *out = NULL;
    COP_TRY(check_size(spec, error));
    cop_ensemble_slices *all = cop_alloc(sizeof *all);
    if (!all) return cop_no_memory(error);
    all->spec = *spec;
    all->slices = (spec->samples - 1) / COP_EVAL_SLICE + 1;
    const cop_err e = allocate(all, error);
    if (e)
        cop_ensemble_slices_destroy(all);
    else
        *out = all;
    return e;
}

void cop_ensemble_slices_destroy(cop_ensemble_slices *all) {
    if (!all) return;
    for (uint32_t i = 0; all->slice && i < all->slices; i++)
        cop_ensemble_destroy(all->slice[i].ensemble);
    cop_free(all->slice);
    cop_free(all->sums);
    cop_free(all);
}

uint32_t cop_ensemble_slices_count(const cop_ensemble_slices *all) {
    return all->slices;
}

static bool all_finite(const float *values, size_t count) {
    bool finite = true;
    for (size_t i = 0; i < count; i++) finite &= values[i] - values[i] == 0;
    return finite;
}

bool cop_ensemble_slices_add(cop_ensemble_slices *all, uint32_t slice, uint32_t members,
                             const float *logits) {
    COP_ASSERT(slice < all->slices);
    slice_state *s = &all->slice[slice];
    const cop_ensemble_slices_spec *spec = &all->spec;
    const uint32_t columns = samples_of(all, slice);
    const size_t cells = (size_t)spec->classes * columns;
    if (!all_finite(logits, members * cells)) return false;
    for (uint32_t i = 0; i < members; i++) {
        const uint32_t scored = atomic_load(&s->scored);
        cop_ensemble_add(s->ensemble, logits + i * cells, (int)columns);
        s->members++;
        if (scored == spec->count || spec->counts[scored] != s->members) continue;
        cop_ensemble_score(s->ensemble, &s->sums[scored]);
        atomic_store(&s->scored, scored + 1);
    }
    return true;
}

bool cop_ensemble_slices_get(const cop_ensemble_slices *all, uint32_t index,
                             cop_ensemble_figures *out) {
    cop_ensemble_sums sums = {0};
    COP_ASSERT(index < all->spec.count);
    for (uint32_t i = 0; i < all->slices; i++) {
        if (atomic_load(&all->slice[i].scored) <= index) return false;
        cop_ensemble_merge(&sums, &all->slice[i].sums[index]);
    }
    COP_ASSERT(sums.samples == all->spec.samples);
    cop_ensemble_get(&sums, out);
    return true;
}
