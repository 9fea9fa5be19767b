/* vmm.c - memory made of physical pieces and addresses apart: what ncclMemAlloc gives, and what travels as a
 * descriptor.
 *
 * What the driver can do at all depends on machine and container (a virtual GPU has no VMM; a container may forbid
 * handles), so the last resort is plain memory: that works everywhere, and travels as an IPC handle. */
#include <fcntl.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/cuda/state.h"

struct piece {
    struct piece *next;
    cu_address begin;
    size_t bytes; /* mapped; 0: plain memory */
    struct cuda_device *device; /* held */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list */
static struct piece *pieces;

static struct piece *take(cu_address begin)
{
    pthread_mutex_lock(&lock);
    struct piece **at = &pieces;
    while (*at && (*at)->begin != begin) at = &(*at)->next;
    struct piece *p = *at;
    if (p) *at = p->next;
    pthread_mutex_unlock(&lock);
    return p;
}

static void keep(struct piece *p)
{
    pthread_mutex_lock(&lock);
    p->next = pieces;
    pieces = p;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&cuda_counts.allocations, 1);
}

/* ---- mapping ---- */

/* For the device itself it must be; every other device that can reach it gets it if the driver agrees. */
static cu_result open_to_devices(struct cuda_device *device, cu_address begin, size_t bytes)
{
    const struct cuda_driver *driver = device->driver;
    struct cu_access access = {{CU_LOCATION_DEVICE, device->ordinal}, CU_ACCESS_READ_WRITE};
    int n = 0;
    cu_result got = driver->vmm_set_access(begin, bytes, &access, 1);
    if (got != CU_SUCCESS || driver->device_count(&n) != CU_SUCCESS) return got;
    for (int other = 0; other < n; other++) {
        int can = 0;
        if (other == device->ordinal) continue;
        if (driver->device_can_access_peer(&can, other, device->device) != CU_SUCCESS || !can) continue;
        access.location.id = other;
        if (driver->vmm_set_access(begin, bytes, &access, 1) != CU_SUCCESS)
            RAIL_INFO(RAIL_ALLOC, "device %d gets no access to memory of device %d", other, device->ordinal);
    }
    return CU_SUCCESS;
}

/* Maps a whole allocation; the address range goes again if that fails. */
static cu_result map(struct cuda_device *device, cu_allocation allocation, size_t bytes, cu_address *out)
{
    const struct cuda_driver *driver = device->driver;
    cu_result got = driver->vmm_reserve(out, bytes, 0, 0, 0);
    if (got != CU_SUCCESS) return got;
    got = driver->vmm_map(*out, bytes, 0, allocation, 0);
    if (got == CU_SUCCESS && (got = open_to_devices(device, *out, bytes)) != CU_SUCCESS) driver->vmm_unmap(*out, bytes);
    if (got != CU_SUCCESS) driver->vmm_unreserve(*out, bytes);
    return got;
}

static void unmap(const struct cuda_driver *driver, cu_address begin, size_t bytes)
{
    driver->vmm_unmap(begin, bytes);
    driver->vmm_unreserve(begin, bytes);
}

/* ---- making ---- */

static struct cu_properties properties(const struct cuda_device *device, bool descriptor)
{
    return (struct cu_properties){
        .type = CU_ALLOCATION_PINNED, .handle_types = descriptor ? CU_HANDLE_FD : 0,
        .location = {CU_LOCATION_DEVICE, device->ordinal}, .gpu_direct = device->vmm_gpu_direct,
    };
}

static cu_result create(struct cuda_device *device, size_t wanted, bool descriptor, cu_allocation *out,
                        size_t *bytes_out) {
    struct cu_properties how = properties(device, descriptor);
    size_t unit = 0;
    cu_result got = device->driver->vmm_granularity(&unit, &how, 0);
    if (got != CU_SUCCESS) return got;
    if (unit == 0 || wanted > SIZE_MAX - unit) return CU_E_OUT_OF_MEMORY;
    *bytes_out = (wanted + unit - 1) / unit * unit;
    return device->driver->vmm_create(out, *bytes_out, &how, 0);
}

/* The driver cannot do it so: not that it has no more. */
static bool refused(cu_result got)
{
    return got == CU_E_NOT_SUPPORTED || got == CU_E_NOT_PERMITTED || got == CU_E_INVALID_VALUE ||
        got == CU_E_INVALID_DEVICE;
}

static cu_result make_mapped(struct cuda_device *device, size_t wanted, struct piece *p)
{
    cu_allocation allocation;
    cu_result got = create(device, wanted, device->vmm_fd, &allocation, &p->bytes);
    if (refused(got) && device->vmm_fd) got = create(device, wanted, false, &allocation, &p->bytes);
    if (got != CU_SUCCESS) return got;
    got = map(device, allocation, p->bytes, &p->begin);
    device->driver->vmm_release(allocation); /* the mapping keeps it */
    return got;
}

static enum rail_result make(struct cuda_device *device, const char *call, size_t bytes, struct piece *p)
{
    cu_result got = device->vmm ? make_mapped(device, bytes, p) : CU_E_NOT_SUPPORTED;
    if (got == CU_SUCCESS) return RAIL_OK;
    if (!refused(got)) return cuda_fail(device->driver, call, got, "cuMemCreate(%zu bytes) on device %d", bytes,
                                        device->ordinal);
    p->bytes = 0;
    got = device->driver->alloc(&p->begin, bytes);
    return cuda_fail(device->driver, call, got, "cuMemAlloc(%zu bytes) on device %d", bytes, device->ordinal);
}

enum rail_result cuda_shareable_alloc(struct cuda_device *device, const char *call, size_t bytes, uint64_t *address_out)
{
    struct cuda_scope scope;
    *address_out = 0;
    struct piece *p = calloc(1, sizeof *p);
    if (!p) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", call);
    enum rail_result result = cuda_enter(device, call, &scope);
    if (result == RAIL_OK) {
        result = make(device, call, bytes, p);
        cuda_leave(&scope);
    }
    if (result != RAIL_OK) {
        free(p);
        return result;
    }
    cuda_device_hold(device);
    p->device = device;
    *address_out = p->begin;
    keep(p);
    return RAIL_OK;
}

enum rail_result cuda_shareable_free(const char *call, uint64_t address)
{
    struct cuda_scope scope;
    struct piece *p = take(address);
    if (!p)
        return rail_fail(RAIL_E_ARGUMENT, "%s: 0x%llx is not what ncclMemAlloc gave, or was freed before", call,
                         (unsigned long long)address);
    const struct cuda_driver *driver = p->device->driver;
    cu_result got = CU_SUCCESS;
    enum rail_result result = cuda_enter(p->device, call, &scope);
    if (result == RAIL_OK) {
        if (p->bytes)
            unmap(driver, p->begin, p->bytes);
        else
            got = driver->free(p->begin);
        cuda_leave(&scope);
    }
    atomic_fetch_sub(&cuda_counts.allocations, 1);
    if (result == RAIL_OK) result = cuda_fail(driver, call, got, "cuMemFree(0x%llx)", (unsigned long long)address);
    cuda_device_drop(p->device);
    free(p);
    return result;
}

/* ---- passing on ---- */

struct extent {
    cu_address begin;
    size_t bytes;
};

/* Where the piece begins that `address` lies in: what is ours we know; of what others mapped, drivers tell since
 * 12.1. */
static bool find_piece(const struct cuda_driver *driver, cu_address address, struct extent *out)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct piece *p = pieces; p && !found; p = p->next)
        if (address >= p->begin && address - p->begin < p->bytes) {
            *out = (struct extent){p->begin, p->bytes};
            found = true;
        }
    pthread_mutex_unlock(&lock);
    if (found) return true;
    int which[] = {CU_POINTER_MAPPED_BEGIN, CU_POINTER_MAPPED_BYTES};
    void *into[] = {&out->begin, &out->bytes};
    return driver->pointer_attributes(2, which, into, address) == CU_SUCCESS && out->begin &&
           address - out->begin < out->bytes;
}

static cu_result export(const struct cuda_driver *driver, cu_address address, int *fd_out)
{
    cu_allocation allocation;
    cu_result got = driver->vmm_retain(&allocation, (void *)(uintptr_t)address);
    if (got != CU_SUCCESS) return got;
    got = driver->vmm_export(fd_out, allocation, CU_HANDLE_FD, 0);
    driver->vmm_release(allocation);
    if (got == CU_SUCCESS) fcntl(*fd_out, F_SETFD, FD_CLOEXEC);
    return got;
}

enum rail_result cuda_export_fd(struct cuda_device *device, const char *call, uint64_t address, int *fd_out,
                                uint64_t *offset_out, uint64_t *bytes_out)
{
    struct cuda_scope scope;
    struct extent piece = {0, 0};
    *fd_out = -1;
    *offset_out = *bytes_out = 0;
    RAIL_TRY(cuda_enter(device, call, &scope));
    bool known = find_piece(device->driver, address, &piece);
    cu_result got = known ? export(device->driver, address, fd_out) : CU_E_NOT_SUPPORTED;
    cuda_leave(&scope);
    if (refused(got) || got == CU_E_INVALID_HANDLE)
        return rail_fail(RAIL_E_USAGE, "%s: 0x%llx on device %d has no descriptor: memory of ncclMemAlloc has, and "
                         "other VMM memory that was made with one", call, (unsigned long long)address, device->ordinal);
    if (got != CU_SUCCESS)
        return cuda_fail(device->driver, call, got, "cuMemExportToShareableHandle(0x%llx) on device %d",
                         (unsigned long long)address, device->ordinal);
    *offset_out = address - piece.begin;
    *bytes_out = piece.bytes;
    return RAIL_OK;
}

enum rail_result cuda_import_fd(struct cuda_device *device, const char *call, int fd, uint64_t bytes,
                                uint64_t *base_out) {
    const struct cuda_driver *driver = device->driver;
    struct cuda_scope scope;
    cu_allocation allocation;
    *base_out = 0;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = driver->vmm_import(&allocation, (void *)(intptr_t)fd, CU_HANDLE_FD);
    if (got == CU_SUCCESS) {
        got = map(device, allocation, bytes, base_out);
        driver->vmm_release(allocation);
    }
    cuda_leave(&scope);
    if (got != CU_SUCCESS) {
        *base_out = 0;
        return cuda_fail(driver, call, got, "mapping %llu bytes of another process on device %d",
                         (unsigned long long)bytes, device->ordinal);
    }
    atomic_fetch_add(&cuda_counts.imports, 1);
    return RAIL_OK;
}

void cuda_import_fd_close(struct cuda_device *device, uint64_t base, uint64_t bytes)
{
    struct cuda_scope scope;
    if (!base) return;
    atomic_fetch_sub(&cuda_counts.imports, 1);
    if (cuda_enter(device, "cuMemUnmap", &scope) != RAIL_OK) return;
    unmap(device->driver, base, bytes);
    cuda_leave(&scope);
}
