/* Whole numbers from real numbers that come from outside, or are computed from such ones. In C, the
 * plain cast of a real number that does not fit is undefined; sanitizer builds stop there. */
#ifndef COP_BASE_WHOLE_H
#define COP_BASE_WHOLE_H

#include <stdint.h>

/* Longer times count as never. A clock's time can still be added without overflow. */
#define COP_WHOLE_MAX (UINT64_C(1) << 62)

/* Rounds down. NaN and negative numbers give 0; too large numbers give COP_WHOLE_MAX. */
static inline uint64_t cop_whole(double x) {
    if (!(x > 0)) return 0;
    return x < (double)COP_WHOLE_MAX ? (uint64_t)x : COP_WHOLE_MAX;
}

#endif
