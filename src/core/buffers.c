/* buffers.c - a short list of live allocations: freeing anything else is an error with a name, not a crash.
 *
 * The memory is a memfd's, so that processes of the same host can map it when it is registered as a window; where no
 * memfd is to be had (descriptors run out) it is private memory, which does everything else. */
#include "core/buffers.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/net.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; with sysctl vm.memfd_noexec=2 a memfd without it is refused */
#endif

struct buffer {
    struct buffer *next;
    void *address;
    size_t bytes;
    int fd; /* -1: private memory */
    uint64_t known; /* net.h */
};

static pthread_mutex_t buffers_lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list */
static struct buffer *buffers;

/* Sealed against shrinking: whoever maps it is safe from its owner. */
static int memfd_of(size_t bytes)
{
    int fd = memfd_create("railccl-buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create("railccl-buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (ftruncate(fd, (off_t)bytes) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0) return fd;
    close(fd);
    return -1;
}

static void *map(struct buffer *b)
{
    b->fd = memfd_of(b->bytes);
    void *p = b->fd < 0 ? MAP_FAILED : mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
    if (p != MAP_FAILED) return p;
    if (b->fd >= 0) close(b->fd);
    b->fd = -1;
    return mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

enum rail_result buffer_alloc(size_t bytes, void **out)
{
    size_t length = (bytes + 4095) & ~(size_t)4095;
    struct buffer *b = length >= bytes ? malloc(sizeof *b) : NULL;
    if (!b) return rail_fail(RAIL_E_SYSTEM, "ncclMemAlloc: %zu bytes: out of memory", bytes);
    b->bytes = length ? length : 4096;
    b->address = map(b);
    if (b->address == MAP_FAILED) {
        free(b);
        return rail_fail(RAIL_E_SYSTEM, "ncclMemAlloc: mmap of %zu bytes: %s", bytes, strerror(errno));
    }
    b->known = net_memory_add(b->address, b->bytes);
    pthread_mutex_lock(&buffers_lock);
    b->next = buffers;
    buffers = b;
    pthread_mutex_unlock(&buffers_lock);
    *out = b->address;
    return RAIL_OK;
}

enum rail_result buffer_free(void *address)
{
    if (!address) return RAIL_OK;
    pthread_mutex_lock(&buffers_lock);
    struct buffer **at = &buffers, *found;
    while (*at && (*at)->address != address) at = &(*at)->next;
    if ((found = *at)) *at = found->next;
    pthread_mutex_unlock(&buffers_lock);
    if (!found)
        return rail_fail(RAIL_E_ARGUMENT, "ncclMemFree: %p was not returned by ncclMemAlloc, or was freed before",
                         address);
    net_memory_end(found->known);
    munmap(found->address, found->bytes);
    if (found->fd >= 0) close(found->fd);
    free(found);
    return RAIL_OK;
}

bool buffer_find(const void *address, size_t bytes, struct buffer_place *out)
{
    struct stat st;
    bool found = false;
    pthread_mutex_lock(&buffers_lock);
    for (const struct buffer *b = buffers; b && !found; b = b->next) {
        size_t offset = (size_t)((uintptr_t)address - (uintptr_t)b->address);
        if (b->fd < 0 || (uintptr_t)address < (uintptr_t)b->address || offset > b->bytes || bytes > b->bytes - offset)
            continue;
        if (fstat(b->fd, &st) != 0) continue;
        *out = (struct buffer_place){.fd = b->fd, .offset = offset, .inode = st.st_ino, .device = st.st_dev};
        found = true;
    }
    pthread_mutex_unlock(&buffers_lock);
    return found;
}
