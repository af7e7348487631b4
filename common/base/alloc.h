/* The one allocation seam: every byte our own code takes from the heap goes through here.
 *
 * It counts (so that a debug build can assert that a step allocates nothing, rule L2) and can make
 * the k-th allocation fail (fault injection). Thread-safe. */
#ifndef COP_BASE_ALLOC_H
#define COP_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed memory, 64-byte aligned if size >= 64; NULL when out of memory. Size 0 gives a unique
 * pointer. */
void *cop_alloc(size_t size);
/* Like cop_alloc(count * size), NULL on overflow. */
void *cop_alloc_array(size_t count, size_t size);
/* 64-byte aligned, contents undefined: for large tensors. Free with cop_free. */
void *cop_alloc_raw(size_t size);
/* Grow or shrink, new bytes undefined. Keeps the old block on failure (NULL). Not for cop_alloc_raw
 * blocks. */
void *cop_realloc(void *pointer, size_t size);
void cop_free(void *pointer); /* NULL is fine */
char *cop_strdup(const char *text);
char *cop_strndup(const char *text, size_t length);

/* Number of allocations so far in this process (all threads). */
uint64_t cop_alloc_count(void);
/* Make the allocation with number cop_alloc_count() + k (k >= 1) return NULL, once; 0 disarms.
 * COPPICE_FAIL_ALLOC=k in the environment arms it at start. */
void cop_alloc_fail_at(uint64_t k);
/* The same, and all after it until it is disarmed. */
void cop_alloc_fail_from(uint64_t k);
/* Tune the C library so that large freed blocks are kept and reused, not unmapped: message buffers
 * of many megabytes come and go every step. Call once at the start of main. */
void cop_alloc_keep_large_blocks(void);

#endif
