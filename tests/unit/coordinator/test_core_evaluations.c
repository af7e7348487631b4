/* Evaluations in the core. Members of an ensemble are leased slice by slice, and their results are
 * passed on in order, in whatever order they arrive. Also tests the limited window of leases,
 * repeated leases, fair shares, cancel and stop. LABELS: quick */
#include "core_fixture.h"

#include "common/base/alloc.h"

#define MEMBERS 40

/* An ensemble on 2300 samples, which are 3 slices. */
static coord_job_info ensemble_info(uint64_t job) {
    return (coord_job_info){.job = job,
                            .kind = COORD_ENSEMBLE,
                            .evaluate_samples = 2300,
                            .members = MEMBERS,
                            .lease_members = 4,
                            .window = 5,
                            .state = COORD_QUEUED};
}

/* Checks every ABSORB since fx_forget: each member of each slice once, in order within a slice. */
static void check_absorbed(const fixture *f, uint32_t members, uint32_t samples) {
    uint32_t next[64] = {0}, slices = (samples + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE;
    for (uint32_t i = 0; i < f->count; i++) {
        const coord_action *a = &f->history[i];
        if (a->type != COORD_ACTION_ABSORB) continue;
        const uint32_t slice = a->lease.first / COP_EVAL_SLICE, left = samples - a->lease.first;
        assert_int_equal(a->lease.first % COP_EVAL_SLICE, 0);
        assert_int_equal(a->lease.count, left < COP_EVAL_SLICE ? left : COP_EVAL_SLICE);
        assert_true(a->slot && a->lease.members);
        assert_int_equal(a->lease.member, next[slice]);
        next[slice] += a->lease.members;
    }
    for (uint32_t s = 0; s < slices; s++) assert_int_equal(next[s], members);
}

static void test_every_member_of_every_slice_is_absorbed_in_order(void **state) {
    (void)state;
    for (uint32_t workers = 1; workers <= 3; workers++) {
        fixture *f = fx_create((coord_core_config){0});
        fx_join_many(f, workers);
        fx_add(f, ensemble_info(1));
        assert_int_equal(f->state[1], COORD_RUNNING);
        fx_work_all(f, workers);
        assert_int_equal(f->state[1], COORD_COMPLETED);
        check_absorbed(f, MEMBERS, 2300);
        assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
        assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 0);
        fx_destroy(f);
    }
}

static void test_lease_has_members_samples_and_version(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 1);
    fx_add(f, ensemble_info(1)); /* 120 pairs for one worker: 4 per lease */
    const coord_action *a = fx_pull(f, 1);
    assert_non_null(a);
    assert_true(a->lease.ensemble && a->lease.evaluate);
    assert_int_equal(a->lease.member, 0);
    assert_int_equal(a->lease.members, 4);
    assert_int_equal(a->lease.first, 0);
    assert_int_equal(a->lease.count, 1000);
    assert_int_equal(a->lease.version, 0);
    fx_finish(f, 1);
    for (int i = 0; i < 2; i++) {
        fx_pull(f, 1);
        fx_finish(f, 1);
    }
    a = fx_pull(f, 1); /* the fourth block: the next members, from the first slice */
    assert_int_equal(a->lease.member, 4);
    assert_int_equal(a->lease.first, 0);
    fx_destroy(f);
}

static void test_separate_models_are_leased_as_versions(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_job_info info = ensemble_info(1);
    info.each_version = true;
    info.members = 3;
    fx_join_many(f, 2);
    fx_add(f, info);
    for (uint32_t k = 0; k < 9; k++) {
        const coord_action *a = fx_pull(f, 1);
        assert_int_equal(a->lease.members, 1);
        assert_int_equal(a->lease.member, k / 3);
        assert_int_equal(a->lease.version, k / 3);
        fx_finish(f, 1);
    }
    assert_int_equal(f->state[1], COORD_COMPLETED);
    check_absorbed(f, 3, 2300);
    fx_destroy(f);
}

/* Results arrive in reverse order. Nothing is passed on until the first block's result arrives;
 * then all are passed on. */
static void test_early_results_wait_for_earlier_members(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 5);
    fx_add(f, ensemble_info(1));
    for (uint32_t w = 1; w <= 5; w++) assert_non_null(fx_pull(f, w));
    for (uint32_t w = 5; w >= 2; w--) fx_finish(f, w);
    assert_int_equal(fx_count(f, COORD_ACTION_ABSORB), 0);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 4);
    fx_finish(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_ABSORB), 5);
    fx_work_all(f, 5);
    check_absorbed(f, MEMBERS, 2300);
    fx_destroy(f);
}

/* The window limits how many results wait for a slow worker or a slow host. */
static void test_at_most_the_window_is_leased_ahead(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    f->hold_absorb = true;
    fx_join_many(f, 3);
    fx_add(f, ensemble_info(1));
    fx_work(f, 3, 1000);
    assert_int_equal(fx_count(f, COORD_ACTION_LEASE), 5);
    assert_int_equal(fx_count(f, COORD_ACTION_ABSORB), 5);
    fx_job_event(f, COORD_EVENT_ABSORBED, 1); /* one place is free */
    assert_int_equal(fx_count(f, COORD_ACTION_LEASE), 6);
    fx_work(f, 3, 1000);
    assert_int_equal(fx_count(f, COORD_ACTION_LEASE), 6);
    for (uint32_t left = 1; f->state[1] == COORD_RUNNING; left++) {
        assert_true(left < 100);
        fx_job_event(f, COORD_EVENT_ABSORBED, 1);
        fx_work(f, 3, 1000);
    }
    assert_int_equal(f->state[1], COORD_COMPLETED);
    check_absorbed(f, MEMBERS, 2300);
    fx_destroy(f);
}

static void test_block_of_a_lost_worker_is_leased_again(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 2);
    fx_add(f, ensemble_info(1));
    fx_pull(f, 1);
    fx_pull(f, 2);
    const uint32_t member = f->lease[1].lease.member, first = f->lease[1].lease.first;
    fx_gone(f, 1);
    fx_finish(f, 2);
    const coord_action *a = fx_pull(f, 2);
    assert_int_equal(a->lease.member, member);
    assert_int_equal(a->lease.first, first);
    assert_int_equal(a->lease.attempt, 2);
    assert_true(fx_reported(f, "are leased again, to worker w2"));
    assert_int_equal(fx_view(f, 1).leases.repeated, 1);
    fx_work_all(f, 2);
    check_absorbed(f, MEMBERS, 2300);
    fx_destroy(f);
}

static void test_first_of_two_results_counts(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 2);
    fx_add(f, ensemble_info(1));
    fx_pull(f, 1);
    const coord_event late = fx_result_of(f, &f->lease[1]);
    fx_tick(f, 6000);             /* its deadline has passed */
    for (int i = 0; i < 5; i++) { /* it gets four other blocks first, then the copy */
        fx_pull(f, 2);
        fx_finish(f, 2);
    }
    fx_send_result(f, late);
    assert_int_equal(fx_view(f, 1).leases.late, 1);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    check_absorbed(f, MEMBERS, 2300);
    fx_destroy(f);
}

/* A result for a block that is no longer in the window, or never was. */
static void test_stale_and_invented_results_are_dropped(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 1);
    fx_add(f, ensemble_info(1));
    fx_pull(f, 1);
    const coord_action a = f->lease[1];
    static const uint64_t steps[] = {0, 2, 9, 1000000, UINT64_MAX};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        coord_event e = fx_result_of(f, &a);
        e.result.step = steps[i];
        fx_send(f, e);
        assert_int_equal(fx_view(f, 1).leases.stale, i + 1);
    }
    fx_destroy(f);
}

static void test_cancel_ends_an_evaluation_and_drops_kept_results(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    f->hold_absorb = true;
    fx_join_many(f, 3);
    fx_add(f, ensemble_info(1));
    for (uint32_t w = 1; w <= 3; w++) fx_pull(f, w);
    fx_finish(f, 1); /* passed on to the host */
    fx_finish(f, 3); /* its result waits, because an earlier one is missing */
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 1);
    assert_int_equal(f->state[1], COORD_CANCELED);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    for (uint64_t s = 1; s <= f->next_slot; s++) assert_int_equal(f->slots[s], FX_RELEASED);
    fx_job_event(f, COORD_EVENT_ABSORBED, 1); /* this late answer has no effect */
    fx_finish(f, 2);
    fx_destroy(f);
}

static void test_stop_cancels_an_evaluation_at_once(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 1);
    fx_add(f, ensemble_info(1));
    fx_pull(f, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    assert_int_equal(f->state[1], COORD_CANCELED);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    fx_destroy(f);
}

static void test_evaluations_ignore_pause_and_resume(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 1);
    fx_add(f, ensemble_info(1));
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_job_event(f, COORD_EVENT_JOB_EVALUATE, 1);
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

/* Jobs share compute time, not leases: here a lease of the ensemble takes ten times as long as a
 * shard. */
static void test_evaluation_shares_the_pool_fairly_with_training(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_job_info training = fx_info(1), info = ensemble_info(2);
    uint64_t spent[3] = {0};
    training.steps = 100000;
    info.members = 100000;
    fx_join_many(f, 1);
    fx_add(f, training);
    fx_add(f, info);
    for (int i = 0; i < 4000; i++) {
        if (!f->lease[1].type && !f->request[1]) fx_pull(f, 1);
        assert_int_equal(f->lease[1].type, COORD_ACTION_LEASE);
        const coord_action a = f->lease[1];
        coord_event e = fx_result_of(f, &a);
        e.result.compute_ns = a.lease.ensemble ? 80 * FX_MS : a.lease.count * FX_MS;
        spent[a.job] += e.result.compute_ns;
        f->now += e.result.compute_ns;
        fx_send_result(f, e);
    }
    assert_true(spent[1] > spent[2] * 9 / 10 && spent[1] < spent[2] * 11 / 10);
    fx_destroy(f);
}

static void test_priority_precedes_fair_shares(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_job_info training = fx_info(1), info = ensemble_info(2);
    info.priority = 1;
    fx_join_many(f, 1);
    fx_add(f, training);
    fx_add(f, info);
    for (int i = 0; i < 30; i++) {
        assert_true(fx_pull(f, 1)->lease.ensemble);
        fx_finish(f, 1);
    }
    assert_int_equal(f->state[2], COORD_COMPLETED);
    assert_false(fx_pull(f, 1)->lease.ensemble);
    fx_destroy(f);
}

/* Running jobs do not delay an evaluation, and an evaluation replaces no job. */
static void test_evaluations_and_training_have_separate_places(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 2, .evaluations_max = 2});
    fx_join_many(f, 1);
    fx_add(f, fx_info(1));
    fx_add(f, ensemble_info(2));
    fx_add(f, ensemble_info(3));
    fx_add(f, fx_info(4));
    fx_add(f, fx_info(5));
    assert_int_equal(f->state[1], COORD_RUNNING);
    assert_int_equal(f->state[3], COORD_RUNNING);
    assert_int_equal(f->state[4], COORD_RUNNING);
    assert_int_equal(f->state[5], COORD_QUEUED);
    coord_event more = {.type = COORD_EVENT_JOB_ADDED, .job = 6, .info = ensemble_info(6)};
    assert_int_equal(coord_core_step(f->core, &more, f->now, &f->actions), COP_ERR_LIMIT);
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 2);
    fx_add(f, ensemble_info(6));
    assert_int_equal(f->state[6], COORD_RUNNING);
    fx_work_all(f, 1);
    for (uint64_t job = 1; job <= 6; job++)
        assert_int_equal(f->state[job], job == 2 ? COORD_CANCELED : COORD_COMPLETED);
    fx_destroy(f);
}

static void test_plain_evaluation_sums_slices_in_order(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_job_info info = ensemble_info(1);
    info.kind = COORD_EVALUATION;
    fx_join_many(f, 2);
    fx_add(f, info);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    const coord_action *a = fx_last(f, COORD_ACTION_EVALUATED);
    assert_non_null(a);
    assert_int_equal(a->metrics.samples, 2300);
    assert_true(a->metrics.loss_sum == 0.001 * 1 + 0.001 * 1001 + 0.001 * 2001);
    assert_int_equal(a->metrics.correct, 500 + 500 + 150);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 0);
    fx_destroy(f);
}

/* A worker that speaks protocol 1.0 does not know leases of ensembles. */
static void test_workers_without_ensemble_support_get_none(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_event old = {.type = COORD_EVENT_WORKER_JOINED, .worker = 1};
    old.joined.name = "old";
    old.joined.threads = 1;
    fx_send(f, old);
    fx_add(f, ensemble_info(1));
    assert_null(fx_pull(f, 1));
    assert_string_equal(fx_view(f, 1).waiting_for, "workers");
    fx_join(f, 2, 1, 7);
    assert_non_null(fx_pull(f, 2));
    fx_add(f, fx_info(2)); /* but it trains */
    assert_int_equal(f->lease[1].job, 2);
    fx_destroy(f);
}

static void test_three_reports_of_cannot_compute_fail_an_evaluation(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 1);
    fx_add(f, ensemble_info(1));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(f->state[1], COORD_RUNNING);
        fx_pull(f, 1);
        coord_event e = fx_result_of(f, &f->lease[1]);
        e.result.failed = true;
        e.text = "no memory for the logits";
        fx_send_result(f, e);
    }
    assert_int_equal(f->state[1], COORD_FAILED);
    assert_string_equal(fx_last(f, COORD_ACTION_STATE)->text, "no memory for the logits");
    fx_destroy(f);
}

/* A result with a non-finite value; the host recognizes it by its digest. */
static void spoil(fixture *f, uint64_t worker) {
    coord_event e = fx_result_of(f, &f->lease[worker]);
    assert_true(coord_core_wants_digest(f->core, worker, &e.result));
    e.result.digest = 77;
    e.result.finite = false;
    fx_send_result(f, e);
}

static void test_non_finite_output_of_one_worker_does_not_fail_the_evaluation(void **state) {
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        fixture *f = fx_create((coord_core_config){.can_recompute = recompute});
        fx_join_many(f, 2);
        fx_add(f, ensemble_info(1));
        fx_pull(f, 1);
        spoil(f, 1);
        assert_int_equal(fx_count(f, COORD_ACTION_ABSORB), 0);
        fx_pull(f, 2); /* the same block */
        const uint32_t before = f->count;
        fx_finish(f, 2);
        for (uint32_t i = before; recompute && i < f->count; i++)
            if (f->history[i].type == COORD_ACTION_COMPUTE) {
                coord_event e = fx_result_of(f, &f->history[i]);
                e.worker = COORD_SELF;
                fx_send(f, e);
                break;
            }
        coord_worker_view view;
        assert_true(coord_core_worker(f->core, 1, &view));
        assert_int_equal(view.strikes, 1);
        fx_work_all(f, 2);
        assert_int_equal(f->state[1], COORD_COMPLETED);
        check_absorbed(f, MEMBERS, 2300);
        fx_destroy(f);
    }
}

static void test_confirmed_non_finite_outputs_fail_the_evaluation(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    fx_join_many(f, 2);
    fx_add(f, ensemble_info(1));
    for (uint64_t w = 1; w <= 2; w++) {
        fx_pull(f, w);
        assert_int_equal(f->lease[w].lease.member, 0);
        assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 0);
        spoil(f, w);
    }
    assert_int_equal(fx_count(f, COORD_ACTION_DIVERGED), 0);
    const coord_action *a = fx_last(f, COORD_ACTION_COMPUTE);
    assert_non_null(a);
    coord_event e = fx_result_of(f, a);
    e.worker = COORD_SELF;
    e.result.digest = 77;
    e.result.finite = false;
    fx_send(f, e);
    a = fx_last(f, COORD_ACTION_DIVERGED);
    assert_non_null(a);
    assert_true(a->lease.ensemble);
    assert_int_equal(a->lease.first, 0);
    assert_int_equal(a->lease.member, 0);
    fx_destroy(f);
}

/* If an allocation fails, the evaluation is either added or not, without side effects. */
static void test_adding_survives_every_failed_allocation(void **state) {
    (void)state;
    for (uint64_t k = 1;; k++) {
        fixture *f = fx_create((coord_core_config){0});
        fx_join_many(f, 1);
        coord_event add = {.type = COORD_EVENT_JOB_ADDED, .job = 1, .info = ensemble_info(1)};
        cop_alloc_fail_at(k);
        const cop_err e = coord_core_step(f->core, &add, f->now, &f->actions);
        cop_alloc_fail_at(0);
        if (e) assert_int_equal(e, COP_ERR_NO_MEMORY);
        coord_job_view view;
        assert_true(coord_core_job(f->core, 1, f->now, &view) == !e);
        fx_destroy(f);
        if (!e) {
            assert_true(k > 3);
            break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_member_of_every_slice_is_absorbed_in_order),
        cmocka_unit_test(test_lease_has_members_samples_and_version),
        cmocka_unit_test(test_separate_models_are_leased_as_versions),
        cmocka_unit_test(test_early_results_wait_for_earlier_members),
        cmocka_unit_test(test_at_most_the_window_is_leased_ahead),
        cmocka_unit_test(test_block_of_a_lost_worker_is_leased_again),
        cmocka_unit_test(test_first_of_two_results_counts),
        cmocka_unit_test(test_stale_and_invented_results_are_dropped),
        cmocka_unit_test(test_cancel_ends_an_evaluation_and_drops_kept_results),
        cmocka_unit_test(test_stop_cancels_an_evaluation_at_once),
        cmocka_unit_test(test_evaluations_ignore_pause_and_resume),
        cmocka_unit_test(test_evaluation_shares_the_pool_fairly_with_training),
        cmocka_unit_test(test_priority_precedes_fair_shares),
        cmocka_unit_test(test_evaluations_and_training_have_separate_places),
        cmocka_unit_test(test_plain_evaluation_sums_slices_in_order),
        cmocka_unit_test(test_workers_without_ensemble_support_get_none),
        cmocka_unit_test(test_three_reports_of_cannot_compute_fail_an_evaluation),
        cmocka_unit_test(test_non_finite_output_of_one_worker_does_not_fail_the_evaluation),
        cmocka_unit_test(test_confirmed_non_finite_outputs_fail_the_evaluation),
        cmocka_unit_test(test_adding_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
