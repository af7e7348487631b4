/* Computes a single layer, for comparison with other programs (tests/parity/test_layers.py).
 * Standard input is a list of requests, each a line
 *
 *   KIND CHANNELS HEIGHT WIDTH UNITS PIECES KERNEL STRIDE PADDING BIAS DROP_BIAS P SLOPE
 *   SCOPE VARIANT MODE SEED LAYER STEP COLUMNS SHARDS
 *
 * followed by raw floats: x and dy, each [values][COLUMNS], and then the layer's parameters. If
 * HEIGHT is 0, the input is flat. SCOPE, VARIANT and MODE are the numbers of the enumerations in
 * common/nn/layer.h. The columns are split into shards by D2.
 *
 * Standard output gets, for each request, raw floats:
 *   - y;
 *   - dx and the gradients of the parameters, except in evaluation mode;
 *   - for mask layers, the factors [values][COLUMNS], as `coppice replay` writes them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/nn/layer.h"

enum { COLUMNS_MAX = 1024, SHARDS_MAX = 64, PARAMETERS_MAX = 4 };

typedef struct request {
    cop_layer layer;
    cop_layer_context context;
    cop_parameter parameters[PARAMETERS_MAX];
    int64_t floats; /* number of floats in all parameters */
    uint64_t seed;
    int shards, segments[SHARDS_MAX + 1];
    cop_rng_key mask_keys[COLUMNS_MAX], noise_keys[COLUMNS_MAX];
    uint32_t samples[COLUMNS_MAX], no_samples[COLUMNS_MAX];
    float *x, *dy, *y, *dx, *weights, *gradients, *factors;
} request;

static int fail(const char *what) {
    fprintf(stderr, "one_layer: %s\n", what);
    return 1;
}

/* Reads the line of a request. False at the end of the input, or if the line is not valid. */
static bool read_request(request *r) {
    cop_layer_spec *s = &r->layer.spec;
    int32_t *dims = r->layer.in.dims;
    int bias, drop_bias, scope, variant, mode;
    *r = (request){0};
    if (scanf("%31s %" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd32
              " %" SCNd32 " %" SCNd32 " %d %d %lf %lf %d %d %d",
              s->kind, &dims[0], &dims[1], &dims[2], &s->units, &s->pieces, &s->kernel, &s->stride,
              &s->padding, &bias, &drop_bias, &s->p, &s->slope, &scope, &variant, &mode) != 16)
        return false;
    if (scanf("%" SCNu64 " %" SCNd32 " %" SCNu32 " %d %d", &r->seed, &r->layer.index,
              &r->context.step, &r->context.columns, &r->shards) != 5)
        return false;
    if (getchar() != '\n') return false;
    s->bias = bias != 0, s->drop_bias = drop_bias != 0;
    s->scope = (cop_scope)scope, s->variant = (cop_variant)variant;
    s->init = COP_INIT_TORCH, s->inference = COP_INFERENCE_MEAN, s->draws = 1;
    r->context.mode = (cop_mode)mode;
    r->layer.in.rank = dims[1] ? 3 : 1;
    return true;
}

static void cut_shards(request *r) {
    int column = 0;
    for (int s = 0; s < r->shards; s++) {
        const int size = r->context.columns / r->shards + (s < r->context.columns % r->shards);
        for (int i = 0; i < size; i++, column++) {
            r->mask_keys[column] = cop_rng_derive(r->seed, COP_RNG_MASK, (uint32_t)s);
            r->noise_keys[column] = cop_rng_derive(r->seed, COP_RNG_NOISE, (uint32_t)s);
            r->samples[column] = (uint32_t)i;
        }
        r->segments[s + 1] = column;
    }
}

static void lay_out_parameters(request *r) {
    const cop_layer_ops *ops = r->layer.ops;
    r->layer.parameter_count = ops->parameters ? ops->parameters(&r->layer, r->parameters) : 0;
    for (int i = 0; i < r->layer.parameter_count; i++) {
        cop_parameter *p = &r->parameters[i];
        p->count = (int64_t)p->rows * p->cols;
        p->offset = r->floats;
        r->floats += (p->count + 15) / 16 * 16;
    }
}

static int64_t factor_count(const request *r) {
    const cop_layer_ops *ops = r->layer.ops;
    if (!ops->factors) return 0;
    return ops->factor_count ? ops->factor_count(&r->layer) : cop_shape_size(&r->layer.in);
}

static float *columns_of(const request *r, int64_t rows) {
    return cop_alloc((size_t)(rows + 1) * (size_t)r->context.ld * sizeof(float));
}

static void open_request(request *r, const cop_kernels *kernels) {
    const cop_layer_ops *ops = r->layer.ops;
    cop_layer_context *c = &r->context;
    c->ld = (c->columns + COP_COLUMNS_PAD - 1) / COP_COLUMNS_PAD * COP_COLUMNS_PAD;
    const int64_t words = ops->mask_words ? ops->mask_words(&r->layer, c->ld) : 0;
    r->x = columns_of(r, cop_shape_size(&r->layer.in));
    r->dx = columns_of(r, cop_shape_size(&r->layer.in));
    r->y = columns_of(r, cop_shape_size(&r->layer.out));
    r->dy = columns_of(r, cop_shape_size(&r->layer.out));
    r->factors = columns_of(r, factor_count(r));
    r->weights = cop_alloc((size_t)(r->floats + 16) * sizeof(float));
    r->gradients = cop_alloc((size_t)(r->floats + 16) * sizeof(float));
    c->kernels = kernels;
    c->gemm = cop_gemm_for(COP_NUMERICS_PORTABLE);
    c->workspace = cop_alloc(COP_GEMM_WORKSPACE);
    c->scratch = cop_alloc((ops->scratch ? ops->scratch(&r->layer, c->ld) : 0) + 64);
    c->masks = cop_alloc((size_t)words * sizeof(uint16_t) + 64);
    c->segments = r->segments, c->segment_count = r->shards;
    c->mask_keys = r->mask_keys, c->noise_keys = r->noise_keys;
    c->samples = r->samples, c->no_samples = r->no_samples;
    c->weights = r->weights, c->gradients = r->gradients, c->parameters = r->parameters;
}

static void close_request(request *r) {
    void *const blocks[] = {r->x,
                            r->dx,
                            r->y,
                            r->dy,
                            r->factors,
                            r->weights,
                            r->gradients,
                            r->context.workspace,
                            r->context.scratch,
                            r->context.masks};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) cop_free(blocks[i]);
}

/* Reads rows of `columns` floats, which begin `ld` floats apart in memory. */
static bool read_rows(const request *r, float *x, int64_t rows) {
    const size_t columns = (size_t)r->context.columns;
    for (int64_t i = 0; i < rows; i++)
        if (fread(x + i * r->context.ld, sizeof *x, columns, stdin) != columns) return false;
    return true;
}

static bool write_rows(const request *r, const float *x, int64_t rows) {
    const size_t columns = (size_t)r->context.columns;
    for (int64_t i = 0; i < rows; i++)
        if (fwrite(x + i * r->context.ld, sizeof *x, columns, stdout) != columns) return false;
    return true;
}

static bool read_parameters(const request *r) {
    for (int i = 0; i < r->layer.parameter_count; i++) {
        const cop_parameter *p = &r->parameters[i];
        const size_t count = (size_t)p->count;
        if (fread(r->weights + p->offset, sizeof(float), count, stdin) != count) return false;
    }
    return true;
}

static bool write_gradients(const request *r) {
    for (int i = 0; i < r->layer.parameter_count; i++) {
        const cop_parameter *p = &r->parameters[i];
        const size_t count = (size_t)p->count;
        if (fwrite(r->gradients + p->offset, sizeof(float), count, stdout) != count) return false;
    }
    return true;
}

static bool run_layer(request *r) {
    const cop_layer_ops *ops = r->layer.ops;
    const int64_t in = cop_shape_size(&r->layer.in), out = cop_shape_size(&r->layer.out);
    if (!read_rows(r, r->x, in) || !read_rows(r, r->dy, out) || !read_parameters(r)) return false;
    ops->forward(&r->layer, &r->context, r->x, r->y);
    if (!write_rows(r, r->y, out)) return false;
    if (r->context.mode == COP_MODE_EVAL) return true;
    if (ops->factors) ops->factors(&r->layer, &r->context, r->factors);
    ops->backward(&r->layer, &r->context, &(cop_layer_tensors){r->x, r->y, r->dy, r->dx});
    return write_rows(r, r->dx, in) && write_gradients(r) &&
           write_rows(r, r->factors, factor_count(r));
}

int main(void) {
    static request r;
    const cop_kernels *kernels = NULL;
    cop_error error = {0};
    if (cop_kernels_choose(&kernels, &error) != COP_OK) return fail(error.text);
    while (read_request(&r)) {
        r.layer.ops = cop_layer_find(r.layer.spec.kind);
        if (!r.layer.ops) return fail("there is no layer of this kind");
        if (r.context.columns < 1 || r.context.columns > COLUMNS_MAX || r.shards < 1 ||
            r.shards > SHARDS_MAX)
            return fail("expected 1 to 1024 columns, in 1 to 64 shards");
        if (r.layer.ops->shape(&r.layer, &error) != COP_OK) return fail(error.text);
        cut_shards(&r);
        lay_out_parameters(&r);
        open_request(&r, kernels);
        const bool whole = run_layer(&r);
        close_request(&r);
        if (!whole) return fail("a request's numbers are not all there");
    }
    return feof(stdin) ? 0 : fail("a request that cannot be read");
}
