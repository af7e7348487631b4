/* Costs of a large pool and a long queue: the CPU time and the memory of the core for 10,000
 * workers and 10,000 queued jobs. It measures CPU time, not wall time, because the machine may be
 * busy. */
#include "core_fixture.h"

#include <malloc.h>
#include <time.h>

/* Debug builds check all invariants after each event, so they use a smaller pool without timing. */
#if !defined(COP_DEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#    define FULL_SPEED 1
#    define SHARDS     1024u
#    define WORKERS    10000u
#    define JOBS       10000u
#    define DECISIONS  400000u
#else
#    define FULL_SPEED 0
#    define SHARDS     128u
#    define WORKERS    400u
#    define JOBS       400u
#    define DECISIONS  6000u
#endif

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t heap_bytes(void) {
    return mallinfo2().uordblks;
}

/* A host that only answers. */
typedef struct load {
    coord_core *core;
    coord_actions actions;
    uint64_t now, slots, requests, decisions, leases, updates;
    coord_action *lease; /* by worker; type 0: none */
    coord_event *queue;
    uint32_t queued;
} load;

static void send(load *l, const coord_event *event) {
    coord_event e = *event;
    for (uint32_t next = 0;;) {
        assert_int_equal(coord_core_step(l->core, &e, l->now, &l->actions), COP_OK);
        l->decisions++;
        for (uint32_t i = 0; i < l->actions.count; i++) {
            const coord_action *a = &l->actions.items[i];
            coord_event answer = {.job = a->job, .step = a->step, .ok = true};
            if (a->type == COORD_ACTION_LEASE) l->lease[a->worker] = *a, l->leases++;
            if (a->type == COORD_ACTION_LOAD) answer.type = COORD_EVENT_JOB_LOADED;
            if (a->type == COORD_ACTION_UPDATE) answer.type = COORD_EVENT_UPDATED, l->updates++;
            if (a->type == COORD_ACTION_CHECKPOINT) answer.type = COORD_EVENT_CHECKPOINTED;
            answer.loaded.step = 0;
            if (answer.type) l->queue[l->queued++] = answer;
        }
        if (next == l->queued) break;
        e = l->queue[next++];
    }
    l->queued = 0;
}

static load *start(coord_core_config config) {
    load *l = calloc(1, sizeof *l);
    l->lease = calloc(WORKERS + 1, sizeof *l->lease);
    l->queue = calloc(4096, sizeof *l->queue);
    l->now = FX_SECOND;
    assert_int_equal(coord_core_create(&config, &l->core), COP_OK);
    return l;
}

static void stop(load *l) {
    coord_core_destroy(l->core);
    coord_actions_fini(&l->actions);
    free(l->lease);
    free(l->queue);
    free(l);
}

static void add_job(load *l, uint64_t job, int32_t priority) {
    coord_event e = {.type = COORD_EVENT_JOB_ADDED, .job = job};
    e.info = (coord_job_info){.job = job,
                              .priority = priority,
                              .batch = SHARDS,
                              .shards = SHARDS,
                              .train_samples = SHARDS,
                              .steps = 1000000,
                              .steps_per_epoch = 1,
                              .audit = 0.05,
                              .state = COORD_QUEUED};
    send(l, &e);
}

static void join(load *l, uint64_t worker) {
    char name[16];
    snprintf(name, sizeof name, "w%u", (unsigned)worker);
    coord_event e = {.type = COORD_EVENT_WORKER_JOINED, .worker = worker};
    e.joined.name = name;
    e.joined.threads = 1;
    send(l, &e);
}

static void pull(load *l, uint64_t worker) {
    coord_event e = {.type = COORD_EVENT_PULL, .worker = worker};
    e.pull.request = ++l->requests;
    l->lease[worker].type = 0;
    send(l, &e);
}

static void finish(load *l, uint64_t worker) {
    const coord_action a = l->lease[worker];
    coord_event e = {.type = COORD_EVENT_RESULT, .worker = worker, .job = a.job, .step = a.step};
    e.result = (coord_result_info){.lease = a.lease.lease,
                                   .job = a.job,
                                   .step = a.step,
                                   .compute_ns = 10 * FX_MS,
                                   .attempt = a.lease.attempt,
                                   .first = a.lease.first,
                                   .count = a.lease.count,
                                   .finite = true,
                                   .loss = 1,
                                   .samples = a.lease.count,
                                   .slot = ++l->slots};
    e.result.digest = coord_core_wants_digest(l->core, worker, &e.result) ? 7 : 0;
    l->lease[worker].type = 0;
    send(l, &e);
}

/* Runs one turn: every worker sends its result and pulls again, all send heartbeats, and one worker
 * joins and leaves. */
static void turn(load *l, uint64_t *newcomer) {
    for (uint64_t w = 1; w <= WORKERS; w++) {
        l->now += 1000;
        if (l->lease[w].type) {
            finish(l, w);
            pull(l, w);
        }
        coord_event beat = {.type = COORD_EVENT_HEARTBEAT, .worker = w};
        if (w % 2) send(l, &beat);
        if (w % (WORKERS / 10) == 0) {
            coord_event tick = {.type = COORD_EVENT_TICK};
            coord_event gone = {.type = COORD_EVENT_WORKER_GONE, .worker = *newcomer};
            send(l, &tick);
            send(l, &gone);
            join(l, ++*newcomer);
        }
    }
}

static void test_10000_workers_cost_5_microseconds_a_decision_and_2_kib_each(void **state) {
    (void)state;
    load *l =
        start((coord_core_config){.heartbeats = true, .speculate = true, .can_recompute = true});
    for (uint64_t job = 1; job <= JOBS; job++) add_job(l, job, 0);
    size_t before = heap_bytes();
    for (uint64_t w = 1; w <= WORKERS; w++) join(l, w);
    for (uint64_t w = 1; w <= WORKERS; w++) pull(l, w);
    double bytes = (double)(heap_bytes() - before) / WORKERS;
    uint64_t newcomer = WORKERS + 1;
    join(l, newcomer);
    turn(l, &newcomer); /* speeds are known now */
    double began = cpu_seconds();
    l->decisions = l->leases = 0;
    while (l->decisions < DECISIONS) turn(l, &newcomer);
    double rate = (double)l->decisions / (cpu_seconds() - began);
    print_message("%u workers, %u queued jobs: %.0f decisions a second (%llu leases, %llu steps), "
                  "%.0f bytes for each worker\n",
                  WORKERS, JOBS, rate, (unsigned long long)l->leases,
                  (unsigned long long)l->updates, bytes);
    assert_true(l->leases > DECISIONS / 8);
    assert_true(bytes < 2048);
    if (FULL_SPEED) assert_true(rate >= 200000);
    stop(l);
}

static int32_t priority_of(uint64_t job) {
    return (int32_t)(job * 7919 % 10);
}

/* Compares two jobs: the one with higher priority comes first, then the older one. */
static int by_priority(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    if (priority_of(x) != priority_of(y)) return priority_of(x) > priority_of(y) ? -1 : 1;
    return x < y ? -1 : 1;
}

static void test_10000_queued_jobs_start_in_order_and_cost_microseconds(void **state) {
    (void)state;
    static uint64_t order[JOBS];
    load *l = start((coord_core_config){.jobs_running_max = 1});
    double began = cpu_seconds();
    for (uint64_t job = 1; job <= JOBS; job++) add_job(l, job, priority_of(job));
    double added = cpu_seconds() - began;
    for (uint64_t i = 0; i < JOBS; i++) order[i] = i + 1;
    qsort(order + 1, JOBS - 1, sizeof *order, by_priority); /* job 1 runs already */
    began = cpu_seconds();
    for (uint32_t i = 0; i < JOBS; i++) {
        coord_job_view view;
        coord_event cancel = {.type = COORD_EVENT_JOB_CANCEL, .job = order[i]};
        assert_true(coord_core_job(l->core, order[i], l->now, &view));
        assert_int_equal(view.info.state, COORD_RUNNING);
        send(l, &cancel);
    }
    double ended = cpu_seconds() - began;
    print_message("%u jobs: %.1f us to add one, %.1f us to end one and start the next\n", JOBS,
                  1e6 * added / JOBS, 1e6 * ended / JOBS);
    if (FULL_SPEED) assert_true(added / JOBS < 50e-6 && ended / JOBS < 200e-6);
    stop(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_10000_workers_cost_5_microseconds_a_decision_and_2_kib_each),
        cmocka_unit_test(test_10000_queued_jobs_start_in_order_and_cost_microseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
