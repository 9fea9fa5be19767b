/* queue.c - drives the calls of several communicators as one progress set. */
#include "core/queue.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "core/predict.h"

static struct queue *queue_of(struct queue **queues, struct comm *comm)
{
    struct queue **at = queues;
    for (; *at; at = &(*at)->next)
        if ((*at)->comm == comm) return *at;
    struct queue *q = malloc(sizeof *q); /* the C library's calloc does not reuse what the thread has just freed */
    if (q) *q = (struct queue){.comm = comm};
    return *at = q;
}

enum rail_result queue_add_collective(struct queue **queues, struct comm *comm, const struct collective *args)
{
    struct queue *q = queue_of(queues, comm);
    struct queued_call *c = q ? malloc(sizeof *c) : NULL;
    if (!c) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for one more call of the group", args->call);
    c->next = NULL;
    c->args = *args;
    c->running = false;
    if (q->last)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
    return RAIL_OK;
}

enum rail_result queue_add_p2p(struct queue **queues, struct comm *comm, const struct p2p_call *args)
{
    struct queue *q = queue_of(queues, comm);
    return q ? p2p_batch_add(&q->p2p, args)
             : rail_fail(RAIL_E_SYSTEM, "%s: out of memory for one more call of the group", args->call);
}

enum rail_result queue_on_gpu_stream(struct queue **queues, struct comm *comm, cu_stream stream)
{
    static const char no_room[] = "out of memory for one more stream of the group";
    struct queue *q = queue_of(queues, comm);
    if (stream == CU_LEGACY_STREAM) stream = NULL; /* two names of one */
    if (!q) return rail_fail(RAIL_E_SYSTEM, no_room);
    for (uint32_t k = 0; k < q->n_gpu_streams; k++)
        if (q->gpu_streams[k] == stream) return RAIL_OK;
    cu_stream *more = realloc(q->gpu_streams, (q->n_gpu_streams + 1) * sizeof *more);
    if (!more) return rail_fail(RAIL_E_SYSTEM, no_room);
    q->gpu_streams = more;
    q->gpu_streams[q->n_gpu_streams++] = stream;
    return RAIL_OK;
}

enum rail_result queue_add_onesided(struct queue **queues, struct onesided_op *op)
{
    struct queue *q = queue_of(queues, op->comm);
    if (q) return onesided_batch_add(&q->onesided, op);
    onesided_free(op);
    return rail_fail(RAIL_E_SYSTEM, "one-sided operation: out of memory for one more call of the group");
}

enum rail_result queues_predict(const struct queue *queues, double *ns)
{
    *ns = 0;
    for (const struct queue *q = queues; q; q = q->next) {
        double all = 0, one, messages = p2p_batch_predict(q->comm, &q->p2p);
        if (q->onesided.puts || q->onesided.waits)
            return rail_fail(RAIL_E_USAGE, "ncclGroupSimulateEnd: one-sided operations are not predicted, and were not "
                             "done; put collectives, sends and receives alone into the group");
        for (const struct queued_call *c = q->first; c; c = c->next) {
            RAIL_TRY(predict_collective(q->comm, &c->args, &one));
            all += one;
        }
        if (messages > all) all = messages;
        if (all > *ns) *ns = all;
    }
    return RAIL_OK;
}

void queues_free(struct queue *queues)
{
    while (queues) {
        struct queue *next = queues->next;
        while (queues->first) {
            struct queued_call *later = queues->first->next;
            free(queues->first);
            queues->first = later;
        }
        p2p_batch_free(&queues->p2p);
        free(queues->gpu_streams);
        onesided_batch_free(&queues->onesided);
        free(queues);
        queues = next;
    }
}

/* Runs a communicator's collectives as far as they go. RAIL_OK: all done. */
static enum rail_result collectives_progress(struct queue *q)
{
    while (q->first) {
        struct queued_call *c = q->first;
        enum rail_result result = c->running ? collective_progress(q->comm, &c->op)
                                               : collective_start(q->comm, &c->args, &c->op);
        c->running = true;
        if (result != RAIL_OK) return result;
        collective_done(q->comm, &c->args);
        q->first = c->next;
        free(c);
    }
    return RAIL_OK;
}

/* Sends and receives beside collectives: each must move for the other to be able to, at some other rank. */
static enum rail_result queue_progress(struct queue *q)
{
    enum rail_result result = p2p_batch_progress(q->comm, &q->p2p);
    if (result != RAIL_OK && result != RAIL_NOT_YET) return result;
    enum rail_result onesided = onesided_batch_progress(&q->onesided);
    if (onesided != RAIL_OK && onesided != RAIL_NOT_YET) return onesided;
    if (result == RAIL_OK) result = onesided;
    enum rail_result other = collectives_progress(q);
    return other == RAIL_OK ? result : other;
}

/* As in wait.c: a rank this late may have called something else. */
#define LONG_NS (100 * RAIL_NS_PER_MS)

/* Several communicators have several doorbells: after spinning and yielding, short naps instead of a futex. */
static void nap(struct waiter *w, const struct comm *comm)
{
    const struct wait_policy *policy = &comm->policy;
    if (w->looks == WAIT_SHOW_LOOKS) wait_show_core(w, policy, &comm->node.segment, comm->node.self);
    if (w->looks++ < (w->shared ? WAIT_FEW_LOOKS : policy->spins)) {
        wait_relax();
        return;
    }
    uint64_t now = rail_now_ns();
    if (!w->since_ns) w->since_ns = now;
    if (!w->began_ns) w->began_ns = now;
    if (now - w->since_ns < policy->awake_ns) {
        sched_yield();
        return;
    }
    struct timespec t = {0, 100000};
    nanosleep(&t, NULL);
    w->late = now - w->began_ns >= LONG_NS;
    if (w->late) w->began_ns = now; /* the next look at the peers' calls is due as late again */
}

/* One look at every queue. True while something is left. */
static bool look(struct queue *queues, enum rail_result *failure)
{
    bool left = false;
    for (struct queue *q = queues; q; q = q->next) {
        if (q->result != RAIL_NOT_YET) continue;
        q->result = queue_progress(q);
        if (q->result == RAIL_NOT_YET)
            left = true;
        else if (q->result != RAIL_OK && *failure == RAIL_OK)
            *failure = q->result;
    }
    return left;
}

static enum rail_result suspect(const struct queue *queues)
{
    static const struct host_op none;
    for (const struct queue *q = queues; q; q = q->next) {
        if (q->result != RAIL_NOT_YET) continue;
        bool alone = q->p2p.started && !q->first;
        if (!alone) RAIL_TRY(collective_suspect(q->comm, q->first ? &q->first->op : &none));
        if (q->p2p.started) RAIL_TRY(p2p_suspect(q->comm, alone));
        RAIL_TRY(onesided_batch_suspect(&q->onesided));
    }
    return RAIL_OK;
}

/* Who is kept from sleeping, by lanes or by naps that are too short to count, looks now and then all the same. */
static void look_busy(const struct queue *queues, struct busy *busy)
{
    if (__builtin_expect(++busy->turns % BUSY_TURNS != 0, 1)) return;
    for (const struct queue *q = queues; q; q = q->next)
        if (q->result == RAIL_NOT_YET && q->first) collective_look_slow(q->comm, &q->first->op, busy);
}

/* Whether messages have moved since the last look, even if none is through. */
static bool messages_moved(struct queue *queues)
{
    bool moved = false;
    for (struct queue *q = queues; q; q = q->next) {
        uint64_t now = p2p_moved(q->comm);
        moved |= q->moved != now;
        q->moved = now;
    }
    return moved;
}

/* A failed communicator fails the group's others: their peers will not get what they wait for. */
static void fail_all(struct queue *queues, enum rail_result failure)
{
    char text[512];
    bool mine = failure == RAIL_E_REVOKED || failure == RAIL_E_ABORTED; /* of that communicator: for others a lost rank */
    snprintf(text, sizeof text, "%s", rail_own_error());
    for (struct queue *q = queues; q; q = q->next)
        if (q->result == RAIL_NOT_YET && fault_raise(&q->comm->fault, mine ? RAIL_E_ABORTED : failure, text))
            bootstrap_tell(q->comm->bootstrap, q->comm->rank, mine ? RAIL_E_REMOTE : failure, text);
    for (struct queue *q = queues; q; q = q->next)
        if (q->first && q->first->running) collective_abandon(q->comm);
    rail_fail_quietly(failure, "%s", text);
}

enum rail_result queues_check(struct queue *queues)
{
    for (struct queue *q = queues; q; q = q->next) {
        RAIL_TRY(comm_check(q->comm, "ncclGroupEnd"));
        RAIL_TRY(p2p_batch_check(q->comm, &q->p2p));
    }
    return RAIL_OK;
}

/* Now that an abort waits for us: a communicator that was ended before is not touched. */
static enum rail_result enter(struct queue *queues)
{
    enum rail_result failure = RAIL_OK;
    for (struct queue *q = queues; q; q = q->next) {
        comm_enter(q->comm);
        q->result = comm_runs_check(q->comm, "ncclGroupEnd");
        if (q->result != RAIL_OK) failure = q->result;
        else q->result = RAIL_NOT_YET;
    }
    return failure;
}

enum rail_result queues_run(struct queue *queues)
{
    struct waiter w = {0};
    struct busy busy = {0};
    enum rail_result failure = enter(queues);
    bool network = false;
    for (struct queue *q = queues; q; q = q->next) network |= q->comm->policy.network;
    while (failure == RAIL_OK && look(queues, &failure) && failure == RAIL_OK) {
        if (__builtin_expect(wait_is_long(&w), 0) && (failure = suspect(queues)) != RAIL_OK) break;
        look_busy(queues, &busy);
        bool moved = messages_moved(queues), arrived = network && net_progress();
        if (queues->next && (moved || arrived))
            w = (struct waiter){0};
        else if (queues->next)
            nap(&w, queues->comm);
        else if (moved)
            wait_again(&w, &queues->comm->policy, &queues->comm->node.segment, queues->comm->node.self);
        else if (arrived)
            wait_restart(&w, &queues->comm->node.segment, queues->comm->node.self);
        else
            wait_pause(&w, &queues->comm->policy, &queues->comm->node.segment, queues->comm->node.self);
    }
    if (!queues->next) wait_end(&w, &queues->comm->policy, &queues->comm->node.segment, queues->comm->node.self);
    if (failure != RAIL_OK) fail_all(queues, failure);
    for (struct queue *q = queues; q; q = q->next) {
        if (q->p2p.started) p2p_batch_stop(q->comm, &q->p2p);
        comm_leave(q->comm);
    }
    return failure;
}
