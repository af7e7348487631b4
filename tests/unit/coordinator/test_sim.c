/* Thousands of seeded pools with faults: every job ends with the weights of a loop without any
 * pool. COPPICE_SIM_SEED=n runs one seed, COPPICE_SIM_SEEDS=n so many. */
#include "sim/core_sim.h"

#include <time.h>

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

#ifdef COP_DEBUG
#    define SEEDS 200 /* invariants are checked after every event */
#else
#    define SEEDS 2000
#endif

static void test_faultless_pools_give_the_weights_of_a_loop(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        uint32_t repeated = 0;
        assert_true(sim_run(seed, false, &repeated) > 0);
    }
}

static void test_weights_do_not_depend_on_faults(void **state) {
    (void)state;
    uint64_t only = from_environment("COPPICE_SIM_SEED", 0);
    uint64_t seeds = from_environment("COPPICE_SIM_SEEDS", SEEDS);
    uint32_t repeated = 0, leases = 0;
    clock_t began = clock();
    for (uint64_t seed = only ? only : 1; seed <= (only ? only : seeds); seed++) {
        leases += sim_run(seed, true, &repeated);
    }
    double seconds = (double)(clock() - began) / CLOCKS_PER_SEC;
    print_message("%llu seeds, %u leases, %u of them given again, %.1f s\n",
                  (unsigned long long)(only ? 1 : seeds), leases, repeated, seconds);
    if (!only) assert_true(repeated > seeds); /* the faults did happen */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faultless_pools_give_the_weights_of_a_loop),
        cmocka_unit_test(test_weights_do_not_depend_on_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
