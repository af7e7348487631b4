/* avg_pool2d: for each channel, the mean of each window of kernel x kernel pixels, as in PyTorch's
 * nn.AvgPool2d. */
#include "common/nn/layers/kinds.h"
#include "common/nn/layers/pool.h"

enum { KERNEL_MAX = 1024 };

static cop_err avg_pool2d_shape(cop_layer *layer, cop_error *error) {
    return cop_pool_shape(layer, KERNEL_MAX, error);
}

static void avg_pool2d_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                               float *y) {
    const cop_pool pool = cop_pool_of(layer, c->ld);
    c->kernels->avg_pool(&pool, x, y);
}

static void avg_pool2d_backward(const cop_layer *layer, const cop_layer_context *c,
                                const cop_layer_tensors *t) {
    const cop_pool pool = cop_pool_of(layer, c->ld);
    if (t->dx) c->kernels->avg_pool_backward(&pool, t->dy, t->dx);
}

/* Counts kernel * kernel additions and one division for each window. */
static double avg_pool2d_flop(const cop_layer *layer) {
    const double window = (double)layer->spec.kernel * layer->spec.kernel;
    return (double)cop_shape_size(&layer->out) * (window + 1);
}

static cop_value avg_pool2d_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    return cop_pool_graph(layer, g, x, "AveragePool");
}

static void avg_pool2d_torch(const cop_layer *layer, cop_torch *out) {
    cop_pool_torch(layer, out, "AvgPool2d");
}

const cop_layer_ops cop_layer_avg_pool2d = {
    .kind = "avg_pool2d",
    .shape = avg_pool2d_shape,
    .forward = avg_pool2d_forward,
    .backward = avg_pool2d_backward,
    .flop = avg_pool2d_flop,
    .graph = avg_pool2d_graph,
    .torch = avg_pool2d_torch,
    .wants_image = true,
    .thin = COP_THIN_EACH_ZERO,
};
