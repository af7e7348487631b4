/* The listener for tls+tcp://. It accepts connections, and gives them to nng after the handshake.
 *
 * It limits what strangers can cost us. Each of its two threads has at most half of
 * COP_HALF_OPEN_MAX connections that are not open, and each of these has a deadline of at most ten
 * seconds. When one more arrives, the oldest is closed. So a peer that completes its handshake
 * quickly gets through, even if many others are silent. Each open connection has its own listener
 * of nng, whose number identifies the sender of a message (nng_peers.c). */
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#define THREADS     2
#define BACKLOG     1024 /* of listen(2) */
#define ACCEPTS_MAX 32   /* how many connections are accepted before other events get their turn */

typedef struct acceptor_thread {
    tls_loop loop;
    tls_acceptor *acceptor;
    uv_poll_t accept[NET_ADDRESSES_MAX]; /* one poll for each listening socket */
    int accept_count;                    /* how many of these polls are initialized */
    bool accepting;                      /* the polls are running */
} acceptor_thread;

struct tls_acceptor {
    net_nng *nng;
    const cop_tls *tls;
    int fds[NET_ADDRESSES_MAX]; /* listening sockets, one for each address that was bound */
    int fd_count;
    acceptor_thread thread[THREADS];
    int threads; /* how many threads have been started */
};

/* ---- refused peers ---- */

static void report_refusal(const char *address, const char *reason) {
    cop_log_peer(COP_LOG_WARN, "tls", address, "%s: connection refused: %s", address, reason);
}

/* ---- connections ---- */

/* Adds the peer's row to the table of nng_peers.c, before the peer's first message can arrive. If
 * memory runs out, there is no row, and the peer's messages are ignored. */
static void add_peer(void *context, uint32_t listener) {
    tls_conn *conn = context;
    acceptor_thread *t = conn->loop->owner;
    COP_ASSERT(listener && !conn->listener);
    conn->listener = listener;
    net_peers_add(net_nng_peers(t->acceptor->nng), listener, &conn->peer, conn->address);
}

static bool on_open(void *owner, tls_conn *conn, int fd) {
    acceptor_thread *t = owner;
    if (net_nng_adopt(net_nng_socket(t->acceptor->nng), fd, add_peer, conn)) return true;
    if (conn->listener) net_peers_remove(net_nng_peers(t->acceptor->nng), conn->listener);
    conn->listener = 0;
    return false;
}

static void on_end(void *owner, tls_conn *conn, const char *reason, bool refused) {
    acceptor_thread *t = owner;
    (void)refused;
    if (conn->listener) {
        net_peers_remove(net_nng_peers(t->acceptor->nng), conn->listener);
        net_nng_release(conn->listener);
    }
    if (*reason) {
        net_nng_count_refused(t->acceptor->nng);
        report_refusal(conn->address, reason);
    }
}

/* ---- accepting ---- */

/* Closes the oldest connection that is not open. False: there is none. */
static bool close_oldest(acceptor_thread *t) {
    tls_conn *oldest = t->loop.waiting.first;
    if (oldest) net_tls_conn_end(oldest, "it was slow, and other connections wait", false);
    return oldest != NULL;
}

static void accept_connection(acceptor_thread *t, int fd) {
    char address[64];
    if (t->loop.waiting.count >= COP_HALF_OPEN_MAX / THREADS) close_oldest(t);
    net_describe_socket(fd, address);
    net_set_tcp_options(fd);
    net_tls_conn_create(&t->loop, t->acceptor->tls, fd, "", address);
}

static void on_acceptable(uv_poll_t *poll, int status, int events) {
    acceptor_thread *t = poll->data;
    (void)status, (void)events;
    COP_ASSERT(poll >= t->accept && poll < t->accept + t->accept_count);
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd =
            accept4(t->acceptor->fds[poll - t->accept], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accept_connection(t, fd);
            continue;
        }
        if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
            return; /* no connection is waiting, or the peer has already closed it */
        report_refusal("a peer", "no file descriptors are left (ulimit -n)");
        if (close_oldest(t)) continue;
        for (int k = 0; k < t->accept_count; k++) uv_poll_stop(&t->accept[k]);
        t->accepting = false; /* on_tick starts the polls again */
        return;
    }
}

static void on_tick(void *owner) {
    acceptor_thread *t = owner;
    for (; t->accept_count < t->acceptor->fd_count; t->accept_count++) {
        uv_poll_t *poll = &t->accept[t->accept_count];
        if (uv_poll_init(&t->loop.loop, poll, t->acceptor->fds[t->accept_count])) break;
        poll->data = t;
        t->accepting = false;
    }
    if (t->accepting) return;
    t->accepting = true;
    for (int i = 0; i < t->accept_count; i++)
        if (uv_poll_start(&t->accept[i], UV_READABLE, on_acceptable)) t->accepting = false;
}

static void on_stop(void *owner) {
    acceptor_thread *t = owner;
    for (int i = 0; i < t->accept_count; i++) uv_close((uv_handle_t *)&t->accept[i], NULL);
    t->accept_count = 0;
}

/* ---- life ---- */

/* Opens a socket that listens on the address. Returns -1 and errno on failure. */
static int bind_to(const struct sockaddr_storage *at, socklen_t size) {
    const int on = 1;
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* The host "*" resolves to 0.0.0.0 and [::]. Each of them has its own socket, so the IPv6
     * socket must not accept IPv4 connections. */
    if (at->ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)at, size) == 0 && listen(fd, BACKLOG) == 0) return fd;
    const int number = errno;
    close(fd);
    errno = number;
    return -1;
}

static cop_err explain_bind(int number, const char *url, cop_error *error) {
    if (number == EADDRINUSE)
        return cop_fail(error, COP_ERR_IN_USE,
                        "cannot listen on %s: the address is in use by another program", url);
    cop_fail_errno(error, number, "cannot listen on %s", url);
    return number == EACCES ? COP_ERR_DENIED : COP_ERR_INPUT;
}

/* Binds every address that the host in the URL resolves to. Skips addresses that this machine does
 * not have (::1 of localhost on a machine without IPv6). Fails only if this machine has none of the
 * addresses. */
static cop_err bind_all(tls_acceptor *acceptor, const char *url, cop_error *error) {
    net_addresses addresses;
    int absent = EADDRNOTAVAIL;
    COP_TRY(net_listen_addresses(url, &addresses, error));
    COP_ASSERT(addresses.count <= NET_ADDRESSES_MAX && !acceptor->fd_count);
    for (int i = 0; i < addresses.count; i++) {
        int fd = bind_to(&addresses.at[i], addresses.size[i]);
        if (fd >= 0)
            acceptor->fds[acceptor->fd_count++] = fd;
        else if (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT)
            absent = errno;
        else
            return explain_bind(errno, url, error);
    }
    return acceptor->fd_count ? COP_OK : explain_bind(absent, url, error);
}

cop_err net_tls_acceptor_start(net_nng *nng, const cop_tls *tls, const char *url,
                               tls_acceptor **out, cop_error *error) {
    static const tls_handler handler = {
        .on_open = on_open, .on_end = on_end, .on_tick = on_tick, .on_stop = on_stop};
    tls_acceptor *acceptor = cop_alloc(sizeof *acceptor);
    if (!acceptor) return cop_no_memory(error);
    acceptor->nng = nng;
    acceptor->tls = tls;
    cop_err e = bind_all(acceptor, url, error);
    for (; acceptor->threads < THREADS && !e; acceptor->threads += !e) {
        acceptor_thread *t = &acceptor->thread[acceptor->threads];
        t->acceptor = acceptor;
        e = net_tls_loop_start(&t->loop, &handler, t, error);
    }
    *out = acceptor;
    if (e) {
        *out = NULL;
        net_tls_acceptor_begin_stop(acceptor);
        net_tls_acceptor_stop(acceptor);
    }
    return e;
}

void net_tls_acceptor_begin_stop(tls_acceptor *acceptor) {
    for (int i = 0; i < acceptor->threads; i++)
        net_tls_loop_begin_stop(&acceptor->thread[i].loop, TLS_LINGER_MS);
}

void net_tls_acceptor_stop(tls_acceptor *acceptor) {
    for (int i = 0; i < acceptor->threads; i++) net_tls_loop_stop(&acceptor->thread[i].loop);
    for (int i = 0; i < acceptor->fd_count; i++) close(acceptor->fds[i]);
    cop_free(acceptor);
}
