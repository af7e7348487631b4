/* Reads samples for the predictions of a trained model, from one file or from a folder of images.
 * They must have the shape of the samples that the model was trained on, and values that fit their
 * type. Otherwise the error describes what was found and what the model takes. The content of a
 * file decides its format, never its name. */
#ifndef COP_DATA_SAMPLES_H
#define COP_DATA_SAMPLES_H

#include "common/data/content.h"
#include "common/data/data.h"

/* The form of the samples that a model takes, and how its job reads files. */
typedef struct cop_data_form {
    cop_data_type type;
    int32_t rank;            /* rank of a sample, as in cop_data_part */
    int32_t dims[3];         /* dimensions of a sample, as in cop_data_part */
    int32_t classes;         /* if there are labels, each must be in [0, classes) */
    bool unlabelled;         /* read no labels; the CSV column in `label`, if any, is dropped */
    const char *label;       /* CSV: the label's column in the job; NULL: the last column */
    const char *const *drop; /* CSV: the columns that the job drops */
    size_t drop_count;       /* number of entries of `drop` */
    const char *const *class_names; /* [classes] the names that are labels in CSV files; NULL:
                                       labels are numbers */
    cop_data_order order;           /* of arrays in four dimensions, if both orders fit `dims` */
    bool resize;                    /* resize images to the height and width in `dims` */
} cop_data_form;

/* The samples that were read. */
typedef struct cop_data_samples {
    cop_data_part part; /* at least one sample; part.labels is NULL if there are no labels */
    char **names;       /* [part.count] names of the files of a folder; NULL: it was one file */
    void *rows;         /* the memory of part.samples */
    int32_t *labels;    /* the memory of part.labels, or NULL */
} cop_data_samples;

/* The function that a long operation calls to report its progress, and its first argument. */
typedef struct cop_data_watcher {
    cop_data_progress report;
    void *context;
} cop_data_watcher;

/* Reads samples from a file, plain or gzipped, or from a folder:
 *
 *  - PNG or JPEG: one image.
 *  - A folder: all images in it, in the byte order of their names, except those that
 *    image_folder_skips ignores.
 *  - NPY: an array of shape (n, ...), without labels.
 *  - NPZ: the array with a usual name, such as `images` or `x_test` (table in npy.c), and the array
 *    of its labels if the file has it. If the file has a training and a test part, it reads the
 *    test part.
 *  - IDX: one file of samples, without labels.
 *  - CSV: one column for each value of a sample. The file may also have the label's column and the
 *    columns that the job drops. If the model takes bytes, values must be whole numbers from 0 to
 *    255.
 *
 * Errors (INPUT, CORRUPT, NOT_FOUND, LIMIT) name the file, the line of a CSV file, what was found
 * and what is expected. `watcher` (may be NULL) is called after each image of a folder. Free *out
 * with cop_data_samples_fini, also after an error. */
cop_err cop_data_samples_read(const char *path, const cop_data_form *form,
                              const cop_data_watcher *watcher, cop_data_samples *out,
                              cop_error *error);
/* Reads samples from a file in memory, as cop_data_samples_read does. A zero byte must follow the
 * content. The function changes the content of a CSV file. */
cop_err cop_data_samples_decode(const cop_data_content *content, const cop_data_form *form,
                                cop_data_samples *out, cop_error *error);
/* Frees the memory of the samples, and zeroes *samples. */
void cop_data_samples_fini(cop_data_samples *samples);

#endif
