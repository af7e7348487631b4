/* Training in one thread, and the record of one shard. See replay.h. One pass runs the whole batch.
 * Its gradient sum is the root of D5's tree, whose bits do not depend on how a pool divides the
 * batch into blocks. */
#include "common/job/replay.h"

#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/base/shards.h"
#include "common/job/block.h"
#include "common/job/internal.h"

struct cop_replay {
    const cop_job *job;
    const cop_data_part *part;
    const cop_kernels *kernels;
    cop_data_view view;
    cop_pass *pass;
    uint64_t step;
    float *sent; /* the weights that a pass reads, if the job rounds them to bf16; else NULL */
    float *weights, *before, *gradients, *states[COP_OPTIMIZER_STATES_MAX];
    /* The batch of the step after `step`: */
    uint32_t *rows; /* the rows of its samples in the training part */
    uint32_t count; /* samples */
    int32_t *labels;
    int32_t *sizes; /* samples of each shard */
    char *samples;
};

/* ---- training ---- */

static bool allocate(cop_replay *r) {
    const cop_job *job = r->job;
    const size_t floats = (size_t)cop_model_floats(job->model);
    r->weights = cop_alloc_array(floats, sizeof(float));
    r->before = cop_alloc_array(floats, sizeof(float));
    r->gradients = cop_alloc_array(floats, sizeof(float));
    r->rows = cop_alloc_array(job->batch, sizeof *r->rows);
    r->labels = cop_alloc_array(job->batch, sizeof *r->labels);
    r->sizes = cop_alloc_array(job->shards, sizeof *r->sizes);
    r->samples = cop_alloc_array(job->batch, r->part->stride);
    r->sent = job->bf16 ? cop_alloc_array(floats, sizeof(float)) : NULL;
    bool ok = (r->sent || !job->bf16) && r->weights && r->before && r->gradients && r->rows &&
              r->labels && r->sizes && r->samples;
    for (int i = 0; i < cop_optimizer_states(&job->optimizer); i++)
        ok = (r->states[i] = cop_alloc_array(floats, sizeof(float))) && ok;
    return ok;
}

cop_err cop_replay_create(const cop_job *job, const cop_data *data, const cop_kernels *kernels,
                          cop_replay **out, cop_error *error) {
    cop_replay *r = cop_alloc(sizeof *r);
    *out = NULL;
    if (!r) return cop_no_memory(error);
    r->job = job;
    r->part = &data->train;
    r->kernels = kernels;
    cop_err e = cop_job_view(job, data, &r->view, error);
    if (!e && !allocate(r)) e = cop_no_memory(error);
    if (!e)
        e = cop_pass_create(job->model, kernels, job->numerics, (int)job->batch, COP_PASS_TRAIN,
                            &r->pass, error);
    if (e) {
        cop_replay_destroy(r);
        return e;
    }
    cop_model_init(job->model, job->seed, r->weights);
    *out = r;
    return COP_OK;
}

void cop_replay_destroy(cop_replay *r) {
    if (!r) return;
    if (r->pass) cop_pass_destroy(r->pass);
    for (int i = 0; i < COP_OPTIMIZER_STATES_MAX; i++) cop_free(r->states[i]);
    cop_data_view_fini(&r->view);
    cop_free(r->sent);
    cop_free(r->weights);
    cop_free(r->before);
    cop_free(r->gradients);
    cop_free(r->rows);
    cop_free(r->labels);
    cop_free(r->sizes);
    cop_free(r->samples);
    cop_free(r);
}

cop_err cop_replay_load(cop_replay *r, const char *folder, uint64_t step, cop_str *notes,
                        cop_error *error) {
    cop_checkpoint found;
    const cop_checkpoint_source from = {.folder = folder, .max_step = step, .notes = notes};
    const cop_checkpoint_buffers into = {.weights = r->weights,
                                         .states = {r->states[0], r->states[1]}};
    cop_err e = cop_checkpoint_load(r->job, &from, &into, &found, error);
    if (!e) {
        r->step = found.step;
        return COP_OK;
    }
    if (e != COP_ERR_NOT_FOUND) return e;
    /* The attempt may have filled a part of the buffers, so set all of them again. */
    cop_model_init(r->job->model, r->job->seed, r->weights);
    for (int i = 0; i < cop_optimizer_states(&r->job->optimizer); i++)
        memset(r->states[i], 0, (size_t)cop_model_floats(r->job->model) * sizeof(float));
    r->step = 0;
    return COP_OK;
}

uint64_t cop_replay_step(const cop_replay *r) {
    return r->step;
}

const float *cop_replay_weights(const cop_replay *r) {
    return r->weights;
}

/* The weights with which the shards of the step compute. */
static const float *pass_weights(const cop_replay *r) {
    return r->sent ? r->sent : r->weights;
}

/* Fetches the batch of the step after r->step (D1, D2), and rounds the weights if the job does. */
static void gather(cop_replay *r) {
    const size_t floats = (size_t)cop_model_floats(r->job->model);
    for (size_t i = 0; r->sent && i < floats; i++) r->sent[i] = cop_bf16_round(r->weights[i]);
    const cop_job *job = r->job;
    uint32_t epoch;
    const cop_data_batches batches = {job->seed, r->view.train, job->batch, job->last_keep};
    cop_data_batch_rows(&batches, r->step + 1, r->rows, &r->count, &epoch);
    COP_ASSERT(r->count >= 1 && r->count <= job->batch);
    const cop_data_destination room = {.samples = r->samples,
                                       .bytes = job->batch * r->part->stride,
                                       .labels = r->labels,
                                       .count = job->batch};
    cop_data_view_gather(&r->view, r->rows, r->count, &room);
    cop_shard_sizes(r->count, job->shards, r->sizes);
}

/* Computes r->gradients: the gradient sum of the shards [first, first + count). Their samples are
 * `samples` rows of the batch from `row` on. */
static cop_pass_result run_shards(cop_replay *r, int first, int count, int row, int samples) {
    COP_ASSERT(first >= 0 && count >= 1 && (uint32_t)(first + count) <= r->job->shards);
    COP_ASSERT(row >= 0 && samples >= 1 && (uint32_t)(row + samples) <= r->count);
    const cop_block block = {.job = r->job,
                             .weights = pass_weights(r),
                             .rows = r->samples,
                             .labels = r->labels,
                             .first = row,
                             .count = samples};
    const cop_block_shards shards = {
        .step = r->step + 1, .sizes = r->sizes, .first = first, .count = count};
    cop_pass_result result;
    cop_block_train(r->pass, &block, &shards, r->gradients, &result);
    return result;
}

static cop_err check_finite(const cop_replay *r, cop_error *error) {
    char where[160];
    if (!cop_model_find_not_finite(r->job->model, r->weights, where, sizeof where)) return COP_OK;
    return cop_fail(error, COP_ERR_INPUT, "the job diverges in step %llu: %s",
                    (unsigned long long)r->step, where);
}

/* Updates weights and states by r->gradients, the gradient sum of the batch. */
static cop_err update(cop_replay *r, cop_error *error) {
    const int16_t only = 0;
    const cop_tree tree = {.count = 1, .op_count = 1, .ops = &only};
    const float *const gradients[] = {r->gradients};
    const cop_update u = {.model = r->job->model,
                          .kernels = r->kernels,
                          .spec = &r->job->optimizer,
                          .step = r->step + 1,
                          .batch = r->count,
                          .gradients = gradients,
                          .tree = &tree,
                          .w_in = r->weights,
                          .w_out = r->weights,
                          .states = {r->states[0], r->states[1]}};
    cop_update_run(&u, 0, 1);
    r->step++;
    return check_finite(r, error);
}

cop_err cop_replay_advance(cop_replay *r, cop_error *error) {
    COP_ASSERT(r->step < UINT32_MAX);
    gather(r);
    run_shards(r, 0, (int)r->job->shards, 0, (int)r->count);
    return update(r, error);
}

/* ---- the record ---- */

#define ENTRIES_MAX 4096

typedef struct record {
    const cop_model *model;
    uint32_t shard;
    unsigned char digest[32];  /* digest of the weights before the step */
    cop_tensor_entry *entries; /* the recorded tensors; each entry owns its data */
    size_t count;
    int samples; /* number of samples in the shard */
    cop_shape input;
    bool failed; /* there was no memory or no free entry for a tensor */
} record;

/* Adds a tensor of the shape [n, dims...] or, if n is 0, [dims...]. Returns its values, which the
 * caller fills, or NULL if that failed. */
static float *add_tensor(record *d, const char *name, int n, const int32_t *dims, int rank) {
    if (d->count == ENTRIES_MAX) d->failed = true;
    if (d->failed) return NULL;
    cop_tensor_entry *t = &d->entries[d->count];
    COP_ASSERT(strlen(name) < sizeof t->name && n >= 0);
    COP_ASSERT(rank >= 0 && rank + (n > 0) <= (int)(sizeof t->dims / sizeof *t->dims));
    int64_t size = 1;
    *t = (cop_tensor_entry){.dtype = "F32"};
    snprintf(t->name, sizeof t->name, "%s", name);
    if (n) t->dims[t->rank++] = n;
    for (int i = 0; i < rank; i++) t->dims[t->rank++] = dims[i];
    for (int i = 0; i < t->rank; i++) size *= t->dims[i];
    t->size = (size_t)size * sizeof(float);
    float *values = cop_alloc_array((size_t)size, sizeof(float));
    t->data = values;
    d->failed = !values;
    d->count += values != NULL;
    return values;
}

/* Copies a feature-major tensor [values][ld] into one of the shape [columns, values]. */
static void transpose(const float *from, int64_t values, int columns, int ld, float *to) {
    for (int64_t v = 0; v < values; v++)
        for (int c = 0; c < columns; c++) to[(int64_t)c * values + v] = from[v * ld + c];
}

static void add_activations(record *d, const char *name, const cop_shape *shape,
                            const cop_layer_context *c, const float *values) {
    COP_ASSERT(c->columns == d->samples);
    float *to = add_tensor(d, name, c->columns, shape->dims, shape->rank);
    if (to) transpose(values, cop_shape_size(shape), c->columns, c->ld, to);
}

/* Adds the factors by which a layer multiplied its parameters, one tensor per parameter. That of
 * 2.weight is called "mask.2", that of 2.bias "mask.2.bias". */
static void add_parameter_masks(record *d, const cop_layer *layer, const cop_layer_context *c,
                                const float *factors, int64_t values) {
    const cop_parameter *own = c->parameters + layer->parameter_first;
    for (int64_t at = 0; at < values; at += own->count, own++) {
        char name[64];
        const char *what = strchr(own->name, '.');
        COP_ASSERT(what && values - at >= own->count);
        snprintf(name, sizeof name, "mask.%d%s", layer->index, at == 0 ? "" : what);
        float *to = add_tensor(d, name, c->columns, own->dims, own->rank);
        if (to) transpose(factors + at * c->ld, own->count, c->columns, c->ld, to);
    }
}

/* Adds the factors by which the layer multiplied its input or, for dropconnect, its parameters.
 * dropconnect has a factor for each parameter and sample. */
static void add_mask(record *d, const cop_layer *layer, const cop_layer_context *c) {
    char name[32];
    const bool of_parameters = layer->ops->factor_count != NULL;
    const int64_t values =
        of_parameters ? layer->ops->factor_count(layer) : cop_shape_size(&layer->in);
    float *factors = cop_alloc_array((size_t)(values * c->ld), sizeof(float));
    d->failed = d->failed || !factors;
    snprintf(name, sizeof name, "mask.%d", layer->index);
    if (factors) layer->ops->factors(layer, c, factors);
    if (factors && of_parameters)
        add_parameter_masks(d, layer, c, factors, values);
    else if (factors)
        add_activations(d, name, &layer->in, c, factors);
    cop_free(factors);
}

/* The pass calls it with the input (layer NULL) and with the output of each layer. */
static void record_output(void *context, const cop_layer *layer, const cop_layer_context *c,
                          const float *output) {
    record *d = context;
    char name[32];
    if (!layer) {
        add_activations(d, "input", &d->input, c, output);
        return;
    }
    if (layer->ops->factors) add_mask(d, layer, c);
    snprintf(name, sizeof name, "output.%d", layer->index);
    add_activations(d, name, &layer->out, c, output);
}

/* Adds a tensor for each parameter: (values - minus) / divisor, or values / divisor if `minus` is
 * NULL. */
static void add_parameters(record *d, const char *prefix, const float *values, const float *minus,
                           float divisor) {
    COP_ASSERT(divisor > 0);
    for (int i = 0; i < cop_model_parameter_count(d->model); i++) {
        const cop_parameter *p = cop_model_parameter(d->model, i);
        char name[128];
        snprintf(name, sizeof name, "%s.%s", prefix, p->name);
        float *to = add_tensor(d, name, 0, p->dims, p->rank);
        for (int64_t k = 0; to && k < p->count; k++) {
            const float value = values[p->offset + k];
            to[k] = (minus ? value - minus[p->offset + k] : value) / divisor;
        }
    }
}

static void add_target(record *d, const cop_replay *r, int row) {
    if (!cop_model_has_classes(r->job->model)) {
        for (size_t i = 0; i < d->count; i++) {
            const cop_tensor_entry *input = &d->entries[i];
            if (strcmp(input->name, "input") != 0) continue;
            float *to = add_tensor(d, "target", d->samples, d->input.dims, d->input.rank);
            if (to) memcpy(to, input->data, input->size);
            return;
        }
        return;
    }
    float *to = add_tensor(d, "target", d->samples, NULL, 0);
    for (int i = 0; to && i < d->samples; i++) to[i] = (float)r->labels[row + i];
}

/* Computes the shard alone and records it. */
static void record_shard(cop_replay *r, record *d, int row) {
    const int32_t one = 1;
    cop_pass_set_tap(r->pass, (cop_pass_tap){.after = record_output, .context = d});
    const cop_pass_result result = run_shards(r, (int)d->shard, 1, row, d->samples);
    cop_pass_set_tap(r->pass, (cop_pass_tap){0});
    add_target(d, r, row);
    float *loss = add_tensor(d, "loss", 0, &one, 1);
    if (loss) *loss = (float)(result.loss / d->samples);
    add_parameters(d, "param", pass_weights(r), NULL, 1);
    add_parameters(d, "grad", r->gradients, NULL, (float)d->samples);
}

static cop_err record_step(cop_replay *r, record *d, cop_error *error) {
    memcpy(r->before, r->weights, (size_t)cop_model_floats(r->job->model) * sizeof(float));
    run_shards(r, 0, (int)r->job->shards, 0, (int)r->count);
    add_parameters(d, "mean_grad", r->gradients, NULL, (float)r->count);
    COP_TRY(update(r, error));
    add_parameters(d, "update", r->weights, r->before, 1);
    return COP_OK;
}

static cop_err write_record(const cop_replay *r, const record *d, const char *path,
                            cop_error *error) {
    char step[24], number[24], hex[65];
    cop_str yaml = {0};
    cop_document_print_yaml(&r->job->message->base, &yaml);
    snprintf(step, sizeof step, "%llu", (unsigned long long)r->step);
    snprintf(number, sizeof number, "%u", d->shard);
    cop_hex32(d->digest, hex);
    const cop_metadata metadata[] = {{"coppice.job", cop_str_text(&yaml)},
                                     {"coppice.step", step},
                                     {"coppice.shard", number},
                                     {"coppice.digest", hex}};
    const cop_safetensors_content content = {d->entries, d->count, metadata,
                                             sizeof metadata / sizeof *metadata};
    cop_err e = yaml.failed ? cop_no_memory(error) : cop_safetensors_write(path, &content, error);
    cop_str_fini(&yaml);
    return e;
}

static cop_err check_shard(const cop_replay *r, uint32_t shard, cop_error *error) {
    if (shard >= r->job->shards)
        return cop_fail(error, COP_ERR_INPUT, "there is no shard %u: the job has shards 0 to %u",
                        shard, r->job->shards - 1);
    if (r->sizes[shard] == 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "shard %u has no samples in step %llu: its batch has only %u", shard,
                        (unsigned long long)r->step + 1, r->count);
    return COP_OK;
}

cop_err cop_replay_write(cop_replay *r, uint32_t shard, const char *path, cop_error *error) {
    int row = 0;
    gather(r);
    COP_TRY(check_shard(r, shard, error));
    for (uint32_t s = 0; s < shard; s++) row += r->sizes[s];
    record d = {.model = r->job->model,
                .shard = shard,
                .samples = r->sizes[shard],
                .input = cop_model_layer(r->job->model, 0)->in};
    COP_TRY(cop_model_digest(r->job->model, r->weights, d.digest, error));
    d.entries = cop_alloc_array(ENTRIES_MAX, sizeof *d.entries);
    if (!d.entries) return cop_no_memory(error);
    record_shard(r, &d, row);
    cop_err e = record_step(r, &d, error);
    if (!e && d.failed) e = cop_no_memory(error);
    if (!e) e = write_record(r, &d, path, error);
    for (size_t i = 0; i < d.count; i++) cop_free((void *)(uintptr_t)d.entries[i].data);
    cop_free(d.entries);
    return e;
}
