/* The way of samples from a lease to the first layer: augmentation of the stored rows (in training
 * only), conversion to f32, normalisation. The job specifies all of it. */
#ifndef COP_NN_INPUT_H
#define COP_NN_INPUT_H

#include "common/base/rng.h"
#include "common/nn/layer.h"

/* The numbers are those of job.proto. */
typedef enum cop_normalize {
    COP_NORMALIZE_UNIT = 1,     /* u8: x / 255; f32: unchanged */
    COP_NORMALIZE_STANDARD = 2, /* as unit, then (x - mean) / std per channel, in f32 */
    COP_NORMALIZE_NONE = 3      /* unchanged */
} cop_normalize;

typedef struct cop_input_spec {
    cop_normalize normalize;  /* 0: unit */
    const double *mean, *std; /* [channels] */
    int32_t channels;         /* images: channels; flat samples: one per feature, or 1 for all
                                 features; 0 unless standard */
    int32_t shift, crop;      /* at most this many pixels; 0: off */
    bool flip;
} cop_input_spec;

/* The model's own copy. A flat sample has features as its channels, or as the width of one channel.
 */
typedef struct cop_input {
    cop_normalize normalize;
    float *mean, *std;               /* in one block, at mean; NULL unless standard */
    int32_t channels, height, width; /* flat samples: (features, 1, 1) or (1, 1, features) */
    int32_t shift, crop;
    bool flip;
} cop_input;

/* Copies the spec for samples of this shape. INPUT: they do not fit; the error names the field
 * ("data.augment ..."). After an error there is nothing to free. */
cop_err cop_input_create(const cop_input_spec *spec, const cop_shape *shape, cop_input *out,
                         cop_error *error);
void cop_input_destroy(cop_input *input);

static inline bool cop_input_augments(const cop_input *input) {
    return input->shift || input->crop || input->flip;
}
/* The random numbers of one sample (D3): counter (block, sample, 0, step). */
typedef struct cop_augment_draw {
    cop_rng_key key;       /* derive(seed, augment, shard) */
    uint32_t sample, step; /* the sample's index in its shard; the step, from 1 */
} cop_augment_draw;
/* Shifts, then flips, then crops one sample, as the job asks. Block 0 has four words: the shift to
 * the right and down, and the same for the crop; word w moves the image by (w * (2 n + 1) >> 32) -
 * n of at most n pixels. Bit 0 of the first word of block 1 flips. Pixels from outside the image
 * are zero bytes. `element` is the size of a value in bytes; row and out are (channels, height,
 * width) and do not overlap. */
void cop_input_augment(const cop_input *input, const cop_augment_draw *draw, size_t element,
                       const void *row, void *out);
/* Normalises values x [features][ld] in place. With `bytes` they were u8 and are divided by 255
 * already. */
void cop_input_normalize(const cop_input *input, bool bytes, float *x, int ld);

#endif
