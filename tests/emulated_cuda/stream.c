/* stream.c - streams: work in order, and the legacy stream's order with all that are not non-blocking.
 *
 *     blocking stream   A ──────────────> C      work of the legacy stream comes after all that was put before it
 *     legacy stream          A ──> B ──> C       into blocking streams, and before what is put there later
 *     non-blocking      D                        after nothing of these
 *
 * A thread's own stream (CU_STREAM_PER_THREAD) is a blocking one. */
#include "emulated_cuda/state.h"

#include <stdlib.h>

static unsigned long long streams;

struct stream *stream_new(struct context *context, unsigned flags, int priority)
{
    struct stream *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    *s = (struct stream){.kind = KIND_STREAM, .context = context, .blocking = (flags & CU_STREAM_NON_BLOCKING) == 0,
                         .flags = flags, .priority = priority, .id = ++streams, .next = context->streams};
    context->streams = s;
    return s;
}

/* The caller takes it out of its context's list. */
void stream_free(struct stream *stream)
{
    capture_forget(stream);
    op_drop(stream->last);
    stream->kind = KIND_GONE;
    free(stream);
}

static struct stream *own_stream(struct context *context)
{
    uint64_t me = thread_number();
    for (struct stream *s = context->streams; s != NULL; s = s->next)
        if (s->owner == me)
            return s;
    struct stream *s = stream_new(context, 0, 0);
    if (s != NULL)
        s->owner = me;
    return s;
}

CUresult stream_of(CUstream handle, struct context *context, struct stream **stream)
{
    if (handle == NULL || handle == CU_STREAM_LEGACY)
        *stream = context->legacy;
    else if (handle == CU_STREAM_PER_THREAD)
        *stream = own_stream(context);
    else if (handle->kind == KIND_STREAM)
        *stream = handle;
    else
        return CUDA_ERROR_INVALID_HANDLE;
    return *stream == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

void stream_order(struct stream *stream, struct op *op)
{
    struct context *c = stream->context;
    op_after(op, stream->last);
    if (stream->legacy) {
        for (struct stream *s = c->streams; s != NULL; s = s->next)
            if (s->blocking)
                op_after(op, s->last);
    } else if (stream->blocking) {
        op_after(op, c->legacy->last);
    }
    op_drop(stream->last);
    stream->last = op_hold(op);
}

void stream_append(struct stream *stream, struct op *op)
{
    stream_order(stream, op);
    op_submit(op);
}

CUresult stream_work(struct stream *stream, struct work *work)
{
    if (stream->capture != NULL)
        return capture_work(stream, work);
    if (stream->legacy && capture_blocks_legacy(stream->context)) {
        work_clear(work);
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    stream_append(stream, op_new(stream->context, work));
    return CUDA_SUCCESS;
}

bool stream_done(struct stream *stream)
{
    if (stream->last != NULL && !stream->last->done)
        return false;
    if (stream->legacy)
        for (struct stream *s = stream->context->streams; s != NULL; s = s->next)
            if (s->blocking && s->last != NULL && !s->last->done)
                return false;
    return true;
}

/* For what is in the stream now; the legacy stream stands for all blocking ones. */
void stream_wait(struct stream *stream, const char *call)
{
    struct op *mark = stream->last;
    if (stream->legacy && !stream_done(stream)) {
        mark = op_new(stream->context, &(struct work){.kind = WORK_NOTHING});
        stream_append(stream, mark);
        mark = stream->last;
    }
    op_wait(mark, call);
}

/* ---- calls */

static CUresult create(CUstream *stream, unsigned flags, int priority)
{
    struct context *c;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&emulator);
    c = context_current();
    if (stream == NULL || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING) != 0)
        return leave(CUDA_ERROR_INVALID_VALUE);
    struct stream *s = stream_new(c, flags, priority > 0 ? 0 : priority < -5 ? -5 : priority);
    if (s == NULL)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    else
        *stream = s;
    return leave(result);
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    return create(stream, flags, 0);
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    struct context *c;
    ENTER_IN(c);
    return create(stream, flags, priority);
}

/* Returns at once; what is in the stream still ends. */
CUresult cuStreamDestroy_v2(CUstream stream)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD || stream->kind != KIND_STREAM)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    struct stream **at = &stream->context->streams;
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    stream_free(stream);
    return leave(CUDA_SUCCESS);
}

CUresult cuStreamSynchronize(CUstream handle)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->capture != NULL)
        return leave(capture_breaks(s));
    if (s->legacy && capture_blocks_legacy(s->context))
        return leave(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    struct context *of = s->context;
    stream_wait(s, __func__);
    return leave(of->sticky);
}

CUresult cuStreamQuery(CUstream handle)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->capture != NULL)
        return leave(capture_breaks(s));
    if (s->legacy && capture_blocks_legacy(s->context))
        return leave(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    if (s->context->sticky != CUDA_SUCCESS)
        return leave(s->context->sticky);
    return leave(stream_done(s) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (event == NULL || event->kind != KIND_EVENT)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    if (flags > CU_EVENT_WAIT_EXTERNAL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (flags == CU_EVENT_WAIT_EXTERNAL && s->capture != NULL)
        return leave(capture_work(s, &(struct work){.kind = WORK_AWAIT, .event = event_hold(event)}));
    if (event->capture_id != 0)
        return leave(capture_join(s, event));
    if (s->capture != NULL) /* an event from outside */
        return leave((capture_breaks(s), CUDA_ERROR_STREAM_CAPTURE_ISOLATION));
    if (event->op != NULL && !event->op->done) {
        struct op *op = op_new(s->context, &(struct work){.kind = WORK_NOTHING});
        op_after(op, event->op);
        stream_append(s, op);
    }
    return leave(CUDA_SUCCESS);
}

/* What a stream knows of itself. */
#define STREAM_ANSWERS(name, type, value)                                                                              \
    CUresult name(CUstream handle, type *out)                                                                          \
    {                                                                                                                  \
        struct context *c;                                                                                             \
        struct stream *s;                                                                                              \
        ENTER_IN(c);                                                                                                   \
        pthread_mutex_lock(&emulator);                                                                                 \
        CUresult result = out == NULL ? CUDA_ERROR_INVALID_VALUE : stream_of(handle, c, &s);                           \
        if (result == CUDA_SUCCESS)                                                                                    \
            *out = s->value;                                                                                           \
        return leave(result);                                                                                          \
    }
STREAM_ANSWERS(cuStreamGetCtx, CUcontext, context)
STREAM_ANSWERS(cuStreamGetDevice, CUdevice, context->device->ordinal)
STREAM_ANSWERS(cuStreamGetId, unsigned long long, id)
STREAM_ANSWERS(cuStreamGetFlags, unsigned, flags)
STREAM_ANSWERS(cuStreamGetPriority, int, priority)
