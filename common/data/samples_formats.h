/* Inside common/data: how each format gives samples for a model (samples.c). */
#ifndef COP_DATA_SAMPLES_FORMATS_H
#define COP_DATA_SAMPLES_FORMATS_H

#include "common/data/samples.h"

/* One format: is it this, by its first bytes; and its samples. A decoder leaves to the caller what
 * it put into `out`, also after an error. */
typedef struct samples_format {
    const char *name;
    bool (*is)(const unsigned char *bytes, size_t size);
    cop_err (*decode)(const char *what, char *bytes, size_t size, const cop_data_form *form,
                      cop_data_samples *out, cop_error *error);
} samples_format;

cop_err samples_decode_npy(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_npz(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_idx(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);
cop_err samples_decode_csv(const char *what, char *bytes, size_t size, const cop_data_form *form,
                           cop_data_samples *out, cop_error *error);

/* What decoders share. An array (n, ...) must be n >= 1 samples of the form; INPUT says which
 * shapes would be. */
cop_err samples_check_shape(const char *what, const cop_data_form *form, uint32_t rank,
                            const uint64_t *dims, cop_error *error);
/* Are the channels of the array last, and does it fit the form only, or as the job says, that way?
 */
bool samples_channels_are_last(const cop_data_form *form, uint32_t rank, const uint64_t *dims);
/* INPUT: the source holds bytes, or floats, and the model takes the other. `holds` says what the
 * source holds. */
cop_err samples_check_type(const char *what, const cop_data_form *form, cop_data_type type,
                           const char *holds, cop_error *error);
/* Memory for `count` samples, and for their labels if there are any; part and pointers are set, the
 * contents undefined. LIMIT, NO_MEMORY. */
cop_err samples_take(const char *what, const cop_data_form *form, uint64_t count, bool labels,
                     cop_data_samples *out, cop_error *error);
size_t samples_values(const cop_data_form *form); /* of one sample */

#endif
