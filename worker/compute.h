/* Computes leases on several compute threads. It keeps the models, passes and buffers of the last
 * two jobs, so that a training lease allocates nothing once they exist. All calls come from one
 * thread, which is itself one of the compute threads. */
#ifndef COP_WORKER_COMPUTE_H
#define COP_WORKER_COMPUTE_H

#include "common/kernels/kernel.h"
#include "common/nn/profile.h"
#include "common/wire/message.h"

typedef struct worker_compute worker_compute;

/* Starts threads - 1 compute threads: the thread that calls worker_compute_run is the last one.
 * Borrows `kernels` until worker_compute_destroy. NO_MEMORY: nothing was created. */
cop_err worker_compute_create(int threads, const cop_kernels *kernels, worker_compute **out,
                              cop_error *error);
/* Profiles the training leases from now on: adds a lane of the participant `name` for each compute
 * thread. `profile` must outlive the worker_compute. No lease may be running. */
void worker_compute_set_profile(worker_compute *compute, cop_profile *profile, const char *name);
/* The lane of the thread that calls worker_compute_run; NULL: there is no profile. */
cop_lane *worker_compute_lane(worker_compute *compute);
/* Stops the threads and frees everything. No lease may be running. NULL has no effect. */
void worker_compute_destroy(worker_compute *compute);
/* Computes a lease and blocks until it is done. Keeps a reference to the message's weights, and the
 * job made from its spec, for later leases that come without them. Fills *result; result->failure
 * has a text if the lease is invalid or memory has run out. The caller owns one reference to
 * *tensor, which depends on the kind of lease:
 * - TRAIN: the gradient in the layout of the weights, of the type result->values
 * - ENSEMBLE: the logits, f32 [members][outputs][samples]
 * - EVALUATE, and every lease that failed: NULL */
void worker_compute_run(worker_compute *compute, cop_message *lease, cop_result *result,
                        cop_buffer **tensor);
/* Sets the buffer into which the next training leases write their gradient if it has the right
 * size. Holds a reference until the next call; NULL: there is no such buffer. */
void worker_compute_set_room(worker_compute *compute, cop_buffer *room);
/* Sets what the next PULL reports as held, so that the coordinator does not send it again. have_job
 * is the job of the newest lease; 0: none. have_version is the version of this job's weights plus
 * 1. It is 0 if there are no weights, or if they are in shared memory, which the coordinator may
 * reuse after the PULL. have_values is the type in which they came. Leases that failed because
 * their job or weights were missing do not count. */
void worker_compute_held(const worker_compute *compute, cop_pull *pull);
/* Drops all weights and jobs, because a restarted coordinator may give their numbers to other jobs
 * and weights. No lease may be running. */
void worker_compute_forget(worker_compute *compute);

#endif
