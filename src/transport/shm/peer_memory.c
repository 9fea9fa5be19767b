/* peer_memory.c - see peer_memory.h. */
#include "transport/shm/peer_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* One system call copies at most this much: an abort is seen between two. */
#define WRITE_BYTES_MAX ((size_t)16 << 20)

enum { PAGE = 4096 };

static bool same_file(int fd, const struct peer_memory_offer *offer)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_ino == offer->inode && st.st_dev == offer->device &&
           (uint64_t)st.st_size >= offer->bytes && (uint64_t)st.st_size - offer->bytes >= offer->offset;
}

/* The size cannot change under the mapping: who offers it has sealed it. */
static bool sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK);
}

bool peer_memory_map(const struct peer_memory_offer *offer, struct peer_mapping *mapping, unsigned char **address)
{
    char path[64];
    if (offer->fd < 0) return false;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", offer->pid, offer->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return false;
    uint64_t first = offer->offset / PAGE * PAGE;
    size_t before = (size_t)(offer->offset - first), bytes = (before + offer->bytes + PAGE - 1) / PAGE * PAGE;
    void *start = MAP_FAILED;
    if (same_file(fd, offer) && sealed(fd))
        start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)first);
    close(fd);
    if (start == MAP_FAILED) return false;
    *mapping = (struct peer_mapping){start, bytes};
    *address = (unsigned char *)start + before;
    return true;
}

void peer_memory_unmap(struct peer_mapping *mapping)
{
    if (mapping->start) munmap(mapping->start, mapping->bytes);
    *mapping = (struct peer_mapping){0};
}

static void *at(uint64_t address) { return (void *)(uintptr_t)address; }

bool peer_memory_writable(const struct peer_memory_offer *offer)
{
    uint8_t seen[PEER_COOKIE_BYTES] = {0};
    struct iovec here = {seen, sizeof seen}, there = {at(offer->cookie_address), sizeof seen};
    if (process_vm_readv(offer->pid, &here, 1, &there, 1, 0) != (ssize_t)sizeof seen) return false;
    return memcmp(seen, offer->cookie, sizeof seen) == 0;
}

/* The cookie comes in the same call: what was read is the owner's, or nobody's. */
bool peer_memory_read(const struct peer_memory_owner *owner, void *to, uint64_t from, size_t bytes)
{
    uint8_t seen[PEER_COOKIE_BYTES] = {0};
    struct iovec here[2] = {{seen, sizeof seen}, {to, bytes}};
    struct iovec there[2] = {{at(owner->cookie_address), sizeof seen}, {at(from), bytes}};
    ssize_t n = process_vm_readv(owner->pid, here, 2, there, 2, 0);
    if (n < 0) return false;
    errno = memcmp(seen, owner->cookie, sizeof seen) != 0 ? ESRCH : EFAULT;
    return (size_t)n == sizeof seen + bytes && errno == EFAULT;
}

/* The first and the last byte, in one call: memory of two kinds in one buffer is rare, and then who reads it finds out. */
bool peer_memory_readable(const void *first, size_t bytes)
{
    uint8_t seen[2];
    struct iovec here = {seen, sizeof seen}, there[2] = {{at((uintptr_t)first), 1}, {at((uintptr_t)first + bytes - 1), 1}};
    return !bytes || process_vm_readv(getpid(), &here, 1, there, 2, 0) == (ssize_t)sizeof seen;
}

enum rail_result peer_memory_write(int pid, uint64_t to, const void *from, size_t bytes)
{
    while (bytes > 0) {
        size_t now = bytes < WRITE_BYTES_MAX ? bytes : WRITE_BYTES_MAX;
        struct iovec here = {at((uintptr_t)from), now}, there = {at(to), now};
        ssize_t n = process_vm_writev(pid, &here, 1, &there, 1, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return rail_fail(RAIL_E_REMOTE, "process_vm_writev(pid %d, %zu bytes at %p): %s", pid, now, at(to),
                             n < 0 ? strerror(errno) : "nothing was written");
        from = (const char *)from + n;
        to += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return RAIL_OK;
}
