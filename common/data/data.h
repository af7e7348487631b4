/* Data sets: the samples and labels that a job trains on. A set has a training part and a test
 * part; the test part may be empty. The files of a set are decoded once, and a digest names the
 * decoded content (D11).
 *
 * A set is hashed, stored and uploaded in one canonical form, the *pack*. All numbers in it are
 * little-endian. These sections follow one another:
 *
 *  1. the header of the set: "COPDATA1", u32 number of classes, u32 0;
 *  2. the header of the training part, then the header of the test part, each with: u32 type (1:
 *     u8, 2: f32), u32 rank of a sample, u32 dims[3] (0 beyond the rank), u32 number of samples,
 *     u32 0, u32 0;
 *  3. the training samples;
 *  4. the training labels, i32;
 *  5. the test samples;
 *  6. the test labels, i32.
 *
 * Sections 3 to 6 begin at multiples of 64 bytes, and the pack ends at one; zeros fill the gaps.
 *
 * The digest is the SHA-256 of the whole pack. In the file of a pack, the names of the classes may
 * follow the pack (class_names.c); the digest does not cover these names. */
#ifndef COP_DATA_DATA_H
#define COP_DATA_DATA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/err.h"

/* The type of the values of samples. The header of a pack contains these numbers. */
typedef enum cop_data_type { COP_DATA_U8 = 1, COP_DATA_F32 = 2 } cop_data_type;

/* One part of a set. The set owns the memory of samples and labels. */
typedef struct cop_data_part {
    cop_data_type type;
    int32_t rank;          /* number of dimensions of one sample: 1 (flat) or 3 (an image) */
    int32_t dims[3];       /* rank 1: {features}; rank 3: {channels, height, width} */
    uint32_t count;        /* number of samples */
    size_t stride;         /* bytes of one sample */
    const void *samples;   /* count * stride bytes */
    const int32_t *labels; /* [count], each in [0, classes) */
} cop_data_part;

/* A data set. It does not change after a loader has returned it, so threads may share it. The
 * samples of both parts have the same type and shape, and so the same stride (pack_check_parts). */
typedef struct cop_data {
    char name[128];
    int32_t classes; /* number of classes */
    cop_data_part train;
    cop_data_part test;
    unsigned char digest[32];     /* SHA-256 of the pack */
    cop_buffer *pack;             /* the bytes that samples and labels of both parts point into */
    atomic_uint extra_references; /* number of references minus 1 */
    char **class_names;           /* [classes]; NULL if classes have numbers only */
} cop_data;

/* Writes type and shape of a sample into `out`, such as "u8 (1, 28, 28)", and returns `out`. */
const char *cop_data_describe(cop_data_type type, int32_t rank, const int32_t *dims, char out[64]);
/* True: these are valid names of classes. Each must be UTF-8 without control characters, not empty,
 * and have at most COP_CLASS_NAME_MAX bytes. Together, with a zero byte after each, they may have
 * at most COP_CLASS_NAMES_BYTES bytes. */
bool cop_class_names_ok(const char *const *names, size_t count);
/* Sets the names of the classes of `data` to copies of `names`; `count` must be data->classes. If a
 * name is invalid, writes a warning to the log, removes all names, and succeeds. NO_MEMORY. */
cop_err cop_data_name_classes(cop_data *data, const char *const *names, size_t count,
                              cop_error *error);
/* The name of a class ("red"), owned by the set. If the set has no name for it, writes the number
 * of the class ("2") into `out` and returns `out`. */
const char *cop_data_class(const cop_data *data, int32_t number, char out[16]);

/* Loaders. On success, each stores a whole data set in *out; the caller owns one reference to it
 * (cop_data_destroy). On failure, the error names the file and the fault, and *out is unchanged.
 *
 * IDX: four files. The content of a file, not its name, decides whether it is gzipped. The length
 * of each file must be the one that its header gives. The number of classes is the largest training
 * label + 1. An empty part and a test label outside of the classes are errors. */
typedef struct cop_idx_files {
    const char *train_images, *train_labels, *test_images, *test_labels;
} cop_idx_files;
cop_err cop_data_load_idx(const cop_idx_files *files, const char *name, cop_data **out,
                          cop_error *error);
/* Loads the four files of MNIST from a folder by their usual names, such as
 * train-images-idx3-ubyte or train-images.idx3-ubyte, also with .gz. NOT_FOUND: a file is missing;
 * the error names it. */
cop_err cop_data_load_mnist(const char *folder, cop_data **out, cop_error *error);
/* Load CIFAR's binary files from the subfolder that CIFAR's archive creates
 * (cifar-10-batches-bin or cifar-100-binary) if `folder` has it, otherwise from `folder`. The files
 * of CIFAR-10 are data_batch_1.bin to data_batch_5.bin and test_batch.bin. Those of CIFAR-100 are
 * train.bin and test.bin; their fine labels are used. Samples are u8 (3, 32, 32). NOT_FOUND: a file
 * is missing; the error names it. */
cop_err cop_data_load_cifar10(const char *folder, cop_data **out, cop_error *error);
cop_err cop_data_load_cifar100(const char *folder, cop_data **out, cop_error *error);
/* Renders `train` and `test` images of digits, u8 (1, 28, 28): glyphs of strokes with affine and
 * elastic distortion and noise. Random numbers come from D3 (purpose synthetic), functions from D4,
 * and drawing is integer arithmetic, so the digest of the set is the same on every CPU. INPUT:
 * `train` is 0. */
cop_err cop_data_make_synthetic(uint64_t seed, uint32_t train, uint32_t test, cop_data **out,
                                cop_error *error);
/* Load a pack from a file, or from bytes in memory. In the second case the set takes a reference to
 * `pack` and points into it. CORRUPT: header, size, labels or class names are invalid, or there is
 * no training sample. INPUT: the parts differ in shape or type. */
cop_err cop_data_load_pack(const char *path, cop_data **out, cop_error *error);
cop_err cop_data_from_pack(cop_buffer *pack, const char *name, cop_data **out, cop_error *error);
/* Writes a file: the pack, then the names of the classes if they have names. */
cop_err cop_data_save_pack(const cop_data *data, const char *path, cop_error *error);
/* Takes one more reference to `data` and returns `data`. Any thread may call it. */
cop_data *cop_data_hold(cop_data *data);
/* The number of references to `data`. */
unsigned cop_data_references(const cop_data *data);
/* Drops a reference, on any thread; dropping the last one frees the set. `data` may be NULL. */
void cop_data_destroy(cop_data *data);

/* Named sets, such as "mnist" and "synthetic-digits" (registry.c). */
typedef struct cop_data_source {
    const char *name;
    const char *help;
    bool downloadable; /* `coppice data get` can fetch it */
    bool built_in;     /* the program makes it; it needs no files */
} cop_data_source;
/* The table of named sets; *count: the number of its rows. Static. */
const cop_data_source *cop_data_sources(size_t *count);
/* Loads a named set from `folder` (--data). If `folder` is NULL, it loads from
 * cop_path_cache()/NAME, but MNIST from $COPPICE_MNIST if that is set. A built-in set ignores
 * `folder`. NOT_FOUND: the name is unknown, or a file is missing; the error names the nearest known
 * name or the folder. */
cop_err cop_data_open(const char *source, const char *folder, cop_data **out, cop_error *error);

/* Where the channels are in the shape of an array of four dimensions. */
typedef enum cop_data_order {
    COP_DATA_ORDER_AUTO = 0, /* the sizes decide; ambiguous sizes are an error */
    COP_DATA_CHANNELS_FIRST, /* (n, channels, height, width) */
    COP_DATA_CHANNELS_LAST   /* (n, height, width, channels) */
} cop_data_order;

/* The following types describe the file formats that `data.source` may name: idx, csv, npy and
 * image-folder (table in formats.c). */

/* The files of one part. A member is NULL if the job does not give it. Without `path`, `images` and
 * `labels` are the paths of two files. With `path`, they are the names of two arrays in the NPZ
 * file at `path`. */
typedef struct cop_data_files {
    const char *images;
    const char *labels;
    const char *path; /* a CSV file, an NPZ file or a folder of images */
} cop_data_files;
/* What to load, and how. */
typedef struct cop_data_input {
    const char *name; /* name of the new set */
    cop_data_files train;
    cop_data_files test;     /* all members are NULL if there is no test part */
    const char *label;       /* csv: name or number of the label's column; NULL: the last column */
    const char *const *drop; /* csv: names or numbers of the columns to leave out */
    size_t drop_count;       /* number of entries of `drop` */
    bool unlabelled;         /* csv, npy: do not read labels, even if the file has some; all samples
                                get the label 0, and the set has one class */
    cop_data_order order;    /* npy, idx: where the channels are in arrays of four dimensions */
    uint32_t resize[2];      /* image-folder: height and width of all images; 0: as in the files */
} cop_data_input;
/* One file format. */
typedef struct cop_data_format {
    const char *name; /* as in `data.source` */
    const char *help;
    bool pairs;      /* a part may be given by `images` and `labels` */
    bool path;       /* a part may be given by `path` */
    bool needs_test; /* true: the test part must be given; false: if it is not, it is empty */
    cop_err (*load)(const cop_data_input *input, cop_data **out, cop_error *error);
} cop_data_format;
/* The format with this name. Static. NULL: the name is unknown. */
const cop_data_format *cop_data_format_find(const char *name);
/* Finds out the format of the data at a path, and loads them. The path may be that of:
 *
 *  - a folder with all files of MNIST or CIFAR;
 *  - a folder with one folder of images per class;
 *  - a folder with a folder `train` and perhaps `test`, which hold one folder of images per class;
 *  - a CSV file whose name ends in .csv, .tsv (both also with .gz), .txt or .data;
 *  - an .npz or .pack file.
 *
 * `how` (may be NULL) gives label, drop, drop_count, unlabelled, order and resize; its other
 * members are not used. NOT_FOUND: the path does not exist, or is none of these. Once the format is
 * recognised, no error is NOT_FOUND: if a file of the set is missing, the error is INPUT. */
cop_err cop_data_open_path(const char *path, const cop_data_input *how, cop_data **out,
                           cop_error *error);

/* Is the value a whole number from 0 to 255? If all values of both parts are, the samples of a set
 * are u8, otherwise f32. */
bool cop_data_is_byte(float value);
/* Converts u8 samples to f32 samples of the same values, for jobs of older versions, which stored
 * all values of CSV files as f32. Replaces *data by the new set, which has another digest, and
 * drops the reference to the old set. Does nothing if the samples are f32 already. On failure *data
 * is unchanged. NO_MEMORY. */
cop_err cop_data_widen(cop_data **data, cop_error *error);
/* Should training divide the values by 255? True if the samples are u8 images, or flat u8 samples
 * of which a training value exceeds 127. Smaller flat values are probably counts, ranks or truth
 * values; divided by 255, they would nearly vanish. */
bool cop_data_looks_like_bytes(const cop_data *data);

/* The memory that samples and labels are copied to. The caller owns it. */
typedef struct cop_data_destination {
    void *samples;
    size_t bytes; /* size of the memory at `samples` */
    int32_t *labels;
    uint32_t count; /* number of labels that fit into `labels` */
} cop_data_destination;

/* How a job chooses rows of the training part, to train on or to set aside for validation (D1).
 * job.proto has the same numbers. */
typedef enum cop_data_split {
    COP_SPLIT_STRATIFIED = 1, /* draw rows at random; each class keeps its share of the rows */
    COP_SPLIT_LAST = 2        /* use the first `samples` rows; set the last `validation` of these
                                 aside */
} cop_data_split;
typedef struct cop_data_selection {
    uint32_t validation; /* number of rows to set aside */
    uint32_t samples;    /* number of rows to use, `validation` included; 0: all rows */
    cop_data_split split;
    bool by_class; /* STRATIFIED: true: draw from each class; false: all rows are one class */
} cop_data_selection;

/* The rows of a set that a job uses. Places [0, train) of a view are training rows, places [train,
 * train + validation) are validation rows; both belong to the training part of the set.
 * docs/reference/portable-1.md defines the draw. It depends only on the data and the selection, so
 * all jobs with the same selection set the same rows aside. */
typedef struct cop_data_view {
    const cop_data *data; /* must outlive the view */
    uint32_t train;       /* number of training rows */
    uint32_t validation;  /* number of validation rows */
    uint32_t test;        /* number of rows of the test part */
    uint32_t *rows; /* [train + validation]: the row at each place; NULL: row i is at place i */
} cop_data_view;
/* Makes the view of a selection. Free it with cop_data_view_fini; after an error there is nothing
 * to free. INPUT: a field of the selection is too large for the data, or a stratified draw would
 * leave a class without a training row. NO_MEMORY. */
cop_err cop_data_view_make(const cop_data *data, const cop_data_selection *selection,
                           cop_data_view *out, cop_error *error);
void cop_data_view_fini(cop_data_view *view);
/* The row of the training part that is at `place`, which must be below train + validation. */
uint32_t cop_data_view_row(const cop_data_view *view, uint32_t place);
/* Copies the rows at `count` places of the view, and their labels, in the order of `places`. */
void cop_data_view_gather(const cop_data_view *view, const uint32_t *places, uint32_t count,
                          const cop_data_destination *out);
/* Copies rows [first, first + count), and their labels: of the test part if `test` is true,
 * otherwise of the validation rows. */
void cop_data_view_evaluated(const cop_data_view *view, bool test, uint32_t first, uint32_t count,
                             const cop_data_destination *out);
/* Counts the training rows and the validation rows of each class. `train` and `validation` are
 * arrays of data->classes counts; `validation` may be NULL. INPUT: a class has rows in the training
 * part, but none of them is a training row of the view; the counts are valid nevertheless. */
cop_err cop_data_view_classes(const cop_data_view *view, uint32_t *train, uint32_t *validation,
                              cop_error *error);

/* The number of means of a set: one per channel of images, or one per feature of flat samples. Flat
 * samples of more than COP_STATISTICS_MAX features have one mean for all features. `first_dim` is
 * dims[0] of a sample. */
int cop_data_channels(int32_t rank, int32_t first_dim);
/* Computes mean and standard deviation of the view's training rows. `mean` and `std` are arrays of
 * cop_data_channels numbers. A u8 value b counts as b / 255; its sums are exact integers until the
 * last division and root. f32 values are summed in f64, in the order of the view. A channel whose
 * values are all equal gets the deviation 1. */
void cop_data_statistics(const cop_data_view *view, double *mean, double *std);
/* Finds the smallest and the largest stored value of each channel in the view's training rows.
 * `min` and `max` are arrays of cop_data_channels numbers. u8 values are not divided by 255. */
void cop_data_ranges(const cop_data_view *view, double *min, double *max);

/* How the training rows are divided into batches (D1). */
typedef struct cop_data_batches {
    uint64_t seed;    /* seed of the job; it decides the order of the rows in each epoch */
    uint32_t samples; /* number of training rows of the view */
    uint32_t batch;   /* number of rows of a full batch */
    bool keep_last;   /* true: an epoch ends with a short batch if rows are left over; false: these
                         rows are not used in this epoch */
} cop_data_batches;

/* The number of steps in an epoch. It is at least 1: if there are fewer samples than a batch has,
 * the epoch is one short batch. */
uint64_t cop_data_steps_per_epoch(uint32_t samples, uint32_t batch, bool keep_last);
/* Finds the places of the view that step `step` uses. Steps count from 1. Fills rows[0] to
 * rows[*count - 1]; `rows` must have room for batches->batch entries. *epoch is the number of the
 * epoch, from 0. */
void cop_data_batch_rows(const cop_data_batches *batches, uint64_t step, uint32_t *rows,
                         uint32_t *count, uint32_t *epoch);
/* Copies `count` rows of `part`, and their labels, in the order of `rows`. Asserts that the rows
 * exist and that `out` has room for them. */
void cop_data_gather(const cop_data_part *part, const uint32_t *rows, uint32_t count,
                     const cop_data_destination *out);
/* Copies rows [first, first + count) of `part`, and their labels, with the same assertions. */
void cop_data_copy(const cop_data_part *part, uint32_t first, uint32_t count,
                   const cop_data_destination *out);
/* Describes the memory of two buffers as a destination. The buffers keep it. */
cop_data_destination cop_data_destination_of(cop_buffer *samples, cop_buffer *labels);

/* Reports the progress of a long operation: `done` of `total` units are finished. `what` names the
 * units, such as "images". */
typedef void (*cop_data_progress)(void *context, const char *what, uint64_t done, uint64_t total);

#endif
