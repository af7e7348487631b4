/* A pool of threads with one queue. See thread_pool.h. */
#include "common/base/thread_pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/alloc.h"

typedef struct pool_thread {
    pthread_t id;
    cop_thread_pool *pool;
    int number; /* number of the thread, counted from 1 */
} pool_thread;

struct cop_thread_pool {
    pthread_mutex_t mutex;   /* guards the queue, the pool's fields of its tasks, and `stopping` */
    pthread_cond_t work;     /* a task was queued, or the pool stops */
    pthread_cond_t finished; /* a task without `done` is complete */
    cop_task *head, *tail;   /* the queue: tasks with parts that no thread has taken */
    bool stopping;
    void (*init_thread)(void);
    int threads; /* how many threads were started */
    pool_thread thread[];
};

static void append(cop_thread_pool *pool, cop_task *task) {
    COP_ASSERT(!pool->stopping && task->parts >= 0 && (task->run || !task->parts));
    task->next = NULL;
    task->next_part = 0;
    task->unfinished = task->parts;
    if (pool->tail)
        pool->tail->next = task;
    else
        pool->head = task;
    pool->tail = task;
    pthread_cond_broadcast(&pool->work);
}

/* Runs the next part of the task at the head of the queue. The caller holds the mutex, which is
 * released while the part and `done` run. */
static void run_next_part(cop_thread_pool *pool, int thread) {
    cop_task *task = pool->head;
    const int part = task->next_part++;
    if (task->next_part >= task->parts) {
        pool->head = task->next;
        if (!pool->head) pool->tail = NULL;
    }
    if (task->parts) {
        pthread_mutex_unlock(&pool->mutex);
        task->run(task, thread, part);
        pthread_mutex_lock(&pool->mutex);
        COP_ASSERT(task->unfinished > 0);
        if (--task->unfinished) return;
    }
    if (task->done) {
        pthread_mutex_unlock(&pool->mutex);
        task->done(task); /* this may free the task */
        pthread_mutex_lock(&pool->mutex);
    } else {
        pthread_cond_broadcast(&pool->finished);
    }
}

static void *run_thread(void *argument) {
    const pool_thread *self = argument;
    cop_thread_pool *pool = self->pool;
    if (pool->init_thread) pool->init_thread();
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (!pool->head && !pool->stopping) pthread_cond_wait(&pool->work, &pool->mutex);
        if (!pool->head) break;
        run_next_part(pool, self->number);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

cop_err cop_thread_pool_create(int threads, void (*init_thread)(void), cop_thread_pool **out,
                               cop_error *error) {
    COP_ASSERT(threads >= 1);
    cop_thread_pool *pool = cop_alloc(sizeof *pool + (size_t)threads * sizeof *pool->thread);
    if (!pool) return cop_no_memory(error);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->init_thread = init_thread;
    for (; pool->threads < threads; pool->threads++) {
        pool_thread *t = &pool->thread[pool->threads];
        t->pool = pool;
        t->number = pool->threads + 1;
        if (!pthread_create(&t->id, NULL, run_thread, t)) continue;
        const int number = t->number;
        cop_thread_pool_destroy(pool);
        return cop_fail(error, COP_ERR_NO_MEMORY, "cannot start thread %d of %d", number, threads);
    }
    *out = pool;
    return COP_OK;
}

int cop_thread_pool_threads(const cop_thread_pool *pool) {
    return pool->threads;
}

void cop_thread_pool_submit(cop_thread_pool *pool, cop_task *task) {
    pthread_mutex_lock(&pool->mutex);
    append(pool, task);
    pthread_mutex_unlock(&pool->mutex);
}

void cop_parallel_for(cop_thread_pool *pool, cop_task *task) {
    COP_ASSERT(!task->done);
    if (!pool || task->parts <= 1) {
        for (int i = 0; i < task->parts; i++) task->run(task, 0, i);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    COP_ASSERT(!pool->head);
    append(pool, task);
    while (pool->head) run_next_part(pool, 0);
    while (task->unfinished) pthread_cond_wait(&pool->finished, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

void cop_thread_pool_destroy(cop_thread_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->threads; i++) pthread_join(pool->thread[i].id, NULL);
    COP_ASSERT(!pool->head);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->finished);
    cop_free(pool);
}
