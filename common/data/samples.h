/* Samples for a trained model to judge, read from one file or from a folder of images. They must
 * have the shape and type that the model was trained on; errors give what was found and what the
 * model takes. The content of a file decides what it is, never its name. */
#ifndef COP_DATA_SAMPLES_H
#define COP_DATA_SAMPLES_H

#include "common/data/content.h"
#include "common/data/data.h"

/* What the model takes. */
typedef struct cop_data_form {
    cop_data_type type;
    int32_t rank, dims[3];   /* of a sample, as in cop_data_part */
    int32_t classes;         /* labels, if there are any, lie below */
    bool unlabelled;         /* do not read labels; drop the column that `label` names */
    const char *label;       /* CSV: the label's column in the job; NULL: the last */
    const char *const *drop; /* CSV: columns that the job drops */
    size_t drop_count;
    const char *const *class_names; /* [classes], if labels are names; else NULL */
    cop_data_order order;           /* of arrays in four dimensions, if both orders fit */
    bool resize;                    /* resize images of any size to `dims` */
} cop_data_form;

typedef struct cop_data_samples {
    cop_data_part part; /* at least one sample; labels are NULL if the file has none */
    char **names;       /* of the files, if a folder was read; else NULL */
    void *rows;         /* what part.samples points to */
    int32_t *labels;
} cop_data_samples;

/* Where a long operation reports its progress. */
typedef struct cop_data_watcher {
    cop_data_progress report;
    void *context;
} cop_data_watcher;

/* Reads samples from a file or folder. PNG and JPEG: one image. A folder: all of its images in byte
 * order, without what image_folder_skips names. NPY: (n, ...). NPZ: its array `images` (or
 * `arr_0`), with labels if it has `labels`. IDX, plain or gzipped. CSV: as many columns as a sample
 * has values, or one more, the label; for a model of bytes the values are whole numbers up to 255.
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
