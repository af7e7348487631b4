/* Elementary functions of base/real.h on vectors of COP_VL / 2 doubles. Each lane has the bits of
 * the scalar function (tested). They are the functions that Box-Muller needs, and are valid for the
 * arguments that occur there. Included after vector.h. */
#ifndef COP_KERNELS_VECTOR_F64_H
#define COP_KERNELS_VECTOR_F64_H

#include "common/kernels/vector.h"

#define COP_DL (COP_VL / 2) /* doubles in a vector */

typedef double vd __attribute__((vector_size(COP_DL * 8)));
typedef uint64_t vq __attribute__((vector_size(COP_DL * 8)));
typedef uint32_t vu_half __attribute__((vector_size(COP_DL * 4)));
typedef float vf_half __attribute__((vector_size(COP_DL * 4)));

COP_INLINE vd vd_splat(double x) {
    return x - (vd){0};
}

COP_INLINE vd vd_fma(vd a, vd b, vd c) {
#if COP_VL == 16 && defined(__AVX512F__)
    return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif COP_VL == 8 && defined(__FMA__)
    return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    for (int l = 0; l < COP_DL; l++) c[l] = __builtin_fma(a[l], b[l], c[l]);
    return c;
#endif
}

COP_INLINE vd vd_sqrt(vd x) {
#if COP_VL == 16 && defined(__AVX512F__)
    return (vd)_mm512_sqrt_pd((__m512d)x);
#elif COP_VL == 8 && defined(__AVX2__)
    return (vd)_mm256_sqrt_pd((__m256d)x);
#else
    for (int l = 0; l < COP_DL; l++) x[l] = __builtin_sqrt(x[l]);
    return x;
#endif
}

/* bit != 0 ? a : b per lane. */
COP_INLINE vd vd_select(vq bit, vd a, vd b) {
    const vq mask = (vq)(bit != 0);
    return (vd)(((vq)a & mask) | ((vq)b & ~mask));
}

/* Converts integers below 2^52 to doubles. The result is exact. */
COP_INLINE vd vd_of(vq x) {
    return (vd)(x | 0x4330000000000000u) - 0x1p52;
}

/* c[0] + x (c[1] + x (c[2] + ...)): Horner's scheme with FMAs. */
COP_INLINE vd vd_horner(vd x, const double *c, int count) {
    vd p = vd_splat(c[count - 1]);
    for (int i = count - 2; i >= 0; i--) p = vd_fma(p, x, vd_splat(c[i]));
    return p;
}

/* cop_ln of each lane. The lanes are positive normal numbers. */
COP_INLINE vd vd_ln(vd x) {
    static const double c[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                               2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
    const vq u = (vq)x - sqrt_half;
    const vd e = vd_of(((u >> 52) ^ 0x800u) + 0x800u) - 4096.0; /* the top 12 bits, signed */
    const vd f = (vd)((u & 0x000fffffffffffffu) + sqrt_half) - 1.0;
    const vd s = f / (2.0 + f), z = s * s, square = 0.5 * f * f;
    vd tail = s * vd_fma(z, vd_horner(z, c, 11), square);
    tail = vd_fma(e, vd_splat(0x1.a39ef35793c76p-33), tail);
    return vd_fma(e, vd_splat(0x1.62e42fee00000p-1), f - (square - tail));
}

/* cop_sin and cop_cos of each lane. The lanes are below 2^30. */
COP_INLINE void vd_sin_cos(vd x, vd *sine, vd *cosine) {
    static const double sines[] = {
        -1.0 / 6,        1.0 / 120,        -1.0 / 5040,          1.0 / 362880,
        -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000};
    static const double cosines[] = {
        1.0 / 24,        -1.0 / 720,         1.0 / 40320,          -1.0 / 3628800,
        1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000, -1.0 / 6402373705728000};
    const vd high = vd_splat(0x1.1a62633145c07p-54), shift = vd_splat(0x1.8p52);
    const vd t = vd_fma(x, vd_splat(0x1.45f306dc9c883p-1), shift), n = t - shift;
    const vd a = vd_fma(n, vd_splat(-0x1.921fb54442d18p+0), x), w = n * high;
    const vd r = a - w, moved = r - a;
    vd low = (a - (r - moved)) - (w + moved);
    low -= vd_fma(n, high, -w);
    low = vd_fma(n, vd_splat(0x1.f1976b7ed8fbcp-110), low);
    const vd z = r * r, half = 0.5 * z, one = 1.0 - half;
    const vd s = r + vd_fma(z * r, vd_horner(z, sines, 8), low);
    const vd c = one + (((1.0 - one) - half) + vd_fma(z * z, vd_horner(z, cosines, 8), -r * low));
    const vq quadrant = (vq)t - (vq)shift;
    const vd up = vd_select(quadrant & 1, c, s), right = vd_select(quadrant & 1, s, c);
    *sine = vd_select(quadrant & 2, -up, up);
    *cosine = vd_select((quadrant + 1) & 2, -right, right);
}

/* cop_normal_pair on each lane of a and the same lane of b. */
COP_INLINE void vd_normal_pair(vu_half a, vu_half b, vd *first, vd *second) {
    const vd u1 = (vd_of(__builtin_convertvector(a, vq)) + 1.0) * 0x1p-32;
    const vd angle = vd_of(__builtin_convertvector(b, vq)) * 0x1p-32 * 0x1.921fb54442d18p+2;
    const vd radius = vd_sqrt(-2.0 * vd_ln(u1) + 0.0);
    vd sine, cosine;
    vd_sin_cos(angle, &sine, &cosine);
    *first = radius * cosine;
    *second = radius * sine;
}

#endif
