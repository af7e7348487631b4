/* The kernels for plain x86-64, or for any CPU whose base instruction set lacks FMA. Each FMA is a
 * call of fmaf: slow but correct. See kernels.inc. */
#define COP_ISA baseline
#define COP_VL  4
#include "common/kernels/kernels.inc"
