/* How jobs share the pool: priority, fair shares, jobs in memory, limits, and jobs that are pinned
 * to a fingerprint. Also how fast the scheduler decides. */
#include "core_fixture.h"

#include <time.h>

static coord_job_info long_info(uint64_t job, int priority) {
    coord_job_info info = fx_info(job);
    info.steps = 1000000;
    info.steps_per_epoch = 10;
    info.priority = priority;
    return info;
}

/* Gives `leases` leases to `workers` workers in turn. A shard of job j takes cost[j] ms. Returns
 * the compute time of each job. Worker w claims claims[w] ns for each lease; if `claims` is NULL,
 * it claims the true time. */
static void share_out_claimed(fixture *f, uint32_t workers, uint32_t leases, const double *cost,
                              const uint64_t *claims, double *spent) {
    for (uint32_t i = 0; i < leases;) {
        bool moved = false;
        for (uint32_t w = 1; w <= workers && i < leases; w++) {
            if (!f->lease[w].type && !f->request[w]) fx_pull(f, w);
            if (!f->lease[w].type) continue;
            coord_event e = fx_result_of(f, &f->lease[w]);
            double ms = cost[e.job] * e.result.count;
            e.result.compute_ns = (uint64_t)(ms * (double)FX_MS);
            spent[e.job] += ms;
            f->now += e.result.compute_ns;
            if (claims) e.result.compute_ns = claims[w];
            fx_send_result(f, e);
            i++;
            moved = true;
        }
        assert_true(moved);
    }
}

static void share_out(fixture *f, uint32_t workers, uint32_t leases, const double *cost,
                      double *spent) {
    share_out_claimed(f, workers, leases, cost, NULL, spent);
}

static void test_higher_priority_gets_the_pool(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    double spent[4] = {0}, cost[4] = {1, 1, 1, 1};
    fx_join(f, 1, 1, 7);
    fx_add(f, long_info(1, 0));
    fx_add(f, long_info(2, 5));
    share_out(f, 1, 100, cost, spent);
    assert_true(spent[2] > 0);
    assert_true(spent[1] == 0);
    fx_destroy(f);
}

static void test_lower_priority_gets_what_the_higher_one_leaves(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 3);
    coord_job_info small = long_info(2, 5);
    small.shards = 2;
    fx_add(f, long_info(1, 0));
    fx_add(f, small);
    for (uint64_t w = 1; w <= 3; w++) fx_pull(f, w);
    assert_int_equal(f->lease[1].job, 2);
    assert_int_equal(f->lease[2].job, 2);
    assert_int_equal(f->lease[3].job, 1);
    fx_destroy(f);
}

static void test_equal_jobs_get_equal_compute_time(void **state) {
    (void)state;
    for (uint32_t workers = 1; workers <= 4; workers++) {
        fixture *f = fx_create((coord_core_config){0});
        double spent[4] = {0}, cost[4] = {0, 1, 3, 10}; /* very unequal shards */
        fx_join_many(f, workers);
        for (uint64_t job = 1; job <= 3; job++) fx_add(f, long_info(job, 0));
        share_out(f, workers, 6000, cost, spent);
        double all = spent[1] + spent[2] + spent[3];
        for (int job = 1; job <= 3; job++) {
            assert_true(spent[job] > 0.30 * all);
            assert_true(spent[job] < 0.37 * all);
        }
        fx_destroy(f);
    }
}

/* A job prefers a worker that has its weights, so each of the two equal workers mostly computes for
 * one of the jobs. One worker claims to have computed for centuries. */
static void test_absurd_claim_does_not_change_the_shares(void **state) {
    (void)state;
    const uint64_t claims[] = {UINT64_MAX, UINT64_MAX / 2 + 1, 10000000000000000u};
    for (int i = 0; i < 3; i++) {
        fixture *f = fx_create((coord_core_config){0});
        double spent[4] = {0}, cost[4] = {0, 1, 3, 10};
        fx_join_many(f, 3);
        for (uint64_t job = 1; job <= 3; job++) fx_add(f, long_info(job, 0));
        const uint64_t of[] = {0, claims[i], 20 * FX_MS, 20 * FX_MS};
        share_out_claimed(f, 3, 6000, cost, of, spent);
        double all = spent[1] + spent[2] + spent[3];
        for (int job = 1; job <= 3; job++) {
            assert_true(spent[job] > 0.2 * all);
            assert_true(spent[job] < 0.5 * all);
        }
        fx_destroy(f);
    }
}

/* If a claim of no computing time were believed, the worker would work for this job only. */
static void test_claim_of_no_time_does_not_take_the_pool(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    double spent[4] = {0};
    fx_join(f, 1, 1, 7);
    for (uint64_t job = 1; job <= 3; job++) fx_add(f, long_info(job, 0));
    for (int i = 0; i < 3000; i++) {
        if (!f->lease[1].type) assert_non_null(fx_pull(f, 1));
        coord_event e = fx_result_of(f, &f->lease[1]);
        spent[e.job] += e.result.count;
        f->now += e.result.count * FX_MS;
        e.result.compute_ns = e.job == 1 ? 0 : e.result.count * FX_MS;
        fx_send_result(f, e);
    }
    double all = spent[1] + spent[2] + spent[3];
    for (int job = 2; job <= 3; job++) assert_true(spent[job] > 0.15 * all);
    fx_destroy(f);
}

static void test_later_job_does_not_starve_the_others(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    double before[4] = {0}, after[4] = {0}, cost[4] = {1, 1, 1, 1};
    fx_join(f, 1, 1, 7);
    fx_add(f, long_info(1, 0));
    share_out(f, 1, 5000, cost, before);
    fx_add(f, long_info(2, 0));
    share_out(f, 1, 1000, cost, after);
    assert_true(after[1] > 0.4 * (after[1] + after[2]));
    assert_true(after[2] > 0.4 * (after[1] + after[2]));
    fx_destroy(f);
}

static void test_simultaneous_pulls_are_shared_fairly(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    double spent[4] = {0}, cost[4] = {1, 1, 1, 1};
    fx_join_many(f, 8);
    fx_add(f, long_info(1, 0));
    fx_add(f, long_info(2, 0));
    share_out(f, 8, 200, cost, spent);  /* speeds are known now */
    for (uint64_t w = 1; w <= 8; w++) { /* no worker computes */
        if (f->lease[w].type) fx_finish(f, w);
    }
    uint32_t count[3] = {0};
    for (uint64_t w = 1; w <= 8; w++)
        if (fx_pull(f, w)) count[f->lease[w].job]++;
    assert_true(count[1] >= 2 && count[2] >= 2);
    fx_destroy(f);
}

static void test_worker_with_the_weights_is_preferred_if_shares_are_close(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    double spent[4] = {0}, cost[4] = {1, 1, 1, 1};
    fx_join_many(f, 2);
    fx_add(f, long_info(1, 0));
    fx_add(f, long_info(2, 0));
    share_out(f, 2, 400, cost, spent);
    for (uint64_t w = 1; w <= 2; w++)
        if (f->lease[w].type) fx_finish(f, w);
    assert_int_equal(fx_pull_with(f, 1, 2)->job, 2);
    assert_int_equal(fx_pull_with(f, 2, 1)->job, 1);
    fx_destroy(f);
}

/* ---- residents ---- */

static void test_number_of_resident_jobs_is_limited(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 3});
    fx_join(f, 1, 1, 7);
    for (uint64_t job = 1; job <= 10; job++) fx_add(f, fx_info(job));
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 3);
    assert_string_equal(fx_view(f, 4).waiting_for, "its turn");
    fx_work_all(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 10);
    for (uint64_t job = 1; job <= 10; job++) assert_int_equal(f->state[job], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_queue_is_ordered_by_priority_then_age(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 1});
    f->hold_load = true;
    const int priority[] = {0, 9, 0, 5, 5, -1, 0};
    for (uint64_t job = 1; job <= 6; job++) {
        coord_job_info info = fx_info(job);
        info.priority = priority[job];
        fx_add(f, info);
    }
    const uint64_t order[] = {1, 3, 4, 2, 6, 5};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(fx_last(f, COORD_ACTION_LOAD)->job, order[i]);
        fx_send(f, (coord_event){.type = COORD_EVENT_JOB_FAILED, .job = order[i], .text = "x"});
    }
    fx_destroy(f);
}

static void test_job_of_higher_priority_replaces_a_lower_one(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 2});
    fx_join(f, 1, 1, 7);
    fx_add(f, fx_info(1));
    fx_add(f, fx_info(2));
    fx_work(f, 1, 4);
    coord_job_info info = fx_info(3);
    info.priority = 1;
    fx_add(f, info);
    fx_work_to(f, 1, 3, 1);
    assert_int_equal(f->state[2], COORD_QUEUED); /* the youngest of the jobs with lower priority */
    assert_int_equal(f->state[1], COORD_RUNNING);
    assert_int_equal(f->checkpoint[2].job, 2); /* its state is saved */
    f->loaded_step = f->checkpoint[2].step;
    fx_work_all(f, 1);
    for (uint64_t job = 1; job <= 3; job++) assert_int_equal(f->state[job], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_job_of_equal_priority_replaces_none(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 1});
    fx_join(f, 1, 1, 7);
    fx_add(f, fx_info(1));
    fx_add(f, fx_info(2));
    fx_work_to(f, 1, 1, 29);
    assert_int_equal(f->state[2], COORD_QUEUED);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 0);
    fx_destroy(f);
}

/* ---- limits.workers ---- */

static void test_limit_of_workers_is_kept(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 6);
    coord_job_info info = fx_info(1);
    info.workers_max = 2;
    fx_add(f, info);
    uint32_t busy = 0;
    for (uint64_t w = 1; w <= 6; w++) busy += fx_pull(f, w) != NULL;
    assert_int_equal(busy, 2);
    assert_int_equal(f->lease[1].lease.count, 4); /* partitioned for two */
    fx_finish(f, 1);
    fx_finish(f, 2);
    assert_int_equal(fx_view(f, 1).step, 1);
    assert_int_equal(fx_view(f, 1).holders, 2); /* two of the waiting ones */
    fx_destroy(f);
}

static void test_frozen_worker_does_not_use_up_the_limit(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 2);
    coord_job_info info = fx_info(1);
    info.workers_max = 1;
    fx_add(f, info);
    fx_pull(f, 1);
    assert_null(fx_pull(f, 2));
    fx_tick(f, 4999);
    assert_false(f->lease[2].type);
    fx_tick(f, 1);
    assert_true(f->lease[2].type);
    fx_destroy(f);
}

/* ---- numerics: openblas ---- */

static void test_first_worker_pins_the_fingerprint_and_others_get_the_reason(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join(f, 1, 1, 111);
    fx_join(f, 2, 1, 222);
    fx_join(f, 3, 1, 222);
    coord_job_info info = fx_info(1);
    info.pin_first = true;
    fx_add(f, info);
    assert_non_null(fx_pull(f, 2));
    const coord_action *pinned = NULL;
    uint32_t refused = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        if (f->history[i].type != COORD_ACTION_EVENT) continue;
        if (f->history[i].fingerprint) pinned = &f->history[i];
        refused += strstr(f->history[i].text, "w1 gets no lease") != NULL;
    }
    assert_non_null(pinned);
    if (!pinned) return;
    assert_int_equal(pinned->fingerprint, 222);
    assert_int_equal(pinned->worker, 2);
    assert_int_equal(refused, 1);
    assert_null(fx_pull(f, 1));
    assert_non_null(fx_pull(f, 3));
    fx_forget(f);
    fx_work_all(f, 3);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    assert_false(fx_reported(f, "gets no lease")); /* once */
    fx_destroy(f);
}

static void test_pinned_job_rejects_a_later_worker_with_a_message(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_job_info info = fx_info(1);
    info.pin_first = true;
    info.fingerprint = 5; /* from an earlier run */
    fx_add(f, info);
    fx_join(f, 1, 1, 6);
    assert_true(fx_reported(f, "gets no lease of job 1"));
    assert_null(fx_pull(f, 1));
    assert_string_equal(fx_view(f, 1).waiting_for, "workers");
    fx_join(f, 2, 1, 5);
    assert_non_null(fx_pull(f, 2));
    fx_destroy(f);
}

/* A worker that speaks a protocol before 1.3 does not know bf16 weights. */
static void test_workers_without_bf16_get_no_lease_of_a_bf16_job(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_job_info info = fx_info(1);
    info.bf16 = true;
    fx_add(f, info);
    fx_join(f, 1, 1, 7);
    assert_null(fx_pull(f, 1));
    assert_string_equal(fx_view(f, 1).waiting_for, "workers");
    coord_event modern = {.type = COORD_EVENT_WORKER_JOINED, .worker = 2};
    modern.joined.name = "modern";
    modern.joined.threads = 1;
    modern.joined.bf16 = true;
    fx_send(f, modern);
    assert_non_null(fx_pull(f, 2));
    fx_add(f, fx_info(2)); /* the older one computes other jobs */
    assert_int_equal(f->lease[1].job, 2);
    fx_destroy(f);
}

static void test_portable_job_accepts_every_worker(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join(f, 1, 1, 111);
    fx_join(f, 2, 1, 222);
    fx_add(f, fx_info(1));
    assert_non_null(fx_pull(f, 1));
    assert_non_null(fx_pull(f, 2));
    assert_false(fx_reported(f, "gets no lease"));
    fx_destroy(f);
}

/* ---- speed ---- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Returns the seconds that an event (a request or a result) takes with this many queued jobs, in
 * the best of five rounds. */
static double seconds_per_event(uint64_t jobs) {
    enum { WORKERS = 500, ROUNDS = 5, EVENTS = 10000 };
    fixture *f = fx_create((coord_core_config){0});
    double best = INFINITY;
    f->timed = true;
    for (uint64_t job = 1; job <= jobs; job++) {
        coord_job_info info = long_info(job, 0);
        info.shards = 64;
        fx_add(f, info);
        fx_forget(f);
    }
    fx_join_many(f, WORKERS);
    for (int round = 0; round < ROUNDS; round++) {
        const double began = seconds();
        uint32_t events = 0;
        while (events < EVENTS)
            for (uint64_t w = 1; w <= WORKERS; w++) {
                if (!f->request[w] && !f->lease[w].type) {
                    fx_pull(f, w);
                    events++;
                }
                if (f->lease[w].type) {
                    fx_finish(f, w);
                    events++;
                }
                fx_forget(f);
            }
        best = fmin(best, (seconds() - began) / events);
    }
    for (uint64_t job = jobs; job > 4; job--) {
        fx_job_event(f, COORD_EVENT_JOB_CANCEL, job);
        fx_forget(f);
    }
    fx_destroy(f);
    return best;
}

/* Compares two times of the same run, so that the speed of the machine does not matter. A decision
 * that looked at all queued jobs would take hundreds of times longer. */
static void test_queued_jobs_do_not_slow_decisions_down(void **state) {
    (void)state;
    const double few = seconds_per_event(10), many = seconds_per_event(10000);
    print_message("%.2f us an event with 10 jobs, %.2f us with 10000\n", 1e6 * few, 1e6 * many);
    assert_true(many < 10 * few);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_higher_priority_gets_the_pool),
        cmocka_unit_test(test_lower_priority_gets_what_the_higher_one_leaves),
        cmocka_unit_test(test_equal_jobs_get_equal_compute_time),
        cmocka_unit_test(test_absurd_claim_does_not_change_the_shares),
        cmocka_unit_test(test_claim_of_no_time_does_not_take_the_pool),
        cmocka_unit_test(test_later_job_does_not_starve_the_others),
        cmocka_unit_test(test_simultaneous_pulls_are_shared_fairly),
        cmocka_unit_test(test_worker_with_the_weights_is_preferred_if_shares_are_close),
        cmocka_unit_test(test_number_of_resident_jobs_is_limited),
        cmocka_unit_test(test_queue_is_ordered_by_priority_then_age),
        cmocka_unit_test(test_job_of_higher_priority_replaces_a_lower_one),
        cmocka_unit_test(test_job_of_equal_priority_replaces_none),
        cmocka_unit_test(test_limit_of_workers_is_kept),
        cmocka_unit_test(test_frozen_worker_does_not_use_up_the_limit),
        cmocka_unit_test(test_first_worker_pins_the_fingerprint_and_others_get_the_reason),
        cmocka_unit_test(test_pinned_job_rejects_a_later_worker_with_a_message),
        cmocka_unit_test(test_workers_without_bf16_get_no_lease_of_a_bf16_job),
        cmocka_unit_test(test_portable_job_accepts_every_worker),
        cmocka_unit_test(test_queued_jobs_do_not_slow_decisions_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
