/* Hashes, and random bytes. XXH3 is fast, and detects damage of frames and files. SHA-256 names
 * content, such as a data set, and is safe against people who try to construct a collision. The
 * functions never fail, and keep no reference to the data. */
#ifndef COP_BASE_HASH_H
#define COP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Returns the 64-bit XXH3 of `size` bytes. */
uint64_t cop_hash_xxh3(const void *data, size_t size);
/* Returns the XXH3 of two ranges as if they were one, such as the header and the body of a frame.
 * The second may be empty. */
uint64_t cop_hash_xxh3_pair(const void *a, size_t a_size, const void *b, size_t b_size);

/* The state of an XXH3 whose data comes in several ranges: cop_xxh3_init, then any number of
 * cop_xxh3_update and cop_xxh3_copy, then cop_xxh3_final. */
typedef struct cop_xxh3 {
    _Alignas(64) unsigned char state[640];
} cop_xxh3;
/* Begins a hash. There is nothing to free. */
void cop_xxh3_init(cop_xxh3 *h);
/* Begins a hash that depends on a secret. Somebody who does not know the secret cannot construct
 * two data with equal hashes. `secret` must stay valid until cop_xxh3_final. */
#define COP_XXH3_SECRET 192
void cop_xxh3_init_secret(cop_xxh3 *h, const unsigned char secret[COP_XXH3_SECRET]);
/* Adds a range to the hash. */
void cop_xxh3_update(cop_xxh3 *h, const void *data, size_t size);
/* Copies a range and adds it to the hash, 64 KiB at a time, so that the hash reads from the CPU's
 * cache. `to` and `from` must not overlap. */
void cop_xxh3_copy(cop_xxh3 *h, void *to, const void *from, size_t size);
/* Returns the hash of all ranges so far. More ranges may follow. */
uint64_t cop_xxh3_final(cop_xxh3 *h);

/* The state of a SHA-256 (FIPS 180-4) whose data comes in several ranges: cop_sha256_init, then any
 * number of cop_sha256_update, then cop_sha256_final. There is nothing to free. */
typedef struct cop_sha256 {
    _Alignas(16) unsigned char state[128];
} cop_sha256;
/* Begins a hash. */
void cop_sha256_init(cop_sha256 *h);
/* Adds a range to the hash, which does not depend on how the data is divided into ranges. */
void cop_sha256_update(cop_sha256 *h, const void *data, size_t size);
/* Writes the hash of all ranges. Before `h` is used again, call cop_sha256_init. */
void cop_sha256_final(cop_sha256 *h, unsigned char out[32]);
/* Writes the SHA-256 of one range. */
void cop_sha256_of(const void *data, size_t size, unsigned char out[32]);
/* Formats 32 bytes as 64 lowercase hex digits and a NUL. */
void cop_hex32(const unsigned char in[32], char out[65]);
/* Parses a text of exactly 64 hex digits in upper or lower case. Returns 1 on success. Returns 0 if
 * `text` is anything else; the content of `out` is then undefined. */
int cop_unhex32(const char *text, unsigned char out[32]);
/* Fills `out` with random bytes from the system, for tokens and secrets. Never compute a result
 * from them, because it would not be reproducible. Aborts the program if the system provides
 * none. */
void cop_random_bytes(void *out, size_t size);
/* Compares two secrets of `size` bytes in a time that does not depend on their content. Returns 1
 * if they are equal, else 0. */
int cop_equal_constant_time(const void *a, const void *b, size_t size);

#endif
