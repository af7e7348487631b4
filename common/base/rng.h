/* Random numbers by rule D3: Philox4x32-10, counter-based, without state (Salmon, Moraes, Dror,
 * Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). A number is derived from (seed,
 * purpose, shard) and a counter. Also the keyed permutation of rule D1. No function fails; all are
 * thread-safe. */
#ifndef COP_BASE_RNG_H
#define COP_BASE_RNG_H

#include <stdint.h>

/* Purposes: part of portable-1; the numbers never change. */
typedef enum cop_rng_purpose {
    COP_RNG_INIT = 1,
    COP_RNG_ORDER = 2,
    COP_RNG_MASK = 3,
    COP_RNG_NOISE = 4,
    COP_RNG_ENSEMBLE = 5,
    COP_RNG_DRAWS = 6,
    COP_RNG_AUGMENT = 7,
    COP_RNG_SYNTHETIC = 8,
    COP_RNG_SPLIT = 9
} cop_rng_purpose;

typedef struct cop_rng_key {
    uint32_t word[2];
} cop_rng_key;

/* Key of D3: the first two output words of Philox4x32-10 on counter (purpose, shard, 0x636f7070,
 * 0x69636531) ("copp", "ice1") with key (low word of seed, high word of seed). */
cop_rng_key cop_rng_derive(uint64_t seed, cop_rng_purpose purpose, uint32_t shard);

/* The block function, reference form: out = Philox4x32-10(counter, key). */
void cop_philox(const uint32_t counter[4], cop_rng_key key, uint32_t out[4]);

/* A permutation of [0, n) for one epoch (D1), evaluated point by point. An 8-round balanced Feistel
 * network on 2w bits, w = ceil(bits(n-1) / 2), at least 1. Round function: first word of Philox on
 * counter (right half, round, epoch, 0), masked to w bits, key = derive(seed, order, 0).
 * Cycle-walked until the value is below n. 1 <= n <= 2^32 - 1. */
typedef struct cop_permutation {
    cop_rng_key key;
    uint32_t n, half_bits, epoch;
} cop_permutation;
void cop_permutation_init(cop_permutation *p, uint64_t seed, uint32_t epoch, uint32_t n);
/* Like cop_permutation_init, with a key for another purpose. */
void cop_permutation_init_for(cop_permutation *p, uint64_t seed, cop_rng_purpose purpose,
                              uint32_t epoch, uint32_t n);
/* Return the image of `index`, and the index whose image is `index`. index < n. */
uint32_t cop_permutation_at(const cop_permutation *p, uint32_t index);
uint32_t cop_permutation_inverse(const cop_permutation *p, uint32_t index);

/* Returns round(p * 65536), half away from zero (D3), for 0 <= p < 1. A unit is dropped if its 16
 * random bits are below this threshold. */
uint32_t cop_rng_drop_threshold(double p);

#endif
