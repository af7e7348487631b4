/* conv2d, max_pool2d and avg_pool2d: errors, shapes, parameters and FLOP. Both passes are compared
 * with plain loops in long double. LABELS: quick qemu */
#include <math.h>

#include "unit/nn/model_fixture.h"

static cop_shape image(int channels, int height, int width) {
    return (cop_shape){.rank = 3, .dims = {channels, height, width}};
}

static cop_layer_spec spec_conv(int channels, int kernel, int stride, int padding) {
    return (cop_layer_spec){.kind = "conv2d",
                            .units = channels,
                            .kernel = kernel,
                            .stride = stride,
                            .padding = padding,
                            .bias = true,
                            .init = COP_INIT_HE};
}

static cop_layer_spec spec_pool(const char *kind, int kernel, int stride) {
    cop_layer_spec spec = {.kernel = kernel, .stride = stride};
    memcpy(spec.kind, kind, strlen(kind) + 1);
    return spec;
}

static void assert_refused(cop_layer_spec spec, cop_shape in, cop_err code, const char *part) {
    one_layer one;
    cop_error error = {0};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), code);
    if (!strstr(error.text, part)) fail_msg("\"%s\" does not say \"%s\"", error.text, part);
}

static void test_conv_refuses_invalid_fields(void **state) {
    (void)state;
    const cop_shape flat = {.rank = 1, .dims = {784}}, small = image(3, 8, 6);
    const cop_err input = COP_ERR_INPUT;
    assert_refused(spec_conv(4, 3, 1, 0), flat, input,
                   "its input is 784, expected an image (channels x height x width)");
    assert_refused(spec_conv(4, 7, 1, 0), small, input,
                   "kernel is 7, expected 1 to 6: its input is 3 x 8 x 6, padding 0");
    assert_refused(spec_conv(4, 9, 1, 1), small, input, "kernel is 9, expected 1 to 8");
    assert_refused(spec_conv(0, 3, 1, 0), small, input, "channels is 0, expected 1 to 1048576");
    assert_refused(spec_conv(4, 0, 1, 0), small, input, "kernel is 0");
    assert_refused(spec_conv(4, 3, 0, 0), small, input, "stride 0");
    assert_refused(spec_conv(4, 3, 1, -1), small, input, "padding -1");
    assert_refused(spec_conv(1 << 18, 3, 1, 1), small, COP_ERR_LIMIT,
                   "its output has 262144 x 8 x 6 values: the limit is 1048576");
    assert_refused(
        spec_conv(1, 2058, 1, 1024), image(16, 10, 10), COP_ERR_LIMIT,
        "kernel 2058 and padding 1024 make the images too large: the limit is 67108864 values");
    cop_layer_spec spec = spec_conv(4, 3, 1, 0);
    spec.max_norm = -1;
    assert_refused(spec, small, input, "max_norm is -1");
    spec = spec_conv(4, 3, 1, 0);
    spec.init = 0;
    assert_refused(spec, small, input, "he, glorot or torch");
}

static void test_pools_refuse_invalid_fields(void **state) {
    (void)state;
    const cop_shape flat = {.rank = 1, .dims = {784}}, small = image(3, 8, 6);
    static const char *const kinds[] = {"max_pool2d", "avg_pool2d"};
    for (int i = 0; i < 2; i++) {
        assert_refused(spec_pool(kinds[i], 2, 0), flat, COP_ERR_INPUT, "expected an image");
        assert_refused(spec_pool(kinds[i], 7, 0), small, COP_ERR_INPUT,
                       "kernel is 7, expected 1 to 6: its input is 3 x 8 x 6");
        assert_refused(spec_pool(kinds[i], 0, 0), small, COP_ERR_INPUT, "kernel is 0");
        assert_refused(spec_pool(kinds[i], 2, -1), small, COP_ERR_INPUT, "stride is -1");
    }
    assert_refused(spec_pool("max_pool2d", 257, 1), image(1, 300, 300), COP_ERR_INPUT,
                   "kernel is 257, expected 1 to 256");
}

static void assert_output(cop_layer_spec spec, cop_shape in, cop_shape out, double flop) {
    one_layer one;
    cop_error error = {0};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_OK);
    assert_int_equal(one.layer.out.rank, 3);
    for (int i = 0; i < 3; i++) assert_int_equal(one.layer.out.dims[i], out.dims[i]);
    assert_true(one.layer.ops->flop(&one.layer) == flop);
}

static void test_shapes_and_flop_of_convolutions_and_pools(void **state) {
    (void)state;
    const cop_shape in = image(3, 9, 12);
    assert_output(spec_conv(8, 3, 1, 0), in, image(8, 7, 10), 8 * 70 * (2 * 27 + 1));
    assert_output(spec_conv(8, 3, 1, 1), in, image(8, 9, 12), 8 * 108 * 55);
    assert_output(spec_conv(8, 4, 3, 2), in, image(8, 4, 5), 8 * 20 * (2 * 48 + 1));
    assert_output(spec_pool("max_pool2d", 2, 0), in, image(3, 4, 6), 3 * 24 * 3);
    assert_output(spec_pool("avg_pool2d", 3, 2), in, image(3, 4, 5), 3 * 20 * 10);
}

static void test_max_norm_limits_a_filter_as_a_row(void **state) {
    (void)state;
    one_layer one;
    cop_error error = {0};
    cop_layer_spec spec = spec_conv(4, 3, 1, 0);
    spec.max_norm = 1.5;
    assert_int_equal(one_layer_bind(&one, &spec, image(2, 5, 5), 0, &error), COP_OK);
    one_layer_open(&one, best_kernels(), 1);
    assert_int_equal(one.layer.parameter_count, 2);
    static const int32_t dims[] = {4, 2, 3, 3};
    assert_int_equal(one.parameters[0].rank, 4);
    assert_memory_equal(one.parameters[0].dims, dims, sizeof dims);
    assert_int_equal(one.parameters[0].rows, 4);
    assert_int_equal(one.parameters[0].cols, 18);
    assert_true(one.parameters[0].max_norm == 1.5);
    assert_string_equal(one.parameters[1].name, "bias");
    assert_int_equal(one.parameters[1].cols, 4);
    one_layer_close(&one);
    spec.bias = false;
    assert_int_equal(one_layer_bind(&one, &spec, image(2, 5, 5), 0, &error), COP_OK);
    one_layer_open(&one, best_kernels(), 1);
    assert_int_equal(one.layer.parameter_count, 1);
    one_layer_close(&one);
}

/* The result of plain loops for one layer. */
typedef struct plain {
    long double *y, *dx, *dw, *db;
} plain;

static void plain_conv(const one_layer *one, const float *x, const float *dy, plain *out) {
    const int32_t *in = one->layer.in.dims, *to = one->layer.out.dims;
    const cop_layer_spec *spec = &one->layer.spec;
    const int ld = one->context.ld;
    const float *w = one->flat, *bias = one->flat + one->parameters[1].offset;
    for (int f = 0; f < to[0]; f++)
        for (int i = 0; i < to[1] * to[2] * ld; i++) {
            const int row = i / ld / to[2], column = i / ld % to[2], n = i % ld;
            const int at = f * to[1] * to[2] * ld + i;
            if (n >= one->context.columns) continue;
            out->y[at] = (long double)bias[f];
            out->db[f] += (long double)dy[at];
            for (int p = 0; p < one->parameters[0].cols; p++) {
                const int c = p / spec->kernel / spec->kernel;
                const int u = row * spec->stride + p / spec->kernel % spec->kernel - spec->padding;
                const int v = column * spec->stride + p % spec->kernel - spec->padding;
                if (u < 0 || u >= in[1] || v < 0 || v >= in[2]) continue;
                const int from = ((c * in[1] + u) * in[2] + v) * ld + n;
                const int weight = f * one->parameters[0].cols + p;
                out->y[at] += (long double)w[weight] * (long double)x[from];
                out->dw[weight] += (long double)dy[at] * (long double)x[from];
                out->dx[from] += (long double)dy[at] * (long double)w[weight];
            }
        }
}

static void assert_near(const char *what, const float *found, const long double *expected,
                        size_t count) {
    long double largest = 0;
    for (size_t i = 0; i < count; i++) largest = fmaxl(largest, fabsl(expected[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabsl((long double)found[i] - expected[i]) <= 2e-6L * largest))
            fail_msg("%s[%zu] is %g, expected %Lg", what, i, (double)found[i], expected[i]);
}

static long double *zeros(size_t count) {
    return cop_alloc(count * sizeof(long double));
}

/* Checks a convolution on every instruction set. The filters have more columns than a block, and
 * the images more rows than one level of sums. */
static void check_conv(const cop_kernels *kernels, cop_layer_spec spec, cop_shape in, int columns) {
    one_layer one;
    cop_error error = {0};
    if (one_layer_bind(&one, &spec, in, 0, &error) != COP_OK) fail_msg("%s", error.text);
    one_layer_open(&one, kernels, columns);
    fill_random(one.flat, (size_t)one.floats, 3);
    const size_t ld = (size_t)one.context.ld, wide = (size_t)cop_shape_size(&in) * ld,
                 units = (size_t)cop_shape_size(&one.layer.out) * ld;
    float *x = one_layer_tensor(&one, &in), *dx = one_layer_tensor(&one, &in);
    float *y = one_layer_tensor(&one, &one.layer.out), *dy = one_layer_tensor(&one, &one.layer.out);
    for (size_t i = 0; i < wide; i++)
        x[i] = (int)(i % ld) < columns ? random_value(1, (uint32_t)i) : 0;
    for (size_t i = 0; i < units; i++)
        dy[i] = (int)(i % ld) < columns ? random_value(2, (uint32_t)i) : 0;
    plain expected = {zeros(units), zeros(wide), zeros((size_t)one.floats),
                      zeros((size_t)spec.units)};
    plain_conv(&one, x, dy, &expected);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, dy, dx});
    for (size_t i = 0; i < units; i++)
        if ((int)(i % ld) >= columns) y[i] = 0;
    assert_near("y", y, expected.y, units);
    assert_near("dx", dx, expected.dx, wide);
    assert_near("dw", one.gradients, expected.dw, (size_t)one.parameters[0].count);
    assert_near("db", one.gradients + one.parameters[1].offset, expected.db, (size_t)spec.units);
    cop_free(x), cop_free(dx), cop_free(y), cop_free(dy);
    cop_free(expected.y), cop_free(expected.dx), cop_free(expected.dw), cop_free(expected.db);
    one_layer_close(&one);
}

static void test_conv_matches_plain_loops(void **state) {
    (void)state;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (!kernels) continue;
        check_conv(kernels, spec_conv(37, 3, 1, 1), image(30, 5, 6), 11);
        check_conv(kernels, spec_conv(270, 2, 2, 1), image(70, 3, 2), 5);
        check_conv(kernels, spec_conv(5, 4, 3, 2), image(2, 11, 10), 40);
    }
}

/* Of equal values the first counts as the maximum, and so does the first NaN. Rows and columns that
 * do not fill a window are not read. */
static void test_max_pool_takes_the_largest_of_a_window(void **state) {
    (void)state;
    enum { LD = 16 };
    static const float pixels[6][3][3] = {
        {{1, 2, 9}, {3, 0, 9}, {9, 9, 9}},
        {{4, 4, 9}, {4, 4, 9}, {9, 9, 9}},
        {{-3, -1, 9}, {-2, -1, 9}, {9, 9, 9}},
        {{5, NAN, 9}, {7, NAN, 9}, {9, 9, 9}},
        {{-INFINITY, -INFINITY, 9}, {-1e30f, -INFINITY, 9}, {9, 9, 9}},
        {{-1, -0.0f, 9}, {0.0f, -2, 9}, {9, 9, 9}},
    };
    static const uint16_t winner[6] = {2, 0, 1, 1, 2, 1};
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (!kernels) continue;
        float x[9 * LD] = {0}, y[LD], dy[LD], dx[9 * LD];
        uint16_t winners[LD];
        for (int i = 0; i < 9; i++)
            for (int c = 0; c < 6; c++) x[i * LD + c] = pixels[c][i / 3][i % 3];
        const cop_pool pool = {1, 3, 3, 1, 1, 2, 2, LD};
        kernels->max_pool(&pool, x, y, winners);
        for (int c = 0; c < LD; c++) dy[c] = (float)c + 1;
        kernels->max_pool_backward(&pool, dy, winners, dx);
        for (int c = 0; c < 6; c++) {
            const int at = winner[c] / 2 * 3 + winner[c] % 2;
            assert_int_equal(winners[c], winner[c]);
            assert_true(y[c] == x[at * LD + c] || (c == 3 && isnan(y[c])));
            assert_false(y[c] == 0 && signbit(y[c]));
            for (int i = 0; i < 9; i++) assert_true(dx[i * LD + c] == (i == at ? dy[c] : 0));
        }
    }
}

static void test_avg_pool_takes_the_mean_of_a_window(void **state) {
    (void)state;
    enum { LD = 16 };
    float x[4 * LD], y[LD], dy[LD], dx[4 * LD];
    fill_random(x, 4 * LD, 1);
    fill_random(dy, LD, 2);
    const cop_pool pool = {1, 2, 2, 1, 1, 2, 1, LD};
    best_kernels()->avg_pool(&pool, x, y);
    best_kernels()->avg_pool_backward(&pool, dy, dx);
    for (int c = 0; c < LD; c++) {
        assert_true(y[c] == (x[c] + x[LD + c] + x[2 * LD + c] + x[3 * LD + c]) / 4);
        for (int i = 0; i < 4; i++) assert_true(dx[i * LD + c] == dy[c] / 4);
    }
}

/* The gradient must be the sum, by the tree, of the gradients of single shards. Here one of 3
 * shards is absent. */
static void test_gradients_of_shards_are_summed_by_the_tree(void **state) {
    (void)state;
    enum { LD = 32, M = 3, K = 4, H = 3, W = 2, X = 4 * 3 };
    float x[X * LD], dy[M * H * W * LD], dw[3][M * K], db[3][M], all[M * K], all_db[M];
    fill_random(x, X * LD, 1);
    fill_random(dy, M * H * W * LD, 2);
    static const ptrdiff_t rows[K] = {0, LD, 3 * LD, 4 * LD};
    float *sums = cop_alloc(COP_CONV_LEVELS * cop_conv_level(M, K) * sizeof *sums);
    void *workspace = cop_alloc(COP_GEMM_WORKSPACE);
    cop_conv_gradient g = {.m = M, .k = K, .ld = LD, .b = x, .b_rows = rows};
    g.height = H, g.width = W, g.b_down = 3 * LD, g.b_right = LD;
    g.dy = dy, g.dy_row = H * W * LD, g.sums = sums;
    static const int bounds[] = {0, 7, 18, 18, 29};
    static const int alone[3] = {0, 1, 3};
    for (int s = 0; s < 3; s++) {
        const int one[2] = {bounds[alone[s]], bounds[alone[s] + 1]};
        g.segments = one, g.segment_count = 1, g.dw = dw[s], g.db = db[s];
        best_kernels()->conv_gradient(&g, workspace);
    }
    g.segments = bounds, g.segment_count = 4, g.dw = all, g.db = all_db;
    best_kernels()->conv_gradient(&g, workspace);
    for (int i = 0; i < M * K; i++) assert_true(all[i] == (dw[0][i] + dw[1][i]) + dw[2][i]);
    for (int i = 0; i < M; i++) assert_true(all_db[i] == (db[0][i] + db[1][i]) + db[2][i]);
    static const int nothing[] = {0, 0, 0};
    g.segments = nothing, g.segment_count = 2;
    best_kernels()->conv_gradient(&g, workspace);
    for (int i = 0; i < M * K; i++) assert_true(all[i] == 0);
    cop_free(sums), cop_free(workspace);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv_refuses_invalid_fields),
        cmocka_unit_test(test_pools_refuse_invalid_fields),
        cmocka_unit_test(test_shapes_and_flop_of_convolutions_and_pools),
        cmocka_unit_test(test_max_norm_limits_a_filter_as_a_row),
        cmocka_unit_test(test_conv_matches_plain_loops),
        cmocka_unit_test(test_max_pool_takes_the_largest_of_a_window),
        cmocka_unit_test(test_avg_pool_takes_the_mean_of_a_window),
        cmocka_unit_test(test_gradients_of_shards_are_summed_by_the_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
