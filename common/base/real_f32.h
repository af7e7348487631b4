/* Elementary functions in f32, by rule D4 of docs/reference/portable-1.md, for the kernels. All
 * other code uses the f64 functions of real.h. These functions have no branches, and every
 * multiply-add is an explicit FMA, so a vectorized loop gives the same bits as a scalar one. The
 * results are within 2 ulp of the true value (tests/unit/base/test_real.c). */
#ifndef COP_BASE_REAL_F32_H
#define COP_BASE_REAL_F32_H

#include <stdint.h>
#include <string.h>

static inline uint32_t cop_f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float cop_f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* Returns e^x. It writes x as n ln 2 + r with |r| <= ln 2 / 2, and computes e^r by the Taylor
 * series to r^7, whose error is below 2^-27. Then it multiplies by 2^n in two steps, so that a
 * subnormal result (below 2^-126) is rounded only once. */
static inline float cop_exp_f32(float x) {
    const float shift = 0x1.8p23f; /* adding it leaves the nearest integer in the low bits */
    x = x > 89.0f ? 89.0f : x;     /* e^89 overflows to +inf below */
    x = x < -104.0f ? -104.0f : x; /* e^-104 rounds to 0 below */
    float t = __builtin_fmaf(x, 0x1.715476p+0f, shift);
    uint32_t n = cop_f32_bits(t) - cop_f32_bits(shift);
    float nf = t - shift;
    /* The high part of ln 2 has 15 bits, so its product with n is exact. */
    float r = __builtin_fmaf(nf, -0x1.62e400p-1f, x);
    r = __builtin_fmaf(nf, -0x1.7f7d1cp-20f, r);
    float p = __builtin_fmaf(r, 0x1.a01a02p-13f, 0x1.6c16c2p-10f);
    p = __builtin_fmaf(p, r, 0x1.111112p-7f);
    p = __builtin_fmaf(p, r, 0x1.555556p-5f);
    p = __builtin_fmaf(p, r, 0x1.555556p-3f);
    p = __builtin_fmaf(p, r, 0.5f);
    p = __builtin_fmaf(p, r, 1.0f);
    p = __builtin_fmaf(p, r, 1.0f);
    uint32_t half = (uint32_t)((int32_t)n >> 1);
    float scale = cop_f32_from_bits((half + 127u) << 23);
    float rest = cop_f32_from_bits((n - half + 127u) << 23);
    return p * scale * rest;
}

/* Returns the natural logarithm of x: -inf for 0, NaN for a negative x, inf for inf. It writes x as
 * 2^e m with m in [sqrt(1/2), sqrt(2)). log m is a series of odd powers of s = (m - 1) / (m + 1),
 * arranged as in FreeBSD's msun, so that m - 1 enters without rounding. */
static inline float cop_log_f32(float x) {
    float small = x < 0x1p-126f ? 0x1p25f : 1.0f; /* makes a subnormal x normal, without rounding */
    float y = x * small;
    uint32_t u = cop_f32_bits(y) - 0x3f3504f3u; /* bits of sqrt(1/2) */
    int32_t e = (int32_t)u >> 23;
    float m = cop_f32_from_bits((u & 0x007fffffu) + 0x3f3504f3u);
    float ef = (float)e - (x < 0x1p-126f ? 25.0f : 0.0f);
    float f = m - 1.0f;
    float s = f / (2.0f + f);
    float z = s * s;
    float q = __builtin_fmaf(z, 0x1.c71c72p-3f, 0x1.24924ap-2f);
    q = __builtin_fmaf(q, z, 0x1.99999ap-2f);
    q = __builtin_fmaf(q, z, 0x1.555556p-1f);
    float square = 0.5f * f * f;
    float tail = s * __builtin_fmaf(z, q, square);
    tail = __builtin_fmaf(ef, 0x1.7f7d1cp-20f, tail);
    float result = __builtin_fmaf(ef, 0x1.62e400p-1f, f - (square - tail));
    result = x == 0.0f ? -__builtin_inff() : result;
    result = x < 0.0f ? __builtin_nanf("") : result;
    return x < __builtin_inff() ? result : x; /* +inf gives +inf, NaN gives NaN */
}

/* Returns log(1 + x) for 0 <= x <= 1. This is 2 atanh(s) with s = x / (2 + x) <= 1/3, computed by
 * the series of atanh to s^17, whose relative error is below 2^-29. 1 + x is never computed, so a
 * small x loses no accuracy. */
static inline float cop_log1p_unit_f32(float x) {
    float s = x / (2.0f + x);
    float z = s * s;
    float q = __builtin_fmaf(z, 1.0f / 17.0f, 1.0f / 15.0f);
    q = __builtin_fmaf(q, z, 1.0f / 13.0f);
    q = __builtin_fmaf(q, z, 1.0f / 11.0f);
    q = __builtin_fmaf(q, z, 1.0f / 9.0f);
    q = __builtin_fmaf(q, z, 1.0f / 7.0f);
    q = __builtin_fmaf(q, z, 1.0f / 5.0f);
    q = __builtin_fmaf(q, z, 1.0f / 3.0f);
    float twice = s + s;
    return __builtin_fmaf(twice * z, q, twice);
}

#endif
