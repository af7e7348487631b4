/* flatten: an image of shape {channels, height, width} becomes flat, {channels * height * width}.
 * Feature-major activations of an image already are in the order of the flat ones, so the values do
 * not change. */
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/layers/kinds.h"

static cop_err flatten_shape(cop_layer *layer, cop_error *error) {
    const int64_t size = cop_shape_size(&layer->in);
    if (size > (int64_t)COP_UNITS_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "it has %lld outputs: the limit is %d",
                        (long long)size, (int)COP_UNITS_MAX);
    layer->out = (cop_shape){.rank = 1, .dims = {(int32_t)size}};
    return COP_OK;
}

static void copy(const cop_layer *layer, const cop_layer_context *c, const float *from, float *to) {
    if (from != to) memcpy(to, from, (size_t)layer->out.dims[0] * (size_t)c->ld * sizeof *to);
}

static void flatten_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    copy(layer, c, x, y);
}

static void flatten_backward(const cop_layer *layer, const cop_layer_context *c,
                             const cop_layer_tensors *t) {
    if (t->dx) copy(layer, c, t->dy, t->dx);
}

static double flatten_flop(const cop_layer *layer) {
    (void)layer;
    return 0;
}

static cop_value flatten_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    const cop_value y = COP_NODE(g, "Flatten", x);
    cop_graph_int(g, "axis", 1);
    return y;
}

static void flatten_torch(const cop_layer *layer, cop_torch *out) {
    (void)layer;
    cop_torch_print(out, "nn.Flatten()");
}

const cop_layer_ops cop_layer_flatten = {
    .kind = "flatten",
    .shape = flatten_shape,
    .forward = flatten_forward,
    .backward = flatten_backward,
    .flop = flatten_flop,
    .graph = flatten_graph,
    .torch = flatten_torch,
    .in_place = true,
    .keeps = COP_KEEPS_VALUES,
    .thin = COP_THIN_FLATTEN,
};
