/* The kernels for plain x86-64 (or any CPU without FMA in its base set): each FMA is a call of
 * fmaf, slow and right. See kernels.inc. */
#define COP_ISA baseline
#define COP_VL  4
#include "common/kernels/kernels.inc"
