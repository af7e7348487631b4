/* Initial values of weights (D3, purpose init), for the layers that have weights.
 *
 * The key is derive(seed, COP_RNG_INIT, 0). Element e of a tensor comes from the Philox block with
 * the counter (e / 4, 0, layer, parameter). `layer` is the layer's index in the job file's list,
 * and `parameter` the tensor's index in the layer: 0 for the weight, 1 for the bias. */
#ifndef COP_NN_LAYERS_INIT_H
#define COP_NN_LAYERS_INIT_H

#include "common/nn/layer.h"

typedef struct cop_init_stream {
    cop_rng_key key;
    uint32_t layer, parameter;
    cop_init kind; /* the `init` of the layer's spec */
} cop_init_stream;

/* The random numbers for one tensor of a layer. */
cop_init_stream cop_init_stream_of(uint64_t seed, const cop_layer *layer, uint32_t parameter);
/* Fills `out` with normal values of mean 0 and this standard deviation. cop_normal_pair turns words
 * 0 and 1 of a block into its first two normals, and words 2 and 3 into the other two. A value is
 * deviation * normal, computed in f64 and rounded once to f32. */
void cop_init_normal(const cop_init_stream *stream, double deviation, float *out, int64_t count);
/* Fills `out` with uniform values in [-bound, bound). Element e takes word e % 4 of its block. With
 * u = (word >> 8) / 2^24, its value is bound * (2 u - 1), computed in f64 and rounded once to
 * f32. */
void cop_init_uniform(const cop_init_stream *stream, double bound, float *out, int64_t count);
/* Fills a weight tensor as the layer's `init` asks. Bounds and deviations are computed in f64.
 *   he      normal, deviation sqrt(2 / fan_in) (He et al., ICCV 2015)
 *   glorot  uniform, bound sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010)
 *   torch   uniform, bound 1 / sqrt(fan_in), as in PyTorch's nn.Linear and nn.Conv2d */
void cop_init_weights(const cop_init_stream *stream, int64_t fan_in, int64_t fan_out, float *out,
                      int64_t count);
/* Fills a bias tensor. If `init` is torch, the values are uniform with bound 1 / sqrt(fan_in). If
 * it is he or glorot, they are 0. */
void cop_init_bias(const cop_init_stream *stream, int64_t fan_in, float *out, int64_t count);

#endif
