/* Hashes: XXH3 for frames and integrity; SHA-256 for names of content, and against adversaries.
 * They never fail, and keep no reference to the data. */
#ifndef COP_BASE_HASH_H
#define COP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Returns XXH3 of a range. */
uint64_t cop_hash_xxh3(const void *data, size_t size);
/* Returns XXH3 of two ranges, one after the other (frame header and body). The second may be empty.
 */
uint64_t cop_hash_xxh3_pair(const void *a, size_t a_size, const void *b, size_t b_size);

/* XXH3 of a stream. */
typedef struct cop_xxh3 {
    _Alignas(64) unsigned char state[640];
} cop_xxh3;
/* Begins a hash. There is nothing to free. */
void cop_xxh3_init(cop_xxh3 *h);
/* Begins a keyed hash: without the secret, nobody can construct a collision. `secret` is borrowed
 * until cop_xxh3_final. */
#define COP_XXH3_SECRET 192
void cop_xxh3_init_secret(cop_xxh3 *h, const unsigned char secret[COP_XXH3_SECRET]);
/* Add a range. cop_xxh3_copy also copies it, in the same pass over memory; `to` and `from` must not
 * overlap. */
void cop_xxh3_update(cop_xxh3 *h, const void *data, size_t size);
void cop_xxh3_copy(cop_xxh3 *h, void *to, const void *from, size_t size);
/* Returns the hash of all ranges so far. */
uint64_t cop_xxh3_final(cop_xxh3 *h);

/* SHA-256 of a stream (FIPS 180-4): init, then updates, then final. There is nothing to free. */
typedef struct cop_sha256 {
    _Alignas(16) unsigned char state[128];
} cop_sha256;
/* Begins a hash. */
void cop_sha256_init(cop_sha256 *h);
/* Adds a range. The split of the stream into ranges does not change the hash. */
void cop_sha256_update(cop_sha256 *h, const void *data, size_t size);
/* Writes the hash of all ranges so far. After this, `h` needs cop_sha256_init again. */
void cop_sha256_final(cop_sha256 *h, unsigned char out[32]);
/* Writes the hash of one range. */
void cop_sha256_of(const void *data, size_t size, unsigned char out[32]);
/* Formats 32 bytes as 64 lowercase hex digits and NUL. */
void cop_hex32(const unsigned char in[32], char out[65]);
/* Parses exactly 64 hex digits, upper or lower case. Returns 0 if `text` is anything else; then the
 * content of `out` is undefined. */
int cop_unhex32(const char *text, unsigned char out[32]);
/* Fills `out` with random bytes from the system, for tokens and secrets. Never use them for
 * arithmetic, because results would not be reproducible. Aborts if the system has none. */
void cop_random_bytes(void *out, size_t size);
/* Compares secrets in a time that does not depend on their content. Nonzero: equal. */
int cop_equal_constant_time(const void *a, const void *b, size_t size);

#endif
