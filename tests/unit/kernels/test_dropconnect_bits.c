/* dropconnect's keep bits (D3): they equal the scalar definition over cop_philox, bit by bit, on
 * every instruction set, for random shapes, thresholds and divisions into rows. LABELS: quick qemu
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/base/rng.h"
#include "common/kernels/kernel.h"

enum { CASES = 60 };

static uint32_t next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Returns whether a unit is kept, by the text of D3. */
static bool kept(const cop_dropconnect_fill *q, int64_t unit) {
    uint32_t out[4];
    const int per_block = q->threshold == 32768 ? 128 : 8;
    const uint32_t counter[4] = {(uint32_t)(unit / per_block), q->sample, q->layer, q->step};
    cop_philox(counter, q->key, out);
    if (per_block == 128) return !(out[unit % 128 / 32] >> (unit % 32) & 1);
    return (out[unit % 8 / 2] >> (16 * (unit % 2)) & 0xffff) >= q->threshold;
}

static void check_row(const cop_dropconnect_fill *q, const uint16_t *row, int64_t first, int count,
                      const char *who) {
    for (int i = 0; i < (count + 15) / 16 * 16; i++)
        if ((row[i / 16] >> (i % 16) & 1) != (i < count && kept(q, first + i)))
            fail_msg("%s: out %d in %d threshold %u: unit %lld", who, q->out, q->in, q->threshold,
                     (long long)first + i);
}

/* Draws the rows in parts of up to `rows`, into memory that ends where the last bit belongs. */
static void check(const cop_kernels *kernels, cop_dropconnect_fill q, int rows) {
    const int words = (q.in + 15) / 16, bias_words = (q.out + 15) / 16;
    const ptrdiff_t drawn = (ptrdiff_t)rows * q.in;
    q.stride = words + 3;
    const size_t size = (size_t)(q.out - 1) * (size_t)q.stride + (size_t)words;
    q.bits = cop_alloc_array(size, sizeof *q.bits);
    q.bias_bits = cop_alloc_array((size_t)bias_words, sizeof *q.bias_bits);
    q.stream = cop_alloc(cop_dropconnect_stream(drawn > q.out ? drawn : q.out));
    memset(q.bits, 0xa5, size * sizeof *q.bits);
    for (q.from = 0; q.from < q.out; q.from = q.to) {
        q.to = q.out - q.from < rows ? q.out : q.from + rows;
        kernels->dropconnect_fill(&q);
    }
    for (int o = 0; o < q.out; o++) {
        const uint16_t *row = q.bits + o * q.stride;
        check_row(&q, row, (int64_t)o * q.in, q.in, kernels->name);
        for (int w = words; o + 1 < q.out && w < q.stride; w++) assert_int_equal(row[w], 0xa5a5);
    }
    check_row(&q, q.bias_bits, (int64_t)q.out * q.in, q.out, kernels->name);
    cop_free(q.bits), cop_free(q.bias_bits), cop_free(q.stream);
}

static void test_bits_equal_the_scalar_definition(void **state) {
    (void)state;
    static const uint32_t thresholds[] = {0, 1, 13107, 32767, 32768, 32768, 32769, 65535, 65536};
    for (const char *const *name = cop_kernels_names(); *name; name++) {
        const cop_kernels *kernels = cop_kernels_find(*name);
        uint32_t random = 3;
        for (int i = 0; kernels && i < CASES; i++) {
            const int in = i % 7 ? 1 + (int)(next(&random) % 400) : 784;
            const int out = 1 + (int)(next(&random) % 40), rows = 1 + (int)(next(&random) % 40);
            const cop_dropconnect_fill q = {
                .out = out,
                .in = in,
                .threshold = i < 18 ? thresholds[i % 9] : next(&random) % 65537,
                .sample = next(&random) * 257,
                .layer = i % 2 ? 0xfffffff0u : next(&random),
                .step = next(&random) * 129,
                .key = cop_rng_derive(next(&random), COP_RNG_MASK, (uint32_t)i),
            };
            check(kernels, q, rows);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_equal_the_scalar_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
