/* The only way to the heap: all memory of our own code comes from these functions.
 *
 * They count allocations, so that tests can check that a training step allocates nothing. They can
 * also make the k-th allocation fail, so that tests reach the code for "out of memory".
 * Thread-safe. */
#ifndef COP_BASE_ALLOC_H
#define COP_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* Returns zeroed memory, aligned to 64 bytes if size >= 64. NULL: out of memory. For size 0 it
 * returns a pointer that differs from those of all other blocks. The caller frees the block with
 * cop_free; this is true of every function below that returns a block. */
void *cop_alloc(size_t size);
/* Returns cop_alloc(count * size). NULL: out of memory, or count * size overflows. */
void *cop_alloc_array(size_t count, size_t size);
/* Returns memory with undefined content, aligned to 64 bytes, whatever its size. Meant for large
 * buffers that the caller overwrites. NULL: out of memory. */
void *cop_alloc_raw(size_t size);
/* Changes the size of a block, which may move. If `pointer` is NULL, it allocates a new block. The
 * content of added bytes is undefined. NULL: out of memory, and the old block stays valid. The
 * result may not be aligned to 64 bytes, even if the old block was. */
void *cop_realloc(void *pointer, size_t size);
/* Frees a block. NULL has no effect. */
void cop_free(void *pointer);
/* Copies a text into a new block. NULL: out of memory. */
char *cop_strdup(const char *text);
/* Copies the first `length` bytes of a text, or the whole text if it is shorter, and appends a NUL.
 * NULL: out of memory. */
char *cop_strndup(const char *text, size_t length);

/* Returns how many allocations this process has made so far, in all threads. */
uint64_t cop_alloc_count(void);
/* Makes the k-th allocation from now on (k >= 1) return NULL, and no later one. k = 0 turns this
 * off. COPPICE_FAIL_ALLOC=k in the environment has the same effect at the start of the program. */
void cop_alloc_fail_at(uint64_t k);
/* Like cop_alloc_fail_at, but all allocations after the k-th one fail, too, until
 * cop_alloc_fail_at(0) is called. */
void cop_alloc_fail_from(uint64_t k);
/* Makes the C library keep large freed blocks for reuse instead of returning them to the system,
 * because each step needs message buffers of many megabytes. Call it once at the start of main. It
 * has no effect with C libraries other than glibc. */
void cop_alloc_keep_large_blocks(void);

#endif
