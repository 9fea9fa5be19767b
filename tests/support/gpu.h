/* gpu.h - ranks of tests on GPUs: devices of the emulated driver unless RAILCCL_TEST_GPU=1 asks for the machine's own. */
#ifndef TESTS_SUPPORT_GPU_H
#define TESTS_SUPPORT_GPU_H

#include <stdbool.h>
#include <stddef.h>

#include "foreign/cuda.h"

/* What the environment must say for so many emulated devices: "NAME=value", NULL-terminated, `more` (NULL: nothing) behind
 * it. With RAILCCL_TEST_GPU=1 the devices are the machine's, however many. Static. */
const char *const *gpu_environment(int devices, const char *const *more);
/* Sets it in this process, which has not used the library yet. */
void gpu_expect(int devices);

/* The calling thread works on device `number` modulo what there is. False: no driver; *why says so. */
bool gpu_set(int number, const char **why);
int gpu_count(void);

/* All of them abort the test when the driver refuses. */
void *gpu_alloc(size_t bytes);
void gpu_free(void *at);
void gpu_copy_in(void *to, const void *from, size_t bytes);
void gpu_copy_out(void *to, const void *from, size_t bytes);
cu_stream gpu_stream(void);
void gpu_stream_end(cu_stream stream);
void gpu_wait(cu_stream stream);
const struct cuda_driver *gpu_driver(void);

#endif
