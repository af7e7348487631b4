/* Reference-counted buffers and their pools. See bytes.h. */
#include "common/base/bytes.h"

#include <pthread.h>

#include "common/base/alloc.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/segment.h"

static void free_with_data(cop_buffer *buffer) {
    cop_free(buffer->data);
    cop_free(buffer);
}

cop_buffer *cop_buffer_create(size_t size) {
    cop_buffer *buffer = cop_alloc(sizeof *buffer);
    if (!buffer) return NULL;
    buffer->data = cop_alloc_raw(size);
    if (!buffer->data) {
        cop_free(buffer);
        return NULL;
    }
    buffer->size = buffer->capacity = size;
    atomic_init(&buffer->references, 1);
    buffer->on_free = free_with_data;
    return buffer;
}

cop_buffer *cop_buffer_wrap(void *data, size_t size, void *owner, void (*on_free)(cop_buffer *)) {
    COP_ASSERT(on_free && (data || !size));
    cop_buffer *buffer = cop_alloc(sizeof *buffer);
    if (!buffer) return NULL;
    buffer->data = data;
    buffer->size = buffer->capacity = size;
    buffer->owner = owner;
    buffer->on_free = on_free;
    atomic_init(&buffer->references, 1);
    return buffer;
}

cop_buffer *cop_buffer_adopt(void *data, size_t size) {
    return cop_buffer_wrap(data, size, NULL, free_with_data);
}

static void free_with_segment(cop_buffer *buffer) {
    cop_segment_release(buffer->segment);
    cop_free(buffer);
}

cop_buffer *cop_buffer_of_segment(cop_segment *segment) {
    cop_buffer *buffer =
        cop_buffer_wrap(segment->data, segment->name.size, NULL, free_with_segment);
    if (buffer) buffer->segment = cop_segment_hold(segment);
    return buffer;
}

cop_buffer *cop_buffer_hold(cop_buffer *buffer) {
    int before = atomic_fetch_add_explicit(&buffer->references, 1, memory_order_relaxed);
    COP_ASSERT(before >= 1);
    return buffer;
}

void cop_buffer_release(cop_buffer *buffer) {
    if (!buffer) return;
    COP_ASSERT(buffer->size <= buffer->capacity);
    int before = atomic_fetch_sub_explicit(&buffer->references, 1, memory_order_acq_rel);
    COP_ASSERT(before >= 1); /* if others hold references, one of them may already have freed it */
    if (before == 1) buffer->on_free(buffer);
}

/* ---- pool ---- */

typedef struct pool_entry {
    cop_buffer buffer;       /* must be first: the code casts between buffer and entry */
    struct pool_entry *next; /* the next idle buffer */
} pool_entry;

struct cop_buffer_pool {
    pthread_mutex_t mutex;
    size_t size;
    pool_entry *idle;
    size_t live; /* existing buffers, idle or held */
    int destroyed;
    int shared; /* new buffers are segments */
    cop_segment_access peers;
};

static void free_pool(cop_buffer_pool *pool) {
    pthread_mutex_destroy(&pool->mutex);
    cop_free(pool);
}

static void free_entry(pool_entry *entry) {
    if (entry->buffer.segment)
        cop_segment_release(entry->buffer.segment);
    else
        cop_free(entry->buffer.data);
    cop_free(entry);
}

static void return_to_pool(cop_buffer *buffer) {
    cop_buffer_pool *pool = buffer->owner;
    pool_entry *entry = (pool_entry *)buffer;
    pthread_mutex_lock(&pool->mutex);
    COP_ASSERT(pool->live > 0);
    int destroyed = pool->destroyed;
    int last = 0;
    if (destroyed)
        last = --pool->live == 0;
    else {
        entry->next = pool->idle;
        pool->idle = entry;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (destroyed) free_entry(entry);
    if (last) free_pool(pool);
}

cop_buffer_pool *cop_buffer_pool_create(size_t size) {
    cop_buffer_pool *pool = cop_alloc(sizeof *pool);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->mutex, NULL);
    pool->size = size;
    return pool;
}

cop_buffer_pool *cop_buffer_pool_create_shared(size_t size, bool peers_write) {
    cop_buffer_pool *pool = cop_buffer_pool_create(size);
    if (!pool) return NULL;
    pool->shared = 1;
    pool->peers = peers_write ? COP_SEGMENT_WRITE : COP_SEGMENT_READ;
    return pool;
}

/* Creates a segment for a new buffer. NULL: there is none; the pool then tries no more. */
static cop_segment *make_segment(cop_buffer_pool *pool) {
    cop_segment *segment = NULL;
    cop_error error = {0};
    if (!pool->shared || !cop_segment_create(pool->size, pool->peers, &segment, &error))
        return segment;
    pool->shared = 0;
    cop_log_peer(COP_LOG_WARN, "memory", "", "%s; these tensors go over the connection",
                 error.text);
    return NULL;
}

static pool_entry *make_entry(cop_buffer_pool *pool) {
    pool_entry *entry = cop_alloc(sizeof *entry);
    if (!entry) return NULL;
    entry->buffer.segment = make_segment(pool);
    entry->buffer.data =
        entry->buffer.segment ? entry->buffer.segment->data : cop_alloc_raw(pool->size);
    if (!entry->buffer.data) {
        cop_free(entry);
        return NULL;
    }
    entry->buffer.capacity = pool->size;
    entry->buffer.owner = pool;
    entry->buffer.on_free = return_to_pool;
    return entry;
}

cop_buffer *cop_buffer_pool_take(cop_buffer_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    COP_ASSERT(!pool->destroyed);
    pool_entry *entry = pool->idle;
    if (entry)
        pool->idle = entry->next;
    else if ((entry = make_entry(pool)))
        pool->live++;
    pthread_mutex_unlock(&pool->mutex);
    if (!entry) return NULL;
    entry->buffer.size = pool->size;
    atomic_store_explicit(&entry->buffer.references, 1, memory_order_relaxed);
    return &entry->buffer;
}

void cop_buffer_pool_destroy(cop_buffer_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    COP_ASSERT(!pool->destroyed);
    pool_entry *idle = pool->idle;
    pool->idle = NULL;
    pool->destroyed = 1;
    size_t idle_count = 0;
    for (pool_entry *e = idle; e; e = e->next) idle_count++;
    COP_ASSERT(idle_count <= pool->live);
    pool->live -= idle_count;
    int empty = pool->live == 0;
    pthread_mutex_unlock(&pool->mutex);
    while (idle) {
        pool_entry *next = idle->next;
        free_entry(idle);
        idle = next;
    }
    if (empty) free_pool(pool);
}
