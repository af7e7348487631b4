/* The pool: workers join, fall silent, drain and leave. Also how long a PULL is held. */
#include "core_fixture.h"

static void test_unknown_worker_gets_unknown(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_event e = {.type = COORD_EVENT_PULL, .worker = 5};
    e.pull.request = 77;
    fx_send(f, e);
    const coord_action *a = fx_last(f, COORD_ACTION_NOTHING);
    assert_non_null(a);
    assert_true(a->nothing.unknown);
    assert_int_equal(a->request, 77);
    assert_int_equal(a->worker, 5);
    fx_destroy(f);
}

static void test_pull_is_held_while_there_is_no_work(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join(f, 1, 1, 7);
    fx_pull(f, 1);
    fx_tick(f, 1000);
    assert_int_equal(fx_count(f, COORD_ACTION_NOTHING), 0);
    fx_add(f, fx_info(1));
    assert_int_equal(f->lease[1].type, COORD_ACTION_LEASE); /* answered when there is work */
    fx_destroy(f);
}

static void test_held_pull_is_answered_nothing_after_its_time(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join(f, 1, 1, 7);
    fx_pull(f, 1);
    fx_tick(f, COP_HOLD_MAX_MS);
    assert_int_equal(fx_count(f, COORD_ACTION_NOTHING), 0);
    fx_tick(f, 1);
    const coord_action *a = fx_last(f, COORD_ACTION_NOTHING);
    assert_non_null(a);
    assert_false(a->nothing.unknown || a->nothing.drain);
    fx_tick(f, 10000);
    assert_int_equal(fx_count(f, COORD_ACTION_NOTHING), 1);
    fx_destroy(f);
}

static void test_only_the_newest_pull_of_a_worker_is_answered(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join(f, 1, 1, 7);
    fx_pull(f, 1);
    fx_pull(f, 1);
    fx_add(f, fx_info(1));
    assert_int_equal(fx_count(f, COORD_ACTION_LEASE), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_LEASE)->request, 2);
    fx_destroy(f);
}

static void test_longest_waiting_worker_is_served_first(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    for (uint64_t w = 1; w <= 3; w++) fx_join(f, w, 1, 7);
    fx_pull(f, 3);
    fx_pull(f, 1);
    fx_pull(f, 2);
    coord_job_info info = fx_info(1);
    info.shards = 2; /* two blocks for three */
    fx_add(f, info);
    assert_int_equal(f->lease[3].lease.first, 0);
    assert_int_equal(f->lease[1].lease.first, 1);
    assert_false(f->lease[2].type);
    fx_destroy(f);
}

/* ---- heartbeats ---- */

static fixture *with_heartbeats(void) {
    fixture *f = fx_create((coord_core_config){.heartbeats = true, .heartbeat_ns = FX_SECOND});
    fx_join(f, 1, 1, 7);
    fx_join(f, 2, 1, 7);
    fx_add(f, fx_info(1));
    return f;
}

static void beat(fixture *f, uint64_t worker) {
    fx_send(f, (coord_event){.type = COORD_EVENT_HEARTBEAT, .worker = worker});
}

static void test_silent_worker_is_disconnected_after_three_heartbeats(void **state) {
    (void)state;
    fixture *f = with_heartbeats();
    for (int second = 1; second <= 3; second++) {
        fx_tick(f, 1000);
        beat(f, 2);
    }
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 0);
    fx_tick(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_DISCONNECT)->worker, 1);
    assert_int_equal(coord_core_worker_count(f->core), 1);
    assert_true(fx_reported(f, "silent"));
    fx_destroy(f);
}

static void test_silent_workers_block_goes_to_another(void **state) {
    (void)state;
    fixture *f = with_heartbeats();
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 2);
    fx_pull(f, 2);
    for (int second = 1; second <= 4 && !f->lease[2].type; second++) {
        beat(f, 2);
        fx_tick(f, 1000);
    }
    assert_int_equal(f->lease[2].lease.first, 0);
    fx_destroy(f);
}

static void test_any_message_counts_as_a_heartbeat(void **state) {
    (void)state;
    fixture *f = with_heartbeats();
    fx_pull(f, 1);
    for (int second = 1; second <= 8; second++) {
        fx_tick(f, 1000);
        beat(f, 2);
        if (f->lease[1].type && second % 2)
            fx_finish(f, 1);
        else if (!f->request[1])
            fx_pull(f, 1);
    }
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 0);
    fx_destroy(f);
}

/* After a stop, the first tick comes before the coordinator has read the heartbeats that arrived
 * during the stop. */
static void test_stopped_coordinator_reads_messages_before_it_gives_workers_up(void **state) {
    (void)state;
    fixture *f = with_heartbeats();
    fx_tick(f, 50);
    fx_tick(f, 10000);
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 0);
    beat(f, 2);
    fx_tick(f, 950);
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 0);
    fx_tick(f, 50); /* one heartbeat later, the other one is really silent */
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_DISCONNECT)->worker, 1);
    fx_destroy(f);
}

static void test_in_process_workers_are_never_given_up(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.heartbeats = false});
    fx_join(f, 1, 1, 7);
    fx_tick(f, 3600000);
    assert_int_equal(fx_count(f, COORD_ACTION_DISCONNECT), 0);
    assert_int_equal(coord_core_worker_count(f->core), 1);
    fx_destroy(f);
}

static void test_returning_worker_that_was_given_up_is_unknown(void **state) {
    (void)state;
    fixture *f = with_heartbeats();
    fx_tick(f, 10000);
    assert_int_equal(coord_core_worker_count(f->core), 0);
    fx_pull(f, 1);
    assert_true(fx_last(f, COORD_ACTION_NOTHING)->nothing.unknown);
    f->request[1] = 0;
    fx_gone(f, 1); /* the host reports it later; this has no effect */
    fx_destroy(f);
}

/* ---- drain ---- */

static void test_drained_worker_finishes_its_lease_first(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    fx_pull(f, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_WORKER_DRAIN, .worker = 1});
    fx_forget(f);
    fx_finish(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 1);
    fx_pull(f, 1);
    assert_true(fx_last(f, COORD_ACTION_NOTHING)->nothing.drain);
    assert_false(f->lease[1].type);
    fx_work(f, 1, 10);
    assert_int_equal(fx_count(f, COORD_ACTION_LEASE), 0);
    fx_destroy(f);
}

static void test_waiting_worker_is_drained_at_once(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 3);
    for (uint64_t w = 1; w <= 3; w++) fx_pull(f, w);
    fx_send(f, (coord_event){.type = COORD_EVENT_WORKER_DRAIN, .worker = 2});
    assert_int_equal(fx_count(f, COORD_ACTION_NOTHING), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_NOTHING)->worker, 2);
    assert_true(fx_last(f, COORD_ACTION_NOTHING)->nothing.drain);
    fx_destroy(f);
}

static void test_next_step_is_partitioned_without_drained_workers(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    fx_send(f, (coord_event){.type = COORD_EVENT_WORKER_DRAIN, .worker = 2});
    fx_work_to(f, 1, 1, 1);
    const coord_action *a = f->lease[1].type ? &f->lease[1] : fx_pull(f, 1);
    assert_int_equal(a->step, 2);
    assert_int_equal(a->lease.count, 8);
    fx_destroy(f);
}

/* ---- views ---- */

static void test_view_of_a_worker(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join(f, 1, 3, 7);
    fx_join(f, 2, 1, 7);
    fx_add(f, fx_info(1));
    fx_pull(f, 1);
    coord_worker_view view;
    assert_true(coord_core_worker(f->core, 1, &view));
    assert_string_equal(view.name, "w1");
    assert_int_equal(view.threads, 3);
    assert_true(view.computing);
    assert_int_equal(view.job, 1);
    assert_int_equal(view.lease, f->lease[1].lease.lease);
    uint32_t count = f->lease[1].lease.count;
    f->now += count * FX_MS;
    fx_finish(f, 1);
    assert_true(coord_core_worker(f->core, 1, &view));
    assert_false(view.computing);
    assert_int_equal(view.shards, count);
    assert_true(view.ms_per_shard > 0.99 && view.ms_per_shard < 1.01);
    assert_true(coord_core_worker_at(f->core, 1, &view));
    assert_int_equal(view.worker, 2);
    assert_false(coord_core_worker_at(f->core, 2, &view));
    assert_false(coord_core_worker(f->core, 3, &view));
    fx_destroy(f);
}

static void test_view_of_a_job(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 2);
    fx_add(f, fx_info(1));
    assert_string_equal(fx_view(f, 1).waiting_for, "a free worker");
    fx_work_to(f, 2, 1, 5);
    fx_pull(f, 1);
    coord_job_view view = fx_view(f, 1);
    assert_int_equal(view.step, 5);
    assert_true(fabs(view.epoch - 0.5) < 1e-12);
    assert_true(view.workers >= 1);
    assert_true(view.samples_per_s > 0 && view.eta_seconds > 0);
    assert_true(view.has_loss && view.loss > 0);
    assert_false(view.has_error);
    fx_destroy(f);
}

static void test_pool_is_limited(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    coord_event e = {.type = COORD_EVENT_WORKER_JOINED};
    for (e.worker = 1; e.worker <= COP_POOL_MAX; e.worker++)
        assert_int_equal(coord_core_step(f->core, &e, f->now, &f->actions), COP_OK);
    assert_int_equal(coord_core_step(f->core, &e, f->now, &f->actions), COP_ERR_LIMIT);
    fx_destroy(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_worker_gets_unknown),
        cmocka_unit_test(test_pull_is_held_while_there_is_no_work),
        cmocka_unit_test(test_held_pull_is_answered_nothing_after_its_time),
        cmocka_unit_test(test_only_the_newest_pull_of_a_worker_is_answered),
        cmocka_unit_test(test_longest_waiting_worker_is_served_first),
        cmocka_unit_test(test_silent_worker_is_disconnected_after_three_heartbeats),
        cmocka_unit_test(test_silent_workers_block_goes_to_another),
        cmocka_unit_test(test_any_message_counts_as_a_heartbeat),
        cmocka_unit_test(test_stopped_coordinator_reads_messages_before_it_gives_workers_up),
        cmocka_unit_test(test_in_process_workers_are_never_given_up),
        cmocka_unit_test(test_returning_worker_that_was_given_up_is_unknown),
        cmocka_unit_test(test_drained_worker_finishes_its_lease_first),
        cmocka_unit_test(test_waiting_worker_is_drained_at_once),
        cmocka_unit_test(test_next_step_is_partitioned_without_drained_workers),
        cmocka_unit_test(test_view_of_a_worker),
        cmocka_unit_test(test_view_of_a_job),
        cmocka_unit_test(test_pool_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
