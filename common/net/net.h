/* Transports: requests and replies between a coordinator and its workers and clients, over nng
 * (tcp://, tls+tcp://, ipc://) or in memory.
 *
 * The server side runs on a libuv loop, and calls every callback below on the loop thread (W4:
 * nng's own callbacks only append to a locked list and call uv_async_send). It may answer requests
 * later and in any order. The client side, a "link", is for threads of workers and clients: a
 * blocking call with a deadline, one at a time. Both transports pass one conformance suite. */
#ifndef COP_NET_NET_H
#define COP_NET_NET_H

#include <uv.h>

#include "common/net/tls.h"
#include "common/wire/message.h"

/* ---- server ---- */
typedef struct cop_server cop_server;
typedef struct cop_request cop_request; /* one request that awaits its reply */

typedef struct cop_server_handler {
    /* A request has arrived. The handler owns `request` until it calls cop_server_reply or
     * cop_server_drop, which it must do once. The message and its parts belong to the request; to
     * keep a part longer, call cop_buffer_hold. */
    void (*on_request)(void *context, cop_request *request);
    /* A connection has ended: the peer or we closed it, or it was lost. The handler must still
     * reply to or drop its requests; such a reply is discarded. Called exactly once for each
     * connection that has sent a request. */
    void (*on_gone)(void *context, uint64_t connection);
} cop_server_handler;

/* Creates a server that does not listen yet. `loop` must outlive it; *handler is copied. The caller
 * owns *out (cop_server_destroy). NO_MEMORY. */
cop_err cop_server_create(uv_loop_t *loop, const cop_server_handler *handler, void *context,
                          cop_server **out, cop_error *error);
/* Sets our certificate for tls+tcp:// addresses in later calls of cop_server_listen. Borrowed until
 * cop_server_destroy. */
void cop_server_set_tls(cop_server *server, const cop_tls *tls);
/* Listens on tcp://host:port, tls+tcp://host:port or ipc:///path (socket mode 0600), at every
 * address of the host. INPUT: bad URL. IN_USE: the address is in use; the error names the URL. */
cop_err cop_server_listen(cop_server *server, const char *url, cop_error *error);
/* Prepares for this many workers: at least 2 * workers + 4 contexts wait for requests (W3). A
 * smaller number than before has no effect. */
void cop_server_expect(cop_server *server, int workers);
/* Closes the connection of a silent worker, or of a peer that violated the protocol (W2). An
 * unknown connection has no effect. */
void cop_server_disconnect(cop_server *server, uint64_t connection);
/* close: stops listening, closes all connections, and drops requests that the handler has not seen.
 * Running calls end with CLOSED. No callback follows. destroy: closes, waits for its own running
 * work, and frees. Reply to or drop all held requests before destroy; this is allowed after close.
 * Loop thread only. destroy may run the loop. */
void cop_server_close(cop_server *server);
void cop_server_destroy(cop_server *server);

/* Return the connection, the message, the peer's address ("127.0.0.1:4711", "ipc", "memory") and
 * the peer's identity (from its certificate, if any). Owned by the request. */
uint64_t cop_request_connection(const cop_request *request);
const cop_message *cop_request_message(const cop_request *request);
const char *cop_request_address(const cop_request *request);
const cop_peer *cop_request_peer(const cop_request *request);
/* Releases the parts of the request's message: a handler that keeps the request for long calls
 * this, so that the request holds no memory of its sender's choice. Loop thread. */
void cop_request_release_parts(cop_request *request);
/* Sends a reply and frees the request. The reply takes over the parts of `message`, which is
 * zeroed. Does not block. Loop thread. */
void cop_server_reply(cop_request *request, cop_message *message);
/* Frees the request without a reply, so the peer's call times out. Loop thread. */
void cop_server_drop(cop_request *request);

typedef struct cop_server_counters {
    uint64_t requests, replies, bytes_in, bytes_out, bad_frames, connections;
    uint64_t
        refused; /* connections refused before any request: no valid certificate, or too many */
} cop_server_counters;
/* Reads the counters, which count from the server's creation. Any thread. */
void cop_server_count(const cop_server *server, cop_server_counters *out);

/* ---- link: the client side ---- */
typedef struct cop_link cop_link;

/* Opens a link to `url`, which connects in the background; a call waits for the connection until
 * its deadline. `tls` is needed for tls+tcp://, and borrowed until cop_link_close; else NULL. The
 * caller owns *out. INPUT: bad URL. USAGE: tls+tcp:// without `tls`. */
cop_err cop_link_open(const char *url, const cop_tls *tls, cop_link **out, cop_error *error);
/* Opens a link to a server in this process, without sockets: it passes buffers by reference. The
 * link may outlive the server. The caller owns *out. Any thread. */
cop_err cop_link_open_local(cop_server *server, cop_link **out, cop_error *error);
/* From now on, a call fails at once if the coordinator is absent: no program listens at any address
 * of the host, or the host does not exist. Without this, a call waits for the coordinator. Call it
 * before the first cop_link_call. */
void cop_link_set_impatient(cop_link *link);
/* Sends `request` and waits for the reply, at most timeout_ms. Always takes over the parts of
 * `request`, which is zeroed. On success the caller owns *reply (cop_message_fini).
 *
 * UNREACHABLE: no connection in time; the error names the address. TIMEOUT: no reply in time.
 * CLOSED: canceled, or the connection was lost (the coordinator may have seen the request, so
 * requests are idempotent). DENIED: one side refused the other's certificate. INPUT: the
 * coordinator speaks TLS and the URL is tcp://, or the reverse. PROTOCOL, VERSION: bad reply. A
 * FAILURE reply is returned as its code and sentence. */
cop_err cop_link_call(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                      cop_error *error);
/* Makes the running call of another thread return CLOSED soon, and all later calls immediately. Any
 * thread. */
void cop_link_cancel(cop_link *link);
/* Makes the running call of another thread return CLOSED; later calls work as usual. A call that is
 * just beginning may not notice it. Any thread. */
void cop_link_interrupt(cop_link *link);
/* Closes and frees the link. No call may be running. It may wait until the coordinator has the last
 * bytes of a call, at most to that call's deadline. NULL has no effect. */
void cop_link_close(cop_link *link);
/* Returns the coordinator's URL, or "memory", for messages. Owned by the link. */
const char *cop_link_address(const cop_link *link);

/* Finds the token for the coordinator at `url`. The first of these that exists: `token` (--token),
 * the content of `file` (--token-file), COPPICE_TOKEN, and, if `url` is on this machine, the file
 * `token` in the user's state folder (cop_path_state). "": none exists. USAGE: too long. */
#define COP_TOKEN_MAX 128
cop_err cop_token_find(const char *token, const char *file, const char *url,
                       char out[COP_TOKEN_MAX], cop_error *error);

/* The default address. */
#define COP_DEFAULT_URL "tcp://127.0.0.1:29700"
/* Checks the form of a URL. *loopback: it stays on this machine. INPUT: it is not tcp://host:port,
 * tls+tcp://host:port or ipc://path. */
cop_err cop_url_check(const char *url, bool *loopback, cop_error *error);
/* True: the URL begins with tls+tcp://, so it needs certificates. */
bool cop_url_is_tls(const char *url);

#endif
