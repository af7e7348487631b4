/* Optimizers and learning-rate schedules (D6). The scalars of a step, such as rate and momentum,
 * are computed in f64, and each is rounded once to f32. */
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

/* The learning rate of a step (from 1) depends on t = step - 1, the number of completed steps:
 *
 *   constant     rate
 *   step         rate * factor^(t / every), where t / every is rounded down
 *   inverse      rate / (1 + decay * t)
 *   exponential  rate * factor^t
 *   cosine       final + (rate - final) * (1 + cos(pi * t / total_steps)) / 2;
 *                final, if t >= total_steps
 *
 * During the first `warmup` steps the result is multiplied by step / warmup. Everything is computed
 * in f64 by the functions of base/real.h. */
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

/* Fields that a kind does not have are 0. With weight_decay, sgd and adam add weight_decay * w to
 * the gradient, and adamw multiplies w by 1 - rate * weight_decay. */
typedef struct cop_optimizer_spec {
    cop_optimizer_kind kind;
    double rate, momentum, weight_decay, l1;
    double beta1, beta2, alpha, epsilon;
    /* The momentum of sgd changes linearly from `momentum` at step 1 to momentum_final at step
     * momentum_steps, and stays there. If momentum_steps is 0, it is always `momentum`. */
    double momentum_final;
    uint64_t momentum_steps;
    bool nesterov;
    cop_schedule schedule;
} cop_optimizer_spec;

/* The learning rate and the momentum of a step (from 1). */
double cop_schedule_rate(const cop_optimizer_spec *spec, uint64_t step);
double cop_optimizer_momentum(const cop_optimizer_spec *spec, uint64_t step);
/* cop_optimizer_name returns the name of a kind, such as "adam". cop_optimizer_find returns the
 * kind with a name, or 0 if there is none. */
const char *cop_optimizer_name(cop_optimizer_kind kind);
cop_optimizer_kind cop_optimizer_find(const char *name);
enum { COP_OPTIMIZER_STATES_MAX = 2 };
/* The number of state buffers that the optimizer keeps, each cop_model_floats long. */
int cop_optimizer_states(const cop_optimizer_spec *spec);
/* The name of state buffer `index`, as in PyTorch:
 *   sgd          momentum; no buffer without momentum
 *   adam, adamw  exp_avg, exp_avg_sq
 *   rmsprop      square_avg; with momentum also momentum_buffer
 *   adagrad      sum */
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
    const cop_tree *tree;          /* the order in which the gradient sums are added */
    const float *w_in;
    float *w_out;     /* may equal w_in */
    uint16_t *w_sent; /* receives w_out, rounded to bf16, without the gaps; NULL: not needed */
    float *states[COP_OPTIMIZER_STATES_MAX];
    float *states_out[COP_OPTIMIZER_STATES_MAX]; /* receive the new states; NULL: update in place */
    atomic_int *finite; /* is set to 0 if a mean gradient is not finite; NULL: do not check */
} cop_update;
/* Computes part `part` (from 0) of the update. Each of `parts` threads calls it for one part.
 * Together the parts are the rows of all parameters, divided into contiguous ranges of about equal
 * size. The result has the same bits for every number of parts. */
void cop_update_run(const cop_update *update, int part, int parts);

#endif
