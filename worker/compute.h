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
/* Stops the threads and frees everything. No lease may be running. */
void worker_compute_destroy(worker_compute *compute);
/* Computes a lease; blocks until it is done. Keeps references to the message's weights and job spec
 * for leases that come without them. Fills *result; result->failure is set if the lease cannot be
 * computed. *tensor gets one reference: the gradient of a TRAIN lease or the outputs of an ENSEMBLE
 * lease; NULL for evaluations and failures. */
void worker_compute_run(worker_compute *compute, cop_message *lease, cop_result *result,
                        cop_buffer **tensor);
/* The newest job and its weights version + 1 (0: none), for the next PULL. */
void worker_compute_have(const worker_compute *compute, uint64_t *job, uint64_t *version);
/* Forgets all weights and jobs. A restarted coordinator may use the same numbers for others. */
void worker_compute_forget(worker_compute *compute);

#endif
