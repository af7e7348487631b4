/* Evaluations of finished weights on the pool: tensors of their models, samples of their leases,
 * and the sums of an ensemble. Nothing is stored: after a restart a client must ask again. Loop
 * thread unless a comment says otherwise. */
#ifndef COP_COORDINATOR_EVALUATION_H
#define COP_COORDINATOR_EVALUATION_H

#include "common/job/ensemble.h"
#include "common/ensemble/slices.h"
#include "coordinator/engine/engine.h"

#define COORD_MODELS_MAX     64
#define COORD_EVALUATION_KEY 16 /* bytes of a client's key */

typedef struct coord_evaluation_model {
    uint64_t job;
    cop_job *built;
    cop_buffer *weights, *spec;
    uint64_t fingerprint; /* of the OpenBLAS that the job is pinned to; 0: none */
    char digest[65];
} coord_evaluation_model;

/* Outputs that arrived and wait to be added in order. */
typedef struct coord_evaluation_block {
    cop_buffer *logits;
    uint32_t slice, member, members;
} coord_evaluation_block;

struct coord_evaluation {
    uint64_t id; /* its job number; 0: being prepared */
    unsigned char key[COORD_EVALUATION_KEY];
    /* the request */
    bool plain, each_model; /* plain: losses of one model; each_model: every model is a member */
    cop_average average;
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX], count;
    /* what it needs; released when it has ended */
    coord_evaluation_model model[COORD_MODELS_MAX];
    uint32_t model_count;
    cop_data *data;
    cop_buffer_pool *rows_pool, *labels_pool;
    cop_ensemble_slices *slices;
    coord_job_info info;
    /* outputs that the compute threads add: a ring of info.window blocks, of which the first
     * `batch` are being added now */
    coord_evaluation_block *blocks;
    uint32_t first, waiting, batch;
    cop_task task;
    coord_mail mail;
    coord_engine *engine;
    bool ended;               /* nothing is computed any more */
    bool reported;            /* its client has been sent the result */
    char owner[COP_NAME_MAX]; /* coord_access_identity */
    /* the outcome */
    cop_ensemble_figures figures[COP_ENSEMBLE_COUNTS_MAX];
    uint32_t figure_count, samples;
    uint64_t started_ns, ended_ns, heard_ns; /* heard_ns: when its client last asked */
};

/* Opens the models (of jobs model[i].job, from their folders) and the data, and allocates what the
 * evaluation needs. `evaluation` owns them, also on failure. Errors are sentences for the client.
 * Slow: runs on libuv's thread pool. */
cop_err coord_evaluation_prepare(coord_engine *engine, coord_evaluation *evaluation,
                                 cop_error *error);
/* Assigns its job number and passes it to the core. NO_MEMORY: it was not started. */
cop_err coord_evaluation_start(coord_engine *engine, coord_evaluation *evaluation, uint64_t id);

coord_evaluation *coord_evaluation_find(coord_engine *engine, uint64_t job);
/* The job of the model that a lease is about; the evaluation owns it. */
cop_job *coord_evaluation_job(const coord_evaluation *evaluation, const coord_action *action);
/* Fills the parts of a lease message, and its fields about the member. Errors: NO_MEMORY */
cop_err coord_evaluation_fill_lease(coord_evaluation *evaluation, const coord_action *action,
                                    const cop_pull *pull, cop_message *message);
/* In *members: how many members' outputs these are, by their size. False: the size is wrong. */
bool coord_evaluation_members(const coord_evaluation *evaluation, const cop_result *result,
                              const cop_buffer *logits, uint32_t *members);
/* Adds the outputs of the action's slot to the ensemble, on the compute threads. ABSORBED follows.
 */
void coord_evaluation_absorb(coord_engine *engine, const coord_action *action);
/* Call when it has ended: releases tensors, keeps the figures for its client. */
void coord_evaluation_unload(coord_evaluation *evaluation);
void coord_evaluation_free(coord_evaluation *evaluation); /* Frees it; NULL: does nothing. */

#endif
