/* kernels.h - arguments of the kernels that the emulator's own tests launch. Addresses are the device's. */
#ifndef RAIL_TESTS_EMULATED_KERNELS_H
#define RAIL_TESTS_EMULATED_KERNELS_H

#include <stdint.h>

struct fill_argument { uint64_t to; uint32_t n, value; };    /* kernel_fill: words, shared out over the blocks */
struct copy_argument { uint64_t to, from; uint32_t n; };     /* kernel_copy: words */
struct add_argument { uint64_t to; uint32_t n, value; };     /* kernel_add: to[i] += value */
struct meet_argument { uint64_t mine, theirs; uint32_t value; }; /* kernel_meet: sets mine, waits for theirs */
struct gather_argument { uint64_t counter; };                /* kernel_gather: ends when all blocks have begun */
struct threads_argument { uint64_t sums; };                  /* kernel_threads: each block's sum of thread numbers */

#endif
