/* The embedding of `coppice run`. It runs one job in this process, and keeps the job's progress for
 * the thread that waits for it. The number of the job is always 1. */
#include <math.h>
#include <stdio.h>

#include "coordinator/server/server.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "proto/api.pb-c.h"

#define RUN_JOB 1

struct coord_run {
    coord_mail mail; /* brings the submission to the loop; must be the first field */
    coord_server *server;
    cop_job *job;           /* the job to run; owned until the engine loads it, then NULL */
    cop_data *data;         /* owned until the job is loaded, then NULL */
    char *folder;           /* the run folder; NULL: there is none */
    bool resume;            /* continue from the newest checkpoint in the folder */
    uint64_t timeout_ns;    /* the job fails after this time without workers; 0: never */
    uint64_t idle_since_ns; /* when the job last had a worker, or when it began */
    uint64_t submitted_ns;
    coord_job_info info;
    coord_resident *resident; /* where the job is in memory; NULL until it begins to load */
    /* used by the load or rollback that is running */
    uv_work_t load;
    uint64_t max_step;    /* of a rollback: it returns to a checkpoint of at most this step */
    cop_checkpoint start; /* where the loaded job continues */
    cop_str notes;        /* lines for the log */
    cop_error load_error; /* error of the load or rollback */
    /* used by the loop thread */
    double epoch_loss_sum;  /* sum of the losses of the samples trained so far in the current
                               epoch */
    uint64_t epoch_samples; /* how many samples epoch_loss_sum contains */
    /* used by the thread that waits for the run */
    coord_mail interrupt_mail;
    bool interrupted; /* interrupt_mail was posted */
    /* shared by these threads, guarded by the mutex */
    uv_mutex_t mutex;
    uv_cond_t changed;
    bool dirty; /* the progress has changed since coord_run_progress last read it */
    coord_progress progress;
};

/* Wakes the thread that waits for news. The caller holds the mutex. */
static void signal_change(struct coord_run *run) {
    run->dirty = true;
    uv_cond_signal(&run->changed);
}

/* ---- loading: the _work functions run on libuv's thread pool, all others on the loop ---- */

static void load_work(uv_work_t *work) {
    struct coord_run *run = work->data;
    COP_ASSERT(run->job && run->data);
    cop_job *job = run->job;
    cop_data *data = run->data;
    run->job = NULL;
    run->data = NULL;
    run->load_error.code = coord_resident_prepare(run->resident,
                                                  &(coord_start_at){.job = job,
                                                                    .data = data,
                                                                    .folder = run->folder,
                                                                    .resume = run->resume,
                                                                    .max_step = UINT64_MAX},
                                                  &run->start, &run->notes, &run->load_error);
}

/* Reports JOB_LOADED or JOB_FAILED to the core. */
static void load_done(uv_work_t *work, int status) {
    struct coord_run *run = work->data;
    coord_server *server = run->server;
    (void)status;
    const char *rest = cop_str_text(&run->notes);
    char line[1000];
    while (cop_take_line(&rest, line, sizeof line)) cop_log(COP_LOG_WARN, "run", "%s", line);
    if (run->load_error.code) {
        coord_resident_fini(run->resident);
        coord_event failed = {
            .type = COORD_EVENT_JOB_FAILED, .job = RUN_JOB, .text = run->load_error.text};
        coord_dispatch(&server->engine, &failed);
        return;
    }
    run->resident->id = RUN_JOB;
    coord_event loaded = {.type = COORD_EVENT_JOB_LOADED, .job = RUN_JOB};
    loaded.loaded.step = run->start.step;
    loaded.loaded.loss_sum = run->start.train_loss_sum;
    loaded.loaded.samples = run->start.train_samples;
    loaded.loaded.correct = run->start.train_correct;
    loaded.loaded.seconds = run->start.seconds;
    loaded.loaded.best_error = run->start.best_error;
    loaded.loaded.has_best = run->start.has_best;
    uv_mutex_lock(&run->mutex);
    run->progress.step = run->start.step;
    run->progress.epoch = (double)run->start.step / (double)run->info.steps_per_epoch;
    run->progress.seconds = run->start.seconds;
    if (run->start.train_samples) {
        run->progress.train_loss = run->start.train_loss_sum / (double)run->start.train_samples;
        run->progress.has_train_loss = true;
    }
    run->epoch_loss_sum = run->start.train_loss_sum;
    run->epoch_samples = run->start.train_samples;
    uv_mutex_unlock(&run->mutex);
    coord_dispatch(&server->engine, &loaded);
}

static void rollback_work(uv_work_t *work) {
    struct coord_run *run = work->data;
    run->load_error = (cop_error){0};
    run->load_error.code = coord_resident_return(run->resident, run->max_step, &run->start,
                                                 &run->notes, &run->load_error);
}

static void run_rollback(coord_engine *engine, uint64_t job, uint64_t max_step) {
    struct coord_run *run = coord_server_of(engine)->run;
    COP_ASSERT(job == RUN_JOB && run->resident != NULL);
    run->max_step = max_step;
    cop_str_fini(&run->notes);
    run->notes = (cop_str){0};
    run->load.data = run;
    uv_queue_work(&engine->loop, &run->load, rollback_work, load_done);
}

static void run_load(coord_engine *engine, uint64_t job, uint64_t max_step) {
    coord_server *server = coord_server_of(engine);
    struct coord_run *run = server->run;
    (void)max_step;
    COP_ASSERT(job == RUN_JOB && !run->resident);
    for (uint32_t i = 0; i < COORD_RESIDENT_MAX && !run->resident; i++)
        if (!server->engine.resident[i].id) run->resident = &server->engine.resident[i];
    COP_ASSERT(run->resident != NULL);
    run->load.data = run;
    uv_queue_work(&server->engine.loop, &run->load, load_work, load_done);
}

/* ---- progress: loop thread ---- */

static void note_metrics(struct coord_run *run, const coord_action *action, coord_progress *p) {
    double samples = (double)action->metrics.samples;
    switch (action->type) {
    case COORD_ACTION_METRICS:
        p->step = action->step;
        p->epoch = (double)action->step / (double)run->info.steps_per_epoch;
        p->seconds = action->metrics.seconds;
        if (!p->first_step_ms)
            p->first_step_ms = (cop_clock_ns() - run->submitted_ns) / 1000000 + 1;
        run->epoch_loss_sum += action->metrics.loss_sum;
        run->epoch_samples += action->metrics.samples;
        if (action->step <= run->info.steps_per_epoch &&
            run->epoch_samples) { /* in the first epoch, shows the mean so far */
            p->train_loss = run->epoch_loss_sum / (double)run->epoch_samples;
            p->has_train_loss = true;
        }
        break;
    case COORD_ACTION_EPOCH:
        if (samples > 0) p->train_loss = action->metrics.loss_sum / samples;
        p->has_train_loss = samples > 0;
        run->epoch_loss_sum = 0;
        run->epoch_samples = 0;
        break;
    case COORD_ACTION_EVALUATED:
        p->test_error = action->metrics.error;
        p->test_loss = action->metrics.loss_sum / samples;
        p->has_evaluation = true;
        p->has_error = !isnan(p->test_error);
        break;
    default:
        break;
    }
}

/* True: the run ends in this state. */
static bool is_final(coord_job_state state) {
    return state == COORD_COMPLETED || state == COORD_FAILED || state == COORD_CANCELED ||
           state == COORD_PAUSED;
}

static void run_note(coord_engine *engine, const coord_action *action, const char *digest,
                     const char *warning) {
    struct coord_run *run = coord_server_of(engine)->run;
    uv_mutex_lock(&run->mutex);
    coord_progress *p = &run->progress;
    if (action->type == COORD_ACTION_STATE) {
        p->state = (int)action->state;
        p->finished = is_final(action->state);
        if (*action->text) snprintf(p->text, sizeof p->text, "%s", action->text);
    } else if (action->type == COORD_ACTION_CHECKPOINT) {
        if (digest) snprintf(p->digest, sizeof p->digest, "%s", digest);
        if (*warning) snprintf(p->text, sizeof p->text, "%s", warning);
    } else {
        note_metrics(run, action, p);
    }
    /* coord_run_tick reports steps: waking a thread after each would take longer than a short
     * step. */
    if (action->type != COORD_ACTION_METRICS) signal_change(run);
    uv_mutex_unlock(&run->mutex);
}

/* Does nothing, because run_note and coord_run_tick signal the changes. */
static void run_changed(coord_engine *engine, uint64_t job) {
    (void)engine;
    (void)job;
}

static const coord_listener run_listener = {
    .load = run_load, .rollback = run_rollback, .note = run_note, .changed = run_changed};

void coord_run_tick(coord_server *server) {
    struct coord_run *run = server->run;
    coord_job_view view;
    uint64_t now = cop_clock_ns();
    if (!coord_core_job(server->engine.core, RUN_JOB, now, &view)) return;
    uint32_t workers = coord_core_worker_count(server->engine.core);
    uv_mutex_lock(&run->mutex);
    run->progress.workers = (int)workers;
    run->progress.leases_repeated = view.leases.repeated;
    run->progress.samples_per_s = view.samples_per_s;
    run->progress.eta_seconds = view.eta_seconds;
    bool finished = run->progress.finished;
    signal_change(run);
    uv_mutex_unlock(&run->mutex);
    if (workers || finished)
        run->idle_since_ns = now;
    else if (run->timeout_ns && now - run->idle_since_ns > run->timeout_ns) {
        coord_event failed = {.type = COORD_EVENT_JOB_FAILED,
                              .job = RUN_JOB,
                              .text = "no workers within the time limit"};
        coord_dispatch(&server->engine, &failed);
    }
}

/* ---- functions of coordinator.h; the _on_loop functions run on the loop thread ---- */

/* Hands the job to the core. */
static void submit_on_loop(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    struct coord_run *run = (struct coord_run *)mail;
    COP_ASSERT(!server->run && !server->engine.listener);
    coord_event added = {.type = COORD_EVENT_JOB_ADDED, .job = RUN_JOB, .info = run->info};
    run->idle_since_ns = cop_clock_ns();
    server->run = run;
    server->engine.listener = &run_listener;
    coord_dispatch(&server->engine, &added);
}

/* If the run in the folder continues and uses OpenBLAS, sets *fingerprint to what its job is pinned
 * to (0: not pinned yet); otherwise leaves it unchanged. INPUT: it is pinned to another OpenBLAS or
 * processor. */
static cop_err check_fingerprint(const coord_server *server, const cop_job *job,
                                 const coord_run_options *options, uint64_t *fingerprint,
                                 cop_error *error) {
    coord_store_job row;
    char own[128] = "";
    if (!options->resume || job->numerics != COP_NUMERICS_OPENBLAS) return COP_OK;
    const cop_err e = coord_store_get_job(server->engine.store, RUN_JOB, &row, error);
    if (e) return e == COP_ERR_NOT_FOUND ? COP_OK : e; /* a store without the job: it begins now */
    cop_buffer_release(row.spec);
    *fingerprint = row.fingerprint;
    cop_numerics_fingerprint(COP_NUMERICS_OPENBLAS, own);
    if (!*fingerprint || *fingerprint == cop_hash_xxh3(own, strlen(own))) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT,
                    "the run in %s is pinned to another OpenBLAS or processor than this machine's "
                    "(%s): resume it where it began, or start again in another folder (--out)",
                    options->folder, own);
}

/* Prepares the run folder: removes temporary files of programs that were killed, and opens the
 * store in it. */
static cop_err open_folder(coord_server *server, struct coord_run *run,
                           const coord_run_options *options, cop_error *error) {
    cop_folder_sweep(options->folder);
    run->folder = cop_strdup(options->folder);
    char *path = cop_path_join(options->folder, "metrics.sqlite");
    cop_err e = path && run->folder ? coord_store_open(path, &server->engine.store, error)
                                    : cop_no_memory(error);
    cop_free(path);
    return e;
}

/* Adds the job to the store of the run folder. */
static void store_job(coord_server *server, const cop_job *job, cop_buffer *spec,
                      uint64_t fingerprint) {
    const coord_store_submission row = {.job = RUN_JOB,
                                        .name = job->message->name,
                                        .data_digest = job->message->pinned->data_digest,
                                        .spec = spec};
    coord_store_add_job(server->engine.store, &row, NULL, NULL);
    if (fingerprint) coord_store_set_fingerprint(server->engine.store, RUN_JOB, fingerprint);
}

cop_err coord_run_submit(coord_server *server, cop_job *job, cop_data *data,
                         const coord_run_options *options, cop_error *error) {
    COP_ASSERT(!server->run_shared && !server->api);
    struct coord_run *run = cop_alloc(sizeof *run);
    cop_buffer *spec = options->folder ? cop_job_pack(job) : NULL;
    uint64_t fingerprint = 0;
    cop_err e = COP_OK;
    if (!run || (options->folder && !spec)) e = cop_no_memory(error);
    if (!e && options->folder) {
        e = open_folder(server, run, options, error);
        if (!e) e = check_fingerprint(server, job, options, &fingerprint, error);
    }
    if (e) {
        cop_buffer_release(spec);
        if (run) cop_free(run->folder);
        cop_free(run);
        cop_job_release(job);
        cop_data_destroy(data);
        return e;
    }
    uv_mutex_init(&run->mutex);
    uv_cond_init(&run->changed);
    run->job = job;
    run->data = data;
    run->server = server;
    run->resume = options->resume;
    run->timeout_ns = cop_seconds_to_ns(options->timeout_s);
    run->submitted_ns = cop_clock_ns();
    coord_job_info_make(job, RUN_JOB, COORD_QUEUED, &run->info);
    if (fingerprint) run->info.fingerprint = fingerprint;
    run->progress = (coord_progress){
        .steps = job->steps, .state = COORD_QUEUED, .evaluated_on_test = job->evaluate_on_test};
    if (server->engine.store) store_job(server, job, spec, fingerprint);
    cop_buffer_release(spec);
    server->run_shared = run;
    run->mail.run = submit_on_loop;
    coord_post(&server->engine, &run->mail);
    return COP_OK;
}

void coord_run_progress(coord_server *server, uint32_t wait_ms, coord_progress *out) {
    struct coord_run *run = server->run_shared;
    COP_ASSERT(run != NULL); /* coord_run_submit */
    uv_mutex_lock(&run->mutex);
    if (!run->dirty && wait_ms)
        uv_cond_timedwait(&run->changed, &run->mutex, (uint64_t)wait_ms * 1000000);
    run->dirty = false;
    *out = run->progress;
    uv_mutex_unlock(&run->mutex);
}

static void interrupt_on_loop(coord_engine *engine, coord_mail *mail) {
    coord_server *server = coord_server_of(engine);
    (void)mail;
    coord_event pause = {.type = COORD_EVENT_JOB_PAUSE, .job = RUN_JOB};
    coord_dispatch(&server->engine, &pause);
}

void coord_run_interrupt(coord_server *server) {
    struct coord_run *run = server->run_shared;
    COP_ASSERT(run != NULL); /* coord_run_submit */
    if (run->interrupted) return;
    run->interrupted = true;
    run->interrupt_mail.run = interrupt_on_loop;
    coord_post(&server->engine, &run->interrupt_mail);
}

void coord_run_destroy(struct coord_run *run) {
    if (run->job) cop_job_release(run->job);
    if (run->data) cop_data_destroy(run->data);
    cop_str_fini(&run->notes);
    cop_free(run->folder);
    uv_mutex_destroy(&run->mutex);
    uv_cond_destroy(&run->changed);
    cop_free(run);
}
