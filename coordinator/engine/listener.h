/* What the engine reports to its user: the API of a service (api/api_recover.c, api/api.c), or the
 * embedding of `coppice run` (server/embedded_run.c). Loop thread. */
#ifndef COP_COORDINATOR_LISTENER_H
#define COP_COORDINATOR_LISTENER_H

#include "coordinator/core/core.h"
#include "coordinator/engine/mail.h"

typedef struct coord_listener {
    /* ACTION_LOAD, ACTION_ROLLBACK: load the job's weights, of up to `max_step` steps; JOB_LOADED
     * or JOB_FAILED follows. */
    void (*load)(coord_engine *engine, uint64_t job, uint64_t max_step);
    void (*rollback)(coord_engine *engine, uint64_t job, uint64_t max_step);
    /* Reports METRICS, EPOCH, EVALUATED, STATE or CHECKPOINT. For a checkpoint: its digest (NULL:
     * none was written) and a warning ("": none). */
    void (*note)(coord_engine *engine, const coord_action *action, const char *digest,
                 const char *warning);
    /* This job has changed; job 0: workers or data have. */
    void (*changed)(coord_engine *engine, uint64_t job);
} coord_listener;

#endif
