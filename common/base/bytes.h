/* Little-endian loads and stores, alignment, and reference-counted byte buffers. */
#ifndef COP_BASE_BYTES_H
#define COP_BASE_BYTES_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t cop_load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t cop_load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t cop_load_u64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void cop_store_u16(void *p, uint16_t v) {
    memcpy(p, &v, 2);
}
static inline void cop_store_u32(void *p, uint32_t v) {
    memcpy(p, &v, 4);
}
static inline void cop_store_u64(void *p, uint64_t v) {
    memcpy(p, &v, 8);
}
/* Big-endian, for IDX headers. */
static inline uint32_t cop_load_u32_big(const void *p) {
    return __builtin_bswap32(cop_load_u32(p));
}
/* Round up to a multiple (a power of two). */
static inline size_t cop_align_up(size_t n, size_t to) {
    return (n + to - 1) & ~(to - 1);
}

/* A reference-counted block of bytes, constant once published: whoever holds a reference may read
 * it from any thread. The last release calls `on_free(buffer)`, which frees it or puts it back into
 * its pool. */
typedef struct cop_buffer cop_buffer;
struct cop_buffer {
    void *data;
    size_t size; /* bytes in use */
    size_t capacity;
    atomic_int references;
    void (*on_free)(cop_buffer *buffer);
    void *owner; /* for on_free: a pool, an nng message */
};

/* A new buffer with one reference, its own 64-byte aligned memory (contents undefined). NULL: out
 * of memory. */
cop_buffer *cop_buffer_create(size_t size);
/* A buffer around memory that `on_free` will release (owner is passed through); one reference. */
cop_buffer *cop_buffer_wrap(void *data, size_t size, void *owner, void (*on_free)(cop_buffer *));
cop_buffer *cop_buffer_hold(cop_buffer *buffer); /* one more reference; returns its argument */
void cop_buffer_release(cop_buffer *buffer);     /* NULL is fine */

/* A pool of equal buffers that recycles memory, so that a step allocates nothing once warm.
 * Thread-safe. take: a buffer of `size` bytes (contents undefined) with one reference; its last
 * release brings it back. Grows without bound only as far as callers hold buffers. */
typedef struct cop_buffer_pool cop_buffer_pool;
cop_buffer_pool *cop_buffer_pool_create(size_t size);
cop_buffer *cop_buffer_pool_take(cop_buffer_pool *pool); /* NULL: out of memory */
/* Drops the pool; buffers still held outlive it and are freed at their last release. */
void cop_buffer_pool_destroy(cop_buffer_pool *pool);

#endif
