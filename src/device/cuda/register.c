/* register.c - pinning ranges of host memory that are ours already: a node's segment.
 *
 * The driver pins a range once per process, and for as long as the context lives in which that was done, while several
 * communicators of a process map one segment. So ranges are counted here, and the device that pinned one is held until
 * the last has let it go. */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "device/cuda/state.h"

struct range {
    struct range *next;
    uintptr_t begin;
    size_t bytes;
    int users;
    struct cuda_device *device; /* held */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list, and pinning */
static struct range *ranges;

static struct range *overlapping(uintptr_t begin, size_t bytes)
{
    struct range *r = ranges;
    while (r && (begin >= r->begin + r->bytes || r->begin >= begin + bytes)) r = r->next;
    return r;
}

static enum rail_result pin(struct cuda_device *device, const char *call, uintptr_t begin, size_t bytes,
                            struct range **out) {
    struct range *r = malloc(sizeof *r);
    if (!r) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", call);
    cu_result got = device->driver->host_register((void *)begin, bytes, CU_HOST_PORTABLE | CU_HOST_MAPPED);
    if (got != CU_SUCCESS) {
        free(r);
        return cuda_fail(device->driver, call, got, "cuMemHostRegister(%p, %zu bytes) for device %d (memory that may "
                         "be locked: ulimit -l)", (void *)begin, bytes, device->ordinal);
    }
    cuda_device_hold(device);
    *r = (struct range){.next = ranges, .begin = begin, .bytes = bytes, .device = device};
    ranges = r;
    atomic_fetch_add(&cuda_counts.registered, 1);
    *out = r;
    return RAIL_OK;
}

/* The caller drops r->device, outside of any scope. */
static void unpin(struct range *r)
{
    struct range **at = &ranges;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    cu_result got = r->device->driver->host_unregister((void *)r->begin);
    if (got != CU_SUCCESS) RAIL_INFO(RAIL_ALLOC, "cuMemHostUnregister(%p): CUDA error %d", (void *)r->begin, got);
    atomic_fetch_sub(&cuda_counts.registered, 1);
}

static enum rail_result use(struct cuda_device *device, const char *call, uintptr_t begin, size_t bytes,
                            uint64_t *address_out)
{
    struct range *r = overlapping(begin, bytes);
    if (r && (r->begin != begin || r->bytes != bytes))
        return rail_fail(RAIL_E_ARGUMENT, "%s: [%p, +%zu bytes) cannot be pinned: it overlaps [%p, +%zu bytes), which "
                         "is", call, (void *)begin, bytes, (void *)r->begin, r->bytes);
    if (!r) RAIL_TRY(pin(device, call, begin, bytes, &r));
    r->users++;
    cu_result got = device->driver->host_address(address_out, (void *)begin, 0);
    if (got == CU_SUCCESS) return RAIL_OK;
    if (--r->users == 0) {
        unpin(r);
        cuda_device_drop(r->device); /* not the last hold: the caller has one on the same device */
        free(r);
    }
    return cuda_fail(device->driver, call, got, "cuMemHostGetDevicePointer(%p) for device %d", (void *)begin,
                     device->ordinal);
}

enum rail_result cuda_register(struct cuda_device *device, const char *call, void *begin, size_t bytes,
                               uint64_t *address_out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct cuda_scope scope;
    *address_out = 0;
    if ((uintptr_t)begin % page || bytes % page || bytes == 0)
        return rail_fail(RAIL_E_ARGUMENT, "%s: [%p, +%zu bytes) cannot be pinned: whole pages of %zu bytes can", call,
                         begin, bytes, page);
    RAIL_TRY(cuda_enter(device, call, &scope));
    pthread_mutex_lock(&lock);
    enum rail_result result = use(device, call, (uintptr_t)begin, bytes, address_out);
    pthread_mutex_unlock(&lock);
    cuda_leave(&scope);
    return result;
}

void cuda_unregister(struct cuda_device *device, void *begin)
{
    struct cuda_scope scope;
    struct range *last = NULL;
    pthread_mutex_lock(&lock);
    struct range *r = overlapping((uintptr_t)begin, 1);
    if (r && --r->users == 0) last = r;
    if (last && cuda_enter(last->device, "cuMemHostUnregister", &scope) == RAIL_OK) {
        unpin(last);
        cuda_leave(&scope);
    }
    pthread_mutex_unlock(&lock);
    if (last) cuda_device_drop(last->device);
    free(last);
    (void)device;
}
