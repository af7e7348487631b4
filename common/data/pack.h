/* Inside common/data: functions with which the readers make packs. data.h defines the layout of a
 * pack. */
#ifndef COP_DATA_PACK_H
#define COP_DATA_PACK_H

#include "common/data/content.h"
#include "common/data/data.h"

/* The description of one part, as in the header of a pack. */
typedef struct pack_part {
    cop_data_type type;
    int32_t rank;    /* rank of a sample, as in cop_data_part */
    int32_t dims[3]; /* dimensions of a sample, as in cop_data_part */
    uint32_t count;  /* number of samples */
} pack_part;

/* Allocates a pack for both parts (training, test), and a set that points into it. The values of
 * the samples are undefined, and all labels are 0. The caller fills in samples and labels
 * (pack_samples, pack_labels), then calls one of the pack_finish functions. `classes` must be at
 * least 1; pack_finish replaces it. INPUT: the parts differ in shape or type. NO_MEMORY. */
cop_err pack_create(const char *name, int32_t classes, const pack_part parts[2], cop_data **out,
                    cop_error *error);
/* Sets the number of classes and computes the digest. Afterwards the set must not change. */
void pack_finish(cop_data *data, int32_t classes);
/* Finishes a set whose number of classes is the largest training label + 1. Calls pack_narrow, so
 * that the digest does not depend on the format of the files, then pack_finish. INPUT: a label is
 * outside of [0, classes), or all training labels are 0; the error names the file. The paths are
 * only for errors; `test_path` may be NULL if the test part is empty. */
cop_err pack_finish_labels(cop_data *data, const char *train_path, const char *test_path,
                           cop_error *error);
/* Writes a warning to the log if a class from 0 to `largest` has no sample in `part`. That happens
 * if labels count from 1, or are numbers such as 10, 20, 30: then the set has classes that nobody
 * intended. `path` names the file. */
void pack_warn_of_gaps(const cop_data_part *part, const char *path, int32_t largest);
/* Finishes a set without labels: its labels stay 0, and it has one class. Calls pack_narrow, then
 * pack_finish. */
cop_err pack_finish_unlabelled(cop_data *data, cop_error *error);
/* Converts the f32 samples of `data` to u8, in place, if all values of both parts are whole numbers
 * from 0 to 255. Otherwise does nothing. Labels keep their values, but not their addresses. The
 * digest is not computed. NO_MEMORY. */
cop_err pack_narrow(cop_data *data, cop_error *error);
/* Describes the part that an array of this shape becomes:
 *
 *  - (n, features) becomes flat samples;
 *  - (n, height, width) becomes images of one channel;
 *  - (n, channels, height, width) becomes images.
 *
 * INPUT: the array has another number of dimensions, no samples, or samples without values or with
 * more than COP_UNITS_MAX values. LIMIT: it has too many samples. `path` names the file in errors.
 */
cop_err pack_part_of(const char *path, cop_data_type type, const cop_data_shape *shape,
                     pack_part *out, cop_error *error);
/* Checks that the samples of both parts have the same shape and type; otherwise fails with INPUT.
 * pack_create checks this, too, but a reader that calls this function first gets the names of its
 * files into the error. */
cop_err pack_check_parts(const pack_part parts[2], const char *const paths[2], cop_error *error);
/* Makes the bytes that follow the pack in its file: the names of the classes (class_names.c). The
 * caller frees *out with cop_free. NO_MEMORY. */
cop_err pack_write_names(const char *const *names, size_t count, char **out, size_t *size,
                         cop_error *error);
/* Gives the classes of `data` the names that pack_write_names packed into `bytes`. CORRUPT: the
 * bytes are damaged, or the number of names differs from the number of classes. NO_MEMORY. */
cop_err pack_read_names(cop_data *data, const char *bytes, size_t size, cop_error *error);
/* If *order is AUTO and the array has four dimensions, replaces *order by the order that the sizes
 * suggest. Otherwise does nothing. INPUT: the sizes are ambiguous; the error asks for
 * data.layout. */
cop_err channels_find(const char *path, const cop_data_shape *shape, cop_data_order *order,
                      cop_error *error);
/* Changes a shape (n, height, width, channels) to (n, channels, height, width) if `order` is
 * CHANNELS_LAST. Does nothing for another order or another number of dimensions. */
void channels_reorder(cop_data_shape *shape, cop_data_order order);
/* Reorders `count` samples in place, from (height, width, channels) to (channels, height, width).
 * `dims` has the sizes in the new order. `element` is the number of bytes of a value, 1 or 4.
 * NO_MEMORY. */
cop_err channels_to_front(const int32_t dims[3], uint64_t count, size_t element, void *samples,
                          cop_error *error);
/* The samples and the labels of a part, for writing, between pack_create and pack_finish. */
static inline void *pack_samples(const cop_data_part *part) {
    return (void *)(uintptr_t)part->samples;
}
static inline int32_t *pack_labels(const cop_data_part *part) {
    return (int32_t *)(uintptr_t)part->labels;
}

/* Loaders of the formats in the table of formats.c. Each reads input->train, and input->test if
 * that is given. On success, the caller owns the one reference to the set in *out. On failure, the
 * error names the file, and *out is unchanged.
 *
 *  - IDX: four files of bytes; samples are u8.
 *  - CSV: values are read as f32; labels are numbers or names.
 *  - NPY: samples of u8 stay u8; other types become f32.
 *  - Image folders: samples are u8.
 *
 * The loaders of CSV and NPY call pack_narrow. */
cop_err pack_load_idx(const cop_data_input *input, cop_data **out, cop_error *error);
cop_err pack_load_csv(const cop_data_input *input, cop_data **out, cop_error *error);
cop_err pack_load_npy(const cop_data_input *input, cop_data **out, cop_error *error);
/* Does the NPZ file hold a training part and a test part, such as x_train and x_test? */
bool pack_npz_has_test(const char *path);
cop_err pack_load_image_folder(const cop_data_input *input, cop_data **out, cop_error *error);

#endif
