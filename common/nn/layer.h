/* Layers. Each kind has one file in layers/, one row in the registry (layers/kinds.h) and one entry
 * in the conformance suite.
 *
 * A layer has no state of its own. It consists of a table of functions, its spec from the job file,
 * and its place in the model. Activations are feature-major (see kernel.h): x[features][ld], one
 * column per sample. All parameters of a model live in one flat buffer. */
#ifndef COP_NN_LAYER_H
#define COP_NN_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/kernels/kernel.h"
#include "common/nn/profile.h"

/* The values of job file fields, and the modes of a pass: train; eval (the whole network, nothing
 * dropped); mc (Monte Carlo: one thinned network, a member of an ensemble). */
typedef enum cop_scope { COP_SCOPE_SAMPLE = 1, COP_SCOPE_SHARD = 2 } cop_scope;
typedef enum cop_variant { COP_VARIANT_INVERTED = 1, COP_VARIANT_CLASSIC = 2 } cop_variant;
typedef enum cop_mode { COP_MODE_TRAIN = 1, COP_MODE_EVAL = 2, COP_MODE_MC = 3 } cop_mode;
typedef enum cop_inference { COP_INFERENCE_MOMENTS = 1, COP_INFERENCE_MEAN = 2 } cop_inference;
/* For export: a value in a graph of operators (graph.h), and PyTorch source code (torch.h). */
typedef int32_t cop_value;
typedef struct cop_graph cop_graph;
typedef struct cop_torch cop_torch;
typedef enum cop_init { COP_INIT_HE = 1, COP_INIT_GLOROT = 2, COP_INIT_TORCH = 3 } cop_init;

/* One layer of the job file. Fields that its kind does not have are 0. */
typedef struct cop_layer_spec {
    char kind[32];   /* "linear", "relu", "dropout" ... */
    int32_t units;   /* outputs of linear, maxout and dropconnect; output channels of conv2d */
    int32_t pieces;  /* maxout: linear functions per unit */
    int32_t kernel;  /* width and height of a window, in pixels */
    int32_t stride;  /* distance of windows, in pixels; pooling layers use `kernel` if it is 0 */
    int32_t padding; /* conv2d: zeros around the image, in pixels */
    int32_t draws;   /* dropconnect with inference: moments: samples of each output */
    double p;        /* the probability to drop a unit or a weight */
    double slope;    /* leaky_relu: the factor of values below 0 */
    double max_norm; /* the largest norm of a row of weights; 0: no limit */
    bool bias, drop_bias;
    cop_inference inference;
    cop_init init;
    cop_scope scope;
    cop_variant variant;
} cop_layer_spec;

/* The shape of one sample: rank 1 {features} or rank 3 {channels, height, width}. */
typedef struct cop_shape {
    int32_t rank, dims[4];
} cop_shape;
/* The number of values: the product of the dimensions. */
int64_t cop_shape_size(const cop_shape *shape);
/* Formats a shape as "784" or "3 x 32 x 32"; returns `out`. */
const char *cop_shape_format(const cop_shape *shape, char out[64]);

/* One parameter tensor of a layer, named and shaped as in PyTorch's nn.Sequential. An update treats
 * it as a matrix of rows x cols, and max_norm limits the norm of each row. The weight of a linear
 * layer is (out, in); a bias is one row. Weight decay applies to all parameters, as in PyTorch. */
typedef struct cop_parameter {
    char name[48]; /* such as "1.weight", where 1 is the layer's index in the job file's list */
    int32_t rank, dims[4];
    int32_t rows, cols;
    int64_t offset;  /* position in the flat buffer, in floats; a multiple of 16 */
    int64_t count;   /* rows * cols */
    double max_norm; /* 0: no limit */
    int32_t layer;   /* index in the model */
} cop_parameter;

/* A layer's place in a model. */
typedef struct cop_layer {
    const struct cop_layer_ops *ops;
    cop_layer_spec spec;
    int32_t index; /* position in the job file's list, from 0; also the `layer` word of random
                      counters (D3) */
    cop_shape in, out;
    int32_t parameter_first, parameter_count; /* its range in the model's table of parameters */
    /* For layers with mask_words: where the layer's words start in the pass's mask arena, if a pass
     * has 16 columns. cop_layer_masks multiplies it by ld / 16 for other passes. */
    int64_t mask_offset;
    const struct cop_layer *next; /* the following layer of the model; NULL: this is the last */
    /* Set only in a thinned network (thin.h), else NULL and 0: where the sums of the layer's
     * product are cut into blocks (cop_gemm.blocks), and the number of these blocks. */
    const int *blocks;
    int block_count;
    /* Set only in a thinned network, else NULL: which units of its input the layer passes on, in
     * ascending order. NULL in a thinned network: all. */
    const int32_t *take;
} cop_layer;

/* What a layer can use while it runs. The pass fills one for each compute thread. */
typedef struct cop_layer_context {
    const cop_kernels *kernels;
    cop_gemm_fn gemm;
    bool sparse;     /* products may skip elements that are 0 (see cop_layer_product) */
    void *workspace; /* COP_GEMM_WORKSPACE bytes */
    void *scratch;   /* as many bytes as ops->scratch returns, aligned to 64 bytes */
    cop_mode mode;
    int columns, ld;
    const int *segments; /* the shards among the columns: segment_count + 1 offsets */
    int segment_count;
    bool round_nodes; /* the nodes of the shards' tree are rounded to bf16 (cop_gemm) */
    /* The keys of random numbers (D3), one for each column:
     *   train: derive(seed, mask, shard) in mask_keys, derive(seed, noise, shard) in noise_keys
     *   mc:    derive(seed, ensemble, 0) in both
     *   eval:  derive(seed, draws, 0) in both */
    const cop_rng_key *mask_keys, *noise_keys;
    /* The sample word of each column (D3): the sample's index in its shard in train mode, and in
     * the whole evaluated part in mc and eval mode. */
    const uint32_t *samples;
    const uint32_t *no_samples; /* 0 for each column: the sample words for scope `shard` */
    /* The step word (D3): the step (from 1) in train mode, the member's number (from 0) in mc mode,
     * 0 in eval mode. */
    uint32_t step;
    const float *weights;            /* the model's flat buffer */
    float *gradients;                /* a buffer of the same layout; NULL outside training */
    const cop_parameter *parameters; /* the model's whole table */
    uint16_t *masks;                 /* the pass's mask arena; NULL in eval mode */
    /* The index of the mask layer that is already drawn for this forward pass, because an earlier
     * layer needed its mask, or -1. NULL: masks are drawn in order, and every output is needed. */
    int32_t *drawn;
    cop_lane *lane; /* the profile of the thread; NULL: there is none */
} cop_layer_context;

/* The tensors of one backward call, [features][ld] feature-major. */
typedef struct cop_layer_tensors {
    const float *x;  /* input of the forward pass; may be NULL unless the layer reads INPUT */
    const float *y;  /* output of the forward pass; may be NULL unless the layer reads OUTPUT */
    const float *dy; /* gradient of the loss with respect to y */
    float *dx;       /* receives the gradient with respect to x; NULL: not needed */
    /* Which elements of dx matter (cop_gemm.needed, one row per feature). NULL: all. */
    const uint16_t *dx_needed;
} cop_layer_tensors;

/* What backward reads of the forward pass, apart from the masks: a set of bits. */
typedef enum cop_layer_reads {
    COP_READS_NOTHING = 0,
    COP_READS_INPUT = 1,
    COP_READS_OUTPUT = 2,
    COP_READS_OUTPUT_SIGN = 4 /* reads only whether each output is above 0 */
} cop_layer_reads;
/* What an in_place layer preserves of the tensor that it overwrites:
 *   NOTHING  nothing that a caller may rely on
 *   SIGN     an output is above 0 exactly where the input was. The layer may also write 0 over any
 *            element for which its backward passes 0 down, because there the sign no longer
 *            matters.
 *   VALUES   everything: the layer is the identity */
typedef enum cop_layer_keeps {
    COP_KEEPS_NOTHING = 0,
    COP_KEEPS_SIGN = 1,
    COP_KEEPS_VALUES = 2
} cop_layer_keeps;

/* How a layer treats units (features, or channels of an image), for thin execution (thin.h). */
typedef enum cop_layer_thin {
    COP_THIN_NEVER = 0, /* an output depends on all units */
    COP_THIN_EACH,      /* each output unit depends on one input unit */
    COP_THIN_EACH_ZERO, /* each output unit depends on one input unit, and 0 becomes 0 */
    COP_THIN_FLATTEN,   /* turns channels into features */
    COP_THIN_MASK,      /* drops units */
    COP_THIN_WEIGHTS /* its weight has columns for each input unit and rows for each output unit */
} cop_layer_thin;

enum { COP_MODE_TEXT = 96 };

typedef struct cop_layer_ops {
    const char *kind;
    /* Checks the spec and computes layer->out from layer->in. INPUT or LIMIT: they do not fit. */
    cop_err (*shape)(cop_layer *layer, cop_error *error);
    /* Writes a description of each parameter to `out` (name without the prefix "N.", rank, dims,
     * rows, cols, max_norm) and returns the number of parameters. NULL: the kind has none. */
    int (*parameters)(const cop_layer *layer, cop_parameter out[4]);
    /* Writes the initial values of the layer's own `parameters` to the flat buffer. The random
     * numbers are those of init.h. NULL: the kind has no parameters. */
    void (*init)(const cop_layer *layer, uint64_t seed, const cop_parameter *parameters,
                 float *flat);
    /* The number of uint16 words that the layer stores in a forward pass over `ld` columns (masks,
     * noise, the winner of a maximum). It must be proportional to ld. The words exist only in train
     * and mc mode. NULL: the layer stores nothing. */
    int64_t (*mask_words)(const cop_layer *layer, int ld);
    /* Bytes of scratch memory that one forward or backward call needs. NULL: none. */
    size_t (*scratch)(const cop_layer *layer, int ld);
    /* y = f(x). x and y do not overlap, but may be equal if in_place is set. */
    void (*forward)(const cop_layer *layer, const cop_layer_context *c, const float *x, float *y);
    /* Computes dx from dy, and writes the gradients of the layer's parameters to c->gradients: sums
     * over the samples of each shard, which are added in the order of D5's tree. dx may equal dy if
     * in_place is set. */
    void (*backward)(const cop_layer *layer, const cop_layer_context *c,
                     const cop_layer_tensors *tensors);
    /* Element-wise layers only: y[i] = f(x[i]). x may equal y. NULL: not element-wise. */
    void (*map)(const cop_layer *layer, const cop_kernels *kernels, const float *x, float *y,
                size_t count);
    /* Mask layers only, after a forward pass in train or mc mode: the factor that each element was
     * multiplied by (0, a scale, or noise), [values][ld] feature-major. */
    void (*factors)(const cop_layer *layer, const cop_layer_context *c, float *out);
    /* The number of values per sample that `factors` writes. NULL: as many as the input has. A
     * layer that drops parameters writes the factors of its parameters, in the order in which
     * `parameters` lists them. */
    int64_t (*factor_count)(const cop_layer *layer);
    /* True if, in eval mode, this layer's forward also does the work of the next layer, which the
     * pass then skips. NULL: false. */
    bool (*absorbs_next)(const cop_layer *layer);
    /* Floating-point operations of the forward pass for one sample; an FMA counts as 2. */
    double (*flop)(const cop_layer *layer);
    /* Export to other programs (docs/reference/model-files.md). `graph` appends the ONNX operators
     * that compute the layer from x, and returns the layer's output. They compute eval mode, or
     * train mode while the graph's `training_mode` is on. `torch` prints a Python expression that
     * constructs the layer from the classes of PyTorch's `nn`, or from one that it adds by
     * cop_torch_class. */
    cop_value (*graph)(const cop_layer *layer, cop_graph *graph, cop_value x);
    void (*torch)(const cop_layer *layer, cop_torch *out);
    /* Tells people how the exported layer differs from eval mode. If the function is NULL or
     * returns NULL, the exported layer computes eval mode. */
    const char *(*exported_as)(const cop_layer *layer);
    /* Describes what the layer does in train and in eval mode, in a few words for `coppice plan`.
     * NULL: the kind's name is description enough. */
    void (*modes)(const cop_layer *layer, char train[COP_MODE_TEXT], char eval[COP_MODE_TEXT]);
    /* forward can write y over x, and backward can write dx over dy. The pass lets forward do so
     * only where no backward function needs the old content. */
    bool in_place;
    cop_layer_keeps keeps; /* what the layer preserves; only for in_place layers */
    unsigned reads;        /* what backward reads: a set of cop_layer_reads */
    /* The layer draws at random. Such a layer must not come after the last layer with weights,
     * because it would drop outputs of the network. */
    bool drops;
    bool drops_maps; /* if the input is an image, the layer drops whole channels */
    bool squashes;   /* outputs probabilities, but losses that take logits squash by themselves */
    /* If the layer is the model's first one with weights, the network's input is flattened, except
     * if an earlier layer wants an image. */
    bool wants_flat;
    bool wants_image; /* accepts only inputs of rank 3 */
    cop_layer_thin thin;
} cop_layer_ops;

/* Returns the layer's part of the mask arena. It has mask_words(layer, c->ld) words. */
static inline uint16_t *cop_layer_masks(const cop_layer *layer, const cop_layer_context *c) {
    COP_ASSERT(layer->ops->mask_words && c->masks && c->ld % COP_COLUMNS_PAD == 0);
    return c->masks + layer->mask_offset * (c->ld / COP_COLUMNS_PAD);
}

/* Marks the start of one of the layer's phases in the profile, if there is one. The pass marks the
 * start of a layer's forward (FORWARD, or MASK if the layer draws at random and has no parameters)
 * and of its backward (WEIGHTS if the layer has parameters, otherwise BACKWARD). A layer with
 * parameters marks the start of BACKWARD: the gradient of its input. */
static inline void cop_layer_phase(const cop_layer *layer, const cop_layer_context *c,
                                   cop_phase phase) {
    cop_lane_enter(c->lane, phase, layer->index);
}

/* Computes C = A B (see cop_gemm). If c->sparse is set, it tries the sparse product first, which
 * skips zeros. Both products give the same bits. */
static inline void cop_layer_product(const cop_layer_context *c, const cop_gemm *g) {
    if (!c->sparse || !c->kernels->gemm_sparse(g, c->workspace))
        c->gemm(c->kernels, g, c->workspace);
}

/* out[r] = the sum of row r of x over the samples: the gradient of a bias. The tree of D5 combines
 * the sums of the shards. x has ld columns. */
static inline void cop_layer_row_sums(const cop_layer_context *c, const float *x, int rows,
                                      float *out) {
    const cop_kernels *k = c->kernels;
    (c->round_nodes ? k->row_sums_rounded : k->row_sums)(x, rows, c->ld, c->segments,
                                                         c->segment_count, out);
}

/* All kinds, NULL-terminated, in the order of docs/reference/layers.md. */
const cop_layer_ops *const *cop_layer_registry(void);
/* The kind with this name, such as "relu". NULL: there is no such kind. */
const cop_layer_ops *cop_layer_find(const char *kind);

#endif
