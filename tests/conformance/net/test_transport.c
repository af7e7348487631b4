/* The contract of every transport: one suite for in-memory, ipc, tcp and tls+tcp. Each transport is
 * a row of TRANSPORTS, and each test below runs over each of them.
 *
 * LABELS: quick threads */
#include "conformance/net/harness.h"

#define MEGABYTES_12 (12u << 20)
#define LINKS        48 /* more than the loop thread answers itself in an iteration */
#define TIMEOUT_MS   10000

typedef struct fixture {
    transport kind;
    host host;
    bool stopped;
} fixture;

static int setup(void **state) {
    fixture *f = cop_alloc(sizeof *f);
    const transport *kind = *state;
    f->kind = *kind;
    start_host(&f->host, f->kind);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    if (!f->stopped) stop_host(&f->host);
    free_host(&f->host);
    cop_free(f);
    return 0;
}

static void stop(fixture *f) {
    stop_host(&f->host);
    f->stopped = true;
}

/* ---- messages ---- */

static void check_echo(cop_link *link, const size_t sizes[COP_MESSAGE_PARTS], int count) {
    cop_message m = {.type = COP_MESSAGE_CALL, .call = {.method = ASK_ECHO}}, reply;
    cop_buffer *sent[COP_MESSAGE_PARTS] = {0};
    for (int i = 0; i < count; i++) {
        sent[i] = make_bytes(sizes[i], (uint32_t)i);
        m.part[i] = cop_buffer_hold(sent[i]);
    }
    assert_int_equal(cop_link_call(link, &m, &reply, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(reply.type, COP_MESSAGE_ANSWER);
    assert_int_equal(reply.answer.method, ASK_ECHO);
    for (int i = 0; i < COP_MESSAGE_PARTS; i++) {
        assert_null(m.part[i]);
        if (i >= count) {
            assert_null(reply.part[i]);
            continue;
        }
        assert_true(same_bytes(sent[i], reply.part[i]));
        cop_buffer_release(sent[i]);
    }
    cop_message_fini(&reply);
}

static void test_round_trip_keeps_parts(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host);
    const size_t table[][COP_MESSAGE_PARTS] = {
        {1}, {0, 1}, {5, 0, 64}, {63, 64, 65, 1}, {1000, 100000, 0, 1}};
    const int counts[] = {1, 2, 3, 4, 4};
    check_echo(link, table[0], 0);
    for (int i = 0; i < 5; i++) check_echo(link, table[i], counts[i]);
    cop_link_close(link);
}

static void test_small_message_after_a_big_one(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host);
    const size_t big[COP_MESSAGE_PARTS] = {MEGABYTES_12}, small[COP_MESSAGE_PARTS] = {1};
    for (int i = 0; i < 3; i++) {
        check_echo(link, big, 1);
        check_echo(link, small, 1);
    }
    cop_link_close(link);
}

static void test_parts_outlive_link_and_server(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host);
    cop_message reply;
    cop_buffer *size = cop_buffer_create(4);
    cop_store_u32(size->data, 200000);
    assert_int_equal(call(link, ASK_FILL, size, &reply, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(link);
    stop(f);
    assert_int_equal(reply.part[0]->size, 200000);
    assert_int_equal(((unsigned char *)reply.part[0]->data)[199999], 7);
    cop_message_fini(&reply);
}

static void test_failure_is_returned_as_error(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host);
    cop_error error = {0};
    assert_int_equal(call_plain(link, ASK_FAIL, TIMEOUT_MS, &error), COP_ERR_NOT_FOUND);
    assert_string_equal(error.text, "there is no such job");
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(link);
}

/* ---- many at once, in any order ---- */

static void test_many_links_call_at_once(void **state) {
    fixture *f = *state;
    caller callers[LINKS];
    for (int i = 0; i < LINKS; i++)
        start_caller(&callers[i], open_link(&f->host), ASK_HOLD, TIMEOUT_MS);
    assert_true(wait_for(&f->host.holding, LINKS)); /* all are held, so none waits for another */
    cop_link *link = open_link(&f->host);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(call_plain(link, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    bool seen[LINKS] = {false};
    for (int i = 0; i < LINKS; i++) {
        uv_thread_join(&callers[i].thread);
        assert_int_equal(callers[i].result, COP_OK);
        assert_in_range(callers[i].order, 0, LINKS - 1);
        assert_false(seen[callers[i].order]);
        seen[callers[i].order] = true;
        cop_link_close(callers[i].link);
    }
    cop_link_close(link);
}

static void test_replies_may_come_in_another_order(void **state) {
    fixture *f = *state;
    caller first, second;
    start_caller(&first, open_link(&f->host), ASK_HOLD, TIMEOUT_MS);
    assert_true(wait_for(&f->host.holding, 1));
    start_caller(&second, open_link(&f->host), ASK_HOLD, TIMEOUT_MS);
    assert_true(wait_for(&f->host.holding, 2));
    cop_link *link = open_link(&f->host);
    assert_int_equal(call_plain(link, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    uv_thread_join(&first.thread);
    uv_thread_join(&second.thread);
    assert_int_equal(second.order, 0);
    assert_int_equal(first.order, 1);
    cop_link_close(first.link);
    cop_link_close(second.link);
    cop_link_close(link);
}

static void test_held_request_does_not_block_others(void **state) {
    fixture *f = *state;
    caller held;
    start_caller(&held, open_link(&f->host), ASK_HOLD, TIMEOUT_MS);
    assert_true(wait_for(&f->host.holding, 1));
    cop_link *link = open_link(&f->host);
    for (int i = 0; i < 100; i++)
        assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(atomic_load(&f->host.holding), 1);
    assert_int_equal(call_plain(link, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    uv_thread_join(&held.thread);
    assert_int_equal(held.result, COP_OK);
    cop_link_close(held.link);
    cop_link_close(link);
}

/* ---- timeouts and cancels ---- */

static void test_next_call_works_after_a_timeout(void **state) {
    fixture *f = *state;
    cop_link *link = open_connected_link(&f->host);
    cop_error error = {0};
    uint64_t began = cop_clock_ns();
    assert_int_equal(call_plain(link, ASK_DROP, 100, &error), COP_ERR_TIMEOUT);
    assert_in_range((cop_clock_ns() - began) / 1000000, 99, 3000);
    assert_non_null(strstr(error.text, "did not answer within 0.1 s"));
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(link);
}

static void test_late_reply_is_dropped(void **state) {
    fixture *f = *state;
    cop_link *link = open_connected_link(&f->host), *other = open_link(&f->host);
    assert_int_equal(call_plain(link, ASK_HOLD, 100, NULL), COP_ERR_TIMEOUT);
    assert_true(wait_for(&f->host.holding, 1));
    assert_int_equal(call_plain(other, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    cop_message reply;
    assert_int_equal(call(link, ASK_ECHO, make_bytes(10, 1), &reply, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(reply.part[0]->size, 10); /* not the late answer's 4 bytes */
    cop_message_fini(&reply);
    cop_link_close(link);
    cop_link_close(other);
}

static void test_cancel_ends_call(void **state) {
    fixture *f = *state;
    caller held;
    cop_error error = {0};
    start_caller(&held, open_link(&f->host), ASK_HOLD, 60000);
    assert_true(wait_for(&f->host.holding, 1));
    uint64_t began = cop_clock_ns();
    cop_link_cancel(held.link);
    uv_thread_join(&held.thread);
    assert_in_range((cop_clock_ns() - began) / 1000000, 0, 3000);
    assert_int_equal(held.result, COP_ERR_CLOSED);
    assert_int_equal(call_plain(held.link, ASK_ECHO, TIMEOUT_MS, &error), COP_ERR_CLOSED);
    cop_link_close(held.link);
}

static void test_interrupt_ends_only_one_call(void **state) {
    fixture *f = *state;
    caller held;
    cop_link *other = open_link(&f->host);
    start_caller(&held, open_link(&f->host), ASK_HOLD, 60000);
    assert_true(wait_for(&f->host.holding, 1));
    cop_link_interrupt(held.link);
    uv_thread_join(&held.thread);
    assert_int_equal(held.result, COP_ERR_CLOSED);
    assert_int_equal(call_plain(other, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(call_plain(held.link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(held.link);
    cop_link_close(other);
}

#define INTERRUPTED_CALLS 4000

typedef struct interrupter {
    uv_thread_t thread;
    cop_link *link;
    atomic_bool enough;
} interrupter;

/* Repeatedly, 0 to 63 us apart, with pauses in which calls are answered. */
static void run_interrupter(void *argument) {
    interrupter *i = argument;
    for (uint64_t n = 0; !atomic_load(&i->enough); n++) {
        uint64_t until = cop_clock_ns() + (n * 37 % 64) * 1000;
        while (cop_clock_ns() < until) {}
        if (n % 256 == 0) cop_clock_sleep_ms(20);
        cop_link_interrupt(i->link);
    }
}

/* The result of one call; PROTOCOL if the reply belongs to another call. */
static cop_err call_and_compare(cop_link *link, uint32_t seed) {
    cop_buffer *sent = make_bytes(64, seed);
    cop_message reply;
    cop_err e = call(link, ASK_ECHO, cop_buffer_hold(sent), &reply, TIMEOUT_MS, NULL);
    if (!e && !same_bytes(reply.part[0], sent)) e = COP_ERR_PROTOCOL;
    if (!e) cop_message_fini(&reply);
    cop_buffer_release(sent);
    return e;
}

/* Interrupts hit calls at any moment: each call gets its own reply, or ends as lost. (A worker once
 * crashed because an interrupted call returned no reply.) */
static void test_interrupt_is_safe_at_any_moment(void **state) {
    fixture *f = *state;
    interrupter i = {.link = open_link(&f->host)};
    int answered = 0, lost = 0;
    cop_err e = COP_OK;
    assert_int_equal(call_plain(i.link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(uv_thread_create(&i.thread, run_interrupter, &i), 0);
    for (uint32_t n = 0; n < INTERRUPTED_CALLS && (!e || e == COP_ERR_CLOSED); n++) {
        e = call_and_compare(i.link, n);
        *(e ? &lost : &answered) += 1;
    }
    atomic_store(&i.enough, true);
    uv_thread_join(&i.thread);
    assert_true(!e || e == COP_ERR_CLOSED);
    assert_in_range(answered, 1, INTERRUPTED_CALLS - 1);
    assert_in_range(lost, 1, INTERRUPTED_CALLS - 1);
    assert_int_equal(call_plain(i.link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(i.link);
}

/* Cancels hit a call at any moment. */
static void test_cancel_is_safe_at_any_moment(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 40; i++) {
        caller c;
        start_caller(&c, open_link(&f->host), ASK_DROP, 60000);
        uint64_t until = cop_clock_ns() + (uint64_t)i * 25000;
        while (cop_clock_ns() < until) {}
        uint64_t began = cop_clock_ns();
        cop_link_cancel(c.link);
        uv_thread_join(&c.thread);
        assert_in_range((cop_clock_ns() - began) / 1000000, 0, 5000);
        assert_int_equal(c.result, COP_ERR_CLOSED);
        cop_link_close(c.link);
    }
}

/* ---- lost connections ---- */

static void test_closed_link_is_reported_once(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host), *other = open_link(&f->host);
    assert_int_equal(call_plain(other, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    uint64_t connection = atomic_load(&f->host.last_connection);
    assert_int_equal(atomic_load(&f->host.gone), 0);
    cop_link_close(link);
    assert_true(wait_for(&f->host.gone, 1));
    assert_true(atomic_load(&f->host.last_gone) == connection);
    assert_int_equal(call_plain(other, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(atomic_load(&f->host.gone), 1);
    cop_link_close(other);
    assert_true(wait_for(&f->host.gone, 2));
}

static void test_silent_link_is_not_reported_as_gone(void **state) {
    fixture *f = *state;
    cop_link *silent = open_link(&f->host), *link = open_link(&f->host);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(silent);
    cop_link_close(link);
    assert_true(wait_for(&f->host.gone, 1));
    cop_clock_sleep_ms(20);
    assert_int_equal(atomic_load(&f->host.gone), 1);
}

static void test_reply_to_closed_link_is_dropped(void **state) {
    fixture *f = *state;
    cop_link *link = open_connected_link(&f->host), *other = open_link(&f->host);
    assert_int_equal(call_plain(link, ASK_HOLD, 50, NULL), COP_ERR_TIMEOUT);
    assert_true(wait_for(&f->host.holding, 1));
    cop_link_close(link);
    assert_true(wait_for(&f->host.gone, 1));
    assert_int_equal(call_plain(other, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(call_plain(other, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(other);
}

static void test_disconnected_link_notices_and_reconnects(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    uint64_t before = atomic_load(&f->host.last_connection);
    assert_int_equal(call_plain(link, ASK_DISCONNECT, TIMEOUT_MS, NULL), COP_ERR_CLOSED);
    assert_true(wait_for(&f->host.gone, 1));
    assert_true(atomic_load(&f->host.last_gone) == before);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_true(atomic_load(&f->host.last_connection) != before);
    cop_link_close(link);
    assert_true(wait_for(&f->host.gone, 2));
}

static void test_server_can_end_during_calls(void **state) {
    fixture *f = *state;
    caller held[3];
    cop_error error = {0};
    f->host.hold_back = true; /* answered only after close, which is too late */
    for (int i = 0; i < 3; i++) start_caller(&held[i], open_link(&f->host), ASK_HOLD, 60000);
    assert_true(wait_for(&f->host.holding, 3));
    stop(f);
    for (int i = 0; i < 3; i++) {
        uv_thread_join(&held[i].thread);
        assert_int_equal(held[i].result, COP_ERR_CLOSED);
        cop_err expected = f->kind == MEMORY ? COP_ERR_CLOSED : COP_ERR_UNREACHABLE;
        assert_int_equal(call_plain(held[i].link, ASK_ECHO, 100, &error), expected);
        cop_link_close(held[i].link);
    }
}

static void test_server_can_end_with_idle_links(void **state) {
    fixture *f = *state;
    cop_link *links[8];
    for (int i = 0; i < 8; i++) {
        links[i] = open_link(&f->host);
        if (i % 2) assert_int_equal(call_plain(links[i], ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    }
    stop(f);
    for (int i = 0; i < 8; i++) {
        assert_int_not_equal(call_plain(links[i], ASK_ECHO, 50, NULL), COP_OK);
        cop_link_close(links[i]);
    }
}

/* ---- counters ---- */

static void test_server_counts_bytes_of_frames(void **state) {
    fixture *f = *state;
    cop_link *link = open_link(&f->host);
    cop_server_counters before, after;
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_server_count(f->host.server, &before);
    const size_t sizes[COP_MESSAGE_PARTS] = {100000};
    check_echo(link, sizes, 1);
    cop_server_count(f->host.server, &after);
    assert_int_equal(after.requests - before.requests, 1);
    assert_int_equal(after.replies - before.replies, 1);
    assert_int_equal(after.bad_frames, 0);
    if (f->kind != MEMORY) {
        assert_in_range(after.bytes_in - before.bytes_in, 100000, 100300);
        assert_in_range(after.bytes_out - before.bytes_out, 100000, 100300);
    }
    cop_link_close(link);
}

/* One row per transport and test. */
static const transport transports[] = {MEMORY, IPC, TCP, TLS};
#define ON(test, index, name)                                                                      \
    {#test " (" name ")", test, setup, teardown, (void *)(uintptr_t)&transports[index]}
#define OVER_ALL(test)                                                                             \
    ON(test, 0, "memory"), ON(test, 1, "ipc"), ON(test, 2, "tcp"), ON(test, 3, "tls+tcp")

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    const struct CMUnitTest tests[] = {
        OVER_ALL(test_round_trip_keeps_parts),
        OVER_ALL(test_small_message_after_a_big_one),
        OVER_ALL(test_parts_outlive_link_and_server),
        OVER_ALL(test_failure_is_returned_as_error),
        OVER_ALL(test_many_links_call_at_once),
        OVER_ALL(test_replies_may_come_in_another_order),
        OVER_ALL(test_held_request_does_not_block_others),
        OVER_ALL(test_next_call_works_after_a_timeout),
        OVER_ALL(test_late_reply_is_dropped),
        OVER_ALL(test_cancel_ends_call),
        OVER_ALL(test_interrupt_ends_only_one_call),
        OVER_ALL(test_interrupt_is_safe_at_any_moment),
        OVER_ALL(test_cancel_is_safe_at_any_moment),
        OVER_ALL(test_closed_link_is_reported_once),
        OVER_ALL(test_silent_link_is_not_reported_as_gone),
        OVER_ALL(test_reply_to_closed_link_is_dropped),
        OVER_ALL(test_disconnected_link_notices_and_reconnects),
        OVER_ALL(test_server_can_end_during_calls),
        OVER_ALL(test_server_can_end_with_idle_links),
        OVER_ALL(test_server_counts_bytes_of_frames),
    };
    int failed = cmocka_run_group_tests_name("transport", tests, NULL, NULL);
    remove_test_tls();
    return failed;
}
