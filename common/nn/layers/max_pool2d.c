/* max_pool2d: for each channel, the largest value of each window of kernel x kernel pixels, as in
 * PyTorch's nn.MaxPool2d. The first of equal values wins. In train mode the layer stores the index
 * within the window of each winner, two bytes per output. Backward gives each pixel the sum of dy
 * over the windows that the pixel won. */
#include "common/nn/layers/kinds.h"
#include "common/nn/layers/pool.h"

enum { KERNEL_MAX = 256 /* largest kernel: an index within its window fits into 16 bits */ };

static cop_err max_pool2d_shape(cop_layer *layer, cop_error *error) {
    return cop_pool_shape(layer, KERNEL_MAX, error);
}

static int64_t max_pool2d_mask_words(const cop_layer *layer, int ld) {
    return cop_shape_size(&layer->out) * ld;
}

static void max_pool2d_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                               float *y) {
    const cop_pool pool = cop_pool_of(layer, c->ld);
    c->kernels->max_pool(&pool, x, y, c->mode == COP_MODE_TRAIN ? cop_layer_masks(layer, c) : NULL);
}

static void max_pool2d_backward(const cop_layer *layer, const cop_layer_context *c,
                                const cop_layer_tensors *t) {
    const cop_pool pool = cop_pool_of(layer, c->ld);
    if (t->dx) c->kernels->max_pool_backward(&pool, t->dy, cop_layer_masks(layer, c), t->dx);
}

/* Counts the comparisons: kernel * kernel - 1 for each window. */
static double max_pool2d_flop(const cop_layer *layer) {
    const double window = (double)layer->spec.kernel * layer->spec.kernel;
    return (double)cop_shape_size(&layer->out) * (window - 1);
}

static cop_value max_pool2d_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    return cop_pool_graph(layer, g, x, "MaxPool");
}

static void max_pool2d_torch(const cop_layer *layer, cop_torch *out) {
    cop_pool_torch(layer, out, "MaxPool2d");
}

const cop_layer_ops cop_layer_max_pool2d = {
    .kind = "max_pool2d",
    .shape = max_pool2d_shape,
    .mask_words = max_pool2d_mask_words,
    .forward = max_pool2d_forward,
    .backward = max_pool2d_backward,
    .flop = max_pool2d_flop,
    .graph = max_pool2d_graph,
    .torch = max_pool2d_torch,
    .wants_image = true,
    .thin = COP_THIN_EACH_ZERO,
};
