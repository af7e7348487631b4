/* What a worker computes: leases on `threads` compute threads. Keeps the models, passes and buffers
 * of the last jobs, so that a step allocates nothing once warm. One caller thread. */
#ifndef COP_WORKER_COMPUTE_H
#define COP_WORKER_COMPUTE_H

#include "common/kernels/kernel.h"
#include "common/wire/message.h"

typedef struct worker_compute worker_compute;

cop_err worker_compute_create(int threads, const cop_kernels *kernels, worker_compute **out,
                              cop_error *error);
void worker_compute_destroy(worker_compute *compute);
/* Runs a lease. The message's weights and spec are kept (held) for the leases that come without.
 * *result is filled, with `failure` set if the lease cannot be computed; *tensor gets one
 * reference: the gradient of a TRAIN lease, the outputs of an ENSEMBLE lease (NULL for evaluations
 * and failures). */
void worker_compute_run(worker_compute *compute, cop_message *lease, cop_result *result,
                        cop_buffer **tensor);
/* What a PULL says we have: the newest job and weights version + 1 (0: none). */
void worker_compute_have(const worker_compute *compute, uint64_t *job, uint64_t *version);
/* Forget weights and jobs (a restarted coordinator may use the same numbers for others). */
void worker_compute_forget(worker_compute *compute);

#endif
