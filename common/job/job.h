/* A job as the programs use it: the protobuf message, resolved against its data, checked as a
 * whole, and turned into the plain specs of common/nn. Coordinator and worker both build it from
 * the same bytes, so they cannot disagree. A cop_job never changes, so any thread may read it; it
 * is reference-counted. */
#ifndef COP_JOB_JOB_H
#define COP_JOB_JOB_H

#include <stdatomic.h>

#include "common/data/data.h"
#include "common/data/samples.h"
#include "common/nn/model.h"
#include "common/nn/optim.h"
#include "common/wire/document.h"

typedef struct cop_job {
    Coppice__Job *message; /* resolved, pinned */
    cop_model *model;
    cop_optimizer_spec optimizer;
    cop_numerics numerics;
    uint64_t seed;
    uint32_t batch, shards;
    bool last_keep;
    uint64_t steps, steps_per_epoch;
    uint32_t train_samples, validation_samples, test_samples;
    uint32_t features; /* values of one sample */
    cop_dtype sample_type;
    size_t sample_stride; /* bytes */
    bool evaluate_on_test;
    uint32_t evaluate_every; /* epochs */
    uint64_t checkpoint_every;
    uint32_t checkpoint_keep;
    atomic_int references;
} cop_job;

/* Adds a reference and returns its argument. Any thread. */
cop_job *cop_job_hold(cop_job *job);
/* Drops a reference; the last one frees the job with its message and model. NULL has no effect. Any
 * thread. */
void cop_job_release(cop_job *job);
/* Resolves `message` against the data set (fills defaults and `pinned`), checks relations (shards
 * <= batch, shapes, classes, epochs xor steps, validation < samples ...) and builds the job. On
 * success the job owns `message`; on failure the caller keeps it. INPUT: the error names the field.
 */
cop_err cop_job_create(Coppice__Job *message, const cop_data *data, cop_job **out,
                       cop_error *error);
/* As cop_job_create, from the packed and pinned message alone (in a worker, or in a coordinator
 * after a restart). */
cop_err cop_job_from_bytes(const void *bytes, size_t size, cop_job **out, cop_error *error);
/* The packed message, with one reference. NULL: out of memory. */
cop_buffer *cop_job_pack(const cop_job *job);
/* As cop_job_pack, without the fields that no worker needs: how to read files, and class names. */
cop_buffer *cop_job_pack_for_workers(const cop_job *job);
/* The form of the samples that the job's model takes. */
void cop_job_form(const cop_job *job, cop_data_form *out);
/* Can the job's model take these data, which may be other data than the job is pinned to? The type
 * and shape of the samples and the number of classes must agree. INPUT: no, with the difference.
 * Call this, or cop_job_view, before a model gets samples of a cop_data. */
cop_err cop_job_check_data(const cop_job *job, const cop_data *data, cop_error *error);
/* The job's view of its own data. INPUT: the data are not those that the job is pinned to (content,
 * form, number of samples of each part). Free with cop_data_view_fini; after an error there is
 * nothing to free. */
cop_err cop_job_view(const cop_job *job, const cop_data *data, cop_data_view *out,
                     cop_error *error);
/* The minimum and maximum of the training samples, as stored and as the network sees them
 * (normalized, without augmentation). */
typedef struct cop_job_value_ranges {
    double stored[2], seen[2];
} cop_job_value_ranges;
/* Computes the ranges over all training samples. INPUT as in cop_job_view. */
cop_err cop_job_values(const cop_job *job, const cop_data *data, cop_job_value_ranges *out,
                       cop_error *error);
/* Appends a line if the network sees values from which it can hardly learn. */
void cop_job_warn_of_values(const cop_job *job, const cop_data *data, cop_str *out);
/* Appends warnings about the job itself, one sentence per line; nothing if there are none. */
void cop_job_warnings(const cop_job *job, cop_str *out);

/* Opens the data that the job names: in `folder` (--data), by its source, or as files relative to
 * the folder of the job file. The caller owns *out. */
cop_err cop_job_open_data(const Coppice__Job *message, const char *job_path, const char *folder,
                          cop_data **out, cop_error *error);

/* The order of the channels in arrays, by the job file. */
cop_data_order cop_job_order(const Coppice__Data *data);
/* The class names, by number; NULL: the classes have no names. Owned by the job. */
const char *const *cop_job_class_names(const cop_job *job);
/* A class for people: its name ("red"), or its number ("2") in `out`. */
const char *cop_job_class(const cop_job *job, int32_t number, char out[16]);

/* Model files: model.safetensors has the parameters by name (without gaps) and the metadata
 * {"coppice.job": the job as YAML text, "coppice.step", "coppice.digest", "coppice.check"}. Any
 * changed byte of either is detected (CORRUPT). save writes a file, completely or not at all;
 * encode gives its bytes, with one reference. */
cop_err cop_job_save_model(const cop_job *job, const float *flat, uint64_t step, const char *path,
                           cop_error *error);
cop_err cop_job_encode_model(const cop_job *job, const float *flat, uint64_t step, cop_buffer **out,
                             cop_error *error);
/* Loads a model file into flat. CORRUPT: names, shapes, type or digest do not match. */
cop_err cop_job_load_model(const cop_job *job, const char *path, float *flat, uint64_t *step,
                           cop_error *error);
/* A trained model with its job. After an error all fields are 0. */
typedef struct cop_saved_model {
    cop_job *job;  /* owned: cop_job_release */
    float *flat;   /* owned: cop_free; cop_model_floats long */
    uint64_t step; /* completed steps; 0: the file does not say */
} cop_saved_model;
/* Opens a model file without its job: builds the job from the metadata. `path` is a model file, a
 * checkpoint folder, a run folder, or its file checkpoints/latest or best. The caller owns what is
 * in *out. */
cop_err cop_job_open_model(const char *path, cop_saved_model *out, cop_error *error);

/* As cop_job_open_model, for a path with weights of `job`. INPUT: they belong to another job (see
 * cop_checkpoint_load), or to a step beyond the end of this one. */
cop_err cop_job_open_weights(const cop_job *job, const char *path, float **flat, uint64_t *step,
                             cop_error *error);

/* As cop_job_open_model, from memory; `what` names the bytes in errors. */
cop_err cop_job_decode_model(const void *bytes, size_t size, const char *what, cop_saved_model *out,
                             cop_error *error);

/* Checkpoints: folder/checkpoints/step-00000500/{model.safetensors, optimizer.safetensors,
 * state.json}, and the file `latest` with the name of the newest. state.json has step, digest, the
 * XXH3 of both files, and the metrics so far. A checkpoint is written to a temporary folder,
 * fsynced and renamed. The last `keep` and the best remain (the file `best` names it; there is none
 * unless has_best). Checkpoints newer than the one just written belong to an earlier life of
 * the folder, and are removed. */
typedef struct cop_checkpoint {
    uint64_t step;
    const float *weights;   /* to be saved; NULL after loading */
    const float *states[2]; /* likewise: the optimizer's state buffers */
    double train_loss_sum;  /* sums over the current epoch so far, restored exactly */
    uint64_t train_samples, train_correct;
    double seconds;    /* of training so far */
    double best_error; /* or loss, which may be negative; unused without has_best */
    bool has_best, is_best;
} cop_checkpoint;
/* Writes a checkpoint, completely or not at all, and removes those that are no longer kept. */
cop_err cop_checkpoint_save(const cop_job *job, const char *folder,
                            const cop_checkpoint *checkpoint, cop_error *error);
#define COP_CHECKPOINT_ANY_STEP UINT64_MAX
/* Where to look for a checkpoint. */
typedef struct cop_checkpoint_source {
    const char *folder; /* that holds `checkpoints` */
    uint64_t max_step;  /* checkpoints of later steps are ignored; COP_CHECKPOINT_ANY_STEP: none */
    cop_str *notes;     /* gets a line for each unusable checkpoint; NULL: not wanted */
} cop_checkpoint_source;
/* The caller's buffers for what a checkpoint holds, each cop_model_floats long. */
typedef struct cop_checkpoint_buffers {
    float *weights;
    float *states[2]; /* as many as the optimizer keeps */
} cop_checkpoint_buffers;
/* Loads the newest intact checkpoint: tries `latest`, then the others downwards. Fills the buffers
 * and *checkpoint. from->notes also gets a line if later checkpoints lie beyond the end of the job.
 * NOT_FOUND: there is none. INPUT: all are of another job (name, priority, limits, evaluate and
 * checkpoint may differ; the number of steps too, unless the schedule depends on it) or of a step
 * beyond the end of this one. */
cop_err cop_checkpoint_load(const cop_job *job, const cop_checkpoint_source *from,
                            const cop_checkpoint_buffers *into, cop_checkpoint *checkpoint,
                            cop_error *error);

/* Removes the checkpoints after `step` (0: all), because they cannot be trusted. `latest` then
 * names the newest remaining one. If the best was removed, there is no best, and
 * checkpoint->has_best is false. On success the removed ones never return, even after a loss of
 * power. On failure some may remain; training must not continue before another attempt succeeds. A
 * full disk does not make it fail. */
cop_err cop_checkpoint_discard_after(const char *folder, uint64_t step, cop_checkpoint *checkpoint,
                                     cop_error *error);

/* Can a job continue from the content of the folder? OK also if there is nothing to continue from.
 * INPUT as in cop_checkpoint_load. Writes nothing. */
cop_err cop_checkpoint_check(const cop_job *job, const char *folder, cop_error *error);

/* Estimates for `plan`. */
typedef struct cop_plan_figures {
    double flop_per_sample;                   /* of the forward pass */
    uint64_t wire_bytes_per_step;             /* weights out, gradients back, samples */
    uint64_t worker_bytes, coordinator_bytes; /* memory */
} cop_plan_figures;
/* Estimates the cost of a job on this number of workers. */
void cop_job_plan(const cop_job *job, int workers, cop_plan_figures *out);

#endif
