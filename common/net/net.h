/* Transports: requests and replies between a coordinator and its workers and clients, over nng
 * (tcp://, tls+tcp://, ipc://) or in memory.
 *
 * The server side lives on a libuv loop: every callback below runs on the loop thread (W4: nng's
 * own callbacks only append to a locked list and call uv_async_send). The client side ("link") is a
 * blocking call with a deadline, used by worker and client threads. A request may be answered
 * later, in any order; a link has one request under way at a time. Both transports pass one
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
    /* A request came in. The handler owns `request` until it calls cop_server_reply or
     * cop_server_drop, once. `message` belongs to the request (parts are held by it): take what you
     * keep with cop_buffer_hold. */
    void (*on_request)(void *context, cop_request *request);
    /* A connection is gone (closed by the peer, by us, or lost). Requests of it that are still
     * unanswered must still be replied to or dropped; the reply goes nowhere. Comes exactly once
     * per connection that sent at least one request. */
    void (*on_gone)(void *context, uint64_t connection);
} cop_server_handler;

/* *out with cop_server_destroy. Nothing listens yet. */
cop_err cop_server_create(uv_loop_t *loop, const cop_server_handler *handler, void *context,
                          cop_server **out, cop_error *error);
/* Our certificate for tls+tcp:// addresses that are listened on later. It is borrowed. */
void cop_server_set_tls(cop_server *server, const cop_tls *tls);
/* tcp://host:port, tls+tcp://host:port, ipc:///path (socket mode 0600). Every address of the host
 * is bound. INPUT for a bad URL;
 * IN_USE ("address in use") names the URL. */
cop_err cop_server_listen(cop_server *server, const char *url, cop_error *error);
/* How many contexts wait for requests (W3): at least 2 * workers + 4. Grows only. */
void cop_server_expect(cop_server *server, int workers);
/* Closes a connection (a silent worker, a peer that broke the protocol): W2. */
void cop_server_disconnect(cop_server *server, uint64_t connection);
/* close: stops listening, closes all connections and drops what nobody has seen yet; calls under
 * way end with CLOSED; no callback comes after it. destroy: closes, waits until nothing of ours is
 * under way, frees. Requests that the handler holds must be replied to or dropped before destroy,
 * and may be after close. Loop thread only; destroy may run the loop. */
void cop_server_close(cop_server *server);
void cop_server_destroy(cop_server *server);

uint64_t cop_request_connection(const cop_request *request);
const cop_message *cop_request_message(const cop_request *request);
const char *cop_request_address(const cop_request *request); /* "127.0.0.1:4711", "ipc", "memory" */
const cop_peer *cop_request_peer(const cop_request *request); /* by its certificate, if any */
/* Moves the message's parts into the reply; `message` is zeroed. Loop thread. Frees the request. */
void cop_server_reply(cop_request *request, cop_message *message);
void cop_server_drop(cop_request *request); /* no answer; the peer's call times out */

typedef struct cop_server_counters {
    uint64_t requests, replies, bytes_in, bytes_out, bad_frames, connections;
    uint64_t refused; /* connections, before any request: no good certificate, or too many */
} cop_server_counters;
void cop_server_count(const cop_server *server, cop_server_counters *out);

/* ---- link: the asking side ---- */
typedef struct cop_link cop_link;

/* Opens a link to url; connects in the background (a call waits for the connection up to its
 * deadline). `tls` is for tls+tcp://, borrowed, and may be NULL otherwise. */
cop_err cop_link_open(const char *url, const cop_tls *tls, cop_link **out, cop_error *error);
/* A link to a server in this process, without sockets: messages and buffers pass by reference. Any
 * thread. */
cop_err cop_link_open_local(cop_server *server, cop_link **out, cop_error *error);
/* From now on a coordinator that is not there (nobody listens at any address of the host, or there
 * is no such host) ends a call at once. Before the first call; without it, a call waits for the
 * coordinator to come. */
void cop_link_set_impatient(cop_link *link);
/* Sends `request` (its parts are moved; zeroed) and waits for the reply. timeout_ms counts from
 * now. UNREACHABLE: no connection in time (names the address); TIMEOUT: no answer in time; CLOSED:
 * connection lost while waiting (the request may or may not have been seen: requests are
 * idempotent) or canceled; DENIED: a certificate was refused, by us or by the coordinator; INPUT:
 * the coordinator speaks TLS, and the URL is tcp://, or the reverse; PROTOCOL/VERSION: bad answer.
 * A FAILURE answer is returned as its code and sentence. On success *reply is the caller's
 * (cop_message_fini). */
cop_err cop_link_call(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                      cop_error *error);
/* Makes a call under way (from another thread) return CLOSED soon, and all later ones at once. */
void cop_link_cancel(cop_link *link);
/* Makes a call under way (from another thread) return CLOSED; later ones go on as usual. A call
 * that is just beginning may be missed. */
void cop_link_interrupt(cop_link *link);
void cop_link_close(cop_link *link);
const char *cop_link_address(const cop_link *link);

/* The token for the coordinator at `url`: `token` (--token), or what `file` holds (--token-file),
 * or COPPICE_TOKEN, or, if `url` is on this machine, the file `token` of the user's state folder
 * (cop_path_state). "" when there is none. */
#define COP_TOKEN_MAX 128
cop_err cop_token_find(const char *token, const char *file, const char *url,
                       char out[COP_TOKEN_MAX], cop_error *error);

/* "tcp://127.0.0.1:29700": the default when none is given. */
#define COP_DEFAULT_URL "tcp://127.0.0.1:29700"
/* INPUT unless url is tcp://host:port, tls+tcp://host:port or ipc://path; *loopback tells whether
 * it stays on this machine. */
cop_err cop_url_check(const char *url, bool *loopback, cop_error *error);
bool cop_url_is_tls(const char *url);

#endif
