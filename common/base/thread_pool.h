/* A pool of threads, for parallel loops and for work in the background.
 *
 * Tasks wait in one queue. A task has parts. Whenever a thread is free, it takes the next part, so
 * a thread that is slow because the machine is busy does not hold up the others. The caller owns
 * the task, so the pool allocates nothing for it. */
#ifndef COP_BASE_THREAD_POOL_H
#define COP_BASE_THREAD_POOL_H

#include "common/base/err.h"

typedef struct cop_task cop_task;
struct cop_task {
    /* Computes one part, 0 <= part < parts. `thread` is the number of the thread that calls it: 1
     * to the number of threads of the pool, or 0 for the caller of cop_parallel_for. */
    void (*run)(cop_task *task, int thread, int part);
    /* Called once when all parts are complete, on the thread that completed the last one. The pool
     * does not use the task afterwards, so `done` may free it or submit it again. NULL: nothing is
     * called. */
    void (*done)(cop_task *task);
    int parts; /* 0: only `done` is called */
    /* The pool's own fields. */
    int next_part;  /* the next part that a thread will take */
    int unfinished; /* parts that are not complete */
    cop_task *next; /* the next task in the queue */
};

typedef struct cop_thread_pool cop_thread_pool;

/* Starts threads with the numbers 1 to `threads`. Each thread first calls `init_thread`, unless
 * that is NULL. The caller owns *out. NO_MEMORY: out of memory, or a thread could not be started;
 * the threads that had been started are ended. */
cop_err cop_thread_pool_create(int threads, void (*init_thread)(void), cop_thread_pool **out,
                               cop_error *error);
/* Returns the number of threads that the pool has started. */
int cop_thread_pool_threads(const cop_thread_pool *pool);
/* Queues a task, which must stay valid until its `done` is called. Does not wait for it. Any
 * thread. */
void cop_thread_pool_submit(cop_thread_pool *pool, cop_task *task);
/* Runs all parts of a task in parallel, and returns when they are complete. The calling thread
 * takes parts, too, as thread 0. If `pool` is NULL, it computes all of them. The task's `done` must
 * be NULL, and no other task may be in the pool's queue. */
void cop_parallel_for(cop_thread_pool *pool, cop_task *task);
/* Waits until all queued tasks are complete, ends the threads, and frees the pool. NULL has no
 * effect. */
void cop_thread_pool_destroy(cop_thread_pool *pool);

#endif
