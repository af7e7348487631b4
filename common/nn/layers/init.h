/* Initial values of weights (D3, purpose init). Shared by the layers that have weights.
 *
 * Key = derive(seed, COP_RNG_INIT, 0). Element e of a tensor comes from the Philox block with
 * counter (e / 4, 0, layer, parameter), `layer` the layer's index in the job file, `parameter` the
 * tensor's index in the layer (weight 0, bias 1). */
#ifndef COP_NN_LAYERS_INIT_H
#define COP_NN_LAYERS_INIT_H

#include "common/nn/layer.h"

typedef struct cop_init_stream {
    cop_rng_key key;
    uint32_t layer, parameter;
    cop_init kind; /* the layer's */
} cop_init_stream;

cop_init_stream cop_init_stream_of(uint64_t seed, const cop_layer *layer, uint32_t parameter);
/* Normal with mean 0: the block's words (w0, w1), (w2, w3) give two pairs by cop_normal_pair, in
 * order; each value is deviation * normal in f64, rounded once to f32. */
void cop_init_normal(const cop_init_stream *stream, double deviation, float *out, int64_t count);
/* Uniform on [-bound, bound): word e % 4 of the block, u = (word >> 8) / 2^24; value = bound * (2 u
 * - 1) in f64, rounded once to f32. */
void cop_init_uniform(const cop_init_stream *stream, double bound, float *out, int64_t count);
/* A weight tensor by kind: he: normal, deviation sqrt(2 / fan_in) (He et al., ICCV 2015); glorot:
 * uniform, bound sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010); torch: uniform,
 * bound 1 / sqrt(fan_in), what PyTorch's nn.Linear and nn.Conv2d do. In f64. */
void cop_init_weights(const cop_init_stream *stream, int64_t fan_in, int64_t fan_out, float *out,
                      int64_t count);
/* Its bias: torch: uniform, bound 1 / sqrt(fan_in); he and glorot: 0. */
void cop_init_bias(const cop_init_stream *stream, int64_t fan_in, float *out, int64_t count);

#endif
