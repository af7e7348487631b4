/* The kernels: every loop over tensor elements. They are compiled once per instruction set; the
 * program chooses one set when it starts.
 *
 * Layout of activations: "feature-major". A tensor of F features for N samples has F rows of `ld`
 * floats, where ld is N rounded up to a multiple of 16 (COP_COLUMNS_PAD). Each column is one
 * sample. Rows are 64-byte aligned. Padding columns hold finite values, on which no result depends.
 * With samples innermost, products read weights in place as broadcast scalars without packing,
 * masks and softmax vectorise over samples, and convolution needs no im2col.
 *
 * Arithmetic: rule D4. Each output element is computed in one fixed order, whatever the instruction
 * set, tile size, number of columns or thread. All functions are pure and thread-safe, and allocate
 * nothing. */
#ifndef COP_KERNELS_KERNEL_H
#define COP_KERNELS_KERNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bf16.h"
#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/base/shards.h"

#define COP_COLUMNS_PAD 16
#define COP_GEMM_BLOCK  256 /* length of a block of k (D4) */
#define COP_TREE_DEPTH  20  /* levels of D5's tree: log2 of the most leaves, plus slack */

/* C = A B, then C[i][j] += bias[i] if bias is not NULL. C is m x n, row-major, with leading
 * dimension ldc; A is m x k, B is k x n. Element (i, p) of A is a[i * a_row + p * a_col], and
 * element (p, j) of B is b[p * b_row + j * b_col], so strides can express any transposition. One
 * stride of each operand must be 1, unless the matrix has only one row or one column.
 *
 * Without segments, k is cut into blocks of 256. Each block is one chain of FMAs in ascending k,
 * which starts at +0; at its end, 0.0f is added. The sums of the blocks are added in order. If
 * `blocks` is not NULL, k is cut at other places: blocks holds the block_count ends of the blocks.
 * The ends ascend, the last one is k, and no block is longer than 256. A thinned network passes the
 * block ends of its full layer.
 *
 * With segments (the gradients of shards), k is cut at the segment_count + 1 ascending offsets
 * segments[0] = 0 .. segments[segment_count] = k. Each segment is a product of its own, computed as
 * above. The tree of D5 combines the products: its leaves are the segments, and an empty segment is
 * an absent leaf. With round_nodes, the value of each leaf and of each sum of the tree is rounded
 * to bf16 (base/bf16.h), and at the end 0.0f is added, so that -0 becomes +0. */
typedef struct cop_gemm {
    int m, n, k;
    const float *a;
    ptrdiff_t a_row, a_col; /* strides of rows and of columns, in floats */
    const float *b;
    ptrdiff_t b_row, b_col;
    float *c;
    ptrdiff_t ldc;
    const float *bias;   /* m values or NULL */
    const int *segments; /* segment_count + 1 offsets; NULL: k has no segments */
    int segment_count;
    bool round_nodes;  /* only with segments */
    const int *blocks; /* block_count ends; NULL: blocks of 256. Must be NULL if segments is not */
    int block_count;
    /* If not NULL, only some elements of C are needed, and the others may get any value. It has
     * n / 16 words for every needed_rows rows of C, in the order of cop_mask_request.bits. Word w
     * of a row is 0 if none of the columns 16 w to 16 w + 15 is needed. n is a multiple of 16. */
    const uint16_t *needed;
    int needed_rows;
} cop_gemm;

/* Returns the end of block number `block` of k, which starts at `from`. `blocks` is that of
 * cop_gemm. */
static inline int cop_gemm_block_end(const int *blocks, int block, int from, int k) {
    if (blocks) return blocks[block];
    return k - from < COP_GEMM_BLOCK ? k : from + COP_GEMM_BLOCK;
}

/* The size in bytes of the scratch memory (for packing) that a gemm of any shape needs. The memory
 * is 64-byte aligned, and each thread has its own. */
#define COP_GEMM_WORKSPACE ((size_t)4 << 20)

/* Keep masks (D3) for `ld` columns at once, one bit per unit and column. Each column is a sample.
 * `bits` has `units` rows of ld / 16 words. Column c is bit c % 16 of word c / 16 of a row; a set
 * bit keeps the unit. Column c and unit u use the Philox counter (block, samples[c], layer, step)
 * with keys[c]. For p = 0.5 (threshold 32768), the unit is dropped iff bit u % 128 of block u / 128
 * is 1. For any other p, it is dropped iff 16-bit lane u % 8 of block u / 8 is below threshold.
 * keys and samples have ld entries; those of padding columns may have any value. */
typedef struct cop_mask_request {
    int units, ld;
    uint32_t threshold; /* the probability p of dropping a unit, times 65536 */
    const cop_rng_key *keys;
    const uint32_t *samples;
    uint32_t layer, step;
    uint16_t *bits;
} cop_mask_request;

/* Normal noise (D3) for `ld` columns: noise[u][c] = mean + deviation * n, which is one FMA in f64
 * whose result is rounded to f32. Philox with keys[c] and the counter (u / 4, samples[c], layer,
 * step) gives the words w0 to w3. cop_normal_pair makes the normal numbers 0 and 1 from (w0, w1),
 * and 2 and 3 from (w2, w3). n is the normal number u % 4. */
typedef struct cop_noise_request {
    int units, ld;
    double mean, deviation;
    const cop_rng_key *keys;
    const uint32_t *samples;
    uint32_t layer, step;
    float *noise; /* (units, ld) */
} cop_noise_request;

/* y = kept ? scale * x + add (FMA) : dropped, over units x ld values. A value is kept if its bit in
 * `bits` is set; cop_mask_request describes the order of the bits. */
typedef struct cop_mask_affine {
    const uint16_t *bits;
    float scale, add, dropped;
    int units, ld;
} cop_mask_affine;

/* Keep bits of a dropconnect layer for one sample (D3), those of the rows [from, to). Weight (o, i)
 * is unit o * in + i, and bias o is unit out * in + o. Threshold, counters and lanes are those of
 * cop_mask_request. Bit i % 16 of word i / 16 of row o belongs to weight (o, i). Unused bits of a
 * row's last word are 0. */
typedef struct cop_dropconnect_fill {
    int out, in, from, to;
    uint32_t threshold, sample, layer, step;
    cop_rng_key key;
    uint8_t *stream;  /* scratch of cop_dropconnect_stream(larger of (to - from) * in and out) */
    uint16_t *bits;   /* the first word of row 0 */
    ptrdiff_t stride; /* from one row to the next, in words */
    uint16_t
        *bias_bits; /* (out + 15) / 16 words, drawn if to = out; NULL: biases are never dropped */
} cop_dropconnect_fill;
/* A kernel draws whole blocks of up to this number of counters, so it may write beyond the last
 * unit.
 */
#define COP_DROPCONNECT_COUNTERS 32
/* The size in bytes of cop_dropconnect_fill.stream for this number of units. */
static inline size_t cop_dropconnect_stream(int64_t units) {
    return (size_t)units / 8 + (COP_DROPCONNECT_COUNTERS + 1) * 16 + 64;
}

/* Products with a weight matrix that differs from sample to sample. The keep bits m are 1 or 0; a
 * term whose m is 0 leaves the sum unchanged.
 *   forward: y[o][c] = sum over i of m w[o][i] x[c][i]. Lane l of 16 is one chain of FMAs from +0
 *     over i = l, l + 16, ... The lanes are added pairwise (8, 4, 2, 1); then 0.0f is added.
 *   backward_input: dx[c][i] = sum over o of m w[o][i] dy[o][c]. o is cut into blocks of 256. Each
 *     block is one chain of FMAs from +0. The blocks' sums are added in order; then 0.0f is added.
 *   backward_weights: dw[o][i] = sum over c of m dy[o][c] x[c][i]. Each segment of the samples (see
 *     cop_gemm) is cut into blocks of 256, whose sums are computed and added like those of o. The
 *     tree of D5 combines the sums of the segments; then 0.0f is added. */
typedef struct cop_dropconnect {
    int out;              /* output units */
    int in;               /* inputs */
    int words;            /* (in + 15) / 16: mask words of an output unit in one mask */
    int columns;          /* samples */
    int ld;               /* distance between rows of y and dy, in floats */
    const uint16_t *bits; /* [out][ld][words]: [o][n] are the words of output unit o in mask n */
    const int32_t *masks; /* the number n of each sample's mask, below ld */
    const float *w;       /* (out, in) */
    const float *x;       /* (columns, words * 16), +0 past the end of a row */
    float *y;             /* (out, ld); padding columns stay unchanged */
    const float *dy;      /* (out, ld) */
    float *dx;            /* (columns, words * 16) */
    const int *segments;
    int segment_count;
    bool round_nodes; /* as in cop_gemm */
    float *dw;        /* (out, in) */
} cop_dropconnect;

/* Softmax cross-entropy. For each column c < columns, z_j is the logit of class j, y the label, and
 * t_j the target: 1 if j = y, else 0.
 *   m = max_j z_j
 *   e_j = exp(z_j - m)
 *   s = sum_j e_j, in ascending j
 *   loss[c] = log(s) - (z_y - m)
 *   dz_j = e_j / s - t_j
 *   argmax[c] = the first index of the largest logit
 *
 * If smoothing > 0, the target is t_j = [j = y] (1 - smoothing) + smoothing / classes, and in the
 * loss, (1 - smoothing) (z_y - m) + smoothing / classes * sum_j (z_j - m) replaces z_y - m. */
typedef struct cop_cross_entropy {
    int classes, columns, ld;
    float smoothing;
    const float *z;        /* (classes, ld) */
    const int32_t *labels; /* columns */
    float *dz;             /* (classes, ld) or NULL; padding columns become +0 */
    float *loss;           /* columns */
    int32_t *argmax;       /* columns */
} cop_cross_entropy;

/* A loss that is a mean over outputs, for `columns` samples. Exactly one of labels and target is
 * not NULL. With labels, output j of a column has the target t = 1 if j is the column's label, else
 * 0. Without labels, t = target[j][c]. For each output j of a column, in ascending order:
 *   squared error: sum += (z - t)^2 (FMA)
 *                  dz = 2 (z - t) / outputs
 *   bce, where z is a logit: e = exp(-|z|)
 *                  sum += (max(z, 0) - z t (FMA)) + log(1 + e)
 *                  dz = ((z < 0 ? e : 1) / (1 + e) - t) / outputs
 *
 * Then loss[c] = sum / outputs. */
typedef struct cop_mean_loss {
    bool bce; /* false: squared error */
    int outputs, columns, ld;
    const float *z;        /* (outputs, ld) */
    const int32_t *labels; /* columns, or NULL */
    const float *target;   /* (outputs, ld), or NULL */
    float *dz;             /* (outputs, ld) or NULL; padding columns become +0 */
    float *loss;           /* columns */
    int32_t *argmax;       /* first index of a column's largest z; must be NULL without labels */
} cop_mean_loss;

/* Element-wise functions. NaN gives NaN.
 *   sigmoid: (x < 0 ? e : 1) / (1 + e) with e = exp(-|x|)
 *   leaky_relu: x > 0 ? x : slope * x
 *   selu: x > 0 ? l x : l a (exp(x) - 1), where l and a are PyTorch's scale and alpha
 *   gelu: x times the normal distribution function of x (computed by erfc, not by tanh) */
typedef enum cop_activation {
    COP_ACTIVATION_SIGMOID = 1,
    COP_ACTIVATION_TANH,
    COP_ACTIVATION_LEAKY_RELU,
    COP_ACTIVATION_SELU,
    COP_ACTIVATION_GELU
} cop_activation;

/* How to add several gradient buffers (D5): a postfix program over `count` inputs. An op >= 0
 * pushes the input of this number; -1 replaces the top two values (l, r) with l + r. At the end,
 * one value remains: the sum. */
typedef struct cop_tree {
    int count, op_count;
    const int16_t *ops;
    bool round_nodes; /* each sum is rounded to bf16; the inputs are already rounded */
    bool bf16_inputs; /* the inputs are bf16: their pointers point to uint16_t instead of float */
} cop_tree;

/* An SGD update, as PyTorch's, of rows [row_begin, row_end) of one parameter (D6):
 *   g = tree(gradients) / batch
 *   g = weight_decay * w + g (FMA), if weight_decay is not 0
 *   g = g + l1 * sign(w), if l1 is not 0
 *   v = momentum * v + g (FMA), if momentum is not 0; in the first step, v = g
 *   d = g without momentum; g + momentum * v (FMA) with nesterov; else v
 *   w = w - rate * d (FMA)
 *
 * Then, if max_norm > 0 and the norm of the row exceeds it, w = w * (max_norm / norm). The norm is
 * the square root of the row's sum of squares: lane l of 16 is one chain of FMAs over columns l,
 * l + 16, ..., and the lanes are added pairwise (8, 4, 2, 1). */
typedef struct cop_sgd {
    const float *const *gradients; /* tree->count pointers to this parameter's (rows x cols) sums */
    const cop_tree *tree;
    const float *w_in;   /* master weights before the update */
    float *w_out;        /* weights after the update; may be w_in */
    float *velocity;     /* NULL if momentum is 0 */
    float *velocity_out; /* the new velocity; NULL: in place */
    atomic_int *finite;  /* set to 0 if a summed gradient is NaN or infinite; NULL: not checked */
    int cols;
    float batch;    /* samples of the minibatch */
    float rate;     /* the learning rate of this step */
    float momentum; /* 0: no momentum */
    float weight_decay;
    float l1;
    float max_norm; /* the largest norm of a row; 0: no limit */
    bool nesterov;
    bool first; /* step 1: the velocity is not read */
} cop_sgd;

/* Updates that divide by the root of a mean square, each as PyTorch's. Rows and max_norm work as in
 * cop_sgd. All rules begin with the gradient:
 *   g = tree(gradients) / batch
 *   g = weight_decay * w + g (FMA), if weight_decay is not 0
 *
 * square(v) is (square_new * g) * g + (square_keep * v): both products in parentheses are rounded,
 * the rest is one FMA.
 *
 *   ADAM, states m and v:
 *     m = m + mean_new * (g - m) (FMA)
 *     v = square(v)
 *     w = keep * w - rate * (m / (sqrt(v) / correction + epsilon)) (FMA)
 *   RMSPROP, states v and, if there is momentum, b:
 *     v = square(v)
 *     d = g / (sqrt(v) + epsilon)
 *     b = momentum * b + d (FMA), then d = b, if there is a second state
 *     w = w - rate * d (FMA)
 *   ADAGRAD, state v:
 *     v = v + g * g (FMA)
 *     w = w - rate * (g / (sqrt(v) + epsilon)) (FMA) */
typedef enum cop_adaptive_rule {
    COP_ADAPTIVE_ADAM = 1,
    COP_ADAPTIVE_RMSPROP,
    COP_ADAPTIVE_ADAGRAD
} cop_adaptive_rule;
typedef struct cop_adaptive {
    cop_adaptive_rule rule;
    const float *const *gradients;
    const cop_tree *tree;
    const float *w_in;
    float *w_out;
    const float *states[2]; /* before the update; NULL if the rule lacks this state */
    float *states_out[2];   /* after the update; may equal states */
    atomic_int *finite;     /* as in cop_sgd */
    int cols;
    float batch;        /* samples of the minibatch */
    float rate;         /* ADAM: learning rate / (1 - beta1^step); other rules: learning rate */
    float weight_decay; /* added to the gradient; 0 with AdamW, whose decay is in `keep` */
    float epsilon;
    float max_norm;
    float mean_new;    /* ADAM: 1 - beta1 */
    float square_new;  /* ADAM: 1 - beta2; RMSPROP: 1 - alpha */
    float square_keep; /* ADAM: beta2; RMSPROP: alpha */
    float correction;  /* ADAM: sqrt(1 - beta2^step) */
    float keep;        /* ADAM: 1; with AdamW's decoupled decay, 1 - learning rate * weight decay */
    float momentum;    /* RMSPROP with the second state: the factor of b */
    bool first;        /* step 1: the states count as 0 and are not read */
} cop_adaptive;

/* Products with patches of images: convolution and its gradient by the input. Each of the height x
 * width positions has a matrix B of k rows of `ld` floats and a result C = A B + bias of m rows of
 * `ld` floats. For the position (y, x):
 *   element (i, p) of A is a[i * a_row + a_columns[p]], the same for all positions
 *   row p of B starts at b + y * b_down + x * b_right + b_rows[p]
 *   row i of C starts at c + y * c_down + x * c_right + i * c_row
 *
 * All rows of B must exist: for padding, the caller copies the images with a border of zeros. b and
 * c are 64-byte aligned. ld is a multiple of 16, and all distances in b and c are multiples of ld.
 *
 * The order of the sums is that of cop_gemm without segments: k is cut into blocks of 256, or at
 * the ends in `blocks`, and each block is one chain of FMAs in ascending p. */
typedef struct cop_conv {
    int m, k, ld;
    const float *a;
    ptrdiff_t a_row;
    const ptrdiff_t *a_columns; /* k */
    const float *b;
    const ptrdiff_t *b_rows; /* k */
    int height, width;
    ptrdiff_t b_down, b_right;
    float *c;
    ptrdiff_t c_row, c_down, c_right;
    const float *bias; /* m values or NULL */
    const int *blocks; /* as in cop_gemm, or NULL */
    int block_count;
} cop_conv;

/* Gradients of the product that cop_conv describes, by A (dw) and by the bias (db). Over all
 * positions and columns, dw[i][p] is the sum of the products of row i of dy and row p of B, and
 * db[i] is the sum of row i of dy. For the position (y, x), row i of dy starts at
 *   dy + i * dy_row + (y * width + x) * ld
 *
 * Each segment of the columns (see cop_gemm) is computed separately. Its columns form groups of at
 * most 256. For a group of n columns, each 256 / n (rounded down) successive positions in row-major
 * order are one chain of FMAs from +0; for db it is a chain of additions. In a chain, positions are
 * the outer loop and columns the inner one. The sums of the chains are added in order. The tree of
 * D5 combines the sums of the segments; then 0.0f is added. */
typedef struct cop_conv_gradient {
    int m, k, ld;
    const float *b;
    const ptrdiff_t *b_rows;
    int height, width;
    ptrdiff_t b_down, b_right;
    const float *dy;
    ptrdiff_t dy_row;
    const int *segments;
    int segment_count;
    bool round_nodes; /* as in cop_gemm */
    float *sums; /* scratch of COP_CONV_LEVELS * cop_conv_level(m, k) floats, 64-byte aligned */
    float *dw;   /* (m, k) */
    float *db;   /* m values or NULL */
} cop_conv_gradient;

enum {
    /* Levels of the scratch: the most values that wait in the tree over all shards, plus one. */
    COP_CONV_LEVELS = 12,
    /* The most floats in a level. Gradients that do not fit are computed part by part. */
    COP_CONV_LEVEL_FLOATS = 1 << 16
};
/* Floats in one level of cop_conv_gradient.sums. */
static inline size_t cop_conv_level(int m, int k) {
    const size_t all = ((size_t)m + 15) / 16 * 16 * ((size_t)k + 1);
    return all < COP_CONV_LEVEL_FLOATS ? all : COP_CONV_LEVEL_FLOATS;
}

/* Windows of kernel x kernel pixels over `planes` images of height x width. A pixel is a row of
 * `ld` columns. The first window is at the top left, and windows start `stride` pixels apart in
 * both directions. Each plane has out_height x out_width windows, which all lie inside the image.
 */
typedef struct cop_pool {
    int planes, height, width, out_height, out_width, kernel, stride, ld;
} cop_pool;

/* Samples as the data set stores them: `count` rows of `features` values. Rows start `stride` bytes
 * apart. */
typedef struct cop_sample_rows {
    const void *rows;
    size_t stride;
    int count, features;
} cop_sample_rows;

/* Takes the largest of `pieces` values for each of `units` units. There are 1 to 256 pieces. z is
 * (units * pieces, ld); y and winners are (units, ld). */
typedef struct cop_maxout {
    int units, pieces, ld;
} cop_maxout;

/* The shape of a tensor that is transposed. Stored as features by samples, the tensor has the shape
 * (rows, ld), and its first `columns` columns are samples. Stored as samples by features, it has
 * the shape (columns, width), where width is a multiple of 16 and at least rows. */
typedef struct cop_transpose {
    int rows, ld, columns, width;
} cop_transpose;

/* The functions of one instruction set. A function that takes a request struct is defined by the
 * comment of that struct. Every `workspace` has COP_GEMM_WORKSPACE bytes, is 64-byte aligned, and
 * serves one thread. Outputs must not overlap inputs unless a comment allows it. */
typedef struct cop_kernels {
    const char *name; /* "baseline", "avx2", "avx512", "neon" */
    void (*gemm)(const cop_gemm *g, void *workspace);
    /* The same product with the same bits, for an operand with many zeros, which it skips: that is
     * A in a product with segments, B in any other. May leave out what is not `needed`. Returns
     * false if skipping would not pay, if shape, strides or a long k do not suit it, or if the
     * other operand is not finite; then C is undefined, and the caller runs gemm. */
    bool (*gemm_sparse)(const cop_gemm *g, void *workspace);
    /* Converts u8 rows to f32, feature-major: x[feature][sample] = value / 255.0f. Padding columns
     * become 0. */
    void (*load_u8)(const cop_sample_rows *samples, float *x, int ld);
    /* The same for f32 rows, whose values it copies unchanged. stride is a multiple of 4. */
    void (*load_f32)(const cop_sample_rows *samples, float *x, int ld);
    /* y = x > 0 ? x : +0; NaN passes through. y may be x. */
    void (*relu)(const float *x, float *y, size_t count);
    /* dx = y > 0 ? dy : +0. dx may be dy. */
    void (*relu_backward)(const float *y, const float *dy, float *dx, size_t count);
    void (*mask_fill)(const cop_mask_request *request);
    /* y = kept ? x * scale : +0 for `count` values, a multiple of 16. Bit i % 16 of word i / 16
     * keeps value i. Serves the forward and the backward pass. y may be x. */
    void (*mask_apply)(const uint16_t *bits, const float *x, float scale, float *y, size_t count);
    /* y = x * factor; y may be x */
    void (*scale)(const float *x, float factor, float *y, size_t count);
    /* out[r] = the sum of row r of x. The segments cut the columns as they cut k in cop_gemm. Lane
     * l of a segment adds columns l, l + 16, ... in order, starting from +0; then the 16 lanes are
     * added pairwise (8, 4, 2, 1). The tree of D5 combines the sums of the segments. */
    void (*row_sums)(const float *x, int rows, int ld, const int *segments, int segment_count,
                     float *out);
    /* The same, with the nodes of the tree rounded as cop_gemm.round_nodes says. */
    void (*row_sums_rounded)(const float *x, int rows, int ld, const int *segments,
                             int segment_count, float *out);
    void (*softmax_cross_entropy)(const cop_cross_entropy *loss);
    void (*mean_loss)(const cop_mean_loss *loss);
    /* Turns the logits of each column into probabilities. p may be z. */
    void (*softmax)(const float *z, int classes, int ld, float *p);
    void (*sgd)(const cop_sgd *update, int row_begin, int row_end);
    void (*adaptive)(const cop_adaptive *update, int row_begin, int row_end);
    /* out = tree(inputs), element-wise */
    void (*tree_sum)(const float *const *inputs, const cop_tree *tree, float *out, size_t count);
    /* Rounds to bf16 (base/bf16.h), and back; the latter is exact. */
    void (*round_bf16)(const float *x, uint16_t *y, size_t count);
    void (*widen_bf16)(const uint16_t *x, float *y, size_t count);
    /* Returns false if any value is NaN or infinite. */
    bool (*all_finite)(const float *x, size_t count);
    double (*sum_squares)(const float *x, size_t count); /* in one fixed order; for diagnostics */
    /* y[u][c] = largest of z[u * pieces + p][c] over pieces p. Of equal values the first wins. If
     * there is a NaN, the first NaN wins. A result of -0 becomes +0. winners, if not NULL, gets the
     * winning p in [u][c]. */
    void (*maxout)(const cop_maxout *shape, const float *z, float *y, uint8_t *winners);
    /* dz[u * pieces + p][c] = p == winners[u][c] ? dy[u][c] : +0 */
    void (*maxout_scatter)(const cop_maxout *shape, const float *dy, const uint8_t *winners,
                           float *dz);
    /* y = f(x). Only leaky_relu uses `slope`. y may be x. */
    void (*activate)(cop_activation f, float slope, const float *x, float *y, size_t count);
    /* dx = dy f'(x). `from` is y = f(x), but for gelu it is x. dx may be dy. */
    void (*activate_backward)(cop_activation f, float slope, const float *from, const float *dy,
                              float *dx, size_t count);
    /* dx = y ((dy - d) - s), where d is dy at the first largest y, and s the sum of y_j (dy_j - d)
     * over the rows (one chain of FMAs from +0). dx may be dy. */
    void (*softmax_backward)(const float *y, const float *dy, int classes, int ld, float *dx);
    void (*noise_fill)(const cop_noise_request *request);
    void (*mask_affine)(const cop_mask_affine *mask, const float *x, float *y); /* y may be x */
    void (*multiply)(const float *a, const float *b, float *y, size_t count); /* y may be a or b */
    void (*conv)(const cop_conv *conv, void *workspace);
    void (*conv_gradient)(const cop_conv_gradient *gradient, void *workspace);
    /* y = the largest value of each window. Of equal values the first in row-major order wins. If
     * there is a NaN, the first NaN wins. A result of -0 becomes +0. winners, if not NULL, gets the
     * winner's place in the window: its row * kernel + its column. */
    void (*max_pool)(const cop_pool *pool, const float *x, float *y, uint16_t *winners);
    /* dx of a pixel = a sum that starts at +0 and runs in row-major order over the windows that
     * cover the pixel. A window adds its dy if the pixel won it, and +0 if not. */
    void (*max_pool_backward)(const cop_pool *pool, const float *dy, const uint16_t *winners,
                              float *dx);
    /* y = s / kernel^2, where s starts at +0 and adds the window's pixels in row-major order */
    void (*avg_pool)(const cop_pool *pool, const float *x, float *y);
    /* dx of a pixel = s / kernel^2, where s starts at +0 and adds, in row-major order, dy of the
     * windows that cover the pixel */
    void (*avg_pool_backward)(const cop_pool *pool, const float *dy, float *dx);
    void (*dropconnect_fill)(const cop_dropconnect_fill *fill);
    void (*dropconnect_forward)(const cop_dropconnect *product);
    void (*dropconnect_backward_input)(const cop_dropconnect *product);
    void (*dropconnect_backward_weights)(const cop_dropconnect *product);
    /* x (rows, ld) -> out (columns, width), +0 past the end of a row */
    void (*transpose_pad)(const cop_transpose *shape, const float *x, float *out);
    /* x (columns, width) -> out (rows, ld); padding columns become +0 */
    void (*transpose_back)(const cop_transpose *shape, const float *x, float *out);
    /* y = a * b + c (FMA); y may be any of them */
    void (*multiply_add)(const float *a, const float *b, const float *c, float *y, size_t count);
    /* y = sqrt(x * factor) */
    void (*scaled_sqrt)(const float *x, float factor, float *y, size_t count);
} cop_kernels;

/* Chooses the kernels for this machine. If the environment variable COPPICE_ISA is set and not
 * empty, it names them (baseline, avx2, avx512, neon); otherwise the best are chosen that this CPU
 * can run. Fails with UNSUPPORTED if the name is unknown, or if this build or CPU lacks that set.
 * The table is static. */
cop_err cop_kernels_choose(const cop_kernels **out, cop_error *error);
/* Finds kernels by name. Returns NULL if this build or CPU lacks them. The table is static. */
const cop_kernels *cop_kernels_find(const char *name);
/* Lists the names of all kernels in this build, best first, with NULL at the end. This CPU may be
 * unable to run some of them. The list is static. */
const char *const *cop_kernels_names(void);

/* How a job computes f32 products: by cop_kernels.gemm (`numerics: portable`) or by OpenBLAS with
 * one thread (`numerics: openblas`). */
typedef enum cop_numerics { COP_NUMERICS_PORTABLE = 1, COP_NUMERICS_OPENBLAS = 2 } cop_numerics;
/* Runs a gemm by kernels->gemm or by OpenBLAS. OpenBLAS computes a product without segments, or
 * each segment, in an order of its own; the tree of D5 combines the segments. Call
 * cop_numerics_load first. */
typedef void (*cop_gemm_fn)(const cop_kernels *kernels, const cop_gemm *g, void *workspace);
cop_gemm_fn cop_gemm_for(cop_numerics numerics);
/* If the numerics are OPENBLAS, loads OpenBLAS, with one thread. Later calls return the outcome of
 * the first one. Call it before the first gemm. Fails with UNSUPPORTED and the reason if this
 * machine cannot load OpenBLAS. Any thread. */
cop_err cop_numerics_load(cop_numerics numerics, cop_error *error);
/* Writes D4's fingerprint to `out` and returns it: "portable-1", or for OpenBLAS, for example,
 * "openblas 0.3.29 SkylakeX threads 1". Loads OpenBLAS if need be; "" if it cannot be loaded. */
const char *cop_numerics_fingerprint(cop_numerics numerics, char out[128]);

/* The self-test of D9: runs kernels of `kernels` (gemm, sums, masks, loading, relu, scale, softmax
 * and its cross-entropy, tree_sum, sgd), the functions of base/real.h and Philox on fixed input,
 * and compares the digest of the results with the golden one of portable-1. Takes less than 20 ms.
 * Fails with CORRUPT if the digests differ, and with NO_MEMORY if it cannot allocate its arrays.
 * `digest` gets the 32 bytes of the computed digest, except after NO_MEMORY. Sets up the calling
 * thread as cop_compute_thread_init does. */
cop_err cop_self_test(const cop_kernels *kernels, unsigned char digest[32], cop_error *error);
/* Makes the calling thread round to nearest, without flushing subnormal numbers to zero (FTZ, DAZ),
 * and asserts that it does (D4). Call it at the start of each compute thread. */
void cop_compute_thread_init(void);

#endif
