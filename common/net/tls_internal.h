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

#define TLS_HANDSHAKE_MS 10000 /* how long a handshake may take */
#define TLS_LINGER_MS    5000  /* how long a connection that ends may take to send its last bytes */

struct cop_tls {
    SSL_CTX *context;
    cop_tls_side side;
    cop_peer self; /* our own identity */
    /* The host that the coordinator's certificate must be for; "": the host of the URL. */
    char name[256];
};

/* The reason why the peer's certificate was not accepted. */
typedef struct tls_verdict {
    char text[400]; /* "": no fault */
} tls_verdict;

/* Creates the SSL state of a connection on `fd`, before the handshake. On the client side, the
 * server's certificate must be for tls->name or, if that is "", for `host`; the server side ignores
 * `host`. If the peer's certificate has a fault, the handshake writes it to *verdict, which must
 * outlive the result. The caller frees the result with SSL_free. NULL: out of memory, or `host` is
 * too long. */
SSL *net_tls_create(const cop_tls *tls, int fd, const char *host, tls_verdict *verdict);
/* Gets the identity of the peer after the handshake. False: the peer's certificate has no usable
 * name; a sentence about this is then in *verdict. */
bool net_tls_peer(SSL *ssl, cop_peer *out, tls_verdict *verdict);
/* Writes a sentence about the failure that OpenSSL has just reported on this thread. `number` is
 * the errno of the system call that failed, or 0. True: the reason was a certificate, so another
 * attempt cannot help. Clears OpenSSL's error queue. */
bool net_tls_explain(const tls_verdict *verdict, int number, char *out, size_t size);

/* ---- tls_pump.c, tls_loop.c ---- */
typedef struct tls_loop tls_loop;
typedef struct tls_conn tls_conn;
typedef struct net_dialer net_dialer;

/* A buffer for one direction. The bytes from `begin` up to but without `end` have been read, and
 * must still be sent. */
typedef struct tls_stream {
    unsigned char *bytes; /* TLS_BUFFER_SIZE bytes; NULL before the handshake is done */
    size_t begin, end;
} tls_stream;

/* The states of a connection, in their order:
 *  - HANDSHAKE: the TLS handshake is not complete.
 *  - GREETING: the handshake is complete, but the 8 bytes with which SP greets have not arrived. We
 *    wait for them with a deadline, because nng has none.
 *  - OPEN: bytes pass in both directions.
 *  - CLOSING: nng has closed its end, or the loop stops. We still send what nng wrote before.
 *  - LINGERING: everything is sent, and on_end was called. The peer's machine has not acknowledged
 *    all bytes yet.
 *  - ENDED: libuv is closing the handles; then the connection is freed. */
typedef enum tls_state {
    TLS_HANDSHAKE,
    TLS_GREETING,
    TLS_OPEN,
    TLS_CLOSING,
    TLS_LINGERING,
    TLS_ENDED
} tls_state;

/* A position in the bytes of an SP connection. These are a greeting of 8 bytes, and then, for each
 * message, its length (8 bytes, big-endian) and its body. */
typedef struct tls_frames {
    unsigned char head[8]; /* the bytes so far of the greeting, or of a length */
    unsigned head_size;    /* how many bytes `head` has */
    bool greeted;          /* the greeting is complete */
    uint64_t body_left;    /* bytes of the current body that have not come yet */
} tls_frames;

/* A connection. We pass bytes between the TCP socket `fd` and `local`, our end of a socket pair.
 * nng has the other end of the pair. */
struct tls_conn {
    tls_loop *loop;
    tls_state state;
    SSL *ssl;
    tls_verdict verdict;
    int error_number; /* errno of the system call that failed; 0: none failed */
    int fd;           /* the TCP socket */
    int local;        /* our end of the socket pair; -1 before the handshake is done */
    uv_poll_t fd_poll, local_poll;
    int fd_events, local_events; /* the events for which libuv polls `fd` and `local` now */
    int handles;                 /* how many of the two polls libuv has not closed yet */
    unsigned greeted;            /* how many bytes the peer has sent, counted up to the greeting */
    bool again;                  /* the connection has more to do, but lets other connections go
                                    first; see resume */
    bool heard;                  /* the peer's first three bytes were checked for SP */
    bool other_scheme;           /* the peer speaks SP without TLS */
    tls_frames sent;             /* position after the bytes that were read from nng */
    tls_stream in;               /* bytes from the peer to nng */
    tls_stream out;              /* bytes from nng to the peer */
    uint64_t deadline_ns;        /* when the loop ends the connection; has no meaning in state
                                    OPEN */
    tls_conn *next, *previous;   /* neighbours in one of the loop's two lists, oldest first */
    cop_peer peer;               /* identity of the peer; empty before the handshake is done */
    char address[64];            /* address of the peer */
    uint32_t listener;           /* number of nng's listener for it; 0: there is none */
};

typedef struct tls_list {
    tls_conn *first, *last;
    int count;
} tls_list;

/* Callbacks of a loop's owner, on the loop's thread. */
typedef struct tls_handler {
    /* The handshake is done. The callback gives `fd`, nng's end of the socket pair, to nng as a
     * pipe and sets conn->listener. If it returns false, the loop closes `fd` and ends the
     * connection. */
    bool (*on_open)(void *owner, tls_conn *conn, int fd);
    /* The connection ends. Called once for each connection. `reason` is a sentence, or "" for a
     * regular end. `refused` is true if a certificate was the reason. */
    void (*on_end)(void *owner, tls_conn *conn, const char *reason, bool refused);
    /* Called every 100 ms, and after net_tls_loop_wake. */
    void (*on_tick)(void *owner);
    /* The loop stops. The callback closes the owner's handles. Called once. */
    void (*on_stop)(void *owner);
} tls_handler;

/* A thread with a libuv loop, and the connections that it serves. */
struct tls_loop {
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wake;      /* wakes the loop; other threads may send it */
    uv_timer_t tick;      /* every 100 ms */
    uv_idle_t resume;     /* continues connections with `again` */
    atomic_bool stopping; /* net_tls_loop_begin_stop was called */
    atomic_ullong end_ns; /* no deadline is later; UINT64_MAX until the loop stops */
    bool stop_begun;      /* the loop's thread has begun to stop */
    tls_handler handler;
    void *owner;
    tls_list waiting; /* connections in all other states except ENDED; they have deadlines */
    tls_list open;    /* connections in state OPEN */
};

/* Starts the thread of *loop, which the caller owns. On success, the caller must call
 * net_tls_loop_begin_stop and net_tls_loop_stop before it frees *loop. INTERNAL: no thread could be
 * started. */
cop_err net_tls_loop_start(tls_loop *loop, const tls_handler *handler, void *owner,
                           cop_error *error);
/* Makes the loop call on_tick soon. Any thread. */
void net_tls_loop_wake(tls_loop *loop);
/* Tells the loop to stop, but does not wait until it has stopped. Its connections have `linger_ms`
 * milliseconds to send to their peers what nng has written. Call it once; any thread. */
void net_tls_loop_begin_stop(tls_loop *loop, uint64_t linger_ms);
/* Waits until all connections and the thread have ended. Call it after net_tls_loop_begin_stop. */
void net_tls_loop_stop(tls_loop *loop);
/* Begins the handshake of a connection on `fd`, which is a connected, non-blocking socket, and
 * takes over `fd`. `host` is for net_tls_create, `address` for messages. NULL: out of memory, and
 * `fd` is closed. Loop's thread. */
tls_conn *net_tls_conn_create(tls_loop *loop, const cop_tls *tls, int fd, const char *host,
                              const char *address);
/* Ends a connection at once, and calls on_end if it has not been called for it. Loop's thread. */
void net_tls_conn_end(tls_conn *conn, const char *reason, bool refused);
/* For tls_loop.c: moves bytes in both directions until nothing more can be moved without blocking.
 * The connection may be in any state except HANDSHAKE and ENDED. It may end. */
void net_tls_conn_pump(tls_conn *conn);
/* For tls_loop.c: from now on the connection only sends what nng has written, and then ends. It
 * must be in state GREETING or OPEN. */
void net_tls_conn_begin_close(tls_conn *conn);

/* ---- address.c ---- */
/* Sets the options of a TCP socket that both sides use: no delay of small packets (TCP_NODELAY),
 * and keep-alive, which notices that the peer's machine has vanished. */
void net_set_tcp_options(int fd);
/* Writes the address of a socket's peer, such as "10.0.0.1:4711", or "unknown address". */
void net_describe_socket(int fd, char out[64]);
/* Splits "SCHEME://HOST:PORT" into host and port. cop_url_check must have accepted the URL. The
 * brackets of an IPv6 host are removed. */
void net_split_url(const char *url, char host[256], char port[8]);

#define NET_ADDRESSES_MAX 8
/* The addresses of a host, for bind. */
typedef struct net_addresses {
    struct sockaddr_storage at[NET_ADDRESSES_MAX];
    socklen_t size[NET_ADDRESSES_MAX];
    int count;
} net_addresses;
/* Gets the addresses that the host in a server's URL resolves to, each once, and at most
 * NET_ADDRESSES_MAX. The host "*" stands for all addresses of this machine. Blocks until the name
 * server has answered. INPUT: the host cannot be resolved. */
cop_err net_listen_addresses(const char *url, net_addresses *out, cop_error *error);

/* ---- tls_listen.c ---- */
typedef struct net_nng net_nng;
typedef struct tls_acceptor tls_acceptor;
/* Listens on `url`, and starts threads that accept connections and give them to nng. `tls` must
 * outlive the acceptor. The caller owns *out and frees it with net_tls_acceptor_begin_stop and
 * net_tls_acceptor_stop. Errors are those of cop_server_listen. */
cop_err net_tls_acceptor_start(net_nng *nng, const cop_tls *tls, const char *url,
                               tls_acceptor **out, cop_error *error);
/* Makes the threads stop, without waiting for this, so that several acceptors can stop at the same
 * time. */
void net_tls_acceptor_begin_stop(tls_acceptor *acceptor);
/* Waits until all connections and threads have ended, and frees the acceptor. Call it after
 * net_tls_acceptor_begin_stop. */
void net_tls_acceptor_stop(tls_acceptor *acceptor);

/* ---- resolve.c ---- */
typedef struct net_resolution net_resolution;
/* Begins to resolve `host` on a thread of its own, and wakes `loop` when it has ended. If `host` is
 * a numeric address, no thread is started, and the result is ready at once. The caller must either
 * call net_resolve_take until that returns true, or call net_resolve_abandon. NULL: out of memory,
 * or no thread could be started. */
net_resolution *net_resolve_begin(tls_loop *loop, const char *host, const char *port);
/* True: the resolution has ended, and is freed. *status is the result of getaddrinfo. If it is 0,
 * *found has the addresses, which the caller frees with freeaddrinfo; else *found is NULL. False:
 * the resolution is still running. */
bool net_resolve_take(net_resolution *resolution, int *status, struct addrinfo **found);
/* Gives up a resolution. It is freed when its thread ends. Does not block. NULL has no effect. */
void net_resolve_abandon(net_resolution *resolution);

/* ---- dial.c ---- */
/* Why there is no connection:
 *  - LATER: a failure that may be over at the next attempt.
 *  - ABSENT: no program listens at any address of the host, or the host does not exist.
 *  - REFUSED: one side refused the other's certificate.
 *  - OTHER_SCHEME: the URL is tcp:// and the coordinator speaks TLS, or the reverse.
 * The order matters: link_nng.c gives up at once after a failure greater than ABSENT. */
typedef enum net_failure { NET_LATER, NET_ABSENT, NET_REFUSED, NET_OTHER_SCHEME } net_failure;
/* The callbacks of a dialer, on the dialer's thread. */
typedef struct net_dial_handler {
    /* A connection is open. The callback gives `fd` to nng and returns the number of the listener
     * (net_nng_adopt). If it returns 0, the dialer closes `fd`. */
    uint32_t (*on_open)(void *owner, int fd);
    /* There is no connection, for `reason`, which is a sentence: an attempt failed, or an open
     * connection failed. */
    void (*on_failed)(void *owner, const char *reason, net_failure how);
} net_dial_handler;
/* Starts a thread that keeps one connection to `url` (tcp:// or tls+tcp://) open, and calls
 * *handler, which is copied. `tls` must outlive the dialer. *out is set before the first connection
 * opens. The caller frees it with net_dial_stop. */
cop_err net_dial_start(const cop_tls *tls, const char *url, const net_dial_handler *handler,
                       void *owner, net_dialer **out, cop_error *error);
/* Tells the dialer that nng has opened a pipe (gone: that nng has lost it). Any thread. */
void net_dial_note(net_dialer *dialer, bool gone);
/* Stops and frees the dialer. With TLS, it waits until the peer has the last bytes that nng wrote,
 * but at most `linger_ms` milliseconds. */
void net_dial_stop(net_dialer *dialer, uint64_t linger_ms);
#endif
