/* Links over nng's REQ protocol. A link has one socket, one connection, and one call at a time. nng
 * never sends a request again; callers repeat their calls instead. nng itself connects ipc:// URLs;
 * dial.c connects tcp:// and tls+tcp:// URLs. */
#include "common/net/internal.h"
#include "common/net/tls_internal.h"

#include <errno.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/wire/codec.h"

#define RECONNECT_FIRST_MS 50
#define RECONNECT_MAX_MS   1000

typedef struct nng_link {
    cop_link base;
    nng_socket socket;
    nng_ctx ctx;
    nng_aio *aio;
    net_dialer *dialer;  /* NULL: the URL is ipc://, or the link is being closed */
    atomic_int pipes;    /* number of open connections */
    atomic_uint pipe;    /* number of the newest connection */
    uint64_t deadline;   /* deadline of the last call, on the clock of cop_clock_ns */
    int timeouts;        /* how many calls have timed out since the last reply */
    uv_mutex_t mutex;    /* guards the rest, and `dialer` */
    uv_cond_t changed;   /* the operation has ended, or the call must end */
    bool aio_done;       /* the callback of the operation was called */
    bool interrupted;    /* the running call must end */
    bool impatient;      /* cop_link_set_impatient was called */
    net_failure failure; /* failure of the last attempt to connect since the call began;
                            NET_LATER: there was none */
    char reason[700];    /* why there is no connection; "": unknown */
} nng_link;

#define TIMEOUTS_MAX 2 /* after this many timeouts in a row, the connection is closed */

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument) {
    nng_link *link = argument;
    const bool gone = event == NNG_PIPE_EV_REM_POST;
    if (!gone) atomic_store(&link->pipe, pipe.id);
    atomic_fetch_add(&link->pipes, gone ? -1 : 1);
    uv_mutex_lock(&link->mutex);
    if (link->dialer) net_dial_note(link->dialer, gone);
    uv_mutex_unlock(&link->mutex);
}

/* True: there is no connection, and waiting for one does not help. The caller holds the mutex. */
static bool is_hopeless(const nng_link *link) {
    return link->failure > NET_ABSENT || (link->failure == NET_ABSENT && link->impatient);
}

static bool must_give_up(nng_link *link) {
    uv_mutex_lock(&link->mutex);
    bool hopeless = is_hopeless(link);
    uv_mutex_unlock(&link->mutex);
    return hopeless;
}

/* Fills `error` for a call that failed because there is no connection. */
static cop_err fail_unreachable(nng_link *link, uint32_t timeout_ms, cop_error *error) {
    uv_mutex_lock(&link->mutex);
    const net_failure failure = link->failure;
    const bool known = link->reason[0] != '\0', at_once = is_hopeless(link);
    char reason[700];
    snprintf(reason, sizeof reason, "%s", link->reason);
    uv_mutex_unlock(&link->mutex);
    if (failure == NET_OTHER_SCHEME) return cop_fail(error, COP_ERR_INPUT, "%s", reason);
    if (failure == NET_REFUSED)
        return cop_fail(error, COP_ERR_DENIED, "no connection to %s: %s", link->base.address,
                        reason);
    if (at_once)
        return cop_fail(error, COP_ERR_UNREACHABLE,
                        "no coordinator at %s (%s): is it running, and is the address right?",
                        link->base.address, reason);
    return cop_fail(error, COP_ERR_UNREACHABLE,
                    "no coordinator at %s (waited %.3g s%s%s): is it running, and is the address "
                    "right?",
                    link->base.address, timeout_ms / 1000.0, known ? "; " : "", reason);
}

static cop_err fail_call(nng_link *link, int failed, uint32_t timeout_ms, cop_error *error) {
    COP_ASSERT(failed);
    const char *address = link->base.address;
    if (atomic_load(&link->base.canceled))
        return cop_fail(error, COP_ERR_CLOSED, "the call to %s was canceled", address);
    if (must_give_up(link)) return fail_unreachable(link, timeout_ms, error);
    switch (failed) {
    case NNG_ETIMEDOUT:
        if (atomic_load(&link->pipes) <= 0) return fail_unreachable(link, timeout_ms, error);
        /* The coordinator's machine may have vanished. A new connection shows whether it has. */
        if (++link->timeouts >= TIMEOUTS_MAX) nng_pipe_close((nng_pipe){atomic_load(&link->pipe)});
        return cop_fail(error, COP_ERR_TIMEOUT,
                        "the coordinator at %s did not answer within %.3g s", address,
                        timeout_ms / 1000.0);
    case NNG_ENOMEM:
        return cop_no_memory(error);
    default:
        return cop_fail(error, COP_ERR_CLOSED, "the connection to %s was lost: %s", address,
                        nng_strerror(failed));
    }
}

static void on_aio_done(void *argument) {
    nng_link *link = argument;
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(!link->aio_done); /* one operation at a time */
    link->aio_done = true;
    uv_cond_signal(&link->changed);
    uv_mutex_unlock(&link->mutex);
}

/* True: the call must end before its operation does. The caller holds the mutex. */
static bool must_stop(const nng_link *link) {
    return link->interrupted || is_hopeless(link) || atomic_load(&link->base.canceled);
}

/* Waits until the running operation has ended or, if `may_stop` is true, until the call must end.
 * True: the operation has ended. */
static bool wait_for_aio(nng_link *link, bool may_stop) {
    uv_mutex_lock(&link->mutex);
    while (!link->aio_done && !(may_stop && must_stop(link)))
        uv_cond_wait(&link->changed, &link->mutex);
    bool done = link->aio_done;
    uv_mutex_unlock(&link->mutex);
    return done;
}

/* Runs one operation of the aio until `deadline`. Returns 0 or an nng error. No other function
 * cancels the aio, and only the aio's callback shows that the operation has ended. The reason is a
 * fault of nng 1.10 and 1.11 (nanomsg/nng#2208): if another thread cancels an operation that is
 * just beginning or ending, nng_aio_wait returns 0 while the operation continues. */
static int run_aio(nng_link *link, void (*operation)(nng_ctx, nng_aio *), uint64_t deadline) {
    uint64_t now = cop_clock_ns();
    nng_aio_set_timeout(link->aio,
                        now < deadline ? (nng_duration)((deadline - now) / 1000000 + 1) : 1);
    link->aio_done = false; /* no lock needed: no operation is running */
    operation(link->ctx, link->aio);
    if (!wait_for_aio(link, true)) {
        nng_aio_cancel(link->aio);
        const bool done = wait_for_aio(link, false);
        COP_ASSERT(done);
    }
    return nng_aio_result(link->aio);
}

/* Tries to connect to the path of an ipc:// URL and, if this fails, records the reason, because nng
 * does not report it. Does not block. The caller holds the mutex. */
static void probe_ipc(nng_link *link) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strncmp(link->base.address, "ipc://", 6) != 0 || atomic_load(&link->pipes) > 0) return;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", link->base.address + 6);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    const int number =
        connect(fd, (const struct sockaddr *)&at, sizeof at) == 0 || errno == EAGAIN ? 0 : errno;
    close(fd);
    if (!number) return;
    link->failure = NET_ABSENT;
    snprintf(link->reason, sizeof link->reason, "%s", strerror(number));
}

static cop_err nng_call(cop_link *base, cop_message *request, cop_message *reply,
                        uint32_t timeout_ms, cop_error *error) {
    nng_link *link = (nng_link *)(void *)base;
    const uint64_t deadline = cop_clock_ns() + (uint64_t)timeout_ms * 1000000;
    link->deadline = deadline;
    uv_mutex_lock(&link->mutex);
    link->interrupted = false;
    link->failure = NET_LATER; /* forget attempts from before the call */
    probe_ipc(link);
    uv_mutex_unlock(&link->mutex);
    nng_msg *frame = net_make_frame(request);
    cop_message_fini(request);
    if (!frame) return cop_no_memory(error);
    nng_aio_set_msg(link->aio, frame);
    int failed = run_aio(link, nng_ctx_send, deadline);
    if (failed) {
        nng_msg_free(frame);
        return fail_call(link, failed, timeout_ms, error);
    }
    failed = run_aio(link, nng_ctx_recv, deadline);
    if (failed) return fail_call(link, failed, timeout_ms, error);
    link->timeouts = 0;
    cop_buffer *answer = net_wrap_message(nng_aio_get_msg(link->aio));
    if (!answer) return cop_no_memory(error);
    cop_err e = cop_codec_decode(answer, reply, error);
    cop_buffer_release(answer);
    if (e) cop_error_prefix(error, "%s", base->address);
    return e;
}

static void nng_cancel(cop_link *base) {
    nng_link *link = (nng_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    uv_cond_signal(&link->changed);
    uv_mutex_unlock(&link->mutex);
}

static void nng_interrupt(cop_link *base) {
    nng_link *link = (nng_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    link->interrupted = true;
    uv_cond_signal(&link->changed);
    uv_mutex_unlock(&link->mutex);
}

/* Returns how many milliseconds closing may take to send the last bytes: until the deadline of the
 * last call, and at most TLS_LINGER_MS. */
static uint64_t linger_ms(const nng_link *link) {
    const uint64_t now = cop_clock_ns();
    const uint64_t left = now < link->deadline ? (link->deadline - now) / 1000000 : 0;
    return left < TLS_LINGER_MS ? left : TLS_LINGER_MS;
}

static void nng_link_close(cop_link *base) {
    nng_link *link = (nng_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    net_dialer *dialer = link->dialer;
    link->dialer = NULL; /* on_pipe may still be called until the socket is closed */
    uv_mutex_unlock(&link->mutex);
    if (dialer) net_dial_stop(dialer, linger_ms(link));
    nng_close(link->socket);
    nng_aio_stop(link->aio);
    nng_aio_free(link->aio);
    uv_cond_destroy(&link->changed);
    uv_mutex_destroy(&link->mutex);
    cop_free(link);
}

static void nng_set_impatient(cop_link *base) {
    nng_link *link = (nng_link *)(void *)base;
    uv_mutex_lock(&link->mutex);
    link->impatient = true;
    uv_mutex_unlock(&link->mutex);
}

static const net_link_ops nng_ops = {.call = nng_call,
                                     .cancel = nng_cancel,
                                     .interrupt = nng_interrupt,
                                     .set_impatient = nng_set_impatient,
                                     .close = nng_link_close};

/* ---- on the dialer's thread ---- */

static uint32_t on_dialed(void *owner, int fd) {
    nng_link *link = owner;
    uv_mutex_lock(&link->mutex);
    link->failure = NET_LATER;
    link->reason[0] = '\0';
    uv_mutex_unlock(&link->mutex);
    return net_nng_adopt(link->socket, fd, NULL, NULL);
}

/* Records the failure, and ends the running call if waiting for a connection does not help. */
static void on_dial_failed(void *owner, const char *reason, net_failure how) {
    nng_link *link = owner;
    uv_mutex_lock(&link->mutex);
    COP_ASSERT(*reason);
    if (!is_hopeless(link)) {
        snprintf(link->reason, sizeof link->reason, "%s", reason);
        link->failure = how;
    }
    uv_cond_signal(&link->changed);
    uv_mutex_unlock(&link->mutex);
}

/* ---- life ---- */

/* Starts nng's own dialer for an ipc:// URL. It connects in the background. Returns 0 or an nng
 * error. */
static int dial(nng_link *link, const char *url) {
    nng_dialer dialer;
    int failed = nng_dialer_create(&dialer, link->socket, url);
    if (failed) return failed;
    nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, COP_FRAME_SIZE_MAX);
    return nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
}

static int open_socket(nng_link *link) {
    int failed = nng_req0_open(&link->socket);
    if (failed) return failed;
    nng_socket_set_ms(link->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    nng_socket_set_ms(link->socket, NNG_OPT_RECONNMINT, RECONNECT_FIRST_MS);
    nng_socket_set_ms(link->socket, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS);
    nng_pipe_notify(link->socket, NNG_PIPE_EV_ADD_POST, on_pipe, link);
    nng_pipe_notify(link->socket, NNG_PIPE_EV_REM_POST, on_pipe, link);
    failed = nng_ctx_open(&link->ctx, link->socket);
    if (!failed) failed = nng_ctx_set_ms(link->ctx, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (failed) nng_close(link->socket);
    return failed;
}

static cop_err start(nng_link *link, const char *url, const cop_tls *tls, cop_error *error) {
    static const net_dial_handler handler = {.on_open = on_dialed, .on_failed = on_dial_failed};
    if (strncmp(url, "ipc://", 6) != 0)
        return net_dial_start(tls, url, &handler, link, &link->dialer, error);
    int failed = dial(link, url);
    if (!failed) return COP_OK;
    return cop_fail(error, failed == NNG_ENOMEM ? COP_ERR_NO_MEMORY : COP_ERR_INPUT, "%s: %s", url,
                    nng_strerror(failed));
}

cop_err cop_link_open(const char *url, const cop_tls *tls, cop_link **out, cop_error *error) {
    bool loopback;
    COP_TRY(cop_url_check(url, &loopback, error));
    if (cop_url_is_tls(url) && !tls)
        return cop_fail(error, COP_ERR_USAGE, "%s needs certificates: pass --tls-dir DIR", url);
    nng_link *link = cop_alloc(sizeof *link);
    if (!link) return cop_no_memory(error);
    link->base.ops = &nng_ops;
    snprintf(link->base.address, sizeof link->base.address, "%s", url);
    if (nng_aio_alloc(&link->aio, on_aio_done, link)) {
        cop_free(link);
        return cop_no_memory(error);
    }
    if (open_socket(link)) {
        nng_aio_free(link->aio);
        cop_free(link);
        return cop_fail(error, COP_ERR_NO_MEMORY, "no memory for a socket");
    }
    uv_mutex_init(&link->mutex);
    uv_cond_init(&link->changed);
    cop_err e = start(link, url, tls, error);
    if (e)
        nng_link_close(&link->base);
    else
        *out = &link->base;
    return e;
}
