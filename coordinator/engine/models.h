/* Weights of stored jobs that are not under way. Thread pool. */
#ifndef COP_COORDINATOR_MODELS_H
#define COP_COORDINATOR_MODELS_H

#include "coordinator/engine/engine.h"

/* The weights of a stored job: its final ones, or those of its newest checkpoint. */
typedef struct coord_model {
    cop_job *job; /* as the store has it, never as the folder says */
    float *flat;
    uint64_t step, fingerprint; /* of the OpenBLAS that the job is pinned to; 0: none */
    char digest[65];
} coord_model;
/* NOT_FOUND: no checkpoint yet. INPUT, CORRUPT: what the job's folder holds is not this job's. */
cop_err coord_model_open(coord_engine *engine, uint64_t job, coord_model *out, cop_error *error);
void coord_model_close(coord_model *model); /* what was taken out is NULL */

/* The folder of a stored job's checkpoints and model; returns `out`. */
const char *coord_job_folder(const coord_engine *engine, uint64_t job, char *out, size_t size);

#endif
