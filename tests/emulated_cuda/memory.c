/* memory.c - the list of all memory that the driver knows, and the calls that make and free it.
 *
 * Sorted by address, in one array: whose address is this, and is the whole of a range within one allocation. Between
 * allocations of a device lies at least one page of nothing, so that an overrun faults. */
#include "emulated_cuda/state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>

static struct memory *list;
static size_t n, room;
static unsigned long long ids, tokens;

enum { PAGE = 4096 };

size_t page_up(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* The first that ends behind `at`. */
static size_t after(uintptr_t at)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list[middle].begin + list[middle].bytes > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct memory *memory_find(uintptr_t at)
{
    size_t i = after(at);
    return i < n && list[i].begin <= at ? &list[i] : NULL;
}

struct memory *memory_overlapping(uintptr_t begin, size_t bytes)
{
    size_t i = after(begin);
    return i < n && list[i].begin < begin + bytes ? &list[i] : NULL;
}

struct memory *memory_add(const struct memory *memory)
{
    if (n == room) {
        size_t more = room == 0 ? 64 : 2 * room;
        struct memory *bigger = realloc(list, more * sizeof *list);
        if (bigger == NULL)
            return NULL;
        list = bigger;
        room = more;
    }
    size_t i = after(memory->begin);
    memmove(&list[i + 1], &list[i], (n - i) * sizeof *list);
    n++;
    list[i] = *memory;
    list[i].id = ++ids;
    return &list[i];
}

void memory_remove(uintptr_t begin)
{
    size_t i = after(begin);
    if (i < n && list[i].begin == begin)
        memmove(&list[i], &list[i + 1], (--n - i) * sizeof *list);
}

bool memory_reaches(uintptr_t at, size_t bytes)
{
    struct memory *m = memory_find(at);
    if (m != NULL)
        return m->begin + m->bytes - at >= bytes;
    return !in_space(at) && memory_overlapping(at, bytes) == NULL;
}

bool memory_pageable(uintptr_t at)
{
    return !in_space(at) && memory_find(at) == NULL;
}

uintptr_t memory_place(uintptr_t low, uintptr_t high, size_t bytes, size_t alignment)
{
    uintptr_t at = low;
    for (size_t i = after(low);; i++) {
        uintptr_t end = i < n && list[i].begin < high ? list[i].begin : high, reserved;
        at = (at + alignment - 1) & ~(uintptr_t)(alignment - 1);
        while (at + bytes + PAGE <= end && reserved_overlaps(at, bytes + PAGE, &reserved))
            at = (reserved + PAGE + alignment - 1) & ~(uintptr_t)(alignment - 1);
        if (at + bytes + PAGE <= end)
            return at;
        if (end == high)
            return 0;
        at = list[i].begin + list[i].mapped_bytes + PAGE;
    }
}

struct memory *memory_imported(uint64_t file, uint64_t token, const struct context *context)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].kind == MEMORY_IMPORTED && list[i].file == file && list[i].token == token &&
            list[i].context == context)
            return &list[i];
    return NULL;
}

/* Behind the slab in the device's file stands a token for each page that an allocation begins with. */
off_t memory_token_at(const struct memory *m)
{
    const struct device *d = m->device;
    return (off_t)(d->slab_bytes + (m->begin - d->slab) / PAGE * sizeof m->token);
}

static bool write_token(const struct memory *m, unsigned long long token)
{
    return pwrite(m->device->fd, &token, sizeof token, memory_token_at(m)) == sizeof token;
}

/* Gives back what lies behind an entry, and the entry. */
static void discard(struct memory *m)
{
    struct memory gone = *m;
    memory_remove(gone.begin);
    switch (gone.kind) {
    case MEMORY_DEVICE:
        if (!write_token(&gone, 0))
            say("no token is written any more: other processes may open memory that was freed");
        space_unmap(gone.begin, gone.mapped_bytes);
        fallocate(gone.device->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(gone.begin - gone.device->slab),
                  (off_t)gone.mapped_bytes);
        gone.device->used_bytes -= gone.mapped_bytes;
        break;
    case MEMORY_IMPORTED: space_unmap(gone.begin, gone.mapped_bytes); break;
    case MEMORY_PINNED:
    case MEMORY_MANAGED: munmap((void *)gone.begin, gone.mapped_bytes); break;
    default: break;
    }
}

/* Mappings of cuMemMap stay: they belong to no context. */
void memory_remove_context(struct context *context)
{
    for (size_t i = 0; i < n;)
        if (list[i].context == context && list[i].kind != MEMORY_VIRTUAL)
            discard(&list[i]);
        else
            i++;
}

/* ---- memory of devices */

static CUresult device_alloc(CUdeviceptr *pointer, size_t bytes, struct context *c)
{
    struct device *d = c->device;
    size_t mapped = page_up(bytes);
    if (mapped < bytes || mapped > settings.memory_bytes - d->used_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uintptr_t at = memory_place(d->slab, d->slab + d->slab_bytes, mapped, 4096);
    if (at == 0 || !space_map(at, mapped, d->fd, at - d->slab, PROT_READ | PROT_WRITE))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct memory *m = memory_add(&(struct memory){.begin = at, .bytes = bytes, .mapped_bytes = mapped, .device = d,
                                                   .kind = MEMORY_DEVICE, .context = c, .token = ++tokens});
    if (m == NULL || !write_token(m, m->token)) {
        memory_remove(at);
        space_unmap(at, mapped);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    d->used_bytes += mapped;
    *pointer = at;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    struct context *c;
    ENTER_IN(c);
    if (pointer == NULL || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = settle(c, __func__);
    return leave(result != CUDA_SUCCESS ? result : device_alloc(pointer, bytes, c));
}

CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    struct context *c;
    ENTER_IN(c);
    if (pointer == 0)
        return CUDA_SUCCESS;
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || m->begin != pointer || (m->kind != MEMORY_DEVICE && m->kind != MEMORY_MANAGED))
        return leave(CUDA_ERROR_INVALID_VALUE);
    CUresult result = settle(m->context, __func__);
    m = memory_find((uintptr_t)pointer);
    if (result == CUDA_SUCCESS && m != NULL)
        discard(m);
    return leave(result);
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    struct context *c;
    ENTER_IN(c);
    if (free_bytes == NULL || total_bytes == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    *free_bytes = settings.memory_bytes - c->device->used_bytes;
    *total_bytes = settings.memory_bytes;
    return leave(CUDA_SUCCESS);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *begin, size_t *bytes, CUdeviceptr pointer)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL)
        return leave(CUDA_ERROR_NOT_FOUND);
    if (begin != NULL)
        *begin = m->begin;
    if (bytes != NULL)
        *bytes = m->bytes;
    return leave(CUDA_SUCCESS);
}

/* ---- memory of the host */

static CUresult host_alloc(void **pointer, size_t bytes, enum memory_kind kind, unsigned flags, struct context *c)
{
    size_t mapped = page_up(bytes);
    void *at = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (memory_add(&(struct memory){.begin = (uintptr_t)at, .bytes = bytes, .mapped_bytes = mapped, .kind = kind,
                                    .device = c->device, .context = c, .flags = flags}) == NULL) {
        munmap(at, mapped);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *pointer = at;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    if (pointer == NULL || bytes == 0 || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = settle(c, __func__);
    return leave(result != CUDA_SUCCESS ? result : host_alloc(pointer, bytes, MEMORY_PINNED, flags, c));
}

CUresult cuMemAllocHost_v2(void **pointer, size_t bytes)
{
    struct context *c;
    ENTER_IN(c);
    if (pointer == NULL || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = settle(c, __func__);
    return leave(result != CUDA_SUCCESS ? result : host_alloc(pointer, bytes, MEMORY_PINNED, 0, c));
}

CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t bytes, unsigned flags)
{
    struct context *c;
    void *at;
    ENTER_IN(c);
    if (pointer == NULL || bytes == 0 || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = settle(c, __func__);
    if (result == CUDA_SUCCESS)
        result = host_alloc(&at, bytes, MEMORY_MANAGED, flags, c);
    if (result == CUDA_SUCCESS)
        *pointer = (uintptr_t)at;
    return leave(result);
}

/* Of memory of the host: what it was before, or nothing. */
static CUresult host_gone(void *pointer, enum memory_kind kind, CUresult unknown, void (*end)(struct memory *), const char *call)
{
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || m->begin != (uintptr_t)pointer || m->kind != kind)
        return unknown;
    CUresult result = settle(m->context, call);
    m = memory_find((uintptr_t)pointer);
    if (result == CUDA_SUCCESS && m != NULL)
        end(m);
    return result;
}

CUresult cuMemFreeHost(void *pointer)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    return leave(host_gone(pointer, MEMORY_PINNED, CUDA_ERROR_INVALID_VALUE, discard, __func__));
}

CUresult cuMemHostRegister_v2(void *pointer, size_t bytes, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    if (pointer == NULL || bytes == 0 || flags > 15 || in_space((uintptr_t)pointer))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    if (memory_overlapping((uintptr_t)pointer, bytes) != NULL)
        return leave(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    CUresult result = settle(c, __func__);
    struct memory new = {.begin = (uintptr_t)pointer, .bytes = bytes, .mapped_bytes = bytes, .kind = MEMORY_REGISTERED,
                         .device = c->device, .context = c, .flags = flags};
    if (result == CUDA_SUCCESS && memory_add(&new) == NULL)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    return leave(result);
}

static void unregister(struct memory *m) { memory_remove(m->begin); }

CUresult cuMemHostUnregister(void *pointer)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    return leave(host_gone(pointer, MEMORY_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, unregister, __func__));
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device_pointer, void *pointer, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    if (device_pointer == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || (m->kind != MEMORY_PINNED && m->kind != MEMORY_REGISTERED))
        return leave(CUDA_ERROR_INVALID_VALUE);
    *device_pointer = (uintptr_t)pointer;
    return leave(CUDA_SUCCESS);
}

CUresult cuMemHostGetFlags(unsigned *flags, void *pointer)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (flags == NULL || m == NULL || (m->kind != MEMORY_PINNED && m->kind != MEMORY_REGISTERED))
        return leave(CUDA_ERROR_INVALID_VALUE);
    *flags = m->flags;
    return leave(CUDA_SUCCESS);
}
