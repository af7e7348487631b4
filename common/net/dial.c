/* The client side of tcp:// and tls+tcp://. It keeps one connection to the coordinator, and
 * connects again whenever the connection is lost. A round resolves the name of the host (resolve.c)
 * and tries the addresses one after the other. Each phase of an attempt has a deadline, so if the
 * coordinator hangs, the next attempt follows within seconds. A name server that hangs is reported.
 *
 * We do not let nng connect, for three reasons. It aborts when a socket is closed while it resolves
 * a name (nanomsg/nng#2110). It does not report why there is no connection. nng does not notice if
 * one side uses TLS and the other does not. With TLS, tls_pump.c takes over the connection. Without
 * TLS, nng gets the socket as soon as the peer has sent the first byte of SP's greeting, which
 * every coordinator sends at once. */
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

/* The pause before the next round. It doubles with each round, up to BACKOFF_MAX_MS. */
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   1000
/* After a connection that lasted longer than this, the back-off and the time to connect are
 * reset. */
#define SETTLED_MS 1000
/* How long to wait for one address to accept the connection, unless it is the last address. Doubles
 * with each round, up to CONNECT_MAX_MS. */
#define CONNECT_FIRST_MS 1000
#define CONNECT_MAX_MS   10000 /* how long to wait for the last address */
/* How long to wait for the greeting of the peer before it is probed for TLS. Doubles, up to
 * CONNECT_MAX_MS, each time that the greeting arrives later. */
#define GREETING_MS 1000
#define PIPE_MS     3000 /* how long nng may take to open or to lose a pipe */
#define RESOLVE_MS  1000 /* after this time, a slow name server is reported */

/* The phases of an attempt:
 *  - CONNECTING: TCP connects.
 *  - WAITING (only without TLS): connected, but SP's greeting has not arrived.
 *  - PROBING (only without TLS): no greeting came in time, and the probe for TLS was sent. */
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
    uv_timer_t timer;              /* starts the next attempt, or ends a phase of the current one */
    bool ready;                    /* the timer is initialized */
    net_resolution *resolution;    /* NULL: none is running */
    struct addrinfo *addresses;    /* addresses of the host; NULL: not resolved yet */
    struct addrinfo *next_address; /* the next of `addresses` to try; NULL: none is left */
    attempt *current;              /* NULL: none is running */
    bool all_absent;               /* in this round, no program listened at any address so far */
    uint32_t backoff_ms;           /* pause before the next round */
    uint32_t connect_ms;           /* time to connect to an address that is not the last */
    uint32_t greeting_ms;          /* time to wait for the greeting */
    uint64_t resolve_began_ns;     /* when `resolution` began; 0: its slowness has been reported */
    uint64_t opened_ns;            /* when the connection opened; 0: none is open */
    uint32_t listener;             /* nng's listener of the connection without TLS; 0: none */
    uint32_t ended_listener;       /* nng's listener of the last connection with TLS; 0: none */
    uint64_t ended_ns;             /* when the connection of ended_listener ended */
    atomic_uint adds;              /* how many pipes nng has opened */
    atomic_uint removes;           /* how many pipes nng has lost */
    unsigned adds_before;          /* `adds` when the connection opened (only without TLS) */
    unsigned removes_before;       /* `removes` when the connection opened */
};

static bool is_stopping(net_dialer *d) {
    return atomic_load(&d->loop.stopping);
}

/* ---- attempts ---- */

static void on_timer(uv_timer_t *timer);

static void on_poll_closed(uv_handle_t *handle) {
    cop_free(handle->data);
}

/* Ends the current attempt, if there is one. If `keep` is true, it returns the socket. Otherwise it
 * closes the socket and returns -1. */
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

/* Reports the reason, unless it is "", and starts a new round after a pause, which doubles each
 * time. */
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

/* Ends an attempt that failed. Tries the next address of the host at once. If no address is left,
 * or if another address would not help, a new round begins later. */
static void attempt_failed(net_dialer *d, const char *reason, net_failure how) {
    drop_attempt(d, false);
    if (is_stopping(d)) return;
    d->all_absent = d->all_absent && how == NET_ABSENT;
    if (d->next_address && how <= NET_ABSENT)
        uv_timer_start(&d->timer, on_timer, 0, 0);
    else
        retry_later(d, reason, how == NET_ABSENT && !d->all_absent ? NET_LATER : how);
}

/* The open connection was lost: a new round begins later. */
static void connection_lost(net_dialer *d, const char *reason, net_failure how) {
    COP_ASSERT(d->opened_ns && !d->listener);
    bool settled = cop_clock_ns() - d->opened_ns > (uint64_t)SETTLED_MS * 1000000;
    d->opened_ns = 0;
    if (settled) d->backoff_ms = BACKOFF_FIRST_MS, d->connect_ms = CONNECT_FIRST_MS;
    retry_later(d, reason, how);
}

/* ---- connections with TLS ---- */

/* Releases nng's listener, and the pipe, of the last TLS connection. nng may still be reading the
 * last bytes. So this does nothing before nng has lost the pipe or PIPE_MS have passed since the
 * connection ended, unless `at_once` is true. */
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

/* Gives the connection to nng, because the peer speaks SP without TLS. */
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

/* Begins a new round if nng has lost the connection, or did not open a pipe for it in time. */
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

/* Called if the peer's greeting arrives after the probe. The probe was already our greeting, and
 * nng would send a second one, so the connection cannot be used. The next attempt waits longer for
 * the greeting, because the peer may always be this slow. */
static void reject_slow_peer(net_dialer *d) {
    d->greeting_ms = doubled(d->greeting_ms, CONNECT_MAX_MS);
    attempt_failed(d, "the coordinator was slow to answer", NET_LATER);
}

/* Looks at the peer's first byte. It is 0 in SP's greeting, and 0x15 in an alert of TLS. */
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

/* Sends SP's greeting to a silent peer, to find out whether it speaks TLS. A TLS server waits for
 * its client to begin, and answers the greeting with an alert. */
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

/* If an attempt is running, its phase took too long: probes the peer, or ends the attempt.
 * Otherwise it starts an attempt with the next address or, if none is left, begins to resolve the
 * host. */
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
    *out = d; /* before the first pipe, because on_pipe passes *out to net_dial_note */
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
