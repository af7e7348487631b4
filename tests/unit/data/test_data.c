/* Packs, the order of rows, slices, synthetic digits. LABELS: quick qemu */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/data/data.h"

/* ---- order: D1, D2 ---- */

static void check_epoch(uint32_t n, uint32_t batch, bool keep, uint64_t first_step) {
    uint32_t rows[512], count, epoch,
        wanted = (uint32_t)((first_step - 1) / cop_data_steps_per_epoch(n, batch, keep));
    uint8_t *seen = cop_alloc(n);
    uint32_t used = 0;
    const cop_data_batches batches = {5, n, batch, keep};
    for (uint64_t s = 0; s < cop_data_steps_per_epoch(n, batch, keep); s++) {
        cop_data_batch_rows(&batches, first_step + s, rows, &count, &epoch);
        assert_int_equal(epoch, wanted);
        for (uint32_t i = 0; i < count; i++) {
            assert_true(rows[i] < n);
            assert_int_equal(seen[rows[i]]++, 0);
        }
        used += count;
    }
    assert_int_equal(used, keep ? n : n / batch * batch);
    cop_free(seen);
}

static void test_each_epoch_contains_every_sample_once(void **state) {
    (void)state;
    check_epoch(1000, 128, true, 1);
    check_epoch(1000, 128, true, 9); /* the second epoch */
    check_epoch(1000, 128, false, 1);
    check_epoch(1024, 128, true, 1);
    check_epoch(7, 7, true, 3);
}

static void test_epochs_have_different_orders(void **state) {
    (void)state;
    uint32_t a[100], b[100], count, epoch;
    const cop_data_batches batches = {5, 100, 100, true}, other_seed = {6, 100, 100, true};
    cop_data_batch_rows(&batches, 1, a, &count, &epoch);
    cop_data_batch_rows(&batches, 2, b, &count, &epoch);
    assert_int_equal(epoch, 1);
    assert_memory_not_equal(a, b, sizeof a);
    cop_data_batch_rows(&other_seed, 1, b, &count, &epoch);
    assert_memory_not_equal(a, b, sizeof a);
}

static void test_batch_larger_than_the_data_gives_one_short_batch(void **state) {
    (void)state;
    uint32_t rows[50], count, epoch;
    assert_int_equal(cop_data_steps_per_epoch(30, 50, true), 1);
    const cop_data_batches batches = {1, 30, 50, true};
    cop_data_batch_rows(&batches, 1, rows, &count, &epoch);
    assert_int_equal(count, 30);
}

/* ---- packs and synthetic digits ---- */

static void test_synthetic_digits_are_the_same_everywhere(void **state) {
    (void)state;
    cop_data *a, *b;
    char hex[65];
    assert_int_equal(cop_data_make_synthetic(1, 300, 60, &a, NULL), COP_OK);
    cop_hex32(a->digest, hex);
    assert_string_equal(hex, "8ad88c95c2b4bbd320fad637fd750754f873ffd4978079a64dfe640fec9f4074");
    assert_int_equal(cop_data_make_synthetic(2, 300, 60, &b, NULL), COP_OK);
    assert_memory_not_equal(a->digest, b->digest, 32);
    uint32_t classes[10] = {0};
    for (uint32_t i = 0; i < a->train.count; i++) classes[a->train.labels[i]]++;
    for (int c = 0; c < 10; c++) assert_true(classes[c] > 10);
    cop_data_destroy(a);
    cop_data_destroy(b);
}

static cop_err from_bytes(const void *bytes, size_t size, cop_data **out) {
    cop_buffer *copy = cop_buffer_create(size);
    memcpy(copy->data, bytes, size);
    cop_err e = cop_data_from_pack(copy, "copy", out, NULL);
    cop_buffer_release(copy);
    return e;
}

static void test_pack_round_trip_and_damage(void **state) {
    (void)state;
    cop_data *a, *b;
    assert_int_equal(cop_data_make_synthetic(1, 20, 5, &a, NULL), COP_OK);
    assert_int_equal(from_bytes(a->pack->data, a->pack->size, &b), COP_OK);
    assert_memory_equal(a->digest, b->digest, 32);
    assert_int_equal(b->train.count, 20);
    assert_memory_equal(b->test.labels, a->test.labels, 5 * 4);
    cop_data_destroy(b);
    /* A pack that is shorter, longer, or has a changed byte in its header must be refused, or must
     * be a valid pack of the same size. The reader must not crash. */
    for (size_t cut = 1; cut < 200; cut += 7)
        assert_int_not_equal(from_bytes(a->pack->data, a->pack->size - cut, &b), COP_OK);
    char *copy = cop_alloc_raw(a->pack->size);
    for (size_t i = 0; i < 80; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, a->pack->data, a->pack->size);
            copy[i] = (char)(copy[i] ^ 1 << bit);
            if (from_bytes(copy, a->pack->size, &b) == COP_OK) cop_data_destroy(b);
        }
    memcpy(copy, a->pack->data, a->pack->size);
    *(int32_t *)(void *)(copy + ((const char *)a->test.labels - (const char *)a->pack->data)) = 10;
    assert_int_equal(from_bytes(copy, a->pack->size, &b), COP_ERR_CORRUPT);
    cop_free(copy);
    cop_data_destroy(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_epoch_contains_every_sample_once),
        cmocka_unit_test(test_epochs_have_different_orders),
        cmocka_unit_test(test_batch_larger_than_the_data_gives_one_short_batch),
        cmocka_unit_test(test_synthetic_digits_are_the_same_everywhere),
        cmocka_unit_test(test_pack_round_trip_and_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
