/* The kernels: every loop over tensor elements. They are compiled once per instruction set; the
 * program chooses one set when it starts.
 *
 * Layout of activations: "feature-major". A tensor of F features for N samples has F rows of `ld`
 * floats, where ld is N rounded up to a multiple of 16 (COP_COLUMNS_PAD). Each column is one
 * sample. Rows are 64-byte aligned. Padding columns hold finite values, which nobody reads. With
 * samples innermost, products read weights in place as broadcast scalars without packing, masks and
 * softmax vectorise over samples, and convolution needs no im2col.
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

#include "common/base/err.h"
#include "common/base/rng.h"
#include "common/base/shards.h"

#define COP_COLUMNS_PAD 16
#define COP_GEMM_BLOCK  256 /* length of a block of k (D4) */
#define COP_TREE_DEPTH  20  /* log2 of the largest number of leaves, plus slack */

/* C = A B, then C[i][j] += bias[i] if bias is not NULL. C is m x n, row-major, with leading
 * dimension ldc; A is m x k, B is k x n. Element (i, p) of A is a[i * a_row + p * a_col], and
 * likewise for B. Strides express every transposition. One stride of each operand must be 1, unless
 * the matrix has one row or column.
 *
 * Without segments, k is cut into blocks of 256. Each block is one chain of FMAs in ascending k
 * that starts at +0 and ends with + 0.0f. The block sums are added in order. `blocks` gives other
 * block ends: ascending, the last is k, and no block is longer than 256. A thinned network passes
 * the block ends of its full layer.
 *
 * With segments (the gradients of shards), k is cut at the segment_count + 1 ascending offsets
 * segments[0] = 0 .. segments[segment_count] = k. Each segment is a product of its own, computed as
 * above; an empty segment is absent. The tree of D5 combines the segments' values (a binary counter
 * whose leaves are the segments). */
typedef struct cop_gemm {
    int m, n, k;
    const float *a;
    ptrdiff_t a_row, a_col;
    const float *b;
    ptrdiff_t b_row, b_col;
    float *c;
    ptrdiff_t ldc;
    const float *bias;   /* m values or NULL */
    const int *segments; /* or NULL */
    int segment_count;
    const int *blocks; /* or NULL; segments and blocks exclude each other */
    int block_count;
} cop_gemm;

/* End of block number `block` of k, which starts at `from`. */
static inline int cop_gemm_block_end(const int *blocks, int block, int from, int k) {
    if (blocks) return blocks[block];
    return k - from < COP_GEMM_BLOCK ? k : from + COP_GEMM_BLOCK;
}

/* Bytes of scratch memory that one running gemm needs, whatever its shape (for packing). 64-byte
 * aligned; one per thread. */
#define COP_GEMM_WORKSPACE ((size_t)4 << 20)

/* Keep masks (D3) for `columns` samples at once, one bit per unit and column. `bits` has `units`
 * rows of ld / 16 words. Column c is bit c % 16 of word c / 16; a set bit keeps the unit. Column c
 * and unit u use the Philox counter (block, samples[c], layer, step) with keys[c]. For p = 0.5
 * (threshold 32768), the unit is dropped iff bit u % 128 of block u / 128 is 1. Otherwise it is
 * dropped iff 16-bit lane u % 8 of block u / 8 is below threshold. keys and samples have ld
 * entries; those of padding columns may have any value. */
typedef struct cop_mask_request {
    int units, ld;
    uint32_t threshold;
    const cop_rng_key *keys;
    const uint32_t *samples;
    uint32_t layer, step;
    uint16_t *bits;
} cop_mask_request;

/* Normal noise (D3) for `ld` columns: noise[u][c] = mean + deviation * n, an FMA in f64, rounded
 * once to f32. cop_normal_pair makes two pairs of the words of Philox counter (u / 4, samples[c],
 * layer, step) with keys[c]: one of (w0, w1), one of (w2, w3). n is number u % 4 of these. */
typedef struct cop_noise_request {
    int units, ld;
    double mean, deviation;
    const cop_rng_key *keys;
    const uint32_t *samples;
    uint32_t layer, step;
    float *noise; /* (units, ld) */
} cop_noise_request;

/* y = kept ? scale * x + add (FMA) : dropped, over units x ld values. */
typedef struct cop_mask_affine {
    const uint16_t *bits;
    float scale, add, dropped;
    int units, ld;
} cop_mask_affine;

/* Keep bits of a dropconnect layer for one sample (D3). Weight (o, i) is unit o * in + i, and bias
 * o is unit out * in + o. Counters and lanes are those of cop_mask_request. Bit i % 16 of word i /
 * 16 of row o belongs to weight (o, i). Unused bits of a row's last word are 0. */
typedef struct cop_dropconnect_fill {
    int out, in;
    uint32_t threshold, sample, layer, step;
    cop_rng_key key;
    uint32_t *stream;    /* scratch of cop_dropconnect_stream(units) bytes */
    uint16_t *bits;      /* row 0 */
    ptrdiff_t stride;    /* words between rows */
    uint16_t *bias_bits; /* (out + 15) / 16 words; NULL: biases are never dropped */
} cop_dropconnect_fill;
static inline size_t cop_dropconnect_stream(int64_t units) {
    return ((size_t)units / 2048 + 1) * 256 + 64;
}

/* Products with a weight matrix that differs from sample to sample. The keep bits m are 1 or 0; a
 * term whose m is 0 leaves the sum unchanged.
 *   forward: y[o][c] = sum over i of m w[o][i] x[c][i]. Lane l of 16 is one chain of FMAs from +0
 *     over i = l, l + 16, ...; the lanes are added pairwise (8, 4, 2, 1), then + 0.0f.
 *   backward_input: dx[c][i] = sum over o of m w[o][i] dy[o][c]. o in blocks of 256, each one chain
 *     of FMAs; the blocks are added in order, then + 0.0f.
 *   backward_weights: dw[o][i] = sum over c of m dy[o][c] x[c][i]. Each segment (see cop_gemm) in
 *     blocks of 256 samples; the tree of D5 combines the segments' values, then + 0.0f. */
typedef struct cop_dropconnect {
    int out, in, words;   /* words: (in + 15) / 16 */
    int columns, ld;      /* samples; distance between rows of y and dy */
    const uint16_t *bits; /* [out][ld][words]: bits of row o and mask n */
    const int32_t *masks; /* each sample's mask number, below ld */
    const float *w;       /* (out, in) */
    const float *x;       /* (columns, words * 16), +0 past the end of a row */
    float *y;             /* (out, ld); padding columns stay unchanged */
    const float *dy;      /* (out, ld) */
    float *dx;            /* (columns, words * 16) */
    const int *segments;
    int segment_count;
    float *dw; /* (out, in) */
} cop_dropconnect;

/* Softmax cross-entropy over `classes` rows, for each column c < columns: m = max_j z, e_j =
 * exp(z_j - m), s = sum_j e_j in ascending j, loss[c] = log(s) - (z_y - m), dz = e_j / s - [j = y].
 * With `smoothing`, the target is [j = y] (1 - smoothing) + smoothing / classes, and the loss
 * follows it. argmax[c] is the first index of the largest logit. */
typedef struct cop_cross_entropy {
    int classes, columns, ld;
    float smoothing;
    const float *z;        /* (classes, ld) */
    const int32_t *labels; /* columns */
    float *dz;             /* (classes, ld) or NULL; padding columns become +0 */
    float *loss;           /* columns */
    int32_t *argmax;       /* columns */
} cop_cross_entropy;

/* A loss that is a mean over outputs, for `columns` samples. With labels, the target is t_j = [j =
 * label], and argmax (or NULL) gets the first index of the largest z. Without labels, t =
 * target[j][c].
 *   squared error: sum += (z - t)^2 (FMA), dz = 2 (z - t) / outputs
 *   bce (z are logits): e = exp(-|z|), sum += (max(z, 0) - z t (FMA)) + log(1 + e), dz = ((z < 0 ?
 *     e : 1) / (1 + e) - t) / outputs
 *
 * j runs in ascending order; loss[c] = sum / outputs. dz (or NULL) is +0 in padding columns. */
typedef struct cop_mean_loss {
    bool bce;
    int outputs, columns, ld;
    const float *z;        /* (outputs, ld) */
    const int32_t *labels; /* or NULL */
    const float *target;   /* (outputs, ld), or NULL */
    float *dz;             /* (outputs, ld) */
    float *loss;
    int32_t *argmax;
} cop_mean_loss;

/* Element-wise functions. NaN gives NaN.
 *   sigmoid: (x < 0 ? e : 1) / (1 + e) with e = exp(-|x|)
 *   leaky_relu: x > 0 ? x : slope * x
 *   selu: x > 0 ? l x : l a (exp(x) - 1), with l and a of PyTorch
 *   gelu: x times the normal distribution function of x (by erfc, not by tanh) */
typedef enum cop_activation {
    COP_ACTIVATION_SIGMOID = 1,
    COP_ACTIVATION_TANH,
    COP_ACTIVATION_LEAKY_RELU,
    COP_ACTIVATION_SELU,
    COP_ACTIVATION_GELU
} cop_activation;

/* How to add several gradient buffers (D5): a postfix program over `count` inputs. An op >= 0
 * pushes that input; -1 replaces the top two values (l, r) with l + r. One value remains at the
 * end. */
typedef struct cop_tree {
    int count, op_count;
    const int16_t *ops;
} cop_tree;

/* An SGD update, as PyTorch's, of rows [row_begin, row_end) of one parameter (D6):
 *   g = tree(gradients) / batch; g += weight_decay * w (FMA); if l1: g += l1 * sign(w);
 *   v = momentum * v + g (FMA; first step: v = g);
 *   d = nesterov ? g + momentum * v (FMA) : v; without momentum d = g;
 *   w = w - rate * d (FMA).
 *
 * If max_norm > 0 and the row's norm exceeds it, then w = w * (max_norm / norm). The norm is the
 * square root of 16 lanes' sums of squares (FMA), added by the fixed tree. */
typedef struct cop_sgd {
    const float *const *gradients; /* tree->count pointers to this parameter's (rows x cols) sums */
    const cop_tree *tree;
    const float *w_in;   /* master weights before the update */
    float *w_out;        /* weights after the update; may be w_in */
    float *velocity;     /* NULL if momentum is 0 */
    float *velocity_out; /* the new velocity; NULL: in place */
    atomic_int *finite;  /* set to 0 if a summed gradient is NaN or infinite; NULL: not checked */
    int cols;
    float batch, rate, momentum, weight_decay, l1, max_norm;
    bool nesterov, first;
} cop_sgd;

/* Updates that divide by the root of a mean square, each as PyTorch's. Rows and max_norm work as in
 * cop_sgd. g = tree(gradients) / batch; g = weight_decay * w + g (FMA, if weight_decay is not 0);
 * square(v) = square_new * g * g + square_keep * v (square_new * g rounded, then one FMA).
 *   ADAM, states m, v: m = m + mean_new * (g - m) (FMA); v = square(v); w = keep * w - rate * (m /
 *     (sqrt(v) / correction + epsilon)) (FMA).
 *   RMSPROP, states v, b: v = square(v); d = g / (sqrt(v) + epsilon); with the second state b =
 *     momentum * b + d (FMA), d = b; w = w - rate * d (FMA).
 *   ADAGRAD, state v: v = v + g * g (FMA); w = w - rate * (g / (sqrt(v) + epsilon)) (FMA). */
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
    const float *states[2]; /* NULL if the rule lacks this state */
    float *states_out[2];   /* may equal states */
    atomic_int *finite;
    int cols;
    float batch, rate, weight_decay, epsilon, max_norm;
    float mean_new, square_new, square_keep; /* 1 - beta1; 1 - beta2 or 1 - alpha; beta2 or alpha */
    float correction, keep, momentum; /* root of 1 - beta2^step; 1, or 1 - rate * decoupled decay */
    bool first;                       /* states count as 0 and are not read */
} cop_adaptive;

/* Products with patches of images: convolution and its gradient by the input. Each of the height x
 * width positions has a matrix B of k rows of `ld` floats. Row p of position (y, x) starts at b + y
 * * b_down + x * b_right + b_rows[p]. All of it must exist; padded images are copies with a border
 * of zeros. C (m x ld) of that position = A B, then + bias. Row i of C is at c + i * c_row + y *
 * c_down + x * c_right. Element (i, p) of A is a[i * a_row + a_columns[p]].
 *
 * The order is that of cop_gemm without segments: k in blocks of 256 (or `blocks`), each one chain
 * of FMAs in ascending p. b and c are 64-byte aligned; ld is a multiple of 16 and divides all
 * distances. */
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
    const int *blocks; /* or NULL */
    int block_count;
} cop_conv;

/* Gradients of such a product by A and by the bias: dw (m x k, row-major) and db (m values, or
 * NULL) are the sums of dy * B over positions and columns. dy of position (y, x) and row i is at dy
 * + i * dy_row + (y * width + x) * ld.
 *
 * Each segment (see cop_gemm) is computed separately. Its columns form groups of at most 256. For a
 * group of n columns, max(1, 256 / n) positions at a time, in row-major order, are one chain of
 * FMAs from +0 (for db, of additions); positions are the outer loop, columns the inner one. The
 * chains' sums are added in order. The tree of D5 combines the segments' values, then + 0.0f. */
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
    float *sums; /* scratch of COP_CONV_LEVELS * cop_conv_level(m, k) floats, 64-byte aligned */
    float *dw, *db;
} cop_conv_gradient;

enum {
    COP_CONV_LEVELS = 12,           /* most values that can wait in the tree over all shards, plus
                                     * one */
    COP_CONV_LEVEL_FLOATS = 1 << 16 /* upper limit of one level: weights whose sums are computed at
                                     * once */
};
/* Floats in one level of the tree. */
static inline size_t cop_conv_level(int m, int k) {
    const size_t all = ((size_t)m + 15) / 16 * 16 * ((size_t)k + 1);
    return all < COP_CONV_LEVEL_FLOATS ? all : COP_CONV_LEVEL_FLOATS;
}

/* Windows of kernel x kernel pixels over `planes` images of height x width. The first window is at
 * the top left, windows are `stride` pixels apart, and each plane has out_height x out_width of
 * them. All lie inside the image. */
typedef struct cop_pool {
    int planes, height, width, out_height, out_width, kernel, stride, ld;
} cop_pool;

/* Samples as the data set stores them: `count` rows of `features` values, `stride` bytes apart. */
typedef struct cop_sample_rows {
    const void *rows;
    size_t stride;
    int count, features;
} cop_sample_rows;

/* The largest of `pieces` values, 1 to 256, for each of `units` units: z is (units * pieces, ld), y
 * and winners are (units, ld). */
typedef struct cop_maxout {
    int units, pieces, ld;
} cop_maxout;

/* A tensor in both orders: features by samples, (rows, ld) with `columns` samples, and samples by
 * features, (columns, width). width is a multiple of 16, at least rows. */
typedef struct cop_transpose {
    int rows, ld, columns, width;
} cop_transpose;

/* The functions of one instruction set. A function that takes a request struct is defined by the
 * comment of that struct. Every `workspace` has COP_GEMM_WORKSPACE bytes, is 64-byte aligned, and
 * serves one thread. Outputs must not overlap inputs unless a comment allows it. */
typedef struct cop_kernels {
    const char *name; /* "baseline", "avx2", "avx512", "neon" */
    void (*gemm)(const cop_gemm *g, void *workspace);
    /* The same product with the same bits, for a B with many zeros, which it skips. Returns false
     * if that would not pay or if A is not finite; then C is undefined, and the caller runs
     * gemm. */
    bool (*gemm_sparse)(const cop_gemm *g, void *workspace);
    /* Converts u8 rows to f32: x[features][ld] = value / 255.0f. Padding columns become 0. */
    void (*load_u8)(const cop_sample_rows *samples, float *x, int ld);
    /* The same for f32 rows, which it copies; stride is a multiple of 4. */
    void (*load_f32)(const cop_sample_rows *samples, float *x, int ld);
    /* y = x > 0 ? x : +0; NaN passes through. y may be x. */
    void (*relu)(const float *x, float *y, size_t count);
    /* dx = y > 0 ? dy : +0. dx may be dy. */
    void (*relu_backward)(const float *y, const float *dy, float *dx, size_t count);
    void (*mask_fill)(const cop_mask_request *request);
    /* y = kept ? x * scale : +0 for `count` values, a multiple of 16. Bit i % 16 of word i / 16
     * keeps value i. Used forward and backward. y may be x. */
    void (*mask_apply)(const uint16_t *bits, const float *x, float scale, float *y, size_t count);
    /* y = x * factor; y may be x */
    void (*scale)(const float *x, float factor, float *y, size_t count);
    /* out[r] = the tree of D5 over the 16-lane sums of x[r][segment]; see cop_gemm for segments.
     * Lane l of a segment adds columns l, l + 16, ... in order, starting from +0; then the
     * lanes are added pairwise (8, 4, 2, 1). */
    void (*row_sums)(const float *x, int rows, int ld, const int *segments, int segment_count,
                     float *out);
    void (*softmax_cross_entropy)(const cop_cross_entropy *loss);
    void (*mean_loss)(const cop_mean_loss *loss);
    /* Turns each column's logits into probabilities; p may be z. */
    void (*softmax)(const float *z, int classes, int ld, float *p);
    void (*sgd)(const cop_sgd *update, int row_begin, int row_end);
    void (*adaptive)(const cop_adaptive *update, int row_begin, int row_end);
    /* out = tree(inputs), element-wise */
    void (*tree_sum)(const float *const *inputs, const cop_tree *tree, float *out, size_t count);
    /* false if any value is NaN or infinite */
    bool (*all_finite)(const float *x, size_t count);
    double (*sum_squares)(const float *x, size_t count); /* for diagnostics; fixed order */
    /* y[u][c] = largest of z[u * pieces + p][c] over pieces p. The first of equal values wins, the
     * first NaN wins, -0 becomes +0. winners[u][c] (or NULL) gets the winning p. */
    void (*maxout)(const cop_maxout *shape, const float *z, float *y, uint8_t *winners);
    /* dz[u * pieces + p][c] = p == winners[u][c] ? dy[u][c] : +0 */
    void (*maxout_scatter)(const cop_maxout *shape, const float *dy, const uint8_t *winners,
                           float *dz);
    /* y = f(x); `slope` is that of leaky_relu. x may be y. */
    void (*activate)(cop_activation f, float slope, const float *x, float *y, size_t count);
    /* dx = dy f'(x). `from` is y = f(x), except for gelu, where it is x. dy may be dx. */
    void (*activate_backward)(cop_activation f, float slope, const float *from, const float *dy,
                              float *dx, size_t count);
    /* dx = y ((dy - d) - s), where d is dy at the first largest y, and s the sum of y_j (dy_j - d)
     * over the rows (one chain of FMAs from +0). dy may be dx. */
    void (*softmax_backward)(const float *y, const float *dy, int classes, int ld, float *dx);
    void (*noise_fill)(const cop_noise_request *request);
    void (*mask_affine)(const cop_mask_affine *mask, const float *x, float *y); /* x may be y */
    void (*multiply)(const float *a, const float *b, float *y, size_t count); /* y may be a or b */
    void (*conv)(const cop_conv *conv, void *workspace);
    void (*conv_gradient)(const cop_conv_gradient *gradient, void *workspace);
    /* y = largest value of each window in row-major order. The first of equal values wins, the
     * first NaN wins, -0 becomes +0. winners (or NULL) gets its number in the window. */
    void (*max_pool)(const cop_pool *pool, const float *x, float *y, uint16_t *winners);
    /* dx = sum from +0, in row-major order over the windows that cover the pixel, of dy where the
     * pixel won, else +0. */
    void (*max_pool_backward)(const cop_pool *pool, const float *dy, const uint16_t *winners,
                              float *dx);
    /* y = (sum from +0 over the window in row-major order) / kernel^2 */
    void (*avg_pool)(const cop_pool *pool, const float *x, float *y);
    /* dx = (sum from +0 of dy over windows that cover the pixel, in row-major order) / kernel^2 */
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

/* Chooses the kernels for this machine: the best that CPUID allows, or those that COPPICE_ISA names
 * (baseline, avx2, avx512, neon). Fails with UNSUPPORTED if the name is unknown or this build or
 * CPU lacks that set. The table is static. */
cop_err cop_kernels_choose(const cop_kernels **out, cop_error *error);
/* Finds kernels by name; NULL if this build or CPU lacks them. cop_kernels_names lists all names of
 * this build, best first, with NULL at the end. All are static. */
const cop_kernels *cop_kernels_find(const char *name);
const char *const *cop_kernels_names(void);

/* How a job computes f32 products: by the `portable` kernels or by OpenBLAS with one thread
 * (`numerics: openblas`). */
typedef enum cop_numerics { COP_NUMERICS_PORTABLE = 1, COP_NUMERICS_OPENBLAS = 2 } cop_numerics;
/* Runs a gemm: kernels->gemm, or the same contract by OpenBLAS (segment by segment, then the tree).
 * Call cop_numerics_load first. */
typedef void (*cop_gemm_fn)(const cop_kernels *kernels, const cop_gemm *g, void *workspace);
cop_gemm_fn cop_gemm_for(cop_numerics numerics);
/* Loads the library that the numerics need (OpenBLAS, with one thread), once. Call it before the
 * first gemm. Fails with UNSUPPORTED and the reason if this machine cannot load it. Any thread. */
cop_err cop_numerics_load(cop_numerics numerics, cop_error *error);
/* Writes D4's fingerprint to `out` and returns it: "openblas 0.3.29 SkylakeX threads 1",
 * "portable-1", or "" if OpenBLAS cannot be loaded. Loads it first. */
const char *cop_numerics_fingerprint(cop_numerics numerics, char out[128]);

/* The self-test of D9: runs all kernels of `kernels`, the functions of base/real.h and Philox on
 * fixed input and compares the result with the golden digest of portable-1. Takes less than 20 ms.
 * Fails with CORRUPT if the digest differs, with NO_MEMORY if it cannot allocate its arrays.
 * `digest` gets the 32 bytes. Sets up the calling thread as cop_compute_thread_init does. */
cop_err cop_self_test(const cop_kernels *kernels, unsigned char digest[32], cop_error *error);
/* Sets round-to-nearest without FTZ/DAZ for the calling thread and asserts it (D4). Call it at the
 * start of each compute thread. */
void cop_compute_thread_init(void);

#endif
