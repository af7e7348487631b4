/* Times a dropconnect layer against a plain linear layer of the same size: forward, and backward
 * with both gradients, on one thread.
 *
 *   bench-dropconnect [--p P] [--repeats N]
 *
 * Prints one JSON line: 800 inputs, 800 units, batch 128 in 8 shards, medians of the CPU time in
 * ms. "forward_ms" is dropconnect's forward pass, "bits_ms" its part that draws the keep bits. The
 * two layers alternate. "ratio" is the median over the pairs of (dropconnect's time / linear's), so
 * that other load on the machine disturbs both sides of a pair alike. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/nn/layer.h"

enum { IN = 800, UNITS = 800, BATCH = 128, SHARDS = 8, REPEATS_MAX = 1000 };

/* A layer with everything that it needs to run. */
typedef struct subject {
    cop_layer layer;
    cop_parameter parameters[4];
    cop_layer_context context;
    float *x, *y, *dx;
    double ms[REPEATS_MAX], forward_ms[REPEATS_MAX], bits_ms[REPEATS_MAX];
} subject;

static cop_rng_key keys[BATCH];
static uint32_t samples[BATCH], no_samples[BATCH];
static int segments[SHARDS + 1];

static void open_subject(subject *s, const cop_layer_spec *spec, const cop_kernels *kernels) {
    cop_error error = {0};
    s->layer = (cop_layer){
        .ops = cop_layer_find(spec->kind), .spec = *spec, .in = {.rank = 1, .dims = {IN}}};
    const cop_layer_ops *ops = s->layer.ops;
    if (ops->shape(&s->layer, &error) != COP_OK) {
        fprintf(stderr, "bench-dropconnect: %s\n", error.text);
        exit(1);
    }
    int64_t floats = 0;
    s->layer.parameter_count = ops->parameters(&s->layer, s->parameters);
    for (int i = 0; i < s->layer.parameter_count; i++) {
        s->parameters[i].offset = floats;
        floats += (int64_t)s->parameters[i].rows * s->parameters[i].cols;
    }
    float *weights = cop_alloc((size_t)floats * sizeof *weights);
    ops->init(&s->layer, 1, s->parameters, weights);
    const size_t words = ops->mask_words ? (size_t)ops->mask_words(&s->layer, BATCH) : 1;
    const size_t scratch = ops->scratch ? ops->scratch(&s->layer, BATCH) : 1;
    s->context = (cop_layer_context){
        .kernels = kernels,
        .gemm = cop_gemm_for(COP_NUMERICS_PORTABLE),
        .workspace = cop_alloc(COP_GEMM_WORKSPACE),
        .scratch = cop_alloc(scratch),
        .mode = COP_MODE_TRAIN,
        .columns = BATCH,
        .ld = BATCH,
        .segments = segments,
        .segment_count = SHARDS,
        .mask_keys = keys,
        .samples = samples,
        .no_samples = no_samples,
        .weights = weights,
        .gradients = cop_alloc((size_t)floats * sizeof *weights),
        .parameters = s->parameters,
        .masks = cop_alloc(words * sizeof(uint16_t)),
    };
    s->x = cop_alloc(sizeof(float) * IN * BATCH);
    s->dx = cop_alloc(sizeof(float) * IN * BATCH);
    s->y = cop_alloc(sizeof(float) * UNITS * BATCH);
    for (int i = 0; i < IN * BATCH; i++) s->x[i] = (float)(i % 17) * 0.01f;
}

static void run(subject *s, int repeat) {
    s->context.step = (uint32_t)repeat;
    const uint64_t began = cop_clock_thread_ns();
    s->layer.ops->forward(&s->layer, &s->context, s->x, s->y);
    s->forward_ms[repeat] = (double)(cop_clock_thread_ns() - began) * 1e-6;
    s->layer.ops->backward(&s->layer, &s->context, &(cop_layer_tensors){s->x, s->y, s->y, s->dx});
    s->ms[repeat] = (double)(cop_clock_thread_ns() - began) * 1e-6;
}

/* Draws the keep bits of all samples once more, as forward does. */
static void draw_bits(subject *s, uint8_t *stream, int repeat) {
    enum { WORDS = (IN + 15) / 16 };
    const uint64_t began = cop_clock_thread_ns();
    for (int i = 0; i < BATCH; i++) {
        const cop_dropconnect_fill fill = {.out = UNITS,
                                           .in = IN,
                                           .to = UNITS,
                                           .threshold = cop_rng_drop_threshold(s->layer.spec.p),
                                           .sample = samples[i],
                                           .step = (uint32_t)repeat,
                                           .key = keys[i],
                                           .stream = stream,
                                           .bits = s->context.masks + (ptrdiff_t)i * WORDS,
                                           .stride = (ptrdiff_t)BATCH * WORDS};
        s->context.kernels->dropconnect_fill(&fill);
    }
    s->bits_ms[repeat] = (double)(cop_clock_thread_ns() - began) * 1e-6;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

int main(int argc, char **argv) {
    double p = 0.5;
    int repeats = 100;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--p") == 0) p = strtod(argv[i + 1], NULL);
        if (strcmp(argv[i], "--repeats") == 0) repeats = atoi(argv[i + 1]);
    }
    if (repeats < 1 || repeats > REPEATS_MAX) repeats = 100;
    const cop_kernels *kernels;
    cop_error error = {0};
    if (cop_kernels_choose(&kernels, &error) != COP_OK) {
        fprintf(stderr, "bench-dropconnect: %s\n", error.text);
        return 1;
    }
    for (int i = 0; i < BATCH; i++) {
        keys[i] = cop_rng_derive(1, COP_RNG_MASK, (uint32_t)(i / (BATCH / SHARDS)));
        samples[i] = (uint32_t)(i % (BATCH / SHARDS));
    }
    for (int i = 0; i <= SHARDS; i++) segments[i] = i * (BATCH / SHARDS);
    static subject linear, dropconnect;
    cop_layer_spec spec = {.kind = "linear", .units = UNITS, .bias = true, .init = COP_INIT_HE};
    open_subject(&linear, &spec, kernels);
    spec = (cop_layer_spec){.kind = "dropconnect",
                            .units = UNITS,
                            .p = p,
                            .bias = true,
                            .init = COP_INIT_HE,
                            .scope = COP_SCOPE_SAMPLE,
                            .variant = COP_VARIANT_CLASSIC,
                            .inference = COP_INFERENCE_MEAN};
    open_subject(&dropconnect, &spec, kernels);
    uint8_t *stream = cop_alloc(cop_dropconnect_stream((int64_t)IN * UNITS));
    static double ratios[REPEATS_MAX];
    for (int i = 0; i < repeats; i++) {
        run(&linear, i);
        run(&dropconnect, i);
        draw_bits(&dropconnect, stream, i);
        ratios[i] = dropconnect.ms[i] / linear.ms[i];
    }
    printf("{\"what\": \"dropconnect against linear\", \"isa\": \"%s\", \"p\": %g, \"linear_ms\": "
           "%.3f, \"dropconnect_ms\": %.3f, \"forward_ms\": %.3f, \"bits_ms\": %.3f, \"ratio\": "
           "%.2f}\n",
           kernels->name, p, median(linear.ms, repeats), median(dropconnect.ms, repeats),
           median(dropconnect.forward_ms, repeats), median(dropconnect.bits_ms, repeats),
           median(ratios, repeats));
    return 0;
}
