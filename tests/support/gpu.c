/* gpu.c - see gpu.h. Plain calls of the driver, as a program makes them. */
#include "support/gpu.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "device/cuda/cuda.h"

static const char *build_folder(void) { return getenv("BUILD") ? getenv("BUILD") : "build"; }

const char *const *gpu_environment(int devices, const char *const *more)
{
    static char library[512], kernel[512], count[64];
    static const char *all[16];
    int n = 0;
    snprintf(library, sizeof library, "RAILCCL_CUDA_LIBRARY=%s/tests/emulated_cuda/libcuda.so.1", build_folder());
    snprintf(kernel, sizeof kernel, "RAILCCL_CUDA_KERNEL=%s/tests/emulated_cuda/interpreter.so", build_folder());
    snprintf(count, sizeof count, "EMULATED_CUDA_DEVICES=%d", devices);
    all[n++] = "RAILCCL_DEVICE=auto";
    if (!getenv("RAILCCL_TEST_GPU")) all[n++] = library, all[n++] = kernel, all[n++] = count;
    while (more && *more && n < 15) all[n++] = *more++;
    all[n] = NULL;
    return all;
}

void gpu_expect(int devices)
{
    for (const char *const *line = gpu_environment(devices, NULL); *line; line++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*line, "="), *line);
        setenv(name, *line + strlen(name) + 1, 1);
    }
    rail_params_reload();
}

const struct cuda_driver *gpu_driver(void)
{
    const struct cuda_driver *driver;
    if (cuda_driver_get("test", &driver) == RAIL_OK) return driver;
    fprintf(stderr, "no GPU driver: %s\n", rail_own_error());
    abort();
}

static void must(cu_result result, const char *what)
{
    const char *name = "?";
    if (result == CU_SUCCESS) return;
    gpu_driver()->error_name(result, &name);
    fprintf(stderr, "%s: %s\n", what, name);
    abort();
}

int gpu_count(void)
{
    int n = 0;
    must(gpu_driver()->device_count(&n), "cuDeviceGetCount");
    return n;
}

/* The contexts stay retained: the process is a test. */
bool gpu_set(int number, const char **why)
{
    const struct cuda_driver *driver;
    cu_context context, before;
    cu_device device;
    if (cuda_driver_get("test", &driver) != RAIL_OK) {
        *why = rail_own_error();
        return false;
    }
    must(driver->device_get(&device, number % gpu_count()), "cuDeviceGet");
    must(driver->primary_retain(&context, device), "cuDevicePrimaryCtxRetain");
    must(driver->context_current(&before), "cuCtxGetCurrent");
    if (before) must(driver->context_pop(&before), "cuCtxPopCurrent");
    must(driver->context_push(context), "cuCtxPushCurrent");
    return true;
}

void *gpu_alloc(size_t bytes)
{
    cu_address at = 0;
    must(gpu_driver()->alloc(&at, bytes ? bytes : 1), "cuMemAlloc");
    return (void *)(uintptr_t)at;
}

void gpu_free(void *at) { must(gpu_driver()->free((cu_address)(uintptr_t)at), "cuMemFree"); }

static void copy(const void *to, const void *from, size_t bytes)
{
    cu_stream stream = gpu_stream();
    must(gpu_driver()->copy_async((cu_address)(uintptr_t)to, (cu_address)(uintptr_t)from, bytes, stream), "cuMemcpyAsync");
    gpu_wait(stream);
    gpu_stream_end(stream);
}
void gpu_copy_in(void *to, const void *from, size_t bytes) { copy(to, from, bytes); }
void gpu_copy_out(void *to, const void *from, size_t bytes) { copy(to, from, bytes); }

cu_stream gpu_stream(void)
{
    cu_stream stream;
    must(gpu_driver()->stream_create(&stream, CU_STREAM_NO_LEGACY_SYNC, 0), "cuStreamCreate");
    return stream;
}
void gpu_stream_end(cu_stream stream) { must(gpu_driver()->stream_destroy(stream), "cuStreamDestroy"); }
void gpu_wait(cu_stream stream) { must(gpu_driver()->stream_synchronize(stream), "cuStreamSynchronize"); }
