/* Shared by the files of common/net: the server and its queue, its transports, and links. */
#ifndef COP_NET_INTERNAL_H
#define COP_NET_INTERNAL_H

#include <nng/nng.h>
#include <stdatomic.h>
#include <uv.h>

#include "common/net/net.h"

/* The numbers of connections of in-memory links are greater than this. nng's numbers are
 * smaller. */
#define NET_MEMORY_CONNECTIONS ((uint64_t)1 << 40)

/* The maximum number of unanswered requests of one connection. A link of ours has one such request,
 * or a few after timeouts. A peer with more is disconnected, because it could occupy all contexts
 * of nng. */
#define NET_OPEN_MAX 16

typedef enum net_item_kind {
    NET_ITEM_REQUEST,
    NET_ITEM_FOLLOW, /* the transport has a reply that may lead to the next request */
    NET_ITEM_CONNECTED,
    NET_ITEM_DISCONNECTED
} net_item_kind;

/* An entry of the queue from the transports to the loop. The entry of a request is a field of the
 * request. Entries for new and lost connections are allocated, and the loop frees them. */
typedef struct net_item net_item;
struct net_item {
    net_item_kind kind;
    net_item *next;
    uint64_t connection;  /* of CONNECTED and DISCONNECTED */
    cop_request *request; /* of REQUEST and FOLLOW; it contains this item */
};

/* The two ways in which a transport ends a request. `reply` sends a message and takes over its
 * parts; `drop` sends nothing. Both free the request. Loop thread. */
typedef struct net_transport {
    void (*reply)(cop_request *request, cop_message *message);
    void (*drop)(cop_request *request);
    /* Carries out an item of the kind FOLLOW. True: the request has a new message, which the server
     * now handles. False: the request is freed. NULL: the transport sends no such items. */
    bool (*follow)(cop_request *request);
} net_transport;

struct cop_request {
    net_item item;
    const net_transport *transport;
    cop_server *server;
    uint64_t connection;
    cop_message message;
    cop_peer peer;    /* the identity of the sender */
    char address[64]; /* address of the sender */
};

/* What a server shares with its in-memory links, which may outlive it. */
typedef struct net_hub {
    uv_mutex_t mutex;
    atomic_int references;
    cop_server *server;       /* NULL after cop_server_close */
    struct cop_link *links;   /* list of all open in-memory links */
    uint64_t next_connection; /* how many connections of in-memory links there have been */
} net_hub;

typedef struct net_nng net_nng;

/* An open connection of a server. */
typedef struct net_live {
    uint64_t connection;
    uint32_t open; /* number of its requests that the handler holds */
    bool has_sent_request;
} net_live;

struct cop_server {
    uv_loop_t *loop;
    cop_server_handler handler;
    void *context;
    uv_async_t wake;         /* makes the loop read the queue */
    uv_prepare_t round;      /* a handle whose callback runs once in each iteration of the loop */
    int handles_open;        /* how many of `wake` and `round` libuv has not closed yet */
    int inline_replies_left; /* how many replies the loop may still encode in this iteration */
    uv_mutex_t mutex;        /* guards the queue, `reading` and `closed` */
    net_item *head, *tail;   /* the queue */
    bool reading;            /* the loop will look at the queue again without being woken */
    bool closed;             /* the queue accepts no more items */
    net_live *live;          /* open connections */
    size_t live_capacity;
    atomic_size_t live_count; /* length of `live`; only the loop thread changes it */
    net_hub *hub;
    net_nng *nng;       /* NULL: the server does not listen at a URL */
    const cop_tls *tls; /* NULL: the server cannot listen at tls+tcp:// */
    int expected;       /* the largest number of workers in cop_server_expect_workers */
    atomic_ullong requests, replies, bytes_in, bytes_out, bad_frames, refused;
};

/* Appends an item to the queue and wakes the loop. False: the server is closed, and the caller
 * still owns the item. Any thread. */
bool net_server_push(cop_server *server, net_item *item);
/* Reports a new (NET_ITEM_CONNECTED) or lost (NET_ITEM_DISCONNECTED) connection to the loop. If
 * memory runs out, it reports nothing. Any thread. */
void net_server_report(cop_server *server, net_item_kind kind, uint64_t connection);
/* Drops a reference to the hub. Dropping the last one frees the hub. Any thread. */
void net_hub_release(net_hub *hub);

/* ---- nng_server.c: the server side over nng. Loop thread unless a comment says otherwise ---- */
/* Opens the nng socket. After an error, *out may be set; cop_server_destroy then frees it. */
cop_err net_nng_create(cop_server *server, net_nng **out, cop_error *error);
/* The next two functions do the work of cop_server_listen and cop_server_expect_workers. */
cop_err net_nng_listen(net_nng *nng, const char *url, cop_error *error);
void net_nng_expect_workers(net_nng *nng, int workers);
/* Opens more contexts if too few wait for requests. Call it after each request. */
void net_nng_replenish(net_nng *nng);
/* The next three functions do the work of cop_server_disconnect, cop_server_close and
 * cop_server_destroy. */
void net_nng_disconnect(net_nng *nng, uint64_t connection);
void net_nng_close(net_nng *nng);
void net_nng_destroy(net_nng *nng);
nng_socket net_nng_socket(const net_nng *nng);
/* Adds one to the server's counter of refused connections. Any thread. */
void net_nng_count_refused(net_nng *nng);
/* Gives a connected `fd` to the nng socket, as a pipe with its own listener. Returns the number of
 * the listener; nng then owns `fd`. Returns 0 if this failed; the caller then still owns `fd`. If
 * `announce` is not NULL, it is called with the listener's number before a message can arrive from
 * the pipe. Any thread. */
uint32_t net_nng_adopt(nng_socket socket, int fd,
                       void (*announce)(void *context, uint32_t listener), void *context);
/* Closes a listener of net_nng_adopt and its pipe. Any thread. */
void net_nng_release(uint32_t listener);

/* ---- nng_peers.c: a table of nng's listeners with the peer of each. Any thread ---- */
typedef struct net_peer_row {
    uint32_t listener;
    cop_peer peer;
    char address[64]; /* "": many peers use the listener, so each pipe has its own address */
} net_peer_row;
typedef struct net_peers {
    uv_mutex_t mutex;   /* guards the rest */
    net_peer_row *rows; /* in ascending order of `listener` */
    size_t count, capacity;
} net_peers;
void net_peers_init(net_peers *peers);
void net_peers_fini(net_peers *peers);
/* Adds a row for a listener that has none. False: out of memory. */
bool net_peers_add(net_peers *peers, uint32_t listener, const cop_peer *peer, const char *address);
/* Removes the row of a listener. Has no effect if the listener has no row. */
void net_peers_remove(net_peers *peers, uint32_t listener);
/* Copies the peer and the address of a listener's row. False: the listener has no row. */
bool net_peers_find(net_peers *peers, uint32_t listener, cop_peer *peer, char address[64]);
/* Returns the table of the server's listeners. */
net_peers *net_nng_peers(net_nng *nng);

/* ---- frames in nng messages (nng_server.c). Any thread ---- */
/* Makes a buffer whose bytes are the body of an nng message. The buffer owns the message. NULL: out
 * of memory, and the message is freed. */
cop_buffer *net_wrap_message(nng_msg *message);
/* Encodes a message as a frame in a new nng message, which the caller owns. NULL: out of memory. */
nng_msg *net_make_frame(const cop_message *message);

/* ---- links ---- */
/* The operations of one kind of link. The functions cop_link_... in link.c call them. */
typedef struct net_link_ops {
    cop_err (*call)(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                    cop_error *error);
    void (*cancel)(cop_link *link); /* wakes the running call; `canceled` is already true */
    void (*interrupt)(cop_link *link);
    void (*set_impatient)(cop_link *link); /* NULL: calls never wait for a connection anyway */
    void (*set_follower)(cop_link *link, const cop_link_follower *follower); /* NULL: no effect */
    void (*close)(cop_link *link);
} net_link_ops;
struct cop_link {
    const net_link_ops *ops;
    char address[320]; /* the URL, or "memory" */
    atomic_bool canceled;
};
/* These functions of link_memory.c end the running calls of all in-memory links of a server, or of
 * the link with one connection, with CLOSED. Loop thread. */
void net_memory_close_all(net_hub *hub);
void net_memory_disconnect(net_hub *hub, uint64_t connection);

#endif
