/* Thin execution. If the masks of an ensemble's member are the same for all samples, the member
 * runs as a smaller network, and its outputs must have the same bits as those of the masked
 * network. Training leaves out products of dropped units, which must not change any gradient. The
 * reference is the same pass with a tap, which makes it run all units and mask them.
 * LABELS: quick qemu */
#include <math.h>
#include <stdio.h>

#include "common/nn/thin.h"
#include "unit/nn/model_fixture.h"

enum { LAYERS = 24, CLASSES = 7, SEED = 31 };
#if !defined(__x86_64__) /* qemu takes ten times as long */
enum { NETWORKS = 5, MEMBERS = 2, SAMPLES_MOST = 64, EMULATED = 1 };
#elif defined(__SANITIZE_ADDRESS__) /* ASan six times */
enum { NETWORKS = 9, MEMBERS = 2, SAMPLES_MOST = 64, EMULATED = 0 };
#else
enum { NETWORKS = 90, MEMBERS = 20, SAMPLES_MOST = 130, EMULATED = 0 };
#endif

static void look(void *context, const cop_layer *layer, const cop_layer_context *c,
                 const float *output) {
    (void)context, (void)layer, (void)c, (void)output;
}

static cop_layer_spec spec_mask(const char *kind, double p, cop_scope scope, cop_variant variant) {
    cop_layer_spec spec = spec_dropout(p, scope, variant);
    snprintf(spec.kind, sizeof spec.kind, "%s", kind);
    return spec;
}

static cop_layer_spec spec_kind(const char *kind) {
    cop_layer_spec spec = {.slope = 0.1};
    snprintf(spec.kind, sizeof spec.kind, "%s", kind);
    return spec;
}

static cop_layer_spec spec_conv(int channels, int kernel, int padding) {
    return (cop_layer_spec){.kind = "conv2d",
                            .units = channels,
                            .kernel = kernel,
                            .stride = 1,
                            .padding = padding,
                            .bias = true,
                            .init = COP_INIT_HE};
}

static cop_layer_spec spec_maxout(int units, int pieces) {
    return (cop_layer_spec){
        .kind = "maxout", .units = units, .pieces = pieces, .bias = true, .init = COP_INIT_HE};
}

/* ---- a model and its members ---- */

typedef struct members {
    cop_model *model;
    cop_pass *pass;
    float *weights, *rows, *kept; /* kept: logits of the masked run */
    cop_samples samples;
    const cop_kernels *kernels;
} members;

static members members_open(const cop_layer_spec *layers, int count, cop_shape input,
                            const cop_kernels *kernels) {
    const cop_model_spec spec = {.layers = layers,
                                 .layer_count = count,
                                 .input = input,
                                 .classes = CLASSES,
                                 .loss = COP_LOSS_CROSS_ENTROPY};
    members m = {.kernels = kernels};
    cop_error error = {0};
    if (cop_model_create(&spec, &m.model, &error) ||
        cop_pass_create(m.model, kernels, COP_NUMERICS_PORTABLE, SAMPLES_MOST, COP_PASS_MEMBERS,
                        &m.pass, &error))
        fail_msg("%s", error.text);
    const int features = cop_model_features(m.model);
    m.weights = cop_alloc((size_t)cop_model_floats(m.model) * sizeof(float));
    m.rows = cop_alloc((size_t)features * SAMPLES_MOST * sizeof(float));
    m.kept = cop_alloc(CLASSES * 144 * sizeof(float));
    fill_random(m.rows, (size_t)features * SAMPLES_MOST, 8);
    for (int i = 0; i < cop_model_parameter_count(m.model); i++) { /* biases too; gaps stay 0 */
        const cop_parameter *w = cop_model_parameter(m.model, i);
        fill_random(m.weights + w->offset, (size_t)w->count, 100 + (uint32_t)i);
    }
    m.samples = (cop_samples){.dtype = COP_DTYPE_F32,
                              .features = features,
                              .stride = (size_t)features * sizeof(float),
                              .rows = m.rows};
    return m;
}

static void members_close(members *m) {
    cop_pass_destroy(m->pass);
    cop_model_destroy(m->model);
    cop_free(m->weights);
    cop_free(m->rows);
    cop_free(m->kept);
}

/* Compares bit for bit; all NaNs are equal. */
static bool same(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!(isnan(a[i]) && isnan(b[i])) && memcmp(&a[i], &b[i], sizeof *a) != 0) return false;
    return true;
}

/* Runs one member both ways. */
static void check_member(members *m, uint32_t member, int samples, const char *what) {
    int ld;
    m->samples.count = samples;
    cop_pass_set_tap(m->pass, (cop_pass_tap){.after = look});
    cop_pass_member_begin(m->pass, m->weights, SEED, member);
    const float *z = cop_pass_member_logits(m->pass, 5, &m->samples, &ld);
    memcpy(m->kept, z, (size_t)ld * CLASSES * sizeof *z);
    cop_pass_set_tap(m->pass, (cop_pass_tap){0});
    cop_pass_member_begin(m->pass, m->weights, SEED, member);
    for (int i = 0; i < 2; i++) { /* the member is begun once and run twice */
        z = cop_pass_member_logits(m->pass, 5, &m->samples, &ld);
        for (int k = 0; k < CLASSES; k++)
            if (!same(z + k * ld, m->kept + k * ld, (size_t)samples))
                fail_msg("%s: %s, member %u, class %d: first sample %a, masked %a", what,
                         m->kernels->name, member, k, (double)z[k * ld], (double)m->kept[k * ld]);
    }
}

/* Returns the number of parameters of a random member's smaller network; 0: it is not thinned. */
static int64_t size_of_member(const members *m, uint32_t member) {
    cop_thin *thin = NULL;
    cop_thinned network;
    int64_t size = 0;
    assert_int_equal(cop_thin_create(m->model, m->kernels, &thin, NULL), COP_OK);
    if (thin && cop_thin_draw(thin, m->weights, cop_rng_derive(SEED, COP_RNG_ENSEMBLE, 0), member,
                              &network))
        for (int i = 0; i < cop_model_layer_count(m->model); i++) {
            cop_parameter own[4];
            const cop_layer *layer = &network.layers[i];
            const int count = layer->ops->parameters ? layer->ops->parameters(layer, own) : 0;
            for (int p = 0; p < count; p++) size += (int64_t)own[p].rows * own[p].cols;
        }
    cop_thin_destroy(thin);
    return size;
}

#define SHARD(p) spec_dropout(p, COP_SCOPE_SHARD, COP_VARIANT_INVERTED)
#define COUNT(x) ((int)(sizeof(x) / sizeof(x)[0]))
static const cop_shape flat = {.rank = 1, .dims = {784}};
static const cop_shape image = {.rank = 3, .dims = {3, 12, 10}};

/* ---- the tests ---- */

static void test_member_runs_as_a_smaller_network(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {SHARD(0.2),  spec_linear(400),    spec_relu(),
                                     SHARD(0.5),  spec_linear(300),    spec_relu(),
                                     SHARD(0.25), spec_linear(CLASSES)};
    members m = members_open(layers, COUNT(layers), flat, best_kernels());
    for (uint32_t member = 0; member < MEMBERS; member++) {
        const double expected = 0.8 * 784 * 200 + 200 * 225 + 225 * CLASSES;
        const double size = (double)size_of_member(&m, member);
        assert_true(size > 0.8 * expected && size < 1.2 * expected);
        check_member(&m, member, SAMPLES_MOST, "a multilayer perceptron");
    }
    members_close(&m);
}

static void test_layers_are_thinned_only_where_zero_stays_zero(void **state) {
    (void)state;
    const struct {
        cop_layer_spec layers[5];
        bool first, second; /* is the first linear layer made smaller, and the second? */
    } cases[] = {
        {{spec_linear(50), spec_relu(), SHARD(0.5), spec_kind("tanh"), spec_linear(CLASSES)},
         true,
         true},
        {{spec_linear(50), spec_kind("sigmoid"), SHARD(0.5), spec_kind("gelu"),
          spec_linear(CLASSES)},
         true,
         true},
        {{spec_linear(50), spec_relu(), SHARD(0.5), spec_kind("sigmoid"), spec_linear(CLASSES)},
         false,
         false},
        {{spec_linear(50), spec_kind("softmax"), SHARD(0.5), spec_relu(), spec_linear(CLASSES)},
         false,
         true},
        {{spec_linear(50), spec_relu(), SHARD(0.5), spec_kind("softmax"), spec_linear(CLASSES)},
         false,
         false},
        {{spec_linear(50), spec_relu(), spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
          spec_relu(), spec_linear(CLASSES)},
         false,
         false},
        {{spec_linear(50), SHARD(0.5),
          spec_mask("gaussian_dropout", 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), spec_relu(),
          spec_linear(CLASSES)},
         false,
         false},
        {{spec_linear(50), spec_mask("alpha_dropout", 0.5, COP_SCOPE_SHARD, COP_VARIANT_INVERTED),
          spec_relu(), SHARD(0.5), spec_linear(CLASSES)},
         false,
         true},
        {{spec_linear(50), spec_relu(), SHARD(0), spec_relu(), spec_linear(CLASSES)}, false, false},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        members m = members_open(cases[i].layers, 5, flat, best_kernels());
        cop_thin_sides sides[5];
        cop_thin_find(m.model, sides);
        assert_true(sides[0].output == (cases[i].first ? 0.5 : 1));
        assert_true(sides[4].input == (cases[i].second ? 0.5 : 1));
        assert_true(sides[0].input == 1 && sides[4].output == 1);
        assert_int_equal(size_of_member(&m, 0) > 0, cases[i].first || cases[i].second);
        for (uint32_t member = 0; member < 3; member++) check_member(&m, member, 33, "a case");
        members_close(&m);
    }
}

static void test_channels_and_maxout_groups_are_thinned(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {
        spec_conv(20, 3, 1),
        spec_relu(),
        {.kind = "max_pool2d", .kernel = 2},
        spec_mask("spatial_dropout", 0.5, COP_SCOPE_SHARD, COP_VARIANT_INVERTED),
        spec_conv(40, 3, 0),
        spec_kind("leaky_relu"),
        spec_mask("spatial_dropout", 0.3, COP_SCOPE_SHARD, COP_VARIANT_CLASSIC),
        {.kind = "avg_pool2d", .kernel = 2},
        spec_flatten(),
        SHARD(0.2),
        spec_maxout(60, 3),
        SHARD(0.5),
        spec_linear(CLASSES)};
    members m = members_open(layers, COUNT(layers), image, best_kernels());
    cop_thin_sides sides[LAYERS];
    cop_thin_find(m.model, sides);
    assert_true(fabs(sides[4].input - 0.5) + fabs(sides[4].output - 0.7) < 1e-12);
    assert_true(fabs(sides[10].input - 0.7 * 0.8) + fabs(sides[10].output - 0.5) < 1e-12);
    for (uint32_t member = 0; member < MEMBERS; member++) {
        const double expected = 10 * 27 + 28 * 90 + 28 * 2 * 0.8 * 90 + 30 * CLASSES;
        const double size = (double)size_of_member(&m, member);
        assert_true(size > 0.3 * expected && size < 2 * expected);
        check_member(&m, member, 40, "a convolutional network");
    }
    members_close(&m);
}

/* Two cases cannot be thinned. In a masked run, 0 times an infinite weight gives NaN. A layer may
 * have no inputs left; its outputs are then only its bias. */
static void test_layers_that_cannot_be_thinned_run_masked(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(9), spec_relu(), SHARD(0.9), spec_linear(CLASSES)};
    members m = members_open(layers, COUNT(layers), flat, best_kernels());
    int thinned = 0;
    for (uint32_t member = 0; member < 40; member++) {
        thinned += size_of_member(&m, member) > 0;
        check_member(&m, member, 17, "few survivors");
    }
    assert_true(thinned > 5 && thinned < 35);
    const cop_parameter *second = cop_model_parameter(m.model, 2);
    for (int i = 0; i < 9; i++) m.weights[second->offset + i] = i % 2 ? INFINITY : NAN;
    for (uint32_t member = 0; member < 20; member++) {
        assert_int_equal(size_of_member(&m, member), 0);
        check_member(&m, member, 17, "weights that are not finite");
    }
    members_close(&m);
}

static uint32_t drawn;

static int draw(int below) {
    return (int)((double)(random_value(77, drawn++) + 1) / 2 * below);
}

static cop_layer_spec draw_mask(bool channels) {
    static const double chances[] = {0.5, 0.2, 0.8, 0, 0.35};
    static const char *const others[] = {"gaussian_dropout", "alpha_dropout"};
    const double p = chances[draw(5)];
    const cop_scope scope = draw(5) ? COP_SCOPE_SHARD : COP_SCOPE_SAMPLE;
    const cop_variant variant = draw(2) ? COP_VARIANT_INVERTED : COP_VARIANT_CLASSIC;
    if (channels && draw(4)) return spec_mask("spatial_dropout", p, scope, variant);
    return draw(8) ? spec_dropout(p, scope, variant)
                   : spec_mask(others[draw(2)], p, scope, variant);
}

static cop_layer_spec draw_between(bool channels) {
    static const char *const maps[] = {"relu", "leaky_relu", "tanh",   "gelu",
                                       "selu", "sigmoid",    "softmax"};
    return draw(2) ? draw_mask(channels) : spec_kind(maps[draw(20) % 7]);
}

static cop_layer_spec draw_weights(void) {
    const int units = 1 + draw(draw(3) ? 90 : 700);
    cop_layer_spec spec = spec_linear(units);
    switch (draw(6)) {
    case 0:
        return spec_maxout(1 + units / 4, 1 + draw(4));
    case 1:
        spec = spec_mask("dropconnect", 0.5, COP_SCOPE_SAMPLE, COP_VARIANT_CLASSIC);
        spec.units = 1 + units / 8, spec.init = COP_INIT_HE, spec.inference = COP_INFERENCE_MEAN;
        return spec;
    default:
        spec.bias = draw(4) > 0;
        return spec;
    }
}

static int draw_network(bool convolutions, cop_layer_spec *layers) {
    int count = 0;
    for (int i = draw(3); i > 0; i--) layers[count++] = draw_between(convolutions);
    for (int c = convolutions ? 1 + draw(2) : 0; c > 0; c--) {
        layers[count++] = spec_conv(1 + draw(40), 1 + draw(3), draw(2));
        for (int i = draw(4); i > 0; i--) layers[count++] = draw_between(true);
        if (draw(2)) layers[count++] = (cop_layer_spec){.kind = "max_pool2d", .kernel = 2};
        if (draw(2)) layers[count++] = draw_between(true);
    }
    if (convolutions) layers[count++] = spec_flatten();
    for (int hidden = draw(3); hidden > 0; hidden--) {
        for (int i = draw(3); i > 0; i--) layers[count++] = draw_between(false);
        layers[count++] = draw_weights();
    }
    for (int i = draw(3); i > 0; i--) layers[count++] = draw_between(false);
    layers[count++] = spec_linear(CLASSES);
    assert_true(count <= LAYERS);
    return count;
}

static void test_thinned_random_networks_equal_masked_ones(void **state) {
    (void)state;
    int thinned = 0, all = 0;
    for (int network = 0; network < NETWORKS; network++) {
        cop_layer_spec layers[LAYERS];
        const bool convolutions = network % 3 == 0;
        const int count = draw_network(convolutions, layers), samples = 1 + draw(SAMPLES_MOST);
        cop_shape input = convolutions ? image : flat;
        if (!convolutions) input.dims[0] = 1 + draw(800);
        for (const char *const *isa = cop_kernels_names(); *isa; isa++) {
            const cop_kernels *kernels = cop_kernels_find(*isa);
            const bool slow = strcmp(*isa, "baseline") == 0;
            if (!kernels || (slow && network % 4)) continue;
            members m = members_open(layers, count, input, kernels);
            for (uint32_t member = 0; member < 2; member++) {
                check_member(&m, member, slow ? 1 + samples / 8 : samples, "a random network");
                thinned += size_of_member(&m, member) > 0;
                all++;
            }
            members_close(&m);
        }
    }
    assert_true(thinned * 5 > all * 2 && thinned < all);
}

/* ---- training ---- */

/* Counts the products of `spied` that left out what is not needed. */
static const cop_kernels *spied;
static int reduced;

static bool spy_gemm_sparse(const cop_gemm *g, void *workspace) {
    const bool done = spied->gemm_sparse(g, workspace);
    reduced += done && g->needed;
    return done;
}

/* Makes some values unusual: -0, subnormal, or, if `wild`, not finite. */
static void spoil(float *x, size_t count, bool wild) {
    static const float unusual[] = {-0.0f, 0x1p-149f, -0x1p-140f, INFINITY, NAN, -INFINITY};
    for (size_t i = 0; i < count; i += 1 + count / 6) x[i] = unusual[draw(wild ? 6 : 3)];
}

/* Trains one step with masks on the whole network, and one that leaves out dropped units. Compares
 * gradients and losses. */
static void check_training(const cop_layer_spec *layers, int count, cop_shape input,
                           const cop_kernels *kernels, int samples, bool wild) {
    members m = members_open(layers, count, input, kernels);
    cop_kernels spy = *kernels;
    spied = kernels, spy.gemm_sparse = spy_gemm_sparse;
    cop_pass *pass;
    assert_int_equal(cop_pass_create(m.model, &spy, COP_NUMERICS_PORTABLE, SAMPLES_MOST,
                                     COP_PASS_TRAIN, &pass, NULL),
                     COP_OK);
    const size_t floats = (size_t)cop_model_floats(m.model);
    float *full = cop_alloc(floats * sizeof *full), *thin = cop_alloc(floats * sizeof *thin);
    int32_t labels[SAMPLES_MOST], sizes[4] = {0};
    for (int i = 0; i < samples; i++) labels[i] = draw(CLASSES);
    for (int i = 0, left = samples; i < 4; left -= sizes[i++])
        sizes[i] = i == 3 ? left : draw(2) ? left / 16 * 8 : draw(left + 1);
    m.samples.count = samples, m.samples.labels = labels;
    for (uint32_t step = 1; step <= 2; step++) {
        const cop_shard_work work = {SEED, step, 3, 4, sizes};
        cop_pass_result expected, result;
        if (step == 2) spoil(m.weights, floats, wild), spoil(m.rows, (size_t)samples * 20, wild);
        cop_pass_set_tap(pass, (cop_pass_tap){.after = look});
        cop_pass_train(pass, m.weights, &work, &m.samples, full, &expected);
        cop_pass_set_tap(pass, (cop_pass_tap){0});
        cop_pass_train(pass, m.weights, &work, &m.samples, thin, &result);
        if (!same(thin, full, floats)) fail_msg("%s: gradients differ in bits", kernels->name);
        assert_true(isnan(expected.loss) ? isnan(result.loss) : result.loss == expected.loss);
        assert_int_equal(result.correct, expected.correct);
    }
    cop_free(full), cop_free(thin);
    cop_pass_destroy(pass);
    members_close(&m);
}

static void test_training_leaves_out_dropped_units(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {SHARD(0.2),      spec_linear(400),    spec_relu(),
                                     SHARD(0.5),      spec_maxout(100, 3), SHARD(0.5),
                                     spec_linear(90), SHARD(0.5),          spec_linear(CLASSES)};
    for (const char *const *isa = cop_kernels_names(); *isa; isa++) {
        const cop_kernels *kernels = cop_kernels_find(*isa);
        if (!kernels || (EMULATED && strcmp(*isa, "baseline") == 0)) continue;
        reduced = 0;
        check_training(layers, COUNT(layers), flat, kernels, 64, false);
        assert_true(reduced >= 4);
        check_training(layers, COUNT(layers), flat, kernels, 61, true);
    }
}

static void test_training_of_random_networks_equals_masked_training(void **state) {
    (void)state;
    reduced = 0;
    for (int network = 0; network < NETWORKS; network++) {
        cop_layer_spec layers[LAYERS];
        const bool convolutions = network % 5 == 0;
        const int count = draw_network(convolutions, layers), samples = 1 + draw(SAMPLES_MOST);
        cop_shape input = convolutions ? image : flat;
        if (!convolutions) input.dims[0] = 20 + draw(800);
        for (const char *const *isa = cop_kernels_names(); *isa; isa++) {
            const cop_kernels *kernels = cop_kernels_find(*isa);
            const bool slow = strcmp(*isa, "baseline") == 0;
            if (!kernels || (slow && network % 4)) continue;
            check_training(layers, count, input, kernels, samples, network % 3 == 0);
        }
    }
    assert_true(reduced > 0 || EMULATED); /* five networks may all lack such a product */
}

static void test_thin_pass_without_memory_fails_cleanly(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {SHARD(0.2), spec_linear(CLASSES)};
    cop_model *model = model_of(layers, COUNT(layers), 20, CLASSES);
    assert_true(cop_thin_bytes(model) > 20 * CLASSES * sizeof(float));
    for (uint64_t k = 1; k <= 4; k++) {
        cop_pass *pass = NULL;
        cop_error error = {0};
        cop_alloc_fail_at(k);
        assert_int_equal(cop_pass_create(model, best_kernels(), COP_NUMERICS_PORTABLE, 8,
                                         COP_PASS_MEMBERS, &pass, &error),
                         COP_ERR_NO_MEMORY);
        assert_null(pass);
        assert_non_null(strstr(error.text, "no memory"));
    }
    cop_alloc_fail_at(0);
    cop_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_runs_as_a_smaller_network),
        cmocka_unit_test(test_layers_are_thinned_only_where_zero_stays_zero),
        cmocka_unit_test(test_channels_and_maxout_groups_are_thinned),
        cmocka_unit_test(test_layers_that_cannot_be_thinned_run_masked),
        cmocka_unit_test(test_thinned_random_networks_equal_masked_ones),
        cmocka_unit_test(test_training_leaves_out_dropped_units),
        cmocka_unit_test(test_training_of_random_networks_equals_masked_training),
        cmocka_unit_test(test_thin_pass_without_memory_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
