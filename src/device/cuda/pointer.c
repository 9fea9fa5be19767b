/* pointer.c - what a pointer is, and whether kernels of a device can use it. */
#include "device/cuda/state.h"

/* What the driver says of an address. */
struct facts {
    unsigned type; /* 0: nothing */
    int managed, ordinal;
    cu_context context; /* NULL: VMM's and a pool's memory is of no context */
    cu_address address, begin;
    size_t bytes;
    unsigned long long buffer_id;
};

static cu_result look(const struct cuda_driver *driver, cu_address at, struct facts *f)
{
    *f = (struct facts){.ordinal = -1};
    int which[] = {CU_POINTER_MEMORY_TYPE, CU_POINTER_IS_MANAGED, CU_POINTER_ORDINAL, CU_POINTER_DEVICE_ADDRESS,
                   CU_POINTER_RANGE_BEGIN, CU_POINTER_RANGE_BYTES, CU_POINTER_BUFFER_ID, CU_POINTER_CONTEXT};
    void *into[] = {&f->type, &f->managed, &f->ordinal, &f->address, &f->begin, &f->bytes, &f->buffer_id,
                    &f->context};
    return driver->pointer_attributes(sizeof which / sizeof *which, which, into, at);
}

static enum rail_result refuse_plain(struct cuda_device *device, const char *call, const char *name,
                                     const void *pointer) {
    char text[CUDA_NAME_BYTES];
    return rail_fail(RAIL_E_ARGUMENT, "%s: %s %p is plain host memory, or was freed: %s cannot reach it; pass memory "
                     "of the device, pinned (cudaHostAlloc, cudaHostRegister) or managed memory, or set "
                     "RAILCCL_DEVICE=host", call, name, pointer, cuda_device_text(device, text));
}

static enum rail_result refuse_beyond(const char *call, const char *name, const void *pointer, size_t bytes,
                                      const struct facts *f)
{
    return rail_fail(RAIL_E_ARGUMENT, "%s: %s %p has %zu bytes left in its allocation [0x%llx, +%zu bytes) on device "
                     "%d, and %zu are needed: look at the count", call, name, pointer,
                     f->bytes - (size_t)((uintptr_t)pointer - f->begin), (unsigned long long)f->begin, f->bytes,
                     f->ordinal, bytes);
}

/* Of another device: is it reachable at all, and is access on? */
static enum rail_result check_peer(struct cuda_device *device, const char *call, const char *name, const void *pointer,
                                   int ordinal)
{
    char text[CUDA_NAME_BYTES];
    int can = 0, which = CU_POINTER_ACCESS_FLAGS;
    unsigned long long access = 0;
    void *into = &access;
    device->driver->device_can_access_peer(&can, device->device, ordinal);
    if (!can) return rail_fail(RAIL_E_ARGUMENT, "%s: %s %p is memory of device %d, which %s cannot reach: pass memory "
                               "of device %d (is the right device current where it is allocated?)", call, name, pointer,
                               ordinal, cuda_device_text(device, text), device->ordinal);
    cu_result got = device->driver->pointer_attributes(1, &which, &into, (cu_address)(uintptr_t)pointer);
    if (got == CU_SUCCESS && access != CU_ACCESS_READ_WRITE)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %s %p is memory of device %d, and %s has no access to it: pass memory "
                         "of device %d, or call cudaDeviceEnablePeerAccess(%d) on it", call, name, pointer, ordinal,
                         cuda_device_text(device, text), device->ordinal, ordinal);
    return RAIL_OK;
}

/* Contexts of one device have address spaces of their own. */
static enum rail_result check_context(struct cuda_device *device, const char *call, const char *name,
                                      const void *pointer, const struct facts *f) {
    char text[CUDA_NAME_BYTES];
    if (!f->context || f->context == device->context) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "%s: %s %p is memory of context %p, and the communicator is in context %p, both "
                     "on %s: make the communicator in the context that has the memory (the primary one is CUDA's "
                     "runtime's)", call, name, pointer, (void *)f->context, (void *)device->context,
                     cuda_device_text(device, text));
}

/* Host memory may be pinned piece by piece: its last byte is asked for, too. */
static bool reaches_to(const struct cuda_driver *driver, const struct facts *f, cu_address at, size_t bytes)
{
    struct facts last;
    if (f->bytes == 0 || bytes <= f->bytes - (size_t)(at - f->begin)) return true;
    if (f->type != CU_MEMORY_HOST) return false;
    return look(driver, at + bytes - 1, &last) == CU_SUCCESS && last.type == CU_MEMORY_HOST;
}

static enum cuda_where where(const struct cuda_device *device, const struct facts *f)
{
    if (f->managed) return CUDA_MANAGED_MEMORY;
    if (f->type == CU_MEMORY_HOST) return CUDA_PINNED_MEMORY;
    return f->ordinal == device->ordinal ? CUDA_DEVICE_MEMORY : CUDA_PEER_MEMORY;
}

static enum rail_result check(struct cuda_device *device, const char *call, const char *name, const void *pointer,
                              size_t bytes, struct cuda_pointer *out)
{
    struct facts f;
    cu_address at = (cu_address)(uintptr_t)pointer;
    cu_result got = look(device->driver, at, &f);
    /* Older drivers call a pointer that they do not know an error. */
    if (got != CU_SUCCESS && got != CU_E_INVALID_VALUE)
        return cuda_fail(device->driver, call, got, "cuPointerGetAttributes(%s %p)", name, pointer);
    if (got != CU_SUCCESS || f.type == 0) {
        if (!device->pageable || !pointer) return refuse_plain(device, call, name, pointer);
        *out = (struct cuda_pointer){.where = CUDA_PAGEABLE_MEMORY, .ordinal = -1, .address = at};
        return RAIL_OK;
    }
    if (!reaches_to(device->driver, &f, at, bytes)) return refuse_beyond(call, name, pointer, bytes, &f);
    *out = (struct cuda_pointer){.where = where(device, &f), .ordinal = f.type == CU_MEMORY_HOST ? -1 : f.ordinal,
                                 .address = f.address ? f.address : at, .base = f.begin, .bytes = f.bytes,
                                 .buffer_id = f.buffer_id};
    if (out->where == CUDA_DEVICE_MEMORY) return check_context(device, call, name, pointer, &f);
    if (out->where == CUDA_PEER_MEMORY) return check_peer(device, call, name, pointer, f.ordinal);
    return RAIL_OK;
}

enum rail_result cuda_pointer_check(struct cuda_device *device, const char *call, const char *name, const void *pointer,
                                    size_t bytes, struct cuda_pointer *out)
{
    struct cuda_pointer unused;
    struct cuda_scope scope;
    if (!out) out = &unused;
    *out = (struct cuda_pointer){.ordinal = -1};
    if (bytes == 0) return RAIL_OK;
    RAIL_TRY(cuda_enter(device, call, &scope));
    enum rail_result result = check(device, call, name, pointer, bytes, out);
    cuda_leave(&scope);
    return result;
}
