/* Models: a list of layers bound to an input shape and a loss, with all parameters in one flat
 * buffer; and the pass that runs them over the samples of a lease. The flat buffer is what travels,
 * is averaged, updated and stored: parameters in layer order, each starting at a multiple of 16
 * floats, the gaps zero. */
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
    int32_t classes;   /* of the data's labels; the last layer must have as many outputs */
    bool target_input; /* autoencoder: outputs are compared with the input, and are as many */
    cop_loss_kind loss;
    double smoothing;
    cop_input_spec data; /* zero: bytes become 0..1, no augmentation */
} cop_model_spec;

typedef struct cop_model cop_model;

/* Binds shapes and lays out parameters. Errors (INPUT) name the layer ("model[3] linear: ..."). The
 * input is flattened where the first weighted layer is linear. *out is freed with
 * cop_model_destroy. */
cop_err cop_model_create(const cop_model_spec *spec, cop_model **out, cop_error *error);
void cop_model_destroy(cop_model *model);
int cop_model_layer_count(const cop_model *model);
const cop_layer *cop_model_layer(const cop_model *model, int index);
int cop_model_parameter_count(const cop_model *model); /* tensors */
const cop_parameter *cop_model_parameter(const cop_model *model, int index);
int64_t cop_model_floats(const cop_model *model);  /* length of the flat buffer, gaps included */
int64_t cop_model_weights(const cop_model *model); /* parameters without gaps */
int cop_model_features(const cop_model *model);    /* values of one sample */
const cop_input *cop_model_input(const cop_model *model);
int cop_model_outputs(const cop_model *model); /* of the last layer */
cop_loss_kind cop_model_loss(const cop_model *model);
double cop_model_smoothing(const cop_model *model);
/* Are outputs compared with labels? If not, with the input: then no error of classes exists. */
bool cop_model_has_classes(const cop_model *model);
/* bce with one output and two classes: the output is the logit of class 1. */
bool cop_model_has_one_logit(const cop_model *model);
/* Labels are below; a model with classes. */
int cop_model_classes(const cop_model *model);
/* Is there a layer that draws at random? If not, all members of an ensemble are one network. */
bool cop_model_draws(const cop_model *model);
double cop_model_flop(const cop_model *model); /* of one sample's forward pass */
/* Initial weights of the job's seed into flat (cop_model_floats). */
void cop_model_init(const cop_model *model, uint64_t seed, float *flat);
/* SHA-256 over (name, shape, f32 little-endian) in layer order: for each parameter its name and
 * NUL, rank and dims as u32, then the values. CORRUPT naming the parameter if a value is NaN. */
cop_err cop_model_digest(const cop_model *model, const float *flat, unsigned char out[32],
                         cop_error *error);
/* "layer 3 (linear): largest |w| 1.2e+38, norm ..." of the first parameter with a value that is not
 * finite; false if none. */
bool cop_model_find_not_finite(const cop_model *model, const float *flat, char *out, size_t size);

/* Samples as they travel: rows of `features` values in their stored type, and labels. */
typedef enum cop_dtype { COP_DTYPE_U8 = 1, COP_DTYPE_F32 = 2 } cop_dtype;
typedef struct cop_samples {
    cop_dtype dtype;
    int count, features;
    size_t stride; /* bytes from row to row */
    const void *rows;
    const int32_t *labels;
} cop_samples;

/* Do these samples fit the model: features, stride, labels (if it has classes) in [0, classes)?
 * INPUT with a sentence if not. For whoever got them from outside; the pass takes it for granted.
 */
cop_err cop_samples_check(const cop_samples *samples, const cop_model *model, cop_error *error);

/* Per-thread state to run a model: activations, masks, scratch. Sized once for at most max_columns
 * samples; running it allocates nothing. NO_MEMORY possible. */
typedef struct cop_pass cop_pass;
/* What a pass is for. Each also evaluates. MEMBERS: thinned networks too (mode mc). */
typedef enum cop_pass_purpose {
    COP_PASS_EVAL = 0,
    COP_PASS_TRAIN = 1,
    COP_PASS_MEMBERS = 2
} cop_pass_purpose;
cop_err cop_pass_create(const cop_model *model, const cop_kernels *kernels, cop_numerics numerics,
                        int max_columns, cop_pass_purpose purpose, cop_pass **out,
                        cop_error *error);
void cop_pass_destroy(cop_pass *pass);
size_t cop_pass_bytes(const cop_model *model, int max_columns, cop_pass_purpose purpose);

/* Shards [shard_first, shard_first + shard_count) of one step: an aligned block of D5. samples
 * holds their rows in order. */
typedef struct cop_shard_work {
    uint64_t seed;
    uint32_t step; /* from 1 */
    int shard_first, shard_count;
    const int32_t *shard_sizes; /* samples of each; may hold 0 (absent) */
} cop_shard_work;

/* Sums over the samples of the work, losses by D7 (per sample f32, summed in f64 in order within a
 * shard, shards by D5's tree). */
typedef struct cop_pass_result {
    double loss;     /* sum */
    int64_t correct; /* argmax == label; 0 without classes */
    int64_t samples;
} cop_pass_result;

/* Forward and backward in train mode: gradients (cop_model_floats, gaps zeroed) gets the block's
 * gradient sum. */
void cop_pass_train(cop_pass *pass, const float *weights, const cop_shard_work *work,
                    const cop_samples *samples, float *gradients, cop_pass_result *result);
/* Whoever looks inside (features, replay): called in every forward after each layer with its
 * output, [values][c->ld] feature-major, c->columns of them valid, until the next layer overwrites
 * it; a layer whose work the one before did (absorbs_next) comes with what that one made. `after`
 * NULL: nobody. */
typedef struct cop_pass_tap {
    void (*after)(void *context, const cop_layer *layer, const cop_layer_context *c,
                  const float *output);
    void *context;
} cop_pass_tap;
void cop_pass_set_tap(cop_pass *pass, cop_pass_tap tap);
/* Which samples an evaluation sees: what layers that draw at random need (D3). */
typedef struct cop_eval_place {
    uint64_t seed;         /* the job's */
    uint32_t first_sample; /* number of the first one in the part that is evaluated */
} cop_eval_place;
/* Forward in eval mode; any number of samples up to max_columns at a time (the caller slices; sums
 * are in sample order: D10, f64). */
void cop_pass_eval(cop_pass *pass, const float *weights, const cop_eval_place *place,
                   const cop_samples *samples, cop_pass_result *result);
/* Outputs in eval mode: [outputs][ld] feature-major, valid until the next call; *ld as in kernel.h.
 */
const float *cop_pass_logits(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             const cop_samples *samples, int *ld);
/* Thinned networks: dropout is on (mode mc), the pass is for MEMBERS. begin chooses member `member`
 * (from 0) of the ensemble of D3 and does once what all its samples share (thin.h); weights stay
 * borrowed until the next begin. member_logits: its outputs for samples of which the first has this
 * number in the part that is evaluated, likewise, any number of times. */
void cop_pass_member_begin(cop_pass *pass, const float *weights, uint64_t seed, uint32_t member);
const float *cop_pass_member_logits(cop_pass *pass, uint32_t first_sample,
                                    const cop_samples *samples, int *ld);
/* Both at once. */
const float *cop_pass_member(cop_pass *pass, const float *weights, const cop_eval_place *place,
                             uint32_t member, const cop_samples *samples, int *ld);

#endif
