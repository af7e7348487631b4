/* linear: y = W x + b.
 *
 * W is (units, in), row-major, as in PyTorch's nn.Linear. Activations are feature-major, so X and Y
 * have one column per sample:
 *
 *     forward     Y = W X, plus b in each column
 *     backward    dX = W^T dY, dW = dY X^T, db = the row sums of dY
 *
 * For dW and db, the samples of each shard are summed first. Then D5's tree adds the sums of the
 * shards. */
#include <math.h>

#include "common/base/limits.h"
#include "common/nn/layers/init.h"
#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

static cop_err linear_shape(cop_layer *layer, cop_error *error) {
    const cop_layer_spec *spec = &layer->spec;
    if (layer->in.rank != 1) {
        char shape[64];
        return cop_fail(error, COP_ERR_INPUT,
                        "its input is %s, expected a flat one: put flatten: {} before it",
                        cop_shape_format(&layer->in, shape));
    }
    if (spec->units < 1 || spec->units > (int32_t)COP_UNITS_MAX)
        return cop_fail(error, COP_ERR_INPUT, "units is %d, expected 1 to %d", (int)spec->units,
                        (int)COP_UNITS_MAX);
    if (!(spec->max_norm >= 0) || isinf(spec->max_norm))
        return cop_fail(error, COP_ERR_INPUT,
                        "max_norm is %g, expected a number above 0 (or none, for no limit)",
                        spec->max_norm);
    if (spec->init != COP_INIT_HE && spec->init != COP_INIT_GLOROT && spec->init != COP_INIT_TORCH)
        return cop_fail(error, COP_ERR_INPUT, "init is unknown, expected he, glorot or torch");
    layer->out = (cop_shape){.rank = 1, .dims = {spec->units}};
    return COP_OK;
}

static int linear_parameters(const cop_layer *layer, cop_parameter out[4]) {
    const int32_t units = layer->spec.units, in = layer->in.dims[0];
    out[0] = (cop_parameter){
        .name = "weight",
        .rank = 2,
        .dims = {units, in},
        .rows = units,
        .cols = in,
        .max_norm = layer->spec.max_norm,
    };
    if (!layer->spec.bias) return 1;
    out[1] = (cop_parameter){.name = "bias", .rank = 1, .dims = {units}, .rows = 1, .cols = units};
    return 2;
}

static void linear_init(const cop_layer *layer, uint64_t seed, const cop_parameter *parameters,
                        float *flat) {
    const int64_t in = layer->in.dims[0], units = layer->spec.units;
    const cop_init_stream weight = cop_init_stream_of(seed, layer, 0);
    cop_init_weights(&weight, in, units, flat + parameters[0].offset, units * in);
    if (!layer->spec.bias) return;
    const cop_init_stream bias = cop_init_stream_of(seed, layer, 1);
    cop_init_bias(&bias, in, flat + parameters[1].offset, units);
}

/* The layer's own parameters. */
static const cop_parameter *own(const cop_layer *layer, const cop_layer_context *c) {
    return c->parameters + layer->parameter_first;
}

static void linear_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                           float *y) {
    const cop_parameter *parameters = own(layer, c);
    const cop_gemm product = {
        .m = layer->spec.units,
        .n = c->ld,
        .k = layer->in.dims[0],
        .a = c->weights + parameters[0].offset, /* (units, in) */
        .a_row = layer->in.dims[0],
        .a_col = 1,
        .b = x, /* (in, ld) */
        .b_row = c->ld,
        .b_col = 1,
        .c = y, /* (units, ld) */
        .ldc = c->ld,
        .bias = layer->spec.bias ? c->weights + parameters[1].offset : NULL,
        .blocks = layer->blocks,
        .block_count = layer->block_count,
        .needed = cop_masks_needed(layer, c),
        .needed_rows = 1,
    };
    cop_layer_product(c, &product);
}

static void linear_backward(const cop_layer *layer, const cop_layer_context *c,
                            const cop_layer_tensors *t) {
    COP_ASSERT(c->gradients && t->x && t->dy);
    const cop_parameter *parameters = own(layer, c);
    const int32_t in = layer->in.dims[0], units = layer->spec.units;
    const cop_gemm weight = {
        .m = units,
        .n = in,
        .k = c->columns, /* not ld, because padding columns are not samples */
        .a = t->dy,      /* (units, columns) */
        .a_row = c->ld,
        .a_col = 1,
        .b = t->x, /* (columns, in): x transposed */
        .b_row = 1,
        .b_col = c->ld,
        .c = c->gradients + parameters[0].offset,
        .ldc = in,
        .segments = c->segments,
        .segment_count = c->segment_count,
        .round_nodes = c->round_nodes,
    };
    cop_layer_product(c, &weight);
    if (layer->spec.bias) cop_layer_row_sums(c, t->dy, units, c->gradients + parameters[1].offset);
    if (!t->dx) return;
    cop_layer_phase(layer, c, COP_PHASE_BACKWARD);
    const cop_gemm down = {
        .m = in,
        .n = c->ld,
        .k = units,
        .a = c->weights + parameters[0].offset, /* (in, units): W transposed */
        .a_row = 1,
        .a_col = in,
        .b = t->dy, /* (units, ld) */
        .b_row = c->ld,
        .b_col = 1,
        .c = t->dx, /* (in, ld) */
        .ldc = c->ld,
        .needed = t->dx_needed,
        .needed_rows = 1,
    };
    cop_layer_product(c, &down);
}

static double linear_flop(const cop_layer *layer) {
    const double units = layer->spec.units;
    return 2 * units * layer->in.dims[0] + (layer->spec.bias ? units : 0);
}

static cop_value linear_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    (void)layer;
    const cop_value weight = cop_graph_parameter(g, 0), bias = cop_graph_parameter(g, 1);
    const cop_value y = COP_NODE(g, "Gemm", x, weight, bias);
    cop_graph_int(g, "transB", 1);
    return y;
}

static void linear_torch(const cop_layer *layer, cop_torch *out) {
    cop_torch_print(out, "nn.Linear(%d, %d", (int)layer->in.dims[0], (int)layer->spec.units);
    if (!layer->spec.bias) cop_torch_flag(out, "bias", false);
    cop_torch_print(out, ")");
}

const cop_layer_ops cop_layer_linear = {
    .kind = "linear",
    .shape = linear_shape,
    .parameters = linear_parameters,
    .init = linear_init,
    .forward = linear_forward,
    .backward = linear_backward,
    .flop = linear_flop,
    .graph = linear_graph,
    .torch = linear_torch,
    .reads = COP_READS_INPUT,
    .wants_flat = true,
    .thin = COP_THIN_WEIGHTS,
};
