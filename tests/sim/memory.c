/* Implements common/base/alloc.h for one run after another. What a run allocated is freed at its
 * end, even if the run was stopped in the middle of a decision. Counts the bytes that the core
 * holds. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "sim/sim.h"

typedef struct header header;
struct header {
    header *next, *previous;
    size_t size;
    bool permanent, core;
    _Alignas(64) char bytes[];
};

static struct {
    header *head;
    bool permanent, core;
    uint64_t count; /* allocations so far, of all parts */
    uint64_t now;   /* bytes that the core holds */
    uint64_t peak;  /* the largest value of `now` */
} memory;

/* Freed blocks of up to SPARE_MAX bytes are kept by size and used again, which saves a tenth of the
 * time. With AddressSanitizer no block is kept, so that it finds uses of freed blocks. */
#ifdef __SANITIZE_ADDRESS__
#    define SPARE_MAX 0
#else
#    define SPARE_MAX 2048
#endif

static header *spare[SPARE_MAX / 64 + 1];

static size_t whole_size(size_t size) {
    return (sizeof(header) + size + 63) & ~(size_t)63;
}

static header *take(size_t whole) {
    header *h = whole <= SPARE_MAX ? spare[whole / 64] : NULL;
    if (!h) return aligned_alloc(64, whole);
    spare[whole / 64] = h->next;
    return h;
}

static void give_back(header *h) {
    size_t whole = whole_size(h->size);
    if (whole > SPARE_MAX) {
        free(h);
        return;
    }
    h->next = spare[whole / 64];
    spare[whole / 64] = h;
}

static header *header_of(void *pointer) {
    return (header *)(void *)((char *)pointer - offsetof(header, bytes));
}

static void count(const header *h, bool more) {
    if (!h->core) return;
    memory.now += more ? h->size : -h->size;
    if (memory.now > memory.peak) memory.peak = memory.now;
}

void *cop_alloc_raw(size_t size) {
    header *h = take(whole_size(size));
    if (!h) return NULL;
    *h = (header){.size = size, .permanent = memory.permanent, .core = memory.core};
    memory.count++;
    count(h, true);
    if (h->permanent) return h->bytes;
    h->next = memory.head;
    if (h->next) h->next->previous = h;
    memory.head = h;
    return h->bytes;
}

void *cop_alloc(size_t size) {
    void *block = cop_alloc_raw(size);
    return block ? memset(block, 0, size) : NULL;
}

void *cop_alloc_array(size_t n, size_t size) {
    size_t total;
    return __builtin_mul_overflow(n, size, &total) ? NULL : cop_alloc(total);
}

void cop_free(void *pointer) {
    if (!pointer) return;
    header *h = header_of(pointer);
    count(h, false);
    if (!h->permanent) {
        if (h->next) h->next->previous = h->previous;
        if (h->previous)
            h->previous->next = h->next;
        else
            memory.head = h->next;
    }
    give_back(h);
}

void *cop_realloc(void *pointer, size_t size) {
    void *block = cop_alloc_raw(size);
    if (!block || !pointer) return block;
    size_t old = header_of(pointer)->size;
    memcpy(block, pointer, old < size ? old : size);
    cop_free(pointer);
    return block;
}

char *cop_strndup(const char *text, size_t length) {
    length = strnlen(text, length);
    char *copy = cop_alloc(length + 1);
    if (copy) memcpy(copy, text, length);
    return copy;
}

char *cop_strdup(const char *text) {
    return cop_strndup(text, strlen(text));
}

uint64_t cop_alloc_count(void) {
    return memory.count;
}

void cop_alloc_fail_at(uint64_t k) {
    (void)k; /* the simulator makes no allocation fail */
}

void cop_alloc_keep_large_blocks(void) {}

/* ---- runs ---- */

void sim_memory_reset(void) {
    while (memory.head) {
        header *next = memory.head->next;
        give_back(memory.head);
        memory.head = next;
    }
    memory.now = memory.peak = 0;
    memory.core = false;
}

void sim_memory_permanent(bool permanent) {
    memory.permanent = permanent;
}

void sim_memory_count(bool on) {
    memory.core = on;
}

uint64_t sim_memory_peak(void) {
    return memory.peak;
}
