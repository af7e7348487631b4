/* softmax, over the features of a flat input or over the channels of each pixel, as in PyTorch's
 * nn.Softmax(dim=1). The sums are over all k, and max is the largest x_k:
 *
 *     forward     y_j = exp(x_j - max) / sum of exp(x_k - max)
 *     backward    dx_j = y_j (dy_j - sum of y_k dy_k) */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

/* The softmax runs over the first dimension of a sample. The kernel sees each index of the other
 * dimensions as a column of its own. */
static int classes(const cop_layer *layer) {
    return layer->in.dims[0];
}

static int columns(const cop_layer *layer, const cop_layer_context *c) {
    return (int)(cop_shape_size(&layer->in) / classes(layer)) * c->ld;
}

static void softmax_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    c->kernels->softmax(x, classes(layer), columns(layer, c), y);
}

static void softmax_backward(const cop_layer *layer, const cop_layer_context *c,
                             const cop_layer_tensors *t) {
    COP_ASSERT(t->y && t->dy);
    if (t->dx) c->kernels->softmax_backward(t->y, t->dy, classes(layer), columns(layer, c), t->dx);
}

static double softmax_flop(const cop_layer *layer) {
    return 4.0 * (double)cop_shape_size(&layer->in);
}

static cop_value softmax_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    const cop_value y = COP_NODE(g, "Softmax", x);
    cop_graph_int(g, "axis", 1);
    return y;
}

static void softmax_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.Softmax(dim=1)");
}

const cop_layer_ops cop_layer_softmax = {
    .kind = "softmax",
    .shape = cop_activation_shape,
    .forward = softmax_forward,
    .backward = softmax_backward,
    .flop = softmax_flop,
    .graph = softmax_graph,
    .torch = softmax_torch,
    .in_place = true,
    .keeps = COP_KEEPS_NOTHING,
    .reads = COP_READS_OUTPUT,
    .squashes = true,
};
