/* Shared by the files of common/job only. */
#ifndef COP_JOB_INTERNAL_H
#define COP_JOB_INTERNAL_H

#include "common/interchange/safetensors.h"
#include "common/job/job.h"

/* Replaces `normalize: auto` by `unit` if the samples look like bytes or are the targets of the
 * loss bce, else by `standard`. `m` is resolved. */
void job_settle_normalize(Coppice__Job *m, const cop_data *data);
/* Checks that the message has no field that its `data.source` does not have. INPUT: the error names
 * the field. */
cop_err job_check_format_fields(const Coppice__Job *m, cop_error *error);
/* Checks the relations between the fields of a resolved message (relations.c). INPUT: the error
 * names the field. */
cop_err job_check_relations(const Coppice__Job *m, cop_error *error);
/* Sets m->pinned from the data. Fails with INPUT if the message was already pinned to other data or
 * does not fit these (the error names the field), and with VERSION if it was pinned to another
 * arithmetic. */
cop_err job_pin(Coppice__Job *m, const cop_data *data, cop_error *error);
/* Checks a pinned section that comes from outside: it must be complete and agree with the fields of
 * the job. Fails with INPUT, or with VERSION if it names another arithmetic. */
cop_err job_check_pinned(const Coppice__Job *m, cop_error *error);

/* How the job divides its data into training and validation samples. `m` is resolved. */
cop_data_selection job_selection(const Coppice__Job *m);

/* Build the model and the optimizer spec of common/nn (spec.c). `m` is resolved, checked and
 * pinned. The caller owns *out of job_build_model. */
cop_err job_build_model(const Coppice__Job *m, cop_model **out, cop_error *error);
void job_build_optimizer(const Coppice__Job *m, uint64_t steps, cop_optimizer_spec *out);
/* The schedule of the job's optimizer. `m` is resolved. */
const Coppice__Schedule *job_schedule(const Coppice__Job *m);

/* Appends a line for each layer that is valid but of little use (warnings.c). */
void job_warn_of_layers(const cop_model *model, cop_str *out);

/* ---- model files (model_file.c) ---- */

/* Fills one entry per parameter. `prefix` (such as "momentum.") precedes the parameters' names. The
 * entries borrow `flat`. */
void job_fill_entries(const cop_job *job, const float *flat, const char *prefix,
                      cop_tensor_entry *entries);
/* An open safetensors file, and the path by which errors name it. */
typedef struct job_tensor_file {
    cop_safetensors *tensors;
    const char *path;
} job_tensor_file;
/* Reads all parameters by name (with `prefix` before it) into flat, and puts zeros into the gaps
 * between them. CORRUPT: a parameter is missing or has another type or shape. */
cop_err job_read_tensors(const cop_job *job, const job_tensor_file *file, const char *prefix,
                         float *flat, cop_error *error);
/* As job_read_tensors without a prefix, for a complete model file. Also checks the metadata and the
 * digest, and that there are no other tensors. *step becomes the completed steps of the file, or 0
 * if it does not name them. */
cop_err job_read_model(const cop_job *job, const job_tensor_file *file, float *flat, uint64_t *step,
                       cop_error *error);
/* The job in a model file's metadata. The caller frees it with cop_proto_free. INPUT: the file has
 * no job, or an invalid one. CORRUPT: the metadata do not match their checksum. */
cop_err job_message_of(const job_tensor_file *file, Coppice__Job **out, cop_error *error);

/* ---- checkpoints (checkpoint.c, checkpoint_state.c) ---- */

/* The fields of state.json that are not in cop_checkpoint. */
typedef struct job_state {
    char digest[65];         /* digest of the weights; for people and tools, never read back */
    uint64_t model_hash;     /* XXH3 of model.safetensors */
    uint64_t optimizer_hash; /* XXH3 of optimizer.safetensors */
} job_state;
/* Appends the text of state.json to `out`. */
void job_format_state(const cop_checkpoint *c, const job_state *s, cop_str *out);
/* Reads state.json: fills the hashes of *s and all fields of *c except weights and states. CORRUPT:
 * the file is damaged; any changed byte is noticed. */
cop_err job_read_state(const char *path, cop_checkpoint *c, job_state *s, cop_error *error);
/* Checks that `job` may continue from a checkpoint of the job `theirs`. Everything that decides the
 * bits of the coming steps must be equal; the comment of cop_checkpoint_load lists what may differ.
 * The check changes `theirs`, so the caller may only free it afterwards. Fails with INPUT if
 * something else differs; the error says that `path` belongs to another job, and names the first
 * field that differs. */
cop_err job_check_compatible(const cop_job *job, Coppice__Job *theirs, const char *path,
                             cop_error *error);

#endif
