/* Optimizers and learning-rate schedules (D6). Scalars are computed in f64 and rounded once to f32.
 */
#ifndef COP_NN_OPTIM_H
#define COP_NN_OPTIM_H

#include "common/nn/model.h"

typedef enum cop_schedule_kind {
    COP_SCHEDULE_CONSTANT = 1,
    COP_SCHEDULE_STEP,
    COP_SCHEDULE_INVERSE,
    COP_SCHEDULE_EXPONENTIAL,
    COP_SCHEDULE_COSINE
} cop_schedule_kind;

/* The rate after t = step - 1 completed steps:
 *
 *   step         rate * factor^(t / every), the exponent rounded down
 *   inverse      rate / (1 + decay * t)
 *   exponential  rate * factor^t
 *   cosine       final + (rate - final) * (1 + cos(pi * t / total_steps)) / 2
 *
 * During the first `warmup` steps the result is multiplied by step / warmup. All in f64 by
 * base/real.h. */
typedef struct cop_schedule {
    cop_schedule_kind kind;
    uint64_t every;
    double factor, decay, final;
    uint64_t warmup, total_steps;
} cop_schedule;

typedef enum cop_optimizer_kind {
    COP_OPTIMIZER_SGD = 1,
    COP_OPTIMIZER_ADAM,
    COP_OPTIMIZER_ADAMW,
    COP_OPTIMIZER_RMSPROP,
    COP_OPTIMIZER_ADAGRAD
} cop_optimizer_kind;

/* Fields that a kind does not have are 0. weight_decay: sgd and adam add weight_decay * w to the
 * gradient; adamw multiplies w by 1 - rate * weight_decay. */
typedef struct cop_optimizer_spec {
    cop_optimizer_kind kind;
    double rate, momentum, weight_decay, l1;
    double beta1, beta2, alpha, epsilon;
    /* Momentum grows linearly from `momentum` at step 1 to momentum_final at step momentum_steps,
     * and stays there. momentum_steps 0: no ramp. */
    double momentum_final;
    uint64_t momentum_steps;
    bool nesterov;
    cop_schedule schedule;
} cop_optimizer_spec;

/* The learning rate and the momentum of a step (from 1). */
double cop_schedule_rate(const cop_optimizer_spec *spec, uint64_t step);
double cop_optimizer_momentum(const cop_optimizer_spec *spec, uint64_t step);
/* The name of a kind ("adam"), and the kind with a name (0: there is none). */
const char *cop_optimizer_name(cop_optimizer_kind kind);
cop_optimizer_kind cop_optimizer_find(const char *name);
enum { COP_OPTIMIZER_STATES_MAX = 2 };
/* The number of state buffers that the optimizer keeps, each cop_model_floats long. */
int cop_optimizer_states(const cop_optimizer_spec *spec);
/* The name of a state buffer, as in PyTorch. sgd: momentum, if it has any; adam and adamw: exp_avg,
 * exp_avg_sq; rmsprop: square_avg and, with momentum, momentum_buffer; adagrad: sum. */
const char *cop_optimizer_state_name(const cop_optimizer_spec *spec, int index);

/* The update of one step. All buffers are flat (cop_model_floats long). The gaps of w_out are not
 * written: the caller zeroes them once. */
typedef struct cop_update {
    const cop_model *model;
    const cop_kernels *kernels;
    const cop_optimizer_spec *spec;
    uint64_t step;                 /* from 1 */
    int64_t batch;                 /* samples of the step */
    const float *const *gradients; /* (tree->count) gradient sums, each over a block of shards */
    const cop_tree *tree;
    const float *w_in;
    float *w_out; /* may equal w_in */
    float *states[COP_OPTIMIZER_STATES_MAX];
    float *states_out[COP_OPTIMIZER_STATES_MAX]; /* receive the new states; NULL: update in place */
    atomic_int *finite; /* set to 0 if a mean gradient is not finite; NULL: do not check */
} cop_update;
/* Computes part `part` (from 0) of the update. `parts` threads run one part each; the rows of all
 * parameters are divided into contiguous ranges of about equal size. The bits do not depend on
 * `parts`. */
void cop_update_run(const cop_update *update, int part, int parts);

#endif
