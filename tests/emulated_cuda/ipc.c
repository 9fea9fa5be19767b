/* ipc.c - memory of another process: a handle names the exporter's memory file, the allocation in it, and a token that
 * tells the allocation from a later one at its place; the importer opens the file through /proc.
 *
 * As in the real driver: the exporting process itself cannot open its handles; opening one twice gives the same
 * address, to be closed twice; a handle means a whole allocation, whatever address within it was given. */
#include "emulated_cuda/state.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct handle {
    char magic[8];
    int32_t process, fd;
    uint64_t file;       /* inode number: another file may have the descriptor by now */
    uint64_t offset, bytes;
    uint64_t token_at;   /* where in the file the token stands while the allocation lives */
    uint64_t token;
    int32_t physical;    /* device */
    int32_t reserved;
};
_Static_assert(sizeof(struct handle) == sizeof(CUipcMemHandle), "a handle is 64 bytes");

static const char MAGIC[8] = "emuipc1";

CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr pointer)
{
    struct context *c;
    struct stat status;
    ENTER_IN(c);
    if (out == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || m->kind != MEMORY_DEVICE)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (fstat(m->device->fd, &status) != 0)
        return leave(CUDA_ERROR_OPERATING_SYSTEM);
    struct handle h = {.process = getpid(), .fd = m->device->fd, .file = status.st_ino, .token = m->token,
                       .offset = m->begin - m->device->slab, .bytes = m->bytes, .physical = m->device->physical,
                       .token_at = (uint64_t)memory_token_at(m)};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    memcpy(out, &h, sizeof h);
    return leave(CUDA_SUCCESS);
}

/* The exporter's file, if the allocation still lives in it; else -1. */
static int open_file(const struct handle *h)
{
    char path[64];
    struct stat status;
    uint64_t token;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", h->process, h->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) == 0 && status.st_ino == h->file &&
        pread(fd, &token, sizeof token, (off_t)h->token_at) == sizeof token && token == h->token)
        return fd;
    close(fd);
    return -1;
}

/* Settled already; under the lock. */
static CUresult map(CUdeviceptr *pointer, const struct handle *h, struct device *device, struct context *c)
{
    size_t mapped = page_up(h->bytes);
    int fd = open_file(h);
    if (fd < 0)
        return CUDA_ERROR_INVALID_HANDLE;
    uintptr_t at = memory_place(mappings_begin(), space.end, mapped, (size_t)1 << 21);
    bool done = at != 0 && space_map(at, mapped, fd, h->offset, PROT_READ | PROT_WRITE);
    close(fd);
    if (!done)
        return CUDA_ERROR_MAP_FAILED;
    if (memory_add(&(struct memory){.begin = at, .bytes = h->bytes, .mapped_bytes = mapped, .kind = MEMORY_IMPORTED,
                                    .device = device, .context = c, .token = h->token, .file = h->file,
                                    .opened = 1}) == NULL) {
        space_unmap(at, mapped);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *pointer = at;
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pointer, CUipcMemHandle from, unsigned flags)
{
    struct context *c;
    struct handle h;
    struct device *device = NULL;
    ENTER_IN(c);
    memcpy(&h, &from, sizeof h);
    if (pointer == NULL || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
        return CUDA_ERROR_INVALID_VALUE;
    if (memcmp(h.magic, MAGIC, sizeof MAGIC) != 0)
        return CUDA_ERROR_INVALID_HANDLE;
    if (h.process == getpid())
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&emulator);
    for (int i = 0; i < settings.n_devices; i++)
        if (devices[i].physical == h.physical)
            device = &devices[i];
    if (device == NULL)
        return leave(CUDA_ERROR_INVALID_DEVICE);
    if (!device_reaches(c->device, device))
        return leave(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    struct memory *known = memory_imported(h.file, h.token, c);
    if (known != NULL) {
        known->opened++;
        *pointer = known->begin;
        return leave(CUDA_SUCCESS);
    }
    CUresult result = settle(c, __func__);
    return leave(result != CUDA_SUCCESS ? result : map(pointer, &h, device, c));
}

CUresult cuIpcCloseMemHandle(CUdeviceptr pointer)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    struct memory *m = memory_find((uintptr_t)pointer);
    if (m == NULL || m->kind != MEMORY_IMPORTED || m->begin != pointer)
        return leave(CUDA_ERROR_INVALID_VALUE);
    CUresult result = settle(m->context, __func__);
    m = memory_find((uintptr_t)pointer);
    if (result == CUDA_SUCCESS && m != NULL && --m->opened == 0) {
        space_unmap(m->begin, m->mapped_bytes);
        memory_remove(m->begin);
    }
    return leave(result);
}
