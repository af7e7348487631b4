/* Transports: requests and replies between a coordinator and its workers and clients, over nng
 * (tcp://, tls+tcp://, ipc://) or in memory.
 *
 * The server side runs on a libuv loop, and every callback below runs on the loop thread (W4: nng's
 * own callbacks only append to a locked list and call uv_async_send). The client side, a "link", is
 * a blocking call with a deadline, for threads of workers and clients. Requests may be answered
 * later and in any order. A link has one running request at a time. Both transports pass one
 * conformance suite. */
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
     * cop_server_drop, once. The message and its parts belong to the request; keep a part with
     * cop_buffer_hold. */
    void (*on_request)(void *context, cop_request *request);
    /* A connection is gone: closed by the peer or by us, or lost. Its unanswered requests must
     * still be replied to or dropped; the reply goes nowhere. Called exactly once for each
     * connection that has sent a request. */
    void (*on_gone)(void *context, uint64_t connection);
} cop_server_handler;

/* Creates a server that does not listen yet. The caller owns *out (cop_server_destroy). */
cop_err cop_server_create(uv_loop_t *loop, const cop_server_handler *handler, void *context,
                          cop_server **out, cop_error *error);
/* Sets our certificate for tls+tcp:// addresses of later calls of cop_server_listen. Borrowed. */
void cop_server_set_tls(cop_server *server, const cop_tls *tls);
/* Listens on tcp://host:port, tls+tcp://host:port or ipc:///path (socket mode 0600), at every
 * address of the host. INPUT: bad URL. IN_USE: the address is in use; the error names the URL. */
cop_err cop_server_listen(cop_server *server, const char *url, cop_error *error);
/* Makes at least 2 * workers + 4 contexts wait for requests (W3). The number only grows. */
void cop_server_expect(cop_server *server, int workers);
/* Closes the connection of a silent worker, or of a peer that violated the protocol (W2). */
void cop_server_disconnect(cop_server *server, uint64_t connection);
/* close: stops listening, closes all connections and drops what the handler has not seen. Running
 * calls end with CLOSED. No callback follows. destroy: also waits for its own running work, and
 * frees. Reply to or drop all held requests before destroy; this is allowed after close. Loop
 * thread only. destroy may run the loop. */
void cop_server_close(cop_server *server);
void cop_server_destroy(cop_server *server);

/* The connection, the message, the address ("127.0.0.1:4711", "ipc", "memory") and the peer (by its
 * certificate, if any) of a request. They live as long as the request. */
uint64_t cop_request_connection(const cop_request *request);
const cop_message *cop_request_message(const cop_request *request);
const char *cop_request_address(const cop_request *request);
const cop_peer *cop_request_peer(const cop_request *request);
/* Replies and frees the request. The message's parts move into the reply; `message` is zeroed. Loop
 * thread. */
void cop_server_reply(cop_request *request, cop_message *message);
/* Frees the request without a reply; the peer's call times out. Loop thread. */
void cop_server_drop(cop_request *request);

typedef struct cop_server_counters {
    uint64_t requests, replies, bytes_in, bytes_out, bad_frames, connections;
    uint64_t
        refused; /* connections refused before any request: no valid certificate, or too many */
} cop_server_counters;
/* Reads the counters. Any thread. */
void cop_server_count(const cop_server *server, cop_server_counters *out);

/* ---- link: the client side ---- */
typedef struct cop_link cop_link;

/* Opens a link to url. It connects in the background; a call waits for the connection up to its
 * deadline. `tls` is for tls+tcp:// and borrowed; NULL otherwise. */
cop_err cop_link_open(const char *url, const cop_tls *tls, cop_link **out, cop_error *error);
/* Opens a link to a server in this process, without sockets: messages and buffers pass by
 * reference. Any thread. */
cop_err cop_link_open_local(cop_server *server, cop_link **out, cop_error *error);
/* From now on, an absent coordinator ends a call at once: nobody listens at any address of the
 * host, or the host does not exist. Call it before the first call. Without it, a call waits for the
 * coordinator. */
void cop_link_set_impatient(cop_link *link);
/* Sends `request` and waits for the reply, at most timeout_ms from now. The parts of `request`
 * move; it is zeroed. On success the caller owns *reply (cop_message_fini).
 *
 * UNREACHABLE: no connection in time; the error names the address. TIMEOUT: no answer in time.
 * CLOSED: canceled, or the connection was lost (the request may have been seen; requests are
 * idempotent). DENIED: we or the coordinator refused a certificate. INPUT: the coordinator speaks
 * TLS and the URL is tcp://, or the reverse. PROTOCOL, VERSION: bad answer. A FAILURE answer is
 * returned as its code and sentence. */
cop_err cop_link_call(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                      cop_error *error);
/* Makes the running call of another thread return CLOSED soon, and all later calls at once. */
void cop_link_cancel(cop_link *link);
/* Makes the running call of another thread return CLOSED; later calls work as usual. A call that is
 * just beginning may not notice it. */
void cop_link_interrupt(cop_link *link);
/* Closes and frees the link. No call may be running. */
void cop_link_close(cop_link *link);
/* The address of the coordinator, for messages. Owned by the link. */
const char *cop_link_address(const cop_link *link);

/* The token for the coordinator at `url`: `token` (--token), the content of `file` (--token-file),
 * COPPICE_TOKEN or, if `url` is on this machine, the file `token` in the user's state folder
 * (cop_path_state). "": there is none. */
#define COP_TOKEN_MAX 128
cop_err cop_token_find(const char *token, const char *file, const char *url,
                       char out[COP_TOKEN_MAX], cop_error *error);

/* The default address. */
#define COP_DEFAULT_URL "tcp://127.0.0.1:29700"
/* INPUT: url is not tcp://host:port, tls+tcp://host:port or ipc://path. Sets *loopback if it stays
 * on this machine. */
cop_err cop_url_check(const char *url, bool *loopback, cop_error *error);
/* True: the URL begins with tls+tcp://. */
bool cop_url_is_tls(const char *url);

#endif
