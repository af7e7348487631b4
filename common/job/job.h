/* A job as the programs understand it: the protobuf message resolved against its data, checked as a
 * whole, and turned into the plain specs of common/nn. Coordinator and worker both build it from
 * the same bytes, so they cannot disagree. */
#ifndef COP_JOB_JOB_H
#define COP_JOB_JOB_H

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
} cop_job;

/* Resolve `message` against the data set (fills defaults and `pinned`), check relations (shards <=
 * batch, shapes, classes, epochs xor steps, validation < samples ...) and build. Takes `message`
 * over only on success. INPUT errors name the field. */
cop_err cop_job_create(Coppice__Job *message, const cop_data *data, cop_job **out,
                       cop_error *error);
/* From the packed, pinned message alone (worker; coordinator after a restart). */
cop_err cop_job_from_bytes(const void *bytes, size_t size, cop_job **out, cop_error *error);
cop_buffer *cop_job_pack(const cop_job *job); /* NULL: out of memory */
/* The same without what no worker needs: how files are read, and names of classes. */
cop_buffer *cop_job_pack_for_workers(const cop_job *job);
void cop_job_destroy(cop_job *job);
/* Samples that the job's model takes. */
void cop_job_form(const cop_job *job, cop_data_form *out);
/* May the job's model see these data, which need not be those that the job is pinned to? Type and
 * shape of the samples and the number of classes must agree; INPUT says what differs. Nothing may
 * give samples of a cop_data to a model before this or cop_job_view. */
cop_err cop_job_check_data(const cop_job *job, const cop_data *data, cop_error *error);
/* What the job sees of its own data. They must be what it is pinned to: content, form, and number
 * of samples of each part; INPUT. Free with cop_data_view_fini; after an error there is nothing to
 * free. */
cop_err cop_job_view(const cop_job *job, const cop_data *data, cop_data_view *out,
                     cop_error *error);
/* Least and largest value of the training samples, as they are stored and as the network sees them
 * (normalised, without augmentation). */
typedef struct cop_job_value_ranges {
    double stored[2], seen[2];
} cop_job_value_ranges;
cop_err cop_job_values(const cop_job *job, const cop_data *data, cop_job_value_ranges *out,
                       cop_error *error);
/* Appends a line to out if the network sees values that it will hardly learn from. */
void cop_job_warn_of_values(const cop_job *job, const cop_data *data, cop_str *out);
/* Warnings a person would want (list of sentences into out, '\n' separated; empty if none). */
void cop_job_warnings(const cop_job *job, cop_str *out);

/* Opens the data that the job names: --data folder, the source, or files relative to the job file's
 * folder. */
cop_err cop_job_open_data(const Coppice__Job *message, const char *job_path, const char *folder,
                          cop_data **out, cop_error *error);

/* Where arrays have their channels, as the job says. */
cop_data_order cop_job_order(const Coppice__Data *data);
/* The names of the classes by number; NULL: they have none. */
const char *const *cop_job_class_names(const cop_job *job);
/* "red", or "2" where classes have no names; into `out` if need be. */
const char *cop_job_class(const cop_job *job, int32_t number, char out[16]);

/* Model files: model.safetensors with parameters by name (gaps gone) and metadata {"coppice.job":
 * the job as YAML text, "coppice.step", "coppice.digest", "coppice.check"}; any altered byte of
 * either is noticed (CORRUPT). */
cop_err cop_job_save_model(const cop_job *job, const float *flat, uint64_t step, const char *path,
                           cop_error *error);
cop_err cop_job_encode_model(const cop_job *job, const float *flat, uint64_t step, char **out,
                             size_t *size, cop_error *error);
/* Loads into flat (checks names, shapes, dtype, digest; CORRUPT if altered). */
cop_err cop_job_load_model(const cop_job *job, const char *path, float *flat, uint64_t *step,
                           cop_error *error);
/* A model file by itself: builds the job from its metadata. `path`: a model file, a checkpoint
 * folder, a run folder, or its file checkpoints/latest or best. */
cop_err cop_job_open_model(const char *path, cop_job **job, float **flat, uint64_t *step,
                           cop_error *error);

/* The same of a path that must hold weights of `job`: INPUT when they are another job's (see
 * cop_checkpoint_load) or of a step that this one does not reach. */
cop_err cop_job_open_weights(const cop_job *job, const char *path, float **flat, uint64_t *step,
                             cop_error *error);

/* A model file from memory; `what` names it in errors. */
cop_err cop_job_decode_model(const void *bytes, size_t size, const char *what, cop_job **job,
                             float **flat, uint64_t *step, cop_error *error);

/* Checkpoints: folder/checkpoints/step-00000500/{model.safetensors, optimizer.safetensors,
 * state.json} and the file `latest` (name of the newest). state.json carries step, digest, xxh3 of
 * both files, metrics so far. Written to a temporary folder, fsynced, renamed. Keeps the last
 * `keep` and the best (the file `best` names it; there is none while best_error is -1); checkpoints
 * newer than the one just written are of an earlier life of the folder, and go. */
typedef struct cop_checkpoint {
    uint64_t step;
    const float *weights;
    const float *states[2]; /* optimizer state buffers, or NULL */
    double train_loss_sum;  /* running sums of the current epoch, f64 exact */
    uint64_t train_samples, train_correct;
    double seconds;    /* spent so far */
    double best_error; /* -1: none yet */
    bool is_best;
} cop_checkpoint;
cop_err cop_checkpoint_save(const cop_job *job, const char *folder,
                            const cop_checkpoint *checkpoint, cop_error *error);
/* Newest checkpoint that is whole: tries `latest`, then the others downwards; each bad one adds a
 * line to `notes` (may be NULL), and so does going back from steps that the job does not reach.
 * Fills weights and states (caller's buffers) and checkpoint->step etc. NOT_FOUND if there is none;
 * INPUT if there are only checkpoints of another job (name, priority, limits, evaluate and
 * checkpoint may differ, and the number of steps unless the schedule depends on it) or of a step
 * that this one does not reach. */
cop_err cop_checkpoint_load(const cop_job *job, const char *folder, float *weights,
                            float *states[2], cop_checkpoint *checkpoint, cop_str *notes,
                            cop_error *error);
/* The same, of those of at most `most` steps. */
cop_err cop_checkpoint_load_until(const cop_job *job, const char *folder, uint64_t most,
                                  float *weights, float *states[2], cop_checkpoint *checkpoint,
                                  cop_str *notes, cop_error *error);

/* Removes the checkpoints after `step` (0: all): they are not to be trusted. `latest` then names
 * the newest that is left; if the best was one of those removed, there is none and
 * checkpoint->best_error is -1. On success no loss of power brings them back; on failure some may
 * be there: nobody may go on before another attempt succeeds. A full disk is no reason to fail. */
cop_err cop_checkpoint_discard_after(const char *folder, uint64_t step, cop_checkpoint *checkpoint,
                                     cop_error *error);

/* Would a job go on from what is in the folder? OK also where there is nothing to go on from; INPUT
 * as of cop_checkpoint_load. Writes nothing. */
cop_err cop_checkpoint_check(const cop_job *job, const char *folder, cop_error *error);

/* Figures for `plan`. */
typedef struct cop_plan_figures {
    double flop_per_sample;
    uint64_t wire_bytes_per_step; /* for `workers` workers: weights out, gradients back, samples */
    uint64_t worker_bytes, coordinator_bytes;
} cop_plan_figures;
void cop_job_plan(const cop_job *job, int workers, cop_plan_figures *out);

#endif
