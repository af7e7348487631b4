/* Audits in virtual time. Audited blocks need two equal results. A worker with wrong results is
 * found and gets no more work, and its damage is undone. No honest worker is suspected, and a
 * diverging job is not mistaken for a lying worker. */
#include "virtual_pool.h"

#ifdef COP_DEBUG
#    define FEWER 10 /* invariants are checked after every event */
#else
#    define FEWER 1
#endif

static const coord_core_config recomputing = {
    .can_recompute = true, .secret = {0x1234567, 0x89abcdef}, .lease_floor_ns = VP_SECOND};

/* Starts a pool of `workers` workers that compute a shard per millisecond. A block is one shard. */
static virtual_pool *start(coord_core_config config, uint32_t workers, double audit,
                           uint64_t steps) {
    virtual_pool *p = vp_create(config, workers, 11);
    coord_job_info info = vp_info(1, 2 * workers, steps);
    info.audit = audit;
    info.checkpoint_every = 10;
    for (uint32_t w = 1; w <= workers; w++) {
        p->worker[w].jitter = 0.1;
        vp_join(p, w, 1);
    }
    vp_add(p, info);
    return p;
}

static void end_clean(virtual_pool *p) {
    vp_run_all(p);
    assert_int_equal(p->job[1].state, COORD_COMPLETED);
    assert_true(p->job[1].weights == vp_expected_weights(&p->job[1].info, p->job[1].info.steps));
}

static uint64_t shards_of(const virtual_pool *p) {
    uint64_t sum = 0;
    for (uint32_t w = 1; w <= p->workers; w++) sum += p->worker[w].shards;
    return sum;
}

/* ---- honest pools ---- */

static void test_honest_workers_are_never_suspected(void **state) {
    (void)state;
    const double shares[] = {0, 0.05, 0.5, 1};
    for (int i = 0; i < 4; i++) {
        virtual_pool *p = start(recomputing, 5, shares[i], 100);
        end_clean(p);
        for (uint32_t w = 1; w <= 5; w++) assert_false(vp_quarantined(p, w));
        assert_int_equal(p->recomputed, 0);
        assert_string_equal(p->warnings, "");
        vp_destroy(p);
    }
}

static void test_audit_costs_only_its_share_of_the_computing(void **state) {
    (void)state;
    const double shares[] = {0, 0.05, 0.25, 1};
    for (int i = 0; i < 4; i++) {
        virtual_pool *p = start(recomputing, 8, shares[i], 2000);
        vp_run(p, 1990 / FEWER);
        double needed = (double)p->job[1].step * p->job[1].info.shards;
        double cost = (double)shards_of(p) / needed - 1;
        print_message("audit %.2f: %.2f %% more computing\n", shares[i], 100 * cost);
        assert_true(cost >= 0.9 * shares[i] && cost <= shares[i] + 0.01);
        vp_destroy(p);
    }
}

static void test_audit_lease_looks_like_any_other(void **state) {
    (void)state;
    virtual_pool *p = start(recomputing, 4, 1, 1000);
    while (p->job[1].step < 50) {
        vp_advance(p);
        for (uint32_t w = 1; w <= 4; w++)
            if (p->worker[w].leases) assert_int_equal(p->worker[w].lease.lease.attempt, 1);
    }
    vp_destroy(p);
}

static void test_audited_blocks_depend_on_the_secret(void **state) {
    (void)state;
    uint64_t same = 0, all = 0;
    uint32_t audited[2][64] = {{0}};
    for (int run = 0; run < 2; run++) {
        coord_core_config config = recomputing;
        config.secret[1] += (uint64_t)run;
        virtual_pool *p = start(config, 4, 0.1, 1000);
        for (uint64_t step = 1; step <= 64; step++) {
            uint64_t before = vp_view(p, 1).leases.given;
            vp_run(p, step);
            audited[run][step - 1] = (uint32_t)(vp_view(p, 1).leases.given - before);
        }
        vp_destroy(p);
    }
    for (int i = 0; i < 64; i++, all++) same += audited[0][i] == audited[1][i];
    assert_true(same < all);
}

static void test_single_worker_is_audited_by_the_coordinator(void **state) {
    (void)state;
    virtual_pool *p = start(recomputing, 1, 1, 20);
    end_clean(p);
    assert_true(p->recomputed >= 20);
    vp_destroy(p);
}

static void test_workers_of_one_certificate_are_audited_by_the_coordinator(void **state) {
    (void)state;
    virtual_pool *p = vp_create(recomputing, 4, 1);
    coord_job_info info = vp_info(1, 8, 100);
    info.audit = 0.5;
    p->identity = "shared";
    for (uint32_t w = 1; w <= 4; w++) vp_join(p, w, 1);
    vp_add(p, info);
    uint64_t began = p->now;
    end_clean(p);
    assert_true(p->recomputed >= 150);
    assert_string_equal(p->warnings, "");
    assert_true(p->now - began < VP_SECOND); /* nothing waited for another worker */
    vp_destroy(p);
}

/* ---- liars ---- */

static void test_audit_1_averages_no_wrong_gradient(void **state) {
    (void)state;
    const double lies[] = {0.001, 0.1, 1};
    uint64_t averaged = 0, wrong = 0;
    for (int i = 0; i < 3; i++)
        for (int loss = 0; loss < 2; loss++) {
            virtual_pool *p = start(recomputing, 5, 1, 200);
            p->worker[2].lie = lies[i];
            p->worker[2].lies_in_loss = loss;
            end_clean(p);
            averaged += p->job[1].updates * p->job[1].info.shards;
            wrong += p->job[1].wrong_averaged;
            assert_int_equal(p->job[1].wrong_averaged, 0);
            assert_int_equal(vp_quarantined(p, 2), p->worker[2].wrong > 0);
            assert_int_equal(vp_view(p, 1).leases.rollbacks, 0);
            for (uint32_t w = 1; w <= 5; w++) assert_true(w == 2 || !vp_quarantined(p, w));
            vp_destroy(p);
        }
    print_message("%llu of %llu averaged gradients were wrong\n", (unsigned long long)wrong,
                  (unsigned long long)averaged);
    assert_true(averaged >= 10000);
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_audit_of_a_twentieth_finds_a_liar_within_60_shards(void **state) {
    (void)state;
    enum { SEEDS = 1000 / FEWER };
    static uint64_t found[SEEDS];
    double computing = 0, needed = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        coord_core_config config = recomputing;
        config.secret[0] = seed * 77 + 1;
        virtual_pool *p = start(config, 8, 0.05, 100000);
        vp_run(p, 20 + seed % 10);
        needed += (double)p->job[1].step * p->job[1].info.shards;
        computing += (double)shards_of(p);
        p->worker[3].lie = 1; /* from now on */
        while (!vp_quarantined(p, 3)) vp_advance(p);
        found[seed] = p->worker[3].wrong_since;
        vp_destroy(p);
    }
    qsort(found, SEEDS, sizeof *found, ascending);
    double cost = computing / needed - 1;
    print_message("found after %llu shards (median), %llu (p95), %llu (most); %.2f %% more "
                  "computing\n",
                  (unsigned long long)found[SEEDS / 2], (unsigned long long)found[SEEDS * 95 / 100],
                  (unsigned long long)found[SEEDS - 1], 100 * cost);
    assert_true(found[SEEDS * 95 / 100] <= 60);
    assert_true(cost <= 0.06);
}

/* Any worker may lie, from any time on and at any rate: the weights must equal those of a run
 * without lies. */
static void test_damage_by_a_liar_is_undone(void **state) {
    (void)state;
    uint64_t rollbacks = 0, wrong = 0;
    for (uint64_t seed = 1; seed <= 60 / FEWER; seed++) {
        coord_core_config config = recomputing;
        config.secret[0] = seed;
        config.speculate = seed % 2;
        virtual_pool *p = start(config, 6, 0.1, 300);
        vp_run(p, seed * 2); /* the liar is honest at first, often for several checkpoints */
        p->worker[4].lie = seed % 3 ? 1 : 0.5;
        p->worker[5].stall_ns = 30 * VP_MS;
        end_clean(p);
        assert_true(vp_quarantined(p, 4));
        rollbacks += vp_view(p, 1).leases.rollbacks;
        wrong += p->job[1].wrong_averaged;
        assert_true(!p->job[1].wrong_averaged || p->job[1].updates > 300);
        vp_destroy(p);
    }
    assert_true(wrong > 100 / FEWER / 2); /* there was damage */
    print_message("%llu wrong gradients were averaged and undone\n", (unsigned long long)wrong);
    (void)rollbacks;
}

static void test_late_liar_undoes_only_steps_after_it_joined(void **state) {
    (void)state;
    uint32_t went_back = 0;
    for (uint64_t seed = 1; seed <= 20 / FEWER; seed++) {
        coord_core_config config = recomputing;
        config.secret[0] = seed;
        virtual_pool *p = start(config, 5, 0.1, 200);
        vp_feed(p, (coord_event){.type = COORD_EVENT_WORKER_GONE, .worker = 5});
        p->worker[5].alive = false;
        vp_run(p, 104);
        p->worker[5].lie = 1;
        vp_join(p, 5, 1);
        while (!vp_quarantined(p, 5)) vp_advance(p);
        if (p->job[1].wrong_averaged) {
            went_back++;
            assert_int_equal(p->job[1].rolled_to, 100); /* before it joined */
            assert_int_equal(vp_view(p, 1).leases.rollbacks, 1);
        }
        end_clean(p);
        vp_destroy(p);
    }
    assert_true(went_back >= 10 / FEWER);
}

/* After a hundred confirmed audits, earlier results are believed. */
static void test_trust_grows_with_confirmed_audits(void **state) {
    (void)state;
    uint64_t wrong = 0;
    for (uint64_t seed = 1; seed <= 20 / FEWER; seed++) {
        coord_core_config config = recomputing;
        config.secret[0] = seed;
        virtual_pool *p = start(config, 4, 0.5, 1500);
        vp_run(p, 1000);
        p->worker[2].lie = 0.2;
        while (!vp_quarantined(p, 2)) vp_advance(p);
        wrong += p->job[1].wrong_averaged;
        assert_int_equal(vp_view(p, 1).leases.rollbacks, 1);
        assert_true(p->job[1].rolled_to >= 800 && p->job[1].rolled_to <= 1000);
        end_clean(p);
        vp_destroy(p);
    }
    assert_true(wrong > 0);
}

static void test_coordinator_decides_between_two_workers(void **state) {
    (void)state;
    for (uint32_t liar = 1; liar <= 2; liar++) {
        virtual_pool *p = start(recomputing, 2, 1, 40);
        vp_run(p, 10);
        p->worker[liar].lie = 1;
        end_clean(p);
        assert_true(vp_quarantined(p, liar));
        assert_false(vp_quarantined(p, 3 - liar));
        assert_true(p->recomputed > 0);
        assert_int_equal(p->job[1].wrong_averaged, 0);
        vp_destroy(p);
    }
}

static void test_third_worker_decides_if_the_coordinator_cannot(void **state) {
    (void)state;
    coord_core_config config = recomputing;
    config.can_recompute = false;
    for (uint32_t liar = 1; liar <= 3; liar++) {
        virtual_pool *p = start(config, 3, 1, 40);
        vp_run(p, 10);
        p->worker[liar].lie = 1;
        end_clean(p);
        for (uint32_t w = 1; w <= 3; w++) assert_int_equal(vp_quarantined(p, w), w == liar);
        assert_int_equal(p->job[1].wrong_averaged, 0);
        vp_destroy(p);
    }
}

static void test_only_workers_of_its_kind_audit_a_pinned_job(void **state) {
    (void)state;
    coord_core_config config = recomputing;
    config.fingerprint = 99; /* that of the workers is 7 */
    virtual_pool *p = vp_create(config, 3, 1);
    coord_job_info info = vp_info(1, 6, 40);
    info.audit = 1;
    info.pin_first = true;
    for (uint32_t w = 1; w <= 3; w++) vp_join(p, w, 1);
    p->worker[1].lie = 1;
    vp_add(p, info);
    end_clean(p);
    assert_int_equal(p->recomputed, 0);
    assert_true(vp_quarantined(p, 1));
    vp_destroy(p);
}

static void test_two_liars_with_different_results_are_both_found(void **state) {
    (void)state;
    virtual_pool *p = start(recomputing, 5, 1, 60);
    p->worker[1].lie = 0.3;
    p->worker[2].lie = 0.3;
    p->worker[2].lies_in_loss = true;
    end_clean(p);
    assert_true(vp_quarantined(p, 1) && vp_quarantined(p, 2));
    assert_int_equal(p->job[1].wrong_averaged, 0);
    vp_destroy(p);
}

static void test_lies_about_an_evaluation_are_found_and_undone(void **state) {
    (void)state;
    virtual_pool *p = vp_create(recomputing, 4, 2);
    coord_job_info info = vp_info(1, 8, 60);
    info.audit = 1;
    info.evaluate_samples = 5000;
    info.evaluate_every = 1;
    for (uint32_t w = 1; w <= 4; w++) vp_join(p, w, 1);
    vp_add(p, info);
    vp_run(p, 5);
    p->worker[2].lie = 1;
    end_clean(p);
    assert_true(vp_quarantined(p, 2));
    double truth = 0;
    for (uint32_t at = 0; at < 5000; at += 1000)
        truth += (double)(vp_node(p->job[1].weights, 60, at, at + 1) >> 40);
    assert_true(p->job[1].evaluated == truth);
    vp_destroy(p);
}

/* ---- quarantine ---- */

/* The number before the first " correct" in *text; moves *text after it. */
static unsigned long correct_in(const char **text) {
    const char *found = strstr(*text, " correct");
    assert_non_null(found);
    const char *digits = found;
    while (digits > *text && digits[-1] >= '0' && digits[-1] <= '9') digits--;
    *text = found + 1;
    return strtoul(digits, NULL, 10);
}

static void test_evidence_shows_the_count_if_only_the_count_is_wrong(void **state) {
    (void)state;
    virtual_pool *p = start(recomputing, 4, 1, 400);
    p->worker[2].lie = 1;
    p->worker[2].lies_in_count = true;
    vp_run(p, 5);
    assert_true(vp_quarantined(p, 2));
    coord_worker_view view;
    assert_true(coord_core_worker(p->core, 2, &view));
    const char *text = view.evidence;
    unsigned long theirs = correct_in(&text), ours = correct_in(&text);
    assert_int_equal(theirs, ours + 1);
    vp_destroy(p);
}

static void test_quarantined_worker_gets_no_work_even_in_a_new_session(void **state) {
    (void)state;
    virtual_pool *p = start(recomputing, 4, 1, 400);
    p->worker[2].lie = 1;
    vp_run(p, 5);
    assert_true(vp_quarantined(p, 2));
    assert_non_null(
        strstr(p->warnings, "worker w2 computed wrong results and is quarantined: job 1, step "));
    coord_worker_view view;
    assert_true(coord_core_worker(p->core, 2, &view));
    assert_non_null(strstr(view.evidence, "digest"));
    uint64_t leases = p->worker[2].leases;
    vp_run(p, 100);
    assert_int_equal(p->worker[2].leases, leases);
    vp_feed(p, (coord_event){.type = COORD_EVENT_WORKER_GONE, .worker = 2});
    coord_event again = {.type = COORD_EVENT_WORKER_JOINED, .worker = 77};
    again.joined.name = "w2-2"; /* the host still has its old session, so the name gets a suffix */
    again.joined.identity = "w2";
    again.joined.threads = 1;
    again.joined.fingerprint = 7;
    vp_feed(p, again);
    assert_true(coord_core_worker(p->core, 77, &view));
    assert_true(view.quarantined);
    vp_feed(p, (coord_event){.type = COORD_EVENT_PULL, .worker = 77, .pull = {.request = 1 << 30}});
    vp_run(p, 150);
    assert_true(coord_core_worker(p->core, 77, &view));
    assert_false(view.computing);
    vp_destroy(p);
}

/* ---- not finite ---- */

static void test_diverging_job_causes_no_quarantine(void **state) {
    (void)state;
    const double shares[] = {0, 1};
    for (int i = 0; i < 2; i++)
        for (uint32_t workers = 1; workers <= 3; workers++) {
            virtual_pool *p = start(recomputing, workers, shares[i], 40);
            vp_run(p, 5);
            p->diverges = true;
            vp_run_all(p);
            assert_int_equal(p->job[1].state, COORD_FAILED);
            for (uint32_t w = 1; w <= workers; w++) {
                coord_worker_view view;
                assert_true(coord_core_worker(p->core, w, &view));
                assert_false(view.quarantined);
                assert_int_equal(view.strikes, 0);
            }
            vp_destroy(p);
        }
}

static void test_non_finite_value_of_only_one_worker_is_a_strike(void **state) {
    (void)state;
    coord_core_config config = recomputing;
    config.strikes_max = 3;
    virtual_pool *p = start(config, 3, 0, 100);
    vp_run(p, 5);
    p->worker[2].lie = 0.1;
    p->worker[2].not_finite = true;
    coord_worker_view view = {0};
    for (int guard = 0; view.strikes < 1 && guard < 100000; guard++) {
        vp_advance(p);
        coord_core_worker(p->core, 2, &view);
    }
    assert_int_equal(view.strikes, 1);
    assert_false(view.quarantined);
    end_clean(p);
    assert_true(vp_quarantined(p, 2)); /* after three */
    assert_int_equal(p->job[1].wrong_averaged, 0);
    vp_destroy(p);
}

/* Two of five workers return only non-finite values: they agree, but both are wrong. */
static void test_broken_workers_that_agree_do_not_make_a_job_diverge(void **state) {
    (void)state;
    const double shares[] = {0, 0.3, 1};
    coord_core_config config = recomputing;
    config.strikes_max = 3;
    for (int i = 0; i < 3; i++) {
        virtual_pool *p = start(config, 5, shares[i], 60);
        for (uint32_t w = 1; w <= 2; w++) {
            p->worker[w].lie = 1;
            p->worker[w].not_finite = true;
        }
        end_clean(p);
        for (uint32_t w = 1; w <= 5; w++) assert_int_equal(vp_quarantined(p, w), w <= 2);
        assert_int_equal(p->job[1].wrong_averaged, 0);
        vp_destroy(p);
    }
}

static void test_job_waits_for_a_sound_worker_when_all_are_broken(void **state) {
    (void)state;
    coord_core_config config = recomputing;
    config.strikes_max = 3;
    virtual_pool *p = vp_create(config, 3, 5);
    for (uint32_t w = 1; w <= 2; w++) {
        p->worker[w].lie = 1;
        p->worker[w].not_finite = true;
        vp_join(p, w, 1);
    }
    vp_add(p, vp_info(1, 4, 40));
    for (int i = 0; i < 10000; i++) vp_advance(p);
    assert_int_equal(p->job[1].state, COORD_RUNNING);
    assert_true(p->recomputed > 0);
    vp_join(p, 3, 1);
    end_clean(p);
    assert_true(vp_quarantined(p, 1) && vp_quarantined(p, 2) && !vp_quarantined(p, 3));
    vp_destroy(p);
}

/* If the coordinator cannot compute the job, two workers that agree are believed. */
static void
test_two_agreeing_workers_are_believed_if_the_coordinator_cannot_recompute(void **state) {
    (void)state;
    coord_core_config config = recomputing;
    config.can_recompute = false;
    virtual_pool *p = start(config, 2, 0, 40);
    for (uint32_t w = 1; w <= 2; w++) {
        p->worker[w].lie = 1;
        p->worker[w].not_finite = true;
    }
    vp_run_all(p);
    assert_int_equal(p->job[1].state, COORD_FAILED);
    vp_destroy(p);
}

/* ---- finite, but huge ---- */

/* A liar sends a gradient of finite values, but its sum with the other gradients, or the next step
 * after it, is not finite. The block may be one that is not audited. */
static void test_huge_gradient_of_a_liar_does_not_end_the_job(void **state) {
    (void)state;
    const uint64_t kinds[] = {VP_HUGE, VP_POISON};
    uint64_t poisoned = 0;
    for (uint64_t seed = 1; seed <= 40 / FEWER; seed++)
        for (int kind = 0; kind < 2; kind++) {
            coord_core_config config = recomputing;
            config.secret[0] = seed;
            virtual_pool *p = start(config, 5, 0.05, 100);
            vp_run(p, 8 + seed % 20); /* some checkpoints are from just before, or just after */
            p->worker[3].lie = 0.05;
            p->worker[3].lies_huge = kinds[kind];
            vp_run(p, 90);
            p->worker[3].lie = 0; /* a lie in the last step would have no effect on a later one */
            end_clean(p);
            for (uint32_t w = 1; w <= 5; w++) assert_true(w == 3 || !vp_quarantined(p, w));
            /* If the sum is not finite, the liar is found in the same step. */
            if (kind == 0) assert_int_equal(vp_quarantined(p, 3), p->worker[3].wrong > 0);
            if (kind == 0) assert_int_equal(p->job[1].wrong_averaged, 0);
            if (kind == 1) poisoned += p->job[1].wrong_averaged;
            vp_destroy(p);
        }
    assert_true(poisoned > 0);
}

/* Without an audit, a worker is believed. */
static void test_without_an_audit_a_huge_gradient_is_believed(void **state) {
    (void)state;
    virtual_pool *p = start(recomputing, 5, 0, 100);
    vp_run(p, 8);
    p->worker[3].lie = 0.2;
    p->worker[3].lies_huge = VP_POISON;
    vp_run_all(p);
    assert_int_equal(p->job[1].state, COORD_FAILED);
    vp_destroy(p);
}

/* A job that diverges at a step ends at this step, with or without audits. If not all blocks are
 * audited, the steps since the last checkpoint are repeated once before that. */
static void test_diverging_job_ends_at_its_step_whatever_is_audited(void **state) {
    (void)state;
    const double shares[] = {0, 0.1, 1};
    for (int sum = 0; sum < 2; sum++)
        for (int i = 0; i < 3; i++)
            for (uint32_t workers = 1; workers <= 3; workers++) {
                virtual_pool *p = start(recomputing, workers, shares[i], 60);
                if (sum)
                    p->overflows_at = 36;
                else
                    p->diverges_at = 36;
                vp_run_all(p);
                assert_int_equal(p->job[1].state, COORD_FAILED);
                assert_int_equal(p->job[1].state_step, 35);
                assert_true(p->job[1].weights == vp_expected_weights(&p->job[1].info, 35));
                assert_int_equal(p->job[1].rolled_to, i == 1 ? 30 : 0);
                assert_int_equal(p->job[1].updates, i == 1 ? 40 : 35);
                for (uint32_t w = 1; w <= workers; w++) assert_false(vp_quarantined(p, w));
                vp_destroy(p);
            }
}

/* ---- copies ---- */

/* Without audits, a slow liar is found because other workers compute copies of its blocks. */
static void test_copies_are_compared_and_a_mismatch_is_evidence(void **state) {
    (void)state;
    coord_core_config config = recomputing;
    config.speculate = true;
    uint32_t caught = 0, watched = 0;
    for (uint64_t seed = 1; seed <= 10 / FEWER; seed++) {
        virtual_pool *p = start(config, 4, 0, 2000);
        vp_run(p, 30);
        p->worker[1].stall_ns = 40 * VP_MS;
        p->worker[1].lie = 0.5;
        vp_run(p, 1500);
        caught += vp_quarantined(p, 1);
        watched += strstr(p->warnings, "too late to decide") != NULL;
        assert_true(vp_view(p, 1).leases.compared > 0);
        for (uint32_t w = 2; w <= 4; w++) assert_false(vp_quarantined(p, w));
        vp_destroy(p);
    }
    print_message("%u of %d caught by copies alone, %u after being watched\n", caught, 10 / FEWER,
                  watched);
    assert_true(caught > 7 / FEWER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_honest_workers_are_never_suspected),
        cmocka_unit_test(test_audit_costs_only_its_share_of_the_computing),
        cmocka_unit_test(test_audit_lease_looks_like_any_other),
        cmocka_unit_test(test_audited_blocks_depend_on_the_secret),
        cmocka_unit_test(test_single_worker_is_audited_by_the_coordinator),
        cmocka_unit_test(test_workers_of_one_certificate_are_audited_by_the_coordinator),
        cmocka_unit_test(test_audit_1_averages_no_wrong_gradient),
        cmocka_unit_test(test_audit_of_a_twentieth_finds_a_liar_within_60_shards),
        cmocka_unit_test(test_damage_by_a_liar_is_undone),
        cmocka_unit_test(test_late_liar_undoes_only_steps_after_it_joined),
        cmocka_unit_test(test_trust_grows_with_confirmed_audits),
        cmocka_unit_test(test_coordinator_decides_between_two_workers),
        cmocka_unit_test(test_third_worker_decides_if_the_coordinator_cannot),
        cmocka_unit_test(test_only_workers_of_its_kind_audit_a_pinned_job),
        cmocka_unit_test(test_two_liars_with_different_results_are_both_found),
        cmocka_unit_test(test_lies_about_an_evaluation_are_found_and_undone),
        cmocka_unit_test(test_evidence_shows_the_count_if_only_the_count_is_wrong),
        cmocka_unit_test(test_quarantined_worker_gets_no_work_even_in_a_new_session),
        cmocka_unit_test(test_diverging_job_causes_no_quarantine),
        cmocka_unit_test(test_non_finite_value_of_only_one_worker_is_a_strike),
        cmocka_unit_test(test_broken_workers_that_agree_do_not_make_a_job_diverge),
        cmocka_unit_test(test_job_waits_for_a_sound_worker_when_all_are_broken),
        cmocka_unit_test(
            test_two_agreeing_workers_are_believed_if_the_coordinator_cannot_recompute),
        cmocka_unit_test(test_huge_gradient_of_a_liar_does_not_end_the_job),
        cmocka_unit_test(test_without_an_audit_a_huge_gradient_is_believed),
        cmocka_unit_test(test_diverging_job_ends_at_its_step_whatever_is_audited),
        cmocka_unit_test(test_copies_are_compared_and_a_mismatch_is_evidence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
