/* Converts real numbers to integers, where the number comes from outside or is computed from such
 * numbers. A plain cast is undefined in C if the number does not fit, and aborts in sanitizer
 * builds. */
#ifndef COP_BASE_SATURATE_H
#define COP_BASE_SATURATE_H

#include <stdint.h>

/* The largest result of cop_saturate. As a time in nanoseconds it means "never"; adding
 * cop_clock_ns() to it does not overflow. */
#define COP_SATURATE_MAX (UINT64_C(1) << 62)

/* Returns x, rounded down; 0 if x is negative or NaN; COP_SATURATE_MAX if x is greater than that.
 */
static inline uint64_t cop_saturate(double x) {
    if (!(x > 0)) return 0;
    return x < (double)COP_SATURATE_MAX ? (uint64_t)x : COP_SATURATE_MAX;
}

#endif
