/* Models: layout of parameters, errors with suggestions, initial weights, digests.
 * LABELS: quick */
#include <math.h>

#include "common/base/hash.h"
#include "unit/nn/model_fixture.h"

static cop_model_spec spec_of(const cop_layer_spec *layers, int count) {
    return (cop_model_spec){
        .layers = layers,
        .layer_count = count,
        .input = {.rank = 3, .dims = {1, 28, 28}},
        .classes = 10,
        .loss = COP_LOSS_CROSS_ENTROPY,
    };
}

static void assert_refused(const cop_model_spec *spec, cop_err code, const char *text) {
    cop_model *model = NULL;
    cop_error error = {0};
    const cop_err found = cop_model_create(spec, &model, &error);
    assert_null(model);
    assert_int_equal(found, code);
    assert_int_equal(error.code, code);
    if (!strstr(error.text, text)) fail_msg("\"%s\" does not say \"%s\"", error.text, text);
    assert_int_equal(cop_model_create(spec, &model, NULL), code);
}

static void test_parameters_are_named_and_ordered_as_in_sequential(void **state) {
    (void)state;
    cop_layer_spec layers[] = {spec_dropout(0.2, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED),
                               spec_linear(5), spec_relu(), spec_linear(10)};
    layers[3].bias = false;
    layers[1].max_norm = 2;
    const cop_model_spec spec = spec_of(layers, 4);
    cop_model *model;
    assert_int_equal(cop_model_create(&spec, &model, NULL), COP_OK);
    assert_int_equal(cop_model_layer_count(model), 4);
    assert_int_equal(cop_model_parameter_count(model), 3);
    const cop_parameter *weight = cop_model_parameter(model, 0);
    const cop_parameter *bias = cop_model_parameter(model, 1);
    const cop_parameter *last = cop_model_parameter(model, 2);
    assert_string_equal(weight->name, "1.weight");
    assert_string_equal(bias->name, "1.bias");
    assert_string_equal(last->name, "3.weight");
    assert_int_equal(weight->offset, 0);
    assert_int_equal(bias->offset, 5 * 784);
    assert_int_equal(last->offset, 5 * 784 + 16);
    assert_int_equal(cop_model_floats(model), 5 * 784 + 16 + 64);
    assert_int_equal(cop_model_weights(model), 5 * 784 + 5 + 50);
    assert_true(weight->max_norm == 2 && bias->max_norm == 0);
    assert_int_equal(last->layer, 3);
    assert_int_equal(cop_model_features(model), 784);
    assert_int_equal(cop_model_outputs(model), 10);
    cop_model_destroy(model);
}

static void test_input_is_flattened_for_a_linear_first_layer(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_relu(), spec_linear(10)};
    const cop_model_spec spec = spec_of(layers, 2);
    cop_model *model;
    assert_int_equal(cop_model_create(&spec, &model, NULL), COP_OK);
    assert_int_equal(cop_model_layer(model, 0)->in.rank, 1);
    assert_int_equal(cop_model_layer(model, 0)->in.dims[0], 784);
    assert_true(cop_model_flop(model) == 784 + 2.0 * 784 * 10 + 10);
    cop_model_destroy(model);
}

static void test_outputs_must_match_the_classes(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(20), spec_relu(), spec_linear(12)};
    const cop_model_spec spec = spec_of(layers, 3);
    assert_refused(&spec, COP_ERR_INPUT,
                   "model[2] linear: the last layer has 12 outputs, expected 10");
}

static void test_model_without_weights_is_refused(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_relu(), spec_flatten()};
    cop_model_spec spec = spec_of(layers, 2);
    assert_refused(&spec, COP_ERR_INPUT, "no layer with weights, expected at least one linear");
    spec.layer_count = 0;
    assert_refused(&spec, COP_ERR_INPUT, "no layers");
    spec.layer_count = 257;
    assert_refused(&spec, COP_ERR_LIMIT, "the limit is 256");
}

static void test_dropout_after_the_last_linear_layer_is_refused(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(20), spec_linear(10),
                                     spec_dropout(0.5, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED)};
    const cop_model_spec spec = spec_of(layers, 3);
    assert_refused(&spec, COP_ERR_INPUT, "model[2] dropout");
    assert_refused(&spec, COP_ERR_INPUT, "(model[1] linear)");
}

static void test_errors_of_layers_name_the_layer(void **state) {
    (void)state;
    cop_layer_spec layers[] = {
        spec_linear(20), spec_dropout(1, COP_SCOPE_SAMPLE, COP_VARIANT_INVERTED), spec_linear(10)};
    cop_model_spec spec = spec_of(layers, 3);
    assert_refused(&spec, COP_ERR_INPUT, "model[1] dropout: p is 1, expected");
    layers[1] = spec_relu();
    layers[2].units = 0;
    assert_refused(&spec, COP_ERR_INPUT, "model[2] linear: units is 0");
}

static void test_unknown_kind_gets_the_nearest_name(void **state) {
    (void)state;
    cop_layer_spec layers[] = {spec_linear(10)};
    memcpy(layers[0].kind, "liner", 6);
    const cop_model_spec spec = spec_of(layers, 1);
    assert_refused(&spec, COP_ERR_INPUT, "model[0] liner: unknown layer");
    assert_refused(&spec, COP_ERR_INPUT, "did you mean linear?");
}

static void test_loss_and_data_are_checked(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(10)};
    cop_model_spec spec = spec_of(layers, 1);
    spec.loss = 0;
    assert_refused(&spec, COP_ERR_UNSUPPORTED, "expected cross_entropy, mse or bce");
    spec = spec_of(layers, 1);
    spec.smoothing = 1;
    assert_refused(&spec, COP_ERR_INPUT, "smoothing is 1, expected");
    spec = spec_of(layers, 1);
    spec.input.dims[1] = 0;
    assert_refused(&spec, COP_ERR_INPUT, "1 x 0 x 28");
    spec.input = (cop_shape){.rank = 2, .dims = {28, 28}};
    assert_refused(&spec, COP_ERR_INPUT, "2 dimensions");
    spec = spec_of(layers, 1);
    spec.classes = 0;
    assert_refused(&spec, COP_ERR_INPUT, "0 classes");
}

static void test_autoencoder_needs_an_output_for_each_feature(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(12), spec_relu(), spec_linear(784)};
    cop_model_spec spec = spec_of(layers, 3);
    spec.target_input = true;
    assert_refused(&spec, COP_ERR_INPUT, "cross_entropy compares with labels");
    spec.loss = COP_LOSS_BCE;
    cop_model *model = NULL;
    assert_int_equal(cop_model_create(&spec, &model, NULL), COP_OK);
    assert_false(cop_model_has_classes(model));
    assert_int_equal(cop_model_outputs(model), 784);
    cop_model_destroy(model);
    spec.layer_count = 1;
    assert_refused(&spec, COP_ERR_INPUT,
                   "model[0] linear: the last layer has 12 outputs, expected 784: data.target is "
                   "input, and a sample has 784 features");
    spec.layer_count = 3;
    spec.target_input = false;
    assert_refused(&spec, COP_ERR_INPUT, "784 outputs, expected 10: the data has 10 classes");
}

static void test_too_large_model_is_refused(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(1 << 20), spec_linear(10)};
    const cop_model_spec spec = spec_of(layers, 2);
    assert_refused(&spec, COP_ERR_LIMIT, "model[0] linear");
}

static void test_failed_allocation_of_a_model_leaks_nothing(void **state) {
    (void)state;
    const cop_layer_spec layers[] = {spec_linear(10)};
    const cop_model_spec spec = spec_of(layers, 1);
    for (uint64_t k = 1; k <= 3; k++) {
        cop_model *model = NULL;
        cop_alloc_fail_at(k);
        assert_int_equal(cop_model_create(&spec, &model, NULL), COP_ERR_NO_MEMORY);
        assert_null(model);
    }
    cop_alloc_fail_at(0);
}

static cop_model *small(void) {
    const cop_layer_spec layers[] = {spec_linear(5), spec_relu(), spec_linear(3)};
    return model_of(layers, 3, 7, 3);
}

static void test_init_zeroes_the_padding(void **state) {
    (void)state;
    cop_model *model = small();
    float flat[256];
    assert_true(cop_model_floats(model) <= 256);
    memset(flat, 0xff, sizeof flat);
    cop_model_init(model, 1, flat);
    for (int i = 0; i < 4; i++) {
        const cop_parameter *p = cop_model_parameter(model, i);
        const int64_t next =
            i < 3 ? cop_model_parameter(model, i + 1)->offset : cop_model_floats(model);
        for (int64_t j = p->offset + p->count; j < next; j++) assert_true(flat[j] == 0);
        assert_int_equal(p->offset % 16, 0);
    }
    cop_model_destroy(model);
}

static void hash_tensor(cop_sha256 *h, const char *name, const uint32_t *shape,
                        const float *values) {
    uint32_t count = 1;
    for (uint32_t i = 0; i < shape[0]; i++) count *= shape[i + 1];
    cop_sha256_update(h, name, strlen(name) + 1);
    cop_sha256_update(h, shape, (shape[0] + 1) * sizeof *shape);
    cop_sha256_update(h, values, count * sizeof *values);
}

static void test_digest_is_sha256_of_names_shapes_and_values(void **state) {
    (void)state;
    cop_model *model = small();
    float flat[256];
    cop_model_init(model, 1, flat);
    unsigned char found[32], expected[32];
    assert_int_equal(cop_model_digest(model, flat, found, NULL), COP_OK);
    cop_sha256 h;
    cop_sha256_init(&h);
    hash_tensor(&h, "0.weight", (const uint32_t[]){2, 5, 7}, flat);
    hash_tensor(&h, "0.bias", (const uint32_t[]){1, 5}, flat + 48);
    hash_tensor(&h, "2.weight", (const uint32_t[]){2, 3, 5}, flat + 64);
    hash_tensor(&h, "2.bias", (const uint32_t[]){1, 3}, flat + 80);
    cop_sha256_final(&h, expected);
    assert_memory_equal(found, expected, 32);
    cop_model_destroy(model);
}

static void test_digest_depends_on_every_bit_but_not_on_padding(void **state) {
    (void)state;
    cop_model *model = small();
    float flat[256];
    cop_model_init(model, 1, flat);
    unsigned char a[32], b[32];
    cop_model_digest(model, flat, a, NULL);
    flat[40] = 5;
    cop_model_digest(model, flat, b, NULL);
    assert_memory_equal(a, b, 32);
    flat[10] = nextafterf(flat[10], 9);
    cop_model_digest(model, flat, b, NULL);
    assert_memory_not_equal(a, b, 32);
    cop_model_destroy(model);
}

static void test_digest_refuses_nan_by_name(void **state) {
    (void)state;
    cop_model *model = small();
    float flat[256];
    unsigned char digest[32];
    cop_error error = {0};
    cop_model_init(model, 1, flat);
    flat[64] = NAN;
    assert_int_equal(cop_model_digest(model, flat, digest, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, "2.weight"));
    cop_model_destroy(model);
}

static void test_non_finite_weights_are_reported_with_the_first_layer(void **state) {
    (void)state;
    cop_model *model = small();
    float flat[256];
    char text[200];
    cop_model_init(model, 1, flat);
    assert_false(cop_model_find_not_finite(model, flat, text, sizeof text));
    flat[64] = INFINITY;
    flat[66] = NAN;
    flat[67] = -1.5e38f;
    assert_true(cop_model_find_not_finite(model, flat, text, sizeof text));
    assert_non_null(strstr(text, "layer 2 (linear): 2 of 15 values of 2.weight"));
    assert_non_null(strstr(text, "1.5e+38"));
    cop_model_destroy(model);
}

static void test_samples_from_input_are_checked(void **state) {
    (void)state;
    cop_model *model = small();
    const unsigned char rows[14] = {0};
    int32_t labels[2] = {0, 2};
    cop_samples samples = {COP_DTYPE_U8, 2, 7, 7, rows, labels};
    cop_error error = {0};
    assert_int_equal(cop_samples_check(&samples, model, &error), COP_OK);
    labels[1] = 3;
    assert_int_equal(cop_samples_check(&samples, model, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "label 3 of sample 1, expected 0 to 2"));
    labels[1] = -1;
    assert_int_equal(cop_samples_check(&samples, model, &error), COP_ERR_INPUT);
    labels[1] = 0;
    samples.features = 8;
    assert_int_equal(cop_samples_check(&samples, model, &error), COP_ERR_INPUT);
    samples.features = 7;
    samples.dtype = COP_DTYPE_F32;
    assert_int_equal(cop_samples_check(&samples, model, &error), COP_ERR_INPUT);
    cop_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_are_named_and_ordered_as_in_sequential),
        cmocka_unit_test(test_input_is_flattened_for_a_linear_first_layer),
        cmocka_unit_test(test_outputs_must_match_the_classes),
        cmocka_unit_test(test_model_without_weights_is_refused),
        cmocka_unit_test(test_dropout_after_the_last_linear_layer_is_refused),
        cmocka_unit_test(test_errors_of_layers_name_the_layer),
        cmocka_unit_test(test_unknown_kind_gets_the_nearest_name),
        cmocka_unit_test(test_loss_and_data_are_checked),
        cmocka_unit_test(test_autoencoder_needs_an_output_for_each_feature),
        cmocka_unit_test(test_too_large_model_is_refused),
        cmocka_unit_test(test_failed_allocation_of_a_model_leaks_nothing),
        cmocka_unit_test(test_init_zeroes_the_padding),
        cmocka_unit_test(test_digest_is_sha256_of_names_shapes_and_values),
        cmocka_unit_test(test_digest_depends_on_every_bit_but_not_on_padding),
        cmocka_unit_test(test_digest_refuses_nan_by_name),
        cmocka_unit_test(test_non_finite_weights_are_reported_with_the_first_layer),
        cmocka_unit_test(test_samples_from_input_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
