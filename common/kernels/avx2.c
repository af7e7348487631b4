/* The kernels for x86-64-v3: AVX2 and FMA. See kernels.inc. */
#define COP_ISA avx2
#define COP_VL  8
#include "common/kernels/kernels.inc"
