/* What the engine reports to its user: the API of a service (api/api_recover.c, api/api.c), or the
 * embedding of `coppice run` (server/embedded_run.c). All calls are made on the loop thread. */
#ifndef COP_COORDINATOR_LISTENER_H
#define COP_COORDINATOR_LISTENER_H

#include "coordinator/core/core.h"
#include "coordinator/engine/mail.h"

typedef struct coord_listener {
    /* `load` must carry out ACTION_LOAD, and `rollback` ACTION_ROLLBACK. Both load the newest
     * weights of the job that have at most `max_step` completed steps, then dispatch JOB_LOADED or
     * JOB_FAILED. */
    void (*load)(coord_engine *engine, uint64_t job, uint64_t max_step);
    void (*rollback)(coord_engine *engine, uint64_t job, uint64_t max_step);
    /* Reports METRICS, EPOCH, EVALUATED, STATE or CHECKPOINT. Only CHECKPOINT uses the last two:
     * `digest` is that of the written weights (NULL: they were not written), `warning` says why the
     * write failed ("": it did not fail). */
    void (*note)(coord_engine *engine, const coord_action *action, const char *digest,
                 const char *warning);
    /* Reports that this job has changed; job 0: that workers or data have changed. */
    void (*changed)(coord_engine *engine, uint64_t job);
} coord_listener;

#endif
