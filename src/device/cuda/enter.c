/* enter.c - working in a device's context, and leaving the caller's as it was. */
#include "device/cuda/state.h"

static _Thread_local struct cuda_device *inside; /* of whose scope this thread is */

enum rail_result cuda_enter(struct cuda_device *device, const char *call, struct cuda_scope *scope)
{
    *scope = (struct cuda_scope){.before = inside, .driver = device->driver, .capture_mode = -1};
    if (inside == device) return RAIL_OK;
    cu_result result = device->driver->context_push(device->context);
    if (result != CU_SUCCESS) return cuda_fail(device->driver, call, result, "entering device %d", device->ordinal);
    scope->pushed = true;
    /* Without this, a capture of the caller's (or, in mode global, of any thread's) would be broken off by what may
     * synchronise; nothing of ours goes to a stream that is captured unless it is meant to. */
    int mode = CU_CAPTURE_MODE_RELAXED;
    if (device->driver->exchange_capture_mode(&mode) == CU_SUCCESS) scope->capture_mode = mode;
    inside = device;
    return RAIL_OK;
}

void cuda_leave(struct cuda_scope *scope)
{
    if (!scope->pushed) return;
    cu_context popped;
    if (scope->capture_mode >= 0) scope->driver->exchange_capture_mode(&scope->capture_mode);
    scope->driver->context_pop(&popped);
    scope->pushed = false;
    inside = scope->before;
}
