/* The asking side: one connection to the coordinator, made again whenever it is lost. An attempt
 * resolves the name and tries one address after the other; connecting and handshake together have a
 * deadline, so a coordinator that freezes in between costs ten seconds, not the worker. */
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MOST_MS  1000
#define SETTLED_MS       1000 /* a connection that held so long was a good one */
#define KEEPALIVE_S      15
#define UNACKED_MS       30000 /* bytes that the peer's machine does not acknowledge */

struct tls_dialer {
    tls_loop loop;
    const cop_tls *tls;
    tls_dial_handler handler;
    void *owner;
    char url[320], host[256], port[8];
    uv_timer_t next;
    uv_getaddrinfo_t resolve;
    struct addrinfo *found, *address; /* of the host; the one to be tried next */
    bool ready, resolving;
    uint32_t backoff_ms;
    uint64_t opened_ns; /* 0: the handshake is not done */
};

static void attempt(uv_timer_t *timer);

static bool is_stopping(tls_dialer *d) {
    return atomic_load(&d->loop.stopping);
}

/* Tells why, waits, longer each time, and tries again. */
static void fail(tls_dialer *d, const char *reason, bool refused) {
    if (is_stopping(d)) return;
    if (*reason) d->handler.on_failed(d->owner, reason, refused);
    if (d->found) uv_freeaddrinfo(d->found);
    d->found = d->address = NULL;
    uv_timer_start(&d->next, attempt, d->backoff_ms, 0);
    d->backoff_ms = 2 * d->backoff_ms < BACKOFF_MOST_MS ? 2 * d->backoff_ms : BACKOFF_MOST_MS;
}

/* ---- connections ---- */

static bool on_open(void *owner, tls_conn *conn, int fd) {
    tls_dialer *d = owner;
    d->opened_ns = cop_clock_ns();
    conn->listener = d->handler.on_open(d->owner, fd);
    return conn->listener != 0;
}

static void on_end(void *owner, tls_conn *conn, const char *reason, bool refused) {
    tls_dialer *d = owner;
    bool opened = d->opened_ns != 0, settled = false;
    if (opened) settled = cop_clock_ns() - d->opened_ns > (uint64_t)SETTLED_MS * 1000000;
    d->opened_ns = 0;
    if (conn->listener) d->handler.on_end(d->owner, conn->listener);
    if (is_stopping(d)) return;
    if (settled) d->backoff_ms = BACKOFF_FIRST_MS;
    if (!opened && !refused && d->address)
        uv_timer_start(&d->next, attempt, 0, 0); /* the host's next address */
    else
        fail(d, reason, refused);
}

static void set_options(int fd) {
    const int on = 1, seconds = KEEPALIVE_S, unacked = UNACKED_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked, sizeof unacked);
}

/* The handshake's first bytes wait until the connection stands. */
static void connect_to(tls_dialer *d, const struct addrinfo *address) {
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) set_options(fd);
    bool under_way = fd >= 0 && (connect(fd, address->ai_addr, address->ai_addrlen) == 0 ||
                                 errno == EINPROGRESS);
    if (!under_way) {
        int number = errno;
        if (fd >= 0) close(fd);
        fail(d, strerror(number), false);
    } else if (!net_tls_conn_create(&d->loop, d->tls, fd, d->host, d->url)) {
        fail(d, "out of memory", false);
    }
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found) {
    tls_dialer *d = resolve->data;
    d->resolving = false;
    if (status) {
        char reason[300];
        snprintf(reason, sizeof reason, "%.150s cannot be resolved (%s)", d->host,
                 uv_strerror(status));
        fail(d, reason, false);
        return;
    }
    if (is_stopping(d)) {
        uv_freeaddrinfo(found);
        return;
    }
    d->found = d->address = found;
    attempt(&d->next);
}

static void attempt(uv_timer_t *timer) {
    tls_dialer *d = timer->data;
    if (d->address) {
        const struct addrinfo *address = d->address;
        d->address = address->ai_next;
        connect_to(d, address);
        return;
    }
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    d->resolve.data = d;
    d->resolving =
        uv_getaddrinfo(&d->loop.loop, &d->resolve, on_resolved, d->host, d->port, &hints) == 0;
    if (!d->resolving) fail(d, "out of memory", false);
}

/* ---- life ---- */

static void on_tick(void *owner) {
    tls_dialer *d = owner;
    if (d->ready) return;
    d->ready = true;
    uv_timer_init(&d->loop.loop, &d->next);
    d->next.data = d;
    attempt(&d->next);
}

static void on_stop(void *owner) {
    tls_dialer *d = owner;
    if (d->ready) uv_close((uv_handle_t *)&d->next, NULL);
    if (d->resolving) uv_cancel((uv_req_t *)&d->resolve);
}

cop_err net_tls_dial_start(const cop_tls *tls, const char *url, const tls_dial_handler *handler,
                           void *owner, tls_dialer **out, cop_error *error) {
    static const tls_handler loop_handler = {
        .on_open = on_open, .on_end = on_end, .on_tick = on_tick, .on_stop = on_stop};
    tls_dialer *d = cop_alloc(sizeof *d);
    if (!d) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    d->tls = tls;
    d->handler = *handler;
    d->owner = owner;
    d->backoff_ms = BACKOFF_FIRST_MS;
    snprintf(d->url, sizeof d->url, "%s", url);
    net_split_url(url, d->host, d->port);
    cop_err e = net_tls_loop_start(&d->loop, &loop_handler, d, error);
    if (e)
        cop_free(d);
    else
        *out = d;
    return e;
}

void net_tls_dial_stop(tls_dialer *d) {
    net_tls_loop_stop(&d->loop);
    if (d->found) uv_freeaddrinfo(d->found);
    cop_free(d);
}
