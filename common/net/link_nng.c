/* nng REQ side: one socket, one connection, one call at a time. Our own retry, never nng's (W3). */
#include "common/net/internal.h"

#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/wire/codec.h"

#define RECONNECT_FIRST_MS 50
#define RECONNECT_MOST_MS  1000

typedef struct nng_link {
    cop_link base;
    nng_socket socket;
    nng_ctx ctx;
    nng_aio *aio;
    atomic_int pipes;         /* connections that stand */
    atomic_uint interrupts;   /* how often cop_link_interrupt was called */
    unsigned seen_interrupts; /* when the call under way began */
} nng_link;

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument) {
    nng_link *link = argument;
    (void)pipe;
    atomic_fetch_add(&link->pipes, event == NNG_PIPE_EV_REM_POST ? -1 : 1);
}

static cop_err explain(const nng_link *link, int failed, uint32_t timeout_ms, cop_error *error) {
    const char *address = link->base.address;
    if (atomic_load(&link->base.canceled))
        return cop_fail(error, COP_ERR_CLOSED, "the call to %s was canceled", address);
    switch (failed) {
    case NNG_ETIMEDOUT:
        if (atomic_load(&link->pipes) <= 0)
            return cop_fail(
                error, COP_ERR_UNREACHABLE,
                "no coordinator at %s (waited %.3g s): is it running, and is the address right?",
                address, timeout_ms / 1000.0);
        return cop_fail(error, COP_ERR_TIMEOUT,
                        "the coordinator at %s did not answer within %.3g s", address,
                        timeout_ms / 1000.0);
    case NNG_ENOMEM:
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    default:
        return cop_fail(error, COP_ERR_CLOSED, "the connection to %s was lost: %s", address,
                        nng_strerror(failed));
    }
}

/* Runs one operation of the aio until `deadline`; 0 or an nng error. */
static int run_aio(nng_link *link, void (*operation)(nng_ctx, nng_aio *), uint64_t deadline) {
    uint64_t now = cop_clock_ns();
    nng_aio_set_timeout(link->aio,
                        now < deadline ? (nng_duration)((deadline - now) / 1000000 + 1) : 1);
    operation(link->ctx, link->aio);
    /* A cancel or interrupt that came between two operations found none to cancel. */
    if (atomic_load(&link->base.canceled) ||
        atomic_load(&link->interrupts) != link->seen_interrupts)
        nng_aio_cancel(link->aio);
    nng_aio_wait(link->aio);
    return nng_aio_result(link->aio);
}

static cop_err nng_call(cop_link *base, cop_message *request, cop_message *reply,
                        uint32_t timeout_ms, cop_error *error) {
    nng_link *link = (nng_link *)(void *)base;
    uint64_t deadline = cop_clock_ns() + (uint64_t)timeout_ms * 1000000;
    link->seen_interrupts = atomic_load(&link->interrupts);
    nng_msg *frame = net_make_frame(request);
    cop_message_fini(request);
    if (!frame) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    nng_aio_set_msg(link->aio, frame);
    int failed = run_aio(link, nng_ctx_send, deadline);
    if (failed) {
        nng_msg_free(frame);
        return explain(link, failed, timeout_ms, error);
    }
    failed = run_aio(link, nng_ctx_recv, deadline);
    if (failed) return explain(link, failed, timeout_ms, error);
    cop_buffer *answer = net_wrap_message(nng_aio_get_msg(link->aio));
    if (!answer) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = cop_codec_decode(answer, reply, error);
    cop_buffer_release(answer);
    if (e) cop_error_prefix(error, "%s", base->address);
    return e;
}

static void nng_cancel(cop_link *base) {
    nng_aio_cancel(((nng_link *)(void *)base)->aio);
}

static void nng_interrupt(cop_link *base) {
    nng_link *link = (nng_link *)(void *)base;
    atomic_fetch_add(&link->interrupts, 1);
    nng_aio_cancel(link->aio);
}

static void nng_link_close(cop_link *base) {
    nng_link *link = (nng_link *)(void *)base;
    nng_close(link->socket);
    nng_aio_stop(link->aio);
    nng_aio_free(link->aio);
    cop_free(link);
}

static const net_link_ops nng_ops = {
    .call = nng_call, .cancel = nng_cancel, .interrupt = nng_interrupt, .close = nng_link_close};

/* Socket options and the dialer, which connects in the background. */
static int open_socket(nng_link *link, const char *url) {
    nng_dialer dialer;
    int failed = nng_req0_open(&link->socket);
    if (failed) return failed;
    nng_socket_set_ms(link->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    nng_socket_set_ms(link->socket, NNG_OPT_RECONNMINT, RECONNECT_FIRST_MS);
    nng_socket_set_ms(link->socket, NNG_OPT_RECONNMAXT, RECONNECT_MOST_MS);
    nng_pipe_notify(link->socket, NNG_PIPE_EV_ADD_POST, on_pipe, link);
    nng_pipe_notify(link->socket, NNG_PIPE_EV_REM_POST, on_pipe, link);
    failed = nng_ctx_open(&link->ctx, link->socket);
    if (!failed) failed = nng_ctx_set_ms(link->ctx, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (!failed) failed = nng_dialer_create(&dialer, link->socket, url);
    if (!failed) {
        nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, COP_FRAME_SIZE_MAX);
        if (strncmp(url, "tcp://", 6) == 0) nng_dialer_set_bool(dialer, NNG_OPT_TCP_NODELAY, true);
        failed = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    }
    if (failed) nng_close(link->socket);
    return failed;
}

cop_err cop_link_open(const char *url, cop_link **out, cop_error *error) {
    bool loopback;
    COP_TRY(cop_url_check(url, &loopback, error));
    nng_link *link = cop_alloc(sizeof *link);
    if (!link) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    link->base.ops = &nng_ops;
    snprintf(link->base.address, sizeof link->base.address, "%s", url);
    int failed = nng_aio_alloc(&link->aio, NULL, NULL);
    if (!failed) {
        failed = open_socket(link, url);
        if (failed) nng_aio_free(link->aio);
    }
    if (failed) {
        cop_free(link);
        return cop_fail(error, failed == NNG_ENOMEM ? COP_ERR_NO_MEMORY : COP_ERR_INPUT, "%s: %s",
                        url, nng_strerror(failed));
    }
    *out = &link->base;
    return COP_OK;
}
