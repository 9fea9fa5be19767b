/* space.c - the addresses of all devices' memory.
 *
 *     client's  | device 0 | device 1 | ... | mappings |   PROT_NONE: whoever touches it on the host is killed
 *     real      | device 0 | device 1 | ... | mappings |   a constant shift further: memory where some is allocated
 *
 * A device's slab is twice its memory, so that a full device is found by counting and not by fragments. Mappings are
 * what cuMemAddressReserve gives out and what other processes export. */
#include "emulated_cuda/state.h"

#include <sys/mman.h>
#include <unistd.h>

struct space space;

enum { SLAB_ALIGN = 1 << 21 };
static const size_t MAPPINGS_BYTES = (size_t)64 << 30;

uintptr_t mappings_begin(void)
{
    return space.end - MAPPINGS_BYTES;
}

CUresult space_reserve(void)
{
    size_t slab = 2 * settings.memory_bytes, bytes = slab * (size_t)settings.n_devices + MAPPINGS_BYTES;
    char *at = mmap(NULL, 2 * bytes + SLAB_ALIGN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        say("cannot reserve %zu GiB of addresses: a smaller EMULATED_CUDA_MEMORY or fewer devices may do", bytes >> 29);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    space.begin = ((uintptr_t)at + SLAB_ALIGN - 1) & ~(uintptr_t)(SLAB_ALIGN - 1);
    space.end = space.begin + bytes;
    space.shift = (ptrdiff_t)bytes;
    for (int i = 0; i < settings.n_devices; i++) {
        devices[i] = (struct device){.ordinal = i, .physical = settings.physical[i], .slab_bytes = slab,
                                     .slab = space.begin + slab * (size_t)i};
        devices[i].fd = memfd_create("emulated-cuda", MFD_CLOEXEC);
        /* Behind the slab a token of 8 bytes for each page of 4 KiB (memory.c). */
        if (devices[i].fd < 0 || ftruncate(devices[i].fd, (off_t)(slab + slab / 512)) != 0) {
            say("no memory file of %zu bytes for device %d", slab, i);
            return CUDA_ERROR_OPERATING_SYSTEM;
        }
    }
    return CUDA_SUCCESS;
}

bool space_map(uintptr_t at, size_t bytes, int fd, size_t offset, int prot)
{
    void *where = real(at);
    if (mmap(where, bytes, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
        return false;
    madvise(where, bytes, MADV_DONTFORK); /* a child has no driver */
    madvise(where, bytes, MADV_DONTDUMP);
    return true;
}

void space_unmap(uintptr_t at, size_t bytes)
{
    mmap(real(at), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}
