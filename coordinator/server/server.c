/* Starts and stops the coordinator, and runs its loop thread. See server.h. */
#include "coordinator/server/server.h"

#include <stdio.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/net/http.h"
#include "coordinator/store/datasets.h"

#define TICK_MS     50 /* interval of on_tick */
#define STRIKES_MAX 3  /* see coord_core_config */
/* If `coppice run` cannot write its final weights, it tries again for this time. The time is short,
 * because a user waits for the end of the run. */
#define RUN_SAVE_PATIENCE_NS 5000000000u
/* Of `coppice run`: an estimate of what handing a lease to a second worker adds to a step. */
#define RUN_LEASE_SERIAL_NS 80000

static void on_tick(uv_timer_t *timer) {
    coord_server *server = timer->data;
    coord_event tick = {.type = COORD_EVENT_TICK};
    coord_dispatch(&server->engine, &tick);
    if (server->api) coord_api_tick(server->api, cop_clock_ns());
    coord_lending_socket_tick(&server->lending, cop_clock_ns());
    if (server->http) coord_http_tick(server->http, !server->engine.stopping);
    cop_log_write_suppressed();
    if (server->run) coord_run_tick(server);
}

/* ---- loop thread ---- */

static cop_err open_loop(coord_server *server, cop_error *error) {
    static const cop_server_handler handler = {.on_request = coord_on_request,
                                               .on_gone = coord_on_gone};
    if (uv_timer_init(&server->engine.loop, &server->tick))
        return cop_fail(error, COP_ERR_INTERNAL, "cannot create a timer");
    server->tick.data = server;
    server->handles_open = true;
    COP_TRY(cop_server_create(&server->engine.loop, &handler, server, &server->transport, error));
    cop_server_set_tls(server->transport, server->config.tls);
    coord_share_start(server);
    COP_TRY(coord_lending_socket_open(server, error));
    for (const char *const *url = server->config.listen; url && *url; url++) {
        COP_TRY(cop_server_listen(server->transport, *url, error));
        cop_log(COP_LOG_INFO, "coordinator", "listening on %s", *url);
    }
    if (server->api) COP_TRY(coord_api_recover(server->api, error));
    if (server->config.http)
        COP_TRY(coord_http_start(server->config.http, server->transport, &server->http, error));
    uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
    coord_loop_latency_start(&server->engine.latency, &server->engine.loop);
    return COP_OK;
}

/* Answers every held PULL with CLOSED, so the workers learn at once that the coordinator stops. */
static void release_sessions(coord_server *server) {
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) {
        coord_session *s = &server->access.sessions[i];
        COP_ASSERT(!s->hashing && !s->digesting); /* finish_work has ended all hashing */
        coord_share_end(s);
        if (!s->held) continue;
        cop_request *request = (cop_request *)(uintptr_t)coord_take_request(&s->held);
        coord_reply_failure(request, COP_ERR_CLOSED, "the coordinator is stopping");
    }
}

static void close_handle(uv_handle_t *handle, void *unused) {
    (void)unused;
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static void log_loop_latency(const coord_server *server) {
    const coord_times *t = &server->engine.latency.away;
    cop_log(
        server->api && t->count ? COP_LOG_INFO : COP_LOG_DEBUG, "coordinator",
        "%llu loop iterations: 99 %% took at most %.2f ms, 99.9 %% %.2f ms, the longest %.2f ms",
        (unsigned long long)t->count, (double)coord_times_quantile(t, 0.99) * 1e-6,
        (double)coord_times_quantile(t, 0.999) * 1e-6, (double)t->max_ns * 1e-6);
}

/* Waits until the other threads have finished their work, and handles their mail. Afterwards no
 * thread posts any more mail. */
static void finish_work(coord_server *server) {
    cop_thread_pool_destroy(server->engine.pool);
    cop_thread_pool_destroy(server->engine.saver);
    server->engine.pool = NULL;
    server->engine.saver = NULL;
    while (server->engine.recomputing) uv_run(&server->engine.loop, UV_RUN_ONCE);
    coord_engine_read_mail(&server->engine);
    if (server->api) coord_api_release(server->api);
    coord_engine_read_mail(&server->engine);
}

static void run_loop(void *argument) {
    coord_server *server = argument;
    COP_ASSERT(!server->transport);
    cop_compute_thread_init();
    cop_err e = open_loop(server, &server->start_error);
    server->start_error.code = e;
    uv_sem_post(&server->ready);
    if (e == COP_OK) uv_run(&server->engine.loop, UV_RUN_DEFAULT); /* until ACTION_STOPPED */
    log_loop_latency(server);
    finish_work(server);
    release_sessions(server);
    if (server->transport) {
        cop_server_close(server->transport);
        coord_http_stop(server->http);
        cop_server_destroy(server->transport);
    }
    uv_mutex_lock(&server->engine.mail_mutex);
    uv_walk(&server->engine.loop, close_handle, NULL);
    uv_mutex_unlock(&server->engine.mail_mutex);
    uv_run(&server->engine.loop, UV_RUN_DEFAULT);
}

/* ---- start and stop ---- */

/* Checks the addresses to listen on. USAGE: an address needs certificates and there are none, or
 * other machines could reach it without encryption and `insecure` is not set. */
static cop_err check_urls(const coord_config *config, cop_error *error) {
    for (const char *const *url = config->listen; url && *url; url++) {
        bool loopback = false;
        COP_TRY(cop_url_check(*url, &loopback, error));
        if (cop_url_is_tls(*url) && !config->tls)
            return cop_fail(error, COP_ERR_USAGE,
                            "%s needs certificates: pass --tls-dir DIR, made by "
                            "coppice-coordinator --init-tls DIR",
                            *url);
        if (loopback || cop_url_is_tls(*url)) continue;
        if (!config->insecure)
            return cop_fail(error, COP_ERR_USAGE,
                            "%s is reachable from other machines and its traffic is not encrypted: "
                            "listen on tls+tcp:// (--init-tls makes certificates) or on "
                            "127.0.0.1, or pass --insecure if the network is trusted",
                            *url);
        cop_log(COP_LOG_WARN, "coordinator",
                "%s is reachable from other machines without encryption (--insecure)", *url);
    }
    return COP_OK;
}

/* Checks the address of the HTTP server, which has no TLS yet. USAGE: other machines could reach it
 * and `insecure` is not set. */
static cop_err check_http(const coord_config *config, cop_error *error) {
    bool loopback = false;
    if (!config->http) return COP_OK;
    COP_TRY(cop_http_check(config->http, &loopback, error));
    if (loopback) return COP_OK;
    if (!config->insecure)
        return cop_fail(error, COP_ERR_USAGE,
                        "--http %s is reachable from other machines and its traffic is not "
                        "encrypted: use 127.0.0.1 behind a proxy with TLS, or pass --insecure if "
                        "the network is trusted",
                        config->http);
    cop_log(COP_LOG_WARN, "coordinator",
            "--http %s is reachable from other machines without encryption (--insecure)",
            config->http);
    return COP_OK;
}

static int default_update_threads(void) {
    unsigned cores = uv_available_parallelism();
    return cores < 1 ? 1 : cores > 4 ? 4 : (int)cores;
}

/* Adds the lanes of the coordinator to the profile, if there is one. */
static void add_lanes(coord_server *server, int threads) {
    cop_profile *profile = server->config.profile;
    coord_engine *engine = &server->engine;
    engine->latency.lane = cop_profile_lane(profile, COP_LANE_LOOP, "coordinator", "loop");
    engine->updates = cop_profile_lane(profile, COP_LANE_UPDATES, "coordinator", "updates");
    for (int i = 0; i < threads && i < COP_WORKER_THREADS_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "update %d", i + 1);
        engine->update_lanes[i] = cop_profile_lane(profile, COP_LANE_UPDATE, "coordinator", name);
    }
}

static cop_err create_parts(coord_server *server, cop_error *error) {
    COP_ASSERT(!server->engine.core && !server->access.sessions);
    server->access.sessions = cop_alloc_array(COP_WORKERS_MAX, sizeof *server->access.sessions);
    if (!server->access.sessions) return cop_no_memory(error);
    COP_TRY(coord_engine_reserve(&server->engine, error));
    bool remote = server->config.listen && *server->config.listen;
    coord_core_config core = {
        .heartbeats = remote,
        .speculate = remote,
        .lease_serial_ns = remote ? 0 : RUN_LEASE_SERIAL_NS,
        .can_recompute = true,
        .strikes_max = STRIKES_MAX,
        .evaluations_max = COP_EVALUATIONS_MAX,
        .save_patience_ns = remote ? 0 : RUN_SAVE_PATIENCE_NS,
    };
    char fingerprint[128] = "";
    if (!server->config.portable) cop_numerics_fingerprint(COP_NUMERICS_OPENBLAS, fingerprint);
    if (*fingerprint) core.fingerprint = cop_hash_xxh3(fingerprint, strlen(fingerprint));
    cop_random_bytes(core.secret, sizeof core.secret);
    cop_random_bytes(server->engine.digest_secret, sizeof server->engine.digest_secret);
    COP_TRY(coord_core_create(&core, &server->engine.core));
    int threads = server->config.update_threads;
    if (threads < 1) threads = default_update_threads();
    COP_TRY(cop_thread_pool_create(threads, cop_compute_thread_init, &server->engine.pool, error));
    add_lanes(server, threads);
    COP_TRY(cop_thread_pool_create(1, NULL, &server->engine.saver, error));
    if (server->engine.state_folder) COP_TRY(coord_open_state(server, error));
    return COP_OK;
}

/* Frees the server. The loop thread must have ended, or must never have started. */
static void destroy(coord_server *server) {
    cop_thread_pool_destroy(server->engine.saver);
    cop_thread_pool_destroy(server->engine.pool);
    if (server->run_shared) coord_run_destroy(server->run_shared);
    if (server->api) coord_api_destroy(server->api);
    if (server->engine.datasets) coord_datasets_close(server->engine.datasets);
    if (server->engine.store) coord_store_close(server->engine.store);
    if (server->engine.core) coord_core_destroy(server->engine.core);
    coord_engine_fini(&server->engine);
    coord_share_stop(server);
    if (server->lock_file >= 0) close(server->lock_file);
    uv_sem_destroy(&server->ready);
    cop_free(server->access.sessions);
    cop_free(server->data_folder);
    cop_free(server);
}

static cop_err copy_config(coord_server *server, const coord_config *config, cop_error *error) {
    server->config = *config;
    server->access.config = &server->config;
    if (config->state) server->engine.state_folder = cop_strdup(config->state);
    if (config->data_folder) server->data_folder = cop_strdup(config->data_folder);
    if ((config->state && !server->engine.state_folder) ||
        (config->data_folder && !server->data_folder))
        return cop_no_memory(error);
    return COP_OK;
}

cop_err coord_start(const coord_config *config, coord_server **out, cop_error *error) {
    COP_ASSERT(config->kernels != NULL);
    COP_TRY(check_urls(config, error));
    COP_TRY(check_http(config, error));
    coord_server *server = cop_alloc(sizeof *server);
    if (!server) return cop_no_memory(error);
    server->lock_file = -1;
    server->engine.owner = server;
    server->engine.carry_out = coord_carry_out;
    server->engine.kernels = config->kernels;
    coord_engine_init(&server->engine);
    uv_sem_init(&server->ready, 0);
    cop_err e = copy_config(server, config, error);
    if (!e) e = create_parts(server, error);
    if (!e && uv_thread_create(&server->thread, run_loop, server))
        e = cop_fail(error, COP_ERR_INTERNAL, "cannot start the coordinator's thread");
    if (e) { /* there is no loop thread that could close the loop's handles */
        uv_walk(&server->engine.loop, close_handle, NULL);
        uv_run(&server->engine.loop, UV_RUN_DEFAULT);
        destroy(server);
        return e;
    }
    uv_sem_wait(&server->ready);
    if (server->start_error.code) {
        uv_thread_join(&server->thread);
        if (error) *error = server->start_error;
        e = server->start_error.code;
        destroy(server);
        return e;
    }
    *out = server;
    return COP_OK;
}

static void stop_on_loop(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    (void)mail;
    coord_event stop = {.type = COORD_EVENT_STOP};
    server->engine.stopping = true;
    coord_dispatch(&server->engine, &stop); /* ACTION_STOPPED follows when all jobs are saved */
}

void coord_stop(coord_server *server) {
    if (!server) return;
    coord_mail mail = {.run = stop_on_loop};
    coord_post(&server->engine, &mail);
    uv_thread_join(&server->thread);
    destroy(server);
}

cop_server *coord_transport(coord_server *server) {
    return server->transport;
}

const char *coord_token(const coord_server *server) {
    return server->access.token;
}
