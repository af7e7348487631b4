/* The worker's decisions, event by event. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "worker/agent.h"

#define MS 1000000ull

static worker_action step(worker_agent *a, worker_event_type type) {
    const worker_event event = {.type = type};
    return worker_agent_step(a, &event, 0);
}

static worker_action lose(worker_agent *a, cop_err error, uint64_t now_ns) {
    const worker_event event = {.type = WORKER_EVENT_FAILED, .error = error};
    return worker_agent_step(a, &event, now_ns);
}

static worker_action nothing(worker_agent *a, uint32_t retry_ms, bool drain, bool unknown) {
    const worker_event event = {
        .type = WORKER_EVENT_NOTHING, .retry_ms = retry_ms, .drain = drain, .unknown = unknown};
    return worker_agent_step(a, &event, 0);
}

static worker_agent fresh(bool retry_forever, uint32_t join_timeout_ms) {
    worker_agent a;
    worker_agent_init(&a, retry_forever, join_timeout_ms, 7, 0);
    assert_int_equal(step(&a, WORKER_EVENT_START).type, WORKER_ACTION_HELLO);
    return a;
}

static worker_agent joined(void) {
    worker_agent a = fresh(true, 0);
    const worker_action action = step(&a, WORKER_EVENT_WELCOME);
    assert_int_equal(action.type, WORKER_ACTION_PULL);
    assert_false(action.goodbye);
    return a;
}

static void test_life_of_a_lease(void **state) {
    (void)state;
    worker_agent a = joined();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(step(&a, WORKER_EVENT_LEASE).type, WORKER_ACTION_COMPUTE);
        assert_int_equal(a.state, WORKER_COMPUTING);
        assert_int_equal(step(&a, WORKER_EVENT_COMPUTED).type, WORKER_ACTION_PULL);
        assert_int_equal(a.state, WORKER_JOINED);
    }
}

static void test_worker_pulls_again_after_nothing(void **state) {
    (void)state;
    worker_agent a = joined();
    assert_int_equal(nothing(&a, 0, false, false).type, WORKER_ACTION_PULL);
    const worker_action wait = nothing(&a, 120, false, false);
    assert_int_equal(wait.type, WORKER_ACTION_WAIT);
    assert_int_equal(wait.wait_ms, 120);
    assert_int_equal(step(&a, WORKER_EVENT_WAITED).type, WORKER_ACTION_PULL);
}

static void test_unknown_worker_says_hello_without_its_result(void **state) {
    (void)state;
    worker_agent a = joined();
    step(&a, WORKER_EVENT_LEASE);
    step(&a, WORKER_EVENT_COMPUTED);
    const worker_action action = nothing(&a, 0, false, true);
    assert_int_equal(action.type, WORKER_ACTION_HELLO);
    assert_true(action.drop_result);
    assert_int_equal(a.state, WORKER_NOT_JOINED);
    assert_int_equal(step(&a, WORKER_EVENT_WELCOME).type, WORKER_ACTION_PULL);
}

static void test_lost_pull_is_sent_again_with_its_result(void **state) {
    (void)state;
    worker_agent a = joined();
    const worker_action wait = lose(&a, COP_ERR_CLOSED, 0);
    assert_int_equal(wait.type, WORKER_ACTION_WAIT);
    assert_false(wait.drop_result);
    const worker_action again = step(&a, WORKER_EVENT_WAITED);
    assert_int_equal(again.type, WORKER_ACTION_PULL);
    assert_false(again.drop_result);
}

static void test_backoff_doubles_to_two_seconds(void **state) {
    (void)state;
    worker_agent a = fresh(true, 0);
    uint32_t full = 50;
    for (int i = 0; i < 100; i++) {
        const worker_action wait = lose(&a, COP_ERR_UNREACHABLE, (uint64_t)i * 3000 * MS);
        assert_int_equal(wait.type, WORKER_ACTION_WAIT);
        assert_in_range(wait.wait_ms, full - full / 4, full);
        assert_int_equal(step(&a, WORKER_EVENT_WAITED).type, WORKER_ACTION_HELLO);
        full = full * 2 < 2000 ? full * 2 : 2000;
    }
    step(&a, WORKER_EVENT_WELCOME);
    assert_in_range(lose(&a, COP_ERR_CLOSED, 0).wait_ms, 38, 50); /* the shortest pause again */
}

static void test_backoff_differs_between_workers(void **state) {
    (void)state;
    uint32_t seen[8];
    int equal = 0;
    for (uint64_t salt = 0; salt < 8; salt++) {
        worker_agent a;
        worker_agent_init(&a, true, 0, salt, 0);
        step(&a, WORKER_EVENT_START);
        for (int i = 0; i < 6; i++) seen[salt] = lose(&a, COP_ERR_UNREACHABLE, 0).wait_ms;
        for (uint64_t other = 0; other < salt; other++) equal += seen[other] == seen[salt];
    }
    assert_in_range(equal, 0, 2);
}

static void test_agent_of_a_refused_worker_ends(void **state) {
    (void)state;
    const cop_err refusals[] = {COP_ERR_VERSION, COP_ERR_DENIED, COP_ERR_INPUT};
    for (int i = 0; i < 3; i++) {
        worker_agent a = fresh(true, 0);
        const worker_action end = lose(&a, refusals[i], 0);
        assert_int_equal(end.type, WORKER_ACTION_END);
        assert_int_equal(end.error, refusals[i]);
    }
    worker_agent a = fresh(true, 0); /* a full pool may get room later */
    assert_int_equal(lose(&a, COP_ERR_LIMIT, 0).type, WORKER_ACTION_WAIT);
}

static void test_join_times_out_only_the_first_time(void **state) {
    (void)state;
    worker_agent a = fresh(true, 1000);
    assert_int_equal(lose(&a, COP_ERR_UNREACHABLE, 900 * MS).type, WORKER_ACTION_WAIT);
    step(&a, WORKER_EVENT_WAITED);
    const worker_action end = lose(&a, COP_ERR_UNREACHABLE, 1000 * MS);
    assert_int_equal(end.type, WORKER_ACTION_END);
    assert_int_equal(end.error, COP_ERR_UNREACHABLE);
    worker_agent b = fresh(true, 1000);
    step(&b, WORKER_EVENT_WELCOME);
    nothing(&b, 0, false, true);
    assert_int_equal(lose(&b, COP_ERR_UNREACHABLE, 5000 * MS).type, WORKER_ACTION_WAIT);
}

static void test_embedded_worker_gives_up_when_coordinator_is_gone(void **state) {
    (void)state;
    worker_agent a = fresh(false, 0);
    step(&a, WORKER_EVENT_WELCOME);
    for (int i = 0; i < 2; i++) { /* the first two times may be lost connections */
        assert_int_equal(lose(&a, COP_ERR_CLOSED, 0).type, WORKER_ACTION_WAIT);
        step(&a, WORKER_EVENT_WAITED);
    }
    const worker_action end = lose(&a, COP_ERR_CLOSED, 0);
    assert_int_equal(end.type, WORKER_ACTION_END);
    assert_int_equal(end.error, COP_ERR_CLOSED);
}

static void test_drain_finishes_the_lease_and_says_goodbye(void **state) {
    (void)state;
    worker_agent a = joined();
    step(&a, WORKER_EVENT_LEASE);
    worker_agent_drain(&a);
    const worker_action last = step(&a, WORKER_EVENT_COMPUTED);
    assert_int_equal(last.type, WORKER_ACTION_PULL);
    assert_true(last.goodbye);
    assert_false(last.drop_result);
    const worker_action end = nothing(&a, 0, true, false);
    assert_int_equal(end.type, WORKER_ACTION_END);
    assert_int_equal(end.error, COP_OK);
}

static void test_agent_drains_on_request_of_the_coordinator(void **state) {
    (void)state;
    worker_agent a = joined();
    const worker_action bye = nothing(&a, 0, true, false);
    assert_int_equal(bye.type, WORKER_ACTION_PULL);
    assert_true(bye.goodbye);
    assert_int_equal(nothing(&a, 0, true, false).type, WORKER_ACTION_END);
}

static void test_drain_without_a_connection_ends_the_agent(void **state) {
    (void)state;
    worker_agent a = fresh(true, 0);
    lose(&a, COP_ERR_UNREACHABLE, 0);
    worker_agent_drain(&a);
    const worker_action end = step(&a, WORKER_EVENT_WAITED);
    assert_int_equal(end.type, WORKER_ACTION_END);
    assert_int_equal(end.error, COP_OK);
    worker_agent b = joined();
    worker_agent_drain(&b);
    assert_int_equal(nothing(&b, 0, false, true).type, WORKER_ACTION_END);
    worker_agent c = joined();
    worker_agent_drain(&c);
    assert_int_equal(lose(&c, COP_ERR_CLOSED, 0).type, WORKER_ACTION_END);
}

static void test_wait_requested_by_the_coordinator_is_limited(void **state) {
    (void)state;
    worker_agent a = fresh(true, 0);
    const worker_event start = {.type = WORKER_EVENT_START},
                       welcome = {.type = WORKER_EVENT_WELCOME};
    worker_agent_step(&a, &start, 0);
    worker_agent_step(&a, &welcome, 0);
    assert_int_equal(nothing(&a, 200, false, false).wait_ms, 200);
    assert_int_equal(nothing(&a, UINT32_MAX, false, false).wait_ms, COP_HOLD_MAX_MS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait_requested_by_the_coordinator_is_limited),
        cmocka_unit_test(test_life_of_a_lease),
        cmocka_unit_test(test_worker_pulls_again_after_nothing),
        cmocka_unit_test(test_unknown_worker_says_hello_without_its_result),
        cmocka_unit_test(test_lost_pull_is_sent_again_with_its_result),
        cmocka_unit_test(test_backoff_doubles_to_two_seconds),
        cmocka_unit_test(test_backoff_differs_between_workers),
        cmocka_unit_test(test_agent_of_a_refused_worker_ends),
        cmocka_unit_test(test_join_times_out_only_the_first_time),
        cmocka_unit_test(test_embedded_worker_gives_up_when_coordinator_is_gone),
        cmocka_unit_test(test_drain_finishes_the_lease_and_says_goodbye),
        cmocka_unit_test(test_agent_drains_on_request_of_the_coordinator),
        cmocka_unit_test(test_drain_without_a_connection_ends_the_agent),
    };
    return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
