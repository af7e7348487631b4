/* The kernels: every loop that touches a tensor, compiled once per instruction set and chosen at
 * run time.
 *
 * Layout of activations: "feature-major": a tensor of F features for N samples is F rows of `ld`
 * floats, ld = N rounded up to a multiple of 16 (COP_COLUMNS_PAD); one column is one sample. Rows
 * are 64-byte aligned. Padding columns hold finite values that nobody reads. (Samples innermost:
 * weights are read in place as broadcast scalars, without packing, masks and softmax vectorise over
 * samples, and convolution needs no im2col.)
 *
 * Arithmetic: rule D4. Every output element is computed in one fixed order whatever the instruction
 * set, tile size, number of columns or thread. All functions are pure, thread-safe and allocate
 * nothing. */
#ifndef COP_KERNELS_KERNEL_H
#define COP_KERNELS_KERNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/rng.h"

#define COP_COLUMNS_PAD 16
#define COP_GEMM_BLOCK  256 /* k-block of D4 */
#define COP_TREE_DEPTH  20  /* log2 of the most leaves a tree can have, and slack */

/* C (m x n, row-major, leading dimension ldc) = A (m x k) B (k x n), then C[i][j] += bias[i] if
 * bias is given. Element (i, p) of A is a[i * a_row + p * a_col]; B likewise: any transposition is
 * a choice of strides, one stride of each operand must be 1 (or the matrix has one row/column).
 *
 * Without segments: k in blocks of 256, in a block one chain of FMAs in ascending k from +0, + 0.0f
 * at the chain's end, block sums added in order. `blocks` gives other ends of blocks (ascending,
 * the last is k, none is more than 256 behind the one before it): those of a thinned network's full
 * layer. With segments (gradients of shards): k is cut at
 * the `segment_count + 1` ascending offsets segments[0] = 0 .. segments[segment_count] = k; each
 * segment is a product of its own as above (an empty segment is absent), and the segments' values
 * are combined by the tree of D5 (binary counter over leaves first_segment, first_segment + 1,
 * ...). */
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
    const int *blocks; /* or NULL; not together with segments */
    int block_count;
} cop_gemm;

/* Where block `block` of k ends that starts at `from`. */
static inline int cop_gemm_block_end(const int *blocks, int block, int from, int k) {
    if (blocks) return blocks[block];
    return k - from < COP_GEMM_BLOCK ? k : from + COP_GEMM_BLOCK;
}

/* Scratch memory that one running gemm needs for any shape (packing); 64-byte aligned, one per
 * thread. */
#define COP_GEMM_WORKSPACE ((size_t)4 << 20)

/* Keep masks (D3), one bit per unit and column, for `columns` samples at once.
 * bits: units rows of ld/16 uint16, bit c%16 of word c/16 set = kept. For column c and unit u:
 * Philox counter (block, samples[c], layer, step) with keys[c]; p = 0.5 (threshold 32768): the unit
 * is dropped iff bit u%128 of block u/128 is 1; else dropped iff 16-bit lane u%8 of block u/8 <
 * threshold. keys and samples have ld entries (padding: any). */
typedef struct cop_mask_request {
    int units, ld;
    uint32_t threshold;
    const cop_rng_key *keys;
    const uint32_t *samples;
    uint32_t layer, step;
    uint16_t *bits;
} cop_mask_request;

/* Normal noise (D3) for `ld` columns: noise[u][c] = mean + deviation n (FMA in f64, rounded once to
 * f32); n is number u % 4 of the two pairs that cop_normal_pair makes of the words of Philox
 * counter (u / 4, samples[c], layer, step) with keys[c]: (w0, w1), then (w2, w3). */
typedef struct cop_noise_request {
    int units, ld;
    double mean, deviation;
    const cop_rng_key *keys;
    const uint32_t *samples;
    uint32_t layer, step;
    float *noise; /* (units, ld) */
} cop_noise_request;

/* y = kept ? scale x + add (FMA) : dropped, over units x ld. */
typedef struct cop_mask_affine {
    const uint16_t *bits;
    float scale, add, dropped;
    int units, ld;
} cop_mask_affine;

/* Keep bits of a dropconnect layer for one sample (D3): unit o * in + i is weight (o, i), unit out
 * * in + o is bias o; counter and lanes as in cop_mask_request. Bit i % 16 of word i / 16 of row o
 * is weight (o, i); unused bits of a row's last word are 0. */
typedef struct cop_dropconnect_fill {
    int out, in;
    uint32_t threshold, sample, layer, step;
    cop_rng_key key;
    uint32_t *stream;    /* scratch: cop_dropconnect_stream(units) bytes */
    uint16_t *bits;      /* row 0 */
    ptrdiff_t stride;    /* words from row to row */
    uint16_t *bias_bits; /* (out + 15) / 16 words, or NULL: biases are not dropped */
} cop_dropconnect_fill;
static inline size_t cop_dropconnect_stream(int64_t units) {
    return ((size_t)units / 2048 + 1) * 256 + 64;
}

/* Products with a weight matrix that differs from sample to sample: m is 1 or 0 by the keep bits,
 * where it is 0 the sum stays as it is.
 * forward: y[o][c] = sum over i of m w[o][i] x[c][i]: lane l of 16 is one chain of FMAs from +0
 *     over i = l, l + 16 ..., the lanes are added 8, 4, 2, 1 pairwise, + 0.0f.
 * down: dx[c][i] = sum over o of m w[o][i] dy[o][c]: o in blocks of 256, each one chain of FMAs,
 *     blocks added in order, + 0.0f.
 * weights: dw[o][i] = sum over c of m dy[o][c] x[c][i]: each segment (see cop_gemm) in blocks of
 * 256 samples, the segments' values by D5's tree, + 0.0f. */
typedef struct cop_dropconnect {
    int out, in, words;   /* words: (in + 15) / 16 */
    int columns, ld;      /* samples; the distance of rows of y and dy */
    const uint16_t *bits; /* [out][ld][words]: row o of mask n */
    const int32_t *masks; /* number of each sample's mask, below ld */
    const float *w;       /* (out, in) */
    const float *x;       /* (columns, words * 16), +0 behind a row's end */
    float *y;             /* (out, ld); padding columns are left alone */
    const float *dy;      /* (out, ld) */
    float *dx;            /* (columns, words * 16) */
    const int *segments;
    int segment_count;
    float *dw; /* (out, in) */
} cop_dropconnect;

/* A loss that is a mean over outputs, for `columns` samples. With labels, target t_j = [j = label],
 * and argmax (or NULL) = first index of the largest z; without, t = target[j][c].
 * squared error: sum += (z - t)^2 (FMA), dz = 2 (z - t) / outputs
 * bce (z are logits): e = exp(-|z|), sum += (max(z, 0) - z t (FMA)) + log(1 + e),
 *     dz = ((z < 0 ? e : 1) / (1 + e) - t) / outputs
 * over j in ascending order; loss[c] = sum / outputs. dz (or NULL): padding columns +0. */
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

/* Element-wise functions. sigmoid: e = exp(-|x|), (x < 0 ? e : 1) / (1 + e). leaky_relu: x > 0 ? x
 * : slope x. selu: x > 0 ? l x : l a (exp(x) - 1), with the l and a of PyTorch. gelu: x times the
 * normal distribution function of x (by erfc, not by tanh). NaN gives NaN. */
typedef enum cop_activation {
    COP_ACTIVATION_SIGMOID = 1,
    COP_ACTIVATION_TANH,
    COP_ACTIVATION_LEAKY_RELU,
    COP_ACTIVATION_SELU,
    COP_ACTIVATION_GELU
} cop_activation;

/* How several gradient buffers become one (D5): a postfix program over `count` inputs: op >= 0
 * pushes input op, -1 replaces the top two (l, r) by l + r. One value remains. */
typedef struct cop_tree {
    int count, op_count;
    const int16_t *ops;
} cop_tree;

/* One optimizer update of rows [row_begin, row_end) of one parameter (D6), SGD as PyTorch's:
 * g = tree(gradients) / batch; g += weight_decay * w (FMA); if l1: g += l1 * sign(w); v = momentum
 * * v + g (FMA; first step: v = g); d = nesterov ? g + momentum * v (FMA) : v; without momentum d =
 * g; w = w - rate * d (FMA). Then if max_norm > 0 and the row's norm (16-lane sums of squares by
 * FMA, fixed tree, sqrt) exceeds it: w = w * (max_norm / norm). */
typedef struct cop_sgd {
    const float *const
        *gradients; /* tree->count pointers, each to this parameter's (rows x cols) sum */
    const cop_tree *tree;
    const float *w_in;   /* master weights before */
    float *w_out;        /* after; may equal w_in */
    float *velocity;     /* or NULL when momentum is 0 */
    float *velocity_out; /* where the new velocity goes; NULL: in place */
    atomic_int
        *finite; /* set to 0 when a summed gradient is NaN or infinite; NULL: not looked at */
    int cols;
    float batch, rate, momentum, weight_decay, l1, max_norm;
    bool nesterov, first;
} cop_sgd;

/* The updates that divide by the root of a mean square, rows and max-norm as above, each as
 * PyTorch's. g = tree(gradients) / batch; g = weight_decay * w + g (FMA, if weight_decay is not 0);
 * square(v) = square_new * g * g + square_keep * v (square_new * g rounded, then one FMA).
 * ADAM: m = m + mean_new * (g - m) (FMA); v = square(v); w = keep * w - rate * (m / (sqrt(v) /
 * correction + epsilon)) (FMA). States m, v.
 * RMSPROP: v = square(v); d = g / (sqrt(v) + epsilon); with a second state b = momentum * b + d
 * (FMA), d = b; w = w - rate * d (FMA). States v, b.
 * ADAGRAD: v = v + g * g (FMA); w = w - rate * (g / (sqrt(v) + epsilon)) (FMA). State v. */
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
    const float *states[2]; /* NULL: the rule has no such state */
    float *states_out[2];   /* may equal states */
    atomic_int *finite;
    int cols;
    float batch, rate, weight_decay, epsilon, max_norm;
    float mean_new, square_new, square_keep; /* 1 - beta1; 1 - beta2 or 1 - alpha; beta2 or alpha */
    float correction, keep, momentum; /* root of 1 - beta2^step; 1, or 1 - rate * decoupled decay */
    bool first;                       /* states are not read: they are 0 */
} cop_adaptive;

/* Products with patches of images, which convolution and its gradients are. At each of height x
 * width places lies a matrix B of k rows of `ld` floats: row p of place (y, x) starts at b + y *
 * b_down + x * b_right + b_rows[p]; all of it must be there (padded images are copies with zeros
 * around). C (m x ld) of that place = A B, then + bias, row i at c + i * c_row + y * c_down + x *
 * c_right. Element (i, p) of A is a[i * a_row + a_columns[p]]. Order as in cop_gemm without
 * segments: k in blocks of 256 (or `blocks`), each one chain of FMAs in ascending p. b and c are
 * 64-byte aligned, ld is a multiple of 16 and divides all distances. */
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

/* Gradients of such a product by A and the bias: dw (m x k, row-major) and db (m, or NULL), sums of
 * dy * B over places and columns. dy of place (y, x) and row i: dy + i * dy_row + (y * width + x) *
 * ld. Each segment (see cop_gemm) by itself: its columns in groups of at most 256; for each group
 * of n columns, max(1, 256 / n) places at a time, in row-major order, are one chain of FMAs from +0
 * (db: of additions), places outside, columns inside; the chains' sums are added in order. The
 * segments' values are combined by the tree of D5, + 0.0f at the end. */
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
    float *sums; /* scratch: COP_CONV_LEVELS * cop_conv_level(m, k) floats, 64-byte aligned */
    float *dw, *db;
} cop_conv_gradient;

enum {
    COP_CONV_LEVELS = 12,           /* values that can wait in the tree over all shards, and one */
    COP_CONV_LEVEL_FLOATS = 1 << 16 /* most of one level: sums of so many weights at once */
};
/* Floats of one level of the tree. */
static inline size_t cop_conv_level(int m, int k) {
    const size_t all = ((size_t)m + 15) / 16 * 16 * ((size_t)k + 1);
    return all < COP_CONV_LEVEL_FLOATS ? all : COP_CONV_LEVEL_FLOATS;
}

/* Windows of kernel x kernel pixels over `planes` images of height x width, the first one at the
 * top left, `stride` pixels apart, out_height x out_width of them in a plane, all inside. */
typedef struct cop_pool {
    int planes, height, width, out_height, out_width, kernel, stride, ld;
} cop_pool;

typedef struct cop_kernels {
    const char *name; /* "baseline", "avx2", "avx512", "neon" */
    void (*gemm)(const cop_gemm *g, void *workspace);
    /* The same product, the same bits, where many elements of B are 0: they are left out. False: it
     * would not pay, or A is not finite; C holds anything, and gemm is to be called. */
    bool (*gemm_sparse)(const cop_gemm *g, void *workspace);
    /* u8 rows (count x features, row stride in bytes) -> f32 x[features][ld], value / 255.0f;
     * padding columns 0. */
    void (*load_u8)(const uint8_t *rows, size_t stride, int count, int features, float *x, int ld);
    void (*load_f32)(const float *rows, size_t stride, int count, int features, float *x, int ld);
    void (*relu)(const float *x, float *y, size_t count); /* y = x > 0 ? x : (NaN passes) +0 */
    void (*relu_backward)(const float *y, const float *dy, float *dx,
                          size_t count); /* dx = y > 0 ? dy : +0 */
    void (*mask_fill)(const cop_mask_request *request);
    /* y = kept ? x * scale : +0, elementwise over units x ld; forward and backward alike. */
    void (*mask_apply)(const uint16_t *bits, const float *x, float scale, float *y, int units,
                       int ld);
    void (*scale)(const float *x, float factor, float *y, size_t count);
    /* out[r] = tree over the segments of (16-lane row sum of x[r][segment]); see cop_gemm for
     * segments. Lane l of a segment sums its columns l, l+16, ... in order from +0 (first add 0 +
     * x), lanes then 8,4,2,1 pairwise. */
    void (*row_sums)(const float *x, int rows, int ld, const int *segments, int segment_count,
                     float *out);
    /* Softmax cross-entropy over classes rows, per column c < columns: m = max_j z, e_j = exp(z_j -
     * m), s = sum_j e_j in ascending j, loss[c] = log(s) - (z_y - m); dz (or NULL) = e_j / s - [j =
     * y] (labels smoothed by `smoothing`: target = [j = y](1 - smoothing) + smoothing / classes,
     * loss accordingly); argmax[c] = first index of the largest logit. */
    void (*softmax_cross_entropy)(const float *z, int classes, int columns, int ld,
                                  const int32_t *labels, float smoothing, float *dz, float *loss,
                                  int32_t *argmax);
    void (*mean_loss)(const cop_mean_loss *loss);
    /* probabilities in place of logits, per column */
    void (*softmax)(const float *z, int classes, int ld, float *p);
    void (*sgd)(const cop_sgd *update, int row_begin, int row_end);
    void (*adaptive)(const cop_adaptive *update, int row_begin, int row_end);
    /* out = tree(inputs), elementwise */
    void (*tree_sum)(const float *const *inputs, const cop_tree *tree, float *out, size_t count);
    /* false as soon as one value is NaN or infinite */
    bool (*all_finite)(const float *x, size_t count);
    double (*sum_squares)(const float *x, size_t count); /* diagnostics only, fixed order */
    /* y[u][c] = largest of z[u * pieces + p][c] over pieces p, the first of equal ones; the first
     * NaN wins; -0 becomes +0. winners[u][c] (or NULL) = its p. z (units * pieces, ld), pieces 1 to
     * 256. */
    void (*maxout)(const float *z, int units, int pieces, int ld, float *y, uint8_t *winners);
    /* dz[u * pieces + p][c] = p == winners[u][c] ? dy[u][c] : +0 */
    void (*maxout_scatter)(const float *dy, const uint8_t *winners, int units, int pieces, int ld,
                           float *dz);
    /* y = f(x); slope: of leaky_relu. x may be y. */
    void (*activate)(cop_activation f, float slope, const float *x, float *y, size_t count);
    /* dx = dy f'(x), from y = f(x), but for gelu from x. dy may be dx. */
    void (*activate_backward)(cop_activation f, float slope, const float *from, const float *dy,
                              float *dx, size_t count);
    /* dx = y ((dy - d) - s), d = dy at the first largest y, s = sum of y_j (dy_j - d) over the rows
     * (one chain of FMAs from +0). dy may be dx. */
    void (*softmax_backward)(const float *y, const float *dy, int classes, int ld, float *dx);
    void (*noise_fill)(const cop_noise_request *request);
    void (*mask_affine)(const cop_mask_affine *mask, const float *x, float *y); /* x may be y */
    void (*multiply)(const float *a, const float *b, float *y, size_t count); /* y may be either */
    void (*conv)(const cop_conv *conv, void *workspace);
    void (*conv_gradient)(const cop_conv_gradient *gradient, void *workspace);
    /* y = largest value of each window in row-major order, the first of equal ones; the first NaN
     * wins; -0 becomes +0. winners (or NULL) = its number in the window. */
    void (*max_pool)(const cop_pool *pool, const float *x, float *y, uint16_t *winners);
    /* dx = sum from +0 over the windows that have the pixel, in row-major order: dy where the pixel
     * won, else +0. */
    void (*max_pool_backward)(const cop_pool *pool, const float *dy, const uint16_t *winners,
                              float *dx);
    /* y = (sum from +0 over the window in row-major order) / kernel^2 */
    void (*avg_pool)(const cop_pool *pool, const float *x, float *y);
    /* dx = (sum from +0 of dy over the windows that have the pixel, in row-major order) / kernel^2
     */
    void (*avg_pool_backward)(const cop_pool *pool, const float *dy, float *dx);
    void (*dropconnect_fill)(const cop_dropconnect_fill *fill);
    void (*dropconnect_forward)(const cop_dropconnect *product);
    void (*dropconnect_down)(const cop_dropconnect *product);
    void (*dropconnect_weights)(const cop_dropconnect *product);
    /* x (rows, ld) -> out (columns, width), +0 behind a row's end; width: a multiple of 16 from
     * rows on */
    void (*transpose_pad)(const float *x, int rows, int ld, int columns, int width, float *out);
    /* x (columns, width) -> out (rows, ld); padding columns +0 */
    void (*transpose_back)(const float *x, int rows, int ld, int columns, int width, float *out);
    /* y = deviation noise + mean (FMA); y may be any of them */
    void (*spread)(const float *deviation, const float *noise, const float *mean, float *y,
                   size_t count);
    void (*root)(const float *x, float factor, float *y, size_t count); /* sqrt(x * factor) */
} cop_kernels;

/* The kernels for this machine: the best that CPUID allows, or the one that COPPICE_ISA names
 * (baseline, avx2, avx512, neon). UNSUPPORTED with a sentence if it is unknown or not there. */
cop_err cop_kernels_choose(const cop_kernels **out, cop_error *error);
/* By name; NULL if this build or CPU lacks it. All names: cop_kernels_names (NULL-terminated, best
 * first). */
const cop_kernels *cop_kernels_find(const char *name);
const char *const *cop_kernels_names(void);

/* f32 products of a job: `portable` kernels or OpenBLAS (numerics: openblas; one thread). */
typedef enum cop_numerics { COP_NUMERICS_PORTABLE = 1, COP_NUMERICS_OPENBLAS = 2 } cop_numerics;
/* What runs a gemm: kernels->gemm, or the same contract by OpenBLAS (segments one by one, then the
 * tree). */
typedef void (*cop_gemm_fn)(const cop_kernels *kernels, const cop_gemm *g, void *workspace);
cop_gemm_fn cop_gemm_for(cop_numerics numerics);
/* Loads what the numerics need (OpenBLAS, with one thread), once. Before a gemm of theirs runs.
 * UNSUPPORTED says why this machine cannot. Any thread. */
cop_err cop_numerics_load(cop_numerics numerics, cop_error *error);
/* "openblas 0.3.29 SkylakeX threads 1" (D4's fingerprint; "" where it cannot be loaded) or
 * "portable-1". Loads it. */
const char *cop_numerics_fingerprint(cop_numerics numerics, char out[128]);

/* The binary-counter order of D5 for leaves 0..count-1, as a postfix program over leaf numbers; ops
 * needs room for 2 * count - 1. Returns the number of ops. `present` (or NULL) tells which leaves
 * exist; absent ones are passed over. */
int cop_tree_build(int count, const bool *present, int16_t *ops);
/* The same when the inputs are aligned blocks of leaves: block i covers leaves [first[i], first[i]
 * + size[i]), ascending, together all of [0, leaves). Each block must be a node of the tree
 * (checked by COP_ASSERT). */
int cop_tree_build_blocks(int leaves, int blocks, const int *first, const int *size, int16_t *ops);
/* Is [first, first + size) a node of the tree over `leaves` leaves? */
bool cop_tree_is_node(int leaves, int first, int size);

/* D9: runs all kernels of `kernels`, the functions of base/real.h and Philox on fixed input,
 * compares with the golden digest of portable-1; CORRUPT with a sentence if it differs. Under 20
 * ms. `digest` gets the 32 bytes. Also asserts round-to-nearest, no FTZ/DAZ. */
cop_err cop_self_test(const cop_kernels *kernels, unsigned char digest[32], cop_error *error);
/* Set round-to-nearest without FTZ/DAZ for the calling thread and check it (D4); call at the start
 * of each compute thread. */
void cop_compute_thread_init(void);

#endif
