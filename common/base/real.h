/* Elementary functions in f64, by rule D4 of docs/reference/portable-1.md. They are our own
 * polynomials with explicit FMAs, so the results have equal bits on every CPU, with every compiler
 * and every C library. Schedules, initial weights and synthetic data use them. Tests compare them
 * with long double: the results are within 4 ulp. If x is NaN, the result is NaN, except for
 * cop_power. The kernels use the f32 functions of real_f32.h. */
#ifndef COP_BASE_REAL_H
#define COP_BASE_REAL_H

#include <stdint.h>

/* Returns e^x. The result is +inf on overflow and 0 on underflow; a subnormal result may become 0.
 */
double cop_exp(double x);
/* Returns the natural logarithm of x: -inf for 0, NaN for negative x. A subnormal x loses no
 * accuracy. The name is not cop_log, because that function writes log lines. */
double cop_ln(double x);
/* Return the sine and the cosine of x in radians. They are within 4 ulp for |x| <= 1e5, and NaN for
 * |x| > 2^30. */
double cop_sin(double x);
double cop_cos(double x);
/* Returns the hyperbolic tangent of x, which is +1 or -1 for |x| >= 22. It is accurate near 0, too.
 */
double cop_tanh(double x);
/* Returns x^n. It squares repeatedly, from the most significant bit of n on; this order is part of
 * portable-1, because it decides the rounding. x^0 is 1 for every x, even for NaN. */
double cop_power(double x, uint64_t n);
/* Makes two independent standard normal numbers from the Philox words a and b (Box-Muller), in f64:
 *     u1 = (a + 1) / 2^32, which is in (0, 1]
 *     u2 = b / 2^32
 *     r = sqrt(-2 log u1)
 *     out[0] = r cos(2 pi u2)
 *     out[1] = r sin(2 pi u2) */
void cop_normal_pair(uint32_t a, uint32_t b, double out[2]);

#endif
