/* control.h - what the emulated libcuda exports for tests in the same process, beside the driver's own functions.
 *
 * Found with dlsym in the handle of libcuda.so.1, from any thread, before cuInit as well. */
#ifndef RAIL_TESTS_EMULATED_CONTROL_H
#define RAIL_TESTS_EMULATED_CONTROL_H

#include <stdint.h>

/* The nth call of the export `name` from now on returns `result` and does nothing; `name` "kernel" is the execution of
 * a kernel, which then ends at once. Sticky results spoil the current (the kernel's) context. nth 0 takes back what was
 * ordered for the name. */
void emulated_cuda_fail(const char *name, unsigned nth, int result);

/* Calls of the export `name` so far, failed ones too. */
uint64_t emulated_cuda_calls(const char *name);

#endif
