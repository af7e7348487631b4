/* Inside common/data: the readers of samples for a model, one per format (samples.c). */
#ifndef COP_DATA_SAMPLES_FORMATS_H
#define COP_DATA_SAMPLES_FORMATS_H

#include "common/data/samples.h"

/* One format. `is` recognises it by the first bytes; `decode` reads the samples. After an error the
 * caller frees whatever is in `out`. */
typedef struct samples_format {
    const char *name;
    bool (*is)(const cop_data_content *content);
    cop_err (*decode)(const cop_data_content *content, const cop_data_form *form,
                      cop_data_samples *out, cop_error *error);
} samples_format;

/* The decoders, rows of the table in samples.c. Each allocates out->rows, and out->labels if the
 * file has labels that the form asks for. The content must hold at least one sample. INPUT, with
 * what the model takes: the shape, the type, a value or a label does not fit the form. CORRUPT: the
 * file is damaged.
 *
 * An NPY file holds samples only. Of an NPZ archive with both parts the test part counts. IDX holds
 * bytes. CSV is split in place. */
cop_err samples_decode_npy(const cop_data_content *npy, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_npz(const cop_data_content *npz, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_idx(const cop_data_content *idx, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_csv(const cop_data_content *csv, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);

/* ---- what decoders share ---- */

/* INPUT: an array (n, ...) does not hold samples of the form, or n is 0. Lists the shapes that fit.
 */
cop_err samples_check_shape(const char *name, const cop_data_form *form,
                            const cop_data_shape *shape, cop_error *error);
/* Are the channels of the array last? True if only that order fits the form, or if both fit and the
 * form has it. */
bool samples_channels_are_last(const cop_data_form *form, const cop_data_shape *shape);
/* INPUT: the model takes another type. `found` describes what the source holds. */
cop_err samples_check_type(const char *name, const cop_data_form *form, cop_data_type type,
                           const char *found, cop_error *error);
/* Allocates memory for `count` samples (at least 1) without labels, and sets out->part. The content
 * is undefined. LIMIT, NO_MEMORY. */
cop_err samples_reserve(const char *name, const cop_data_form *form, uint64_t count,
                        cop_data_samples *out, cop_error *error);
/* Then allocates memory for their labels, which are 0. NO_MEMORY. */
cop_err samples_reserve_labels(const char *name, cop_data_samples *out, cop_error *error);
size_t samples_values(const cop_data_form *form); /* values of one sample */

#endif
