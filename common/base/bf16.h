/* bf16: the upper half of an f32, with 8 bits of significand. `wire: bf16` sends gradients and
 * weights in this form (docs/reference/portable-1.md). Rounding is to the nearest, ties to even;
 * every NaN becomes 0x7fc0. Values above the largest bf16 become infinite. */
#ifndef COP_BASE_BF16_H
#define COP_BASE_BF16_H

#include <stdint.h>
#include <string.h>

/* The f32 with the value of a bf16. */
static inline float cop_bf16_float(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The bf16 nearest to x. */
static inline uint16_t cop_bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* x, rounded to bf16. */
static inline float cop_bf16_round(float x) {
    return cop_bf16_float(cop_bf16_of(x));
}

#endif
