/* Elementary functions in f64. See real.h. cop_exp, cop_ln, cop_sin, cop_cos and cop_tanh first
 * reduce their argument to a small range with explicit FMAs, and then compute a Taylor series, or a
 * polynomial arranged as in FreeBSD's msun. */
#include "common/base/real.h"

#include <string.h>

static uint64_t bits_of(double x) {
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}

static double from_bits(uint64_t u) {
    double x;
    memcpy(&x, &u, 8);
    return x;
}

/* Returns c[0] + x (c[1] + x (c[2] + ...)), computed from the inside out with FMAs (Horner). */
static double horner(double x, const double *c, int count) {
    double p = c[count - 1];
    for (int i = count - 2; i >= 0; i--) p = __builtin_fma(p, x, c[i]);
    return p;
}

#define LN2_HIGH 0x1.62e42fee00000p-1 /* has 33 bits, so its product with |n| < 2^20 is exact */
#define LN2_LOW  0x1.a39ef35793c76p-33
#define INV_LN2  0x1.71547652b82fep+0
#define SHIFT    0x1.8p52 /* adding it to x leaves the integer nearest to x in the low bits */

/* Returns e^r - 1 for |r| <= ln 2 / 2, by the Taylor series to r^14. */
static double expm1_reduced(double r) {
    static const double c[] = {1.0 / 2,          1.0 / 6,        1.0 / 24,        1.0 / 120,
                               1.0 / 720,        1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                               1.0 / 3628800,    1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
                               1.0 / 87178291200};
    return __builtin_fma(r * r, horner(r, c, 13), r);
}

/* Writes x as n ln 2 + r with |r| <= ln 2 / 2. Returns n. */
static int64_t reduce_ln2(double x, double *r) {
    double t = __builtin_fma(x, INV_LN2, SHIFT);
    double n = t - SHIFT;
    *r = __builtin_fma(n, -LN2_LOW, __builtin_fma(n, -LN2_HIGH, x));
    return (int64_t)(bits_of(t) - bits_of(SHIFT));
}

/* Returns 2^n, which must be a normal number. */
static double power_of_two(int64_t n) {
    return from_bits((uint64_t)(n + 1023) << 52);
}

double cop_exp(double x) {
    if (x != x) return x;
    if (x > 709.8) return __builtin_inf();
    if (x < -746.0) return 0.0;
    double r;
    int64_t n = reduce_ln2(x, &r);
    int64_t half = n / 2;
    return (1.0 + expm1_reduced(r)) * power_of_two(half) * power_of_two(n - half);
}

double cop_ln(double x) {
    if (x != x || x == __builtin_inf()) return x;
    if (x == 0.0) return -__builtin_inf();
    if (x < 0.0) return __builtin_nan("");
    double e = 0.0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54.0;
    }
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
    uint64_t u = bits_of(x) - sqrt_half;
    e += (double)((int64_t)u >> 52);
    double m = from_bits((u & 0x000fffffffffffffu) + sqrt_half);
    /* With f = m - 1 and s = f / (2 + f), log m is 2 (s + s^3/3 + s^5/5 + ...). The sum is arranged
     * so that f enters it without rounding. */
    static const double c[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                               2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    double f = m - 1.0;
    double s = f / (2.0 + f);
    double z = s * s;
    double square = 0.5 * f * f;
    double tail = s * __builtin_fma(z, horner(z, c, 11), square);
    tail = __builtin_fma(e, LN2_LOW, tail);
    return __builtin_fma(e, LN2_HIGH, f - (square - tail));
}

/* Return the sine and the cosine of r + low, for |r| <= pi/4. `low` is a correction of less than
 * half an ulp of r. */
static double sin_reduced(double r, double low) {
    static const double c[] = {
        -1.0 / 6,        1.0 / 120,        -1.0 / 5040,          1.0 / 362880,
        -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000};
    double z = r * r;
    return r + __builtin_fma(z * r, horner(z, c, 8), low);
}

static double cos_reduced(double r, double low) {
    static const double c[] = {
        1.0 / 24,        -1.0 / 720,         1.0 / 40320,          -1.0 / 3628800,
        1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000, -1.0 / 6402373705728000};
    double z = r * r;
    double half = 0.5 * z;
    double w = 1.0 - half;
    double tail = __builtin_fma(z * z, horner(z, c, 8), -r * low);
    return w + (((1.0 - w) - half) + tail);
}

/* Returns the sine of x (quadrant 0) or the cosine (quadrant 1). It writes x as n pi/2 + r + low.
 * pi/2 is the sum of three parts, and n times each part is subtracted from x in one step. The FMA
 * makes the first step exact. `low` is the rounding error of the second step, plus the third part;
 * it matters if the result is near 0. */
static double sin_shifted(double x, uint64_t quadrant) {
    if (!(x >= -0x1p30 && x <= 0x1p30)) return __builtin_nan("");
    const double half_pi[3] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54,
                               -0x1.f1976b7ed8fbcp-110};
    double t = __builtin_fma(x, 0x1.45f306dc9c883p-1, SHIFT);
    double n = t - SHIFT;
    double a = __builtin_fma(n, -half_pi[0], x);
    double w = n * half_pi[1];
    double r = a - w, moved = r - a;
    double low = (a - (r - moved)) - (w + moved); /* Knuth's two-sum: the rounding error of a - w */
    low -= __builtin_fma(n, half_pi[1], -w);
    low = __builtin_fma(n, -half_pi[2], low);
    quadrant += bits_of(t) - bits_of(SHIFT);
    double value = quadrant & 1 ? cos_reduced(r, low) : sin_reduced(r, low);
    return quadrant & 2 ? -value : value;
}

double cop_sin(double x) {
    return sin_shifted(x, 0);
}

double cop_cos(double x) {
    return sin_shifted(x, 1);
}

/* With t = e^(-2|x|) - 1, tanh |x| is -t / (2 + t). */
double cop_tanh(double x) {
    if (x != x) return x;
    double magnitude = x < 0.0 ? -x : x;
    double result = 1.0;
    if (magnitude < 0x1p-28) return x;
    if (magnitude < 22.0) {
        double r;
        int64_t n = reduce_ln2(-2.0 * magnitude, &r);
        double scale = power_of_two(n);
        double t = __builtin_fma(scale, expm1_reduced(r), scale - 1.0);
        result = -t / (2.0 + t);
    }
    return x < 0.0 ? -result : result;
}

double cop_power(double x, uint64_t n) {
    double result = 1.0;
    for (int bit = 63 - (n ? __builtin_clzll(n) : 63); bit >= 0; bit--) {
        result *= result;
        if (n >> bit & 1) result *= x;
    }
    return result;
}

void cop_normal_pair(uint32_t a, uint32_t b, double out[2]) {
    double u1 = ((double)a + 1.0) * 0x1p-32;
    double angle = (double)b * 0x1p-32 * 0x1.921fb54442d18p+2;
    /* For u1 = 1, -2 log u1 is -0. Adding 0 makes it +0, so that the radius is not -0. */
    double radius = __builtin_sqrt(-2.0 * cop_ln(u1) + 0.0);
    out[0] = radius * cop_cos(angle);
    out[1] = radius * cop_sin(angle);
}
