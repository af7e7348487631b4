/* What the engine tells whoever shows a job: the API of a service (api/api_recover.c, api/api.c),
 * or the embedding of `coppice run` (server/run.c). Loop thread. */
#ifndef COP_COORDINATOR_LISTENER_H
#define COP_COORDINATOR_LISTENER_H

#include "coordinator/core/core.h"
#include "coordinator/engine/mail.h"

typedef struct coord_listener {
    /* ACTION_LOAD, ACTION_ROLLBACK: bring the job's weights into memory, those of `max_step` steps
     * at most; JOB_LOADED or JOB_FAILED follows. */
    void (*load)(coord_engine *engine, uint64_t job, uint64_t max_step);
    void (*rollback)(coord_engine *engine, uint64_t job, uint64_t max_step);
    /* What METRICS, EPOCH, EVALUATED, STATE, CHECKPOINT report. Of a checkpoint: its digest (NULL:
     * none was written), and a warning ("": none). */
    void (*note)(coord_engine *engine, const coord_action *action, const char *digest,
                 const char *warning);
    /* Something about this job changed; job 0: workers or data. */
    void (*changed)(coord_engine *engine, uint64_t job);
} coord_listener;

#endif
