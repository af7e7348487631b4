/* Clocks, and the format of a time of day. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"

static void test_monotonic_clock_passes_with_sleep(void **state) {
    (void)state;
    uint64_t before = cop_clock_ns();
    cop_clock_sleep_ms(20);
    uint64_t passed = cop_clock_ns() - before;
    assert_true(passed >= 20u * 1000000u);
    assert_true(passed < 30ull * 1000000000u); /* checks the unit, not the scheduling */
}

static void test_wall_clock_agrees_with_the_c_library_clock(void **state) {
    (void)state;
    int64_t before = (int64_t)time(NULL), ms = cop_clock_unix_ms(), after = (int64_t)time(NULL);
    assert_true(ms / 1000 >= before - 1 && ms / 1000 <= after + 1);
}

static void test_times_are_formatted_in_utc(void **state) {
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {{0, "1970-01-01T00:00:00.000Z"},
                {999, "1970-01-01T00:00:00.999Z"},
                {951782400007, "2000-02-29T00:00:00.007Z"},
                {4102444799999, "2099-12-31T23:59:59.999Z"},
                {-1, "1969-12-31T23:59:59.999Z"},
                {-86400000, "1969-12-31T00:00:00.000Z"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[32];
        assert_ptr_equal(cop_clock_format_utc(rows[i].ms, out), out);
        assert_string_equal(out, rows[i].text);
    }
}

static void test_extreme_times_fit_the_buffer(void **state) {
    (void)state;
    struct {
        char out[32], guard[8];
    } b;
    memset(&b, 0x5a, sizeof b);
    cop_clock_format_utc(INT64_MAX, b.out);
    assert_true(strlen(b.out) < sizeof b.out);
    cop_clock_format_utc(INT64_MIN, b.out);
    assert_true(strlen(b.out) < sizeof b.out);
    for (size_t i = 0; i < sizeof b.guard; i++) assert_int_equal(b.guard[i], 0x5a);
}

/* Any number of seconds in an option or a job file converts to valid units. */
static void test_seconds_from_input_convert_within_bounds(void **state) {
    (void)state;
    assert_int_equal(cop_seconds_to_ms(2.5), 2500);
    assert_int_equal(cop_seconds_to_ns(2.5), 2500000000u);
    const double none[] = {0, -1, -1e300, NAN, -INFINITY};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_int_equal(cop_seconds_to_ms(none[i]), 0);
        assert_int_equal(cop_seconds_to_ns(none[i]), 0);
    }
    assert_int_equal(cop_seconds_to_ms(1e-300), 1); /* not 0, which often means "no limit" */
    assert_int_equal(cop_seconds_to_ns(1e-300), 1);
    const double large[] = {1e7, 1e300, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_int_equal(cop_seconds_to_ms(large[i]), COP_MS_MAX);
        assert_true(cop_clock_ns() + cop_seconds_to_ns(large[i]) > cop_clock_ns());
    }
    assert_true((int32_t)COP_MS_MAX > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monotonic_clock_passes_with_sleep),
        cmocka_unit_test(test_wall_clock_agrees_with_the_c_library_clock),
        cmocka_unit_test(test_times_are_formatted_in_utc),
        cmocka_unit_test(test_extreme_times_fit_the_buffer),
        cmocka_unit_test(test_seconds_from_input_convert_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
