/* kernels.c - kernels for the emulator's own tests, each a few lines. */
#include "emulated_cuda/kernels/kernels.h"
#include "emulated_cuda/emulated.h"

#include <sched.h>

uint32_t kernel_global[4] = {1, 2, 3, 4}; /* for cuModuleGetGlobal */

static uint32_t *words(const struct emulated_thread *here, uint64_t at)
{
    return emulated_real(here, (uintptr_t)at);
}

const uint32_t kernel_fill_argument_bytes = sizeof(struct fill_argument);
void kernel_fill(const void *argument, const struct emulated_thread *here)
{
    const struct fill_argument *a = argument;
    uint32_t *to = words(here, a->to);
    for (uint32_t i = here->block * here->n_threads + here->thread; i < a->n; i += here->n_blocks * here->n_threads)
        to[i] = a->value;
}

const uint32_t kernel_copy_argument_bytes = sizeof(struct copy_argument);
void kernel_copy(const void *argument, const struct emulated_thread *here)
{
    const struct copy_argument *a = argument;
    uint32_t *to = words(here, a->to), *from = words(here, a->from);
    for (uint32_t i = here->block * here->n_threads + here->thread; i < a->n; i += here->n_blocks * here->n_threads)
        to[i] = from[i];
}

const uint32_t kernel_add_argument_bytes = sizeof(struct add_argument);
void kernel_add(const void *argument, const struct emulated_thread *here)
{
    const struct add_argument *a = argument;
    uint32_t *to = words(here, a->to);
    for (uint32_t i = here->block * here->n_threads + here->thread; i < a->n; i += here->n_blocks * here->n_threads)
        to[i] += a->value;
}

const uint32_t kernel_meet_argument_bytes = sizeof(struct meet_argument);
void kernel_meet(const void *argument, const struct emulated_thread *here)
{
    const struct meet_argument *a = argument;
    __atomic_store_n(words(here, a->mine), a->value, __ATOMIC_RELEASE);
    while (__atomic_load_n(words(here, a->theirs), __ATOMIC_ACQUIRE) < a->value)
        sched_yield();
}

const uint32_t kernel_gather_argument_bytes = sizeof(struct gather_argument);
void kernel_gather(const void *argument, const struct emulated_thread *here)
{
    const struct gather_argument *a = argument;
    uint32_t *counter = words(here, a->counter);
    __atomic_add_fetch(counter, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < here->n_blocks * here->n_threads)
        sched_yield();
}

const uint32_t kernel_threads_argument_bytes = sizeof(struct threads_argument);
void kernel_threads(const void *argument, const struct emulated_thread *here)
{
    const struct threads_argument *a = argument;
    uint32_t *shared = here->shared;
    shared[here->thread] = here->thread + 1;
    here->sync(here);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < here->n_threads; i++)
        sum += shared[i];
    here->sync(here);
    if (here->thread == 0)
        words(here, a->sums)[here->block] = sum;
}
