/* host_avx512.c - the path for CPUs with AVX-512 F, BW, VL and DQ. */
#define PATH avx512
#define PATH_VECTOR_BYTES 64
#define PATH_F16C
#include "device/host_kernels.h"
