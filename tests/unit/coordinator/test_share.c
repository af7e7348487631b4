/* Memory shared with workers: who gets it, and what a worker can do to it. LABELS: quick */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdatomic.h>

#include "common/base/clock.h"
#include "fuzz/world.h"

static fuzz_world world;

static const char a_job[] = "name: share\n"
                            "data: {source: tiny.pack}\n"
                            "model: [linear: {units: 2}]\n"
                            "train: {steps: 1000, batch: 4, shards: 1}\n"
                            "optimizer: {sgd: {rate: 1.0e-3}}\n";

static void submit(const char *yaml) {
    Coppice__Api__SubmitRequest r = COPPICE__API__SUBMIT_REQUEST__INIT;
    assert_int_equal(cop_document_parse_job(yaml, strlen(yaml), "job.yaml", &r.job, NULL), COP_OK);
    cop_buffer *packed = cop_proto_pack(&r.base);
    fuzz_call(&world, COPPICE__API__METHOD__SUBMIT, (fuzz_bytes){packed->data, packed->size}, NULL);
    cop_buffer_release(packed);
    cop_proto_free(&r.job->base);
}

static const fuzz_self *join_as(const char *name) {
    cop_message m = {.type = COP_MESSAGE_HELLO};
    m.hello = (cop_hello){.major = COP_PROTOCOL_MAJOR,
                          .minor = COP_PROTOCOL_MINOR,
                          .features = COP_FEATURE_SHARED_MEMORY,
                          .threads = 1,
                          .arithmetic = "portable-1"};
    snprintf(m.hello.name, sizeof m.hello.name, "%s", name);
    snprintf(m.hello.token, sizeof m.hello.token, "%s", coord_token(world.server));
    fuzz_deliver(&world, &m);
    return &world.self[world.newest];
}

static const fuzz_self *join(void) {
    return join_as("w");
}

static cop_message make_pull(const fuzz_self *self, bool right_proof) {
    cop_message m = {.type = COP_MESSAGE_PULL};
    m.pull = (cop_pull){.worker = self->worker, .session = self->session, .has_proof = true};
    memcpy(m.pull.proof, world.server->proof->secret, sizeof m.pull.proof);
    if (!right_proof) m.pull.proof[3] ^= 1;
    return m;
}

/* A PULL with the result of the newest lease, whose gradient is in this segment. */
static cop_message make_result(const fuzz_self *self, uint64_t segment) {
    cop_message m = make_pull(self, true);
    const cop_lease *l = &self->lease;
    m.pull.result = (cop_result){.present = true,
                                 .kind = l->kind,
                                 .lease = l->lease,
                                 .job = l->job,
                                 .step = l->step,
                                 .attempt = l->attempt,
                                 .first = l->first,
                                 .count = l->count,
                                 .samples = l->kind == COP_LEASE_TRAIN ? 4 : l->count,
                                 .segment = segment};
    return m;
}

/* Sends a PULL and waits for a lease, which may have to wait for a checkpoint. */
static void get_lease(const fuzz_self *self, cop_message *m) {
    world.self[self - world.self].lease.kind = (cop_lease_kind)0;
    fuzz_deliver(&world, m);
    for (int i = 0; i < 2000 && !self->lease.kind; i++) {
        cop_clock_sleep_ms(1);
        fuzz_run_loop(&world);
    }
}

static void pull(const fuzz_self *self, bool right_proof) {
    cop_message m = make_pull(self, right_proof);
    get_lease(self, &m);
}

static void push(const fuzz_self *self, uint64_t segment) {
    cop_message m = make_result(self, segment);
    get_lease(self, &m);
}

/* Sends a gradient that is in this segment, and the results of the evaluations that follow. */
static void push_step(const fuzz_self *self, uint64_t segment) {
    push(self, segment);
    while (self->lease.kind == COP_LEASE_EVALUATE) push(self, 0);
}

static cop_segment *map(const cop_segment_name *name, cop_segment_access access) {
    cop_segment *s = NULL;
    cop_error error = {0};
    if (cop_segment_open(name, access, &s, &error)) fail_msg("%s", error.text);
    return s;
}

/* Writes `value` into each element of the lease's room. */
static void fill_room(const fuzz_self *self, float value) {
    cop_segment *room = map(&self->lease.room, COP_SEGMENT_WRITE);
    float *gradient = room->data;
    for (size_t i = 0; i < room->name.size / sizeof *gradient; i++) gradient[i] = value;
    cop_segment_release(room);
}

static uint32_t strikes(const fuzz_self *self) {
    coord_worker_view view = {0};
    return coord_core_worker(world.server->engine.core, self->worker, &view) ? view.strikes : 99;
}

/* The gradients that the engine holds, and how many of them are in shared memory. */
static void count_slots(int *used, int *shared) {
    *used = *shared = 0;
    for (int i = 0; i < COORD_SLOTS_MAX; i++) {
        const coord_slot *slot = &world.server->engine.slots[i];
        *used += slot->used && slot->gradient;
        *shared += slot->used && slot->gradient && slot->gradient->segment;
    }
}

static void test_proof_gives_weights_and_room(void **state) {
    (void)state;
    submit(a_job);
    const fuzz_self *self = join();
    pull(self, true);
    const cop_lease first = self->lease;
    assert_int_equal(first.kind, COP_LEASE_TRAIN);
    assert_true(first.weights.id && first.room.id);
    assert_int_equal(world.weights_size, 0); /* no part */
    assert_int_equal(first.weights.size, first.room.size);
    const coord_resident *r = &world.server->engine.resident[0];
    cop_segment *weights = map(&first.weights, COP_SEGMENT_READ);
    assert_memory_equal(weights->data, r->current.weights->data, weights->name.size);
    fill_room(self, 1.0f);
    const float before = *(const float *)weights->data;
    push_step(self, first.room.id);
    assert_int_equal(self->lease.step, 2);
    assert_true(self->lease.weights.id != first.weights.id);
    assert_false(r->stable); /* the update read the worker's room */
    cop_segment *next = map(&self->lease.weights, COP_SEGMENT_READ);
    assert_true(*(const float *)next->data == fmaf(-1.0e-3f, 0.25f, before));
    assert_int_equal(strikes(self), 0);
    cop_segment_release(next);
    cop_segment_release(weights);
    fuzz_leave(&world);
}

static void test_wrong_proof_gives_the_connection(void **state) {
    (void)state;
    submit(a_job);
    const fuzz_self *self = join();
    pull(self, false);
    assert_int_equal(self->lease.kind, COP_LEASE_TRAIN);
    assert_true(!self->lease.weights.id && !self->lease.room.id);
    assert_true(world.weights_size > 0);
    fuzz_leave(&world);
}

static void test_weights_stay_until_the_next_pull(void **state) {
    (void)state;
    submit(a_job);
    const fuzz_self *slow = join();
    pull(slow, true);
    const cop_lease lease = slow->lease;
    cop_segment *weights = map(&lease.weights, COP_SEGMENT_READ);
    float copy[4];
    memcpy(copy, weights->data, sizeof copy);
    coord_session *s = coord_session_find(&world.server->access, slow->worker);
    assert_non_null(s->lent_weights);
    assert_int_equal(s->lent_weights->segment->name.id, lease.weights.id);
    fuzz_leave(&world); /* the session ends, but the worker computes on */
    assert_null(s->lent_weights);
    assert_memory_equal(copy, weights->data, sizeof copy);
    cop_segment_release(weights);
}

static void test_result_with_another_segment_is_a_strike(void **state) {
    (void)state;
    submit(a_job);
    const fuzz_self *self = join();
    pull(self, true);
    push(self, self->lease.weights.id);
    assert_int_equal(strikes(self), 1);
    assert_int_equal(self->lease.step, 1);
    fuzz_leave(&world);
}

static void test_repeated_result_is_no_strike(void **state) {
    (void)state;
    submit(a_job);
    const fuzz_self *self = join();
    pull(self, true);
    fill_room(self, 1.0f);
    const cop_message again = make_result(self, self->lease.room.id);
    push_step(self, self->lease.room.id);
    assert_int_equal(self->lease.step, 2);
    coord_session *s = coord_session_find(&world.server->access, self->worker);
    for (int i = 0; i < 3; i++) { /* the answer was lost, so the worker sends the PULL again */
        cop_message m = again;
        fuzz_deliver(&world, &m);
    }
    assert_int_equal(strikes(self), 0);
    assert_int_equal(s->taken_room, again.pull.result.segment);
    fuzz_leave(&world);
}

/* ---- a gradient that is compared, while the coordinator's own result is not there ---- */

static uv_sem_t gate;
static uv_work_t blocker;
static cop_message late_message;
static bool hashed;

static void wait_at_gate(uv_work_t *work) {
    (void)work;
    uv_sem_wait(&gate);
}

static void block_and_deliver(coord_engine *engine, coord_mail *mail) {
    fuzz_request *request = cop_alloc(sizeof *request);
    (void)mail;
    assert_non_null(request);
    uv_queue_work(&engine->loop, &blocker, wait_at_gate, NULL); /* the pool has one thread */
    request->world = &world;
    request->request = (cop_request){.transport = &fuzz_transport,
                                     .server = world.server->transport,
                                     .connection = FUZZ_CONNECTION,
                                     .message = late_message,
                                     .address = "memory"};
    world.open++;
    coord_on_request(world.server, &request->request);
    uv_sem_post(&world.done);
}

static void look_for_hash(coord_engine *engine, coord_mail *mail) {
    (void)engine;
    (void)mail;
    hashed = true;
    for (uint32_t i = 0; i < COP_WORKERS_MAX; i++)
        hashed = hashed && !world.server->access.sessions[i].hashing;
    uv_sem_post(&world.done);
}

static void on_loop(void (*run)(coord_engine *engine, coord_mail *mail)) {
    world.mail.run = run;
    coord_post(&world.server->engine, &world.mail);
    uv_sem_wait(&world.done);
}

static void test_compared_gradient_is_copied(void **state) {
    (void)state;
    int used, shared;
    char text[sizeof a_job + 32];
    snprintf(text, sizeof text, "audit: 1\n%s", a_job);
    submit(text);
    const fuzz_self *self = join();
    pull(self, true);
    fill_room(self, 1.0f);
    late_message = make_result(self, self->lease.room.id);
    uv_sem_init(&gate, 0);
    on_loop(block_and_deliver);
    for (hashed = false; !hashed; cop_clock_sleep_ms(1)) on_loop(look_for_hash);
    count_slots(&used, &shared); /* the gradient waits for the coordinator's own */
    uv_sem_post(&gate);
    assert_int_equal(used, 1);
    assert_int_equal(shared, 0);
    fuzz_leave(&world);
    uv_sem_destroy(&gate);
}

/* ---- a gradient that changes while it is averaged ---- */

static _Atomic(volatile float *) flickering; /* NULL: the thread pauses */
static atomic_bool paused = true, ended;

static void flicker(void *unused) {
    (void)unused;
    while (!atomic_load(&ended)) {
        volatile float *value = atomic_load(&flickering);
        atomic_store(&paused, !value);
        if (!value) continue;
        for (int i = 0; i < 20; i++) { /* as long NaN as 0, also while the thread is preempted */
            *value = i % 2 ? 0.0f : NAN;
            for (volatile int pause = 0; pause < 100; pause++) {}
        }
    }
}

/* Sends a result while the first value of its gradient changes from NaN to 0 and back. */
static void push_flickering(const fuzz_self *self) {
    cop_segment *room = map(&self->lease.room, COP_SEGMENT_WRITE);
    memset(room->data, 0, room->name.size);
    atomic_store(&flickering, room->data);
    while (atomic_load(&paused)) {}
    push(self, room->name.id);
    atomic_store(&flickering, NULL);
    while (!atomic_load(&paused)) {} /* the thread writes to the room no more */
    cop_segment_release(room);
}

/* If the coordinator looked for the bad block in bytes that change, it would find none, and the job
 * would fail. */
static void test_changing_gradient_does_not_fail_the_job(void **state) {
    uv_thread_t thread;
    (void)state;
    submit(a_job);
    assert_int_equal(uv_thread_create(&thread, flicker, NULL), 0);
    uint32_t found = 0;
    for (int i = 0; i < 60 && found < 5; i++) {
        char name[16];
        int used, shared;
        snprintf(name, sizeof name, "w%d", i);
        const fuzz_self *self = join_as(name);
        pull(self, true);
        while (self->lease.kind == COP_LEASE_EVALUATE) push(self, 0);
        assert_int_equal(self->lease.kind, COP_LEASE_TRAIN);
        const uint64_t step = self->lease.step;
        push_flickering(self);
        if (self->lease.kind == COP_LEASE_TRAIN && self->lease.step == step) {
            found++; /* the average met a NaN, and the block is leased again */
            fill_room(self, 0.0f);
            push(self, self->lease.room.id);
        }
        count_slots(&used, &shared);
        assert_int_equal(shared, 0);
        coord_job_view view;
        assert_true(coord_core_job(world.server->engine.core, 1, 0, &view)); /* it has not ended */
        fuzz_leave(&world);
    }
    assert_true(found > 0);
    atomic_store(&ended, true);
    uv_thread_join(&thread);
}

static void test_shared_memory_can_be_turned_off(void **state) {
    (void)state;
    coord_share_stop(world.server);
    submit(a_job);
    const fuzz_self *self = join();
    cop_message m = {.type = COP_MESSAGE_PULL};
    m.pull = (cop_pull){.worker = self->worker, .session = self->session, .has_proof = true};
    fuzz_deliver(&world, &m);
    assert_int_equal(self->lease.weights.id, 0);
    assert_true(world.weights_size > 0);
    fuzz_leave(&world);
}

/* ---- the world ---- */

static void share(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    (void)mail;
    server->config.share_memory = true;
    coord_share_start(server);
    uv_sem_post(&world.done);
}

static int start(void **state) {
    (void)state;
    fuzz_world_start(&world);
    world.weights_size = 0;
    on_loop(share);
    assert_non_null(world.server->proof);
    return 0;
}

static void cancel(coord_engine *engine, coord_mail *mail) {
    const coord_event event = {.type = COORD_EVENT_JOB_CANCEL, .job = 1};
    (void)mail;
    coord_dispatch(engine, &event);
    uv_sem_post(&world.done);
}

static int stop(void **state) {
    (void)state;
    on_loop(cancel);
    fuzz_world_stop(&world);
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    return cop_folder_remove(world.data, NULL);
}

int main(void) {
#define SHARE_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        SHARE_TEST(test_proof_gives_weights_and_room),
        SHARE_TEST(test_wrong_proof_gives_the_connection),
        SHARE_TEST(test_weights_stay_until_the_next_pull),
        SHARE_TEST(test_result_with_another_segment_is_a_strike),
        SHARE_TEST(test_repeated_result_is_no_strike),
        SHARE_TEST(test_compared_gradient_is_copied),
        SHARE_TEST(test_changing_gradient_does_not_fail_the_job),
        SHARE_TEST(test_shared_memory_can_be_turned_off),
    };
    return cmocka_run_group_tests(tests, NULL, remove_data);
}
