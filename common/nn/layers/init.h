/* Initial values of weights (D3, purpose init), for the layers that have weights.
 *
 * The key is derive(seed, COP_RNG_INIT, 0). Element e of a tensor comes from the Philox block with
 * counter (e / 4, 0, layer, parameter): the layer's index in the job file, and the tensor's index
 * in the layer (weight 0, bias 1). */
#ifndef COP_NN_LAYERS_INIT_H
#define COP_NN_LAYERS_INIT_H

#include "common/nn/layer.h"

typedef struct cop_init_stream {
    cop_rng_key key;
    uint32_t layer, parameter;
    cop_init kind; /* the layer's */
} cop_init_stream;

/* The random numbers for one tensor of a layer. */
cop_init_stream cop_init_stream_of(uint64_t seed, const cop_layer *layer, uint32_t parameter);
/* Fills `out` with normal values of mean 0. The words (w0, w1) and (w2, w3) of a block give two
 * pairs by cop_normal_pair, in this order. Each value is deviation * normal in f64, rounded once to
 * f32. */
void cop_init_normal(const cop_init_stream *stream, double deviation, float *out, int64_t count);
/* Fills `out` with uniform values in [-bound, bound). Element e takes word e % 4 of its block: u =
 * (word >> 8) / 2^24; the value is bound * (2 u - 1) in f64, rounded once to f32. */
void cop_init_uniform(const cop_init_stream *stream, double bound, float *out, int64_t count);
/* Fills a weight tensor as the layer's `init` asks; bounds and deviations are computed in f64.
 * he: normal, deviation sqrt(2 / fan_in) (He et al., ICCV 2015). glorot: uniform, bound sqrt(6 /
 * (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010). torch: uniform, bound 1 / sqrt(fan_in), as
 * PyTorch's nn.Linear and nn.Conv2d. */
void cop_init_weights(const cop_init_stream *stream, int64_t fan_in, int64_t fan_out, float *out,
                      int64_t count);
/* Fills a bias tensor. torch: uniform, bound 1 / sqrt(fan_in). he and glorot: 0. */
void cop_init_bias(const cop_init_stream *stream, int64_t fan_in, float *out, int64_t count);

#endif
