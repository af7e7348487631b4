/* Leases give the same bits on any number of threads and for any partition. Bad leases are reported
 * and not computed. LABELS: quick threads */
#include "unit/worker/fixture.h"

#include "common/base/shards.h"
#include "common/nn/loss.h"
#include "worker/compute.h"

static int setup(void **state) {
    fixture *f = cop_alloc(sizeof *f);
    make_fixture(f, 1);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    drop_fixture(*state);
    cop_free(*state);
    return 0;
}

static worker_compute *make_compute(int threads) {
    const cop_kernels *kernels;
    worker_compute *c;
    assert_int_equal(cop_kernels_choose(&kernels, NULL), COP_OK);
    assert_int_equal(worker_compute_create(threads, kernels, &c, NULL), COP_OK);
    return c;
}

/* Runs a lease and releases it. */
static cop_buffer *run(worker_compute *c, cop_message lease, cop_result *result) {
    cop_buffer *gradient;
    worker_compute_run(c, &lease, result, &gradient);
    cop_message_fini(&lease);
    return gradient;
}

/* Computes the whole step in one pass of common/nn. However the step is leased, the result must
 * equal this. */
static cop_buffer *reference(const fixture *f, uint64_t step, cop_pass_result *result) {
    cop_message m = train_lease(f, step, 0, SHARDS, false);
    cop_buffer *gradient = cop_buffer_create(gradient_size(f));
    const cop_kernels *kernels;
    cop_pass *pass;
    int32_t sizes[SHARDS];
    cop_kernels_choose(&kernels, NULL);
    assert_int_equal(cop_pass_create(f->job->model, kernels, COP_NUMERICS_PORTABLE, BATCH,
                                     COP_PASS_TRAIN, &pass, NULL),
                     COP_OK);
    cop_shard_sizes(m.lease.batch, SHARDS, sizes);
    cop_shard_work work = {
        .seed = f->job->seed, .step = (uint32_t)step, .shard_count = SHARDS, .shard_sizes = sizes};
    cop_samples samples = {.dtype = f->job->sample_type,
                           .count = (int)m.lease.batch,
                           .features = (int)f->job->features,
                           .stride = f->job->sample_stride,
                           .rows = m.part[COP_PART_SAMPLES]->data,
                           .labels = m.part[COP_PART_LABELS]->data};
    cop_pass_train(pass, f->weights->data, &work, &samples, gradient->data, result);
    cop_pass_destroy(pass);
    cop_message_fini(&m);
    return gradient;
}

static void test_whole_step_on_any_number_of_threads(void **state) {
    const fixture *f = *state;
    for (uint64_t step = 1; step <= 12;
         step += 11) { /* step 12 has 3 samples, so some shards are absent */
        cop_pass_result expected;
        cop_buffer *wanted = reference(f, step, &expected);
        for (int threads = 1; threads <= 8; threads++) {
            worker_compute *c = make_compute(threads);
            cop_result result;
            cop_buffer *got = run(c, train_lease(f, step, 0, SHARDS, true), &result);
            assert_string_equal(result.failure, "");
            assert_int_equal(got->size, wanted->size);
            assert_memory_equal(got->data, wanted->data, wanted->size);
            assert_memory_equal(&result.loss, &expected.loss, sizeof expected.loss);
            assert_int_equal(result.correct, expected.correct);
            assert_int_equal(result.samples, expected.samples);
            cop_buffer_release(got);
            worker_compute_destroy(c);
        }
        cop_buffer_release(wanted);
    }
}

/* A profile changes no bit, and its lanes count each sample once. */
static void test_profiled_step_on_any_number_of_threads(void **state) {
    const fixture *f = *state;
    cop_pass_result expected;
    cop_buffer *wanted = reference(f, 1, &expected);
    for (int threads = 1; threads <= 5; threads += 2) {
        worker_compute *c = make_compute(threads);
        cop_profile *profile;
        cop_result result;
        uint64_t samples = 0;
        assert_int_equal(cop_profile_create(1000, &profile, NULL), COP_OK);
        worker_compute_set_profile(c, profile, "worker");
        cop_buffer *got = run(c, train_lease(f, 1, 0, SHARDS, true), &result);
        assert_string_equal(result.failure, "");
        assert_memory_equal(got->data, wanted->data, wanted->size);
        assert_int_equal(cop_profile_lanes(profile), threads);
        for (int i = 0; i < threads; i++) samples += cop_profile_at(profile, (size_t)i)->samples;
        assert_int_equal(samples, expected.samples);
        cop_buffer_release(got);
        worker_compute_destroy(c);
        cop_profile_destroy(profile);
    }
    cop_buffer_release(wanted);
}

/* Blocks of the tree, computed by several workers, sum to the whole. */
static void test_blocks_sum_to_the_whole(void **state) {
    const fixture *f = *state;
    const int first[] = {0, 4, 6}, size[] = {4, 2, 1};
    cop_pass_result expected;
    cop_buffer *wanted = reference(f, 2, &expected), *parts[3];
    const float *inputs[3];
    double losses[3];
    int16_t ops[8];
    for (int i = 0; i < 3; i++) {
        worker_compute *c = make_compute(i + 1);
        cop_result result;
        parts[i] = run(c, train_lease(f, 2, (uint32_t)first[i], (uint32_t)size[i], true), &result);
        assert_string_equal(result.failure, "");
        inputs[i] = parts[i]->data;
        losses[i] = result.loss;
        worker_compute_destroy(c);
    }
    const cop_tree tree = {
        .count = 3, .op_count = cop_tree_build_blocks(SHARDS, 3, first, size, ops), .ops = ops};
    const cop_kernels *kernels;
    cop_kernels_choose(&kernels, NULL);
    cop_buffer *sum = cop_buffer_create(gradient_size(f));
    kernels->tree_sum(inputs, &tree, sum->data, gradient_size(f) / sizeof(float));
    assert_memory_equal(sum->data, wanted->data, wanted->size);
    assert_true(cop_loss_combine(&tree, losses) == expected.loss);
    for (int i = 0; i < 3; i++) cop_buffer_release(parts[i]);
    cop_buffer_release(sum);
    cop_buffer_release(wanted);
}

static void test_result_names_its_lease(void **state) {
    const fixture *f = *state;
    worker_compute *c = make_compute(2);
    cop_result r;
    cop_buffer *gradient = run(c, train_lease(f, 3, 4, 2, true), &r);
    assert_true(r.present);
    assert_int_equal(r.kind, COP_LEASE_TRAIN);
    assert_int_equal(r.lease, 304);
    assert_int_equal(r.job, 5);
    assert_int_equal(r.step, 3);
    assert_int_equal(r.attempt, 1);
    assert_int_equal(r.first, 4);
    assert_int_equal(r.count, 2);
    assert_int_equal(r.samples, 14);
    assert_in_range(r.compute_ns, 1, 60000000000u);
    cop_buffer_release(gradient);
    worker_compute_destroy(c);
}

static void test_evaluation_on_any_number_of_threads(void **state) {
    const fixture *f = *state;
    const uint32_t counts[] = {1, 124, 125, 126, 300};
    for (int i = 0; i < 5; i++) {
        cop_result first = {0};
        for (int threads = 1; threads <= 5; threads++) {
            worker_compute *c = make_compute(threads);
            cop_result r;
            assert_null(run(c, evaluate_lease(f, counts[i], true), &r));
            assert_string_equal(r.failure, "");
            if (threads == 1) first = r;
            assert_int_equal(r.samples, counts[i]);
            assert_memory_equal(&r.loss, &first.loss, sizeof r.loss);
            assert_int_equal(r.correct, first.correct);
            worker_compute_destroy(c);
        }
        assert_true(first.loss > 0 && first.correct <= counts[i]);
    }
}

/* ---- wire: bf16 ---- */

/* A training lease with its weights rounded. */
static cop_message rounded_lease(const fixture *f, uint32_t first, uint32_t count) {
    cop_message m = train_lease(f, 2, first, count, true);
    const size_t floats = gradient_size(f) / sizeof(float);
    cop_buffer *sent = cop_buffer_create(floats * sizeof(uint16_t));
    for (size_t i = 0; i < floats; i++)
        ((uint16_t *)sent->data)[i] = cop_bf16_of(((const float *)f->weights->data)[i]);
    cop_buffer_release(m.part[COP_PART_WEIGHTS]);
    m.part[COP_PART_WEIGHTS] = sent;
    m.lease.weights_values = COP_VALUES_BF16;
    return m;
}

/* The gradient of a block equals the rounded sum of those of its shards, however many threads
 * compute it. */
static void test_rounded_blocks_are_rounded_sums_of_their_shards(void **state) {
    (void)state;
    fixture f;
    make_fixture_with(&f, 1, "bf16");
    const size_t floats = gradient_size(&f) / sizeof(float);
    static const uint32_t first[] = {0, 4, 4, 0, 2}, count[] = {7, 3, 2, 4, 2};
    cop_buffer *shards[SHARDS];
    cop_result result;
    worker_compute *one = make_compute(1);
    for (uint32_t i = 0; i < SHARDS; i++) {
        shards[i] = run(one, rounded_lease(&f, i, 1), &result);
        assert_string_equal(result.failure, "");
        assert_int_equal(result.values, COP_VALUES_BF16);
        assert_int_equal(shards[i]->size, floats * sizeof(uint16_t));
    }
    float *sum = cop_alloc_array(floats, sizeof *sum);
    for (size_t b = 0; b < sizeof first / sizeof *first; b++) {
        int16_t ops[2 * SHARDS];
        const float *inputs[SHARDS];
        for (uint32_t i = 0; i < count[b]; i++) inputs[i] = shards[first[b] + i]->data;
        const cop_tree tree = {.count = (int)count[b],
                               .op_count = cop_tree_build((int)count[b], NULL, ops),
                               .ops = ops,
                               .round_nodes = true,
                               .bf16_inputs = true};
        cop_kernels_find("baseline")->tree_sum(inputs, &tree, sum, floats);
        for (int threads = 1; threads <= 4; threads++) {
            worker_compute *c = make_compute(threads);
            cop_buffer *got = run(c, rounded_lease(&f, first[b], count[b]), &result);
            assert_string_equal(result.failure, "");
            for (size_t i = 0; i < floats; i++)
                assert_int_equal(((const uint16_t *)got->data)[i], cop_bf16_of(sum[i]));
            cop_buffer_release(got);
            worker_compute_destroy(c);
        }
    }
    for (int i = 0; i < SHARDS; i++) cop_buffer_release(shards[i]);
    cop_free(sum);
    worker_compute_destroy(one);
    drop_fixture(&f);
}

/* Weights of the wrong type or size are refused. Those of an evaluation do not serve a training
 * lease of the same version. */
static void test_weights_of_another_type_are_refused(void **state) {
    const fixture *plain = *state;
    fixture f;
    make_fixture_with(&f, 1, "bf16");
    worker_compute *c = make_compute(1);
    cop_result r;
    cop_pull have;
    assert_null(run(c, train_lease(&f, 1, 0, SHARDS, true), &r));
    assert_string_equal(r.failure, "the weights are f32: expected bf16");
    cop_message m = rounded_lease(&f, 0, 1);
    m.part[COP_PART_WEIGHTS]->size -= 2;
    assert_null(run(c, m, &r));
    assert_non_null(strstr(r.failure, "the weights have"));
    m = evaluate_lease(&f, 20, true);
    m.lease.version = 0;
    assert_null(run(c, m, &r));
    assert_string_equal(r.failure, "");
    worker_compute_held(c, &have);
    assert_int_equal(have.have_values, COP_VALUES_F32);
    m = rounded_lease(&f, 0, 1);
    cop_buffer_release(m.part[COP_PART_WEIGHTS]);
    m.part[COP_PART_WEIGHTS] = NULL;
    assert_null(run(c, m, &r));
    assert_non_null(strstr(r.failure, "the lease has no weights"));
    cop_buffer_release(run(c, rounded_lease(&f, 0, 1), &r));
    assert_string_equal(r.failure, "");
    worker_compute_held(c, &have);
    assert_int_equal(have.have_values, COP_VALUES_BF16);
    m = evaluate_lease(&f, 20, false);
    m.lease.version = 0;
    assert_null(run(c, m, &r));
    assert_non_null(strstr(r.failure, "the lease has no weights"));
    worker_compute_destroy(c);
    c = make_compute(1);
    m = train_lease(plain, 1, 0, SHARDS, true);
    m.lease.weights_values = COP_VALUES_BF16;
    assert_null(run(c, m, &r));
    assert_string_equal(r.failure, "the weights are bf16: expected f32");
    worker_compute_destroy(c);
    drop_fixture(&f);
}

/* ---- caches between leases ---- */

static void test_weights_and_job_are_kept(void **state) {
    const fixture *f = *state;
    worker_compute *c = make_compute(1);
    cop_pull have;
    cop_result r;
    worker_compute_held(c, &have);
    assert_int_equal(have.have_job, 0);
    assert_int_equal(have.have_version, 0);
    cop_buffer_release(run(c, train_lease(f, 1, 0, SHARDS, true), &r));
    worker_compute_held(c, &have);
    assert_int_equal(have.have_job, 5);
    assert_int_equal(have.have_version, 1); /* version 0, plus 1 */
    cop_buffer *again = run(c, train_lease(f, 1, 0, SHARDS, false), &r);
    assert_string_equal(r.failure, "");
    cop_buffer_release(again);
    worker_compute_forget(c);
    worker_compute_held(c, &have);
    assert_int_equal(have.have_job, 0);
    assert_null(run(c, train_lease(f, 1, 0, SHARDS, false), &r));
    assert_non_null(strstr(r.failure, "spec"));
    worker_compute_destroy(c);
}

static void test_two_jobs_stay_cached_and_a_third_replaces_one(void **state) {
    const fixture *f = *state;
    worker_compute *c = make_compute(1);
    cop_result r;
    for (uint64_t job = 1; job <= 3; job++) {
        cop_message m = train_lease(f, 1, 0, SHARDS, true);
        m.lease.job = job;
        cop_buffer_release(run(c, m, &r));
        assert_string_equal(r.failure, "");
    }
    const bool kept[] = {false, true, true};
    for (uint64_t job = 1; job <= 3; job++) {
        cop_message m = train_lease(f, 1, 0, SHARDS, false);
        m.lease.job = job;
        cop_buffer_release(run(c, m, &r));
        assert_int_equal(r.failure[0] == 0, kept[job - 1]);
    }
    worker_compute_destroy(c);
}

static void test_new_spec_under_the_same_job_number_is_used(void **state) {
    const fixture *f = *state;
    fixture other;
    make_fixture(&other, 2);
    worker_compute *c = make_compute(1);
    cop_result r;
    cop_buffer *a = run(c, train_lease(f, 1, 0, SHARDS, true), &r);
    cop_buffer *b = run(c, train_lease(&other, 1, 0, SHARDS, true), &r);
    cop_buffer *again = run(c, train_lease(f, 1, 0, SHARDS, true), &r);
    assert_memory_not_equal(a->data, b->data, a->size); /* another seed */
    assert_memory_equal(a->data, again->data, a->size);
    cop_buffer_release(a);
    cop_buffer_release(b);
    cop_buffer_release(again);
    worker_compute_destroy(c);
    drop_fixture(&other);
}

/* A step that is not the first allocates no memory, not even if its lease contains the job again.
 */
static void test_warm_lease_allocates_no_memory(void **state) {
    const fixture *f = *state;
    for (int threads = 1; threads <= 3; threads++) {
        worker_compute *c = make_compute(threads);
        cop_message whole = train_lease(f, 1, 0, SHARDS, true);
        cop_message eval = evaluate_lease(f, 300, true);
        cop_result r;
        cop_buffer *gradient;
        uint64_t before = 0;
        for (int i = 0; i < 10; i++) {
            if (i == 3) before = cop_alloc_count();
            worker_compute_run(c, &whole, &r, &gradient);
            assert_string_equal(r.failure, "");
            cop_buffer_release(gradient);
            worker_compute_run(c, &eval, &r, &gradient);
            assert_string_equal(r.failure, "");
        }
        assert_int_equal(cop_alloc_count(), before);
        cop_message_fini(&whole);
        cop_message_fini(&eval);
        worker_compute_destroy(c);
    }
}

/* ---- ensembles ---- */

/* Computes the members of a lease with any number of threads, and each in a separate lease. */
static void test_members_on_any_number_of_threads(void **state) {
    const fixture *f = *state;
    enum { COUNT = 237, MEMBERS = 5, CELLS = 10 * COUNT };
    cop_result r;
    worker_compute *one = make_compute(1);
    cop_buffer *all = run(one, ensemble_lease(f, COUNT, 2, MEMBERS), &r);
    assert_string_equal(r.failure, "");
    assert_int_equal(all->size, MEMBERS * CELLS * sizeof(float));
    assert_int_equal(r.kind, COP_LEASE_ENSEMBLE);
    assert_int_equal(r.samples, COUNT);
    assert_int_equal(r.step, 4);
    for (int threads = 2; threads <= 8; threads += 3) { /* fewer than members, and more */
        worker_compute *c = make_compute(threads);
        cop_buffer *again = run(c, ensemble_lease(f, COUNT, 2, MEMBERS), &r);
        assert_memory_equal(again->data, all->data, all->size);
        cop_buffer_release(again);
        for (uint32_t m = 0; m < MEMBERS; m++) {
            cop_buffer *alone = run(c, ensemble_lease(f, COUNT, 2 + m, 1), &r);
            assert_memory_equal(alone->data, (const float *)all->data + m * CELLS, alone->size);
            cop_buffer_release(alone);
        }
        worker_compute_destroy(c);
    }
    cop_buffer_release(all);
    worker_compute_destroy(one);
}

static void test_whole_network_can_be_a_member(void **state) {
    const fixture *f = *state;
    cop_result r;
    worker_compute *c = make_compute(3);
    cop_message m = ensemble_lease(f, 100, 0, 1);
    m.lease.whole = true;
    cop_buffer *whole = run(c, m, &r), *thinned = run(c, ensemble_lease(f, 100, 0, 1), &r);
    const cop_data_part *part = &f->data->test;
    const cop_samples samples = {.dtype = f->job->sample_type,
                                 .count = 100,
                                 .features = (int)f->job->features,
                                 .stride = part->stride,
                                 .rows = part->samples,
                                 .labels = part->labels};
    const cop_eval_place place = {.seed = f->job->seed};
    cop_pass *pass = NULL;
    int ld;
    const cop_kernels *kernels = NULL;
    cop_kernels_choose(&kernels, NULL);
    assert_int_equal(
        cop_pass_create(f->job->model, kernels, f->job->numerics, 100, COP_PASS_EVAL, &pass, NULL),
        COP_OK);
    const float *z = cop_pass_logits(pass, f->weights->data, &place, &samples, &ld);
    for (int k = 0; k < 10; k++)
        assert_memory_equal((const float *)whole->data + k * 100, z + k * ld, 100 * sizeof *z);
    assert_memory_not_equal(whole->data, thinned->data, whole->size);
    cop_pass_destroy(pass);
    cop_buffer_release(whole);
    cop_buffer_release(thinned);
    worker_compute_destroy(c);
}

/* ---- invalid leases ---- */

static void expect_failure(worker_compute *c, cop_message m, const char *part) {
    cop_result r;
    assert_null(run(c, m, &r));
    assert_true(r.present);
    assert_non_null(strstr(r.failure, part));
}

static void test_bad_leases_are_reported(void **state) {
    const fixture *f = *state;
    worker_compute *c = make_compute(2);
    cop_message m = train_lease(f, 1, 0, 3, true); /* no node of the tree */
    expect_failure(c, m, "not a block");
    m = train_lease(f, 1, 0, SHARDS, true);
    m.lease.first = UINT32_MAX;
    expect_failure(c, m, "not a block");
    m = train_lease(f, 1, 0, SHARDS, true);
    m.lease.batch = BATCH + 1;
    expect_failure(c, m, "not a block");
    m = train_lease(f, 1, 0, SHARDS, true);
    m.lease.step = 0;
    expect_failure(c, m, "step is 0");
    m = train_lease(f, 1, 0, SHARDS, true);
    m.lease.step = (uint64_t)UINT32_MAX + 1; /* the counter of D3 has 32 bits for the step */
    expect_failure(c, m, "step is 4294967296");
    m = train_lease(f, 1, 0, SHARDS, true);
    m.part[COP_PART_SAMPLES]->size--;
    expect_failure(c, m, "samples");
    m = train_lease(f, 1, 0, SHARDS, true);
    ((int32_t *)m.part[COP_PART_LABELS]->data)[49] = 10;
    expect_failure(c, m, "label");
    m = train_lease(f, 1, 0, SHARDS, true);
    cop_buffer_release(m.part[COP_PART_WEIGHTS]);
    m.part[COP_PART_WEIGHTS] = cop_buffer_create(64);
    expect_failure(c, m, "weights");
    m = train_lease(f, 1, 0, SHARDS, false);
    m.lease.version = 77;
    expect_failure(c, m, "version 77");
    m = evaluate_lease(f, 300, true);
    m.lease.count = 1001;
    expect_failure(c, m, "slice");
    m = ensemble_lease(f, 100, 0, 65);
    expect_failure(c, m, "1 to 64 members");
    m = ensemble_lease(f, 100, 0, 0);
    expect_failure(c, m, "1 to 64 members");
    m = ensemble_lease(f, 100, UINT32_MAX, 2);
    expect_failure(c, m, "1 to 64 members");
    m = ensemble_lease(f, 100, 0, 2);
    m.lease.whole = true;
    expect_failure(c, m, "whole networks: 1 member");
    m = ensemble_lease(f, 100, 0, 2);
    m.lease.count = 1001;
    expect_failure(c, m, "slice");
    m = ensemble_lease(f, 100, 0, 2);
    m.part[COP_PART_LABELS]->size--;
    expect_failure(c, m, "samples");
    m = train_lease(f, 1, 0, SHARDS, true);
    m.part[COP_PART_JOB] = cop_buffer_create(100);
    memset(m.part[COP_PART_JOB]->data, 0xff, 100);
    cop_buffer_release(f->spec); /* the lease's own reference */
    expect_failure(c, m, "");
    cop_result r; /* after all these, a good lease still works */
    cop_buffer *gradient = run(c, train_lease(f, 1, 0, SHARDS, true), &r);
    assert_string_equal(r.failure, "");
    cop_buffer_release(gradient);
    worker_compute_destroy(c);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_whole_step_on_any_number_of_threads),
        TEST(test_profiled_step_on_any_number_of_threads),
        TEST(test_blocks_sum_to_the_whole),
        TEST(test_result_names_its_lease),
        TEST(test_evaluation_on_any_number_of_threads),
        TEST(test_rounded_blocks_are_rounded_sums_of_their_shards),
        TEST(test_weights_of_another_type_are_refused),
        TEST(test_weights_and_job_are_kept),
        TEST(test_two_jobs_stay_cached_and_a_third_replaces_one),
        TEST(test_new_spec_under_the_same_job_number_is_used),
        TEST(test_warm_lease_allocates_no_memory),
        TEST(test_members_on_any_number_of_threads),
        TEST(test_whole_network_can_be_a_member),
        TEST(test_bad_leases_are_reported),
    };
    return cmocka_run_group_tests_name("compute", tests, NULL, NULL);
}
