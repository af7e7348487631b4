/* The allocation functions: how they count, align, and fail on request. LABELS: quick threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>

#include "common/base/alloc.h"

static void test_only_the_kth_allocation_fails(void **state) {
    (void)state;
    cop_alloc_fail_at(2);
    void *a = cop_alloc(10), *b = cop_alloc(10), *c = cop_alloc(10);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    cop_alloc_fail_at(0);
    cop_free(a);
    cop_free(c);
    assert_null(cop_alloc_array(SIZE_MAX / 2, 4));
}

static void test_all_allocations_from_the_kth_fail(void **state) {
    (void)state;
    cop_alloc_fail_from(2);
    void *a = cop_alloc(10), *b = cop_alloc(100), *c = cop_realloc(NULL, 10);
    assert_non_null(a);
    assert_null(b);
    assert_null(c);
    assert_null(cop_strdup("x"));
    cop_alloc_fail_at(3); /* the third allocation from now fails, and no later one */
    void *d = cop_alloc(10);
    assert_non_null(d);
    cop_alloc_fail_at(0);
    cop_free(a);
    cop_free(d);
}

static void test_large_blocks_are_aligned_and_zero(void **state) {
    (void)state;
    unsigned char *block = cop_alloc(1000);
    assert_int_equal((uintptr_t)block % 64, 0);
    for (int i = 0; i < 1000; i++) assert_int_equal(block[i], 0);
    cop_free(block);
}

static void test_raw_blocks_are_aligned(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *block = cop_alloc_raw(sizes[i]);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        memset(block, 0xff, sizes[i]);
        cop_free(block);
    }
}

static void test_size_zero_gives_unique_pointers(void **state) {
    (void)state;
    void *a = cop_alloc(0), *b = cop_alloc(0), *c = cop_alloc_array(0, 8);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_true(a != b && b != c);
    cop_free(a);
    cop_free(b);
    cop_free(c);
    cop_free(NULL);
}

static void test_sizes_that_overflow_are_refused(void **state) {
    (void)state;
    assert_null(cop_alloc_array(SIZE_MAX, 2));
    assert_null(cop_alloc_array(SIZE_MAX / 8 + 1, 8));
    assert_null(cop_alloc_raw(SIZE_MAX));
    assert_null(cop_alloc_raw(SIZE_MAX - 100));
}

static void test_realloc_keeps_the_old_block_on_failure(void **state) {
    (void)state;
    char *block = cop_alloc(8);
    memcpy(block, "coppice", 8);
    cop_alloc_fail_at(1);
    assert_null(cop_realloc(block, 1000));
    assert_string_equal(block, "coppice");
    block = cop_realloc(block, 1000);
    assert_string_equal(block, "coppice");
    cop_free(block);
}

static void test_strings_are_copied(void **state) {
    (void)state;
    char *a = cop_strdup("thin"), *b = cop_strndup("thinning", 4), *c = cop_strndup("a", 100);
    assert_string_equal(a, "thin");
    assert_string_equal(b, "thin");
    assert_string_equal(c, "a");
    cop_free(a);
    cop_free(b);
    cop_free(c);
}

static void test_every_kind_of_allocation_counts_and_fails(void **state) {
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        for (uint64_t fail = 0; fail < 2; fail++) {
            uint64_t before = cop_alloc_count();
            cop_alloc_fail_at(fail);
            void *block = kind == 0   ? cop_alloc(8)
                          : kind == 1 ? cop_alloc(800)
                          : kind == 2 ? cop_alloc_raw(8)
                          : kind == 3 ? cop_realloc(NULL, 8)
                          : kind == 4 ? cop_strdup("x")
                                      : cop_alloc_array(3, 5);
            assert_int_equal(cop_alloc_count(), before + 1);
            assert_int_equal(block == NULL, fail);
            cop_free(block);
        }
    }
    cop_alloc_fail_at(0);
}

static void *allocate_often(void *unused) {
    (void)unused;
    for (int i = 0; i < 5000; i++) cop_free(cop_alloc(32));
    return NULL;
}

static void test_threads_are_counted_exactly(void **state) {
    (void)state;
    uint64_t before = cop_alloc_count();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_often, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    assert_int_equal(cop_alloc_count(), before + 20000);
}

/* Blocks of many megabytes come from the heap, not from mmap, and stay there after free. (Under a
 * sanitizer the numbers do not change.) */
static void test_large_blocks_stay_after_tuning(void **state) {
    (void)state;
#ifdef __GLIBC__
    cop_alloc_keep_large_blocks();
    struct mallinfo2 before = mallinfo2();
    void *block = cop_alloc(24 << 20);
    assert_non_null(block);
    struct mallinfo2 held = mallinfo2();
    cop_free(block);
    assert_int_equal(held.hblks, before.hblks);
    assert_true(mallinfo2().arena >= held.arena);
#else
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_kth_allocation_fails),
        cmocka_unit_test(test_all_allocations_from_the_kth_fail),
        cmocka_unit_test(test_large_blocks_are_aligned_and_zero),
        cmocka_unit_test(test_raw_blocks_are_aligned),
        cmocka_unit_test(test_size_zero_gives_unique_pointers),
        cmocka_unit_test(test_sizes_that_overflow_are_refused),
        cmocka_unit_test(test_realloc_keeps_the_old_block_on_failure),
        cmocka_unit_test(test_strings_are_copied),
        cmocka_unit_test(test_every_kind_of_allocation_counts_and_fails),
        cmocka_unit_test(test_threads_are_counted_exactly),
        cmocka_unit_test(test_large_blocks_stay_after_tuning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
