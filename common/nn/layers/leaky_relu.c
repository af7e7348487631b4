/* leaky_relu (Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models",
 * ICML 2013):
 *
 *     forward     y = x where x > 0, else slope x
 *     backward    dx = dy where y > 0, else slope dy
 *
 * The slope is from 0 to 1, so y is above 0 exactly where x is. */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

static cop_err leaky_relu_shape(cop_layer *layer, cop_error *error) {
    if (!(layer->spec.slope >= 0 && layer->spec.slope <= 1))
        return cop_fail(error, COP_ERR_INPUT, "slope is %g, expected 0 to 1", layer->spec.slope);
    return cop_activation_shape(layer, error);
}

static void leaky_relu_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                               float *y) {
    cop_activation_forward(COP_ACTIVATION_LEAKY_RELU, layer, c, x, y);
}

static void leaky_relu_backward(const cop_layer *layer, const cop_layer_context *c,
                                const cop_layer_tensors *t) {
    cop_activation_backward(COP_ACTIVATION_LEAKY_RELU, layer, c, t);
}

static void leaky_relu_map(const cop_layer *layer, const cop_kernels *kernels, const float *x,
                           float *y, size_t count) {
    kernels->activate(COP_ACTIVATION_LEAKY_RELU, (float)layer->spec.slope, x, y, count);
}

static cop_value leaky_relu_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const cop_value y = COP_NODE(g, "LeakyRelu", x);
    cop_graph_real(g, "alpha", layer->spec.slope);
    return y;
}

static void leaky_relu_torch(const cop_layer *layer, cop_torch *out) {
    cop_torch_print(out, "nn.LeakyReLU(");
    cop_torch_real(out, layer->spec.slope);
    cop_torch_print(out, ")");
}

const cop_layer_ops cop_layer_leaky_relu = {
    .kind = "leaky_relu",
    .shape = leaky_relu_shape,
    .forward = leaky_relu_forward,
    .backward = leaky_relu_backward,
    .map = leaky_relu_map,
    .flop = cop_activation_flop,
    .graph = leaky_relu_graph,
    .torch = leaky_relu_torch,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
    .reads = COP_READS_OUTPUT_SIGN,
    .thin = COP_THIN_EACH_ZERO,
};
