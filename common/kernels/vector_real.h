/* Elementary functions of D4 on vectors of floats. Included after vector.h. vf_exp and
 * vf_log1p_unit have the bits of the scalar functions in base/real_f32.h (tested); the other
 * functions exist only here. */
#ifndef COP_KERNELS_VECTOR_REAL_H
#define COP_KERNELS_VECTOR_REAL_H

#include "common/kernels/vector.h"

/* cop_exp_f32 of each lane, with the same bits. It is written out here because compilers do not
 * vectorise the comparisons of the scalar function. */
COP_INLINE vf vf_exp(vf x) {
    const vf shift = vf_splat(0x1.8p23f);
    x = vf_select(x > 89.0f, vf_splat(89.0f), x);
    x = vf_select(x < -104.0f, vf_splat(-104.0f), x);
    const vf t = vf_fma(x, vf_splat(0x1.715476p+0f), shift);
    const vu n = (vu)t - (vu)shift;
    const vf whole = t - shift;
    vf r = vf_fma(whole, vf_splat(-0x1.62e400p-1f), x);
    r = vf_fma(whole, vf_splat(-0x1.7f7d1cp-20f), r);
    vf p = vf_fma(r, vf_splat(0x1.a01a02p-13f), vf_splat(0x1.6c16c2p-10f));
    p = vf_fma(p, r, vf_splat(0x1.111112p-7f));
    p = vf_fma(p, r, vf_splat(0x1.555556p-5f));
    p = vf_fma(p, r, vf_splat(0x1.555556p-3f));
    p = vf_fma(p, r, vf_splat(0.5f));
    p = vf_fma(p, r, vf_splat(1.0f));
    p = vf_fma(p, r, vf_splat(1.0f));
    const vu half = (vu)((vi)n >> 1);
    return p * (vf)((half + 127u) << 23) * (vf)((n - half + 127u) << 23);
}

/* cop_log1p_unit_f32 of each lane, with the same bits. */
COP_INLINE vf vf_log1p_unit(vf x) {
    const vf s = x / (2.0f + x), z = s * s, twice = s + s;
    vf q = vf_fma(z, vf_splat(1.0f / 17.0f), vf_splat(1.0f / 15.0f));
    q = vf_fma(q, z, vf_splat(1.0f / 13.0f));
    q = vf_fma(q, z, vf_splat(1.0f / 11.0f));
    q = vf_fma(q, z, vf_splat(1.0f / 9.0f));
    q = vf_fma(q, z, vf_splat(1.0f / 7.0f));
    q = vf_fma(q, z, vf_splat(1.0f / 5.0f));
    q = vf_fma(q, z, vf_splat(1.0f / 3.0f));
    return vf_fma(twice * z, q, twice);
}

/* exp(x) - 1 for x <= 0, within 3 ulp. For x > 0 the result is less exact. For x > -1/2 it is a
 * Taylor polynomial up to x^8; for x <= 0, the terms left out are below 2^-26 of the value. For
 * other x it is the plain difference. */
COP_INLINE vf vf_expm1_below(vf x) {
    vf q = vf_fma(x, vf_splat(1.0f / 40320), vf_splat(1.0f / 5040));
    q = vf_fma(q, x, vf_splat(1.0f / 720));
    q = vf_fma(q, x, vf_splat(1.0f / 120));
    q = vf_fma(q, x, vf_splat(1.0f / 24));
    q = vf_fma(q, x, vf_splat(1.0f / 6));
    q = vf_fma(q, x, vf_splat(0.5f));
    const vf near = vf_fma(x * x, q, x);
    return vf_select(x > -0.5f, near, vf_exp(x) - 1.0f);
}

/* 1 / (1 + exp(-x)) within 4 ulp. It uses exp(-|x|), so that the result is as exact for large
 * negative x as for large positive x. */
COP_INLINE vf vf_sigmoid(vf x) {
    const vf e = vf_exp((vf)((vi)x | INT32_MIN)); /* -|x| */
    return vf_select(x < 0.0f, e, vf_splat(1.0f)) / (1.0f + e);
}

/* tanh within 3 ulp. tanh(-x) = -tanh(x) bit for bit. For |x| < 0.625 it is an odd polynomial,
 * fitted with a relative error below 2^-29. For larger |x| it is 1 - 2 / (exp(2 |x|) + 1), with the
 * sign of x. */
COP_INLINE vf vf_tanh(vf x) {
    const vi sign = (vi)x & INT32_MIN;
    const vf a = (vf)((vi)x ^ sign), z = a * a;
    vf q = vf_fma(z, vf_splat(0x1.2c8690p-9f), vf_splat(-0x1.116ac8p-7f));
    q = vf_fma(q, z, vf_splat(0x1.64a994p-6f));
    q = vf_fma(q, z, vf_splat(-0x1.ba08c8p-5f));
    q = vf_fma(q, z, vf_splat(0x1.1110eap-3f));
    q = vf_fma(q, z, vf_splat(-0x1.555556p-2f));
    const vf near = vf_fma(a * z, q, a), far = 1.0f - 2.0f / (vf_exp(a + a) + 1.0f);
    return (vf)((vi)vf_select(a < 0.625f, near, far) | sign);
}

/* Returns the distribution function of the standard normal distribution, 1/2 erfc(-x / sqrt 2),
 * within 8 ulp, and sets *density to the density. With a = |x|, the upper tail is exp(-a^2 / 2) r /
 * (1 + a). r is a polynomial in u = (a - 7/2) / (a + 7/2), fitted on 0 <= a <= 15 with a relative
 * error below 2^-25. The form is that of Shepherd, Laframboise, "Chebyshev approximation of (1 +
 * 2x) exp(x^2) erfc x in 0 <= x < infinity", Math. Comp. 36, 1981. The exponential is corrected by
 * the rounding error of a^2 (`lost`); without that, the tail would be inexact for large a.
 *
 * a is at most 15: beyond, the tail and the density are below the smallest float. */
COP_INLINE vf vf_normal(vf x, vf *density) {
    vf a = (vf)((vi)x & INT32_MAX);
    a = vf_select(a > 15.0f, vf_splat(15.0f), a);
    const vf square = a * a, lost = vf_fma(a, a, -square);
    const vf rough = vf_exp(-0.5f * square), e = vf_fma(rough, -0.5f * lost, rough);
    const vf u = (a - 3.5f) / (a + 3.5f);
    vf r = vf_fma(u, vf_splat(0x1.351242p-13f), vf_splat(0x1.8f8b90p-14f));
    r = vf_fma(r, u, vf_splat(-0x1.6bd002p-10f));
    r = vf_fma(r, u, vf_splat(0x1.34afe8p-12f));
    r = vf_fma(r, u, vf_splat(0x1.53db0ep-7f));
    r = vf_fma(r, u, vf_splat(-0x1.efd518p-6f));
    r = vf_fma(r, u, vf_splat(0x1.37b17ep-5f));
    r = vf_fma(r, u, vf_splat(0x1.9cd106p-11f));
    r = vf_fma(r, u, vf_splat(-0x1.903b16p-4f));
    r = vf_fma(r, u, vf_splat(0x1.ea09d8p-2f));
    const vf tail = e * r / (1.0f + a);
    *density = e * 0x1.988454p-2f; /* 1 / sqrt(2 pi) */
    return vf_select(x > 0.0f, 1.0f - tail, tail);
}

#endif
