/* Pinning a job: its section `pinned` records everything that follows from its data (digest, shape,
 * counts, statistics, steps). So coordinator and workers agree on these without reading the data.
 * See internal.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/job/internal.h"
#include "common/wire/codec.h"

#define ARITHMETIC "portable-1"
#define STEPS_MAX  UINT32_MAX /* D3's counter holds the step in one 32-bit word */

/* ---- pinning ---- */

/* A job that is pinned already (by the job.yaml of a run folder) must be pinned to these data and
 * to the arithmetic of this program. */
static cop_err check_earlier_pin(const Coppice__Job *m, const char *digest, const cop_data *data,
                                 cop_error *error) {
    const Coppice__Pinned *p = m->pinned;
    if (p && p->arithmetic && strcmp(p->arithmetic, ARITHMETIC) != 0)
        return cop_fail(error, COP_ERR_VERSION,
                        "the job is pinned to the arithmetic %.40s; this program computes %s",
                        p->arithmetic, ARITHMETIC);
    if (p && p->data_digest && strcmp(p->data_digest, digest) != 0)
        return cop_document_fail(m, "pinned.data_digest", error,
                                 "the job is pinned to the data %.16s..., but %s is %.16s...",
                                 p->data_digest, data->name, digest);
    return COP_OK;
}

cop_data_selection job_selection(const Coppice__Job *m) {
    /* The enums of both splits have the same numbers. */
    return (cop_data_selection){.validation = m->data->validation,
                                .samples = m->data->samples,
                                .split = (cop_data_split)m->data->split,
                                .by_class = m->data->target == COPPICE__DATA__TARGET__LABEL};
}

/* Checks that a new job trains on every class of its data. A job that is pinned already passes
 * without this check. */
static cop_err check_classes(const Coppice__Job *m, const cop_data_view *view, cop_error *error) {
    if (m->pinned || m->data->target != COPPICE__DATA__TARGET__LABEL) return COP_OK;
    uint32_t *counts = cop_alloc_array((size_t)view->data->classes, sizeof *counts);
    if (!counts) return cop_no_memory(error);
    const bool failed = cop_data_view_classes(view, counts, NULL, error) != COP_OK;
    cop_free(counts);
    if (!failed) return COP_OK;
    cop_error why = error ? *error : (cop_error){0};
    return cop_document_fail(m, m->data->validation ? "data.validation" : "data.samples", error,
                             "%s", why.text);
}

static bool has_samples_for_evaluation(const Coppice__Job *m, const cop_data_view *view) {
    return !m->evaluate->has_on || m->evaluate->on != COPPICE__EVALUATE__ON__TEST || view->test;
}

/* Returns the total number of steps, or 0 if it is not in the range 1 to STEPS_MAX. */
static uint64_t count_steps(const Coppice__Train *t, uint64_t steps_per_epoch) {
    double steps =
        t->has_steps ? (double)t->steps : ceil(t->epochs * (double)steps_per_epoch - 1e-9);
    return steps >= 1 && steps <= STEPS_MAX ? (uint64_t)steps : 0;
}

static uint64_t steps_per_epoch(const Coppice__Train *t, uint32_t samples) {
    return cop_data_steps_per_epoch(samples, t->batch, t->last != COPPICE__TRAIN__LAST__DROP);
}

static cop_err pin_steps(const Coppice__Job *m, Coppice__Pinned *p, cop_error *error) {
    const Coppice__Train *t = m->train;
    COP_ASSERT(p->train_samples >= 1);
    p->has_steps = p->has_steps_per_epoch = 1;
    if (t->last == COPPICE__TRAIN__LAST__DROP && t->batch > p->train_samples)
        return cop_document_fail(m, "train.last", error,
                                 "train.last is drop, but %u training samples do not fill a batch "
                                 "of %u: expected keep or a smaller train.batch",
                                 p->train_samples, t->batch);
    p->steps_per_epoch = steps_per_epoch(t, p->train_samples);
    p->steps = count_steps(t, p->steps_per_epoch);
    if (!p->steps)
        return cop_document_fail(
            m, "train.epochs", error,
            "train.epochs is %g: expected 1 to %u steps in total, with %llu per epoch", t->epochs,
            STEPS_MAX, (unsigned long long)p->steps_per_epoch);
    return COP_OK;
}

static void pin_samples(const cop_data_view *view, Coppice__Pinned *p) {
    const cop_data *data = view->data;
    COP_ASSERT(data->train.rank == 1 || data->train.rank == 3);
    p->has_train_samples = p->has_validation_samples = p->has_test_samples = p->has_classes = 1;
    p->train_samples = view->train;
    p->validation_samples = view->validation;
    p->test_samples = view->test;
    p->classes = (uint32_t)data->classes;
    p->n_input = (size_t)data->train.rank;
    for (int d = 0; d < data->train.rank; d++) p->input[d] = (uint32_t)data->train.dims[d];
}

/* Copies the names of the classes into `p`, so that they stay with the model, for people. */
static cop_err pin_class_names(Coppice__Job *m, const cop_data *data, Coppice__Pinned *p,
                               cop_error *error) {
    const size_t count = data->class_names ? (size_t)data->classes : 0;
    p->class_names = cop_proto_alloc(&m->base, (count + 1) * sizeof *p->class_names);
    if (!p->class_names) return cop_no_memory(error);
    for (size_t i = 0; i < count; i++)
        if (!(p->class_names[i] = cop_proto_strdup(&m->base, data->class_names[i])))
            return cop_no_memory(error);
    p->n_class_names = count;
    return COP_OK;
}

/* For `normalize: standard`, computes mean and deviation of each channel from the training samples
 * only (D11). They are computed once and then stay pinned. */
static cop_err pin_statistics(Coppice__Job *m, const cop_data_view *view, Coppice__Pinned *p,
                              cop_error *error) {
    if (m->data->normalize != COPPICE__DATA__NORMALIZE__STANDARD) return COP_OK;
    const cop_data_part *part = &view->data->train;
    const size_t channels = (size_t)cop_data_channels(part->rank, part->dims[0]);
    p->mean = cop_proto_alloc(&m->base, channels * sizeof *p->mean);
    p->std = cop_proto_alloc(&m->base, channels * sizeof *p->std);
    if (!p->mean || !p->std) return cop_no_memory(error);
    p->n_mean = p->n_std = channels;
    cop_data_statistics(view, p->mean, p->std);
    return COP_OK;
}

static cop_err make_pinned(Coppice__Job *m, const cop_data_view *view, const char *digest,
                           cop_error *error) {
    const cop_data *data = view->data;
    Coppice__Pinned *p = cop_proto_alloc(&m->base, sizeof *p);
    if (!p) return cop_no_memory(error);
    coppice__pinned__init(p);
    p->data_digest = cop_proto_strdup(&m->base, digest);
    p->arithmetic = cop_proto_strdup(&m->base, ARITHMETIC);
    p->sample_type = cop_proto_strdup(&m->base, data->train.type == COP_DATA_U8 ? "u8" : "f32");
    p->input = cop_proto_alloc(&m->base, sizeof data->train.dims);
    if (!p->data_digest || !p->arithmetic || !p->sample_type || !p->input)
        return cop_no_memory(error);
    pin_samples(view, p);
    COP_TRY(pin_class_names(m, data, p, error));
    COP_TRY(pin_statistics(m, view, p, error));
    COP_TRY(pin_steps(m, p, error));
    m->pinned = p;
    return COP_OK;
}

cop_err job_pin(Coppice__Job *m, const cop_data *data, cop_error *error) {
    cop_data_view view;
    char digest[65];
    COP_ASSERT(m->data->normalize != COPPICE__DATA__NORMALIZE__AUTO); /* see job_settle_normalize */
    const cop_data_selection selection = job_selection(m);
    cop_hex32(data->digest, digest);
    COP_TRY(check_earlier_pin(m, digest, data, error));
    COP_TRY(cop_data_view_make(data, &selection, &view, error));
    cop_err e = COP_OK;
    if (!has_samples_for_evaluation(m, &view))
        e = cop_document_fail(m, "evaluate.on", error,
                              "evaluate.on is test, but data set %s has no test samples: expected "
                              "data.test, or evaluate.on: validation with data.validation above 0",
                              data->name);
    if (!e) e = check_classes(m, &view, error);
    if (!e) e = make_pinned(m, &view, digest, error);
    cop_data_view_fini(&view);
    return e;
}

/* ---- checking a pinned section from outside ---- */

static bool shape_is_good(const Coppice__Pinned *p) {
    uint64_t values = 1;
    if (p->n_input != 1 && p->n_input != 3) return false;
    for (size_t d = 0; d < p->n_input; d++) {
        values *= p->input[d];
        if (!values || values > COP_UNITS_MAX) return false;
    }
    return true;
}

static bool texts_are_good(const Coppice__Pinned *p) {
    unsigned char digest[32];
    if (!p->data_digest || !p->arithmetic || !p->sample_type) return false;
    if (strcmp(p->sample_type, "u8") != 0 && strcmp(p->sample_type, "f32") != 0) return false;
    return cop_unhex32(p->data_digest, digest);
}

static bool counts_are_good(const Coppice__Job *m, const Coppice__Pinned *p) {
    if (p->train_samples < 1 || p->train_samples > COP_SAMPLES_MAX) return false;
    if (p->validation_samples > COP_SAMPLES_MAX || p->test_samples > COP_SAMPLES_MAX) return false;
    if (p->classes < 1 || p->classes > COP_CLASSES_MAX) return false;
    if (p->validation_samples != m->data->validation) return false;
    if (p->n_class_names && (p->n_class_names != p->classes ||
                             !cop_class_names_ok((const char *const *)p->class_names, p->classes)))
        return false;
    uint64_t used = (uint64_t)p->train_samples + p->validation_samples;
    if (m->data->samples && m->data->samples != used) return false;
    return p->steps_per_epoch == steps_per_epoch(m->train, p->train_samples) && p->steps &&
           p->steps == count_steps(m->train, p->steps_per_epoch);
}

static bool statistics_are_good(const Coppice__Job *m, const Coppice__Pinned *p) {
    const bool standard = m->data->normalize == COPPICE__DATA__NORMALIZE__STANDARD;
    const size_t channels =
        standard ? (size_t)cop_data_channels((int32_t)p->n_input, (int32_t)p->input[0]) : 0;
    /* Pinning replaces `normalize: auto`. */
    if (m->data->normalize == COPPICE__DATA__NORMALIZE__AUTO) return false;
    if (p->n_mean != channels || p->n_std != channels) return false;
    for (size_t c = 0; c < channels; c++)
        if (!isfinite((float)p->mean[c]) || !isfinite((float)p->std[c]) || !((float)p->std[c] > 0))
            return false;
    return true;
}

cop_err job_check_pinned(const Coppice__Job *m, cop_error *error) {
    const Coppice__Pinned *p = m->pinned;
    if (!p || !texts_are_good(p) || !shape_is_good(p) || !counts_are_good(m, p) ||
        !statistics_are_good(m, p))
        return cop_fail(error, COP_ERR_INPUT,
                        "the job is not complete: its pinned section is missing or damaged");
    if (strcmp(p->arithmetic, ARITHMETIC) != 0)
        return cop_fail(error, COP_ERR_VERSION,
                        "the job was started with the arithmetic %.40s; this program computes %s",
                        p->arithmetic, ARITHMETIC);
    return COP_OK;
}
