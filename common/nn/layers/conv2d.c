/* conv2d: a cross-correlation, as in PyTorch's nn.Conv2d. The sum is over all channels c and all
 * pixels (u, v) of filter f, and x is 0 outside the image:
 *
 *     y[f][i][j] = b[f] + sum of w[f][c][u][v] x[c][stride i + u - padding][stride j + v - padding]
 *
 * W is (filters, channels, kernel, kernel). The kernel `conv` reads the patches directly from a
 * padded copy of the image. dX is also computed by such products, of the rotated W and patches of
 * dy. Pixels of x meet the same filter pixels if their rows, and also their columns, differ by
 * multiples of the stride. There are stride^2 sets of such pixels, and each set is one product.
 * Convolution always uses the project's own kernels, even with numerics: openblas. */
#include <math.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/nn/layers/init.h"
#include "common/nn/layers/kinds.h"

/* The largest number of values that a sample's padded input, or its padded output gradient, may
 * have. */
#define PADDED_MAX ((int64_t)64 * (int64_t)COP_UNITS_MAX)

/* The size of an image with a border of zeros. */
typedef struct padded {
    int planes, height, width;   /* the size without the border */
    int before;                  /* zero rows above the image; also zero columns to its left */
    int full_height, full_width; /* the size with the border */
} padded;

static padded padded_input(const cop_layer *layer) {
    const int32_t *in = layer->in.dims;
    const int around = layer->spec.padding;
    return (padded){in[0], in[1], in[2], around, in[1] + 2 * around, in[2] + 2 * around};
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

/* dy with a border. It is so wide that no product for dX reads outside it: for every pixel of x and
 * every filter pixel that meets it, the pixel of dy that the two need is in the image or its
 * border. */
static padded padded_gradient(const cop_layer *layer) {
    const cop_layer_spec *spec = &layer->spec;
    const int32_t *in = layer->in.dims, *out = layer->out.dims;
    const int before = (spec->kernel - 1) / spec->stride;
    const int down = larger((in[1] - 1 + spec->padding) / spec->stride, out[1] - 1);
    const int right = larger((in[2] - 1 + spec->padding) / spec->stride, out[2] - 1);
    return (padded){out[0], out[1], out[2], before, before + down + 1, before + right + 1};
}

static int64_t padded_size(const padded *p) {
    return (int64_t)p->planes * p->full_height * p->full_width;
}

static bool is_padded(const padded *p) {
    return p->full_height != p->height || p->full_width != p->width;
}

static int32_t patch_size(const cop_layer *layer) {
    return layer->in.dims[0] * layer->spec.kernel * layer->spec.kernel;
}

static cop_err check_spec(const cop_layer_spec *spec, cop_error *error) {
    if (spec->units < 1 || spec->units > (int32_t)COP_UNITS_MAX)
        return cop_fail(error, COP_ERR_INPUT, "channels is %d, expected 1 to %d", (int)spec->units,
                        (int)COP_UNITS_MAX);
    if (spec->kernel < 1 || spec->stride < 1 || spec->padding < 0 || spec->padding > 1024)
        return cop_fail(error, COP_ERR_INPUT,
                        "kernel is %d, stride %d, padding %d, expected at least 1, at least 1 and "
                        "0 to 1024",
                        (int)spec->kernel, (int)spec->stride, (int)spec->padding);
    if (!(spec->max_norm >= 0) || isinf(spec->max_norm))
        return cop_fail(error, COP_ERR_INPUT,
                        "max_norm is %g, expected a number above 0 (or none, for no limit)",
                        spec->max_norm);
    if (spec->init != COP_INIT_HE && spec->init != COP_INIT_GLOROT && spec->init != COP_INIT_TORCH)
        return cop_fail(error, COP_ERR_INPUT, "init is unknown, expected he, glorot or torch");
    return COP_OK;
}

static cop_err conv2d_shape(cop_layer *layer, cop_error *error) {
    const cop_layer_spec *spec = &layer->spec;
    char shape[64];
    cop_shape_format(&layer->in, shape);
    if (layer->in.rank != 3)
        return cop_fail(error, COP_ERR_INPUT,
                        "its input is %s, expected an image (channels x height x width): "
                        "remove any flatten or linear before it, and use data with images",
                        shape);
    COP_TRY(check_spec(spec, error));
    const padded in = padded_input(layer);
    const int shorter = in.full_height < in.full_width ? in.full_height : in.full_width;
    if (spec->kernel > shorter)
        return cop_fail(error, COP_ERR_INPUT,
                        "kernel is %d, expected 1 to %d: its input is %s, padding %d", spec->kernel,
                        shorter, shape, spec->padding);
    layer->out =
        (cop_shape){.rank = 3,
                    .dims = {spec->units, (in.full_height - spec->kernel) / spec->stride + 1,
                             (in.full_width - spec->kernel) / spec->stride + 1}};
    const int64_t size = cop_shape_size(&layer->out);
    if (size > (int64_t)COP_UNITS_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "its output has %s values: the limit is %d",
                        cop_shape_format(&layer->out, shape), (int)COP_UNITS_MAX);
    const padded out = padded_gradient(layer);
    if (padded_size(&in) > PADDED_MAX || padded_size(&out) > PADDED_MAX)
        return cop_fail(
            error, COP_ERR_LIMIT,
            "kernel %d and padding %d make the images too large: the limit is %lld values",
            spec->kernel, spec->padding, (long long)PADDED_MAX);
    return COP_OK;
}

static int conv2d_parameters(const cop_layer *layer, cop_parameter out[4]) {
    const int32_t filters = layer->spec.units, kernel = layer->spec.kernel;
    out[0] = (cop_parameter){
        .name = "weight",
        .rank = 4,
        .dims = {filters, layer->in.dims[0], kernel, kernel},
        .rows = filters,
        .cols = patch_size(layer),
        .max_norm = layer->spec.max_norm,
    };
    if (!layer->spec.bias) return 1;
    out[1] =
        (cop_parameter){.name = "bias", .rank = 1, .dims = {filters}, .rows = 1, .cols = filters};
    return 2;
}

static void conv2d_init(const cop_layer *layer, uint64_t seed, const cop_parameter *parameters,
                        float *flat) {
    const int64_t in = patch_size(layer), filters = layer->spec.units;
    const int64_t out = filters * layer->spec.kernel * layer->spec.kernel;
    const cop_init_stream weight = cop_init_stream_of(seed, layer, 0);
    cop_init_weights(&weight, in, out, flat + parameters[0].offset, filters * in);
    if (!layer->spec.bias) return;
    const cop_init_stream bias = cop_init_stream_of(seed, layer, 1);
    cop_init_bias(&bias, in, flat + parameters[1].offset, filters);
}

/* The layer's scratch memory. */
typedef struct workspace {
    ptrdiff_t *rows;    /* the offsets of a sum's values in the image (cop_conv.b_rows) */
    ptrdiff_t *columns; /* the offsets of a sum's weights (cop_conv.a_columns) */
    float *image;       /* the padded image: x, or dy */
    float *sums;        /* the partial sums of dW */
    size_t bytes;       /* the size of all four */
} workspace;

static workspace workspace_in(const cop_layer *layer, int ld, void *scratch) {
    const padded in = padded_input(layer), out = padded_gradient(layer);
    const size_t kernel = (size_t)layer->spec.kernel, taps = kernel * kernel;
    const size_t patch = (size_t)patch_size(layer), rotated = (size_t)layer->spec.units * taps;
    const size_t table = (patch > rotated ? patch : rotated) * sizeof(ptrdiff_t);
    const int64_t values =
        padded_size(&in) > padded_size(&out) ? padded_size(&in) : padded_size(&out);
    char *base = scratch;
    size_t at[4] = {0}, sizes[4] = {table, table, (size_t)values * (size_t)ld * sizeof(float),
                                    COP_CONV_LEVELS * sizeof(float) *
                                        cop_conv_level(layer->spec.units, (int)patch)};
    size_t used = 0;
    for (int i = 0; i < 4; i++) {
        at[i] = used;
        used += cop_align_up(sizes[i], 64);
    }
    if (!base) return (workspace){.bytes = used};
    return (workspace){(void *)(base + at[0]), (void *)(base + at[1]), (void *)(base + at[2]),
                       (void *)(base + at[3]), used};
}

static size_t conv2d_scratch(const cop_layer *layer, int ld) {
    return workspace_in(layer, ld, NULL).bytes;
}

/* Copies x to `out` with a border of zeros and returns `out`. If there is no border, only returns
 * x. */
static const float *pad(const padded *p, int ld, const float *x, float *out) {
    if (!is_padded(p)) return x;
    const size_t row = (size_t)p->width * (size_t)ld, full = (size_t)p->full_width * (size_t)ld;
    const size_t before = (size_t)p->before * (size_t)ld, size = sizeof *out;
    float *to = out;
    for (int plane = 0; plane < p->planes; plane++)
        for (int y = 0; y < p->full_height; y++, to += full) {
            if (y < p->before || y >= p->before + p->height) {
                memset(to, 0, full * size);
                continue;
            }
            memset(to, 0, before * size);
            memcpy(to + before, x, row * size);
            memset(to + before + row, 0, (full - before - row) * size);
            x += row;
        }
    return out;
}

/* Writes, for each column of W, where the value that it multiplies is within a patch of x: an
 * offset in floats from the patch's first value. */
static void patch_rows(const cop_layer *layer, int ld, ptrdiff_t *rows) {
    const padded in = padded_input(layer);
    for (int c = 0; c < in.planes; c++)
        for (int u = 0; u < layer->spec.kernel; u++)
            for (int v = 0; v < layer->spec.kernel; v++)
                *rows++ = (((ptrdiff_t)c * in.full_height + u) * in.full_width + v) * ld;
}

/* The layer's own parameters. */
static const cop_parameter *own(const cop_layer *layer, const cop_layer_context *c) {
    return c->parameters + layer->parameter_first;
}

static void conv2d_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                           float *y) {
    const cop_parameter *parameters = own(layer, c);
    const padded in = padded_input(layer);
    const workspace s = workspace_in(layer, c->ld, c->scratch);
    const int32_t *out = layer->out.dims, patch = patch_size(layer);
    patch_rows(layer, c->ld, s.rows);
    for (int p = 0; p < patch; p++) s.columns[p] = p;
    const ptrdiff_t ld = c->ld, stride = layer->spec.stride;
    const cop_conv product = {
        .m = out[0],
        .k = patch,
        .ld = c->ld,
        .a = c->weights + parameters[0].offset,
        .a_row = patch,
        .a_columns = s.columns,
        .b = pad(&in, c->ld, x, s.image),
        .b_rows = s.rows,
        .height = out[1],
        .width = out[2],
        .b_down = stride * in.full_width * ld,
        .b_right = stride * ld,
        .c = y,
        .c_row = (ptrdiff_t)out[1] * out[2] * ld,
        .c_down = out[2] * ld,
        .c_right = ld,
        .bias = layer->spec.bias ? c->weights + parameters[1].offset : NULL,
        .blocks = layer->blocks,
        .block_count = layer->block_count,
    };
    c->kernels->conv(&product, c->workspace);
}

static void weight_gradient(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            const float *dy) {
    const cop_parameter *parameters = own(layer, c);
    const padded in = padded_input(layer);
    const workspace s = workspace_in(layer, c->ld, c->scratch);
    const int32_t *out = layer->out.dims;
    patch_rows(layer, c->ld, s.rows);
    const ptrdiff_t ld = c->ld, stride = layer->spec.stride;
    const cop_conv_gradient gradient = {
        .m = out[0],
        .k = patch_size(layer),
        .ld = c->ld,
        .b = pad(&in, c->ld, x, s.image),
        .b_rows = s.rows,
        .height = out[1],
        .width = out[2],
        .b_down = stride * in.full_width * ld,
        .b_right = stride * ld,
        .dy = dy,
        .dy_row = (ptrdiff_t)out[1] * out[2] * ld,
        .segments = c->segments,
        .segment_count = c->segment_count,
        .round_nodes = c->round_nodes,
        .sums = s.sums,
        .dw = c->gradients + parameters[0].offset,
        .db = layer->spec.bias ? c->gradients + parameters[1].offset : NULL,
    };
    c->kernels->conv_gradient(&gradient, c->workspace);
}

/* Fills both tables of `s` for the set of pixels (down + stride i, right + stride j) of x. Each
 * entry is one weight that such a pixel meets (s->columns) and the value of dy that this weight
 * multiplies (s->rows). Returns the number of entries.
 *
 * Row y = down + stride i of x meets filter row u if u = first + stride t, where first is the
 * remainder of (down + padding) / stride. The row of dy is then (y + padding - u) / stride, which
 * equals i + (down + padding - first) / stride - t. Columns are found in the same way. */
static int down_rows(const cop_layer *layer, int ld, int down, int right, const workspace *s) {
    const padded out = padded_gradient(layer);
    const int kernel = layer->spec.kernel, stride = layer->spec.stride;
    const int y = down + layer->spec.padding, x = right + layer->spec.padding;
    const ptrdiff_t filter = patch_size(layer);
    int count = 0;
    for (int f = 0; f < out.planes; f++)
        for (int u = y % stride; u < kernel; u += stride)
            for (int v = x % stride; v < kernel; v += stride) {
                const int row = out.before + y / stride - u / stride;
                const int column = out.before + x / stride - v / stride;
                COP_ASSERT(row >= 0 && column >= 0);
                s->rows[count] =
                    (((ptrdiff_t)f * out.full_height + row) * out.full_width + column) * ld;
                s->columns[count++] = f * filter + u * kernel + v;
            }
    return count;
}

static void input_gradient(const cop_layer *layer, const cop_layer_context *c, const float *dy,
                           float *dx) {
    const padded out = padded_gradient(layer);
    const workspace s = workspace_in(layer, c->ld, c->scratch);
    const int32_t *in = layer->in.dims, stride = layer->spec.stride;
    const ptrdiff_t ld = c->ld;
    cop_conv product = {
        .m = in[0],
        .ld = c->ld,
        .a = c->weights + own(layer, c)[0].offset,
        .a_row = (ptrdiff_t)layer->spec.kernel * layer->spec.kernel,
        .a_columns = s.columns,
        .b = pad(&out, c->ld, dy, s.image),
        .b_rows = s.rows,
        .b_down = out.full_width * ld,
        .b_right = ld,
        .c_row = (ptrdiff_t)in[1] * in[2] * ld,
        .c_down = (ptrdiff_t)stride * in[2] * ld,
        .c_right = stride * ld,
    };
    for (int y = 0; y < stride && y < in[1]; y++)
        for (int x = 0; x < stride && x < in[2]; x++) {
            product.k = down_rows(layer, c->ld, y, x, &s);
            COP_ASSERT(product.k <= layer->spec.units * (int)product.a_row);
            product.c = dx + ((ptrdiff_t)y * in[2] + x) * ld;
            product.height = (in[1] - y + stride - 1) / stride;
            product.width = (in[2] - x + stride - 1) / stride;
            c->kernels->conv(&product, c->workspace);
        }
}

static void conv2d_backward(const cop_layer *layer, const cop_layer_context *c,
                            const cop_layer_tensors *t) {
    COP_ASSERT(c->gradients && t->x && t->dy);
    weight_gradient(layer, c, t->x, t->dy);
    if (!t->dx) return;
    cop_layer_phase(layer, c, COP_PHASE_BACKWARD);
    input_gradient(layer, c, t->dy, t->dx);
}

static double conv2d_flop(const cop_layer *layer) {
    return (double)cop_shape_size(&layer->out) * (2.0 * patch_size(layer) + layer->spec.bias);
}

static cop_value conv2d_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const cop_layer_spec *s = &layer->spec;
    const int64_t kernel[] = {s->kernel, s->kernel}, strides[] = {s->stride, s->stride};
    const int64_t pads[] = {s->padding, s->padding, s->padding, s->padding};
    const cop_value weight = cop_graph_parameter(g, 0), bias = cop_graph_parameter(g, 1);
    const cop_value y = COP_NODE(g, "Conv", x, weight, bias);
    cop_graph_ints(g, "kernel_shape", 2, kernel);
    cop_graph_ints(g, "strides", 2, strides);
    cop_graph_ints(g, "pads", 4, pads);
    return y;
}

static void conv2d_torch(const cop_layer *layer, cop_torch *out) {
    const cop_layer_spec *s = &layer->spec;
    cop_torch_print(out, "nn.Conv2d(%d, %d, %d, stride=%d, padding=%d", (int)layer->in.dims[0],
                    (int)s->units, (int)s->kernel, (int)s->stride, (int)s->padding);
    if (!s->bias) cop_torch_flag(out, "bias", false);
    cop_torch_print(out, ")");
}

const cop_layer_ops cop_layer_conv2d = {
    .kind = "conv2d",
    .shape = conv2d_shape,
    .parameters = conv2d_parameters,
    .init = conv2d_init,
    .scratch = conv2d_scratch,
    .forward = conv2d_forward,
    .backward = conv2d_backward,
    .flop = conv2d_flop,
    .graph = conv2d_graph,
    .torch = conv2d_torch,
    .reads = COP_READS_INPUT,
    .wants_image = true,
    .thin = COP_THIN_WEIGHTS,
};
