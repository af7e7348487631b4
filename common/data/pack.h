/* Inside common/data: making packs. See data.h for the layout. */
#ifndef COP_DATA_PACK_H
#define COP_DATA_PACK_H

#include "common/data/content.h"
#include "common/data/data.h"

/* What a pack's header says of one part. */
typedef struct pack_part {
    cop_data_type type;
    int32_t rank, dims[3];
    uint32_t count;
} pack_part;

/* A pack with room for both parts; *out points into it and has no digest yet. The caller fills it
 * through the (const) pointers and calls pack_finish. INPUT: the parts differ in shape or type. */
cop_err pack_create(const char *name, int32_t classes, const pack_part parts[2], cop_data **out,
                    cop_error *error);
/* Write the header's number of classes and compute the digest. */
void pack_finish(cop_data *data, int32_t classes);
/* The same with classes = largest training label + 1; f32 samples that are all whole numbers from 0
 * to 255 become bytes, so that the digest does not depend on the format of the file; INPUT names
 * the file with a label that is not in [0, classes), and wants at least two classes. `test_path`
 * may be NULL where that part is empty. */
cop_err pack_finish_labels(cop_data *data, const char *train_path, const char *test_path,
                           cop_error *error);
/* Warns of classes from 0 to `largest` without training samples: labels that count from 1, or are
 * 10, 20, 30, make classes that nobody means. */
void pack_warn_of_gaps(const cop_data_part *part, const char *path, int32_t largest);
/* pack_finish_labels for samples without labels, which are all 0. */
cop_err pack_finish_unlabelled(cop_data *data, cop_error *error);
/* Makes bytes of f32 samples if both parts hold nothing but whole numbers from 0 to 255. The labels
 * must be there; the digest is not made. */
cop_err pack_narrow(cop_data *data, cop_error *error);
/* Header of a part from the dimensions of an array (n, ...): (n, f) is flat, (n, h, w) one channel,
 * (n, c, h, w) as it is. INPUT names the file if it is none of these, empty or too large. */
cop_err pack_part_of(const char *path, cop_data_type type, const cop_data_shape *shape,
                     pack_part *out, cop_error *error);
/* Both parts' samples must have one shape and one type. Whatever makes a cop_data ends here; a
 * reader may call it earlier, with the names of its files. */
cop_err pack_check_parts(const pack_part parts[2], const char *const paths[2], cop_error *error);
/* The bytes that hold names behind a pack (cop_free), and the names of `data` from these. CORRUPT:
 * they are damaged, or not of as many classes. */
cop_err pack_write_names(const char *const *names, size_t count, char **out, size_t *size,
                         cop_error *error);
cop_err pack_read_names(cop_data *data, const char *bytes, size_t size, cop_error *error);
/* Where the channels of an array (n, a, b, c) are; with *order AUTO the sizes decide, or INPUT asks
 * for data.layout. Other ranks have no order. */
cop_err channels_find(const char *path, const cop_data_shape *shape, cop_data_order *order,
                      cop_error *error);
/* The dimensions with the channels in front. */
void channels_reorder(cop_data_shape *shape, cop_data_order order);
/* Samples (height, width, channels) in place to `dims` = (channels, height, width); `element`:
 * bytes of a value. */
cop_err channels_to_front(const int32_t dims[3], uint64_t count, size_t element, void *samples,
                          cop_error *error);
/* Where the caller of pack_create writes. */
static inline void *pack_samples(const cop_data_part *part) {
    return (void *)(uintptr_t)part->samples;
}
static inline int32_t *pack_labels(const cop_data_part *part) {
    return (int32_t *)(uintptr_t)part->labels;
}

/* The formats' loaders: rows of the table in formats.c. */
cop_err pack_load_idx(const cop_data_input *input, cop_data **out, cop_error *error);
cop_err pack_load_csv(const cop_data_input *input, cop_data **out, cop_error *error);
cop_err pack_load_npy(const cop_data_input *input, cop_data **out, cop_error *error);
/* Has the NPZ file a test part beside its training part (x_test, y_test)? */
bool pack_npz_has_test(const char *path);
cop_err pack_load_image_folder(const cop_data_input *input, cop_data **out, cop_error *error);

#endif
