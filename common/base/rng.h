/* Random numbers by rule D3 of docs/reference/portable-1.md, and the keyed permutation of rule D1.
 *
 * The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). It has no state: a number is a function of a key and a counter, and the key
 * is derived from (seed, purpose, shard). No function fails; all are thread-safe. */
#ifndef COP_BASE_RNG_H
#define COP_BASE_RNG_H

#include <stdint.h>

/* What random numbers are for. Different purposes have independent numbers. The values are part of
 * portable-1 and never change. */
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

/* Derives the key of D3: the first two output words of Philox4x32-10 for the counter (purpose,
 * shard, 0x636f7070, 0x69636531) and the key (low word of seed, high word of seed). The two
 * constants are the texts "copp" and "ice1". */
cop_rng_key cop_rng_derive(uint64_t seed, cop_rng_purpose purpose, uint32_t shard);

/* Sets out to Philox4x32-10(counter, key), four random words. This is the reference for the
 * vectorized versions in the kernels. */
void cop_philox(const uint32_t counter[4], cop_rng_key key, uint32_t out[4]);

/* A permutation of the numbers 0 to n - 1 for one epoch (D1), where 1 <= n <= 2^32 - 1. It has no
 * table: each image is computed separately, by a balanced Feistel network of 8 rounds on 2w bits.
 *  - w is half the number of bits of n - 1, rounded up, and at least 1.
 *  - The round function is the first word of Philox for the counter (right half, round, epoch, 0),
 *    of which the low w bits are used. Its key is cop_rng_derive(seed, COP_RNG_ORDER, 0).
 *  - The network is applied again until the value is below n. */
typedef struct cop_permutation {
    cop_rng_key key;
    uint32_t n;
    uint32_t half_bits; /* w */
    uint32_t epoch;
} cop_permutation;
void cop_permutation_init(cop_permutation *p, uint64_t seed, uint32_t epoch, uint32_t n);
/* Like cop_permutation_init, but derives the key for `purpose` instead of COP_RNG_ORDER. */
void cop_permutation_init_for(cop_permutation *p, uint64_t seed, cop_rng_purpose purpose,
                              uint32_t epoch, uint32_t n);
/* Returns the image of `index`, which must be below n. */
uint32_t cop_permutation_at(const cop_permutation *p, uint32_t index);
/* Returns the number whose image is `index`, which must be below n. */
uint32_t cop_permutation_inverse(const cop_permutation *p, uint32_t index);

/* Returns p * 65536, rounded to the nearest integer, ties upwards (D3). p must be in [0, 1). A unit
 * is dropped if its 16 random bits, read as a number, are below this threshold. */
uint32_t cop_rng_drop_threshold(double p);

#endif
