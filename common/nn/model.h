/* Models, and the pass that runs one over the samples of a lease.
 *
 * A model is a list of layers, bound to an input shape and a loss. All parameters are in one flat
 * buffer, which is sent, averaged, updated and stored as a whole. It contains the parameters in the
 * order of the layers. Each starts at a multiple of 16 floats, and the gaps between them are zero.
 * The model itself holds no weights and never changes, so any number of threads may share it. */
#ifndef COP_NN_MODEL_H
#define COP_NN_MODEL_H

#include "common/nn/input.h"
#include "common/nn/layer.h"

typedef enum cop_loss_kind {
    COP_LOSS_CROSS_ENTROPY = 1,
    COP_LOSS_MSE = 2,
    COP_LOSS_BCE = 3
} cop_loss_kind;

typedef struct cop_model_spec {
    const cop_layer_spec *layers;
    int layer_count;
    cop_shape input; /* shape of one sample in the data */
    /* The number of different labels. The last layer must have as many outputs, or one output with
     * the loss bce and two classes. With target_input the number of outputs is that of the features
     * instead. */
    int32_t classes;
    bool target_input; /* autoencoder: the loss compares the outputs with the input */
    cop_loss_kind loss;
    double smoothing; /* label smoothing, from 0 to below 1; above 0 only with cross_entropy */
    /* How samples become the input. If all fields are zero, bytes are scaled to 0..1, f32 values
     * are unchanged, and nothing is augmented. */
    cop_input_spec data;
} cop_model_spec;

typedef struct cop_model cop_model;

/* Finds the layers, computes their shapes and lays out the parameters. The input is flattened if
 * the first layer with weights wants it flat and no earlier layer wants an image. Copies what it
 * needs of `spec`. Errors: NO_MEMORY; INPUT or LIMIT for a spec that is not valid. If a layer is at
 * fault, the error names it ("model[3] linear: ..."). The caller frees *out with cop_model_destroy;
 * it is NULL after an error. */
cop_err cop_model_create(const cop_model_spec *spec, cop_model **out, cop_error *error);
void cop_model_destroy(cop_model *model);
/* The layers and the parameter tensors, by index from 0. The returned pointers are valid as long as
 * the model. */
int cop_model_layer_count(const cop_model *model);
const cop_layer *cop_model_layer(const cop_model *model, int index);
int cop_model_parameter_count(const cop_model *model);
const cop_parameter *cop_model_parameter(const cop_model *model, int index);
int64_t cop_model_floats(const cop_model *model);  /* length of the flat buffer, with the gaps */
int64_t cop_model_weights(const cop_model *model); /* number of trained values, without the gaps */
int cop_model_features(const cop_model *model);    /* values of one sample */
const cop_input *cop_model_input(const cop_model *model);
int cop_model_outputs(const cop_model *model); /* values of the last layer's output per sample */
cop_loss_kind cop_model_loss(const cop_model *model);
double cop_model_smoothing(const cop_model *model);
/* True if the loss compares the outputs with labels. False if it compares them with the input; then
 * the model has no classes, and no sample counts as correct. */
bool cop_model_has_classes(const cop_model *model);
/* True if the model has the loss bce, labels of two classes and only one output. This output is the
 * logit of class 1. */
bool cop_model_has_one_logit(const cop_model *model);
/* The number of classes. Labels are at least 0 and less than this number. Only for models with
 * classes. */
int cop_model_classes(const cop_model *model);
/* True if any layer draws at random. If none does, all members of an ensemble are equal. */
bool cop_model_draws(const cop_model *model);
/* Floating-point operations of the forward pass for one sample; an FMA counts as 2. */
double cop_model_flop(const cop_model *model);
/* Writes the initial weights for the job's seed to `flat`, cop_model_floats long, with zeros in the
 * gaps. */
void cop_model_init(const cop_model *model, uint64_t seed, float *flat);
/* The digest of the weights is the SHA-256 over all parameters in their order. Each contributes its
 * name with the terminating NUL, its rank and dims as u32, and its values as f32. All numbers are
 * little-endian. CORRUPT: a value is NaN; the error names the parameter. */
cop_err cop_model_digest(const cop_model *model, const float *flat, unsigned char out[32],
                         cop_error *error);
/* Looks for values that are not finite. If there are any, describes the first parameter with such
 * values in `out`: its layer, how many of its values are not finite, and the largest magnitude and
 * the norm of the others. Returns false, and leaves `out` unchanged, if all values are finite. */
bool cop_model_find_not_finite(const cop_model *model, const float *flat, char *out, size_t size);

/* Samples in the form in which the data set stores them and leases carry them: rows of `features`
 * values, and a label for each row. */
typedef enum cop_dtype { COP_DTYPE_U8 = 1, COP_DTYPE_F32 = 2 } cop_dtype;
typedef struct cop_samples {
    cop_dtype dtype;
    int count, features;
    size_t stride; /* bytes from one row to the next */
    const void *rows;
    /* (count). May be NULL for a model without classes, and for calls that compute only outputs
     * (cop_pass_logits and the functions for members). */
    const int32_t *labels;
} cop_samples;

/* Checks samples that come from outside against the model: their type, count, features and stride,
 * and that each label is at least 0 and below the number of classes. INPUT: they do not fit. Call
 * it before a pass, which only asserts that samples fit. */
cop_err cop_samples_check(const cop_samples *samples, const cop_model *model, cop_error *error);

/* One thread's memory to run a model on up to max_columns samples at once: activations, masks,
 * scratch. Running it allocates nothing. */
typedef struct cop_pass cop_pass;
/* What a pass is for. Every pass can evaluate. A pass for TRAIN can also train, and a pass for
 * MEMBERS can also run members of an ensemble (mode mc). */
typedef enum cop_pass_purpose {
    COP_PASS_EVAL = 0,
    COP_PASS_TRAIN = 1,
    COP_PASS_MEMBERS = 2
} cop_pass_purpose;
/* Borrows the model. Errors: NO_MEMORY; UNSUPPORTED if `numerics` asks for OpenBLAS and it is not
 * available. Free with cop_pass_destroy. */
cop_err cop_pass_create(const cop_model *model, const cop_kernels *kernels, cop_numerics numerics,
                        int max_columns, cop_pass_purpose purpose, cop_pass **out,
                        cop_error *error);
void cop_pass_destroy(cop_pass *pass);
/* The bytes that such a pass takes. With OpenBLAS a pass for MEMBERS takes less, because it keeps
 * no thinned network. */
size_t cop_pass_bytes(const cop_model *model, int max_columns, cop_pass_purpose purpose);

/* The shards [shard_first, shard_first + shard_count) of one step, which are an aligned block (D5).
 * The samples of the call are those of the first shard, then those of the second, and so on. */
typedef struct cop_shard_work {
    uint64_t seed;
    uint32_t step; /* number of the step, counted from 1 */
    int shard_first, shard_count;
    const int32_t *shard_sizes; /* (shard_count): the samples of each shard; 0: it has none */
    bool round_nodes; /* round the gradient of each node of the shards' tree to bf16 (D5) */
} cop_shard_work;

/* Sums over the samples of a call. Each sample's loss is f32 (D7). Losses are added in f64.
 * Training adds them in order within each shard, then the shards by D5's tree; evaluation adds them
 * in the order of the samples. */
typedef struct cop_pass_result {
    double loss;     /* a sum, not a mean */
    int64_t correct; /* samples whose predicted class is their label; 0 if there are no classes */
    int64_t samples;
} cop_pass_result;

/* Runs forward and backward in train mode on at most max_columns samples. Writes the gradient sum
 * of the block to `gradients`, cop_model_floats long, with zeros in the gaps. The pass must be for
 * TRAIN. */
void cop_pass_train(cop_pass *pass, const float *weights, const cop_shard_work *work,
                    const cop_samples *samples, float *gradients, cop_pass_result *result);
/* An observer of every forward pass, used for the statistics of features and for replay. `after` is
 * called first with layer NULL and the network's input, then after each layer with that layer's
 * output. The tensor is [values][c->ld], feature-major. Only its first c->columns columns are
 * samples, and the next layer may overwrite it. If the previous layer computed this one too
 * (absorbs_next), both calls get the same values. While there is an observer, members run as the
 * whole model with masks, so it sees all units. */
typedef struct cop_pass_tap {
    void (*after)(void *context, const cop_layer *layer, const cop_layer_context *c,
                  const float *output);
    void *context;
} cop_pass_tap;
/* Sets the observer; one with `after` NULL removes it. */
void cop_pass_set_tap(cop_pass *pass, cop_pass_tap tap);
/* Sets the lane of a profile (profile.h) that training steps enter their phases in. NULL: none. */
void cop_pass_set_lane(cop_pass *pass, cop_lane *lane);
/* The place of the samples in an evaluation. Random numbers depend on it (D3). */
typedef struct cop_eval_place {
    uint64_t seed;         /* the job's seed */
    uint32_t first_sample; /* index of the first sample in the evaluated part */
} cop_eval_place;
/* Runs forward in eval mode and computes the losses of 0 to max_columns samples. The losses are
 * added in f64, in the order of the samples (D10). */
void cop_pass_eval(cop_pass *pass, const float *weights, const cop_eval_place *place,
                   const cop_samples *samples, cop_pass_result *result);
/* Returns the outputs in eval mode for 1 to max_columns samples: [outputs][*ld], feature-major.
 * They belong to the pass and are valid until its next call. */
const float *cop_pass_logits(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             const cop_samples *samples, int *ld);
/* Members of an ensemble are thinned networks: they run with dropout on (mode mc). The pass must be
 * for MEMBERS. cop_pass_member_begin selects member `member` (from 0) of the ensemble that `seed`
 * determines (D3), and does the work that is the same for all samples (thin.h). It borrows the
 * weights until the next begin. After it, cop_pass_member_logits may be called any number of times:
 * it returns the member's outputs in the same form as cop_pass_logits. first_sample is as in
 * cop_eval_place. */
void cop_pass_member_begin(cop_pass *pass, const float *weights, uint64_t seed, uint32_t member);
const float *cop_pass_member_logits(cop_pass *pass, uint32_t first_sample,
                                    const cop_samples *samples, int *ld);
/* Calls cop_pass_member_begin, then cop_pass_member_logits. */
const float *cop_pass_member(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             uint32_t member, const cop_samples *samples, int *ld);

#endif
