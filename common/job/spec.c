/* Converts a job's message to the specs of common/nn. A field of a layer or an optimizer goes to
 * the field of the spec that has the same name. See internal.h. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/job/internal.h"
#include "common/wire/reflect.h"

/* ---- layers ---- */

typedef struct spec_field {
    const char *name;
    size_t offset;
    enum { SPEC_I32, SPEC_U64, SPEC_F64, SPEC_BOOL, SPEC_ENUM } type;
} spec_field;
static const spec_field spec_fields[] = {
    {"units", offsetof(cop_layer_spec, units), SPEC_I32},
    {"p", offsetof(cop_layer_spec, p), SPEC_F64},
    {"max_norm", offsetof(cop_layer_spec, max_norm), SPEC_F64},
    {"bias", offsetof(cop_layer_spec, bias), SPEC_BOOL},
    {"channels", offsetof(cop_layer_spec, units), SPEC_I32},
    {"pieces", offsetof(cop_layer_spec, pieces), SPEC_I32},
    {"kernel", offsetof(cop_layer_spec, kernel), SPEC_I32},
    {"stride", offsetof(cop_layer_spec, stride), SPEC_I32},
    {"padding", offsetof(cop_layer_spec, padding), SPEC_I32},
    {"draws", offsetof(cop_layer_spec, draws), SPEC_I32},
    {"slope", offsetof(cop_layer_spec, slope), SPEC_F64},
    {"drop_bias", offsetof(cop_layer_spec, drop_bias), SPEC_BOOL},
    {"inference", offsetof(cop_layer_spec, inference), SPEC_ENUM},
    {"init", offsetof(cop_layer_spec, init), SPEC_ENUM},
    {"scope", offsetof(cop_layer_spec, scope), SPEC_ENUM},
    {"variant", offsetof(cop_layer_spec, variant), SPEC_ENUM},
};

static void copy_field(const spec_field *s, const void *from, void *spec) {
    char *to = (char *)spec + s->offset;
    switch (s->type) {
    case SPEC_I32:
        *(int32_t *)(void *)to = (int32_t)*(const uint32_t *)from;
        break;
    case SPEC_U64:
        *(uint64_t *)(void *)to = *(const uint64_t *)from;
        break;
    case SPEC_F64:
        *(double *)(void *)to = *(const double *)from;
        break;
    case SPEC_BOOL:
        *(bool *)to = *(const protobuf_c_boolean *)from != 0;
        break;
    case SPEC_ENUM:
        memcpy(to, from, sizeof(int));
        break; /* the enums of job.proto and of common/nn have the same numbers */
    }
}

static const spec_field *find_spec_field(const spec_field *fields, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(fields[i].name, name) == 0) return &fields[i];
    return NULL;
}

static void fill_spec(const cop_proto *m, const char *kind, cop_layer_spec *spec) {
    memset(spec, 0, sizeof *spec);
    snprintf(spec->kind, sizeof spec->kind, "%s", kind);
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const cop_proto_field *field = &m->descriptor->fields[i];
        const spec_field *s =
            find_spec_field(spec_fields, sizeof spec_fields / sizeof *spec_fields, field->name);
        COP_ASSERT(s != NULL); /* every field of a layer has a place in the spec */
        copy_field(s, cop_reflect_at(m, field, 0), spec);
    }
}

/* Returns the field that is set in a message of which only one field can be set, and its name in
 * *name. NULL: no field is set. */
static const cop_proto *chosen(const cop_proto *one_of, const char **name) {
    for (unsigned i = 0; i < one_of->descriptor->n_fields; i++) {
        const cop_proto_field *field = &one_of->descriptor->fields[i];
        if (!cop_reflect_is_set(one_of, field)) continue;
        *name = field->name;
        return cop_reflect_message(one_of, field, 0);
    }
    return NULL;
}

static cop_input_spec input_spec(const Coppice__Job *m) {
    const Coppice__Augment *a = m->data->augment;
    /* The enums of both normalizations have the same numbers. */
    cop_input_spec spec = {.normalize = (cop_normalize)m->data->normalize,
                           .mean = m->pinned->mean,
                           .std = m->pinned->std,
                           .channels = (int32_t)m->pinned->n_mean};
    if (!a) return spec;
    spec.shift = (int32_t)a->shift;
    spec.crop = (int32_t)a->crop;
    spec.flip = a->flip != 0;
    return spec;
}

cop_err job_build_model(const Coppice__Job *m, cop_model **out, cop_error *error) {
    COP_ASSERT(m->pinned && m->pinned->n_input <= 4 && m->pinned->n_mean == m->pinned->n_std);
    cop_layer_spec *layers = cop_alloc_array(m->n_model, sizeof *layers);
    if (!layers) return cop_no_memory(error);
    for (size_t i = 0; i < m->n_model; i++) {
        const char *kind = NULL;
        const cop_proto *layer = chosen(&m->model[i]->base, &kind);
        COP_ASSERT(layer != NULL); /* cop_document_check requires it */
        fill_spec(layer, kind, &layers[i]);
    }
    cop_model_spec spec = {.layers = layers,
                           .layer_count = (int)m->n_model,
                           .classes = (int32_t)m->pinned->classes,
                           .target_input = m->data->target == COPPICE__DATA__TARGET__INPUT,
                           .loss = m->loss->mse   ? COP_LOSS_MSE
                                   : m->loss->bce ? COP_LOSS_BCE
                                                  : COP_LOSS_CROSS_ENTROPY,
                           .smoothing =
                               m->loss->cross_entropy ? m->loss->cross_entropy->smoothing : 0,
                           .data = input_spec(m)};
    spec.input.rank = (int32_t)m->pinned->n_input;
    for (size_t d = 0; d < m->pinned->n_input; d++)
        spec.input.dims[d] = (int32_t)m->pinned->input[d];
    cop_err e = cop_model_create(&spec, out, error);
    cop_free(layers);
    return e;
}

/* ---- the optimizer ---- */

static const spec_field optimizer_fields[] = {
    {"rate", offsetof(cop_optimizer_spec, rate), SPEC_F64},
    {"momentum", offsetof(cop_optimizer_spec, momentum), SPEC_F64},
    {"momentum_final", offsetof(cop_optimizer_spec, momentum_final), SPEC_F64},
    {"momentum_steps", offsetof(cop_optimizer_spec, momentum_steps), SPEC_U64},
    {"nesterov", offsetof(cop_optimizer_spec, nesterov), SPEC_BOOL},
    {"weight_decay", offsetof(cop_optimizer_spec, weight_decay), SPEC_F64},
    {"l1", offsetof(cop_optimizer_spec, l1), SPEC_F64},
    {"beta1", offsetof(cop_optimizer_spec, beta1), SPEC_F64},
    {"beta2", offsetof(cop_optimizer_spec, beta2), SPEC_F64},
    {"alpha", offsetof(cop_optimizer_spec, alpha), SPEC_F64},
    {"epsilon", offsetof(cop_optimizer_spec, epsilon), SPEC_F64},
    {"warmup", offsetof(cop_optimizer_spec, schedule.warmup), SPEC_U64},
};

const Coppice__Schedule *job_schedule(const Coppice__Job *m) {
    const char *kind = NULL;
    const cop_proto *optimizer = chosen(&m->optimizer->base, &kind);
    COP_ASSERT(optimizer != NULL); /* cop_document_check requires it */
    const cop_proto_field *field = cop_reflect_find(optimizer->descriptor, "schedule");
    COP_ASSERT(field != NULL); /* every kind of optimizer has this field */
    return (const Coppice__Schedule *)cop_reflect_message(optimizer, field, 0);
}

static void build_schedule(const Coppice__Schedule *k, cop_schedule *out) {
    out->kind = COP_SCHEDULE_CONSTANT;
    if (k->step)
        out->kind = COP_SCHEDULE_STEP, out->every = k->step->every, out->factor = k->step->factor;
    if (k->inverse) out->kind = COP_SCHEDULE_INVERSE, out->decay = k->inverse->decay;
    if (k->exponential) out->kind = COP_SCHEDULE_EXPONENTIAL, out->factor = k->exponential->factor;
    if (k->cosine) out->kind = COP_SCHEDULE_COSINE, out->final = k->cosine->final;
}

void job_build_optimizer(const Coppice__Job *m, uint64_t steps, cop_optimizer_spec *out) {
    const char *kind = NULL;
    const cop_proto *optimizer = chosen(&m->optimizer->base, &kind);
    COP_ASSERT(optimizer != NULL && steps >= 1);
    *out = (cop_optimizer_spec){.kind = cop_optimizer_find(kind)};
    COP_ASSERT(out->kind != 0); /* common/nn knows every optimizer of the job file */
    bool ramp_ends = false;
    for (unsigned i = 0; i < optimizer->descriptor->n_fields; i++) {
        const cop_proto_field *field = &optimizer->descriptor->fields[i];
        if (strcmp(field->name, "schedule") == 0 || !cop_reflect_is_set(optimizer, field)) continue;
        const spec_field *s = find_spec_field(
            optimizer_fields, sizeof optimizer_fields / sizeof *optimizer_fields, field->name);
        COP_ASSERT(s != NULL); /* every field of an optimizer has a place in the spec */
        copy_field(s, cop_reflect_at(optimizer, field, 0), out);
        ramp_ends |= strcmp(field->name, "momentum_final") == 0;
    }
    if (!ramp_ends) out->momentum_final = out->momentum;
    out->schedule.total_steps = steps;
    build_schedule(job_schedule(m), &out->schedule);
}
