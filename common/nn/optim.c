/* Optimizers (D6): their state buffers, the scalars of a step, and the division of an update among
 * threads. A kernel (cop_kernels.sgd or cop_kernels.adaptive) updates whole rows, so the result
 * does not depend on that division. Scalars are computed in f64, and each is rounded once to
 * f32. */
#include <string.h>

#include "common/base/limits.h"
#include "common/base/real.h"
#include "common/nn/optim.h"

static const struct optimizer_row {
    cop_optimizer_kind kind;
    const char *name;
    const char *states[COP_OPTIMIZER_STATES_MAX];
    cop_adaptive_rule rule; /* 0 for sgd, which has its own kernel */
} rows[] = {
    {COP_OPTIMIZER_SGD, "sgd", {"momentum"}, 0},
    {COP_OPTIMIZER_ADAM, "adam", {"exp_avg", "exp_avg_sq"}, COP_ADAPTIVE_ADAM},
    {COP_OPTIMIZER_ADAMW, "adamw", {"exp_avg", "exp_avg_sq"}, COP_ADAPTIVE_ADAM},
    {COP_OPTIMIZER_RMSPROP, "rmsprop", {"square_avg", "momentum_buffer"}, COP_ADAPTIVE_RMSPROP},
    {COP_OPTIMIZER_ADAGRAD, "adagrad", {"sum"}, COP_ADAPTIVE_ADAGRAD},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static const struct optimizer_row *row_of(cop_optimizer_kind kind) {
    COP_ASSERT((int)kind >= 1 && (int)kind <= ROWS && rows[kind - 1].kind == kind);
    return &rows[kind - 1];
}

const char *cop_optimizer_name(cop_optimizer_kind kind) {
    return row_of(kind)->name;
}

cop_optimizer_kind cop_optimizer_find(const char *name) {
    for (int i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0) return rows[i].kind;
    return 0;
}

int cop_optimizer_states(const cop_optimizer_spec *spec) {
    const struct optimizer_row *row = row_of(spec->kind);
    const bool ramp = spec->momentum_steps > 0 && spec->momentum_final != 0;
    const bool momentum = spec->momentum != 0 || ramp;
    if (spec->kind == COP_OPTIMIZER_SGD) return momentum ? 1 : 0;
    if (spec->kind == COP_OPTIMIZER_RMSPROP) return momentum ? 2 : 1;
    return row->states[1] ? 2 : 1;
}

const char *cop_optimizer_state_name(const cop_optimizer_spec *spec, int index) {
    COP_ASSERT(index >= 0 && index < cop_optimizer_states(spec));
    return row_of(spec->kind)->states[index];
}

/* ---- rows of one parameter ---- */

/* The scalars of a step, in the form that the kernels take. Only the member for the optimizer's
 * kind is set: `sgd`, or `adaptive` for all others. */
typedef struct step_scalars {
    cop_sgd sgd;
    cop_adaptive adaptive;
} step_scalars;

/* Rows [begin, end) of one parameter, and the parameter's gradient sums, one for each leaf of the
 * tree. */
typedef struct row_range {
    const cop_parameter *parameter;
    int begin, end;
    const float *gradients[COP_SHARDS_MAX];
} row_range;

static void sgd_rows(const cop_update *update, const cop_sgd *step, const row_range *range) {
    const cop_parameter *parameter = range->parameter;
    cop_sgd sgd = *step;
    sgd.gradients = range->gradients;
    sgd.w_in = update->w_in + parameter->offset;
    sgd.w_out = update->w_out + parameter->offset;
    if (cop_optimizer_states(update->spec)) sgd.velocity = update->states[0] + parameter->offset;
    if (sgd.velocity && update->states_out[0]) {
        sgd.velocity_out = update->states_out[0] + parameter->offset;
        const size_t begin = (size_t)range->begin * (size_t)parameter->cols;
        const size_t count = (size_t)(range->end - range->begin) * (size_t)parameter->cols;
        /* If the momentum of this step is 0, the kernel does not write the new state, so it is
         * copied here. */
        if (sgd.momentum == 0.0f)
            memcpy(sgd.velocity_out + begin, sgd.velocity + begin, count * sizeof(float));
    }
    sgd.cols = parameter->cols;
    sgd.max_norm = (float)parameter->max_norm;
    update->kernels->sgd(&sgd, range->begin, range->end);
}

static void adaptive_rows(const cop_update *update, const cop_adaptive *step,
                          const row_range *range) {
    const cop_parameter *parameter = range->parameter;
    cop_adaptive adaptive = *step;
    adaptive.gradients = range->gradients;
    adaptive.w_in = update->w_in + parameter->offset;
    adaptive.w_out = update->w_out + parameter->offset;
    for (int i = 0; i < cop_optimizer_states(update->spec); i++) {
        float *out = update->states_out[i] ? update->states_out[i] : update->states[i];
        adaptive.states[i] = update->states[i] + parameter->offset;
        adaptive.states_out[i] = out + parameter->offset;
    }
    adaptive.cols = parameter->cols;
    adaptive.max_norm = (float)parameter->max_norm;
    update->kernels->adaptive(&adaptive, range->begin, range->end);
}

/* Where the gradient sum `i` of a parameter starts, which may consist of bf16 values. */
static const float *gradient_of(const cop_update *update, int i, const cop_parameter *parameter) {
    const float *all = update->gradients[i];
    if (!update->tree->bf16_inputs) return all + parameter->offset;
    return (const void *)((const uint16_t *)(const void *)all + parameter->offset);
}

static void update_some(const cop_update *update, const step_scalars *step,
                        const row_range *range) {
    if (update->spec->kind == COP_OPTIMIZER_SGD)
        sgd_rows(update, &step->sgd, range);
    else
        adaptive_rows(update, &step->adaptive, range);
}

/* Values that are updated and then rounded while they are in the second-level cache. */
#define ROUNDED_TOGETHER 16384

static void update_rows(const cop_update *update, const step_scalars *step, row_range *range) {
    const cop_parameter *p = range->parameter;
    for (int i = 0; i < update->tree->count; i++) range->gradients[i] = gradient_of(update, i, p);
    if (!update->w_sent) {
        update_some(update, step, range);
        return;
    }
    const int end = range->end,
              together = p->cols < ROUNDED_TOGETHER ? ROUNDED_TOGETHER / p->cols : 1;
    for (; range->begin < end; range->begin = range->end) {
        range->end = end - range->begin < together ? end : range->begin + together;
        update_some(update, step, range);
        const int64_t at = p->offset + (int64_t)range->begin * p->cols;
        update->kernels->round_bf16(update->w_out + at, update->w_sent + at,
                                    (size_t)(range->end - range->begin) * (size_t)p->cols);
    }
}

/* ---- scalars of a step ---- */

static cop_sgd sgd_of_step(const cop_update *update) {
    const cop_optimizer_spec *spec = update->spec;
    return (cop_sgd){
        .tree = update->tree,
        .finite = update->finite,
        .batch = (float)update->batch,
        .rate = (float)cop_schedule_rate(spec, update->step),
        .momentum = (float)cop_optimizer_momentum(spec, update->step),
        .weight_decay = (float)spec->weight_decay,
        .l1 = (float)spec->l1,
        .nesterov = spec->nesterov,
        .first = update->step == 1,
    };
}

static cop_adaptive adaptive_of_step(const cop_update *update) {
    const cop_optimizer_spec *spec = update->spec;
    const double rate = cop_schedule_rate(spec, update->step);
    cop_adaptive step = {
        .rule = row_of(spec->kind)->rule,
        .tree = update->tree,
        .finite = update->finite,
        .batch = (float)update->batch,
        .rate = (float)rate,
        .epsilon = (float)spec->epsilon,
        .momentum = (float)spec->momentum,
        .keep = 1.0f,
        .first = update->step == 1,
    };
    if (step.rule == COP_ADAPTIVE_RMSPROP) {
        step.square_new = (float)(1 - spec->alpha);
        step.square_keep = (float)spec->alpha;
    }
    if (step.rule != COP_ADAPTIVE_ADAM) return step;
    step.rate = (float)(rate / (1 - cop_power(spec->beta1, update->step)));
    step.correction = (float)__builtin_sqrt(1 - cop_power(spec->beta2, update->step));
    step.mean_new = (float)(1 - spec->beta1);
    step.square_new = (float)(1 - spec->beta2);
    step.square_keep = (float)spec->beta2;
    if (spec->kind == COP_OPTIMIZER_ADAMW)
        step.keep = (float)(1 - rate * spec->weight_decay);
    else
        step.weight_decay = (float)spec->weight_decay;
    return step;
}

/* ---- division among threads ---- */

/* The parameter's first row that starts at or after `element`, or its number of rows if there is
 * none. `first` is where the parameter's row 0 starts. Both count the values of all parameters,
 * without the gaps. */
static int row_at(const cop_parameter *parameter, int64_t first, int64_t element) {
    if (element <= first) return 0;
    const int64_t row = (element - first + parameter->cols - 1) / parameter->cols;
    return row < parameter->rows ? (int)row : parameter->rows;
}

void cop_update_run(const cop_update *update, int part, int parts) {
    COP_ASSERT(parts >= 1 && part >= 0 && part < parts);
    COP_ASSERT(update->step >= 1 && update->batch >= 1);
    COP_ASSERT(update->tree->count >= 1 && update->tree->count <= COP_SHARDS_MAX);
    for (int i = 0; i < cop_optimizer_states(update->spec); i++) COP_ASSERT(update->states[i]);
    step_scalars step = {{0}};
    if (update->spec->kind == COP_OPTIMIZER_SGD)
        step.sgd = sgd_of_step(update);
    else
        step.adaptive = adaptive_of_step(update);
    /* Each part has a range of elements. A row belongs to the part whose range contains the row's
     * first element. */
    const int64_t all = cop_model_weights(update->model);
    const int64_t begin = all * part / parts, end = all * (part + 1) / parts;
    int64_t first = 0;
    row_range range;
    for (int i = 0; i < cop_model_parameter_count(update->model); i++) {
        range.parameter = cop_model_parameter(update->model, i);
        range.begin = row_at(range.parameter, first, begin);
        range.end = row_at(range.parameter, first, end);
        if (range.begin < range.end) update_rows(update, &step, &range);
        first += range.parameter->count;
    }
    COP_ASSERT(first == all);
}
