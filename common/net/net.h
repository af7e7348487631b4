/* Transports: requests and replies between a coordinator and its workers and clients, over nng
 * (tcp://, tls+tcp://, ipc://) or in memory.
 *
 * The server side runs on a libuv loop, and calls every callback below on the loop's thread. nng
 * calls its own callbacks on other threads; these only append to a list under a lock and wake the
 * loop. The server may answer requests later and in any order. The client side is a "link". It
 * makes one call at a time, which blocks the calling thread until the reply or a deadline. Both
 * transports pass the same conformance tests. */
#ifndef COP_NET_NET_H
#define COP_NET_NET_H

#include <uv.h>

#include "common/net/tls.h"
#include "common/wire/message.h"

/* ---- server ---- */
typedef struct cop_server cop_server;
typedef struct cop_request cop_request; /* one request that awaits its reply */

typedef struct cop_server_handler {
    /* A request has arrived. The handler owns `request` and must call either cop_server_reply or
     * cop_server_drop for it once, now or later. The message and its parts belong to the request;
     * to keep a part for longer, call cop_buffer_hold. */
    void (*on_request)(void *context, cop_request *request);
    /* A connection has ended: the peer closed it, we closed it, or it was lost. The handler must
     * still reply to the connection's open requests or drop them; such a reply is discarded. Called
     * once for each connection that has sent a request, but not after cop_server_close. */
    void (*on_gone)(void *context, uint64_t connection);
} cop_server_handler;

/* Creates a server that does not listen yet. `loop` must outlive the server; *handler is copied.
 * The caller owns *out and frees it with cop_server_destroy. NO_MEMORY: out of memory. */
cop_err cop_server_create(uv_loop_t *loop, const cop_server_handler *handler, void *context,
                          cop_server **out, cop_error *error);
/* Sets our certificate for tls+tcp:// addresses in later calls of cop_server_listen. `tls` must
 * outlive the server. */
void cop_server_set_tls(cop_server *server, const cop_tls *tls);
/* Listens on a URL: tcp://host:port, tls+tcp://host:port, or ipc:///path, whose socket gets mode
 * 0600. If the host is a name that resolves to several addresses, it listens at every one of them
 * (at most 8) that this machine has. INPUT: bad URL, the host does not resolve, or this machine has
 * none of the addresses. IN_USE: another program uses the address; the error names the URL. USAGE:
 * tls+tcp:// without cop_server_set_tls. */
cop_err cop_server_listen(cop_server *server, const char *url, cop_error *error);
/* Prepares for this many workers: from then on, 2 * workers + 4 contexts of nng wait for requests
 * at any time. A smaller number than in an earlier call has no effect. */
void cop_server_expect_workers(cop_server *server, int workers);
/* Closes a connection, for example of a worker that is silent or of a peer that violated the
 * protocol. Has no effect if the connection is unknown or has ended. */
void cop_server_disconnect(cop_server *server, uint64_t connection);
/* Stops listening, closes all connections, and drops the requests that the handler has not seen.
 * The peers' running calls end with CLOSED. No callback is called afterwards. The handler may still
 * reply to the requests that it holds, or drop them. Loop thread. */
void cop_server_close(cop_server *server);
/* Closes the server if it is open, waits for its own running work, and frees it. Before this, the
 * handler must have replied to all requests that it holds, or have dropped them. It may run the
 * loop. Loop thread. */
void cop_server_destroy(cop_server *server);

/* These functions return, for a request:
 *  - the number of its connection;
 *  - its message;
 *  - the address of its sender, such as "127.0.0.1:4711", "ipc" or "memory";
 *  - the identity of its sender, from the sender's certificate if it has one.
 * The request owns what the pointers point to. */
uint64_t cop_request_connection(const cop_request *request);
const cop_message *cop_request_message(const cop_request *request);
const char *cop_request_address(const cop_request *request);
const cop_peer *cop_request_peer(const cop_request *request);
/* Releases the parts of the request's message. A handler that keeps a request for long calls this,
 * because otherwise senders could make the server keep large parts in memory. Loop thread. */
void cop_request_release_parts(cop_request *request);
/* Sends `message` as the reply, and frees the request. The server now owns the parts of `message`,
 * which is set to zero. Does not block. Loop thread. */
void cop_server_reply(cop_request *request, cop_message *message);
/* Frees the request without a reply; the sender's call will time out. Loop thread. */
void cop_server_drop(cop_request *request);

typedef struct cop_server_counters {
    uint64_t requests;
    uint64_t replies;
    uint64_t bytes_in;    /* bytes of received frames; 0 for in-memory links, which have no
                             frames */
    uint64_t bytes_out;   /* bytes of sent frames */
    uint64_t bad_frames;  /* frames that could not be decoded */
    uint64_t connections; /* connections that are open now */
    uint64_t refused;     /* TLS connections that failed, and connections beyond the limit */
} cop_server_counters;
/* Reads the counters. They count since the server was created. Any thread. */
void cop_server_count(const cop_server *server, cop_server_counters *out);

/* Reads the counters of the server that has the request. */
void cop_request_count(const cop_request *request, cop_server_counters *out);

/* Called with the reply to a message of cop_server_submit, which it must leave zeroed; it keeps the
 * receipt of the reply while it uses the parts. NULL: the server has dropped the request. Any
 * thread, but never within cop_server_submit. */
typedef void (*cop_server_answered)(void *context, cop_message *reply);
/* Gives the server a request from this process, as if a client without a certificate had sent it,
 * and returns at once. `answered` is called exactly once. `message` is set to zero. False: the
 * server is closed or out of memory; then nothing is called, and the caller keeps `message`. Any
 * thread. */
bool cop_server_submit(cop_server *server, cop_message *message, const char *address,
                       cop_server_answered answered, void *context);

/* ---- link: the client side ---- */
typedef struct cop_link cop_link;

/* Opens a link to `url`. The link connects in the background; a call waits for the connection until
 * the call's deadline. A tls+tcp:// URL needs `tls`, which must outlive the link; with other URLs,
 * `tls` may be NULL. The caller owns *out and frees it with cop_link_close. INPUT: bad URL. USAGE:
 * tls+tcp:// without `tls`. */
cop_err cop_link_open(const char *url, const cop_tls *tls, cop_link **out, cop_error *error);
/* Opens a link to a server in this process, without sockets. It passes buffers by reference instead
 * of copying them. The server must not be closed yet, but the link may outlive it. The caller owns
 * *out and frees it with cop_link_close. Any thread. */
cop_err cop_link_open_local(cop_server *server, cop_link **out, cop_error *error);
/* Makes a call fail as soon as the link finds the coordinator absent. It is absent if no program
 * listens at any address of the host (ipc://: at the path), or if the host does not exist.
 * Otherwise a call waits for the coordinator until the call's deadline. Call this before the first
 * cop_link_call. */
void cop_link_set_impatient(cop_link *link);
/* Handles replies on the loop thread of a server in this process, while the thread that called
 * cop_link_call sleeps. It is for short work: then it saves waking that thread and being woken by
 * it, and moves no data between two cores. */
typedef struct cop_link_follower {
    /* Should `follow` get this reply? Must take no lock and call no function of the link. */
    bool (*wants)(void *context, const cop_message *reply);
    /* Handles the reply. True: *reply is zero now and *request is the next request, as if the
     * calling thread had taken the reply and begun another call with the same timeout. False:
     * *reply is as before, and the call returns it. Must call no function of the link. */
    bool (*follow)(void *context, cop_message *reply, cop_message *request);
    void *context;
} cop_link_follower;
/* Sets the follower of a link in this process; *follower is copied. Other links ignore it. Call
 * this before the first cop_link_call. If a call ends by a cancel, an interruption or a lost
 * connection, the coordinator may not have seen the follower's last request. */
void cop_link_set_follower(cop_link *link, const cop_link_follower *follower);
/* Sends `request` and waits for the reply, at most timeout_ms milliseconds. The link takes over the
 * parts of `request` and sets it to zero, even if the call fails. On success the caller owns *reply
 * and frees it with cop_message_fini. One call at a time.
 *
 * If the reply is a FAILURE, the call returns the code and the sentence of that FAILURE. The other
 * errors are:
 *  - UNREACHABLE: there was no connection in time; the error names the address.
 *  - TIMEOUT: there was no reply in time.
 *  - CLOSED: the call was canceled or interrupted, or the connection was lost. The coordinator may
 *    have seen the request, so requests must be safe to repeat.
 *  - DENIED: one side refused the other's certificate.
 *  - INPUT: the URL is tcp:// and the coordinator speaks TLS, or the reverse.
 *  - PROTOCOL, VERSION and others: the reply could not be decoded. */
cop_err cop_link_call(cop_link *link, cop_message *request, cop_message *reply, uint32_t timeout_ms,
                      cop_error *error);
/* Makes the call that another thread is running return CLOSED soon, and all later calls return
 * CLOSED immediately. Any thread. */
void cop_link_cancel(cop_link *link);
/* Makes the call that another thread is running return CLOSED soon. Later calls work as usual. It
 * may have no effect on a call that is just beginning. Any thread. */
void cop_link_interrupt(cop_link *link);
/* Closes and frees the link. No call may be running. A tls+tcp:// link may first wait until the
 * coordinator has the last bytes of the last call; this takes at most 5 s, and at most until that
 * call's deadline. NULL has no effect. */
void cop_link_close(cop_link *link);
/* Returns the URL of the link, or "memory" for a link in this process. Owned by the link. */
const char *cop_link_address(const cop_link *link);

/* Finds the token for the coordinator at `url`. It is the first of these that exists:
 *  1. `token`, the value of --token (NULL: not given);
 *  2. the first line of the file `file`, the value of --token-file (NULL: not given);
 *  3. the environment variable COPPICE_TOKEN;
 *  4. the first line of the file "token" in the user's state folder (cop_path_state), if `url` is
 *     on this machine and without TLS.
 * If none exists, `out` is "". USAGE: the token is too long. If `file` cannot be read, it returns
 * the error of cop_file_read. */
#define COP_TOKEN_MAX 128
cop_err cop_token_find(const char *token, const char *file, const char *url,
                       char out[COP_TOKEN_MAX], cop_error *error);

/* The coordinator's address if none is given. */
#define COP_DEFAULT_URL "tcp://127.0.0.1:29700"
/* Checks the form of a URL. *loopback becomes true if the URL is ipc://, or if its host is
 * localhost, 127.x.x.x or [::1]. INPUT: the URL is not tcp://host:port, tls+tcp://host:port or
 * ipc://path. */
cop_err cop_url_check(const char *url, bool *loopback, cop_error *error);
/* True: the URL begins with tls+tcp://, so both sides need certificates. */
bool cop_url_is_tls(const char *url);

#endif
