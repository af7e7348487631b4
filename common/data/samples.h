/* Samples by themselves, for a trained model to judge: from one file (or a folder of pictures) and
 * of the shape and type that the model was trained on, or an error that says what was found and
 * what the model takes. What a file holds is told by its content, never by its name. */
#ifndef COP_DATA_SAMPLES_H
#define COP_DATA_SAMPLES_H

#include "common/data/content.h"
#include "common/data/data.h"

/* What the model takes. */
typedef struct cop_data_form {
    cop_data_type type;
    int32_t rank, dims[3];   /* of a sample, as in cop_data_part */
    int32_t classes;         /* labels beside the samples lie below */
    bool unlabelled;         /* labels are not read; what `label` names is left out */
    const char *label;       /* CSV: the label's column in the job, or NULL: the last */
    const char *const *drop; /* CSV: columns that the job leaves out */
    size_t drop_count;
    const char *const *class_names; /* [classes] for labels that are names, or NULL */
    cop_data_order order;           /* of arrays in four dimensions, where both would fit */
    bool resize;                    /* pictures of any size are brought to the form's */
} cop_data_form;

typedef struct cop_data_samples {
    cop_data_part part; /* at least one sample; labels NULL: there are none beside them */
    char **names;       /* of the files of a folder; else NULL */
    void *rows;         /* what the part points into */
    int32_t *labels;
} cop_data_samples;

/* Where a long operation reports its progress. */
typedef struct cop_data_watcher {
    cop_data_progress report;
    void *context;
} cop_data_watcher;

/* Reads samples from a file or folder. PNG and JPEG: one image. A folder: all of its images in byte
 * order, without what image_folder_skips names. NPY: (n, ...). NPZ: its array `images` (or `arr_0`),
 * with labels if it has `labels`. IDX, plain or gzipped. CSV: as many columns as a sample has
 * values, or one more, the label; for a model of bytes the values are whole numbers up to 255.
 *
 * Errors (INPUT, CORRUPT, NOT_FOUND, LIMIT) name the file, the line, what was found and what is
 * expected. `watcher` (may be NULL) counts the images of a folder. Free *out with
 * cop_data_samples_fini, also after an error. */
cop_err cop_data_samples_read(const char *path, const cop_data_form *form,
                              const cop_data_watcher *watcher, cop_data_samples *out,
                              cop_error *error);
/* As cop_data_samples_read, from memory. A zero byte must follow the content; CSV is split in
 * place. */
cop_err cop_data_samples_decode(const cop_data_content *content, const cop_data_form *form,
                                cop_data_samples *out, cop_error *error);
void cop_data_samples_fini(cop_data_samples *samples);

#endif
