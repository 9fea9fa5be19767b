/* buffers.h - memory that the library hands out (ncclMemAlloc): page-aligned, known by its address. */
#ifndef RAIL_CORE_BUFFERS_H
#define RAIL_CORE_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

enum rail_result buffer_alloc(size_t bytes, void **out);
/* Only addresses that buffer_alloc gave and nobody freed; NULL is fine. */
enum rail_result buffer_free(void *address);

/* Where bytes lie in the memfd that holds them. */
struct buffer_place {
    int fd; /* the buffer's own: not to be closed */
    uint64_t offset, inode, device;
};
/* False unless all of [address, address + bytes) lies in one buffer, and that in a memfd. */
bool buffer_find(const void *address, size_t bytes, struct buffer_place *out);

#endif
