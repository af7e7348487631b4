/* Names and checks of losses, and the order in which the losses of samples are added (D7), which is
 * the same in the pass and in the coordinator. The loss of each sample is computed by a kernel
 * (softmax_cross_entropy or mean_loss). */
#include "common/nn/loss.h"

static const struct {
    cop_loss_kind kind;
    const char *name;
} names[] = {
    {COP_LOSS_CROSS_ENTROPY, "cross_entropy"},
    {COP_LOSS_MSE, "mse"},
    {COP_LOSS_BCE, "bce"},
};

const char *cop_loss_name(cop_loss_kind kind) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].kind == kind) return names[i].name;
    return "unknown";
}

cop_err cop_loss_check(cop_loss_kind kind, double smoothing, bool target_input, cop_error *error) {
    if (kind != COP_LOSS_CROSS_ENTROPY && kind != COP_LOSS_MSE && kind != COP_LOSS_BCE)
        return cop_fail(error, COP_ERR_UNSUPPORTED,
                        "loss is unknown, expected cross_entropy, mse or bce");
    if (kind != COP_LOSS_CROSS_ENTROPY && smoothing != 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "loss: smoothing is %g, but only cross_entropy smooths labels, not %s",
                        smoothing, cop_loss_name(kind));
    if (kind == COP_LOSS_CROSS_ENTROPY && target_input)
        return cop_fail(error, COP_ERR_INPUT,
                        "loss: cross_entropy compares with labels, but data.target is input: "
                        "expected mse or bce");
    if (!(smoothing >= 0 && smoothing < 1))
        return cop_fail(error, COP_ERR_INPUT,
                        "loss: smoothing is %g, expected at least 0 and below 1", smoothing);
    return COP_OK;
}

double cop_loss_sum(const float *losses, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += (double)losses[i];
    return sum;
}

double cop_loss_combine(const cop_tree *tree, const double *values) {
    double stack[COP_TREE_DEPTH];
    int depth = 0;
    for (int i = 0; i < tree->op_count; i++) {
        const int op = tree->ops[i];
        if (op >= 0) {
            COP_ASSERT(op < tree->count && depth < COP_TREE_DEPTH);
            stack[depth++] = values[op];
        } else {
            COP_ASSERT(depth >= 2);
            depth--;
            stack[depth - 1] += stack[depth];
        }
    }
    COP_ASSERT(depth == 1);
    return stack[0];
}
