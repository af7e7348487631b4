/* Data sets: what a job trains on. A set has a training and a test part, decoded once; its content
 * is named by a digest (D11).
 *
 * The canonical serialisation, the *pack*, is what is hashed, stored by the coordinator and
 * uploaded in chunks: "COPDATA1", u32 classes, u32 reserved 0, then for train and test each: u32
 * dtype (1 u8, 2 f32), u32 rank of a sample, u32 dims[3] (unused 0), u32 count, u32 reserved[2];
 * then train samples, train labels (i32), test samples, test labels, each padded with zeros to 64.
 * All little-endian. digest = SHA-256 of the whole pack. In a file the names of the classes may
 * follow (class_names.c), which the digest does not cover. */
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
    int32_t rank,
        dims[3]; /* of one sample: {28, 28} -> rank 3 {1, 28, 28} for images, {n} for flat */
    uint32_t count;
    size_t stride;         /* bytes of one sample */
    const void *samples;   /* count * stride bytes */
    const int32_t *labels; /* count, each in [0, classes) */
} cop_data_part;

/* Samples of both parts have one type and one shape, and so one stride: no other cop_data is made
 * (pack_check_parts). */
typedef struct cop_data {
    char name[128];
    int32_t classes;
    cop_data_part train, test;
    unsigned char digest[32];
    cop_buffer *pack;   /* what samples and labels point into; constant */
    atomic_uint others; /* references besides the first */
    char **class_names; /* [classes], or NULL: they have only their numbers */
} cop_data;

/* "u8 (1, 28, 28)", into `out`, which it returns. */
const char *cop_data_describe(cop_data_type type, int32_t rank, const int32_t *dims, char out[64]);
/* May these be the names of classes? At most COP_CLASS_NAME_MAX bytes each and
 * COP_CLASS_NAMES_BYTES in all, UTF-8 without control characters. */
bool cop_class_names_ok(const char *const *names, size_t count);
/* Gives the classes names, which are copied. Names that may not be kept are left out with a warning
 * in the log. */
cop_err cop_data_name_classes(cop_data *data, const char *const *names, size_t count,
                              cop_error *error);
/* "red", or "2" where classes have no names; into `out` if need be. */
const char *cop_data_class(const cop_data *data, int32_t number, char out[16]);

/* Sources. Each gives a whole data set (one reference; cop_data_destroy) or an error that names the
 * file and what is wrong with it. idx: four files, plain or .gz (by content): magic, type,
 * dimensions and lengths are checked against each other, labels against the classes (max label + 1
 * of the training part; a test label above is an error). Empty parts are errors. */
typedef struct cop_idx_files {
    const char *train_images, *train_labels, *test_images, *test_labels;
} cop_idx_files;
cop_err cop_data_load_idx(const cop_idx_files *files, const char *name, cop_data **out,
                          cop_error *error);
/* The four files of MNIST by their usual names (train-images-idx3-ubyte[.gz] ..., also with a dot)
 * in a folder. NOT_FOUND names what is missing. */
cop_err cop_data_load_mnist(const char *folder, cop_data **out, cop_error *error);
/* CIFAR's binary files in a folder (or in its subfolder of the usual name): data_batch_1.bin to
 * data_batch_5.bin and test_batch.bin, or train.bin and test.bin of CIFAR-100 (fine labels); 3 x 32
 * x 32 u8. NOT_FOUND names what is missing. */
cop_err cop_data_load_cifar10(const char *folder, cop_data **out, cop_error *error);
cop_err cop_data_load_cifar100(const char *folder, cop_data **out, cop_error *error);
/* Rendered digits: random strokes of ten glyph skeletons, affine and elastic distortion, noise; 1 x
 * 28 x 28 u8; by D3 (purpose synthetic) and D4's functions and an integer rasteriser only, so that
 * its digest is a constant on every CPU. Default 60000 + 10000 samples. */
cop_err cop_data_make_synthetic(uint64_t seed, uint32_t train, uint32_t test, cop_data **out,
                                cop_error *error);
/* A pack: from a file (digest verified) or from bytes that were uploaded. CORRUPT if header, sizes
 * or labels lie; INPUT if its parts differ in shape or type. */
cop_err cop_data_load_pack(const char *path, cop_data **out, cop_error *error);
cop_err cop_data_from_pack(cop_buffer *pack, const char *name, cop_data **out,
                           cop_error *error); /* holds `pack` on success */
cop_err cop_data_save_pack(const cop_data *data, const char *path, cop_error *error);
/* A set is constant once it was made, and may be shared: one more reference to it, for any thread;
 * and how many there are. */
cop_data *cop_data_hold(cop_data *data);
unsigned cop_data_references(const cop_data *data);
/* Gives up a reference; the last one frees. NULL is fine. */
void cop_data_destroy(cop_data *data);

/* Named sets: "mnist", "synthetic-digits" (table in registry.c: name, one line of help, loader).
 * `folder` (--data) or NULL: then mnist is looked for in $COPPICE_MNIST, the cache
 * (cop_path_cache()/mnist). The error says where it looked and what to type. */
typedef struct cop_data_source {
    const char *name, *help;
    bool downloadable, built_in;
} cop_data_source;
const cop_data_source *cop_data_sources(size_t *count);
cop_err cop_data_open(const char *source, const char *folder, cop_data **out, cop_error *error);

/* Where the channels of (n, a, b, c) are. Auto: decided by the sizes, an error if they do not. */
typedef enum cop_data_order {
    COP_DATA_ORDER_AUTO = 0,
    COP_DATA_CHANNELS_FIRST,
    COP_DATA_CHANNELS_LAST
} cop_data_order;

/* File formats of `data.source`: idx, csv, npy, image-folder (table in formats.c). */
typedef struct cop_data_files {  /* NULL: not given */
    const char *images, *labels; /* two files, or with `path` to an npz the names of two arrays */
    const char *path;
} cop_data_files;
typedef struct cop_data_input {
    const char *name; /* of the set that is made */
    cop_data_files train, test;
    const char *label;       /* csv: the label's column by name or number; NULL: the last */
    const char *const *drop; /* csv: columns that are left out, by name or number */
    size_t drop_count;
    bool unlabelled;      /* csv, npy: samples are compared with themselves. Labels need not be
                             there, and are not read; the set has one class, 0 */
    cop_data_order order; /* npy, idx: of samples in four dimensions */
    uint32_t resize[2];   /* image-folder: height and width of all pictures; 0: as they are */
} cop_data_input;
typedef struct cop_data_format {
    const char *name, *help;
    bool pairs;      /* takes images and labels */
    bool path;       /* takes a path */
    bool needs_test; /* else the test part may be absent, and is empty */
    cop_err (*load)(const cop_data_input *input, cop_data **out, cop_error *error);
} cop_data_format;
const cop_data_format *cop_data_format_find(const char *name); /* NULL: none of that name */
/* What stands at a path, by its content: a folder of MNIST's or CIFAR's files, a folder of class
 * folders (or of train and test with these), a .csv or .tsv (plain or .gz), .npz or .pack file.
 * `how` (may be NULL): label, drop, order and resize. NOT_FOUND: nothing that is known, or nothing
 * at all; what is wrong inside of a set that is known is never NOT_FOUND. */
cop_err cop_data_open_path(const char *path, const cop_data_input *how, cop_data **out,
                           cop_error *error);

/* Types of samples. The values decide: files of numbers are kept as bytes if all values are whole
 * numbers from 0 to 255, else as f32. */
bool cop_data_is_byte(float value);
/* Makes f32 samples of bytes, as they were kept before values decided; the digest changes with
 * them. On failure the set stays as it is. */
cop_err cop_data_widen(cop_data **data, cop_error *error);
/* Are the training samples pictures of bytes, or flat bytes that go beyond 127? Smaller whole
 * numbers are counts, ranks, truth values: 1/255 of them would be next to nothing. */
bool cop_data_looks_like_bytes(const cop_data *data);

/* Where samples are copied to. */
typedef struct cop_data_room {
    void *samples;
    size_t bytes; /* at `samples` */
    int32_t *labels;
    uint32_t count; /* of `labels` */
} cop_data_room;

/* How a job's rows are chosen (D1): `validation` rows are set aside, `samples` rows are used in all
 * (0: every row). The numbers are those of job.proto. */
typedef enum cop_data_split {
    COP_SPLIT_STRATIFIED = 1, /* drawn over all rows, the same share of each class */
    COP_SPLIT_LAST = 2        /* the first `samples` rows; of these the last `validation` */
} cop_data_split;
typedef struct cop_data_cut {
    uint32_t validation, samples;
    cop_data_split split;
    bool by_class; /* the draw is stratified; else all rows count as one class */
} cop_data_cut;

/* What a job sees of a set after `validation` and `samples`: places [0, train) are the training
 * rows, places [train, train + validation) the validation rows, both of the data's training part.
 * docs/reference/portable-1.md has the rule of the draw. It depends on the data and the cut alone,
 * so that all jobs with the same cut set the same rows aside. */
typedef struct cop_data_view {
    const cop_data *data; /* must outlive the view */
    uint32_t train, validation, test;
    uint32_t *rows; /* [train + validation]: the row at each place; NULL: place i is row i */
} cop_data_view;
/* INPUT says which field is too large for the data, or which class it leaves without a training
 * sample. Free with cop_data_view_fini; after an error there is nothing to free. */
cop_err cop_data_view_make(const cop_data *data, const cop_data_cut *cut, cop_data_view *out,
                           cop_error *error);
void cop_data_view_fini(cop_data_view *view);
uint32_t cop_data_view_row(const cop_data_view *view, uint32_t place);
/* Copies the rows at `places` one after another, and their labels. */
void cop_data_view_gather(const cop_data_view *view, const uint32_t *places, uint32_t count,
                          const cop_data_room *out);
/* The same of rows [first, first + count) of the test part (`test`) or of the validation rows. */
void cop_data_view_evaluated(const cop_data_view *view, bool test, uint32_t first, uint32_t count,
                             const cop_data_room *out);
/* Counts the samples of each class into train and validation [classes]; `validation` may be NULL.
 * INPUT names a class that has samples in the training part, but none to train on; the counts are
 * filled all the same. */
cop_err cop_data_view_classes(const cop_data_view *view, uint32_t *train, uint32_t *validation,
                              cop_error *error);

/* Mean and standard deviation of the view's training rows, per channel of images or per feature of
 * flat samples (of all features together if there are more than COP_STATISTICS_MAX), into
 * mean and std [cop_data_channels]; u8 as fractions of 255. Of u8 from integer
 * sums, exact until the last division and root; of f32 from f64 sums in the order of the rows. The
 * deviation of a channel that never varies is given as 1. */
int cop_data_channels(int32_t rank, int32_t first_dim);
void cop_data_statistics(const cop_data_view *view, double *mean, double *std);
/* The least and the largest value of each channel, as they are stored. */
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
/* D2: sizes of `shards` slices of a batch of b samples; the first (b mod shards) one longer; may be
 * 0 when b < shards. */
void cop_data_slices(uint32_t batch, uint32_t shards, int32_t *sizes);
/* Copies the rows of `part` one after another, and their labels. The room must suffice, and each
 * row must exist: asserted. */
void cop_data_gather(const cop_data_part *part, const uint32_t *rows, uint32_t count,
                     const cop_data_room *out);
/* The same of rows [first, first + count). */
void cop_data_copy(const cop_data_part *part, uint32_t first, uint32_t count,
                   const cop_data_room *out);
/* The room of two buffers. */
cop_data_room cop_data_room_of(cop_buffer *samples, cop_buffer *labels);

/* Progress of long operations; may be NULL. */
typedef void (*cop_data_progress)(void *context, const char *what, uint64_t done, uint64_t total);

#endif
