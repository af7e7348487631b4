/* The client side of tcp:// and tls+tcp://: keeps one connection to the coordinator, and connects
 * again whenever it is lost. An attempt resolves the name (resolve.c) and tries the addresses in
 * turn. Each phase has a deadline, so if the coordinator or the name server hangs, the next attempt
 * follows within seconds.
 *
 * nng does not connect itself, because it aborts when a socket is closed while it resolves a name
 * (nanomsg/nng#2110), does not report why there is no connection, and does not notice a peer that
 * uses the other scheme. With TLS, tls_pump.c takes over the connection. Without TLS, nng gets the
 * socket after the peer has sent the first byte of SP's greeting. Every coordinator sends it at
 * once. */
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   1000
#define SETTLED_MS       1000  /* a connection that lasted longer was good: reset the back-off */
#define CONNECT_FIRST_MS 1000  /* deadline per address, except the last; doubled each round */
#define CONNECT_MAX_MS   10000 /* deadline for the last address */
/* A peer that has sent no greeting by then is probed for TLS. Doubled, up to CONNECT_MAX_MS, if it
 * turns out to be slow. */
#define GREETING_MS 1000
#define PIPE_MS     3000 /* for nng to open the socket that it was given */
#define RESOLVE_MS  1000 /* then a slow name server is reported */

/* CONNECTING, then (without TLS) WAITING for the greeting and, if none arrives, PROBING for TLS. */
typedef enum attempt_phase { CONNECTING, WAITING, PROBING } attempt_phase;

/* An attempt to connect to one address. */
typedef struct attempt {
    uv_poll_t poll;
    net_dialer *dialer;
    int fd;
    attempt_phase phase;
} attempt;

struct net_dialer {
    tls_loop loop;
    const cop_tls *tls; /* NULL: tcp:// */
    net_dial_handler handler;
    void *owner;
    char url[320], host[256], port[8];
    uv_timer_t timer;           /* starts the next attempt, or ends a phase of this one */
    bool ready;                 /* the timer is initialized */
    net_resolution *resolution; /* NULL: none is running */
    struct addrinfo *addresses, *next_address; /* addresses of the host; the next one to try */
    attempt *current;                          /* NULL: none is running */
    bool all_absent; /* in this round, no program listened at any address so far */
    uint32_t backoff_ms, connect_ms, greeting_ms;
    uint64_t resolve_began_ns; /* 0: it was already reported as slow */
    uint64_t opened_ns;        /* when the connection opened; 0: none is open */
    uint32_t listener;         /* nng's listener of a connection without TLS; 0: none */
    uint32_t ended_listener;   /* nng's listener of an ended connection with TLS; 0: none */
    uint64_t ended_ns;
    atomic_uint adds, removes;            /* how many pipes nng has opened and lost */
    unsigned adds_before, removes_before; /* the same, when the connection opened */
};

static bool is_stopping(net_dialer *d) {
    return atomic_load(&d->loop.stopping);
}

/* ---- attempts ---- */

static void on_timer(uv_timer_t *timer);

static void on_poll_closed(uv_handle_t *handle) {
    cop_free(handle->data);
}

/* Ends the current attempt. Closes its socket and returns -1 or, if `keep`, returns the socket. */
static int drop_attempt(net_dialer *d, bool keep) {
    attempt *a = d->current;
    if (!a) return -1;
    int fd = a->fd;
    d->current = NULL;
    uv_timer_stop(&d->timer);
    uv_close((uv_handle_t *)&a->poll, on_poll_closed);
    if (!keep) close(fd);
    return keep ? fd : -1;
}

static uint32_t doubled(uint32_t ms, uint32_t limit) {
    return 2 * ms < limit ? 2 * ms : limit;
}

/* Reports the reason, and starts a new round after a back-off that doubles each time. */
static void retry_later(net_dialer *d, const char *reason, net_failure how) {
    COP_ASSERT(!d->current && !d->opened_ns);
    if (is_stopping(d)) return;
    if (*reason) d->handler.on_failed(d->owner, reason, how);
    if (d->addresses) freeaddrinfo(d->addresses);
    d->addresses = d->next_address = NULL;
    uv_timer_start(&d->timer, on_timer, d->backoff_ms, 0);
    d->backoff_ms = doubled(d->backoff_ms, BACKOFF_MAX_MS);
    d->connect_ms = doubled(d->connect_ms, CONNECT_MAX_MS);
}

/* The attempt failed: tries the next address of the host at once, or begins again. */
static void attempt_failed(net_dialer *d, const char *reason, net_failure how) {
    drop_attempt(d, false);
    if (is_stopping(d)) return;
    d->all_absent = d->all_absent && how == NET_ABSENT;
    if (d->next_address && how <= NET_ABSENT)
        uv_timer_start(&d->timer, on_timer, 0, 0);
    else
        retry_later(d, reason, how == NET_ABSENT && !d->all_absent ? NET_LATER : how);
}

/* The open connection was lost. */
static void connection_lost(net_dialer *d, const char *reason, net_failure how) {
    COP_ASSERT(d->opened_ns && !d->listener);
    bool settled = cop_clock_ns() - d->opened_ns > (uint64_t)SETTLED_MS * 1000000;
    d->opened_ns = 0;
    if (settled) d->backoff_ms = BACKOFF_FIRST_MS, d->connect_ms = CONNECT_FIRST_MS;
    retry_later(d, reason, how);
}

/* ---- connections with TLS ---- */

/* Releases nng's listener of the last TLS connection, and with it the pipe. nng may still be
 * reading the last bytes, so this waits until nng has lost the pipe, or for PIPE_MS. */
static void release_ended(net_dialer *d, bool at_once) {
    if (!d->ended_listener) return;
    if (!at_once && atomic_load(&d->removes) == d->removes_before &&
        cop_clock_ns() - d->ended_ns < (uint64_t)PIPE_MS * 1000000)
        return;
    net_nng_release(d->ended_listener);
    d->ended_listener = 0;
}

static bool on_open(void *owner, tls_conn *conn, int fd) {
    net_dialer *d = owner;
    COP_ASSERT(!d->opened_ns && !d->listener);
    release_ended(d, true);
    d->opened_ns = cop_clock_ns();
    d->removes_before = atomic_load(&d->removes);
    conn->listener = d->handler.on_open(d->owner, fd);
    return conn->listener != 0;
}

static void on_end(void *owner, tls_conn *conn, const char *reason, bool refused) {
    net_dialer *d = owner;
    char text[700];
    net_failure how = refused ? NET_REFUSED : NET_LATER;
    if (conn->listener) {
        release_ended(d, true);
        d->ended_listener = conn->listener;
        d->ended_ns = cop_clock_ns();
    }
    if (conn->other_scheme) {
        how = NET_OTHER_SCHEME;
        snprintf(text, sizeof text,
                 "the coordinator at %s:%s speaks tcp://, without TLS: use %s instead of %s",
                 d->host, d->port, d->url + strlen("tls+"), d->url);
        reason = text;
    }
    if (d->opened_ns)
        connection_lost(d, reason, how);
    else
        attempt_failed(d, reason, how);
}

/* ---- connections without TLS ---- */

/* The peer speaks SP: gives the connection to nng. */
static void hand_over(net_dialer *d) {
    COP_ASSERT(!d->tls && d->current->phase == WAITING);
    int fd = drop_attempt(d, true);
    d->adds_before = atomic_load(&d->adds);
    d->removes_before = atomic_load(&d->removes);
    d->opened_ns = cop_clock_ns();
    d->listener = d->handler.on_open(d->owner, fd);
    if (d->listener) return;
    close(fd);
    d->opened_ns = 0;
    retry_later(d, "out of memory or file descriptors", NET_LATER);
}

/* Begins again if nng has lost the connection, or did not open it in time. */
static void check_pipe(net_dialer *d) {
    if (!d->listener) return;
    bool gone = atomic_load(&d->removes) != d->removes_before;
    bool never = atomic_load(&d->adds) == d->adds_before &&
                 cop_clock_ns() - d->opened_ns > (uint64_t)PIPE_MS * 1000000;
    if (!gone && !never) return;
    net_nng_release(d->listener);
    d->listener = 0;
    connection_lost(d, never ? "the coordinator closed the connection at once" : "", NET_LATER);
}

static void reject_tls_peer(net_dialer *d) {
    char text[700];
    snprintf(text, sizeof text,
             "the coordinator at %s:%s speaks tls+tcp://: use tls+%s, with certificates (--tls-dir "
             "DIR), instead of %s",
             d->host, d->port, d->url, d->url);
    attempt_failed(d, text, NET_OTHER_SCHEME);
}

/* The greeting arrived after the probe, which has already sent our own greeting, so the connection
 * is useless. The next attempt waits longer for the greeting, because the peer may always be this
 * slow. */
static void reject_slow_peer(net_dialer *d) {
    d->greeting_ms = doubled(d->greeting_ms, CONNECT_MAX_MS);
    attempt_failed(d, "the coordinator was slow to answer", NET_LATER);
}

/* Reads the peer's first byte: 0 begins SP's greeting, 0x15 an alert of TLS. */
static void read_first_byte(net_dialer *d) {
    unsigned char first = 0;
    ssize_t n = recv(d->current->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0)
        attempt_failed(d, "the coordinator closed the connection at once", NET_LATER);
    else if (first == 0x15)
        reject_tls_peer(d);
    else if (first != 0)
        attempt_failed(d, "the program that listens there is not a coordinator", NET_LATER);
    else if (d->current->phase == WAITING)
        hand_over(d);
    else
        reject_slow_peer(d);
}

/* Finds out whether the silent peer speaks TLS. A TLS server waits for its client to begin, and
 * answers SP's greeting with an alert. */
static void probe(net_dialer *d) {
    static const unsigned char greeting[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    COP_ASSERT(d->current->phase == WAITING);
    d->current->phase = PROBING;
    if (send(d->current->fd, greeting, sizeof greeting, MSG_NOSIGNAL | MSG_DONTWAIT) <= 0)
        attempt_failed(d, "the coordinator closed the connection at once", NET_LATER);
    else
        uv_timer_start(&d->timer, on_timer, TLS_HANDSHAKE_MS - GREETING_MS, 0);
}

/* ---- connecting ---- */

static void on_event(uv_poll_t *poll, int status, int events);

static void on_connected(net_dialer *d) {
    int number = 0;
    socklen_t size = sizeof number;
    attempt *a = d->current;
    if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &number, &size)) number = errno;
    if (number) {
        attempt_failed(d, strerror(number), number == ETIMEDOUT ? NET_LATER : NET_ABSENT);
    } else if (d->tls) {
        if (!net_tls_conn_create(&d->loop, d->tls, drop_attempt(d, true), d->host, d->url))
            attempt_failed(d, "out of memory", NET_LATER);
    } else {
        a->phase = WAITING;
        uv_timer_start(&d->timer, on_timer, d->greeting_ms, 0);
        uv_poll_start(&a->poll, UV_READABLE, on_event);
    }
}

static void on_event(uv_poll_t *poll, int status, int events) {
    const attempt *a = poll->data;
    net_dialer *d = a->dialer;
    (void)events;
    if (d->current != a) return;
    if (a->phase == CONNECTING)
        on_connected(d);
    else if (status < 0)
        attempt_failed(d, "the coordinator closed the connection at once", NET_LATER);
    else
        read_first_byte(d);
}

static void connect_to(net_dialer *d, const struct addrinfo *address) {
    COP_ASSERT(!d->current && !d->opened_ns);
    attempt *a = cop_alloc(sizeof *a);
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) net_set_tcp_options(fd);
    bool under_way =
        a && fd >= 0 &&
        (connect(fd, address->ai_addr, address->ai_addrlen) == 0 || errno == EINPROGRESS);
    if (!under_way) {
        int number = a ? errno : ENOMEM;
        if (fd >= 0) close(fd);
        cop_free(a);
        attempt_failed(d, strerror(number), fd < 0 || number == ENOMEM ? NET_LATER : NET_ABSENT);
        return;
    }
    *a = (attempt){.dialer = d, .fd = fd};
    uv_poll_init(&d->loop.loop, &a->poll, fd);
    a->poll.data = a;
    d->current = a;
    uv_timer_start(&d->timer, on_timer, d->next_address ? d->connect_ms : CONNECT_MAX_MS, 0);
    uv_poll_start(&a->poll, UV_WRITABLE, on_event);
}

/* ---- addresses ---- */

static void on_resolved(net_dialer *d, int status, struct addrinfo *addresses) {
    COP_ASSERT(!d->addresses && (status || addresses));
    d->resolution = NULL;
    if (status) {
        char reason[400];
        snprintf(reason, sizeof reason, "cannot resolve %.150s (%s)", d->host,
                 gai_strerror(status));
        retry_later(d, reason, status == EAI_NONAME ? NET_ABSENT : NET_LATER);
        return;
    }
    d->addresses = d->next_address = addresses;
    d->all_absent = true;
    on_timer(&d->timer);
}

static void check_resolution(net_dialer *d) {
    int status;
    struct addrinfo *addresses;
    if (!d->resolution) return;
    if (net_resolve_take(d->resolution, &status, &addresses)) {
        on_resolved(d, status, addresses);
    } else if (d->resolve_began_ns &&
               cop_clock_ns() - d->resolve_began_ns > (uint64_t)RESOLVE_MS * 1000000) {
        char reason[400];
        d->resolve_began_ns = 0;
        snprintf(reason, sizeof reason, "the name server has not yet answered for %.150s", d->host);
        d->handler.on_failed(d->owner, reason, NET_LATER);
    }
}

/* Starts the next attempt, or ends a phase of the current one that took too long. */
static void on_timer(uv_timer_t *timer) {
    net_dialer *d = timer->data;
    if (d->current && d->current->phase == WAITING) {
        probe(d);
    } else if (d->current) {
        attempt_failed(d,
                       d->current->phase == CONNECTING ? "no answer to the connection request"
                                                       : "it was silent during the handshake",
                       NET_LATER);
    } else if (d->next_address) {
        const struct addrinfo *address = d->next_address;
        d->next_address = address->ai_next;
        connect_to(d, address);
    } else {
        d->resolve_began_ns = cop_clock_ns();
        d->resolution = net_resolve_begin(&d->loop, d->host, d->port);
        if (d->resolution)
            check_resolution(d);
        else
            retry_later(d, "out of memory", NET_LATER);
    }
}

/* ---- life ---- */

static void on_tick(void *owner) {
    net_dialer *d = owner;
    check_resolution(d);
    check_pipe(d);
    release_ended(d, false);
    if (d->ready) return;
    d->ready = true;
    uv_timer_init(&d->loop.loop, &d->timer);
    d->timer.data = d;
    on_timer(&d->timer);
}

static void on_stop(void *owner) {
    net_dialer *d = owner;
    net_resolve_abandon(d->resolution);
    d->resolution = NULL;
    if (!d->ready) return;
    drop_attempt(d, false);
    uv_close((uv_handle_t *)&d->timer, NULL);
}

cop_err net_dial_start(const cop_tls *tls, const char *url, const net_dial_handler *handler,
                       void *owner, net_dialer **out, cop_error *error) {
    static const tls_handler loop_handler = {
        .on_open = on_open, .on_end = on_end, .on_tick = on_tick, .on_stop = on_stop};
    COP_ASSERT(handler->on_open && handler->on_failed && (tls || !cop_url_is_tls(url)));
    net_dialer *d = cop_alloc(sizeof *d);
    if (!d) return cop_no_memory(error);
    d->tls = cop_url_is_tls(url) ? tls : NULL;
    d->handler = *handler;
    d->owner = owner;
    d->backoff_ms = BACKOFF_FIRST_MS;
    d->connect_ms = CONNECT_FIRST_MS;
    d->greeting_ms = GREETING_MS;
    snprintf(d->url, sizeof d->url, "%s", url);
    net_split_url(url, d->host, d->port);
    *out = d; /* set before the first pipe, so that net_dial_note counts it */
    cop_err e = net_tls_loop_start(&d->loop, &loop_handler, d, error);
    if (e) {
        *out = NULL;
        cop_free(d);
    }
    return e;
}

void net_dial_note(net_dialer *d, bool gone) {
    atomic_fetch_add(gone ? &d->removes : &d->adds, 1);
    net_tls_loop_wake(&d->loop);
}

void net_dial_stop(net_dialer *d, uint64_t linger_ms) {
    net_tls_loop_begin_stop(&d->loop, linger_ms);
    net_tls_loop_stop(&d->loop);
    if (d->addresses) freeaddrinfo(d->addresses);
    cop_free(d);
}
