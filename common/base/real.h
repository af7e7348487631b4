/* Elementary functions by rule D4: our own polynomials with explicit FMAs, so the bits are equal on
 * every CPU, compiler and C library. The f32 functions are branch-free inline code in real_f32.h,
 * which kernels vectorize with equal bits. The f64 functions serve schedules, initial weights and
 * synthetic data. Tests compare them with long double: f32 within 2 ulp, f64 within 4 ulp (exp,
 * log, sin, cos on the given ranges). NaN gives NaN. */
#ifndef COP_BASE_REAL_H
#define COP_BASE_REAL_H

#include <stdint.h>

/* e^x. Overflow gives +inf. Underflow gives 0, and a result that would be subnormal may become 0.
 */
double cop_exp(double x);
/* The natural logarithm; cop_log writes the log. 0 gives -inf, a negative x NaN. Subnormal x are
 * exact. */
double cop_ln(double x);
/* Sine and cosine of an angle in radians, accurate for |x| <= 1e5. Beyond 2^30 the result is NaN.
 */
double cop_sin(double x);
double cop_cos(double x);
/* The hyperbolic tangent, accurate near 0, too; +1 or -1 for |x| >= 22. */
double cop_tanh(double x);
/* x^n by repeated squaring from the most significant bit of n; this order is part of the contract.
 * x^0 is 1 for every x. */
double cop_power(double x, uint64_t n);
/* Two independent standard normals from two Philox words by Box-Muller: u1 = (a + 1) / 2^32 in (0,
 * 1], u2 = b / 2^32, r = sqrt(-2 log u1); out = r cos(2 pi u2), r sin(2 pi u2), in f64. */
void cop_normal_pair(uint32_t a, uint32_t b, double out[2]);

#endif
