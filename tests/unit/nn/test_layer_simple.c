/* relu and flatten, and the shapes of layers.
 * LABELS: quick */
#include <math.h>

#include "unit/nn/model_fixture.h"

static void open_layer(one_layer *one, cop_layer_spec spec, cop_shape in, int columns) {
    cop_error error = {0};
    assert_int_equal(one_layer_bind(one, &spec, in, 0, &error), COP_OK);
    one_layer_open(one, best_kernels(), columns);
}

static void test_relu_keeps_nan_and_makes_minus_zero_plus(void **state) {
    (void)state;
    one_layer one;
    open_layer(&one, spec_relu(), (cop_shape){.rank = 1, .dims = {1}}, 16);
    float x[16] = {-1, 0, -0.0f, 2, NAN, -INFINITY, INFINITY, 1e-40f}, y[16];
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0 && y[3] == 2);
    assert_true(!signbit(y[0]) && !signbit(y[2]));
    assert_true(isnan(y[4]));
    assert_true(y[5] == 0 && isinf(y[6]) && y[7] == 1e-40f);
    one_layer_close(&one);
}

static void test_relu_passes_gradients_of_positive_outputs(void **state) {
    (void)state;
    one_layer one;
    open_layer(&one, spec_relu(), (cop_shape){.rank = 1, .dims = {1}}, 16);
    float y[16] = {0, 1, 0, 3}, dy[16], dx[16];
    for (int i = 0; i < 16; i++) dy[i] = -5;
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){NULL, y, dy, dx});
    assert_true(dx[0] == 0 && dx[1] == -5 && dx[2] == 0 && dx[3] == -5);
    one_layer_close(&one);
}

static void test_flatten_keeps_values_in_channel_row_column_order(void **state) {
    (void)state;
    one_layer one;
    open_layer(&one, spec_flatten(), (cop_shape){.rank = 3, .dims = {2, 3, 4}}, 3);
    assert_int_equal(one.layer.out.rank, 1);
    assert_int_equal(one.layer.out.dims[0], 24);
    float *x = one_layer_tensor(&one, &one.layer.in), *y = one_layer_tensor(&one, &one.layer.in);
    fill_random(x, 24 * 16, 1);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    assert_memory_equal(x, y, 24 * 16 * sizeof(float));
    cop_free(x), cop_free(y);
    one_layer_close(&one);
}

static void test_flatten_refuses_more_outputs_than_a_layer_may_have(void **state) {
    (void)state;
    one_layer one;
    cop_error error = {0};
    const cop_layer_spec spec = spec_flatten();
    const cop_shape in = {.rank = 3, .dims = {1024, 1024, 2}};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_LIMIT);
    assert_non_null(strstr(error.text, "2097152"));
}

static void test_layer_shapes_have_sizes_and_names(void **state) {
    (void)state;
    char text[64];
    const cop_shape flat = {.rank = 1, .dims = {784}}, image = {.rank = 3, .dims = {3, 32, 32}};
    assert_int_equal(cop_shape_size(&flat), 784);
    assert_int_equal(cop_shape_size(&image), 3072);
    assert_string_equal(cop_shape_format(&flat, text), "784");
    assert_string_equal(cop_shape_format(&image, text), "3 x 32 x 32");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relu_keeps_nan_and_makes_minus_zero_plus),
        cmocka_unit_test(test_relu_passes_gradients_of_positive_outputs),
        cmocka_unit_test(test_flatten_keeps_values_in_channel_row_column_order),
        cmocka_unit_test(test_flatten_refuses_more_outputs_than_a_layer_may_have),
        cmocka_unit_test(test_layer_shapes_have_sizes_and_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
