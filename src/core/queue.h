/* queue.h - calls that begin together and progress together: a list of queues, one per communicator.
 *
 * Collectives of one communicator run in call order, its sends and receives (p2p.h) and one-sided operations
 * (onesided.h) beside them, communicators side by side. A list belongs to one thread at a time. */
#ifndef RAIL_CORE_QUEUE_H
#define RAIL_CORE_QUEUE_H

#include "core/collective.h"
#include "core/comm.h"
#include "core/p2p.h"
#include "foreign/cuda.h"

/* One collective of a queue. */
struct queued_call {
    struct queued_call *next; /* of the same communicator, in call order */
    struct collective args;
    bool running;
    struct host_op op;
};

/* The calls of one communicator. */
struct queue {
    struct queue *next;
    struct comm *comm;
    struct queued_call *first, *last;
    struct p2p_batch p2p;
    struct onesided_batch onesided;
    uint32_t turn;  /* of what was posted to the communicator (posted.h) */
    uint64_t moved; /* by p2p, at the last look */
    cu_stream *gpu_streams; /* of a GPU rank: that its calls name, [n_gpu_streams] different ones */
    uint32_t n_gpu_streams;
    cu_stream gpu_launch;   /* where its launches go */
    enum rail_result result;
};

/* Append to the communicator's queue, making one at the end of the list when there is none. */
enum rail_result queue_add_collective(struct queue **queues, struct comm *comm, const struct collective *args);
enum rail_result queue_add_p2p(struct queue **queues, struct comm *comm, const struct p2p_call *args);
/* `stream` is one of those by which the queue's calls, of a GPU rank, are ordered. */
enum rail_result queue_on_gpu_stream(struct queue **queues, struct comm *comm, cu_stream stream);
/* Takes over what the operation holds, on failure too. */
enum rail_result queue_add_onesided(struct queue **queues, struct onesided_op *op);

/* Everything that can be found wrong before anything is started. */
enum rail_result queues_check(struct queue *queues);
/* Runs all to their end. A communicator that fails, or that another thread has ended, fails the list's others: their
 * peers will not get what they wait for. */
enum rail_result queues_run(struct queue *queues);
/* How long that would take: a communicator's collectives one after another, its messages beside them, communicators
 * side by side. RAIL_E_USAGE: there are calls that are not predicted. */
enum rail_result queues_predict(const struct queue *queues, double *ns);
void queues_free(struct queue *queues);

#endif
