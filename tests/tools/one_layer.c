/* One layer without weights, alone, for tests that compare it with other programs' layers
 * (tests/parity/test_elementwise.py). Standard input is a list of requests, each a line
 *
 *   KIND CHANNELS HEIGHT WIDTH P SLOPE SCOPE VARIANT MODE SEED LAYER STEP COLUMNS SHARDS
 *
 * (HEIGHT 0: flat input; SCOPE, VARIANT, MODE: the numbers of common/nn/layer.h) and after its line
 * feed x and dy as raw floats, [values][COLUMNS] each. The columns are cut into shards by D2.
 * Standard output: y and dx in the same form, in evaluation y alone. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/nn/layer.h"

enum { COLUMNS_MAX = 1024 };

typedef struct request {
    cop_layer layer;
    cop_layer_context context;
    uint64_t seed;
    int shards;
    cop_rng_key mask_keys[COLUMNS_MAX], noise_keys[COLUMNS_MAX];
    uint32_t samples[COLUMNS_MAX], no_samples[COLUMNS_MAX];
} request;

static int fail(const char *what) {
    fprintf(stderr, "one_layer: %s\n", what);
    return 1;
}

/* False at the end of the input. */
static bool read_request(request *r) {
    cop_layer_spec *s = &r->layer.spec;
    int32_t *dims = r->layer.in.dims;
    int scope, variant, mode;
    *r = (request){0};
    if (scanf("%31s %" SCNd32 " %" SCNd32 " %" SCNd32 " %lf %lf %d %d %d %" SCNu64 " %" SCNd32
              " %" SCNu32 " %d %d",
              s->kind, &dims[0], &dims[1], &dims[2], &s->p, &s->slope, &scope, &variant, &mode,
              &r->seed, &r->layer.index, &r->context.step, &r->context.columns, &r->shards) != 14)
        return false;
    if (getchar() != '\n') return false;
    s->scope = (cop_scope)scope, s->variant = (cop_variant)variant;
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
    }
}

/* Rows of `columns` floats, `ld` apart. */
static bool read_rows(float *x, int64_t rows, int columns, int ld) {
    for (int64_t i = 0; i < rows; i++)
        if (fread(x + i * ld, sizeof *x, (size_t)columns, stdin) != (size_t)columns) return false;
    return true;
}

static bool write_rows(const float *x, int64_t rows, int columns, int ld) {
    for (int64_t i = 0; i < rows; i++)
        if (fwrite(x + i * ld, sizeof *x, (size_t)columns, stdout) != (size_t)columns) return false;
    return true;
}

static bool run_layer(request *r) {
    const cop_layer_ops *ops = r->layer.ops;
    cop_layer_context *c = &r->context;
    const int64_t values = cop_shape_size(&r->layer.in);
    c->ld = (c->columns + COP_COLUMNS_PAD - 1) / COP_COLUMNS_PAD * COP_COLUMNS_PAD;
    c->mask_keys = r->mask_keys, c->noise_keys = r->noise_keys;
    c->samples = r->samples, c->no_samples = r->no_samples;
    float *x = cop_alloc(4 * (size_t)values * (size_t)c->ld * sizeof *x);
    float *dy = x + values * c->ld, *y = dy + values * c->ld, *dx = y + values * c->ld;
    const int64_t words = ops->mask_words ? ops->mask_words(&r->layer, c->ld) : 0;
    c->masks = cop_alloc((size_t)words * sizeof(uint16_t) + 64);
    bool ok = read_rows(x, values, c->columns, c->ld) && read_rows(dy, values, c->columns, c->ld);
    if (ok) ops->forward(&r->layer, c, x, y);
    ok = ok && write_rows(y, values, c->columns, c->ld);
    if (ok && c->mode != COP_MODE_EVAL) {
        ops->backward(&r->layer, c, x, y, dy, dx);
        ok = write_rows(dx, values, c->columns, c->ld);
    }
    cop_free(x);
    cop_free(c->masks);
    return ok;
}

int main(void) {
    static request r;
    const cop_kernels *kernels = NULL;
    cop_error error = {0};
    if (cop_kernels_choose(&kernels, &error) != COP_OK) return fail(error.text);
    while (read_request(&r)) {
        r.layer.ops = cop_layer_find(r.layer.spec.kind);
        r.context.kernels = kernels;
        if (!r.layer.ops || r.layer.ops->parameters) return fail("expected a kind without weights");
        if (r.context.columns < 1 || r.context.columns > COLUMNS_MAX || r.shards < 1)
            return fail("expected 1 to 1024 columns, and a shard");
        if (r.layer.ops->shape(&r.layer, &error) != COP_OK) return fail(error.text);
        cut_shards(&r);
        if (!run_layer(&r)) return fail("a request's numbers are not all there");
    }
    return feof(stdin) ? 0 : fail("a request that cannot be read");
}
