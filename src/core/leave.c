/* leave.c - what a rank sent may still be on its way when its last call has returned, and its peers take a connection
 * that ends without a goodbye for a death. So a program that just ends would now and then fail its peers' last call. Its
 * communicators that nobody works for are drained and say goodbye: in 1 s for all of them, whatever the peers do. One
 * that is in the middle of something is left alone: that is a death. */
#include "core/leave.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/service.h"
#include "core/comm.h"
#include "core/comm_store.h"
#include "core/onesided.h"
#include "engine/calls.h"

#define LEAVE_NS RAIL_NS_PER_S

static bool idle(struct comm *comm)
{
    uint32_t nobody = 0;
    if (atomic_load(&comm->magic) != COMM_MAGIC || atomic_load(&comm->ending)) return false;
    if (atomic_load(&comm->fault.stop)) return false;
    if (atomic_load(&comm->posted) != atomic_load(&comm->ran)) return false; /* a stream still works */
    return atomic_compare_exchange_strong(&comm->inside, &nobody, 1);
}

/* Afterwards Destroy and Abort, by an exit handler of the program's that comes later, free what is left. */
static void leave(struct comm *comm, struct rail_deadline until)
{
    uint64_t alive = COMM_MAGIC;
    if (!idle(comm)) return;
    while (!wires_drained(&comm->wires) || !onesided_drained(comm)) {
        if (atomic_load(&comm->fault.stop) || rail_deadline_passed(until)) break;
        if (!net_progress()) sched_yield();
    }
    if (atomic_compare_exchange_strong(&comm->magic, &alive, COMM_LEFT)) {
        if (comm->node.segment.mapping) calls_close(&comm->node);
        bootstrap_close(comm->bootstrap);
        comm->bootstrap = NULL;
    }
    atomic_store_explicit(&comm->inside, 0, memory_order_release);
}

static void leave_all(void)
{
    if (service_is_self()) return;
    struct rail_deadline until = rail_deadline_in_ns(LEAVE_NS);
    for (struct comm *comm = comm_store_ever(); comm; comm = comm->next_ever) leave(comm, until);
}

static void add_exit_handler(void) { (void)atexit(leave_all); }

void leave_at_exit(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, add_exit_handler);
}
