/* kernel_memory.h - how a kernel meets others: threads of its block, blocks of its launch, other GPUs and the host.
 *
 * What is written for others is followed by a flag that says so. The writers are all threads of a block, the flag is one
 * thread's, the leader's, in this order:
 *
 *     all threads: data; barrier   leader: fence at system scope, flag
 *     leader: flag seen, fence at system scope   barrier; all threads: data
 *
 * The barrier orders the threads' accesses before (after) the leader's, and the fence is cumulative: what happened before
 * it as seen by the leader happened before for whoever sees the flag. Fences are of system scope because the other side
 * may be the host, or a GPU that is reached through it. Flags are read and written by accesses that are single (64 bits,
 * aligned) and go to memory every time; a poll carries no fence, which would throw away the L1 cache at every look.
 *
 * Built for the host, whoever includes this has said who runs the threads (tests/emulated_cuda/kernels/interpreter.c):
 * struct kernel_thread, kernel_sync, kernel_at, kernel_relax. There flags are acquired and released by compiler builtins,
 * which ThreadSanitizer understands as it does no fences. */
#ifndef RAIL_ENGINE_KERNEL_MEMORY_H
#define RAIL_ENGINE_KERNEL_MEMORY_H

#include "device/cuda/quad.h"

#if KERNEL_CUDA

/* One thread of one block. */
struct kernel_thread {
    uint32_t block, n_blocks, thread, n_threads;
};

KERNEL_FN struct kernel_thread kernel_thread_here(void)
{
    struct kernel_thread t;
    asm("mov.u32 %0, %%ctaid.x;" : "=r"(t.block));
    asm("mov.u32 %0, %%nctaid.x;" : "=r"(t.n_blocks));
    asm("mov.u32 %0, %%tid.x;" : "=r"(t.thread));
    asm("mov.u32 %0, %%ntid.x;" : "=r"(t.n_threads));
    return t;
}

/* A barrier of the block's threads, with their memory. */
KERNEL_FN void kernel_sync(const struct kernel_thread *t)
{
    (void)t;
    asm volatile("bar.sync 0;" ::: "memory");
}

/* Where an address that the kernel was given can be read and written. */
KERNEL_FN unsigned char *kernel_at(const struct kernel_thread *t, uint64_t address)
{
    (void)t;
    return (unsigned char *)address;
}

/* Before the next look, number `looks` of a wait. A look over the bus takes a microsecond by itself; one into memory of
 * the device would come so often that it keeps others from theirs. */
KERNEL_FN void kernel_relax(const struct kernel_thread *t, uint32_t looks)
{
    (void)t;
    if (looks > 64) asm volatile("nanosleep.u32 %0;" ::"r"(looks < 4096 ? 40u : 200u));
}

/* Between data and flags, both ways. */
KERNEL_FN void fence_system(void) { asm volatile("fence.acq_rel.sys;" ::: "memory"); }

KERNEL_FN uint64_t flag_look(const unsigned char *at)
{
    uint64_t value;
    asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return value;
}
KERNEL_FN uint32_t flag_look_32(const unsigned char *at)
{
    uint32_t value;
    asm volatile("ld.relaxed.sys.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
}
/* After fence_system. */
KERNEL_FN void flag_set(unsigned char *at, uint64_t value)
{
    asm volatile("st.relaxed.sys.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
KERNEL_FN void flag_set_32(unsigned char *at, uint32_t value)
{
    asm volatile("st.relaxed.sys.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
/* Words that several blocks of a launch change; they order the blocks' memory. What was there before. */
KERNEL_FN uint32_t shared_add_32(unsigned char *at, uint32_t value)
{
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(value) : "memory");
    return before;
}
KERNEL_FN uint64_t shared_add(unsigned char *at, uint64_t value)
{
    uint64_t before;
    asm volatile("atom.relaxed.gpu.add.u64 %0, [%1], %2;" : "=l"(before) : "l"(at), "l"(value) : "memory");
    return before;
}
KERNEL_FN uint32_t shared_swap_32(unsigned char *at, uint32_t expected, uint32_t value)
{
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.cas.b32 %0, [%1], %2, %3;" : "=r"(before) : "l"(at), "r"(expected), "r"(value) : "memory");
    return before;
}

#else

KERNEL_FN void fence_system(void) {}
KERNEL_FN uint64_t flag_look(const unsigned char *at)
{
    return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE);
}
KERNEL_FN uint32_t flag_look_32(const unsigned char *at)
{
    return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_ACQUIRE);
}
KERNEL_FN void flag_set(unsigned char *at, uint64_t value)
{
    __atomic_store_n((uint64_t *)(void *)at, value, __ATOMIC_RELEASE);
}
KERNEL_FN void flag_set_32(unsigned char *at, uint32_t value)
{
    __atomic_store_n((uint32_t *)(void *)at, value, __ATOMIC_RELEASE);
}
KERNEL_FN uint32_t shared_add_32(unsigned char *at, uint32_t value)
{
    return __atomic_fetch_add((uint32_t *)(void *)at, value, __ATOMIC_ACQ_REL);
}
KERNEL_FN uint64_t shared_add(unsigned char *at, uint64_t value)
{
    return __atomic_fetch_add((uint64_t *)(void *)at, value, __ATOMIC_RELAXED);
}
KERNEL_FN uint32_t shared_swap_32(unsigned char *at, uint32_t expected, uint32_t value)
{
    __atomic_compare_exchange_n((uint32_t *)(void *)at, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return expected;
}

#endif

/* Words that others do not touch meanwhile. */
KERNEL_FN uint64_t word_at(const unsigned char *at) { return load_u64(at); }
KERNEL_FN void word_put(unsigned char *at, uint64_t value) { store_u64(at, value); }

#endif
