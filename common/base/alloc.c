/* Allocation, with injected failures. See alloc.h. */
#include "common/base/alloc.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

static atomic_uint_fast64_t allocations;   /* how many there have been */
static atomic_uint_fast64_t first_failure; /* number of the allocation that fails; 0: none */
static atomic_bool fail_later_ones;        /* all allocations after that one fail, too */

__attribute__((constructor)) static void arm_from_environment(void) {
    const char *k = getenv("COPPICE_FAIL_ALLOC");
    if (k && *k) cop_alloc_fail_at(strtoull(k, NULL, 10));
}

/* Counts an allocation. False: a test wants this allocation to fail. */
static bool count_allocation(void) {
    uint64_t number = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    uint64_t first = atomic_load_explicit(&first_failure, memory_order_relaxed);
    if (first == 0 || number < first) return true;
    return number > first && !atomic_load_explicit(&fail_later_ones, memory_order_relaxed);
}

void *cop_alloc_raw(size_t size) {
    if (!count_allocation() || size > SIZE_MAX - 128) return NULL;
    size_t rounded = (size + 63) & ~(size_t)63;
    return aligned_alloc(64, rounded ? rounded : 64);
}

void *cop_alloc(size_t size) {
    if (size < 64) return count_allocation() ? calloc(1, size ? size : 1) : NULL;
    void *block = cop_alloc_raw(size);
    if (block) memset(block, 0, size);
    return block;
}

void *cop_alloc_array(size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) return NULL;
    return cop_alloc(total);
}

void *cop_realloc(void *pointer, size_t size) {
    return count_allocation() ? realloc(pointer, size ? size : 1) : NULL;
}

void cop_free(void *pointer) {
    free(pointer);
}

char *cop_strndup(const char *text, size_t length) {
    COP_ASSERT(text);
    length = strnlen(text, length);
    if (!count_allocation()) return NULL;
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *cop_strdup(const char *text) {
    COP_ASSERT(text);
    return cop_strndup(text, strlen(text));
}

uint64_t cop_alloc_count(void) {
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void cop_alloc_fail_at(uint64_t k) {
    atomic_store(&fail_later_ones, false);
    atomic_store(&first_failure, k ? cop_alloc_count() + k : 0);
}

void cop_alloc_fail_from(uint64_t k) {
    cop_alloc_fail_at(k);
    atomic_store(&fail_later_ones, true);
}

void cop_alloc_keep_large_blocks(void) {
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1); /* so that a thread can reuse blocks that another thread freed */
    /* glibc before 2.35 accepts at most 32 MiB. */
    if (!mallopt(M_MMAP_THRESHOLD, 1 << 30)) mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    mallopt(M_TOP_PAD, 16 << 20); /* the heap grows by 16 MiB, so brk is called less often */
#endif
}
