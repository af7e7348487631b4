/* dropconnect: a linear layer that drops each weight with probability p, separately for each sample
 * (Wan, Zeiler, Zhang, LeCun, Fergus, "Regularization of neural networks using DropConnect",
 * ICML 2013, sections 3 and 4). M is the mask, whose elements are 1 for kept weights and 0 for
 * dropped ones. The products M * W, W^2 and x^2 are element by element.
 *
 *              train, mc                     eval, inference mean      eval, inference moments
 * classic      y = (M * W) x + b             y = (1 - p) W x + b       u ~ N((1 - p) W x + b,
 *                                                                          p (1 - p) W^2 x^2)
 * inverted     y = (M * W) x / (1 - p) + b   y = W x + b               u ~ N(W x + b,
 *                                                                          p / (1 - p) W^2 x^2)
 *
 * With `drop_bias`, b is one more column of W, and its input is 1: it is dropped and scaled like
 * the weights. With inference `moments` and p above 0, `draws` samples of u are drawn for each
 * output. The next layer, which must be element-wise, is applied to each of them, and the mean of
 * the results is the output of both layers. So this layer absorbs the next one.
 *
 * Masks are drawn as D3 says. Unit o * in + i is weight (o, i), and unit out * in + o is bias o.
 * With scope `shard`, all samples of a shard share a mask. Forward stores the keep bits for
 * backward: those of the weights as [out][mask][words], then those of the biases as [mask][words].
 * Sample d of u for output o is drawn as noise unit o, with d as the step word. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/nn/arena.h"
#include "common/nn/layers/init.h"
#include "common/nn/layers/kinds.h"
#include "common/nn/masks.h"

enum {
    SQUARES = 1 << 16, /* how many weights are squared for one product */
    BLOCK_BYTES =
        5 << 16 /* keep bits that are drawn before they are used: they stay in the cache */
};

static cop_err check_next(const cop_layer *layer, cop_error *error) {
    if (layer->spec.inference == COP_INFERENCE_MEAN) return COP_OK;
    if (layer->spec.inference != COP_INFERENCE_MOMENTS)
        return cop_fail(error, COP_ERR_INPUT, "inference is unknown, expected moments or mean");
    if (layer->spec.draws < 1)
        return cop_fail(error, COP_ERR_INPUT, "draws is %d, expected at least 1",
                        (int)layer->spec.draws);
    if (layer->next && layer->next->ops->map) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT,
                    "inference: moments needs an element-wise layer (relu, sigmoid ...) directly "
                    "after it, found %s: add one, or use inference: mean",
                    layer->next ? layer->next->ops->kind : "none");
}

static cop_err dropconnect_shape(cop_layer *layer, cop_error *error) {
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
    COP_TRY(cop_masks_shape(layer, error));
    COP_TRY(check_next(layer, error));
    layer->out = (cop_shape){.rank = 1, .dims = {spec->units}};
    return COP_OK;
}

static int dropconnect_parameters(const cop_layer *layer, cop_parameter out[4]) {
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

static void dropconnect_init(const cop_layer *layer, uint64_t seed, const cop_parameter *parameters,
                             float *flat) {
    const int64_t in = layer->in.dims[0], units = layer->spec.units;
    const cop_init_stream weight = cop_init_stream_of(seed, layer, 0);
    cop_init_weights(&weight, in, units, flat + parameters[0].offset, units * in);
    if (!layer->spec.bias) return;
    const cop_init_stream bias = cop_init_stream_of(seed, layer, 1);
    cop_init_bias(&bias, in, flat + parameters[1].offset, units);
}

static bool drops_bias(const cop_layer *layer) {
    return layer->spec.bias && layer->spec.drop_bias;
}

static int words_of(int count) {
    return (count + 15) / 16;
}

static int64_t dropconnect_mask_words(const cop_layer *layer, int ld) {
    const int64_t weights = (int64_t)layer->spec.units * words_of(layer->in.dims[0]);
    return ld * (weights + (drops_bias(layer) ? words_of(layer->spec.units) : 0));
}

static int64_t unit_count(const cop_layer *layer) {
    return (int64_t)layer->spec.units * layer->in.dims[0] +
           (drops_bias(layer) ? layer->spec.units : 0);
}

/* The layer's scratch memory. All modes use the same bytes, but eval mode divides them differently
 * from train and mc mode. */
typedef struct workspace {
    /* in train and mc mode */
    int32_t *masks;  /* [ld]: the number of each column's mask */
    uint8_t *stream; /* keep bits of one mask in the order in which they are drawn */
    float *x, *dx;   /* (ld, words * 16): transposed, so a sample is a row */
    float *dz;       /* (out, ld): dy times the scale */
    /* in eval mode with `moments` */
    float *mean, *deviation; /* (out, ld): those of u */
    float *noise;            /* (out, ld): one draw */
    float *x_squares;        /* (in, ld) */
    float *w_squares;        /* (square_rows, in) */
    float *b_squares;        /* [square_rows] */
    size_t bytes;            /* the larger of the two sizes */
} workspace;

static int square_rows(const cop_layer *layer) {
    const int rows = SQUARES / layer->in.dims[0];
    return rows < 1 ? 1 : rows < layer->spec.units ? rows : layer->spec.units;
}

/* How many rows of all masks are drawn at once. Whole tiles of the product, if possible. */
static int block_rows(const cop_layer *layer, int ld) {
    const int64_t row = (int64_t)ld * words_of(layer->in.dims[0]) * 2;
    const int64_t rows = BLOCK_BYTES / row / 4 * 4;
    return rows < 4 ? 4 : rows < layer->spec.units ? (int)rows : layer->spec.units;
}

static workspace lay_out(const cop_layer *layer, int ld, void *scratch) {
    workspace w = {0};
    const size_t in = (size_t)layer->in.dims[0], out = (size_t)layer->spec.units;
    const size_t columns = (size_t)ld, row = (size_t)words_of((int)in) * 16;
    cop_arena_layout train = {.base = scratch}, eval = {.base = scratch};
    w.masks = cop_arena_place(&train, columns, sizeof *w.masks);
    const size_t drawn = (size_t)block_rows(layer, ld) * in;
    w.stream =
        cop_arena_place(&train, cop_dropconnect_stream((int64_t)(drawn > out ? drawn : out)), 1);
    w.x = cop_arena_place(&train, columns * row, sizeof(float));
    w.dx = cop_arena_place(&train, columns * row, sizeof(float));
    w.dz = cop_arena_place(&train, columns * out, sizeof(float));
    if (layer->spec.inference == COP_INFERENCE_MOMENTS) {
        const size_t rows = (size_t)square_rows(layer);
        w.mean = cop_arena_place(&eval, columns * out, sizeof(float));
        w.deviation = cop_arena_place(&eval, columns * out, sizeof(float));
        w.noise = cop_arena_place(&eval, columns * out, sizeof(float));
        w.x_squares = cop_arena_place(&eval, columns * in, sizeof(float));
        w.w_squares = cop_arena_place(&eval, rows * in, sizeof(float));
        w.b_squares = cop_arena_place(&eval, rows, sizeof(float));
    }
    w.bytes = train.used > eval.used ? train.used : eval.used;
    return w;
}

static size_t dropconnect_scratch(const cop_layer *layer, int ld) {
    return lay_out(layer, ld, NULL).bytes;
}

static workspace workspace_in(const cop_layer *layer, const cop_layer_context *c) {
    COP_ASSERT(c->scratch);
    return lay_out(layer, c->ld, c->scratch);
}

static const float *weights_of(const cop_layer *layer, const cop_layer_context *c, int index) {
    if (index > 0 && !layer->spec.bias) return NULL;
    return c->weights + c->parameters[layer->parameter_first + index].offset;
}

/* Numbers the masks and writes the number of each column's mask. A column shares the mask of the
 * column before it if both have the same key and sample word, as all columns of a shard do with
 * scope `shard`. */
static void number_masks(const cop_layer *layer, const cop_layer_context *c, int32_t *masks) {
    const uint32_t *samples = cop_masks_samples(layer, c);
    int32_t number = -1;
    for (int i = 0; i < c->columns; i++) {
        const bool same = i > 0 && samples[i] == samples[i - 1] &&
                          memcmp(&c->mask_keys[i], &c->mask_keys[i - 1], sizeof *c->mask_keys) == 0;
        if (!same) number++;
        masks[i] = number;
    }
}

/* The keep bits of the biases in mask n. NULL if biases are not dropped. */
static uint16_t *bias_bits(const cop_layer *layer, const cop_layer_context *c, int n) {
    if (!drops_bias(layer)) return NULL;
    const int64_t weights = (int64_t)c->ld * layer->spec.units * words_of(layer->in.dims[0]);
    return cop_layer_masks(layer, c) + weights + (int64_t)n * words_of(layer->spec.units);
}

/* Draws the rows [from, to) of all masks, and after the last row those of the biases. */
static void draw_masks(const cop_layer *layer, const cop_layer_context *c, const workspace *w,
                       int from, int to) {
    const uint32_t *samples = cop_masks_samples(layer, c);
    const int words = words_of(layer->in.dims[0]);
    for (int i = 0; i < c->columns; i++) {
        if (i > 0 && w->masks[i] == w->masks[i - 1]) continue;
        const cop_dropconnect_fill fill = {
            .out = layer->spec.units,
            .in = layer->in.dims[0],
            .from = from,
            .to = to,
            .threshold = cop_rng_drop_threshold(layer->spec.p),
            .sample = samples[i],
            .layer = (uint32_t)layer->index,
            .step = c->step,
            .key = c->mask_keys[i],
            .stream = w->stream,
            .bits = cop_layer_masks(layer, c) + (ptrdiff_t)w->masks[i] * words,
            .stride = (ptrdiff_t)c->ld * words,
            .bias_bits = bias_bits(layer, c, w->masks[i]),
        };
        c->kernels->dropconnect_fill(&fill);
    }
}

static cop_dropconnect product_of(const cop_layer *layer, const cop_layer_context *c,
                                  const workspace *w) {
    return (cop_dropconnect){
        .out = layer->spec.units,
        .in = layer->in.dims[0],
        .words = words_of(layer->in.dims[0]),
        .columns = c->columns,
        .ld = c->ld,
        .bits = cop_layer_masks(layer, c),
        .masks = w->masks,
        .w = weights_of(layer, c, 0),
        .x = w->x,
    };
}

static bool is_kept(const uint16_t *bits, int unit) {
    return bits[unit / 16] >> (unit % 16) & 1;
}

/* Scales y and adds the bias. With drop_bias, y becomes scale (y + m b), where m is 1 if the bias
 * is kept, else 0; if `w` is NULL, every bias is kept. Without drop_bias, y becomes scale y + b.
 * Sets the padding columns to +0. */
static void finish(const cop_layer *layer, const cop_layer_context *c, const workspace *w,
                   float scale, float *y) {
    const float *bias = weights_of(layer, c, 1);
    const bool dropped = drops_bias(layer);
    for (int o = 0; o < layer->spec.units; o++, y += c->ld) {
        const float b = bias ? bias[o] : 0.0f;
        for (int i = 0; i < c->columns; i++) {
            const bool kept = !dropped || !w || is_kept(bias_bits(layer, c, w->masks[i]), o);
            y[i] = dropped ? (y[i] + (kept ? b : 0.0f)) * scale : y[i] * scale + b;
        }
        for (int i = c->columns; i < c->ld; i++) y[i] = 0.0f;
    }
}

static void forward_mean(const cop_layer *layer, const cop_layer_context *c, const float *x,
                         float *y) {
    const cop_gemm product = {
        .m = layer->spec.units,
        .n = c->ld,
        .k = layer->in.dims[0],
        .a = weights_of(layer, c, 0), /* (units, in) */
        .a_row = layer->in.dims[0],
        .a_col = 1,
        .b = x, /* (in, ld) */
        .b_row = c->ld,
        .b_col = 1,
        .c = y, /* (units, ld) */
        .ldc = c->ld,
    };
    c->gemm(c->kernels, &product, c->workspace);
    const bool classic = layer->spec.variant == COP_VARIANT_CLASSIC;
    finish(layer, c, NULL, classic ? (float)(1.0 - layer->spec.p) : 1.0f, y);
}

/* Computes the standard deviations of u: sqrt(factor (W^2 x^2 + b^2)), where b^2 is left out
 * without drop_bias. */
static void find_deviation(const cop_layer *layer, const cop_layer_context *c, const workspace *w,
                           const float *x) {
    const int in = layer->in.dims[0], units = layer->spec.units, step = square_rows(layer);
    const float *weights = weights_of(layer, c, 0), *bias = weights_of(layer, c, 1);
    const double p = layer->spec.p;
    const double factor = layer->spec.variant == COP_VARIANT_CLASSIC ? p * (1 - p) : p / (1 - p);
    c->kernels->multiply(x, x, w->x_squares, (size_t)in * (size_t)c->ld);
    for (int o = 0; o < units; o += step) {
        const int rows = units - o < step ? units - o : step;
        const float *own = weights + (ptrdiff_t)o * in;
        c->kernels->multiply(own, own, w->w_squares, (size_t)rows * (size_t)in);
        if (drops_bias(layer)) c->kernels->multiply(bias + o, bias + o, w->b_squares, (size_t)rows);
        const cop_gemm product = {
            .m = rows,
            .n = c->ld,
            .k = in,
            .a = w->w_squares, /* (rows, in) */
            .a_row = in,
            .a_col = 1,
            .b = w->x_squares, /* (in, ld) */
            .b_row = c->ld,
            .b_col = 1,
            .c = w->deviation + (ptrdiff_t)o * c->ld,
            .ldc = c->ld,
            .bias = drops_bias(layer) ? w->b_squares : NULL,
        };
        c->gemm(c->kernels, &product, c->workspace);
    }
    c->kernels->scaled_sqrt(w->deviation, (float)factor, w->deviation,
                            (size_t)units * (size_t)c->ld);
}

static void forward_moments(const cop_layer *layer, const cop_layer_context *c, const float *x,
                            float *y) {
    const workspace w = workspace_in(layer, c);
    const int units = layer->spec.units;
    const size_t count = (size_t)units * (size_t)c->ld;
    static const int16_t ops[] = {0, 1, -1};
    const cop_tree pair = {.count = 2, .op_count = 3, .ops = ops};
    forward_mean(layer, c, x, w.mean);
    find_deviation(layer, c, &w, x);
    for (int d = 0; d < layer->spec.draws; d++) {
        const cop_noise_request request = {
            .units = units,
            .ld = c->ld,
            .mean = 0,
            .deviation = 1,
            .keys = c->noise_keys,
            .samples = c->samples,
            .layer = (uint32_t)layer->index,
            .step = (uint32_t)d,
            .noise = w.noise,
        };
        c->kernels->noise_fill(&request);
        c->kernels->multiply_add(w.deviation, w.noise, w.mean, w.noise, count);
        layer->next->ops->map(layer->next, c->kernels, w.noise, w.noise, count);
        const float *const both[] = {y, w.noise};
        if (d == 0)
            memcpy(y, w.noise, count * sizeof *y);
        else
            c->kernels->tree_sum(both, &pair, y, count);
    }
    c->kernels->scale(y, (float)(1.0 / layer->spec.draws), y, count);
}

static bool dropconnect_absorbs_next(const cop_layer *layer) {
    return layer->spec.inference == COP_INFERENCE_MOMENTS && layer->spec.p > 0;
}

static void dropconnect_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                                float *y) {
    if (c->mode == COP_MODE_EVAL && dropconnect_absorbs_next(layer)) {
        forward_moments(layer, c, x, y);
        return;
    }
    if (c->mode == COP_MODE_EVAL) {
        forward_mean(layer, c, x, y);
        return;
    }
    const workspace w = workspace_in(layer, c);
    number_masks(layer, c, w.masks);
    const cop_dropconnect whole = product_of(layer, c, &w);
    const cop_transpose shape = {whole.in, c->ld, c->columns, whole.words * 16};
    c->kernels->transpose_pad(&shape, x, w.x);
    const int rows = block_rows(layer, c->ld);
    for (int from = 0; from < whole.out; from += rows) {
        const int to = whole.out - from < rows ? whole.out : from + rows;
        cop_layer_phase(layer, c, COP_PHASE_MASK);
        draw_masks(layer, c, &w, from, to);
        cop_layer_phase(layer, c, COP_PHASE_FORWARD);
        cop_dropconnect product = whole;
        product.out = to - from;
        product.bits += (ptrdiff_t)from * c->ld * whole.words;
        product.w += (ptrdiff_t)from * whole.in;
        product.y = y + (ptrdiff_t)from * c->ld;
        c->kernels->dropconnect_forward(&product);
    }
    finish(layer, c, &w, cop_masks_scale(layer), y);
}

/* Computes db. Without drop_bias it is the row sums of dy. With drop_bias it is the row sums of dy
 * after masking and scaling; then the function overwrites w->dz. */
static void bias_gradient(const cop_layer *layer, const cop_layer_context *c, const workspace *w,
                          const float *dy) {
    const float *sums = dy;
    if (drops_bias(layer)) {
        for (int o = 0; o < layer->spec.units; o++)
            for (int i = 0; i < c->columns; i++) {
                float *z = &w->dz[(ptrdiff_t)o * c->ld + i];
                *z = is_kept(bias_bits(layer, c, w->masks[i]), o)
                         ? dy[(ptrdiff_t)o * c->ld + i] * cop_masks_scale(layer)
                         : 0.0f;
            }
        sums = w->dz;
    }
    cop_layer_row_sums(c, sums, layer->spec.units,
                       c->gradients + c->parameters[layer->parameter_first + 1].offset);
}

static void dropconnect_backward(const cop_layer *layer, const cop_layer_context *c,
                                 const cop_layer_tensors *t) {
    COP_ASSERT(c->gradients && t->x && t->dy);
    const workspace w = workspace_in(layer, c);
    number_masks(layer, c, w.masks);
    cop_dropconnect product = product_of(layer, c, &w);
    const cop_transpose shape = {product.in, c->ld, c->columns, product.words * 16};
    c->kernels->transpose_pad(&shape, t->x, w.x);
    c->kernels->scale(t->dy, cop_masks_scale(layer), w.dz, (size_t)product.out * (size_t)c->ld);
    product.dy = w.dz;
    product.segments = c->segments;
    product.segment_count = c->segment_count;
    product.round_nodes = c->round_nodes;
    product.dw = c->gradients + c->parameters[layer->parameter_first].offset;
    c->kernels->dropconnect_backward_weights(&product);
    if (t->dx) {
        cop_layer_phase(layer, c, COP_PHASE_BACKWARD);
        product.dx = w.dx;
        c->kernels->dropconnect_backward_input(&product);
        c->kernels->transpose_back(&shape, w.dx, t->dx);
    }
    if (layer->spec.bias) bias_gradient(layer, c, &w, t->dy);
}

/* Writes the factors of all weights and then, with drop_bias, those of all biases. */
static void dropconnect_factors(const cop_layer *layer, const cop_layer_context *c, float *out) {
    const workspace w = workspace_in(layer, c);
    const int in = layer->in.dims[0], words = words_of(in), units = layer->spec.units;
    const float scale = cop_masks_scale(layer);
    number_masks(layer, c, w.masks);
    memset(out, 0, (size_t)unit_count(layer) * (size_t)c->ld * sizeof *out);
    for (int n = 0; n < c->columns; n++) {
        const uint16_t *bits = cop_layer_masks(layer, c) + (ptrdiff_t)w.masks[n] * words;
        const uint16_t *of_bias = bias_bits(layer, c, w.masks[n]);
        for (int o = 0; o < units; o++, bits += (ptrdiff_t)c->ld * words)
            for (int i = 0; i < in; i++)
                if (is_kept(bits, i)) out[((ptrdiff_t)o * in + i) * c->ld + n] = scale;
        for (int o = 0; of_bias && o < units; o++)
            if (is_kept(of_bias, o)) out[((ptrdiff_t)units * in + o) * c->ld + n] = scale;
    }
}

static double dropconnect_flop(const cop_layer *layer) {
    const double units = layer->spec.units;
    return 2 * units * layer->in.dims[0] + (layer->spec.bias ? units : 0);
}

/* Exports only what `inference: mean` computes, because a graph has no masks for each sample and
 * weight. */
static cop_value dropconnect_graph(const cop_layer *layer, cop_graph *g, cop_value x) {
    const bool classic = layer->spec.variant == COP_VARIANT_CLASSIC;
    const double keep = classic ? 1.0 - layer->spec.p : 1.0;
    const cop_value weight = cop_graph_parameter(g, 0), bias = cop_graph_parameter(g, 1);
    const cop_value y = COP_NODE(g, "Gemm", x, weight, bias);
    cop_graph_int(g, "transB", 1);
    cop_graph_real(g, "alpha", keep);
    cop_graph_real(g, "beta", drops_bias(layer) ? keep : 1.0);
    cop_graph_note(g, "dropconnect as its mean, regardless of training_mode");
    return y;
}

static const char *dropconnect_exported_as(const cop_layer *layer) {
    if (!dropconnect_absorbs_next(layer)) return NULL;
    return "written as its mean (coppice itself evaluates this layer by inference: moments)";
}

static void dropconnect_torch(const cop_layer *layer, cop_torch *out) {
    const cop_layer_spec *s = &layer->spec;
    cop_torch_class(
        out, "class DropConnect(nn.Linear):\n"
             "    \"\"\"Drops weights instead of units, by a mask for each sample (shared: for the "
             "batch); "
             "their mean in evaluation (Wan et al. 2013).\"\"\"\n\n"
             "    def __init__(self, inputs, units, p, bias=True, drop_bias=False, classic=False, "
             "shared=False):\n"
             "        super().__init__(inputs, units, bias)\n"
             "        self.p, self.drop_bias, self.shared = p, drop_bias, shared\n"
             "        self.scale = 1 - p if classic else 1\n\n"
             "    def forward(self, x):\n"
             "        count = 1 if self.shared else len(x)\n"
             "        if self.training:\n"
             "            weight = F.dropout(self.weight.expand(count, -1, -1), self.p)\n"
             "            y = self.scale * (weight @ x.unsqueeze(2)).squeeze(2)\n"
             "        else:\n"
             "            y = self.scale * F.linear(x, self.weight)\n"
             "        if self.bias is None:\n"
             "            return y\n"
             "        if not self.drop_bias:\n"
             "            return y + self.bias\n"
             "        return y + self.scale * F.dropout(self.bias.expand(count, -1), self.p, "
             "self.training)\n");
    cop_torch_print(out, "DropConnect(%d, %d, ", (int)layer->in.dims[0], (int)s->units);
    cop_torch_real(out, s->p);
    if (!s->bias) cop_torch_flag(out, "bias", false);
    if (drops_bias(layer)) cop_torch_flag(out, "drop_bias", true);
    if (s->variant == COP_VARIANT_CLASSIC) cop_torch_flag(out, "classic", true);
    if (s->scope == COP_SCOPE_SHARD) cop_torch_flag(out, "shared", true);
    cop_torch_print(out, ")");
}

static void dropconnect_modes(const cop_layer *layer, char train[COP_MODE_TEXT],
                              char eval[COP_MODE_TEXT]) {
    const cop_layer_spec *s = &layer->spec;
    const bool classic = s->variant == COP_VARIANT_CLASSIC;
    char factor[32];
    snprintf(factor, sizeof factor, ", x %.4g", classic ? 1 - s->p : 1 / (1 - s->p));
    snprintf(train, COP_MODE_TEXT, "drop %.3g of the %s per %s%s", s->p,
             drops_bias(layer) ? "weights, biases" : "weights", cop_masks_scope(layer),
             classic ? "" : factor);
    if (dropconnect_absorbs_next(layer))
        snprintf(eval, COP_MODE_TEXT, "next layer's mean over %d draws", (int)s->draws);
    else
        snprintf(eval, COP_MODE_TEXT, "mean of the weights%s", classic ? factor : "");
}

const cop_layer_ops cop_layer_dropconnect = {
    .kind = "dropconnect",
    .shape = dropconnect_shape,
    .parameters = dropconnect_parameters,
    .init = dropconnect_init,
    .mask_words = dropconnect_mask_words,
    .scratch = dropconnect_scratch,
    .forward = dropconnect_forward,
    .backward = dropconnect_backward,
    .factors = dropconnect_factors,
    .factor_count = unit_count,
    .absorbs_next = dropconnect_absorbs_next,
    .flop = dropconnect_flop,
    .graph = dropconnect_graph,
    .torch = dropconnect_torch,
    .modes = dropconnect_modes,
    .exported_as = dropconnect_exported_as,
    .reads = COP_READS_INPUT,
    .drops = true,
    .wants_flat = true,
};
