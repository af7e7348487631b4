/* Data sets: what a job trains on. A set has a training part and a test part. It is decoded once,
 * and a digest names its content (D11).
 *
 * A set is hashed, stored and uploaded in one canonical form, the *pack*, little-endian:
 *
 *     "COPDATA1", u32 classes, u32 0
 *     for train, then test: u32 type (1 u8, 2 f32), u32 rank of a sample, u32 dims[3] (unused: 0),
 *                           u32 count, u32 0, u32 0
 *     train samples, train labels (i32), test samples, test labels, each padded with zeros to 64
 *
 * The digest is the SHA-256 of the whole pack. In a file the names of the classes may follow it
 * (class_names.c); the digest does not cover them. */
#ifndef COP_DATA_DATA_H
#define COP_DATA_DATA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/err.h"

typedef enum cop_data_type { COP_DATA_U8 = 1, COP_DATA_F32 = 2 } cop_data_type;

typedef struct cop_data_part {
    cop_data_type type;
    int32_t rank, dims[3]; /* of one sample: 3 {channels, height, width}, or 1 {features} */
    uint32_t count;
    size_t stride;         /* bytes of one sample */
    const void *samples;   /* count * stride bytes */
    const int32_t *labels; /* count, each in [0, classes) */
} cop_data_part;

/* A data set. It is constant once it is made, so threads may share it. The samples of both parts
 * have the same type and shape, and so the same stride (pack_check_parts). */
typedef struct cop_data {
    char name[128];
    int32_t classes;
    cop_data_part train, test;
    unsigned char digest[32];
    cop_buffer *pack;   /* what samples and labels point into; constant */
    atomic_uint others; /* references besides the first */
    char **class_names; /* [classes]; NULL: classes have numbers only */
} cop_data;

/* Writes "u8 (1, 28, 28)" into `out`, and returns it. */
const char *cop_data_describe(cop_data_type type, int32_t rank, const int32_t *dims, char out[64]);
/* Are these valid names of classes? UTF-8 without control characters, up to COP_CLASS_NAME_MAX
 * bytes each and COP_CLASS_NAMES_BYTES in total. */
bool cop_class_names_ok(const char *const *names, size_t count);
/* Names the classes; the names are copied. Invalid names are dropped, with a warning in the log. */
cop_err cop_data_name_classes(cop_data *data, const char *const *names, size_t count,
                              cop_error *error);
/* The name of a class ("red"); its number ("2"), written into `out`, if classes have no names. */
const char *cop_data_class(const cop_data *data, int32_t number, char out[16]);

/* Loaders. Each returns a whole data set (one reference; cop_data_destroy), or an error that names
 * the file and what is wrong with it.
 *
 * IDX: four files, plain or gzipped (by content). Type, dimensions and length of each file must
 * agree. The number of classes is the largest training label + 1; a larger test label is an error,
 * and so is an empty part. */
typedef struct cop_idx_files {
    const char *train_images, *train_labels, *test_images, *test_labels;
} cop_idx_files;
cop_err cop_data_load_idx(const cop_idx_files *files, const char *name, cop_data **out,
                          cop_error *error);
/* The four files of MNIST in a folder, by their usual names (train-images-idx3-ubyte[.gz] ..., also
 * train-images.idx3-ubyte). NOT_FOUND names the missing file. */
cop_err cop_data_load_mnist(const char *folder, cop_data **out, cop_error *error);
/* CIFAR's binary files in a folder, or in its subfolder of the usual name: data_batch_1.bin to
 * data_batch_5.bin and test_batch.bin; for CIFAR-100 train.bin and test.bin (fine labels). Samples
 * are u8 (3, 32, 32). NOT_FOUND names the missing file. */
cop_err cop_data_load_cifar10(const char *folder, cop_data **out, cop_error *error);
cop_err cop_data_load_cifar100(const char *folder, cop_data **out, cop_error *error);
/* Renders digits, u8 (1, 28, 28): glyphs of strokes, with affine and elastic distortion, and noise.
 * It uses only D3 (purpose synthetic), D4's functions and an integer rasteriser, so its digest is
 * the same on every CPU. INPUT: `train` is 0. */
cop_err cop_data_make_synthetic(uint64_t seed, uint32_t train, uint32_t test, cop_data **out,
                                cop_error *error);
/* A pack, from a file or from bytes in memory (*out holds `pack`). CORRUPT: header, size or labels
 * are inconsistent. INPUT: the parts differ in shape or type. */
cop_err cop_data_load_pack(const char *path, cop_data **out, cop_error *error);
cop_err cop_data_from_pack(cop_buffer *pack, const char *name, cop_data **out, cop_error *error);
/* Writes the pack, and the names of the classes behind it, to a file. */
cop_err cop_data_save_pack(const cop_data *data, const char *path, cop_error *error);
/* Takes one more reference, on any thread; returns `data`. And how many references there are. */
cop_data *cop_data_hold(cop_data *data);
unsigned cop_data_references(const cop_data *data);
/* Drops a reference; the last one frees the set. NULL is fine. */
void cop_data_destroy(cop_data *data);

/* Named sets, such as "mnist" and "synthetic-digits" (registry.c). */
typedef struct cop_data_source {
    const char *name, *help;
    bool downloadable, built_in;
} cop_data_source;
const cop_data_source *cop_data_sources(size_t *count);
/* Loads a named set from `folder` (--data). NULL: from its usual place, $COPPICE_MNIST or
 * cop_path_cache()/NAME. NOT_FOUND tells where it looked and what to type. */
cop_err cop_data_open(const char *source, const char *folder, cop_data **out, cop_error *error);

/* Where the channels are in the shape of an array of four dimensions. */
typedef enum cop_data_order {
    COP_DATA_ORDER_AUTO = 0, /* as the sizes suggest; an error if they are ambiguous */
    COP_DATA_CHANNELS_FIRST, /* (n, channels, height, width) */
    COP_DATA_CHANNELS_LAST   /* (n, height, width, channels) */
} cop_data_order;

/* File formats of `data.source`: idx, csv, npy, image-folder (table in formats.c). */

/* The files of one part. NULL: not given. */
typedef struct cop_data_files {
    const char *images,
        *labels; /* two files; with `path` to an NPZ file, the names of two arrays */
    const char *path;
} cop_data_files;
/* What to load, and how. */
typedef struct cop_data_input {
    const char *name; /* of the new set */
    cop_data_files train, test;
    const char *label;       /* csv: the label's column by name or number; NULL: the last */
    const char *const *drop; /* csv: columns to leave out, by name or number */
    size_t drop_count;
    bool unlabelled;      /* csv, npy: do not read labels, even if there are some; the set has one
                             class, 0 */
    cop_data_order order; /* npy, idx: of samples in four dimensions */
    uint32_t resize[2];   /* image-folder: height and width of all images; 0: unchanged */
} cop_data_input;
typedef struct cop_data_format {
    const char *name, *help;
    bool pairs;      /* takes images and labels */
    bool path;       /* takes a path */
    bool needs_test; /* else the test part may be missing, and is empty then */
    cop_err (*load)(const cop_data_input *input, cop_data **out, cop_error *error);
} cop_data_format;
const cop_data_format *cop_data_format_find(const char *name); /* NULL: unknown name */
/* Loads whatever set is at a path: a folder with the files of MNIST or CIFAR, a folder of class
 * folders (or of train and test with class folders), a .csv or .tsv file (plain or .gz), an .npz or
 * .pack file. `how` (may be NULL) gives label, drop, order and resize. NOT_FOUND: there is nothing,
 * or nothing of a known kind. A fault inside a set of a known kind is never NOT_FOUND. */
cop_err cop_data_open_path(const char *path, const cop_data_input *how, cop_data **out,
                           cop_error *error);

/* The values decide the type of samples: u8 if all of them are whole numbers from 0 to 255, else
 * f32. Is this such a number? */
bool cop_data_is_byte(float value);
/* Converts bytes to f32 samples, which older versions kept for files of numbers. The digest
 * changes. *data is replaced; on failure it stays as it is. */
cop_err cop_data_widen(cop_data **data, cop_error *error);
/* Are the training samples images of bytes, or flat bytes of which some exceed 127? Smaller whole
 * numbers are counts, ranks or truth values: divided by 255 they would nearly vanish. */
bool cop_data_looks_like_bytes(const cop_data *data);

/* The memory that samples and labels are copied to. */
typedef struct cop_data_destination {
    void *samples;
    size_t bytes; /* size of `samples` */
    int32_t *labels;
    uint32_t count; /* number of `labels` */
} cop_data_destination;

/* How to choose the rows of a job (D1). The numbers are those of job.proto. */
typedef enum cop_data_split {
    COP_SPLIT_STRATIFIED = 1, /* at random from all rows, with the same share of each class */
    COP_SPLIT_LAST = 2        /* use the first `samples` rows, set the last `validation` aside */
} cop_data_split;
typedef struct cop_data_selection {
    uint32_t validation; /* rows to set aside */
    uint32_t samples;    /* rows to use, including those; 0: all */
    cop_data_split split;
    bool by_class; /* stratify by class; else all rows count as one class */
} cop_data_selection;

/* The rows of a set that a job uses. Places [0, train) of a view are training rows, places [train,
 * train + validation) are validation rows; both belong to the training part of the set.
 * docs/reference/portable-1.md defines the draw. It depends only on the data and the selection, so
 * all jobs with the same selection set the same rows aside. */
typedef struct cop_data_view {
    const cop_data *data; /* must outlive the view */
    uint32_t train, validation, test;
    uint32_t *rows; /* [train + validation]: the row at each place; NULL: row i is at place i */
} cop_data_view;
/* INPUT: a field of the selection is too large for the data, or leaves a class without a training
 * sample. Free with cop_data_view_fini; after an error there is nothing to free. */
cop_err cop_data_view_make(const cop_data *data, const cop_data_selection *selection,
                           cop_data_view *out, cop_error *error);
void cop_data_view_fini(cop_data_view *view);
/* The row at a place below train + validation. */
uint32_t cop_data_view_row(const cop_data_view *view, uint32_t place);
/* Copies the rows at `places` and their labels, in this order. */
void cop_data_view_gather(const cop_data_view *view, const uint32_t *places, uint32_t count,
                          const cop_data_destination *out);
/* Copies rows [first, first + count) of the test part (`test`), or of the validation rows. */
void cop_data_view_evaluated(const cop_data_view *view, bool test, uint32_t first, uint32_t count,
                             const cop_data_destination *out);
/* Counts the samples of each class into train and validation, each [classes]; `validation` may be
 * NULL. INPUT: a class has samples in the training part, but none to train on; the counts are
 * filled nevertheless. */
cop_err cop_data_view_classes(const cop_data_view *view, uint32_t *train, uint32_t *validation,
                              cop_error *error);

/* How many means a set has: one per channel of images, one per feature of flat samples; 1 if there
 * are more than COP_STATISTICS_MAX features. */
int cop_data_channels(int32_t rank, int32_t first_dim);
/* Mean and standard deviation of the view's training rows, each [cop_data_channels]. Bytes count as
 * fractions of 255: their sums are exact integers until the last division and root. f32 values are
 * summed in f64, in the order of the rows. A channel that never varies gets the deviation 1. */
void cop_data_statistics(const cop_data_view *view, double *mean, double *std);
/* The smallest and the largest stored value of each channel of the training rows, each
 * [cop_data_channels]. */
void cop_data_ranges(const cop_data_view *view, double *min, double *max);

/* How the training rows are cut into batches (D1). */
typedef struct cop_data_batches {
    uint64_t seed;    /* of the job: decides the order of each epoch */
    uint32_t samples; /* training rows of the view */
    uint32_t batch;
    bool keep_last; /* the last batch of an epoch, if it is short */
} cop_data_batches;

/* The number of steps in an epoch, at least 1. */
uint64_t cop_data_steps_per_epoch(uint32_t samples, uint32_t batch, bool keep_last);
/* Which places of the view step `step` (from 1) uses: fills rows[0 .. *count) in order; rows has
 * space for batches->batch. *epoch counts from 0. */
void cop_data_batch_rows(const cop_data_batches *batches, uint64_t step, uint32_t *rows,
                         uint32_t *count, uint32_t *epoch);
/* Copies rows of `part` and their labels, in this order. The rows must exist, and the memory must
 * suffice. */
void cop_data_gather(const cop_data_part *part, const uint32_t *rows, uint32_t count,
                     const cop_data_destination *out);
/* Copies rows [first, first + count) of `part`. */
void cop_data_copy(const cop_data_part *part, uint32_t first, uint32_t count,
                   const cop_data_destination *out);
/* The memory of two buffers. */
cop_data_destination cop_data_destination_of(cop_buffer *samples, cop_buffer *labels);

/* Called as a long operation goes on: `done` of `total` units of `what` ("images"). */
typedef void (*cop_data_progress)(void *context, const char *what, uint64_t done, uint64_t total);

#endif
