/* Tensors of the jobs in progress: see resident.c. All functions run on the loop thread unless a
 * comment says otherwise. */
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
    uint64_t step;        /* completed steps */
    cop_buffer *weights;  /* leases, evaluations and checkpoints hold references of their own */
    cop_buffer *sent;     /* with `wire: bf16`: the rounded weights of training leases; else NULL */
    cop_buffer *state[2]; /* state buffers of the optimizer; NULL if it has fewer state tensors */
} coord_version;

/* A job whose data and tensors are in memory. */
typedef struct coord_resident {
    uint64_t id;   /* job number; 0: none */
    bool reserved; /* a job is being loaded into this place, so it is not free */
    cop_job *job;
    cop_data *data;
    cop_data_view view;
    cop_buffer *lease_spec; /* the job as workers need it: COP_PART_JOB of lease messages */
    char *folder;           /* folder of checkpoints and model; NULL: none are written */
    int states;             /* number of the optimizer's state tensors: 0 to 2 */
    coord_version current;
    cop_buffer_pool *weight_pool, *sent_pool, *state_pool, *rows_pool, *labels_pool;
    /* the step whose leases are given out now */
    uint64_t rows_step;   /* number of this step */
    uint32_t *rows;       /* (batch) the rows of its samples, in order (D1) */
    uint32_t row_count;   /* number of samples in this step */
    int32_t *slice_first; /* (shards + 1) shard i has rows[slice_first[i]] up to, but without,
                             rows[slice_first[i + 1]] (D2) */
    /* the current update */
    cop_task task;
    coord_mail task_mail; /* posted when the task is done */
    coord_engine *engine;
    cop_update update;
    coord_version next;       /* the version that the update writes */
    const float **gradients;  /* (shards) gradients of its blocks */
    cop_buffer **copies;      /* (shards) copies of gradients in shared memory; NULL: not copied */
    uint64_t *update_slots;   /* (shards) slots of these gradients */
    uint32_t *update_first;   /* (shards) first shards of its blocks */
    uint64_t *update_digests; /* (shards) digests of its blocks' gradients; filled only if all
                                 gradients are finite, their sum is not, and the job is audited */
    int16_t *tree_ops;        /* (2 * shards) the operations of `tree` */
    cop_tree tree;            /* the order in which the gradients are added */
    uint32_t update_count;    /* number of its blocks */
    bool update_running;
    uint64_t update_began_ns; /* when the running update began; 0: no profile is made */
    bool stable;              /* only this process can write to the gradients */
    bool unload_wanted;       /* release everything as soon as the update is done */
    atomic_int finite;        /* 0: the update found a value that is not finite */
    uint64_t first_step_ns;   /* when the first step was completed; 0: not yet */
    uint64_t loaded_ns;       /* when the weights were loaded */
} coord_resident;

/* The resident job with this number; NULL: there is none. */
coord_resident *coord_resident_find(coord_engine *engine, uint64_t job);
/* What a job starts from. */
typedef struct coord_start_at {
    cop_job *job;       /* owned by the resident from now on, even if the call fails */
    cop_data *data;     /* owned by the resident from now on, even if the call fails */
    const char *folder; /* copied; NULL: no checkpoints */
    bool share;         /* the weights are in memory that workers can map */
    bool resume;        /* start from a checkpoint, if there is one */
    uint64_t max_step;  /* newest step to resume from; later checkpoints are removed. UINT64_MAX: no
                           limit, and no checkpoint is removed */
} coord_start_at;
/* Allocates everything that steps need, and fills the weights: from the newest checkpoint in
 * `folder` if `resume` is set and there is one, else with initial weights. *start describes the
 * checkpoint; it is zero if there was none. `notes` gets a line for each damaged checkpoint. After
 * an error call coord_resident_fini. Slow: runs on libuv's thread pool. */
cop_err coord_resident_prepare(coord_resident *resident, const coord_start_at *at,
                               cop_checkpoint *start, cop_str *notes, cop_error *error);
/* Carries out ACTION_ROLLBACK: replaces the weights by those of the newest checkpoint of up to
 * `max_step` steps, or by initial weights if there is none, and removes later checkpoints. The
 * caller must not give out leases of the job meanwhile. *start and `notes` are as in
 * coord_resident_prepare. Slow: runs on libuv's thread pool. */
cop_err coord_resident_return(coord_resident *resident, uint64_t max_step, cop_checkpoint *start,
                              cop_str *notes, cop_error *error);
/* Frees everything that the resident holds, and makes its place free. No update may be running. */
void coord_resident_fini(coord_resident *resident);
/* The type of the weights of a lease: training leases of a job with `wire: bf16` have bf16. */
cop_values coord_resident_weights_values(const coord_resident *resident,
                                         const coord_action *action);
/* Puts rows and labels into a lease message, the weights unless `have_weights`, their type, and the
 * job unless `have_spec`. Errors: NO_MEMORY */
cop_err coord_resident_fill_lease(coord_resident *resident, const coord_action *action,
                                  bool have_weights, bool have_spec, cop_message *message);
/* Averages and updates: on the compute threads or, if that takes only microseconds, on this thread.
 * Call it while an action is being carried out. UPDATED follows, unless the job is unloaded
 * before. If there is no memory for the next step, JOB_FAILED comes before it. */
void coord_resident_update(coord_engine *engine, coord_resident *resident,
                           const coord_action *action);
/* Writes into `out` a sentence about a value that is not finite: at which step, in which shards or
 * samples and, if `gradient` is not NULL, in the gradient of which layer. */
void coord_resident_describe(const coord_resident *resident, const coord_action *action,
                             const cop_buffer *gradient, char *out, size_t size);

/* Fills *out with what the core must know about a training job. */
void coord_job_info_make(const cop_job *job, uint64_t id, coord_job_state state,
                         coord_job_info *out);

#endif
