/* Compute threads of the coordinator: see pool.h. A queue under one mutex. The parts of the task at
 * its head are handed out one by one, so that a late thread (the machine is busy with workers) does
 * not hold up the others. */
#include "coordinator/engine/pool.h"

#include <uv.h>

#include "common/base/alloc.h"
#include "common/kernels/kernel.h"

struct coord_pool {
    uv_mutex_t mutex;
    uv_cond_t work;
    coord_task *head, *tail;
    int threads, started;
    int stopping;
    uv_thread_t *thread;
};

/* The next part of the task at the head of the queue; -1: the pool ends. The mutex is held. */
static int take_part(coord_pool *pool, coord_task **task) {
    while (!pool->head && !pool->stopping) uv_cond_wait(&pool->work, &pool->mutex);
    if (!pool->head) return -1;
    *task = pool->head;
    int part = (*task)->parts_taken++;
    if ((*task)->parts_taken == (*task)->parts) {
        pool->head = (*task)->next;
        if (!pool->head) pool->tail = NULL;
    }
    return part;
}

static void run_thread(void *argument) {
    coord_pool *pool = argument;
    cop_compute_thread_init();
    uv_mutex_lock(&pool->mutex);
    for (;;) {
        coord_task *task = NULL;
        int part = take_part(pool, &task);
        if (part < 0) break;
        uv_mutex_unlock(&pool->mutex);
        task->run(task, part, task->parts);
        uv_mutex_lock(&pool->mutex);
        COP_ASSERT(task->parts_left > 0);
        if (--task->parts_left == 0) {
            uv_mutex_unlock(&pool->mutex);
            task->done(task); /* the task may be gone after this */
            uv_mutex_lock(&pool->mutex);
        }
    }
    uv_mutex_unlock(&pool->mutex);
}

cop_err coord_pool_create(int threads, coord_pool **out, cop_error *error) {
    COP_ASSERT(threads >= 1);
    coord_pool *pool = cop_alloc(sizeof *pool);
    if (!pool) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for compute threads");
    pool->thread = cop_alloc_array((size_t)threads, sizeof *pool->thread);
    if (!pool->thread) {
        cop_free(pool);
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for compute threads");
    }
    pool->threads = threads;
    uv_mutex_init(&pool->mutex);
    uv_cond_init(&pool->work);
    for (int i = 0; i < threads; i++) {
        if (uv_thread_create(&pool->thread[i], run_thread, pool)) {
            coord_pool_destroy(pool);
            return cop_fail(error, COP_ERR_NO_MEMORY, "cannot start compute thread %d of %d", i + 1,
                            threads);
        }
        pool->started++;
    }
    *out = pool;
    return COP_OK;
}

int coord_pool_threads(const coord_pool *pool) {
    return pool->threads;
}

void coord_pool_submit(coord_pool *pool, coord_task *task) {
    COP_ASSERT(task->run && task->done);
    task->next = NULL;
    task->parts = task->parts_left = pool->threads;
    task->parts_taken = 0;
    uv_mutex_lock(&pool->mutex);
    COP_ASSERT(!pool->stopping);
    if (pool->tail)
        pool->tail->next = task;
    else
        pool->head = task;
    pool->tail = task;
    uv_cond_broadcast(&pool->work);
    uv_mutex_unlock(&pool->mutex);
}

void coord_pool_destroy(coord_pool *pool) {
    if (!pool) return;
    uv_mutex_lock(&pool->mutex);
    pool->stopping = 1;
    uv_cond_broadcast(&pool->work);
    uv_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->started; i++) uv_thread_join(&pool->thread[i]);
    uv_mutex_destroy(&pool->mutex);
    uv_cond_destroy(&pool->work);
    cop_free(pool->thread);
    cop_free(pool);
}
