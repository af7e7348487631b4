/* Hashes by libxxhash and libsodium. See hash.h. */
#include "common/base/hash.h"

#include <sodium.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
/* These variants use AVX2 or AVX-512 if the CPU has it. The hashes are the same. */
#    include <xxh_x86dispatch.h>
#    define XXH3_64bits        XXH3_64bits_dispatch
#    define XXH3_64bits_update XXH3_64bits_update_dispatch
#endif

#include "common/base/err.h"

uint64_t cop_hash_xxh3(const void *data, size_t size) {
    COP_ASSERT(data || !size);
    return XXH3_64bits(data, size);
}

uint64_t cop_hash_xxh3_pair(const void *a, size_t a_size, const void *b, size_t b_size) {
    COP_ASSERT(a && (b || !b_size));
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, a, a_size);
    if (b_size) XXH3_64bits_update(&state, b, b_size);
    return XXH3_64bits_digest(&state);
}

_Static_assert(sizeof(XXH3_state_t) <= sizeof(cop_xxh3), "room for xxHash's state");

static XXH3_state_t *xxh3_of(cop_xxh3 *h) {
    return (XXH3_state_t *)(void *)h;
}

void cop_xxh3_init(cop_xxh3 *h) {
    XXH3_64bits_reset(xxh3_of(h));
}

void cop_xxh3_init_secret(cop_xxh3 *h, const unsigned char secret[COP_XXH3_SECRET]) {
    XXH3_64bits_reset_withSecret(xxh3_of(h), secret, COP_XXH3_SECRET);
}

void cop_xxh3_update(cop_xxh3 *h, const void *data, size_t size) {
    COP_ASSERT(data || !size);
    if (size) XXH3_64bits_update(xxh3_of(h), data, size);
}

void cop_xxh3_copy(cop_xxh3 *h, void *to, const void *from, size_t size) {
    const size_t block = 64 << 10;
    const uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;
    COP_ASSERT(a + size <= b || b + size <= a);
    for (size_t at = 0; at < size; at += block) {
        size_t n = size - at < block ? size - at : block;
        memcpy((char *)to + at, (const char *)from + at, n);
        XXH3_64bits_update(xxh3_of(h), (const char *)to + at, n);
    }
}

uint64_t cop_xxh3_final(cop_xxh3 *h) {
    return XXH3_64bits_digest(xxh3_of(h));
}

_Static_assert(sizeof(crypto_hash_sha256_state) <= sizeof(cop_sha256),
               "room for libsodium's state");

void cop_sha256_init(cop_sha256 *h) {
    crypto_hash_sha256_init((crypto_hash_sha256_state *)(void *)h);
}

void cop_sha256_update(cop_sha256 *h, const void *data, size_t size) {
    COP_ASSERT(data || !size);
    crypto_hash_sha256_update((crypto_hash_sha256_state *)(void *)h, data, size);
}

void cop_sha256_final(cop_sha256 *h, unsigned char out[32]) {
    crypto_hash_sha256_final((crypto_hash_sha256_state *)(void *)h, out);
}

void cop_sha256_of(const void *data, size_t size, unsigned char out[32]) {
    crypto_hash_sha256(out, data, size);
}

void cop_hex32(const unsigned char in[32], char out[65]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[64] = '\0';
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int cop_unhex32(const char *text, unsigned char out[32]) {
    if (strlen(text) != 64) return 0;
    for (int i = 0; i < 32; i++) {
        int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);
        if (high < 0 || low < 0) return 0;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return 1;
}

void cop_random_bytes(void *out, size_t size) {
    int started = sodium_init(); /* safe to call again, from any thread */
    COP_ASSERT(started >= 0);
    randombytes_buf(out, size);
}

int cop_equal_constant_time(const void *a, const void *b, size_t size) {
    return sodium_memcmp(a, b, size) == 0;
}
