/* Jobs: the protobuf message, resolved against its data and turned into the plain specs of
 * common/nn. See job.h. */
#include "common/job/job.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/nn/layer.h"
#include "common/wire/codec.h"

#define JOB_BUDGET (16u << 20)

/* ---- layers: the fields of a layer's message, by name, into the plain spec ---- */

typedef struct spec_field {
    const char *name;
    size_t offset;
    enum { SPEC_I32, SPEC_F64, SPEC_BOOL, SPEC_ENUM } type;
} spec_field;
static const spec_field spec_fields[] = {
    {"units", offsetof(cop_layer_spec, units), SPEC_I32},
    {"p", offsetof(cop_layer_spec, p), SPEC_F64},
    {"max_norm", offsetof(cop_layer_spec, max_norm), SPEC_F64},
    {"bias", offsetof(cop_layer_spec, bias), SPEC_BOOL},
    {"init", offsetof(cop_layer_spec, init), SPEC_ENUM},
    {"scope", offsetof(cop_layer_spec, scope), SPEC_ENUM},
    {"variant", offsetof(cop_layer_spec, variant), SPEC_ENUM},
};

static void copy_field(const spec_field *s, const void *from, cop_layer_spec *spec) {
    char *to = (char *)spec + s->offset;
    switch (s->type) {
    case SPEC_I32:
        *(int32_t *)(void *)to = (int32_t)*(const uint32_t *)from;
        break;
    case SPEC_F64:
        *(double *)(void *)to = *(const double *)from;
        break;
    case SPEC_BOOL:
        *(bool *)to = *(const protobuf_c_boolean *)from != 0;
        break;
    case SPEC_ENUM:
        memcpy(to, from, sizeof(int));
        break; /* the numbers of job.proto are those of nn's enums */
    }
}

/* Every field of the message has a place in the spec: a missing row is our mistake. */
static void fill_spec(const ProtobufCMessage *m, const char *kind, cop_layer_spec *spec) {
    memset(spec, 0, sizeof *spec);
    snprintf(spec->kind, sizeof spec->kind, "%s", kind);
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        size_t s = 0;
        while (s < sizeof spec_fields / sizeof *spec_fields &&
               strcmp(spec_fields[s].name, f->name) != 0)
            s++;
        COP_ASSERT(s < sizeof spec_fields / sizeof *spec_fields);
        copy_field(&spec_fields[s], (const char *)m + f->offset, spec);
    }
}

static const ProtobufCMessage *chosen(const ProtobufCMessage *one_of, const char **name) {
    for (unsigned i = 0; i < one_of->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &one_of->descriptor->fields[i];
        const ProtobufCMessage *m =
            *(const ProtobufCMessage *const *)(const void *)((const char *)one_of + f->offset);
        if (!m) continue;
        *name = f->name;
        return m;
    }
    return NULL;
}

static cop_err build_model(const Coppice__Job *m, cop_model **out, cop_error *error) {
    cop_layer_spec *layers = cop_alloc_array(m->n_model, sizeof *layers);
    if (!layers) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = COP_OK;
    for (size_t i = 0; i < m->n_model && !e; i++) {
        const char *kind = NULL;
        const ProtobufCMessage *layer = chosen(&m->model[i]->base, &kind);
        if (layer)
            fill_spec(layer, kind, &layers[i]);
        else
            e = cop_fail(error, COP_ERR_INPUT, "model[%zu] has no layer", i);
    }
    cop_model_spec spec = {.layers = layers,
                           .layer_count = (int)m->n_model,
                           .classes = (int32_t)m->pinned->classes,
                           .loss = COP_LOSS_CROSS_ENTROPY,
                           .smoothing =
                               m->loss->cross_entropy ? m->loss->cross_entropy->smoothing : 0};
    spec.input.rank = (int32_t)m->pinned->n_input;
    for (size_t d = 0; d < m->pinned->n_input && d < 4; d++)
        spec.input.dims[d] = (int32_t)m->pinned->input[d];
    if (!e) e = cop_model_create(&spec, out, error);
    cop_free(layers);
    return e;
}

/* ---- optimizer ---- */

static void build_optimizer(const Coppice__Job *m, uint64_t steps, cop_optimizer_spec *out) {
    const Coppice__Sgd *s = m->optimizer->sgd;
    const Coppice__Schedule *k = s->schedule;
    *out = (cop_optimizer_spec){.kind = COP_OPTIMIZER_SGD,
                                .rate = s->rate,
                                .momentum = s->momentum,
                                .weight_decay = s->weight_decay,
                                .l1 = s->l1,
                                .momentum_final =
                                    s->has_momentum_final ? s->momentum_final : s->momentum,
                                .momentum_steps = s->momentum_steps,
                                .nesterov = s->nesterov != 0};
    cop_schedule *c = &out->schedule;
    *c = (cop_schedule){.kind = COP_SCHEDULE_CONSTANT, .warmup = s->warmup, .total_steps = steps};
    if (k->step)
        *c = (cop_schedule){.kind = COP_SCHEDULE_STEP,
                            .every = k->step->every,
                            .factor = k->step->factor,
                            .warmup = s->warmup,
                            .total_steps = steps};
    if (k->inverse) c->kind = COP_SCHEDULE_INVERSE, c->decay = k->inverse->decay;
    if (k->exponential) c->kind = COP_SCHEDULE_EXPONENTIAL, c->factor = k->exponential->factor;
    if (k->cosine) c->kind = COP_SCHEDULE_COSINE, c->final = k->cosine->final;
}

/* ---- relations ---- */

static cop_err check_relations(const Coppice__Job *m, cop_error *error) {
    const Coppice__Train *t = m->train;
    if (t->has_epochs == t->has_steps)
        return cop_fail(error, COP_ERR_INPUT,
                        t->has_epochs ? "train has both epochs and steps: expected one of them"
                                      : "train has neither epochs nor steps: expected one of them");
    if (t->shards > t->batch)
        return cop_fail(error, COP_ERR_INPUT,
                        "train.shards is %u: a batch of %u samples gives at most %u shards",
                        t->shards, t->batch, t->batch);
    uint32_t shard = (t->batch + t->shards - 1) / t->shards;
    if (shard > COP_LEASE_SAMPLES_MAX)
        return cop_fail(error, COP_ERR_INPUT,
                        "train.shards is %u: a shard of %u samples is more than the %d that one "
                        "lease may hold; use at least %u shards",
                        t->shards, shard, COP_LEASE_SAMPLES_MAX,
                        (t->batch + COP_LEASE_SAMPLES_MAX - 1) / COP_LEASE_SAMPLES_MAX);
    const Coppice__Sgd *s = m->optimizer->sgd;
    if (s->nesterov && s->momentum == 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "optimizer.sgd.nesterov is true: it needs a momentum above 0");
    if (s->has_momentum_final && !s->momentum_steps)
        return cop_fail(
            error, COP_ERR_INPUT,
            "optimizer.sgd.momentum_final is given: momentum_steps must say how long the ramp is");
    if (m->evaluate->has_on && m->evaluate->on == COPPICE__EVALUATE__ON__VALIDATION &&
        !m->data->validation)
        return cop_fail(error, COP_ERR_INPUT,
                        "evaluate.on is validation, but data.validation is 0");
    return COP_OK;
}

/* ---- pinning ---- */

static cop_err pin(Coppice__Job *m, const cop_data *data, cop_error *error) {
    cop_data_view view;
    char digest[65];
    COP_TRY(cop_data_view_make(data, m->data->validation, m->data->samples, &view, error));
    if (!view.test && !view.validation)
        return cop_fail(error, COP_ERR_INPUT,
                        "data set %s has no test samples: set data.validation", data->name);
    Coppice__Pinned *p = cop_proto_alloc(&m->base, sizeof *p);
    if (!p) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    coppice__pinned__init(p);
    cop_hex32(data->digest, digest);
    p->data_digest = cop_proto_strdup(&m->base, digest);
    p->arithmetic = cop_proto_strdup(&m->base, "portable-1");
    p->sample_type = cop_proto_strdup(&m->base, data->train.type == COP_DATA_U8 ? "u8" : "f32");
    p->input = cop_proto_alloc(&m->base, 3 * sizeof *p->input);
    if (!p->data_digest || !p->arithmetic || !p->sample_type || !p->input)
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    p->n_input = (size_t)data->train.rank;
    for (int d = 0; d < data->train.rank; d++) p->input[d] = (uint32_t)data->train.dims[d];
    p->has_train_samples = p->has_validation_samples = p->has_test_samples = p->has_classes =
        p->has_steps = p->has_steps_per_epoch = 1;
    p->train_samples = view.train;
    p->validation_samples = view.validation;
    p->test_samples = view.test;
    p->classes = (uint32_t)data->classes;
    p->steps_per_epoch = cop_data_steps_per_epoch(view.train, m->train->batch,
                                                  m->train->last != COPPICE__TRAIN__LAST__DROP);
    double steps = m->train->has_steps ? (double)m->train->steps
                                       : ceil(m->train->epochs * (double)p->steps_per_epoch - 1e-9);
    if (steps < 1 || steps > 4294967295.0)
        return cop_fail(error, COP_ERR_INPUT,
                        "train.epochs gives %.0f steps: expected 1 to 4294967295", steps);
    p->steps = (uint64_t)steps;
    m->pinned = p;
    return COP_OK;
}

/* ---- building ---- */

static cop_err check_pinned(const Coppice__Job *m, cop_error *error) {
    const Coppice__Pinned *p = m->pinned;
    if (!p || !p->arithmetic || !p->sample_type || !p->data_digest || p->n_input < 1 ||
        p->n_input > 3 || !p->train_samples || !p->classes || !p->steps || !p->steps_per_epoch ||
        p->steps > 4294967295u)
        return cop_fail(error, COP_ERR_INPUT,
                        "the job is not complete: its pinned section is missing or damaged");
    if (strcmp(p->arithmetic, "portable-1") != 0)
        return cop_fail(
            error, COP_ERR_VERSION,
            "the job was started with the arithmetic %s; this program computes portable-1",
            p->arithmetic);
    uint64_t values = 1;
    for (size_t d = 0; d < p->n_input; d++) {
        values *= p->input[d];
        if (!p->input[d] || values > COP_UNITS_MAX)
            return cop_fail(error, COP_ERR_INPUT, "the job's sample shape is damaged");
    }
    return COP_OK;
}

static cop_err build(Coppice__Job *m, cop_job **out, cop_error *error) {
    COP_TRY(check_relations(m, error));
    COP_TRY(check_pinned(m, error));
    cop_job *job = cop_alloc(sizeof *job);
    if (!job) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = build_model(m, &job->model, error);
    if (e) {
        cop_free(job);
        return e;
    }
    const Coppice__Pinned *p = m->pinned;
    build_optimizer(m, p->steps, &job->optimizer);
    job->numerics = m->numerics == COPPICE__JOB__NUMERICS__OPENBLAS ? COP_NUMERICS_OPENBLAS
                                                                    : COP_NUMERICS_PORTABLE;
    job->seed = m->seed;
    job->batch = m->train->batch;
    job->shards = m->train->shards;
    job->last_keep = m->train->last != COPPICE__TRAIN__LAST__DROP;
    job->steps = p->steps;
    job->steps_per_epoch = p->steps_per_epoch;
    job->train_samples = p->train_samples;
    job->validation_samples = p->validation_samples;
    job->test_samples = p->test_samples;
    job->features = 1;
    for (size_t d = 0; d < p->n_input; d++) job->features *= p->input[d];
    job->sample_type = strcmp(p->sample_type, "f32") == 0 ? COP_DTYPE_F32 : COP_DTYPE_U8;
    job->sample_stride = (size_t)job->features * (job->sample_type == COP_DTYPE_F32 ? 4 : 1);
    job->evaluate_on_test = m->evaluate->has_on ? m->evaluate->on == COPPICE__EVALUATE__ON__TEST
                                                : p->validation_samples == 0;
    job->evaluate_every = m->evaluate->every;
    job->checkpoint_every = m->checkpoint->every;
    job->checkpoint_keep = m->checkpoint->keep;
    job->message = m;
    *out = job;
    return COP_OK;
}

static cop_err check_memory(const cop_job *job, cop_error *error) {
    uint64_t limit = job->message->limits->memory,
             needed =
                 cop_pass_bytes(job->model, (int)(job->batch < 1024 ? job->batch : 1024), true);
    if (!limit || needed <= limit) return COP_OK;
    char a[32], b[32];
    return cop_fail(error, COP_ERR_INPUT, "limits.memory is %s: a compute thread needs about %s",
                    cop_format_bytes((double)limit, a), cop_format_bytes((double)needed, b));
}

cop_err cop_job_create(Coppice__Job *message, const cop_data *data, cop_job **out,
                       cop_error *error) {
    COP_TRY(cop_document_resolve(message, error));
    COP_TRY(check_relations(message, error));
    COP_TRY(pin(message, data, error));
    COP_TRY(build(message, out, error));
    cop_err e = check_memory(*out, error);
    if (e) {
        (*out)->message = NULL; /* still the caller's */
        cop_job_destroy(*out);
    }
    return e;
}

cop_err cop_job_from_bytes(const void *bytes, size_t size, cop_job **out, cop_error *error) {
    ProtobufCMessage *message = NULL;
    COP_TRY(cop_proto_unpack(&coppice__job__descriptor, bytes, size, JOB_BUDGET, &message, error));
    Coppice__Job *m = (Coppice__Job *)message;
    cop_err e = cop_document_check(m, error);
    if (!e) e = cop_document_resolve(m, error);
    if (!e) e = build(m, out, error);
    if (e) cop_proto_free(message);
    return e;
}

cop_buffer *cop_job_pack(const cop_job *job) {
    return cop_proto_pack(&job->message->base);
}

void cop_job_destroy(cop_job *job) {
    if (!job) return;
    cop_model_destroy(job->model);
    if (job->message) cop_proto_free(&job->message->base);
    cop_free(job);
}

cop_err cop_job_view(const cop_job *job, const cop_data *data, cop_data_view *out,
                     cop_error *error) {
    char digest[65];
    cop_hex32(data->digest, digest);
    if (strcmp(digest, job->message->pinned->data_digest) != 0)
        return cop_fail(error, COP_ERR_INPUT,
                        "the job is pinned to the data %.16s..., but these are %.16s...",
                        job->message->pinned->data_digest, digest);
    return cop_data_view_make(data, job->message->data->validation, job->message->data->samples,
                              out, error);
}

void cop_job_warnings(const cop_job *job, cop_str *out) {
    const Coppice__Job *m = job->message;
    if (job->numerics == COP_NUMERICS_OPENBLAS)
        cop_str_append(out, "numerics: openblas: the weights depend on the CPU and on OpenBLAS' "
                            "version; only workers of one kind get leases\n");
    if (job->batch / job->shards < 4 && job->shards > 1)
        cop_str_printf(out,
                       "train.shards is %u: with a batch of %u, a shard has fewer than 4 samples, "
                       "which computes slowly\n",
                       job->shards, job->batch);
    if (m->train->has_epochs && m->train->epochs != floor(m->train->epochs))
        cop_str_printf(out, "train.epochs is %g: the last epoch is cut off after step %llu\n",
                       m->train->epochs, (unsigned long long)job->steps);
}

/* ---- data ---- */

/* A file of the job file: relative to the folder of the job file, or to --data. */
static char *resolve_file(const char *job_path, const char *folder, const char *file) {
    if (folder) return cop_path_join(folder, file);
    const char *slash = strrchr(job_path, '/');
    char *base = slash ? cop_strndup(job_path, (size_t)(slash - job_path)) : cop_strdup(".");
    char *path = base ? cop_path_join(base, file) : NULL;
    cop_free(base);
    return path;
}

static cop_err open_idx(const Coppice__Job *m, const char *job_path, const char *folder,
                        cop_data **out, cop_error *error) {
    const Coppice__DataFiles *train = m->data->train, *test = m->data->test;
    if (!train || !test)
        return cop_fail(
            error, COP_ERR_INPUT,
            "data.source is idx: expected data.train and data.test, each with images and labels");
    char *paths[4] = {resolve_file(job_path, folder, train->images),
                      resolve_file(job_path, folder, train->labels),
                      resolve_file(job_path, folder, test->images),
                      resolve_file(job_path, folder, test->labels)};
    cop_idx_files files = {paths[0], paths[1], paths[2], paths[3]};
    cop_err e = paths[0] && paths[1] && paths[2] && paths[3]
                    ? COP_OK
                    : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = cop_data_load_idx(&files, m->name, out, error);
    for (int i = 0; i < 4; i++) cop_free(paths[i]);
    return e;
}

cop_err cop_job_open_data(const Coppice__Job *message, const char *job_path, const char *folder,
                          cop_data **out, cop_error *error) {
    if (strcmp(message->data->source, "idx") == 0)
        return open_idx(message, job_path, folder, out, error);
    return cop_data_open(message->data->source, folder, out, error);
}

/* ---- plan ---- */

void cop_job_plan(const cop_job *job, int workers, cop_plan_figures *out) {
    uint64_t flat = (uint64_t)cop_model_floats(job->model) * 4;
    int columns = (int)(job->batch < 1024 ? job->batch : 1024);
    *out = (cop_plan_figures){.flop_per_sample = cop_model_flop(job->model)};
    out->wire_bytes_per_step =
        2 * flat * (uint64_t)workers + (uint64_t)job->batch * (job->sample_stride + 4);
    out->worker_bytes = cop_pass_bytes(job->model, columns, true) + 3 * flat;
    /* Two versions of weights and state, and one gradient from each worker. */
    out->coordinator_bytes =
        flat * (2 * (1 + (uint64_t)cop_optimizer_states(&job->optimizer)) + (uint64_t)workers);
}
