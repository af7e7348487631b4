/* Philox4x32-10, key derivation and the keyed permutation. See rng.h. */
#include "common/base/rng.h"

#include "common/base/err.h"

#define PHILOX_M0      0xD2511F53u
#define PHILOX_M1      0xCD9E8D57u
#define PHILOX_W0      0x9E3779B9u
#define PHILOX_W1      0xBB67AE85u
#define FEISTEL_ROUNDS 8

void cop_philox(const uint32_t counter[4], cop_rng_key key, uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

cop_rng_key cop_rng_derive(uint64_t seed, cop_rng_purpose purpose, uint32_t shard) {
    uint32_t counter[4] = {(uint32_t)purpose, shard, 0x636f7070u, 0x69636531u}, out[4];
    cop_rng_key key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    cop_philox(counter, key, out);
    return (cop_rng_key){{out[0], out[1]}};
}

void cop_permutation_init(cop_permutation *p, uint64_t seed, uint32_t epoch, uint32_t n) {
    cop_permutation_init_for(p, seed, COP_RNG_ORDER, epoch, n);
}

void cop_permutation_init_for(cop_permutation *p, uint64_t seed, cop_rng_purpose purpose,
                              uint32_t epoch, uint32_t n) {
    COP_ASSERT(n >= 1);
    uint32_t bits = n > 1 ? 32 - (uint32_t)__builtin_clz(n - 1) : 0;
    p->key = cop_rng_derive(seed, purpose, 0);
    p->n = n;
    p->epoch = epoch;
    p->half_bits = bits <= 2 ? 1 : (bits + 1) / 2;
    COP_ASSERT(n <= (uint64_t)1 << (2 * p->half_bits));
}

static uint32_t feistel_round(const cop_permutation *p, uint32_t right, uint32_t round) {
    uint32_t counter[4] = {right, round, p->epoch, 0}, out[4];
    cop_philox(counter, p->key, out);
    return out[0] & ((1u << p->half_bits) - 1);
}

static uint32_t feistel(const cop_permutation *p, uint32_t value) {
    uint32_t mask = (1u << p->half_bits) - 1, left = value >> p->half_bits, right = value & mask;
    for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
        uint32_t next = left ^ feistel_round(p, right, round);
        left = right;
        right = next;
    }
    return left << p->half_bits | right;
}

static uint32_t feistel_inverse(const cop_permutation *p, uint32_t value) {
    uint32_t mask = (1u << p->half_bits) - 1, left = value >> p->half_bits, right = value & mask;
    for (uint32_t round = FEISTEL_ROUNDS; round-- > 0;) {
        uint32_t before = right ^ feistel_round(p, left, round);
        right = left;
        left = before;
    }
    return left << p->half_bits | right;
}

uint32_t cop_permutation_at(const cop_permutation *p, uint32_t index) {
    COP_ASSERT(index < p->n);
    uint32_t value = index;
    do value = feistel(p, value);
    while (value >= p->n);
    return value;
}

uint32_t cop_permutation_inverse(const cop_permutation *p, uint32_t index) {
    COP_ASSERT(index < p->n);
    uint32_t value = index;
    do value = feistel_inverse(p, value);
    while (value >= p->n);
    return value;
}

uint32_t cop_rng_drop_threshold(double p) {
    COP_ASSERT(p >= 0 && p < 1);
    /* `scaled` and its fraction are exact; scaled + 0.5 could be rounded. */
    double scaled = p * 65536.0;
    uint32_t whole = (uint32_t)scaled;
    return whole + (scaled - whole >= 0.5);
}
