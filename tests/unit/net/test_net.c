/* What is particular to single transports: addresses, listening, and the allocations of links
 * within one process.
 *
 * LABELS: quick threads */
#include "conformance/net/harness.h"

#include <sys/stat.h>

#define TIMEOUT_MS 10000

static void test_url_is_checked(void **state) {
    (void)state;
    const char *const good[] = {"tcp://127.0.0.1:29700", "tcp://localhost:0", "tcp://[::1]:1",
                                "tcp://10.0.0.1:65535", "ipc:///run/coppice.sock"};
    const bool local[] = {true, true, true, false, true};
    bool loopback;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cop_url_check(good[i], &loopback, NULL), COP_OK);
        assert_int_equal(loopback, local[i]);
    }
    const char *const bad[] = {"",
                               "127.0.0.1:29700",
                               "tcp://",
                               "tcp://host",
                               "tcp://:1",
                               "tcp://host:65536",
                               "tcp://host:x",
                               "ipc://",
                               "http://host:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cop_error error = {0};
        assert_int_equal(cop_url_check(bad[i], &loopback, &error), COP_ERR_INPUT);
        assert_non_null(strstr(error.text, "expected"));
    }
}

static void test_bad_url_opens_no_link(void **state) {
    (void)state;
    cop_link *link = NULL;
    cop_error error = {0};
    assert_int_equal(cop_link_open("udp://127.0.0.1:1", NULL, &link, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "udp://127.0.0.1:1"));
    assert_null(link);
}

static void test_missing_server_is_reported_with_its_address(void **state) {
    (void)state;
    const char *const urls[] = {"tcp://127.0.0.1:9", "ipc:///nowhere/coppice.sock"};
    for (int i = 0; i < 2; i++) {
        cop_link *link;
        cop_error error = {0};
        assert_int_equal(cop_link_open(urls[i], NULL, &link, NULL), COP_OK);
        assert_int_equal(call_plain(link, ASK_ECHO, 150, &error), COP_ERR_UNREACHABLE);
        assert_non_null(strstr(error.text, urls[i]));
        assert_non_null(strstr(error.text, "0.15 s"));
        cop_link_close(link);
    }
}

/* A link that is opened before its server listens connects as soon as it does. */
static void test_link_finds_a_server_that_starts_later(void **state) {
    (void)state;
    host first;
    start_host(&first, TCP);
    cop_link *link = open_link(&first);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    stop_host(&first);
    /* The first call may be the one that detects the lost connection. */
    cop_err away = call_plain(link, ASK_ECHO, 100, NULL);
    if (away == COP_ERR_CLOSED) away = call_plain(link, ASK_ECHO, 100, NULL);
    assert_int_equal(away, COP_ERR_UNREACHABLE);
    caller waiting;
    start_caller(&waiting, link, ASK_ECHO, TIMEOUT_MS);
    uv_loop_t loop;
    cop_server *server;
    const cop_server_handler handler = {.on_request = on_request, .on_gone = on_gone};
    host third = {.kind = TCP};
    uv_loop_init(&loop);
    assert_int_equal(cop_server_create(&loop, &handler, &third, &server, NULL), COP_OK);
    third.server = server;
    assert_int_equal(cop_server_listen(server, first.url, NULL), COP_OK);
    uint64_t until = cop_clock_ns() + 5000000000u;
    while (cop_clock_ns() < until && !atomic_load(&third.last_connection))
        uv_run(&loop, UV_RUN_NOWAIT);
    uv_thread_join(&waiting.thread);
    assert_int_equal(waiting.result, COP_OK);
    cop_link_close(link);
    cop_server_destroy(server);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_port_in_use_is_busy(void **state) {
    (void)state;
    host h;
    uv_loop_t loop;
    cop_server *server;
    cop_error error = {0};
    const cop_server_handler handler = {.on_request = on_request, .on_gone = on_gone};
    start_host(&h, TCP);
    uv_loop_init(&loop);
    assert_int_equal(cop_server_create(&loop, &handler, NULL, &server, NULL), COP_OK);
    assert_int_equal(cop_server_listen(server, h.url, &error), COP_ERR_IN_USE);
    assert_non_null(strstr(error.text, h.url));
    assert_non_null(strstr(error.text, "in use"));
    cop_server_destroy(server);
    assert_int_equal(uv_loop_close(&loop), 0);
    stop_host(&h);
}

static void test_ipc_socket_is_private(void **state) {
    (void)state;
    host h;
    struct stat status;
    start_host(&h, IPC);
    assert_int_equal(stat(h.url + strlen("ipc://"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    stop_host(&h);
}

static void test_peer_addresses_are_reported(void **state) {
    (void)state;
    const char *const begins[] = {"memory", "ipc", "127.0.0.1:"};
    const transport kinds[] = {MEMORY, IPC, TCP};
    for (int i = 0; i < 3; i++) {
        host h;
        start_host(&h, kinds[i]);
        cop_link *link = open_connected_link(&h), *other = open_link(&h);
        assert_int_equal(call_plain(link, ASK_HOLD, 50, NULL), COP_ERR_TIMEOUT);
        assert_true(wait_for(&h.holding, 1));
        /* the loop thread does not use the request until it is released */
        assert_int_equal(strncmp(cop_request_address(h.held[0]), begins[i], strlen(begins[i])), 0);
        assert_int_equal(call_plain(other, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
        cop_link_close(link);
        cop_link_close(other);
        stop_host(&h);
    }
}

/* On an in-memory link, a call allocates no memory and passes its parts by reference. */
static void test_memory_link_allocates_no_memory(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY);
    cop_link *link = open_link(&h);
    cop_buffer *part = make_bytes(1000, 5);
    cop_message reply;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(call(link, ASK_ECHO, cop_buffer_hold(part), &reply, TIMEOUT_MS, NULL), 0);
        cop_message_fini(&reply);
    }
    uint64_t before = cop_alloc_count();
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(call(link, ASK_ECHO, cop_buffer_hold(part), &reply, TIMEOUT_MS, NULL), 0);
        assert_ptr_equal(reply.part[0], part);
        cop_message_fini(&reply);
    }
    assert_int_equal(cop_alloc_count(), before);
    cop_buffer_release(part);
    cop_link_close(link);
    stop_host(&h);
}

static void test_expected_workers_are_prepared_before_listening(void **state) {
    (void)state;
    host h;
    start_host(&h, MEMORY); /* has no socket, so nothing to prepare */
    cop_link *link = open_link(&h);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_link_close(link);
    stop_host(&h);
    uv_loop_t loop;
    cop_server *server;
    const cop_server_handler handler = {.on_request = on_request, .on_gone = on_gone};
    uv_loop_init(&loop);
    assert_int_equal(cop_server_create(&loop, &handler, NULL, &server, NULL), COP_OK);
    cop_server_expect_workers(server, 100);
    uint64_t before = cop_alloc_count();
    assert_int_equal(cop_server_listen(server, "tcp://127.0.0.1:0", NULL), COP_OK);
    assert_true(cop_alloc_count() - before >= 2 * 100 + 4); /* a context for each request */
    cop_server_close(server);
    cop_server_close(server); /* idempotent */
    cop_server_destroy(server);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- many requests at once ---- */

#define CROWD 48

/* A server on this thread's loop with a slow handler; records the requests of each iteration. */
typedef struct crowded {
    host host; /* first */
    uv_prepare_t prepare;
    int in_round, most_in_round, answered;
} crowded;

static void on_slow_request(void *context, cop_request *request) {
    crowded *c = context;
    const uint64_t until = cop_clock_ns() + 1000000;
    while (cop_clock_ns() < until) {}
    c->in_round++;
    c->answered++;
    answer_echo(request);
}

static void on_round(uv_prepare_t *prepare) {
    crowded *c = prepare->data;
    if (c->in_round > c->most_in_round) c->most_in_round = c->in_round;
    c->in_round = 0;
}

/* Many simultaneous requests are read over several iterations, so that timers and messages are
 * handled in between; each request is answered once. */
static void test_crowd_does_not_delay_the_loop(void **state) {
    (void)state;
    crowded c = {.host = {.kind = MEMORY}};
    caller callers[CROWD];
    uv_loop_t loop;
    const cop_server_handler handler = {.on_request = on_slow_request, .on_gone = on_gone};
    uv_loop_init(&loop);
    assert_int_equal(cop_server_create(&loop, &handler, &c, &c.host.server, NULL), COP_OK);
    uv_prepare_init(&loop, &c.prepare);
    c.prepare.data = &c;
    uv_prepare_start(&c.prepare, on_round);
    for (int i = 0; i < CROWD; i++)
        start_caller(&callers[i], open_link(&c.host), ASK_ECHO, TIMEOUT_MS);
    cop_clock_sleep_ms(50); /* most of them have asked */
    while (c.answered < CROWD) uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    for (int i = 0; i < CROWD; i++) {
        uv_thread_join(&callers[i].thread);
        assert_int_equal(callers[i].result, COP_OK);
        cop_link_close(callers[i].link);
    }
    assert_int_equal(c.answered, CROWD);
    assert_in_range(c.most_in_round, 1, 2);
    uv_close((uv_handle_t *)&c.prepare, NULL);
    cop_server_destroy(c.host.server);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url_is_checked),
        cmocka_unit_test(test_bad_url_opens_no_link),
        cmocka_unit_test(test_missing_server_is_reported_with_its_address),
        cmocka_unit_test(test_link_finds_a_server_that_starts_later),
        cmocka_unit_test(test_port_in_use_is_busy),
        cmocka_unit_test(test_ipc_socket_is_private),
        cmocka_unit_test(test_peer_addresses_are_reported),
        cmocka_unit_test(test_memory_link_allocates_no_memory),
        cmocka_unit_test(test_expected_workers_are_prepared_before_listening),
        cmocka_unit_test(test_crowd_does_not_delay_the_loop),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
