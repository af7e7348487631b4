/* The life of a job in the core: load, train, evaluate, checkpoint, pause, cancel, stop, resume. */
#include "core_fixture.h"

#include "common/base/alloc.h"

static fixture *start(uint32_t workers, coord_job_info info) {
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, workers);
    fx_add(f, info);
    return f;
}

static void test_job_runs_from_queue_to_completed(void **state) {
    (void)state;
    fixture *f = start(2, fx_info(1));
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 1);
    assert_int_equal(f->state[1], COORD_RUNNING);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    assert_int_equal(fx_count(f, COORD_ACTION_METRICS), 30);
    assert_int_equal(fx_count(f, COORD_ACTION_EPOCH), 3);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 1);
    assert_true(f->checkpoint[1].checkpoint.final);
    assert_int_equal(f->checkpoint[1].step, 30);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    coord_job_view view;
    assert_false(coord_core_job(f->core, 1, f->now, &view)); /* only the store remembers it */
    fx_destroy(f);
}

static void test_completed_only_after_the_final_weights_are_written(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    f->hold_save = true;
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_RUNNING);
    fx_send(f, (coord_event){.type = COORD_EVENT_CHECKPOINTED, .job = 1, .step = 30, .ok = true});
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void tick_after(fixture *f, uint64_t ns) {
    f->now += ns;
    fx_send(f, (coord_event){.type = COORD_EVENT_TICK});
}

static void test_writing_final_weights_is_retried_until_it_succeeds(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    f->fail_save = true;
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_RUNNING);
    assert_true(fx_reported(f, "disk full"));
    fx_forget(f);
    for (int second = 0; second < 10; second++) tick_after(f, FX_SECOND);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 10);
    assert_false(fx_reported(f, "disk full")); /* reported once */
    f->fail_save = false;
    tick_after(f, FX_SECOND);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_job_fails_when_the_final_weights_cannot_be_written_for_long(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    f->fail_save = true;
    fx_work_all(f, 1);
    for (int minute = 0; minute < 59; minute++) tick_after(f, 60 * FX_SECOND);
    assert_int_equal(f->state[1], COORD_RUNNING);
    for (int minute = 0; minute < 2; minute++) tick_after(f, 60 * FX_SECOND);
    assert_int_equal(f->state[1], COORD_FAILED);
    assert_non_null(strstr(fx_last(f, COORD_ACTION_STATE)->text, "disk full"));
    fx_destroy(f);
}

static void test_stop_does_not_wait_for_a_full_disk(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    f->fail_save = true;
    fx_work_all(f, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    tick_after(f, 50 * FX_MS);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    assert_int_equal(f->state[1], COORD_QUEUED);
    fx_destroy(f);
}

static void test_failed_checkpoint_is_reported_and_training_continues(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.checkpoint_every = 5;
    fixture *f = start(1, info);
    f->fail_save = true;
    fx_work_to(f, 1, 1, 6);
    assert_true(fx_reported(f, "disk full"));
    assert_int_equal(f->state[1], COORD_RUNNING);
    f->fail_save = false;
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_failed_load_fails_the_job_with_its_text(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    f->hold_load = true;
    fx_add(f, fx_info(1));
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_FAILED, .job = 1, .text = "no such data"});
    assert_int_equal(f->state[1], COORD_FAILED);
    assert_string_equal(fx_last(f, COORD_ACTION_STATE)->text, "no such data");
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 0); /* nothing was resident */
    fx_destroy(f);
}

static void test_same_job_twice_is_refused(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    coord_event e = {.type = COORD_EVENT_JOB_ADDED, .info = fx_info(1)};
    assert_int_equal(coord_core_step(f->core, &e, f->now, &f->actions), COP_ERR_EXISTS);
    fx_destroy(f);
}

/* ---- sums ---- */

/* Trains a job, and returns the sums of all epochs for a bitwise comparison. */
static uint32_t epoch_sums(uint32_t workers, coord_job_info info, double sums[16]) {
    fixture *f = start(workers, info);
    uint32_t count = 0;
    fx_work_all(f, workers);
    for (uint32_t i = 0; i < f->count; i++)
        if (f->history[i].type == COORD_ACTION_EPOCH)
            sums[count++] = f->history[i].metrics.loss_sum;
    fx_destroy(f);
    return count;
}

static void test_epoch_sums_are_equal_for_any_number_of_workers(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.shards = 13;
    info.train_samples = 907; /* a short last batch of 7 */
    double one[16], many[16];
    uint32_t epochs = epoch_sums(1, info, one);
    assert_int_equal(epochs, 3);
    for (uint32_t workers = 2; workers <= 9; workers++) {
        assert_int_equal(epoch_sums(workers, info, many), epochs);
        assert_memory_equal(one, many, epochs * sizeof *one);
    }
}

static void test_epoch_counts_every_sample_once(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.train_samples = 907;
    fixture *f = start(3, info);
    fx_work_all(f, 3);
    const coord_action *a = fx_last(f, COORD_ACTION_EPOCH);
    assert_int_equal(a->step, 30);
    assert_int_equal(a->metrics.samples, 907);
    fx_destroy(f);
}

static void test_incomplete_last_epoch_is_reported(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.steps = 25;
    fixture *f = start(1, info);
    fx_work_all(f, 1);
    const coord_action *a = fx_last(f, COORD_ACTION_EPOCH);
    assert_int_equal(a->step, 25);
    assert_int_equal(a->metrics.samples, 500);
    fx_destroy(f);
}

static void test_dropped_last_batch_is_not_trained(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.train_samples = 1050;
    info.last_keep = false; /* 10 steps an epoch of 100 samples each */
    fixture *f = start(2, info);
    fx_work_all(f, 2);
    assert_int_equal(fx_last(f, COORD_ACTION_EPOCH)->metrics.samples, 1000);
    fx_destroy(f);
}

/* Pauses after `cut` steps, loads the checkpoint into a new core, and continues; the sums must be
 * the same. */
static void resume_after(uint64_t cut) {
    coord_job_info info = fx_info(1);
    double whole[16], parts[16];
    uint32_t count = 0, epochs = epoch_sums(2, info, whole);
    fixture *f = start(2, info);
    fx_work_to(f, 2, 1, cut);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_PAUSED);
    for (uint32_t i = 0; i < f->count; i++)
        if (f->history[i].type == COORD_ACTION_EPOCH)
            parts[count++] = f->history[i].metrics.loss_sum;
    coord_action saved = f->checkpoint[1];
    fx_destroy(f);
    f = fx_create((coord_core_config){0});
    f->hold_load = true;
    fx_join_many(f, 5);
    fx_add(f, info);
    coord_event e = {.type = COORD_EVENT_JOB_LOADED, .job = 1};
    e.loaded.step = saved.step;
    e.loaded.loss_sum = saved.checkpoint.loss_sum;
    e.loaded.samples = saved.checkpoint.samples;
    e.loaded.correct = saved.checkpoint.correct;
    e.loaded.seconds = saved.checkpoint.seconds;
    e.loaded.best_error = saved.checkpoint.best_error;
    e.loaded.has_best = saved.checkpoint.has_best;
    fx_send(f, e);
    fx_work_all(f, 5);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    for (uint32_t i = 0; i < f->count; i++)
        if (f->history[i].type == COORD_ACTION_EPOCH)
            parts[count++] = f->history[i].metrics.loss_sum;
    assert_int_equal(count, epochs);
    assert_memory_equal(whole, parts, epochs * sizeof *whole);
    fx_destroy(f);
}

static void test_resume_after_any_step_gives_the_same_sums(void **state) {
    (void)state;
    for (uint64_t cut = 1; cut < 29; cut++) resume_after(cut);
}

/* ---- evaluation ---- */

static coord_job_info with_evaluation(void) {
    coord_job_info info = fx_info(1);
    info.evaluate_samples = 2500;
    return info;
}

static void test_evaluation_after_every_epoch_and_at_the_end(void **state) {
    (void)state;
    coord_job_info info = with_evaluation();
    info.steps = 25;
    fixture *f = start(2, info);
    fx_work_all(f, 2);
    uint64_t at[4] = {0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < f->count; i++)
        if (f->history[i].type == COORD_ACTION_EVALUATED) at[count++] = f->history[i].step;
    assert_int_equal(count, 3);
    assert_int_equal(at[0], 10);
    assert_int_equal(at[1], 20);
    assert_int_equal(at[2], 25);
    fx_destroy(f);
}

static void test_evaluation_every_second_epoch(void **state) {
    (void)state;
    coord_job_info info = with_evaluation();
    info.evaluate_every = 2;
    fixture *f = start(2, info);
    fx_work_all(f, 2);
    assert_int_equal(fx_count(f, COORD_ACTION_EVALUATED), 2); /* the evaluations after steps 20
                                                                 and 30 */
    fx_destroy(f);
}

static void test_evaluation_sums_its_slices_in_order(void **state) {
    (void)state;
    for (uint32_t workers = 1; workers <= 4; workers++) {
        fixture *f = start(workers, with_evaluation());
        fx_work_all(f, workers);
        const coord_action *a = fx_last(f, COORD_ACTION_EVALUATED);
        assert_int_equal(a->metrics.samples, 2500);
        assert_int_equal(a->metrics.correct, 1250);
        assert_true(a->metrics.loss_sum == 0.001 * 1 + 0.001 * 1001 + 0.001 * 2001);
        fx_destroy(f);
    }
}

static void test_pause_does_not_wait_for_an_evaluation(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_join_many(f, 1);
    coord_job_info info = fx_info(1);
    info.evaluate_samples = 60000;
    fx_add(f, info);
    fx_work_to(f, 1, 1, 10);
    while (!f->lease[1].type || !f->lease[1].lease.evaluate) fx_work(f, 1, 1), fx_pull(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    assert_int_equal(f->state[1], COORD_PAUSED); /* at once, although 59 slices are left */
    f->loaded_step = f->checkpoint[1].step;
    fx_forget(f);
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_work(f, 1, 61);                                        /* the first result is stale */
    assert_int_equal(fx_count(f, COORD_ACTION_EVALUATED), 1); /* the evaluation is done later */
    assert_int_equal(fx_last(f, COORD_ACTION_EVALUATED)->step, 10);
    fx_destroy(f);
}

static void test_evaluation_leases_are_slices_of_the_new_version(void **state) {
    (void)state;
    fixture *f = start(1, with_evaluation());
    fx_work_to(f, 1, 1, 10);
    const coord_action *a = f->lease[1].type ? &f->lease[1] : fx_pull(f, 1);
    assert_true(a->lease.evaluate);
    assert_int_equal(a->step, 10);
    assert_int_equal(a->lease.version, 10);
    assert_int_equal(a->lease.first, 0);
    assert_int_equal(a->lease.count, 1000);
    fx_destroy(f);
}

static void test_evaluation_results_keep_no_slot(void **state) {
    (void)state;
    fixture *f = start(1, with_evaluation());
    fx_work_to(f, 1, 1, 10);
    fx_forget(f);
    if (!f->lease[1].type) fx_pull(f, 1);
    fx_finish(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_KEEP), 0);
    coord_lease_counts leases = fx_view(f, 1).leases;
    assert_int_equal(leases.late + leases.twice + leases.stale, 0);
    fx_destroy(f);
}

static void test_requested_evaluation_runs_after_the_step(void **state) {
    (void)state;
    fixture *f = start(1, with_evaluation());
    fx_work_to(f, 1, 1, 3);
    fx_pull(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_EVALUATE, 1);
    fx_work_to(f, 1, 1, 5);
    assert_int_equal(fx_count(f, COORD_ACTION_EVALUATED), 1);
    assert_int_equal(fx_last(f, COORD_ACTION_EVALUATED)->step, 4);
    fx_destroy(f);
}

static void test_without_samples_nothing_is_evaluated(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    fx_job_event(f, COORD_EVENT_JOB_EVALUATE, 1);
    fx_work_all(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_EVALUATED), 0);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

/* ---- checkpoints ---- */

static void test_checkpoints_are_written_at_the_given_interval(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.checkpoint_every = 7;
    fixture *f = start(2, info);
    fx_work_all(f, 2);
    uint64_t expected[] = {7, 14, 21, 28, 30};
    uint32_t count = 0;
    for (uint32_t i = 0; i < f->count; i++)
        if (f->history[i].type == COORD_ACTION_CHECKPOINT)
            assert_int_equal(f->history[i].step, expected[count++]);
    assert_int_equal(count, 5);
    fx_destroy(f);
}

static void
test_training_goes_on_while_a_checkpoint_is_written_until_the_next_is_due(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.checkpoint_every = 5;
    fixture *f = start(1, info);
    f->hold_save = true;
    fx_work_to(f, 1, 1, 10);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 1);
    assert_int_equal(f->checkpoint[1].step, 5);
    assert_null(fx_pull(f, 1)); /* step 11 does not begin */
    fx_send(f, (coord_event){.type = COORD_EVENT_CHECKPOINTED, .job = 1, .step = 5, .ok = true});
    assert_int_equal(f->checkpoint[1].step, 10);
    assert_int_equal(f->lease[1].step, 11);
    fx_destroy(f);
}

static void test_final_checkpoint_waits_for_a_running_one(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.checkpoint_every = 29;
    fixture *f = start(1, info);
    f->hold_save = true;
    fx_work_all(f, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_CHECKPOINTED, .job = 1, .step = 29, .ok = true});
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 2);
    assert_true(f->checkpoint[1].checkpoint.final);
    fx_send(f, (coord_event){.type = COORD_EVENT_CHECKPOINTED, .job = 1, .step = 30, .ok = true});
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

/* Finishes an evaluation with this many correct samples. */
static void finish_evaluation(fixture *f, uint64_t correct) {
    if (!f->lease[1].type) fx_pull(f, 1);
    assert_true(f->lease[1].lease.evaluate);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.correct = correct;
    fx_send_result(f, e);
}

/* Finishes an evaluation of a job without classes, for which only the loss counts. */
static void finish_evaluation_by_loss(fixture *f, double loss) {
    if (!f->lease[1].type) fx_pull(f, 1);
    assert_true(f->lease[1].lease.evaluate);
    coord_event e = fx_result_of(f, &f->lease[1]);
    e.result.correct = 0;
    e.result.loss = loss;
    fx_send_result(f, e);
}

static coord_job_info with_best(void) {
    coord_job_info info = fx_info(1);
    info.evaluate_samples = 1000;
    info.checkpoint_every = 1000;
    info.keep_best = true;
    return info;
}

/* If the test part chose the best weights, its error would be too small an estimate for them. */
static void test_evaluations_on_the_test_part_select_no_best_weights(void **state) {
    (void)state;
    coord_job_info info = with_best();
    info.keep_best = false;
    fixture *f = fx_create((coord_core_config){0});
    f->loaded_step = 1;
    f->loaded_best = 0.5;
    fx_join(f, 1, 1, 7);
    fx_add(f, info);
    fx_work_to(f, 1, 1, 10);
    finish_evaluation(f, 900);
    fx_work_to(f, 1, 1, 20);
    finish_evaluation(f, 950);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 0);
    fx_work_to(f, 1, 1, 30);
    finish_evaluation(f, 990);
    assert_true(f->checkpoint[1].checkpoint.final && !f->checkpoint[1].checkpoint.best);
    assert_false(f->checkpoint[1].checkpoint.has_best);
    fx_destroy(f);
}

static void test_best_weights_are_saved_at_the_evaluated_step(void **state) {
    (void)state;
    fixture *f = start(1, with_best());
    fx_work_to(f, 1, 1, 10);
    finish_evaluation(f, 900);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 1);
    assert_int_equal(f->checkpoint[1].step, 10);
    assert_true(f->checkpoint[1].checkpoint.best);
    assert_true(fabs(f->checkpoint[1].checkpoint.best_error - 0.1) < 1e-12);
    fx_work_to(f, 1, 1, 20);
    finish_evaluation(f, 890); /* worse */
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 1);
    fx_work_to(f, 1, 1, 30);
    finish_evaluation(f, 910);
    assert_int_equal(f->checkpoint[1].step, 30);
    assert_true(f->checkpoint[1].checkpoint.best && f->checkpoint[1].checkpoint.final);
    fx_destroy(f);
}

/* Without classes there are no correct samples, so the loss decides which weights are best. */
static void test_best_weights_without_classes_have_the_lowest_loss(void **state) {
    (void)state;
    static const double losses[] = {500, 600, 400};
    coord_job_info info = with_best();
    info.by_loss = true;
    fixture *f = start(1, info);
    for (uint64_t i = 0; i < 3; i++) {
        fx_work_to(f, 1, 1, 10 * (i + 1));
        finish_evaluation_by_loss(f, losses[i]);
        assert_int_equal(f->checkpoint[1].step, i == 1 ? 10 : 10 * (i + 1));
        assert_true(f->checkpoint[1].checkpoint.best_error == (i == 2 ? 0.4 : 0.5));
        assert_true(f->checkpoint[1].checkpoint.best);
        if (i < 2) assert_false(fx_view(f, 1).has_error);
    }
    fx_destroy(f);
}

/* A loss may be below zero; this must not be mistaken for "no best weights yet". */
static void test_loss_below_zero_can_be_the_best(void **state) {
    (void)state;
    static const double losses[] = {-600, -500, -400};
    coord_job_info info = with_best();
    info.by_loss = true;
    fixture *f = start(1, info);
    for (uint64_t i = 0; i < 3; i++) {
        fx_work_to(f, 1, 1, 10 * (i + 1));
        finish_evaluation_by_loss(f, losses[i]);
        assert_true(f->checkpoint[1].checkpoint.has_best);
        assert_true(f->checkpoint[1].checkpoint.best_error == -0.6);
    }
    assert_false(f->checkpoint[1].checkpoint.best); /* the last is the worst */
    fx_destroy(f);
}

static void test_best_weights_wait_for_a_running_checkpoint(void **state) {
    (void)state;
    coord_job_info info = with_best();
    info.checkpoint_every = 9;
    fixture *f = start(1, info);
    f->hold_save = true;
    fx_work_to(f, 1, 1, 10);
    finish_evaluation(f, 900);
    assert_null(fx_pull(f, 1)); /* step 11 does not begin */
    fx_send(f, (coord_event){.type = COORD_EVENT_CHECKPOINTED, .job = 1, .step = 9, .ok = true});
    assert_int_equal(f->checkpoint[1].step, 10);
    assert_true(f->checkpoint[1].checkpoint.best);
    assert_int_equal(f->lease[1].step, 11);
    fx_destroy(f);
}

static void test_best_error_of_an_earlier_run_counts(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    f->loaded_step = 1;
    f->loaded_best = 0.05;
    fx_join(f, 1, 1, 7);
    fx_add(f, with_best());
    fx_work_to(f, 1, 1, 10);
    finish_evaluation(f, 900);
    assert_int_equal(fx_count(f, COORD_ACTION_CHECKPOINT), 0);
    fx_destroy(f);
}

/* ---- pause, resume, cancel ---- */

static void test_pause_takes_effect_within_a_step(void **state) {
    (void)state;
    fixture *f = start(2, fx_info(1));
    fx_work_to(f, 2, 1, 3);
    fx_pull(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    assert_int_equal(f->state[1], COORD_RUNNING); /* the step is finished first */
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_PAUSED);
    assert_int_equal(f->checkpoint[1].step, 4);
    assert_false(f->checkpoint[1].checkpoint.final);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    assert_int_equal(fx_view(f, 1).step, 4);
    fx_destroy(f);
}

static void test_paused_job_continues_after_resume(void **state) {
    (void)state;
    fixture *f = start(2, fx_info(1));
    fx_work_to(f, 2, 1, 3);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    fx_work_all(f, 2);
    f->loaded_step = f->checkpoint[1].step;
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    assert_int_equal(fx_count(f, COORD_ACTION_METRICS), 30); /* no step twice */
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 2);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 2);
    fx_destroy(f);
}

static void test_pause_without_workers_takes_effect_at_once(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    fx_work_to(f, 1, 1, 3);
    fx_pull(f, 1);
    fx_gone(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    assert_int_equal(f->state[1], COORD_PAUSED);
    assert_int_equal(f->checkpoint[1].step, 3);
    fx_destroy(f);
}

static void test_pause_of_a_queued_job_needs_no_load(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 1});
    fx_add(f, fx_info(1));
    fx_add(f, fx_info(2));
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 2);
    assert_int_equal(f->state[2], COORD_PAUSED);
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 1);
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 2);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 2);
    fx_destroy(f);
}

static void test_resume_revokes_a_pause_before_it_takes_effect(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    fx_pull(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    fx_destroy(f);
}

static void test_pause_in_the_last_evaluation_does_not_skip_it(void **state) {
    (void)state;
    fixture *f = start(1, with_evaluation());
    fx_work_to(f, 1, 1, 30); /* the last evaluation is out */
    fx_gone(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    assert_int_equal(f->state[1], COORD_PAUSED);
    f->loaded_step = 30;
    f->hold_load = true;
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1); /* pauses the job while it is being loaded */
    f->hold_load = false;
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_LOADED, .job = 1, .loaded = {.step = 30}});
    assert_int_equal(f->state[1], COORD_PAUSED);
    fx_join(f, 2, 1, 7);
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_work_all(f, 2);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    assert_int_equal(fx_last(f, COORD_ACTION_EVALUATED)->step, 30);
    fx_destroy(f);
}

static void test_job_added_as_paused_waits(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.state = COORD_PAUSED;
    fixture *f = start(1, info);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 0);
    fx_job_event(f, COORD_EVENT_JOB_RESUME, 1);
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_COMPLETED);
    fx_destroy(f);
}

static void test_cancel_drops_results(void **state) {
    (void)state;
    fixture *f = start(2, fx_info(1));
    fx_pull(f, 1);
    fx_pull(f, 2);
    fx_finish(f, 1); /* kept */
    coord_event late = fx_result_of(f, &f->lease[2]);
    fx_forget(f);
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 1);
    assert_int_equal(f->state[1], COORD_CANCELED);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    fx_send_result(f, late);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 2);
    fx_destroy(f);
}

static void test_cancel_during_an_update_leaves_the_gradients_to_the_host(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    f->hold_update = true;
    fx_pull(f, 1);
    fx_finish(f, 1);
    fx_forget(f);
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_DROP), 0);
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_UPDATED, .job = 1, .step = 1, .ok = true});
    fx_destroy(f);
}

static void test_cancel_during_a_load_unloads_when_it_is_done(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 1});
    f->hold_load = true;
    fx_add(f, fx_info(1));
    fx_add(f, fx_info(2));
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 1);
    assert_int_equal(f->state[1], COORD_CANCELED);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 1); /* its place is still taken */
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_LOADED, .job = 1});
    assert_int_equal(fx_count(f, COORD_ACTION_UNLOAD), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 2);
    fx_destroy(f);
}

static void test_cancel_of_a_queued_job(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.jobs_running_max = 1});
    for (uint64_t job = 1; job <= 3; job++) fx_add(f, fx_info(job));
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 2);
    assert_int_equal(f->state[2], COORD_CANCELED);
    fx_job_event(f, COORD_EVENT_JOB_CANCEL, 1);
    assert_int_equal(fx_last(f, COORD_ACTION_LOAD)->job, 3);
    fx_destroy(f);
}

static void test_events_of_unknown_jobs_are_ignored(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    for (coord_event_type type = COORD_EVENT_JOB_LOADED; type < COORD_EVENT_STOP; type++)
        fx_job_event(f, type, 42);
    assert_int_equal(f->count, 0);
    fx_destroy(f);
}

/* ---- time ---- */

/* Returns the job's training time after `steps` steps of one worker, which is away for `away_ms` in
 * the last step. */
static double seconds_of(uint64_t steps, uint64_t away_ms, double *samples_per_s) {
    fixture *f = start(1, fx_info(1));
    fx_work_to(f, 1, 1, steps - 1);
    fx_pull(f, 1);
    fx_tick(f, 100);
    if (away_ms) {
        fx_gone(f, 1);
        fx_tick(f, away_ms / 2);
        assert_string_equal(fx_view(f, 1).waiting_for, "workers");
        f->now += away_ms / 2 * FX_MS;
        fx_join(f, 1, 1, 7);
    }
    fx_work_to(f, 1, 1, steps);
    const coord_job_view view = fx_view(f, 1);
    fx_destroy(f);
    *samples_per_s = view.samples_per_s;
    return view.seconds;
}

static void test_waiting_for_workers_does_not_count_as_training_time(void **state) {
    (void)state;
    double speed, speed_after_a_wait;
    const double seconds = seconds_of(5, 0, &speed);
    const double with_a_wait = seconds_of(5, 3600 * 1000, &speed_after_a_wait);
    assert_true(seconds > 0.1); /* the time with a lease counts */
    assert_true(with_a_wait < seconds + 0.1);
    assert_true(speed_after_a_wait > speed / 2);
}

static void test_evaluation_does_not_count_as_training_time(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.evaluate_samples = 1000;
    fixture *f = start(1, info);
    fx_work_to(f, 1, 1, 3);
    const double seconds = fx_view(f, 1).seconds;
    for (int i = 0; i < 100 && (!f->lease[1].type || !f->lease[1].lease.evaluate); i++) {
        if (f->lease[1].type) fx_finish(f, 1);
        fx_pull(f, 1);
    }
    assert_true(f->lease[1].lease.evaluate);
    const double before = fx_view(f, 1).seconds, speed = fx_view(f, 1).samples_per_s;
    fx_tick(f, 3600 * 1000); /* the evaluation takes an hour */
    fx_finish(f, 1);
    assert_true(seconds > 0 && speed > 0);
    assert_true(fx_view(f, 1).seconds == before);
    assert_true(fx_view(f, 1).samples_per_s == speed);
    fx_destroy(f);
}

/* ---- limits.timeout ---- */

static void test_timeout_fails_a_running_job(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.timeout_ns = 10 * FX_SECOND;
    fixture *f = start(1, info);
    fx_pull(f, 1);
    fx_tick(f, 9900);
    assert_int_equal(f->state[1], COORD_RUNNING);
    fx_tick(f, 200);
    assert_int_equal(f->state[1], COORD_FAILED);
    const coord_action *failed = fx_last(f, COORD_ACTION_STATE);
    assert_true(failed && strstr(failed->text, "limits.timeout"));
    fx_destroy(f);
}

static void test_timeout_counts_the_time_before_a_resume(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.timeout_ns = 10 * FX_SECOND;
    fixture *f = fx_create((coord_core_config){0});
    f->hold_load = true;
    fx_add(f, info);
    coord_event e = {.type = COORD_EVENT_JOB_LOADED, .job = 1};
    e.loaded.step = 5;
    e.loaded.seconds = 9;
    fx_join(f, 1, 1, 7);
    fx_send(f, e);
    fx_pull(f, 1);
    fx_tick(f, 1100);
    assert_int_equal(f->state[1], COORD_FAILED);
    fx_destroy(f);
}

static void test_timeout_does_not_count_waits_for_workers(void **state) {
    (void)state;
    coord_job_info info = fx_info(1);
    info.timeout_ns = 10 * FX_SECOND;
    fixture *f = fx_create((coord_core_config){0});
    fx_add(f, info);
    fx_tick(f, 3600 * 1000);
    assert_int_equal(f->state[1], COORD_RUNNING);
    fx_join(f, 1, 1, 7);
    fx_pull(f, 1);
    fx_tick(f, 9900);
    assert_int_equal(f->state[1], COORD_RUNNING);
    fx_tick(f, 200);
    assert_int_equal(f->state[1], COORD_FAILED);
    fx_destroy(f);
}

/* ---- stop ---- */

static void test_stop_finishes_the_step_and_saves(void **state) {
    (void)state;
    fixture *f = start(2, fx_info(1));
    fx_work_to(f, 2, 1, 3);
    fx_pull(f, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 0);
    fx_work_all(f, 2);
    assert_int_equal(f->checkpoint[1].step, 4);
    assert_int_equal(f->state[1], COORD_QUEUED); /* continues at the next start */
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    assert_int_equal(fx_count(f, COORD_ACTION_LOAD), 1);
    fx_destroy(f);
}

/* All workers have left, but the coordinator is still computing the last block itself. So a stop
 * waits for the step, which is not lost. */
static void test_stop_waits_for_a_block_computed_by_the_coordinator(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){.can_recompute = true});
    coord_job_info info = fx_info(1);
    info.shards = 1;
    info.audit = 1;
    fx_join_many(f, 1);
    fx_add(f, info);
    assert_non_null(fx_pull(f, 1));
    coord_event theirs = fx_result_of(f, &f->lease[1]);
    theirs.result.digest = 5;
    fx_send(f, (coord_event){.type = COORD_EVENT_WORKER_DRAIN, .worker = 1});
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    fx_send_result(f, theirs);
    const coord_action *compute = fx_last(f, COORD_ACTION_COMPUTE);
    assert_non_null(compute);
    coord_event ours = fx_result_of(f, compute);
    ours.result.digest = 5;
    fx_tick(f, 100);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 0);
    fx_send(f, ours);
    assert_int_equal(f->checkpoint[1].step, 1);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    fx_destroy(f);
}

static void test_stop_of_an_idle_core_is_immediate(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1); /* once */
    fx_destroy(f);
}

static void test_stop_waits_for_a_load_and_does_not_train(void **state) {
    (void)state;
    fixture *f = fx_create((coord_core_config){0});
    f->hold_load = true;
    fx_join(f, 1, 1, 7);
    fx_add(f, fx_info(1));
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 0);
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_LOADED, .job = 1});
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    assert_null(fx_pull(f, 1));
    fx_destroy(f);
}

static void test_stop_without_workers_sets_the_step_aside(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    fx_work_to(f, 1, 1, 3);
    fx_pull(f, 1);
    fx_gone(f, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    assert_int_equal(f->checkpoint[1].step, 3);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    fx_destroy(f);
}

static void test_stop_waits_only_a_limited_time_for_a_hanging_worker(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    fx_pull(f, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    fx_tick(f, 5000);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 0);
    fx_tick(f, 6000);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    fx_destroy(f);
}

static void test_stop_keeps_a_pause(void **state) {
    (void)state;
    fixture *f = start(1, fx_info(1));
    fx_pull(f, 1);
    fx_job_event(f, COORD_EVENT_JOB_PAUSE, 1);
    fx_send(f, (coord_event){.type = COORD_EVENT_STOP});
    fx_work_all(f, 1);
    assert_int_equal(f->state[1], COORD_PAUSED);
    assert_int_equal(fx_count(f, COORD_ACTION_STOPPED), 1);
    fx_destroy(f);
}

/* ---- memory ---- */

/* Each allocation fails once. The event must then be refused or postponed, and the core must work
 * afterwards. */
static void test_every_failed_allocation_leaves_the_core_consistent(void **state) {
    (void)state;
    for (uint64_t k = 1; k < 40; k++) {
        coord_core *core;
        coord_actions actions = {0};
        assert_int_equal(coord_core_create(&(coord_core_config){0}, &core), COP_OK);
        cop_alloc_fail_at(k);
        bool loaded = false;
        for (uint64_t i = 1; i <= 20; i++) {
            coord_event joined = {.type = COORD_EVENT_WORKER_JOINED, .worker = i};
            coord_event added = {.type = COORD_EVENT_JOB_ADDED, .info = fx_info(i)};
            while (coord_core_step(core, &joined, 1, &actions)) continue;
            while (coord_core_step(core, &added, 1, &actions)) continue;
            for (uint32_t a = 0; a < actions.count; a++)
                loaded = loaded || (actions.items[a].type == COORD_ACTION_LOAD && i == 1);
            if (i == 1 && !loaded) { /* postponed until the next event */
                coord_event tick = {.type = COORD_EVENT_TICK};
                assert_int_equal(coord_core_step(core, &tick, 1, &actions), COP_OK);
                assert_int_equal(actions.items[0].type, COORD_ACTION_LOAD);
                loaded = true;
            }
        }
        cop_alloc_fail_at(0);
        assert_true(loaded);
        assert_int_equal(coord_core_worker_count(core), 20);
        coord_core_destroy(core);
        coord_actions_fini(&actions);
    }
}

static void test_core_step_allocates_no_memory(void **state) {
    (void)state;
    fixture *f = start(3, with_evaluation());
    fx_work_to(f, 3, 1, 12);
    uint64_t before = cop_alloc_count();
    fx_work_to(f, 3, 1, 28);
    assert_int_equal(cop_alloc_count(), before);
    fx_destroy(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_runs_from_queue_to_completed),
        cmocka_unit_test(test_completed_only_after_the_final_weights_are_written),
        cmocka_unit_test(test_writing_final_weights_is_retried_until_it_succeeds),
        cmocka_unit_test(test_job_fails_when_the_final_weights_cannot_be_written_for_long),
        cmocka_unit_test(test_stop_does_not_wait_for_a_full_disk),
        cmocka_unit_test(test_failed_checkpoint_is_reported_and_training_continues),
        cmocka_unit_test(test_failed_load_fails_the_job_with_its_text),
        cmocka_unit_test(test_same_job_twice_is_refused),
        cmocka_unit_test(test_epoch_sums_are_equal_for_any_number_of_workers),
        cmocka_unit_test(test_epoch_counts_every_sample_once),
        cmocka_unit_test(test_incomplete_last_epoch_is_reported),
        cmocka_unit_test(test_dropped_last_batch_is_not_trained),
        cmocka_unit_test(test_resume_after_any_step_gives_the_same_sums),
        cmocka_unit_test(test_evaluation_after_every_epoch_and_at_the_end),
        cmocka_unit_test(test_evaluation_every_second_epoch),
        cmocka_unit_test(test_evaluation_sums_its_slices_in_order),
        cmocka_unit_test(test_pause_does_not_wait_for_an_evaluation),
        cmocka_unit_test(test_evaluation_leases_are_slices_of_the_new_version),
        cmocka_unit_test(test_evaluation_results_keep_no_slot),
        cmocka_unit_test(test_requested_evaluation_runs_after_the_step),
        cmocka_unit_test(test_without_samples_nothing_is_evaluated),
        cmocka_unit_test(test_checkpoints_are_written_at_the_given_interval),
        cmocka_unit_test(test_training_goes_on_while_a_checkpoint_is_written_until_the_next_is_due),
        cmocka_unit_test(test_final_checkpoint_waits_for_a_running_one),
        cmocka_unit_test(test_evaluations_on_the_test_part_select_no_best_weights),
        cmocka_unit_test(test_best_weights_are_saved_at_the_evaluated_step),
        cmocka_unit_test(test_best_weights_without_classes_have_the_lowest_loss),
        cmocka_unit_test(test_loss_below_zero_can_be_the_best),
        cmocka_unit_test(test_best_weights_wait_for_a_running_checkpoint),
        cmocka_unit_test(test_best_error_of_an_earlier_run_counts),
        cmocka_unit_test(test_pause_takes_effect_within_a_step),
        cmocka_unit_test(test_paused_job_continues_after_resume),
        cmocka_unit_test(test_pause_without_workers_takes_effect_at_once),
        cmocka_unit_test(test_pause_of_a_queued_job_needs_no_load),
        cmocka_unit_test(test_resume_revokes_a_pause_before_it_takes_effect),
        cmocka_unit_test(test_pause_in_the_last_evaluation_does_not_skip_it),
        cmocka_unit_test(test_job_added_as_paused_waits),
        cmocka_unit_test(test_cancel_drops_results),
        cmocka_unit_test(test_cancel_during_an_update_leaves_the_gradients_to_the_host),
        cmocka_unit_test(test_cancel_during_a_load_unloads_when_it_is_done),
        cmocka_unit_test(test_cancel_of_a_queued_job),
        cmocka_unit_test(test_events_of_unknown_jobs_are_ignored),
        cmocka_unit_test(test_waiting_for_workers_does_not_count_as_training_time),
        cmocka_unit_test(test_evaluation_does_not_count_as_training_time),
        cmocka_unit_test(test_timeout_fails_a_running_job),
        cmocka_unit_test(test_timeout_counts_the_time_before_a_resume),
        cmocka_unit_test(test_timeout_does_not_count_waits_for_workers),
        cmocka_unit_test(test_stop_finishes_the_step_and_saves),
        cmocka_unit_test(test_stop_waits_for_a_block_computed_by_the_coordinator),
        cmocka_unit_test(test_stop_of_an_idle_core_is_immediate),
        cmocka_unit_test(test_stop_waits_for_a_load_and_does_not_train),
        cmocka_unit_test(test_stop_without_workers_sets_the_step_aside),
        cmocka_unit_test(test_stop_waits_only_a_limited_time_for_a_hanging_worker),
        cmocka_unit_test(test_stop_keeps_a_pause),
        cmocka_unit_test(test_every_failed_allocation_leaves_the_core_consistent),
        cmocka_unit_test(test_core_step_allocates_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
