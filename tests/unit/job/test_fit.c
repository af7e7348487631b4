/* A job, data and weights that are each valid but do not match are refused, with a reason.
 * LABELS: quick */
#include "unit/job/fixture.h"

#include "common/base/hash.h"
#include "common/data/pack.h"

static cop_data *make_data(cop_data_type type, int32_t rank, const int32_t dims[3],
                           int32_t classes) {
    const pack_part part = {
        .type = type, .rank = rank, .dims = {dims[0], dims[1], dims[2]}, .count = 20};
    const pack_part parts[2] = {part, part};
    cop_data *data = NULL;
    assert_int_equal(pack_create("made", classes, parts, &data, NULL), COP_OK);
    memset(pack_samples(&data->train), 0, 20 * data->train.stride);
    memset(pack_samples(&data->test), 0, 20 * data->test.stride);
    pack_finish(data, classes);
    return data;
}

#define JOB(classes)                                                                               \
    "name: fit\ndata: {source: made}\nmodel: [linear: {units: " #classes "}]\n"                    \
    "train: {steps: 5, batch: 4, shards: 2}\noptimizer: {sgd: {rate: 0.1}}\n"

static cop_job *job_on(const char *text, const cop_data *data) {
    cop_job *job = NULL;
    cop_error error = {0};
    if (try_job(text, NULL, NULL, data, &job, &error)) fail_msg("%s", error.text);
    return job;
}

static void test_model_accepts_only_samples_of_its_form(void **state) {
    (void)state;
    static const struct {
        cop_data_type type;
        int32_t rank, dims[3], classes;
        const char *text;
    } forms[] = {
        {COP_DATA_U8, 1, {4}, 3, "u8 (4) and 3 classes"},
        {COP_DATA_F32, 1, {1}, 3, "f32 (1) and 3 classes"}, /* a sample of as many bytes, with
                                                               another type */
        {COP_DATA_F32, 1, {4}, 3, "f32 (4) and 3 classes"},
        {COP_DATA_U8, 3, {1, 2, 2}, 3, "u8 (1, 2, 2) and 3 classes"},
        {COP_DATA_U8, 3, {1, 4, 1}, 3, "u8 (1, 4, 1) and 3 classes"},
        {COP_DATA_U8, 1, {5}, 3, "u8 (5) and 3 classes"},
        {COP_DATA_U8, 1, {4}, 2, "u8 (4) and 2 classes"},
    };
    enum { FORMS = sizeof forms / sizeof *forms };
    for (size_t a = 0; a < FORMS; a++) {
        cop_data *own = make_data(forms[a].type, forms[a].rank, forms[a].dims, forms[a].classes);
        cop_job *job = job_on(forms[a].classes == 3 ? JOB(3) : JOB(2), own);
        for (size_t b = 0; b < FORMS; b++) {
            cop_data *other =
                make_data(forms[b].type, forms[b].rank, forms[b].dims, forms[b].classes);
            char expected[200];
            cop_error error = {0};
            const cop_err e = cop_job_check_data(job, other, &error);
            snprintf(expected, sizeof expected,
                     "the model takes samples of %s, but data set made has %s", forms[a].text,
                     forms[b].text);
            assert_int_equal(e, a == b ? COP_OK : COP_ERR_INPUT);
            if (e) assert_string_equal(error.text, expected);
            cop_data_destroy(other);
        }
        cop_job_release(job);
        cop_data_destroy(own);
    }
}

/* ---- a stored job with the pinned section of another ---- */

typedef void change(Coppice__Job *m);

static void fewer_tests(Coppice__Job *m) {
    m->pinned->test_samples--;
}
static void more_tests(Coppice__Job *m) {
    m->pinned->test_samples = COP_SAMPLES_MAX;
}
static void more_training(Coppice__Job *m) {
    m->pinned->train_samples += 3;
}
static void other_shape(Coppice__Job *m) {
    m->pinned->input[1] = 14;
    m->pinned->input[2] = 56;
}
static void smaller_samples(Coppice__Job *m) {
    m->pinned->input[2] = 7;
}
static void wider_type(Coppice__Job *m) { /* with the same size in bytes */
    m->pinned->sample_type = (char *)(uintptr_t)"f32";
    m->pinned->input[2] = 7;
}

static void check_stored(const cop_data *data, change *apply, bool fits, const char *part) {
    cop_job *job = job_on(SMALL_JOB, data), *stored = NULL;
    cop_data_view view;
    cop_error error = {0};
    char *type = job->message->pinned->sample_type;
    if (apply) apply(job->message);
    cop_buffer *bytes = cop_job_pack(job);
    job->message->pinned->sample_type = type;
    if (cop_job_from_bytes(bytes->data, bytes->size, &stored, &error)) fail_msg("%s", error.text);
    assert_int_equal(cop_job_view(stored, data, &view, &error), fits ? COP_OK : COP_ERR_INPUT);
    cop_data_view_fini(&view);
    if (!fits && !strstr(error.text, part)) fail_msg("%s", error.text);
    cop_job_release(stored);
    cop_buffer_release(bytes);
    cop_job_release(job);
}

static void test_stored_job_is_checked_against_its_data(void **state) {
    (void)state;
    cop_data *data = small_data();
    check_stored(data, NULL, true, NULL);
    check_stored(data, fewer_tests, false, "pinned to 100 training, 0 validation and 39 test");
    check_stored(data, more_tests, false, "gives it 100, 0 and 40");
    check_stored(data, more_training, false, "pinned to 103 training");
    check_stored(data, other_shape, false, "u8 (1, 14, 56)");
    check_stored(data, smaller_samples, false, "u8 (1, 28, 7)");
    check_stored(data, wider_type, false, "f32 (1, 28, 7)");
    cop_data_destroy(data);
}

/* ---- weights ---- */

static void test_weights_of_another_job_are_refused(void **state) {
    (void)state;
    static const char path[] = "fit.safetensors";
    cop_data *data = small_data();
    cop_job *own = make_job("seed=1", data), *other = make_job("seed=2", data);
    float *flat = cop_alloc_array((size_t)cop_model_floats(own->model), sizeof *flat), *read = NULL;
    uint64_t step;
    cop_error error = {0};
    cop_model_init(own->model, 1, flat);
    assert_int_equal(cop_job_save_model(own, flat, 8, path, NULL), COP_OK);
    assert_int_equal(cop_job_open_weights(own, path, &read, &step, NULL), COP_OK);
    assert_int_equal(step, 8);
    cop_free(read);
    assert_int_equal(cop_job_open_weights(other, path, &read, &step, &error), COP_ERR_INPUT);
    assert_null(read);
    assert_non_null(strstr(error.text, "of another job"));
    assert_int_equal(cop_job_save_model(own, flat, 9, path, NULL), COP_OK);
    assert_int_equal(cop_job_open_weights(own, path, &read, &step, &error), COP_ERR_INPUT);
    assert_null(read);
    assert_string_equal(error.text,
                        "fit.safetensors holds weights of step 9, but the job has 8 steps");
    unlink(path);
    cop_free(flat);
    cop_job_release(own);
    cop_job_release(other);
    cop_data_destroy(data);
}

int main(void) {
    char folder[] = "/tmp/coppice-fit-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_accepts_only_samples_of_its_form),
        cmocka_unit_test(test_stored_job_is_checked_against_its_data),
        cmocka_unit_test(test_weights_of_another_job_are_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
