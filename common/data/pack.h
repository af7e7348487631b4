/* Inside common/data: how readers make packs, whose layout is in data.h. */
#ifndef COP_DATA_PACK_H
#define COP_DATA_PACK_H

#include "common/data/content.h"
#include "common/data/data.h"

/* The description of one part in a pack's header. */
typedef struct pack_part {
    cop_data_type type;
    int32_t rank, dims[3];
    uint32_t count;
} pack_part;

/* Allocates a pack for both parts (training, test), and a set that points into it. The caller fills
 * in samples and labels (pack_samples, pack_labels), then calls one of pack_finish*. `classes`: at
 * least 1; pack_finish replaces it. INPUT: the parts differ in shape or type. */
cop_err pack_create(const char *name, int32_t classes, const pack_part parts[2], cop_data **out,
                    cop_error *error);
/* Sets the number of classes and computes the digest: the set is ready. */
void pack_finish(cop_data *data, int32_t classes);
/* As pack_finish, with classes = largest training label + 1. f32 samples that are all whole numbers
 * from 0 to 255 become bytes, so that the digest does not depend on the file's format. INPUT names
 * the file that has a label outside of [0, classes), or only one class. `test_path` may be NULL if
 * that part is empty. */
cop_err pack_finish_labels(cop_data *data, const char *train_path, const char *test_path,
                           cop_error *error);
/* Warns if a class from 0 to `largest` has no training sample: labels that count from 1, or are 10,
 * 20, 30, create classes that nobody intended. */
void pack_warn_of_gaps(const cop_data_part *part, const char *path, int32_t largest);
/* As pack_finish_labels, for a set without labels: all are 0, and so is the only class. */
cop_err pack_finish_unlabelled(cop_data *data, cop_error *error);
/* Turns f32 samples into bytes if all of both parts are whole numbers from 0 to 255. Keeps the
 * labels, and computes no digest. */
cop_err pack_narrow(cop_data *data, cop_error *error);
/* Describes the part that an array makes: (n, features) is flat, (n, height, width) gets one
 * channel, (n, channels, height, width) stays. INPUT names the file if its array has another rank,
 * is empty, or has too large samples; LIMIT if it has too many. */
cop_err pack_part_of(const char *path, cop_data_type type, const cop_data_shape *shape,
                     pack_part *out, cop_error *error);
/* INPUT: the samples of the parts differ in shape or type. pack_create checks this, too; a reader
 * that calls it first gets the names of its files into the error. */
cop_err pack_check_parts(const pack_part parts[2], const char *const paths[2], cop_error *error);
/* Makes the bytes that hold names behind a pack (*out: cop_free). */
cop_err pack_write_names(const char *const *names, size_t count, char **out, size_t *size,
                         cop_error *error);
/* Names the classes of `data` from such bytes. CORRUPT: they are damaged, or name another number of
 * classes. */
cop_err pack_read_names(cop_data *data, const char *bytes, size_t size, cop_error *error);
/* Finds where the channels of an array of four dimensions are, if *order is AUTO. INPUT asks for
 * data.layout if the sizes are ambiguous. Does nothing for other ranks. */
cop_err channels_find(const char *path, const cop_data_shape *shape, cop_data_order *order,
                      cop_error *error);
/* Moves the channels of such a shape to the front, if `order` has them last. */
void channels_reorder(cop_data_shape *shape, cop_data_order order);
/* Reorders `count` samples in place, from (height, width, channels) to `dims` = (channels, height,
 * width). `element`: bytes of a value, 1 or 4. */
cop_err channels_to_front(const int32_t dims[3], uint64_t count, size_t element, void *samples,
                          cop_error *error);
/* Where to write the samples and labels of a part that pack_create made. */
static inline void *pack_samples(const cop_data_part *part) {
    return (void *)(uintptr_t)part->samples;
}
static inline int32_t *pack_labels(const cop_data_part *part) {
    return (int32_t *)(uintptr_t)part->labels;
}

/* Loaders of the formats in the table of formats.c. Each reads input->train, and input->test if
 * that is given, and returns a set with one reference in *out. Errors name the file; *out is
 * unchanged then.
 *
 * IDX: four files of bytes. CSV: values are f32, labels numbers or names. NPY: u8, or other types,
 * which become f32. Image folders: u8. */
cop_err pack_load_idx(const cop_data_input *input, cop_data **out, cop_error *error);
cop_err pack_load_csv(const cop_data_input *input, cop_data **out, cop_error *error);
cop_err pack_load_npy(const cop_data_input *input, cop_data **out, cop_error *error);
/* Does the NPZ file hold a training part and a test part, such as x_train and x_test? */
bool pack_npz_has_test(const char *path);
cop_err pack_load_image_folder(const cop_data_input *input, cop_data **out, cop_error *error);

#endif
