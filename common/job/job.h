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
    Coppice__Job *message; /* resolved and pinned; owned */
    cop_model *model;      /* owned */
    cop_optimizer_spec optimizer;
    cop_numerics numerics;
    uint64_t seed;
    uint32_t batch;  /* number of samples in a minibatch */
    uint32_t shards; /* number of shards in a minibatch */
    bool bf16;       /* train.wire: gradients and weights are rounded to bf16 (portable-1.md) */
    bool last_keep;  /* train on the incomplete minibatch at the end of an epoch */
    uint64_t steps;  /* number of steps in the whole job */
    uint64_t steps_per_epoch;
    uint32_t train_samples, validation_samples, test_samples;
    uint32_t features; /* values of one sample */
    cop_dtype sample_type;
    size_t sample_stride;      /* bytes of one sample */
    bool evaluate_on_test;     /* false: evaluations use the validation samples */
    uint32_t evaluate_every;   /* epochs */
    uint64_t checkpoint_every; /* steps */
    uint32_t checkpoint_keep;  /* how many of the newest to keep, in addition to the best */
    atomic_int references;
} cop_job;

/* Adds a reference and returns its argument. Any thread. */
cop_job *cop_job_hold(cop_job *job);
/* Drops a reference; the last one frees the job with its message and model. NULL has no effect. Any
 * thread. */
void cop_job_release(cop_job *job);
/* Resolves `message` against the data set: fills in the defaults and `pinned`. Checks how its
 * fields fit each other and the data (for example, either epochs or steps are given, and shards <=
 * batch), and builds the job. On success the job owns `message`; on failure the caller keeps it.
 * Fails with INPUT if a field is wrong, which the error names, and with VERSION if the message is
 * pinned to another arithmetic. */
cop_err cop_job_create(Coppice__Job *message, const cop_data *data, cop_job **out,
                       cop_error *error);
/* Builds a job from its packed message, which is already pinned, without the data. Workers use it,
 * and the coordinator after a restart. Fails as cop_job_create does. */
cop_err cop_job_from_bytes(const void *bytes, size_t size, cop_job **out, cop_error *error);
/* The packed message, with one reference. NULL: out of memory. */
cop_buffer *cop_job_pack(const cop_job *job);
/* As cop_job_pack, without the fields that no worker needs: the class names, and fields that say
 * how to read files of data (data.drop, data.resize, data.layout). */
cop_buffer *cop_job_pack_for_workers(const cop_job *job);
/* Fills *out with the form of the samples that the job's model takes: type, shape and classes. */
void cop_job_sample_form(const cop_job *job, cop_data_form *out);
/* Checks that the job's model can take these data, which need not be the data that the job is
 * pinned to. The type and shape of the samples and the number of classes must agree. Fails with
 * INPUT if they differ; the error names both sides. Call this, or cop_job_view, before a model gets
 * samples of a cop_data. */
cop_err cop_job_check_data(const cop_job *job, const cop_data *data, cop_error *error);
/* Makes the job's view of its own data. Fails with INPUT if the job is pinned to other data: the
 * content, the form and the number of samples of each part must be the same. The caller frees the
 * view with cop_data_view_fini, except after an error. */
cop_err cop_job_view(const cop_job *job, const cop_data *data, cop_data_view *out,
                     cop_error *error);
/* The minimum [0] and the maximum [1] of the values of all training samples. */
typedef struct cop_job_value_ranges {
    double stored[2]; /* as the data set stores them */
    double seen[2];   /* as the network sees them: normalized, but not augmented */
} cop_job_value_ranges;
/* Computes the ranges over all training samples. Fails with INPUT as cop_job_view does. */
cop_err cop_job_values(const cop_job *job, const cop_data *data, cop_job_value_ranges *out,
                       cop_error *error);
/* Appends a line to `out` if the network sees values from which it can hardly learn. */
void cop_job_warn_of_values(const cop_job *job, const cop_data *data, cop_str *out);
/* Appends the warnings about the job itself to `out`, one per line. Appends nothing if there are
 * none. */
void cop_job_warnings(const cop_job *job, cop_str *out);

/* Opens the data of the job. If data.source is a file format, it reads the files that data.train
 * and data.test name. Their paths are relative to `folder` (--data); if that is NULL, they are
 * relative to the folder of the job file `job_path`. Otherwise data.source is the name of a data
 * set, which it opens by cop_data_open. The caller owns *out. */
cop_err cop_job_open_data(const Coppice__Job *message, const char *job_path, const char *folder,
                          cop_data **out, cop_error *error);

/* The order of the channels in arrays, as data.layout of the job file gives it. */
cop_data_order cop_job_order(const Coppice__Data *data);
/* The names of the classes, in the order of their numbers. The job owns them. NULL: the classes
 * have no names. */
const char *const *cop_job_class_names(const cop_job *job);
/* Returns the text that people see for a class: its name ("red"), which the job owns, or, without a
 * name, its number ("2"), which is written to `out`. */
const char *cop_job_class(const cop_job *job, int32_t number, char out[16]);

/* Model files. model.safetensors holds the parameters by name, without the gaps between them in
 * `flat`, and these metadata:
 *   coppice.job     the job as YAML text
 *   coppice.step    the number of completed steps
 *   coppice.digest  the digest of the weights
 *   coppice.check   a hash of the other three
 *
 * The functions that read a model file fail with CORRUPT if any byte of parameters or metadata was
 * changed. cop_job_save_model writes a file, completely or not at all. cop_job_encode_model makes
 * the bytes of the file instead; *out has one reference. */
cop_err cop_job_save_model(const cop_job *job, const float *flat, uint64_t step, const char *path,
                           cop_error *error);
cop_err cop_job_encode_model(const cop_job *job, const float *flat, uint64_t step, cop_buffer **out,
                             cop_error *error);
/* Loads a model file into flat, and its number of completed steps into *step; 0: the file does not
 * say. Fails with CORRUPT if names, shapes or types of the tensors are not those of the job, or if
 * the digest does not match. */
cop_err cop_job_load_model(const cop_job *job, const char *path, float *flat, uint64_t *step,
                           cop_error *error);
/* A trained model with its job. After an error all fields are 0. */
typedef struct cop_saved_model {
    cop_job *job;  /* owned: cop_job_release */
    float *flat;   /* the weights, cop_model_floats long; owned: cop_free */
    uint64_t step; /* completed steps; 0: the file does not say */
} cop_saved_model;
/* Opens a model file whose job the caller does not have: builds the job from the metadata. The
 * caller owns what is in *out. `path` is one of these:
 *   a model file
 *   a checkpoint folder
 *   a file `latest` or `best`: the checkpoint that it names
 *   a run folder: its model.safetensors or, if there is none yet, its latest checkpoint */
cop_err cop_job_open_model(const char *path, cop_saved_model *out, cop_error *error);

/* Opens the weights at a path as cop_job_open_model does, if they are weights of `job`. The caller
 * frees *flat with cop_free. Fails with INPUT if they belong to another job (cop_checkpoint_load
 * says what may differ) or to a step beyond the end of this job. */
cop_err cop_job_open_weights(const cop_job *job, const char *path, float **flat, uint64_t *step,
                             cop_error *error);

/* As cop_job_open_model, for the bytes of a model file in memory. `what` names them in errors. */
cop_err cop_job_decode_model(const void *bytes, size_t size, const char *what, cop_saved_model *out,
                             cop_error *error);

/* Checkpoints. The folder of a run has these files:
 *   checkpoints/step-00000500/model.safetensors      the weights
 *   checkpoints/step-00000500/optimizer.safetensors  the states of the optimizer
 *   checkpoints/step-00000500/state.json             the rest of cop_checkpoint, the digest of the
 *                                                    weights, and the XXH3 of both other files
 *   checkpoints/latest                               the name of the newest checkpoint
 *   checkpoints/best                                 the name of the best one, if has_best
 *
 * A checkpoint is written to a temporary folder, fsynced and renamed. Then all checkpoints are
 * removed but the newest checkpoint_keep and the best. Those of later steps than the one just
 * written are removed, too: they belong to an earlier run in this folder. */
typedef struct cop_checkpoint {
    uint64_t step;
    const float *weights;   /* to be saved; NULL after loading */
    const float *states[2]; /* the optimizer's state buffers, to be saved; NULL after loading */
    double train_loss_sum;  /* over the samples of the current epoch so far; restored exactly */
    uint64_t train_samples; /* number of samples trained so far in the current epoch */
    uint64_t train_correct; /* of these, the samples that were classified correctly */
    double seconds;         /* of training so far */
    double best_error;      /* error or loss of the best checkpoint; may be < 0 if it is a loss */
    bool has_best;          /* false: there is no best checkpoint, and best_error is unused */
    bool is_best;           /* this checkpoint is the best one so far */
} cop_checkpoint;
/* Writes a checkpoint, completely or not at all, and removes those that are no longer kept. */
cop_err cop_checkpoint_save(const cop_job *job, const char *folder,
                            const cop_checkpoint *checkpoint, cop_error *error);
#define COP_CHECKPOINT_ANY_STEP UINT64_MAX
/* Where to look for a checkpoint, and which ones to try. */
typedef struct cop_checkpoint_source {
    const char *folder; /* the run folder, which holds the folder `checkpoints` */
    uint64_t max_step;  /* ignore checkpoints of later steps; COP_CHECKPOINT_ANY_STEP: try all */
    cop_str *notes;     /* a line is appended for each damaged checkpoint tried; NULL: no notes */
} cop_checkpoint_source;
/* The caller's buffers for what a checkpoint holds, each cop_model_floats long. */
typedef struct cop_checkpoint_buffers {
    float *weights;
    float *states[2]; /* as many as the optimizer has; the others are NULL */
} cop_checkpoint_buffers;
/* Loads the newest intact checkpoint. Tries the one that `latest` names, then the others from the
 * newest to the oldest. Skips damaged checkpoints, and checkpoints of a step beyond the job's end.
 * Fills the buffers and *checkpoint; after an error their content is undefined. Also appends a line
 * to from->notes if it skipped checkpoints beyond the end of the job and loaded an earlier one.
 *
 * Fails with NOT_FOUND if there is no intact checkpoint, and with INPUT if the only intact ones lie
 * beyond the end of the job. Also fails with INPUT as soon as it meets a checkpoint of another job.
 * Two jobs are the same if they compute the same weights: name, priority, audit, limits, evaluate,
 * checkpoint and the names and formats of the data files may differ. The number of steps may differ
 * unless the schedule is cosine, which depends on it. */
cop_err cop_checkpoint_load(const cop_job *job, const cop_checkpoint_source *from,
                            const cop_checkpoint_buffers *into, cop_checkpoint *checkpoint,
                            cop_error *error);

/* Removes the checkpoints of later steps than `step` (0: all), because they cannot be trusted. If
 * `latest` names one of them, it is set to `step`, or removed if `step` is 0 or writing fails. If
 * the best checkpoint is among them, the file `best` is removed and checkpoint->has_best becomes
 * false. After success the removed checkpoints never return, even after a loss of power. After a
 * failure some may remain, and training must not continue before another attempt succeeds. A full
 * disk does not make it fail. */
cop_err cop_checkpoint_discard_after(const char *folder, uint64_t step, cop_checkpoint *checkpoint,
                                     cop_error *error);

/* Checks that a job can continue from the content of the run folder. Succeeds also if there is no
 * intact checkpoint. Fails with INPUT as cop_checkpoint_load does. Writes nothing. */
cop_err cop_checkpoint_check(const cop_job *job, const char *folder, cop_error *error);

/* The bytes of a gradient, or of the weights of a training lease, as they are sent. */
size_t cop_job_sent_bytes(const cop_job *job);

/* Estimates for `plan`. */
typedef struct cop_plan_figures {
    double flop_per_sample;       /* floating-point operations of the forward pass */
    uint64_t wire_bytes_per_step; /* weights to each worker, gradients back, and the samples */
    uint64_t worker_bytes;        /* memory of a worker with one compute thread */
    uint64_t coordinator_bytes;   /* memory of the coordinator */
} cop_plan_figures;
/* Estimates the cost of a job on this number of workers. */
void cop_job_plan(const cop_job *job, int workers, cop_plan_figures *out);

#endif
