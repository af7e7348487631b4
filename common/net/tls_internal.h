/* Shared by the TLS files: credentials (tls.c), connections on a loop thread (tls_pump.c), the
 * server's front (tls_listen.c), the client side (dial.c) and its name resolution (resolve.c). */
#ifndef COP_NET_TLS_INTERNAL_H
#define COP_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <uv.h>

#include "common/net/tls.h"

#define TLS_HANDSHAKE_MS 10000 /* a peer without a complete handshake by then is disconnected */
#define TLS_LINGER_MS    5000  /* for the last bytes of a connection that ends */

struct cop_tls {
    SSL_CTX *context;
    cop_tls_side side;
    cop_peer self;
    char name[256]; /* expected in the coordinator's certificate; "": the host of the URL */
};

/* Why a certificate was not accepted. The verifier of the connection writes it. */
typedef struct tls_verdict {
    char text[400]; /* "": nothing was wrong */
} tls_verdict;

/* Creates the SSL state of a connection on `fd`, before the handshake. The coordinator's
 * certificate must be for `host` (servers ignore it). `verdict` gets the fault of the peer's
 * certificate. NULL: out of memory. */
SSL *net_tls_create(const cop_tls *tls, int fd, const char *host, tls_verdict *verdict);
/* The peer after the handshake. False: its certificate has no usable name; the verdict says so. */
bool net_tls_peer(SSL *ssl, cop_peer *out, tls_verdict *verdict);
/* A sentence about the failure that OpenSSL just reported on this thread; `number` is the errno of
 * a system call, or 0. Returns true if a certificate was the reason: another attempt cannot help.
 */
bool net_tls_explain(const tls_verdict *verdict, int number, char *out, size_t size);

/* ---- tls_pump.c ---- */
typedef struct tls_loop tls_loop;
typedef struct tls_conn tls_conn;
typedef struct net_dialer net_dialer;

/* A buffer of bytes in one direction. */
typedef struct tls_stream {
    unsigned char *bytes; /* TLS_BUFFER_SIZE, while open */
    size_t begin, end;
} tls_stream;

/* GREETING: the handshake is done, but SP's first bytes have not arrived (nng would wait forever).
 * CLOSING: nng has closed its end, or the loop stops; bytes that nng wrote before are still sent.
 * LEAVING: all is sent and the owner knows; the peer's machine has not acknowledged it yet. */
typedef enum tls_state {
    TLS_HANDSHAKE,
    TLS_GREETING,
    TLS_OPEN,
    TLS_CLOSING,
    TLS_LEAVING,
    TLS_ENDED
} tls_state;

/* The position of the bytes from nng in SP's frames: 8 bytes of greeting, then lengths and bodies.
 */
typedef struct tls_frames {
    unsigned char head[8];
    unsigned head_size;
    bool greeted;
    uint64_t left; /* of the body */
} tls_frames;

/* A connection: `fd` is the TCP side, `local` our end of the pair whose other end nng has. */
struct tls_conn {
    tls_loop *loop;
    tls_state state;
    SSL *ssl;
    tls_verdict verdict;
    int error_number; /* of the system call that failed; 0: none */
    int fd, local;
    uv_poll_t fd_poll, local_poll;
    int fd_events, local_events; /* currently polled */
    int handles;                 /* still known to libuv */
    unsigned greeted;            /* received bytes of SP's greeting */
    bool again;                  /* OpenSSL has more to read: see resume */
    bool heard;                  /* the peer's first bytes have arrived */
    bool other_scheme;           /* the peer speaks SP without TLS */
    tls_frames sent;
    tls_stream in, out;        /* in: from the peer */
    uint64_t deadline_ns;      /* unless open */
    tls_conn *next, *previous; /* in one of the loop's lists, oldest first */
    cop_peer peer;
    char address[64];
    uint32_t listener; /* nng's, of this one connection; 0: none */
};

typedef struct tls_list {
    tls_conn *first, *last;
    int count;
} tls_list;

/* The callbacks of a loop's owner, on the loop's thread. */
typedef struct tls_handler {
    /* The handshake is done: give nng `fd` as a pipe and set conn->listener. False: close the
     * connection; the caller keeps the fd. */
    bool (*on_open)(void *owner, tls_conn *conn, int fd);
    /* The connection ends. `reason` is "" for a regular end. `refused`: a certificate was the
     * reason. */
    void (*on_end)(void *owner, tls_conn *conn, const char *reason, bool refused);
    /* Every 100 ms, and after net_tls_wake. */
    void (*on_tick)(void *owner);
    void (*on_stop)(void *owner); /* close the owner's handles on the loop */
} tls_handler;

/* A thread with a loop, and its connections. */
struct tls_loop {
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wake;
    uv_timer_t tick;
    uv_idle_t resume;
    atomic_bool stopping;
    atomic_ullong end_ns; /* while it stops: connections end by then */
    bool stop_begun;
    tls_handler handler;
    void *owner;
    tls_list waiting; /* in handshake or greeting, or closing: these have deadlines */
    tls_list open;
};

/* Starts the thread. The caller owns the storage; call net_tls_loop_stop before it disappears. */
cop_err net_tls_loop_start(tls_loop *loop, const tls_handler *handler, void *owner,
                           cop_error *error);
void net_tls_loop_wake(tls_loop *loop); /* any thread */
/* Lets connections end, within `linger_ms`, so that what nng has written reaches the peers.
 * begin_stop: any thread, once, does not wait. stop: after it; waits, joins. */
void net_tls_loop_begin_stop(tls_loop *loop, uint64_t linger_ms);
void net_tls_loop_stop(tls_loop *loop);
/* Begins the handshake of a connection on `fd` (connected, non-blocking), which the connection owns
 * from here on. NULL: out of memory, and the fd is closed. */
tls_conn *net_tls_conn_create(tls_loop *loop, const cop_tls *tls, int fd, const char *host,
                              const char *address);
/* Ends a connection and calls on_end. Loop's thread. */
void net_tls_conn_end(tls_conn *conn, const char *reason, bool refused);
/* Sets no delay, and keep-alive that notices a vanished peer. Equal on both sides. */
void net_set_tcp_options(int fd);
/* The address of a socket's peer, such as "10.0.0.1:4711". */
void net_describe_socket(int fd, char out[64]);
/* Splits a valid "SCHEME://HOST:PORT". Removes the brackets of an IPv6 host. */
void net_split_url(const char *url, char host[256], char port[8]);

/* ---- tls_listen.c ---- */
typedef struct net_nng net_nng;
typedef struct tls_front tls_front;
/* Accepts connections on `url` and gives them to nng, on its own threads. */
cop_err net_tls_front_start(net_nng *nng, const cop_tls *tls, const char *url, tls_front **out,
                            cop_error *error);
/* begin_stop does not wait, so that several stop at the same time; stop: after it; waits until its
 * connections have ended, frees. */
void net_tls_front_begin_stop(tls_front *front);
void net_tls_front_stop(tls_front *front);

/* ---- resolve.c ---- */
typedef struct net_resolution net_resolution;
/* Looks up `host` and wakes `loop` at the end. A numeric address is ready at once. NULL: out of
 * memory. */
net_resolution *net_resolve_begin(tls_loop *loop, const char *host, const char *port);
/* True: the look-up has ended. Gives the result (status as of getaddrinfo; free with freeaddrinfo)
 * and frees the resolution. */
bool net_resolve_take(net_resolution *resolution, int *status, struct addrinfo **found);
/* Gives up the result. Does not block. NULL has no effect. */
void net_resolve_abandon(net_resolution *resolution);

#define NET_ADDRESSES_MAX 8
typedef struct net_addresses {
    struct sockaddr_storage at[NET_ADDRESSES_MAX];
    socklen_t size[NET_ADDRESSES_MAX];
    int count;
} net_addresses;
/* All addresses of the host in a server's URL, each once. Waits for the name server. */
cop_err net_listen_addresses(const char *url, net_addresses *out, cop_error *error);

/* ---- dial.c ---- */
/* Why there is no connection. LATER: it may succeed later. ABSENT: nobody listens at any address of
 * the host, or the host does not exist. REFUSED: a certificate was refused. OTHER_SCHEME: TLS
 * instead of tcp://, or the reverse. */
typedef enum net_failure { NET_LATER, NET_ABSENT, NET_REFUSED, NET_OTHER_SCHEME } net_failure;
typedef struct net_dial_handler {
    /* A connection is open: give nng `fd` and return the listener's number. 0: it failed. */
    uint32_t (*on_open)(void *owner, int fd);
    /* An attempt failed, or the coordinator closed the connection immediately. */
    void (*on_failed)(void *owner, const char *reason, net_failure how);
} net_dial_handler;
/* Connects to `url` (tcp:// or tls+tcp://) repeatedly, on its own thread. Sets *out before the
 * first connection. */
cop_err net_dial_start(const cop_tls *tls, const char *url, const net_dial_handler *handler,
                       void *owner, net_dialer **out, cop_error *error);
/* Reports that nng opened or lost a pipe. Any thread. */
void net_dial_note(net_dialer *dialer, bool gone);
void net_dial_stop(net_dialer *dialer, uint64_t linger_ms); /* at most so long */
#endif
