/* Measures of how long the loop did not check for messages. The histogram is compared with the
 * sorted values. Work of the loop counts as a stall, but its sleep does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "coordinator/engine/loop_latency.h"

static int compare(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* A percentile of the histogram is never below the true value, and at most an eighth above it. */
static void test_latency_percentiles_match_the_sorted_values(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    static coord_times latency;
    uint64_t x = 88172645463325252u;
    assert_int_equal(coord_times_quantile(&latency, 0.5), 0);
    for (int i = 0; i < COUNT; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        values[i] = x >> (i % 64);
        coord_times_add(&latency, values[i]);
    }
    qsort(values, COUNT, sizeof *values, compare);
    assert_int_equal(latency.count, COUNT);
    assert_int_equal(latency.max_ns, values[COUNT - 1]);
    for (int i = 1; i <= COUNT; i += 7) {
        const uint64_t found = coord_times_quantile(&latency, (i - 0.5) / COUNT),
                       is = values[i - 1];
        assert_true(found >= is && found - is <= is / 8);
    }
    assert_int_equal(coord_times_quantile(&latency, 1), values[COUNT - 1]);
}

static void on_timer(uv_timer_t *timer) {
    int *left = timer->data;
    if (*left == 5) cop_clock_sleep_ms(60); /* does not check for messages */
    if (--*left == 0) uv_close((uv_handle_t *)timer, NULL);
}

static void test_work_counts_as_a_stall_but_sleep_does_not(void **state) {
    (void)state;
    uv_loop_t loop;
    uv_timer_t timer;
    static coord_loop_latency latency;
    int left = 10;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_loop_configure(&loop, UV_METRICS_IDLE_TIME), 0);
    coord_loop_latency_start(&latency, &loop);
    uv_timer_init(&loop, &timer);
    timer.data = &left;
    uv_timer_start(&timer, on_timer, 30, 30);
    const uint64_t began = cop_clock_ns();
    uv_run(&loop, UV_RUN_DEFAULT);
    const uint64_t took = cop_clock_ns() - began;
    assert_true(latency.away.count >= 10);
    assert_true(latency.away.max_ns >= 60000000u);            /* the one that worked */
    assert_true(latency.computing.max_ns < 30000000u);        /* it slept during its work */
    assert_true(latency.away.max_ns <= took - 4 * 30000000u); /* without those that also slept */
    uv_close((uv_handle_t *)&latency.prepare, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latency_percentiles_match_the_sorted_values),
        cmocka_unit_test(test_work_counts_as_a_stall_but_sleep_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
