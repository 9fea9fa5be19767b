/* buffers.h - memory that the library hands out (ncclMemAlloc): page-aligned, known by its address. */
#ifndef RAIL_CORE_BUFFERS_H
#define RAIL_CORE_BUFFERS_H

#include <stddef.h>

#include "base/result.h"

enum rail_result buffer_alloc(size_t bytes, void **out);
/* Only addresses that buffer_alloc gave and nobody freed; NULL is fine. */
enum rail_result buffer_free(void *address);

#endif
