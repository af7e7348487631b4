/* The kernels for x86-64-v4: AVX-512 F, BW, CD, DQ, VL. See kernels.inc. */
#define COP_ISA avx512
#define COP_VL  16
#include "common/kernels/kernels.inc"
