/* context.c - contexts: primary ones that are shared and counted, others that are made and destroyed; each thread has a
 * stack of them, whose top is current. A context that is gone stays known as such: its handle is an error, not
 * rubbish. */
#include "emulated_cuda/state.h"

#include <stdlib.h>

enum { STACK = 64 };

static _Thread_local struct context *stack[STACK];
static _Thread_local int depth;
static _Thread_local uint64_t this_thread;
static uint64_t threads;
static unsigned long long contexts;
static struct context *all; /* ever made */

uint64_t thread_number(void)
{
    if (this_thread == 0)
        this_thread = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    return this_thread;
}

struct context *context_current(void)
{
    return depth > 0 ? stack[depth - 1] : NULL;
}

static bool known(const struct context *context)
{
    for (const struct context *c = all; c != NULL; c = c->next)
        if (c == context)
            return true;
    return false;
}

bool context_alive(const struct context *context)
{
    return known(context) && context->kind == KIND_CONTEXT;
}

void context_failed(struct context *context, CUresult result)
{
    if (context != NULL && context_alive(context) && context->sticky == CUDA_SUCCESS)
        context->sticky = result;
    pthread_cond_broadcast(&changed);
}

static void set_current(struct context *context)
{
    if (context == NULL) {
        depth -= depth > 0;
        return;
    }
    if (depth == 0)
        depth = 1;
    stack[depth - 1] = context;
}

/* Brings a context to life: its legacy stream is its first object. */
static bool begin(struct context *c)
{
    c->kind = KIND_CONTEXT;
    c->sticky = CUDA_SUCCESS;
    c->peers = 0;
    c->id = ++contexts;
    c->legacy = stream_new(c, 0, 0);
    if (c->legacy == NULL)
        return false;
    c->legacy->legacy = true;
    return true;
}

static struct context *context_new(struct device *device, unsigned flags)
{
    struct context *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (struct context){.device = device, .flags = flags, .next = all};
    all = c;
    return begin(c) ? c : NULL;
}

/* Everything in flight ends first; then all that the context owns goes, memory included. */
static CUresult end(struct context *c, const char *call)
{
    CUresult result = settle(c, call);
    if (result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        return result;
    context_drain(c, call);
    c->kind = KIND_GONE;
    for (struct stream *s = c->streams, *next; s != NULL; s = next) {
        next = s->next;
        stream_free(s);
    }
    c->streams = c->legacy = NULL;
    for (struct module *m = c->modules, *next; m != NULL; m = next) {
        next = m->next;
        module_free(m);
    }
    c->modules = NULL;
    memory_remove_context(c);
    return CUDA_SUCCESS;
}

/* ---- primary contexts */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice ordinal)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (context == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&emulator);
    if (d->primary == NULL) {
        d->primary = context_new(d, d->primary_flags);
        if (d->primary != NULL)
            d->primary->primary = true;
    } else if (d->primary->kind != KIND_CONTEXT && !begin(d->primary)) {
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    if (d->primary == NULL)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    d->primary->flags = d->primary_flags;
    d->primary_references++;
    *context = d->primary;
    return leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&emulator);
    if (d->primary_references == 0)
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    return leave(--d->primary_references > 0 ? CUDA_SUCCESS : end(d->primary, __func__));
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice ordinal)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&emulator);
    return leave(d->primary == NULL || d->primary->kind != KIND_CONTEXT ? CUDA_SUCCESS : end(d->primary, __func__));
}

CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned *flags, int *active)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (flags == NULL || active == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&emulator);
    *flags = d->primary_flags;
    *active = d->primary != NULL && d->primary->kind == KIND_CONTEXT;
    return leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice ordinal, unsigned flags)
{
    ENTER();
    struct device *d = device_of(ordinal);
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    if (flags > 0xff)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    d->primary_flags = flags;
    return leave(CUDA_SUCCESS);
}

/* ---- other contexts */

static CUresult create(CUcontext *context, unsigned flags, CUdevice ordinal)
{
    struct device *d = device_of(ordinal);
    if (context == NULL || flags > 0xff)
        return CUDA_ERROR_INVALID_VALUE;
    if (d == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&emulator);
    struct context *c = depth < STACK ? context_new(d, flags) : NULL;
    if (c == NULL)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    stack[depth++] = c;
    *context = c;
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice ordinal)
{
    ENTER();
    return create(context, flags, ordinal);
}

/* Parameters (affinity, shared sessions) are not emulated. */
CUresult cuCtxCreate_v4(CUcontext *context, void *parameters, unsigned flags, CUdevice ordinal)
{
    ENTER();
    return parameters != NULL ? CUDA_ERROR_NOT_SUPPORTED : create(context, flags, ordinal);
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (!context_alive(context) || context->primary)
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    CUresult result = end(context, __func__);
    if (result == CUDA_SUCCESS && context_current() == context)
        depth--;
    return leave(result);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (!context_alive(context))
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    if (depth == STACK)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    stack[depth++] = context;
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    ENTER();
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context != NULL)
        *context = stack[depth - 1];
    depth--;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (context != NULL && !context_alive(context))
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    set_current(context);
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    ENTER();
    if (context == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *context = context_current();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *ordinal)
{
    struct context *c;
    ENTER_IN(c);
    if (ordinal == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *ordinal = c->device->ordinal;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetFlags(unsigned *flags)
{
    struct context *c;
    ENTER_IN(c);
    if (flags == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = c->flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    struct context *c = context != NULL ? context : context_current();
    if (id == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (!context_alive(c))
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    *id = c->id;
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (version == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (!context_alive(context != NULL ? context : context_current()))
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    *version = 3020; /* of contexts that cuCtxCreate_v2 makes */
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    return leave(settle_as_asked(c, __func__));
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    struct context *c;
    ENTER_IN(c);
    if (least != NULL)
        *least = 0;
    if (greatest != NULL)
        *greatest = -5;
    return CUDA_SUCCESS;
}

/* ---- memory of peers */

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    if (flags != 0)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (!context_alive(peer) || peer == c)
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    if (peer->device == c->device || !device_reaches(c->device, peer->device))
        return leave(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    if ((c->peers >> peer->device->ordinal & 1) != 0)
        return leave(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    CUresult result = settle(c, __func__);
    if (result == CUDA_SUCCESS)
        c->peers |= 1u << peer->device->ordinal;
    return leave(result);
}

CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    if (!context_alive(peer))
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    if ((c->peers >> peer->device->ordinal & 1) == 0)
        return leave(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    CUresult result = settle(c, __func__);
    if (result == CUDA_SUCCESS)
        c->peers &= ~(1u << peer->device->ordinal);
    return leave(result);
}
