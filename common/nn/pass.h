/* What pass.c and pass_plan.c share: a pass and its memory. */
#ifndef COP_NN_PASS_H
#define COP_NN_PASS_H

#include "common/base/bytes.h"
#include "common/nn/thin.h"

/* The member that was begun last: thinned, or all layers of the model with its weights. */
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
    cop_thin *thin;     /* NULL: members are not thinned */
    int lowest;         /* the lowest layer with weights: backward ends there */
    void *memory;       /* all that follows */
    float **outputs;    /* [layers + 1]: the input, then each layer's output */
    float *target;      /* a copy of the input where outputs are compared with it, else NULL */
    float *truth;       /* labels as 0 and 1 where one logit is compared with them, else NULL */
    float *gradient[2]; /* [largest output of a layer from `lowest` up][ld] */
    uint16_t *masks;    /* what layers keep; not there in a pass that only evaluates */
    void *workspace, *scratch;
    /* per column */
    cop_rng_key *keys, *noise_keys, *augment_keys;
    void *augmented; /* rows of the stored type; NULL: the model's samples are not changed */
    uint32_t *samples, *no_samples;
    int32_t *labels, *argmax;
    float *losses;
    /* per shard */
    int *segments;
    double *shard_losses;
    bool *present;
    int16_t *ops; /* the tree over the shards, for their losses */
};

static inline int cop_columns_padded(int columns) {
    return (int)cop_align_up((size_t)columns, COP_COLUMNS_PAD);
}

#endif
