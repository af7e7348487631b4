/* A pool of threads, for loops in parallel and for work in the background.
 *
 * Tasks wait in one queue. A task has parts, which the threads take in ascending order, so a thread
 * that is late (the machine is busy) does not hold up the others. The caller owns the task, so
 * nothing is allocated per task. */
#ifndef COP_BASE_THREAD_POOL_H
#define COP_BASE_THREAD_POOL_H

#include "common/base/err.h"

typedef struct cop_task cop_task;
struct cop_task {
    /* Computes one part, from 0 to parts - 1. At any time, each thread has another number. */
    void (*run)(cop_task *task, int thread, int part);
    /* Called on the last thread after all parts. The pool does not use the task afterwards, so this
     * may free it or submit it again. NULL: not wanted. */
    void (*done)(cop_task *task);
    int parts; /* 0: only `done` is called */
    /* private */
    int next_part, unfinished;
    cop_task *next;
};

typedef struct cop_thread_pool cop_thread_pool;

/* Starts threads with the numbers 1 to `threads`. Each first calls `init_thread` (NULL: nothing).
 * The caller owns *out. NO_MEMORY: a thread cannot be started; none is left. */
cop_err cop_thread_pool_create(int threads, void (*init_thread)(void), cop_thread_pool **out,
                               cop_error *error);
/* Returns the number of threads. */
int cop_thread_pool_threads(const cop_thread_pool *pool);
/* Queues a task, which must live until `done` is called. Does not block. Any thread. */
void cop_thread_pool_submit(cop_thread_pool *pool, cop_task *task);
/* A parallel loop: runs all parts of a task, whose `done` is NULL, and returns when they are
 * complete. The calling thread takes parts too, as number 0. With pool NULL it computes all parts.
 * No other task may be queued. */
void cop_parallel_for(cop_thread_pool *pool, cop_task *task);
/* Waits for all queued tasks, ends the threads, and frees. NULL has no effect. */
void cop_thread_pool_destroy(cop_thread_pool *pool);

#endif
