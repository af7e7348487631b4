/* selu (Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", NIPS 2017),
 * with l = 1.0507009873554805 and a = 1.6732632423543772:
 *
 *     forward     y = l x where x > 0, else l a (exp(x) - 1)
 *     backward    dx = l dy where y > 0, else (y + l a) dy */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

static void selu_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                         float *y) {
    cop_activation_forward(COP_ACTIVATION_SELU, layer, c, x, y);
}

static void selu_backward(const cop_layer *layer, const cop_layer_context *c,
                          const cop_layer_tensors *t) {
    cop_activation_backward(COP_ACTIVATION_SELU, layer, c, t);
}

static void selu_map(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                     size_t count) {
    kernels->activate(COP_ACTIVATION_SELU, (float)layer->spec.slope, x, y, count);
}

static cop_value selu_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    return COP_NODE(g, "Selu", x);
}

static void selu_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.SELU()");
}

const cop_layer_ops cop_layer_selu = {
    .kind = "selu",
    .shape = cop_activation_shape,
    .forward = selu_forward,
    .backward = selu_backward,
    .map = selu_map,
    .flop = cop_activation_flop,
    .graph = selu_graph,
    .torch = selu_torch,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
    .reads = COP_READS_OUTPUT,
    .thin = COP_THIN_EACH_ZERO,
};
