/* A worker against a scripted coordinator, in memory and over ipc. LABELS: quick threads */
#include "unit/worker/fixture.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/worker.h"

#define BEAT_MS 40

/* How the coordinator handles the next PULL. Each of these applies once; then it is GIVE again. */
typedef enum script { GIVE, SAY_UNKNOWN, CUT, DROP_AND_FORGET } script;

typedef struct coordinator {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t stop, poke;
    uv_sem_t ready;
    cop_server *server;
    char url[128];
    bool listens;
    cop_message lease; /* given repeatedly, until `leases` is used up */
    const char *token;
    uint32_t late_ms; /* delay of the answer to the HELLO of a forgotten worker */
    cop_request *late;
    uv_timer_t timer;
    /* the script, set by the test's thread */
    atomic_int leases, next_pull;
    atomic_bool drain, forgotten;
    /* numbers of messages that arrived */
    atomic_int hellos, controls, beats, pulls, results, goodbyes, resent, dropped;
    _Atomic uint64_t last_result, session;
    cop_buffer *gradient; /* gradient of the first result */
    cop_request *held;
} coordinator;

static void fail_request(cop_request *request, cop_err code, const char *text) {
    cop_message m = {.type = COP_MESSAGE_FAILURE, .failure = {.code = code}};
    snprintf(m.failure.text, sizeof m.failure.text, "%s", text);
    cop_server_reply(request, &m);
}

static void say_nothing(cop_request *request, bool drain, bool unknown) {
    cop_message m = {.type = COP_MESSAGE_NOTHING, .nothing = {.drain = drain, .unknown = unknown}};
    cop_server_reply(request, &m);
}

static void welcome(coordinator *c, cop_request *request, bool control) {
    cop_message m = {.type = COP_MESSAGE_WELCOME};
    m.welcome.worker = 1;
    m.welcome.heartbeat_ms = BEAT_MS;
    if (!control) {
        m.welcome.session = atomic_fetch_add(&c->session, 1) + 1;
        atomic_store(&c->forgotten, false);
    }
    cop_server_reply(request, &m);
}

static void on_late(uv_timer_t *timer) {
    coordinator *c = timer->data;
    welcome(c, c->late, false);
    c->late = NULL;
}

static void on_hello(coordinator *c, cop_request *request, const cop_hello *h) {
    if (c->token && strcmp(c->token, h->token) != 0) {
        fail_request(request, COP_ERR_DENIED, "the token is wrong");
        return;
    }
    atomic_fetch_add(h->control ? &c->controls : &c->hellos, 1);
    if (!h->control && atomic_load(&c->forgotten) && c->late_ms && !c->late) {
        c->late = request;
        uv_timer_start(&c->timer, on_late, c->late_ms, 0);
    } else {
        welcome(c, request, h->control);
    }
}

static void give(coordinator *c, cop_request *request) {
    if (atomic_load(&c->leases) <= 0) {
        c->held = request; /* it is held until there is work or the test ends */
        return;
    }
    int left = atomic_fetch_sub(&c->leases, 1);
    cop_message m = c->lease;
    m.lease.lease = (uint64_t)left;
    for (int i = 0; i < COP_MESSAGE_PARTS; i++)
        if (m.part[i]) cop_buffer_hold(m.part[i]);
    cop_server_reply(request, &m);
}

static void note_result(coordinator *c, const cop_message *m) {
    if (atomic_load(&c->last_result) == m->pull.result.lease) atomic_fetch_add(&c->resent, 1);
    atomic_store(&c->last_result, m->pull.result.lease);
    if (!c->gradient && m->part[COP_PART_RESULT])
        c->gradient = cop_buffer_hold(m->part[COP_PART_RESULT]);
    atomic_fetch_add(&c->results, 1);
}

static void on_pull(coordinator *c, cop_request *request, const cop_message *m) {
    script next = (script)atomic_exchange(&c->next_pull, GIVE);
    atomic_fetch_add(&c->pulls, 1);
    if (m->pull.session != atomic_load(&c->session)) {
        say_nothing(request, false, true);
        return;
    }
    if (m->pull.result.present) note_result(c, m);
    if (m->pull.goodbye) {
        atomic_fetch_add(&c->goodbyes, 1);
        say_nothing(request, true, false);
    } else if (next == SAY_UNKNOWN) {
        say_nothing(request, false, true);
    } else if (next == CUT) {
        cop_server_disconnect(c->server, cop_request_connection(request));
        cop_server_drop(request);
    } else if (next == DROP_AND_FORGET) {
        atomic_store(&c->forgotten, true);
        atomic_fetch_add(&c->dropped, 1);
        cop_server_drop(request);
    } else if (atomic_load(&c->drain)) {
        say_nothing(request, true, false);
    } else {
        give(c, request);
    }
}

static void on_request(void *context, cop_request *request) {
    coordinator *c = context;
    const cop_message *m = cop_request_message(request);
    if (m->type == COP_MESSAGE_HELLO) {
        on_hello(c, request, &m->hello);
    } else if (m->type == COP_MESSAGE_PULL) {
        on_pull(c, request, m);
    } else {
        cop_message reply = {.type = COP_MESSAGE_HEARTBEAT_REPLY};
        reply.heartbeat_reply.unknown = atomic_load(&c->forgotten);
        reply.heartbeat_reply.drain = atomic_load(&c->drain);
        atomic_fetch_add(&c->beats, 1);
        if (c->held && m->heartbeat.draining) { /* a leaving worker gets no more work */
            say_nothing(c->held, true, false);
            c->held = NULL;
        }
        cop_server_reply(request, &reply);
    }
}

static void on_gone(void *context, uint64_t connection) {
    (void)context;
    (void)connection;
}

static void on_stop(uv_async_t *handle) {
    uv_stop(handle->loop);
}

static void on_poke(uv_async_t *handle) {
    coordinator *c = handle->data;
    cop_request *held = c->held;
    c->held = NULL;
    if (held) give(c, held);
}

static void run_coordinator(void *argument) {
    coordinator *c = argument;
    const cop_server_handler handler = {.on_request = on_request, .on_gone = on_gone};
    uv_loop_init(&c->loop);
    uv_async_init(&c->loop, &c->stop, on_stop);
    uv_async_init(&c->loop, &c->poke, on_poke);
    uv_timer_init(&c->loop, &c->timer);
    c->poke.data = c->timer.data = c;
    COP_ASSERT(cop_server_create(&c->loop, &handler, c, &c->server, NULL) == COP_OK);
    if (c->listens) COP_ASSERT(cop_server_listen(c->server, c->url, NULL) == COP_OK);
    uv_sem_post(&c->ready);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    cop_server_close(c->server);
    if (c->held) cop_server_drop(c->held);
    if (c->late) cop_server_drop(c->late);
    cop_server_destroy(c->server);
    uv_close((uv_handle_t *)&c->stop, NULL);
    uv_close((uv_handle_t *)&c->poke, NULL);
    uv_close((uv_handle_t *)&c->timer, NULL);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    COP_ASSERT(uv_loop_close(&c->loop) == 0);
}

/* ---- setup of a test ---- */

typedef struct world {
    fixture fixture;
    coordinator coordinator;
    cop_worker *worker;
    bool stopped;
} world;

static int setup_world(void **state, bool listens) {
    world *w = cop_alloc(sizeof *w);
    coordinator *c = &w->coordinator;
    make_fixture(&w->fixture, 1);
    c->lease = train_lease(&w->fixture, 1, 0, SHARDS, true);
    c->listens = listens;
    snprintf(c->url, sizeof c->url, "ipc://%s/cop-worker-%d", P_tmpdir, getpid());
    uv_sem_init(&c->ready, 0);
    uv_thread_create(&c->thread, run_coordinator, c);
    uv_sem_wait(&c->ready);
    *state = w;
    return 0;
}

static int setup_memory(void **state) {
    return setup_world(state, false);
}

static int setup_ipc(void **state) {
    return setup_world(state, true);
}

static void stop_coordinator(world *w) {
    if (w->stopped) return;
    uv_async_send(&w->coordinator.stop);
    uv_thread_join(&w->coordinator.thread);
    w->stopped = true;
}

static int teardown(void **state) {
    world *w = *state;
    stop_coordinator(w);
    uv_sem_destroy(&w->coordinator.ready);
    cop_message_fini(&w->coordinator.lease);
    cop_buffer_release(w->coordinator.gradient);
    drop_fixture(&w->fixture);
    cop_free(w);
    return 0;
}

static void start_worker(world *w, const char *token, bool retry_forever) {
    cop_worker_config config = {.name = "test", .token = token, .threads = 2};
    cop_error error = {0};
    if (w->coordinator.listens)
        config.url = w->coordinator.url;
    else
        config.local = w->coordinator.server;
    config.retry_forever = retry_forever;
    assert_int_equal(cop_kernels_choose(&config.kernels, NULL), COP_OK);
    assert_int_equal(worker_start(&config, &w->worker, &error), COP_OK);
}

static bool reaches(atomic_int *value, int least) {
    for (int i = 0; i < 10000 && atomic_load(value) < least; i++) cop_clock_sleep_ms(1);
    return atomic_load(value) >= least;
}

static void give_leases(world *w, int count) {
    atomic_store(&w->coordinator.leases, count);
    uv_async_send(&w->coordinator.poke);
}

/* Drains the worker, and expects it to end without an error. */
static void end_worker(world *w) {
    cop_error error = {0};
    worker_drain(w->worker);
    assert_int_equal(worker_join(w->worker, &error), COP_OK);
}

/* ---- tests ---- */

static void test_worker_computes_leases(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    atomic_store(&c->leases, 20);
    start_worker(w, NULL, true);
    assert_true(reaches(&c->results, 20));
    end_worker(w);
    assert_int_equal(atomic_load(&c->results), 20);
    assert_int_equal(atomic_load(&c->hellos), 1);
    assert_int_equal(c->gradient->size, gradient_size(&w->fixture));
    const float *g = c->gradient->data;
    double sum = 0;
    for (size_t i = 0; i < c->gradient->size / sizeof(float); i++) sum += (double)g[i] * g[i];
    assert_true(sum > 0 && sum < 1e9);
}

static void test_refused_worker_reports_the_reason(void **state) {
    world *w = *state;
    cop_error error = {0};
    w->coordinator.token = "secret";
    start_worker(w, "guess", true);
    assert_int_equal(worker_join(w->worker, &error), COP_ERR_DENIED);
    assert_non_null(strstr(error.text, "token"));
    start_worker(w, "secret", true);
    assert_true(reaches(&w->coordinator.pulls, 1));
    end_worker(w);
}

static void test_heartbeats_continue_while_a_pull_is_held(void **state) {
    world *w = *state;
    start_worker(w, NULL, true);
    assert_true(reaches(&w->coordinator.pulls, 1));
    int before = atomic_load(&w->coordinator.beats);
    assert_true(reaches(&w->coordinator.beats, before + 5));
    assert_int_equal(atomic_load(&w->coordinator.pulls), 1);
    assert_int_equal(atomic_load(&w->coordinator.controls), 1);
    end_worker(w);
}

static void test_drain_ends_a_held_pull(void **state) {
    world *w = *state;
    start_worker(w, NULL, true);
    assert_true(reaches(&w->coordinator.pulls, 1));
    uint64_t began = cop_clock_ns();
    end_worker(w);
    assert_in_range((cop_clock_ns() - began) / 1000000, 0, 3000);
}

static void test_drain_delivers_the_last_result(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    atomic_store(&c->leases, 1000000);
    start_worker(w, NULL, true);
    assert_true(reaches(&c->results, 3));
    end_worker(w);
    assert_int_equal(atomic_load(&c->goodbyes), 1);
    int given = 1000000 - atomic_load(&c->leases);
    assert_int_equal(atomic_load(&c->results), given); /* every lease was computed and sent */
}

static void test_coordinator_drains_by_heartbeat(void **state) {
    world *w = *state;
    start_worker(w, NULL, true);
    assert_true(reaches(&w->coordinator.pulls, 1));
    atomic_store(&w->coordinator.drain, true);
    cop_error error = {0};
    assert_int_equal(worker_join(w->worker, &error), COP_OK);
}

static void test_worker_unknown_to_the_coordinator_joins_again(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    atomic_store(&c->next_pull, SAY_UNKNOWN);
    start_worker(w, NULL, true);
    assert_true(reaches(&c->hellos, 2));
    give_leases(w, 2);
    assert_true(reaches(&c->results, 2));
    end_worker(w);
}

/* The coordinator has removed the worker and dropped its PULL. The worker learns this from the
 * reply to its heartbeat. */
static void test_forgotten_worker_stops_waiting_for_its_pull(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    atomic_store(&c->next_pull, DROP_AND_FORGET);
    start_worker(w, NULL, false);
    assert_true(reaches(&c->dropped, 1));
    uint64_t began = cop_clock_ns();
    assert_true(reaches(&c->hellos, 2));
    assert_in_range((cop_clock_ns() - began) / 1000000, 0, 5000);
    give_leases(w, 1);
    assert_true(reaches(&c->results, 1));
    end_worker(w);
}

/* Heartbeats of the lost session do not interrupt the HELLO of the next. Otherwise there would be a
 * second worker of the same name for a while. */
static void test_forgotten_worker_joins_only_once(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    c->late_ms = 20 * BEAT_MS;
    atomic_store(&c->next_pull, DROP_AND_FORGET);
    start_worker(w, NULL, true);
    assert_true(reaches(&c->hellos, 2));
    give_leases(w, 1);
    assert_true(reaches(&c->results, 1));
    assert_int_equal(atomic_load(&c->hellos), 2);
    end_worker(w);
}

static void test_interrupted_pull_is_sent_again(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    start_worker(w, NULL, true);
    assert_true(reaches(&c->pulls, 1));
    atomic_store(&c->next_pull, CUT); /* the PULL that brings the first result */
    give_leases(w, 1);
    assert_true(reaches(&c->results, 2));
    assert_int_equal(atomic_load(&c->resent), 1);
    assert_int_equal(atomic_load(&c->hellos), 1); /* no new HELLO: the session is the same */
    end_worker(w);
}

static void test_embedded_worker_ends_with_its_coordinator(void **state) {
    world *w = *state;
    start_worker(w, NULL, false);
    assert_true(reaches(&w->coordinator.pulls, 1));
    stop_coordinator(w);
    cop_error error = {0};
    assert_int_equal(worker_join(w->worker, &error), COP_ERR_CLOSED);
    assert_non_null(strstr(error.text, "stopped"));
}

static void test_cancel_ends_the_worker_at_once(void **state) {
    world *w = *state;
    start_worker(w, NULL, true);
    assert_true(reaches(&w->coordinator.pulls, 1));
    assert_false(worker_ended(w->worker));
    uint64_t began = cop_clock_ns();
    worker_cancel(w->worker);
    assert_int_equal(worker_join(w->worker, NULL), COP_ERR_CANCELED);
    assert_in_range((cop_clock_ns() - began) / 1000000, 0, 3000);
}

/* Over the memory transport, a step that is not the first allocates no memory on either side. */
static void test_warm_step_allocates_no_memory(void **state) {
    world *w = *state;
    coordinator *c = &w->coordinator;
    atomic_store(&c->leases, 10);
    start_worker(w, NULL, true);
    assert_true(reaches(&c->results, 10));
    assert_true(reaches(&c->controls, 1));
    uint64_t before = cop_alloc_count();
    give_leases(w, 100);
    assert_true(reaches(&c->results, 110));
    assert_int_equal(cop_alloc_count(), before);
    end_worker(w);
}

#define IN_MEMORY(test) {#test " (memory)", test, setup_memory, teardown, NULL}
#define OVER_IPC(test)  {#test " (ipc)", test, setup_ipc, teardown, NULL}
#define BOTH(test)      IN_MEMORY(test), OVER_IPC(test)

int main(void) {
    cop_log_configure(COP_LOG_NONE, false);
    const struct CMUnitTest tests[] = {
        BOTH(test_worker_computes_leases),
        BOTH(test_refused_worker_reports_the_reason),
        BOTH(test_heartbeats_continue_while_a_pull_is_held),
        BOTH(test_drain_ends_a_held_pull),
        BOTH(test_drain_delivers_the_last_result),
        BOTH(test_coordinator_drains_by_heartbeat),
        BOTH(test_worker_unknown_to_the_coordinator_joins_again),
        BOTH(test_forgotten_worker_stops_waiting_for_its_pull),
        BOTH(test_forgotten_worker_joins_only_once),
        BOTH(test_interrupted_pull_is_sent_again),
        IN_MEMORY(test_embedded_worker_ends_with_its_coordinator),
        BOTH(test_cancel_ends_the_worker_at_once),
        IN_MEMORY(test_warm_step_allocates_no_memory),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
