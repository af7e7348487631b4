/* No crash loses a checkpoint. The real code writes to the simulator's disk (tests/sim/disk.c, a
 * strict reading of POSIX), which crashes after every single change, by kill -9 or by a loss of
 * power. After a loss of power, unsynced data are missing, torn or zero. What is left must contain
 * the old or the new checkpoint, equal to the last bit, and it must be possible to save the next
 * one.
 *
 * WITH: sim/disk.c sim/syscalls.c sim/queue.c sim/memory.c
 * WRAPS: open close read write fsync fstat stat lstat rename renameat2 unlink mkdir
 * WRAPS: rmdir opendir readdir closedir getpid */
#include "unit/job/fixture.h"

#include "sim/disk.h"

#define FOLDER "/sim/run"

/* How many losses of power are tried at each point, if the program has no argument. */
#ifdef __SANITIZE_ADDRESS__ /* slow, and each of them runs the same code */
static uint64_t dice = 2;
#else
static uint64_t dice = 6;
#endif

/* No fault except the crash. */
uint32_t sim_fault_on(const sim *s, sim_fault_kind kind, uint32_t who, uint64_t time) {
    (void)s, (void)kind, (void)who, (void)time;
    return 0;
}

static cop_job *job;
static float *weights, *momentum;
static uint64_t points, crashes; /* how many were tried */

static cop_err save(uint64_t step) {
    weights[0] = (float)step;
    momentum[0] = (float)step * -2.0f;
    const cop_checkpoint c = {.step = step,
                              .weights = weights,
                              .states = {momentum},
                              .best_error = 0.5,
                              .has_best = true,
                              .is_best = step == 200};
    return cop_checkpoint_save(job, FOLDER, &c, NULL);
}

/* The step from which a resume starts; 0: there is no checkpoint. Fails the test on errors. */
static uint64_t resume(void) {
    float *w = new_floats(job), *states[2] = {new_floats(job), NULL};
    cop_checkpoint c = {0};
    cop_error error = {0};
    cop_err e =
        cop_checkpoint_load(job, &(cop_checkpoint_source){FOLDER, COP_CHECKPOINT_ANY_STEP, NULL},
                            &(cop_checkpoint_buffers){w, {states[0], states[1]}}, &c, &error);
    if (e && e != COP_ERR_NOT_FOUND) fail_msg("%s", error.text);
    if (!e) {
        assert_true(w[0] == (float)c.step && states[0][0] == (float)c.step * -2.0f);
        const size_t rest = ((size_t)cop_model_floats(job->model) - 1) * sizeof(float);
        assert_memory_equal(w + 1, weights + 1, rest);
        assert_memory_equal(states[0] + 1, momentum + 1, rest);
    }
    cop_free(w), cop_free(states[0]);
    return e ? 0 : c.step;
}

/* A series of saves, in order. The crash comes in the last one. */
typedef struct story {
    const char *name;
    uint64_t steps[6]; /* up to a 0 */
} story;

/* Does the saves, and crashes after change `point` of the last one; returns its number of changes.
 */
static uint32_t play(const story *t, uint64_t seed, uint32_t point, bool power) {
    sim s = {.options.seed = seed};
    sim_memory_permanent(false);
    sim_disk *disk = sim_disk_create(&s);
    uint64_t old = 0, new = 0, now = 1;
    sim_disk_begin(disk, now);
    for (int i = 0; t->steps[i]; i++) {
        sim_disk_settle(disk);
        old = new;
        new = t->steps[i];
        assert_int_equal(save(new), COP_OK);
    }
    const uint32_t changes = disk->op_count;
    if (point <= changes) {
        sim_disk_crash(disk, point ? disk->ops[point - 1].time : 0, power);
        const uint64_t found = resume();
        if (found != new && (found != old || point == changes))
            fail_msg("%s: after %s at change %u of %u (dice %llu): step %llu is found, not %llu",
                     t->name, power ? "a loss of power" : "kill -9", point, changes,
                     (unsigned long long)seed, (unsigned long long)found,
                     (unsigned long long)(point == changes ? new : old));
        if (save(1000)) fail_msg("%s, change %u: no further save is possible", t->name, point);
        assert_int_equal(resume(), 1000);
        crashes++;
    }
    sim_disk_end(disk);
    sim_memory_reset();
    return changes;
}

static void play_all(const story *t) {
    const uint32_t changes = play(t, 0, UINT32_MAX, false);
    assert_true(changes > 12); /* three files, each made, written and synced, and their names */
    for (uint32_t point = 0; point <= changes; point++) {
        play(t, 0, point, false);
        for (uint64_t seed = 1; seed <= dice; seed++) play(t, seed, point, true);
    }
    points += changes + 1;
}

static void test_each_crash_leaves_the_old_or_the_new_checkpoint(void **state) {
    (void)state;
    static const story stories[] = {{"the first", {100}},
                                    {"the second", {100, 200}},
                                    {"the same again", {100, 200, 200}},
                                    {"old ones go", {100, 200, 300, 400, 500}},
                                    {"an earlier life", {300, 400, 350}}};
    for (size_t i = 0; i < sizeof stories / sizeof *stories; i++) play_all(&stories[i]);
    print_message("%llu crash points, %llu crashes\n", (unsigned long long)points,
                  (unsigned long long)crashes);
    assert_true(crashes == points * (1 + dice));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_crash_leaves_the_old_or_the_new_checkpoint),
    };
    if (argc > 1) dice = strtoull(argv[1], NULL, 10);
    sim_memory_permanent(true);
    cop_data *data = small_data();
    job = make_job("train.steps=1000", data);
    weights = first_weights(job);
    momentum = first_weights(job);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cop_free(weights), cop_free(momentum);
    cop_job_release(job);
    cop_data_destroy(data);
    return failed;
}
