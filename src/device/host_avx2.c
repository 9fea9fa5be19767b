/* host_avx2.c - the path for CPUs with AVX2 and F16C. */
#define PATH avx2
#define PATH_VECTOR_BYTES 32
#define PATH_F16C
#include "device/host_kernels.h"
