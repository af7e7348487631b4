/* Parallel loops and background tasks. LABELS: quick threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/thread_pool.h"

#define THREADS 3
#define PARTS   100

typedef struct loop {
    cop_task task;
    atomic_int runs[PARTS], busy[THREADS + 1], shared_numbers;
} loop;

static void run_part(cop_task *task, int thread, int part) {
    loop *l = (loop *)task;
    if (atomic_fetch_add(&l->busy[thread], 1)) atomic_fetch_add(&l->shared_numbers, 1);
    atomic_fetch_add(&l->runs[part], 1);
    atomic_fetch_sub(&l->busy[thread], 1);
}

static void assert_each_part_ran(loop *l, int times) {
    for (int i = 0; i < PARTS; i++) assert_int_equal(atomic_load(&l->runs[i]), times);
    assert_int_equal(atomic_load(&l->shared_numbers), 0);
}

static void test_parallel_for_runs_each_part_once(void **state) {
    (void)state;
    static loop l;
    cop_thread_pool *pool = NULL;
    memset(&l, 0, sizeof l);
    assert_int_equal(cop_thread_pool_create(THREADS, NULL, &pool, NULL), COP_OK);
    assert_int_equal(cop_thread_pool_threads(pool), THREADS);
    for (int round = 1; round <= 50; round++) {
        l.task = (cop_task){.run = run_part, .parts = PARTS};
        cop_parallel_for(pool, &l.task);
        assert_each_part_ran(&l, round);
    }
    cop_thread_pool_destroy(pool);
}

static void test_parallel_for_needs_no_pool(void **state) {
    (void)state;
    static loop l;
    memset(&l, 0, sizeof l);
    l.task = (cop_task){.run = run_part, .parts = PARTS};
    cop_parallel_for(NULL, &l.task);
    assert_each_part_ran(&l, 1);
}

typedef struct order {
    atomic_int count;
    int numbers[20];
} order;

typedef struct job {
    cop_task task;
    order *order;
    int number;
} job;

static void append_and_free(cop_task *task) {
    job *j = (job *)task;
    j->order->numbers[atomic_fetch_add(&j->order->count, 1)] = j->number;
    cop_free(j);
}

static void test_one_thread_runs_tasks_in_order_and_destroy_waits_for_them(void **state) {
    (void)state;
    order o = {.count = 0};
    cop_thread_pool *pool = NULL;
    assert_int_equal(cop_thread_pool_create(1, NULL, &pool, NULL), COP_OK);
    for (int i = 0; i < 20; i++) {
        job *j = cop_alloc(sizeof *j);
        *j = (job){.task = {.done = append_and_free}, .order = &o, .number = i};
        cop_thread_pool_submit(pool, &j->task);
    }
    cop_thread_pool_destroy(pool);
    assert_int_equal(atomic_load(&o.count), 20);
    for (int i = 0; i < 20; i++) assert_int_equal(o.numbers[i], i);
}

typedef struct repeat {
    loop loop;
    cop_thread_pool *pool;
    atomic_int rounds; /* rounds that are still to run */
} repeat;

static void submit_again(cop_task *task) {
    repeat *r = (repeat *)task;
    if (atomic_fetch_sub(&r->rounds, 1) > 1) cop_thread_pool_submit(r->pool, task);
}

static void test_done_comes_after_all_parts_and_may_submit_again(void **state) {
    (void)state;
    static repeat r;
    memset(&r, 0, sizeof r);
    assert_int_equal(cop_thread_pool_create(THREADS, NULL, &r.pool, NULL), COP_OK);
    atomic_store(&r.rounds, 30);
    r.loop.task = (cop_task){.run = run_part, .done = submit_again, .parts = PARTS};
    cop_thread_pool_submit(r.pool, &r.loop.task);
    while (atomic_load(&r.rounds) > 0) cop_clock_sleep_ms(1);
    assert_each_part_ran(&r.loop, 30);
    cop_thread_pool_destroy(r.pool);
}

static atomic_int initialized;

static void count_init(void) {
    atomic_fetch_add(&initialized, 1);
}

static void test_each_thread_is_initialized_before_it_works(void **state) {
    (void)state;
    cop_thread_pool *pool = NULL;
    assert_int_equal(cop_thread_pool_create(THREADS, count_init, &pool, NULL), COP_OK);
    cop_thread_pool_destroy(pool);
    assert_int_equal(atomic_load(&initialized), THREADS);
}

static void test_out_of_memory_is_an_error(void **state) {
    (void)state;
    cop_thread_pool *pool = NULL;
    cop_error error = {0};
    cop_alloc_fail_at(1);
    assert_int_equal(cop_thread_pool_create(THREADS, NULL, &pool, &error), COP_ERR_NO_MEMORY);
    cop_alloc_fail_at(0);
    assert_null(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parallel_for_runs_each_part_once),
        cmocka_unit_test(test_parallel_for_needs_no_pool),
        cmocka_unit_test(test_one_thread_runs_tasks_in_order_and_destroy_waits_for_them),
        cmocka_unit_test(test_done_comes_after_all_parts_and_may_submit_again),
        cmocka_unit_test(test_each_thread_is_initialized_before_it_works),
        cmocka_unit_test(test_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
