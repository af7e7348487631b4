/* Events for the core when allocations fail: an event that happens only once is never lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/base/log.h"
#include "coordinator/engine/engine.h"

/* Makes a result for a job that does not exist. The core accepts it and does nothing. */
static coord_event result_of(uint64_t worker) {
    return (coord_event){.type = COORD_EVENT_RESULT, .worker = worker, .job = 1};
}

/* While no memory can be allocated, results of workers fill the queue. Results that the coordinator
 * has computed itself must still get a place. */
static void test_own_events_have_reserved_places_in_a_full_queue(void **state) {
    (void)state;
    coord_engine *engine = calloc(1, sizeof *engine);
    const coord_core_config config = {.can_recompute = true};
    const coord_event peers = result_of(7), own = result_of(COORD_SELF);
    cop_log_configure(COP_LOG_NONE, false);
    assert_int_equal(coord_core_create(&config, &engine->core), COP_OK);
    coord_dispatch(engine, &peers); /* allocates the queue */
    coord_actions_fini(&engine->actions);

    cop_alloc_fail_from(1);
    uint32_t before;
    do {
        before = engine->queue_count;
        coord_dispatch(engine, &peers);
    } while (engine->queue_count > before && before < 100000);
    for (uint32_t i = 1; i <= 500; i++) {
        coord_dispatch(engine, &own);
        assert_int_equal(engine->queue_count, before + i);
    }
    coord_dispatch(engine, &peers);
    assert_int_equal(engine->queue_count, before + 500);
    cop_alloc_fail_at(0);

    coord_dispatch(engine, &peers); /* with memory again, all are handled */
    assert_int_equal(engine->queue_count, 0);
    cop_log_configure(COP_LOG_INFO, false);
    coord_core_destroy(engine->core);
    coord_actions_fini(&engine->actions);
    cop_free(engine->queue);
    free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_events_have_reserved_places_in_a_full_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
