/* Shapes and exports of pooling layers. See pool.h. */
#include "common/nn/layers/pool.h"

#include "common/nn/graph.h"
#include "common/nn/torch.h"

static int32_t stride_of(const cop_layer_spec *spec) {
    return spec->stride == 0 ? spec->kernel : spec->stride;
}

cop_err cop_pool_shape(cop_layer *layer, int kernel_max, cop_error *error) {
    const cop_layer_spec *spec = &layer->spec;
    const int32_t *in = layer->in.dims;
    char shape[64];
    cop_shape_format(&layer->in, shape);
    if (layer->in.rank != 3)
        return cop_fail(error, COP_ERR_INPUT,
                        "its input is %s, expected an image (channels x height x width): "
                        "remove any flatten or linear before it, and use data with images",
                        shape);
    int32_t largest = in[1] < in[2] ? in[1] : in[2];
    if (largest > kernel_max) largest = kernel_max;
    if (spec->kernel < 1 || spec->kernel > largest)
        return cop_fail(error, COP_ERR_INPUT, "kernel is %d, expected 1 to %d: its input is %s",
                        (int)spec->kernel, (int)largest, shape);
    if (spec->stride < 0)
        return cop_fail(error, COP_ERR_INPUT, "stride is %d, expected at least 1 (or none: kernel)",
                        (int)spec->stride);
    const int32_t stride = stride_of(spec);
    layer->out = (cop_shape){
        .rank = 3,
        .dims = {in[0], (in[1] - spec->kernel) / stride + 1, (in[2] - spec->kernel) / stride + 1}};
    return COP_OK;
}

cop_pool cop_pool_of(const cop_layer *layer, int ld) {
    COP_ASSERT(layer->in.rank == 3 && layer->out.rank == 3);
    return (cop_pool){
        .planes = layer->in.dims[0],
        .height = layer->in.dims[1],
        .width = layer->in.dims[2],
        .out_height = layer->out.dims[1],
        .out_width = layer->out.dims[2],
        .kernel = layer->spec.kernel,
        .stride = stride_of(&layer->spec),
        .ld = ld,
    };
}

cop_value cop_pool_graph(const cop_layer *layer, cop_graph *g, cop_value x, const char *op) {
    const int64_t kernel[] = {layer->spec.kernel, layer->spec.kernel};
    const int64_t strides[] = {stride_of(&layer->spec), stride_of(&layer->spec)};
    const cop_value y = COP_NODE(g, op, x);
    cop_graph_ints(g, "kernel_shape", 2, kernel);
    cop_graph_ints(g, "strides", 2, strides);
    return y;
}

void cop_pool_torch(const cop_layer *layer, cop_torch *out, const char *module) {
    cop_torch_print(out, "nn.%s(%d, stride=%d)", module, (int)layer->spec.kernel,
                    (int)stride_of(&layer->spec));
}
