/* Mean and standard deviation of members' outputs, compared with values computed by hand. Also
 * where a sum of squares would be too inexact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/alloc.h"
#include "common/ensemble/moments.h"

static cop_moments *open_spread(int outputs, bool sigmoid, int columns) {
    cop_moments *s = NULL;
    assert_int_equal(cop_moments_create(outputs, sigmoid, columns, &s, NULL), COP_OK);
    return s;
}

static void test_mean_and_deviation_by_hand(void **state) {
    (void)state;
    const float members[3][2 * 4] = {
        {1, 10, 9, 9, -4, 0}, {2, 10, 9, 9, -2, 0}, {6, 10, 9, 9, 0, 3}};
    const double means[4] = {3, 10, -2, 1};
    const double deviations[4] = {sqrt(14.0 / 2), 0, 2, sqrt(6.0 / 2)};
    cop_moments *s = open_spread(2, false, 3);
    cop_moments_begin(s, 3);
    cop_moments_add(s, members[1], 4); /* the next begin forgets this member */
    cop_moments_begin(s, 2);
    for (int m = 0; m < 3; m++) {
        cop_moments_add(s, members[m], 4);
        if (m == 0) assert_true(cop_moments_deviations(s)[0] == 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(cop_moments_means(s)[i] - means[i]) < 1e-14);
        assert_true(fabs(cop_moments_deviations(s)[i] - deviations[i]) < 1e-14);
    }
    cop_moments_destroy(s);
}

static void test_small_deviation_of_large_outputs_is_exact(void **state) {
    (void)state;
    cop_moments *s = open_spread(1, false, 1);
    cop_moments_begin(s, 1);
    for (int m = 0; m < 1000; m++) {
        const float z = 8388608.0f + (float)(m % 2); /* 2^23: squares differ in the 47th bit */
        cop_moments_add(s, &z, 1);
    }
    const double exact = sqrt(250.0 / 999);
    assert_true(fabs(cop_moments_deviations(s)[0] / exact - 1) < 1e-9);
    cop_moments_destroy(s);
}

static void test_sigmoid_is_applied_to_each_member(void **state) {
    (void)state;
    const float z[2] = {-800, 3};
    cop_moments *s = open_spread(1, true, 1);
    cop_moments_begin(s, 1);
    for (int m = 0; m < 2; m++) cop_moments_add(s, &z[m], 1);
    const double high = 1 / (1 + exp(-3.0));
    assert_true(fabs(cop_moments_means(s)[0] - high / 2) < 1e-15);
    assert_true(fabs(cop_moments_deviations(s)[0] - high / sqrt(2)) < 1e-15);
    cop_moments_destroy(s);
}

static void test_failed_allocation_is_reported(void **state) {
    (void)state;
    for (uint64_t k = 1; k <= 4; k++) {
        cop_moments *s = NULL;
        cop_alloc_fail_at(k);
        assert_int_equal(cop_moments_create(3, false, 5, &s, NULL), COP_ERR_NO_MEMORY);
        cop_alloc_fail_at(0);
        assert_null(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean_and_deviation_by_hand),
        cmocka_unit_test(test_small_deviation_of_large_outputs_is_exact),
        cmocka_unit_test(test_sigmoid_is_applied_to_each_member),
        cmocka_unit_test(test_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
