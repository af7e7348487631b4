/* Results and leases: which results the core keeps or refuses, and what happens to a block whose
 * worker dies, is slow, cannot compute it, or returns a value that is not finite. */
#include "core_fixture.h"

/* Starts a job and `workers` workers that have not pulled yet. */
static fixture *start(uint32_t workers) {
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, workers);
    fx_add(f, fx_info(1));
    fx_forget(f);
    return f;
}

static void test_first_pull_gets_the_first_block_of_step_1(void **state) {
    (void)state;
    fixture *f = start(2);
    const coord_action *a = fx_pull(f, 1);
    assert_non_null(a);
    assert_int_equal(a->job, 1);
    assert_int_equal(a->step, 1);
    assert_int_equal(a->lease.version, 0);
    assert_int_equal(a->lease.first, 0);
    assert_int_equal(a->lease.count, 4);
    assert_int_equal(a->lease.batch, 100);
    assert_int_equal(a->lease.attempt, 1);
    assert_true(a->lease.deadline_ns > f->now);
    assert_false(a->lease.evaluate);
    fx_destroy(f);
}

static void test_every_lease_has_its_own_number(void **state) {
    (void)state;
    fixture *f = start(2);
    uint64_t first = fx_pull(f, 1)->lease.lease, second = fx_pull(f, 2)->lease.lease;
    assert_int_not_equal(first, 0);
    assert_int_not_equal(first, second);
    fx_destroy(f);
}

static void test_update_lists_all_shards_in_order_after_the_last_result(void **state) {
    (void)state;
    fixture *f = start(2);
    f->hold_update = true;
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 2); /* the later block is finished first */
    assert_int_equal(fx_count(f, COORD_ACTION_UPDATE), 0);
    fx_finish(f, 1);
    const coord_action *a = fx_last(f, COORD_ACTION_UPDATE);
    assert_non_null(a);
    assert_int_equal(a->step, 1);
    assert_int_equal(a->update.count, 2);
    assert_int_equal(a->update.batch, 100);
    assert_int_equal(a->update.blocks[0].first, 0);
    assert_int_equal(a->update.blocks[1].first, 4);
    assert_int_equal(a->update.blocks[0].count + a->update.blocks[1].count, 8);
    assert_int_equal(a->update.blocks[0].slot, 2);
    assert_int_equal(a->update.blocks[1].slot, 1);
    fx_destroy(f);
}

static void test_no_lease_of_the_next_step_before_the_update(void **state) {
    (void)state;
    fixture *f = start(1);
    f->hold_update = true;
    fx_pull(f, 1);
    fx_finish(f, 1);
    assert_null(fx_pull(f, 1));
    fx_job_event(f, COORD_EVENT_UPDATED, 1); /* not the requested update: it has no step */
    assert_false(f->lease[1].type);
    fx_send(f, (coord_event){.type = COORD_EVENT_UPDATED, .job = 1, .step = 1, .ok = true});
    assert_int_equal(f->lease[1].type, COORD_ACTION_LEASE);
    assert_int_equal(f->lease[1].step, 2);
    assert_int_equal(f->lease[1].lease.version, 1);
    fx_destroy(f);
}

static void test_round_ignores_late_gradient(void **state) {
    (void)state;
    fixture *f = start(1);
    fx_pull(f, 1);
    coord_event late = fx_result_of(f, &f->lease[1]);
    fx_finish(f, 1);
    fx_pull(f, 1); /* step 2 has begun */
    fx_forget(f);
    fx_send(f, late);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_DROP)->slot, late.result.slot);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 0);
    assert_int_equal(fx_view(f, 1).leases.stale, 1);
    assert_int_equal(fx_view(f, 1).step, 1);
    fx_destroy(f);
}

static void test_duplicate_result_counts_once(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    coord_event twin = fx_result_of(f, &f->lease[1]);
    fx_finish(f, 1);
    fx_send(f, twin);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_UPDATE), 0);
    assert_int_equal(fx_view(f, 1).leases.twice, 1);
    fx_destroy(f);
}

/* Each field of a result must match the lease. */
static void test_result_that_does_not_match_its_lease_is_dropped(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    coord_action lease = f->lease[1];
    for (int field = 0; field < 8; field++) {
        coord_event e = fx_result_of(f, &lease);
        if (field == 0) e.result.lease += 100;
        if (field == 1) e.result.step++;
        if (field == 2) e.result.attempt++;
        if (field == 3) e.result.first += 4;
        if (field == 4) e.result.count--;
        if (field == 5) e.result.evaluate = true;
        if (field == 6) e.worker = 2;
        if (field == 7) e.result.lease = 0;
        fx_forget(f);
        fx_send(f, e);
        assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
        assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 0);
    }
    assert_int_equal(fx_view(f, 1).leases.stale, 8);
    f->lease[1] = lease;
    fx_forget(f);
    fx_finish(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 1);
    fx_destroy(f);
}

/* One of the seven fields that identify the lease of a result is wrong. */
static coord_event mangled(fixture *f, uint64_t worker, int field) {
    coord_event e = fx_result_of(f, &f->lease[worker]);
    if (field == 0) e.result.count--;
    if (field == 1) e.result.attempt++;
    if (field == 2) e.result.step++;
    if (field == 3) e.result.first++;
    if (field == 4) e.result.evaluate = true;
    if (field == 5) e.result.ensemble = e.result.evaluate = true;
    if (field == 6) e.result.job++;
    return e;
}

static void test_worker_with_mismatched_results_does_not_keep_its_blocks(void **state) {
    (void)state;
    for (int field = 0; field < 7; field++) {
        fixture *f = start(2);
        for (int i = 0; i < 5; i++) { /* a block has three places */
            assert_non_null(fx_pull(f, 1));
            fx_send_result(f, mangled(f, 1, field));
            if (i % 2) fx_tick(f, 100000);
        }
        assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 0);
        fx_gone(f, 1);
        fx_join(f, 3, 1, 7);
        for (int i = 0; i < 100 && f->state[1] == COORD_RUNNING; i++) {
            if (!f->request[2]) fx_pull(f, 2);
            if (f->lease[2].type) fx_finish(f, 2);
        }
        assert_int_equal(f->state[1], COORD_COMPLETED);
        fx_destroy(f);
    }
}

static void test_third_mismatched_result_causes_quarantine(void **state) {
    (void)state;
    for (int field = 0; field < 7; field++) {
        fixture *f = fx_create((coord_core_config){.strikes_max = 3});
        fx_join_many(f, 2);
        fx_add(f, fx_info(1));
        coord_worker_view view;
        for (uint32_t i = 1; i <= 3; i++) {
            assert_non_null(fx_pull(f, 1));
            fx_send_result(f, mangled(f, 1, field));
            assert_true(coord_core_worker(f->core, 1, &view));
            assert_int_equal(view.strikes, i);
            assert_int_equal(view.quarantined, i == 3);
        }
        assert_true(fx_reported(f, "worker w1 sent a wrong result"));
        assert_null(fx_pull(f, 1));
        fx_work(f, 2, 1000);
        assert_int_equal(f->state[1], COORD_COMPLETED);
        fx_destroy(f);
    }
}

/* A job treats a worker that leaves and joins again under its name as the same worker; the next job
 * treats it as new. */
static void test_strikes_outlive_the_connection_and_end_with_the_job(void **state) {
    (void)state;
    coord_worker_view view;
    for (uint32_t jobs = 1; jobs <= 2; jobs++) {
        fixture *f = fx_create((coord_core_config){.strikes_max = 3});
        fx_join_many(f, 2);
        fx_add(f, fx_info(1));
        for (uint32_t i = 1; i <= 3; i++) {
            if (i == 3 && jobs == 2) {
                fx_work(f, 2, 1000);
                assert_int_equal(f->state[1], COORD_COMPLETED);
                fx_add(f, fx_info(2));
            }
            fx_gone(f, 1);
            fx_join(f, 1, 1, 7);
            assert_non_null(fx_pull(f, 1));
            fx_send_result(f, mangled(f, 1, 0));
            assert_true(coord_core_worker(f->core, 1, &view));
            assert_int_equal(view.strikes, i < 3 || jobs == 1 ? i : 1);
            assert_int_equal(view.quarantined, i == 3 && jobs == 1);
        }
        fx_destroy(f);
    }
}

/* A worker sends the same result again if the answer to its last call was lost. */
static void test_repeated_result_is_not_a_strike(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    coord_event e = fx_result_of(f, &f->lease[1]);
    fx_send_result(f, e);
    fx_pull(f, 1);
    e.result.slot = ++f->next_slot;
    f->slots[e.result.slot] = FX_OFFERED;
    fx_send(f, e);
    coord_worker_view view;
    assert_true(coord_core_worker(f->core, 1, &view));
    assert_int_equal(view.strikes, 0);
    fx_destroy(f);
}

static void test_result_of_an_unknown_job_is_dropped(void **state) {
    (void)state;
    fixture *f = start(1);
    fx_pull(f, 1);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.job = e.job = 99;
    fx_send(f, e);
    assert_int_equal(fx_last(f, COORD_ACTION_DROP)->slot, e.result.slot);
    fx_destroy(f);
}

static void test_result_of_a_worker_that_was_given_up_is_dropped(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    coord_event e = fx_result_of(f, &f->lease[1]);
    fx_gone(f, 1);
    fx_forget(f);
    fx_send(f, e);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 0);
    fx_destroy(f);
}

static void test_block_of_a_dead_worker_is_leased_first(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 8);
    fx_add(f, fx_info(1)); /* 8 blocks */
    for (uint64_t w = 1; w <= 3; w++) fx_pull(f, w);
    assert_int_equal(f->lease[3].lease.first, 2);
    fx_gone(f, 2);
    assert_int_equal(fx_pull(f, 4)->lease.first, 1);
    assert_int_equal(f->lease[4].lease.attempt, 2);
    assert_int_equal(fx_pull(f, 5)->lease.first, 3);
    assert_int_equal(f->lease[5].lease.attempt, 1);
    assert_int_equal(fx_view(f, 1).leases.repeated, 1);
    assert_int_equal(fx_view(f, 1).leases.given, 5);
    assert_true(fx_reported(f, "leased again"));
    fx_destroy(f);
}

static void test_waiting_worker_gets_the_block_of_a_dead_one_at_once(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_join(f, 3, 1, 7);
    assert_null(fx_pull(f, 3));
    fx_gone(f, 1);
    assert_int_equal(f->lease[3].type, COORD_ACTION_LEASE);
    assert_int_equal(f->lease[3].lease.first, 0);
    fx_destroy(f);
}

static void test_pull_without_a_result_means_a_lost_lease(void **state) {
    (void)state;
    fixture *f = start(1);
    uint64_t lost = fx_pull(f, 1)->lease.lease;
    coord_action old = f->lease[1];
    const coord_action *again = fx_pull(f, 1);
    assert_non_null(again);
    assert_int_equal(again->lease.first, old.lease.first);
    assert_int_equal(again->lease.attempt, 2);
    assert_int_not_equal(again->lease.lease, lost);
    assert_int_equal(fx_view(f, 1).leases.repeated, 1);
    fx_destroy(f);
}

static void test_all_workers_die_and_return(void **state) {
    (void)state;
    fixture *f = start(3);
    fx_work_to(f, 3, 1, 4);
    for (uint64_t w = 1; w <= 3; w++) fx_gone(f, w);
    fx_tick(f, 60000);
    assert_string_equal(fx_view(f, 1).waiting_for, "workers");
    assert_int_equal(fx_view(f, 1).step, 4);
    for (uint64_t w = 4; w <= 6; w++) fx_join(f, w, 1, 7);
    fx_work_all(f, 6);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_worker_joining_during_a_step_gets_remaining_blocks(void **state) {
    (void)state;
    fixture *f = start(2); /* two blocks of 4 */
    fx_pull(f, 1);
    fx_join(f, 3, 1, 7);
    const coord_action *a = fx_pull(f, 3);
    assert_non_null(a);
    assert_int_equal(a->step, 1);
    assert_int_equal(a->lease.first, 4);
    assert_int_equal(a->lease.count, 4); /* the partition is fixed for the step */
    fx_destroy(f);
}

/* ---- slow workers ---- */

static void test_overdue_block_is_copied_and_the_first_result_wins(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 2);
    assert_null(fx_pull(f, 2)); /* nothing to do before the deadline */
    uint64_t deadline = f->lease[1].lease.deadline_ns;
    f->now = deadline - 1;
    fx_pull(f, 2);
    assert_false(f->lease[2].type);
    fx_tick(f, 1);
    assert_int_equal(f->lease[2].type, COORD_ACTION_LEASE);
    assert_int_equal(f->lease[2].lease.first, 0);
    assert_int_equal(f->lease[2].lease.attempt, 1); /* a copy looks like a first lease */
    assert_int_equal(fx_view(f, 1).leases.doubled, 1);
    coord_event slow = fx_result_of(f, &f->lease[1]);
    fx_finish(f, 2);
    assert_int_equal(fx_view(f, 1).step, 1);
    fx_forget(f);
    fx_send_result(f, slow);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_view(f, 1).leases.stale, 1);
    fx_destroy(f);
}

static void test_lease_is_valid_until_its_block_is_done_or_its_job_ends(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    const uint64_t slow = f->lease[1].lease.lease, quick = f->lease[2].lease.lease;
    assert_true(coord_core_wants(f->core, 1, slow));
    assert_true(coord_core_wants(f->core, 2, quick));
    assert_false(coord_core_wants(f->core, 2, slow));
    assert_false(coord_core_wants(f->core, 1, 0));
    assert_false(coord_core_wants(f->core, 99, slow));
    fx_finish(f, 2);
    assert_false(coord_core_wants(f->core, 2, quick));
    fx_pull(f, 2);
    f->now = f->lease[1].lease.deadline_ns;
    fx_tick(f, 1);
    assert_int_equal(f->lease[2].lease.first, f->lease[1].lease.first); /* copied */
    assert_true(coord_core_wants(f->core, 1, slow));
    fx_finish(f, 2);
    assert_false(coord_core_wants(f->core, 1, slow));
    fx_pull(f, 2);
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_CANCEL, .job = 1});
    assert_false(coord_core_wants(f->core, 2, f->lease[2].lease.lease));
    fx_destroy(f);
}

static void test_slow_worker_may_still_win(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 2);
    fx_pull(f, 2);
    fx_tick(f, 6000); /* the PULL was held too long and is answered with NOTHING */
    fx_pull(f, 2);
    assert_int_equal(f->lease[2].lease.first, 0);
    coord_event twin = fx_result_of(f, &f->lease[2]);
    fx_finish(f, 1);
    assert_int_equal(fx_view(f, 1).step, 1);
    fx_forget(f);
    fx_send_result(f, twin);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    fx_destroy(f);
}

/* The second result, which is of a copy, has another kind than its lease, so it cannot be compared.
 */
static void test_late_result_of_another_kind_is_not_compared(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_tick(f, 100000);
    fx_pull(f, 2);
    fx_finish(f, 2);
    fx_pull(f, 2);
    assert_int_equal(f->lease[2].lease.first, 0); /* the copy */
    coord_event late = fx_result_of(f, &f->lease[1]), other = fx_result_of(f, &f->lease[1]);
    coord_event wins = fx_result_of(f, &f->lease[2]);
    f->hold_update = true;
    wins.result.digest = late.result.digest = 5;
    fx_send_result(f, wins);
    other.result.evaluate = true;
    fx_send(f, other);
    assert_int_equal(fx_view(f, 1).leases.compared, 0);
    fx_send_result(f, late);
    assert_int_equal(fx_view(f, 1).leases.compared, 1);
    assert_int_equal(fx_view(f, 1).leases.disputed, 0);
    fx_destroy(f);
}

static void test_overdue_block_is_not_given_to_its_own_holder(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_tick(f, 100000);
    fx_pull(f, 2); /* the other block first */
    assert_int_equal(f->lease[2].lease.first, 4);
    fx_finish(f, 2);
    fx_pull(f, 2);
    assert_int_equal(f->lease[2].lease.first, 0);
    fx_destroy(f);
}

static void test_at_most_three_workers_hold_one_block(void **state) {
    (void)state;
    fixture *f = start(1);
    fx_pull(f, 1); /* all shards */
    for (uint64_t w = 2; w <= 6; w++) {
        fx_join(f, w, 1, 7);
        fx_tick(f, 100000);
        fx_pull(f, w);
    }
    assert_true(f->lease[2].type && f->lease[3].type);
    assert_false(f->lease[4].type || f->lease[5].type || f->lease[6].type);
    assert_int_not_equal(f->request[6], 0);
    fx_gone(f, 2); /* now there is room again */
    fx_tick(f, 100000);
    assert_true(f->lease[6].type);
    fx_destroy(f);
}

static void test_deadline_grows_with_measured_times(void **state) {
    (void)state;
    fixture *f = start(1);
    fx_pull(f, 1);
    uint64_t first = f->lease[1].lease.deadline_ns - f->now;
    assert_int_equal(first, 5 * FX_SECOND);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.compute_ns = 80 * FX_SECOND; /* 10 s per shard */
    f->now += 80 * FX_SECOND;
    fx_send_result(f, e);
    fx_pull(f, 1);
    uint64_t second = f->lease[1].lease.deadline_ns - f->now;
    assert_true(second >= 4 * 80 * FX_SECOND && second <= 20 * 80 * FX_SECOND);
    fx_destroy(f);
}

static void test_lost_block_is_pending_only_if_no_copy_exists(void **state) {
    (void)state;
    fixture *f = start(1);
    fx_pull(f, 1);
    fx_join(f, 2, 1, 7);
    fx_tick(f, 100000);
    fx_pull(f, 2); /* the copy */
    fx_join(f, 3, 1, 7);
    fx_gone(f, 1);
    assert_null(fx_pull(f, 3)); /* worker 2 still computes it */
    fx_gone(f, 2);
    assert_true(f->lease[3].type);
    fx_destroy(f);
}

/* ---- bad results ---- */

static void test_failed_block_is_computed_by_another_worker(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.failed = true;
    e.text = "out of memory";
    fx_send_result(f, e);
    assert_true(fx_reported(f, "out of memory"));
    assert_null(fx_pull(f, 1)); /* no more work of this job */
    assert_int_equal(fx_pull(f, 2)->lease.first, 0);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

/* The worker reports that it cannot compute its lease. */
static void cannot(fixture *f, uint64_t worker, const char *why) {
    coord_event e = fx_result_of(f, &f->lease[worker]);
    e.result.failed = true;
    e.text = why;
    fx_send_result(f, e);
}

static void test_job_continues_although_some_workers_cannot_compute_it(void **state) {
    (void)state;
    fixture *f = start(5);
    for (uint64_t w = 1; w <= 3; w++)
        if (fx_pull(f, w)) cannot(f, w, "out of memory");
    coord_worker_view view;
    for (uint64_t w = 1; w <= 3; w++) {
        assert_null(fx_pull(f, w));
        assert_true(coord_core_worker(f->core, w, &view));
        assert_int_equal(view.unable, 1);
        assert_int_equal(view.strikes, 0);
    }
    assert_true(fx_reported(f, "worker w3 cannot compute job 1"));
    fx_work_to(f, 5, 1, 10);
    assert_int_equal(f->state[1], COORD_RUNNING);
    for (uint64_t w = 1; w <= 3; w++) assert_int_equal(f->lease[w].type, 0);
    fx_gone(f, 3);
    fx_join(f, 3, 1, 7); /* the new session may have more memory */
    bool computes = false;
    for (int i = 0; i < 10 && !computes; i++) {
        fx_work(f, 5, 1);
        computes = fx_last(f, COORD_ACTION_LEASE)->worker == 3;
    }
    assert_true(computes);
    fx_work_all(f, 5);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_worker_that_cannot_compute_one_job_computes_others(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    cannot(f, 1, "out of memory");
    fx_add(f, fx_info(2));
    assert_int_equal(fx_pull(f, 1)->job, 2);
    fx_destroy(f);
}

static void test_worker_that_cannot_compute_eight_jobs_gets_none_of_them_again(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 8});
    fx_join_many(f, 2);
    for (uint64_t job = 1; job <= 8; job++) fx_add(f, fx_info(job));
    int failures = 0;
    for (; failures < 20 && fx_pull(f, 1); failures++) cannot(f, 1, "out of memory");
    assert_int_equal(failures, 8);
    fx_destroy(f);
}

/* Completes the last requested COMPUTE. */
static void finish_recompute(fixture *f, bool failed) {
    const coord_action *a = fx_last(f, COORD_ACTION_COMPUTE);
    assert_non_null(a);
    coord_event e = fx_result_of(f, a);
    e.worker = COORD_SELF;
    e.result.failed = failed;
    e.text = failed ? "the coordinator cannot compute it" : NULL;
    fx_forget(f);
    fx_send(f, e);
}

/* Checks that workers 1 and 2 have one strike each, and that they complete the job. */
static void assert_both_refuted(fixture *f) {
    coord_worker_view view;
    for (uint64_t w = 1; w <= 2; w++) {
        assert_true(coord_core_worker(f->core, w, &view));
        assert_int_equal(view.strikes, 1);
    }
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
}

static void test_coordinator_computes_blocks_that_all_workers_cannot(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    for (int block = 0; block < 6; block++) { /* three steps, many more than 3 reports */
        for (uint64_t w = 1; w <= 2; w++)
            if (fx_pull(f, w)) cannot(f, w, "out of memory");
        finish_recompute(f, false);
        assert_int_equal(f->state[1], COORD_RUNNING);
    }
    assert_int_equal(fx_view(f, 1).step, 3);
    fx_work_all(f, 2); /* there is memory again */
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_job_fails_when_all_workers_and_the_coordinator_have_failed_a_block(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    for (uint64_t w = 1; w <= 2; w++) {
        fx_pull(f, w);
        cannot(f, w, "out of memory");
        assert_int_equal(f->state[1], COORD_RUNNING);
    }
    finish_recompute(f, true);
    assert_int_equal(f->state[1], COORD_FAILED);
    assert_non_null(strstr(fx_last(f, COORD_ACTION_STATE)->text, "cannot compute"));
    fx_destroy(f);
}

static void test_failed_workers_are_asked_again_after_the_others_left(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    cannot(f, 1, "out of memory");
    fx_work(f, 2, 3);
    fx_gone(f, 2);
    if (!f->request[1]) fx_pull(f, 1);
    assert_string_equal(fx_view(f, 1).waiting_for,
                        "another worker: the connected workers cannot compute it");
    for (int i = 0; i < 20 && !f->lease[1].type; i++) {
        fx_tick(f, 1000);
        if (!f->request[1] && !f->lease[1].type) fx_pull(f, 1);
    }
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_only_worker_gets_its_failed_block_again(void **state) {
    (void)state;
    fixture *f = start(1);
    fx_pull(f, 1);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.failed = true;
    fx_send_result(f, e);
    assert_non_null(fx_pull(f, 1));
    fx_destroy(f);
}

static void test_failed_block_waits_only_a_limited_time_for_another_worker(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.failed = true;
    fx_send_result(f, e);
    assert_null(fx_pull(f, 1)); /* worker 2 is busy or hangs */
    for (int i = 0; i < 20 && !f->lease[1].type; i++) {
        fx_tick(f, 1000);
        if (!f->request[1]) fx_pull(f, 1);
    }
    assert_int_equal(f->lease[1].lease.first, 0);
    fx_destroy(f);
}

static void test_job_fails_when_all_workers_have_failed_a_block(void **state) {
    (void)state;
    fixture *f = start(2); /* and the coordinator cannot compute it */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(f->state[1], COORD_RUNNING);
        uint64_t w = 1 + (uint64_t)i % 2;
        fx_pull(f, w);
        cannot(f, w, "the samples do not fit the model");
    }
    assert_int_equal(f->state[1], COORD_FAILED);
    assert_string_equal(fx_last(f, COORD_ACTION_STATE)->text, "the samples do not fit the model");
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    fx_destroy(f);
}

/* Checks that a result that `spoil` has changed is malformed for this reason. */
static void check_wrong_form(void (*spoil)(coord_event *), const char *reason) {
    fixture *f = fx_create((coord_core_config){.strikes_max = 3});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    coord_worker_view view;
    for (uint32_t i = 1; i <= 3; i++) { /* three reports would have failed the job */
        assert_non_null(fx_pull(f, 1));
        coord_event e = fx_result_of(f, &f->lease[1]);
        spoil(&e);
        fx_send_result(f, e);
        assert_true(coord_core_worker(f->core, 1, &view));
        assert_int_equal(view.strikes, i);
        f->now += 6 * FX_SECOND; /* until then another worker is preferred */
    }
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 0);
    assert_true(fx_reported(f, reason));
    assert_true(view.quarantined);
    fx_work(f, 2, 1000);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void another_number_of_samples(coord_event *e) {
    e->result.samples--;
}

static void more_correct_than_there_are(coord_event *e) {
    e->result.correct = e->result.samples + 1;
}

static void another_size(coord_event *e) {
    e->result.malformed = true;
    e->text = "the gradient has the wrong size";
}

static void test_malformed_results_are_strikes_and_fail_no_job(void **state) {
    (void)state;
    check_wrong_form(another_number_of_samples, "a wrong number of samples");
    check_wrong_form(more_correct_than_there_are, "more correct samples than samples");
    check_wrong_form(another_size, "the gradient has the wrong size");
}

static void test_non_finite_result_is_computed_again_by_another_worker(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_spoil(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 0);
    assert_int_equal(fx_pull(f, 2)->lease.first, 0);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_two_equal_non_finite_results_are_divergence(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_spoil(f, 1);
    fx_pull(f, 2);
    uint64_t slot = f->next_slot + 1;
    fx_spoil(f, 2);
    const coord_action *a = fx_last(f, COORD_ACTION_DIVERGED);
    assert_non_null(a);
    assert_int_equal(a->step, 1);
    assert_int_equal(a->slot, slot); /* kept, so that the host can examine it */
    assert_int_equal(a->lease.first, 0);
    assert_int_equal(a->lease.count, 4);
    assert_null(fx_pull(f, 1)); /* no more work of this job */
    fx_send(f,
            (coord_event){.type = COORD_EVENT_JOB_FAILED, .job = 1, .text = "diverged at step 1"});
    assert_int_equal(f->state[1], COORD_FAILED);
    assert_string_equal(fx_last(f, COORD_ACTION_STATE)->text, "diverged at step 1");
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    fx_destroy(f);
}

/* If COMPUTE fails, two workers that agree are believed, as if the coordinator could not compute.
 */
static void test_divergence_is_accepted_if_the_coordinator_cannot_compute(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    for (uint64_t w = 1; w <= 2; w++) {
        fx_pull(f, w);
        fx_spoil(f, w);
    }
    assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 0);
    finish_recompute(f, true);
    assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 1);
    fx_destroy(f);
}

/* If all slots are taken or there is no memory, the coordinator tries to compute the block again
 * later. Afterwards it can also decide later disputes. */
static void test_coordinator_without_room_computes_the_block_later(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    for (uint64_t w = 1; w <= 2; w++) {
        fx_pull(f, w);
        fx_spoil(f, w);
    }
    for (int i = 0; i < 3; i++) {
        const coord_action *a = fx_last(f, COORD_ACTION_COMPUTE);
        assert_non_null(a);
        coord_event e = fx_result_of(f, a);
        e.worker = COORD_SELF;
        e.result.failed = e.result.busy = true;
        e.text = "too many pending results";
        fx_forget(f);
        fx_send(f, e);
        assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 0);
        assert_int_equal(fx_count(f, COORD_ACTION_COMPUTE), 0); /* the coordinator does not
                                                                   compute it at once */
        fx_tick(f, 1000);
        assert_int_equal(fx_count(f, COORD_ACTION_COMPUTE), 0);
        fx_tick(f, 5000);
        assert_int_equal(fx_count(f, COORD_ACTION_COMPUTE), 1);
    }
    finish_recompute(f, false); /* a finite value: both workers are broken, the job is not */
    assert_both_refuted(f);
    fx_destroy(f);
}

static void test_coordinator_refutes_two_broken_workers(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    for (uint64_t w = 1; w <= 2; w++) {
        fx_pull(f, w);
        fx_spoil(f, w);
    }
    finish_recompute(f, false);
    assert_both_refuted(f);
    fx_destroy(f);
}

static void test_divergence_drops_kept_results_of_the_step(void **state) {
    (void)state;
    fixture *f = start(2);
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 2); /* kept */
    fx_spoil(f, 1);
    fx_pull(f, 2);
    fx_spoil(f, 2);
    fx_forget(f);
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_FAILED, .job = 1, .text = "diverged"});
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    fx_destroy(f);
}

static void not_ok(fixture *f, uint32_t first) {
    coord_event e = {.type = COORD_EVENT_UPDATED, .job = 1, .step = 1, .ok = false};
    e.result.first = first;
    fx_send(f, e);
}

static void test_gradient_rejected_by_the_update_is_computed_again(void **state) {
    (void)state;
    fixture *f = start(2);
    f->hold_update = true;
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 1);
    fx_finish(f, 2);
    fx_forget(f);
    not_ok(f, 4);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_DROP)->slot, 2);
    assert_null(fx_pull(f, 2)); /* it computed that block */
    assert_int_equal(fx_pull(f, 1)->lease.first, 4);
    f->hold_update = false;
    fx_finish(f, 1);
    assert_int_equal(fx_view(f, 1).step, 1);
    fx_destroy(f);
}

static void test_gradient_rejected_twice_is_divergence(void **state) {
    (void)state;
    fixture *f = start(1);
    f->hold_update = true;
    fx_pull(f, 1);
    fx_finish(f, 1);
    not_ok(f, 0);
    fx_pull(f, 1);
    fx_finish(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_UPDATE), 2);
    not_ok(f, 0);
    assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_DIVERGED)->slot, 2);
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_FAILED, .job = 1, .text = "diverged"});
    assert_int_equal(f->state[1], COORD_FAILED);
    fx_destroy(f);
}

/* ---- short batches ---- */

/* A job of 203 samples, in batches of 100 and 8 shards. Its third step has 3 samples, so 5 shards
 * are absent. */
static coord_job_info short_info(void) {
    coord_job_info info = fx_info(1);
    info.train_samples = 203;
    info.steps_per_epoch = 3;
    info.steps = 6;
    return info;
}

static void test_block_of_absent_shards_is_not_leased(void **state) {
    (void)state;
    for (uint32_t workers = 1; workers <= 8; workers++) {
        fixture *f = fx_create((coord_core_config){0});
        fx_join_many(f, workers);
        fx_add(f, short_info());
        fx_work_all(f, workers);
        uint32_t short_steps = 0;
        for (uint32_t i = 0; i < f->count; i++) {
            const coord_action *a = &f->history[i];
            if (a->type == COORD_ACTION_LEASE && a->step % 3 == 0) {
                assert_int_equal(a->lease.batch, 3);
                assert_true(a->lease.first < 3);
            }
            short_steps += a->type == COORD_ACTION_METRICS && a->metrics.samples == 3;
        }
        assert_int_equal(short_steps, 2);
        assert_int_equal(f->state[1], COORD_COMPLETED);
        fx_destroy(f);
    }
}

static void test_update_of_a_short_batch_omits_absent_blocks(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 8);
    fx_add(f, short_info());
    fx_work_to(f, 8, 1, 2);
    f->hold_update = true;
    fx_forget(f);
    fx_work_all(f, 8);
    const coord_action *a = fx_last(f, COORD_ACTION_UPDATE);
    assert_non_null(a);
    assert_int_equal(a->step, 3);
    assert_int_equal(a->update.batch, 3);
    assert_int_equal(a->update.count, 3);
    for (uint32_t i = 0; i < 3; i++) assert_int_equal(a->update.blocks[i].first, i);
    fx_destroy(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_pull_gets_the_first_block_of_step_1),
        cmocka_unit_test(test_every_lease_has_its_own_number),
        cmocka_unit_test(test_update_lists_all_shards_in_order_after_the_last_result),
        cmocka_unit_test(test_no_lease_of_the_next_step_before_the_update),
        cmocka_unit_test(test_round_ignores_late_gradient),
        cmocka_unit_test(test_duplicate_result_counts_once),
        cmocka_unit_test(test_result_that_does_not_match_its_lease_is_dropped),
        cmocka_unit_test(test_worker_with_mismatched_results_does_not_keep_its_blocks),
        cmocka_unit_test(test_third_mismatched_result_causes_quarantine),
        cmocka_unit_test(test_strikes_outlive_the_connection_and_end_with_the_job),
        cmocka_unit_test(test_repeated_result_is_not_a_strike),
        cmocka_unit_test(test_result_of_an_unknown_job_is_dropped),
        cmocka_unit_test(test_result_of_a_worker_that_was_given_up_is_dropped),
        cmocka_unit_test(test_block_of_a_dead_worker_is_leased_first),
        cmocka_unit_test(test_waiting_worker_gets_the_block_of_a_dead_one_at_once),
        cmocka_unit_test(test_pull_without_a_result_means_a_lost_lease),
        cmocka_unit_test(test_all_workers_die_and_return),
        cmocka_unit_test(test_worker_joining_during_a_step_gets_remaining_blocks),
        cmocka_unit_test(test_overdue_block_is_copied_and_the_first_result_wins),
        cmocka_unit_test(test_lease_is_valid_until_its_block_is_done_or_its_job_ends),
        cmocka_unit_test(test_slow_worker_may_still_win),
        cmocka_unit_test(test_late_result_of_another_kind_is_not_compared),
        cmocka_unit_test(test_overdue_block_is_not_given_to_its_own_holder),
        cmocka_unit_test(test_at_most_three_workers_hold_one_block),
        cmocka_unit_test(test_deadline_grows_with_measured_times),
        cmocka_unit_test(test_lost_block_is_pending_only_if_no_copy_exists),
        cmocka_unit_test(test_failed_block_is_computed_by_another_worker),
        cmocka_unit_test(test_only_worker_gets_its_failed_block_again),
        cmocka_unit_test(test_failed_block_waits_only_a_limited_time_for_another_worker),
        cmocka_unit_test(test_job_continues_although_some_workers_cannot_compute_it),
        cmocka_unit_test(test_worker_that_cannot_compute_one_job_computes_others),
        cmocka_unit_test(test_worker_that_cannot_compute_eight_jobs_gets_none_of_them_again),
        cmocka_unit_test(test_coordinator_computes_blocks_that_all_workers_cannot),
        cmocka_unit_test(test_job_fails_when_all_workers_and_the_coordinator_have_failed_a_block),
        cmocka_unit_test(test_failed_workers_are_asked_again_after_the_others_left),
        cmocka_unit_test(test_job_fails_when_all_workers_have_failed_a_block),
        cmocka_unit_test(test_malformed_results_are_strikes_and_fail_no_job),
        cmocka_unit_test(test_non_finite_result_is_computed_again_by_another_worker),
        cmocka_unit_test(test_two_equal_non_finite_results_are_divergence),
        cmocka_unit_test(test_divergence_is_accepted_if_the_coordinator_cannot_compute),
        cmocka_unit_test(test_coordinator_without_room_computes_the_block_later),
        cmocka_unit_test(test_coordinator_refutes_two_broken_workers),
        cmocka_unit_test(test_divergence_drops_kept_results_of_the_step),
        cmocka_unit_test(test_gradient_rejected_by_the_update_is_computed_again),
        cmocka_unit_test(test_gradient_rejected_twice_is_divergence),
        cmocka_unit_test(test_block_of_absent_shards_is_not_leased),
        cmocka_unit_test(test_update_of_a_short_batch_omits_absent_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
