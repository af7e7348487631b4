/* The elementary functions of D4. On a dense grid of arguments, their errors are measured in units
 * in the last place (ulp) against the C library's long double functions. Their values at the limits
 * of the number range are tested, too. LABELS: quick numbers */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/real.h"
#include "common/base/real_f32.h"

/* Returns |got - exact| in ulps of a type whose fraction has `digits` bits. `least` is the exponent
 * of the smallest subnormal number of this type. */
static long double ulps(long double got, long double exact, int digits, int least) {
    if (got == exact) return 0;
    int exponent;
    frexpl(exact, &exponent);
    exponent -= digits;
    return fabsl(got - exact) / ldexpl(1.0L, exponent > least ? exponent : least);
}

static long double ulps_f32(float got, long double exact) {
    return ulps(got, exact, 24, -149);
}

static long double ulps_f64(double got, long double exact) {
    return ulps(got, exact, 53, -1074);
}

/* Sweeps [from, to] in steps that are not round numbers. */
static double sweep_at(double from, double to, int i, int count) {
    return from + (to - from) * ((double)i + 0.381966) / count;
}

static void check_f64(double (*function)(double), long double (*exact)(long double), double from,
                      double to) {
    enum { COUNT = 400000 };
    long double worst = 0;
    double where = 0;
    for (int i = 0; i < COUNT; i++) {
        const double x = sweep_at(from, to, i, COUNT);
        const long double error = ulps_f64(function(x), exact(x));
        if (!(error <= worst)) {
            worst = error;
            where = x;
        }
    }
    if (!(worst <= 4.0L)) fail_msg("%.2Lf ulp at %a", worst, where);
}

static void test_exp_f32_is_within_2_ulp_of_all_kinds_of_arguments(void **state) {
    (void)state;
    /* every 997th float: all exponents, both signs */
    for (uint64_t u = 0; u < 0x100000000u; u += 997) {
        const float x = cop_f32_from_bits((uint32_t)u);
        if (x != x) continue;
        const long double exact = expl(x);
        const float got = cop_exp_f32(x);
        if (exact > 0x1.ffffffp127L)
            assert_true(got == INFINITY);
        else if (!(ulps_f32(got, exact) <= 2.0L))
            fail_msg("exp(%a) is %a, exactly %La", (double)x, (double)got, exact);
    }
    for (int i = 0; i < 2000000; i++) {
        const float x = (float)sweep_at(-104, 88.7, i, 2000000);
        if (!(ulps_f32(cop_exp_f32(x), expl(x)) <= 2.0L)) fail_msg("exp(%a)", (double)x);
    }
}

static void test_exp_f32_at_the_edges(void **state) {
    (void)state;
    assert_true(cop_exp_f32(0.0f) == 1.0f);
    assert_true(cop_exp_f32(-0.0f) == 1.0f);
    assert_true(cop_exp_f32(INFINITY) == INFINITY);
    assert_true(cop_exp_f32(-INFINITY) == 0.0f);
    assert_true(cop_exp_f32(-3e38f) == 0.0f);
    assert_true(isnan(cop_exp_f32(NAN)));
    assert_true(cop_exp_f32(88.72283f) < INFINITY);
    assert_true(cop_exp_f32(88.72284f) == INFINITY);
}

static void test_log_f32_is_within_2_ulp_of_all_positive_floats(void **state) {
    (void)state;
    for (uint32_t u = 1; u < 0x7f800000u; u += 499) {
        const float x = cop_f32_from_bits(u);
        const long double exact = logl(x);
        if (!(ulps_f32(cop_log_f32(x), exact) <= 2.0L))
            fail_msg("log(%a) is %a, exactly %La", (double)x, (double)cop_log_f32(x), exact);
    }
    for (int i = 0; i < 1000000; i++) { /* near 1, where the result is small */
        const float x = (float)sweep_at(0.6, 1.6, i, 1000000);
        if (!(ulps_f32(cop_log_f32(x), logl(x)) <= 2.0L)) fail_msg("log(%a)", (double)x);
    }
}

static void test_log1p_f32_is_within_3_ulp_from_0_to_1(void **state) {
    (void)state;
    for (uint32_t u = 0; u <= 0x3f800000u; u += 97) { /* subnormals too */
        const float x = cop_f32_from_bits(u);
        const float found = cop_log1p_unit_f32(x);
        if (!(ulps_f32(found, log1pl(x)) <= 3.0L))
            fail_msg("log1p(%a) = %a", (double)x, (double)found);
    }
    assert_true(cop_log1p_unit_f32(0.0f) == 0.0f);
    assert_true(ulps_f32(cop_log1p_unit_f32(1.0f), log1pl(1)) <= 3.0L);
    assert_true(isnan(cop_log1p_unit_f32(NAN)));
}

static void test_log_f32_at_the_edges(void **state) {
    (void)state;
    assert_true(cop_log_f32(1.0f) == 0.0f && !signbit(cop_log_f32(1.0f)));
    assert_true(cop_log_f32(0.0f) == -INFINITY);
    assert_true(cop_log_f32(-0.0f) == -INFINITY);
    assert_true(cop_log_f32(INFINITY) == INFINITY);
    assert_true(isnan(cop_log_f32(-1.0f)));
    assert_true(isnan(cop_log_f32(-INFINITY)));
    assert_true(isnan(cop_log_f32(NAN)));
    assert_true(ulps_f32(cop_log_f32(0x1p-149f), logl(0x1p-149L)) <= 2.0L);
}

static void test_exp_is_within_4_ulp(void **state) {
    (void)state;
    check_f64(cop_exp, expl, -708, 709.7);
    check_f64(cop_exp, expl, -1, 1);
    check_f64(cop_exp, expl, -1e-8, 1e-8);
}

static void test_exp_at_the_edges(void **state) {
    (void)state;
    assert_true(cop_exp(0.0) == 1.0);
    assert_true(cop_exp(710.0) == INFINITY && cop_exp(INFINITY) == INFINITY);
    assert_true(cop_exp(-800.0) == 0.0 && cop_exp(-INFINITY) == 0.0);
    assert_true(isnan(cop_exp(NAN)));
    /* subnormal results: the absolute error is a few times the smallest subnormal number */
    for (double x = -745.0; x < -708.0; x += 0.37)
        assert_true(fabsl(cop_exp(x) - expl(x)) <= 4 * 0x1p-1074L + expl(x) * 0x1p-50L);
}

static void test_log_is_within_4_ulp(void **state) {
    (void)state;
    check_f64(cop_ln, logl, 0.5, 2);
    check_f64(cop_ln, logl, 0.9999, 1.0001);
    check_f64(cop_ln, logl, 1e-10, 1e10);
    check_f64(cop_ln, logl, 0x1p-1074, 0x1p-1020);
    check_f64(cop_ln, logl, 1e300, 1.7e308);
}

static void test_log_at_the_edges(void **state) {
    (void)state;
    assert_true(cop_ln(1.0) == 0.0);
    assert_true(cop_ln(0.0) == -INFINITY && cop_ln(-0.0) == -INFINITY);
    assert_true(cop_ln(INFINITY) == INFINITY);
    assert_true(isnan(cop_ln(-1.0)) && isnan(cop_ln(NAN)));
}

static void test_sin_and_cos_are_within_4_ulp(void **state) {
    (void)state;
    static const double ranges[][2] = {
        {-0.1, 0.1}, {-4, 4}, {-1000, 1000}, {-1e5, 1e5}, {-1e-300, 1e-300}};
    for (int i = 0; i < 5; i++) {
        check_f64(cop_sin, sinl, ranges[i][0], ranges[i][1]);
        check_f64(cop_cos, cosl, ranges[i][0], ranges[i][1]);
    }
}

/* The doubles next to multiples of pi / 2, where one of the two is nearly 0. */
static void test_sin_and_cos_stay_accurate_near_their_zeros(void **state) {
    (void)state;
    for (int n = 1; n < 63000; n++) {
        double x = (double)(n * 1.57079632679489661923132169163975L);
        for (int step = 0; step < 3; step++) {
            assert_true(ulps_f64(cop_sin(x), sinl(x)) <= 4.0L);
            assert_true(ulps_f64(cop_cos(x), cosl(x)) <= 4.0L);
            x = nextafter(x, step ? -1e9 : 1e9);
        }
    }
}

static void test_sin_and_cos_at_the_edges(void **state) {
    (void)state;
    assert_true(cop_sin(0.0) == 0.0 && cop_cos(0.0) == 1.0);
    assert_true(isnan(cop_sin(NAN)) && isnan(cop_cos(NAN)));
    assert_true(isnan(cop_sin(INFINITY)) && isnan(cop_cos(-INFINITY)));
}

static void test_tanh_is_within_4_ulp(void **state) {
    (void)state;
    check_f64(cop_tanh, tanhl, -25, 25);
    check_f64(cop_tanh, tanhl, -1, 1);
    check_f64(cop_tanh, tanhl, -1e-3, 1e-3);
    check_f64(cop_tanh, tanhl, -1e-200, 1e-200);
}

static void test_tanh_at_the_edges(void **state) {
    (void)state;
    assert_true(cop_tanh(INFINITY) == 1.0 && cop_tanh(-INFINITY) == -1.0 && cop_tanh(50.0) == 1.0);
    assert_true(signbit(cop_tanh(-0.0)) && cop_tanh(0.0) == 0.0);
    assert_true(isnan(cop_tanh(NAN)));
    for (double x = -30.0; x < 30.0; x += 0.01) assert_true(cop_tanh(-x) == -cop_tanh(x));
}

static void test_power_squares_repeatedly(void **state) {
    (void)state;
    assert_true(cop_power(0.0, 0) == 1.0 && cop_power(3.0, 0) == 1.0);
    assert_true(cop_power(3.0, 1) == 3.0 && cop_power(2.0, 10) == 1024.0 &&
                cop_power(-2.0, 3) == -8.0);
    assert_true(cop_power(2.0, UINT64_MAX) == INFINITY && cop_power(0.5, UINT64_MAX) == 0.0);
    const double x = 1.1; /* x^11: bits 1011 */
    const double x2 = x * x, x5 = x2 * x2 * x;
    assert_true(cop_power(x, 11) == x5 * x5 * x);
    assert_true(fabs(cop_power(0.998, 20000) / (double)powl(0.998, 20000) - 1) < 1e-12);
}

static void test_normal_pair_uses_box_muller(void **state) {
    (void)state;
    const long double two_pi = 6.28318530717958647692528676655900577L;
    uint32_t random = 1;
    for (int i = 0; i < 20000; i++) {
        const uint32_t a = random = random * 1664525u + 1013904223u;
        const uint32_t b = random = random * 1664525u + 1013904223u;
        double out[2];
        cop_normal_pair(a, b, out);
        const long double r = sqrtl(-2.0L * logl((a + 1.0L) / 0x1p32L)),
                          angle = two_pi * b / 0x1p32L;
        assert_true(fabsl(out[0] - r * cosl(angle)) < 1e-14L);
        assert_true(fabsl(out[1] - r * sinl(angle)) < 1e-14L);
    }
}

static void test_normal_pair_of_extreme_words_is_finite(void **state) {
    (void)state;
    double out[2];
    cop_normal_pair(0, 0, out);
    assert_true(fabs(out[0] - 6.660438) < 1e-5 && out[1] == 0.0);
    cop_normal_pair(UINT32_MAX, UINT32_MAX, out);
    assert_true(out[0] == 0.0 && out[1] == 0.0);
}

static void test_normals_have_mean_0_and_variance_1(void **state) {
    (void)state;
    enum { COUNT = 200000 };
    double sum = 0, squares = 0;
    uint32_t random = 7;
    for (int i = 0; i < COUNT; i++) {
        const uint32_t a = random = random * 1664525u + 1013904223u;
        const uint32_t b = random = random * 1664525u + 1013904223u;
        double out[2];
        cop_normal_pair(a ^ a >> 15, b ^ b >> 15, out);
        sum += out[0] + out[1];
        squares += out[0] * out[0] + out[1] * out[1];
    }
    assert_true(fabs(sum / (2 * COUNT)) < 0.01);
    assert_true(fabs(squares / (2 * COUNT) - 1) < 0.01);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_f32_is_within_2_ulp_of_all_kinds_of_arguments),
        cmocka_unit_test(test_exp_f32_at_the_edges),
        cmocka_unit_test(test_log_f32_is_within_2_ulp_of_all_positive_floats),
        cmocka_unit_test(test_log_f32_at_the_edges),
        cmocka_unit_test(test_log1p_f32_is_within_3_ulp_from_0_to_1),
        cmocka_unit_test(test_exp_is_within_4_ulp),
        cmocka_unit_test(test_exp_at_the_edges),
        cmocka_unit_test(test_log_is_within_4_ulp),
        cmocka_unit_test(test_log_at_the_edges),
        cmocka_unit_test(test_sin_and_cos_are_within_4_ulp),
        cmocka_unit_test(test_sin_and_cos_stay_accurate_near_their_zeros),
        cmocka_unit_test(test_sin_and_cos_at_the_edges),
        cmocka_unit_test(test_tanh_is_within_4_ulp),
        cmocka_unit_test(test_tanh_at_the_edges),
        cmocka_unit_test(test_power_squares_repeatedly),
        cmocka_unit_test(test_normal_pair_uses_box_muller),
        cmocka_unit_test(test_normal_pair_of_extreme_words_is_finite),
        cmocka_unit_test(test_normals_have_mean_0_and_variance_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
