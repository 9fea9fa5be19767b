/* values.c - what a stream does without a kernel: host functions, and words that are written and waited for. */
#include "emulated_cuda/state.h"

#include <stdlib.h>

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void *data)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    if (function == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result == CUDA_SUCCESS)
        result = stream_work(s, &(struct work){.kind = WORK_HOST, .host = function, .data = data});
    return leave(result);
}

struct callback {
    CUstreamCallback function;
    CUstream stream;
    void *data;
};

static void call_back(void *argument)
{
    struct callback callback = *(struct callback *)argument;
    free(argument);
    callback.function(callback.stream, CUDA_SUCCESS, callback.data);
}

CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback function, void *data, unsigned flags)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    if (function == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->capture != NULL)
        return leave(capture_breaks(s));
    struct callback *callback = malloc(sizeof *callback);
    if (callback == NULL)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *callback = (struct callback){function, handle, data};
    result = stream_work(s, &(struct work){.kind = WORK_HOST, .host = call_back, .data = callback});
    if (result != CUDA_SUCCESS)
        free(callback);
    return leave(result);
}

static CUresult value_work(const char *call, struct context *c, CUstream handle, struct work work)
{
    struct stream *s;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (work.to % work.width != 0 || memory_find(work.to) == NULL || !memory_reaches(work.to, work.width)) {
        say("%s: no memory of the device, pinned or registered, aligned to %u bytes, at %#zx", call, work.width,
            (size_t)work.to);
        return leave(CUDA_ERROR_INVALID_VALUE);
    }
    return leave(stream_work(s, &work));
}

static CUresult write_value(const char *call, struct context *c, CUstream stream, CUdeviceptr at, uint64_t value,
                            uint32_t width, unsigned flags)
{
    if (flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    return value_work(call, c, stream,
                      (struct work){.kind = WORK_WRITE, .to = (uintptr_t)at, .value = value, .width = width});
}

static CUresult wait_value(const char *call, struct context *c, CUstream stream, CUdeviceptr at, uint64_t value,
                           uint32_t width, unsigned flags)
{
    if ((flags & ~(3u | CU_STREAM_WAIT_VALUE_FLUSH)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    return value_work(call, c, stream, (struct work){.kind = WORK_WAIT, .to = (uintptr_t)at, .value = value,
                                                     .width = width, .flags = flags});
}

CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr at, uint32_t value, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return write_value(__func__, c, stream, at, value, 4, flags);
}

CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr at, uint64_t value, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return write_value(__func__, c, stream, at, value, 8, flags);
}

CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr at, uint32_t value, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return wait_value(__func__, c, stream, at, value, 4, flags);
}

CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr at, uint64_t value, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return wait_value(__func__, c, stream, at, value, 8, flags);
}

CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned n, CUstreamBatchMemOpParams *list, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    if (list == NULL || n == 0 || n > 256 || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    for (unsigned i = 0; i < n && result == CUDA_SUCCESS; i++) {
        const CUstreamBatchMemOpParams *p = &list[i];
        switch (p->operation) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32:
            result = wait_value(__func__, c, stream, p->value.address, p->value.value32, 4, p->value.flags);
            break;
        case CU_STREAM_MEM_OP_WAIT_VALUE_64:
            result = wait_value(__func__, c, stream, p->value.address, p->value.value64, 8, p->value.flags);
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_32:
            result = write_value(__func__, c, stream, p->value.address, p->value.value32, 4, p->value.flags);
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_64:
            result = write_value(__func__, c, stream, p->value.address, p->value.value64, 8, p->value.flags);
            break;
        case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        case CU_STREAM_MEM_OP_BARRIER: break; /* memory is coherent and operations are in order anyway */
        default: result = CUDA_ERROR_INVALID_VALUE;
        }
    }
    return result;
}
