/* Shared by the files of common/job only. */
#ifndef COP_JOB_INTERNAL_H
#define COP_JOB_INTERNAL_H

#include "common/interchange/safetensors.h"
#include "common/job/job.h"

/* Replaces normalize: auto by the choice for these values: unit for bytes and for the targets of
 * bce, else standard. `m` is resolved. */
void job_settle_normalize(Coppice__Job *m, const cop_data *data);
/* Checks the fields that only some formats of `data.source` have. INPUT: the error names the field.
 */
cop_err job_check_format_fields(const Coppice__Job *m, cop_error *error);
/* Checks the relations between the fields of a resolved message (relations.c). INPUT: the error
 * names the field. */
cop_err job_check_relations(const Coppice__Job *m, cop_error *error);
/* Sets m->pinned from the data. INPUT: the message was already pinned to other data. */
cop_err job_pin(Coppice__Job *m, const cop_data *data, cop_error *error);
/* Checks a pinned section from outside: it must be complete and follow from the job's fields. */
cop_err job_check_pinned(const Coppice__Job *m, cop_error *error);

/* How the job divides its data. `m` is resolved. */
cop_data_selection job_selection(const Coppice__Job *m);

/* Build the specs of common/nn (spec.c). `m` is resolved, checked and pinned. The caller owns *out.
 */
cop_err job_build_model(const Coppice__Job *m, cop_model **out, cop_error *error);
void job_build_optimizer(const Coppice__Job *m, uint64_t steps, cop_optimizer_spec *out);
/* The schedule of the job's optimizer. `m` is resolved. */
const Coppice__Schedule *job_schedule(const Coppice__Job *m);

/* Appends lines about a model's legal but useless layers (warnings.c). */
void job_warn_of_layers(const cop_model *model, cop_str *out);

/* ---- model files (model_file.c) ---- */

/* Fills one entry per parameter; `prefix` ("momentum.") precedes the names. Borrows `flat`. */
void job_fill_entries(const cop_job *job, const float *flat, const char *prefix,
                      cop_tensor_entry *entries);
/* An open safetensors file, and what errors call it. */
typedef struct job_tensor_file {
    cop_safetensors *tensors;
    const char *path;
} job_tensor_file;
/* Reads all parameters by name into flat, with zeros in the gaps. CORRUPT: one is missing or has
 * another shape. */
cop_err job_read_tensors(const cop_job *job, const job_tensor_file *file, const char *prefix,
                         float *flat, cop_error *error);
/* As job_read_tensors, for a complete model file: checks metadata and digest, and that there are no
 * other tensors. *step is 0 if the file names none. */
cop_err job_read_model(const cop_job *job, const job_tensor_file *file, float *flat, uint64_t *step,
                       cop_error *error);
/* The job in a model file's metadata; the caller frees it with cop_proto_free. */
cop_err job_message_of(const job_tensor_file *file, Coppice__Job **out, cop_error *error);

/* ---- checkpoints (checkpoint.c, checkpoint_state.c) ---- */

typedef struct job_state {
    char digest[65]; /* written for people and for tools */
    uint64_t model_hash, optimizer_hash;
} job_state;
/* Formats state.json. */
void job_format_state(const cop_checkpoint *c, const job_state *s, cop_str *out);
/* Reads state.json: fills step, sums, seconds and best of *c. CORRUPT: any byte was changed. */
cop_err job_read_state(const char *path, cop_checkpoint *c, job_state *s, cop_error *error);
/* May `job` go on from a checkpoint of `theirs` (which is changed)? Everything that decides the
 * bits of the coming steps must be equal; name, priority, limits, evaluation, checkpoints may
 * differ, and the number of steps unless the schedule looks at it. INPUT says that it is of another
 * job. */
cop_err job_check_compatible(const cop_job *job, Coppice__Job *theirs, const char *path,
                             cop_error *error);

#endif
