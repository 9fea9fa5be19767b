/* cuda_test_kernel.c - a kernel for the emulated driver: every thread of every block adds to the same word. */
#include "emulated_cuda/emulated.h"

struct cuda_test_add {
    uint64_t word; /* address of a u64 */
    uint64_t value;
    uint64_t gate; /* 0, or the address of a u32: nothing happens before it is not 0 */
};

const uint32_t cuda_test_add_argument_bytes = sizeof(struct cuda_test_add);

void cuda_test_add(const void *argument, const struct emulated_thread *here)
{
    const struct cuda_test_add *a = argument;
    if (a->gate)
        while (!__atomic_load_n((uint32_t *)emulated_real(here, a->gate), __ATOMIC_ACQUIRE)) {}
    __atomic_fetch_add((uint64_t *)emulated_real(here, a->word), a->value, __ATOMIC_ACQ_REL);
}
