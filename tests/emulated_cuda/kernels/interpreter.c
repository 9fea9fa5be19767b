/* interpreter.c - the kernel built for the host: a shared object that the emulated libcuda takes as an image. Each thread
 * of each block is a thread of the process (emulated.h). */
#include "emulated_cuda/emulated.h"

#include <sched.h>

#include "device/cuda/quad.h"

struct kernel_thread {
    uint32_t block, n_blocks, thread, n_threads;
    const struct emulated_thread *here;
};

KERNEL_FN void kernel_sync(const struct kernel_thread *t) { t->here->sync(t->here); }

KERNEL_FN unsigned char *kernel_at(const struct kernel_thread *t, uint64_t address)
{
    return emulated_real(t->here, (uintptr_t)address);
}

/* There are far more blocks than cores: after a look or two the one that is waited for should run. */
KERNEL_FN void kernel_relax(const struct kernel_thread *t, uint32_t looks)
{
    (void)t;
    if (looks > 2) sched_yield();
}

#include "engine/interpreter.cu"

#define EXPORT __attribute__((visibility("default")))

void rail_interpret(const void *argument, const struct emulated_thread *here);
extern const uint32_t rail_interpret_argument_bytes;

EXPORT const uint32_t rail_interpret_argument_bytes = sizeof(struct kernel_call);

EXPORT void rail_interpret(const void *argument, const struct emulated_thread *here)
{
    struct kernel_thread t = {here->block, here->n_blocks, here->thread, here->n_threads, here};
    struct block *block = here->shared;
    if (t.thread == 0) memcpy(&block->call, argument, sizeof block->call);
    interpret(block, t);
}
