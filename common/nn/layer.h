/* Layers: one kind = one file in layers/, one row in the registry (layers/registry.c), one entry in
 * the conformance suite.
 *
 * A layer is stateless: its row of functions, its spec (what the job file says) and its place in
 * the model. Activations are feature-major (see kernel.h): x[features][ld], one column per sample.
 * Parameters live in the model's one flat buffer. */
#ifndef COP_NN_LAYER_H
#define COP_NN_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/kernels/kernel.h"

typedef enum cop_scope { COP_SCOPE_SAMPLE = 1, COP_SCOPE_SHARD = 2 } cop_scope;
typedef enum cop_variant { COP_VARIANT_INVERTED = 1, COP_VARIANT_CLASSIC = 2 } cop_variant;
typedef enum cop_mode { COP_MODE_TRAIN = 1, COP_MODE_EVAL = 2, COP_MODE_MC = 3 } cop_mode;
typedef enum cop_inference { COP_INFERENCE_MOMENTS = 1, COP_INFERENCE_MEAN = 2 } cop_inference;
/* A value in a model's graph of operators (graph.h); a model in Python's words (torch.h). */
typedef int32_t cop_value;
typedef struct cop_graph cop_graph;
typedef struct cop_torch cop_torch;
typedef enum cop_init { COP_INIT_HE = 1, COP_INIT_GLOROT = 2, COP_INIT_TORCH = 3 } cop_init;

/* What the job file says of one layer; fields that a kind does not have are 0. */
typedef struct cop_layer_spec {
    char kind[32];                   /* "linear", "relu", "dropout" ... */
    int32_t units;                   /* conv2d: channels */
    int32_t pieces;                  /* maxout */
    int32_t kernel, stride, padding; /* in pixels; stride 0: kernel */
    int32_t draws;                   /* dropconnect, inference moments */
    double p;                        /* probability to drop */
    double slope;                    /* leaky_relu */
    double max_norm;                 /* 0: none */
    bool bias, drop_bias;
    cop_inference inference;
    cop_init init;
    cop_scope scope;
    cop_variant variant;
} cop_layer_spec;

/* Shape of one sample: rank 1 {features} or 3 {channels, height, width}. */
typedef struct cop_shape {
    int32_t rank, dims[4];
} cop_shape;
int64_t cop_shape_size(const cop_shape *shape);
/* "784" or "3 x 32 x 32" */
const char *cop_shape_format(const cop_shape *shape, char out[64]);

/* One parameter tensor of a layer, as in PyTorch's nn.Sequential. rows x cols is its view for
 * updates: a row is what max-norm constrains (linear: (out, in)); a bias has rows = 1, cols = n,
 * decay as PyTorch's (weight decay applies to all parameters). */
typedef struct cop_parameter {
    char name[48]; /* "1.weight": 1 = index in the job file's list */
    int32_t rank, dims[4];
    int32_t rows, cols;
    int64_t offset;  /* floats, in the flat buffer; multiple of 16 */
    int64_t count;   /* rows * cols */
    double max_norm; /* 0: none */
    int32_t layer;
} cop_parameter;

/* A layer's place in a model. */
typedef struct cop_layer {
    const struct cop_layer_ops *ops;
    cop_layer_spec spec;
    int32_t index; /* in the job file's list; the `layer` word of D3 */
    cop_shape in, out;
    int32_t parameter_first, parameter_count; /* indices in the model's table */
    /* Where what it keeps starts in the pass's arena, in uint16 words for 16 columns: times ld / 16
     * (layers with mask_words). */
    int64_t mask_offset;
    const struct cop_layer *next; /* in the model; NULL: the last */
    /* In a thinned network (thin.h), else NULL: where k of its product is cut (see cop_gemm); the
     * units of its input that pass, ascending. */
    const int *blocks;
    int block_count;
    const int32_t *take;
} cop_layer;

/* What a layer sees while it runs. One per compute thread, filled by the pass. */
typedef struct cop_layer_context {
    const cop_kernels *kernels;
    cop_gemm_fn gemm;
    bool sparse;     /* products may leave out elements that are 0: cop_layer_product */
    void *workspace; /* COP_GEMM_WORKSPACE bytes */
    void *scratch;   /* what ops->scratch asked for, 64-byte aligned */
    cop_mode mode;
    int columns, ld;
    const int *segments; /* shard boundaries among the columns: segment_count + 1 offsets */
    int segment_count;
    /* Random numbers (D3). Per column; train: derive(seed, mask | noise, shard); mc: both
     * derive(seed, ensemble, 0); eval: both derive(seed, draws, 0). */
    const cop_rng_key *mask_keys, *noise_keys;
    const uint32_t *samples;    /* per column: index of the sample in its shard; mc and eval: in the
                                   whole part that is evaluated */
    const uint32_t *no_samples; /* per column: 0, the sample word of scope `shard` */
    uint32_t step;              /* train: from 1; mc: the member's number, from 0; eval: 0 */
    const float *weights;       /* the model's flat buffer */
    float *gradients;           /* likewise; NULL outside training */
    const cop_parameter *parameters;
    uint16_t *masks; /* the pass's arena of what layers keep; train and mc */
} cop_layer_context;

/* The tensors of one backward call, [features][ld] feature-major. */
typedef struct cop_layer_tensors {
    const float *x;  /* input of the forward pass; NULL allowed unless `reads` has INPUT */
    const float *y;  /* output of the forward pass; NULL allowed unless `reads` has OUTPUT(_SIGN) */
    const float *dy; /* gradient of the loss with respect to y */
    float *dx;       /* receives the gradient with respect to x; NULL: not needed */
} cop_layer_tensors;

/* What backward reads of the forward pass, besides the masks (bits). */
typedef enum cop_layer_reads {
    COP_READS_NOTHING = 0,
    COP_READS_INPUT = 1,
    COP_READS_OUTPUT = 2,
    COP_READS_OUTPUT_SIGN = 4 /* only whether an output is above 0 */
} cop_layer_reads;
/* What an in_place layer leaves of the tensor that it overwrites. SIGN: an element stays above 0 or
 * not, except where the layer writes 0 and its backward passes 0 down (then the sign no longer
 * matters). VALUES: it is the identity. */
typedef enum cop_layer_keeps {
    COP_KEEPS_NOTHING = 0,
    COP_KEEPS_SIGN = 1,
    COP_KEEPS_VALUES = 2
} cop_layer_keeps;

/* What a layer does with units (features, or channels of an image), for thin execution (thin.h). */
typedef enum cop_layer_thin {
    COP_THIN_NEVER = 0, /* it needs all of them */
    COP_THIN_EACH,      /* each by itself */
    COP_THIN_EACH_ZERO, /* likewise, and makes 0 of 0 */
    COP_THIN_FLATTEN,   /* channels become features */
    COP_THIN_MASK,      /* drops some */
    COP_THIN_WEIGHTS    /* its weights have columns for each of the input, rows for each output */
} cop_layer_thin;

enum { COP_MODE_TEXT = 96 };

typedef struct cop_layer_ops {
    const char *kind;
    /* Output shape from layer->in and spec; INPUT with a sentence when it does not fit. */
    cop_err (*shape)(cop_layer *layer, cop_error *error);
    /* Appends this layer's parameters (names without the "N." prefix, dims, rows, cols, max_norm);
     * NULL: none. */
    int (*parameters)(const cop_layer *layer, cop_parameter out[4]);
    /* Initial values (D3, purpose init: counter (block, 0, layer, parameter index)); NULL: none. */
    void (*init)(const cop_layer *layer, uint64_t seed, const cop_parameter *parameters,
                 float *flat);
    /* Words (uint16) that the layer keeps of a forward pass over `ld` columns, proportional to ld:
     * masks, noise, which piece won; NULL: none. There in train and mc mode. */
    int64_t (*mask_words)(const cop_layer *layer, int ld);
    /* Bytes of scratch memory for one forward or backward; NULL: none. */
    size_t (*scratch)(const cop_layer *layer, int ld);
    /* y = f(x). x and y never overlap unless in_place is set (then they may be equal). */
    void (*forward)(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y);
    /* Computes dx from dy, and the parameter gradients (sums over each shard, combined by D5's tree)
     * into c->gradients. dx may equal dy if in_place is set. */
    void (*backward)(const cop_layer *layer, const cop_layer_context *c,
                     const cop_layer_tensors *tensors);
    /* Purely element-wise layers: y[i] = f(x[i]), x may be y. */
    void (*map)(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                size_t count);
    /* Mask layers, after a forward in train or mc mode: the factor that each element was multiplied
     * by (0 or a scale, or the noise), [values][ld] feature-major. */
    void (*factors)(const cop_layer *layer, const cop_layer_context *c, float *out);
    /* Values per sample that `factors` gives; NULL: those of the input. A layer that drops its
     * parameters gives theirs, in the order of its table. */
    int64_t (*factor_count)(const cop_layer *layer);
    /* Does this layer do the work of the next one too, in eval mode? NULL: no. */
    bool (*absorbs_next)(const cop_layer *layer);
    /* Floating point operations of one sample's forward pass, counting an FMA as 2. */
    double (*flop)(const cop_layer *layer);
    /* The layer for other programs (docs/reference/model-files.md). graph: appends the ONNX
     * operators that compute it in eval mode, and in train mode where the graph's `training_mode`
     * is on; x is its input; returns its output. torch: prints the expression that makes it, in
     * terms of `nn`. */
    cop_value (*graph)(const cop_layer *layer, cop_graph *graph, cop_value x);
    void (*torch)(const cop_layer *layer, cop_torch *out);
    /* What these give instead, for people, where they are not what eval mode computes; NULL, or a
     * function that returns NULL: they are. */
    const char *(*exported_as)(const cop_layer *layer);
    /* What the layer does in train and in eval mode, in a few words for `plan`; NULL: what its kind
     * does, in both. */
    void (*modes)(const cop_layer *layer, char train[COP_MODE_TEXT], char eval[COP_MODE_TEXT]);
    bool in_place;
    cop_layer_keeps keeps; /* for in_place layers: the pass shares buffers only where nobody misses
                              the old contents */
    unsigned reads;        /* cop_layer_reads, for backward */
    bool drops;            /* draws at random: has no place after the last layer with weights */
    bool drops_maps;       /* what it drops of an image are whole channels */
    bool squashes;    /* its outputs are probabilities: a loss of logits does the same itself */
    bool wants_flat;  /* as first layer with weights it has the network's input flattened, unless
                         a layer before it wants an image */
    bool wants_image; /* takes nothing but channels, height and width */
    cop_layer_thin thin;
} cop_layer_ops;

/* The layer's masks in the arena of context c. */
static inline uint16_t *cop_layer_masks(const cop_layer *layer, const cop_layer_context *c) {
    return c->masks + layer->mask_offset * (c->ld / COP_COLUMNS_PAD);
}

/* C = A B (see cop_gemm) of a layer's forward pass; the bits do not tell how. */
static inline void cop_layer_product(const cop_layer_context *c, const cop_gemm *g) {
    if (!c->sparse || !c->kernels->gemm_sparse(g, c->workspace))
        c->gemm(c->kernels, g, c->workspace);
}

/* The registry: NULL-terminated, in the order of docs/reference/layers.md. */
const cop_layer_ops *const *cop_layer_registry(void);
const cop_layer_ops *cop_layer_find(const char *kind); /* NULL: unknown */

#endif
