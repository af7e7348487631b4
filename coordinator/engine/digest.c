/* Digests of results. They are not computed on the loop thread, except for a step whose update
 * found a value that is not finite. */
#include "coordinator/engine/digest.h"

#include <math.h>
#include <string.h>

#include "common/base/hash.h"

#define CHUNK 16384 /* floats */

static const uint32_t ONE_NAN = 0x7fc00000;

/* Adds values to the hash with all NaNs replaced by one, because CPUs produce different NaNs for
 * the same operation. */
static void update_with_nans(cop_xxh3 *h, const float *values, size_t count) {
    float chunk[1024];
    for (size_t at = 0; at < count; at += 1024) {
        size_t n = count - at < 1024 ? count - at : 1024;
        memcpy(chunk, values + at, n * sizeof *chunk);
        for (size_t i = 0; i < n; i++)
            if (isnan(chunk[i])) memcpy(&chunk[i], &ONE_NAN, sizeof ONE_NAN);
        cop_xxh3_update(h, chunk, n * sizeof *chunk);
    }
}

bool coord_all_finite(const coord_engine *engine, const cop_buffer *tensor, cop_values values) {
    const size_t count = tensor->size / cop_values_size(values);
    float chunk[1024];
    bool all = true;
    COP_ASSERT(tensor->size % cop_values_size(values) == 0);
    if (values == COP_VALUES_F32) return engine->kernels->all_finite(tensor->data, count);
    for (size_t at = 0; at < count && all; at += 1024) {
        const size_t n = count - at < 1024 ? count - at : 1024;
        engine->kernels->widen_bf16((const uint16_t *)tensor->data + at, chunk, n);
        all = engine->kernels->all_finite(chunk, n);
    }
    return all;
}

/* Adds the f32 values of a tensor to the hash. Returns whether all are finite. */
static bool hash_floats(const coord_engine *engine, const cop_buffer *tensor, cop_xxh3 *hash) {
    const float *values = tensor->data;
    const size_t count = tensor->size / sizeof *values;
    bool all = true;
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? count - at : CHUNK;
        bool fine = engine->kernels->all_finite(values + at, n);
        all = all && fine;
        if (fine)
            cop_xxh3_update(hash, values + at, n * sizeof *values);
        else
            update_with_nans(hash, values + at, n);
    }
    return all;
}

uint64_t coord_digest(const coord_engine *engine, const cop_buffer *tensor, cop_values values,
                      bool *finite) {
    COP_ASSERT(tensor && tensor->size % cop_values_size(values) == 0);
    cop_xxh3 h;
    cop_xxh3_init_secret(&h, engine->digest_secret);
    if (values == COP_VALUES_F32) {
        *finite = hash_floats(engine, tensor, &h);
    } else { /* rounding makes one value of all NaNs */
        cop_xxh3_update(&h, tensor->data, tensor->size);
        *finite = coord_all_finite(engine, tensor, values);
    }
    uint64_t digest = cop_xxh3_final(&h);
    return digest ? digest : 1;
}
