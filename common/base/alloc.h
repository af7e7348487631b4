/* The only way to the heap: all memory of our own code comes from these functions.
 *
 * They count allocations, so that a debug build can assert that a step allocates nothing (rule L2).
 * They can also make the k-th allocation fail (fault injection). Thread-safe. */
#ifndef COP_BASE_ALLOC_H
#define COP_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* Returns zeroed memory, aligned to 64 bytes if size >= 64. NULL: out of memory. Size 0 gives a
 * unique pointer. Free it with cop_free, like all blocks below. */
void *cop_alloc(size_t size);
/* Like cop_alloc(count * size). NULL: out of memory, or the product overflows. */
void *cop_alloc_array(size_t count, size_t size);
/* Returns memory with undefined content, aligned to 64 bytes, for large tensors. NULL: out of
 * memory. */
void *cop_alloc_raw(size_t size);
/* Changes the size of a block; new bytes are undefined. NULL: out of memory, and the old block
 * remains. Not for blocks from cop_alloc_raw, because the alignment is lost. */
void *cop_realloc(void *pointer, size_t size);
/* Frees a block. NULL has no effect. */
void cop_free(void *pointer);
/* Copies a text, or its first `length` bytes, and appends a NUL. NULL: out of memory. */
char *cop_strdup(const char *text);
char *cop_strndup(const char *text, size_t length);

/* Returns how many allocations this process has made so far, in all threads. */
uint64_t cop_alloc_count(void);
/* Makes the allocation with number cop_alloc_count() + k (k >= 1) return NULL, once. 0 disarms.
 * COPPICE_FAIL_ALLOC=k in the environment arms it at program start. */
void cop_alloc_fail_at(uint64_t k);
/* Like cop_alloc_fail_at, but all later allocations fail too, until it is disarmed. */
void cop_alloc_fail_from(uint64_t k);
/* Makes the C library keep and reuse large freed blocks instead of unmapping them, because each
 * step needs message buffers of many megabytes. Call it once at the start of main. */
void cop_alloc_keep_large_blocks(void);

#endif
