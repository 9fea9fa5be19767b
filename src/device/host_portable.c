/* host_portable.c - the path that every CPU can run: 16-byte vectors, which is SSE2 on x86-64 and NEON on aarch64. */
#define PATH portable
#define PATH_VECTOR_BYTES 16
#include "device/host_kernels.h"
