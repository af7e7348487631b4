/* The server over nng's REP protocol. It has a pool of contexts. Each context receives a request,
 * replies to it later, and receives again. nng's callbacks decode requests and append them to the
 * server's queue. The loop thread encodes and sends small replies, but only a few in each iteration
 * of the loop. Two encoder threads do this for all other replies, so that copies of megabytes do
 * not delay the loop. */
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/log.h"
#include "common/base/thread_pool.h"
#include "common/version.h"
#include "common/wire/codec.h"

#define CONTEXTS_FIRST 8 /* contexts that wait before cop_server_expect_workers */
#define CONTEXTS_MAX   (4 * COP_WORKERS_MAX) /* contexts in all */
#define ENCODERS       2                     /* encoder threads */
#define ACCEPTORS_MAX  16                    /* tls+tcp:// addresses of one server */
/* The loop thread itself sends replies whose parts have up to this many bytes, and not more than
 * INLINE_REPLIES (server.c) in one iteration of the loop. */
#define INLINE_BYTES 65536

/* The states of a context, which handles one request at a time:
 *  - RECEIVING: it waits for a request.
 *  - HELD: its request is in the server's queue, at the handler, or at an encoder thread.
 *  - SENDING: nng sends its reply.
 *  - ENDED: the server is closing. */
typedef enum context_state { RECEIVING, HELD, SENDING, ENDED } context_state;

/* A context of nng, and the request that it has received. */
typedef struct rep_context rep_context;
struct rep_context {
    cop_request request; /* must be first: the code casts a request to its context */
    net_nng *nng;
    nng_ctx ctx;
    nng_aio *aio;
    context_state state; /* only one thread at a time uses the context, so there is no lock */
    cop_message reply;   /* the reply that will be encoded */
    cop_buffer *receipt; /* the receipt of the reply that nng is sending, released when it is
                            sent; or NULL */
    cop_task task;       /* for an encoder thread: encodes and sends the reply */
};

struct net_nng {
    cop_server *server;
    nng_socket socket;
    rep_context **contexts; /* array of CONTEXTS_MAX pointers */
    int count;              /* how many contexts exist */
    int wanted;             /* how many contexts must wait for a request at any time */
    atomic_int receiving;   /* how many contexts wait for a request */
    atomic_bool closing;    /* contexts do not receive again */
    atomic_int pipes;       /* number of connections, including those that are being refused */
    net_peers peers;
    tls_acceptor *acceptors[ACCEPTORS_MAX]; /* one for each tls+tcp:// address */
    int acceptor_count;
    cop_thread_pool *encoders;
    bool ending; /* net_nng_close was called */
};

/* ---- frames ---- */

static void free_message(cop_buffer *buffer) {
    nng_msg_free(buffer->owner);
    cop_free(buffer);
}

cop_buffer *net_wrap_message(nng_msg *message) {
    cop_buffer *buffer =
        cop_buffer_wrap(nng_msg_body(message), nng_msg_len(message), message, free_message);
    if (!buffer) nng_msg_free(message);
    return buffer;
}

nng_msg *net_make_frame(const cop_message *message) {
    nng_msg *frame;
    if (nng_msg_alloc(&frame, cop_codec_size(message))) return NULL;
    cop_codec_encode(message, nng_msg_body(frame));
    return frame;
}

/* ---- receiving: nng's threads ---- */

static void receive(rep_context *c) {
    c->state = RECEIVING;
    atomic_fetch_add(&c->nng->receiving, 1);
    nng_ctx_recv(c->ctx, c->aio);
}

/* Makes the context receive again, unless the server is closing. */
static void receive_again(rep_context *c) {
    if (atomic_load(&c->nng->closing))
        c->state = ENDED;
    else
        receive(c);
}

static void describe_peer(nng_pipe pipe, char out[64]) {
    nng_sockaddr address;
    snprintf(out, 64, "ipc");
    if (nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &address)) return;
    if (address.s_family == NNG_AF_INET) {
        const unsigned char *ip = (const unsigned char *)&address.s_in.sa_addr;
        unsigned port = (unsigned)__builtin_bswap16(address.s_in.sa_port);
        snprintf(out, 64, "%u.%u.%u.%u:%u", ip[0], ip[1], ip[2], ip[3], port);
    } else if (address.s_family == NNG_AF_INET6) {
        char ip[INET6_ADDRSTRLEN] = "";
        inet_ntop(AF_INET6, address.s_in6.sa_addr, ip, sizeof ip);
        snprintf(out, 64, "[%s]:%u", ip, (unsigned)__builtin_bswap16(address.s_in6.sa_port));
    }
}

/* What became of a message. ACCEPTED: it is a request for the server. ANSWERED: it was not
 * accepted, and nng is sending the reason to its sender. REFUSED: it was dropped. */
typedef enum acceptance { ACCEPTED, ANSWERED, REFUSED } acceptance;

/* Replies to a peer whose protocol has another major version. The reply is a FAILURE, which has the
 * same form in all versions, and its frame has the version of the peer. REFUSED: out of memory. */
static acceptance answer_other_version(rep_context *c, uint16_t version) {
    cop_message failure = {.type = COP_MESSAGE_FAILURE};
    nng_msg *frame;
    failure.failure.code = COP_ERR_VERSION;
    snprintf(failure.failure.text, sizeof failure.failure.text,
             "this coordinator (%s) speaks protocol %d, you speak %u: install the same major "
             "version",
             COP_VERSION, COP_PROTOCOL_MAJOR, version);
    if (nng_msg_alloc(&frame, cop_codec_size(&failure))) return REFUSED;
    cop_codec_encode_as(&failure, version, nng_msg_body(frame));
    cop_log_peer(COP_LOG_WARN, "net", c->request.address, "%s speaks protocol %u: refused",
                 c->request.address, version);
    c->state = SENDING;
    nng_aio_set_msg(c->aio, frame);
    nng_ctx_send(c->ctx, c->aio);
    return ANSWERED;
}

/* Decodes a message. If its frame is bad, the sender's connection is closed; other connections are
 * not affected. */
static acceptance accept_message(rep_context *c, nng_msg *message) {
    cop_server *server = c->nng->server;
    nng_pipe pipe = nng_msg_get_pipe(message);
    cop_error error = {0};
    atomic_fetch_add(&server->bytes_in, nng_msg_len(message));
    uint32_t listener = (uint32_t)nng_listener_id(nng_pipe_listener(pipe));
    if (!net_peers_find(&c->nng->peers, listener, &c->request.peer, c->request.address)) {
        nng_msg_free(message); /* the connection has ended */
        return REFUSED;
    }
    if (!c->request.address[0]) describe_peer(pipe, c->request.address);
    cop_buffer *frame = net_wrap_message(message);
    if (!frame) return REFUSED;
    cop_err e = cop_codec_decode(frame, &c->request.message, &error);
    const int version = cop_codec_version(frame);
    cop_buffer_release(frame);
    c->request.connection = (uint64_t)(uint32_t)nng_pipe_id(pipe);
    if (!e) return ACCEPTED;
    atomic_fetch_add(&server->bad_frames, 1);
    if (e == COP_ERR_VERSION && answer_other_version(c, (uint16_t)version) == ANSWERED)
        return ANSWERED;
    cop_log_peer(COP_LOG_WARN, "net", c->request.address, "%s: %s; connection closed",
                 c->request.address, error.text);
    nng_pipe_close(pipe);
    return REFUSED;
}

static void on_received(rep_context *c) {
    int failed = nng_aio_result(c->aio);
    atomic_fetch_sub(&c->nng->receiving, 1);
    if (failed == NNG_ECLOSED || failed == NNG_ECANCELED || atomic_load(&c->nng->closing)) {
        if (!failed) nng_msg_free(nng_aio_get_msg(c->aio));
        c->state = ENDED;
        return;
    }
    const acceptance how = failed ? REFUSED : accept_message(c, nng_aio_get_msg(c->aio));
    if (how == REFUSED) receive(c);
    if (how != ACCEPTED) return;
    c->state = HELD;
    c->request.item = (net_item){.kind = NET_ITEM_REQUEST, .request = &c->request};
    if (!net_server_push(c->nng->server, &c->request.item)) {
        cop_message_fini(&c->request.message);
        c->state = ENDED;
    }
}

static void on_sent(rep_context *c) {
    int failed = nng_aio_result(c->aio);
    if (failed) nng_msg_free(nng_aio_get_msg(c->aio)); /* the connection has ended */
    cop_buffer_release(c->receipt);
    c->receipt = NULL;
    if (failed == NNG_ECLOSED || atomic_load(&c->nng->closing))
        c->state = ENDED;
    else
        receive(c);
}

static void on_aio(void *argument) {
    rep_context *c = argument;
    COP_ASSERT(c->state == RECEIVING || c->state == SENDING);
    if (c->state == RECEIVING)
        on_received(c);
    else
        on_sent(c);
}

/* ---- replying: loop thread and encoder threads ---- */

static void send_reply(rep_context *c) {
    nng_msg *frame = atomic_load(&c->nng->closing) ? NULL : net_make_frame(&c->reply);
    COP_ASSERT(!c->receipt);
    if (frame) {
        c->receipt = c->reply.receipt;
        c->reply.receipt = NULL;
    }
    cop_message_fini(&c->reply);
    if (!frame) { /* out of memory or closing: without a reply, the peer's call will time out */
        receive_again(c);
        return;
    }
    atomic_fetch_add(&c->nng->server->bytes_out, nng_msg_len(frame));
    c->state = SENDING;
    nng_aio_set_msg(c->aio, frame);
    nng_ctx_send(c->ctx, c->aio);
}

static void encode_and_send(cop_task *task) {
    send_reply((rep_context *)(void *)((char *)task - offsetof(rep_context, task)));
}

static void nng_reply(cop_request *request, cop_message *message) {
    rep_context *c = (rep_context *)request;
    COP_ASSERT(c->state == HELD);
    cop_message_fini(&request->message);
    c->reply = *message;
    memset(message, 0, sizeof *message);
    size_t size = 0;
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        size += c->reply.part[i] ? c->reply.part[i]->size : 0;
    bool send_now = size <= INLINE_BYTES && c->nng->server->inline_replies_left-- > 0;
    if (send_now || atomic_load(&c->nng->closing))
        send_reply(c);
    else
        cop_thread_pool_submit(c->nng->encoders, &c->task);
}

static void nng_drop(cop_request *request) {
    rep_context *c = (rep_context *)request;
    COP_ASSERT(c->state == HELD);
    cop_message_fini(&request->message);
    receive_again(c);
}

static const net_transport nng_transport = {.reply = nng_reply, .drop = nng_drop};

/* ---- contexts ---- */

static rep_context *create_context(net_nng *nng) {
    rep_context *c = cop_alloc(sizeof *c);
    if (!c) return NULL;
    c->nng = nng;
    c->request.transport = &nng_transport;
    c->request.server = nng->server;
    c->task = (cop_task){.done = encode_and_send};
    if (nng_aio_alloc(&c->aio, on_aio, c)) {
        cop_free(c);
        return NULL;
    }
    if (nng_ctx_open(&c->ctx, nng->socket)) {
        nng_aio_free(c->aio);
        cop_free(c);
        return NULL;
    }
    return c;
}

/* Creates contexts until `wanted` of them wait for a request, however many requests the handler
 * holds. If no context waited, nng would not read from connections, and so would not notice that a
 * peer has died. */
static void ensure_contexts(net_nng *nng) {
    while (nng->count < CONTEXTS_MAX && atomic_load(&nng->receiving) < nng->wanted) {
        rep_context *c = create_context(nng);
        if (!c) return;
        nng->contexts[nng->count++] = c;
        receive(c);
    }
}

void net_nng_replenish(net_nng *nng) {
    ensure_contexts(nng);
}

void net_nng_expect_workers(net_nng *nng, int workers) {
    COP_ASSERT(workers >= 0 && workers <= CONTEXTS_MAX);
    int wanted = 2 * workers + 4;
    if (wanted > nng->wanted) nng->wanted = wanted;
    ensure_contexts(nng);
}

/* ---- sockets ---- */

/* Called by nng when a connection is new, before its first message, and when one has ended. */
static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument) {
    net_nng *nng = argument;
    bool gone = event == NNG_PIPE_EV_REM_POST;
    int before = atomic_fetch_add(&nng->pipes, gone ? -1 : 1);
    net_server_report(nng->server, gone ? NET_ITEM_DISCONNECTED : NET_ITEM_CONNECTED,
                      (uint64_t)(uint32_t)nng_pipe_id(pipe));
    if (gone || before < COP_CONNECTIONS_MAX) return;
    net_nng_count_refused(nng);
    nng_pipe_close(pipe);
}

cop_err net_nng_create(cop_server *server, net_nng **out, cop_error *error) {
    net_nng *nng = cop_alloc(sizeof *nng);
    if (nng) nng->contexts = cop_alloc_array(CONTEXTS_MAX, sizeof *nng->contexts);
    if (!nng || !nng->contexts || nng_rep0_open(&nng->socket)) {
        if (nng) cop_free(nng->contexts);
        cop_free(nng);
        return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for a socket");
    }
    nng->server = server;
    nng->wanted = CONTEXTS_FIRST;
    net_peers_init(&nng->peers);
    *out = nng; /* from here on, cop_server_destroy cleans up */
    COP_TRY(cop_thread_pool_create(ENCODERS, NULL, &nng->encoders, error));
    nng_pipe_notify(nng->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, nng);
    nng_pipe_notify(nng->socket, NNG_PIPE_EV_REM_POST, on_pipe, nng);
    ensure_contexts(nng);
    return COP_OK;
}

static cop_err listen_tls(net_nng *nng, const char *url, cop_error *error) {
    if (!nng->server->tls)
        return cop_fail(error, COP_ERR_USAGE,
                        "%s needs certificates: pass --tls-dir DIR, made by --init-tls DIR", url);
    if (nng->acceptor_count == ACCEPTORS_MAX)
        return cop_fail(error, COP_ERR_LIMIT, "too many tls+tcp:// addresses: at most %d",
                        ACCEPTORS_MAX);
    COP_TRY(net_tls_acceptor_start(nng, nng->server->tls, url, &nng->acceptors[nng->acceptor_count],
                                   error));
    nng->acceptor_count++;
    return COP_OK;
}

/* Returns our code for an nng error, and fills `error` with it and a sentence. */
static cop_err explain_listen(int failed, const char *url, cop_error *error) {
    cop_err code = failed == NNG_EADDRINUSE ? COP_ERR_IN_USE
                   : failed == NNG_EPERM    ? COP_ERR_DENIED
                   : failed == NNG_ENOMEM   ? COP_ERR_NO_MEMORY
                                            : COP_ERR_INPUT;
    return cop_fail(error, code, "cannot listen on %s: %s", url,
                    failed == NNG_EADDRINUSE ? "the address is in use by another program"
                                             : nng_strerror(failed));
}

/* Starts an nng listener for a tcp:// or ipc:// URL. Returns 0 or an nng error. */
static int start_listener(net_nng *nng, const char *url) {
    nng_listener listener;
    int failed = nng_listener_create(&listener, nng->socket, url);
    if (failed) return failed;
    nng_listener_set_size(listener, NNG_OPT_RECVMAXSZ, COP_FRAME_SIZE_MAX);
    if (strncmp(url, "ipc://", 6) == 0)
        nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS, 0600);
    if (strncmp(url, "tcp://", 6) == 0) nng_listener_set_bool(listener, NNG_OPT_TCP_NODELAY, true);
    uint32_t number = (uint32_t)nng_listener_id(listener);
    if (net_peers_add(&nng->peers, number, &(cop_peer){0}, ""))
        failed = nng_listener_start(listener, 0);
    else
        failed = NNG_ENOMEM;
    if (!failed) return 0;
    net_peers_remove(&nng->peers, number);
    nng_listener_close(listener);
    return failed;
}

/* Listens at every address that the host in the URL resolves to; nng itself would bind only the
 * first one. Skips addresses that this machine does not have (::1 of localhost on a machine without
 * IPv6). Fails only if this machine has none of the addresses. */
static cop_err listen_tcp(net_nng *nng, const char *url, cop_error *error) {
    net_addresses addresses;
    int bound = 0, absent = NNG_EADDRINVAL;
    COP_TRY(net_listen_addresses(url, &addresses, error));
    for (int i = 0; i < addresses.count; i++) {
        char host[INET6_ADDRSTRLEN], numbers[INET6_ADDRSTRLEN + 24], port[8];
        const bool six = addresses.at[i].ss_family == AF_INET6;
        if (getnameinfo((const struct sockaddr *)&addresses.at[i], addresses.size[i], host,
                        sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
            continue;
        snprintf(numbers, sizeof numbers, six ? "tcp://[%s]:%s" : "tcp://%s:%s", host, port);
        const int failed = start_listener(nng, numbers);
        if (failed && failed != NNG_EADDRINVAL && failed != NNG_ENOTSUP)
            return explain_listen(failed, url, error);
        bound += !failed;
        if (failed) absent = failed;
    }
    return bound ? COP_OK : explain_listen(absent, url, error);
}

cop_err net_nng_listen(net_nng *nng, const char *url, cop_error *error) {
    if (cop_url_is_tls(url)) return listen_tls(nng, url, error);
    if (strncmp(url, "tcp://", 6) == 0 && strncmp(url, "tcp://*:", 8) != 0)
        return listen_tcp(nng, url, error);
    const int failed = start_listener(nng, url);
    return failed ? explain_listen(failed, url, error) : COP_OK;
}

uint32_t net_nng_adopt(nng_socket socket, int fd,
                       void (*announce)(void *context, uint32_t listener), void *context) {
    nng_listener listener;
    COP_ASSERT(fd >= 0);
    if (nng_listener_create(&listener, socket, "socket://")) return 0;
    uint32_t number = (uint32_t)nng_listener_id(listener);
    if (announce) announce(context, number);
    int failed = nng_listener_set_size(listener, NNG_OPT_RECVMAXSZ, COP_FRAME_SIZE_MAX);
    if (!failed) failed = nng_listener_start(listener, 0);
    if (!failed) failed = nng_listener_set_int(listener, NNG_OPT_SOCKET_FD, fd);
    if (!failed) return number;
    nng_listener_close(listener);
    return 0;
}

void net_nng_release(uint32_t listener) {
    COP_ASSERT(listener);
    nng_listener_close((nng_listener){.id = listener});
}

nng_socket net_nng_socket(const net_nng *nng) {
    return nng->socket;
}

net_peers *net_nng_peers(net_nng *nng) {
    return &nng->peers;
}

void net_nng_count_refused(net_nng *nng) {
    atomic_fetch_add(&nng->server->refused, 1);
}

void net_nng_disconnect(net_nng *nng, uint64_t connection) {
    (void)nng;
    COP_ASSERT(connection < NET_MEMORY_CONNECTIONS);
    nng_pipe pipe = {.id = (uint32_t)connection};
    nng_pipe_close(pipe);
}

void net_nng_close(net_nng *nng) {
    COP_ASSERT(!nng->ending);
    nng->ending = true;
    cop_thread_pool_destroy(nng->encoders); /* first encodes and sends all queued replies */
    nng->encoders = NULL;
    atomic_store(&nng->closing, true);
    for (int i = 0; i < nng->acceptor_count; i++) net_tls_acceptor_begin_stop(nng->acceptors[i]);
    for (int i = 0; i < nng->acceptor_count; i++) net_tls_acceptor_stop(nng->acceptors[i]);
    nng->acceptor_count = 0;
    nng_close(nng->socket);
}

void net_nng_destroy(net_nng *nng) {
    COP_ASSERT(nng->ending && !nng->acceptor_count);
    for (int i = 0; i < nng->count; i++) {
        rep_context *c = nng->contexts[i];
        nng_aio_stop(c->aio); /* waits until its callback has returned */
        COP_ASSERT(c->state != HELD);
        nng_aio_free(c->aio);
        cop_free(c);
    }
    net_peers_fini(&nng->peers);
    cop_free(nng->contexts);
    cop_free(nng);
}
