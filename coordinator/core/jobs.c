/* The life of a job: added, loaded, paused, canceled, saved, ended. Every LOAD is answered by
 * JOB_LOADED or JOB_FAILED, and a job whose weights were loaded is unloaded exactly once. At most
 * one checkpoint of a job is in progress. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/injected_bugs.h"
#include "coordinator/core/core_state.h"

/* steps that still run this long after STOP are abandoned, in ns */
#define STOP_PATIENCE_NS 10000000000u
#define SAVE_AGAIN_NS    1000000000u

/* ---- look-up, memory ---- */

static uint32_t position(const coord_core *core, uint64_t job) {
    uint32_t low = 0, high = core->job_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (core->jobs[middle]->info.job < job)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

core_job *jobs_find(const coord_core *core, uint64_t job) {
    uint32_t at = position(core, job);
    return at < core->job_count && core->jobs[at]->info.job == job ? core->jobs[at] : NULL;
}

bool jobs_is_evaluation(const core_job *job) {
    return job->info.kind != COORD_TRAINING;
}

static void release(core_job *job) {
    round_fini(&job->round);
    cop_free(job->blocks);
    cop_free(job->plan);
    job->blocks = NULL;
    job->plan = NULL;
    job->plan_count = 0;
}

static void remove_job(coord_core *core, core_job *job) {
    uint32_t at = position(core, job->info.job);
    COP_ASSERT(core->jobs[at] == job && job->phase == PHASE_IDLE);
    scheduler_note_unqueued(core, job);
    core->job_count--;
    memmove(&core->jobs[at], &core->jobs[at + 1], (core->job_count - at) * sizeof *core->jobs);
    release(job);
    cop_free(job->contributors);
    cop_free(job);
}

void jobs_destroy(coord_core *core) {
    for (uint32_t i = 0; i < core->job_count; i++) {
        release(core->jobs[i]);
        cop_free(core->jobs[i]->contributors);
        cop_free(core->jobs[i]);
    }
    cop_free(core->jobs);
    cop_free(core->queue);
}

/* ---- residents ---- */

/* Largest number of blocks in a round of the job. */
static uint32_t blocks_of(const coord_job_info *info) {
    uint32_t slices = (info->evaluate_samples + COP_EVAL_SLICE - 1) / COP_EVAL_SLICE;
    if (info->kind == COORD_ENSEMBLE) return info->window;
    return slices > info->shards ? slices : info->shards;
}

cop_err jobs_make_resident(coord_core *core, core_job *job) {
    uint32_t shards = job->info.shards;
    COP_ASSERT(job->phase == PHASE_IDLE);
    COP_ASSERT(core->resident_count < core->config.jobs_running_max + core->config.evaluations_max);
    job->blocks = cop_alloc_array(shards, sizeof *job->blocks);
    job->plan = cop_alloc_array(shards, sizeof *job->plan);
    bool reserved = !round_reserve(&job->round, blocks_of(&job->info));
    if (!job->contributors)
        job->contributors = cop_alloc_array(CONTRIBUTORS_MAX, sizeof *job->contributors);
    if (!job->blocks || !job->plan || !job->contributors || !reserved) {
        release(job);
        return COP_ERR_NO_MEMORY;
    }
    scheduler_note_unqueued(core, job);
    job->phase = PHASE_LOADING;
    core->resident[core->resident_count++] = job;
    core->evaluation_count += jobs_is_evaluation(job);
    return COP_OK;
}

/* Frees the job's place among the resident jobs. `loaded`: the host holds the job's data and
 * weights, so UNLOAD is appended. */
static void leave_residents(coord_core *core, core_job *job, bool loaded) {
    uint32_t at = 0;
    while (at < core->resident_count && core->resident[at] != job) at++;
    COP_ASSERT(at < core->resident_count);
    core->resident_count--;
    core->evaluation_count -= jobs_is_evaluation(job);
    memmove(&core->resident[at], &core->resident[at + 1],
            (core->resident_count - at) * sizeof *core->resident);
    release(job);
    job->phase = PHASE_IDLE;
    if (loaded) core_add_action(core, COORD_ACTION_UNLOAD, job->info.job);
}

/* ---- states ---- */

static void set_state(coord_core *core, core_job *job, coord_job_state state, const char *text) {
    job->info.state = state;
    coord_action *a = core_add_action(core, COORD_ACTION_STATE, job->info.job);
    a->state = state;
    a->step = job->step;
    snprintf(core_action_text(core, a), COORD_TEXT_MAX, "%s", text ? text : "");
}

void jobs_end(coord_core *core, core_job *job, coord_job_state state, const char *text) {
    if (steps_has_leases(job) || job->phase == PHASE_DIVERGED) steps_drop_round(core, job);
    /* During an update the host owns the gradients, and releases them when the update is done. */
    scheduler_note_unqueued(core, job);
    set_state(core, job, state, text);
    if (job->phase == PHASE_LOADING) {
        job->ended = true; /* the host is still loading it; jobs_on_event removes it afterwards */
        return;
    }
    if (job->phase != PHASE_IDLE) leave_residents(core, job, true);
    remove_job(core, job);
}

/* ---- checkpoints, leaving ---- */

void jobs_save(coord_core *core, core_job *job, bool final) {
    COP_ASSERT(!job->saving);
    coord_action *a = core_add_action(core, COORD_ACTION_CHECKPOINT, job->info.job);
    a->step = job->step;
    a->checkpoint.loss_sum = job->loss_sum;
    a->checkpoint.samples = job->samples;
    a->checkpoint.correct = job->correct;
    a->checkpoint.seconds = job->seconds;
    a->checkpoint.best_error = job->best_error;
    a->checkpoint.has_best = job->has_best;
    a->checkpoint.best = job->is_best;
    a->checkpoint.final = final;
    job->saving = true;
    job->saving_final = final;
    job->saving_best = job->is_best;
    job->saved_step = job->step;
    job->is_best = false;
}

static void finish_leaving(coord_core *core, core_job *job, const char *text) {
    COP_ASSERT(job->phase == PHASE_SAVING && job->after_save != COORD_COMPLETED);
    set_state(core, job, job->after_save, text);
    leave_residents(core, job, true);
    job->pause = job->evaluate_asked = false;
    if (job->info.state == COORD_QUEUED) scheduler_note_queued(core, job);
}

void jobs_save_and_leave(coord_core *core, core_job *job, coord_job_state after) {
    COP_ASSERT(job->phase != PHASE_IDLE && job->phase != PHASE_UPDATING);
    job->phase = PHASE_SAVING;
    job->after_save = after;
    if (job->saving) return; /* on_checkpointed continues */
    bool saved = job->saved_step == job->step && !job->is_best;
    if (after != COORD_COMPLETED && saved)
        finish_leaving(core, job, NULL);
    else
        jobs_save(core, job, after == COORD_COMPLETED);
}

/* Called when the final weights could not be written. The disk may get space again, so the job
 * fails only after attempts for save_patience_ns. */
static void final_save_failed(coord_core *core, core_job *job, const char *text, uint64_t now) {
    if (!job->save_failed_ns) job->save_failed_ns = now;
    if (core->stopping) { /* the next run of the program tries again */
        job->after_save = job->pause ? COORD_PAUSED : COORD_QUEUED;
        finish_leaving(core, job, text);
    } else if (now - job->save_failed_ns >= core->config.save_patience_ns) {
        jobs_end(core, job, COORD_FAILED, text);
    } else {
        job->save_again_ns = now + SAVE_AGAIN_NS;
    }
}

/* The last checkpoint before leaving has ended, successfully or not. */
static void last_save_ended(coord_core *core, core_job *job, const coord_event *e, bool final,
                            uint64_t now) {
    char text[256] = "";
    bool completes = job->after_save == COORD_COMPLETED;
    if (e->step != job->step || (completes && !final)) { /* the checkpoint was not the last one */
        job->saved_step = e->step == job->step && e->ok ? e->step : UINT64_MAX;
        jobs_save_and_leave(core, job, job->after_save);
        return;
    }
    if (!e->ok)
        snprintf(text, sizeof text, "cannot write the %s: %s",
                 completes ? "final weights" : "last checkpoint", e->text ? e->text : "no reason");
    if (!completes)
        finish_leaving(core, job, text);
    else if (e->ok)
        jobs_end(core, job, COORD_COMPLETED, text);
    else
        final_save_failed(core, job, text, now);
}

static void on_checkpointed(coord_core *core, core_job *job, const coord_event *e, uint64_t now) {
    bool final = job->saving_final;
    if (!job->saving) return;
    job->saving = job->saving_final = false;
    if (!e->ok) {
        job->saved_step = UINT64_MAX;
        if (job->phase == PHASE_SAVING && e->step == job->step)
            job->is_best = job->is_best || job->saving_best;
        if (!job->save_failed_ns) /* logs one line for all attempts */
            core_report(core, job->info.job, false, "cannot write the checkpoint of step %llu: %s",
                        (unsigned long long)e->step, e->text ? e->text : "no reason given");
    }
    if (job->rollback_to && job->phase != PHASE_UPDATING && job->phase != PHASE_LOADING)
        jobs_roll_back(core, job, job->rollback_to - 1);
    else if (job->phase == PHASE_SAVING)
        last_save_ended(core, job, e, final, now);
    else if (job->phase == PHASE_HOLDING)
        steps_continue(core, job, now);
}

/* ---- added ---- */

/* Data and weights are loaded: the job takes its part of the pool. */
static void start(coord_core *core, core_job *job, uint64_t now) {
    job->run_began_ns = now;
    job->idle_since_ns = 0;
    job->timed_seconds = 0;
    job->timed_samples = 0;
    /* It starts with the smallest share of all jobs, so that it starves nobody. */
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < core->resident_count; i++) {
        const core_job *other = core->resident[i];
        if (other != job && other->phase != PHASE_LOADING && other->share < least)
            least = other->share;
    }
    job->share = least == UINT64_MAX ? 0 : least;
    if (!job->pause) set_state(core, job, COORD_RUNNING, NULL); /* else it is PAUSED in a moment */
    scheduler_report_pinned(core, job);
    if (jobs_is_evaluation(job))
        steps_begin_evaluation(core, job);
    else
        steps_begin(core, job, now);
}

static void check_info(const coord_job_info *info) {
    COP_ASSERT(info->job && info->shards && info->shards <= COP_SHARDS_MAX && info->batch);
    COP_ASSERT(info->steps && info->steps_per_epoch && info->train_samples);
    COP_ASSERT(info->state == COORD_QUEUED || info->state == COORD_PAUSED);
    COP_ASSERT(info->kind == COORD_TRAINING || info->evaluate_samples);
    COP_ASSERT(info->kind != COORD_ENSEMBLE ||
               (info->members && info->lease_members && info->window));
}

static cop_err reserve(coord_core *core) {
    if (core->job_count < core->job_capacity) return COP_OK;
    uint32_t capacity = core->job_capacity ? core->job_capacity * 2 : 16;
    core_job **queue = cop_realloc(core->queue, capacity * sizeof *queue);
    if (!queue) return COP_ERR_NO_MEMORY;
    core->queue = queue;
    core_job **jobs = cop_realloc(core->jobs, capacity * sizeof *jobs);
    if (!jobs) return COP_ERR_NO_MEMORY;
    core->jobs = jobs;
    core->job_capacity = capacity;
    return COP_OK;
}

static cop_err create(coord_core *core, const coord_job_info *info, core_job **out) {
    core_job *job = cop_alloc(sizeof *job);
    if (!job) return COP_ERR_NO_MEMORY;
    job->info = *info;
    job->phase = PHASE_IDLE;
    job->fingerprint = info->fingerprint;
    if (jobs_is_evaluation(job)) { /* the sums describe training */
        job->info.batch = job->info.shards = job->info.train_samples = 1;
        job->info.steps = job->info.steps_per_epoch = 1;
    }
    check_info(&job->info);
    if (jobs_is_evaluation(job) && jobs_make_resident(core, job)) {
        cop_free(job->contributors);
        cop_free(job);
        return COP_ERR_NO_MEMORY;
    }
    *out = job;
    return COP_OK;
}

cop_err jobs_add(coord_core *core, const coord_event *e, uint64_t now) {
    const coord_job_info *info = &e->info;
    uint32_t at = position(core, info->job);
    core_job *job;
    bool evaluation = info->kind != COORD_TRAINING;
    if (at < core->job_count && core->jobs[at]->info.job == info->job) return COP_ERR_EXISTS;
    if (core->job_count >= COP_JOBS_MAX) return COP_ERR_LIMIT;
    if (evaluation && core->evaluation_count >= core->config.evaluations_max) return COP_ERR_LIMIT;
    COP_TRY(reserve(core));
    COP_TRY(create(core, info, &job));
    memmove(&core->jobs[at + 1], &core->jobs[at], (core->job_count - at) * sizeof *core->jobs);
    core->jobs[at] = job;
    core->job_count++;
    if (evaluation)
        start(core, job, now);
    else if (info->state == COORD_QUEUED)
        scheduler_note_queued(core, job);
    return COP_OK;
}

/* ---- back to a checkpoint ---- */

void jobs_roll_back(coord_core *core, core_job *job, uint64_t step) {
    bool sooner = !job->rollback_to || step + 1 < job->rollback_to;
    if (sooner) job->rollback_to = step + 1;
    if (job->phase == PHASE_IDLE || job->phase == PHASE_LOADING) return; /* take_loaded reloads */
    if (job->phase == PHASE_UPDATING) return; /* steps_on_updated does the rest */
    if (job->phase == PHASE_DIVERGED) return; /* on_failed does the rest */
    if (steps_has_leases(job)) steps_drop_round(core, job);
    job->phase = PHASE_HOLDING;
    if (job->saving) return; /* on_checkpointed does the rest */
    job->phase = PHASE_LOADING;
    job->returning = true;
    job->counts.rollbacks++;
    core_report(
        core, job->info.job, false,
        "rolling back to a checkpoint of step %llu or earlier: results after it cannot be trusted",
        (unsigned long long)(job->rollback_to - 1));
    core_add_action(core, COORD_ACTION_ROLLBACK, job->info.job)->step = job->rollback_to - 1;
}

/* ---- events ---- */

/* Takes the step and the sums of the checkpoint that was loaded. True: the job continues from
 * there. False: it must return to an earlier checkpoint. */
static bool take_loaded(coord_core *core, core_job *job, const coord_event *e) {
    job->step = job->saved_step =
        COP_INJECT_BUG(RESUME_WRONG, 0, e->loaded.step > 0) + e->loaded.step;
    job->loss_sum = e->loaded.loss_sum;
    job->samples = e->loaded.samples;
    job->correct = e->loaded.correct;
    job->seconds = e->loaded.seconds;
    job->best_error = e->loaded.best_error;
    job->has_best = job->info.keep_best && e->loaded.has_best;
    job->is_best = false;
    job->save_failed_ns = job->save_again_ns = 0;
    audit_forget_after(job, job->step);
    if (!job->rollback_to) return true;
    uint64_t max_step = job->rollback_to - 1;
    if (job->step <= max_step) {
        job->rollback_to = 0;
        job->history++;
        return true;
    }
    job->phase = PHASE_HOLDING; /* another liar was found while it was loading */
    jobs_roll_back(core, job, max_step);
    return false;
}

static void on_loaded(coord_core *core, core_job *job, const coord_event *e, uint64_t now) {
    if (job->phase != PHASE_LOADING) return;
    if (job->ended) {
        leave_residents(core, job, true);
        remove_job(core, job);
        return;
    }
    bool returned = job->returning;
    job->returning = false;
    if (!take_loaded(core, job, e)) return;
    if (returned) {
        core_report(core, job->info.job, true, "continuing from step %llu",
                    (unsigned long long)job->step);
        steps_begin(core, job, now);
        return;
    }
    job->seconds_loaded = job->seconds;
    start(core, job, now);
}

static void on_failed(coord_core *core, core_job *job, const char *text) {
    if (job->phase == PHASE_DIVERGED && job->rollback_to) { /* wrong results spoiled the weights */
        steps_drop_round(core, job);
        jobs_roll_back(core, job, job->rollback_to - 1);
        return;
    }
    if (job->phase == PHASE_LOADING) {
        if (!job->ended) set_state(core, job, COORD_FAILED, text);
        leave_residents(core, job, false); /* the host kept nothing */
        remove_job(core, job);
        return;
    }
    jobs_end(core, job, COORD_FAILED, text);
}

static void on_pause(coord_core *core, core_job *job) {
    if (jobs_is_evaluation(job)) return;
    if (job->phase == PHASE_IDLE) {
        if (job->info.state == COORD_PAUSED) return;
        scheduler_note_unqueued(core, job);
        set_state(core, job, COORD_PAUSED, NULL);
        return;
    }
    if (COP_INJECT_BUG(LOSE_PAUSE, false, job->phase == PHASE_UPDATING)) return;
    job->pause = true;                    /* in a step: steps_continue acts on it */
    if (job->phase == PHASE_EVALUATING) { /* the evaluation is repeated when the job continues */
        steps_drop_round(core, job);
        jobs_save_and_leave(core, job, COORD_PAUSED);
    }
    if (job->phase == PHASE_SAVING && job->after_save == COORD_QUEUED)
        job->after_save = COORD_PAUSED;
}

static void on_resume(coord_core *core, core_job *job) {
    job->pause = false;
    if (job->phase == PHASE_IDLE && job->info.state == COORD_PAUSED) {
        set_state(core, job, COORD_QUEUED, NULL);
        scheduler_note_queued(core, job);
    }
    if (job->phase == PHASE_SAVING && job->after_save == COORD_PAUSED)
        job->after_save = COORD_QUEUED;
}

void jobs_on_event(coord_core *core, core_job *job, const coord_event *e, uint64_t now) {
    bool about_loading = e->type == COORD_EVENT_JOB_LOADED || e->type == COORD_EVENT_JOB_FAILED;
    if (job->ended && !about_loading) return;
    switch (e->type) {
    case COORD_EVENT_JOB_LOADED:
        on_loaded(core, job, e, now);
        break;
    case COORD_EVENT_JOB_FAILED:
        on_failed(core, job, e->text ? e->text : "failed");
        break;
    case COORD_EVENT_JOB_PAUSE:
        on_pause(core, job);
        break;
    case COORD_EVENT_JOB_RESUME:
        on_resume(core, job);
        break;
    case COORD_EVENT_JOB_CANCEL:
        jobs_end(core, job, COORD_CANCELED, e->text);
        break;
    case COORD_EVENT_JOB_EVALUATE:
        job->evaluate_asked =
            job->phase != PHASE_IDLE && job->info.evaluate_samples > 0 && !jobs_is_evaluation(job);
        break;
    case COORD_EVENT_UPDATED:
        steps_on_updated(core, job, e, now);
        break;
    case COORD_EVENT_CHECKPOINTED:
        on_checkpointed(core, job, e, now);
        break;
    case COORD_EVENT_ABSORBED:
        steps_on_absorbed(core, job);
        break;
    default:
        COP_ASSERT(!"an event about a job");
    }
}

/* ---- time ---- */

void jobs_retry_saves(coord_core *core, uint64_t now) {
    for (uint32_t i = core->resident_count; i-- > 0;) {
        core_job *job = core->resident[i];
        if (!job->save_again_ns || job->phase != PHASE_SAVING) continue;
        if (now < job->save_again_ns && !core->stopping) continue;
        job->save_again_ns = 0;
        if (core->stopping)
            final_save_failed(core, job, "cannot write the final weights", now);
        else
            jobs_save_and_leave(core, job, COORD_COMPLETED);
    }
}

void jobs_end_expired(coord_core *core, uint64_t now) {
    for (uint32_t i = core->resident_count; i-- > 0;) {
        core_job *job = core->resident[i];
        if (!job->info.timeout_ns || job->info.state != COORD_RUNNING) continue;
        if (job->phase == PHASE_SAVING || job->phase == PHASE_DIVERGED) continue;
        /* Waits for workers do not count: see steps_note_idle_time. */
        const uint64_t until = job->idle_since_ns ? job->idle_since_ns : now;
        double spent = job->seconds_loaded + (double)(until - job->run_began_ns) * 1e-9;
        double limit = (double)job->info.timeout_ns * 1e-9;
        char text[128];
        snprintf(text, sizeof text, "limits.timeout has expired (%.17g s)", limit);
        if (spent > limit) jobs_end(core, job, COORD_FAILED, text);
    }
}

void jobs_set_aside_stranded(coord_core *core, uint64_t now) {
    bool out_of_patience = core->stopping && now - core->stop_began_ns > STOP_PATIENCE_NS;
    for (uint32_t i = core->resident_count; i-- > 0;) {
        core_job *job = core->resident[i];
        if (jobs_is_evaluation(job)) {
            if (job->spoiled)
                jobs_end(core, job, COORD_FAILED,
                         "a worker that computed a part of it returned wrong results: repeat the "
                         "request");
            else if (core->stopping)
                jobs_end(core, job, COORD_CANCELED, "the coordinator is stopping");
            continue;
        }
        if (!steps_has_leases(job)) continue;
        if (!job->pause && !core->stopping && !scheduler_should_yield(core, job)) continue;
        /* A block that the coordinator itself computes will be done even without workers. */
        bool nobody = round_holders(&job->round, 0) == 0 && !round_is_recomputed(&job->round) &&
                      scheduler_eligible_workers(core, job) == 0;
        if (!nobody && !out_of_patience) continue;
        steps_drop_round(core, job);
        jobs_save_and_leave(core, job, job->pause ? COORD_PAUSED : COORD_QUEUED);
    }
}
