/* Lets a test drive the decision core step by step in virtual time. It contains
 * - a host, which answers LOAD, UPDATE, CHECKPOINT and ABSORB at once (unless the test holds them),
 * - workers, which have numbers,
 * - a history of all actions.
 * It checks what every host relies on: the core keeps or drops each offered slot exactly once, and
 * releases each kept slot exactly once, by an UPDATE, ABSORB, DROP or DIVERGED. */
#ifndef TESTS_CORE_FIXTURE_H
#define TESTS_CORE_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/core/core.h"

#define FX_WORKERS 1024
#define FX_JOBS    64
#define FX_SLOTS   400000
#define FX_MS      1000000ull
#define FX_SECOND  1000000000ull

typedef enum fx_slot { FX_FREE, FX_OFFERED, FX_KEPT, FX_RELEASED } fx_slot;

typedef struct fixture {
    coord_core *core;
    coord_actions actions;
    uint64_t now;          /* virtual time, ns */
    uint64_t next_slot;    /* the last slot number given */
    uint64_t next_request; /* the last request number given */
    /* If set, the host does not answer LOAD, UPDATE, CHECKPOINT or ABSORB. */
    bool hold_load, hold_update, hold_save, hold_absorb;
    bool fail_save;        /* the host answers that a checkpoint could not be written */
    bool timed;            /* the test measures time, so the core's invariants are not checked */
    coord_action *history; /* the actions since fx_forget */
    uint32_t count, capacity;
    char **texts; /* copies of the texts of all actions */
    uint32_t text_count;
    coord_action lease[FX_WORKERS]; /* the lease of each worker; type 0: none */
    uint64_t request[FX_WORKERS];   /* the held PULL of each worker; 0: none */
    coord_job_info info[FX_JOBS];
    coord_job_state state[FX_JOBS];
    uint64_t version[FX_JOBS];        /* unused */
    uint64_t loaded_step;             /* the host answers to LOAD: the step of the checkpoint, */
    double loaded_best;               /* and the best error so far; NaN: there is none */
    coord_action checkpoint[FX_JOBS]; /* by job: the newest CHECKPOINT action */
    uint8_t slots[FX_SLOTS];
    coord_event queue[256];
    uint32_t queued;
} fixture;

static inline void fx_send(fixture *f, coord_event event);

static inline fixture *fx_create(coord_core_config config) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->now = FX_SECOND;
    f->loaded_best = NAN;
    assert_int_equal(coord_core_create(&config, &f->core), COP_OK);
    return f;
}

static inline void fx_destroy(fixture *f) {
    for (uint64_t i = 1; i <= f->next_slot; i++)
        if (f->slots[i] == FX_OFFERED)
            fail_msg("slot %llu was never answered", (unsigned long long)i);
    coord_core_destroy(f->core);
    coord_actions_fini(&f->actions);
    for (uint32_t i = 0; i < f->text_count; i++) free(f->texts[i]);
    free(f->texts);
    free(f->history);
    free(f);
}

static inline void fx_forget(fixture *f) {
    f->count = 0;
}

/* ---- history ---- */

static inline uint32_t fx_count(const fixture *f, coord_action_type type) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < f->count; i++) count += f->history[i].type == type;
    return count;
}

/* The newest action of a type since fx_forget, or NULL. */
static inline const coord_action *fx_last(const fixture *f, coord_action_type type) {
    for (uint32_t i = f->count; i-- > 0;)
        if (f->history[i].type == type) return &f->history[i];
    return NULL;
}

static inline bool fx_reported(const fixture *f, const char *part) {
    for (uint32_t i = 0; i < f->count; i++)
        if (f->history[i].type == COORD_ACTION_EVENT && strstr(f->history[i].text, part))
            return true;
    return false;
}

/* ---- losses: that of a block is the sum of its shards' losses, in tree order ---- */

static inline double fx_leaf_loss(uint64_t step, uint32_t shard) {
    return 0.1 * (double)(shard + 1) + 0.37 * (double)step;
}

/* The loss of shards a to b - 1. Shards from `present` on have no samples. */
static inline double fx_tree_loss(uint64_t step, uint32_t a, uint32_t b, uint32_t present) {
    if (b - a == 1) return fx_leaf_loss(step, a);
    uint32_t left = 1;
    while (left * 2 < b - a) left *= 2;
    double sum = fx_tree_loss(step, a, a + left, present);
    return a + left < present ? sum + fx_tree_loss(step, a + left, b, present) : sum;
}

static inline uint32_t fx_slice_begin(uint32_t batch, uint32_t shards, uint32_t i) {
    return i * (batch / shards) + (i < batch % shards ? i : batch % shards);
}

/* ---- host ---- */

static inline void fx_answer(fixture *f, const coord_action *a) {
    coord_event e = {.job = a->job, .step = a->step, .ok = true};
    if (a->type == COORD_ACTION_LOAD && !f->hold_load) {
        e.type = COORD_EVENT_JOB_LOADED;
        e.loaded.step = f->loaded_step;
        e.loaded.best_error = f->loaded_best;
        e.loaded.has_best = !isnan(f->loaded_best);
    } else if (a->type == COORD_ACTION_UPDATE && !f->hold_update) {
        e.type = COORD_EVENT_UPDATED;
    } else if (a->type == COORD_ACTION_CHECKPOINT && !f->hold_save) {
        e.type = COORD_EVENT_CHECKPOINTED;
        e.ok = !f->fail_save;
        e.text = f->fail_save ? "disk full" : NULL;
    } else if (a->type == COORD_ACTION_ABSORB && !f->hold_absorb) {
        e.type = COORD_EVENT_ABSORBED;
    } else {
        return;
    }
    assert_true(f->queued < 256);
    f->queue[f->queued++] = e;
}

static inline void fx_slot_move(fixture *f, uint64_t slot, fx_slot from, fx_slot to) {
    if (!slot) return;
    assert_true(slot <= f->next_slot);
    assert_int_equal(f->slots[slot], from);
    f->slots[slot] = (uint8_t)to;
}

/* Copies a text, because the core reuses the memory of its texts. */
static inline const char *fx_copy_text(fixture *f, const char *text) {
    f->texts = realloc(f->texts, (f->text_count + 1) * sizeof *f->texts);
    assert_non_null(f->texts);
    return f->texts[f->text_count++] = strdup(text);
}

static inline void fx_note(fixture *f, const coord_action *a) {
    if (f->count == f->capacity) {
        f->capacity = f->capacity ? f->capacity * 2 : 1024;
        f->history = realloc(f->history, f->capacity * sizeof *f->history);
        assert_non_null(f->history);
    }
    f->history[f->count++] = *a;
    if (a->type == COORD_ACTION_STATE || a->type == COORD_ACTION_EVENT)
        f->history[f->count - 1].text = fx_copy_text(f, a->text);
    if (a->type == COORD_ACTION_LEASE || (a->type == COORD_ACTION_NOTHING && !a->nothing.unknown)) {
        assert_int_equal(f->request[a->worker], a->request);
        f->request[a->worker] = 0;
    }
    if (a->type == COORD_ACTION_LEASE) f->lease[a->worker] = *a;
    if (a->type == COORD_ACTION_KEEP) fx_slot_move(f, a->slot, FX_OFFERED, FX_KEPT);
    if (a->type == COORD_ACTION_DROP)
        fx_slot_move(f, a->slot, f->slots[a->slot] == FX_KEPT ? FX_KEPT : FX_OFFERED, FX_RELEASED);
    if (a->type == COORD_ACTION_DIVERGED)
        fx_slot_move(f, a->slot, f->slots[a->slot] == FX_KEPT ? FX_KEPT : FX_OFFERED, FX_RELEASED);
    if (a->type == COORD_ACTION_ABSORB) fx_slot_move(f, a->slot, FX_KEPT, FX_RELEASED);
    if (a->type == COORD_ACTION_STATE && a->job < FX_JOBS) f->state[a->job] = a->state;
    if (a->type == COORD_ACTION_CHECKPOINT && a->job < FX_JOBS) f->checkpoint[a->job] = *a;
    if (a->type == COORD_ACTION_UPDATE)
        for (uint32_t i = 0; i < a->update.count; i++)
            assert_int_equal(f->slots[a->update.blocks[i].slot], FX_KEPT);
    if (a->type == COORD_ACTION_UPDATE && !f->hold_update)
        for (uint32_t i = 0; i < a->update.count; i++)
            fx_slot_move(f, a->update.blocks[i].slot, FX_KEPT, FX_RELEASED);
}

static inline void fx_send_one(fixture *f, const coord_event *event) {
    assert_int_equal(coord_core_step(f->core, event, f->now, &f->actions), COP_OK);
    if (!f->timed) coord_core_check(f->core);
    for (uint32_t i = 0; i < f->actions.count; i++) {
        fx_note(f, &f->actions.items[i]);
        fx_answer(f, &f->actions.items[i]);
    }
}

/* Gives the core an event, and then all answers of the host that follow from it. */
static inline void fx_send(fixture *f, coord_event event) {
    fx_send_one(f, &event);
    while (f->queued) {
        coord_event next = f->queue[0];
        memmove(f->queue, f->queue + 1, --f->queued * sizeof *f->queue);
        fx_send_one(f, &next);
    }
}

static inline void fx_tick(fixture *f, uint64_t ms) {
    f->now += ms * FX_MS;
    fx_send(f, (coord_event){.type = COORD_EVENT_TICK});
}

/* ---- jobs ---- */

/* A job of 1000 samples, in batches of 100 and 8 shards, with 30 steps, 10 per epoch. It is not
 * evaluated, and only its last step is saved. */
static inline coord_job_info fx_info(uint64_t job) {
    return (coord_job_info){.job = job,
                            .batch = 100,
                            .shards = 8,
                            .train_samples = 1000,
                            .steps = 30,
                            .steps_per_epoch = 10,
                            .last_keep = true,
                            .evaluate_every = 1,
                            .state = COORD_QUEUED};
}

static inline void fx_add(fixture *f, coord_job_info info) {
    if (info.job < FX_JOBS) {
        f->info[info.job] = info;
        f->state[info.job] = info.state;
    }
    fx_send(f, (coord_event){.type = COORD_EVENT_JOB_ADDED, .job = info.job, .info = info});
}

static inline void fx_job_event(fixture *f, coord_event_type type, uint64_t job) {
    fx_send(f, (coord_event){.type = type, .job = job, .ok = true});
}

static inline coord_job_view fx_view(const fixture *f, uint64_t job) {
    coord_job_view view;
    assert_true(coord_core_job(f->core, job, f->now, &view));
    return view;
}

/* ---- workers ---- */

static inline void fx_join(fixture *f, uint64_t worker, uint32_t threads, uint64_t fingerprint) {
    char name[16];
    snprintf(name, sizeof name, "w%u", (unsigned)worker);
    coord_event e = {.type = COORD_EVENT_WORKER_JOINED, .worker = worker};
    e.joined.name = name;
    e.joined.threads = threads;
    e.joined.fingerprint = fingerprint;
    e.joined.ensembles = true;
    f->lease[worker] = (coord_action){0};
    f->request[worker] = 0;
    fx_send(f, e);
}

static inline void fx_join_many(fixture *f, uint32_t workers) {
    for (uint32_t i = 1; i <= workers; i++) fx_join(f, i, 1, 7);
}

static inline void fx_gone(fixture *f, uint64_t worker) {
    f->request[worker] = 0;
    f->lease[worker] = (coord_action){0};
    fx_send(f, (coord_event){.type = COORD_EVENT_WORKER_GONE, .worker = worker});
}

/* The worker sends a PULL. Returns the lease that it gets at once, or NULL if the PULL is held or
 * is answered without a lease. */
static inline const coord_action *fx_pull_with(fixture *f, uint64_t worker, uint64_t have_job) {
    coord_event e = {.type = COORD_EVENT_PULL, .worker = worker};
    e.pull.request = f->request[worker] = ++f->next_request;
    e.pull.have_job = have_job;
    f->lease[worker] = (coord_action){0};
    fx_send(f, e);
    return f->lease[worker].type ? &f->lease[worker] : NULL;
}

static inline const coord_action *fx_pull(fixture *f, uint64_t worker) {
    return fx_pull_with(f, worker, 0);
}

/* A correct result of a lease, in a new slot. */
static inline coord_event fx_result_of(fixture *f, const coord_action *lease) {
    const coord_job_info *info = &f->info[lease->job];
    uint32_t first = lease->lease.first, end = first + lease->lease.count;
    uint32_t batch = lease->lease.batch;
    coord_event e = {.type = COORD_EVENT_RESULT, .worker = lease->worker, .job = lease->job};
    e.step = lease->step;
    e.result = (coord_result_info){.lease = lease->lease.lease,
                                   .job = lease->job,
                                   .step = lease->step,
                                   .compute_ns = lease->lease.count * FX_MS,
                                   .attempt = lease->lease.attempt,
                                   .first = first,
                                   .count = lease->lease.count,
                                   .evaluate = lease->lease.evaluate,
                                   .ensemble = lease->lease.ensemble,
                                   .members = lease->lease.members,
                                   .finite = true};
    if (lease->lease.evaluate) {
        e.result.samples = lease->lease.count;
        e.result.loss = 0.001 * (double)(first + 1);
    } else {
        e.result.samples =
            fx_slice_begin(batch, info->shards, end) - fx_slice_begin(batch, info->shards, first);
        e.result.loss = fx_tree_loss(lease->step, first, end, batch);
    }
    e.result.correct = e.result.samples / 2;
    e.result.slot = ++f->next_slot;
    assert_true(f->next_slot < FX_SLOTS);
    f->slots[e.result.slot] = FX_OFFERED;
    return e;
}

static inline void fx_send_result(fixture *f, coord_event e) {
    f->lease[e.worker] = (coord_action){0};
    fx_send(f, e);
}

/* The worker finishes its lease, and sends the correct result. */
static inline void fx_finish(fixture *f, uint64_t worker) {
    assert_int_equal(f->lease[worker].type, COORD_ACTION_LEASE);
    f->now += FX_MS / 10;
    fx_send_result(f, fx_result_of(f, &f->lease[worker]));
}

/* The worker finishes its lease, and its result is not finite. */
static inline void fx_spoil(fixture *f, uint64_t worker) {
    coord_event e = fx_result_of(f, &f->lease[worker]);
    e.result.finite = false;
    fx_send_result(f, e);
}

/* Workers 1 to `workers` pull and compute until none gets work, or until they have finished
 * `leases_max` leases. None gets work if all jobs have ended, are paused, or wait for an answer of
 * the host that the test holds. */
static inline void fx_work(fixture *f, uint32_t workers, uint32_t leases_max) {
    for (bool moved = true; moved && leases_max;) {
        moved = false;
        for (uint32_t w = 1; w <= workers && leases_max; w++) {
            if (!f->lease[w].type && !f->request[w]) fx_pull(f, w);
            if (!f->lease[w].type) continue;
            fx_finish(f, w);
            leases_max--;
            moved = true;
        }
    }
}

static inline void fx_work_all(fixture *f, uint32_t workers) {
    fx_work(f, workers, UINT32_MAX);
}

/* Workers 1 to `workers` pull and compute until the job has reached `step` or is gone. */
static inline void fx_work_to(fixture *f, uint32_t workers, uint64_t job, uint64_t step) {
    for (int guard = 0; guard < 100000; guard++) {
        coord_job_view view;
        if (!coord_core_job(f->core, job, f->now, &view) || view.step >= step) return;
        fx_work(f, workers, 1);
    }
    fail_msg("step %llu was not reached", (unsigned long long)step);
}

#endif
