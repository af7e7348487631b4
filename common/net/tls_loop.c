/* The thread and the loop of TLS connections: how they start, how deadlines end connections, and
 * how the loop stops after the last bytes. tls_pump.c has the connections themselves. See
 * tls_internal.h. */
#include "common/net/tls_internal.h"

#include <signal.h>

#include "common/base/clock.h"

#define TICK_MS      100
#define STOP_TICK_MS 5 /* replaces TICK_MS while the loop stops */

/* Ends the connections whose deadline has passed. */
static void expire(tls_loop *loop) {
    uint64_t now = cop_clock_ns();
    for (tls_conn *c = loop->waiting.first, *next; c; c = next) {
        next = c->next;
        if (c->deadline_ns > now) continue;
        net_tls_conn_end(c, c->state < TLS_OPEN ? "it was silent during the handshake" : "", false);
    }
}

static void on_tick(uv_timer_t *timer);

/* Called again and again while the loop stops. The first call makes open connections send only what
 * nng has written. Each call ends connections that are not open yet. After the last connection has
 * ended, it closes the loop's handles, so that the loop ends. */
static void stop_loop(tls_loop *loop) {
    if (!loop->stop_begun) {
        loop->stop_begun = true;
        loop->handler.on_stop(loop->owner);
        uv_timer_start(&loop->tick, on_tick, STOP_TICK_MS, STOP_TICK_MS);
        const uint64_t end_ns = atomic_load(&loop->end_ns);
        for (tls_conn *c = loop->waiting.first; c; c = c->next)
            if (c->deadline_ns > end_ns) c->deadline_ns = end_ns;
        while (loop->open.first) net_tls_conn_begin_close(loop->open.first);
    }
    for (tls_conn *c = loop->waiting.first, *next; c; c = next) {
        next = c->next;
        if (c->state < TLS_OPEN)
            net_tls_conn_end(c, "", false);
        else
            net_tls_conn_pump(c);
    }
    COP_ASSERT(!loop->open.first);
    if (loop->waiting.first || uv_is_closing((uv_handle_t *)&loop->tick)) return;
    uv_close((uv_handle_t *)&loop->tick, NULL);
    uv_close((uv_handle_t *)&loop->resume, NULL);
    uv_close((uv_handle_t *)&loop->wake, NULL);
}

static void on_tick(uv_timer_t *timer) {
    tls_loop *loop = timer->data;
    expire(loop);
    if (atomic_load(&loop->stopping)) {
        stop_loop(loop);
        return;
    }
    for (tls_conn *c = loop->waiting.first, *next; c; c = next) {
        next = c->next;
        if (c->state == TLS_LINGERING) net_tls_conn_pump(c);
    }
    loop->handler.on_tick(loop->owner);
}

static void on_wake(uv_async_t *wake) {
    tls_loop *loop = wake->data;
    if (atomic_load(&loop->stopping))
        stop_loop(loop);
    else
        loop->handler.on_tick(loop->owner);
}

static void run_loop(void *argument) {
    tls_loop *loop = argument;
    sigset_t signals; /* blocks SIGPIPE, because OpenSSL writes without MSG_NOSIGNAL */
    sigemptyset(&signals);
    sigaddset(&signals, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    uv_run(&loop->loop, UV_RUN_DEFAULT); /* returns after stop_loop has closed every handle */
}

cop_err net_tls_loop_start(tls_loop *loop, const tls_handler *handler, void *owner,
                           cop_error *error) {
    COP_ASSERT(handler->on_open && handler->on_end && handler->on_tick && handler->on_stop);
    *loop = (tls_loop){.handler = *handler, .owner = owner, .end_ns = UINT64_MAX};
    uv_loop_init(&loop->loop);
    uv_async_init(&loop->loop, &loop->wake, on_wake);
    uv_timer_init(&loop->loop, &loop->tick);
    uv_idle_init(&loop->loop, &loop->resume);
    loop->wake.data = loop->tick.data = loop->resume.data = loop;
    uv_timer_start(&loop->tick, on_tick, TICK_MS, TICK_MS);
    uv_async_send(&loop->wake); /* so that the owner's first on_tick does not wait for TICK_MS */
    if (uv_thread_create(&loop->thread, run_loop, loop) == 0) return COP_OK;
    stop_loop(loop);
    uv_run(&loop->loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop->loop);
    return cop_fail(error, COP_ERR_INTERNAL, "cannot start a thread for TLS");
}

void net_tls_loop_wake(tls_loop *loop) {
    uv_async_send(&loop->wake);
}

void net_tls_loop_begin_stop(tls_loop *loop, uint64_t linger_ms) {
    atomic_store(&loop->end_ns, cop_clock_ns() + linger_ms * 1000000);
    atomic_store(&loop->stopping, true);
    uv_async_send(&loop->wake);
}

void net_tls_loop_stop(tls_loop *loop) {
    COP_ASSERT(atomic_load(&loop->stopping));
    uv_thread_join(&loop->thread);
    const int busy = uv_loop_close(&loop->loop);
    COP_ASSERT(!busy);
}
