/* Shards of a batch (D2), and the nodes of D5's tree. The programs of the tree are tested in
 * tests/unit/kernels/test_tree.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/shards.h"

static void test_first_shards_are_one_longer(void **state) {
    (void)state;
    int32_t sizes[8];
    cop_shard_sizes(100, 6, sizes);
    const int32_t expected[6] = {17, 17, 17, 17, 16, 16};
    assert_memory_equal(sizes, expected, sizeof expected);
    cop_shard_sizes(3, 5, sizes);
    const int32_t absent[5] = {1, 1, 1, 0, 0};
    assert_memory_equal(sizes, absent, sizeof absent);
}

static void test_shards_begin_where_the_one_before_ends(void **state) {
    (void)state;
    int32_t sizes[40];
    for (uint32_t batch = 0; batch <= 90; batch++) {
        for (uint32_t shards = 1; shards <= 40; shards++) {
            uint32_t begin = 0;
            cop_shard_sizes(batch, shards, sizes);
            for (uint32_t s = 0; s < shards; s++) {
                assert_int_equal(cop_shard_begin(batch, shards, s), begin);
                begin += (uint32_t)sizes[s];
            }
            assert_int_equal(begin, batch);
            assert_int_equal(cop_shard_begin(batch, shards, shards), batch);
        }
    }
}

static void test_left_child_is_the_largest_power_of_two_below(void **state) {
    (void)state;
    for (uint32_t size = 2; size <= 1100; size++) {
        const uint32_t left = cop_tree_left(size);
        assert_true(left < size && 2 * left >= size && (left & (left - 1)) == 0);
    }
}

static void test_ranges_outside_the_tree_are_no_nodes(void **state) {
    (void)state;
    assert_true(cop_tree_is_node(8, 0, 8) && cop_tree_is_node(8, 4, 4));
    assert_false(cop_tree_is_node(8, 0, 0));
    assert_false(cop_tree_is_node(8, 8, 1));
    assert_false(cop_tree_is_node(8, 4, 8));
    assert_false(cop_tree_is_node(8, 2, UINT32_MAX));
    assert_false(cop_tree_is_node(8, 2, 4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_shards_are_one_longer),
        cmocka_unit_test(test_shards_begin_where_the_one_before_ends),
        cmocka_unit_test(test_left_child_is_the_largest_power_of_two_below),
        cmocka_unit_test(test_ranges_outside_the_tree_are_no_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
