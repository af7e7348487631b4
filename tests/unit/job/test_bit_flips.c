/* Flips every single bit of a small checkpoint. In its three files each flip is detected; in
 * `latest` and `best` it can only select another complete checkpoint. */
#include "unit/job/fixture.h"

#include <fcntl.h>

#define JOB                                                                                        \
    "name: bits\n"                                                                                 \
    "data: {source: csv, train: {path: t.csv}}\n"                                                  \
    "model: [linear: {units: 2}]\n"                                                                \
    "train: {steps: 1000, batch: 2, shards: 1}\n"                                                  \
    "optimizer: {sgd: {rate: 0.1, momentum: 0.9}}\n"

static int begin(void **state) {
    static const char csv[] = "0.5,1,0\n2,3,1\n1,1,1\n";
    cop_error error = {0};
    cop_data *data;
    cop_job *job;
    char *folder = new_folder(), *path = cop_path_join(folder, "t.csv");
    const cop_data_input input = {.name = "csv", .train.path = path, .test.path = path};
    assert_int_equal(cop_file_write_text(path, csv, NULL), COP_OK);
    if (cop_data_format_find("csv")->load(&input, &data, &error)) fail_msg("%s", error.text);
    if (try_job(JOB, NULL, NULL, data, &job, &error)) fail_msg("%s", error.text);
    cop_free(path);
    *state = job_fixture_open(data, job, folder);
    return 0;
}

static void save(job_fixture *f, uint64_t step) {
    f->weights[0] = (float)step;
    const cop_checkpoint c = {.step = step,
                              .weights = f->weights,
                              .states = {f->momentum},
                              .train_loss_sum = 0.1,
                              .train_samples = 7,
                              .train_correct = 5,
                              .seconds = 0.3,
                              .best_error = 0.25,
                              .has_best = true,
                              .is_best = true};
    assert_int_equal(cop_checkpoint_save(f->job, f->folder, &c, NULL), COP_OK);
}

/* Loads a checkpoint and checks that it equals the saved one. Returns its step; 0: none could be
 * loaded, and `notes` has the reason. */
static uint64_t load(job_fixture *f, cop_str *notes) {
    float *weights = new_floats(f->job), *states[2] = {new_floats(f->job), NULL};
    cop_checkpoint c;
    cop_error error = {0};
    cop_str_clear(notes);
    const cop_err e = cop_checkpoint_load(
        f->job, &(cop_checkpoint_source){f->folder, COP_CHECKPOINT_ANY_STEP, notes},
        &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &c, &error);
    if (e) assert_int_equal(e, COP_ERR_NOT_FOUND);
    if (!e) {
        f->weights[0] = (float)c.step;
        assert_memory_equal(weights, f->weights, f->size);
        assert_memory_equal(states[0], f->momentum, f->size);
        assert_true(c.train_loss_sum == 0.1 && c.seconds == 0.3 && c.best_error == 0.25 &&
                    c.has_best);
        assert_true(c.train_samples == 7 && c.train_correct == 5 && c.is_best);
    }
    cop_free(weights), cop_free(states[0]);
    return e ? 0 : c.step;
}

#ifdef __SANITIZE_ADDRESS__ /* slow, and all bits of a byte take the same way through the code */
enum { BIT_STEP = 7 };
#else
enum { BIT_STEP = 1 };
#endif

/* Flips each bit of the file in turn (with ASan, the first and the last bit of each byte), and
 * calls `visit` each time. Returns the number of bits. */
static uint64_t flip_all(job_fixture *f, const char *name,
                         void (*visit)(job_fixture *f, const char *name, size_t byte, int bit)) {
    char *path = cop_path_join(f->folder, name), *bytes;
    size_t size;
    assert_int_equal(cop_file_read(path, 1 << 20, &bytes, &size, NULL), COP_OK);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t at = 0; at < size; at++)
        for (int bit = 0; bit < 8; bit += BIT_STEP) {
            const char flipped = (char)(bytes[at] ^ (1 << bit));
            assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
            visit(f, name, at, bit);
            assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
        }
    close(fd);
    cop_free(path), cop_free(bytes);
    return size * (7 / BIT_STEP + 1);
}

static void expect_detected(job_fixture *f, const char *name, size_t byte, int bit) {
    cop_str notes = {0};
    if (load(f, &notes)) fail_msg("%s: bit %d of byte %zu is not noticed", name, bit, byte);
    if (!strstr(cop_str_text(&notes), strrchr(name, '/')))
        fail_msg("%s, bit %d of byte %zu: %s", name, bit, byte, cop_str_text(&notes));
    cop_str_fini(&notes);
}

static void expect_complete(job_fixture *f, const char *name, size_t byte, int bit) {
    cop_str notes = {0};
    const uint64_t step = load(f, &notes);
    if (step != 100 && step != 200)
        fail_msg("%s, bit %d of byte %zu: %s", name, bit, byte, cop_str_text(&notes));
    cop_str_fini(&notes);
}

static void test_every_flipped_bit_of_a_checkpoint_is_detected(void **state) {
    job_fixture *f = *state;
    cop_str notes = {0};
    uint64_t bits = 0;
    save(f, 100);
    assert_int_equal(load(f, &notes), 100);
    bits += flip_all(f, "checkpoints/step-00000100/model.safetensors", expect_detected);
    bits += flip_all(f, "checkpoints/step-00000100/optimizer.safetensors", expect_detected);
    bits += flip_all(f, "checkpoints/step-00000100/state.json", expect_detected);
    assert_int_equal(load(f, &notes), 100);
    print_message("%llu bits of a checkpoint, each noticed\n", (unsigned long long)bits);
    assert_true(bits > (7 / BIT_STEP + 1) * 1500);
    save(f, 200);
    bits = flip_all(f, "checkpoints/latest", expect_complete);
    bits += flip_all(f, "checkpoints/best", expect_complete);
    assert_int_equal(bits, 2 * (7 / BIT_STEP + 1) * strlen("step-00000100\n"));
    cop_str_fini(&notes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_of_a_checkpoint_is_detected, begin,
                                        job_fixture_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
