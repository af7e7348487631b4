/* Checks rules that concern more than one field of a job file: relations between fields, and fields
 * that only some formats of the data have. See internal.h. */
#include <string.h>

#include "common/base/limits.h"
#include "common/job/internal.h"

static uint32_t divide_up(uint32_t a, uint32_t b) {
    COP_ASSERT(b > 0);
    return a / b + (a % b != 0);
}

static cop_err check_train(const Coppice__Job *m, cop_error *error) {
    const Coppice__Train *t = m->train;
    if (t->has_epochs && t->has_steps)
        return cop_document_fail(m, "train.steps", error,
                                 "train has both epochs and steps: expected one of them");
    if (!t->has_epochs && !t->has_steps)
        return cop_document_fail(m, "train", error,
                                 "train has neither epochs nor steps: expected one of them");
    if (t->shards > t->batch)
        return cop_document_fail(m, "train.shards", error,
                                 "train.shards is %u: a batch of %u samples gives at most %u "
                                 "shards",
                                 t->shards, t->batch, t->batch);
    uint32_t shard = divide_up(t->batch, t->shards);
    if (shard > COP_LEASE_SAMPLES_MAX)
        return cop_document_fail(m, "train.shards", error,
                                 "train.shards is %u: a shard of %u samples is more than the %d "
                                 "that one lease may hold; expected at least %u shards",
                                 t->shards, shard, COP_LEASE_SAMPLES_MAX,
                                 divide_up(t->batch, COP_LEASE_SAMPLES_MAX));
    return COP_OK;
}

static cop_err check_sgd(const Coppice__Job *m, const Coppice__Sgd *s, cop_error *error) {
    if (s->nesterov && s->momentum == 0)
        return cop_document_fail(m, "optimizer.sgd.nesterov", error,
                                 "optimizer.sgd.nesterov is true: it needs a momentum above 0");
    if (s->has_momentum_final && !s->momentum_steps)
        return cop_document_fail(m, "optimizer.sgd.momentum_final", error,
                                 "optimizer.sgd.momentum_final is given: expected momentum_steps, "
                                 "too, the number of steps in which the momentum changes");
    if (s->has_momentum_final && s->momentum == 0)
        return cop_document_fail(m, "optimizer.sgd.momentum_final", error,
                                 "optimizer.sgd.momentum_final is given: expected a momentum above "
                                 "0 for the first step");
    return COP_OK;
}

/* cross_entropy needs labels, and bce needs targets from 0 to 1. */
static cop_err check_loss(const Coppice__Job *m, cop_error *error) {
    const bool input = m->data->target == COPPICE__DATA__TARGET__INPUT;
    if (input && m->loss->cross_entropy)
        return cop_document_fail(m, "data.target", error,
                                 "data.target is input, but loss is cross_entropy, which compares "
                                 "with labels: expected mse or bce");
    if (input && m->loss->bce && m->data->normalize != COPPICE__DATA__NORMALIZE__UNIT)
        return cop_document_fail(m, "data.normalize", error,
                                 "data.normalize gives targets outside 0 to 1, but loss is bce: "
                                 "expected normalize: unit, or loss: mse");
    return COP_OK;
}

cop_err job_check_format_fields(const Coppice__Job *m, cop_error *error) {
    const Coppice__Data *d = m->data;
    const char *source = d->source;
    const bool csv = strcmp(source, "csv") == 0, folder = strcmp(source, "image-folder") == 0,
               arrays = strcmp(source, "npy") == 0 || strcmp(source, "idx") == 0;
    if (d->label && !csv)
        return cop_document_fail(m, "data.label", error,
                                 "data.label names a column, but data.source is %.60s: only csv "
                                 "has columns",
                                 source);
    if (d->n_drop && !csv)
        return cop_document_fail(m, "data.drop", error,
                                 "data.drop names columns, but data.source is %.60s: only csv has "
                                 "columns",
                                 source);
    if (d->has_layout && !arrays)
        return cop_document_fail(
            m, "data.layout", error,
            "data.layout applies only to arrays, but data.source is %.60s: expected npy or idx",
            source);
    if (d->n_resize && !folder)
        return cop_document_fail(
            m, "data.resize", error,
            "data.resize applies only to images, but data.source is %.60s: expected image-folder",
            source);
    if (d->n_resize && d->n_resize != 2)
        return cop_document_fail(m, "data.resize", error,
                                 "data.resize has 1 item: expected two, [height, width]");
    return COP_OK;
}

void job_settle_normalize(Coppice__Job *m, const cop_data *data) {
    if (m->data->normalize != COPPICE__DATA__NORMALIZE__AUTO) return;
    const bool fractions = m->loss->bce && m->data->target == COPPICE__DATA__TARGET__INPUT;
    m->data->normalize = fractions || cop_data_looks_like_bytes(data)
                             ? COPPICE__DATA__NORMALIZE__UNIT
                             : COPPICE__DATA__NORMALIZE__STANDARD;
}

cop_err job_check_relations(const Coppice__Job *m, cop_error *error) {
    const Coppice__Data *d = m->data;
    COP_TRY(check_train(m, error));
    COP_TRY(check_loss(m, error));
    if (m->optimizer->sgd) COP_TRY(check_sgd(m, m->optimizer->sgd, error));
    if (m->evaluate->has_on && m->evaluate->on == COPPICE__EVALUATE__ON__VALIDATION &&
        !d->validation)
        return cop_document_fail(m, "evaluate.on", error,
                                 "evaluate.on is validation, but data.validation is 0");
    if ((d->train || d->test) && !cop_data_format_find(d->source))
        return cop_document_fail(m, d->train ? "data.train" : "data.test", error,
                                 "data.%s names files, but data.source is %.60s: only idx, csv, "
                                 "npy and image-folder read files",
                                 d->train ? "train" : "test", d->source);
    return job_check_format_fields(m, error);
}
