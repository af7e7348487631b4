/* Optimizers (D6): which state they keep, and how the update of one step is dealt out to threads.
 * The arithmetic of a row is a kernel (cop_kernels.sgd), so that it is the same however rows are
 * dealt out. */
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/optim.h"

int cop_optimizer_states(const cop_optimizer_spec *spec) {
    COP_ASSERT(spec->kind == COP_OPTIMIZER_SGD);
    const bool ramp = spec->momentum_steps > 0 && spec->momentum_final != 0;
    return spec->momentum != 0 || ramp ? 1 : 0;
}

const char *cop_optimizer_state_name(const cop_optimizer_spec *spec, int index) {
    COP_ASSERT(index >= 0 && index < cop_optimizer_states(spec));
    return "momentum";
}

/* The first row that starts at or after element `element`, when the parameter's rows start at
 * `first`. */
static int row_at(const cop_parameter *parameter, int64_t first, int64_t element) {
    if (element <= first) return 0;
    const int64_t row = (element - first + parameter->cols - 1) / parameter->cols;
    return row < parameter->rows ? (int)row : parameter->rows;
}

static void update_rows(const cop_update *update, const cop_parameter *parameter, cop_sgd *sgd,
                        int row_begin, int row_end) {
    const float *gradients[COP_SHARDS_MAX];
    for (int i = 0; i < update->tree->count; i++)
        gradients[i] = update->gradients[i] + parameter->offset;
    sgd->gradients = gradients;
    sgd->w_in = update->w_in + parameter->offset;
    sgd->w_out = update->w_out + parameter->offset;
    sgd->velocity =
        cop_optimizer_states(update->spec) ? update->states[0] + parameter->offset : NULL;
    if (sgd->velocity && update->states_out[0]) {
        sgd->velocity_out = update->states_out[0] + parameter->offset;
        const size_t begin = (size_t)row_begin * (size_t)parameter->cols;
        const size_t count = (size_t)(row_end - row_begin) * (size_t)parameter->cols;
        /* A step without momentum leaves the state as it is. */
        if (sgd->momentum == 0.0f)
            memcpy(sgd->velocity_out + begin, sgd->velocity + begin, count * sizeof(float));
    }
    sgd->finite = update->finite;
    sgd->cols = parameter->cols;
    sgd->max_norm = (float)parameter->max_norm;
    update->kernels->sgd(sgd, row_begin, row_end);
    sgd->gradients = NULL;
}

void cop_update_run(const cop_update *update, int part, int parts) {
    COP_ASSERT(parts >= 1 && part >= 0 && part < parts);
    COP_ASSERT(update->step >= 1 && update->batch >= 1);
    COP_ASSERT(update->tree->count >= 1 && update->tree->count <= COP_SHARDS_MAX);
    const cop_optimizer_spec *spec = update->spec;
    cop_sgd sgd = {
        .tree = update->tree,
        .batch = (float)update->batch,
        .rate = (float)cop_schedule_rate(spec, update->step),
        .momentum = (float)cop_optimizer_momentum(spec, update->step),
        .weight_decay = (float)spec->weight_decay,
        .l1 = (float)spec->l1,
        .nesterov = spec->nesterov,
        .first = update->step == 1,
    };
    /* A row belongs to the part in whose share of all elements it starts. */
    const int64_t all = cop_model_weights(update->model);
    const int64_t begin = all * part / parts, end = all * (part + 1) / parts;
    int64_t first = 0;
    for (int i = 0; i < cop_model_parameter_count(update->model); i++) {
        const cop_parameter *parameter = cop_model_parameter(update->model, i);
        const int row_begin = row_at(parameter, first, begin);
        const int row_end = row_at(parameter, first, end);
        if (row_begin < row_end) update_rows(update, parameter, &sgd, row_begin, row_end);
        first += parameter->count;
    }
}
