/* Optimizers and learning-rate schedules (D6). Scalars of schedules are computed in f64 and rounded
 * once to f32. */
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

/* t = step - 1 counts completed steps. step: rate * factor^(t / every); inverse: rate / (1 + decay
 * * t); exponential: rate * factor^t; cosine: final + (rate - final) * (1 + cos(pi * t / total))
 * / 2. During the first `warmup` steps the result is multiplied by step / warmup. All in f64 by
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

/* Fields that a kind does not have are 0. weight_decay: added to the gradient, times w (sgd, adam);
 * adamw: w loses the share rate * weight_decay. */
typedef struct cop_optimizer_spec {
    cop_optimizer_kind kind;
    double rate, momentum, weight_decay, l1;
    double beta1, beta2, alpha, epsilon;
    /* Momentum ramp: from `momentum` at step 1 linearly to momentum_final at step momentum_steps
     * (then constant); steps 0: no ramp. */
    double momentum_final;
    uint64_t momentum_steps;
    bool nesterov;
    cop_schedule schedule;
} cop_optimizer_spec;

double cop_schedule_rate(const cop_optimizer_spec *spec, uint64_t step);
double cop_optimizer_momentum(const cop_optimizer_spec *spec, uint64_t step);
/* "adam"; the kind with this name, 0 if there is none. */
const char *cop_optimizer_name(cop_optimizer_kind kind);
cop_optimizer_kind cop_optimizer_find(const char *name);
/* Number of state buffers (each cop_model_floats long) the optimizer keeps, and their names: sgd
 * none or momentum; adam and adamw exp_avg, exp_avg_sq; rmsprop square_avg and perhaps
 * momentum_buffer; adagrad sum. */
enum { COP_OPTIMIZER_STATES_MAX = 2 };
int cop_optimizer_states(const cop_optimizer_spec *spec);
const char *cop_optimizer_state_name(const cop_optimizer_spec *spec, int index);

/* One step's update, to be run in `parts` pieces by as many threads: rows of all parameters are
 * dealt out in contiguous, balanced ranges. gradients: tree->count flat buffers (sums over blocks
 * of shards). batch: samples of the step. Writes w_out (may equal w_in) and states.
 * Padding gaps of w_out are kept zero by the caller having zeroed them once. */
typedef struct cop_update {
    const cop_model *model;
    const cop_kernels *kernels;
    const cop_optimizer_spec *spec;
    uint64_t step; /* from 1 */
    int64_t batch;
    const float *const *gradients;
    const cop_tree *tree;
    const float *w_in;
    float *w_out;
    float *states[COP_OPTIMIZER_STATES_MAX];
    float *states_out[COP_OPTIMIZER_STATES_MAX]; /* where the new states go; NULL: in place */
    atomic_int *finite; /* set to 0 when a mean gradient is not finite; NULL: not looked at */
} cop_update;
void cop_update_run(const cop_update *update, int part, int parts);

#endif
