/* tls+tcp://: which peers are accepted or refused, and what both sides report. Foreign peers use
 * OpenSSL directly and nng's own TLS. LABELS: quick threads */
#include "unit/net/tls_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/wire/codec.h"

#define TIMEOUT_MS 10000

/* ---- accepted peers ---- */

/* Loads the credentials in `folder`: STEM.pem with the key of `key`. */
static cop_tls *credentials(const char *folder, const char *stem, const char *key,
                            cop_tls_side side) {
    char certificate[64], key_file[64];
    cop_error error = {0};
    cop_tls *tls = NULL;
    snprintf(certificate, sizeof certificate, "%s.pem", stem);
    snprintf(key_file, sizeof key_file, "%s.key", key);
    const cop_tls_options o = {.ca = path_of(folder, "ca.pem"),
                               .cert = path_of(folder, certificate),
                               .key = path_of(folder, key_file)};
    cop_err e = cop_tls_load(&o, "", side, &tls, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    COP_ASSERT(!e);
    return tls;
}

static void start_ours(host *h, const char *stem, const char *key) {
    start_host_with(h, TLS, credentials("ours", "coordinator", "coordinator", COP_TLS_SERVER),
                    credentials("ours", stem, key, COP_TLS_CLIENT));
}

static void end(host *h, cop_link *link) {
    cop_link_close(link);
    stop_host(h);
    free_host(h);
}

static void check_peer(const char *stem, const char *name, unsigned roles) {
    host h;
    cop_message reply;
    cop_peer peer;
    start_ours(&h, stem, strcmp(stem, "client") == 0 ? "client" : "worker");
    cop_link *link = open_link(&h);
    assert_int_equal(call(link, ASK_WHO, NULL, &reply, TIMEOUT_MS, NULL), COP_OK);
    memcpy(&peer, reply.part[COP_PART_BODY]->data, sizeof peer);
    cop_message_fini(&reply);
    assert_true(peer.certified);
    assert_string_equal(peer.name, name);
    assert_int_equal(peer.roles, roles);
    end(&h, link);
}

static void test_peer_is_identified_by_its_certificate(void **state) {
    (void)state;
    check_peer("worker", "worker", COP_ROLE_WORKER);
    check_peer("client", "client", COP_ROLE_CLIENT);
    check_peer("both", "worker", COP_ROLE_WORKER | COP_ROLE_CLIENT);
    check_peer("no-role", "nobody", 0);
    check_peer("soon", "worker", COP_ROLE_WORKER);
}

static void test_peer_without_tls_is_not_certified(void **state) {
    (void)state;
    const transport kinds[] = {MEMORY, IPC, TCP};
    for (int i = 0; i < 3; i++) {
        host h;
        cop_message reply;
        cop_peer peer, nobody = {0};
        start_host(&h, kinds[i]);
        cop_link *link = open_link(&h);
        assert_int_equal(call(link, ASK_WHO, NULL, &reply, TIMEOUT_MS, NULL), COP_OK);
        memcpy(&peer, reply.part[COP_PART_BODY]->data, sizeof peer);
        cop_message_fini(&reply);
        assert_memory_equal(&peer, &nobody, sizeof peer);
        end(&h, link);
    }
}

/* ---- strangers ---- */

static int port_of(const host *h) {
    return atoi(strrchr(h->url, ':') + 1);
}

static int connect_raw(const host *h) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(h))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* True: the other side closes the connection within `ms`. */
static bool is_closed(int fd, int ms) {
    char bytes[4096];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, ms) != 1) return false;
        if (recv(fd, bytes, sizeof bytes, 0) <= 0) return true;
    }
}

/* Makes a handshake with OpenSSL, without checking anything, and sends an SP greeting. Returns
 * whether it is answered. */
static bool stranger_gets_in(const host *h, const char *certificate, const char *key,
                             int highest_version) {
    const unsigned char greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    unsigned char answer_bytes[8];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, highest_version);
    if (certificate) {
        assert_int_equal(SSL_CTX_use_certificate_file(context, certificate, SSL_FILETYPE_PEM), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM), 1);
    }
    int fd = connect_raw(h);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    bool in = SSL_connect(ssl) == 1 && SSL_write(ssl, greeting, sizeof greeting) == 8 &&
              SSL_read(ssl, answer_bytes, sizeof answer_bytes) > 0;
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    return in;
}

static uint64_t refused(const host *h) {
    cop_server_counters counters;
    for (int i = 0; i < 2000; i++) {
        cop_server_count(h->server, &counters);
        if (counters.refused) break;
        cop_clock_sleep_ms(1); /* until its thread has counted it */
    }
    return counters.refused;
}

static void test_peers_with_bad_certificates_are_refused(void **state) {
    (void)state;
    const struct {
        const char *folder, *certificate, *key;
        int version;
    } rows[] = {
        {NULL, NULL, NULL, TLS1_3_VERSION},
        {NULL, NULL, NULL, TLS1_2_VERSION},
        {"ours", "expired.pem", "worker.key", TLS1_3_VERSION},
        {"ours", "expired.pem", "worker.key", TLS1_2_VERSION},
        {"ours", "early.pem", "worker.key", TLS1_3_VERSION},
        {"other", "worker.pem", "worker.key", TLS1_3_VERSION},
        {"other", "client.pem", "client.key", TLS1_2_VERSION},
        {"ours", "coordinator.pem", "coordinator.key", TLS1_3_VERSION},
        {"ours", "coordinator.pem", "coordinator.key", TLS1_2_VERSION},
        {"ours", "two-names.pem", "worker.key", TLS1_3_VERSION},
        {"ours", "nul.pem", "worker.key", TLS1_3_VERSION},
        {"ours", "escape.pem", "worker.key", TLS1_3_VERSION},
        {"ours", "worker.pem", "worker.key", TLS1_1_VERSION},
        {"ours", "worker.pem", "worker.key", TLS1_VERSION},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        host h;
        start_ours(&h, "worker", "worker");
        assert_false(stranger_gets_in(
            &h, rows[i].folder ? path_of(rows[i].folder, rows[i].certificate) : NULL,
            rows[i].folder ? path_of(rows[i].folder, rows[i].key) : NULL, rows[i].version));
        assert_int_equal(refused(&h), 1);
        stop_host(&h);
        free_host(&h);
    }
}

/* Shows that the stranger of these tests works: with a good certificate it gets its answer. */
static void test_peer_with_a_good_certificate_is_accepted(void **state) {
    (void)state;
    const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    for (int i = 0; i < 2; i++) {
        host h;
        start_ours(&h, "worker", "worker");
        assert_true(stranger_gets_in(&h, path_of("ours", "worker.pem"),
                                     path_of("ours", "worker.key"), versions[i]));
        stop_host(&h);
        free_host(&h);
    }
}

static void test_non_tls_bytes_close_the_connection(void **state) {
    (void)state;
    const char texts[3][32] = {"GET / HTTP/1.1\r\n\r\n", "\0SP\0\0\x30\0\0",
                               "\x16\x03\x01\xff\xff no greeting"};
    host h;
    start_ours(&h, "worker", "worker");
    cop_link *link = open_link(&h);
    for (int i = 0; i < 3; i++) {
        int fd = connect_raw(&h);
        (void)!send(fd, texts[i], sizeof texts[i], MSG_NOSIGNAL);
        assert_true(is_closed(fd, 5000));
        close(fd);
        assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    }
    assert_int_equal(atomic_load(&h.gone), 0);
    end(&h, link);
}

/* More peers are silent in the handshake than the server allows. The oldest of them are closed, and
 * an active peer gets through. */
static void test_silent_peers_do_not_lock_others_out(void **state) {
    (void)state;
    enum { SILENT = 600 };
    static int fds[SILENT];
    host h;
    start_ours(&h, "worker", "worker");
    cop_link *before = open_link(&h);
    assert_int_equal(call_plain(before, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    for (int i = 0; i < SILENT; i++) {
        fds[i] = connect_raw(&h);
        if (i % 2) (void)!send(fds[i], "\x16\x03\x01", 3, MSG_NOSIGNAL); /* begins, then stops */
    }
    uint64_t began = cop_clock_ns();
    cop_link *after = open_link(&h);
    assert_int_equal(call_plain(after, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_int_equal(call_plain(before, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    assert_true(cop_clock_ns() - began < 3000000000u);
    int closed = 0;
    for (int i = 0; i < SILENT; i++) {
        struct pollfd p = {.fd = fds[i], .events = POLLIN};
        closed += poll(&p, 1, 0) == 1;
    }
    assert_in_range(closed, SILENT - COP_HALF_OPEN_MAX, SILENT);
    for (int i = 0; i < SILENT; i++) close(fds[i]);
    cop_link_close(after);
    end(&h, before);
}

/* ---- errors of links ---- */

static void check_link_refused(cop_tls *server, cop_tls *peer, const char *words) {
    host h;
    cop_error error = {0};
    start_host_with(&h, TLS, server, peer);
    cop_link *link = open_link(&h);
    uint64_t began = cop_clock_ns();
    cop_err e = call_plain(link, ASK_ECHO, TIMEOUT_MS, &error);
    if (e != COP_ERR_DENIED || !strstr(error.text, words))
        fprintf(stderr, "expected \"%s\", got %d %s\n", words, e, error.text);
    assert_int_equal(e, COP_ERR_DENIED);
    assert_non_null(strstr(error.text, words));
    assert_true(cop_clock_ns() - began < 5000000000u); /* it does not retry until the timeout */
    end(&h, link);
}

static cop_tls *named(const char *name) {
    cop_error error = {0};
    cop_tls *tls = NULL;
    const cop_tls_options o = {.ca = path_of("ours", "ca.pem"),
                               .cert = path_of("ours", "worker.pem"),
                               .key = path_of("ours", "worker.key"),
                               .name = name};
    COP_ASSERT(cop_tls_load(&o, "", COP_TLS_CLIENT, &tls, &error) == COP_OK);
    return tls;
}

static void test_link_checks_the_coordinator(void **state) {
    (void)state;
    check_link_refused(credentials("other", "coordinator", "coordinator", COP_TLS_SERVER),
                       credentials("ours", "worker", "worker", COP_TLS_CLIENT),
                       "\"coordinator\" was issued by another CA");
    check_link_refused(credentials("ours", "coordinator", "coordinator", COP_TLS_SERVER),
                       named("gpu1.example"), "is for IP Address:127.0.0.1");
    /* The certificate has the name, but not the address. */
    host h;
    start_host_with(&h, TLS, credentials("ours", "coordinator", "coordinator", COP_TLS_SERVER),
                    named("localhost"));
    cop_link *link = open_link(&h);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    end(&h, link);
}

/* A coordinator that a link must not trust: OpenSSL with any certificate. It accepts one connection
 * after the other, as a link retries, until the listener is shut down. */
typedef struct false_server {
    int listener;
    const char *certificate, *key;
} false_server;

static void run_false_server(void *argument) {
    const false_server *s = argument;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    COP_ASSERT(SSL_CTX_use_certificate_file(context, s->certificate, SSL_FILETYPE_PEM) == 1);
    COP_ASSERT(SSL_CTX_use_PrivateKey_file(context, s->key, SSL_FILETYPE_PEM) == 1);
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0;) {
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        SSL_accept(ssl);
        SSL_free(ssl);
        close(fd);
    }
    SSL_CTX_free(context);
}

static int listen_raw(char url[64], bool tls) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    snprintf(url, 64, "%stcp://127.0.0.1:%u", tls ? "tls+" : "", ntohs(at.sin_port));
    return fd;
}

static void check_false_server(const char *certificate, const char *key, const char *words) {
    char url[64];
    false_server s = {listen_raw(url, true), certificate, key};
    uv_thread_t thread;
    cop_error error = {0};
    cop_link *link = NULL;
    cop_tls *tls = credentials("ours", "worker", "worker", COP_TLS_CLIENT);
    assert_int_equal(uv_thread_create(&thread, run_false_server, &s), 0);
    assert_int_equal(cop_link_open(url, tls, &link, &error), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, &error), COP_ERR_DENIED);
    if (!strstr(error.text, words)) fprintf(stderr, "%s\n", error.text);
    assert_non_null(strstr(error.text, words));
    cop_link_close(link);
    shutdown(s.listener, SHUT_RDWR);
    uv_thread_join(&thread);
    close(s.listener);
    cop_tls_destroy(tls);
}

static void test_link_refuses_a_false_coordinator(void **state) {
    (void)state;
    check_false_server(path_of("ours", "expired-coordinator.pem"),
                       path_of("ours", "coordinator.key"), "\"coordinator\" expired on 20");
    check_false_server(path_of("ours", "worker.pem"), path_of("ours", "worker.key"),
                       "extended key usage");
    check_false_server(path_of("other", "coordinator.pem"), path_of("other", "coordinator.key"),
                       "issued by another CA");
}

static void test_link_reports_why_it_is_refused(void **state) {
    (void)state;
    /* Only one side trusts the other's CA. */
    char both[256], *texts[2];
    size_t size;
    snprintf(both, sizeof both, "%s/both-cas.pem", root);
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            cop_file_read(path_of(i ? "other" : "ours", "ca.pem"), 65536, &texts[i], &size, NULL),
            COP_OK);
    cop_file_part parts[2] = {{texts[0], strlen(texts[0])}, {texts[1], strlen(texts[1])}};
    assert_int_equal(cop_file_write(both, parts, 2, 0644, NULL), COP_OK);
    const cop_tls_options o = {
        .ca = both, .cert = path_of("other", "worker.pem"), .key = path_of("other", "worker.key")};
    cop_tls *tls = NULL;
    assert_int_equal(cop_tls_load(&o, "", COP_TLS_CLIENT, &tls, NULL), COP_OK);
    check_link_refused(credentials("ours", "coordinator", "coordinator", COP_TLS_SERVER), tls,
                       "it reports that our certificate was issued by another CA");
    for (int i = 0; i < 2; i++) cop_free(texts[i]);
}

static void test_link_reports_a_missing_coordinator(void **state) {
    (void)state;
    char url[64];
    close(listen_raw(url, true)); /* now no program listens on this port */
    cop_error error = {0};
    cop_link *link = NULL;
    cop_tls *tls = credentials("ours", "worker", "worker", COP_TLS_CLIENT);
    assert_int_equal(cop_link_open(url, NULL, &link, &error), COP_ERR_USAGE);
    assert_int_equal(cop_link_open(url, tls, &link, &error), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, 300, &error), COP_ERR_UNREACHABLE);
    assert_non_null(strstr(error.text, "Connection refused"));
    cop_link_close(link);
    assert_int_equal(cop_link_open("tls+tcp://no.such.host.invalid:1", tls, &link, &error), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, 3000, &error), COP_ERR_UNREACHABLE);
    assert_non_null(strstr(error.text, "cannot resolve"));
    cop_link_close(link);
    cop_tls_destroy(tls);
}

/* A silent listener accepts, then closes; a coordinator takes its place. */
static void test_link_survives_a_silent_coordinator(void **state) {
    (void)state;
    char url[64];
    cop_error error = {0};
    cop_link *link = NULL;
    int silent = listen_raw(url, true);
    host h = {0};
    cop_tls *tls = credentials("ours", "worker", "worker", COP_TLS_CLIENT);
    assert_int_equal(cop_link_open(url, tls, &link, &error), COP_OK);
    int fd = accept(silent, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(call_plain(link, ASK_ECHO, 200, &error), COP_ERR_UNREACHABLE);
    close(fd);
    close(silent);
    start_host_with(&h, MEMORY, credentials("ours", "coordinator", "coordinator", COP_TLS_SERVER),
                    NULL);
    assert_int_equal(cop_server_listen(h.server, url, &error), COP_OK);
    assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
    end(&h, link);
    cop_tls_destroy(tls);
}

/* After two unanswered calls in a row, a link gives its connection up. */
static void test_silent_connection_is_abandoned(void **state) {
    (void)state;
    const transport kinds[] = {TCP, TLS};
    for (int i = 0; i < 2; i++) {
        host h;
        start_host(&h, kinds[i]);
        cop_link *link = open_connected_link(&h);
        uint64_t first = atomic_load(&h.last_connection);
        assert_int_equal(call_plain(link, ASK_DROP, 50, NULL), COP_ERR_TIMEOUT);
        assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
        assert_int_equal(atomic_load(&h.last_connection), first); /* one call is not enough */
        for (int k = 0; k < 2; k++)
            assert_int_equal(call_plain(link, ASK_DROP, 50, NULL), COP_ERR_TIMEOUT);
        assert_true(wait_for(&h.gone, 1));
        assert_int_equal(call_plain(link, ASK_ECHO, TIMEOUT_MS, NULL), COP_OK);
        assert_true(atomic_load(&h.last_connection) != first);
        end(&h, link);
    }
}

/* ---- other implementations ---- */

static char *text_of(const char *folder, const char *name) {
    char *text;
    size_t size;
    COP_ASSERT(cop_file_read(path_of(folder, name), 65536, &text, &size, NULL) == COP_OK);
    return text;
}

/* nng's own TLS transport, over mbedTLS. */
static nng_tls_config *nng_credentials(nng_tls_mode mode, const char *stem) {
    char certificate[64], key[64];
    nng_tls_config *config;
    snprintf(certificate, sizeof certificate, "%s.pem", stem);
    snprintf(key, sizeof key, "%s.key", stem);
    char *texts[3] = {text_of("ours", "ca.pem"), text_of("ours", certificate),
                      text_of("ours", key)};
    assert_int_equal(nng_tls_config_alloc(&config, mode), 0);
    assert_int_equal(nng_tls_config_ca_chain(config, texts[0], NULL), 0);
    assert_int_equal(nng_tls_config_own_cert(config, texts[1], texts[2], NULL), 0);
    assert_int_equal(nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED), 0);
    if (mode == NNG_TLS_MODE_CLIENT) nng_tls_config_server_name(config, "localhost");
    for (int i = 0; i < 3; i++) cop_free(texts[i]);
    return config;
}

static void test_nng_with_its_own_tls_is_compatible(void **state) {
    (void)state;
    host h;
    nng_socket socket;
    nng_dialer dialer;
    nng_msg *message;
    start_ours(&h, "worker", "worker");
    nng_tls_config *config = nng_credentials(NNG_TLS_MODE_CLIENT, "client");
    assert_int_equal(nng_req0_open(&socket), 0);
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, TIMEOUT_MS);
    assert_int_equal(nng_dialer_create(&dialer, socket, h.url), 0);
    assert_int_equal(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config), 0);
    assert_int_equal(nng_dialer_start(dialer, 0), 0);
    cop_message call_message = {.type = COP_MESSAGE_CALL, .call = {.method = ASK_WHO}}, reply;
    assert_int_equal(nng_msg_alloc(&message, cop_codec_size(&call_message)), 0);
    cop_codec_encode(&call_message, nng_msg_body(message));
    assert_int_equal(nng_sendmsg(socket, message, 0), 0);
    assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
    cop_buffer *frame = cop_buffer_create(nng_msg_len(message));
    memcpy(frame->data, nng_msg_body(message), nng_msg_len(message));
    assert_int_equal(cop_codec_decode(frame, &reply, NULL), COP_OK);
    assert_string_equal(((const cop_peer *)reply.part[COP_PART_BODY]->data)->name, "client");
    cop_message_fini(&reply);
    cop_buffer_release(frame);
    nng_msg_free(message);
    nng_close(socket);
    nng_tls_config_free(config);
    stop_host(&h);
    free_host(&h);
}

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer_is_identified_by_its_certificate),
        cmocka_unit_test(test_peer_without_tls_is_not_certified),
        cmocka_unit_test(test_peers_with_bad_certificates_are_refused),
        cmocka_unit_test(test_peer_with_a_good_certificate_is_accepted),
        cmocka_unit_test(test_non_tls_bytes_close_the_connection),
        cmocka_unit_test(test_silent_peers_do_not_lock_others_out),
        cmocka_unit_test(test_link_checks_the_coordinator),
        cmocka_unit_test(test_link_refuses_a_false_coordinator),
        cmocka_unit_test(test_link_reports_why_it_is_refused),
        cmocka_unit_test(test_link_reports_a_missing_coordinator),
        cmocka_unit_test(test_link_survives_a_silent_coordinator),
        cmocka_unit_test(test_silent_connection_is_abandoned),
        cmocka_unit_test(test_nng_with_its_own_tls_is_compatible),
    };
    return cmocka_run_group_tests_name("tls", tests, make_root, remove_root);
}
