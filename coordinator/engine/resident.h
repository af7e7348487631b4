/* Tensors of the jobs in progress: see resident.c. Loop thread unless a comment says otherwise. */
#ifndef COP_COORDINATOR_RESIDENT_H
#define COP_COORDINATOR_RESIDENT_H

#include <stdatomic.h>

#include "common/job/job.h"
#include "common/net/net.h"
#include "coordinator/core/core.h"
#include "coordinator/engine/mail.h"
#include "common/base/thread_pool.h"

#define COORD_RESIDENT_MAX 16

/* One immutable version of a job's weights and optimizer state. A job has two: an update reads one
 * and writes the other. */
typedef struct coord_version {
    uint64_t step;
    cop_buffer *weights; /* published: leases hold references */
    cop_buffer *state[2];
} coord_version;

/* A job whose data and tensors are in memory. */
typedef struct coord_resident {
    uint64_t id;   /* 0: free */
    bool reserved; /* being loaded: not free */
    cop_job *job;
    cop_data *data;
    cop_data_view view;
    cop_buffer *lease_spec; /* the packed job as workers need it: part[3] of leases */
    char *folder;           /* of checkpoints and the model; NULL: none are written */
    int states;
    coord_version current;
    cop_buffer_pool *weight_pool, *rows_pool, *labels_pool;
    /* the step whose leases are given out now */
    uint64_t rows_step;
    uint32_t *rows, row_count; /* D1 */
    int32_t *slice_first;      /* shards + 1 offsets, D2 */
    /* the current update */
    cop_task task;
    coord_mail task_mail;
    coord_engine *engine;
    cop_update update;
    coord_version next;
    const float **gradients;
    uint64_t *update_slots;
    uint32_t *update_first;   /* first shards of its blocks */
    uint64_t *update_digests; /* of its blocks' gradients, when only their sum is not finite */
    int16_t *tree_ops;
    cop_tree tree;
    uint32_t update_count;
    bool update_running, unload_wanted;
    atomic_int finite;
    uint64_t first_step_ns; /* when the first step was completed; 0: not yet */
    uint64_t loaded_ns;
} coord_resident;

coord_resident *coord_resident_find(coord_engine *engine, uint64_t job);
/* What a job starts from. */
typedef struct coord_start_at {
    cop_job *job;       /* owned by the resident from now on, also on failure */
    cop_data *data;     /* likewise */
    const char *folder; /* copied; NULL: no checkpoints */
    bool resume;
    uint64_t max_step; /* newest step to resume from; later checkpoints are removed. UINT64_MAX: any
                        */
} coord_start_at;
/* Allocates everything that steps need and fills the weights: from the newest checkpoint in
 * `folder` if `resume` is set, else with initial ones. *start is the checkpoint, `notes` gets a
 * line for each damaged one. Slow: runs on libuv's thread pool. */
cop_err coord_resident_prepare(coord_resident *resident, const coord_start_at *at,
                               cop_checkpoint *start, cop_str *notes, cop_error *error);
/* ACTION_ROLLBACK: replaces the weights by those of the newest checkpoint of up to `max_step`
 * steps, or by initial ones, and removes later checkpoints. No lease may be given meanwhile. Slow,
 * like prepare. */
cop_err coord_resident_return(coord_resident *resident, uint64_t max_step, cop_checkpoint *start,
                              cop_str *notes, cop_error *error);
void coord_resident_fini(coord_resident *resident);
/* Fills the parts of a lease message: weights unless `have_weights`, rows, labels, spec unless
 * `have_spec`. Errors: NO_MEMORY */
cop_err coord_resident_fill_lease(coord_resident *resident, const coord_action *action,
                                  bool have_weights, bool have_spec, cop_message *message);
/* Starts averaging and updating on the compute threads; UPDATED or JOB_FAILED follows. */
void coord_resident_update(coord_engine *engine, coord_resident *resident,
                           const coord_action *action);
/* Writes a sentence about a value that is not finite: step, shards, layer. `gradient` may be NULL.
 */
void coord_resident_describe(const coord_resident *resident, const coord_action *action,
                             const cop_buffer *gradient, char *out, size_t size);

/* Fills in what the core must know of a job. */
void coord_job_info_make(const cop_job *job, uint64_t id, coord_job_state state,
                         coord_job_info *out);

#endif
