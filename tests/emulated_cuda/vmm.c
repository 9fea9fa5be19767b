/* vmm.c - virtual memory management: ranges of addresses, physical memory, and mappings of the one into the other.
 *
 *     cuMemAddressReserve   addresses      cuMemMap, cuMemSetAccess   memory at an address, and for whom
 *     cuMemCreate           a memfd        cuMemExportToShareableHandle   a descriptor for another process
 *
 * Physical memory lives as long as a handle or a mapping of it does. */
#include "emulated_cuda/state.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t GRAIN = (size_t)1 << 21; /* as current GPUs' */

struct reserved {
    uintptr_t begin;
    size_t bytes;
    struct reserved *next;
};

struct physical {
    enum kind kind;
    int fd;
    size_t bytes;
    struct device *device;
    bool exportable, imported;
    unsigned references; /* handles and mappings */
    unsigned handles;
};

/* What an exported descriptor says about itself: written behind the memory. */
struct tail {
    char magic[16];
    uint64_t bytes;
    int32_t physical; /* device */
};
static const char MAGIC[16] = "emulated-cuda-1";

static struct reserved *ranges;

bool reserved_overlaps(uintptr_t begin, size_t bytes, uintptr_t *end)
{
    for (const struct reserved *r = ranges; r != NULL; r = r->next)
        if (r->begin < begin + bytes && begin < r->begin + r->bytes) {
            *end = r->begin + r->bytes;
            return true;
        }
    return false;
}

static bool within_reserved(uintptr_t begin, size_t bytes)
{
    for (const struct reserved *r = ranges; r != NULL; r = r->next)
        if (begin >= r->begin && begin + bytes <= r->begin + r->bytes)
            return true;
    return false;
}

static void drop(struct physical *p)
{
    if (--p->references > 0)
        return;
    close(p->fd);
    if (!p->imported)
        p->device->used_bytes -= p->bytes;
    p->kind = KIND_GONE;
    free(p);
}

static struct physical *physical_of(CUmemGenericAllocationHandle handle)
{
    struct physical *p = (struct physical *)(uintptr_t)handle;
    return p != NULL && p->kind == KIND_PHYSICAL && p->handles > 0 ? p : NULL;
}

/* ---- addresses */

CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *what, int option)
{
    ENTER();
    if (bytes == NULL || what == NULL || what->type != CU_MEM_ALLOCATION_TYPE_PINNED || option < 0 || option > 1 ||
        what->location.type != CU_MEM_LOCATION_TYPE_DEVICE || device_of(what->location.id) == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = GRAIN;
    return CUDA_SUCCESS;
}

/* The wish for an address is one that the driver need not fulfil. */
CUresult cuMemAddressReserve(CUdeviceptr *begin, size_t bytes, size_t alignment, CUdeviceptr wish,
                             unsigned long long flags)
{
    ENTER();
    (void)wish;
    if (begin == NULL || bytes == 0 || bytes % GRAIN != 0 || (alignment & (alignment - 1)) != 0 || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct reserved *r = calloc(1, sizeof *r);
    if (alignment < GRAIN)
        alignment = GRAIN;
    uintptr_t at = r == NULL ? 0 : memory_place(mappings_begin(), space.end, bytes, alignment);
    if (at == 0) {
        free(r);
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    *r = (struct reserved){.begin = at, .bytes = bytes, .next = ranges};
    ranges = r;
    *begin = at;
    return leave(CUDA_SUCCESS);
}

CUresult cuMemAddressFree(CUdeviceptr begin, size_t bytes)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct reserved **at = &ranges;
    while (*at != NULL && ((*at)->begin != begin || (*at)->bytes != bytes))
        at = &(*at)->next;
    if (*at == NULL || memory_overlapping((uintptr_t)begin, bytes) != NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    struct reserved *gone = *at;
    *at = gone->next;
    free(gone);
    return leave(CUDA_SUCCESS);
}

/* ---- physical memory */

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *what,
                     unsigned long long flags)
{
    ENTER();
    if (handle == NULL || what == NULL || bytes == 0 || bytes % GRAIN != 0 || flags != 0 ||
        what->type != CU_MEM_ALLOCATION_TYPE_PINNED || what->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    struct device *d = device_of(what->location.id);
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    if ((what->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&emulator);
    struct tail tail = {.bytes = bytes, .physical = d->physical};
    memcpy(tail.magic, MAGIC, sizeof MAGIC);
    int fd = bytes > settings.memory_bytes - d->used_bytes ? -1 : memfd_create("emulated-cuda-physical", MFD_CLOEXEC);
    struct physical *p = fd < 0 ? NULL : calloc(1, sizeof *p);
    if (p == NULL || ftruncate(fd, (off_t)bytes) != 0 || pwrite(fd, &tail, sizeof tail, (off_t)bytes) != sizeof tail) {
        if (fd >= 0)
            close(fd);
        free(p);
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    *p = (struct physical){.kind = KIND_PHYSICAL, .fd = fd, .bytes = bytes, .device = d, .references = 1, .handles = 1,
                           .exportable = what->requestedHandleTypes != 0};
    d->used_bytes += bytes;
    *handle = (uintptr_t)p;
    return leave(CUDA_SUCCESS);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct physical *p = physical_of(handle);
    if (p == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    p->handles--;
    drop(p);
    return leave(CUDA_SUCCESS);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *pointer)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (handle == NULL || m == NULL || m->kind != MEMORY_VIRTUAL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    m->physical->references++;
    m->physical->handles++;
    *handle = (uintptr_t)m->physical;
    return leave(CUDA_SUCCESS);
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *what, CUmemGenericAllocationHandle handle)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct physical *p = physical_of(handle);
    if (what == NULL || p == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *what = (CUmemAllocationProp){
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {CU_MEM_LOCATION_TYPE_DEVICE, p->device->ordinal},
        .requestedHandleTypes = p->exportable ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE};
    return leave(CUDA_SUCCESS);
}

CUresult cuMemExportToShareableHandle(void *descriptor, CUmemGenericAllocationHandle handle, int type,
                                      unsigned long long flags)
{
    ENTER();
    if (descriptor == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&emulator);
    struct physical *p = physical_of(handle);
    if (p == NULL || !p->exportable)
        return leave(CUDA_ERROR_INVALID_VALUE);
    int fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return leave(CUDA_ERROR_OPERATING_SYSTEM);
    memcpy(descriptor, &fd, sizeof fd);
    return leave(CUDA_SUCCESS);
}

/* The descriptor itself is given, as a pointer; it stays the caller's. */
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *descriptor, int type)
{
    ENTER();
    if (handle == NULL || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    struct tail tail;
    struct stat status;
    int from = (int)(intptr_t)descriptor;
    if (fstat(from, &status) != 0 || status.st_size < (off_t)sizeof tail ||
        pread(from, &tail, sizeof tail, status.st_size - (off_t)sizeof tail) != sizeof tail ||
        memcmp(tail.magic, MAGIC, sizeof MAGIC) != 0 || tail.bytes + sizeof tail != (uint64_t)status.st_size)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct device *d = NULL;
    for (int i = 0; i < settings.n_devices; i++)
        if (devices[i].physical == tail.physical)
            d = &devices[i];
    if (d == NULL) /* this process does not see it */
        return leave(CUDA_ERROR_INVALID_DEVICE);
    struct physical *p = calloc(1, sizeof *p);
    int fd = p == NULL ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        free(p);
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    *p = (struct physical){.kind = KIND_PHYSICAL, .fd = fd, .bytes = tail.bytes, .device = d, .references = 1,
                           .handles = 1, .exportable = true, .imported = true};
    *handle = (uintptr_t)p;
    return leave(CUDA_SUCCESS);
}

/* ---- mappings */

/* Mapped memory is inaccessible until cuMemSetAccess: copies may name it, and then fault as a kernel would. */
CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct physical *p = physical_of(handle);
    if (p == NULL || bytes == 0 || bytes % GRAIN != 0 || at % GRAIN != 0 || offset != 0 || bytes > p->bytes ||
        flags != 0 || !within_reserved((uintptr_t)at, bytes))
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (memory_overlapping((uintptr_t)at, bytes) != NULL)
        return leave(CUDA_ERROR_ALREADY_MAPPED);
    if (!space_map((uintptr_t)at, bytes, p->fd, 0, PROT_NONE))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    if (memory_add(&(struct memory){.begin = (uintptr_t)at, .bytes = bytes, .mapped_bytes = bytes, .physical = p,
                                    .kind = MEMORY_VIRTUAL, .device = p->device}) == NULL) {
        space_unmap((uintptr_t)at, bytes);
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    p->references++;
    return leave(CUDA_SUCCESS);
}

/* Whole mappings, all of them within [at, at + bytes). */
CUresult cuMemUnmap(CUdeviceptr at, size_t bytes)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct context *c = context_current();
    CUresult result = context_alive(c) ? settle(c, __func__) : CUDA_SUCCESS;
    struct memory *m = memory_find((uintptr_t)at);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (m == NULL || m->kind != MEMORY_VIRTUAL || m->begin != at)
        return leave(CUDA_ERROR_INVALID_VALUE);
    while ((m = memory_overlapping((uintptr_t)at, bytes)) != NULL && m->begin + m->bytes <= at + bytes) {
        struct physical *p = m->physical;
        space_unmap(m->begin, m->mapped_bytes);
        memory_remove(m->begin);
        drop(p);
    }
    return leave(m == NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

/* One process has one view of memory here: what the most privileged device may do, all may. */
CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *list, size_t n)
{
    ENTER();
    if (list == NULL || n == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct context *c = context_current();
    CUresult result = context_alive(c) ? settle(c, __func__) : CUDA_SUCCESS;
    struct memory *m = memory_find((uintptr_t)at);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (m == NULL || m->kind != MEMORY_VIRTUAL || m->begin != at || m->bytes != bytes)
        return leave(CUDA_ERROR_INVALID_VALUE);
    for (size_t i = 0; i < n; i++) {
        struct device *d = device_of(list[i].location.id);
        if (list[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE || d == NULL)
            return leave(CUDA_ERROR_INVALID_DEVICE);
        if (list[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE && !device_reaches(d, m->device))
            return leave(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
        m->access[d->ordinal] = (unsigned char)list[i].flags;
    }
    int prot = PROT_NONE;
    for (int i = 0; i < MAX_DEVICES; i++)
        prot |= m->access[i]; /* read and write are 1 and 2, as for mprotect */
    if (mprotect(real(m->begin), bytes, prot) != 0)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    return leave(CUDA_SUCCESS);
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr at)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)at);
    if (flags == NULL || location == NULL || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        device_of(location->id) == NULL || m == NULL || m->kind != MEMORY_VIRTUAL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *flags = m->access[location->id];
    return leave(CUDA_SUCCESS);
}
