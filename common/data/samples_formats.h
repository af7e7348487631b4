/* Inside common/data: the readers of samples for a model, one per format (samples.c). */
#ifndef COP_DATA_SAMPLES_FORMATS_H
#define COP_DATA_SAMPLES_FORMATS_H

#include "common/data/samples.h"

/* One format. */
typedef struct samples_format {
    const char *name; /* how errors name the format */
    /* Does the content have this format? Looks at its first bytes only. */
    bool (*is)(const cop_data_content *content);
    /* Reads the samples. After an error the caller frees what *out already owns. */
    cop_err (*decode)(const cop_data_content *content, const cop_data_form *form,
                      cop_data_samples *out, cop_error *error);
} samples_format;

/* The decoders in the table of samples.c. Each allocates out->rows. CSV and NPZ also allocate
 * out->labels if the file has labels and form->unlabelled is false. INPUT: there is no sample, or
 * shape, type, a value or a label does not fit the form; the error describes what the model takes.
 * CORRUPT: the file is damaged.
 *
 * An NPY or IDX file holds samples only. If an NPZ archive has a training and a test part, the test
 * part is read. The decoder of CSV changes the content. */
cop_err samples_decode_npy(const cop_data_content *npy, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_npz(const cop_data_content *npz, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_idx(const cop_data_content *idx, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_csv(const cop_data_content *csv, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);

/* ---- functions that the decoders share ---- */

/* Checks that an array of shape (n, ...) holds samples of the form, and that n is at least 1.
 * Otherwise fails with INPUT; the error lists the shapes that fit. */
cop_err samples_check_shape(const char *name, const cop_data_form *form,
                            const cop_data_shape *shape, cop_error *error);
/* Are the channels of the array last? For a shape of four dimensions, true in two cases: only
 * channels in the last place fit the form and form->order is not CHANNELS_FIRST, or they fit and
 * form->order is CHANNELS_LAST. */
bool samples_channels_are_last(const cop_data_form *form, const cop_data_shape *shape);
/* Fails with INPUT if the model takes another type than `type`. `found` describes the values of the
 * file, for the error. */
cop_err samples_check_type(const char *name, const cop_data_form *form, cop_data_type type,
                           const char *found, cop_error *error);
/* Allocates memory for `count` samples (at least 1) without labels, and sets out->part. The values
 * are undefined. LIMIT: there are too many samples. NO_MEMORY. */
cop_err samples_reserve(const char *name, const cop_data_form *form, uint64_t count,
                        cop_data_samples *out, cop_error *error);
/* Allocates memory for the labels of these samples, after samples_reserve. The labels are 0.
 * NO_MEMORY. */
cop_err samples_reserve_labels(const char *name, cop_data_samples *out, cop_error *error);
/* The number of values of one sample. */
size_t samples_values(const cop_data_form *form);

#endif
