/* Checkpoints: a job resumes exactly, damaged checkpoints are passed over for older ones, old ones
 * are kept or removed, and the disk is full. */
#include "unit/job/fixture.h"

#include <math.h>
#include <sys/wait.h>

static int setup(void **state) {
    cop_data *data = small_data();
    *state = job_fixture_open(data, make_job("train.steps=1000", data), new_folder());
    return 0;
}

/* The weights of a step are artificial: the first one is the step's number. */
static cop_checkpoint checkpoint_at(job_fixture *f, uint64_t step) {
    f->weights[0] = (float)step;
    f->momentum[0] = (float)step * -2.0f;
    return (cop_checkpoint){.step = step,
                            .weights = f->weights,
                            .states = {f->momentum},
                            .train_loss_sum = 0x1.fffffffffffffp-3 * (double)step,
                            .train_samples = 10 * step,
                            .train_correct = 9 * step,
                            .seconds = 0.1 * (double)step,
                            .best_error = 1.0 / 3,
                            .has_best = true};
}

static void save(job_fixture *f, uint64_t step, bool best) {
    cop_checkpoint c = checkpoint_at(f, step);
    cop_error error = {0};
    c.is_best = best;
    if (cop_checkpoint_save(f->job, f->folder, &c, &error)) fail_msg("%s", error.text);
}

/* Returns the step from which a resume of `job` would start; 0: there is none. `notes` may be NULL.
 */
static uint64_t resume_as(job_fixture *f, const cop_job *job, cop_str *notes, cop_error *error) {
    float *weights = new_floats(job), *states[2] = {new_floats(job), NULL};
    cop_checkpoint c;
    cop_err e = cop_checkpoint_load(
        job, &(cop_checkpoint_source){f->folder, COP_CHECKPOINT_ANY_STEP, notes},
        &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &c, error);
    if (!e) {
        checkpoint_at(f, c.step); /* the expected contents */
        assert_memory_equal(weights, f->weights, f->size);
        assert_memory_equal(states[0], f->momentum, f->size);
    }
    cop_free(weights), cop_free(states[0]);
    return e ? 0 : c.step;
}

static uint64_t resume(job_fixture *f, cop_str *notes) {
    cop_error error = {0};
    return resume_as(f, f->job, notes, &error);
}

static bool exists(const job_fixture *f, const char *name) {
    char *path = cop_path_join(f->folder, name);
    bool there = cop_folder_exists(path) || cop_file_exists(path);
    cop_free(path);
    return there;
}

static void test_checkpoint_is_restored_exactly(void **state) {
    job_fixture *f = *state;
    save(f, 500, true);
    float *weights = new_floats(f->job), *states[2] = {new_floats(f->job), NULL};
    cop_checkpoint c, saved = checkpoint_at(f, 500);
    assert_int_equal(cop_checkpoint_load(
                         f->job, &(cop_checkpoint_source){f->folder, COP_CHECKPOINT_ANY_STEP, NULL},
                         &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &c, NULL),
                     COP_OK);
    assert_int_equal(c.step, 500);
    assert_memory_equal(weights, f->weights, f->size);
    assert_memory_equal(states[0], f->momentum, f->size);
    assert_memory_equal(&c.train_loss_sum, &saved.train_loss_sum, 8);
    assert_memory_equal(&c.seconds, &saved.seconds, 8);
    assert_memory_equal(&c.best_error, &saved.best_error, 8);
    assert_true(c.has_best);
    assert_int_equal(c.train_samples, 5000);
    assert_int_equal(c.train_correct, 4500);
    assert_true(c.is_best);
    cop_free(weights), cop_free(states[0]);
}

static void test_state_is_valid_json_for_any_figures(void **state) {
    job_fixture *f = *state;
    cop_checkpoint c = checkpoint_at(f, 5), back;
    float *weights = new_floats(f->job), *states[2] = {new_floats(f->job), NULL};
    char *path = cop_path_join(f->folder, "checkpoints/step-00000005/state.json"), *text;
    size_t size;
    c.train_loss_sum = INFINITY;
    c.seconds = NAN;
    c.best_error = -INFINITY;
    assert_int_equal(cop_checkpoint_save(f->job, f->folder, &c, NULL), COP_OK);
    assert_int_equal(cop_file_read(path, 4096, &text, &size, NULL), COP_OK);
    assert_non_null(strstr(text, "\"train_loss_sum\": null,\n  \"seconds\": null,\n"
                                 "  \"best_error\": null,\n"));
    assert_null(strstr(text, "inf"));
    assert_null(strstr(text, "nan"));
    assert_int_equal(cop_checkpoint_load(
                         f->job, &(cop_checkpoint_source){f->folder, COP_CHECKPOINT_ANY_STEP, NULL},
                         &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &back, NULL),
                     COP_OK);
    assert_true(back.train_loss_sum == INFINITY && isnan(back.seconds));
    cop_free(text), cop_free(path), cop_free(weights), cop_free(states[0]);
}

/* The state has a valid hash, but values that no coordinator writes. */
static void test_impossible_count_of_correct_samples_counts_as_damage(void **state) {
    job_fixture *f = *state;
    cop_checkpoint c = checkpoint_at(f, 5);
    c.train_correct = c.train_samples + 1;
    assert_int_equal(cop_checkpoint_save(f->job, f->folder, &c, NULL), COP_OK);
    assert_int_equal(resume(f, NULL), 0);
}

static void test_checkpoint_files_are_at_the_documented_paths(void **state) {
    job_fixture *f = *state;
    save(f, 500, false);
    assert_true(exists(f, "checkpoints/step-00000500/model.safetensors"));
    assert_true(exists(f, "checkpoints/step-00000500/optimizer.safetensors"));
    assert_true(exists(f, "checkpoints/step-00000500/state.json"));
    assert_false(exists(f, "checkpoints/writing") || exists(f, "checkpoints/best"));
    char *path = cop_path_join(f->folder, "checkpoints/latest"), *text;
    size_t size;
    assert_int_equal(cop_file_read(path, 100, &text, &size, NULL), COP_OK);
    assert_string_equal(text, "step-00000500\n");
    cop_free(path), cop_free(text);
}

static void test_no_checkpoint_is_not_found(void **state) {
    job_fixture *f = *state;
    cop_error error = {0};
    assert_int_equal(resume_as(f, f->job, NULL, &error), 0);
    assert_int_equal(error.code, COP_ERR_NOT_FOUND);
}

static void test_newest_and_best_checkpoints_are_kept(void **state) {
    job_fixture *f = *state;
    for (uint64_t step = 100; step <= 600; step += 100) save(f, step, step == 200);
    assert_false(exists(f, "checkpoints/step-00000100") || exists(f, "checkpoints/step-00000300"));
    assert_true(exists(f, "checkpoints/step-00000200") && exists(f, "checkpoints/step-00000400"));
    assert_true(exists(f, "checkpoints/step-00000500") && exists(f, "checkpoints/step-00000600"));
    assert_int_equal(resume(f, NULL), 600);
}

static void test_restart_ignores_checkpoints_of_an_earlier_run(void **state) {
    job_fixture *f = *state;
    for (uint64_t step = 500; step <= 900; step += 100) save(f, step, false);
    save(f, 100, false); /* a new start from the beginning */
    assert_int_equal(resume(f, NULL), 100);
    assert_false(exists(f, "checkpoints/step-00000900"));
}

static bool latest_is(const job_fixture *f, const char *name) {
    char *path = cop_path_join(f->folder, "checkpoints/latest"), *text = NULL;
    size_t size;
    bool same = !cop_file_read(path, 100, &text, &size, NULL) && strcmp(text, name) == 0;
    cop_free(path), cop_free(text);
    return same;
}

static void discard(const job_fixture *f, uint64_t after, cop_checkpoint *c) {
    cop_error error = {0};
    if (cop_checkpoint_discard_after(f->folder, after, c, &error)) fail_msg("%s", error.text);
}

static void test_rollback_removes_untrusted_checkpoints(void **state) {
    job_fixture *f = *state;
    cop_checkpoint c = {.best_error = 0.25, .has_best = true};
    save(f, 200, true), save(f, 300, false);
    discard(f, 200, &c);
    assert_true(latest_is(f, "step-00000200\n") && exists(f, "checkpoints/best"));
    assert_true(c.has_best); /* this checkpoint is the best */
    assert_int_equal(resume(f, NULL), 200);
    save(f, 100, false), save(f, 200, true);
    discard(f, 100, &c);
    assert_true(latest_is(f, "step-00000100\n"));
    assert_false(exists(f, "checkpoints/best") || exists(f, "checkpoints/step-00000200"));
    assert_false(c.has_best); /* the best one was among the removed ones */
    assert_int_equal(resume(f, NULL), 100);
    discard(f, 0, &c);
    assert_false(exists(f, "checkpoints/latest") || exists(f, "checkpoints/step-00000100"));
    assert_int_equal(resume(f, NULL), 0);
}

static void test_steps_above_eight_digits_sort_as_numbers(void **state) {
    job_fixture *f = *state;
    cop_job *job = make_job("train.steps=4000000000", f->data);
    cop_checkpoint c = checkpoint_at(f, 99999999);
    assert_int_equal(cop_checkpoint_save(job, f->folder, &c, NULL), COP_OK);
    c = checkpoint_at(f, 3000000000);
    assert_int_equal(cop_checkpoint_save(job, f->folder, &c, NULL), COP_OK);
    assert_true(exists(f, "checkpoints/step-3000000000") && exists(f, "checkpoints/step-99999999"));
    cop_error error = {0};
    char *latest = cop_path_join(f->folder, "checkpoints/latest");
    cop_file_remove(latest, NULL);
    assert_true(resume_as(f, job, NULL, &error) == 3000000000);
    cop_free(latest);
    cop_job_release(job);
}

static void alter(const job_fixture *f, const char *name, size_t at, bool cut) {
    char *path = cop_path_join(f->folder, name), *bytes;
    size_t size;
    assert_int_equal(cop_file_read(path, 1 << 20, &bytes, &size, NULL), COP_OK);
    at %= size;
    bytes[at] ^= 4;
    cop_file_part part = {bytes, cut ? at : size};
    assert_int_equal(cop_file_write(path, &part, 1, 0644, NULL), COP_OK);
    cop_free(path), cop_free(bytes);
}

static void test_damaged_checkpoint_falls_back_to_the_previous_one(void **state) {
    job_fixture *f = *state;
    static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "state.json"};
    for (int file = 0; file < 3; file++) {
        for (size_t at = 0; at < 3000; at += 137) {
            char name[80];
            cop_str notes = {0};
            save(f, 100, false);
            save(f, 200, false);
            snprintf(name, sizeof name, "checkpoints/step-00000200/%s", files[file]);
            alter(f, name, at, at % 2);
            if (resume(f, &notes) != 100) fail_msg("%s, byte %zu", files[file], at);
            assert_non_null(strstr(cop_str_text(&notes), "step-00000200/"));
            assert_non_null(strstr(cop_str_text(&notes), "; using the previous checkpoint"));
            cop_str_fini(&notes);
        }
    }
}

static void test_every_altered_byte_of_the_state_is_detected(void **state) {
    job_fixture *f = *state;
    save(f, 100, false);
    char *path = cop_path_join(f->folder, "checkpoints/step-00000100/state.json"), *bytes;
    size_t size;
    assert_int_equal(cop_file_read(path, 1 << 20, &bytes, &size, NULL), COP_OK);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= 1;
        cop_file_part part = {bytes, size};
        assert_int_equal(cop_file_write(path, &part, 1, 0644, NULL), COP_OK);
        if (resume(f, NULL)) fail_msg("byte %zu", at);
        bytes[at] ^= 1;
    }
    cop_free(path), cop_free(bytes);
}

static void test_missing_checkpoint_files_fall_back_to_the_previous_one(void **state) {
    job_fixture *f = *state;
    cop_str notes = {0};
    save(f, 100, false);
    save(f, 200, false);
    char *path = cop_path_join(f->folder, "checkpoints/step-00000200/optimizer.safetensors");
    assert_int_equal(cop_file_remove(path, NULL), COP_OK);
    assert_int_equal(resume(f, &notes), 100);
    cop_free(path);
    cop_str_fini(&notes);
}

static void test_half_written_checkpoint_is_ignored(void **state) {
    job_fixture *f = *state;
    save(f, 100, false);
    char *writing = cop_path_join(f->folder, "checkpoints/writing");
    assert_int_equal(cop_folder_create(writing, NULL), COP_OK);
    assert_int_equal(resume(f, NULL), 100);
    save(f, 200, false);
    assert_false(cop_folder_exists(writing));
    assert_int_equal(resume(f, NULL), 200);
    cop_free(writing);
}

static void test_checkpoint_of_another_job_is_refused(void **state) {
    job_fixture *f = *state;
    static const char *const changes[] = {"seed=2",
                                          "train={steps: 1000, batch: 20, shards: 4}",
                                          "optimizer.sgd.rate=0.2",
                                          "model.0.dropout.p=0.3",
                                          "data.validation=10",
                                          "optimizer.sgd.schedule=cosine"};
    save(f, 100, false);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        cop_job *other = NULL;
        cop_error error = {0};
        assert_int_equal(
            try_job(SMALL_JOB, "train.steps=1000", changes[i], f->data, &other, &error), COP_OK);
        assert_int_equal(resume_as(f, other, NULL, &error), 0);
        assert_int_equal(error.code, COP_ERR_INPUT);
        assert_non_null(strstr(error.text, " is a checkpoint of another job: its model, training, "
                                           "seed or data differ from this one's"));
        cop_job_release(other);
    }
}

static void test_fields_that_do_not_affect_weights_may_change_on_resume(void **state) {
    job_fixture *f = *state;
    static const char *const changes[] = {"name=other",
                                          "priority=5",
                                          "limits.workers=3",
                                          "evaluate.every=7",
                                          "checkpoint={every: 9, keep: 1}",
                                          "train.steps=100",
                                          "train.epochs=900"};
    save(f, 100, false);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        cop_job *other = NULL;
        cop_error error = {0};
        assert_int_equal(
            try_job(SMALL_JOB, "train.steps=1000", changes[i], f->data, &other, &error), COP_OK);
        if (resume_as(f, other, NULL, &error) != 100) fail_msg("%s: %s", changes[i], error.text);
        cop_job_release(other);
    }
}

static void test_checkpoint_beyond_the_end_is_refused(void **state) {
    job_fixture *f = *state;
    save(f, 100, false);
    cop_job *shorter = make_job("train.steps=99", f->data);
    cop_error error = {0};
    assert_int_equal(resume_as(f, shorter, NULL, &error), 0);
    assert_non_null(strstr(error.text, " is from step 100: the job ends at step 99"));
    cop_job_release(shorter);
}

static void test_each_damaged_checkpoint_is_one_line_of_the_notes(void **state) {
    job_fixture *f = *state;
    cop_str notes = {0};
    for (uint64_t step = 100; step <= 300; step += 100) save(f, step, false);
    alter(f, "checkpoints/step-00000300/state.json", 5, false);
    alter(f, "checkpoints/step-00000200/model.safetensors", 5, false);
    assert_int_equal(resume(f, &notes), 100);
    const char *second = strchr(cop_str_text(&notes), '\n');
    assert_non_null(
        strstr(cop_str_text(&notes), "step-00000300/state.json is damaged; using the previous"));
    assert_non_null(strstr(
        second, "step-00000200/model.safetensors was altered or is truncated; using the previous"));
    assert_null(strchr(second + 1, '\n'));
    cop_str_fini(&notes);
}

/* A loss may be negative, even -1. It must not be mistaken for the -1 that means "no best". */
static void test_a_best_below_zero_is_a_best(void **state) {
    job_fixture *f = *state;
    const double best[] = {-1, -0.25, -1e300};
    float *weights = new_floats(f->job), *states[2] = {new_floats(f->job), NULL};
    for (uint64_t i = 0; i < 3; i++) {
        cop_checkpoint c = checkpoint_at(f, 10 + i), back;
        c.best_error = best[i];
        c.is_best = i == 0;
        assert_int_equal(cop_checkpoint_save(f->job, f->folder, &c, NULL), COP_OK);
        assert_int_equal(
            cop_checkpoint_load(
                f->job, &(cop_checkpoint_source){f->folder, COP_CHECKPOINT_ANY_STEP, NULL},
                &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &back, NULL),
            COP_OK);
        assert_true(back.has_best && back.best_error == best[i]);
        assert_true(exists(f, "checkpoints/best"));
    }
    cop_free(weights), cop_free(states[0]);
}

static void test_checkpoint_of_an_optimizer_without_state(void **state) {
    job_fixture *f = *state;
    cop_job *plain = make_job("optimizer.sgd.momentum=0", f->data);
    cop_checkpoint c = {.step = 3, .weights = f->weights}, back;
    float *weights = new_floats(plain), *states[2] = {NULL, NULL};
    cop_error error = {0};
    if (cop_checkpoint_save(plain, f->folder, &c, &error)) fail_msg("%s", error.text);
    if (cop_checkpoint_load(
            plain, &(cop_checkpoint_source){f->folder, COP_CHECKPOINT_ANY_STEP, NULL},
            &(cop_checkpoint_buffers){weights, {states[0], states[1]}}, &back, &error))
        fail_msg("%s", error.text);
    assert_int_equal(back.step, 3);
    assert_false(back.has_best);
    cop_free(weights);
    cop_job_release(plain);
}

/* Runs in a child process whose k-th write, fsync or rename finds the disk full. Returns its exit
 * status: 0 done, 1 NO_SPACE. */
static int with_fault(const job_fixture *f, const char *what, int k) {
    pid_t child = fork();
    if (child == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", k);
        setenv("COPPICE_FAIL_IO", number, 1);
        execl("/proc/self/exe", "checkpoint", what, f->folder, (char *)NULL);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int save_and_exit(const char *folder) {
    void *state;
    setup(&state);
    job_fixture *f = state;
    cop_checkpoint c = checkpoint_at(f, 300);
    cop_err e = cop_checkpoint_save(f->job, folder, &c, NULL);
    job_fixture_close(&state);
    return e == COP_OK ? 0 : e == COP_ERR_NO_SPACE ? 1 : 2;
}

static int discard_and_exit(const char *folder, uint64_t after) {
    cop_checkpoint c = {0};
    cop_err e = cop_checkpoint_discard_after(folder, after, &c, NULL);
    return e == COP_OK ? 0 : e == COP_ERR_NO_SPACE ? 1 : 2;
}

/* The counted operations are: write, fsync, rename and fsync of the folder for `latest` (or none,
 * if `latest` is removed), and then the fsync of the folder that makes the removal durable. */
static void test_removal_of_checkpoints_is_durable_or_fails(void **state) {
    job_fixture *f = *state;
    for (int k = 1; k <= 6; k++) {
        save(f, 100, false), save(f, 200, false);
        assert_int_equal(with_fault(f, "--discard-100", k), k == 5);
        if (k == 5) assert_int_equal(with_fault(f, "--discard-100", 1), 1); /* fsync is left */
        assert_int_equal(with_fault(f, "--discard-100", 9), 0);
        assert_false(exists(f, "checkpoints/step-00000200"));
        assert_int_equal(resume(f, NULL), 100);
    }
    assert_int_equal(with_fault(f, "--discard-0", 1), 1); /* only the fsync */
    assert_int_equal(with_fault(f, "--discard-0", 2), 0);
    assert_int_equal(resume(f, NULL), 0);
}

static void test_full_disk_keeps_older_checkpoints(void **state) {
    job_fixture *f = *state;
    int k = 1, status;
    save(f, 100, false);
    save(f, 200, false);
    for (; (status = with_fault(f, "--save", k)) != 0; k++) {
        if (status != 1) fail_msg("fault %d: status %d", k, status);
        uint64_t step = resume(f, NULL);
        assert_true(step == 200 || exists(f, "checkpoints/step-00000300"));
        assert_true(exists(f, "checkpoints/step-00000100"));
        assert_true(exists(f, "checkpoints/step-00000200"));
        assert_false(exists(f, "checkpoints/writing"));
        assert_true(k < 100);
    }
    assert_true(k > 8); /* three files and a rename, each with write and fsync */
    assert_int_equal(resume(f, NULL), 300);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, job_fixture_close)

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--save") == 0) return save_and_exit(argv[2]);
    if (argc == 3 && strncmp(argv[1], "--discard-", 10) == 0)
        return discard_and_exit(argv[2], strtoull(argv[1] + 10, NULL, 10));
    const struct CMUnitTest tests[] = {
        EACH(test_checkpoint_is_restored_exactly),
        EACH(test_state_is_valid_json_for_any_figures),
        EACH(test_impossible_count_of_correct_samples_counts_as_damage),
        EACH(test_checkpoint_files_are_at_the_documented_paths),
        EACH(test_no_checkpoint_is_not_found),
        EACH(test_newest_and_best_checkpoints_are_kept),
        EACH(test_a_best_below_zero_is_a_best),
        EACH(test_restart_ignores_checkpoints_of_an_earlier_run),
        EACH(test_rollback_removes_untrusted_checkpoints),
        EACH(test_removal_of_checkpoints_is_durable_or_fails),
        EACH(test_steps_above_eight_digits_sort_as_numbers),
        EACH(test_damaged_checkpoint_falls_back_to_the_previous_one),
        EACH(test_every_altered_byte_of_the_state_is_detected),
        EACH(test_missing_checkpoint_files_fall_back_to_the_previous_one),
        EACH(test_half_written_checkpoint_is_ignored),
        EACH(test_checkpoint_of_another_job_is_refused),
        EACH(test_fields_that_do_not_affect_weights_may_change_on_resume),
        EACH(test_checkpoint_beyond_the_end_is_refused),
        EACH(test_each_damaged_checkpoint_is_one_line_of_the_notes),
        EACH(test_checkpoint_of_an_optimizer_without_state),
        EACH(test_full_disk_keeps_older_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
