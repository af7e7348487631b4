/* What happens to samples between a lease and the first layer: the stored rows are augmented (in
 * training only), converted to f32, and normalised. The job file specifies augmentation and
 * normalisation. */
#ifndef COP_NN_INPUT_H
#define COP_NN_INPUT_H

#include "common/base/rng.h"
#include "common/nn/layer.h"

/* The numbers are those of job.proto. */
typedef enum cop_normalize {
    COP_NORMALIZE_UNIT = 1,     /* u8 values become x / 255; f32 values are unchanged */
    COP_NORMALIZE_STANDARD = 2, /* as UNIT, then (x - mean) / std for each channel, in f32 */
    COP_NORMALIZE_NONE = 3      /* values are unchanged: u8 values become 0 to 255 */
} cop_normalize;

typedef struct cop_input_spec {
    cop_normalize normalize;  /* 0 means UNIT */
    const double *mean, *std; /* [channels] */
    /* The number of means and of deviations. 0 unless STANDARD. An image has one of each per
     * channel. A flat sample has one of each per feature, or only one for all features. */
    int32_t channels;
    int32_t shift, crop; /* move the image by at most this many pixels; 0: do not */
    bool flip;           /* mirror half of the images, at random */
} cop_input_spec;

/* The model's own copy of a spec. A flat sample is treated as an image. If all features share one
 * mean, the image is one line, and each feature is a pixel. Otherwise it is one pixel, and each
 * feature is a channel. */
typedef struct cop_input {
    cop_normalize normalize;
    float *mean, *std;               /* one allocation, at `mean`; NULL unless STANDARD */
    int32_t channels, height, width; /* of a flat sample: (features, 1, 1) or (1, 1, features) */
    int32_t shift, crop;
    bool flip;
} cop_input;

/* Copies the spec for samples of this shape. INPUT: the spec does not fit the shape; the error
 * names the field ("data.augment ..."). NO_MEMORY. After an error there is nothing to free. */
cop_err cop_input_create(const cop_input_spec *spec, const cop_shape *shape, cop_input *out,
                         cop_error *error);
void cop_input_destroy(cop_input *input);

static inline bool cop_input_augments(const cop_input *input) {
    return input->shift || input->crop || input->flip;
}
/* Determines the random numbers of one sample (D3). Their counter is (block, sample, 0, step). */
typedef struct cop_augment_draw {
    cop_rng_key key; /* derive(seed, augment, shard) */
    uint32_t sample; /* the sample's index in its shard */
    uint32_t step;   /* number of the step, counted from 1 */
} cop_augment_draw;
/* Shifts, then flips, then crops one sample, as the job asks. The random numbers are:
 *   block 0, words 0 and 1: how far the shift moves the image to the right and down
 *   block 0, words 2 and 3: how far the crop moves the image to the right and down
 *   block 1, word 0: the image is mirrored if bit 0 is set
 * If a move has at most n pixels, word w moves the image by (w * (2 n + 1) >> 32) - n. Pixels that
 * come from outside the image are zero bytes. `element` is the size of a value in bytes. row and
 * out are (channels, height, width) and do not overlap. */
void cop_input_augment(const cop_input *input, const cop_augment_draw *draw, size_t element,
                       const void *row, void *out);
/* Normalises the values x [features][ld] in place. `bytes` says that the data set stores u8 values,
 * which the caller has already divided by 255. */
void cop_input_normalize(const cop_input *input, bool bytes, float *x, int ld);

#endif
