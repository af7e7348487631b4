/* Followers of in-memory links: the server's loop handles replies in place of the calling thread.
 *
 * LABELS: quick threads */
#include "conformance/net/harness.h"

#define TIMEOUT_MS 10000

/* A follower that asks again until it has handled `rounds` replies. */
typedef struct asker {
    int rounds, handled, refused; /* refused: replies that `follow` left to the calling thread */
    bool refuses;                 /* `follow` refuses the last reply; else `wants` does */
    bool is_slow;                 /* takes a millisecond for a reply */
    uint32_t method;              /* of the requests */
    uv_thread_t thread;           /* in which the follower ran */
    atomic_int running;           /* replies that it has begun to handle */
    cop_buffer *part;             /* of the requests; NULL: none */
} asker;

static bool asker_wants(void *context, const cop_message *reply) {
    const asker *a = context;
    return reply->type == COP_MESSAGE_ANSWER && (a->refuses || a->handled < a->rounds);
}

static bool asker_follow(void *context, cop_message *reply, cop_message *request) {
    asker *a = context;
    a->thread = uv_thread_self();
    atomic_fetch_add(&a->running, 1);
    if (a->is_slow) cop_clock_sleep_ms(1);
    if (a->handled == a->rounds) {
        a->refused++;
        return false;
    }
    a->handled++;
    cop_message_fini(reply);
    *request = (cop_message){.type = COP_MESSAGE_CALL, .call = {.method = a->method}};
    if (a->part) request->part[0] = cop_buffer_hold(a->part);
    return true;
}

static cop_link *open_with(host *h, asker *a) {
    cop_link *link = open_link(h);
    cop_link_set_follower(link, &(cop_link_follower){asker_wants, asker_follow, a});
    return link;
}

static void test_follower_handles_replies_on_the_loop(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY);
    for (int refuses = 0; refuses < 2; refuses++) {
        asker a = {
            .rounds = 1000, .refuses = refuses, .method = ASK_ECHO, .part = make_bytes(9, 1)};
        cop_link *link = open_with(&h, &a);
        cop_server_counters before, after;
        cop_message reply;
        cop_server_count(h.server, &before);
        assert_int_equal(call(link, ASK_ECHO, NULL, &reply, TIMEOUT_MS, NULL), COP_OK);
        cop_server_count(h.server, &after);
        assert_int_equal(reply.type, COP_MESSAGE_ANSWER);
        assert_ptr_equal(reply.part[0], a.part); /* the reply to the follower's last request */
        cop_message_fini(&reply);
        assert_int_equal(a.handled, a.rounds);
        assert_int_equal(a.refused, refuses);
        assert_int_equal(after.requests - before.requests, a.rounds + 1);
        assert_true(uv_thread_equal(&a.thread, &h.thread));
        cop_link_close(link);
        cop_buffer_release(a.part);
    }
    stop_host(&h);
}

static void test_following_allocates_no_memory(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY);
    asker a = {.rounds = 1000, .method = ASK_ECHO};
    cop_link *link = open_with(&h, &a);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    a.handled = 0;
    const uint64_t before = cop_alloc_count();
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(a.handled, 1000);
    assert_int_equal(cop_alloc_count(), before);
    cop_link_close(link);
    stop_host(&h);
}

/* The time limit of a call is that of its last request. */
static void test_followers_calls_have_the_timeout_each(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY);
    asker a = {.rounds = 300, .method = ASK_ECHO, .is_slow = true};
    cop_link *link = open_with(&h, &a);
    assert_int_equal(call_plain(link, ASK_ECHO, 200, NULL), COP_OK);
    assert_int_equal(a.handled, 300);
    a = (asker){.rounds = 5, .method = ASK_DROP};
    assert_int_equal(call_plain(link, ASK_ECHO, 100, NULL), COP_ERR_TIMEOUT);
    assert_int_equal(a.handled, 1);
    a = (asker){.rounds = 3, .method = ASK_ECHO};
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(a.handled, 3);
    cop_link_close(link);
    stop_host(&h);
}

/* While the loop follows replies without end, it still serves other links. */
static void test_endless_follower_does_not_block_others(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY);
    asker a = {.rounds = INT32_MAX, .method = ASK_ECHO};
    caller c;
    cop_link *other = open_link(&h);
    start_caller(&c, open_with(&h, &a), ASK_ECHO, TIMEOUT_MS);
    assert_true(wait_for(&a.running, 100));
    assert_int_equal(call_plain(other, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_cancel(c.link);
    uv_thread_join(&c.thread);
    assert_int_equal(c.result, COP_ERR_CLOSED);
    cop_link_close(c.link);
    cop_link_close(other);
    stop_host(&h);
}

/* Cancels and interrupts end a call at any moment, but not while the follower runs: it uses memory
 * of the calling thread. */
static void test_call_ends_at_any_moment_but_not_in_the_follower(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY);
    cop_link *link = NULL;
    for (int i = 0; i < 200; i++) {
        asker a = {.rounds = INT32_MAX, .method = ASK_ECHO, .is_slow = i % 4 == 3};
        caller c;
        if (!link) link = open_link(&h);
        cop_link_set_follower(link, &(cop_link_follower){asker_wants, asker_follow, &a});
        start_caller(&c, link, ASK_ECHO, TIMEOUT_MS);
        assert_true(wait_for(&a.running, 1));
        const uint64_t until = cop_clock_ns() + (uint64_t)i * 7919 % 200000;
        while (cop_clock_ns() < until) {}
        if (i % 2)
            cop_link_cancel(link);
        else
            cop_link_interrupt(link);
        uv_thread_join(&c.thread);
        assert_int_equal(c.result, COP_ERR_CLOSED);
        const int handled = a.handled; /* nobody may write to `a` any more */
        cop_clock_sleep_ms(2);
        assert_int_equal(a.handled, handled);
        if (i % 2 == 0) {
            a.rounds = handled + 2; /* the next call works */
            assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
            assert_int_equal(a.handled, a.rounds);
            continue;
        }
        cop_link_close(link);
        link = NULL;
    }
    cop_link_close(link);
    stop_host(&h);
}

static void test_server_can_end_while_the_loop_follows(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        host h;
        start_host(&h, MEMORY);
        asker a = {.rounds = INT32_MAX, .method = ASK_ECHO, .is_slow = i % 2};
        caller c;
        start_caller(&c, open_with(&h, &a), ASK_ECHO, TIMEOUT_MS);
        assert_true(wait_for(&a.running, 1 + i));
        stop_host(&h);
        uv_thread_join(&c.thread);
        assert_int_equal(c.result, COP_ERR_CLOSED);
        cop_link_close(c.link);
    }
}

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follower_handles_replies_on_the_loop),
        cmocka_unit_test(test_following_allocates_no_memory),
        cmocka_unit_test(test_followers_calls_have_the_timeout_each),
        cmocka_unit_test(test_endless_follower_does_not_block_others),
        cmocka_unit_test(test_call_ends_at_any_moment_but_not_in_the_follower),
        cmocka_unit_test(test_server_can_end_while_the_loop_follows),
    };
    return cmocka_run_group_tests_name("follower", tests, NULL, NULL);
}
