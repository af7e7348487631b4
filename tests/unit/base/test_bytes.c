/* Loads, stores, reference-counted buffers and their pools. LABELS: quick threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/bytes.h"

static int freed;
static void count_free(cop_buffer *b) {
    freed++;
    cop_free(b);
}

static void test_last_release_frees(void **state) {
    (void)state;
    char data[4];
    cop_buffer *b = cop_buffer_wrap(data, 4, NULL, count_free);
    cop_buffer_hold(b);
    cop_buffer_release(b);
    assert_int_equal(freed, 0);
    cop_buffer_release(b);
    assert_int_equal(freed, 1);
}

static void test_pool_recycles_without_allocating(void **state) {
    (void)state;
    cop_buffer_pool *pool = cop_buffer_pool_create(1 << 16);
    cop_buffer *first = cop_buffer_pool_take(pool);
    void *data = first->data;
    cop_buffer_release(first);
    uint64_t before = cop_alloc_count();
    for (int i = 0; i < 100; i++) {
        cop_buffer *again = cop_buffer_pool_take(pool);
        assert_ptr_equal(again->data, data);
        cop_buffer_release(again);
    }
    assert_int_equal(cop_alloc_count(), before);
    cop_buffer *outlives = cop_buffer_pool_take(pool);
    cop_buffer_pool_destroy(pool);
    memset(outlives->data, 1, outlives->size);
    cop_buffer_release(outlives);
}

static void *take_and_release(void *pool) {
    for (int i = 0; i < 2000; i++) {
        cop_buffer *a = cop_buffer_pool_take(pool), *b = cop_buffer_hold(a);
        *(int *)a->data = i;
        cop_buffer_release(a);
        cop_buffer_release(b);
    }
    return NULL;
}

static void test_pool_serves_threads(void **state) {
    (void)state;
    cop_buffer_pool *pool = cop_buffer_pool_create(64);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_release, pool), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    cop_buffer_pool_destroy(pool);
}

static void test_numbers_are_stored_little_endian_and_unaligned(void **state) {
    (void)state;
    unsigned char b[16] = {0};
    cop_store_u16(b + 1, 0x1122);
    cop_store_u32(b + 3, 0x33445566u);
    cop_store_u64(b + 7, 0x778899aabbccddeeull);
    static const unsigned char expected[16] = {0,    0x22, 0x11, 0x66, 0x55, 0x44, 0x33, 0xee,
                                               0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0};
    assert_memory_equal(b, expected, sizeof b);
    assert_int_equal(cop_load_u16(b + 1), 0x1122);
    assert_int_equal(cop_load_u32(b + 3), 0x33445566u);
    assert_true(cop_load_u64(b + 7) == 0x778899aabbccddeeull);
    assert_int_equal(cop_load_u32_big(b + 3), 0x66554433u);
}

static void test_align_up_rounds_to_the_next_multiple(void **state) {
    (void)state;
    assert_int_equal(cop_align_up(0, 64), 0);
    assert_int_equal(cop_align_up(1, 64), 64);
    assert_int_equal(cop_align_up(64, 64), 64);
    assert_int_equal(cop_align_up(65, 8), 72);
}

static void test_own_buffers_are_aligned_and_hold_their_size(void **state) {
    (void)state;
    cop_buffer *b = cop_buffer_create(1001);
    assert_non_null(b);
    assert_int_equal((uintptr_t)b->data % 64, 0);
    assert_int_equal(b->size, 1001);
    assert_true(b->capacity >= b->size);
    memset(b->data, 1, b->size);
    assert_ptr_equal(cop_buffer_hold(b), b);
    cop_buffer_release(b);
    assert_int_equal(((unsigned char *)b->data)[1000], 1);
    cop_buffer_release(b);
    cop_buffer_release(NULL);
}

static void test_reused_buffer_has_the_pool_size_again(void **state) {
    (void)state;
    cop_buffer_pool *pool = cop_buffer_pool_create(100);
    cop_buffer *b = cop_buffer_pool_take(pool);
    b->size = 7; /* as for a shorter message */
    cop_buffer_release(b);
    b = cop_buffer_pool_take(pool);
    assert_int_equal(b->size, 100);
    cop_buffer *other = cop_buffer_pool_take(pool);
    assert_ptr_not_equal(b->data, other->data);
    cop_buffer_release(b);
    cop_buffer_release(other);
    cop_buffer_pool_destroy(pool);
    cop_buffer_pool_destroy(NULL);
}

static void test_out_of_memory_gives_null_and_leaks_nothing(void **state) {
    (void)state;
    for (uint64_t k = 1; k <= 2; k++) {
        cop_alloc_fail_at(k);
        assert_null(cop_buffer_create(64));
    }
    cop_alloc_fail_at(1);
    assert_null(cop_buffer_wrap(NULL, 0, NULL, count_free));
    cop_alloc_fail_at(1);
    assert_null(cop_buffer_pool_create(64));
    cop_buffer_pool *pool = cop_buffer_pool_create(64);
    for (uint64_t k = 1; k <= 2; k++) {
        cop_alloc_fail_at(k);
        assert_null(cop_buffer_pool_take(pool));
    }
    cop_buffer *b = cop_buffer_pool_take(pool); /* the pool is still usable */
    assert_non_null(b);
    cop_buffer_release(b);
    cop_buffer_pool_destroy(pool);
}

static void *release_later(void *buffer) {
    cop_buffer_release(buffer);
    return NULL;
}

/* The pool must be freed exactly once, whether a thread or the owner makes the last release. */
static void test_pool_destroyed_while_threads_hold_buffers(void **state) {
    (void)state;
    for (int round = 0; round < 50; round++) {
        cop_buffer_pool *pool = cop_buffer_pool_create(256);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) {
            cop_buffer *held = cop_buffer_pool_take(pool);
            assert_non_null(held);
            assert_int_equal(pthread_create(&threads[i], NULL, release_later, held), 0);
        }
        cop_buffer_pool_destroy(pool);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_release_frees),
        cmocka_unit_test(test_pool_recycles_without_allocating),
        cmocka_unit_test(test_pool_serves_threads),
        cmocka_unit_test(test_numbers_are_stored_little_endian_and_unaligned),
        cmocka_unit_test(test_align_up_rounds_to_the_next_multiple),
        cmocka_unit_test(test_own_buffers_are_aligned_and_hold_their_size),
        cmocka_unit_test(test_reused_buffer_has_the_pool_size_again),
        cmocka_unit_test(test_out_of_memory_gives_null_and_leaks_nothing),
        cmocka_unit_test(test_pool_destroyed_while_threads_hold_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
