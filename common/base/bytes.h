/* Little-endian loads and stores, alignment, and reference-counted byte buffers. */
#ifndef COP_BASE_BYTES_H
#define COP_BASE_BYTES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/err.h"

/* Little-endian loads and stores; `p` needs no alignment. */
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
/* Loads a big-endian number; the headers of IDX files contain such numbers. */
static inline uint32_t cop_load_u32_big(const void *p) {
    return __builtin_bswap32(cop_load_u32(p));
}
/* Rounds `n` up to a multiple of `to`, which must be a power of two. */
static inline size_t cop_align_up(size_t n, size_t to) {
    COP_ASSERT(to && !(to & (to - 1)));
    return (n + to - 1) & ~(to - 1);
}

/* A reference-counted block of bytes. After it has been shared, its content never changes, and
 * every holder of a reference may read it from any thread. The last release calls
 * `on_free(buffer)`, which frees the buffer or returns it to its pool. */
typedef struct cop_buffer cop_buffer;
typedef struct cop_segment cop_segment; /* shared memory: segment.h */
struct cop_buffer {
    void *data;
    size_t size; /* bytes in use */
    size_t capacity;
    atomic_int references;
    void (*on_free)(cop_buffer *buffer);
    void *owner; /* whatever on_free needs, such as the pool of the buffer or an nng message */
    cop_segment *segment; /* the shared memory that `data` is in; NULL: `data` is not shared */
};

/* Creates a buffer with one reference and `size` bytes of its own. They are aligned to 64 bytes,
 * and their content is undefined. NULL: out of memory. */
cop_buffer *cop_buffer_create(size_t size);
/* Creates a buffer with one reference for existing memory. The last release calls `on_free`, which
 * must free both this memory and the buffer (cop_free); it finds `owner` in the buffer. NULL: out
 * of memory, and the caller still owns `data`. */
cop_buffer *cop_buffer_wrap(void *data, size_t size, void *owner, void (*on_free)(cop_buffer *));
/* Like cop_buffer_wrap, for memory from alloc.h. The last release frees that memory. NULL: out of
 * memory, and the caller still owns `data`. */
cop_buffer *cop_buffer_adopt(void *data, size_t size);
/* Creates a buffer with one reference for all data of a segment. It holds a reference to the
 * segment. NULL: out of memory. */
cop_buffer *cop_buffer_of_segment(cop_segment *segment);
/* Adds a reference and returns `buffer`. The caller must already hold a reference. Any thread. */
cop_buffer *cop_buffer_hold(cop_buffer *buffer);
/* Drops a reference. The last release frees the buffer, or returns it to its pool. NULL has no
 * effect. Any thread. */
void cop_buffer_release(cop_buffer *buffer);

/* A pool of buffers of one size. It reuses released buffers, so after the first steps of a job it
 * allocates nothing. The number of its buffers is the largest number that callers have held at the
 * same time. Thread-safe. */
typedef struct cop_buffer_pool cop_buffer_pool;
/* Creates an empty pool of buffers of `size` bytes. NULL: out of memory. */
cop_buffer_pool *cop_buffer_pool_create(size_t size);
/* Like cop_buffer_pool_create, but each buffer is a segment of its own, with which other processes
 * may only read, or also write if `peers_write`. If a segment cannot be created, the pool logs the
 * reason once, and its further buffers are ordinary ones. */
cop_buffer_pool *cop_buffer_pool_create_shared(size_t size, bool peers_write);
/* Takes a buffer from the pool, or allocates one if none is idle. The buffer has one reference, and
 * its content is undefined. Its last release returns it to the pool. NULL: out of memory. */
cop_buffer *cop_buffer_pool_take(cop_buffer_pool *pool);
/* Destroys the pool. Buffers that callers still hold stay valid; the last release of each frees it.
 * NULL has no effect. */
void cop_buffer_pool_destroy(cop_buffer_pool *pool);

#endif
