/* tanh: y = tanh(x). Backward: dx = dy (1 - y^2). */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

static void tanh_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                         float *y) {
    cop_activation_forward(COP_ACTIVATION_TANH, layer, c, x, y);
}

static void tanh_backward(const cop_layer *layer, const cop_layer_context *c,
                          const cop_layer_tensors *t) {
    cop_activation_backward(COP_ACTIVATION_TANH, layer, c, t);
}

static void tanh_map(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                     size_t count) {
    kernels->activate(COP_ACTIVATION_TANH, (float)layer->spec.slope, x, y, count);
}

static cop_value tanh_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    return COP_NODE(g, "Tanh", x);
}

static void tanh_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.Tanh()");
}

const cop_layer_ops cop_layer_tanh = {
    .kind = "tanh",
    .shape = cop_activation_shape,
    .forward = tanh_forward,
    .backward = tanh_backward,
    .map = tanh_map,
    .flop = cop_activation_flop,
    .graph = tanh_graph,
    .torch = tanh_torch,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
    .reads = COP_READS_OUTPUT,
    .thin = COP_THIN_EACH_ZERO,
};
