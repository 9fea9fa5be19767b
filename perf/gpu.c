/* gpu.c - see gpu.h. */
#include "gpu.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "foreign/cuda.h"
#include "nccl.h"

struct perf_gpu {
    const struct cuda_driver *driver;
    cu_device device;
    cu_context context;
    cu_stream stream;
    cu_graph graph;
    void *exec; /* made of the graph */
    char name[32];
};

static const char *parameter(const char *name)
{
    const char *value = NULL;
    return ncclParamGetParameter(name, &value, NULL) == ncclSuccess && value ? value : "";
}

static void must(const struct perf_gpu *gpu, cu_result result, const char *call)
{
    const char *name = NULL, *words = NULL;
    if (result == CU_SUCCESS) return;
    gpu->driver->error_name(result, &name);
    gpu->driver->error_string(result, &words);
    fflush(stdout);
    fprintf(stderr, "%s: %s: %s (%s)\n", gpu->name, call, name ? name : "unknown error", words ? words : "");
    _exit(1); /* other threads may be inside the library */
}

static bool out_of_memory(const struct perf_gpu *gpu, cu_result result, const char *call)
{
    if (result == CU_E_OUT_OF_MEMORY) return true;
    must(gpu, result, call);
    return false;
}

/* The library's driver, where it would make a rank on a GPU. */
static const struct cuda_driver *wanted(int *n_devices)
{
    const char *why;
    if (!strcmp(parameter("RAILCCL_DEVICE"), "host")) return NULL;
    const struct cuda_driver *driver = cuda_driver(parameter("RAILCCL_CUDA_LIBRARY"), &why, NULL);
    return driver && driver->device_count(n_devices) == CU_SUCCESS && *n_devices > 0 ? driver : NULL;
}

struct perf_gpu *perf_gpu_open(int number)
{
    int n = 0;
    char bus[16] = "";
    const struct cuda_driver *driver = wanted(&n);
    const char *first = getenv("NCCL_TESTS_DEVICE");
    if (!driver) return NULL;
    struct perf_gpu *gpu = calloc(1, sizeof *gpu);
    if (!gpu) return fprintf(stderr, "out of memory\n"), _exit(1), NULL;
    gpu->driver = driver;
    number = (int)(((unsigned)number + (first ? (unsigned)atoi(first) : 0)) % (unsigned)n);
    snprintf(gpu->name, sizeof gpu->name, "gpu%d", number);
    must(gpu, driver->device_get(&gpu->device, number), "cuDeviceGet");
    must(gpu, driver->device_bus_id(bus, sizeof bus, gpu->device), "cuDeviceGetPCIBusId");
    snprintf(gpu->name, sizeof gpu->name, "gpu%d@%s", number % 1000, bus);
    must(gpu, driver->primary_retain(&gpu->context, gpu->device), "cuDevicePrimaryCtxRetain");
    perf_gpu_use(gpu);
    must(gpu, driver->stream_create(&gpu->stream, CU_STREAM_NO_LEGACY_SYNC, 0), "cuStreamCreate");
    return gpu;
}

void perf_gpu_close(struct perf_gpu *gpu)
{
    if (!gpu) return;
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->stream_destroy(gpu->stream), "cuStreamDestroy");
    cu_context popped;
    must(gpu, gpu->driver->context_pop(&popped), "cuCtxPopCurrent");
    must(gpu, gpu->driver->primary_release(gpu->device), "cuDevicePrimaryCtxRelease");
    free(gpu);
}

/* One context deep, as cudaSetDevice leaves it. */
void perf_gpu_use(struct perf_gpu *gpu)
{
    cu_context now = NULL;
    if (!gpu) return;
    must(gpu, gpu->driver->context_current(&now), "cuCtxGetCurrent");
    if (now == gpu->context) return;
    if (now) must(gpu, gpu->driver->context_pop(&now), "cuCtxPopCurrent");
    must(gpu, gpu->driver->context_push(gpu->context), "cuCtxPushCurrent");
}

const char *perf_gpu_name(const struct perf_gpu *gpu) { return gpu->name; }

/* ---- memory ---- */

void *perf_gpu_alloc(struct perf_gpu *gpu, size_t bytes)
{
    cu_address memory = 0;
    perf_gpu_use(gpu);
    return out_of_memory(gpu, gpu->driver->alloc(&memory, bytes), "cuMemAlloc") ? NULL : (void *)(uintptr_t)memory;
}

void perf_gpu_free(struct perf_gpu *gpu, void *memory)
{
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->free((cu_address)(uintptr_t)memory), "cuMemFree");
}

void *perf_gpu_pinned_alloc(struct perf_gpu *gpu, size_t bytes)
{
    void *memory = NULL;
    perf_gpu_use(gpu);
    cu_result result = gpu->driver->host_alloc(&memory, bytes, CU_HOST_PORTABLE | CU_HOST_MAPPED);
    return out_of_memory(gpu, result, "cuMemHostAlloc") ? NULL : memory;
}

void perf_gpu_pinned_free(struct perf_gpu *gpu, void *memory)
{
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->host_free(memory), "cuMemFreeHost");
}

void perf_gpu_copy_later(struct perf_gpu *gpu, void *to, const void *from, size_t bytes)
{
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->copy_async((cu_address)(uintptr_t)to, (cu_address)(uintptr_t)from, bytes, gpu->stream),
         "cuMemcpyAsync");
}

void perf_gpu_copy(struct perf_gpu *gpu, void *to, const void *from, size_t bytes)
{
    perf_gpu_copy_later(gpu, to, from, bytes);
    must(gpu, gpu->driver->stream_synchronize(gpu->stream), "cuStreamSynchronize");
}

/* ---- the stream ---- */

void *perf_gpu_stream(const struct perf_gpu *gpu) { return gpu->stream; }

bool perf_gpu_done(struct perf_gpu *gpu)
{
    perf_gpu_use(gpu);
    cu_result result = gpu->driver->stream_query(gpu->stream);
    if (result == CU_E_NOT_READY) return false;
    must(gpu, result, "cuStreamQuery");
    return true;
}

/* Of this thread alone: the other threads of the program go on allocating. */
void perf_gpu_capture_begin(struct perf_gpu *gpu)
{
    if (!gpu->driver->capture_begin || !gpu->driver->graph_instantiate)
        must(gpu, CU_E_NOT_SUPPORTED, "the driver is older than graphs (CUDA 11.4)");
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->capture_begin(gpu->stream, CU_CAPTURE_MODE_THREAD), "cuStreamBeginCapture");
}

void perf_gpu_capture_end(struct perf_gpu *gpu)
{
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->capture_end(gpu->stream, &gpu->graph), "cuStreamEndCapture");
    must(gpu, gpu->driver->graph_instantiate(&gpu->exec, gpu->graph, 0), "cuGraphInstantiate");
}

void perf_gpu_graph_launch(struct perf_gpu *gpu)
{
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->graph_launch(gpu->exec, gpu->stream), "cuGraphLaunch");
}

void perf_gpu_graph_destroy(struct perf_gpu *gpu)
{
    perf_gpu_use(gpu);
    must(gpu, gpu->driver->graph_exec_destroy(gpu->exec), "cuGraphExecDestroy");
    must(gpu, gpu->driver->graph_destroy(gpu->graph), "cuGraphDestroy");
    gpu->exec = NULL;
    gpu->graph = NULL;
}
