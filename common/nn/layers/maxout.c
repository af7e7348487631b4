/* maxout: y_u = max over pieces p of (w_up x + b_up) (Goodfellow, Warde-Farley, Mirza, Courville,
 * Bengio, "Maxout networks", ICML 2013, section 3).
 *
 * W is (units * pieces, in), and row unit * pieces + piece contains w_up. If pieces are equal, the
 * one with the lowest index wins. In train mode the layer stores the index of each winning piece,
 * one byte per output.
 *
 * Backward makes dZ, the gradient of all pieces, with dY in the rows of the winners and 0 in all
 * other rows. Then it continues as linear does, with dZ in place of dY:
 *
 *     dX = W^T dZ, dW = dZ X^T, db = the row sums of dZ
 *
 * The sums of dX run over all rows of W, not only over those of winners. So D4 cuts them into
 * blocks of 256 rows of W. */
#include <math.h>

#include "common/base/limits.h"
#include "common/nn/layers/init.h"
#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

enum { PIECES_MAX = 256, BLOCK_FLOATS = 1 << 16 /* values per product in forward */ };

static int32_t rows_of(const cop_layer *layer) {
    return layer->spec.units * layer->spec.pieces;
}

static cop_err maxout_shape(cop_layer *layer, cop_error *error) {
    const cop_layer_spec *spec = &layer->spec;
    if (layer->in.rank != 1) {
        char shape[64];
        return cop_fail(error, COP_ERR_INPUT,
                        "its input is %s, expected a flat one: put flatten: {} before it",
                        cop_shape_format(&layer->in, shape));
    }
    if (spec->pieces < 1 || spec->pieces > PIECES_MAX)
        return cop_fail(error, COP_ERR_INPUT, "pieces is %d, expected 1 to %d", (int)spec->pieces,
                        PIECES_MAX);
    if (spec->units < 1 || spec->units > (int32_t)COP_UNITS_MAX / spec->pieces)
        return cop_fail(error, COP_ERR_INPUT, "units is %d, expected 1 to %d with %d pieces",
                        (int)spec->units, (int)COP_UNITS_MAX / spec->pieces, (int)spec->pieces);
    if (!(spec->max_norm >= 0) || isinf(spec->max_norm))
        return cop_fail(error, COP_ERR_INPUT,
                        "max_norm is %g, expected a number above 0 (or none, for no limit)",
                        spec->max_norm);
    if (spec->init != COP_INIT_HE && spec->init != COP_INIT_GLOROT && spec->init != COP_INIT_TORCH)
        return cop_fail(error, COP_ERR_INPUT, "init is unknown, expected he, glorot or torch");
    layer->out = (cop_shape){.rank = 1, .dims = {spec->units}};
    return COP_OK;
}

static int maxout_parameters(const cop_layer *layer, cop_parameter out[4]) {
    const int32_t rows = rows_of(layer), in = layer->in.dims[0];
    out[0] = (cop_parameter){
        .name = "weight",
        .rank = 2,
        .dims = {rows, in},
        .rows = rows,
        .cols = in,
        .max_norm = layer->spec.max_norm,
    };
    if (!layer->spec.bias) return 1;
    out[1] = (cop_parameter){.name = "bias", .rank = 1, .dims = {rows}, .rows = 1, .cols = rows};
    return 2;
}

static void maxout_init(const cop_layer *layer, uint64_t seed, const cop_parameter *parameters,
                        float *flat) {
    const int64_t in = layer->in.dims[0], rows = rows_of(layer);
    const cop_init_stream weight = cop_init_stream_of(seed, layer, 0);
    cop_init_weights(&weight, in, rows, flat + parameters[0].offset, rows * in);
    if (!layer->spec.bias) return;
    const cop_init_stream bias = cop_init_stream_of(seed, layer, 1);
    cop_init_bias(&bias, in, flat + parameters[1].offset, rows);
}

/* The layer stores one byte per output: the index of the winning piece. */
static int64_t maxout_mask_words(const cop_layer *layer, int ld) {
    return (int64_t)layer->spec.units * ld / 2;
}

static uint8_t *winners_of(const cop_layer *layer, const cop_layer_context *c) {
    return (uint8_t *)cop_layer_masks(layer, c);
}

/* Backward needs the gradients of all pieces at once. Forward needs no more than that. */
static size_t maxout_scratch(const cop_layer *layer, int ld) {
    return (size_t)rows_of(layer) * (size_t)ld * sizeof(float);
}

static const cop_parameter *own(const cop_layer *layer, const cop_layer_context *c) {
    return c->parameters + layer->parameter_first;
}

/* Computes the pieces of some units at a time, so that they are still in the cache when they are
 * compared. */
static void maxout_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                           float *y) {
    const cop_parameter *parameters = own(layer, c);
    const int units = layer->spec.units, pieces = layer->spec.pieces, in = layer->in.dims[0];
    const int fit = BLOCK_FLOATS / (pieces * c->ld), step = fit > 0 ? fit : 1;
    const uint16_t *needed = cop_masks_needed(layer, c);
    uint8_t *winners = c->mode == COP_MODE_TRAIN ? winners_of(layer, c) : NULL;
    for (int u = 0; u < units; u += step) {
        const int count = units - u < step ? units - u : step;
        const ptrdiff_t row = (ptrdiff_t)u * pieces, at = (ptrdiff_t)u * c->ld;
        const cop_gemm product = {
            .m = count * pieces,
            .n = c->ld,
            .k = in,
            .a = c->weights + parameters[0].offset + row * in, /* (count * pieces, in) */
            .a_row = in,
            .a_col = 1,
            .b = x, /* (in, ld) */
            .b_row = c->ld,
            .b_col = 1,
            .c = c->scratch, /* (count * pieces, ld) */
            .ldc = c->ld,
            .bias = layer->spec.bias ? c->weights + parameters[1].offset + row : NULL,
            .blocks = layer->blocks,
            .block_count = layer->block_count,
            .needed = needed ? needed + (ptrdiff_t)u * (c->ld / COP_COLUMNS_PAD) : NULL,
            .needed_rows = pieces,
        };
        cop_layer_product(c, &product);
        const cop_maxout shape = {count, pieces, c->ld};
        c->kernels->maxout(&shape, c->scratch, y + at, winners ? winners + at : NULL);
    }
}

static void maxout_backward(const cop_layer *layer, const cop_layer_context *c,
                            const cop_layer_tensors *t) {
    COP_ASSERT(c->gradients && t->x && t->dy);
    const cop_parameter *parameters = own(layer, c);
    const int32_t in = layer->in.dims[0], rows = rows_of(layer);
    float *dz = c->scratch; /* (rows, ld) */
    const cop_maxout shape = {layer->spec.units, layer->spec.pieces, c->ld};
    c->kernels->maxout_scatter(&shape, t->dy, winners_of(layer, c), dz);
    const cop_gemm weight = {
        .m = rows,
        .n = in,
        .k = c->columns,
        .a = dz, /* (rows, columns) */
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
    if (layer->spec.bias) cop_layer_row_sums(c, dz, rows, c->gradients + parameters[1].offset);
    if (!t->dx) return;
    cop_layer_phase(layer, c, COP_PHASE_BACKWARD);
    const cop_gemm down = {
        .m = in,
        .n = c->ld,
        .k = rows,
        .a = c->weights + parameters[0].offset, /* (in, rows): W transposed */
        .a_row = 1,
        .a_col = in,
        .b = dz, /* (rows, ld) */
        .b_row = c->ld,
        .b_col = 1,
        .c = t->dx, /* (in, ld) */
        .ldc = c->ld,
        .needed = t->dx_needed,
        .needed_rows = 1,
    };
    cop_layer_product(c, &down);
}

static double maxout_flop(const cop_layer *layer) {
    const double rows = rows_of(layer);
    return 2 * rows * layer->in.dims[0] + (layer->spec.bias ? rows : 0) + rows - layer->spec.units;
}

static cop_value maxout_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const int64_t split[] = {-1, layer->spec.units, layer->spec.pieces}, pieces = 2;
    const cop_value weight = cop_graph_parameter(g, 0), bias = cop_graph_parameter(g, 1);
    const cop_value z = COP_NODE(g, "Gemm", x, weight, bias);
    cop_graph_int(g, "transB", 1);
    const cop_value all = COP_NODE(g, "Reshape", z, cop_graph_vector(g, 3, split));
    const cop_value y = COP_NODE(g, "ReduceMax", all);
    cop_graph_ints(g, "axes", 1, &pieces);
    cop_graph_int(g, "keepdims", 0);
    return y;
}

static void maxout_torch(const cop_layer *layer, cop_torch *out) {
    cop_torch_class(out,
                    "class Maxout(nn.Linear):\n"
                    "    \"\"\"Each unit is the largest of `pieces` linear functions; row = unit * "
                    "pieces + piece (Goodfellow et al. 2013).\"\"\"\n\n"
                    "    def __init__(self, inputs, units, pieces, bias=True):\n"
                    "        super().__init__(inputs, units * pieces, bias)\n"
                    "        self.pieces = pieces\n\n"
                    "    def forward(self, x):\n"
                    "        return super().forward(x).unflatten(1, (-1, self.pieces)).amax(2)\n");
    cop_torch_print(out, "Maxout(%d, %d, %d", (int)layer->in.dims[0], (int)layer->spec.units,
                    (int)layer->spec.pieces);
    if (!layer->spec.bias) cop_torch_flag(out, "bias", false);
    cop_torch_print(out, ")");
}

const cop_layer_ops cop_layer_maxout = {
    .kind = "maxout",
    .shape = maxout_shape,
    .parameters = maxout_parameters,
    .init = maxout_init,
    .mask_words = maxout_mask_words,
    .scratch = maxout_scratch,
    .forward = maxout_forward,
    .backward = maxout_backward,
    .flop = maxout_flop,
    .graph = maxout_graph,
    .torch = maxout_torch,
    .reads = COP_READS_INPUT,
    .wants_flat = true,
    .thin = COP_THIN_WEIGHTS,
};
