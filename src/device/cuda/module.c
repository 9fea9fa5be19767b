/* module.c - the image of the kernel, loaded once per device, and launched.
 *
 * Drivers load functions lazily (CUDA_MODULE_LOADING=LAZY is the default since 12.2): the first launch would load,
 * which synchronises the context, and a kernel that waits for a peer would wait for ever. So a function is made
 * resident here: by cuFuncLoad where there is one, and by asking for its attributes, which nothing can answer before
 * it is loaded. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/params.h"
#include "device/cuda/state.h"

/* The embedded image: machine code and PTX (Makefile). 0 bytes in builds that had no compiler for it. */
extern const unsigned char rail_kernel_image[];
extern const size_t rail_kernel_image_bytes;

struct cuda_kernel_entry {
    struct cuda_kernel_entry *next;
    struct cuda_kernel kernel;
    char name[64];
    int threads;
};

/* ---- the image ---- */

/* The whole file with a NUL after it (PTX is text); to be freed. */
static enum rail_result read_file(const char *call, const char *path, void **out)
{
    FILE *file = fopen(path, "rbe");
    long bytes = -1;
    char *all = NULL;
    if (file && fseek(file, 0, SEEK_END) == 0) bytes = ftell(file);
    if (bytes > 0) all = malloc((size_t)bytes + 1);
    if (all) rewind(file);
    if (!all || fread(all, 1, (size_t)bytes, file) != (size_t)bytes) {
        int error = errno;
        free(all);
        if (file) fclose(file);
        return rail_fail(RAIL_E_SYSTEM, "%s: RAILCCL_CUDA_KERNEL=%s: %s", call, path, bytes == 0 ? "the file is empty" :
                         strerror(error));
    }
    fclose(file);
    all[bytes] = '\0';
    *out = all;
    return RAIL_OK;
}

static enum rail_result load_image(struct cuda_device *device, const char *call, const void *image, const char *from)
{
    char log[600] = "";
    int options[] = {CU_JIT_ERROR_LOG, CU_JIT_ERROR_LOG_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    cu_result got = device->driver->module_load(&device->state->module, image, 2, options, values);
    if (got == CU_SUCCESS) return RAIL_OK;
    device->state->module = NULL;
    log[sizeof log - 1] = '\0';
    return cuda_fail(device->driver, call, got, "loading the kernel (%s) on device %d, compute capability "
                     "%d.%d%s%.150s", from, device->ordinal, device->major, device->minor, log[0] ? ": " : "", log);
}

static enum rail_result load(struct cuda_device *device, const char *call)
{
    const char *path = rail_param_str(RAIL_PARAM_CUDA_KERNEL);
    void *image = NULL;
    if (path) {
        RAIL_TRY(read_file(call, path, &image));
        enum rail_result result = load_image(device, call, image, path);
        free(image);
        return result;
    }
    if (rail_kernel_image_bytes == 0)
        return rail_fail(RAIL_E_CUDA, "%s: this build of the library has no kernel for GPUs (neither nvcc nor clang "
                         "was there when it was built): build it anew, name an image in RAILCCL_CUDA_KERNEL, or set "
                         "RAILCCL_DEVICE=host", call);
    return load_image(device, call, rail_kernel_image, "embedded");
}

/* ---- functions ---- */

static cu_result describe(const struct cuda_driver *driver, struct cuda_kernel *k, int threads)
{
    const struct { int which; int *into; } asked[] = {
        {CU_FUNCTION_REGISTERS, &k->registers}, {CU_FUNCTION_LOCAL_BYTES, &k->local_bytes},
        {CU_FUNCTION_SHARED_BYTES, &k->shared_bytes}, {CU_FUNCTION_MAX_THREADS, &k->max_threads},
        {CU_FUNCTION_PTX_VERSION, &k->ptx_version}, {CU_FUNCTION_BINARY_VERSION, &k->binary_version},
    };
    if (driver->function_load) {
        cu_result got = driver->function_load(k->function);
        if (got != CU_SUCCESS) return got;
    }
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        cu_result got = driver->function_attribute(asked[i].into, asked[i].which, k->function);
        if (got != CU_SUCCESS) return got;
    }
    return driver->occupancy(&k->blocks_per_sm, k->function, threads, 0);
}

static enum rail_result make_resident(struct cuda_device *device, const char *call, struct cuda_kernel_entry *e)
{
    const struct cuda_driver *driver = device->driver;
    uint64_t begin = rail_now_ns();
    struct cuda_kernel *k = &e->kernel;
    if (!device->state->module) RAIL_TRY(load(device, call));
    cu_result got = driver->module_function(&k->function, device->state->module, e->name);
    if (got == CU_SUCCESS) got = describe(driver, k, e->threads);
    if (got != CU_SUCCESS)
        return cuda_fail(driver, call, got, "making kernel %s resident on device %d", e->name, device->ordinal);
    if (k->max_threads < e->threads || k->blocks_per_sm < 1)
        return rail_fail(RAIL_E_CUDA, "%s: kernel %s on device %d takes %d registers: a block has at most %d threads, "
                         "and %d are needed", call, e->name, device->ordinal, k->registers, k->max_threads, e->threads);
    k->load_ms = (double)(rail_now_ns() - begin) / 1e6;
    RAIL_INFO(RAIL_INIT, "kernel %s on GPU %d: %s for %d.%d, %d registers, %d bytes of local memory, %d blocks of %d "
              "threads per SM, loaded in %.1f ms", e->name, device->ordinal, k->binary_version ? "machine code" : "PTX",
              k->binary_version / 10, k->binary_version % 10, k->registers, k->local_bytes, k->blocks_per_sm,
              e->threads, k->load_ms);
    return RAIL_OK;
}

static enum rail_result find_or_make(struct cuda_device *device, const char *call, const char *name, int threads,
                                     const struct cuda_kernel **out)
{
    struct cuda_kernel_entry *e = device->state->kernels;
    while (e && (strcmp(e->name, name) != 0 || e->threads != threads)) e = e->next;
    if (!e) {
        e = calloc(1, sizeof *e);
        if (!e) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", call);
        snprintf(e->name, sizeof e->name, "%s", name);
        e->threads = threads;
        enum rail_result result = make_resident(device, call, e);
        if (result != RAIL_OK) {
            free(e);
            return result;
        }
        e->next = device->state->kernels;
        device->state->kernels = e;
    }
    *out = &e->kernel;
    return RAIL_OK;
}

enum rail_result cuda_kernel_get(struct cuda_device *device, const char *call, const char *name, int threads,
                                 const struct cuda_kernel **out)
{
    struct cuda_scope scope;
    *out = NULL;
    RAIL_TRY(cuda_enter(device, call, &scope));
    pthread_mutex_lock(&device->state->lock);
    enum rail_result result = find_or_make(device, call, name, threads, out);
    pthread_mutex_unlock(&device->state->lock);
    cuda_leave(&scope);
    return result;
}

void cuda_kernels_end(struct cuda_device *device, bool alive)
{
    struct cuda_state *state = device->state;
    for (struct cuda_kernel_entry *e = state->kernels, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    state->kernels = NULL;
    if (state->module && alive) device->driver->module_unload(state->module);
    state->module = NULL;
}

enum rail_result cuda_launch(struct cuda_device *device, const char *call, const struct cuda_kernel *kernel,
                             unsigned blocks, unsigned threads, unsigned shared_bytes, cu_stream stream,
                             const void *argument)
{
    struct cuda_scope scope;
    union { const void *given; void *taken; } parameter = {argument}; /* the driver only reads it */
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->launch(kernel->function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream,
                                           &parameter.taken, NULL);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuLaunchKernel(%u blocks of %u threads, stream %p) on device %d",
                     blocks, threads, (void *)stream, device->ordinal);
}
