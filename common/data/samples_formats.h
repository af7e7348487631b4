/* Inside common/data: how each format gives samples for a model (samples.c). */
#ifndef COP_DATA_SAMPLES_FORMATS_H
#define COP_DATA_SAMPLES_FORMATS_H

#include "common/data/samples.h"

/* One format: is it this, by its first bytes; and its samples. A decoder leaves to the caller what
 * it put into `out`, also after an error. */
typedef struct samples_format {
    const char *name;
    bool (*is)(const cop_data_content *content);
    cop_err (*decode)(const cop_data_content *content, const cop_data_form *form,
                      cop_data_samples *out, cop_error *error);
} samples_format;

cop_err samples_decode_npy(const cop_data_content *npy, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_npz(const cop_data_content *npz, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_idx(const cop_data_content *idx, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_csv(const cop_data_content *csv, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);

/* What decoders share. */

/* Checks that an array (n, ...) is at least one sample of the form. INPUT lists the shapes that
 * fit. */
cop_err samples_check_shape(const char *name, const cop_data_form *form,
                            const cop_data_shape *shape, cop_error *error);
/* Are the channels of the array last? True if only that fits the form, or if both fit and the job
 * says so. */
bool samples_channels_are_last(const cop_data_form *form, const cop_data_shape *shape);
/* INPUT: the source holds bytes, or floats, and the model takes the other. `found` says what the
 * source holds. */
cop_err samples_check_type(const char *name, const cop_data_form *form, cop_data_type type,
                           const char *found, cop_error *error);
/* Allocates memory for `count` samples, without labels; sets out->part and out->rows, whose contents
 * are undefined. LIMIT, NO_MEMORY. */
cop_err samples_reserve(const char *name, const cop_data_form *form, uint64_t count,
                        cop_data_samples *out, cop_error *error);
/* Then allocates memory for their labels. NO_MEMORY. */
cop_err samples_reserve_labels(const char *name, cop_data_samples *out, cop_error *error);
size_t samples_values(const cop_data_form *form); /* values of one sample */

#endif
