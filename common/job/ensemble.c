/* Names and checks of ensembles. See ensemble.h. */
#include "common/job/ensemble.h"

#include <stdio.h>
#include <string.h>

#include "common/base/str.h"

static const char *const names[] = {
    [0] = "weight-scaling",
    [COP_AVERAGE_ARITHMETIC] = "arithmetic",
    [COP_AVERAGE_GEOMETRIC] = "geometric",
};

bool cop_average_parse(const char *name, cop_average *out) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (cop_average)i;
        return true;
    }
    return false;
}

const char *cop_average_name(cop_average average) {
    COP_ASSERT((size_t)average < sizeof names / sizeof *names);
    return names[average];
}

/* Writes a text like "1 x 28 x 28 bytes" or "17 numbers". */
static void describe_samples(const cop_job *job, char *out, size_t size) {
    const Coppice__Pinned *p = job->message->pinned;
    out[0] = '\0';
    for (size_t i = 0; i < p->n_input; i++)
        cop_text_append(out, size, "%s%u", i ? " x " : "", p->input[i]);
    cop_text_append(out, size, " %s", job->sample_type == COP_DTYPE_U8 ? "bytes" : "numbers");
}

cop_err cop_job_check_together(cop_named_job a, cop_named_job b, bool same_data, cop_error *error) {
    const Coppice__Pinned *pa = a.job->message->pinned, *pb = b.job->message->pinned;
    char shape_a[80], shape_b[80];
    describe_samples(a.job, shape_a, sizeof shape_a);
    describe_samples(b.job, shape_b, sizeof shape_b);
    if (strcmp(shape_a, shape_b) != 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s takes samples of %s, but %s takes samples of %s: all members of an "
                        "ensemble must take the same samples",
                        b.name, shape_b, a.name, shape_a);
    if (pa->classes != pb->classes)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s has %u classes, but %s has %u: all members of an ensemble must have "
                        "the same classes",
                        b.name, pb->classes, a.name, pa->classes);
    if (same_data && strcmp(pa->data_digest, pb->data_digest) != 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "%s was trained on the data set %.12s, but %s on %.12s: specify with "
                        "--data the data set to evaluate on",
                        b.name, pb->data_digest, a.name, pa->data_digest);
    return COP_OK;
}

void cop_job_ensemble_row(const cop_ensemble_figures *f, uint32_t members,
                          Coppice__Api__EnsembleFigures *out) {
    COP_ASSERT(members >= 1);
    coppice__api__ensemble_figures__init(out);
    out->has_members = out->has_error = out->has_error_se = out->has_nll = out->has_nll_se =
        out->has_brier = out->has_brier_se = out->has_ece = out->has_ece_se =
            out->has_disagreement = out->has_disagreement_se = 1;
    out->members = members;
    out->error = f->wrong.value;
    out->error_se = f->wrong.error;
    out->nll = f->nll.value;
    out->nll_se = f->nll.error;
    out->brier = f->brier.value;
    out->brier_se = f->brier.error;
    out->ece = f->ece.value;
    out->ece_se = f->ece.error;
    out->disagreement = f->disagreement.value;
    out->disagreement_se = f->disagreement.error;
}
