/* Shared by the TLS files: credentials (tls.c), connections on a loop thread (tls_pump.c,
 * tls_loop.c), the server's listener (tls_listen.c), the client side (dial.c) and its name
 * resolution (resolve.c). */
#ifndef COP_NET_TLS_INTERNAL_H
#define COP_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <uv.h>

#include "common/net/tls.h"

#define TLS_HANDSHAKE_MS 10000 /* deadline of the handshake */
#define TLS_LINGER_MS    5000  /* for sending the last bytes of a connection that ends */

struct cop_tls {
    SSL_CTX *context;
    cop_tls_side side;
    cop_peer self;
    char name[256]; /* expected in the coordinator's certificate; "": the host of the URL */
};

/* Why the peer's certificate was not accepted. */
typedef struct tls_verdict {
    char text[400]; /* "": no fault */
} tls_verdict;

/* Creates the SSL state of a connection on `fd`, before the handshake. A client expects a
 * certificate for `host`; a server ignores it. A fault of the peer's certificate goes to *verdict,
 * which must outlive the result. NULL: out of memory. */
SSL *net_tls_create(const cop_tls *tls, int fd, const char *host, tls_verdict *verdict);
/* Gets the identity of the peer after the handshake. False: its certificate has no usable name, and
 * *verdict says so. */
bool net_tls_peer(SSL *ssl, cop_peer *out, tls_verdict *verdict);
/* Writes a sentence about the failure that OpenSSL has just reported on this thread; `number` is
 * the errno of a system call, or 0. True: a certificate was the reason, so another attempt cannot
 * help. Clears OpenSSL's error queue. */
bool net_tls_explain(const tls_verdict *verdict, int number, char *out, size_t size);

/* ---- tls_pump.c, tls_loop.c ---- */
typedef struct tls_loop tls_loop;
typedef struct tls_conn tls_conn;
typedef struct net_dialer net_dialer;

/* A buffer for one direction: bytes[begin, end) are still to be sent. */
typedef struct tls_stream {
    unsigned char *bytes; /* TLS_BUFFER_SIZE, while open */
    size_t begin, end;
} tls_stream;

/* GREETING: the handshake is done, but SP's first bytes have not arrived (nng has no deadline for
 * them). CLOSING: nng has closed its end, or the loop stops; bytes that nng wrote before are still
 * sent. LINGERING: everything is sent and on_end was called; the peer's machine has not
 * acknowledged all bytes yet. */
typedef enum tls_state {
    TLS_HANDSHAKE,
    TLS_GREETING,
    TLS_OPEN,
    TLS_CLOSING,
    TLS_LINGERING,
    TLS_ENDED
} tls_state;

/* The position in SP's stream of frames: 8 bytes of greeting, then lengths (8 bytes) and bodies. */
typedef struct tls_frames {
    unsigned char head[8];
    unsigned head_size;
    bool greeted;
    uint64_t body_left; /* bytes of the body still to come */
} tls_frames;

/* A connection: `fd` is the TCP socket, `local` our end of the socket pair; nng has the other end.
 */
struct tls_conn {
    tls_loop *loop;
    tls_state state;
    SSL *ssl;
    tls_verdict verdict;
    int error_number; /* of the system call that failed; 0: none */
    int fd, local;
    uv_poll_t fd_poll, local_poll;
    int fd_events, local_events; /* polled now */
    int handles;                 /* that libuv has not closed yet */
    unsigned greeted;            /* received bytes, until the greeting is complete */
    bool again;                  /* it was interrupted for the others: resume continues it */
    bool heard;                  /* the peer's first bytes have arrived */
    bool other_scheme;           /* the peer speaks SP without TLS */
    tls_frames sent;             /* position of the bytes from nng */
    tls_stream in, out;          /* in: from the peer to nng */
    uint64_t deadline_ns;        /* not in state OPEN */
    tls_conn *next, *previous;   /* in one of the loop's lists, oldest first */
    cop_peer peer;
    char address[64];
    uint32_t listener; /* nng's listener of this connection; 0: none */
};

typedef struct tls_list {
    tls_conn *first, *last;
    int count;
} tls_list;

/* Callbacks of a loop's owner, on the loop's thread. */
typedef struct tls_handler {
    /* The handshake is done: give `fd` to nng as a pipe and set conn->listener. Return false to
     * close the connection; the caller then keeps the fd. */
    bool (*on_open)(void *owner, tls_conn *conn, int fd);
    /* The connection ends; called once. `reason` is "" for a regular end. `refused`: a certificate
     * was the reason. */
    void (*on_end)(void *owner, tls_conn *conn, const char *reason, bool refused);
    /* Called every 100 ms, and after net_tls_loop_wake. */
    void (*on_tick)(void *owner);
    /* The loop stops: close the owner's handles. Called once. */
    void (*on_stop)(void *owner);
} tls_handler;

/* A thread with a loop, and its connections. */
struct tls_loop {
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wake;
    uv_timer_t tick;
    uv_idle_t resume;
    atomic_bool stopping;
    atomic_ullong end_ns; /* while it stops: deadline of all connections */
    bool stop_begun;
    tls_handler handler;
    void *owner;
    tls_list waiting; /* connections with a deadline: in all states but OPEN */
    tls_list open;    /* connections in state OPEN */
};

/* Starts the thread. The caller owns *loop and must call net_tls_loop_stop before freeing it. */
cop_err net_tls_loop_start(tls_loop *loop, const tls_handler *handler, void *owner,
                           cop_error *error);
void net_tls_loop_wake(tls_loop *loop); /* any thread */
/* Stop the loop. Connections have `linger_ms` to send to their peers what nng has written.
 * begin_stop: does not wait; any thread, once. stop: call it after begin_stop; joins the thread. */
void net_tls_loop_begin_stop(tls_loop *loop, uint64_t linger_ms);
void net_tls_loop_stop(tls_loop *loop);
/* Begins the handshake of a connection on `fd` (connected, non-blocking) and takes over the fd.
 * NULL: out of memory, and the fd is closed. Loop's thread. */
tls_conn *net_tls_conn_create(tls_loop *loop, const cop_tls *tls, int fd, const char *host,
                              const char *address);
/* Ends a connection and calls on_end. Loop's thread. */
void net_tls_conn_end(tls_conn *conn, const char *reason, bool refused);
/* For tls_loop.c: moves bytes in both directions until something blocks. Not in state HANDSHAKE. */
void net_tls_conn_pump(tls_conn *conn);
/* For tls_loop.c: only sends what nng has written, then ends. State GREETING or OPEN. */
void net_tls_conn_begin_close(tls_conn *conn);

/* ---- address.c ---- */
/* Disables Nagle's delay, and enables keep-alive, which notices a vanished peer. The same on both
 * sides. */
void net_set_tcp_options(int fd);
/* Writes the address of a socket's peer, such as "10.0.0.1:4711". */
void net_describe_socket(int fd, char out[64]);
/* Splits "SCHEME://HOST:PORT", which cop_url_check has accepted. Removes the brackets of an IPv6
 * host. */
void net_split_url(const char *url, char host[256], char port[8]);

#define NET_ADDRESSES_MAX 8
typedef struct net_addresses {
    struct sockaddr_storage at[NET_ADDRESSES_MAX];
    socklen_t size[NET_ADDRESSES_MAX];
    int count;
} net_addresses;
/* Gets all addresses of the host in a server's URL, each once. Waits for the name server. INPUT: it
 * cannot be resolved. */
cop_err net_listen_addresses(const char *url, net_addresses *out, cop_error *error);

/* ---- tls_listen.c ---- */
typedef struct net_nng net_nng;
typedef struct tls_acceptor tls_acceptor;
/* Accepts connections on `url` and gives them to nng, on its own threads. `tls` is borrowed. The
 * caller owns *out (net_tls_acceptor_stop). */
cop_err net_tls_acceptor_start(net_nng *nng, const cop_tls *tls, const char *url,
                               tls_acceptor **out, cop_error *error);
/* Stop it. begin_stop: does not wait, so that several can stop at the same time. stop: call it
 * after begin_stop; waits until all connections have ended, and frees. */
void net_tls_acceptor_begin_stop(tls_acceptor *acceptor);
void net_tls_acceptor_stop(tls_acceptor *acceptor);

/* ---- resolve.c ---- */
typedef struct net_resolution net_resolution;
/* Begins to resolve `host`, and wakes `loop` at the end. A numeric address is ready at once. The
 * caller must call net_resolve_take until it succeeds, or net_resolve_abandon. NULL: out of memory
 * or threads. */
net_resolution *net_resolve_begin(tls_loop *loop, const char *host, const char *port);
/* True: the resolution has ended and is freed; *status is getaddrinfo's, *found its result
 * (freeaddrinfo). False: it is still running. */
bool net_resolve_take(net_resolution *resolution, int *status, struct addrinfo **found);
/* Gives up a resolution, which frees itself later. Does not block. NULL has no effect. */
void net_resolve_abandon(net_resolution *resolution);

/* ---- dial.c ---- */
/* Why there is no connection. LATER: another attempt may succeed. ABSENT: no program listens at any
 * address of the host, or the host does not exist. REFUSED: a certificate was refused.
 * OTHER_SCHEME: TLS instead of tcp://, or the reverse. */
typedef enum net_failure { NET_LATER, NET_ABSENT, NET_REFUSED, NET_OTHER_SCHEME } net_failure;
typedef struct net_dial_handler {
    /* A connection is open: give `fd` to nng and return the listener's number. 0: it failed, and
     * the caller keeps the fd. */
    uint32_t (*on_open)(void *owner, int fd);
    /* An attempt failed, or the coordinator closed the connection immediately. */
    void (*on_failed)(void *owner, const char *reason, net_failure how);
} net_dial_handler;
/* Keeps a connection to `url` (tcp:// or tls+tcp://), on its own thread, which calls *handler.
 * `tls` is borrowed; *handler is copied. Sets *out before the first connection. */
cop_err net_dial_start(const cop_tls *tls, const char *url, const net_dial_handler *handler,
                       void *owner, net_dialer **out, cop_error *error);
/* Reports that nng opened or lost a pipe. Any thread. */
void net_dial_note(net_dialer *dialer, bool gone);
/* Stops and frees. Waits up to `linger_ms` until the peer has the last bytes that nng wrote. */
void net_dial_stop(net_dialer *dialer, uint64_t linger_ms);
#endif
