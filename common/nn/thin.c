/* Thinned networks. See thin.h.
 *
 * Tensor i is the input of layer i. A cut is a run of consecutive tensors with the same surviving
 * units. It starts at the output of a layer with weights, if all layers between that one and the
 * mask treat each unit separately, else at the output of the first mask. It ends at the input of
 * the next layer with weights. The brackets show two cuts:
 *
 *     linear -> [relu -> dropout ->] linear      all three tensors are cut
 *     softmax -> dropout -> [relu ->] linear     the dropout layer selects the surviving units
 *
 * A flatten layer divides such a run into two cuts. The units are channels in the first and
 * features in the second. */
#include "common/nn/thin.h"

#include <string.h>

#include "common/base/alloc.h"
#include "common/base/limits.h"
#include "common/nn/arena.h"
#include "common/nn/masks.h"

typedef struct thin_cut {
    int first, last;   /* the tensors of the cut, both included */
    bool has_producer; /* the first tensor is the output of a layer with weights */
    int source;        /* after a flatten layer: the cut that ends at its input; else -1 */
    int units;         /* the number of units of a tensor before anything is dropped */
    /* about the network that was drawn last */
    int count;      /* the number of surviving units */
    int32_t *kept;  /* (count): the surviving units' indices among all units */
    int32_t *take;  /* (count): the surviving units' indices in the tensor before `first` */
    uint8_t *alive; /* (units): 1 if the unit survives, else 0 */
} thin_cut;

struct cop_thin {
    const cop_model *model;
    const cop_kernels *kernels;
    int cut_count;
    thin_cut cuts[COP_LAYERS_MAX];
    /* For each tensor: the index of its cut, or -1 if it is in no cut. */
    int16_t cut_of[COP_LAYERS_MAX + 1];
    void *memory;      /* one block that holds all arrays below and those of the cuts */
    cop_layer *layers; /* the layers of the thinned network */
    float *weights;    /* the flat buffer of the thinned network */
    int *blocks;       /* the `blocks` of all layers of the thinned network, one after the other */
    uint16_t *bits;    /* the mask that was drawn last */
    cop_rng_key *keys; /* [COP_COLUMNS_PAD], all equal */
    uint32_t *samples; /* [COP_COLUMNS_PAD], all 0 */
};

/* ---- finding the cuts of a model ---- */

static const cop_layer *layer_of(const cop_thin *thin, int index) {
    return cop_model_layer(thin->model, index);
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* How a layer treats units. For a mask layer that depends on its spec. If p is 0, it drops nothing
 * and counts as EACH_ZERO. If the mask differs between samples or between the pixels of a channel,
 * the layer counts as NEVER. */
static cop_layer_thin kind_of(const cop_thin *thin, int index) {
    const cop_layer *layer = layer_of(thin, index);
    if (layer->ops->thin != COP_THIN_MASK) return layer->ops->thin;
    if (layer->spec.p == 0) return COP_THIN_EACH_ZERO;
    return cop_masks_are_shared(layer) ? COP_THIN_MASK : COP_THIN_NEVER;
}

static int add_cut(cop_thin *thin, int first, int last, bool has_producer, int source) {
    COP_ASSERT(thin->cut_count < COP_LAYERS_MAX && first <= last && source < thin->cut_count);
    const int cut = thin->cut_count++;
    thin->cuts[cut] = (thin_cut){.first = first,
                                 .last = last,
                                 .has_producer = has_producer,
                                 .source = source,
                                 .units = layer_of(thin, first)->in.dims[0]};
    for (int i = first; i <= last; i++) {
        COP_ASSERT(thin->cut_of[i] < 0); /* no tensor is in two cuts */
        thin->cut_of[i] = (int16_t)cut;
    }
    return cut;
}

/* `end` is a layer with weights. If a cut ends at its input, adds that cut; with a flatten layer in
 * between, adds both cuts. */
static void find_cut(cop_thin *thin, int end) {
    int mask = -1, flatten = -1;
    for (int i = end - 1; i >= 0; i--) {
        const cop_layer_thin kind = kind_of(thin, i);
        if (kind == COP_THIN_MASK)
            mask = i;
        else if (kind != COP_THIN_EACH_ZERO && kind != COP_THIN_FLATTEN)
            break;
    }
    if (mask < 0) return;
    for (int i = mask; i < end; i++)
        if (kind_of(thin, i) == COP_THIN_FLATTEN) flatten = i;
    int above = mask; /* the layers from here to the mask treat each unit separately */
    while (above > 0 && (kind_of(thin, above - 1) == COP_THIN_EACH ||
                         kind_of(thin, above - 1) == COP_THIN_EACH_ZERO))
        above--;
    const bool has_producer = above > 0 && kind_of(thin, above - 1) == COP_THIN_WEIGHTS;
    const int first = has_producer ? above : mask + 1;
    const int cut = add_cut(thin, first, flatten < 0 ? end : flatten, has_producer, -1);
    if (flatten >= 0) add_cut(thin, flatten + 1, end, false, cut);
}

static void find_cuts(cop_thin *thin, const cop_model *model) {
    *thin = (cop_thin){.model = model};
    const int count = cop_model_layer_count(model);
    COP_ASSERT(count <= COP_LAYERS_MAX);
    for (int i = 0; i <= count; i++) thin->cut_of[i] = -1;
    for (int i = 0; i < count; i++)
        if (layer_of(thin, i)->ops->thin == COP_THIN_WEIGHTS) find_cut(thin, i);
}

/* The first mask layer of a cut whose index is at least `layer`, or -1 if there is none. The layer
 * that writes the cut's first tensor counts, too. */
static int next_mask(const cop_thin *thin, const thin_cut *cut, int layer) {
    for (; layer < cut->last; layer++)
        if (layer >= cut->first - 1 && kind_of(thin, layer) == COP_THIN_MASK) return layer;
    return -1;
}

static double share_of(const cop_thin *thin, int tensor) {
    if (thin->cut_of[tensor] < 0) return 1;
    const thin_cut *cut = &thin->cuts[thin->cut_of[tensor]];
    double share = cut->source < 0 ? 1 : share_of(thin, thin->cuts[cut->source].first);
    for (int i = next_mask(thin, cut, 0); i >= 0; i = next_mask(thin, cut, i + 1))
        share *= 1 - layer_of(thin, i)->spec.p;
    return share;
}

void cop_thin_find(const cop_model *model, cop_thin_sides *sides) {
    cop_thin thin;
    find_cuts(&thin, model);
    for (int i = 0; i < cop_model_layer_count(model); i++)
        sides[i] = (cop_thin_sides){share_of(&thin, i), share_of(&thin, i + 1)};
}

/* ---- memory ---- */

static void lay_out_memory(cop_thin *thin, cop_arena_layout *c) {
    const int layers = cop_model_layer_count(thin->model);
    int blocks = 0, max_units = 0;
    for (int i = 0; i < layers; i++) {
        const cop_layer *layer = layer_of(thin, i);
        if (layer->ops->thin == COP_THIN_WEIGHTS)
            blocks +=
                cop_model_parameter(thin->model, layer->parameter_first)->cols / COP_GEMM_BLOCK + 1;
    }
    for (int i = 0; i < thin->cut_count; i++) {
        thin_cut *cut = &thin->cuts[i];
        cut->kept = cop_arena_place(c, (size_t)cut->units, sizeof *cut->kept);
        cut->take = cop_arena_place(c, (size_t)cut->units, sizeof *cut->take);
        cut->alive = cop_arena_place(c, (size_t)cut->units, 1);
        if (cut->units > max_units) max_units = cut->units;
    }
    thin->layers = cop_arena_place(c, (size_t)layers, sizeof *thin->layers);
    thin->weights =
        cop_arena_place(c, (size_t)cop_model_floats(thin->model), sizeof *thin->weights);
    thin->blocks = cop_arena_place(c, (size_t)blocks, sizeof *thin->blocks);
    thin->bits = cop_arena_place(c, (size_t)max_units, sizeof *thin->bits);
    thin->keys = cop_arena_place(c, COP_COLUMNS_PAD, sizeof *thin->keys);
    thin->samples = cop_arena_place(c, COP_COLUMNS_PAD, sizeof *thin->samples);
}

size_t cop_thin_bytes(const cop_model *model) {
    cop_thin thin;
    cop_arena_layout c = {0};
    find_cuts(&thin, model);
    if (thin.cut_count == 0) return 0;
    lay_out_memory(&thin, &c);
    return c.used + sizeof thin;
}

cop_err cop_thin_create(const cop_model *model, const cop_kernels *kernels, cop_thin **out,
                        cop_error *error) {
    cop_thin *thin = cop_alloc(sizeof *thin);
    cop_arena_layout c = {0};
    *out = NULL;
    if (!thin) return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for thinned networks");
    find_cuts(thin, model);
    if (thin->cut_count == 0) {
        cop_free(thin);
        return COP_OK;
    }
    thin->kernels = kernels;
    lay_out_memory(thin, &c);
    const size_t measured = c.used;
    thin->memory = c.base = cop_alloc(measured);
    if (!thin->memory) {
        cop_free(thin);
        return cop_fail(error, COP_ERR_NO_MEMORY,
                        "no memory for thinned networks: %zu MB are needed", (measured >> 20) + 1);
    }
    c.used = 0;
    lay_out_memory(thin, &c);
    COP_ASSERT(c.used == measured);
    *out = thin;
    return COP_OK;
}

void cop_thin_destroy(cop_thin *thin) {
    if (!thin) return;
    cop_free(thin->memory);
    cop_free(thin);
}

/* ---- layers that only thinned networks have ---- */

/* Writes the surviving units of x, times `factor`, to y. y may be x, because a unit never moves to
 * a higher index. */
static void take_units(const cop_layer *layer, const cop_layer_context *c, float factor,
                       const float *x, float *y) {
    const int32_t count = layer->out.dims[0];
    const size_t unit = (size_t)(cop_shape_size(&layer->out) / count) * (size_t)c->ld;
    if (!layer->take) {
        c->kernels->scale(x, factor, y, unit * (size_t)count);
        return;
    }
    for (int32_t i = 0; i < count; i++)
        c->kernels->scale(x + (size_t)layer->take[i] * unit, factor, y + (size_t)i * unit, unit);
}

/* The forward function of a mask layer in a thinned network: it selects the surviving units and
 * multiplies them by the mask's factor. */
static void survivors_forward(const cop_layer *layer, const cop_layer_context *c, const float *x,
                              float *y) {
    take_units(layer, c, cop_masks_scale(layer), x, y);
}

static const cop_layer_ops survivors = {
    .kind = "survivors",
    .forward = survivors_forward,
    .in_place = true,
};

/* The forward function of a flatten layer in a thinned network: it selects the surviving features
 * among those of the surviving channels. */
static void survivors_flat_forward(const cop_layer *layer, const cop_layer_context *c,
                                   const float *x, float *y) {
    if (x != y || cop_shape_size(&layer->in) != cop_shape_size(&layer->out))
        take_units(layer, c, 1.0f, x, y);
}

static const cop_layer_ops survivors_flat = {
    .kind = "survivors of flatten",
    .forward = survivors_flat_forward,
    .in_place = true,
};

/* ---- drawing a network ---- */

typedef struct thin_draw {
    cop_thin *thin;
    const float *weights;
    uint32_t step;
} thin_draw;

/* Draws the mask of layer `index`, and marks the units that it drops as not alive. */
static void draw_mask(const thin_draw *d, int index, thin_cut *cut) {
    const cop_mask_request request = {
        .units = cut->units,
        .ld = COP_COLUMNS_PAD, /* all columns get the same bit */
        .threshold = cop_rng_drop_threshold(layer_of(d->thin, index)->spec.p),
        .keys = d->thin->keys,
        .samples = d->thin->samples,
        .layer = (uint32_t)index,
        .step = d->step,
        .bits = d->thin->bits,
    };
    d->thin->kernels->mask_fill(&request);
    for (int u = 0; u < cut->units; u++) cut->alive[u] &= d->thin->bits[u] & 1;
}

/* Finds the surviving units of a cut. Returns false if there are none. */
static bool draw_cut(const thin_draw *d, thin_cut *cut) {
    COP_ASSERT(d->thin);
    const thin_cut *source = cut->source < 0 ? NULL : &d->thin->cuts[cut->source];
    const int group = source ? cut->units / source->units : 1;
    COP_ASSERT(!source || (source->count > 0 && group * source->units == cut->units));
    for (int u = 0; u < cut->units; u++) cut->alive[u] = !source || source->alive[u / group];
    for (int i = next_mask(d->thin, cut, 0); i >= 0; i = next_mask(d->thin, cut, i + 1))
        draw_mask(d, i, cut);
    cut->count = 0;
    for (int u = 0, place = 0; u < cut->units; u++) {
        if (cut->alive[u]) {
            cut->take[cut->count] = place;
            cut->kept[cut->count++] = u;
        }
        place += !source || source->alive[u / group];
    }
    return cut->count > 0;
}

static thin_cut *cut_at(cop_thin *thin, int tensor) {
    return thin->cut_of[tensor] < 0 ? NULL : &thin->cuts[thin->cut_of[tensor]];
}

/* Copies the values of the surviving units from a row of weights to `out`. The row has `width`
 * values for each unit of the cut. */
static void gather_row(const float *row, const thin_cut *cut, int width, float *out) {
    if (width == 1) {
        for (int i = 0; i < cut->count; i++) out[i] = row[cut->kept[i]];
    } else {
        for (int i = 0; i < cut->count; i++)
            memcpy(out + (ptrdiff_t)i * width, row + (ptrdiff_t)cut->kept[i] * width,
                   (size_t)width * sizeof *out);
    }
}

/* Copies the surviving weights and biases of layer `index`. Returns false if the layer's input is
 * cut and a surviving row contains a weight that is not finite. */
static bool gather_weights(const thin_draw *d, int index) {
    COP_ASSERT(d->weights);
    const cop_layer *full = layer_of(d->thin, index);
    const cop_parameter *weight = cop_model_parameter(d->thin->model, full->parameter_first);
    const thin_cut *in = cut_at(d->thin, index), *out = cut_at(d->thin, index + 1);
    const int width = weight->cols / full->in.dims[0], height = weight->rows / full->out.dims[0];
    const int units = out ? out->count : full->out.dims[0];
    COP_ASSERT(width * full->in.dims[0] == weight->cols &&
               height * full->out.dims[0] == weight->rows);
    const size_t columns = in ? (size_t)in->count * (size_t)width : (size_t)weight->cols;
    const float *bias = full->parameter_count > 1 ? d->weights + weight[1].offset : NULL;
    float *to = d->thin->weights + weight->offset;
    float *to_bias = bias ? d->thin->weights + weight[1].offset : NULL;
    for (int u = 0; u < units; u++) {
        const int32_t unit = out ? out->kept[u] : u;
        for (int r = 0; r < height; r++, to += columns) {
            const int64_t row = (int64_t)unit * height + r;
            const float *from = d->weights + weight->offset + row * weight->cols;
            if (bias) *to_bias++ = bias[row];
            if (!in) {
                memcpy(to, from, columns * sizeof *to);
                continue;
            }
            if (!d->thin->kernels->all_finite(from, (size_t)weight->cols)) return false;
            gather_row(from, in, width, to);
        }
    }
    return true;
}

/* The full layer's sums are cut into blocks of COP_GEMM_BLOCK columns of weights. Writes to
 * `blocks` where these blocks end if only the surviving columns are counted, and leaves out blocks
 * without surviving columns. Returns the number of remaining blocks. */
static int find_blocks(const cop_layer *full, const cop_parameter *weight, const thin_cut *in,
                       int *blocks) {
    const int width = weight->cols / full->in.dims[0];
    int count = 0, next = 0, before = 0;
    for (int to = COP_GEMM_BLOCK;; to += COP_GEMM_BLOCK) {
        const int end = smaller(to, weight->cols);
        while (next < in->count && (in->kept[next] + 1) * width <= end) next++;
        int place = next * width;
        if (next < in->count &&
            in->kept[next] * width < end) /* a unit with columns in two blocks */
            place += end - in->kept[next] * width;
        if (place > before) blocks[count++] = before = place;
        if (end == weight->cols) {
            COP_ASSERT(next == in->count && before == in->count * width);
            return count;
        }
    }
}

/* Sets up layer `index` of the thinned network. Writes the ends of its blocks to *blocks and
 * advances *blocks behind them. Returns false if gather_weights does. */
static bool thin_layer(const thin_draw *d, int index, int **blocks) {
    const cop_layer *full = layer_of(d->thin, index);
    cop_layer *layer = &d->thin->layers[index];
    const thin_cut *in = cut_at(d->thin, index), *out = cut_at(d->thin, index + 1);
    *layer = *full;
    layer->next = full->next ? layer + 1 : NULL;
    if (in) layer->in.dims[0] = in->count;
    if (out) layer->out.dims[0] = out->count;
    if (full->ops->thin == COP_THIN_WEIGHTS) {
        if (out) layer->spec.units = out->count;
        if (in) {
            layer->blocks = *blocks;
            layer->block_count = find_blocks(
                full, cop_model_parameter(d->thin->model, full->parameter_first), in, *blocks);
            *blocks += layer->block_count;
        }
        return gather_weights(d, index);
    }
    for (int p = full->parameter_first; p < full->parameter_first + full->parameter_count; p++) {
        const cop_parameter *w = cop_model_parameter(d->thin->model, p);
        memcpy(d->thin->weights + w->offset, d->weights + w->offset,
               (size_t)w->count * sizeof(float));
    }
    if (!out) return true;
    if (in != out) layer->take = out->take;
    if (kind_of(d->thin, index) == COP_THIN_MASK) layer->ops = &survivors;
    if (kind_of(d->thin, index) == COP_THIN_FLATTEN) layer->ops = &survivors_flat;
    return true;
}

bool cop_thin_draw(cop_thin *thin, const float *weights, cop_rng_key key, uint32_t step,
                   cop_thinned *out) {
    const thin_draw d = {.thin = thin, .weights = weights, .step = step};
    int *blocks = thin->blocks;
    for (int i = 0; i < COP_COLUMNS_PAD; i++) thin->keys[i] = key;
    for (int i = 0; i < thin->cut_count; i++)
        if (!draw_cut(&d, &thin->cuts[i])) return false;
    for (int i = 0; i < cop_model_layer_count(thin->model); i++)
        if (!thin_layer(&d, i, &blocks)) return false;
    *out = (cop_thinned){.layers = thin->layers, .weights = thin->weights};
    return true;
}
