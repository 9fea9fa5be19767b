/* memory.c - memory of the device, pinned memory of the host, and moving bytes between them at init. */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "device/cuda/state.h"

/* ---- of the device ---- */

enum rail_result cuda_alloc(struct cuda_device *device, const char *call, size_t bytes, uint64_t *address_out)
{
    struct cuda_scope scope;
    *address_out = 0;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->alloc(address_out, bytes);
    cuda_leave(&scope);
    if (got != CU_SUCCESS) {
        *address_out = 0;
        return cuda_fail(device->driver, call, got, "cuMemAlloc(%zu bytes) on device %d", bytes, device->ordinal);
    }
    atomic_fetch_add(&cuda_counts.allocations, 1);
    return RAIL_OK;
}

/* What cannot be given back is gone with its context, or soon will be: said, and not in the way. */
static void said_if_not_freed(struct cuda_device *device, cu_result got, const char *what)
{
    char words[200];
    if (got != CU_SUCCESS)
        RAIL_INFO(RAIL_ALLOC, "%s on device %d: %s", what, device->ordinal,
                  cuda_words(device->driver, got, words, sizeof words));
}

void cuda_free(struct cuda_device *device, uint64_t address)
{
    struct cuda_scope scope;
    if (!address) return;
    atomic_fetch_sub(&cuda_counts.allocations, 1);
    if (cuda_enter(device, "cuMemFree", &scope) != RAIL_OK) return;
    said_if_not_freed(device, device->driver->free(address), "cuMemFree");
    cuda_leave(&scope);
}

/* ---- pinned ---- */

enum rail_result cuda_pinned_alloc(struct cuda_device *device, const char *call, size_t bytes, void **host_out,
                                   uint64_t *address_out)
{
    struct cuda_scope scope;
    void *host = NULL;
    *host_out = NULL;
    *address_out = 0;
    RAIL_TRY(cuda_enter(device, call, &scope));
    const struct cuda_driver *driver = device->driver;
    const char *what = "cuMemHostAlloc";
    cu_result got = driver->host_alloc(&host, bytes, CU_HOST_PORTABLE | CU_HOST_MAPPED);
    if (got == CU_SUCCESS) {
        what = "cuMemHostGetDevicePointer";
        got = driver->host_address(address_out, host, 0);
        if (got != CU_SUCCESS) driver->host_free(host);
    }
    cuda_leave(&scope);
    if (got != CU_SUCCESS) return cuda_fail(driver, call, got, "%s(%zu bytes) for device %d", what, bytes,
                                            device->ordinal);
    memset(host, 0, bytes);
    *host_out = host;
    atomic_fetch_add(&cuda_counts.pinned, 1);
    return RAIL_OK;
}

void cuda_pinned_free(struct cuda_device *device, void *host)
{
    struct cuda_scope scope;
    if (!host) return;
    atomic_fetch_sub(&cuda_counts.pinned, 1);
    if (cuda_enter(device, "cuMemFreeHost", &scope) != RAIL_OK) return;
    said_if_not_freed(device, device->driver->host_free(host), "cuMemFreeHost");
    cuda_leave(&scope);
}

/* ---- moving bytes ---- */

enum rail_result cuda_zero_on(struct cuda_device *device, const char *call, uint64_t address, size_t bytes,
                              cu_stream stream)
{
    struct cuda_scope scope;
    if (bytes == 0) return RAIL_OK;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->memset_async(address, 0, bytes, stream);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuMemsetD8Async(0x%llx, %zu bytes) on device %d",
                     (unsigned long long)address, bytes, device->ordinal);
}

enum rail_result cuda_copy_on(struct cuda_device *device, const char *call, uint64_t to, uint64_t from, size_t bytes,
                              cu_stream stream)
{
    struct cuda_scope scope;
    if (bytes == 0) return RAIL_OK;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->copy_async(to, from, bytes, stream);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuMemcpyAsync(0x%llx, 0x%llx, %zu bytes) on device %d",
                     (unsigned long long)to, (unsigned long long)from, bytes, device->ordinal);
}

enum rail_result cuda_zero(struct cuda_device *device, const char *call, uint64_t address, size_t bytes)
{
    RAIL_TRY(cuda_zero_on(device, call, address, bytes, device->state->stream));
    return cuda_stream_wait(device, call, device->state->stream);
}

enum rail_result cuda_copy(struct cuda_device *device, const char *call, uint64_t to, uint64_t from, size_t bytes)
{
    RAIL_TRY(cuda_copy_on(device, call, to, from, bytes, device->state->stream));
    return cuda_stream_wait(device, call, device->state->stream);
}
