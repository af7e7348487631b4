/* Model files: saving and loading, and detection of every altered or missing byte. */
#include "unit/job/fixture.h"

#include "common/interchange/safetensors.h"

typedef struct fixture {
    cop_data *data;
    cop_job *job;
    float *weights;
    char *folder, *path;
} fixture;

static int setup(void **state) {
    fixture *f = cop_alloc(sizeof *f);
    f->data = small_data();
    f->job = make_job(NULL, f->data);
    f->weights = first_weights(f->job);
    f->folder = new_folder();
    f->path = cop_path_join(f->folder, "model.safetensors");
    assert_int_equal(cop_job_save_model(f->job, f->weights, 77, f->path, NULL), COP_OK);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    drop_folder(f->folder);
    cop_free(f->path);
    cop_free(f->weights);
    cop_job_release(f->job);
    cop_data_destroy(f->data);
    cop_free(f);
    return 0;
}

static size_t flat_size(const fixture *f) {
    return (size_t)cop_model_floats(f->job->model) * sizeof(float);
}

static void test_saved_model_loads(void **state) {
    fixture *f = *state;
    float *back = new_floats(f->job);
    uint64_t step = 0;
    assert_int_equal(cop_job_load_model(f->job, f->path, back, &step, NULL), COP_OK);
    assert_int_equal(step, 77);
    assert_memory_equal(back, f->weights, flat_size(f));
    cop_free(back);
}

static void test_tensors_have_the_names_and_shapes_of_pytorch(void **state) {
    fixture *f = *state;
    cop_safetensors *file;
    assert_int_equal(cop_safetensors_open(f->path, &file, NULL), COP_OK);
    const cop_tensor_entry *w = cop_safetensors_find(file, "1.weight");
    assert_int_equal(cop_safetensors_count(file), 3);
    assert_non_null(cop_safetensors_find(file, "1.bias"));
    assert_non_null(cop_safetensors_find(file, "3.weight"));
    assert_int_equal(w->rank, 2);
    assert_int_equal(w->dims[0], 9);
    assert_int_equal(w->dims[1], 784);
    assert_string_equal(cop_safetensors_metadata(file, "coppice.step"), "77");
    assert_non_null(strstr(cop_safetensors_metadata(file, "coppice.job"), "name: small\n"));
    cop_safetensors_close(file);
}

static void test_encoded_model_equals_the_file(void **state) {
    fixture *f = *state;
    cop_buffer *bytes;
    char *text;
    size_t file_size;
    assert_int_equal(cop_job_encode_model(f->job, f->weights, 77, &bytes, NULL), COP_OK);
    assert_int_equal(cop_file_read(f->path, 1 << 20, &text, &file_size, NULL), COP_OK);
    assert_int_equal(bytes->size, file_size);
    assert_memory_equal(bytes->data, text, file_size);
    cop_buffer_release(bytes), cop_free(text);
}

static void expect_opens(const fixture *f, const char *path) {
    cop_saved_model m;
    cop_error error = {0};
    if (cop_job_open_model(path, &m, &error)) fail_msg("%s", error.text);
    assert_int_equal(m.step, 77);
    assert_int_equal(m.job->steps, f->job->steps);
    assert_memory_equal(m.flat, f->weights, flat_size(f));
    cop_job_release(m.job);
    cop_free(m.flat);
}

static void test_model_file_opens_without_a_job(void **state) {
    fixture *f = *state;
    expect_opens(f, f->path);
    expect_opens(f, f->folder); /* a run folder with model.safetensors */
}

static void test_run_folder_opens_its_newest_checkpoint(void **state) {
    fixture *f = *state;
    cop_checkpoint c = {.step = 77, .weights = f->weights, .states = {f->weights}};
    assert_int_equal(cop_checkpoint_save(f->job, f->folder, &c, NULL), COP_OK);
    assert_int_equal(cop_file_remove(f->path, NULL), COP_OK);
    expect_opens(f, f->folder);
    char *checkpoint = cop_path_join(f->folder, "checkpoints/step-00000077");
    expect_opens(f, checkpoint);
    cop_free(checkpoint);
    /* for the other tests */
    assert_int_equal(cop_job_save_model(f->job, f->weights, 77, f->path, NULL), COP_OK);
}

static cop_err open_path(const char *path, cop_error *error) {
    cop_saved_model m;
    cop_err e = cop_job_open_model(path, &m, error);
    if (e) {
        assert_null(m.job);
        assert_null(m.flat);
        return e;
    }
    cop_job_release(m.job);
    cop_free(m.flat);
    return e;
}

static void test_paths_without_a_model_are_refused(void **state) {
    fixture *f = *state;
    cop_error error = {0};
    char *empty = new_folder();
    assert_int_equal(open_path("no/such/model", &error), COP_ERR_NOT_FOUND);
    assert_int_equal(open_path(empty, &error), COP_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, " contains neither model.safetensors nor checkpoints"));
    drop_folder(empty);
    (void)f;
}

/* All bytes except the blanks that pad the header, which may become other whitespace. */
static void test_every_altered_byte_of_a_model_file_is_detected(void **state) {
    fixture *f = *state;
    cop_buffer *model;
    char *path = cop_path_join(f->folder, "altered");
    assert_int_equal(cop_job_encode_model(f->job, f->weights, 77, &model, NULL), COP_OK);
    char *bytes = model->data;
    const size_t size = model->size;
    uint64_t header = cop_load_u64(bytes) + 8, end = header;
    while (bytes[end - 1] == ' ') end--;
    for (size_t i = 0; i < size; i += i < header ? 1 : 997) {
        if (i == end) i = header;
        bytes[i] ^= 1 << (i % 7);
        cop_file_part part = {bytes, size};
        assert_int_equal(cop_file_write(path, &part, 1, 0644, NULL), COP_OK);
        if (!open_path(path, NULL)) fail_msg("byte %zu of %zu", i, size);
        bytes[i] ^= 1 << (i % 7);
    }
    cop_buffer_release(model), cop_free(path);
}

static void test_every_truncation_of_a_model_file_is_detected(void **state) {
    fixture *f = *state;
    cop_buffer *bytes;
    char *path = cop_path_join(f->folder, "cut");
    assert_int_equal(cop_job_encode_model(f->job, f->weights, 77, &bytes, NULL), COP_OK);
    for (size_t i = 0; i < bytes->size; i += 101) {
        cop_file_part part = {bytes->data, i};
        assert_int_equal(cop_file_write(path, &part, 1, 0644, NULL), COP_OK);
        cop_err e = open_path(path, NULL);
        assert_true(e == COP_ERR_CORRUPT || e == COP_ERR_INPUT);
    }
    cop_buffer_release(bytes), cop_free(path);
}

static void test_model_of_another_shape_is_refused(void **state) {
    fixture *f = *state;
    cop_job *other = make_job("model.1.linear.units=8", f->data);
    float *flat = new_floats(other);
    uint64_t step;
    cop_error error = {0};
    assert_int_equal(cop_job_load_model(other, f->path, flat, &step, &error), COP_ERR_CORRUPT);
    assert_non_null(
        strstr(error.text, ": the type or shape of tensor 1.weight does not match the job"));
    cop_free(flat);
    cop_job_release(other);
}

/* As PyTorch's save_file writes it: tensors without metadata. */
static void test_foreign_model_file_loads_into_a_job(void **state) {
    fixture *f = *state;
    char *path = cop_path_join(f->folder, "torch.safetensors");
    cop_tensor_entry t[3];
    cop_error error = {0};
    float *back = new_floats(f->job);
    uint64_t step = 5;
    for (int i = 0; i < 3; i++) {
        const cop_parameter *p = cop_model_parameter(f->job->model, i);
        t[i] = (cop_tensor_entry){.dtype = "F32",
                                  .rank = p->rank,
                                  .data = f->weights + p->offset,
                                  .size = (size_t)p->count * sizeof(float)};
        snprintf(t[i].name, sizeof t[i].name, "%s", p->name);
        for (int d = 0; d < p->rank; d++) t[i].dims[d] = p->dims[d];
    }
    assert_int_equal(cop_safetensors_write(path, &(cop_safetensors_content){t, 3, NULL, 0}, NULL),
                     COP_OK);
    if (cop_job_load_model(f->job, path, back, &step, &error)) fail_msg("%s", error.text);
    assert_int_equal(step, 0);
    assert_memory_equal(back, f->weights, flat_size(f));
    assert_int_equal(open_path(path, &error), COP_ERR_INPUT);
    assert_non_null(strstr(error.text, " contains no job: it was not written by coppice"));
    assert_int_equal(cop_safetensors_write(path, &(cop_safetensors_content){t, 2, NULL, 0}, NULL),
                     COP_OK);
    assert_int_equal(cop_job_load_model(f->job, path, back, &step, &error), COP_ERR_CORRUPT);
    assert_non_null(strstr(error.text, " has no tensor 3.weight"));
    cop_free(back), cop_free(path);
}

static void test_weights_with_nan_are_not_saved(void **state) {
    fixture *f = *state;
    char *path = cop_path_join(f->folder, "nan");
    float kept = f->weights[3];
    cop_error error = {0};
    f->weights[3] = __builtin_nanf("");
    assert_int_equal(cop_job_save_model(f->job, f->weights, 1, path, &error), COP_ERR_CORRUPT);
    assert_false(cop_file_exists(path));
    f->weights[3] = kept;
    cop_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saved_model_loads),
        cmocka_unit_test(test_tensors_have_the_names_and_shapes_of_pytorch),
        cmocka_unit_test(test_encoded_model_equals_the_file),
        cmocka_unit_test(test_model_file_opens_without_a_job),
        cmocka_unit_test(test_run_folder_opens_its_newest_checkpoint),
        cmocka_unit_test(test_paths_without_a_model_are_refused),
        cmocka_unit_test(test_every_altered_byte_of_a_model_file_is_detected),
        cmocka_unit_test(test_every_truncation_of_a_model_file_is_detected),
        cmocka_unit_test(test_model_of_another_shape_is_refused),
        cmocka_unit_test(test_foreign_model_file_loads_into_a_job),
        cmocka_unit_test(test_weights_with_nan_are_not_saved),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
