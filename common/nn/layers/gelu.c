/* gelu: y = x P(x), where P is the distribution function of the standard normal distribution
 * (Hendrycks, Gimpel, "Gaussian error linear units", 2016). P is computed by the error function, as
 * PyTorch's nn.GELU() does by default. Backward: dx = dy (P(x) + x P'(x)). Different inputs can
 * have the same output, so backward reads the input. */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

static void gelu_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                         float *y) {
    cop_activation_forward(COP_ACTIVATION_GELU, layer, c, x, y);
}

static void gelu_backward(const cop_layer *layer, const cop_layer_context *c,
                          const cop_layer_tensors *t) {
    cop_activation_backward(COP_ACTIVATION_GELU, layer, c, t);
}

static void gelu_map(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                     size_t count) {
    kernels->activate(COP_ACTIVATION_GELU, (float)layer->spec.slope, x, y, count);
}

/* Uses the operator Erf, because the operator Gelu exists only since opset 20. */
static cop_value gelu_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    const cop_value root = cop_graph_scalar(g, __builtin_sqrt(2.0));
    const cop_value one = cop_graph_scalar(g, 1.0), half = cop_graph_scalar(g, 0.5);
    const cop_value erf = COP_NODE(g, "Erf", COP_NODE(g, "Div", x, root));
    const cop_value share = COP_NODE(g, "Mul", COP_NODE(g, "Add", erf, one), half);
    return COP_NODE(g, "Mul", x, share);
}

static void gelu_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.GELU()");
}

const cop_layer_ops cop_layer_gelu = {
    .kind = "gelu",
    .shape = cop_activation_shape,
    .forward = gelu_forward,
    .backward = gelu_backward,
    .map = gelu_map,
    .flop = cop_activation_flop,
    .graph = gelu_graph,
    .torch = gelu_torch,
    .reads = COP_READS_INPUT,
    .thin = COP_THIN_EACH_ZERO,
};
