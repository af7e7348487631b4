/* Evaluations of stored weights on the pool: tensors of their models, samples of their leases, and
 * the sums of an ensemble. Nothing is stored: after a restart a client must ask again. All
 * functions run on the loop thread unless a comment says otherwise. */
#ifndef COP_COORDINATOR_EVALUATION_H
#define COP_COORDINATOR_EVALUATION_H

#include "common/job/ensemble.h"
#include "common/ensemble/slices.h"
#include "coordinator/engine/engine.h"

#define COORD_MODELS_MAX     64 /* models of one evaluation */
#define COORD_EVALUATION_KEY 16 /* bytes of a client's key */

/* A model that is evaluated. */
typedef struct coord_evaluation_model {
    uint64_t job;         /* the stored job that trained it */
    cop_job *built;       /* the stored job, built from its spec */
    cop_buffer *weights;  /* f32, in the model's layout */
    cop_buffer *spec;     /* the job as workers need it */
    uint64_t fingerprint; /* hash of the OpenBLAS and CPU that the job is pinned to; 0: none */
    char digest[65];      /* digest of the weights, in hex */
} coord_evaluation_model;

/* Outputs that arrived and wait to be added in order. */
typedef struct coord_evaluation_block {
    cop_buffer *logits; /* the outputs, of which the block owns a reference */
    uint32_t slice;     /* number of the slice of samples */
    uint32_t member;    /* the first member */
    uint32_t members;   /* number of members */
} coord_evaluation_block;

struct coord_evaluation {
    uint64_t id; /* job number of the evaluation; 0: it is still being prepared */
    unsigned char key[COORD_EVALUATION_KEY];
    /* the request */
    bool plain;          /* computes only loss and error of one model; false: an ensemble */
    bool each_model;     /* every model is a member; false: members are drawn from one model */
    cop_average average; /* how members are averaged; 0: the network without dropout */
    uint32_t counts[COP_ENSEMBLE_COUNTS_MAX]; /* ensemble sizes for which figures are reported,
                                                 ascending */
    uint32_t count;                           /* entries of `counts` */
    /* These are released when the evaluation has ended. */
    coord_evaluation_model model[COORD_MODELS_MAX];
    uint32_t model_count;
    cop_data *data;
    cop_buffer_pool *rows_pool, *labels_pool;
    cop_ensemble_slices *slices; /* the sums of the ensemble */
    coord_job_info info;
    /* A ring of info.window places for outputs. `waiting` of them are used, from number `first` on
     * (modulo info.window). The compute threads are adding the first `batch` of these now. */
    coord_evaluation_block *blocks;
    uint32_t first, waiting, batch;
    cop_task task;   /* adds a batch */
    coord_mail mail; /* posted when the batch was added */
    coord_engine *engine;
    bool ended;               /* nothing is computed any more */
    bool reported;            /* the result has been sent to the client */
    char owner[COP_NAME_MAX]; /* the client that asked, by coord_access_identity */
    /* the outcome */
    cop_ensemble_figures figures[COP_ENSEMBLE_COUNTS_MAX]; /* figures for each number in `counts` */
    uint32_t figure_count;                                 /* figures that are known so far */
    uint32_t samples;                                      /* number of samples of the test part */
    uint64_t started_ns;
    uint64_t ended_ns;
    uint64_t heard_ns; /* when its client last asked */
};

/* Opens the models (of jobs model[i].job, from their folders) and the data, and allocates what the
 * evaluation needs. `evaluation` owns all of these, even if this fails. Errors are sentences for
 * the client. Slow: runs on libuv's thread pool. */
cop_err coord_evaluation_prepare(coord_engine *engine, coord_evaluation *evaluation,
                                 cop_error *error);
/* Gives the evaluation its job number and passes it to the core. NO_MEMORY: the core did not take
 * it. */
cop_err coord_evaluation_start(coord_engine *engine, coord_evaluation *evaluation, uint64_t id);

/* The evaluation with this job number; NULL: there is none. */
coord_evaluation *coord_evaluation_find(coord_engine *engine, uint64_t job);
/* The job of the model that the lease in `action` uses; the evaluation owns it. */
cop_job *coord_evaluation_job(const coord_evaluation *evaluation, const coord_action *action);
/* Fills the tensors of a lease message, and sets message->lease.whole (all members are whole
 * networks). Weights and job are left out if `pull` says that the worker has them.
 * Errors: NO_MEMORY */
cop_err coord_evaluation_fill_lease(coord_evaluation *evaluation, const coord_action *action,
                                    const cop_pull *pull, cop_message *message);
/* Computes from the size of `logits` how many members' outputs it holds, and sets *members. False:
 * the size is wrong, or the evaluation takes no outputs. */
bool coord_evaluation_members(const coord_evaluation *evaluation, const cop_result *result,
                              const cop_buffer *logits, uint32_t *members);
/* Takes the outputs from the action's slot, frees the slot, and adds the outputs to the ensemble on
 * the compute threads. ABSORBED follows, unless the evaluation ends before. */
void coord_evaluation_absorb(coord_engine *engine, const coord_action *action);
/* Call when the evaluation has ended: releases its tensors (if a batch is being added, only after
 * it), and keeps the figures for its client. */
void coord_evaluation_unload(coord_evaluation *evaluation);
/* Frees the evaluation. NULL: does nothing. No batch may be in progress. */
void coord_evaluation_free(coord_evaluation *evaluation);

#endif
