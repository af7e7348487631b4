/* relu: y = max(x, 0). The kernel compares and selects such that NaN stays NaN and -0 becomes +0.
 * Backward: dx = dy where y > 0, else +0. */
#include "common/nn/layers/kinds.h"

static cop_err relu_shape(cop_layer *layer, cop_error *error) {
    (void)error;
    layer->out = layer->in;
    return COP_OK;
}

static size_t values(const cop_layer *layer, const cop_layer_context *c) {
    return (size_t)cop_shape_size(&layer->in) * (size_t)c->ld;
}

static void relu_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                         float *y) {
    c->kernels->relu(x, y, values(layer, c));
}

static void relu_backward(const cop_layer *layer, const cop_layer_context *c,
                          const cop_layer_tensors *t) {
    COP_ASSERT(t->y && t->dy);
    if (t->dx) c->kernels->relu_backward(t->y, t->dy, t->dx, values(layer, c));
}

static void relu_map(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                     size_t count) {
    (void)layer;
    kernels->relu(x, y, count);
}

static double relu_flop(const cop_layer *layer) {
    return (double)cop_shape_size(&layer->in);
}

static cop_value relu_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    return COP_NODE(g, "Relu", x);
}

static void relu_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.ReLU()");
}

const cop_layer_ops cop_layer_relu = {
    .kind = "relu",
    .shape = relu_shape,
    .forward = relu_forward,
    .backward = relu_backward,
    .map = relu_map,
    .flop = relu_flop,
    .graph = relu_graph,
    .torch = relu_torch,
    .in_place = true,
    .keeps = COP_KEEPS_SIGN,
    .reads = COP_READS_OUTPUT_SIGN,
    .thin = COP_THIN_EACH_ZERO,
};
