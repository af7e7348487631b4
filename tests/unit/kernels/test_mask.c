/* Dropout masks (D3): the vectorised generator equals the scalar definition over cop_philox, bit by
 * bit, on every instruction set, and masks are applied exactly. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/kernels/kernel.h"

enum { UNITS_MAX = 300, LD_MAX = 48 };

static cop_rng_key keys[LD_MAX];
static uint32_t samples[LD_MAX];

static void set_columns(void) {
    for (int c = 0; c < LD_MAX; c++) {
        keys[c] = cop_rng_derive(0x123456789abcdef0u, COP_RNG_MASK, (uint32_t)c / 5);
        samples[c] = (uint32_t)c % 5 + (c == 7 ? 0xfffffff0u : 0);
    }
}

/* A request for layer 5 with the keys and samples of set_columns. */
static cop_mask_request request_of(int units, int ld, uint32_t threshold, uint32_t step,
                                   uint16_t *bits) {
    return (cop_mask_request){.units = units,
                              .ld = ld,
                              .threshold = threshold,
                              .keys = keys,
                              .samples = samples,
                              .layer = 5,
                              .step = step,
                              .bits = bits};
}

/* Returns whether unit u of column c is kept, by the text of D3. */
static bool kept(const cop_mask_request *q, int u, int c) {
    uint32_t out[4];
    const int per_block = q->threshold == 32768 ? 128 : 8;
    const uint32_t counter[4] = {(uint32_t)(u / per_block), q->samples[c], q->layer, q->step};
    cop_philox(counter, q->keys[c], out);
    if (per_block == 128) return !(out[u % 128 / 32] >> (u % 32) & 1);
    return (out[u % 8 / 2] >> (16 * (u % 2)) & 0xffff) >= q->threshold;
}

static void assert_mask(const cop_kernels *kernels, int units, int ld, uint32_t threshold,
                        uint32_t step) {
    static uint16_t bits[UNITS_MAX * LD_MAX / 16 + 1];
    const cop_mask_request request = request_of(units, ld, threshold, step, bits);
    memset(bits, 0xa5, sizeof bits);
    kernels->mask_fill(&request);
    for (int u = 0; u < units; u++)
        for (int c = 0; c < ld; c++)
            if ((bits[u * (ld / 16) + c / 16] >> (c % 16) & 1) != kept(&request, u, c))
                fail_msg("%s: units %d ld %d threshold %u: unit %d column %d", kernels->name, units,
                         ld, threshold, u, c);
    assert_int_equal(bits[units * (ld / 16)], 0xa5a5);
}

#define FOR_EACH_ISA(kernels)                                                                      \
    for (const char *const *name = cop_kernels_names(); *name; name++)                             \
        for (const cop_kernels *kernels = cop_kernels_find(*name); kernels; kernels = NULL)

static void test_half_mask_equals_the_scalar_definition(void **state) {
    (void)state;
    static const int units[] = {1, 31, 32, 33, 127, 128, 129, 256, 300};
    FOR_EACH_ISA(kernels) {
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
            for (int ld = 16; ld <= LD_MAX; ld += 16)
                assert_mask(kernels, units[i], ld, 32768, (uint32_t)i + 1);
    }
}

static void test_lane_mask_equals_the_scalar_definition(void **state) {
    (void)state;
    static const int units[] = {1, 7, 8, 9, 16, 100, 300};
    static const uint32_t thresholds[] = {0, 1, 13107, 32767, 32769, 65535, 65536};
    FOR_EACH_ISA(kernels) {
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
            for (size_t t = 0; t < sizeof thresholds / sizeof thresholds[0]; t++)
                assert_mask(kernels, units[i], t % 2 ? 32 : 48, thresholds[t],
                            0xffffffffu - (uint32_t)t);
    }
}

static void test_threshold_0_keeps_all_and_threshold_65536_drops_all(void **state) {
    (void)state;
    FOR_EACH_ISA(kernels) {
        uint16_t bits[40];
        cop_mask_request request = request_of(40, 16, 0, 0, bits);
        kernels->mask_fill(&request);
        for (int u = 0; u < 40; u++) assert_int_equal(bits[u], 0xffff);
        request.threshold = 65536;
        kernels->mask_fill(&request);
        for (int u = 0; u < 40; u++) assert_int_equal(bits[u], 0);
    }
}

static int kept_count(const cop_kernels *kernels, uint32_t threshold, uint32_t step,
                      uint16_t bits[UNITS_MAX * 3]) {
    const cop_mask_request request = request_of(UNITS_MAX, LD_MAX, threshold, step, bits);
    kernels->mask_fill(&request);
    int count = 0;
    for (int i = 0; i < UNITS_MAX * LD_MAX / 16; i++) count += __builtin_popcount(bits[i]);
    return count;
}

static void test_share_of_dropped_units_is_p(void **state) {
    (void)state;
    static uint16_t bits[UNITS_MAX * LD_MAX / 16];
    const cop_kernels *kernels = cop_kernels_find("baseline");
    const double all = UNITS_MAX * LD_MAX;
    for (uint32_t step = 1; step < 6; step++) {
        assert_true(fabs(kept_count(kernels, 32768, step, bits) / all - 0.5) < 0.02);
        assert_true(fabs(kept_count(kernels, cop_rng_drop_threshold(0.2), step, bits) / all - 0.8) <
                    0.02);
    }
}

static void test_steps_and_columns_have_different_masks(void **state) {
    (void)state;
    static uint16_t first[UNITS_MAX * LD_MAX / 16], second[UNITS_MAX * LD_MAX / 16];
    const cop_kernels *kernels = cop_kernels_find("baseline");
    kept_count(kernels, 32768, 1, first);
    kept_count(kernels, 32768, 2, second);
    assert_memory_not_equal(first, second, sizeof first);
    for (int a = 0; a < 16; a++)
        for (int b = 0; b < a; b++) {
            int different = 0;
            for (int u = 0; u < UNITS_MAX; u++)
                different += (first[u * 3] >> a & 1) != (first[u * 3] >> b & 1);
            assert_true(different > UNITS_MAX / 4);
        }
}

static void test_mask_apply_scales_kept_values_and_zeroes_the_rest(void **state) {
    (void)state;
    enum { UNITS = 21, LD = 32, COUNT = UNITS * LD };
    uint16_t bits[COUNT / 16];
    float x[COUNT], y[COUNT];
    for (int i = 0; i < COUNT / 16; i++) bits[i] = (uint16_t)(i * 40503u);
    for (int i = 0; i < COUNT; i++) x[i] = (float)(i - 300) * 0.37f;
    x[3] = -0.0f, x[40] = INFINITY, x[41] = -INFINITY, x[42] = NAN;
    bits[2] = 0xfaff; /* columns 8 and 10 of unit 1 dropped: an infinity and a NaN */
    FOR_EACH_ISA(kernels) {
        kernels->mask_apply(bits, x, 1.25f, y, COUNT);
        for (int i = 0; i < COUNT; i++) {
            const float expected = bits[i / 16] >> (i % 16) & 1 ? x[i] * 1.25f : 0.0f;
            if (i != 42) assert_memory_equal(&y[i], &expected, 4);
        }
        assert_true(y[40] == 0.0f && y[41] == -INFINITY && y[42] == 0.0f);
        memcpy(y, x, sizeof y); /* in place */
        kernels->mask_apply(bits, y, 1.0f, y, COUNT);
        for (int i = 0; i < COUNT; i++)
            assert_true(y[i] == (bits[i / 16] >> (i % 16) & 1 ? x[i] : 0.0f));
    }
}

static int set_up(void **state) {
    (void)state;
    set_columns();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_mask_equals_the_scalar_definition),
        cmocka_unit_test(test_lane_mask_equals_the_scalar_definition),
        cmocka_unit_test(test_threshold_0_keeps_all_and_threshold_65536_drops_all),
        cmocka_unit_test(test_share_of_dropped_units_is_p),
        cmocka_unit_test(test_steps_and_columns_have_different_masks),
        cmocka_unit_test(test_mask_apply_scales_kept_values_and_zeroes_the_rest),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
