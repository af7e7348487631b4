/* Limits of what one peer can make a coordinator do and hold: how many calls of one identity run on
 * the thread pool, how many bytes of requests wait, and how many repeated results are hashed. Also
 * results of an unknown kind. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/thread_pool.h"
#include "fuzz/world.h"

#define REQUESTS 300 /* requests of one method, more than the share of any identity */
#define RUNNING  7   /* a note of a job that runs */
#define ENDED    8   /* a note of a job that is completed */

static fuzz_world world;

/* ---- requests that are delivered without waiting for their answers ---- */

static atomic_int unanswered, busy;
static cop_message kept; /* an ANSWER that has not left, if `keep_answer` */
static atomic_bool keep_answer;

static void on_drop(cop_request *request) {
    atomic_fetch_sub(&unanswered, 1);
    cop_message_fini(&request->message);
    cop_free(request);
}

static void on_reply(cop_request *request, cop_message *message) {
    const bool refused = message->type == COP_MESSAGE_FAILURE;
    if (refused && message->failure.code == COP_ERR_BUSY) atomic_fetch_add(&busy, 1);
    if (message->type == COP_MESSAGE_ANSWER && atomic_exchange(&keep_answer, false)) {
        kept = *message;
        memset(message, 0, sizeof *message);
    }
    cop_message_fini(message);
    on_drop(request);
}

static const net_transport transport = {on_reply, on_drop};

typedef struct delivery {
    coord_mail mail; /* first */
    cop_request *request;
    void (*run)(coord_server *server);
    uv_sem_t done;
} delivery;

static void run_on_loop(coord_engine *engine, coord_mail *mail) {
    delivery *d = (delivery *)mail;
    if (d->request) coord_on_request(coord_server_of(engine), d->request);
    if (d->run) d->run(coord_server_of(engine));
    uv_sem_post(&d->done);
}

static void run_delivery(delivery *d) {
    d->mail.run = run_on_loop;
    uv_sem_init(&d->done, 0);
    coord_post(&world.server->engine, &d->mail);
    uv_sem_wait(&d->done);
    uv_sem_destroy(&d->done);
}

static void on_loop(void (*run)(coord_server *server)) {
    run_delivery(&(delivery){.run = run});
}

/* Takes over the message. `identity` NULL: the peer has no certificate. */
static void deliver(const char *identity, cop_message *message) {
    cop_request *request = cop_alloc(sizeof *request);
    assert_non_null(request);
    *request = (cop_request){.transport = &transport,
                             .server = world.server->transport,
                             .connection = FUZZ_CONNECTION,
                             .message = *message,
                             .address = "memory"};
    memset(message, 0, sizeof *message);
    if (identity) {
        request->peer = (cop_peer){.certified = true, .roles = COP_ROLE_CLIENT | COP_ROLE_WORKER};
        snprintf(request->peer.name, sizeof request->peer.name, "%s", identity);
    }
    atomic_fetch_add(&unanswered, 1);
    run_delivery(&(delivery){.request = request});
}

static void lose_connection(coord_server *server) {
    coord_on_gone(server, FUZZ_CONNECTION);
}

static bool tasks_are_running;
static void look_for_tasks(coord_server *server) {
    tasks_are_running = server->api->tasks > 0;
}

/* Waits until the API has no work. */
static void wait_for_tasks(void) {
    do {
        on_loop(look_for_tasks);
        if (tasks_are_running) cop_clock_sleep_ms(1);
    } while (tasks_are_running);
}

/* ---- blocking the thread pool and the compute threads: here each has a single thread ---- */

static uv_sem_t gate;
static uv_work_t blocker;

static void wait_at_gate(uv_work_t *work) {
    (void)work;
    uv_sem_wait(&gate);
}

static void block_thread_pool(coord_server *server) {
    uv_queue_work(&server->engine.loop, &blocker, wait_at_gate, NULL);
}

static void wait_on_compute_thread(cop_task *task) {
    (void)task;
    uv_sem_wait(&gate);
}

static cop_task compute_blocker = {.done = wait_on_compute_thread};

static void block_compute_thread(coord_server *server) {
    cop_thread_pool_submit(server->engine.pool, &compute_blocker);
}

/* ---- one identity, every method ---- */

/* The largest number of requests of a method that one identity can have open. */
static const struct {
    uint32_t method;
    int open;
} shares[] = {
    {COPPICE__API__METHOD__SUBMIT, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__LIST_JOBS, 0},
    {COPPICE__API__METHOD__GET_JOB, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__WATCH_JOB, COP_WATCHES_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__CONTROL_JOB, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__LOGS, COP_WATCHES_PER_IDENTITY_MAX + COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__LIST_WORKERS, 0},
    {COPPICE__API__METHOD__DRAIN_WORKER, 0},
    {COPPICE__API__METHOD__EXPORT_MODEL, COP_LARGE_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__LIST_DATA, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__OFFER_DATA, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__PUT_CHUNK, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__COMMIT_DATA, COP_LARGE_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__REMOVE_DATA, COP_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__EVALUATE, 0},
    {COPPICE__API__METHOD__INFO, 0},
    {COPPICE__API__METHOD__START_EVALUATION, COP_EVALUATIONS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__WATCH_EVALUATION, 0},
    {COPPICE__API__METHOD__HISTORY, COP_LARGE_CALLS_PER_IDENTITY_MAX},
    {COPPICE__API__METHOD__METRICS, 0},
};

static const char a_job[] = "name: limits\n"
                            "data: {source: tiny.pack}\n"
                            "model: [linear: {units: 2}]\n"
                            "train: {steps: 2, batch: 4, shards: 1}\n"
                            "optimizer: {sgd: {rate: 0.1}}\n";

/* Packs a request of this method that takes as long as possible. Each has a different key. */
static cop_buffer *pack_request(uint32_t method, uint32_t number) {
    uint8_t key[COORD_EVALUATION_KEY] = {(uint8_t)number, (uint8_t)(number >> 8), 1};
    uint64_t ended = ENDED;
    if (method == COPPICE__API__METHOD__SUBMIT) {
        Coppice__Api__SubmitRequest r = COPPICE__API__SUBMIT_REQUEST__INIT;
        assert_int_equal(cop_document_parse_job(a_job, sizeof a_job - 1, "job.yaml", &r.job, NULL),
                         COP_OK);
        r.has_dry_run = r.dry_run = 1;
        cop_buffer *packed = cop_proto_pack(&r.base);
        cop_proto_free(&r.job->base);
        return packed;
    }
    if (method == COPPICE__API__METHOD__START_EVALUATION) {
        Coppice__Api__StartEvaluationRequest r = COPPICE__API__START_EVALUATION_REQUEST__INIT;
        r.has_key = 1;
        r.key = (ProtobufCBinaryData){.len = sizeof key, .data = key};
        r.jobs = &ended;
        r.n_jobs = 1;
        return cop_proto_pack(&r.base);
    }
    if (method == COPPICE__API__METHOD__CONTROL_JOB) {
        Coppice__Api__ControlJobRequest r = COPPICE__API__CONTROL_JOB_REQUEST__INIT;
        r.has_job = r.has_action = 1;
        r.job = ENDED;
        r.action = COPPICE__API__CONTROL_JOB_REQUEST__ACTION__REMOVE;
        return cop_proto_pack(&r.base);
    }
    /* The first field of all other requests about a job is its number. */
    static const uint32_t of_job[] = {COPPICE__API__METHOD__EXPORT_MODEL,
                                      COPPICE__API__METHOD__HISTORY};
    for (size_t i = 0; i < sizeof of_job / sizeof *of_job; i++) {
        if (method != of_job[i]) continue;
        cop_buffer *packed = cop_buffer_create(2);
        memcpy(packed->data, (uint8_t[]){0x08, RUNNING}, 2);
        return packed;
    }
    if (method == COPPICE__API__METHOD__GET_JOB) {
        Coppice__Api__GetJobRequest r = COPPICE__API__GET_JOB_REQUEST__INIT;
        r.has_job = r.has_with_job = r.with_job = 1;
        r.job = RUNNING;
        return cop_proto_pack(&r.base);
    }
    if (method == COPPICE__API__METHOD__WATCH_JOB) {
        Coppice__Api__WatchJobRequest r = COPPICE__API__WATCH_JOB_REQUEST__INIT;
        r.has_job = r.has_version = r.has_hold_ms = 1;
        r.job = RUNNING;
        r.version = 1;
        r.hold_ms = COP_HOLD_MAX_MS;
        return cop_proto_pack(&r.base);
    }
    if (method == COPPICE__API__METHOD__LOGS) {
        Coppice__Api__LogsRequest r = COPPICE__API__LOGS_REQUEST__INIT;
        r.has_job = r.has_hold_ms = 1;
        r.job = RUNNING;
        r.hold_ms = COP_HOLD_MAX_MS;
        return cop_proto_pack(&r.base);
    }
    return cop_buffer_create(0);
}

static void call(const char *identity, uint32_t method, uint32_t number) {
    cop_message m = {.type = COP_MESSAGE_CALL};
    m.call = (cop_call){
        .method = method, .major = COP_PROTOCOL_MAJOR, .minor = COP_PROTOCOL_MINOR, .token = ""};
    m.part[COP_PART_BODY] = pack_request(method, number);
    assert_non_null(m.part[COP_PART_BODY]);
    deliver(identity, &m);
}

static void add_notes(coord_server *server) {
    api_note *n = api_note_find(server->api, RUNNING);
    if (!n) n = api_note_add(server->api, RUNNING);
    n->state = COORD_RUNNING;
    n = api_note_find(server->api, ENDED);
    if (!n) n = api_note_add(server->api, ENDED);
    n->state = COORD_COMPLETED;
    n->version = api_note_find(server->api, RUNNING)->version = 1;
}

static int share_of(uint32_t method) {
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        if (shares[i].method == method) return shares[i].open;
    fail_msg("method %u has no share here: what can one identity make it hold?", method);
    return 0;
}

static void flood(uint32_t method, const char *name) {
    /* Requests that arrive after the store has removed the job fail at once. */
    const bool control = method == COPPICE__API__METHOD__CONTROL_JOB;
    const int share = share_of(method);
    on_loop(add_notes);
    on_loop(block_thread_pool);
    atomic_store(&busy, 0);
    for (uint32_t i = 0; i < REQUESTS; i++) call("hog", method, i);
    const int open = atomic_load(&unanswered);
    if (control ? open > share : open != share) fail_msg("%s: %d are open", name, open);
    const bool refuses = share && method != COPPICE__API__METHOD__WATCH_JOB && !control;
    if (refuses) assert_int_equal(atomic_load(&busy), REQUESTS - share);
    /* Another identity has its own share. */
    atomic_store(&busy, 0);
    call("other", COPPICE__API__METHOD__LIST_DATA, 0);
    assert_int_equal(atomic_load(&unanswered), open + 1);
    uv_sem_post(&gate);
    for (int i = 0; i < 2000 && atomic_load(&unanswered); i++) { /* a task may read a log */
        wait_for_tasks();
        on_loop(lose_connection);
        cop_clock_sleep_ms(1);
    }
    assert_int_equal(atomic_load(&unanswered), 0);
}

static void test_no_identity_can_use_all_places_of_a_method(void **state) {
    coord_right right;
    int tried = 0;
    (void)state;
    for (size_t at = 0; coord_right_at(at, &right); at++) {
        if (right.type != COP_MESSAGE_CALL) continue;
        flood(right.method, right.name);
        tried++;
    }
    assert_int_equal(tried, sizeof shares / sizeof *shares);
}

static void test_answer_counts_until_it_is_sent(void **state) {
    (void)state;
    on_loop(add_notes);
    atomic_store(&keep_answer, true);
    call("hog", COPPICE__API__METHOD__HISTORY, 0);
    wait_for_tasks();
    assert_int_equal(kept.type, COP_MESSAGE_ANSWER);
    on_loop(block_thread_pool);
    for (uint32_t i = 1; i < COP_LARGE_CALLS_PER_IDENTITY_MAX; i++)
        call("hog", COPPICE__API__METHOD__HISTORY, i);
    atomic_store(&busy, 0);
    call("hog", COPPICE__API__METHOD__HISTORY, 0);
    assert_int_equal(atomic_load(&busy), 1);
    cop_message_fini(&kept);
    call("hog", COPPICE__API__METHOD__HISTORY, 0);
    assert_int_equal(atomic_load(&busy), 1);
    uv_sem_post(&gate);
    wait_for_tasks();
    assert_int_equal(atomic_load(&unanswered), 0);
}

/* ---- bytes of held requests ---- */

static cop_buffer *make_bytes(size_t size) {
    cop_buffer *b = cop_buffer_create(size);
    assert_non_null(b);
    memset(b->data, 0, size);
    return b;
}

static void test_held_call_keeps_no_bytes(void **state) {
    (void)state;
    on_loop(add_notes);
    cop_message m = {.type = COP_MESSAGE_CALL};
    m.call = (cop_call){.method = COPPICE__API__METHOD__WATCH_JOB, .major = COP_PROTOCOL_MAJOR};
    cop_buffer *request = pack_request(m.call.method, 0);
    m.part[COP_PART_BODY] = cop_buffer_hold(request);
    deliver("hog", &m);
    assert_int_equal(atomic_load(&unanswered), 1);
    assert_int_equal(request->references, 1);
    on_loop(lose_connection);
    cop_buffer_release(request);
}

static void test_call_with_unexpected_bytes_is_refused(void **state) {
    (void)state;
    for (int part = 0; part < COP_MESSAGE_PARTS; part++) {
        for (int put = 0; put < 2; put++) {
            cop_message m = {.type = COP_MESSAGE_CALL};
            m.call = (cop_call){.method = put ? COPPICE__API__METHOD__PUT_CHUNK
                                              : COPPICE__API__METHOD__LIST_DATA,
                                .major = COP_PROTOCOL_MAJOR};
            cop_buffer *bytes = make_bytes(part == 0 ? API_BUDGET + 1 : COP_CHUNK_SIZE + 1);
            m.part[COP_PART_BODY] = cop_buffer_create(0);
            cop_buffer_release(m.part[part]);
            m.part[part] = cop_buffer_hold(bytes);
            deliver("hog", &m);
            assert_int_equal(atomic_load(&unanswered), 0);
            assert_int_equal(bytes->references, 1);
            cop_buffer_release(bytes);
        }
    }
}

/* ---- a worker ---- */

static void submit(const char *yaml) {
    Coppice__Api__SubmitRequest r = COPPICE__API__SUBMIT_REQUEST__INIT;
    assert_int_equal(cop_document_parse_job(yaml, strlen(yaml), "job.yaml", &r.job, NULL), COP_OK);
    cop_buffer *packed = cop_proto_pack(&r.base);
    fuzz_call(&world, COPPICE__API__METHOD__SUBMIT, (fuzz_bytes){packed->data, packed->size}, NULL);
    assert_int_equal(world.server->api->count, 1);
    cop_buffer_release(packed);
    cop_proto_free(&r.job->base);
}

static const fuzz_self *join(void) {
    cop_message m = {.type = COP_MESSAGE_HELLO};
    m.hello = (cop_hello){.major = COP_PROTOCOL_MAJOR,
                          .minor = COP_PROTOCOL_MINOR,
                          .threads = 1,
                          .name = "w",
                          .arithmetic = "portable-1"};
    snprintf(m.hello.token, sizeof m.hello.token, "%s", coord_token(world.server));
    fuzz_deliver(&world, &m);
    assert_true(world.self[world.newest].worker > 0);
    return &world.self[world.newest];
}

/* A PULL of this worker; with the result of its lease, if there is a tensor. */
static cop_message make_pull(const fuzz_self *self, cop_buffer *tensor) {
    cop_message m = {.type = COP_MESSAGE_PULL};
    const cop_lease *l = &self->lease;
    m.pull = (cop_pull){.worker = self->worker, .session = self->session};
    if (!tensor) return m;
    m.part[COP_PART_RESULT] = cop_buffer_hold(tensor);
    m.pull.result = (cop_result){.present = true,
                                 .kind = l->kind,
                                 .lease = l->lease,
                                 .job = l->job,
                                 .step = l->step,
                                 .attempt = l->attempt,
                                 .first = l->first,
                                 .count = l->count,
                                 .samples = 4};
    return m;
}

static void test_held_pull_keeps_no_bytes(void **state) {
    (void)state;
    const fuzz_self *self = join();
    cop_buffer *bytes = make_bytes(1 << 20);
    cop_message m = make_pull(self, NULL);
    m.part[COP_PART_RESULT] = cop_buffer_hold(bytes);
    deliver(NULL, &m);
    assert_int_equal(atomic_load(&unanswered), 1);
    assert_int_equal(bytes->references, 1);
    cop_buffer_release(bytes);
    on_loop(lose_connection);
    assert_int_equal(atomic_load(&unanswered), 0);
}

/* Counts the gradients that the coordinator still holds. */
static int count_held(cop_buffer *const *gradients, int count) {
    int held = 0;
    for (int i = 0; i < count; i++) held += gradients[i]->references > 1;
    return held;
}

static void test_repeated_result_is_hashed_once(void **state) {
    enum { TIMES = 6 };
    cop_buffer *gradients[TIMES];
    (void)state;
    submit("name: limits\n"
           "audit: 1\n"
           "data: {source: tiny.pack}\n"
           "model: [linear: {units: 2}]\n"
           "train: {steps: 1000, batch: 4, shards: 1}\n"
           "optimizer: {sgd: {rate: 1.0e-6}}\n");
    const fuzz_self *self = join();
    cop_message m = make_pull(self, NULL);
    fuzz_deliver(&world, &m);
    assert_int_equal(self->lease.kind, COP_LEASE_TRAIN);
    on_loop(block_compute_thread);
    for (int i = 0; i < TIMES; i++) {
        gradients[i] = make_bytes(world.weights_size);
        m = make_pull(self, gradients[i]);
        deliver(NULL, &m);
    }
    assert_int_equal(count_held(gradients, TIMES), 1);
    assert_int_equal(atomic_load(&unanswered), 1);
    /* A worker that leaves and joins again gets another place: its gradients are bounded, too. */
    on_loop(lose_connection);
    const uint64_t place = self->worker % COP_WORKERS_MAX;
    assert_int_equal(count_held(gradients, TIMES), 1);
    uv_sem_post(&gate);
    self = join();
    assert_true(self->worker % COP_WORKERS_MAX != place || count_held(gradients, TIMES) == 0);
    fuzz_leave(&world);
    for (int i = 0; i < 2000 && count_held(gradients, TIMES); i++) cop_clock_sleep_ms(1);
    assert_int_equal(count_held(gradients, TIMES), 0);
    for (int i = 0; i < TIMES; i++) cop_buffer_release(gradients[i]);
}

static uint32_t strikes;
static uint64_t strikes_of;

static void read_strikes(coord_server *server) {
    coord_worker_view view = {0};
    strikes = coord_core_worker(server->engine.core, strikes_of, &view) ? view.strikes : 0;
}

static void test_result_of_unknown_kind_is_a_strike(void **state) {
    (void)state;
    submit(a_job);
    const fuzz_self *self = join();
    cop_message m = make_pull(self, NULL);
    fuzz_deliver(&world, &m);
    for (int i = 0; i < 4 && self->lease.kind != COP_LEASE_EVALUATE; i++) {
        cop_buffer *gradient = make_bytes(world.weights_size);
        m = make_pull(self, gradient);
        fuzz_deliver(&world, &m);
        cop_buffer_release(gradient);
    }
    assert_int_equal(self->lease.kind, COP_LEASE_EVALUATE);
    strikes_of = self->worker;
    on_loop(read_strikes);
    assert_int_equal(strikes, 0);
    cop_buffer *nothing = make_bytes(0);
    m = make_pull(self, nothing);
    m.pull.result.kind = (cop_lease_kind)77;
    deliver(NULL, &m);
    on_loop(read_strikes);
    assert_int_equal(strikes, 1);
    cop_buffer_release(nothing);
    on_loop(lose_connection);
    assert_int_equal(atomic_load(&unanswered), 0);
}

/* ---- the world ---- */

static int start(void **state) {
    (void)state;
    fuzz_world_start(&world);
    /* Not used for a connection: a value that is not NULL means that identities are certificates.
     */
    world.server->config.tls = (const cop_tls *)(const void *)&world;
    uv_sem_init(&gate, 0);
    return 0;
}

/* Cancels the jobs, because nobody would finish their steps, and a stop waits for that. */
static void cancel_jobs(coord_server *server) {
    for (uint64_t job = 1; job < 3; job++) {
        const coord_event cancel = {.type = COORD_EVENT_JOB_CANCEL, .job = job};
        coord_dispatch(&server->engine, &cancel);
    }
}

/* The folder of --data stays for the next test. */
static int stop(void **state) {
    (void)state;
    on_loop(cancel_jobs);
    world.server->config.tls = NULL;
    fuzz_world_stop(&world);
    uv_sem_destroy(&gate);
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    return cop_folder_remove(world.data, NULL);
}

int main(void) {
#define LIMITS_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        LIMITS_TEST(test_no_identity_can_use_all_places_of_a_method),
        LIMITS_TEST(test_answer_counts_until_it_is_sent),
        LIMITS_TEST(test_held_call_keeps_no_bytes),
        LIMITS_TEST(test_call_with_unexpected_bytes_is_refused),
        LIMITS_TEST(test_held_pull_keeps_no_bytes),
        LIMITS_TEST(test_repeated_result_is_hashed_once),
        LIMITS_TEST(test_result_of_unknown_kind_is_a_strike),
    };
    return cmocka_run_group_tests(tests, NULL, remove_data);
}
