/* Converts real numbers from outside, or computed from such numbers, to integers. In C, the plain
 * cast of a real number that does not fit is undefined; sanitizer builds abort there. */
#ifndef COP_BASE_WHOLE_H
#define COP_BASE_WHOLE_H

#include <stdint.h>

/* As a time in ns, this means never. Adding the current time does not overflow. */
#define COP_WHOLE_MAX (UINT64_C(1) << 62)

/* Rounds down. NaN and negative numbers give 0. Numbers above COP_WHOLE_MAX give COP_WHOLE_MAX. */
static inline uint64_t cop_whole(double x) {
    if (!(x > 0)) return 0;
    return x < (double)COP_WHOLE_MAX ? (uint64_t)x : COP_WHOLE_MAX;
}

#endif
