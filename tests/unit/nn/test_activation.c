/* The element-wise functions of the kernels. On a dense grid, their errors are measured in units in
 * the last place against the C library's long double functions. Also tests special values, equal
 * bits on every instruction set, derivatives, and softmax forward and backward. LABELS: quick */
#include <math.h>
#include <stdio.h>

#include "unit/nn/model_fixture.h"

/* The grid: every STEP-th float of magnitude below 128, with all exponents and both signs. */
enum { STEP = 2039, FLOATS = 0x43000000 / STEP, GRID = 2 * FLOATS };

typedef struct function {
    const char *name;
    cop_activation kernel;
    long double (*value)(long double), (*derivative)(long double);
    long double ulps;
} function;

static long double exact_sigmoid(long double x) {
    return 1 / (1 + expl(-x));
}
static long double sigmoid_derivative(long double x) {
    return 1 / ((1 + expl(-x)) * (1 + expl(x)));
}
static long double tanh_derivative(long double x) {
    return 1 / (coshl(x) * coshl(x));
}
static long double exact_leaky_relu(long double x) {
    return x > 0 ? x : x * (long double)0.01f;
}
static long double leaky_relu_derivative(long double x) {
    return x > 0 ? 1 : (long double)0.01f;
}
static const long double selu_scale = 1.0507009873554804934193349852946L;
static const long double selu_alpha = 1.6732632423543772848170429916717L;
static long double exact_selu(long double x) {
    return selu_scale * (x > 0 ? x : selu_alpha * expm1l(x));
}
static long double selu_derivative(long double x) {
    return selu_scale * (x > 0 ? 1 : selu_alpha * expl(x));
}
static long double normal(long double x) {
    return erfcl(-x * sqrtl(0.5L)) / 2;
}
static long double exact_gelu(long double x) {
    return x * normal(x);
}
static long double gelu_derivative(long double x) {
    return normal(x) + x * expl(-x * x / 2) / sqrtl(8 * atanl(1));
}

/* 8 ulp are at most 9.6e-7 of the value. */
static const function functions[] = {
    {"sigmoid", COP_ACTIVATION_SIGMOID, exact_sigmoid, sigmoid_derivative, 4},
    {"tanh", COP_ACTIVATION_TANH, tanhl, tanh_derivative, 3},
    {"leaky_relu", COP_ACTIVATION_LEAKY_RELU, exact_leaky_relu, leaky_relu_derivative, 0.5L},
    {"selu", COP_ACTIVATION_SELU, exact_selu, selu_derivative, 5},
    {"gelu", COP_ACTIVATION_GELU, exact_gelu, gelu_derivative, 8},
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static float *grid(void) {
    float *x = cop_alloc(GRID * sizeof *x);
    for (uint32_t i = 0; i < FLOATS; i++) {
        const uint32_t bits = i * STEP;
        memcpy(&x[2 * i], &bits, sizeof bits);
        x[2 * i + 1] = -x[2 * i];
    }
    return x;
}

/* |found - exact| in units in the last place of an f32 near `exact`, at least of the smallest
 * normal. */
static long double ulps(float found, long double exact) {
    int exponent;
    frexpl(exact, &exponent);
    return fabsl(found - exact) / ldexpl(1, exponent > -125 ? exponent - 24 : -149);
}

static void test_activations_are_close_to_exact_values(void **state) {
    const function *f = *state;
    float *x = grid(), *y = cop_alloc(GRID * sizeof *y);
    best_kernels()->activate(f->kernel, 0.01f, x, y, GRID);
    long double worst = 0;
    float where = 0;
    for (int i = 0; i < GRID; i++) {
        const long double exact = f->value(x[i]), error = ulps(y[i], exact);
        /* products of subnormal numbers lose digits */
        if (fabsl(exact) < 0x1p-120L && fabsl(y[i] - exact) <= 0x1p-144L) continue;
        if (!(error <= worst)) worst = error, where = x[i];
    }
    print_message("%s: %.2Lf ulp at %a\n", f->name, worst, (double)where);
    if (!(worst <= f->ulps)) fail_msg("%s(%a): %.2Lf ulp", f->name, (double)where, worst);
    cop_free(x), cop_free(y);
}

/* The error of a derivative may be at most 1e-6 of the largest derivative. */
static void test_derivatives_are_close_to_exact_values(void **state) {
    const function *f = *state;
    const bool from_x = f->kernel == COP_ACTIVATION_GELU;
    float *x = grid(), *y = cop_alloc(GRID * sizeof *y), *dx = cop_alloc(GRID * sizeof *dx);
    float *dy = cop_alloc(GRID * sizeof *dy);
    for (int i = 0; i < GRID; i++) dy[i] = i % 3 ? 1.0f : -0.5f;
    best_kernels()->activate(f->kernel, 0.01f, x, y, GRID);
    best_kernels()->activate_backward(f->kernel, 0.01f, from_x ? x : y, dy, dx, GRID);
    for (int i = 0; i < GRID; i++) {
        const long double exact = dy[i] * f->derivative(x[i]);
        if (!(fabsl(dx[i] - exact) <= 1e-6L))
            fail_msg("%s'(%a) = %g, exactly %Lg", f->name, (double)x[i], (double)dx[i], exact);
    }
    cop_free(x), cop_free(y), cop_free(dx), cop_free(dy);
}

static void test_activations_have_the_same_bits_on_every_instruction_set(void **state) {
    const function *f = *state;
    enum { ODD = GRID / 8 - 5 }; /* not whole vectors; short, because baseline is slow */
    float *all = grid(), *x = cop_alloc(ODD * sizeof *x), *y[2], *dx[2];
    for (int i = 0; i < ODD; i++) x[i] = all[8 * i + i % 2];
    for (int i = 0; i < 2; i++) y[i] = cop_alloc(2 * ODD * sizeof *x), dx[i] = y[i] + ODD;
    int compared = 0;
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        if (!kernels) continue;
        const int to = compared++ > 0;
        kernels->activate(f->kernel, 0.3f, x, y[to], ODD);
        kernels->activate_backward(f->kernel, 0.3f, x, y[to], dx[to], ODD);
        if (to && memcmp(y[0], y[1], 2 * ODD * sizeof *x) != 0)
            fail_msg("%s: %s computes other bits", f->name, *name);
    }
    assert_true(compared >= 1);
    cop_free(all), cop_free(x), cop_free(y[0]), cop_free(y[1]);
}

/* Returns f(x). Computes it at every position of a vector and of the rest, and checks that all
 * agree. */
static float value_of(cop_activation f, float x) {
    float in[19], out[19];
    for (int i = 0; i < 19; i++) in[i] = x;
    best_kernels()->activate(f, 0.01f, in, out, 19);
    for (int i = 1; i < 19; i++) assert_memory_equal(&out[i], &out[0], sizeof *out);
    return out[0];
}

static void test_activations_at_special_values(void **state) {
    (void)state;
    for (int f = 0; f < FUNCTIONS; f++) assert_true(isnan(value_of(functions[f].kernel, NAN)));
    assert_true(value_of(COP_ACTIVATION_SIGMOID, 0) == 0.5f);
    assert_true(value_of(COP_ACTIVATION_SIGMOID, INFINITY) == 1);
    assert_true(value_of(COP_ACTIVATION_SIGMOID, -INFINITY) == 0);
    assert_true(value_of(COP_ACTIVATION_SIGMOID, -100) > 0);
    assert_true(value_of(COP_ACTIVATION_TANH, INFINITY) == 1);
    assert_true(value_of(COP_ACTIVATION_TANH, -3e38f) == -1);
    assert_true(value_of(COP_ACTIVATION_TANH, 0x1p-149f) == 0x1p-149f);
    assert_true(signbit(value_of(COP_ACTIVATION_TANH, -0.0f)));
    assert_true(value_of(COP_ACTIVATION_SELU, 0) == 0);
    assert_true(value_of(COP_ACTIVATION_SELU, 0x1p-149f) > 0);
    assert_true(value_of(COP_ACTIVATION_SELU, -INFINITY) == (float)(-selu_scale * selu_alpha));
    assert_true(value_of(COP_ACTIVATION_SELU, INFINITY) == INFINITY);
    assert_true(value_of(COP_ACTIVATION_GELU, 0) == 0);
    assert_true(value_of(COP_ACTIVATION_GELU, 3e38f) == 3e38f);
    assert_true(value_of(COP_ACTIVATION_GELU, -3e38f) == 0);
    assert_true(value_of(COP_ACTIVATION_LEAKY_RELU, -INFINITY) == -INFINITY);
}

static void test_softmax_and_its_gradient(void **state) {
    (void)state;
    enum { CLASSES = 37, LD = 32, COUNT = CLASSES * LD };
    float x[COUNT], y[COUNT], dy[COUNT], dx[COUNT];
    fill_random(x, COUNT, 41);
    fill_random(dy, COUNT, 42);
    for (int i = 0; i < COUNT; i++) x[i] *= 20;
    best_kernels()->softmax(x, CLASSES, LD, y);
    best_kernels()->softmax_backward(y, dy, CLASSES, LD, dx);
    for (int c = 0; c < LD; c++) {
        long double sum = 0, dot = 0;
        for (int j = 0; j < CLASSES; j++) sum += expl(x[j * LD + c]);
        for (int j = 0; j < CLASSES; j++) dot += expl(x[j * LD + c]) / sum * dy[j * LD + c];
        for (int j = 0; j < CLASSES; j++) {
            const int at = j * LD + c;
            const long double exact = expl(x[at]) / sum;
            assert_true(fabsl(y[at] - exact) <= 4e-6L * exact); /* x - max is rounded */
            assert_true(fabsl(dx[at] - exact * (dy[at] - dot)) <= 2e-6L);
        }
    }
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } checks[] = {
        {"value", test_activations_are_close_to_exact_values},
        {"derivative", test_derivatives_are_close_to_exact_values},
        {"same_bits", test_activations_have_the_same_bits_on_every_instruction_set},
    };
    enum { CHECKS = sizeof checks / sizeof checks[0] };
    static struct CMUnitTest tests[FUNCTIONS * CHECKS + 2];
    static char names[FUNCTIONS * CHECKS][64];
    static function rows[FUNCTIONS];
    memcpy(rows, functions, sizeof rows);
    for (int i = 0; i < FUNCTIONS * CHECKS; i++) {
        snprintf(names[i], sizeof names[i], "%s_%s", rows[i / CHECKS].name,
                 checks[i % CHECKS].name);
        tests[i] =
            (struct CMUnitTest){names[i], checks[i % CHECKS].run, NULL, NULL, &rows[i / CHECKS]};
    }
    tests[FUNCTIONS * CHECKS] =
        (struct CMUnitTest)cmocka_unit_test(test_activations_at_special_values);
    tests[FUNCTIONS * CHECKS + 1] =
        (struct CMUnitTest)cmocka_unit_test(test_softmax_and_its_gradient);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
