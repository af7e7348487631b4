/* What the files of TLS share: credentials (tls.c), connections on a loop thread (tls_pump.c), the
 * server's front (tls_listen.c) and the asking side (tls_dial.c). */
#ifndef COP_NET_TLS_INTERNAL_H
#define COP_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <uv.h>

#include "common/net/tls.h"

#define TLS_HANDSHAKE_MS 10000 /* a peer that has not proved itself by then is cut off */
#define TLS_LINGER_MS    2000  /* for the last bytes of a connection that ends */

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

/* Bytes on their way in one direction. */
typedef struct tls_stream {
    unsigned char *bytes; /* TLS_BUFFER_SIZE, while open */
    size_t begin, end;
} tls_stream;

/* GREETING: the handshake is done, SP's first bytes have not come (nng waits for ever). */
typedef enum tls_state { TLS_HANDSHAKE, TLS_GREETING, TLS_OPEN, TLS_CLOSING, TLS_ENDED } tls_state;

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
    tls_stream in, out;          /* in: from the peer */
    uint64_t deadline_ns;        /* unless open */
    tls_conn *next, *previous;   /* in one of the loop's lists, oldest first */
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
    tls_handler handler;
    void *owner;
    tls_list waiting; /* in handshake or greeting, or closing: these have deadlines */
    tls_list open;
};

/* Starts the thread. Embedded storage; stop it before it goes. */
cop_err net_tls_loop_start(tls_loop *loop, const tls_handler *handler, void *owner,
                           cop_error *error);
void net_tls_loop_wake(tls_loop *loop); /* any thread */
void net_tls_loop_stop(tls_loop *loop); /* ends all connections, joins */
/* A connection on `fd` (connected, non-blocking), which it owns from here; NULL (and the fd closed)
 * when out of memory. The handshake begins. */
tls_conn *net_tls_conn_create(tls_loop *loop, const cop_tls *tls, int fd, const char *host,
                              const char *address);
void net_tls_conn_end(tls_conn *conn, const char *reason, bool refused);
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
void net_tls_front_stop(tls_front *front); /* ends its connections; frees */

/* ---- tls_dial.c ---- */
typedef struct tls_dialer tls_dialer;
typedef struct tls_dial_handler {
    /* A connection stands: give nng `fd`; 0 when that fails, else the listener's number. */
    uint32_t (*on_open)(void *owner, int fd);
    void (*on_end)(void *owner, uint32_t listener);
    /* An attempt failed, or the coordinator closed the connection at once. */
    void (*on_failed)(void *owner, const char *reason, bool refused);
} tls_dial_handler;
/* Connects to `url`, again and again, on a thread of its own. */
cop_err net_tls_dial_start(const cop_tls *tls, const char *url, const tls_dial_handler *handler,
                           void *owner, tls_dialer **out, cop_error *error);
void net_tls_dial_stop(tls_dialer *dialer);
#endif
