/* Jobs: resolves the protobuf message against its data and converts it to the specs of common/nn.
 * See job.h. */
#include "common/job/job.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/job/internal.h"
#include "common/wire/codec.h"

#define JOB_BUDGET  (16u << 20)
#define COLUMNS_MAX 1024 /* the most samples that a pass runs at once, in estimates of memory */

/* ---- building ---- */

/* Prefixes an error with the file and line of the wrong field, if the text of the error begins with
 * such a field. Errors of common/nn and common/data do ("model[3] linear: ..."). Returns `e`. */
static cop_err locate(const Coppice__Job *m, cop_err e, cop_error *error) {
    char field[64], where[400];
    if (!e || !error) return e;
    size_t length = strspn(error->text, "abcdefghijklmnopqrstuvwxyz_.[]0123456789");
    snprintf(field, sizeof field, "%.*s", (int)length, error->text);
    if (error->text[length] != ' ') return e; /* no field, but something else, e.g. a file name */
    if (strncmp(field, "model", 5) != 0 && strncmp(field, "data.", 5) != 0) return e;
    cop_document_where(m, field, where, sizeof where);
    return where[0] ? cop_error_prefix(error, "%s", where) : e;
}

static void copy_fields(const Coppice__Job *m, cop_job *job) {
    const Coppice__Pinned *p = m->pinned;
    COP_ASSERT(m->train->shards >= 1 && m->train->shards <= m->train->batch);
    COP_ASSERT(p->steps >= 1 && p->steps_per_epoch >= 1);
    job->numerics = m->numerics == COPPICE__JOB__NUMERICS__OPENBLAS ? COP_NUMERICS_OPENBLAS
                                                                    : COP_NUMERICS_PORTABLE;
    job->seed = m->seed;
    job->batch = m->train->batch;
    job->shards = m->train->shards;
    job->bf16 = m->train->wire == COPPICE__WIRE_PRECISION__BF16;
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
    COP_ASSERT((int)job->features == cop_model_features(job->model));
}

/* Builds the job around the message. The job owns the message on success only. */
static cop_err build(Coppice__Job *m, cop_job **out, cop_error *error) {
    COP_ASSERT(m->pinned);
    cop_job *job = cop_alloc(sizeof *job);
    if (!job) return cop_no_memory(error);
    cop_err e = locate(m, job_build_model(m, &job->model, error), error);
    if (e) {
        cop_free(job);
        return e;
    }
    atomic_init(&job->references, 1);
    job_build_optimizer(m, m->pinned->steps, &job->optimizer);
    copy_fields(m, job);
    job->message = m;
    *out = job;
    return COP_OK;
}

static cop_err check_memory(const cop_job *job, cop_error *error) {
    uint64_t limit = job->message->limits->memory,
             needed = cop_pass_bytes(job->model,
                                     (int)(job->batch < COLUMNS_MAX ? job->batch : COLUMNS_MAX),
                                     COP_PASS_TRAIN);
    if (!limit || needed <= limit) return COP_OK;
    char a[32], b[32];
    return cop_document_fail(job->message, "limits.memory", error,
                             "limits.memory is %s: a compute thread needs about %s",
                             cop_format_bytes((double)limit, a),
                             cop_format_bytes((double)needed, b));
}

cop_err cop_job_create(Coppice__Job *message, const cop_data *data, cop_job **out,
                       cop_error *error) {
    cop_job *job = NULL;
    COP_TRY(cop_document_check_read(message, error));
    COP_TRY(cop_document_resolve(message, error));
    job_settle_normalize(message, data);
    COP_TRY(job_check_relations(message, error));
    COP_TRY(locate(message, job_pin(message, data, error), error));
    COP_TRY(build(message, &job, error));
    cop_err e = check_memory(job, error);
    if (e) {
        job->message = NULL; /* the caller keeps it */
        cop_job_release(job);
        return e;
    }
    *out = job;
    return COP_OK;
}

cop_err cop_job_from_bytes(const void *bytes, size_t size, cop_job **out, cop_error *error) {
    ProtobufCMessage *message = NULL;
    COP_TRY(cop_proto_unpack(&coppice__job__descriptor, bytes, size, JOB_BUDGET, &message, error));
    Coppice__Job *m = (Coppice__Job *)message;
    cop_err e = cop_document_check(m, error);
    if (!e) e = cop_document_resolve(m, error);
    if (!e) e = job_check_relations(m, error);
    if (!e) e = job_check_pinned(m, error);
    if (!e) e = build(m, out, error);
    if (e) cop_proto_free(message);
    return e;
}

cop_buffer *cop_job_pack(const cop_job *job) {
    return cop_proto_pack(&job->message->base);
}

cop_buffer *cop_job_pack_for_workers(const cop_job *job) {
    COP_ASSERT(job->message && job->message->pinned);
    Coppice__Job m = *job->message;
    Coppice__Data data = *m.data;
    Coppice__Pinned pinned = *m.pinned;
    data.n_drop = data.n_resize = pinned.n_class_names = 0;
    data.has_layout = 0;
    m.data = &data;
    m.pinned = &pinned;
    return cop_proto_pack(&m.base);
}

const char *const *cop_job_class_names(const cop_job *job) {
    const Coppice__Pinned *p = job->message->pinned;
    return p->n_class_names ? (const char *const *)p->class_names : NULL;
}

const char *cop_job_class(const cop_job *job, int32_t number, char out[16]) {
    const Coppice__Pinned *p = job->message->pinned;
    if (number >= 0 && (size_t)number < p->n_class_names) return p->class_names[number];
    snprintf(out, 16, "%d", number);
    return out;
}

cop_job *cop_job_hold(cop_job *job) {
    const int before = atomic_fetch_add_explicit(&job->references, 1, memory_order_relaxed);
    COP_ASSERT(before >= 1);
    return job;
}

void cop_job_release(cop_job *job) {
    if (!job) return;
    const int before = atomic_fetch_sub_explicit(&job->references, 1, memory_order_acq_rel);
    COP_ASSERT(before >= 1);
    if (before > 1) return;
    cop_model_destroy(job->model);
    if (job->message) cop_proto_free(&job->message->base);
    cop_free(job);
}

void cop_job_warnings(const cop_job *job, cop_str *out) {
    const Coppice__Job *m = job->message;
    if (job->numerics == COP_NUMERICS_OPENBLAS)
        cop_str_append(out, "numerics: openblas: the weights depend on the CPU and on OpenBLAS' "
                            "version; only workers of one kind get leases\n");
    if (job->batch / job->shards < 4 && job->shards > 1)
        cop_str_printf(out,
                       "train.shards is %u: with a batch of %u, a shard has fewer than 4 samples, "
                       "which is slow\n",
                       job->shards, job->batch);
    if (m->train->has_epochs && m->train->epochs != floor(m->train->epochs))
        cop_str_printf(out, "train.epochs is %g: the last epoch ends early, after step %llu\n",
                       m->train->epochs, (unsigned long long)job->steps);
    job_warn_of_layers(job->model, out);
}

size_t cop_job_sent_bytes(const cop_job *job) {
    const size_t floats = (size_t)cop_model_floats(job->model);
    return floats * (job->bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* ---- plan ---- */

void cop_job_plan(const cop_job *job, int workers, cop_plan_figures *out) {
    COP_ASSERT(workers >= 0);
    uint64_t flat = (uint64_t)cop_model_floats(job->model) * 4, sent = cop_job_sent_bytes(job);
    int columns = (int)(job->batch < COLUMNS_MAX ? job->batch : COLUMNS_MAX);
    *out = (cop_plan_figures){.flop_per_sample = cop_model_flop(job->model)};
    out->wire_bytes_per_step =
        2 * sent * (uint64_t)workers + (uint64_t)job->batch * (job->sample_stride + 4);
    out->worker_bytes = cop_pass_bytes(job->model, columns, COP_PASS_TRAIN) + 3 * flat;
    /* The coordinator holds two versions of the weights and states, and one gradient per worker. */
    out->coordinator_bytes =
        flat * 2 * (1 + (uint64_t)cop_optimizer_states(&job->optimizer)) + sent * (uint64_t)workers;
    if (!job->bf16) return;
    out->worker_bytes += 2 * sent;      /* what it received, and what it sends */
    out->coordinator_bytes += 2 * sent; /* both versions of the weights as they are sent */
}
