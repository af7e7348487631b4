/* What the files of TLS share: credentials (tls.c), connections on a loop thread (tls_pump.c), the
 * server's front (tls_listen.c), the asking side (dial.c) and its name resolution (resolve.c). */
#ifndef COP_NET_TLS_INTERNAL_H
#define COP_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <uv.h>

#include "common/net/tls.h"

#define TLS_HANDSHAKE_MS 10000 /* a peer that has not proved itself by then is cut off */
#define TLS_LINGER_MS    5000  /* for the last bytes of a connection that ends */

struct cop_tls {
    SSL_CTX *context;
    cop_tls_side side;
    cop_peer self;
    char name[256]; /* expected of the coordinator; "": the URL's host */
};

/* Why a certificate was not accepted; written by the verifier of the connection. */
typedef struct tls_verdict {
    char text[400]; /* "": nothing was wrong */
} tls_verdict;

/* A connection's SSL on `fd`, in the state before the handshake; `host` is what the coordinator's
 * certificate must be for (ignored by servers). `verdict` is told what is wrong with the peer's
 * certificate. NULL: out of memory. */
SSL *net_tls_create(const cop_tls *tls, int fd, const char *host, tls_verdict *verdict);
/* The peer after the handshake; false (and a verdict) if its certificate has no usable name. */
bool net_tls_peer(SSL *ssl, cop_peer *out, tls_verdict *verdict);
/* A sentence about the failure that OpenSSL just reported on this thread (and `number`, the errno
 * of a system call, or 0), and whether a certificate was the reason: trying again will not help. */
bool net_tls_explain(const tls_verdict *verdict, int number, char *out, size_t size);

/* ---- tls_pump.c ---- */
typedef struct tls_loop tls_loop;
typedef struct tls_conn tls_conn;
typedef struct net_dialer net_dialer;

/* Bytes on their way in one direction. */
typedef struct tls_stream {
    unsigned char *bytes; /* TLS_BUFFER_SIZE, while open */
    size_t begin, end;
} tls_stream;

/* GREETING: the handshake is done, SP's first bytes have not come (nng waits for ever). CLOSING:
 * nng has closed its end, or the loop stops; what nng wrote before is sent. LEAVING: all is sent,
 * the owner has been told, the peer's machine has not acknowledged it yet. */
typedef enum tls_state {
    TLS_HANDSHAKE,
    TLS_GREETING,
    TLS_OPEN,
    TLS_CLOSING,
    TLS_LEAVING,
    TLS_ENDED
} tls_state;

/* Where the bytes from nng are in SP's frames: 8 bytes of greeting, then lengths and bodies. */
typedef struct tls_frames {
    unsigned char head[8];
    unsigned head_size;
    bool greeted;
    uint64_t left; /* of the body */
} tls_frames;

/* A connection: `fd` is the TCP side, `local` our end of the pair that nng has the other end of. */
struct tls_conn {
    tls_loop *loop;
    tls_state state;
    SSL *ssl;
    tls_verdict verdict;
    int error_number; /* of the system call that failed; 0: none */
    int fd, local;
    uv_poll_t fd_poll, local_poll;
    int fd_events, local_events; /* what is polled for now */
    int handles;                 /* that libuv still has */
    unsigned greeted;            /* bytes of SP's greeting that have come */
    bool again;                  /* more to read inside OpenSSL: see resume */
    bool heard;                  /* the peer's first bytes have come */
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

/* What a loop's owner is asked; on the loop's thread. */
typedef struct tls_handler {
    /* The handshake is done: give nng `fd` as a pipe and set conn->listener; false closes the
     * connection (and the fd is still the caller's). */
    bool (*on_open)(void *owner, tls_conn *conn, int fd);
    /* The connection ends. `reason` is "" when it ends in order; `refused`: a certificate was the
     * reason. */
    void (*on_end)(void *owner, tls_conn *conn, const char *reason, bool refused);
    /* Every 100 ms, and after net_tls_wake. */
    void (*on_tick)(void *owner);
    void (*on_stop)(void *owner); /* close the handles that the owner has on the loop */
} tls_handler;

/* A thread with a loop, and the connections that it serves. */
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

/* Starts the thread. Embedded storage; stop it before it goes. */
cop_err net_tls_loop_start(tls_loop *loop, const tls_handler *handler, void *owner,
                           cop_error *error);
void net_tls_loop_wake(tls_loop *loop); /* any thread */
/* Lets connections end, within `linger_ms`, so that what nng has written reaches the peers.
 * begin_stop: any thread, once, does not wait. stop: after it; waits, joins. */
void net_tls_loop_begin_stop(tls_loop *loop, uint64_t linger_ms);
void net_tls_loop_stop(tls_loop *loop);
/* A connection on `fd` (connected, non-blocking), which it owns from here; NULL (and the fd closed)
 * when out of memory. The handshake begins. */
tls_conn *net_tls_conn_create(tls_loop *loop, const cop_tls *tls, int fd, const char *host,
                              const char *address);
void net_tls_conn_end(tls_conn *conn, const char *reason, bool refused);
/* No delay, and a peer whose machine has gone is noticed: the same on both sides. */
void net_set_tcp_options(int fd);
/* "10.0.0.1:4711" of a socket's peer. */
void net_describe_socket(int fd, char out[64]);
/* Splits "SCHEME://HOST:PORT" (checked before); brackets around an IPv6 host are taken off. */
void net_split_url(const char *url, char host[256], char port[8]);

/* ---- tls_listen.c ---- */
typedef struct net_nng net_nng;
typedef struct tls_front tls_front;
/* Accepts connections on `url` and gives them to nng. */
cop_err net_tls_front_start(net_nng *nng, const cop_tls *tls, const char *url, tls_front **out,
                            cop_error *error);
/* begin_stop does not wait, so that several stop at the same time; stop: after it; waits until its
 * connections have ended, frees. */
void net_tls_front_begin_stop(tls_front *front);
void net_tls_front_stop(tls_front *front);

/* ---- resolve.c ---- */
typedef struct net_resolution net_resolution;
/* Looks `host` up; `loop` is woken when that is done. An address in numbers is done at once. NULL:
 * out of memory. */
net_resolution *net_resolve_begin(tls_loop *loop, const char *host, const char *port);
/* When it is done: true, the results (status as getaddrinfo's; freeaddrinfo), and it is freed. */
bool net_resolve_take(net_resolution *resolution, int *status, struct addrinfo **found);
/* Nobody waits for it any more (NULL: nothing). Does not block. */
void net_resolve_abandon(net_resolution *resolution);

#define NET_ADDRESSES_MAX 8
typedef struct net_addresses {
    struct sockaddr_storage at[NET_ADDRESSES_MAX];
    socklen_t size[NET_ADDRESSES_MAX];
    int count;
} net_addresses;
/* All addresses of the host that a server's URL names, each once. Waits for the name server. */
cop_err net_listen_addresses(const char *url, net_addresses *out, cop_error *error);

/* ---- dial.c ---- */
/* Why there is no connection: LATER: it may come. ABSENT: nobody listens at any address of the
 * host, or there is no such host. REFUSED: a certificate was. OTHER_SCHEME: TLS where tcp:// was
 * asked for, or the reverse. */
typedef enum net_failure { NET_LATER, NET_ABSENT, NET_REFUSED, NET_OTHER_SCHEME } net_failure;
typedef struct net_dial_handler {
    /* A connection stands: give nng `fd`; 0 when that fails, else the listener's number. */
    uint32_t (*on_open)(void *owner, int fd);
    /* An attempt failed, or the coordinator closed the connection at once. */
    void (*on_failed)(void *owner, const char *reason, net_failure how);
} net_dial_handler;
/* Connects to `url` (tcp:// or tls+tcp://), again and again, on a thread of its own. *out is set
 * before the first connection. */
cop_err net_dial_start(const cop_tls *tls, const char *url, const net_dial_handler *handler,
                       void *owner, net_dialer **out, cop_error *error);
/* nng has opened a pipe, or lost one. Any thread. */
void net_dial_note(net_dialer *dialer, bool gone);
void net_dial_stop(net_dialer *dialer, uint64_t linger_ms); /* at most so long */
#endif
