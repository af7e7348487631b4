/* Rounds and partitions. For any pool, the blocks are nodes of D5's tree and cover all shards, and
 * the sums do not depend on the partition. Also tests which block a worker gets. */
#include "core_fixture.h"

#include "common/base/shards.h"
#include "coordinator/core/partition.h"
#include "coordinator/core/round.h"

/* ---- partitions ---- */

/* Workers of equal speed. */
static uint32_t plan(uint32_t shards, uint32_t largest, const uint32_t *threads, uint32_t workers,
                     uint32_t *sizes) {
    static partition_worker pool[COP_SHARDS_MAX];
    for (uint32_t w = 0; w < workers; w++)
        pool[w] = (partition_worker){.threads = threads[w], .round = 100};
    const partition_pool all = {pool, workers, 25, 0};
    return partition_plan(shards, largest, &all, sizes, NULL);
}

static void check_plan(uint32_t shards, uint32_t largest, const uint32_t *sizes, uint32_t count) {
    uint32_t first = 0;
    assert_true(count >= 1 && count <= shards);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(sizes[i] >= 1 && sizes[i] <= largest);
        assert_true(cop_tree_is_node(shards, first, sizes[i]));
        first += sizes[i];
    }
    assert_int_equal(first, shards);
}

static void test_partition_covers_all_shards_for_every_pool(void **state) {
    (void)state;
    uint32_t threads[16], sizes[64];
    for (uint32_t shards = 1; shards <= 64; shards++)
        for (uint32_t workers = 0; workers <= 16; workers++)
            for (uint32_t mix = 0; mix < 3; mix++) {
                for (uint32_t w = 0; w < workers; w++)
                    threads[w] = mix == 0 ? 1 : mix == 1 ? 4 : 1 + (w * 7 + shards) % 5;
                uint32_t count = plan(shards, shards, threads, workers, sizes);
                check_plan(shards, shards, sizes, count);
            }
}

static void test_partition_keeps_blocks_within_the_samples_of_a_lease(void **state) {
    (void)state;
    uint32_t one = 1, sizes[64];
    for (uint32_t shards = 1; shards <= 64; shards++)
        for (uint32_t largest = 1; largest <= shards; largest++)
            check_plan(shards, largest, sizes, plan(shards, largest, &one, 1, sizes));
}

static void test_one_worker_gets_all_shards_in_one_lease(void **state) {
    (void)state;
    uint32_t one = 1, sizes[64];
    for (uint32_t shards = 1; shards <= 64; shards++) {
        assert_int_equal(plan(shards, shards, &one, 1, sizes), 1);
        assert_int_equal(sizes[0], shards);
    }
}

static void test_equal_workers_get_equal_blocks(void **state) {
    (void)state;
    uint32_t threads[8] = {1, 1, 1, 1, 1, 1, 1, 1}, sizes[64];
    for (uint32_t workers = 1; workers <= 8; workers *= 2) {
        uint32_t count = plan(64, 64, threads, workers, sizes);
        assert_int_equal(count, workers);
        for (uint32_t i = 0; i < count; i++) assert_int_equal(sizes[i], 64 / workers);
    }
}

static void test_three_workers_share_eight_shards_in_three_rounds(void **state) {
    (void)state;
    uint32_t threads[3] = {1, 1, 1}, sizes[8];
    uint32_t count = plan(8, 8, threads, 3, sizes);
    const uint32_t best[5] = {2, 2, 2, 1, 1}; /* 3 shards each at most, two leases each at most */
    assert_int_equal(count, 5);
    assert_memory_equal(sizes, best, sizeof best);
}

static void test_threads_count_as_speed(void **state) {
    (void)state;
    uint32_t threads[2] = {4, 4}, sizes[8];
    assert_int_equal(plan(8, 8, threads, 2, sizes), 2);
    uint32_t single[1] = {8};
    assert_int_equal(plan(8, 8, single, 1, sizes), 1);
}

static void test_more_workers_than_shards_get_one_shard_each(void **state) {
    (void)state;
    uint32_t threads[100], sizes[8];
    for (int i = 0; i < 100; i++) threads[i] = 1;
    assert_int_equal(plan(8, 8, threads, 100, sizes), 8);
}

static void test_short_shards_are_not_divided_among_workers(void **state) {
    (void)state;
    uint32_t sizes[8];
    uint64_t span;
    const partition_worker pool[2] = {{1, 100}, {1, 100}};
    const uint32_t serial[] = {0, 90, 110, 10000}, blocks[] = {2, 2, 1, 1};
    for (int i = 0; i < 4; i++) {
        const partition_pool workers = {pool, 2, 25, serial[i]};
        assert_int_equal(partition_plan(2, 2, &workers, sizes, &span), blocks[i]);
        assert_int_equal(span, blocks[i] == 1 ? 225 : 125);
    }
    /* Together, many short shards are long enough. */
    const partition_pool workers = {pool, 2, 25, 110};
    assert_int_equal(partition_plan(8, 8, &workers, sizes, &span), 2);
}

static void test_largest_pool_can_be_partitioned(void **state) {
    (void)state;
    static uint32_t threads[COP_SHARDS_MAX], sizes[COP_SHARDS_MAX];
    for (uint32_t i = 0; i < COP_SHARDS_MAX; i++) threads[i] = 1 + i % 3;
    uint32_t count = plan(COP_SHARDS_MAX, COP_SHARDS_MAX, threads, COP_SHARDS_MAX, sizes);
    check_plan(COP_SHARDS_MAX, COP_SHARDS_MAX, sizes, count);
}

/* ---- rounds ---- */

static coord_round begun(uint32_t shards, uint32_t size, uint32_t batch) {
    coord_round r = {0};
    uint32_t sizes[64], count = 0;
    for (uint32_t at = 0; at < shards; at += size) {
        uint32_t left = shards - at;
        sizes[count++] = left < size ? left : size;
    }
    assert_int_equal(round_reserve(&r, 64), COP_OK);
    round_begin_train(&r, 1, batch, sizes, count);
    return r;
}

static void give(coord_round *r, int block, uint64_t worker, uint64_t lease, uint64_t deadline) {
    round_holder holder = {.worker = worker, .lease = lease, .deadline_ns = deadline};
    round_lease_block(r, block, &holder);
    round_check(r);
}

/* A result of this lease that completes its block. */
static void finish_with(coord_round *r, int block, int holder, const round_vote *vote) {
    round_vote_add(r, block, holder, vote, 1);
    round_finish(r, block, 0, false);
    round_check(r);
}

static void finish(coord_round *r, uint32_t first, uint64_t lease, double loss) {
    int holder = 0, index = round_find(r, first, lease, &holder);
    assert_true(index >= 0);
    finish_with(r, index, holder, &(round_vote){.worker = 1, .lease = lease, .loss = loss});
}

static int pick(coord_round *r, uint64_t worker, uint64_t now, bool only) {
    round_asker asker = {worker, worker, UINT32_MAX, only};
    return round_pick(r, &asker, now);
}

static void test_blocks_are_picked_in_order(void **state) {
    (void)state;
    coord_round r = begun(8, 2, 100);
    for (int i = 0; i < 4; i++) {
        assert_true(round_has_work(&r, 1));
        assert_int_equal(pick(&r, 1, 1, true), i);
        give(&r, i, 1, 10 + (uint64_t)i, 100);
    }
    assert_false(round_has_work(&r, 1));
    assert_int_equal(pick(&r, 1, 1, true), -1);
    round_fini(&r);
}

static void test_block_that_was_leased_before_is_picked_first(void **state) {
    (void)state;
    coord_round r = begun(8, 2, 100);
    give(&r, 0, 1, 10, 100);
    give(&r, 1, 2, 11, 100);
    assert_true(round_lose_lease(&r, 2, 11));
    round_check(&r);
    assert_int_equal(pick(&r, 3, 1, false), 1);
    assert_true(round_lose_lease(&r, 0, 10));
    assert_int_equal(pick(&r, 3, 1, false), 0);
    assert_false(round_lose_lease(&r, 0, 10)); /* only once */
    round_fini(&r);
}

static void test_slow_worker_gets_the_largest_suitable_block(void **state) {
    (void)state;
    coord_round r = {0};
    const uint32_t sizes[5] = {8, 4, 2, 1, 1};
    assert_int_equal(round_reserve(&r, 8), COP_OK);
    round_begin_train(&r, 1, 100, sizes, 5);
    round_asker asker = {.worker = 1, .largest = 2};
    assert_int_equal(round_pick(&r, &asker, 1), 2);
    asker.largest = 7;
    assert_int_equal(round_pick(&r, &asker, 1), 1);
    asker.largest = 8;
    assert_int_equal(round_pick(&r, &asker, 1), 0);
    give(&r, 3, 2, 10, 100);
    give(&r, 4, 3, 11, 100);
    asker.largest = 1; /* none is suitable, so the smallest */
    assert_int_equal(round_pick(&r, &asker, 1), 2);
    round_fini(&r);
}

static void test_samples_of_blocks_follow_the_slices(void **state) {
    (void)state;
    for (uint32_t batch = 1; batch <= 40; batch++)
        for (uint32_t size = 1; size <= 16; size *= 2) {
            coord_round r = begun(13, size, batch);
            uint32_t sum = 0, absent = 0;
            for (uint32_t i = 0; i < r.count; i++) {
                sum += r.blocks[i].samples;
                absent += r.blocks[i].absent;
                assert_int_equal(r.blocks[i].absent, r.blocks[i].first >= batch);
            }
            assert_int_equal(sum, batch);
            assert_int_equal(r.done, absent);
            round_check(&r);
            round_fini(&r);
        }
}

static void test_overdue_follows_the_latest_deadline(void **state) {
    (void)state;
    coord_round r = begun(8, 8, 100);
    give(&r, 0, 1, 10, 100);
    assert_int_equal(pick(&r, 2, 99, false), -1);
    assert_int_equal(pick(&r, 1, 100, false), -1); /* its own */
    assert_int_equal(pick(&r, 2, 100, false), 0);
    give(&r, 0, 2, 11, 300);
    assert_int_equal(pick(&r, 3, 299, false), -1);
    assert_false(round_has_work(&r, 299));
    assert_int_equal(pick(&r, 3, 300, false), 0);
    give(&r, 0, 3, 12, 500);
    assert_int_equal(pick(&r, 4, 10000, false), -1); /* its limit is reached */
    round_fini(&r);
}

/* The block needs two results, so a single overdue lease delays it. */
static void test_audited_block_is_overdue_when_either_lease_is(void **state) {
    (void)state;
    coord_round r = begun(8, 8, 100);
    round_audit(&r, 0);
    give(&r, 0, 1, 10, 100);
    assert_int_equal(pick(&r, 2, 1, false), 0); /* it needs a second result */
    give(&r, 0, 2, 11, 300);
    assert_int_equal(pick(&r, 3, 99, false), -1);
    assert_int_equal(pick(&r, 3, 100, false), 0);
    round_check(&r);
    round_fini(&r);
}

static void test_finish_forgets_the_other_holders(void **state) {
    (void)state;
    coord_round r = begun(8, 8, 100);
    give(&r, 0, 1, 10, 100);
    give(&r, 0, 2, 11, 300);
    finish(&r, 0, 11, 1);
    int holder;
    assert_int_equal(round_find(&r, 0, 10, &holder), -1);
    assert_true(round_complete(&r));
    assert_int_equal(round_holders(&r, 0), 0);
    round_fini(&r);
}

static void test_reopened_block_is_pending_again_and_returns_its_slot(void **state) {
    (void)state;
    coord_round r = begun(8, 4, 100);
    give(&r, 0, 1, 10, 100);
    finish_with(&r, 0, 0, &(round_vote){.worker = 1, .lease = 10, .slot = 77});
    assert_int_equal(round_reject(&r, 0, 0, 50), 77);
    round_check(&r);
    assert_int_equal(pick(&r, 1, 49, false), 1); /* for a while, not to the same worker */
    give(&r, 1, 2, 11, 100);
    assert_int_equal(pick(&r, 1, 49, false), -1);
    assert_int_equal(pick(&r, 1, 49, true), 0); /* unless it is the only one */
    assert_int_equal(pick(&r, 1, 50, false), 0);
    assert_int_equal(pick(&r, 2, 1, false), 0);
    round_fini(&r);
}

static void test_evaluation_is_cut_into_slices_of_1000(void **state) {
    (void)state;
    coord_round r = {0};
    assert_int_equal(round_reserve(&r, 3), COP_OK);
    round_begin_evaluate(&r, 5, 2001);
    assert_int_equal(r.count, 3);
    assert_int_equal(r.blocks[1].first, 1000);
    assert_int_equal(r.blocks[1].count, 1000);
    assert_int_equal(r.blocks[2].count, 1);
    double sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        give(&r, (int)i, 1, 10 + i, 100);
        finish(&r, i * 1000, 10 + i, 0.1 * (i + 1));
        sum += 0.1 * (i + 1);
    }
    assert_true(round_loss(&r) == sum);
    round_fini(&r);
}

/* The loss has the same bits for every partition into nodes. Absent shards are skipped. */
static void test_loss_does_not_depend_on_the_partition(void **state) {
    (void)state;
    for (uint32_t shards = 1; shards <= 40; shards++)
        for (uint32_t batch = 1; batch <= 60; batch += 7) {
            uint32_t present = batch < shards ? batch : shards;
            double whole = fx_tree_loss(1, 0, shards, present);
            for (uint32_t size = 1; size <= 64; size *= 2) {
                coord_round r = begun(shards, size, batch);
                for (uint32_t i = 0; i < r.count; i++) {
                    const round_block *b = &r.blocks[i];
                    if (b->absent) continue;
                    give(&r, (int)i, 1, 100 + i, 1000);
                    finish(&r, b->first, 100 + i,
                           fx_tree_loss(1, b->first, b->first + b->count, present));
                }
                assert_true(round_complete(&r));
                assert_true(round_loss(&r) == whole);
                round_fini(&r);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition_covers_all_shards_for_every_pool),
        cmocka_unit_test(test_partition_keeps_blocks_within_the_samples_of_a_lease),
        cmocka_unit_test(test_one_worker_gets_all_shards_in_one_lease),
        cmocka_unit_test(test_equal_workers_get_equal_blocks),
        cmocka_unit_test(test_three_workers_share_eight_shards_in_three_rounds),
        cmocka_unit_test(test_threads_count_as_speed),
        cmocka_unit_test(test_more_workers_than_shards_get_one_shard_each),
        cmocka_unit_test(test_short_shards_are_not_divided_among_workers),
        cmocka_unit_test(test_largest_pool_can_be_partitioned),
        cmocka_unit_test(test_blocks_are_picked_in_order),
        cmocka_unit_test(test_block_that_was_leased_before_is_picked_first),
        cmocka_unit_test(test_slow_worker_gets_the_largest_suitable_block),
        cmocka_unit_test(test_samples_of_blocks_follow_the_slices),
        cmocka_unit_test(test_overdue_follows_the_latest_deadline),
        cmocka_unit_test(test_audited_block_is_overdue_when_either_lease_is),
        cmocka_unit_test(test_finish_forgets_the_other_holders),
        cmocka_unit_test(test_reopened_block_is_pending_again_and_returns_its_slot),
        cmocka_unit_test(test_evaluation_is_cut_into_slices_of_1000),
        cmocka_unit_test(test_loss_does_not_depend_on_the_partition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
