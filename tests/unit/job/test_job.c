/* Jobs: pinning, relations between fields, and packed jobs from the network. */
#include "unit/job/fixture.h"

#include "common/base/hash.h"

static int setup(void **state) {
    *state = small_data();
    return 0;
}

static int teardown(void **state) {
    cop_data_destroy(*state);
    return 0;
}

static void refuse_both(const cop_data *data, const char *set, const char *also,
                        const char *sentence) {
    cop_job *job = NULL;
    cop_error error = {0};
    cop_err e = try_job(SMALL_JOB, set, also, data, &job, &error);
    assert_string_equal(error.text, sentence);
    assert_int_equal(e, COP_ERR_INPUT);
}

static void refuse(const cop_data *data, const char *set, const char *sentence) {
    refuse_both(data, set, NULL, sentence);
}

/* ---- building ---- */

static void test_job_is_built_from_its_file(void **state) {
    cop_job *job = make_job(NULL, *state);
    assert_int_equal(job->batch, 30);
    assert_int_equal(job->shards, 4);
    assert_int_equal(job->train_samples, 100);
    assert_int_equal(job->test_samples, 40);
    assert_int_equal(job->steps_per_epoch, 4);
    assert_int_equal(job->steps, 8);
    assert_int_equal(job->features, 784);
    assert_int_equal(job->sample_type, COP_DTYPE_U8);
    assert_int_equal(job->sample_stride, 784);
    assert_int_equal(job->seed, 1);
    assert_true(job->last_keep && job->evaluate_on_test);
    assert_int_equal(cop_model_outputs(job->model), 10);
    assert_true(job->optimizer.momentum == 0.9 && job->optimizer.rate == 0.1);
    cop_job_release(job);
}

static void test_layer_fields_reach_the_model(void **state) {
    cop_job *job = make_job("model.0.dropout={p: 0.25, variant: classic, scope: shard}", *state);
    const cop_layer *dropout = cop_model_layer(job->model, 0),
                    *last = cop_model_layer(job->model, 3);
    assert_true(dropout->spec.p == 0.25);
    assert_int_equal(dropout->spec.variant, COP_VARIANT_CLASSIC);
    assert_int_equal(dropout->spec.scope, COP_SCOPE_SHARD);
    assert_true(last->spec.max_norm == 2.5 && !last->spec.bias);
    assert_int_equal(last->spec.init, COP_INIT_HE);
    assert_int_equal(cop_model_parameter_count(job->model), 3);
    cop_job_release(job);
}

static void test_schedules_reach_the_optimizer(void **state) {
    cop_job *job = make_job("optimizer.sgd.schedule={step: {every: 7, factor: 0.5}}", *state);
    assert_int_equal(job->optimizer.schedule.kind, COP_SCHEDULE_STEP);
    assert_int_equal(job->optimizer.schedule.every, 7);
    assert_true(job->optimizer.schedule.factor == 0.5);
    assert_int_equal(job->optimizer.schedule.total_steps, 8);
    cop_job_release(job);
    job = make_job("optimizer.sgd.schedule={cosine: {final: 0.01}}", *state);
    assert_int_equal(job->optimizer.schedule.kind, COP_SCHEDULE_COSINE);
    assert_true(job->optimizer.schedule.final == 0.01);
    cop_job_release(job);
    job = make_job("optimizer.sgd={rate: 1, momentum: .5, momentum_final: 0.9, momentum_steps: 50, "
                   "schedule: {exponential: {factor: 0.99}}, warmup: 3}",
                   *state);
    assert_true(job->optimizer.momentum_final == 0.9 && job->optimizer.schedule.factor == 0.99);
    assert_int_equal(job->optimizer.schedule.warmup, 3);
    cop_job_release(job);
}

static void test_every_optimizer_has_its_fields_and_defaults(void **state) {
    cop_job *job = make_job("optimizer={adam: {}}", *state);
    const cop_optimizer_spec *o = &job->optimizer;
    assert_int_equal(o->kind, COP_OPTIMIZER_ADAM);
    assert_true(o->rate == 0.001 && o->beta1 == 0.9 && o->beta2 == 0.999 && o->epsilon == 1e-8);
    assert_true(o->weight_decay == 0 && o->momentum == 0 && o->momentum_final == 0);
    assert_int_equal(o->schedule.kind, COP_SCHEDULE_CONSTANT);
    cop_job_release(job);
    job = make_job("optimizer={adamw: {beta1: 0.5, schedule: cosine, warmup: 2}}", *state);
    o = &job->optimizer;
    assert_int_equal(o->kind, COP_OPTIMIZER_ADAMW);
    assert_true(o->beta1 == 0.5 && o->weight_decay == 0.01);
    assert_int_equal(o->schedule.kind, COP_SCHEDULE_COSINE);
    assert_int_equal(o->schedule.warmup, 2);
    assert_int_equal(o->schedule.total_steps, 8);
    cop_job_release(job);
    job = make_job("optimizer={rmsprop: {momentum: 0.25}}", *state);
    o = &job->optimizer;
    assert_int_equal(o->kind, COP_OPTIMIZER_RMSPROP);
    assert_true(o->rate == 0.01 && o->alpha == 0.99 && o->epsilon == 1e-8 && o->momentum == 0.25);
    cop_job_release(job);
    job = make_job("optimizer={adagrad: {schedule: {step: {every: 3, factor: 0.1}}}}", *state);
    o = &job->optimizer;
    assert_int_equal(o->kind, COP_OPTIMIZER_ADAGRAD);
    assert_true(o->rate == 0.01 && o->epsilon == 1e-10);
    assert_int_equal(o->schedule.every, 3);
    cop_job_release(job);
}

static void test_epochs_become_steps(void **state) {
    static const struct {
        const char *set;
        uint64_t steps;
    } cases[] = {{"train.epochs=1", 4},    {"train.epochs=0.5", 2},
                 {"train.epochs=0.01", 1}, {"train.epochs=2.25", 9},
                 {"train.steps=5", 5},     {"train={epochs: 2, batch: 30, last: drop}", 6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cop_job *job = make_job(cases[i].set, *state);
        assert_int_equal(job->steps, cases[i].steps);
        cop_job_release(job);
    }
}

static void test_validation_samples_are_taken_from_the_training_part(void **state) {
    cop_job *job = make_job("data={source: x, validation: 30, samples: 90}", *state);
    cop_data_view view;
    assert_int_equal(job->train_samples, 60);
    assert_int_equal(job->validation_samples, 30);
    assert_false(job->evaluate_on_test);
    assert_int_equal(cop_job_view(job, *state, &view, NULL), COP_OK);
    assert_int_equal(view.train, 60);
    assert_int_equal(job->message->data->split, COPPICE__DATA__SPLIT__STRATIFIED);
    assert_non_null(view.rows);
    cop_data_view_fini(&view);
    cop_job_release(job);
}

/* Jobs stored by versions without `split` continue with the same rows. */
static void test_job_pinned_by_a_version_without_split_keeps_its_rows(void **state) {
    cop_job *job = make_job("data={source: x, validation: 30, samples: 90}", *state), *old;
    cop_data_view view;
    job->message->data->has_split = 0;
    cop_buffer *bytes = cop_job_pack(job);
    assert_int_equal(cop_job_from_bytes(bytes->data, bytes->size, &old, NULL), COP_OK);
    assert_int_equal(old->message->data->split, COPPICE__DATA__SPLIT__LAST);
    assert_int_equal(cop_job_view(old, *state, &view, NULL), COP_OK);
    assert_int_equal(cop_data_view_row(&view, 0), 0);
    assert_int_equal(cop_data_view_row(&view, 60), 60);
    cop_data_view_fini(&view);
    cop_buffer_release(bytes);
    cop_job_release(job);
    cop_job_release(old);
}

static void test_losses_and_targets_reach_the_model(void **state) {
    cop_job *job = make_job("loss={cross_entropy: {smoothing: 0.25}}", *state);
    assert_int_equal(cop_model_loss(job->model), COP_LOSS_CROSS_ENTROPY);
    assert_true(cop_model_smoothing(job->model) == 0.25 && cop_model_has_classes(job->model));
    cop_job_release(job);
    job = make_job("loss=mse", *state);
    assert_int_equal(cop_model_loss(job->model), COP_LOSS_MSE);
    assert_true(cop_model_smoothing(job->model) == 0 && cop_model_has_classes(job->model));
    cop_job_release(job);
    job = make_job("loss=bce", *state);
    assert_int_equal(cop_model_loss(job->model), COP_LOSS_BCE);
    cop_job_release(job);
}

/* ---- relations ---- */

static void test_invalid_relations_between_fields_are_refused(void **state) {
    const cop_data *d = *state;
    refuse(
        d, "train.shards=31",
        "--set train.shards=31: train.shards is 31: a batch of 30 samples gives at most 30 shards");
    refuse(d, "train={batch: 30}",
           "--set train={batch: 30}: train has neither epochs nor steps: expected one of them");
    refuse(
        d, "train={epochs: 1, steps: 2}",
        "--set train={epochs: 1, steps: 2}: train has both epochs and steps: expected one of them");
    refuse(d, "train={epochs: 1, batch: 65536, shards: 1}",
           "--set train={epochs: 1, batch: 65536, shards: 1}: train.shards is 1: a shard of 65536 "
           "samples is more than the 8192 that one lease may hold; expected at least 8 shards");
    refuse(d, "train={epochs: 1, batch: 101, last: drop}",
           "--set train={epochs: 1, batch: 101, last: drop}: train.last is drop, but 100 training "
           "samples do not fill a batch of 101: expected keep or a smaller train.batch");
    refuse_both(d, "optimizer.sgd.nesterov=true", "optimizer.sgd.momentum=0",
                "--set optimizer.sgd.nesterov=true: optimizer.sgd.nesterov is true: it needs a "
                "momentum above 0");
    refuse(d, "data.target=input",
           "--set data.target=input: data.target is input, but loss is cross_entropy, which "
           "compares with labels: expected mse or bce");
    refuse_both(d, "data={source: x, target: input, normalize: standard}", "loss=bce",
                "--set data={source: x, target: input, normalize: standard}: data.normalize gives "
                "targets outside 0 to 1, but loss is bce: expected normalize: unit, or loss: mse");
    refuse_both(d, "data={source: x, target: input}", "loss=mse",
                "job.yaml:7:5: model[3] linear: the last layer has 10 outputs, expected 784: "
                "data.target is input, and a sample has 784 features");
    refuse(d, "optimizer.sgd.momentum_final=0.99",
           "--set optimizer.sgd.momentum_final=0.99: optimizer.sgd.momentum_final is given: "
           "expected momentum_steps, too, the number of steps in which the momentum changes");
    refuse(d, "evaluate.on=validation",
           "--set evaluate.on=validation: evaluate.on is validation, but data.validation is 0");
    refuse(d, "data.train={images: a, labels: b}",
           "--set data.train={images: a, labels: b}: data.train names files, but data.source is "
           "synthetic-digits: only idx, csv, npy and image-folder read files");
    refuse(d, "data.label=width",
           "--set data.label=width: data.label names a column, but data.source is "
           "synthetic-digits: only csv has columns");
    cop_job *job;
    cop_error error = {0};
    assert_int_equal(try_job(SMALL_JOB, "limits.memory=1000", NULL, d, &job, &error),
                     COP_ERR_INPUT);
    assert_non_null(strstr(error.text, "limits.memory is 1.0 kB: a compute thread needs about "));
}

static void test_errors_of_relations_name_file_line_and_column(void **state) {
    cop_job *job;
    cop_error error = {0};
    assert_int_equal(
        try_job(SMALL_JOB "evaluate: {on: validation}\n", NULL, NULL, *state, &job, &error),
        COP_ERR_INPUT);
    assert_string_equal(error.text,
                        "job.yaml:10:16: evaluate.on is validation, but data.validation is 0");
}

static void test_too_few_data_are_refused(void **state) {
    const cop_data *d = *state;
    refuse(d, "data.validation=100",
           "--set data.validation=100: data.validation is 100: at least one of the 100 samples "
           "must be left for training");
    refuse(d, "data.samples=101",
           "--set data.samples=101: data.samples is 101: data set synthetic-digits has 100 "
           "training samples");
}

static void test_mismatched_shapes_are_refused(void **state) {
    cop_job *job;
    cop_error error = {0};
    assert_int_equal(try_job(SMALL_JOB, "model.3.linear.units=9", NULL, *state, &job, &error),
                     COP_ERR_INPUT);
    assert_string_equal(error.text, "job.yaml:7:5: model[3] linear: the last layer has 9 outputs, "
                                    "expected 10: the data has 10 classes");
}

static void test_data_set_without_test_part_trains_without_evaluation(void **state) {
    (void)state;
    cop_data *whole = small_data(), none = *whole;
    none.test.count = 0;
    cop_job *job = make_job(NULL, &none);
    assert_int_equal(job->test_samples + job->validation_samples, 0);
    cop_job_release(job);
    refuse_both(&none, "data.validation=10", "evaluate.on=test",
                "--set evaluate.on=test: evaluate.on is test, but data set synthetic-digits has "
                "no test samples: expected data.test, or evaluate.on: validation with "
                "data.validation above 0");
    job = make_job("data.validation=10", &none);
    assert_false(job->evaluate_on_test);
    cop_job_release(job);
    cop_data_destroy(whole);
}

/* The last rows may be the only ones of a class. */
static void test_split_that_loses_a_class_is_refused(void **state) {
    (void)state;
    cop_data *data = small_data();
    int32_t *labels = (int32_t *)(uintptr_t)data->train.labels;
    for (uint32_t r = 0; r < 100; r++) labels[r] = (int32_t)r / 10;
    refuse_both(data, "data.split=last", "data.validation=10",
                "--set data.validation=10: class 9 has no training sample: expected data.split: "
                "stratified, or a smaller data.validation");
    cop_job *job = make_job("data.validation=10", data);
    cop_job_release(job);
    cop_data_destroy(data);
}

/* ---- pinning ---- */

static void test_job_is_pinned_to_its_data(void **state) {
    cop_job *job = make_job(NULL, *state);
    cop_data *other = NULL;
    cop_data_view view;
    cop_error error = {0};
    char digest[65];
    cop_hex32(((cop_data *)*state)->digest, digest);
    assert_string_equal(job->message->pinned->data_digest, digest);
    assert_string_equal(job->message->pinned->arithmetic, "portable-1");
    assert_int_equal(job->message->pinned->n_input, 3);
    cop_data_make_synthetic(4, 100, 40, &other, NULL);
    assert_int_equal(cop_job_view(job, other, &view, &error), COP_ERR_INPUT);
    cop_data_destroy(other);
    cop_job_release(job);
}

/* The job.yaml of a run folder gives the same job on the same data, and is refused on other data.
 */
static void test_resolved_job_file_gives_the_same_job(void **state) {
    cop_job *job = make_job(NULL, *state), *again = NULL;
    cop_str yaml = {0};
    cop_data *other = NULL;
    cop_error error = {0};
    cop_document_print_yaml(&job->message->base, &yaml);
    assert_int_equal(try_job(cop_str_text(&yaml), NULL, NULL, *state, &again, &error), COP_OK);
    cop_buffer *a = cop_job_pack(job), *b = cop_job_pack(again);
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size);
    cop_job_release(again);
    cop_data_make_synthetic(4, 100, 40, &other, NULL);
    assert_int_equal(try_job(cop_str_text(&yaml), NULL, NULL, other, &again, &error),
                     COP_ERR_INPUT);
    assert_non_null(strstr(error.text, ": the job is pinned to the data "));
    cop_buffer_release(a), cop_buffer_release(b);
    cop_str_fini(&yaml);
    cop_data_destroy(other);
    cop_job_release(job);
}

/* ---- the wire ---- */

static void test_packed_job_gives_the_same_job(void **state) {
    cop_job *job = make_job(NULL, *state), *back = NULL;
    cop_buffer *bytes = cop_job_pack(job);
    cop_error error = {0};
    if (cop_job_from_bytes(bytes->data, bytes->size, &back, &error)) fail_msg("%s", error.text);
    assert_int_equal(back->steps, job->steps);
    assert_int_equal(cop_model_floats(back->model), cop_model_floats(job->model));
    cop_buffer *again = cop_job_pack(back);
    assert_int_equal(again->size, bytes->size);
    assert_memory_equal(again->data, bytes->data, bytes->size);
    cop_buffer_release(bytes), cop_buffer_release(again);
    cop_job_release(back), cop_job_release(job);
}

typedef void (*damage)(Coppice__Job *m);
static void no_pinned(Coppice__Job *m) {
    m->pinned = NULL;
}
static void no_classes(Coppice__Job *m) {
    m->pinned->classes = 0;
}
static void many_classes(Coppice__Job *m) {
    m->pinned->classes = UINT32_MAX;
}
static void many_samples(Coppice__Job *m) {
    m->pinned->train_samples = UINT32_MAX;
}
static void other_steps(Coppice__Job *m) {
    m->pinned->steps++;
}
static void other_epoch(Coppice__Job *m) {
    m->pinned->steps_per_epoch--;
}
static void no_digest(Coppice__Job *m) {
    m->pinned->data_digest[5] = 'x';
}
static void odd_type(Coppice__Job *m) {
    m->pinned->sample_type[0] = 'x';
}
static void two_dimensions(Coppice__Job *m) {
    m->pinned->n_input = 2;
}
static void huge_shape(Coppice__Job *m) {
    m->pinned->input[0] = 1 << 20;
}
static void empty_shape(Coppice__Job *m) {
    m->pinned->input[1] = 0;
}
static void other_split(Coppice__Job *m) {
    m->data->validation = 5;
}

static void test_damaged_pinned_sections_are_refused(void **state) {
    static const damage damages[] = {no_pinned,      no_classes,  many_classes, many_samples,
                                     other_steps,    other_epoch, no_digest,    odd_type,
                                     two_dimensions, huge_shape,  empty_shape,  other_split};
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        cop_job *job = make_job(NULL, *state), *back = NULL;
        cop_error error = {0};
        damages[i](job->message);
        cop_buffer *bytes = cop_job_pack(job);
        assert_int_equal(cop_job_from_bytes(bytes->data, bytes->size, &back, &error),
                         COP_ERR_INPUT);
        assert_string_equal(error.text,
                            "the job is not complete: its pinned section is missing or damaged");
        cop_buffer_release(bytes);
        cop_job_release(job);
    }
}

static void test_unknown_arithmetic_is_refused_by_name(void **state) {
    cop_job *job = make_job(NULL, *state), *back = NULL;
    cop_error error = {0};
    job->message->pinned->arithmetic[9] = '2';
    cop_buffer *bytes = cop_job_pack(job);
    assert_int_equal(cop_job_from_bytes(bytes->data, bytes->size, &back, &error), COP_ERR_VERSION);
    assert_string_equal(
        error.text,
        "the job was started with the arithmetic portable-2; this program computes portable-1");
    cop_buffer_release(bytes);
    cop_job_release(job);
}

static void test_mutated_bytes_never_crash(void **state) {
    cop_job *job = make_job(NULL, *state);
    cop_buffer *bytes = cop_job_pack(job);
    unsigned char work[2048];
    uint64_t r = 99;
    for (int i = 0; i < 20000; i++) {
        memcpy(work, bytes->data, bytes->size);
        for (int n = 0; n < 1 + i % 3; n++) {
            r ^= r >> 12, r ^= r << 25, r ^= r >> 27;
            work[(r * 2685821657736338717ull >> 20) % bytes->size] = (unsigned char)(r >> 8);
        }
        cop_job *back = NULL;
        if (!cop_job_from_bytes(work, bytes->size, &back, NULL)) cop_job_release(back);
    }
    cop_buffer_release(bytes);
    cop_job_release(job);
}

static void test_failed_allocations_leave_the_message_to_the_caller(void **state) {
    for (uint64_t k = 1; k < 40; k++) {
        Coppice__Job *m = parse_job(SMALL_JOB);
        cop_job *job = NULL;
        cop_alloc_fail_at(k);
        cop_err e = cop_job_create(m, *state, &job, NULL);
        cop_alloc_fail_at(0);
        if (e)
            cop_proto_free(&m->base);
        else
            cop_job_release(job);
    }
}

/* ---- figures and warnings ---- */

static void test_plan_counts_bytes(void **state) {
    cop_job *job = make_job(NULL, *state);
    cop_plan_figures one, two;
    uint64_t flat = (uint64_t)cop_model_floats(job->model) * 4;
    cop_job_plan(job, 1, &one);
    cop_job_plan(job, 2, &two);
    assert_true(one.flop_per_sample >= 2 * (784 * 9 + 9 * 10));
    assert_int_equal(two.wire_bytes_per_step - one.wire_bytes_per_step, 2 * flat);
    assert_int_equal(one.wire_bytes_per_step, 2 * flat + 30 * 788);
    assert_true(one.worker_bytes > 3 * flat);
    cop_job_release(job);
}

static void test_doubtful_job_gets_warnings(void **state) {
    cop_str text = {0};
    cop_job *job = make_job(NULL, *state);
    cop_job_warnings(job, &text);
    assert_string_equal(cop_str_text(&text), "");
    cop_job_release(job);
    job = make_job("train={epochs: 1.5, batch: 30, shards: 10}", *state);
    cop_job_warnings(job, &text);
    assert_string_equal(
        cop_str_text(&text),
        "train.shards is 10: with a batch of 30, a shard has fewer than 4 samples, which is "
        "slow\ntrain.epochs is 1.5: the last epoch ends early, after step 6\n");
    cop_str_fini(&text);
    cop_job_release(job);
}

static void test_missing_data_files_are_named(void **state) {
    (void)state;
    Coppice__Job *m = parse_job(SMALL_JOB);
    cop_data *data = NULL;
    cop_error error = {0};
    cop_document_set(m, "data.source=idx", NULL);
    assert_int_equal(cop_job_open_data(m, "job.yaml", NULL, &data, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, "--set data.source=idx: data.source is idx: expected "
                                    "data.train and data.test, each with images and labels");
    cop_document_set(m, "data.train.images=a", NULL);
    assert_int_equal(cop_job_open_data(m, "job.yaml", NULL, &data, &error), COP_ERR_INPUT);
    assert_string_equal(error.text, "--set data.train.images=a: data.train.labels is missing: "
                                    "expected text (IDX file of labels)");
    cop_document_set(
        m, "data={source: idx, train: {images: a, labels: b}, test: {images: c, labels: d}}", NULL);
    assert_int_equal(cop_job_open_data(m, "no/job.yaml", NULL, &data, &error), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "no/a"));
    cop_proto_free(&m->base);
}

static void test_held_job_outlives_its_owner(void **state) {
    (void)state;
    cop_data *data = small_data();
    cop_job *job = make_job(NULL, data), *held = cop_job_hold(job);
    assert_ptr_equal(held, job);
    cop_job_release(job);
    assert_string_equal(held->message->name, "small");
    assert_int_equal(cop_model_layer_count(held->model), 4);
    cop_job_release(held); /* the sanitizers would report a leak or a double free */
    cop_job_release(NULL);
    cop_data_destroy(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_job_outlives_its_owner),
        cmocka_unit_test(test_job_is_built_from_its_file),
        cmocka_unit_test(test_layer_fields_reach_the_model),
        cmocka_unit_test(test_schedules_reach_the_optimizer),
        cmocka_unit_test(test_losses_and_targets_reach_the_model),
        cmocka_unit_test(test_every_optimizer_has_its_fields_and_defaults),
        cmocka_unit_test(test_epochs_become_steps),
        cmocka_unit_test(test_validation_samples_are_taken_from_the_training_part),
        cmocka_unit_test(test_invalid_relations_between_fields_are_refused),
        cmocka_unit_test(test_errors_of_relations_name_file_line_and_column),
        cmocka_unit_test(test_too_few_data_are_refused),
        cmocka_unit_test(test_mismatched_shapes_are_refused),
        cmocka_unit_test(test_data_set_without_test_part_trains_without_evaluation),
        cmocka_unit_test(test_split_that_loses_a_class_is_refused),
        cmocka_unit_test(test_job_pinned_by_a_version_without_split_keeps_its_rows),
        cmocka_unit_test(test_job_is_pinned_to_its_data),
        cmocka_unit_test(test_resolved_job_file_gives_the_same_job),
        cmocka_unit_test(test_packed_job_gives_the_same_job),
        cmocka_unit_test(test_damaged_pinned_sections_are_refused),
        cmocka_unit_test(test_unknown_arithmetic_is_refused_by_name),
        cmocka_unit_test(test_mutated_bytes_never_crash),
        cmocka_unit_test(test_failed_allocations_leave_the_message_to_the_caller),
        cmocka_unit_test(test_plan_counts_bytes),
        cmocka_unit_test(test_doubtful_job_gets_warnings),
        cmocka_unit_test(test_missing_data_files_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
