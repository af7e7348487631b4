/* The coordinator's host: start and stop, the loop thread, the mailbox, and the one place where
 * events meet the core. */
#include "coordinator/server/host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "coordinator/store/datasets.h"

#define TICK_MS     50
#define QUEUE_FIRST 2048
#define QUEUE_OWN   1024 /* of these: places that events of peers do not take */
#define STRIKES_MAX 3
/* Somebody waits for a run in the terminal. */
#define RUN_SAVE_PATIENCE_NS 5000000000u

/* ---- mailbox ---- */

void coord_post(coord_server *server, coord_mail *mail) {
    mail->next = NULL;
    uv_mutex_lock(&server->mail_mutex);
    if (server->mail_tail)
        server->mail_tail->next = mail;
    else
        server->mail_head = mail;
    server->mail_tail = mail;
    uv_async_send(&server->wake); /* under the mutex: the handle cannot be closed before */
    uv_mutex_unlock(&server->mail_mutex);
}

static void read_mail(uv_async_t *wake) {
    coord_server *server = wake->data;
    uv_mutex_lock(&server->mail_mutex);
    coord_mail *mail = server->mail_head;
    server->mail_head = server->mail_tail = NULL;
    uv_mutex_unlock(&server->mail_mutex);
    while (mail) {
        coord_mail *next = mail->next;
        mail->run(server, mail); /* may free or reuse the mail */
        mail = next;
    }
}

/* ---- events ---- */

/* Room for so many waiting events; at set-up, for all that can come in a moment without memory. */
static bool queue_reserve(coord_server *server, uint32_t count) {
    if (count <= server->queue_capacity) return true;
    const uint32_t capacity = server->queue_capacity ? server->queue_capacity * 2 : QUEUE_FIRST;
    coord_waiting *queue = cop_realloc(server->queue, capacity * sizeof *queue);
    if (!queue) return false;
    server->queue = queue;
    server->queue_capacity = capacity;
    return true;
}

/* The core had no memory for it: is it told again? Not what comes again by itself (a worker that
 * the core does not know says HELLO once more), nor an evaluation, whose client is told. */
static bool may_wait(const coord_event *e) {
    switch (e->type) {
    case COORD_EVENT_TICK:
    case COORD_EVENT_HEARTBEAT:
    case COORD_EVENT_WORKER_JOINED:
        return false;
    case COORD_EVENT_JOB_ADDED:
        return e->info.kind == COORD_TRAINING;
    default:
        return true;
    }
}

/* Is it repeated when it is lost? A worker asks again, its lease runs out and is given again. What
 * the coordinator's own parts report (a block was computed, weights were updated) comes once. */
static bool comes_again(const coord_event *e) {
    return e->type == COORD_EVENT_TICK || e->type == COORD_EVENT_HEARTBEAT ||
           e->type == COORD_EVENT_WORKER_JOINED || e->type == COORD_EVENT_PULL ||
           (e->type == COORD_EVENT_RESULT && e->worker != COORD_SELF);
}

/* Those from `from` on stay in the queue, in their order. */
static void keep_waiting(coord_server *server, uint32_t from) {
    const bool before = server->starved;
    uint32_t count = 0;
    for (uint32_t i = from; i < server->queue_count; i++) {
        if (!may_wait(&server->queue[i].event)) continue;
        if (count != i) server->queue[count] = server->queue[i];
        count++;
    }
    server->queue_count = count;
    server->starved = count > 0;
    if (server->starved && !before)
        cop_log(COP_LOG_ERROR, "coordinator", "out of memory: what comes in waits");
    if (!server->starved && before)
        cop_log(COP_LOG_INFO, "coordinator", "there is memory again: it goes on");
}

/* The next waiting event; false: it, and all behind it, must wait. */
static bool dispatch_one(coord_server *server, uint32_t at) {
    coord_event now = server->queue[at].event;
    if (now.text) now.text = server->queue[at].text; /* the queue does not move while it decides */
    cop_err e = coord_core_step(server->core, &now, cop_clock_ns(), &server->actions);
    if (e == COP_ERR_NO_MEMORY && may_wait(&now)) return false;
    if (e)
        cop_log_peer(COP_LOG_ERROR, "coordinator", "", "event %d not taken: %s", (int)now.type,
                     cop_err_text(e));
    for (uint32_t a = 0; !e && a < server->actions.count; a++)
        coord_carry_out(server, &server->actions.items[a]);
    return true;
}

bool coord_dispatch(coord_server *server, const coord_event *event) {
    const bool again = comes_again(event);
    if (!queue_reserve(server, server->queue_count + 1 + (again ? QUEUE_OWN : 0))) {
        cop_log_peer(COP_LOG_ERROR, "coordinator", "", "out of memory: an event was lost%s",
                     again ? "; leases will run out and be given again" : "");
        return false;
    }
    coord_waiting *w = &server->queue[server->queue_count++];
    w->event = *event;
    if (event->text) snprintf(w->text, sizeof w->text, "%s", event->text);
    if (server->dispatching) return true; /* the loop below takes it */
    server->dispatching = true;
    uint32_t at = 0;
    while (at < server->queue_count && dispatch_one(server, at)) at++;
    keep_waiting(server, at);
    server->dispatching = false;
    return true;
}

static void on_tick(uv_timer_t *timer) {
    coord_server *server = timer->data;
    coord_event tick = {.type = COORD_EVENT_TICK};
    coord_dispatch(server, &tick);
    if (server->api) coord_api_tick(server, cop_clock_ns());
    cop_log_settle();
    if (server->run) coord_run_tick(server);
}

/* ---- loop thread ---- */

static cop_err open_loop(coord_server *server, cop_error *error) {
    static const cop_server_handler handler = {.on_request = coord_on_request,
                                               .on_gone = coord_on_gone};
    if (uv_timer_init(&server->loop, &server->tick))
        return cop_fail(error, COP_ERR_INTERNAL, "cannot make a timer");
    server->tick.data = server;
    server->handles_open = true;
    COP_TRY(cop_server_create(&server->loop, &handler, server, &server->transport, error));
    cop_server_set_tls(server->transport, server->config.tls);
    for (const char *const *url = server->config.listen; url && *url; url++) {
        COP_TRY(cop_server_listen(server->transport, *url, error));
        cop_log(COP_LOG_INFO, "coordinator", "listening on %s", *url);
    }
    if (server->api) COP_TRY(coord_api_recover(server, error));
    uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
    coord_stalls_start(&server->stalls, &server->loop);
    return COP_OK;
}

/* Answers every held pull, so that workers learn at once that the coordinator goes. */
static void release_sessions(coord_server *server) {
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++) {
        coord_session *s = &server->sessions[i];
        uint64_t open = s->held ? s->held : s->digesting; /* never both */
        if (!open) continue;
        cop_request *request = (cop_request *)(uintptr_t)open;
        s->held = s->digesting = 0;
        coord_reply_failure(request, COP_ERR_CLOSED, "the coordinator is stopping");
    }
}

static void close_handle(uv_handle_t *handle, void *unused) {
    (void)unused;
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static void tell_stalls(const coord_server *server) {
    const coord_times *t = &server->stalls.away;
    cop_log(server->api && t->count ? COP_LOG_INFO : COP_LOG_DEBUG, "coordinator",
            "%llu rounds of the loop: 99 %% took at most %.2f ms, 99.9 %% %.2f ms, the longest "
            "%.2f ms",
            (unsigned long long)t->count, (double)coord_times_at(t, 0.99) * 1e-6,
            (double)coord_times_at(t, 0.999) * 1e-6, (double)t->most_ns * 1e-6);
}

/* What the other threads still do is finished, and their mail is read: nobody posts after this. */
static void finish_work(coord_server *server) {
    if (server->pool) coord_pool_destroy(server->pool);
    if (server->saver) coord_saver_destroy(server->saver);
    server->pool = NULL;
    server->saver = NULL;
    while (server->judging) uv_run(&server->loop, UV_RUN_ONCE);
    read_mail(&server->wake);
    if (server->api) coord_api_release(server);
    read_mail(&server->wake);
}

static void run_loop(void *argument) {
    coord_server *server = argument;
    cop_compute_thread_init();
    cop_err e = open_loop(server, &server->start_error);
    server->start_error.code = e;
    uv_sem_post(&server->ready);
    if (e == COP_OK) uv_run(&server->loop, UV_RUN_DEFAULT); /* until finish_stop calls uv_stop */
    tell_stalls(server);
    finish_work(server);
    release_sessions(server);
    if (server->transport) {
        cop_server_close(server->transport);
        cop_server_destroy(server->transport);
    }
    uv_mutex_lock(&server->mail_mutex);
    uv_walk(&server->loop, close_handle, NULL);
    uv_mutex_unlock(&server->mail_mutex);
    uv_run(&server->loop, UV_RUN_DEFAULT);
}

/* ---- files of the state folder ---- */

/* One coordinator per state folder. */
static cop_err lock_folder(coord_server *server, cop_error *error) {
    char *path = cop_path_join(server->state_folder, "lock");
    if (!path) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    server->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cop_err e = COP_OK;
    if (server->lock_file < 0)
        e = cop_fail_errno(error, errno, "cannot open %s", path);
    else if (flock(server->lock_file, LOCK_EX | LOCK_NB))
        e = errno == EWOULDBLOCK
                ? cop_fail(error, COP_ERR_IN_USE, "%s: another coordinator uses this state folder",
                           server->state_folder)
                : cop_fail_errno(error, errno, "cannot lock %s", path);
    cop_free(path);
    return e;
}

/* A token that others could read is made private again, and that is told. */
static cop_err keep_token_private(const char *path, cop_error *error) {
    struct stat status;
    size_t changed;
    if (stat(path, &status) != 0) return cop_fail_errno(error, errno, "cannot open %s", path);
    COP_TRY(cop_folder_make_private(path, &changed, error));
    if (changed)
        cop_log(COP_LOG_WARN, "coordinator",
                "%s had mode %04o: others could read it. It has 0600 now; remove it to get a new "
                "token",
                path, (unsigned)status.st_mode & 07777);
    return COP_OK;
}

/* What an earlier version made by its umask is made private, too. A folder that is somebody else's,
 * as a volume's root may be, cannot be; what is made in it is. */
static void keep_state_private(const coord_server *server) {
    cop_error error = {0};
    size_t changed;
    const cop_err e = cop_folder_make_private(server->state_folder, &changed, &error);
    if (e) cop_log(COP_LOG_WARN, "coordinator", "%s", error.text);
    if (changed)
        cop_log(COP_LOG_WARN, "coordinator",
                "%s: others could use %zu files or folders there; they are private now",
                server->state_folder, changed);
}

/* The token that workers and clients must know: made once, mode 0600. */
static cop_err read_token(coord_server *server, cop_error *error) {
    char *path = cop_path_join(server->state_folder, "token");
    if (!path) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = COP_OK;
    if (!cop_file_exists(path)) {
        unsigned char random[32];
        char hex[66];
        cop_random_bytes(random, sizeof random);
        cop_hex32(random, hex);
        hex[64] = '\n';
        cop_file_part part = {hex, 65};
        e = cop_file_write(path, &part, 1, 0600, error);
    }
    char *text = NULL;
    size_t size = 0;
    if (!e) e = keep_token_private(path, error);
    if (!e) e = cop_file_read(path, 4096, &text, &size, error);
    if (!e) {
        size_t length = strcspn(text, " \r\n");
        if (length < 16 || length >= sizeof server->token)
            e = cop_fail(error, COP_ERR_CORRUPT,
                         "%s: expected 16 to 64 characters; remove the file to get a new token",
                         path);
        else
            memcpy(server->token, text, length);
    }
    cop_free(text);
    cop_free(path);
    return e;
}

static cop_err open_state(coord_server *server, cop_error *error) {
    cop_file_make_private_only(); /* SQLite's files and checkpoints, too */
    COP_TRY(cop_folder_create(server->state_folder, error));
    COP_TRY(lock_folder(server, error));
    COP_TRY(read_token(server, error));
    keep_state_private(server);
    cop_folder_sweep(server->state_folder);
    char *path = cop_path_join(server->state_folder, "store.sqlite");
    if (!path) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = coord_store_open(path, &server->store, error);
    cop_free(path);
    COP_TRY(e);
    COP_TRY(coord_datasets_open(server->store, server->state_folder, server->data_folder,
                                server->config.quota, &server->datasets, error));
    return coord_api_create(server, &server->api, error);
}

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

/* ---- start and stop ---- */

static int default_update_threads(void) {
    unsigned cores = uv_available_parallelism();
    return cores < 1 ? 1 : cores > 4 ? 4 : (int)cores;
}

static cop_err create_parts(coord_server *server, cop_error *error) {
    server->sessions = cop_alloc_array(COP_WORKERS_MAX, sizeof *server->sessions);
    server->slots = cop_alloc_array(COORD_SLOTS_MAX, sizeof *server->slots);
    if (!server->sessions || !server->slots || !queue_reserve(server, QUEUE_FIRST))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    bool remote = server->config.listen && *server->config.listen;
    coord_core_config core = {
        .heartbeats = remote,
        .speculate = remote,
        .judge = true,
        .strikes_max = STRIKES_MAX,
        .evaluations_max = COP_EVALUATIONS_MAX,
        .save_patience_ns = remote ? 0 : RUN_SAVE_PATIENCE_NS,
    };
    char fingerprint[128] = "";
    if (!server->config.portable) cop_numerics_fingerprint(COP_NUMERICS_OPENBLAS, fingerprint);
    if (*fingerprint) core.fingerprint = cop_hash_xxh3(fingerprint, strlen(fingerprint));
    cop_random_bytes(core.secret, sizeof core.secret);
    cop_random_bytes(server->digest_secret, sizeof server->digest_secret);
    COP_TRY(coord_core_create(&core, &server->core));
    int threads = server->config.update_threads;
    COP_TRY(
        coord_pool_create(threads > 0 ? threads : default_update_threads(), &server->pool, error));
    COP_TRY(coord_saver_create(server, &server->saver, error));
    if (server->state_folder) COP_TRY(open_state(server, error));
    return COP_OK;
}

static void destroy(coord_server *server) {
    if (server->saver) coord_saver_destroy(server->saver);
    if (server->pool) coord_pool_destroy(server->pool);
    for (uint32_t i = 0; i < COORD_RESIDENT_MAX; i++)
        if (server->resident[i].id) coord_resident_fini(&server->resident[i]);
    for (uint32_t i = 0; i < COP_EVALUATION_PLACES; i++)
        coord_evaluation_free(server->evaluations[i]);
    for (uint32_t i = 0; server->slots && i < COORD_SLOTS_MAX; i++)
        cop_buffer_release(server->slots[i].gradient);
    if (server->run_shared) coord_run_destroy(server->run_shared);
    if (server->api) coord_api_destroy(server->api);
    if (server->datasets) coord_datasets_close(server->datasets);
    if (server->store) coord_store_close(server->store);
    if (server->core) coord_core_destroy(server->core);
    coord_actions_fini(&server->actions);
    if (server->lock_file >= 0) close(server->lock_file);
    uv_loop_close(&server->loop);
    uv_mutex_destroy(&server->mail_mutex);
    uv_sem_destroy(&server->ready);
    cop_free(server->sessions);
    cop_free(server->slots);
    cop_free(server->queue);
    cop_free(server->state_folder);
    cop_free(server->data_folder);
    cop_free(server);
}

static cop_err copy_config(coord_server *server, const coord_config *config, cop_error *error) {
    server->config = *config;
    if (config->state) server->state_folder = cop_strdup(config->state);
    if (config->data_folder) server->data_folder = cop_strdup(config->data_folder);
    if ((config->state && !server->state_folder) || (config->data_folder && !server->data_folder))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    return COP_OK;
}

cop_err coord_start(const coord_config *config, coord_server **out, cop_error *error) {
    COP_TRY(check_urls(config, error));
    coord_server *server = cop_alloc(sizeof *server);
    if (!server) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    server->lock_file = -1;
    server->started_ns = cop_clock_ns();
    uv_loop_init(&server->loop);
    uv_loop_configure(&server->loop, UV_METRICS_IDLE_TIME);
    uv_mutex_init(&server->mail_mutex);
    uv_sem_init(&server->ready, 0);
    uv_async_init(&server->loop, &server->wake, read_mail);
    server->wake.data = server;
    cop_err e = copy_config(server, config, error);
    if (!e) e = create_parts(server, error);
    if (!e && uv_thread_create(&server->thread, run_loop, server))
        e = cop_fail(error, COP_ERR_INTERNAL, "cannot start the coordinator's thread");
    if (e) { /* no thread: close the loop's handles here */
        uv_walk(&server->loop, close_handle, NULL);
        uv_run(&server->loop, UV_RUN_DEFAULT);
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

static void stop_on_loop(coord_server *server, coord_mail *mail) {
    (void)mail;
    coord_event stop = {.type = COORD_EVENT_STOP};
    server->stopping = true;
    coord_dispatch(server, &stop); /* ends with ACTION_STOPPED -> uv_stop */
}

void coord_stop(coord_server *server) {
    if (!server) return;
    coord_mail mail = {.run = stop_on_loop};
    coord_post(server, &mail);
    uv_thread_join(&server->thread);
    destroy(server);
}

cop_server *coord_transport(coord_server *server) {
    return server->transport;
}

const char *coord_token(const coord_server *server) {
    return server->token;
}
