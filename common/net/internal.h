/* Shared by the files of common/net: the server and its queue, its transports, and links. */
#ifndef COP_NET_INTERNAL_H
#define COP_NET_INTERNAL_H

#include <nng/nng.h>
#include <stdatomic.h>
#include <uv.h>

#include "common/net/net.h"

/* Connections of in-memory links have larger numbers than this; those of nng are smaller. */
#define NET_MEMORY_CONNECTIONS ((uint64_t)1 << 40)

/* Maximum unanswered requests of one connection. A link has one, or a few after timeouts. A peer
 * with more is disconnected, because it could occupy all contexts. */
#define NET_OPEN_MAX 16

typedef enum net_item_kind {
    NET_ITEM_REQUEST,
    NET_ITEM_CONNECTED,
    NET_ITEM_DISCONNECTED
} net_item_kind;

/* An entry of the queue from the transports to the loop. A request contains its entry; entries for
 * new and lost connections are allocated. */
typedef struct net_item net_item;
struct net_item {
    net_item_kind kind;
    net_item *next;
    uint64_t connection;
    cop_request *request;
};

/* The functions that answer a request on its transport. `reply` takes over the message's parts.
 * Loop thread. */
typedef struct net_transport {
    void (*reply)(cop_request *request, cop_message *message);
    void (*drop)(cop_request *request);
} net_transport;

struct cop_request {
    net_item item;
    const net_transport *transport;
    cop_server *server;
    uint64_t connection;
    cop_message message;
    cop_peer peer;
    char address[64];
};

/* What a server shares with its in-memory links, which may outlive it. */
typedef struct net_hub {
    uv_mutex_t mutex;
    atomic_int references;
    cop_server *server;     /* NULL after cop_server_close */
    struct cop_link *links; /* all open in-memory links */
    uint64_t next_connection;
} net_hub;

typedef struct net_nng net_nng;

/* An open connection. */
typedef struct net_live {
    uint64_t connection;
    uint32_t open; /* requests that the handler holds */
    bool has_sent_request;
} net_live;

struct cop_server {
    uv_loop_t *loop;
    cop_server_handler handler;
    void *context;
    uv_async_t wake;
    uv_prepare_t round;      /* runs in each round of the loop */
    int handles_open;        /* of the loop, not closed yet */
    int inline_replies_left; /* in this round */
    uv_mutex_t mutex;        /* guards the queue */
    net_item *head, *tail;
    bool closed;
    net_live *live; /* open connections */
    size_t live_capacity;
    atomic_size_t live_count; /* written by the loop thread only */
    net_hub *hub;
    net_nng *nng;
    const cop_tls *tls; /* NULL: no tls+tcp:// */
    int expected;       /* workers; for sockets that open later */
    atomic_ullong requests, replies, bytes_in, bytes_out, bad_frames, refused;
};

/* Appends to the queue and wakes the loop. False: the server is closed, and the caller keeps the
 * item. Any thread. */
bool net_server_push(cop_server *server, net_item *item);
/* Reports a new or lost connection to the loop. Any thread. */
void net_server_report(cop_server *server, net_item_kind kind, uint64_t connection);
/* Drops a reference; the last one frees the hub. Any thread. */
void net_hub_release(net_hub *hub);

/* nng_server.c: the server side over nng. Loop thread unless a comment says otherwise. */
cop_err net_nng_create(cop_server *server, net_nng **out, cop_error *error);
cop_err net_nng_listen(net_nng *nng, const char *url, cop_error *error);
void net_nng_expect(net_nng *nng, int workers);
/* Call it after each request: it keeps enough contexts waiting for more requests. */
void net_nng_replenish(net_nng *nng);
void net_nng_disconnect(net_nng *nng, uint64_t connection);
void net_nng_close(net_nng *nng);
void net_nng_destroy(net_nng *nng);
nng_socket net_nng_socket(const net_nng *nng);
void net_nng_count_refused(net_nng *nng); /* any thread */
/* Gives a connected `fd` to the nng socket as a pipe with its own listener. Returns the listener's
 * number, and nng owns the fd. 0: it failed, and the caller keeps the fd. `announce` (may be NULL)
 * is called with the number before any message can arrive from the pipe. */
uint32_t net_nng_adopt(nng_socket socket, int fd,
                       void (*announce)(void *context, uint32_t listener), void *context);
/* Closes a listener and its pipe. */
void net_nng_release(uint32_t listener);

/* nng_peers.c: a table of the peer of each listener. Any thread. */
typedef struct net_peer_row {
    uint32_t listener;
    cop_peer peer;
    char address[64]; /* "": several peers; ask the pipe for the address */
} net_peer_row;
typedef struct net_peers {
    uv_mutex_t mutex;
    net_peer_row *rows;
    size_t count, capacity;
} net_peers;
void net_peers_init(net_peers *peers);
void net_peers_fini(net_peers *peers);
bool net_peers_add(net_peers *peers, uint32_t listener, const cop_peer *peer, const char *address);
void net_peers_remove(net_peers *peers, uint32_t listener);
bool net_peers_find(net_peers *peers, uint32_t listener, cop_peer *peer, char address[64]);
net_peers *net_nng_peers(net_nng *nng);
/* Makes a buffer of an nng message, which the buffer owns. NULL: out of memory, and the message is
 * freed. */
cop_buffer *net_wrap_message(nng_msg *message);
/* Encodes a message as a frame in a new nng message. NULL: out of memory. */
nng_msg *net_make_frame(const cop_message *message);

/* link.c: the operations of one kind of link. */
typedef struct net_link_ops {
    cop_err (*call)(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                    cop_error *error);
    void (*cancel)(cop_link *link); /* wakes the running call; `canceled` is already set */
    void (*interrupt)(cop_link *link);
    void (*set_impatient)(cop_link *link); /* NULL: this kind does not wait anyway */
    void (*close)(cop_link *link);
} net_link_ops;
struct cop_link {
    const net_link_ops *ops;
    char address[320];
    atomic_bool canceled;
};
/* link_memory.c: disconnects all links of a server, or one connection. Running calls end with
 * CLOSED. Loop thread. */
void net_memory_close_all(net_hub *hub);
void net_memory_disconnect(net_hub *hub, uint64_t connection);

#endif
