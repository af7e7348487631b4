/* Weights of stored jobs, from the checkpoints or the model in their folders. All functions may run
 * on libuv's thread pool. */
#ifndef COP_COORDINATOR_MODELS_H
#define COP_COORDINATOR_MODELS_H

#include "coordinator/engine/engine.h"

/* The weights of a stored job: its final weights, or those of its newest checkpoint. */
typedef struct coord_model {
    cop_job *job;         /* the job as the store has it, not as the folder has it */
    float *flat;          /* the weights, in the model's layout */
    uint64_t step;        /* completed steps */
    uint64_t fingerprint; /* hash of the OpenBLAS and CPU that the job is pinned to; 0: none */
    char digest[65];      /* digest of the weights, in hex */
} coord_model;
/* Opens the weights of a job; the caller closes them. Errors, among others: NOT_FOUND (the job does
 * not exist or has no checkpoint yet), INPUT or CORRUPT (the folder's content does not belong to
 * this job). */
cop_err coord_model_open(coord_engine *engine, uint64_t job, coord_model *out, cop_error *error);
void coord_model_close(
    coord_model *model); /* Frees the model. The caller sets fields that it took over to NULL. */

/* Writes the path of the folder with a stored job's checkpoints and model into `out`, which has
 * `size` bytes. Returns `out`. */
const char *coord_job_folder(const coord_engine *engine, uint64_t job, char *out, size_t size);

#endif
