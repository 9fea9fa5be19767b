/* golden.c - calls that synchronise, and the rule that they make.
 *
 * Module loads, allocations, registrations and the like wait until everything in flight in the context has ended, as
 * they do (or may do) on a real GPU. So a client that makes such a call while one of its kernels waits for a peer
 * hangs here as it would there: after EMULATED_CUDA_WATCH_MS (10 s) a line says which call waits for which kernel, and
 * with EMULATED_CUDA_GOLDEN=abort the process ends at once with that line. */
#include "emulated_cuda/state.h"

#include <errno.h>
#include <stdlib.h>

static const struct op *kernel_of(const struct context *context)
{
    const struct op *op = context->first;
    while (op != NULL && op->work.kind != WORK_KERNEL)
        op = op->next;
    return op;
}

/* Kernels that have not begun: what they wait for is before them in their streams. */
static unsigned queued_of(const struct context *context)
{
    unsigned n = 0;
    for (const struct op *op = context->first; op != NULL; op = op->next)
        n += op->work.kind == WORK_KERNEL && op->begun_ns == 0;
    return n;
}

static void report(const struct context *context, const char *call, const char *what)
{
    const struct op *kernel = kernel_of(context);
    if (kernel == NULL)
        say("%s %s work on device %d, no kernel among it", call, what, context->device->ordinal);
    else
        say("%s %s kernel %s (%u blocks, %s) on device %d; %u of %u kernels there have not begun", call, what,
            kernel->work.function->name, kernel->work.n_blocks, kernel->begun_ns != 0 ? "running" : "queued",
            context->device->ordinal, queued_of(context), context->kernels);
}

/* Until the operation has ended; unless `whatever`, or until its context has failed. */
static void wait_for(struct op *op, const char *call, bool whatever)
{
    const struct context *c = op->context;
    op_hold(op);
    for (uint64_t warn = now_ns() + settings.watch_ns; !op->done && (whatever || c->sticky == CUDA_SUCCESS);) {
        struct timespec until = {.tv_sec = (time_t)(warn / 1000000000u), .tv_nsec = (long)(warn % 1000000000u)};
        if (pthread_cond_timedwait(&changed, &emulator, &until) == ETIMEDOUT && !op->done) {
            report(op->context, call, "still waits for");
            warn = now_ns() + settings.watch_ns;
        }
    }
    op_drop(op);
}

void op_wait(struct op *op, const char *call)
{
    if (op != NULL && !op->done)
        wait_for(op, call, false);
}

void context_drain(struct context *context, const char *call)
{
    while (context->first != NULL)
        wait_for(context->first, call, true);
}

CUresult settle(struct context *context, const char *call)
{
    if (settings.abort_golden && context->kernels > 0) {
        report(context, call, "synchronises while in flight:");
        abort();
    }
    return settle_as_asked(context, call);
}

CUresult settle_as_asked(struct context *context, const char *call)
{
    CUresult result = capture_forbids(call);
    if (result != CUDA_SUCCESS)
        return result;
    /* A mark behind all that is in flight: what comes later is not waited for. */
    if (context->first != NULL) {
        struct op *mark = op_new(context, &(struct work){.kind = WORK_NOTHING});
        for (struct op *op = context->first; op != mark; op = op->next)
            op_after(mark, op);
        op_hold(mark);
        op_submit(mark);
        op_wait(mark, call);
        op_drop(mark);
    }
    return context->sticky;
}
