/* A pass and its memory, shared by pass.c and pass_plan.c only. */
#ifndef COP_NN_PASS_H
#define COP_NN_PASS_H

#include "common/base/bytes.h"
#include "common/nn/thin.h"

/* The member selected by the last cop_pass_member_begin: a thinned network, or the whole model. */
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
    cop_pass_purpose purpose;
    pass_member member;
    cop_thin *thin;  /* NULL: members run as the whole model with masks */
    int lowest;      /* the lowest layer with weights, where backward ends */
    void *memory;    /* one block that holds all arrays below */
    float **outputs; /* [layers + 1]: the input, then each layer's output */
    float *target;   /* a copy of the input, if the loss compares outputs with it; else NULL */
    float *truth;    /* the labels as 0 and 1, if the model has one logit; else NULL */
    float *
        gradient[2]; /* each as large as the largest output of a layer from `lowest` up, times ld */
    uint16_t *masks; /* the layers' mask arena; NULL in a pass for EVAL */
    void *workspace, *scratch;
    /* per column */
    cop_rng_key *keys, *noise_keys, *augment_keys;
    void *augmented; /* augmented rows of the stored type; NULL: the job augments nothing */
    uint32_t *samples, *no_samples;
    int32_t *labels, *argmax;
    float *losses;
    /* per shard */
    int *segments;
    double *shard_losses;
    bool *present;
    int16_t *ops; /* the tree over the shards, to add up their losses */
};

static inline int cop_columns_padded(int columns) {
    return (int)cop_align_up((size_t)columns, COP_COLUMNS_PAD);
}

#endif
