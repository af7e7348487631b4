/* A pass and its memory, shared by pass.c and pass_plan.c only. */
#ifndef COP_NN_PASS_H
#define COP_NN_PASS_H

#include "common/base/bytes.h"
#include "common/nn/thin.h"

/* The member that the last cop_pass_member_begin selected. `network` is a thinned network, or the
 * whole model, which then runs with masks. */
typedef struct pass_member {
    cop_thinned network;
    uint64_t seed;
    uint32_t number;
} pass_member;

struct cop_pass {
    const cop_model *model;
    const cop_kernels *kernels;
    cop_numerics numerics;
    cop_gemm_fn gemm;
    int max_columns;
    cop_pass_tap tap;
    cop_lane *lane; /* of the thread that trains; NULL: there is no profile */
    cop_pass_purpose purpose;
    pass_member member;
    cop_thin *thin;  /* NULL: members run as the whole model with masks */
    int32_t drawn;   /* cop_layer_context.drawn */
    int lowest;      /* the index of the first layer with weights, where backward ends */
    void *memory;    /* one block that holds all arrays below */
    float **outputs; /* [layers + 1]: the network's input, then the output of each layer */
    float *target;   /* a copy of the input, if the loss compares outputs with it; else NULL */
    float *truth;    /* the labels as 0 and 1, if the model has one logit; else NULL */
    /* Two gradient buffers. Each has room for ld columns of the largest output of a layer from
     * `lowest` on. NULL unless the pass is for TRAIN. */
    float *gradient[2];
    uint16_t *masks; /* the layers' mask arena; NULL in a pass for EVAL */
    void *workspace, *scratch;
    /* arrays with one element per column (`augmented`: one row) */
    cop_rng_key *keys, *noise_keys, *augment_keys;
    void *augmented; /* augmented rows of the stored type; NULL: nothing is augmented */
    uint32_t *samples, *no_samples;
    int32_t *labels, *argmax;
    float *losses;
    /* arrays with one element per shard; NULL unless the pass is for TRAIN */
    int *segments; /* the column where each shard starts, and where the last one ends */
    double *shard_losses;
    bool *present; /* whether the shard has samples */
    int16_t *ops;  /* the tree over the shards, in whose order their losses are added */
};

static inline int cop_columns_padded(int columns) {
    return (int)cop_align_up((size_t)columns, COP_COLUMNS_PAD);
}

#endif
