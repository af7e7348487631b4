/* Inside common/job. */
#ifndef COP_JOB_INTERNAL_H
#define COP_JOB_INTERNAL_H

#include "common/interchange/safetensors.h"
#include "common/job/job.h"

/* normalize: auto becomes what suits the values: bytes are divided by 255, and so is what bce
 * compares with the input; other values are standardised. `m` is resolved. */
void job_settle_normalize(Coppice__Job *m, const cop_data *data);
/* Relations between the fields of a resolved message; INPUT says where (pin.c). */
/* Fields that only some formats of `data.source` have. */
cop_err job_check_format_fields(const Coppice__Job *m, cop_error *error);
cop_err job_check_relations(const Coppice__Job *m, cop_error *error);
/* Set m->pinned from the data; what the message was pinned to before must be these data. */
cop_err job_pin(Coppice__Job *m, const cop_data *data, cop_error *error);
/* Is a pinned section that came from outside whole, and does it follow from the job's fields? */
cop_err job_check_pinned(const Coppice__Job *m, cop_error *error);

/* How the job cuts its data. `m` is resolved. */
cop_data_cut job_cut(const Coppice__Job *m);

/* The specs of common/nn (spec.c). `m` is resolved, checked and pinned. */
cop_err job_build_model(const Coppice__Job *m, cop_model **out, cop_error *error);
void job_build_optimizer(const Coppice__Job *m, uint64_t steps, cop_optimizer_spec *out);
/* The schedule of whichever optimizer it is. `m` is resolved. */
const Coppice__Schedule *job_schedule(const Coppice__Job *m);

/* What is legal but of little use in a model: lines appended to out (warnings.c). */
void job_warn_of_layers(const cop_model *model, cop_str *out);

/* ---- model files (model_file.c) ---- */

/* One entry per parameter; `prefix` goes before the names ("momentum."). The data stay in `flat`.
 */
void job_fill_entries(const cop_job *job, const float *flat, const char *prefix,
                      cop_tensor_entry *entries);
/* All parameters by name into flat (gaps zeroed). CORRUPT if one is missing or of another shape. */
cop_err job_read_tensors(const cop_job *job, const cop_safetensors *file, const char *path,
                         const char *prefix, float *flat, cop_error *error);
/* The same for a whole model file: metadata, digest, no other tensors; step 0 if it names none. */
cop_err job_read_model(const cop_job *job, const cop_safetensors *file, const char *path,
                       float *flat, uint64_t *step, cop_error *error);
/* The job in a model file's metadata (cop_proto_free). */
cop_err job_message_of(const cop_safetensors *file, const char *path, Coppice__Job **out,
                       cop_error *error);

/* ---- checkpoints (checkpoint.c, checkpoint_state.c) ---- */

typedef struct job_state {
    char digest[65]; /* written for people, and for tools */
    uint64_t model_hash, optimizer_hash;
} job_state;
void job_format_state(const cop_checkpoint *c, const job_state *s, cop_str *out);
/* Fills step, sums, seconds and best of *c. CORRUPT when a byte is not as it was written. */
cop_err job_read_state(const char *path, cop_checkpoint *c, job_state *s, cop_error *error);
/* May `job` go on from a checkpoint of `theirs` (which is changed)? Everything that decides the
 * bits of the coming steps must be equal; name, priority, limits, evaluation, checkpoints may
 * differ, and the number of steps unless the schedule looks at it. INPUT says that it is of another
 * job. */
cop_err job_check_compatible(const cop_job *job, Coppice__Job *theirs, const char *path,
                             cop_error *error);

#endif
