/* Models, and the pass that runs one over the samples of a lease.
 *
 * A model is a list of layers, bound to an input shape and a loss. All its parameters are in one
 * flat buffer, which is sent, averaged, updated and stored as a whole: parameters in layer order,
 * each starting at a multiple of 16 floats, the gaps zero. The model itself holds no weights; it
 * never changes, so any number of threads may share it. */
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
    cop_shape input;   /* of one sample in the data */
    int32_t classes;   /* of the labels; the last layer must have as many outputs */
    bool target_input; /* autoencoder: the loss compares the outputs with the input */
    cop_loss_kind loss;
    double smoothing;    /* of the labels, cross_entropy only */
    cop_input_spec data; /* all zero: bytes are scaled to 0..1, without augmentation */
} cop_model_spec;

typedef struct cop_model cop_model;

/* Binds the shapes and lays out the parameters. The input is flattened if the first layer with
 * weights wants it flat. INPUT or LIMIT: the error names the layer ("model[3] linear: ..."). Copies
 * what it needs of `spec`. The caller frees *out with cop_model_destroy; it is NULL after an error.
 */
cop_err cop_model_create(const cop_model_spec *spec, cop_model **out, cop_error *error);
void cop_model_destroy(cop_model *model);
/* The layers and the parameter tensors, by index from 0. What they return lives as long as the
 * model. */
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
/* Does the loss compare the outputs with labels? If not, it compares them with the input, and there
 * are no correct or wrong classes. */
bool cop_model_has_classes(const cop_model *model);
/* Does the model have bce, one output and two classes? Then the output is the logit of class 1. */
bool cop_model_has_one_logit(const cop_model *model);
/* The number of classes: labels range from 0 to it, exclusive. Only for a model with classes. */
int cop_model_classes(const cop_model *model);
/* Does any layer draw at random? If not, all members of an ensemble are the same network. */
bool cop_model_draws(const cop_model *model);
/* Floating-point operations of the forward pass for one sample; an FMA counts as 2. */
double cop_model_flop(const cop_model *model);
/* Writes the initial weights for the job's seed into flat (cop_model_floats long), gaps zeroed. */
void cop_model_init(const cop_model *model, uint64_t seed, float *flat);
/* The digest of the weights: SHA-256 over all parameters in order, each as its name with the NUL,
 * rank and dims as u32, then the values as f32, all little-endian. CORRUPT: a value is NaN; the
 * error names the parameter. */
cop_err cop_model_digest(const cop_model *model, const float *flat, unsigned char out[32],
                         cop_error *error);
/* Describes the first parameter that has a value that is not finite: its layer, how many values,
 * and the largest and the norm of the others. False: all are finite, and `out` is unchanged. */
bool cop_model_find_not_finite(const cop_model *model, const float *flat, char *out, size_t size);

/* Samples as the data set stores them and leases send them: rows of `features` values, and labels.
 */
typedef enum cop_dtype { COP_DTYPE_U8 = 1, COP_DTYPE_F32 = 2 } cop_dtype;
typedef struct cop_samples {
    cop_dtype dtype;
    int count, features;
    size_t stride; /* bytes from one row to the next */
    const void *rows;
    const int32_t *labels; /* (count); NULL allowed for a model without classes */
} cop_samples;

/* Checks samples from outside against the model: type, features, stride, and that labels are in [0,
 * classes). INPUT: they do not fit. The pass only asserts it. */
cop_err cop_samples_check(const cop_samples *samples, const cop_model *model, cop_error *error);

/* One thread's memory to run a model on up to max_columns samples at once: activations, masks,
 * scratch. Running it allocates nothing. */
typedef struct cop_pass cop_pass;
/* Every pass can evaluate. TRAIN can also train, MEMBERS can also run thinned networks (mode mc).
 */
typedef enum cop_pass_purpose {
    COP_PASS_EVAL = 0,
    COP_PASS_TRAIN = 1,
    COP_PASS_MEMBERS = 2
} cop_pass_purpose;
/* Borrows the model. NO_MEMORY; UNSUPPORTED: OpenBLAS is not available. Free with cop_pass_destroy.
 */
cop_err cop_pass_create(const cop_model *model, const cop_kernels *kernels, cop_numerics numerics,
                        int max_columns, cop_pass_purpose purpose, cop_pass **out,
                        cop_error *error);
void cop_pass_destroy(cop_pass *pass);
/* The memory that such a pass takes. */
size_t cop_pass_bytes(const cop_model *model, int max_columns, cop_pass_purpose purpose);

/* The shards [shard_first, shard_first + shard_count) of one step: an aligned block of D5. Their
 * samples follow each other in the order of the shards. */
typedef struct cop_shard_work {
    uint64_t seed;
    uint32_t step; /* from 1 */
    int shard_first, shard_count;
    const int32_t *shard_sizes; /* (shard_count) samples of each; 0: the shard is absent */
} cop_shard_work;

/* Sums over the samples of a call. Losses follow D7: f32 per sample, summed in f64 in order within
 * a shard, shards by D5's tree. */
typedef struct cop_pass_result {
    double loss;     /* a sum, not a mean */
    int64_t correct; /* samples whose argmax is their label; 0 without classes */
    int64_t samples;
} cop_pass_result;

/* Forward and backward in train mode. Writes the block's gradient sum to gradients
 * (cop_model_floats long, gaps zeroed). The pass must be for TRAIN. */
void cop_pass_train(cop_pass *pass, const float *weights, const cop_shard_work *work,
                    const cop_samples *samples, float *gradients, cop_pass_result *result);
/* An observer of every forward pass, for `features` and replay. `after` is called after each layer
 * with its output, [values][c->ld] feature-major, the first c->columns columns valid; the next
 * layer may overwrite it. First it is called with layer NULL and the network's input. For a layer
 * that the previous one absorbed (absorbs_next) the output is the previous one's. */
typedef struct cop_pass_tap {
    void (*after)(void *context, const cop_layer *layer, const cop_layer_context *c,
                  const float *output);
    void *context;
} cop_pass_tap;
/* Sets the observer; one with `after` NULL removes it. */
void cop_pass_set_tap(cop_pass *pass, cop_pass_tap tap);
/* Which samples an evaluation runs on; layers that draw at random need it (D3). */
typedef struct cop_eval_place {
    uint64_t seed;         /* the job's */
    uint32_t first_sample; /* index of the first sample in the evaluated part */
} cop_eval_place;
/* Forward in eval mode for up to max_columns samples. Sums are f64 in sample order (D10). */
void cop_pass_eval(cop_pass *pass, const float *weights, const cop_eval_place *place,
                   const cop_samples *samples, cop_pass_result *result);
/* The outputs in eval mode for 1 to max_columns samples: [outputs][*ld] feature-major, owned by the
 * pass and valid until its next call. */
const float *cop_pass_logits(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             const cop_samples *samples, int *ld);
/* Members of an ensemble: thinned networks, dropout on (mode mc). The pass must be for MEMBERS.
 * begin selects member `member` (from 0) of the ensemble of D3, and does the work that all its
 * samples share (thin.h); it borrows the weights until the next begin. member_logits computes the
 * member's outputs, as cop_pass_logits does; first_sample is as in cop_eval_place. It may be called
 * any number of times. */
void cop_pass_member_begin(cop_pass *pass, const float *weights, uint64_t seed, uint32_t member);
const float *cop_pass_member_logits(cop_pass *pass, uint32_t first_sample,
                                    const cop_samples *samples, int *ld);
/* begin and member_logits in one call. */
const float *cop_pass_member(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             uint32_t member, const cop_samples *samples, int *ld);

#endif
