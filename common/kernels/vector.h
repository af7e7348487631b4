/* Vectors of COP_VL floats for the kernels: GCC vector extensions, an explicit FMA, partial loads
 * and stores. kernels.inc includes it once per instruction set. No function here rounds more than
 * once. */
#ifndef COP_KERNELS_VECTOR_H
#define COP_KERNELS_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) && defined(__FMA__)
#    include <immintrin.h>
#elif defined(__ARM_NEON)
#    include <arm_neon.h>
#endif

#define COP_INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(COP_VL * 4)));
typedef int32_t vi __attribute__((vector_size(COP_VL * 4)));
typedef uint32_t vu __attribute__((vector_size(COP_VL * 4)));
typedef uint16_t vh __attribute__((vector_size(COP_VL * 2)));

COP_INLINE vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

COP_INLINE void vf_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

#if COP_VL == 8 && defined(__AVX2__)
/* -1 in the first `count` lanes, 0 in the others. */
COP_INLINE __m256i vf_first_lanes(size_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

/* Loads the first `count` lanes; count is at most COP_VL. The other lanes become +0, and their
 * memory is not touched. */
COP_INLINE vf vf_load_part(const float *p, size_t count) {
#if COP_VL == 16 && defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#elif COP_VL == 8 && defined(__AVX2__)
    return (vf)_mm256_maskload_ps(p, vf_first_lanes(count));
#else
    vf v = {0};
    memcpy(&v, p, count * sizeof(float));
    return v;
#endif
}

/* Stores the first `count` lanes. The memory of the others is not touched. */
COP_INLINE void vf_store_part(float *p, vf v, size_t count) {
#if COP_VL == 16 && defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)v);
#elif COP_VL == 8 && defined(__AVX2__)
    _mm256_maskstore_ps(p, vf_first_lanes(count), (__m256)v);
#else
    memcpy(p, &v, count * sizeof(float));
#endif
}

COP_INLINE vf vf_splat(float x) {
    return x - (vf){0};
}

/* a * b + c with one rounding per lane. Compilers turn the loop over `__builtin_fmaf` into the same
 * instructions as the intrinsics, but not with sanitizers or -O0. */
COP_INLINE vf vf_fma(vf a, vf b, vf c) {
#if COP_VL == 16 && defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif COP_VL == 8 && defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif COP_VL == 4 && defined(__ARM_FEATURE_FMA)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    for (int l = 0; l < COP_VL; l++) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
    return c;
#endif
}

/* Loads the first `count` lanes as vf_load_part does. A whole vector takes the plain instruction.
 */
COP_INLINE vf vf_load_part_of(const float *p, size_t count) {
    return count == COP_VL ? vf_load(p) : vf_load_part(p, count);
}

/* Stores the first `count` lanes. A whole vector takes the plain instruction. */
COP_INLINE void vf_store_part_of(float *p, vf v, size_t count) {
    if (count == COP_VL)
        vf_store(p, v);
    else
        vf_store_part(p, v, count);
}

/* The IEEE square root of each lane. */
COP_INLINE vf vf_sqrt(vf x) {
#if COP_VL == 16 && defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif COP_VL == 8 && defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif COP_VL == 4 && defined(__ARM_NEON) && defined(__aarch64__)
    return (vf)vsqrtq_f32((float32x4_t)x);
#else
    for (int l = 0; l < COP_VL; l++) x[l] = __builtin_sqrtf(x[l]);
    return x;
#endif
}

/* -1 in the lanes where x replaces `best`, the largest value so far; 0 in the others. x replaces it
 * if x is larger, or if x is NaN and `best` is not. */
COP_INLINE vi vf_replaces_max(vf x, vf best) {
    return (x > best) | ((x != x) & (best == best));
}

/* Is any lane of `mask` -1? Each lane is 0 or -1, as in the result of a comparison. */
COP_INLINE int vf_any(vi mask) {
#if COP_VL == 16 && defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif COP_VL == 8 && defined(__AVX2__)
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    int32_t any = 0;
    for (int l = 0; l < COP_VL; l++) any |= mask[l];
    return any != 0;
#endif
}

/* -1 in the lanes whose value is subnormal: neither 0 nor normal. */
COP_INLINE vi vf_is_subnormal(vf x) {
    return (((vu)x & 0x7fffffffu) - 1) < 0x7fffffu;
}

/* Rounds each lane to the nearest bf16, ties to even. Every NaN becomes 0x7fc00000. */
COP_INLINE vf vf_round_bf16(vf x) {
    const vu bits = (vu)x, rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    const vi is_nan = x != x;
    return (vf)((rounded & 0xffff0000u & ~(vu)is_nan) | (0x7fc00000u & (vu)is_nan));
}

/* mask ? a : b per lane. Each lane of `mask` is 0 or -1, as in the result of a comparison. */
COP_INLINE vf vf_select(vi mask, vf a, vf b) {
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

#endif
