/* collective.h - one collective from the caller's arguments to its completion. */
#ifndef RAIL_CORE_COLLECTIVE_H
#define RAIL_CORE_COLLECTIVE_H

#include "core/comm.h"

/* One call, as the caller gave it. */
struct collective {
    const char *call; /* "ncclAllReduce": for messages */
    enum plan_collective kind;
    const void *input;
    void *output;
    size_t count;  /* elements, of a block where buffers have a block per rank; the same on all ranks */
    int type, op;  /* op only where the kind reduces, root only where it has one */
    int root;
};

/* Checks everything that needs the communicator; called at once also inside a group. */
enum rail_result collective_check(const struct comm *comm, const struct collective *args);

/* What this rank's part is in bytes: 0 and not looked at where it gives, or gets, nothing. */
struct collective_extent {
    size_t block, input, output;
};
struct collective_extent collective_extent(const struct comm *comm, const struct collective *args);
/* How its values are combined; 64 bits of what it is, the same on all ranks. */
enum rail_result collective_resolve(const struct comm *comm, const struct collective *args, struct rail_combine *how);
uint64_t collective_signature(const struct collective *args);
/* The plans that run it, [call->split.n_channels], and what they are run with but for scratch. *instances NULL: it is
 * messages between all pairs (alltoall.h). Opens links as needed. */
enum rail_result collective_lay_out(struct comm *comm, const struct collective *args, const struct rail_combine *how,
                                    struct host_call *call, struct instance *const **instances);

/* Runs it to its end. */
enum rail_result collective_run(struct comm *comm, const struct collective *args);

/* The same in two steps, for a caller that drives several at once. RAIL_OK from start: already done. */
enum rail_result collective_start(struct comm *comm, const struct collective *args, struct host_op *op);
enum rail_result collective_progress(struct comm *comm, struct host_op *op);

/* It was begun, failed or is given up, and its buffers go back to the caller: nobody may be at them any more. */
void collective_abandon(struct comm *comm);

/* It is through: RAIL_OK came from run, start or progress. To be called by who drives (collective_run does). */
void collective_done(struct comm *comm, const struct collective *args);

/* For a caller that has waited for long: did the ranks call different things? `op` NULL: no operation of plans. */
enum rail_result collective_suspect(struct comm *comm, const struct host_op *op);

/* For a caller that lanes keep too busy to sleep, which is when others look (wait_is_long): looks all the same, once the
 * call is long. Cheap enough for every turn. */
enum { BUSY_TURNS = 64 }; /* between two: a turn takes a microsecond and more, when lanes are looked at */
struct busy { uint32_t turns; uint64_t began_ns; };
void collective_look_slow(struct comm *comm, const struct host_op *op, struct busy *busy);
static inline void collective_look_busy(struct comm *comm, const struct host_op *op, struct busy *busy)
{
    if (__builtin_expect(++busy->turns % BUSY_TURNS == 0, 0)) collective_look_slow(comm, op, busy);
}

/* While a thread works for the communicator, an abort from another thread waits for it to leave. */
void comm_enter(struct comm *comm);
void comm_leave(struct comm *comm);

/* Before comm_enter: RAIL_E_USAGE when another thread is inside, as far as a look can tell. Two threads in one
 * communicator would mix their data. */
enum rail_result comm_occupied(const char *call);
static inline enum rail_result comm_alone(const struct comm *comm, const char *call)
{
    bool occupied = atomic_load_explicit(&comm->inside, memory_order_relaxed) != 0;
    return __builtin_expect(occupied, 0) ? comm_occupied(call) : RAIL_OK;
}

/* After a failure that may be the echo of another: waits until the communicator's own news is there, at most a second. */
void comm_await_news(struct comm *comm);

/* Turns a failure inside a call into the communicator's fault, tells the other ranks, returns what to report. */
enum rail_result comm_failed(struct comm *comm, enum rail_result result);

#endif
