/* maxout: errors, parameters, and both passes compared with plain loops. LABELS: quick qemu */
#include <math.h>

#include "unit/nn/model_fixture.h"

static const cop_shape flat_3 = {.rank = 1, .dims = {3}};

static cop_layer_spec spec_maxout(int units, int pieces) {
    return (cop_layer_spec){
        .kind = "maxout", .units = units, .pieces = pieces, .bias = true, .init = COP_INIT_HE};
}

static void assert_refused(cop_layer_spec spec, cop_shape in, const char *part) {
    one_layer one;
    cop_error error = {0};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_ERR_INPUT);
    if (!strstr(error.text, part)) fail_msg("\"%s\" does not say \"%s\"", error.text, part);
}

static void test_maxout_refuses_invalid_fields(void **state) {
    (void)state;
    const cop_shape image = {.rank = 3, .dims = {3, 8, 8}};
    assert_refused(spec_maxout(2, 2), image, "flatten");
    assert_refused(spec_maxout(0, 2), flat_3, "units is 0, expected 1 to 524288 with 2 pieces");
    assert_refused(spec_maxout(1 << 19, 4), flat_3, "units is 524288, expected 1 to 262144");
    assert_refused(spec_maxout(2, 0), flat_3, "pieces is 0, expected 1 to 256");
    assert_refused(spec_maxout(2, 257), flat_3, "pieces is 257");
    cop_layer_spec spec = spec_maxout(2, 2);
    spec.max_norm = NAN;
    assert_refused(spec, flat_3, "max_norm");
    spec = spec_maxout(2, 2);
    spec.init = 0;
    assert_refused(spec, flat_3, "he, glorot or torch");
}

static void test_max_norm_limits_a_maxout_piece_as_a_row(void **state) {
    (void)state;
    one_layer one;
    cop_error error = {0};
    cop_layer_spec spec = spec_maxout(4, 5);
    spec.max_norm = 1.5;
    assert_int_equal(one_layer_bind(&one, &spec, flat_3, 0, &error), COP_OK);
    one_layer_open(&one, best_kernels(), 1);
    assert_int_equal(one.layer.parameter_count, 2);
    assert_int_equal(one.parameters[0].rows, 20);
    assert_int_equal(one.parameters[0].cols, 3);
    assert_true(one.parameters[0].max_norm == 1.5);
    assert_string_equal(one.parameters[1].name, "bias");
    assert_int_equal(one.parameters[1].cols, 20);
    assert_int_equal(one.layer.out.dims[0], 4);
    one_layer_close(&one);
    spec.bias = false;
    assert_int_equal(one_layer_bind(&one, &spec, flat_3, 0, &error), COP_OK);
    one_layer_open(&one, best_kernels(), 1);
    assert_int_equal(one.layer.parameter_count, 1);
    one_layer_close(&one);
}

enum { UNITS = 37, PIECES = 5, IN = 300, COLUMNS = 11, LD = 16, ROWS = UNITS * PIECES };

/* Inputs are small integers times powers of two, so every sum is exact in any order. */
static float exact_value(uint32_t stream, int index) {
    return floorf(random_value(stream, (uint32_t)index) * 8) / 4;
}

typedef struct plain {
    float y[UNITS][LD], dx[IN][LD], dw[ROWS][IN], db[ROWS];
    int winner[UNITS][LD];
} plain;

static void plain_run(const float *w, const float *bias, const float *x, const float *dy,
                      plain *out) {
    memset(out, 0, sizeof *out);
    for (int u = 0; u < UNITS; u++)
        for (int c = 0; c < COLUMNS; c++) {
            for (int p = 0; p < PIECES; p++) {
                const int row = u * PIECES + p;
                float z = bias[row];
                for (int i = 0; i < IN; i++) z += w[row * IN + i] * x[i * LD + c];
                if (p > 0 && !(z > out->y[u][c])) continue;
                out->y[u][c] = z;
                out->winner[u][c] = p;
            }
            const int row = u * PIECES + out->winner[u][c];
            const float gradient = dy[u * LD + c];
            out->db[row] += gradient;
            for (int i = 0; i < IN; i++) {
                out->dw[row][i] += gradient * x[i * LD + c];
                out->dx[i][c] += gradient * w[row * IN + i];
            }
        }
}

/* With 185 rows, the product for dX has less than one block of k. The conformance suite and the
 * parity tests have larger cases. */
static void test_maxout_matches_plain_loops(void **state) {
    (void)state;
    one_layer one;
    cop_error error = {0};
    const cop_layer_spec spec = spec_maxout(UNITS, PIECES);
    const cop_shape in = {.rank = 1, .dims = {IN}};
    assert_int_equal(one_layer_bind(&one, &spec, in, 0, &error), COP_OK);
    one_layer_open(&one, best_kernels(), COLUMNS);
    float *x = one_layer_tensor(&one, &one.layer.in), *dx = one_layer_tensor(&one, &one.layer.in);
    float *y = one_layer_tensor(&one, &one.layer.out), *dy = one_layer_tensor(&one, &one.layer.out);
    for (int i = 0; i < IN * LD; i++) x[i] = i % LD < COLUMNS ? exact_value(1, i) : 0;
    for (int i = 0; i < UNITS * LD; i++) dy[i] = i % LD < COLUMNS ? exact_value(2, i) : 0;
    for (int64_t i = 0; i < one.floats; i++) one.flat[i] = exact_value(3, (int)i);
    plain *expected = cop_alloc(sizeof *expected);
    plain_run(one.flat, one.flat + one.parameters[1].offset, x, dy, expected);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    one.layer.ops->backward(&one.layer, &one.context, &(cop_layer_tensors){x, y, dy, dx});
    const uint8_t *winners = (const uint8_t *)one.context.masks;
    for (int u = 0; u < UNITS; u++)
        for (int c = 0; c < COLUMNS; c++) {
            assert_true(y[u * LD + c] == expected->y[u][c]);
            assert_int_equal(winners[u * LD + c], expected->winner[u][c]);
        }
    for (int i = 0; i < IN; i++)
        for (int c = 0; c < COLUMNS; c++) assert_true(dx[i * LD + c] == expected->dx[i][c]);
    const float *gradients = one.gradients;
    assert_memory_equal(gradients + one.parameters[0].offset, expected->dw, sizeof expected->dw);
    assert_memory_equal(gradients + one.parameters[1].offset, expected->db, sizeof expected->db);
    cop_free(x), cop_free(dx), cop_free(y), cop_free(dy), cop_free(expected);
    one_layer_close(&one);
}

static void test_maxout_evaluation_gives_the_same_without_buffers(void **state) {
    (void)state;
    one_layer one;
    cop_error error = {0};
    const cop_layer_spec spec = spec_maxout(3000, 2); /* several blocks */
    assert_int_equal(one_layer_bind(&one, &spec, flat_3, 0, &error), COP_OK);
    one_layer_open(&one, best_kernels(), 40);
    float *x = one_layer_tensor(&one, &one.layer.in);
    float *y = one_layer_tensor(&one, &one.layer.out), *z = one_layer_tensor(&one, &one.layer.out);
    const size_t ld = (size_t)one.context.ld;
    fill_random(x, 3 * ld, 9);
    one.layer.ops->forward(&one.layer, &one.context, x, y);
    uint16_t *masks = one.context.masks;
    one.context.masks = NULL;
    one.context.mode = COP_MODE_EVAL;
    one.layer.ops->forward(&one.layer, &one.context, x, z);
    assert_memory_equal(y, z, 3000 * ld * sizeof(float));
    one.context.masks = masks;
    cop_free(x), cop_free(y), cop_free(z);
    one_layer_close(&one);
}

static void each_kernels(void (*check)(const cop_kernels *kernels)) {
    for (const char *const *name = cop_kernels_names(); *name; name++)
        if (cop_kernels_find(*name)) check(cop_kernels_find(*name));
}

/* Of equal pieces the one with the lowest index counts, and so does the first NaN. -0 becomes +0.
 */
static void check_select(const cop_kernels *kernels) {
    enum { CASES = 16, MANY = 4 };
    static const float cases[MANY][CASES] = {
        {1, 2, 2, -1, 0.0f, -0.0f, NAN, 1, 1, NAN, -INFINITY, 3, 0, 0, 0, 5},
        {2, 1, 2, -1, -0.0f, -0.0f, 1, NAN, 2, NAN, -INFINITY, 3, 0, 0, 1, 5},
        {3, 0, 1, -2, 0.0f, -0.0f, 9, 7, NAN, 4, INFINITY, 1, 1, 0, 1, 5},
        {3, 0, 3, -1, 0.0f, -0.0f, 9, NAN, 1, NAN, 1, 3, 1, 0, 0, 6},
    };
    static const uint8_t expected[CASES] = {2, 0, 3, 0, 0, 0, 0, 1, 2, 0, 2, 0, 2, 0, 1, 3};
    float y[CASES], again[CASES], dy[CASES], dz[MANY * CASES];
    uint8_t winners[CASES];
    const cop_maxout shape = {1, MANY, CASES};
    kernels->maxout(&shape, &cases[0][0], y, winners);
    kernels->maxout(&shape, &cases[0][0], again, NULL);
    assert_memory_equal(y, again, sizeof y);
    assert_memory_equal(winners, expected, sizeof winners);
    for (int c = 0; c < CASES; c++) {
        assert_true(y[c] == cases[winners[c]][c] || (isnan(y[c]) && isnan(cases[winners[c]][c])));
        assert_false(y[c] == 0 && signbit(y[c]));
        dy[c] = (float)c + 1;
    }
    kernels->maxout_scatter(&shape, dy, winners, dz);
    for (int i = 0; i < MANY * CASES; i++)
        assert_true(dz[i] == (i / CASES == winners[i % CASES] ? (float)(i % CASES + 1) : 0));
}

static void test_maxout_selection_on_every_instruction_set(void **state) {
    (void)state;
    each_kernels(check_select);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maxout_refuses_invalid_fields),
        cmocka_unit_test(test_max_norm_limits_a_maxout_piece_as_a_row),
        cmocka_unit_test(test_maxout_matches_plain_loops),
        cmocka_unit_test(test_maxout_evaluation_gives_the_same_without_buffers),
        cmocka_unit_test(test_maxout_selection_on_every_instruction_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
