/* The kernels for 64-bit ARM: NEON. See kernels.inc. */
#define COP_ISA neon
#define COP_VL  4
#include "common/kernels/kernels.inc"
