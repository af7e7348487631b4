/* The tables of kernels in this build, one per instruction set. dispatch.c chooses one of them. */
#ifndef COP_KERNELS_EXPORT_H
#define COP_KERNELS_EXPORT_H

#include "common/kernels/kernel.h"

extern const cop_kernels cop_kernels_baseline;
#if defined(__x86_64__)
extern const cop_kernels cop_kernels_avx2;
extern const cop_kernels cop_kernels_avx512;
#elif defined(__aarch64__)
extern const cop_kernels cop_kernels_neon;
#endif

#endif
