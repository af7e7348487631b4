/* Connections on a loop thread. A connection does the handshake, and then passes bytes in both
 * directions between the peer (through OpenSSL) and nng (through a socket pair). Nothing blocks: if
 * a connection cannot continue, libuv polls its sockets until it can. In each direction it reads at
 * most one buffer ahead, so a receiver that is slow slows down only its own sender. Each connection
 * that is not open has a deadline. See tls_internal.h. */
#include "common/net/tls_internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"

#define TLS_BUFFER_SIZE 65536
#define PAIR_BYTES      (1 << 20) /* size of the send buffers of the socket pair */
#define ROUNDS_MAX      8 /* buffers moved in one direction before other connections get a turn */
#define GREETING        8 /* bytes of the greeting that begins an SP connection */

/* ---- lists ---- */

static void list_add(tls_list *list, tls_conn *conn) {
    conn->previous = list->last;
    conn->next = NULL;
    if (list->last)
        list->last->next = conn;
    else
        list->first = conn;
    list->last = conn;
    list->count++;
}

static void list_remove(tls_list *list, tls_conn *conn) {
    COP_ASSERT(list->count > 0 && (conn->previous || list->first == conn));
    *(conn->previous ? &conn->previous->next : &list->first) = conn->next;
    *(conn->next ? &conn->next->previous : &list->last) = conn->previous;
    list->count--;
}

static tls_list *list_of(tls_conn *conn) {
    return conn->state == TLS_OPEN ? &conn->loop->open : &conn->loop->waiting;
}

static void set_deadline(tls_conn *conn, uint64_t deadline_ns) {
    const uint64_t end_ns = atomic_load(&conn->loop->end_ns);
    conn->deadline_ns = deadline_ns < end_ns ? deadline_ns : end_ns;
}

static void move_to(tls_conn *conn, tls_state state, uint64_t ms) {
    COP_ASSERT(conn->state < state && state < TLS_ENDED);
    list_remove(list_of(conn), conn);
    conn->state = state;
    set_deadline(conn, cop_clock_ns() + ms * 1000000);
    list_add(list_of(conn), conn);
}

void net_tls_conn_begin_close(tls_conn *conn) {
    move_to(conn, TLS_CLOSING, TLS_LINGER_MS);
}

/* ---- the end of a connection ---- */

static void on_handle_closed(uv_handle_t *handle) {
    tls_conn *conn = handle->data;
    COP_ASSERT(conn->state == TLS_ENDED && conn->handles > 0);
    if (--conn->handles) return;
    cop_free(conn->in.bytes);
    cop_free(conn->out.bytes);
    cop_free(conn);
}

void net_tls_conn_end(tls_conn *conn, const char *reason, bool refused) {
    if (conn->state == TLS_ENDED) return;
    const bool reported = conn->state == TLS_LINGERING;
    list_remove(list_of(conn), conn);
    conn->state = TLS_ENDED;
    if (!reported) conn->loop->handler.on_end(conn->loop->owner, conn, reason, refused);
    if (!reported) SSL_shutdown(conn->ssl); /* once, without waiting for the peer's reply */
    SSL_free(conn->ssl);
    ERR_clear_error();
    uv_close((uv_handle_t *)&conn->fd_poll, on_handle_closed);
    if (conn->local >= 0) uv_close((uv_handle_t *)&conn->local_poll, on_handle_closed);
    close(conn->fd);
    if (conn->local >= 0) close(conn->local);
}

/* Ends the connection. The reason is the failure that OpenSSL has just reported. */
static void end_with_error(tls_conn *conn) {
    char reason[400];
    bool refused = net_tls_explain(&conn->verdict, conn->error_number, reason, sizeof reason);
    net_tls_conn_end(conn, reason, refused);
}

/* ---- bytes ---- */

/* The result of moving bytes:
 *  - MOVED: they were moved.
 *  - BLOCKED: nothing more can be moved before a poll reports an event.
 *  - PEER_CLOSED: the peer has closed the connection, or it was lost.
 *  - NNG_CLOSED: nng has closed its end of the socket pair.
 *  - FAILED: OpenSSL has reported another failure. */
typedef enum progress { MOVED, BLOCKED, PEER_CLOSED, NNG_CLOSED, FAILED } progress;

/* Interprets the result of an OpenSSL operation that did not succeed. If the operation is blocked,
 * adds the event that it waits for to *events. */
static progress check_ssl(tls_conn *conn, int result, int *events) {
    int number = errno;
    switch (SSL_get_error(conn->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        *events |= UV_READABLE;
        return BLOCKED;
    case SSL_ERROR_WANT_WRITE:
        *events |= UV_WRITABLE;
        return BLOCKED;
    case SSL_ERROR_ZERO_RETURN:
        return PEER_CLOSED;
    case SSL_ERROR_SYSCALL: /* an end without close_notify is allowed: frames have lengths and
                               hashes */
        conn->error_number = number;
        return PEER_CLOSED;
    default:
        return ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? PEER_CLOSED
                                                                                      : FAILED;
    }
}

static bool is_empty(const tls_stream *s) {
    return s->begin == s->end;
}

/* Fills the empty buffer `in` with bytes from the peer, until it is full or no bytes are left. */
static progress fill_in(tls_conn *conn, int *fd_events) {
    tls_stream *s = &conn->in;
    s->begin = s->end = 0;
    progress how = MOVED;
    while (how == MOVED && s->end < TLS_BUFFER_SIZE) {
        ERR_clear_error();
        errno = 0;
        int n = SSL_read(conn->ssl, s->bytes + s->end, (int)(TLS_BUFFER_SIZE - s->end));
        if (n > 0)
            s->end += (size_t)n;
        else
            how = check_ssl(conn, n, fd_events);
    }
    if (conn->greeted < GREETING) conn->greeted += (unsigned)s->end;
    return how;
}

static progress check_local(ssize_t n, int event, int *events) {
    if (n > 0) return MOVED;
    bool again = n < 0 && (errno == EAGAIN || errno == EINTR);
    if (again) *events |= event;
    return again ? BLOCKED : NNG_CLOSED;
}

static progress flush_in(tls_conn *conn, int *local_events) {
    tls_stream *s = &conn->in;
    while (!is_empty(s)) {
        ssize_t n =
            send(conn->local, s->bytes + s->begin, s->end - s->begin, MSG_NOSIGNAL | MSG_DONTWAIT);
        progress how = check_local(n, UV_WRITABLE, local_events);
        if (how != MOVED) return how;
        s->begin += (size_t)n;
    }
    return MOVED;
}

/* Advances the position in the bytes of an SP connection by the next `size` bytes. */
static void follow_frames(tls_frames *f, const unsigned char *bytes, size_t size) {
    COP_ASSERT(f->head_size < sizeof f->head);
    while (size) {
        if (f->body_left) {
            const size_t part = f->body_left < size ? (size_t)f->body_left : size;
            f->body_left -= part;
            bytes += part;
            size -= part;
            continue;
        }
        f->head[f->head_size++] = *bytes++;
        size--;
        if (f->head_size < sizeof f->head) continue;
        for (int i = 0; f->greeted && i < 8; i++) f->body_left = f->body_left << 8 | f->head[i];
        f->greeted = true;
        f->head_size = 0;
    }
}

static progress fill_out(tls_conn *conn, int *local_events) {
    tls_stream *s = &conn->out;
    COP_ASSERT(is_empty(s)); /* otherwise bytes that are not sent yet would be lost */
    ssize_t n = recv(conn->local, s->bytes, TLS_BUFFER_SIZE, MSG_DONTWAIT);
    s->begin = 0;
    s->end = n > 0 ? (size_t)n : 0;
    follow_frames(&conn->sent, s->bytes, s->end);
    return check_local(n, UV_READABLE, local_events);
}

static progress flush_out(tls_conn *conn, int *fd_events) {
    tls_stream *s = &conn->out;
    while (!is_empty(s)) {
        ERR_clear_error();
        int n = SSL_write(conn->ssl, s->bytes + s->begin, (int)(s->end - s->begin));
        if (n <= 0) return check_ssl(conn, n, fd_events);
        s->begin += (size_t)n;
    }
    return MOVED;
}

/* Moves bytes from the peer to nng until something blocks. */
static progress move_in(tls_conn *conn, int *fd_events, int *local_events) {
    for (int round = 0; round < ROUNDS_MAX; round++) {
        progress filled = MOVED, how;
        if (is_empty(&conn->in)) filled = fill_in(conn, fd_events);
        how = flush_in(conn, local_events);
        if (how != MOVED) return how;
        if (filled != MOVED) return filled;
    }
    conn->again = true; /* not a poll: OpenSSL may hold bytes that the socket no longer has */
    return MOVED;
}

/* Reads and discards what the peer still sends. If a socket is closed while it has unread bytes,
 * the connection is reset, and the last bytes that we sent could be lost. */
static progress discard_in(tls_conn *conn, int *fd_events) {
    for (int round = 0; round < ROUNDS_MAX; round++) {
        progress how = fill_in(conn, fd_events);
        if (how != MOVED) return how;
    }
    conn->again = true;
    return MOVED;
}

/* Moves bytes from nng to the peer until something blocks. */
static progress move_out(tls_conn *conn, int *fd_events, int *local_events) {
    for (int round = 0; round < ROUNDS_MAX; round++) {
        progress how = MOVED;
        if (is_empty(&conn->out)) how = fill_out(conn, local_events);
        if (how == MOVED) how = flush_out(conn, fd_events);
        if (how != MOVED) return how;
    }
    conn->again = true;
    return MOVED;
}

/* ---- polling ---- */

static void on_event(uv_poll_t *poll, int status, int events);

static void poll_for(uv_poll_t *poll, int *now, int wanted) {
    if (*now == wanted) return;
    *now = wanted;
    if (wanted)
        uv_poll_start(poll, wanted, on_event);
    else
        uv_poll_stop(poll);
}

static void resume(uv_idle_t *idle);

/* Called when everything is sent: calls on_end, and closes our direction of the connection. The
 * socket stays open until the peer's machine has acknowledged all bytes. */
static void linger(tls_conn *conn) {
    COP_ASSERT(conn->state < TLS_LINGERING); /* on_end is called once */
    conn->loop->handler.on_end(conn->loop->owner, conn, "", false);
    move_to(conn, TLS_LINGERING, TLS_LINGER_MS);
    SSL_shutdown(conn->ssl);
    ERR_clear_error();
    shutdown(conn->fd, SHUT_WR);
}

static bool is_acknowledged(const tls_conn *conn) {
    int unacknowledged = 0;
    return ioctl(conn->fd, SIOCOUTQ, &unacknowledged) != 0 || unacknowledged == 0;
}

/* True: all bytes that were read from nng are sent, and their last message is complete. */
static bool is_flushed(const tls_conn *conn) {
    return is_empty(&conn->out) && !conn->sent.body_left && !conn->sent.head_size;
}

/* Moves the bytes that can be moved, in both directions. Returns MOVED if the connection continues,
 * or the reason why it must end. */
static progress move_both(tls_conn *conn, int *fd_events, int *local_events) {
    progress in = MOVED, out = MOVED;
    if (conn->state < TLS_CLOSING) in = move_in(conn, fd_events, local_events);
    if (in == NNG_CLOSED) net_tls_conn_begin_close(conn);
    if (conn->state >= TLS_CLOSING) in = discard_in(conn, fd_events);
    if (in == PEER_CLOSED || in == FAILED) return in;
    if (conn->state < TLS_LINGERING) out = move_out(conn, fd_events, local_events);
    const bool stopped = conn->state == TLS_CLOSING && atomic_load(&conn->loop->stopping);
    if (out == BLOCKED && stopped && is_flushed(conn)) return NNG_CLOSED;
    return out == BLOCKED ? MOVED : out;
}

void net_tls_conn_pump(tls_conn *conn) {
    int fd_events = 0, local_events = 0;
    COP_ASSERT(conn->state > TLS_HANDSHAKE && conn->state < TLS_ENDED);
    conn->again = false;
    const progress how = move_both(conn, &fd_events, &local_events);
    if (how == FAILED) {
        end_with_error(conn);
        return;
    }
    if (how == NNG_CLOSED) {
        linger(conn);
        fd_events = UV_READABLE;
        local_events = 0;
    }
    if (how == PEER_CLOSED || (conn->state == TLS_LINGERING && is_acknowledged(conn))) {
        net_tls_conn_end(conn, "", false);
        return;
    }
    if (conn->state == TLS_GREETING && conn->greeted >= GREETING) move_to(conn, TLS_OPEN, 0);
    if (conn->state < TLS_CLOSING) local_events |= UV_DISCONNECT;
    poll_for(&conn->fd_poll, &conn->fd_events, fd_events);
    poll_for(&conn->local_poll, &conn->local_events, local_events);
    if (conn->again) uv_idle_start(&conn->loop->resume, resume);
}

/* Continues the connections that stopped only to give others a turn. */
static void resume(uv_idle_t *idle) {
    tls_loop *loop = idle->data;
    uv_idle_stop(idle);
    tls_list *const lists[] = {&loop->open, &loop->waiting};
    for (int i = 0; i < 2; i++) {
        for (tls_conn *c = lists[i]->first, *next; c; c = next) {
            next = c->next;
            if (c->again) net_tls_conn_pump(c);
        }
    }
}

/* ---- the handshake ---- */

/* Called when the handshake is done: checks the peer's name, and gives nng one end of a socket
 * pair. */
static void open_conn(tls_conn *conn) {
    int pair[2];
    const int size = PAIR_BYTES;
    COP_ASSERT(conn->state == TLS_HANDSHAKE && conn->local < 0);
    if (!net_tls_peer(conn->ssl, &conn->peer, &conn->verdict)) {
        net_tls_conn_end(conn, conn->verdict.text, true);
        return;
    }
    conn->in.bytes = cop_alloc_raw(TLS_BUFFER_SIZE);
    conn->out.bytes = cop_alloc_raw(TLS_BUFFER_SIZE);
    if (!conn->in.bytes || !conn->out.bytes ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
        net_tls_conn_end(conn, "out of memory or file descriptors", false);
        return;
    }
    for (int i = 0; i < 2; i++) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    conn->local = pair[0];
    uv_poll_init(&conn->loop->loop, &conn->local_poll, pair[0]);
    conn->local_poll.data = conn;
    conn->handles++;
    if (!conn->loop->handler.on_open(conn->loop->owner, conn, pair[1])) {
        close(pair[1]);
        net_tls_conn_end(conn, "too many connections", false);
        return;
    }
    conn->state = TLS_GREETING; /* in the same list, with the same deadline */
    net_tls_conn_pump(conn);
}

/* Sends the fatal alert protocol_version of TLS (RFC 5246, 7.2) to a peer that does not use TLS.
 * Its first byte shows the peer's dial.c that we speak TLS. Reads the peer's greeting first: if a
 * socket is closed while it has unread bytes, the connection is reset, and the alert could be
 * lost. */
static void send_tls_alert(int fd) {
    static const unsigned char alert[] = {0x15, 3, 1, 0, 2, 2, 70};
    unsigned char greeting[64];
    if (recv(fd, greeting, sizeof greeting, MSG_DONTWAIT) > 0)
        (void)!send(fd, alert, sizeof alert, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Called by OpenSSL before each read of the socket. Looks at the peer's first three bytes, without
 * taking them: an SP greeting instead of a TLS record shows that the peer does not use TLS. OpenSSL
 * must not read before this is known, because it would take the greeting, which may arrive at any
 * moment. */
static long check_first_bytes(BIO *bio, int operation, const char *data, size_t size, int argi,
                              long argl, int result, size_t *processed) {
    tls_conn *conn = (tls_conn *)(void *)BIO_get_callback_arg(bio);
    unsigned char first[3];
    (void)data, (void)size, (void)argi, (void)argl, (void)processed;
    if (operation != BIO_CB_READ || conn->heard) return result;
    const ssize_t n = recv(conn->fd, first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_read(bio);
        return -1;
    }
    conn->heard = true;
    conn->other_scheme = n == sizeof first && memcmp(first, "\0SP", sizeof first) == 0;
    return conn->other_scheme ? 0 : result;
}

static void shake_hands(tls_conn *conn) {
    int events = 0;
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(conn->ssl);
    if (result == 1) {
        open_conn(conn);
        return;
    }
    if (conn->other_scheme) {
        if (SSL_is_server(conn->ssl)) send_tls_alert(conn->fd);
        net_tls_conn_end(conn, "it speaks tcp://, without TLS", false);
    } else if (check_ssl(conn, result, &events) == BLOCKED) {
        poll_for(&conn->fd_poll, &conn->fd_events, events);
    } else {
        end_with_error(conn);
    }
}

static void on_event(uv_poll_t *poll, int status, int events) {
    tls_conn *conn = poll->data;
    bool local = poll == &conn->local_poll;
    if (status < 0) *(local ? &conn->local_events : &conn->fd_events) = 0; /* the poll has ended */
    /* nng has closed its end of the socket pair. What it wrote before is still sent. */
    if (local && (events & UV_DISCONNECT) && conn->state < TLS_CLOSING)
        net_tls_conn_begin_close(conn);
    if (conn->state == TLS_HANDSHAKE)
        shake_hands(conn);
    else if (conn->state != TLS_ENDED)
        net_tls_conn_pump(conn);
}

tls_conn *net_tls_conn_create(tls_loop *loop, const cop_tls *tls, int fd, const char *host,
                              const char *address) {
    COP_ASSERT(fd >= 0);
    tls_conn *conn = cop_alloc(sizeof *conn);
    if (conn) conn->ssl = net_tls_create(tls, fd, host, &conn->verdict);
    if (!conn || !conn->ssl) {
        ERR_clear_error();
        cop_free(conn);
        close(fd);
        return NULL;
    }
    conn->loop = loop;
    conn->fd = fd;
    conn->local = -1;
    BIO_set_callback_ex(SSL_get_rbio(conn->ssl), check_first_bytes);
    BIO_set_callback_arg(SSL_get_rbio(conn->ssl), (char *)conn);
    snprintf(conn->address, sizeof conn->address, "%s", address);
    uv_poll_init(&loop->loop, &conn->fd_poll, fd);
    conn->fd_poll.data = conn;
    conn->handles = 1;
    conn->state = TLS_HANDSHAKE;
    set_deadline(conn, cop_clock_ns() + (uint64_t)TLS_HANDSHAKE_MS * 1000000);
    list_add(&loop->waiting, conn);
    shake_hands(conn); /* may end the connection, but its memory stays valid until the loop runs */
    return conn;
}
