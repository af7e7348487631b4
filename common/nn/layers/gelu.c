/* gelu: y = x P(x), P the distribution function of the standard normal (Hendrycks, Gimpel,
 * "Gaussian error linear units", 2016; by the error function, as PyTorch's nn.GELU() unless told
 * otherwise); dx = dy (P(x) + x P'(x)). Two inputs may give one output, so backward reads the
 * input. */
#include "common/nn/layers/activation.h"
#include "common/nn/layers/kinds.h"

static void gelu_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                         float *y) {
    cop_activation_forward(COP_ACTIVATION_GELU, layer, c, x, y);
}

static void gelu_backward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                          const float *y, const float *dy, float *dx) {
    (void)y;
    cop_activation_backward(COP_ACTIVATION_GELU, layer, c, x, dy, dx);
}

static void gelu_map(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                     size_t count) {
    kernels->activate(COP_ACTIVATION_GELU, (float)layer->spec.slope, x, y, count);
}

const cop_layer_ops cop_layer_gelu = {
    .kind = "gelu",
    .shape = cop_activation_shape,
    .forward = gelu_forward,
    .backward = gelu_backward,
    .map = gelu_map,
    .flop = cop_activation_flop,
    .reads = COP_READS_INPUT,
};
