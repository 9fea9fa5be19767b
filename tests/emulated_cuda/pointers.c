/* pointers.c - what a client asks about an address. */
#include "emulated_cuda/state.h"

#include <string.h>

static bool on_host(const struct memory *m)
{
    return m->kind == MEMORY_PINNED || m->kind == MEMORY_REGISTERED;
}

/* Bytes of an attribute's value; 0: not known. */
static size_t width_of(CUpointer_attribute attribute)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: return 8;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: return 4;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE: return 1;
    default: return 0;
    }
}

/* False: the memory has no such attribute. */
static bool value_of(const struct memory *m, CUpointer_attribute attribute, uintptr_t at, uint64_t *value)
{
    bool host = on_host(m), managed = m->kind == MEMORY_MANAGED;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: *value = (uintptr_t)m->context; return m->kind != MEMORY_VIRTUAL;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *value = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE; return true;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *value = at; return true;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER: *value = at; return host || managed;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: *value = m->flags >> 31; return true;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID: *value = m->id; return true;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *value = managed; return true;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *value = (uint64_t)m->device->ordinal; return true;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: *value = m->kind == MEMORY_DEVICE; return true;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *value = m->begin; return true;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *value = m->bytes; return true;
    case CU_POINTER_ATTRIBUTE_MAPPED: *value = 1; return true;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        *value = m->kind == MEMORY_VIRTUAL ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0;
        return true;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: *value = CU_MEM_ACCESS_FLAGS_PROT_READWRITE; return true;
    default: *value = 0; return true; /* no GPUDirect RDMA, no pool */
    }
}

static void store(void *data, uint64_t value, size_t width)
{
    memcpy(data, &value, width); /* little-endian */
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer)
{
    struct context *c;
    ENTER_IN(c);
    uint64_t value;
    size_t width = width_of(attribute);
    if (data == NULL || width == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || !value_of(m, attribute, (uintptr_t)pointer, &value))
        return leave(CUDA_ERROR_INVALID_VALUE);
    store(data, value, width);
    return leave(CUDA_SUCCESS);
}

/* Pointers that the driver does not know are no error here: each attribute is 0, the ordinal -2. */
CUresult cuPointerGetAttributes(unsigned n, CUpointer_attribute *attributes, void **data, CUdeviceptr pointer)
{
    struct context *c;
    ENTER_IN(c);
    if (attributes == NULL || data == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < n; i++)
        if (width_of(attributes[i]) == 0 || data[i] == NULL)
            return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    for (unsigned i = 0; i < n; i++) {
        uint64_t value = attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ? (uint64_t)-2 : 0, known;
        if (m != NULL && value_of(m, attributes[i], (uintptr_t)pointer, &known))
            value = known;
        store(data[i], value, width_of(attributes[i]));
    }
    return leave(CUDA_SUCCESS);
}

CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr pointer)
{
    struct context *c;
    ENTER_IN(c);
    if (value == NULL || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || on_host(m))
        return leave(CUDA_ERROR_INVALID_VALUE);
    unsigned on;
    memcpy(&on, value, sizeof on);
    m->flags = (m->flags & ~(1u << 31)) | (on != 0 ? 1u << 31 : 0);
    return leave(CUDA_SUCCESS);
}
