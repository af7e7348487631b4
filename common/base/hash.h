/* Hashes: XXH3 for frames and integrity, SHA-256 where content is named or an adversary matters. */
#ifndef COP_BASE_HASH_H
#define COP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t cop_hash_xxh3(const void *data, size_t size);
/* XXH3 of the concatenation of two ranges (frame header + body); the second may be empty. */
uint64_t cop_hash_xxh3_pair(const void *a, size_t a_size, const void *b, size_t b_size);

/* XXH3 of a stream; copy: copies and hashes in one pass over memory (the ranges must not overlap).
 */
typedef struct cop_xxh3 {
    _Alignas(64) unsigned char state[640];
} cop_xxh3;
void cop_xxh3_init(cop_xxh3 *h);
/* Keyed: nobody who does not know the secret can choose what collides. `secret` must outlive h. */
#define COP_XXH3_SECRET 192
void cop_xxh3_init_secret(cop_xxh3 *h, const unsigned char secret[COP_XXH3_SECRET]);
void cop_xxh3_update(cop_xxh3 *h, const void *data, size_t size);
void cop_xxh3_copy(cop_xxh3 *h, void *to, const void *from, size_t size);
uint64_t cop_xxh3_final(cop_xxh3 *h);

typedef struct cop_sha256 {
    _Alignas(16) unsigned char state[128];
} cop_sha256;
void cop_sha256_init(cop_sha256 *h);
void cop_sha256_update(cop_sha256 *h, const void *data, size_t size);
void cop_sha256_final(cop_sha256 *h, unsigned char out[32]);
void cop_sha256_of(const void *data, size_t size, unsigned char out[32]);
/* 32 bytes -> 64 hex digits and NUL. */
void cop_hex32(const unsigned char in[32], char out[65]);
/* true and fills out when text is exactly 64 hex digits. */
int cop_unhex32(const char *text, unsigned char out[32]);
/* Random bytes from the system (tokens, never arithmetic). */
void cop_random_bytes(void *out, size_t size);
/* Comparison in constant time; nonzero if equal. */
int cop_equal_constant_time(const void *a, const void *b, size_t size);

#endif
