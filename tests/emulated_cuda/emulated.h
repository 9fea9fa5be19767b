/* emulated.h - between the emulated libcuda and kernels that were built for the host.
 *
 * An image given to cuModuleLoadData that is a shared object of this machine (ELF, x86-64 or aarch64) is loaded with
 * dlopen. A kernel NAME in it is two symbols:
 *
 *     const uint32_t NAME_argument_bytes;                                    its one argument, by value
 *     void NAME(const void *argument, const struct emulated_thread *here);   one thread of one block
 *
 * The emulator copies the argument at the launch and runs every block as threads of the process, all blocks at once. */
#ifndef RAIL_TESTS_EMULATED_H
#define RAIL_TESTS_EMULATED_H

#include <stddef.h>
#include <stdint.h>

struct emulated_thread {
    uint32_t block, n_blocks;
    uint32_t thread, n_threads;  /* of the block: 1, or as EMULATED_CUDA_THREADS says, at most what was launched */
    void *shared;                /* the block's dynamic shared memory, 64-byte aligned, zeroed */
    void (*sync)(const struct emulated_thread *here); /* a barrier of the block's threads, with their memory */

    /* Memory of devices: what the client sees as [begin, end) cannot be touched there; it is real at + shift.
     * Everything else (pinned, managed, registered) is where it is. */
    uintptr_t device_begin, device_end;
    ptrdiff_t device_shift;
};

/* Where an address that a kernel was given can be read and written. */
static inline void *emulated_real(const struct emulated_thread *here, uintptr_t at)
{
    return (void *)(at >= here->device_begin && at < here->device_end ? at + (uintptr_t)here->device_shift : at);
}

#endif
