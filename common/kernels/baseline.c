/* The kernels that need only the base instruction set of a CPU, such as plain x86-64. If that set
 * lacks FMA, each FMA is a call of fmaf, which is slow but correct. See kernels.inc. */
#define COP_ISA baseline
#define COP_VL  4
#include "common/kernels/kernels.inc"
