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

uint64_t coord_digest(const coord_engine *engine, const cop_buffer *gradient, bool *finite) {
    COP_ASSERT(gradient && gradient->size % sizeof(float) == 0);
    const float *values = gradient->data;
    size_t count = gradient->size / sizeof *values;
    cop_xxh3 h;
    bool all = true;
    cop_xxh3_init_secret(&h, engine->digest_secret);
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? count - at : CHUNK;
        bool fine = engine->kernels->all_finite(values + at, n);
        all = all && fine;
        if (fine)
            cop_xxh3_update(&h, values + at, n * sizeof *values);
        else
            update_with_nans(&h, values + at, n);
    }
    uint64_t digest = cop_xxh3_final(&h);
    *finite = all;
    return digest ? digest : 1;
}
