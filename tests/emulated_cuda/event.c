/* event.c - events: the operation that was last recorded, and when it ended. */
#include "emulated_cuda/state.h"

#include <stdlib.h>

struct event *event_hold(struct event *event)
{
    event->references++;
    return event;
}

void event_drop(struct event *event)
{
    if (--event->references > 0)
        return;
    op_drop(event->op);
    free(event->tips);
    free(event);
}

static bool valid(const struct event *event)
{
    return event != NULL && event->kind == KIND_EVENT;
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    if (event == NULL || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    if ((flags & CU_EVENT_INTERPROCESS) != 0) /* only without timing; handles of events are not emulated */
        return (flags & CU_EVENT_DISABLE_TIMING) == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
    struct event *e = calloc(1, sizeof *e);
    if (e == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *e = (struct event){.kind = KIND_EVENT, .context = c, .flags = flags, .references = 1};
    *event = e;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (!valid(event))
        return leave(CUDA_ERROR_INVALID_HANDLE);
    event->kind = KIND_GONE;
    event_drop(event);
    return leave(CUDA_SUCCESS);
}

static CUresult record(CUevent event, CUstream handle, unsigned flags, struct context *c)
{
    struct stream *s;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (!valid(event) || event->context != s->context)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    if (flags > CU_EVENT_RECORD_EXTERNAL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (s->capture != NULL)
        return leave(flags == CU_EVENT_RECORD_EXTERNAL
                         ? capture_work(s, &(struct work){.kind = WORK_RECORD, .event = event_hold(event)})
                         : capture_record(s, event));
    if (s->legacy && capture_blocks_legacy(s->context))
        return leave(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    event->capture_id = 0;
    struct op *op = op_hold(op_new(s->context, &(struct work){.kind = WORK_NOTHING}));
    stream_append(s, op);
    op_drop(event->op);
    event->op = op;
    return leave(CUDA_SUCCESS);
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    struct context *c;
    ENTER_IN(c);
    return record(event, stream, 0, c);
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return record(event, stream, flags, c);
}

/* An event that was last recorded in a capture can be neither asked nor awaited by the host. Under the lock. */
static CUresult host_may_ask(CUevent event, const char *call)
{
    if (!valid(event))
        return CUDA_ERROR_INVALID_HANDLE;
    return event->capture_id != 0 ? CUDA_ERROR_CAPTURED_EVENT : capture_forbids(call);
}

CUresult cuEventQuery(CUevent event)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    CUresult refused = host_may_ask(event, __func__);
    if (refused != CUDA_SUCCESS)
        return leave(refused);
    if (event->context->sticky != CUDA_SUCCESS)
        return leave(event->context->sticky);
    return leave(event->op == NULL || event->op->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

CUresult cuEventSynchronize(CUevent event)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    CUresult refused = host_may_ask(event, __func__);
    if (refused != CUDA_SUCCESS)
        return leave(refused);
    struct context *c = event->context;
    op_wait(event->op, __func__);
    return leave(c->sticky);
}

static CUresult elapsed(float *ms, CUevent begin, CUevent end)
{
    if (ms == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    if (!valid(begin) || !valid(end) || ((begin->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0 ||
        begin->op == NULL || end->op == NULL)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    if (!begin->op->done || !end->op->done)
        return leave(CUDA_ERROR_NOT_READY);
    *ms = (float)((double)(int64_t)(end->op->done_ns - begin->op->done_ns) / 1e6);
    return leave(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime(float *ms, CUevent begin, CUevent end)
{
    ENTER();
    return elapsed(ms, begin, end);
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent begin, CUevent end)
{
    ENTER();
    return elapsed(ms, begin, end);
}
