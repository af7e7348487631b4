/* Computes the outputs of an ensemble's members on a slice of samples. Workers use it for ENSEMBLE
 * leases, and the client when it evaluates in its own process. */
#ifndef COP_ENSEMBLE_MEMBERS_H
#define COP_ENSEMBLE_MEMBERS_H

#include "common/nn/model.h"

/* A member with this number is the whole model in eval mode instead of a thinned network. */
#define COP_MEMBER_WHOLE UINT32_MAX

/* Checks that this model can be in an ensemble: it must have classes and the loss cross_entropy. If
 * the members are thinned networks (`thinned`), it must also have a layer that draws at random,
 * else all members would be equal. INPUT: the model cannot be in the ensemble. */
cop_err cop_members_check(const cop_model *model, bool thinned, cop_error *error);

/* Runs members on up to COP_EVAL_SLICE samples. Use one per thread; running allocates nothing. */
typedef struct cop_members cop_members;
/* Borrows the model. The errors are those of cop_pass_create. */
cop_err cop_members_create(const cop_model *model, const cop_kernels *kernels,
                           cop_numerics numerics, cop_members **out, cop_error *error);
void cop_members_destroy(cop_members *members); /* does nothing if members is NULL */
typedef struct cop_member_work {
    const float *weights;
    cop_eval_place place;
    uint32_t member;     /* the member's number, from 0, or COP_MEMBER_WHOLE */
    cop_samples samples; /* 1 to COP_EVAL_SLICE samples; the labels are not used */
} cop_member_work;
/* Writes the member's outputs for the samples to out [outputs][ld], feature-major, with ld >=
 * samples.count. They have the same bits as the outputs of cop_pass_member, or of cop_pass_logits
 * for COP_MEMBER_WHOLE. */
void cop_members_run(cop_members *members, const cop_member_work *work, float *out, size_t ld);

#endif
