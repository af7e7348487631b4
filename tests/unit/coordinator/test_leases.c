/* Leases in virtual time. A worker's expected time follows its measured times, despite outliers.
 * Workers of different speeds get shards in proportion to their speeds. Idle workers compute blocks
 * of a slow worker, too. */
#include "virtual_pool.h"

#include "coordinator/core/lease_times.h"

/* ---- measured times ---- */

static void test_one_outlier_does_not_change_the_expected_time(void **state) {
    (void)state;
    coord_lease_times lease_times[LEASE_TIMES_KINDS] = {0};
    for (int i = 0; i < 20; i++) lease_times_note(lease_times, 7, 100e6 + i % 3 * 1e6);
    double before = lease_times_patience_ns(lease_times_find(lease_times, 7), 1);
    assert_false(lease_times_note(lease_times, 7, 60e9)); /* the worker froze for a minute */
    const coord_lease_times *s = lease_times_find(lease_times, 7);
    assert_true(s->median >= 100e6f && s->median <= 102e6f);
    assert_true(lease_times_patience_ns(s, 1) < 1.1 * before);
    for (int i = 0; i < 6; i++) lease_times_note(lease_times, 7, 60e9); /* seven of sixteen */
    assert_true(lease_times_find(lease_times, 7)->median <= 102e6f);
}

static void test_lasting_change_is_learnt_within_a_window(void **state) {
    (void)state;
    coord_lease_times lease_times[LEASE_TIMES_KINDS] = {0};
    bool moved = false;
    for (int i = 0; i < 20; i++) lease_times_note(lease_times, 7, 100e6);
    for (int i = 0; i < LEASE_TIMES_WINDOW; i++)
        moved = lease_times_note(lease_times, 7, 300e6) || moved;
    assert_true(moved);
    assert_true(lease_times_find(lease_times, 7)->median > 299e6f);
}

static void test_times_of_jobs_are_separate_and_the_oldest_is_dropped(void **state) {
    (void)state;
    coord_lease_times lease_times[LEASE_TIMES_KINDS] = {0};
    for (uint64_t key = 1; key <= LEASE_TIMES_KINDS; key++)
        for (int i = 0; i < 4; i++) lease_times_note(lease_times, key, (double)key * 1e6);
    for (uint64_t key = 1; key <= LEASE_TIMES_KINDS; key++)
        assert_true(fabsf(lease_times_find(lease_times, key)->median - (float)key * 1e6f) < 1);
    lease_times_note(lease_times, 1, 1e6); /* 1 is used again, so 2 is the least recently used */
    lease_times_note(lease_times, 99, 5e6);
    assert_null(lease_times_find(lease_times, 2));
    assert_non_null(lease_times_find(lease_times, 1));
    assert_false(lease_times_known(lease_times_find(lease_times, 99)));
}

static void test_deadline_follows_each_workers_own_times(void **state) {
    (void)state;
    virtual_pool *p = vp_create((coord_core_config){.lease_floor_ns = 20 * VP_MS}, 2, 1);
    p->worker[1].shard_ns = 10 * VP_MS;
    p->worker[2].shard_ns = 50 * VP_MS;
    vp_join(p, 1, 1);
    vp_join(p, 2, 1);
    vp_add(p, vp_info(1, 64, 1000));
    vp_run(p, 40);
    double patience[3];
    for (int w = 1; w <= 2; w++) {
        const coord_action *a = &p->worker[w].lease;
        /* The start of the lease is not known here, but it is at most one block ago. */
        patience[w] = (double)(a->lease.deadline_ns - p->now) / a->lease.count;
    }
    assert_true(patience[1] > 10e6 * 0.9 && patience[1] < 10e6 * 4);
    assert_true(patience[2] > 50e6 * 0.9 && patience[2] < 50e6 * 4);
    vp_destroy(p);
}

/* ---- shards in proportion ---- */

/* Returns the pool's shards per second, divided by the sum of what its workers would do alone. */
static double efficiency(const uint64_t *shard_ns, const uint32_t *threads, uint32_t workers,
                         uint32_t shards, double jitter) {
    virtual_pool *p = vp_create((coord_core_config){.speculate = true}, workers, 5);
    double sum = 0;
    for (uint32_t w = 1; w <= workers; w++) {
        p->worker[w].shard_ns = shard_ns[w - 1] / threads[w - 1];
        p->worker[w].jitter = jitter;
        sum += 1e9 / (double)p->worker[w].shard_ns;
        vp_join(p, w, 1);
    }
    vp_add(p, vp_info(1, shards, 1000000));
    vp_run(p, 50); /* speeds are learned */
    uint64_t began = p->now, step = p->job[1].step;
    vp_run(p, step + 300);
    double speed = 300.0 * shards / ((double)(p->now - began) * 1e-9);
    assert_int_equal(p->job[1].wrong_averaged, 0);
    vp_destroy(p);
    return speed / sum;
}

static void test_fast_and_slow_worker_reach_most_of_the_sum_of_their_speeds(void **state) {
    (void)state;
    const uint32_t one[4] = {1, 1, 1, 1};
    const uint64_t pair[2] = {2 * VP_MS, 6 * VP_MS}; /* one is 3 times slower */
    const uint32_t shards[] = {16, 32, 64, 128};
    for (int i = 0; i < 4; i++) {
        double steady = efficiency(pair, one, 2, shards[i], 0);
        double noisy = efficiency(pair, one, 2, shards[i], 0.2);
        print_message("1 + 1/3, %u shards: %.3f of the sum, %.3f with 20 %% noise\n", shards[i],
                      steady, noisy);
        assert_true(steady >= 0.85);
        assert_true(noisy >= 0.80);
        if (shards[i] >= 64) assert_true(noisy >= 0.85);
    }
    const uint64_t four[4] = {2 * VP_MS, 3 * VP_MS, 5 * VP_MS, 9 * VP_MS};
    double mixed = efficiency(four, one, 4, 128, 0.1);
    print_message("four unlike workers, 128 shards: %.3f of the sum\n", mixed);
    assert_true(mixed >= 0.85);
}

/* A worker that is too slow to help must not slow the pool. */
static void test_very_slow_worker_does_not_delay_the_step(void **state) {
    (void)state;
    const uint32_t one[2] = {1, 1};
    const uint64_t pair[2] = {2 * VP_MS, 100 * VP_MS};
    assert_true(efficiency(pair, one, 2, 8, 0) >= 0.85);
    const uint64_t turned[2] = {100 * VP_MS, 2 * VP_MS};
    assert_true(efficiency(turned, one, 2, 8, 0) >= 0.85);
}

/* The worker is so slow that others have done its blocks before its results come. While its times
 * are not known, its lease is overdue after 8 times the usual time. */
static void test_time_of_a_worker_that_is_always_late_is_learnt(void **state) {
    (void)state;
    const uint32_t one[4] = {1, 1, 1, 1};
    const uint64_t pair[2] = {200 * VP_MS, 3200 * VP_MS};
    const uint64_t four[4] = {200 * VP_MS, 200 * VP_MS, 200 * VP_MS, 6400 * VP_MS};
    double two = efficiency(pair, one, 2, 8, 0), many = efficiency(four, one, 4, 16, 0),
           few = efficiency(four, one, 4, 3, 0);
    print_message("1 + 1/16: %.3f of the sum; 3 + 1/32: %.3f, %.3f with 3 shards\n", two, many,
                  few);
    assert_true(two >= 0.85);
    assert_true(many >= 0.85);
    assert_true(few >= 0.85);
}

/* Only one worker computes at a time. The others are idle when a block appears, and the slow ones
 * have been idle the longest. */
static void test_slow_worker_is_not_preferred_after_a_long_idle_time(void **state) {
    (void)state;
    virtual_pool *p = vp_create((coord_core_config){.lease_floor_ns = 500 * VP_MS}, 5, 6);
    for (uint32_t w = 1; w <= 5; w++) {
        p->worker[w].shard_ns = w == 2 || w == 3 ? 600 * VP_MS : 100 * VP_MS;
        vp_join(p, w, 1);
    }
    coord_job_info info = vp_info(1, 1, 1000);
    info.audit = 1;
    info.workers_max = 1;
    vp_add(p, info);
    vp_run(p, 40); /* speeds are learned */
    uint64_t began = p->now;
    vp_run(p, 140);
    double seconds = (double)(p->now - began) * 1e-9 / 100;
    print_message("a step that is audited whole: %.3f s\n", seconds);
    assert_true(seconds <= 0.3); /* two fast workers in sequence */
    assert_int_equal(vp_view(p, 1).leases.disputed, 0);
    vp_destroy(p);
}

static void test_equal_workers_stay_in_step(void **state) {
    (void)state;
    const uint32_t one[4] = {1, 1, 1, 1};
    const uint64_t four[4] = {2 * VP_MS, 2 * VP_MS, 2 * VP_MS, 2 * VP_MS};
    assert_true(efficiency(four, one, 4, 8, 0) >= 0.9);
    assert_true(efficiency(four, one, 4, 8, 0.05) >= 0.85);
}

/* ---- copies ---- */

/* The longest step of a pool in which one worker sometimes takes a second longer. */
static double longest_step_ms(bool speculate, uint64_t *doubled) {
    virtual_pool *p = vp_create((coord_core_config){.speculate = speculate}, 4, 9);
    double longest = 0;
    for (uint32_t w = 1; w <= 4; w++) {
        p->worker[w].shard_ns = 5 * VP_MS;
        vp_join(p, w, 1);
    }
    vp_add(p, vp_info(1, 16, 2000));
    vp_run(p, 20);
    p->worker[4].stall_ns = VP_SECOND;
    for (uint64_t step = 21; step <= 1020; step++) {
        uint64_t began = p->now;
        vp_run(p, step);
        double ms = (double)(p->now - began) * 1e-6;
        if (ms > longest) longest = ms;
    }
    *doubled = vp_view(p, 1).leases.doubled;
    assert_int_equal(p->job[1].wrong_averaged, 0);
    vp_destroy(p);
    return longest;
}

static void test_idle_workers_copy_the_block_of_a_stalled_one(void **state) {
    (void)state;
    uint64_t with = 0, without = 0;
    double quick = longest_step_ms(true, &with), slow = longest_step_ms(false, &without);
    print_message("longest step %.0f ms with copies (%llu), %.0f ms with deadlines alone (%llu)\n",
                  quick, (unsigned long long)with, slow, (unsigned long long)without);
    assert_true(with > 0 && without > 0);
    assert_true(slow >= 250);  /* the shortest deadline */
    assert_true(quick <= 120); /* 25 until it is late, at most 50 until the tick, 20 for the copy */
}

static void test_no_copies_among_steady_equals(void **state) {
    (void)state;
    virtual_pool *p = vp_create((coord_core_config){.speculate = true}, 4, 3);
    for (uint32_t w = 1; w <= 4; w++) {
        p->worker[w].jitter = 0.05;
        p->worker[w].shard_ns = 5 * VP_MS;
        vp_join(p, w, 1);
    }
    vp_add(p, vp_info(1, 16, 500));
    vp_run(p, 490);
    coord_job_view view = vp_view(p, 1);
    print_message("%llu leases, %llu copies\n", (unsigned long long)view.leases.given,
                  (unsigned long long)view.leases.doubled);
    assert_true(view.leases.given > 1900);
    assert_true(view.leases.doubled * 50 < view.leases.given);
    vp_destroy(p);
}

static void test_second_results_of_copies_count_as_late(void **state) {
    (void)state;
    virtual_pool *p = vp_create((coord_core_config){.speculate = true}, 3, 4);
    for (uint32_t w = 1; w <= 3; w++) vp_join(p, w, 1);
    p->worker[3].stall_ns = 20 * VP_MS;
    vp_add(p, vp_info(1, 24, 3000));
    vp_run(p, 2000);
    coord_job_view view = vp_view(p, 1);
    assert_true(view.leases.doubled > 0);
    assert_true(view.leases.late + view.leases.stale > 0);
    assert_int_equal(view.leases.twice, 0);
    assert_true(p->job[1].weights == vp_expected_weights(&p->job[1].info, p->job[1].step));
    vp_destroy(p);
}

/* ---- one slow worker, at each share of audits ---- */

static const double audits[] = {0, 0.05, 1};
#define AUDITS ((int)(sizeof audits / sizeof *audits))

static const coord_core_config audited_config = {
    .speculate = true, .can_recompute = true, .secret = {0x1234567, 0x89abcdef}};

/* Returns the steps per second of `workers` workers, which compute a shard per millisecond, except
 * the last one, which is `slow`. Also returns the longest time until a deadline that the slow
 * worker gets after its speed is known. */
static double pace(uint32_t workers, double audit, vp_worker slow, uint64_t steps,
                   uint64_t *longest_ns) {
    virtual_pool *p = vp_create(audited_config, workers, 7);
    coord_job_info info = vp_info(1, 16, 1000000);
    info.audit = audit;
    slow.shard_ns = VP_MS;
    p->worker[workers] = slow;
    for (uint32_t w = 1; w <= workers; w++) vp_join(p, w, 1);
    vp_add(p, info);
    vp_run(p, 100); /* speeds are learned */
    const uint64_t began = p->now;
    p->worker[workers].longest_ns = 0;
    vp_run(p, 100 + steps);
    const double seconds = (double)(p->now - began) * 1e-9;
    assert_int_equal(p->job[1].wrong_averaged, 0);
    assert_string_equal(p->warnings, "");
    *longest_ns = p->worker[workers].longest_ns;
    vp_destroy(p);
    return (double)steps / seconds;
}

/* Checks that with a slow worker the pool is as fast as without it, apart from the cost of
 * measuring the slow worker. */
static void check_pace(const char *what, vp_worker slow) {
    for (uint32_t workers = 4; workers <= 8; workers += 4)
        for (int i = 0; i < AUDITS; i++) {
            uint64_t longest;
            const double whole = pace(workers - 1, audits[i], (vp_worker){0}, 500, &longest);
            const double with = pace(workers, audits[i], slow, 500, &longest);
            print_message("audit %.2f, %u workers: %.0f steps/s without it, %.0f with one %s, "
                          "deadline at most %.0f ms\n",
                          audits[i], workers, whole, with, what, (double)longest * 1e-6);
            assert_true(with >= 0.75 * whole);
            /* a lease has at most 16 shards of 1 ms; 8 times that is below the minimum */
            assert_true(longest <= 250 * VP_MS);
        }
}

static void test_late_worker_does_not_slow_the_pool_at_any_audit(void **state) {
    (void)state;
    check_pace("0.2 s late", (vp_worker){.late_ns = 200 * VP_MS});
}

static void test_worker_does_not_lengthen_its_own_deadline_at_any_audit(void **state) {
    (void)state;
    check_pace("at 93 % of its deadline", (vp_worker){.of_deadline = 0.93});
}

/* With a single worker there is no other to compare its times with. */
static void test_single_worker_does_not_lengthen_its_own_deadline(void **state) {
    (void)state;
    virtual_pool *p = vp_create(audited_config, 1, 7);
    p->worker[1].of_deadline = 0.93;
    vp_join(p, 1, 1);
    vp_add(p, vp_info(1, 16, 1000000));
    vp_run(p, 10);
    p->worker[1].longest_ns = 0;
    vp_run(p, 100);
    assert_true(p->worker[1].longest_ns <= 5 * VP_SECOND);
    vp_destroy(p);
}

/* One identity cannot raise the median with many sessions. */
static void test_many_slow_workers_of_one_identity_count_once(void **state) {
    (void)state;
    virtual_pool *p = vp_create((coord_core_config){.lease_floor_ns = 20 * VP_MS}, 8, 7);
    uint64_t leases = 0;
    for (uint32_t w = 1; w <= 8; w++) {
        if (w > 2) p->identity = "one";
        p->worker[w].shard_ns = w > 2 ? 60 * VP_MS : 10 * VP_MS;
        vp_join(p, w, 1);
    }
    vp_add(p, vp_info(1, 128, 1000000));
    vp_run(p, 40);
    while (p->job[1].step < 100) {
        vp_advance(p);
        for (uint32_t w = 3; w <= 8; w++) {
            const coord_action *a = &p->worker[w].lease;
            if (a->lease.deadline_ns <= p->now) continue;
            assert_true(a->lease.deadline_ns - p->now <= 8 * 11 * VP_MS * a->lease.count);
            leases++;
        }
    }
    assert_true(leases > 0);
    vp_destroy(p);
}

/* A new worker's deadline depends on the measured times of the pool, not on claims. */
static void test_absurd_claim_does_not_change_a_new_workers_deadline(void **state) {
    (void)state;
    const double claims[] = {1e3, 1e9, 1e12};
    for (int i = 0; i < 3; i++) {
        virtual_pool *p = vp_create(audited_config, 3, 7);
        p->worker[1].claim = claims[i];
        for (uint32_t w = 1; w <= 2; w++) vp_join(p, w, 1);
        vp_add(p, vp_info(1, 16, 1000000));
        vp_run(p, 20);
        vp_join(p, 3, 1);
        vp_run(p, 25);
        assert_true(p->worker[3].leases > 0);
        assert_true(p->worker[3].longest_ns <= 5 * VP_SECOND);
        vp_destroy(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_outlier_does_not_change_the_expected_time),
        cmocka_unit_test(test_lasting_change_is_learnt_within_a_window),
        cmocka_unit_test(test_times_of_jobs_are_separate_and_the_oldest_is_dropped),
        cmocka_unit_test(test_deadline_follows_each_workers_own_times),
        cmocka_unit_test(test_fast_and_slow_worker_reach_most_of_the_sum_of_their_speeds),
        cmocka_unit_test(test_very_slow_worker_does_not_delay_the_step),
        cmocka_unit_test(test_time_of_a_worker_that_is_always_late_is_learnt),
        cmocka_unit_test(test_slow_worker_is_not_preferred_after_a_long_idle_time),
        cmocka_unit_test(test_equal_workers_stay_in_step),
        cmocka_unit_test(test_idle_workers_copy_the_block_of_a_stalled_one),
        cmocka_unit_test(test_no_copies_among_steady_equals),
        cmocka_unit_test(test_second_results_of_copies_count_as_late),
        cmocka_unit_test(test_late_worker_does_not_slow_the_pool_at_any_audit),
        cmocka_unit_test(test_worker_does_not_lengthen_its_own_deadline_at_any_audit),
        cmocka_unit_test(test_single_worker_does_not_lengthen_its_own_deadline),
        cmocka_unit_test(test_many_slow_workers_of_one_identity_count_once),
        cmocka_unit_test(test_absurd_claim_does_not_change_a_new_workers_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
