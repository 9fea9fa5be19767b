/* memory.c - sealed memfds, random bytes and the table hash. fd_pass.c has the passing of descriptors. */
#include "base/memory.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; with sysctl vm.memfd_noexec=2 a memfd without it is refused */
#endif

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

enum rail_result rail_memfd_create(const char *name, size_t bytes, int *fd_out)
{
    if (bytes == 0 || bytes > INT64_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "rail_memfd_create(%s): %zu bytes is no size", name, bytes);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return rail_fail(RAIL_E_SYSTEM, "memfd_create(%s): %s; look at ulimit -n", name, strerror(errno));
    enum rail_result result = RAIL_OK;
    if (ftruncate(fd, (off_t)bytes) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "ftruncate(memfd %s, %zu): %s", name, bytes, strerror(errno));
    else if (fcntl(fd, F_ADD_SEALS, SEALS) != 0)
        result = rail_fail(RAIL_E_SYSTEM, "fcntl(memfd %s, F_ADD_SEALS): %s", name, strerror(errno));
    if (result == RAIL_OK)
        *fd_out = fd;
    else
        close(fd);
    return result;
}

enum rail_result rail_memfd_map(int fd, size_t bytes, void **address_out)
{
    if (bytes == 0) return rail_fail(RAIL_E_ARGUMENT, "rail_memfd_map: 0 bytes asked for");
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return rail_fail(RAIL_E_SYSTEM, "fcntl(%d, F_GET_SEALS): %s; not shared memory of ours", fd, strerror(errno));
    if ((seals & SEALS) != SEALS)
        return rail_fail(RAIL_E_REMOTE, "shared memory %d has seals 0x%x of 0x%x: it could shrink while in use", fd,
                         (unsigned)seals, (unsigned)SEALS);
    struct stat st;
    if (fstat(fd, &st) != 0) return rail_fail(RAIL_E_SYSTEM, "fstat(shared memory %d): %s", fd, strerror(errno));
    if ((uint64_t)st.st_size < bytes)
        return rail_fail(RAIL_E_REMOTE, "shared memory %d has %lld bytes, %zu are needed; do all ranks run the same "
                         "version with the same settings?", fd, (long long)st.st_size, bytes);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return rail_fail(RAIL_E_SYSTEM, "mmap(shared memory, %zu bytes): %s; look at ulimit -v and memory limits", bytes,
                         strerror(errno));
    *address_out = p;
    return RAIL_OK;
}

void rail_memory_unmap(void *address, size_t bytes)
{
    if (address) munmap(address, bytes);
}

size_t rail_memory_resident(const void *address, size_t bytes)
{
    enum { AT_ONCE = 4096 };
    unsigned char present[AT_ONCE];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), found = 0;
    uintptr_t at = (uintptr_t)address, end = at + bytes;
    for (at -= at % page; at < end; at += AT_ONCE * page) {
        size_t n = (end - at + page - 1) / page;
        if (n > AT_ONCE) n = AT_ONCE;
        if (mincore((void *)at, n * page, present) != 0) continue;
        for (size_t i = 0; i < n; i++) found += present[i] & 1;
    }
    return found * page;
}

void rail_random(void *out, size_t bytes)
{
    char *p = out;
    int saved = errno;
    while (bytes > 0) {
        ssize_t n = getrandom(p, bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) { /* secrets and identities hang on it: a guess would be worse than the end */
            fprintf(stderr, "railccl: getrandom(%zu): %s\n", bytes, strerror(errno));
            abort();
        }
        p += n;
        bytes -= (size_t)n;
    }
    errno = saved;
}

/* A word at a time: xor in, multiply by an odd constant, fold the high half down. Each of these is a bijection of the
 * 64-bit state, so two inputs of one length that differ in one word never collide, and one word costs about 6 cycles.
 * The finish multiplies and folds twice more, so that every input bit reaches every output bit (tests/base/test_memory.c
 * measures it). Words are little-endian: the same value on every machine. Not for secrets. */
static inline uint64_t fold(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */
    return h ^ h >> 32;
}

uint64_t rail_hash64(const void *data, size_t bytes, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t word, h = fold(seed, 0xc2b2ae3d27d4eb4fu ^ bytes);
    for (; bytes >= 8; bytes -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = fold(h, le64toh(word));
    }
    if (bytes) {
        word = 0;
        memcpy(&word, p, bytes);
        h = fold(h, le64toh(word));
    }
    h = fold(h, 0);
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u; /* constant of the splitmix64 finish (Stafford's mix 13) */
    return h ^ h >> 32;
}
