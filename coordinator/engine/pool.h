/* Compute threads of the coordinator. Averages and updates run here, in parts, while the loop
 * thread goes on deciding. Tasks are queued and run one at a time. The caller provides a task's
 * memory, so a step allocates nothing. */
#ifndef COP_COORDINATOR_POOL_H
#define COP_COORDINATOR_POOL_H

#include "common/base/err.h"

typedef struct coord_pool coord_pool;

typedef struct coord_task coord_task;
struct coord_task {
    void (*run)(coord_task *task, int part, int parts); /* on each compute thread, once per part */
    void (*done)(coord_task *task); /* on the thread that finished last: must post, not work */
    coord_task *next;
    int parts_left, parts_taken, parts;
};

/* Starts `threads` threads, each set up for D4's arithmetic. */
cop_err coord_pool_create(int threads, coord_pool **out, cop_error *error);
int coord_pool_threads(const coord_pool *pool);
/* Runs task->run in as many parts as there are threads. The task must stay valid until `done` is
 * called. Any thread. */
void coord_pool_submit(coord_pool *pool, coord_task *task);
/* Waits for the submitted tasks, then ends the threads. */
void coord_pool_destroy(coord_pool *pool);

#endif
