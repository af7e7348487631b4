/* What happens to samples between the lease and the first layer: augmentation of the stored rows in
 * training, conversion to f32, normalisation. The job says what; every worker computes the same. */
#ifndef COP_NN_INPUT_H
#define COP_NN_INPUT_H

#include "common/base/rng.h"
#include "common/nn/layer.h"

/* The numbers are those of job.proto. */
typedef enum cop_normalize {
    COP_NORMALIZE_UNIT = 1,     /* u8: x / 255; f32: as it is */
    COP_NORMALIZE_STANDARD = 2, /* then (x - mean) / std per channel, in f32 */
    COP_NORMALIZE_NONE = 3      /* values as they are */
} cop_normalize;

typedef struct cop_input_spec {
    cop_normalize normalize;  /* 0: unit */
    const double *mean, *std; /* [channels] */
    int32_t channels;         /* of images; of flat samples one for each feature, or 1 for all of
                                 them; 0 unless standard */
    int32_t shift, crop;      /* pixels; 0: none */
    bool flip;
} cop_input_spec;

/* A model's own copy. */
typedef struct cop_input {
    cop_normalize normalize;
    float *mean, *std;               /* in one block, at mean; NULL unless standard */
    int32_t channels, height, width; /* flat samples: features, 1, 1; or 1, 1, features */
    int32_t shift, crop;
    bool flip;
} cop_input;

/* INPUT says what does not fit the shape ("data.augment ..."). */
cop_err cop_input_create(const cop_input_spec *spec, const cop_shape *shape, cop_input *out,
                         cop_error *error);
void cop_input_destroy(cop_input *input);

static inline bool cop_input_augments(const cop_input *input) {
    return input->shift || input->crop || input->flip;
}
/* One sample changed at random (D3): key = derive(seed, augment, shard), counter = (block, sample
 * in its shard, 0, step). Block 0 gives four words: the shift to the right and down, then of the
 * crop the same; word w becomes (w * (2 n + 1) >> 32) - n for at most n pixels. Bit 0 of block 1's
 * first word flips. Shifted first, then flipped, then cropped; what comes in from outside is zero
 * bytes. `element` is the size of a value; `row` and `out` (channels, height, width) do not
 * overlap. */
typedef struct cop_augment_draw {
    cop_rng_key key;
    uint32_t sample, step;
} cop_augment_draw;
void cop_input_augment(const cop_input *input, const cop_augment_draw *draw, size_t element,
                       const void *row, void *out);
/* Loaded values x [features][ld], u8 already divided by 255, into what the network sees. */
void cop_input_normalize(const cop_input *input, bool bytes, float *x, int ld);

#endif
