/* posted.c - takes its turn at every communicator, runs, passes the turn on. */
#include "core/posted.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "core/comm_store.h"

struct posted {
    struct stream_work work; /* first: cast from it */
    struct queue *queues;
};

void comm_settle_slow(const struct comm *comm)
{
    _Atomic uint32_t *ran = (_Atomic uint32_t *)(uintptr_t)&comm->ran;
    uint32_t seen;
    if (comm->members && comm->members[comm->rank].pid != (int32_t)getpid()) return; /* a forked child has no streams */
    while ((seen = atomic_load_explicit(ran, memory_order_acquire)) != atomic_load_explicit(&comm->posted, memory_order_relaxed))
        rail_futex_wait(ran, seen, UINT64_MAX); /* calls that run end by themselves, by a fault, or by an abort */
}

static void await_turn(const struct queue *q)
{
    uint32_t seen;
    while ((seen = atomic_load_explicit(&q->comm->ran, memory_order_acquire)) != q->turn)
        rail_futex_wait(&q->comm->ran, seen, UINT64_MAX);
}

static void pass_turn(struct comm *comm)
{
    atomic_fetch_add_explicit(&comm->ran, 1, memory_order_release);
    rail_futex_wake(&comm->ran, INT_MAX);
    comm_store_drop(comm);
}

static void run(struct stream_work *work)
{
    struct posted *p = (struct posted *)(void *)work;
    for (struct queue *q = p->queues; q; q = q->next) await_turn(q);
    rail_log_set_rank((int)p->queues->comm->rank);
    (void)queues_run(p->queues); /* what fails is the communicators' fault */
    for (struct queue *q = p->queues; q; q = q->next) pass_turn(q->comm);
    queues_free(p->queues);
    free(p);
}

enum rail_result queues_post(struct queue *queues, struct stream *const *streams, int n)
{
    struct posted *p = malloc(sizeof *p);
    if (!p) return rail_fail(RAIL_E_SYSTEM, "ncclGroupEnd: out of memory for calls on streams");
    *p = (struct posted){.work.run = run, .queues = queues};
    for (struct queue *q = queues; q; q = q->next) {
        comm_store_keep(q->comm); /* an abort may free it before the stream gets here */
        q->turn = atomic_fetch_add_explicit(&q->comm->posted, 1, memory_order_relaxed);
    }
    enum rail_result result = streams_post(streams, n, &p->work);
    if (result == RAIL_OK) return RAIL_OK;
    for (struct queue *q = queues; q; q = q->next) {
        atomic_fetch_sub_explicit(&q->comm->posted, 1, memory_order_relaxed); /* only this thread posts to it */
        comm_store_drop(q->comm);
    }
    free(p);
    return result;
}
