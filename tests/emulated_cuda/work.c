/* work.c - operations: each runs when those before it have ended, on a thread of the pool.
 *
 * An operation knows how many others it still waits for and who waits for it; streams, events and graphs only say who
 * comes after whom. What needs no thread (marks of events, joins) ends at once where its last predecessor ends. In a
 * context with a sticky error nothing runs any more, but everything ends. */
#include "emulated_cuda/state.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool work_copy(struct work *to, const struct work *from)
{
    *to = *from;
    if (from->kind == WORK_KERNEL) {
        to->argument = malloc(from->function->argument_bytes + 1u);
        if (to->argument == NULL)
            return false;
        memcpy(to->argument, from->argument, from->function->argument_bytes);
    }
    if (to->event != NULL)
        event_hold(to->event);
    return true;
}

void work_clear(struct work *work)
{
    free(work->argument);
    if (work->event != NULL)
        event_drop(work->event);
    *work = (struct work){0};
}

struct op *op_hold(struct op *op)
{
    if (op != NULL)
        op->references++;
    return op;
}

void op_drop(struct op *op)
{
    if (op == NULL || --op->references > 0)
        return;
    work_clear(&op->work);
    free(op->followers);
    free(op);
}

struct op *op_new(struct context *context, const struct work *work)
{
    struct op *op = calloc(1, sizeof *op);
    if (op == NULL)
        abort();
    *op = (struct op){.context = context, .work = *work, .references = 1, .pending = 1, .previous = context->last};
    *(context->last != NULL ? &context->last->next : &context->first) = op;
    context->last = op;
    context->kernels += work->kind == WORK_KERNEL;
    return op;
}

void op_after(struct op *op, struct op *before)
{
    if (before == NULL || before->done)
        return;
    struct op **more = realloc(before->followers, (before->n_followers + 1) * sizeof *more);
    if (more == NULL)
        abort();
    before->followers = more;
    before->followers[before->n_followers++] = op;
    op->pending++;
}

static uint64_t load(const struct work *work)
{
    void *at = real(work->to);
    return work->width == 4 ? __atomic_load_n((uint32_t *)at, __ATOMIC_ACQUIRE)
                            : __atomic_load_n((uint64_t *)at, __ATOMIC_ACQUIRE);
}

/* The four comparisons of cuStreamWaitValue: GEQ is cyclic. */
static bool satisfied(const struct work *work)
{
    uint64_t now = load(work), value = work->value, mask = work->width == 4 ? UINT32_MAX : UINT64_MAX;
    switch (work->flags & 3) {
    case CU_STREAM_WAIT_VALUE_GEQ:
        return work->width == 4 ? (int32_t)((uint32_t)now - (uint32_t)value) >= 0 : (int64_t)(now - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ: return now == value;
    case CU_STREAM_WAIT_VALUE_AND: return (now & value) != 0;
    default: return (~(now | value) & mask) != 0;
    }
}

static void wait_value(struct op *op)
{
    for (useconds_t nap = 10; !satisfied(&op->work); nap = nap < 200 ? 2 * nap : 200) {
        pthread_mutex_lock(&emulator);
        bool given_up = op->context->sticky != CUDA_SUCCESS;
        pthread_mutex_unlock(&emulator);
        if (given_up)
            return;
        usleep(nap);
    }
}

static void fill(const struct work *work)
{
    char *at = real(work->to);
    if (work->width == 1)
        memset(at, (int)work->value, work->bytes);
    else
        for (size_t i = 0; i < work->bytes; i++)
            memcpy(at + i * work->width, &work->value, work->width); /* little-endian: the low bytes come first */
}

static void write_value(const struct work *work)
{
    if (work->width == 4)
        __atomic_store_n((uint32_t *)real(work->to), (uint32_t)work->value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint64_t *)real(work->to), work->value, __ATOMIC_RELEASE);
}

/* On a thread of the pool. */
static void run(void *argument)
{
    struct op *op = argument;
    switch (op->work.kind) {
    case WORK_KERNEL: launch_run(op); return;
    case WORK_COPY: memmove(real(op->work.to), real(op->work.from), op->work.bytes); break;
    case WORK_FILL: fill(&op->work); break;
    case WORK_HOST: op->work.host(op->work.data); break;
    case WORK_WRITE: write_value(&op->work); break;
    case WORK_WAIT: wait_value(op); break;
    default: break;
    }
    pthread_mutex_lock(&emulator);
    op_finish(op);
    pthread_mutex_unlock(&emulator);
}

static void unlist(struct op *op)
{
    struct context *c = op->context;
    *(op->previous != NULL ? &op->previous->next : &c->first) = op->next;
    *(op->next != NULL ? &op->next->previous : &c->last) = op->previous;
    c->kernels -= op->work.kind == WORK_KERNEL;
}

/* Marks of events that are nodes of graphs, and waiting for such events: these take effect when their turn comes. */
static bool deferred(struct op *op)
{
    struct event *event = op->work.event;
    if (op->work.kind == WORK_RECORD) {
        op_drop(event->op);
        event->op = op_hold(op);
    } else if (op->work.kind == WORK_AWAIT && event->op != NULL && !event->op->done) {
        op->work.kind = WORK_NOTHING;
        op_after(op, event->op);
        return true;
    }
    return false;
}

/* Its predecessors have ended: starts it, or puts it before `ended`, the list of what has ended. */
static void ready(struct op *op, struct op **ended)
{
    if (deferred(op))
        return;
    bool idle = op->work.kind == WORK_NOTHING || op->work.kind == WORK_RECORD || op->work.kind == WORK_AWAIT;
    if (idle || op->context->sticky != CUDA_SUCCESS) {
        op->link = *ended;
        *ended = op;
    } else if (!pool_run(run, op)) {
        say("an operation waits for a thread");
    }
}

/* Ends what is in the list, and whatever becomes ready by that and needs no thread. */
static void end_all(struct op *ended)
{
    while (ended != NULL) {
        struct op *op = ended;
        ended = op->link;
        op->done = true;
        op->done_ns = now_ns();
        unlist(op);
        for (size_t i = 0; i < op->n_followers; i++)
            if (--op->followers[i]->pending == 0)
                ready(op->followers[i], &ended);
        op->n_followers = 0;
        if (op->ended != NULL)
            op->ended(op);
        op_drop(op);
    }
    pthread_cond_broadcast(&changed);
}

void op_submit(struct op *op)
{
    struct op *ended = NULL;
    if (--op->pending == 0)
        ready(op, &ended);
    if (ended != NULL)
        end_all(ended);
}

void op_finish(struct op *op)
{
    op->link = NULL;
    end_all(op);
}
