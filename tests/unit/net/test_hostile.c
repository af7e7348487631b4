/* Bytes on the TCP port that no worker would send. The coordinator closes the sender's connection,
 * and other connections are not affected. LABELS: quick threads */
#include "conformance/net/harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "common/wire/codec.h"

#define TIMEOUT_MS   10000
#define PROTOCOL_REQ 0x30
#define PROTOCOL_REP 0x31
#define PROTOCOL_PUB 0x20

typedef struct fixture {
    host host;
    cop_link *link; /* another peer, which must not be disturbed */
} fixture;

static int setup(void **state) {
    fixture *f = cop_alloc(sizeof *f);
    start_host(&f->host, TCP);
    f->link = open_link(&f->host);
    assert_int_equal(call_plain(f->link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    assert_int_equal(call_plain(f->link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(atomic_load(&f->host.gone), 0); /* the connection was never lost */
    cop_link_close(f->link);
    stop_host(&f->host);
    cop_free(f);
    return 0;
}

/* ---- a raw peer ---- */

static int connect_raw(const host *h) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    to.sin_port = htons((uint16_t)atoi(strrchr(h->url, ':') + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void send_raw(int fd, const void *bytes, size_t size) {
    (void)!send(fd, bytes, size, MSG_NOSIGNAL); /* the server may have closed already */
}

/* Returns whether the server closes the connection within 5 s, ignoring what it sends. */
static bool is_closed(int fd) {
    char bytes[256];
    for (int i = 0; i < 64; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) != 1) return false;
        if (recv(fd, bytes, sizeof bytes, 0) <= 0) return true;
    }
    return false;
}

/* The 8 bytes that open an SP connection. */
static void send_greeting(int fd, unsigned char protocol) {
    const unsigned char greeting[8] = {0, 'S', 'P', 0, 0, protocol, 0, 0};
    send_raw(fd, greeting, sizeof greeting);
}

static void send_length(int fd, uint64_t length) {
    uint64_t big_endian = __builtin_bswap64(length);
    send_raw(fd, &big_endian, 8);
}

/* A request of nng's REQ protocol around `size` bytes. */
static void send_request(int fd, const void *bytes, size_t size) {
    const unsigned char id[4] = {0x80, 0, 0, 1};
    send_length(fd, size + 4);
    send_raw(fd, id, 4);
    send_raw(fd, bytes, size);
}

static uint64_t bad_frames(const fixture *f) {
    cop_server_counters counters;
    cop_server_count(f->host.server, &counters);
    return counters.bad_frames;
}

static cop_buffer *make_frame(size_t part_size) {
    cop_message m = {.type = COP_MESSAGE_CALL, .call = {.method = ASK_ECHO}};
    m.part[0] = make_bytes(part_size, 3);
    cop_buffer *frame = cop_buffer_create(cop_codec_size(&m));
    cop_codec_encode(&m, frame->data);
    cop_message_fini(&m);
    return frame;
}

/* ---- below the frame ---- */

static void test_random_bytes_close_the_connection(void **state) {
    fixture *f = *state;
    uint64_t x = 88172645463325252ull;
    for (int round = 0; round < 20; round++) {
        unsigned char noise[1024];
        for (size_t i = 0; i < sizeof noise; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            noise[i] = (unsigned char)x;
        }
        int fd = connect_raw(&f->host);
        send_raw(fd, noise, sizeof noise);
        assert_true(is_closed(fd));
        close(fd);
    }
    assert_int_equal(bad_frames(f), 0); /* none was parsed as a frame */
}

static void test_http_request_closes_the_connection(void **state) {
    fixture *f = *state;
    const char text[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = connect_raw(&f->host);
    send_raw(fd, text, sizeof text - 1);
    assert_true(is_closed(fd));
    close(fd);
}

static void test_wrong_protocol_closes_the_connection(void **state) {
    fixture *f = *state;
    const unsigned char protocols[] = {PROTOCOL_REP, PROTOCOL_PUB, 0xff};
    for (size_t i = 0; i < sizeof protocols; i++) {
        int fd = connect_raw(&f->host);
        send_greeting(fd, protocols[i]);
        assert_true(is_closed(fd));
        close(fd);
    }
}

static void test_absurd_lengths_close_the_connection(void **state) {
    fixture *f = *state;
    const uint64_t lengths[] = {UINT64_MAX, (uint64_t)1 << 60, COP_FRAME_SIZE_MAX + 5};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int fd = connect_raw(&f->host);
        send_greeting(fd, PROTOCOL_REQ);
        send_length(fd, lengths[i]);
        assert_true(is_closed(fd));
        close(fd);
    }
}

static void test_silent_and_slow_peers_do_not_disturb_others(void **state) {
    fixture *f = *state;
    int fds[16];
    for (int i = 0; i < 16; i++) {
        fds[i] = connect_raw(&f->host);
        if (i % 4 == 1) send_raw(fds[i], "\0SP", 3); /* half a greeting */
        if (i % 4 == 2) send_greeting(fds[i], PROTOCOL_REQ);
        if (i % 4 == 3) { /* announces more bytes than it sends */
            send_greeting(fds[i], PROTOCOL_REQ);
            send_length(fds[i], 12u << 20);
            send_raw(fds[i], "abc", 3);
        }
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(call_plain(f->link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    for (int i = 0; i < 16; i++) close(fds[i]);
}

/* ---- frames ---- */

static void test_garbage_frame_closes_the_connection(void **state) {
    fixture *f = *state;
    char garbage[5000];
    memset(garbage, 0x5a, sizeof garbage);
    const size_t sizes[] = {0, 1, 63, 64, 5000};
    for (size_t i = 0; i < 5; i++) {
        int fd = connect_raw(&f->host);
        send_greeting(fd, PROTOCOL_REQ);
        send_request(fd, garbage, sizes[i]);
        assert_true(is_closed(fd));
        assert_int_equal(bad_frames(f), i + 1);
        close(fd);
    }
}

static void test_each_flipped_bit_closes_the_connection(void **state) {
    fixture *f = *state;
    cop_buffer *frame = make_frame(100);
    unsigned char *bytes = frame->data;
    uint64_t count = 0;
    for (size_t i = 0; i < frame->size; i += 7) {
        bytes[i] ^= (unsigned char)(1u << (i % 8));
        int fd = connect_raw(&f->host);
        send_greeting(fd, PROTOCOL_REQ);
        send_request(fd, bytes, frame->size);
        assert_true(is_closed(fd));
        assert_int_equal(bad_frames(f), ++count);
        close(fd);
        bytes[i] ^= (unsigned char)(1u << (i % 8));
    }
    cop_buffer_release(frame);
}

static void test_truncated_frame_is_not_a_request(void **state) {
    fixture *f = *state;
    cop_buffer *frame = make_frame(5000);
    const unsigned char id[4] = {0x80, 0, 0, 1};
    cop_server_counters before, after;
    cop_server_count(f->host.server, &before);
    for (size_t cut = 1; cut < frame->size; cut += 700) {
        int fd = connect_raw(&f->host);
        send_greeting(fd, PROTOCOL_REQ);
        send_length(fd, frame->size + 4);
        send_raw(fd, id, 4);
        send_raw(fd, frame->data, cut);
        close(fd);
    }
    assert_int_equal(call_plain(f->link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    cop_server_count(f->host.server, &after);
    assert_int_equal(after.requests, before.requests + 1);
    assert_int_equal(after.bad_frames, 0);
    cop_buffer_release(frame);
}

/* One connection may not occupy all contexts with waiting requests. */
static void test_flood_of_requests_closes_the_connection(void **state) {
    fixture *f = *state;
    cop_message m = {.type = COP_MESSAGE_CALL, .call = {.method = ASK_HOLD}};
    cop_buffer *frame = cop_buffer_create(cop_codec_size(&m));
    cop_codec_encode(&m, frame->data);
    int fd = connect_raw(&f->host);
    send_greeting(fd, PROTOCOL_REQ);
    for (int i = 0; i < 40; i++) {
        const unsigned char id[4] = {0x80, 0, 1, (unsigned char)i};
        send_length(fd, frame->size + 4);
        send_raw(fd, id, 4);
        send_raw(fd, frame->data, frame->size);
    }
    assert_true(is_closed(fd));
    assert_true(wait_for(&f->host.gone, 1));
    assert_int_equal(atomic_load(&f->host.holding), 16);
    assert_int_equal(call_plain(f->link, ASK_RELEASE, TIMEOUT_MS, NULL), COP_OK);
    atomic_store(&f->host.gone, 0);
    close(fd);
    cop_buffer_release(frame);
}

/* Shows that the raw peer of these tests works: a complete frame gets its answer. */
static void test_complete_frame_is_answered(void **state) {
    fixture *f = *state;
    cop_buffer *frame = make_frame(100);
    unsigned char bytes[1024];
    int fd = connect_raw(&f->host);
    send_greeting(fd, PROTOCOL_REQ);
    send_request(fd, frame->data, frame->size);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t got = 0;
    while (got < 8 + 8 + 4 + frame->size && poll(&p, 1, 5000) == 1) {
        ssize_t n = recv(fd, bytes + got, sizeof bytes - got, 0);
        if (n <= 0) break;
        got += (size_t)n;
    }
    assert_int_equal(got, 8 + 8 + 4 + frame->size); /* greeting, length, id, frame */
    assert_int_equal(cop_load_u32(bytes + 20), 0x57504f43);
    assert_int_equal(bad_frames(f), 0);
    close(fd);
    cop_buffer_release(frame);
    assert_true(wait_for(&f->host.gone, 1));
    atomic_store(&f->host.gone, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        TEST(test_random_bytes_close_the_connection),
        TEST(test_http_request_closes_the_connection),
        TEST(test_wrong_protocol_closes_the_connection),
        TEST(test_absurd_lengths_close_the_connection),
        TEST(test_silent_and_slow_peers_do_not_disturb_others),
        TEST(test_garbage_frame_closes_the_connection),
        TEST(test_each_flipped_bit_closes_the_connection),
        TEST(test_truncated_frame_is_not_a_request),
        TEST(test_flood_of_requests_closes_the_connection),
        TEST(test_complete_frame_is_answered),
    };
    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
