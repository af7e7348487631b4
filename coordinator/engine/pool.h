/* Compute threads of the coordinator: average and update run here, in `parts` pieces, while the
 * loop thread goes on deciding. One task at a time; tasks are queued. The caller's storage carries
 * the task, so nothing is allocated in a step. */
#ifndef COP_COORDINATOR_POOL_H
#define COP_COORDINATOR_POOL_H

#include "common/base/err.h"

typedef struct coord_pool coord_pool;

typedef struct coord_task coord_task;
struct coord_task {
    void (*run)(coord_task *task, int part, int parts); /* on each compute thread, once per part */
    void (*done)(coord_task *task); /* on the thread that finished last: post, do not work */
    coord_task *next;
    int parts_left, parts_taken, parts;
};

/* `threads` threads, each set up for D4's arithmetic. */
cop_err coord_pool_create(int threads, coord_pool **out, cop_error *error);
int coord_pool_threads(const coord_pool *pool);
/* Runs task->run in as many parts as there are threads. The task must live until `done` was called.
 * Any thread. */
void coord_pool_submit(coord_pool *pool, coord_task *task);
/* Waits for what was submitted, then ends the threads. */
void coord_pool_destroy(coord_pool *pool);

#endif
