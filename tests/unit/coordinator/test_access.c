/* No access without credentials. Makes every request on every socket of a running coordinator (both
 * lists come from the program itself). Requests with missing, wrong or expired credentials, or with
 * those of a wrong role, must be refused; requests with the right credentials must be accepted.
 * LABELS: quick */
#include "unit/net/tls_fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/wire/codec.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"
#include "coordinator/server/server.h"

#define ANSWER_MS 5000
#define SESSIONS  12 /* sessions that one identity opens */
#define WATCHES   6

typedef struct world {
    coord_server *server;
    cop_tls *tls;
    char urls[3][160]; /* tls+tcp, tcp, ipc */
    char state[128];
    unsigned char self_test[32];
} world;
static world w;

static int free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    COP_ASSERT(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    COP_ASSERT(getsockname(fd, (struct sockaddr *)&at, &size) == 0);
    close(fd);
    return ntohs(at.sin_port);
}

static int start_coordinator(void **state) {
    if (make_root(state)) return -1;
    cop_error error = {0};
    const cop_tls_options options = {.ca = path_of("ours", "ca.pem"),
                                     .cert = path_of("ours", "coordinator.pem"),
                                     .key = path_of("ours", "coordinator.key")};
    COP_ASSERT(cop_tls_load(&options, "", COP_TLS_SERVER, &w.tls, &error) == COP_OK);
    snprintf(w.urls[0], sizeof w.urls[0], "tls+tcp://127.0.0.1:%d", free_port());
    snprintf(w.urls[1], sizeof w.urls[1], "tcp://127.0.0.1:%d", free_port());
    snprintf(w.urls[2], sizeof w.urls[2], "ipc://%s/socket", root);
    snprintf(w.state, sizeof w.state, "%s/state", root);
    const char *listen[] = {w.urls[0], w.urls[1], w.urls[2], NULL};
    coord_config config = {.state = w.state,
                           .listen = listen,
                           .update_threads = 1,
                           .tls = w.tls,
                           .sessions_per_identity = SESSIONS,
                           .watches_per_identity = WATCHES};
    COP_ASSERT(cop_kernels_choose(&config.kernels, &error) == COP_OK);
    COP_ASSERT(cop_self_test(config.kernels, config.self_test, &error) == COP_OK);
    memcpy(w.self_test, config.self_test, sizeof w.self_test);
    cop_err e = coord_start(&config, &w.server, &error);
    if (e) fprintf(stderr, "%s\n", error.text);
    return e ? -1 : 0;
}

static int stop_coordinator(void **state) {
    coord_stop(w.server);
    cop_tls_destroy(w.tls);
    return remove_root(state);
}

/* ---- a peer with arbitrary credentials ---- */

typedef struct connection {
    int fd;
    SSL_CTX *context;
    SSL *ssl; /* NULL: plain */
} connection;

static int connect_to(const char *url) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in net = {.sin_family = AF_INET};
    bool ipc = strncmp(url, "ipc://", 6) == 0;
    net.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (ipc)
        snprintf(local.sun_path, sizeof local.sun_path, "%s", url + 6);
    else
        net.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
    int fd = socket(ipc ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    int failed = ipc ? connect(fd, (struct sockaddr *)&local, sizeof local)
                     : connect(fd, (struct sockaddr *)&net, sizeof net);
    assert_int_equal(failed, 0);
    const int on = 1;
    if (!ipc) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct timeval patience = {.tv_sec = ANSWER_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* Opens a connection. If `stem` is NULL, it has no certificate. */
static void open_connection(connection *d, const char *url, const char *folder, const char *stem,
                            const char *key) {
    *d = (connection){.fd = connect_to(url)};
    if (!cop_url_is_tls(url)) return;
    d->context = SSL_CTX_new(TLS_client_method());
    if (stem) {
        char names[2][64];
        snprintf(names[0], 64, "%s.pem", stem);
        snprintf(names[1], 64, "%s.key", key);
        assert_int_equal(
            SSL_CTX_use_certificate_file(d->context, path_of(folder, names[0]), SSL_FILETYPE_PEM),
            1);
        assert_int_equal(
            SSL_CTX_use_PrivateKey_file(d->context, path_of(folder, names[1]), SSL_FILETYPE_PEM),
            1);
    }
    d->ssl = SSL_new(d->context);
    SSL_set_fd(d->ssl, d->fd);
    SSL_connect(d->ssl); /* ignore the result, and try the request anyway */
}

static void close_connection(connection *d) {
    SSL_free(d->ssl);
    SSL_CTX_free(d->context);
    close(d->fd);
}

static bool put(connection *d, const void *bytes, size_t size) {
    return d->ssl ? SSL_write(d->ssl, bytes, (int)size) == (int)size
                  : send(d->fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool get(connection *d, void *bytes, size_t size) {
    for (size_t at = 0; at < size;) {
        char *to = (char *)bytes + at;
        ssize_t n = d->ssl ? SSL_read(d->ssl, to, (int)(size - at)) : recv(d->fd, to, size - at, 0);
        if (n <= 0) return false;
        at += (size_t)n;
    }
    return true;
}

/* Sends the header of an nng message, which is its length. With ipc, a byte precedes the length. */
static bool put_length(connection *d, bool ipc, uint64_t length) {
    uint64_t big_endian = __builtin_bswap64(length);
    return (!ipc || put(d, "\1", 1)) && put(d, &big_endian, 8);
}

/* Sends a request over SP's REQ. */
static bool say(connection *d, bool ipc, bool first, cop_message *m) {
    const unsigned char greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0}, id[4] = {0x80, 0, 0, 1};
    unsigned char head[8];
    size_t size = cop_codec_size(m);
    cop_buffer *frame = cop_buffer_create(size);
    cop_codec_encode(m, frame->data);
    cop_message_fini(m);
    bool sent = (!first || (put(d, greeting, 8) && get(d, head, 8))) &&
                put_length(d, ipc, size + 4) && put(d, id, 4) && put(d, frame->data, size);
    cop_buffer_release(frame);
    return sent;
}

/* Receives the answer to a request. False: there is none. */
static bool hear(connection *d, bool ipc, cop_message *reply) {
    unsigned char head[9], back[4];
    uint64_t length;
    if (!get(d, head, ipc ? 9 : 8)) return false;
    memcpy(&length, head + (ipc ? 1 : 0), 8);
    length = __builtin_bswap64(length) - 4;
    if (!get(d, back, 4)) return false;
    cop_buffer *frame = cop_buffer_create(length);
    bool whole = get(d, frame->data, length);
    if (whole) assert_int_equal(cop_codec_decode(frame, reply, NULL), COP_OK);
    cop_buffer_release(frame);
    return whole;
}

static bool ask(connection *d, bool ipc, bool first, cop_message *m, cop_message *reply) {
    *reply = (cop_message){0};
    return say(d, ipc, first, m) && hear(d, ipc, reply);
}

/* ---- requests, as listed by the program ---- */

static void make_hello(cop_message *m, const char *token) {
    *m = (cop_message){.type = COP_MESSAGE_HELLO};
    m->hello = (cop_hello){.major = COP_PROTOCOL_MAJOR, .threads = 1, .arithmetic = "portable-1"};
    memcpy(m->hello.self_test, w.self_test, sizeof m->hello.self_test);
    snprintf(m->hello.token, sizeof m->hello.token, "%s", token);
}

static void make_request(const coord_right *right, const char *token, uint64_t worker,
                         uint64_t session, cop_message *m) {
    switch (right->type) {
    case COP_MESSAGE_HELLO:
        make_hello(m, token);
        break;
    case COP_MESSAGE_HEARTBEAT:
        *m = (cop_message){.type = COP_MESSAGE_HEARTBEAT,
                           .heartbeat = {.worker = worker, .session = session}};
        break;
    case COP_MESSAGE_PULL: /* a goodbye, because it is answered at once */
        *m = (cop_message){.type = COP_MESSAGE_PULL,
                           .pull = {.worker = worker, .session = session, .goodbye = true}};
        break;
    default:
        *m = (cop_message){.type = COP_MESSAGE_CALL,
                           .call = {.method = right->method, .major = COP_PROTOCOL_MAJOR}};
        snprintf(m->call.token, sizeof m->call.token, "%s", token);
        m->part[COP_PART_BODY] = cop_buffer_create(0); /* a request without fields */
    }
}

/* True: the answer is not a refusal. */
static bool lets_in(const cop_message *reply) {
    if (reply->type == COP_MESSAGE_FAILURE) return reply->failure.code != COP_ERR_DENIED;
    if (reply->type == COP_MESSAGE_NOTHING) return !reply->nothing.unknown;
    if (reply->type == COP_MESSAGE_HEARTBEAT_REPLY) return !reply->heartbeat_reply.unknown;
    return true;
}

typedef struct credential {
    const char *what;
    const char *folder, *stem, *key; /* tls+tcp:// */
    const char *token;
    unsigned roles; /* roles that these credentials give */
} credential;

static bool is_let_in(const char *url, const credential *c, const coord_right *right) {
    connection d;
    cop_message m, reply;
    open_connection(&d, url, c->folder, c->stem, c->key);
    make_request(right, c->token, 1, 12345, &m);
    bool in = ask(&d, strncmp(url, "ipc", 3) == 0, true, &m, &reply);
    if (in) {
        in = lets_in(&reply);
        cop_message_fini(&reply);
    }
    close_connection(&d);
    return in;
}

static char good_token[80], longer_token[80], shorter_token[80], other_token[80];

static void make_tokens(void) {
    snprintf(good_token, sizeof good_token, "%s", coord_token(w.server));
    snprintf(longer_token, sizeof longer_token, "%sx", good_token);
    snprintf(shorter_token, sizeof shorter_token, "%.63s", good_token);
    snprintf(other_token, sizeof other_token, "%s", good_token);
    other_token[40] = other_token[40] == '0' ? '1' : '0';
}

/* All of these peers know the token, which must not help them on tls+tcp://. */
static const credential by_certificate[] = {
    {"no certificate", NULL, NULL, NULL, good_token, 0},
    {"an expired certificate", "ours", "expired", "worker", good_token, 0},
    {"a certificate of tomorrow", "ours", "early", "worker", good_token, 0},
    {"another CA's worker", "other", "worker", "worker", good_token, 0},
    {"another CA's client", "other", "client", "client", good_token, 0},
    {"a coordinator's certificate", "ours", "coordinator", "coordinator", good_token, 0},
    {"a certificate with two names", "ours", "two-names", "worker", good_token, 0},
    {"a name with a NUL", "ours", "nul", "worker", good_token, 0},
    {"no role", "ours", "no-role", "worker", good_token, 0},
    {"a worker", "ours", "worker", "worker", "", COP_ROLE_WORKER},
    {"a client", "ours", "client", "client", "", COP_ROLE_CLIENT},
    {"both", "ours", "both", "worker", "", COP_ROLE_WORKER | COP_ROLE_CLIENT},
};
static const credential by_token[] = {
    {"no token", NULL, NULL, NULL, "", 0},
    {"another token", NULL, NULL, NULL, other_token, 0},
    {"a longer token", NULL, NULL, NULL, longer_token, 0},
    {"a shorter token", NULL, NULL, NULL, shorter_token, 0},
    {"the token", NULL, NULL, NULL, good_token, COP_ROLE_WORKER | COP_ROLE_CLIENT},
};

/* True: the request needs a session, as HEARTBEAT and PULL do. No peer has one here. */
static bool needs_session(const coord_right *right) {
    return right->type == COP_MESSAGE_HEARTBEAT || right->type == COP_MESSAGE_PULL;
}

static int try_all(const char *url, const credential *rows, size_t count) {
    int tried = 0;
    coord_right right;
    for (size_t at = 0; coord_right_at(at, &right); at++) {
        assert_true(right.role == COP_ROLE_WORKER || right.role == COP_ROLE_CLIENT);
        for (size_t i = 0; i < count; i++, tried++) {
            bool in = is_let_in(url, &rows[i], &right);
            bool rightly = (rows[i].roles & right.role) && !needs_session(&right);
            if (in != rightly)
                fprintf(stderr, "%s, %s, with %s: let in %d\n", url, right.name, rows[i].what, in);
            assert_int_equal(in, rightly);
        }
    }
    return tried;
}

static void test_every_request_on_every_socket_needs_credentials(void **state) {
    (void)state;
    make_tokens();
    int tried = try_all(w.urls[0], by_certificate, sizeof by_certificate / sizeof *by_certificate);
    for (int i = 1; i < 3; i++)
        tried += try_all(w.urls[i], by_token, sizeof by_token / sizeof *by_token);
    assert_true(tried > 400);
}

/* ---- no other sockets ---- */

/* Finds the listening TCP sockets of this process by checking each of its descriptors. */
static int count_listening(int family) {
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        int fd = atoi(e->d_name), on = 0, domain = 0;
        socklen_t size = sizeof on;
        if (e->d_name[0] == '.' || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size)) continue;
        size = sizeof domain;
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
        count += on && domain == family;
    }
    closedir(folder);
    return count;
}

static void test_no_other_socket_listens(void **state) {
    (void)state;
    struct stat status;
    assert_int_equal(count_listening(AF_INET), 2);
    assert_int_equal(count_listening(AF_INET6), 0);
    assert_int_equal(count_listening(AF_UNIX), 1);
    assert_int_equal(stat(w.urls[2] + 6, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

/* ---- sessions ---- */

/* Sends HELLO, and stores the session. */
static void join(connection *d, const char *url, const char *stem, const char *token,
                 cop_message *m) {
    cop_message hello;
    open_connection(d, url, "ours", stem, "worker");
    make_hello(&hello, token);
    assert_true(ask(d, false, true, &hello, m));
    assert_int_equal(m->type, COP_MESSAGE_WELCOME);
}

/* A peer that knows a session's secret cannot use it with another certificate, or without one. */
static void test_session_works_only_with_its_certificate(void **state) {
    (void)state;
    connection owner, thief;
    cop_message welcome, m, reply;
    make_tokens();
    join(&owner, w.urls[0], "worker", "", &welcome);
    const coord_right heartbeat = {.type = COP_MESSAGE_HEARTBEAT};
    const char *const stems[] = {"no-role", "client", "both"};
    for (int i = 0; i < 4; i++) {
        bool plain = i == 3;
        open_connection(&thief, w.urls[plain ? 1 : 0], "ours", plain ? NULL : stems[i],
                        i == 1 ? "client" : "worker");
        make_request(&heartbeat, "", welcome.welcome.worker, welcome.welcome.session, &m);
        assert_true(ask(&thief, false, true, &m, &reply));
        assert_int_equal(lets_in(&reply), i == 2); /* `both` has the same name */
        cop_message_fini(&reply);
        close_connection(&thief);
    }
    make_request(&heartbeat, "", welcome.welcome.worker, welcome.welcome.session, &m);
    assert_true(ask(&owner, false, false, &m, &reply));
    assert_true(lets_in(&reply));
    cop_message_fini(&reply);
    close_connection(&owner);
}

/* ---- limits for one identity ---- */

/* Sends another HELLO on this connection; returns the answer. */
static cop_message_type hello_again(connection *d, bool first, const char *token) {
    cop_message m, reply = {0};
    make_hello(&m, token);
    assert_true(ask(d, false, first, &m, &reply));
    if (reply.type == COP_MESSAGE_FAILURE) {
        assert_int_equal(reply.failure.code, COP_ERR_LIMIT);
        assert_non_null(strstr(reply.failure.text, "12 workers in the pool: the limit is 12"));
    }
    const cop_message_type type = reply.type;
    cop_message_fini(&reply);
    return type;
}

/* The limit holds for one certificate, and for all holders of the token together. */
static void test_no_identity_can_use_all_sessions(void **state) {
    (void)state;
    make_tokens();
    for (int plain = 0; plain < 2; plain++) {
        connection hog, other;
        int in = 0;
        open_connection(&hog, w.urls[plain], "ours", plain ? NULL : "many", "worker");
        for (int i = 0; i < SESSIONS + 4; i++)
            in += hello_again(&hog, i == 0, plain ? good_token : "") == COP_MESSAGE_WELCOME;
        assert_int_equal(in, SESSIONS);
        open_connection(&other, w.urls[0], "ours", "worker", "worker");
        assert_int_equal(hello_again(&other, true, ""), COP_MESSAGE_WELCOME);
        close_connection(&other);
        close_connection(&hog);
        cop_clock_sleep_ms(20);
    }
}

#define WATCHED 7 /* a job */

static void note_watched(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    (void)mail;
    if (api_note_find(server->api, WATCHED))
        coord_api_changed(server->api, WATCHED);
    else
        api_note_append(server->api, WATCHED);
}

/* Makes news of the job, which answers held requests. */
static void publish_news(void) {
    static coord_mail mail;
    mail.run = note_watched;
    coord_post(&w.server->engine, &mail);
    cop_clock_sleep_ms(20);
}

/* Sends a request that is held until there is news. */
static void say_watch(connection *d, const char *stem, bool logs) {
    Coppice__Api__WatchJobRequest watch = COPPICE__API__WATCH_JOB_REQUEST__INIT;
    Coppice__Api__LogsRequest log = COPPICE__API__LOGS_REQUEST__INIT;
    watch.has_job = watch.has_version = watch.has_hold_ms = 1;
    log.has_job = log.has_hold_ms = 1;
    watch.job = log.job = WATCHED;
    watch.version = 1;
    watch.hold_ms = log.hold_ms = 4000;
    cop_message m = {.type = COP_MESSAGE_CALL};
    m.call.method = logs ? COPPICE__API__METHOD__LOGS : COPPICE__API__METHOD__WATCH_JOB;
    m.call.major = COP_PROTOCOL_MAJOR;
    m.part[COP_PART_BODY] = cop_proto_pack(logs ? &log.base : &watch.base);
    open_connection(d, w.urls[0], "ours", stem, strcmp(stem, "client") ? "worker" : "client");
    assert_true(say(d, false, true, &m));
}

/* Returns the pause after which the client should ask again; 0: the request was held. */
static uint32_t hear_watch(connection *d, bool logs) {
    cop_message reply;
    ProtobufCMessage *answer = NULL;
    uint32_t pause;
    assert_true(hear(d, false, &reply));
    assert_int_equal(reply.type, COP_MESSAGE_ANSWER);
    assert_int_equal(cop_proto_unpack(logs ? &coppice__api__logs_answer__descriptor
                                           : &coppice__api__watch_job_answer__descriptor,
                                      reply.part[COP_PART_BODY]->data,
                                      reply.part[COP_PART_BODY]->size, 1u << 20, &answer, NULL),
                     COP_OK);
    if (logs)
        pause = ((const Coppice__Api__LogsAnswer *)answer)->retry_ms;
    else
        pause = ((const Coppice__Api__WatchJobAnswer *)answer)->retry_ms;
    if (!logs) assert_non_null(((const Coppice__Api__WatchJobAnswer *)answer)->status);
    cop_proto_free(answer);
    cop_message_fini(&reply);
    return pause;
}

static bool is_held(const connection *d) {
    struct pollfd at = {.fd = d->fd, .events = POLLIN};
    return poll(&at, 1, 300) == 0;
}

/* If an identity has used up its share, its requests are answered at once, but requests of other
 * identities are held. */
static void test_no_identity_can_use_all_watches(void **state) {
    (void)state;
    connection hog[WATCHES], more, logs, other;
    publish_news();
    for (int i = 0; i < WATCHES; i++) say_watch(&hog[i], "client", i & 1);
    assert_true(is_held(&hog[0]));
    say_watch(&more, "client", false);
    assert_int_equal(hear_watch(&more, false), API_RETRY_MS);
    say_watch(&logs, "client", true);
    assert_int_equal(hear_watch(&logs, true), API_RETRY_MS);
    say_watch(&other, "both", false);
    assert_true(is_held(&other));
    assert_true(is_held(&hog[0]));
    publish_news();
    assert_int_equal(hear_watch(&other, false), 0);
    assert_int_equal(hear_watch(&hog[0], false), 0);
    for (int i = 0; i < WATCHES; i++) close_connection(&hog[i]);
    close_connection(&more);
    close_connection(&logs);
    close_connection(&other);
}

/* Joins and leaves `times` times with one certificate. */
static void rejoin(int times) {
    for (int i = 0; i < times; i++) {
        connection d;
        open_connection(&d, w.urls[0], "ours", "worker", "worker");
        hello_again(&d, true, "");
        close_connection(&d);
    }
    cop_clock_sleep_ms(50);
}

/* Each rejoin causes three log lines: joined, connection lost, gone. */
static void test_rejoins_do_not_fill_the_log(void **state) {
    (void)state;
    char name[] = "/tmp/coppice-log-XXXXXX", c;
    const int saved = dup(STDERR_FILENO), file = mkstemp(name);
    assert_true(file >= 0 && saved >= 0);
    unlink(name);
    dup2(file, STDERR_FILENO);
    cop_log_configure(COP_LOG_INFO, false);
    rejoin(60);
    cop_log_configure(COP_LOG_NONE, false);
    dup2(saved, STDERR_FILENO);
    close(saved);
    int lines = 0;
    for (off_t at = 0; pread(file, &c, 1, at) == 1; at++) lines += c == '\n';
    close(file);
    /* In a period of ten seconds, ten lines of each kind are written, and then one line of each
     * kind with the number of the others. A slow machine may need a second period. */
    assert_in_range(lines, 3, 2 * 3 * 11);
}

/* Joins as a worker called `name`, and leaves again. Returns true if the coordinator refuses the
 * name with these `words` or, if they are NULL, gives it. */
static bool has_answer(const char *url, const char *stem, const char *name, const char *words) {
    connection d;
    cop_message m, reply = {0};
    open_connection(&d, url, "ours", stem, "worker");
    make_hello(&m, good_token);
    snprintf(m.hello.name, sizeof m.hello.name, "%s", name);
    assert_true(ask(&d, false, true, &m, &reply));
    assert_int_equal(reply.type, words ? COP_MESSAGE_FAILURE : COP_MESSAGE_WELCOME);
    const bool good = words ? strstr(reply.failure.text, words) != NULL
                            : strcmp(reply.welcome.name, *name ? name : "worker") == 0;
    if (words && !good) fprintf(stderr, "%s\n", reply.failure.text);
    cop_message_fini(&reply);
    close_connection(&d);
    return good;
}

/* A name is free again when the session that had it has ended, so this tries for 5 s. */
static void check_name(const char *url, const char *stem, const char *name, const char *words) {
    int tries = 250;
    while (!has_answer(url, stem, name, words) && --tries > 0) cop_clock_sleep_ms(20);
    assert_true(tries > 0);
}

static void test_worker_name_is_that_of_its_certificate(void **state) {
    (void)state;
    make_tokens();
    check_name(w.urls[0], "worker", "worker", NULL);
    check_name(w.urls[0], "worker", "", NULL);
    check_name(w.urls[0], "worker", "desk-7",
               "the certificate is for the worker called \"worker\", not \"desk-7\"");
    check_name(w.urls[0], "many", "lab-7", NULL);
    check_name(w.urls[0], "many", "labour",
               "the certificate is for workers called \"lab-...\", not \"labour\"");
    check_name(w.urls[1], NULL, "desk-7", NULL);
    check_name(w.urls[1], NULL, "desk\033[2J", "control characters");
    check_name(w.urls[1], NULL, "two\nlines", "control characters");
}

static void test_token_file_is_private(void **state) {
    (void)state;
    struct stat status;
    char path[256];
    snprintf(path, sizeof path, "%s/token", w.state);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_on_every_socket_needs_credentials),
        cmocka_unit_test(test_no_other_socket_listens),
        cmocka_unit_test(test_session_works_only_with_its_certificate),
        cmocka_unit_test(test_no_identity_can_use_all_sessions),
        cmocka_unit_test(test_no_identity_can_use_all_watches),
        cmocka_unit_test(test_rejoins_do_not_fill_the_log),
        cmocka_unit_test(test_worker_name_is_that_of_its_certificate),
        cmocka_unit_test(test_token_file_is_private),
    };
    return cmocka_run_group_tests_name("access", tests, start_coordinator, stop_coordinator);
}
