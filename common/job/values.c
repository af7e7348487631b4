/* The range of a network's input values, for `plan` and for warnings. See job.h. */
#include <math.h>

#include "common/base/alloc.h"
#include "common/job/internal.h"

#define FAR 20 /* networks learn well from inputs of about 1; steps overshoot beyond FAR */

/* Returns what the network sees for a stored value of channel c. */
static double seen(const cop_input *input, bool bytes, int c, double value) {
    if (bytes && input->normalize != COP_NORMALIZE_NONE) value /= 255;
    if (input->normalize != COP_NORMALIZE_STANDARD) return value;
    return (value - (double)input->mean[c]) / (double)input->std[c];
}

static void extend(double range[2], double low, double high) {
    if (low < range[0]) range[0] = low;
    if (high > range[1]) range[1] = high;
}

cop_err cop_job_values(const cop_job *job, const cop_data *data, cop_job_value_ranges *out,
                       cop_error *error) {
    const cop_input *input = cop_model_input(job->model);
    const cop_data_part *part = &data->train;
    const bool bytes = part->type == COP_DATA_U8;
    const int channels = cop_data_channels(part->rank, part->dims[0]);
    cop_data_view view;
    COP_ASSERT(channels >= 1);
    COP_TRY(cop_job_view(job, data, &view, error));
    double *low = cop_alloc_array((size_t)channels, sizeof *low);
    double *high = cop_alloc_array((size_t)channels, sizeof *high);
    *out = (cop_job_value_ranges){.stored = {INFINITY, -INFINITY}, .seen = {INFINITY, -INFINITY}};
    if (low && high) cop_data_ranges(&view, low, high);
    for (int c = 0; low && high && c < channels; c++) {
        extend(out->stored, low[c], high[c]);
        extend(out->seen, seen(input, bytes, c, low[c]), seen(input, bytes, c, high[c]));
    }
    const bool failed = !low || !high;
    cop_free(low);
    cop_free(high);
    cop_data_view_fini(&view);
    return failed ? cop_no_memory(error) : COP_OK;
}

/* Appends a warning and returns true if the loss is bce and its targets are not all in 0 to 1. For
 * such targets the loss has no minimum. */
static bool warn_of_targets(const Coppice__Job *m, const double seen_values[2], cop_str *out) {
    if (!m->loss->bce || m->data->target != COPPICE__DATA__TARGET__INPUT) return false;
    if (seen_values[0] >= 0 && seen_values[1] <= 1) return false;
    cop_str_printf(out,
                   "loss is bce, which needs samples from 0 to 1, but they range from %.4g to "
                   "%.4g: expected loss: mse, or samples scaled beforehand\n",
                   seen_values[0], seen_values[1]);
    return true;
}

void cop_job_warn_of_values(const cop_job *job, const cop_data *data, cop_str *out) {
    const int normalize = job->message->data->normalize;
    cop_job_value_ranges r;
    if (normalize == COPPICE__DATA__NORMALIZE__UNIT && data->train.type == COP_DATA_U8) return;
    if (cop_job_values(job, data, &r, NULL) || warn_of_targets(job->message, r.seen, out)) return;
    if (r.seen[0] >= -FAR && r.seen[1] <= FAR) return;
    cop_str_printf(out,
                   "data.normalize: the network sees values from %.4g to %.4g: networks learn "
                   "badly from values far outside -10 to 10 (%s)\n",
                   r.seen[0], r.seen[1],
                   normalize == COPPICE__DATA__NORMALIZE__STANDARD
                       ? "some lie far from the mean of their column"
                       : "expected data.normalize: auto or standard");
}
