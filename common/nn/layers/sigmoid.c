/* sigmoid: y = 1 / (1 + exp(-x)). Backward: dx = dy y (1 - y). */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

static void sigmoid_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    cop_activation_forward(COP_ACTIVATION_SIGMOID, layer, c, x, y);
}

static void sigmoid_backward(const cop_layer *layer, const cop_layer_context *c,
                             const cop_layer_tensors *t) {
    cop_activation_backward(COP_ACTIVATION_SIGMOID, layer, c, t);
}

static void sigmoid_map(const cop_layer *layer, const cop_kernels *kernels, const float *x,
                        float *y, size_t count) {
    kernels->activate(COP_ACTIVATION_SIGMOID, (float)layer->spec.slope, x, y, count);
}

static cop_value sigmoid_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    return COP_NODE(g, "Sigmoid", x);
}

static void sigmoid_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.Sigmoid()");
}

const cop_layer_ops cop_layer_sigmoid = {
    .kind = "sigmoid",
    .shape = cop_activation_shape,
    .forward = sigmoid_forward,
    .backward = sigmoid_backward,
    .map = sigmoid_map,
    .flop = cop_activation_flop,
    .graph = sigmoid_graph,
    .torch = sigmoid_torch,
    .in_place = true,
    .keeps = COP_KEEPS_NOTHING,
    .reads = COP_READS_OUTPUT,
    .thin = COP_THIN_EACH,
    .squashes = true,
};
