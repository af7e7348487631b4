/* What the files of common/net share: the server's queue, and how a request finds its way back to
 * its transport. */
#ifndef COP_NET_INTERNAL_H
#define COP_NET_INTERNAL_H

#include <nng/nng.h>
#include <stdatomic.h>
#include <uv.h>

#include "common/net/net.h"

/* Connections of in-memory links are numbered from here; an nng pipe's number is below it. */
#define NET_MEMORY_CONNECTIONS ((uint64_t)1 << 40)

/* Unanswered requests of one connection; a link has one, or a few when its calls timed out. Whoever
 * has more is cut off: nobody may take up all the contexts. */
#define NET_OPEN_MAX 16

typedef enum net_item_kind { NET_ITEM_REQUEST, NET_ITEM_BORN, NET_ITEM_GONE } net_item_kind;

/* One entry of the queue between transports and the loop. Requests carry their own; connections'
 * comings and goings are allocated. */
typedef struct net_item net_item;
struct net_item {
    net_item_kind kind;
    net_item *next;
    uint64_t connection;
    cop_request *request;
};

/* How a transport is answered. reply takes over the message's parts. Loop thread. */
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

/* Shared with in-memory links, which may outlive the server. */
typedef struct net_hub {
    uv_mutex_t mutex;
    atomic_int references;
    cop_server *server;     /* NULL once closed */
    struct cop_link *links; /* all in-memory links that are open */
    uint64_t next_connection;
} net_hub;

typedef struct net_nng net_nng;

/* A connection that exists. */
typedef struct net_live {
    uint64_t connection;
    uint32_t open; /* its requests that the handler has */
    bool spoke;    /* it sent a request */
} net_live;

struct cop_server {
    uv_loop_t *loop;
    cop_server_handler handler;
    void *context;
    uv_async_t wake;
    uv_prepare_t round; /* of the loop: each gets `quick` anew */
    int handles_open, quick;
    uv_mutex_t mutex; /* guards the queue */
    net_item *head, *tail;
    bool closed;
    net_live *live; /* connections that exist */
    size_t live_capacity;
    atomic_size_t live_count; /* written by the loop thread only */
    net_hub *hub;
    net_nng *nng;
    const cop_tls *tls; /* NULL: no tls+tcp:// */
    int expected;       /* workers, for sockets that open later */
    atomic_ullong requests, replies, bytes_in, bytes_out, bad_frames, refused;
};

/* Appends to the queue and wakes the loop; false when the server is closed (the caller keeps the
 * item). Any thread. */
bool net_server_push(cop_server *server, net_item *item);
/* A connection came or went. Any thread. */
void net_server_note(cop_server *server, net_item_kind kind, uint64_t connection);
void net_hub_release(net_hub *hub);

/* nng_server.c */
cop_err net_nng_create(cop_server *server, net_nng **out, cop_error *error);
cop_err net_nng_listen(net_nng *nng, const char *url, cop_error *error);
void net_nng_expect(net_nng *nng, int workers);
/* After a request was taken: enough contexts must wait for more. */
void net_nng_replenish(net_nng *nng);
void net_nng_disconnect(net_nng *nng, uint64_t connection);
void net_nng_close(net_nng *nng);
void net_nng_destroy(net_nng *nng);
nng_socket net_nng_socket(const net_nng *nng);
void net_nng_count_refused(net_nng *nng); /* any thread */
/* Gives `fd` (one end of a socket pair, nng's from here) to the socket as a pipe, with a listener
 * of its own, whose number is returned; 0, and the fd is still the caller's, when that fails.
 * `announce` (may be NULL) is called with the number before anything can come from it. */
uint32_t net_nng_adopt(nng_socket socket, int fd,
                       void (*announce)(void *context, uint32_t listener), void *context);
void net_nng_release(uint32_t listener); /* closes it, and its pipe */

/* nng_peers.c: see there. Any thread. */
typedef struct net_peer_row {
    uint32_t listener;
    cop_peer peer;
    char address[64]; /* "": ask the pipe */
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
/* An nng message as a buffer (freed with it). Takes the message over; NULL (and the message freed)
 * when out of memory. */
cop_buffer *net_wrap_message(nng_msg *message);
/* A message as a frame in a new nng message; NULL when out of memory. */
nng_msg *net_make_frame(const cop_message *message);

/* link.c: what kind of link; see there. */
typedef struct net_link_ops {
    cop_err (*call)(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                    cop_error *error);
    void (*cancel)(cop_link *link); /* after `canceled` was set */
    void (*interrupt)(cop_link *link);
    void (*set_impatient)(cop_link *link); /* NULL: it is always there, or never */
    void (*close)(cop_link *link);
} net_link_ops;
struct cop_link {
    const net_link_ops *ops;
    char address[320];
    atomic_bool canceled;
};
/* link_memory.c: the server goes, or one connection; calls under way end with CLOSED. Loop thread.
 */
void net_memory_close_all(net_hub *hub);
void net_memory_disconnect(net_hub *hub, uint64_t connection);

#endif
