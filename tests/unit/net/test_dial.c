/* How a link finds a coordinator: it tries all addresses of a name. Also dead name servers, an
 * address without a coordinator, and the wrong scheme. getaddrinfo is replaced by one that knows
 * some test names.
 *
 * LABELS: quick threads WRAPS: getaddrinfo */
#include "conformance/net/harness.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#define TIMEOUT_MS 10000
#define SECOND_NS  ((uint64_t)1000000000)

/* ---- names ---- */

int __real_getaddrinfo(const char *node, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out);
int __wrap_getaddrinfo(const char *node, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out);

int __wrap_getaddrinfo(const char *node, const char *port, const struct addrinfo *hints,
                       struct addrinfo **out) {
    static const struct {
        const char *name, *addresses[2];
    } names[] = {{"two.test", {"127.0.0.1", "127.0.0.2"}},
                 {"lame.test", {"255.255.255.255", "127.0.0.1"}}, /* connecting fails at once */
                 {"deaf.test", {"127.0.0.3", "127.0.0.1"}},       /* it fails a moment later */
                 {"lost.test", {"127.0.0.1", "2001:db8::1"}}}; /* not an address of this machine */
    const bool by_name = node && !(hints->ai_flags & AI_NUMERICHOST);
    if (by_name && strcmp(node, "dead.test") == 0) {
        cop_clock_sleep_ms(3000);
        return EAI_AGAIN;
    }
    for (size_t i = 0; by_name && i < sizeof names / sizeof *names; i++) {
        if (strcmp(node, names[i].name) != 0) continue;
        struct addrinfo **tail = out;
        for (int k = 0; k < 2; k++) {
            assert_int_equal(__real_getaddrinfo(names[i].addresses[k], port, hints, tail), 0);
            while (*tail) tail = &(*tail)->ai_next;
        }
        return 0;
    }
    return __real_getaddrinfo(node, port, hints, out);
}

static const char *port_of(const host *h) {
    return strrchr(h->url, ':') + 1;
}

/* "tcp://NAME:PORT" with the host's port. */
static const char *url_for(const host *h, const char *name, char out[128]) {
    snprintf(out, 128, "%s://%s:%s", h->kind == TLS ? "tls+tcp" : "tcp", name, port_of(h));
    return out;
}

/* ---- addresses ---- */

static void check_found(transport kind, const char *name) {
    host h;
    char url[128];
    cop_error error = {0};
    cop_link *link = NULL;
    start_host(&h, kind);
    assert_int_equal(cop_link_open(url_for(&h, name, url), h.peer_tls, &link, &error), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, &error), COP_OK);
    cop_link_close(link);
    stop_host(&h);
    free_host(&h);
}

static void test_link_tries_every_address(void **state) {
    (void)state;
    const transport kinds[] = {TCP, TLS};
    for (int i = 0; i < 2; i++) {
        check_found(kinds[i], "lame.test");
        check_found(kinds[i], "deaf.test");
    }
}

static bool is_open(const char *address, const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, address, &at.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool open = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return open;
}

static void test_server_listens_on_every_address(void **state) {
    (void)state;
    const transport kinds[] = {TCP, TLS};
    for (int i = 0; i < 2; i++) {
        host h, free_port;
        char url[128], third[128];
        cop_error error = {0};
        start_host(&free_port, kinds[i]); /* gives a port that is free after it stops */
        stop_host(&free_port);
        start_host_with(&h, MEMORY, test_tls(COP_TLS_SERVER), NULL);
        cop_err e = cop_server_listen(h.server, url_for(&free_port, "two.test", url), &error);
        assert_int_equal(e, COP_OK);
        assert_true(is_open("127.0.0.1", port_of(&free_port)));
        assert_true(is_open("127.0.0.2", port_of(&free_port)));
        /* If one of two addresses is in use, listening fails. Addresses that this machine lacks are
         * skipped. */
        e = cop_server_listen(h.server, url_for(&free_port, "deaf.test", third), &error);
        assert_int_equal(e, COP_ERR_IN_USE);
        stop_host(&h);
        start_host_with(&h, MEMORY, test_tls(COP_TLS_SERVER), NULL);
        e = cop_server_listen(h.server, url_for(&free_port, "lost.test", url), &error);
        if (e) fprintf(stderr, "%s\n", error.text);
        assert_int_equal(e, COP_OK);
        assert_true(is_open("127.0.0.1", port_of(&free_port)));
        stop_host(&h);
        free_host(&free_port);
    }
}

/* ---- no coordinator ---- */

static void test_dead_name_server_costs_at_most_the_timeout(void **state) {
    (void)state;
    cop_tls *tls = test_tls(COP_TLS_CLIENT);
    const char *const urls[] = {"tcp://dead.test:29700", "tls+tcp://dead.test:29700"};
    for (int i = 0; i < 2; i++) {
        cop_link *link = NULL;
        cop_error error = {0};
        const uint64_t began = cop_clock_ns();
        assert_int_equal(cop_link_open(urls[i], tls, &link, &error), COP_OK);
        assert_int_equal(call_plain(link, ASK_ECHO, 1500, &error), COP_ERR_UNREACHABLE);
        assert_non_null(strstr(error.text, "the name server has not yet answered for dead.test"));
        cop_link_close(link);
        assert_true(cop_clock_ns() - began < 5 * SECOND_NS / 2);
    }
    cop_clock_sleep_ms(3000); /* the abandoned look-up ends */
    cop_tls_destroy(tls);
}

static void test_impatient_call_ends_when_nobody_listens(void **state) {
    (void)state;
    cop_tls *tls = test_tls(COP_TLS_CLIENT);
    const struct {
        const char *url, *words;
    } rows[] = {{"tcp://127.0.0.1:9", "Connection refused"},
                {"tls+tcp://127.0.0.1:9", "Connection refused"},
                {"tcp://deaf.test:9", "Connection refused"},
                {"ipc:///nowhere/coppice.sock", "No such file"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cop_link *link = NULL;
        cop_error error = {0};
        const uint64_t began = cop_clock_ns();
        assert_int_equal(cop_link_open(rows[i].url, tls, &link, &error), COP_OK);
        cop_link_set_impatient(link);
        assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, &error), COP_ERR_UNREACHABLE);
        assert_true(cop_clock_ns() - began < SECOND_NS);
        assert_non_null(strstr(error.text, rows[i].url));
        assert_non_null(strstr(error.text, rows[i].words));
        cop_link_close(link);
    }
    cop_tls_destroy(tls);
}

/* nng would abort if a socket is closed while it resolves a name (nanomsg/nng#2110). */
static void test_link_can_close_at_any_moment(void **state) {
    (void)state;
    for (int i = 0; i < 300; i++) {
        cop_link *link = NULL;
        const char *url = i % 2 ? "tcp://localhost:9" : "tcp://two.test:9";
        assert_int_equal(cop_link_open(url, NULL, &link, NULL), COP_OK);
        if (i % 3) assert_int_not_equal(call_plain(link, ASK_ECHO, 1, NULL), COP_OK);
        cop_link_close(link);
    }
}

/* ---- wrong scheme ---- */

static void check_scheme(transport served, const char *scheme, const char *words) {
    host h;
    char url[128];
    cop_error error = {0};
    cop_link *link = NULL;
    cop_tls *tls = test_tls(COP_TLS_CLIENT);
    start_host(&h, served);
    snprintf(url, sizeof url, "%s://127.0.0.1:%s", scheme, port_of(&h));
    const uint64_t began = cop_clock_ns();
    assert_int_equal(cop_link_open(url, tls, &link, &error), COP_OK);
    const cop_err e = call_plain(link, ASK_ECHO, TIMEOUT_MS, &error);
    if (e != COP_ERR_INPUT) fprintf(stderr, "%s\n", error.text);
    assert_int_equal(e, COP_ERR_INPUT);
    assert_true(cop_clock_ns() - began < 4 * SECOND_NS);
    if (!strstr(error.text, words)) fprintf(stderr, "%s\n", error.text);
    assert_non_null(strstr(error.text, words));
    assert_non_null(strstr(error.text, h.url)); /* suggests the right scheme */
    cop_link_close(link);
    stop_host(&h);
    free_host(&h);
    cop_tls_destroy(tls);
}

static void test_wrong_scheme_is_reported_with_the_right_one(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) /* the peer's greeting arrives at another moment each time */
        check_scheme(TCP, "tls+tcp", "speaks tcp://, without TLS: use tcp://127.0.0.1:");
    check_scheme(TLS, "tcp", "speaks tls+tcp://: use tls+tcp://127.0.0.1:");
}

static int listen_here(char url[64]) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    snprintf(url, 64, "tcp://127.0.0.1:%u", ntohs(at.sin_port));
    return listener;
}

/* Listens on a port that was ours until now. If the system gave it to a connection of another
 * program meanwhile, tries again for 10 s. */
static cop_err listen_again(cop_server *server, const char *url) {
    for (int i = 0; i < 100; i++) {
        if (cop_server_listen(server, url, NULL) == COP_OK) return COP_OK;
        cop_clock_sleep_ms(100);
    }
    return COP_ERR_IN_USE;
}

/* A greeting comes so late that the link has already probed for TLS. The next attempt must still
 * find the coordinator. */
static void test_slow_greeting_is_not_taken_for_a_wrong_scheme(void **state) {
    (void)state;
    char url[64];
    host h = {0};
    cop_error error = {0};
    cop_link *link = NULL;
    const int listener = listen_here(url);
    assert_int_equal(cop_link_open(url, NULL, &link, &error), COP_OK);
    int fd = accept(listener, NULL, NULL);
    assert_int_equal(call_plain(link, ASK_ECHO, 1500, &error), COP_ERR_UNREACHABLE);
    assert_int_equal(send(fd, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL), 8);
    close(listener);
    start_host_with(&h, MEMORY, NULL, NULL);
    assert_int_equal(listen_again(h.server, url), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, &error), COP_OK);
    close(fd);
    cop_link_close(link);
    stop_host(&h);
}

/* A coordinator under load sends each greeting after 1.5 s. Returns true if the link waited for it
 * and used the connection. */
static bool is_waited_for(int listener) {
    char bytes[16];
    const struct timeval patience = {.tv_sec = 5};
    int fd = accept(listener, NULL, NULL);
    cop_clock_sleep_ms(1500);
    const bool waited = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) < 0;
    assert_int_equal(send(fd, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL), 8);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const bool taken = recv(fd, bytes, sizeof bytes, 0) == 8;
    close(fd);
    return waited && taken;
}

static void test_coordinator_with_slow_greetings_is_reached(void **state) {
    (void)state;
    char url[64];
    cop_link *link = NULL;
    const int listener = listen_here(url);
    assert_int_equal(cop_link_open(url, NULL, &link, NULL), COP_OK);
    assert_false(is_waited_for(listener)); /* this connection only tried TLS */
    assert_true(is_waited_for(listener));
    close(listener);
    cop_link_close(link);
}

/* ---- the end ---- */

/* The answers do not fit into the buffers on the way. A server that is being closed must still send
 * all of them. */
static void test_close_sends_pending_answers(void **state) {
    (void)state;
    host h;
    caller callers[8];
    cop_link *links[8];
    start_host(&h, TLS);
    h.hold_size = 3u << 20;
    for (int i = 0; i < 8; i++) {
        links[i] = open_link(&h);
        start_caller(&callers[i], links[i], ASK_HOLD, TIMEOUT_MS);
    }
    assert_true(wait_for(&h.holding, 8));
    stop_host(&h); /* answers held requests and closes at once */
    for (int i = 0; i < 8; i++) {
        uv_thread_join(&callers[i].thread);
        if (callers[i].result) fprintf(stderr, "%s\n", callers[i].error.text);
        assert_int_equal(callers[i].result, COP_OK);
        cop_link_close(links[i]);
    }
    free_host(&h);
}

/* A connection between a link and a host that passes only a given number of bytes in each
 * direction. */
typedef struct throttle {
    int listener, port;
    const char *address;
    size_t left[2]; /* bytes that may still pass: from the link, from the host */
    atomic_bool over;
    char url[64]; /* for the link */
    uv_thread_t thread;
} throttle;

/* Passes on bytes from `from` to `to`, at most *left. False: one side has closed. */
static bool pass_on(int from, int to, size_t *left) {
    char bytes[4096];
    const ssize_t n = recv(from, bytes, *left < sizeof bytes ? *left : sizeof bytes, 0);
    if (n <= 0 || send(to, bytes, (size_t)n, MSG_NOSIGNAL) != n) return false;
    *left -= (size_t)n;
    return true;
}

static void run_throttle(void *argument) {
    throttle *w = argument;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)w->port)};
    inet_pton(AF_INET, w->address, &to.sin_addr);
    const int fd[2] = {accept(w->listener, NULL, NULL), socket(AF_INET, SOCK_STREAM, 0)};
    const int small = 65536; /* small buffers in the kernel */
    setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    bool open = connect(fd[1], (struct sockaddr *)&to, sizeof to) == 0;
    while (!atomic_load(&w->over)) {
        struct pollfd p[2];
        for (int i = 0; i < 2; i++)
            p[i] = (struct pollfd){.fd = fd[i], .events = open && w->left[i] ? POLLIN : 0};
        if (!open) cop_clock_sleep_ms(5);
        if (!open || poll(p, 2, 5) <= 0) continue;
        for (int i = 0; i < 2; i++)
            if (open && (p[i].revents & POLLIN)) open = pass_on(fd[i], fd[1 - i], &w->left[i]);
    }
    for (int i = 0; i < 2; i++) close(fd[i]);
}

static void open_throttle(throttle *w, const host *h, const char *address, size_t from_link,
                          size_t from_host) {
    const int small = 65536;
    char url[64];
    *w = (throttle){.listener = listen_here(url),
                    .port = atoi(port_of(h)),
                    .address = address,
                    .left = {from_link, from_host}};
    setsockopt(w->listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    snprintf(w->url, sizeof w->url, "tls+%s", url);
    assert_int_equal(uv_thread_create(&w->thread, run_throttle, w), 0);
}

static void close_throttle(throttle *w) {
    atomic_store(&w->over, true);
    uv_thread_join(&w->thread);
    close(w->listener);
}

/* A close does not wait for ever: peers that have stopped reading delay it by a few seconds, and by
 * no more if the server has several addresses. */
static void test_close_waits_only_a_limited_time(void **state) {
    (void)state;
    const char *const addresses[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3"};
    host h;
    throttle throttles[3];
    caller callers[3];
    cop_link *links[3];
    start_host(&h, TLS);
    h.hold_size = 12u << 20;
    for (int i = 0; i < 3; i++) {
        char url[128];
        if (i)
            assert_int_equal(cop_server_listen(h.server, url_for(&h, addresses[i], url), NULL),
                             COP_OK);
        open_throttle(&throttles[i], &h, addresses[i], SIZE_MAX, 100000);
        assert_int_equal(cop_link_open(throttles[i].url, h.peer_tls, &links[i], NULL), COP_OK);
        start_caller(&callers[i], links[i], ASK_HOLD, TIMEOUT_MS);
    }
    assert_true(wait_for(&h.holding, 3));
    const uint64_t began = cop_clock_ns();
    stop_host(&h); /* answers held requests */
    assert_true(cop_clock_ns() - began < 9 * SECOND_NS);
    for (int i = 0; i < 3; i++) {
        cop_link_cancel(links[i]);
        uv_thread_join(&callers[i].thread);
        cop_link_close(links[i]);
        close_throttle(&throttles[i]);
    }
    free_host(&h);
}

/* If nobody reads a request, its call ends at its timeout. Closing the link then takes no further
 * time. */
static void test_close_after_a_timeout_is_fast(void **state) {
    (void)state;
    host h;
    throttle limited;
    cop_message reply;
    cop_link *link = NULL;
    start_host(&h, TLS);
    open_throttle(&limited, &h, "127.0.0.1", 100000, SIZE_MAX);
    assert_int_equal(cop_link_open(limited.url, h.peer_tls, &link, NULL), COP_OK);
    assert_int_equal(call(link, ASK_ECHO, make_bytes(12u << 20, 1), &reply, 1000, NULL),
                     COP_ERR_TIMEOUT);
    const uint64_t began = cop_clock_ns();
    cop_link_close(link);
    assert_true(cop_clock_ns() - began < 2 * SECOND_NS);
    close_throttle(&limited);
    stop_host(&h);
    free_host(&h);
}

static int teardown(void **state) {
    (void)state;
    remove_test_tls();
    return 0;
}

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_tries_every_address),
        cmocka_unit_test(test_server_listens_on_every_address),
        cmocka_unit_test(test_dead_name_server_costs_at_most_the_timeout),
        cmocka_unit_test(test_impatient_call_ends_when_nobody_listens),
        cmocka_unit_test(test_link_can_close_at_any_moment),
        cmocka_unit_test(test_wrong_scheme_is_reported_with_the_right_one),
        cmocka_unit_test(test_slow_greeting_is_not_taken_for_a_wrong_scheme),
        cmocka_unit_test(test_coordinator_with_slow_greetings_is_reached),
        cmocka_unit_test(test_close_sends_pending_answers),
        cmocka_unit_test(test_close_waits_only_a_limited_time),
        cmocka_unit_test(test_close_after_a_timeout_is_fast)};
    return cmocka_run_group_tests(tests, NULL, teardown);
}
