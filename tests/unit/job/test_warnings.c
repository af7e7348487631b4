/* Warnings about layers that are valid but useless, and errors about layers that make no sense, as
 * the author of a job file sees them. LABELS: quick */
#include "unit/job/fixture.h"

static cop_err try_model(const char *model, const char *loss, const cop_data *data, cop_job **out,
                         cop_error *error) {
    char text[600];
    snprintf(text, sizeof text,
             "name: small\ndata: {source: synthetic-digits}\nmodel: [%s]\nloss: %s\n"
             "train: {epochs: 1, batch: 30, shards: 4}\noptimizer: {sgd: {rate: 0.1}}\n",
             model, loss);
    return try_job(text, NULL, NULL, data, out, error);
}

static void assert_warning(const char *model, const char *loss, const char *expected) {
    cop_job *job = NULL;
    cop_error error = {0};
    cop_str warnings = {0};
    cop_data *data = small_data();
    if (try_model(model, loss, data, &job, &error) != COP_OK) fail_msg("%s", error.text);
    cop_job_warnings(job, &warnings);
    assert_string_equal(cop_str_text(&warnings), expected);
    cop_str_fini(&warnings);
    cop_job_release(job);
    cop_data_destroy(data);
}

static void assert_refused(const char *model, const char *expected) {
    cop_job *job = NULL;
    cop_error error = {0};
    cop_data *data = small_data();
    assert_int_equal(try_model(model, "cross_entropy", data, &job, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, expected));
    assert_null(job);
    cop_data_destroy(data);
}

static void test_softmax_before_cross_entropy_is_warned_about(void **state) {
    (void)state;
    assert_warning(
        "{linear: {units: 10}}, softmax", "cross_entropy",
        "model[1] softmax: the loss cross_entropy takes logits and applies a softmax itself, so "
        "this layer squashes the outputs a second time and slows learning: remove it\n");
}

static void test_sigmoid_before_bce_is_warned_about(void **state) {
    (void)state;
    assert_warning("{linear: {units: 10}}, sigmoid", "bce",
                   "model[1] sigmoid: the loss bce takes logits and applies a sigmoid itself, so "
                   "this layer squashes the outputs a second time and slows learning: remove it\n");
}

static void test_unit_dropout_on_feature_maps_is_warned_about(void **state) {
    (void)state;
    assert_warning("{dropout: {p: 0.1}}, {conv2d: {channels: 2, kernel: 5, stride: 4}}, relu, "
                   "{dropout: {p: 0.5}}, flatten, {dropout: {p: 0.5}}, {linear: {units: 10}}",
                   "cross_entropy",
                   "model[3] dropout: it drops single pixels of feature maps, but their neighbours "
                   "carry the same information: spatial_dropout drops whole maps\n");
    assert_warning("{conv2d: {channels: 2, kernel: 5, stride: 4}}, {spatial_dropout: {p: 0.5}}, "
                   "flatten, {linear: {units: 10}}",
                   "cross_entropy", "");
}

static void test_useful_layers_give_no_warning(void **state) {
    (void)state;
    assert_warning("{linear: {units: 10}}, sigmoid", "mse", "");
    assert_warning("{linear: {units: 10}}, softmax", "mse", "");
    assert_warning("{dropout: {p: 0.1}}, {linear: {units: 9}}, sigmoid, {alpha_dropout: {p: 0.1}}, "
                   "{linear: {units: 10}}",
                   "bce", "");
}

static void test_misplaced_layers_are_refused(void **state) {
    (void)state;
    assert_refused("{linear: {units: 10}}, {gaussian_dropout: {p: 0.5}}",
                   "model[1] gaussian_dropout: it would drop outputs of the network: expected it "
                   "before the last layer with weights (model[0] linear)");
    assert_refused("{linear: {units: 9}}, {spatial_dropout: {p: 0.5}}, {linear: {units: 10}}",
                   "model[1] spatial_dropout: it drops channels of images, but its input is flat "
                   "(9 values): expected channels x height x width, or dropout, which drops single "
                   "units");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax_before_cross_entropy_is_warned_about),
        cmocka_unit_test(test_sigmoid_before_bce_is_warned_about),
        cmocka_unit_test(test_unit_dropout_on_feature_maps_is_warned_about),
        cmocka_unit_test(test_useful_layers_give_no_warning),
        cmocka_unit_test(test_misplaced_layers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
