/* Makes each allocation in a small job's life fail: first alone, then together with all later ones.
 * This life is: loading data, job file and model, resuming from a checkpoint, three steps, and the
 * next checkpoint. The result must be COP_ERR_NO_MEMORY with a message, or the same as without a
 * failure. Nothing leaks (the sanitizers' build checks this), and the old checkpoint is still
 * there. */
#include "unit/faults.h"
#include "unit/job/fixture.h"

#include "common/base/shards.h"
#include "common/nn/pass.h"

enum { STEPS = 3, BEGIN = 2, SHARDS = 4, BATCH = 30 };

typedef struct life {
    const cop_kernels *kernels;
    char *folder;
    unsigned char digest[32]; /* digest of the weights at the end of an undisturbed run */
    float *before;            /* the weights of step BEGIN */
    size_t floats;
    /* data set of one run */
    cop_data *data;
    cop_job *job;
    cop_pass *pass;
    float *weights, *states[2], *gradients[SHARDS];
    unsigned char *samples;
} life;

static cop_err begin(life *l, cop_error *error) {
    static const char text[] = SMALL_JOB;
    Coppice__Job *message = NULL;
    cop_checkpoint c;
    COP_TRY(cop_data_make_synthetic(3, 100, 40, &l->data, error));
    COP_TRY(cop_document_parse_job(text, sizeof text - 1, "job.yaml", &message, error));
    cop_err e = cop_job_create(message, l->data, &l->job, error);
    if (e) {
        cop_proto_free(&message->base);
        return e;
    }
    COP_TRY(cop_pass_create(l->job->model, l->kernels, l->job->numerics, BATCH, COP_PASS_TRAIN,
                            &l->pass, error));
    l->floats = (size_t)cop_model_floats(l->job->model);
    l->weights = cop_alloc_array(l->floats, sizeof(float));
    l->states[0] = cop_alloc_array(l->floats, sizeof(float));
    l->samples = cop_alloc_array(BATCH, l->data->train.stride);
    bool whole = l->weights && l->states[0] && l->samples;
    for (int s = 0; s < SHARDS; s++) {
        l->gradients[s] = cop_alloc_array(l->floats, sizeof(float));
        whole = whole && l->gradients[s];
    }
    if (!whole) return cop_no_memory(error);
    return cop_checkpoint_load(
        l->job, &(cop_checkpoint_source){l->folder, COP_CHECKPOINT_ANY_STEP, NULL},
        &(cop_checkpoint_buffers){l->weights, {l->states[0], l->states[1]}}, &c, error);
}

static void train_step(life *l, uint32_t step) {
    uint32_t rows[BATCH], count, epoch;
    int32_t labels[BATCH], sizes[SHARDS], first = 0;
    int16_t ops[2 * SHARDS];
    bool present[SHARDS];
    const cop_data_part *part = &l->data->train;
    const cop_data_batches batches = {l->job->seed, part->count, BATCH, true};
    cop_data_batch_rows(&batches, step, rows, &count, &epoch);
    const cop_data_destination room = {
        .samples = l->samples, .bytes = BATCH * part->stride, .labels = labels, .count = BATCH};
    cop_data_gather(part, rows, count, &room);
    cop_shard_sizes(count, SHARDS, sizes);
    for (int s = 0; s < SHARDS; first += sizes[s], s++) {
        const cop_shard_work work = {.seed = l->job->seed,
                                     .step = step,
                                     .shard_first = s,
                                     .shard_count = 1,
                                     .shard_sizes = &sizes[s]};
        const cop_samples samples = {.dtype = l->job->sample_type,
                                     .count = sizes[s],
                                     .features = (int)l->job->features,
                                     .stride = part->stride,
                                     .rows = l->samples + (size_t)first * part->stride,
                                     .labels = labels + first};
        cop_pass_result result;
        present[s] = true;
        cop_pass_train(l->pass, l->weights, &work, &samples, l->gradients[s], &result);
    }
    const cop_tree tree = {
        .count = SHARDS, .op_count = cop_tree_build(SHARDS, present, ops), .ops = ops};
    const cop_update update = {.model = l->job->model,
                               .kernels = l->kernels,
                               .spec = &l->job->optimizer,
                               .step = step,
                               .batch = count,
                               .gradients = (const float *const *)l->gradients,
                               .tree = &tree,
                               .w_in = l->weights,
                               .w_out = l->weights,
                               .states = {l->states[0]}};
    cop_update_run(&update, 0, 1);
}

static void end(life *l) {
    cop_pass_destroy(l->pass);
    cop_free(l->weights);
    cop_free(l->states[0]);
    cop_free(l->samples);
    for (int s = 0; s < SHARDS; s++) cop_free(l->gradients[s]);
    cop_job_release(l->job);
    cop_data_destroy(l->data);
    l->pass = NULL, l->job = NULL, l->data = NULL, l->samples = NULL;
    l->weights = l->states[0] = NULL;
    memset(l->gradients, 0, sizeof l->gradients);
}

static cop_err run_job(void *context, cop_error *error) {
    life *l = context;
    cop_err e = begin(l, error);
    for (uint32_t step = BEGIN + 1; !e && step <= BEGIN + STEPS; step++) train_step(l, step);
    const cop_checkpoint c = {
        .step = BEGIN + STEPS, .weights = l->weights, .states = {l->states[0]}, .is_best = true};
    if (!e) e = cop_checkpoint_save(l->job, l->folder, &c, error);
    end(l);
    return e;
}

/* Loads the newest checkpoint; returns its step, and its weights in `weights`. */
static uint64_t found(const life *l, const cop_job *job, float *weights) {
    float *states[2] = {new_floats(job), NULL};
    cop_checkpoint c;
    cop_error error = {0};
    cop_str notes = {0};
    if (cop_checkpoint_load(job,
                            &(cop_checkpoint_source){l->folder, COP_CHECKPOINT_ANY_STEP, &notes},
                            &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &c, &error))
        fail_msg("%s", error.text);
    if (notes.length) fail_msg("%s", cop_str_text(&notes)); /* no existing checkpoint is damaged */
    cop_str_fini(&notes);
    cop_free(states[0]);
    return c.step;
}

static void remove_newer(const life *l) {
    cop_checkpoint c = {0};
    assert_int_equal(cop_checkpoint_discard_after(l->folder, BEGIN, &c, NULL), COP_OK);
}

static cop_job *checker; /* the same job, for loading between runs */

/* Expects the old checkpoint, equal to the last bit. After success, or after a failure that came
 * late, expects the new one. */
static void check(void *context, cop_err result) {
    life *l = context;
    unsigned char digest[32];
    float *weights = new_floats(checker);
    const uint64_t step = found(l, checker, weights);
    if (step == BEGIN) {
        assert_int_not_equal(result, COP_OK);
        assert_memory_equal(weights, l->before, l->floats * sizeof(float));
    } else {
        assert_int_equal(step, BEGIN + STEPS);
        assert_int_equal(cop_model_digest(checker->model, weights, digest, NULL), COP_OK);
        assert_memory_equal(digest, l->digest, sizeof digest);
    }
    remove_newer(l);
    assert_int_equal(found(l, checker, weights), BEGIN);
    cop_free(weights);
}

static void test_job_survives_every_failed_allocation(void **state) {
    (void)state;
    life l = {.folder = new_folder()};
    cop_data *data = small_data();
    cop_error error = {0};
    checker = make_job(NULL, data);
    l.floats = (size_t)cop_model_floats(checker->model);
    l.before = first_weights(checker);
    assert_int_equal(cop_kernels_choose(&l.kernels, NULL), COP_OK);
    const cop_checkpoint old = {.step = BEGIN, .weights = l.before, .states = {l.before}};
    assert_int_equal(cop_checkpoint_save(checker, l.folder, &old, NULL), COP_OK);
    if (run_job(&l, &error)) fail_msg("%s", error.text);
    float *weights = new_floats(checker);
    assert_int_equal(found(&l, checker, weights), BEGIN + STEPS);
    assert_int_equal(cop_model_digest(checker->model, weights, l.digest, NULL), COP_OK);
    assert_memory_not_equal(weights, l.before, l.floats * sizeof(float));
    cop_free(weights);
    remove_newer(&l);
    const fault_subject subject = {"a job", run_job, check, &l, 1};
    assert_true(fault_each_allocation(&subject) > 100);
    cop_free(l.before);
    cop_job_release(checker);
    cop_data_destroy(data);
    drop_folder(l.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
