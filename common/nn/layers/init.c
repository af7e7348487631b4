/* Initial weights. Each element is computed from the seed and the element's index, so it is the
 * same on every machine. init.h defines the values. */
#include <math.h>
#include <string.h>

#include "common/base/real.h"
#include "common/nn/layers/init.h"

cop_init_stream cop_init_stream_of(uint64_t seed, const cop_layer *layer, uint32_t parameter) {
    return (cop_init_stream){
        .key = cop_rng_derive(seed, COP_RNG_INIT, 0),
        .layer = (uint32_t)layer->index,
        .parameter = parameter,
        .kind = layer->spec.init,
    };
}

static void stream_block(const cop_init_stream *stream, int64_t block, uint32_t words[4]) {
    COP_ASSERT(block >= 0 && block <= UINT32_MAX);
    const uint32_t counter[4] = {(uint32_t)block, 0, stream->layer, stream->parameter};
    cop_philox(counter, stream->key, words);
}

void cop_init_normal(const cop_init_stream *stream, double deviation, float *out, int64_t count) {
    for (int64_t first = 0; first < count; first += 4) {
        uint32_t words[4];
        double normals[4];
        stream_block(stream, first / 4, words);
        cop_normal_pair(words[0], words[1], normals);
        cop_normal_pair(words[2], words[3], normals + 2);
        for (int64_t i = 0; i < 4 && first + i < count; i++)
            out[first + i] = (float)(deviation * normals[i]);
    }
}

void cop_init_uniform(const cop_init_stream *stream, double bound, float *out, int64_t count) {
    for (int64_t first = 0; first < count; first += 4) {
        uint32_t words[4];
        stream_block(stream, first / 4, words);
        for (int64_t i = 0; i < 4 && first + i < count; i++) {
            const double unit = (double)(words[i] >> 8) * 0x1p-24;
            out[first + i] = (float)(bound * (2 * unit - 1));
        }
    }
}

void cop_init_weights(const cop_init_stream *stream, int64_t fan_in, int64_t fan_out, float *out,
                      int64_t count) {
    COP_ASSERT(fan_in >= 1 && fan_out >= 1);
    switch (stream->kind) {
    case COP_INIT_HE:
        cop_init_normal(stream, sqrt(2 / (double)fan_in), out, count);
        return;
    case COP_INIT_GLOROT:
        cop_init_uniform(stream, sqrt(6 / (double)(fan_in + fan_out)), out, count);
        return;
    case COP_INIT_TORCH:
        cop_init_uniform(stream, 1 / sqrt((double)fan_in), out, count);
        return;
    }
    COP_ASSERT(!"a layer's shape function rejects every other init");
}

void cop_init_bias(const cop_init_stream *stream, int64_t fan_in, float *out, int64_t count) {
    if (stream->kind == COP_INIT_TORCH)
        cop_init_uniform(stream, 1 / sqrt((double)fan_in), out, count);
    else
        memset(out, 0, (size_t)count * sizeof *out);
}
