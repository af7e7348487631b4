/* Computes leases on `threads` compute threads. It keeps the models, passes and buffers of the last
 * jobs, so that a step allocates nothing once they exist. All calls come from one thread. */
#ifndef COP_WORKER_COMPUTE_H
#define COP_WORKER_COMPUTE_H

#include "common/kernels/kernel.h"
#include "common/wire/message.h"

typedef struct worker_compute worker_compute;

/* Starts the compute threads. NO_MEMORY: nothing was created. Borrows `kernels` until
 * worker_compute_destroy. */
cop_err worker_compute_create(int threads, const cop_kernels *kernels, worker_compute **out,
                              cop_error *error);
/* Stops the threads and frees everything. No lease may be running. NULL is fine. */
void worker_compute_destroy(worker_compute *compute);
/* Computes a lease and blocks until it is done. Keeps a reference to the message's weights, and the
 * job of its spec, for later leases that come without them. Fills *result; result->failure is set
 * if the lease is invalid or memory runs out. *tensor gets one reference: the gradient of a TRAIN
 * lease, f32 in the layout of the weights, or the logits of an ENSEMBLE lease, f32
 * [members][outputs][samples]; NULL for evaluations and failures. */
void worker_compute_run(worker_compute *compute, cop_message *lease, cop_result *result,
                        cop_buffer **tensor);
/* The job of the newest lease (0: none) and the version of its weights plus 1 (0: none), for the
 * next PULL: the coordinator then leaves out what this worker has. */
void worker_compute_have(const worker_compute *compute, uint64_t *job, uint64_t *version);
/* Forgets all weights and jobs: a restarted coordinator may reuse their numbers. No lease may be
 * running. */
void worker_compute_forget(worker_compute *compute);

#endif
