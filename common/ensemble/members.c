/* The outputs of members on a slice of samples. See members.h. */
#include "common/ensemble/members.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/nn/thin.h"

#define COLUMNS_MIN 125
/* The memory of a pass, not counting a thinned network. If more would be needed, the pass runs
 * fewer columns at a time, but at least COLUMNS_MIN. */
#define PASS_BYTES ((size_t)64 << 20)

struct cop_members {
    cop_pass *pass;
    int columns, outputs;
};

cop_err cop_members_check(const cop_model *model, bool thinned, cop_error *error) {
    if (!cop_model_has_classes(model) || cop_model_loss(model) != COP_LOSS_CROSS_ENTROPY)
        return cop_fail(error, COP_ERR_INPUT,
                        "an ensemble averages class probabilities, but this model has none: its "
                        "loss is %s, expected cross_entropy",
                        cop_model_loss(model) == COP_LOSS_MSE ? "mse"
                                                              : "bce, or its target is the input");
    if (!thinned || cop_model_draws(model)) return COP_OK;
    return cop_fail(
        error, COP_ERR_INPUT,
        "the model has no random layer (dropout, dropconnect ...): all its members would be equal");
}

cop_err cop_members_create(const cop_model *model, const cop_kernels *kernels,
                           cop_numerics numerics, cop_members **out, cop_error *error) {
    cop_members *m = cop_alloc(sizeof *m);
    *out = NULL;
    if (!m) return cop_no_memory(error);
    m->outputs = cop_model_outputs(model);
    m->columns = COP_EVAL_SLICE;
    const size_t fixed = cop_thin_bytes(model); /* does not depend on the columns */
    while (m->columns > COLUMNS_MIN &&
           cop_pass_bytes(model, m->columns, COP_PASS_MEMBERS) > PASS_BYTES + fixed)
        m->columns /= 2;
    const cop_err e =
        cop_pass_create(model, kernels, numerics, m->columns, COP_PASS_MEMBERS, &m->pass, error);
    if (e)
        cop_free(m);
    else
        *out = m;
    return e;
}

void cop_members_destroy(cop_members *m) {
    if (!m) return;
    cop_pass_destroy(m->pass);
    cop_free(m);
}

void cop_members_run(cop_members *m, const cop_member_work *work, float *out, size_t out_ld) {
    const cop_samples *all = &work->samples;
    COP_ASSERT(all->count >= 1 && all->count <= COP_EVAL_SLICE && out_ld >= (size_t)all->count);
    const bool whole = work->member == COP_MEMBER_WHOLE;
    if (!whole) cop_pass_member_begin(m->pass, work->weights, work->place.seed, work->member);
    for (int at = 0; at < all->count; at += m->columns) {
        cop_samples part = *all;
        cop_eval_place place = work->place;
        int ld;
        part.count = all->count - at < m->columns ? all->count - at : m->columns;
        part.rows = (const char *)all->rows + (size_t)at * all->stride;
        if (all->labels) part.labels = all->labels + at;
        place.first_sample += (uint32_t)at;
        const float *z = whole ? cop_pass_logits(m->pass, work->weights, &place, &part, &ld)
                               : cop_pass_member_logits(m->pass, place.first_sample, &part, &ld);
        for (int k = 0; k < m->outputs; k++)
            memcpy(out + (size_t)k * out_ld + at, z + (size_t)k * (size_t)ld,
                   (size_t)part.count * sizeof *out);
    }
}
