/* memory.c - the doors of memory that the library hands out. */
#include "api/door.h"
#include "railccl.h"
#include "core/buffers.h"
#include "core/gpu_rank.h"

static enum rail_result mem_alloc(void **ptr, size_t size)
{
    struct cuda_device *device;
    uint64_t address = 0;
    if (!ptr) return rail_fail(RAIL_E_ARGUMENT, "ncclMemAlloc: ptr is NULL");
    RAIL_TRY(gpu_rank_device("ncclMemAlloc", -1, &device));
    if (!device) return buffer_alloc(size, ptr);
    enum rail_result result = cuda_shareable_alloc(device, "ncclMemAlloc", size, &address);
    cuda_device_drop(device); /* what it gave holds it */
    if (result == RAIL_OK) *ptr = (void *)(uintptr_t)address;
    return result;
}

static enum rail_result mem_free(void *ptr)
{
    bool wanted = false;
    struct buffer_place place;
    if (ptr && !buffer_find(ptr, 1, &place)) RAIL_TRY(cuda_wanted("ncclMemFree", &wanted, NULL));
    return wanted ? cuda_shareable_free("ncclMemFree", (uint64_t)(uintptr_t)ptr) : buffer_free(ptr);
}

RAIL_OWN_DOOR(railUseHostMemory)
ncclResult_t railUseHostMemory(int on)
{
    gpu_rank_forbid(on != 0);
    return ncclSuccess;
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
    return door_close(door, mem_free(ptr));
}
