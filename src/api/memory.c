/* memory.c - the doors of memory that the library hands out. */
#include "api/door.h"
#include "core/buffers.h"

static enum rail_result mem_alloc(void **ptr, size_t size)
{
    if (!ptr) return rail_fail(RAIL_E_ARGUMENT, "ncclMemAlloc: ptr is NULL");
    return buffer_alloc(size, ptr);
}

RAIL_DOOR(ncclMemAlloc)
ncclResult_t pncclMemAlloc(void **ptr, size_t size)
{
    struct door door = door_open();
    return door_close(door, mem_alloc(ptr, size));
}

RAIL_DOOR(ncclMemFree)
ncclResult_t pncclMemFree(void *ptr)
{
    struct door door = door_open();
    return door_close(door, buffer_free(ptr));
}
