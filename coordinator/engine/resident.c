/* Tensors of the jobs in progress: immutable versions of weights and optimizer state, and the rows
 * of the current step. An update reads version t and writes version t + 1 into other buffers. So
 * leases, evaluations and checkpoints of version t are not disturbed, and a gradient that is not
 * finite leaves version t unchanged. Buffers are recycled: after the first steps, a step allocates
 * nothing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/engine/engine.h"
#include "coordinator/engine/digest.h"

#include "common/base/alloc.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/shards.h"

/* If wrong checkpoints cannot be removed (disk errors), libuv's thread pool tries again for a
 * minute. Then the job fails. */
#define DISCARD_TRIES    60
#define DISCARD_PAUSE_MS 1000
/* An update that reads and writes at most this many bytes runs on the loop thread: about 50 us. */
#define SMALL_BYTES (2u << 20)

coord_resident *coord_resident_find(coord_engine *engine, uint64_t job) {
    for (uint32_t i = 0; job && i < COORD_RESIDENT_MAX; i++)
        if (engine->resident[i].id == job) return &engine->resident[i];
    return NULL;
}

static size_t flat_bytes(const coord_resident *r) {
    return (size_t)cop_model_floats(r->job->model) * sizeof(float);
}

static uint32_t largest_lease(const cop_job *job) {
    uint32_t evaluated = job->evaluate_on_test ? job->test_samples : job->validation_samples;
    uint32_t slice = evaluated < COP_EVAL_SLICE ? evaluated : COP_EVAL_SLICE;
    return job->batch > slice ? job->batch : slice;
}

static cop_err allocate(coord_resident *r, bool share, cop_error *error) {
    const cop_job *job = r->job;
    size_t floats = flat_bytes(r), lease = largest_lease(job);
    r->states = cop_optimizer_states(&job->optimizer);
    r->weight_pool =
        share ? cop_buffer_pool_create_shared(floats, false) : cop_buffer_pool_create(floats);
    const size_t sent = cop_job_sent_bytes(job);
    r->sent_pool =
        share ? cop_buffer_pool_create_shared(sent, false) : cop_buffer_pool_create(sent);
    r->state_pool = cop_buffer_pool_create(floats);
    r->rows_pool = cop_buffer_pool_create(lease * job->sample_stride);
    r->labels_pool = cop_buffer_pool_create(lease * sizeof(int32_t));
    r->rows = cop_alloc_array(job->batch, sizeof *r->rows);
    r->slice_first = cop_alloc_array(job->shards + 1, sizeof *r->slice_first);
    r->gradients = cop_alloc_array(job->shards, sizeof *r->gradients);
    r->copies = cop_alloc_array(job->shards, sizeof(cop_buffer *));
    r->update_slots = cop_alloc_array(job->shards, sizeof *r->update_slots);
    r->update_first = cop_alloc_array(job->shards, sizeof *r->update_first);
    r->update_digests = cop_alloc_array(job->shards, sizeof *r->update_digests);
    r->tree_ops = cop_alloc_array(2 * (size_t)job->shards, sizeof *r->tree_ops);
    r->lease_spec = cop_job_pack_for_workers(job);
    if (!r->weight_pool || !r->sent_pool || !r->state_pool || !r->rows_pool || !r->labels_pool ||
        !r->rows || !r->slice_first || !r->gradients || !r->copies || !r->update_slots ||
        !r->update_first || !r->update_digests || !r->tree_ops || !r->lease_spec)
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the tensors of job %s",
                        job->message->name);
    return COP_OK;
}

/* The gaps between parameters are zero in every version; an update does not write them. */
static void zero_gaps(const coord_resident *r, float *flat) {
    const cop_model *model = r->job->model;
    int64_t end = 0;
    for (int i = 0; i <= cop_model_parameter_count(model); i++) {
        bool last = i == cop_model_parameter_count(model);
        const cop_parameter *p = last ? NULL : cop_model_parameter(model, i);
        int64_t begin = last ? cop_model_floats(model) : p->offset;
        memset(flat + end, 0, (size_t)(begin - end) * sizeof *flat);
        if (!last) end = p->offset + p->count;
    }
}

static bool take_version(coord_resident *r, coord_version *out) {
    *out = (coord_version){.weights = cop_buffer_pool_take(r->weight_pool)};
    bool ok = out->weights != NULL;
    if (r->job->bf16) {
        out->sent = cop_buffer_pool_take(r->sent_pool);
        ok = ok && out->sent;
    }
    for (int i = 0; i < r->states; i++) {
        out->state[i] = cop_buffer_pool_take(r->state_pool);
        ok = ok && out->state[i];
    }
    if (!ok) return false;
    zero_gaps(r, out->weights->data);
    if (out->sent) memset(out->sent->data, 0, out->sent->size); /* an update leaves the gaps */
    for (int i = 0; i < r->states; i++) zero_gaps(r, out->state[i]->data);
    return true;
}

static void release_version(coord_version *v) {
    cop_buffer_release(v->weights);
    cop_buffer_release(v->sent);
    cop_buffer_release(v->state[0]);
    cop_buffer_release(v->state[1]);
    *v = (coord_version){0};
}

static void zero_version(const coord_resident *r, coord_version *v) {
    memset(v->weights->data, 0, flat_bytes(r));
    for (int i = 0; i < r->states; i++) memset(v->state[i]->data, 0, flat_bytes(r));
}

/* Removes the checkpoints after `step`, which cannot be trusted, before the job goes on. The
 * removal must survive a power failure: if a removed checkpoint came back, nothing would show that
 * it is wrong. */
static cop_err discard_after(const coord_resident *r, uint64_t step, cop_checkpoint *start,
                             cop_error *error) {
    for (int tries = 0;; tries++) {
        cop_error why = {0};
        cop_err e = cop_checkpoint_discard_after(r->folder, step, start, &why);
        if (!e) return COP_OK;
        if (e == COP_ERR_NO_MEMORY || tries == DISCARD_TRIES)
            return cop_fail(error, e, "cannot remove the wrong checkpoints after step %llu: %s",
                            (unsigned long long)step, why.text);
        if (!tries)
            cop_log(COP_LOG_WARN, "coordinator",
                    "cannot remove the checkpoints after step %llu: %s; retrying",
                    (unsigned long long)step, why.text);
        cop_clock_sleep_ms(DISCARD_PAUSE_MS);
    }
}

/* Loads the newest checkpoint that may be used, else makes initial weights. */
static cop_err load_weights(coord_resident *r, const coord_start_at *at, cop_checkpoint *start,
                            cop_str *notes, cop_error *error) {
    zero_version(r, &r->current);
    zero_version(r, &r->next);
    *start = (cop_checkpoint){0};
    bool all = at->max_step == UINT64_MAX;
    if (at->resume && r->folder) {
        const cop_checkpoint_source from = {
            .folder = r->folder, .max_step = at->max_step, .notes = notes};
        const cop_checkpoint_buffers into = {
            .weights = r->current.weights->data,
            .states = {r->current.state[0] ? r->current.state[0]->data : NULL,
                       r->current.state[1] ? r->current.state[1]->data : NULL}};
        cop_err e = cop_checkpoint_load(r->job, &from, &into, start, error);
        if (!all && (e == COP_OK || e == COP_ERR_NOT_FOUND))
            COP_TRY(discard_after(r, e ? 0 : start->step, start, error));
        if (e == COP_OK) {
            r->current.step = start->step;
            return COP_OK;
        }
        if (e != COP_ERR_NOT_FOUND) return e;
        *start = (cop_checkpoint){0};
        zero_version(r, &r->current);
    }
    cop_model_init(r->job->model, r->job->seed, r->current.weights->data);
    r->current.step = 0;
    return COP_OK;
}

static cop_err fill_weights(coord_resident *r, const coord_start_at *at, cop_checkpoint *start,
                            cop_str *notes, cop_error *error) {
    COP_TRY(load_weights(r, at, start, notes, error));
    uint16_t *sent = r->current.sent ? r->current.sent->data : NULL;
    const float *weights = r->current.weights->data;
    for (size_t i = 0; sent && i < flat_bytes(r) / sizeof *weights; i++)
        sent[i] = cop_bf16_of(weights[i]);
    return COP_OK;
}

cop_err coord_resident_prepare(coord_resident *r, const coord_start_at *at, cop_checkpoint *start,
                               cop_str *notes, cop_error *error) {
    cop_job *job = r->job = at->job;
    r->data = at->data;
    if (at->folder && !(r->folder = cop_strdup(at->folder))) return cop_no_memory(error);
    COP_TRY(cop_job_view(job, r->data, &r->view, error));
    COP_TRY(allocate(r, at->share, error));
    if (!take_version(r, &r->current) || !take_version(r, &r->next))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the weights of job %s",
                        job->message->name);
    COP_TRY(fill_weights(r, at, start, notes, error));
    r->loaded_ns = cop_clock_ns();
    return COP_OK;
}

cop_err coord_resident_return(coord_resident *r, uint64_t max_step, cop_checkpoint *start,
                              cop_str *notes, cop_error *error) {
    coord_start_at at = {.folder = r->folder, .resume = true, .max_step = max_step};
    COP_ASSERT(!r->update_running);
    release_version(&r->current); /* leases and checkpoints still hold references to its buffers */
    release_version(&r->next);
    if (!take_version(r, &r->current) || !take_version(r, &r->next))
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory for the weights of job %s",
                        r->job->message->name);
    return fill_weights(r, &at, start, notes, error);
}

void coord_resident_fini(coord_resident *r) {
    COP_ASSERT(!r->update_running);
    release_version(&r->current);
    release_version(&r->next);
    cop_buffer_release(r->lease_spec);
    cop_buffer_pool_destroy(r->weight_pool);
    cop_buffer_pool_destroy(r->sent_pool);
    cop_buffer_pool_destroy(r->state_pool);
    cop_buffer_pool_destroy(r->rows_pool);
    cop_buffer_pool_destroy(r->labels_pool);
    cop_free(r->rows);
    cop_free(r->slice_first);
    cop_free(r->gradients);
    cop_free(r->copies);
    cop_free(r->update_slots);
    cop_free(r->update_first);
    cop_free(r->update_digests);
    cop_free(r->tree_ops);
    cop_free(r->folder);
    cop_data_view_fini(&r->view);
    if (r->job) cop_job_release(r->job);
    if (r->data) cop_data_destroy(r->data);
    memset(r, 0, sizeof *r);
}

/* ---- leases ---- */

/* The rows of `step`, computed once per step (D1, D2). */
static void prepare_step(coord_resident *r, uint64_t step) {
    if (r->rows_step == step) return;
    const cop_job *job = r->job;
    uint32_t epoch;
    const cop_data_batches batches = {job->seed, r->view.train, job->batch, job->last_keep};
    cop_data_batch_rows(&batches, step, r->rows, &r->row_count, &epoch);
    cop_shard_sizes(r->row_count, job->shards, r->slice_first + 1);
    r->slice_first[0] = 0;
    for (uint32_t i = 1; i <= job->shards; i++) r->slice_first[i] += r->slice_first[i - 1];
    r->rows_step = step;
}

static cop_err fill_samples(coord_resident *r, const coord_action *action, cop_message *message) {
    cop_buffer *rows = message->part[COP_PART_SAMPLES] = cop_buffer_pool_take(r->rows_pool);
    cop_buffer *labels = message->part[COP_PART_LABELS] = cop_buffer_pool_take(r->labels_pool);
    if (!rows || !labels) return COP_ERR_NO_MEMORY;
    uint32_t first = action->lease.first, count = action->lease.count, samples = count;
    const cop_data_destination room = cop_data_destination_of(rows, labels);
    if (action->lease.evaluate) {
        cop_data_view_evaluated(&r->view, r->job->evaluate_on_test, first, count, &room);
    } else {
        COP_ASSERT(count >= 1 && first + count <= r->job->shards);
        prepare_step(r, action->step);
        uint32_t begin = (uint32_t)r->slice_first[first];
        samples = (uint32_t)r->slice_first[first + count] - begin;
        cop_data_view_gather(&r->view, r->rows + begin, samples, &room);
    }
    rows->size = (size_t)samples * r->job->sample_stride;
    labels->size = samples * sizeof(int32_t);
    return COP_OK;
}

cop_values coord_resident_weights_values(const coord_resident *r, const coord_action *action) {
    return r->job->bf16 && !action->lease.evaluate ? COP_VALUES_BF16 : COP_VALUES_F32;
}

cop_err coord_resident_fill_lease(coord_resident *r, const coord_action *action, bool have_weights,
                                  bool have_spec, cop_message *message) {
    COP_ASSERT(r->current.step == action->lease.version);
    const cop_values values = coord_resident_weights_values(r, action);
    message->lease.weights_values = values;
    if (!have_weights)
        message->part[COP_PART_WEIGHTS] =
            cop_buffer_hold(values == COP_VALUES_BF16 ? r->current.sent : r->current.weights);
    if (!have_spec) message->part[COP_PART_JOB] = cop_buffer_hold(r->lease_spec);
    return fill_samples(r, action, message);
}

/* ---- update ---- */

static coord_resident *resident_of_task(cop_task *task) {
    return (coord_resident *)(void *)((char *)task - offsetof(coord_resident, task));
}

static void update_part(cop_task *task, int thread, int part) {
    coord_resident *r = resident_of_task(task);
    const bool in_pool = thread >= 1 && thread <= COP_WORKER_THREADS_MAX;
    cop_lane *lane = in_pool ? r->engine->update_lanes[thread - 1] : NULL;
    cop_lane_enter(lane, COP_PHASE_UPDATE, COP_NO_LAYER);
    cop_update_run(&r->update, part, task->parts);
    cop_lane_enter(lane, COP_PHASE_IDLE, COP_NO_LAYER);
}

static void release_update_slots(coord_engine *engine, const coord_resident *r) {
    for (uint32_t i = 0; i < r->update_count; i++) {
        coord_slot *slot = &engine->slots[r->update_slots[i] - 1];
        cop_buffer_release(slot->gradient);
        *slot = (coord_slot){0};
    }
}

/* The type of the job's gradients. */
static cop_values gradient_values(const coord_resident *r) {
    return r->job->bf16 ? COP_VALUES_BF16 : COP_VALUES_F32;
}

static uint64_t digest_of_slot(const coord_engine *engine, const coord_resident *r, uint32_t i) {
    bool finite;
    return coord_digest(engine, engine->slots[r->update_slots[i] - 1].gradient, gradient_values(r),
                        &finite);
}

/* Fills in the first block whose gradient is not finite, and the digest of this gradient, which is
 * compared with the digest of a second result. If all gradients are finite and only their sum is
 * not, fills in the first block and, if the job is audited, the digests of all blocks. */
static void find_bad_block(const coord_engine *engine, coord_resident *r, coord_event *event) {
    uint32_t bad = UINT32_MAX;
    for (uint32_t i = r->update_count; i-- > 0;)
        if (!coord_all_finite(engine, engine->slots[r->update_slots[i] - 1].gradient,
                              gradient_values(r)))
            bad = i;
    event->result.finite = bad == UINT32_MAX;
    if (event->result.finite) bad = 0;
    event->result.first = r->update_first[bad];
    event->result.digest = digest_of_slot(engine, r, bad);
    if (!event->result.finite || r->job->message->audit <= 0) return;
    for (uint32_t i = 0; i < r->update_count; i++)
        r->update_digests[i] = digest_of_slot(engine, r, i);
    event->digests = r->update_digests;
}

static void take_over(coord_engine *engine, coord_resident *r) {
    r->next.step = r->update.step;
    coord_version old = r->current;
    r->current = r->next;
    release_version(&old);
    if (!r->first_step_ns) r->first_step_ns = cop_clock_ns();
    if (take_version(r, &r->next)) return;
    coord_event failed = {
        .type = COORD_EVENT_JOB_FAILED, .job = r->id, .text = "the coordinator is out of memory"};
    coord_dispatch(engine, &failed);
}

/* The bytes that an update reads and writes: it reads the gradients, weights and states, and writes
 * weights and states. */
static uint64_t update_bytes(const coord_resident *r) {
    const uint64_t sent = cop_job_sent_bytes(r->job);
    return sent * (r->update_count + r->job->bf16) + flat_bytes(r) * (2 + 2 * (uint64_t)r->states);
}

/* Adds the update that has ended to the profile. */
static void profile_update(coord_engine *engine, const coord_resident *r) {
    cop_lane *lane = engine->updates;
    if (!lane) return;
    cop_lane_add(lane, COP_PHASE_UPDATE, r->update.step, r->update_began_ns, cop_clock_ns());
    lane->bytes += update_bytes(r);
}

/* Replaces the gradients in the slots by their copies, if copies were made. */
static void keep_copies(const coord_engine *engine, coord_resident *r) {
    for (uint32_t i = 0; i < r->update_count; i++) {
        if (!r->copies[i]) continue;
        coord_slot *slot = &engine->slots[r->update_slots[i] - 1];
        cop_buffer_release(slot->gradient);
        slot->gradient = r->copies[i];
        r->copies[i] = NULL;
    }
}

/* Runs on the loop thread after an update. The new version becomes the current one, unless a
 * gradient was not finite. */
static void update_arrived(coord_engine *engine, coord_mail *mail) {
    coord_resident *r =
        (coord_resident *)(void *)((char *)mail - offsetof(coord_resident, task_mail));
    coord_event event = {.type = COORD_EVENT_UPDATED, .job = r->id, .step = r->update.step};
    event.ok = atomic_load(&r->finite) != 0;
    COP_ASSERT(r->update_running);
    r->update_running = false;
    profile_update(engine, r);
    keep_copies(engine, r);
    if (r->unload_wanted) {
        release_update_slots(engine, r);
        coord_resident_fini(r);
        return;
    }
    if (event.ok) {
        release_update_slots(engine, r);
        take_over(engine, r);
    } else {
        find_bad_block(engine, r, &event);
    }
    coord_dispatch(engine, &event);
}

/* Copies the gradients that workers could still change. False: there are no such gradients, or no
 * memory for the copies. Without the copies, a block may be blamed whose worker is honest. Compute
 * thread: the loop thread leaves the slots of a running update alone. */
static bool copy_gradients(coord_resident *r) {
    for (uint32_t i = 0; i < r->update_count; i++) {
        const cop_buffer *shared = r->engine->slots[r->update_slots[i] - 1].gradient;
        if (!shared->segment) continue;
        if (!(r->copies[i] = cop_buffer_create(shared->size))) return false;
        memcpy(r->copies[i]->data, shared->data, shared->size);
        r->gradients[i] = r->copies[i]->data;
    }
    return true;
}

/* If a value was not finite, and a worker could have changed its gradient during the update,
 * repeats the update with copies of the gradients. Then everything that follows is decided on the
 * same bytes. */
static void update_done(cop_task *task) {
    coord_resident *r = resident_of_task(task);
    if (!r->stable && !atomic_load(&r->finite) && copy_gradients(r)) {
        r->stable = true;
        atomic_store(&r->finite, 1);
        cop_thread_pool_submit(r->engine->pool, &r->task);
        return;
    }
    coord_post(r->engine, &r->task_mail);
}

/* Runs the update on the compute threads or, if it is small, at once on this thread: waking a
 * compute thread and being woken by it takes longer than a small update. */
static void start_update(coord_engine *engine, coord_resident *r) {
    const bool small = r->stable && update_bytes(r) <= SMALL_BYTES;
    r->engine = engine;
    r->task = (cop_task){.run = update_part,
                         .done = update_done,
                         .parts = small ? 1 : cop_thread_pool_threads(engine->pool)};
    r->task_mail.run = update_arrived;
    r->update_running = true;
    if (engine->updates) r->update_began_ns = cop_clock_ns();
    if (!small) {
        cop_thread_pool_submit(engine->pool, &r->task);
        return;
    }
    update_part(&r->task, 0, 0);
    coord_defer(engine, &r->task_mail);
}

void coord_resident_update(coord_engine *engine, coord_resident *r, const coord_action *action) {
    COP_ASSERT(!r->update_running && r->next.weights);
    int first[COP_SHARDS_MAX], size[COP_SHARDS_MAX];
    int count = (int)action->update.count;
    COP_ASSERT(count >= 1 && (uint32_t)count <= r->job->shards);
    COP_ASSERT(action->step == r->current.step + 1);
    r->stable = true;
    for (int i = 0; i < count; i++) {
        const coord_block *block = &action->update.blocks[i];
        const coord_slot *slot = &engine->slots[block->slot - 1];
        COP_ASSERT(slot->used && slot->gradient &&
                   slot->gradient->size == cop_job_sent_bytes(r->job));
        first[i] = (int)block->first;
        size[i] = (int)block->count;
        r->update_slots[i] = block->slot;
        r->update_first[i] = block->first;
        r->gradients[i] = slot->gradient->data;
        r->stable = r->stable && !slot->gradient->segment;
    }
    /* Absent shards are the last ones, so the tree over the others is the same. */
    int op_count =
        cop_tree_build_blocks(first[count - 1] + size[count - 1], count, first, size, r->tree_ops);
    r->update_count = (uint32_t)count;
    r->tree = (cop_tree){.count = count,
                         .op_count = op_count,
                         .ops = r->tree_ops,
                         .round_nodes = r->job->bf16,
                         .bf16_inputs = r->job->bf16};
    atomic_store(&r->finite, 1);
    r->update = (cop_update){.model = r->job->model,
                             .kernels = engine->kernels,
                             .spec = &r->job->optimizer,
                             .step = action->step,
                             .batch = action->update.batch,
                             .gradients = r->gradients,
                             .tree = &r->tree,
                             .w_in = r->current.weights->data,
                             .w_out = r->next.weights->data,
                             .w_sent = r->next.sent ? r->next.sent->data : NULL,
                             .finite = &r->finite};
    for (int i = 0; i < r->states; i++) {
        r->update.states[i] = r->current.state[i]->data;
        r->update.states_out[i] = r->next.state[i]->data;
    }
    start_update(engine, r);
}

/* Finds the layer in whose gradient a value is not finite, as cop_model_find_not_finite does. */
static bool find_bad_layer(const coord_resident *r, const cop_buffer *gradient, char *out,
                           size_t size) {
    const size_t count = flat_bytes(r) / sizeof(float);
    if (!r->job->bf16) return cop_model_find_not_finite(r->job->model, gradient->data, out, size);
    float *wide = cop_alloc_array(count, sizeof *wide);
    for (size_t i = 0; wide && i < count; i++)
        wide[i] = cop_bf16_float(((const uint16_t *)gradient->data)[i]);
    const bool found = wide && cop_model_find_not_finite(r->job->model, wide, out, size);
    cop_free(wide);
    return found;
}

void coord_resident_describe(const coord_resident *r, const coord_action *action,
                             const cop_buffer *gradient, char *out, size_t size) {
    const bool evaluate = action->lease.evaluate;
    char where[160] = "the loss";
    if (evaluate)
        snprintf(where, sizeof where, "the loss of the %s part",
                 r->job->evaluate_on_test ? "test" : "validation");
    char layer[120];
    if (action->lease.sum)
        snprintf(where, sizeof where, "the sum of the gradients");
    else if (gradient && find_bad_layer(r, gradient, layer, sizeof layer))
        snprintf(where, sizeof where, "the gradient of %s", layer);
    snprintf(out, size,
             "training diverged at step %llu: %s is not finite (%s %u to %u); try a smaller rate",
             (unsigned long long)action->step, where, evaluate ? "samples" : "shards",
             action->lease.first, action->lease.first + action->lease.count - 1);
}

void coord_job_info_make(const cop_job *job, uint64_t id, coord_job_state state,
                         coord_job_info *out) {
    const Coppice__Job *m = job->message;
    *out = (coord_job_info){.job = id,
                            .priority = m->priority,
                            .batch = job->batch,
                            .shards = job->shards,
                            .train_samples = job->train_samples,
                            .steps = job->steps,
                            .steps_per_epoch = job->steps_per_epoch,
                            .last_keep = job->last_keep,
                            .evaluate_samples =
                                job->evaluate_on_test ? job->test_samples : job->validation_samples,
                            .evaluate_every = job->evaluate_every,
                            .by_loss = !cop_model_has_classes(job->model),
                            .keep_best = !job->evaluate_on_test,
                            .checkpoint_every = job->checkpoint_every,
                            .workers_max = m->limits ? m->limits->workers : 0,
                            .timeout_ns = m->limits ? cop_seconds_to_ns(m->limits->timeout) : 0,
                            .audit = m->audit,
                            .bf16 = job->bf16,
                            .pin_first = job->numerics == COP_NUMERICS_OPENBLAS,
                            .state = state};
    if (m->pinned && m->pinned->fingerprint && *m->pinned->fingerprint)
        out->fingerprint = cop_hash_xxh3(m->pinned->fingerprint, strlen(m->pinned->fingerprint));
}
