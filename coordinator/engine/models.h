/* Weights of stored jobs that are not in progress. Runs on libuv's thread pool. */
#ifndef COP_COORDINATOR_MODELS_H
#define COP_COORDINATOR_MODELS_H

#include "coordinator/engine/engine.h"

/* The weights of a stored job: its final ones, or those of its newest checkpoint. */
typedef struct coord_model {
    cop_job *job; /* from the store, never from the folder */
    float *flat;
    uint64_t step, fingerprint; /* of the OpenBLAS that the job is pinned to; 0: none */
    char digest[65];
} coord_model;
/* Opens the weights; the caller closes them. NOT_FOUND: no checkpoint yet. INPUT, CORRUPT: the
 * folder's content does not belong to this job. */
cop_err coord_model_open(coord_engine *engine, uint64_t job, coord_model *out, cop_error *error);
void coord_model_close(
    coord_model *model); /* Frees the model; members that the caller took over must be NULL. */

/* The folder of a stored job's checkpoints and model, in `out`; returns `out`. */
const char *coord_job_folder(const coord_engine *engine, uint64_t job, char *out, size_t size);

#endif
