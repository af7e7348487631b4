/* Elementary functions of base/real_f32.h on vectors, bit by bit the same (tested): compilers do
 * not make vectors of the scalar ones' comparisons. For the kernels, after vector.h. */
#ifndef COP_NN_KERNELS_VECTOR_REAL_H
#define COP_NN_KERNELS_VECTOR_REAL_H

#include "common/nn/kernels/vector.h"

/* cop_exp_f32 of each lane, bit by bit (a compiler does not make vectors of its comparisons). */
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

/* cop_log1p_unit_f32 of each lane. */
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

#endif
