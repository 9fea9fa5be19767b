/* stream.c - the caller's streams and ours, and their order. */
#include "device/cuda/state.h"

enum rail_result cuda_stream_check(struct cuda_device *device, const char *call, cu_stream stream)
{
    const struct cuda_driver *driver = device->driver;
    struct cuda_scope scope;
    cu_context context = NULL;
    cu_device other = -1;
    char text[CUDA_NAME_BYTES], words[200];
    if (!stream || stream == CU_LEGACY_STREAM || stream == CU_THREAD_STREAM) return RAIL_OK;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = driver->stream_context(stream, &context);
    if (got == CU_SUCCESS && context != device->context && driver->context_push(context) == CU_SUCCESS) {
        driver->context_device(&other);
        driver->context_pop(&context);
    }
    cuda_leave(&scope);
    if (got == CU_SUCCESS && context == device->context) return RAIL_OK;
    if (got != CU_SUCCESS) {
        cuda_words(driver, got, words, sizeof words);
        return rail_fail(cuda_sticky(got) ? RAIL_E_CUDA : RAIL_E_ARGUMENT, "%s: stream %p on device %d: %s; pass NULL "
                         "or a stream that lives", call, (void *)stream, device->ordinal, words);
    }
    return rail_fail(RAIL_E_ARGUMENT, "%s: stream %p is of device %d, context %p, and the communicator is on %s, "
                     "context %p: pass a stream made with device %d current", call, (void *)stream, other,
                     (void *)context, cuda_device_text(device, text), (void *)device->context, device->ordinal);
}

enum rail_result cuda_stream_make(struct cuda_device *device, const char *call, bool urgent, cu_stream *out)
{
    struct cuda_scope scope;
    int least = 0, greatest = 0;
    *out = NULL;
    RAIL_TRY(cuda_enter(device, call, &scope));
    if (urgent && device->driver->priority_range(&least, &greatest) != CU_SUCCESS) greatest = 0;
    cu_result got = device->driver->stream_create(out, CU_STREAM_NO_LEGACY_SYNC, greatest);
    cuda_leave(&scope);
    if (got != CU_SUCCESS) {
        *out = NULL;
        return cuda_fail(device->driver, call, got, "cuStreamCreate on device %d", device->ordinal);
    }
    atomic_fetch_add(&cuda_counts.streams, 1);
    return RAIL_OK;
}

void cuda_stream_free(struct cuda_device *device, cu_stream stream)
{
    struct cuda_scope scope;
    if (!stream) return;
    atomic_fetch_sub(&cuda_counts.streams, 1);
    if (cuda_enter(device, "cuStreamDestroy", &scope) != RAIL_OK) return;
    device->driver->stream_destroy(stream);
    cuda_leave(&scope);
}

enum rail_result cuda_stream_done(struct cuda_device *device, const char *call, cu_stream stream)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->stream_query(stream);
    cuda_leave(&scope);
    if (got == CU_E_NOT_READY) return RAIL_NOT_YET;
    return cuda_fail(device->driver, call, got, "cuStreamQuery(%p) on device %d", (void *)stream, device->ordinal);
}

enum rail_result cuda_stream_wait(struct cuda_device *device, const char *call, cu_stream stream)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->stream_synchronize(stream);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuStreamSynchronize(%p) on device %d", (void *)stream,
                     device->ordinal);
}

enum rail_result cuda_stream_after(struct cuda_device *device, const char *call, cu_stream stream, cu_event event)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->stream_wait_event(stream, event, 0);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuStreamWaitEvent(stream %p) on device %d", (void *)stream,
                     device->ordinal);
}

static enum rail_result join(struct cuda_device *device, const char *call, cu_stream to, cu_stream from)
{
    cu_event event;
    RAIL_TRY(cuda_event_take(device, call, &event));
    enum rail_result result = cuda_event_record(device, call, event, from);
    if (result == RAIL_OK) result = cuda_stream_after(device, call, to, event);
    cuda_event_give(device, event);
    return result;
}

enum rail_result cuda_stream_join(struct cuda_device *device, const char *call, cu_stream to, cu_stream from)
{
    struct cuda_scope scope;
    if (to == from) return RAIL_OK;
    RAIL_TRY(cuda_enter(device, call, &scope));
    enum rail_result result = join(device, call, to, from);
    cuda_leave(&scope);
    return result;
}

enum rail_result cuda_launch_host(struct cuda_device *device, const char *call, cu_stream stream,
                                  void (*function)(void *argument), void *argument)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = device->driver->launch_host(stream, function, argument);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "cuLaunchHostFunc(stream %p) on device %d", (void *)stream,
                     device->ordinal);
}

typedef cu_result value_call(cu_stream, cu_address, uint64_t, unsigned);

static enum rail_result value_on(struct cuda_device *device, const char *call, const char *name, value_call *function,
                                 cu_stream stream, uint64_t address, uint64_t value, unsigned flags)
{
    struct cuda_scope scope;
    if (!function)
        return rail_fail(RAIL_E_USAGE, "%s: the driver, of CUDA %d.%d, has no %s: 11.7 has", call,
                         device->driver->version / 1000, device->driver->version % 1000 / 10, name);
    RAIL_TRY(cuda_enter(device, call, &scope));
    cu_result got = function(stream, address, value, flags);
    cuda_leave(&scope);
    return cuda_fail(device->driver, call, got, "%s(stream %p, 0x%llx) on device %d", name, (void *)stream,
                     (unsigned long long)address, device->ordinal);
}

enum rail_result cuda_stream_wait_value(struct cuda_device *device, const char *call, cu_stream stream,
                                        uint64_t address, uint64_t value) {
    return value_on(device, call, "cuStreamWaitValue64", device->driver->stream_wait_value, stream, address, value,
                    CU_WAIT_GEQ);
}

enum rail_result cuda_stream_write_value(struct cuda_device *device, const char *call, cu_stream stream,
                                         uint64_t address, uint64_t value) {
    return value_on(device, call, "cuStreamWriteValue64", device->driver->stream_write_value, stream, address, value,
                    0);
}
