/* coppice features: shows the weights of a layer as tiles, and statistics of its units on the test
 * set. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/draw/tiles.h"
#include "common/base/alloc.h"
#include "common/base/str.h"
#include "common/ensemble/features.h"

#define COLUMNS   125   /* samples per pass */
#define UNITS_MAX 8192  /* maximum units: the products of all pairs of units take 512 MB */
#define TILES_MAX 16384 /* maximum rows of a drawn weight matrix */

/* ---- the layer ---- */

/* The weight matrix of a layer. NULL: it has none. */
static const cop_parameter *weight_of(const cop_model *model, const cop_layer *layer) {
    for (int i = 0; i < layer->parameter_count; i++) {
        const cop_parameter *p = cop_model_parameter(model, layer->parameter_first + i);
        if (p->rank >= 2) return p;
    }
    return NULL;
}

static cop_err fail_layer(const cop_model *model, int64_t index, cop_error *error) {
    cop_str with = {0};
    const int count = cop_model_layer_count(model);
    for (int i = 0; i < count; i++)
        if (weight_of(model, cop_model_layer(model, i)))
            cop_str_printf(&with, "%s%d (%s)", with.length ? ", " : "", i,
                           cop_model_layer(model, i)->ops->kind);
    cop_err e;
    if (index >= count)
        e = cop_fail(error, COP_ERR_INPUT,
                     "--layer is %lld, but the model has %d layers; layers with weights: %s",
                     (long long)index, count, cop_str_text(&with));
    else
        e = cop_fail(
            error, COP_ERR_INPUT, "layer %lld (%s) has no weights to show; layers with weights: %s",
            (long long)index, cop_model_layer(model, (int)index)->ops->kind, cop_str_text(&with));
    cop_str_fini(&with);
    return e;
}

static const cop_layer *first_with_weights(const cop_model *model) {
    int i = 0;
    while (!weight_of(model, cop_model_layer(model, i))) {
        i++;
        COP_ASSERT(i < cop_model_layer_count(model)); /* a model has a layer with weights */
    }
    return cop_model_layer(model, i);
}

/* The shape of the input that a row of the weight matrix is multiplied with. If a flatten layer or
 * the model made that input from an image, this is the shape of the image, of rank 3. If the rank
 * of the result is not 3, the input was not an image. */
static cop_shape seen_shape(const cop_model *model, const cop_layer *layer,
                            const cop_data_part *part) {
    cop_shape shape = layer->in;
    int i = layer->index - 1;
    for (; i >= 0 && shape.rank != 3; i--) {
        const cop_layer *before = cop_model_layer(model, i);
        if (cop_shape_size(&before->in) != cop_shape_size(&shape) || before->parameter_count)
            return shape;
        shape = before->in;
    }
    if (i < 0 && shape.rank != 3 && part->rank == 3)
        shape = (cop_shape){.rank = 3, .dims = {part->dims[0], part->dims[1], part->dims[2]}};
    return shape;
}

static cop_err draw(const cli_model *m, const cop_layer *layer, const cop_data_part *part,
                    const cli_options *options, cop_error *error) {
    const cop_model *model = m->job->model;
    const cop_parameter *p = weight_of(model, layer);
    COP_ASSERT(p != NULL);
    cli_tiles tiles = {.weights = m->flat + p->offset, .count = p->rows, .channels = 1};
    const cop_shape shape = seen_shape(model, layer, part);
    if (p->rank == 4) { /* conv2d: (out, in, height, width) */
        tiles.channels = p->dims[1];
        tiles.height = p->dims[2];
        tiles.width = p->dims[3];
    } else if (shape.rank == 3) {
        tiles.channels = shape.dims[0];
        tiles.height = shape.dims[1];
        tiles.width = shape.dims[2];
    } else { /* the input is not an image: draws the weights of a row as a nearly square tile */
        tiles.width = (int)ceil(sqrt(p->cols));
        tiles.height = (p->cols + tiles.width - 1) / tiles.width;
        tiles.missing = tiles.width * tiles.height - p->cols;
    }
    COP_ASSERT(tiles.channels * tiles.height * tiles.width - tiles.missing == p->cols);
    if (p->rows > TILES_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "%s has %d rows: the limit for a drawing is %d",
                        p->name, p->rows, TILES_MAX);
    tiles.columns = options->columns ? (int)options->columns : (int)ceil(sqrt(tiles.count));
    return cli_tiles_write(&tiles, options->output, error);
}

/* ---- statistics ---- */

typedef struct watcher {
    int layer;
    cop_features *features;
} watcher;

/* Returns the number of units in a layer's output. *places becomes the number of values per unit:
 * the positions of a channel, otherwise 1. */
static int units_of(const cop_layer *layer, int *places) {
    const int size = (int)cop_shape_size(&layer->out);
    const int units = layer->out.rank == 3 ? layer->out.dims[0] : size;
    *places = size / units;
    COP_ASSERT(units * *places == size);
    return units;
}

static void watch(void *context, const cop_layer *layer, const cop_layer_context *c,
                  const float *output) {
    const watcher *w = context;
    int places;
    if (!layer || layer->index != w->layer) return;
    units_of(layer, &places);
    COP_ASSERT(c->columns >= 1 && c->columns <= COLUMNS);
    cop_features_add(w->features, output, places, c->columns, c->ld);
}

static void run_samples(cop_pass *pass, const cli_model *m, const cop_data_part *part,
                        cli_progress *progress) {
    for (uint32_t at = 0; at < part->count; at += COLUMNS) {
        const uint32_t n = part->count - at < COLUMNS ? part->count - at : COLUMNS;
        const cop_samples samples = {.dtype = m->job->sample_type,
                                     .count = (int)n,
                                     .features = (int)m->job->features,
                                     .stride = part->stride,
                                     .labels = part->labels + at,
                                     .rows =
                                         (const char *)part->samples + (size_t)at * part->stride};
        const cop_eval_place place = {.seed = m->job->message->seed, .first_sample = at};
        int ld;
        cop_pass_logits(pass, m->flat, &place, &samples, &ld);
        cli_progress_show(progress, (double)at / part->count, "statistics of the test set");
    }
}

/* The statistics of a layer, and the progress of their measurement. */
typedef struct measurement {
    cli_progress progress;
    cop_feature_figures figures;
} measurement;

/* Measures the activations of a layer on the test part. If an element-wise layer such as relu
 * follows, it measures the output of that layer. */
static cop_err measure(measurement *to, const cli_model *m, const cop_data *data,
                       const cop_layer *layer, cop_error *error) {
    const cop_kernels *kernels;
    unsigned char digest[32];
    cop_pass *pass = NULL;
    int places;
    COP_ASSERT(layer);
    if (layer->next && layer->next->ops->map) layer = layer->next;
    const int units = units_of(layer, &places);
    watcher w = {.layer = layer->index};
    if (units > UNITS_MAX)
        return cop_fail(error, COP_ERR_LIMIT,
                        "layer %d has %d units: the limit for statistics of pairs is %d",
                        layer->index, units, UNITS_MAX);
    COP_TRY(cli_choose_kernels(&kernels, digest, error));
    COP_TRY(cop_features_create(units, &w.features, error));
    cop_err e = cop_pass_create(m->job->model, kernels, m->job->numerics, COLUMNS, COP_PASS_EVAL,
                                &pass, error);
    if (!e) {
        cop_pass_set_tap(pass, (cop_pass_tap){.after = watch, .context = &w});
        run_samples(pass, m, &data->test, &to->progress);
        cop_features_get(w.features, &to->figures);
        cop_pass_destroy(pass);
    }
    cop_features_destroy(w.features);
    return e;
}

static void print_figures(const cli_options *options, const cli_model *m, const cop_layer *layer,
                          const cop_feature_figures *f) {
    Coppice__Api__FeaturesResult r = COPPICE__API__FEATURES_RESULT__INIT;
    const bool pairs = !isnan(f->correlation);
    r.digest = (char *)(uintptr_t)m->digest;
    r.kind = (char *)(uintptr_t)layer->ops->kind;
    r.output = (char *)(uintptr_t)options->output;
    r.has_layer = r.has_units = r.has_samples = r.has_mean_activation = r.has_zero_share =
        r.has_dead_share = 1;
    r.has_correlation = pairs;
    r.layer = (uint32_t)layer->index;
    r.units = (uint32_t)f->units;
    r.samples = f->samples;
    r.mean_activation = f->mean;
    r.zero_share = f->zeros;
    r.dead_share = f->dead;
    r.correlation = pairs ? f->correlation : 0;
    if (options->json) {
        cli_print_json(&r.base);
        return;
    }
    cli_print("layer %d (%s), %d units, %llu values of each\n", layer->index, layer->ops->kind,
              f->units, (unsigned long long)f->samples);
    cli_print("mean activation                %.4f\n", f->mean);
    cli_print("activations at zero            %.2f %%\n", 100 * f->zeros);
    cli_print("units that are always zero     %.2f %%\n", 100 * f->dead);
    if (pairs) cli_print("mean |correlation| of pairs    %.4f\n", f->correlation);
    if (options->output) cli_print("picture                        %s\n", options->output);
}

cop_err cli_features(const cli_options *options, cop_error *error) {
    cli_model m;
    cop_data *data = NULL;
    COP_TRY(cli_model_open(options->positional[0], &m, error));
    const cop_model *model = m.job->model;
    const cop_layer *layer = first_with_weights(model);
    measurement measured = {0};
    cop_err e = COP_OK;
    if (options->has_layer)
        layer = options->layer < cop_model_layer_count(model)
                    ? cop_model_layer(model, (int)options->layer)
                    : NULL;
    if (!layer || !weight_of(model, layer)) e = fail_layer(model, options->layer, error);
    if (!e) e = cli_model_data(&m, options, &data, error);
    cli_progress_start(&measured.progress, options->quiet);
    if (!e) e = measure(&measured, &m, data, layer, error);
    cli_progress_end(&measured.progress);
    if (!e && options->output) e = draw(&m, layer, &data->test, options, error);
    if (!e) print_figures(options, &m, layer, &measured.figures);
    if (data) cop_data_destroy(data);
    cli_model_close(&m);
    return e;
}
