/* Philox4x32-10, key derivation and the keyed permutation. LABELS: quick numbers */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/rng.h"

/* Random123's kat_vectors, "philox 4x32 10". */
static void test_philox_gives_the_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint32_t out[4];
        cop_rng_key key = {{vectors[i].key[0], vectors[i].key[1]}};
        cop_philox(vectors[i].counter, key, out);
        assert_memory_equal(out, vectors[i].out, sizeof out);
    }
}

/* Counts the 16-bit lanes of 1.25 million blocks (10 million draws) in 256 bins. Chi-square with
 * 255 degrees of freedom has the mean 255 and the deviation 22.6. */
static void test_lanes_are_uniform(void **state) {
    (void)state;
    cop_rng_key key = cop_rng_derive(1, COP_RNG_MASK, 3);
    uint64_t bins[256] = {0};
    const uint32_t blocks = 1250000;
    for (uint32_t b = 0; b < blocks; b++) {
        uint32_t counter[4] = {b % 98, b / 98, 2, 7}, out[4];
        cop_philox(counter, key, out);
        for (int w = 0; w < 4; w++) {
            bins[(out[w] & 0xffff) >> 8]++;
            bins[out[w] >> 24]++;
        }
    }
    double expected = blocks * 8.0 / 256, chi = 0;
    for (int i = 0; i < 256; i++)
        chi += ((double)bins[i] - expected) * ((double)bins[i] - expected) / expected;
    assert_true(chi > 255 - 5 * 22.6 && chi < 255 + 5 * 22.6);
}

/* Counts each of the 65536 values of a lane, and each bit, over 10 million lanes. Chi-square with
 * 65535 degrees of freedom has the mean 65535 and the deviation 362. */
static void test_every_lane_value_and_every_bit_is_equally_likely(void **state) {
    (void)state;
    cop_rng_key key = cop_rng_derive(11, COP_RNG_MASK, 0);
    uint32_t *bins = cop_alloc_array(65536, sizeof *bins);
    assert_non_null(bins);
    const uint32_t blocks = 1250000;
    for (uint32_t b = 0; b < blocks; b++) {
        uint32_t counter[4] = {b, 1, 2, 3}, out[4];
        cop_philox(counter, key, out);
        for (int w = 0; w < 4; w++) {
            bins[out[w] & 0xffff]++;
            bins[out[w] >> 16]++;
        }
    }
    const double lanes = blocks * 8.0, expected = lanes / 65536;
    double chi = 0;
    int64_t ones[16] = {0};
    for (uint32_t v = 0; v < 65536; v++) {
        chi += ((double)bins[v] - expected) * ((double)bins[v] - expected) / expected;
        for (int bit = 0; bit < 16; bit++) ones[bit] += v >> bit & 1 ? bins[v] : 0;
    }
    cop_free(bins);
    assert_true(chi > 65535 - 5 * 362.0 && chi < 65535 + 5 * 362.0);
    for (int bit = 0; bit < 16; bit++)
        assert_true(fabs((double)ones[bit] - lanes / 2) < 5 * sqrt(lanes) / 2);
}

/* The bits of streams for neighbouring samples, layers, steps and shards must not be correlated.
 * Each comparison uses 3.2 million bits, and allows 5 standard deviations. */
static void test_neighbouring_streams_are_independent(void **state) {
    (void)state;
    for (int word = 1; word < 5; word++) { /* 4: the shard */
        int64_t agree = 0;
        const uint32_t blocks = 25000;
        cop_rng_key key = cop_rng_derive(9, COP_RNG_MASK, 0),
                    other = word == 4 ? cop_rng_derive(9, COP_RNG_MASK, 1) : key;
        for (uint32_t b = 0; b < blocks; b++) {
            uint32_t one[4] = {b, 5, 1, 9}, two[4] = {b, 5, 1, 9}, x[4], y[4];
            if (word < 4) two[word]++;
            cop_philox(one, key, x);
            cop_philox(two, other, y);
            for (int w = 0; w < 4; w++) agree += 32 - 2 * __builtin_popcount(x[w] ^ y[w]);
        }
        assert_true(fabs((double)agree) < 5 * sqrt(blocks * 128.0));
    }
}

static void test_keys_differ_by_seed_purpose_and_shard(void **state) {
    (void)state;
    cop_rng_key a = cop_rng_derive(1, COP_RNG_MASK, 0);
    const cop_rng_key others[] = {cop_rng_derive(2, COP_RNG_MASK, 0),
                                  cop_rng_derive(1, COP_RNG_NOISE, 0),
                                  cop_rng_derive(1, COP_RNG_MASK, 1),
                                  cop_rng_derive(1 + ((uint64_t)1 << 32), COP_RNG_MASK, 0)};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_memory_not_equal(&a, &others[i], sizeof a);
    cop_rng_key again = cop_rng_derive(1, COP_RNG_MASK, 0);
    assert_memory_equal(&a, &again, sizeof a);
}

/* Part of portable-1: values from a second implementation, in Python. */
static void test_keys_match_portable_1(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        cop_rng_purpose purpose;
        uint32_t shard, key[2];
    } rows[] = {{0, COP_RNG_INIT, 0, {0xd991b426, 0x7e54366e}},
                {42, COP_RNG_MASK, 7, {0xa9976148, 0x882ae3c1}},
                {0xfedcba9876543210, COP_RNG_SYNTHETIC, 0xffffffff, {0x7fea89fd, 0x231a2fd7}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cop_rng_key key = cop_rng_derive(rows[i].seed, rows[i].purpose, rows[i].shard);
        assert_memory_equal(key.word, rows[i].key, sizeof key.word);
    }
}

static void test_permutations_match_portable_1(void **state) {
    (void)state;
    static const struct {
        uint32_t n, first[6], last;
    } rows[] = {
        {2, {1, 0}, 0},
        {10, {1, 4, 6, 3, 5, 7}, 0},
        {60000, {26925, 50995, 30734, 14145, 34324, 49483}, 12559},
        {50003000, {22800932, 39636889, 45633184, 37651612, 6152568, 46545777}, 794570},
        {0x80000000u + 11,
         {2133685638, 1046401328, 1546662701, 1652714785, 51427142, 125243508},
         1639258605},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        cop_permutation p;
        cop_permutation_init(&p, 42, 3, rows[r].n);
        for (uint32_t i = 0; i < 6 && i < rows[r].n; i++)
            assert_int_equal(cop_permutation_at(&p, i), rows[r].first[i]);
        assert_int_equal(cop_permutation_at(&p, rows[r].n - 1), rows[r].last);
    }
}

static void check_bijective(uint32_t n, uint32_t epoch) {
    cop_permutation p;
    uint8_t *seen = cop_alloc(n);
    cop_permutation_init(&p, 42, epoch, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = cop_permutation_at(&p, i);
        assert_true(at < n);
        assert_int_equal(seen[at]++, 0);
        assert_int_equal(cop_permutation_inverse(&p, at), i);
    }
    cop_free(seen);
}

static void test_permutation_is_bijective(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= 300; n++) check_bijective(n, n % 3);
    static const uint32_t sizes[] = {1023,  1024,  1025,  50003,         60000,
                                     65535, 65536, 65537, (1 << 20) - 1, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_bijective(sizes[i], 1);
}

static void test_permutation_inverse_of_large_sets(void **state) {
    (void)state;
    static const uint32_t sizes[] = {(1u << 20) + 1, 50003000, 0x80000000u + 11, 0xffffffffu};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        cop_permutation p;
        cop_permutation_init(&p, 7, 2, sizes[s]);
        for (uint32_t i = 0; i < 250000; i++) {
            uint32_t index = (uint32_t)((uint64_t)i * sizes[s] / 250000),
                     at = cop_permutation_at(&p, index);
            assert_true(at < sizes[s]);
            assert_int_equal(cop_permutation_inverse(&p, at), index);
        }
    }
}

static void test_permutation_differs_by_seed_and_epoch(void **state) {
    (void)state;
    cop_permutation a, b, c;
    cop_permutation_init(&a, 1, 0, 1000);
    cop_permutation_init(&b, 2, 0, 1000);
    cop_permutation_init(&c, 1, 1, 1000);
    int same_seed = 0, same_epoch = 0, fixed = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        same_seed += cop_permutation_at(&a, i) == cop_permutation_at(&b, i);
        same_epoch += cop_permutation_at(&a, i) == cop_permutation_at(&c, i);
        fixed += cop_permutation_at(&a, i) == i;
    }
    assert_true(same_seed < 10 && same_epoch < 10 && fixed < 10); /* one is expected for each */
}

static void test_drop_threshold_is_p_times_65536_rounded(void **state) {
    (void)state;
    assert_int_equal(cop_rng_drop_threshold(0), 0);
    assert_int_equal(cop_rng_drop_threshold(0.5), 32768);
    assert_int_equal(cop_rng_drop_threshold(0.2), 13107);
    assert_int_equal(cop_rng_drop_threshold(0.999999), 65536);
    assert_int_equal(cop_rng_drop_threshold(0x1p-17), 1); /* half away from zero */
    assert_int_equal(cop_rng_drop_threshold(0x1.fffffffffffffp-18), 0);
    assert_int_equal(cop_rng_drop_threshold(1.5 / 65536), 2);
    assert_int_equal(cop_rng_drop_threshold(2.5 / 65536), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_gives_the_known_answers),
        cmocka_unit_test(test_lanes_are_uniform),
        cmocka_unit_test(test_every_lane_value_and_every_bit_is_equally_likely),
        cmocka_unit_test(test_neighbouring_streams_are_independent),
        cmocka_unit_test(test_keys_differ_by_seed_purpose_and_shard),
        cmocka_unit_test(test_keys_match_portable_1),
        cmocka_unit_test(test_permutations_match_portable_1),
        cmocka_unit_test(test_permutation_is_bijective),
        cmocka_unit_test(test_permutation_inverse_of_large_sets),
        cmocka_unit_test(test_permutation_differs_by_seed_and_epoch),
        cmocka_unit_test(test_drop_threshold_is_p_times_65536_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
