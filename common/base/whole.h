/* Whole numbers of reals that come from outside, or are computed from such ones. The plain cast of
 * a real that does not fit is undefined in C; builds with sanitizers stop at it. */
#ifndef COP_BASE_WHOLE_H
#define COP_BASE_WHOLE_H

#include <stdint.h>

/* Times beyond this are as good as never; a clock's time may still be added. */
#define COP_WHOLE_MAX (UINT64_C(1) << 62)

/* Rounded down; NaN and what is below 0 give 0, and what is too large gives COP_WHOLE_MAX. */
static inline uint64_t cop_whole(double x) {
    if (!(x > 0)) return 0;
    return x < (double)COP_WHOLE_MAX ? (uint64_t)x : COP_WHOLE_MAX;
}

#endif
