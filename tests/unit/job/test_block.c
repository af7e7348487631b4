/* Blocks of a job. Training on a block equals one call of the pass on the rows of its shards. An
 * evaluation adds up D10's sub-slices in order, however the data are divided into blocks of whole
 * sub-slices. */
#include "unit/job/fixture.h"

#include "common/base/shards.h"
#include "common/job/block.h"
#include "common/kernels/kernel.h"

enum { TEST_SAMPLES = 310 };

typedef struct block_fixture {
    cop_data *data;
    cop_job *job;
    const cop_kernels *kernels;
    float *weights;
} block_fixture;

static int open_fixture(void **state) {
    block_fixture *f = cop_alloc(sizeof *f);
    cop_error error = {0};
    if (cop_data_make_synthetic(5, 100, TEST_SAMPLES, &f->data, &error)) fail_msg("%s", error.text);
    f->job = make_job(NULL, f->data);
    f->weights = first_weights(f->job);
    assert_int_equal(cop_kernels_choose(&f->kernels, NULL), COP_OK);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    block_fixture *f = *state;
    cop_free(f->weights);
    cop_job_release(f->job);
    cop_data_destroy(f->data);
    cop_free(f);
    return 0;
}

static cop_pass *open_pass(const block_fixture *f, int columns, cop_pass_purpose purpose) {
    cop_pass *pass = NULL;
    assert_int_equal(
        cop_pass_create(f->job->model, f->kernels, f->job->numerics, columns, purpose, &pass, NULL),
        COP_OK);
    return pass;
}

static cop_block block_of(const block_fixture *f, const cop_data_part *part, int first, int count) {
    return (cop_block){.job = f->job,
                       .weights = f->weights,
                       .rows = part->samples,
                       .labels = part->labels,
                       .first = first,
                       .count = count};
}

/* A step has shards of 8, 8, 7 and 7 samples. So training on shards 2 and 3 must equal the pass on
 * rows 16 to 29. */
static void test_training_runs_the_pass_on_the_rows_of_the_shards(void **state) {
    const block_fixture *f = *state;
    const size_t floats = (size_t)cop_model_floats(f->job->model);
    const cop_data_part *part = &f->data->train;
    float *found = new_floats(f->job), *expected = new_floats(f->job);
    int32_t sizes[4];
    cop_shard_sizes(30, 4, sizes);
    const int first = sizes[0] + sizes[1], count = sizes[2] + sizes[3];
    cop_pass *pass = open_pass(f, 30, COP_PASS_TRAIN);
    const cop_block block = block_of(f, part, first, count);
    const cop_block_shards shards = {.step = 7, .sizes = sizes, .first = 2, .count = 2};
    cop_pass_result result, plain;
    cop_block_train(pass, &block, &shards, found, &result);
    const cop_shard_work work = {.seed = f->job->seed,
                                 .step = 7,
                                 .shard_first = 2,
                                 .shard_count = 2,
                                 .shard_sizes = sizes + 2};
    const cop_samples samples = {.dtype = COP_DTYPE_U8,
                                 .count = count,
                                 .features = 784,
                                 .stride = part->stride,
                                 .rows = (const char *)part->samples + (size_t)first * part->stride,
                                 .labels = part->labels + first};
    cop_pass_train(pass, f->weights, &work, &samples, expected, &plain);
    assert_int_equal(result.samples, count);
    assert_true(result.loss == plain.loss && result.correct == plain.correct);
    assert_memory_equal(found, expected, floats * sizeof *found);
    cop_pass_destroy(pass);
    cop_free(found), cop_free(expected);
}

/* Evaluates each sub-slice of 125 samples separately, and adds up the results in order. */
static cop_pass_result evaluate_plainly(const block_fixture *f) {
    cop_pass *pass = open_pass(f, COP_EVAL_COLUMNS, COP_PASS_EVAL);
    const cop_data_part *part = &f->data->test;
    cop_pass_result all = {0};
    for (int at = 0; at < TEST_SAMPLES; at += 125) {
        const int count = TEST_SAMPLES - at < 125 ? TEST_SAMPLES - at : 125;
        const cop_samples samples = {.dtype = COP_DTYPE_U8,
                                     .count = count,
                                     .features = 784,
                                     .stride = part->stride,
                                     .rows =
                                         (const char *)part->samples + (size_t)at * part->stride,
                                     .labels = part->labels + at};
        const cop_eval_place place = {.seed = f->job->seed, .first_sample = (uint32_t)at};
        cop_pass_result one;
        cop_pass_eval(pass, f->weights, &place, &samples, &one);
        all.loss += one.loss;
        all.correct += one.correct;
        all.samples += one.samples;
    }
    cop_pass_destroy(pass);
    return all;
}

static void test_evaluation_adds_its_sub_slices_in_order(void **state) {
    const block_fixture *f = *state;
    const cop_pass_result expected = evaluate_plainly(f);
    cop_pass *pass = open_pass(f, COP_EVAL_COLUMNS, COP_PASS_EVAL);
    cop_pass_result found;
    cop_block block = block_of(f, &f->data->test, 0, TEST_SAMPLES);
    cop_block_evaluate(pass, &block, 0, &found);
    assert_true(found.loss == expected.loss);
    assert_int_equal(found.correct, expected.correct);
    assert_int_equal(found.samples, TEST_SAMPLES);
    /* As a worker's threads do it: one sub-slice per call. */
    cop_pass_result sum = {0};
    for (int at = 0; at < TEST_SAMPLES; at += COP_EVAL_COLUMNS) {
        const int rest = TEST_SAMPLES - at;
        block = block_of(f, &f->data->test, at, rest < COP_EVAL_COLUMNS ? rest : COP_EVAL_COLUMNS);
        cop_block_evaluate(pass, &block, (uint32_t)at, &found);
        sum.loss += found.loss;
        sum.correct += found.correct;
    }
    assert_true(sum.loss == expected.loss);
    assert_int_equal(sum.correct, expected.correct);
    cop_pass_destroy(pass);
}

static void test_an_empty_block_has_no_loss(void **state) {
    const block_fixture *f = *state;
    cop_pass *pass = open_pass(f, COP_EVAL_COLUMNS, COP_PASS_EVAL);
    const cop_block block = block_of(f, &f->data->test, 5, 0);
    cop_pass_result found;
    cop_block_evaluate(pass, &block, 5, &found);
    assert_true(found.loss == 0 && found.correct == 0 && found.samples == 0);
    cop_pass_destroy(pass);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_training_runs_the_pass_on_the_rows_of_the_shards,
                                        open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(test_evaluation_adds_its_sub_slices_in_order, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(test_an_empty_block_has_no_loss, open_fixture,
                                        close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
