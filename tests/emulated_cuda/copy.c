/* copy.c - copies and fills: of a stream, or of the legacy stream and waited for.
 *
 * Every address is checked when the call is made: a range that leaves its allocation, or device memory that was freed,
 * is an error here and not a fault later. Pageable memory is copied as the real driver does: the call waits for the
 * stream and returns when the copy is done - or, with EMULATED_CUDA_STRICT=1, refuses. */
#include "emulated_cuda/state.h"

static CUresult check(const char *call, uintptr_t at, size_t bytes)
{
    if (memory_reaches(at, bytes))
        return CUDA_SUCCESS;
    say("%s: %zu bytes at %#zx are not within one allocation", call, bytes, (size_t)at);
    return CUDA_ERROR_INVALID_VALUE;
}

/* Takes what the call means, and whether it waits. */
static CUresult enqueue(const char *call, struct context *c, CUstream handle, struct work work, bool waits)
{
    struct stream *s;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result == CUDA_SUCCESS)
        result = check(call, work.to, work.kind == WORK_FILL ? work.bytes * work.width : work.bytes);
    if (result == CUDA_SUCCESS && work.kind == WORK_COPY)
        result = check(call, work.from, work.bytes);
    if (result == CUDA_SUCCESS && waits)
        result = s->capture != NULL ? capture_breaks(s) : capture_forbids(call);
    bool pageable = work.kind == WORK_COPY && (memory_pageable(work.to) || memory_pageable(work.from));
    if (result == CUDA_SUCCESS && pageable && !waits && settings.strict) {
        say("%s of pageable memory (EMULATED_CUDA_STRICT)", call);
        result = CUDA_ERROR_INVALID_VALUE;
    }
    if (result != CUDA_SUCCESS || work.bytes == 0)
        return leave(result);
    result = stream_work(s, &work);
    if (result == CUDA_SUCCESS && (waits || pageable) && s->capture == NULL) {
        stream_wait(s, call);
        result = s->context->sticky;
    }
    return leave(result);
}

static struct work copy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return (struct work){.kind = WORK_COPY, .to = (uintptr_t)to, .from = (uintptr_t)from, .bytes = bytes};
}

static struct work fill(CUdeviceptr to, uint64_t value, uint32_t width, size_t n)
{
    return (struct work){.kind = WORK_FILL, .to = (uintptr_t)to, .value = value, .width = width, .bytes = n};
}

/* All forms of copying are one: addresses say where they are. */
#define COPY(name, to_type, from_type) \
    CUresult name(to_type to, from_type from, size_t bytes) \
    { \
        struct context *c; \
        ENTER_IN(c); \
        return enqueue(__func__, c, NULL, copy((CUdeviceptr)to, (CUdeviceptr)from, bytes), true); \
    }
#define COPY_ASYNC(name, to_type, from_type) \
    CUresult name(to_type to, from_type from, size_t bytes, CUstream stream) \
    { \
        struct context *c; \
        ENTER_IN(c); \
        return enqueue(__func__, c, stream, copy((CUdeviceptr)to, (CUdeviceptr)from, bytes), false); \
    }
COPY(cuMemcpy, CUdeviceptr, CUdeviceptr)
COPY(cuMemcpyHtoD_v2, CUdeviceptr, const void *)
COPY(cuMemcpyDtoH_v2, void *, CUdeviceptr)
COPY(cuMemcpyDtoD_v2, CUdeviceptr, CUdeviceptr)
COPY_ASYNC(cuMemcpyAsync, CUdeviceptr, CUdeviceptr)
COPY_ASYNC(cuMemcpyHtoDAsync_v2, CUdeviceptr, const void *)
COPY_ASYNC(cuMemcpyDtoHAsync_v2, void *, CUdeviceptr)
COPY_ASYNC(cuMemcpyDtoDAsync_v2, CUdeviceptr, CUdeviceptr)

CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes)
{
    struct context *c;
    ENTER_IN(c);
    (void)to_context, (void)from_context;
    return enqueue(__func__, c, NULL, copy(to, from, bytes), true);
}

CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes,
                           CUstream stream)
{
    struct context *c;
    ENTER_IN(c);
    (void)to_context, (void)from_context;
    return enqueue(__func__, c, stream, copy(to, from, bytes), false);
}

/* Of device memory the plain forms return before they are done, too, as in the real driver. */
#define FILL(name, type, width) \
    CUresult name(CUdeviceptr to, type value, size_t n) \
    { \
        struct context *c; \
        ENTER_IN(c); \
        return enqueue(__func__, c, NULL, fill(to, value, width, n), false); \
    }
#define FILL_ASYNC(name, type, width) \
    CUresult name(CUdeviceptr to, type value, size_t n, CUstream stream) \
    { \
        struct context *c; \
        ENTER_IN(c); \
        return enqueue(__func__, c, stream, fill(to, value, width, n), false); \
    }
FILL(cuMemsetD8_v2, unsigned char, 1)
FILL(cuMemsetD16_v2, unsigned short, 2)
FILL(cuMemsetD32_v2, unsigned, 4)
FILL_ASYNC(cuMemsetD8Async, unsigned char, 1)
FILL_ASYNC(cuMemsetD16Async, unsigned short, 2)
FILL_ASYNC(cuMemsetD32Async, unsigned, 4)
