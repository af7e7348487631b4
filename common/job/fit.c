/* Checks that a job fits the data or the weights that it is used with. The job, the data and the
 * weights were found valid before, each on its own. See job.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/job/internal.h"

/* ---- data ---- */

void cop_job_sample_form(const cop_job *job, cop_data_form *out) {
    const Coppice__Pinned *p = job->message->pinned;
    const Coppice__Data *d = job->message->data;
    COP_ASSERT(p->n_input >= 1 && p->n_input <= sizeof out->dims / sizeof *out->dims);
    *out =
        (cop_data_form){.type = job->sample_type == COP_DTYPE_F32 ? COP_DATA_F32 : COP_DATA_U8,
                        .rank = (int32_t)p->n_input,
                        .classes = (int32_t)p->classes,
                        .unlabelled = d->target == COPPICE__DATA__TARGET__INPUT && p->classes == 1,
                        .label = d->label,
                        .drop = (const char *const *)d->drop,
                        .drop_count = d->n_drop,
                        .class_names = cop_job_class_names(job),
                        .order = cop_job_order(d),
                        .resize = d->n_resize == 2};
    for (size_t i = 0; i < p->n_input; i++) out->dims[i] = (int32_t)p->input[i];
}

cop_err cop_job_check_data(const cop_job *job, const cop_data *data, cop_error *error) {
    const cop_data_part *part = &data->train; /* the test part has the same form */
    cop_data_form form;
    char wanted[64], found[64];
    cop_job_sample_form(job, &form);
    bool fits = part->type == form.type && part->rank == form.rank &&
                part->stride == job->sample_stride && data->classes == form.classes;
    for (int32_t d = 0; fits && d < form.rank; d++) fits = part->dims[d] == form.dims[d];
    if (fits) return COP_OK;
    return cop_fail(
        error, COP_ERR_INPUT,
        "the model takes samples of %s and %d classes, but data set %s has %s and %d classes",
        cop_data_describe(form.type, form.rank, form.dims, wanted), form.classes, data->name,
        cop_data_describe(part->type, part->rank, part->dims, found), data->classes);
}

cop_err cop_job_view(const cop_job *job, const cop_data *data, cop_data_view *out,
                     cop_error *error) {
    const Coppice__Job *m = job->message;
    const cop_data_selection selection = job_selection(m);
    char digest[65];
    COP_ASSERT(m->pinned && m->pinned->data_digest);
    *out = (cop_data_view){0};
    cop_hex32(data->digest, digest);
    if (strcmp(digest, m->pinned->data_digest) != 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "the job is pinned to the data %.16s..., but these are %.16s...",
                        m->pinned->data_digest, digest);
    COP_TRY(cop_job_check_data(job, data, error));
    COP_TRY(cop_data_view_make(data, &selection, out, error));
    if (out->train == job->train_samples && out->validation == job->validation_samples &&
        out->test == job->test_samples)
        return COP_OK;
    cop_fail(error, COP_ERR_INPUT,
             "the job is pinned to %u training, %u validation and %u test samples, but data set %s "
             "gives it %u, %u and %u",
             job->train_samples, job->validation_samples, job->test_samples, data->name, out->train,
             out->validation, out->test);
    cop_data_view_fini(out);
    return COP_ERR_INPUT;
}

/* ---- weights ---- */

cop_err cop_job_open_weights(const cop_job *job, const char *path, float **flat, uint64_t *step,
                             cop_error *error) {
    cop_saved_model m;
    *flat = NULL;
    COP_TRY(cop_job_open_model(path, &m, error));
    cop_err e = job_check_compatible(job, m.job->message, path, error);
    if (!e && m.step > job->steps)
        e = cop_fail(error, COP_ERR_INPUT,
                     "%s holds weights of step %llu, but the job has %llu steps", path,
                     (unsigned long long)m.step, (unsigned long long)job->steps);
    cop_job_release(m.job);
    *step = m.step;
    if (e)
        cop_free(m.flat);
    else
        *flat = m.flat;
    return e;
}
