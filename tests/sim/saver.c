/* Checkpoints: the thread of coordinator/engine/saver.c in virtual time, with the real
 * cop_checkpoint_save and cop_checkpoint_load on the model of a disk. The simulator's weights (two
 * words of 64 bits) are stored as small whole numbers in a small model, four floats per word. */
#include "sim/sim.h"

#include <stdio.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/wire/codec.h"

#define FLOATS 4

/* ---- a small job, created once ---- */

static const char job_text[] = "name: sim\n"
                               "data: {source: synthetic-digits}\n"
                               "model:\n"
                               "  - linear: {units: 2}\n"
                               "train: {steps: 100000, batch: 2, shards: 1}\n"
                               "optimizer: {sgd: {rate: 0.1, momentum: 0.9}}\n";

static cop_job *make_job(void) {
    static const uint8_t samples[4] = {0};
    static const int32_t labels[4] = {0, 1, 0, 1};
    cop_data_part part = {.type = COP_DATA_U8,
                          .rank = 1,
                          .dims = {1},
                          .count = 4,
                          .stride = 1,
                          .samples = samples,
                          .labels = labels};
    cop_data data = {.name = "sim", .classes = 2, .train = part, .test = part};
    cop_error error = {0};
    Coppice__Job *message = NULL;
    cop_job *job = NULL;
    if (cop_document_parse_job(job_text, strlen(job_text), "sim", &message, &error) ||
        cop_job_create(message, &data, &job, &error)) {
        fprintf(stderr, "sim: %s\n", error.text);
        abort();
    }
    return job;
}

static const cop_job *base_job(void) {
    static cop_job *job;
    if (!job) {
        sim_memory_permanent(true);
        job = make_job();
        sim_memo_set(&job->message->base);
        sim_memory_permanent(false);
    }
    return job;
}

static cop_job job_of(const sim_spec *spec) {
    cop_job job = *base_job();
    job.steps = spec->info.steps;
    job.checkpoint_keep = spec->keep;
    return job;
}

/* ---- words as floats ---- */

/* The address of a float by its index among the floats of all parameters. They are not contiguous
 * in `flat`, which has gaps between parameters. */
static float *float_at(const cop_model *model, float *flat, int index) {
    for (int i = 0; i < cop_model_parameter_count(model); i++) {
        const cop_parameter *p = cop_model_parameter(model, i);
        if (index < p->count) return flat + p->offset + index;
        index -= (int)p->count;
    }
    COP_ASSERT(!"a model of four floats");
    return NULL;
}

static void put_word(const cop_job *job, uint64_t word, float *flat) {
    for (int i = 0; i < FLOATS; i++)
        *float_at(job->model, flat, i) = (float)(word >> 16 * i & 0xffff);
}

static uint64_t take_word(const cop_job *job, float *flat) {
    uint64_t word = 0;
    for (int i = 0; i < FLOATS; i++) word |= (uint64_t)*float_at(job->model, flat, i) << 16 * i;
    return word;
}

static float *new_flat(const cop_job *job) {
    float *flat = cop_alloc((size_t)cop_model_floats(job->model) * sizeof *flat);
    COP_ASSERT(flat != NULL);
    return flat;
}

static void folder_of(uint64_t job, char out[32]) {
    snprintf(out, 32, "/sim/jobs/%llu", (unsigned long long)job);
}

/* ---- writing ---- */

void sim_saver_submit(sim *s, const coord_action *action) {
    sim_host *h = &s->host;
    if (h->save_count == h->save_capacity) {
        h->save_capacity = h->save_capacity ? h->save_capacity * 2 : 8;
        h->saves = cop_realloc(h->saves, h->save_capacity * sizeof *h->saves);
        COP_ASSERT(h->saves != NULL);
    }
    h->saves[h->save_count++] =
        (sim_save){.job = action->job, .version = h->resident[action->job], .action = *action};
    sim_saver_wake(s);
}

/* The saver takes the next waiting checkpoint, if it is idle. Before it writes the checkpoint, it
 * waits until the store has committed everything that was reported earlier. */
void sim_saver_wake(sim *s) {
    sim_host *h = &s->host;
    if (h->saver_busy || !h->save_count) return;
    h->saver_busy = true;
    sim_store_write(s, &(sim_write){.kind = SIM_BARRIER});
}

void sim_saver_flushed(sim *s, bool failed) {
    sim_post(s, 0, (sim_event){.kind = SIM_SAVE, .life = s->host.life, .value = failed});
}

static cop_err write_files(sim *s, const sim_save *save, cop_error *error) {
    cop_job job = job_of(&s->specs[save->version.spec]);
    char folder[32];
    float *weights = new_flat(&job), *momentum = new_flat(&job);
    const coord_action *a = &save->action;
    cop_checkpoint c = {.step = save->version.step,
                        .weights = weights,
                        .states = {momentum},
                        .train_loss_sum = a->checkpoint.loss_sum,
                        .train_samples = a->checkpoint.samples,
                        .train_correct = a->checkpoint.correct,
                        .seconds = a->checkpoint.seconds,
                        .best_error = a->checkpoint.best_error,
                        .has_best = a->checkpoint.has_best,
                        .is_best = a->checkpoint.best};
    put_word(&job, save->version.weights, weights);
    put_word(&job, save->version.momentum, momentum);
    folder_of(save->job, folder);
    cop_err e = cop_checkpoint_save(&job, folder, &c, error);
    if (!e && a->checkpoint.final) {
        char *path = cop_path_join(folder, "model.safetensors");
        e = cop_job_save_model(&job, weights, c.step, path, error);
        cop_free(path);
    }
    cop_free(weights);
    cop_free(momentum);
    return e;
}

void sim_saver_run(sim *s, bool behind) {
    sim_host *h = &s->host;
    sim_save save = h->saves[0];
    cop_error error = {0};
    memmove(h->saves, h->saves + 1, --h->save_count * sizeof *h->saves);
    sim_disk_begin(s->disk, s->now);
    bool pinned = s->specs[save.version.spec].info.pin_first;
    cop_err e = behind && pinned ? cop_fail(&error, COP_ERR_NO_SPACE, "the store is behind")
                                 : write_files(s, &save, &error);
    uint64_t end = sim_disk_end(s->disk);
    sim_host_die_within(s, &h->crash_save, end - s->now);
    if (e) sim_trace(s, "job %llu: %s", (unsigned long long)save.job, error.text);
    coord_event *event = cop_alloc(sizeof *event);
    COP_ASSERT(event != NULL);
    *event = (coord_event){.type = COORD_EVENT_CHECKPOINTED,
                           .job = save.job,
                           .step = save.version.step,
                           .ok = e == COP_OK,
                           .text = "it could not be written"};
    sim_post(s, end - s->now, (sim_event){.kind = SIM_SAVED, .life = h->life, .event = event});
}

/* Runs on the loop, while the saver already takes the next checkpoint. */
void sim_saved(sim *s, const coord_event *event) {
    if (event->ok) sim_check_saved(s, event->job, event->step);
    s->host.saver_busy = false;
    sim_saver_wake(s);
    sim_dispatch(s, event);
}

void sim_saver_finish(sim *s) {
    sim_host *h = &s->host;
    while (h->save_count) {
        sim_save save = h->saves[0];
        memmove(h->saves, h->saves + 1, --h->save_count * sizeof *h->saves);
        sim_disk_begin(s->disk, s->now);
        write_files(s, &save, NULL);
        sim_disk_end(s->disk);
    }
    sim_disk_settle(s->disk);
}

/* ---- reading ---- */

cop_err sim_read(sim *s, uint64_t id, uint64_t max_step, sim_resident *r, cop_checkpoint *c) {
    cop_job job = job_of(&s->specs[r->spec]);
    char folder[32];
    float *weights = new_flat(&job), *momentum = new_flat(&job);
    cop_error error = {0};
    cop_str notes = {0};
    folder_of(id, folder);
    sim_disk_begin(s->disk, s->now);
    cop_err e =
        cop_checkpoint_load(&job, &(cop_checkpoint_source){folder, max_step, &notes},
                            &(cop_checkpoint_buffers){weights, {momentum, NULL}}, c, &error);
    sim_disk_end(s->disk);
    if (notes.length) sim_trace(s, "job %llu: %s", (unsigned long long)id, cop_str_text(&notes));
    if (!e) {
        r->step = c->step;
        r->weights = take_word(&job, weights);
        r->momentum = take_word(&job, momentum);
    }
    cop_str_fini(&notes);
    cop_free(weights);
    cop_free(momentum);
    return e;
}

bool sim_has_model(sim *s, uint64_t id) {
    char path[64];
    snprintf(path, sizeof path, "/sim/jobs/%llu/model.safetensors", (unsigned long long)id);
    sim_disk_begin(s->disk, s->now);
    bool there = cop_file_exists(path);
    sim_disk_end(s->disk);
    return there;
}

/* Removes the checkpoints after the one to which the job returns, and has the job loaded
 * afterwards. If they cannot be removed, tries again after 1 s, as coordinator/engine/resident.c
 * does. */
static void undo(sim *s, uint64_t id) {
    sim_resident *r = &s->host.resident[id];
    char folder[32];
    cop_error error = {0};
    cop_checkpoint c = {0};
    cop_err e = sim_read(s, id, r->max_step, r, &c);
    c.has_best = true;
    folder_of(id, folder);
    /* From here on, a crash may leave all, some or none of the later checkpoints. */
    sim_check_discarded(s, id, e ? 0 : c.step);
    sim_disk_begin(s->disk, s->now);
    r->undone = !cop_checkpoint_discard_after(folder, e ? 0 : c.step, &c, &error);
    uint64_t end = sim_disk_end(s->disk);
    r->best_lost = r->best_lost || !c.has_best;
    if (!r->undone) sim_trace(s, "job %llu: %s", (unsigned long long)id, error.text);
    sim_post(s, end - s->now + (r->undone ? 0 : SIM_SECOND),
             (sim_event){.kind = SIM_LOADED, .life = s->host.life, .value = id});
}

void sim_load(sim *s, uint64_t id) {
    sim_resident *r = &s->host.resident[id];
    sim_spec *spec = &s->specs[r->spec];
    coord_event event = {.type = COORD_EVENT_JOB_LOADED, .job = id};
    cop_checkpoint c = {0};
    if (r->max_step != UINT64_MAX && !r->undone) {
        undo(s, id);
        return;
    }
    cop_err e = sim_read(s, id, r->max_step, r, &c);
    if (r->best_lost) c.has_best = false;
    SIM_CHECK(s, "checkpoints-load", !e || e == COP_ERR_NOT_FOUND, "job %llu: %s",
              (unsigned long long)id, cop_err_text(e));
    if (e) {
        c = (cop_checkpoint){0};
        r->step = r->momentum = 0;
        r->weights = sim_initial(spec);
    }
    r->loading = false;
    r->loaded = true;
    sim_check_loaded(s, id, r, &c);
    event.loaded.step = c.step;
    event.loaded.loss_sum = c.train_loss_sum;
    event.loaded.samples = c.train_samples;
    event.loaded.correct = c.train_correct;
    event.loaded.seconds = c.seconds;
    event.loaded.best_error = c.best_error;
    event.loaded.has_best = c.has_best;
    sim_dispatch(s, &event);
}
