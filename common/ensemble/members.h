/* The members of an ensemble on a slice of samples: what a worker computes for an ENSEMBLE lease,
 * and the client in its own process. */
#ifndef COP_ENSEMBLE_MEMBERS_H
#define COP_ENSEMBLE_MEMBERS_H

#include "common/nn/model.h"

/* Not a thinned network but the whole one, in eval mode. */
#define COP_MEMBER_WHOLE UINT32_MAX

/* Can this model be a member: has it class probabilities (INPUT otherwise)? thinned: and a layer
 * that draws at random, without which all its members would be the same. */
cop_err cop_members_check(const cop_model *model, bool thinned, cop_error *error);

/* What runs members on up to COP_EVAL_SLICE samples. One per thread; running allocates nothing. */
typedef struct cop_members cop_members;
cop_err cop_members_create(const cop_model *model, const cop_kernels *kernels,
                           cop_numerics numerics, cop_members **out, cop_error *error);
void cop_members_destroy(cop_members *members); /* NULL is fine */
typedef struct cop_member_work {
    const float *weights;
    cop_eval_place place;
    uint32_t member;
    cop_samples samples; /* 1 to COP_EVAL_SLICE */
} cop_member_work;
/* The member's outputs for the samples: out [outputs][ld], feature-major, ld >= samples.count. The
 * same numbers as from cop_pass_member (or cop_pass_logits), however many columns that runs at
 * once.
 */
void cop_members_run(cop_members *members, const cop_member_work *work, float *out, size_t ld);

#endif
